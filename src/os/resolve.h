/* Name resolution that can be abandoned.  getaddrinfo(3) blocks for as long as the system's resolver likes; it runs on a thread
 * of its own, and the caller stops waiting at its time limit, cancel or deadline.  An abandoned lookup ends by itself. */
#ifndef PT_OS_RESOLVE_H
#define PT_OS_RESOLVE_H
#include "os/cancel.h"
#include <netdb.h>
#include <netinet/in.h>

/* Addresses of host (name or address) in the system's order of preference, for TCP; the first has ai_canonname.
 * family: AF_UNSPEC, AF_INET or AF_INET6.  A temporary failure (EAI_AGAIN) is tried again up to three times within 1.4 s.  Caller frees *ret.  HOST_UNKNOWN, TIMEOUT, CANCELLED, DEADLINE, LIMIT (too many
 * lookups hang). */
int pt_resolve(const char *host, unsigned port, int family, int timeout_ms, const struct pt_cancel *cancel, struct addrinfo **ret,
	       struct pt_err *err) PT_MUSTCHECK;
static inline PT_UNUSED void pt_addrs_freep(struct addrinfo **ai)
{
	if (*ai)
		freeaddrinfo(*ai);
}
/* The address without its port: "10.1.2.3", "fe80::1%eth0". */
void pt_address_text(const void *sa, char out[static 64]);

/* Test hook: this function in place of getaddrinfo(3), whose contract it has; NULL puts it back.  Set it before threads start. */
void pt_resolve_inject(int (*fn)(const char *, const char *, const struct addrinfo *, struct addrinfo **));
#endif
