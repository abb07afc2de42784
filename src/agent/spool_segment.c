/* The spool's records on disk: appending, the shared fsync, and removing segments.  See spool_int.h for the layout. */
#include "agent/spool_int.h"
#include "base/clock.h"
#include "base/log.h"
#include "os/file.h"
#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <utlist.h>

/* CRC-32C (Castagnoli, reflected polynomial 0x82f63b78; RFC 3720 appendix B.4). */
static const uint32_t crc_table[256] = {
	0x00000000, 0xf26b8303, 0xe13b70f7, 0x1350f3f4, 0xc79a971f, 0x35f1141c, 0x26a1e7e8, 0xd4ca64eb,
	0x8ad958cf, 0x78b2dbcc, 0x6be22838, 0x9989ab3b, 0x4d43cfd0, 0xbf284cd3, 0xac78bf27, 0x5e133c24,
	0x105ec76f, 0xe235446c, 0xf165b798, 0x030e349b, 0xd7c45070, 0x25afd373, 0x36ff2087, 0xc494a384,
	0x9a879fa0, 0x68ec1ca3, 0x7bbcef57, 0x89d76c54, 0x5d1d08bf, 0xaf768bbc, 0xbc267848, 0x4e4dfb4b,
	0x20bd8ede, 0xd2d60ddd, 0xc186fe29, 0x33ed7d2a, 0xe72719c1, 0x154c9ac2, 0x061c6936, 0xf477ea35,
	0xaa64d611, 0x580f5512, 0x4b5fa6e6, 0xb93425e5, 0x6dfe410e, 0x9f95c20d, 0x8cc531f9, 0x7eaeb2fa,
	0x30e349b1, 0xc288cab2, 0xd1d83946, 0x23b3ba45, 0xf779deae, 0x05125dad, 0x1642ae59, 0xe4292d5a,
	0xba3a117e, 0x4851927d, 0x5b016189, 0xa96ae28a, 0x7da08661, 0x8fcb0562, 0x9c9bf696, 0x6ef07595,
	0x417b1dbc, 0xb3109ebf, 0xa0406d4b, 0x522bee48, 0x86e18aa3, 0x748a09a0, 0x67dafa54, 0x95b17957,
	0xcba24573, 0x39c9c670, 0x2a993584, 0xd8f2b687, 0x0c38d26c, 0xfe53516f, 0xed03a29b, 0x1f682198,
	0x5125dad3, 0xa34e59d0, 0xb01eaa24, 0x42752927, 0x96bf4dcc, 0x64d4cecf, 0x77843d3b, 0x85efbe38,
	0xdbfc821c, 0x2997011f, 0x3ac7f2eb, 0xc8ac71e8, 0x1c661503, 0xee0d9600, 0xfd5d65f4, 0x0f36e6f7,
	0x61c69362, 0x93ad1061, 0x80fde395, 0x72966096, 0xa65c047d, 0x5437877e, 0x4767748a, 0xb50cf789,
	0xeb1fcbad, 0x197448ae, 0x0a24bb5a, 0xf84f3859, 0x2c855cb2, 0xdeeedfb1, 0xcdbe2c45, 0x3fd5af46,
	0x7198540d, 0x83f3d70e, 0x90a324fa, 0x62c8a7f9, 0xb602c312, 0x44694011, 0x5739b3e5, 0xa55230e6,
	0xfb410cc2, 0x092a8fc1, 0x1a7a7c35, 0xe811ff36, 0x3cdb9bdd, 0xceb018de, 0xdde0eb2a, 0x2f8b6829,
	0x82f63b78, 0x709db87b, 0x63cd4b8f, 0x91a6c88c, 0x456cac67, 0xb7072f64, 0xa457dc90, 0x563c5f93,
	0x082f63b7, 0xfa44e0b4, 0xe9141340, 0x1b7f9043, 0xcfb5f4a8, 0x3dde77ab, 0x2e8e845f, 0xdce5075c,
	0x92a8fc17, 0x60c37f14, 0x73938ce0, 0x81f80fe3, 0x55326b08, 0xa759e80b, 0xb4091bff, 0x466298fc,
	0x1871a4d8, 0xea1a27db, 0xf94ad42f, 0x0b21572c, 0xdfeb33c7, 0x2d80b0c4, 0x3ed04330, 0xccbbc033,
	0xa24bb5a6, 0x502036a5, 0x4370c551, 0xb11b4652, 0x65d122b9, 0x97baa1ba, 0x84ea524e, 0x7681d14d,
	0x2892ed69, 0xdaf96e6a, 0xc9a99d9e, 0x3bc21e9d, 0xef087a76, 0x1d63f975, 0x0e330a81, 0xfc588982,
	0xb21572c9, 0x407ef1ca, 0x532e023e, 0xa145813d, 0x758fe5d6, 0x87e466d5, 0x94b49521, 0x66df1622,
	0x38cc2a06, 0xcaa7a905, 0xd9f75af1, 0x2b9cd9f2, 0xff56bd19, 0x0d3d3e1a, 0x1e6dcdee, 0xec064eed,
	0xc38d26c4, 0x31e6a5c7, 0x22b65633, 0xd0ddd530, 0x0417b1db, 0xf67c32d8, 0xe52cc12c, 0x1747422f,
	0x49547e0b, 0xbb3ffd08, 0xa86f0efc, 0x5a048dff, 0x8ecee914, 0x7ca56a17, 0x6ff599e3, 0x9d9e1ae0,
	0xd3d3e1ab, 0x21b862a8, 0x32e8915c, 0xc083125f, 0x144976b4, 0xe622f5b7, 0xf5720643, 0x07198540,
	0x590ab964, 0xab613a67, 0xb831c993, 0x4a5a4a90, 0x9e902e7b, 0x6cfbad78, 0x7fab5e8c, 0x8dc0dd8f,
	0xe330a81a, 0x115b2b19, 0x020bd8ed, 0xf0605bee, 0x24aa3f05, 0xd6c1bc06, 0xc5914ff2, 0x37faccf1,
	0x69e9f0d5, 0x9b8273d6, 0x88d28022, 0x7ab90321, 0xae7367ca, 0x5c18e4c9, 0x4f48173d, 0xbd23943e,
	0xf36e6f75, 0x0105ec76, 0x12551f82, 0xe03e9c81, 0x34f4f86a, 0xc69f7b69, 0xd5cf889d, 0x27a40b9e,
	0x79b737ba, 0x8bdcb4b9, 0x988c474d, 0x6ae7c44e, 0xbe2da0a5, 0x4c4623a6, 0x5f16d052, 0xad7d5351,
};

uint32_t spool_crc32c(uint32_t crc, const void *data, size_t n)
{
	const unsigned char *p = data;

	crc = ~crc;
	while (n--)
		crc = crc_table[(crc ^ *p++) & 0xff] ^ crc >> 8;
	return ~crc;
}

void spool_record_begin(struct pt_buf *b, enum spool_kind kind)
{
	struct spool_record_head h = { .magic = htole32(SPOOL_MAGIC), .kind = htole32(kind) };

	pt_buf_clear(b);
	pt_buf_add(b, &h, sizeof(h));
}

void spool_record_end(struct pt_buf *b)
{
	struct spool_record_head h;

	if (b->bad)
		return;
	memcpy(&h, b->p, sizeof(h));
	h.len = htole32((uint32_t)(b->len - sizeof(h)));
	memcpy(b->p, &h, sizeof(h));
	h.crc = htole32(spool_crc32c(0, b->p + offsetof(struct spool_record_head, len),
				     b->len - offsetof(struct spool_record_head, len)));
	memcpy(b->p, &h, sizeof(h));
}

size_t spool_record_check(const char *p, size_t n)
{
	struct spool_record_head h;
	size_t len;

	if (n < sizeof(h))
		return 0;
	memcpy(&h, p, sizeof(h));
	len = le32toh(h.len);
	if (le32toh(h.magic) != SPOOL_MAGIC || len > n - sizeof(h))
		return 0;
	if (le32toh(h.crc) != spool_crc32c(0, p + offsetof(struct spool_record_head, len),
					   sizeof(h) + len - offsetof(struct spool_record_head, len)))
		return 0;
	return sizeof(h) + len;
}

void spool_put_get(const char *payload, struct spool_put *ret)
{
	struct spool_put p;

	memcpy(&p, payload, sizeof(p));
	*ret = (struct spool_put){
		.seq = le64toh(p.seq),
		.stored_at = (int64_t)le64toh((uint64_t)p.stored_at),
		.attempt = (int64_t)le64toh((uint64_t)p.attempt),
		.body_size = (int64_t)le64toh((uint64_t)p.body_size),
		.body_file = le64toh(p.body_file),
		.op_len = le32toh(p.op_len),
		.head_len = le32toh(p.head_len),
	};
}

void spool_segment_name(uint64_t no, char out[static 40])
{
	snprintf(out, 40, "seg-%016llx.log", (unsigned long long)no);
}

void spool_body_name(uint64_t no, char out[static 40])
{
	snprintf(out, 40, "body-%016llx.zst", (unsigned long long)no);
}

bool spool_disk_full(int e)
{
	return e == ENOSPC || e == EDQUOT || e == EFBIG;
}

/* How the fsync of the records up to lsn went. */
static void settle(struct pt_spool *s, uint64_t lsn, int rc, const struct pt_err *err)
{
	s->settled = lsn;
	if (rc < 0) { /* the kernel may have thrown the pages away: nothing more goes into that file */
		s->failed = lsn;
		s->sync_err = *err;
		s->must_roll = true;
	}
	s->syncs++;
	pthread_cond_broadcast(&s->synced);
}

static int sync_fd(int fd, struct pt_err *err)
{
	return fdatasync(fd) < 0 ? pt_fail_sys(err, PT_E_IO, "fsync of the spool") : PT_OK;
}

int spool_sync(struct pt_spool *s, uint64_t since, struct pt_err *err)
{
	uint64_t mine = s->appended;

	while (s->settled < mine) {
		uint64_t lsn = s->appended;
		struct pt_err e = { 0 };
		int fd = s->cur_fd, rc;

		if (s->syncing) {
			pthread_cond_wait(&s->synced, &s->lock);
			continue;
		}
		s->syncing = true;
		pthread_mutex_unlock(&s->lock);
		rc = sync_fd(fd, &e);
		pthread_mutex_lock(&s->lock);
		s->syncing = false;
		settle(s, lsn, rc, &e);
	}
	/* One that was fine may be called failed here, when a later one failed before we woke: storing it twice does no harm. */
	if (s->failed <= since)
		return PT_OK;
	if (err)
		*err = s->sync_err;
	return s->sync_err.code;
}

/* Close the current segment (all of it on disk) and start the next.  Nobody is syncing. */
static int roll(struct pt_spool *s, struct pt_err *err)
{
	struct spool_segment *seg;
	struct pt_err e = { 0 };
	char name[40];
	int fd;

	if (s->cur_fd >= 0) {
		int rc = sync_fd(s->cur_fd, &e);

		settle(s, s->appended, rc, &e);
		close(s->cur_fd);
		s->cur_fd = -1;
	}
	seg = calloc(1, sizeof(*seg));
	if (!seg)
		return pt_fail_oom(err);
	seg->no = s->next_segment;
	spool_segment_name(seg->no, name);
	fd = openat(s->dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || fsync(s->dir_fd) < 0) {
		int rc = spool_disk_full(errno) ? spool_no_disk(s, err)
						: pt_fail_sys(err, PT_E_IO, "create '%s/%s'", s->dir, name);

		pt_closep(&fd);
		(void)unlinkat(s->dir_fd, name, 0); /* it may not be there */
		free(seg);
		return rc;
	}
	s->next_segment++;
	LL_APPEND(s->oldest, seg);
	s->cur = seg;
	s->cur_fd = fd;
	s->must_roll = false;
	return PT_OK;
}

int spool_append(struct pt_spool *s, const struct pt_buf *rec, int64_t limit, struct spool_segment **ret_seg,
		 int64_t *ret_offset, struct pt_err *err)
{
	int64_t n = (int64_t)rec->len, done = 0;

	while (s->cur_fd < 0 || s->must_roll || (s->cur->size && s->cur->size + n > s->seg_max)) {
		int rc;

		if (s->syncing) {
			pthread_cond_wait(&s->synced, &s->lock);
			continue;
		}
		if ((rc = roll(s, err)) < 0)
			return rc;
	}
	if (s->seg_bytes + s->body_bytes + n > limit) /* here, not before: others appended while we waited */
		return spool_no_room(s, err);
	while (done < n) {
		ssize_t w = pwrite(s->cur_fd, rec->p + done, (size_t)(n - done), s->cur->size + done);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0) {
			int e = errno;

			(void)!ftruncate(s->cur_fd, s->cur->size); /* if it fails, the next record is written over the rest */
			errno = e;
			return spool_disk_full(e) ? spool_no_disk(s, err) : pt_fail_sys(err, PT_E_IO, "write to the spool");
		}
		done += w;
	}
	*ret_seg = s->cur;
	*ret_offset = s->cur->size;
	s->cur->size += n;
	s->seg_bytes += n;
	s->appended++;
	return PT_OK;
}

int spool_segment_read(struct pt_spool *s, const struct spool_segment *seg, int64_t offset, size_t n, struct pt_buf *out,
		       struct pt_err *err)
{
	char name[40];
	pt_auto(pt_closep) int fd = -1;
	int rc;

	spool_segment_name(seg->no, name);
	fd = openat(s->dir_fd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return pt_fail_sys(err, PT_E_IO, "open '%s/%s'", s->dir, name);
	if (!pt_buf_room(out, n))
		return pt_buf_done(out, err);
	rc = pt_pread_all(fd, out->p + out->len, n, offset, err);
	if (rc < 0)
		return pt_err_wrap(err, rc, "'%s/%s'", s->dir, name);
	out->len += n;
	out->p[out->len] = '\0';
	return PT_OK;
}

static void remove_oldest(struct pt_spool *s)
{
	struct spool_segment *seg = s->oldest;
	char name[40], aside[64];

	spool_segment_name(seg->no, name);
	snprintf(aside, sizeof(aside), "%s.damaged", name);
	if (!seg->damaged || renameat(s->dir_fd, name, s->dir_fd, aside) < 0)
		(void)unlinkat(s->dir_fd, name,
			       0); /* what stays behind is delivered once more after a restart, and known there */
	s->oldest = seg->next;
	s->seg_bytes -= seg->size;
	free(seg);
}

/* Copy what lives in the oldest segment to the end, keeping its sequence numbers.  The lock is let go meanwhile. */
static int move_oldest(struct pt_spool *s, struct pt_err *err)
{
	struct spool_segment *from = s->oldest, *seg;
	struct spool_entry *e = s->entries;
	uint64_t start = s->appended;
	int rc;

	from->live++; /* it stays until the copies are on disk, and until the next start when that fails */
	for (; e; e = e->next) {
		pt_auto_buf rec = PT_BUF_INIT(SPOOL_HEAD_MAX + SPOOL_INLINE_MAX + 4096);
		int64_t offset;

		if (s->syncing) { /* not under spool_append(): e could be freed while it waits */
			while (s->syncing)
				pthread_cond_wait(&s->synced, &s->lock);
			if (!(e = s->entries))
				break;
		}
		if (e->seg != from)
			continue;
		rc = spool_segment_read(s, from, e->offset, (size_t)e->length, &rec, err);
		if (rc == 0 && !spool_record_check(rec.p, rec.len))
			rc = pt_fail(err, PT_E_CORRUPT, "a record of the spool has changed on disk");
		if (rc == 0)
			rc = spool_append(s, &rec, INT64_MAX, &seg, &offset, err);
		if (rc < 0)
			return rc;
		from->live--;
		from->live_bytes -= e->length;
		e->seg = seg;
		e->offset = offset;
		seg->live++;
		seg->live_bytes += e->length;
	}
	rc = spool_sync(s, start, err);
	if (rc == 0)
		from->live--;
	return rc;
}

void spool_retire(struct pt_spool *s)
{
	struct pt_err err = { 0 };
	bool behind_damage;

	if (s->moving)
		return;
	s->moving = true;
	for (;;) {
		while (s->oldest && s->oldest != s->cur && !s->oldest->live)
			remove_oldest(s);
		behind_damage = false;
		for (struct spool_segment *g = s->oldest; g && g != s->cur; g = g->next)
			behind_damage |= g->damaged;
		if (!s->oldest || s->oldest == s->cur || (!behind_damage && s->seg_bytes - s->live_bytes <= 4 * s->seg_max))
			break;
		if (move_oldest(s, &err) < 0)
			pt_debug("spool: segment not moved", "error", err.msg);
		if (s->oldest->live)
			break;
	}
	s->moving = false;
	spool_update_full(s);
}
