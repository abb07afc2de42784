/* The one database writer: a thread that runs jobs inside write transactions and commits them in groups, so that many
 * acknowledgements share one fsync.  Each job is undone alone when it fails.  done() runs on the writer thread after the commit
 * (or its failure) and must not block. */
#ifndef PT_DB_WRITER_H
#define PT_DB_WRITER_H
#include "base/metric.h"
#include "db/db.h"

struct pt_writer;
struct pt_write_job {
	struct pt_write_job *next; /* the writer's */
	int rc;                    /* the writer's: what run() returned */
	struct pt_err err;         /* why the job failed, or the commit */
	/* Runs inside the group's transaction, on the writer thread.  < 0 undoes this job's writes. */
	int (*run)(struct pt_tx *tx, struct pt_write_job *job, struct pt_err *err);
	/* rc: 0 (or what run() returned above 0) = committed (durable); < 0 = what run() or the commit returned, job->err says
	 * why.  Owns the job from here.  May submit jobs, must not stop the writer. */
	void (*done)(struct pt_write_job *job, int rc);
};
/* All run on the writer thread; each may be NULL.
 * before_commit runs once per group, after its jobs, inside its transaction: dispatch happens there.  < 0 undoes its own writes
 * only, and is logged.
 * after_commit runs after the done()s of a group, and after a tick: what was prepared inside the transaction is now durable, or
 * (committed = false) never happened.
 * tick runs inside a transaction of its own about every tick_ms; < 0 rolls it back, and is logged.  A tick that wrote something
 * is followed by a group, so that before_commit sees what it changed. */
struct pt_writer_hooks {
	void *arg;
	int (*before_commit)(void *arg, struct pt_tx *tx, struct pt_err *err);
	void (*after_commit)(void *arg, bool committed);
	int (*tick)(void *arg, struct pt_tx *tx, struct pt_err *err);
	int64_t tick_ms;
};
struct pt_writer_stats {
	uint64_t groups, jobs; /* groups with or without jobs; jobs done */
	uint64_t commits;      /* that succeeded and had something to write, ticks included */
	int64_t max_group;
};
int pt_writer_start(struct pt_writer **ret, struct pt_db *db, const struct pt_writer_hooks *hooks,
		    struct pt_err *err) PT_MUSTCHECK;
void pt_writer_submit(struct pt_writer *w, struct pt_write_job *job); /* any thread; never fails, never blocks for long */
/* The same for n > 0 jobs, job[i] in the order of the array: they go into one group unless it has no room for all of them. */
void pt_writer_submit_all(struct pt_writer *w, struct pt_write_job *const *jobs, size_t n);
extern const struct pt_buckets pt_commit_buckets;
const struct pt_histogram *pt_writer_commit_time(const struct pt_writer *w); /* of those commits; lives as long as w */
size_t pt_writer_backlog(struct pt_writer *w);                        /* jobs submitted and not yet done */
void pt_writer_stats(struct pt_writer *w, struct pt_writer_stats *ret);
/* Runs what was submitted (no submit may come later), then ends and frees w.  NULL is fine. */
void pt_writer_stop(struct pt_writer *w);
#endif
