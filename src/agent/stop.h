/* How a stop divides its time: one number in, the share of each phase out.  Pure: no clock, no agent. */
#ifndef PT_AGENT_STOP_H
#define PT_AGENT_STOP_H
#include "base/err.h"
#include <stdint.h>

enum pt_stop_action {
	PT_STOP_DRAIN, /* finish what runs, cancel what is left */
	PT_STOP_GRACE, /* cancel what runs at once */
	PT_STOP_FORCE, /* wait for nothing but a result on its way to the disk */
};
extern const char *const pt_stop_actions[]; /* their names, NULL-terminated */

/* In this order; what one phase leaves over, delivery may use. */
struct pt_stop_plan {
	enum pt_stop_action action;
	int64_t finish_ms;  /* for operations to end by themselves; INT64_MAX = as long as it takes */
	int64_t cancel_ms;  /* for cancelled ones to end */
	int64_t deliver_ms; /* for results to reach the gateway */
	int64_t goodbye_ms; /* for the last exchange, which gives back the rest */
	int64_t end_ms;     /* for threads to end; with force: for results on their way to the disk */
};
/* action: a name of pt_stop_actions, NULL = drain.  total_ms: from the request to the exit, 0 = no limit (drain only).  grace_ms:
 * after which the service manager kills, 0 = not known.  INVALID when the phases do not fit into total_ms, or total_ms not into
 * grace_ms; the message shows the sum. */
int pt_stop_plan_make(struct pt_stop_plan *ret, const char *action, int64_t total_ms, int64_t grace_ms,
		      struct pt_err *err) PT_MUSTCHECK;
/* From the request to the exit; INT64_MAX = no limit. */
int64_t pt_stop_plan_total(const struct pt_stop_plan *p);
#endif
