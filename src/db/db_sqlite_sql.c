/* SQL text, parameters and columns from table descriptors; SQLite's failures as ours. */
#include "db/db_sqlite.h"
#include <stdio.h>

static const struct {
	const char *type, *more;
} types[] = {
	[PT_T_ID] = { "TEXT", "" },
	[PT_T_STR] = { "TEXT", "" },
	[PT_T_I64] = { "INTEGER", " NOT NULL DEFAULT 0" }, /* the default: for rows older than the column */
	[PT_T_BOOL] = { "INTEGER", " NOT NULL DEFAULT 0" },
	[PT_T_F64] = { "REAL", " NOT NULL DEFAULT 0" },
	[PT_T_JSON] = { "TEXT", "" },
	[PT_T_BYTES] = { "BLOB", "" },
};

const char *pt_sql_type(const struct pt_field *f)
{
	return types[f->type].type;
}

void pt_sql_column(struct pt_buf *b, const struct pt_field *f)
{
	pt_buf_fmt(b, "\"%s\" %s%s", f->name, types[f->type].type, f->flags & PT_KEY ? " NOT NULL" : types[f->type].more);
}

static void names(struct pt_buf *b, const struct pt_field *const *cols, size_t n, const char *after, const char *between)
{
	for (size_t i = 0; i < n; i++)
		pt_buf_fmt(b, "%s\"%s\"%s", i ? between : "", cols[i]->name, after);
}

/* The names of the fields from the first-th on. */
static void fields(struct pt_buf *b, const struct pt_layout *l, size_t first)
{
	for (size_t i = first; i < l->table->shape->n; i++)
		pt_buf_fmt(b, "%s\"%s\"", i > first ? "," : "", l->table->shape->fields[i].name);
}

/* "key1"=?1 AND "key2"=?2: the key's parameters are always the first ones. */
static void key_equals(struct pt_buf *b, const struct pt_layout *l)
{
	for (size_t i = 0; i < l->n_key; i++)
		pt_buf_fmt(b, "%s\"%s\"=?%zu", i ? " AND " : "", l->table->shape->fields[i].name, i + 1);
}

/* Rowid tables on purpose, but for small rows.  WITHOUT ROWID saves the key's second copy, but keeps whole rows in an index tree, whose cells spill
 * to an overflow page from about 1,000 bytes on, and the inner pages hold rows too: bench/db.c ran 1.8 times slower with it. */
void pt_sql_create_table(struct pt_buf *b, const struct pt_layout *l)
{
	pt_buf_fmt(b, "CREATE TABLE \"%s\" (", l->table->name);
	for (size_t i = 0; i < l->table->shape->n; i++) {
		pt_sql_column(b, &l->table->shape->fields[i]);
		pt_buf_chr(b, ',');
	}
	pt_buf_str(b, "PRIMARY KEY (");
	names(b, l->orders[0].cols, l->n_key, "", ",");
	pt_buf_str(b, l->table->small ? ")) WITHOUT ROWID" : "))");
}

/* The row has an entry in a sparse index. */
static void present(struct pt_buf *b, const struct pt_field *f)
{
	pt_buf_fmt(b, f->type == PT_T_I64 ? "\"%s\"<>0" : "\"%s\" IS NOT NULL", f->name);
}

void pt_sql_create_index(struct pt_buf *b, const struct pt_layout *l, const struct pt_order *o)
{
	/* A plain index carries the rest of the key too, so that it has the scan's whole order. */
	pt_buf_fmt(b, "CREATE %sINDEX \"ix_%s_%s\" ON \"%s\" (", o->index->unique ? "UNIQUE " : "", l->table->name,
		   o->index->name, l->table->name);
	names(b, o->cols, o->index->unique ? o->n_index : o->n, "", ",");
	pt_buf_chr(b, ')');
	if (o->sparse) {
		pt_buf_str(b, " WHERE ");
		present(b, o->sparse);
	}
}

void pt_sql_verb(struct pt_buf *b, const struct pt_layout *l, enum pt_sql_verb verb)
{
	const struct pt_table *t = l->table;
	const char *sep = "";

	switch (verb) {
	case PT_SQL_GET:
		pt_buf_str(b, "SELECT ");
		fields(b, l, l->n_key);
		pt_buf_fmt(b, "%s FROM \"%s\" WHERE ", l->n_key == t->shape->n ? "1" : "", t->name);
		key_equals(b, l);
		break;
	case PT_SQL_INSERT:
		pt_buf_fmt(b, "INSERT INTO \"%s\" (", t->name);
		fields(b, l, 0);
		pt_buf_str(b, ") VALUES (");
		for (size_t i = 0; i < t->shape->n; i++)
			pt_buf_fmt(b, "%s?%zu", i ? "," : "", i + 1);
		pt_buf_chr(b, ')');
		break;
	case PT_SQL_UPDATE:
		pt_buf_fmt(b, "UPDATE \"%s\" SET ", t->name);
		for (size_t i = l->n_key; i < t->shape->n; i++) {
			if (t->shape->fields[i].flags & PT_CONST)
				continue;
			pt_buf_fmt(b, "%s\"%s\"=?%zu", sep, t->shape->fields[i].name, i + 1);
			sep = ",";
		}
		if (!*sep) /* nothing that changes: only tells whether the row is there */
			pt_buf_fmt(b, "\"%s\"=?1", t->shape->fields[0].name);
		pt_buf_str(b, " WHERE ");
		key_equals(b, l);
		break;
	default:
		pt_buf_fmt(b, "DELETE FROM \"%s\" WHERE ", t->name);
		key_equals(b, l);
		break;
	}
}

void pt_sql_scan(struct pt_buf *b, const struct pt_layout *l, const struct pt_sql_scan *q)
{
	const struct pt_order *o = q->order;
	const char *and = " WHERE ";

	if (q->count) {
		pt_buf_str(b, "SELECT count(*) FROM (SELECT 1");
	} else {
		pt_buf_str(b, "SELECT ");
		fields(b, l, 0);
	}
	pt_buf_fmt(b, " FROM \"%s\"", l->table->name);
	if (o->index) /* the caller chose it, and there are no statistics to choose better by */
		pt_buf_fmt(b, " INDEXED BY \"ix_%s_%s\"", l->table->name, o->index->name);
	for (unsigned i = 0; i < q->n_eq; i++) {
		pt_buf_fmt(b, "%s\"%s\" IS ?", and, o->cols[i]->name); /* IS: absent equals absent */
		and = " AND ";
	}
	if (o->sparse) { /* true of all its rows; said so that SQLite knows that the index has them */
		pt_buf_str(b, and);
		present(b, o->sparse);
		and = " AND ";
	}
	if (q->bound != PT_SQL_NO_BOUND) {
		const struct pt_field *f = o->cols[q->n_eq];
		bool absent_behind = q->bound == PT_SQL_BEYOND && q->desc && !(f->flags & PT_KEY);

		pt_buf_fmt(b, "%s(\"%s\"%s?", and, f->name,
			   q->bound == PT_SQL_AT_LEAST               ? ">="
			   : q->bound == PT_SQL_LESS_THAN || q->desc ? "<"
								     : ">");
		if (absent_behind)
			pt_buf_fmt(b, " OR \"%s\" IS NULL", f->name);
		pt_buf_chr(b, ')');
	}
	if (q->n_eq < o->n && !q->count) {
		pt_buf_str(b, " ORDER BY ");
		names(b, o->cols + q->n_eq, o->n - q->n_eq, q->desc ? " DESC" : "", ",");
	}
	pt_buf_str(b, q->count ? " LIMIT ?)" : " LIMIT ?");
}

int pt_sql_bind(sqlite3_stmt *s, int param, const struct pt_field *f, const void *rec, struct pt_err *err)
{
	const void *p = pt_column(f, rec);
	const struct pt_bytes *d = p;
	const char *text;
	char *doc;
	int rc;

	switch (f->type) {
	case PT_T_ID:
	case PT_T_STR:
		text = pt_column_text(f, rec);
		rc = text ? sqlite3_bind_text64(s, param, text, strlen(text), SQLITE_STATIC, SQLITE_UTF8)
			  : sqlite3_bind_null(s, param);
		break;
	case PT_T_I64:
		rc = sqlite3_bind_int64(s, param, *(const int64_t *)p);
		break;
	case PT_T_BOOL:
		rc = sqlite3_bind_int(s, param, *(const bool *)p);
		break;
	case PT_T_F64:
		rc = sqlite3_bind_double(s, param, *(const double *)p);
		break;
	case PT_T_JSON:
		if (!*(json_t *const *)p) {
			rc = sqlite3_bind_null(s, param);
			break;
		}
		doc = json_dumps(*(json_t *const *)p, JSON_COMPACT | JSON_ENCODE_ANY);
		if (!doc)
			return pt_fail_oom(err);
		rc = sqlite3_bind_text64(s, param, doc, strlen(doc), free, SQLITE_UTF8);
		break;
	case PT_T_BYTES:
		rc = d->p && d->n ? sqlite3_bind_blob64(s, param, d->p, d->n, SQLITE_STATIC)
		     : d->p       ? sqlite3_bind_zeroblob(s, param, 0)
				  : sqlite3_bind_null(s, param);
		break;
	default:
		return pt_fail(err, PT_E_INTERNAL, "%s: cannot be stored", f->name);
	}
	return rc == SQLITE_OK ? PT_OK : pt_sql_fail(sqlite3_db_handle(s), err, f->name);
}

/* A copy of a text or blob column with a NUL behind. */
static int load_copy(sqlite3_stmt *s, int column, const void *p, void *ret, struct pt_err *err)
{
	size_t n = (size_t)sqlite3_column_bytes(s, column);
	char *copy = malloc(n + 1);

	if (!copy || (!p && n))
		return free(copy), pt_fail_oom(err);
	if (n)
		memcpy(copy, p, n);
	copy[n] = '\0';
	*(char **)ret = copy;
	return PT_OK;
}

int pt_sql_load(sqlite3_stmt *s, int column, const struct pt_field *f, void *rec, struct pt_err *err)
{
	void *p = pt_column(f, rec);
	struct pt_bytes *d = p;
	const char *text;
	json_error_t je;

	if (sqlite3_column_type(s, column) == SQLITE_NULL)
		return PT_OK;
	switch (f->type) {
	case PT_T_ID:
		text = (const char *)sqlite3_column_text(s, column);
		if (!text)
			return pt_fail_oom(err);
		if (strlen(text) >= PT_ID_SIZE)
			return pt_fail(err, PT_E_CORRUPT, "%s: the stored id is too long", f->name);
		memcpy(p, text, strlen(text) + 1);
		return PT_OK;
	case PT_T_STR:
		return load_copy(s, column, sqlite3_column_text(s, column), p, err);
	case PT_T_I64:
		*(int64_t *)p = sqlite3_column_int64(s, column);
		return PT_OK;
	case PT_T_BOOL:
		*(bool *)p = sqlite3_column_int(s, column) != 0;
		return PT_OK;
	case PT_T_F64:
		*(double *)p = sqlite3_column_double(s, column);
		return PT_OK;
	case PT_T_JSON:
		text = (const char *)sqlite3_column_text(s, column);
		if (!text)
			return pt_fail_oom(err);
		*(json_t **)p = json_loadb(text, (size_t)sqlite3_column_bytes(s, column), JSON_DECODE_ANY | JSON_ALLOW_NUL, &je);
		return *(json_t **)p ? PT_OK : pt_fail(err, PT_E_CORRUPT, "%s: the stored document: %s", f->name, je.text);
	case PT_T_BYTES:
		text = sqlite3_column_blob(s, column); /* before _bytes(), as SQLite asks */
		d->n = (size_t)sqlite3_column_bytes(s, column);
		return load_copy(s, column, text, &d->p, err);
	default:
		return pt_fail(err, PT_E_INTERNAL, "%s: cannot be stored", f->name);
	}
}

bool pt_db_undone(const struct pt_err *err)
{
	long native = strtol(err->native, NULL, 10) & 0xff;

	return native == SQLITE_FULL || native == SQLITE_BUSY;
}

int pt_sql_fail(sqlite3 *h, struct pt_err *err, const char *what)
{
	return pt_sql_fail_sys(h, err, what, sqlite3_system_errno(h));
}

int pt_sql_fail_sys(sqlite3 *h, struct pt_err *err, const char *what, int sys)
{
	int rc = sqlite3_extended_errcode(h);
	char native[16];
	enum pt_code code;
	const char *hint = NULL;

	/* a file that cannot grow (the WAL's index) and an fsync that finds no room are I/O errors to SQLite */
	switch ((rc & 0xff) == SQLITE_IOERR && (sys == ENOSPC || sys == EDQUOT) ? SQLITE_FULL : rc & 0xff) {
	case SQLITE_FULL: /* it passes: clients and agents come again */
		code = PT_E_UNAVAILABLE;
		hint = "the gateway's disk is full: make room; it goes on by itself";
		break;
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
		code = PT_E_IO;
		hint = "look at the gateway's disk: is it failing?";
		break;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		code = PT_E_CORRUPT;
		hint = "the database file is damaged: stop, keep a copy of it, and restore a backup";
		break;
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_AUTH:
		code = PT_E_DENIED;
		hint = "the database file and its folder must be writable";
		break;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		code = PT_E_UNAVAILABLE;
		hint = "another program holds a lock on the database file";
		break;
	case SQLITE_TOOBIG:
		code = PT_E_TOO_LARGE;
		break;
	default:
		code = PT_E_INTERNAL;
		break;
	}
	(void)pt_fail(err, code, "%s: %s", what, sqlite3_errmsg(h));
	if (err && code == PT_E_IO)
		err->sys = sys;
	if (hint)
		(void)pt_hint(err, "%s", hint);
	snprintf(native, sizeof(native), "%d", rc);
	pt_native(err, native);
	return code;
}

int pt_sql_conflict(sqlite3 *h, const struct pt_layout *l, struct pt_err *err)
{
	int rc = sqlite3_extended_errcode(h);

	if (rc == SQLITE_CONSTRAINT_PRIMARYKEY || rc == SQLITE_CONSTRAINT_ROWID)
		return pt_fail(err, PT_E_CONFLICT, "%s: a row with this key exists", l->table->name);
	if (rc != SQLITE_CONSTRAINT_UNIQUE)
		return pt_sql_fail(h, err, l->table->name);
	/* SQLite names the columns, "UNIQUE constraint failed: thing.owner, thing.name": find the index that has them. */
	for (size_t k = 1; k < l->n_orders; k++) {
		const struct pt_order *o = &l->orders[k];
		pt_auto_buf b = PT_BUF_INIT(1024);

		pt_buf_str(&b, "UNIQUE constraint failed: ");
		for (size_t i = 0; i < o->n_index; i++)
			pt_buf_fmt(&b, "%s%s.%s", i ? ", " : "", l->table->name, o->cols[i]->name);
		if (o->index->unique && strcmp(b.p, sqlite3_errmsg(h)) == 0)
			return pt_fail(err, PT_E_CONFLICT, "%s: another row has the same value of index %s", l->table->name,
				       o->index->name);
	}
	return pt_fail(err, PT_E_CONFLICT, "%s: %s", l->table->name, sqlite3_errmsg(h));
}

int pt_sql_exec(sqlite3 *h, const char *sql, struct pt_err *err)
{
	errno = 0;
	return sqlite3_exec(h, sql, NULL, NULL, NULL) == SQLITE_OK ? PT_OK : pt_sql_fail_sys(h, err, "database", errno);
}

int pt_sql_int(sqlite3 *h, const char *sql, int64_t *ret, struct pt_err *err)
{
	sqlite3_stmt *s = NULL;
	int rc = PT_OK;

	if (sqlite3_prepare_v2(h, sql, -1, &s, NULL) != SQLITE_OK || sqlite3_step(s) != SQLITE_ROW)
		rc = pt_sql_fail(h, err, "database");
	else
		*ret = sqlite3_column_int64(s, 0);
	(void)sqlite3_finalize(s); /* repeats the failure of the step */
	return rc;
}
