/* Publishers: threads that take results from the spool and PUT them to the gateway, until it has them or refuses them for
 * good. */
#include "agent/agent_int.h"
#include "base/clock.h"
#include "base/log.h"
#include <stdio.h>

enum {
	TAKE_MS = 5000,
	STALL_MS = 60000,
	IDLE_CLIENT_MS = 60000, /* a connection that nobody needed for so long is closed: memory */
	ANSWER_MAX = 64 << 20,
};

/* The body of a PUT: head, line feed, body; as libcurl wants it, piece by piece, and again from the start. */
struct upload {
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
		do
			n = pread(u->e->body_fd, buf, (size_t)n, u->at - head - 1);
		while (n < 0 && errno == EINTR);
		if (n <= 0)
			return -1;
	}
	u->at += n;
	return n;
}

static int upload_rewind(void *arg)
{
	((struct upload *)arg)->at = 0;
	return 0;
}

static int put(struct pt_publisher *p, struct pt_http_client *client, const struct pt_spool_entry *e, struct pt_buf *out,
	       struct pt_http_call *c, struct pt_err *err)
{
	static const char *const headers[] = { "Content-Type: application/vnd.postern.result", "Accept: application/json", NULL };
	struct pt_agent *a = p->agent;
	pt_auto_buf path = PT_BUF_INIT(256);
	pt_auto_buf url = PT_BUF_INIT(4096);
	struct upload u = { .e = e, .size = (int64_t)e->head.len + 1 + e->body_size };
	struct pt_key key;
	int rc;

	pt_buf_fmt(&path, "/agent/v1/operations/%s/attempts/%lld/result", e->operation, (long long)e->attempt);
	rc = pt_buf_done(&path, err);
	if (rc == 0)
		rc = pt_link_url(a, path.p, &url, err);
	if (rc < 0)
		return rc;
	pt_keys_get(&a->keys, &key);
	*c = (struct pt_http_call){ .method = "PUT",
				     .url = url.p,
				     .headers = headers,
				     .basic_user = key.id,
				     .basic_password = key.secret,
				     .body_size = u.size,
				     .read = upload_read,
				     .rewind = upload_rewind,
				     .arg = &u,
				     .out = out,
				     .stall_timeout_ms = STALL_MS,
				     .cancel = &a->publish_stop,
				     .tick = pt_beat_tick,
				     .tick_arg = &p->beat };
	rc = pt_http_do(client, c, err);
	explicit_bzero(&key, sizeof(key));
	return rc;
}

/* What an answer means for the entry (docs/protocol.md, "Result").  A refusal for good must come from a gateway, by its code: the
 * 404 of an ingress whose backend is away, a proxy's 400 or a login page's 200 must not cost a result. */
enum verdict { DONE, REFUSED, AGAIN };

static enum verdict judge(const struct pt_http_call *c, const struct pt_buf *out, struct pt_result_response *r)
{
	static const enum pt_code final[] = { PT_E_STALE, PT_E_NOT_FOUND, PT_E_INVALID, PT_E_TOO_LARGE };
	struct pt_err ignored;
	json_t *doc = NULL;
	const char *code;
	enum verdict v = AGAIN;

	if (c->status == 200)
		return pt_shape_parse(&pt_result_response_shape, out->p, out->len, r, &ignored) == 0 && r->accepted ? DONE : AGAIN;
	if (pt_json_parse(out->p, out->len, &doc, &ignored) < 0)
		return AGAIN;
	code = json_string_value(json_object_get(json_object_get(doc, "error"), "code"));
	for (size_t i = 0; code && i < PT_COUNT(final); i++)
		if (strcmp(code, pt_code_wire(final[i])) == 0 && c->status == pt_code_http(final[i]))
			v = REFUSED;
	json_decref(doc);
	return v;
}

static unsigned link_ups(struct pt_agent *a)
{
	unsigned ups;

	pthread_mutex_lock(&a->link.lock);
	ups = a->link.ups;
	pthread_mutex_unlock(&a->link.lock);
	return ups;
}

/* A pause that the stop ends, and the link when it comes up, also when that was while the call still failed: ups was read
 * before it. */
static void pause_ms(struct pt_publisher *p, int64_t ms, unsigned ups)
{
	struct pt_agent *a = p->agent;
	struct pt_link *l = &a->link;
	int64_t until = pt_mono_ms() + ms;
	struct pt_err err;

	pt_beat_within(&p->beat, ms + PT_BEAT_MS);
	pthread_mutex_lock(&l->lock);
	while (pt_mono_ms() < until && l->ups == ups && pt_cancel_check(&a->publish_stop, &err) == 0)
		(void)pt_cond_wait_ms(&l->wake, &l->lock, until - pt_mono_ms());
	pthread_mutex_unlock(&l->lock);
}

/* Deliver one entry; consumes it.  How long to pause before the next, 0 = not at all. */
static int64_t deliver(struct pt_publisher *p, struct pt_http_client **client, struct pt_spool_entry *e,
		       struct pt_backoff *backoff)
{
	struct pt_agent *a = p->agent;
	pt_auto_buf out = PT_BUF_INIT(ANSWER_MAX);
	struct pt_http_call c = { .retry_after_ms = -1 };
	struct pt_backoff entry = PT_BACKOFF_INIT(250, 30000, 0);
	struct pt_result_response answer = { 0 };
	enum verdict verdict = AGAIN;
	struct pt_err err = { 0 };
	int64_t wait;
	bool mine;
	int rc = 0;

	if (!*client)
		rc = pt_http_client_new(client, &a->http, &err);
	if (rc == 0)
		rc = put(p, *client, e, &out, &c, &err);
	if (rc == 0)
		verdict = judge(&c, &out, &answer);
	if (rc == 0 && verdict == DONE) {
		if (backoff->failures) /* it takes results again: those that wait for their next try need not */
			pt_spool_wake(a->spool);
		pt_backoff_ok(backoff);
		a->counts.published++;
		/* The slot that the answer fills is that of the instance that ran the attempt: an earlier process, perhaps. */
		mine = strstr(e->head.p, a->instance) != NULL;
		pt_spool_ack(a->spool, e);
		for (size_t i = 0; mine && i < answer.leases.n; i++)
			pt_slots_lease(a, &((struct pt_lease *)answer.leases.items)[i]);
		pt_shape_release(&pt_result_response_shape, &answer);
		return 0;
	}
	pt_shape_release(&pt_result_response_shape, &answer);
	if (rc == 0 && c.status == 200)
		rc = pt_fail(&err, PT_E_PROTOCOL, "the answer is not a gateway's");
	else if (rc == 0)
		rc = pt_http_error_of(&c, &out, &err);
	if (c.status) {
		if (verdict == REFUSED) {
			pt_backoff_ok(backoff);
			a->counts.refused++;
			pt_log_(c.status == 409 ? PT_LOG_WARN : PT_LOG_ERROR,
				"the gateway refuses a result for good; it is dropped", "operation", e->operation, "attempt",
				pt_num(e->attempt), "status", pt_num(c.status), "error", err.msg, NULL);
			pt_spool_ack(a->spool, e);
			return 0;
		}
		entry.failures = e->tries;
	}
	/* No answer: the order stays.  An answer that asks for another try: others may go first. */
	pt_debug("result not delivered yet", "operation", e->operation, "error", err.msg);
	a->counts.retries++;
	pt_spool_retry(a->spool, e, c.status ? pt_backoff_fail(&entry, c.retry_after_ms > 0 ? c.retry_after_ms : 0) : 0);
	pt_http_client_free(*client);
	*client = NULL;
	wait = pt_backoff_fail(backoff, c.retry_after_ms > 0 ? c.retry_after_ms : 20);
	return wait;
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
		unsigned ups;
		int64_t wait = 0;
		int rc;

		pt_beat_within(&p->beat, TAKE_MS + PT_BEAT_MS);
		rc = pt_spool_take(a->spool, &e, TAKE_MS, &err);
		ups = link_ups(a);
		if (rc == 1) {
			wait = pt_cancel_check(&a->publish_stop, &err) == 0 ? deliver(p, &client, &e, &backoff)
									    : (pt_spool_retry(a->spool, &e, 0), 0);
			used = pt_mono_ms();
		} else if (rc < 0) {
			pt_log_err(PT_LOG_ERROR, "a result in the spool cannot be read", &err);
			wait = 100;
		} else if (client && pt_mono_ms() - used > IDLE_CLIENT_MS) {
			pt_http_client_free(client);
			client = NULL;
		}
		if (wait)
			pause_ms(p, wait, ups);
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
