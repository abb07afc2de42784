/* Opening a spool: read every segment, rebuild the list of entries, cut torn tails, keep damaged files aside, and remove body
 * files that no record names.  Runs before any other thread knows the spool. */
#include "agent/spool_int.h"
#include "base/log.h"
#include "os/file.h"
#include <dirent.h>
#include <endian.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <utlist.h>

static int damage(struct pt_spool *s, const char *what, const char *file)
{
	s->damaged++;
	pt_warn("spool: damaged data", "what", what, "file", file, "folder", s->dir);
	return PT_OK;
}

static int put_record(struct pt_spool *s, struct spool_segment *seg, int64_t offset, size_t length, const char *payload, size_t n,
		      struct pt_err *err)
{
	struct spool_put p;
	struct spool_entry *e, *old;

	if (n < sizeof(p))
		return damage(s, "a put record is too short", "");
	spool_put_get(payload, &p);
	if (p.op_len >= PT_ID_SIZE || (size_t)p.op_len + p.head_len > n - sizeof(p))
		return damage(s, "a put record has impossible lengths", "");
	e = calloc(1, sizeof(*e));
	if (!e)
		return pt_fail_oom(err);
	memcpy(e->key.operation, payload + sizeof(p), p.op_len);
	e->key.attempt = p.attempt;
	e->seq = p.seq;
	e->seg = seg;
	e->offset = offset;
	e->length = (int64_t)length;
	e->body_file = p.body_file;
	e->body_size = p.body_size;
	e->stored_at = p.stored_at;
	if (p.seq >= s->next_seq)
		s->next_seq = p.seq + 1;
	if (p.body_file >= s->next_file)
		s->next_file = p.body_file + 1;
	/* The same attempt again: a record that was moved, or stored a second time after a failed fsync.  The later one
	 * counts. */
	HASH_FIND(hh, s->table, &e->key, sizeof(e->key), old);
	if (old)
		spool_entry_drop(s, old);
	spool_entry_add(s, e);
	HASH_ADD(by_seq, s->seq_table, seq, sizeof(e->seq), e);
	return PT_OK;
}

static void done_record(struct pt_spool *s, const char *payload, size_t n)
{
	struct spool_entry *e;
	uint64_t seq;

	if (n != sizeof(seq)) {
		(void)damage(s, "a done record has a wrong length", "");
		return;
	}
	memcpy(&seq, payload, sizeof(seq));
	seq = le64toh(seq);
	if (seq >= s->next_seq)
		s->next_seq = seq + 1;
	HASH_FIND(by_seq, s->seq_table, &seq, sizeof(seq), e);
	if (e)
		spool_entry_drop(s, e);
}

/* The next place at or after p where a whole valid record begins, or NULL. */
static const char *resync(const char *p, const char *end)
{
	static const char magic[4] = { 'P', 'T', 'r', '1' };

	while (p < end && (p = memmem(p, (size_t)(end - p), magic, sizeof(magic)))) {
		if (spool_record_check(p, (size_t)(end - p)))
			return p;
		p++;
	}
	return NULL;
}

static int cut(struct pt_spool *s, const char *name, int64_t size, struct pt_err *err)
{
	pt_auto(pt_closep) int fd = openat(s->dir_fd, name, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || ftruncate(fd, size) < 0 || fsync(fd) < 0)
		return pt_fail_sys(err, PT_E_IO, "cut '%s/%s'", s->dir, name);
	return PT_OK;
}

static int read_segment(struct pt_spool *s, struct spool_segment *seg, bool last, struct pt_err *err)
{
	pt_auto_buf b = PT_BUF_INIT((size_t)seg->size + 64);
	const char *p, *end;
	char name[40];
	int rc;

	spool_segment_name(seg->no, name);
	rc = spool_segment_read(s, seg, 0, (size_t)seg->size, &b, err);
	if (rc == PT_E_IO || rc == PT_E_CORRUPT) {
		seg->damaged = true;
		return damage(s, "a segment cannot be read", name);
	}
	for (p = b.p, end = b.p + b.len; rc == 0 && p < end;) {
		size_t n = spool_record_check(p, (size_t)(end - p));
		struct spool_record_head h;
		const char *payload = p + sizeof(h);

		if (!n) {
			const char *next = resync(p + 1, end);

			if (!next && last) { /* a write that power loss cut: it was never acknowledged */
				seg->size = p - b.p;
				return cut(s, name, seg->size, err);
			}
			seg->damaged = true;
			(void)damage(s, "a record has a wrong checksum", name);
			p = next ? next : end;
			continue;
		}
		memcpy(&h, p, sizeof(h));
		switch (le32toh(h.kind)) {
		case SPOOL_PUT:
			rc = put_record(s, seg, p - b.p, n, payload, n - sizeof(h), err);
			break;
		case SPOOL_DONE:
			done_record(s, payload, n - sizeof(h));
			break;
		default:
			seg->damaged = true;
			(void)damage(s, "a record of a kind that this version does not know", name);
		}
		p += n;
	}
	return rc;
}

struct numbers {
	uint64_t *no;
	size_t n, cap;
};

static int number_add(struct numbers *a, uint64_t no, struct pt_err *err)
{
	if (a->n == a->cap) {
		size_t cap = a->cap ? a->cap * 2 : 64;
		void *p = realloc(a->no, cap * sizeof(*a->no));

		if (!p)
			return pt_fail_oom(err);
		a->no = p;
		a->cap = cap;
	}
	a->no[a->n++] = no;
	return PT_OK;
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static bool named(const char *name, const char *prefix, const char *suffix, uint64_t *ret)
{
	size_t n = strlen(prefix);
	char *end;

	if (strncmp(name, prefix, n) != 0 || strspn(name + n, "0123456789abcdef") != 16)
		return false;
	*ret = strtoull(name + n, &end, 16);
	return strcmp(end, suffix) == 0;
}

static int list_folder(struct pt_spool *s, struct numbers *segments, struct numbers *bodies, struct pt_err *err)
{
	DIR *d = opendir(s->dir);
	struct dirent *ent;
	uint64_t no;
	int rc = 0;

	if (!d)
		return pt_fail_sys(err, PT_E_IO, "list '%s'", s->dir);
	while (rc == 0 && (ent = readdir(d))) {
		if (named(ent->d_name, "seg-", ".log", &no)) {
			rc = number_add(segments, no, err);
		} else if (named(ent->d_name, "body-", ".zst", &no)) {
			rc = number_add(bodies, no, err);
		} else if (named(ent->d_name, "seg-", ".log.damaged", &no)) {
			if (no >= s->next_segment)
				s->next_segment = no + 1;
		} else if (named(ent->d_name, "body-", ".zst.damaged", &no)) {
			if (no >= s->next_file)
				s->next_file = no + 1;
		}
	}
	closedir(d);
	if (segments->n)
		qsort(segments->no, segments->n, sizeof(*segments->no), by_number);
	if (bodies->n)
		qsort(bodies->no, bodies->n, sizeof(*bodies->no), by_number);
	return rc;
}

/* Every body that a record names must be there and whole; every other body file is the rest of a result that never was stored. */
static int check_bodies(struct pt_spool *s, struct numbers *bodies, struct pt_err *err)
{
	pt_auto(pt_freep) bool *used = calloc(bodies->n + 1, sizeof(*used));
	struct spool_entry *e, *tmp;
	char name[40];

	if (!used)
		return pt_fail_oom(err);
	DL_FOREACH_SAFE(s->entries, e, tmp)
	{
		uint64_t *at = e->body_file && bodies->n
				       ? bsearch(&e->body_file, bodies->no, bodies->n, sizeof(*bodies->no), by_number) : NULL;
		struct stat st;

		if (!e->body_file)
			continue;
		spool_body_name(e->body_file, name);
		if (at)
			used[at - bodies->no] = true;
		if (!at || fstatat(s->dir_fd, name, &st, 0) < 0 || st.st_size != e->body_size) {
			(void)damage(s, at ? "a body file has a wrong size" : "a body file is missing", name);
			s->body_bytes += e->body_size;
			spool_forget(s, e, true);
		} else {
			s->body_bytes += st.st_size;
		}
	}
	for (size_t i = 0; i < bodies->n; i++) {
		spool_body_name(bodies->no[i], name);
		if (bodies->no[i] >= s->next_file)
			s->next_file = bodies->no[i] + 1;
		if (!used[i])
			(void)unlinkat(s->dir_fd, name, 0); /* tried again at the next start */
	}
	return PT_OK;
}

static int by_seq(const struct spool_entry *a, const struct spool_entry *b)
{
	return a->seq < b->seq ? -1 : a->seq > b->seq;
}

static int scan(struct pt_spool *s, struct numbers *segments, struct numbers *bodies, struct pt_err *err)
{
	int rc = list_folder(s, segments, bodies, err);

	for (size_t i = 0; rc == 0 && i < segments->n; i++) {
		struct spool_segment *seg = calloc(1, sizeof(*seg));
		struct stat st;
		char name[40];

		if (!seg)
			return pt_fail_oom(err);
		seg->no = segments->no[i];
		spool_segment_name(seg->no, name);
		if (fstatat(s->dir_fd, name, &st, 0) == 0)
			seg->size = st.st_size;
		LL_APPEND(s->oldest, seg);
		if (seg->no >= s->next_segment)
			s->next_segment = seg->no + 1;
		rc = read_segment(s, seg, i + 1 == segments->n, err);
		s->seg_bytes += seg->size;
	}
	HASH_CLEAR(by_seq, s->seq_table);
	if (rc < 0)
		return rc;
	DL_SORT(s->entries, by_seq);
	return check_bodies(s, bodies, err);
}

int spool_scan(struct pt_spool *s, struct pt_err *err)
{
	struct numbers segments = { 0 }, bodies = { 0 };
	int rc;

	pthread_mutex_lock(&s->lock);
	s->moving = true; /* no segment goes before all is known */
	rc = scan(s, &segments, &bodies, err);
	s->moving = false;
	if (rc == 0)
		spool_retire(s);
	pthread_mutex_unlock(&s->lock);
	free(segments.no);
	free(bodies.no);
	return rc;
}
