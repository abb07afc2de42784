/* The gateway's state: records in tables, described by shapes, behind a const struct of functions.  Backends: sqlite (durable),
 * mem (tests, and the reference of the contract suite).  No rule of the product lives here: those are in src/gateway.
 *
 * Reading: any thread, each its own read transaction (a snapshot).  Writing: one thread, see db/writer.h. */
#ifndef PT_DB_DB_H
#define PT_DB_DB_H
#include "base/shape.h"

struct pt_db;
struct pt_tx;

enum { PT_INDEX_COLS = 4 };
struct pt_index {
	const char *name;
	const char *cols[PT_INDEX_COLS]; /* NULL-terminated when fewer; ID, STR or I64 fields */
	bool unique; /* rows with an absent column (ID "", STR NULL; a key column never is) are not bound by it */
};
struct pt_table {
	const char *name;
	const struct pt_shape *shape; /* fields with PT_KEY (first ones) are the primary key */
	const struct pt_index *indexes;
	size_t n_indexes;
};

/* A list query: rows whose leading index columns equal those of `match` (a record of the table; n_eq columns), in the order of
 * the remaining index columns and the key. */
struct pt_scan {
	const struct pt_index *index; /* NULL = primary key */
	const void *match;
	unsigned n_eq;
	bool desc;
	/* Optional bound on the column after the equal ones (of the index, then of the key): only rows < less_than (I64), or
	 * beyond this text (ID, STR: after it in scan order; NULL or "" = no bound).  Texts sort by bytes, absent ones first. */
	bool has_less_than;
	int64_t less_than;
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
	/* The whole row.  As insert, and PT_E_NOT_FOUND. */
	int (*update)(struct pt_tx *tx, const struct pt_table *t, const void *rec, struct pt_err *err);
	/* By the key.  PT_E_NOT_FOUND. */
	int (*remove)(struct pt_tx *tx, const struct pt_table *t, const void *rec, struct pt_err *err);
	/* fn gets each row (it may take the row's members by zeroing them); > 0 stops the scan (which returns 0), < 0 stops it
	 * with that error (fn fills err).  fn must not write to the scanned table while the scan runs. */
	int (*scan)(struct pt_tx *tx, const struct pt_table *t, const struct pt_scan *q, int (*fn)(void *arg, void *rec),
		    void *arg, struct pt_err *err);
	/* Check integrity (PT_E_CORRUPT), then give free space back to the file system.  Any thread, outside transactions; takes
	 * as long as reading the whole database, writers wait only for short parts of it.  May be NULL. */
	int (*maintain)(struct pt_db *db, struct pt_err *err);
	void (*close)(struct pt_db *db);
};
struct pt_db {
	const struct pt_db_ops *ops;
};
struct pt_tx {
	struct pt_db *db;
	bool write;
	bool dirty; /* something was written: a commit of a clean transaction costs nothing */
};

/* "sqlite:PATH" (made when absent, migrated when old; PT_E_UNSUPPORTED when newer than this program, PT_E_CONFLICT when another
 * process has it), "mem:".  tables: NULL-terminated, must outlive the database; only these may be passed to the functions
 * above. */
int pt_db_open(struct pt_db **ret, const char *url, const struct pt_table *const *tables, struct pt_err *err) PT_MUSTCHECK;

static inline PT_MUSTCHECK int pt_db_begin(struct pt_db *db, bool write, struct pt_tx **ret, struct pt_err *err)
{
	return db->ops->begin(db, write, ret, err);
}
static inline PT_MUSTCHECK int pt_tx_commit(struct pt_tx *tx, struct pt_err *err)
{
	return tx->db->ops->commit(tx, err);
}
static inline void pt_tx_rollback(struct pt_tx *tx)
{
	if (tx)
		tx->db->ops->rollback(tx);
}
PT_DEFINE_CLEANUP(struct pt_tx *, pt_tx_rollback)
static inline PT_MUSTCHECK int pt_tx_get(struct pt_tx *tx, const struct pt_table *t, void *rec, struct pt_err *err)
{
	return tx->db->ops->get(tx, t, rec, err);
}
static inline PT_MUSTCHECK int pt_tx_insert(struct pt_tx *tx, const struct pt_table *t, const void *rec, struct pt_err *err)
{
	return tx->db->ops->insert(tx, t, rec, err);
}
static inline PT_MUSTCHECK int pt_tx_update(struct pt_tx *tx, const struct pt_table *t, const void *rec, struct pt_err *err)
{
	return tx->db->ops->update(tx, t, rec, err);
}
static inline PT_MUSTCHECK int pt_tx_remove(struct pt_tx *tx, const struct pt_table *t, const void *rec, struct pt_err *err)
{
	return tx->db->ops->remove(tx, t, rec, err);
}
static inline PT_MUSTCHECK int pt_tx_scan(struct pt_tx *tx, const struct pt_table *t, const struct pt_scan *q,
					  int (*fn)(void *arg, void *rec), void *arg, struct pt_err *err)
{
	return tx->db->ops->scan(tx, t, q, fn, arg, err);
}
static inline PT_MUSTCHECK int pt_tx_mark(struct pt_tx *tx, struct pt_err *err)
{
	return tx->db->ops->mark(tx, err);
}
static inline PT_MUSTCHECK int pt_tx_undo(struct pt_tx *tx, struct pt_err *err)
{
	return tx->db->ops->undo(tx, err);
}
static inline void pt_db_close(struct pt_db *db)
{
	if (db)
		db->ops->close(db);
}
PT_DEFINE_CLEANUP(struct pt_db *, pt_db_close)
#endif
