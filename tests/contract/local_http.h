/* A small HTTP server (and proxy) on loopback for tests of clients, on a thread of its own: answers by path, remembers the last
 * request, can hang.  Include after tap.h. */
#ifndef PT_TESTS_LOCAL_HTTP_H
#define PT_TESTS_LOCAL_HTTP_H
#include "base/buf.h"
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>

struct local_http {
	int fd;
	unsigned port;
	pthread_t thread;
	pthread_mutex_t lock;
	char last[8192]; /* head and body of the newest request */
	int requests;
	int held[16], n_held; /* connections that get no answer */
};

/* A listening socket on a free port of 127.0.0.1. */
static int local_listen(unsigned *ret_port, int backlog)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	pt_assert(fd >= 0 && bind(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 && listen(fd, backlog) == 0);
	pt_assert(getsockname(fd, (struct sockaddr *)&sa, &len) == 0);
	*ret_port = ntohs(sa.sin_port);
	return fd;
}

static void local_send(int fd, const void *data, size_t n)
{
	const char *p = data;
	ssize_t k;

	while (n && (k = send(fd, p, n, MSG_NOSIGNAL)) > 0) {
		p += k;
		n -= (size_t)k;
	}
}

static void local_reply(int fd, const char *status, const char *headers, const void *body, size_t n)
{
	char head[2048];

	snprintf(head, sizeof(head), "HTTP/1.1 %s\r\n%sContent-Length: %zu\r\nConnection: close\r\n\r\n", status, headers, n);
	local_send(fd, head, strlen(head));
	local_send(fd, body, n);
}

static void local_answer(struct local_http *s, int fd, const char *target, const char *request)
{
	static char big[3 << 20];
	char headers[1024];
	const char *to = strstr(target, "?to=");

	if (strncmp(target, "http://", 7) == 0) {
		local_reply(fd, "200 OK", "Content-Type: text/plain\r\n", "by proxy", 8);
	} else if (strcmp(target, "/json") == 0) {
		local_reply(fd, "200 OK", "Content-Type: application/json\r\n", "{\"a\":[1,2.5,null,\"\\u00e9\"]}", 27);
	} else if (strcmp(target, "/echo") == 0) {
		local_reply(fd, "200 OK", "Content-Type: text/plain\r\n", request, strlen(request));
	} else if (strcmp(target, "/missing") == 0) {
		local_reply(fd, "404 Not Found", "Content-Type: text/html\r\n", "<h1>no</h1>", 11);
	} else if (strcmp(target, "/binary") == 0) {
		local_reply(fd, "200 OK", "", "\xff\x00\x01", 3);
	} else if (strcmp(target, "/many") == 0) {
		local_reply(fd, "200 OK", "X-A: 1\r\nx-a: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n", "ok", 2);
	} else if (strncmp(target, "/big", 4) == 0) {
		memset(big, strcmp(target, "/big-control") == 0 ? 1 : 'x', sizeof(big));
		local_reply(fd, strcmp(target, "/big-error") == 0 ? "500 Oh" : "200 OK", "Content-Type: text/plain\r\n", big,
			    sizeof(big));
	} else if (to) {
		snprintf(headers, sizeof(headers), "Location: %s\r\n", to + 4);
		local_reply(fd, strncmp(target, "/307", 4) == 0 ? "307 Temporary Redirect" : "302 Found", headers, "moved", 5);
	} else if (strcmp(target, "/loop") == 0) {
		local_reply(fd, "302 Found", "Location: /loop\r\n", "", 0);
	} else {
		local_reply(fd, "200 OK", "Content-Type: text/plain\r\n", "hello", 5);
	}
}

static void local_serve(struct local_http *s, int fd)
{
	char request[sizeof(s->last)] = "", target[4096] = "";
	const char *end = NULL, *length;
	size_t n = 0, want = 0;
	ssize_t k;

	while ((!end || n < want) && n + 1 < sizeof(request) && (k = recv(fd, request + n, sizeof(request) - 1 - n, 0)) > 0) {
		n += (size_t)k;
		request[n] = '\0';
		if (!end && (end = strstr(request, "\r\n\r\n"))) {
			length = strcasestr(request, "\r\nContent-Length:");
			want = (size_t)(end + 4 - request) + (length && length < end ? strtoul(length + 17, NULL, 10) : 0);
		}
	}
	sscanf(request, "%*s %4095s", target);
	pthread_mutex_lock(&s->lock);
	memcpy(s->last, request, sizeof(request));
	s->requests++;
	pthread_mutex_unlock(&s->lock);
	if (strcmp(target, "/hang") == 0 && s->n_held < (int)PT_COUNT(s->held)) {
		s->held[s->n_held++] = fd;
		return;
	}
	if (strncmp(request, "CONNECT", 7) == 0)
		local_reply(fd, "403 Forbidden", "", "", 0);
	else
		local_answer(s, fd, target, request);
	shutdown(fd, SHUT_WR);
	while (recv(fd, request, sizeof(request), 0) > 0)
		; /* closing with unread bytes would reset the connection before the client has read */
	close(fd);
}

static void *local_main(void *arg)
{
	struct local_http *s = arg;
	int fd;

	while ((fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
		local_serve(s, fd);
	return NULL;
}

static PT_UNUSED void local_http_start(struct local_http *s)
{
	*s = (struct local_http) { .lock = PTHREAD_MUTEX_INITIALIZER };
	s->fd = local_listen(&s->port, 16);
	pt_assert(pthread_create(&s->thread, NULL, local_main, s) == 0);
}

static PT_UNUSED void local_http_stop(struct local_http *s)
{
	shutdown(s->fd, SHUT_RDWR);
	pthread_join(s->thread, NULL);
	close(s->fd);
	for (int i = 0; i < s->n_held; i++)
		close(s->held[i]);
}

/* Does the newest request hold text? */
static PT_UNUSED bool local_got(struct local_http *s, const char *text)
{
	bool yes;

	pthread_mutex_lock(&s->lock);
	yes = strstr(s->last, text) != NULL;
	pthread_mutex_unlock(&s->lock);
	return yes;
}

static PT_UNUSED int local_requests(struct local_http *s)
{
	int n;

	pthread_mutex_lock(&s->lock);
	n = s->requests;
	pthread_mutex_unlock(&s->lock);
	return n;
}
#endif
