/* What the result of an attempt does to its operation.  On the writer's thread, inside its transaction. */
#include "gateway/exchange.h"
#include <stdio.h>

enum { EVENTS_MAX = 1000 }; /* an agent that repeats itself does not fill the disk */

/* Committed, and answered with 409: the attempt's result came too late. */
static int refuse(struct pt_gateway *g, struct pt_tx *tx, struct pt_delivery *d, struct pt_rec_operation *op, struct pt_err *err)
{
	char detail[200];
	int rc;

	(void)pt_fail(&d->refused, PT_E_STALE, "attempt %lld is no longer current: %s is %s at attempt %lld",
		      (long long)d->attempt, op->id, pt_op_state_name((enum pt_op_state)op->state), (long long)op->attempt);
	snprintf(detail, sizeof(detail), "late result of attempt %lld (%s) refused", (long long)d->attempt, d->head->status);
	g->m.refused++;
	if (op->events > EVENTS_MAX)
		return PT_OK;
	rc = pt_op_event(g, tx, op, "result_refused", detail, err);
	return rc < 0 ? rc : pt_tx_update(tx, &pt_operations, op, err);
}

static int store(struct pt_gateway *g, struct pt_tx *tx, struct pt_delivery *d, struct pt_rec_operation *op, struct pt_err *err)
{
	/* borrowed texts: the record is written, not released */
	struct pt_rec_result res = { .attempt = d->attempt,
				     .head = (char *)(uintptr_t)d->head_text,
				     .blob = (char *)(uintptr_t)d->blob,
				     .body = d->body,
				     .stored_at = pt_gateway_now(g) };
	int state = pt_op_state_from(d->head->status);
	struct pt_err why = { 0 };
	int rc;

	if (d->head->started_at && op->state == PT_OP_LEASED && (rc = pt_op_note_started(g, op, d->head->started_at, err)) < 0)
		return rc;
	if ((rc = pt_op_attempt_failed(g, tx, op, d->head, &d->again, err)) < 0)
		return rc;
	if (d->again) /* what stays is that it was here: the same PUT once more is harmless */
		res = (struct pt_rec_result) { .attempt = d->attempt, .stored_at = res.stored_at };
	pt_id_copy(res.operation, op->id);
	if ((rc = pt_tx_insert(tx, &pt_results, &res, err)) < 0)
		return rc;
	if (d->again) {
		g->m.results++;
		return PT_OK;
	}
	if (d->head->error.code)
		pt_error_doc_to(&d->head->error, &why);
	g->m.results++;
	return pt_op_finish(g, tx, op, (enum pt_op_state)state, d->head->error.code ? &why : NULL, err);
}

int pt_refill(struct pt_gateway *g, struct pt_tx *tx, const char *of_agent, const char *instance, struct pt_list *leases,
	      struct pt_err *err)
{
	pt_auto_rec(agent) agent = { 0 };
	struct pt_list types = { 0 };
	size_t bytes = 0;
	int64_t room;
	int rc;

	pt_id_copy(agent.id, of_agent);
	if ((rc = pt_tx_get(tx, &pt_agents, &agent, err)) < 0 || !agent.enabled)
		return rc;
	if (g->stopping || !pt_presence_takes(g, agent.id, instance, &types)) {
		pt_presence_dirty(g, agent.id);
		return PT_OK;
	}
	rc = pt_free_slots(g, tx, agent.id, instance, &room, err);
	if (rc == 0)
		rc = pt_lease_some(g, tx, agent.id, instance, &types, room, leases, &bytes, err);
	for (size_t i = 0; i < types.n; i++)
		free(((char **)types.items)[i]);
	free(types.items);
	return rc;
}

int pt_deliver(struct pt_gateway *g, struct pt_tx *tx, struct pt_delivery *d, struct pt_err *err)
{
	pt_auto_rec(operation) op = { 0 };
	pt_auto_rec(result) old = { .attempt = d->attempt };
	int rc;

	pt_id_copy(op.id, d->operation);
	rc = pt_tx_get(tx, &pt_operations, &op, err);
	if (rc == PT_E_NOT_FOUND || (rc == 0 && strcmp(op.agent, d->agent) != 0))
		return pt_fail(err, PT_E_NOT_FOUND, "no operation '%s' of this agent", d->operation);
	if (rc < 0)
		return rc;
	if (op.attempt != d->attempt ||
	    op.queue != PT_QUEUE_LEASED) { /* a leased attempt has no result: it would not be leased */
		pt_id_copy(old.operation, op.id);
		rc = pt_tx_get(tx, &pt_results, &old, err);
		if (rc < 0 && rc != PT_E_NOT_FOUND)
			return rc;
		d->duplicate = rc == 0;
	}
	if (d->duplicate)
		g->m.duplicates++;
	else if (op.attempt != d->attempt || pt_op_terminal((enum pt_op_state)op.state))
		return refuse(g, tx, d, &op, err);
	else if ((rc = store(g, tx, d, &op, err)) < 0)
		return rc;
	pt_presence_ended(g, d->head->instance, d->operation, d->attempt);
	return PT_OK;
}
