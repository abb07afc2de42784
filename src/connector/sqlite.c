/* The SQLite connector: a file that is there, opened read-only; a second handle for writing is opened when an operation writes.
 *
 * A query cannot leave its file: no ATTACH (nor VACUUM INTO, which needs it), no extensions, only harmless PRAGMAs.  Cancel and
 * deadline work through the progress handler, every few thousand instructions of the virtual machine.
 *
 * The first rows are read ahead: their values decide the columns' types (sqlite_value.h). */
#include "connector/connector.h"
#include "connector/sqlite_value.h"
#include "base/clock.h"
#include <stdio.h>
#include <strings.h>
#include <sys/stat.h>

enum { AHEAD_ROWS = 512, VALUE_MAX = 256 << 20, STEPS = 4000, BUSY_MS = 5000, BUSY_STEP_MS = 20 };

struct lite {
	struct pt_conn base;
	char *path;
	sqlite3 *db[2]; /* read-only; for writing, opened at first use */
	bool internal;  /* a statement of ours is being prepared: the authorizer lets it pass */
	int64_t affected;
	/* the statement that runs */
	sqlite3 *in; /* one of db; NULL = none */
	sqlite3_stmt *stmt;
	const struct pt_cancel *cancel;
	int64_t busy_since;
	bool write, done;
	struct pt_builder builder;
	sqlite3_value **ahead;              /* rows read ahead, row by row */
	size_t n_cols, n_ahead, next_ahead; /* values */
	int64_t row;
};

static struct lite *lite(struct pt_conn *c)
{
	return pt_container_of(c, struct lite, base);
}

static int failed(struct lite *c, sqlite3 *db, struct pt_err *err)
{
	int rc = db ? sqlite3_errcode(db) : SQLITE_NOMEM;
	enum pt_code code = PT_E_QUERY;
	char native[16];

	if ((rc == SQLITE_INTERRUPT || rc == SQLITE_BUSY) && pt_cancel_check(c->cancel, err) < 0)
		return err->code;
	switch (rc) {
	case SQLITE_AUTH:
		code = PT_E_SOURCE_DENIED;
		break;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		code = PT_E_UNAVAILABLE;
		break;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		code = PT_E_CORRUPT;
		break;
	case SQLITE_IOERR:
	case SQLITE_FULL:
		code = PT_E_IO;
		break;
	case SQLITE_TOOBIG:
		code = PT_E_TOO_LARGE;
		break;
	case SQLITE_NOMEM:
		return pt_fail_oom(err);
	}
	snprintf(native, sizeof(native), "%d", sqlite3_extended_errcode(db));
	(void)pt_fail(err, code, "%.300s", sqlite3_errmsg(db));
	pt_native(err, native);
	if (rc == SQLITE_AUTH)
		return pt_hint(err, "ATTACH, transactions and most PRAGMAs are not possible in a query");
	if (rc == SQLITE_READONLY)
		return pt_hint(err, "set mode: write (postern ctl: --write) to let the operation change data");
	return code;
}

/* --- opening --- */
static int authorize(void *arg, int action, const char *a, const char *b, const char *db, const char *trigger)
{
	static const char *const pragmas[] = { "table_info",    "table_xinfo",     "table_list",       "index_list",
					       "index_info",    "index_xinfo",     "foreign_key_list", "collation_list",
					       "function_list", "compile_options", "database_list" };
	static const char *const readable[] = { "user_version", "application_id", "schema_version", "data_version",
						"encoding",     "page_size",      "page_count" };
	const struct lite *c = arg;

	if (c->internal)
		return SQLITE_OK;
	switch (action) {
	case SQLITE_ATTACH:
	case SQLITE_DETACH:
	case SQLITE_TRANSACTION:
	case SQLITE_SAVEPOINT:
		return SQLITE_DENY;
	case SQLITE_FUNCTION:
		return b && strcasecmp(b, "load_extension") == 0 ? SQLITE_DENY : SQLITE_OK;
	case SQLITE_PRAGMA:
		for (size_t i = 0; i < PT_COUNT(pragmas); i++)
			if (strcasecmp(a, pragmas[i]) == 0)
				return SQLITE_OK;
		for (size_t i = 0; i < PT_COUNT(readable) && !b; i++)
			if (strcasecmp(a, readable[i]) == 0)
				return SQLITE_OK;
		return SQLITE_DENY;
	default:
		return SQLITE_OK;
	}
}

static int progress(void *arg)
{
	const struct lite *c = arg;
	struct pt_err ignored;

	return pt_cancel_check(c->cancel, &ignored) < 0;
}

static int busy(void *arg, int times)
{
	struct lite *c = arg;
	struct pt_err ignored;

	if (!times)
		c->busy_since = pt_mono_ms();
	if (pt_mono_ms() - c->busy_since >= BUSY_MS)
		return 0;
	return pt_cancel_poll(c->cancel, -1, 0, BUSY_STEP_MS, &ignored) == PT_E_TIMEOUT;
}

static int run1(struct lite *c, sqlite3 *db, const char *sql, struct pt_err *err)
{
	int rc;

	c->internal = true;
	rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
	c->internal = false;
	return rc == SQLITE_OK ? PT_OK : failed(c, db, err);
}

static int open_handle(struct lite *c, bool write, struct pt_err *err)
{
	int flags = (write ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY) | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
	sqlite3 *db = NULL;
	int rc;

	if (sqlite3_open_v2(c->path, &db, flags, NULL) != SQLITE_OK) {
		(void)pt_fail(err, PT_E_CONNECT, "%.200s: %s", c->path, db ? sqlite3_errmsg(db) : "out of memory");
		sqlite3_close(db);
		return err->code;
	}
	sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, NULL);
	sqlite3_limit(db, SQLITE_LIMIT_LENGTH, VALUE_MAX);
	sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 0);
	sqlite3_busy_handler(db, busy, c);
	sqlite3_progress_handler(db, STEPS, progress, c);
	sqlite3_set_authorizer(db, authorize, c);
	rc = run1(c, db,
		  write ? "PRAGMA foreign_keys = ON; PRAGMA schema_version" : "PRAGMA query_only = ON; PRAGMA schema_version",
		  err);
	if (rc < 0) {
		if (rc == PT_E_CORRUPT && strcmp(err->native, "26") == 0)
			rc = pt_fail(err, PT_E_INVALID, "path: %.200s is not an SQLite database", c->path);
		sqlite3_close(db);
		return rc;
	}
	c->db[write] = db;
	return PT_OK;
}

static const struct pt_opt_doc lite_args[] = {
	{ "path", "the database file on the agent's machine (also: database, file)", .required = true },
	{ 0 },
};

static int read_args(const json_t *connect_args, const char **ret_path, struct pt_err *err)
{
	const char *name;
	json_t *v;

	if (!json_is_object(connect_args))
		return pt_fail(err, PT_E_INVALID, "connect_args: expected an object, got %s", pt_json_type_name(connect_args));
	json_object_foreach((json_t *)(uintptr_t)connect_args, name, v) {
		const char *s = json_string_value(v);

		if (strcmp(name, "path") != 0 && strcmp(name, "database") != 0 && strcmp(name, "file") != 0) {
			(void)pt_fail(err, PT_E_INVALID, "unknown argument '%.60s' in connect_args", name);
			return pt_hint(err, "sqlite knows path");
		}
		if (*ret_path)
			return pt_fail(err, PT_E_INVALID, "%s: given twice, under two names", name);
		if (!s)
			return pt_fail(err, PT_E_INVALID, "%s: expected a string, got %s", name, pt_json_type_name(v));
		if (!*s || *s == ':' || strncmp(s, "file:", 5) == 0 || strlen(s) != json_string_length(v))
			return pt_fail(err, PT_E_INVALID, "%s: expected the path of a file", name);
		*ret_path = s;
	}
	return *ret_path ? PT_OK : pt_fail(err, PT_E_INVALID, "missing argument 'path' in connect_args");
}

static void lite_close(struct pt_conn *base)
{
	struct lite *c = lite(base);

	pt_assert(!c->in);
	sqlite3_close(c->db[0]);
	sqlite3_close(c->db[1]);
	free(c->path);
	free(c);
}

static int lite_open(struct pt_conn **ret, const json_t *connect_args, const struct pt_cancel *cancel, struct pt_err *err)
{
	const char *path = NULL;
	struct lite *c;
	struct stat st;
	int rc = pt_cancel_check(cancel, err);

	if (rc == 0)
		rc = read_args(connect_args, &path, err);
	if (rc < 0)
		return rc;
	if (stat(path, &st) < 0) {
		(void)pt_fail_sys(err, PT_E_CONNECT, "%.200s", path);
		return pt_hint(err, "the path is looked up where the agent runs; the file is never created");
	}
	if (!S_ISREG(st.st_mode))
		return pt_fail(err, PT_E_INVALID, "path: %.200s is not a file", path);
	c = calloc(1, sizeof(*c));
	if (!c)
		return pt_fail_oom(err);
	c->base.type = &pt_connector_sqlite;
	c->affected = -1;
	c->cancel = cancel;
	c->path = strdup(path);
	rc = c->path ? open_handle(c, false, err) : pt_fail_oom(err);
	c->cancel = NULL;
	if (rc < 0)
		lite_close(&c->base);
	else
		*ret = &c->base;
	return rc;
}

/* --- the statement --- */
/* 0 a row, 1 the end. */
static int step(struct lite *c, struct pt_err *err)
{
	int rc = sqlite3_step(c->stmt);

	if (rc == SQLITE_ROW)
		return 0;
	if (rc != SQLITE_DONE)
		return failed(c, c->in, err);
	c->done = true;
	c->affected = c->write && !sqlite3_stmt_readonly(c->stmt) ? sqlite3_changes64(c->in) : -1;
	sqlite3_reset(c->stmt); /* a statement that still runs would keep the transaction open */
	rc = c->write ? run1(c, c->in, "COMMIT", err) : PT_OK;
	return rc < 0 ? rc : 1;
}

static int read_ahead(struct lite *c, unsigned *seen_bits, struct pt_err *err)
{
	size_t bytes = 0;
	int rc = 0;

	c->ahead = calloc(AHEAD_ROWS * c->n_cols + 1, sizeof(*c->ahead));
	if (!c->ahead)
		return pt_fail_oom(err);
	while (c->n_ahead < AHEAD_ROWS * c->n_cols && bytes < PT_BATCH_BYTES) {
		rc = step(c, err);
		if (rc)
			break;
		for (size_t i = 0; i < c->n_cols; i++) {
			sqlite3_value *v = sqlite3_value_dup(sqlite3_column_value(c->stmt, (int)i));

			if (!v)
				return pt_fail_oom(err);
			c->ahead[c->n_ahead++] = v;
			seen_bits[i] |= lite_seen(v);
			if (sqlite3_value_type(v) == SQLITE_TEXT || sqlite3_value_type(v) == SQLITE_BLOB)
				bytes += (size_t)sqlite3_value_bytes(v);
		}
	}
	return rc < 0 ? rc : PT_OK;
}

static int set_columns(struct lite *c, struct pt_err *err)
{
	struct pt_column_def *defs = calloc(c->n_cols + 1, sizeof(*defs));
	unsigned *bits = calloc(c->n_cols + 1, sizeof(*bits));
	int rc = defs && bits ? PT_OK : pt_fail_oom(err);

	if (rc == 0 && c->n_cols)
		rc = read_ahead(c, bits, err);
	else if (rc == 0 && (rc = step(c, err)) > 0)
		rc = PT_OK;
	for (size_t i = 0; rc == 0 && i < c->n_cols; i++) {
		const char *decl = sqlite3_column_decltype(c->stmt, (int)i);

		defs[i] = (struct pt_column_def) { .name = sqlite3_column_name(c->stmt, (int)i),
						   .native = decl && *decl ? decl : NULL,
						   .type = lite_decide(decl, bits[i], c->done) };
		if (!defs[i].name)
			rc = pt_fail_oom(err);
	}
	if (rc == 0)
		rc = pt_builder_init(&c->builder, defs, c->n_cols, err);
	free(defs);
	free(bits);
	return rc;
}

static int bind_one(struct lite *c, int at, const json_t *v, struct pt_err *err)
{
	pt_auto_buf b = PT_BUF_INIT(VALUE_MAX);
	int rc;

	switch (json_typeof(v)) {
	case JSON_NULL:
		rc = sqlite3_bind_null(c->stmt, at);
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		rc = sqlite3_bind_int(c->stmt, at, json_is_true(v));
		break;
	case JSON_INTEGER:
		rc = sqlite3_bind_int64(c->stmt, at, json_integer_value(v));
		break;
	case JSON_REAL:
		rc = sqlite3_bind_double(c->stmt, at, json_real_value(v));
		break;
	case JSON_STRING:
		rc = sqlite3_bind_text64(c->stmt, at, json_string_value(v), json_string_length(v), SQLITE_TRANSIENT, SQLITE_UTF8);
		break;
	default:
		pt_json_write(&b, v);
		if (pt_buf_done(&b, err) < 0)
			return err->code;
		rc = sqlite3_bind_text64(c->stmt, at, b.p, b.len, SQLITE_TRANSIENT, SQLITE_UTF8);
	}
	return rc == SQLITE_OK ? PT_OK : failed(c, c->in, err);
}

static int bind_params(struct lite *c, const json_t *params, struct pt_err *err)
{
	size_t n = json_array_size(params);
	int rc = PT_OK, want = sqlite3_bind_parameter_count(c->stmt);

	if (params && !json_is_array(params) && !json_is_null(params))
		return pt_fail(err, PT_E_INVALID, "params: expected an array, got %s", pt_json_type_name(params));
	if (n != (size_t)want)
		return pt_fail(err, PT_E_INVALID, "the statement has %d parameters, params has %zu", want, n);
	for (size_t i = 0; rc == 0 && i < n; i++)
		rc = pt_err_wrap(err, bind_one(c, (int)i + 1, json_array_get(params, i), err), "params[%zu]", i);
	return rc;
}

/* Exactly one statement: the rest may hold spaces and comments. */
static int prepare(struct lite *c, const char *sql, struct pt_err *err)
{
	sqlite3_stmt *more = NULL;
	const char *rest = sql;

	while (!c->stmt && *rest)
		if (sqlite3_prepare_v3(c->in, rest, -1, 0, &c->stmt, &rest) != SQLITE_OK)
			return failed(c, c->in, err);
	if (!c->stmt)
		return pt_fail(err, PT_E_INVALID, "the statement is empty");
	while (*rest) {
		bool bad = sqlite3_prepare_v3(c->in, rest, -1, 0, &more, &rest) != SQLITE_OK || more;

		sqlite3_finalize(more);
		if (bad)
			return pt_fail(err, PT_E_QUERY, "more than one statement");
	}
	if (!c->write && !sqlite3_stmt_readonly(c->stmt)) {
		(void)pt_fail(err, PT_E_QUERY, "the statement would write");
		return pt_hint(err, "set mode: write (postern ctl: --write) to let the operation change data");
	}
	return PT_OK;
}

static int execute(struct lite *c, const struct pt_query *q, struct pt_err *err)
{
	int rc = c->db[q->write] ? PT_OK : open_handle(c, q->write, err);

	if (rc < 0)
		return rc;
	c->in = c->db[q->write];
	if (q->write)
		rc = run1(c, c->in, "BEGIN IMMEDIATE", err);
	if (rc == 0)
		rc = prepare(c, q->sql, err);
	if (rc == 0)
		rc = bind_params(c, q->params, err);
	if (rc == 0) {
		c->n_cols = (size_t)sqlite3_column_count(c->stmt);
		rc = set_columns(c, err);
	}
	return rc;
}

static void statement_release(struct lite *c)
{
	struct pt_err ignored;

	sqlite3_finalize(c->stmt);
	c->stmt = NULL;
	c->cancel = NULL; /* undoing is not cancelled */
	if (c->in && !sqlite3_get_autocommit(c->in))
		(void)run1(c, c->in, "ROLLBACK", &ignored);
	for (size_t i = c->next_ahead; i < c->n_ahead; i++)
		sqlite3_value_free(c->ahead[i]);
	free(c->ahead);
	pt_builder_release(&c->builder);
	c->in = NULL;
	c->ahead = NULL;
	c->n_cols = c->n_ahead = c->next_ahead = 0;
}

static int add_row_ahead(struct lite *c, struct pt_err *err)
{
	int rc = PT_OK;

	for (size_t i = 0; i < c->n_cols; i++) {
		sqlite3_value *v = c->ahead[c->next_ahead++];

		if (rc == 0)
			rc = lite_add(&c->builder, i, c->row, v, err);
		sqlite3_value_free(v);
	}
	return rc;
}

static int add_row(struct lite *c, struct pt_err *err)
{
	int rc = PT_OK;

	for (size_t i = 0; rc == 0 && i < c->n_cols; i++)
		rc = lite_add(&c->builder, i, c->row, sqlite3_column_value(c->stmt, (int)i), err);
	return rc;
}

static int fill(struct lite *c, struct pt_err *err)
{
	int rc = pt_cancel_check(c->cancel, err);

	if (rc == 0)
		rc = pt_builder_begin(&c->builder, err);
	while (rc == 0 && !pt_builder_full(&c->builder)) {
		if (c->next_ahead < c->n_ahead)
			rc = add_row_ahead(c, err);
		else if (c->done || (rc = step(c, err)) > 0)
			return PT_OK;
		else if (rc == 0)
			rc = add_row(c, err);
		if (rc == 0)
			rc = pt_builder_end_row(&c->builder, err);
		c->row++;
	}
	return rc;
}

/* --- the stream --- */
static int stream_schema(struct ArrowArrayStream *s, struct ArrowSchema *ret)
{
	struct lite *c = s->private_data;

	return pt_builder_schema(&c->builder, ret, &c->base.stream_err) < 0 ? ENOMEM : 0;
}

static int stream_next(struct ArrowArrayStream *s, struct ArrowArray *ret)
{
	struct lite *c = s->private_data;
	struct pt_err *err = &c->base.stream_err;

	*ret = (struct ArrowArray) { 0 };
	if (err->code || fill(c, err) < 0)
		return EIO;
	if (!c->builder.rows)
		return 0;
	return pt_builder_finish(&c->builder, ret, err) < 0 ? ENOMEM : 0;
}

static const char *stream_error(struct ArrowArrayStream *s)
{
	struct lite *c = s->private_data;

	return c->base.stream_err.code ? c->base.stream_err.msg : NULL;
}

static void stream_release(struct ArrowArrayStream *s)
{
	statement_release(s->private_data);
	s->release = NULL;
}

static int lite_query(struct pt_conn *base, const struct pt_query *q, struct ArrowArrayStream *ret, struct pt_err *err)
{
	struct lite *c = lite(base);
	int rc = pt_cancel_check(q->cancel, err);

	pt_assert(!c->in);
	if (rc < 0)
		return rc;
	c->base.stream_err = (struct pt_err) { 0 };
	c->affected = -1;
	c->cancel = q->cancel;
	c->write = q->write;
	c->done = false;
	c->row = 0;
	rc = execute(c, q, err);
	if (rc < 0)
		statement_release(c);
	else
		*ret = (struct ArrowArrayStream) { stream_schema, stream_next, stream_error, stream_release, c };
	return rc;
}

static int64_t lite_affected(const struct pt_conn *c)
{
	return ((const struct lite *)c)->affected;
}

const struct pt_connector pt_connector_sqlite = {
	.name = "sqlite",
	.summary = "SQLite 3 database files",
	.args = lite_args,
	.open = lite_open,
	.query = lite_query,
	.affected = lite_affected,
	.close = lite_close,
};
