/* Start, connections and end of the HTTP server.  New connections are in http_accept.c, requests in http_request.c, replies in
 * http_reply.c, timeouts and departures in http_watch.c. */
#include "net/http_server_priv.h"
#include "net/url.h"
#include "base/clock.h"
#include "base/log.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum {
	SPARE_FILES = 128,       /* for the database, bodies on disk, the log */
	SPARE_CONNECTIONS = 256, /* accepted beyond the limit */
	MOST_CONNECTIONS = 1 << 20,
	STACK = 256 * 1024,
	LAST_WORDS_MS = 500,
	PASSED_FD = 3,    /* of sd_listen_fds(3) */
	KEEPALIVE_S = 15, /* silence after which a client is asked whether it is still there */
	KEEPALIVE_AGAIN_S = 5,
	KEEPALIVE_TIMES = 3
};

/* TLS 1.2 is what old inspecting proxies still speak; nothing below it. */
static const char priorities[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2";

/* --- connections (MHD's threads) --- */

static void peer_text(const struct sockaddr *sa, char out[static 48])
{
	const struct sockaddr_in6 *six = (const void *)sa;

	out[0] = '\0';
	if (sa->sa_family == AF_INET)
		inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, out, 48);
	else if (sa->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
		inet_ntop(AF_INET, &six->sin6_addr.s6_addr[12], out, 48);
	else if (sa->sa_family == AF_INET6)
		inet_ntop(AF_INET6, &six->sin6_addr, out, 48);
}

static void connection_started(struct pt_http_server *s, struct MHD_Connection *c, void **socket_context)
{
	const union MHD_ConnectionInfo *info;
	struct pt_http_req *r = calloc(1, sizeof(*r));
	unsigned slot = 0, n;
	bool got = false;

	*socket_context = NULL; /* without a record every request on it is refused by closing */
	if (!r)
		return;
	pthread_mutex_lock(&s->slot_lock);
	if (s->n_free) {
		slot = s->free_slots[--s->n_free];
		got = true;
	} else if (s->top < s->n_slots) {
		slot = s->top;
		atomic_store(&s->top, slot + 1);
		got = true;
	}
	pthread_mutex_unlock(&s->slot_lock);
	if (!got) {
		free(r);
		return;
	}
	r->s = s;
	r->mhd = c;
	r->slot = slot;
	n = atomic_fetch_add(&s->connections, 1);
	r->crowded = n >= s->most;
	if (r->crowded)
		atomic_fetch_add(&s->crowded, 1);
	r->body = (struct pt_buf)PT_BUF_INIT(1);
	r->headers = (struct pt_buf)PT_BUF_INIT(PT_HTTP_HEADERS_OUT);
	r->fd = (info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD)) ? info->connect_fd : -1;
	if (s->conf.tls_cert && (info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_GNUTLS_SESSION)))
		r->tls = info->tls_session;
	if ((info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CLIENT_ADDRESS)))
		peer_text(info->client_addr, r->peer);
	atomic_store(&r->since_ms, pt_mono_ms());
	pthread_mutex_lock(&pt_http_lock_of(s, slot)->m);
	s->slots[slot].r = r;
	s->slots[slot].generation++;
	pthread_mutex_unlock(&pt_http_lock_of(s, slot)->m);
	*socket_context = r;
	if (n == 0)
		pt_http_watch_kick(s); /* it sleeps without a limit while there are none */
}

/* Before MHD closes the socket. */
static void connection_closed(struct pt_http_server *s, struct pt_http_req *r)
{
	unsigned slot = r->slot;

	pthread_mutex_lock(&pt_http_lock_of(s, slot)->m);
	s->slots[slot].r = NULL;
	pthread_mutex_unlock(&pt_http_lock_of(s, slot)->m);
	pthread_mutex_lock(&s->slot_lock);
	s->free_slots[s->n_free++] = slot;
	pthread_mutex_unlock(&s->slot_lock);
	pt_http_cert_release(r->cert);
	free(r);
	atomic_fetch_sub(&s->connections, 1);
}

static void on_connection(void *cls, struct MHD_Connection *c, void **socket_context, enum MHD_ConnectionNotificationCode what)
{
	struct pt_http_server *s = cls;

	if (what == MHD_CONNECTION_NOTIFY_STARTED) {
		connection_started(s, c, socket_context);
		atomic_fetch_sub(&s->handed, 1);
	} else if (*socket_context) {
		connection_closed(s, *socket_context);
	}
}

static void on_log(void *cls, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static void on_log(void *cls, const char *fmt, va_list ap)
{
	char text[300];
	size_t n;

	if (!pt_log_on(PT_LOG_DEBUG))
		return;
	vsnprintf(text, sizeof(text), fmt, ap);
	n = strlen(text);
	while (n && text[n - 1] == '\n')
		text[--n] = '\0';
	pt_debug("http server", "detail", text);
}

/* --- start --- */

/* Connections inherit these from the listening socket.  Not TCP_USER_TIMEOUT: it would also end a download whose reader pauses;
 * what a client that vanished does not acknowledge ends with idle_timeout_s. */
static void notice_dead_peers(int fd)
{
	const int on = 1, idle = KEEPALIVE_S, again = KEEPALIVE_AGAIN_S, times = KEEPALIVE_TIMES;

	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &again, sizeof(again));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &times, sizeof(times));
}

static int take_passed(struct pt_http_server *s, struct pt_err *err)
{
	const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");
	int accepts = 0;
	socklen_t size = sizeof(accepts);

	if (!pid || !n || strtol(pid, NULL, 10) != (long)getpid() || strtol(n, NULL, 10) < 1) {
		(void)pt_fail(err, PT_E_INVALID, "listen address 'systemd': no socket was passed (LISTEN_PID, LISTEN_FDS)");
		return pt_hint(err, "start it by its socket unit, or give an address, for example 127.0.0.1:8080");
	}
	if (getsockopt(PASSED_FD, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &size) < 0 || !accepts)
		return pt_fail(err, PT_E_INVALID, "listen address 'systemd': descriptor %d is no listening socket", PASSED_FD);
	s->listen_fd = fcntl(PASSED_FD, F_DUPFD_CLOEXEC, PASSED_FD + 1); /* children must not get it */
	if (s->listen_fd < 0)
		return pt_fail_sys(err, PT_E_INTERNAL, "take the passed socket");
	(void)close(PASSED_FD);
	s->passed = true;
	return PT_OK;
}

static void find_port(struct pt_http_server *s)
{
	struct sockaddr_storage sa;
	socklen_t n = sizeof(sa);

	if (getsockname(s->listen_fd, (struct sockaddr *)&sa, &n) < 0)
		return;
	if (sa.ss_family == AF_INET6)
		s->port = ntohs(((struct sockaddr_in6 *)&sa)->sin6_port);
	else if (sa.ss_family == AF_INET)
		s->port = ntohs(((struct sockaddr_in *)&sa)->sin_port);
}

static int bind_to(struct pt_http_server *s, struct pt_err *err)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV },
			*ai;
	char host[256], port[12];
	const int on = 1, off = 0;
	int rc = pt_hostport_parse(s->conf.listen, host, &s->port, err), bad;

	if (rc < 0)
		return pt_err_wrap(err, rc, "listen address '%s'", s->conf.listen);
	snprintf(port, sizeof(port), "%u", s->port);
	bad = getaddrinfo(host[0] ? host : NULL, port, &hints, &ai);
	if (bad) {
		pt_fail(err, PT_E_INVALID, "listen address '%s': %s", s->conf.listen, gai_strerror(bad));
		return pt_hint(err, "write an address of this machine and a port, for example 127.0.0.1:8080 or [::]:8080");
	}
	s->listen_fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->listen_fd >= 0) {
		(void)setsockopt(s->listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		if (ai->ai_family == AF_INET6)
			(void)setsockopt(s->listen_fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	}
	if (s->listen_fd < 0 || bind(s->listen_fd, ai->ai_addr, ai->ai_addrlen) < 0 ||
	    listen(s->listen_fd, PT_HTTP_BACKLOG) < 0) {
		bad = errno;
		rc = bad == EADDRINUSE || bad == EACCES ? PT_E_UNAVAILABLE : PT_E_INVALID;
		pt_fail_sys(err, (enum pt_code)rc, "listen on %s", s->conf.listen);
		if (bad == EADDRINUSE)
			pt_hint(err, "another program has this port: 'ss -ltnp sport = :%u' names it", s->port);
		else if (bad == EACCES)
			pt_hint(err, "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one");
		else
			pt_hint(err, "the address must be one of this machine's");
	}
	freeaddrinfo(ai);
	return rc;
}

static int listen_on(struct pt_http_server *s, struct pt_err *err)
{
	int rc = strcmp(s->conf.listen, "systemd") == 0 ? take_passed(s, err) : bind_to(s, err);

	if (rc < 0)
		return rc;
	notice_dead_peers(s->listen_fd);
	(void)fcntl(s->listen_fd, F_SETFL, fcntl(s->listen_fd, F_GETFL) | O_NONBLOCK);
	find_port(s);
	return PT_OK;
}

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* How many connections there may be, and how many more are accepted all the same. */
static void size_table(struct pt_http_server *s)
{
	struct rlimit limit = { 1024, 1024 };
	unsigned n = s->conf.max_connections, files, spare;

	(void)getrlimit(RLIMIT_NOFILE, &limit);
	files = limit.rlim_cur > MOST_CONNECTIONS ? MOST_CONNECTIONS : (unsigned)limit.rlim_cur;
	spare = least(files / 8, SPARE_CONNECTIONS);
	if (!n)
		n = files - spare - least(files / 4, SPARE_FILES);
	if (n < s->conf.threads)
		n = s->conf.threads;
	s->most = n;
	s->n_slots = n + (spare > s->conf.threads ? spare : s->conf.threads);
}

static int start_mhd(struct pt_http_server *s, struct pt_err *err)
{
	unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ERROR_LOG |
			 (s->tls ? MHD_USE_TLS : 0);
	struct MHD_OptionItem opt[12] = {
		{ MHD_OPTION_CONNECTION_MEMORY_LIMIT, PT_HTTP_POOL, NULL },
		{ MHD_OPTION_CONNECTION_LIMIT, INT_MAX, NULL }, /* ours counts: at its own, MHD 0.9.75 leaves a mutex locked */
		{ MHD_OPTION_CONNECTION_TIMEOUT, (intptr_t)s->conf.idle_timeout_s, NULL },
		{ MHD_OPTION_THREAD_STACK_SIZE, STACK, NULL },
	};
	size_t n = 4;

#if MHD_VERSION >= 0x00097601
	opt[n++] = (struct MHD_OptionItem) { MHD_OPTION_CLIENT_DISCIPLINE_LVL, 1, NULL };
#endif /* before, http_strict.c does more than MHD's option, and with our error document */
	if (s->conf.threads > 1)
		opt[n++] = (struct MHD_OptionItem) { MHD_OPTION_THREAD_POOL_SIZE, (intptr_t)s->conf.threads, NULL };
	if (s->tls) {
		opt[n++] = (struct MHD_OptionItem) { MHD_OPTION_HTTPS_CERT_CALLBACK2, 0, (void *)pt_http_on_certificate };
		opt[n++] = (struct MHD_OptionItem) { MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)priorities };
	}
	opt[n] = (struct MHD_OptionItem) { MHD_OPTION_END, 0, NULL };
	s->mhd = MHD_start_daemon(flags, 0, NULL, NULL, pt_http_on_request, s, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
				  MHD_OPTION_NOTIFY_COMPLETED, pt_http_on_completed, s, MHD_OPTION_NOTIFY_CONNECTION,
				  on_connection, s, MHD_OPTION_URI_LOG_CALLBACK, pt_http_on_uri, s, MHD_OPTION_UNESCAPE_CALLBACK,
				  pt_http_on_unescape, s, MHD_OPTION_ARRAY, opt, MHD_OPTION_END);
	return s->mhd ? PT_OK : pt_fail_sys(err, PT_E_INTERNAL, "start HTTP server on %s", s->conf.listen);
}

int pt_http_server_start(struct pt_http_server **ret, const struct pt_http_server_conf *conf, struct pt_err *err)
{
	struct pt_http_server *s;
	int rc;

	if (!conf->tls_cert != !conf->tls_key)
		return pt_fail(err, PT_E_INVALID, "TLS needs both a certificate and a key");
	if (conf->threads < 1 || conf->threads > 64)
		return pt_fail(err, PT_E_INVALID, "%u threads: 1 to 64 are possible", conf->threads);
	if (posix_memalign((void **)&s, __alignof__(struct pt_http_server), sizeof(*s)))
		return pt_fail_oom(err);
	memset(s, 0, sizeof(*s));
	s->conf = *conf;
	s->listen_fd = s->epoll = s->wake = -1;
	pthread_mutex_init(&s->slot_lock, NULL);
	pthread_mutex_init(&s->accept_lock, NULL);
	for (size_t i = 0; i < PT_HTTP_LOCKS; i++) {
		pthread_mutex_init(&s->locks[i].m, NULL);
		pthread_cond_init(&s->locks[i].gone_done, NULL);
	}
	size_table(s);
	s->slots = calloc(s->n_slots, sizeof(*s->slots));
	s->free_slots = calloc(s->n_slots, sizeof(*s->free_slots));
	rc = s->slots && s->free_slots ? PT_OK : pt_fail_oom(err);
	rc = rc < 0 ? rc : pt_http_routes_new(&s->routes, conf->routes, conf->n_routes, err);
	if (rc == 0 && conf->tls_cert)
		rc = pt_http_tls_open(&s->tls, conf->tls_cert, conf->tls_key, err);
	rc = rc < 0 ? rc : listen_on(s, err);
	rc = rc < 0 ? rc : pt_http_watch_start(s, err);
	rc = rc < 0 ? rc : start_mhd(s, err);
	rc = rc < 0 ? rc : pt_http_accept_start(s, err);
	if (rc < 0)
		pt_http_server_stop(s, 0);
	else
		*ret = s;
	return rc;
}

/* --- running and end --- */

unsigned pt_http_server_port(const struct pt_http_server *s)
{
	return s->port;
}

int64_t pt_http_server_cert_expires(const struct pt_http_server *s)
{
	return s->tls ? pt_http_tls_expires(s->tls) : 0;
}

void pt_http_server_stats(const struct pt_http_server *s, struct pt_http_stats *ret)
{
	unsigned held = atomic_load(&s->held), open = atomic_load(&s->open);

	*ret = (struct pt_http_stats) { .connections = atomic_load(&s->connections),
					.max_connections = s->most,
					.active = open > held ? open - held : 0,
					.held = held,
					.crowded = atomic_load(&s->crowded) };
}

static void wait_open(const struct pt_http_server *s, int64_t most_ms)
{
	const struct timespec nap = { .tv_nsec = 2000000 };
	int64_t end = pt_mono_ms() + most_ms;

	while (atomic_load(&s->open) && pt_mono_ms() < end)
		nanosleep(&nap, NULL);
}

void pt_http_server_stop(struct pt_http_server *s, int64_t most_ms)
{
	if (!s)
		return;
	if (s->mhd) {
		pt_http_server_quiesce(s);
		wait_open(s, most_ms);
		/* From here on nothing is suspended any more: MHD must not be stopped with suspended connections. */
		atomic_store(&s->stopping, true);
		pt_http_watch_evict(s);
		wait_open(s, LAST_WORDS_MS);
		MHD_stop_daemon(s->mhd);
		s->mhd = NULL;
	}
	pt_http_watch_stop(s);
	pt_closep(&s->listen_fd);
	pt_http_routes_free(s->routes);
	pt_http_tls_close(s->tls);
	for (size_t i = 0; i < PT_HTTP_LOCKS; i++) {
		pthread_mutex_destroy(&s->locks[i].m);
		pthread_cond_destroy(&s->locks[i].gone_done);
	}
	pthread_mutex_destroy(&s->slot_lock);
	pthread_mutex_destroy(&s->accept_lock);
	free(s->slots);
	free(s->free_slots);
	free(s);
}
