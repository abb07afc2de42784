/* The files of the SQLite backend before SQLite sees them: made so that their names survive power loss, and held by one process.
 * Called while the database is opened, on its opener's thread. */
#include "db/db_sqlite.h"
#include "os/file.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

int pt_sqlite_file_make(const char *path, struct pt_err *err)
{
	pt_auto(pt_freep) char *dir = strdup(path);
	pt_auto(pt_closep) int fd = -1;
	struct stat st;

	if (!dir)
		return pt_fail_oom(err);
	*(strrchr(dir, '/') + (strrchr(dir, '/') == dir)) = '\0';
	if (stat(path, &st) == 0)
		return S_ISREG(st.st_mode) ? PT_OK : pt_fail(err, PT_E_INVALID, "not a file");
	if (stat(dir, &st) < 0) {
		int rc = pt_mkdirs(dir, err);

		if (rc < 0)
			return rc;
	}
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return pt_fail_sys(err, errno == EACCES || errno == EROFS ? PT_E_DENIED : PT_E_IO, "create the file");
	return pt_fsync_dir(dir, err);
}

int pt_sqlite_file_lock(const char *db, int *ret_fd, struct pt_err *err)
{
	pt_auto_buf path = PT_BUF_INIT(8192);
	pt_auto(pt_closep) int fd = -1;
	char pid[24] = "";
	ssize_t n;
	int rc;

	pt_buf_fmt(&path, "%s.lock", db);
	rc = pt_buf_done(&path, err);
	if (rc < 0)
		return rc;
	fd = open(path.p, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return pt_fail_sys(err, errno == EACCES || errno == EROFS ? PT_E_DENIED : PT_E_IO, "open '%s'", path.p);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK)
			return pt_fail_sys(err, PT_E_IO, "lock '%s'", path.p);
		n = pread(fd, pid, sizeof(pid) - 1, 0);
		pid[n > 0 ? strspn(pid, "0123456789") : 0] = '\0';
		(void)pt_fail(err, PT_E_CONFLICT, "another gateway (pid %s) uses this database", pid[0] ? pid : "unknown");
		return pt_hint(err, "stop it first, or give this one a database of its own");
	}
	n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)n, 0) != n)
		return pt_fail_sys(err, PT_E_IO, "write '%s'", path.p);
	*ret_fd = fd;
	fd = -1;
	return PT_OK;
}
