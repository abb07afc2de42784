/* `postern check`: what stands between this place and an agent that works, and the probes of an agent that runs. */
#ifndef PT_CHECK_CHECK_H
#define PT_CHECK_CHECK_H
#include "base/opt.h"

extern const struct pt_command pt_cmd_check;
#endif
