/* Group commit.  The thread takes whatever is queued, runs it inside one transaction and commits once: while one commit waits
 * for the disk the next group gathers by itself, so there is no delay to tune.  Groups are bounded, so that one job's answer
 * never waits for thousands.
 *
 * `lock` guards the queue, the flags and the statistics; jobs in a group belong to the thread. */
#include "db/writer.h"
#include "base/clock.h"
#include "base/log.h"
#include "os/cond.h"
#include <stdatomic.h>

enum { MAX_GROUP = 512 };

struct job_list {
	struct pt_write_job *first, **last;
};
struct pt_writer {
	struct pt_db *db;
	struct pt_writer_hooks hooks;
	pthread_t thread;
	atomic_size_t backlog;
	int64_t next_tick_ms; /* the thread's */
	bool group_due;       /* the thread's: a tick wrote something, before_commit shall see it */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct job_list queue;
	bool waiting, stopping;
	struct pt_writer_stats stats;
	struct pt_histogram commit_time;
};

const struct pt_buckets pt_commit_buckets = { { 250, 500, 1000, 2500, 5000, 10000, 25000, 100000, 250000, 1000000, 5000000 },
					      11 };

/* Sleep until there is something to do.  Takes the whole queue; returns whether a group shall run; *ret_end = all is done (a
 * group that is due does not keep a stopped writer alive). */
static bool await_work(struct pt_writer *w, struct pt_write_job **ret_jobs, bool *ret_end)
{
	bool due = w->group_due;

	pthread_mutex_lock(&w->lock);
	while (!w->queue.first && !due && !w->stopping) {
		int64_t wait_ms = w->next_tick_ms - pt_mono_ms();

		if (w->hooks.tick && wait_ms <= 0)
			break;
		w->waiting = true;
		if (w->hooks.tick)
			(void)pt_cond_wait_ms(&w->wake, &w->lock, wait_ms); /* the loop looks why it returned */
		else
			pthread_cond_wait(&w->wake, &w->lock);
		w->waiting = false;
	}
	*ret_jobs = w->queue.first;
	w->queue = (struct job_list) { .last = &w->queue.first };
	w->group_due = false;
	*ret_end = w->stopping && !*ret_jobs;
	pthread_mutex_unlock(&w->lock);
	return *ret_jobs || (due && !*ret_end);
}

/* A group's transaction.  broken < 0: an undo failed, so nothing of the group can be kept; err says why. */
struct group {
	struct pt_tx *tx;
	int broken;
	struct pt_err err;
};

/* Run one step of a group so that its failure undoes it alone. */
static int run_alone(struct group *g, int (*step)(void *arg, struct pt_tx *tx, struct pt_err *err), void *arg, struct pt_err *err)
{
	int rc = pt_tx_mark(g->tx, err);

	if (rc < 0)
		return rc;
	rc = step(arg, g->tx, err);
	if (rc < 0)
		g->broken = pt_tx_undo(g->tx, &g->err);
	return rc;
}

static int run_job(void *arg, struct pt_tx *tx, struct pt_err *err)
{
	struct pt_write_job *job = arg;

	return job->run(tx, job, err);
}

static int commit(struct pt_writer *w, struct pt_tx *tx, struct pt_err *err)
{
	bool dirty = tx->dirty;
	int64_t start = pt_mono_ns();
	int rc = pt_tx_commit(tx, err);

	if (rc < 0 || !dirty)
		return rc;
	pthread_mutex_lock(&w->lock);
	w->stats.commits++;
	pthread_mutex_unlock(&w->lock);
	pt_histogram_add(&w->commit_time, &pt_commit_buckets, (pt_mono_ns() - start) / 1000);
	return rc;
}

/* Everything of a group inside its transaction, and the commit.  < 0: none of it is acknowledged; see pt_db_undone(). */
static int commit_group(struct pt_writer *w, struct pt_write_job *jobs, struct pt_err *err)
{
	struct pt_err hook_err = { 0 };
	struct group g = { 0 };
	int rc = pt_db_begin(w->db, true, &g.tx, err);

	if (rc < 0)
		return rc;
	for (struct pt_write_job *j = jobs; j && g.broken >= 0; j = j->next)
		j->rc = run_alone(&g, run_job, j, &j->err);
	if (g.broken >= 0 && w->hooks.before_commit && run_alone(&g, w->hooks.before_commit, w->hooks.arg, &hook_err) < 0)
		pt_log_err(PT_LOG_WARN, "work before a commit failed", &hook_err);
	if (g.broken >= 0)
		return commit(w, g.tx, err);
	pt_tx_rollback(g.tx);
	*err = g.err;
	return g.broken;
}

/* The first n jobs of the list are one group. */
static void run_group(struct pt_writer *w, struct pt_write_job *jobs, int64_t n)
{
	struct pt_err err = { 0 };
	int rc;

	for (struct pt_write_job *j = jobs; j; j = j->next) {
		j->rc = 0;
		j->err.code = PT_OK;
	}
	rc = commit_group(w, jobs, &err);
	pthread_mutex_lock(&w->lock);
	w->stats.groups++;
	w->stats.jobs += (uint64_t)n;
	if (w->stats.max_group < n)
		w->stats.max_group = n;
	pthread_mutex_unlock(&w->lock);
	while (jobs) {
		struct pt_write_job *j = jobs;

		jobs = j->next; /* done() owns the job */
		if (rc < 0 && j->rc >= 0) {
			j->rc = rc;
			j->err = err;
		}
		atomic_fetch_sub(&w->backlog, 1);
		j->done(j, j->rc);
	}
	if (w->hooks.after_commit)
		w->hooks.after_commit(w->hooks.arg, rc >= 0);
}

static void run_tick(struct pt_writer *w)
{
	struct pt_err err = { 0 };
	struct pt_tx *tx = NULL;
	bool dirty = false;
	int rc;

	if (!w->hooks.tick || pt_mono_ms() < w->next_tick_ms)
		return;
	rc = pt_db_begin(w->db, true, &tx, &err);
	if (rc >= 0) {
		rc = w->hooks.tick(w->hooks.arg, tx, &err);
		dirty = tx->dirty;
		if (rc >= 0)
			rc = commit(w, tx, &err);
		else
			pt_tx_rollback(tx);
	}
	if (rc < 0)
		pt_log_err(PT_LOG_WARN, "the database's periodic work failed", &err);
	if (w->hooks.after_commit)
		w->hooks.after_commit(w->hooks.arg, rc >= 0);
	if (rc >= 0 && dirty)
		w->group_due = true;
	w->next_tick_ms = pt_mono_ms() + w->hooks.tick_ms;
}

static void *writer_main(void *arg)
{
	struct pt_writer *w = arg;
	struct pt_write_job *jobs;
	bool end = false;

	(void)pthread_setname_np(pthread_self(), "writer"); /* for ps, top, debuggers and bench/run */
	while (!end) {
		bool group = await_work(w, &jobs, &end);

		while (group) {
			struct pt_write_job *first = jobs, **cut = &jobs;
			int64_t n = 0;

			for (; *cut && n < MAX_GROUP; n++)
				cut = &(*cut)->next;
			jobs = *cut;
			if (first)
				*cut = NULL; /* with first = NULL cut is the list's own head */
			run_group(w, first, n);
			group = jobs != NULL;
			run_tick(w);
		}
		if (!end)
			run_tick(w);
	}
	return NULL;
}

int pt_writer_start(struct pt_writer **ret, struct pt_db *db, const struct pt_writer_hooks *hooks, struct pt_err *err)
{
	struct pt_writer *w = calloc(1, sizeof(*w));
	int e;

	if (!w)
		return pt_fail_oom(err);
	pt_assert(!hooks || !hooks->tick || hooks->tick_ms > 0);
	w->db = db;
	w->hooks = hooks ? *hooks : (struct pt_writer_hooks) { 0 };
	w->next_tick_ms = pt_mono_ms() + w->hooks.tick_ms;
	w->queue.last = &w->queue.first;
	pthread_mutex_init(&w->lock, NULL);
	pt_cond_init(&w->wake);
	e = pthread_create(&w->thread, NULL, writer_main, w);
	if (e) {
		pthread_mutex_destroy(&w->lock);
		pthread_cond_destroy(&w->wake);
		free(w);
		errno = e;
		return pt_fail_sys(err, PT_E_UNAVAILABLE, "start the database's writer thread");
	}
	*ret = w;
	return PT_OK;
}

void pt_writer_submit(struct pt_writer *w, struct pt_write_job *job)
{
	pt_writer_submit_all(w, &job, 1);
}

void pt_writer_submit_all(struct pt_writer *w, struct pt_write_job *const *jobs, size_t n)
{
	atomic_fetch_add(&w->backlog, n);
	pthread_mutex_lock(&w->lock);
	for (size_t i = 0; i < n; i++) {
		jobs[i]->next = NULL;
		*w->queue.last = jobs[i];
		w->queue.last = &jobs[i]->next;
	}
	if (w->waiting) { /* once is enough; inside the lock, because the job's done() may lead to the end of w */
		w->waiting = false;
		pthread_cond_signal(&w->wake);
	}
	pthread_mutex_unlock(&w->lock);
}

size_t pt_writer_backlog(struct pt_writer *w)
{
	return atomic_load(&w->backlog);
}

void pt_writer_stats(struct pt_writer *w, struct pt_writer_stats *ret)
{
	pthread_mutex_lock(&w->lock);
	*ret = w->stats;
	pthread_mutex_unlock(&w->lock);
}

const struct pt_histogram *pt_writer_commit_time(const struct pt_writer *w)
{
	return &w->commit_time;
}

void pt_writer_stop(struct pt_writer *w)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
	(void)pthread_join(w->thread, NULL); /* fails for no thread of ours */
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->wake);
	free(w);
}
