/* Sinks: write an Arrow stream as text.  JSON Lines: one JSON array per row, in column order (docs/types.md); names and types
 * travel once, in the result's head. */
#ifndef PT_CONNECTOR_ROWS_H
#define PT_CONNECTOR_ROWS_H
#include "connector/connector.h"
#include "proto/messages.h"

struct pt_rows_limits {
	int64_t max_rows;  /* 0 = none */
	int64_t max_bytes; /* of JSON text; 0 = none */
};
struct pt_rows_stats {
	int64_t rows, bytes;
	const char *partial; /* NULL, "row_limit" or "byte_limit": rows were left behind */
};
/* Read the schema into columns (struct pt_list of struct pt_column, owned by the caller).  UNSUPPORTED: a column that has no JSON
 * form. */
int pt_rows_columns(struct ArrowArrayStream *s, struct pt_list *ret, struct pt_err *err) PT_MUSTCHECK;
/* Drain the stream: out() gets pieces of whole lines (at most about 256 KiB).  Stops at a limit without an error and says
 * so in stats, which is also filled when the stream fails; a row is never cut.  c gives that reason, NULL = the stream itself. */
int pt_rows_jsonl(struct ArrowArrayStream *s, struct pt_conn *c, const struct pt_rows_limits *limits,
		  int (*out)(void *arg, const char *p, size_t n, struct pt_err *err), void *arg, struct pt_rows_stats *stats,
		  struct pt_err *err) PT_MUSTCHECK;
#endif
