#include "os/file.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

static enum pt_code code_of(int e)
{
	return e == ENOENT ? PT_E_NOT_FOUND : e == EACCES || e == EPERM || e == EROFS ? PT_E_DENIED : PT_E_IO;
}

int pt_file_read(const char *path, struct pt_buf *b, struct pt_err *err)
{
	pt_auto(pt_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	char chunk[16384];
	struct stat st;
	ssize_t n = 1;
	int e = 0;

	if (fd < 0)
		return pt_fail_sys(err, code_of(errno), "open '%s'", path);
	/* Room at once, so that no copies are left behind by memory that grows: the file may hold a secret. */
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0)
		(void)pt_buf_room(b, (size_t)st.st_size); /* a failure shows in pt_buf_done() */
	while (n != 0 && !b->bad) {
		n = read(fd, chunk, sizeof(chunk));
		if (n < 0 && errno != EINTR) {
			e = errno;
			break;
		}
		if (n > 0)
			pt_buf_add(b, chunk, (size_t)n);
	}
	explicit_bzero(chunk, sizeof(chunk));
	if (e) {
		errno = e;
		return pt_fail_sys(err, code_of(e), "read '%s'", path);
	}
	return pt_err_wrap(err, pt_buf_done(b, err), "read '%s'", path);
}

bool pt_file_same(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

int pt_write_all(int fd, const void *data, size_t n, struct pt_err *err)
{
	const char *p = data;

	while (n) {
		ssize_t w = write(fd, p, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return pt_fail_sys(err, PT_E_IO, "write");
		p += w;
		n -= (size_t)w;
	}
	return PT_OK;
}

int pt_pread_all(int fd, void *data, size_t n, int64_t offset, struct pt_err *err)
{
	char *p = data;

	while (n) {
		ssize_t r = pread(fd, p, n, offset);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return pt_fail_sys(err, PT_E_IO, "read");
		if (r == 0)
			return pt_fail(err, PT_E_CORRUPT, "file ends %zu bytes early", n);
		p += r;
		offset += r;
		n -= (size_t)r;
	}
	return PT_OK;
}

int pt_fsync_dir(const char *path, struct pt_err *err)
{
	pt_auto(pt_closep) int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return pt_fail_sys(err, PT_E_IO, "fsync folder '%s'", path);
	return PT_OK;
}

int pt_file_replace(const char *path, const void *data, size_t n, unsigned mode, struct pt_err *err)
{
	pt_auto_buf tmp = PT_BUF_INIT(4096);
	pt_auto_buf dir = PT_BUF_INIT(4096);
	const char *slash = strrchr(path, '/');
	pt_auto(pt_closep) int fd = -1;
	int rc;

	pt_buf_fmt(&tmp, "%s.tmp", path);
	pt_buf_add(&dir, slash ? path : ".", slash ? (size_t)(slash - path) + (slash == path) : 1);
	if ((rc = pt_buf_done(&tmp, err)) < 0 || (rc = pt_buf_done(&dir, err)) < 0)
		return rc;
	fd = open(tmp.p, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
	if (fd < 0)
		return pt_fail_sys(err, code_of(errno), "create '%s'", tmp.p);
	/* The mode first: a file left by a crash may have a wider one, and the content may be a secret. */
	rc = fchmod(fd, mode) < 0 ? pt_fail_sys(err, PT_E_IO, "chmod") : pt_write_all(fd, data, n, err);
	if (rc == 0 && (fsync(fd) < 0 || rename(tmp.p, path) < 0))
		rc = pt_fail_sys(err, PT_E_IO, "replace");
	if (rc < 0) {
		(void)unlink(tmp.p); /* best effort: the error that counts is already there */
		return pt_err_wrap(err, rc, "write '%s'", path);
	}
	return pt_fsync_dir(dir.p, err);
}

int pt_mkdirs(const char *path, struct pt_err *err)
{
	pt_auto(pt_freep) char *copy = strdup(path);
	struct stat st;

	if (!copy)
		return pt_fail_oom(err);
	if (!*path)
		return pt_fail(err, PT_E_INVALID, "a folder needs a name");
	for (char *p = copy + 1;; p++) {
		char c = *p;

		if (c != '/' && c != '\0')
			continue;
		*p = '\0';
		if (mkdir(copy, 0700) < 0 && errno != EEXIST)
			return pt_fail_sys(err, code_of(errno), "create folder '%s'", copy);
		*p = c;
		if (!c)
			break;
	}
	if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
		return pt_fail(err, PT_E_INVALID, "'%s' is not a folder", path);
	return PT_OK;
}
