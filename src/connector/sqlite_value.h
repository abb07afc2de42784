/* Types inside the SQLite connector: SQLite's values have types, its columns do not.  A column's type is decided by the declared
 * type and by the values of the first rows; a column whose values differ is of type "any", whose values are JSON texts.  A later
 * value that does not fit what was announced is an error, never a changed value. */
#ifndef PT_CONNECTOR_SQLITE_VALUE_H
#define PT_CONNECTOR_SQLITE_VALUE_H
#include "connector/arrow_build.h"
#include <sqlite3.h>

/* What a value is, as a bit for lite_decide(); a column's bits are those of its values. */
unsigned lite_seen(sqlite3_value *v);
/* The type of a column; decl may be NULL.  whole: all rows of the result were seen, so that their values decide.  Else the declared
 * type does, when they fit. */
enum pt_logical lite_decide(const char *decl, unsigned bits, bool whole);
/* Append the value (which may be NULL) to column i of the row; row counts from 0, for the message. */
int lite_add(struct pt_builder *b, size_t i, int64_t row, sqlite3_value *v, struct pt_err *err) PT_MUSTCHECK;
#endif
