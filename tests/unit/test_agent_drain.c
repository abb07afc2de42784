/* Stopping: what is finished, given back, cancelled, delivered, in which order and within which time; and the other states in
 * which an agent takes no work. */
#include "agent_util.h"
#include "agent/stop.h"
#include <sys/wait.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SLOW = 4 };
#else
enum { SLOW = 1 };
#endif

static void test_idle(const char *action)
{
	int64_t ms;

	begin();
	t.conf.stop_action = action;
	agent_begin(&t);
	ok(fake_until(gw, gw->held != NULL), "an idle agent");
	ms = agent_stop(&t);
	ok(ms < 200 * SLOW, "exits at once: %s (%lld ms)", action, (long long)ms);
	ok(gw->saw_goodbye && gw->last.holding.n == 0, "with a goodbye");
	end();

	begin();
	t.conf.stop_action = action;
	fake_hang_up(gw);
	agent_begin(&t);
	ms = agent_stop(&t);
	ok(ms < 400 * SLOW, "also when the gateway is away (%lld ms)", (long long)ms);
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

/* Nothing runs, but results wait for the gateway: it must know all the same, or it gives work that comes back at once. */
static void test_only_results(void)
{
	begin();
	gw->put_status = 503;
	fake_lease(gw, "op_a", 1, "bytes", "{\"n\": 10}");
	agent_begin(&t);
	ok(fake_until(gw, (gw->held_until = 0, fake_holds(gw, "op_a") && !strcmp(fake_holds(gw, "op_a")->state, "spooled"))),
	   "a result waits");
	ok(fake_until(gw, gw->held), "and so does an exchange");
	pt_agent_stop(t.a);
	fake_poke(gw);
	ok(fake_until(gw, gw->saw_draining), "the next exchange says that the agent stops");
	ok(!fake_get(gw, gw->saw_goodbye), "long before the goodbye");
	fake_set(gw, &gw->put_status, 0);
	(void)agent_end(&t);
	is_int(gw->accepted, 1, "and the result is delivered");
	end();
}

/* The stop begins while a delivery is under way that then fails: the pause after it is none of a minute. */
static void test_stop_within_a_delivery(void)
{
	begin();
	t.conf.publishers = 1;
	gw->put_status = 503;
	gw->put_once = true;
	gw->retry_after = "60";
	fake_lease(gw, "op_a", 1, "sleep", "{}");
	fake_lease(gw, "op_b", 1, "sleep", "{}");
	agent_begin(&t);
	ok(fake_until(gw, started == 2 && gw->held), "two run");
	pthread_mutex_lock(&gw->lock); /* the gateway does not answer */
	wake_sleepers = 1;
	usleep(300000 * SLOW);
	wake_sleepers = 1; /* its result waits behind the first */
	usleep(100000 * SLOW);
	pt_agent_stop(t.a);
	usleep(100000 * SLOW);
	pthread_mutex_unlock(&gw->lock);
	(void)agent_end(&t);
	is_int(gw->n_puts, 3, "the first delivery fails");
	is_int(gw->accepted, 2, "both results are delivered before the end");
	gw->retry_after = NULL;
	end();
}

static void test_cancel(void)
{
	int64_t ms;

	begin();
	t.conf.stop_timeout_ms = 4000; /* 1.8 s to finish */
	fake_lease(gw, "op_a", 1, "sleep", "{}");
	fake_lease(gw, "op_b", 1, "bytes", "{\"n\": 100}");
	agent_begin(&t);
	ok(fake_until(gw, started == 2 && gw->accepted == 1), "one runs");
	ms = agent_stop(&t);
	ok(ms >= 1800 && ms < 4000 * SLOW, "it has its share of the time (%lld ms)", (long long)ms);
	is_str(gw->released, "op_a:1 ", "and is given back");
	ok(gw->saw_goodbye && !fake_find(gw, "op_a", 1), "without a result");
	end();
}

static void lease_once(const char *op, const char *input)
{
	pthread_mutex_lock(&gw->lock);
	fake_comma(&gw->leases);
	pt_buf_fmt(&gw->leases,
		   "{\"operation\": \"%s\", \"attempt\": 1, \"type\": \"sleep\", \"input\": %s, \"delivery\": \"at-most-once\","
		   " \"deadline\": %lld, \"lease_ms\": 60000}",
		   op, input, (long long)(pt_wall_ms() + 60000));
	pthread_mutex_unlock(&gw->lock);
}

static void test_grace(void)
{
	int64_t ms;

	begin();
	t.conf.stop_action = "grace-shutdown";
	t.conf.stop_timeout_ms = 20000;
	fake_lease(gw, "op_a", 1, "sleep", "{}");
	lease_once("op_once", "{}");
	agent_begin(&t);
	ok(fake_until(gw, started == 2 && gw->held), "grace-shutdown: two run");
	ms = agent_stop(&t);
	ok(ms < 1000 * SLOW, "they are cancelled at once (%lld ms)", (long long)ms);
	is_str(gw->released, "op_a:1 ", "what may run again is given back");
	ok(fake_find(gw, "op_once", 1), "what must not be started again has a result");
	is_str(fake_find(gw, "op_once", 1)->status, "cancelled", "which says what happened");
	ok(gw->saw_goodbye && gw->puts_at_goodbye == 1, "before the goodbye");
	end();
}

/* An operation that hears no cancel: its thread is left behind, so this runs in a child of its own. */
static int force_child(void)
{
	int64_t ms;
	bool good;

	begin();
	t.conf.stop_action = "force-shutdown";
	fake_lease(gw, "op_deaf", 1, "sleep", "{\"n\": 1}");
	agent_begin(&t);
	if (!fake_until(gw, started == 1 && gw->held))
		return 1;
	ms = pt_mono_ms();
	pt_agent_stop(t.a);
	pthread_join(t.thread, NULL);
	if (pt_mono_ms() - ms > 500 * SLOW)
		return 2;
	good = fake_get(gw, gw->saw_goodbye && gw->last.holding.n == 0);
	return !good ? 3 : t.all_ended ? 4 : 0;
}

/* What must not be started again is not given back as if it had not been. */
static int once_child(void)
{
	const struct pt_holding *h;
	bool good;

	begin();
	t.conf.stop_action = "force-shutdown";
	fake_lease(gw, "op_deaf", 1, "sleep", "{\"n\": 1}");
	lease_once("op_once", "{\"n\": 1}");
	agent_begin(&t);
	if (!fake_until(gw, started == 2 && gw->held))
		return 1;
	pt_agent_stop(t.a);
	pthread_join(t.thread, NULL);
	pthread_mutex_lock(&gw->lock);
	h = gw->last.holding.items;
	good = gw->saw_goodbye && gw->last.holding.n == 1 && strcmp(h->operation, "op_once") == 0 &&
	       strcmp(h->state, "running") == 0 && h->started_at && strcmp(gw->released, "op_once:1 ") == 0;
	pthread_mutex_unlock(&gw->lock);
	return good ? 0 : 2;
}

static int deaf_child(void)
{
	int64_t ms;
	bool good;

	begin();
	t.conf.stop_timeout_ms = 2000;
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
	good = fake_get(gw, gw->saw_goodbye && gw->last.holding.n == 0);
	if (!good)
		return 3;
	return t.all_ended ? 4 : 0;
}

static void test_deaf(int (*child)(void), const char *what)
{
	int status = -1;
	pid_t pid;

	snprintf(t.spool, sizeof(t.spool), "%s/spool", dir);
	fflush(stdout);
	pid = fork();
	if (pid == 0)
		_exit(child());
	waitpid(pid, &status, 0);
	is_int(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0, "%s", what);
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
	ok(ms > 500 && ms < 2500 * SLOW, "delivery has the time that is left (%lld ms)", (long long)ms);
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
	is_int(fake_get(gw, strlen(gw->released)), 14, "no more: %s", gw->released);
	wake_sleepers = 4;
	ok(fake_until(gw, gw->accepted == 4), "four run to their end");
	end();
}

enum { MANY = 64 };

/* Does the agent ask for less than it has room for?  (What it still holds is in the number.) */
static bool asks_for_less(void)
{
	return fake_get(gw, gw->last.slots < MANY);
}

static void test_full(void)
{
	enum { WAITING = 16 };
	int n = 0, lost = 0;

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
	fake_lease(gw, "op_more", 1, "bytes", "{\"n\": 3000000}"); /* more than the whole spool */
	ok(fake_until(gw, (gw->held_until = 0, fake_holds(gw, "op_more") && !strcmp(fake_holds(gw, "op_more")->state, "spooled"))),
	   "what comes all the same ends, too");
	for (int i = 1; i <= WAITING; i++) /* more than there is room for */
		fake_lease(gw, "op_wait", i, "bytes", "{\"n\": 30000}");
	ok(fake_until(gw,
		      (gw->held_until = 0, fake_holds(gw, "op_wait") && !strcmp(fake_holds(gw, "op_wait")->state, "running"))),
	   "results that were made wait for room");
	fake_set(gw, &gw->put_status, 0);
	fake_hang_up(gw); /* the link's return ends the publishers' pauses */
	fake_listen(gw);
	for (int i = 1; i <= WAITING; i++)
		if (!fake_until(gw, fake_find(gw, "op_wait", i)) || strcmp(fake_find(gw, "op_wait", i)->status, "succeeded") != 0)
			lost++;
	is_int(lost, 0, "and none is dropped for it");
	ok(fake_until(gw, fake_find(gw, "op_more", 1)), "and gets an answer");
	ok(fake_until(gw, fake_find(gw, "op_more", 1) && !strcmp(fake_find(gw, "op_more", 1)->code, "limit_exceeded")),
	   "that says why it has no result");
	ok(fake_until(gw, gw->accepted == n + 1 + WAITING), "everything is delivered");
	fake_poke(gw);
	ok(fake_until(gw, gw->last.slots == MANY), "and then there are slots again");
	end();
}

static _Atomic int64_t wall_offset_ms;

static int64_t jumping(bool mono)
{
	struct timespec ts;

	clock_gettime(mono ? CLOCK_MONOTONIC : CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000 + (mono ? 0 : wall_offset_ms);
}

/* This machine's time of day is set while the agent works: the gateway's clock, which deadlines mean, is not. */
static void test_clock(void)
{
	static const int64_t jumps[] = { 7200000, -7200000 };

	for (size_t i = 0; i < PT_COUNT(jumps); i++) {
		begin();
		fake_lease(gw, "op_a", 1, "sleep", "{}");
		agent_begin(&t);
		ok(fake_until(gw, started == 1 && gw->held && fake_holds(gw, "op_a")), "one runs");
		wall_offset_ms = jumps[i];
		pthread_mutex_lock(&gw->lock);
		gw->skew_ms = -jumps[i];
		pthread_mutex_unlock(&gw->lock);
		fake_lease_to(gw, &gw->put_leases, "op_b", 1, "sleep", "{}", 60000, 2000); /* comes before the next exchange */
		wake_sleepers = 1;
		ok(fake_until(gw, gw->accepted == 1 && started == 2), "the clock jumps, then a lease with two seconds left");
		ok(fake_until(gw, fake_find(gw, "op_b", 1)), "it ends in its time");
		is_str(fake_find(gw, "op_b", 1)->status, "expired", "neither at once nor never");
		wall_offset_ms = 0;
		end();
	}
}

/* What the link does with an answer that asks for a pause. */
static void test_pauses(void)
{
	int64_t began;
	int n;

	begin();
	gw->exchange_status = 503;
	gw->retry_after = "2";
	began = pt_mono_ms();
	agent_begin(&t);
	ok(fake_until(gw, gw->exchanges >= 2), "an exchange is refused with Retry-After: 2");
	ok(pt_mono_ms() - began >= 2000, "the next one comes after that (%lld ms)", (long long)(pt_mono_ms() - began));
	fake_set(gw, &gw->exchange_status, 0);
	end();

	begin();
	gw->put_status = 503;
	gw->retry_after = "2";
	fake_lease(gw, "op_a", 1, "bytes", "{\"n\": 10}");
	began = pt_mono_ms();
	agent_begin(&t);
	ok(fake_until(gw, gw->n_puts == 1), "a result is refused with Retry-After: 2");
	fake_set(gw, &gw->put_status, 0);
	ok(fake_until(gw, gw->accepted == 1), "it is delivered");
	ok(pt_mono_ms() - began >= 2000, "after that (%lld ms)", (long long)(pt_mono_ms() - began));
	end();

	begin();
	agent_begin(&t);
	ok(fake_until(gw, gw->held != NULL), "an exchange is held");
	fake_set(gw, &gw->spread_ms, 60000);
	n = fake_get(gw, gw->exchanges);
	fake_poke(gw);
	ok(fake_until(gw, !gw->held), "its answer says that the gateway stops");
	usleep(3300000); /* not a wait for something: it must not come.  Three draws that make less are 1 in 36,000 */
	ok(fake_get(gw, gw->exchanges) <= n + 2, "the agent takes its time to come back");
	ok(agent_stop(&t) < 1000 * SLOW, "and ends at once all the same");
	ok(gw->saw_goodbye, "with a goodbye");
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
	pt_clock_inject(jumping);
	temp_dir(dir);
	if (pt_log_init(getenv("PT_TEST_LOG") ? "debug" : "error", "plain", 0, &err) < 0)
		return 1;
	/* These two fork: before there are threads. */
	test_deaf(deaf_child, "an operation that hears no cancel keeps the agent only so long, and goodbye gives it back");
	test_deaf(force_child, "force-shutdown does not wait for it");
	test_deaf(once_child, "and its goodbye tells that an at-most-once operation was started");
	for (int i = 0; pt_stop_actions[i]; i++)
		test_idle(pt_stop_actions[i]);
	test_grace();
	test_finish();
	test_only_results();
	test_stop_within_a_delivery();
	test_cancel();
	test_flush();
	test_ordered();
	test_too_many();
	test_full();
	test_states();
	test_clock();
	test_pauses();
	wipe(dir, true);
	return tap_end();
}
