/* The SSRF guard: which addresses an operation may connect to.  An operation comes from the gateway and runs inside somebody's
 * network, so addresses that give power to whoever can reach them (the host itself, cloud metadata services) are refused unless
 * the agent's operator permits them.  The check is made on the address that is about to be connected to, after name resolution:
 * what a name resolved to a moment before does not count (no DNS rebinding). */
#ifndef PT_OP_GUARD_H
#define PT_OP_GUARD_H
#include "base/shape.h"
#include "net/url.h"
#include "os/cancel.h"

struct pt_guard {
	struct pt_list blocked, allowed; /* of struct pt_cidr, besides the built-in ones; allowed wins over blocked */
};

/* Comma lists of CIDRs or addresses ("10.0.0.0/8, ::1"); NULL or "" = none.  INVALID names the bad part, the guard is then
 * empty.  The agent calls it at start, so that a typing error is seen there. */
int pt_guard_init(struct pt_guard *g, const char *blocked, const char *allowed, struct pt_err *err) PT_MUSTCHECK;
void pt_guard_release(struct pt_guard *g);

/* May sa (a struct sockaddr of any family) be connected to?  BLOCKED with a hint, for all that is not IPv4 or IPv6 too.  The
 * signature is that of pt_http_call.allow_address: guard is a const struct pt_guard. */
int pt_guard_address(void *guard, const void *sa, struct pt_err *err) PT_MUSTCHECK;

/* For a request that goes through a proxy, which does its own name resolution: refuse what is known here to be a blocked
 * address.  That is an address in any notation the resolver takes (decimal, hex, octal), the names that cloud metadata services
 * and this host go by, and names for which this host's resolver gives a blocked address within a second.  Other names pass:
 * what they lead to is the proxy's decision. */
int pt_guard_proxied_host(const struct pt_guard *g, const char *host, const struct pt_cancel *cancel,
			  struct pt_err *err) PT_MUSTCHECK;
#endif
