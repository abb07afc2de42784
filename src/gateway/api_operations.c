/* Operations as clients see them, once submitted (submit.c): list, look, wait, cancel, settle. */
#include "base/id.h"
#include "base/json_write.h"
#include "gateway/internal.h"
#include <stdio.h>

enum { WAIT_MAX_S = 60 };

struct cancel_new {
	char *reason;
};
static const struct pt_field cancel_fields[] = {
	PT_F(struct cancel_new, reason, PT_T_STR, 0, .max = 200, .help = "for the timeline"),
};
const struct pt_shape pt_cancel_new_shape = PT_SHAPE("cancel", struct cancel_new, cancel_fields);

struct settle_new {
	char *decision, *note;
};
static const char *const decisions[] = { "rerun", "done", "abandon", NULL };
static const struct pt_field settle_fields[] = {
	PT_F(struct settle_new, decision, PT_T_STR, PT_REQUIRED, .values = decisions,
	     .help = "rerun: a new operation with the same fields; done: its work is done, or was done otherwise; abandon: it is not needed"),
	PT_F(struct settle_new, note, PT_T_STR, 0, .max = 500, .help = "why, for the timeline"),
};
const struct pt_shape pt_settle_new_shape = PT_SHAPE("settlement", struct settle_new, settle_fields);

/* --- look --- */

struct listing {
	struct pt_call *c;
	struct pt_tx *tx;
	struct pt_err *err;
	int state; /* -1 = any */
	char agent[PT_ID_SIZE];
	const char *type;
	int64_t limit, n, looked;
	char last[PT_ID_SIZE];
	bool more;
};

enum { LOOK_MAX = 20000 }; /* rows that a filtered list looks at before it answers with what it has and a cursor */

static bool is_full(struct listing *l, const char *id)
{
	l->more = l->n == l->limit || ++l->looked > LOOK_MAX;
	if (!l->more)
		pt_id_copy(l->last, id);
	return l->more;
}

static int show_operation(struct listing *l, const struct pt_rec_operation *op)
{
	int rc;

	if ((l->state >= 0 && op->state != l->state) || (*l->agent && strcmp(l->agent, op->agent) != 0) ||
	    (l->type && strcmp(l->type, op->type) != 0))
		return 0;
	pt_jw_key(&l->c->out, NULL);
	rc = pt_view_operation(l->c->g, l->tx, op, false, &l->c->out, l->err);
	l->n++;
	return rc;
}

static int list_operation(void *arg, void *rec)
{
	const struct pt_rec_operation *op = rec;

	return is_full(arg, op->id) ? 1 : show_operation(arg, op);
}

static int list_dead_letter(void *arg, void *rec)
{
	struct listing *l = arg;
	const struct pt_rec_dead_letter *d = rec;
	pt_auto_rec(operation) op = { 0 };
	int rc;

	if (is_full(l, d->operation))
		return 1;
	if (*l->agent && strcmp(l->agent, d->agent) != 0)
		return 0;
	pt_id_copy(op.id, d->operation);
	rc = pt_tx_get(l->tx, &pt_operations, &op, l->err);
	return rc < 0 ? rc : show_operation(l, &op);
}

static int scan_operations(struct listing *l, const char *before)
{
	struct pt_rec_operation m = { 0 };

	pt_id_copy(m.account, l->c->who.account);
	return pt_tx_scan(
		l->tx, &pt_operations,
		&(struct pt_scan) { .index = &pt_operations_by_account, .match = &m, .n_eq = 1, .desc = true, .beyond = before },
		list_operation, l, l->err);
}

static int scan_dead_letters(struct listing *l, const char *before)
{
	struct pt_rec_dead_letter m = { 0 };

	pt_id_copy(m.account, l->c->who.account);
	return pt_tx_scan(l->tx, &pt_dead_letters, &(struct pt_scan) { .match = &m, .n_eq = 1, .desc = true, .beyond = before },
			  list_dead_letter, l, l->err);
}

int pt_api_operations_list(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	const char *state = pt_http_query(c->req, "state"), *agent = pt_http_query(c->req, "agent"),
		   *before = pt_http_query(c->req, "before"), *dead = pt_http_query(c->req, "dead_letter");
	struct listing l = { .c = c, .tx = tx, .err = err, .state = -1, .type = pt_http_query(c->req, "type") };
	int rc = pt_query_i64(c, "limit", 1, 500, 50, &l.limit, err);

	if (rc < 0)
		return rc;
	if (state && (l.state = pt_op_state_from(state)) < 0)
		return pt_fail(err, PT_E_INVALID, "state: '%.40s' is not a state of an operation", state);
	if (dead && strcmp(dead, "true") != 0 && strcmp(dead, "false") != 0)
		return pt_fail(err, PT_E_INVALID, "dead_letter: '%.40s' is neither true nor false", dead);
	if (before && !pt_id_valid(before, "op"))
		return pt_fail(err, PT_E_INVALID, "before: '%.60s' is not an operation's id", before);
	if (agent) {
		pt_auto_rec(agent) a = { 0 };

		if ((rc = pt_find_agent(tx, c->who.account, agent, &a, err)) < 0)
			return rc;
		pt_id_copy(l.agent, a.id);
	}
	pt_jw_open(&c->out, NULL, '{');
	pt_jw_open(&c->out, "items", '[');
	rc = (dead && strcmp(dead, "true") == 0 ? scan_dead_letters : scan_operations)(&l, before);
	pt_jw_close(&c->out, ']');
	if (l.more)
		pt_jw_str(&c->out, "next", l.last);
	pt_jw_close(&c->out, '}');
	return rc < 0 ? rc : PT_OK;
}

void pt_answer_operation(struct pt_call *c, const char *operation)
{
	pt_auto_rec(operation) op = { 0 };
	struct pt_err err = { 0 };
	struct pt_tx *tx = NULL;
	int rc = pt_db_begin(c->g->db, false, &tx, &err);

	if (rc == 0)
		rc = pt_find_operation(tx, c->who.account, operation, &op, &err);
	if (rc == 0)
		rc = pt_view_operation(c->g, tx, &op, true, &c->out, &err);
	pt_tx_rollback(tx);
	if (rc < 0)
		pt_call_fail(c, &err);
	else
		pt_call_reply(c);
}

void pt_api_operations_get(struct pt_call *c)
{
	const char *id = pt_http_param(c->req, "id");
	struct pt_err err = { 0 };
	int64_t wait;

	if (pt_query_i64(c, "wait", 0, WAIT_MAX_S, 0, &wait, &err) < 0)
		pt_call_fail(c, &err);
	else if (!wait)
		pt_answer_operation(c, id);
	else
		pt_wait_for(c, id, wait * 1000);
}

int pt_api_operations_cancel(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	const struct cancel_new *in = c->body;
	pt_auto_rec(operation) op = { 0 };
	char by[300];
	int rc = pt_find_operation(tx, c->who.account, pt_http_param(c->req, "id"), &op, err);

	if (rc < 0)
		return rc;
	snprintf(by, sizeof(by), "%s%s%s", c->who.name, in->reason ? ": " : "", in->reason ? in->reason : "");
	if ((rc = pt_op_cancel(c->g, tx, &op, by, err)) < 0)
		return rc;
	c->status = pt_op_terminal((enum pt_op_state)op.state) ? 200 : 202;
	return pt_view_operation(c->g, tx, &op, true, &c->out, err);
}

int pt_api_operations_settle(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	const struct settle_new *in = c->body;
	pt_auto_rec(operation) op = { 0 };
	struct pt_rec_settlement s = { .decision = in->decision,
				       .note = in->note && *in->note ? in->note : NULL,
				       .by_name = c->who.name };
	int rc = pt_find_operation(tx, c->who.account, pt_http_param(c->req, "id"), &op, err);

	if (rc < 0)
		return rc;
	pt_id_copy(s.by, c->who.user);
	rc = pt_dead_letter_settle(c->g, tx, &op, &s, err);
	return rc < 0 ? rc : pt_view_operation(c->g, tx, &op, true, &c->out, err);
}
