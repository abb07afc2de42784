/* storage: does the object storage that the settings name work from here? */
#include "base/clock.h"
#include "check/check_int.h"

enum { LIMIT_MS = 25000 }; /* below that of the check: the step that hangs is named, and the object removed */

void pt_check_storage(struct pt_check_ctx *c, struct pt_check_result *r)
{
	const struct pt_store_conf *conf = &c->conf->store;
	struct pt_http_client_conf http = pt_agent_http_conf(c->conf);
	pt_auto_buf at = PT_BUF_INIT(2048);
	struct pt_store_probe p = { .key = "" };
	struct pt_err err = { 0 };
	struct pt_cancel limit;
	int64_t us = 0;
	int rc;

	if (!conf->type || !*conf->type) {
		pt_check_skip(r, "no object storage is set (POSTERN_STORAGE)");
		return;
	}
	if (pt_store_conf_check(conf, &err) < 0) {
		pt_check_skip(r, "its settings are wrong, see environment");
		return;
	}
	pt_store_address(conf, &at);
	rc = pt_cancel_init(&limit, &err);
	if (rc == 0) {
		limit.deadline_ms = pt_mono_ms() + LIMIT_MS;
		rc = pt_store_probe(conf, &http, &limit, &p, &err);
		pt_cancel_release(&limit);
	}
	if (rc < 0) {
		/* a store that is away stops no agent, but what is set is meant to be used */
		pt_check_fail_err(r, &err, "docs/storage.md tells what each kind of storage needs.");
	} else {
		for (size_t i = 0; i < PT_STORE_STEPS; i++)
			us += p.took_us[i];
		pt_check_note(r, "%s can be written, read, listed and deleted (%lld ms)", at.p, (long long)us / 1000);
	}
	if (p.credentials)
		pt_check_note(r, "credentials from %s", p.credentials);
	if (p.access == PT_STORE_PUBLIC)
		pt_check_warn(r, "Block public access to the bucket: results may hold private data.", "anybody can read it: %s",
			      p.access_why);
	if (p.left)
		pt_check_warn(r, "Delete it, and give the agent the right to delete objects.",
			      "the probe object %s is still there", p.key);
}
