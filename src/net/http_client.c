/* The HTTP client: libcurl's multi interface with one transfer at a time, so that our own poll can watch the cancel token and
 * the stall limit beside the sockets.  Used by one thread; the connections stay in the multi handle for the next call. */
#include "net/http_client_priv.h"
#include "base/clock.h"
#include <ctype.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <strings.h>
#include <sys/ioctl.h>

enum {
	CONNECT_TIMEOUT_MS = 10000,
	RECV_BUFFER = 32 * 1024,
	SEND_BUFFER = 64 * 1024,
	KEEPALIVE_S = 15, /* silence after which the peer is asked whether it is still there */
	KEEPALIVE_AGAIN_S = 5,
	KEEPALIVE_TIMES = 3,
	RETRY_AFTER_MOST_S = 86400,
	DNS_CACHE_S = 10,
	KEPT_CONNECTIONS = 8,
	REDIRECTS = 5,
};

struct pt_http_client {
	CURLM *multi;
	CURL *easy;
	struct pt_trust trust;
	char *https_proxy, *http_proxy, *no_proxy, *user_agent;
	int64_t connect_timeout_ms;
	unsigned unheard_ms;
	int fd; /* of the connection that was made last, -1 = it is closed */
};

/* One call while it runs. */
struct run {
	struct pt_http_client *c;
	struct pt_http_call *call;
	CURLM *multi;               /* c's; one of its own for a call with allow_address */
	int64_t moved_ms;           /* when the last byte moved */
	int64_t through;            /* bytes that the peer's host has, then; up to a constant */
	int failed;                 /* a callback's refusal: its code, with the error in err */
	struct pt_err err, refused; /* refused: the last address that allow_address did not like */
	const char *proxy;          /* "" = direct */
	time_t date, retry_at;      /* of the headers Date and Retry-After, when that is a date; 0 or less = none */
	char text[CURL_ERROR_SIZE];
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static CURLcode global;

static void init_once(void)
{
	global = curl_global_init(CURL_GLOBAL_DEFAULT);
}

int pt_http_client_new(struct pt_http_client **ret, const struct pt_http_client_conf *conf, struct pt_err *err)
{
	pt_auto(pt_http_client_freep) struct pt_http_client *c = calloc(1, sizeof(*c));
	int rc;

	pthread_once(&once, init_once);
	if (!c || global)
		return pt_fail_oom(err);
	rc = pt_trust_init(&c->trust, conf->ca, err);
	if (rc < 0)
		return rc;
	c->https_proxy = pt_http_proxy_normal(conf->https_proxy);
	c->http_proxy = pt_http_proxy_normal(conf->http_proxy);
	rc = pt_http_proxies_check(c->https_proxy, c->http_proxy, err);
	if (rc < 0)
		return rc;
	c->no_proxy = pt_http_no_proxy_normal(conf->no_proxy);
	c->user_agent = strdup(conf->user_agent ? conf->user_agent : "postern");
	c->connect_timeout_ms = conf->connect_timeout_ms ? conf->connect_timeout_ms : CONNECT_TIMEOUT_MS;
	c->unheard_ms = conf->unheard_ms;
	c->fd = -1;
	c->multi = curl_multi_init();
	c->easy = curl_easy_init();
	if (!c->https_proxy || !c->http_proxy || !c->no_proxy || !c->user_agent || !c->multi || !c->easy)
		return pt_fail_oom(err);
	curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)KEPT_CONNECTIONS);
	*ret = pt_steal(&c);
	return PT_OK;
}

void pt_http_client_free(struct pt_http_client *c)
{
	char **secret[] = { c ? &c->https_proxy : NULL, c ? &c->http_proxy : NULL };

	if (!c)
		return;
	curl_easy_cleanup(c->easy);
	curl_multi_cleanup(c->multi);
	pt_trust_release(&c->trust);
	for (size_t i = 0; i < PT_COUNT(secret); i++) {
		if (*secret[i])
			explicit_bzero(*secret[i], strlen(*secret[i]));
		free(*secret[i]);
	}
	free(c->no_proxy);
	free(c->user_agent);
	free(c);
}

/* --- libcurl's callbacks --- */

static size_t on_write(char *data, size_t size, size_t n, void *arg)
{
	struct run *run = arg;
	struct pt_http_call *call = run->call;
	int rc = PT_OK;

	n *= size;
	if (call->on_data && call->status / 100 == 2) {
		rc = call->on_data(call->arg, data, n, &run->err);
	} else if (call->out) {
		pt_buf_add(call->out, data, n);
		rc = pt_buf_done(call->out, &run->err);
		if (rc == PT_E_TOO_LARGE)
			pt_fail(&run->err, PT_E_TOO_LARGE, "the response has more than %zu bytes", call->out->max - 1);
	}
	run->moved_ms = pt_mono_ms();
	run->failed = rc < 0 ? rc : run->failed;
	return rc < 0 ? 0 : n;
}

static size_t on_read(char *buf, size_t size, size_t n, void *arg)
{
	struct run *run = arg;
	ssize_t got = run->call->read(run->call->arg, buf, size * n);

	run->moved_ms = pt_mono_ms();
	if (got >= 0)
		return (size_t)got;
	run->failed = pt_cancel_check(run->call->cancel, &run->err);
	if (!run->failed)
		run->failed = pt_fail(&run->err, PT_E_IO, "the request's body could not be read to its end");
	return CURL_READFUNC_ABORT;
}

static int on_seek(void *arg, curl_off_t offset, int origin)
{
	struct run *run = arg;

	if (offset || origin != SEEK_SET || !run->call->rewind || run->call->rewind(run->call->arg) < 0)
		return CURL_SEEKFUNC_FAIL;
	return CURL_SEEKFUNC_OK;
}

static void retry_after(struct run *run, const char *v)
{
	char *end;
	long long s = strtoll(v, &end, 10);

	if (end > v && !*end)
		run->call->retry_after_ms = s < 0 ? 0 : s > RETRY_AFTER_MOST_S ? RETRY_AFTER_MOST_S * 1000 : s * 1000;
	else
		run->retry_at = curl_getdate(v, NULL);
}

/* A date, when all headers are here. */
static void retry_date(struct run *run)
{
	int64_t now = run->date > 0 ? (int64_t)run->date * 1000 : pt_wall_ms(), ms = (int64_t)run->retry_at * 1000 - now;

	if (run->retry_at > 0)
		run->call->retry_after_ms = ms < 0 ? 0 : ms > RETRY_AFTER_MOST_S * 1000 ? RETRY_AFTER_MOST_S * 1000 : ms;
}

static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
	struct run *run = arg;
	struct pt_http_call *call = run->call;
	char line[8192], *v, *end;

	n *= size;
	run->moved_ms = pt_mono_ms();
	if (n >= sizeof(line))
		return n; /* longer than anything we look at */
	memcpy(line, data, n);
	line[n] = '\0';
	for (end = line + n; end > line && isspace((unsigned char)end[-1]);)
		*--end = '\0';
	if (strncmp(line, "HTTP/", 5) == 0) {
		/* A new response: after a redirect, a 100 or an authentication.  Only the last one counts. */
		v = strchr(line, ' ');
		call->status = v ? (int)strtol(v, NULL, 10) : 0;
		call->retry_after_ms = -1;
		run->date = run->retry_at = 0;
		call->content_type[0] = '\0';
		return n;
	}
	v = strchr(line, ':');
	if (!v)
		return n;
	*v++ = '\0';
	while (*v == ' ' || *v == '\t')
		v++;
	for (char *p = line; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	if (strcmp(line, "retry-after") == 0)
		retry_after(run, v);
	else if (strcmp(line, "date") == 0)
		run->date = curl_getdate(v, NULL);
	else if (strcmp(line, "content-type") == 0)
		snprintf(call->content_type, sizeof(call->content_type), "%s", v);
	if (call->on_header)
		call->on_header(call->arg, line, v);
	return n;
}

static curl_socket_t on_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
	const int times = KEEPALIVE_TIMES;
	struct run *run = arg;
	int fd;

	if (run->call->allow_address && run->call->allow_address(run->call->allow_arg, &a->addr, &run->refused) < 0)
		return CURL_SOCKET_BAD;
	fd = socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
	if (fd >= 0)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &times, sizeof(times));
	run->c->fd = fd;
	if (fd >= 0 && run->c->unheard_ms)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &run->c->unheard_ms, sizeof(run->c->unheard_ms));
	return fd;
}

static int on_close(void *arg, curl_socket_t fd)
{
	struct pt_http_client *c = arg;

	if (c->fd == fd)
		c->fd = -1;
	return close(fd);
}

/* --- setting up --- */

static bool has_header(const char *const *headers, const char *name)
{
	size_t n = strlen(name);

	for (; headers && *headers; headers++)
		if (strncasecmp(*headers, name, n) == 0 && (*headers)[n] == ':')
			return true;
	return false;
}

static int headers_of(const struct pt_http_call *call, struct curl_slist **ret, struct pt_err *err)
{
	/* No "Expect: 100-continue": it costs a round trip, or a second when the server ignores it. */
	struct curl_slist *list = curl_slist_append(NULL, "Expect:"), *more;
	bool good = list != NULL;

	if (good && !has_header(call->headers, "Content-Type"))
		good = (more = curl_slist_append(list, "Content-Type:")) && (list = more);
	for (const char *const *h = call->headers; good && h && *h; h++) {
		if (strpbrk(*h, "\r\n")) {
			curl_slist_free_all(list);
			return pt_fail(err, PT_E_INVALID, "a request header has a line break");
		}
		good = (more = curl_slist_append(list, *h)) && (list = more);
	}
	if (!good) {
		curl_slist_free_all(list);
		return pt_fail_oom(err);
	}
	*ret = list;
	return PT_OK;
}

static void set_body(struct run *run, CURL *e)
{
	const struct pt_http_call *call = run->call;
	const char *m = call->method;
	bool no_body = !call->body && !call->read;

	if (call->read) {
		curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)call->body_size);
		curl_easy_setopt(e, CURLOPT_READFUNCTION, on_read);
		curl_easy_setopt(e, CURLOPT_READDATA, run);
		curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_seek);
		curl_easy_setopt(e, CURLOPT_SEEKDATA, run);
		if (strcmp(m, "PUT") != 0)
			curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, m);
	} else if (call->body || strcmp(m, "POST") == 0 || strcmp(m, "PUT") == 0 || strcmp(m, "PATCH") == 0) {
		curl_easy_setopt(e, CURLOPT_POST, 1L);
		curl_easy_setopt(e, CURLOPT_POSTFIELDS, no_body ? "" : call->body);
		curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, no_body ? 0 : (curl_off_t)call->body_size);
		if (strcmp(m, "POST") != 0)
			curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, m);
	} else if (strcmp(m, "HEAD") == 0) {
		curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
	} else if (strcmp(m, "GET") != 0) {
		curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, m);
	}
}

static void set_up(struct run *run, CURL *e, struct curl_slist *headers)
{
	struct pt_http_client *c = run->c;
	const struct pt_http_call *call = run->call;

	curl_easy_reset(e);
	c->trust.seen = call->tls;
	pt_trust_apply(&c->trust, e);
	curl_easy_setopt(e, CURLOPT_URL, call->url);
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(e, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(e, CURLOPT_USERAGENT, c->user_agent);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, headers);
	/* Both are always set, so that libcurl never reads the environment itself. */
	curl_easy_setopt(e, CURLOPT_PROXY, run->proxy);
	curl_easy_setopt(e, CURLOPT_NOPROXY, c->no_proxy);
	curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L); /* a cancel does not wait for a name server that does not answer */
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, run->text);
	curl_easy_setopt(e, CURLOPT_BUFFERSIZE, (long)RECV_BUFFER);
	curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, (long)SEND_BUFFER);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPIDLE, (long)KEEPALIVE_S);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPINTVL, (long)KEEPALIVE_AGAIN_S);
	curl_easy_setopt(e, CURLOPT_DNS_CACHE_TIMEOUT, (long)DNS_CACHE_S);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)c->connect_timeout_ms);
	if (call->timeout_ms > 0)
		curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)call->timeout_ms);
	if (call->basic_user) {
		curl_easy_setopt(e, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
		curl_easy_setopt(e, CURLOPT_USERNAME, call->basic_user);
		curl_easy_setopt(e, CURLOPT_PASSWORD, call->basic_password ? call->basic_password : "");
	}
	if (call->follow) {
		curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 1L);
		curl_easy_setopt(e, CURLOPT_MAXREDIRS, (long)REDIRECTS);
	}
	if (call->once)
		curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L);
	curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, on_socket);
	curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, run);
	curl_easy_setopt(e, CURLOPT_CLOSESOCKETFUNCTION, on_close);
	curl_easy_setopt(e, CURLOPT_CLOSESOCKETDATA, c);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_write);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, run);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, run);
	set_body(run, e);
}

/* --- running --- */

/* The kernel takes a body faster than the network: bytes also move while the send queue gets shorter. */
static void watch_queue(struct run *run)
{
	curl_off_t sent = 0;
	int queued = 0;

	curl_easy_getinfo(run->c->easy, CURLINFO_SIZE_UPLOAD_T, &sent);
	if (run->c->fd < 0 || ioctl(run->c->fd, SIOCOUTQ, &queued) < 0)
		queued = 0;
	if (sent - queued != run->through) {
		run->through = sent - queued;
		run->moved_ms = pt_mono_ms();
	}
}

/* 0 when libcurl has finished (*ret_code), < 0 when the call was ended from our side. */
static int drive(struct run *run, CURLcode *ret_code, struct pt_err *err)
{
	const struct pt_http_call *call = run->call;
	struct curl_waitfd wake = { .fd = call->cancel ? call->cancel->fd : -1, .events = CURL_WAIT_POLLIN };
	int running = 1;

	for (;;) {
		CURLMcode mc = curl_multi_perform(run->multi, &running);
		int wait_ms = 1000, rc;

		if (!mc && !running)
			break;
		if (call->tick)
			call->tick(call->tick_arg);
		rc = pt_cancel_check(call->cancel, err);
		if (rc < 0)
			return rc;
		if (call->stall_timeout_ms > 0) {
			int64_t left;

			watch_queue(run);
			left = run->moved_ms + call->stall_timeout_ms - pt_mono_ms();
			if (left <= 0)
				return pt_fail(err, PT_E_TIMEOUT, "no byte has come or gone for %lld ms",
					       (long long)call->stall_timeout_ms);
			wait_ms = left < wait_ms ? (int)left : wait_ms;
		}
		if (!mc)
			mc = curl_multi_poll(run->multi, &wake, call->cancel ? 1 : 0, pt_cancel_wait_ms(call->cancel, wait_ms),
					     NULL);
		if (mc)
			return pt_fail(err, PT_E_INTERNAL, "libcurl: %s", curl_multi_strerror(mc));
	}
	for (CURLMsg *m; (m = curl_multi_info_read(run->multi, &running));)
		if (m->msg == CURLMSG_DONE)
			*ret_code = m->data.result;
	return PT_OK;
}

static void results(struct run *run, CURL *e)
{
	struct pt_http_call *call = run->call;
	curl_off_t dns = 0, connect = 0, tls = 0, first = 0, total = 0;
	struct pt_url proxy = { .port = 0 };
	char *ip = NULL;
	long port = 0;

	retry_date(run);
	curl_easy_getinfo(e, CURLINFO_NAMELOOKUP_TIME_T, &dns);
	curl_easy_getinfo(e, CURLINFO_CONNECT_TIME_T, &connect);
	curl_easy_getinfo(e, CURLINFO_APPCONNECT_TIME_T, &tls);
	curl_easy_getinfo(e, CURLINFO_STARTTRANSFER_TIME_T, &first);
	curl_easy_getinfo(e, CURLINFO_TOTAL_TIME_T, &total);
	call->dns_us = dns;
	call->connect_us = connect > dns ? connect - dns : 0;
	call->tls_us = tls > connect ? tls - connect : 0;
	call->ttfb_us = first;
	call->total_us = total;
	call->cert_expires = run->c->trust.expires;
	if (curl_easy_getinfo(e, CURLINFO_PRIMARY_IP, &ip) == CURLE_OK && ip)
		snprintf(call->peer, sizeof(call->peer), "%s", ip);
	/* libcurl 7.88 does not say whether NO_PROXY made it go directly, but which port it went to */
	curl_easy_getinfo(e, CURLINFO_PRIMARY_PORT, &port);
	call->proxied = run->proxy[0] && pt_url_parse(run->proxy, &proxy, NULL) == 0 && (unsigned long)port == proxy.port;
	explicit_bzero(&proxy, sizeof(proxy));
}

/* The proxy wants another login.  tinyproxy answers 401 to a wrong password. */
static int proxy_login(struct pt_err *err, const char *proxy)
{
	return strchr(proxy, '@')
		       ? pt_hint(err, "the proxy does not accept the user and password in HTTPS_PROXY/HTTP_PROXY: correct them, "
				      "special characters percent-encoded")
		       : pt_hint(err, "the proxy wants a login: put user:password into HTTPS_PROXY/HTTP_PROXY "
				      "(http://user:password@host:port)");
}

/* status 0: it was not reached, text says why. */
static int proxy_fail(struct pt_err *err, const char *proxy, long status, const char *text)
{
	char native[12];

	if (!status) {
		pt_fail(err, PT_E_PROXY, "proxy: %s", text);
		return pt_hint(err, "check HTTPS_PROXY/HTTP_PROXY, and NO_PROXY for hosts that are reached directly");
	}
	pt_fail(err, PT_E_PROXY, "the proxy refused the connection with status %ld", status);
	snprintf(native, sizeof(native), "%ld", status);
	pt_native(err, native);
	if (status == 407 || status == 401)
		return proxy_login(err, proxy);
	return pt_hint(err,
		       "the proxy could not or must not reach this host and port: ask its owner, or add the host to NO_PROXY");
}

static const struct {
	CURLcode curl;
	enum pt_code code;
} codes[] = {
	{ CURLE_COULDNT_RESOLVE_HOST, PT_E_HOST_UNKNOWN },
	{ CURLE_COULDNT_RESOLVE_PROXY, PT_E_PROXY },
	{ CURLE_PROXY, PT_E_PROXY },
	{ CURLE_COULDNT_CONNECT, PT_E_CONNECT },
	{ CURLE_INTERFACE_FAILED, PT_E_CONNECT },
	{ CURLE_SSL_CONNECT_ERROR, PT_E_TLS },
	{ CURLE_PEER_FAILED_VERIFICATION, PT_E_TLS },
	{ CURLE_SSL_CERTPROBLEM, PT_E_TLS },
	{ CURLE_SSL_CIPHER, PT_E_TLS },
	{ CURLE_SSL_CACERT_BADFILE, PT_E_TLS },
	{ CURLE_SSL_ISSUER_ERROR, PT_E_TLS },
	{ CURLE_OPERATION_TIMEDOUT, PT_E_TIMEOUT },
	{ CURLE_GOT_NOTHING, PT_E_CONNECTION_LOST },
	{ CURLE_SEND_ERROR, PT_E_CONNECTION_LOST },
	{ CURLE_RECV_ERROR, PT_E_CONNECTION_LOST },
	{ CURLE_PARTIAL_FILE, PT_E_CONNECTION_LOST },
	{ CURLE_SEND_FAIL_REWIND, PT_E_CONNECTION_LOST },
	{ CURLE_URL_MALFORMAT, PT_E_INVALID },
	{ CURLE_UNSUPPORTED_PROTOCOL, PT_E_PROTOCOL }, /* a redirect, or an answer that is not HTTP: the URL was checked */
	{ CURLE_TOO_MANY_REDIRECTS, PT_E_PROTOCOL },
	{ CURLE_WEIRD_SERVER_REPLY, PT_E_PROTOCOL },
	{ CURLE_OUT_OF_MEMORY, PT_E_INTERNAL },
};

/* Was it the proxy that could not be reached?  libcurl names in its text whom it tried. */
static bool names_proxy(const struct run *run)
{
	struct pt_url u;
	char where[300];

	if (!run->proxy[0] || pt_url_parse(run->proxy, &u, NULL) < 0)
		return false;
	snprintf(where, sizeof(where), " %s port %u ", u.host, u.port);
	return strstr(run->text, where) != NULL;
}

static int explain(struct run *run, CURLcode rc, const struct pt_url *u, struct pt_err *err)
{
	const char *text = run->text[0] ? run->text : curl_easy_strerror(rc);
	enum pt_code code = PT_E_PROTOCOL;
	long connect_status = 0;

	for (size_t i = 0; i < PT_COUNT(codes); i++)
		if (codes[i].curl == rc)
			code = codes[i].code;
	curl_easy_getinfo(run->c->easy, CURLINFO_HTTP_CONNECTCODE, &connect_status);
	if (connect_status && connect_status / 100 != 2)
		return proxy_fail(err, run->proxy, connect_status, text);
	if (code == PT_E_CONNECT && run->refused.code) {
		*err = run->refused;
		return err->code;
	}
	if (code == PT_E_PROXY || (code == PT_E_CONNECT && names_proxy(run)))
		return proxy_fail(err, run->proxy, 0, text);
	if (code == PT_E_CONNECTION_LOST && run->call->proxied && strcmp(u->scheme, "http") == 0) {
		/* A proxy that closes before it has read the body (tinyproxy): of its answer some may come, or nothing. */
		if (run->call->status == 401 || run->call->status == 407)
			return proxy_fail(err, run->proxy, run->call->status, text);
		pt_fail(err, PT_E_PROXY, "the proxy closed the connection before its answer was complete: %s", text);
		return pt_hint(err,
			       "if the proxy wants a login, check user:password in HTTP_PROXY (http://user:password@host:port)");
	}
	if (code == PT_E_TLS)
		return pt_trust_fail(&run->c->trust, u->host, text, err);
	pt_fail(err, code, "%s:%u: %s", u->host, u->port, text);
	if (code == PT_E_HOST_UNKNOWN)
		pt_hint(err, "check the name and this machine's DNS; behind a proxy, HTTPS_PROXY must be set");
	else if (code == PT_E_CONNECT || (code == PT_E_TIMEOUT && !run->call->status))
		pt_hint(err, "does it run there and listen on this address? Is a firewall in the path, or must a proxy be used (HTTPS_PROXY)?");
	return code;
}

int pt_http_do(struct pt_http_client *c, struct pt_http_call *call, struct pt_err *err)
{
	struct run run = { .c = c, .call = call, .moved_ms = pt_mono_ms() };
	struct curl_slist *headers = NULL;
	CURLcode code = CURLE_OK;
	struct pt_err own = { 0 };
	struct pt_url u;
	int rc;

	err = err ? err : &own;
	call->status = 0;
	call->retry_after_ms = -1;
	call->content_type[0] = call->peer[0] = '\0';
	call->proxied = false;
	call->ttfb_us = call->connect_us = call->tls_us = call->dns_us = call->total_us = 0;
	rc = pt_url_parse(call->url, &u, err);
	if (rc == 0 && strcmp(u.scheme, "http") != 0 && strcmp(u.scheme, "https") != 0)
		rc = pt_fail(err, PT_E_INVALID, "URL: only http:// and https:// are possible, not %s://", u.scheme);
	rc = rc < 0 ? rc : pt_cancel_check(call->cancel, err);
	rc = rc < 0 ? rc : headers_of(call, &headers, err);
	if (rc < 0)
		return rc;
	run.proxy = strcmp(u.scheme, "https") == 0 ? c->https_proxy : c->http_proxy;
	/* The kept connections were not asked about (and a redirect would use them even with CURLOPT_FRESH_CONNECT). */
	run.multi = call->allow_address ? curl_multi_init() : c->multi;
	if (!run.multi) {
		curl_slist_free_all(headers);
		return pt_fail_oom(err);
	}
	set_up(&run, c->easy, headers);
	curl_multi_add_handle(run.multi, c->easy);
	rc = drive(&run, &code, err);
	results(&run, c->easy);
	if (rc == 0 && run.failed) {
		*err = run.err;
		rc = run.failed;
	} else if (rc == 0 && code) {
		rc = explain(&run, code, &u, err);
	} else if (rc == 0 && call->status == 407 && run.proxy[0]) {
		rc = proxy_fail(err, run.proxy, 407, "");
	}
	curl_multi_remove_handle(run.multi, c->easy); /* closes the connection when the call did not end by itself */
	curl_easy_setopt(c->easy, CURLOPT_ERRORBUFFER, NULL);
	curl_slist_free_all(headers);
	if (run.multi != c->multi)
		curl_multi_cleanup(run.multi);
	explicit_bzero(&u, sizeof(u));
	c->trust.seen = NULL;
	return rc;
}
