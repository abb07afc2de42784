/* Connectors: code that speaks to one family of data source.  A connector produces rows as an Arrow stream and never collects
 * them: memory is one batch, whatever the size of the result.  One connection is used by one thread at a time. */
#ifndef PT_CONNECTOR_CONNECTOR_H
#define PT_CONNECTOR_CONNECTOR_H
#include "base/shape.h"
#include "connector/arrow.h"
#include "os/cancel.h"

struct pt_conn;

struct pt_query {
	const char *sql;
	const json_t *params;           /* JSON array (positional) or NULL; docs/types.md says how values are bound */
	const char *operation; /* who writes: a source that can shows them to the statement (docs/operations.md); NULL = nobody */
	int64_t attempt;
	bool write;                     /* false: the statement runs in a read-only transaction / on a read-only database */
	const struct pt_cancel *cancel; /* also carries the deadline, which becomes the server's statement timeout */
};

struct pt_connector {
	const char *name; /* connection type: "postgres", "sqlite" */
	const char *summary;
	const struct pt_opt_doc *args; /* documented connect_args, ended by a row without a name */
	/* Connect with connect_args (a JSON object whose values are secrets: never in a message).  Errors: INVALID (names the
	 * argument), HOST_UNKNOWN, CONNECT, TLS, TLS_REQUIRED, SOURCE_AUTH, TIMEOUT, CANCELLED, DEADLINE. */
	int (*open)(struct pt_conn **ret, const json_t *connect_args, const struct pt_cancel *cancel, struct pt_err *err);
	/* Start a statement and give its rows as a stream.  The stream must be released before the next query and before close;
	 * releasing early cancels the statement on the server.  A statement without rows gives a stream without columns.
	 * Errors here and from the stream (then in stream_err): QUERY (native = SQLSTATE or result code), INVALID (parameters),
	 * SOURCE_DENIED, CONNECTION_LOST, CANCELLED, DEADLINE, UNSUPPORTED, TOO_LARGE; of files also UNAVAILABLE (busy), IO, CORRUPT. */
	int (*query)(struct pt_conn *c, const struct pt_query *q, struct ArrowArrayStream *ret, struct pt_err *err);
	/* Rows changed by the last finished statement, -1 = not known. */
	int64_t (*affected)(const struct pt_conn *c);
	void (*close)(struct pt_conn *c);
};
struct pt_conn {
	const struct pt_connector *type; /* first member of each connector's own struct */
	struct pt_err stream_err;        /* why the stream's get_next() failed */
};
struct pt_opt_doc {
	const char *name, *help;
	bool required, secret;
};

const struct pt_connector *pt_connector_find(const char *name); /* aliases too ("postgresql"); NULL when there is none */
const struct pt_connector *const *pt_connectors(void);          /* NULL-terminated */

static inline PT_MUSTCHECK int pt_conn_query(struct pt_conn *c, const struct pt_query *q, struct ArrowArrayStream *s,
					     struct pt_err *e)
{
	return c->type->query(c, q, s, e);
}
static inline void pt_conn_close(struct pt_conn *c)
{
	if (c)
		c->type->close(c);
}
PT_DEFINE_CLEANUP(struct pt_conn *, pt_conn_close)

extern const struct pt_connector pt_connector_postgres, pt_connector_sqlite;
#endif
