/* Preloaded into a gateway.  While the file that FAILING_SYNC names is there, fsync and fdatasync of a write-ahead log say EIO; while
 * there is one with ".full" behind its name, writing to it says ENOSPC. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_wal(int fd)
{
	char link[32], path[4096];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path));
	return n > 4 && memcmp(path + n - 4, "-wal", 4) == 0;
}

static int fails(int fd, const char *end)
{
	const char *when = getenv("FAILING_SYNC");
	char path[4096];

	snprintf(path, sizeof(path), "%s%s", when ? when : "", end);
	return when && access(path, F_OK) == 0 && is_wal(fd);
}

static ssize_t write_with(int fd, const void *p, size_t n, off64_t at)
{
	ssize_t (*real)(int, const void *, size_t, off64_t) =
		(ssize_t(*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");

	if (fails(fd, ".full")) {
		errno = ENOSPC;
		return -1;
	}
	return real(fd, p, n, at);
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
	return write_with(fd, p, n, at);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at)
{
	return write_with(fd, p, n, at);
}

static int sync_with(const char *name, int fd)
{
	int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);

	if (fails(fd, "")) {
		errno = EIO;
		return -1;
	}
	return real(fd);
}

int fsync(int fd)
{
	return sync_with("fsync", fd);
}

int fdatasync(int fd)
{
	return sync_with("fdatasync", fd);
}
