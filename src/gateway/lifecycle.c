/* The life of an operation: every change of its state is made here, on the writer's thread, inside the writer's transaction.
 *
 *   queued ──lease──> leased ──started──> running ──result──> succeeded | failed | cancelled | expired
 *      ^                 └──give back / lost / failed──┴──> queued again, or failed, or unknown (at-most-once)
 *
 * The columns queue, rank and due follow from the state; nothing else sets them.  Records are read, compared (state, attempt, instance) and
 * written within one transaction of the one writer: that is the compare-and-set. */
#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "gateway/internal.h"
#include <stdio.h>

enum {
	REAP_BATCH = 500,
	RELEASED_AT_ONCE = 5, /* so often it is queued at once, then with a pause: an instance that gives everything back makes no loop */
};

static char *dup_or_null(const char *s)
{
	return s && *s ? strdup(s) : NULL;
}

static void set_text(char **slot, const char *text)
{
	free(*slot);
	*slot = dup_or_null(text);
}

int pt_op_event(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, const char *event, const char *detail,
		struct pt_err *err)
{
	(void)tx;
	op->events++;
	return pt_timeline_add(&op->timeline, pt_gateway_now(g), op->attempt, event, op->attempt ? op->instance : "", detail,
			       err);
}

/* The one place that sets the state and what follows from it. */
static void set_state(struct pt_gateway *g, struct pt_rec_operation *op, enum pt_op_state state, int64_t park_until)
{
	pt_assert(!pt_op_terminal((enum pt_op_state)op->state) || op->created == 0);
	op->state = state;
	if (pt_op_terminal(state)) {
		op->queue = PT_QUEUE_DONE;
		op->finished_at = pt_gateway_now(g);
		op->due = PT_DUE_ENDED + op->finished_at + g->retention_ms;
		pt_count_end(g, op);
		pt_wait_wake(g, op->id);
		return;
	}
	op->due = op->deadline;
	if (state != PT_OP_QUEUED) {
		op->queue = PT_QUEUE_LEASED;
	} else if (park_until > pt_gateway_now(g)) {
		op->queue = PT_QUEUE_PARKED;
		if (park_until < op->due)
			op->due = park_until;
	} else {
		op->queue = PT_QUEUE_READY;
		pt_presence_dirty(g, op->agent);
	}
}

int pt_op_insert(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, const char *input, struct pt_err *err)
{
	struct pt_rec_input in = { .input = (char *)(uintptr_t)input }; /* borrowed */
	char again[PT_ID_SIZE + 16];
	int rc;

	pt_id_copy(in.operation, op->id);
	op->input_bytes = (int64_t)strlen(input);
	set_state(g, op, PT_OP_QUEUED, 0);
	op->created = pt_gateway_now(g);
	op->rank = (9 - op->priority) * PT_RANK_PRIORITY + op->created;
	snprintf(again, sizeof(again), "rerun of %s", op->rerun_of);
	rc = pt_op_event(g, tx, op, "accepted", *op->rerun_of ? again : NULL, err);
	if (rc == 0)
		rc = pt_tx_insert(tx, &pt_operations, op, err);
	if (rc == 0)
		rc = pt_tx_insert(tx, &pt_inputs, &in, err);
	if (rc == 0)
		g->m.submitted++;
	free(op->timeline);
	op->timeline = NULL;
	return rc;
}

static int remove_lease(struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_err *err)
{
	struct pt_rec_lease l = { 0 };
	int rc;

	pt_id_copy(l.instance, op->instance);
	pt_id_copy(l.operation, op->id);
	rc = pt_tx_remove(tx, &pt_leases, &l, err);
	return rc == PT_E_NOT_FOUND ? PT_OK : rc;
}

int pt_op_lease(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, const char *instance, struct pt_err *err)
{
	struct pt_rec_lease l = { 0 };
	int rc;

	pt_assert(op->state == PT_OP_QUEUED && op->queue == PT_QUEUE_READY);
	op->attempt++;
	pt_id_copy(op->instance, instance);
	op->leased_at = pt_gateway_now(g);
	op->started_at = 0;
	set_text(&op->reason, NULL);
	set_state(g, op, PT_OP_LEASED, 0);
	l = (struct pt_rec_lease) { .attempt = op->attempt, .leased_at = op->leased_at, .until = op->leased_at + g->lease_ms };
	pt_id_copy(l.instance, instance);
	pt_id_copy(l.operation, op->id);
	pt_id_copy(l.agent, op->agent);
	if ((rc = pt_tx_insert(tx, &pt_leases, &l, err)) < 0 || (rc = pt_op_event(g, tx, op, "leased", NULL, err)) < 0)
		return rc;
	pt_count_lease(g, op);
	return pt_tx_update(tx, &pt_operations, op, err);
}

int pt_op_note_started(struct pt_gateway *g, struct pt_rec_operation *op, int64_t at, struct pt_err *err)
{
	pt_assert(op->state == PT_OP_LEASED);
	op->started_at = at ? at : pt_gateway_now(g);
	set_state(g, op, PT_OP_RUNNING, 0);
	op->events++;
	return pt_timeline_add(&op->timeline, op->started_at, op->attempt, "started", op->instance, NULL, err);
}

int pt_op_started(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, int64_t at, struct pt_err *err)
{
	int rc = pt_op_note_started(g, op, at, err);

	return rc < 0 ? rc : pt_tx_update(tx, &pt_operations, op, err);
}

int pt_op_finish(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, enum pt_op_state state, const struct pt_err *why,
		 struct pt_err *err)
{
	int rc = op->queue == PT_QUEUE_LEASED ? remove_lease(tx, op, err) : PT_OK;

	if (rc < 0)
		return rc;
	if (why) {
		pt_auto_buf doc = PT_BUF_INIT(4096);
		struct pt_error_doc d = { 0 };

		pt_error_doc_from(&d, why);
		pt_shape_write(&pt_error_doc_shape, &d, &doc);
		pt_shape_release(&pt_error_doc_shape, &d);
		set_text(&op->error, doc.p);
		set_text(&op->reason, why->msg);
	} else {
		set_text(&op->reason, NULL);
	}
	set_state(g, op, state, 0);
	rc = pt_op_event(g, tx, op, pt_op_state_name(state), why ? why->msg : NULL, err);
	if (rc == 0 && pt_op_needs_person(state))
		rc = pt_dead_letter_add(tx, op, err);
	return rc < 0 ? rc : pt_tx_update(tx, &pt_operations, op, err);
}

/* The agent was told to stop and did not deliver: what does that make of the operation? */
static int finish_stopped(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, struct pt_err *err)
{
	struct pt_err why = { 0 };

	if (op->cancel_requested) {
		(void)pt_fail(&why, PT_E_CANCELLED, "cancelled; the agent did not confirm that attempt %lld stopped", (long long)op->attempt);
		return pt_op_finish(g, tx, op, PT_OP_CANCELLED, &why, err);
	}
	(void)pt_fail(&why, PT_E_DEADLINE, "the deadline passed during attempt %lld", (long long)op->attempt);
	return pt_op_finish(g, tx, op, PT_OP_EXPIRED, &why, err);
}

static int end_unknown(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, const char *what, struct pt_err *err)
{
	struct pt_err why = { 0 };

	(void)pt_fail(&why, PT_E_UNAVAILABLE, "attempt %lld %s and may have run; at-most-once operations are not run again",
		      (long long)op->attempt, what);
	(void)pt_hint(&why, "look at the effects, then settle it: postern ctl operations settle %s --decision done|rerun|abandon",
		      op->id);
	return pt_op_finish(g, tx, op, PT_OP_UNKNOWN, &why, err);
}

static int end_lost(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, const char *detail, struct pt_err *err)
{
	struct pt_err why = { 0 };

	(void)pt_fail(&why, PT_E_UNAVAILABLE, "attempt %lld of %lld lost its lease: %s", (long long)pt_retry_tries(op),
		      (long long)op->max_attempts, detail);
	(void)pt_hint(&why, "look at the agent's log around this time: was it killed, or out of memory?");
	return pt_op_finish(g, tx, op, PT_OP_FAILED, &why, err);
}

static int queue_again(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, int64_t pause, const char *reason,
		       struct pt_err *err)
{
	set_text(&op->reason, reason);
	set_state(g, op, PT_OP_QUEUED, pt_gateway_now(g) + pause);
	return pt_tx_update(tx, &pt_operations, op, err);
}

int pt_op_give_back(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, bool lost, const char *detail,
		    struct pt_err *err)
{
	int64_t shift = op->attempt < 6 ? op->attempt : 6, pause = 0;
	char reason[300];
	int rc = remove_lease(tx, op, err);

	pt_presence_dirty(g, op->agent); /* a slot is free */
	if (rc < 0 || (rc = pt_op_event(g, tx, op, lost ? "lease_lost" : "released", detail, err)) < 0)
		return rc;
	g->m.lease_lost += lost;
	if (op->cancel_requested || pt_gateway_now(g) >= op->deadline) {
		op->released += !lost;
		return finish_stopped(g, tx, op, err);
	}
	if (op->at_most_once && (lost || op->state == PT_OP_RUNNING))
		return end_unknown(g, tx, op, lost ? "lost its lease" : "was given back", err);
	if (!lost) {
		if (op->released++ >= RELEASED_AT_ONCE)
			pause = INT64_C(500) << shift; /* 1 s, 2 s, … 32 s */
		snprintf(reason, sizeof(reason), "attempt %lld was given back: %s", (long long)op->attempt, detail);
		return queue_again(g, tx, op, pause, reason, err);
	}
	if ((rc = pt_retry_next(g, op, &(struct pt_retry_cause) { .lost = true }, &pause, err)) < 0)
		return rc;
	if (pause < 0)
		return end_lost(g, tx, op, detail, err);
	snprintf(reason, sizeof(reason), "attempt %lld of %lld was lost: %s", (long long)pt_retry_tries(op),
		 (long long)op->max_attempts, detail);
	return queue_again(g, tx, op, pause, reason, err);
}

/* Results of attempts that ended because somebody wanted so are no failures, and where no time is left the error says more than
 * "expired" would. */
int pt_op_attempt_failed(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, const struct pt_result_head *head,
			 bool *ret_again, struct pt_err *err)
{
	int state = pt_op_state_from(head->status);
	int64_t now = pt_gateway_now(g), pause;
	char reason[600];
	int rc;

	*ret_again = false;
	if (!head->error.code || (state != PT_OP_FAILED && state != PT_OP_EXPIRED) || op->cancel_requested || now >= op->deadline)
		return PT_OK;
	rc = pt_retry_next(g, op, &(struct pt_retry_cause) { .error = &head->error }, &pause, err);
	if (rc < 0 || pause < 0 || now + pause >= op->deadline)
		return rc;
	if (op->queue == PT_QUEUE_LEASED && (rc = remove_lease(tx, op, err)) < 0)
		return rc;
	pt_presence_dirty(g, op->agent);
	*ret_again = true;
	g->m.attempts_failed++;
	snprintf(reason, sizeof(reason), "attempt %lld of %lld failed: %.500s", (long long)pt_retry_tries(op),
		 (long long)op->max_attempts, head->error.message ? head->error.message : head->error.code);
	rc = pt_op_event(g, tx, op, "attempt_failed", head->error.message ? head->error.message : head->error.code, err);
	return rc < 0 ? rc : queue_again(g, tx, op, pause, reason, err);
}

int pt_op_of_lease(struct pt_tx *tx, const struct pt_rec_lease *l, struct pt_rec_operation *ret, struct pt_err *err)
{
	int rc;

	pt_id_copy(ret->id, l->operation);
	rc = pt_tx_get(tx, &pt_operations, ret, err);
	if (rc < 0 && rc != PT_E_NOT_FOUND)
		return rc;
	if (rc == 0 && ret->queue == PT_QUEUE_LEASED && ret->attempt == l->attempt && strcmp(ret->instance, l->instance) == 0)
		return PT_OK;
	rc = pt_tx_remove(tx, &pt_leases, l, err);
	return rc < 0 && rc != PT_E_NOT_FOUND ? rc : 1;
}

/* Ask the instance to stop.  After PT_STOP_GRACE_MS its lease is not renewed any more, so that the attempt ends either way. */
static int stop_lease(struct pt_gateway *g, struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_err *err)
{
	pt_auto_rec(lease) l = { 0 };
	int rc;

	pt_id_copy(l.instance, op->instance);
	pt_id_copy(l.operation, op->id);
	rc = pt_tx_get(tx, &pt_leases, &l, err);
	if (rc == PT_E_NOT_FOUND || (rc == 0 && (l.stop_at || l.attempt != op->attempt)))
		return PT_OK;
	if (rc < 0)
		return rc;
	l.stop_at = pt_gateway_now(g);
	pt_presence_poke_instance(g, op->instance);
	return pt_tx_update(tx, &pt_leases, &l, err);
}

int pt_op_overrun(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, struct pt_rec_lease *l, struct pt_err *err)
{
	char reason[160];
	int rc;

	snprintf(reason, sizeof(reason), "attempt %lld runs longer than its limit of %lld s", (long long)op->attempt,
		 (long long)(op->timeout_ms + 999) / 1000);
	set_text(&op->reason, reason);
	l->stop_at = pt_gateway_now(g);
	rc = pt_op_event(g, tx, op, "stop_requested", reason, err);
	return rc < 0 ? rc : pt_tx_update(tx, &pt_operations, op, err);
}

int pt_op_cancel(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, const char *by, struct pt_err *err)
{
	struct pt_err why = { 0 };
	int rc;

	if (pt_op_terminal((enum pt_op_state)op->state) || op->cancel_requested)
		return PT_OK;
	op->cancel_requested = true;
	if ((rc = pt_op_event(g, tx, op, "cancel_requested", by, err)) < 0)
		return rc;
	(void)pt_fail(&why, PT_E_CANCELLED, "cancelled by %s", by);
	if (op->state == PT_OP_QUEUED)
		return pt_op_finish(g, tx, op, PT_OP_CANCELLED, &why, err);
	set_text(&op->reason, why.msg);
	rc = stop_lease(g, tx, op, err);
	return rc < 0 ? rc : pt_tx_update(tx, &pt_operations, op, err);
}

/* --- the reaper: what time alone brings about --- */

struct part { /* of a result */
	int64_t attempt;
	char *blob; /* owned */
};

static int collect_result(void *list, void *rec)
{
	struct pt_rec_result *r = rec;
	struct pt_err ignored;
	int rc = pt_list_append(list, sizeof(struct part), &(struct part) { .attempt = r->attempt, .blob = r->blob }, &ignored);

	if (rc == 0)
		r->blob = NULL;
	return rc;
}

static int forget_results(struct pt_gateway *g, struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_err *err)
{
	struct pt_rec_result r = { 0 };
	struct pt_list parts = { 0 };
	int rc;

	pt_id_copy(r.operation, op->id);
	rc = pt_tx_scan(tx, &pt_results, &(struct pt_scan) { .match = &r, .n_eq = 1 }, collect_result, &parts, err);
	for (size_t i = 0; i < parts.n; i++) {
		struct part *p = &((struct part *)parts.items)[i];

		r.attempt = p->attempt;
		if (rc == 0)
			rc = pt_tx_remove(tx, &pt_results, &r, err);
		if (rc == 0 && p->blob)
			pt_blob_remove(g, p->blob); /* a crash before the commit leaves a row without its file: told as such */
		free(p->blob);
	}
	free(parts.items);
	return rc;
}

/* Retention is over: the operation and everything that belongs to it goes. */
static int forget(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, struct pt_err *err)
{
	struct pt_rec_input in = { 0 };
	int rc;

	pt_id_copy(in.operation, op->id);
	rc = pt_tx_remove(tx, &pt_inputs, &in, err);
	if (rc == 0)
		rc = forget_results(g, tx, op, err);
	if (rc == 0 && pt_op_needs_person((enum pt_op_state)op->state))
		rc = pt_dead_letter_forget(tx, op, err);
	return rc < 0 ? rc : pt_tx_remove(tx, &pt_operations, op, err);
}

/* What a person must do so that the next one does not wait in vain, as the hint. */
static int say_what_is_missing(struct pt_gateway *g, struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_err *why, struct pt_err *err)
{
	pt_auto_rec(agent) a = { 0 };
	struct pt_presence_info p;
	int rc;

	pt_id_copy(a.id, op->agent);
	rc = pt_tx_get(tx, &pt_agents, &a, err);
	if (rc < 0)
		return rc == PT_E_NOT_FOUND ? PT_OK : rc;
	pt_presence_of(g, a.id, &p);
	if (!a.enabled)
		(void)pt_hint(why, "agent %s is disabled; enable it: postern ctl agents enable %s", a.name, a.name);
	else if (!p.instances)
		(void)pt_hint(why, "agent %s has no connected instance: is it running, and what does its log say?", a.name);
	else if (!pt_presence_runs(g, a.id, op->type))
		(void)pt_hint(why, "no connected instance of agent %s runs operations of type %s", a.name, op->type);
	return PT_OK;
}

static int reap_due(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, struct pt_err *err)
{
	int64_t now = pt_gateway_now(g);
	struct pt_err why = { 0 };
	int rc;

	if (pt_op_terminal((enum pt_op_state)op->state)) /* ended before PT_DUE_ENDED was added */
		return op->due > now ? PT_OK : forget(g, tx, op, err);
	if (op->due > now)
		return PT_OK;
	if (op->state == PT_OP_QUEUED && now >= op->deadline) {
		if (op->attempt)
			(void)pt_fail(&why, PT_E_DEADLINE, "the deadline passed while it waited for another attempt%s%s",
				      op->reason ? "; " : "", op->reason ? op->reason : "");
		else
			(void)pt_fail(&why, PT_E_DEADLINE, "the deadline passed before any agent instance could take it");
		rc = say_what_is_missing(g, tx, op, &why, err);
		if (rc < 0)
			return rc;
		return pt_op_finish(g, tx, op, PT_OP_EXPIRED, &why, err);
	}
	if (op->state == PT_OP_QUEUED) { /* parking is over */
		set_state(g, op, PT_OP_QUEUED, 0);
		return pt_tx_update(tx, &pt_operations, op, err);
	}
	op->due = INT64_MAX; /* the result or the end of the lease comes next */
	rc = stop_lease(g, tx, op, err);
	return rc < 0 ? rc : pt_tx_update(tx, &pt_operations, op, err);
}

static int reap_ended(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, struct pt_err *err)
{
	if (!pt_op_terminal((enum pt_op_state)op->state) || op->due > PT_DUE_ENDED + pt_gateway_now(g))
		return PT_OK;
	return forget(g, tx, op, err);
}

/* One operation that cannot be changed, since what is stored of it makes no sense, must not keep all others from ending: it is left as it
 * is.  Failures of the database are everybody's. */
static int leave_alone(struct pt_tx *tx, const char *id, int rc, struct pt_err *err)
{
	struct pt_err why = *err;

	if (rc == PT_E_IO || rc == PT_E_LIMIT || rc == PT_E_INTERNAL || rc == PT_E_UNAVAILABLE || rc == PT_E_DENIED)
		return rc;
	rc = pt_tx_undo(tx, err);
	if (rc < 0)
		return rc;
	pt_log_(PT_LOG_ERROR, "an operation cannot be changed", "operation", id, "error", why.msg, NULL);
	return PT_OK;
}

static int reap_operations(struct pt_gateway *g, struct pt_tx *tx, const struct pt_list *ids,
			   int (*reap)(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, struct pt_err *err),
			   struct pt_err *err)
{
	int rc = PT_OK;

	for (size_t i = 0; rc == 0 && i < ids->n; i++) {
		pt_auto_rec(operation) op = { 0 };

		pt_id_copy(op.id, (char *)ids->items + i * PT_ID_SIZE);
		if ((rc = pt_tx_mark(tx, err)) < 0)
			return rc;
		rc = pt_tx_get(tx, &pt_operations, &op, err);
		rc = rc == 0 ? reap(g, tx, &op, err) : rc == PT_E_NOT_FOUND ? PT_OK : rc;
		if (rc < 0)
			rc = leave_alone(tx, op.id, rc, err);
	}
	return rc;
}

/* Why a lease was not renewed. */
static void lost_because(const struct pt_gateway *g, const struct pt_rec_lease *l, char *out, size_t size)
{
	if (l->stop_at && l->until - l->stop_at > PT_STOP_GRACE_MS)
		snprintf(out, size, "instance %s was asked to stop it and did not within %d s", l->instance,
			 PT_STOP_GRACE_MS / 1000);
	else if (!l->started && l->until - l->leased_at > PT_START_MAX_MS)
		snprintf(out, size, "instance %s did not start it within %d s", l->instance, PT_START_MAX_MS / 1000);
	else
		snprintf(out, size, "instance %s was not heard of for %lld s", l->instance, (long long)g->lease_ms / 1000);
}

static int reap_leases(struct pt_gateway *g, struct pt_tx *tx, const struct pt_list *leases, struct pt_err *err)
{
	int64_t now = pt_gateway_now(g);
	int rc = PT_OK;

	for (size_t i = 0; rc == 0 && i < leases->n; i++) {
		const struct pt_rec_lease *l = &((struct pt_rec_lease *)leases->items)[i];
		pt_auto_rec(operation) op = { 0 };
		char detail[160];

		if (l->until > now)
			continue;
		if ((rc = pt_tx_mark(tx, err)) < 0)
			return rc;
		rc = pt_op_of_lease(tx, l, &op, err);
		if (rc > 0) {
			rc = PT_OK;
		} else if (rc == 0) {
			lost_because(g, l, detail, sizeof(detail));
			rc = pt_op_give_back(g, tx, &op, true, detail, err);
		}
		if (rc < 0)
			rc = leave_alone(tx, l->operation, rc, err);
	}
	return rc;
}

static int give_grace(struct pt_gateway *g, struct pt_tx *tx, struct pt_err *err)
{
	int64_t until = pt_gateway_now(g) + g->lease_ms;
	struct pt_list all = { 0 }; /* of struct pt_rec_lease */
	/* Those that end later, too: their ends come from another clock, or a longer --lease. */
	int rc = pt_tx_scan(tx, &pt_leases, &(struct pt_scan) { .limit = 0 }, pt_collect_lease, &all, err);

	for (size_t i = 0; rc == 0 && i < all.n; i++) {
		struct pt_rec_lease *l = &((struct pt_rec_lease *)all.items)[i];

		l->until = until;
		rc = pt_tx_update(tx, &pt_leases, l, err);
	}
	free(all.items);
	return rc;
}

/* From the newest to the oldest: those that wait for a deadline stand behind them all. */
static int collect_ended(void *list, void *rec)
{
	return ((struct pt_rec_operation *)rec)->due < PT_DUE_ENDED ? 1 : pt_collect_id(list, rec);
}

int pt_reap(void *gateway, struct pt_tx *tx, struct pt_err *err)
{
	struct pt_gateway *g = gateway;
	struct pt_list lost = { 0 }, due = { 0 }, ended = { 0 };
	int64_t now = pt_gateway_now(g), away = now - g->reaped_at;
	/* Each with a bound of its own: a tick stays short, and none of them waits for another. */
	struct pt_scan by_until = { .index = &pt_leases_by_until, .has_less_than = true, .less_than = now, .limit = REAP_BATCH },
		       by_due = { .index = &pt_operations_by_due, .has_less_than = true, .less_than = now, .limit = REAP_BATCH },
		       by_end = { .index = &pt_operations_by_due,
				  .desc = true,
				  .has_less_than = true,
				  .less_than = PT_DUE_ENDED + now,
				  .limit = REAP_BATCH };
	int rc = PT_OK;

	/* Held up for so long (SIGSTOP, a disk that did not answer), the gateway has not heard what its agents had to say. */
	if (g->reaped_at && away > g->lease_ms / 4) {
		pt_warn("the gateway was held up: every lease starts again", "ms", pt_num(away));
		rc = give_grace(g, tx, err);
	}
	g->reaped_at = now;
	if (rc == 0 && now >= g->deaf_until) /* a full disk, for example: agents renewed, and it could not be written */
		rc = pt_tx_scan(tx, &pt_leases, &by_until, pt_collect_lease, &lost, err);
	if (rc == 0)
		rc = pt_tx_scan(tx, &pt_operations, &by_due, pt_collect_id, &due, err);
	if (rc == 0)
		rc = pt_tx_scan(tx, &pt_operations, &by_end, collect_ended, &ended, err);
	if (rc == 0)
		rc = reap_leases(g, tx, &lost, err);
	if (rc == 0)
		rc = reap_operations(g, tx, &due, reap_due, err);
	if (rc == 0)
		rc = reap_operations(g, tx, &ended, reap_ended, err);
	free(lost.items);
	free(due.items);
	free(ended.items);
	return rc;
}

int pt_lease_grace(struct pt_gateway *g, struct pt_err *err)
{
	pt_auto(pt_tx_rollbackp) struct pt_tx *tx = NULL;
	int rc = pt_db_begin(g->db, true, &tx, err);

	if (rc == 0)
		rc = give_grace(g, tx, err);
	return rc < 0 ? rc : pt_tx_commit(pt_steal(&tx), err);
}
