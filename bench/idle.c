/* Load generator of idle instances: one process holds up to 19,000 links to a gateway, each the exchange of an instance of its own, over
 * loopback, in one thread.
 *
 *   idle PORT TOKEN KEYS INSTANCES
 *
 * KEYS is a file of lines "AGENT KEY_ID KEY_SECRET"; instance i takes line i modulo their number.  An instance does what the link of a real
 * agent does (src/agent/link.c): after a failure it backs off with full jitter and asks with wait_ms 0, an answer makes the link
 * count as up, the next exchange follows at once.  Its connection comes from one of the addresses 127.0.1.1 to .16, so that 16 times
 * the ephemeral ports are there.
 *
 * Reads commands from stdin, answers each with one JSON object on stdout; the links are served meanwhile:
 *   up SECONDS      wait until all links are up, on connections made since the start or the last `mark` (not longer)
 *   mark            restart the clock and the counters: the gateway is about to be restarted
 *   dispatch N      N operations (type `health`), one after another, each to a random agent: p50/p99 from the submit's send
 *   begin N         N operations that stay under way: leased, listed as held, no result yet
 *   finish          deliver their results
 * The end of stdin ends it. */
#include "base/clock.h"
#include "base/id.h"
#include "net/backoff.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { WAIT_MS = 40000, GRACE_MS = 15000, CONNECT_MS = 10000, SLOTS = 18, ADDRESSES = 16, STEP_MS = 10, LEASE_WAIT_MS = 60000 };

struct agent {
	char name[80], basic[400];
};
struct held {
	char operation[PT_ID_SIZE];
	int attempt;
	struct instance *in;
};
enum phase { DOWN, DIALING, ASKING };
struct instance {
	char id[PT_ID_SIZE];
	struct agent *agent;
	int fd;
	enum phase phase;
	bool up, counted;
	int64_t dialed_ns;
	int64_t due; /* DOWN: dial then; else: give up then */
	struct pt_backoff backoff;
	struct pt_buf got;
};
static struct {
	int port, ep, next_address;
	const char *token;
	struct agent *agents;
	size_t n_agents, n;
	struct instance *in;
	size_t up;
	int64_t mark_ns, up_ns; /* up_ns: when the last link came up */
	long answers, failures, refused, broken;
	struct held *held;
	size_t n_held;
	bool keep;          /* leases stay under way */
	struct held leased; /* the newest lease */
	int64_t leased_ns;
	struct pt_buf commands;
} L;

static void die(const char *what)
{
	fprintf(stderr, "idle: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct sockaddr_in loopback(uint32_t host, int port)
{
	return (struct sockaddr_in) { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(host) };
}

/* --- the links --- */

static void hang_up(struct instance *in)
{
	if (in->fd >= 0)
		close(in->fd);
	in->fd = -1;
	pt_buf_release(&in->got);
	in->phase = DOWN;
}

static void set_up(struct instance *in, bool up)
{
	bool counts = up && in->dialed_ns >= L.mark_ns;

	if (counts != in->counted) {
		L.up += counts ? 1 : (size_t)-1;
		L.up_ns = pt_mono_ns();
	}
	in->counted = counts;
	in->up = up;
}

static void failed(struct instance *in, int64_t at_least_ms)
{
	L.failures++;
	hang_up(in);
	set_up(in, false);
	in->due = pt_mono_ms() + pt_backoff_fail(&in->backoff, at_least_ms);
}

static void dial(struct instance *in)
{
	struct sockaddr_in from = loopback(0x7f000101 + (uint32_t)(L.next_address++ % ADDRESSES), 0),
			   to = loopback(INADDR_LOOPBACK, L.port);
	struct epoll_event ev = { .events = EPOLLOUT, .data.ptr = in };
	const int one = 1;

	in->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (in->fd < 0)
		die("socket");
	(void)setsockopt(in->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	(void)setsockopt(in->fd, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, &one, sizeof(one));
	if (bind(in->fd, (void *)&from, sizeof(from)) < 0)
		die("bind");
	in->phase = DIALING;
	in->dialed_ns = pt_mono_ns();
	in->due = pt_mono_ms() + CONNECT_MS;
	if (connect(in->fd, (void *)&to, sizeof(to)) < 0 && errno != EINPROGRESS)
		failed(in, 0);
	else if (epoll_ctl(L.ep, EPOLL_CTL_ADD, in->fd, &ev) < 0)
		die("epoll_ctl");
}

static void ask(struct instance *in)
{
	static const char types[] =
		"[\"query\",\"network.tcp\",\"network.dns\",\"network.tls\",\"network.http\",\"http.request\","
		"\"health\",\"logs\",\"metrics\"]";
	pt_auto_buf body = PT_BUF_INIT(1 << 20), out = PT_BUF_INIT(1 << 20);
	const char *sep = "";

	pt_buf_fmt(&body, "{\"instance\":\"%s\",\"version\":\"0.1.0\",\"hostname\":\"warehouse-agent-5d8f7c9b6d-x2x4z\",",
		   in->id);
	pt_buf_fmt(&body, "\"slots\":%d,\"wait_ms\":%d,\"types\":%s,\"holding\":[", SLOTS, in->up ? WAIT_MS : 0, types);
	for (size_t i = 0; i < L.n_held; i++)
		if (L.held[i].in == in) {
			pt_buf_fmt(&body, "%s{\"operation\":\"%s\",\"attempt\":%d,\"state\":\"running\"}", sep,
				   L.held[i].operation, L.held[i].attempt);
			sep = ",";
		}
	pt_buf_str(&body, "]}");
	pt_buf_fmt(&out, "POST /agent/v1/exchange HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Basic %s\r\n", L.port,
		   in->agent->basic);
	pt_buf_fmt(&out, "User-Agent: postern/0.1.0\r\nContent-Type: application/json\r\nAccept: application/json\r\n");
	pt_buf_fmt(&out, "Content-Length: %zu\r\n\r\n%s", body.len, body.p);
	in->phase = ASKING;
	in->due = pt_mono_ms() + (in->up ? WAIT_MS : 0) + GRACE_MS;
	if (write(in->fd, out.p, out.len) != (ssize_t)out.len)
		failed(in, 0);
}

static void take_leases(struct instance *in, const char *body)
{
	const char *p = strstr(body, "\"leases\":["), *end = p ? strstr(p, "\"cancels\"") : NULL;

	while (p && (p = strstr(p, "\"operation\":\"")) && (!end || p < end)) {
		struct held h = { .in = in };

		if (sscanf(p, "\"operation\":\"%39[a-z0-9_]\",\"attempt\":%d", h.operation, &h.attempt) != 2)
			die("odd lease");
		p++;
		L.leased = h;
		L.leased_ns = pt_mono_ns();
		if (L.keep) {
			L.held = realloc(L.held, (L.n_held + 1) * sizeof(*L.held));
			if (!L.held)
				die("memory");
			L.held[L.n_held++] = h;
		}
	}
}

static const char *header(const char *head, const char *end, const char *name)
{
	const char *h = strcasestr(head, name);

	return h && h < end ? h + strlen(name) : NULL;
}

/* An answer is whole when this returns true; it is taken out of the buffer, and status and body are those of the answer. */
static bool whole(struct pt_buf *got, int *ret_status, bool *ret_close, int64_t *ret_after_ms, struct pt_buf *body)
{
	const char *end = strstr(got->p, "\r\n\r\n"), *v;
	size_t head, len;

	if (!end)
		return false;
	head = (size_t)(end + 4 - got->p);
	v = header(got->p, end, "\r\nContent-Length:");
	len = v ? strtoul(v, NULL, 10) : 0;
	if (got->len < head + len)
		return false;
	if (sscanf(got->p, "HTTP/1.1 %d", ret_status) != 1)
		die("odd answer");
	*ret_close = header(got->p, end, "\r\nConnection: close") != NULL;
	v = header(got->p, end, "\r\nRetry-After:");
	*ret_after_ms = v ? strtol(v, NULL, 10) * 1000 : 0;
	pt_buf_clear(body);
	pt_buf_add(body, got->p + head, len);
	pt_buf_clear(got);
	return true;
}

static void answered(struct instance *in)
{
	pt_auto_buf body = PT_BUF_INIT(64 << 20);
	int64_t after_ms = 0;
	bool closes = false;
	int status = 0;

	if (!whole(&in->got, &status, &closes, &after_ms, &body))
		return;
	pt_buf_release(&in->got);
	L.answers++;
	if (status != 200) {
		if (L.refused++ < 3)
			fprintf(stderr, "idle: status %d: %.200s\n", status, body.p);
		failed(in, after_ms);
		return;
	}
	take_leases(in, body.p);
	pt_backoff_ok(&in->backoff);
	set_up(in, true);
	if (closes) {
		hang_up(in);
		in->due = 0;
	} else {
		ask(in);
	}
}

static void ready(struct instance *in)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = in };
	char chunk[65536];
	socklen_t size = sizeof(int);
	int bad = 0;
	ssize_t n;

	if (in->phase == DIALING) {
		if (getsockopt(in->fd, SOL_SOCKET, SO_ERROR, &bad, &size) < 0 || bad) {
			failed(in, 0);
		} else {
			(void)epoll_ctl(L.ep, EPOLL_CTL_MOD, in->fd, &ev);
			ask(in);
		}
		return;
	}
	n = read(in->fd, chunk, sizeof(chunk));
	if (n < 0 && errno == EAGAIN)
		return;
	if (n > 0) {
		pt_buf_add(&in->got, chunk, (size_t)n);
		answered(in);
		return;
	}
	L.broken++;
	if (in->up) { /* a kept connection that ended: libcurl tries once more at once, on a new one */
		hang_up(in);
		in->due = 0;
		set_up(in, false);
	} else {
		failed(in, 0);
	}
}

/* Serve the links for a moment. */
static void step(int most_ms)
{
	static int64_t next;
	struct epoll_event ev[256];
	int n = epoll_wait(L.ep, ev, PT_COUNT(ev), most_ms);
	int64_t now;

	for (int i = 0; i < n; i++)
		if (ev[i].data.ptr)
			ready(ev[i].data.ptr);
	now = pt_mono_ms();
	if (now < next)
		return;
	next = now + STEP_MS;
	for (size_t i = 0; i < L.n; i++) {
		if (L.in[i].due > now)
			continue;
		if (L.in[i].phase == DOWN)
			dial(&L.in[i]);
		else
			failed(&L.in[i], 0);
	}
}

/* --- the client's side, and results: one connection each, links are served while the answer is awaited --- */

static int request_on(int *kept, const char *method, const char *path, const char *auth, const struct pt_buf *body,
		      struct pt_buf *answer)
{
	int fd = *kept;
	struct sockaddr_in to = loopback(INADDR_LOOPBACK, L.port);
	pt_auto_buf out = PT_BUF_INIT(1 << 20), got = PT_BUF_INIT(64 << 20);
	int64_t after, end = pt_mono_ms() + LEASE_WAIT_MS;
	bool closes = false;
	int status = 0;

	pt_buf_fmt(&out, "%s %s HTTP/1.1\r\nHost: bench\r\nAuthorization: %s\r\n", method, path, auth);
	pt_buf_fmt(&out, "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", body->len, body->p);
	if (fd < 0) {
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0 || connect(fd, (void *)&to, sizeof(to)) < 0)
			die("connect");
		(void)fcntl(fd, F_SETFL, O_NONBLOCK);
		if (epoll_ctl(L.ep, EPOLL_CTL_ADD, fd, &(struct epoll_event) { .events = EPOLLIN | EPOLLET }) < 0)
			die("epoll_ctl");
	}
	if (write(fd, out.p, out.len) != (ssize_t)out.len)
		closes = true;
	while (!closes && pt_mono_ms() < end) {
		char chunk[65536];
		ssize_t n = read(fd, chunk, sizeof(chunk));

		if (n > 0)
			pt_buf_add(&got, chunk, (size_t)n);
		else if (n == 0 || errno != EAGAIN)
			closes = true;
		if (whole(&got, &status, &closes, &after, answer))
			break;
		if (!closes)
			step(STEP_MS);
	}
	if (closes || !status) {
		close(fd);
		fd = -1;
	}
	*kept = fd;
	return status;
}

static int request(const char *method, const char *path, const char *auth, const struct pt_buf *body, struct pt_buf *answer)
{
	static int fd = -1;
	bool kept = fd >= 0;
	int status = request_on(&fd, method, path, auth, body, answer);

	return status || !kept ? status : request_on(&fd, method, path, auth, body, answer); /* the gateway was restarted since */
}

static bool deliver(const struct held *h)
{
	pt_auto_buf b = PT_BUF_INIT(4096), answer = PT_BUF_INIT(1 << 20);
	char path[160], auth[420];

	pt_buf_fmt(&b, "{\"instance\":\"%s\",\"status\":\"succeeded\",\"document\":{\"ok\":true},", h->in->id);
	pt_buf_fmt(&b, "\"started_at\":%lld,\"finished_at\":%lld}\n", (long long)pt_wall_ms(), (long long)pt_wall_ms());
	snprintf(path, sizeof(path), "/agent/v1/operations/%s/attempts/%d/result", h->operation, h->attempt);
	snprintf(auth, sizeof(auth), "Basic %s", h->in->agent->basic);
	return request("PUT", path, auth, &b, &answer) == 200;
}

/* Submit one, and wait until an instance has it.  False: it failed. */
static bool one(int64_t *ret_accepted, int64_t *ret_leased, bool keep)
{
	pt_auto_buf b = PT_BUF_INIT(4096), answer = PT_BUF_INIT(1 << 20);
	char auth[420], id[PT_ID_SIZE];
	int64_t sent = pt_mono_ns(), end = pt_mono_ms() + LEASE_WAIT_MS;
	uint32_t r;

	pt_random(&r, sizeof(r));
	pt_buf_fmt(&b, "{\"type\":\"health\",\"agent\":\"%s\",\"input\":{}}", L.agents[r % L.n_agents].name);
	snprintf(auth, sizeof(auth), "Bearer %s", L.token);
	L.keep = keep;
	L.leased.operation[0] = '\0';
	if (request("POST", "/api/v1/operations", auth, &b, &answer) != 201 ||
	    sscanf(answer.p, "{\"id\":\"%39[a-z0-9_]", id) != 1) {
		fprintf(stderr, "idle: submit: %.200s\n", answer.p);
		return false;
	}
	*ret_accepted = pt_mono_ns() - sent;
	while (strcmp(L.leased.operation, id) != 0 && pt_mono_ms() < end)
		step(STEP_MS);
	*ret_leased = L.leased_ns - sent;
	return strcmp(L.leased.operation, id) == 0;
}

/* --- commands --- */

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

static void quantiles(const char *name, int64_t *v, size_t n)
{
	qsort(v, n, sizeof(*v), by_value);
	printf(",\"%s_p50_us\":%lld,\"%s_p99_us\":%lld", name, (long long)(n ? v[n / 2] / 1000 : -1), name,
	       (long long)(n ? v[n * 99 / 100] / 1000 : -1));
}

static void cmd_up(long seconds)
{
	int64_t end = pt_mono_ms() + seconds * 1000;

	while (L.up < L.n && pt_mono_ms() < end)
		step(STEP_MS);
	printf("{\"up\":%zu,\"instances\":%zu,\"ms\":%lld,\"answers\":%ld,\"failures\":%ld,\"refused\":%ld,\"broken\":%ld}\n",
	       L.up, L.n, (long long)((L.up_ns - L.mark_ns) / 1000000), L.answers, L.failures, L.refused, L.broken);
}

static void cmd_mark(long unused)
{
	(void)unused;
	L.mark_ns = pt_mono_ns();
	for (size_t i = 0; i < L.n; i++)
		L.in[i].counted = false;
	L.up = 0;
	L.answers = L.failures = L.refused = L.broken = 0;
	puts("{}");
}

static void cmd_dispatch(long n)
{
	int64_t *accepted = calloc((size_t)n + 1, sizeof(*accepted)), *leased = calloc((size_t)n + 1, sizeof(*leased));
	size_t good = 0;

	if (!accepted || !leased)
		die("memory");
	for (long i = 0; i < n; i++)
		if (one(&accepted[good], &leased[good], false) && deliver(&L.leased))
			good++;
	printf("{\"operations\":%ld,\"failed\":%ld", n, n - (long)good);
	quantiles("accepted", accepted, good);
	quantiles("leased", leased, good);
	puts("}");
	free(accepted);
	free(leased);
}

static void cmd_begin(long n)
{
	int64_t accepted, leased;
	long failures = 0;

	for (long i = 0; i < n; i++)
		failures += !one(&accepted, &leased, true);
	L.keep = false;
	printf("{\"held\":%zu,\"failed\":%ld}\n", L.n_held, failures);
}

static void cmd_finish(long unused)
{
	size_t good = 0;

	(void)unused;
	for (size_t i = 0; i < L.n_held; i++)
		good += deliver(&L.held[i]);
	printf("{\"finished\":%zu,\"failed\":%zu}\n", good, L.n_held - good);
	L.n_held = 0;
}

static const struct {
	const char *name;
	void (*run)(long arg);
} commands[] = {
	{ "up", cmd_up }, { "mark", cmd_mark }, { "dispatch", cmd_dispatch }, { "begin", cmd_begin }, { "finish", cmd_finish }
};

/* False: the end of stdin. */
static bool command(void)
{
	char chunk[256], *end;
	ssize_t n = read(STDIN_FILENO, chunk, sizeof(chunk));

	if (n <= 0)
		return n < 0 && errno == EAGAIN;
	pt_buf_add(&L.commands, chunk, (size_t)n);
	while ((end = memchr(L.commands.p, '\n', L.commands.len))) {
		char name[20] = "";
		long arg = 0;

		(void)sscanf(L.commands.p, "%19s %ld", name, &arg);
		for (size_t i = 0; i < PT_COUNT(commands); i++)
			if (strcmp(commands[i].name, name) == 0)
				commands[i].run(arg);
		fflush(stdout);
		n = end + 1 - L.commands.p;
		memmove(L.commands.p, end + 1, L.commands.len - (size_t)n + 1);
		L.commands.len -= (size_t)n;
	}
	return true;
}

static void read_keys(const char *path)
{
	char name[80], id[80], secret[200];
	FILE *f = fopen(path, "re");

	while (f && fscanf(f, "%79s %79s %199s", name, id, secret) == 3) {
		pt_auto_buf key = PT_BUF_INIT(400), basic = PT_BUF_INIT(400);
		struct agent *a;

		L.agents = realloc(L.agents, (L.n_agents + 1) * sizeof(*L.agents));
		if (!L.agents)
			die("memory");
		a = &L.agents[L.n_agents++];
		pt_buf_fmt(&key, "%s:%s", id, secret);
		pt_buf_base64(&basic, key.p, key.len);
		snprintf(a->name, sizeof(a->name), "%s", name);
		snprintf(a->basic, sizeof(a->basic), "%s", basic.p);
	}
	if (!L.n_agents)
		die(path);
	fclose(f);
}

int main(int argc, char **argv)
{
	struct rlimit files;

	if (argc != 5) {
		fprintf(stderr, "usage: idle PORT TOKEN KEYS INSTANCES\n");
		return 64;
	}
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	L.port = (int)strtol(argv[1], NULL, 10);
	L.token = argv[2];
	read_keys(argv[3]);
	L.n = strtoul(argv[4], NULL, 10);
	L.in = calloc(L.n + 1, sizeof(*L.in));
	L.ep = epoll_create1(EPOLL_CLOEXEC);
	L.commands = (struct pt_buf)PT_BUF_INIT(4096);
	if (!L.in || L.ep < 0)
		die("start");
	for (size_t i = 0; i < L.n; i++) {
		struct instance *in = &L.in[i];

		pt_id_new(in->id, "in");
		in->agent = &L.agents[i % L.n_agents];
		in->fd = -1;
		in->backoff = (struct pt_backoff)PT_BACKOFF_INIT(250, 30000, 30000);
		in->got = (struct pt_buf)PT_BUF_INIT(64 << 20);
	}
	(void)fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
	L.mark_ns = pt_mono_ns();
	while (command())
		step(STEP_MS);
	return 0;
}
