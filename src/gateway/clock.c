/* The gateway's clock: this machine's wall clock when the process starts, moved on by the monotonic clock.  Setting the time of day
 * while it runs changes nothing; what the records say bounds how far a restart may go back. */
#include "base/clock.h"
#include "base/log.h"
#include "gateway/internal.h"

enum { FOLLOW_MS = 24 * 3600 * 1000 }; /* records that are further ahead come from a clock that was wrong, and is right now */

int64_t pt_gateway_now(const struct pt_gateway *g)
{
	return g->wall0 + (pt_mono_ms() - g->mono0);
}

static int64_t later(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

/* Not started_at: that is an agent's clock. */
static int newest_operation(void *arg, void *rec)
{
	const struct pt_rec_operation *op = rec;
	int64_t *newest = arg;

	*newest = later(later(*newest, op->created), later(op->leased_at, op->finished_at));
	return 0;
}

static int newest_lease(void *arg, void *rec)
{
	int64_t *newest = arg;

	*newest = later(*newest, ((struct pt_rec_lease *)rec)->leased_at);
	return 0;
}

int pt_gateway_clock(struct pt_gateway *g, struct pt_err *err)
{
	pt_auto(pt_tx_rollbackp) struct pt_tx *tx = NULL;
	int64_t newest = 0;
	int rc;

	g->wall0 = pt_wall_ms();
	g->mono0 = pt_mono_ms();
	rc = pt_db_begin(g->db, false, &tx, err);
	if (rc == 0)
		rc = pt_tx_scan(tx, &pt_operations, &(struct pt_scan) { .desc = true, .limit = 1 }, newest_operation, &newest,
				err);
	if (rc == 0)
		rc = pt_tx_scan(tx, &pt_leases, &(struct pt_scan) { .limit = 0 }, newest_lease, &newest, err);
	if (rc < 0 || newest <= g->wall0)
		return rc;
	if (newest - g->wall0 > FOLLOW_MS) {
		pt_warn("this machine's clock is far behind the newest record; its time is taken, and old deadlines move away",
			"ms", pt_num(newest - g->wall0), "hint", "is the time of day right?");
		return PT_OK;
	}
	pt_warn("this machine's clock is behind the newest record; the gateway counts on from there", "ms",
		pt_num(newest - g->wall0), "hint", "check NTP");
	g->wall0 = newest;
	return PT_OK;
}
