/* Servers and clients for the tests of src/net/http_client.h. */
#ifndef PT_HTTP_CLIENT_TEST_H
#define PT_HTTP_CLIENT_TEST_H
#include "net/http_client.h"
#include "net/http_server.h"
#include "net_test.h"
#include "../tap.h"
#include <stdarg.h>
#include <stdatomic.h>

static struct pt_http_server *srv, *tls_srv;
static unsigned port, tls_port;
static const char *dir;
static _Atomic unsigned hits;
static char last_auth[200], last_type[80], last_ua[80];

static void note(struct pt_http_req *r)
{
	const char *a = pt_http_header(r, "authorization"), *t = pt_http_header(r, "content-type"),
		   *u = pt_http_header(r, "user-agent");

	snprintf(last_auth, sizeof(last_auth), "%s", a ? a : "-");
	snprintf(last_type, sizeof(last_type), "%s", t ? t : "-");
	snprintf(last_ua, sizeof(last_ua), "%s", u ? u : "-");
	atomic_fetch_add(&hits, 1);
}

static void h_echo(struct pt_http_req *r, void *ctx)
{
	struct pt_buf b = PT_BUF_INIT(1 << 22);
	const char *body;
	size_t n;

	note(r);
	body = pt_http_body(r, &n);
	pt_buf_fmt(&b, "%s %lld ", pt_http_method(r), (long long)pt_http_body_expected(r));
	pt_buf_add(&b, body, n);
	pt_http_set_header(r, "X-Answer", "Forty Two");
	pt_http_reply_buf(r, 200, "text/plain", &b);
}

static void h_error(struct pt_http_req *r, void *ctx)
{
	struct pt_err err = { 0 };

	pt_fail(&err, pt_code_from_wire(pt_http_param(r, "code")), "the message");
	pt_hint(&err, "the hint");
	pt_native(&err, "N1");
	pt_http_reply_err(r, &err);
}

static void h_status(struct pt_http_req *r, void *ctx)
{
	if (pt_http_query(r, "to"))
		pt_http_set_header(r, "Location", pt_http_query(r, "to"));
	if (pt_http_query(r, "after"))
		pt_http_set_header(r, "Retry-After", pt_http_query(r, "after"));
	if (pt_http_query(r, "date"))
		pt_http_set_header(r, "Date", pt_http_query(r, "date"));
	pt_http_reply(r, (int)strtol(pt_http_param(r, "n"), NULL, 10), "text/html", "<html>", 6);
}

static void on_gone(void *r)
{
	pt_http_reply(r, 200, NULL, "", 0);
}

static void h_hold(struct pt_http_req *r, void *ctx)
{
	pt_http_hold(r, on_gone, r);
}

static ssize_t zeros(void *arg, char *buf, size_t max)
{
	uint64_t *left = arg;
	size_t n = *left < max ? (size_t)*left : max;

	memset(buf, 0, n);
	*left -= n;
	return (ssize_t)n;
}

static void h_download(struct pt_http_req *r, void *ctx)
{
	uint64_t *left = malloc(sizeof(*left));

	*left = strtoull(pt_http_query(r, "size"), NULL, 10);
	pt_http_reply_stream(r, pt_http_query(r, "bad") ? 500 : 200, "application/octet-stream", -1, zeros, free, left);
}

static int u_begin(struct pt_http_req *r, void *ctx, struct pt_err *err)
{
	pt_http_set_data(r, calloc(1, sizeof(uint64_t)), free);
	return 0;
}

static int u_chunk(struct pt_http_req *r, void *ctx, const void *data, size_t n, struct pt_err *err)
{
	*(uint64_t *)pt_http_data(r) += n;
	return pt_http_query(r, "refuse") ? pt_fail(err, PT_E_CONFLICT, "enough") : 0;
}

static void u_end(struct pt_http_req *r, void *ctx)
{
	char text[40];
	int n = snprintf(text, sizeof(text), "%llu", (unsigned long long)*(uint64_t *)pt_http_data(r));

	pt_http_reply(r, 200, "text/plain", text, (size_t)n);
}

static const struct pt_http_route routes[] = {
	{ "GET", "/echo", 0, .handle = h_echo },
	{ "POST", "/echo", 1 << 20, .handle = h_echo },
	{ "PUT", "/echo", 1 << 20, .handle = h_echo },
	{ "PATCH", "/echo", 1 << 20, .handle = h_echo },
	{ "DELETE", "/echo", 0, .handle = h_echo },
	{ "GET", "/error/{code}", 0, .handle = h_error },
	{ "GET", "/status/{n}", 0, .handle = h_status },
	{ "GET", "/hold", 0, .handle = h_hold },
	{ "GET", "/download", 0, .handle = h_download },
	{ "PUT", "/upload", (size_t)4 << 30, .begin = u_begin, .chunk = u_chunk, .end = u_end },
};

static struct pt_http_server *serve(bool tls, unsigned *ret_port)
{
	char cert[200], key[200];
	struct pt_err err = { 0 };
	struct pt_http_server *s = NULL;
	struct pt_http_server_conf conf = { .listen = "127.0.0.1:0",
					    .threads = 2,
					    .idle_timeout_s = 60,
					    .body_timeout_s = 60,
					    .routes = routes,
					    .n_routes = PT_COUNT(routes) };

	snprintf(cert, sizeof(cert), "%s/cert.pem", dir);
	snprintf(key, sizeof(key), "%s/key.pem", dir);
	if (tls) {
		conf.tls_cert = cert;
		conf.tls_key = key;
	}
	if (pt_http_server_start(&s, &conf, &err) < 0) {
		printf("Bail out! %s\n", err.msg);
		exit(1);
	}
	*ret_port = pt_http_server_port(s);
	return s;
}

static struct pt_http_client *client(const struct pt_http_client_conf *conf)
{
	struct pt_http_client *c = NULL;
	struct pt_err err = { 0 };

	if (pt_http_client_new(&c, conf, &err) < 0) {
		printf("Bail out! %s\n", err.msg);
		exit(1);
	}
	return c;
}

static const char *url(const char *fmt, ...) PT_PRINTF(1, 2);
static const char *url(const char *fmt, ...)
{
	static char text[1000];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return text;
}
#endif
