/* The thread executor: slots, idle count, threads that end, stop. */
#include "exec/executor.h"
#include "base/clock.h"
#include "../tap.h"
#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>

enum { SLOTS = 18, DEADLINE_MS = 20000 };

/* A gate that work waits at, and counts of who came and went. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static bool gate_open;
static int arrived, gone, usr1_blocked;

static void gate(bool is_open)
{
	pthread_mutex_lock(&lock);
	gate_open = is_open;
	arrived = gone = 0;
	pthread_cond_broadcast(&moved);
	pthread_mutex_unlock(&lock);
}

static void work(void *arg)
{
	sigset_t now;

	pthread_sigmask(SIG_SETMASK, NULL, &now);
	pthread_mutex_lock(&lock);
	usr1_blocked += sigismember(&now, SIGUSR1);
	arrived++;
	pthread_cond_broadcast(&moved);
	while (!gate_open)
		pthread_cond_wait(&moved, &lock);
	gone += *(int *)arg;
	pthread_cond_broadcast(&moved);
	pthread_mutex_unlock(&lock);
}

static void wait_arrived(int n)
{
	pthread_mutex_lock(&lock);
	while (arrived < n)
		pthread_cond_wait(&moved, &lock); /* the test runner's time limit ends a wait that never does */
	pthread_mutex_unlock(&lock);
}

static int threads_alive(void)
{
	DIR *d = opendir("/proc/self/task");
	int n = 0;

	for (struct dirent *e; d && (e = readdir(d));)
		n += e->d_name[0] != '.';
	if (d)
		closedir(d);
	return n;
}

static int before; /* threads of the process without an executor: ours, and those of a sanitizer */

/* Wait until the process has n threads, or the deadline: a thread that has left its pool takes a moment to be gone. */
static int settle(int n)
{
	int64_t end = pt_mono_ms() + DEADLINE_MS;

	while (threads_alive() != n && pt_mono_ms() < end)
		(void)poll(NULL, 0, 2);
	return threads_alive();
}

/* A slot is free a moment after its work has returned. */
static unsigned settle_idle(struct pt_executor *x, unsigned n)
{
	int64_t end = pt_mono_ms() + DEADLINE_MS;

	while (x->ops->idle(x) != n && pt_mono_ms() < end)
		(void)poll(NULL, 0, 1);
	return x->ops->idle(x);
}

static void *own_id(void *arg)
{
	*(pid_t *)arg = gettid();
	return NULL;
}

/* A sanitizer may start its own thread with the first of ours: so start one, wait until it is gone, count. */
static void count_ours(void)
{
	int64_t end = pt_mono_ms() + DEADLINE_MS;
	pthread_t t;
	char path[64];
	pid_t id = 0;

	ok(pthread_create(&t, NULL, own_id, &id) == 0 && pthread_join(t, NULL) == 0, "a thread");
	snprintf(path, sizeof(path), "/proc/self/task/%d", (int)id);
	while (access(path, F_OK) == 0 && pt_mono_ms() < end)
		(void)poll(NULL, 0, 1);
	before = threads_alive();
}

static void fill_and_stop(void)
{
	int one = 1, rc = 0;
	struct pt_executor *x = NULL;
	struct pt_err e = { 0 };

	gate(false);
	ok(pt_executor_thread(&x, SLOTS, &e) == 0, "made");
	is_str(x->ops->name, "thread", "named");
	is_int(x->ops->idle(x), SLOTS, "all idle");
	for (int i = 0; i < SLOTS; i++)
		rc |= x->ops->submit(x, work, &one, &e);
	is_int(rc, 0, "%d submitted", SLOTS);
	is_int(x->ops->idle(x), 0, "none idle");
	ok(x->ops->submit(x, work, &one, &e) == PT_E_LIMIT, "one more is refused: %s", e.msg);
	wait_arrived(SLOTS);
	ok(true, "all run at the same time");
	is_int(usr1_blocked, SLOTS, "with signals blocked");
	is_int(x->ops->stop(x, 10), SLOTS, "stop gives up in time and says how many run");
	ok(x->ops->submit(x, work, &one, &e) == PT_E_UNAVAILABLE, "and takes no more: %s", e.msg);
	gate(true);
	is_int(x->ops->stop(x, DEADLINE_MS), 0, "stop waits for all");
	is_int(gone, SLOTS, "all have ended");
}

static void reuse(void)
{
	int one = 1, rc = 0;
	struct pt_executor *x = NULL;
	struct pt_err e = { 0 };

	gate(true);
	ok(pt_executor_thread_idle(&x, SLOTS, 50, &e) == 0, "made, threads end after 50 ms");
	is_int(settle(before), before, "no thread before there is work");
	for (int i = 0; i < 1000; i++) {
		while ((rc = x->ops->submit(x, work, &one, &e)) == PT_E_LIMIT)
			(void)poll(NULL, 0, 1);
		if (rc < 0)
			break;
	}
	is_int(rc, 0, "1000 pieces of work through %d slots", SLOTS);
	is_int(settle_idle(x, SLOTS), SLOTS, "all idle again");
	is_int(gone, 1000, "each was done once");
	is_int(settle(before), before, "threads end when idle");
	gate(true);
	ok(x->ops->submit(x, work, &one, &e) == 0, "and come back");
	is_int(settle_idle(x, SLOTS), SLOTS, "done");
	is_int(gone, 1, "once");
	is_int(x->ops->stop(x, 0), 0, "nothing to wait for, also with an idle thread");
	is_int(settle(before), before, "no thread is left");
}

/* Idle threads are used again, not joined by new ones. */
static void no_surplus(void)
{
	int one = 1, rc = 0, most = 0;
	struct pt_executor *x = NULL;
	struct pt_err e = { 0 };

	gate(true);
	(void)settle(before);
	ok(pt_executor_thread(&x, SLOTS, &e) == 0, "made");
	for (int i = 0; i < 50; i++) {
		rc |= x->ops->submit(x, work, &one, &e);
		(void)settle_idle(x, SLOTS);
		if (threads_alive() > most)
			most = threads_alive();
	}
	ok(rc == 0 && most <= before + 2, "one after the other: %d threads at most", most - before);
	is_int(x->ops->stop(x, DEADLINE_MS), 0, "stopped");
}

struct submitter {
	struct pt_executor *x;
	int done;
};

static void *submit_many(void *arg)
{
	struct submitter *s = arg;
	struct pt_err e;
	static int one = 1;

	for (int i = 0; i < 200; i++)
		s->done += s->x->ops->submit(s->x, work, &one, &e) == 0;
	return NULL;
}

static void many_submitters(void)
{
	struct pt_executor *x = NULL;
	struct submitter s[4] = { { 0 } };
	struct pt_err e = { 0 };
	pthread_t t[4];
	int sum = 0;

	gate(true);
	ok(pt_executor_thread(&x, 3, &e) == 0, "made");
	for (int i = 0; i < 4; i++) {
		s[i].x = x;
		ok(pthread_create(&t[i], NULL, submit_many, &s[i]) == 0, "submitter");
	}
	for (int i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
		sum += s[i].done;
	}
	is_int(x->ops->stop(x, DEADLINE_MS), 0, "stopped");
	is_int(gone, sum, "%d pieces of work were taken, and as many done", sum);
}

int main(void)
{
	struct pt_executor *x = NULL;
	struct pt_err e = { 0 };

	count_ours();
	ok(pt_executor_thread(&x, 0, &e) == PT_E_INVALID && !x, "no slots: %s", e.msg);
	ok(pt_executor_thread(&x, 1, &e) == 0 && x->ops->stop(x, 0) == 0, "stopped unused");
	fill_and_stop();
	reuse();
	no_surplus();
	many_submitters();
	return tap_end();
}
