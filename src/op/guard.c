#include "op/guard.h"
#include "os/resolve.h"
#include <stdio.h>
#include <strings.h>

/* What is refused without any setting.  docs/security.md has this list. */
static const struct {
	const char *cidr, *what;
} builtin[] = {
	{ "0.0.0.0/8", "this host" }, /* connects to loopback on Linux */
	{ "127.0.0.0/8", "loopback" },
	{ "169.254.0.0/16", "link-local, where cloud metadata services live" },
	{ "100.100.100.200/32", "the metadata service of Alibaba Cloud" },
	{ "168.63.129.16/32", "the platform service of Azure" },
	{ "192.0.0.192/32", "the metadata service of Oracle Cloud" },
	{ "224.0.0.0/4", "multicast" },
	{ "255.255.255.255/32", "broadcast" },
	{ "::/128", "this host" },
	{ "::1/128", "loopback" },
	{ "fe80::/10", "link-local" },
	{ "fd00:ec2::/32", "the metadata service of AWS" },
	{ "fd20:ce::254/128", "the metadata service of Google Cloud" },
	{ "ff00::/8", "multicast" },
};

/* IPv6 ranges that carry an IPv4 address: it counts as well. */
static const struct {
	unsigned char prefix[12];
	unsigned bytes, at; /* length of the prefix, where the IPv4 address begins */
} carriers[] = {
	{ { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff }, 12, 12 },    /* ::ffff:0:0/96 mapped, RFC 4291 */
	{ { 0 }, 12, 12 },                                           /* ::/96 compatible, RFC 4291 */
	{ { 0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0 }, 12, 12 }, /* 64:ff9b::/96 NAT64, RFC 6052 */
	{ { 0, 0x64, 0xff, 0x9b, 0, 1 }, 6, 12 },                    /* 64:ff9b:1::/48 local NAT64, RFC 8215, as /96 */
	{ { 0x20, 0x02 }, 2, 2 },                                    /* 2002::/16 6to4, RFC 3056 */
};

/* Names that mean a fixed address wherever they are resolved.  Only needed behind a proxy. */
static const struct {
	const char *name, *address;
} known_names[] = {
	{ "localhost", "127.0.0.1" },
	{ "ip6-localhost", "::1" },
	{ "ip6-loopback", "::1" },
	{ "metadata", "169.254.169.254" },
	{ "metadata.google.internal", "169.254.169.254" },
	{ "metadata.goog", "169.254.169.254" },
	{ "instance-data", "169.254.169.254" },
	{ "instance-data.ec2.internal", "169.254.169.254" },
	{ "metadata.azure.internal", "169.254.169.254" },
	{ "metadata.tencentyun.com", "169.254.0.23" },
};
enum { PROXIED_LOOKUP_MS = 1000 };

static int add_list(struct pt_list *l, const char *text, struct pt_err *err)
{
	for (const char *p = text ? text : ""; *p;) {
		size_t n = strcspn(p, ",");
		const char *s = p;
		size_t len = n;
		struct pt_cidr cidr;
		char one[80];
		int rc;

		p += n + (p[n] == ',');
		for (; len && (*s == ' ' || *s == '\t'); s++)
			len--;
		while (len && (s[len - 1] == ' ' || s[len - 1] == '\t'))
			len--;
		if (!len)
			continue;
		if (len >= sizeof(one))
			return pt_fail(err, PT_E_INVALID, "'%.60s…' is not an address range", s);
		memcpy(one, s, len);
		one[len] = '\0';
		rc = pt_cidr_parse(one, &cidr, err);
		if (rc == 0)
			rc = pt_list_append(l, sizeof(cidr), &cidr, err);
		if (rc < 0)
			return rc;
	}
	return PT_OK;
}

int pt_guard_init(struct pt_guard *g, const char *blocked, const char *allowed, struct pt_err *err)
{
	int rc;

	*g = (struct pt_guard) { 0 };
	rc = pt_err_wrap(err, add_list(&g->blocked, blocked, err), "blocked-cidrs");
	if (rc == 0)
		rc = pt_err_wrap(err, add_list(&g->allowed, allowed, err), "allowed-cidrs");
	if (rc < 0)
		pt_guard_release(g);
	return rc;
}

void pt_guard_release(struct pt_guard *g)
{
	free(g->blocked.items);
	free(g->allowed.items);
	*g = (struct pt_guard) { 0 };
}

static bool list_has(const struct pt_list *l, const struct sockaddr *sa)
{
	const struct pt_cidr *c = l->items;

	for (size_t i = 0; i < l->n; i++)
		if (pt_cidr_has(&c[i], sa))
			return true;
	return false;
}

/* Why sa is blocked, NULL when it is not. */
static const char *why_blocked(const struct pt_guard *g, const struct sockaddr *sa)
{
	if (list_has(&g->allowed, sa))
		return NULL;
	for (size_t i = 0; i < PT_COUNT(builtin); i++) {
		struct pt_cidr c;

		pt_assert(pt_cidr_parse(builtin[i].cidr, &c, NULL) == 0);
		if (pt_cidr_has(&c, sa))
			return builtin[i].what;
	}
	return list_has(&g->blocked, sa) ? "blocked by this agent's settings" : NULL;
}

/* The IPv4 address that sa carries. */
static bool carried(const struct sockaddr_in6 *sa, struct sockaddr_in *ret)
{
	const unsigned char *a = sa->sin6_addr.s6_addr;

	if (IN6_IS_ADDR_UNSPECIFIED(&sa->sin6_addr) || IN6_IS_ADDR_LOOPBACK(&sa->sin6_addr))
		return false;
	for (size_t i = 0; i < PT_COUNT(carriers); i++)
		if (memcmp(a, carriers[i].prefix, carriers[i].bytes) == 0) {
			*ret = (struct sockaddr_in) { .sin_family = AF_INET };
			memcpy(&ret->sin_addr, a + carriers[i].at, 4);
			return true;
		}
	return false;
}

int pt_guard_address(void *guard, const void *sa, struct pt_err *err)
{
	const struct pt_guard *g = guard;
	const struct sockaddr *a = sa;
	struct sockaddr_in v4;
	const char *why;
	char text[64];

	if (a->sa_family != AF_INET && a->sa_family != AF_INET6)
		return pt_fail(err, PT_E_BLOCKED, "addresses of family %d are not connected to", a->sa_family);
	pt_address_text(a, text);
	why = why_blocked(g, a);
	if (a->sa_family == AF_INET6 && carried(sa, &v4)) {
		a = (const struct sockaddr *)&v4;
		why = why ? why : why_blocked(g, a);
	}
	if (!why)
		return PT_OK;
	(void)pt_fail(err, PT_E_BLOCKED, "operations may not connect to %s (%s)", text, why);
	pt_address_text(a, text); /* the IPv4 address that it carries, when that is what has to be permitted */
	(void)pt_hint(err, "whoever runs the agent can permit it: --allowed-cidrs %.*s/%d (POSTERN_ALLOWED_CIDRS)",
		      (int)strcspn(text, "%"), text, a->sa_family == AF_INET ? 32 : 128);
	return PT_E_BLOCKED;
}

/* Does host equal name, or end in ".localhost" for localhost (RFC 6761)?  A final dot says nothing. */
static bool name_is(const char *host, const char *name)
{
	size_t n = strlen(host), m = strlen(name);

	if (n && host[n - 1] == '.')
		n--;
	if (n == m && strncasecmp(host, name, n) == 0)
		return true;
	return strcmp(name, "localhost") == 0 && n > m && host[n - m - 1] == '.' && strncasecmp(host + n - m, name, m) == 0;
}

static int check_all(const struct pt_guard *g, const struct addrinfo *ai, struct pt_err *err)
{
	for (; ai; ai = ai->ai_next) {
		int rc = pt_guard_address((void *)(uintptr_t)g, ai->ai_addr, err);

		if (rc < 0)
			return rc;
	}
	return PT_OK;
}

int pt_guard_proxied_host(const struct pt_guard *g, const char *host, const struct pt_cancel *cancel, struct pt_err *err)
{
	pt_auto(pt_addrs_freep) struct addrinfo *ai = NULL;
	const char *target = host;
	int rc;

	for (size_t i = 0; i < PT_COUNT(known_names); i++)
		if (name_is(host, known_names[i].name))
			target = known_names[i].address;
	rc = pt_resolve(target, 0, AF_UNSPEC, PROXIED_LOOKUP_MS, cancel, &ai, err);
	if (rc == PT_E_HOST_UNKNOWN || rc == PT_E_TIMEOUT || rc == PT_E_LIMIT)
		return PT_OK; /* behind a proxy the names of the outside are often not known inside */
	if (rc == 0)
		rc = check_all(g, ai, err);
	return target == host ? rc : pt_err_wrap(err, rc, "%s", host);
}
