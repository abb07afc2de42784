/* Who is connected now: instances of agents and their parked exchanges.  In memory only: a restarted gateway learns it again from the
 * next exchanges. */
#include "gateway/presence_int.h"
#include <stdio.h>

enum {
	CONNECTED_MS = 15000, /* between an answer and the next exchange an instance still counts as connected */
	INSTANCES_MAX = 50000, /* of one agent: one that makes a new id for each request does not fill the memory */
	BATCH = 32, /* waiting exchanges that dispatch looks at in one go: one operation need not ask thousands of idle instances */
};

void pt_presence_lock(struct pt_gateway *g)
{
	pthread_mutex_lock(&g->presence->lock);
}

void pt_presence_unlock(struct pt_gateway *g)
{
	pthread_mutex_unlock(&g->presence->lock);
}

struct instance *pt_presence_instance(struct pt_presence *p, const char *id)
{
	struct instance *i;

	HASH_FIND_STR(p->instances, id, i);
	return i;
}

struct agent *pt_presence_agent(struct pt_presence *p, const char *id, bool make)
{
	struct agent *a;

	HASH_FIND_STR(p->agents, id, a);
	if (!a && make && (a = calloc(1, sizeof(*a)))) {
		pt_id_copy(a->id, id);
		HASH_ADD_STR(p->agents, id, a);
	}
	return a;
}

static void free_texts(struct pt_list *l)
{
	for (size_t k = 0; k < l->n; k++)
		free(((char **)l->items)[k]);
	free(l->items);
	*l = (struct pt_list) { 0 };
}

static bool copy_texts(struct pt_list *dst, const struct pt_list *src)
{
	struct pt_err ignored;

	*dst = (struct pt_list) { 0 };
	for (size_t k = 0; k < src->n; k++) {
		char *text = strdup(((char **)src->items)[k]);

		if (!text || pt_list_append(dst, sizeof(text), &text, &ignored) < 0) {
			free(text);
			free_texts(dst);
			return false;
		}
	}
	return true;
}

struct held *pt_presence_held(const struct pt_list *holding, const char *operation, int64_t attempt)
{
	struct held *h = holding->items;

	for (size_t k = 0; k < holding->n; k++)
		if (h[k].attempt == attempt && strcmp(h[k].operation, operation) == 0)
			return &h[k];
	return NULL;
}

/* What it holds now; of what it held before it stays known when it was told to stop. */
static int set_holding(struct instance *i, const struct pt_list *said, struct pt_err *err)
{
	struct pt_list now = { 0 };
	int rc = PT_OK;

	for (size_t k = 0; rc == 0 && k < said->n; k++) {
		const struct pt_holding *s = &((struct pt_holding *)said->items)[k];
		struct held h = { .attempt = s->attempt, .rows = s->rows, .bytes = s->bytes };

		pt_id_copy(h.operation, s->operation);
		rc = pt_list_append(&now, sizeof(h), &h, err);
	}
	for (size_t k = 0; rc == 0 && k < i->holding.n; k++) {
		const struct held *old = &((struct held *)i->holding.items)[k];
		struct held *h = old->told_at ? pt_presence_held(&now, old->operation, old->attempt) : NULL;

		if (h)
			h->told_at = old->told_at;
	}
	if (rc < 0) {
		free(now.items);
		return rc;
	}
	free(i->holding.items);
	i->holding = now;
	return PT_OK;
}

void pt_presence_forget(struct pt_presence *p, struct instance *i)
{
	struct agent *a = pt_presence_agent(p, i->agent, false);

	if (a) {
		DL_DELETE(a->others, i); /* only one that does not wait is forgotten */
		a->n_instances--;
	}
	HASH_DEL(p->instances, i);
	free(i->holding.items);
	pt_types_unref(p, i->types);
	free(i);
}

bool pt_presence_connected(const struct instance *i, int64_t now)
{
	return i->waiting || now - i->last_seen < CONNECTED_MS;
}

void pt_presence_unpark_locked(struct pt_gateway *g, struct pt_exchange *x)
{
	struct instance *i = pt_presence_instance(g->presence, x->q->instance);
	struct agent *a;

	if (!x->parked)
		return;
	pt_wheel_remove(g->presence, x);
	x->parked = false;
	if (!i || i->waiting != x)
		return;
	i->waiting = NULL;
	a = pt_presence_agent(g->presence, i->agent, false);
	DL_DELETE(a->waiting, i);
	DL_APPEND(a->others, i);
	/* It was here until now; one that left is no longer shown as connected. */
	i->last_seen = pt_gateway_now(g) - (x->watch && x->watch->left ? CONNECTED_MS : 0);
}

/* Take a parked exchange in order to run it again or answer it; NULL when the writer has it (it will look again). */
struct pt_exchange *pt_presence_take_locked(struct pt_gateway *g, struct pt_exchange *x)
{
	if (!x)
		return NULL;
	if (x->in_writer) {
		x->again = true;
		return NULL;
	}
	pt_presence_unpark_locked(g, x);
	return x;
}

void pt_exchange_run_again(struct pt_exchange *x)
{
	if (!x)
		return;
	x->in_writer = true;
	pt_exchange_submit(x);
}

/* What x says it can run, from its request when it comes for the first time, is the instance's. */
static bool take_types(struct pt_presence *p, struct instance *i, struct pt_exchange *x)
{
	struct pt_types *types;

	if (!x->types && !(x->types = pt_types_ref(p, &x->q->types)))
		return false;
	free_texts(&x->q->types);
	types = pt_types_ref(p, pt_types_list(x->types));
	if (!types)
		return false;
	pt_types_unref(p, i->types);
	i->types = types;
	return true;
}

void pt_presence_release(struct pt_gateway *g, struct pt_exchange *x)
{
	pt_presence_lock(g);
	pt_types_unref(g->presence, x->types);
	pt_presence_unlock(g);
}

int pt_presence_seen(struct pt_gateway *g, struct pt_exchange *x, bool enabled, bool *ret_tell, struct pt_err *err)
{
	struct pt_presence *p = g->presence;
	struct pt_exchange_request *q = x->q;
	struct pt_exchange *old = NULL;
	struct instance *i;
	struct agent *a;
	int rc;

	pt_presence_lock(g);
	i = pt_presence_instance(p, q->instance);
	if (i && strcmp(i->agent, x->c->who.agent) != 0) {
		pt_presence_unlock(g);
		return pt_fail(err, PT_E_CONFLICT, "instance id %s is in use by another agent", q->instance);
	}
	if (i && i->serial > x->serial) {
		pt_presence_unlock(g);
		return 1;
	}
	if (!i) {
		a = pt_presence_agent(p, x->c->who.agent, true);
		if (a && a->n_instances >= INSTANCES_MAX) {
			pt_presence_unlock(g);
			return pt_fail(err, PT_E_LIMIT, "the agent has %d instances, connected or lately seen", INSTANCES_MAX);
		}
		i = a ? calloc(1, sizeof(*i)) : NULL;
		if (!i) {
			pt_presence_unlock(g);
			return pt_fail_oom(err);
		}
		pt_id_copy(i->id, q->instance);
		pt_id_copy(i->agent, x->c->who.agent);
		i->connected_at = pt_gateway_now(g);
		i->told = -1;
		HASH_ADD_STR(p->instances, id, i);
		DL_APPEND(a->others, i);
		a->n_instances++;
	}
	if (i->waiting && i->waiting != x) {
		old = i->waiting;
		pt_presence_unpark_locked(g, old);
		if (old->in_writer) /* in this very group: its done() finds it unparked and answers it */
			old = NULL;
	}
	snprintf(i->version, sizeof(i->version), "%s", q->version ? q->version : "");
	snprintf(i->hostname, sizeof(i->hostname), "%s", q->hostname ? q->hostname : "");
	i->slots = q->slots;
	i->draining = q->draining;
	i->serial = x->serial;
	i->last_seen = pt_gateway_now(g);
	*ret_tell = i->told != (int)enabled;
	i->told = enabled;
	rc = take_types(p, i, x) ? set_holding(i, &q->holding, err) : pt_fail_oom(err);
	pt_presence_unlock(g);
	if (old)
		pt_exchange_answer(old, NULL);
	return rc;
}

bool pt_presence_tell(struct pt_gateway *g, const char *instance, const char *operation, int64_t attempt, int64_t *ret_again)
{
	int64_t now = pt_gateway_now(g);
	struct instance *i;
	struct held *h;
	bool tell;

	pt_presence_lock(g);
	i = pt_presence_instance(g->presence, instance);
	h = i ? pt_presence_held(&i->holding, operation, attempt) : NULL;
	tell = !h || now - h->told_at >= PT_REDELIVER_MS;
	if (h && tell)
		h->told_at = now;
	*ret_again = (h ? h->told_at : now) + PT_REDELIVER_MS;
	pt_presence_unlock(g);
	return tell;
}

void pt_presence_leave(struct pt_gateway *g, const char *instance)
{
	struct instance *i;
	struct pt_exchange *x;

	pt_presence_lock(g);
	i = pt_presence_instance(g->presence, instance);
	x = i ? pt_presence_take_locked(g, i->waiting) : NULL;
	if (i && !i->waiting)
		pt_presence_forget(g->presence, i);
	pt_presence_unlock(g);
	if (x)
		pt_exchange_answer(x, NULL);
}

void pt_presence_park(struct pt_gateway *g, struct pt_exchange *x)
{
	struct instance *i;
	struct agent *a;

	pt_presence_lock(g);
	i = pt_presence_instance(g->presence, x->q->instance);
	pt_assert(i && !i->waiting && !x->parked);
	i->waiting = x;
	a = pt_presence_agent(g->presence, i->agent, false);
	DL_DELETE(a->others, i);
	DL_APPEND(a->waiting, i); /* to the end: work goes round */
	x->parked = true;
	pt_wheel_add(g->presence, x);
	pt_presence_unlock(g);
}

void pt_presence_unpark(struct pt_gateway *g, struct pt_exchange *x)
{
	pt_presence_lock(g);
	pt_presence_unpark_locked(g, x);
	pt_presence_unlock(g);
}

bool pt_presence_settle(struct pt_gateway *g, struct pt_exchange *x)
{
	bool mine, again;

	pt_presence_lock(g);
	x->in_writer = false;
	/* Those who answer what is parked were here while it was the writer's. */
	if ((x->watch && x->watch->left) || g->stopping)
		pt_presence_unpark_locked(g, x);
	again = x->parked && x->again;
	mine = !x->parked;
	if (again)
		pt_presence_unpark_locked(g, x);
	x->again = false;
	pt_presence_unlock(g);
	if (again)
		pt_exchange_run_again(x);
	return mine;
}

/* Waiting exchanges of the agent that were not looked at in this round; they go to the end of the list, so that the next batch does not
 * walk over them.  From here only this thread ends them: others see in_writer. */
static size_t next_batch(struct pt_presence *p, struct agent *a, struct pt_exchange *xs[static BATCH])
{
	struct instance *i;
	size_t n = 0;

	while ((i = a->waiting) && i->round != p->round) {
		struct pt_exchange *x = i->waiting;

		i->round = p->round;
		DL_DELETE(a->waiting, i);
		DL_APPEND(a->waiting, i);
		if (i->draining || (x->watch && x->watch->left))
			continue;
		x->borrowed = !x->in_writer;
		x->in_writer = true;
		xs[n++] = x;
		if (n == BATCH)
			break;
	}
	return n;
}

int pt_presence_each_dirty(struct pt_gateway *g, int (*fn)(void *arg, const char *agent, struct pt_exchange *const *xs, size_t n), void *arg)
{
	struct pt_presence *p = g->presence;
	int rc = 0;

	while (rc >= 0) {
		struct pt_exchange *xs[BATCH];
		struct agent *a;
		size_t n;

		pt_presence_lock(g);
		a = p->dirty;
		n = a ? next_batch(p, a, xs) : 0;
		pt_presence_unlock(g);
		if (!a)
			return PT_OK;
		rc = n ? fn(arg, a->id, xs, n) : 0;
		if (rc == 0) { /* done with this agent */
			pt_presence_lock(g);
			p->dirty = a->next_dirty;
			a->dirty = false;
			p->round++;
			pt_presence_unlock(g);
		}
		for (size_t k = 0; k < n; k++)
			if (xs[k]->borrowed && !xs[k]->chosen && pt_presence_settle(g, xs[k]))
				pt_exchange_answer(xs[k], NULL); /* its client has left meanwhile */
	}
	p->round++;
	return rc;
}

bool pt_presence_left(struct pt_gateway *g, const struct pt_exchange *x)
{
	bool left;

	pt_presence_lock(g);
	left = x->watch && x->watch->left;
	pt_presence_unlock(g);
	return left;
}

int64_t pt_presence_slots(struct pt_gateway *g, const char *agent, const char *instance)
{
	struct instance *i;
	int64_t slots = 0;

	pt_presence_lock(g);
	i = pt_presence_instance(g->presence, instance);
	if (i && !i->draining && strcmp(i->agent, agent) == 0)
		slots = i->slots;
	pt_presence_unlock(g);
	return slots;
}

bool pt_presence_takes(struct pt_gateway *g, const char *agent, const char *instance, struct pt_list *ret_types)
{
	struct instance *i;
	bool takes;

	pt_presence_lock(g);
	i = pt_presence_instance(g->presence, instance);
	takes = i && strcmp(i->agent, agent) == 0 && pt_presence_connected(i, pt_gateway_now(g)) && i->types &&
		copy_texts(ret_types, pt_types_list(i->types));
	pt_presence_unlock(g);
	return takes;
}

void pt_presence_ended(struct pt_gateway *g, const char *instance, const char *operation, int64_t attempt)
{
	struct instance *i;
	struct held *h;

	pt_presence_lock(g);
	i = pt_presence_instance(g->presence, instance);
	h = i ? pt_presence_held(&i->holding, operation, attempt) : NULL;
	if (h)
		*h = ((struct held *)i->holding.items)[--i->holding.n];
	pt_presence_unlock(g);
}

void pt_presence_dirty(struct pt_gateway *g, const char *agent)
{
	struct agent *a;

	pt_presence_lock(g);
	a = pt_presence_agent(g->presence, agent, false);
	if (a && !a->dirty) {
		a->dirty = true;
		a->next_dirty = g->presence->dirty;
		g->presence->dirty = a;
	}
	pt_presence_unlock(g);
}

void pt_presence_poke_instance(struct pt_gateway *g, const char *instance)
{
	struct instance *i;
	struct pt_exchange *x;

	pt_presence_lock(g);
	i = pt_presence_instance(g->presence, instance);
	x = i ? pt_presence_take_locked(g, i->waiting) : NULL;
	pt_presence_unlock(g);
	pt_exchange_run_again(x);
}

void pt_presence_poke_agent(struct pt_gateway *g, const char *agent)
{
	struct pt_exchange *again = NULL, *x, *xtmp;
	struct agent *a;
	struct instance *i, *tmp;

	pt_presence_lock(g);
	a = pt_presence_agent(g->presence, agent, false);
	for (i = a ? a->waiting : NULL; i; i = tmp) {
		tmp = i->next; /* taking it moves it to the others */
		x = pt_presence_take_locked(g, i->waiting);
		if (x)
			DL_APPEND(again, x);
	}
	pt_presence_unlock(g);
	DL_FOREACH_SAFE(again, x, xtmp)
	pt_exchange_run_again(x);
}
