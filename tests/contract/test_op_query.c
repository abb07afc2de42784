/* query from a lease to JSON Lines, on a SQLite file whose credential is a FILE. */
#include "../tap.h"
#include "../op_run.h"
#include <pthread.h>
#include <sys/stat.h>

static char dir[] = "/tmp/postern-query-XXXXXX";

static const char *in_dir(const char *name)
{
	static char path[4][128];
	static int n;
	char *p = path[n++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	return p;
}

static void write_file(const char *name, const char *text)
{
	FILE *f = fopen(in_dir(name), "w");

	pt_assert(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void *fire_when_rows_came(void *arg)
{
	struct op_run *r = arg;

	for (int i = 0; i < 1000 && !r->rows; i++)
		usleep(5000);
	pt_cancel_fire(&r->cancel, PT_E_CANCELLED, "cancelled by ada");
	return NULL;
}

static void results(struct op_run *r)
{
	const struct pt_column *c;
	struct pt_err err;

	is_int(op_do(r, "query", "{\"sql\":\"CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT)\",\"mode\":\"write\"}", &err), 0,
	       "a table");
	ok(!r->head.body_format && r->head.columns.n == 0 && r->head.rows == 0 && r->text.len == 0, "gives no rows and no body");
	is_int(op_do(r, "query",
		     "{\"sql\":\"INSERT INTO t(name) VALUES (?),(?),(?)\",\"params\":[\"a\",null,\"c\\\"d\"],\"mode\":\"write\"}",
		     &err),
	       0, "rows with parameters");
	is_int(r->head.affected, 3, "affected");
	is_int(op_do(r, "query", "{\"sql\":\"SELECT id, name FROM t ORDER BY id\"}", &err), 0, "a query");
	c = r->head.columns.items;
	ok(r->head.columns.n == 2 && strcmp(c[0].name, "id") == 0 && strcmp(c[0].type, "int64") == 0 &&
		   strcmp(c[1].name, "name") == 0,
	   "columns");
	is_str(r->text.p, "[1,\"a\"]\n[2,null]\n[3,\"c\\\"d\"]\n", "rows");
	ok(r->head.rows == 3 && r->head.bytes == (int64_t)r->text.len && !r->head.partial, "counted");
	ok(r->rows == 3 && r->bytes == r->head.bytes, "as progress too");
	is_str(r->head.body_format, "jsonl", "as JSON Lines");

	r->lease.limits.max_rows = 2;
	is_int(op_do(r, "query", "{\"sql\":\"SELECT id FROM t ORDER BY id\"}", &err), 0, "a row limit");
	is_str(r->text.p, "[1]\n[2]\n", "ends the result");
	is_str(r->head.partial, "row_limit", "and is said");
	is_int(op_do(r, "query",
		     "{\"sql\":\"INSERT INTO t(name) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < "
		     "5000) "
		     "SELECT 'z' FROM n RETURNING id\",\"mode\":\"write\"}",
		     &err),
	       0, "a row limit on a write");
	ok(r->head.rows == 2 && r->head.partial && r->head.affected == 5000, "cuts its rows");
	r->lease.limits.max_rows = 0;
	is_int(op_do(r, "query", "{\"sql\":\"SELECT count(*) FROM t WHERE name = 'z'\"}", &err), 0, "but not");
	is_str(r->text.p, "[5000]\n", "its effect");
	r->lease.limits.max_bytes = 9;
	is_int(op_do(r, "query", "{\"sql\":\"SELECT id FROM t ORDER BY id\"}", &err), 0, "a byte limit");
	is_str(r->text.p, "[1]\n[2]\n", "keeps whole rows");
	is_str(r->head.partial, "byte_limit", "and is said");
	r->lease.limits.max_bytes = 0;
}

static void failures(struct op_run *r)
{
	struct pt_err err;
	pthread_t t;
	int64_t start;

	ok(op_do(r, "query", "{\"sql\":\"DELETE FROM t\"}", &err) == PT_E_QUERY || err.code == PT_E_SOURCE_DENIED,
	   "read mode writes nothing");
	is_int(op_do(r, "query", "{\"sql\":\"SELEC 1\"}", &err), PT_E_QUERY, "a bad statement");
	is_str(err.native, "1", "with the source's own code");
	ok(!r->head.body_format && !r->head.document, "has no result");
	is_int(op_do(r, "query",
		     "{\"sql\":\"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) "
		     "SELECT CASE WHEN i = 90000 THEN abs(-9223372036854775808) ELSE i END FROM n\"}",
		     &err),
	       PT_E_QUERY, "a failure after rows came");
	ok(!r->head.body_format && r->head.rows > 1000, "is no result; it tells how many rows there were: %d", (int)r->head.rows);
	r->body_fails_after = 1000;
	is_int(op_do(r, "query",
		     "{\"sql\":\"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) "
		     "SELECT i FROM n\"}",
		     &err),
	       PT_E_IO, "a full spool ends it");
	r->body_fails_after = 0;

	r->lease.connection_type = (char *)(uintptr_t) "oracle9";
	is_int(op_do(r, "query", "{\"sql\":\"SELECT 1\"}", &err), PT_E_UNSUPPORTED, "an unknown connection type");
	ok(strstr(err.hint, "sqlite"), "the hint lists what there is: %s", err.hint);
	r->lease.connection_type = NULL;
	is_int(op_do(r, "query", "{\"sql\":\"SELECT 1\"}", &err), PT_E_INVALID, "no integration");
	r->lease.connection_type = (char *)(uintptr_t) "sqlite";
	r->lease.credential.file_path = (char *)(uintptr_t) "/etc/passwd";
	is_int(op_do(r, "query", "{\"sql\":\"SELECT 1\"}", &err), PT_E_DENIED, "a file outside the allowed folder");
	write_file("bad.json", "{\"connect_args\": \"s3cret\"");
	r->lease.credential.file_path = (char *)(uintptr_t)in_dir("bad.json");
	is_int(op_do(r, "query", "{\"sql\":\"SELECT 1\"}", &err), PT_E_CREDENTIAL, "a secret that is not JSON");
	ok(!strstr(err.msg, "s3cret") && !strstr(err.hint, "s3cret"), "is not shown");
	r->lease.credential.file_path = (char *)(uintptr_t)in_dir("secret.json");

	start = pt_mono_ms();
	r->cancel.deadline_ms = start + 200;
	is_int(op_do(r, "query",
		     "{\"sql\":\"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n\"}",
		     &err),
	       PT_E_DEADLINE, "the deadline ends a query");
	ok(pt_mono_ms() - start < 1200, "within a second");
	r->cancel.deadline_ms = INT64_MAX;
	op_run_clear(r); /* progress is 0 before the thread looks */
	pthread_create(&t, NULL, fire_when_rows_came, r);
	is_int(op_do(r, "query", "{\"sql\":\"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n\"}",
		     &err),
	       PT_E_CANCELLED, "a cancel ends rows without end");
	pthread_join(t, NULL);
}

int main(void)
{
	pt_auto_buf secret = PT_BUF_INIT(1024);
	struct op_run r;

	pt_assert(mkdtemp(dir));
	pt_buf_fmt(&secret, "{\"connect_args\":{\"path\":\"%s\"}}", in_dir("data.db"));
	write_file("secret.json", secret.p);
	write_file("data.db", "");
	op_run_init(&r);
	r.credential.dirs = dir;
	r.lease.connection_type = (char *)(uintptr_t) "sqlite";
	r.lease.credential = (struct pt_credential_ref) { .type = (char *)(uintptr_t) "FILE",
							  .file_path = (char *)(uintptr_t)in_dir("secret.json") };
	results(&r);
	failures(&r);
	op_run_release(&r);
	for (size_t i = 0; i < 5; i++) {
		static const char *const names[] = { "secret.json", "bad.json", "data.db", "data.db-wal", "data.db-shm" };

		(void)unlink(in_dir(names[i]));
	}
	ok(rmdir(dir) == 0, "nothing is left behind");
	return tap_end();
}
