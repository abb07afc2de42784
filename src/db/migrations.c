#include "db/migrations.h"

/* Only ever append: released databases have run the steps above. */
const struct pt_migration pt_migrations[] = {
	{ 1, NULL, NULL },
	/* events become a column of their operation (gateway/timeline.c), inputs rows of their own */
	{ 2, "operations",
	  "ALTER TABLE operations ADD COLUMN timeline TEXT;"
	  "UPDATE operations SET timeline = (SELECT group_concat(at || ' ' || attempt || ' ' || event || ' ' || coalesce(instance, '-') ||"
	  " CASE WHEN detail IS NULL THEN '' ELSE ' ' || json_quote(detail) END, char(10)) FROM (SELECT * FROM events WHERE operation = operations.id ORDER BY seq));"
	  "DROP TABLE events;"
	  "CREATE TABLE inputs (\"operation\" TEXT NOT NULL, \"input\" TEXT, PRIMARY KEY (\"operation\"));"
	  "INSERT INTO inputs SELECT id, input FROM operations;"
	  "ALTER TABLE operations ADD COLUMN input_bytes INTEGER NOT NULL DEFAULT 0;"
	  "UPDATE operations SET input_bytes = length(CAST(input AS BLOB));"
	  "ALTER TABLE operations DROP COLUMN input" },
};
const size_t pt_n_migrations = sizeof(pt_migrations) / sizeof(pt_migrations[0]);
