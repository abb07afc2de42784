/* The life of operations on the database in memory, with a clock of our own: scenarios as lines of words, with the state, the reason and the
 * timeline that must come out.  No HTTP: exchanges and results are given to the functions behind it. */
#include "base/clock.h"
#include "base/id.h"
#include "gateway/exchange.h"
#include "os/file.h"
#include "../tap.h"
#include <stdatomic.h>
#include <sys/stat.h>

enum { RETENTION_MS = 3600000 };
#define WALL0 INT64_C(1760000000000)

static _Atomic int64_t clock_ms = 1000;
static struct pt_gateway g;
static char agent_id[PT_ID_SIZE], key_id[PT_ID_SIZE], account_id[PT_ID_SIZE], instances[2][PT_ID_SIZE];

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

static void setup(void)
{
	struct pt_err err = { 0 };
	struct pt_rec_agent a = { .name = (char *)(uintptr_t) "warehouse", .kind = (char *)(uintptr_t) "generic", .enabled = true };
	struct pt_rec_key k = { .hash = (char *)(uintptr_t) "none" };
	struct pt_rec_account acc = { .name = (char *)(uintptr_t) "default" };
	static char dir[] = "/tmp/pt-lifecycle-XXXXXX";
	struct pt_tx *tx;

	pt_clock_inject(now_ms);
	g.wall0 = WALL0;
	g.retention_ms = RETENTION_MS;
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
}

/* --- one operation --- */

struct scenario {
	const char *name;
	bool at_most_once;
	int max_attempts, deadline_s; /* 0 = 3, 86400 */
	const char *steps;
	const char *state, *reason, *events; /* reason: a part of it */
	int attempt;
};

static void submit(const struct scenario *s, char id[static PT_ID_SIZE])
{
	struct pt_err err = { 0 };
	struct pt_rec_operation op = { .type = (char *)(uintptr_t) "health", .input = (char *)(uintptr_t) "{}", .priority = 5,
				       .timeout_ms = 1000, .max_bytes = 1000, .at_most_once = s->at_most_once };
	struct pt_tx *tx = begin(true);

	pt_id_new(op.id, "op");
	pt_id_copy(op.account, account_id);
	pt_id_copy(op.agent, agent_id);
	op.max_attempts = s->max_attempts ? s->max_attempts : 3;
	op.deadline = pt_gateway_now(&g) + (s->deadline_s ? s->deadline_s : 86400) * 1000;
	pt_assert(pt_op_insert(&g, tx, &op, &err) == 0);
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

static int add_event(void *arg, void *rec)
{
	struct pt_buf *b = arg;

	if (b->len)
		pt_buf_chr(b, ' ');
	pt_buf_str(b, ((struct pt_rec_event *)rec)->event);
	return 0;
}

static void events_of(const char *id, struct pt_buf *b)
{
	struct pt_err err = { 0 };
	struct pt_rec_event m = { 0 };
	struct pt_tx *tx = begin(false);

	pt_id_copy(m.operation, id);
	pt_assert(pt_tx_scan(tx, &pt_events, &(struct pt_scan){ .match = &m, .n_eq = 1 }, add_event, b, &err) == 0);
	pt_tx_rollback(tx);
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

	pt_assert(pt_tx_scan(tx, t, &(struct pt_scan){ 0 }, count_row, &n, &err) == 0);
	pt_tx_rollback(tx);
	return n;
}

/* --- what agents do --- */

struct said { /* one exchange, and what came back */
	int slots;
	const char *holding; /* state of the attempt held, NULL = none */
	bool started, release, goodbye, draining;
	int64_t attempt;     /* held or released */
	uint64_t serial;     /* of an exchange that came before others; 0 = the newest */
	size_t leases, cancels, drops;
	int64_t lease_attempt;
	bool urgent;
};

static int exchange(const char *id, int instance, struct said *s)
{
	static uint64_t serial;
	struct pt_err err = { 0 };
	struct pt_holding h = { .attempt = s->attempt, .state = (char *)(uintptr_t)s->holding, .started_at = s->started ? WALL0 + clock_ms : 0 };
	struct pt_attempt_ref r = { .attempt = s->attempt, .reason = (char *)(uintptr_t) "stopping" };
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
		q.holding = (struct pt_list){ &h, 1 };
	if (s->release)
		q.released = (struct pt_list){ &r, 1 };
	rc = pt_exchange_run(&x, tx, &err);
	s->leases = x.a.leases.n;
	s->cancels = x.a.cancels.n;
	s->drops = x.a.drops.n;
	s->urgent = x.urgent;
	s->lease_attempt = x.a.leases.n ? ((struct pt_lease *)x.a.leases.items)->attempt : 0;
	pt_shape_release(&pt_exchange_response_shape, &x.a);
	finish(tx, rc);
	return rc;
}

static int deliver(const char *id, int instance, int64_t attempt, const char *status, const char *blob, struct pt_delivery *ret)
{
	struct pt_err err = { 0 };
	struct pt_result_head head = { .status = (char *)(uintptr_t)status };
	struct pt_delivery d = { .agent = agent_id, .operation = id, .attempt = attempt, .head = &head, .head_text = "{}", .blob = blob };
	struct pt_list leases = { 0 };
	struct pt_tx *tx = begin(true);
	int rc;

	pt_id_copy(head.instance, instances[instance]);
	if (strcmp(status, "succeeded") != 0)
		head.error = (struct pt_error_doc){ .code = (char *)(uintptr_t)status, .message = (char *)(uintptr_t) "as the agent says" };
	rc = pt_deliver(&g, tx, &d, &leases, &err);
	pt_assert(!leases.n);
	finish(tx, rc);
	if (ret)
		*ret = d;
	return rc;
}

static void reap(void)
{
	struct pt_err err = { 0 };
	struct pt_tx *tx = begin(true);
	int rc = pt_reap(&g, tx, &err);

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
	struct said s = { .slots = 1, .attempt = attempt, .holding = *word == 's' ? "spooled" : "running", .started = *word == 'r' };
	const char *want = strchr(word, '!');
	int rc = exchange(id, who, &s);

	return rc == 0 && !s.leases && s.cancels == (want && want[1] == 'c') && s.drops == (want && want[1] == 'd');
}

static bool leaves(const char *word, const char *id, int who, int64_t attempt)
{
	struct said s = { .attempt = attempt, .draining = true };

	s.release = strcmp(word, "release") == 0;
	s.goodbye = !s.release;
	return exchange(id, who, &s) == 0;
}

/* done, failed, cancelled, expired: its result; done1: of attempt 1; ~ in front: refused as stale; = in front: a duplicate. */
static bool delivers(const char *word, const char *id, int who, int64_t attempt)
{
	char status[16], want = *word == '~' || *word == '=' ? *word++ : 0;
	size_t n = strcspn(word, "123456789");
	struct pt_delivery d;
	int rc;

	snprintf(status, sizeof(status), "%.*s", (int)n, word);
	rc = deliver(id, who, word[n] ? word[n] - '0' : attempt, strcmp(status, "done") == 0 ? "succeeded" : status, NULL, &d);
	return rc == 0 && (d.refused.code == PT_E_STALE) == (want == '~') && d.duplicate == (want == '=');
}

static bool is_in(const char *word, const struct pt_rec_operation *op)
{
	static const char *const queues[] = { "done", "ready", "parked", "leased" };

	return strcmp(word, pt_op_state_name((enum pt_op_state)op->state)) == 0 || strcmp(word, queues[op->queue]) == 0;
}

static bool step(const char *word, const char *id)
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
	if (strcmp(word, "release") == 0 || strcmp(word, "bye") == 0)
		return leaves(word, id, who, op.attempt);
	return delivers(word, id, who, op.attempt);
}

#define ACC "accepted"
static const struct scenario scenarios[] = {
	{ "runs and succeeds", 0, 0, 0, "?ready lease ?leased run ?running spool done", "succeeded", NULL, ACC " leased started succeeded", 1 },
	{ "a result without a word before", 0, 0, 0, "lease done", "succeeded", NULL, ACC " leased succeeded", 1 },
	{ "fails as the agent says", 0, 0, 0, "lease run failed", "failed", "as the agent says", ACC " leased started failed", 1 },
	{ "stays while the lease is renewed", 0, 0, 0, "lease run +25000 run +25000 run +25000 run +25000 run +25000 run ?running +59000 ?running",
	  "running", NULL, ACC " leased started", 1 },
	{ "a lost answer is sent again, same attempt", 0, 0, 0, "lease +1000 none +1500 again +2500 again hold +3000 hold", "leased", NULL,
	  ACC " leased", 1 },
	/* lease lost */
	{ "lost: parked, ready, run again", 0, 0, 0, "lease run +61000 ?queued ?parked B:none +1100 ?ready B:lease B:run B:done", "succeeded",
	  NULL, ACC " leased started lease_lost leased started succeeded", 2 },
	{ "lost: the backoff grows", 0, 9, 0, "lease +61000 +1100 lease +61000 +1100 ?parked +1000 ?ready lease +61000 +2100 ?parked +2000 ?ready",
	  "queued", "not heard of for 60 s", ACC " leased lease_lost leased lease_lost leased lease_lost", 3 },
	{ "lost max_attempts times", 0, 2, 0, "lease +61000 +2000 lease run +61000", "failed", "attempt 2 of 2 lost its lease",
	  ACC " leased lease_lost leased started lease_lost failed", 2 },
	{ "lost, at-most-once", 1, 0, 0, "lease run +61000", "unknown", "may have run", ACC " leased started lease_lost unknown", 1 },
	{ "lost before it was said to start, at-most-once", 1, 0, 0, "lease +61000", "unknown", "may have run",
	  ACC " leased lease_lost unknown", 1 },
	{ "lost: the instance that comes back drops it", 0, 0, 0, "lease run +61000 +2000 B:lease run!d B:run B:done", "succeeded", NULL,
	  ACC " leased started lease_lost leased started succeeded", 2 },
	/* given back */
	{ "released: queued again at once", 0, 0, 0, "lease run release ?ready B:lease", "leased", NULL, ACC " leased started released leased", 2 },
	{ "released again and again is no failure", 0, 1, 0, "lease release lease release lease release ?ready", "queued", "stopping",
	  ACC " leased released leased released leased released", 3 },
	{ "what was released is no try", 0, 2, 0, "lease release lease run release lease +61000 ?parked +5000 lease +61000", "failed",
	  "attempt 2 of 2 lost its lease", ACC " leased released leased started released leased lease_lost leased lease_lost failed", 4 },
	{ "released for ever makes no loop", 0, 0, 0,
	  "lease release lease release lease release lease release lease release ?ready lease release ?parked none +32001 lease release +32001 ?ready",
	  "queued", NULL, ACC " leased released leased released leased released leased released leased released leased released leased released",
	  7 },
	{ "released unstarted, at-most-once", 1, 0, 0, "lease hold release ?ready B:lease B:run B:done", "succeeded", NULL,
	  ACC " leased released leased started succeeded", 2 },
	{ "released started, at-most-once", 1, 0, 0, "lease run release", "unknown", "was given back and may have run",
	  ACC " leased started released unknown", 1 },
	{ "goodbye gives back", 0, 0, 0, "lease run bye ?ready", "queued", "instance is stopping", ACC " leased started released", 1 },
	{ "goodbye, at-most-once and started", 1, 0, 0, "lease run bye", "unknown", "may have run", ACC " leased started released unknown", 1 },
	/* cancel in each state */
	{ "cancelled while ready", 0, 0, 0, "cancel none", "cancelled", "cancelled by ada", ACC " cancel_requested cancelled", 0 },
	{ "cancelled while parked", 0, 0, 0, "lease +61000 ?parked cancel +5000 none", "cancelled", "cancelled by ada",
	  ACC " leased lease_lost cancel_requested cancelled", 1 },
	{ "cancelled while leased", 0, 0, 0, "lease cancel ?leased hold!c cancelled", "cancelled", "as the agent says",
	  ACC " leased cancel_requested cancelled", 1 },
	{ "cancelled while running", 0, 0, 0, "lease run cancel ?running run!c run!c cancelled", "cancelled", NULL,
	  ACC " leased started cancel_requested cancelled", 1 },
	{ "cancelled, but it was done before", 0, 0, 0, "lease run cancel run!c done", "succeeded", NULL,
	  ACC " leased started cancel_requested succeeded", 1 },
	{ "cancelled twice", 0, 0, 0, "lease cancel cancel ?leased", "leased", "cancelled by ada", ACC " leased cancel_requested", 1 },
	{ "cancelled after its end", 0, 0, 0, "lease done cancel", "succeeded", NULL, ACC " leased succeeded", 1 },
	{ "cancelled, then lost", 0, 0, 0, "lease run cancel +61000", "cancelled", "did not confirm",
	  ACC " leased started cancel_requested lease_lost cancelled", 1 },
	{ "cancelled, then released", 0, 0, 0, "lease run cancel release", "cancelled", NULL,
	  ACC " leased started cancel_requested released cancelled", 1 },
	{ "cancelled, at-most-once, then lost", 1, 0, 0, "lease run cancel +61000", "cancelled", "did not confirm",
	  ACC " leased started cancel_requested lease_lost cancelled", 1 },
	{ "cancelled and held for ever: the grace ends", 0, 0, 0,
	  "lease run cancel +20000 run!c +20000 run!c +20000 run!c +20000 run!c +20000 run!c +20000 run!c ?running +20000 run!c +20000 run!c "
	  "+20000 run!c +20000 run!d", "cancelled", "did not confirm", ACC " leased started cancel_requested lease_lost cancelled", 1 },
	/* deadline in each state */
	{ "deadline while ready", 0, 0, 10, "+10001 none", "expired", "before any agent instance could take it", ACC " expired", 0 },
	{ "deadline while parked", 0, 0, 62, "lease +61000 ?parked +1100", "expired", "waited for another attempt",
	  ACC " leased lease_lost expired", 1 },
	{ "deadline while leased: told, then its result", 0, 0, 10, "lease hold +10001 ?leased hold!c expired", "expired", "as the agent says",
	  ACC " leased expired", 1 },
	{ "deadline while running: told, then lost", 0, 0, 10, "lease run +10001 ?running run!c +61000", "expired", "during attempt 1",
	  ACC " leased started lease_lost expired", 1 },
	{ "deadline and lease end together", 0, 0, 61, "lease run +61500", "expired", "during attempt 1", ACC " leased started lease_lost expired", 1 },
	{ "deadline passed, but it was done", 0, 0, 10, "lease run +10001 done", "succeeded", NULL, ACC " leased started succeeded", 1 },
	{ "deadline passed, then started", 0, 0, 10, "lease +10001 run!c +100 run!c ?running expired", "expired", NULL,
	  ACC " leased started expired", 1 },
	{ "deadline passed and held for ever: the grace ends", 0, 0, 10,
	  "lease run +10001 run!c +30000 run!c +30000 run!c +30000 run!c +30000 run!c +30000 run!c +30000 run!c +30000 run!d", "expired", "during attempt 1",
	  ACC " leased started lease_lost expired", 1 },
	/* results that come late, twice, or too late */
	{ "late result while parked", 0, 0, 0, "lease run +61000 ?parked done", "succeeded", NULL, ACC " leased started lease_lost succeeded", 1 },
	{ "late result while ready", 0, 0, 0, "lease run +61000 +2000 ?ready done none", "succeeded", NULL,
	  ACC " leased started lease_lost succeeded", 1 },
	{ "late result after a release", 0, 0, 0, "lease run release done", "succeeded", NULL, ACC " leased started released succeeded", 1 },
	{ "stale result while the next attempt runs", 0, 0, 0, "lease run +61000 +2000 B:lease ~done1 ?leased B:done", "succeeded", NULL,
	  ACC " leased started lease_lost leased result_refused succeeded", 2 },
	{ "stale result after the next attempt's", 0, 0, 0, "lease run +61000 +2000 B:lease B:done ~failed1", "succeeded", NULL,
	  ACC " leased started lease_lost leased succeeded result_refused", 2 },
	{ "result of an attempt that was never leased", 0, 0, 0, "~done1 ?ready", "queued", NULL, ACC " result_refused", 0 },
	{ "result from the future", 0, 0, 0, "lease ~done2 ?leased", "leased", NULL, ACC " leased result_refused", 1 },
	{ "result after unknown", 1, 0, 0, "lease run +61000 ~done", "unknown", "may have run",
	  ACC " leased started lease_lost unknown result_refused", 1 },
	{ "result after failed for its attempts", 0, 1, 0, "lease +61000 ~done", "failed", "attempt 1 of 1",
	  ACC " leased lease_lost failed result_refused", 1 },
	{ "the same result again", 0, 0, 0, "lease run done =done =done =failed", "succeeded", NULL, ACC " leased started succeeded", 1 },
	{ "spooled results are not dropped", 0, 0, 0, "lease run +61000 +2000 B:lease spool ~done1 B:done", "succeeded", NULL,
	  ACC " leased started lease_lost leased result_refused succeeded", 2 },
};

static void run_scenario(const struct scenario *s)
{
	pt_auto_buf steps = PT_BUF_INIT(2000);
	pt_auto_buf events = PT_BUF_INIT(4000);
	pt_auto_rec(operation) op = { 0 };
	char id[PT_ID_SIZE], *save = NULL;
	bool good = true;

	for (int i = 0; i < 2; i++)
		pt_id_new(instances[i], "in");
	submit(s, id);
	pt_buf_str(&steps, s->steps);
	for (char *w = strtok_r(steps.p, " ", &save); w && good; w = strtok_r(NULL, " ", &save))
		if (!(good = step(w, id)))
			printf("# %s: at '%s'\n", s->name, w);
	pt_assert(load(id, &op) == 0);
	events_of(id, &events);
	ok(good, "%s: every step", s->name);
	is_str(pt_op_state_name((enum pt_op_state)op.state), s->state, "%s: state", s->name);
	is_str(events.p, s->events, "%s: timeline", s->name);
	is_int(op.attempt, s->attempt, "%s: attempt", s->name);
	ok(!s->reason || (op.reason && strstr(op.reason, s->reason)), "%s: reason (%s)", s->name, op.reason ? op.reason : "none");
	ok(pt_op_terminal((enum pt_op_state)op.state) == (op.queue == PT_QUEUE_DONE) && !op.finished_at == (op.queue != PT_QUEUE_DONE),
	   "%s: queue and end fit the state", s->name);
	is_int(count(&pt_leases), op.queue == PT_QUEUE_LEASED, "%s: leases", s->name);
	clock_ms += 2 * RETENTION_MS + 90000000; /* nothing of it stays for the next one */
	for (int i = 0; i < 4; i++) {
		reap();
		clock_ms += 2 * RETENTION_MS;
	}
	is_int(count(&pt_operations) + count(&pt_events) + count(&pt_results) + count(&pt_leases), 0, "%s: nothing stays", s->name);
}

/* --- one by one --- */

static void told_now_and_then(void)
{
	struct scenario plain = { 0 };
	struct said s = { .slots = 1, .attempt = 1, .holding = "running", .started = true };
	char id[PT_ID_SIZE];

	pt_id_new(instances[0], "in");
	submit(&plain, id);
	ok(step("lease", id) && step("run", id), "an attempt runs");
	cancel(id);
	exchange(id, 0, &s);
	ok(s.cancels == 1 && s.urgent, "its cancel is told at once");
	exchange(id, 0, &s);
	ok(s.cancels == 1 && !s.urgent, "an instance that needs time to stop is not told at once again");
	clock_ms += PT_REDELIVER_MS;
	exchange(id, 0, &s);
	ok(s.cancels == 1 && s.urgent, "but some time later: the answer may have been lost");
	ok(step("cancelled", id), "then it stops");
	exchange(id, 0, &s);
	ok(s.drops == 1, "what it still holds it shall drop");
}

static void others(void)
{
	struct pt_err err = { 0 };
	struct scenario plain = { 0 };
	struct pt_list leases = { 0 };
	struct pt_delivery d = { .agent = "ag_other", .attempt = 1 };
	struct pt_list types = { 0 };
	char id[PT_ID_SIZE];
	struct pt_tx *tx;
	int rc;

	submit(&plain, id);
	pt_id_new(instances[0], "in");
	ok(step("lease", id), "an attempt is leased");
	d.operation = id;
	tx = begin(true);
	rc = pt_deliver(&g, tx, &d, &leases, &err);
	finish(tx, rc);
	is_int(rc, PT_E_NOT_FOUND, "another agent's operation does not exist");
	is_int(pt_presence_slots(&g, agent_id, instances[0]), 1, "slots of an instance");
	is_int(pt_presence_slots(&g, "ag_other", instances[0]), 0, "another agent has none there");
	ok(!pt_presence_takes(&g, "ag_other", instances[0], &types), "nor leases to it");
	ok(pt_presence_takes(&g, agent_id, instances[0], &types), "the agent does");
	clock_ms += 20000;
	ok(!pt_presence_takes(&g, agent_id, instances[0], &types), "but not when it was not heard of for a while");
	ok(step("done", id), "and it ends");
}

/* An older exchange that is looked at again must neither lease nor take the newer one's place. */
static void older_exchange(void)
{
	struct said newer = { .slots = 1, .draining = true }, older = { .slots = 1, .serial = 1 };
	char id[PT_ID_SIZE];

	pt_id_new(instances[0], "in");
	submit(&(struct scenario){ 0 }, id);
	ok(exchange(id, 0, &newer) == 0 && !newer.leases, "the instance drains");
	ok(exchange(id, 0, &older) == 0 && !older.leases, "what it said before leases nothing");
	is_int(pt_presence_slots(&g, agent_id, instances[0]), 0, "and does not undo what it said since");
	cancel(id);
}

static void submit_large(size_t bytes)
{
	struct pt_err err = { 0 };
	pt_auto(pt_freep) char *input = malloc(bytes + 1);
	struct pt_rec_operation op = { .type = (char *)(uintptr_t) "health", .input = input, .priority = 5, .max_attempts = 3 };
	struct pt_tx *tx = begin(true);

	pt_assert(input);
	memset(input, ' ', bytes);
	memcpy(input, "{}", 2);
	input[bytes] = '\0';
	pt_id_new(op.id, "op");
	pt_id_copy(op.account, account_id);
	pt_id_copy(op.agent, agent_id);
	op.deadline = pt_gateway_now(&g) + 1000;
	pt_assert(pt_op_insert(&g, tx, &op, &err) == 0);
	finish(tx, 0);
}

static void bounded_answers(void)
{
	enum { N = 20, EACH = 1000 * 1000 };
	struct said s = { .slots = 100 };
	size_t got = 0, rounds = 0;

	pt_id_new(instances[0], "in");
	for (int i = 0; i < N; i++)
		submit_large(EACH);
	do {
		s.leases = 0;
		exchange("op_none", 0, &s);
		got += s.leases;
		rounds++;
		ok(s.leases * EACH <= 8 * 1024 * 1024, "an answer holds %zu large inputs", s.leases);
	} while (s.leases && rounds < 10);
	is_int(got, N, "all are leased");
	clock_ms += PT_REDELIVER_MS + 1;
	exchange("op_none", 0, &s);
	ok(s.leases > 1 && s.leases < N, "what is sent again is bounded, too (%zu)", s.leases);
	clock_ms += PT_LEASE_MS + 2000;
	reap();
	is_int(count(&pt_leases), 0, "and they end");
}

static void too_many_instances(void)
{
	enum { MOST = 50000 };
	struct said s = { .slots = 1 };
	int rc = 0, n = 0;

	while (rc == 0 && n <= MOST) {
		pt_id_new(instances[0], "in");
		rc = exchange("op_none", 0, &s);
		n += rc == 0;
	}
	is_int(rc, PT_E_LIMIT, "an agent that makes up instances is stopped");
	ok(n > MOST - 1000 && n <= MOST, "after %d", n);
}

static void retention_with_blob(void)
{
	struct pt_err err = { 0 };
	struct pt_blob_writer *w = NULL;
	struct scenario plain = { 0 };
	pt_auto(pt_freep) char *blob = NULL;
	char id[PT_ID_SIZE];
	int fd = -1;

	pt_id_new(instances[0], "in");
	submit(&plain, id);
	ok(step("lease", id), "an attempt is leased");
	ok(pt_blob_begin(&g, &w, &err) == 0 && pt_blob_write(w, "rows\n", 5, &err) == 0 && pt_blob_commit(w, &blob, &err) == 0, "a blob");
	pt_blob_abort(w);
	ok(deliver(id, 0, 1, "succeeded", blob, NULL) == 0, "a result with it");
	ok(pt_blob_open(&g, blob, &fd, &err) == 0, "it is there");
	pt_closep(&fd);
	ok(pt_blob_sweep(&g, &err) == 0 && pt_blob_open(&g, blob, &fd, &err) == 0, "the sweep leaves it");
	pt_closep(&fd);
	clock_ms += RETENTION_MS - 10;
	reap();
	is_int(count(&pt_results), 1, "it stays for the time of retention");
	clock_ms += 20;
	reap();
	is_int(count(&pt_operations) + count(&pt_events) + count(&pt_results), 0, "then operation, timeline and result go");
	fd = -1;
	ok(pt_blob_open(&g, blob, &fd, &err) < 0, "and the blob");
	free(pt_steal(&blob));
	w = NULL;
	ok(pt_blob_begin(&g, &w, &err) == 0 && pt_blob_commit(w, &blob, &err) == 0, "a blob that no result names");
	pt_blob_abort(w);
	ok(pt_blob_sweep(&g, &err) == 0 && pt_blob_open(&g, blob, &fd, &err) < 0, "is swept at the next start");
}

static void blobs_of_another_database(void)
{
	struct pt_err err = { 0 };
	struct pt_blob_writer *w = NULL;
	pt_auto(pt_freep) char *blob = NULL;
	char path[200];
	int fd = -1;

	snprintf(path, sizeof(path), "%s/database", g.blob_dir);
	ok(pt_blob_begin(&g, &w, &err) == 0 && pt_blob_commit(w, &blob, &err) == 0, "a blob that no result of this database names");
	pt_blob_abort(w);
	ok(pt_file_replace(path, "acc_another", 11, 0600, &err) == 0, "the folder is another database's");
	is_int(pt_blob_sweep(&g, &err), PT_E_CONFLICT, "the gateway does not start");
	ok(strstr(err.msg, "another database") && strstr(err.hint, "--blob-dir"), "says why: %s", err.msg);
	ok(pt_blob_open(&g, blob, &fd, &err) == 0, "and removes nothing");
	pt_closep(&fd);
	ok(unlink(path) == 0 && pt_blob_claim(&g, &err) == 0 && access(path, F_OK) == 0, "a folder of nobody is claimed");
	ok(pt_blob_sweep(&g, &err) == 0, "by the database that sweeps it then");
	ok(pt_blob_open(&g, blob, &fd, &err) < 0, "the orphan is gone");
	ok(unlink(path) == 0, "end");
}

static void batches(void)
{
	enum { N = 1200, BATCH = 500 };
	struct scenario soon = { .deadline_s = 10 };
	char id[PT_ID_SIZE];
	uint64_t before = g.m.finished[PT_OP_EXPIRED], lost = g.m.lease_lost;
	struct said s = { .slots = N };

	for (int i = 0; i < N; i++)
		submit(&soon, id);
	clock_ms += 10001;
	for (int left = N; left > 0; left -= BATCH) {
		is_int(g.m.finished[PT_OP_EXPIRED] - before, N - left, "%d of %d have expired", N - left, N);
		reap();
	}
	is_int(g.m.finished[PT_OP_EXPIRED] - before, N, "all have");
	for (int i = 0; i < N; i++)
		submit(&(struct scenario){ 0 }, id);
	pt_id_new(instances[0], "in");
	exchange(id, 0, &s);
	is_int(s.leases, N, "one exchange leases many");
	clock_ms += PT_LEASE_MS + 1;
	for (int i = 0; i < N; i += BATCH)
		reap();
	is_int(g.m.lease_lost - lost, N, "their leases end in batches");
	is_int(count(&pt_leases), 0, "none stays");
}

static void grace_at_start(void)
{
	struct pt_err err = { 0 };
	char id[PT_ID_SIZE];

	pt_id_new(instances[0], "in");
	submit(&(struct scenario){ 0 }, id);
	/* the batches before left some that are parked or ready; they are older */
	clock_ms += 2 * RETENTION_MS + 90000000;
	for (int i = 0; i < 8; i++) {
		reap();
		clock_ms += 2 * RETENTION_MS;
	}
	submit(&(struct scenario){ 0 }, id);
	ok(step("lease", id), "leased before the gateway was away");
	clock_ms += 10 * PT_LEASE_MS;
	ok(pt_lease_grace(&g, &err) == 0, "it starts again");
	ok(step("+1000", id) && step("run", id) && step("done", id), "the attempt is still current");
}

int main(void)
{
	setup();
	for (size_t i = 0; i < PT_COUNT(scenarios); i++)
		run_scenario(&scenarios[i]);
	told_now_and_then();
	others();
	older_exchange();
	bounded_answers();
	clock_ms += 2 * RETENTION_MS;
	reap();
	retention_with_blob();
	blobs_of_another_database();
	batches();
	grace_at_start();
	too_many_instances();
	teardown();
	return tap_end();
}
