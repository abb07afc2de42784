#include "net/backoff.h"
#include "base/clock.h"
#include "../tap.h"

static int64_t now_ms = 1000;

static int64_t fake(bool mono)
{
	return now_ms;
}

/* Ten thousand lose the same server in the same moment, with the bounds of the agent's link: how they come back. */
static void test_herd(void)
{
	enum { HERD = 10000, CAP_MS = 30000 };
	static const int outages_ms[] = { 200, 2000, 10000, 60000, 600000 };

	for (size_t i = 0; i < PT_COUNT(outages_ms); i++) {
		int in_second[CAP_MS / 1000 + 2] = { 0 }, peak = 0;
		int64_t last = 0;

		for (int k = 0; k < HERD; k++) {
			struct pt_backoff b = PT_BACKOFF_INIT(1000, CAP_MS, 60000);
			int64_t at = 0;

			while (at < outages_ms[i])
				at += pt_backoff_fail(&b, 0);
			at -= outages_ms[i];
			last = at > last ? at : last;
			if (at <= CAP_MS)
				in_second[at / 1000]++;
		}
		for (size_t k = 0; k < PT_COUNT(in_second); k++)
			peak = in_second[k] > peak ? in_second[k] : peak;
		ok(last <= CAP_MS, "away for %d ms: all are back within 30 s (%lld ms)", outages_ms[i], (long long)last);
		if (outages_ms[i] >= 10000)
			ok(peak < HERD / 4, "and at most a quarter of them in one second (%d)", peak);
	}
}

int main(void)
{
	struct pt_backoff b = PT_BACKOFF_INIT(100, 5000, 60000);
	int64_t bound = 100, least = INT64_MAX, most = 0, sum = 0;
	bool in_bounds = true;

	pt_clock_inject(fake);
	for (int i = 0; i < 80; i++) { /* far past the shift that would overflow */
		int64_t w = pt_backoff_fail(&b, 0);

		in_bounds = in_bounds && w >= 0 && w <= bound;
		bound = bound * 2 > 5000 ? 5000 : bound * 2;
	}
	ok(in_bounds, "each wait is within its bound");
	for (int i = 0; i < 10000; i++) {
		int64_t w = pt_backoff_fail(&b, 0);

		least = w < least ? w : least;
		most = w > most ? w : most;
		sum += w;
	}
	ok(least < 50 && most > 4950 && most <= 5000, "spread over the whole range (%lld to %lld)", (long long)least,
	   (long long)most);
	ok(sum / 10000 > 2350 && sum / 10000 < 2650, "evenly: mean %lld", (long long)(sum / 10000));
	least = INT64_MAX;
	most = 0;
	for (int i = 0; i < 1000; i++) {
		int64_t w = pt_backoff_fail(&b, 30000);

		least = w < least ? w : least;
		most = w > most ? w : most;
	}
	ok(least >= 30000 && least < 30100 && most > 34900 && most <= 35000, "Retry-After is kept, and spread (%lld to %lld)",
	   (long long)least, (long long)most);
	ok(pt_backoff_fail(&b, INT64_MAX) <= PT_RETRY_AFTER_MOST_MS + 5000, "within reason");
	ok(pt_random_ms(0) == 0 && pt_random_ms(-5) == 0 && pt_random_ms(1) <= 1, "a random time");
	/* a success that does not last resets nothing */
	pt_backoff_ok(&b);
	now_ms += 59999;
	pt_backoff_ok(&b);
	ok(b.failures > 0, "not healthy for long enough");
	(void)pt_backoff_fail(&b, 0);
	pt_backoff_ok(&b);
	now_ms += 59999;
	pt_backoff_ok(&b);
	ok(b.failures > 0, "a failure starts the healthy period again");
	now_ms += 1;
	pt_backoff_ok(&b);
	is_int(b.failures, 0, "a healthy period resets");
	ok(pt_backoff_fail(&b, 0) <= 100, "the first bound again");
	pt_backoff_ok(&b);
	now_ms += 60000;
	for (int i = 0; i < 3; i++)
		(void)pt_backoff_fail(&b, 0);
	is_int(b.failures, 3, "one success long ago counts when the next failure comes");
	b = (struct pt_backoff)PT_BACKOFF_INIT(0, 0, 0);
	is_int(pt_backoff_fail(&b, 0), 0, "no bounds: no wait");
	pt_clock_inject(NULL);
	test_herd();
	return tap_end();
}
