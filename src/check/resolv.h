/* /etc/resolv.conf, and asking its servers one question by hand: getaddrinfo(3) does not say who kept silent. */
#ifndef PT_CHECK_RESOLV_H
#define PT_CHECK_RESOLV_H
#include "base/buf.h"

enum { PT_RESOLV_SERVERS = 3 };
struct pt_resolv {
	char servers[PT_RESOLV_SERVERS][64]; /* addresses as text */
	unsigned n_servers, n_search, ndots; /* ndots: 1 by default, as in resolver(5) */
};
void pt_resolv_parse(const char *text, struct pt_resolv *ret);

enum pt_resolv_answer { PT_RESOLV_SILENT, PT_RESOLV_REFUSED, PT_RESOLV_ANSWERED };
/* Send each server a question about name (A) over UDP and wait up to timeout_ms for all of them; any answer counts, also that
 * there is no such name. */
void pt_resolv_ask(const struct pt_resolv *r, const char *name, int timeout_ms,
		   enum pt_resolv_answer ret[static PT_RESOLV_SERVERS]);
/* The question: n bytes in out, 0 when name is no domain name. */
size_t pt_resolv_question(const char *name, unsigned short id, unsigned char out[static 512]);
#endif
