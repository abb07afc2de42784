/* The thread executor: one thread per busy slot.  Threads are detached; the pool is freed by stop() after the last has ended.
 * Everything in the pool is guarded by its lock. */
#include "exec/executor.h"
#include "base/clock.h"
#include "os/cond.h"
#include <signal.h>

enum { STACK_BYTES = 256 * 1024, IDLE_MS = 60000 };

struct work {
	void (*fn)(void *arg);
	void *arg;
};
struct pool {
	struct pt_executor e;
	pthread_mutex_t lock;
	pthread_cond_t wake;  /* there is work, or the end */
	pthread_cond_t ended; /* stopping, and a piece of work or a thread has ended */
	pthread_attr_t attr;
	int64_t idle_ms;
	unsigned slots;
	unsigned taken;   /* slots: queued and running */
	unsigned threads; /* alive */
	unsigned waiting; /* of them, in wait for work */
	bool stopping;
	unsigned head, queued; /* ring of slots entries: work that no thread has taken yet */
	struct work queue[];
};

static int64_t in_ms(int64_t ms)
{
	int64_t end;

	return __builtin_add_overflow(pt_mono_ms(), ms > 0 ? ms : 0, &end) ? INT64_MAX : end;
}

/* Wait for work; false when the thread shall end. */
static bool wait_for_work(struct pool *p)
{
	int64_t end = in_ms(p->idle_ms);

	while (!p->queued) {
		bool in_time;

		if (p->stopping)
			return false;
		p->waiting++;
		in_time = pt_cond_wait_ms(&p->wake, &p->lock, end - pt_mono_ms());
		p->waiting--;
		if (!in_time && !p->queued)
			return false;
	}
	return true;
}

static void *slot_thread(void *arg)
{
	struct pool *p = arg;

	(void)pthread_setname_np(pthread_self(), "operation"); /* for ps, top and debuggers */
	pthread_mutex_lock(&p->lock);
	while (wait_for_work(p)) {
		struct work w = p->queue[p->head];

		p->head = (p->head + 1) % p->slots;
		p->queued--;
		pthread_mutex_unlock(&p->lock);
		w.fn(w.arg);
		pthread_mutex_lock(&p->lock);
		p->taken--;
		if (p->stopping)
			pthread_cond_signal(&p->ended);
	}
	p->threads--;
	if (p->stopping)
		pthread_cond_signal(&p->ended);
	pthread_mutex_unlock(&p->lock); /* p may be gone from here on */
	return NULL;
}

static int new_thread(struct pool *p, struct pt_err *err)
{
	sigset_t all, before;
	pthread_t t;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the main thread */
	rc = pthread_create(&t, &p->attr, slot_thread, p);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc) {
		errno = rc;
		return pt_fail_sys(err, PT_E_LIMIT, "start a thread");
	}
	p->threads++;
	return PT_OK;
}

static int thread_submit(struct pt_executor *e, void (*fn)(void *arg), void *arg, struct pt_err *err)
{
	struct pool *p = pt_container_of(e, struct pool, e);
	int rc = PT_OK;

	pthread_mutex_lock(&p->lock);
	if (p->stopping)
		rc = pt_fail(err, PT_E_UNAVAILABLE, "the executor is stopping");
	else if (p->taken == p->slots)
		rc = pt_fail(err, PT_E_LIMIT, "all %u slots are taken", p->slots);
	else if (p->queued >= p->waiting) /* those who wait have work already */
		rc = new_thread(p, err);
	if (rc == 0) {
		p->queue[(p->head + p->queued++) % p->slots] = (struct work) { .fn = fn, .arg = arg };
		p->taken++;
		pthread_cond_signal(&p->wake);
	}
	pthread_mutex_unlock(&p->lock);
	return rc;
}

static unsigned thread_idle(struct pt_executor *e)
{
	struct pool *p = pt_container_of(e, struct pool, e);
	unsigned n;

	pthread_mutex_lock(&p->lock);
	n = p->slots - p->taken;
	pthread_mutex_unlock(&p->lock);
	return n;
}

static void pool_free(struct pool *p)
{
	pthread_attr_destroy(&p->attr);
	pthread_cond_destroy(&p->wake);
	pthread_cond_destroy(&p->ended);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static unsigned thread_stop(struct pt_executor *e, int64_t most_ms)
{
	struct pool *p = pt_container_of(e, struct pool, e);
	int64_t end = in_ms(most_ms);
	unsigned left;

	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	pthread_cond_broadcast(&p->wake);
	while (p->taken && pt_cond_wait_ms(&p->ended, &p->lock, end - pt_mono_ms()))
		;
	left = p->taken;
	while (!left && p->threads) /* they have nothing left to do but end */
		pthread_cond_wait(&p->ended, &p->lock);
	pthread_mutex_unlock(&p->lock);
	if (!left)
		pool_free(p);
	return left;
}

static const struct pt_executor_ops thread_ops = {
	.name = "thread", .submit = thread_submit, .idle = thread_idle, .stop = thread_stop
};

int pt_executor_thread_idle(struct pt_executor **ret, unsigned slots, int64_t idle_ms, struct pt_err *err)
{
	struct pool *p;

	if (!slots)
		return pt_fail(err, PT_E_INVALID, "an executor needs at least one slot");
	p = calloc(1, sizeof(*p) + slots * sizeof(p->queue[0]));
	if (!p)
		return pt_fail_oom(err);
	p->e.ops = &thread_ops;
	p->slots = slots;
	p->idle_ms = idle_ms;
	pthread_mutex_init(&p->lock, NULL);
	pt_cond_init(&p->wake);
	pt_cond_init(&p->ended);
	pthread_attr_init(&p->attr);
	pthread_attr_setstacksize(&p->attr, STACK_BYTES);
	pthread_attr_setdetachstate(&p->attr, PTHREAD_CREATE_DETACHED);
	*ret = &p->e;
	return PT_OK;
}

int pt_executor_thread(struct pt_executor **ret, unsigned slots, struct pt_err *err)
{
	return pt_executor_thread_idle(ret, slots, IDLE_MS, err);
}
