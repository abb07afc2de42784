#include "check/ask.h"
#include "net/http_client.h"
#include "net/url.h"
#include <stdio.h>

enum { PROBE_MS = 5000, REACH_MS = 30000, ANSWER_MAX = 256 * 1024 };

int pt_ask_url(const char *listen, const char *path, struct pt_buf *url, struct pt_err *err)
{
	char host[256];
	unsigned port;
	int rc;

	if (!listen || !*listen)
		return pt_fail(err, PT_E_INVALID, "--listen is empty: the agent has no local endpoints");
	rc = pt_hostport_parse(listen, host, &port, err);
	if (rc < 0)
		return pt_err_wrap(err, rc, "--listen");
	if (!port)
		return pt_fail(err, PT_E_INVALID, "--listen %s does not say which port the agent got", listen);
	if (strcmp(host, "::") == 0)
		pt_buf_str(url, "http://[::1]");
	else if (!*host || strcmp(host, "0.0.0.0") == 0)
		pt_buf_str(url, "http://127.0.0.1");
	else
		pt_buf_fmt(url, strchr(host, ':') ? "http://[%s]" : "http://%s", host);
	pt_buf_fmt(url, ":%u%s", port, path);
	return pt_buf_done(url, err);
}

int pt_ask(const char *listen, const char *method, const char *path, int timeout_ms, int *ret_status, struct pt_buf *out,
	   struct pt_err *err)
{
	struct pt_http_client_conf conf = { .user_agent = "postern-check", .connect_timeout_ms = timeout_ms };
	pt_auto(pt_http_client_freep) struct pt_http_client *client = NULL;
	pt_auto_buf url = PT_BUF_INIT(1024);
	struct pt_http_call call = { .method = method, .out = out, .timeout_ms = timeout_ms };
	int rc = pt_ask_url(listen, path, &url, err);

	if (rc == 0)
		rc = pt_http_client_new(&client, &conf, err);
	if (rc < 0)
		return rc;
	call.url = url.p;
	rc = pt_http_do(client, &call, err);
	if (rc == PT_E_CONNECT)
		(void)pt_hint(err, "no agent listens there: does it run, and with the same --listen (POSTERN_LISTEN)?");
	else if (rc == PT_E_TIMEOUT)
		(void)pt_hint(
			err, "something listens there and does not answer: an agent that hangs or is paused, or another program");
	if (rc == 0)
		*ret_status = call.status;
	return rc;
}

/* --- the commands --- */

struct conf {
	const char *listen;
};
static const struct pt_opt opts[] = {
	PT_O(struct conf, listen, "listen", PT_OPT_STR, .def = "0.0.0.0:8080", .value = "ADDRESS",
	     .help = "the agent's --listen; an address that means all is asked by loopback"),
};

static int refused(const struct pt_command *cmd, const struct pt_err *err)
{
	fprintf(stderr, "postern %s: %s\n", cmd->name, err->msg);
	if (*err->hint)
		fprintf(stderr, "  hint: %s\n", err->hint);
	return 1;
}

/* An answer of a probe that is no 200: {"ok": false, "reason": …, "hint": …}, or something else's. */
static void reason_of(int status, const struct pt_buf *body, struct pt_err *err)
{
	const char *reason, *hint;
	struct pt_err ignored;
	json_t *j = NULL;

	if (pt_json_parse(body->p, body->len, &j, &ignored) == 0 && (reason = json_string_value(json_object_get(j, "reason")))) {
		(void)pt_fail(err, PT_E_UNAVAILABLE, "%s", reason);
		hint = json_string_value(json_object_get(j, "hint"));
		if (hint)
			(void)pt_hint(err, "%s", hint);
	} else {
		(void)pt_fail(err, PT_E_PROTOCOL, "the answer has status %d and gives no reason: is it a Postern agent?", status);
	}
	json_decref(j);
}

static int parse(const struct pt_command *cmd, int argc, char **argv, struct conf *conf, struct pt_err *err)
{
	return pt_opt_parse(pt_opt_root, cmd, argc, argv, conf, err);
}

static int probe(const struct pt_command *cmd, int argc, char **argv, const char *path, struct pt_err *err)
{
	pt_auto_buf body = PT_BUF_INIT(ANSWER_MAX);
	struct conf conf = { 0 };
	int status = 0, rc = parse(cmd, argc, argv, &conf, err);

	if (rc != 0)
		return rc < 0 ? rc : PT_OK;
	rc = pt_ask(conf.listen, "GET", path, PROBE_MS, &status, &body, err);
	if (rc == 0 && status == 200)
		return PT_OK;
	if (rc == 0)
		reason_of(status, &body, err);
	return refused(cmd, err);
}

static int run_live(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	return probe(cmd, argc, argv, "/livez", err);
}

static int run_ready(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	return probe(cmd, argc, argv, "/readyz", err);
}

static int run_reachability(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	pt_auto_buf body = PT_BUF_INIT(ANSWER_MAX);
	struct conf conf = { 0 };
	struct pt_err ignored;
	json_t *j = NULL;
	int status = 0, rc = parse(cmd, argc, argv, &conf, err);
	bool reached;

	if (rc != 0)
		return rc < 0 ? rc : PT_OK;
	rc = pt_ask(conf.listen, "POST", "/api/v1/test/reachability", REACH_MS, &status, &body, err);
	if (rc == 0 && pt_json_parse(body.p, body.len, &j, &ignored) < 0)
		rc = pt_fail(err, PT_E_PROTOCOL, "the answer has status %d and is not JSON: is it a Postern agent?", status);
	if (rc < 0)
		return refused(cmd, err);
	reached = json_is_true(json_object_get(j, "ok"));
	json_decref(j);
	if (printf("%s\n", body.p) < 0 || fflush(stdout) != 0)
		return pt_fail_sys(err, PT_E_IO, "standard output");
	return reached ? PT_OK : 1;
}

const struct pt_command pt_check_probes[] = {
	{ .name = "check live",
	  .summary = "is the agent beside us alive?  Quiet when it is, else its reason; exit code 1",
	  .opts = opts,
	  .n_opts = PT_COUNT(opts),
	  .run = run_live },
	{ .name = "check ready",
	  .summary = "can the agent beside us take work?  Quiet when it can, else its reason; exit code 1",
	  .opts = opts,
	  .n_opts = PT_COUNT(opts),
	  .run = run_ready },
	{ .name = "check reachability",
	  .summary = "does the agent beside us reach its gateway?  Prints its JSON; exit code 1 unless \"ok\": true",
	  .opts = opts,
	  .n_opts = PT_COUNT(opts),
	  .run = run_reachability },
	{ 0 },
};
