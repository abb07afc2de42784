#include "op/dial.h"
#include "op/doc.h"
#include "os/resolve.h"
#include <poll.h>
#include <sys/socket.h>

int pt_host_check(const char *member, const char *text, struct pt_err *err)
{
	size_t n = strlen(text);

	if (!n || n > 253)
		return pt_fail(err, PT_E_INVALID, "%s: a name or an address of 1 to 253 characters is expected", member);
	for (const char *p = text; *p; p++)
		if ((unsigned char)*p <= ' ' || *p == 0x7f || strchr("/@[]\\?#", *p)) {
			(void)pt_fail(err, PT_E_INVALID, "%s: '%.100s' is neither a host name nor an address", member, text);
			(void)pt_hint(err, "give the host alone: \"db.internal\" or \"10.1.2.3\" or \"fd00::1\"");
			return PT_E_INVALID;
		}
	return PT_OK;
}

/* Connect to one address within most_ms. */
static int connect_one(const struct addrinfo *ai, int most_ms, const struct pt_cancel *cancel, int *ret, struct pt_err *err)
{
	pt_auto(pt_closep) int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(int);
	int rc, sys = 0;

	if (fd < 0)
		return pt_fail_sys(err, errno == EAFNOSUPPORT ? PT_E_CONNECT : PT_E_INTERNAL, "socket");
	if (connect(fd, ai->ai_addr, ai->ai_addrlen) < 0) {
		if (errno != EINPROGRESS)
			return pt_fail_sys(err, PT_E_CONNECT, "connect");
		rc = pt_cancel_poll(cancel, fd, POLLOUT, most_ms, err);
		if (rc == PT_E_TIMEOUT)
			return pt_fail(err, rc, "connect: no answer within %d ms", most_ms);
		if (rc < 0)
			return rc;
		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &sys, &len) < 0)
			sys = errno;
		if (sys)
			return pt_err_set_(err, PT_E_CONNECT, sys, __FILE__, __LINE__, "connect");
	}
	*ret = fd;
	fd = -1;
	return PT_OK;
}

static void note(struct pt_buf *tries, const char *address, int64_t us, const struct pt_err *err)
{
	if (!tries)
		return;
	pt_doc_open(tries, NULL, '{');
	pt_doc_str(tries, "address", address);
	pt_doc_ms(tries, "ms", us);
	if (err)
		pt_doc_err(tries, "error", err);
	pt_buf_chr(tries, '}');
}

static int left_of(int64_t end_ms)
{
	int64_t left = end_ms - pt_mono_ms();

	return left > 0 ? (int)left : 0;
}

static int try_all(struct pt_dial *d, const struct addrinfo *all, int64_t end_ms, struct pt_err *err)
{
	struct pt_err said = { 0 }; /* by the last address that was tried; by a blocked one when none was */
	bool tried = false;
	int n = 0, rc;

	for (const struct addrinfo *ai = all; ai; ai = ai->ai_next)
		n++;
	for (const struct addrinfo *ai = all; ai; ai = ai->ai_next, n--) {
		int64_t start = pt_mono_ns();
		char text[64];

		pt_address_text(ai->ai_addr, text);
		rc = pt_guard_address((void *)(uintptr_t)d->guard, ai->ai_addr, err);
		if (rc < 0) {
			note(d->tries, text, 0, err);
			said = tried ? said : *err;
			continue;
		}
		tried = true;
		rc = connect_one(ai, left_of(end_ms) / n, d->cancel, &d->fd, err);
		d->connect_us = (pt_mono_ns() - start) / 1000;
		note(d->tries, text, d->connect_us, rc < 0 ? err : NULL);
		if (rc == 0)
			memcpy(d->peer, text, sizeof(text));
		if (rc == 0 || !pt_check_is_answer(err->code))
			return rc;
		said = *err;
	}
	*err = said;
	return pt_err_wrap(err, err->code, "%s port %u", d->host, d->port);
}

int pt_dial(struct pt_dial *d, struct pt_err *err)
{
	int64_t start = pt_mono_ns(), end_ms = pt_mono_ms() + d->timeout_ms;
	pt_auto(pt_addrs_freep) struct addrinfo *ai = NULL;
	int rc;

	d->fd = -1;
	rc = pt_resolve(d->host, d->port, AF_UNSPEC, d->timeout_ms, d->cancel, &ai, err);
	d->dns_us = (pt_mono_ns() - start) / 1000;
	return rc < 0 ? rc : try_all(d, ai, end_ms, err);
}
