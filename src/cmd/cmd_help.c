/* postern help and postern version.  Everything is made from the command table: help, manual pages, completion, docs/cli.md. */
#include "agent/agent.h"
#include "cmd/cmd.h"
#include "config.h"
#include "gateway/gateway.h"
#include "os/usage.h"
#include <stdio.h>

struct conf {
	struct pt_opt_strs words;
	bool man, markdown, metrics;
	const char *shell;
};

static const char *const shells[] = { "bash", "zsh", NULL };
static const struct pt_opt opts[] = {
	PT_O(struct conf, words, "command", PT_OPT_STRS, .flags = PT_OPT_POSITIONAL, .value = "COMMAND",
	     .help = "the command to explain"),
	PT_O(struct conf, man, "man", PT_OPT_BOOL, .flags = PT_OPT_NO_ENV, .help = "write its manual page (mdoc)"),
	PT_O(struct conf, shell, "completion", PT_OPT_ENUM, .flags = PT_OPT_NO_ENV, .values = shells, .value = "SHELL",
	     .help = "write the completion script for bash or zsh"),
	PT_O(struct conf, markdown, "markdown", PT_OPT_BOOL, .flags = PT_OPT_NO_ENV,
	     .help = "write the reference of all commands (docs/cli.md)"),
	PT_O(struct conf, metrics, "metrics", PT_OPT_BOOL, .flags = PT_OPT_NO_ENV,
	     .help = "write the reference of all metrics (docs/metrics.md)"),
};

static void markdown(const struct pt_command *cmd, struct pt_buf *out)
{
	if (!cmd->sub || cmd->run) {
		pt_buf_fmt(out, "\n## postern %s\n\n```text\n", cmd->name);
		pt_opt_help(cmd, out);
		pt_buf_str(out, "```\n");
	}
	for (const struct pt_command *s = cmd->sub; s && s->name; s++)
		markdown(s, out);
}

static void metrics(struct pt_buf *out)
{
	pt_buf_str(
		out,
		"# Metrics\n\nWritten by `postern help --metrics` from the tables that the program writes them by; a test compares. "
		"The agent serves\nthem at `GET /metrics` of its local port without a login (`/actuator/prometheus` is the same), the "
		"gateway at `GET /metrics` with the\ntoken of a viewer; what it says about agents and dead letters is that of the "
		"token's account. A metric that has nothing to\nsay is absent. Counters start at 0 with the process. Rules, alerts and "
		"a dashboard: [deploy/prometheus](../deploy/prometheus),\n[deploy/grafana](../deploy/grafana); what to do: "
		"[runbook.md](runbook.md).\n");
	pt_metric_markdown(&pt_agent_metrics, out);
	pt_metric_markdown(&pt_gateway_metrics, out);
	pt_metric_markdown(&pt_process_metrics, out);
}

static int write_what(const struct conf *s, const struct pt_command *cmd, struct pt_buf *out, struct pt_err *err)
{
	pt_auto_buf path = PT_BUF_INIT(256);

	if (s->shell) {
		pt_opt_complete(pt_opt_root, s->shell, out);
	} else if (s->man) {
		pt_buf_fmt(&path, "postern%s%s", cmd->name[0] ? " " : "", cmd->name);
		pt_opt_man(cmd, path.p, out);
	} else if (s->markdown) {
		pt_buf_str(out, "# Commands\n\nWritten by `postern help --markdown` from the command table; a test "
				"compares.\n\n```text\n");
		pt_opt_help(pt_opt_root, out);
		pt_buf_str(out, "```\n");
		markdown(pt_opt_root, out);
	} else if (s->metrics) {
		metrics(out);
	} else {
		pt_opt_help(cmd, out);
	}
	return pt_buf_done(out, err);
}

static int run_help(const struct pt_command *self, int argc, char **argv, struct pt_err *err)
{
	pt_auto_buf out = PT_BUF_INIT(4 << 20);
	const struct pt_command *cmd = NULL;
	struct conf s = { 0 };
	size_t used = 0;
	int rc = pt_opt_parse(pt_opt_root, self, argc, argv, &s, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	rc = pt_cmd_find(s.words.n, (char *const *)s.words.v, &cmd, &used, err);
	if (rc >= 0 && used < s.words.n)
		rc = pt_fail(err, PT_E_INVALID, "`postern %s` has no commands of its own", cmd->name);
	if (rc >= 0)
		rc = write_what(&s, cmd, &out, err);
	if (rc < 0)
		return rc;
	return fwrite(out.p, 1, out.len, stdout) == out.len && fflush(stdout) == 0 ? PT_OK
										   : pt_fail_sys(err, PT_E_IO, "standard output");
}

static int run_version(const struct pt_command *self, int argc, char **argv, struct pt_err *err)
{
	struct conf s = { 0 };
	int rc = pt_opt_parse(pt_opt_root, self, argc, argv, &s, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	puts("postern " PT_VERSION);
	return PT_OK;
}

const struct pt_command pt_cmd_help = {
	.name = "help",
	.summary = "explain a command",
	.opts = opts,
	.n_opts = PT_COUNT(opts),
	.run = run_help,
};
const struct pt_command pt_cmd_version = {
	.name = "version",
	.summary = "show the version",
	.run = run_version,
};
