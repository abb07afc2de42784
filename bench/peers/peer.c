#include "peer.h"

static const struct peer_calls *calls;

void peer_die(const char *what, const char *why)
{
	fprintf(stderr, "peer: %s: %s\n", what, why ? why : "failed");
	exit(1);
}

const char *peer_next(struct publisher *w)
{
	char digits[SEQ_DIGITS + 1];

	snprintf(digits, sizeof(digits), "%0*zu", SEQ_DIGITS, w->next);
	memcpy(w->body, digits, SEQ_DIGITS);
	w->p->sent[w->next++] = pt_mono_ns();
	return w->body;
}

void peer_confirmed(struct peer *p, size_t seq)
{
	if (seq >= p->total || p->accepted[seq])
		peer_die("confirm", "of an unknown message, or twice");
	p->accepted[seq] = pt_mono_ns();
}

size_t peer_seq(const struct peer *p, const char *body, size_t n)
{
	char digits[SEQ_DIGITS + 1] = "";
	size_t seq;

	if (n != p->payload)
		peer_die("delivery", "the payload has another length");
	memcpy(digits, body, SEQ_DIGITS);
	seq = strtoul(digits, NULL, 10);
	if (seq >= p->total)
		peer_die("delivery", "unknown message");
	return seq;
}

void peer_delivered(struct peer *p, const char *body, size_t n)
{
	size_t seq = peer_seq(p, body, n);

	if (p->started[seq])
		peer_die("delivery", "the same message twice");
	p->started[seq] = pt_mono_ns();
	p->consumed++;
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

static void quantiles(const struct peer *p, const char *name, int64_t *at)
{
	for (size_t i = 0; i < p->total; i++)
		at[i] -= p->sent[i];
	qsort(at, p->total, sizeof(*at), by_value);
	printf(",\"%s_p50_us\":%lld,\"%s_p99_us\":%lld", name, (long long)at[p->total / 2] / 1000, name,
	       (long long)at[p->total * 99 / 100] / 1000);
}

static void *publisher_main(void *arg)
{
	struct publisher *w = arg;

	w->body = malloc(w->p->payload + 1);
	if (!w->body)
		peer_die("start", "out of memory");
	memset(w->body, 'x', w->p->payload);
	w->body[w->p->payload] = '\0';
	calls->publish(w);
	return NULL;
}

static void *consumer_main(void *arg)
{
	calls->consume(arg);
	return NULL;
}

/* Seconds from the first connection to the last acknowledgement. */
static double run(struct peer *p)
{
	struct publisher *w = calloc(p->connections, sizeof(*w));
	pthread_t *threads = calloc(p->connections + 1, sizeof(*threads));
	size_t each = (p->total + p->connections - 1) / p->connections;
	int64_t start = pt_mono_ns();

	if (!w || !threads)
		peer_die("start", "out of memory");
	for (size_t i = 0; i < p->connections; i++) {
		w[i] = (struct publisher) { .p = p, .next = i * each, .end = (i + 1) * each < p->total ? (i + 1) * each : p->total };
		if (pthread_create(&threads[i], NULL, publisher_main, &w[i]))
			peer_die("start", "no thread");
	}
	if (pthread_create(&threads[p->connections], NULL, consumer_main, p))
		peer_die("start", "no thread");
	for (size_t i = 0; i <= p->connections; i++)
		(void)pthread_join(threads[i], NULL); /* fails for no thread of ours */
	free(w);
	free(threads);
	return (double)(pt_mono_ns() - start) / 1e9;
}

int peer_main(int argc, char **argv, const struct peer_calls *of)
{
	struct peer p = { 0 };
	double s;

	if (argc != 6) {
		fprintf(stderr, "usage: %s PORT MESSAGES CONNECTIONS WINDOW PAYLOAD\n", argv[0]);
		return 64;
	}
	calls = of;
	p.port = (int)strtol(argv[1], NULL, 10);
	p.total = strtoul(argv[2], NULL, 10);
	p.connections = strtoul(argv[3], NULL, 10);
	p.window = strtoul(argv[4], NULL, 10);
	p.payload = strtoul(argv[5], NULL, 10);
	if (!p.total || !p.connections || p.connections > p.total || !p.window || p.payload < SEQ_DIGITS)
		peer_die("arguments", "numbers are at least 1, MESSAGES at least CONNECTIONS, PAYLOAD at least 16");
	p.sent = calloc(p.total, sizeof(int64_t));
	p.accepted = calloc(p.total, sizeof(int64_t));
	p.started = calloc(p.total, sizeof(int64_t));
	if (!p.sent || !p.accepted || !p.started)
		peer_die("start", "out of memory");
	if (calls->prepare)
		calls->prepare(&p);
	s = run(&p);
	printf("{\"operations\":%zu,\"failed\":%zu,\"seconds\":%.3f,\"operations_per_s\":%.0f", p.total, p.total - p.consumed, s,
	       (double)p.total / s);
	quantiles(&p, "accepted", p.accepted);
	quantiles(&p, "started", p.started);
	puts("}");
	return 0;
}
