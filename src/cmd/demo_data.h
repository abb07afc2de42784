/* The demo's data source: a real SQLite database, made from what this machine knows about itself. */
#ifndef PT_CMD_DEMO_DATA_H
#define PT_CMD_DEMO_DATA_H
#include "base/buf.h"

/* Make the database at path with table packages(name, version, architecture, section, installed_kb, maintainer), unless the file
 * is there.  From status (a dpkg status file); when that cannot be read, the files of /usr/bin stand in for packages. */
int pt_demo_data(const char *path, const char *status, struct pt_err *err) PT_MUSTCHECK;
#endif
