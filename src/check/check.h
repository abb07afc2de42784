/* `postern check`: what stands between this place and an agent that works, and the probes of an agent that runs. */
#ifndef PT_CHECK_CHECK_H
#define PT_CHECK_CHECK_H
#include "base/opt.h"

extern struct pt_command pt_cmd_check;
/* Give it the settings of `postern agent`: call it before the command table is used.  They stand in one table, so that both commands
 * always take the same. */
void pt_check_share_settings(void);
#endif
