/* The life of operations on the database in memory, with a clock of our own: scenarios as lines of words, with the state, the reason and the
 * timeline that must come out.  No HTTP: exchanges and results are given to the functions behind it. */
#include "lifecycle_util.h"

#define ACC "accepted"
static const struct scenario scenarios[] = {
	{ "runs and succeeds", 0, 0, 0, "?ready lease ?leased run ?running spool done", "succeeded", NULL,
	  ACC " leased started succeeded", 1 },
	{ "a result without a word before", 0, 0, 0, "lease done", "succeeded", NULL, ACC " leased succeeded", 1 },
	{ "fails as the agent says", 0, 0, 0, "lease run failed", "failed", "as the agent says", ACC " leased started failed",
	  1 },
	{ "stays while the lease is renewed", 0, 0, 0,
	  "lease run +25000 run +25000 run +25000 run +25000 run +25000 run ?running +59000 ?running", "running", NULL,
	  ACC " leased started", 1 },
	{ "a lost answer is sent again, same attempt", 0, 0, 0, "lease +1000 none +1500 again +2500 again hold +3000 hold",
	  "leased", NULL, ACC " leased", 1 },
	/* lease lost */
	{ "lost: parked, ready, run again", 0, 0, 0, "lease run +61000 ?queued ?parked B:none +1100 ?ready B:lease B:run B:done",
	  "succeeded", NULL, ACC " leased started lease_lost leased started succeeded", 2 },
	{ "lost: the backoff grows", 0, 9, 0,
	  "lease +61000 +1100 lease +61000 +1100 ?parked +1000 ?ready lease +61000 +2100 ?parked +2000 ?ready", "queued",
	  "not heard of for 60 s", ACC " leased lease_lost leased lease_lost leased lease_lost", 3 },
	{ "lost max_attempts times", 0, 2, 0, "lease +61000 +2000 lease run +61000", "failed", "attempt 2 of 2 lost its lease",
	  ACC " leased lease_lost leased started lease_lost failed", 2 },
	{ "lost, at-most-once", 1, 0, 0, "lease run +61000", "unknown", "may have run", ACC " leased started lease_lost unknown",
	  1 },
	{ "lost before it was said to start, at-most-once", 1, 0, 0, "lease +61000", "unknown", "may have run",
	  ACC " leased lease_lost unknown", 1 },
	{ "lost: the instance that comes back drops it", 0, 0, 0, "lease run +61000 +2000 B:lease run!d B:run B:done",
	  "succeeded", NULL, ACC " leased started lease_lost leased started succeeded", 2 },
	/* given back */
	{ "released: queued again at once", 0, 0, 0, "lease run release ?ready B:lease", "leased", NULL,
	  ACC " leased started released leased", 2 },
	{ "released again and again is no failure", 0, 1, 0, "lease release lease release lease release ?ready", "queued",
	  "stopping", ACC " leased released leased released leased released", 3 },
	{ "what was released is no try", 0, 2, 0, "lease release lease run release lease +61000 ?parked +5000 lease +61000",
	  "failed", "attempt 2 of 2 lost its lease",
	  ACC " leased released leased started released leased lease_lost leased lease_lost failed", 4 },
	{ "released for ever makes no loop", 0, 0, 0,
	  "lease release lease release lease release lease release lease release ?ready lease release ?parked none +32001 lease release +32001 ?ready",
	  "queued", NULL,
	  ACC " leased released leased released leased released leased released leased released leased released leased released",
	  7 },
	{ "released unstarted, at-most-once", 1, 0, 0, "lease hold release ?ready B:lease B:run B:done", "succeeded", NULL,
	  ACC " leased released leased started succeeded", 2 },
	{ "released started, at-most-once", 1, 0, 0, "lease run release", "unknown", "was given back and may have run",
	  ACC " leased started released unknown", 1 },
	{ "goodbye gives back", 0, 0, 0, "lease run bye ?ready", "queued", "instance is stopping", ACC " leased started released",
	  1 },
	{ "goodbye that tells of the start, at-most-once", 1, 0, 0, "lease quit", "unknown", "may have run",
	  ACC " leased started released unknown", 1 },
	{ "goodbye that tells of the start", 0, 0, 0, "lease quit ?ready lease done", "succeeded", NULL,
	  ACC " leased started released leased succeeded", 2 },
	{ "goodbye, at-most-once and started", 1, 0, 0, "lease run bye", "unknown", "may have run",
	  ACC " leased started released unknown", 1 },
	/* cancel in each state */
	{ "cancelled while ready", 0, 0, 0, "cancel none", "cancelled", "cancelled by ada", ACC " cancel_requested cancelled",
	  0 },
	{ "cancelled while parked", 0, 0, 0, "lease +61000 ?parked cancel +5000 none", "cancelled", "cancelled by ada",
	  ACC " leased lease_lost cancel_requested cancelled", 1 },
	{ "cancelled while leased", 0, 0, 0, "lease cancel ?leased hold!c cancelled", "cancelled", "as the agent says",
	  ACC " leased cancel_requested cancelled", 1 },
	{ "cancelled while running", 0, 0, 0, "lease run cancel ?running run!c run!c cancelled", "cancelled", NULL,
	  ACC " leased started cancel_requested cancelled", 1 },
	{ "cancelled, but it was done before", 0, 0, 0, "lease run cancel run!c done", "succeeded", NULL,
	  ACC " leased started cancel_requested succeeded", 1 },
	{ "cancelled twice", 0, 0, 0, "lease cancel cancel ?leased", "leased", "cancelled by ada", ACC " leased cancel_requested",
	  1 },
	{ "cancelled after its end", 0, 0, 0, "lease done cancel", "succeeded", NULL, ACC " leased succeeded", 1 },
	{ "cancelled, then lost", 0, 0, 0, "lease run cancel +61000", "cancelled", "did not confirm",
	  ACC " leased started cancel_requested lease_lost cancelled", 1 },
	{ "cancelled, then released", 0, 0, 0, "lease run cancel release", "cancelled", NULL,
	  ACC " leased started cancel_requested released cancelled", 1 },
	{ "cancelled, at-most-once, then lost", 1, 0, 0, "lease run cancel +61000", "cancelled", "did not confirm",
	  ACC " leased started cancel_requested lease_lost cancelled", 1 },
	{ "cancelled and held for ever: the grace ends", 0, 0, 0,
	  "lease run cancel +20000 run!c +20000 run!c +20000 run!c +20000 run!c +20000 run!c +20000 run!c ?running +20000 run!c +20000 run!c "
	  "+20000 run!c +20000 run!d",
	  "cancelled", "did not confirm", ACC " leased started cancel_requested lease_lost cancelled", 1 },
	/* deadline in each state */
	{ "deadline while ready", 0, 0, 10, "+10001 none", "expired", "before any agent instance could take it", ACC " expired",
	  0 },
	{ "deadline while parked", 0, 0, 62, "lease +61000 ?parked +1100", "expired", "waited for another attempt",
	  ACC " leased lease_lost expired", 1 },
	{ "deadline while leased: told, then its result", 0, 0, 10, "lease hold +10001 ?leased hold!c expired", "expired",
	  "as the agent says", ACC " leased expired", 1 },
	{ "deadline while running: told, then lost", 0, 0, 10, "lease run +10001 ?running run!c +61000", "expired",
	  "during attempt 1", ACC " leased started lease_lost expired", 1 },
	{ "deadline and lease end together", 0, 0, 61, "lease run +61500", "expired", "during attempt 1",
	  ACC " leased started lease_lost expired", 1 },
	{ "deadline passed, but it was done", 0, 0, 10, "lease run +10001 done", "succeeded", NULL,
	  ACC " leased started succeeded", 1 },
	{ "deadline passed, then started", 0, 0, 10, "lease +10001 run!c +100 run!c ?running expired", "expired", NULL,
	  ACC " leased started expired", 1 },
	{ "deadline passed and held for ever: the grace ends", 0, 0, 10,
	  "lease run +10001 run!c +30000 run!c +30000 run!c +30000 run!c +30000 run!c +30000 run!c +30000 run!c +30000 run!d",
	  "expired", "during attempt 1", ACC " leased started lease_lost expired", 1 },
	/* results that come late, twice, or too late */
	{ "late result while parked", 0, 0, 0, "lease run +61000 ?parked done", "succeeded", NULL,
	  ACC " leased started lease_lost succeeded", 1 },
	{ "late result while ready", 0, 0, 0, "lease run +61000 +2000 ?ready done none", "succeeded", NULL,
	  ACC " leased started lease_lost succeeded", 1 },
	{ "late result after a release", 0, 0, 0, "lease run release done", "succeeded", NULL,
	  ACC " leased started released succeeded", 1 },
	{ "stale result while the next attempt runs", 0, 0, 0, "lease run +61000 +2000 B:lease ~done1 ?leased B:done",
	  "succeeded", NULL, ACC " leased started lease_lost leased result_refused succeeded", 2 },
	{ "stale result after the next attempt's", 0, 0, 0, "lease run +61000 +2000 B:lease B:done ~failed1", "succeeded", NULL,
	  ACC " leased started lease_lost leased succeeded result_refused", 2 },
	{ "result of an attempt that was never leased", 0, 0, 0, "~done1 ?ready", "queued", NULL, ACC " result_refused", 0 },
	{ "result from the future", 0, 0, 0, "lease ~done2 ?leased", "leased", NULL, ACC " leased result_refused", 1 },
	{ "result after unknown", 1, 0, 0, "lease run +61000 ~done", "unknown", "may have run",
	  ACC " leased started lease_lost unknown result_refused", 1 },
	{ "result after failed for its attempts", 0, 1, 0, "lease +61000 ~done", "failed", "attempt 1 of 1",
	  ACC " leased lease_lost failed result_refused", 1 },
	{ "the same result again", 0, 0, 0, "lease run done =done =done =failed", "succeeded", NULL,
	  ACC " leased started succeeded", 1 },
	/* results that are errors, with a retry policy */
	{ "failed, retryable: tried again", 0, 0, 0,
	  "lease run failed/connect_failed ?queued ?parked none +1001 ?ready B:lease B:run B:done", "succeeded", NULL,
	  ACC " leased started attempt_failed leased started succeeded", 2, "{\"on\":[\"retryable\"]}" },
	{ "failed, and why it waits", 0, 0, 0, "lease failed/timeout ?parked", "queued",
	  "attempt 1 of 3 failed: as the agent says", ACC " leased attempt_failed", 1, "{\"on\":[\"retryable\"]}" },
	{ "failed, not retryable", 0, 0, 0, "lease run failed/query_failed", "failed", "as the agent says",
	  ACC " leased started failed", 1, "{\"on\":[\"retryable\"]}" },
	{ "failed with a code that is named", 0, 0, 0, "lease failed/query_failed ?parked +1001 lease done", "succeeded", NULL,
	  ACC " leased attempt_failed leased succeeded", 2, "{\"on\":[\"lost\",\"query_failed\"]}" },
	{ "failed without a policy", 0, 0, 0, "lease failed/timeout", "failed", "as the agent says", ACC " leased failed", 1 },
	{ "failed max_attempts times", 0, 2, 0, "lease failed/timeout +1001 lease failed/timeout", "failed", "as the agent says",
	  ACC " leased attempt_failed leased failed", 2, "{\"on\":[\"timeout\"]}" },
	{ "failed: the pauses grow up to their bound", 0, 9, 0,
	  "lease failed/timeout +99 ?parked +2 lease failed/timeout +199 ?parked +2 lease failed/timeout +249 ?parked +2 lease failed/timeout "
	  "+249 ?parked +2 ?ready",
	  "queued", NULL, ACC " leased attempt_failed leased attempt_failed leased attempt_failed leased attempt_failed", 4,
	  "{\"backoff_ms\":100,\"max_backoff_ms\":250,\"on\":[\"timeout\"]}" },
	{ "policy without lost: a lost attempt ends it", 0, 0, 0, "lease run +61000", "failed", "attempt 1 of 3 lost its lease",
	  ACC " leased started lease_lost failed", 1, "{\"on\":[\"retryable\"]}" },
	{ "given back, whatever the policy", 0, 1, 0, "lease run release ?ready", "queued", "was given back: stopping",
	  ACC " leased started released", 1, "{\"on\":[\"retryable\"]}" },
	{ "the failed result again", 0, 0, 0,
	  "lease failed/timeout =failed/timeout +1001 lease =failed/timeout1 =done1 ~done3 run done =failed/timeout1 =done",
	  "succeeded", NULL, ACC " leased attempt_failed leased result_refused started succeeded", 2, "{\"on\":[\"timeout\"]}" },
	{ "lost, then its failed result comes", 0, 0, 0,
	  "lease run +61000 ?parked failed/timeout ?parked +1001 ?ready B:lease ~done3 B:done", "succeeded", NULL,
	  ACC " leased started lease_lost attempt_failed leased result_refused succeeded", 2, "{\"on\":[\"lost\",\"timeout\"]}" },
	{ "failed after a cancel", 0, 0, 0, "lease run cancel failed/timeout", "failed", "as the agent says",
	  ACC " leased started cancel_requested failed", 1, "{\"on\":[\"timeout\"]}" },
	{ "failed, and no time for another", 0, 0, 10, "lease +9500 failed/timeout", "failed", "as the agent says",
	  ACC " leased failed", 1, "{\"on\":[\"timeout\"]}" },
	{ "failed after the deadline", 0, 0, 10, "lease +10001 failed/timeout", "failed", "as the agent says",
	  ACC " leased failed", 1, "{\"on\":[\"timeout\"]}" },
	{ "an attempt that its own limit ended", 0, 0, 0, "lease run expired/deadline_exceeded ?parked +1001 lease done",
	  "succeeded", NULL, ACC " leased started attempt_failed leased succeeded", 2, "{\"on\":[\"deadline_exceeded\"]}" },
	{ "cancelled by the agent itself is no failure", 0, 0, 0, "lease run cancelled/cancelled", "cancelled",
	  "as the agent says", ACC " leased started cancelled", 1, "{\"on\":[\"cancelled\"]}" },
	{ "failed, at-most-once", 1, 0, 0, "lease run failed/timeout", "failed", "as the agent says",
	  ACC " leased started failed", 1, "{\"on\":[\"timeout\"]}" },
	{ "cancelled before the next try", 0, 0, 0, "lease failed/timeout cancel", "cancelled", "cancelled by ada",
	  ACC " leased attempt_failed cancel_requested cancelled", 1, "{\"on\":[\"timeout\"]}" },
	{ "deadline before the next try is taken", 0, 0, 60, "lease failed/timeout +50001 ?ready +10000", "expired",
	  "waited for another attempt; attempt 1 of 3 failed", ACC " leased attempt_failed expired", 1,
	  "{\"backoff_ms\":50000,\"on\":[\"timeout\"]}" },
	/* time limits of those who renew for ever */
	{ "held for ever and not started", 0, 0, 0,
	  "lease hold +50000 hold +50000 hold +50000 hold +50000 hold +50000 hold +50000 hold +50000 hold +50000 hold +50000 hold +50000 hold "
	  "+50000 hold +50000 hold ?leased +50000 hold +50000 ?parked hold!d",
	  "queued", "did not start it within 600 s", ACC " leased lease_lost", 1 },
	{ "held for ever and not started, at-most-once", 1, 0, 0,
	  "lease hold +50000 hold +50000 hold +50000 hold +50000 hold +50000 hold +50000 hold +50000 hold +50000 hold +50000 hold +50000 hold "
	  "+50000 hold +50000 hold ?leased +50000 hold +50000 hold!d",
	  "unknown", "may have run", ACC " leased lease_lost unknown", 1 },
	{ "runs beyond its limit", 0, 0, 0,
	  "lease run +50000 run +50000 run +50000 run +50000 run +50000 run +50000 run +50000 run +50000 run +50000 run +50000 run "
	  "+50000 run +50000 run +50000 run!c +50000 run!c +50000 run!c +50000 run!c ?running +50000 run!d ?parked",
	  "queued", "asked to stop it and did not within 120 s", ACC " leased started stop_requested lease_lost", 1 },
	{ "runs beyond its limit, then stops", 0, 0, 0,
	  "lease run +50000 run +50000 run +50000 run +50000 run +50000 run +50000 run +50000 run +50000 run +50000 run +50000 run "
	  "+50000 run +50000 run +50000 run!c expired/deadline_exceeded",
	  "expired", "as the agent says", ACC " leased started stop_requested expired", 1 },
	{ "spooled for longer than it may run", 0, 0, 0,
	  "lease spool +50000 spool +50000 spool +50000 spool +50000 spool +50000 spool +50000 spool +50000 spool +50000 spool +50000 spool "
	  "+50000 spool +50000 spool +50000 spool +50000 spool +50000 spool ?leased done",
	  "succeeded", NULL, ACC " leased succeeded", 1 },
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
	is_int(count(&pt_dead_letters), pt_op_needs_person((enum pt_op_state)op.state), "%s: dead letter", s->name);
	clock_ms += 2 * RETENTION_MS + 90000000; /* nothing of it stays for the next one */
	for (int i = 0; i < 4; i++) {
		reap();
		clock_ms += 2 * RETENTION_MS;
	}
	is_int(count(&pt_operations) + count(&pt_inputs) + count(&pt_results) + count(&pt_leases) + count(&pt_dead_letters), 0,
	       "%s: nothing stays", s->name);
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
	rc = pt_deliver(&g, tx, &d, &err);
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
	struct pt_rec_operation op = { .type = (char *)(uintptr_t) "health", .priority = 5, .max_attempts = 3 };
	struct pt_tx *tx = begin(true);

	pt_assert(input);
	memset(input, ' ', bytes);
	memcpy(input, "{}", 2);
	input[bytes] = '\0';
	pt_id_new(op.id, "op");
	pt_id_copy(op.account, account_id);
	pt_id_copy(op.agent, agent_id);
	op.deadline = pt_gateway_now(&g) + 1000;
	pt_assert(pt_op_insert(&g, tx, &op, input, &err) == 0);
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
	ok(deliver(id, 0, 1, "succeeded", NULL, blob, NULL) == 0, "a result with it");
	ok(pt_blob_open(&g, blob, &fd, &err) == 0, "it is there");
	pt_closep(&fd);
	ok(pt_blob_sweep(&g, &err) == 0 && pt_blob_open(&g, blob, &fd, &err) == 0, "the sweep leaves it");
	pt_closep(&fd);
	clock_ms += RETENTION_MS - 10;
	reap();
	is_int(count(&pt_results), 1, "it stays for the time of retention");
	clock_ms += 20;
	reap();
	is_int(count(&pt_operations) + count(&pt_inputs) + count(&pt_results), 0, "then operation, timeline and result go");
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
	const _Atomic uint64_t *expired = &g.m.types[pt_op_index("health")].finished[PT_OP_EXPIRED];
	uint64_t before = *expired, lost = g.m.lease_lost;
	struct said s = { .slots = N };

	for (int i = 0; i < N; i++)
		submit(&soon, id);
	clock_ms += 10001;
	for (int left = N; left > 0; left -= BATCH) {
		is_int(*expired - before, N - left, "%d of %d have expired", N - left, N);
		reap();
	}
	is_int(*expired - before, N, "all have");
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

/* Stopped and continued (or a disk that did not answer): the agents were there all the time, nobody listened. */
static void grace_after_a_pause(void)
{
	struct pt_err err = { 0 };
	uint64_t lost = g.m.lease_lost;
	char id[PT_ID_SIZE];

	pt_id_new(instances[0], "in");
	submit(&(struct scenario) { 0 }, id);
	ok(step("lease", id), "leased before the pause");
	for (int pause = 1; pause <= 2; pause++) {
		int64_t before = pt_gateway_now(&g);
		struct pt_tx *tx;

		clock_ms += pause == 1 ? PT_LEASE_MS + 1 : 0;
		tx = begin(true);
		g.reaped_at = before;
		ok(pt_reap(&g, tx, &err) == 0, "the reaper looks again");
		finish(tx, 0);
	}
	is_int(g.m.lease_lost, lost, "the lease was not lost");
	clock_ms += PT_LEASE_MS + 1;
	reap();
	is_int(g.m.lease_lost - lost, 1, "it is, when nobody is heard of for a whole lease");
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
	grace_after_a_pause();
	too_many_instances();
	teardown();
	return tap_end();
}
