/* The answer of `postern check`, for people or for programs. */
#ifndef PT_CHECK_REPORT_H
#define PT_CHECK_REPORT_H
#include "check/check_int.h"

/* Write the document (json), or what follows the rows, to standard output.  0 = no FAIL, 1 = at least one; IO when it, or a row before
 * it, could not be written. */
int pt_check_report(const struct pt_check_ctx *c, bool json, struct pt_err *err) PT_MUSTCHECK;
/* For people: a row of the table as soon as its check has ended (width: of the longest name), and behind the rows how many there are of each
 * kind, and what to do. */
void pt_check_row(const struct pt_check_result *r, size_t width, bool colour, struct pt_buf *out);
void pt_check_end(const struct pt_check_ctx *c, struct pt_buf *out);
/* For programs: all of it. */
void pt_check_json(const struct pt_check_ctx *c, struct pt_buf *out);
#endif
