/* Log lines come in: checked and put into their form on the HTTP thread, stored by the log writer; and they go, by age and by bytes. */
#include "gateway/logs.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/json_write.h"
#include "base/log.h"
#include <stdio.h>
#include <uthash.h>

enum {
	BACKLOG_MAX = 64, /* batches that wait for the log writer: beyond, agents keep theirs for a while */
	TICK_MS = 1000,
	PURGE_CHUNKS = 16, /* of one tick or batch, so that no transaction becomes long */
	PURGE_MARKS = 256,
	TEXT_MAX = 1024 * 1024,
};
/* Numbers of chunks stay below it, so that ids of lines stay below 2^53. */
#define NUMBER_MAX (UINT64_C(1) << 43)

static const struct pt_field chunk_fields[] = {
	PT_F(struct pt_rec_log_chunk, n, PT_T_ID, PT_KEY), PT_F(struct pt_rec_log_chunk, account, PT_T_ID, 0),
	PT_F(struct pt_rec_log_chunk, agent, PT_T_ID, 0),  PT_F(struct pt_rec_log_chunk, received, PT_T_I64, 0),
	PT_F(struct pt_rec_log_chunk, bytes, PT_T_I64, 0), PT_F(struct pt_rec_log_chunk, text, PT_T_STR, 0),
};
static const struct pt_shape chunk_shape = PT_SHAPE("log_chunk", struct pt_rec_log_chunk, chunk_fields);
static const struct pt_field operation_fields[] = {
	PT_F(struct pt_rec_log_operation, operation, PT_T_ID, PT_KEY),
	PT_F(struct pt_rec_log_operation, n, PT_T_ID, PT_KEY),
};
static const struct pt_shape operation_shape = PT_SHAPE("log_operation", struct pt_rec_log_operation, operation_fields);
static const struct pt_field mark_fields[] = {
	PT_F(struct pt_rec_log_mark, agent, PT_T_ID, PT_KEY),
	PT_F(struct pt_rec_log_mark, instance, PT_T_ID, PT_KEY),
	PT_F(struct pt_rec_log_mark, last, PT_T_I64, 0),
	PT_F(struct pt_rec_log_mark, at, PT_T_I64, 0),
};
static const struct pt_shape mark_shape = PT_SHAPE("log_mark", struct pt_rec_log_mark, mark_fields);
static const struct pt_field total_fields[] = {
	PT_F(struct pt_rec_log_total, account, PT_T_ID, PT_KEY),
	PT_F(struct pt_rec_log_total, bytes, PT_T_I64, 0),
};
static const struct pt_shape total_shape = PT_SHAPE("log_total", struct pt_rec_log_total, total_fields);

static const struct pt_index chunk_indexes[] = { { .name = "log_chunks_by_agent", .cols = { "agent" } },
						 { .name = "log_chunks_by_account", .cols = { "account" } } };
static const struct pt_index operation_indexes[] = { { .name = "log_operations_by_chunk", .cols = { "n" } } };
static const struct pt_index mark_indexes[] = { { .name = "log_marks_by_at", .cols = { "at" } } };

const struct pt_table pt_log_chunks = { .name = "log_chunks", .shape = &chunk_shape, .indexes = chunk_indexes, .n_indexes = 2 };
const struct pt_table pt_log_operations = {
	.name = "log_operations", .shape = &operation_shape, .indexes = operation_indexes, .n_indexes = 1
};
const struct pt_table pt_log_marks = { .name = "log_marks", .shape = &mark_shape, .indexes = mark_indexes, .n_indexes = 1 };
const struct pt_table pt_log_totals = { .name = "log_totals", .shape = &total_shape };
static const struct pt_table *const tables[] = { &pt_log_chunks, &pt_log_operations, &pt_log_marks, &pt_log_totals, NULL };

void pt_rec_log_chunk_release(struct pt_rec_log_chunk *r)
{
	pt_shape_release(&chunk_shape, r);
}

void pt_log_chunk_name(uint64_t n, char out[static PT_ID_SIZE])
{
	snprintf(out, PT_ID_SIZE, "%016llx", (unsigned long long)n);
}

/* --- retention --- */

struct chunk_ref {
	char n[PT_ID_SIZE], account[PT_ID_SIZE];
	int64_t bytes;
};
struct collect {
	struct pt_list list;                 /* of struct chunk_ref, or of ids */
	int64_t received_before, bytes_over; /* until one of these is reached */
	struct pt_err *err;
};

static int collect_chunk(void *arg, void *rec)
{
	struct collect *c = arg;
	const struct pt_rec_log_chunk *k = rec;
	struct chunk_ref r = { .bytes = k->bytes };
	int rc;

	if (k->received >= c->received_before && c->bytes_over <= 0)
		return 1;
	c->bytes_over -= k->bytes;
	pt_id_copy(r.n, k->n);
	pt_id_copy(r.account, k->account);
	rc = pt_list_append(&c->list, sizeof(r), &r, c->err);
	return rc < 0 ? rc : 0;
}

static int collect_operation(void *arg, void *rec)
{
	struct collect *c = arg;
	int rc = pt_list_append(&c->list, PT_ID_SIZE, ((struct pt_rec_log_operation *)rec)->operation, c->err);

	return rc < 0 ? rc : 0;
}

static int add_total(struct pt_tx *tx, const char *account, int64_t bytes, int64_t *ret_now, struct pt_err *err)
{
	struct pt_rec_log_total t = { 0 };
	int rc;

	pt_id_copy(t.account, account);
	rc = pt_tx_get(tx, &pt_log_totals, &t, err);
	if (rc < 0 && rc != PT_E_NOT_FOUND)
		return rc;
	t.bytes += bytes;
	*ret_now = t.bytes;
	return rc < 0 ? pt_tx_insert(tx, &pt_log_totals, &t, err) : pt_tx_update(tx, &pt_log_totals, &t, err);
}

static int remove_chunk(struct pt_gateway *g, struct pt_tx *tx, const struct chunk_ref *r, struct pt_err *err)
{
	struct pt_rec_log_operation m = { 0 };
	struct pt_rec_log_chunk k = { 0 };
	struct collect ops = { .err = err };
	int64_t now;
	int rc;

	pt_id_copy(m.n, r->n);
	pt_id_copy(k.n, r->n);
	rc = pt_tx_scan(tx, &pt_log_operations,
			&(struct pt_scan) { .index = &pt_log_operations_by_chunk, .match = &m, .n_eq = 1 }, collect_operation,
			&ops, err);
	for (size_t i = 0; rc == 0 && i < ops.list.n; i++) {
		pt_id_copy(m.operation, (const char *)ops.list.items + i * PT_ID_SIZE);
		rc = pt_tx_remove(tx, &pt_log_operations, &m, err);
	}
	free(ops.list.items);
	if (rc == 0)
		rc = pt_tx_remove(tx, &pt_log_chunks, &k, err);
	if (rc == 0)
		rc = add_total(tx, r->account, -r->bytes, &now, err);
	g->logs->expired += rc == 0;
	return rc;
}

static int purge(struct pt_gateway *g, struct pt_tx *tx, const struct pt_scan *q, struct collect *c, struct pt_err *err)
{
	int rc;

	c->err = err;
	rc = pt_tx_scan(tx, &pt_log_chunks, q, collect_chunk, c, err);
	for (size_t i = 0; rc == 0 && i < c->list.n; i++)
		rc = remove_chunk(g, tx, (struct chunk_ref *)c->list.items + i, err);
	free(c->list.items);
	return rc;
}

static int collect_mark(void *arg, void *rec)
{
	struct collect *c = arg;
	int rc = pt_list_append(&c->list, sizeof(struct pt_rec_log_mark), rec, c->err); /* owns no memory */

	return rc < 0 ? rc : 0;
}

static int purge_marks(struct pt_tx *tx, int64_t before, struct pt_err *err)
{
	struct collect c = { .err = err };
	int rc = pt_tx_scan(
		tx, &pt_log_marks,
		&(struct pt_scan) {
			.index = &pt_log_marks_by_at, .has_less_than = true, .less_than = before, .limit = PURGE_MARKS },
		collect_mark, &c, err);

	for (size_t i = 0; rc == 0 && i < c.list.n; i++)
		rc = pt_tx_remove(tx, &pt_log_marks, (struct pt_rec_log_mark *)c.list.items + i, err);
	free(c.list.items);
	return rc;
}

static int tick(void *arg, struct pt_tx *tx, struct pt_err *err)
{
	struct pt_gateway *g = arg;
	int64_t before = pt_gateway_now(g) - g->log_retention_ms;
	struct collect c = { .received_before = before };
	int rc = purge(g, tx, &(struct pt_scan) { .limit = PURGE_CHUNKS }, &c, err);

	return rc < 0 ? rc : purge_marks(tx, before, err);
}

/* --- a batch --- */

struct known { /* an operation that lines are about */
	char id[PT_ID_SIZE];
	bool ours;
	size_t last; /* its last line's place */
	UT_hash_handle hh;
};
struct place {
	int64_t seq;
	size_t offset; /* in text */
};
struct batch {
	struct pt_call *c;
	struct pt_buf text;
	struct place *places; /* of the lines in text */
	size_t n;
	struct known *known;
	int64_t last, ignored;
	bool news;
};

static void batch_free(void *extra)
{
	struct batch *b = extra;
	struct known *k, *tmp;

	HASH_ITER(hh, b->known, k, tmp) {
		HASH_DEL(b->known, k);
		free(k);
	}
	pt_buf_release(&b->text);
	free(b->places);
	free(b);
}

/* Is the operation this agent's?  Looked up once in a batch. */
static int look_up(struct batch *b, struct pt_tx *tx, const char *id, struct known **ret, struct pt_err *err)
{
	struct known *k;

	HASH_FIND_STR(b->known, id, k);
	if (!k) {
		pt_auto_rec(operation) op = { 0 };
		int rc = pt_find_operation(tx, b->c->who.account, id, &op, err);

		if (rc < 0 && rc != PT_E_NOT_FOUND)
			return rc;
		k = calloc(1, sizeof(*k));
		if (!k)
			return pt_fail_oom(err);
		pt_id_copy(k->id, id);
		k->ours = rc == 0 && strcmp(op.agent, b->c->who.agent) == 0;
		HASH_ADD_STR(b->known, id, k);
	}
	*ret = k;
	return PT_OK;
}

static int level_of(const char *name)
{
	static const char *const names[] = { "debug", "info", "warn" };
	int i = 0;

	while (i < (int)PT_COUNT(names) && strcmp(names[i], name) != 0)
		i++;
	return i;
}

/* The line as clients see it, but for its id. */
static void write_line(struct batch *b, const struct pt_shipped_line *l, const char *operation)
{
	const struct pt_log_batch *in = b->c->body;
	const char *attempt = json_string_value(json_object_get(l->fields, "attempt"));
	struct pt_buf *t = &b->text;

	pt_buf_fmt(t, "%d %s\t{", level_of(l->level), operation ? operation : "-");
	pt_jw_time(t, "at", l->at);
	pt_jw_str(t, "level", l->level);
	pt_jw_str(t, "msg", l->msg);
	pt_jw_str(t, "operation", operation);
	if (operation && attempt && strlen(attempt) < 10 && strspn(attempt, "0123456789") == strlen(attempt) && *attempt)
		pt_jw_i64(t, "attempt", strtoll(attempt, NULL, 10));
	pt_jw_str(t, "instance", in->instance);
	pt_jw_i64(t, "seq", l->seq);
	if (operation) { /* said already */
		(void)json_object_del(l->fields, "operation");
		(void)json_object_del(l->fields, "attempt");
	}
	pt_jw_key(t, "fields");
	if (l->fields)
		pt_json_write(t, l->fields);
	else
		pt_buf_str(t, "{}");
	pt_buf_str(t, "}\n");
}

static int prepare_line(struct batch *b, struct pt_tx *tx, const struct pt_shipped_line *l, struct pt_err *err)
{
	const char *operation = json_string_value(json_object_get(l->fields, "operation"));
	struct known *k = NULL;
	int rc;

	if (l->seq <= b->last)
		return pt_fail(err, PT_E_INVALID, "lines: seq %lld does not come after %lld", (long long)l->seq,
			       (long long)b->last);
	b->last = l->seq;
	if (operation && (rc = look_up(b, tx, operation, &k, err)) < 0)
		return rc;
	if (k && !k->ours) {
		b->ignored++;
		return PT_OK;
	}
	if (k)
		k->last = b->n;
	b->places[b->n++] = (struct place) { l->seq, b->text.len };
	write_line(b, l, operation);
	return PT_OK;
}

static int prepare(struct batch *b, struct pt_err *err)
{
	const struct pt_log_batch *in = b->c->body;
	const struct pt_shipped_line *l = in->lines.items;
	pt_auto(pt_tx_rollbackp) struct pt_tx *tx = NULL;
	int rc;

	if (!pt_id_valid(in->instance, "in"))
		return pt_fail(err, PT_E_INVALID, "instance: '%.39s' is not an instance's id", in->instance);
	b->places = calloc(in->lines.n ? in->lines.n : 1, sizeof(*b->places));
	if (!b->places)
		return pt_fail_oom(err);
	rc = pt_db_begin(b->c->g->db, false, &tx, err);
	for (size_t i = 0; rc == 0 && i < in->lines.n; i++)
		rc = prepare_line(b, tx, &l[i], err);
	return rc < 0 ? rc : pt_buf_done(&b->text, err);
}

/* Store the lines from place number `from` on. */
static int store(struct batch *b, struct pt_tx *tx, size_t from, struct pt_err *err)
{
	struct pt_gateway *g = b->c->g;
	struct pt_rec_log_chunk k = { .received = pt_gateway_now(g), .text = b->text.p + b->places[from].offset };
	struct pt_rec_log_operation o = { 0 };
	struct pt_rec_log_chunk m = { 0 };
	int64_t total;
	int rc;

	k.bytes = (int64_t)(b->text.len - b->places[from].offset);
	pt_log_chunk_name(g->logs->next++, k.n);
	pt_id_copy(k.account, b->c->who.account);
	pt_id_copy(k.agent, b->c->who.agent);
	pt_id_copy(o.n, k.n);
	rc = pt_tx_insert(tx, &pt_log_chunks, &k, err);
	for (struct known *w = b->known; rc == 0 && w; w = w->hh.next) {
		if (!w->ours || w->last < from)
			continue;
		pt_id_copy(o.operation, w->id);
		rc = pt_tx_insert(tx, &pt_log_operations, &o, err);
	}
	if (rc == 0)
		rc = add_total(tx, k.account, k.bytes, &total, err);
	if (rc == 0 && total > g->log_max_bytes) {
		struct collect c = { .bytes_over = total - g->log_max_bytes };

		pt_id_copy(m.account, k.account);
		rc = purge(
			g, tx,
			&(struct pt_scan) { .index = &pt_log_chunks_by_account, .match = &m, .n_eq = 1, .limit = PURGE_CHUNKS },
			&c, err);
	}
	return rc;
}

static int run(struct pt_tx *tx, struct pt_write_job *job, struct pt_err *err)
{
	struct pt_call *c = pt_container_of(job, struct pt_call, job);
	const struct pt_log_batch *in = c->body;
	struct batch *b = c->extra;
	struct pt_rec_log_mark m = { 0 };
	size_t from = 0;
	int rc, known;

	pt_id_copy(m.agent, c->who.agent);
	pt_id_copy(m.instance, in->instance);
	known = pt_tx_get(tx, &pt_log_marks, &m, err);
	if (known < 0 && known != PT_E_NOT_FOUND)
		return known;
	while (from < b->n && b->places[from].seq <= m.last)
		from++;
	b->news = from < b->n;
	if (b->news && (rc = store(b, tx, from, err)) < 0)
		return rc;
	if (b->last > m.last) {
		m.last = b->last;
		m.at = pt_gateway_now(c->g);
		rc = known < 0 ? pt_tx_insert(tx, &pt_log_marks, &m, err) : pt_tx_update(tx, &pt_log_marks, &m, err);
		if (rc < 0)
			return rc;
	}
	pt_buf_clear(&c->out);
	pt_shape_write(&pt_log_response_shape,
		       &(struct pt_log_response) {
			       .accepted = (int64_t)(b->n - from), .duplicates = (int64_t)from, .ignored = b->ignored },
		       &c->out);
	c->g->logs->lines += b->n - from;
	c->g->logs->duplicates += from;
	c->g->logs->ignored += (uint64_t)b->ignored;
	return PT_OK;
}

static void done(struct pt_write_job *job, int rc)
{
	struct pt_call *c = pt_container_of(job, struct pt_call, job);

	if (rc < 0) {
		pt_call_fail(c, &job->err);
		return;
	}
	if (((struct batch *)c->extra)->news)
		pt_log_news(c->g, c->who.agent);
	pt_call_reply(c);
}

void pt_api_logs_intake(struct pt_call *c)
{
	struct pt_logs *l = c->g->logs;
	struct batch *b = calloc(1, sizeof(*b));
	struct pt_err err = { 0 };
	int rc;

	if (!b) {
		(void)pt_fail_oom(&err);
		pt_call_fail(c, &err);
		return;
	}
	b->c = c;
	b->text = (struct pt_buf)PT_BUF_INIT(TEXT_MAX);
	c->extra = b;
	c->extra_free = batch_free;
	rc = prepare(b, &err);
	if (rc == 0 && pt_writer_backlog(l->writer) > BACKLOG_MAX)
		rc = pt_fail(&err, PT_E_UNAVAILABLE, "too many log lines are being stored");
	if (rc < 0) {
		pt_call_fail(c, &err);
		return;
	}
	c->job.run = run;
	c->job.done = done;
	pt_http_hold(c->req, NULL, NULL);
	pt_writer_submit(l->writer, &c->job);
}

/* --- start and stop --- */

static int newest(void *arg, void *rec)
{
	pt_id_copy(arg, ((struct pt_rec_log_chunk *)rec)->n);
	return 1;
}

static int open_db(struct pt_logs *l, const char *url, uint64_t since, struct pt_err *err)
{
	pt_auto(pt_tx_rollbackp) struct pt_tx *tx = NULL;
	char n[PT_ID_SIZE] = "";
	int rc = pt_db_open(&l->db, url, tables, err);

	if (rc == 0)
		rc = pt_db_begin(l->db, false, &tx, err);
	if (rc == 0)
		rc = pt_tx_scan(tx, &pt_log_chunks, &(struct pt_scan) { .desc = true, .limit = 1 }, newest, n, err);
	l->next = strtoull(n, NULL, 16) + 1;
	if (l->next < since && since < NUMBER_MAX) /* also after all chunks are gone: who follows by an id misses nothing */
		l->next = since;
	return rc;
}

/* A damaged file with log lines must not keep operations waiting: it is kept aside. */
static int set_aside(const char *url, const struct pt_err *why, struct pt_err *err)
{
	static const char *const rests[] = { "-wal", "-shm" };
	const char *path = url + strlen("sqlite:");
	pt_auto_buf to = PT_BUF_INIT(4096);

	pt_buf_fmt(&to, "%s.damaged", path);
	if (pt_buf_done(&to, err) < 0 || rename(path, to.p) < 0)
		return pt_fail_sys(err, PT_E_IO, "rename '%s'", path);
	pt_error("the database with log lines is damaged; it is kept aside, and a new one begins", "file", to.p, "error",
		 why->msg);
	for (size_t i = 0; i < PT_COUNT(rests); i++) {
		pt_auto_buf rest = PT_BUF_INIT(4096);

		pt_buf_fmt(&rest, "%s%s", path, rests[i]);
		(void)unlink(rest.p); /* they may not be there */
	}
	return PT_OK;
}

static int open_or_renew(struct pt_logs *l, const char *database, uint64_t since, struct pt_err *err)
{
	bool file = strncmp(database, "sqlite:", 7) == 0;
	pt_auto_buf url = PT_BUF_INIT(4096);
	struct pt_err why = { 0 };
	int rc;

	pt_buf_fmt(&url, "%s%s", database, file ? ".logs" : "");
	rc = pt_buf_done(&url, err);
	if (rc < 0)
		return rc;
	rc = open_db(l, url.p, since, &why);
	if (rc == PT_E_CORRUPT && file) {
		pt_db_close(pt_steal(&l->db));
		rc = set_aside(url.p, &why, err);
		return rc < 0 ? rc : pt_err_wrap(err, open_db(l, url.p, since, err), "log lines");
	}
	*err = why;
	return pt_err_wrap(err, rc, "log lines");
}

int pt_logs_start(struct pt_gateway *g, const char *database, struct pt_err *err)
{
	struct pt_writer_hooks hooks = { .arg = g, .tick = tick, .tick_ms = TICK_MS };
	struct pt_logs *l = calloc(1, sizeof(*l));
	int rc;

	if (!l)
		return pt_fail_oom(err);
	g->logs = l;
	rc = open_or_renew(l, database, (uint64_t)pt_gateway_now(g), err);
	if (rc == 0)
		rc = pt_writer_start(&l->writer, l->db, &hooks, err);
	return rc < 0 ? rc : pt_log_readers_start(g, err);
}

void pt_logs_free(struct pt_gateway *g)
{
	if (!g->logs)
		return;
	pt_writer_stop(g->logs->writer);
	pt_db_close(g->logs->db);
	free(g->logs);
	g->logs = NULL;
}

void pt_logs_stats(struct pt_gateway *g, struct pt_logs_stats *ret)
{
	*ret = (struct pt_logs_stats) { .lines = g->logs->lines,
					.duplicates = g->logs->duplicates,
					.ignored = g->logs->ignored,
					.expired = g->logs->expired };
}
