/* What connector.h promises, for every connector.  PostgreSQL needs tests/with-postgres.sh around it. */
#include "../connector_util.h"
#include "base/clock.h"

struct backend {
	const struct pt_connector *type;
	char args[256], wrong_args[256];
	const char *many;  /* a SELECT of 100,000 rows (int64) */
	const char *param; /* a statement that gives back its only parameter as text */
};

static void test_queries(const struct backend *b, struct pt_conn *c)
{
	struct answer a = { 0 };

	is_int(ask(c, &a, "SELECT 1 AS one", NULL, false, NULL), 0, "a row %s", a.err.msg);
	is_str(a.text.p, "[1]\n", "as JSON");
	ok(c->type->affected(c) <= 1, "affected is -1 or what the source says");
	is_int(ask(c, &a, b->param, "[\"x'; --\"]", false, NULL), 0, "a parameter %s", a.err.msg);
	is_str(a.text.p, "[\"x'; --\"]\n", "is a value, never SQL");
	is_int(ask(c, &a, b->param, "[null]", false, NULL), 0, "NULL %s", a.err.msg);
	is_str(a.text.p, "[null]\n", "as null");
	ok(ask(c, &a, b->param, NULL, false, NULL) == PT_E_INVALID, "a parameter too few");
	ok(ask(c, &a, b->param, "[1,2]", false, NULL) == PT_E_INVALID, "one too many");
	ok(ask(c, &a, "SELECT 1; SELECT 2", NULL, false, NULL) == PT_E_QUERY, "two statements");
	ok(ask(c, &a, "SELEC 1", NULL, false, NULL) == PT_E_QUERY && a.err.native[0], "a syntax error with the source's code");
	ok(ask(c, &a, "CREATE TABLE contract (i integer)", NULL, false, NULL) == PT_E_QUERY && strstr(a.err.hint, "mode: write"),
	   "no write without being told to");
	is_int(ask(c, &a, "CREATE TABLE contract (i integer)", NULL, true, NULL), 0, "a statement without rows %s", a.err.msg);
	ok(!a.text.len && !a.types[0], "a stream without columns");
	is_int(ask(c, &a, "INSERT INTO contract VALUES (1), (2), (3)", NULL, true, NULL), 0, "insert");
	is_int(c->type->affected(c), 3, "affected");
	is_int(ask(c, &a, "DELETE FROM contract WHERE i < 3 RETURNING i", NULL, true, NULL), 0, "a write with rows %s",
	       a.err.msg);
	is_int(a.stats.rows, 2, "its rows");
	is_int(ask(c, &a, "SELECT i FROM contract", NULL, false, NULL), 0, "what is left");
	is_str(a.text.p, "[3]\n", "one row");
	ok(ask(c, &a, "INSERT INTO contract SELECT i / (i - 3) FROM contract WHERE i / (i - 3) > nosuch", NULL, true, NULL) ==
		   PT_E_QUERY,
	   "a write that fails");
	is_int(ask(c, &a, b->many, NULL, false, NULL), 0, "many rows %s", a.err.msg);
	is_int(a.stats.rows, 100000, "all of them");
	pt_buf_release(&a.text);
}

static void test_stream(const struct backend *b, struct pt_conn *c)
{
	struct pt_query q = { .sql = b->many };
	struct ArrowArrayStream s = { 0 };
	struct ArrowSchema schema[2];
	struct ArrowArray batch[2];
	struct answer a = { 0 };
	struct pt_cancel k;
	struct pt_err e;
	int64_t rows = 0;

	ok(pt_conn_query(c, &q, &s, &e) == 0, "a stream");
	ok(s.get_schema(&s, &schema[0]) == 0 && s.get_schema(&s, &schema[1]) == 0, "its schema, as often as wanted");
	ok(schema[0].n_children == 1 && !strcmp(schema[0].format, "+s"), "is a struct of the columns");
	ok(s.get_next(&s, &batch[0]) == 0 && s.get_next(&s, &batch[1]) == 0, "two batches at once");
	ok(batch[0].length > 0 && batch[0].length <= PT_BATCH_ROWS && batch[1].length > 0, "of some rows");
	ok(batch[0].children[0]->buffers[1] != batch[1].children[0]->buffers[1], "in memory of their own");
	rows = batch[0].length + batch[1].length;
	batch[0].release(&batch[0]);
	while (s.get_next(&s, &batch[0]) == 0 && batch[0].release) {
		rows += batch[0].length;
		batch[0].release(&batch[0]);
	}
	is_int(rows, 100000, "all rows");
	ok(s.get_next(&s, &batch[0]) == 0 && !batch[0].release, "the end stays the end");
	s.release(&s);
	ok(!s.release, "released");
	schema[0].release(&schema[0]);
	schema[1].release(&schema[1]);
	batch[1].release(&batch[1]); /* outlives its stream */

	ok(pt_conn_query(c, &q, &s, &e) == 0 && s.get_next(&s, &batch[0]) == 0 && batch[0].release, "another");
	batch[0].release(&batch[0]);
	s.release(&s);
	is_int(ask(c, &a, "SELECT 1", NULL, false, NULL), 0, "released early, the connection is usable");
	ok(pt_conn_query(c, &q, &s, &e) == 0, "another");
	s.release(&s);
	is_int(ask(c, &a, "SELECT 1", NULL, false, NULL), 0, "released unread, too");

	ok(pt_cancel_init(&k, &e) == 0, "a token");
	q.cancel = &k;
	ok(pt_conn_query(c, &q, &s, &e) == 0 && s.get_next(&s, &batch[0]) == 0 && batch[0].release, "a stream with it");
	batch[0].release(&batch[0]);
	pt_cancel_fire(&k, PT_E_CANCELLED, "by the contract");
	ok(s.get_next(&s, &batch[0]) != 0 && !batch[0].release && c->stream_err.code == PT_E_CANCELLED,
	   "cancelled between batches");
	is_str(s.get_last_error(&s), "by the contract", "the reason");
	ok(s.get_next(&s, &batch[0]) != 0, "which stays");
	s.release(&s);
	ok(pt_conn_query(c, &q, &s, &e) == PT_E_CANCELLED, "nothing starts with a fired token");
	pt_cancel_release(&k);
	ok(pt_cancel_init(&k, &e) == 0, "a token");
	k.deadline_ms = pt_mono_ms() - 1;
	ok(ask(c, &a, b->many, NULL, false, &k) == PT_E_DEADLINE, "nor after the deadline");
	is_int(ask(c, &a, "SELECT 1", NULL, false, NULL), 0, "and the connection is usable");
	pt_cancel_release(&k);
	pt_buf_release(&a.text);
}

static void test_backend(const struct backend *b)
{
	struct pt_conn *c = NULL;
	struct pt_cancel k;
	struct pt_err e;

	printf("# %s\n", b->type->name);
	ok(pt_connector_find(b->type->name) == b->type && b->type->args[0].name, "in the table, with its arguments documented");
	ok(open_json(b->type, &c, b->wrong_args, NULL, &e) == PT_E_INVALID && strstr(e.msg, "no_such_argument"),
	   "an unknown argument is named");
	ok(open_json(b->type, &c, "{}", NULL, &e) == PT_E_INVALID && strstr(e.msg, b->type->args[0].name), "and a missing one");
	ok(pt_cancel_init(&k, &e) == 0, "a token");
	pt_cancel_fire(&k, PT_E_CANCELLED, "at once");
	ok(open_json(b->type, &c, b->args, &k, &e) == PT_E_CANCELLED, "a fired token opens nothing");
	pt_cancel_release(&k);
	ok(open_json(b->type, &c, b->args, NULL, &e) == 0, "open (%s)", e.msg);
	if (!c)
		return;
	test_queries(b, c);
	test_stream(b, c);
	pt_conn_close(c);
}

int main(void)
{
	struct backend lite = {
		.type = &pt_connector_sqlite,
		.param = "SELECT ?1",
		.many = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM r WHERE i < 100000) SELECT i FROM r"
	};
	struct backend pg = { .type = &pt_connector_postgres,
			      .param = "SELECT $1::text",
			      .many = "SELECT generate_series(1::int8, 100000)" };
	char path[] = "/tmp/postern-contract.XXXXXX";
	int fd = mkstemp(path);

	if (fd < 0)
		return 1;
	close(fd);
	snprintf(lite.args, sizeof(lite.args), "{\"path\":\"%s\"}", path);
	snprintf(lite.wrong_args, sizeof(lite.wrong_args), "{\"path\":\"%s\",\"no_such_argument\":1}", path);
	test_backend(&lite);
	unlink(path);
	if (getenv("PGPORT")) {
		snprintf(pg.args, sizeof(pg.args), "{\"host\":\"%s\",\"port\":%s,\"user\":\"postgres\"}", getenv("PG_SOCKET_DIR"),
			 getenv("PGPORT"));
		snprintf(pg.wrong_args, sizeof(pg.wrong_args), "{\"host\":\"x\",\"user\":\"x\",\"no_such_argument\":1}");
		test_backend(&pg);
	} else {
		ok(1, "PostgreSQL # SKIP no server");
	}
	return tap_end();
}
