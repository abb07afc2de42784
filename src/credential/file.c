/* FILE: the secret is a file below an allowed folder of the agent.  The kernel itself keeps the way to the file below that folder
 * (openat2, Linux 5.6), symbolic links included: those of a Kubernetes secret mount (name -> ..data/name, ..data -> a folder with
 * the time in its name) stay inside and work; one that leads outside does not.  Where there is no openat2 (older kernels, sandboxes
 * and seccomp profiles that do not know it) we go that way ourselves, name by name, and follow the links that stay inside. */
#include "credential/credential.h"
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

enum { DEPTH = 32, LINKS = 40 };

static int file_check(const struct pt_credential_ref *ref, struct pt_err *err)
{
	const char *path = ref->file_path;

	if (!path || !*path)
		return pt_fail(err, PT_E_INVALID, "credential FILE needs file_path");
	if (ref->env_var_name)
		return pt_fail(err, PT_E_INVALID, "env_var_name does not belong to credential FILE");
	if (*path != '/')
		return pt_fail(err, PT_E_INVALID, "file_path '%.100s' is not absolute", path);
	for (const char *p = path; *p;) {
		size_t n;

		p += strspn(p, "/");
		n = strcspn(p, "/");
		if (n == 2 && memcmp(p, "..", 2) == 0)
			return pt_fail(err, PT_E_INVALID, "file_path '%.100s' has a '..' in it", path);
		if (n == 0 || (n == 1 && *p == '.' && !p[1]))
			return pt_fail(err, PT_E_INVALID, "file_path '%.100s' names a folder", path);
		p += n;
	}
	return PT_OK;
}

/* The part of path below the folder dir (n bytes), NULL when it is not below it. */
static const char *below(const char *path, const char *dir, size_t n)
{
	while (n && dir[n - 1] == '/')
		n--;
	if (strncmp(path, dir, n) != 0 || path[n] != '/')
		return NULL;
	return path + n + strspn(path + n, "/");
}

/* A way below a folder, one name after the other.  dirs: the folders on it, owned; a ".." goes back to the one before. */
struct walk {
	int at; /* where it began */
	int dirs[DEPTH];
	unsigned n, links;
	char rest[4096]; /* what is still to go */
};

static int here(const struct walk *w)
{
	return w->n ? w->dirs[w->n - 1] : w->at;
}

/* The name that could not be opened is perhaps a symbolic link: then its target comes before the rest. */
static int follow(struct walk *w, const char *name, const char *rest)
{
	char target[4096], way[sizeof(w->rest)];
	int e = errno;
	struct statfs fs;
	ssize_t n = readlinkat(here(w), name, target, sizeof(target) - 1);

	if (n < 0) {
		errno = e;
		return -1;
	}
	target[n] = '\0';
	if (++w->links > LINKS || *target == '/' || fstatfs(here(w), &fs) < 0 || fs.f_type == PROC_SUPER_MAGIC) {
		errno = EXDEV; /* those of /proc lead anywhere, whatever their text says */
		return -1;
	}
	if (snprintf(way, sizeof(way), "%s/%s", target, rest) >= (int)sizeof(way)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(w->rest, way, sizeof(way));
	return 0;
}

/* Take one step: 0 = go on, > 0 = it is open as *ret_fd, < 0 = errno. */
static int step(struct walk *w, int flags, int *ret_fd)
{
	char name[NAME_MAX + 1], *p = w->rest + strspn(w->rest, "/");
	size_t n = strcspn(p, "/");
	const char *rest = p + n + strspn(p + n, "/");
	bool last = !*rest, up;
	int fd;

	if (n > NAME_MAX || w->n == DEPTH) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(name, p, n);
	name[n] = '\0';
	up = strcmp(name, "..") == 0;
	if (up && !w->n) {
		errno = EXDEV;
		return -1;
	}
	if (up)
		(void)close(w->dirs[--w->n]);
	if (up || strcmp(name, ".") == 0 || !*name) {
		if (last) {
			errno = EISDIR;
			return -1;
		}
		memmove(w->rest, rest, strlen(rest) + 1);
		return 0;
	}
	fd = openat(here(w), name, O_NOFOLLOW | (last ? flags : O_PATH | O_DIRECTORY | O_CLOEXEC));
	if (fd < 0)
		return errno == ELOOP || errno == ENOTDIR ? follow(w, name, rest) : -1;
	if (last) {
		*ret_fd = fd;
		return 1;
	}
	w->dirs[w->n++] = fd;
	memmove(w->rest, rest, strlen(rest) + 1);
	return 0;
}

/* As openat2 with RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS. */
static int open_walked(int at, const char *way, int flags)
{
	struct walk w = { .at = at };
	int fd = -1, rc, e;

	if (strlen(way) >= sizeof(w.rest)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(w.rest, way, strlen(way) + 1);
	while ((rc = step(&w, flags, &fd)) == 0)
		;
	e = errno;
	while (w.n)
		(void)close(w.dirs[--w.n]);
	errno = e;
	return rc < 0 ? -1 : fd;
}

/* A descriptor of the file, with what the system says about it left to the caller in errno. */
static int open_below(const char *dir, size_t n, const char *rest)
{
	struct open_how how = { .flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, /* a FIFO must not make us wait */
				.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };
	pt_auto(pt_freep) char *name = strndup(dir, n);
	pt_auto(pt_closep) int at = name ? open(name, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	int fd = -1;

	if (at < 0)
		return -1;
	for (int tries = 0; fd < 0 && tries < 16; tries++) { /* EAGAIN: something on the way was renamed meanwhile */
		fd = (int)syscall(SYS_openat2, at, rest, &how, sizeof(how));
		if (fd < 0 && errno != EAGAIN && errno != EINTR)
			break;
	}
	if (fd < 0 && (errno == ENOSYS || errno == EPERM))
		fd = open_walked(at, rest, (int)how.flags);
	return fd;
}

static int open_failed(int e, struct pt_err *err)
{
	if (e == EXDEV || e == ELOOP) {
		(void)pt_fail(err, PT_E_DENIED, "file_path leads out of the allowed folder by a symbolic link");
		(void)pt_hint(err, "put the file itself below the folder, or allow the folder that it is in");
		return PT_E_DENIED;
	}
	errno = e;
	(void)pt_fail_sys(err, PT_E_CREDENTIAL, "open");
	(void)pt_hint(err, "check that the secret is mounted at this path and that the agent's user may read it");
	return PT_E_CREDENTIAL;
}

static int read_all(int fd, struct pt_buf *out, struct pt_err *err)
{
	char chunk[16384];
	size_t total = 0;
	struct stat st;
	ssize_t n = 0;
	int e;

	if (fstat(fd, &st) < 0)
		return pt_fail_sys(err, PT_E_CREDENTIAL, "stat");
	if (!S_ISREG(st.st_mode))
		return pt_fail(err, PT_E_CREDENTIAL, "this is not a plain file");
	/* Room at once: memory that grows would leave copies of the secret behind. */
	if (st.st_size > (off_t)PT_CREDENTIAL_MAX)
		return pt_fail(err, PT_E_CREDENTIAL, "larger than %zu bytes", PT_CREDENTIAL_MAX);
	(void)pt_buf_room(out, (size_t)st.st_size); /* a failure shows in pt_buf_done() */
	while (!out->bad && ((n = read(fd, chunk, sizeof(chunk))) > 0 || (n < 0 && errno == EINTR)))
		if (n > 0) {
			total += (size_t)n;
			if (total > PT_CREDENTIAL_MAX)
				break;
			pt_buf_add(out, chunk, (size_t)n);
		}
	e = errno;
	explicit_bzero(chunk, sizeof(chunk));
	if (total > PT_CREDENTIAL_MAX)
		return pt_fail(err, PT_E_CREDENTIAL, "larger than %zu bytes", PT_CREDENTIAL_MAX);
	errno = e;
	return n < 0 ? pt_fail_sys(err, PT_E_CREDENTIAL, "read") : pt_buf_done(out, err);
}

static int file_fetch(const struct pt_credential_ref *ref, const struct pt_credential_conf *conf, const struct pt_cancel *cancel,
		      struct pt_buf *out, struct pt_err *err)
{
	const char *path = ref->file_path;

	for (const char *dir = conf && conf->dirs ? conf->dirs : ""; *dir;) {
		size_t n = strcspn(dir, ":");
		const char *rest = *dir == '/' ? below(path, dir, n) : NULL;

		if (rest) {
			pt_auto(pt_closep) int fd = open_below(dir, n, rest);

			return fd < 0 ? open_failed(errno, err) : read_all(fd, out, err);
		}
		dir += n + (dir[n] == ':');
	}
	(void)pt_fail(err, PT_E_DENIED, "file_path '%.100s' is not below an allowed folder", path);
	(void)pt_hint(err, "this agent reads secrets below %.150s only",
		      conf && conf->dirs && *conf->dirs ? conf->dirs : "(no folder)");
	return PT_E_DENIED;
}

const struct pt_credential_source pt_credential_file = { .name = "FILE", .check = file_check, .fetch = file_fetch };
