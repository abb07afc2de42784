/* The HTTP server over real loopback sockets: requests and answers, held and streamed ones, who is told what when, TLS, the end. */
#include "http_serve.h"
#include <gnutls/gnutls.h>

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

/* One request over TLS with GnuTLS as client; the response in b.  The session's protocol or a negative error. */
static int tls_ask(const char *dir, const char *prio, const char *text, struct pt_buf *b)
{
	gnutls_certificate_credentials_t cred;
	gnutls_session_t s;
	char ca[200], tmp[4096];
	int fd = dial(port), rc;
	ssize_t n;

	snprintf(ca, sizeof(ca), "%s/ca.pem", dir);
	gnutls_certificate_allocate_credentials(&cred);
	gnutls_certificate_set_x509_trust_file(cred, ca, GNUTLS_X509_FMT_PEM);
	gnutls_init(&s, GNUTLS_CLIENT);
	gnutls_priority_set_direct(s, prio, NULL);
	gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, cred);
	gnutls_session_set_verify_cert(s, "localhost", 0);
	gnutls_transport_set_int(s, fd);
	gnutls_handshake_set_timeout(s, 5000);
	do
		rc = gnutls_handshake(s);
	while (rc < 0 && !gnutls_error_is_fatal(rc));
	pt_buf_clear(b);
	if (rc == 0) {
		rc = (int)gnutls_protocol_get_version(s);
		gnutls_record_set_timeout(s, 5000);
		gnutls_record_send(s, text, strlen(text));
		while ((n = gnutls_record_recv(s, tmp, sizeof(tmp))) > 0)
			pt_buf_add(b, tmp, (size_t)n);
	}
	gnutls_deinit(s);
	gnutls_certificate_free_credentials(cred);
	close(fd);
	return rc;
}

static void test_tls(const char *dir)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	int before = atomic_load(&gone_count), fd;
	int64_t from;
	pid_t child;

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
	/* a client that leaves while held */
	atomic_store(&held_req, NULL);
	child = fork();
	ok(child >= 0, "a client");
	if (child == 0) {
		tls_ask(dir, "NORMAL", "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n", &b);
		_exit(0);
	}
	ok(wait_until(20000, atomic_load(&held_req) != NULL), "held");
	if (child > 0)
		kill(child, SIGKILL);
	ok(wait_until(4000, atomic_load(&gone_count) == before + 1), "a TLS client that leaves is noticed");
	while (waitpid(-1, NULL, 0) > 0)
		;
	fd = dial(port);
	pt_buf_clear(&b);
	ok(take(fd, &b, NULL, 4000) == 1, "a connection without a handshake is closed");
	close(fd);
}

static void *late_reply(void *arg)
{
	nap_ms(150);
	pt_http_reply(arg, 200, "text/plain", "last words", 10);
	return NULL;
}

static void test_stop(void)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	int fd, fd2, before;
	int64_t from;
	struct pt_err err = { 0 };
	char addr[40];
	struct pt_http_server_conf conf = { .listen = addr, .threads = 1, .routes = routes, .n_routes = PT_COUNT(routes) };
	struct pt_http_server *other;
	struct pt_http_route twice[] = { routes[0], routes[0] };

	start(2, 10, NULL);
	snprintf(addr, sizeof(addr), "127.0.0.1:%u", port);
	is_int(pt_http_server_start(&other, &conf, &err), PT_E_UNAVAILABLE, "the port is taken");
	ok(strstr(err.hint, "ss -ltnp"), "the hint tells how to find who has it");
	conf.listen = "no-such-host.invalid:80";
	is_int(pt_http_server_start(&other, &conf, &err), PT_E_INVALID, "bad address");
	conf.listen = "127.0.0.1";
	is_int(pt_http_server_start(&other, &conf, &err), PT_E_INVALID, "no port");
	conf.listen = "127.0.0.1:0";
	conf.tls_cert = conf.tls_key = "/dev/null";
	is_int(pt_http_server_start(&other, &conf, &err), PT_E_INVALID, "bad TLS files");
	conf.tls_cert = conf.tls_key = NULL;
	conf.routes = twice;
	conf.n_routes = 2;
	is_int(pt_http_server_start(&other, &conf, &err), PT_E_INVALID, "a route that stands twice");
	/* a holder that answers in time */
	atomic_store(&held_req, NULL);
	fd = dial(port);
	fd2 = dial(port);
	(void)puts_fd(fd2, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
	(void)take(fd2, &b, "hello", 2000);
	(void)puts_fd(fd, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	wait_until(2000, atomic_load(&held_req) != NULL);
	pt_http_server_quiesce(srv);
	ok(wait_until(2000, dial(port) < 0), "no new connections after quiesce");
	pt_buf_clear(&b);
	(void)puts_fd(fd2, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
	ok(take(fd2, &b, NULL, 2000) == 1 && strstr(b.p, "Connection: close\r\n"), "an open connection is answered and closed");
	run_detached(late_reply, atomic_load(&held_req));
	from = pt_mono_ms();
	stop();
	ok(pt_mono_ms() - from < 2000, "stop waits no longer than it must");
	pt_buf_clear(&b);
	take(fd, &b, NULL, 2000);
	ok(strstr(b.p, "last words"), "and the held request got its answer");
	close(fd);
	close(fd2);
	/* a holder that does not answer */
	start(2, 10, NULL);
	before = atomic_load(&gone_count);
	fd = dial(port);
	atomic_store(&held_req, NULL);
	(void)puts_fd(fd, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	wait_until(2000, atomic_load(&held_req) != NULL);
	pt_http_server_stop(srv, 100);
	is_int(atomic_load(&gone_count), before + 1, "a holder that is late is told");
	pt_buf_clear(&b);
	take(fd, &b, NULL, 2000);
	ok(strncmp(b.p, "HTTP/1.1", 8) == 0, "and the client is answered");
	close(fd);
	pt_http_server_stop(NULL, 0);
	/* both families by one address */
	conf = (struct pt_http_server_conf) { .listen = "[::]:0", .threads = 1, .routes = routes, .n_routes = PT_COUNT(routes) };
	if (pt_http_server_start(&srv, &conf, &err) == 0) {
		port = pt_http_server_port(srv);
		ask("GET /echo/v4 HTTP/1.1\r\nHost: a\r\n\r\n", &b, "expected");
		ok(strstr(b.p, "peer=127.0.0.1 "), "IPv4 over [::]");
		pt_http_server_stop(srv, 1000);
	} else {
		ok(1, "IPv4 over [::] # SKIP no IPv6 here");
	}
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
	test_stop();
	test_crowded();
	sh("rm -rf %s", dir);
	return tap_end();
}
