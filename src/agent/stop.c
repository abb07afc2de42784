/* The shares follow the total, within bounds: a delivery that needs a minute is not helped by an hour, and one that gets less
 * than half a second need not begin. */
#include "agent/stop.h"
#include "base/buf.h"
#include <string.h>

enum {
	CANCEL_LEAST = 500,
	CANCEL_MOST = 60000,
	DELIVER_LEAST = 500,
	DELIVER_MOST = 60000,
	GOODBYE_LEAST = 750,
	GOODBYE_MOST = 3000,
	END_LEAST = 250,
	END_MOST = 1000,
	LEAST = CANCEL_LEAST + DELIVER_LEAST + GOODBYE_LEAST + END_LEAST,
	FORCE_GOODBYE = 1000,
	FORCE_END = 1000,
};

const char *const pt_stop_actions[] = { "drain", "grace-shutdown", "force-shutdown", NULL };

static int64_t share(int64_t total_ms, int percent, int64_t least, int64_t most)
{
	int64_t ms = total_ms / 100 * percent;

	return !total_ms || ms > most ? most : ms < least ? least : ms;
}

int64_t pt_stop_plan_total(const struct pt_stop_plan *p)
{
	int64_t rest = p->cancel_ms + p->deliver_ms + p->goodbye_ms + p->end_ms;

	return p->finish_ms > INT64_MAX - rest ? INT64_MAX : p->finish_ms + rest;
}

static double seconds(int64_t ms)
{
	return (double)ms / 1000;
}

/* "18 s = 9 to finish + 2.7 to cancel + 2.7 to deliver + 2.7 to say goodbye + 0.9 to end" */
static const char *sum(const struct pt_stop_plan *p, struct pt_buf *out)
{
	const struct {
		int64_t ms;
		const char *what;
	} parts[] = { { p->finish_ms, "finish" },
		      { p->cancel_ms, "cancel" },
		      { p->deliver_ms, "deliver" },
		      { p->goodbye_ms, "say goodbye" },
		      { p->end_ms, "end" } };
	const char *between = " s = ";

	pt_buf_fmt(out, "%.6g", seconds(pt_stop_plan_total(p)));
	for (size_t i = 0; i < PT_COUNT(parts); i++)
		if (parts[i].ms) {
			pt_buf_fmt(out, "%s%.6g to %s", between, seconds(parts[i].ms), parts[i].what);
			between = " + ";
		}
	return out->p;
}

static int too_short(int64_t total_ms, struct pt_err *err)
{
	static const struct pt_stop_plan least = {
		.cancel_ms = CANCEL_LEAST, .deliver_ms = DELIVER_LEAST, .goodbye_ms = GOODBYE_LEAST, .end_ms = END_LEAST
	};
	pt_auto_buf text = PT_BUF_INIT(256);

	(void)pt_fail(err, PT_E_INVALID, "--stop-timeout of %.6g s is too short: it takes at least %s", seconds(total_ms),
		      sum(&least, &text));
	return pt_hint(err, "give it more time, or choose --stop-action force-shutdown, which needs none");
}

static int beyond_grace(const struct pt_stop_plan *p, int64_t grace_ms, struct pt_err *err)
{
	pt_auto_buf text = PT_BUF_INIT(256);

	if (p->finish_ms == INT64_MAX) {
		(void)pt_fail(err, PT_E_INVALID,
			      "--stop-timeout 0 (no limit) and --termination-grace-seconds %.6g do not go together",
			      seconds(grace_ms));
		return pt_hint(err, "the pod is killed after its grace period: give --stop-timeout a time below it");
	}
	(void)pt_fail(err, PT_E_INVALID, "a stop would be killed after %.6g s (--termination-grace-seconds), and takes up to %s",
		      seconds(grace_ms), sum(p, &text));
	return p->action == PT_STOP_FORCE || grace_ms < LEAST
		       ? pt_hint(err, "a stop needs %.6g s or more: raise terminationGracePeriodSeconds",
				 seconds(p->action == PT_STOP_FORCE ? pt_stop_plan_total(p) : LEAST))
		       : pt_hint(err, "raise terminationGracePeriodSeconds, or lower --stop-timeout to %.6gs or less",
				 seconds(grace_ms));
}

int pt_stop_plan_make(struct pt_stop_plan *ret, const char *action, int64_t total_ms, int64_t grace_ms, struct pt_err *err)
{
	struct pt_stop_plan p = { .action = PT_STOP_DRAIN };
	int64_t rest;

	while (action && pt_stop_actions[p.action] && strcmp(action, pt_stop_actions[p.action]) != 0)
		p.action++;
	if (p.action > PT_STOP_FORCE)
		return pt_fail(err, PT_E_INVALID, "--stop-action: '%s' is not known", action);
	if (p.action == PT_STOP_FORCE) {
		p.goodbye_ms = FORCE_GOODBYE;
		p.end_ms = FORCE_END;
		if (grace_ms && pt_stop_plan_total(&p) > grace_ms)
			return beyond_grace(&p, grace_ms, err);
		*ret = p;
		return PT_OK;
	}
	if (!total_ms && p.action != PT_STOP_DRAIN) {
		(void)pt_fail(err, PT_E_INVALID, "--stop-timeout 0 (no limit) goes with --stop-action drain only");
		return pt_hint(err, "say how long cancelled operations may take to end, for example 25s");
	}
	if (total_ms && total_ms < LEAST)
		return too_short(total_ms, err);
	p.cancel_ms = share(total_ms, 15, CANCEL_LEAST, CANCEL_MOST);
	p.deliver_ms = share(total_ms, 15, DELIVER_LEAST, DELIVER_MOST);
	p.goodbye_ms = share(total_ms, 12, GOODBYE_LEAST, GOODBYE_MOST);
	p.end_ms = share(total_ms, 4, END_LEAST, END_MOST);
	rest = total_ms - (p.cancel_ms + p.deliver_ms + p.goodbye_ms + p.end_ms);
	if (!total_ms)
		p.finish_ms = INT64_MAX;
	else if (p.action == PT_STOP_DRAIN)
		p.finish_ms = rest;
	else
		p.cancel_ms += rest;
	if (grace_ms && (!total_ms || pt_stop_plan_total(&p) > grace_ms))
		return beyond_grace(&p, grace_ms, err);
	*ret = p;
	return PT_OK;
}
