/* Choosing a backend by the scheme of the database's URL. */
#include "db/backend.h"

static int no_postgres(struct pt_db **ret, const char *rest, struct pt_layout *l, size_t n, struct pt_err *err)
{
	pt_layouts_free(l, n);
	(void)pt_fail(err, PT_E_UNSUPPORTED, "this release keeps the gateway's state in SQLite only, not in PostgreSQL");
	return pt_hint(err, "use --database sqlite:PATH");
}

static const struct {
	const char *scheme;
	int (*open)(struct pt_db **ret, const char *rest, struct pt_layout *l, size_t n, struct pt_err *err);
} backends[] = {
	{ "sqlite:", pt_db_sqlite_open },
	{ "mem:", pt_db_mem_open },
	{ "postgresql:", no_postgres },
	{ "postgres:", no_postgres },
};

int pt_db_open(struct pt_db **ret, const char *url, const struct pt_table *const *tables, struct pt_err *err)
{
	for (size_t i = 0; i < PT_COUNT(backends); i++) {
		size_t n_scheme = strlen(backends[i].scheme), n;
		struct pt_layout *l;
		int rc;

		if (strncmp(url, backends[i].scheme, n_scheme) != 0)
			continue;
		rc = pt_layouts_new(&l, &n, tables, err);
		if (rc < 0 || (rc = backends[i].open(ret, url + n_scheme, l, n, err)) < 0)
			return rc;
		(*ret)->steady = pt_steady_new();
		if ((*ret)->steady)
			return PT_OK;
		pt_db_close(*ret);
		*ret = NULL;
		return pt_fail_oom(err);
	}
	/* The URL itself may hold a password: not repeated. */
	(void)pt_fail(err, PT_E_INVALID, "the database URL has an unknown scheme");
	return pt_hint(err, "use --database sqlite:PATH");
}

void pt_db_close(struct pt_db *db)
{
	struct pt_steady *s = db ? db->steady : NULL;

	if (db)
		db->ops->close(db);
	pt_steady_free(s);
}
