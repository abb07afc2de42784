#include "os/cancel.h"
#include "base/clock.h"
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>

/* code goes 0 -> PT_OK + 1 (being written) -> the code: a reader sees the reason only when it is whole. */
enum { WRITING = 1 };

int pt_cancel_init(struct pt_cancel *c, struct pt_err *err)
{
	*c = (struct pt_cancel) { .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .deadline_ms = INT64_MAX };
	return c->fd < 0 ? pt_fail_sys(err, PT_E_INTERNAL, "eventfd") : PT_OK;
}

void pt_cancel_release(struct pt_cancel *c)
{
	pt_closep(&c->fd);
	c->fd = -1;
}

void pt_cancel_fire(struct pt_cancel *c, enum pt_code code, const char *reason)
{
	uint64_t one = 1;
	int none = 0;

	if (!atomic_compare_exchange_strong(&c->code, &none, WRITING))
		return;
	snprintf(c->reason, sizeof(c->reason), "%s", reason ? reason : "cancelled");
	atomic_store(&c->code, (int)code);
	while (write(c->fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

int pt_cancel_check(const struct pt_cancel *c, struct pt_err *err)
{
	int code = c ? atomic_load(&c->code) : 0;

	if (code < 0)
		return pt_fail(err, (enum pt_code)code, "%s", c->reason);
	if (c && pt_mono_ms() >= c->deadline_ms)
		return pt_fail(err, PT_E_DEADLINE, "the operation's time limit has passed");
	return PT_OK;
}

int pt_cancel_wait_ms(const struct pt_cancel *c, int most_ms)
{
	int64_t left = c && c->deadline_ms != INT64_MAX ? c->deadline_ms - pt_mono_ms() : INT64_MAX;

	if (left < 0)
		left = 0;
	if (most_ms >= 0 && most_ms < left)
		left = most_ms;
	return left > INT32_MAX ? (most_ms < 0 ? -1 : most_ms) : (int)left;
}

int pt_cancel_poll(const struct pt_cancel *c, int fd, short events, int most_ms, struct pt_err *err)
{
	int64_t end = most_ms < 0 ? INT64_MAX : pt_mono_ms() + most_ms;

	for (;;) {
		struct pollfd p[2] = { { .fd = fd, .events = events }, { .fd = c ? c->fd : -1, .events = POLLIN } };
		int64_t left = end == INT64_MAX ? -1 : end - pt_mono_ms();
		int rc = pt_cancel_check(c, err), n;

		if (rc < 0)
			return rc;
		if (end != INT64_MAX && left <= 0)
			left = 0;
		n = poll(p, 2, pt_cancel_wait_ms(c, left > INT32_MAX ? INT32_MAX : (int)left));
		if (n < 0 && errno != EINTR)
			return pt_fail_sys(err, PT_E_INTERNAL, "poll");
		if (n > 0 && p[0].revents)
			return PT_OK;
		if (n == 0 && end != INT64_MAX && pt_mono_ms() >= end && (rc = pt_cancel_check(c, err)) == 0)
			return pt_fail(err, PT_E_TIMEOUT, "no answer within %d ms", most_ms);
	}
}
