/* The gateway's state: records in tables, described by shapes, behind a const struct of functions.  Backends: sqlite (durable),
 * mem (tests, and the reference of the contract suite).  No rule of the product lives here: those are in src/gateway.
 *
 * Reading: any thread, each its own read transaction (a snapshot).  Writing: one thread, see db/writer.h. */
#ifndef PT_DB_DB_H
#define PT_DB_DB_H
#include "base/shape.h"
#include <sched.h>
#include <stdatomic.h>

struct pt_db;
struct pt_tx;

enum { PT_INDEX_COLS = 4 };
struct pt_index {
	const char *name;
	const char *cols[PT_INDEX_COLS]; /* NULL-terminated when fewer; ID, STR or I64 fields */
	bool unique; /* rows with an absent column (ID "", STR NULL; a key column never is) are not bound by it */
	/* A column of the index: rows in which it is absent (ID "", STR NULL, I64 0) are not in the index, so they cost it nothing,
	 * and no scan of it finds them.  NULL = every row is. */
	const char *sparse;
};
struct pt_table {
	const char *name;
	const struct pt_shape *shape; /* fields with PT_KEY (first ones) are the primary key */
	const struct pt_index *indexes;
	size_t n_indexes;
	/* Few rows, rarely written, often read: pt_tx_get() and pt_tx_find() answer from copies in memory while no transaction has
	 * written to a steady table (db/steady.c).  ID, STR, I64 and BOOL columns only. */
	bool steady;
	bool small; /* rows of up to some 200 bytes: kept in the tree of the key */
};

/* A list query: rows whose leading index columns equal those of `match` (a record of the table; n_eq columns), in the order of
 * the remaining index columns and the key. */
struct pt_scan {
	const struct pt_index *index; /* of the table, or a copy of it (known by its name); NULL = primary key */
	const void *match;
	unsigned n_eq;
	bool desc;
	/* One optional bound on the column after the equal ones (of the index, then of the key): only rows < less_than, or
	 * >= at_least (I64), or beyond this text (ID, STR: after it in scan order; NULL or "" = no bound).  Texts sort by bytes,
	 * absent ones first. */
	bool has_less_than, has_at_least;
	int64_t less_than, at_least;
	const char *beyond;
	size_t limit; /* 0 = none */
};

struct pt_db_ops {
	const char *name;
	/* write: one at a time; a second begin(write) waits.  begin is the first mark.  read: the state of this moment; may
	 * wait for another reader to end (sqlite: more than 16), so a thread has one at a time. */
	int (*begin)(struct pt_db *db, bool write, struct pt_tx **ret, struct pt_err *err);
	/* Durable after return (write).  On failure the transaction is rolled back.  Frees tx either way. */
	int (*commit)(struct pt_tx *tx, struct pt_err *err);
	void (*rollback)(struct pt_tx *tx);
	/* Remember this point / undo all writes since it (one level, replaced by the next mark).  A failed undo leaves nothing
	 * to save: roll back. */
	int (*mark)(struct pt_tx *tx, struct pt_err *err);
	int (*undo)(struct pt_tx *tx, struct pt_err *err);
	/* rec's key fields are filled; the rest of the zeroed struct is filled from the row (caller releases with the shape, also
	 * after a failure).  0, PT_E_NOT_FOUND (rec keeps its key). */
	int (*get)(struct pt_tx *tx, const struct pt_table *t, void *rec, struct pt_err *err);
	/* PT_E_CONFLICT: the key or the value of a unique index exists (the message names it).  PT_E_INVALID: an absent STR
	 * key, NaN. */
	int (*insert)(struct pt_tx *tx, const struct pt_table *t, const void *rec, struct pt_err *err);
	/* The whole row but its PT_CONST columns.  As insert, and PT_E_NOT_FOUND. */
	int (*update)(struct pt_tx *tx, const struct pt_table *t, const void *rec, struct pt_err *err);
	/* By the key.  PT_E_NOT_FOUND. */
	int (*remove)(struct pt_tx *tx, const struct pt_table *t, const void *rec, struct pt_err *err);
	/* fn gets each row (it may take the row's members by zeroing them); > 0 stops the scan (which returns 0), < 0 stops it
	 * with that error (fn fills err).  fn must not write to the scanned table while the scan runs. */
	int (*scan)(struct pt_tx *tx, const struct pt_table *t, const struct pt_scan *q, int (*fn)(void *arg, void *rec),
		    void *arg, struct pt_err *err);
	/* How many rows the scan would give.  Reads the index only. */
	int (*count)(struct pt_tx *tx, const struct pt_table *t, const struct pt_scan *q, int64_t *ret, struct pt_err *err);
	/* Check integrity (PT_E_CORRUPT), then give free space back to the file system.  Any thread, outside transactions; takes
	 * as long as reading the whole database, writers wait only for short parts of it.  May be NULL. */
	int (*maintain)(struct pt_db *db, struct pt_err *err);
	void (*close)(struct pt_db *db);
};
struct pt_steady;
struct pt_db {
	const struct pt_db_ops *ops;
	struct pt_steady *steady;
	_Atomic uint64_t epoch;     /* counts the commits that wrote to steady tables */
	_Atomic unsigned uncounted; /* such a commit may have happened and is not counted yet */
};
struct pt_tx {
	struct pt_db *db;
	uint64_t epoch; /* of the database when it began */
	bool write;
	bool no_copies;    /* its epoch may not be that of what it sees */
	bool wrote_steady; /* copies say nothing about its own writes */
	bool dirty; /* something was written: a commit of a clean transaction costs nothing */
};

/* "sqlite:PATH" (made when absent, migrated when old; PT_E_UNSUPPORTED when newer than this program, PT_E_CONFLICT when another
 * process has it), "mem:".  tables: NULL-terminated, must outlive the database; only these may be passed to the functions
 * above. */
int pt_db_open(struct pt_db **ret, const char *url, const struct pt_table *const *tables, struct pt_err *err) PT_MUSTCHECK;

static inline PT_MUSTCHECK int pt_db_begin(struct pt_db *db, bool write, struct pt_tx **ret, struct pt_err *err)
{
	uint64_t epoch = atomic_load(&db->epoch);
	int rc = db->ops->begin(db, write, ret, err);
	bool between;

	if (rc < 0)
		return rc;
	while (write && atomic_load(&db->uncounted)) /* the writer before this one is between two lines of pt_tx_commit() */
		(void)sched_yield();
	between = atomic_load(&db->uncounted); /* before the epoch: pt_tx_commit() raises that, then lowers this */
	(*ret)->epoch = atomic_load(&db->epoch);
	(*ret)->no_copies = !write && (between || (*ret)->epoch != epoch);
	return rc;
}
/* A commit has failed with err: is it certain that nothing of it is on the disk, where it would count after a crash? */
bool pt_db_undone(const struct pt_err *err);
static inline PT_MUSTCHECK int pt_tx_commit(struct pt_tx *tx, struct pt_err *err)
{
	struct pt_db *db = tx->db;
	bool steady = tx->wrote_steady;
	int rc;

	if (steady)
		atomic_fetch_add(&db->uncounted, 1);
	rc = db->ops->commit(tx, err);
	if (steady) { /* after a failure, too: it may have happened */
		atomic_fetch_add(&db->epoch, 1);
		atomic_fetch_sub(&db->uncounted, 1);
	}
	return rc;
}
static inline void pt_tx_rollback(struct pt_tx *tx)
{
	if (tx)
		tx->db->ops->rollback(tx);
}
PT_DEFINE_CLEANUP(struct pt_tx *, pt_tx_rollback)
int pt_steady_get(struct pt_tx *tx, const struct pt_table *t, void *rec, struct pt_err *err) PT_MUSTCHECK;
static inline PT_MUSTCHECK int pt_tx_get(struct pt_tx *tx, const struct pt_table *t, void *rec, struct pt_err *err)
{
	return t->steady ? pt_steady_get(tx, t, rec, err) : tx->db->ops->get(tx, t, rec, err);
}
/* Read the row that the unique index names: rec has the index's columns filled; on success all of it is the row (what it owned
 * before is released), otherwise it is untouched.  PT_E_NOT_FOUND. */
int pt_tx_find(struct pt_tx *tx, const struct pt_table *t, const struct pt_index *index, void *rec,
	       struct pt_err *err) PT_MUSTCHECK;
/* The same in a read transaction of their own, which they need only when there is no copy.  Steady tables only. */
int pt_db_get(struct pt_db *db, const struct pt_table *t, void *rec, struct pt_err *err) PT_MUSTCHECK;
int pt_db_find(struct pt_db *db, const struct pt_table *t, const struct pt_index *index, void *rec,
	       struct pt_err *err) PT_MUSTCHECK;
static inline PT_MUSTCHECK int pt_tx_insert(struct pt_tx *tx, const struct pt_table *t, const void *rec, struct pt_err *err)
{
	tx->wrote_steady |= t->steady;
	return tx->db->ops->insert(tx, t, rec, err);
}
static inline PT_MUSTCHECK int pt_tx_update(struct pt_tx *tx, const struct pt_table *t, const void *rec, struct pt_err *err)
{
	tx->wrote_steady |= t->steady;
	return tx->db->ops->update(tx, t, rec, err);
}
static inline PT_MUSTCHECK int pt_tx_remove(struct pt_tx *tx, const struct pt_table *t, const void *rec, struct pt_err *err)
{
	tx->wrote_steady |= t->steady;
	return tx->db->ops->remove(tx, t, rec, err);
}
static inline PT_MUSTCHECK int pt_tx_scan(struct pt_tx *tx, const struct pt_table *t, const struct pt_scan *q,
					  int (*fn)(void *arg, void *rec), void *arg, struct pt_err *err)
{
	return tx->db->ops->scan(tx, t, q, fn, arg, err);
}
static inline PT_MUSTCHECK int pt_tx_count(struct pt_tx *tx, const struct pt_table *t, const struct pt_scan *q, int64_t *ret,
					   struct pt_err *err)
{
	return tx->db->ops->count(tx, t, q, ret, err);
}
static inline PT_MUSTCHECK int pt_tx_mark(struct pt_tx *tx, struct pt_err *err)
{
	return tx->db->ops->mark(tx, err);
}
static inline PT_MUSTCHECK int pt_tx_undo(struct pt_tx *tx, struct pt_err *err)
{
	return tx->db->ops->undo(tx, err);
}
void pt_db_close(struct pt_db *db);
PT_DEFINE_CLEANUP(struct pt_db *, pt_db_close)
#endif
