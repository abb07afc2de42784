/* One connection of the SQLite backend with its prepared statements: made when first used, kept until it closes.  Internal to
 * src/db.  One thread uses a connection at a time. */
#ifndef PT_DB_DB_SQLITE_CONN_H
#define PT_DB_DB_SQLITE_CONN_H
#include "db/db_sqlite.h"

enum pt_sql_ctl {
	PT_SQL_BEGIN_READ,
	PT_SQL_BEGIN_WRITE,
	PT_SQL_SNAPSHOT, /* after BEGIN_READ, which alone takes the snapshot at the first read only */
	PT_SQL_COMMIT,
	PT_SQL_ROLLBACK,
	PT_SQL_MARK,    /* open a savepoint */
	PT_SQL_RELEASE, /* forget it */
	PT_SQL_UNDO,    /* back to it; it stays */
	PT_SQL_CTLS,
};

/* A prepared scan.  The caller sets busy while it reads the rows: a scan inside the same scan needs a second statement. */
struct pt_sqlite_scan {
	struct pt_sqlite_scan *next;
	struct pt_sql_scan q;
	sqlite3_stmt *s;
	bool busy;
};
struct pt_sqlite_table {
	sqlite3_stmt *verb[PT_SQL_VERBS];
	struct pt_sqlite_scan *scans;
};
struct pt_sqlite_conn {
	sqlite3 *h;
	const struct pt_layout *layouts; /* borrowed */
	size_t n_tables;
	sqlite3_stmt *ctl[PT_SQL_CTLS];
	struct pt_sqlite_table tables[]; /* as the layouts */
};

/* Open the file, which must be there (empty is enough) and, for the writing connection, ours or empty. */
int pt_sqlite_conn_open(struct pt_sqlite_conn **ret, const char *path, bool write, const struct pt_layout *l, size_t n,
			struct pt_err *err) PT_MUSTCHECK;
void pt_sqlite_conn_close(struct pt_sqlite_conn *c); /* NULL is fine; no statement may be in use */

int pt_sqlite_ctl(struct pt_sqlite_conn *c, enum pt_sql_ctl what, struct pt_err *err) PT_MUSTCHECK;
/* The statements belong to the connection; the caller resets them after use. */
int pt_sqlite_verb(struct pt_sqlite_conn *c, size_t table, enum pt_sql_verb verb, sqlite3_stmt **ret,
		   struct pt_err *err) PT_MUSTCHECK;
int pt_sqlite_scan(struct pt_sqlite_conn *c, size_t table, const struct pt_sql_scan *q, struct pt_sqlite_scan **ret,
		   struct pt_err *err) PT_MUSTCHECK;
#endif
