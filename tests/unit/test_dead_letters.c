/* Retry pauses, and what becomes of operations that need a person. */
#include "lifecycle_util.h"

static int settle(const char *id, const char *decision, const char *note, char rerun[static PT_ID_SIZE], struct pt_err *err)
{
	struct pt_rec_settlement s = { .decision = (char *)(uintptr_t)decision,
				       .note = (char *)(uintptr_t)note,
				       .by_name = (char *)(uintptr_t) "ada" };
	pt_auto_rec(operation) op = { 0 };
	struct pt_tx *tx = begin(true);
	int rc;

	pt_id_copy(op.id, id);
	pt_assert(pt_tx_get(tx, &pt_operations, &op, err) == 0);
	rc = pt_dead_letter_settle(&g, tx, &op, &s, err);
	pt_id_copy(rerun, s.rerun);
	finish(tx, rc);
	return rc;
}

static void dead_letters(void)
{
	static const struct {
		const char *steps, *state;
	} ends[] = {
		{ "lease failed", "failed" },
		{ "+10001", "expired" },
		{ "lease run +61000", "unknown" },
	};
	struct pt_rec_operation op = { 0 };
	char id[PT_ID_SIZE], again[PT_ID_SIZE], none[PT_ID_SIZE];
	struct pt_err err = { 0 };

	for (size_t i = 0; i < PT_COUNT(ends); i++) {
		pt_auto_buf events = PT_BUF_INIT(4000), steps = PT_BUF_INIT(100);
		char *save = NULL;
		bool good = true;

		pt_id_new(instances[0], "in");
		submit(&(struct scenario) { .deadline_s = i == 1 ? 10 : 1000,
					    .at_most_once = i == 2,
					    .retry = i ? NULL : "{\"backoff_ms\":7}" },
		       id);
		is_int(settle(id, "done", NULL, again, &err), PT_E_CONFLICT, "what has not ended is not settled: %s", err.msg);
		pt_buf_str(&steps, ends[i].steps);
		for (char *w = strtok_r(steps.p, " ", &save); w; w = strtok_r(NULL, " ", &save))
			good &= step(w, id);
		ok(good, "%s: every step", ends[i].state);
		is_int(count(&pt_dead_letters), 1, "%s is a dead letter", ends[i].state);
		is_int(settle(id, "rerun", "fixed", again, &err), 0, "settled: rerun");
		is_int(count(&pt_dead_letters), 0, "it is none any more");
		ok(load(id, &op) == 0, "it is there");
		is_str(pt_op_state_name((enum pt_op_state)op.state), ends[i].state, "and its state stays");
		pt_rec_operation_release(&op);
		events_of(id, &events);
		ok(strstr(events.p, " settled"), "timeline: %s", events.p);
		ok(load(again, &op) == 0 && strcmp(op.rerun_of, id) == 0 && op.state == PT_OP_QUEUED && !op.attempt,
		   "the new one waits");
		ok(op.deadline - op.created == (i == 1 ? 10000 : 1000000) && op.at_most_once == (i == 2) &&
			   op.max_attempts == 3 && !op.retry == !!i,
		   "with the same fields");
		pt_rec_operation_release(&op);
		is_int(settle(id, "rerun", "fixed", none, &err), 0, "the same decision again is harmless");
		is_str(none, "", "and makes nothing");
		is_int(settle(id, "rerun", "other", none, &err), PT_E_CONFLICT, "another note is another decision: %s", err.msg);
		is_int(settle(id, "done", "fixed", none, &err), PT_E_CONFLICT, "another decision: %s", err.msg);
		is_int(count(&pt_operations), 2, "there is one rerun");
		cancel(again);
		is_int(settle(again, "done", NULL, none, &err), PT_E_CONFLICT, "what was cancelled is not settled: %s", err.msg);
		clock_ms += 2 * RETENTION_MS;
		reap();
		is_int(count(&pt_operations) + count(&pt_inputs) + count(&pt_settlements) + count(&pt_dead_letters), 0,
		       "nothing stays");
	}
}

/* The pause itself, with the real source of randomness: spread over its whole range, never outside. */
static void pauses(void)
{
	struct pt_rec_operation op = { .attempt = 3, .max_attempts = 9, .retry = (char *)(uintptr_t) "{\"backoff_ms\":100}" };
	int64_t (*kept)(int64_t bound) = g.jitter, pause, least = INT64_MAX, most = 0;
	struct pt_err err = { 0 };
	bool good = true;

	g.jitter = NULL;
	for (int i = 0; i < 1000; i++) {
		good &= pt_retry_next(&g, &op, &(struct pt_retry_cause) { .lost = true }, &pause, &err) == 0 && pause >= 1 &&
			pause <= 400;
		least = pause < least ? pause : least;
		most = pause > most ? pause : most;
	}
	ok(good, "the third try waits 1 to 400 ms");
	ok(least < 40 && most > 360, "anything in between: %lld to %lld", (long long)least, (long long)most);
	op.attempt = 9;
	ok(pt_retry_next(&g, &op, &(struct pt_retry_cause) { .lost = true }, &pause, &err) == 0 && pause == -1,
	   "after the last try none");
	g.jitter = kept;
}

int main(void)
{
	setup();
	pauses();
	dead_letters();
	teardown();
	return tap_end();
}
