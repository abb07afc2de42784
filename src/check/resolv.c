#include "check/resolv.h"
#include "base/clock.h"
#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

enum { LABEL_MOST = 63, HEADER = 12 };

static void options(const char *p, size_t n, struct pt_resolv *r)
{
	const char *at = memmem(p, n, "ndots:", 6);

	if (at)
		r->ndots = (unsigned)strtoul(at + 6, NULL, 10);
}

static unsigned words(const char *p, size_t n)
{
	unsigned k = 0;

	for (size_t i = 0; i < n;) {
		while (i < n && (p[i] == ' ' || p[i] == '\t'))
			i++;
		k += i < n;
		while (i < n && p[i] != ' ' && p[i] != '\t')
			i++;
	}
	return k;
}

void pt_resolv_parse(const char *text, struct pt_resolv *r)
{
	*r = (struct pt_resolv) { .ndots = 1 };
	for (const char *line = text; *line;) {
		size_t n = strcspn(line, "\n"), key = strcspn(line, " \t\n");
		const char *value = line + key + strspn(line + key, " \t");
		size_t left = n - (size_t)(value - line), one = strcspn(value, " \t\n;#");

		if (key == 10 && memcmp(line, "nameserver", 10) == 0 && r->n_servers < PT_RESOLV_SERVERS && one && one < 64)
			snprintf(r->servers[r->n_servers++], 64, "%.*s", (int)one, value);
		else if ((key == 6 && memcmp(line, "search", 6) == 0) || (key == 6 && memcmp(line, "domain", 6) == 0))
			r->n_search = words(value, left);
		else if (key == 7 && memcmp(line, "options", 7) == 0)
			options(value, left, r);
		line += n + (line[n] == '\n');
	}
}

size_t pt_resolv_question(const char *name, unsigned short id, unsigned char out[static 512])
{
	unsigned char *q = out + HEADER;

	memset(out, 0, HEADER);
	out[0] = (unsigned char)(id >> 8);
	out[1] = (unsigned char)id;
	out[2] = 1; /* recursion desired */
	out[5] = 1; /* one question */
	while (*name) {
		size_t n = strcspn(name, ".");

		if (!n || n > LABEL_MOST || (size_t)(q - out) + n + 6 > 300)
			return 0;
		*q++ = (unsigned char)n;
		memcpy(q, name, n);
		q += n;
		name += n + (name[n] == '.');
	}
	memcpy(q, "\0\0\1\0\1", 5); /* the root; type A, class IN */
	return (size_t)(q + 5 - out);
}

static int open_to(const char *server, const unsigned char *question, size_t n)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_DGRAM }, *ai = NULL;
	int fd = -1;

	if (getaddrinfo(server, "53", &hints, &ai) != 0)
		return -1;
	fd = socket(ai->ai_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && (connect(fd, ai->ai_addr, ai->ai_addrlen) < 0 || send(fd, question, n, MSG_NOSIGNAL) != (ssize_t)n)) {
		close(fd);
		fd = -1;
	}
	freeaddrinfo(ai);
	return fd;
}

void pt_resolv_ask(const struct pt_resolv *r, const char *name, int timeout_ms,
		   enum pt_resolv_answer ret[static PT_RESOLV_SERVERS])
{
	unsigned char question[512], answer[512];
	size_t n = pt_resolv_question(name, (unsigned short)pt_mono_ns(), question);
	struct pollfd fds[PT_RESOLV_SERVERS];
	int64_t end = pt_mono_ms() + timeout_ms, left;
	unsigned open = 0;

	for (unsigned i = 0; i < r->n_servers; i++) {
		fds[i] = (struct pollfd) { .fd = n ? open_to(r->servers[i], question, n) : -1, .events = POLLIN };
		ret[i] = fds[i].fd < 0 ? PT_RESOLV_REFUSED : PT_RESOLV_SILENT;
		open += fds[i].fd >= 0;
	}
	while (open && (left = end - pt_mono_ms()) > 0 && poll(fds, r->n_servers, (int)left) > 0)
		for (unsigned i = 0; i < r->n_servers; i++) {
			ssize_t got;

			if (fds[i].fd < 0 || !fds[i].revents)
				continue;
			got = recv(fds[i].fd, answer, sizeof(answer), 0);
			if (got >= HEADER && memcmp(answer, question, 2) != 0)
				continue;
			ret[i] = got >= HEADER ? PT_RESOLV_ANSWERED : PT_RESOLV_REFUSED;
			close(fds[i].fd);
			fds[i].fd = -1;
			open--;
		}
	for (unsigned i = 0; i < r->n_servers; i++)
		pt_closep(&fds[i].fd);
}
