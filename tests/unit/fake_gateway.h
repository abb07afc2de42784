/* A gateway in the test's own process: says what the test tells it to, and writes down what it hears.  One exchange is held at a
 * time; a thread answers it when its time is over. */
#ifndef PT_TEST_FAKE_GATEWAY_H
#define PT_TEST_FAKE_GATEWAY_H
#include "base/clock.h"
#include "net/http_server.h"
#include "proto/messages.h"
#include <pthread.h>
#include <stdio.h>

enum { FAKE_MAX = 4096 };

struct fake_put {
	char operation[PT_ID_SIZE], status[16], code[40];
	long long attempt, bytes; /* bytes of body that came */
	bool whole;               /* as many as the head says */
};

struct fake {
	struct pt_http_server *server;
	unsigned port;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t ticker;
	bool end;

	/* what to say */
	struct pt_buf leases, cancels, drops; /* JSON objects with commas, for the next answer */
	struct pt_buf put_leases;             /* for the next answer to a result */
	bool disabled, drain;
	int64_t skew_ms;
	int exchange_status, put_status; /* 0 = 200 */
	bool put_once;                   /* put_status is said once */
	const char *retry_after;         /* beside them; NULL = none */
	int spread_ms;
	bool foreign;                    /* put_status is somebody else's answer */
	bool many;                       /* takes many results at once; false: an older gateway, 404 */
	int many_status;                 /* of the whole answer to them, 0 = 200 */
	int item_status[PT_RESULTS_MAX]; /* of the items of the next such answer, 0 = 200 */
	bool item_foreign;               /* without a code that we know */
	bool many_odd;                   /* one item too many */
	int logs_status;                 /* 0 = 200 */
	const char *logs_refuse;         /* 400 for a batch with this text */
	char want_auth[200];             /* 401 for any other Authorization, "" = take all */

	/* what was heard */
	int exchanges, refused_auth, pings;
	struct pt_exchange_request last; /* the newest exchange */
	bool saw_goodbye, saw_draining;
	int puts_at_goodbye;
	char released[2000];             /* "op:attempt " of all exchanges */
	struct fake_put puts[FAKE_MAX];  /* all, also those not accepted */
	int n_puts, accepted;            /* results that came together are among them */
	int n_posts, n_posted;           /* requests with many results; results in those that were taken as a whole */
	size_t most_posted;
	int log_posts;
	struct pt_buf logs; /* "instance:seq:msg " of what was accepted */

	struct pt_http_req *held;
	int64_t held_until;
};

static inline const char *fake_code(int status)
{
	return status == 401   ? "unauthenticated"
	       : status == 400 ? "invalid_request"
	       : status == 404 ? "not_found"
	       : status == 409 ? "stale_attempt"
	       : status == 413 ? "too_large"
			       : "internal";
}

/* foreign: an answer of somebody between (an ingress without its backend, a proxy), not of a gateway. */
static inline void fake_error(struct pt_http_req *r, int status, bool foreign)
{
	pt_auto_buf b = PT_BUF_INIT(1000);
	if (foreign)
		pt_buf_str(&b, "{\"message\": \"default backend\"}");
	else
		pt_buf_fmt(&b, "{\"error\": {\"code\": \"%s\", \"message\": \"as told\", \"retryable\": false}}",
			   fake_code(status));
	pt_http_reply_json(r, status, &b);
}

/* Under the lock. */
static inline bool fake_has_news(const struct fake *f)
{
	return f->leases.len || f->cancels.len || f->drops.len;
}

static inline void fake_answer(struct fake *f, struct pt_http_req *r)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 22);

	pt_buf_fmt(&b,
		   "{\"leases\": [%s], \"cancels\": [%s], \"drops\": [%s], \"enabled\": %s, \"drain\": %s, \"lease_ms\": 60000,"
		   " \"server_time\": %lld, \"spread_ms\": %d, \"agent\": \"ag_1\", \"agent_name\": \"warehouse\"}",
		   f->leases.p, f->cancels.p, f->drops.p, f->disabled ? "false" : "true", f->drain ? "true" : "false",
		   (long long)(pt_wall_ms() + f->skew_ms), f->spread_ms);
	pt_buf_clear(&f->leases);
	pt_buf_clear(&f->cancels);
	pt_buf_clear(&f->drops);
	pt_http_reply_json(r, 200, &b);
}

static inline bool fake_auth(struct fake *f, struct pt_http_req *r)
{
	const char *h = pt_http_header(r, "authorization");

	if (!*f->want_auth || (h && strcmp(h, f->want_auth) == 0))
		return true;
	f->refused_auth++;
	return false;
}

static inline void fake_gone(void *arg)
{
	struct fake *f = arg;
	struct pt_http_req *r;

	pthread_mutex_lock(&f->lock);
	r = f->held;
	f->held = NULL;
	pthread_mutex_unlock(&f->lock);
	if (r)
		pt_http_reply(r, 499, NULL, "", 0);
}

static inline void fake_exchange(struct pt_http_req *r, void *ctx)
{
	struct fake *f = ctx;
	struct pt_http_req *old = NULL;
	struct pt_exchange_request q;
	struct pt_err err;
	size_t n;
	const char *body = pt_http_body(r, &n);

	pthread_mutex_lock(&f->lock);
	if (!fake_auth(f, r) || f->exchange_status) {
		int status = f->exchange_status ? f->exchange_status : 401;

		f->exchanges++;
		if (f->retry_after)
			pt_http_set_header(r, "Retry-After", f->retry_after);
		pthread_cond_broadcast(&f->changed);
		pthread_mutex_unlock(&f->lock);
		fake_error(r, status, false);
		return;
	}
	if (pt_shape_parse(&pt_exchange_request_shape, body, n, &q, &err) < 0) {
		pthread_mutex_unlock(&f->lock);
		printf("# bad exchange: %s\n", err.msg);
		pt_http_reply_err(r, &err);
		return;
	}
	pt_shape_release(&pt_exchange_request_shape, &f->last);
	f->last = q;
	f->exchanges++;
	f->saw_draining |= q.draining;
	if (q.goodbye && !f->saw_goodbye)
		f->puts_at_goodbye = f->accepted;
	f->saw_goodbye |= q.goodbye;
	for (size_t i = 0; i < q.released.n; i++) {
		struct pt_attempt_ref *ref = (struct pt_attempt_ref *)q.released.items + i;
		char text[80];
		size_t len = strlen(f->released);

		/* Once each: what an exchange said that was ended before its answer is said again. */
		snprintf(text, sizeof(text), "%s:%lld ", ref->operation, (long long)ref->attempt);
		if (!strstr(f->released, text))
			snprintf(f->released + len, sizeof(f->released) - len, "%s", text);
	}
	old = f->held;
	f->held = NULL;
	if (fake_has_news(f) || !q.wait_ms || f->drain || f->spread_ms) {
		fake_answer(f, r);
	} else {
		f->held = r;
		f->held_until = pt_mono_ms() + q.wait_ms;
		pt_http_hold(r, fake_gone, f);
	}
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
	if (old)
		pt_http_reply(old, 499, NULL, "", 0);
}

static inline void *fake_ticker(void *arg)
{
	struct fake *f = arg;

	pthread_mutex_lock(&f->lock);
	while (!f->end) {
		struct pt_http_req *r = f->held;

		pthread_mutex_unlock(&f->lock);
		usleep(2000);
		pthread_mutex_lock(&f->lock);
		r = f->held;
		if (r && (fake_has_news(f) || f->drain || f->exchange_status || pt_mono_ms() >= f->held_until)) {
			f->held = NULL;
			fake_answer(f, r);
		}
	}
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

/* --- results: streamed, so that large ones need no memory --- */
struct fake_in {
	struct pt_buf head;
	bool head_done;
	long long body;
};

static inline void fake_in_free(void *p)
{
	struct fake_in *in = p;

	pt_buf_release(&in->head);
	free(in);
}

static inline int fake_put_begin(struct pt_http_req *r, void *ctx, struct pt_err *err)
{
	struct fake_in *in = calloc(1, sizeof(*in));

	in->head = (struct pt_buf)PT_BUF_INIT(2 << 20);
	pt_http_set_data(r, in, fake_in_free);
	return 0;
}

static inline int fake_put_chunk(struct pt_http_req *r, void *ctx, const void *data, size_t n, struct pt_err *err)
{
	struct fake_in *in = pt_http_data(r);
	const char *p = data, *nl = in->head_done ? NULL : memchr(p, '\n', n);

	if (!in->head_done) {
		size_t k = nl ? (size_t)(nl - p) : n;

		pt_buf_add(&in->head, p, k);
		in->head_done = nl != NULL;
		n -= k + (nl != NULL);
	}
	in->body += (long long)n;
	return 0;
}

static inline void fake_put_end(struct pt_http_req *r, void *ctx)
{
	struct fake *f = ctx;
	struct fake_in *in = pt_http_data(r);
	struct fake_put *p;
	struct pt_result_head h;
	struct pt_err err;
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	bool foreign;
	int status;

	if (pt_shape_parse(&pt_result_head_shape, in->head.p, in->head.len, &h, &err) < 0) {
		printf("# bad result: %s\n", err.msg);
		pt_http_reply_err(r, &err);
		return;
	}
	pthread_mutex_lock(&f->lock);
	status = !fake_auth(f, r) ? 401 : f->put_status ? f->put_status : 200;
	foreign = f->foreign;
	if (f->put_once)
		f->put_status = 0;
	if (status != 200 && f->retry_after)
		pt_http_set_header(r, "Retry-After", f->retry_after);
	p = &f->puts[f->n_puts++ % FAKE_MAX];
	snprintf(p->operation, sizeof(p->operation), "%s", pt_http_param(r, "id"));
	p->attempt = atoll(pt_http_param(r, "n"));
	snprintf(p->status, sizeof(p->status), "%s", h.status);
	snprintf(p->code, sizeof(p->code), "%s", h.error.code ? h.error.code : "");
	p->bytes = in->body;
	p->whole = in->body == h.body_size;
	if (status == 200 && !foreign) {
		f->accepted++;
		pt_buf_fmt(&b, "{\"accepted\": true, \"leases\": [%s]}", f->put_leases.p);
		pt_buf_clear(&f->put_leases);
	}
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
	pt_shape_release(&pt_result_head_shape, &h);
	if (status == 200 && !foreign)
		pt_http_reply_json(r, 200, &b);
	else
		fake_error(r, status, foreign);
}

static inline void fake_put_abort(struct pt_http_req *r, void *ctx)
{
}

/* One of many; under the lock. */
static inline void fake_item(struct fake *f, const json_t *j, int status, struct pt_buf *b)
{
	struct pt_small_result in = { 0 };
	struct pt_result_head h = { 0 };
	struct pt_err err;
	struct fake_put *p = &f->puts[f->n_puts++ % FAKE_MAX];

	if (pt_shape_decode(&pt_small_result_shape, j, &in, &err) < 0 ||
	    pt_shape_decode(&pt_result_head_shape, in.head, &h, &err) < 0) {
		printf("Bail out! bad small result: %s\n", err.msg);
		exit(1);
	}
	*p = (struct fake_put) { .attempt = in.attempt,
				 .bytes = (long long)in.body.n,
				 .whole = (int64_t)in.body.n == h.body_size };
	snprintf(p->operation, sizeof(p->operation), "%s", in.operation);
	snprintf(p->status, sizeof(p->status), "%s", h.status);
	f->n_posted++;
	f->accepted += status == 200;
	if (status == 200)
		pt_buf_str(b, "{\"status\": 200}");
	else
		pt_buf_fmt(b, "{\"status\": %d, \"error\": {\"code\": \"%s\", \"message\": \"as told\"}}", status,
			   f->item_foreign ? "not_ours" : fake_code(status));
	pt_shape_release(&pt_small_result_shape, &in);
	pt_shape_release(&pt_result_head_shape, &h);
}

static inline void fake_results(struct pt_http_req *r, void *ctx)
{
	struct fake *f = ctx;
	struct pt_results q = { 0 };
	struct pt_err err;
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	const char *body;
	bool foreign;
	size_t n;
	int status;

	body = pt_http_body(r, &n);
	if (pt_shape_parse(&pt_results_shape, body, n, &q, &err) < 0) {
		printf("Bail out! bad results: %s\n", err.msg);
		exit(1);
	}
	pthread_mutex_lock(&f->lock);
	status = !fake_auth(f, r) ? 401 : !f->many ? 404 : f->many_status ? f->many_status : 200;
	foreign = f->foreign && f->many_status;
	f->n_posts++;
	if (json_array_size(q.results) > f->most_posted)
		f->most_posted = json_array_size(q.results);
	pt_buf_str(&b, "{\"items\": [");
	for (size_t i = 0; status == 200 && !foreign && i < json_array_size(q.results); i++) {
		pt_buf_str(&b, i ? ", " : "");
		fake_item(f, json_array_get(q.results, i), f->item_status[i] ? f->item_status[i] : 200, &b);
		f->item_status[i] = 0;
	}
	pt_buf_fmt(&b, "%s], \"leases\": [%s]}", f->many_odd ? ", {\"status\": 200}" : "", f->put_leases.p);
	pt_buf_clear(&f->put_leases);
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
	pt_shape_release(&pt_results_shape, &q);
	if (status == 200 && !foreign)
		pt_http_reply_json(r, 200, &b);
	else
		fake_error(r, status, foreign);
}

static inline void fake_logs(struct pt_http_req *r, void *ctx)
{
	struct fake *f = ctx;
	struct pt_log_batch q;
	struct pt_err err;
	pt_auto_buf b = PT_BUF_INIT(1000);
	size_t n;
	const char *body = pt_http_body(r, &n);
	bool foreign;
	int status;

	if (pt_shape_parse(&pt_log_batch_shape, body, n, &q, &err) < 0) {
		printf("# bad log lines: %s\n", err.msg);
		pt_http_reply_err(r, &err);
		return;
	}
	pthread_mutex_lock(&f->lock);
	status = !fake_auth(f, r)                                 ? 401
		 : f->logs_status                                 ? f->logs_status
		 : f->logs_refuse && strstr(body, f->logs_refuse) ? 400
								  : 200;
	foreign = f->foreign;
	f->log_posts++;
	for (size_t i = 0; status == 200 && !foreign && i < q.lines.n; i++) {
		struct pt_shipped_line *l = (struct pt_shipped_line *)q.lines.items + i;

		pt_buf_fmt(&f->logs, "%s:%lld:%s ", q.instance, (long long)l->seq, l->msg);
	}
	pt_buf_fmt(&b, "{\"accepted\": %zu, \"new_member\": 1}", q.lines.n);
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->lock);
	pt_shape_release(&pt_log_batch_shape, &q);
	if (status == 200 && !foreign)
		pt_http_reply_json(r, 200, &b);
	else
		fake_error(r, status, foreign);
}

static inline void fake_ping(struct pt_http_req *r, void *ctx)
{
	struct fake *f = ctx;
	pt_auto_buf b = PT_BUF_INIT(1000);
	bool good;

	pthread_mutex_lock(&f->lock);
	good = fake_auth(f, r);
	f->pings += good;
	pthread_mutex_unlock(&f->lock);
	if (!good) {
		fake_error(r, 401, false);
		return;
	}
	pt_buf_str(&b,
		   "{\"ok\": true, \"agent\": \"ag_1\", \"agent_name\": \"warehouse\", \"enabled\": true, \"server_time\": 1}");
	pt_http_reply_json(r, 200, &b);
}

static const struct pt_http_route fake_routes[] = {
	{ .method = "GET", .path = "/agent/v1/ping", .handle = fake_ping },
	{ .method = "POST", .path = "/agent/v1/exchange", .handle = fake_exchange, .body_max = 4 << 20 },
	{ .method = "POST", .path = "/agent/v1/logs", .handle = fake_logs, .body_max = 256 << 10 },
	{ .method = "POST", .path = "/agent/v1/results", .handle = fake_results, .body_max = 2 << 20 },
	{ .method = "PUT",
	  .path = "/agent/v1/operations/{id}/attempts/{n}/result",
	  .begin = fake_put_begin,
	  .chunk = fake_put_chunk,
	  .end = fake_put_end,
	  .abort = fake_put_abort,
	  .body_max = 1 << 30 },
};

static inline void fake_listen(struct fake *f)
{
	char listen[40];
	struct pt_http_server_conf conf = { .listen = listen, .threads = 2, .idle_timeout_s = 60, .body_timeout_s = 60,
					    .routes = fake_routes, .n_routes = PT_COUNT(fake_routes), .ctx = f };
	struct pt_err err;

	snprintf(listen, sizeof(listen), "127.0.0.1:%u", f->port);
	if (pt_http_server_start(&f->server, &conf, &err) < 0) {
		printf("Bail out! %s\n", err.msg);
		exit(1);
	}
	f->port = pt_http_server_port(f->server);
}

/* The gateway goes away, with everything that is held.  fake_listen() brings it back on the same port. */
static inline void fake_hang_up(struct fake *f)
{
	fake_gone(f);
	pt_http_server_stop(f->server, 100);
	f->server = NULL;
}

static inline struct fake *fake_start(void)
{
	struct fake *f = calloc(1, sizeof(*f));

	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->changed, NULL);
	f->leases = f->cancels = f->drops = f->put_leases = f->logs = (struct pt_buf)PT_BUF_INIT(1 << 20);
	fake_listen(f);
	pthread_create(&f->ticker, NULL, fake_ticker, f);
	return f;
}

static inline void fake_stop(struct fake *f)
{
	pthread_mutex_lock(&f->lock);
	f->end = true;
	pthread_mutex_unlock(&f->lock);
	pthread_join(f->ticker, NULL);
	if (f->server)
		fake_hang_up(f);
	pt_shape_release(&pt_exchange_request_shape, &f->last);
	pt_buf_release(&f->leases);
	pt_buf_release(&f->cancels);
	pt_buf_release(&f->drops);
	pt_buf_release(&f->put_leases);
	pt_buf_release(&f->logs);
	free(f);
}

/* --- what to say --- */

static inline void fake_comma(struct pt_buf *b)
{
	if (b->len)
		pt_buf_str(b, ", ");
}

/* input: JSON object.  timeout_ms, deadline_ms (from now). */
static inline void fake_lease_to(struct fake *f, struct pt_buf *to, const char *op, int attempt, const char *type,
				 const char *input, int timeout_ms, int deadline_ms)
{
	pthread_mutex_lock(&f->lock);
	fake_comma(to);
	pt_buf_fmt(to,
		   "{\"operation\": \"%s\", \"attempt\": %d, \"type\": \"%s\", \"input\": %s, \"limits\": {\"timeout_ms\": %d},"
		   " \"deadline\": %lld, \"lease_ms\": 60000}",
		   op, attempt, type, input, timeout_ms, (long long)(pt_wall_ms() + f->skew_ms + deadline_ms));
	pthread_mutex_unlock(&f->lock);
}

static inline void fake_lease(struct fake *f, const char *op, int attempt, const char *type, const char *input)
{
	fake_lease_to(f, &f->leases, op, attempt, type, input, 60000, 3600000);
}

static inline void fake_ref(struct fake *f, struct pt_buf *to, const char *op, int attempt, const char *code)
{
	pthread_mutex_lock(&f->lock);
	fake_comma(to);
	pt_buf_fmt(to, "{\"operation\": \"%s\", \"attempt\": %d, \"reason\": \"by the test\", \"code\": \"%s\"}", op, attempt,
		   code);
	pthread_mutex_unlock(&f->lock);
}

static inline void fake_set(struct fake *f, int *what, int value)
{
	pthread_mutex_lock(&f->lock);
	*what = value;
	pthread_mutex_unlock(&f->lock);
}

/* Answer the exchange that is held, if any, with nothing new. */
static inline void fake_poke(struct fake *f)
{
	pthread_mutex_lock(&f->lock);
	f->held_until = 0;
	pthread_mutex_unlock(&f->lock);
}

/* The value of expr (over f, under its lock), while an agent is at work. */
#define fake_get(f, expr)                         \
	({                                        \
		__typeof__(expr) value_;          \
		pthread_mutex_lock(&(f)->lock);   \
		value_ = (expr);                  \
		pthread_mutex_unlock(&(f)->lock); \
		value_;                           \
	})

/* Wait up to 60 s until cond (over f, under its lock) holds; true when it does. */
#define fake_until(f, cond)                                       \
	({                                                        \
		int64_t end_ = pt_mono_ms() + 60000;              \
		bool got_;                                        \
		pthread_mutex_lock(&(f)->lock);                   \
		while (!(got_ = (cond)) && pt_mono_ms() < end_) { \
			pthread_mutex_unlock(&(f)->lock);         \
			usleep(2000);                             \
			pthread_mutex_lock(&(f)->lock);           \
		}                                                 \
		pthread_mutex_unlock(&(f)->lock);                 \
		got_;                                             \
	})

/* The result of an attempt, newest first; NULL = none came.  Valid until the next one comes. */
static inline struct fake_put *fake_find(struct fake *f, const char *op, int attempt)
{
	for (int i = f->n_puts - 1; i >= 0; i--)
		if (strcmp(f->puts[i].operation, op) == 0 && f->puts[i].attempt == attempt)
			return &f->puts[i];
	return NULL;
}

static inline int fake_count(struct fake *f, const char *op)
{
	int n = 0;

	for (int i = 0; i < f->n_puts; i++)
		n += strcmp(f->puts[i].operation, op) == 0;
	return n;
}

static inline struct pt_holding *fake_holds(struct fake *f, const char *op)
{
	struct pt_holding *h = f->last.holding.items;

	for (size_t i = 0; i < f->last.holding.n; i++)
		if (strcmp(h[i].operation, op) == 0)
			return &h[i];
	return NULL;
}
#endif
