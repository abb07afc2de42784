/* The spool's entries: opening, handing them to publishers, acknowledging, and knowing when it is full.  Locking and layout:
 * spool_int.h. */
#include "agent/spool_int.h"
#include "base/clock.h"
#include "base/log.h"
#include "os/cond.h"
#include "os/file.h"
#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <utlist.h>

/* --- entries (under the lock) --- */

void spool_entry_add(struct pt_spool *s, struct spool_entry *e)
{
	DL_APPEND(s->entries, e);
	HASH_ADD(hh, s->table, key, sizeof(e->key), e);
	s->n_entries++;
	e->seg->live++;
	e->seg->live_bytes += e->length;
	s->live_bytes += e->length;
}

void spool_entry_drop(struct pt_spool *s, struct spool_entry *e)
{
	if (s->seq_table)
		HASH_DELETE(by_seq, s->seq_table, e);
	DL_DELETE(s->entries, e);
	HASH_DELETE(hh, s->table, e);
	s->n_entries--;
	e->seg->live--;
	e->seg->live_bytes -= e->length;
	s->live_bytes -= e->length;
	free(e);
}

static void key_set(struct spool_key *k, const char *operation, int64_t attempt)
{
	*k = (struct spool_key){ .attempt = attempt };
	snprintf(k->operation, sizeof(k->operation), "%s", operation);
}

static struct spool_entry *find(struct pt_spool *s, const char *operation, int64_t attempt)
{
	struct spool_entry *e;
	struct spool_key k;

	key_set(&k, operation, attempt);
	HASH_FIND(hh, s->table, &k, sizeof(k), e);
	return e;
}

/* --- room --- */

/* Full from the high mark on, or once something did not fit, until a quarter is free again: leasing does not flutter. */
void spool_update_full(struct pt_spool *s)
{
	int64_t bytes = s->seg_bytes + s->body_bytes, high = s->max_bytes - s->reserve;
	struct statvfs v;

	if (s->nospace_at && pt_mono_ms() - s->nospace_at >= 1000) {
		s->nospace_at = pt_mono_ms();
		if (fstatvfs(s->dir_fd, &v) == 0 && (int64_t)v.f_bavail * (int64_t)v.f_frsize >= 2 * s->seg_max)
			s->nospace_at = 0;
	}
	if (bytes >= high || s->refused || s->nospace_at)
		s->full = true;
	s->refused = false;
	if (s->full && bytes < high - high / 4 && !s->nospace_at)
		s->full = false;
}

int spool_no_room(struct pt_spool *s, struct pt_err *err)
{
	s->refused = true;
	(void)pt_fail(err, PT_E_LIMIT, "the agent's spool is full (%lld of %lld bytes)",
		      (long long)(s->seg_bytes + s->body_bytes), (long long)s->max_bytes);
	(void)pt_hint(err, "results wait for the gateway; raise --spool-max-bytes, or see why the agent cannot deliver them");
	return PT_E_LIMIT;
}

int spool_no_disk(struct pt_spool *s, struct pt_err *err)
{
	s->nospace_at = pt_mono_ms();
	s->full = true;
	(void)pt_fail(err, PT_E_LIMIT, "no space left on the disk of the agent's spool ('%s')", s->dir);
	(void)pt_hint(err, "give the volume more room, or lower --spool-max-bytes below its size");
	return PT_E_LIMIT;
}

int spool_reserve(struct pt_spool *s, int64_t n, struct pt_err *err)
{
	if (s->seg_bytes + s->body_bytes + n > s->max_bytes - s->reserve)
		return spool_no_room(s, err);
	s->body_bytes += n;
	return PT_OK;
}

/* --- open and close --- */

static int take_lock(struct pt_spool *s, struct pt_err *err)
{
	char pid[24] = "", text[24];
	ssize_t n;

	s->lock_fd = openat(s->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (s->lock_fd < 0) {
		(void)pt_fail_sys(err, errno == ENOSPC ? PT_E_IO : PT_E_DENIED, "create '%s/lock'", s->dir);
		return pt_hint(err, "the agent's user (uid %ld) must be able to write there", (long)geteuid());
	}
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		n = errno == EWOULDBLOCK ? pread(s->lock_fd, pid, sizeof(pid) - 1, 0) : 0;
		pid[n > 0 ? strcspn(pid, "\n") : 0] = '\0';
		(void)pt_fail(err, PT_E_CONFLICT, "spool '%s' is in use by process %s", s->dir, *pid ? pid : "(unknown)");
		return pt_hint(err, "stop that agent, or give this one its own --spool-dir");
	}
	n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	if (ftruncate(s->lock_fd, 0) < 0 || pwrite(s->lock_fd, text, (size_t)n, 0) != n)
		pt_debug("spool: pid not written to the lock file"); /* only the message of a second agent is poorer */
	return PT_OK;
}

int pt_spool_open(struct pt_spool **ret, const char *dir, int64_t max_bytes, struct pt_err *err)
{
	pt_auto(pt_spool_closep) struct pt_spool *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return pt_fail_oom(err);
	s->dir_fd = s->lock_fd = s->cur_fd = -1;
	pthread_mutex_init(&s->lock, NULL);
	pt_cond_init(&s->avail);
	pthread_cond_init(&s->synced, NULL);
	s->max_bytes = max_bytes;
	s->reserve = max_bytes / 16 < 16 * 1024 * 1024 ? max_bytes / 16 : 16 * 1024 * 1024;
	s->seg_max = max_bytes / 16 < SPOOL_SEGMENT_MAX ? max_bytes / 16 : SPOOL_SEGMENT_MAX;
	s->next_segment = s->next_seq = s->next_file = 1;
	s->dir = strdup(dir);
	if (!s->dir)
		return pt_fail_oom(err);
	rc = pt_mkdirs(dir, err);
	if (rc == 0 && (s->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		rc = pt_fail_sys(err, errno == EACCES ? PT_E_DENIED : PT_E_IO, "open folder '%s'", dir);
	if (rc < 0 && !*err->hint)
		(void)pt_hint(err, "the agent's user (uid %ld) must be able to create and write '%s'", (long)geteuid(), dir);
	if (rc == 0)
		rc = take_lock(s, err);
	if (rc == 0)
		rc = spool_scan(s, err);
	if (rc < 0)
		return pt_err_wrap(err, rc, "spool");
	*ret = pt_steal(&s);
	return PT_OK;
}

void pt_spool_close(struct pt_spool *s)
{
	struct spool_segment *seg, *next;

	if (!s)
		return;
	if (s->cur_fd >= 0) {
		(void)fdatasync(s->cur_fd); /* done records only: a lost one means one repeated, harmless PUT */
		close(s->cur_fd);
	}
	while (s->entries)
		spool_entry_drop(s, s->entries);
	LL_FOREACH_SAFE(s->oldest, seg, next)
		free(seg);
	pt_closep(&s->lock_fd);
	pt_closep(&s->dir_fd);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->avail);
	pthread_cond_destroy(&s->synced);
	free(s->dir);
	free(s);
}

void pt_spool_stats(struct pt_spool *s, struct pt_spool_stats *ret)
{
	pthread_mutex_lock(&s->lock);
	spool_update_full(s);
	*ret = (struct pt_spool_stats){
		.entries = s->n_entries,
		.bytes = s->seg_bytes + s->body_bytes,
		.max_bytes = s->max_bytes,
		.oldest_ms = s->entries ? pt_wall_ms() - s->entries->stored_at : 0,
		.full = s->full,
		.damaged = s->damaged,
		.syncs = s->syncs,
	};
	pthread_mutex_unlock(&s->lock);
	if (ret->oldest_ms < 0) /* the wall clock was set back */
		ret->oldest_ms = 0;
}

/* --- publishers --- */

/* Read an entry back.  Not under the lock: the entry is ours, fd is its segment. */
static int load(struct pt_spool *s, struct pt_buf *rec, struct pt_spool_entry *ret, uint64_t body_file, struct pt_err *err)
{
	const char *payload = rec->p + sizeof(struct spool_record_head);
	size_t n = rec->len - sizeof(struct spool_record_head);
	struct spool_put p;
	struct stat st;
	char name[40];

	if (!spool_record_check(rec->p, rec->len))
		return pt_fail(err, PT_E_CORRUPT, "the record of this result has changed on disk");
	spool_put_get(payload, &p);
	payload += sizeof(p) + p.op_len;
	n -= sizeof(p) + p.op_len + p.head_len;
	pt_buf_add(&ret->head, payload, p.head_len);
	if (ret->head.bad)
		return pt_buf_done(&ret->head, err);
	if (!body_file) {
		ret->inline_body.p = n ? malloc(n) : NULL;
		if (n && !ret->inline_body.p)
			return pt_fail_oom(err);
		if (n)
			memcpy(ret->inline_body.p, payload + p.head_len, n);
		ret->inline_body.n = n;
		return PT_OK;
	}
	spool_body_name(body_file, name);
	ret->body_fd = openat(s->dir_fd, name, O_RDONLY | O_CLOEXEC);
	if (ret->body_fd < 0 || fstat(ret->body_fd, &st) < 0)
		return pt_fail_sys(err, PT_E_IO, "open '%s/%s'", s->dir, name);
	if (st.st_size != p.body_size)
		return pt_fail(err, PT_E_CORRUPT, "'%s/%s' has %lld bytes, not %lld", s->dir, name, (long long)st.st_size,
			       (long long)p.body_size);
	return PT_OK;
}

static void entry_release(struct pt_spool_entry *e)
{
	pt_buf_release(&e->head);
	free(e->inline_body.p);
	e->inline_body = (struct pt_bytes){ 0 };
	pt_closep(&e->body_fd);
	e->body_fd = -1;
}

int pt_spool_take(struct pt_spool *s, struct pt_spool_entry *ret, int64_t most_ms, struct pt_err *err)
{
	pt_auto_buf rec = PT_BUF_INIT(SPOOL_HEAD_MAX + SPOOL_INLINE_MAX + 4096);
	int64_t end = pt_mono_ms() + most_ms;
	struct spool_entry *e, *best;
	uint64_t body_file;
	int rc;

	pthread_mutex_lock(&s->lock);
	for (best = NULL;;) {
		int64_t now = pt_mono_ms(), until = end;

		DL_FOREACH(s->entries, e)
		{
			if (e->taken)
				continue;
			if (e->next_try <= now) {
				best = e;
				break;
			}
			if (e->next_try < until)
				until = e->next_try;
		}
		if (best || now >= end || s->stopped)
			break;
		(void)pt_cond_wait_ms(&s->avail, &s->lock, until - pt_mono_ms());
	}
	if (!best || s->stopped) {
		pthread_mutex_unlock(&s->lock);
		return 0;
	}
	best->taken = true;
	body_file = best->body_file;
	*ret = (struct pt_spool_entry){ .attempt = best->key.attempt, .head = PT_BUF_INIT(SPOOL_HEAD_MAX + 1), .body_fd = -1,
					.body_size = best->body_size, .stored_at = best->stored_at, .tries = best->tries };
	memcpy(ret->operation, best->key.operation, sizeof(ret->operation));
	rc = spool_segment_read(s, best->seg, best->offset, (size_t)best->length, &rec, err);
	pthread_mutex_unlock(&s->lock);
	if (rc == 0)
		rc = load(s, &rec, ret, body_file, err);
	if (rc == 0)
		return 1;
	entry_release(ret);
	pthread_mutex_lock(&s->lock);
	if (rc == PT_E_INTERNAL) { /* memory or descriptors are short: the entry is fine */
		best->taken = false;
		best->next_try = pt_mono_ms() + 1000;
	} else {
		s->damaged++;
		best->seg->damaged = true;
		spool_forget(s, best, true);
	}
	pthread_mutex_unlock(&s->lock);
	return pt_err_wrap(err, rc, "read the result of %s attempt %lld back", ret->operation, (long long)ret->attempt);
}

void spool_forget(struct pt_spool *s, struct spool_entry *e, bool aside)
{
	pt_auto_buf rec = PT_BUF_INIT(256);
	uint64_t seq = htole64(e->seq);
	struct spool_segment *seg;
	char name[40], to[64];
	struct pt_err err = { 0 };
	int64_t offset;
	int rc;

	spool_record_begin(&rec, SPOOL_DONE);
	pt_buf_add(&rec, &seq, sizeof(seq));
	spool_record_end(&rec);
	rc = pt_buf_done(&rec, &err);
	if (rc == 0)
		rc = spool_append(s, &rec, INT64_MAX, &seg, &offset, &err);
	if (e->body_file) {
		if (rc == 0) /* the file goes after the record that says so is on disk */
			rc = spool_sync(s, s->appended - 1, &err);
		spool_body_name(e->body_file, name);
		snprintf(to, sizeof(to), "%s.damaged", name);
		if (!aside || renameat(s->dir_fd, name, s->dir_fd, to) < 0)
			(void)unlinkat(s->dir_fd, name, 0); /* an orphan is removed at the next start */
		s->body_bytes -= e->body_size;
	}
	if (rc < 0) /* it is delivered once more after a restart, and the gateway knows it by then */
		pt_debug("spool: done record not written", "error", err.msg);
	spool_entry_drop(s, e);
	if (!s->n_entries)
		pthread_cond_broadcast(&s->avail); /* somebody may wait for that */
	spool_retire(s);
}

void pt_spool_ack(struct pt_spool *s, struct pt_spool_entry *e)
{
	struct spool_entry *x;

	pthread_mutex_lock(&s->lock);
	x = find(s, e->operation, e->attempt);
	if (x)
		spool_forget(s, x, false);
	pthread_mutex_unlock(&s->lock);
	entry_release(e);
}

void pt_spool_retry(struct pt_spool *s, struct pt_spool_entry *e, int64_t after_ms)
{
	struct spool_entry *x;

	pthread_mutex_lock(&s->lock);
	x = find(s, e->operation, e->attempt);
	if (x) {
		x->taken = false;
		x->tries++;
		x->next_try = pt_mono_ms() + after_ms;
	}
	pthread_cond_broadcast(&s->avail);
	pthread_mutex_unlock(&s->lock);
	entry_release(e);
}

void pt_spool_wake(struct pt_spool *s)
{
	struct spool_entry *e;

	pthread_mutex_lock(&s->lock);
	DL_FOREACH(s->entries, e)
		e->next_try = 0;
	pthread_cond_broadcast(&s->avail);
	pthread_mutex_unlock(&s->lock);
}

void pt_spool_stop(struct pt_spool *s)
{
	pthread_mutex_lock(&s->lock);
	s->stopped = true;
	pthread_cond_broadcast(&s->avail);
	pthread_mutex_unlock(&s->lock);
}

bool pt_spool_wait_empty(struct pt_spool *s, int64_t most_ms)
{
	int64_t end = pt_mono_ms() + most_ms;
	bool empty;

	pthread_mutex_lock(&s->lock);
	while (s->n_entries && !s->stopped && pt_mono_ms() < end)
		(void)pt_cond_wait_ms(&s->avail, &s->lock, end - pt_mono_ms());
	empty = !s->n_entries;
	pthread_mutex_unlock(&s->lock);
	return empty;
}

bool pt_spool_has(struct pt_spool *s, const char *operation, int64_t attempt)
{
	bool has;

	pthread_mutex_lock(&s->lock);
	has = find(s, operation, attempt) != NULL;
	pthread_mutex_unlock(&s->lock);
	return has;
}

void pt_spool_each(struct pt_spool *s, void (*fn)(void *arg, const char *operation, int64_t attempt), void *arg)
{
	struct spool_entry *e;

	pthread_mutex_lock(&s->lock);
	DL_FOREACH(s->entries, e)
		fn(arg, e->key.operation, e->key.attempt);
	pthread_mutex_unlock(&s->lock);
}
