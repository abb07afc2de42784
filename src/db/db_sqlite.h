/* The parts of the SQLite backend: SQL from descriptors (db_sqlite_sql.c), the schema at open (db_sqlite_schema.c), a connection
 * with its statements (db_sqlite_conn.c), transactions and the database (db_sqlite.c).  Internal to src/db.  Every function works
 * on one connection, used by one thread at a time. */
#ifndef PT_DB_DB_SQLITE_H
#define PT_DB_DB_SQLITE_H
#include "db/layout.h"
#include <sqlite3.h>

enum pt_sql_verb { PT_SQL_GET, PT_SQL_INSERT, PT_SQL_UPDATE, PT_SQL_REMOVE, PT_SQL_VERBS };
enum pt_sql_bound { PT_SQL_NO_BOUND, PT_SQL_LESS_THAN, PT_SQL_AT_LEAST, PT_SQL_BEYOND };

/* What the text of a scan depends on; the rest is bound. */
struct pt_sql_scan {
	const struct pt_order *order;
	unsigned n_eq;
	enum pt_sql_bound bound;
	bool desc;
	bool count; /* answers the number of rows, not the rows */
};

/* Append SQL text. */
void pt_sql_create_table(struct pt_buf *b, const struct pt_layout *l);
void pt_sql_create_index(struct pt_buf *b, const struct pt_layout *l, const struct pt_order *o);
void pt_sql_column(struct pt_buf *b, const struct pt_field *f); /* "name" TYPE … */
const char *pt_sql_type(const struct pt_field *f);
/* Parameters: GET, REMOVE the key; INSERT every column; UPDATE every column but PT_CONST ones, the key for finding the row;
 * a column's parameter is its place in the shape.
 * GET answers the columns after the key. */
void pt_sql_verb(struct pt_buf *b, const struct pt_layout *l, enum pt_sql_verb verb);
/* Parameters: the equal columns, the bound if any, the limit (-1 = none).  Answers every column. */
void pt_sql_scan(struct pt_buf *b, const struct pt_layout *l, const struct pt_sql_scan *q);

/* Bind a member of rec, which must stay until the statement was stepped. */
int pt_sql_bind(sqlite3_stmt *s, int param, const struct pt_field *f, const void *rec, struct pt_err *err) PT_MUSTCHECK;
/* Fill the zero member of rec from a column of the row. */
int pt_sql_load(sqlite3_stmt *s, int column, const struct pt_field *f, void *rec, struct pt_err *err) PT_MUSTCHECK;

/* The failure of the last call on h as our error, "what: message". */
int pt_sql_fail(sqlite3 *h, struct pt_err *err, const char *what);
/* The same with the errno of that call.  For COMMIT: SQLite then keeps the number of some failure before. */
int pt_sql_fail_sys(sqlite3 *h, struct pt_err *err, const char *what, int sys);
/* A broken constraint of a write to l (SQLITE_CONSTRAINT): names the index. */
int pt_sql_conflict(sqlite3 *h, const struct pt_layout *l, struct pt_err *err);
int pt_sql_exec(sqlite3 *h, const char *sql, struct pt_err *err) PT_MUSTCHECK;
/* The first column of the first row. */
int pt_sql_int(sqlite3 *h, const char *sql, int64_t *ret, struct pt_err *err) PT_MUSTCHECK;

/* Make the folder and the empty file (SQLite would make it readable for others) so that their names survive power loss. */
int pt_sqlite_file_make(const char *path, struct pt_err *err) PT_MUSTCHECK;
/* PATH.lock, held by flock(2) until the descriptor is closed, holds our process id for the message of the loser (PT_E_CONFLICT). */
int pt_sqlite_file_lock(const char *db, int *ret_fd, struct pt_err *err) PT_MUSTCHECK;
/* Is the file ours (or empty), and not newer than this program?  Only reads. */
int pt_sqlite_check(sqlite3 *h, struct pt_err *err) PT_MUSTCHECK;
/* Bring the database to the descriptors: one transaction, all or nothing. */
int pt_sqlite_schema(sqlite3 *h, const struct pt_layout *l, size_t n, struct pt_err *err) PT_MUSTCHECK;
#endif
