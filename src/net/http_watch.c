/* One small thread beside MHD's.
 *
 * New: http_accept.c.
 *
 * Gone: MHD does not look at a suspended connection, so nobody would notice that the client of a held request left.  Its
 * socket is put once into an epoll set of ours, edge-triggered and for EPOLLRDHUP only: bytes of a pipelined request
 * do not wake us, and holding again costs no system call.
 *
 * Too slow: MHD's timeout starts again with every byte, so a client that trickles could stay for ever.  Requests, and new
 * connections before their first request, have a limit from start to end: 408 and close.
 *
 * Ended: see ended_unnoticed(). */
#include "net/http_server_priv.h"
#include "base/clock.h"
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define ID_WAKE UINT64_MAX

static bool has_sent(int fd)
{
	struct tcp_info ti = { 0 };
	socklen_t n = sizeof(ti);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &n) == 0 && ti.tcpi_bytes_received > 0;
}

/* Under the lock, so that MHD neither closes the socket nor ends the TLS session meanwhile. */
static void cut(struct pt_http_req *r, bool say)
{
	if (say) {
		pt_auto_buf b = PT_BUF_INIT(8192);

		pt_http_raw_error(r->s, PT_E_REQUEST_TIMEOUT, "the request did not arrive in time", &b);
		pt_http_raw_write(r, b.p, b.len);
	}
	(void)shutdown(r->fd, SHUT_RDWR); /* MHD reads the end and closes */
}

/* MHD takes a read that is shorter than its buffer for the last one until the kernel tells of more; when the end of the stream came
 * together with those bytes it is never told of it.  So look ourselves: the client has ended, all it sent is read, and
 * for a while nobody has moved on from there. */
static bool ended_unnoticed(struct pt_http_req *r, int phase, int64_t now)
{
	char c;

	if ((phase != PT_PH_FRESH && phase != PT_PH_IDLE && phase != PT_PH_RECV) ||
	    recv(r->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) != 0) {
		r->ended_ms = 0;
		return false;
	}
	if (!r->ended_ms)
		r->ended_ms = now;
	return now - r->ended_ms >= PT_HTTP_ENDED_MS;
}

static void check_time(struct pt_http_req *r, int64_t now)
{
	const struct pt_http_server_conf *c = &r->s->conf;
	int64_t age = now - atomic_load(&r->since_ms);
	int phase = atomic_load(&r->phase);
	int64_t most = phase == PT_PH_LINGER ? PT_HTTP_LINGER_MS
		       : phase == PT_PH_IDLE ? (int64_t)c->idle_timeout_s * 1000
					     : (int64_t)c->body_timeout_s * 1000;

	if (r->crowded && (!most || most > PT_HTTP_CROWDED_MS))
		most = PT_HTTP_CROWDED_MS;
	if (ended_unnoticed(r, phase, now) && pt_http_phase_move(r, phase, PT_PH_CUT)) {
		cut(r, false);
		return;
	}
	if (phase == PT_PH_BUSY || phase == PT_PH_CUT || !most || age < most || !pt_http_phase_move(r, phase, PT_PH_CUT))
		return;
	/* Before the request line a TLS session may still be in its handshake: no words then. */
	cut(r, phase == PT_PH_RECV || (phase == PT_PH_FRESH && !r->tls && has_sent(r->fd)));
}

static void sweep(struct pt_http_server *s)
{
	int64_t now = pt_mono_ms();
	unsigned top = atomic_load(&s->top);

	for (unsigned i = 0; i < top; i++) {
		struct pt_http_lock *l = pt_http_lock_of(s, i);

		pthread_mutex_lock(&l->m);
		if (s->slots[i].r)
			check_time(s->slots[i].r, now);
		pthread_mutex_unlock(&l->m);
	}
}

/* Call gone() without the lock (it may reply); the end of the request waits for us by gone_running. */
static void tell_gone(struct pt_http_req *r, struct pt_http_lock *l)
{
	if (!r->gone || r->gone_told)
		return;
	r->gone_told = r->gone_running = true;
	pthread_mutex_unlock(&l->m);
	r->gone(r->gone_arg);
	pthread_mutex_lock(&l->m);
	r->gone_running = false;
	pthread_cond_broadcast(&l->gone_done);
}

static void peer_left(struct pt_http_server *s, uint64_t id)
{
	unsigned slot = (unsigned)(id & UINT32_MAX);
	struct pt_http_lock *l = pt_http_lock_of(s, slot);
	struct pt_http_req *r;

	pthread_mutex_lock(&l->m);
	r = s->slots[slot].r;
	if (r && s->slots[slot].generation == id >> 32) {
		r->left = true;
		if (r->suspended)
			tell_gone(r, l);
	}
	pthread_mutex_unlock(&l->m);
}

/* How long there is nothing to do unless something happens: again is what pt_http_accept() said. */
static int patience(struct pt_http_server *s, int again)
{
	int tick = atomic_load(&s->connections) ? PT_HTTP_TICK_MS : -1;

	return again < 0 ? tick : again;
}

static void *run(void *arg)
{
	struct pt_http_server *s = arg;
	struct epoll_event ev[64];
	int64_t next = 0;
	int again = -1;

	for (;;) {
		int n = epoll_wait(s->epoll, ev, PT_COUNT(ev), patience(s, again));
		int64_t now = pt_mono_ms();
		bool fresh = again >= 0;

		for (int i = 0; i < n; i++) {
			uint64_t count;

			if (ev[i].data.u64 == PT_HTTP_ID_LISTEN) {
				fresh = true;
			} else if (ev[i].data.u64 != ID_WAKE) {
				peer_left(s, ev[i].data.u64);
			} else {
				(void)!read(s->wake, &count, sizeof(count)); /* non-blocking: only resets it */
				if (atomic_load(&s->watch_end))
					return NULL;
			}
		}
		again = fresh ? pt_http_accept(s) : -1;
		if (now >= next) {
			sweep(s);
			next = now + PT_HTTP_TICK_MS;
		}
	}
}

void pt_http_watch_add(struct pt_http_req *r)
{
	struct pt_http_server *s = r->s;
	struct epoll_event ev = { .events = EPOLLRDHUP | EPOLLET,
				  .data.u64 = (uint64_t)s->slots[r->slot].generation << 32 | r->slot };
	struct pt_http_lock *l = pt_http_lock_of(s, r->slot);
	bool left;

	pthread_mutex_lock(&l->m);
	left = r->left;
	pthread_mutex_unlock(&l->m);
	/* Setting it again reports a client that left before this request was held. */
	if (!r->watched && epoll_ctl(s->epoll, EPOLL_CTL_ADD, r->fd, &ev) == 0)
		r->watched = true;
	else if (left)
		(void)epoll_ctl(s->epoll, EPOLL_CTL_MOD, r->fd, &ev);
}

void pt_http_watch_kick(struct pt_http_server *s)
{
	uint64_t one = 1;

	(void)!write(s->wake, &one, sizeof(one)); /* full means it is readable, which is all we want */
}

void pt_http_watch_evict(struct pt_http_server *s)
{
	unsigned top = atomic_load(&s->top);

	for (unsigned i = 0; i < top; i++) {
		struct pt_http_lock *l = pt_http_lock_of(s, i);
		pt_auto_buf b = PT_BUF_INIT(4096);
		struct pt_http_reply rep = { .status = 503, .type = "application/json" };
		struct pt_http_req *r;

		pthread_mutex_lock(&l->m);
		r = s->slots[i].r;
		if (r && r->suspended) {
			while (r->gone_running)
				pthread_cond_wait(&l->gone_done, &l->m);
			tell_gone(r, l);
			pt_http_error_text(s, PT_E_UNAVAILABLE, "the server is stopping", &b);
			rep.body = pt_buf_detach(&b, &rep.n);
			if (pt_http_deliver_locked(r, &rep))
				rep.body = NULL;
		}
		pthread_mutex_unlock(&l->m);
		pt_http_reply_release(&rep);
	}
}

int pt_http_watch_start(struct pt_http_server *s, struct pt_err *err)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = ID_WAKE };
	int rc;

	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->epoll < 0 || s->wake < 0 || epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->wake, &ev) < 0)
		return pt_fail_sys(err, PT_E_INTERNAL, "start HTTP server: epoll");
	rc = pthread_create(&s->watcher, NULL, run, s);
	if (rc) {
		errno = rc;
		return pt_fail_sys(err, PT_E_INTERNAL, "start HTTP server: thread");
	}
	s->watching = true;
	return PT_OK;
}

void pt_http_watch_stop(struct pt_http_server *s)
{
	if (s->watching) {
		atomic_store(&s->watch_end, true);
		pt_http_watch_kick(s);
		pthread_join(s->watcher, NULL);
	}
	pt_closep(&s->epoll);
	pt_closep(&s->wake);
}
