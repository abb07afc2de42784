/* The numbered steps of the database's schema. Tables, columns and indexes derive from the descriptors and are added at open
 * without a step; a step is for what descriptors cannot say: data that moves, a changed key, a dropped column. Internal to
 * src/db. */
#ifndef PT_DB_MIGRATIONS_H
#define PT_DB_MIGRATIONS_H
#include <stddef.h>

struct pt_migration {
	int version;     /* ascending from 1 */
	const char *table; /* only in a database that has this table; NULL = always */
	const char *sql; /* brings a database of the version before to this one; NULL for the base */
};
extern const struct pt_migration pt_migrations[];
extern const size_t pt_n_migrations;
#endif
