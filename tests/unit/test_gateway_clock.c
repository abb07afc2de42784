/* A gateway that starts again on a machine whose time of day was set meanwhile: where its clock stands, and for how long the leases
 * that it finds still last. */
#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "gateway/internal.h"
#include "../tap.h"

#define T0     INT64_C(1760000000000)
#define HOUR   INT64_C(3600000)
#define MINUTE INT64_C(60000)

static int64_t wall_ms, mono_ms = 1000;
static struct pt_gateway g;

static int64_t now_ms(bool mono)
{
	return mono ? mono_ms : wall_ms;
}

static void start(int64_t wall)
{
	struct pt_err err = { 0 };

	wall_ms = wall;
	is_int(pt_gateway_clock(&g, &err), 0, "it starts %+lld minutes from the newest record %s",
	       (long long)((wall - T0) / MINUTE), err.msg);
	is_int(pt_lease_grace(&g, &err), 0, "and looks at the leases %s", err.msg);
}

static int latest(void *arg, void *rec)
{
	int64_t *until = arg;

	*until = ((struct pt_rec_lease *)rec)->until > *until ? ((struct pt_rec_lease *)rec)->until : *until;
	return 0;
}

static int64_t lease_until(void)
{
	struct pt_err err = { 0 };
	struct pt_tx *tx = NULL;
	int64_t until = 0;

	pt_assert(pt_db_begin(g.db, false, &tx, &err) == 0);
	pt_assert(pt_tx_scan(tx, &pt_leases, &(struct pt_scan) { .limit = 0 }, latest, &until, &err) == 0);
	pt_tx_rollback(tx);
	return until;
}

static void records(void)
{
	struct pt_rec_operation op = {
		.type = (char *)(uintptr_t) "health", .created = T0 - HOUR, .leased_at = T0, .started_at = T0 + HOUR
	};
	struct pt_rec_lease l = { .attempt = 1, .leased_at = T0, .until = T0 + PT_LEASE_MS };
	struct pt_err err = { 0 };
	struct pt_tx *tx = NULL;

	pt_id_new(op.id, "op");
	pt_id_new(op.account, "acc");
	pt_id_new(op.agent, "ag");
	pt_id_copy(l.operation, op.id);
	pt_id_copy(l.agent, op.agent);
	pt_id_new(l.instance, "in");
	pt_assert(pt_db_begin(g.db, true, &tx, &err) == 0);
	pt_assert(pt_tx_insert(tx, &pt_operations, &op, &err) == 0 && pt_tx_insert(tx, &pt_leases, &l, &err) == 0);
	pt_assert(pt_tx_commit(tx, &err) == 0);
}

int main(void)
{
	static const struct {
		int64_t wall, now;
		const char *what;
	} cases[] = {
		{ T0 + HOUR, T0 + HOUR, "an hour later, or set forward: the new time" },
		{ T0 - HOUR, T0, "set back: it counts on" },
		{ T0 - 23 * HOUR, T0, "almost a day" },
		{ T0 - 48 * HOUR, T0 - 48 * HOUR, "days: the clock was wrong before" },
	};
	struct pt_err err = { 0 };

	pt_assert(pt_log_init("error", "plain", 0, &err) == 0);
	pt_clock_inject(now_ms);
	for (size_t i = 0; i < PT_COUNT(cases); i++) {
		g = (struct pt_gateway) { .lease_ms = PT_LEASE_MS };
		wall_ms = T0;
		pt_assert(pt_db_open(&g.db, "mem:", pt_gateway_tables, &err) == 0);
		records();
		start(cases[i].wall);
		is_int(pt_gateway_now(&g), cases[i].now, "%s", cases[i].what);
		is_int(lease_until(), cases[i].now + PT_LEASE_MS, "the lease lasts as long as one that is renewed now");
		mono_ms += MINUTE;
		wall_ms -= 5 * HOUR;
		is_int(pt_gateway_now(&g), cases[i].now + MINUTE, "while it runs, only time passes");
		pt_db_close(g.db);
	}
	pt_assert(pt_db_open(&g.db, "mem:", pt_gateway_tables, &err) == 0);
	start(T0);
	is_int(pt_gateway_now(&g), T0, "an empty database says nothing");
	pt_db_close(g.db);
	pt_clock_inject(NULL);
	return tap_end();
}
