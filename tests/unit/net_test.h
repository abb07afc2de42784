/* Loopback helpers for the tests of src/net: raw sockets with deadlines, temp folders, child programs. */
#ifndef PT_NET_TEST_H
#define PT_NET_TEST_H
#include "base/buf.h"
#include "base/clock.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

static inline void nap_ms(long ms)
{
	nanosleep(&(struct timespec) { ms / 1000, ms % 1000 * 1000000 }, NULL);
}

/* Wait until the expression is true; its last value. */
#define wait_until(ms, cond)                                    \
	({                                                      \
		int64_t end_ = pt_mono_ms() + (ms);             \
		bool yes_;                                      \
		while (!(yes_ = (cond)) && pt_mono_ms() < end_) \
			nap_ms(2);                              \
		yes_;                                           \
	})

static inline PT_UNUSED int dial(unsigned port)
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_port = htons((uint16_t)port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0 && connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static inline PT_UNUSED bool put(int fd, const void *p, size_t n)
{
	const char *s = p;

	while (n) {
		ssize_t w = send(fd, s, n, MSG_NOSIGNAL);

		if (w <= 0)
			return false;
		s += w;
		n -= (size_t)w;
	}
	return true;
}

static inline PT_UNUSED bool puts_fd(int fd, const char *s)
{
	return put(fd, s, strlen(s));
}

/* Read until the end of the stream, or until text is seen (NULL = only the end).  What came is in b.  1 = end, 0 = text seen, -1 =
 * time is over, -2 = reset. */
static inline PT_UNUSED int take(int fd, struct pt_buf *b, const char *text, int64_t ms)
{
	int64_t end = pt_mono_ms() + ms;
	char tmp[16384];

	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		int64_t left = end - pt_mono_ms();
		ssize_t n;

		if (text && strstr(b->p, text))
			return 0;
		if (left <= 0 || poll(&p, 1, (int)left) <= 0)
			return -1;
		n = recv(fd, tmp, sizeof(tmp), 0);
		if (n <= 0)
			return n < 0 ? -2 : 1;
		pt_buf_add(b, tmp, (size_t)n);
	}
}

/* A loopback port that is free now. */
static inline PT_UNUSED unsigned free_port(void)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, n) < 0 || getsockname(fd, (struct sockaddr *)&sa, &n) < 0)
		return 0;
	close(fd);
	return ntohs(sa.sin_port);
}

static inline PT_UNUSED const char *temp_dir(void)
{
	static char dir[] = "/tmp/pt-test-XXXXXX";
	static bool made;

	if (!made && !mkdtemp(dir))
		abort();
	made = true;
	return dir;
}

static inline PT_UNUSED int sh(const char *fmt, ...) PT_PRINTF(1, 2);
static inline PT_UNUSED int sh(const char *fmt, ...)
{
	char cmd[4000];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	return system(cmd);
}

/* A CA and a certificate for localhost and 127.0.0.1 in dir: ca.pem, cert.pem, key.pem. */
static inline PT_UNUSED bool make_certs(const char *dir)
{
	return sh("cd %s && { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem "
		  "-days 2 "
		  "-subj '/O=Postern Test/CN=Test Inspecting CA' -addext basicConstraints=critical,CA:TRUE && "
		  "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out req.pem -subj "
		  "'/CN=localhost' && "
		  "printf 'subjectAltName=DNS:localhost,IP:127.0.0.1' > ext && "
		  "openssl x509 -req -in req.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out cert.pem; } "
		  ">openssl.log 2>&1",
		  dir) == 0;
}

static inline PT_UNUSED long rss_kib(void)
{
	long pages = 0, all = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (f && fscanf(f, "%ld %ld", &all, &pages) != 2)
		pages = 0;
	if (f)
		fclose(f);
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}
#endif
