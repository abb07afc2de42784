/* Condition variables whose waits are measured by the monotonic clock: setting the time of day neither ends nor prolongs them. */
#ifndef PT_OS_COND_H
#define PT_OS_COND_H
#include "base/attr.h"
#include <pthread.h>
#include <stdbool.h>

/* Destroyed by pthread_cond_destroy(). */
void pt_cond_init(pthread_cond_t *c);
/* Wait for a signal for at most ms (0 and below: not at all).  False when the time is over; true may also be a false alarm: the
 * caller looks at its condition. */
bool pt_cond_wait_ms(pthread_cond_t *c, pthread_mutex_t *locked, int64_t ms);
#endif
