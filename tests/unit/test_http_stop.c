/* The end of the HTTP server: what may not start, what is answered before it goes, and that it ends while its threads are busy. */
#include "http_serve.h"
#include <sys/epoll.h>
#include <sys/syscall.h>

/* In place of libc's: to take a descriptor out of a set takes a while, so that two threads that do it to the same one meet. */
int epoll_ctl(int set, int op, int fd, struct epoll_event *ev)
{
	if (op == EPOLL_CTL_DEL)
		nap_ms(2);
	return (int)syscall(SYS_epoll_ctl, set, op, fd, ev);
}

static void *late_reply(void *arg)
{
	nap_ms(150);
	pt_http_reply(arg, 200, "text/plain", "last words", 10);
	return NULL;
}

static void test_stop(void)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	int fd, fd2, before;
	int64_t from;
	struct pt_err err = { 0 };
	char addr[40];
	struct pt_http_server_conf conf = { .listen = addr, .threads = 1, .routes = routes, .n_routes = PT_COUNT(routes) };
	struct pt_http_server *other;
	struct pt_http_route twice[] = { routes[0], routes[0] };

	start(2, 10, NULL);
	snprintf(addr, sizeof(addr), "127.0.0.1:%u", port);
	is_int(pt_http_server_start(&other, &conf, &err), PT_E_UNAVAILABLE, "the port is taken");
	ok(strstr(err.hint, "ss -ltnp"), "the hint tells how to find who has it");
	conf.listen = "no-such-host.invalid:80";
	is_int(pt_http_server_start(&other, &conf, &err), PT_E_INVALID, "bad address");
	conf.listen = "127.0.0.1";
	is_int(pt_http_server_start(&other, &conf, &err), PT_E_INVALID, "no port");
	conf.listen = "127.0.0.1:0";
	conf.tls_cert = conf.tls_key = "/dev/null";
	is_int(pt_http_server_start(&other, &conf, &err), PT_E_INVALID, "bad TLS files");
	conf.tls_cert = conf.tls_key = NULL;
	conf.routes = twice;
	conf.n_routes = 2;
	is_int(pt_http_server_start(&other, &conf, &err), PT_E_INVALID, "a route that stands twice");
	/* a holder that answers in time */
	atomic_store(&held_req, NULL);
	fd = dial(port);
	fd2 = dial(port);
	(void)puts_fd(fd2, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
	(void)take(fd2, &b, "hello", 2000);
	(void)puts_fd(fd, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	wait_until(2000, atomic_load(&held_req) != NULL);
	pt_http_server_quiesce(srv);
	ok(wait_until(2000, dial(port) < 0), "no new connections after quiesce");
	pt_buf_clear(&b);
	(void)puts_fd(fd2, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
	ok(take(fd2, &b, NULL, 2000) == 1 && strstr(b.p, "Connection: close\r\n"), "an open connection is answered and closed");
	run_detached(late_reply, atomic_load(&held_req));
	from = pt_mono_ms();
	stop();
	ok(pt_mono_ms() - from < 2000, "stop waits no longer than it must");
	pt_buf_clear(&b);
	take(fd, &b, NULL, 2000);
	ok(strstr(b.p, "last words"), "and the held request got its answer");
	close(fd);
	close(fd2);
	/* a holder that does not answer */
	start(2, 10, NULL);
	before = atomic_load(&gone_count);
	fd = dial(port);
	atomic_store(&held_req, NULL);
	(void)puts_fd(fd, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
	wait_until(2000, atomic_load(&held_req) != NULL);
	pt_http_server_stop(srv, 100);
	is_int(atomic_load(&gone_count), before + 1, "a holder that is late is told");
	pt_buf_clear(&b);
	take(fd, &b, NULL, 2000);
	ok(strncmp(b.p, "HTTP/1.1", 8) == 0, "and the client is answered");
	close(fd);
	pt_http_server_stop(NULL, 0);
	/* both families by one address */
	conf = (struct pt_http_server_conf) { .listen = "[::]:0", .threads = 1, .routes = routes, .n_routes = PT_COUNT(routes) };
	if (pt_http_server_start(&srv, &conf, &err) == 0) {
		port = pt_http_server_port(srv);
		ask("GET /echo/v4 HTTP/1.1\r\nHost: a\r\n\r\n", &b, "expected");
		ok(strstr(b.p, "peer=127.0.0.1 "), "IPv4 over [::]");
		pt_http_server_stop(srv, 1000);
	} else {
		ok(1, "IPv4 over [::] # SKIP no IPv6 here");
	}
}

struct asker {
	pthread_t thread;
	int fd;
	bool bad;
};

static _Atomic bool enough;

static void *ask_on(void *arg)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	struct asker *a = arg;

	while (!atomic_load(&enough) && !a->bad) {
		pt_buf_clear(&b);
		a->bad = !puts_fd(a->fd, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n") || take(a->fd, &b, "hello\n", 5000) != 0;
		if (strstr(b.p, "Connection: close"))
			break;
	}
	close(a->fd);
	return NULL;
}

/* Clients ask on and on while it stops accepting. */
static void test_busy(void)
{
	enum { CLIENTS = 6, ROUNDS = 20 };
	int bad = 0, late = 0;

	for (int i = 0; i < ROUNDS; i++) {
		struct asker a[CLIENTS] = { 0 };
		int fd;

		start(4, 10, NULL);
		atomic_store(&enough, false);
		for (int k = 0; k < CLIENTS; k++) {
			a[k].fd = dial(port);
			if (pthread_create(&a[k].thread, NULL, ask_on, &a[k]))
				abort();
		}
		nap_ms(i % 5);
		pt_http_server_quiesce(srv);
		fd = dial(port);
		if (fd >= 0) {
			close(fd);
			late++;
		}
		nap_ms(5);
		atomic_store(&enough, true);
		for (int k = 0; k < CLIENTS; k++) {
			pthread_join(a[k].thread, NULL);
			bad += a[k].bad;
		}
		stop();
	}
	is_int(late, 0, "%d times: no new connection after quiesce", ROUNDS);
	is_int(bad, 0, "and no request of a connection that was there goes without its answer");
}

int main(void)
{
	test_stop();
	test_busy();
	return tap_end();
}
