/* The HTTP client against our own server and raw sockets that misbehave. */
#include "http_client_test.h"
#include "net/url.h"
#include "os/file.h"
#include <pthread.h>

static unsigned other_port;

static char seen_header[80];
static void on_header(void *arg, const char *name, const char *value)
{
	if (strcmp(name, "x-answer") == 0)
		snprintf(seen_header, sizeof(seen_header), "%s", value);
}

static void test_plain(void)
{
	static const struct {
		const char *method, *body, *want;
	} t[] = {
		{ "GET", NULL, "GET 0 " },
		{ "POST", "some body", "POST 9 some body" },
		{ "PUT", "some body", "PUT 9 some body" },
		{ "PATCH", "some body", "PATCH 9 some body" },
		{ "POST", NULL, "POST 0 " },
		{ "PUT", NULL, "PUT 0 " },
		{ "DELETE", NULL, "DELETE 0 " },
		{ "HEAD", NULL, "" },
	};
	struct pt_http_client *c = client(&(struct pt_http_client_conf) { .user_agent = "unit/1" });
	static const char *const headers[] = { "Content-Type: application/x-test", "X-Some: thing", NULL };
	static const char *const bad_headers[] = { "X-Some: a\r\nX-Evil: b", NULL };
	struct pt_http_stats st;
	pt_auto_buf b = PT_BUF_INIT(1 << 20), want = PT_BUF_INIT(100);
	struct pt_err err = { 0 };
	unsigned before;

	for (size_t i = 0; i < PT_COUNT(t); i++) {
		struct pt_http_call call = { .method = t[i].method,
					     .url = url("http://127.0.0.1:%u/echo", port),
					     .body = t[i].body,
					     .body_size = t[i].body ? (int64_t)strlen(t[i].body) : 0,
					     .out = &b,
					     .on_header = on_header };

		pt_buf_clear(&b);
		seen_header[0] = '\0';
		is_int(pt_http_do(c, &call, &err), 0, "%s%s", t[i].method, t[i].body ? " with a body" : "");
		is_str(b.p, t[i].want, "its answer");
		ok(call.status == 200 && strcmp(seen_header, "Forty Two") == 0 && strcmp(call.content_type, "text/plain") == 0 &&
			   strcmp(call.peer, "127.0.0.1") == 0 && call.total_us > 0 && call.retry_after_ms == -1,
		   "status, headers, peer, times");
		is_str(last_type, "-", "no invented content type");
	}
	pt_http_server_stats(srv, &st);
	is_int(st.connections, 1, "all on one connection");
	is_str(last_ua, "unit/1", "user agent");
	struct pt_http_call call = { .method = "POST",
				     .url = url("http://127.0.0.1:%u/echo", port),
				     .headers = headers,
				     .body = "x",
				     .body_size = 1,
				     .basic_user = "key_1",
				     .basic_password = "pass:word",
				     .once = true };
	is_int(pt_http_do(c, &call, &err), 0, "headers and login");
	pt_buf_str(&want, "Basic ");
	pt_buf_base64(&want, "key_1:pass:word", 15);
	is_str(last_auth, want.p, "Basic login");
	is_str(last_type, "application/x-test", "own content type");
	pt_http_server_stats(srv, &st);
	is_int(st.connections, 2, "once takes a new connection");
	call.headers = bad_headers;
	before = atomic_load(&hits);
	is_int(pt_http_do(c, &call, &err), PT_E_INVALID, "a line break in a header is refused");
	is_int(atomic_load(&hits), before, "and nothing was sent");
	/* Retry-After and redirects */
	call = (struct pt_http_call) { .method = "GET", .url = url("http://127.0.0.1:%u/status/503?after=7", port) };
	is_int(pt_http_do(c, &call, &err), 0, "a 503 is a response");
	ok(call.status == 503 && call.retry_after_ms == 7000, "Retry-After in seconds");
	call.url = url("http://127.0.0.1:%u/status/503?after=Fri,%%2031%%20Dec%%202100%%2023:59:59%%20GMT", port);
	is_int(pt_http_do(c, &call, &err), 0, "again");
	is_int(call.retry_after_ms, 86400000, "Retry-After as a date, at most a day");
	is_int(pt_http_retry_after(&call), 86400000, "counts with a 503");
	call.status = 302;
	is_int(pt_http_retry_after(&call), 0, "and not with a redirect");
	/* A date is meant by the server's clock, which its Date header tells. */
	call.url = url("http://127.0.0.1:%u/status/503?after=Fri,%%2031%%20Dec%%201999%%2023:59:59%%20GMT"
		       "&date=Fri,%%2031%%20Dec%%201999%%2023:59:50%%20GMT",
		       port);
	is_int(pt_http_do(c, &call, &err), 0, "from a server whose clock is decades behind");
	is_int(call.retry_after_ms, 9000, "Retry-After as a date");
	call.url = url("http://127.0.0.1:%u/status/302?to=/echo", port);
	is_int(pt_http_do(c, &call, &err), 0, "redirect, not followed");
	is_int(call.status, 302, "is the answer");
	call.follow = true;
	is_int(pt_http_do(c, &call, &err), 0, "redirect, followed");
	is_int(call.status, 200, "ends there");
	call.url = url("http://127.0.0.1:%u/status/302?to=file:///etc/passwd", port);
	ok(pt_http_do(c, &call, &err) < 0, "never to a file");
	pt_http_client_free(c);
}

/* --- streaming --- */
struct gen {
	uint64_t left;
	unsigned rewinds;
};

static ssize_t gen_read(void *arg, char *buf, size_t max)
{
	return zeros(&((struct gen *)arg)->left, buf, max);
}

static ssize_t gen_fail(void *arg, char *buf, size_t max)
{
	return -1;
}

static int count_data(void *arg, const char *data, size_t n, struct pt_err *err)
{
	*(uint64_t *)arg += n;
	return *(uint64_t *)arg > ((uint64_t)1 << 40) ? -1 : 0;
}

static int refuse_data(void *arg, const char *data, size_t n, struct pt_err *err)
{
	return pt_fail(err, PT_E_CORRUPT, "not what I asked for");
}

static void test_stream(void)
{
	struct pt_http_client *c = client(&(struct pt_http_client_conf) { 0 });
	struct gen g = { .left = (uint64_t)256 << 20 };
	pt_auto_buf b = PT_BUF_INIT(1000);
	struct pt_err err = { 0 };
	uint64_t got = 0;
	long rss = rss_kib();
	struct pt_http_call call = { .method = "PUT",
				     .url = url("http://127.0.0.1:%u/upload", port),
				     .read = gen_read,
				     .arg = &g,
				     .body_size = (int64_t)g.left,
				     .out = &b };

	is_int(pt_http_do(c, &call, &err), 0, "256 MiB up with a length");
	is_str(b.p, "268435456", "all there");
	g.left = (uint64_t)100 << 20;
	call.body_size = -1;
	pt_buf_clear(&b);
	is_int(pt_http_do(c, &call, &err), 0, "100 MiB up in chunks");
	is_str(b.p, "104857600", "all there");
	g.left = (uint64_t)100 << 20;
	call.url = url("http://127.0.0.1:%u/upload?refuse=1", port);
	pt_buf_clear(&b);
	is_int(pt_http_do(c, &call, &err), 0, "refused in the middle of the body");
	is_int(call.status, 409, "the client sees the status");
	ok(g.left > 50 << 20, "and stops sending");
	is_int(pt_http_error_of(&call, &b, &err), PT_E_CONFLICT, "with its error");
	is_str(err.msg, "enough", "and message");
	call.read = gen_fail;
	is_int(pt_http_do(c, &call, &err), PT_E_IO, "a body that cannot be read");
	call = (struct pt_http_call) { .method = "GET",
				       .url = url("http://127.0.0.1:%u/download?size=268435456", port),
				       .on_data = count_data,
				       .arg = &got };
	is_int(pt_http_do(c, &call, &err), 0, "256 MiB down");
	is_int(got, 268435456, "all there");
	ok(rss_kib() - rss < 8192, "with flat memory (+%ld KiB)", rss_kib() - rss);
	call.on_data = refuse_data;
	is_int(pt_http_do(c, &call, &err), PT_E_CORRUPT, "on_data ends the call");
	is_str(err.msg, "not what I asked for", "with its error");
	call.on_data = count_data;
	got = 0;
	call.out = &b;
	pt_buf_clear(&b);
	call.url = url("http://127.0.0.1:%u/download?size=5&bad=1", port);
	is_int(pt_http_do(c, &call, &err), 0, "a 500");
	ok(got == 0 && b.len == 5, "its body goes to out, not to on_data");
	call.on_data = NULL;
	call.url = url("http://127.0.0.1:%u/download?size=5000", port);
	pt_buf_clear(&b);
	is_int(pt_http_do(c, &call, &err), PT_E_TOO_LARGE, "a body over out's limit");
	pt_http_client_free(c);
}

static void test_error_of(void)
{
	static const struct {
		const char *path;
		int code;
		const char *msg, *native;
	} t[] = {
		{ "/error/stale_attempt", PT_E_STALE, "the message", "N1" },
		{ "/error/limit_exceeded", PT_E_LIMIT, "the message", "N1" },
		{ "/error/internal", PT_E_INTERNAL, "the message", "N1" },
		{ "/status/502", PT_E_UNAVAILABLE, "the server answered with status 502 and no error document", "502" },
		{ "/status/401", PT_E_UNAUTHENTICATED, "the server answered with status 401 and no error document", "401" },
		{ "/status/418", PT_E_INVALID, "the server answered with status 418 and no error document", "418" },
		{ "/status/302", PT_E_PROTOCOL, "the server answered with status 302 and no error document", "302" },
	};
	struct pt_http_client *c = client(&(struct pt_http_client_conf) { 0 });

	for (size_t i = 0; i < PT_COUNT(t); i++) {
		pt_auto_buf b = PT_BUF_INIT(10000);
		struct pt_err err = { 0 };
		struct pt_http_call call = { .method = "GET", .url = url("http://127.0.0.1:%u%s", port, t[i].path), .out = &b };

		is_int(pt_http_do(c, &call, &err), 0, "%s", t[i].path);
		is_int(pt_http_error_of(&call, &b, &err), t[i].code, "its code");
		is_str(err.msg, t[i].msg, "its message");
		is_str(err.native, t[i].native, "its native code");
	}
	struct pt_http_call call = { .status = 422 };
	struct pt_err err = { 0 };
	struct pt_buf b = { .p = (char *)"{\"error\":{\"code\":\"from_the_future\",\"message\":\"m\"}}", .max = 100 };

	b.len = strlen(b.p);
	is_int(pt_http_error_of(&call, &b, &err), PT_E_QUERY, "a code we do not know keeps the class of its status");
	pt_http_client_free(c);
}

/* --- failures of the network --- */
static void *fire_soon(void *arg)
{
	nap_ms(100);
	pt_cancel_fire(arg, PT_E_CANCELLED, "cancelled by ada");
	return NULL;
}

static int first_only(void *arg, const void *sa, struct pt_err *err)
{
	return ++*(int *)arg > 1 ? pt_fail(err, PT_E_BLOCKED, "not there") : 0;
}

static int no_loopback(void *arg, const void *sa, struct pt_err *err)
{
	struct pt_cidr loop;

	++*(int *)arg;
	if (pt_cidr_parse("127.0.0.0/8", &loop, err) < 0 || pt_cidr_has(&loop, sa))
		return pt_fail(err, PT_E_BLOCKED, "loopback is not allowed");
	return 0;
}

/* A socket that listens and whose connections get the text, then stay open (or, without hold, end). */
struct odd {
	int fd;
	unsigned port;
	const char *text;
	bool hold;
	size_t slow; /* takes so many bytes slowly, before it answers */
	pthread_t t;
};

static void *odd_run(void *arg)
{
	struct odd *o = arg;
	pt_auto_buf b = PT_BUF_INIT(65536);
	int fd = accept(o->fd, NULL, NULL);

	if (fd < 0)
		return NULL;
	if (!o->slow)
		(void)take(fd, &b, "\r\n\r\n", 2000);
	for (ssize_t n = 1; n > 0 && o->slow; o->slow -= (size_t)n < o->slow ? (size_t)n : o->slow) {
		char part[16384];

		usleep(50000);
		n = read(fd, part, sizeof(part));
	}
	(void)puts_fd(fd, o->text);
	if (o->hold)
		(void)take(fd, &b, NULL, 10000);
	close(fd);
	return NULL;
}

static void odd_start(struct odd *o)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(sa);
	int small = 65536;

	o->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (o->slow)
		(void)setsockopt(o->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)); /* of the connections, too */
	if (o->fd < 0 || bind(o->fd, (struct sockaddr *)&sa, n) < 0 || listen(o->fd, 5) < 0 ||
	    getsockname(o->fd, (struct sockaddr *)&sa, &n) < 0 || pthread_create(&o->t, NULL, odd_run, o))
		abort();
	o->port = ntohs(sa.sin_port);
}

static void odd_stop(struct odd *o)
{
	shutdown(o->fd, SHUT_RDWR);
	pthread_join(o->t, NULL);
	close(o->fd);
}

static void test_failures(void)
{
	static const struct {
		const char *name, *text;
		bool hold;
		int want;
	} odd[] = {
		{ "closed without an answer", "", false, PT_E_CONNECTION_LOST },
		{ "closed in the middle of a body", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", false,
		  PT_E_CONNECTION_LOST },
		{ "closed in the middle of a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc", false,
		  PT_E_CONNECTION_LOST },
		{ "not HTTP", "SSH-2.0-OpenSSH_9.2\r\n", false, PT_E_PROTOCOL },
		{ "silence", "", true, PT_E_TIMEOUT },
		{ "silence in the middle of a body", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", true, PT_E_TIMEOUT },
	};
	struct pt_http_client *c = client(&(struct pt_http_client_conf) { .connect_timeout_ms = 30000 });
	struct pt_cancel cancel;
	struct pt_err err = { 0 };
	struct pt_http_call call = { .method = "GET", .url = url("http://127.0.0.1:%u/", free_port()) };
	pthread_t t;
	int64_t from;
	int asked = 0;

	is_int(pt_http_do(c, &call, &err), PT_E_CONNECT, "refused: %s", err.msg);
	ok(err.hint[0] != '\0', "with a hint");
	call.url = "http://no-such-host.invalid/";
	is_int(pt_http_do(c, &call, &err), PT_E_HOST_UNKNOWN, "unknown host: %s", err.msg);
	call.url = "ftp://127.0.0.1/";
	is_int(pt_http_do(c, &call, &err), PT_E_INVALID, "ftp");
	call.url = "http://user:secret word@127.0.0.1/";
	is_int(pt_http_do(c, &call, &err), PT_E_INVALID, "a space in the URL");
	ok(!strstr(err.msg, "secret"), "no password in the message");
	call.url = url("http://user:topsecret@127.0.0.1:%u/", free_port());
	ok(pt_http_do(c, &call, &err) < 0 && !strstr(err.msg, "topsecret"), "nor here");
	for (size_t i = 0; i < PT_COUNT(odd); i++) {
		struct odd o = { .text = odd[i].text, .hold = odd[i].hold };

		odd_start(&o);
		call = (struct pt_http_call) { .method = "GET",
					       .url = url("http://127.0.0.1:%u/", o.port),
					       .stall_timeout_ms = 300 };
		from = pt_mono_ms();
		is_int(pt_http_do(c, &call, &err), odd[i].want, "%s: %s", odd[i].name, err.msg);
		ok(pt_mono_ms() - from < 1500, "in time");
		odd_stop(&o);
	}
	{ /* what speaks no TLS answers the handshake with an error in clear, or hangs up, as it comes */
		struct odd o = { .text = "" };

		odd_start(&o);
		call = (struct pt_http_call) { .method = "GET", .url = url("https://127.0.0.1:%u/", o.port) };
		is_int(pt_http_do(c, &call, &err), PT_E_TLS, "hung up during the handshake: %s", err.msg);
		ok(strstr(err.hint, "does not seem to speak TLS"), "with a hint: %s", err.hint);
		odd_stop(&o);
	}
	{ /* a slow network: the kernel has the whole body at once, and brings it in three seconds */
		struct odd o = { .text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", .slow = 1000000 };
		pt_auto(pt_freep) void *body = calloc(1, o.slow);

		odd_start(&o);
		call = (struct pt_http_call) { .method = "POST",
					       .url = url("http://127.0.0.1:%u/", o.port),
					       .body = body,
					       .body_size = (int64_t)o.slow,
					       .stall_timeout_ms = 1500 };
		is_int(pt_http_do(c, &call, &err), 0, "a body that is on its way is no silence: %s", err.msg);
		odd_stop(&o);
	}
	/* whole-call limit, cancel, deadline: each ends a blocked call */
	call = (struct pt_http_call) { .method = "GET", .url = url("http://127.0.0.1:%u/hold", port), .timeout_ms = 200 };
	from = pt_mono_ms();
	is_int(pt_http_do(c, &call, &err), PT_E_TIMEOUT, "time limit of the call: %s", err.msg);
	ok(pt_mono_ms() - from < 1000, "in time");
	call.timeout_ms = 0;
	call.cancel = &cancel;
	is_int(pt_cancel_init(&cancel, &err), 0, "a cancel");
	is_int(pthread_create(&t, NULL, fire_soon, &cancel), 0, "on its way");
	from = pt_mono_ms();
	is_int(pt_http_do(c, &call, &err), PT_E_CANCELLED, "cancelled: %s", err.msg);
	ok(pt_mono_ms() - from < 400, "at once (%lld ms)", (long long)(pt_mono_ms() - from));
	pthread_join(t, NULL);
	is_int(pt_http_do(c, &call, &err), PT_E_CANCELLED, "and stays so");
	pt_cancel_release(&cancel);
	ok(pt_cancel_init(&cancel, &err) == 0, "a deadline");
	cancel.deadline_ms = pt_mono_ms() + 150;
	from = pt_mono_ms();
	is_int(pt_http_do(c, &call, &err), PT_E_DEADLINE, "deadline: %s", err.msg);
	ok(pt_mono_ms() - from < 500, "in time");
	pt_cancel_release(&cancel);
	/* the client is usable after all that */
	call = (struct pt_http_call) { .method = "GET", .url = url("http://127.0.0.1:%u/echo", port) };
	is_int(pt_http_do(c, &call, &err), 0, "the client works on");
	call.allow_address = no_loopback;
	call.allow_arg = &asked;
	is_int(pt_http_do(c, &call, &err), PT_E_BLOCKED, "a refused address: %s", err.msg);
	ok(asked == 1, "although a connection to it was open");
	call.url = url("http://localhost:%u/echo", port);
	is_int(pt_http_do(c, &call, &err), PT_E_BLOCKED, "also by name");
	/* the first address may pass, the redirect's may not, although a connection to it is kept */
	call = (struct pt_http_call) { .method = "GET", .url = url("http://127.0.0.1:%u/echo", port) };
	is_int(pt_http_do(c, &call, &err), 0, "keep one");
	call = (struct pt_http_call) { .method = "GET", .allow_address = first_only, .allow_arg = &asked, .follow = true };
	asked = 0;
	call.url = url("http://127.0.0.1:%u/status/302?to=http://127.0.0.1:%u/echo", other_port, port);
	is_int(pt_http_do(c, &call, &err), PT_E_BLOCKED, "a redirect is asked about too");
	is_int(asked, 2, "two questions");
	pt_http_client_free(c);
}

static void test_tls(void)
{
	pt_auto_buf b = PT_BUF_INIT(10000), pem = PT_BUF_INIT(10000), b64 = PT_BUF_INIT(20000);
	char ca[200];
	struct pt_err err = { 0 };
	struct pt_http_client *c = client(&(struct pt_http_client_conf) { 0 });
	struct pt_http_call call = { .method = "GET", .url = url("https://localhost:%u/echo", tls_port), .out = &b };

	is_int(pt_http_do(c, &call, &err), PT_E_TLS, "unknown issuer: %s", err.msg);
	ok(strstr(err.msg, "CN=localhost") && strstr(err.msg, "CN=Test Inspecting CA"), "subject and issuer are named");
	ok(strstr(err.hint, "--ca-file/POSTERN_CA_FILE") && strstr(err.hint, "TLS-inspecting"), "the hint tells what to do");
	call.url = url("https://127.0.0.1:%u/", port);
	is_int(pt_http_do(c, &call, &err), PT_E_TLS, "not TLS: %s", err.msg);
	pt_http_client_free(c);
	snprintf(ca, sizeof(ca), "%s/ca.pem", dir);
	c = client(&(struct pt_http_client_conf) { .ca = ca });
	call.url = url("https://localhost:%u/echo", tls_port);
	for (int i = 0; i < 3; i++)
		is_int(pt_http_do(c, &call, &err), 0, "trusted by the CA's path");
	ok(call.status == 200, "answered");
	struct pt_http_stats st;
	pt_http_server_stats(tls_srv, &st);
	is_int(st.connections, 1, "on one connection");
	call.url = url("https://127.0.0.1:%u/echo", tls_port);
	is_int(pt_http_do(c, &call, &err), 0, "by address");
	ok(call.tls_us > 0, "the handshake's time is told");
	call.url = url("https://ip6-localhost.localhost:%u/echo", tls_port);
	is_int(pt_http_do(c, &call, &err), PT_E_TLS, "another name: %s", err.msg);
	ok(strstr(err.hint, "another name"), "the hint says so");
	pt_http_client_free(c);
	is_int(pt_file_read(ca, &pem, &err), 0, "the CA's file");
	pt_buf_base64(&b64, pem.p, pem.len);
	c = client(&(struct pt_http_client_conf) { .ca = b64.p });
	call.url = url("https://localhost:%u/echo", tls_port);
	is_int(pt_http_do(c, &call, &err), 0, "trusted by the CA's base64");
	pt_http_client_free(c);
	c = NULL;
	is_int(pt_http_client_new(&c, &(struct pt_http_client_conf) { .ca = "/no/such.pem" }, &err), PT_E_INVALID,
	       "no such CA file: %s", err.msg);
	is_int(pt_http_client_new(&c, &(struct pt_http_client_conf) { .ca = "aGVsbG8=" }, &err), PT_E_INVALID,
	       "base64 of no PEM: %s", err.msg);
}

int main(void)
{
	struct pt_http_server *other;

	dir = temp_dir();
	signal(SIGPIPE, SIG_IGN);
	ok(make_certs(dir), "certificates made");
	srv = serve(false, &port);
	tls_srv = serve(true, &tls_port);
	other = serve(false, &other_port);
	test_plain();
	test_stream();
	test_error_of();
	test_failures();
	test_tls();
	pt_http_server_stop(srv, 2000);
	pt_http_server_stop(tls_srv, 2000);
	pt_http_server_stop(other, 2000);
	sh("rm -rf %s", dir);
	return tap_end();
}
