/* One value of an Arrow column as JSON text (docs/types.md): used by the JSON Lines sink for rows and by connectors for arrays. */
#ifndef PT_CONNECTOR_JSON_VALUE_H
#define PT_CONNECTOR_JSON_VALUE_H
#include "connector/arrow_build.h"

struct pt_json_col;
/* Write the value at row, which is not NULL.  The caller has made room (pt_json_value_most()). */
typedef char *pt_json_writer(char *p, const struct pt_json_col *c, int64_t row);
struct pt_json_col {
	pt_json_writer *write;
	const uint8_t *valid; /* NULL = no NULLs */
	const void *data;
	const int32_t *offsets; /* NULL for fixed width */
	int64_t first;          /* Arrow offset */
	size_t fixed;           /* most bytes of a value of fixed width, of any with NULL */
};

void pt_json_col_init(struct pt_json_col *c, enum pt_logical t);
void pt_json_col_bind(struct pt_json_col *c, const struct ArrowArray *a, int64_t first);
void pt_json_col_bind_build(struct pt_json_col *c, const struct pt_col *col); /* a column still under construction */

static inline bool pt_json_is_null(const struct pt_json_col *c, int64_t row)
{
	row += c->first;
	return c->valid && !(c->valid[row >> 3] >> (row & 7) & 1);
}
/* Bytes of the value's source text; 0 for fixed width. */
static inline size_t pt_json_source_len(const struct pt_json_col *c, int64_t row)
{
	return c->offsets ? (size_t)(c->offsets[c->first + row + 1] - c->offsets[c->first + row]) : 0;
}
/* Most bytes the value can take as JSON; exact enough not to waste memory for large values. */
size_t pt_json_value_most(const struct pt_json_col *c, int64_t row);

/* Is it one well-formed JSON value (RFC 8259), nested at most 1,000 levels deep? */
bool pt_json_valid(const char *s, size_t n);
#endif
