/* A gateway without HTTP on the database in memory, with a clock of our own; and what agents and clients do to one operation.  For the tests of
 * its life. */
#ifndef PT_TESTS_LIFECYCLE_UTIL_H
#define PT_TESTS_LIFECYCLE_UTIL_H
#include "base/clock.h"
#include "base/id.h"
#include "gateway/exchange.h"
#include "os/file.h"
#include "../folder.h"
#include "../tap.h"
#include <stdatomic.h>
#include <sys/stat.h>

enum { RETENTION_MS = 3600000 };
#define WALL0 INT64_C(1760000000000)

static _Atomic int64_t clock_ms = 1000;
static struct pt_gateway g;
static char agent_id[PT_ID_SIZE], key_id[PT_ID_SIZE], account_id[PT_ID_SIZE], instances[2][PT_ID_SIZE];

static void (*on_lease)(const struct pt_lease *l, int instance); /* leases in the answers to results */

static int64_t now_ms(bool mono)
{
	return mono ? clock_ms : WALL0 + clock_ms;
}

static struct pt_tx *begin(bool write)
{
	struct pt_err err = { 0 };
	struct pt_tx *tx = NULL;

	pt_assert(pt_db_begin(g.db, write, &tx, &err) == 0);
	return tx;
}

/* As the writer does it: what fails leaves nothing behind. */
static void finish(struct pt_tx *tx, int rc)
{
	struct pt_err err = { 0 };

	if (rc < 0)
		pt_tx_rollback(tx);
	else
		pt_assert(pt_tx_commit(tx, &err) == 0);
	pt_wait_flush(&g, rc >= 0);
}

static int64_t longest(int64_t bound)
{
	return bound;
}

static void setup(void)
{
	struct pt_err err = { 0 };
	struct pt_rec_agent a = { .name = (char *)(uintptr_t) "warehouse",
				  .kind = (char *)(uintptr_t) "generic",
				  .enabled = true };
	struct pt_rec_key k = { .hash = (char *)(uintptr_t) "none" };
	struct pt_rec_account acc = { .name = (char *)(uintptr_t) "default" };
	static char dir[] = "/tmp/pt-lifecycle-XXXXXX";
	struct pt_tx *tx;

	pt_clock_inject(now_ms);
	g.wall0 = WALL0;
	g.retention_ms = RETENTION_MS;
	g.lease_ms = PT_LEASE_MS;
	g.jitter = longest;
	g.blob_dir = mkdtemp(dir);
	pt_assert(g.blob_dir && pt_db_open(&g.db, "mem:", pt_gateway_tables, &err) == 0);
	pt_assert(pt_presence_new(&g, &err) == 0 && pt_waiters_new(&g, &err) == 0);
	pt_id_new(account_id, "acc");
	pt_id_new(agent_id, "ag");
	pt_id_copy(a.id, agent_id);
	pt_id_copy(a.account, account_id);
	tx = begin(true);
	pt_id_copy(acc.id, account_id);
	pt_assert(pt_tx_insert(tx, &pt_accounts, &acc, &err) == 0);
	pt_assert(pt_tx_insert(tx, &pt_agents, &a, &err) == 0);
	pt_id_new(k.id, "key");
	pt_id_copy(key_id, k.id);
	pt_id_copy(k.agent, agent_id);
	pt_assert(pt_tx_insert(tx, &pt_keys, &k, &err) == 0);
	finish(tx, 0);
}

static void teardown(void)
{
	g.stopping = true;
	pt_waiters_drain(&g);
	pt_waiters_free(&g);
	pt_presence_free(&g);
	pt_db_close(g.db);
	pt_clock_inject(NULL);
	folder_remove(g.blob_dir);
}

/* --- one operation --- */

struct scenario {
	const char *name;
	bool at_most_once;
	int max_attempts, deadline_s; /* 0 = 3, 86400 */
	const char *steps;
	const char *state, *reason, *events; /* reason: a part of it */
	int attempt;
	const char *retry; /* policy, JSON; NULL = the default */
};

static void submit(const struct scenario *s, char id[static PT_ID_SIZE])
{
	struct pt_err err = { 0 };
	struct pt_rec_operation op = { .type = (char *)(uintptr_t) "health",
				       .priority = 5,
				       .timeout_ms = 1000,
				       .max_bytes = 1000,
				       .at_most_once = s->at_most_once,
				       .retry = (char *)(uintptr_t)s->retry };
	struct pt_tx *tx = begin(true);

	pt_id_new(op.id, "op");
	pt_id_copy(op.account, account_id);
	pt_id_copy(op.agent, agent_id);
	op.max_attempts = s->max_attempts ? s->max_attempts : 3;
	op.deadline = pt_gateway_now(&g) + (s->deadline_s ? s->deadline_s : 86400) * 1000;
	pt_assert(pt_op_insert(&g, tx, &op, "{}", &err) == 0);
	finish(tx, 0);
	pt_id_copy(id, op.id);
}

static int load(const char *id, struct pt_rec_operation *op)
{
	struct pt_err err = { 0 };
	struct pt_tx *tx = begin(false);
	int rc;

	pt_id_copy(op->id, id);
	rc = pt_tx_get(tx, &pt_operations, op, &err);
	pt_tx_rollback(tx);
	return rc;
}

static inline void events_of(const char *id, struct pt_buf *b)
{
	pt_auto_rec(operation) op = { 0 };
	struct pt_event e;
	const char *at;

	pt_assert(load(id, &op) == 0);
	at = op.timeline;
	while (pt_timeline_next(&at, &e)) {
		if (b->len)
			pt_buf_chr(b, ' ');
		pt_buf_str(b, e.event);
	}
}

static int count_row(void *arg, void *rec)
{
	++*(int *)arg;
	return 0;
}

static int count(const struct pt_table *t)
{
	struct pt_err err = { 0 };
	struct pt_tx *tx = begin(false);
	int n = 0;

	pt_assert(pt_tx_scan(tx, t, &(struct pt_scan) { 0 }, count_row, &n, &err) == 0);
	pt_tx_rollback(tx);
	return n;
}

/* --- what agents do --- */

struct said { /* one exchange, and what came back */
	int slots;
	const char *holding; /* state of the attempt held, NULL = none */
	bool started, release, goodbye, draining;
	int64_t attempt; /* held or released */
	const char *reason; /* why it is released; NULL = "stopping" */
	uint64_t serial; /* of an exchange that came before others; 0 = the newest */
	size_t leases, cancels, drops;
	int64_t lease_attempt;
	bool urgent;
};

static inline int exchange(const char *id, int instance, struct said *s)
{
	static uint64_t serial;
	struct pt_err err = { 0 };
	struct pt_holding h = { .attempt = s->attempt,
				.state = (char *)(uintptr_t)s->holding,
				.started_at = s->started ? WALL0 + clock_ms : 0 };
	struct pt_attempt_ref r = { .attempt = s->attempt, .reason = (char *)(uintptr_t)(s->reason ? s->reason : "stopping") };
	struct pt_exchange_request q = { .slots = s->slots, .goodbye = s->goodbye, .draining = s->draining };
	struct pt_call c = { .g = &g };
	struct pt_exchange x = { .c = &c, .q = &q, .in_writer = true, .serial = s->serial ? s->serial : ++serial };
	struct pt_tx *tx = begin(true);
	int rc;

	pt_id_copy(c.who.agent, agent_id);
	pt_id_copy(c.who.key, key_id);
	pt_id_copy(q.instance, instances[instance]);
	pt_id_copy(h.operation, id);
	pt_id_copy(r.operation, id);
	if (s->holding)
		q.holding = (struct pt_list) { &h, 1 };
	if (s->release)
		q.released = (struct pt_list) { &r, 1 };
	rc = pt_exchange_run(&x, tx, &err);
	s->leases = x.a.leases.n;
	s->cancels = x.a.cancels.n;
	s->drops = x.a.drops.n;
	s->urgent = x.urgent;
	s->lease_attempt = x.a.leases.n ? ((struct pt_lease *)x.a.leases.items)->attempt : 0;
	pt_shape_release(&pt_exchange_response_shape, &x.a);
	pt_presence_release(&g, &x);
	finish(tx, rc);
	return rc;
}

static int deliver(const char *id, int instance, int64_t attempt, const char *status, const char *code, const char *blob,
		   struct pt_delivery *ret)
{
	struct pt_err err = { 0 };
	struct pt_result_head head = { .status = (char *)(uintptr_t)status };
	struct pt_delivery d = {
		.agent = agent_id, .operation = id, .attempt = attempt, .head = &head, .head_text = "{}", .blob = blob
	};
	struct pt_list leases = { 0 };
	struct pt_tx *tx = begin(true);
	int rc;

	pt_id_copy(head.instance, instances[instance]);
	if (strcmp(status, "succeeded") != 0)
		head.error = (struct pt_error_doc) { .code = (char *)(uintptr_t)(code ? code : status),
						     .message = (char *)(uintptr_t) "as the agent says",
						     .retryable = code && pt_code_retryable(pt_code_from_wire(code)) };
	rc = pt_deliver(&g, tx, &d, &err);
	if (rc == 0 && !d.refused.code)
		rc = pt_refill(&g, tx, agent_id, head.instance, &leases, &err);
	for (size_t i = 0; i < leases.n; i++) {
		struct pt_lease *l = &((struct pt_lease *)leases.items)[i];

		pt_assert(on_lease); /* a scenario has no operation that waits then */
		on_lease(l, instance);
		pt_shape_release(&pt_lease_shape, l);
	}
	free(leases.items);
	finish(tx, rc);
	if (ret)
		*ret = d;
	return rc;
}

static void reap(void)
{
	struct pt_err err = { 0 };
	struct pt_tx *tx = begin(true);
	int rc;

	g.reaped_at = 0; /* the clock jumps here: as if the reaper had looked all the time */
	rc = pt_reap(&g, tx, &err);

	pt_assert(rc == 0);
	finish(tx, rc);
}

static void cancel(const char *id)
{
	struct pt_err err = { 0 };
	pt_auto_rec(operation) op = { 0 };
	struct pt_tx *tx = begin(true);

	pt_id_copy(op.id, id);
	pt_assert(pt_tx_get(tx, &pt_operations, &op, &err) == 0 && pt_op_cancel(&g, tx, &op, "ada", &err) == 0);
	finish(tx, 0);
}

/* --- the words of a scenario --- */

/* lease: an exchange with a free slot that gets it.  none: one that gets nothing.  again: one that gets the same attempt again. */
static bool asks(const char *word, const char *id, int who, int64_t attempt)
{
	struct said s = { .slots = 1 };
	int rc = exchange(id, who, &s);

	if (strcmp(word, "lease") == 0)
		return rc == 0 && s.leases == 1 && s.lease_attempt == attempt + 1;
	if (strcmp(word, "again") == 0)
		return rc == 0 && s.leases == 1 && s.lease_attempt == attempt;
	return rc == 0 && !s.leases;
}

/* hold: has it, not started.  run: runs it.  spool: has its result.  … and what the answer must have: hold!c a cancel, run!d a drop. */
static bool holds(const char *word, const char *id, int who, int64_t attempt)
{
	struct said s = {
		.slots = 1, .attempt = attempt, .holding = *word == 's' ? "spooled" : "running", .started = *word == 'r'
	};
	const char *want = strchr(word, '!');
	int rc = exchange(id, who, &s);

	return rc == 0 && !s.leases && s.cancels == (want && want[1] == 'c') && s.drops == (want && want[1] == 'd');
}

/* release: gives it back.  bye: says goodbye.  quit: says goodbye and that it runs, and gives it back. */
static bool leaves(const char *word, const char *id, int who, int64_t attempt)
{
	struct said s = { .attempt = attempt, .draining = true };

	s.goodbye = strcmp(word, "release") != 0;
	s.release = strcmp(word, "bye") != 0;
	s.started = strcmp(word, "quit") == 0;
	s.holding = s.started ? "running" : NULL;
	return exchange(id, who, &s) == 0;
}

/* done, failed, cancelled, expired: its result; failed/timeout: with this error; done1: of attempt 1; ~ in front: refused as stale; = in
 * front: a duplicate. */
static bool delivers(const char *word, const char *id, int who, int64_t attempt)
{
	char status[48], *code, want = *word == '~' || *word == '=' ? *word++ : 0;
	size_t n = strcspn(word, "123456789");
	struct pt_delivery d;
	int rc;

	snprintf(status, sizeof(status), "%.*s", (int)n, word);
	code = strchr(status, '/');
	if (code)
		*code++ = '\0';
	rc = deliver(id, who, word[n] ? word[n] - '0' : attempt, strcmp(status, "done") == 0 ? "succeeded" : status, code, NULL,
		     &d);
	return rc == 0 && (d.refused.code == PT_E_STALE) == (want == '~') && d.duplicate == (want == '=');
}

static bool is_in(const char *word, const struct pt_rec_operation *op)
{
	static const char *const queues[] = { "done", "ready", "parked", "leased" };

	return strcmp(word, pt_op_state_name((enum pt_op_state)op->state)) == 0 || strcmp(word, queues[op->queue]) == 0;
}

static inline bool step(const char *word, const char *id)
{
	pt_auto_rec(operation) op = { 0 };
	int who = 0;

	pt_assert(load(id, &op) == 0);
	if (word[0] == 'B' && word[1] == ':') {
		who = 1;
		word += 2;
	}
	if (*word == '+') { /* time goes by, in ms */
		clock_ms += strtoll(word + 1, NULL, 10);
		reap();
		return true;
	}
	if (*word == '?')
		return is_in(word + 1, &op);
	if (strcmp(word, "cancel") == 0) {
		cancel(id);
		return true;
	}
	if (strcmp(word, "lease") == 0 || strcmp(word, "none") == 0 || strcmp(word, "again") == 0)
		return asks(word, id, who, op.attempt);
	if (strncmp(word, "hold", 4) == 0 || strncmp(word, "run", 3) == 0 || strcmp(word, "spool") == 0)
		return holds(word, id, who, op.attempt);
	if (strcmp(word, "release") == 0 || strcmp(word, "bye") == 0 || strcmp(word, "quit") == 0)
		return leaves(word, id, who, op.attempt);
	return delivers(word, id, who, op.attempt);
}
#endif
