/* The spool's entries: opening, handing them to publishers, acknowledging, and knowing when it is full.  Locking and layout:
 * spool_int.h. */
#include "agent/spool_int.h"
#include "base/clock.h"
#include "base/log.h"
#include "os/cond.h"
#include "os/file.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <utlist.h>

/* --- entries (under the lock) --- */

void spool_entry_add(struct pt_spool *s, struct spool_entry *e)
{
	DL_APPEND(s->entries, e);
	HASH_ADD(hh, s->table, key, sizeof(e->key), e);
	s->n_entries++;
	e->seg->live++;
	e->seg->live_bytes += e->length;
	s->log.live_bytes += e->length;
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
	s->log.live_bytes -= e->length;
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

/* --- open and close --- */

int pt_spool_open(struct pt_spool **ret, const char *dir, int64_t max_bytes, const struct pt_seal_ring *ring, struct pt_err *err)
{
	pt_auto(pt_spool_closep) struct pt_spool *s = calloc(1, sizeof(*s));
	struct pt_err e = { 0 };
	int rc;

	if (!s)
		return pt_fail_oom(err);
	pthread_mutex_init(&s->lock, NULL);
	pt_cond_init(&s->avail);
	s->next_seq = s->next_file = 1;
	s->log.what = "spool";
	s->log.option = "--spool-max-bytes";
	rc = seglog_open(&s->log, &s->lock, dir, max_bytes, ring, err);
	if (rc == 0)
		rc = spool_load(s, err);
	if (rc < 0)
		return pt_err_wrap(err, rc, "spool");
	seglog_say_sealed(&s->log);
	pthread_mutex_lock(&s->lock);
	if (seglog_rewrap(&s->log, &e) < 0)
		pt_log_err(PT_LOG_WARN, "the spool is not yet sealed for the agent's new key", &e);
	spool_retire(s);
	pthread_mutex_unlock(&s->lock);
	*ret = pt_steal(&s);
	return PT_OK;
}

int pt_spool_rekey(struct pt_spool *s, const struct pt_seal_ring *ring, struct pt_err *err)
{
	int64_t before;
	int rc;

	pthread_mutex_lock(&s->lock);
	before = s->n_entries;
	rc = seglog_rekey(&s->log, ring, spool_late_record, s, err);
	spool_late_end(s);
	if (s->n_entries > before) {
		pt_info("results are back whose key was missing", "results", pt_num(s->n_entries - before), "folder", s->log.dir);
		pthread_cond_broadcast(&s->avail);
	}
	if (rc == 0)
		rc = seglog_rewrap(&s->log, err);
	spool_retire(s);
	pthread_mutex_unlock(&s->lock);
	return pt_err_wrap(err, rc, "seal the spool for the agent's new key");
}

void pt_spool_close(struct pt_spool *s)
{
	if (!s)
		return;
	while (s->entries)
		spool_entry_drop(s, s->entries);
	seglog_close(&s->log);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->avail);
	free(s);
}

void pt_spool_stats(struct pt_spool *s, struct pt_spool_stats *ret)
{
	pthread_mutex_lock(&s->lock);
	seglog_update_full(&s->log);
	*ret = (struct pt_spool_stats) {
		.entries = s->n_entries,
		.bytes = seglog_bytes(&s->log),
		.max_bytes = s->log.max_bytes,
		.oldest_ms = s->entries ? pt_wall_ms() - s->entries->stored_at : 0,
		.full = s->log.full,
		.disk_errno = s->log.disk_errno,
		.damaged = s->log.damaged,
		.sealed = s->log.n_sealed,
		.sealed_bytes = s->log.sealed_bytes,
		.syncs = s->log.syncs,
	};
	if (s->log.sealed)
		memcpy(ret->sealed_by, s->log.sealed->sealed_by, sizeof(ret->sealed_by));
	pthread_mutex_unlock(&s->lock);
	if (ret->oldest_ms < 0) /* the wall clock was set back */
		ret->oldest_ms = 0;
}

/* --- publishers --- */

/* What a record says into ret.  Not under the lock: the entry is ours. */
static int load(struct pt_spool *s, const struct seglog_record *r, struct pt_spool_entry *ret, struct pt_err *err)
{
	struct spool_put_view v;
	struct stat st;
	char name[40];

	if (!spool_put_get(r, &v))
		return pt_fail(err, PT_E_CORRUPT, "the record of this result has impossible lengths");
	pt_buf_add(&ret->head, v.head, v.put.head_len);
	if (ret->head.bad)
		return pt_buf_done(&ret->head, err);
	if (!v.put.body_file) {
		ret->inline_body.p = v.body_len ? malloc(v.body_len) : NULL;
		if (v.body_len && !ret->inline_body.p)
			return pt_fail_oom(err);
		if (v.body_len)
			memcpy(ret->inline_body.p, v.body, v.body_len);
		ret->inline_body.n = v.body_len;
		return PT_OK;
	}
	spool_body_name(v.put.body_file, name);
	ret->body_fd = openat(s->log.dir_fd, name, O_RDONLY | O_CLOEXEC);
	if (ret->body_fd < 0 || fstat(ret->body_fd, &st) < 0)
		return pt_fail_sys(err, errno == EMFILE || errno == ENFILE ? PT_E_INTERNAL : PT_E_IO, "open '%s/%s'", s->log.dir,
				   name);
	if (st.st_size != spool_body_disk(v.put.body_size, v.body_key))
		return pt_fail(err, PT_E_CORRUPT, "'%s/%s' has a wrong size (%lld bytes)", s->log.dir, name,
			       (long long)st.st_size);
	ret->body = spool_reader_new(ret->body_fd, v.put.body_size, v.body_key);
	return ret->body ? PT_OK : pt_fail_oom(err);
}

static void entry_release(struct pt_spool_entry *e)
{
	pt_buf_release(&e->head);
	free(e->inline_body.p);
	e->inline_body = (struct pt_bytes){ 0 };
	spool_reader_free(e->body);
	e->body = NULL;
	pt_closep(&e->body_fd);
	e->body_fd = -1;
}

int pt_spool_take(struct pt_spool *s, struct pt_spool_entry *ret, int64_t most_ms, struct pt_err *err)
{
	pt_auto_buf rec = PT_BUF_INIT(SPOOL_RECORD_MAX);
	struct seglog_record r;
	int64_t end = pt_mono_ms() + most_ms;
	struct spool_entry *e, *best;
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
	*ret = (struct pt_spool_entry){ .attempt = best->key.attempt, .head = PT_BUF_INIT(SPOOL_HEAD_MAX + 1), .body_fd = -1,
					.body_size = best->body_size, .stored_at = best->stored_at, .tries = best->tries };
	memcpy(ret->operation, best->key.operation, sizeof(ret->operation));
	rc = seglog_record_read(&s->log, best->seg, best->offset, best->length, &rec, &r, err);
	pthread_mutex_unlock(&s->lock);
	if (rc == 0)
		rc = load(s, &r, ret, err);
	if (rc == 0)
		return 1;
	entry_release(ret);
	pthread_mutex_lock(&s->lock);
	if (rc == PT_E_INTERNAL) { /* memory or descriptors are short: the entry is fine */
		best->taken = false;
		best->next_try = pt_mono_ms() + 1000;
	} else {
		s->log.damaged++;
		best->seg->damaged = true;
		spool_forget(s, best, true);
	}
	pthread_mutex_unlock(&s->lock);
	return pt_err_wrap(err, rc, "read the result of %s attempt %lld back", ret->operation, (long long)ret->attempt);
}

void spool_body_remove(struct pt_spool *s, struct spool_entry *e, bool aside)
{
	char name[40], to[64];

	if (!e->body_file)
		return;
	spool_body_name(e->body_file, name);
	snprintf(to, sizeof(to), "%s.damaged", name);
	if (!aside || renameat(s->log.dir_fd, name, s->log.dir_fd, to) < 0)
		(void)unlinkat(s->log.dir_fd, name, 0); /* an orphan is removed at the next start */
	s->log.other_bytes -= e->body_disk;
}

void spool_forget(struct pt_spool *s, struct spool_entry *e, bool aside)
{
	pt_auto_buf rec = PT_BUF_INIT(256);
	struct seglog_segment *seg;
	struct pt_err err = { 0 };
	int64_t offset, length;
	int rc;

	seglog_record_begin(&rec);
	rc = seglog_append(&s->log, SPOOL_DONE, e->seq, &rec, INT64_MAX, &seg, &offset, &length, &err);
	if (e->body_file && rc == 0) /* the file goes after the record that says so is on disk */
		rc = seglog_sync(&s->log, s->log.appended - 1, &err);
	spool_body_remove(s, e, aside);
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
	if (x && spool_reader_broken(e->body)) {
		x->seg->damaged = true;
		(void)seglog_damage(&s->log, "a result's body has changed on disk; the result is set aside", x->key.operation);
		spool_forget(s, x, true);
	} else if (x) {
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
