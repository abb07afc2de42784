/* Exponential backoff with full jitter, reset by a healthy period (not by one success).  One thread; does not wait itself. */
#ifndef PT_NET_BACKOFF_H
#define PT_NET_BACKOFF_H
#include "base/buf.h"

struct pt_backoff {
	int64_t base_ms, cap_ms, healthy_ms; /* first bound, largest bound, how long success must last to reset */
	unsigned failures;
	int64_t healthy_since; /* pt_mono_ms() of the first success after the last failure, 0 = none */
};
/* clang-format off */
#define PT_BACKOFF_INIT(base, cap, healthy) { .base_ms = (base), .cap_ms = (cap), .healthy_ms = (healthy) }
/* clang-format on */
enum { PT_RETRY_AFTER_MOST_MS = 300000 }; /* a server that asks for more gets this */

/* A failure: how long to wait, uniformly random in [0, min(cap, base * 2^failures)] after at_least_ms (Retry-After, up to
 * PT_RETRY_AFTER_MOST_MS; 0 = none): those who were told the same do not come at the same moment. */
int64_t pt_backoff_fail(struct pt_backoff *b, int64_t at_least_ms);
/* Uniformly random in [0, most_ms]. */
int64_t pt_random_ms(int64_t most_ms);
/* A success: the failures are forgotten once healthy_ms have passed since the first one. */
void pt_backoff_ok(struct pt_backoff *b);
#endif
