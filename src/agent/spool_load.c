/* Opening a spool: rebuild the list of entries from the records, and remove body files that no record names.  Runs before any
 * other thread knows the spool, but for records of segments that open later, when a key comes back. */
#include "agent/spool_int.h"
#include "base/log.h"
#include <stdio.h>
#include <sys/stat.h>
#include <utlist.h>

static int put_record(struct pt_spool *s, struct seglog_segment *seg, int64_t offset, size_t length,
		      const struct seglog_record *r, struct spool_entry **ret, struct pt_err *err)
{
	struct spool_put_view v;
	struct spool_entry *e;

	if (!spool_put_get(r, &v))
		return seglog_damage(&s->log, "a put record has impossible lengths", "");
	e = calloc(1, sizeof(*e));
	if (!e)
		return pt_fail_oom(err);
	memcpy(e->key.operation, v.operation, v.put.op_len);
	e->key.attempt = v.put.attempt;
	e->seq = r->seq;
	e->seg = seg;
	e->offset = offset;
	e->length = (int64_t)length;
	e->body_file = v.put.body_file;
	e->body_size = v.put.body_size;
	e->body_disk = e->body_file ? spool_body_disk(e->body_size, v.body_key) : 0;
	e->stored_at = v.put.stored_at > 0 ? v.put.stored_at : 0; /* no clock says less; ages are differences */
	if (v.put.body_file >= s->next_file)
		s->next_file = v.put.body_file + 1;
	*ret = e;
	return PT_OK;
}

static struct spool_entry *same_key(struct pt_spool *s, const struct spool_entry *e)
{
	struct spool_entry *old;

	HASH_FIND(hh, s->table, &e->key, sizeof(e->key), old);
	return old;
}

static int record(void *arg, struct seglog_segment *seg, int64_t offset, size_t length, const struct seglog_record *r,
		  struct pt_err *err)
{
	struct pt_spool *s = arg;
	struct spool_entry *e = NULL, *old;
	int rc = PT_OK;

	switch (r->kind) {
	case SPOOL_PUT:
		rc = put_record(s, seg, offset, length, r, &e, err);
		if (!e)
			break;
		/* The same attempt again: a record that was moved, or stored a second time after a failed fsync.  The later one
		 * counts. */
		old = same_key(s, e);
		if (old)
			spool_entry_drop(s, old);
		spool_entry_add(s, e);
		HASH_ADD(by_seq, s->seq_table, seq, sizeof(e->seq), e);
		break;
	case SPOOL_DONE:
		HASH_FIND(by_seq, s->seq_table, &r->seq, sizeof(r->seq), e);
		if (e)
			spool_entry_drop(s, e);
		break;
	default:
		seg->damaged = true;
		rc = seglog_damage(&s->log, "a record of a kind that this version does not know", "");
	}
	return rc;
}

int spool_late_record(void *arg, struct seglog_segment *seg, int64_t offset, size_t length, const struct seglog_record *r,
		      struct pt_err *err)
{
	struct pt_spool *s = arg;
	struct spool_entry *e = NULL, *x;
	struct stat st;
	char name[40];
	int rc = PT_OK;

	if (r->kind == SPOOL_DONE) { /* what it takes back stands before it; it is on disk, so no other is needed */
		DL_FOREACH(s->entries, x)
		if (x->seq == r->seq && !x->taken)
			break;
		if (x) {
			spool_body_remove(s, x, false);
			spool_entry_drop(s, x);
		}
		return PT_OK;
	}
	if (r->kind == SPOOL_PUT)
		rc = put_record(s, seg, offset, length, r, &e, err);
	if (!e)
		return rc;
	if (same_key(s, e)) { /* in a newer record, which counts */
		free(e);
		return PT_OK;
	}
	if (e->body_file) {
		spool_body_name(e->body_file, name);
		if (fstatat(s->log.dir_fd, name, &st, 0) == 0)
			s->log.sealed_bytes -= st.st_size;
		s->log.other_bytes += e->body_disk;
	}
	e->late = true; /* its body is looked at when all records are known: this one may be taken back */
	spool_entry_add(s, e);
	return PT_OK;
}

static int by_seq(const struct spool_entry *a, const struct spool_entry *b)
{
	return a->seq < b->seq ? -1 : a->seq > b->seq;
}

static bool body_fits(struct pt_spool *s, const struct spool_entry *e)
{
	struct stat st;
	char name[40];

	spool_body_name(e->body_file, name);
	return !e->body_file || (fstatat(s->log.dir_fd, name, &st, 0) == 0 && st.st_size == e->body_disk);
}

static struct spool_entry *late_entry(struct pt_spool *s)
{
	struct spool_entry *e;

	DL_FOREACH(s->entries, e)
	if (e->late)
		break;
	return e;
}

void spool_late_end(struct pt_spool *s)
{
	struct spool_entry *e;

	while ((e = late_entry(s))) {
		e->late = false;
		if (body_fits(s, e))
			continue;
		e->seg->damaged = true;
		(void)seglog_damage(&s->log, "a body file is missing or has a wrong size", e->key.operation);
		spool_forget(s, e, true);
	}
	DL_SORT(s->entries, by_seq);
}

/* --- body files --- */

/* Every body that a record names must be there and whole; every other body file is the rest of a result that never was stored,
 * or belongs to a record in a segment that cannot be opened: then it stays. */
static int check_bodies(struct pt_spool *s, struct seglog_numbers *bodies, struct pt_err *err)
{
	pt_auto(pt_freep) bool *used = calloc(bodies->n + 1, sizeof(*used));
	struct spool_entry *e, *tmp;
	struct stat st;
	char name[40];

	if (!used)
		return pt_fail_oom(err);
	DL_FOREACH_SAFE(s->entries, e, tmp)
	{
		uint64_t *at = e->body_file && bodies->n
				       ? bsearch(&e->body_file, bodies->no, bodies->n, sizeof(*bodies->no), seglog_by_number)
				       : NULL;

		if (!e->body_file)
			continue;
		spool_body_name(e->body_file, name);
		if (at)
			used[at - bodies->no] = true;
		s->log.other_bytes += e->body_disk;
		if (!at || !body_fits(s, e)) {
			(void)seglog_damage(&s->log, at ? "a body file has a wrong size" : "a body file is missing", name);
			spool_forget(s, e, true);
		}
	}
	for (size_t i = 0; i < bodies->n; i++) {
		if (used[i])
			continue;
		spool_body_name(bodies->no[i], name);
		if (!s->log.sealed)
			(void)unlinkat(s->log.dir_fd, name, 0); /* tried again at the next start */
		else if (fstatat(s->log.dir_fd, name, &st, 0) == 0)
			s->log.sealed_bytes += st.st_size;
	}
	return PT_OK;
}

int spool_load(struct pt_spool *s, struct pt_err *err)
{
	struct seglog_numbers bodies = { 0 };
	int rc;

	pthread_mutex_lock(&s->lock);
	s->moving = true; /* no segment goes before all is known */
	rc = seglog_list(&s->log, "body-", ".zst", &bodies, &s->next_file, err);
	if (rc == 0)
		rc = seglog_scan(&s->log, record, s, err);
	HASH_CLEAR(by_seq, s->seq_table);
	s->next_seq = s->log.max_seq + 1;
	if (rc == 0) {
		DL_SORT(s->entries, by_seq);
		rc = check_bodies(s, &bodies, err);
	}
	s->moving = false;
	pthread_mutex_unlock(&s->lock);
	free(bodies.no);
	return rc;
}
