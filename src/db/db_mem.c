/* The database in memory: for tests, and the reference of the contract suite.  Lost at close.
 *
 * A table is a version: rows sorted once per order, in arrays of pointers.  Published versions never change: a write transaction
 * clones each table that it writes to and commit publishes the clones, so a snapshot is a reference per table and readers never
 * wait. Rows are shared by versions and immutable.  Cloning makes a write transaction cost O(rows): simple, and enough for its
 * purpose.
 *
 * Threads: `lock` guards the heads and `writing`; reference counts are atomic; a transaction belongs to one thread. */
#include "db/backend.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

struct row {
	atomic_int refs;
	max_align_t rec[]; /* the shape's struct */
};
struct version {
	atomic_int refs;
	size_t n, cap, n_orders;
	struct row **rows[]; /* per order, n rows each */
};
struct mem_db {
	struct pt_db base;
	struct pt_layout *layouts;
	size_t n_tables;
	pthread_mutex_t lock;
	pthread_cond_t idle;
	bool writing;
	struct version **heads;
};
/* One write, for undo(): before = NULL for an insert, after = NULL for a remove.  Holds references. */
struct change {
	size_t table;
	struct row *before, *after;
};
struct mem_tx {
	struct pt_tx base;
	struct change *log; /* since the mark */
	size_t n_log, cap_log;
	bool *own; /* per table: tables[i] is this transaction's clone */
	struct version *tables[];
};

static struct mem_db *db_of(const struct pt_tx *tx)
{
	return pt_container_of(tx->db, struct mem_db, base);
}

/* Records */

static int copy_record(const struct pt_shape *sh, void *dst, const void *src, struct pt_err *err)
{
	bool whole = true;

	memcpy(dst, src, sh->size);
	for (size_t i = 0; i < sh->n; i++) {
		void *p = pt_column(&sh->fields[i], dst);

		if (sh->fields[i].type == PT_T_STR && *(char **)p) {
			*(char **)p = strdup(*(char **)p);
			whole &= *(char **)p != NULL;
		} else if (sh->fields[i].type == PT_T_JSON && *(json_t **)p) {
			*(json_t **)p = json_deep_copy(*(json_t **)p);
			whole &= *(json_t **)p != NULL;
		} else if (sh->fields[i].type == PT_T_BYTES && ((struct pt_bytes *)p)->p) {
			struct pt_bytes *b = p;
			unsigned char *copy = malloc(b->n + 1); /* a NUL behind, as the other backend gives */

			if (copy) {
				memcpy(copy, b->p, b->n);
				copy[b->n] = 0;
			}
			b->p = copy;
			whole &= copy != NULL;
		}
	}
	if (whole)
		return PT_OK;
	pt_shape_release(sh, dst);
	return pt_fail_oom(err);
}

static struct row *row_new(const struct pt_shape *sh, const void *rec, struct pt_err *err)
{
	struct row *r = malloc(sizeof(*r) + sh->size);

	if (!r || copy_record(sh, r->rec, rec, err) < 0) {
		free(r);
		(void)pt_fail_oom(err);
		return NULL;
	}
	atomic_init(&r->refs, 1);
	return r;
}

static struct row *row_ref(struct row *r)
{
	if (r)
		atomic_fetch_add(&r->refs, 1);
	return r;
}

static void row_unref(const struct pt_layout *l, struct row *r)
{
	if (!r || atomic_fetch_sub(&r->refs, 1) != 1)
		return;
	pt_shape_release(l->table->shape, r->rec);
	free(r);
}

/* By bytes, absent first: as SQLite sorts BINARY text and NULL. */
static int compare(const struct pt_order *o, size_t n_cols, const void *a, const void *b)
{
	for (size_t i = 0; i < n_cols; i++) {
		const struct pt_field *f = o->cols[i];
		int c;

		if (f->type == PT_T_I64) {
			int64_t x = *(int64_t *)pt_column(f, a), y = *(int64_t *)pt_column(f, b);

			c = (x > y) - (x < y);
		} else {
			const char *x = pt_column_text(f, a), *y = pt_column_text(f, b);

			c = x && y ? strcmp(x, y) : (x != NULL) - (y != NULL);
		}
		if (c)
			return c;
	}
	return 0;
}

/* Versions */

static void version_unref(const struct pt_layout *l, struct version *v)
{
	if (!v || atomic_fetch_sub(&v->refs, 1) != 1)
		return;
	for (size_t i = 0; i < v->n; i++)
		row_unref(l, v->rows[0][i]);
	for (size_t k = 0; k < v->n_orders; k++)
		free(v->rows[k]);
	free(v);
}

static bool reserve(struct version *v, size_t cap)
{
	for (size_t k = 0; k < v->n_orders && cap > v->cap; k++) {
		struct row **p = realloc(v->rows[k], cap * sizeof(struct row *));

		if (!p)
			return false;
		v->rows[k] = p;
	}
	if (cap > v->cap)
		v->cap = cap;
	return true;
}

/* A copy with room for one more row; from = NULL gives an empty version. */
static struct version *version_new(const struct pt_layout *l, const struct version *from)
{
	struct version *v = calloc(1, sizeof(*v) + l->n_orders * sizeof(v->rows[0]));

	if (!v)
		return NULL;
	atomic_init(&v->refs, 1);
	v->n_orders = l->n_orders;
	if (!reserve(v, (from ? from->n : 0) + 16)) {
		version_unref(l, v);
		return NULL;
	}
	for (size_t k = 0; from && from->n && k < l->n_orders; k++)
		memcpy(v->rows[k], from->rows[k], from->n * sizeof(struct row *));
	v->n = from ? from->n : 0;
	for (size_t i = 0; i < v->n; i++)
		row_ref(v->rows[0][i]);
	return v;
}

/* The first place in order k whose row is not below rec by the first n_cols columns; with after: that is above it. */
static size_t search(const struct version *v, const struct pt_layout *l, size_t k, size_t n_cols, const void *rec, bool after)
{
	size_t lo = 0, hi = v->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int c = compare(&l->orders[k], n_cols, v->rows[k][mid]->rec, rec);

		if (c < 0 || (after && c == 0))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static struct row *find(const struct version *v, const struct pt_layout *l, const void *rec)
{
	size_t i = search(v, l, 0, l->n_key, rec, false);

	return i < v->n && compare(&l->orders[0], l->n_key, v->rows[0][i]->rec, rec) == 0 ? v->rows[0][i] : NULL;
}

/* Put a row in (room is there) / take it out of every order.  The version's reference moves with it. */
static void put(struct version *v, const struct pt_layout *l, struct row *r)
{
	for (size_t k = 0; k < l->n_orders; k++) {
		size_t i = search(v, l, k, l->orders[k].n, r->rec, false);

		memmove(v->rows[k] + i + 1, v->rows[k] + i, (v->n - i) * sizeof(struct row *));
		v->rows[k][i] = r;
	}
	v->n++;
}

static void take(struct version *v, const struct pt_layout *l, const struct row *r)
{
	for (size_t k = 0; k < l->n_orders; k++) {
		size_t i = search(v, l, k, l->orders[k].n, r->rec, false);

		memmove(v->rows[k] + i, v->rows[k] + i + 1, (v->n - i - 1) * sizeof(struct row *));
	}
	v->n--;
}

/* Does another row stand where rec wants to be in a unique index? */
static int check_unique(const struct version *v, const struct pt_layout *l, const void *rec, struct pt_err *err)
{
	for (size_t k = 1; k < l->n_orders; k++) {
		const struct pt_order *o = &l->orders[k];
		bool bound = o->index->unique;
		size_t i;

		for (size_t c = 0; bound && c < o->n_index; c++)
			bound = o->cols[c]->type == PT_T_I64 || pt_column_text(o->cols[c], rec);
		if (!bound)
			continue;
		i = search(v, l, k, o->n_index, rec, false);
		if (i < v->n && compare(o, o->n_index, v->rows[k][i]->rec, rec) == 0 &&
		    compare(&l->orders[0], l->n_key, v->rows[k][i]->rec, rec) != 0)
			return pt_fail(err, PT_E_CONFLICT, "%s: another row has the same value of index %s", l->table->name,
				       o->index->name);
	}
	return PT_OK;
}

/* Writes */

/* The transaction's own version of a table, with room for one more row and one more entry of the log. */
static int writable(struct mem_tx *tx, size_t table, struct pt_err *err)
{
	const struct pt_layout *l = &db_of(&tx->base)->layouts[table];

	if (!tx->base.write)
		return pt_fail(err, PT_E_INTERNAL, "write to %s in a read transaction", l->table->name);
	if (!tx->own[table]) {
		struct version *v = version_new(l, tx->tables[table]);

		if (!v)
			return pt_fail_oom(err);
		version_unref(l, tx->tables[table]);
		tx->tables[table] = v;
		tx->own[table] = true;
	}
	if (tx->n_log == tx->cap_log) {
		size_t cap = tx->cap_log ? tx->cap_log * 2 : 16;
		struct change *p = realloc(tx->log, cap * sizeof(*p));

		if (!p)
			return pt_fail_oom(err);
		tx->log = p;
		tx->cap_log = cap;
	}
	if (tx->tables[table]->n == tx->tables[table]->cap && !reserve(tx->tables[table], tx->tables[table]->cap * 2))
		return pt_fail_oom(err);
	return PT_OK;
}

/* Replace before by after (each may be NULL) and log it.  Takes the reference of after. */
static void change(struct mem_tx *tx, size_t table, struct row *before, struct row *after)
{
	const struct pt_layout *l = &db_of(&tx->base)->layouts[table];

	if (before)
		take(tx->tables[table], l, before); /* its reference moves to the log */
	if (after)
		put(tx->tables[table], l, after);
	tx->log[tx->n_log++] = (struct change) { .table = table, .before = before, .after = row_ref(after) };
	tx->base.dirty = true;
}

static void forget_log(struct mem_tx *tx)
{
	while (tx->n_log) {
		struct change *c = &tx->log[--tx->n_log];
		const struct pt_layout *l = &db_of(&tx->base)->layouts[c->table];

		row_unref(l, c->before);
		row_unref(l, c->after);
	}
}

/* A shallow copy of rec with the constant columns of the row that it replaces; NULL when there are none. */
static int keep_const(const struct pt_shape *sh, const void *old, const void *rec, void **ret, struct pt_err *err)
{
	static const size_t sizes[] = { [PT_T_ID] = PT_ID_SIZE,
					[PT_T_STR] = sizeof(char *),
					[PT_T_I64] = sizeof(int64_t),
					[PT_T_BOOL] = sizeof(bool),
					[PT_T_F64] = sizeof(double),
					[PT_T_JSON] = sizeof(json_t *),
					[PT_T_BYTES] = sizeof(struct pt_bytes) };
	char *copy = NULL;

	for (size_t i = 0; i < sh->n; i++) {
		const struct pt_field *f = &sh->fields[i];

		if (!(f->flags & PT_CONST))
			continue;
		if (!copy) {
			copy = malloc(sh->size);
			if (!copy)
				return pt_fail_oom(err);
			memcpy(copy, rec, sh->size);
			*ret = copy;
		}
		memcpy(pt_column(f, copy), pt_column(f, old), sizes[f->type]);
	}
	return PT_OK;
}

/* insert: no row before, one after; update: both; remove: only the one before. */
static int write_row(struct pt_tx *base, const struct pt_table *t, const void *rec, bool before, bool after, struct pt_err *err)
{
	struct mem_tx *tx = pt_container_of(base, struct mem_tx, base);
	struct mem_db *db = db_of(base);
	size_t i = pt_layout_find(db->layouts, db->n_tables, t);
	const struct pt_layout *l = &db->layouts[i];
	pt_auto(pt_freep) void *merged = NULL;
	struct row *old, *r = NULL;
	int rc = writable(tx, i, err);

	if (rc < 0 || (after && (rc = pt_layout_check(l, rec, err)) < 0))
		return rc;
	old = find(tx->tables[i], l, rec);
	if (after && before && old && (rc = keep_const(t->shape, old->rec, rec, &merged, err)) < 0)
		return rc;
	if (merged)
		rec = merged;
	if (old && !before)
		return pt_fail(err, PT_E_CONFLICT, "%s: a row with this key exists", t->name);
	if (!old && before)
		return pt_fail(err, PT_E_NOT_FOUND, "%s: no such row", t->name);
	if (after && (rc = check_unique(tx->tables[i], l, rec, err)) < 0)
		return rc;
	if (after && !(r = row_new(t->shape, rec, err)))
		return PT_E_INTERNAL;
	change(tx, i, old, r);
	return PT_OK;
}

static int mem_insert(struct pt_tx *tx, const struct pt_table *t, const void *rec, struct pt_err *err)
{
	return write_row(tx, t, rec, false, true, err);
}

static int mem_update(struct pt_tx *tx, const struct pt_table *t, const void *rec, struct pt_err *err)
{
	return write_row(tx, t, rec, true, true, err);
}

static int mem_remove(struct pt_tx *tx, const struct pt_table *t, const void *rec, struct pt_err *err)
{
	return write_row(tx, t, rec, true, false, err);
}

/* Reads */

static int mem_get(struct pt_tx *base, const struct pt_table *t, void *rec, struct pt_err *err)
{
	struct mem_tx *tx = pt_container_of(base, struct mem_tx, base);
	struct mem_db *db = db_of(base);
	size_t i = pt_layout_find(db->layouts, db->n_tables, t);
	const struct pt_layout *l = &db->layouts[i];
	pt_auto(pt_freep) char *copy = calloc(1, t->shape->size);
	const struct row *r = find(tx->tables[i], l, rec);
	int rc;

	if (!r)
		return pt_fail(err, PT_E_NOT_FOUND, "%s: no such row", t->name);
	if (!copy)
		return pt_fail_oom(err);
	rc = copy_record(t->shape, copy, r->rec, err);
	if (rc < 0)
		return rc;
	for (i = 0; i < l->n_key; i++) { /* rec keeps its own key */
		const struct pt_field *f = &t->shape->fields[i];

		if (f->type == PT_T_STR) {
			free(*(char **)pt_column(f, copy));
			*(char **)pt_column(f, copy) = *(char **)pt_column(f, rec);
		}
	}
	memcpy(rec, copy, t->shape->size);
	return PT_OK;
}

static int mem_scan(struct pt_tx *base, const struct pt_table *t, const struct pt_scan *q, int (*fn)(void *arg, void *rec),
		    void *arg, struct pt_err *err)
{
	struct mem_tx *tx = pt_container_of(base, struct mem_tx, base);
	struct mem_db *db = db_of(base);
	size_t i = pt_layout_find(db->layouts, db->n_tables, t), k, lo, hi, n = 0;
	const struct pt_layout *l = &db->layouts[i];
	const struct version *v = tx->tables[i];
	pt_auto(pt_freep) char *rec = calloc(1, t->shape->size);
	pt_auto(pt_freep) char *edge = calloc(1, t->shape->size); /* shallow copy of the match, and the bound */
	const struct pt_order *o;
	const struct pt_field *bound;
	int rc;

	if (!rec || !edge)
		return pt_fail_oom(err);
	rc = pt_layout_scan(l, q, &o, &bound, err);
	if (rc < 0)
		return rc;
	k = (size_t)(o - l->orders);
	if (q->match)
		memcpy(edge, q->match, t->shape->size);
	lo = search(v, l, k, q->n_eq, edge, false);
	hi = search(v, l, k, q->n_eq, edge, true);
	if (bound) {
		if (q->has_less_than)
			*(int64_t *)pt_column(bound, edge) = q->less_than;
		else if (q->has_at_least)
			*(int64_t *)pt_column(bound, edge) = q->at_least;
		else if (bound->type == PT_T_STR)
			*(const char **)pt_column(bound, edge) = q->beyond;
		else
			snprintf(pt_column(bound, edge), PT_ID_SIZE, "%s", q->beyond);
		if (q->has_at_least)
			lo = search(v, l, k, q->n_eq + 1, edge, false);
		else if (q->desc || q->has_less_than)
			hi = search(v, l, k, q->n_eq + 1, edge, false);
		else
			lo = search(v, l, k, q->n_eq + 1, edge, true);
	}
	while (lo < hi && (!q->limit || n < q->limit)) {
		const struct row *r = v->rows[k][q->desc ? --hi : lo++];

		if (!pt_order_has(o, r->rec))
			continue;
		n++;
		rc = copy_record(t->shape, rec, r->rec, err);
		if (rc < 0)
			return rc;
		rc = fn(arg, rec);
		pt_shape_release(t->shape, rec);
		if (rc)
			break;
	}
	return rc < 0 ? rc : PT_OK;
}

static int count_row(void *arg, void *rec)
{
	(void)rec;
	++*(int64_t *)arg;
	return 0;
}

static int mem_count(struct pt_tx *tx, const struct pt_table *t, const struct pt_scan *q, int64_t *ret, struct pt_err *err)
{
	int64_t n = 0;
	int rc = mem_scan(tx, t, q, count_row, &n, err);

	if (rc == 0)
		*ret = n;
	return rc;
}

/* Transactions */

static void end(struct mem_tx *tx)
{
	struct mem_db *db = db_of(&tx->base);

	forget_log(tx);
	for (size_t i = 0; i < db->n_tables; i++)
		version_unref(&db->layouts[i], tx->tables[i]);
	if (tx->base.write) {
		pthread_mutex_lock(&db->lock);
		db->writing = false;
		pthread_cond_signal(&db->idle);
		pthread_mutex_unlock(&db->lock);
	}
	free(tx->own);
	free(tx->log);
	free(tx);
}

static int mem_begin(struct pt_db *base, bool write, struct pt_tx **ret, struct pt_err *err)
{
	struct mem_db *db = pt_container_of(base, struct mem_db, base);
	struct mem_tx *tx = calloc(1, sizeof(*tx) + db->n_tables * sizeof(tx->tables[0]));
	bool *own = calloc(db->n_tables + 1, sizeof(*own));

	if (!tx || !own) {
		free(tx);
		free(own);
		return pt_fail_oom(err);
	}
	tx->base = (struct pt_tx) { .db = base, .write = write };
	tx->own = own;
	pthread_mutex_lock(&db->lock);
	while (write && db->writing)
		pthread_cond_wait(&db->idle, &db->lock);
	if (write)
		db->writing = true;
	for (size_t i = 0; i < db->n_tables; i++) {
		tx->tables[i] = db->heads[i];
		atomic_fetch_add(&tx->tables[i]->refs, 1);
	}
	pthread_mutex_unlock(&db->lock);
	*ret = &tx->base;
	return PT_OK;
}

static int mem_commit(struct pt_tx *base, struct pt_err *err)
{
	struct mem_tx *tx = pt_container_of(base, struct mem_tx, base);
	struct mem_db *db = db_of(base);

	pthread_mutex_lock(&db->lock);
	for (size_t i = 0; i < db->n_tables; i++)
		if (tx->own[i]) { /* the old head is unreferenced in end(), outside the lock */
			struct version *old = db->heads[i];

			db->heads[i] = tx->tables[i];
			tx->tables[i] = old;
		}
	pthread_mutex_unlock(&db->lock);
	end(tx);
	return PT_OK;
}

static void mem_rollback(struct pt_tx *base)
{
	end(pt_container_of(base, struct mem_tx, base));
}

static int mem_mark(struct pt_tx *base, struct pt_err *err)
{
	if (!base->write)
		return pt_fail(err, PT_E_INTERNAL, "mark in a read transaction");
	forget_log(pt_container_of(base, struct mem_tx, base));
	return PT_OK;
}

static int mem_undo(struct pt_tx *base, struct pt_err *err)
{
	struct mem_tx *tx = pt_container_of(base, struct mem_tx, base);

	if (!base->write)
		return pt_fail(err, PT_E_INTERNAL, "undo in a read transaction");
	while (tx->n_log) {
		struct change *c = &tx->log[--tx->n_log];
		const struct pt_layout *l = &db_of(base)->layouts[c->table];

		if (c->after) {
			take(tx->tables[c->table], l, c->after);
			row_unref(l, c->after);
			row_unref(l, c->after); /* the table's and the log's */
		}
		if (c->before)
			put(tx->tables[c->table], l, c->before);
	}
	return PT_OK;
}

static void mem_close(struct pt_db *base)
{
	struct mem_db *db = pt_container_of(base, struct mem_db, base);

	for (size_t i = 0; db->heads && i < db->n_tables; i++)
		version_unref(&db->layouts[i], db->heads[i]);
	pthread_mutex_destroy(&db->lock);
	pthread_cond_destroy(&db->idle);
	pt_layouts_free(db->layouts, db->n_tables);
	free(db->heads);
	free(db);
}

static const struct pt_db_ops mem_ops = {
	.name = "mem",
	.begin = mem_begin,
	.commit = mem_commit,
	.rollback = mem_rollback,
	.mark = mem_mark,
	.undo = mem_undo,
	.get = mem_get,
	.insert = mem_insert,
	.update = mem_update,
	.remove = mem_remove,
	.scan = mem_scan,
	.count = mem_count,
	.close = mem_close,
};

int pt_db_mem_open(struct pt_db **ret, const char *rest, struct pt_layout *l, size_t n, struct pt_err *err)
{
	struct mem_db *db = calloc(1, sizeof(*db));
	bool whole;

	if (!db) {
		pt_layouts_free(l, n);
		return pt_fail_oom(err);
	}
	db->base.ops = &mem_ops;
	db->layouts = l;
	db->n_tables = n;
	pthread_mutex_init(&db->lock, NULL);
	pthread_cond_init(&db->idle, NULL);
	db->heads = calloc(n + 1, sizeof(struct version *));
	whole = db->heads != NULL;
	for (size_t i = 0; whole && i < n; i++)
		whole = (db->heads[i] = version_new(&l[i], NULL)) != NULL;
	if (!whole) {
		mem_close(&db->base);
		return pt_fail_oom(err);
	}
	*ret = &db->base;
	return PT_OK;
}
