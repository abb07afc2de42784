/* The link: one thread that keeps one exchange open, so that the gateway can give work, cancel and drain at any time, and
 * each side knows what the other holds.  Everything that fails is tried again for ever; the log hears of changes only. */
#include "agent/agent_int.h"
#include "base/clock.h"
#include "base/log.h"
#include "config.h"
#include <stdio.h>

enum {
	WAIT_IDLE_MS = 40000,
	WAIT_BUSY_MS = 20000,
	WAIT_FRESH_MS = 1000, /* something that was listed has not begun: say soon that it has */
	GRACE_MS = 15000,     /* an answer may come so much later than the time that we let the gateway wait */
	ANSWER_MAX = 64 << 20,
	REFUSED_MS = 30000, /* between tries with a key that is refused */
	KEY_LOOK_MS = 1000, /* … unless the token file has got another one */
	LOOP_MS = 1000,     /* answers that tell nothing new come at most so often */
	SKEW_WARN_MS = 60000,
	GOODBYE_DOWN_MS = 1000,
	GOODBYE_VAIN_MS = 150, /* with the link down; and nothing to give back */
	BACKOFF_BASE_MS = 1000,
	BACKOFF_CAP_MS = 30000,
	HEALTHY_MS = 60000,
	UNHEARD_MS = 30000, /* an exchange is small: who does not acknowledge it for so long is gone */
	KEY_TICK_MS = 500,  /* an exchange that waits looks for another key so often */
};

/* --- state (under the lock), and its changes in the log --- */

static void set_state(struct pt_agent *a, enum pt_link_state state, const struct pt_err *err)
{
	struct pt_link *l = &a->link;
	enum pt_link_state old;
	bool other;
	struct pt_err e = err ? *err : (struct pt_err){ 0 };

	pthread_mutex_lock(&l->lock);
	old = l->state;
	other = old != state || (err && err->code != l->last_err.code);
	l->state = state;
	if (err)
		l->last_err = *err;
	if (old != state)
		l->since_ms = pt_wall_ms();
	if (state == PT_LINK_UP)
		l->last_ok_ms = pt_wall_ms();
	if (state == PT_LINK_UP && other) {
		l->ups++;
		pthread_cond_broadcast(&l->wake); /* publishers that pause */
	}
	pthread_mutex_unlock(&l->lock);
	if (!other)
		return;
	if (state == PT_LINK_UP) {
		pt_info("link is up", "gateway", a->base_url, "agent", l->agent_name);
		pt_spool_wake(a->spool);
	} else if (state == PT_LINK_REFUSED) {
		pt_log_err(PT_LOG_ERROR,
			   "the gateway refuses the agent's key; it keeps what it has and tries again every 30 s, and when the "
			   "token file changes",
			   &e);
	} else {
		pt_log_err(PT_LOG_WARN, "link is down; the agent keeps trying", &e);
	}
}

/* The phase of the exchange to come.  Nudges until now are answered by it; later ones end it. */
static int next_phase(struct pt_link *l)
{
	int p;

	pthread_mutex_lock(&l->lock);
	p = l->phase;
	l->nudged = false;
	pthread_mutex_unlock(&l->lock);
	return p;
}

static void interrupt_locked(struct pt_link *l)
{
	l->nudged = true;
	if (l->call)
		pt_cancel_fire(l->call, PT_E_CANCELLED, "there is something to tell");
}

void pt_link_nudge(struct pt_agent *a)
{
	struct pt_link *l = &a->link;

	pthread_mutex_lock(&l->lock);
	if (l->phase < 2) /* a goodbye says everything, and is said once: it must not be ended for less */
		interrupt_locked(l);
	pthread_mutex_unlock(&l->lock);
}

void pt_link_phase(struct pt_agent *a, int to)
{
	struct pt_link *l = &a->link;

	pthread_mutex_lock(&l->lock);
	if (to > l->phase) {
		l->phase = to;
		interrupt_locked(l);
	}
	pthread_cond_broadcast(&l->wake);
	pthread_mutex_unlock(&l->lock);
}

/* A pause that ends early when the phase changes. */
static void pause_ms(struct pt_link *l, int64_t ms, int seen)
{
	int64_t until = pt_mono_ms() + ms;

	pt_beat_within(&l->beat, ms + PT_BEAT_MS);
	pthread_mutex_lock(&l->lock);
	while (l->phase == seen && pt_mono_ms() < until)
		(void)pt_cond_wait_ms(&l->wake, &l->lock, until - pt_mono_ms());
	pthread_mutex_unlock(&l->lock);
}

void pt_link_look(struct pt_agent *a, struct pt_link_view *ret)
{
	struct pt_link *l = &a->link;

	pthread_mutex_lock(&l->lock);
	*ret = (struct pt_link_view) { .state = l->state,
				       .enabled = l->enabled,
				       .told_enabled = l->told_enabled,
				       .drain = l->drain,
				       .ups = l->ups,
				       .err = l->last_err,
				       .since_ms = l->since_ms,
				       .last_ok_ms = l->last_ok_ms,
				       .skew_ms = l->skew_ms,
				       .cert_expires = l->cert_expires };
	memcpy(ret->agent, l->agent, sizeof(ret->agent));
	memcpy(ret->agent_name, l->agent_name, sizeof(ret->agent_name));
	pthread_mutex_unlock(&l->lock);
}

static bool still_at(struct pt_link *l, int seen)
{
	bool same;

	pthread_mutex_lock(&l->lock);
	same = l->phase == seen;
	pthread_mutex_unlock(&l->lock);
	return same;
}

/* A refused key is tried again after ms, or when the token file has another one. */
static void wait_for_key(struct pt_agent *a, int64_t ms, int seen)
{
	int64_t until = pt_mono_ms() + ms;

	while (pt_mono_ms() < until && still_at(&a->link, seen) && !pt_keys_changed(&a->keys, a->link.key_generation))
		pause_ms(&a->link, KEY_LOOK_MS, seen);
}

static int full_url(struct pt_agent *a, const char *path, struct pt_buf *url, struct pt_err *err)
{
	pt_buf_fmt(url, "%s%s", a->base_url, path);
	return pt_buf_done(url, err);
}

int pt_link_do(struct pt_agent *a, struct pt_http_client *client, const char *path, struct pt_http_call *c, struct pt_err *err)
{
	pt_auto_buf url = PT_BUF_INIT(4096);
	struct pt_key key;
	int rc = full_url(a, path, &url, err);

	if (rc < 0)
		return rc;
	pt_keys_get(&a->keys, &key);
	c->url = url.p;
	c->basic_user = key.id;
	c->basic_password = key.secret;
	rc = pt_http_do(client, c, err);
	explicit_bzero(&key, sizeof(key));
	c->url = c->basic_user = c->basic_password = NULL;
	c->body = NULL;
	return rc;
}

/* --- one exchange --- */

static int request(struct pt_agent *a, int at, struct pt_exchange_request *q, struct pt_err *err)
{
	bool fresh;
	int rc = pt_slots_report(a, at >= 2, &q->holding, &q->released, &q->slots, &fresh, err);

	memcpy(q->instance, a->instance, sizeof(q->instance));
	q->version = strdup(PT_VERSION);
	q->hostname = strdup(a->hostname);
	q->draining = at >= 1 || a->draining;
	q->goodbye = at >= 2;
	/* Answered at once: the first one after a failure, which tells that the link is up, and one that gives back, so that
	 * it is said once. */
	q->wait_ms = at >= 2 || a->link.state != PT_LINK_UP || q->released.n ? 0
		     : fresh                                                  ? WAIT_FRESH_MS
		     : q->holding.n                                           ? WAIT_BUSY_MS
									      : WAIT_IDLE_MS;
	if (!q->version || !q->hostname)
		return pt_fail_oom(err);
	for (const struct pt_op_type *const *t = pt_op_types(); rc == 0 && *t; t++) {
		char *name = strdup((*t)->name);

		rc = name ? pt_list_append(&q->types, sizeof(name), &name, err) : pt_fail_oom(err);
	}
	return rc;
}

/* While a call waits: a sign of life, and a look at the key's file.  A new key is not news to wait 40 s with: the old one may
 * be revoked soon, and whoever rotates it wants to see that the new one works. */
static void tick(void *agent)
{
	struct pt_agent *a = agent;
	struct pt_link *l = &a->link;
	int64_t now = pt_mono_ms();

	pt_beat_tick(&l->beat);
	if (now < l->key_look_at)
		return;
	l->key_look_at = now + KEY_TICK_MS;
	if (pt_keys_changed(&a->keys, l->key_generation))
		pt_link_nudge(a);
}

/* The call itself.  It is in link->call while it runs, so that it can be ended. */
static int call(struct pt_agent *a, struct pt_http_client *client, const char *body, size_t n, int64_t timeout_ms,
		struct pt_buf *out, struct pt_http_call *c, struct pt_err *err)
{
	static const char *const headers[] = { "Content-Type: application/json", "Accept: application/json", NULL };
	struct pt_link *l = &a->link;
	pt_auto_buf url = PT_BUF_INIT(4096);
	struct pt_cancel cancel;
	struct pt_key key;
	bool go;
	int rc = full_url(a, "/agent/v1/exchange", &url, err);

	if (rc == 0)
		rc = pt_cancel_init(&cancel, err);
	if (rc < 0)
		return rc;
	pt_keys_get(&a->keys, &key);
	*c = (struct pt_http_call) { .method = "POST",
				     .url = url.p,
				     .headers = headers,
				     .basic_user = key.id,
				     .basic_password = key.secret,
				     .body = body,
				     .body_size = (int64_t)n,
				     .out = out,
				     .timeout_ms = timeout_ms,
				     .cancel = &cancel,
				     .tick = tick,
				     .tick_arg = a };
	l->key_generation = key.generation;
	pthread_mutex_lock(&l->lock);
	go = !l->nudged;
	if (go)
		l->call = &cancel;
	pthread_mutex_unlock(&l->lock);
	rc = go ? pt_http_do(client, c, err) : pt_fail(err, PT_E_CANCELLED, "there is something to tell");
	pthread_mutex_lock(&l->lock);
	l->call = NULL;
	pthread_mutex_unlock(&l->lock);
	explicit_bzero(&key, sizeof(key));
	pt_cancel_release(&cancel);
	return rc;
}

static void copy_text(char *to, size_t size, const char *from)
{
	if (from)
		snprintf(to, size, "%s", from);
}

/* What the answer says beside leases, cancels and drops. */
static bool note(struct pt_agent *a, const struct pt_exchange_response *r, int64_t cert_expires)
{
	struct pt_link *l = &a->link;
	int64_t skew = r->server_time - pt_wall_ms(), before;
	bool say_enabled, say_drain;

	pthread_mutex_lock(&l->lock);
	copy_text(l->agent, sizeof(l->agent), r->agent);
	copy_text(l->agent_name, sizeof(l->agent_name), r->agent_name);
	say_enabled = !l->told_enabled || l->enabled != r->enabled;
	l->told_enabled = true;
	l->enabled = r->enabled;
	say_drain = r->drain && !l->drain;
	l->drain |= r->drain;
	before = l->skew_ms;
	l->skew_ms = skew;
	l->cert_expires = cert_expires;
	pthread_mutex_unlock(&l->lock);
	pt_slots_clock(a, r->server_time);
	set_state(a, PT_LINK_UP, NULL);
	if (say_enabled)
		pt_info(r->enabled ? "the agent is enabled"
				   : "the agent is registered but not enabled; it gets no work until it is",
			"agent", l->agent_name);
	if (llabs(skew) > SKEW_WARN_MS && llabs(before) <= SKEW_WARN_MS)
		pt_warn("this machine's clock differs from the gateway's", "ms", pt_num(skew), "hint", "check NTP on both sides");
	if (say_drain) {
		pt_info("the gateway orders a drain");
		pt_agent_order_drain(a);
	}
	return say_enabled || say_drain;
}

/* True when the answer told something that we did not know. */
static bool apply(struct pt_agent *a, struct pt_exchange_response *r)
{
	struct pt_attempt_ref *cancels = r->cancels.items, *drops = r->drops.items;
	struct pt_lease *leases = r->leases.items;
	bool news = false;

	for (size_t i = 0; i < r->cancels.n; i++)
		news |= pt_slots_cancel(a, &cancels[i]);
	for (size_t i = 0; i < r->drops.n; i++)
		news |= pt_slots_drop(a, &drops[i]);
	for (size_t i = 0; i < r->leases.n; i++)
		pt_slots_lease(a, &leases[i]);
	return news;
}

/* A goodbye that is not heard is what the end of the lease says as well: with the link down it is not worth a long wait. */
static int64_t goodbye_ms(struct pt_agent *a, bool gives_back)
{
	int64_t most = a->plan.goodbye_ms;

	if (a->link.state != PT_LINK_UP && most > GOODBYE_DOWN_MS)
		most = gives_back || pt_slots_busy(a) ? GOODBYE_DOWN_MS : GOODBYE_VAIN_MS;
	return most;
}

struct outcome {
	bool news;         /* it was answered with something new */
	int64_t spread_ms; /* the gateway is going away: come back at a random moment within so long, 0 = at once */
	int64_t retry_ms;  /* of a refusal: not before so long, 0 = it does not say */
};

/* One exchange.  0: answered; < 0: why not. */
static int exchange(struct pt_agent *a, struct pt_http_client *client, int at, struct outcome *ret, struct pt_err *err)
{
	struct pt_exchange_request q = { 0 };
	struct pt_exchange_response r = { 0 };
	pt_auto_buf body = PT_BUF_INIT(4 << 20);
	pt_auto_buf out = PT_BUF_INIT(ANSWER_MAX);
	struct pt_http_call c = { .retry_after_ms = -1 };
	int64_t leases = a->counts.leases;
	int rc;

	rc = request(a, at, &q, err);
	if (rc == 0) {
		pt_shape_write(&pt_exchange_request_shape, &q, &body);
		rc = pt_buf_done(&body, err);
	}
	if (rc == 0) {
		int64_t timeout_ms = at < 2 ? q.wait_ms + GRACE_MS : goodbye_ms(a, q.released.n > 0);

		rc = call(a, client, body.p, body.len, timeout_ms, &out, &c, err);
		ret->retry_ms = pt_http_retry_after(&c);
	}
	if (rc == 0 && c.status / 100 != 2)
		rc = pt_http_error_of(&c, &out, err);
	if (rc == 0)
		rc = pt_err_wrap(err, pt_shape_parse(&pt_exchange_response_shape, out.p, out.len, &r, err),
				 "the gateway's answer");
	if (rc == 0) {
		pt_slots_told(a, &q.released);
		ret->news = note(a, &r, c.cert_expires);
		ret->news |= apply(a, &r) || a->counts.leases != leases || q.released.n || !q.wait_ms;
		ret->spread_ms = r.spread_ms;
	}
	pt_shape_release(&pt_exchange_request_shape, &q);
	pt_shape_release(&pt_exchange_response_shape, &r);
	return rc;
}

/* --- the loop --- */

/* After a failure: remember, and how long to wait. */
static int64_t failed(struct pt_agent *a, struct pt_backoff *backoff, int64_t retry_ms, const struct pt_err *err)
{
	bool refused = err->code == PT_E_UNAUTHENTICATED || err->code == PT_E_DENIED;
	int64_t wait = pt_backoff_fail(backoff, retry_ms);

	a->counts.exchange_failures++;
	set_state(a, refused ? PT_LINK_REFUSED : PT_LINK_DOWN, err);
	return refused ? REFUSED_MS / 2 + wait / 2 : wait;
}

static void *link_thread(void *arg)
{
	struct pt_agent *a = arg;
	struct pt_link *l = &a->link;
	pt_auto(pt_http_client_freep) struct pt_http_client *client = NULL;
	struct pt_http_client_conf conf = a->http;
	struct pt_backoff backoff = PT_BACKOFF_INIT(BACKOFF_BASE_MS, BACKOFF_CAP_MS, HEALTHY_MS);

	conf.unheard_ms = UNHEARD_MS;
	for (;;) {
		int at = next_phase(l);
		struct pt_err err = { 0 };
		struct outcome out = { .news = true };
		int64_t began = pt_mono_ms(), wait;
		int rc = 0;

		pt_beat_tick(&l->beat);
		if (at >= 3)
			break;
		if (!client)
			rc = pt_http_client_new(&client, &conf, &err);
		a->counts.exchanges++;
		if (rc == 0)
			rc = exchange(a, client, at, &out, &err);
		if (at >= 2)
			break; /* goodbye is said once: what it did not reach, the end of the lease tells */
		if (rc == 0) {
			int64_t early = LOOP_MS - (pt_mono_ms() - began);

			pt_backoff_ok(&backoff);
			if (out.spread_ms > 0) { /* all that were connected there are told this in the same moment */
				pt_http_client_free(pt_steal(&client));
				pause_ms(l, pt_random_ms(out.spread_ms), at);
			} else if (!out.news && early > 0) {
				pause_ms(l, early, at);
			}
			continue;
		}
		/* A fresh connection after any failure: the name is looked up and the CA file read again. */
		pt_http_client_free(client);
		client = NULL;
		if (rc == PT_E_CANCELLED || (rc == PT_E_UNAUTHENTICATED && pt_keys_changed(&a->keys, l->key_generation)))
			continue; /* to tell what is new, or with the new key */
		wait = failed(a, &backoff, out.retry_ms, &err);
		if (rc == PT_E_UNAUTHENTICATED)
			wait_for_key(a, wait, at);
		else
			pause_ms(l, wait, at);
	}
	pt_beat_within(&l->beat, INT32_MAX);
	return NULL;
}

void pt_link_init(struct pt_agent *a)
{
	struct pt_link *l = &a->link;

	pthread_mutex_init(&l->lock, NULL);
	pt_cond_init(&l->wake);
	l->since_ms = pt_wall_ms();
	pt_beat_tick(&l->beat);
}

int pt_link_start(struct pt_agent *a, struct pt_err *err)
{
	int rc = pt_agent_thread(&a->link.thread, "link", link_thread, a, err);

	a->link_started = rc == 0;
	return rc;
}

void pt_link_join(struct pt_agent *a)
{
	if (a->link_started)
		pthread_join(a->link.thread, NULL);
	a->link_started = false;
}
