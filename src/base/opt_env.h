/* The environment side of config tables; used by opt.c only. */
#ifndef PT_BASE_OPT_ENV_H
#define PT_BASE_OPT_ENV_H
#include "base/opt.h"

/* The setting's value in the environment, NULL when not set; name gets the variable that had it. */
const char *pt_opt_env_get(const struct pt_opt *o, char name[static 64]);
/* PT_E_INVALID, with a suggestion, when the environment has a POSTERN_* name that no command below all knows.  With bad: each such
 * name goes there, and the function succeeds. */
int pt_opt_env_check(const struct pt_command *all, pt_opt_bad_fn *bad, void *arg, struct pt_err *err) PT_MUSTCHECK;
#endif
