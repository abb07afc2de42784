/* Random walks of operations against a small model of what is promised: one terminal state that never changes, attempts that never
 * decrease, only the newest attempt's result, no second start of an at-most-once operation, and an end for everything.  The seed is printed;
 * POSTERN_TEST_SEED repeats a walk. */
#include "lifecycle_util.h"
#include <stdlib.h>
#include <time.h>

enum { WALKS = 1500, STEPS = 80, OPS = 3, ATTEMPTS_MAX = 100 };

static uint64_t seed, state;

static unsigned pick(unsigned n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (unsigned)(state % n);
}

static int64_t any_pause(int64_t bound)
{
	return 1 + (int64_t)pick((unsigned)bound);
}

/* --- the model --- */

struct model {
	char id[PT_ID_SIZE];
	bool at_most_once, cancelled, settled, gone;
	enum pt_op_state state;
	int64_t attempt;
	int holder;                /* instance of the newest attempt */
	bool got[ATTEMPTS_MAX];    /* the instance has the lease */
	bool began[ATTEMPTS_MAX];  /* it has started it, whether it said so or not */
	bool result[ATTEMPTS_MAX]; /* its result was taken */
	int starts, ends;
};
static struct model ops[OPS];
static const char *wrong; /* what broke first */

#define must(c, what)                   \
	do {                            \
		if (!(c) && !wrong)     \
			wrong = (what); \
	} while (0)

static int ends_of(const char *id)
{
	pt_auto_rec(operation) op = { 0 };
	struct pt_event e;
	const char *at;
	int n = 0;

	pt_assert(load(id, &op) == 0);
	at = op.timeline;
	while (pt_timeline_next(&at, &e)) {
		int s = pt_op_state_from(e.event);

		n += s >= 0 && pt_op_terminal((enum pt_op_state)s);
	}
	return n;
}

static bool row_there(const struct pt_table *t, const char *first, const char *second)
{
	struct pt_err err = { 0 };
	pt_auto_rec(lease) l = { 0 };
	pt_auto_rec(dead_letter) d = { 0 };
	struct pt_tx *tx = begin(false);
	int rc;

	pt_id_copy(l.instance, first);
	pt_id_copy(l.operation, second);
	pt_id_copy(d.account, first);
	pt_id_copy(d.operation, second);
	rc = pt_tx_get(tx, t, t == &pt_leases ? (void *)&l : (void *)&d, &err);
	pt_tx_rollback(tx);
	return rc == 0;
}

/* What holds after every step, whatever the step was. */
static void compare(struct model *m)
{
	pt_auto_rec(operation) op = { 0 };
	enum pt_op_state now;

	if (m->gone)
		return;
	if (load(m->id, &op) < 0) {
		must(pt_op_terminal(m->state), "an operation vanished before its end");
		m->gone = true;
		return;
	}
	now = (enum pt_op_state)op.state;
	must(op.attempt >= m->attempt, "the attempt went back");
	must(op.attempt <= m->attempt + 1, "an attempt was skipped");
	must(!pt_op_terminal(m->state) || now == m->state, "a terminal state changed");
	must(!pt_op_terminal(m->state) || op.attempt == m->attempt, "an attempt after the end");
	must(ends_of(m->id) == pt_op_terminal(now), "not exactly one end in the timeline");
	must((op.queue == PT_QUEUE_DONE) == pt_op_terminal(now), "queue and state differ");
	must((op.queue == PT_QUEUE_LEASED) == (now == PT_OP_LEASED || now == PT_OP_RUNNING), "queue and lease differ");
	must(row_there(&pt_leases, op.instance, op.id) == (op.queue == PT_QUEUE_LEASED),
	     "a lease row without its state, or the other way");
	must(row_there(&pt_dead_letters, account_id, op.id) == (pt_op_needs_person(now) && !m->settled),
	     "dead letter and state differ");
	must(!pt_op_terminal(now) || now == PT_OP_SUCCEEDED || op.reason, "an end without a reason");
	must(!m->at_most_once || m->starts <= 1, "at-most-once was started twice");
	must(now != PT_OP_UNKNOWN || m->at_most_once, "unknown is for at-most-once");
	m->state = now;
	m->attempt = op.attempt;
}

static void make(struct model *m)
{
	static const char *const policies[] = { NULL, "{\"on\":[\"lost\",\"retryable\"]}",
						"{\"backoff_ms\":100,\"on\":[\"query_failed\",\"deadline_exceeded\"]}",
						"{\"on\":[\"retryable\"]}" };
	struct scenario s = { .at_most_once = pick(3) == 0,
			      .max_attempts = 1 + (int)pick(4),
			      .deadline_s = pick(4) ? 86400 : 20 + (int)pick(400),
			      .retry = policies[pick(PT_COUNT(policies))] };

	*m = (struct model) { .at_most_once = s.at_most_once };
	submit(&s, m->id);
}

/* --- what can happen --- */

/* An answer with a lease; some answers are lost on their way. */
static void take(const struct pt_lease *l, int who)
{
	bool arrives = pick(8) != 0;

	must(l->attempt < ATTEMPTS_MAX, "too many attempts");
	for (int i = 0; i < OPS; i++)
		if (strcmp(ops[i].id, l->operation) == 0) {
			ops[i].holder = who;
			ops[i].got[l->attempt] |= arrives;
		}
}

/* An exchange of one instance that says the truth: what it has, and of each whether it has started it. */
static void exchange_all(int who, bool goodbye, int release)
{
	static uint64_t serial;
	struct pt_err err = { 0 };
	struct pt_holding h[OPS * 8];
	struct pt_attempt_ref back[OPS];
	struct pt_exchange_request q = { .slots = 2, .goodbye = goodbye, .holding = { h, 0 }, .released = { back, 0 } };
	struct pt_call c = { .g = &g };
	struct pt_exchange x = { .c = &c, .q = &q, .in_writer = true, .serial = ++serial };
	struct pt_tx *tx;
	int rc;

	pt_id_copy(c.who.agent, agent_id);
	pt_id_copy(c.who.key, key_id);
	pt_id_copy(q.instance, instances[who]);
	for (int i = 0; i < OPS; i++) {
		struct model *m = &ops[i];
		int64_t n = m->attempt;

		if (m->gone || m->holder != who || !n || !m->got[n] || m->result[n])
			continue;
		/* as agents do: what is given back is not running any more, and an at-most-once attempt that has begun is never given back */
		if (release == i && !(m->at_most_once && m->began[n])) {
			back[q.released.n] = (struct pt_attempt_ref) { .attempt = n };
			pt_id_copy(back[q.released.n++].operation, m->id);
			m->got[n] = false;
		} else if (!goodbye) {
			h[q.holding.n] = (struct pt_holding) { .attempt = n,
							       .state = (char *)(uintptr_t) "running",
							       .started_at = m->began[n] && pick(4) ? WALL0 + clock_ms : 0 };
			pt_id_copy(h[q.holding.n++].operation, m->id);
		} else if (m->at_most_once && m->began[n]) { /* its result waits in the spool of the next process */
			h[q.holding.n] = (struct pt_holding) { .attempt = n, .state = (char *)(uintptr_t) "spooled" };
			pt_id_copy(h[q.holding.n++].operation, m->id);
		} else {
			m->got[n] = false;
		}
	}
	tx = begin(true);
	rc = pt_exchange_run(&x, tx, &err);
	finish(tx, rc);
	must(rc == 0, "an exchange failed");
	if (x.parked)
		pt_presence_unpark(&g, &x);
	for (size_t k = 0; k < x.a.leases.n; k++)
		take(&((struct pt_lease *)x.a.leases.items)[k], who);
	pt_shape_release(&pt_exchange_response_shape, &x.a);
	pt_presence_release(&g, &x);
}

static void start(struct model *m)
{
	int64_t n = m->attempt;

	if (m->gone || !n || !m->got[n] || m->began[n] || m->result[n])
		return;
	m->began[n] = true;
	m->starts++;
}

/* The result of some attempt that was run; of an old one, too. */
static void result(struct model *m)
{
	static const struct {
		const char *status, *code;
	} all[] = { { "succeeded", NULL },
		    { "failed", "query_failed" },
		    { "failed", "unavailable" },
		    { "expired", "deadline_exceeded" },
		    { "cancelled", "cancelled" } };
	unsigned k = pick(PT_COUNT(all));
	int64_t n = m->attempt ? 1 + (int64_t)pick((unsigned)m->attempt) : 0;
	bool newest = n == m->attempt, ended = pt_op_terminal(m->state), before;
	struct pt_delivery d;

	if (m->gone || !n || !m->began[n])
		return;
	before = m->result[n];
	must(deliver(m->id, m->holder, n, all[k].status, all[k].code, NULL, &d) == 0, "a result was not answered");
	must(d.duplicate == before, "a result that was here before is a duplicate, and only that");
	must(before || (d.refused.code == PT_E_STALE) == (!newest || ended),
	     "taken: the newest attempt's first result, and no other");
	if (!before && !d.refused.code) {
		pt_auto_rec(operation) op = { 0 };

		m->result[n] = true;
		pt_assert(load(m->id, &op) == 0);
		must(d.again == (op.state == PT_OP_QUEUED), "tried again means queued");
		must(d.again || op.state == pt_op_state_from(all[k].status), "the result is the state");
		must(!d.again || (!m->at_most_once && !m->cancelled && k), "what is never tried again was");
	}
}

static void cancel_one(struct model *m)
{
	bool ended = pt_op_terminal(m->state), waits = m->state == PT_OP_QUEUED;

	if (m->gone)
		return;
	cancel(m->id);
	m->cancelled |= !ended;
	if (waits) {
		pt_auto_rec(operation) op = { 0 };

		must(load(m->id, &op) == 0 && op.state == PT_OP_CANCELLED, "what waits is cancelled at once");
	}
}

static void settle_one(struct model *m)
{
	static const char *const decisions[] = { "done", "abandon" };
	struct pt_rec_settlement s = { .decision = (char *)(uintptr_t)decisions[pick(2)], .by_name = (char *)(uintptr_t) "ada" };
	struct pt_err err = { 0 };
	pt_auto_rec(operation) op = { 0 };
	struct pt_tx *tx;
	int rc;

	if (m->gone)
		return;
	tx = begin(true);
	pt_id_copy(op.id, m->id);
	pt_assert(pt_tx_get(tx, &pt_operations, &op, &err) == 0);
	rc = pt_dead_letter_settle(&g, tx, &op, &s, &err);
	finish(tx, rc);
	must(m->settled || (rc == 0) == pt_op_needs_person(m->state), "dead letters are settled, and nothing else");
	m->settled |= rc == 0;
}

static void time_goes_by(void)
{
	static const int64_t spans[] = { 100, 1100, 2500, 20000, 45000, 61000, 200000 };

	clock_ms += spans[pick(PT_COUNT(spans))];
	reap();
}

static void one_step(void)
{
	struct model *m = &ops[pick(OPS)];

	switch (pick(12)) {
	case 0:
	case 1:
	case 2:
		exchange_all((int)pick(2), false, pick(6) ? -1 : (int)pick(OPS));
		break;
	case 3:
	case 4:
	case 5:
		start(m);
		break;
	case 6:
	case 7:
		result(m);
		break;
	case 8:
		if (pick(8) == 0)
			cancel_one(m);
		break;
	case 9:
		settle_one(m);
		break;
	case 10:
		if (pick(5) == 0) {
			int who = (int)pick(2);

			exchange_all(who, true, -1);
			pt_presence_leave(&g, instances[who]);
		}
		break;
	default:
		time_goes_by();
	}
	for (int i = 0; i < OPS; i++)
		compare(&ops[i]);
}

static uint64_t ended_as[PT_OP_STATES_END];

static bool walk(void)
{
	for (int i = 0; i < 2; i++)
		pt_id_new(instances[i], "in");
	for (int i = 0; i < OPS; i++)
		make(&ops[i]);
	for (int i = 0; i < STEPS && !wrong; i++)
		one_step();
	/* Nobody says anything any more: deadlines, leases and graces end everything. */
	for (int i = 0; i < 8 && !wrong; i++) {
		clock_ms += 11 * 3600000;
		reap();
		for (int k = 0; k < OPS; k++)
			compare(&ops[k]);
	}
	for (int k = 0; k < OPS; k++) {
		must(pt_op_terminal(ops[k].state), "something runs for ever");
		ended_as[ops[k].state]++;
	}
	must(count(&pt_leases) == 0, "a lease without an operation");
	clock_ms += 3 * RETENTION_MS;
	reap();
	must(count(&pt_operations) + count(&pt_inputs) + count(&pt_results) + count(&pt_dead_letters) + count(&pt_settlements) ==
		     0,
	     "something stays after its retention");
	return !wrong;
}

int main(void)
{
	const char *given = getenv("POSTERN_TEST_SEED");
	int n = 0;

	seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL) * 1000003 + (uint64_t)getpid();
	state = seed | 1;
	printf("# POSTERN_TEST_SEED=%llu\n", (unsigned long long)seed);
	setup();
	g.jitter = any_pause;
	on_lease = take;
	while (n < WALKS && walk())
		n++;
	ok(n == WALKS, "%d walks of %d: %s", n, WALKS, wrong ? wrong : "every promise held");
	for (int s = PT_OP_SUCCEEDED; s < PT_OP_STATES_END && !wrong; s++)
		ok(ended_as[s], "%llu operations ended as %s", (unsigned long long)ended_as[s],
		   pt_op_state_name((enum pt_op_state)s));
	teardown();
	return tap_end();
}
