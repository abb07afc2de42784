/* filesystem: the spool's folder, and the permissions of the files that the agent reads.
 *
 * The spool is only looked at, but for a file of our own that has no name (O_TMPFILE) or is removed at once; the lock of an
 * agent that runs is seen, never waited for. */
#include "base/clock.h"
#include "check/check_int.h"
#include "os/file.h"
#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#define MIB (1024LL * 1024)
enum { PATH_MOST = 1024, PROBE_BYTES = 64 * 1024, INODES_LEAST = 64, INODES_WANTED = 2000 };

/* --- which kind of file system --- */

static const struct {
	long magic;
	const char *name;
} networked[] = {
	{ NFS_SUPER_MAGIC, "NFS" },     { SMB_SUPER_MAGIC, "SMB" }, { CIFS_SUPER_MAGIC, "CIFS" }, { SMB2_SUPER_MAGIC, "SMB" },
	{ CEPH_SUPER_MAGIC, "CephFS" }, { AFS_SUPER_MAGIC, "AFS" }, { V9FS_MAGIC, "9p" },         { FUSE_SUPER_MAGIC, "FUSE" },
	{ 0x0bd00bd0, "Lustre" },       { 0x47504653, "GPFS" },     { 0x7461636f, "OCFS2" },      { 0x01161970, "GFS2" },
};

static void kind(const char *dir, struct pt_check_result *r)
{
	struct statfs fs;

	if (statfs(dir, &fs) < 0)
		return;
	for (size_t i = 0; i < PT_COUNT(networked); i++)
		if ((long)fs.f_type == networked[i].magic)
			pt_check_warn(r, "Put the spool on a disk of the node or a block volume: results wait there for fsync.",
				      "the spool is on %s, a file system over the network", networked[i].name);
	if (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC)
		pt_check_warn(r, "Use an emptyDir without medium: Memory, or a PersistentVolumeClaim.",
			      "the spool is in memory (tmpfs): results that wait are lost with the pod, and count as its memory");
	else if (fs.f_type == OVERLAYFS_SUPER_MAGIC)
		pt_check_warn(
			r, "Mount a volume at the spool folder.",
			"the spool is in the container's own layer: results that wait are lost when the container restarts");
}

/* --- room --- */

static void amount(double bytes, char out[static 24])
{
	static const char *const units[] = { "", "K", "M", "G", "T" };
	size_t u = 0;

	for (; bytes >= 1024 && u + 1 < PT_COUNT(units); u++)
		bytes /= 1024;
	snprintf(out, 24, "%.3g%s", bytes, units[u]);
}

static long long used(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	long long bytes = 0;
	struct dirent *e;
	struct stat st;

	while (d && (e = readdir(d)))
		if (fstatat(dir_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
			bytes += st.st_blocks * 512LL;
	if (d)
		closedir(d);
	else
		pt_closep(&fd);
	return bytes;
}

static void room(const struct pt_agent_conf *c, int dir_fd, struct pt_check_result *r)
{
	bool logs = c->ship_logs && strcmp(c->ship_logs, "off") != 0;
	long long want = c->spool_max_bytes + (logs ? c->log_outbox_bytes : 0), left;
	char left_text[24], want_text[24];
	struct statvfs v;

	if (fstatvfs(dir_fd, &v) < 0)
		return;
	left = (long long)v.f_bavail * (long long)v.f_frsize;
	amount((double)left, left_text);
	amount((double)want, want_text);
	if (left < 16 * MIB)
		pt_check_fail(r, "Free space on the spool's volume, or give it a larger one.",
			      "the spool's disk is full: %s bytes are free", left_text);
	else if (left + used(dir_fd) < want)
		pt_check_warn(r,
			      "Give the volume more room, or lower --spool-max-bytes (and --log-outbox-bytes) to what there is.",
			      "%s are free, and the spool with its log lines may want %s", left_text, want_text);
	else
		pt_check_note(r, "%s free", left_text);
	if (v.f_files && v.f_favail < INODES_LEAST)
		pt_check_fail(r, "Remove files on the spool's volume, or make it with more inodes.", "%lld inodes are free",
			      (long long)v.f_favail);
	else if (v.f_files && v.f_favail < INODES_WANTED)
		pt_check_warn(r, "Remove files on the spool's volume, or make it with more inodes.", "only %lld inodes are free",
			      (long long)v.f_favail);
}

/* --- writing --- */

static void cannot(struct pt_check_result *r, const char *what, const char *dir)
{
	char fix[300];
	int e = errno;

	if (e == EROFS)
		snprintf(fix, sizeof(fix), "Mount a volume that can be written at '%.150s'.", dir);
	else if (e == ENOSPC || e == EDQUOT)
		snprintf(fix, sizeof(fix), "Free space on the spool's volume, or give it a larger one.");
	else if (e == EACCES || e == EPERM)
		snprintf(fix, sizeof(fix),
			 "Let uid %ld or gid %ld write '%.150s': fsGroup in the pod's security context, or chown.",
			 (long)geteuid(), (long)getegid(), dir);
	else
		snprintf(fix, sizeof(fix), "Give the agent another --spool-dir.");
	pt_check_fail(r, fix, "%s '%.150s': %s", what, dir, strerror(e));
}

/* A file without a name where that is possible, else one that is removed as soon as it is open. */
static int probe_file(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	char name[40];

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL && errno != ENOENT))
		return fd;
	snprintf(name, sizeof(name), ".check-%ld", (long)getpid());
	fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0)
		(void)unlinkat(dir_fd, name, 0);
	return fd;
}

static void write_and_sync(int dir_fd, const char *dir, struct pt_check_result *r)
{
	pt_auto(pt_closep) int fd = probe_file(dir_fd);
	static const char zeros[PROBE_BYTES];
	struct pt_err err = { 0 };
	int64_t began, ms;

	if (fd < 0) {
		cannot(r, "a file cannot be made in", dir);
		return;
	}
	if (pt_write_all(fd, zeros, sizeof(zeros), &err) < 0) {
		errno = err.sys;
		cannot(r, "a file cannot be written in", dir);
		return;
	}
	began = pt_mono_ms();
	if (fsync(fd) < 0 || fsync(dir_fd) < 0) {
		cannot(r, "fsync does not work in", dir);
		return;
	}
	ms = pt_mono_ms() - began;
	if (ms > 1000)
		pt_check_warn(r, "Use a faster volume: each result is synced before it counts as stored.", "fsync took %lld ms",
			      (long long)ms);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		cannot(r, "files cannot be locked in", dir);
	else
		pt_check_note(r, "'%s' can be written and synced", dir);
}

static void spool_lock(int dir_fd, const char *dir, struct pt_check_result *r)
{
	pt_auto(pt_closep) int fd = openat(dir_fd, "lock", O_RDWR | O_CLOEXEC);

	if (fd < 0 && errno != ENOENT)
		cannot(r, "the lock cannot be opened in", dir);
	else if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		pt_check_note(r, "in use by a running agent");
}

/* --- the folder --- */

/* The first folder on the way to dir that is not there; "" when all are. */
static void first_missing(const char *dir, char out[static PATH_MOST])
{
	snprintf(out, PATH_MOST, "%s", dir);
	for (char *p = out + 1; *p; p++) {
		struct stat st;

		if (*p != '/')
			continue;
		*p = '\0';
		if (lstat(out, &st) < 0)
			return;
		*p = '/';
	}
	if (access(dir, F_OK) == 0)
		*out = '\0';
}

/* Remove what was made for the check: dir, up to the folder made. */
static void remove_made(const char *dir, const char *made)
{
	char path[PATH_MOST];
	char *slash;

	snprintf(path, sizeof(path), "%s", dir);
	while (rmdir(path) == 0 && strcmp(path, made) != 0 && (slash = strrchr(path, '/')) && slash > path)
		*slash = '\0';
}

static void spool(const struct pt_agent_conf *c, struct pt_check_result *r)
{
	char made[PATH_MOST];
	struct pt_err err = { 0 };
	int fd;

	first_missing(c->spool_dir, made);
	if (*made && pt_mkdirs(c->spool_dir, &err) < 0) {
		errno = err.sys;
		cannot(r, "the spool folder cannot be made:", c->spool_dir);
		return;
	}
	fd = open(c->spool_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		cannot(r, "the spool folder cannot be opened:", c->spool_dir);
		return;
	}
	spool_lock(fd, c->spool_dir, r);
	write_and_sync(fd, c->spool_dir, r);
	room(c, fd, r);
	kind(c->spool_dir, r);
	close(fd);
	if (*made) {
		remove_made(c->spool_dir, made);
		pt_check_note(r, "it is not there yet and can be made");
	}
}

static void writable_by_others(const char *what, const char *path, struct pt_check_result *r)
{
	struct stat st;

	if (path && *path && stat(path, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 022))
		pt_check_warn(
			r, "Take the right to write from group and others (chmod go-w; defaultMode: 0440 of a mounted secret).",
			"%s '%s' can be changed by %s (mode %04o)", what, path, st.st_mode & 02 ? "everybody" : "its group",
			(unsigned)st.st_mode & 07777);
}

void pt_check_filesystem(struct pt_check_ctx *c, struct pt_check_result *r)
{
	const struct pt_agent_conf *conf = c->conf;
	struct statvfs v;

	if (conf->spool_dir && *conf->spool_dir)
		spool(conf, r);
	else
		pt_check_fail(r, "Set --spool-dir (POSTERN_SPOOL_DIR) to a folder of a volume.", "--spool-dir is empty");
	writable_by_others("the token file", conf->token_file, r);
	writable_by_others("the CA file", conf->ca_file, r);
	if (statvfs("/", &v) == 0 && (v.f_flag & ST_RDONLY))
		pt_check_note(r, "the root file system is read-only");
}
