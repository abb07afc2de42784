/* ctl integrations: data sources, and where the agent finds their credentials. */
#include "ctl/ctl.h"
#include "base/clock.h"
#include "base/id.h"
#include <stdio.h>

struct conf {
	struct pt_ctl_conf c;
	const char *name, *connection_type, *credential_type, *file_path, *env_var_name, *agent;
	int64_t timeout_ms;
};

static const char *const credential_types[] = { "FILE", "ENV_VAR", NULL };
static const struct pt_opt list_opts[] = { PT_CTL_OPTS(struct pt_ctl_plain) };
#define NAME_OPT                                                                                                         \
	PT_O(struct conf, name, "integration", PT_OPT_STR, .flags = PT_OPT_POSITIONAL | PT_OPT_REQUIRED | PT_OPT_NO_ENV, \
	     .value = "NAME", .help = "its name or id")
static const struct pt_opt one_opts[] = { NAME_OPT, PT_CTL_OPTS(struct conf) };
static const struct pt_opt test_opts[] = {
	NAME_OPT,
	PT_O(struct conf, timeout_ms, "timeout", PT_OPT_DURATION, .flags = PT_OPT_NO_ENV, .def = "60s", .value = "TIME",
	     .min = 1000, .max = 3600000, .help = "give up after this time"),
	PT_CTL_OPTS(struct conf),
};
static const struct pt_opt add_opts[] = {
	PT_O(struct conf, connection_type, "connection-type", PT_OPT_STR, .flags = PT_OPT_REQUIRED | PT_OPT_NO_ENV,
	     .value = "TYPE", .help = "kind of data source: postgres, sqlite"),
	PT_O(struct conf, credential_type, "self-hosted-credentials-type", PT_OPT_ENUM, .flags = PT_OPT_REQUIRED | PT_OPT_NO_ENV,
	     .values = credential_types, .help = "where the agent finds the credentials"),
	PT_O(struct conf, file_path, "file-path", PT_OPT_STR, .flags = PT_OPT_NO_ENV, .value = "PATH",
	     .help = "FILE: path as the agent sees it, below /etc/secrets/integrations unless the agent allows others"),
	PT_O(struct conf, env_var_name, "env-var-name", PT_OPT_STR, .flags = PT_OPT_NO_ENV, .value = "NAME",
	     .help = "ENV_VAR: variable in the agent's environment; its name begins with POSTERN_CREDENTIAL_ or MCD_"),
	PT_O(struct conf, name, "name", PT_OPT_STR, .flags = PT_OPT_REQUIRED | PT_OPT_NO_ENV, .value = "NAME",
	     .help = "name of the integration"),
	PT_O(struct conf, agent, "agent", PT_OPT_STR, .flags = PT_OPT_NO_ENV, .value = "AGENT",
	     .help = "name or id of the agent next to the data; default: the only one there is"),
	PT_CTL_OPTS(struct conf),
};

/* The account's only agent.  The text belongs to agents. */
static int only_agent(struct pt_ctl_api *api, struct pt_ctl_answer *agents, const char **ret, struct pt_err *err)
{
	pt_auto_buf names = PT_BUF_INIT(200);
	const json_t *items;
	size_t n;
	int rc = pt_ctl_get_path(api, agents, err, "/api/v1/agents");

	if (rc < 0)
		return rc;
	items = json_object_get(agents->doc, "items");
	n = json_array_size(items);
	if (n == 1) {
		*ret = pt_ctl_text(json_array_get(items, 0), "id");
		return PT_OK;
	}
	for (size_t i = 0; i < n; i++)
		pt_buf_fmt(&names, "%s%s", i ? ", " : "", pt_ctl_text(json_array_get(items, i), "name"));
	(void)pt_fail(err, PT_E_INVALID, n ? "which of the %zu agents is next to this data?" : "there is no agent yet", n);
	return n ? pt_hint(err, "--agent with one of: %s", names.p) : pt_hint(err, "postern ctl agents create NAME");
}

static int add(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	struct conf s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_answer agents = PT_CTL_ANSWER_INIT, a = PT_CTL_ANSWER_INIT;
	bool file;
	json_t *body;
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	file = strcmp(s.credential_type, "FILE") == 0;
	if (!(file ? s.file_path : s.env_var_name) || (file ? s.env_var_name : s.file_path))
		return pt_fail(err, PT_E_INVALID, "--self-hosted-credentials-type %s goes with %s, not with %s", s.credential_type,
			       file ? "--file-path" : "--env-var-name", file ? "--env-var-name" : "--file-path");
	if (!s.agent)
		rc = only_agent(api, &agents, &s.agent, err);
	if (rc < 0)
		return rc;
	body = json_pack("{s:s, s:s, s:s, s:{s:s, s:s}}", "name", s.name, "connection_type", s.connection_type, "agent", s.agent,
			 "credential", "type", s.credential_type, file ? "file_path" : "env_var_name",
			 file ? s.file_path : s.env_var_name);
	rc = pt_ctl_post(api, "/api/v1/integrations", body, NULL, &a, err);
	if (rc < 0)
		return rc;
	if (pt_ctl_json(&s.c))
		return pt_ctl_out_json(&a, err);
	return pt_ctl_say(err, "added integration %s (%s)\nNext:\n  postern ctl integrations test %s\n", s.name,
			  pt_ctl_text(a.doc, "id"), s.name);
}

/* Where the agent finds the credentials: the path or the variable. */
static void show_place(const json_t *in, struct pt_buf *out)
{
	const json_t *path = pt_ctl_get(in, "credential.file_path");

	pt_ctl_show_text(path ? path : pt_ctl_get(in, "credential.env_var_name"), out);
}

static int list(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	static const struct pt_ctl_col cols[] = {
		{ "NAME", "name" },
		{ "TYPE", "connection_type" },
		{ "AGENT", "agent_name" },
		{ "CREDENTIALS", "credential.type" },
		{ "PLACE", "", show_place, .max_width = 60 },
		{ "ID", "id" },
		{ "CREATED", "created_at", pt_ctl_show_time },
	};

	return pt_ctl_run_list(cmd, argc, argv, "/api/v1/integrations", cols, PT_COUNT(cols),
			       "no integrations yet: postern ctl integrations add-self-hosted-credentials-v2 --help", err);
}

static int get(struct pt_ctl_api *api, const char *name, struct pt_ctl_answer *ret, struct pt_err *err)
{
	pt_auto_buf path = PT_BUF_INIT(8192);

	return pt_ctl_get_path(api, ret, err, "%s", pt_ctl_path(&path, "integrations", name, ""));
}

static int show(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	static const struct pt_ctl_col fields[] = {
		{ "name", "name" },
		{ "id", "id" },
		{ "connection type", "connection_type" },
		{ "agent", "agent_name" },
		{ "credentials", "credential.type" },
		{ "file", "credential.file_path" },
		{ "variable", "credential.env_var_name" },
		{ "created", "created_at", pt_ctl_show_time },
	};
	struct conf s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	pt_auto_buf out = PT_BUF_INIT(1 << 20);
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	rc = get(api, s.name, &a, err);
	if (rc < 0)
		return rc;
	if (pt_ctl_json(&s.c))
		return pt_ctl_out_json(&a, err);
	pt_ctl_fields(a.doc, fields, PT_COUNT(fields), &out);
	return pt_ctl_out(&out, err);
}

static int delete_one(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	struct conf s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_buf path = PT_BUF_INIT(8192);
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	return pt_ctl_act(&s.c, api, "DELETE", pt_ctl_path(&path, "integrations", s.name, ""), err, "deleted integration %s",
			  s.name);
}

/* Test: a query that touches no data, through the whole path to the source. */
static int test(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	struct conf s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_answer in = PT_CTL_ANSWER_INIT, op = PT_CTL_ANSWER_INIT;
	char key[PT_ID_SIZE], took[32], *id;
	int64_t begin;
	json_t *body;
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	rc = get(api, s.name, &in, err);
	if (rc < 0)
		return rc;
	begin = pt_mono_ms();
	pt_id_new(key, "test");
	body = json_pack("{s:s, s:s, s:{s:s}, s:{s:I, s:I}, s:I, s:i, s:i}", "type", "query", "integration",
			 pt_ctl_text(in.doc, "id"), "input", "sql", "SELECT 1", "limits", "timeout_ms", (json_int_t)s.timeout_ms,
			 "max_rows", (json_int_t)1, "deadline_s", (json_int_t)((s.timeout_ms + 999) / 1000), "max_attempts", 1,
			 "priority", 9);
	rc = pt_ctl_post(api, "/api/v1/operations", body, key, &op, err);
	if (rc < 0)
		return rc;
	id = strdup(pt_ctl_text(op.doc, "id"));
	rc = id ? pt_ctl_wait(api, id, &op, err) : pt_fail_oom(err);
	free(id);
	if (rc >= 0 && pt_ctl_json(&s.c))
		rc = pt_ctl_out_json(&op, err);
	if (rc >= 0)
		rc = pt_ctl_outcome(op.doc, err);
	if (rc < 0 || pt_ctl_json(&s.c))
		return rc;
	pt_time_span(pt_mono_ms() - begin, took);
	return pt_ctl_say(err, "ok: %s answers (%s by agent %s, %s)\n", s.name, pt_ctl_text(in.doc, "connection_type"),
			  pt_ctl_text(op.doc, "agent_name"), took);
}

static const char add_text[] =
	"Tells the gateway that the data source exists and where the agent finds its credentials. The\n"
	"credentials themselves stay in the agent's network: a JSON document {\"connect_args\": {…}} in a\n"
	"file or a variable there, with the arguments that the connection type takes.\n"
	"\n"
	"  postern ctl integrations add-self-hosted-credentials-v2 --connection-type postgres \\\n"
	"      --self-hosted-credentials-type FILE --name sales \\\n"
	"      --file-path /etc/secrets/integrations/sales.json";

const struct pt_command pt_ctl_integrations[] = {
	PT_CTL_COMMAND("ctl integrations add-self-hosted-credentials-v2", add, add_opts,
		       "add a data source whose credentials stay in the agent's network", .text = add_text),
	PT_CTL_COMMAND("ctl integrations list", list, list_opts, "list integrations"),
	PT_CTL_COMMAND("ctl integrations show", show, one_opts, "show an integration"),
	PT_CTL_COMMAND("ctl integrations test", test, test_opts, "ask the data source a question through its agent",
		       .text = "Prints ok and exits 0, or says what is wrong: no agent, no credentials, no network, a refused "
			       "password."),
	PT_CTL_COMMAND("ctl integrations delete", delete_one, one_opts, "delete an integration"),
	{ 0 },
};
