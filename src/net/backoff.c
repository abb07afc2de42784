/* "Full jitter": the wait is uniformly random between nothing and the bound, so that many clients that lost the same server come
 * back spread out evenly (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015: the fewest calls of the
 * variants measured there).  The failures are forgotten only after a healthy period: a server that accepts a
 * connection and drops it at once must not reset the bound each time. */
#include "net/backoff.h"
#include "base/clock.h"
#include "base/id.h"

int64_t pt_random_ms(int64_t most_ms)
{
	uint64_t r;

	pt_random(&r, sizeof(r));
	return most_ms > 0 ? (int64_t)(r % ((uint64_t)most_ms + 1)) : 0;
}

int64_t pt_backoff_fail(struct pt_backoff *b, int64_t at_least_ms)
{
	int64_t bound = b->base_ms;

	if (b->healthy_since && pt_mono_ms() - b->healthy_since >= b->healthy_ms)
		b->failures = 0;
	b->healthy_since = 0;
	for (unsigned i = 0; i < b->failures && bound < b->cap_ms; i++)
		bound = bound > b->cap_ms / 2 ? b->cap_ms : bound * 2;
	if (bound > b->cap_ms)
		bound = b->cap_ms;
	if (b->failures < UINT32_MAX)
		b->failures++;
	if (at_least_ms > PT_RETRY_AFTER_MOST_MS)
		at_least_ms = PT_RETRY_AFTER_MOST_MS;
	return at_least_ms + pt_random_ms(bound);
}

void pt_backoff_ok(struct pt_backoff *b)
{
	int64_t now = pt_mono_ms();

	if (b->failures && !b->healthy_since)
		b->healthy_since = now ? now : 1; /* 0 means none */
	else if (b->failures && now - b->healthy_since >= b->healthy_ms)
		b->failures = 0;
}
