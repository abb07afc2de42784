/* Removing segments: those in which nothing lives go, oldest first, and what lives in the oldest one is moved when too much dead
 * space stands behind it. */
#include "agent/spool_int.h"
#include "base/log.h"
#include <stdio.h>
#include <utlist.h>

/* The same record again, at the end, sealed for its new place. */
static int copy_record(struct pt_spool *s, const struct spool_entry *e, struct seglog_segment **ret_seg, int64_t *ret_offset,
		       int64_t *ret_length, struct pt_err *err)
{
	pt_auto_buf from = PT_BUF_INIT(SPOOL_RECORD_MAX);
	pt_auto_buf to = PT_BUF_INIT(SPOOL_RECORD_MAX);
	struct spool_put_view put;
	struct seglog_record r;
	int rc = seglog_record_read(&s->log, e->seg, e->offset, e->length, &from, &r, err);

	if (rc == 0 && !spool_put_get(&r, &put))
		rc = pt_fail(err, PT_E_CORRUPT, "a record has impossible lengths");
	if (rc < 0)
		return rc;
	spool_put_write(&put, &to);
	return seglog_append(&s->log, SPOOL_PUT, e->seq, &to, INT64_MAX, ret_seg, ret_offset, ret_length, err);
}

/* Copy what lives in the oldest segment to the end, keeping its sequence numbers.  The lock is let go meanwhile. */
static int move_oldest(struct pt_spool *s, struct pt_err *err)
{
	struct seglog_segment *from = s->log.oldest, *seg;
	struct spool_entry *e = s->entries;
	uint64_t start = s->log.appended;
	int rc;

	from->live++; /* it stays until the copies are on disk, and until the next start when that fails */
	for (; e; e = e->next) {
		int64_t offset, length;

		if (s->log.syncing) { /* not under seglog_append(): e could be freed while it waits */
			while (s->log.syncing)
				pthread_cond_wait(&s->log.synced, &s->lock);
			if (!(e = s->entries))
				break;
		}
		if (e->seg != from)
			continue;
		rc = copy_record(s, e, &seg, &offset, &length, err);
		if (rc < 0)
			return rc;
		from->live--;
		from->live_bytes -= e->length;
		s->log.live_bytes += length - e->length;
		e->seg = seg;
		e->offset = offset;
		e->length = length;
		seg->live++;
		seg->live_bytes += e->length;
	}
	rc = seglog_sync(&s->log, start, err);
	if (rc == 0)
		from->live--;
	return rc;
}

void spool_retire(struct pt_spool *s)
{
	struct seglog *l = &s->log;
	struct pt_err err = { 0 };
	bool behind_damage;

	if (s->moving)
		return;
	s->moving = true;
	for (;;) {
		while (l->oldest && l->oldest != l->cur && !l->oldest->live)
			seglog_remove_oldest(l);
		behind_damage = false;
		for (struct seglog_segment *g = l->oldest; g && g != l->cur; g = g->next)
			behind_damage |= g->damaged;
		if (!l->oldest || l->oldest == l->cur || (!behind_damage && l->bytes - l->live_bytes <= 4 * l->seg_max))
			break;
		if (move_oldest(s, &err) < 0) {
			pt_debug("spool: segment not moved", "error", err.msg);
			break;
		}
		if (l->oldest->live)
			break;
	}
	s->moving = false;
	seglog_update_full(l);
}
