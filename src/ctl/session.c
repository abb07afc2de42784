/* ctl login, whoami, and the table of all ctl commands. */
#include "ctl/ctl.h"
#include "os/file.h"
#include <termios.h>
#include <fcntl.h>

enum { TOKEN_MAX = 16384, CTRL_C = 3 };

/* --- login --- */

static int no_token(struct pt_err *err)
{
	(void)pt_fail(err, PT_E_INVALID, "no API token was given");
	return pt_hint(err, "the gateway prints the owner's token at its first start; more: postern ctl tokens create");
}

/* Ask on the terminal, without showing what is typed. */
static int prompt_token(const char *url, struct pt_buf *out, struct pt_err *err)
{
	pt_auto(pt_closep) int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	struct termios old, quiet;
	char c;
	ssize_t n = 0;

	if (fd < 0 || tcgetattr(fd, &old) < 0)
		return no_token(err);
	quiet = old;
	quiet.c_lflag &= ~(tcflag_t)(ECHO | ISIG); /* without ISIG no key can end us while the terminal is mute */
	quiet.c_cc[VEOL] = CTRL_C;		   /* a line ends with it, so that it is read at once */
	(void)tcsetattr(fd, TCSAFLUSH, &quiet);
	dprintf(fd, "API token for %s: ", url);
	while ((n = read(fd, &c, 1)) == 1 && c != '\n' && c != '\r' && c != CTRL_C)
		pt_buf_chr(out, c);
	(void)tcsetattr(fd, TCSAFLUSH, &old);
	dprintf(fd, "\n");
	if (n == 1 && c == CTRL_C)
		return pt_fail(err, PT_E_CANCELLED, "login was interrupted");
	return out->len ? pt_buf_done(out, err) : no_token(err);
}

/* From the file, the variable, standard input or the terminal, in this order. */
static int find_token(const struct pt_ctl_target *t, struct pt_buf *out, struct pt_err *err)
{
	if (t->token_file)
		return pt_ctl_token_file(t->token_file, out, err);
	if (t->token)
		pt_buf_str(out, t->token);
	else if (isatty(STDIN_FILENO))
		return prompt_token(t->url, out, err);
	else
		return pt_ctl_token_file("/dev/stdin", out, err);
	return pt_buf_done(out, err);
}

static int save_login(const struct pt_ctl_target *t, const char *token, struct pt_buf *path, struct pt_err *err)
{
	pt_auto_buf text = PT_BUF_INIT(2 << 20), dir = PT_BUF_INIT(8192);
	pt_auto(pt_freep) char *ca = t->ca ? realpath(t->ca, NULL) : NULL; /* found from every folder; base64 stays what it is */
	struct pt_ctl_login l = { .url = (char *)t->url, .token = (char *)token, .ca_file = ca ? ca : (char *)t->ca };
	int rc = pt_ctl_login_path(t, path, err);
	const char *slash = rc >= 0 ? strrchr(path->p, '/') : NULL;

	if (rc >= 0 && slash && slash > path->p) {
		pt_buf_add(&dir, path->p, (size_t)(slash - path->p));
		rc = pt_mkdirs(dir.p, err);
	}
	if (rc < 0)
		return rc;
	pt_shape_write(&pt_ctl_login_shape, &l, &text);
	pt_buf_chr(&text, '\n');
	rc = pt_buf_done(&text, err);
	if (rc >= 0)
		rc = pt_file_replace(path->p, text.p, text.len, 0600, err);
	explicit_bzero(text.p, text.len);
	return rc;
}

static int run_login(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	struct pt_ctl_plain s = { 0 };
	pt_auto_buf token = PT_BUF_INIT(TOKEN_MAX), path = PT_BUF_INIT(8192);
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	int rc = pt_opt_parse(pt_opt_root, cmd, argc, argv, &s, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	if (!s.c.target.url) {
		(void)pt_fail(err, PT_E_INVALID, "login to which gateway?");
		return pt_hint(err, "postern ctl login --url https://gateway.example.com");
	}
	rc = find_token(&s.c.target, &token, err);
	if (rc < 0)
		return rc;
	/* the token counts before it is kept: what is stored works */
	rc = pt_ctl_api_open(&api,
			     &(struct pt_ctl_target) { .url = s.c.target.url,
						       .token = token.p,
						       .ca = s.c.target.ca,
						       .config = s.c.target.config,
						       .https_proxy = s.c.target.https_proxy,
						       .http_proxy = s.c.target.http_proxy,
						       .no_proxy = s.c.target.no_proxy },
			     err);
	if (rc >= 0)
		rc = pt_ctl_get_path(api, &a, err, "/api/v1/whoami");
	if (rc >= 0)
		rc = save_login(&s.c.target, token.p, &path, err);
	explicit_bzero(token.p, token.len);
	if (rc < 0)
		return rc;
	if (pt_ctl_json(&s.c))
		return pt_ctl_out_json(&a, err);
	return pt_ctl_say(err, "logged in to %s as %s (%s of account %s); stored in %s\n", pt_ctl_api_url(api),
			  pt_ctl_text(a.doc, "name"), pt_ctl_text(a.doc, "role"), pt_ctl_text(a.doc, "account_name"), path.p);
}

static const struct pt_opt common_opts[] = { PT_CTL_OPTS(struct pt_ctl_plain) };

/* --- whoami --- */

static int run_whoami(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	static const struct pt_ctl_col cols[] = {
		{ "user", "name" },          { "user id", "user" }, { "role", "role" }, { "account", "account_name" },
		{ "account id", "account" },
	};
	struct pt_ctl_plain s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	pt_auto_buf out = PT_BUF_INIT(65536);
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	rc = pt_ctl_get_path(api, &a, err, "/api/v1/whoami");
	if (rc < 0)
		return rc;
	if (pt_ctl_json(&s.c))
		return pt_ctl_out_json(&a, err);
	pt_buf_fmt(&out, "gateway     %s\n", pt_ctl_api_url(api));
	pt_ctl_fields(a.doc, cols, PT_COUNT(cols), &out);
	return pt_ctl_out(&out, err);
}

static const char login_text[] =
	"Checks the token with the gateway and stores URL, token and CA file, readable by you alone. The\n"
	"token comes from --token-file, from POSTERN_API_TOKEN, from standard input, or is asked for on\n"
	"the terminal without showing it. A stored token is sent to the gateway it was stored for and to\n"
	"no other.\n"
	"\n"
	"  postern ctl login --url https://gateway.example.com --token-file owner-token\n"
	"  vault read -field=token secret/postern | postern ctl login --url https://gateway.example.com";

static const struct pt_command commands[] = {
	PT_CTL_COMMAND("ctl login", run_login, common_opts, "log in to a gateway and remember it", .text = login_text),
	PT_CTL_COMMAND("ctl whoami", run_whoami, common_opts, "show which user and role the token belongs to"),
	{ .name = "ctl users", .summary = "people and programs that may use the gateway", .sub = pt_ctl_users },
	{ .name = "ctl tokens", .summary = "API tokens of users", .sub = pt_ctl_tokens },
	{ .name = "ctl agents", .summary = "registered agents", .sub = pt_ctl_agents },
	{ .name = "ctl keys", .summary = "credentials of agents", .sub = pt_ctl_keys },
	{ .name = "ctl integrations",
	  .summary = "data sources, and where the agent finds their credentials",
	  .sub = pt_ctl_integrations },
	{ .name = "ctl operations", .summary = "run work next to the data, and follow it", .sub = pt_ctl_operations },
	{ 0 },
};

const struct pt_command pt_cmd_ctl = {
	.name = "ctl",
	.summary = "talk to a gateway: agents, keys, integrations, operations",
	.text = "Every command prints a table for people, or with -o json the API's answer for programs. Errors\n"
		"are on standard error and say what to do next.",
	.sub = commands,
};
