/* The schema at open: new databases are made from the descriptors; older ones get the numbered steps, then the tables, columns
 * and indexes that the descriptors have and they have not.  What this program does not know is a reason not to touch the
 * database. */
#include "db/db_sqlite.h"
#include "db/migrations.h"
#include <stdio.h>

enum { APPLICATION_ID = 0x50535452 }; /* "PSTR" in the file's header */

static int newer(struct pt_err *err, const char *what, const char *name)
{
	(void)pt_fail(err, PT_E_UNSUPPORTED, "the database was made by a newer postern: %s '%.80s' is not known here", what,
		      name);
	return pt_hint(err, "run the newer postern, or restore the backup made before the upgrade");
}

static int latest(void)
{
	return pt_migrations[pt_n_migrations - 1].version;
}

int pt_sqlite_check(sqlite3 *h, struct pt_err *err)
{
	int64_t app, version, objects;
	char text[24];
	int rc;

	if ((rc = pt_sql_int(h, "PRAGMA application_id", &app, err)) < 0 ||
	    (rc = pt_sql_int(h, "PRAGMA user_version", &version, err)) < 0 ||
	    (rc = pt_sql_int(h, "SELECT count(*) FROM sqlite_schema", &objects, err)) < 0)
		return rc;
	if (app != APPLICATION_ID && (app || version || objects)) {
		(void)pt_fail(err, PT_E_INVALID, "the file is an SQLite database of another program");
		return pt_hint(err, "give postern a file of its own");
	}
	snprintf(text, sizeof(text), "%lld", (long long)version);
	return version > latest() ? newer(err, "schema version", text) : PT_OK;
}

/* Run the steps that an existing database lacks. */
static int migrate(sqlite3 *h, struct pt_err *err)
{
	char text[80];
	int64_t version;
	int rc = pt_sql_int(h, "PRAGMA user_version", &version, err);

	if (rc < 0 || version == latest())
		return rc;
	for (size_t i = 0; version && i < pt_n_migrations; i++) {
		const char *table = pt_migrations[i].table;
		int64_t there = 1;

		if (pt_migrations[i].version <= version || !pt_migrations[i].sql)
			continue;
		snprintf(text, sizeof(text), "SELECT count(*) FROM pragma_table_info('%s')", table ? table : "");
		if (table && (rc = pt_sql_int(h, text, &there, err)) < 0)
			return rc;
		if (!there)
			continue;
		rc = pt_sql_exec(h, pt_migrations[i].sql, err);
		if (rc < 0)
			return pt_err_wrap(err, rc, "migrate to schema version %d", pt_migrations[i].version);
	}
	snprintf(text, sizeof(text), "PRAGMA application_id=%d; PRAGMA user_version=%d", APPLICATION_ID, latest());
	return pt_sql_exec(h, text, err);
}

/* Compare one stored column with its descriptor. */
static int check_column(const struct pt_layout *l, const char *name, const char *type, int pk, struct pt_err *err)
{
	const struct pt_field *f = pt_shape_field(l->table->shape, name);
	int want_pk = f && (f->flags & PT_KEY) ? (int)(f - l->table->shape->fields) + 1 : 0;
	char full[160];

	snprintf(full, sizeof(full), "%s.%s", l->table->name, name);
	if (!f || strcmp(type, pt_sql_type(f)) != 0)
		return newer(err, f ? "the type of column" : "column", full);
	return pk == want_pk ? PT_OK : newer(err, "the key with column", full);
}

/* Add the columns that an existing table lacks. */
static int complete_table(sqlite3 *h, const struct pt_layout *l, struct pt_err *err)
{
	const struct pt_shape *sh = l->table->shape;
	pt_auto(pt_freep) bool *seen = calloc(sh->n, sizeof(*seen));
	sqlite3_stmt *s = NULL;
	int rc = PT_OK, step = SQLITE_ERROR;

	if (!seen)
		return pt_fail_oom(err);
	if (sqlite3_prepare_v2(h, "SELECT name, type, pk FROM pragma_table_info(?)", -1, &s, NULL) == SQLITE_OK &&
	    sqlite3_bind_text(s, 1, l->table->name, -1, SQLITE_STATIC) == SQLITE_OK)
		while (rc == 0 && (step = sqlite3_step(s)) == SQLITE_ROW) {
			const char *name = (const char *)sqlite3_column_text(s, 0),
				   *type = (const char *)sqlite3_column_text(s, 1);

			rc = name && type ? check_column(l, name, type, sqlite3_column_int(s, 2), err) : pt_fail_oom(err);
			if (rc == 0)
				seen[pt_shape_field(sh, name) - sh->fields] = true;
		}
	if (rc == 0 && step != SQLITE_DONE)
		rc = pt_sql_fail(h, err, l->table->name);
	(void)sqlite3_finalize(s); /* its failure is already in rc */
	for (size_t i = 0; rc == 0 && i < sh->n; i++) {
		pt_auto_buf b = PT_BUF_INIT(1024);

		if (seen[i])
			continue;
		pt_buf_fmt(&b, "ALTER TABLE \"%s\" ADD COLUMN ", l->table->name);
		pt_sql_column(&b, &sh->fields[i]);
		rc = pt_buf_done(&b, err);
		if (rc == 0)
			rc = pt_sql_exec(h, b.p, err);
	}
	return rc;
}

/* What sqlite_schema holds of ours: which tables exist, which indexes are as they should be. */
struct found {
	const struct pt_layout *l;
	size_t n;
	bool *tables;       /* per layout */
	struct pt_buf drop; /* statements that drop indexes which are unknown or differ */
	struct pt_buf have; /* "\nCREATE INDEX …\n" of those that are right */
};

static int look_at(struct found *f, const char *type, const char *name, const char *sql, struct pt_err *err)
{
	if (strcmp(type, "table") == 0) {
		for (size_t i = 0; i < f->n; i++)
			if (strcmp(f->l[i].table->name, name) == 0) {
				f->tables[i] = true;
				return PT_OK;
			}
		return newer(err, "table", name);
	}
	if (strcmp(type, "index") != 0)
		return newer(err, type, name);
	for (size_t i = 0; i < f->n; i++)
		for (size_t k = 1; k < f->l[i].n_orders; k++) {
			pt_auto_buf want = PT_BUF_INIT(2048);

			pt_sql_create_index(&want, &f->l[i], &f->l[i].orders[k]);
			if (strcmp(want.p, sql) == 0) {
				pt_buf_fmt(&f->have, "\n%s\n", sql);
				return PT_OK;
			}
		}
	pt_buf_fmt(&f->drop, "DROP INDEX \"%s\";", name);
	return PT_OK;
}

static int look(sqlite3 *h, struct found *f, struct pt_err *err)
{
	/* Without sql are the indexes that belong to a PRIMARY KEY; sqlite_* are SQLite's own tables. */
	static const char text[] =
		"SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
	sqlite3_stmt *s = NULL;
	int rc = PT_OK, step = SQLITE_ERROR;

	if (sqlite3_prepare_v2(h, text, -1, &s, NULL) == SQLITE_OK)
		while (rc == 0 && (step = sqlite3_step(s)) == SQLITE_ROW) {
			const char *col[3];

			for (int i = 0; i < 3; i++)
				col[i] = (const char *)sqlite3_column_text(s, i);
			rc = col[0] && col[1] && col[2] ? look_at(f, col[0], col[1], col[2], err) : pt_fail_oom(err);
		}
	if (rc == 0 && step != SQLITE_DONE)
		rc = pt_sql_fail(h, err, "database");
	(void)sqlite3_finalize(s); /* its failure is already in rc */
	return rc;
}

static int complete(sqlite3 *h, struct found *f, struct pt_err *err)
{
	int rc;

	if ((rc = look(h, f, err)) < 0 || (rc = pt_buf_done(&f->drop, err)) < 0 || (rc = pt_buf_done(&f->have, err)) < 0 ||
	    (rc = pt_sql_exec(h, f->drop.p, err)) < 0)
		return rc;
	for (size_t i = 0; rc == 0 && i < f->n; i++) {
		pt_auto_buf table = PT_BUF_INIT(64 * 1024);

		pt_sql_create_table(&table, &f->l[i]);
		rc = pt_buf_done(&table, err);
		if (rc == 0)
			rc = f->tables[i] ? complete_table(h, &f->l[i], err) : pt_sql_exec(h, table.p, err);
		for (size_t k = 1; rc == 0 && k < f->l[i].n_orders; k++) {
			pt_auto_buf b = PT_BUF_INIT(2048);

			pt_buf_chr(&b, '\n');
			pt_sql_create_index(&b, &f->l[i], &f->l[i].orders[k]);
			pt_buf_chr(&b, '\n');
			rc = pt_buf_done(&b, err);
			if (rc == 0 && !strstr(f->have.p, b.p))
				rc = pt_sql_exec(h, b.p, err);
		}
	}
	return rc;
}

int pt_sqlite_schema(sqlite3 *h, const struct pt_layout *l, size_t n, struct pt_err *err)
{
	pt_auto(pt_freep) bool *tables = calloc(n + 1, sizeof(*tables));
	struct found f = { .l = l, .n = n, .tables = tables, .drop = PT_BUF_INIT(64 * 1024), .have = PT_BUF_INIT(64 * 1024) };
	int rc = tables ? pt_sql_exec(h, "BEGIN IMMEDIATE", err) : pt_fail_oom(err);

	if (rc < 0)
		return rc;
	rc = migrate(h, err);
	if (rc == 0)
		rc = complete(h, &f, err);
	if (rc == 0)
		rc = pt_sql_exec(h, "COMMIT", err);
	if (!sqlite3_get_autocommit(h))
		(void)sqlite3_exec(h, "ROLLBACK", NULL, NULL, NULL); /* the failure that counts is in err */
	pt_buf_release(&f.drop);
	pt_buf_release(&f.have);
	return rc;
}
