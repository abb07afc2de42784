#include "op/fetch.h"
#include "base/clock.h"
#include <arpa/inet.h>
#include <curl/curl.h>
#include <strings.h>

enum { MOST_REDIRECTS = 5, MOST_HEADERS = 200, HEADER_BYTES = 64 * 1024 };

/* The URL as the HTTP client's own parser reads it: a second opinion on what its host is would be a way around the guard. */
struct target {
	char *url, *scheme, *host, *port; /* host without brackets */
};

static void target_clear(struct target *t)
{
	curl_free(t->url);
	curl_free(t->scheme);
	curl_free(t->host);
	curl_free(t->port);
	*t = (struct target) { 0 };
}

static void urlp(CURLU **u)
{
	curl_url_cleanup(*u);
}

static bool has_part(CURLU *u, CURLUPart part)
{
	char *text = NULL;
	bool yes = curl_url_get(u, part, &text, 0) == CURLUE_OK;

	curl_free(text);
	return yes;
}

/* Parse text, relative to base unless that is NULL.  No message shows the URL: it may hold a password. */
static int parse(const char *base, const char *text, struct target *ret, struct pt_err *err)
{
	pt_auto(urlp) CURLU *u = curl_url();
	struct target t = { 0 };
	size_t n;

	if (!u)
		return pt_fail_oom(err);
	if ((base && curl_url_set(u, CURLUPART_URL, base, 0)) || curl_url_set(u, CURLUPART_URL, text, 0))
		return pt_fail(err, PT_E_INVALID, "not a URL that is understood");
	if (!base && (has_part(u, CURLUPART_USER) || has_part(u, CURLUPART_PASSWORD)))
		return pt_fail(err, PT_E_INVALID, "a user or password in the URL is not accepted");
	if (curl_url_set(u, CURLUPART_USER, NULL, 0) || curl_url_set(u, CURLUPART_PASSWORD, NULL, 0) ||
	    curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0) || curl_url_get(u, CURLUPART_SCHEME, &t.scheme, 0) ||
	    curl_url_get(u, CURLUPART_HOST, &t.host, 0) || curl_url_get(u, CURLUPART_PORT, &t.port, CURLU_DEFAULT_PORT) ||
	    curl_url_get(u, CURLUPART_URL, &t.url, 0)) {
		target_clear(&t);
		return pt_fail(err, PT_E_INVALID, "not a complete URL (http://host/path or https://host/path)");
	}
	n = strlen(t.host);
	if (n > 1 && t.host[0] == '[') {
		memmove(t.host, t.host + 1, n - 2);
		t.host[n - 2] = '\0';
	}
	for (const char *p = t.host; *p; p++)
		if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f) {
			target_clear(&t);
			return pt_fail(err, PT_E_INVALID, "a host name in ASCII is expected (xn--… for international names)");
		}
	if (strcmp(t.scheme, "http") != 0 && strcmp(t.scheme, "https") != 0) {
		(void)pt_fail(err, PT_E_INVALID, "http:// or https:// is expected, not %.20s://", t.scheme);
		target_clear(&t);
		return PT_E_INVALID;
	}
	target_clear(ret);
	*ret = t;
	return PT_OK;
}

int pt_fetch_url_check(const char *member, const char *url, struct pt_err *err)
{
	struct target t = { 0 };
	int rc = pt_err_wrap(err, parse(NULL, url, &t, err), "%s", member);

	target_clear(&t);
	return rc;
}

/* Is host (a name or an address) covered by one entry of NO_PROXY: "*", "host", ".domain", "10.0.0.0/8"? */
static bool entry_has(const char *entry, size_t n, const char *host)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };
	const struct sockaddr *sa = NULL;
	size_t len = strlen(host);
	struct pt_cidr cidr;
	char one[256];

	if (n == 0 || n >= sizeof(one))
		return false;
	memcpy(one, entry, n);
	one[n] = '\0';
	if (strcmp(one, "*") == 0)
		return true;
	if (inet_pton(AF_INET, host, &v4.sin_addr) == 1)
		sa = (const struct sockaddr *)&v4;
	else if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1)
		sa = (const struct sockaddr *)&v6;
	if (sa)
		return pt_cidr_parse(one, &cidr, NULL) == 0 && pt_cidr_has(&cidr, sa);
	if (len && host[len - 1] == '.')
		len--;
	entry = one + (one[0] == '.');
	n = strlen(entry);
	if (!n || len < n || strncasecmp(host + len - n, entry, n) != 0)
		return false;
	return len == n || host[len - n - 1] == '.';
}

const char *pt_fetch_proxy(const struct pt_http_client_conf *conf, const char *scheme, const char *host)
{
	const char *proxy = strcmp(scheme, "https") == 0 ? conf->https_proxy : conf->http_proxy;

	if (!proxy || !*proxy)
		return NULL;
	for (const char *p = conf->no_proxy ? conf->no_proxy : ""; *p;) {
		size_t n;

		p += strspn(p, ", \t");
		n = strcspn(p, ", \t");
		if (entry_has(p, n, host))
			return NULL;
		p += n;
	}
	return proxy;
}

static void response_clear(struct pt_fetch *f)
{
	struct pt_fetch_header *h = f->response.items;

	for (size_t i = 0; i < f->response.n; i++) {
		free(h[i].name);
		free(h[i].value);
	}
	free(f->response.items);
	f->response = (struct pt_list) { 0 };
}

void pt_fetch_release(struct pt_fetch *f)
{
	response_clear(f);
	pt_buf_release(&f->data);
	free(f->final_url);
	f->final_url = NULL;
}

const char *pt_fetch_header(const struct pt_fetch *f, const char *name)
{
	const struct pt_fetch_header *h = f->response.items;

	for (size_t i = 0; i < f->response.n; i++)
		if (strcmp(h[i].name, name) == 0)
			return h[i].value;
	return NULL;
}

/* A header too many is left out: what a server sends cannot make the operation fail. */
static void on_header(void *arg, const char *name, const char *value)
{
	struct pt_fetch *f = arg;
	struct pt_fetch_header h = { .name = NULL };
	size_t bytes = strlen(name) + strlen(value);

	for (size_t i = 0; i < f->response.n; i++)
		bytes += strlen(((struct pt_fetch_header *)f->response.items)[i].name) +
			 strlen(((struct pt_fetch_header *)f->response.items)[i].value);
	if (f->response.n >= MOST_HEADERS || bytes > HEADER_BYTES)
		return;
	h.name = strdup(name);
	h.value = strdup(value);
	if (!h.name || !h.value || pt_list_append(&f->response, sizeof(h), &h, NULL) < 0) {
		free(h.name);
		free(h.value);
	}
}

/* Bodies of 2xx: kept up to the limit, then the transfer is given up, which is not an error. */
static int on_data(void *arg, const char *data, size_t n, struct pt_err *err)
{
	struct pt_fetch *f = arg;
	size_t room = f->max_bytes - f->data.len;

	pt_buf_add(&f->data, data, n < room ? n : room);
	if (n <= room)
		return PT_OK;
	f->truncated = true;
	return pt_fail(err, PT_E_TOO_LARGE, "the response is larger than %zu bytes", f->max_bytes);
}

/* Headers that say nothing about who asks: all that goes to another origin after a redirect. */
static bool harmless(const char *line)
{
	static const char *const names[] = { "accept:", "accept-language:", "content-type:", "user-agent:" };

	for (size_t i = 0; i < PT_COUNT(names); i++)
		if (strncasecmp(line, names[i], strlen(names[i])) == 0)
			return true;
	return false;
}

struct hop {
	struct target at;
	const char *method;
	bool with_body, same_origin;
};

/* One request and its response. */
static int hop_do(struct pt_fetch *f, struct hop *h, struct pt_guard *guard, int64_t end_ms, struct pt_err *err)
{
	pt_auto(pt_http_client_freep) struct pt_http_client *client = NULL;
	struct pt_http_client_conf conf = f->run->agent->http ? *f->run->agent->http : (struct pt_http_client_conf) { 0 };
	const char *lines[MOST_HEADERS + 1];
	int64_t left = end_ms - pt_mono_ms();
	size_t n = 0;
	int rc;

	f->proxied = pt_fetch_proxy(&conf, h->at.scheme, h->at.host) != NULL;
	conf.no_proxy = "";
	if (f->proxied) {
		rc = pt_guard_proxied_host(guard, h->at.host, f->run->cancel, err);
		if (rc < 0)
			return rc;
	} else {
		conf.https_proxy = conf.http_proxy = "";
	}
	for (size_t i = 0; f->headers && f->headers[i] && n < MOST_HEADERS; i++)
		if (h->same_origin || harmless(f->headers[i]))
			lines[n++] = f->headers[i];
	lines[n] = NULL;
	response_clear(f);
	pt_buf_clear(&f->data);
	f->truncated = false;
	f->call = (struct pt_http_call) { .method = h->method,
					  .url = h->at.url,
					  .headers = lines,
					  .body = h->with_body ? f->body : NULL,
					  .body_size = h->with_body ? f->body_size : 0,
					  .out = &f->data,
					  .on_data = on_data,
					  .on_header = on_header,
					  .arg = f,
					  .timeout_ms = left > 1 ? left : 1,
					  .cancel = f->run->cancel,
					  .allow_address = f->proxied ? NULL : pt_guard_address,
					  .allow_arg = guard };
	rc = pt_http_client_new(&client, &conf, err);
	if (rc == 0)
		rc = pt_http_do(client, &f->call, err);
	if (rc == PT_E_TOO_LARGE && f->call.status) {
		f->truncated = true;
		rc = PT_OK;
	}
	f->call.method = f->call.url = NULL; /* what they point to ends with this hop */
	f->call.headers = NULL;
	return rc;
}

/* Does the response send us elsewhere?  Then h is the next hop. */
static int redirect(struct pt_fetch *f, struct hop *h, bool *ret_again, struct pt_err *err)
{
	const char *location = pt_fetch_header(f, "location");
	int status = f->call.status, rc;
	struct target next = { 0 };

	*ret_again = false;
	if (!f->follow || !location || (status != 301 && status != 302 && status != 303 && status != 307 && status != 308))
		return PT_OK;
	if (++f->redirects > MOST_REDIRECTS)
		return pt_fail(err, PT_E_PROTOCOL, "more than %d redirects", MOST_REDIRECTS);
	rc = parse(h->at.url, location, &next, err);
	if (rc < 0) {
		(void)pt_err_wrap(err, rc, "redirect (status %d)", status);
		return err->code = rc == PT_E_INVALID ? PT_E_PROTOCOL : (enum pt_code)rc;
	}
	h->same_origin = h->same_origin && strcmp(next.scheme, h->at.scheme) == 0 && strcasecmp(next.host, h->at.host) == 0 &&
			 strcmp(next.port, h->at.port) == 0;
	if (status != 307 && status != 308 && strcmp(h->method, "HEAD") != 0 && strcmp(h->method, "GET") != 0) {
		h->method = "GET";
		h->with_body = false;
	}
	target_clear(&h->at);
	h->at = next;
	*ret_again = true;
	return PT_OK;
}

int pt_fetch_do(struct pt_fetch *f, struct pt_err *err)
{
	int64_t end_ms = pt_mono_ms() + f->timeout_ms;
	pt_auto(pt_guard_release) struct pt_guard guard = { 0 };
	struct hop h = { .method = f->method, .with_body = f->body != NULL, .same_origin = true };
	int rc = pt_guard_init(&guard, f->run->agent->blocked_cidrs, f->run->agent->allowed_cidrs, err);
	bool again = true;

	f->data = (struct pt_buf)PT_BUF_INIT(f->max_bytes + 1);
	if (rc == 0)
		rc = pt_err_wrap(err, parse(NULL, f->url, &h.at, err), "url");
	while (rc == 0 && again) {
		rc = hop_do(f, &h, &guard, end_ms, err);
		if (rc == 0)
			rc = redirect(f, &h, &again, err);
	}
	if (h.at.url && !(f->final_url = strdup(h.at.url)) && rc == 0)
		rc = pt_fail_oom(err);
	target_clear(&h.at);
	return rc;
}
