/* ctl users and ctl tokens. */
#include "ctl/ctl.h"
#include "ctl/secret.h"
#include <stdio.h>

struct conf {
	struct pt_ctl_conf c;
	const char *name, *role, *user, *output_file;
	int64_t expires_ms;
};

static const char *const roles[] = { "viewer", "operator", "owner", NULL };
static const struct pt_opt list_opts[] = { PT_CTL_OPTS(struct pt_ctl_plain) };
static const struct pt_opt id_opts[] = {
	PT_O(struct conf, name, "id", PT_OPT_STR, .flags = PT_OPT_POSITIONAL | PT_OPT_REQUIRED | PT_OPT_NO_ENV, .value = "ID",
	     .help = "its id (see list)"),
	PT_CTL_OPTS(struct conf),
};
static const struct pt_opt user_create_opts[] = {
	PT_O(struct conf, name, "name", PT_OPT_STR, .flags = PT_OPT_POSITIONAL | PT_OPT_REQUIRED | PT_OPT_NO_ENV, .value = "NAME",
	     .help = "name of the user"),
	PT_O(struct conf, role, "role", PT_OPT_ENUM, .flags = PT_OPT_NO_ENV, .def = "viewer", .values = roles,
	     .help = "viewer sees, operator also runs operations, owner also manages agents, keys and users"),
	PT_CTL_OPTS(struct conf),
};
static const struct pt_opt token_create_opts[] = {
	PT_O(struct conf, user, "user", PT_OPT_STR, .flags = PT_OPT_NO_ENV, .value = "USER",
	     .help = "name or id of the user; default: yourself"),
	PT_O(struct conf, name, "name", PT_OPT_STR, .flags = PT_OPT_NO_ENV, .def = "ctl", .value = "NAME",
	     .help = "what it is for"),
	PT_O(struct conf, expires_ms, "expires", PT_OPT_DURATION, .flags = PT_OPT_NO_ENV, .value = "TIME",
	     .help = "ends by itself after this time (90d); default: never"),
	PT_O(struct conf, output_file, "output-file", PT_OPT_STR, .flags = PT_OPT_NO_ENV, .value = "FILE",
	     .help = "write the token to this new file, readable by you alone, in place of showing it"),
	PT_CTL_OPTS(struct conf),
};

static int delete_one(const struct pt_command *cmd, int argc, char **argv, const char *collection, const char *done,
		      struct pt_err *err)
{
	struct conf s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_buf path = PT_BUF_INIT(8192);
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	return pt_ctl_act(&s.c, api, "DELETE", pt_ctl_path(&path, collection, s.name, ""), err, "%s %s", done, s.name);
}

/* --- users --- */

static int users_list(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	static const struct pt_ctl_col cols[] = {
		{ "NAME", "name" },
		{ "ROLE", "role" },
		{ "ID", "id" },
		{ "CREATED", "created_at", pt_ctl_show_time },
	};

	return pt_ctl_run_list(cmd, argc, argv, "/api/v1/users", cols, PT_COUNT(cols), "no users", err);
}

static int users_create(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	struct conf s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	json_t *body;
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	body = json_pack("{s:s, s:s}", "name", s.name, "role", s.role);
	rc = pt_ctl_post(api, "/api/v1/users", body, NULL, &a, err);
	if (rc < 0)
		return rc;
	if (pt_ctl_json(&s.c))
		return pt_ctl_out_json(&a, err);
	return pt_ctl_say(
		err, "created user %s (%s) with role %s\nNext:\n  postern ctl tokens create --user %s --output-file %s.token\n",
		s.name, pt_ctl_text(a.doc, "id"), s.role, s.name, s.name);
}

static int users_delete(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	return delete_one(cmd, argc, argv, "users", "deleted user and revoked the tokens of", err);
}

const struct pt_command pt_ctl_users[] = {
	PT_CTL_COMMAND("ctl users create", users_create, user_create_opts, "add a user"),
	PT_CTL_COMMAND("ctl users list", users_list, list_opts, "list users"),
	PT_CTL_COMMAND("ctl users delete", users_delete, id_opts, "delete a user and revoke the user's tokens"),
	{ 0 },
};

/* --- tokens --- */

static int tokens_list(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	static const struct pt_ctl_col cols[] = {
		{ "ID", "id" },
		{ "NAME", "name" },
		{ "USER", "user" },
		{ "CREATED", "created_at", pt_ctl_show_time },
		{ "EXPIRES", "expires_at", pt_ctl_show_time },
	};

	return pt_ctl_run_list(cmd, argc, argv, "/api/v1/tokens", cols, PT_COUNT(cols), "no tokens", err);
}

static int tokens_create(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	struct conf s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_answer me = PT_CTL_ANSWER_INIT, a = PT_CTL_ANSWER_INIT;
	pt_auto_buf secret = PT_BUF_INIT(65536);
	json_t *body;
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	rc = pt_ctl_secret_place(s.output_file, err);
	if (rc >= 0 && !s.user)
		rc = pt_ctl_get_path(api, &me, err, "/api/v1/whoami");
	if (rc < 0)
		return rc;
	body = json_pack("{s:s, s:s}", "user", s.user ? s.user : pt_ctl_text(me.doc, "user"), "name", s.name);
	if (s.expires_ms)
		(void)json_object_set_new(body, "expires_in_s", json_integer(s.expires_ms / 1000));
	rc = pt_ctl_post(api, "/api/v1/tokens", body, NULL, &a, err);
	if (rc < 0)
		return rc;
	pt_buf_fmt(&secret, "%s\n", pt_ctl_text(a.doc, "token"));
	rc = pt_ctl_secret_give(&s.c, api, &a, &secret, s.output_file, "tokens", pt_ctl_text(a.doc, "id"), err);
	explicit_bzero(secret.p, secret.len);
	return rc;
}

static int tokens_revoke(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	return delete_one(cmd, argc, argv, "tokens", "revoked token", err);
}

const struct pt_command pt_ctl_tokens[] = {
	PT_CTL_COMMAND("ctl tokens create", tokens_create, token_create_opts, "make an API token; it is shown once"),
	PT_CTL_COMMAND("ctl tokens list", tokens_list, list_opts, "list tokens (never their secret)"),
	PT_CTL_COMMAND("ctl tokens revoke", tokens_revoke, id_opts, "end a token"),
	{ 0 },
};
