/* PostgreSQL connections, inside the connector: made by pg_connect.c, used by postgres.c. */
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
#endif
