/* The log outbox on disk: lines as records of a segment log (seglog.h), the note for what had to go, and reading them back. */
#include "agent/outbox_int.h"
#include "base/clock.h"
#include "base/log.h"
#include <endian.h>
#include <stdio.h>
#include <utlist.h>

enum {
	RECORD_LINES = 32 * 1024, /* bytes of lines in a record; one line may pass it */
	RECORD_MAX = 128 * 1024,
	BATCH_BYTES = 200 * 1024, /* of the protocol's 256 KiB */
	NOTE_ROOM = 2048,         /* of the bound, for a note and the key records of its segment */
};

/* Records; the sequence number of both is that of the last line.  A note counts until the next one, or one with no lines. */
enum { KIND_LINES = 1, KIND_NOTE = 2 };
struct lines_head { /* little-endian; the lines follow, each with a line feed */
	uint64_t lines;
	char instance[PT_ID_SIZE];
};
struct note_record {
	uint64_t lines, through;
	int64_t at;
	char instance[PT_ID_SIZE];
};
_Static_assert(PT_ID_SIZE % 8 == 0 && sizeof(struct note_record) == 24 + PT_ID_SIZE, "written as bytes: no padding");

void outbox_note_fields(uint64_t lines, char out[static 96])
{
	snprintf(out, 96, "\"lines\":\"%llu\",\"reason\":\"the log outbox was full\"", (unsigned long long)lines);
}

const char outbox_note_head[] = "\"level\":\"warn\",\"msg\":\"log lines dropped\"";

/* --- segments --- */

static bool is_cur(const struct pt_outbox *o, const struct outbox_segment *g)
{
	return g->seg == o->log.cur;
}

static void segment_free(struct pt_outbox *o, struct outbox_segment *g)
{
	LL_DELETE(o->head, g);
	free(g);
}

void outbox_forget(struct pt_outbox *o)
{
	while (o->head)
		segment_free(o, o->head);
}

void outbox_retire(struct pt_outbox *o)
{
	struct seglog *l = &o->log;

	if (o->dropping)
		return;
	while (o->head && !is_cur(o, o->head) && o->head->acked == o->head->lines)
		segment_free(o, o->head);
	while (l->oldest && l->oldest != l->cur && !(o->head && o->head->seg == l->oldest) &&
	       !(o->note.lines && o->note_in == l->oldest->no)) {
		l->oldest->damaged = false; /* log lines are not worth keeping aside */
		seglog_remove_oldest(l);
	}
}

/* Lines of a record count for its segment. */
static int count_lines(struct pt_outbox *o, struct seglog_segment *seg, int64_t offset, const char *instance, uint64_t last,
		       uint64_t lines, struct pt_err *err)
{
	struct outbox_segment *g;

	LL_FOREACH(o->head, g)
	if (g->seg == seg)
		break;
	if (!g) {
		g = calloc(1, sizeof(*g));
		if (!g)
			return pt_fail_oom(err);
		g->seg = seg;
		g->at = offset;
		snprintf(g->instance, sizeof(g->instance), "%s", instance);
		LL_APPEND(o->head, g);
	}
	g->lines += (int64_t)lines;
	g->last = last;
	o->st.lines += (int64_t)lines;
	return PT_OK;
}

/* --- the note --- */

static int save_note(struct pt_outbox *o, struct pt_err *err)
{
	const struct outbox_note *n = &o->note;
	struct note_record r = { .lines = htole64(n->lines),
				 .through = htole64(n->through),
				 .at = (int64_t)htole64((uint64_t)n->at) };
	pt_auto_buf b = PT_BUF_INIT(1024);
	struct seglog_segment *seg;
	int64_t offset, length;
	int rc;

	if (!o->note_dirty)
		return PT_OK;
	memcpy(r.instance, n->instance, sizeof(r.instance));
	seglog_record_begin(&b);
	pt_buf_add(&b, &r, sizeof(r));
	o->note_dirty = false; /* before the append: it may change while that waits */
	rc = seglog_append(&o->log, KIND_NOTE, n->last, &b, INT64_MAX, &seg, &offset, &length, err);
	if (rc < 0)
		o->note_dirty = true;
	else
		o->note_in = seg->no;
	return rc;
}

/* Lines that go join those that went before. */
static void note_more(struct pt_outbox *o, const struct outbox_segment *g, int64_t lines)
{
	o->st.lines += !o->note.lines;
	o->note.lines += (uint64_t)lines;
	o->note.last = g->last;
	o->note.through = g->seg->no;
	o->note.at = pt_wall_ms();
	memcpy(o->note.instance, g->instance, sizeof(g->instance));
	o->note_in = 0;
	o->note_dirty = true;
}

/* Make room: the oldest segment that no key opens goes, else the oldest with lines, for the note.  False: there is none but the
 * current one. */
static bool drop_oldest(struct pt_outbox *o)
{
	struct seglog *l = &o->log;
	struct outbox_segment *h = o->head;
	uint64_t start = l->appended;
	struct pt_err ignored;
	int64_t lines;

	if (l->sealed) {
		pt_warn("log lines were dropped whose key is missing: the log outbox is full", "key_id", l->sealed->sealed_by,
			"bytes", pt_num(l->sealed->size));
		o->st.sealed_dropped++;
		seglog_drop_sealed(l);
		return true;
	}
	if (!h || is_cur(o, h))
		return false;
	lines = h->lines - h->acked;
	if (lines) {
		o->st.dropped += lines;
		o->st.lines -= lines;
		note_more(o, h, lines);
	}
	segment_free(o, h);
	o->dropping = true;
	if (save_note(o, &ignored) == 0) /* else it is in memory, and tried again before the next record */
		(void)!seglog_sync(l, start, &ignored);
	o->dropping = false;
	outbox_retire(o);
	return true;
}

/* --- append --- */

/* One record; makes room by dropping the oldest lines. */
static int append(struct pt_outbox *o, const char *lines, size_t n, uint64_t last, uint64_t count, struct pt_err *err)
{
	pt_auto_buf b = PT_BUF_INIT(RECORD_MAX);
	struct lines_head h = { .lines = htole64(count) };
	struct seglog_segment *seg;
	int64_t offset, length;
	int rc;

	memcpy(h.instance, o->instance, sizeof(h.instance));
	do {
		seglog_record_begin(&b);
		pt_buf_add(&b, &h, sizeof(h));
		pt_buf_add(&b, lines, n);
		rc = save_note(o, err);
		if (rc == 0)
			rc = seglog_append(&o->log, KIND_LINES, last, &b, o->log.max_bytes - NOTE_ROOM, &seg, &offset, &length,
					   err);
	} while (rc == PT_E_LIMIT && !b.bad && drop_oldest(o)); /* our oldest lines first, also when the disk is full */
	return rc < 0 ? rc : count_lines(o, seg, offset, o->instance, last, count, err);
}

int outbox_append(struct pt_outbox *o, const struct pt_buf *lines, uint64_t first, uint64_t *ret_lost, struct pt_err *err)
{
	uint64_t seq = first;
	int rc = PT_OK;

	for (size_t at = 0; at < lines->len;) {
		uint64_t count = 0;
		size_t end = at;

		do {
			const char *nl = memchr(lines->p + end, '\n', lines->len - end);

			end = (size_t)(nl - lines->p) + 1;
			count++;
		} while (end < lines->len && end - at < RECORD_LINES);
		seq += count;
		if (rc == 0)
			rc = append(o, lines->p + at, end - at, seq - 1, count, err);
		at = end;
		if (rc < 0) {
			*ret_lost += count;
			o->st.dropped += (int64_t)count;
		}
	}
	outbox_retire(o); /* the current segment may be another one now */
	return rc < 0 ? rc : save_note(o, err);
}

/* --- reading back --- */

/* Add the lines of a record from number `from` on, as many as fit.  How many of the record's lines are done with, skipped ones too. */
static int64_t take_lines(struct pt_outbox_batch *b, const char *lines, size_t n, int64_t from, size_t max_lines)
{
	const char *p = lines, *end = lines + n, *nl;
	int64_t i = 0;

	for (; p < end && (nl = memchr(p, '\n', (size_t)(end - p))); p = nl + 1, i++) {
		if (i < from)
			continue;
		if (b->n == max_lines || (b->n && b->lines.len + (size_t)(nl - p) > BATCH_BYTES))
			break;
		if (b->n++)
			pt_buf_chr(&b->lines, ',');
		pt_buf_add(&b->lines, p, (size_t)(nl - p));
	}
	return i;
}

static int fill_note(struct pt_outbox *o, struct pt_outbox_batch *b, struct pt_err *err)
{
	char fields[96];

	outbox_note_fields(o->note.lines, fields);
	pt_buf_fmt(&b->lines, "{\"seq\":%llu,\"at\":%lld,%s,\"fields\":{%s}}", (unsigned long long)o->note.last,
		   (long long)o->note.at, outbox_note_head, fields);
	memcpy(b->instance, o->note.instance, sizeof(b->instance));
	b->n = 1;
	b->note = o->note.lines;
	return pt_buf_done(&b->lines, err);
}

int outbox_fill(struct pt_outbox *o, size_t max_lines, struct pt_outbox_batch *b, struct pt_err *err)
{
	pt_auto_buf rec = PT_BUF_INIT(OUTBOX_SEGMENT_MAX + RECORD_MAX);
	struct outbox_segment *h = o->head;

	if (o->note.lines)
		return fill_note(o, b, err);
	memcpy(b->instance, h->instance, sizeof(b->instance));
	b->note = 0;
	b->segment = h->seg->no;
	b->offset = h->at;
	b->line = h->line;
	while (b->n < max_lines && b->offset < h->seg->size) {
		struct seglog_record r;
		int64_t length, done;
		int rc;

		pt_buf_clear(&rec);
		rc = seglog_record_at(&o->log, h->seg, b->offset, &rec, &r, &length, err);
		if (rc < 0)
			return rc;
		if (r.kind == KIND_LINES) {
			done = take_lines(b, r.payload + sizeof(struct lines_head), r.n - sizeof(struct lines_head), b->line,
					  max_lines);
			if (done < (int64_t)le64toh(((const struct lines_head *)(const void *)r.payload)->lines)) {
				b->line = done;
				break;
			}
		}
		b->offset += length;
		b->line = 0;
	}
	return pt_buf_done(&b->lines, err);
}

static int record(void *arg, struct seglog_segment *seg, int64_t offset, size_t length, const struct seglog_record *r,
		  struct pt_err *err)
{
	struct pt_outbox *o = arg;
	struct lines_head h;
	struct note_record n;

	(void)length;
	if (!r->plain && r->kind == KIND_LINES && r->n > sizeof(h)) {
		memcpy(&h, r->payload, sizeof(h));
		h.instance[sizeof(h.instance) - 1] = '\0';
		return count_lines(o, seg, offset, h.instance, r->seq, le64toh(h.lines), err);
	}
	if (!r->plain && r->kind == KIND_NOTE && r->n == sizeof(n)) {
		memcpy(&n, r->payload, sizeof(n));
		o->read = (struct outbox_note) { .lines = le64toh(n.lines),
						 .last = r->seq,
						 .through = le64toh(n.through),
						 .at = (int64_t)le64toh((uint64_t)n.at) };
		memcpy(o->read.instance, n.instance, sizeof(n.instance) - 1);
		o->note_in = seg->no;
		return PT_OK;
	}
	return seglog_damage(&o->log, "a record that is none of log lines", "");
}

static int by_no(const struct outbox_segment *a, const struct outbox_segment *b)
{
	return a->seg->no < b->seg->no ? -1 : a->seg->no > b->seg->no;
}

/* After records were read: segments are in order, and the note counts with what is known already. */
static void settle(struct pt_outbox *o)
{
	struct outbox_segment *g, *next;

	LL_SORT(o->head, by_no);
	LL_FOREACH_SAFE(o->head, g, next)
	if (g->seg->no <= o->read.through) { /* death between the note and the removal */
		o->st.lines -= g->lines - g->acked;
		segment_free(o, g);
	}
	if (!o->read.lines)
		return;
	if (o->note.lines) { /* the newer note takes over the older one's lines */
		o->note.lines += o->read.lines;
		o->note_dirty = true;
	} else {
		o->note = o->read;
		o->st.lines++;
	}
}

int outbox_scan(struct pt_outbox *o, struct pt_err *err)
{
	int rc = seglog_scan(&o->log, record, o, err);

	if (rc == 0)
		settle(o);
	return rc;
}

int outbox_rekey(struct pt_outbox *o, const struct pt_seal_ring *ring, struct pt_err *err)
{
	uint64_t in = o->note_in;
	int rc;

	o->read = (struct outbox_note) { 0 };
	rc = seglog_rekey(&o->log, ring, record, o, err);
	if (o->note.lines || !o->read.lines)
		o->note_in = in;
	settle(o);
	return rc < 0 ? rc : seglog_rewrap(&o->log, err);
}
