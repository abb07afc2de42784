/* http.request and network.http against a real server and proxy on loopback: results, limits, redirects, and every way around the
 * guard that was thought of. */
#include "../tap.h"
#include "../op_run.h"
#include "local_http.h"
#include <signal.h>

static struct local_http server, proxy;

/* Run with %u in input replaced by the server's port. */
static int go(struct op_run *r, const char *type, const char *input, struct pt_err *err)
{
	pt_auto_buf b = PT_BUF_INIT(16384);
	const char *at;

	while ((at = strstr(input, "%u"))) {
		pt_buf_add(&b, input, (size_t)(at - input));
		pt_buf_fmt(&b, "%u", server.port);
		input = at + 2;
	}
	pt_buf_str(&b, input);
	return op_do(r, type, b.p, err);
}

static void requests(struct op_run *r)
{
	struct pt_err err;

	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/\"}", &err), 0, "GET");
	ok(op_int(r, "status") == 200 && !op_is(r, "truncated") && json_is_real(op_doc(r, "ms")), "status and time");
	is_str(op_str(r, "body"), "hello", "body");
	is_str(op_str(r, "headers.content-type"), "text/plain", "headers in lower case");
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/missing\"}", &err), 0, "404 is an answer");
	ok(op_int(r, "status") == 404, "with its status");
	is_str(op_str(r, "body"), "<h1>no</h1>", "and its body");
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/json\",\"response\":\"json\"}", &err), 0, "JSON");
	ok(op_int(r, "body.a.0") == 1 && json_is_null(op_doc(r, "body.a.2")), "is parsed");
	is_str(op_str(r, "body.a.3"), "\xc3\xa9", "with its text");
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/missing\",\"response\":\"json\"}", &err), 0,
	       "HTML in place of JSON");
	ok(!op_doc(r, "body") && op_str(r, "body_error"), "is said");
	is_str(op_str(r, "body_text"), "<h1>no</h1>", "and given as text");
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/binary\",\"response\":\"base64\"}", &err), 0, "bytes");
	is_str(op_str(r, "body"), "/wAB", "as base64");
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/binary\"}", &err), 0, "bytes as text");
	is_str(op_str(r, "body"), "\xef\xbf\xbd\xef\xbf\xbd\x01", "do not break the document");
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/many\"}", &err), 0, "repeated headers");
	is_str(op_str(r, "headers.x-a"), "1, 2", "are joined");
	is_str(op_str(r, "headers.set-cookie"), "a=1\nb=2", "cookies by lines");

	is_int(go(r, "http.request",
		  "{\"url\":\"http://127.0.0.1:%u/"
		  "echo\",\"method\":\"POST\",\"body_json\":{\"a\":[1]},\"headers\":{\"X-Y\":\"z\",\"X-Empty\":\"\"}}",
		  &err),
	       0, "POST");
	ok(local_got(&server, "POST /echo ") && local_got(&server, "\r\n\r\n{\"a\":[1]}"), "body_json is sent as JSON");
	ok(local_got(&server, "Content-Type: application/json\r\n") && local_got(&server, "X-Y: z\r\n"), "with its headers");
	ok(local_got(&server, "X-Empty:"), "also empty ones");
	is_int(go(r, "http.request",
		  "{\"url\":\"http://127.0.0.1:%u/echo\",\"method\":\"PUT\",\"body\":\"text\",\"headers\":{\"content-type\":\"a/"
		  "b\"}}",
		  &err),
	       0, "PUT");
	ok(local_got(&server, "content-type: a/b\r\n") && !local_got(&server, "text/plain"), "the given content type is kept");
	ok(local_got(&server, "\r\n\r\ntext"), "body is sent as it is");
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/echo\",\"method\":\"POST\",\"body\":\"\"}", &err), 0,
	       "an empty body");
	ok(local_got(&server, "Content-Length: 0\r\n"), "is sent as such");
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/\",\"method\":\"HEAD\"}", &err), 0, "HEAD");
	is_str(op_str(r, "body"), "", "has no body");
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/\",\"method\":\"DELETE\"}", &err), 0, "DELETE");
	ok(local_got(&server, "DELETE / "), "is sent");
}

static void sizes(struct op_run *r)
{
	struct pt_err err;

	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/big\",\"max_bytes\":1000}", &err), 0,
	       "a body over the limit");
	ok(op_is(r, "truncated") && json_string_length(op_doc(r, "body")) == 1000, "is cut there, and said to be");
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/big\"}", &err), 0, "the default limit");
	ok(op_is(r, "truncated") && json_string_length(op_doc(r, "body")) == 524288, "is 512 KiB");
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/big-error\",\"max_bytes\":100000}", &err), 0,
	       "an error page over the limit");
	ok(op_int(r, "status") == 500 && op_is(r, "truncated") && json_string_length(op_doc(r, "body")) <= 100000,
	   "is cut as well");
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/big-control\",\"max_bytes\":1048576}", &err), 0,
	       "a body that grows sixfold as JSON");
	{
		pt_auto_buf b = PT_BUF_INIT(8 << 20);

		pt_json_write(&b, r->head.document);
		ok(op_is(r, "truncated") && b.len < 1000000 && json_string_length(op_doc(r, "body")) > 50000,
		   "still fits the head: %zu", b.len);
	}
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/big\",\"max_bytes\":1048576,\"response\":\"base64\"}", &err),
	       0, "base64");
	ok(op_is(r, "truncated") && json_string_length(op_doc(r, "body")) == 800 * 1024, "is cut to fit too");
	r->lease.limits.max_bytes = 10;
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/big\"}", &err), 0, "the operation's own limit");
	ok(json_string_length(op_doc(r, "body")) == 10, "counts");
	r->lease.limits.max_bytes = 0;
}

static void redirects(struct op_run *r)
{
	struct pt_err err;
	int before;

	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/r?to=/json\"}", &err), 0, "a redirect");
	ok(op_int(r, "status") == 302, "is not followed unless asked");
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/r?to=/json\",\"follow\":true}", &err), 0,
	       "a relative redirect");
	ok(op_int(r, "status") == 200 && strstr(op_str(r, "url"), "/json") && strstr(op_str(r, "body"), "\"a\""), "is followed");
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/loop\",\"follow\":true}", &err), PT_E_PROTOCOL,
	       "a loop ends");
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/r?to=file:///etc/passwd\",\"follow\":true}", &err),
	       PT_E_PROTOCOL, "to a file");
	is_int(go(r, "http.request",
		  "{\"url\":\"http://127.0.0.1:%u/r?to=/echo\",\"follow\":true,\"method\":\"POST\",\"body\":\"data\"}", &err),
	       0, "302 of a POST");
	ok(local_got(&server, "GET /echo ") && !local_got(&server, "data"), "becomes a GET");
	is_int(go(r, "http.request",
		  "{\"url\":\"http://127.0.0.1:%u/307?to=/echo\",\"follow\":true,\"method\":\"POST\",\"body\":\"data\"}", &err),
	       0, "307 of a POST");
	ok(local_got(&server, "POST /echo ") && local_got(&server, "\r\n\r\ndata"), "stays one");
	is_int(go(r, "http.request",
		  "{\"url\":\"http://127.0.0.1:%u/r?to=/echo\",\"follow\":true,\"headers\":{\"Authorization\":\"Bearer t0ken\"}}",
		  &err),
	       0, "to the same origin");
	ok(local_got(&server, "Bearer t0ken"), "headers go along");
	is_int(go(r, "http.request",
		  "{\"url\":\"http://127.0.0.1:%u/r?to=http://127.0.0.2:%u/"
		  "echo\",\"follow\":true,\"headers\":{\"Authorization\":\"Bearer t0ken\","
		  "\"X-Api-Key\":\"t0ken\",\"Accept\":\"a/b\"}}",
		  &err),
	       PT_E_CONNECT, "to another origin (where nobody listens)");
	is_int(go(r, "http.request",
		  "{\"url\":\"http://127.0.0.1:%u/r?to=http://localhost:%u/"
		  "echo\",\"follow\":true,\"headers\":{\"Authorization\":\"Bearer t0ken\","
		  "\"X-Api-Key\":\"t0ken\",\"Accept\":\"a/b\"}}",
		  &err),
	       0, "to another origin");
	ok(!local_got(&server, "t0ken") && local_got(&server, "Accept: a/b"), "what may hold a credential stays behind");

	before = local_requests(&server);
	r->view.allowed_cidrs = "127.0.0.1";
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/r?to=http://127.0.0.2:%u/\",\"follow\":true}", &err),
	       PT_E_BLOCKED, "a redirect to a blocked address");
	ok(strstr(err.hint, "--allowed-cidrs 127.0.0.2/32"), "the hint names the setting: %s", err.hint);
	is_int(go(r, "http.request",
		  "{\"url\":\"http://127.0.0.1:%u/r?to=http://169.254.169.254/latest/meta-data/\",\"follow\":true}", &err),
	       PT_E_BLOCKED, "a redirect to the metadata service");
	ok(local_requests(&server) == before + 2, "only the first hops were made");
	r->view.allowed_cidrs = "127.0.0.0/8,::1";
}

static void blocked(struct op_run *r)
{
	static const char *const urls[] = {
		"http://127.0.0.1:%u/",
		"http://127.1:%u/",
		"http://2130706433:%u/",
		"http://0x7f000001:%u/",
		"http://0177.0.0.1:%u/",
		"http://0:%u/",
		"http://0.0.0.0:%u/",
		"http://localhost:%u/",
		"http://[::1]:%u/",
		"http://[::]:%u/",
		"http://[::ffff:127.0.0.1]:%u/",
		"http://[::ffff:7f00:1]:%u/",
		"http://%31%32%37.0.0.1:%u/",
		"http://127.0.0.1:%u\\\\@10.1.2.3/",
		"http://[64:ff9b::7f00:1]:%u/",
		"http://169.254.169.254/",
		"http://[fd00:ec2::254]/",
	};
	int before = local_requests(&server);
	struct pt_err err;

	r->view.allowed_cidrs = NULL;
	for (size_t i = 0; i < PT_COUNT(urls); i++) {
		char input[256];
		int rc;

		snprintf(input, sizeof(input), "{\"url\":\"%s\",\"timeout_ms\":2000}", urls[i]);
		rc = go(r, "http.request", input, &err);
		ok(rc == PT_E_BLOCKED || (rc == PT_E_INVALID && strpbrk(urls[i], "\\")), "%s is blocked: %s", urls[i], err.msg);
		rc = go(r, "network.http", input, &err);
		ok(rc == PT_E_BLOCKED || (rc == PT_E_INVALID && strpbrk(urls[i], "\\")), "for network.http too");
	}
	ok(local_requests(&server) == before, "no request was made");
	r->view.allowed_cidrs = "127.0.0.0/8";
	r->view.blocked_cidrs = "0.0.0.0/0,::/0";
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/\"}", &err), 0, "permitted wins over blocked");
	is_int(go(r, "http.request", "{\"url\":\"http://10.1.2.3:%u/\"}", &err), PT_E_BLOCKED, "everything else is blocked");
	r->view.blocked_cidrs = "nonsense";
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/\"}", &err), PT_E_INVALID,
	       "settings that are not understood permit nothing");
	r->view.blocked_cidrs = NULL;
	r->view.allowed_cidrs = "127.0.0.0/8,::1";
}

static void behind_a_proxy(struct op_run *r)
{
	static const char *const refused[] = {
		"http://127.0.0.1:%u/",
		"http://2130706433/",
		"http://0x7f.1/",
		"http://localhost/",
		"http://x.localhost./",
		"http://[::1]/",
		"http://169.254.169.254/latest/",
		"http://metadata.google.internal/",
		"http://METADATA.google.internal./",
		"http://metadata/",
		"http://[::ffff:169.254.169.254]/",
		"http://instance-data/",
		"https://169.254.169.254/",
	};
	char url[64];
	struct pt_err err;

	snprintf(url, sizeof(url), "http://127.0.0.1:%u", proxy.port);
	r->http.http_proxy = r->http.https_proxy = url;
	r->http.no_proxy = "";
	r->view.allowed_cidrs = NULL; /* the proxy's own address is on loopback, and that is fine */
	is_int(go(r, "http.request", "{\"url\":\"http://10.1.2.3/x\"}", &err), 0, "by the proxy");
	is_str(op_str(r, "body"), "by proxy", "it answered");
	ok(local_got(&proxy, "GET http://10.1.2.3/x "), "it was asked for the whole URL");
	is_int(go(r, "network.http", "{\"url\":\"http://10.1.2.3/x\"}", &err), 0, "the check too");
	ok(op_is(r, "ok") && op_is(r, "proxied"), "and tells");
	is_int(go(r, "network.http", "{\"url\":\"https://10.1.2.3/x\"}", &err), 0, "a proxy that refuses is an answer");
	ok(!op_is(r, "ok") && op_is(r, "proxied"), "not ok");
	is_str(op_str(r, "error.code"), "proxy_failed", "the proxy's doing");
	for (size_t i = 0; i < PT_COUNT(refused); i++) {
		int before = local_requests(&proxy);
		char input[256];

		snprintf(input, sizeof(input), "{\"url\":\"%s\"}", refused[i]);
		is_int(go(r, "http.request", input, &err), PT_E_BLOCKED, "proxied %s is blocked", refused[i]);
		ok(local_requests(&proxy) == before, "and the proxy not asked");
	}
	r->http.no_proxy = "example.com, 127.0.0.0/8";
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/\"}", &err), PT_E_BLOCKED,
	       "NO_PROXY goes direct, with the guard");
	r->view.allowed_cidrs = "127.0.0.1";
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/\"}", &err), 0, "and works when permitted");
	is_str(op_str(r, "body"), "hello", "by the server itself");
	/* The environment is not asked: it could turn a request that was checked for the proxy into a direct one. */
	r->http.no_proxy = "";
	setenv("NO_PROXY", "*", 1);
	setenv("no_proxy", "*", 1);
	is_int(go(r, "http.request", "{\"url\":\"http://10.1.2.3/x\"}", &err), 0, "NO_PROXY of the environment");
	is_str(op_str(r, "body"), "by proxy", "changes nothing");
	unsetenv("NO_PROXY");
	unsetenv("no_proxy");
	r->http.http_proxy = r->http.https_proxy = NULL;
	setenv("http_proxy", url, 1);
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/\"}", &err), 0, "http_proxy of the environment");
	is_str(op_str(r, "body"), "hello", "neither");
	unsetenv("http_proxy");
	r->view.allowed_cidrs = "127.0.0.0/8,::1";
}

struct asked {
	struct pt_cancel *cancel;
	int before; /* how many requests there were */
};

static void *fire_when_asked(void *arg)
{
	const struct asked *a = arg;

	for (int i = 0; i < 1000 && local_requests(&server) == a->before; i++)
		usleep(5000);
	pt_cancel_fire(a->cancel, PT_E_CANCELLED, "cancelled by ada");
	return NULL;
}

static void checks(struct op_run *r)
{
	struct pt_err err;
	struct asked asked;
	pthread_t t;
	int64_t start;

	is_int(go(r, "network.http", "{\"url\":\"http://127.0.0.1:%u/\"}", &err), 0, "network.http");
	ok(op_is(r, "ok") && op_int(r, "status") == 200 && op_int(r, "size") == 5 && !op_is(r, "proxied"), "is ok");
	is_str(op_str(r, "peer"), "127.0.0.1", "the peer");
	is_str(op_str(r, "content_type"), "text/plain", "the type");
	ok(json_real_value(op_doc(r, "ttfb_ms")) > 0 && json_real_value(op_doc(r, "ms")) >= json_real_value(op_doc(r, "ttfb_ms")),
	   "times");
	ok(!op_doc(r, "body"), "no body");
	is_int(go(r, "network.http", "{\"url\":\"http://127.0.0.1:%u/missing\"}", &err), 0, "404");
	ok(op_is(r, "ok") && op_int(r, "status") == 404, "is ok");
	is_int(go(r, "network.http", "{\"url\":\"http://127.0.0.1:%u/missing\",\"expect_status\":200}", &err), 0,
	       "unless 200 is expected");
	ok(!op_is(r, "ok") && op_int(r, "status") == 404, "not ok");
	is_str(op_str(r, "error.native_code"), "404", "the error has the status");
	is_int(go(r, "network.http", "{\"url\":\"http://127.0.0.1:%u/big\"}", &err), 0, "a large body");
	ok(op_is(r, "ok") && op_is(r, "truncated"), "is not read to its end");
	is_int(go(r, "network.http", "{\"url\":\"http://127.0.0.1:%u/r?to=/json\"}", &err), 0, "a redirect");
	is_str(op_str(r, "location"), "/json", "is shown, not followed");
	is_int(go(r, "network.http", "{\"url\":\"https://127.0.0.1:%u/\"}", &err), 0, "TLS with a server that has none");
	is_str(op_str(r, "error.code"), "tls_failed", "is an answer");
	is_int(op_do(r, "network.http", "{\"url\":\"http://127.0.0.1:1/\"}", &err), 0, "nobody listens");
	is_str(op_str(r, "error.code"), "connect_failed", "is an answer");
	is_int(op_do(r, "network.http", "{\"url\":\"http://nowhere.invalid/\",\"timeout_ms\":3000}", &err), 0, "an unknown name");
	ok(!op_is(r, "ok") && op_str(r, "error.code"), "is an answer: %s", op_str(r, "error.code"));
	is_int(go(r, "network.http", "{\"url\":\"http://127.0.0.1:%u/hang\",\"timeout_ms\":100}", &err), 0, "no answer in time");
	is_str(op_str(r, "error.code"), "timeout", "is an answer");
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/hang\",\"timeout_ms\":100}", &err), PT_E_TIMEOUT,
	       "a request fails then");

	start = pt_mono_ms();
	r->cancel.deadline_ms = start + 100;
	is_int(go(r, "http.request", "{\"url\":\"http://127.0.0.1:%u/hang\"}", &err), PT_E_DEADLINE,
	       "the deadline ends a request");
	ok(pt_mono_ms() - start < 1100, "within a second");
	r->cancel.deadline_ms = INT64_MAX;
	asked = (struct asked) { &r->cancel, local_requests(&server) };
	pthread_create(&t, NULL, fire_when_asked, &asked);
	start = pt_mono_ms();
	is_int(go(r, "network.http", "{\"url\":\"http://127.0.0.1:%u/hang\"}", &err), PT_E_CANCELLED, "a cancel too");
	ok(pt_mono_ms() - start < 6000, "soon");
	pthread_join(t, NULL);
}

int main(void)
{
	struct op_run r;

	signal(SIGPIPE, SIG_IGN);
	unsetenv("http_proxy");
	unsetenv("https_proxy");
	unsetenv("HTTPS_PROXY");
	unsetenv("ALL_PROXY");
	unsetenv("all_proxy");
	local_http_start(&server);
	local_http_start(&proxy);
	op_run_init(&r);
	requests(&r);
	sizes(&r);
	redirects(&r);
	blocked(&r);
	behind_a_proxy(&r);
	checks(&r);
	op_run_release(&r);
	local_http_stop(&server);
	local_http_stop(&proxy);
	return tap_end();
}
