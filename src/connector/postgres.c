/* The PostgreSQL connector: one statement at a time, in a transaction of its own, by the extended protocol.
 *
 * A statement costs two round trips before its rows: BEGIN, the time limit, Parse and Describe go out together (pipeline), then
 * Bind and Execute.  Rows come in libpq's single-row mode, in binary when all columns' types are known, else as text (libpq has one
 * format for all columns).  A plain SELECT without parameters is sent as COPY instead (pg_copy.h).  A read-only statement ends with
 * ROLLBACK, so that no SET of its stays in the session; a writing one with COMMIT, once its rows were read to the end.  No setting
 * is changed outside of the transaction. */
#include "connector/pg_copy.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/value_text.h"
#include <stdio.h>

enum { TIMEOUT_GRACE_MS = 500, PARAMS_TEXT_MAX = 64 << 20, MAX_PARAMS = 65535 };

static struct pg_conn *pg(struct pt_conn *c)
{
	return pt_container_of(c, struct pg_conn, base);
}

static void statement_release(struct pg_conn *c)
{
	for (size_t i = 0; i < c->n_cols; i++)
		pg_col_release(&c->cols[i]);
	free(c->cols);
	c->cols = NULL;
	c->n_cols = 0;
	pt_builder_release(&c->builder);
}

/* --- types of the result's columns --- */
static const struct pg_named *named_find(const struct pg_conn *c, unsigned oid)
{
	const struct pg_named *t = c->named.items;

	for (size_t i = 0; i < c->named.n; i++)
		if (t[i].oid == oid)
			return &t[i];
	return NULL;
}

static int named_add(struct pg_conn *c, const PGresult *res, int row, struct pt_err *err)
{
	const char *kind = PQgetvalue(res, row, 2), *elem_kind = PQgetvalue(res, row, 5);
	const char *elem = PQgetvalue(res, row, 4);
	struct pg_named t = { .oid = (unsigned)strtoul(PQgetvalue(res, row, 0), NULL, 10), .type = &pg_type_other };

	snprintf(t.name, sizeof(t.name), "%s", PQgetvalue(res, row, 1));
	if (kind[0] == 'e') {
		t.type = &pg_type_label;
	} else if (PQgetvalue(res, row, 3)[0] == 't' && *elem) {
		const struct pg_type *base = pg_type_find((unsigned)strtoul(PQgetvalue(res, row, 6), NULL, 10), &t.array);

		if (elem_kind[0] == 'e')
			base = &pg_type_label;
		if (base && !t.array) { /* an array of enums, or of a domain over a type that we know */
			t.type = base;
			t.array = true;
			snprintf(t.name, sizeof(t.name), "%s", elem);
		} else {
			t.array = false;
		}
	}
	return pt_list_append(&c->named, sizeof(t), &t, err);
}

/* Look up the types that neither the table nor this connection knows yet.  *ret_asked: a statement was sent. */
static int lookup_types(struct pg_conn *c, const PGresult *desc, bool *ret_asked, struct pt_err *err)
{
	pt_auto_buf sql = PT_BUF_INIT(64 * 1024);
	PGresult *res = NULL;
	size_t unknown = 0;
	bool array, money = false;
	int rc;

	pt_buf_str(&sql, "SELECT t.oid, t.typname, t.typtype, t.typcategory = 'A', e.typname, e.typtype, "
			 "CASE WHEN e.typtype = 'd' THEN e.typbasetype ELSE e.oid END "
			 "FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem WHERE t.oid IN (");
	for (int i = 0; i < PQnfields(desc); i++) {
		unsigned oid = PQftype(desc, i);
		const struct pg_type *t = pg_type_find(oid, &array);

		money |= t && t->oid == 790;
		if (!t && !named_find(c, oid))
			pt_buf_fmt(&sql, "%s%u", unknown++ ? "," : "", oid);
	}
	pt_buf_str(&sql, ")");
	rc = pt_buf_done(&sql, err);
	if (rc == 0 && unknown) {
		*ret_asked = true;
		rc = pg_run(c, sql.p, &res, err);
		for (int i = 0; rc == 0 && i < PQntuples(res); i++)
			rc = named_add(c, res, i, err);
		PQclear(res);
	}
	if (rc == 0 && money && c->money_scale < 0) {
		*ret_asked = true;
		rc = pg_run(c, "SELECT pg_catalog.scale(0::pg_catalog.money::pg_catalog.numeric)", &res, err);
		if (rc == 0) {
			c->money_scale = (int)strtol(PQgetvalue(res, 0, 0), NULL, 10);
			PQclear(res);
		}
	}
	return rc;
}

static int set_columns(struct pg_conn *c, const PGresult *desc, bool *ret_text, struct pt_err *err)
{
	size_t n = (size_t)PQnfields(desc);
	struct pt_column_def *defs = calloc(n + 1, sizeof(*defs));
	char(*native)[96] = calloc(n + 1, sizeof(*native));
	const struct pg_type **types = calloc(n + 1, sizeof(*types));
	bool *arrays = calloc(n + 1, sizeof(*arrays)), text = false;
	int rc = PT_OK;

	c->cols = calloc(n + 1, sizeof(*c->cols));
	if (!defs || !native || !types || !arrays || !c->cols)
		rc = pt_fail_oom(err);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		unsigned oid = PQftype(desc, (int)i);
		const struct pg_named *named = NULL;

		types[i] = pg_type_find(oid, &arrays[i]);
		if (!types[i]) {
			named = named_find(c, oid);
			types[i] = named ? named->type : &pg_type_other;
			arrays[i] = named && named->array;
		}
		text |= !types[i]->binary;
		defs[i] = (struct pt_column_def) { .name = PQfname(desc, (int)i),
						   .native = native[i],
						   .type = arrays[i] ? PT_L_ARRAY : types[i]->type };
		pg_native_name(types[i], named ? named->name : NULL, arrays[i], PQfmod(desc, (int)i), native[i],
			       sizeof(native[i]));
		if (types[i]->oid == 1700 && !arrays[i])
			pg_numeric_typmod(PQfmod(desc, (int)i), &defs[i].precision, &defs[i].scale);
	}
	for (size_t i = 0; rc == 0 && i < n; i++) {
		rc = pg_col_init(&c->cols[i], types[i], arrays[i], text, err);
		c->cols[i].money_scale = c->money_scale;
		c->n_cols++;
	}
	if (rc == 0)
		rc = pt_builder_init(&c->builder, defs, n, err);
	*ret_text = text;
	free(defs);
	free(native);
	free(types);
	free(arrays);
	return rc;
}

/* --- starting a statement --- */
struct bound {
	const char **values;
	int n;
	struct pt_buf text; /* of those that are not strings, each with a NUL behind it */
};

static int bind_one(const json_t *v, struct pt_buf *b, struct pt_err *err)
{
	char num[PT_TEXT_FLOAT + 1];

	switch (json_typeof(v)) {
	case JSON_STRING:
		if (strlen(json_string_value(v)) != json_string_length(v))
			return pt_fail(err, PT_E_INVALID, "holds a NUL character, which PostgreSQL's text cannot");
		pt_buf_str(b, json_string_value(v));
		break;
	case JSON_REAL:
		*pt_text_f64(num, json_real_value(v)) = '\0';
		pt_buf_str(b, num);
		break;
	default: /* true, false, integers; arrays and objects as JSON text */
		pt_json_write(b, v);
	}
	pt_buf_add(b, "", 1);
	return pt_buf_done(b, err);
}

static int bind_params(const json_t *params, struct bound *out, struct pt_err *err)
{
	size_t n = json_array_size(params), *offsets;
	int rc = PT_OK;

	*out = (struct bound) { .text = PT_BUF_INIT(PARAMS_TEXT_MAX) };
	if (params && !json_is_array(params) && !json_is_null(params))
		return pt_fail(err, PT_E_INVALID, "params: expected an array, got %s", pt_json_type_name(params));
	if (n > MAX_PARAMS)
		return pt_fail(err, PT_E_INVALID, "params: %zu values, at most %d are possible", n, MAX_PARAMS);
	out->n = (int)n;
	out->values = calloc(n + 1, sizeof(*out->values));
	offsets = calloc(n + 1, sizeof(*offsets));
	if (!out->values || !offsets)
		rc = pt_fail_oom(err);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		const json_t *v = json_array_get(params, i);

		offsets[i] = json_is_null(v) ? SIZE_MAX : out->text.len;
		if (!json_is_null(v))
			rc = pt_err_wrap(err, bind_one(v, &out->text, err), "params[%zu]", i);
	}
	for (size_t i = 0; rc == 0 && i < n; i++)
		out->values[i] = offsets[i] == SIZE_MAX ? NULL : out->text.p + offsets[i];
	free(offsets);
	return rc;
}

/* The statement's time limit on the server: what is left and a little, so that our own clock is first; the role's own limit
 * stays when it is shorter. */
static int64_t limit_ms(const struct pg_conn *c)
{
	int64_t left;

	if (!c->cancel || c->cancel->deadline_ms == INT64_MAX)
		return 0;
	left = c->cancel->deadline_ms - pt_mono_ms() + TIMEOUT_GRACE_MS;
	if (left < TIMEOUT_GRACE_MS)
		left = TIMEOUT_GRACE_MS;
	return left > INT32_MAX || (c->role_timeout_ms && c->role_timeout_ms <= left) ? 0 : left;
}

static bool send_command(struct pg_conn *c, int *n, const char *sql)
{
	++*n;
	return PQsendQueryParams(c->db, sql, 0, NULL, NULL, NULL, NULL, 0);
}

/* BEGIN and the settings that hold for this transaction.  A statement that writes can see which operation and attempt it is, so
 * that it can refuse a second effect itself. */
static bool send_begin(struct pg_conn *c, const struct pt_query *q, int *n)
{
	int64_t limit = limit_ms(c);
	char set[128];
	bool sent = send_command(c, n, q->write ? "BEGIN" : "BEGIN READ ONLY");

	if (sent && limit) {
		snprintf(set, sizeof(set), "SET LOCAL statement_timeout = %lld", (long long)limit);
		sent = send_command(c, n, set);
	}
	if (!sent || !q->write || !q->operation || !pt_id_valid(q->operation, "op")) /* nothing else is quoted into SQL */
		return sent;
	snprintf(set, sizeof(set), "SET LOCAL postern.operation = '%s'", q->operation);
	sent = send_command(c, n, set);
	snprintf(set, sizeof(set), "SET LOCAL postern.attempt = '%lld'", (long long)q->attempt);
	return sent && send_command(c, n, set);
}

/* BEGIN, settings, Parse, Describe: one round trip.  *ret_desc is the description. */
static int prepare(struct pg_conn *c, const struct pt_query *q, PGresult **ret_desc, struct pt_err *err)
{
	int wanted = 2, seen = 0, rc = PT_OK, next;
	bool sent;

	c->active = c->running = true;
	sent = PQenterPipelineMode(c->db) && send_begin(c, q, &wanted) && PQsendPrepare(c->db, "", q->sql, 0, NULL) &&
	       PQsendDescribePrepared(c->db, "") && PQpipelineSync(c->db);
	if (!sent)
		return pg_lost(c, NULL, err);
	for (;;) {
		PGresult *res = NULL;
		ExecStatusType st;

		next = pg_next_result(c, &res, err);
		if (next < 0) {
			PQclear(*ret_desc);
			*ret_desc = NULL;
			return next;
		}
		st = PQresultStatus(res);
		if (!res) {
			if (PQstatus(c->db) == CONNECTION_BAD)
				return rc < 0 ? rc : pg_lost(c, NULL, err);
			continue;
		}
		if (st == PGRES_PIPELINE_SYNC) {
			PQclear(res);
			break;
		}
		seen++;
		if (rc == 0 && st != PGRES_COMMAND_OK)
			rc = pg_query_error(c, res, err);
		if (rc == 0 && seen == wanted)
			*ret_desc = res;
		else
			PQclear(res);
	}
	c->running = false;
	if (!PQexitPipelineMode(c->db) && rc == 0)
		rc = pg_lost(c, NULL, err);
	return rc;
}

/* The forms that pg_text.c reads, until the end of the transaction. */
static const char text_forms[] = "SELECT pg_catalog.set_config('DateStyle', 'ISO', true), "
				 "pg_catalog.set_config('IntervalStyle', 'iso_8601', true), "
				 "pg_catalog.set_config('extra_float_digits', '1', true), "
				 "pg_catalog.set_config('bytea_output', 'hex', true)";

static int execute(struct pg_conn *c, const struct pt_query *q, const struct bound *b, struct pt_err *err)
{
	PGresult *desc = NULL;
	bool text = false, asked = false, sent;
	int rc = prepare(c, q, &desc, err);

	if (rc == 0 && PQnparams(desc) != b->n)
		rc = pt_fail(err, PT_E_INVALID, "the statement has %d parameters, params has %d", PQnparams(desc), b->n);
	if (rc == 0)
		rc = lookup_types(c, desc, &asked, err);
	if (rc == 0)
		rc = set_columns(c, desc, &text, err);
	PQclear(desc);
	if (rc == 0 && text) {
		asked = true;
		rc = pg_run(c, text_forms, NULL, err);
	}
	if (rc < 0)
		return rc;
	c->running = true;
	c->copy = !b->n && !text && pg_copy_can(c, q->sql);
	c->copying = c->copy_head = false;
	if (c->copy)
		return pg_copy_send(c, q->sql) ? PT_OK : pg_lost(c, NULL, err);
	/* Statements of ours in between have taken the place of the unnamed prepared one: then it is parsed again. */
	sent = asked ? PQsendQueryParams(c->db, q->sql, b->n, NULL, b->values, NULL, NULL, !text)
		     : PQsendQueryPrepared(c->db, "", b->n, b->values, NULL, NULL, !text);
	return sent && PQsetSingleRowMode(c->db) ? PT_OK : pg_lost(c, NULL, err);
}

/* --- the stream --- */
static int add_row(struct pg_conn *c, const PGresult *res, struct pt_err *err)
{
	for (size_t i = 0; i < c->n_cols; i++) {
		int rc;

		if (PQgetisnull(res, 0, (int)i)) {
			pt_add_null(&c->builder.cols[i]);
			continue;
		}
		rc = pg_add_value(c, i, PQgetvalue(res, 0, (int)i), PQgetlength(res, 0, (int)i), err);
		if (rc < 0)
			return rc;
	}
	return pt_builder_end_row(&c->builder, err);
}

/* The statement is through: commit or undo. */
static int at_end(struct pg_conn *c, const PGresult *res, struct pt_err *err)
{
	const char *n = PQcmdTuples((PGresult *)(uintptr_t)res);
	PGresult *rest = NULL;
	int rc;

	c->affected = *n ? strtoll(n, NULL, 10) : -1;
	do
		rc = pg_next_result(c, &rest, err);
	while (rc == 0 && rest && (PQclear(rest), true));
	return rc < 0 ? rc : pg_end(c, c->write, err);
}

/* One result: a row (0), the end (1), or an error. */
static int take(struct pg_conn *c, PGresult *res, struct pt_err *err)
{
	int rc;

	if (c->copy && PQresultStatus(res) == PGRES_COPY_OUT) {
		c->copying = true;
		return 0;
	}
	switch (PQresultStatus(res)) {
	case PGRES_SINGLE_TUPLE:
		return add_row(c, res, err);
	case PGRES_TUPLES_OK:
	case PGRES_COMMAND_OK:
		c->running = false;
		rc = at_end(c, res, err);
		return rc < 0 ? rc : 1;
	case PGRES_EMPTY_QUERY:
		c->running = false;
		return pt_fail(err, PT_E_INVALID, "the statement is empty");
	case PGRES_COPY_OUT:
	case PGRES_COPY_IN:
	case PGRES_COPY_BOTH:
		(void)pt_fail(err, PT_E_UNSUPPORTED, "COPY from or to the client is not possible here");
		return pt_hint(err, "use SELECT or INSERT");
	default:
		c->running = false;
		return pg_query_error(c, res, err);
	}
}

static int fill(struct pg_conn *c, struct pt_err *err)
{
	int rc = pt_cancel_check(c->cancel, err);

	if (rc == 0)
		rc = pt_builder_begin(&c->builder, err);
	while (rc == 0 && !pt_builder_full(&c->builder)) {
		PGresult *res = NULL;

		if (c->copying) {
			rc = pg_copy_take(c, err);
			continue;
		}
		rc = pg_next_result(c, &res, err);
		if (rc == 0 && !res)
			rc = pg_lost(c, NULL, err);
		if (rc == 0)
			rc = take(c, res, err);
		PQclear(res);
	}
	return rc < 0 ? rc : PT_OK;
}

static int stream_schema(struct ArrowArrayStream *s, struct ArrowSchema *ret)
{
	struct pg_conn *c = s->private_data;

	return pt_builder_schema(&c->builder, ret, &c->base.stream_err) < 0 ? ENOMEM : 0;
}

static int stream_next(struct ArrowArrayStream *s, struct ArrowArray *ret)
{
	struct pg_conn *c = s->private_data;
	struct pt_err *err = &c->base.stream_err;

	*ret = (struct ArrowArray) { 0 };
	if (err->code)
		return EIO;
	if (!c->active)
		return 0;
	if (fill(c, err) < 0) {
		struct pt_err kept = *err;

		pg_stop(c);
		*err = kept;
		return EIO;
	}
	if (!c->builder.rows)
		return 0;
	return pt_builder_finish(&c->builder, ret, err) < 0 ? ENOMEM : 0;
}

static const char *stream_error(struct ArrowArrayStream *s)
{
	struct pg_conn *c = s->private_data;

	return c->base.stream_err.code ? c->base.stream_err.msg : NULL;
}

static void stream_release(struct ArrowArrayStream *s)
{
	struct pg_conn *c = s->private_data;

	pg_stop(c);
	statement_release(c);
	c->cancel = NULL;
	s->release = NULL;
}

static int pg_query(struct pt_conn *base, const struct pt_query *q, struct ArrowArrayStream *ret, struct pt_err *err)
{
	struct pg_conn *c = pg(base);
	struct bound b = { 0 };
	int rc = pt_cancel_check(q->cancel, err);

	pt_assert(!c->active && !c->cols);
	c->affected = -1;
	c->base.stream_err = (struct pt_err) { 0 };
	if (rc == 0 && c->broken)
		rc = pg_lost(c, "the connection was given up after an earlier error", err);
	if (rc == 0)
		rc = bind_params(q->params, &b, err);
	if (rc == 0) {
		c->cancel = q->cancel;
		c->write = q->write;
		rc = execute(c, q, &b, err);
		if (rc < 0) {
			pg_stop(c);
			statement_release(c);
			c->cancel = NULL;
		}
	}
	free(b.values);
	if (b.text.max)
		pt_buf_release(&b.text);
	if (rc == 0)
		*ret = (struct ArrowArrayStream) { stream_schema, stream_next, stream_error, stream_release, c };
	return rc;
}

static int64_t pg_affected(const struct pt_conn *c)
{
	return ((const struct pg_conn *)c)->affected;
}

static void pg_close(struct pt_conn *base)
{
	struct pg_conn *c = pg(base);

	pt_assert(!c->active);
	PQfinish(c->db);
	free(c->named.items);
	free(c);
}

static int pg_open(struct pt_conn **ret, const json_t *connect_args, const struct pt_cancel *cancel, struct pt_err *err)
{
	struct pg_conn *c = calloc(1, sizeof(*c));
	PGresult *res = NULL;
	int rc;

	if (!c)
		return pt_fail_oom(err);
	c->base.type = &pt_connector_postgres;
	c->affected = c->money_scale = -1;
	rc = pg_connect(&c->db, connect_args, cancel, err);
	if (rc == 0) {
		c->cancel = cancel;
		rc = pg_run(c, "SELECT (extract(epoch FROM current_setting('statement_timeout')::interval) * 1000)::bigint", &res,
			    err);
		c->cancel = NULL;
	}
	if (rc < 0) {
		PQfinish(c->db);
		free(c);
		return rc;
	}
	c->role_timeout_ms = strtoll(PQgetvalue(res, 0, 0), NULL, 10);
	PQclear(res);
	*ret = &c->base;
	return PT_OK;
}

const struct pt_connector pt_connector_postgres = {
	.name = "postgres",
	.summary = "PostgreSQL 12 and later, and servers that speak its protocol",
	.args = pg_args,
	.open = pg_open,
	.query = pg_query,
	.affected = pg_affected,
	.close = pg_close,
};
