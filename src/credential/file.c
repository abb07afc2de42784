/* FILE: the secret is a file below an allowed folder of the agent.  The kernel itself keeps the way to the file below that folder
 * (openat2, Linux 5.6), symbolic links included: those of a Kubernetes secret mount (name -> ..data/name, ..data -> a folder with
 * the time in its name) stay inside and work; one that leads outside does not. */
#include "credential/credential.h"
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

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
	if (e == ENOSYS)
		(void)pt_hint(err, "credential files need openat2 (Linux 5.6), which this kernel or sandbox does not have: "
				   "use ENV_VAR");
	else
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
