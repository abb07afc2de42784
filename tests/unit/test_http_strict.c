/* What the HTTP server refuses, over real loopback sockets: malformed and oversized requests, slow clients. */
#include "http_serve.h"

static void test_malformed(void)
{
	static const struct {
		const char *name, *text;
		const char *want; /* how the response starts */
		bool closes;
	} t[] = {
		{ "a good request", "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200", false },
		{ "Content-Length twice", "PUT /echo/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
		  "HTTP/1.1 400", true },
		{ "different Content-Lengths",
		  "PUT /echo/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 400", true },
		{ "Content-Length list", "PUT /echo/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", "HTTP/1.1 400",
		  true },
		{ "Content-Length +3", "PUT /echo/1 HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", "HTTP/1.1 400", true },
		{ "Content-Length -1", "PUT /echo/1 HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nabc", "HTTP/1.1 400", true },
		{ "Content-Length 0x3", "PUT /echo/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc", "HTTP/1.1 400",
		  true },
		{ "Content-Length too large for 64 bits",
		  "PUT /echo/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nabc", "HTTP/1.1 4", true },
		{ "Content-Length with Transfer-Encoding",
		  "PUT /echo/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		  "HTTP/1.1 400", true },
		{ "Transfer-Encoding with Content-Length",
		  "PUT /echo/1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
		  "HTTP/1.1 400", true },
		{ "Transfer-Encoding gzip", "PUT /echo/1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nabc",
		  "HTTP/1.1 400", true },
		{ "Transfer-Encoding xchunked", "PUT /echo/1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		  "HTTP/1.1 400", true },
		{ "Transfer-Encoding gzip, chunked",
		  "PUT /echo/1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 400", true },
		{ "Transfer-Encoding identity", "PUT /echo/1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
		  "HTTP/1.1 400", true },
		{ "Transfer-Encoding twice",
		  "PUT /echo/1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		  "HTTP/1.1 400", true },
		{ "Transfer-Encoding in HTTP/1.0", "PUT /echo/1 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		  "HTTP/1.", true },
		{ "space before the colon", "PUT /echo/1 HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\nabc", "HTTP/1.1 400",
		  true },
		{ "control byte in a value",
		  "GET /hello HTTP/1.1\r\nHost: a\r\nX-A: b\x01"
		  "c\r\n\r\n",
		  "HTTP/1.1 400", true },
		{ "DEL in a value",
		  "GET /hello HTTP/1.1\r\nHost: a\r\nX-A: b\x7f"
		  "c\r\n\r\n",
		  "HTTP/1.1 400", true },
		{ "control byte in a name",
		  "GET /hello HTTP/1.1\r\nHost: a\r\nX\x02"
		  "A: b\r\n\r\n",
		  "HTTP/1.1 400", true },
		{ "bracket in a name", "GET /hello HTTP/1.1\r\nHost: a\r\nX(A: b\r\n\r\n", "HTTP/1.1 400", true },
		{ "CR alone ends a line", "GET /hello HTTP/1.1\r\nHost: a\r\nX-A: b\rX-B: c\r\n\r\n", "HTTP/1.1 400", true },
		{ "CR alone hides a header", "PUT /echo/1 HTTP/1.1\r\nHost: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		  "HTTP/1.1 400", true },
		{ "LF alone ends a line", "GET /hello HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n", "HTTP/1.1 400", true },
		{ "Host twice", "GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "HTTP/1.1 400", true },
		{ "no Host", "GET /hello HTTP/1.1\r\nX-A: b\r\n\r\n", "HTTP/1.1 400", true },
		{ "NUL in the path", "GET /echo/a%00b HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400", false },
		{ "LF in the path", "GET /echo/a%0ab HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400", false },
		{ "half an escape in the path", "GET /echo/a%2 HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400", false },
		{ "raw control byte in the path",
		  "GET /echo/a\x01"
		  "b HTTP/1.1\r\nHost: a\r\n\r\n",
		  "HTTP/1.1 400", true },
		{ "NUL in the query", "GET /echo/a?q=%00 HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400", true },
		{ "absolute URL", "GET http://a/hello HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400", true },
		{ "body where none is taken", "GET /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 400",
		  false },
		{ "body over the limit by its length", "PUT /echo/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\nabc",
		  "HTTP/1.1 413", true },
		{ "unknown path", "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 404", false },
		{ "unknown path below", "GET /hello/x HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 404", false },
		{ "empty parameter", "GET /echo/ HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 404", false },
		{ "other method", "DELETE /echo/1 HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 405", false },
		{ "unknown method", "BREW /hello HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 405", false },
	};
	pt_auto_buf b = PT_BUF_INIT(1 << 20);

	for (size_t i = 0; i < PT_COUNT(t); i++) {
		int fd = dial(port), rc;
		const char *body;

		pt_buf_clear(&b);
		(void)puts_fd(fd, t[i].text);
		(void)take(fd, &b, "\r\n\r\n", 5000);
		ok(strncmp(b.p, t[i].want, strlen(t[i].want)) == 0, "%s: %s", t[i].name, t[i].want);
		if (strncmp(b.p, t[i].want, strlen(t[i].want)))
			printf("# got %.200s\n", b.p);
		if (t[i].closes) {
			shutdown(fd, SHUT_WR);
			rc = take(fd, &b, NULL, 5000);
			ok(rc == 1, "%s: the connection is closed, not reset (%d)", t[i].name, rc);
			body = strstr(b.p, "\r\n\r\n");
			/* MHD 0.9.75 writes the head of its own page for a bad Content-Length twice; the close makes it harmless. */
			ok(strstr(b.p, "<html>") || (body && !strstr(body + 4, "HTTP/1.1 4")), "%s: one response only",
			   t[i].name);
		} else {
			size_t had = b.len;

			(void)take(fd, &b, "\n", 5000);
			(void)puts_fd(fd, "GET /echo/again HTTP/1.1\r\nHost: a\r\n\r\n");
			rc = take(fd, &b, "id=again", 5000);
			ok(rc == 0 && b.len > had, "%s: the connection stays usable", t[i].name);
		}
		close(fd);
	}
	ask("DELETE /echo/1 HTTP/1.1\r\nHost: a\r\n\r\n", &b, "}}");
	ok(strstr(b.p, "Allow: GET, HEAD, POST, PUT\r\n"), "405 names the methods");
	ask("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", &b, "}}");
	ok(strstr(b.p, "{\"error\":{\"code\":\"not_found\",\"message\":"), "error document");
	ok(strstr(b.p, "Cache-Control: no-store\r\n") && strstr(b.p, "X-Content-Type-Options: nosniff\r\n"), "its headers");
	ask("PUT /echo/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", &b, NULL);
	ok(strstr(b.p, "malformed request: Content-Length stands twice"), "a malformed request gets the error document");
	ok(strstr(b.p, "Connection: close\r\n"), "and Connection: close");
}

/* Whatever the size and number of headers: 200 or 431, never a dropped connection. */
static void test_header_sizes(void)
{
	pt_auto_buf req = PT_BUF_INIT(1 << 20), b = PT_BUF_INIT(1 << 20);
	unsigned dropped = 0, small_bad = 0, n200 = 0, n431 = 0, doc = 0;

	for (int many_small = 0; many_small < 2; many_small++) {
		for (size_t size = 500; size < 40000; size += 333) {
			int fd = dial(port);

			pt_buf_clear(&req);
			pt_buf_clear(&b);
			pt_buf_str(&req, "GET /hello HTTP/1.1\r\nHost: a\r\n");
			if (many_small)
				for (unsigned i = 0; req.len < size; i++)
					pt_buf_fmt(&req, "X-%u: y\r\n", i);
			else {
				pt_buf_str(&req, "X-Long: ");
				while (req.len < size)
					pt_buf_str(&req, "0123456789abcdef");
				pt_buf_str(&req, "\r\n");
			}
			pt_buf_str(&req, "\r\n");
			(void)put(fd, req.p, req.len);
			(void)take(fd, &b, "\r\n\r\n", 5000);
			if (strncmp(b.p, "HTTP/1.1 200", 12) == 0)
				n200++;
			else if (strncmp(b.p, "HTTP/1.1 431", 12) == 0)
				n431++;
			else
				dropped++;
			doc += strstr(b.p, "application/json") && strncmp(b.p, "HTTP/1.1 431", 12) == 0;
			if (strncmp(b.p, "HTTP/1.1 200", 12) && strncmp(b.p, "HTTP/1.1 431", 12))
				printf("# %s headers, %zu bytes: '%.60s'\n", many_small ? "many" : "large", req.len, b.p);
			small_bad += strncmp(b.p, "HTTP/1.1 200", 12) != 0 && size < 2000 && !many_small;
			close(fd);
		}
	}
	is_int(dropped, 0, "no connection is dropped because of large headers");
	is_int(small_bad, 0, "2 KB of headers always fit");
	ok(n200 > 20 && n431 > 20, "both sides of the limit were seen (%u, %u)", n200, n431);
	ok(doc > 0, "a request a little over the limit gets our error document");
	pt_buf_clear(&req);
	pt_buf_str(&req, "GET /echo/");
	while (req.len < 30000)
		pt_buf_str(&req, "0123456789abcdef");
	pt_buf_str(&req, " HTTP/1.1\r\nHost: a\r\n\r\n");
	ask(req.p, &b, "\r\n\r\n");
	ok(strncmp(b.p, "HTTP/1.1 414", 12) == 0, "a path that is too long: 414");
	pt_buf_clear(&req);
	pt_buf_str(&req, "GET /echo/");
	while (req.len < 1000)
		pt_buf_str(&req, "0123456789abcdef");
	pt_buf_str(&req, " HTTP/1.1\r\nHost: a\r\n\r\n");
	ask(req.p, &b, "expected=");
	ok(strncmp(b.p, "HTTP/1.1 200", 12) == 0, "a parameter of 1000 bytes");
}

static void test_slow(void)
{
	static const struct {
		const char *name, *text;
		bool says;
	} t[] = {
		{ "half a request line", "GET /hello", true },
		{ "half the headers", "GET /hello HTTP/1.1\r\nHost: a\r\nX-", true },
		{ "half a body", "PUT /echo/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc", true },
		{ "half a streamed body", "PUT /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc", true },
		{ "nothing", "", false },
	};
	enum { N = PT_COUNT(t) };
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	int fd[N], before = atomic_load(&aborted);
	int64_t from = pt_mono_ms();

	for (size_t i = 0; i < N; i++) {
		fd[i] = dial(port);
		(void)puts_fd(fd[i], t[i].text);
	}
	/* a trickle must not help */
	for (int k = 0; k < 12; k++) {
		nap_ms(70);
		(void)puts_fd(fd[1], "x");
	}
	for (size_t i = 0; i < N; i++) {
		int rc;

		pt_buf_clear(&b);
		rc = take(fd[i], &b, NULL, 4000);
		ok(rc == 1 && (t[i].says ? strncmp(b.p, "HTTP/1.1 408", 12) == 0 : !b.len), "%s: %s (%d)", t[i].name,
		   t[i].says ? "408" : "closed", rc);
		close(fd[i]);
	}
	ok(pt_mono_ms() - from < 3000, "in time");
	ok(wait_until(2000, atomic_load(&aborted) == before + 1), "abort for the slow stream");
	/* a large body that comes steadily may take longer, one that trickles may not */
	for (int steady = 1; steady >= 0; steady--) {
		static char piece[65536];

		fd[0] = dial(port);
		pt_buf_clear(&b);
		(void)puts_fd(fd[0], "PUT /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 1638400\r\n\r\n");
		for (int k = 0; k < 25; k++) {
			if (!put(fd[0], piece, steady ? sizeof(piece) : 100))
				break;
			nap_ms(100);
		}
		(void)take(fd[0], &b, "\r\n\r\n", 2000);
		ok(strncmp(b.p, steady ? "HTTP/1.1 200" : "HTTP/1.1 408", 12) == 0,
		   steady ? "2.5 s of steady body" : "2.5 s of trickle");
		close(fd[0]);
	}
	/* a held request is not slow */
	fd[0] = dial(port);
	pt_buf_clear(&b);
	atomic_store(&held_req, NULL);
	(void)puts_fd(fd[0], "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	nap_ms(1700);
	pt_http_reply(atomic_load(&held_req), 200, "text/plain", "patience", 8);
	is_int(take(fd[0], &b, "patience", 2000), 0, "a held request may last longer than the body's time");
	close(fd[0]);
}

int main(void)
{
	signal(SIGPIPE, SIG_DFL); /* the server must not need it ignored */
	start(4, 30, NULL);
	test_malformed();
	test_header_sizes();
	stop();
	start(2, 1, NULL);
	test_slow();
	stop();
	return tap_end();
}
