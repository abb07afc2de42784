/* ctl agents and ctl keys. */
#include "ctl/ctl.h"
#include "ctl/secret.h"
#include <stdio.h>

struct conf {
	struct pt_ctl_conf c;
	const char *name, *kind, *agent, *output_file;
	int64_t expires_ms;
	bool force;
};

static const char *const kinds[] = { "generic", NULL };
#define AGENT_OPT                                                                                                  \
	PT_O(struct conf, name, "agent", PT_OPT_STR, .flags = PT_OPT_POSITIONAL | PT_OPT_REQUIRED | PT_OPT_NO_ENV, \
	     .value = "AGENT", .help = "its name or id")

static const struct pt_opt list_opts[] = { PT_CTL_OPTS(struct pt_ctl_plain) };
static const struct pt_opt agent_opts[] = { AGENT_OPT, PT_CTL_OPTS(struct conf) };
static const struct pt_opt create_opts[] = {
	PT_O(struct conf, name, "name", PT_OPT_STR, .flags = PT_OPT_POSITIONAL | PT_OPT_REQUIRED | PT_OPT_NO_ENV, .value = "NAME",
	     .help = "name of the agent, for people"),
	PT_O(struct conf, kind, "kind", PT_OPT_ENUM, .flags = PT_OPT_NO_ENV, .def = "generic", .values = kinds,
	     .help = "what it does"),
	PT_CTL_OPTS(struct conf),
};
static const struct pt_opt delete_opts[] = {
	AGENT_OPT,
	PT_O(struct conf, force, "force", PT_OPT_BOOL, .flags = PT_OPT_NO_ENV, .help = "cancel its open operations first"),
	PT_CTL_OPTS(struct conf),
};

static void show_connected(const json_t *v, struct pt_buf *out)
{
	size_t n = json_array_size(v);

	if (n)
		pt_buf_fmt(out, "%zu instance%s", n, n == 1 ? "" : "s");
	else
		pt_buf_str(out, "no");
}

static const struct pt_ctl_col agent_cols[] = {
	{ "NAME", "name" },
	{ "KIND", "kind" },
	{ "ENABLED", "enabled", pt_ctl_show_yes },
	{ "CONNECTED", "instances", show_connected },
	{ "ID", "id" },
	{ "CREATED", "created_at", pt_ctl_show_time },
};

static int agents_list(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	return pt_ctl_run_list(cmd, argc, argv, "/api/v1/agents", agent_cols, PT_COUNT(agent_cols),
			       "no agents yet: postern ctl agents create NAME", err);
}

static int agents_create(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	struct conf s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	pt_auto_buf start = PT_BUF_INIT(16384);
	json_t *body;
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	body = json_pack("{s:s, s:s}", "name", s.name, "kind", s.kind);
	rc = pt_ctl_post(api, "/api/v1/agents", body, NULL, &a, err);
	if (rc < 0)
		return rc;
	if (pt_ctl_json(&s.c))
		return pt_ctl_out_json(&a, err);
	pt_ctl_api_agent(api, &start);
	rc = pt_buf_done(&start, err);
	if (rc < 0)
		return rc;
	return pt_ctl_say(err,
			  "created agent %s (%s), not enabled yet\nNext:\n"
			  "  postern ctl keys create --agent %s --output-file token.json\n"
			  "  postern ctl agents enable %s\n"
			  "and where the agent runs:\n"
			  "  %s\n",
			  s.name, pt_ctl_text(a.doc, "id"), s.name, s.name, start.p);
}

static int agents_show(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	static const struct pt_ctl_col fields[] = {
		{ "name", "name" },
		{ "id", "id" },
		{ "kind", "kind" },
		{ "enabled", "enabled", pt_ctl_show_yes },
		{ "created", "created_at", pt_ctl_show_time },
		{ "connected", "instances", show_connected },
		{ "last seen", "last_seen_at", pt_ctl_show_time },
	};
	static const struct pt_ctl_col instances[] = {
		{ "INSTANCE", "id" },
		{ "HOST", "hostname" },
		{ "VERSION", "version" },
		{ "SLOTS", "slots", .right = true },
		{ "BUSY", "holding", .right = true },
		{ "DRAINING", "draining", pt_ctl_show_yes },
		{ "SINCE", "connected_at", pt_ctl_show_time },
		{ "LAST SEEN", "last_seen_at", pt_ctl_show_time },
	};
	struct conf s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	pt_auto_buf path = PT_BUF_INIT(8192), out = PT_BUF_INIT(16u << 20);
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	rc = pt_ctl_get_path(api, &a, err, "%s", pt_ctl_path(&path, "agents", s.name, ""));
	if (rc < 0)
		return rc;
	if (pt_ctl_json(&s.c))
		return pt_ctl_out_json(&a, err);
	pt_ctl_fields(a.doc, fields, PT_COUNT(fields), &out);
	pt_buf_chr(&out, '\n');
	if (!pt_ctl_items(json_object_get(a.doc, "instances"), instances, PT_COUNT(instances), &out)) {
		pt_buf_str(&out, "No instance is connected. Start one: ");
		pt_ctl_api_agent(api, &out);
		pt_buf_chr(&out, '\n');
	}
	return pt_ctl_out(&out, err);
}

static int agent_act(const struct pt_command *cmd, int argc, char **argv, const char *method, const char *rest, const char *done,
		     struct pt_err *err)
{
	struct conf s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_buf path = PT_BUF_INIT(8192);
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	return pt_ctl_act(&s.c, api, method, pt_ctl_path(&path, "agents", s.name, s.force ? "?force=true" : rest), err, "%s %s",
			  done, s.name);
}

static int agents_enable(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	return agent_act(cmd, argc, argv, "POST", "/enable", "enabled agent", err);
}

static int agents_disable(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	return agent_act(cmd, argc, argv, "POST", "/disable", "disabled agent", err);
}

static int agents_delete(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	return agent_act(cmd, argc, argv, "DELETE", "", "deleted agent", err);
}

const struct pt_command pt_ctl_agents[] = {
	PT_CTL_COMMAND("ctl agents create", agents_create, create_opts, "register an agent"),
	PT_CTL_COMMAND("ctl agents list", agents_list, list_opts, "list agents"),
	PT_CTL_COMMAND("ctl agents show", agents_show, agent_opts, "show an agent and its connected instances"),
	PT_CTL_COMMAND("ctl agents logs", pt_ctl_agent_logs, pt_ctl_agent_logs_opts, "show what an agent's instances logged",
		       .text = pt_ctl_logs_text),
	PT_CTL_COMMAND("ctl agents enable", agents_enable, agent_opts, "let an agent have work"),
	PT_CTL_COMMAND("ctl agents disable", agents_disable, agent_opts, "give an agent no more work; it stays connected"),
	PT_CTL_COMMAND("ctl agents delete", agents_delete, delete_opts, "delete an agent, its keys and integrations"),
	{ 0 },
};

/* --- keys --- */

#define OF_AGENT_OPT                                                                                              \
	PT_O(struct conf, agent, "agent", PT_OPT_STR, .flags = PT_OPT_REQUIRED | PT_OPT_NO_ENV, .value = "AGENT", \
	     .help = "name or id of the agent")

static const struct pt_opt key_create_opts[] = {
	OF_AGENT_OPT,
	PT_O(struct conf, name, "name", PT_OPT_STR, .flags = PT_OPT_NO_ENV, .def = "ctl", .value = "NAME",
	     .help = "what it is for"),
	PT_O(struct conf, expires_ms, "expires", PT_OPT_DURATION, .flags = PT_OPT_NO_ENV, .value = "TIME",
	     .help = "ends by itself after this time (90d); default: never"),
	PT_O(struct conf, output_file, "output-file", PT_OPT_STR, .flags = PT_OPT_NO_ENV, .value = "FILE",
	     .help = "write key_id and key_secret to this new file, readable by you alone: the agent's --token-file"),
	PT_CTL_OPTS(struct conf),
};
static const struct pt_opt key_list_opts[] = { OF_AGENT_OPT, PT_CTL_OPTS(struct conf) };
static const struct pt_opt key_opts[] = {
	PT_O(struct conf, name, "key", PT_OPT_STR, .flags = PT_OPT_POSITIONAL | PT_OPT_REQUIRED | PT_OPT_NO_ENV,
	     .value = "KEY_ID", .help = "id of the key"),
	PT_CTL_OPTS(struct conf),
};

static int keys_create(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	struct conf s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	pt_auto_buf path = PT_BUF_INIT(8192), secret = PT_BUF_INIT(65536);
	const char *id, *key;
	json_t *body;
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	rc = pt_ctl_secret_place(s.output_file, err);
	if (rc < 0)
		return rc;
	body = json_pack("{s:s}", "name", s.name);
	if (s.expires_ms)
		(void)json_object_set_new(body, "expires_in_s", json_integer(s.expires_ms / 1000));
	rc = pt_ctl_post(api, pt_ctl_path(&path, "agents", s.agent, "/keys"), body, NULL, &a, err);
	if (rc < 0)
		return rc;
	id = pt_ctl_text(a.doc, "key_id");
	key = pt_ctl_text(a.doc, "key_secret");
	pt_buf_str(&secret, "{\"key_id\": ");
	pt_buf_json(&secret, id, strlen(id));
	pt_buf_str(&secret, ", \"key_secret\": ");
	pt_buf_json(&secret, key, strlen(key));
	pt_buf_str(&secret, "}\n");
	rc = pt_ctl_secret_give(&s.c, api, &a, &secret, s.output_file, "keys", id, err);
	explicit_bzero(secret.p, secret.len);
	return rc;
}

static int keys_list(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	static const struct pt_ctl_col cols[] = {
		{ "KEY ID", "key_id" },
		{ "NAME", "name" },
		{ "CREATED", "created_at", pt_ctl_show_time },
		{ "EXPIRES", "expires_at", pt_ctl_show_time },
	};
	struct conf s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	pt_auto_buf path = PT_BUF_INIT(8192);
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	rc = pt_ctl_get_path(api, &a, err, "%s", pt_ctl_path(&path, "agents", s.agent, "/keys"));
	return rc < 0 ? rc : pt_ctl_list(&s.c, &a, cols, PT_COUNT(cols), "no keys", err);
}

static int keys_revoke(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	struct conf s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_buf path = PT_BUF_INIT(8192);
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	return pt_ctl_act(&s.c, api, "DELETE", pt_ctl_path(&path, "keys", s.name, ""), err, "revoked key %s", s.name);
}

const struct pt_command pt_ctl_keys[] = {
	PT_CTL_COMMAND(
		"ctl keys create", keys_create, key_create_opts, "make a key for an agent; its secret is shown once",
		.text = "Several keys of an agent may be valid at once: make the new one, give it to the agent, revoke\n"
			"the old one."),
	PT_CTL_COMMAND("ctl keys list", keys_list, key_list_opts, "list an agent's keys (never their secret)"),
	PT_CTL_COMMAND("ctl keys revoke", keys_revoke, key_opts, "end a key; it fails with the next request"),
	{ 0 },
};
