/* The answer of `postern check`, for people or for programs. */
#ifndef PT_CHECK_REPORT_H
#define PT_CHECK_REPORT_H
#include "check/check_int.h"

/* Write it to standard output.  0 = no FAIL, 1 = at least one; IO when it could not be written. */
int pt_check_report(const struct pt_check_ctx *c, bool json, struct pt_err *err) PT_MUSTCHECK;
/* The same into a buffer. */
void pt_check_text(const struct pt_check_ctx *c, bool colour, struct pt_buf *out);
void pt_check_json(const struct pt_check_ctx *c, struct pt_buf *out);
#endif
