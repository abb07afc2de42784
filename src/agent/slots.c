/* The attempts that this process has: from the lease to the result in the spool.  The table is guarded by slots.lock; an
 * attempt's lease, head and result belong to the executor thread that runs it. */
#include "agent/agent_int.h"
#include "base/clock.h"
#include "base/log.h"
#include <malloc.h>
#include <stdio.h>

enum {
	STUCK_MS = 120 * 1000,      /* past its time limit for so long: its thread hangs */
	SKEW_MS = 2000,             /* clocks that differ by less are taken as equal */
	BIG_BODY = 1024 * 1024,     /* results above this give memory back to the system afterwards */
	HOLDING_MAX = 1024,         /* of the protocol */
};

struct attempt_key {
	char operation[PT_ID_SIZE];
	int64_t attempt;
};
_Static_assert(sizeof(struct attempt_key) == PT_ID_SIZE + 8, "hashed as bytes: no padding");

struct pt_attempt {
	struct attempt_key key;
	struct pt_agent *agent;
	struct pt_lease lease;
	struct pt_cancel cancel;
	int64_t deadline_ms; /* the operation's, pt_mono_ms() */
	enum pt_attempt_state state;
	_Atomic bool cancelled;    /* the gateway asked for it */
	bool dropped, give_back;   /* no longer ours; our own stop wants it back at the gateway */
	int64_t started_at;                 /* wall */
	_Atomic int64_t rows, bytes;
	UT_hash_handle hh;
};

const char *const pt_result_statuses[PT_RESULT_STATUSES] = { "succeeded", "failed", "cancelled", "expired" };

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

/* --- running (an executor thread) --- */

/* How an attempt that failed with err ended. */
static const char *status_of(const struct pt_attempt *a, const struct pt_err *err)
{
	struct pt_err why = { 0 };
	int code = pt_cancel_check(&a->cancel, &why);

	if (code == PT_E_CANCELLED)
		return "cancelled";
	if (code == PT_E_DEADLINE && (a->cancelled || pt_mono_ms() >= a->deadline_ms))
		return "expired";
	if (err->code == PT_E_CANCELLED)
		return "cancelled";
	return "failed";
}

/* Which of the two limits it was: the token knows only the earlier one. */
static void name_limit(const struct pt_attempt *a, const char *status, struct pt_err *err)
{
	if (err->code != PT_E_DEADLINE)
		return;
	if (strcmp(status, "expired") == 0) {
		(void)pt_fail(err, PT_E_DEADLINE, "the operation's deadline passed while attempt %lld ran",
			      (long long)a->key.attempt);
		(void)pt_hint(err, "submit it with a later deadline_s");
	} else {
		(void)pt_fail(err, PT_E_DEADLINE, "the time limit of %lld ms has passed", (long long)a->lease.limits.timeout_ms);
		(void)pt_hint(err, "give it more time (limits.timeout_ms), or ask for less");
	}
}

static int set_status(struct pt_result_head *h, const char *status, const struct pt_err *why, struct pt_err *err)
{
	h->status = strdup(status);
	if (why)
		pt_error_doc_from(&h->error, why);
	return h->status && (!why || (h->error.code && h->error.message)) ? PT_OK : pt_fail_oom(err);
}

/* A head that says only what went wrong. */
static int head_failed(struct pt_attempt *a, struct pt_result_head *h, const char *status, const struct pt_err *why,
		       struct pt_err *err)
{
	pt_shape_release(&pt_result_head_shape, h);
	*h = (struct pt_result_head){ .affected = -1, .started_at = a->started_at, .finished_at = pt_wall_ms() };
	memcpy(h->instance, a->agent->instance, sizeof(h->instance));
	return set_status(h, status, why, err);
}

/* Store the result, whatever it takes: a full spool gets the head alone, and a disk that refuses is tried again until the
 * agent has to leave.  False: given up. */
static bool store(struct pt_attempt *a, struct pt_spool_writer *w, struct pt_result_head *head)
{
	struct pt_slots *s = &a->agent->slots;
	struct pt_backoff backoff = PT_BACKOFF_INIT(250, 30000, 0);
	struct pt_err err = { 0 }, e = { 0 };
	bool said = false, bare = false, stop;

	for (;;) {
		int64_t until;
		int rc = pt_spool_commit(w, head, &err);

		if (rc == 0)
			return true;
		if (!bare && rc != PT_E_IO) { /* no room, or too large: say so in place of the result */
			bare = true;
			pt_spool_abandon_body(w);
			(void)pt_err_wrap(&err, rc, "the result could not be stored");
			if (head_failed(a, head, "failed", &err, &e) == 0)
				continue;
		}
		if (!said)
			pt_log_err(PT_LOG_ERROR, "a result cannot be stored; the agent keeps trying", &err);
		said = true;
		until = pt_mono_ms() + pt_backoff_fail(&backoff, 100);
		pthread_mutex_lock(&s->lock);
		while (!s->abort && pt_mono_ms() < until)
			(void)pt_cond_wait_ms(&s->changed, &s->lock, until - pt_mono_ms());
		stop = s->abort;
		pthread_mutex_unlock(&s->lock);
		if (stop)
			return false;
	}
}

static void count_result(struct pt_agent *ag, const char *status, int64_t ms)
{
	static const int bounds_ms[PT_SECONDS_BUCKETS] = { 10, 100, 500, 1000, 5000, 30000, 120000, 600000 };
	size_t b = 0;

	for (size_t i = 0; i < PT_RESULT_STATUSES; i++)
		if (strcmp(pt_result_statuses[i], status) == 0)
			ag->counts.results[i]++;
	while (b < PT_SECONDS_BUCKETS && ms > bounds_ms[b])
		b++;
	ag->counts.seconds[b]++;
	ag->counts.seconds_sum_ms += ms;
}

/* Run the operation and leave what came of it in w and head. */
static void execute(struct pt_attempt *a, struct pt_spool_writer *w, struct pt_result_head *head)
{
	struct pt_op_run run = { .lease = &a->lease, .cancel = &a->cancel, .agent = &a->agent->view, .body = pt_spool_body(w),
				 .head = head, .rows = &a->rows, .bytes = &a->bytes };
	struct pt_err err = { 0 }, e = { 0 };
	const char *status;
	int rc = pt_cancel_check(&a->cancel, &err);

	if (rc == 0)
		rc = pt_op_execute(&run, &err);
	if (rc == 0) {
		memcpy(head->instance, a->agent->instance, sizeof(head->instance));
		head->started_at = a->started_at;
		head->finished_at = pt_wall_ms();
		rc = set_status(head, "succeeded", NULL, &err);
	}
	if (rc == 0)
		return;
	pt_spool_abandon_body(w);
	status = status_of(a, &err);
	name_limit(a, status, &err);
	/* out of memory: pt_spool_commit() refuses, store() tries again */
	if (head_failed(a, head, status, &err, &e) < 0)
		pt_log_err(PT_LOG_ERROR, "no memory for a result", &e);
}

/* True: the attempt is done with, false: it is to be given back. */
static bool run_and_store(struct pt_attempt *a)
{
	struct pt_agent *ag = a->agent;
	struct pt_slots *s = &ag->slots;
	struct pt_spool_writer *w = NULL;
	struct pt_result_head head = { 0 };
	struct pt_err err = { 0 };
	bool keep, big, stored;

	if (pt_spool_begin(ag->spool, a->key.operation, a->key.attempt, &w, &err) < 0) {
		pt_log_err(PT_LOG_ERROR, "no memory for an operation; it is given back", &err);
		return false;
	}
	execute(a, w, &head);
	pthread_mutex_lock(&s->lock);
	keep = !a->dropped && !(a->give_back && head.status && strcmp(head.status, "cancelled") == 0);
	if (keep)
		a->state = PT_ATTEMPT_STORING;
	pthread_mutex_unlock(&s->lock);
	big = a->bytes > BIG_BODY;
	stored = keep && store(a, w, &head);
	if (stored)
		count_result(ag, head.status, head.finished_at - head.started_at);
	if (pt_log_on(PT_LOG_DEBUG))
		pt_debug("attempt ended", "operation", a->key.operation, "attempt", pt_num(a->key.attempt), "status", head.status,
			 "code", head.error.code, "error", head.error.message, "stored", stored ? "yes" : "no");
	pt_spool_writer_free(w);
	pt_shape_release(&pt_result_head_shape, &head);
	if (big)
		(void)malloc_trim(0);
	return stored;
}

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
		done = run_and_store(a);
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
	int64_t skew = server_time - pt_wall_ms();

	pthread_mutex_lock(&ag->slots.lock);
	ag->slots.skew_ms = skew > -SKEW_MS && skew < SKEW_MS ? 0 : skew;
	pthread_mutex_unlock(&ag->slots.lock);
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
	left = a->lease.deadline - (pt_wall_ms() + s->skew_ms);
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

int pt_slots_report(struct pt_agent *ag, struct pt_list *holding, struct pt_list *released, int64_t *ret_slots, bool *ret_fresh,
		    struct pt_err *err)
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
		struct pt_attempt_ref r = { .attempt = a->key.attempt };

		if (a->state != PT_ATTEMPT_RELEASED) {
			rc = holding->n < HOLDING_MAX ? held(holding, &a->key, "running", a, err) : 0;
			*ret_fresh |= a->state == PT_ATTEMPT_WAITING;
			continue;
		}
		memcpy(r.operation, a->key.operation, sizeof(r.operation));
		r.reason = strdup(s->draining ? "the agent is stopping" : "the agent has no room for it");
		if (released->n >= HOLDING_MAX || pt_list_append(released, sizeof(r), &r, err) < 0)
			free(r.reason);
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
		a->give_back = !a->cancelled; /* a cancel that the gateway asked for ends as its result */
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
