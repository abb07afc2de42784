/* Segments: opening the folder, appending, the shared fsync, new data keys, removing, and room.  See seglog.h. */
#include "agent/seglog.h"
#include "base/clock.h"
#include "base/log.h"
#include "os/file.h"
#include <endian.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <utlist.h>

void seglog_segment_name(uint64_t no, char out[static 40])
{
	snprintf(out, 40, "seg-%016llx.log", (unsigned long long)no);
}

int seglog_damage(struct seglog *l, const char *what, const char *file)
{
	l->damaged++;
	pt_warn("damaged data on disk", "of", l->what, "what", what, "file", file, "folder", l->dir);
	return PT_OK;
}

/* --- room --- */

bool seglog_disk_full(int e)
{
	return e == ENOSPC || e == EDQUOT || e == EFBIG;
}

int64_t seglog_bytes(const struct seglog *l)
{
	return l->bytes + l->other_bytes + l->sealed_bytes;
}

/* The disk is believed to take more again when two segments fit, or a quarter of a small disk is free. */
static bool disk_has_room(const struct seglog *l)
{
	struct statvfs v;
	int64_t all, want;

	if (fstatvfs(l->dir_fd, &v) < 0 || (v.f_files && v.f_favail < 16))
		return false;
	all = (int64_t)v.f_blocks * (int64_t)v.f_frsize;
	want = all / 4 < 2 * l->seg_max ? all / 4 : 2 * l->seg_max;
	return (int64_t)v.f_bavail * (int64_t)v.f_frsize >= want;
}

/* Full from the high mark on, or once something did not fit, until a quarter is free again: leasing does not flutter. */
void seglog_update_full(struct seglog *l)
{
	int64_t bytes = seglog_bytes(l), high = l->max_bytes - l->reserve;

	if (l->disk_errno && pt_mono_ms() - l->disk_at >= 1000) {
		l->disk_at = pt_mono_ms();
		if (disk_has_room(l))
			l->disk_errno = 0;
	}
	if (bytes >= high || l->refused || l->disk_errno)
		l->full = true;
	l->refused = false;
	if (l->full && bytes < high - high / 4 && !l->disk_errno)
		l->full = false;
}

int seglog_no_room(struct seglog *l, struct pt_err *err)
{
	l->refused = true;
	(void)pt_fail(err, PT_E_LIMIT, "the agent's %s is full (%lld of %lld bytes)", l->what, (long long)seglog_bytes(l),
		      (long long)l->max_bytes);
	(void)pt_hint(err, "it waits for the gateway; raise %s, or see why the agent cannot deliver", l->option);
	return PT_E_LIMIT;
}

int seglog_no_disk(struct seglog *l, int e, struct pt_err *err)
{
	l->disk_at = pt_mono_ms();
	l->disk_errno = e;
	l->full = true;
	errno = e;
	(void)pt_fail_sys(err, PT_E_LIMIT, "the disk of the agent's %s ('%s') is full", l->what, l->dir);
	(void)pt_hint(err, "give the volume more room, or lower %s below its size", l->option);
	return PT_E_LIMIT;
}

/* --- open and close --- */

static int take_lock(struct seglog *l, struct pt_err *err)
{
	char pid[24] = "", text[24];
	ssize_t n;

	l->lock_fd = openat(l->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (l->lock_fd < 0) {
		(void)pt_fail_sys(err, errno == ENOSPC ? PT_E_IO : PT_E_DENIED, "create '%s/lock'", l->dir);
		return pt_hint(err, "the agent's user (uid %ld) must be able to write there", (long)geteuid());
	}
	if (flock(l->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		n = errno == EWOULDBLOCK ? pread(l->lock_fd, pid, sizeof(pid) - 1, 0) : 0;
		pid[n > 0 ? strcspn(pid, "\n") : 0] = '\0';
		(void)pt_fail(err, PT_E_CONFLICT, "%s '%s' is in use by process %s", l->what, l->dir, *pid ? pid : "(unknown)");
		return pt_hint(err, "stop that agent, or give this one its own --spool-dir");
	}
	n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	if (ftruncate(l->lock_fd, 0) < 0 || pwrite(l->lock_fd, text, (size_t)n, 0) != n)
		pt_debug("pid not written to the lock file", "folder", l->dir); /* only a second agent's message is poorer */
	return PT_OK;
}

int seglog_open(struct seglog *l, pthread_mutex_t *lock, const char *dir, int64_t max_bytes, const struct pt_seal_ring *ring,
		struct pt_err *err)
{
	int rc;

	pt_assert(ring->n > 0);
	l->lock = lock;
	l->dir_fd = l->lock_fd = l->cur_fd = -1;
	pthread_cond_init(&l->synced, NULL);
	l->max_bytes = max_bytes;
	l->reserve = max_bytes / 16 < 16 * 1024 * 1024 ? max_bytes / 16 : 16 * 1024 * 1024;
	if (!l->seg_max)
		l->seg_max = max_bytes / 16 < SEGLOG_SEGMENT_MAX ? max_bytes / 16 : SEGLOG_SEGMENT_MAX;
	l->next_segment = l->epoch = 1;
	l->ring = *ring;
	l->cipher = seal_cipher_new();
	l->dir = strdup(dir);
	if (!l->dir || !l->cipher)
		return pt_fail_oom(err);
	rc = pt_mkdirs(dir, err);
	if (rc == 0 && (l->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		rc = pt_fail_sys(err, errno == EACCES ? PT_E_DENIED : PT_E_IO, "open folder '%s'", dir);
	if (rc < 0 && !*err->hint)
		(void)pt_hint(err, "the agent's user (uid %ld) must be able to create and write '%s'", (long)geteuid(), dir);
	return rc < 0 ? rc : take_lock(l, err);
}

static void free_segments(struct seglog *l, struct seglog_segment *list)
{
	struct seglog_segment *seg, *next;

	LL_FOREACH_SAFE(list, seg, next)
	{
		seglog_datakey_unref(l, seg->key);
		free(seg);
	}
}

void seglog_close(struct seglog *l)
{
	if (!l->lock)
		return;
	if (l->cur_fd >= 0) {
		(void)fdatasync(l->cur_fd); /* what must last was synced before; the rest is harmless to lose */
		close(l->cur_fd);
	}
	free_segments(l, l->oldest);
	free_segments(l, l->sealed);
	seglog_datakey_unref(l, l->key);
	while (l->keys) { /* of segments that have gone */
		l->keys->refs = 1;
		seglog_datakey_unref(l, l->keys);
	}
	pt_seal_ring_clear(&l->ring);
	EVP_CIPHER_CTX_free(l->cipher); /* wipes its key */
	pt_closep(&l->lock_fd);
	pt_closep(&l->dir_fd);
	pthread_cond_destroy(&l->synced);
	free(l->dir);
	l->lock = NULL;
}

/* --- fsync --- */

/* How the fsync of the records up to lsn went. */
static void settle(struct seglog *l, uint64_t lsn, int rc, const struct pt_err *err)
{
	struct seglog_datakey *k;

	l->settled = lsn;
	if (rc < 0) { /* the kernel may have thrown the pages away: nothing more goes into that file */
		l->failed = lsn;
		l->sync_err = *err;
		l->must_roll = true;
		LL_FOREACH(l->keys, k) /* nor are key records in it to be counted on */
		k->epoch = 0;
	}
	l->syncs++;
	pthread_cond_broadcast(&l->synced);
}

static int sync_fd(int fd, struct pt_err *err)
{
	return fdatasync(fd) < 0 ? pt_fail_sys(err, PT_E_IO, "fsync") : PT_OK;
}

int seglog_sync(struct seglog *l, uint64_t since, struct pt_err *err)
{
	uint64_t mine = l->appended;

	while (l->settled < mine) {
		uint64_t lsn = l->appended;
		struct pt_err e = { 0 };
		int fd = l->cur_fd, rc;

		if (l->syncing) {
			pthread_cond_wait(&l->synced, l->lock);
			continue;
		}
		l->syncing = true;
		pthread_mutex_unlock(l->lock);
		rc = sync_fd(fd, &e);
		pthread_mutex_lock(l->lock);
		l->syncing = false;
		settle(l, lsn, rc, &e);
	}
	/* One that was fine may be called failed here, when a later one failed before we woke: storing it twice does no harm. */
	if (l->failed <= since)
		return PT_OK;
	if (err)
		*err = l->sync_err;
	return l->sync_err.code;
}

/* --- append --- */

static int write_at_end(struct seglog *l, const char *p, size_t n, struct pt_err *err)
{
	for (size_t done = 0; done < n;) {
		ssize_t w = pwrite(l->cur_fd, p + done, n - done, l->cur->size + (int64_t)done);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0) {
			int e = errno;

			(void)!ftruncate(l->cur_fd, l->cur->size); /* if it fails, the next record is written over the rest */
			errno = e;
			return seglog_disk_full(e) ? seglog_no_disk(l, e, err)
						   : pt_fail_sys(err, PT_E_IO, "write to the agent's %s", l->what);
		}
		done += (size_t)w;
	}
	l->cur->size += (int64_t)n;
	l->bytes += (int64_t)n;
	return PT_OK;
}

static int write_key(struct seglog *l, struct seglog_datakey *k, int64_t before, struct pt_err *err)
{
	pt_auto_buf b = PT_BUF_INIT(1024);
	int rc = seglog_datakey_write(l, l->cur->no, l->cur->size, k, before, &b, err);

	if (rc == 0)
		rc = write_at_end(l, b.p, b.len, err);
	if (rc == 0)
		k->epoch = l->epoch;
	return rc;
}

/* The key records at the begin of the current segment. */
static int write_keys(struct seglog *l, int64_t before, struct pt_err *err)
{
	struct seglog_datakey *k;
	int rc = write_key(l, l->key, before, err);

	if (rc == 0)
		rc = write_key(l, l->key, before, err);
	LL_FOREACH(l->keys, k)
	if (rc == 0 && k->epoch != l->epoch)
		rc = write_key(l, k, 0, err);
	l->cur->head = l->cur->size;
	return rc;
}

/* A new data key, unless the present one is fine. */
static int draw_key(struct seglog *l, struct pt_err *err)
{
	struct seglog_datakey *k;

	if (l->key && l->key->epoch == l->epoch)
		return PT_OK;
	k = seglog_datakey_new(l);
	if (!k)
		return pt_fail_oom(err);
	seglog_datakey_unref(l, l->key);
	l->key = k;
	k->refs++;
	k->epoch = l->epoch;
	return PT_OK;
}

/* Close the current segment (all of it on disk) and start the next.  Nobody is syncing. */
int seglog_roll(struct seglog *l, struct pt_err *err)
{
	struct seglog_segment *seg, *last = NULL;
	struct seglog_datakey *k;
	struct pt_err e = { 0 };
	int64_t before = 0;
	char name[40];
	int rc;

	if (l->cur_fd >= 0) {
		rc = sync_fd(l->cur_fd, &e);
		settle(l, l->appended, rc, &e);
		before = rc == 0 ? l->cur->size : 0;
		close(l->cur_fd);
		l->cur_fd = -1;
	}
	rc = draw_key(l, err);
	if (rc < 0)
		return rc;
	seg = calloc(1, sizeof(*seg));
	if (!seg)
		return pt_fail_oom(err);
	seg->no = l->next_segment;
	seglog_segment_name(seg->no, name);
	l->cur_fd = openat(l->dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (l->cur_fd < 0 || fsync(l->dir_fd) < 0) {
		rc = seglog_disk_full(errno) ? seglog_no_disk(l, errno, err)
					     : pt_fail_sys(err, PT_E_IO, "create '%s/%s'", l->dir, name);
	} else {
		last = l->cur;
		l->cur = seg;
		l->count = 0;
		rc = write_keys(l, before, err);
	}
	if (rc < 0) {
		l->bytes -= seg->size;
		if (l->cur == seg)
			l->cur = last;
		pt_closep(&l->cur_fd);
		l->cur_fd = -1;
		LL_FOREACH(l->keys, k) /* no key record of them counts, and this number may have been used with the newest */
		k->epoch = 0;
		if (unlinkat(l->dir_fd, name, 0) < 0 && errno != ENOENT)
			l->next_segment++;
		free(seg);
		return rc;
	}
	l->next_segment++;
	LL_APPEND(l->oldest, seg);
	seg->key = l->key;
	seg->key->refs++;
	l->appended++; /* the key records */
	l->must_roll = false;
	return PT_OK;
}

int seglog_rewrap(struct seglog *l, struct pt_err *err)
{
	struct seglog_datakey *k;
	bool due = false;
	int rc = PT_OK;

	LL_FOREACH(l->keys, k)
	due |= k->epoch != l->epoch;
	if (!due || !l->oldest)
		return PT_OK;
	while (l->syncing)
		pthread_cond_wait(&l->synced, l->lock);
	rc = seglog_roll(l, err);
	return rc < 0 ? rc : seglog_sync(l, l->appended - 1, err);
}

int seglog_append(struct seglog *l, unsigned kind, uint64_t seq, struct pt_buf *b, int64_t limit, struct seglog_segment **ret_seg,
		  int64_t *ret_offset, int64_t *ret_length, struct pt_err *err)
{
	int64_t n = (int64_t)b->len + SEAL_TAG_BYTES, offset;
	int rc = pt_buf_done(b, err);

	if (rc < 0)
		return rc;
	while (l->cur_fd < 0 || l->must_roll || (l->cur->size > l->cur->head && l->cur->size + n > l->seg_max)) {
		if (l->syncing)
			pthread_cond_wait(&l->synced, l->lock);
		else if ((rc = seglog_roll(l, err)) < 0)
			return rc;
	}
	if (seglog_bytes(l) + n > limit) /* here, not before: others appended while we waited */
		return seglog_no_room(l, err);
	offset = l->cur->size;
	rc = seglog_record_seal(l, kind, seq, b, err);
	if (rc == 0)
		rc = write_at_end(l, b->p, b->len, err);
	if (rc < 0)
		return rc;
	*ret_seg = l->cur;
	*ret_offset = offset;
	*ret_length = n;
	l->appended++;
	return PT_OK;
}

/* --- read, remove --- */

int seglog_segment_read(struct seglog *l, uint64_t no, int64_t offset, size_t n, struct pt_buf *out, struct pt_err *err)
{
	char name[40];
	pt_auto(pt_closep) int fd = -1;
	int rc;

	seglog_segment_name(no, name);
	fd = openat(l->dir_fd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return pt_fail_sys(err, PT_E_IO, "open '%s/%s'", l->dir, name);
	if (!pt_buf_room(out, n))
		return pt_buf_done(out, err);
	rc = pt_pread_all(fd, out->p + out->len, n, offset, err);
	if (rc < 0)
		return pt_err_wrap(err, rc, "'%s/%s'", l->dir, name);
	out->len += n;
	out->p[out->len] = '\0';
	return PT_OK;
}

int seglog_record_read(struct seglog *l, const struct seglog_segment *seg, int64_t offset, int64_t length, struct pt_buf *out,
		       struct seglog_record *ret, struct pt_err *err)
{
	int rc = seglog_segment_read(l, seg->no, offset, (size_t)length, out, err);

	if (rc == 0 && seglog_record_check(out->p, out->len) != out->len)
		rc = pt_fail(err, PT_E_CORRUPT, "a record has changed on disk");
	return rc < 0 ? rc : seglog_record_open(l, seg, offset, out->p, out->len, ret, err);
}

int seglog_record_at(struct seglog *l, const struct seglog_segment *seg, int64_t offset, struct pt_buf *out,
		     struct seglog_record *ret, int64_t *ret_length, struct pt_err *err)
{
	struct seglog_plain_head h; /* both kinds of head begin like this */
	int64_t length;
	size_t head;
	int rc = seglog_segment_read(l, seg->no, offset, sizeof(h), out, err);

	if (rc < 0)
		return rc;
	memcpy(&h, out->p, sizeof(h));
	head = seglog_head_size(le32toh(h.magic));
	length = (int64_t)head + le32toh(h.len);
	if (!head || length > seg->size - offset)
		return pt_fail(err, PT_E_CORRUPT, "a record has changed on disk");
	pt_buf_clear(out);
	rc = seglog_record_read(l, seg, offset, length, out, ret, err);
	if (rc == 0)
		*ret_length = length;
	return rc;
}

void seglog_drop_sealed(struct seglog *l)
{
	struct seglog_segment *seg = l->sealed;
	char name[40];

	seglog_segment_name(seg->no, name);
	(void)unlinkat(l->dir_fd, name, 0); /* tried again after the next start */
	LL_DELETE(l->sealed, seg);
	l->n_sealed--;
	l->sealed_bytes -= seg->size;
	seglog_datakey_unref(l, seg->key);
	free(seg);
}

void seglog_remove_oldest(struct seglog *l)
{
	struct seglog_segment *seg = l->oldest;
	char name[40], aside[64];

	seglog_segment_name(seg->no, name);
	snprintf(aside, sizeof(aside), "%s.damaged", name);
	/* What stays behind when that fails is delivered once more after a restart, and known there. */
	if (!seg->damaged || renameat(l->dir_fd, name, l->dir_fd, aside) < 0)
		(void)unlinkat(l->dir_fd, name, 0);
	l->oldest = seg->next;
	l->bytes -= seg->size;
	seglog_datakey_unref(l, seg->key);
	free(seg);
}
