/* What the machine itself can do, to hold our numbers against: fdatasync of an appended KiB, and a bare HTTP round trip.
 *
 *   limits DIR PORT     DIR: where to write; PORT: a gateway on loopback (GET /livez) */
#include "base/buf.h"
#include "base/clock.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>

enum { ROUNDS = 2000 };
static int64_t t[ROUNDS];

static void die(const char *what)
{
	fprintf(stderr, "limits: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

static void print(const char *name, const char *sep)
{
	qsort(t, ROUNDS, sizeof(*t), by_value);
	printf("%s\"%s_p50_us\":%.1f,\"%s_p99_us\":%.1f", sep, name, (double)t[ROUNDS / 2] / 1e3, name,
	       (double)t[ROUNDS * 99 / 100] / 1e3);
}

int main(int argc, char **argv)
{
	static const char req[] = "GET /livez HTTP/1.1\r\nHost: bench\r\n\r\n";
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	char path[4096], block[4096] = { 0 };
	int fd, one = 1;

	if (argc != 3)
		return 64;
	snprintf(path, sizeof(path), "%s/limits.tmp", argv[1]);
	if ((fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) < 0)
		die(path);
	for (int i = 0; i < ROUNDS; i++) {
		int64_t start = pt_mono_ns();

		if (write(fd, block, 1024) != 1024 || fdatasync(fd) < 0)
			die("fdatasync");
		t[i] = pt_mono_ns() - start;
	}
	close(fd);
	unlink(path);
	print("fdatasync", "{");

	a.sin_port = htons((uint16_t)strtol(argv[2], NULL, 10));
	if ((fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0 || connect(fd, (void *)&a, sizeof(a)) < 0)
		die("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	for (int i = 0; i < ROUNDS; i++) {
		int64_t start = pt_mono_ns();
		size_t got = 0;

		if (write(fd, req, sizeof(req) - 1) < 0)
			die("write");
		do {
			ssize_t n = read(fd, block + got, sizeof(block) - 1 - got);

			if (n <= 0)
				die("read");
			got += (size_t)n;
			block[got] = '\0';
		} while (!strstr(block, "{\"ok\": true}"));
		t[i] = pt_mono_ns() - start;
	}
	print("http_round_trip", ",");
	puts("}");
	return 0;
}
