/* Cancel tokens: first call wins, deadlines, and waiting for a descriptor. */
#include "os/cancel.h"
#include "base/clock.h"
#include "../tap.h"
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>

static void *cancel_soon(void *arg)
{
	(void)poll(NULL, 0, 20);
	pt_cancel_fire(arg, PT_E_CANCELLED, "cancelled by ada");
	return NULL;
}

static void *race(void *arg)
{
	pt_cancel_fire(arg, PT_E_CANCELLED, "a reason that is long enough to be seen half written");
	return NULL;
}

int main(void)
{
	struct pt_err e = { 0 };
	struct pt_cancel c, r;
	int p[2], bad = 0;
	pthread_t t, u[4];
	int64_t start;

	ok(pipe2(p, O_CLOEXEC) == 0, "pipe");
	is_int(pt_cancel_check(NULL, &e), 0, "no token is never cancelled");
	is_int(pt_cancel_wait_ms(NULL, -1), -1, "and waits for ever");
	is_int(pt_cancel_wait_ms(NULL, 50), 50, "or as long as asked");
	is_int(pt_cancel_poll(NULL, p[0], POLLIN, 1, &e), PT_E_TIMEOUT, "poll without a token: %s", e.msg);

	ok(pt_cancel_init(&c, &e) == 0, "made");
	is_int(pt_cancel_check(&c, &e), 0, "not cancelled");
	is_int(pt_cancel_wait_ms(&c, -1), -1, "no deadline");
	is_int(pt_cancel_poll(&c, p[0], POLLIN, 5, &e), PT_E_TIMEOUT, "nothing to read");
	is_int(pt_cancel_poll(&c, p[0], POLLIN, 0, &e), PT_E_TIMEOUT, "nor at once");
	is_int(pt_cancel_poll(&c, p[1], POLLOUT, -1, &e), 0, "ready to write");
	start = pt_mono_ms();
	ok(pthread_create(&t, NULL, cancel_soon, &c) == 0, "someone cancels");
	is_int(pt_cancel_poll(&c, p[0], POLLIN, -1, &e), PT_E_CANCELLED, "a wait without end is ended");
	is_str(e.msg, "cancelled by ada", "with the reason");
	ok(pt_mono_ms() - start < 10000, "at once");
	pthread_join(t, NULL);
	pt_cancel_fire(&c, PT_E_DEADLINE, "late");
	is_int(pt_cancel_check(&c, &e), PT_E_CANCELLED, "the first call wins");
	is_str(e.msg, "cancelled by ada", "its reason stays");
	ok(poll(&(struct pollfd) { .fd = c.fd, .events = POLLIN }, 1, 0) == 1, "the descriptor is readable, and stays so");
	is_int(pt_cancel_poll(&c, p[1], POLLOUT, -1, &e), PT_E_CANCELLED, "cancelled counts more than ready");
	pt_cancel_release(&c);
	is_int(c.fd, -1, "released");

	ok(pt_cancel_init(&c, &e) == 0, "made");
	c.deadline_ms = pt_mono_ms() + 30;
	ok(pt_cancel_wait_ms(&c, -1) <= 30 && pt_cancel_wait_ms(&c, 10) <= 10, "the nearer end");
	is_int(pt_cancel_poll(&c, p[0], POLLIN, -1, &e), PT_E_DEADLINE, "deadline: %s", e.msg);
	is_int(pt_cancel_wait_ms(&c, 100), 0, "nothing left");
	c.deadline_ms = pt_mono_ms() + 86400000LL * 365;
	is_int(pt_cancel_wait_ms(&c, -1), -1, "a deadline beyond what poll can say");
	is_int(pt_cancel_wait_ms(&c, 7), 7, "with a limit");
	pt_cancel_fire(&c, PT_E_DEADLINE, NULL);
	is_int(pt_cancel_check(&c, &e), PT_E_DEADLINE, "cancelled for the deadline");
	ok(*e.msg, "a reason in any case: %s", e.msg);
	pt_cancel_release(&c);

	for (int round = 0; round < 50; round++) {
		bad |= pt_cancel_init(&r, &e);
		for (int i = 0; i < 4; i++)
			bad |= pthread_create(&u[i], NULL, race, &r);
		while (pt_cancel_check(&r, &e) == 0)
			;
		bad |= strlen(e.msg) != 52;
		for (int i = 0; i < 4; i++)
			pthread_join(u[i], NULL);
		pt_cancel_release(&r);
	}
	is_int(bad, 0, "a reader sees a whole reason");
	close(p[0]);
	close(p[1]);
	return tap_end();
}
