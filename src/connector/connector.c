/* The table of connectors. */
#include "connector/connector.h"

static const struct pt_connector *const all[] = { &pt_connector_postgres, &pt_connector_sqlite, NULL };
static const struct {
	const char *alias, *name;
} aliases[] = { { "postgresql", "postgres" }, { "sqlite3", "sqlite" } };

const struct pt_connector *const *pt_connectors(void)
{
	return all;
}

const struct pt_connector *pt_connector_find(const char *name)
{
	for (size_t i = 0; i < PT_COUNT(aliases); i++)
		if (strcmp(aliases[i].alias, name) == 0)
			name = aliases[i].name;
	for (const struct pt_connector *const *c = all; *c; c++)
		if (strcmp((*c)->name, name) == 0)
			return *c;
	return NULL;
}
