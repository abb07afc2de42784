/* Operations as clients see them: submit, list, look, wait, cancel. */
#include "base/id.h"
#include "base/json_write.h"
#include "gateway/internal.h"
#include "op/op.h"
#include <stdio.h>

enum { WAIT_MAX_S = 60 };

struct cancel_new {
	char *reason;
};
static const struct pt_field cancel_fields[] = {
	PT_F(struct cancel_new, reason, PT_T_STR, 0, .max = 200, .help = "for the timeline"),
};
const struct pt_shape pt_cancel_new_shape = PT_SHAPE("cancel", struct cancel_new, cancel_fields);

/* --- submit --- */

static int resolve_target(struct pt_call *c, struct pt_tx *tx, const struct pt_operation_new *in, struct pt_rec_operation *op,
			  struct pt_err *err)
{
	pt_auto_rec(agent) a = { 0 };
	pt_auto_rec(integration) i = { 0 };
	int rc;

	if (!in->agent && !in->integration)
		return pt_fail(err, PT_E_INVALID, "agent: missing (it may be left out only when an integration is given)");
	if (in->integration && (rc = pt_find_integration(tx, c->who.account, in->integration, &i, err)) < 0)
		return rc;
	rc = pt_find_agent(tx, c->who.account, in->agent ? in->agent : i.agent, &a, err);
	if (rc < 0)
		return rc;
	if (in->integration && strcmp(a.id, i.agent) != 0)
		return pt_fail(err, PT_E_INVALID, "integration: '%s' belongs to another agent than '%s'", i.name, a.name);
	pt_id_copy(op->agent, a.id);
	pt_id_copy(op->integration, i.id);
	return PT_OK;
}

/* Same key before?  1 = answered with the first operation. */
static int answer_repeat(struct pt_call *c, struct pt_tx *tx, struct pt_rec_operation *op, struct pt_err *err)
{
	pt_auto_rec(operation) old = { 0 };
	int rc;

	pt_id_copy(old.account, op->account);
	old.idempotency_key = strdup(op->idempotency_key);
	if (!old.idempotency_key)
		return pt_fail_oom(err);
	rc = pt_get_by(tx, &pt_operations, &pt_operations_by_idempotency, 2, &old, err);
	if (rc == PT_E_NOT_FOUND)
		return 0;
	if (rc < 0)
		return rc;
	if (!old.request_digest || strcmp(old.request_digest, op->request_digest) != 0) {
		(void)pt_fail(err, PT_E_CONFLICT, "the idempotency key '%.60s' was used for a different operation, %s", op->idempotency_key,
			      old.id);
		return pt_hint(err, "use a new key for a new operation");
	}
	rc = pt_view_operation(c->g, tx, &old, true, &c->out, err);
	return rc < 0 ? rc : 1;
}

/* The part that needs no database: the writer's time is everybody's. */
struct prepared {
	struct pt_buf input, labels; /* as they are stored */
	char *key;                   /* idempotency key, NULL = none */
	char digest[65];
};

static void prepared_free(void *extra)
{
	struct prepared *p = extra;

	pt_buf_release(&p->input);
	pt_buf_release(&p->labels);
	free(p->key);
	free(p);
}

static int take_key(struct pt_call *c, struct prepared *p, struct pt_err *err)
{
	struct pt_operation_new *in = c->body;
	const char *header = pt_http_header(c->req, "Idempotency-Key"), *text;
	size_t n;

	if (header && in->idempotency_key && strcmp(header, in->idempotency_key) != 0)
		return pt_fail(err, PT_E_INVALID, "idempotency_key: differs from the header Idempotency-Key");
	if (header && (!*header || strlen(header) > 255))
		return pt_fail(err, PT_E_INVALID, "Idempotency-Key: must have 1 to 255 bytes");
	if (!header && !in->idempotency_key)
		return PT_OK;
	p->key = strdup(header ? header : in->idempotency_key);
	text = pt_http_body(c->req, &n);
	pt_sha256_hex(text, n, p->digest);
	return p->key ? PT_OK : pt_fail_oom(err);
}

int pt_api_operations_prepare(struct pt_call *c, struct pt_err *err)
{
	struct pt_operation_new *in = c->body;
	struct prepared *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return pt_fail_oom(err);
	p->input = (struct pt_buf)PT_BUF_INIT(1536 * 1024);
	p->labels = (struct pt_buf)PT_BUF_INIT(64 * 1024); /* more than their shape allows */
	c->extra = p;
	c->extra_free = prepared_free;
	pt_operation_new_defaults(in);
	if ((rc = take_key(c, p, err)) < 0 || (rc = pt_op_check(in->type, in->input, in->integration != NULL, err)) < 0)
		return rc;
	pt_json_write(&p->input, in->input);
	if (in->labels)
		pt_json_write(&p->labels, in->labels);
	rc = pt_buf_done(&p->input, err);
	return rc < 0 ? rc : pt_buf_done(&p->labels, err);
}

int pt_api_operations_create(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	struct pt_operation_new *in = c->body;
	struct prepared *p = c->extra;
	struct pt_rec_operation op = { 0 }; /* borrows everything */
	int rc = resolve_target(c, tx, in, &op, err);

	if (rc < 0)
		return rc;
	pt_id_copy(op.account, c->who.account);
	pt_id_copy(op.created_by, c->who.user);
	op.type = in->type;
	op.input = p->input.p;
	op.labels = p->labels.len ? p->labels.p : NULL;
	op.timeout_ms = in->limits.timeout_ms;
	op.max_rows = in->limits.max_rows;
	op.max_bytes = in->limits.max_bytes;
	op.priority = in->priority;
	op.deadline = pt_gateway_now(c->g) + in->deadline_s * 1000;
	op.max_attempts = in->max_attempts;
	op.at_most_once = pt_at_most_once(in->delivery);
	op.idempotency_key = p->key;
	op.request_digest = p->key ? p->digest : NULL;
	if (op.idempotency_key && (rc = answer_repeat(c, tx, &op, err)) != 0)
		return rc < 0 ? rc : PT_OK;
	pt_id_new(op.id, "op");
	if ((rc = pt_op_insert(c->g, tx, &op, err)) < 0)
		return rc;
	c->status = 201;
	return pt_view_operation(c->g, tx, &op, false, &c->out, err);
}

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

static int list_operation(void *arg, void *rec)
{
	struct listing *l = arg;
	struct pt_rec_operation *op = rec;
	int rc;

	if (l->n == l->limit || ++l->looked > LOOK_MAX) {
		l->more = true;
		return 1;
	}
	pt_id_copy(l->last, op->id);
	if ((l->state >= 0 && op->state != l->state) || (*l->agent && strcmp(l->agent, op->agent) != 0) ||
	    (l->type && strcmp(l->type, op->type) != 0))
		return 0;
	pt_jw_key(&l->c->out, NULL);
	rc = pt_view_operation(l->c->g, l->tx, op, false, &l->c->out, l->err);
	l->n++;
	return rc;
}

int pt_api_operations_list(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	const char *state = pt_http_query(c->req, "state"), *agent = pt_http_query(c->req, "agent"),
		   *before = pt_http_query(c->req, "before");
	struct listing l = { .c = c, .tx = tx, .err = err, .state = -1, .type = pt_http_query(c->req, "type") };
	struct pt_rec_operation m = { 0 };
	int rc = pt_query_i64(c, "limit", 1, 500, 50, &l.limit, err);

	if (rc < 0)
		return rc;
	if (state && (l.state = pt_op_state_from(state)) < 0)
		return pt_fail(err, PT_E_INVALID, "state: '%.40s' is not a state of an operation", state);
	if (before && !pt_id_valid(before, "op"))
		return pt_fail(err, PT_E_INVALID, "before: '%.60s' is not an operation's id", before);
	if (agent) {
		pt_auto_rec(agent) a = { 0 };

		if ((rc = pt_find_agent(tx, c->who.account, agent, &a, err)) < 0)
			return rc;
		pt_id_copy(l.agent, a.id);
	}
	pt_id_copy(m.account, c->who.account);
	pt_jw_open(&c->out, NULL, '{');
	pt_jw_open(&c->out, "items", '[');
	rc = pt_tx_scan(tx, &pt_operations,
			&(struct pt_scan){ .index = &pt_operations_by_account, .match = &m, .n_eq = 1, .desc = true, .beyond = before },
			list_operation, &l, err);
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
