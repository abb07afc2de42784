/* The commands of the program that are not a role of their own (those are in gateway/, agent/ and ctl/), and the command table. */
#ifndef PT_CMD_CMD_H
#define PT_CMD_CMD_H
#include "base/opt.h"

extern const struct pt_command pt_cmd_demo, pt_cmd_help, pt_cmd_version;

/* Walk the words down the table from pt_opt_root.  *ret_used = words that named a command; stops at the first flag.  INVALID, with a
 * suggestion, when a word names nothing. */
int pt_cmd_find(size_t n, char *const *words, const struct pt_command **ret, size_t *ret_used, struct pt_err *err) PT_MUSTCHECK;
#endif
