/* Databases for the contract tests: argument "mem" or "sqlite"; files lie in a folder of their own, removed at the end. */
#ifndef PT_TESTS_DB_OPEN_H
#define PT_TESTS_DB_OPEN_H
#include "../folder.h"
#include "../tap.h"
#include "db_things.h"
#include <sys/stat.h>

static char dir[64], url[128];
static bool durable;
static struct pt_err err;

static struct pt_db *open_db(const struct pt_table *const *tables)
{
	struct pt_db *db = NULL;
	int rc = pt_db_open(&db, url, tables, &err);

	if (rc < 0)
		printf("# open: %s\n", err.msg);
	return db;
}

/* A database that holds nothing yet. */
static struct pt_db *fresh(void)
{
	static int n;

	snprintf(url, sizeof(url), durable ? "sqlite:%s/new/%d.db" : "mem:", dir, ++n);
	return open_db(all_tables);
}

static struct pt_tx *begin(struct pt_db *db, bool write)
{
	struct pt_tx *tx = NULL;

	if (pt_db_begin(db, write, &tx, &err) < 0)
		printf("# begin: %s\n", err.msg);
	pt_assert(tx);
	return tx;
}

static int commit(struct pt_tx *tx)
{
	int rc = pt_tx_commit(tx, &err);

	if (rc < 0)
		printf("# commit: %s\n", err.msg);
	return rc;
}

static bool start(int argc, char **argv)
{
	const char *tmp = getenv("TMPDIR");

	durable = argc > 1 && strcmp(argv[1], "sqlite") == 0;
	snprintf(dir, sizeof(dir), "%.30s/pt-db-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(dir))
		return false;
	return true;
}

static int end(void)
{
	folder_remove(dir);
	return tap_end();
}
#endif
