/* The server under test, for the tests of src/net/http_server.h: its routes, and what their handlers saw. */
#ifndef PT_HTTP_SERVE_H
#define PT_HTTP_SERVE_H
#include "net/http_server.h"
#include "net_test.h"
#include "../tap.h"
#include <pthread.h>
#include <stdatomic.h>

static struct pt_http_server *srv;
static unsigned port;
static _Atomic int done_count, done_status, freed, gone_count, aborted;
static _Atomic uint64_t done_bytes;
static struct pt_http_req *_Atomic held_req;

static void on_done(void *ctx, const struct pt_http_route *route, int status, int64_t us, uint64_t out)
{
	atomic_store(&done_status, status);
	atomic_store(&done_bytes, out);
	atomic_fetch_add(&done_count, 1);
}

static void on_free(void *p)
{
	atomic_fetch_add(&freed, 1);
	free(p);
}

static void h_hello(struct pt_http_req *r, void *ctx)
{
	pt_http_reply(r, 200, "text/plain", "hello\n", 6);
}

static void h_crowded(struct pt_http_req *r, void *ctx)
{
	const char *text = pt_http_crowded(r) ? "too many" : "there is room";

	pt_http_reply(r, 200, "text/plain", text, strlen(text));
}

static int one_arg(void *arg, const char *name, const char *value)
{
	pt_buf_fmt(arg, "[%s=%s]", name, value);
	return 0;
}

static void h_echo(struct pt_http_req *r, void *ctx)
{
	struct pt_buf b = PT_BUF_INIT(1 << 22);
	const char *id = pt_http_param(r, "id"), *q = pt_http_query(r, "q"), *h = pt_http_header(r, "x-test"), *body;
	size_t n;

	body = pt_http_body(r, &n);
	pt_http_set_data(r, malloc(8), on_free);
	pt_buf_fmt(&b, "%s %s id=%s q=%s x=%s peer=%s expected=%lld ", pt_http_method(r), pt_http_path(r), id ? id : "-",
		   q ? q : "-", h ? h : "-", pt_http_peer(r), (long long)pt_http_body_expected(r));
	pt_http_query_each(r, one_arg, &b);
	pt_buf_chr(&b, ' ');
	pt_buf_add(&b, body, n);
	pt_http_set_header(r, "X-Mine", "yes");
	pt_http_reply_buf(r, 200, "text/plain", &b);
}

static void h_error(struct pt_http_req *r, void *ctx)
{
	struct pt_err err = { 0 };

	pt_fail(&err, pt_code_from_wire(pt_http_param(r, "code")), "it \"failed\"");
	pt_hint(&err, "try this");
	pt_native(&err, "42P01");
	pt_http_reply_err(r, &err);
}

static void *reply_soon(void *arg)
{
	pt_http_reply(arg, 200, "text/plain", "answered", 8);
	return NULL;
}

static void run_detached(void *(*fn)(void *), void *arg)
{
	pthread_t t;

	if (pthread_create(&t, NULL, fn, arg))
		abort();
	pthread_detach(t);
}

/* The answer may come before this handler has returned. */
static void h_race(struct pt_http_req *r, void *ctx)
{
	pt_http_hold(r, NULL, NULL);
	run_detached(reply_soon, r);
	if (r && (pt_mono_ns() & 1))
		sched_yield();
}

static void on_gone(void *arg)
{
	atomic_fetch_add(&gone_count, 1);
	pt_http_reply(arg, 200, "text/plain", "nobody reads", 12);
}

static void h_hold(struct pt_http_req *r, void *ctx)
{
	pt_http_set_data(r, malloc(8), on_free);
	pt_http_hold(r, on_gone, r);
	atomic_store(&held_req, r);
}

/* --- many held requests, answered by one other thread --- */
enum { MANY = 200 };
static pthread_mutex_t many_lock = PTHREAD_MUTEX_INITIALIZER;
static struct pt_http_req *many[MANY];
static unsigned n_many;

static void many_gone(void *arg)
{
	struct pt_http_req **at = arg;

	pthread_mutex_lock(&many_lock);
	pt_http_reply(*at, 200, "text/plain", "nobody reads", 12);
	*at = NULL;
	pthread_mutex_unlock(&many_lock);
	atomic_fetch_add(&gone_count, 1);
}

static void h_many(struct pt_http_req *r, void *ctx)
{
	pthread_mutex_lock(&many_lock);
	pt_http_hold(r, many_gone, &many[n_many]);
	many[n_many++] = r;
	pthread_mutex_unlock(&many_lock);
}

/* --- streaming --- */
static int s_begin(struct pt_http_req *r, void *ctx, struct pt_err *err)
{
	const char *mode = pt_http_query(r, "mode");

	if (mode && strcmp(mode, "fail") == 0)
		return pt_fail(err, PT_E_CONFLICT, "not now");
	if (mode && strcmp(mode, "401") == 0) {
		pt_fail(err, PT_E_UNAUTHENTICATED, "who are you?");
		pt_http_reply_err(r, err);
		return 0;
	}
	pt_http_set_data(r, calloc(1, 64), on_free);
	return 0;
}

static int s_chunk(struct pt_http_req *r, void *ctx, const void *data, size_t n, struct pt_err *err)
{
	const char *mode = pt_http_query(r, "mode");
	uint64_t *sum = pt_http_data(r);

	*sum += n;
	if (mode && strcmp(mode, "refuse") == 0 && *sum > 100000)
		return pt_fail(err, PT_E_QUERY, "row 7 is bad");
	return 0;
}

static void s_end(struct pt_http_req *r, void *ctx)
{
	char text[40];
	int n = snprintf(text, sizeof(text), "%llu", (unsigned long long)*(uint64_t *)pt_http_data(r));

	pt_http_reply(r, 200, "text/plain", text, (size_t)n);
}

static void s_abort(struct pt_http_req *r, void *ctx)
{
	atomic_fetch_add(&aborted, 1);
}

struct source {
	uint64_t left;
	bool fail_at_end;
};

static ssize_t source_read(void *arg, char *buf, size_t max)
{
	struct source *src = arg;
	size_t n = src->left < max ? (size_t)src->left : max;

	if (!n && src->fail_at_end)
		return -1;
	memset(buf, 'z', n);
	src->left -= n;
	return (ssize_t)n;
}

static void h_download(struct pt_http_req *r, void *ctx)
{
	struct source *src = calloc(1, sizeof(*src));
	const char *size = pt_http_query(r, "size"), *mode = pt_http_query(r, "mode");
	bool chunked = mode && strchr(mode, 'c');

	src->left = strtoull(size, NULL, 10);
	src->fail_at_end = mode && strchr(mode, 'f');
	pt_http_reply_stream(r, 200, "application/octet-stream",
			     chunked ? -1 : (int64_t)src->left + (mode && strchr(mode, 's') ? 1000 : 0), source_read, on_free,
			     src);
}

static const struct pt_http_route routes[] = {
	{ "GET", "/hello", 0, .handle = h_hello },
	{ "GET", "/echo/{id}", 0, .handle = h_echo },
	{ "GET", "/echo/fixed", 0, .handle = h_hello },
	{ "PUT", "/echo/{id}", 100000, .handle = h_echo },
	{ "POST", "/echo/{id}", 2000000, .handle = h_echo },
	{ "GET", "/error/{code}", 0, .handle = h_error },
	{ "GET", "/crowded", 0, .handle = h_crowded },
	{ "GET", "/race", 0, .handle = h_race },
	{ "PUT", "/race", 1000, .handle = h_race },
	{ "GET", "/hold", 0, .handle = h_hold },
	{ "POST", "/hold", 1000, .handle = h_hold },
	{ "GET", "/many", 0, .handle = h_many },
	{ "PUT", "/stream", (size_t)4 << 30, .begin = s_begin, .chunk = s_chunk, .end = s_end, .abort = s_abort },
	{ "PUT", "/stream-small", 500000, .begin = s_begin, .chunk = s_chunk, .end = s_end, .abort = s_abort },
	{ "GET", "/download", 0, .handle = h_download },
};

static void start(unsigned threads, unsigned body_timeout, const char *dir)
{
	static char cert[200], key[200];
	struct pt_err err = { 0 };
	struct pt_http_server_conf conf = { .listen = "127.0.0.1:0",
					    .threads = threads,
					    .idle_timeout_s = 60,
					    .body_timeout_s = body_timeout,
					    .routes = routes,
					    .n_routes = PT_COUNT(routes),
					    .done = on_done };

	if (dir) {
		snprintf(cert, sizeof(cert), "%s/cert.pem", dir);
		snprintf(key, sizeof(key), "%s/key.pem", dir);
		conf.tls_cert = cert;
		conf.tls_key = key;
	}
	if (pt_http_server_start(&srv, &conf, &err) < 0) {
		printf("Bail out! %s\n", err.msg);
		exit(1);
	}
	port = pt_http_server_port(srv);
}

static void stop(void)
{
	pt_http_server_stop(srv, 5000);
	srv = NULL;
}

/* Send text on a new connection and read to the end or, with keep, to the marker. */
static int ask(const char *text, struct pt_buf *b, const char *until)
{
	int fd = dial(port), rc;

	pt_buf_clear(b);
	(void)puts_fd(fd, text);
	rc = take(fd, b, until, 5000);
	close(fd);
	return rc;
}
#endif
