/* Stopping: what is finished, given back, cancelled, delivered, in which order and within which time; and the other states in
 * which an agent takes no work. */
#include "agent_util.h"
#include <sys/wait.h>

static void test_idle(void)
{
	int64_t ms;

	begin();
	agent_begin(&t);
	ok(fake_until(gw, gw->held != NULL), "an idle agent");
	ms = agent_stop(&t);
	ok(ms < 1000, "exits at once (%lld ms)", (long long)ms);
	ok(gw->saw_goodbye && gw->last.holding.n == 0, "with a goodbye");
	end();

	begin();
	fake_hang_up(gw);
	agent_begin(&t);
	ms = agent_stop(&t);
	ok(ms < 2000, "also when the gateway is away (%lld ms)", (long long)ms);
	fake_listen(gw);
	end();
}

static void test_finish(void)
{
	begin();
	fake_lease(gw, "op_a", 1, "sleep", "{}");
	fake_lease(gw, "op_b", 1, "sleep", "{}");
	agent_begin(&t);
	ok(fake_until(gw, started == 2 && gw->held), "two run");
	pt_agent_stop(t.a);
	ok(fake_until(gw, gw->saw_draining), "the gateway is told of the drain at once");
	fake_lease(gw, "op_late", 1, "bytes", "{\"n\": 1}");
	ok(fake_until(gw, strstr(gw->released, "op_late:1")), "a lease that comes now is given back");
	wake_sleepers = 2;
	ok(agent_end(&t) < 4000, "the agent ends when they have");
	is_int(gw->accepted, 2, "both finished and delivered");
	ok(gw->saw_goodbye && gw->puts_at_goodbye == 2, "goodbye comes after the last result");
	is_int(started, 2, "nothing else was started");
	end();
}

static void test_cancel(void)
{
	int64_t ms;

	begin();
	t.conf.stop_timeout_ms = 2000;
	fake_lease(gw, "op_a", 1, "sleep", "{}");
	fake_lease(gw, "op_b", 1, "bytes", "{\"n\": 100}");
	agent_begin(&t);
	ok(fake_until(gw, started == 2 && gw->accepted == 1), "one runs");
	ms = agent_stop(&t);
	ok(ms > 1000 && ms < 2500, "it has its share of the time (%lld ms)", (long long)ms);
	is_str(gw->released, "op_a:1 ", "and is given back");
	ok(gw->saw_goodbye && !fake_find(gw, "op_a", 1), "without a result");
	end();
}

/* An operation that hears no cancel: its thread is left behind, so this runs in a child of its own. */
static int deaf_child(void)
{
	int64_t ms;
	bool good;

	begin();
	t.conf.stop_timeout_ms = 1000;
	fake_lease(gw, "op_deaf", 1, "sleep", "{\"n\": 1}");
	agent_begin(&t);
	if (!fake_until(gw, started == 1 && gw->held))
		return 1;
	pt_agent_stop(t.a);
	ms = pt_mono_ms();
	pthread_join(t.thread, NULL);
	ms = pt_mono_ms() - ms;
	if (ms > 4000)
		return 2;
	pthread_mutex_lock(&gw->lock);
	good = gw->saw_goodbye && gw->last.holding.n == 0;
	pthread_mutex_unlock(&gw->lock);
	if (!good)
		return 3;
	return t.all_ended ? 4 : 0;
}

static void test_deaf(void)
{
	int status = -1;
	pid_t pid;

	snprintf(t.spool, sizeof(t.spool), "%s/spool", dir);
	fflush(stdout);
	pid = fork();
	if (pid == 0)
		_exit(deaf_child());
	waitpid(pid, &status, 0);
	is_int(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0,
	       "an operation that hears no cancel keeps the agent only so long, and goodbye gives it back");
	wipe(t.spool, true);
	wipe(dir, false);
}

static void test_flush(void)
{
	int64_t ms;

	begin();
	t.conf.stop_timeout_ms = 2000;
	gw->put_status = 503;
	fake_lease(gw, "op_a", 1, "bytes", "{\"n\": 100}");
	agent_begin(&t);
	ok(fake_until(gw, gw->n_puts > 0), "a result that the gateway does not take yet");
	ms = agent_stop(&t);
	ok(ms < 2500, "delivery has its share of the time (%lld ms)", (long long)ms);
	ok(gw->saw_goodbye && fake_holds(gw, "op_a") && !strcmp(fake_holds(gw, "op_a")->state, "spooled"),
	   "goodbye lists what stays in the spool");
	end();
}

static void test_ordered(void)
{
	begin();
	fake_lease(gw, "op_a", 1, "sleep", "{}");
	agent_begin(&t);
	ok(fake_until(gw, started == 1 && gw->held), "one runs");
	pthread_mutex_lock(&gw->lock);
	gw->drain = true;
	pthread_mutex_unlock(&gw->lock);
	ok(fake_until(gw, gw->saw_draining), "the gateway orders a drain");
	wake_sleepers = 1;
	ok(agent_end(&t) < 5000, "the agent finishes and ends by itself");
	ok(gw->accepted == 1 && gw->saw_goodbye, "result and goodbye");
	end();
}

static void test_too_many(void)
{
	begin();
	for (int i = 1; i <= 6; i++) {
		char op[20];

		snprintf(op, sizeof(op), "op_%d", i);
		fake_lease(gw, op, 1, "sleep", "{}");
	}
	agent_begin(&t);
	ok(fake_until(gw, started == 4 && strstr(gw->released, ":1 op_")), "six leases for four slots: two go back");
	is_int(strlen(gw->released), 14, "no more: %s", gw->released);
	wake_sleepers = 4;
	ok(fake_until(gw, gw->accepted == 4), "four run to their end");
	end();
}

enum { MANY = 64 };

/* Does the agent ask for less than it has room for?  (What it still holds is in the number.) */
static bool asks_for_less(void)
{
	bool less;

	pthread_mutex_lock(&gw->lock);
	less = gw->last.slots < MANY;
	pthread_mutex_unlock(&gw->lock);
	return less;
}

static void test_full(void)
{
	int n = 0;

	begin();
	t.conf.spool_max_bytes = 1 << 20;
	t.conf.slots = MANY;
	gw->put_status = 503;
	agent_begin(&t);
	ok(fake_until(gw, gw->held != NULL), "results pile up");
	while (n < 60 && !asks_for_less()) {
		int before = started;

		fake_lease(gw, "op_big", ++n, "bytes", "{\"n\": 30000}");
		if (!fake_until(gw, started > before && gw->held))
			break;
	}
	ok(n > 20 && n < 55, "until after %d of them no free slot is offered any more", n);
	fake_lease(gw, "op_more", 1, "bytes", "{\"n\": 300000}");
	ok(fake_until(gw, (gw->held_until = 0, fake_holds(gw, "op_more") && !strcmp(fake_holds(gw, "op_more")->state, "spooled"))),
	   "what comes all the same ends, too");
	fake_set(gw, &gw->put_status, 0);
	fake_hang_up(gw); /* the link's return ends the publishers' pauses */
	fake_listen(gw);
	ok(fake_until(gw, fake_find(gw, "op_more", 1)), "and gets an answer");
	ok(fake_until(gw, fake_find(gw, "op_more", 1) && !strcmp(fake_find(gw, "op_more", 1)->code, "limit_exceeded")),
	   "that says why it has no result");
	ok(fake_until(gw, gw->accepted == n + 1), "everything is delivered");
	fake_poke(gw);
	ok(fake_until(gw, gw->last.slots == MANY), "and then there are slots again");
	end();
}

static void test_states(void)
{
	begin();
	gw->disabled = true;
	gw->skew_ms = 7200000;
	agent_begin(&t);
	ok(fake_until(gw, gw->held != NULL), "a disabled agent stays connected");
	pthread_mutex_lock(&gw->lock);
	gw->disabled = false;
	pthread_mutex_unlock(&gw->lock);
	fake_lease_to(gw, &gw->leases, "op_a", 1, "bytes", "{\"n\": 1}", 60000, 60000);
	ok(fake_until(gw, fake_find(gw, "op_a", 1)), "a lease with a deadline by the gateway's clock, two hours ahead");
	is_str(fake_find(gw, "op_a", 1)->status, "succeeded", "is no trouble");
	gw->skew_ms = -7200000;
	fake_poke(gw);
	ok(fake_until(gw, gw->held && gw->held_until > 0), "the gateway's clock is set back");
	fake_lease_to(gw, &gw->leases, "op_b", 1, "bytes", "{\"n\": 1}", 60000, 60000);
	ok(fake_until(gw, fake_find(gw, "op_b", 1)), "a deadline that lies behind by our clock");
	is_str(fake_find(gw, "op_b", 1)->status, "succeeded", "is no trouble either");
	end();
}

int main(void)
{
	struct pt_err err;

	setvbuf(stdout, NULL, _IOLBF, 0);
	temp_dir(dir);
	if (pt_log_init(getenv("PT_TEST_LOG") ? "debug" : "error", "plain", 0, &err) < 0)
		return 1;
	test_deaf(); /* forks: before there are threads */
	test_idle();
	test_finish();
	test_cancel();
	test_flush();
	test_ordered();
	test_too_many();
	test_full();
	test_states();
	wipe(dir, true);
	return tap_end();
}
