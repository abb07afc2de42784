/* What the deliveries of results (publisher.c) and of log lines (outbox_ship.c) have in common: when a refusal is one for good, and how
 * to pause before the next try. */
#include "agent/agent_int.h"
#include "base/clock.h"

bool pt_deliver_refused(int64_t status, const json_t *error, const enum pt_code *final, size_t n)
{
	const char *code = json_string_value(json_object_get(error, "code"));

	for (size_t i = 0; code && i < n; i++)
		if (strcmp(code, pt_code_wire(final[i])) == 0 && status == pt_code_http(final[i]))
			return true;
	return false;
}

unsigned pt_deliver_ups(struct pt_agent *a)
{
	unsigned ups;

	pthread_mutex_lock(&a->link.lock);
	ups = a->link.ups;
	pthread_mutex_unlock(&a->link.lock);
	return ups;
}

struct pt_pause pt_deliver_pause(struct pt_agent *a, const struct pt_cancel *stop, const _Atomic bool *draining)
{
	return (struct pt_pause) { .stop = stop, .draining = draining, .was_draining = *draining, .ups = pt_deliver_ups(a) };
}

void pt_deliver_wait(struct pt_agent *a, const struct pt_pause *p, int64_t ms, bool by_link)
{
	struct pt_link *l = &a->link;
	int64_t until = pt_mono_ms() + ms;
	struct pt_err err;

	pthread_mutex_lock(&l->lock);
	while (pt_mono_ms() < until && (!by_link || l->ups == p->ups) && *p->draining == p->was_draining &&
	       pt_cancel_check(p->stop, &err) == 0)
		(void)pt_cond_wait_ms(&l->wake, &l->lock, until - pt_mono_ms());
	pthread_mutex_unlock(&l->lock);
}
