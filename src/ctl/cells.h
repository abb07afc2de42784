/* The cells of one row of a result: a JSON array of values on one line.  Numbers, true, false and nested values keep their
 * very text (no number passes through a double); strings are decoded. */
#ifndef PT_CTL_CELLS_H
#define PT_CTL_CELLS_H
#include "base/buf.h"

struct pt_cells {
	const char *p, *end;
	bool started;
};
#define PT_CELLS_INIT(line, n)                   \
	{                                        \
		.p = (line), .end = (line) + (n) \
	}
struct pt_cell {
	const char *p; /* into the line, or into scratch */
	size_t n;
	bool null;
};
/* 1 = the next cell is in *ret (valid until the next call), 0 = the row has ended properly.  CORRUPT when it is not such a line. */
int pt_cells_next(struct pt_cells *c, struct pt_buf *scratch, struct pt_cell *ret, struct pt_err *err) PT_MUSTCHECK;
#endif
