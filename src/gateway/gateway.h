/* `postern gateway`. */
#ifndef PT_GATEWAY_GATEWAY_H
#define PT_GATEWAY_GATEWAY_H
#include "base/metric.h"
#include "base/opt.h"
extern const struct pt_metric_table pt_gateway_metrics;
extern const struct pt_command pt_cmd_gateway;
#endif
