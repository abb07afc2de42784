/* How a stop's time is divided, and what is refused. */
#include "agent/stop.h"
#include "base/buf.h"
#include "../tap.h"

static void test_shares(void)
{
	static const struct {
		const char *action;
		int64_t total, grace, finish, cancel, deliver, goodbye, end;
	} cases[] = {
		{ NULL, 25000, 0, 13500, 3750, 3750, 3000, 1000 },
		{ "drain", 25000, 25, 13500, 3750, 3750, 3000, 1000 },
		{ "drain", 2000, 0, 0, 500, 500, 750, 250 },
		{ "drain", 10000, 0, 5400, 1500, 1500, 1200, 400 },
		{ "drain", 3600000, 3600, 3600000 - 124000, 60000, 60000, 3000, 1000 },
		{ "drain", 0, 0, INT64_MAX, 60000, 60000, 3000, 1000 },
		{ "grace-shutdown", 25000, 30, 0, 17250, 3750, 3000, 1000 },
		{ "grace-shutdown", 2000, 2, 0, 500, 500, 750, 250 },
		{ "force-shutdown", 25000, 0, 0, 0, 0, 1000, 1000 },
		{ "force-shutdown", 0, 2, 0, 0, 0, 1000, 1000 },
	};

	for (size_t i = 0; i < PT_COUNT(cases); i++) {
		struct pt_stop_plan p;
		struct pt_err err = { 0 };
		int64_t total = cases[i].action && cases[i].action[0] == 'f' ? 2000 : cases[i].total ? cases[i].total : INT64_MAX;

		is_int(pt_stop_plan_make(&p, cases[i].action, cases[i].total, cases[i].grace * 1000, &err), 0, "%s of %lld ms %s",
		       cases[i].action ? cases[i].action : "default", (long long)cases[i].total, err.msg);
		ok(p.finish_ms == cases[i].finish && p.cancel_ms == cases[i].cancel && p.deliver_ms == cases[i].deliver &&
			   p.goodbye_ms == cases[i].goodbye && p.end_ms == cases[i].end,
		   "finish %lld cancel %lld deliver %lld goodbye %lld end %lld", (long long)p.finish_ms, (long long)p.cancel_ms,
		   (long long)p.deliver_ms, (long long)p.goodbye_ms, (long long)p.end_ms);
		is_int(pt_stop_plan_total(&p), total, "which is all of it");
	}
}

static void test_sums(void)
{
	for (int64_t ms = 2000; ms < 8 * 24 * 3600 * 1000LL; ms += ms / 7) {
		struct pt_stop_plan p;

		for (int i = 0; i < 2; i++)
			if (pt_stop_plan_make(&p, pt_stop_actions[i], ms, 0, NULL) < 0 || pt_stop_plan_total(&p) != ms ||
			    p.finish_ms < 0 || p.cancel_ms < 500 || p.deliver_ms < 500)
				ok(false, "%s of %lld ms", pt_stop_actions[i], (long long)ms);
	}
	ok(true, "the parts are the whole, for every total");
}

static void test_refused(void)
{
	static const struct {
		const char *action;
		int64_t total, grace;
		const char *says, *hint;
	} cases[] = {
		{ "drain", 1999, 0,
		  "--stop-timeout of 1.999 s is too short: it takes at least 2 s = 0.5 to cancel + 0.5 to deliver + "
		  "0.75 to say goodbye + 0.25 to end",
		  "force-shutdown" },
		{ "grace-shutdown", 1000, 0, "too short", "more time" },
		{ "grace-shutdown", 0, 0, "goes with --stop-action drain only", "25s" },
		{ "drain", 3600000, 3599,
		  "a stop would be killed after 3599 s (--termination-grace-seconds), and takes up to 3600 s = "
		  "3476 to finish + 60 to cancel + 60 to deliver + 3 to say goodbye + 1 to end",
		  "terminationGracePeriodSeconds" },
		{ "drain", 0, 3600, "no limit", "below" },
		{ "drain", 25000, 1, "takes up to 25 s", "2 s or more: raise terminationGracePeriodSeconds" },
		{ "force-shutdown", 25000, 1, "takes up to 2 s = 1 to say goodbye + 1 to end", "terminationGracePeriodSeconds" },
		{ "sleep", 25000, 0, "'sleep' is not known", "" },
	};

	for (size_t i = 0; i < PT_COUNT(cases); i++) {
		struct pt_stop_plan p = { .finish_ms = 7 };
		struct pt_err err = { 0 };

		is_int(pt_stop_plan_make(&p, cases[i].action, cases[i].total, cases[i].grace * 1000, &err), PT_E_INVALID,
		       "refused");
		ok(strstr(err.msg, cases[i].says) && strstr(err.hint, cases[i].hint), "%s (%s)", err.msg, err.hint);
		is_int(p.finish_ms, 7, "output untouched");
	}
}

int main(void)
{
	test_shares();
	test_sums();
	test_refused();
	return tap_end();
}
