/* One connection of the SQLite backend (db_sqlite_conn.h). */
#include "db/db_sqlite_conn.h"

enum { BUSY_MS = 5000 /* a backup or the sqlite3 shell may hold the file for a moment */ };

static const char *const ctl_sql[PT_SQL_CTLS] = {
	[PT_SQL_BEGIN_READ] = "BEGIN",
	[PT_SQL_BEGIN_WRITE] = "BEGIN IMMEDIATE",
	[PT_SQL_SNAPSHOT] = "SELECT rootpage FROM sqlite_schema LIMIT 1",
	[PT_SQL_COMMIT] = "COMMIT",
	[PT_SQL_ROLLBACK] = "ROLLBACK",
	[PT_SQL_MARK] = "SAVEPOINT m",
	[PT_SQL_RELEASE] = "RELEASE m",
	[PT_SQL_UNDO] = "ROLLBACK TO m",
};

void pt_sqlite_conn_close(struct pt_sqlite_conn *c)
{
	if (!c)
		return;
	for (int i = 0; i < PT_SQL_CTLS; i++)
		(void)sqlite3_finalize(c->ctl[i]);
	for (size_t i = 0; i < c->n_tables; i++) {
		struct pt_sqlite_scan *s;

		for (int v = 0; v < PT_SQL_VERBS; v++)
			(void)sqlite3_finalize(c->tables[i].verb[v]);
		while ((s = c->tables[i].scans)) {
			c->tables[i].scans = s->next;
			(void)sqlite3_finalize(s->s);
			free(s);
		}
	}
	(void)sqlite3_close(c->h); /* the last one folds the log into the file; a failure leaves that to the next open */
	free(c);
}

int pt_sqlite_conn_open(struct pt_sqlite_conn **ret, const char *path, bool write, const struct pt_layout *l, size_t n,
			struct pt_err *err)
{
	/* The cache holds the pages that a commit group changes.  Checkpoints each 32 MiB of log: the same hot pages are
	 * written to the file once per checkpoint, not once per commit.  auto_vacuum must precede the first table, it lets
	 * maintain() shrink the file. */
	static const char writer_pragmas[] =
		"PRAGMA page_size=8192; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
		"PRAGMA wal_autocheckpoint=4096; PRAGMA journal_size_limit=67108864;"
		"PRAGMA cache_size=-8192; PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY;"
		"PRAGMA trusted_schema=OFF";
	static const char reader_pragmas[] =
		"PRAGMA query_only=ON; PRAGMA cache_size=-1024; PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY;"
		"PRAGMA trusted_schema=OFF";
	const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE;
	struct pt_sqlite_conn *c = calloc(1, sizeof(*c) + n * sizeof(c->tables[0]));
	int rc = PT_OK;

	if (!c)
		return pt_fail_oom(err);
	c->layouts = l;
	c->n_tables = n;
	if (sqlite3_open_v2(path, &c->h, flags, NULL) != SQLITE_OK || sqlite3_extended_result_codes(c->h, 1) != SQLITE_OK ||
	    sqlite3_busy_timeout(c->h, BUSY_MS) != SQLITE_OK)
		rc = c->h ? pt_sql_fail(c->h, err, "open") : pt_fail_oom(err);
	if (rc == 0 && write)
		rc = pt_sqlite_check(c->h, err); /* the pragmas would change a file that is not ours */
	if (rc == 0)
		rc = pt_sql_exec(c->h, write ? writer_pragmas : reader_pragmas, err);
	for (int i = 0; rc == 0 && i < PT_SQL_CTLS; i++)
		if (sqlite3_prepare_v3(c->h, ctl_sql[i], -1, SQLITE_PREPARE_PERSISTENT, &c->ctl[i], NULL) != SQLITE_OK)
			rc = pt_sql_fail(c->h, err, "prepare");
	if (rc < 0) {
		pt_sqlite_conn_close(c);
		return rc;
	}
	*ret = c;
	return PT_OK;
}

static int prepare(struct pt_sqlite_conn *c, struct pt_buf *text, sqlite3_stmt **ret, struct pt_err *err)
{
	int rc = pt_buf_done(text, err);

	if (rc == 0 && sqlite3_prepare_v3(c->h, text->p, -1, SQLITE_PREPARE_PERSISTENT, ret, NULL) != SQLITE_OK)
		rc = pt_sql_fail(c->h, err, "prepare");
	return rc;
}

int pt_sqlite_verb(struct pt_sqlite_conn *c, size_t table, enum pt_sql_verb verb, sqlite3_stmt **ret, struct pt_err *err)
{
	sqlite3_stmt **s = &c->tables[table].verb[verb];

	if (!*s) {
		pt_auto_buf b = PT_BUF_INIT(64 * 1024);
		int rc;

		pt_sql_verb(&b, &c->layouts[table], verb);
		rc = prepare(c, &b, s, err);
		if (rc < 0)
			return rc;
	}
	*ret = *s;
	return PT_OK;
}

int pt_sqlite_scan(struct pt_sqlite_conn *c, size_t table, const struct pt_sql_scan *q, struct pt_sqlite_scan **ret,
		   struct pt_err *err)
{
	struct pt_sqlite_scan *s = c->tables[table].scans;
	pt_auto_buf b = PT_BUF_INIT(64 * 1024);
	int rc;

	while (s && (s->busy || s->q.order != q->order || s->q.n_eq != q->n_eq || s->q.bound != q->bound ||
		     s->q.desc != q->desc || s->q.count != q->count))
		s = s->next;
	if (!s) {
		s = calloc(1, sizeof(*s));
		if (!s)
			return pt_fail_oom(err);
		s->q = *q;
		pt_sql_scan(&b, &c->layouts[table], q);
		rc = prepare(c, &b, &s->s, err);
		if (rc < 0) {
			free(s);
			return rc;
		}
		s->next = c->tables[table].scans;
		c->tables[table].scans = s;
	}
	*ret = s;
	return PT_OK;
}

int pt_sqlite_ctl(struct pt_sqlite_conn *c, enum pt_sql_ctl what, struct pt_err *err)
{
	sqlite3_stmt *s = c->ctl[what];
	int rc, failed;

	errno = 0;
	rc = sqlite3_step(s);
	failed = rc == SQLITE_DONE || rc == SQLITE_ROW ? 0 : pt_sql_fail_sys(c->h, err, ctl_sql[what], errno);
	(void)sqlite3_reset(s); /* repeats the failure of the step */
	return failed;
}
