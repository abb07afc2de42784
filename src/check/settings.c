/* environment, integrations: what the agent was given. */
#include "agent/stop.h"
#include "check/check_int.h"
#include "credential/credential.h"
#include "os/file.h"
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

/* --- environment --- */

static void proxy_variables(struct pt_check_result *r)
{
	/* curl and others know a variable that we do not read, so somebody may believe that it is set. */
	const char *all = getenv("ALL_PROXY") ? getenv("ALL_PROXY") : getenv("all_proxy");

	if (all && *all)
		pt_check_warn(r, "Set HTTPS_PROXY and HTTP_PROXY instead.", "ALL_PROXY is set, and the agent does not read it");
}

void pt_check_environment(struct pt_check_ctx *c, struct pt_check_result *r)
{
	const struct pt_agent_conf *conf = c->conf;
	struct pt_stop_plan plan;
	struct pt_err ignored;

	for (size_t i = 0; i < c->mistakes.n; i++) {
		const struct pt_err *e = (const struct pt_err *)c->mistakes.items + i;

		if (c->mistakes.n == 1)
			pt_check_fail_err(r, e, "Correct it; `postern agent --help` lists the settings.");
		else /* each hint beside its mistake: in a row of fixes nobody knows what each is about */
			pt_check_fail(r, "Correct these; `postern agent --help` lists the settings.", "%s%s%s%s", e->msg,
				      *e->hint ? " (" : "", e->hint, *e->hint ? ")" : "");
	}
	proxy_variables(r);
	if (c->mistakes.n)
		return;
	pt_check_note(r, "%lld slots, %lld publishers", (long long)conf->slots, (long long)conf->publishers);
	if (pt_stop_plan_make(&plan, conf->stop_action, conf->stop_timeout_ms, conf->grace_s * 1000, &ignored) < 0)
		return; /* is one of the mistakes */
	if (pt_stop_plan_total(&plan) == INT64_MAX)
		pt_check_note(r, "a stop takes as long as operations take");
	else if (conf->grace_s)
		pt_check_note(r, "a stop takes up to %.3g s of %lld", (double)pt_stop_plan_total(&plan) / 1000,
			      (long long)conf->grace_s);
	else
		pt_check_note(r, "a stop takes up to %.3g s", (double)pt_stop_plan_total(&plan) / 1000);
	if (!conf->grace_s && pt_check_in_kubernetes())
		pt_check_warn(
			r,
			"Set POSTERN_TERMINATION_GRACE_SECONDS to the pod's terminationGracePeriodSeconds; the Helm chart does.",
			"POSTERN_TERMINATION_GRACE_SECONDS is not set, so nobody checks that a stop ends before the pod is killed");
}

/* --- integrations --- */

enum { DEPTH_MOST = 4, FILES_MOST = 500, PATH_MOST = 1024 };

struct found {
	struct pt_check_result *r;
	const struct pt_credential_conf *conf;
	size_t good, empty, bad, folders;
};

/* A placeholder that the chart mounts so that the folder exists: {} and nothing else. */
static bool placeholder(const char *path)
{
	pt_auto_buf b = PT_BUF_INIT(PT_CREDENTIAL_MAX + 1);
	struct pt_err ignored;
	json_t *j = NULL;
	bool empty;

	if (pt_file_read(path, &b, &ignored) < 0)
		return false;
	empty = b.len < 64 && pt_json_parse(b.p, b.len, &j, &ignored) == 0 && json_is_object(j) && !json_object_size(j);
	json_decref(j);
	explicit_bzero(b.p, b.len);
	return empty;
}

static void one_secret(struct found *f, const struct pt_credential_ref *ref, const char *path)
{
	pt_auto(pt_credential_releasep) json_t *args = NULL;
	struct pt_err err = { 0 };

	if (path && placeholder(path)) {
		f->empty++;
	} else if (pt_credential_connect_args(ref, f->conf, NULL, &args, &err) == 0) {
		f->good++;
	} else {
		f->bad++;
		pt_check_fail_err(f->r, &err, "The secret must be JSON {\"connect_args\": {…}} that the agent's user may read.");
	}
}

static void one_folder(struct found *f, const char *dir, int depth)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	if (!d) {
		if (errno != ENOENT)
			pt_check_fail(f->r, "Let the agent's user read and enter this folder.", "folder '%s': %s", dir,
				      strerror(errno));
		return;
	}
	f->folders++;
	while ((e = readdir(d)) && f->good + f->bad + f->empty < FILES_MOST) {
		struct pt_credential_ref ref = { .type = (char *)(uintptr_t) "FILE" };
		char path[PATH_MOST];
		size_t n = strlen(e->d_name);
		struct stat st;

		/* "..data" and its target are how Kubernetes swaps a mounted secret; its files are seen by their own names. */
		if (e->d_name[0] == '.' || snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) >= (int)sizeof(path))
			continue;
		if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
			if (depth < DEPTH_MOST)
				one_folder(f, path, depth + 1);
		} else if (n > 5 && strcmp(e->d_name + n - 5, ".json") == 0) {
			ref.file_path = path;
			one_secret(f, &ref, path);
		}
	}
	closedir(d);
}

/* POSTERN_CREDENTIAL_DIRS is no secret. */
static bool is_setting(const char *name)
{
	char env[64];

	for (size_t i = 0; i < pt_cmd_agent.n_opts; i++) {
		pt_opt_env_name(&pt_cmd_agent.opts[i], env);
		if (strcmp(env, name) == 0)
			return true;
	}
	return false;
}

static void variables(struct found *f)
{
	for (char **e = environ; e && *e; e++) {
		struct pt_credential_ref ref = { .type = (char *)(uintptr_t) "ENV_VAR" };
		const char *eq = strchr(*e, '=');
		char name[200];

		if (!eq || !eq[1] || strncmp(*e, "POSTERN_CREDENTIAL_", 19) != 0)
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)(eq - *e), *e);
		ref.env_var_name = name;
		if (!is_setting(name))
			one_secret(f, &ref, NULL);
	}
}

void pt_check_integrations(struct pt_check_ctx *c, struct pt_check_result *r)
{
	const struct pt_credential_conf conf = { .dirs = c->conf->credential_dirs };
	struct found f = { .r = r, .conf = &conf };

	for (const char *p = conf.dirs ? conf.dirs : ""; *p;) {
		size_t n = strcspn(p, ":");
		char dir[PATH_MOST];

		if (n && *p != '/')
			pt_check_fail(r, "Give --credential-dirs absolute folders, separated by colons.",
				      "'%.*s' is not absolute", (int)n, p);
		else if (n && snprintf(dir, sizeof(dir), "%.*s", (int)n, p) < (int)sizeof(dir))
			one_folder(&f, dir, 0);
		p += n + (p[n] == ':');
	}
	variables(&f);
	if (f.good)
		pt_check_note(r, "%zu %s fine", f.good, f.good == 1 ? "secret is" : "secrets are");
	if (f.empty)
		pt_check_note(r, "%zu empty {} (a placeholder: no integration can use it)", f.empty);
	if (!f.good && !f.empty && !f.bad)
		pt_check_note(r, f.folders ? "no secret is mounted yet" : "no folder of --credential-dirs is there yet");
}
