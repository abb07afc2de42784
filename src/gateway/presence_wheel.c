/* The parked exchanges by the time when somebody must look at them again: a wheel of buckets, one for each tick, so that neither parking
 * nor the notifier ever walks over all that wait.  Everything here is under the presence lock. */
#include "gateway/presence_int.h"

static int64_t due(const struct pt_exchange *x)
{
	return x->recheck_at && x->recheck_at < x->until ? x->recheck_at : x->until;
}

/* Into the first bucket that is looked at when it is due.  One that is due after a whole turn is looked at before, and added again. */
static void add(struct pt_presence *p, struct pt_exchange *x)
{
	int64_t tick = (due(x) + PT_TICK_MS - 1) / PT_TICK_MS, last = p->ticked + PT_WHEEL - 1;

	x->tick = tick <= p->ticked ? p->ticked + 1 : tick < last ? tick : last;
	DL_APPEND(p->wheel[x->tick % PT_WHEEL], x);
}

void pt_wheel_add(struct pt_presence *p, struct pt_exchange *x)
{
	p->n_parked++;
	add(p, x);
}

void pt_wheel_remove(struct pt_presence *p, struct pt_exchange *x)
{
	p->n_parked--;
	DL_DELETE(p->wheel[x->tick % PT_WHEEL], x);
}

void pt_wheel_turn(struct pt_gateway *g, int64_t now, struct pt_exchange **ret_over, struct pt_exchange **ret_recheck)
{
	struct pt_presence *p = g->presence;
	int64_t to = now / PT_TICK_MS;

	if (p->ticked < to - PT_WHEEL || p->ticked > to) /* the clock jumped, or the process was stopped: each bucket once */
		p->ticked = to - PT_WHEEL;
	while (p->ticked < to) {
		struct pt_exchange **bucket = &p->wheel[++p->ticked % PT_WHEEL], *list = *bucket, *x, *tmp;

		*bucket = NULL;
		DL_FOREACH_SAFE(list, x, tmp)
		{
			bool over = x->until <= now, recheck = x->recheck_at && x->recheck_at <= now;

			add(p, x); /* where it stays when it is not due, or the writer has it */
			if (x->in_writer || !(over || recheck))
				continue;
			pt_presence_unpark_locked(g, x);
			DL_APPEND(*(over ? ret_over : ret_recheck), x);
		}
	}
}

void pt_wheel_empty(struct pt_gateway *g, struct pt_exchange **ret_all)
{
	for (size_t k = 0; k < PT_WHEEL; k++) {
		struct pt_exchange *x, *tmp;

		DL_FOREACH_SAFE(g->presence->wheel[k], x, tmp)
		{
			if (x->in_writer)
				continue;
			pt_presence_unpark_locked(g, x);
			DL_APPEND(*ret_all, x);
		}
	}
}
