/* PostgreSQL types: what each becomes (docs/types.md) and how its binary and its text form are read into a column.  Internal to the
 * PostgreSQL connector. */
#ifndef PT_CONNECTOR_PG_TYPES_H
#define PT_CONNECTOR_PG_TYPES_H
#include "connector/json_value.h"

struct pg_col;
/* Append one value that is not NULL.  PROTOCOL: the server's bytes make no sense; UNSUPPORTED: beyond what we can hold. */
typedef int pg_decode(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err);

struct pg_type {
	unsigned oid, array_oid;
	const char *name;
	enum pt_logical type;
	pg_decode *binary, *text;
};
struct pg_col {
	const struct pg_type *type; /* of the elements when array */
	bool array;
	pg_decode *decode;      /* for the format in use */
	pg_decode *decode_elem; /* arrays: for an element */
	int money_scale;
	struct pt_builder elem; /* arrays: one column of one row, used for one element after another */
	struct pt_json_col json;
	struct pt_buf buf; /* arrays: the JSON text */
};

/* The type with this OID, or whose array has this OID; NULL = not one of the built-in ones. */
const struct pg_type *pg_type_find(unsigned oid, bool *ret_array);
extern const struct pg_type pg_type_label; /* enums: their label, in both formats */
extern const struct pg_type pg_type_other; /* any other: the server's text; has no binary form that we know */

int pg_col_init(struct pg_col *col, const struct pg_type *t, bool array, bool text, struct pt_err *err) PT_MUSTCHECK;
void pg_col_release(struct pg_col *col);
/* "numeric(12,2)", "varchar(20)", "timestamptz(3)": name with the type modifier. */
void pg_native_name(const struct pg_type *t, const char *name, bool array, int typmod, char *out, size_t size);
void pg_numeric_typmod(int typmod, int *ret_precision, int *ret_scale); /* 0, 0 when not declared */

/* Parts shared by both formats. */
int pg_bad_value(const struct pg_col *col, struct pt_err *err);
void pg_add_timetz(struct pt_builder *b, struct pt_col *c, int64_t us, int east_s);
void pg_add_money(const struct pg_col *col, struct pt_builder *b, struct pt_col *c, int64_t v);
/* Append the element (NULL: p == NULL) to col->buf as JSON. */
int pg_array_element(struct pg_col *col, const char *p, int n, struct pt_err *err) PT_MUSTCHECK;
int pg_array_end(struct pg_col *col, struct pt_builder *b, struct pt_col *c, struct pt_err *err) PT_MUSTCHECK;
#define PG_EPOCH_DAYS 10957 /* 2000-01-01 */
#define PG_EPOCH_US   (PG_EPOCH_DAYS * 86400000000LL)

/* Text forms, in pg_text.c; they expect DateStyle ISO, IntervalStyle iso_8601, bytea_output hex. */
pg_decode pg_text_bool, pg_text_int16, pg_text_int32, pg_text_int64, pg_text_float32, pg_text_float64, pg_text_bytea,
	pg_text_date, pg_text_time, pg_text_timetz, pg_text_timestamp, pg_text_uuid, pg_text_money, pg_text_array;
pg_decode pg_as_it_is; /* text, in both formats */
#endif
