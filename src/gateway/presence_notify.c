/* The presence table's own thread: it answers parked exchanges whose time is over, and forgets instances.  Also clients that leave, and
 * the table's start and end. */
#include "base/clock.h"
#include "base/id.h"
#include "gateway/presence_int.h"
#include "os/cond.h"
#include <stdio.h>

enum {
	FORGET_MS = 3600000,
	SPREAD_MS = 10000, /* waits from here on are spread */
	CROWDED_S = 5,
};

/* --- clients that leave --- */

static void gone(void *arg)
{
	struct pt_watch *w = arg;
	struct instance *i;
	struct pt_exchange *x = NULL;

	pt_presence_lock(w->g);
	w->left = true; /* while the writer has the exchange it sees this at its end */
	i = pt_presence_instance(w->g->presence, w->instance);
	if (i && i->waiting && i->waiting->watch == w && !i->waiting->in_writer)
		x = pt_presence_take_locked(w->g, i->waiting);
	pt_presence_unlock(w->g);
	if (x)
		pt_exchange_answer(x, NULL);
}

int pt_exchange_room(const struct pt_call *c, struct pt_err *err)
{
	char seconds[12];
	uint32_t r;

	if (!pt_http_crowded(c->req))
		return PT_OK;
	pt_random(&r, sizeof(r)); /* whoever is refused now comes back when others do not */
	snprintf(seconds, sizeof(seconds), "%u", CROWDED_S + r % CROWDED_S);
	pt_http_set_header(c->req, "Retry-After", seconds);
	(void)pt_fail(err, PT_E_UNAVAILABLE, "the gateway has as many connections as its file limit allows");
	return pt_hint(err, "raise the gateway's limit of open files (LimitNOFILE in its systemd unit, `ulimit -n`)");
}

int64_t pt_exchange_wait_ms(int64_t ms)
{
	uint32_t r;

	if (ms < SPREAD_MS)
		return ms;
	pt_random(&r, sizeof(r));
	return ms - r % (ms / 8);
}

void pt_exchange_watch(struct pt_exchange *x)
{
	struct pt_watch *w = calloc(1, sizeof(*w));

	pt_presence_lock(x->c->g);
	x->serial = ++x->c->g->presence->serial;
	pt_presence_unlock(x->c->g);
	x->watch = w;
	if (w) {
		w->g = x->c->g;
		pt_id_copy(w->instance, x->q->instance);
		pt_http_set_data(x->c->req, w, free);
	}
	pt_http_drop_body(x->c->req); /* x->q has all of it */
	pt_http_hold(x->c->req, w ? gone : NULL, w);
}

/* --- the notifier --- */

static void sweep(struct pt_gateway *g, int64_t now)
{
	struct instance *i, *tmp;

	HASH_ITER(hh, g->presence->instances, i, tmp)
		if (!i->waiting && now - i->last_seen > FORGET_MS)
			pt_presence_forget(g->presence, i);
}

static void *notify(void *arg)
{
	struct pt_gateway *g = arg;
	struct pt_presence *p = g->presence;
	int64_t next_sweep = pt_mono_ms() + FORGET_MS / 10;

	pt_presence_lock(g);
	while (!p->stop) {
		struct pt_exchange *over = NULL, *recheck = NULL, *x, *tmp;
		int64_t now = pt_gateway_now(g);

		pt_wheel_turn(g, now, &over, &recheck);
		if (pt_mono_ms() > next_sweep) {
			sweep(g, now);
			next_sweep = pt_mono_ms() + FORGET_MS / 10;
		}
		pt_presence_unlock(g);
		DL_FOREACH_SAFE(over, x, tmp)
			pt_exchange_answer(x, NULL);
		DL_FOREACH_SAFE(recheck, x, tmp)
			pt_exchange_run_again(x);
		pt_presence_lock(g);
		if (!p->stop)
			(void)pt_cond_wait_ms(&p->wake, &p->lock, PT_TICK_MS);
	}
	pt_presence_unlock(g);
	return NULL;
}

void pt_presence_drain(struct pt_gateway *g)
{
	struct pt_exchange *all = NULL, *x, *tmp;

	pt_presence_lock(g);
	pt_wheel_empty(g, &all); /* the writer's are settled by it, which answers them: the gateway is stopping */
	pt_presence_unlock(g);
	DL_FOREACH_SAFE(all, x, tmp)
		pt_exchange_answer(x, NULL);
}

int pt_presence_new(struct pt_gateway *g, struct pt_err *err)
{
	struct pt_presence *p = calloc(1, sizeof(*p));

	if (!p)
		return pt_fail_oom(err);
	pthread_mutex_init(&p->lock, NULL);
	pt_cond_init(&p->wake);
	p->round = 1;
	p->ticked = pt_gateway_now(g) / PT_TICK_MS;
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
	pt_presence_lock(g);
	p->stop = true;
	pthread_cond_signal(&p->wake);
	pt_presence_unlock(g);
	pthread_join(p->notifier, NULL);
	pt_assert(!p->n_parked);
	HASH_ITER(hh, p->instances, i, itmp)
		pt_presence_forget(p, i);
	HASH_ITER(hh, p->agents, a, atmp) {
		HASH_DEL(p->agents, a);
		free(a);
	}
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->wake);
	free(p);
	g->presence = NULL;
}
