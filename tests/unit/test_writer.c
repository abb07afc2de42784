/* Group commit, on a fake database whose transactions are a list of numbers, so that every failure can be made. */
#include "base/clock.h"
#include "base/log.h"
#include "db/writer.h"
#include "../tap.h"
#include <pthread.h>
#include <stdatomic.h>

enum { MAX = 20000, THREADS = 8, PER_THREAD = 1000 };

/* Numbers written in order; those below n_durable are committed. */
struct fake {
	struct pt_db db;
	struct pt_tx tx;
	pthread_mutex_t lock;
	pthread_cond_t gate;
	bool closed;                            /* commits wait while the gate is closed */
	int waiting;                            /* commits at the gate */
	int fail_begin, fail_commit, fail_undo; /* so many times from now */
	int numbers[MAX], n, n_durable, mark;
};

static struct fake *fake_of(struct pt_tx *tx)
{
	return pt_container_of(tx, struct fake, tx);
}

static int fake_begin(struct pt_db *db, bool write, struct pt_tx **ret, struct pt_err *err)
{
	struct fake *f = pt_container_of(db, struct fake, db);

	if (f->fail_begin && f->fail_begin--)
		return pt_fail(err, PT_E_UNAVAILABLE, "begin fails");
	f->tx = (struct pt_tx) { .db = db, .write = write };
	*ret = &f->tx;
	return PT_OK;
}

static void fake_rollback(struct pt_tx *tx)
{
	fake_of(tx)->n = fake_of(tx)->n_durable;
}

static int fake_commit(struct pt_tx *tx, struct pt_err *err)
{
	struct fake *f = fake_of(tx);
	int rc = PT_OK;

	pthread_mutex_lock(&f->lock);
	f->waiting++;
	pthread_cond_broadcast(&f->gate);
	while (f->closed)
		pthread_cond_wait(&f->gate, &f->lock);
	f->waiting--;
	if (f->fail_commit && f->fail_commit--) {
		f->n = f->n_durable;
		rc = pt_fail(err, PT_E_IO, "disk full");
	}
	f->n_durable = f->n;
	pthread_mutex_unlock(&f->lock);
	return rc;
}

static int fake_mark(struct pt_tx *tx, struct pt_err *err)
{
	fake_of(tx)->mark = fake_of(tx)->n;
	return PT_OK;
}

static int fake_undo(struct pt_tx *tx, struct pt_err *err)
{
	struct fake *f = fake_of(tx);

	if (f->fail_undo && f->fail_undo--)
		return pt_fail(err, PT_E_IO, "undo fails");
	f->n = f->mark;
	return PT_OK;
}

static const struct pt_db_ops fake_ops = {
	.name = "fake",
	.begin = fake_begin,
	.commit = fake_commit,
	.rollback = fake_rollback,
	.mark = fake_mark,
	.undo = fake_undo,
};

static void add(struct pt_tx *tx, int number)
{
	struct fake *f = fake_of(tx);

	pt_assert(f->n < MAX);
	f->numbers[f->n++] = number;
	tx->dirty = true;
}

static bool durable(struct fake *f, int number)
{
	for (int i = 0; i < f->n_durable; i++)
		if (f->numbers[i] == number)
			return true;
	return false;
}

/* Close or open the gate; wait until a commit stands at it. */
static void gate(struct fake *f, bool closed)
{
	pthread_mutex_lock(&f->lock);
	f->closed = closed;
	pthread_cond_broadcast(&f->gate);
	pthread_mutex_unlock(&f->lock);
}
static void await_commit(struct fake *f)
{
	pthread_mutex_lock(&f->lock);
	while (!f->waiting)
		pthread_cond_wait(&f->gate, &f->lock);
	pthread_mutex_unlock(&f->lock);
}

struct job {
	struct pt_write_job base;
	struct fake *fake;
	struct pt_writer *resubmit; /* done() submits it once more */
	int number, fail, rc;
	bool was_durable;
	char msg[64];
	atomic_bool done;
};

static int run(struct pt_tx *tx, struct pt_write_job *base, struct pt_err *err)
{
	struct job *j = pt_container_of(base, struct job, base);

	add(tx, j->number);
	return j->fail ? pt_fail(err, (enum pt_code)j->fail, "job %d fails", j->number) : PT_OK;
}

static void done(struct pt_write_job *base, int rc)
{
	struct job *j = pt_container_of(base, struct job, base);
	struct pt_writer *again = pt_steal(&j->resubmit);

	j->rc = rc;
	j->was_durable = durable(j->fake, j->number);
	snprintf(j->msg, sizeof(j->msg), "%.60s", rc < 0 ? base->err.msg : "");
	if (again) {
		j->number++;
		pt_writer_submit(again, base);
	} else {
		atomic_store(&j->done, true);
	}
}

static struct job *submit(struct pt_writer *w, struct job *j, struct fake *f, int number, int fail)
{
	j->base.run = run;
	j->base.done = done;
	j->fake = f;
	j->number = number;
	j->fail = fail;
	atomic_init(&j->done, false);
	pt_writer_submit(w, &j->base);
	return j;
}

struct hooked {
	atomic_int before, after_ok, after_failed, ticks;
	int fail_before, fail_tick; /* so many times from now */
};

static int before_commit(void *arg, struct pt_tx *tx, struct pt_err *err)
{
	struct hooked *h = arg;

	add(tx, 1000000 + atomic_fetch_add(&h->before, 1));
	return h->fail_before && h->fail_before-- ? pt_fail(err, PT_E_INTERNAL, "dispatch fails") : PT_OK;
}

static void after_commit(void *arg, bool committed)
{
	struct hooked *h = arg;

	atomic_fetch_add(committed ? &h->after_ok : &h->after_failed, 1);
}

static int tick(void *arg, struct pt_tx *tx, struct pt_err *err)
{
	struct hooked *h = arg;

	add(tx, 2000000 + atomic_fetch_add(&h->ticks, 1));
	return h->fail_tick && h->fail_tick-- ? pt_fail(err, PT_E_INTERNAL, "tick fails") : PT_OK;
}

static void fake_init(struct fake *f)
{
	memset(f, 0, sizeof(*f));
	f->db.ops = &fake_ops;
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->gate, NULL);
}

static struct fake f;
static struct job jobs[THREADS * PER_THREAD];
static struct pt_writer *w;
static struct pt_err err;

static void start(const struct pt_writer_hooks *hooks)
{
	fake_init(&f);
	memset(jobs, 0, sizeof(jobs));
	pt_assert(pt_writer_start(&w, &f.db, hooks, &err) == 0);
}

static void *submit_many(void *arg)
{
	struct job *first = arg;

	for (int i = 0; i < PER_THREAD; i++)
		submit(w, first + i, &f, (int)(first - jobs) + i, i % 10 == 3 ? PT_E_CONFLICT : 0);
	return NULL;
}

static void test_threads(void)
{
	pthread_t t[THREADS];
	struct pt_writer_stats s;
	int bad = 0, failed = 0;
	bool seen[THREADS * PER_THREAD] = { false };

	start(NULL);
	for (int i = 0; i < THREADS; i++)
		pt_assert(pthread_create(&t[i], NULL, submit_many, &jobs[i * PER_THREAD]) == 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	while (pt_writer_backlog(w))
		sched_yield();
	pt_writer_stats(w, &s);
	pt_writer_stop(w);
	for (int i = 0; i < f.n_durable; i++)
		seen[f.numbers[i]] = true;
	for (int i = 0; i < THREADS * PER_THREAD; i++) {
		struct job *j = &jobs[i];

		bad += !atomic_load(&j->done) || j->rc != j->fail || seen[i] != (j->fail == 0) ||
		       j->was_durable != (j->fail == 0);
		failed += j->fail != 0;
	}
	is_int(bad, 0, "jobs of %d threads: durable when done() is told, failed ones undone alone", THREADS);
	is_int(f.n_durable, THREADS * PER_THREAD - failed, "nothing else is there");
	is_int(s.jobs, THREADS * PER_THREAD, "statistics: jobs");
	ok(s.groups == s.commits && s.groups <= s.jobs && s.max_group <= 512, "%llu groups, the largest of %lld",
	   (unsigned long long)s.groups, (long long)s.max_group);
}

static void test_groups(void)
{
	struct pt_writer_stats s;
	int early = 0, order = 0;

	start(NULL);
	gate(&f, true);
	submit(w, &jobs[0], &f, 0, 0);
	await_commit(&f);
	for (int i = 1; i <= 1000; i++)
		submit(w, &jobs[i], &f, i, 0);
	for (int i = 0; i <= 1000; i++)
		early += atomic_load(&jobs[i].done);
	is_int(early, 0, "no done() before the commit");
	is_int(pt_writer_backlog(w), 1001, "backlog");
	gate(&f, false);
	while (pt_writer_backlog(w))
		sched_yield();
	pt_writer_stats(w, &s);
	pt_writer_stop(w);
	is_int(s.groups, 3, "what came during one commit shares the next ones");
	is_int(s.max_group, 512, "a group has a bound");
	for (int i = 0; i <= 1000; i++)
		order += f.numbers[i] != i;
	is_int(order, 0, "jobs run in the order of submission");
}

static void test_submit_all(void)
{
	struct pt_write_job *list[300];
	struct pt_writer_stats s;
	int order = 0;

	start(NULL);
	for (int i = 0; i < 300; i++) {
		jobs[i] = (struct job) { .base.run = run, .base.done = done, .fake = &f, .number = i };
		list[i] = &jobs[i].base;
	}
	pt_writer_submit_all(w, list, 300);
	while (pt_writer_backlog(w))
		sched_yield();
	pt_writer_stats(w, &s);
	pt_writer_stop(w);
	is_int(s.groups, 1, "jobs submitted at once are one group");
	is_int(s.max_group, 300, "all of them");
	for (int i = 0; i < 300; i++)
		order += f.numbers[i] != i || !jobs[i].was_durable;
	is_int(order, 0, "and run in order, and end after the commit");
}

static void test_failures(void)
{
	struct hooked h = { .fail_before = 0 };
	const struct pt_writer_hooks hooks = { .arg = &h, .before_commit = before_commit, .after_commit = after_commit };

	start(&hooks);
	gate(&f, true);
	submit(w, &jobs[0], &f, 0, 0);
	await_commit(&f);
	f.fail_commit = 1; /* of the commit at the gate */
	submit(w, &jobs[1], &f, 1, 0);
	submit(w, &jobs[2], &f, 2, PT_E_STALE);
	gate(&f, false);
	while (!atomic_load(&jobs[2].done))
		sched_yield();
	ok(jobs[0].rc == PT_E_IO && !jobs[0].was_durable, "a failed commit reaches its job");
	is_str(jobs[0].msg, "disk full", "with the reason");
	ok(jobs[1].rc == 0 && jobs[1].was_durable, "the next group is committed");
	ok(jobs[2].rc == PT_E_STALE && !jobs[2].was_durable, "without its failed job");
	pt_writer_stop(w);
	ok(h.before == 2 && h.after_ok == 1 && h.after_failed == 1, "hooks: before %d, after %d, after failure %d", h.before,
	   h.after_ok, h.after_failed);
	ok(durable(&f, 1000001) && !durable(&f, 1000000), "what before_commit wrote shares the fate of its group");

	/* One group of two good jobs and a failing one: each way to lose the group. */
	for (int way = 0; way < 4; way++) {
		static const int want[4] = { PT_E_IO, PT_E_IO, PT_E_UNAVAILABLE, 0 };

		memset(&h, 0, sizeof(h));
		start(&hooks);
		gate(&f, true);
		submit(w, &jobs[0], &f, 0, 0);
		await_commit(&f);
		submit(w, &jobs[1], &f, 1, 0);
		submit(w, &jobs[2], &f, 2, PT_E_STALE);
		submit(w, &jobs[3], &f, 3, 0);
		pthread_mutex_lock(&f.lock); /* the thread is at the gate: nobody else looks */
		f.fail_commit = way == 0 ? 2 : 0;
		f.fail_undo = way == 1;
		f.fail_begin = way == 2;
		h.fail_before = way == 3;
		pthread_mutex_unlock(&f.lock);
		gate(&f, false);
		while (pt_writer_backlog(w) || !atomic_load(&jobs[3].done))
			sched_yield();
		ok(jobs[1].rc == want[way] && jobs[3].rc == want[way] && jobs[1].was_durable == !want[way] &&
			   jobs[3].was_durable == !want[way],
		   "way %d: good jobs of the group get %d: %s", way, jobs[1].rc, jobs[1].msg);
		ok(jobs[2].rc == (way == 2 ? PT_E_UNAVAILABLE : PT_E_STALE) && !jobs[2].was_durable, "the bad one its own");
		submit(w, &jobs[4], &f, 4, 0);
		pt_writer_stop(w);
		ok(jobs[4].rc == 0 && jobs[4].was_durable && durable(&f, 4), "and the writer goes on");
		ok(way != 3 || (!durable(&f, 1000001) && durable(&f, 1000000) && h.after_ok == 3),
		   "a failing hook loses its own writes only");
	}
}

static void test_hooks(void)
{
	struct hooked h = { .fail_tick = 1 };
	const struct pt_writer_hooks hooks = {
		.arg = &h, .before_commit = before_commit, .after_commit = after_commit, .tick = tick, .tick_ms = 5
	};
	int64_t end = pt_mono_ms() + 10000;

	start(&hooks);
	while (atomic_load(&h.ticks) < 4 && pt_mono_ms() < end)
		sched_yield();
	pt_writer_stop(w);
	ok(h.ticks >= 4 && !durable(&f, 2000000) && durable(&f, 2000001) && durable(&f, 2000002),
	   "ticks come; a failed one is rolled back");
	ok(h.after_failed == 1 && h.before >= 2 && h.after_ok >= 5,
	   "a tick that wrote is followed by a group: before %d, after %d", h.before, h.after_ok);
}

static void test_stop(void)
{
	int bad = 0;

	start(NULL);
	gate(&f, true);
	submit(w, &jobs[0], &f, 0, 0);
	await_commit(&f);
	jobs[600].resubmit = w;
	for (int i = 1; i < 2000; i++)
		submit(w, &jobs[i], &f, i == 600 ? 5000 : i, 0);
	gate(&f, false);
	pt_writer_stop(w);
	for (int i = 0; i < 2000; i++)
		bad += !atomic_load(&jobs[i].done) || !jobs[i].was_durable;
	is_int(bad, 0, "stop runs everything that was submitted");
	ok(durable(&f, 5000) && durable(&f, 5001), "also what a done() submitted meanwhile");
	pt_writer_stop(NULL);
}

int main(void)
{
	pt_assert(pt_log_init("error", "plain", 0, &err) == 0); /* failing hooks are logged as warnings */
	test_threads();
	test_groups();
	test_submit_all();
	test_failures();
	test_hooks();
	test_stop();
	return tap_end();
}
