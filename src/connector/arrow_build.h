/* Builds Arrow record batches row by row: typed appends into columns, then one finish per batch.  Every connector uses it.
 *
 * A row is one append to every column, in any order, and pt_builder_end_row().  Appends cannot fail one by one: the first failure
 * (memory, a column over 2 GiB) sticks and comes out of pt_builder_end_row() or pt_builder_finish().  A finished batch belongs to
 * the consumer; when it is released its buffers go back to the builder (from any thread), so that a steady stream does not
 * allocate.  The builder itself is used by one thread at a time and may be released while batches live. */
#ifndef PT_CONNECTOR_ARROW_BUILD_H
#define PT_CONNECTOR_ARROW_BUILD_H
#include "connector/arrow.h"
#include <string.h>

/* Logical types: name, Arrow format, bytes per value (0 = one bit, -1 = variable length).  Meanings: docs/types.md.  Types that
 * Arrow has not, or not exactly, travel as UTF-8 text with their name in the metadata. */
#define PT_LOGICAL_MAP(X)                           \
	X(BOOL, "bool", "b", 0)                     \
	X(INT16, "int16", "s", 2)                   \
	X(INT32, "int32", "i", 4)                   \
	X(INT64, "int64", "l", 8)                   \
	X(FLOAT32, "float32", "f", 4)               \
	X(FLOAT64, "float64", "g", 8)               \
	X(DECIMAL, "decimal", "u", -1)              \
	X(TEXT, "text", "u", -1)                    \
	X(BYTES, "bytes", "z", -1)                  \
	X(DATE, "date", "tdD", 4)                   \
	X(TIME, "time", "ttu", 8)                   \
	X(TIMETZ, "timetz", "u", -1)                \
	X(TIMESTAMP, "timestamp", "tsu:", 8)        \
	X(TIMESTAMPTZ, "timestamptz", "tsu:UTC", 8) \
	X(INTERVAL, "interval", "u", -1)            \
	X(UUID, "uuid", "w:16", 16)                 \
	X(JSON, "json", "u", -1)                    \
	X(ARRAY, "array", "u", -1)                  \
	X(ANY, "any", "u", -1)
/* clang-format off */
enum pt_logical {
#define X(n, name, format, width) PT_L_##n,
	PT_LOGICAL_MAP(X)
#undef X
	PT_L_END
};
/* clang-format on */
/* Infinite dates and timestamps are the ends of the integer range. */
#define PT_DATE_INF  INT32_MAX
#define PT_DATE_NINF INT32_MIN
#define PT_TS_INF    INT64_MAX
#define PT_TS_NINF   INT64_MIN

const char *pt_logical_name(enum pt_logical t);
/* The type a schema's field has: by its metadata when they fit its format, else by the format.  PT_L_END = one we do not know. */
enum pt_logical pt_logical_of(const struct ArrowSchema *field);
/* Value of a key of Arrow metadata; NULL when it is not there.  *ret_n gets the length (not NUL-terminated). */
const char *pt_arrow_metadata(const char *metadata, const char *key, size_t *ret_n);

struct pt_column_def {
	const char *name, *native; /* native may be NULL */
	enum pt_logical type;
	int precision, scale; /* DECIMAL, 0 = not declared */
	bool required;        /* the source promises that it is never NULL */
};

/* One column under construction; use the functions below. */
struct pt_col {
	uint8_t *valid; /* bitmap, all set at the start of a batch */
	uint8_t *data;
	int32_t *offsets; /* variable length: rows + 1 */
	size_t len, cap;  /* of data, variable length */
	int64_t nulls;
	int64_t n; /* values so far */
	enum pt_logical type;
	int width;
};
struct pt_batch_mem;
struct pt_batch_pool;
struct pt_builder {
	struct pt_col *cols;
	size_t n_cols;
	int64_t rows, max_rows; /* max_rows: at most PT_BATCH_ROWS, fewer for very wide rows */
	enum pt_code bad;
	struct pt_column_def *defs; /* own copies */
	struct pt_batch_mem *mem;
	struct pt_batch_pool *pool;
};

int pt_builder_init(struct pt_builder *b, const struct pt_column_def *defs, size_t n, struct pt_err *err) PT_MUSTCHECK;
void pt_builder_release(struct pt_builder *b); /* a zeroed builder is fine */
int pt_builder_schema(const struct pt_builder *b, struct ArrowSchema *ret, struct pt_err *err) PT_MUSTCHECK;
/* Make room for a next batch when the last was finished.  Call before the appends of a batch. */
int pt_builder_begin(struct pt_builder *b, struct pt_err *err) PT_MUSTCHECK;
/* Hand out the rows so far (maybe none) as a struct array. */
int pt_builder_finish(struct pt_builder *b, struct ArrowArray *ret, struct pt_err *err) PT_MUSTCHECK;
int pt_builder_failed(const struct pt_builder *b, struct pt_err *err) PT_MUSTCHECK; /* what sticks, as an error */
/* Grows a variable-length column; false when that fails.  Slow path of pt_col_room(). */
bool pt_col_grow(struct pt_builder *b, struct pt_col *c, size_t n);

static inline PT_MUSTCHECK int pt_builder_end_row(struct pt_builder *b, struct pt_err *err)
{
	b->rows++;
	return b->bad ? pt_builder_failed(b, err) : PT_OK;
}
/* Is the batch as large as a batch should be? */
static inline bool pt_builder_full(const struct pt_builder *b)
{
	size_t bytes = 0;

	if (b->rows >= b->max_rows)
		return true;
	for (size_t i = 0; i < b->n_cols; i++)
		bytes += b->cols[i].len;
	return bytes >= PT_BATCH_BYTES;
}

/* Room for n bytes at the end of a variable-length value, NULL when there is no memory (that sticks); then say how many were
 * written with pt_col_wrote(), which ends the value. */
static inline char *pt_col_room(struct pt_builder *b, struct pt_col *c, size_t n)
{
	if (c->cap - c->len < n && !pt_col_grow(b, c, n))
		return NULL;
	return (char *)c->data + c->len;
}
static inline void pt_col_wrote(struct pt_col *c, size_t n)
{
	c->len += n;
	c->offsets[++c->n] = (int32_t)c->len;
}
static inline void pt_add_bytes(struct pt_builder *b, struct pt_col *c, const void *p, size_t n)
{
	char *to = pt_col_room(b, c, n);

	if (to && n)
		memcpy(to, p, n);
	pt_col_wrote(c, to ? n : 0);
}
static inline void pt_add_null(struct pt_col *c)
{
	c->valid[c->n >> 3] &= (uint8_t) ~(1u << (c->n & 7));
	c->nulls++;
	if (c->width < 0) {
		pt_col_wrote(c, 0);
		return;
	}
	if (c->width)
		memset(c->data + c->n * c->width, 0, (size_t)c->width);
	c->n++;
}
static inline void pt_add_bool(struct pt_col *c, bool v)
{
	if (v)
		c->data[c->n >> 3] |= (uint8_t)(1u << (c->n & 7));
	c->n++;
}
static inline void pt_add_i16(struct pt_col *c, int16_t v)
{
	((int16_t *)c->data)[c->n++] = v;
}
static inline void pt_add_i32(struct pt_col *c, int32_t v)
{
	((int32_t *)c->data)[c->n++] = v;
}
static inline void pt_add_i64(struct pt_col *c, int64_t v)
{
	((int64_t *)c->data)[c->n++] = v;
}
static inline void pt_add_f32(struct pt_col *c, float v)
{
	((float *)c->data)[c->n++] = v;
}
static inline void pt_add_f64(struct pt_col *c, double v)
{
	((double *)c->data)[c->n++] = v;
}
static inline void pt_add_uuid(struct pt_col *c, const void *p)
{
	memcpy(c->data + 16 * c->n++, p, 16);
}
#endif
