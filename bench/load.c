/* Load generator: submits operations to a gateway and plays the agent instances that run them, over loopback, in one thread.  At most twice
 * as many operations as there are slots are under way.  With BATCH 1 one request per submit and one per result, as from clients and agents;
 * else so many operations in one submit request, and in one request of an instance as many results as wait there, up to BATCH.
 *
 *   load PORT TOKEN KEY_ID KEY_SECRET INTEGRATION OPERATIONS SUBMITTERS INSTANCES SLOTS PAYLOAD BATCH
 *
 * With INSTANCES 0 a real agent runs them: each submitter sends a `health` operation and waits for its end.
 *
 * Every operation is a real one: POST (201 after fsync), lease by a held exchange or by the answer to a result, PUT of a result (200
 * after fsync).  "Running" it takes no time.  Prints one JSON object: operations per second, and p50/p99 in microseconds from the
 * submit's send to the 201, to the lease's arrival, and to the result's 200. */
#include "base/attr.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/id.h"
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <uthash.h>

enum kind { SUBMIT, EXCHANGE, PUBLISH };
enum { PUBLISHERS = 3, BATCH_MAX = 64 };

struct op {
	char id[PT_ID_SIZE];
	int64_t sent, accepted, leased, stored;
	UT_hash_handle hh;
};
struct lease {
	char id[PT_ID_SIZE];
	int attempt;
};
struct instance {
	char id[PT_ID_SIZE];
	struct conn *exchange, *publish[PUBLISHERS];
	struct lease *todo; /* waiting for a publisher: those from `first` on */
	size_t first, n, cap;
	struct lease *held;
	size_t n_held, cap_held;
};
struct conn {
	int fd;
	enum kind kind;
	bool busy, waiting;
	struct instance *in;
	int64_t sent;
	struct lease now[BATCH_MAX]; /* PUBLISH: whose results are under way */
	int n_now;                   /* SUBMIT: how many operations */
	struct conn *next; /* of the paused ones */
	struct pt_buf out, got;
};

static struct {
	int port, ep;
	const char *token, *integration;
	char basic[512], *sql;
	long total, submitted, done, failed;
	int slots, instances, batch;
	long window; /* most operations submitted and not done, so that work and not its backlog is measured; 0 = no bound */
	struct conn *paused; /* submitters that wait for the window */
	struct op *ops;
	int64_t *t_accept, *t_lease, *t_store;
} L;

static void die(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct conn *dial(enum kind kind, struct instance *in)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons((uint16_t)L.port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct conn *c = calloc(1, sizeof(*c));
	int one = 1;

	if (!c || (c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0 || connect(c->fd, (void *)&a, sizeof(a)) < 0)
		die("connect");
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->kind = kind;
	c->in = in;
	c->out = (struct pt_buf)PT_BUF_INIT(8 << 20);
	c->got = (struct pt_buf)PT_BUF_INIT(64 << 20);
	if (epoll_ctl(L.ep, EPOLL_CTL_ADD, c->fd, &(struct epoll_event) { .events = EPOLLIN, .data.ptr = c }) < 0)
		die("epoll_ctl");
	return c;
}

static void send_request(struct conn *c, const char *method, const char *path, const char *auth, const struct pt_buf *body)
{
	pt_buf_clear(&c->out);
	pt_buf_fmt(&c->out, "%s %s HTTP/1.1\r\nHost: bench\r\nAuthorization: %s\r\n", method, path, auth);
	pt_buf_fmt(&c->out, "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n", body->len);
	pt_buf_add(&c->out, body->p, body->len);
	c->busy = true;
	c->sent = pt_mono_ns();
	for (size_t at = 0; at < c->out.len;) {
		ssize_t n = write(c->fd, c->out.p + at, c->out.len - at);

		if (n < 0)
			die("write");
		at += (size_t)n;
	}
}

/* INSTANCES 0: submit, then wait. */
static void submit_for_agent(struct conn *c, const char *auth, struct pt_buf *b)
{
	pt_buf_fmt(b, "{\"type\":\"health\",\"agent\":\"%s\",\"input\":{}}", L.integration);
	c->waiting = false;
	send_request(c, "POST", "/api/v1/operations", auth, b);
}

static void wait_for(struct conn *c, const char *id)
{
	struct pt_buf none = PT_BUF_INIT(1);
	int64_t sent = c->sent;
	char path[120], auth[400];

	snprintf(auth, sizeof(auth), "Bearer %s", L.token);
	snprintf(path, sizeof(path), "/api/v1/operations/%s?wait=30", id);
	c->waiting = true;
	send_request(c, "GET", path, auth, &none);
	c->sent = sent;
}

static void submit(struct conn *c)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	char auth[400];

	if (L.submitted == L.total)
		return;
	if (L.window && L.submitted - L.done >= L.window) {
		c->next = L.paused;
		L.paused = c;
		return;
	}
	snprintf(auth, sizeof(auth), "Bearer %s", L.token);
	if (!L.instances) {
		L.submitted++;
		submit_for_agent(c, auth, &b);
		return;
	}
	pt_buf_str(&b, L.batch > 1 ? "{\"operations\":[" : "");
	for (c->n_now = 0; c->n_now < L.batch && L.submitted < L.total; c->n_now++, L.submitted++)
		pt_buf_fmt(&b, "%s{\"type\":\"query\",\"integration\":\"%s\",\"input\":{\"sql\":\"%s\"}}", c->n_now ? "," : "",
			   L.integration, L.sql);
	pt_buf_str(&b, L.batch > 1 ? "]}" : "");
	send_request(c, "POST", L.batch > 1 ? "/api/v1/operations/batch" : "/api/v1/operations", auth, &b);
}

static void exchange(struct instance *in)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 20);

	pt_buf_fmt(&b, "{\"instance\":\"%s\",\"version\":\"bench\",\"slots\":%d,\"wait_ms\":40000,\"holding\":[", in->id,
		   L.slots);
	for (size_t i = 0; i < in->n_held; i++)
		pt_buf_fmt(&b, "%s{\"operation\":\"%s\",\"attempt\":%d,\"state\":\"running\"}", i ? "," : "", in->held[i].id,
			   in->held[i].attempt);
	pt_buf_str(&b, "]}");
	send_request(in->exchange, "POST", "/agent/v1/exchange", L.basic, &b);
}

static void result_head(const struct instance *in, struct pt_buf *b)
{
	pt_buf_fmt(b, "{\"instance\":\"%s\",\"status\":\"succeeded\",\"rows\":1,\"affected\":1,", in->id);
	pt_buf_fmt(b, "\"document\":{\"text\":\"%s\"},\"started_at\":%lld,\"finished_at\":%lld}", L.sql, (long long)pt_wall_ms(),
		   (long long)pt_wall_ms());
}

static void send_results(struct instance *in, struct conn *c)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 20);

	pt_buf_fmt(&b, "{\"instance\":\"%s\",\"results\":[", in->id);
	for (c->n_now = 0; c->n_now < L.batch && in->first < in->n; c->n_now++) {
		const struct lease *l = &in->todo[in->first++];

		c->now[c->n_now] = *l;
		pt_buf_fmt(&b, "%s{\"operation\":\"%s\",\"attempt\":%d,\"head\":", c->n_now ? "," : "", l->id, l->attempt);
		result_head(in, &b);
		pt_buf_chr(&b, '}');
	}
	pt_buf_str(&b, "]}");
	send_request(c, "POST", "/agent/v1/results", L.basic, &b);
}

static void publish(struct instance *in)
{
	for (int i = 0; i < PUBLISHERS && in->first < in->n; i++) {
		struct conn *c = in->publish[i];
		pt_auto_buf b = PT_BUF_INIT(1 << 20);
		char path[160];

		if (c->busy)
			continue;
		if (L.batch > 1) {
			send_results(in, c);
			continue;
		}
		c->now[0] = in->todo[in->first++];
		c->n_now = 1;
		result_head(in, &b);
		pt_buf_chr(&b, '\n');
		snprintf(path, sizeof(path), "/agent/v1/operations/%s/attempts/%d/result", c->now[0].id, c->now[0].attempt);
		send_request(c, "PUT", path, L.basic, &b);
	}
}

static void push(struct lease **list, size_t *n, size_t *cap, const struct lease *l)
{
	if (*n == *cap) {
		*cap = *cap ? *cap * 2 : 64;
		*list = realloc(*list, *cap * sizeof(**list));
		if (!*list)
			die("memory");
	}
	(*list)[(*n)++] = *l;
}

static struct op *op_of(const char *id)
{
	struct op *o;

	HASH_FIND_STR(L.ops, id, o);
	if (!o && (o = calloc(1, sizeof(*o)))) {
		snprintf(o->id, sizeof(o->id), "%s", id);
		HASH_ADD_STR(L.ops, id, o);
	}
	if (!o)
		die("memory");
	return o;
}

/* Leases in an answer: {"operation":"op_…","attempt":N,… inside "leases":[…]. */
static void take_leases(struct instance *in, const char *body)
{
	const char *p = strstr(body, "\"leases\":["), *end = p ? strstr(p, "\"cancels\"") : NULL;
	int64_t now = pt_mono_ns();

	while (p && (p = strstr(p, "\"operation\":\"")) && (!end || p < end)) {
		struct lease l = { 0 };
		struct op *o;

		if (sscanf(p, "\"operation\":\"%39[a-z0-9_]\",\"attempt\":%d", l.id, &l.attempt) != 2)
			die("odd lease");
		o = op_of(l.id);
		p++;
		if (o->leased)
			continue;
		o->leased = now;
		if (in->first == in->n)
			in->first = in->n = 0;
		push(&in->todo, &in->n, &in->cap, &l);
		push(&in->held, &in->n_held, &in->cap_held, &l);
	}
}

static void stored(struct instance *in, const char *id)
{
	op_of(id)->stored = pt_mono_ns();
	for (size_t i = 0; i < in->n_held; i++)
		if (strcmp(in->held[i].id, id) == 0) {
			in->held[i] = in->held[--in->n_held];
			break;
		}
	L.done++;
}

static void accepted(const struct conn *c, const char *id)
{
	struct op *o = op_of(id);

	o->sent = c->sent;
	o->accepted = pt_mono_ns();
}

/* Answers to many at once; what failed of them says "error". */
static void accepted_all(struct conn *c, const char *body)
{
	int n = 0;
	char id[PT_ID_SIZE];

	for (const char *p = body; (p = strstr(p, "\"id\":\"")); p++, n++)
		if (sscanf(p, "\"id\":\"%39[a-z0-9_]", id) == 1)
			accepted(c, id);
	if (n != c->n_now)
		die(body);
}

static void stored_all(struct conn *c, const char *body)
{
	const char *end = strstr(body, "],\"leases\"");

	if (!end || memmem(body, (size_t)(end - body), "\"error\"", 7))
		die(body);
	for (int i = 0; i < c->n_now; i++)
		stored(c->in, c->now[i].id);
}

static void answered(struct conn *c, int status, const char *body)
{
	c->busy = false;
	if (status >= 300) {
		if (L.failed++ < 5)
			fprintf(stderr, "load: status %d: %.300s\n", status, body);
		if (c->kind == PUBLISH)
			L.done++;
	}
	if (c->kind == SUBMIT && c->waiting) {
		char id[PT_ID_SIZE];
		struct op *o;

		if (sscanf(body, "{\"id\":\"%39[a-z0-9_]", id) == 1 && strstr(body, "\"state\":\"succeeded\"")) {
			o = op_of(id);
			o->leased = o->stored = pt_mono_ns();
		} else {
			L.failed++;
		}
		L.done++;
		submit(c);
	} else if (c->kind == SUBMIT) {
		char id[PT_ID_SIZE];

		if (status < 300 && L.batch > 1) {
			accepted_all(c, body);
		} else if (status < 300 && sscanf(body, "{\"id\":\"%39[a-z0-9_]", id) == 1) {
			accepted(c, id);
			if (!L.instances) {
				wait_for(c, id);
				return;
			}
		}
		submit(c);
	} else if (c->kind == EXCHANGE) {
		take_leases(c->in, body);
		publish(c->in);
		exchange(c->in);
	} else if (status < 300) {
		struct instance *in = c->in;

		if (L.batch > 1)
			stored_all(c, body);
		else
			stored(in, c->now[0].id);
		take_leases(in, body);
		publish(in);
		while (L.paused && L.submitted - L.done < L.window) {
			c = L.paused;
			L.paused = c->next;
			submit(c);
		}
	}
}

static void readable(struct conn *c)
{
	char chunk[65536];
	ssize_t n = read(c->fd, chunk, sizeof(chunk));
	const char *end, *cl;
	size_t head, len;
	int status = 0;

	if (n <= 0)
		die("connection closed by the gateway");
	pt_buf_add(&c->got, chunk, (size_t)n);
	end = strstr(c->got.p, "\r\n\r\n");
	if (!end)
		return;
	head = (size_t)(end + 4 - c->got.p);
	cl = strcasestr(c->got.p, "\r\nContent-Length:");
	if (!cl || cl > end)
		die("answer without Content-Length");
	len = (size_t)strtoul(cl + 17, NULL, 10);
	if (c->got.len < head + len)
		return;
	if (c->got.len > head + len)
		die("more than one answer");
	(void)sscanf(c->got.p, "HTTP/1.1 %d", &status);
	answered(c, status, c->got.p + head); /* may send the next request, whose answer is read later */
	pt_buf_clear(&c->got);
}

/* Leave properly: a parked exchange of a load that is over must not be given the next load's operations. */
static void goodbye(struct instance *in)
{
	pt_auto_buf b = PT_BUF_INIT(1024);
	struct conn *c = dial(PUBLISH, in);
	char answer[65536];

	pt_buf_fmt(&b, "{\"instance\":\"%s\",\"slots\":%d,\"wait_ms\":0,\"goodbye\":true,\"holding\":[]}", in->id, L.slots);
	send_request(c, "POST", "/agent/v1/exchange", L.basic, &b);
	if (read(c->fd, answer, sizeof(answer)) <= 0)
		die("goodbye");
}

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

int main(int argc, char **argv)
{
	pt_auto_buf basic = PT_BUF_INIT(400);
	pt_auto_buf key = PT_BUF_INIT(400);
	struct instance *ins;
	int submitters;
	size_t payload, n = 0;
	int64_t start;
	double s;

	if (argc != 12) {
		fprintf(stderr,
			"usage: load PORT TOKEN KEY_ID KEY_SECRET INTEGRATION OPERATIONS SUBMITTERS INSTANCES SLOTS PAYLOAD BATCH\n");
		return 64;
	}
	L.port = (int)strtol(argv[1], NULL, 10);
	L.token = argv[2];
	pt_buf_fmt(&key, "%s:%s", argv[3], argv[4]);
	pt_buf_base64(&basic, key.p, key.len);
	snprintf(L.basic, sizeof(L.basic), "Basic %s", basic.p);
	L.integration = argv[5]; /* with INSTANCES 0: the agent */
	L.total = strtol(argv[6], NULL, 10);
	submitters = (int)strtol(argv[7], NULL, 10);
	L.instances = (int)strtol(argv[8], NULL, 10);
	L.slots = (int)strtol(argv[9], NULL, 10);
	L.window = 2 * (long)L.instances * L.slots;
	payload = strtoul(argv[10], NULL, 10);
	L.batch = (int)strtol(argv[11], NULL, 10);
	if (L.batch < 1 || L.batch > BATCH_MAX) {
		fprintf(stderr, "load: BATCH: from 1 to %d\n", BATCH_MAX);
		return 64;
	}
	L.sql = malloc(payload + 16);
	L.ep = epoll_create1(EPOLL_CLOEXEC);
	if (!L.sql || L.ep < 0)
		die("start");
	snprintf(L.sql, payload + 16, "SELECT 1 --");
	memset(L.sql + strlen(L.sql), 'x', payload > 11 ? payload - 11 : 0);
	L.sql[payload > 11 ? payload : 11] = '\0';

	ins = calloc((size_t)L.instances + 1, sizeof(*ins));
	for (int i = 0; i < L.instances; i++) {
		struct instance *in = ins ? &ins[i] : NULL;

		if (!in)
			die("memory");
		pt_id_new(in->id, "in");
		in->exchange = dial(EXCHANGE, in);
		for (int k = 0; k < PUBLISHERS; k++)
			in->publish[k] = dial(PUBLISH, in);
		exchange(in);
	}
	start = pt_mono_ns();
	for (int i = 0; i < submitters; i++)
		submit(dial(SUBMIT, NULL));
	while (L.done < L.total) {
		struct epoll_event ev[64];
		int got = epoll_wait(L.ep, ev, 64, 30000);

		if (got <= 0)
			die("nothing happened for 30 s");
		for (int i = 0; i < got; i++)
			readable(ev[i].data.ptr);
	}
	s = (double)(pt_mono_ns() - start) / 1e9;
	for (int i = 0; i < L.instances; i++)
		goodbye(&ins[i]);
	L.t_accept = calloc((size_t)L.total, sizeof(int64_t));
	L.t_lease = calloc((size_t)L.total, sizeof(int64_t));
	L.t_store = calloc((size_t)L.total, sizeof(int64_t));
	if (!L.t_accept || !L.t_lease || !L.t_store)
		die("memory");
	for (struct op *o = L.ops; o; o = o->hh.next)
		if (o->sent && o->stored && n < (size_t)L.total) {
			L.t_accept[n] = o->accepted - o->sent;
			L.t_lease[n] = o->leased - o->sent;
			L.t_store[n++] = o->stored - o->sent;
		}
	printf("{\"operations\":%ld,\"failed\":%ld,\"seconds\":%.3f,\"operations_per_s\":%.0f", L.done, L.failed, s,
	       (double)L.done / s);
	quantiles("accepted", L.t_accept, n);
	quantiles("started", L.t_lease, n);
	quantiles("stored", L.t_store, n);
	puts("}");
	return L.failed != 0;
}
