/* Dispatch: exchanges and results come in, leases go out.  Everything here but the request handlers runs on the writer's thread, inside
 * its transaction; answers go out after the commit. */
#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "gateway/exchange.h"
#include <stdio.h>
#include <utlist.h>

/* --- leasing --- */

enum { LEASES_BYTES = 8 * 1024 * 1024 }; /* of inputs in one answer, where it has more than one lease */

struct ready {
	const struct pt_list *types; /* what the instance can run; empty = everything */
	struct pt_list ops;          /* of struct pt_rec_operation, taken out of the scan */
	size_t want, bytes;
	struct pt_err *err;
};

static bool can_run(const struct pt_list *types, const char *type)
{
	for (size_t i = 0; i < types->n; i++)
		if (strcmp(((char **)types->items)[i], type) == 0)
			return true;
	return types->n == 0;
}

static int collect_ready(void *arg, void *rec)
{
	struct ready *r = arg;
	int rc;

	if (!can_run(r->types, ((struct pt_rec_operation *)rec)->type))
		return 0;
	r->bytes += (size_t)((struct pt_rec_operation *)rec)->input_bytes;
	if (r->bytes > LEASES_BYTES)
		return 1;
	rc = pt_list_append(&r->ops, sizeof(struct pt_rec_operation), rec, r->err);
	if (rc < 0)
		return rc;
	memset(rec, 0, sizeof(struct pt_rec_operation)); /* its members are ours now */
	return r->ops.n == r->want;
}

static int fill_lease(struct pt_gateway *g, struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_lease *l,
		      struct pt_err *err)
{
	pt_auto_rec(integration) in = { 0 };
	pt_auto_rec(input) input = { 0 };
	int rc;

	pt_id_copy(l->operation, op->id);
	pt_id_copy(input.operation, op->id);
	l->attempt = op->attempt;
	l->limits = (struct pt_limits){ .timeout_ms = op->timeout_ms, .max_rows = op->max_rows, .max_bytes = op->max_bytes };
	l->deadline = op->deadline;
	l->lease_ms = g->lease_ms;
	l->type = strdup(op->type);
	l->delivery = strdup(op->at_most_once ? "at-most-once" : "at-least-once");
	if (!l->type || !l->delivery)
		return pt_fail_oom(err);
	if ((rc = pt_tx_get(tx, &pt_inputs, &input, err)) < 0)
		return pt_err_wrap(err, rc, "input of %s", op->id);
	l->input_text = pt_steal(&input.input);
	if (!*op->integration)
		return PT_OK;
	pt_id_copy(in.id, op->integration);
	rc = pt_tx_get(tx, &pt_integrations, &in, err);
	if (rc == PT_E_NOT_FOUND)
		return PT_OK; /* deleted meanwhile: the agent says that the operation needs one */
	if (rc < 0)
		return rc;
	l->connection_type = pt_steal(&in.connection_type);
	l->credential = (struct pt_credential_ref){ .type = pt_steal(&in.credential_type), .file_path = pt_steal(&in.file_path),
						    .env_var_name = pt_steal(&in.env_var_name) };
	return PT_OK;
}

static int append_lease(struct pt_gateway *g, struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_list *leases,
			size_t *bytes, struct pt_err *err)
{
	struct pt_lease l = { 0 };
	int rc = fill_lease(g, tx, op, &l, err);

	*bytes += (size_t)op->input_bytes;
	if (rc == 0)
		rc = pt_list_append(leases, sizeof(l), &l, err);
	if (rc < 0)
		pt_shape_release(&pt_lease_shape, &l);
	return rc;
}

static int scan_ready(struct pt_tx *tx, const char *agent, struct ready *r, struct pt_err *err)
{
	struct pt_rec_operation match = { .queue = PT_QUEUE_READY };

	pt_id_copy(match.agent, agent);
	r->err = err;
	return pt_tx_scan(tx, &pt_operations, &(struct pt_scan){ .index = &pt_operations_by_queue, .match = &match, .n_eq = 2 }, collect_ready,
			  r, err);
}

static void ready_release(struct ready *r)
{
	for (size_t i = 0; i < r->ops.n; i++)
		pt_rec_operation_release(&((struct pt_rec_operation *)r->ops.items)[i]);
	free(r->ops.items);
}

int pt_lease_some(struct pt_gateway *g, struct pt_tx *tx, const char *agent, const char *instance, const struct pt_list *types,
		  int64_t n, struct pt_list *leases, size_t *bytes, struct pt_err *err)
{
	struct ready r = { .types = types, .want = (size_t)n, .bytes = *bytes };
	int rc = n > 0 ? scan_ready(tx, agent, &r, err) : PT_OK;

	for (size_t i = 0; rc >= 0 && i < r.ops.n; i++) {
		struct pt_rec_operation *op = &((struct pt_rec_operation *)r.ops.items)[i];

		rc = pt_op_lease(g, tx, op, instance, err);
		if (rc == 0)
			rc = append_lease(g, tx, op, leases, bytes, err);
	}
	ready_release(&r);
	return rc < 0 ? rc : PT_OK;
}

int pt_free_slots(struct pt_gateway *g, struct pt_tx *tx, const char *agent, const char *instance, int64_t *ret_free,
		  struct pt_err *err)
{
	struct pt_rec_lease match = { 0 };
	int64_t slots = pt_presence_slots(g, agent, instance), leased = 0;
	int rc;

	*ret_free = 0;
	if (!slots)
		return PT_OK;
	pt_id_copy(match.instance, instance);
	rc = pt_tx_count(tx, &pt_leases, &(struct pt_scan) { .match = &match, .n_eq = 1 }, &leased, err);
	if (rc == 0 && slots - leased > 0)
		*ret_free = slots - leased;
	return rc;
}

/* --- one exchange --- */

static struct pt_holding *held(const struct pt_exchange_request *q, const char *operation, int64_t attempt)
{
	struct pt_holding *h = q->holding.items;

	for (size_t i = 0; i < q->holding.n; i++)
		if (h[i].attempt == attempt && strcmp(h[i].operation, operation) == 0)
			return &h[i];
	return NULL;
}

static struct pt_attempt_ref *released(const struct pt_exchange_request *q, const struct pt_rec_lease *l)
{
	struct pt_attempt_ref *r = q->released.items;

	for (size_t i = 0; i < q->released.n; i++)
		if (r[i].attempt == l->attempt && strcmp(r[i].operation, l->operation) == 0)
			return &r[i];
	return NULL;
}

static void recheck(struct pt_exchange *x, int64_t at)
{
	if (!x->recheck_at || at < x->recheck_at)
		x->recheck_at = at;
}

static int tell(struct pt_exchange *x, struct pt_list *list, const char *operation, int64_t attempt, enum pt_code code,
		const char *reason, struct pt_err *err)
{
	struct pt_attempt_ref ref = { .attempt = attempt, .reason = strdup(reason), .code = strdup(pt_code_wire(code)) };
	int64_t again;
	int rc;

	x->urgent |= pt_presence_tell(x->c->g, x->q->instance, operation, attempt, &again);
	recheck(x, again);
	pt_id_copy(ref.operation, operation);
	rc = pt_list_append(list, sizeof(ref), &ref, err);
	if (rc < 0)
		pt_shape_release(&pt_attempt_ref_shape, &ref);
	return rc;
}

static int tell_stop(struct pt_exchange *x, struct pt_tx *tx, const struct pt_rec_lease *l, struct pt_err *err)
{
	pt_auto_rec(operation) op = { 0 };
	bool late;
	int rc;

	pt_id_copy(op.id, l->operation);
	if ((rc = pt_tx_get(tx, &pt_operations, &op, err)) < 0)
		return rc;
	late = pt_gateway_now(x->c->g) >= op.deadline;
	return op.cancel_requested ? tell(x, &x->a.cancels, l->operation, l->attempt, PT_E_CANCELLED,
					  op.reason ? op.reason : "cancelled", err)
				   : tell(x, &x->a.cancels, l->operation, l->attempt, PT_E_DEADLINE,
					  late || !op.reason ? "the operation's deadline has passed" : op.reason, err);
}

/* May the lease be renewed?  Everything an instance holds has a time limit, also when it renews for ever: to start, to run, to stop. */
static int may_renew(struct pt_exchange *x, struct pt_tx *tx, struct pt_rec_lease *l, const struct pt_holding *h, int64_t now,
		     bool *ret, struct pt_err *err)
{
	bool spooled = strcmp(h->state, "spooled") == 0;
	pt_auto_rec(operation) op = { 0 };
	int rc;

	*ret = false;
	if (l->until - now >= x->c->g->lease_ms - x->c->g->lease_ms / 6)
		return PT_OK;
	if (l->stop_at) {
		*ret = now - l->stop_at <= PT_STOP_GRACE_MS;
		return PT_OK;
	}
	*ret = l->started || spooled || now - l->leased_at <= PT_START_MAX_MS;
	if (!l->started || spooled || now - l->leased_at <= PT_START_MAX_MS)
		return PT_OK;
	if ((rc = pt_op_of_lease(tx, l, &op, err)) != 0)
		return rc;
	if (now - l->leased_at <= PT_START_MAX_MS + op.timeout_ms)
		return PT_OK;
	rc = pt_op_overrun(x->c->g, tx, &op, l, err);
	return rc < 0 ? rc : tell_stop(x, tx, l, err);
}

/* The instance says that it runs.  1: the lease is nobody's. */
static int note_start(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_lease *l, int64_t at, struct pt_err *err)
{
	pt_auto_rec(operation) op = { 0 };
	int rc = pt_op_of_lease(tx, l, &op, err);

	if (rc == 0 && op.state == PT_OP_LEASED)
		rc = pt_op_started(g, tx, &op, at, err);
	l->started |= rc == 0;
	return rc;
}

/* What the gateway thinks of one attempt against what the instance says of it. */
static int reconcile_lease(struct pt_exchange *x, struct pt_tx *tx, struct pt_rec_lease *l, int64_t now, struct pt_err *err)
{
	struct pt_gateway *g = x->c->g;
	struct pt_holding *h = held(x->q, l->operation, l->attempt);
	struct pt_attempt_ref *given = released(x->q, l);
	pt_auto_rec(operation) op = { 0 };
	bool start = h && h->state && strcmp(h->state, "running") == 0 && h->started_at && !l->started, renew;
	int rc;

	if (start &&
	    (rc = note_start(g, tx, l, h->started_at, err)) != 0) /* first: what has run is not given back as if it had not */
		return rc < 0 ? rc : PT_OK;
	if (given || (!h && x->q->goodbye)) {
		if ((rc = pt_op_of_lease(tx, l, &op, err)) != 0)
			return rc < 0 ? rc : PT_OK;
		return pt_op_give_back(g, tx, &op, false, given && given->reason ? given->reason : "the agent instance is stopping", err);
	}
	if (!h && now - l->leased_at > PT_REDELIVER_MS && !pt_presence_left(g, x) && x->lease_bytes <= LEASES_BYTES) {
		if ((rc = pt_op_of_lease(tx, l, &op, err)) != 0)
			return rc < 0 ? rc : PT_OK;
		g->m.redelivered++;
		return append_lease(g, tx, &op, &x->a.leases, &x->lease_bytes, err);
	}
	if (!h) { /* perhaps still on its way */
		recheck(x, l->leased_at + PT_REDELIVER_MS + 1);
		return PT_OK;
	}
	if (l->stop_at && (rc = tell_stop(x, tx, l, err)) < 0)
		return rc;
	if ((rc = may_renew(x, tx, l, h, now, &renew, err)) != 0)
		return rc < 0 ? rc : PT_OK;
	if (!start && !renew)
		return PT_OK;
	if (renew)
		l->until = now + g->lease_ms;
	return pt_tx_update(tx, &pt_leases, l, err);
}

static int reconcile(struct pt_exchange *x, struct pt_tx *tx, size_t *ret_n, struct pt_err *err)
{
	struct pt_holding *h = x->q->holding.items;
	struct pt_rec_lease match = { 0 }, *l;
	struct pt_list leases = { 0 };
	int64_t now = pt_gateway_now(x->c->g);
	int rc;

	pt_id_copy(match.instance, x->q->instance);
	rc = pt_tx_scan(tx, &pt_leases, &(struct pt_scan) { .match = &match, .n_eq = 1 }, pt_collect_lease, &leases, err);
	l = leases.items;
	x->recheck_at = 0;
	for (size_t i = 0; rc == 0 && i < leases.n; i++)
		rc = reconcile_lease(x, tx, &l[i], now, err);
	/* What it runs and nobody granted, or no longer grants.  Spooled results are sent all the same: the answer to them is the record. */
	for (size_t i = 0; rc == 0 && i < x->q->holding.n; i++) {
		bool known = h[i].state && strcmp(h[i].state, "running") != 0;

		for (size_t k = 0; !known && k < leases.n; k++)
			known = l[k].attempt == h[i].attempt && strcmp(l[k].operation, h[i].operation) == 0;
		if (!known)
			rc = tell(x, &x->a.drops, h[i].operation, h[i].attempt, PT_E_STALE,
				  "the attempt is not this instance's any more", err);
	}
	*ret_n = leases.n;
	free(leases.items);
	return rc;
}

static void clear_answer(struct pt_exchange *x)
{
	pt_shape_release(&pt_exchange_response_shape, &x->a);
	x->lease_bytes = 0;
	x->urgent = false;
}

int pt_exchange_run(struct pt_exchange *x, struct pt_tx *tx, struct pt_err *err)
{
	struct pt_call *c = x->c;
	struct pt_gateway *g = c->g;
	pt_auto_rec(agent) agent = { 0 };
	pt_auto_rec(key) key = { 0 };
	bool tell_now = false, left = pt_presence_left(g, x);
	int64_t free_slots = 0, longest;
	size_t n_leases = 0;
	int rc;

	clear_answer(x);
	pt_id_copy(agent.id, c->who.agent);
	rc = pt_tx_get(tx, &pt_agents, &agent, err);
	if (rc == PT_E_NOT_FOUND)
		return pt_fail(err, PT_E_UNAUTHENTICATED, "the agent of this key was deleted");
	pt_id_copy(key.id, c->who.key);
	if (rc == 0 && (rc = pt_tx_get(tx, &pt_keys, &key, err)) == PT_E_NOT_FOUND) {
		(void)pt_fail(err, PT_E_UNAUTHENTICATED, "the agent's key %s was revoked", c->who.key); /* while the exchange waited */
		return pt_hint(err, "`postern ctl keys create` makes a new one");
	}
	if (rc < 0 || (rc = pt_presence_seen(g, x, agent.enabled, &tell_now, err)) < 0)
		return rc;
	x->a.enabled = agent.enabled;
	x->a.agent = strdup(agent.id);
	x->a.agent_name = pt_steal(&agent.name);
	if (rc > 0) /* the instance has said something newer */
		return PT_OK;
	if ((rc = reconcile(x, tx, &n_leases, err)) < 0)
		return rc;
	if (agent.enabled && !x->q->draining && !x->q->goodbye && !left && !g->stopping) {
		if ((rc = pt_free_slots(g, tx, agent.id, x->q->instance, &free_slots, err)) < 0)
			return rc;
		rc = pt_lease_some(g, tx, agent.id, x->q->instance, pt_types_list(x->types), free_slots, &x->a.leases,
				   &x->lease_bytes, err);
		if (rc < 0)
			return rc;
	}
	/* Who holds leases comes back well before they end: 25 s of 60. */
	longest = n_leases && g->lease_ms * 5 / 12 < PT_WAIT_MAX_MS ? g->lease_ms * 5 / 12 : PT_WAIT_MAX_MS;
	if (!x->until)
		x->until = pt_gateway_now(g) + pt_exchange_wait_ms(x->q->wait_ms < longest ? x->q->wait_ms : longest);
	if (tell_now || x->a.leases.n || x->urgent || x->q->goodbye || left || x->until <= pt_gateway_now(g) || g->stopping)
		return PT_OK;
	pt_presence_park(g, x);
	return PT_OK;
}

static int exchange_run(struct pt_tx *tx, struct pt_write_job *job, struct pt_err *err)
{
	return pt_exchange_run(pt_container_of(job, struct pt_call, job)->extra, tx, err);
}

static void exchange_done(struct pt_write_job *job, int rc)
{
	struct pt_call *c = pt_container_of(job, struct pt_call, job);
	struct pt_exchange *x = c->extra;

	if (x->chosen)
		return; /* answered with the group's other leases, after the commit */
	if (rc < 0)
		pt_presence_unpark(c->g, x);
	if (!pt_presence_settle(c->g, x))
		return;
	if (rc == 0 && x->q->goodbye)
		pt_presence_leave(c->g, x->q->instance);
	pt_exchange_answer(x, rc < 0 ? &job->err : NULL);
}

void pt_exchange_submit(struct pt_exchange *x)
{
	struct pt_gateway *g = x->c->g;
	struct pt_err err = { 0 };

	x->c->job.run = exchange_run;
	x->c->job.done = exchange_done;
	if (!pt_gateway_enter(g)) {
		(void)pt_gateway_closed(&err);
		pt_exchange_answer(x, &err);
		return;
	}
	pt_writer_submit(g->writer, &x->c->job);
	pt_gateway_leave(g);
}

void pt_exchange_answer(struct pt_exchange *x, const struct pt_err *err)
{
	struct pt_call *c = x->c;

	pt_presence_release(c->g, x);
	if (err) {
		clear_answer(x);
		free(x);
		pt_call_fail(c, err);
		return;
	}
	if (c->g->stopping) /* what it was to be told, it is told by the next gateway: the state is in the database */
		pt_http_set_header(c->req, "Connection", "close");
	x->a.lease_ms = c->g->lease_ms;
	x->a.server_time = pt_gateway_now(c->g);
	x->a.spread_ms = c->g->spread_ms;
	pt_shape_write(&pt_exchange_response_shape, &x->a, &c->out);
	clear_answer(x);
	free(x);
	pt_call_reply(c);
}

void pt_api_exchange(struct pt_call *c)
{
	struct pt_exchange *x = calloc(1, sizeof(*x));
	struct pt_err err = { 0 };

	if (!x) {
		(void)pt_fail_oom(&err);
		pt_call_fail(c, &err);
		return;
	}
	x->c = c;
	x->q = c->body;
	x->in_writer = true;
	c->extra = x;
	c->g->m.exchanges++;
	if (!pt_id_valid(x->q->instance, "in")) {
		(void)pt_fail(&err, PT_E_INVALID, "instance: '%s' is not an instance id", x->q->instance);
		pt_exchange_answer(x, &err);
		return;
	}
	if (pt_exchange_room(c, &err) < 0) {
		pt_exchange_answer(x, &err);
		return;
	}
	pt_exchange_watch(x);
	pt_exchange_submit(x);
}

/* --- the group's end: new work meets waiting exchanges --- */

struct match {
	struct pt_gateway *g;
	struct pt_tx *tx;
	struct pt_err *err;
};

static struct pt_exchange *chosen; /* writer's thread only */
static bool chosen_undone;         /* the leases in them were undone */

static int match_agent(void *arg, const char *agent, struct pt_exchange *const *xs, size_t n)
{
	struct match *m = arg;
	pt_auto_rec(agent) a = { 0 };
	pt_auto(pt_freep) int64_t *room = calloc(n, sizeof(*room));
	size_t left = 0;
	bool empty = false; /* nothing is ready any more */
	int rc;

	if (!room)
		return pt_fail_oom(m->err);
	pt_id_copy(a.id, agent);
	rc = pt_tx_get(m->tx, &pt_agents, &a, m->err);
	if (rc == PT_E_NOT_FOUND || (rc == 0 && !a.enabled))
		return PT_OK;
	for (size_t i = 0; rc == 0 && i < n; i++) {
		rc = pt_free_slots(m->g, m->tx, agent, xs[i]->q->instance, &room[i], m->err);
		left += (size_t)room[i];
	}
	/* One at a time to the instance with the most room: few operations spread, many fill everybody. */
	while (rc == 0 && left && !empty) {
		struct pt_list got = { 0 };
		size_t best = 0;

		for (size_t i = 1; i < n; i++)
			if (room[i] > room[best])
				best = i;
		got = xs[best]->a.leases;
		rc = pt_lease_some(m->g, m->tx, agent, xs[best]->q->instance, pt_types_list(xs[best]->types), 1,
				   &xs[best]->a.leases, &xs[best]->lease_bytes, m->err);
		if (rc < 0)
			break;
		if (xs[best]->a.leases.n == got.n) { /* nothing (more) that it can run, or that its answer can hold */
			empty = !got.n && !pt_types_list(xs[best]->types)->n;
			left -= (size_t)room[best];
			room[best] = 0;
			continue;
		}
		left--;
		room[best]--;
		if (!xs[best]->chosen) {
			xs[best]->chosen = true;
			pt_presence_unpark(m->g, xs[best]);
			DL_APPEND(chosen, xs[best]);
		}
	}
	return rc < 0 ? rc : !empty;
}

int pt_dispatch(void *gateway, struct pt_tx *tx, struct pt_err *err)
{
	struct match m = { .g = gateway, .tx = tx, .err = err };

	int rc = pt_presence_each_dirty(gateway, match_agent, &m);

	chosen_undone = rc < 0;
	return rc;
}

void pt_dispatch_committed(void *gateway, bool committed)
{
	struct pt_gateway *g = gateway;
	struct pt_err err = { 0 };
	struct pt_exchange *x, *tmp, *list = chosen;

	chosen = NULL;
	if (!committed)
		g->deaf_until = pt_gateway_now(g) + g->lease_ms;
	(void)pt_fail(&err, PT_E_UNAVAILABLE, "the gateway could not store the lease; try again");
	DL_FOREACH_SAFE(list, x, tmp)
	{
		pt_exchange_answer(x, committed && !chosen_undone ? NULL : &err);
	}
	pt_wait_flush(gateway, committed);
	pt_blobs_sure(g);
}
