/* powercut: what a power cut takes away, for tests of programs that promise durability.  An LD_PRELOAD library that notes, before each
 * change of a file below the watched folders, how to undo it, until an fsync makes the change durable.  After a kill -9 powercut.py rolls
 * the files back to a state that the disk may have had.  The clock is in powercut_clock.c.
 *
 * The model, which is what POSIX promises, but not crueller than ext4 and xfs are:
 *  - the content of a file is durable after fsync or fdatasync of it.  Before that, each 512-byte sector has any of the contents it had since,
 *    whatever the order of the writes was; sizes change in order; a sector that the new size covers and that was not written is zeros;
 *  - names (create, mkdir, rename, unlink) are durable after an fsync of their folder.  Those of one folder reach the disk in their order.
 *    An fsync of a file or folder makes its own name durable, those made earlier in the same folder, and those of the folders above: both
 *    file systems write their journals in order, and code relies on that;
 *  - what was only in a mapping is not seen: SQLite's -shm files, which no crash needs, are passed over here and removed by the cut.
 *
 * POWERCUT_DIR is the control folder, POWERCUT_WATCH the watched folders, by ':'.  In the control folder: "names" (a line for each change of a name and each fsync), "data/DEV-INO" (undo records of one file, struct undo), "grave/" (hard links
 * to removed files; a removal on another file system cannot be undone).  All plain files, written before the change: they survive kill -9.
 *
 * Any thread; one process at a time writes a given file (the next may follow without a cut between).  Not seen: stdio, F_DUPFD. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FDS = 65536, JOURNAL_HEAD = 8, COPY = 16 * 1024, UNDO_MAGIC = 0x756e646f };

/* One undo record; "saved" old bytes from "offset" on follow it.  powercut.py reads this. */
struct undo {
	uint32_t magic, truncate; /* truncate: the size is set to offset, and what was behind it is saved */
	uint64_t offset, length, old_size, saved;
};
_Static_assert(sizeof(struct undo) == 40, "read by powercut.py");

/* An open file below a watched folder, shared by its descriptors. */
struct file {
	struct file *next;
	dev_t dev;
	ino_t ino;
	unsigned refs;        /* under table_lock */
	pthread_mutex_t lock; /* of all below, and around each change of the file */
	int journal;          /* -1: none yet */
	int64_t start, end;   /* of the live records in the journal */
	bool named;           /* its name was told to be durable */
	char path[PATH_MAX];
};

static char control[PATH_MAX], watch[16][PATH_MAX];
static size_t n_watch;
static int names_fd = -1;
static unsigned grave_no;
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER, names_lock = PTHREAD_MUTEX_INITIALIZER;
static struct file *files, *by_fd[FDS];

static void *resolve(const char *name)
{
	void *p = dlsym(RTLD_NEXT, name);

	if (!p)
		abort();
	return p;
}

/* The function that we stand in front of. */
#define REAL(ret, name, ...)             \
	static ret (*real)(__VA_ARGS__); \
	if (!real)                       \
	*(void **)&real = resolve(name)

static int real_open(int dir, const char *path, int flags, mode_t mode)
{
	REAL(int, "openat64", int, const char *, int, ...);
	return real(dir, path, flags, mode);
}

static int real_close(int fd)
{
	REAL(int, "close", int);
	return real(fd);
}

static ssize_t real_pwritev(int fd, const struct iovec *v, int n, off_t offset)
{
	REAL(ssize_t, "pwritev64", int, const struct iovec *, int, off_t);
	return real(fd, v, n, offset);
}

static int real_ftruncate(int fd, off_t size)
{
	REAL(int, "ftruncate64", int, off_t);
	return real(fd, size);
}

/* A tool that cannot keep its notes proves nothing: end loudly. */
static void die(const char *what)
{
	dprintf(2, "powercut: %s in %s: %s\n", what, control, strerror(errno));
	abort();
}

static bool below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return strncmp(path, dir, n) == 0 && path[n] == '/';
}

static bool watched(const char *path)
{
	size_t n = strlen(path);

	if (below(path, control) || (n > 4 && strcmp(path + n - 4, "-shm") == 0))
		return false;
	for (size_t i = 0; i < n_watch; i++)
		if (below(path, watch[i]))
			return true;
	return false;
}

static __attribute__((constructor)) void start(void)
{
	const char *dir = getenv("POWERCUT_DIR"), *list = getenv("POWERCUT_WATCH");
	char path[PATH_MAX + 16];

	if (!dir || !list || strlen(dir) >= sizeof(control))
		return;
	memcpy(control, dir, strlen(dir) + 1);
	while (*list && n_watch < sizeof(watch) / sizeof(watch[0])) {
		size_t n = strcspn(list, ":");

		if (n && n < PATH_MAX)
			memcpy(watch[n_watch++], list, n);
		list += n + (list[n] == ':');
	}
	snprintf(path, sizeof(path), "%s/names", control);
	names_fd = real_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (names_fd < 0)
		die("start");
}

/* --- names --- */

/* Absolute, without links in the folder part.  False: not watched, or it does not fit. */
static bool place(int dir, const char *path, char out[static PATH_MAX])
{
	char whole[PATH_MAX], link[64], base[PATH_MAX];
	const char *slash;
	ssize_t n = 0;
	int e = errno;

	if (!n_watch)
		return false;
	if (*path != '/' && dir == AT_FDCWD) {
		if (!getcwd(whole, sizeof(whole)))
			return false;
		n = (ssize_t)strlen(whole);
	} else if (*path != '/') {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", dir);
		n = readlink(link, whole, sizeof(whole) - 1);
	}
	if (n < 0 || (size_t)n + strlen(path) + 2 > sizeof(whole))
		return false;
	snprintf(whole + n, sizeof(whole) - (size_t)n, "%s%s", n ? "/" : "", path);
	slash = strrchr(whole, '/');
	snprintf(base, sizeof(base), "%s", slash + 1);
	whole[slash == whole ? 1 : slash - whole] = '\0';
	if (!realpath(whole, out) || strlen(out) + strlen(base) + 2 > PATH_MAX) {
		errno = e;
		return false;
	}
	n = (ssize_t)strlen(out);
	snprintf(out + n, PATH_MAX - (size_t)n, "/%s", base);
	errno = e;
	return watched(out);
}

static bool fd_place(int fd, char out[static PATH_MAX])
{
	char link[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, out, PATH_MAX - 1);
	if (n <= 0)
		return false;
	out[n] = '\0';
	return true;
}

/* A line for powercut.py; under names_lock, before the change for what is to be undone, after it for what is durable. */
static void note(const char *kind, ino_t ino, const char *path, const char *other, const char *grave)
{
	REAL(ssize_t, "write", int, const void *, size_t);
	char line[3 * PATH_MAX];
	int n = snprintf(line, sizeof(line), "%s\t%llu\t%s\t%s\t%s\n", kind, (unsigned long long)ino, path, other, grave);

	if (n < 0 || (size_t)n >= sizeof(line) || real(names_fd, line, (size_t)n) != n)
		die("note a name");
}

/* Keep a file that loses its name.  "" when that cannot be. */
static void bury(const char *path, char grave[static PATH_MAX + 64])
{
	snprintf(grave, PATH_MAX + 64, "%s/grave/%ld-%u", control, (long)getpid(), grave_no++);
	if (link(path, grave) < 0)
		*grave = '\0';
}

/* --- the undo records of a file --- */

static bool journal_open(struct file *f, bool create)
{
	char path[PATH_MAX + 64];
	int64_t at = JOURNAL_HEAD;
	struct undo u;
	struct stat st;

	if (f->journal >= 0)
		return true;
	snprintf(path, sizeof(path), "%s/data/%llx-%llu", control, (unsigned long long)f->dev, (unsigned long long)f->ino);
	f->journal = real_open(AT_FDCWD, path, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
	if (f->journal < 0 && !create)
		return false;
	if (f->journal < 0 || fstat(f->journal, &st) < 0)
		die("open undo records");
	if (pread(f->journal, &at, sizeof(at), 0) != sizeof(at) || at < JOURNAL_HEAD || at > st.st_size) {
		at = JOURNAL_HEAD;
		if (real_ftruncate(f->journal, 0) < 0 || real_pwritev(f->journal, &(struct iovec) { &at, sizeof(at) }, 1, 0) < 0)
			die("begin undo records");
	}
	f->start = at;
	/* The last one may be a part: its process was killed before the change. */
	while (pread(f->journal, &u, sizeof(u), at) == sizeof(u) && u.magic == UNDO_MAGIC &&
	       at + (int64_t)(sizeof(u) + u.saved) <= st.st_size)
		at += (int64_t)(sizeof(u) + u.saved);
	f->end = at;
	return true;
}

/* What [offset, offset + length) is now, before it changes.  Under f->lock. */
static void save(struct file *f, int fd, bool cut, int64_t offset, int64_t length)
{
	struct undo u = { .magic = UNDO_MAGIC, .truncate = cut, .offset = (uint64_t)offset, .length = (uint64_t)length };
	char bytes[COPY];
	struct stat st;
	int64_t at;
	int from = fd;

	if (fstat(fd, &st) < 0)
		die("fstat");
	u.old_size = (uint64_t)st.st_size;
	if (st.st_size > offset)
		u.saved = (uint64_t)(cut || st.st_size - offset < length ? st.st_size - offset : length);
	journal_open(f, true);
	at = f->end;
	/* The head first: a record is whole when its last byte is there. */
	if (real_pwritev(f->journal, &(struct iovec) { &u, sizeof(u) }, 1, at) != sizeof(u))
		die("write an undo record");
	at += (int64_t)sizeof(u);
	if (u.saved && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY)
		from = real_open(AT_FDCWD, f->path, O_RDONLY | O_CLOEXEC, 0);
	for (uint64_t done = 0; done < u.saved;) {
		size_t n = u.saved - done < sizeof(bytes) ? (size_t)(u.saved - done) : sizeof(bytes);
		ssize_t r = pread(from, bytes, n, offset + (int64_t)done);

		if (r <= 0 || real_pwritev(f->journal, &(struct iovec) { bytes, (size_t)r }, 1, at) != r)
			die("save old bytes");
		at += r;
		done += (uint64_t)r;
	}
	if (from != fd)
		real_close(from);
	f->end = at;
}

/* Records before "until" are of the past.  Under f->lock. */
static void forget(struct file *f, int64_t until)
{
	int64_t start = f->end == until ? JOURNAL_HEAD : until;

	if (f->end == until && real_ftruncate(f->journal, JOURNAL_HEAD) < 0)
		die("forget undo records");
	if (start != f->start && real_pwritev(f->journal, &(struct iovec) { &start, sizeof(start) }, 1, 0) < 0)
		die("forget undo records");
	f->start = start;
	if (f->end == until)
		f->end = JOURNAL_HEAD;
}

/* --- the table of open files --- */

static void unref(struct file *f)
{
	struct file **at = &files;

	if (--f->refs)
		return;
	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	if (f->journal >= 0)
		real_close(f->journal);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

/* The file of a descriptor, with a reference, or NULL.  A descriptor that libc closed behind our back is found out. */
static struct file *of(int fd)
{
	struct file *f = NULL;
	struct stat st;
	int e = errno;

	if (!n_watch || fd < 0 || fd >= FDS || !by_fd[fd])
		return NULL;
	pthread_mutex_lock(&table_lock);
	f = by_fd[fd];
	if (f && (fstat(fd, &st) < 0 || st.st_ino != f->ino || st.st_dev != f->dev)) {
		unref(f);
		by_fd[fd] = f = NULL;
	}
	if (f)
		f->refs++;
	pthread_mutex_unlock(&table_lock);
	errno = e;
	return f;
}

static void done_with(struct file *f)
{
	int e = errno;

	pthread_mutex_lock(&table_lock);
	unref(f);
	pthread_mutex_unlock(&table_lock);
	errno = e;
}

static void set_fd(int fd, struct file *f)
{
	if (fd < 0 || fd >= FDS)
		return;
	if (by_fd[fd])
		unref(by_fd[fd]);
	by_fd[fd] = f;
}

static struct file *track(int fd, const char *path)
{
	struct file *f;
	struct stat st;

	if (fd < 0 || fd >= FDS || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return NULL;
	pthread_mutex_lock(&table_lock);
	for (f = files; f && (f->ino != st.st_ino || f->dev != st.st_dev); f = f->next)
		;
	if (!f) {
		f = calloc(1, sizeof(*f));
		if (!f)
			die("memory");
		f->dev = st.st_dev;
		f->ino = st.st_ino;
		f->journal = -1;
		pthread_mutex_init(&f->lock, NULL);
		snprintf(f->path, sizeof(f->path), "%s", path);
		f->next = files;
		files = f;
	}
	f->refs++;
	set_fd(fd, f);
	pthread_mutex_unlock(&table_lock);
	return f;
}

/* --- opening and closing --- */

/* A file that is new: its name can be undone, and what was noted of its inode's earlier life is void. */
static int create(int dir, const char *path, int flags, mode_t mode, const char *at)
{
	char journal[PATH_MAX + 64];
	struct stat st;
	int fd;

	pthread_mutex_lock(&names_lock);
	note("C", 0, at, "", "");
	fd = real_open(dir, path, flags | O_EXCL, mode);
	if (fd < 0)
		note("X", 0, at, "", ""); /* it did not happen */
	else if (fstat(fd, &st) == 0) {
		note("I", st.st_ino, at, "", "");
		snprintf(journal, sizeof(journal), "%s/data/%llx-%llu", control, (unsigned long long)st.st_dev,
			 (unsigned long long)st.st_ino);
		if (truncate(journal, 0) < 0 && errno != ENOENT)
			die("forget undo records");
	}
	pthread_mutex_unlock(&names_lock);
	return fd;
}

static int do_open(int dir, const char *path, int flags, mode_t mode)
{
	char at[PATH_MAX];
	int fd, e;

	if ((flags & O_ACCMODE) == O_RDONLY || (flags & O_TMPFILE) == O_TMPFILE || !place(dir, path, at))
		return real_open(dir, path, flags, mode);
	for (;;) {
		fd = flags & O_EXCL ? -1 : real_open(dir, path, flags & ~(O_CREAT | O_TRUNC), mode);
		if (fd >= 0 || !(flags & O_CREAT) || (!(flags & O_EXCL) && errno != ENOENT))
			break;
		fd = create(dir, path, flags, mode, at);
		if (fd >= 0 || errno != EEXIST || flags & O_EXCL)
			break;
	}
	e = errno;
	if (fd >= 0) {
		struct file *f = track(fd, at);

		if (f && flags & O_TRUNC) {
			pthread_mutex_lock(&f->lock);
			save(f, fd, true, 0, 0);
			if (real_ftruncate(fd, 0) < 0)
				die("truncate");
			pthread_mutex_unlock(&f->lock);
		}
	}
	errno = e;
	return fd;
}

static mode_t mode_of(int flags, va_list args)
{
	return flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
}

int openat(int dir, const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = mode_of(flags, args);
	va_end(args);
	return do_open(dir, path, flags, mode);
}

int openat64(int dir, const char *path, int flags, ...) __attribute__((alias("openat")));

int open(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = mode_of(flags, args);
	va_end(args);
	return do_open(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));

int close(int fd)
{
	if (n_watch && fd >= 0 && fd < FDS && by_fd[fd]) {
		pthread_mutex_lock(&table_lock);
		set_fd(fd, NULL);
		pthread_mutex_unlock(&table_lock);
	}
	return real_close(fd);
}

static int copied(int fd, int to)
{
	struct file *f = to >= 0 ? of(fd) : NULL;

	if (to >= 0) {
		pthread_mutex_lock(&table_lock);
		set_fd(to, f);
		pthread_mutex_unlock(&table_lock);
	}
	return to;
}

int dup(int fd)
{
	REAL(int, "dup", int);
	return copied(fd, real(fd));
}

int dup2(int fd, int to)
{
	REAL(int, "dup2", int, int);
	return fd == to ? real(fd, to) : copied(fd, real(fd, to));
}

/* --- content --- */

static int64_t total(const struct iovec *v, int n)
{
	int64_t sum = 0;

	for (int i = 0; i < n; i++)
		sum += (int64_t)v[i].iov_len;
	return sum;
}

ssize_t pwritev(int fd, const struct iovec *v, int n, off_t offset)
{
	struct file *f = of(fd);
	ssize_t w;

	if (!f)
		return real_pwritev(fd, v, n, offset);
	pthread_mutex_lock(&f->lock);
	save(f, fd, false, offset, total(v, n));
	w = real_pwritev(fd, v, n, offset);
	pthread_mutex_unlock(&f->lock);
	done_with(f);
	return w;
}

ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t offset) __attribute__((alias("pwritev")));

ssize_t pwrite(int fd, const void *p, size_t n, off_t offset)
{
	REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
	struct iovec v = { (void *)(uintptr_t)p, n };

	return n_watch && fd >= 0 && fd < FDS && by_fd[fd] ? pwritev(fd, &v, 1, offset) : real(fd, p, n, offset);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t offset) __attribute__((alias("pwrite")));

ssize_t writev(int fd, const struct iovec *v, int n)
{
	REAL(ssize_t, "writev", int, const struct iovec *, int);
	struct file *f = of(fd);
	struct stat st;
	off_t at;
	ssize_t w;

	if (!f)
		return real(fd, v, n);
	pthread_mutex_lock(&f->lock);
	at = fcntl(fd, F_GETFL) & O_APPEND && fstat(fd, &st) == 0 ? st.st_size : lseek(fd, 0, SEEK_CUR);
	save(f, fd, false, at, total(v, n));
	w = real(fd, v, n);
	pthread_mutex_unlock(&f->lock);
	done_with(f);
	return w;
}

ssize_t write(int fd, const void *p, size_t n)
{
	REAL(ssize_t, "write", int, const void *, size_t);
	struct iovec v = { (void *)(uintptr_t)p, n };

	return n_watch && fd >= 0 && fd < FDS && by_fd[fd] ? writev(fd, &v, 1) : real(fd, p, n);
}

int ftruncate(int fd, off_t size)
{
	struct file *f = of(fd);
	int rc;

	if (!f)
		return real_ftruncate(fd, size);
	pthread_mutex_lock(&f->lock);
	save(f, fd, true, size, 0);
	rc = real_ftruncate(fd, size);
	pthread_mutex_unlock(&f->lock);
	done_with(f);
	return rc;
}

int ftruncate64(int fd, off64_t size) __attribute__((alias("ftruncate")));

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	REAL(int, "fallocate64", int, int, off_t, off_t);
	struct file *f = of(fd);
	int rc;

	if (!f)
		return real(fd, mode, offset, length);
	pthread_mutex_lock(&f->lock);
	save(f, fd, false, offset, length);
	rc = real(fd, mode, offset, length);
	pthread_mutex_unlock(&f->lock);
	done_with(f);
	return rc;
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length) __attribute__((alias("fallocate")));

int posix_fallocate(int fd, off_t offset, off_t length)
{
	REAL(int, "posix_fallocate64", int, off_t, off_t);
	struct file *f = of(fd);
	int rc;

	if (!f)
		return real(fd, offset, length);
	pthread_mutex_lock(&f->lock);
	save(f, fd, false, offset, 0);
	rc = real(fd, offset, length);
	pthread_mutex_unlock(&f->lock);
	done_with(f);
	return rc;
}

int posix_fallocate64(int fd, off64_t offset, off64_t length) __attribute__((alias("posix_fallocate")));

/* --- what makes durable --- */

static void names_durable(const char *kind, ino_t ino, const char *path)
{
	int e = errno;

	pthread_mutex_lock(&names_lock);
	note(kind, ino, path, "", "");
	pthread_mutex_unlock(&names_lock);
	errno = e;
}

static int sync_with(int fd, int (*real)(int))
{
	struct file *f = of(fd);
	char path[PATH_MAX];
	struct stat st;
	int64_t until;
	int rc;

	if (!f) {
		rc = real(fd);
		if (rc == 0 && n_watch && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) && fd_place(fd, path)) {
			bool top = false;

			for (size_t i = 0; i < n_watch; i++)
				top |= strcmp(path, watch[i]) == 0;
			if (top || watched(path))
				names_durable("D", st.st_ino, path);
		}
		return rc;
	}
	pthread_mutex_lock(&f->lock);
	until = journal_open(f, false) ? f->end : 0;
	pthread_mutex_unlock(&f->lock);
	rc = real(fd);
	if (rc == 0) {
		pthread_mutex_lock(&f->lock);
		if (until > f->start)
			forget(f, until);
		if (!f->named)
			names_durable("F", f->ino, f->path);
		f->named = true;
		pthread_mutex_unlock(&f->lock);
	}
	done_with(f);
	return rc;
}

int fsync(int fd)
{
	REAL(int, "fsync", int);
	return sync_with(fd, real);
}

int fdatasync(int fd)
{
	REAL(int, "fdatasync", int);
	return sync_with(fd, real);
}

/* --- names --- */

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
	REAL(int, "renameat", int, const char *, int, const char *);
	char a[PATH_MAX], b[PATH_MAX], grave[PATH_MAX + 64] = "";
	struct stat st;
	int rc, e;

	if (!place(from_dir, from, a) || !place(to_dir, to, b) || lstat(a, &st) < 0)
		return real(from_dir, from, to_dir, to);
	pthread_mutex_lock(&names_lock);
	bury(b, grave);
	note("R", st.st_ino, b, a, grave);
	rc = real(from_dir, from, to_dir, to);
	e = errno;
	if (rc < 0)
		note("X", st.st_ino, b, "", "");
	pthread_mutex_unlock(&names_lock);
	pthread_mutex_lock(&table_lock);
	for (struct file *f = files; rc == 0 && f; f = f->next)
		if (f->ino == st.st_ino && f->dev == st.st_dev) {
			f->named = false;
			snprintf(f->path, sizeof(f->path), "%s", b);
		}
	pthread_mutex_unlock(&table_lock);
	errno = e;
	return rc;
}

int rename(const char *from, const char *to)
{
	return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int unlinkat(int dir, const char *path, int flags)
{
	REAL(int, "unlinkat", int, const char *, int);
	char at[PATH_MAX], grave[PATH_MAX + 64];
	struct stat st;
	int rc, e;

	if (flags & AT_REMOVEDIR || !place(dir, path, at) || lstat(at, &st) < 0)
		return real(dir, path, flags);
	pthread_mutex_lock(&names_lock);
	bury(at, grave);
	note("U", st.st_ino, at, "", grave);
	rc = real(dir, path, flags);
	e = errno;
	if (rc < 0)
		note("X", st.st_ino, at, "", "");
	pthread_mutex_unlock(&names_lock);
	errno = e;
	return rc;
}

int unlink(const char *path)
{
	return unlinkat(AT_FDCWD, path, 0);
}

int mkdirat(int dir, const char *path, mode_t mode)
{
	REAL(int, "mkdirat", int, const char *, mode_t);
	char at[PATH_MAX];
	struct stat st;
	int rc, e;

	if (fstatat(dir, path, &st, 0) == 0 || !place(dir, path, at))
		return real(dir, path, mode);
	pthread_mutex_lock(&names_lock);
	note("M", 0, at, "", "");
	rc = real(dir, path, mode);
	e = errno;
	if (rc < 0)
		note("X", 0, at, "", "");
	pthread_mutex_unlock(&names_lock);
	errno = e;
	return rc;
}

int mkdir(const char *path, mode_t mode)
{
	return mkdirat(AT_FDCWD, path, mode);
}
