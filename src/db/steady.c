/* Copies of rows of steady tables (db.h): who a token is, what an agent is called.  Every request asks for such rows, and they change
 * when an administrator does something; a read of the database costs a hundred times as much as a copy.
 *
 * A copy belongs to the epoch of the database in which it was read.  A commit that wrote to any steady table ends the epoch, and
 * all copies go.  So a transaction gets copies as new as what else it sees, and once such a commit is acknowledged nobody
 * gets an older one.  While such a commit is on its way the database is read, also by transactions that began then, and by one
 * that wrote to steady tables itself.
 *
 * One lock, held for a lookup and a copy; any thread. */
#include "db/backend.h"
#include <pthread.h>
#include <uthash.h>

enum {
	MOST_COPIES = 32768, /* then all go: simple, and rare */
	KEY_MAX = 300,       /* a longer key is not remembered */
};

struct copy {
	UT_hash_handle hh;
	const struct pt_table *table;
	char key[KEY_MAX];
	max_align_t rec[]; /* the table's struct */
};
struct pt_steady {
	pthread_mutex_t lock;
	uint64_t epoch; /* of all copies */
	struct copy *copies;
};

struct pt_steady *pt_steady_new(void)
{
	struct pt_steady *s = calloc(1, sizeof(*s));

	if (s)
		pthread_mutex_init(&s->lock, NULL);
	return s;
}

static void forget_all(struct pt_steady *s)
{
	struct copy *c, *tmp;

	HASH_ITER(hh, s->copies, c, tmp) {
		HASH_DEL(s->copies, c);
		pt_shape_release(c->table->shape, c->rec);
		free(c);
	}
}

void pt_steady_free(struct pt_steady *s)
{
	if (!s)
		return;
	forget_all(s);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

/* Which row: the table, the index (NULL = the primary key) and the texts of its columns.  0 = not one to remember. */
static size_t key_of(const struct pt_table *t, const struct pt_index *index, const void *rec, char key[static KEY_MAX])
{
	const void *which[2] = { t, index ? (const void *)index->name : NULL };
	size_t n = sizeof(which);

	memcpy(key, which, n);
	for (size_t i = 0; index ? i < PT_INDEX_COLS && index->cols[i] : i < t->shape->n && (t->shape->fields[i].flags & PT_KEY);
	     i++) {
		const struct pt_field *f = index ? pt_shape_field(t->shape, index->cols[i]) : &t->shape->fields[i];
		const char *text = f && f->type != PT_T_I64 ? pt_column_text(f, rec) : NULL;
		size_t len = text ? strlen(text) + 1 : 0;

		if (!len || len > KEY_MAX - n)
			return 0;
		memcpy(key + n, text, len);
		n += len;
	}
	return n;
}

static bool copy_row(const struct pt_shape *sh, void *dst, const void *src)
{
	bool whole = true;

	memcpy(dst, src, sh->size);
	for (size_t i = 0; i < sh->n; i++) {
		char **p = pt_column(&sh->fields[i], dst);

		if (sh->fields[i].type == PT_T_STR && *p && !(*p = strdup(*p)))
			whole = false;
	}
	if (!whole)
		pt_shape_release(sh, dst);
	return whole;
}

static bool copies_count(const struct pt_tx *tx)
{
	return !tx->wrote_steady && !tx->no_copies;
}

static bool look_up(struct pt_steady *s, uint64_t epoch, const struct pt_table *t, const char *key, size_t n, void *rec)
{
	struct copy *c = NULL;
	void *row = NULL;

	if (!n)
		return false;
	pthread_mutex_lock(&s->lock);
	if (s->epoch == epoch)
		HASH_FIND(hh, s->copies, key, n, c);
	if (c && (row = malloc(t->shape->size)) && !copy_row(t->shape, row, c->rec)) {
		free(row);
		row = NULL;
	}
	pthread_mutex_unlock(&s->lock);
	if (!row)
		return false;
	pt_shape_release(t->shape, rec); /* the key of the question */
	memcpy(rec, row, t->shape->size);
	free(row);
	return true;
}

static void remember(struct pt_steady *s, uint64_t epoch, const struct pt_table *t, const char *key, size_t n, const void *rec)
{
	struct copy *c = n ? malloc(sizeof(*c) + t->shape->size) : NULL, *old = NULL;

	if (!c || !copy_row(t->shape, c->rec, rec)) {
		free(c);
		return;
	}
	c->table = t;
	memcpy(c->key, key, n);
	pthread_mutex_lock(&s->lock);
	if (epoch > s->epoch || HASH_COUNT(s->copies) >= MOST_COPIES)
		forget_all(s);
	if (epoch > s->epoch)
		s->epoch = epoch;
	if (epoch == s->epoch)
		HASH_FIND(hh, s->copies, key, n, old);
	if (epoch == s->epoch && !old) {
		HASH_ADD(hh, s->copies, key, n, c);
		c = NULL;
	}
	pthread_mutex_unlock(&s->lock);
	if (c)
		pt_shape_release(t->shape, c->rec);
	free(c);
}

/* --- inside a transaction --- */

int pt_steady_get(struct pt_tx *tx, const struct pt_table *t, void *rec, struct pt_err *err)
{
	char key[KEY_MAX];
	size_t n = copies_count(tx) ? key_of(t, NULL, rec, key) : 0;
	int rc;

	if (look_up(tx->db->steady, tx->epoch, t, key, n, rec))
		return PT_OK;
	rc = tx->db->ops->get(tx, t, rec, err);
	if (rc == 0)
		remember(tx->db->steady, tx->epoch, t, key, n, rec);
	return rc;
}

struct first {
	const struct pt_table *t;
	void *rec;
	bool found;
};

static int take_first(void *arg, void *rec)
{
	struct first *f = arg;

	memcpy(f->rec, rec, f->t->shape->size);
	memset(rec, 0, f->t->shape->size); /* its members are ours now */
	f->found = true;
	return 1;
}

int pt_tx_find(struct pt_tx *tx, const struct pt_table *t, const struct pt_index *index, void *rec, struct pt_err *err)
{
	char key[KEY_MAX];
	size_t n = t->steady && copies_count(tx) ? key_of(t, index, rec, key) : 0;
	pt_auto(pt_freep) void *row = NULL;
	struct first f = { .t = t };
	unsigned n_eq = 0;
	int rc;

	if (look_up(tx->db->steady, tx->epoch, t, key, n, rec))
		return PT_OK;
	f.rec = row = calloc(1, t->shape->size);
	if (!row)
		return pt_fail_oom(err);
	while (n_eq < PT_INDEX_COLS && index->cols[n_eq])
		n_eq++;
	rc = pt_tx_scan(tx, t, &(struct pt_scan) { .index = index, .match = rec, .n_eq = n_eq, .limit = 1 }, take_first, &f, err);
	if (rc < 0 || !f.found)
		return rc < 0 ? rc : pt_fail(err, PT_E_NOT_FOUND, "no such record in %s", t->name);
	remember(tx->db->steady, tx->epoch, t, key, n, row);
	pt_shape_release(t->shape, rec);
	memcpy(rec, row, t->shape->size);
	return PT_OK;
}

/* --- without one --- */

static int read_alone(struct pt_db *db, const struct pt_table *t, const struct pt_index *index, void *rec, struct pt_err *err)
{
	char key[KEY_MAX];
	struct pt_tx *tx;
	int rc;

	pt_assert(t->steady);
	if (!atomic_load(&db->uncounted) && look_up(db->steady, atomic_load(&db->epoch), t, key, key_of(t, index, rec, key), rec))
		return PT_OK;
	rc = pt_db_begin(db, false, &tx, err);
	if (rc < 0)
		return rc;
	rc = index ? pt_tx_find(tx, t, index, rec, err) : pt_tx_get(tx, t, rec, err);
	pt_tx_rollback(tx);
	return rc;
}

int pt_db_get(struct pt_db *db, const struct pt_table *t, void *rec, struct pt_err *err)
{
	return read_alone(db, t, NULL, rec, err);
}

int pt_db_find(struct pt_db *db, const struct pt_table *t, const struct pt_index *index, void *rec, struct pt_err *err)
{
	return read_alone(db, t, index, rec, err);
}
