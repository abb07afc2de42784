/* Dead letters: operations that ended without success and without anybody having wanted it (failed, expired, unknown), until a person has
 * settled them.  A row per open one, added and removed in the transaction that changes the operation: lists and metrics read the rows.
 * Changes on the writer's thread. */
#include "base/id.h"
#include "gateway/internal.h"
#include <stdio.h>

static int remove_row(struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_err *err)
{
	struct pt_rec_dead_letter d = { 0 };
	int rc;

	pt_id_copy(d.account, op->account);
	pt_id_copy(d.operation, op->id);
	rc = pt_tx_remove(tx, &pt_dead_letters, &d, err);
	return rc == PT_E_NOT_FOUND ? PT_OK : rc;
}

int pt_dead_letter_add(struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_err *err)
{
	struct pt_rec_dead_letter d = { .state = op->state };

	pt_id_copy(d.account, op->account);
	pt_id_copy(d.operation, op->id);
	pt_id_copy(d.agent, op->agent);
	return pt_tx_insert(tx, &pt_dead_letters, &d, err);
}

int pt_dead_letter_forget(struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_err *err)
{
	struct pt_rec_settlement s = { 0 };
	int rc = remove_row(tx, op, err);

	if (rc < 0)
		return rc;
	pt_id_copy(s.operation, op->id);
	rc = pt_tx_remove(tx, &pt_settlements, &s, err);
	return rc == PT_E_NOT_FOUND ? PT_OK : rc;
}

/* --- settle --- */

static bool same_text(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") == 0;
}

/* 1: it was settled in the same way before. */
static int settled_before(struct pt_tx *tx, const struct pt_rec_settlement *s, struct pt_err *err)
{
	pt_auto_rec(settlement) old = { 0 };
	int rc;

	pt_id_copy(old.operation, s->operation);
	rc = pt_tx_get(tx, &pt_settlements, &old, err);
	if (rc < 0)
		return rc == PT_E_NOT_FOUND ? PT_OK : rc;
	if (same_text(old.decision, s->decision) && same_text(old.note, s->note))
		return 1;
	(void)pt_fail(err, PT_E_CONFLICT, "%s was settled by %s already: %s%s%s", s->operation, old.by_name, old.decision,
		      old.note ? ": " : "", old.note ? old.note : "");
	return pt_hint(err, "a decision is made once; GET the operation to see it");
}

static int no_dead_letter(const struct pt_rec_operation *op, struct pt_err *err)
{
	enum pt_op_state state = (enum pt_op_state)op->state;

	(void)pt_fail(err, PT_E_CONFLICT, "%s is %s: there is nothing to settle", op->id, pt_op_state_name(state));
	return pt_hint(err, pt_op_terminal(state) ? "only operations that failed, expired or ended as unknown are settled"
						  : "wait for its end, or cancel it");
}

static int gone(const char *what, struct pt_err *err)
{
	(void)pt_fail(err, PT_E_CONFLICT, "it cannot be run again: its %s was deleted", what);
	return pt_hint(err, "submit a new operation, and settle this one as done or abandon");
}

static int check_target(struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_err *err)
{
	pt_auto_rec(agent) a = { 0 };
	pt_auto_rec(integration) i = { 0 };
	int rc;

	pt_id_copy(a.id, op->agent);
	rc = pt_tx_get(tx, &pt_agents, &a, err);
	if (rc < 0 || !*op->integration)
		return rc == PT_E_NOT_FOUND ? gone("agent", err) : rc;
	pt_id_copy(i.id, op->integration);
	rc = pt_tx_get(tx, &pt_integrations, &i, err);
	return rc == PT_E_NOT_FOUND ? gone("integration", err) : rc;
}

/* The same once more, with as much time as the first one had. */
static int rerun(struct pt_gateway *g, struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_rec_settlement *s,
		 struct pt_err *err)
{
	struct pt_rec_operation again = { /* borrows everything */
					  .type = op->type,
					  .labels = op->labels,
					  .retry = op->retry,
					  .timeout_ms = op->timeout_ms,
					  .max_rows = op->max_rows,
					  .max_bytes = op->max_bytes,
					  .priority = op->priority,
					  .max_attempts = op->max_attempts,
					  .at_most_once = op->at_most_once,
					  .deadline = pt_gateway_now(g) + (op->deadline - op->created)
	};
	pt_auto_rec(input) in = { 0 };
	int rc = check_target(tx, op, err);

	pt_id_copy(in.operation, op->id);
	if (rc < 0 || (rc = pt_tx_get(tx, &pt_inputs, &in, err)) < 0)
		return rc;
	pt_id_new(again.id, "op");
	pt_id_copy(again.account, op->account);
	pt_id_copy(again.agent, op->agent);
	pt_id_copy(again.integration, op->integration);
	pt_id_copy(again.created_by, s->by);
	pt_id_copy(again.rerun_of, op->id);
	pt_id_copy(s->rerun, again.id);
	return pt_op_insert(g, tx, &again, in.input, err);
}

int pt_dead_letter_settle(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, struct pt_rec_settlement *s,
			  struct pt_err *err)
{
	char detail[900];
	int rc;

	if (!pt_op_needs_person((enum pt_op_state)op->state))
		return no_dead_letter(op, err);
	pt_id_copy(s->operation, op->id);
	if ((rc = settled_before(tx, s, err)) != 0)
		return rc < 0 ? rc : PT_OK;
	s->at = pt_gateway_now(g);
	if (strcmp(s->decision, "rerun") == 0 && (rc = rerun(g, tx, op, s, err)) < 0)
		return rc;
	snprintf(detail, sizeof(detail), "%s%s%s by %s%s%s", s->decision, *s->rerun ? " as " : "", s->rerun, s->by_name,
		 s->note ? ": " : "", s->note ? s->note : "");
	if ((rc = pt_op_event(g, tx, op, "settled", detail, err)) < 0 || (rc = remove_row(tx, op, err)) < 0 ||
	    (rc = pt_tx_insert(tx, &pt_settlements, s, err)) < 0)
		return rc;
	return pt_tx_update(tx, &pt_operations, op, err);
}
