#include "cmd/demo_data.h"
#include <dirent.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/stat.h>

enum { NAME, VERSION, ARCHITECTURE, SECTION, INSTALLED_KB, MAINTAINER, COLUMNS };
static const char *const fields[COLUMNS] = { "Package: ", "Version: ",        "Architecture: ",
					     "Section: ", "Installed-Size: ", "Maintainer: " };

struct package {
	char value[COLUMNS][200];
	bool installed;
};

static int failed(sqlite3 *db, const char *what, struct pt_err *err)
{
	return pt_fail(err, PT_E_IO, "%s: %s", what, db ? sqlite3_errmsg(db) : "out of memory");
}

static int insert(sqlite3_stmt *st, const struct package *p, struct pt_err *err)
{
	sqlite3 *db = sqlite3_db_handle(st);

	for (int i = 0; i < COLUMNS; i++) {
		int rc = i == INSTALLED_KB ? sqlite3_bind_int64(st, i + 1, strtoll(p->value[i], NULL, 10))
					   : sqlite3_bind_text(st, i + 1, p->value[i], -1, SQLITE_TRANSIENT);

		if (rc != SQLITE_OK)
			return failed(db, "bind", err);
	}
	if (sqlite3_step(st) != SQLITE_DONE || sqlite3_reset(st) != SQLITE_OK)
		return failed(db, "insert a package", err);
	return PT_OK;
}

/* Stanzas of "Field: value" lines, separated by empty lines. */
static int from_status(sqlite3_stmt *st, FILE *f, struct pt_err *err)
{
	struct package p = { 0 };
	char *line = NULL;
	size_t size = 0;
	ssize_t n;
	int rc = PT_OK;

	do {
		n = getline(&line, &size, f);
		if (n > 0 && line[n - 1] == '\n')
			line[--n] = '\0';
		if (n <= 0) { /* the stanza's end, or the file's */
			if (p.installed && p.value[NAME][0])
				rc = insert(st, &p, err);
			p = (struct package) { 0 };
			continue;
		}
		if (strncmp(line, "Status: ", 8) == 0)
			p.installed = strstr(line, " installed") != NULL;
		for (int i = 0; i < COLUMNS; i++)
			if (strncmp(line, fields[i], strlen(fields[i])) == 0)
				snprintf(p.value[i], sizeof(p.value[i]), "%s", line + strlen(fields[i]));
	} while (n >= 0 && rc >= 0);
	free(line);
	return rc;
}

static int from_files(sqlite3_stmt *st, const char *folder, struct pt_err *err)
{
	DIR *d = opendir(folder);
	struct dirent *e;
	int rc = PT_OK;

	if (!d)
		return pt_fail_sys(err, PT_E_IO, "open folder '%s'", folder);
	while (rc >= 0 && (e = readdir(d))) {
		struct package p = { .value = { [SECTION] = "bin" } };
		struct stat sb;

		if (fstatat(dirfd(d), e->d_name, &sb, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(sb.st_mode))
			continue;
		snprintf(p.value[NAME], sizeof(p.value[NAME]), "%.199s", e->d_name);
		snprintf(p.value[INSTALLED_KB], sizeof(p.value[INSTALLED_KB]), "%lld", (long long)(sb.st_size + 1023) / 1024);
		rc = insert(st, &p, err);
	}
	closedir(d);
	return rc;
}

static int fill(sqlite3 *db, const char *status, struct pt_err *err)
{
	sqlite3_stmt *st = NULL;
	FILE *f = fopen(status, "re");
	int rc;

	if (sqlite3_exec(db,
			 "CREATE TABLE packages(name TEXT NOT NULL, version TEXT NOT NULL, architecture TEXT NOT NULL, section "
			 "TEXT NOT NULL, "
			 "installed_kb INTEGER NOT NULL, maintainer TEXT NOT NULL); BEGIN",
			 NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_prepare_v2(db, "INSERT INTO packages VALUES (?, ?, ?, ?, ?, ?)", -1, &st, NULL) != SQLITE_OK)
		rc = failed(db, "create the table", err);
	else
		rc = f ? from_status(st, f, err) : from_files(st, "/usr/bin", err);
	if (f)
		(void)fclose(f);
	sqlite3_finalize(st);
	if (rc >= 0 && sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
		rc = failed(db, "commit", err);
	return rc;
}

int pt_demo_data(const char *path, const char *status, struct pt_err *err)
{
	pt_auto_buf part = PT_BUF_INIT(8192);
	sqlite3 *db = NULL;
	int rc;

	if (access(path, F_OK) == 0)
		return PT_OK;
	pt_buf_fmt(&part, "%s.part", path);
	rc = pt_buf_done(&part, err);
	if (rc < 0)
		return rc;
	(void)unlink(part.p); /* of a run that was killed */
	if (sqlite3_open(part.p, &db) != SQLITE_OK)
		rc = failed(db, "open the database", err);
	if (rc >= 0)
		rc = fill(db, status, err);
	(void)sqlite3_close(db);
	if (rc >= 0 && rename(part.p, path) < 0)
		rc = pt_fail_sys(err, PT_E_IO, "rename");
	return pt_err_wrap(err, rc, "make '%s'", path);
}
