/* `postern gateway`. */
#ifndef PT_GATEWAY_GATEWAY_H
#define PT_GATEWAY_GATEWAY_H
#include "base/opt.h"
extern const struct pt_command pt_cmd_gateway;
#endif
