/* query: one SQL statement on an integration's data source, its rows streamed into the result's body. */
#include "base/clock.h"
#include "connector/rows.h"
#include "op/op.h"
#include <stdatomic.h>

enum { SQL_MAX = 1 << 20 };

struct query_input {
	char *sql;
	json_t *params;
	char *mode;
};
static const char *const modes[] = { "read", "write", NULL };
static const struct pt_field query_fields[] = {
	PT_F(struct query_input, sql, PT_T_STR, PT_REQUIRED, .max = SQL_MAX, .help = "one statement"),
	PT_F(struct query_input, params, PT_T_JSON, 0, .help = "array of values for its placeholders"),
	PT_F(struct query_input, mode, PT_T_STR, 0, .values = modes, .help = "read (a read-only transaction) or write; read"),
};
static const struct pt_shape query_shape = PT_SHAPE("input", struct query_input, query_fields);

static int query_check(const void *input, struct pt_err *err)
{
	const struct query_input *in = input;

	if (!in->sql[strspn(in->sql, " \t\r\n;")])
		return pt_fail(err, PT_E_INVALID, "sql: is empty");
	if (in->params && !json_is_null(in->params) && !json_is_array(in->params))
		return pt_fail(err, PT_E_INVALID, "params: expected an array, got %s", pt_json_type_name(in->params));
	return PT_OK;
}

/* The stream of a statement that was started. */
static void stream_release(struct ArrowArrayStream *s)
{
	if (s->release)
		s->release(s);
}

struct out {
	struct pt_op_run *run;
	int64_t rows, bytes; /* given to the body */
};

static int on_lines(void *arg, const char *p, size_t n, struct pt_err *err)
{
	struct out *o = arg;
	int rc = o->run->body->write(o->run->body, p, n, err);

	if (rc < 0)
		return rc;
	o->bytes += (int64_t)n;
	for (const char *end = p + n; (p = memchr(p, '\n', (size_t)(end - p))); p++)
		o->rows++;
	if (o->run->rows)
		atomic_store(o->run->rows, o->rows);
	if (o->run->bytes)
		atomic_store(o->run->bytes, o->bytes);
	return pt_cancel_check(o->run->cancel, err);
}

/* A statement that writes is run to its end when a limit cut its rows short: releasing the stream early would cancel it, and
 * undo what the result calls done. */
static int finish(struct ArrowArrayStream *s, struct pt_conn *conn, const struct pt_cancel *cancel, struct pt_err *err)
{
	for (;;) {
		struct ArrowArray a = { 0 };
		int rc = pt_cancel_check(cancel, err);

		if (rc < 0)
			return rc;
		if (s->get_next(s, &a) != 0) {
			if (!conn->stream_err.code)
				return pt_fail(err, PT_E_INTERNAL, "reading rows failed");
			*err = conn->stream_err;
			return err->code;
		}
		if (!a.release)
			return PT_OK;
		a.release(&a);
	}
}

static int run_statement(struct pt_op_run *run, struct pt_conn *conn, const struct query_input *in, struct pt_err *err)
{
	struct pt_query q = { .sql = in->sql,
			      .params = json_is_array(in->params) ? in->params : NULL,
			      .operation = run->lease->operation,
			      .attempt = run->lease->attempt,
			      .write = in->mode && strcmp(in->mode, "write") == 0,
			      .cancel = run->cancel };
	struct pt_rows_limits limits = { run->lease->limits.max_rows, run->lease->limits.max_bytes };
	pt_auto(stream_release) struct ArrowArrayStream s = { 0 };
	struct pt_rows_stats stats = { 0 };
	struct out out = { .run = run };
	int rc = pt_conn_query(conn, &q, &s, err);

	if (rc == 0)
		rc = pt_rows_columns(&s, &run->head->columns, err);
	if (rc == 0)
		rc = pt_rows_jsonl(&s, conn, &limits, on_lines, &out, &stats, err);
	run->head->rows = stats.rows;
	if (rc == 0 && stats.partial && q.write)
		rc = finish(&s, conn, run->cancel, err);
	if (rc < 0)
		return rc;
	run->head->bytes = stats.bytes;
	if (stats.partial && !(run->head->partial = strdup(stats.partial)))
		return pt_fail_oom(err);
	if (run->head->columns.n && !(run->head->body_format = strdup("jsonl")))
		return pt_fail_oom(err);
	stream_release(&s); /* the statement is finished, also when a limit cut it short: now affected() knows */
	run->head->affected = conn->type->affected ? conn->type->affected(conn) : -1;
	return PT_OK;
}

static int unsupported(const char *connection_type, struct pt_err *err)
{
	char names[160] = "";
	size_t n = 0;

	for (const struct pt_connector *const *c = pt_connectors(); *c && n < sizeof(names); c++)
		n += (size_t)snprintf(names + n, sizeof(names) - n, "%s%s", n ? ", " : "", (*c)->name);
	(void)pt_fail(err, PT_E_UNSUPPORTED, "there is no connector for '%.60s'", connection_type);
	(void)pt_hint(err, "this agent has %s", names);
	return PT_E_UNSUPPORTED;
}

static int query_run(struct pt_op_run *run, const void *input, struct pt_err *err)
{
	const struct pt_connector *type = pt_connector_find(run->lease->connection_type);
	pt_auto(pt_conn_closep) struct pt_conn *conn = NULL;
	int64_t began = pt_mono_ms();
	json_t *args = NULL;
	int rc;

	if (!type)
		return unsupported(run->lease->connection_type, err);
	if (!run->agent->credential)
		return pt_fail(err, PT_E_UNSUPPORTED, "this agent reads no credentials");
	rc = pt_credential_connect_args(&run->lease->credential, run->agent->credential, run->cancel, &args, err);
	if (rc < 0)
		return rc;
	rc = type->open(&conn, args, run->cancel, err);
	pt_credential_release(args);
	if (rc < 0)
		return rc;
	pt_op_info(run, "connected", "connection_type", type->name, "ms", pt_num(pt_mono_ms() - began));
	return run_statement(run, conn, input, err);
}

const struct pt_op_type pt_op_query = { .name = "query",
					.summary = "a SQL statement, its rows as the result",
					.integration = true,
					.input = &query_shape,
					.input_size = sizeof(struct query_input),
					.check = query_check,
					.run = query_run };
