/* The log outbox: lines in memory, and who waits for what.  The disk is outbox_disk.c. */
#include "agent/outbox_int.h"
#include "base/clock.h"
#include "os/cond.h"
#include <stdio.h>
#include <unistd.h>
#include <utlist.h>

enum {
	MEMORY_MAX = 4 * 1024 * 1024, /* lines that wait for a flush */
	FLUSH_SOON = 64 * 1024,       /* … that do not wait any longer */
};

/* --- memory --- */

/* A line's text, under mem.  fields: members. */
static void put_line(struct pt_outbox *o, int64_t at, const char *head, size_t head_n, const char *fields, size_t fields_n)
{
	size_t before = o->lines.len;

	pt_buf_fmt(&o->lines, "{\"seq\":%llu,\"at\":%lld,", (unsigned long long)o->next, (long long)at);
	pt_buf_add(&o->lines, head, head_n);
	pt_buf_str(&o->lines, ",\"fields\":{");
	pt_buf_add(&o->lines, fields, fields_n);
	pt_buf_str(&o->lines, "}}\n");
	if (o->lines.bad) { /* out of memory */
		o->lines.bad = PT_OK;
		o->lines.len = before;
		o->lines.p[before] = '\0';
		o->lost++;
		o->cut++;
		return;
	}
	o->next++;
	o->n_lines++;
}

/* The disk does not keep up: the older half goes. */
static void make_room(struct pt_outbox *o)
{
	size_t keep = o->lines.len / 2;
	const char *nl = memchr(o->lines.p + keep, '\n', o->lines.len - keep);
	size_t cut = nl ? (size_t)(nl - o->lines.p) + 1 : o->lines.len;

	for (size_t i = 0; i < cut; i++) {
		if (o->lines.p[i] != '\n')
			continue;
		o->lost++;
		o->cut++;
		o->n_lines--;
	}
	memmove(o->lines.p, o->lines.p + cut, o->lines.len - cut + 1);
	o->lines.len -= cut;
}

void pt_outbox_add(struct pt_outbox *o, const struct pt_log_line *l)
{
	size_t need = l->head_n + l->fields_n + 128, before;
	bool urgent = l->level >= PT_LOG_WARN;

	pthread_mutex_lock(&o->mem);
	before = o->lines.len;
	if (before + need > MEMORY_MAX)
		make_room(o);
	put_line(o, l->at, l->head, l->head_n, l->fields, l->fields_n);
	if (!before || (urgent && !o->urgent) || (before < FLUSH_SOON && o->lines.len >= FLUSH_SOON)) {
		o->urgent |= urgent || o->lines.len >= FLUSH_SOON;
		pthread_cond_broadcast(&o->added_cond);
	}
	pthread_mutex_unlock(&o->mem);
}

bool pt_outbox_wait_added(struct pt_outbox *o, int64_t most_ms, bool urgent_only)
{
	int64_t until = pt_mono_ms() + most_ms;
	unsigned wakes;
	bool some;

	pthread_mutex_lock(&o->mem);
	wakes = o->wakes;
	while (!(urgent_only ? o->urgent : o->lines.len > 0) && o->wakes == wakes && pt_mono_ms() < until)
		(void)pt_cond_wait_ms(&o->added_cond, &o->mem, until - pt_mono_ms());
	some = o->lines.len > 0;
	pthread_mutex_unlock(&o->mem);
	return some;
}

void pt_outbox_wake(struct pt_outbox *o)
{
	pthread_mutex_lock(&o->mem);
	o->wakes++;
	pthread_cond_broadcast(&o->added_cond);
	pthread_mutex_unlock(&o->mem);
	pthread_mutex_lock(&o->disk);
	pthread_cond_broadcast(&o->flushed_cond);
	pthread_mutex_unlock(&o->disk);
}

int pt_outbox_flush(struct pt_outbox *o, struct pt_err *err)
{
	struct pt_buf lines;
	uint64_t first, lost = 0, start;
	char fields[96];
	int rc;

	pthread_mutex_lock(&o->mem);
	if (o->lost) {
		outbox_note_fields(o->lost, fields);
		put_line(o, pt_wall_ms(), outbox_note_head, strlen(outbox_note_head), fields, strlen(fields));
		o->lost = 0;
	}
	lines = o->lines;
	o->lines = (struct pt_buf)PT_BUF_INIT(MEMORY_MAX + 65536);
	o->urgent = false;
	first = o->next - o->n_lines;
	o->flushing = (int64_t)o->n_lines;
	o->n_lines = 0;
	pthread_mutex_unlock(&o->mem);
	pthread_mutex_lock(&o->disk);
	start = o->log.appended;
	rc = outbox_append(o, &lines, first, &lost, err);
	if (rc == 0)
		rc = seglog_sync(&o->log, start, err);
	o->flushing = 0;
	pthread_cond_broadcast(&o->flushed_cond);
	pthread_mutex_unlock(&o->disk);
	pt_buf_release(&lines);
	if (lost) {
		pthread_mutex_lock(&o->mem);
		o->lost += lost;
		pthread_mutex_unlock(&o->mem);
	}
	return rc;
}

/* --- shipping --- */

bool pt_outbox_wait_flushed(struct pt_outbox *o, int64_t most_ms)
{
	int64_t until = pt_mono_ms() + most_ms;
	bool some;

	pthread_mutex_lock(&o->disk);
	if (!o->st.lines)
		(void)pt_cond_wait_ms(&o->flushed_cond, &o->disk, until - pt_mono_ms());
	some = o->st.lines > 0;
	pthread_mutex_unlock(&o->disk);
	return some;
}

int pt_outbox_peek(struct pt_outbox *o, size_t max_lines, struct pt_outbox_batch *b, struct pt_err *err)
{
	struct outbox_segment *h;
	int rc = 0;

	pt_buf_clear(&b->lines);
	b->n = 0;
	pthread_mutex_lock(&o->disk);
	outbox_retire(o);
	h = o->head;
	if (o->note.lines || (h && h->lines > h->acked))
		rc = outbox_fill(o, max_lines, b, err);
	if (rc == PT_E_CORRUPT && !b->n) { /* nothing more comes of this segment */
		int64_t lines = h->lines - h->acked;

		o->log.damaged++;
		o->st.dropped += lines;
		o->st.lines -= lines;
		h->acked = h->lines;
		h->at = h->seg->size;
		h->line = 0;
	} else if (rc == PT_E_CORRUPT) {
		rc = 0; /* what stands before it */
	}
	pthread_mutex_unlock(&o->disk);
	return rc < 0 ? rc : b->n > 0;
}

void pt_outbox_ack(struct pt_outbox *o, const struct pt_outbox_batch *b, bool delivered)
{
	struct outbox_segment *g;

	pthread_mutex_lock(&o->disk);
	LL_FOREACH(o->head, g)
	if (!b->note && g->seg->no == b->segment)
		break;
	if (b->note) { /* others may have joined it meanwhile */
		o->note.lines -= b->note;
		o->st.lines -= !o->note.lines;
		o->note_dirty = true;
	} else if (g) { /* else a note counts as dropped what was delivered: the gateway passes over it when it has all */
		g->at = b->offset;
		g->line = b->line;
		g->acked += (int64_t)b->n;
		o->st.lines -= (int64_t)b->n;
	}
	outbox_retire(o);
	*(delivered ? &o->st.shipped : &o->st.dropped) += (int64_t)b->n;
	pthread_mutex_unlock(&o->disk);
}

void pt_outbox_stats(struct pt_outbox *o, struct pt_outbox_stats *ret)
{
	int64_t added, cut, waiting;

	pthread_mutex_lock(&o->mem);
	added = (int64_t)o->next - 1;
	cut = o->cut;
	waiting = (int64_t)o->n_lines;
	pthread_mutex_unlock(&o->mem);
	pthread_mutex_lock(&o->disk);
	*ret = o->st;
	ret->bytes = seglog_bytes(&o->log);
	ret->max_bytes = o->log.max_bytes;
	ret->damaged = o->log.damaged;
	ret->sealed = o->log.n_sealed;
	ret->syncs = o->log.syncs;
	ret->added = added;
	ret->dropped += cut;
	ret->waiting = o->st.lines + o->flushing + waiting;
	pthread_mutex_unlock(&o->disk);
}

/* --- open and close --- */

/* Plain lines of builds before encryption go. */
static int remove_plain(struct pt_outbox *o, struct pt_err *err)
{
	struct seglog_numbers old = { 0 };
	uint64_t ignored = 0;
	int rc = seglog_list(&o->log, "log-", ".seg", &old, &ignored, err);

	for (size_t i = 0; rc == 0 && i < old.n; i++) {
		char name[40];

		snprintf(name, sizeof(name), "log-%016llx.seg", (unsigned long long)old.no[i]);
		(void)unlinkat(o->log.dir_fd, name, 0); /* tried again at the next start */
	}
	if (old.n)
		pt_warn("log lines of an earlier build were dropped: they were not encrypted", "files", pt_num((int64_t)old.n),
			"folder", o->log.dir);
	free(old.no);
	return rc;
}

int pt_outbox_open(struct pt_outbox **ret, const char *dir, int64_t max_bytes, const struct pt_seal_ring *ring,
		   const char *instance, struct pt_err *err)
{
	struct pt_outbox *o = calloc(1, sizeof(*o));
	struct pt_err e = { 0 };
	int rc;

	if (!o)
		return pt_fail_oom(err);
	pthread_mutex_init(&o->mem, NULL);
	pthread_mutex_init(&o->disk, NULL);
	pt_cond_init(&o->added_cond);
	pt_cond_init(&o->flushed_cond);
	o->lines = (struct pt_buf)PT_BUF_INIT(MEMORY_MAX + 65536);
	o->next = 1;
	o->log.what = "log outbox";
	o->log.option = "--log-outbox-bytes";
	o->log.seg_max = max_bytes / 16 > OUTBOX_SEGMENT_MAX   ? OUTBOX_SEGMENT_MAX
			 : max_bytes / 16 < OUTBOX_SEGMENT_MIN ? OUTBOX_SEGMENT_MIN
							       : max_bytes / 16;
	snprintf(o->instance, sizeof(o->instance), "%s", instance);
	rc = seglog_open(&o->log, &o->disk, dir, max_bytes, ring, err);
	pthread_mutex_lock(&o->disk);
	if (rc == 0)
		rc = outbox_scan(o, err);
	if (rc == 0)
		rc = remove_plain(o, err);
	if (rc == 0 && seglog_rewrap(&o->log, &e) < 0)
		pt_log_err(PT_LOG_WARN, "the log outbox is not yet sealed for the agent's new key", &e);
	pthread_mutex_unlock(&o->disk);
	if (rc < 0) {
		pt_outbox_close(o);
		return pt_err_wrap(err, rc, "log outbox");
	}
	seglog_say_sealed(&o->log);
	o->ready = true;
	*ret = o;
	return PT_OK;
}

int pt_outbox_rekey(struct pt_outbox *o, const struct pt_seal_ring *ring, struct pt_err *err)
{
	int rc;

	pthread_mutex_lock(&o->disk);
	rc = outbox_rekey(o, ring, err);
	outbox_retire(o);
	pthread_cond_broadcast(&o->flushed_cond);
	pthread_mutex_unlock(&o->disk);
	return pt_err_wrap(err, rc, "seal the log outbox for the agent's new key");
}

void pt_outbox_close(struct pt_outbox *o)
{
	struct pt_err ignored;

	if (!o)
		return;
	if (o->ready)
		(void)!pt_outbox_flush(o, &ignored); /* the log cannot say it any more */
	pthread_mutex_lock(&o->disk);
	while (o->ready && !o->st.lines && o->log.oldest) /* the current segment, too: nothing is appended any more */
		seglog_remove_oldest(&o->log);
	outbox_forget(o);
	pthread_mutex_unlock(&o->disk);
	seglog_close(&o->log);
	pt_buf_release(&o->lines);
	pthread_mutex_destroy(&o->mem);
	pthread_mutex_destroy(&o->disk);
	pthread_cond_destroy(&o->added_cond);
	pthread_cond_destroy(&o->flushed_cond);
	free(o);
}
