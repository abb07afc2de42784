#include "ctl/secret.h"
#include "os/file.h"
#include <stdio.h>

int pt_ctl_secret_place(const char *path, struct pt_err *err)
{
	pt_auto_buf dir = PT_BUF_INIT(8192);
	const char *slash = path ? strrchr(path, '/') : NULL;

	if (!path)
		return PT_OK;
	if (access(path, F_OK) == 0) {
		(void)pt_fail(err, PT_E_CONFLICT, "'%s' is there already", path);
		return pt_hint(err, "it may hold another secret: name a new file, or move the old one away");
	}
	pt_buf_add(&dir, slash ? path : ".", slash ? (slash > path ? (size_t)(slash - path) : 1) : 1);
	return access(dir.p, W_OK) == 0 ? PT_OK : pt_fail_sys(err, PT_E_DENIED, "cannot write to folder '%s'", dir.p);
}

int pt_ctl_secret_give(const struct pt_ctl_conf *c, struct pt_ctl_api *api, const struct pt_ctl_answer *a,
		       const struct pt_buf *secret, const char *path, const char *collection, const char *id, struct pt_err *err)
{
	pt_auto_buf url = PT_BUF_INIT(8192);
	pt_auto_answer gone = PT_CTL_ANSWER_INIT;
	struct pt_err late;
	int rc;

	if (!path && pt_ctl_json(c))
		return pt_ctl_out_json(a, err);
	if (!path) {
		fprintf(stderr,
			"This is shown once; keep it where only its user can read it. Revoke it with: postern ctl %s revoke %s\n",
			collection, id);
		return pt_ctl_out(secret, err);
	}
	rc = pt_buf_done(secret, err);
	if (rc >= 0)
		rc = pt_file_replace(path, secret->p, secret->len, 0600, err);
	if (rc >= 0)
		return pt_ctl_say(err, "%s written to %s\n", id, path);
	(void)pt_ctl_path(&url, collection, id, "");
	if (pt_ctl_call(api, &(struct pt_ctl_call) { .method = "DELETE", .path = url.p }, &gone, &late) < 0)
		return pt_hint(err, "its secret is lost: postern ctl %s revoke %s", collection, id);
	return pt_hint(err, "%s was revoked again", id);
}
