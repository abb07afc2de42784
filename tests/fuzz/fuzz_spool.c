/* A folder with one segment of any bytes: it opens, whatever they are; what it gives can be read; and a second start finds a folder
 * that the first one left in order.  When the first byte is odd, the checksum of a record whose frame is plausible is made to fit, so
 * that what lies behind it is reached. */
#include "agent/spool_int.h"
#include "base/log.h"
#include "os/file.h"
#include <dirent.h>
#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void wipe(const char *folder)
{
	DIR *d = opendir(folder);
	struct dirent *e;
	char path[400];

	while (d && (e = readdir(d)))
		if (*e->d_name != '.') {
			snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
			(void)unlink(path);
		}
	if (d)
		closedir(d);
}

static void fit_checksums(unsigned char *p, size_t n)
{
	while (n >= sizeof(struct seglog_plain_head)) {
		struct seglog_plain_head h;
		size_t head, len;
		uint32_t crc;

		memcpy(&h, p, sizeof(h));
		head = le32toh(h.magic) == SEGLOG_MAGIC ? sizeof(struct seglog_record_head) : sizeof(h);
		len = le32toh(h.len);
		if (n < head || len > n - head)
			return;
		crc = htole32(seglog_crc32c(0, p + 8, head + len - 8));
		memcpy(p + 4, &crc, sizeof(crc));
		p += head + len;
		n -= head + len;
	}
}

/* Open, take and read everything; how many entries there were. */
static int64_t use(const char *folder, const struct pt_seal_ring *ring, bool ack)
{
	struct pt_spool *s = NULL;
	struct pt_spool_stats st;
	struct pt_spool_entry e;
	struct pt_err err;
	char piece[4096];
	int64_t n;
	int rc;

	pt_assert(pt_spool_open(&s, folder, 16 << 20, ring, &err) == 0);
	pt_spool_stats(s, &st);
	n = st.entries;
	while ((rc = pt_spool_take(s, &e, 0, &err)) != 0) {
		if (rc < 0)
			continue;
		while (e.body_fd >= 0 && pt_spool_read_body(&e, piece, sizeof(piece), 0) > 0)
			break;
		if (ack)
			pt_spool_ack(s, &e);
		else
			pt_spool_retry(s, &e, 60000);
	}
	pt_spool_close(s);
	return n;
}

static char dir[64];

static void at_end(void)
{
	wipe(dir);
	(void)rmdir(dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct pt_seal_ring ring;
	static char path[400];
	pt_auto(pt_freep) unsigned char *copy = malloc(size + 1);
	struct pt_err err;
	int64_t n;
	int fd;

	if (!*dir) {
		snprintf(dir, sizeof(dir), "/dev/shm/postern-fuzz-XXXXXX");
		pt_assert(mkdtemp(dir) && pt_log_init("error", "plain", 0, &err) == 0);
		(void)atexit(at_end);
		pt_assert(pt_seal_ring_add(&ring, "spool", "key_1", "pts_secret_of_key_1", &err) == 0);
		snprintf(path, sizeof(path), "%s/seg-0000000000000001.log", dir);
	}
	if (!size || !copy)
		return 0;
	memcpy(copy, data + 1, size - 1);
	if (data[0] & 1)
		fit_checksums(copy, size - 1);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	pt_assert(fd >= 0 && pt_write_all(fd, copy, size - 1, &err) == 0);
	close(fd);
	n = use(dir, &ring, false);
	pt_assert(use(dir, &ring, true) <= n);
	wipe(dir);
	return 0;
}
