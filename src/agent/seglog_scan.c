/* Reading a folder of segments: collect the data keys that our keys open, then every record, oldest first; cut a torn tail,
 * count damage, and set aside what no key opens.  See seglog.h. */
#include "agent/seglog.h"
#include "base/log.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <utlist.h>

enum { KEYS_AT_BEGIN = 64 * 1024 }; /* key records stand at the begin of a segment: so much is read to find them */

/* The next place at or after p where a whole valid record begins, or NULL. */
static const char *resync(const char *p, const char *end)
{
	while (p < end && (p = memmem(p, (size_t)(end - p), "PTr", 3))) {
		if (seglog_record_check(p, (size_t)(end - p)))
			return p;
		p++;
	}
	return NULL;
}

static int cut(struct seglog *l, const char *name, int64_t size, struct pt_err *err)
{
	pt_auto(pt_closep) int fd = openat(l->dir_fd, name, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || ftruncate(fd, size) < 0 || fsync(fd) < 0)
		return pt_fail_sys(err, PT_E_IO, "cut '%s/%s'", l->dir, name);
	return PT_OK;
}

/* --- data keys --- */

/* The key records at p.  1: another record was met, so there are no more of them. */
static int keys_in(struct seglog *l, const struct seglog_segment *seg, const char *p, size_t n, struct pt_err *err)
{
	const char *begin = p, *end = p + n;
	struct seglog_record_head h;
	int64_t before;
	char by[128];
	int rc;

	while ((p = resync(p, end))) {
		size_t len = seglog_record_check(p, (size_t)(end - p));

		seglog_head_get(p, &h);
		if (h.magic != SEGLOG_MAGIC || h.kind != SEGLOG_KIND_KEY)
			return 1;
		rc = seglog_datakey_read(l, seg->no, p - begin, p, len, by, &before, err);
		if (rc < 0)
			return rc;
		p += len;
	}
	return 0;
}

static int read_keys(struct seglog *l, const struct seglog_segment *list, struct pt_err *err)
{
	const struct seglog_segment *seg;

	LL_FOREACH(list, seg)
	{
		pt_auto_buf b = PT_BUF_INIT((size_t)seg->size + 64);
		size_t most = seg->size < KEYS_AT_BEGIN ? (size_t)seg->size : KEYS_AT_BEGIN;
		struct pt_err e = { 0 };
		int rc = seglog_segment_read(l, seg->no, 0, most, &b, &e);

		if (rc == 0)
			rc = keys_in(l, seg, b.p, b.len, err);
		if (rc == 0 && most < (size_t)seg->size) {
			pt_buf_clear(&b);
			rc = seglog_segment_read(l, seg->no, 0, (size_t)seg->size, &b, &e);
			if (rc == 0)
				rc = keys_in(l, seg, b.p, b.len, err);
		}
		if (rc == PT_E_INTERNAL)
			return rc;
	} /* what cannot be read is reported when its records are */
	return PT_OK;
}

/* Those of segments that have gone. */
static void drop_unused_keys(struct seglog *l)
{
	struct seglog_datakey *k, *next;

	LL_FOREACH_SAFE(l->keys, k, next)
	if (!k->refs) {
		k->refs = 1;
		seglog_datakey_unref(l, k);
	}
}

/* --- records --- */

struct reader {
	struct seglog *log;
	struct seglog_segment *seg;
	const char *name;
	seglog_record_fn *fn;
	void *arg;
	int64_t before;      /* size of the segment before this one, when it says so */
	unsigned keys, ours; /* key records; those that our keys open */
	bool any, sealed;    /* any: other records */
};

static int bad(struct reader *r, const char *what)
{
	r->seg->damaged = true;
	return seglog_damage(r->log, what, r->name);
}

static int key_record(struct reader *r, int64_t offset, const char *p, size_t length, struct pt_err *err)
{
	int64_t before;
	char by[128];
	int rc = seglog_datakey_read(r->log, r->seg->no, offset, p, length, by, &before, err);
	struct seglog_record_head h;

	seglog_head_get(p, &h);
	if (rc < 0)
		return rc;
	if (r->any || !*by)
		return bad(r, "a key record where none can be");
	if (!r->keys++)
		memcpy(r->seg->sealed_by, by, sizeof(by));
	r->ours += seglog_datakey_find(r->log, h.key) != NULL;
	if (before)
		r->before = before;
	return PT_OK;
}

/* The first record that is not a key tells whose all of them are. */
static void begin_records(struct reader *r, const struct seglog_record_head *h)
{
	r->any = true;
	r->seg->plain = h->magic == SEGLOG_PLAIN_MAGIC && !r->keys;
	if (r->seg->plain)
		return;
	r->seg->key = seglog_datakey_find(r->log, h->key);
	if (r->seg->key)
		r->seg->key->refs++;
	r->sealed = !r->seg->key && h->magic == SEGLOG_MAGIC;
}

static int one_record(struct reader *r, int64_t offset, char *p, size_t length, struct pt_err *err)
{
	struct seglog_record_head h;
	struct seglog_record rec;
	struct pt_err e = { 0 };
	int rc;

	seglog_head_get(p, &h);
	if (h.magic == SEGLOG_MAGIC && h.kind == SEGLOG_KIND_KEY)
		return key_record(r, offset, p, length, err);
	if (!r->any)
		begin_records(r, &h);
	if (h.seq > r->log->max_seq)
		r->log->max_seq = h.seq;
	if (r->sealed)
		return PT_OK;
	rc = seglog_record_open(r->log, r->seg, offset, p, length, &rec, &e);
	return rc < 0 ? bad(r, e.msg) : r->fn(r->arg, r->seg, offset, length, &rec, err);
}

/* All of a segment.  last: a broken tail is what power loss cut, and goes. */
static int read_segment(struct seglog *l, struct seglog_segment *seg, bool last, struct reader *r, struct pt_err *err)
{
	pt_auto_buf b = PT_BUF_INIT((size_t)seg->size + 64);
	char name[40], *p, *end;
	int rc;

	seglog_segment_name(seg->no, name);
	r->log = l;
	r->seg = seg;
	r->name = name;
	rc = seglog_segment_read(l, seg->no, 0, (size_t)seg->size, &b, err);
	if (rc == PT_E_IO || rc == PT_E_CORRUPT)
		return bad(r, "a segment cannot be read");
	for (p = b.p, end = b.p + b.len; rc == 0 && p < end;) {
		size_t n = seglog_record_check(p, (size_t)(end - p));

		if (!n) {
			const char *next = resync(p + 1, end);

			if (!next && last) { /* a write that power loss cut: it was never acknowledged */
				seg->size = p - b.p;
				rc = cut(l, name, seg->size, err);
				break;
			}
			(void)bad(r, "a record has a wrong checksum");
			p = next ? b.p + (next - b.p) : end;
			continue;
		}
		rc = one_record(r, p - b.p, p, n, err);
		p += n;
	}
	/* Key records alone may be what another segment needs. */
	r->sealed |= !r->any && r->keys && !r->ours;
	return rc;
}

static void add_sealed(struct seglog *l, struct seglog_segment *seg)
{
	LL_APPEND(l->sealed, seg);
	l->n_sealed++;
	l->sealed_bytes += seg->size;
}

void seglog_say_sealed(const struct seglog *l)
{
	const struct seglog_segment *seg, *x;

	LL_FOREACH(l->sealed, seg)
	{
		int64_t n = 0;
		bool said = false;

		LL_FOREACH(l->sealed, x)
		{
			bool same = strcmp(x->sealed_by, seg->sealed_by) == 0;

			said |= same && x->no < seg->no;
			n += same;
		}
		if (!said)
			pt_warn("data on disk is sealed with a key that this agent does not have; it is kept and not touched",
				"of", l->what, "key_id", *seg->sealed_by ? seg->sealed_by : "(unknown)", "segments", pt_num(n),
				"folder", l->dir, "hint",
				"put that key into the token file as \"previous\": {\"key_id\", \"key_secret\"}");
	}
}

/* --- the folder --- */

static int number_add(struct seglog_numbers *a, uint64_t no, struct pt_err *err)
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

int seglog_by_number(const void *a, const void *b)
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

int seglog_list(struct seglog *l, const char *prefix, const char *suffix, struct seglog_numbers *ret, uint64_t *next,
		struct pt_err *err)
{
	DIR *d = opendir(l->dir);
	struct dirent *ent;
	char aside[32];
	uint64_t no;
	int rc = 0;

	if (!d)
		return pt_fail_sys(err, PT_E_IO, "list '%s'", l->dir);
	snprintf(aside, sizeof(aside), "%s.damaged", suffix);
	while (rc == 0 && (ent = readdir(d))) {
		bool live = named(ent->d_name, prefix, suffix, &no);

		if (live)
			rc = number_add(ret, no, err);
		if ((live || named(ent->d_name, prefix, aside, &no)) && no >= *next)
			*next = no + 1;
	}
	closedir(d);
	if (ret->n)
		qsort(ret->no, ret->n, sizeof(*ret->no), seglog_by_number);
	return rc;
}

static int add_segments(struct seglog *l, struct seglog_segment **list, const struct seglog_numbers *segments, struct pt_err *err)
{
	for (size_t i = 0; i < segments->n; i++) {
		struct seglog_segment *seg = calloc(1, sizeof(*seg));
		struct stat st;
		char name[40];

		if (!seg)
			return pt_fail_oom(err);
		seg->no = segments->no[i];
		seglog_segment_name(seg->no, name);
		if (fstatat(l->dir_fd, name, &st, 0) == 0)
			seg->size = st.st_size;
		LL_APPEND(*list, seg);
	}
	return PT_OK;
}

int seglog_scan(struct seglog *l, seglog_record_fn *fn, void *arg, struct pt_err *err)
{
	struct seglog_segment *list = NULL, *seg, *next, *before = NULL;
	struct seglog_numbers segments = { 0 };
	int rc = seglog_list(l, "seg-", ".log", &segments, &l->next_segment, err);

	if (rc == 0)
		rc = add_segments(l, &list, &segments, err);
	free(segments.no);
	if (rc == 0)
		rc = read_keys(l, list, err);
	LL_FOREACH_SAFE(list, seg, next)
	{
		struct reader r = { .fn = fn, .arg = arg };
		int64_t size = seg->size;

		seg->next = NULL;
		LL_APPEND(l->oldest, seg); /* where the records' owner finds it, and where it ends when reading fails */
		if (rc < 0)
			continue;
		rc = read_segment(l, seg, !next, &r, err);
		if (before && before->no + 1 == seg->no && before->size < r.before) {
			char name[40];

			seglog_segment_name(before->no, name);
			before->damaged = true;
			(void)seglog_damage(l, "a segment has lost its end", name);
		}
		before = seg;
		if (rc == 0 && r.sealed) {
			LL_DELETE(l->oldest, seg);
			add_sealed(l, seg);
		} else {
			l->bytes += seg->size;
		}
		if (size != seg->size)
			pt_debug("a torn tail was cut off", "bytes", pt_num(size - seg->size));
	}
	drop_unused_keys(l);
	return rc;
}

/* --- other keys --- */

static int by_no(const struct seglog_segment *a, const struct seglog_segment *b)
{
	return a->no < b->no ? -1 : a->no > b->no;
}

int seglog_rekey(struct seglog *l, const struct pt_seal_ring *ring, seglog_record_fn *fn, void *arg, struct pt_err *err)
{
	struct seglog_segment *seg, *next;
	int rc;

	if (ring->generation < l->ring.generation)
		return PT_OK;
	if (memcmp(ring->keys[0].key, l->ring.keys[0].key, SEAL_KEY_BYTES) != 0) {
		l->epoch++;
		l->must_roll |= l->cur_fd >= 0;
	}
	l->ring = *ring;
	if (!l->sealed)
		return PT_OK;
	rc = read_keys(l, l->sealed, err);
	LL_FOREACH_SAFE(l->sealed, seg, next)
	{
		struct reader r = { .fn = fn, .arg = arg };

		if (rc == 0)
			rc = read_segment(l, seg, false, &r, err);
		if (rc < 0 || r.sealed)
			continue;
		LL_DELETE(l->sealed, seg);
		l->n_sealed--;
		l->sealed_bytes -= seg->size;
		l->bytes += seg->size;
		seg->next = NULL;
		LL_APPEND(l->oldest, seg);
	}
	LL_SORT(l->oldest, by_no); /* cur has the highest number and stays the last */
	drop_unused_keys(l);
	return rc;
}
