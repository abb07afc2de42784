#include "op/guard.h"
#include "os/resolve.h"
#include "../tap.h"
#include <arpa/inet.h>

static const struct pt_guard none;

/* Guard an address given as text. */
static int check(const struct pt_guard *g, const char *text, struct pt_err *err)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };

	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
		return pt_guard_address((void *)(uintptr_t)g, &v4, err);
	pt_assert(inet_pton(AF_INET6, text, &v6.sin6_addr) == 1);
	return pt_guard_address((void *)(uintptr_t)g, &v6, err);
}

static void builtin(void)
{
	static const struct {
		const char *address;
		bool blocked;
	} t[] = {
		{ "0.0.0.0", true },
		{ "0.1.2.3", true },
		{ "127.0.0.1", true },
		{ "127.255.255.254", true },
		{ "169.254.169.254", true },
		{ "169.254.170.2", true },
		{ "100.100.100.200", true },
		{ "100.100.100.201", false },
		{ "192.0.0.192", true },
		{ "192.0.0.193", false },
		{ "168.63.129.16", true },
		{ "224.0.0.1", true },
		{ "239.255.255.255", true },
		{ "255.255.255.255", true },
		{ "10.1.2.3", false },
		{ "192.168.1.1", false },
		{ "172.16.0.1", false },
		{ "8.8.8.8", false },
		{ "128.0.0.1", false },
		{ "169.253.255.255", false },
		{ "1.0.0.1", false },
		{ "::", true },
		{ "::1", true },
		{ "fe80::1", true },
		{ "febf::1", true },
		{ "fec0::1", false },
		{ "fd00:ec2::254", true },
		{ "fd00:ec3::254", false },
		{ "fd20:ce::254", true },
		{ "fd20:ce::253", false },
		{ "ff02::1", true },
		{ "fd00::1", false },
		{ "2001:db8::1", false },
		/* IPv4 inside IPv6 */
		{ "::ffff:127.0.0.1", true },
		{ "::ffff:169.254.169.254", true },
		{ "::ffff:10.0.0.1", false },
		{ "::127.0.0.1", true },
		{ "::10.0.0.1", false },
		{ "64:ff9b::169.254.169.254", true },
		{ "64:ff9b::8.8.8.8", false },
		{ "64:ff9b:1::169.254.169.254", true },
		{ "2002:7f00:1::1", true },
		{ "2002:a9fe:a9fe::", true },
		{ "2002:808:808::", false },
	};
	struct pt_err err;

	for (size_t i = 0; i < PT_COUNT(t); i++)
		is_int(check(&none, t[i].address, &err), t[i].blocked ? PT_E_BLOCKED : 0, "%s", t[i].address);
	ok(check(&none, "64:ff9b::127.0.0.1", &err) == PT_E_BLOCKED && strstr(err.hint, "--allowed-cidrs 127.0.0.1/32"),
	   "the hint names the setting and the range that helps");
	ok(check(&none, "127.0.0.1", NULL) == PT_E_BLOCKED, "blocked without an error record too");
	ok(pt_guard_address((void *)(uintptr_t)&none, &(struct sockaddr) { .sa_family = AF_UNIX }, &err) == PT_E_BLOCKED,
	   "other families are refused");
}

static void settings(void)
{
	static const struct {
		const char *blocked, *allowed, *address;
		bool is_blocked;
	} t[] = {
		{ "10.0.0.0/8", NULL, "10.1.2.3", true },
		{ "10.0.0.0/8", NULL, "11.1.2.3", false },
		{ "10.0.0.0/8", NULL, "::ffff:10.1.2.3", true },
		{ "10.0.0.0/8", NULL, "64:ff9b::10.1.2.3", true },
		{ "10.0.0.0/8", "10.1.2.3", "10.1.2.3", false },
		{ "10.0.0.0/8", "10.1.2.3", "10.1.2.4", true },
		{ NULL, "127.0.0.1/32", "127.0.0.1", false },
		{ NULL, "127.0.0.1/32", "::ffff:127.0.0.1", false },
		{ NULL, "127.0.0.1/32", "64:ff9b::127.0.0.1", false },
		{ NULL, "127.0.0.1/32", "127.0.0.2", true },
		{ NULL, "127.0.0.1/32", "::1", true },
		{ NULL, " ::1 , 127.0.0.1 ", "::1", false },
		{ NULL, "64:ff9b::/96", "64:ff9b::169.254.169.254",
		  true }, /* a carrier that is permitted does not hide what it carries */
		{ NULL, "fe80::/10", "fe80::1", false },
		{ "0.0.0.0/0,::/0", "10.20.0.0/16", "10.20.1.1", false },
		{ "0.0.0.0/0,::/0", "10.20.0.0/16", "10.21.1.1", true },
		{ "0.0.0.0/0,::/0", "10.20.0.0/16", "2001:db8::1", true },
		{ "0.0.0.0/0,::/0", "10.20.0.0/16", "::ffff:10.21.1.1", true },
		{ "fd00::/8", "", "fd00::1", true },
	};
	struct pt_guard g;
	struct pt_err err;

	for (size_t i = 0; i < PT_COUNT(t); i++) {
		ok(pt_guard_init(&g, t[i].blocked, t[i].allowed, &err) == 0, "settings %zu are understood", i);
		is_int(check(&g, t[i].address, &err), t[i].is_blocked ? PT_E_BLOCKED : 0, "settings %zu: %s", i, t[i].address);
		pt_guard_release(&g);
	}
	is_int(pt_guard_init(&g, "10.0.0.0/8,10.0.0.0/99", NULL, &err), PT_E_INVALID, "a bad range is refused");
	ok(strstr(err.msg, "blocked-cidrs") && strstr(err.msg, "10.0.0.0/99"), "and named: %s", err.msg);
	is_int(pt_guard_init(&g, NULL, "localhost", &err), PT_E_INVALID, "a name is no range");
	is_int(pt_guard_init(&g, "1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111",
			     NULL, &err),
	       PT_E_INVALID, "nor is a long text");
}

/* A resolver: "inside" has a private address, "rebind" a public and a blocked one, the rest is unknown; addresses as they are. */
static int fake_lookup(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret)
{
	struct addrinfo h = *hints, *second = NULL;
	int rc;

	h.ai_flags = AI_NUMERICHOST;
	if (strcmp(host, "inside") == 0)
		return getaddrinfo("10.1.2.3", port, &h, ret);
	if (strcmp(host, "rebind") != 0)
		return getaddrinfo(host, port, &h, ret);
	rc = getaddrinfo("203.0.113.1", port, &h, ret);
	if (rc == 0 && (rc = getaddrinfo("169.254.169.254", port, &h, &second)) == 0)
		(*ret)->ai_next = second;
	return rc;
}

static void proxied(void)
{
	static const struct {
		const char *host;
		bool blocked;
	} t[] = {
		{ "127.0.0.1", true },
		{ "2130706433", true },
		{ "0x7f000001", true },
		{ "0177.0.0.1", true },
		{ "127.1", true },
		{ "0", true },
		{ "::1", true },
		{ "::ffff:169.254.169.254", true },
		{ "169.254.169.254", true },
		{ "10.1.2.3", false },
		{ "localhost", true },
		{ "LOCALHOST.", true },
		{ "a.localhost", true },
		{ "notlocalhost", false },
		{ "metadata.google.internal", true },
		{ "Metadata.Google.Internal.", true },
		{ "metadata", true },
		{ "metadata.goog", true },
		{ "instance-data", true },
		{ "metadata.azure.internal", true },
		{ "metadata.tencentyun.com", true },
		{ "inside", false },
		{ "rebind", true },
		{ "unknown.example", false },
	};
	struct pt_guard g;
	struct pt_err err;

	pt_resolve_inject(fake_lookup);
	for (size_t i = 0; i < PT_COUNT(t); i++)
		is_int(pt_guard_proxied_host(&none, t[i].host, NULL, &err), t[i].blocked ? PT_E_BLOCKED : 0, "proxied %s",
		       t[i].host);
	ok(pt_guard_init(&g, NULL, "169.254.169.254", &err) == 0 &&
		   pt_guard_proxied_host(&g, "metadata.google.internal", NULL, &err) == 0,
	   "a metadata service that was permitted is permitted by its name as well");
	pt_guard_release(&g);
	pt_resolve_inject(NULL);
}

int main(void)
{
	builtin();
	settings();
	proxied();
	return tap_end();
}
