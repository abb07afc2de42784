/* Bodies of large results: one file each below the blob folder, in 1024 subfolders.  A blob is written whole and fsynced before the row that
 * names it is committed; after a crash a blob that no row names is an orphan and is removed at the next start.  So that a gateway does not
 * take the blobs of another database for orphans, the folder says whose it is: the file "database" in it has the id of the first account. */
#include "base/id.h"
#include "gateway/internal.h"
#include "os/file.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

enum { UNSURE_MOST = 16 };

struct pt_blob_writer {
	struct pt_gateway *g;
	int fd;
	bool committed;
	char name[64], path[4200], dir[4160];
};

/* Ids share their first characters (time), so the folder comes from the last two. */
static void place(const struct pt_gateway *g, const char *name, char *dir, size_t dir_size, char *path, size_t path_size)
{
	size_t n = strlen(name);

	snprintf(dir, dir_size, "%s/%s", g->blob_dir, n > 2 ? name + n - 2 : "xx");
	snprintf(path, path_size, "%s/%s", dir, name);
}

static bool name_ok(const char *name)
{
	return pt_id_valid(name, "blob");
}

int pt_blob_begin(struct pt_gateway *g, struct pt_blob_writer **ret, struct pt_err *err)
{
	struct pt_blob_writer *w;
	char id[PT_ID_SIZE];
	int rc;

	if (g->n_unsure >= UNSURE_MOST) {
		(void)pt_fail(err, PT_E_UNAVAILABLE, "the gateway cannot store results: its database's commits fail");
		return pt_hint(err, "look at the gateway's log and disk");
	}
	w = calloc(1, sizeof(*w));
	if (!w)
		return pt_fail_oom(err);
	w->g = g;
	pt_id_new(id, "blob");
	snprintf(w->name, sizeof(w->name), "%s", id);
	place(g, w->name, w->dir, sizeof(w->dir), w->path, sizeof(w->path));
	if ((rc = pt_mkdirs(w->dir, err)) < 0) {
		free(w);
		return rc;
	}
	w->fd = open(w->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (w->fd < 0) {
		free(w);
		return pt_fail_sys(err, PT_E_IO, "create a blob file");
	}
	*ret = w;
	return PT_OK;
}

int pt_blob_write(struct pt_blob_writer *w, const void *p, size_t n, struct pt_err *err)
{
	int rc = pt_write_all(w->fd, p, n, err);

	if (rc < 0 && err->sys == ENOSPC) {
		err->code = PT_E_UNAVAILABLE; /* the agent keeps the result and tries again */
		return pt_hint(err, "the gateway's disk is full: make room in its blob folder");
	}
	return rc;
}

int pt_blob_commit(struct pt_blob_writer *w, char **ret_name, struct pt_err *err)
{
	struct stat st;
	int rc;

	if (fsync(w->fd) < 0)
		return pt_fail_sys(err, PT_E_IO, "fsync a blob file");
	if ((rc = pt_fsync_dir(w->dir, err)) < 0 || (rc = pt_fsync_dir(w->g->blob_dir, err)) < 0) /* the subfolder may be new */
		return rc;
	*ret_name = strdup(w->name);
	if (!*ret_name)
		return pt_fail_oom(err);
	w->committed = true;
	w->g->m.blobs++;
	w->g->m.blob_bytes += fstat(w->fd, &st) == 0 ? st.st_size : 0;
	return PT_OK;
}

void pt_blob_abort(struct pt_blob_writer *w)
{
	if (!w)
		return;
	(void)close(w->fd);
	if (!w->committed)
		(void)unlink(w->path); /* what stays is swept at the next start */
	free(w);
}

int pt_blob_open(struct pt_gateway *g, const char *name, int *ret_fd, struct pt_err *err)
{
	char dir[4160], path[4200];
	int fd;

	if (!name_ok(name))
		return pt_fail(err, PT_E_CORRUPT, "bad blob name");
	place(g, name, dir, sizeof(dir), path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return pt_fail_sys(err, PT_E_CORRUPT, "the stored result is missing");
	*ret_fd = fd;
	return PT_OK;
}

void pt_blob_remove(struct pt_gateway *g, const char *name)
{
	char dir[4160], path[4200];
	struct stat st;

	if (!name_ok(name))
		return;
	place(g, name, dir, sizeof(dir), path, sizeof(path));
	if (stat(path, &st) < 0 || unlink(path) < 0)
		return;
	g->m.blobs--;
	g->m.blob_bytes -= st.st_size;
}

static uint64_t commits(struct pt_gateway *g)
{
	struct pt_writer_stats ws;

	pt_writer_stats(g->writer, &ws);
	return ws.commits;
}

void pt_blob_unsure(struct pt_gateway *g, const char *name)
{
	char id[PT_ID_SIZE];
	struct pt_err ignored;

	pt_id_copy(id, name);
	(void)!pt_list_append(&g->unsure, sizeof(id), id, &ignored); /* without memory it is swept at the next start */
	g->unsure_since = commits(g);
	g->n_unsure = g->unsure.n;
}

void pt_blobs_sure(struct pt_gateway *g)
{
	if (!g->unsure.n || commits(g) == g->unsure_since)
		return;
	for (size_t i = 0; i < g->unsure.n; i++)
		pt_blob_remove(g, (char *)g->unsure.items + i * PT_ID_SIZE);
	free(g->unsure.items);
	g->unsure = (struct pt_list) { 0 };
	g->n_unsure = 0;
}

/* --- orphans --- */

struct known {
	const char *name;
	bool found;
};

static int same_blob(void *arg, void *rec)
{
	struct known *k = arg;
	const struct pt_rec_result *r = rec;

	k->found = r->blob && strcmp(r->blob, k->name) == 0;
	return k->found;
}

static int sweep_dir(struct pt_gateway *g, struct pt_tx *tx, const char *sub, struct pt_err *err)
{
	char path[4160];
	struct dirent *e;
	struct stat st;
	DIR *d;
	int rc = PT_OK;

	snprintf(path, sizeof(path), "%s/%s", g->blob_dir, sub);
	if (!(d = opendir(path)))
		return PT_OK;
	while (rc >= 0 && (e = readdir(d))) {
		struct pt_rec_result match = { 0 };
		struct known k = { .name = e->d_name };

		if (!name_ok(e->d_name))
			continue;
		match.blob = e->d_name;
		rc = pt_tx_scan(tx, &pt_results, &(struct pt_scan){ .index = &pt_results_by_blob, .match = &match, .n_eq = 1 }, same_blob, &k,
				err);
		if (rc >= 0 && !k.found) {
			(void)unlinkat(dirfd(d), e->d_name, 0);
		} else if (fstatat(dirfd(d), e->d_name, &st, 0) == 0) {
			g->m.blobs++;
			g->m.blob_bytes += st.st_size;
		}
	}
	closedir(d);
	return rc < 0 ? rc : PT_OK;
}

/* --- whose folder it is --- */

static int first_id(void *arg, void *rec)
{
	pt_id_copy(arg, ((struct pt_rec_account *)rec)->id);
	return 1;
}

/* The id of the database, "" before its first account; and what stands in the folder, "" when nobody has claimed it. */
static int whose(struct pt_gateway *g, struct pt_tx *tx, char id[static PT_ID_SIZE], struct pt_buf *folder, struct pt_err *err)
{
	char path[4160];
	int rc;

	*id = '\0';
	rc = pt_tx_scan(tx, &pt_accounts, &(struct pt_scan){ .limit = 1 }, first_id, id, err);
	if (rc < 0)
		return rc;
	snprintf(path, sizeof(path), "%s/database", g->blob_dir);
	rc = pt_file_read(path, folder, err);
	return rc == PT_E_NOT_FOUND ? PT_OK : rc;
}

int pt_blob_claim(struct pt_gateway *g, struct pt_err *err)
{
	pt_auto(pt_tx_rollbackp) struct pt_tx *tx = NULL;
	pt_auto_buf folder = PT_BUF_INIT(4096);
	char id[PT_ID_SIZE], path[4160];
	int rc = pt_db_begin(g->db, false, &tx, err);

	if (rc < 0 || (rc = whose(g, tx, id, &folder, err)) < 0 || folder.len)
		return rc;
	snprintf(path, sizeof(path), "%s/database", g->blob_dir);
	return pt_file_replace(path, id, strlen(id), 0600, err);
}

int pt_blob_sweep(struct pt_gateway *g, struct pt_err *err)
{
	pt_auto(pt_tx_rollbackp) struct pt_tx *tx = NULL;
	pt_auto_buf folder = PT_BUF_INIT(4096);
	int rc = pt_mkdirs(g->blob_dir, err);
	char id[PT_ID_SIZE];
	struct dirent *e;
	DIR *d;

	if (rc < 0 || (rc = pt_db_begin(g->db, false, &tx, err)) < 0 || (rc = whose(g, tx, id, &folder, err)) < 0)
		return rc;
	if (folder.len && strcmp(folder.p, id) != 0) {
		(void)pt_fail(err, PT_E_CONFLICT, "blob folder '%.150s' belongs to another database", g->blob_dir);
		return pt_hint(err, "give this database a folder of its own with --blob-dir; when the other one is gone for good, remove that folder");
	}
	if (!*id) /* a new database has no blobs: what lies there is not its own */
		return PT_OK;
	if (!(d = opendir(g->blob_dir)))
		return pt_fail_sys(err, PT_E_IO, "open blob folder '%s'", g->blob_dir);
	while (rc == 0 && (e = readdir(d)))
		if (e->d_name[0] != '.')
			rc = sweep_dir(g, tx, e->d_name, err);
	closedir(d);
	return rc;
}
