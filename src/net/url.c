#include "net/url.h"
#include <arpa/inet.h>

static const struct {
	const char *scheme;
	unsigned port;
} ports[] = { { "http", 80 }, { "https", 443 }, { "postgresql", 5432 }, { "postgres", 5432 } };

static int port_parse(const char *s, size_t n, unsigned *ret, struct pt_err *err)
{
	unsigned v = 0;

	for (size_t i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9' || v > 65535)
			return pt_fail(err, PT_E_INVALID, "the port is not a number");
		v = v * 10 + (unsigned)(s[i] - '0');
	}
	if (!n || v > 65535)
		return pt_fail(err, PT_E_INVALID, "the port is not between 0 and 65535");
	*ret = v;
	return PT_OK;
}

/* host in lower case; only bytes that a name or an address may have. */
static int host_copy(const char *s, size_t n, bool brackets, char out[static 256], struct pt_err *err)
{
	unsigned char addr[16];

	if (n >= 256)
		return pt_fail(err, PT_E_INVALID, "the host name is too long");
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c <= 0x20 || c == 0x7f || (!brackets && strchr(":[]", c)) || strchr("\"#%<>\\^`{|}?/@", c))
			return pt_fail(err, PT_E_INVALID, "the host has a byte that is not allowed");
		out[i] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : (char)c;
	}
	out[n] = '\0';
	if (brackets && inet_pton(AF_INET6, out, addr) != 1)
		return pt_fail(err, PT_E_INVALID, "'[%s]' is not an IPv6 address", out);
	return PT_OK;
}

/* "host", "host:port", "[v6]", "[v6]:port" of n bytes; *ret_port stays when there is none. */
static int authority(const char *s, size_t n, char host[static 256], unsigned *ret_port, struct pt_err *err)
{
	const char *close_at = n && s[0] == '[' ? memchr(s, ']', n) : NULL;
	const char *colon = close_at ? (close_at + 1 < s + n ? close_at + 1 : NULL) : memchr(s, ':', n);
	size_t host_n = close_at ? (size_t)(close_at - s) - 1 : colon ? (size_t)(colon - s) : n;
	int rc;

	if ((n && s[0] == '[' && !close_at) || (close_at && colon && *colon != ':'))
		return pt_fail(err, PT_E_INVALID, "the brackets of the IPv6 address do not match");
	if (!close_at && colon && memchr(colon + 1, ':', (size_t)(s + n - colon - 1)))
		return pt_fail(err, PT_E_INVALID, "write an IPv6 address in brackets: [::1]:8080");
	rc = host_copy(close_at ? s + 1 : s, host_n, close_at != NULL, host, err);
	if (rc == 0 && colon)
		rc = port_parse(colon + 1, (size_t)(s + n - colon - 1), ret_port, err);
	return rc;
}

int pt_url_parse(const char *text, struct pt_url *ret, struct pt_err *err)
{
	struct pt_url u = { 0 };
	const char *p = text, *end, *at = NULL;
	size_t n;
	int rc;

	for (const char *c = text; *c; c++)
		if ((unsigned char)*c <= 0x20 || *c == 0x7f)
			return pt_fail(err, PT_E_INVALID, "the URL has a space or control byte");
	while ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
	       (p > text && ((*p >= '0' && *p <= '9') || *p == '+' || *p == '-' || *p == '.')))
		p++;
	n = (size_t)(p - text);
	if (!n || strncmp(p, "://", 3) != 0)
		return pt_fail(err, PT_E_INVALID, "the URL does not start with a scheme such as https://");
	if (n >= sizeof(u.scheme))
		return pt_fail(err, PT_E_INVALID, "the URL's scheme is not known");
	for (size_t i = 0; i < n; i++)
		u.scheme[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 32) : text[i];
	p += 3;
	end = p + strcspn(p, "/?#");
	for (const char *c = p; c < end; c++)
		if (*c == '@')
			at = c; /* the last one, as libcurl and browsers read it */
	if (at) {
		n = (size_t)(at - p);
		if (n >= sizeof(u.userinfo))
			return pt_fail(err, PT_E_INVALID, "the URL's user part is too long");
		memcpy(u.userinfo, p, n);
		p = at + 1;
	}
	for (size_t i = 0; i < PT_COUNT(ports); i++)
		if (strcmp(ports[i].scheme, u.scheme) == 0)
			u.port = ports[i].port;
	rc = authority(p, (size_t)(end - p), u.host, &u.port, err);
	if (rc < 0)
		return pt_err_wrap(err, rc, "URL");
	if (!u.host[0] && strncmp(u.scheme, "http", 4) == 0)
		return pt_fail(err, PT_E_INVALID, "the URL has no host");
	u.path = end;
	*ret = u;
	return PT_OK;
}

void pt_url_masked(const char *text, struct pt_buf *out)
{
	const char *p = strstr(text, "://"), *end, *at = NULL, *colon;

	p = p ? p + 3 : text;
	end = p + strcspn(p, "/?#");
	for (const char *c = p; c < end; c++)
		if (*c == '@')
			at = c;
	/* A password that holds a "/" or "?" not encoded: hide up to the last "@" of the whole text rather than show a part. */
	if (!at && (colon = strchr(p, ':')) && colon < end && strrchr(end, '@') &&
	    strspn(colon + 1, "0123456789") != (size_t)(end - colon - 1))
		at = strrchr(end, '@');
	colon = at ? memchr(p, ':', (size_t)(at - p)) : NULL;
	if (!colon) {
		pt_buf_str(out, text);
		return;
	}
	pt_buf_add(out, text, (size_t)(colon + 1 - text));
	pt_buf_str(out, "***");
	pt_buf_str(out, at);
}

void pt_url_encode(struct pt_buf *out, const char *s, size_t n)
{
	static const char hex[] = "0123456789ABCDEF";

	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];
		char esc[3] = { '%', hex[c >> 4], hex[c & 15] };

		if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c && strchr("-._~", c)))
			pt_buf_chr(out, (char)c);
		else
			pt_buf_add(out, esc, 3);
	}
}

int pt_hostport_parse(const char *text, char host[static 256], unsigned *ret_port, struct pt_err *err)
{
	unsigned port = UINT32_MAX;
	char h[256];
	int rc = authority(text, strlen(text), h, &port, err);

	if (rc < 0)
		return rc;
	if (port == UINT32_MAX)
		return pt_fail(err, PT_E_INVALID, "the port is missing: write host:port");
	memcpy(host, h, sizeof(h));
	*ret_port = port;
	return PT_OK;
}

int pt_cidr_parse(const char *text, struct pt_cidr *ret, struct pt_err *err)
{
	const char *slash = strchr(text, '/');
	size_t n = slash ? (size_t)(slash - text) : strlen(text);
	struct pt_cidr c = { 0 };
	unsigned most;
	char addr[64];

	if (n >= sizeof(addr))
		return pt_fail(err, PT_E_INVALID, "'%.100s' is not an address or address range", text);
	memcpy(addr, text, n);
	addr[n] = '\0';
	c.family = strchr(addr, ':') ? AF_INET6 : AF_INET;
	if (inet_pton(c.family, addr, c.addr) != 1)
		return pt_fail(err, PT_E_INVALID, "'%.100s' is not an address or address range", text);
	c.bits = most = c.family == AF_INET ? 32 : 128;
	if (slash && (port_parse(slash + 1, strlen(slash + 1), &c.bits, NULL) < 0 || c.bits > most))
		return pt_fail(err, PT_E_INVALID, "'%.100s': the range's length is not between 0 and %u", text, most);
	for (unsigned i = c.bits; i < most; i++)
		if (c.addr[i / 8] & (0x80 >> i % 8))
			return pt_fail(err, PT_E_INVALID, "'%.100s' has bits set after its length", text);
	*ret = c;
	return PT_OK;
}

bool pt_cidr_has(const struct pt_cidr *c, const struct sockaddr *sa)
{
	const unsigned char *a, *net = c->addr;
	const struct sockaddr_in6 *six = (const void *)sa;
	unsigned bits = c->bits;
	bool mapped = sa->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&six->sin6_addr);
	int family = mapped ? AF_INET : sa->sa_family, net_family = c->family;

	/* "::ffff:10.0.0.0/104" is the range 10.0.0.0/8 */
	if (net_family == AF_INET6 && bits >= 96 && IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)(const void *)net)) {
		net_family = AF_INET;
		net += 12;
		bits -= 96;
	}
	if (family != net_family)
		return false;
	a = mapped                     ? &six->sin6_addr.s6_addr[12]
	    : sa->sa_family == AF_INET ? (const void *)&((const struct sockaddr_in *)(const void *)sa)->sin_addr
				       : six->sin6_addr.s6_addr;
	if (memcmp(a, net, bits / 8) != 0)
		return false;
	return bits % 8 == 0 || (a[bits / 8] ^ net[bits / 8]) >> (8 - bits % 8) == 0;
}
