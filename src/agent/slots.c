/* The attempts that this process has: from the lease to the result in the spool.  The table is guarded by slots.lock; an
 * attempt's lease, head and result belong to the executor thread that runs it (slots_run.c). */
#include "agent/slots_int.h"
#include "base/clock.h"
#include "base/log.h"
#include <stdio.h>

enum {
	STUCK_MS = 120 * 1000, /* past its time limit for so long: its thread hangs */
	HOLDING_MAX = 1024,    /* of the protocol */
};

/* --- table and ledger (under the lock) --- */

static uint64_t hash_key(const struct attempt_key *k)
{
	const unsigned char *p = (const void *)k;
	uint64_t h = 14695981039346656037ull; /* FNV-1a */

	for (size_t i = 0; i < sizeof(*k); i++)
		h = (h ^ p[i]) * 1099511628211ull;
	return h ? h : 1;
}

static struct attempt_key key_of(const char *operation, int64_t attempt)
{
	struct attempt_key k = { .attempt = attempt };

	snprintf(k.operation, sizeof(k.operation), "%s", operation);
	return k;
}

static struct pt_attempt *find(struct pt_slots *s, const char *operation, int64_t attempt)
{
	struct attempt_key k = key_of(operation, attempt);
	struct pt_attempt *a;

	HASH_FIND(hh, s->table, &k, sizeof(k), a);
	return a;
}

static bool in_ledger(const struct pt_slots *s, const struct attempt_key *k)
{
	uint64_t h = hash_key(k);

	for (size_t i = 0; i < PT_LEDGER; i++)
		if (s->ledger[i] == h)
			return true;
	return false;
}

static void forget(struct pt_slots *s, struct pt_attempt *a)
{
	HASH_DEL(s->table, a);
	if (a->state != PT_ATTEMPT_RELEASED)
		s->busy--;
	s->ledger[s->ledger_at++ % PT_LEDGER] = hash_key(&a->key);
	pt_shape_release(&pt_lease_shape, &a->lease);
	pt_cancel_release(&a->cancel);
	free(a);
	pthread_cond_broadcast(&s->changed);
}

static void release(struct pt_slots *s, struct pt_attempt *a)
{
	pt_assert(a->state != PT_ATTEMPT_RELEASED);
	a->state = PT_ATTEMPT_RELEASED;
	s->busy--;
	pthread_cond_broadcast(&s->changed);
}

/* On an executor thread. */
static void run_attempt(void *arg)
{
	struct pt_attempt *a = arg;
	struct pt_agent *ag = a->agent;
	struct pt_slots *s = &ag->slots;
	bool go, done = false;

	pthread_mutex_lock(&s->lock);
	go = !a->give_back && !a->dropped;
	if (go) {
		a->state = PT_ATTEMPT_RUNNING;
		a->started_at = pt_wall_ms();
	}
	pthread_mutex_unlock(&s->lock);
	if (go)
		done = pt_attempt_run(a);
	pthread_mutex_lock(&s->lock);
	done |= a->dropped;
	if (done)
		forget(s, a);
	else
		release(s, a);
	pthread_mutex_unlock(&s->lock);
	if (!done)
		pt_link_nudge(ag);
}

/* --- leases --- */

void pt_slots_clock(struct pt_agent *ag, int64_t server_time)
{
	pthread_mutex_lock(&ag->slots.lock);
	ag->slots.server_at = server_time;
	ag->slots.heard_at = pt_mono_ms();
	pthread_mutex_unlock(&ag->slots.lock);
}

/* The gateway's wall clock now, by our monotonic one: whoever sets this machine's time of day moves no deadline. */
static int64_t server_now(const struct pt_slots *s, int64_t mono)
{
	return s->server_at ? s->server_at + (mono - s->heard_at) : pt_wall_ms();
}

static struct pt_attempt *attempt_new(struct pt_agent *ag, struct pt_lease *lease)
{
	struct pt_slots *s = &ag->slots;
	struct pt_attempt *a = calloc(1, sizeof(*a));
	struct pt_err err = { 0 };
	int64_t now = pt_mono_ms(), left;

	if (!a || pt_cancel_init(&a->cancel, &err) < 0) {
		free(a);
		return NULL;
	}
	pt_limits_defaults(&lease->limits);
	a->key = key_of(lease->operation, lease->attempt);
	a->agent = ag;
	a->lease = *lease;
	memset(lease, 0, sizeof(*lease));
	left = a->lease.deadline - server_now(s, now);
	a->deadline_ms = left > INT64_MAX / 2 ? INT64_MAX : now + (left < 0 ? 0 : left);
	a->cancel.deadline_ms =
		now + a->lease.limits.timeout_ms < a->deadline_ms ? now + a->lease.limits.timeout_ms : a->deadline_ms;
	HASH_ADD(hh, s->table, key, sizeof(a->key), a);
	s->busy++;
	ag->counts.leases++;
	return a;
}

void pt_slots_lease(struct pt_agent *ag, struct pt_lease *lease)
{
	struct pt_slots *s = &ag->slots;
	struct attempt_key k = key_of(lease->operation, lease->attempt);
	struct pt_attempt *a = NULL;
	struct pt_err err = { 0 };
	bool known, give_back = false;

	pthread_mutex_lock(&s->lock);
	known = find(s, k.operation, k.attempt) || in_ledger(s, &k) || pt_spool_has(ag->spool, k.operation, k.attempt);
	if (!known) {
		give_back = s->draining || s->busy >= s->slots;
		a = attempt_new(ag, lease);
	}
	if (a && !give_back && s->exec->ops->submit(s->exec, run_attempt, a, &err) < 0)
		give_back = true;
	if (a && give_back) /* leased while we began to drain, or more than we have room for */
		release(s, a);
	pthread_mutex_unlock(&s->lock);
	if (!known && !a)
		pt_error("no memory for a lease; the gateway sends it again", "operation", k.operation);
	if (a && give_back)
		pt_link_nudge(ag);
	pt_shape_release(&pt_lease_shape, lease);
}

bool pt_slots_cancel(struct pt_agent *ag, const struct pt_attempt_ref *ref)
{
	struct pt_slots *s = &ag->slots;
	bool expired = ref->code && strcmp(ref->code, pt_code_wire(PT_E_DEADLINE)) == 0;
	struct pt_attempt *a;
	bool news;

	pthread_mutex_lock(&s->lock);
	a = find(s, ref->operation, ref->attempt);
	news = a && !a->cancelled && a->state <= PT_ATTEMPT_RUNNING;
	if (news) {
		a->cancelled = true;
		pt_cancel_fire(&a->cancel, expired ? PT_E_DEADLINE : PT_E_CANCELLED,
			       ref->reason ? ref->reason : expired ? "the operation's deadline has passed" : "cancelled");
	}
	pthread_mutex_unlock(&s->lock);
	return news;
}

bool pt_slots_drop(struct pt_agent *ag, const struct pt_attempt_ref *ref)
{
	struct pt_slots *s = &ag->slots;
	struct pt_attempt *a;
	bool news;

	pthread_mutex_lock(&s->lock);
	a = find(s, ref->operation, ref->attempt);
	news = a && !a->dropped;
	if (news && a->state == PT_ATTEMPT_RELEASED) {
		forget(s, a);
	} else if (news) {
		a->dropped = true;
		pt_cancel_fire(&a->cancel, PT_E_CANCELLED, ref->reason ? ref->reason : "the attempt is no longer this agent's");
	}
	pthread_mutex_unlock(&s->lock);
	return news;
}

/* --- what the exchange says --- */

struct spooled {
	struct pt_list *holding;
	size_t live; /* the first entries of holding: those in the table */
	int rc;
	struct pt_err *err;
};

static int held(struct pt_list *l, const struct attempt_key *k, const char *state, const struct pt_attempt *a, struct pt_err *err)
{
	struct pt_holding h = { .attempt = k->attempt, .state = strdup(state) };

	if (!h.state)
		return pt_fail_oom(err);
	memcpy(h.operation, k->operation, sizeof(h.operation));
	if (a) {
		h.started_at = a->started_at;
		h.rows = a->rows;
		h.bytes = a->bytes;
	}
	if (pt_list_append(l, sizeof(h), &h, err) < 0) {
		free(h.state);
		return PT_E_INTERNAL;
	}
	return PT_OK;
}

static void add_spooled(void *arg, const char *operation, int64_t attempt)
{
	struct spooled *sp = arg;
	struct attempt_key k = key_of(operation, attempt);
	struct pt_holding *h = sp->holding->items;

	for (size_t i = 0; i < sp->live; i++)
		if (h[i].attempt == attempt && strcmp(h[i].operation, operation) == 0)
			return; /* it went into the spool a moment ago */
	if (sp->rc == 0 && sp->holding->n < HOLDING_MAX)
		sp->rc = held(sp->holding, &k, "spooled", NULL, sp->err);
}

static void give_back(const struct pt_slots *s, const struct pt_attempt *a, struct pt_list *released, struct pt_err *err)
{
	struct pt_attempt_ref r = { .attempt = a->key.attempt };

	memcpy(r.operation, a->key.operation, sizeof(r.operation));
	r.reason = strdup(s->draining ? "the agent is stopping" : "the agent has no room for it");
	if (released->n >= HOLDING_MAX || pt_list_append(released, sizeof(r), &r, err) < 0)
		free(r.reason);
}

int pt_slots_report(struct pt_agent *ag, bool goodbye, struct pt_list *holding, struct pt_list *released, int64_t *ret_slots,
		    bool *ret_fresh, struct pt_err *err)
{
	struct pt_slots *s = &ag->slots;
	struct pt_spool_stats st;
	struct pt_attempt *a;
	struct spooled sp;
	int rc = 0;

	pt_spool_stats(ag->spool, &st);
	*ret_fresh = false;
	/* The table before the spool: an attempt on its way from one to the other is seen at least once. */
	pthread_mutex_lock(&s->lock);
	for (a = s->table; rc == 0 && a; a = a->hh.next) {
		/* The last word about what may have happened: the gateway may not know yet that it was started. */
		bool uncertain = (goodbye || a->state == PT_ATTEMPT_RELEASED) && a->started_at &&
				 pt_at_most_once(a->lease.delivery) && !pt_spool_has(ag->spool, a->key.operation, a->key.attempt);

		if (uncertain || (a->state != PT_ATTEMPT_RELEASED && !goodbye)) {
			rc = holding->n < HOLDING_MAX ? held(holding, &a->key, "running", a, err) : 0;
			*ret_fresh |= a->state == PT_ATTEMPT_WAITING;
		}
		if (uncertain || a->state == PT_ATTEMPT_RELEASED)
			give_back(s, a, released, err);
	}
	*ret_slots = st.full && s->busy < s->slots ? s->busy : s->slots;
	pthread_mutex_unlock(&s->lock);
	sp = (struct spooled){ .holding = holding, .live = holding->n, .rc = rc, .err = err };
	pt_spool_each(ag->spool, add_spooled, &sp);
	return sp.rc;
}

void pt_slots_told(struct pt_agent *ag, const struct pt_list *released)
{
	const struct pt_attempt_ref *r = released->items;
	struct pt_slots *s = &ag->slots;

	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < released->n; i++) {
		struct pt_attempt *a = find(s, r[i].operation, r[i].attempt);

		if (a && a->state == PT_ATTEMPT_RELEASED)
			forget(s, a);
	}
	pthread_mutex_unlock(&s->lock);
}

/* --- stopping --- */

void pt_slots_drain(struct pt_agent *ag)
{
	struct pt_slots *s = &ag->slots;

	pthread_mutex_lock(&s->lock);
	s->draining = true;
	for (struct pt_attempt *a = s->table; a; a = a->hh.next)
		if (a->state == PT_ATTEMPT_WAITING)
			a->give_back = true; /* its thread sees it at once, and releases it */
	pthread_mutex_unlock(&s->lock);
}

void pt_slots_cancel_all(struct pt_agent *ag)
{
	struct pt_slots *s = &ag->slots;

	pthread_mutex_lock(&s->lock);
	for (struct pt_attempt *a = s->table; a; a = a->hh.next) {
		if (a->state > PT_ATTEMPT_RUNNING)
			continue;
		/* A cancel that the gateway asked for ends as its result. */
		a->give_back = !a->cancelled && !(a->state == PT_ATTEMPT_RUNNING && pt_at_most_once(a->lease.delivery));
		pt_cancel_fire(&a->cancel, PT_E_CANCELLED, "the agent is stopping");
	}
	pthread_mutex_unlock(&s->lock);
}

void pt_slots_abort(struct pt_agent *ag)
{
	pthread_mutex_lock(&ag->slots.lock);
	ag->slots.abort = true;
	pthread_cond_broadcast(&ag->slots.changed);
	pthread_mutex_unlock(&ag->slots.lock);
}

bool pt_slots_wait(struct pt_agent *ag, int level, int64_t until_ms)
{
	struct pt_slots *s = &ag->slots;
	bool idle;

	pthread_mutex_lock(&s->lock);
	while (s->busy && ag->stop <= level && pt_mono_ms() < until_ms)
		(void)pt_cond_wait_ms(&s->changed, &s->lock, until_ms - pt_mono_ms());
	idle = !s->busy;
	pthread_mutex_unlock(&s->lock);
	return idle;
}

static bool storing(const struct pt_slots *s)
{
	for (const struct pt_attempt *a = s->table; a; a = a->hh.next)
		if (a->state == PT_ATTEMPT_STORING)
			return true;
	return false;
}

void pt_slots_settle(struct pt_agent *ag, int64_t until_ms)
{
	struct pt_slots *s = &ag->slots;

	pthread_mutex_lock(&s->lock);
	while (storing(s) && pt_mono_ms() < until_ms)
		(void)pt_cond_wait_ms(&s->changed, &s->lock, until_ms - pt_mono_ms());
	pthread_mutex_unlock(&s->lock);
}

/* --- numbers --- */

unsigned pt_slots_busy(struct pt_agent *ag)
{
	unsigned n;

	pthread_mutex_lock(&ag->slots.lock);
	n = ag->slots.busy;
	pthread_mutex_unlock(&ag->slots.lock);
	return n;
}

unsigned pt_slots_running(struct pt_agent *ag)
{
	unsigned n = 0;

	pthread_mutex_lock(&ag->slots.lock);
	for (struct pt_attempt *a = ag->slots.table; a; a = a->hh.next)
		n += a->state == PT_ATTEMPT_RUNNING;
	pthread_mutex_unlock(&ag->slots.lock);
	return n;
}

bool pt_slots_stuck(struct pt_agent *ag)
{
	bool stuck = false;

	pthread_mutex_lock(&ag->slots.lock);
	for (struct pt_attempt *a = ag->slots.table; a; a = a->hh.next)
		stuck |= a->state <= PT_ATTEMPT_RUNNING && pt_mono_ms() - STUCK_MS > a->cancel.deadline_ms;
	pthread_mutex_unlock(&ag->slots.lock);
	return stuck;
}

int pt_slots_open(struct pt_agent *ag, struct pt_err *err)
{
	struct pt_slots *s = &ag->slots;

	pthread_mutex_init(&s->lock, NULL);
	pt_cond_init(&s->changed);
	s->slots = (unsigned)ag->conf->slots;
	/* Twice the slots: an attempt leaves the table a moment before its thread is idle again, and its successor may be
	 * quicker. */
	return pt_executor_thread(&s->exec, s->slots * 2, err);
}

void pt_slots_close(struct pt_agent *ag)
{
	struct pt_slots *s = &ag->slots;
	struct pt_attempt *a, *tmp;

	HASH_ITER(hh, s->table, a, tmp)
		forget(s, a);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->changed);
}
