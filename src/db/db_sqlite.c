/* The durable database: one SQLite file in WAL mode, synchronous=FULL: a commit is one append to the log and one fdatasync.
 *
 * One connection writes; it is handed from transaction to transaction (`writing`).  Up to MAX_READERS more read, each in a
 * transaction of its own: a snapshot that no writer waits for.  Connections are made on demand and kept with their prepared
 * statements.  SQLite's own locks are off (NOMUTEX): a connection belongs to one transaction, and that to one thread, at a time.
 *
 * A lock file beside the database keeps a second gateway out (db_sqlite_file.c): both would lease the same work. */
#include "db/backend.h"
#include "db/db_sqlite_conn.h"
#include "os/file.h"
#include <pthread.h>
#include <stdio.h>

enum {
	MAX_READERS = 16,
	VACUUM_PAGES = 2000, /* pages given back in one write transaction */
};

/* What undo() has to do. */
enum mark {
	MARK_AT_START, /* nothing was written before the mark: roll back everything */
	MARK_WANTED,   /* nothing was written since the mark: nothing */
	MARK_SET,      /* there is a savepoint */
};
struct sqlite_tx {
	struct pt_tx base;
	enum mark mark;
	bool begun;
	bool saved;  /* a savepoint is open */
	bool broken; /* SQLite rolled everything back after a failure: only rollback is left … */
	struct pt_err why; /* … and this was it */
};
struct conn {
	struct sqlite_tx tx;
	struct conn *next; /* idle readers */
	struct pt_sqlite_conn *sq;
};
struct sqlite_db {
	struct pt_db base;
	struct pt_layout *layouts;
	size_t n_tables;
	char *path;
	int lock_fd;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t writer_idle, reader_idle;
	bool writing;
	struct conn *writer, *readers;
	unsigned n_readers; /* idle or not */
};

static struct sqlite_db *db_of(const struct pt_tx *tx)
{
	return pt_container_of(tx->db, struct sqlite_db, base);
}

static struct conn *conn_of(const struct pt_tx *tx)
{
	return pt_container_of(tx, struct conn, tx.base);
}

static void conn_free(struct conn *c)
{
	if (!c)
		return;
	pt_sqlite_conn_close(c->sq);
	free(c);
}

static int conn_new(struct sqlite_db *db, bool write, struct conn **ret, struct pt_err *err)
{
	struct conn *c = calloc(1, sizeof(*c));
	int rc = c ? pt_sqlite_conn_open(&c->sq, db->path, write, db->layouts, db->n_tables, err) : pt_fail_oom(err);

	if (rc < 0)
		conn_free(c);
	else
		*ret = c;
	return rc;
}

/* Inside a transaction */

static int broken(const struct sqlite_tx *tx, struct pt_err *err)
{
	*err = tx->why;
	return pt_err_wrap(err, (int)err->code, "the transaction was rolled back");
}

/* Before the first statement of a write transaction: begin it.  BEGIN IMMEDIATE even for a read, since no other writer is there
 * to wait for, and reads then share one lock of the file. */
static int start(struct sqlite_tx *tx, struct pt_err *err)
{
	int rc;

	if (tx->broken)
		return broken(tx, err);
	if (tx->begun)
		return PT_OK;
	rc = pt_sqlite_ctl(conn_of(&tx->base)->sq, PT_SQL_BEGIN_WRITE, err);
	tx->begun = rc == 0;
	return rc;
}

/* Before a write.  The savepoint is made by the first write after a mark: jobs that write nothing cost none. */
static int start_write(struct sqlite_tx *tx, struct pt_err *err)
{
	struct conn *c = conn_of(&tx->base);
	int rc;

	if (!tx->base.write)
		return pt_fail(err, PT_E_INTERNAL, "write in a read transaction");
	rc = start(tx, err);
	if (rc < 0 || tx->mark != MARK_WANTED)
		return rc;
	if (tx->saved && (rc = pt_sqlite_ctl(c->sq, PT_SQL_RELEASE, err)) < 0)
		return rc;
	tx->saved = false;
	rc = pt_sqlite_ctl(c->sq, PT_SQL_MARK, err);
	if (rc < 0)
		return rc;
	tx->saved = true;
	tx->mark = MARK_SET;
	return PT_OK;
}

/* A full disk, an I/O error or no memory may make SQLite roll back everything: then nothing of the transaction may be
 * committed. */
static int after_failure(struct sqlite_tx *tx, int rc, const struct pt_err *err)
{
	if (tx->begun && sqlite3_get_autocommit(conn_of(&tx->base)->sq->h)) {
		tx->broken = true;
		tx->why = *err;
	}
	return rc;
}

static int sqlite_get(struct pt_tx *base, const struct pt_table *t, void *rec, struct pt_err *err)
{
	struct sqlite_tx *tx = pt_container_of(base, struct sqlite_tx, base);
	struct sqlite_db *db = db_of(base);
	struct conn *c = conn_of(base);
	size_t i = pt_layout_find(db->layouts, db->n_tables, t);
	const struct pt_layout *l = &db->layouts[i];
	sqlite3_stmt *s;
	int rc = start(tx, err), step;

	if (rc < 0 || (rc = pt_sqlite_verb(c->sq, i, PT_SQL_GET, &s, err)) < 0)
		return rc;
	for (size_t k = 0; rc == 0 && k < l->n_key; k++)
		rc = pt_sql_bind(s, (int)k + 1, &t->shape->fields[k], rec, err);
	if (rc < 0)
		return rc;
	step = sqlite3_step(s);
	if (step == SQLITE_DONE)
		rc = pt_fail(err, PT_E_NOT_FOUND, "%s: no such row", t->name);
	else if (step != SQLITE_ROW)
		rc = after_failure(tx, pt_sql_fail(c->sq->h, err, t->name), err);
	for (size_t k = l->n_key; rc == 0 && k < t->shape->n; k++)
		rc = pt_sql_load(s, (int)(k - l->n_key), &t->shape->fields[k], rec, err);
	(void)sqlite3_reset(s); /* repeats the failure of the step */
	return rc;
}

static int write_row(struct pt_tx *base, const struct pt_table *t, const void *rec, enum pt_sql_verb verb, struct pt_err *err)
{
	struct sqlite_tx *tx = pt_container_of(base, struct sqlite_tx, base);
	struct sqlite_db *db = db_of(base);
	struct conn *c = conn_of(base);
	size_t i = pt_layout_find(db->layouts, db->n_tables, t), n_params;
	const struct pt_layout *l = &db->layouts[i];
	sqlite3_stmt *s;
	int rc = start_write(tx, err), step;

	if (rc < 0 || (verb != PT_SQL_REMOVE && (rc = pt_layout_check(l, rec, err)) < 0) ||
	    (rc = pt_sqlite_verb(c->sq, i, verb, &s, err)) < 0)
		return rc;
	n_params = verb == PT_SQL_REMOVE ? l->n_key : t->shape->n;
	for (size_t k = 0; rc == 0 && k < n_params; k++)
		if (verb != PT_SQL_UPDATE || !(t->shape->fields[k].flags & PT_CONST))
			rc = pt_sql_bind(s, (int)k + 1, &t->shape->fields[k], rec, err);
	if (rc < 0)
		return rc;
	step = sqlite3_step(s);
	if ((step & 0xff) == SQLITE_CONSTRAINT)
		rc = pt_sql_conflict(c->sq->h, l, err);
	else if (step != SQLITE_DONE)
		rc = after_failure(tx, pt_sql_fail(c->sq->h, err, t->name), err);
	else if (verb != PT_SQL_INSERT && sqlite3_changes(c->sq->h) == 0)
		rc = pt_fail(err, PT_E_NOT_FOUND, "%s: no such row", t->name);
	(void)sqlite3_reset(s); /* repeats the failure of the step */
	if (rc == 0)
		base->dirty = true;
	return rc;
}

static int sqlite_insert(struct pt_tx *tx, const struct pt_table *t, const void *rec, struct pt_err *err)
{
	return write_row(tx, t, rec, PT_SQL_INSERT, err);
}

static int sqlite_update(struct pt_tx *tx, const struct pt_table *t, const void *rec, struct pt_err *err)
{
	return write_row(tx, t, rec, PT_SQL_UPDATE, err);
}

static int sqlite_remove(struct pt_tx *tx, const struct pt_table *t, const void *rec, struct pt_err *err)
{
	return write_row(tx, t, rec, PT_SQL_REMOVE, err);
}

static int bind_scan(sqlite3_stmt *s, const struct pt_order *o, const struct pt_scan *q, const struct pt_field *bound,
		     struct pt_err *err)
{
	int param = 0, rc = PT_OK, b = SQLITE_OK;

	for (unsigned k = 0; rc == 0 && k < q->n_eq; k++)
		rc = pt_sql_bind(s, ++param, o->cols[k], q->match, err);
	if (rc < 0)
		return rc;
	if (bound)
		b = q->has_less_than  ? sqlite3_bind_int64(s, ++param, q->less_than)
		    : q->has_at_least ? sqlite3_bind_int64(s, ++param, q->at_least)
				      : sqlite3_bind_text64(s, ++param, q->beyond, strlen(q->beyond), SQLITE_STATIC, SQLITE_UTF8);
	if (b != SQLITE_OK || sqlite3_bind_int64(s, ++param, q->limit ? (int64_t)q->limit : -1) != SQLITE_OK)
		return pt_sql_fail(sqlite3_db_handle(s), err, "scan");
	return PT_OK;
}

/* The statement of a scan with its parameters. */
static int scan_statement(struct pt_tx *base, const struct pt_table *t, const struct pt_scan *q, bool count,
			  struct pt_sqlite_scan **ret, struct pt_err *err)
{
	struct sqlite_db *db = db_of(base);
	size_t i = pt_layout_find(db->layouts, db->n_tables, t);
	struct pt_sql_scan text = { .n_eq = q->n_eq, .desc = q->desc, .count = count };
	const struct pt_field *bound;
	int rc;

	if ((rc = start(pt_container_of(base, struct sqlite_tx, base), err)) < 0 ||
	    (rc = pt_layout_scan(&db->layouts[i], q, &text.order, &bound, err)) < 0)
		return rc;
	text.bound = !bound             ? PT_SQL_NO_BOUND
		     : q->has_less_than ? PT_SQL_LESS_THAN
		     : q->has_at_least  ? PT_SQL_AT_LEAST
					: PT_SQL_BEYOND;
	rc = pt_sqlite_scan(conn_of(base)->sq, i, &text, ret, err);
	return rc < 0 ? rc : bind_scan((*ret)->s, text.order, q, bound, err);
}

static int sqlite_count(struct pt_tx *base, const struct pt_table *t, const struct pt_scan *q, int64_t *ret, struct pt_err *err)
{
	struct pt_sqlite_scan *s = NULL;
	int rc = scan_statement(base, t, q, true, &s, err);

	if (rc < 0)
		return rc;
	if (sqlite3_step(s->s) == SQLITE_ROW)
		*ret = sqlite3_column_int64(s->s, 0);
	else
		rc = after_failure(pt_container_of(base, struct sqlite_tx, base), pt_sql_fail(conn_of(base)->sq->h, err, t->name),
				   err);
	(void)sqlite3_reset(s->s); /* repeats the failure of the step */
	return rc;
}

static int sqlite_scan(struct pt_tx *base, const struct pt_table *t, const struct pt_scan *q, int (*fn)(void *arg, void *rec),
		       void *arg, struct pt_err *err)
{
	struct sqlite_tx *tx = pt_container_of(base, struct sqlite_tx, base);
	pt_auto(pt_freep) void *rec = calloc(1, t->shape->size);
	struct pt_sqlite_scan *s = NULL;
	int rc = rec ? scan_statement(base, t, q, false, &s, err) : pt_fail_oom(err), step = SQLITE_DONE;

	if (rc < 0)
		return rc;
	s->busy = true;
	while (rc == 0 && (step = sqlite3_step(s->s)) == SQLITE_ROW) {
		for (size_t k = 0; rc == 0 && k < t->shape->n; k++)
			rc = pt_sql_load(s->s, (int)k, &t->shape->fields[k], rec, err);
		if (rc == 0)
			rc = fn(arg, rec);
		pt_shape_release(t->shape, rec);
	}
	if (rc == 0 && step != SQLITE_DONE)
		rc = after_failure(tx, pt_sql_fail(conn_of(base)->sq->h, err, t->name), err);
	(void)sqlite3_reset(s->s); /* repeats the failure of the step */
	s->busy = false;
	return rc < 0 ? rc : PT_OK;
}

/* Transactions */

/* Give the connection back. */
static void end(struct sqlite_tx *tx)
{
	struct sqlite_db *db = db_of(&tx->base);
	struct conn *c = conn_of(&tx->base);

	if (!sqlite3_get_autocommit(c->sq->h) && pt_sqlite_ctl(c->sq, PT_SQL_ROLLBACK, NULL) < 0)
		pt_assert(sqlite3_get_autocommit(c->sq->h)); /* an I/O error may be told, but the transaction is over */
	pthread_mutex_lock(&db->lock);
	if (tx->base.write) {
		db->writing = false;
		pthread_cond_signal(&db->writer_idle);
	} else {
		c->next = db->readers;
		db->readers = c;
		pthread_cond_signal(&db->reader_idle);
	}
	pthread_mutex_unlock(&db->lock);
}

static struct conn *take_writer(struct sqlite_db *db)
{
	pthread_mutex_lock(&db->lock);
	while (db->writing)
		pthread_cond_wait(&db->writer_idle, &db->lock);
	db->writing = true;
	pthread_mutex_unlock(&db->lock);
	return db->writer;
}

static int take_reader(struct sqlite_db *db, struct conn **ret, struct pt_err *err)
{
	struct conn *c;
	int rc;

	pthread_mutex_lock(&db->lock);
	while (!db->readers && db->n_readers == MAX_READERS)
		pthread_cond_wait(&db->reader_idle, &db->lock);
	c = db->readers;
	if (c)
		db->readers = c->next;
	else
		db->n_readers++;
	pthread_mutex_unlock(&db->lock);
	if (c) {
		*ret = c;
		return PT_OK;
	}
	rc = conn_new(db, false, ret, err);
	if (rc < 0) {
		pthread_mutex_lock(&db->lock);
		db->n_readers--;
		pthread_cond_signal(&db->reader_idle);
		pthread_mutex_unlock(&db->lock);
	}
	return rc;
}

static int sqlite_begin(struct pt_db *base, bool write, struct pt_tx **ret, struct pt_err *err)
{
	struct sqlite_db *db = pt_container_of(base, struct sqlite_db, base);
	struct conn *c;
	int rc = PT_OK;

	if (write)
		c = take_writer(db);
	else
		rc = take_reader(db, &c, err);
	if (rc < 0)
		return rc;
	c->tx = (struct sqlite_tx) { .base = { .db = base, .write = write } };
	if (!write) {
		c->tx.begun = true;
		if ((rc = pt_sqlite_ctl(c->sq, PT_SQL_BEGIN_READ, err)) < 0 ||
		    (rc = pt_sqlite_ctl(c->sq, PT_SQL_SNAPSHOT, err)) < 0) {
			end(&c->tx);
			return rc;
		}
	}
	*ret = &c->tx.base;
	return PT_OK;
}

static int sqlite_commit(struct pt_tx *base, struct pt_err *err)
{
	struct sqlite_tx *tx = pt_container_of(base, struct sqlite_tx, base);
	int rc = tx->broken ? broken(tx, err) : tx->begun ? pt_sqlite_ctl(conn_of(base)->sq, PT_SQL_COMMIT, err) : PT_OK;

	end(tx);
	return rc;
}

static void sqlite_rollback(struct pt_tx *base)
{
	end(pt_container_of(base, struct sqlite_tx, base));
}

static int sqlite_mark(struct pt_tx *base, struct pt_err *err)
{
	struct sqlite_tx *tx = pt_container_of(base, struct sqlite_tx, base);

	if (!base->write)
		return pt_fail(err, PT_E_INTERNAL, "mark in a read transaction");
	tx->mark = base->dirty ? MARK_WANTED : MARK_AT_START;
	return PT_OK;
}

static int sqlite_undo(struct pt_tx *base, struct pt_err *err)
{
	struct sqlite_tx *tx = pt_container_of(base, struct sqlite_tx, base);
	int rc;

	if (!base->write)
		return pt_fail(err, PT_E_INTERNAL, "undo in a read transaction");
	if (tx->broken)
		return broken(tx, err);
	if (tx->mark == MARK_WANTED || !base->dirty)
		return PT_OK;
	rc = pt_sqlite_ctl(conn_of(base)->sq, tx->mark == MARK_SET ? PT_SQL_UNDO : PT_SQL_ROLLBACK, err);
	if (rc < 0)
		return after_failure(tx, rc, err);
	if (tx->mark == MARK_AT_START)
		tx->begun = base->dirty = false;
	return PT_OK;
}

/* The database */

static int check_integrity(struct sqlite_db *db, struct pt_err *err)
{
	struct pt_tx *tx;
	sqlite3_stmt *s = NULL;
	sqlite3 *h;
	const char *text;
	int rc = sqlite_begin(&db->base, false, &tx, err);

	if (rc < 0)
		return rc;
	h = conn_of(tx)->sq->h;
	if (sqlite3_prepare_v2(h, "PRAGMA quick_check(1)", -1, &s, NULL) != SQLITE_OK || sqlite3_step(s) != SQLITE_ROW)
		rc = pt_sql_fail(h, err, "integrity check");
	else if ((text = (const char *)sqlite3_column_text(s, 0)) && strcmp(text, "ok") != 0) {
		(void)pt_fail(err, PT_E_CORRUPT, "integrity check: %s", text);
		rc = pt_hint(err, "the database file is damaged: stop, keep a copy of it, and restore a backup");
	}
	(void)sqlite3_finalize(s); /* repeats the failure of the step */
	sqlite_rollback(tx);
	return rc;
}

static int sqlite_maintain(struct pt_db *base, struct pt_err *err)
{
	struct sqlite_db *db = pt_container_of(base, struct sqlite_db, base);
	int64_t n_free = INT64_MAX, before;
	int rc = check_integrity(db, err);

	if (rc < 0)
		return rc;
	do { /* in portions, so that writers get their turn */
		struct conn *c = take_writer(db);
		char text[60];

		before = n_free;
		c->tx = (struct sqlite_tx) { .base = { .db = base, .write = true } };
		snprintf(text, sizeof(text), "PRAGMA incremental_vacuum(%d)", VACUUM_PAGES);
		rc = pt_sql_int(c->sq->h, "PRAGMA freelist_count", &n_free, err);
		if (rc == 0 && n_free && n_free < before)
			rc = pt_sql_exec(c->sq->h, text, err);
		end(&c->tx);
	} while (rc == 0 && n_free && n_free < before);
	return rc;
}

static void sqlite_close(struct pt_db *base)
{
	struct sqlite_db *db = pt_container_of(base, struct sqlite_db, base);

	while (db->readers) {
		struct conn *c = db->readers;

		db->readers = c->next;
		db->n_readers--;
		conn_free(c);
	}
	pt_assert(!db->writing && !db->n_readers); /* transactions end before their database */
	conn_free(db->writer);
	if (db->lock_fd >= 0)
		(void)close(db->lock_fd); /* the lock goes with it; the file stays: removing it would race with the next owner */
	pthread_mutex_destroy(&db->lock);
	pthread_cond_destroy(&db->writer_idle);
	pthread_cond_destroy(&db->reader_idle);
	pt_layouts_free(db->layouts, db->n_tables);
	free(db->path);
	free(db);
}

static const struct pt_db_ops sqlite_ops = {
	.name = "sqlite",
	.begin = sqlite_begin,
	.commit = sqlite_commit,
	.rollback = sqlite_rollback,
	.mark = sqlite_mark,
	.undo = sqlite_undo,
	.get = sqlite_get,
	.insert = sqlite_insert,
	.update = sqlite_update,
	.remove = sqlite_remove,
	.scan = sqlite_scan,
	.count = sqlite_count,
	.maintain = sqlite_maintain,
	.close = sqlite_close,
};

static int open_file(struct sqlite_db *db, struct pt_err *err)
{
	sqlite3_stmt *s = NULL;
	sqlite3 *h;
	const char *mode = NULL;
	int rc;

	if ((rc = pt_sqlite_file_make(db->path, err)) < 0 || (rc = pt_sqlite_file_lock(db->path, &db->lock_fd, err)) < 0 ||
	    (rc = conn_new(db, true, &db->writer, err)) < 0)
		return rc;
	h = db->writer->sq->h;
	if (sqlite3_prepare_v2(h, "PRAGMA journal_mode", -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW)
		mode = (const char *)sqlite3_column_text(s, 0);
	if (!mode || strcmp(mode, "wal") != 0) {
		(void)pt_fail(err, PT_E_UNSUPPORTED,
			      "the file system cannot share memory between processes, which the log needs");
		rc = pt_hint(err, "put the database on a local file system");
	}
	(void)sqlite3_finalize(s);
	return rc < 0 ? rc : pt_sqlite_schema(h, db->layouts, db->n_tables, err);
}

/* SQLite's statistics of memory are one lock around every allocation of every connection; nobody reads them. */
static void no_statistics(void)
{
	(void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); /* refused when SQLite is in use already: then it only costs time */
}

int pt_db_sqlite_open(struct pt_db **ret, const char *rest, struct pt_layout *l, size_t n, struct pt_err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct sqlite_db *db = calloc(1, sizeof(*db));
	int rc;

	if (!db) {
		pt_layouts_free(l, n);
		return pt_fail_oom(err);
	}
	pthread_once(&once, no_statistics);
	db->base.ops = &sqlite_ops;
	db->layouts = l;
	db->n_tables = n;
	db->lock_fd = -1;
	pthread_mutex_init(&db->lock, NULL);
	pthread_cond_init(&db->writer_idle, NULL);
	pthread_cond_init(&db->reader_idle, NULL);
	/* "./" in front: ":memory:" and "file:" are names like any other. */
	if (asprintf(&db->path, "%s%s", rest[0] == '/' ? "" : "./", rest) < 0)
		db->path = NULL;
	rc = !db->path ? pt_fail_oom(err) : !rest[0] ? pt_fail(err, PT_E_INVALID, "the path is missing") : open_file(db, err);
	if (rc < 0) {
		sqlite_close(&db->base);
		return pt_err_wrap(err, rc, "database '%s'", rest);
	}
	*ret = &db->base;
	return PT_OK;
}
