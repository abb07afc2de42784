#include "db/layout.h"
#include <ctype.h>
#include <math.h>

/* Names become SQL identifiers and parts of messages. */
static bool good_name(const char *s)
{
	size_t n = strlen(s);

	if (!n || n > 60 || !islower((unsigned char)s[0]))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!islower((unsigned char)s[i]) && !isdigit((unsigned char)s[i]) && s[i] != '_')
			return false;
	return true;
}

static bool sortable(const struct pt_field *f)
{
	return f->type == PT_T_ID || f->type == PT_T_STR || f->type == PT_T_I64;
}

static int check_fields(struct pt_layout *l, struct pt_err *err)
{
	const struct pt_table *t = l->table;

	if (!good_name(t->name))
		return pt_fail(err, PT_E_INTERNAL, "table '%s': not a name of a table", t->name);
	for (size_t i = 0; i < t->shape->n; i++) {
		const struct pt_field *f = &t->shape->fields[i];

		if (!good_name(f->name))
			return pt_fail(err, PT_E_INTERNAL, "table '%s': '%s' is not a name of a column", t->name, f->name);
		if (t->steady && f->type != PT_T_ID && f->type != PT_T_STR && f->type != PT_T_I64 && f->type != PT_T_BOOL)
			return pt_fail(err, PT_E_INTERNAL, "column '%s.%s': not one of a steady table", t->name, f->name);
		if (f->type == PT_T_SHAPE || f->type == PT_T_LIST || f->type == PT_T_STRS)
			return pt_fail(err, PT_E_INTERNAL, "column '%s.%s': shapes and lists cannot be stored", t->name, f->name);
		if (!(f->flags & PT_KEY))
			continue;
		if (i != l->n_key || l->n_key == PT_KEY_COLS || !sortable(f))
			return pt_fail(err, PT_E_INTERNAL,
				       "column '%s.%s': key columns are the first (at most %d), of text or integers", t->name,
				       f->name, PT_KEY_COLS);
		l->n_key++;
	}
	return l->n_key ? PT_OK : pt_fail(err, PT_E_INTERNAL, "table '%s' has no key", t->name);
}

static bool has_col(const struct pt_order *o, const struct pt_field *f)
{
	for (size_t i = 0; i < o->n; i++)
		if (o->cols[i] == f)
			return true;
	return false;
}

static int resolve_order(const struct pt_layout *l, const struct pt_index *x, struct pt_order *o, struct pt_err *err)
{
	const struct pt_table *t = l->table;

	o->index = x;
	if (x && (!good_name(x->name) || !x->cols[0]))
		return pt_fail(err, PT_E_INTERNAL, "table '%s': index '%s' has no columns or no good name", t->name, x->name);
	for (size_t i = 0; x && i < PT_INDEX_COLS && x->cols[i]; i++) {
		const struct pt_field *f = pt_shape_field(t->shape, x->cols[i]);

		if (!f || !sortable(f) || has_col(o, f))
			return pt_fail(err, PT_E_INTERNAL, "index '%s.%s': column '%s' is not one to sort by", t->name, x->name,
				       x->cols[i]);
		o->cols[o->n++] = f;
	}
	if (x && x->sparse &&
	    (!(o->sparse = pt_shape_field(t->shape, x->sparse)) || !has_col(o, o->sparse) || (o->sparse->flags & PT_KEY)))
		return pt_fail(err, PT_E_INTERNAL, "index '%s.%s': it cannot be sparse by '%s'", t->name, x->name, x->sparse);
	o->n_index = x ? o->n : l->n_key;
	for (size_t i = 0; i < l->n_key; i++)
		if (!has_col(o, &t->shape->fields[i]))
			o->cols[o->n++] = &t->shape->fields[i];
	return PT_OK;
}

static int resolve(struct pt_layout *l, struct pt_err *err)
{
	int rc = check_fields(l, err);

	if (rc < 0)
		return rc;
	l->orders = calloc(1 + l->table->n_indexes, sizeof(*l->orders));
	if (!l->orders)
		return pt_fail_oom(err);
	for (; rc == 0 && l->n_orders < 1 + l->table->n_indexes; l->n_orders++)
		rc = resolve_order(l, l->n_orders ? &l->table->indexes[l->n_orders - 1] : NULL, &l->orders[l->n_orders], err);
	return rc;
}

int pt_layouts_new(struct pt_layout **ret, size_t *ret_n, const struct pt_table *const *tables, struct pt_err *err)
{
	struct pt_layout *l;
	size_t n = 0;
	int rc = PT_OK;

	while (tables[n])
		n++;
	l = calloc(n + 1, sizeof(*l));
	if (!l)
		return pt_fail_oom(err);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		l[i].table = tables[i];
		rc = resolve(&l[i], err);
	}
	if (rc < 0) {
		pt_layouts_free(l, n);
		return rc;
	}
	*ret = l;
	*ret_n = n;
	return PT_OK;
}

void pt_layouts_free(struct pt_layout *l, size_t n)
{
	for (size_t i = 0; l && i < n; i++)
		free(l[i].orders);
	free(l);
}

size_t pt_layout_find(const struct pt_layout *l, size_t n, const struct pt_table *t)
{
	size_t i = 0;

	while (i < n && l[i].table != t)
		i++;
	pt_assert(i < n);
	return i;
}

bool pt_order_has(const struct pt_order *o, const void *rec)
{
	if (!o->sparse)
		return true;
	return o->sparse->type == PT_T_I64 ? *(const int64_t *)pt_column(o->sparse, rec) != 0
					   : pt_column_text(o->sparse, rec) != NULL;
}

int pt_layout_check(const struct pt_layout *l, const void *rec, struct pt_err *err)
{
	const struct pt_shape *sh = l->table->shape;

	for (size_t i = 0; i < sh->n; i++) {
		const struct pt_field *f = &sh->fields[i];

		if (f->type == PT_T_STR && (f->flags & PT_KEY) && !pt_column_text(f, rec))
			return pt_fail(err, PT_E_INVALID, "%s.%s: a key cannot be absent", l->table->name, f->name);
		if (f->type == PT_T_F64 && isnan(*(const double *)pt_column(f, rec)))
			return pt_fail(err, PT_E_INVALID, "%s.%s: not a number", l->table->name, f->name);
	}
	return PT_OK;
}

int pt_layout_scan(const struct pt_layout *l, const struct pt_scan *q, const struct pt_order **ret,
		   const struct pt_field **ret_bound, struct pt_err *err)
{
	bool beyond = q->beyond && *q->beyond;
	const struct pt_field *f = NULL;
	const struct pt_order *o = NULL;

	for (size_t i = 0; i < l->n_orders && !o; i++)
		if (l->orders[i].index == q->index ||
		    (q->index && l->orders[i].index && strcmp(l->orders[i].index->name, q->index->name) == 0))
			o = &l->orders[i];
	if (!o)
		return pt_fail(err, PT_E_INTERNAL, "scan of %s: index '%s' is not of this table", l->table->name, q->index->name);
	if (q->n_eq > o->n || (q->n_eq && !q->match))
		return pt_fail(err, PT_E_INTERNAL, "scan of %s: %u equal columns", l->table->name, q->n_eq);
	if (beyond || q->has_less_than || q->has_at_least) {
		f = q->n_eq < o->n ? o->cols[q->n_eq] : NULL;
		if (!f || beyond + q->has_less_than + q->has_at_least > 1 || beyond == (f->type == PT_T_I64))
			return pt_fail(err, PT_E_INTERNAL, "scan of %s: the bound does not fit the column", l->table->name);
	}
	*ret = o;
	*ret_bound = f;
	return PT_OK;
}
