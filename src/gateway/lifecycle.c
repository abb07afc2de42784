/* The life of an operation: every change of its state is made here, on the writer's thread, inside the writer's transaction.
 *
 *   queued ──lease──> leased ──started──> running ──result──> succeeded | failed | cancelled | expired
 *      ^                 └──────give back / lost──┴──> queued again, or failed, or unknown (at-most-once)
 *
 * The columns queue, rank and due follow from the state; nothing else sets them. */
#include "base/clock.h"
#include "base/id.h"
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
	/* borrowed texts: the record is written, not released */
	struct pt_rec_event e = { .seq = ++op->events, .at = pt_gateway_now(g), .attempt = op->attempt,
				  .event = (char *)(uintptr_t)event, .detail = (char *)(uintptr_t)detail };

	pt_id_copy(e.operation, op->id);
	pt_id_copy(e.instance, op->attempt ? op->instance : "");
	return pt_tx_insert(tx, &pt_events, &e, err);
}

static int event_at(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, const char *event, int64_t at, struct pt_err *err)
{
	struct pt_rec_event e = { .seq = ++op->events, .at = at ? at : pt_gateway_now(g), .attempt = op->attempt,
				  .event = (char *)(uintptr_t)event };

	pt_id_copy(e.operation, op->id);
	pt_id_copy(e.instance, op->instance);
	return pt_tx_insert(tx, &pt_events, &e, err);
}

/* The one place that sets the state and what follows from it. */
static void set_state(struct pt_gateway *g, struct pt_rec_operation *op, enum pt_op_state state, int64_t park_until)
{
	pt_assert(!pt_op_terminal((enum pt_op_state)op->state) || op->created == 0);
	op->state = state;
	if (pt_op_terminal(state)) {
		op->queue = PT_QUEUE_DONE;
		op->finished_at = pt_gateway_now(g);
		op->due = op->finished_at + g->retention_ms;
		g->m.finished[state]++;
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

int pt_op_insert(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, struct pt_err *err)
{
	int rc;

	set_state(g, op, PT_OP_QUEUED, 0);
	op->created = pt_gateway_now(g);
	op->rank = (9 - op->priority) * (INT64_C(1) << 48) + op->created;
	rc = pt_op_event(g, tx, op, "accepted", NULL, err);
	if (rc == 0)
		rc = pt_tx_insert(tx, &pt_operations, op, err);
	if (rc == 0)
		g->m.submitted++;
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

	op->attempt++;
	pt_id_copy(op->instance, instance);
	op->leased_at = pt_gateway_now(g);
	op->started_at = 0;
	set_text(&op->reason, NULL);
	set_state(g, op, PT_OP_LEASED, 0);
	l = (struct pt_rec_lease){ .attempt = op->attempt, .leased_at = op->leased_at, .until = op->leased_at + PT_LEASE_MS };
	pt_id_copy(l.instance, instance);
	pt_id_copy(l.operation, op->id);
	pt_id_copy(l.agent, op->agent);
	if ((rc = pt_tx_insert(tx, &pt_leases, &l, err)) < 0 || (rc = pt_op_event(g, tx, op, "leased", NULL, err)) < 0)
		return rc;
	g->m.leased++;
	return pt_tx_update(tx, &pt_operations, op, err);
}

int pt_op_started(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, int64_t at, struct pt_err *err)
{
	int rc;

	op->started_at = at ? at : pt_gateway_now(g);
	set_state(g, op, PT_OP_RUNNING, 0);
	rc = event_at(g, tx, op, "started", op->started_at, err);
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

int pt_op_give_back(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, bool lost, const char *detail, struct pt_err *err)
{
	int64_t now = pt_gateway_now(g), shift = op->attempt < 6 ? op->attempt : 6, tries = op->attempt - op->released;
	bool wait = lost || op->released >= RELEASED_AT_ONCE;
	struct pt_err why = { 0 };
	int rc = remove_lease(tx, op, err);

	pt_presence_dirty(g, op->agent); /* a slot is free */
	if (rc < 0 || (rc = pt_op_event(g, tx, op, lost ? "lease_lost" : "released", detail, err)) < 0)
		return rc;
	g->m.lease_lost += lost;
	op->released += !lost;
	if (op->cancel_requested || now >= op->deadline)
		return finish_stopped(g, tx, op, err);
	if (op->at_most_once && (lost || op->state == PT_OP_RUNNING)) {
		(void)pt_fail(&why, PT_E_UNAVAILABLE, "attempt %lld %s and may have run; at-most-once operations are not run again",
			      (long long)op->attempt, lost ? "lost its lease" : "was given back");
		(void)pt_hint(&why, "look at the effects, then submit it again if it did not run");
		return pt_op_finish(g, tx, op, PT_OP_UNKNOWN, &why, err);
	}
	if (lost && tries >= op->max_attempts) {
		(void)pt_fail(&why, PT_E_UNAVAILABLE, "attempt %lld of %lld lost its lease: %s", (long long)tries,
			      (long long)op->max_attempts, detail);
		(void)pt_hint(&why, "look at the agent's log around this time: was it killed, or out of memory?");
		return pt_op_finish(g, tx, op, PT_OP_FAILED, &why, err);
	}
	set_text(&op->reason, detail);
	set_state(g, op, PT_OP_QUEUED, wait ? now + (INT64_C(500) << shift) : 0); /* 1 s, 2 s, … 32 s */
	return pt_tx_update(tx, &pt_operations, op, err);
}

/* Ask the instance to stop.  After PT_STOP_GRACE_MS its lease is not renewed any more, so that the attempt ends either way. */
static int stop_lease(struct pt_gateway *g, struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_err *err)
{
	pt_auto_rec(lease) l = { 0 };
	int rc;

	pt_id_copy(l.instance, op->instance);
	pt_id_copy(l.operation, op->id);
	rc = pt_tx_get(tx, &pt_leases, &l, err);
	if (rc == PT_E_NOT_FOUND || l.stop_at)
		return PT_OK;
	if (rc < 0)
		return rc;
	l.stop_at = pt_gateway_now(g);
	pt_presence_poke_instance(g, op->instance);
	return pt_tx_update(tx, &pt_leases, &l, err);
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

static int collect_leased(void *list, void *rec)
{
	struct pt_err ignored;

	return pt_list_append(list, PT_ID_SIZE, ((struct pt_rec_lease *)rec)->operation, &ignored);
}

static int collect_event(void *list, void *rec)
{
	struct pt_err ignored;

	return pt_list_append(list, sizeof(int64_t), &((struct pt_rec_event *)rec)->seq, &ignored);
}

/* Retention is over: the operation, its events, its result and its blob go. */
static int forget(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, struct pt_err *err)
{
	pt_auto_rec(result) res = { .attempt = op->attempt };
	struct pt_rec_event e = { 0 };
	struct pt_list seqs = { 0 };
	int rc;

	pt_id_copy(e.operation, op->id);
	rc = pt_tx_scan(tx, &pt_events, &(struct pt_scan){ .match = &e, .n_eq = 1 }, collect_event, &seqs, err);
	for (size_t i = 0; rc == 0 && i < seqs.n; i++) {
		e.seq = ((int64_t *)seqs.items)[i];
		rc = pt_tx_remove(tx, &pt_events, &e, err);
	}
	free(seqs.items);
	pt_id_copy(res.operation, op->id);
	if (rc == 0 && (rc = pt_tx_get(tx, &pt_results, &res, err)) == 0) {
		rc = pt_tx_remove(tx, &pt_results, &res, err);
		if (rc == 0 && res.blob)
			pt_blob_remove(g, res.blob); /* a crash before the commit leaves a row without its file: told as such */
	} else if (rc == PT_E_NOT_FOUND) {
		rc = PT_OK;
	}
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
	return PT_OK;
}

static int reap_due(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, struct pt_err *err)
{
	int64_t now = pt_gateway_now(g);
	struct pt_err why = { 0 };
	int rc;

	if (op->due > now)
		return PT_OK;
	if (pt_op_terminal((enum pt_op_state)op->state))
		return forget(g, tx, op, err);
	if (op->state == PT_OP_QUEUED && now >= op->deadline) {
		(void)pt_fail(&why, PT_E_DEADLINE, op->attempt ? "the deadline passed while it waited for another attempt"
							       : "the deadline passed before any agent instance could take it");
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

static int reap_each(struct pt_gateway *g, struct pt_tx *tx, struct pt_list *ids, bool lease, struct pt_err *err)
{
	int64_t now = pt_gateway_now(g);
	int rc = PT_OK;

	for (size_t i = 0; rc == 0 && i < ids->n; i++) {
		pt_auto_rec(operation) op = { 0 };
		pt_auto_rec(lease) l = { 0 };

		pt_id_copy(op.id, (char *)ids->items + i * PT_ID_SIZE);
		rc = pt_tx_get(tx, &pt_operations, &op, err);
		if (rc == PT_E_NOT_FOUND) {
			rc = PT_OK;
			continue;
		}
		if (rc == 0 && !lease) {
			rc = reap_due(g, tx, &op, err);
			continue;
		}
		if (rc < 0)
			break;
		pt_id_copy(l.instance, op.instance);
		pt_id_copy(l.operation, op.id);
		/* Compare before the change: the lease may have been renewed, or the attempt be a newer one. */
		if (pt_tx_get(tx, &pt_leases, &l, err) == 0 && l.attempt == op.attempt && l.until <= now &&
		    op.queue == PT_QUEUE_LEASED) {
			char detail[160];

			snprintf(detail, sizeof(detail), "instance %s was not heard of for %d s", op.instance, PT_LEASE_MS / 1000);
			rc = pt_op_give_back(g, tx, &op, true, detail, err);
		}
	}
	free(ids->items);
	return rc;
}

int pt_reap(void *gateway, struct pt_tx *tx, struct pt_err *err)
{
	struct pt_gateway *g = gateway;
	struct pt_list due = { 0 }, lost = { 0 };
	int64_t now = pt_gateway_now(g);
	int rc =
		pt_tx_scan(tx, &pt_operations,
			   &(struct pt_scan) {
				   .index = &pt_operations_by_due, .has_less_than = true, .less_than = now, .limit = REAP_BATCH },
			   pt_collect_id, &due, err);

	if (rc == 0)
		rc = pt_tx_scan(
			tx, &pt_leases,
			&(struct pt_scan) {
				.index = &pt_leases_by_until, .has_less_than = true, .less_than = now, .limit = REAP_BATCH },
			collect_leased, &lost, err);
	if (rc < 0) {
		free(due.items);
		free(lost.items);
		return rc;
	}
	rc = reap_each(g, tx, &lost, true, err);
	if (rc < 0) {
		free(due.items);
		return rc;
	}
	return reap_each(g, tx, &due, false, err);
}

int pt_lease_grace(struct pt_gateway *g, struct pt_err *err)
{
	pt_auto(pt_tx_rollbackp) struct pt_tx *tx = NULL;
	int64_t until = pt_gateway_now(g) + PT_LEASE_MS;
	struct pt_list all = { 0 }; /* of struct pt_rec_lease */
	int rc = pt_db_begin(g->db, true, &tx, err);

	if (rc == 0)
		rc = pt_tx_scan(tx, &pt_leases,
				&(struct pt_scan) { .index = &pt_leases_by_until, .has_less_than = true, .less_than = until },
				pt_collect_lease, &all, err);
	for (size_t i = 0; rc == 0 && i < all.n; i++) {
		struct pt_rec_lease *l = &((struct pt_rec_lease *)all.items)[i];

		l->until = until;
		rc = pt_tx_update(tx, &pt_leases, l, err);
	}
	free(all.items);
	return rc < 0 ? rc : pt_tx_commit(pt_steal(&tx), err);
}
