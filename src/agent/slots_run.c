/* One attempt on its executor thread: run the operation, say how it ended, and store that, whatever it takes.  The table that the attempt
 * stands in is that of slots.c. */
#include "agent/slots_int.h"
#include "base/clock.h"
#include "base/log.h"
#include <malloc.h>

enum {
	BIG_BODY = 1024 * 1024, /* results above this give memory back to the system afterwards */
};

/* How an attempt that failed with err ended. */
static const char *status_of(const struct pt_attempt *a, const struct pt_err *err)
{
	struct pt_err why = { 0 };
	int code = pt_cancel_check(&a->cancel, &why);

	if (code == PT_E_CANCELLED)
		return "cancelled";
	if (code == PT_E_DEADLINE && (a->cancelled || pt_mono_ms() >= a->deadline_ms))
		return "expired";
	if (err->code == PT_E_CANCELLED)
		return "cancelled";
	return "failed";
}

/* Which of the two limits it was: the token knows only the earlier one. */
static void name_limit(const struct pt_attempt *a, const char *status, struct pt_err *err)
{
	if (err->code != PT_E_DEADLINE)
		return;
	if (strcmp(status, "expired") == 0) {
		(void)pt_fail(err, PT_E_DEADLINE, "the operation's deadline passed while attempt %lld ran",
			      (long long)a->key.attempt);
		(void)pt_hint(err, "submit it with a later deadline_s");
	} else {
		(void)pt_fail(err, PT_E_DEADLINE, "the time limit of %lld ms has passed", (long long)a->lease.limits.timeout_ms);
		(void)pt_hint(err, "give it more time (limits.timeout_ms), or ask for less");
	}
}

static int set_status(struct pt_result_head *h, const char *status, const struct pt_err *why, struct pt_err *err)
{
	h->status = strdup(status);
	if (why)
		pt_error_doc_from(&h->error, why);
	return h->status && (!why || (h->error.code && h->error.message)) ? PT_OK : pt_fail_oom(err);
}

/* A head that says only what went wrong. */
static int head_failed(struct pt_attempt *a, struct pt_result_head *h, const char *status, const struct pt_err *why,
		       struct pt_err *err)
{
	pt_shape_release(&pt_result_head_shape, h);
	*h = (struct pt_result_head) { .affected = -1, .started_at = a->started_at, .finished_at = pt_wall_ms() };
	memcpy(h->instance, a->agent->instance, sizeof(h->instance));
	return set_status(h, status, why, err);
}

/* Store the result, whatever it takes.  A full spool or disk is waited for, within the operation's time: what was done is not reported
 * as failed because its gateway is away.  After that it gets the head alone; a disk that refuses even this is tried again until
 * the agent has to leave.  False: given up. */
static bool store(struct pt_attempt *a, struct pt_spool_writer *w, struct pt_result_head *head)
{
	struct pt_slots *s = &a->agent->slots;
	struct pt_backoff backoff = PT_BACKOFF_INIT(250, 30000, 0);
	struct pt_err err = { 0 }, e = { 0 };
	bool said = false, bare = false, stop;

	for (;;) {
		int64_t until;
		int rc = pt_spool_commit(w, head, &err);

		if (rc == 0)
			return true;
		if (!bare && rc != PT_E_IO &&
		    (rc != PT_E_LIMIT || !pt_spool_will_fit(w) || pt_cancel_check(&a->cancel, &e) < 0)) {
			bare = true; /* say so in place of the result */
			pt_spool_abandon_body(w);
			(void)pt_err_wrap(&err, rc, "the result could not be stored");
			if (head_failed(a, head, "failed", &err, &e) == 0)
				continue;
		}
		if (!said)
			pt_log_err(PT_LOG_ERROR, "a result cannot be stored; the agent keeps trying", &err, "operation",
				   a->key.operation, "attempt", pt_num(a->key.attempt));
		said = true;
		until = pt_mono_ms() + pt_backoff_fail(&backoff, 100);
		pthread_mutex_lock(&s->lock);
		while (!s->abort && pt_mono_ms() < until)
			(void)pt_cond_wait_ms(&s->changed, &s->lock, until - pt_mono_ms());
		stop = s->abort;
		pthread_mutex_unlock(&s->lock);
		if (stop)
			return false;
	}
}

/* Run the operation and leave what came of it in w and head. */
static void execute(struct pt_attempt *a, struct pt_spool_writer *w, struct pt_result_head *head)
{
	struct pt_op_run run = { .lease = &a->lease,
				 .cancel = &a->cancel,
				 .agent = &a->agent->view,
				 .body = pt_spool_body(w),
				 .head = head,
				 .rows = &a->rows,
				 .bytes = &a->bytes };
	struct pt_err err = { 0 }, e = { 0 };
	const char *status;
	int rc = pt_cancel_check(&a->cancel, &err);

	if (rc == 0)
		rc = pt_op_execute(&run, &err);
	if (rc == 0) {
		memcpy(head->instance, a->agent->instance, sizeof(head->instance));
		head->started_at = a->started_at;
		head->finished_at = pt_wall_ms();
		rc = set_status(head, "succeeded", NULL, &err);
	}
	if (rc == 0)
		return;
	pt_spool_abandon_body(w);
	status = status_of(a, &err);
	name_limit(a, status, &err);
	/* out of memory: pt_spool_commit() refuses, store() tries again */
	if (head_failed(a, head, status, &err, &e) < 0)
		pt_log_err(PT_LOG_ERROR, "no memory for a result", &e, "operation", a->key.operation, "attempt",
			   pt_num(a->key.attempt));
}

/* The last of the two lines that each attempt leaves in the log.  They say what the result says. */
static void log_end(const struct pt_attempt *a, const struct pt_result_head *head, bool stored)
{
	bool good = head->status && strcmp(head->status, "succeeded") == 0;

	pt_info(!stored ? "operation given back"
		: good  ? "operation finished"
			: "operation ended without success",
		"operation", a->key.operation, "attempt", pt_num(a->key.attempt), "status", head->status, "ms",
		pt_num(head->finished_at - head->started_at), "rows", head->columns.n ? pt_num(head->rows) : NULL, "code",
		head->error.code, "error", head->error.message);
}

bool pt_attempt_run(struct pt_attempt *a)
{
	struct pt_agent *ag = a->agent;
	struct pt_slots *s = &ag->slots;
	struct pt_spool_writer *w = NULL;
	struct pt_result_head head = { 0 };
	struct pt_err err = { 0 };
	bool keep, big, stored;

	if (pt_spool_begin(ag->spool, a->key.operation, a->key.attempt, &w, &err) < 0) {
		pt_log_err(PT_LOG_ERROR, "no memory for an operation; it is given back", &err, "operation", a->key.operation,
			   "attempt", pt_num(a->key.attempt));
		pthread_mutex_lock(&s->lock);
		a->started_at = 0;
		pthread_mutex_unlock(&s->lock);
		return false;
	}
	pt_info("operation started", "operation", a->key.operation, "attempt", pt_num(a->key.attempt), "type", a->lease.type);
	execute(a, w, &head);
	pthread_mutex_lock(&s->lock);
	keep = !a->dropped && !(a->give_back && head.status && strcmp(head.status, "cancelled") == 0);
	if (keep)
		a->state = PT_ATTEMPT_STORING;
	pthread_mutex_unlock(&s->lock);
	big = a->bytes > BIG_BODY;
	stored = keep && store(a, w, &head);
	if (stored)
		pt_count_result(ag, a->lease.type, head.status, head.finished_at - head.started_at);
	log_end(a, &head, stored);
	pt_spool_writer_free(w);
	pt_shape_release(&pt_result_head_shape, &head);
	if (big)
		(void)malloc_trim(0);
	return stored;
}
