/* Publishers: threads that take results from the spool and bring them to the gateway, until it has them or refuses them for good: small ones
 * that wait at the same time with one POST, the others each by a PUT. */
#include "agent/agent_int.h"
#include "base/clock.h"
#include "base/log.h"
#include <stdio.h>

enum {
	TAKE_MS = 5000,
	STALL_MS = 60000,
	STOP_STALL_MS = 15000,     /* in the last part of a stop … */
	STOP_STALL_KEPT_MS = 2000, /* … on a connection that was there before: it may hang since long ago */
	SYNCED_PER_MS = 20000,     /* bytes; a slow disk of a gateway */
	IDLE_CLIENT_MS = 60000,    /* a connection that nobody needed for so long is closed: memory */
	ANSWER_MAX = 64 << 20,
	MANY_TRIES = 3,       /* tries after which a result goes alone */
	MANY_HEAD = 64 << 10, /* most bytes of a head that goes with others */
};

/* When a call in which no byte moves is given up.  A stop has no minute for a connection that hangs; a gateway that is slow to answer gets
 * the result a second time, by a new connection, and then has its time.  A large body also takes a while to be synced over there. */
static int64_t stall_ms(const struct pt_publisher *p)
{
	int64_t ms = (p->kept ? STOP_STALL_KEPT_MS : STOP_STALL_MS) + p->to_sync / SYNCED_PER_MS;

	return p->agent->delivering && ms < STALL_MS ? ms : STALL_MS;
}

static void on_tick(void *arg)
{
	struct pt_publisher *p = arg;

	pt_beat_tick(&p->beat);
	p->call->stall_timeout_ms = stall_ms(p);
}

/* Do a call, by a new client where there is none. */
static int send_call(struct pt_publisher *p, struct pt_http_client **client, const char *path, struct pt_http_call *c,
		     struct pt_err *err)
{
	int rc = PT_OK;

	p->kept = *client && !p->answered;
	if (!*client)
		rc = pt_http_client_new(client, &p->agent->http, err);
	if (rc < 0)
		return rc;
	p->call = c;
	p->to_sync = 0;
	c->stall_timeout_ms = stall_ms(p);
	c->cancel = &p->agent->publish_stop;
	c->tick = on_tick;
	c->tick_arg = p;
	rc = pt_link_do(p->agent, *client, path, c, err);
	p->answered = rc == 0 && p->agent->delivering;
	return rc;
}

/* The body of a PUT: head, line feed, body; as libcurl wants it, piece by piece, and again from the start. */
struct upload {
	struct pt_publisher *p;
	const struct pt_spool_entry *e;
	int64_t at, size;
};

static ssize_t upload_read(void *arg, char *buf, size_t max)
{
	struct upload *u = arg;
	int64_t head = (int64_t)u->e->head.len, left;
	ssize_t n;

	left = u->at <= head ? head + 1 - u->at : u->size - u->at;
	if (left <= 0)
		return 0;
	n = left < (int64_t)max ? (ssize_t)left : (ssize_t)max;
	if (u->at <= head) {
		memcpy(buf, u->e->head.p + u->at, (size_t)n); /* its final NUL stands where the line feed goes */
		if (u->at + n == head + 1)
			buf[n - 1] = '\n';
	} else if (u->e->body_fd < 0) {
		memcpy(buf, u->e->inline_body.p + (u->at - head - 1), (size_t)n);
	} else {
		n = pt_spool_read_body(u->e, buf, (size_t)n, u->at - head - 1);
		if (n <= 0)
			return -1;
	}
	u->at += n;
	u->p->to_sync = u->at == u->size ? u->size : 0;
	return n;
}

static int upload_rewind(void *arg)
{
	((struct upload *)arg)->at = 0;
	return 0;
}

static int put(struct pt_publisher *p, struct pt_http_client **client, const struct pt_spool_entry *e, struct pt_buf *out,
	       struct pt_http_call *c, struct pt_err *err)
{
	static const char *const headers[] = { "Content-Type: application/vnd.postern.result", "Accept: application/json", NULL };
	pt_auto_buf path = PT_BUF_INIT(256);
	struct upload u = { .p = p, .e = e, .size = (int64_t)e->head.len + 1 + e->body_size };
	int rc;

	pt_buf_fmt(&path, "/agent/v1/operations/%s/attempts/%lld/result", e->operation, (long long)e->attempt);
	rc = pt_buf_done(&path, err);
	if (rc < 0)
		return rc;
	*c = (struct pt_http_call) { .method = "PUT",
				     .headers = headers,
				     .body_size = u.size,
				     .read = upload_read,
				     .rewind = upload_rewind,
				     .arg = &u,
				     .out = out };
	return send_call(p, client, path.p, c, err);
}

/* What an answer means for the entry (docs/protocol.md, "Result"). */
enum verdict { DONE, REFUSED, AGAIN };

static enum verdict judge_error(int64_t status, const json_t *error)
{
	static const enum pt_code final[] = { PT_E_STALE, PT_E_NOT_FOUND, PT_E_INVALID, PT_E_TOO_LARGE };

	return pt_deliver_refused(status, error, final, PT_COUNT(final)) ? REFUSED : AGAIN;
}

static enum verdict judge(const struct pt_http_call *c, const struct pt_buf *out, struct pt_result_response *r)
{
	struct pt_err ignored;
	json_t *doc = NULL;
	enum verdict v;

	if (c->status == 200)
		return pt_shape_parse(&pt_result_response_shape, out->p, out->len, r, &ignored) == 0 && r->accepted ? DONE : AGAIN;
	if (pt_json_parse(out->p, out->len, &doc, &ignored) < 0)
		return AGAIN;
	v = judge_error(c->status, json_object_get(doc, "error"));
	json_decref(doc);
	return v;
}

/* The longest pause between two tries.  A stop has seconds, not minutes. */
static int64_t longest_pause(const struct pt_agent *a)
{
	return a->draining ? 1000 : 30000;
}

/* --- what becomes of an entry; each of these consumes it --- */

static void delivered(struct pt_agent *a, struct pt_spool_entry *e, struct pt_backoff *backoff)
{
	if (backoff->failures) /* it takes results again: those that wait for their next try need not */
		pt_spool_wake(a->spool);
	pt_backoff_ok(backoff);
	a->counts.published++;
	pt_spool_ack(a->spool, e);
}

static void refused(struct pt_agent *a, struct pt_spool_entry *e, int64_t status, const char *why, struct pt_backoff *backoff)
{
	pt_backoff_ok(backoff);
	a->counts.refused++;
	pt_log_(status == 409 ? PT_LOG_WARN : PT_LOG_ERROR, "the gateway refuses a result for good; it is dropped", "operation",
		e->operation, "attempt", pt_num(e->attempt), "status", pt_num(status), "error", why, NULL);
	pt_spool_ack(a->spool, e);
}

/* No answer: the order stays.  An answer that asks for another try: others may go first. */
static void later(struct pt_agent *a, struct pt_spool_entry *e, const struct pt_http_call *c, const char *why)
{
	struct pt_backoff entry = PT_BACKOFF_INIT(250, longest_pause(a), 0);

	entry.failures = e->tries;
	pt_debug("result not delivered yet", "operation", e->operation, "error", why);
	a->counts.retries++;
	pt_spool_retry(a->spool, e, c->status ? pt_backoff_fail(&entry, pt_http_retry_after(c)) : 0);
}

/* How long to pause after a call that brought nothing. */
static int64_t back_off(struct pt_http_client **client, const struct pt_http_call *c, struct pt_backoff *backoff)
{
	pt_http_client_free(*client);
	*client = NULL;
	return pt_backoff_fail(backoff, pt_http_retry_after(c) ? pt_http_retry_after(c) : 20);
}

/* Deliver one entry; consumes it.  How long to pause before the next, 0 = not at all. */
static int64_t deliver(struct pt_publisher *p, struct pt_http_client **client, struct pt_spool_entry *e,
		       struct pt_backoff *backoff)
{
	struct pt_agent *a = p->agent;
	pt_auto_buf out = PT_BUF_INIT(ANSWER_MAX);
	struct pt_http_call c = { .retry_after_ms = -1 };
	struct pt_result_response answer = { 0 };
	enum verdict verdict = AGAIN;
	struct pt_err err = { 0 };
	int64_t pause = 0;
	bool mine;
	int rc = put(p, client, e, &out, &c, &err);

	if (rc == 0)
		verdict = judge(&c, &out, &answer);
	if (rc == 0 && verdict != DONE)
		rc = c.status == 200 ? pt_fail(&err, PT_E_PROTOCOL, "the answer is not a gateway's")
				     : pt_http_error_of(&c, &out, &err);
	if (verdict == DONE) {
		/* The slot that the answer fills is that of the instance that ran the attempt: an earlier process, perhaps. */
		mine = strstr(e->head.p, a->instance) != NULL;
		delivered(a, e, backoff);
		for (size_t i = 0; mine && i < answer.leases.n; i++)
			pt_slots_lease(a, &((struct pt_lease *)answer.leases.items)[i]);
	} else if (verdict == REFUSED) {
		refused(a, e, c.status, err.msg, backoff);
	} else {
		later(a, e, &c, err.msg);
		pause = back_off(client, &c, backoff);
	}
	pt_shape_release(&pt_result_response_shape, &answer);
	return pause;
}

/* --- many small ones at once --- */

/* About its share of the request. */
static size_t weight(const struct pt_spool_entry *e)
{
	return e->head.len + e->inline_body.n / 3 * 4 + 200;
}

/* May it go with others?  One that has failed often goes alone, lest it keep them back. */
static bool is_small(const struct pt_spool_entry *e)
{
	return e->body_fd < 0 && e->tries < MANY_TRIES && e->head.len <= MANY_HEAD && e->inline_body.n <= PT_RESULTS_BODY;
}

static int post(struct pt_publisher *p, struct pt_http_client **client, size_t n, struct pt_buf *out, struct pt_http_call *c,
		struct pt_err *err)
{
	static const char *const headers[] = { "Content-Type: application/json", "Accept: application/json", NULL };
	struct pt_agent *a = p->agent;
	pt_auto_buf body = PT_BUF_INIT(2 * PT_RESULTS_BYTES);
	int rc;

	pt_buf_fmt(&body, "{\"instance\":\"%s\",\"results\":[", a->instance);
	for (size_t i = 0; i < n; i++) {
		const struct pt_spool_entry *e = &p->many[i];

		pt_buf_fmt(&body, "%s{\"operation\":\"%s\",\"attempt\":%lld,\"head\":", i ? "," : "", e->operation,
			   (long long)e->attempt);
		pt_buf_add(&body, e->head.p, e->head.len);
		if (e->inline_body.n) {
			pt_buf_str(&body, ",\"body\":\"");
			pt_buf_base64(&body, e->inline_body.p, e->inline_body.n);
			pt_buf_chr(&body, '"');
		}
		pt_buf_chr(&body, '}');
	}
	pt_buf_str(&body, "]}");
	rc = pt_buf_done(&body, err);
	if (rc < 0)
		return rc;
	*c = (struct pt_http_call) {
		.method = "POST", .headers = headers, .body = body.p, .body_size = (int64_t)body.len, .out = out
	};
	return send_call(p, client, "/agent/v1/results", c, err);
}

/* Deliver n entries of p->many.  False: not this way, and nothing has happened to them.  *ret_pause: as of deliver(). */
static bool deliver_many(struct pt_publisher *p, struct pt_http_client **client, size_t n, struct pt_backoff *backoff,
			 int64_t *ret_pause)
{
	struct pt_agent *a = p->agent;
	pt_auto_buf out = PT_BUF_INIT(ANSWER_MAX);
	struct pt_http_call c = { .retry_after_ms = -1 };
	struct pt_results_response answer = { 0 };
	unsigned ups = pt_deliver_ups(a);
	struct pt_err err = { 0 };
	size_t kept = 0;
	int rc = post(p, client, n, &out, &c, &err);

	if (rc == 0 && (c.status == 404 || c.status == 405)) /* an older gateway, or whoever answers for it */
		a->put_only = ups + 1;
	if (rc == 0 && (c.status == 404 || c.status == 405 || c.status == 400 || c.status == 413))
		return false; /* which one of them it may mean is told by its own PUT */
	if (rc == 0 && c.status != 200)
		rc = pt_http_error_of(&c, &out, &err);
	else if (rc == 0 &&
		 (pt_shape_parse(&pt_results_response_shape, out.p, out.len, &answer, &err) < 0 || answer.items.n != n))
		rc = pt_fail(&err, PT_E_PROTOCOL, "the answer is not a gateway's");
	for (size_t i = 0; i < n; i++) {
		const struct pt_results_item *item = rc == 0 ? (struct pt_results_item *)answer.items.items + i : NULL;
		const char *why = item ? json_string_value(json_object_get(item->error, "message")) : err.msg;

		if (item && item->status == 200)
			delivered(a, &p->many[i], backoff);
		else if (item && judge_error(item->status, item->error) == REFUSED)
			refused(a, &p->many[i], item->status, why ? why : "", backoff);
		else
			later(a, &p->many[i], &c, why ? why : ""), kept++;
	}
	for (size_t i = 0; i < answer.leases.n; i++)
		pt_slots_lease(a, &((struct pt_lease *)answer.leases.items)[i]);
	pt_shape_release(&pt_results_response_shape, &answer);
	*ret_pause = kept == n ? back_off(client, &c, backoff) : 0;
	return true;
}

/* Take what waits besides the first, which is small, into p->many.  How many there are; *ret_next: one that was taken and is not
 * to go with them (its operation is "" when there is none). */
static size_t gather(struct pt_publisher *p, const struct pt_spool_entry *first, struct pt_spool_entry *ret_next)
{
	size_t n = 1, bytes = weight(first);
	struct pt_err err;
	int rc;

	p->many[0] = *first;
	*ret_next->operation = '\0';
	while (n < PT_RESULTS_MAX) {
		struct pt_spool_entry *e = &p->many[n];

		rc = pt_spool_take(p->agent->spool, e, 0, &err);
		if (rc < 0)
			pt_log_err(PT_LOG_ERROR, "a result in the spool cannot be read", &err);
		if (rc != 1)
			break;
		bytes += weight(e);
		if (!is_small(e) || bytes > PT_RESULTS_BYTES) {
			*ret_next = *e;
			break;
		}
		n++;
	}
	return n;
}

/* Deliver an entry, and others with it when that is possible; consumes it.  How long to pause before the next. */
static int64_t deliver_some(struct pt_publisher *p, struct pt_http_client **client, struct pt_spool_entry *first,
			    struct pt_backoff *backoff)
{
	struct pt_agent *a = p->agent;
	struct pt_spool_entry next;
	int64_t pause = 0;
	size_t n;

	if (!is_small(first) || a->put_only == pt_deliver_ups(a) + 1)
		return deliver(p, client, first, backoff);
	n = gather(p, first, &next);
	if (n == 1 || !deliver_many(p, client, n, backoff, &pause)) {
		for (size_t i = 0; i < n; i++) {
			if (pause)
				pt_spool_retry(a->spool, &p->many[i], 0);
			else
				pause = deliver(p, client, &p->many[i], backoff);
		}
	}
	if (!*next.operation)
		return pause;
	if (!pause)
		return deliver(p, client, &next, backoff);
	pt_spool_retry(a->spool, &next, 0);
	return pause;
}

static void *publisher_thread(void *arg)
{
	struct pt_publisher *p = arg;
	struct pt_agent *a = p->agent;
	struct pt_backoff backoff = PT_BACKOFF_INIT(250, 30000, 0);
	pt_auto(pt_http_client_freep) struct pt_http_client *client = NULL;
	int64_t used = pt_mono_ms();
	struct pt_err err;

	while (pt_cancel_check(&a->publish_stop, &err) == 0) {
		struct pt_spool_entry e;
		struct pt_pause pause;
		int64_t wait = 0;
		int rc;

		pt_beat_within(&p->beat, TAKE_MS + PT_BEAT_MS);
		rc = pt_spool_take(a->spool, &e, TAKE_MS, &err);
		pause = pt_deliver_pause(a, &a->publish_stop, &a->draining);
		backoff.cap_ms = longest_pause(a);
		if (rc == 1) {
			wait = pt_cancel_check(&a->publish_stop, &err) == 0 ? deliver_some(p, &client, &e, &backoff)
									    : (pt_spool_retry(a->spool, &e, 0), 0);
			used = pt_mono_ms();
		} else if (rc < 0) {
			pt_log_err(PT_LOG_ERROR, "a result in the spool cannot be read", &err);
			wait = 100;
		} else if (client && pt_mono_ms() - used > IDLE_CLIENT_MS) {
			pt_http_client_free(client);
			client = NULL;
		}
		if (wait) {
			pt_beat_within(&p->beat, wait + PT_BEAT_MS);
			pt_deliver_wait(a, &pause, wait, true);
		}
	}
	pt_beat_within(&p->beat, INT32_MAX);
	return NULL;
}

int pt_publishers_init(struct pt_agent *a, struct pt_err *err)
{
	a->publishers = calloc((size_t)a->conf->publishers, sizeof(*a->publishers));
	if (!a->publishers)
		return pt_fail_oom(err);
	for (int64_t i = 0; i < a->conf->publishers; i++) {
		a->publishers[i].agent = a;
		pt_beat_tick(&a->publishers[i].beat);
	}
	return PT_OK;
}

int pt_publishers_start(struct pt_agent *a, struct pt_err *err)
{
	int rc = PT_OK;

	for (; rc == 0 && a->n_publishers < (unsigned)a->conf->publishers; a->n_publishers += rc == 0) {
		struct pt_publisher *p = &a->publishers[a->n_publishers];
		char name[24];

		snprintf(name, sizeof(name), "publisher-%u", a->n_publishers);
		rc = pt_agent_thread(&p->thread, name, publisher_thread, p, err);
	}
	return rc;
}

void pt_publishers_join(struct pt_agent *a)
{
	pt_cancel_fire(&a->publish_stop, PT_E_CANCELLED, "the agent is stopping");
	pt_spool_stop(a->spool);
	pthread_mutex_lock(&a->link.lock);
	pthread_cond_broadcast(&a->link.wake); /* those that pause */
	pthread_mutex_unlock(&a->link.lock);
	for (unsigned i = 0; i < a->n_publishers; i++)
		pthread_join(a->publishers[i].thread, NULL);
	a->n_publishers = 0;
}
