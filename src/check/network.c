/* dns, proxy, tls, gateway, clock, token: the way to the gateway, seen from one request that is made as the agent makes it. */
#include "base/clock.h"
#include "check/check_int.h"
#include "check/resolv.h"
#include "os/file.h"
#include "os/resolve.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <time.h>

enum { CALL_MS = 15000, CONNECT_MS = 8000, LOOKUP_MS = 6000, ASK_MS = 2000, ANSWER_MAX = 256 * 1024, DAY_S = 86400 };
enum { SLOW_LOOKUP_MS = 1000, SLOW_ANSWER_MS = 2000, SKEW_WARN_MS = 30000, SKEW_FAIL_MS = 300000, EXPIRY_DAYS = 14 };

/* --- the request --- */

static void on_header(void *arg, const char *name, const char *value)
{
	struct pt_check_link *l = arg;

	if (strcmp(name, "location") == 0) {
		snprintf(l->location, sizeof(l->location), "%s", value);
		l->location[strcspn(l->location, "?#")] = '\0'; /* what stands behind may be a secret of a login */
	} else if (strcmp(name, "date") == 0) {
		struct tm tm = { 0 };

		if (strptime(value, "%a, %d %b %Y %H:%M:%S GMT", &tm))
			l->skew_ms = pt_wall_ms() - ((int64_t)timegm(&tm) * 1000 + 500); /* it has no fraction */
	}
}

/* False: the agent would refuse it. */
static bool gateway_parts(struct pt_check_ctx *c, struct pt_url *u)
{
	struct pt_err ignored;

	bool good = c->conf->gateway_url && pt_url_parse(c->conf->gateway_url, u, &ignored) == 0 && *u->host && !*u->userinfo &&
		    (strcmp(u->scheme, "https") == 0 || strcmp(u->scheme, "http") == 0);

	explicit_bzero(u->userinfo, sizeof(u->userinfo));
	return good;
}

static int make(struct pt_check_ctx *c, struct pt_check_link *l, struct pt_err *err)
{
	struct pt_http_client_conf conf = pt_agent_http_conf(c->conf);
	pt_auto(pt_http_client_freep) struct pt_http_client *client = NULL;
	pt_auto_buf url = PT_BUF_INIT(4096);
	pt_auto_buf body = PT_BUF_INIT(ANSWER_MAX);
	struct pt_err ignored;
	struct pt_keys keys = { 0 };
	struct pt_key key = { .id = "" };
	struct pt_url u = { .port = 0 };
	size_t n;
	int rc;

	l->key_rc = c->conf->token_file ? pt_keys_open(&keys, c->conf->token_file, &l->key_err)
					: pt_fail(&l->key_err, PT_E_INVALID, "--token-file is not set");
	if (l->key_rc == 0)
		pt_keys_get(&keys, &key);
	pt_keys_close(&keys);
	memcpy(l->key_id, key.id, sizeof(l->key_id));
	conf.connect_timeout_ms = CONNECT_MS;
	rc = gateway_parts(c, &u) ? pt_http_client_new(&client, &conf, err)
				  : pt_fail(err, PT_E_INVALID, "--gateway-url is not usable");
	if (rc == 0) {
		for (n = strlen(c->conf->gateway_url); n && c->conf->gateway_url[n - 1] == '/';)
			n--;
		pt_buf_fmt(&url, "%.*s/agent/v1/ping", (int)n, c->conf->gateway_url);
		l->call = (struct pt_http_call) { .method = "GET",
						  .url = url.p,
						  .out = &body,
						  .timeout_ms = CALL_MS,
						  .arg = l,
						  .on_header = on_header,
						  .tls = &l->tls };
		if (l->key_rc == 0) {
			l->call.basic_user = key.id;
			l->call.basic_password = key.secret;
		}
		rc = pt_http_do(client, &l->call, err);
	}
	explicit_bzero(&key, sizeof(key));
	if (rc == 0 && pt_json_parse(body.p, body.len, &l->doc, &ignored) < 0)
		l->doc = NULL;
	if (rc == 0 && l->call.status / 100 != 2 && pt_http_error_of(&l->call, &body, err) == PT_E_PROXY)
		rc = PT_E_PROXY; /* it answered in the gateway's place */
	l->call.url = l->call.basic_user = l->call.basic_password = NULL;
	l->call.out = NULL;
	return rc;
}

const struct pt_check_link *pt_check_link(struct pt_check_ctx *c)
{
	static struct pt_check_link hangs = { .rc = PT_E_TIMEOUT, .key_rc = PT_E_TIMEOUT, .skew_ms = INT64_MIN };

	/* Checks run one after the other: who has the lock is one that was left behind. */
	if (pthread_mutex_trylock(&c->link_lock) != 0) {
		(void)pt_fail(&hangs.err, PT_E_TIMEOUT, "the request of an earlier check still hangs");
		hangs.key_err = hangs.err;
		return &hangs;
	}
	if (!c->link_tried) {
		c->link.skew_ms = INT64_MIN;
		c->link.rc = make(c, &c->link, &c->link.err);
		c->link_tried = true;
	}
	pthread_mutex_unlock(&c->link_lock);
	return &c->link;
}

const char *pt_check_owner(int rc)
{
	switch (rc) {
	case PT_E_INVALID:
		return "environment";
	case PT_E_HOST_UNKNOWN:
		return "dns";
	case PT_E_PROXY:
		return "proxy";
	case PT_E_TLS:
		return "tls";
	default:
		return "gateway";
	}
}

/* Does another check tell?  Skip then. */
static bool told_by(const struct pt_check_ctx *c, const char *name, const char *what, struct pt_check_result *r)
{
	bool told = false;

	for (size_t i = 0; i < c->n_results; i++)
		told |= c->results[i].status == PT_CHECK_FAIL && strcmp(c->results[i].name, name) == 0;
	for (size_t i = 0; i < pt_check_n_types; i++)
		told |= (c->to_come >> i & 1) && strcmp(pt_check_types[i].name, name) == 0;
	if (told)
		pt_check_skip(r, "%s, see %s", what, name);
	return told;
}

void pt_check_no_answer(struct pt_check_ctx *c, const struct pt_check_link *l, struct pt_check_result *r)
{
	if (!told_by(c, "dns", "there was no answer", r) && !told_by(c, pt_check_owner(l->rc), "there was no answer", r))
		pt_check_fail_err(r, &l->err, "Make the gateway reachable from here first.");
}

/* A Postern gateway answers with its own documents, whatever it says. */
static bool is_postern(const struct pt_check_link *l)
{
	const json_t *e = json_object_get(l->doc, "error");

	return l->call.status / 100 == 2
		       ? json_is_true(json_object_get(l->doc, "ok")) && json_object_get(l->doc, "agent")
		       : json_is_string(json_object_get(e, "code")) && json_is_string(json_object_get(e, "message"));
}

static const char *proxy_of(const struct pt_agent_conf *c, const struct pt_url *u)
{
	const char *p = strcmp(u->scheme, "https") == 0 ? c->https_proxy : c->http_proxy;

	return p && *p ? p : NULL;
}

static bool is_address(const char *host)
{
	unsigned char a[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, host, a) == 1 || inet_pton(AF_INET6, host, a) == 1;
}

/* --- dns --- */

static void who_is_silent(const char *host, struct pt_check_result *r)
{
	pt_auto_buf text = PT_BUF_INIT(64 * 1024);
	enum pt_resolv_answer answers[PT_RESOLV_SERVERS];
	pt_auto_buf silent = PT_BUF_INIT(512);
	struct pt_err ignored;
	struct pt_resolv conf;
	unsigned answered = 0;

	if (pt_file_read("/etc/resolv.conf", &text, &ignored) < 0)
		pt_buf_clear(&text);
	pt_resolv_parse(text.p, &conf);
	if (!conf.n_servers) {
		pt_check_fail(r, "Set dnsPolicy (ClusterFirst) or dnsConfig of the pod, or write a nameserver line.",
			      "/etc/resolv.conf names no server");
		return;
	}
	pt_resolv_ask(&conf, host, ASK_MS, answers);
	for (unsigned i = 0; i < conf.n_servers; i++) {
		answered += answers[i] == PT_RESOLV_ANSWERED;
		if (answers[i] != PT_RESOLV_ANSWERED)
			pt_buf_fmt(&silent, "%s%s", silent.len ? ", " : "", conf.servers[i]);
	}
	if (!answered)
		pt_check_fail(r, "Allow UDP and TCP port 53 to these servers (NetworkPolicy, firewall), and see that they run.",
			      "no name server answers: %s (from /etc/resolv.conf)", silent.p);
	else if (silent.len)
		pt_check_fail(r, "Allow port 53 to these servers, or take them out of /etc/resolv.conf.", "%s %s not answer",
			      silent.p, strchr(silent.p, ',') ? "do" : "does");
}

/* A name with fewer dots than ndots is first looked up below each search domain. */
static void slow_lookup(const char *host, int64_t ms, struct pt_check_result *r)
{
	pt_auto_buf text = PT_BUF_INIT(64 * 1024);
	struct pt_err ignored;
	struct pt_resolv conf;
	unsigned dots = 0;

	if (pt_file_read("/etc/resolv.conf", &text, &ignored) < 0)
		pt_buf_clear(&text);
	pt_resolv_parse(text.p, &conf);
	for (const char *p = host; *p; p++)
		dots += *p == '.';
	if (conf.n_search && dots < conf.ndots)
		pt_check_warn(r, "Set dnsConfig.options ndots to 2 (in the pod), or give the servers more room.",
			      "the lookup took %lld ms: it goes through %u search domains first (ndots:%u)", (long long)ms,
			      conf.n_search, conf.ndots);
	else
		pt_check_warn(r, "Look at the name servers of /etc/resolv.conf: one of them may be away.",
			      "the lookup took %lld ms", (long long)ms);
}

void pt_check_dns(struct pt_check_ctx *c, struct pt_check_result *r)
{
	pt_auto(pt_addrs_freep) struct addrinfo *found = NULL;
	struct pt_url u = { .port = 0 }, proxy = { .port = 0 };
	struct pt_err err = { 0 };
	const char *host = u.host;
	char address[64];
	int64_t began = pt_mono_ms(), ms;

	if (!gateway_parts(c, &u)) {
		pt_check_skip(r, "the gateway's URL is not usable, see environment");
		return;
	}
	/* With a proxy the proxy looks the gateway up, unless NO_PROXY says that it is not used. */
	if (proxy_of(c->conf, &u)) {
		const struct pt_check_link *l = pt_check_link(c);

		if (l->call.proxied || l->rc == PT_E_PROXY) {
			const char *p = proxy_of(c->conf, &u);
			pt_auto_buf with = PT_BUF_INIT(4096);

			pt_buf_fmt(&with, "%s%s", strstr(p, "://") ? "" : "http://", p);
			if (pt_url_parse(with.p, &proxy, &err) == 0)
				host = proxy.host;
			explicit_bzero(with.p, with.len);
			explicit_bzero(proxy.userinfo, sizeof(proxy.userinfo));
			pt_check_note(r, "the proxy looks up the gateway");
		}
	}
	if (is_address(host)) {
		pt_check_note(r, "%s is an address", host);
		return;
	}
	began = pt_mono_ms();
	if (pt_resolve(host, u.port, AF_UNSPEC, LOOKUP_MS, NULL, &found, &err) < 0) {
		pt_check_fail(r, "", "%s", err.msg);
		who_is_silent(host, r);
		if (!r->fix.len)
			pt_check_fail(
				r,
				"Correct the host in --gateway-url, or make the name known to these servers; behind a proxy, set HTTPS_PROXY.",
				"the name servers answer, and know no such name");
		return;
	}
	ms = pt_mono_ms() - began;
	pt_address_text(found->ai_addr, address);
	if (ms > SLOW_LOOKUP_MS)
		slow_lookup(host, ms, r);
	pt_check_note(r, "%s is %s (%lld ms)", host, address, (long long)ms);
}

/* --- proxy --- */

/* NO_PROXY should say that names of the cluster are reached directly; else requests of operations to them go to the proxy. */
static void cluster_names(const struct pt_agent_conf *c, struct pt_check_result *r)
{
	const char *list = c->no_proxy ? c->no_proxy : "";

	if (pt_check_in_kubernetes() && !strchr(list, '*') && !strstr(list, "svc") && !strstr(list, "cluster.local"))
		pt_check_warn(r, "Add .svc,.cluster.local and the cluster's service range to NO_PROXY.",
			      "NO_PROXY has no names of the cluster: what operations ask of its services goes to the proxy");
}

void pt_check_proxy(struct pt_check_ctx *c, struct pt_check_result *r)
{
	pt_auto_buf masked = PT_BUF_INIT(4096);
	const struct pt_check_link *l;
	struct pt_url u = { .port = 0 };
	const char *proxy;

	if (!gateway_parts(c, &u)) {
		pt_check_skip(r, "the gateway's URL is not usable, see environment");
		return;
	}
	proxy = proxy_of(c->conf, &u);
	if (!proxy) {
		pt_check_skip(r, "no proxy is set for %s", u.scheme);
		return;
	}
	pt_opt_masked(proxy, &masked);
	l = pt_check_link(c);
	cluster_names(c->conf, r);
	if (l->rc == PT_E_PROXY)
		pt_check_fail_err(r, &l->err, "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.");
	else if (l->call.proxied)
		pt_check_note(r, "%s passes the connection on", masked.p);
	else if (l->rc == 0)
		pt_check_note(r, "the gateway is reached directly, as NO_PROXY says");
	else
		pt_check_no_answer(c, l, r);
}

/* --- tls --- */

static void certificate(const struct pt_http_tls *t, struct pt_check_result *r)
{
	long long days = ((long long)t->not_after - pt_wall_ms() / 1000) / DAY_S;

	if (days < EXPIRY_DAYS)
		pt_check_warn(r, "Renew the certificate, and see why that did not happen by itself.",
			      "the certificate of '%s' ends in %lld %s", t->subject, days, days == 1 ? "day" : "days");
	if (t->own_ca)
		pt_check_note(r, "the issuer '%s' is trusted by the CA file only: an own CA, or a proxy that inspects TLS",
			      t->issuer);
	else
		pt_check_note(r, "issuer '%s'", t->issuer);
	pt_check_note(r, "%s, ends in %lld days", t->version, days);
}

void pt_check_tls(struct pt_check_ctx *c, struct pt_check_result *r)
{
	const struct pt_check_link *l;
	struct pt_url u = { .port = 0 };

	if (!gateway_parts(c, &u)) {
		pt_check_skip(r, "the gateway's URL is not usable, see environment");
		return;
	}
	if (strcmp(u.scheme, "https") != 0) {
		if (strcmp(u.host, "localhost") == 0 || strncmp(u.host, "127.", 4) == 0 || strcmp(u.host, "::1") == 0)
			pt_check_skip(r, "http to this machine itself");
		else
			pt_check_warn(r, "Give the gateway a certificate, and the agent an https:// URL.",
				      "http: the agent's key and all results travel unencrypted");
		return;
	}
	l = pt_check_link(c);
	if (l->rc == PT_E_TLS && strstr(l->err.hint, "--ca-file"))
		pt_check_fail(
			r,
			"Give the agent the certificate of this issuer: --ca-file (POSTERN_CA_FILE), firewallCa in the Helm chart. If "
			"the issuer is not the gateway's, a proxy inspects TLS; ask its owner for its CA.",
			"%s", l->err.msg);
	else if (l->rc == PT_E_TLS)
		pt_check_fail_err(r, &l->err, "Look at the gateway's certificate.");
	else if (*l->tls.version)
		certificate(&l->tls, r);
	else
		pt_check_no_answer(c, l, r);
}

/* --- gateway --- */

static void not_postern(const struct pt_check_link *l, struct pt_check_result *r)
{
	const char *type = *l->call.content_type ? l->call.content_type : "no content type";
	int status = l->call.status;

	if (status / 100 == 3 || *l->location)
		pt_check_fail(
			r, "Let requests to /agent/v1/ pass without a login (ingress, access proxy), or correct --gateway-url.",
			"no Postern gateway answers: status %d sends us to '%s', which looks like a login or a redirect", status,
			l->location);
	else if (status == 502 || status == 503 || status == 504)
		pt_check_fail(r, "See that the gateway runs, and that the ingress points to it.",
			      "something in front of the gateway answers with status %d (%s): the gateway itself does not",
			      status, type);
	else if (status == 404)
		pt_check_fail(r, "Correct the host and path of --gateway-url, or the rules of the ingress.",
			      "no Postern gateway answers: status 404 (%s), as from an ingress without a rule for this host",
			      type);
	else
		pt_check_fail(r, "Correct --gateway-url; is there a login page or a captive portal in the way?",
			      "no Postern gateway answers: status %d (%s)", status, type);
}

void pt_check_gateway(struct pt_check_ctx *c, struct pt_check_result *r)
{
	const struct pt_check_link *l = pt_check_link(c);
	long long ms = l->call.total_us / 1000;

	if (l->rc < 0) {
		pt_check_no_answer(c, l, r);
		return;
	}
	if (!is_postern(l)) {
		not_postern(l, r);
		return;
	}
	if (l->call.status / 100 == 5)
		pt_check_fail_err(r, &l->err, "See the gateway's log.");
	if (ms > SLOW_ANSWER_MS)
		pt_check_warn(r, "Look for the slow part: DNS, the proxy, the way, or the gateway's machine.",
			      "it took %lld ms to answer", ms);
	pt_check_note(r, "answers in %lld ms (connect %lld, TLS %lld)", ms, (long long)l->call.connect_us / 1000,
		      (long long)l->call.tls_us / 1000);
}

/* --- clock --- */

/* No answer, or one of somebody else. */
static void no_gateway(struct pt_check_ctx *c, const struct pt_check_link *l, struct pt_check_result *r)
{
	if (l->rc < 0) {
		pt_check_no_answer(c, l, r);
		return;
	}
	if (!told_by(c, "gateway", "it was no gateway that answered", r))
		not_postern(l, r);
}

void pt_check_clock(struct pt_check_ctx *c, struct pt_check_result *r)
{
	const struct pt_check_link *l = pt_check_link(c);
	static const char fix[] = "Synchronize the node's clock (NTP, chrony): certificates and deadlines depend on it.";
	long long off;

	if (l->rc < 0 || !is_postern(l)) { /* a portal's clock says nothing */
		no_gateway(c, l, r);
		return;
	}
	if (l->skew_ms == INT64_MIN) {
		pt_check_skip(r, "the answer had no Date header");
		return;
	}
	off = l->skew_ms < 0 ? -l->skew_ms : l->skew_ms;
	if (off > SKEW_FAIL_MS)
		pt_check_fail(r, fix, "this machine's clock is %lld s %s the gateway's", off / 1000,
			      l->skew_ms > 0 ? "ahead of" : "behind");
	else if (off > SKEW_WARN_MS)
		pt_check_warn(r, fix, "this machine's clock is %lld s %s the gateway's", off / 1000,
			      l->skew_ms > 0 ? "ahead of" : "behind");
	else
		pt_check_note(r, "within %lld s of the gateway's", off / 1000 + 1);
}

/* --- token --- */

void pt_check_token(struct pt_check_ctx *c, struct pt_check_result *r)
{
	const struct pt_check_link *l;
	const char *name;

	if (!c->conf->token_file || !*c->conf->token_file) {
		pt_check_fail(r, "Set --token-file (POSTERN_TOKEN_FILE) to the file with the agent's key.",
			      "--token-file is not set");
		return;
	}
	l = pt_check_link(c);
	if (l->key_rc < 0) {
		pt_check_fail_err(r, &l->key_err, "Put the agent's key there.");
		return;
	}
	if (l->rc < 0 || !is_postern(l)) {
		pt_check_skip(r, "key %s can be read", l->key_id);
		no_gateway(c, l, r);
		return;
	}
	if (l->call.status == 401 || l->call.status == 403) {
		pt_check_fail(
			r,
			"Make a new key with `postern ctl keys create`, put it into the token file (or its Secret), then revoke the old one.",
			"the gateway does not accept key %s: %s", l->key_id, l->err.msg);
		return;
	}
	if (l->call.status / 100 != 2) {
		pt_check_skip(r, "key %s can be read; the gateway did not say whether it is good", l->key_id);
		return;
	}
	name = json_string_value(json_object_get(l->doc, "agent_name"));
	if (!json_is_true(json_object_get(l->doc, "enabled")))
		pt_check_warn(r, "Enable it: `postern ctl agents enable`.", "agent '%s' is not enabled, so it gets no work",
			      name ? name : "");
	pt_check_note(r, "key %s of agent '%s' is accepted", l->key_id, name ? name : "");
}
