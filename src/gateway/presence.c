/* Who is connected now: instances of agents and their parked exchanges.  In memory only: a restarted gateway learns it again from the
 * next exchanges.  A thread of its own (the notifier) answers parked exchanges whose time is over. */
#include "base/clock.h"
#include "base/json_write.h"
#include "gateway/exchange.h"
#include <pthread.h>
#include <stdio.h>
#include <uthash.h>
#include <utlist.h>

enum {
	CONNECTED_MS = 15000, /* between an answer and the next exchange an instance still counts as connected */
	FORGET_MS = 3600000,
	INSTANCES_MAX = 50000, /* of one agent: one that makes a new id for each request does not fill the memory */
	TICK_MS = 100,
	BATCH = 32, /* waiting exchanges that dispatch looks at in one go: one operation need not ask thousands of idle instances */
};

struct instance {
	char id[PT_ID_SIZE], agent[PT_ID_SIZE];
	char version[40], hostname[80];
	int64_t slots, connected_at, last_seen;
	bool draining;
	int told; /* enabled flag as last told to the instance; -1 = nothing yet */
	uint64_t serial;        /* of its newest exchange */
	uint64_t round;         /* of the dispatch that looked at it last */
	struct pt_list holding; /* of struct held, as last said */
	struct pt_list types;   /* of char * */
	struct pt_exchange *waiting;
	struct instance *prev, *next; /* in its agent's list */
	UT_hash_handle hh;
};
struct held {
	char operation[PT_ID_SIZE];
	int64_t attempt, rows, bytes;
	int64_t told_at; /* when it was told to stop or drop it, 0 = not */
};
struct agent {
	char id[PT_ID_SIZE];
	struct instance *instances;
	int n_instances;
	bool dirty;
	struct agent *next_dirty;
	UT_hash_handle hh;
};
struct pt_presence {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t notifier;
	bool stop;
	uint64_t serial;
	uint64_t round; /* from 1; counts the agents that dispatch has looked at */
	struct instance *instances;
	struct agent *agents;
	struct agent *dirty;
	struct pt_exchange *parked; /* in the order of their `until` */
};

/* Owned by the HTTP request: lives until the request ends, so a late gone() finds it, and longer than its exchange. */
struct pt_watch {
	struct pt_gateway *g;
	char instance[PT_ID_SIZE];
	bool left; /* under the presence lock */
};

static void lock(struct pt_gateway *g)
{
	pthread_mutex_lock(&g->presence->lock);
}

static void unlock(struct pt_gateway *g)
{
	pthread_mutex_unlock(&g->presence->lock);
}

static struct instance *find_instance(struct pt_presence *p, const char *id)
{
	struct instance *i;

	HASH_FIND_STR(p->instances, id, i);
	return i;
}

static struct agent *find_agent(struct pt_presence *p, const char *id, bool make)
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

static struct held *find_held(const struct pt_list *holding, const char *operation, int64_t attempt)
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
		struct held *h = old->told_at ? find_held(&now, old->operation, old->attempt) : NULL;

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

static void forget_instance(struct pt_presence *p, struct instance *i)
{
	struct agent *a = find_agent(p, i->agent, false);

	if (a) {
		DL_DELETE(a->instances, i);
		a->n_instances--;
	}
	HASH_DEL(p->instances, i);
	free(i->holding.items);
	free_texts(&i->types);
	free(i);
}

static bool connected(const struct instance *i, int64_t now)
{
	return i->waiting || now - i->last_seen < CONNECTED_MS;
}

static void unpark_locked(struct pt_gateway *g, struct pt_exchange *x)
{
	struct instance *i = find_instance(g->presence, x->q->instance);

	if (!x->parked)
		return;
	DL_DELETE(g->presence->parked, x);
	x->parked = false;
	if (!i || i->waiting != x)
		return;
	i->waiting = NULL;
	/* It was here until now; one that left is no longer shown as connected. */
	i->last_seen = pt_gateway_now(g) - (x->watch && x->watch->left ? CONNECTED_MS : 0);
}

/* Take a parked exchange in order to run it again or answer it; NULL when the writer has it (it will look again). */
static struct pt_exchange *take_locked(struct pt_gateway *g, struct pt_exchange *x)
{
	if (!x)
		return NULL;
	if (x->in_writer) {
		x->again = true;
		return NULL;
	}
	unpark_locked(g, x);
	return x;
}

static void run_again(struct pt_exchange *x)
{
	if (!x)
		return;
	x->in_writer = true;
	pt_exchange_submit(x);
}

int pt_presence_seen(struct pt_gateway *g, const struct pt_exchange *x, bool enabled, bool *ret_tell, struct pt_err *err)
{
	struct pt_presence *p = g->presence;
	const struct pt_exchange_request *q = x->q;
	struct pt_exchange *old = NULL;
	struct instance *i;
	struct agent *a;
	int rc;

	lock(g);
	i = find_instance(p, q->instance);
	if (i && strcmp(i->agent, x->c->who.agent) != 0) {
		unlock(g);
		return pt_fail(err, PT_E_CONFLICT, "instance id %s is in use by another agent", q->instance);
	}
	if (i && i->serial > x->serial) {
		unlock(g);
		return 1;
	}
	if (!i) {
		a = find_agent(p, x->c->who.agent, true);
		if (a && a->n_instances >= INSTANCES_MAX) {
			unlock(g);
			return pt_fail(err, PT_E_LIMIT, "the agent has %d instances, connected or lately seen", INSTANCES_MAX);
		}
		i = a ? calloc(1, sizeof(*i)) : NULL;
		if (!i) {
			unlock(g);
			return pt_fail_oom(err);
		}
		pt_id_copy(i->id, q->instance);
		pt_id_copy(i->agent, x->c->who.agent);
		i->connected_at = pt_gateway_now(g);
		i->told = -1;
		HASH_ADD_STR(p->instances, id, i);
		DL_APPEND(a->instances, i);
		a->n_instances++;
	}
	if (i->waiting && i->waiting != x) {
		old = i->waiting;
		unpark_locked(g, old);
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
	free_texts(&i->types);
	rc = copy_texts(&i->types, &q->types) ? set_holding(i, &q->holding, err) : pt_fail_oom(err);
	unlock(g);
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

	lock(g);
	i = find_instance(g->presence, instance);
	h = i ? find_held(&i->holding, operation, attempt) : NULL;
	tell = !h || now - h->told_at >= PT_REDELIVER_MS;
	if (h && tell)
		h->told_at = now;
	*ret_again = (h ? h->told_at : now) + PT_REDELIVER_MS;
	unlock(g);
	return tell;
}

void pt_presence_leave(struct pt_gateway *g, const char *instance)
{
	struct instance *i;
	struct pt_exchange *x;

	lock(g);
	i = find_instance(g->presence, instance);
	x = i ? take_locked(g, i->waiting) : NULL;
	if (i && !i->waiting)
		forget_instance(g->presence, i);
	unlock(g);
	if (x)
		pt_exchange_answer(x, NULL);
}

static int by_until(const struct pt_exchange *a, const struct pt_exchange *b)
{
	return a->until < b->until ? -1 : a->until > b->until;
}

void pt_presence_park(struct pt_gateway *g, struct pt_exchange *x)
{
	struct instance *i;
	struct agent *a;
	struct pt_exchange *tail;

	lock(g);
	i = find_instance(g->presence, x->q->instance);
	pt_assert(i && !x->parked);
	i->waiting = x;
	a = find_agent(g->presence, i->agent, false);
	DL_DELETE(a->instances, i); /* to the end: work goes round */
	DL_APPEND(a->instances, i);
	x->parked = true;
	tail = g->presence->parked ? g->presence->parked->prev : NULL;
	if (!tail || by_until(tail, x) <= 0)
		DL_APPEND(g->presence->parked, x);
	else
		DL_INSERT_INORDER(g->presence->parked, x, by_until);
	unlock(g);
}

void pt_presence_unpark(struct pt_gateway *g, struct pt_exchange *x)
{
	lock(g);
	unpark_locked(g, x);
	unlock(g);
}

bool pt_presence_settle(struct pt_gateway *g, struct pt_exchange *x)
{
	bool mine, again;

	lock(g);
	x->in_writer = false;
	/* Those who answer what is parked were here while it was the writer's. */
	if ((x->watch && x->watch->left) || g->stopping)
		unpark_locked(g, x);
	again = x->parked && x->again;
	mine = !x->parked;
	if (again)
		unpark_locked(g, x);
	x->again = false;
	unlock(g);
	if (again)
		run_again(x);
	return mine;
}

/* Waiting exchanges of the agent that were not looked at in this round, those who wait longest first.  From here only this thread
 * ends them: others see in_writer. */
static size_t next_batch(struct pt_presence *p, struct agent *a, struct pt_exchange *xs[static BATCH])
{
	struct instance *i;
	size_t n = 0;

	DL_FOREACH(a->instances, i)
	{
		struct pt_exchange *x = i->waiting;

		if (!x || i->round == p->round || i->draining || (x->watch && x->watch->left))
			continue;
		i->round = p->round;
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

		lock(g);
		a = p->dirty;
		n = a ? next_batch(p, a, xs) : 0;
		unlock(g);
		if (!a)
			return PT_OK;
		rc = n ? fn(arg, a->id, xs, n) : 0;
		if (rc == 0) { /* done with this agent */
			lock(g);
			p->dirty = a->next_dirty;
			a->dirty = false;
			p->round++;
			unlock(g);
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

	lock(g);
	left = x->watch && x->watch->left;
	unlock(g);
	return left;
}

int64_t pt_presence_slots(struct pt_gateway *g, const char *agent, const char *instance)
{
	struct instance *i;
	int64_t slots = 0;

	lock(g);
	i = find_instance(g->presence, instance);
	if (i && !i->draining && strcmp(i->agent, agent) == 0)
		slots = i->slots;
	unlock(g);
	return slots;
}

bool pt_presence_takes(struct pt_gateway *g, const char *agent, const char *instance, struct pt_list *ret_types)
{
	struct instance *i;
	bool takes;

	lock(g);
	i = find_instance(g->presence, instance);
	takes = i && strcmp(i->agent, agent) == 0 && connected(i, pt_gateway_now(g)) && copy_texts(ret_types, &i->types);
	unlock(g);
	return takes;
}

void pt_presence_dirty(struct pt_gateway *g, const char *agent)
{
	struct agent *a;

	lock(g);
	a = find_agent(g->presence, agent, false);
	if (a && !a->dirty) {
		a->dirty = true;
		a->next_dirty = g->presence->dirty;
		g->presence->dirty = a;
	}
	unlock(g);
}

void pt_presence_poke_instance(struct pt_gateway *g, const char *instance)
{
	struct instance *i;
	struct pt_exchange *x;

	lock(g);
	i = find_instance(g->presence, instance);
	x = i ? take_locked(g, i->waiting) : NULL;
	unlock(g);
	run_again(x);
}

void pt_presence_poke_agent(struct pt_gateway *g, const char *agent)
{
	struct agent *a;
	struct instance *i;

	lock(g);
	a = find_agent(g->presence, agent, false);
	if (a)
		DL_FOREACH(a->instances, i)
	run_again(take_locked(g, i->waiting));
	unlock(g);
}

/* --- clients that leave --- */

static void gone(void *arg)
{
	struct pt_watch *w = arg;
	struct instance *i;
	struct pt_exchange *x = NULL;

	lock(w->g);
	w->left = true; /* while the writer has the exchange it sees this at its end */
	i = find_instance(w->g->presence, w->instance);
	if (i && i->waiting && i->waiting->watch == w && !i->waiting->in_writer)
		x = take_locked(w->g, i->waiting);
	unlock(w->g);
	if (x)
		pt_exchange_answer(x, NULL);
}

void pt_exchange_watch(struct pt_exchange *x)
{
	struct pt_watch *w = calloc(1, sizeof(*w));

	lock(x->c->g);
	x->serial = ++x->c->g->presence->serial;
	unlock(x->c->g);
	x->watch = w;
	if (w) {
		w->g = x->c->g;
		pt_id_copy(w->instance, x->q->instance);
		pt_http_set_data(x->c->req, w, free);
	}
	pt_http_hold(x->c->req, w ? gone : NULL, w);
}

/* --- the notifier --- */

static void sweep(struct pt_gateway *g, int64_t now)
{
	struct instance *i, *tmp;

	HASH_ITER(hh, g->presence->instances, i, tmp)
		if (!i->waiting && now - i->last_seen > FORGET_MS)
			forget_instance(g->presence, i);
}

static void *notify(void *arg)
{
	struct pt_gateway *g = arg;
	struct pt_presence *p = g->presence;
	int64_t next_sweep = pt_mono_ms() + FORGET_MS / 10;

	lock(g);
	while (!p->stop) {
		struct pt_exchange *over = NULL, *recheck = NULL, *x, *tmp;
		int64_t now = pt_gateway_now(g);
		struct timespec ts;

		DL_FOREACH_SAFE(p->parked, x, tmp) {
			if (x->in_writer)
				continue;
			if (x->until <= now) {
				unpark_locked(g, x);
				DL_APPEND(over, x);
			} else if (x->recheck_at && x->recheck_at <= now) {
				unpark_locked(g, x);
				DL_APPEND(recheck, x);
			}
		}
		if (pt_mono_ms() > next_sweep) {
			sweep(g, now);
			next_sweep = pt_mono_ms() + FORGET_MS / 10;
		}
		unlock(g);
		DL_FOREACH_SAFE(over, x, tmp)
			pt_exchange_answer(x, NULL);
		DL_FOREACH_SAFE(recheck, x, tmp)
			run_again(x);
		lock(g);
		clock_gettime(CLOCK_MONOTONIC, &ts);
		ts.tv_nsec += TICK_MS * 1000000L;
		if (ts.tv_nsec >= 1000000000) {
			ts.tv_nsec -= 1000000000;
			ts.tv_sec++;
		}
		if (!p->stop)
			pthread_cond_timedwait(&p->wake, &p->lock, &ts);
	}
	unlock(g);
	return NULL;
}

void pt_presence_drain(struct pt_gateway *g)
{
	struct pt_exchange *all = NULL, *x, *tmp;

	lock(g);
	DL_FOREACH_SAFE(g->presence->parked, x, tmp) {
		if (x->in_writer)
			continue; /* settled by the writer, which answers it: the gateway is stopping */
		unpark_locked(g, x);
		DL_APPEND(all, x);
	}
	unlock(g);
	DL_FOREACH_SAFE(all, x, tmp)
		pt_exchange_answer(x, NULL);
}

int pt_presence_new(struct pt_gateway *g, struct pt_err *err)
{
	struct pt_presence *p = calloc(1, sizeof(*p));
	pthread_condattr_t attr;

	if (!p)
		return pt_fail_oom(err);
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->wake, &attr);
	pthread_condattr_destroy(&attr);
	p->round = 1;
	g->presence = p;
	if (pthread_create(&p->notifier, NULL, notify, g) != 0) {
		free(p);
		g->presence = NULL;
		return pt_fail(err, PT_E_INTERNAL, "cannot start the notifier thread");
	}
	return PT_OK;
}

void pt_presence_free(struct pt_gateway *g)
{
	struct pt_presence *p = g->presence;
	struct instance *i, *itmp;
	struct agent *a, *atmp;

	if (!p)
		return;
	lock(g);
	p->stop = true;
	pthread_cond_signal(&p->wake);
	unlock(g);
	pthread_join(p->notifier, NULL);
	pt_assert(!p->parked);
	HASH_ITER(hh, p->instances, i, itmp)
		forget_instance(p, i);
	HASH_ITER(hh, p->agents, a, atmp) {
		HASH_DEL(p->agents, a);
		free(a);
	}
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->wake);
	free(p);
	g->presence = NULL;
}

/* --- for people --- */

void pt_presence_of(struct pt_gateway *g, const char *agent, struct pt_presence_info *ret)
{
	int64_t now = pt_gateway_now(g);
	struct agent *a;
	struct instance *i;

	*ret = (struct pt_presence_info){ 0 };
	lock(g);
	a = find_agent(g->presence, agent, false);
	if (a)
		DL_FOREACH(a->instances, i) {
			if (i->last_seen > ret->last_seen)
				ret->last_seen = i->last_seen;
			if (!connected(i, now))
				continue;
			ret->instances++;
			ret->slots += i->draining ? 0 : i->slots;
			ret->held += (int64_t)i->holding.n;
		}
	unlock(g);
}

void pt_presence_view(struct pt_gateway *g, const char *agent, struct pt_buf *out)
{
	int64_t now = pt_gateway_now(g);
	struct agent *a;
	struct instance *i;

	pt_jw_open(out, "instances", '[');
	lock(g);
	a = find_agent(g->presence, agent, false);
	if (a)
		DL_FOREACH(a->instances, i) {
			if (!connected(i, now))
				continue;
			pt_jw_open(out, NULL, '{');
			pt_jw_str(out, "id", i->id);
			pt_jw_str(out, "version", i->version);
			pt_jw_str(out, "hostname", i->hostname);
			pt_jw_i64(out, "slots", i->slots);
			pt_jw_i64(out, "holding", (int64_t)i->holding.n);
			pt_jw_bool(out, "draining", i->draining);
			pt_jw_time(out, "connected_at", i->connected_at);
			pt_jw_time(out, "last_seen_at", i->waiting ? now : i->last_seen);
			pt_jw_close(out, '}');
		}
	unlock(g);
	pt_jw_close(out, ']');
}

bool pt_presence_progress(struct pt_gateway *g, const char *instance, const char *operation, int64_t *ret_rows, int64_t *ret_bytes)
{
	bool found = false;
	struct instance *i;

	lock(g);
	i = find_instance(g->presence, instance);
	for (size_t k = 0; i && k < i->holding.n; k++) {
		const struct held *h = &((struct held *)i->holding.items)[k];

		if (strcmp(h->operation, operation) == 0) {
			*ret_rows = h->rows;
			*ret_bytes = h->bytes;
			found = true;
		}
	}
	unlock(g);
	return found;
}

unsigned pt_presence_count(struct pt_gateway *g)
{
	int64_t now = pt_gateway_now(g);
	struct instance *i, *tmp;
	unsigned n = 0;

	lock(g);
	HASH_ITER(hh, g->presence->instances, i, tmp)
		n += connected(i, now);
	unlock(g);
	return n;
}
