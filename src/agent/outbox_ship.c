/* Log lines on their way: from the log into the outbox (sink), to the disk (one thread), to the gateway (another, since a call may hang for
 * long).  Neither logs what happens each time: such lines would make lines. */
#include "agent/agent_int.h"
#include "agent/outbox.h"
#include "base/clock.h"
#include "base/log.h"

enum {
	IDLE_MS = 5000,
	LINGER_MS = 1000,   /* lines that come together travel together */
	LINGER_LINES = 500, /* … unless they are many already */
	LINES_MAX = 1000,   /* of the protocol */
	CALL_MS = 60000,
	IDLE_CLIENT_MS = 60000, /* a connection that nobody needed for so long is closed: memory */
	BODY_MAX = 256 * 1024,
};

struct pt_ship {
	struct pt_agent *agent;
	struct pt_outbox *outbox;
	bool all;
	pthread_t flusher, shipper;
	bool flusher_runs, shipper_runs;
	struct pt_cancel stop;
	_Atomic bool draining;
	_Atomic unsigned failures, refused;
};

static void take(void *arg, const struct pt_log_line *line)
{
	struct pt_ship *s = arg;

	if (s->all || line->operation)
		pt_outbox_add(s->outbox, line);
}

static bool stopped(struct pt_ship *s)
{
	struct pt_err err;

	return pt_cancel_check(&s->stop, &err) < 0;
}

/* --- to the disk --- */

static void *flusher_thread(void *arg)
{
	struct pt_ship *s = arg;
	bool failed = false;

	while (!stopped(s)) {
		struct pt_err err = { 0 };
		int rc;

		if (!pt_outbox_wait_added(s->outbox, IDLE_MS, false))
			continue;
		(void)pt_outbox_wait_added(s->outbox, s->draining ? 0 : PT_OUTBOX_FLUSH_MS, true);
		rc = pt_outbox_flush(s->outbox, &err);
		if (rc < 0 && !failed)
			pt_log_err(PT_LOG_ERROR, "log lines for the gateway cannot be stored; they are dropped", &err);
		failed = rc < 0;
	}
	return NULL;
}

/* --- to the gateway --- */

static int post(struct pt_ship *s, struct pt_http_client *client, const struct pt_outbox_batch *b, struct pt_buf *out,
		struct pt_http_call *c, struct pt_err *err)
{
	static const char *const headers[] = { "Content-Type: application/json", "Accept: application/json", NULL };
	pt_auto_buf body = PT_BUF_INIT(BODY_MAX);
	int rc;

	pt_buf_str(&body, "{\"instance\":");
	pt_buf_json(&body, b->instance, strlen(b->instance));
	pt_buf_str(&body, ",\"lines\":[");
	pt_buf_add(&body, b->lines.p, b->lines.len);
	pt_buf_str(&body, "]}");
	rc = pt_buf_done(&body, err);
	if (rc < 0)
		return rc;
	*c = (struct pt_http_call) { .method = "POST",
				     .headers = headers,
				     .body = body.p,
				     .body_size = (int64_t)body.len,
				     .out = out,
				     .timeout_ms = CALL_MS,
				     .cancel = &s->stop };
	return pt_link_do(s->agent, client, "/agent/v1/logs", c, err);
}

enum verdict { DONE, REFUSED, AGAIN };

static enum verdict judge(const struct pt_http_call *c, const struct pt_buf *out)
{
	static const enum pt_code final[] = { PT_E_INVALID, PT_E_TOO_LARGE };
	struct pt_log_response r = { 0 };
	struct pt_err ignored;
	enum verdict v = AGAIN;
	json_t *doc = NULL;

	if (c->status == 200) /* a shape of numbers: nothing to release */
		return pt_shape_parse(&pt_log_response_shape, out->p, out->len, &r, &ignored) == 0 ? DONE : AGAIN;
	if (pt_json_parse(out->p, out->len, &doc, &ignored) < 0)
		return AGAIN;
	if (pt_deliver_refused(c->status, json_object_get(doc, "error"), final, PT_COUNT(final)))
		v = REFUSED;
	json_decref(doc);
	return v;
}

static struct pt_pause pause_of(struct pt_ship *s)
{
	return pt_deliver_pause(s->agent, &s->stop, &s->draining);
}

static void end_pauses(struct pt_ship *s)
{
	struct pt_link *l = &s->agent->link;

	pthread_mutex_lock(&l->lock);
	pthread_cond_broadcast(&l->wake);
	pthread_mutex_unlock(&l->lock);
}

/* One batch.  *max_lines: how many at most; what the gateway refuses is sent again line by line, to lose only what is at fault. */
static void ship(struct pt_ship *s, struct pt_http_client **client, struct pt_outbox_batch *b, size_t *max_lines,
		 struct pt_backoff *backoff)
{
	struct pt_pause pause = pause_of(s);
	pt_auto_buf out = PT_BUF_INIT(64 * 1024);
	struct pt_http_call c = { .retry_after_ms = -1 };
	enum verdict v = AGAIN;
	struct pt_err err = { 0 };
	int rc = *client ? 0 : pt_http_client_new(client, &s->agent->http, &err);

	if (rc == 0)
		rc = post(s, *client, b, &out, &c, &err);
	if (rc == 0)
		v = judge(&c, &out);
	if (v == REFUSED && b->n > 1) {
		*max_lines = 1;
		return;
	}
	if (v != AGAIN) {
		s->refused += v == REFUSED;
		pt_outbox_ack(s->outbox, b, v == DONE);
		*max_lines = *max_lines * 2 < LINES_MAX ? *max_lines * 2 : LINES_MAX;
		pt_backoff_ok(backoff);
		return;
	}
	pt_http_client_free(*client);
	*client = NULL;
	s->failures++;
	pt_deliver_wait(s->agent, &pause, pt_backoff_fail(backoff, c.retry_after_ms > 0 ? c.retry_after_ms : 20), true);
}

static bool many(struct pt_outbox *o)
{
	struct pt_outbox_stats st;

	pt_outbox_stats(o, &st);
	return st.lines >= LINGER_LINES;
}

static void *shipper_thread(void *arg)
{
	struct pt_ship *s = arg;
	struct pt_backoff backoff = PT_BACKOFF_INIT(250, 30000, 0);
	struct pt_outbox_batch b = { .lines = PT_BUF_INIT(BODY_MAX) };
	pt_auto(pt_http_client_freep) struct pt_http_client *client = NULL;
	int64_t used = pt_mono_ms();
	size_t max_lines = LINES_MAX;

	while (!stopped(s)) {
		struct pt_pause pause = pause_of(s);
		struct pt_err err = { 0 };
		int rc;

		if (!pt_outbox_wait_flushed(s->outbox, IDLE_MS)) {
			if (client && pt_mono_ms() - used > IDLE_CLIENT_MS) {
				pt_http_client_free(client);
				client = NULL;
			}
			continue;
		}
		if (!s->draining && !many(s->outbox))
			pt_deliver_wait(s->agent, &pause, LINGER_MS, false);
		rc = pt_outbox_peek(s->outbox, max_lines, &b, &err);
		if (rc == 1 && !stopped(s)) {
			ship(s, &client, &b, &max_lines, &backoff);
			used = pt_mono_ms();
		} else if (rc < 0) {
			pt_log_err(PT_LOG_ERROR, "log lines in the outbox cannot be read", &err);
			pt_deliver_wait(s->agent, &pause, IDLE_MS, false);
		}
		if (b.lines.cap > BODY_MAX / 4) { /* a backlog is over: do not keep what it needed */
			pt_buf_release(&b.lines);
			b.lines = (struct pt_buf)PT_BUF_INIT(BODY_MAX);
		}
	}
	pt_buf_release(&b.lines);
	return NULL;
}

/* --- start and stop --- */

int pt_ship_start(struct pt_agent *a, struct pt_err *err)
{
	const char *what = a->conf->ship_logs;
	pt_auto_buf dir = PT_BUF_INIT(4096);
	struct pt_seal_ring ring = { 0 };
	struct pt_ship *s;
	int rc;

	if (!what || strcmp(what, "off") == 0)
		return PT_OK;
	s = calloc(1, sizeof(*s));
	if (!s)
		return pt_fail_oom(err);
	s->agent = a;
	s->all = strcmp(what, "all") == 0;
	a->ship = s;
	s->stop.fd = -1;
	rc = pt_cancel_init(&s->stop, err);
	pt_buf_fmt(&dir, "%s/logs", a->conf->spool_dir);
	if (rc == 0)
		rc = pt_buf_done(&dir, err);
	if (rc == 0)
		rc = pt_agent_ring(a, "outbox", &ring, err);
	if (rc == 0)
		rc = pt_outbox_open(&s->outbox, dir.p, a->conf->log_outbox_bytes, &ring, a->instance, err);
	pt_seal_ring_clear(&ring);
	if (rc == 0) {
		rc = pt_agent_thread(&s->flusher, "log-flush", flusher_thread, s, err);
		s->flusher_runs = rc == 0;
	}
	if (rc == 0) {
		rc = pt_agent_thread(&s->shipper, "log-ship", shipper_thread, s, err);
		s->shipper_runs = rc == 0;
	}
	if (rc == 0)
		pt_log_sink(take, s);
	return rc; /* pt_ship_stop() takes down what is there */
}

void pt_ship_rekey(struct pt_agent *a)
{
	struct pt_seal_ring ring = { 0 };
	struct pt_err err = { 0 };
	int rc;

	if (!a->ship || !a->ship->outbox)
		return;
	rc = pt_agent_ring(a, "outbox", &ring, &err);
	if (rc == 0)
		rc = pt_outbox_rekey(a->ship->outbox, &ring, &err);
	if (rc < 0)
		pt_log_err(PT_LOG_WARN, "the log outbox is not yet sealed for the agent's new key", &err);
	pt_seal_ring_clear(&ring);
}

void pt_ship_drain(struct pt_agent *a, int64_t most_ms)
{
	struct pt_ship *s = a->ship;
	int64_t until = pt_mono_ms() + most_ms;
	struct pt_outbox_stats st;
	unsigned failures;

	if (!s)
		return;
	failures = s->failures;
	s->draining = true;
	pt_outbox_wake(s->outbox); /* the flusher writes what it waits with */
	end_pauses(s);
	pthread_mutex_lock(&a->link.lock);
	do {
		pt_outbox_stats(s->outbox, &st);
		if (!st.waiting || s->failures != failures || a->stop >= 2)
			break;
		(void)pt_cond_wait_ms(&a->link.wake, &a->link.lock, 10);
	} while (pt_mono_ms() < until);
	pthread_mutex_unlock(&a->link.lock);
}

void pt_ship_stop(struct pt_agent *a)
{
	struct pt_ship *s = a->ship;

	if (!s)
		return;
	pt_log_sink(NULL, NULL);
	pt_cancel_fire(&s->stop, PT_E_CANCELLED, "the agent is stopping");
	if (s->outbox)
		pt_outbox_wake(s->outbox);
	end_pauses(s);
	if (s->shipper_runs)
		pthread_join(s->shipper, NULL);
	if (s->flusher_runs)
		pthread_join(s->flusher, NULL);
	pt_outbox_close(s->outbox);
	pt_cancel_release(&s->stop);
	free(s);
	a->ship = NULL;
}

/* --- numbers --- */

bool pt_ship_stats(struct pt_agent *a, struct pt_outbox_stats *ret, int64_t *ret_refused, int64_t *ret_retries)
{
	if (!a->ship)
		return false;
	pt_outbox_stats(a->ship->outbox, ret);
	*ret_refused = a->ship->refused;
	*ret_retries = a->ship->failures;
	return true;
}
