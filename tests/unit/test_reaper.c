/* What a tick of the reaper may and may not do, and exchanges that wait while it, or the end of the gateway, comes. */
#include "lifecycle_util.h"

/* However many wait for the end of their retention: deadlines and lost leases do not wait behind them. */
static void backlog_of_retention(void)
{
	enum { N = 1300 };
	struct pt_rec_operation op = { 0 };
	uint64_t lost = g.m.lease_lost;
	char id[PT_ID_SIZE], leased[PT_ID_SIZE];

	for (int i = 0; i < N; i++) {
		submit(&(struct scenario) { 0 }, id);
		cancel(id);
	}
	clock_ms += RETENTION_MS - 61000;
	pt_id_new(instances[0], "in");
	submit(&(struct scenario) { 0 }, leased);
	ok(step("lease", leased), "one is leased");
	submit(&(struct scenario) { .deadline_s = 61 }, id);
	clock_ms += 61001;
	reap();
	ok(load(id, &op) == 0 && op.state == PT_OP_EXPIRED, "its deadline is not late");
	pt_rec_operation_release(&op);
	is_int(g.m.lease_lost, lost + 1, "nor is a lost lease");
	is_int(count(&pt_operations), N + 2 - 500, "and the backlog goes, a part at a time");
	reap();
	reap();
	is_int(count(&pt_operations), 2, "all of it");
	cancel(leased);
	clock_ms += RETENTION_MS + 1;
	reap();
	is_int(count(&pt_operations) + count(&pt_dead_letters), 0, "what has expired goes at its time, too");
}

/* A lease row that does not belong to its operation any more is no lease, and must not stay. */
static void orphan_lease(void)
{
	struct pt_err err = { 0 };
	struct pt_rec_lease l = { .attempt = 1, .until = pt_gateway_now(&g) - 1 };
	char id[PT_ID_SIZE];
	struct pt_tx *tx;
	uint64_t lost = g.m.lease_lost;

	pt_id_new(instances[0], "in");
	pt_id_new(instances[1], "in");
	submit(&(struct scenario) { 0 }, id);
	ok(step("lease", id) && step("run", id), "an attempt runs");
	tx = begin(true);
	pt_id_copy(l.instance, instances[1]);
	pt_id_copy(l.operation, id);
	pt_assert(pt_tx_insert(tx, &pt_leases, &l, &err) == 0);
	finish(tx, 0);
	clock_ms += 1000;
	reap();
	is_int(count(&pt_leases), 1, "the row that is nobody's goes");
	ok(g.m.lease_lost == lost && step("?running", id), "and the attempt is not touched");
	ok(step("done", id), "it ends as usual");
	clock_ms += 2 * RETENTION_MS;
	reap();
}

/* What is stored of one operation makes no sense: the others do not pay for that. */
static void one_is_broken(void)
{
	struct pt_err err = { 0 };
	struct pt_rec_input in = { 0 };
	char broken[PT_ID_SIZE], ended[PT_ID_SIZE], good[PT_ID_SIZE], late[PT_ID_SIZE];
	struct pt_tx *tx;

	pt_id_new(instances[0], "in");
	pt_id_new(instances[1], "in");
	submit(&(struct scenario) { .retry = "{" }, broken);
	ok(step("lease", broken), "an operation with a policy that nobody can read");
	submit(&(struct scenario) { .max_attempts = 1 }, good);
	ok(step("B:lease", good), "and another one");
	clock_ms += PT_LEASE_MS + 1000;
	reap();
	ok(step("?leased", broken) && step("?failed", good), "both lose their leases: the other one ends");
	cancel(broken);
	ok(step("cancelled", broken), "the first one can be ended by hand");
	submit(&(struct scenario) { 0 }, ended);
	cancel(ended);
	tx = begin(true);
	pt_id_copy(in.operation, ended);
	pt_assert(pt_tx_remove(tx, &pt_inputs, &in, &err) == 0);
	finish(tx, 0);
	clock_ms += RETENTION_MS - 1000;
	submit(&(struct scenario) { .deadline_s = 2 }, late);
	clock_ms += 2001;
	reap();
	ok(step("?expired", late), "one that cannot be forgotten keeps no deadline waiting");
	tx = begin(true);
	in.input = (char *)(uintptr_t) "{}";
	pt_assert(pt_tx_insert(tx, &pt_inputs, &in, &err) == 0);
	finish(tx, 0);
	clock_ms += 2 * RETENTION_MS;
	reap();
	is_int(count(&pt_operations), 0, "all are forgotten");
}

/* Renewals that the gateway could not write are not the agent's silence. */
static void disk_was_full(void)
{
	char id[PT_ID_SIZE];

	pt_id_new(instances[0], "in");
	submit(&(struct scenario) { .at_most_once = true }, id);
	ok(step("lease", id) && step("run", id) && step("+50000", id), "an at-most-once operation runs");
	pt_dispatch_committed(&g, false);
	ok(step("+20000", id) && step("?running", id), "renewals fail for a while: its lease does not end");
	pt_dispatch_committed(&g, true);
	ok(step("+30000", id) && step("run", id) && step("?running", id), "the instance is heard again");
	ok(step("+50000", id) && step("?running", id), "and its lease renewed");
	ok(step("+11000", id) && step("?unknown", id), "later it ends as any other");
	clock_ms += 2 * RETENTION_MS;
	reap();
}

/* --- exchanges that wait --- */

struct parked {
	struct pt_exchange_request q;
	struct pt_call c;
	struct pt_exchange x;
	struct pt_holding h;
};

/* An exchange with one slot that has nothing to be told: it waits. */
static int park(struct parked *p, const char *holds, uint64_t serial)
{
	struct pt_err err = { 0 };
	struct pt_tx *tx = begin(true);
	int rc;

	*p = (struct parked) { .q = { .slots = 1, .wait_ms = 20000 }, .c = { .g = &g } };
	p->x = (struct pt_exchange) { .c = &p->c, .q = &p->q, .in_writer = true, .serial = serial };
	pt_id_copy(p->c.who.agent, agent_id);
	pt_id_copy(p->c.who.key, key_id);
	pt_id_copy(p->q.instance, instances[0]);
	if (holds) {
		p->h = (struct pt_holding) { .attempt = 1,
					     .state = (char *)(uintptr_t) "running",
					     .started_at = WALL0 + clock_ms };
		pt_id_copy(p->h.operation, holds);
		p->q.holding = (struct pt_list) { &p->h, 1 };
	}
	rc = pt_exchange_run(&p->x, tx, &err);
	finish(tx, rc);
	return rc;
}

static void parked_end(struct parked *p)
{
	pt_presence_unpark(&g, &p->x);
	pt_shape_release(&pt_exchange_response_shape, &p->x.a);
	pt_presence_release(&g, &p->x);
}

/* The stop answers what is parked, but not what the writer has; what the writer parks in that very moment the writer must answer. */
static void parked_while_stopping(void)
{
	struct said s = { .slots = 1 };
	struct parked p;

	pt_id_new(instances[0], "in");
	ok(exchange("op_none", 0, &s) == 0, "an instance is connected");
	ok(park(&p, NULL, UINT64_MAX) == 0 && p.x.parked, "its next exchange is parked, and still the writer's");
	g.stopping = true;
	pt_presence_drain(&g);
	ok(p.x.parked, "the stop leaves it to the writer");
	ok(pt_presence_settle(&g, &p.x), "which has to answer it");
	ok(!p.x.parked, "so that nothing waits in a gateway that has stopped");
	g.stopping = false;
	parked_end(&p);
}

struct offered {
	const struct pt_exchange *want;
	int64_t room;
	int n;
	struct pt_tx *tx;
};

static int see_offer(void *arg, const char *agent, struct pt_exchange *const *xs, size_t n)
{
	struct offered *o = arg;
	struct pt_err err = { 0 };

	for (size_t i = 0; i < n; i++)
		if (xs[i] == o->want) {
			o->n++;
			pt_assert(pt_free_slots(&g, o->tx, agent, instances[0], &o->room, &err) == 0);
		}
	return 0;
}

/* What waits is offered when the lease of something that ends for good gives its slot back: nothing else tells the dispatch. */
static void slot_of_a_lost_lease(void)
{
	struct offered o = { 0 };
	char id[PT_ID_SIZE];
	struct parked p;
	struct pt_tx *tx;

	pt_id_new(instances[0], "in");
	submit(&(struct scenario) { .max_attempts = 1 }, id);
	ok(step("lease", id) && step("run", id), "the only slot is taken");
	clock_ms += 30000;
	ok(park(&p, id, UINT64_MAX) == 0 && p.x.parked, "the instance's exchange waits");
	(void)pt_presence_settle(&g, &p.x);
	tx = begin(true);
	o = (struct offered) { .want = &p.x, .tx = tx };
	pt_assert(pt_presence_each_dirty(&g, see_offer, &o) == 0);
	finish(tx, 0);
	o.n = 0;
	clock_ms += PT_LEASE_MS + 1;
	reap();
	ok(step("?failed", id), "its lease is lost, and it ends");
	tx = begin(true);
	o.tx = tx;
	pt_assert(pt_presence_each_dirty(&g, see_offer, &o) == 0);
	finish(tx, 0);
	is_int(o.n, 1, "the instance that waits is looked at");
	is_int(o.room, 1, "and has room");
	parked_end(&p);
	clock_ms += 2 * RETENTION_MS;
	reap();
}

/* --- what an operation collects has bounds: nothing that an agent says may keep it, or others, from ending --- */

static void endless_give_backs(void)
{
	enum { CYCLES = 500, TIMELINE_MOST = 300 * 1024 };
	pt_auto_buf events = PT_BUF_INIT(1 << 20);
	struct pt_rec_operation op = { 0 };
	char id[PT_ID_SIZE], why[2001];
	int given = 0;

	memset(why, 1, sizeof(why) - 1); /* six bytes each as JSON */
	why[sizeof(why) - 1] = '\0';
	pt_id_new(instances[0], "in");
	submit(&(struct scenario) { 0 }, id);
	for (int i = 0; i < CYCLES && given == i; i++) {
		struct said s = { .attempt = i + 1, .release = true, .draining = true, .reason = why };

		given += step("lease", id) && exchange(id, 0, &s) == 0;
		clock_ms += 33000;
		reap();
	}
	is_int(given, CYCLES, "an agent gives an operation back again and again, with a long reason");
	ok(step("lease", id) && step("done", id) && step("?succeeded", id), "it runs and ends all the same");
	ok(load(id, &op) == 0 && op.events == 2 * CYCLES + 3, "every event was counted");
	ok(strlen(op.timeline) < TIMELINE_MOST, "its timeline has %zu bytes", strlen(op.timeline));
	pt_rec_operation_release(&op);
	events_of(id, &events);
	ok(strncmp(events.p, "accepted omitted ", 17) == 0, "which tells of its begin, and that something is missing");
	ok(events.len > 30 && strcmp(events.p + events.len - 25, "released leased succeeded") == 0, "and of its end");
	clock_ms += 2 * RETENTION_MS;
	reap();
}

int main(void)
{
	setup();
	endless_give_backs();
	backlog_of_retention();
	orphan_lease();
	one_is_broken();
	disk_was_full();
	parked_while_stopping();
	slot_of_a_lost_lease();
	teardown();
	return tap_end();
}
