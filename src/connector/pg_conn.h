/* PostgreSQL connections, inside the connector: made by pg_connect.c, sessions in pg_session.c, statements in postgres.c.  One
 * thread uses a connection at a time. */
#ifndef PT_CONNECTOR_PG_CONN_H
#define PT_CONNECTOR_PG_CONN_H
#include "connector/connector.h"
#include "connector/pg_types.h"
#include <libpq-fe.h>

struct pg_named { /* a type that is not built in, looked up once per connection */
	unsigned oid;
	const struct pg_type *type;
	bool array;
	char name[64];
};
struct pg_conn {
	struct pt_conn base;
	PGconn *db;
	bool broken;             /* its state is not known any more: no statement is sent */
	int64_t role_timeout_ms; /* the session's own statement_timeout, 0 = none */
	int money_scale;         /* -1 = not asked yet */
	struct pt_list named;    /* of struct pg_named */
	int64_t affected;
	/* the statement that runs */
	bool active;  /* inside our transaction */
	bool running; /* the server is at work for us: an early end needs a cancel */
	bool write;
	bool copy, copying, copy_head; /* sent as COPY; its data are being read; their header was seen */
	const struct pt_cancel *cancel;
	struct pg_col *cols;
	size_t n_cols;
	struct pt_builder builder;
};

/* Connect; the session is as the server made it (no SET is left behind). */
int pg_connect(PGconn **ret, const json_t *connect_args, const struct pt_cancel *cancel, struct pt_err *err) PT_MUSTCHECK;
extern const struct pt_opt_doc pg_args[];

/* The connection is lost (why, or NULL: what libpq says): it is not used any more. */
int pg_lost(struct pg_conn *c, const char *why, struct pt_err *err);
/* What a failed result means; res may be NULL.  A code that says the session is over marks the connection as broken. */
int pg_query_error(struct pg_conn *c, const PGresult *res, struct pt_err *err);
/* Wait until a result can be taken without blocking, until end_ms (pt_mono_ms(); INT64_MAX = no limit) or the cancel. */
int pg_wait_ready(struct pg_conn *c, const struct pt_cancel *cancel, int64_t end_ms, struct pt_err *err) PT_MUSTCHECK;
/* The next result, NULL at the end of a command; the caller clears it. */
static inline PT_MUSTCHECK int pg_next_result(struct pg_conn *c, PGresult **ret, struct pt_err *err)
{
	int rc = PQisBusy(c->db) ? pg_wait_ready(c, c->cancel, INT64_MAX, err) : PT_OK;

	if (rc == 0)
		*ret = PQgetResult(c->db);
	return rc;
}
/* One command without rows or with few, outside of a pipeline.  ret may be NULL; else the caller clears it. */
int pg_run(struct pg_conn *c, const char *sql, PGresult **ret, struct pt_err *err) PT_MUSTCHECK;
/* End the transaction; not stopped by the token, but bounded. */
int pg_end(struct pg_conn *c, bool commit, struct pt_err *err) PT_MUSTCHECK;
/* Stop the statement, if it runs, and undo it.  Afterwards the connection is idle or broken. */
void pg_stop(struct pg_conn *c);

/* Append a value that is not NULL to column i of the row. */
static inline PT_MUSTCHECK int pg_add_value(struct pg_conn *c, size_t i, const char *p, int n, struct pt_err *err)
{
	int rc = c->cols[i].decode(&c->cols[i], &c->builder, &c->builder.cols[i], p, n, err);

	return rc < 0 ? pt_err_wrap(err, rc, "column '%.60s'", c->builder.defs[i].name) : PT_OK;
}
#endif
