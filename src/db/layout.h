/* A table's descriptor, checked and resolved once when the database is opened: what both backends ask about columns and orders.
 * Internal to src/db.  Immutable after pt_layout_new(), so any thread may read it. */
#ifndef PT_DB_LAYOUT_H
#define PT_DB_LAYOUT_H
#include "db/db.h"

enum { PT_KEY_COLS = 4 };

/* An order of a table's rows: the columns of an index, then the key columns that it does not name (so it is total). */
struct pt_order {
	const struct pt_index *index; /* NULL = the primary key */
	const struct pt_field *sparse; /* rows without it are not in it; NULL = all are */
	size_t n_index, n;
	const struct pt_field *cols[PT_INDEX_COLS + PT_KEY_COLS];
};
struct pt_layout {
	const struct pt_table *table;
	size_t n_key;
	struct pt_order *orders; /* [0] = primary key, [1 + i] = table->indexes[i] */
	size_t n_orders;
};

/* Check the descriptors and make one layout per table; PT_E_INTERNAL names what a table may not have.  Caller frees. */
int pt_layouts_new(struct pt_layout **ret, size_t *ret_n, const struct pt_table *const *tables, struct pt_err *err) PT_MUSTCHECK;
void pt_layouts_free(struct pt_layout *l, size_t n);
/* The layout of t, which must be one of the tables given to pt_db_open(). */
size_t pt_layout_find(const struct pt_layout *l, size_t n, const struct pt_table *t);

/* May this record be stored?  PT_E_INVALID: an absent STR key, or a number that is none (NaN). */
int pt_layout_check(const struct pt_layout *l, const void *rec, struct pt_err *err) PT_MUSTCHECK;
/* The order that a scan asks for and the column of its bound (NULL = no bound); PT_E_INTERNAL when the query makes no sense. */
int pt_layout_scan(const struct pt_layout *l, const struct pt_scan *q, const struct pt_order **ret,
		   const struct pt_field **ret_bound, struct pt_err *err) PT_MUSTCHECK;

/* Is a row in this order? */
bool pt_order_has(const struct pt_order *o, const void *rec);

static inline void *pt_column(const struct pt_field *f, const void *rec)
{
	return (char *)(uintptr_t)rec + f->offset;
}
/* The text of an ID or STR member; NULL = absent.  A key is never absent. */
static inline const char *pt_column_text(const struct pt_field *f, const void *rec)
{
	const void *p = pt_column(f, rec);

	if (f->type == PT_T_STR)
		return *(char *const *)p;
	return *(const char *)p || (f->flags & PT_KEY) ? p : NULL;
}
#endif
