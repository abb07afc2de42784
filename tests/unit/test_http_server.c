/* The HTTP server over real loopback sockets: requests and answers, held and streamed ones, who is told what when, TLS, the end. */
#include "http_serve.h"
#include <gnutls/gnutls.h>
#include <sys/resource.h>

static void test_requests(void)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 24), big = PT_BUF_INIT(1 << 22);
	struct pt_http_stats st;
	int before, count, fd;
	char head[200];

	wait_until(3000, (pt_http_server_stats(srv, &st), st.connections == 0));
	before = atomic_load(&freed);

	ask("GET /echo/a%2Fb%20c?q=x%26y+z&q2=&r HTTP/1.1\r\nHost: a\r\nX-Test: v w\r\n\r\n", &b, "[r=] ");
	ok(strstr(b.p, "GET /echo/a%2Fb%20c id=a/b c q=x&y z x=v w peer=127.0.0.1 expected=0 [q=x&y z][q2=][r=]"),
	   "decoded parts");
	ok(strstr(b.p, "X-Mine: yes\r\n"), "a handler's header");
	ask("GET /echo/fixed HTTP/1.1\r\nHost: a\r\n\r\n", &b, "hello");
	ok(strstr(b.p, "hello"), "a literal segment wins over a parameter");
	ask("PUT /echo/fixed HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody", &b, "}}");
	is_int(strncmp(b.p, "HTTP/1.1 405", 12), 0, "and its methods are the only ones");
	ask("PUT /echo/7 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody", &b, " body");
	ok(strstr(b.p, "PUT /echo/7 id=7 q=- x=- peer=127.0.0.1 expected=4  body"), "a small body");
	ask("PUT /echo/7 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n", &b,
	    "abcdefg");
	ok(strstr(b.p, "expected=-1  abcdefg"), "a chunked body");
	ok(wait_until(2000, atomic_load(&freed) == before + 3), "the handler's data is freed");
	for (size_t i = 0; i < 1500000 / 10; i++)
		pt_buf_str(&big, "0123456789");
	snprintf(head, sizeof(head), "POST /echo/7 HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", big.len);
	fd = dial(port);
	pt_buf_clear(&b);
	(void)puts_fd(fd, head);
	(void)put(fd, big.p, big.len);
	(void)take(fd, &b, "\r\n\r\n", 5000);
	wait_until(5000, take(fd, &b, NULL, 50) == 1 || b.len > big.len + 200);
	ok(strstr(b.p, big.p) != NULL, "a body of 1.5 MB comes back whole");
	/* HEAD, and two requests in one packet */
	pt_buf_clear(&b);
	(void)puts_fd(fd, "HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\nGET /echo/second HTTP/1.1\r\nHost: a\r\n\r\n");
	(void)take(fd, &b, "id=second", 5000);
	ok(strstr(b.p, "Content-Length: 6\r\n") && !strstr(b.p, "hello\n") && strstr(b.p, "id=second"),
	   "HEAD, and a pipelined request");
	close(fd);
	ask("GET /error/unauthenticated HTTP/1.1\r\nHost: a\r\n\r\n", &b, "}}");
	ok(strstr(b.p, "HTTP/1.1 401") && strstr(b.p, "WWW-Authenticate: Bearer realm=\"postern\"\r\n") &&
		   strstr(b.p, "WWW-Authenticate: Basic realm=\"postern\""),
	   "401 offers Bearer and Basic");
	ok(strstr(b.p, "{\"error\":{\"code\":\"unauthenticated\",\"message\":\"it \\\"failed\\\"\",\"hint\":\"try "
		       "this\",\"retryable\":false,"
		       "\"native_code\":\"42P01\"}}"),
	   "the whole error document");
	ask("GET /error/limit_exceeded HTTP/1.1\r\nHost: a\r\n\r\n", &b, "}}");
	ok(strstr(b.p, "HTTP/1.1 429") && strstr(b.p, "Retry-After: 1\r\n") && strstr(b.p, "\"retryable\":true"), "429");
	ask("GET /error/unavailable HTTP/1.1\r\nHost: a\r\n\r\n", &b, "}}");
	ok(strstr(b.p, "HTTP/1.1 503") && strstr(b.p, "Retry-After: 1\r\n"), "503");
	wait_until(3000, (pt_http_server_stats(srv, &st), st.connections == 0));
	count = atomic_load(&done_count);
	ask("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", &b, "hello");
	ok(wait_until(2000,
		      atomic_load(&done_count) == count + 1 && atomic_load(&done_status) == 200 && atomic_load(&done_bytes) == 6),
	   "done() tells status and bytes");
}

static void test_hold(void)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	struct pt_http_stats st;
	int fd, bad = 0, before;

	/* answered at any moment, also before the handler returned */
	fd = dial(port);
	for (int i = 0; i < 2000; i++) {
		pt_buf_clear(&b);
		(void)puts_fd(fd, i % 2 ? "GET /race HTTP/1.1\r\nHost: a\r\n\r\n"
					: "PUT /race HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
		bad += take(fd, &b, "answered", 5000) != 0;
		if (bad)
			break;
	}
	is_int(bad, 0, "2000 held requests answered by other threads at once");
	close(fd);
	/* held; a pipelined request is not a departure; answered; the pipelined one follows */
	fd = dial(port);
	pt_buf_clear(&b);
	atomic_store(&held_req, NULL);
	before = atomic_load(&gone_count);
	(void)puts_fd(fd, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	ok(wait_until(2000, atomic_load(&held_req) != NULL), "held");
	ok(wait_until(2000, (pt_http_server_stats(srv, &st), st.held == 1)), "counted as held");
	(void)puts_fd(fd, "GET /echo/next HTTP/1.1\r\nHost: a\r\n\r\n");
	nap_ms(100); /* room for a wrong "gone" to show */
	is_int(atomic_load(&gone_count), before, "bytes of the next request are not a departure");
	pt_http_reply(atomic_load(&held_req), 200, "text/plain", "finally", 7);
	is_int(take(fd, &b, "id=next", 5000), 0, "the pipelined request is answered after it");
	ok(strstr(b.p, "finally") && strstr(b.p, "finally") < strstr(b.p, "id=next"), "in order");
	/* the same connection holds again and leaves */
	for (int round = 0; round < 2; round++) {
		int f;

		wait_until(3000, (pt_http_server_stats(srv, &st), st.held + st.active == 0));
		f = atomic_load(&freed);
		atomic_store(&held_req, NULL);
		before = atomic_load(&gone_count);
		if (round)
			fd = dial(port);
		(void)puts_fd(fd, round ? "POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
					: "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
		ok(wait_until(2000, atomic_load(&held_req) != NULL), "held again");
		close(fd);
		ok(wait_until(2000, atomic_load(&gone_count) == before + 1), "a client that leaves is noticed (%d)", round);
		ok(wait_until(2000, atomic_load(&freed) == f + 1), "and the request ends");
	}
	/* gone before it is held: the client leaves while the request is on its way */
	before = atomic_load(&gone_count);
	for (int i = 0; i < 50; i++) {
		fd = dial(port);
		(void)puts_fd(fd, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
		close(fd);
	}
	ok(wait_until(3000, atomic_load(&gone_count) == before + 50), "50 clients that leave at once are all noticed");
	ok(wait_until(3000, (pt_http_server_stats(srv, &st), st.held == 0 && st.active == 0 && st.connections == 0)),
	   "all is back to zero");
}

static void *answer_many(void *arg)
{
	pthread_mutex_lock(&many_lock);
	for (unsigned i = 0; i < n_many; i++)
		if (many[i])
			pt_http_reply(many[i], 200, "text/plain", "answered", 8);
	pthread_mutex_unlock(&many_lock);
	return NULL;
}

static void test_many(void)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	struct pt_http_stats st;
	int fd[MANY], good = 0, before = atomic_load(&gone_count), n;

	n_many = 0;
	for (int i = 0; i < MANY; i++) {
		fd[i] = dial(port);
		(void)puts_fd(fd[i], "GET /many HTTP/1.1\r\nHost: a\r\n\r\n");
	}
	ok(wait_until(5000, (pt_http_server_stats(srv, &st), st.held == MANY)), "200 held at the same time");
	for (int i = 0; i < 20; i++)
		close(fd[i]);
	ok(wait_until(3000, atomic_load(&gone_count) == before + 20), "20 of them leave");
	pt_http_server_stats(srv, &st);
	is_int(st.held, MANY - 20, "the others wait on");
	run_detached(answer_many, NULL);
	for (int i = 20; i < MANY; i++) {
		pt_buf_clear(&b);
		n = take(fd[i], &b, "answered", 3000);
		good += n == 0;
		close(fd[i]);
	}
	is_int(good, MANY - 20, "the others are answered by one other thread");
	ok(wait_until(3000, (pt_http_server_stats(srv, &st), st.held == 0 && st.connections == 0)), "none is left");
}

/* Reads a whole streamed response and throws it away; its number of bytes, or -1 when cut. */
static int64_t drain(int fd, bool *ret_reset)
{
	static char tmp[65536];
	int64_t all = 0;
	ssize_t n;

	while ((n = recv(fd, tmp, sizeof(tmp), 0)) > 0)
		all += n;
	*ret_reset = n < 0;
	return all;
}

static void test_stream(void)
{
	enum { BIG = 512 };
	static char mb[1 << 20];
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	int fd, before, f, rc;
	char head[200], want[40];
	struct pt_http_stats st;
	int64_t n;
	bool reset;
	long rss;

	ask("PUT /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde", &b, "\r\n\r\n5");
	ok(strstr(b.p, "\r\n\r\n5"), "a streamed body");
	rss = rss_kib();
	fd = dial(port);
	pt_buf_clear(&b);
	snprintf(head, sizeof(head), "PUT /stream HTTP/1.1\r\nHost: a\r\nContent-Length: %lld\r\n\r\n", (long long)BIG << 20);
	(void)puts_fd(fd, head);
	for (int i = 0; i < BIG; i++)
		(void)put(fd, mb, sizeof(mb));
	snprintf(want, sizeof(want), "\r\n\r\n%lld", (long long)BIG << 20);
	is_int(take(fd, &b, want, 10000), 0, "512 MiB in");
	close(fd);
	ok(rss_kib() - rss < 8192, "with flat memory (+%ld KiB)", rss_kib() - rss);
	fd = dial(port);
	(void)puts_fd(fd, "GET /download?size=536870912 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
	n = drain(fd, &reset);
	ok(n > 536870912 && n < 536870912 + 1000 && !reset, "512 MiB out with a length");
	close(fd);
	fd = dial(port);
	(void)puts_fd(fd, "GET /download?size=104857600&mode=c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
	n = drain(fd, &reset);
	ok(n > 104857600 && n < 104857600 + 600000 && !reset, "100 MiB out in chunks");
	close(fd);
	ok(rss_kib() - rss < 8192, "with flat memory (+%ld KiB)", rss_kib() - rss);
	/* what fails in the middle must not look whole */
	f = atomic_load(&freed);
	ask("GET /download?size=1000&mode=cf HTTP/1.1\r\nHost: a\r\n\r\n", &b, NULL);
	ok(strstr(b.p, "zzz") && !strstr(b.p, "\r\n0\r\n"), "a failed chunked response has no end");
	ask("GET /download?size=1000&mode=s HTTP/1.1\r\nHost: a\r\n\r\n", &b, NULL);
	ok(strstr(b.p, "Content-Length: 2000\r\n") && b.len < 1900, "a source that ends early cuts the connection");
	ok(wait_until(2000, atomic_load(&freed) == f + 2), "the stream's argument is freed");
	/* refusals */
	wait_until(3000, (pt_http_server_stats(srv, &st), st.connections == 0));
	before = atomic_load(&aborted);
	fd = dial(port);
	pt_buf_clear(&b);
	(void)puts_fd(fd, "PUT /stream?mode=refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 10485760\r\n\r\n");
	for (int i = 0; i < 10; i++)
		if (!put(fd, mb, sizeof(mb)))
			break;
	rc = take(fd, &b, NULL, 5000);
	ok(strncmp(b.p, "HTTP/1.1 422", 12) == 0 && strstr(b.p, "row 7 is bad") && rc == 1,
	   "refused in the middle: error document, clean end (%d)", rc);
	close(fd);
	ok(wait_until(2000, atomic_load(&aborted) == before + 1), "abort is called");
	ok(wait_until(2000, atomic_load(&done_status) == 422), "done() tells 422");
	fd = dial(port);
	pt_buf_clear(&b);
	(void)puts_fd(fd, "PUT /stream-small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
	for (int i = 0; i < 20; i++)
		if (!puts_fd(fd, "10000\r\n") || !put(fd, mb, 0x10000) || !puts_fd(fd, "\r\n"))
			break;
	rc = take(fd, &b, NULL, 5000);
	ok(strncmp(b.p, "HTTP/1.1 413", 12) == 0 && rc == 1, "413 while it streams in");
	close(fd);
	ok(wait_until(2000, atomic_load(&aborted) == before + 2), "abort is called");
	for (int big = 0; big < 2; big++) {
		static const char *const mode[] = { "fail", "401" }, *const status[] = { "HTTP/1.1 409", "HTTP/1.1 401" };

		for (size_t i = 0; i < 2; i++) {
			fd = dial(port);
			pt_buf_clear(&b);
			snprintf(head, sizeof(head), "PUT /stream?mode=%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n",
				 mode[i], big ? 8 << 20 : 5);
			(void)puts_fd(fd, head);
			for (int k = 0; big && k < 8; k++)
				if (!put(fd, mb, sizeof(mb)))
					break;
			if (!big)
				(void)puts_fd(fd, "abcdeGET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
			rc = take(fd, &b, big ? NULL : "hello", 5000);
			ok(strncmp(b.p, status[i], 12) == 0 && rc == big, "refused by begin (%s), %s body", mode[i],
			   big ? "large" : "small");
			close(fd);
		}
	}
	ask("PUT /stream?mode=401 HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\nExpect: 100-continue\r\n\r\n", &b, NULL);
	ok(strncmp(b.p, "HTTP/1.1 401", 12) == 0, "refused before 100 Continue");
	ask("PUT /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\nExpect: 100-continue\r\n\r\n", &b, "100 Continue");
	ok(strstr(b.p, "100 Continue"), "100 Continue");
	ok(wait_until(2000, atomic_load(&aborted) == before + 3), "a client that leaves in the middle: abort");
}

/* A TLS client with a request that is sent; the session's protocol or a negative error.  The caller ends it with tls_end(). */
struct tls {
	gnutls_certificate_credentials_t cred;
	gnutls_session_t s;
	int fd;
};

static int tls_send(struct tls *t, const char *dir, const char *prio, const char *text)
{
	char ca[200];
	int rc;

	t->fd = dial(port);
	snprintf(ca, sizeof(ca), "%s/ca.pem", dir);
	gnutls_certificate_allocate_credentials(&t->cred);
	gnutls_certificate_set_x509_trust_file(t->cred, ca, GNUTLS_X509_FMT_PEM);
	gnutls_init(&t->s, GNUTLS_CLIENT);
	gnutls_priority_set_direct(t->s, prio, NULL);
	gnutls_credentials_set(t->s, GNUTLS_CRD_CERTIFICATE, t->cred);
	gnutls_session_set_verify_cert(t->s, "localhost", 0);
	gnutls_transport_set_int(t->s, t->fd);
	gnutls_handshake_set_timeout(t->s, 5000);
	do
		rc = gnutls_handshake(t->s);
	while (rc < 0 && !gnutls_error_is_fatal(rc));
	if (rc < 0)
		return rc;
	gnutls_record_send(t->s, text, strlen(text));
	return (int)gnutls_protocol_get_version(t->s);
}

/* Without a word to the server. */
static void tls_end(struct tls *t)
{
	close(t->fd);
	gnutls_deinit(t->s);
	gnutls_certificate_free_credentials(t->cred);
}

/* The whole response in b. */
static int tls_ask(const char *dir, const char *prio, const char *text, struct pt_buf *b)
{
	struct tls t;
	char tmp[4096];
	int rc = tls_send(&t, dir, prio, text);
	ssize_t n;

	pt_buf_clear(b);
	gnutls_record_set_timeout(t.s, 5000);
	while (rc >= 0 && (n = gnutls_record_recv(t.s, tmp, sizeof(tmp))) > 0)
		pt_buf_add(b, tmp, (size_t)n);
	tls_end(&t);
	return rc;
}

static void test_tls(const char *dir)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	struct tls client;
	int before, fd;
	int64_t from;

	is_int(tls_ask(dir, "NORMAL", "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &b), GNUTLS_TLS1_3,
	       "TLS 1.3");
	ok(strstr(b.p, "hello\n"), "answered");
	is_int(tls_ask(dir, "NORMAL:-VERS-ALL:+VERS-TLS1.2", "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &b),
	       GNUTLS_TLS1_2, "TLS 1.2");
	ok(tls_ask(dir, "LEGACY:-VERS-ALL:+VERS-TLS1.1:%COMPAT", "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", &b) < 0,
	   "TLS 1.1 is refused");
	tls_ask(dir, "NORMAL", "GET /race HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &b);
	ok(strstr(b.p, "answered"), "held over TLS");
	from = pt_mono_ms();
	tls_ask(dir, "NORMAL", "PUT /echo/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc", &b);
	ok(strncmp(b.p, "HTTP/1.1 408", 12) == 0 && pt_mono_ms() - from < 3000, "a slow body over TLS: 408");
	tls_ask(dir, "NORMAL", "PUT /echo/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\nabc", &b);
	ok(strncmp(b.p, "HTTP/1.1 413", 12) == 0 && strstr(b.p, "too_large"), "an early refusal over TLS");
	atomic_store(&held_req, NULL);
	before = atomic_load(&gone_count);
	tls_send(&client, dir, "NORMAL", "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	ok(wait_until(5000, atomic_load(&held_req) != NULL), "held");
	tls_end(&client);
	ok(wait_until(4000, atomic_load(&gone_count) == before + 1), "a TLS client that leaves is noticed");
	fd = dial(port);
	pt_buf_clear(&b);
	ok(take(fd, &b, NULL, 4000) == 1, "a connection without a handshake is closed");
	close(fd);
}

/* As many as there may be: the next one is answered, knows that it is one too many, and is closed. */
static void test_crowded(void)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	struct pt_err err = { 0 };
	struct pt_http_server_conf conf = {
		.listen = "127.0.0.1:0", .threads = 2, .max_connections = 4, .routes = routes, .n_routes = PT_COUNT(routes)
	};
	struct pt_http_stats st;
	int fd[4];

	if (pt_http_server_start(&srv, &conf, &err) < 0) {
		ok(0, "start: %s", err.msg);
		return;
	}
	port = pt_http_server_port(srv);
	for (int i = 0; i < 4; i++) {
		fd[i] = dial(port);
		pt_buf_clear(&b);
		(void)puts_fd(fd[i], "GET /crowded HTTP/1.1\r\nHost: a\r\n\r\n");
		ok(take(fd[i], &b, "there is room", 2000) == 0 && !strstr(b.p, "Connection: close"), "connection %d", i + 1);
	}
	is_int(ask("GET /crowded HTTP/1.1\r\nHost: a\r\n\r\n", &b, NULL), 1, "the fifth is closed after its answer");
	ok(strstr(b.p, "Connection: close\r\n") && strstr(b.p, "too many"), "which says so");
	pt_http_server_stats(srv, &st);
	ok(st.max_connections == 4 && st.crowded == 1, "counted");
	close(fd[0]);
	ok(wait_until(2000, (pt_http_server_stats(srv, &st), st.connections == 3)), "one leaves");
	is_int(ask("GET /crowded HTTP/1.1\r\nHost: a\r\n\r\n", &b, "there is room"), 0, "and the next one has its place");
	for (int i = 1; i < 4; i++)
		close(fd[i]);
	stop();
}

static void *come_and_go(void *arg)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 16);
	int *lost = arg;

	for (int i = 0; i < 200; i++)
		*lost += ask("GET /crowded HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &b, NULL) != 1 || !b.len;
	return NULL;
}

/* More than are accepted at all: the next one waits in the kernel until another has left. */
static void test_full(unsigned threads)
{
	enum { SPARE = 32, ALL = 4 + SPARE, QUEUE = 100, CLIENTS = 8 };
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	struct pt_err err = { 0 };
	struct pt_http_server_conf conf = {
		.listen = "127.0.0.1:0", .threads = threads, .max_connections = 4, .routes = routes, .n_routes = PT_COUNT(routes)
	};
	struct pt_http_stats st;
	struct rlimit files;
	pthread_t client[CLIENTS];
	int fd[ALL + QUEUE], last, lost[CLIENTS] = { 0 }, all = 0;

	getrlimit(RLIMIT_NOFILE, &files);
	setrlimit(RLIMIT_NOFILE, &(struct rlimit) { 8 * SPARE, files.rlim_max });
	ok(pt_http_server_start(&srv, &conf, &err) == 0, "start with few files, %u threads", threads);
	setrlimit(RLIMIT_NOFILE, &files);
	port = pt_http_server_port(srv);
	for (int i = 0; i < ALL; i++)
		fd[i] = dial(port);
	ok(wait_until(4000, (pt_http_server_stats(srv, &st), st.connections == ALL)), "all places are taken");
	last = dial(port);
	(void)puts_fd(last, "GET /crowded HTTP/1.1\r\nHost: a\r\n\r\n");
	is_int(take(last, &b, "too many", 200), -1, "the next one waits");
	close(fd[0]);
	is_int(take(last, &b, "too many", 5000), 0, "until another has left");
	fd[0] = last;
	for (int i = ALL - CLIENTS / 2; i < ALL; i++)
		close(fd[i]);
	for (int i = 0; i < CLIENTS; i++)
		if (pthread_create(&client[i], NULL, come_and_go, &lost[i]))
			abort();
	for (int i = 0; i < CLIENTS; i++) {
		pthread_join(client[i], NULL);
		all += lost[i];
	}
	is_int(all, 0, "many come and go: each is answered");
	for (int i = ALL - CLIENTS / 2; i < ALL + QUEUE; i++)
		fd[i] = dial(port);
	stop();
	ok(1, "it ends with a full house and a queue at its door");
	for (int i = 0; i < ALL + QUEUE; i++)
		close(fd[i]);
}

/* No descriptor is left for who comes next. */
static void test_no_files(void)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 16);
	struct rlimit files;
	int fd;

	start(1, 10, NULL);
	getrlimit(RLIMIT_NOFILE, &files);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC); /* the lowest that is free: the client's, and the last */
	close(fd);
	setrlimit(RLIMIT_NOFILE, &(struct rlimit) { (rlim_t)fd + 1, files.rlim_max });
	fd = dial(port);
	(void)puts_fd(fd, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
	is_int(take(fd, &b, "hello\n", 200), -1, "who finds no descriptor left waits");
	setrlimit(RLIMIT_NOFILE, &files);
	is_int(take(fd, &b, "hello\n", 5000), 0, "until there is one");
	close(fd);
	stop();
}

int main(void)
{
	const char *dir = temp_dir();

	signal(SIGPIPE, SIG_DFL); /* the server must not need it ignored */
	start(4, 30, NULL);
	test_requests();
	test_hold();
	test_many();
	test_stream();
	stop();
	ok(make_certs(dir), "certificates made");
	start(2, 1, dir);
	test_tls(dir);
	stop();
	test_crowded();
	test_full(1);
	test_full(4);
	test_no_files();
	sh("rm -rf %s", dir);
	return tap_end();
}
