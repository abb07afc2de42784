/* Waiting by the monotonic clock (cond.h).  The kernel's, also where a test has injected another one: it is the one that waits. */
#include "os/cond.h"
#include <errno.h>
#include <time.h>

void pt_cond_init(pthread_cond_t *c)
{
	pthread_condattr_t mono;

	pthread_condattr_init(&mono);
	pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
	pthread_cond_init(c, &mono);
	pthread_condattr_destroy(&mono);
}

bool pt_cond_wait_ms(pthread_cond_t *c, pthread_mutex_t *locked, int64_t ms)
{
	struct timespec until;

	if (ms <= 0)
		return false;
	(void)clock_gettime(CLOCK_MONOTONIC, &until); /* cannot fail */
	until.tv_nsec += ms % 1000 * 1000000;
	until.tv_sec += ms / 1000 + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	return pthread_cond_timedwait(c, locked, &until) != ETIMEDOUT;
}
