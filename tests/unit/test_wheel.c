/* The wheel of parked exchanges (src/gateway/presence_wheel.c): everybody comes out when it is due, nobody twice, whatever the clock does. */
#include "../tap.h"
#include "gateway/presence_int.h"
#include <stdio.h>

enum { N = 2000, LONGEST = 90000 }; /* some longer than a turn of the wheel */

static struct pt_presence p;
static struct pt_gateway g = { .presence = &p };
static struct pt_exchange_request q;
static struct pt_exchange xs[N];
static unsigned early, late, twice, out;

static uint32_t next_random(void)
{
	static uint32_t s = 12345; /* the same in each run */

	s = s * 1664525 + 1013904223;
	return s >> 8;
}

static void take(struct pt_exchange *list, int64_t now, int64_t before, bool recheck)
{
	struct pt_exchange *x, *tmp;

	DL_FOREACH_SAFE(list, x, tmp)
	{
		int64_t at = recheck ? x->recheck_at : x->until;

		early += at > now;
		late += at < before - PT_TICK_MS;
		twice += x->serial++ > 0;
		out++;
	}
}

static void turn(int64_t now, int64_t before)
{
	struct pt_exchange *over = NULL, *recheck = NULL;

	pt_wheel_turn(&g, now, &over, &recheck);
	take(over, now, before, false);
	take(recheck, now, before, true);
}

static void park_all(int64_t now)
{
	early = late = twice = out = 0;
	for (size_t i = 0; i < N; i++) {
		struct pt_exchange *x = &xs[i];

		*x = (struct pt_exchange) { .q = &q, .parked = true, .until = now + next_random() % LONGEST };
		if (i % 3 == 0)
			x->recheck_at = now + next_random() % LONGEST;
		pt_wheel_add(&p, x);
	}
}

static void run(const char *name, int64_t start, int64_t jump_at, int64_t jump)
{
	int64_t now = start, before;

	p.ticked = now / PT_TICK_MS;
	park_all(now);
	for (int64_t passed = 0; p.n_parked && passed < 4 * LONGEST; passed += 130) {
		before = now;
		now += passed >= jump_at ? jump : 130;
		if (passed >= jump_at)
			jump_at = INT64_MAX;
		turn(now, before);
	}
	ok(out == N && !p.n_parked, "%s: all %u came out", name, out);
	ok(!early && !late && !twice, "%s: in time and once (early %u, late %u, twice %u)", name, early, late, twice);
}

static void test_writer(void)
{
	struct pt_exchange *all = NULL;
	int64_t now = 1000000;

	p.ticked = now / PT_TICK_MS;
	park_all(now);
	for (size_t i = 0; i < N; i++)
		xs[i].in_writer = i % 2;
	for (int64_t end = now + 2 * LONGEST; now < end; now += 100)
		turn(now, now - 100);
	ok(out == N / 2 && p.n_parked == N / 2, "those that the writer has stay");
	pt_wheel_remove(&p, &xs[1]);
	xs[3].in_writer = xs[5].in_writer = false;
	turn(now + 200, now);
	is_int(out, N / 2 + 2, "and come out when it is done with them");
	xs[7].in_writer = false;
	pt_wheel_empty(&g, &all);
	ok(all == &xs[7] && !all->next, "a drain takes what the writer does not have");
	is_int((long long)p.n_parked, N / 2 - 4, "the rest is still there");
	for (size_t i = 9; i < N; i += 2)
		pt_wheel_remove(&p, &xs[i]);
	is_int((long long)p.n_parked, 0, "none is left");
}

int main(void)
{
	run("steady clock", 1763654400000, INT64_MAX, 0);
	run("held up for ten minutes", 1763654400000, 20000, 600000);
	run("held up for half a turn", 1763654400000, 20000, PT_WHEEL * PT_TICK_MS / 2);
	run("clock set back", 1763654400000, 20000, -120000);
	test_writer();
	return tap_end();
}
