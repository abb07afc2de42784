#include "db/migrations.h"

/* Only ever append: released databases have run the steps above. */
const struct pt_migration pt_migrations[] = {
	{ 1, NULL },
};
const size_t pt_n_migrations = sizeof(pt_migrations) / sizeof(pt_migrations[0]);
