/* Start, connections and end of the HTTP server.  The requests are in http_request.c, the replies in http_reply.c, timeouts
 * and departures in http_watch.c. */
#include "net/http_server_priv.h"
#include "net/url.h"
#include "base/clock.h"
#include "base/log.h"
#include "os/file.h"
#include <arpa/inet.h>
#include <gnutls/gnutls.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum {
	BACKLOG = 4096,
	SPARE_FILES = 64,
	MOST_CONNECTIONS = 1 << 20,
	PEM_MAX = 256 * 1024,
	STACK = 256 * 1024,
	LAST_WORDS_MS = 500
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
	unsigned slot = 0;
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
	if (atomic_fetch_add(&s->connections, 1) == 0)
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
	free(r);
	atomic_fetch_sub(&s->connections, 1);
}

static void on_connection(void *cls, struct MHD_Connection *c, void **socket_context, enum MHD_ConnectionNotificationCode what)
{
	if (what == MHD_CONNECTION_NOTIFY_STARTED)
		connection_started(cls, c, socket_context);
	else if (*socket_context)
		connection_closed(cls, *socket_context);
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

static int listen_on(struct pt_http_server *s, struct pt_err *err)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV },
			*ai;
	struct sockaddr_storage sa;
	socklen_t sa_n = sizeof(sa);
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
	if (s->listen_fd < 0 || bind(s->listen_fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(s->listen_fd, BACKLOG) < 0) {
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
	if (rc < 0)
		return rc;
	if (getsockname(s->listen_fd, (struct sockaddr *)&sa, &sa_n) == 0)
		s->port = ntohs(sa.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&sa)->sin6_port
							 : ((struct sockaddr_in *)&sa)->sin_port);
	return PT_OK;
}

/* Read and try the pair, because MHD only says that it could not start. */
static int tls_files(const struct pt_http_server_conf *c, struct pt_buf *cert, struct pt_buf *key, struct pt_err *err)
{
	gnutls_certificate_credentials_t cred;
	int rc;

	if (!c->tls_cert && !c->tls_key)
		return PT_OK;
	if (!c->tls_cert || !c->tls_key)
		return pt_fail(err, PT_E_INVALID, "TLS needs both a certificate and a key");
	rc = pt_file_read(c->tls_cert, cert, err);
	rc = rc < 0 ? rc : pt_file_read(c->tls_key, key, err);
	if (rc < 0) {
		pt_err_wrap(err, rc, "TLS files");
		return err ? (int)(err->code = PT_E_INVALID) : PT_E_INVALID;
	}
	if (gnutls_certificate_allocate_credentials(&cred) < 0)
		return pt_fail_oom(err);
	rc = gnutls_certificate_set_x509_key_mem(cred, &(gnutls_datum_t) { (unsigned char *)cert->p, (unsigned)cert->len },
						 &(gnutls_datum_t) { (unsigned char *)key->p, (unsigned)key->len },
						 GNUTLS_X509_FMT_PEM);
	gnutls_certificate_free_credentials(cred);
	if (rc < 0) {
		pt_fail(err, PT_E_INVALID, "TLS certificate %s and key %s: %s", c->tls_cert, c->tls_key, gnutls_strerror(rc));
		return pt_hint(err, "both are PEM files; the certificate's file starts with the server's own, then its chain");
	}
	return PT_OK;
}

static void size_table(struct pt_http_server *s)
{
	struct rlimit files = { 1024, 1024 };
	unsigned n = s->conf.max_connections;

	(void)getrlimit(RLIMIT_NOFILE, &files);
	if (!n)
		n = files.rlim_cur > MOST_CONNECTIONS  ? MOST_CONNECTIONS
		    : files.rlim_cur > 2 * SPARE_FILES ? (unsigned)files.rlim_cur - SPARE_FILES
						       : SPARE_FILES;
	if (n < s->conf.threads)
		n = s->conf.threads;
	s->n_slots = n;
}

static int start_mhd(struct pt_http_server *s, const char *cert, const char *key, struct pt_err *err)
{
	unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | (cert ? MHD_USE_TLS : 0);
	struct MHD_OptionItem opt[12] = {
		{ MHD_OPTION_LISTEN_SOCKET, s->listen_fd, NULL },
		{ MHD_OPTION_CONNECTION_MEMORY_LIMIT, PT_HTTP_POOL, NULL },
		{ MHD_OPTION_CONNECTION_LIMIT, (intptr_t)s->n_slots, NULL },
		{ MHD_OPTION_CONNECTION_TIMEOUT, (intptr_t)s->conf.idle_timeout_s, NULL },
		{ MHD_OPTION_THREAD_STACK_SIZE, STACK, NULL },
	};
	size_t n = 5;

#if MHD_VERSION >= 0x00097601
	opt[n++] = (struct MHD_OptionItem) { MHD_OPTION_CLIENT_DISCIPLINE_LVL, 1, NULL };
#endif /* before, http_strict.c does more than MHD's option, and with our error document */
	if (s->conf.threads > 1)
		opt[n++] = (struct MHD_OptionItem) { MHD_OPTION_THREAD_POOL_SIZE, (intptr_t)s->conf.threads, NULL };
	if (cert) {
		opt[n++] = (struct MHD_OptionItem) { MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)cert };
		opt[n++] = (struct MHD_OptionItem) { MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)key };
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
	pt_auto_buf cert = PT_BUF_INIT(PEM_MAX), key = PT_BUF_INIT(PEM_MAX);
	int rc = tls_files(conf, &cert, &key, err);

	if (rc < 0)
		return rc;
	if (conf->threads < 1 || conf->threads > 64)
		return pt_fail(err, PT_E_INVALID, "%u threads: 1 to 64 are possible", conf->threads);
	if (posix_memalign((void **)&s, __alignof__(struct pt_http_server), sizeof(*s)))
		return pt_fail_oom(err);
	memset(s, 0, sizeof(*s));
	s->conf = *conf;
	s->listen_fd = s->epoll = s->wake = -1;
	pthread_mutex_init(&s->slot_lock, NULL);
	for (size_t i = 0; i < PT_HTTP_LOCKS; i++) {
		pthread_mutex_init(&s->locks[i].m, NULL);
		pthread_cond_init(&s->locks[i].gone_done, NULL);
	}
	size_table(s);
	s->slots = calloc(s->n_slots, sizeof(*s->slots));
	s->free_slots = calloc(s->n_slots, sizeof(*s->free_slots));
	rc = s->slots && s->free_slots ? PT_OK : pt_fail_oom(err);
	rc = rc < 0 ? rc : pt_http_routes_new(&s->routes, conf->routes, conf->n_routes, err);
	rc = rc < 0 ? rc : listen_on(s, err);
	rc = rc < 0 ? rc : pt_http_watch_start(s, err);
	rc = rc < 0 ? rc : start_mhd(s, cert.len ? cert.p : NULL, key.p, err);
	if (key.cap)
		explicit_bzero(key.p, key.cap);
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

void pt_http_server_stats(const struct pt_http_server *s, struct pt_http_stats *ret)
{
	unsigned held = atomic_load(&s->held), open = atomic_load(&s->open);

	*ret = (struct pt_http_stats) { .connections = atomic_load(&s->connections),
					.active = open > held ? open - held : 0,
					.held = held };
}

void pt_http_server_quiesce(struct pt_http_server *s)
{
	if (atomic_exchange(&s->quiet, true))
		return;
	(void)MHD_quiesce_daemon(s->mhd);        /* gives back our listen_fd, which we close when the threads have ended */
	(void)shutdown(s->listen_fd, SHUT_RDWR); /* the kernel refuses new connections at once */
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
	for (size_t i = 0; i < PT_HTTP_LOCKS; i++) {
		pthread_mutex_destroy(&s->locks[i].m);
		pthread_cond_destroy(&s->locks[i].gone_done);
	}
	pthread_mutex_destroy(&s->slot_lock);
	free(s->slots);
	free(s->free_slots);
	free(s);
}
