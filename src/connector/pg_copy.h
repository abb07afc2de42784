/* The rows of a statement by COPY (…) TO STDOUT; inside the PostgreSQL connector.  The caller keeps pg_conn's copy and copying. */
#ifndef PT_CONNECTOR_PG_COPY_H
#define PT_CONNECTOR_PG_COPY_H
#include "connector/pg_conn.h"

/* May the statement be put into COPY (…)?  It was parsed by itself before, so that it cannot break out of the parentheses; what
 * may stand there besides is not tried. */
bool pg_copy_can(const struct pg_conn *c, const char *sql);
/* Send it; does not wait.  False: out of memory, or the connection is gone. */
bool pg_copy_send(struct pg_conn *c, const char *sql);
/* Take one piece of the data (a row, or nothing yet) into the builder, waiting for it when none is there.  At the data's end
 * c->copying becomes false, and the statement's result follows. */
int pg_copy_take(struct pg_conn *c, struct pt_err *err) PT_MUSTCHECK;
#endif
