/* A directory as a store: a mounted volume, or tests.  An object is a file below it; what put() has written survives power
 * loss.  The directory itself is never created, since a missing one is a volume that is not mounted. */
#include "os/file.h"
#include "store/store_int.h"
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

enum { PATH_BYTES = 4096 };

struct directory {
	struct pt_store store; /* first */
	const char *root;
};

static int path_of(const struct directory *d, const char *key, struct pt_buf *out, struct pt_err *err)
{
	pt_buf_fmt(out, "%s/%s", d->root, key);
	return pt_buf_done(out, err);
}

static void directory_close(struct pt_store *st)
{
	free(st);
}

static int directory_open(struct pt_store **ret, const struct pt_store_conf *conf, const struct pt_http_client_conf *http,
			  const struct pt_cancel *cancel, struct pt_err *err)
{
	struct directory *d;
	struct stat st;

	errno = ENOTDIR;
	if (stat(conf->bucket, &st) < 0 || !S_ISDIR(st.st_mode)) {
		(void)pt_fail_sys(err, errno == EACCES ? PT_E_SOURCE_DENIED : PT_E_NOT_FOUND, "folder '%.200s'", conf->bucket);
		return pt_hint(
			err,
			"mount the volume there, or correct POSTERN_STORAGE_BUCKET_NAME; the agent does not create the folder");
	}
	d = calloc(1, sizeof(*d));
	if (!d)
		return pt_fail_oom(err);
	*d = (struct directory) { .store.ops = &pt_store_directory, .root = conf->bucket };
	*ret = &d->store;
	return PT_OK;
}

/* The folders above path, so that the file can be made. */
static int make_parents(const char *path, struct pt_err *err)
{
	pt_auto(pt_freep) char *copy = strdup(path);

	if (!copy)
		return pt_fail_oom(err);
	*strrchr(copy, '/') = '\0';
	return pt_mkdirs(copy, err);
}

/* Errors of files, in the words of stores. */
static int worded(int rc, struct pt_err *err)
{
	if (rc == PT_E_DENIED) {
		err->code = PT_E_SOURCE_DENIED;
		return pt_hint(
			err,
			"the agent's user (uid %d, gid %d) needs to write there: set the pod's fsGroup, or the folder's owner",
			(int)geteuid(), (int)getegid());
	}
	if (rc == PT_E_IO && (err->sys == ENOSPC || err->sys == EDQUOT)) {
		err->code = PT_E_LIMIT;
		return pt_hint(err, "the volume is full: delete objects, or give it more room");
	}
	return rc;
}

static int directory_put(struct pt_store *st, const char *key, const void *data, size_t n, struct pt_err *err)
{
	pt_auto_buf path = PT_BUF_INIT(PATH_BYTES);
	int rc = path_of((struct directory *)st, key, &path, err);

	if (rc == 0)
		rc = make_parents(path.p, err);
	if (rc == 0)
		rc = pt_file_replace(path.p, data, n, 0640, err);
	return worded(rc, err);
}

static int directory_get(struct pt_store *st, const char *key, struct pt_buf *out, struct pt_err *err)
{
	pt_auto_buf path = PT_BUF_INIT(PATH_BYTES);
	int rc = path_of((struct directory *)st, key, &path, err);

	return worded(rc < 0 ? rc : pt_file_read(path.p, out, err), err);
}

/* Keys below folder (a key, or "" for all) that begin with prefix, in their order. */
static int walk(struct directory *d, const char *folder, const char *prefix, unsigned *left,
		int (*fn)(void *arg, const char *key), void *arg, struct pt_err *err)
{
	pt_auto_buf path = PT_BUF_INIT(PATH_BYTES);
	struct dirent **names = NULL;
	int rc = path_of(d, folder, &path, err), n = rc < 0 ? 0 : scandir(path.p, &names, NULL, alphasort);

	if (rc == 0 && n < 0 && errno != ENOENT && errno != ENOTDIR)
		rc = pt_fail_sys(err, errno == EACCES ? PT_E_DENIED : PT_E_IO, "read folder '%.200s'", path.p);
	for (int i = 0; i < n; i++) {
		pt_auto_buf key = PT_BUF_INIT(PATH_BYTES), full = PT_BUF_INIT(PATH_BYTES);
		const char *name = names[i]->d_name;
		struct stat st;
		size_t most;

		pt_buf_fmt(&key, "%s%s%s", folder, *folder ? "/" : "", name);
		most = key.len < strlen(prefix) ? key.len : strlen(prefix);
		if (rc == 0 && *left && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && strncmp(key.p, prefix, most) == 0 &&
		    path_of(d, key.p, &full, err) == 0 && lstat(full.p, &st) == 0) {
			if (S_ISDIR(st.st_mode)) {
				rc = walk(d, key.p, prefix, left, fn, arg, err);
			} else if (S_ISREG(st.st_mode) && key.len >= strlen(prefix)) {
				--*left;
				rc = fn(arg, key.p);
			}
		}
		free(names[i]);
	}
	free(names);
	return rc;
}

static int directory_list(struct pt_store *st, const char *prefix, unsigned max, int (*fn)(void *arg, const char *key), void *arg,
			  struct pt_err *err)
{
	return worded(walk((struct directory *)st, "", prefix, &max, fn, arg, err), err);
}

static int directory_remove(struct pt_store *st, const char *key, struct pt_err *err)
{
	pt_auto_buf path = PT_BUF_INIT(PATH_BYTES);
	int rc = path_of((struct directory *)st, key, &path, err);

	if (rc == 0 && unlink(path.p) < 0) {
		if (errno == ENOENT)
			return PT_OK;
		rc = pt_fail_sys(err, errno == EACCES || errno == EPERM || errno == EROFS ? PT_E_DENIED : PT_E_IO,
				 "delete '%.200s'", path.p);
	}
	if (rc == 0) {
		*strrchr(path.p, '/') = '\0';
		rc = pt_fsync_dir(path.p, err);
	}
	return worded(rc, err);
}

const struct pt_store_ops pt_store_directory = { .name = "DIRECTORY",
						 .open = directory_open,
						 .put = directory_put,
						 .get = directory_get,
						 .list = directory_list,
						 .remove = directory_remove,
						 .close = directory_close };
