/* The backends that pt_db_open() chooses from.  Each takes the layouts: freed by close(), or here on failure. */
#ifndef PT_DB_BACKEND_H
#define PT_DB_BACKEND_H
#include "db/layout.h"

int pt_db_mem_open(struct pt_db **ret, const char *rest, struct pt_layout *l, size_t n, struct pt_err *err) PT_MUSTCHECK;
/* The copies of steady rows; freed after the backend's close(). */
struct pt_steady *pt_steady_new(void);
void pt_steady_free(struct pt_steady *s);
int pt_db_sqlite_open(struct pt_db **ret, const char *rest, struct pt_layout *l, size_t n, struct pt_err *err) PT_MUSTCHECK;
#endif
