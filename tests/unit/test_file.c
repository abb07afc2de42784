/* Files: whole reads with a limit, durable replacement, folders. */
#include "os/file.h"
#include "../tap.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

static char dir[] = "/tmp/postern-file-XXXXXX";

static const char *under(const char *name)
{
	static char path[4][300];
	static unsigned next;
	char *p = path[next++ % 4];

	snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
	return p;
}

static void replace(void)
{
	struct pt_err e = { 0 };
	struct stat st;
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	pt_auto_buf small = PT_BUF_INIT(5);
	pt_auto_buf big = PT_BUF_INIT(1 << 20);
	int fd;

	ok(pt_file_replace(under("a"), "one", 3, 0600, &e) == 0, "made");
	ok(pt_file_read(under("a"), &b, &e) == 0, "read");
	is_str(b.p, "one", "content");
	ok(pt_file_replace(under("a"), "four", 4, 0640, &e) == 0, "replaced");
	ok(pt_file_read(under("a"), &b, &e) == 0, "read again");
	is_str(b.p, "onefour", "appended to the buffer");
	ok(stat(under("a"), &st) == 0 && (st.st_mode & 07777) == 0640, "mode");
	ok(access(under("a.tmp"), F_OK) < 0, "nothing left beside it");
	ok(pt_file_read(under("a"), &small, &e) == 0, "4 bytes fit in a buffer for 5");
	pt_buf_release(&small);
	ok(pt_file_replace(under("a"), "fives", 5, 0600, &e) == 0, "5 bytes");
	ok(pt_file_read(under("a"), &small, &e) == PT_E_TOO_LARGE && strstr(e.msg, "/a'"), "do not: %s", e.msg);

	while (big.len < 100000)
		pt_buf_i64(&big, (int64_t)big.len);
	pt_buf_clear(&b);
	ok(pt_file_replace(under("big"), big.p, big.len, 0600, &e) == 0 && pt_file_read(under("big"), &b, &e) == 0,
	   "more than a chunk");
	ok(b.len == big.len && memcmp(b.p, big.p, b.len) == 0, "same content");
	pt_buf_clear(&b);
	ok(pt_file_replace(under("empty"), "", 0, 0600, &e) == 0 && pt_file_read(under("empty"), &b, &e) == 0 && !b.len, "empty");

	/* a wide-open file left by a crash: the secret must not be in it while it is so; here, that the mode is ours afterwards */
	fd = open(under("s.tmp"), O_CREAT | O_WRONLY, 0666);
	ok(fd >= 0 && fchmod(fd, 0666) == 0 && close(fd) == 0, "left over");
	ok(pt_file_replace(under("s"), "x", 1, 0600, &e) == 0 && stat(under("s"), &st) == 0 && (st.st_mode & 07777) == 0600,
	   "mode is ours");

	is_int(pt_file_read(under("none"), &b, &e), PT_E_NOT_FOUND, "absent: %s", e.msg);
	is_int(pt_file_read(dir, &b, &e), PT_E_IO, "a folder: %s", e.msg);
	is_int(pt_file_replace(under("no/such"), "x", 1, 0600, &e), PT_E_NOT_FOUND, "no such folder: %s", e.msg);
	pt_buf_clear(&b);
	is_int(pt_file_read("/dev/zero", &b, &e), PT_E_TOO_LARGE, "a file without end ends at the limit");
	pt_buf_clear(&b);
	ok(pt_file_read("/proc/self/status", &b, &e) == 0 && b.len > 100, "a file that says it has no size");
}

static void folders(void)
{
	struct pt_err e = { 0 };
	struct stat st;

	ok(pt_mkdirs(under("x/y/z"), &e) == 0 && stat(under("x/y/z"), &st) == 0 && S_ISDIR(st.st_mode), "made with parents");
	ok((st.st_mode & 0777) == 0700, "for us alone");
	ok(pt_mkdirs(under("x/y/z"), &e) == 0, "there already");
	ok(pt_mkdirs(under("x//w/"), &e) == 0 && stat(under("x/w"), &st) == 0, "slashes");
	ok(pt_mkdirs("/", &e) == 0, "the root");
	is_int(pt_mkdirs("", &e), PT_E_INVALID, "no name: %s", e.msg);
	is_int(pt_mkdirs(under("a"), &e), PT_E_INVALID, "a file in its place: %s", e.msg);
	is_int(pt_mkdirs(under("a/b"), &e), PT_E_IO, "a file on the way: %s", e.msg);
	is_int(pt_fsync_dir(dir, &e), 0, "folder synced");
	is_int(pt_fsync_dir(under("none"), &e), PT_E_IO, "no folder: %s", e.msg);
	ok(chdir(dir) == 0 && pt_mkdirs("rel/a", &e) == 0 && pt_file_replace("rel.txt", "x", 1, 0600, &e) == 0, "relative names");
}

static void descriptors(void)
{
	struct pt_err e = { 0 };
	char got[4] = "";
	int fd = open(under("d"), O_RDWR | O_CREAT | O_CLOEXEC, 0600), full = open("/dev/full", O_WRONLY | O_CLOEXEC);

	is_int(pt_write_all(fd, "abcdef", 6, &e), 0, "written");
	is_int(pt_pread_all(fd, got, 3, 2, &e), 0, "read");
	is_str(got, "cde", "from its place");
	is_int(pt_pread_all(fd, got, 3, 4, &e), PT_E_CORRUPT, "too short: %s", e.msg);
	is_int(pt_pread_all(fd, got, 0, 99, &e), 0, "nothing is always there");
	is_int(pt_write_all(full, "x", 1, &e), PT_E_IO, "a full disk: %s", e.msg);
	close(fd);
	close(full);
	is_int(pt_pread_all(fd, got, 1, 0, &e), PT_E_IO, "closed: %s", e.msg);
}

int main(void)
{
	char rm[100];

	umask(022);
	ok(mkdtemp(dir) != NULL, "own folder");
	replace();
	folders();
	descriptors();
	ok(chdir("/") == 0, "out of it");
	snprintf(rm, sizeof(rm), "rm -rf '%s'", dir);
	ok(system(rm) == 0, "cleaned up");
	return tap_end();
}
