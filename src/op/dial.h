/* A TCP connection for a check: resolve, ask the guard about each address, connect, all within one time limit. */
#ifndef PT_OP_DIAL_H
#define PT_OP_DIAL_H
#include "op/guard.h"

struct pt_dial {
	/* in */
	const struct pt_guard *guard;
	const char *host;
	unsigned port;
	int timeout_ms; /* for the lookup and all addresses together */
	const struct pt_cancel *cancel;
	struct pt_buf *tries; /* gets {"address","ms","error"} objects, as elements of a JSON array; NULL = not wanted */
	/* out */
	int fd; /* non-blocking, caller closes; -1 = none */
	int64_t dns_us, connect_us;
	char peer[64];
};

/* Addresses are tried in the system's order, each with its share of the time that is left, until one connects.  Blocked ones are
 * passed over.  BLOCKED when all of them are; else what the last one said (CONNECT, TIMEOUT), HOST_UNKNOWN, CANCELLED,
 * DEADLINE. */
int pt_dial(struct pt_dial *d, struct pt_err *err) PT_MUSTCHECK;
/* Is text something that can be looked up: a name or an address without brackets, port, path or spaces?  member: for the
 * message. */
int pt_host_check(const char *member, const char *text, struct pt_err *err) PT_MUSTCHECK;
#endif
