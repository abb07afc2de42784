/* New connections: the watcher's thread accepts them and gives them to MHD.
 *
 * MHD could accept by itself, but not stop doing so while its threads are at work: MHD_quiesce_daemon() and the thread that was told
 * first both take the listening socket out of that thread's epoll set, and whoever comes second ends the process (daemon.c of
 * 0.9.75).  Here one lock says who may accept, and MHD never knows the listening socket. */
#include "net/http_server_priv.h"
#include "base/clock.h"
#include "base/log.h"
#include <sys/epoll.h>
#include <sys/socket.h>

enum {
	BURST = 64,     /* accepted in one go, between the watcher's other duties */
	AGAIN_MS = 20,  /* for those who wait for a place, or for a file descriptor */
	FRESH_MS = 500, /* a new connection's first request comes within this time, or its client can wait */
};

static bool room(struct pt_http_server *s)
{
	unsigned handed = atomic_load(&s->handed); /* first: a start raises the other one, then lowers this one */

	return handed + atomic_load(&s->connections) < s->n_slots;
}

/* 1 = accepted, 0 = nobody waits, -1 = not now. */
static int accept_one(struct pt_http_server *s)
{
	struct sockaddr_storage sa;
	socklen_t n = sizeof(sa);
	int fd;

	do
		fd = accept4(s->listen_fd, (struct sockaddr *)&sa, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
	while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
	if (fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
		s->refused = false;
		return 0;
	}
	if (fd < 0) {
		struct pt_err err = { 0 };

		pt_fail_sys(&err, PT_E_UNAVAILABLE, "accept");
		if (!s->refused)
			pt_log_err(PT_LOG_WARN, "new connections have to wait", &err);
		s->refused = true;
		return -1;
	}
	atomic_store(&s->handed_ms, pt_mono_ms());
	atomic_fetch_add(&s->handed, 1);
	if (MHD_add_connection(s->mhd, fd, (struct sockaddr *)&sa, n) != MHD_YES) /* it has closed fd */
		atomic_fetch_sub(&s->handed, 1);
	return 1;
}

int pt_http_accept(struct pt_http_server *s)
{
	int got;

	pthread_mutex_lock(&s->accept_lock);
	got = !atomic_load(&s->quiet);
	for (int i = 0; i < BURST && got > 0; i++)
		got = room(s) ? accept_one(s) : -1;
	pthread_mutex_unlock(&s->accept_lock);
	if (got > 0)
		return 0; /* there may be more */
	return got < 0 ? AGAIN_MS : -1;
}

int pt_http_accept_start(struct pt_http_server *s, struct pt_err *err)
{
	/* Edge-triggered: while there is no room, those who wait must not wake anybody. */
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET, .data.u64 = PT_HTTP_ID_LISTEN };

	if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->listen_fd, &ev) < 0)
		return pt_fail_sys(err, PT_E_INTERNAL, "listen on %s: epoll", s->conf.listen);
	return PT_OK;
}

void pt_http_server_quiesce(struct pt_http_server *s)
{
	pthread_mutex_lock(&s->accept_lock);
	if (!atomic_exchange(&s->quiet, true)) {
		(void)epoll_ctl(s->epoll, EPOLL_CTL_DEL, s->listen_fd, NULL);
		if (!s->passed) {
			/* The kernel has said yes to these clients already: closing now would reset them. */
			for (int i = 0; i < PT_HTTP_BACKLOG && room(s) && accept_one(s) > 0; i++)
				;
			(void)shutdown(s->listen_fd, SHUT_RDWR); /* the kernel refuses new connections at once */
		}
	}
	pthread_mutex_unlock(&s->accept_lock);
}

bool pt_http_server_expects(struct pt_http_server *s)
{
	int64_t since = pt_mono_ms() - FRESH_MS;
	bool found = atomic_load(&s->handed) && atomic_load(&s->handed_ms) > since; /* before those that have begun */
	unsigned top = atomic_load(&s->top);

	for (unsigned i = 0; !found && i < top; i++) {
		const struct pt_http_req *r;

		pthread_mutex_lock(&pt_http_lock_of(s, i)->m);
		r = s->slots[i].r;
		found = r && (atomic_load(&r->phase) == PT_PH_FRESH || atomic_load(&r->phase) == PT_PH_RECV) &&
			atomic_load(&r->since_ms) > since;
		pthread_mutex_unlock(&pt_http_lock_of(s, i)->m);
	}
	return found;
}
