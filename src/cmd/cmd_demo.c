/* postern demo: gateway and agent as two child processes on this machine, a real data source, one query through the whole path.
 * All it keeps is in one folder; a second start finds it again. */
#include "cmd/child.h"
#include "cmd/cmd.h"
#include "cmd/demo_data.h"
#include "base/clock.h"
#include "base/id.h"
#include "ctl/ctl.h"
#include "os/file.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>

enum { START_MS = 15000, QUERY_MS = 30000, STOP_MS = 8000, POLL_MS = 20, LOG_LINES = 15 };
enum { PATH_SIZE = 4096 };

#define QUERY                                                                                                                   \
	"SELECT name, version, round(installed_kb / 1024.0, 1) AS installed_mb FROM packages ORDER BY installed_kb DESC LIMIT " \
	"10"

struct conf {
	const char *dir;
	bool once;
};
static const struct pt_opt opts[] = {
	PT_O(struct conf, dir, "dir", PT_OPT_STR, .flags = PT_OPT_NO_ENV, .def = "./var", .value = "DIR",
	     .help = "folder that keeps everything"),
	PT_O(struct conf, once, "once", PT_OPT_BOOL, .flags = PT_OPT_NO_ENV, .help = "end after the query"),
};

/* What stands in the folder. */
enum file {
	LOCK,
	OWNER_TOKEN,
	GATEWAY_DB,
	GATEWAY_PORT,
	GATEWAY_LOG,
	AGENT_TOKEN,
	AGENT_PORT,
	AGENT_LOG,
	SPOOL,
	SECRETS,
	SECRET,
	DATA,
	FILES
};
static const char *const names[FILES] = {
	"lock",       "owner-token", "gateway.db", "gateway.port", "gateway.log",           "agent-token.json",
	"agent.port", "agent.log",   "spool",      "secrets",      "secrets/packages.json", "packages.db",
};

struct demo {
	char path[FILES][PATH_SIZE];
	char url[64], listen[32];
	struct pt_child gateway, agent;
	struct pt_ctl_api *api;
	int lock;
};

static void step(const char *what, const char *detail)
{
	fprintf(stderr, "%-10s %s\n", what, detail);
}

/* --- waiting --- */

/* Wait a moment.  CANCELLED when the user wants to end, UNAVAILABLE when a child has ended. */
static int pause_ms(struct demo *d, int ms, struct pt_err *err)
{
	struct pt_child *const children[] = { &d->gateway, &d->agent };
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };
	sigset_t set;
	int sig;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGHUP);
	(void)sigaddset(&set, SIGCHLD);
	sig = sigtimedwait(&set, NULL, &t);
	if (sig > 0 && sig != SIGCHLD)
		return pt_fail(err, PT_E_CANCELLED, "ended by a signal");
	for (size_t i = 0; i < PT_COUNT(children); i++)
		if (children[i]->pid && pt_child_ended(children[i])) {
			pt_auto_buf how = PT_BUF_INIT(200);

			pt_child_how(children[i], &how);
			return pt_fail(err, PT_E_UNAVAILABLE, "the %s %s", children[i]->name, how.p);
		}
	return PT_OK;
}

/* Try until ready() says 1; a failure of it counts only when the time is over. */
static int await(struct demo *d, int (*ready)(struct demo *d, struct pt_err *err), int most_ms, const char *what,
		 struct pt_err *err)
{
	int64_t end = pt_mono_ms() + most_ms;
	struct pt_err last = { 0 };

	for (;;) {
		int rc = ready(d, &last);

		if (rc > 0)
			return PT_OK;
		if (pt_mono_ms() > end)
			return pt_fail(err, PT_E_TIMEOUT, "%s did not happen within %d s%s%s", what, most_ms / 1000,
				       rc < 0 ? ": " : "", rc < 0 ? last.msg : "");
		rc = pause_ms(d, POLL_MS, err);
		if (rc < 0)
			return rc;
	}
}

/* --- the folder --- */

static int prepare(struct demo *d, const char *dir, struct pt_err *err)
{
	char real[PATH_MAX];
	int rc = pt_mkdirs(dir, err);

	if (rc < 0)
		return rc;
	if (!realpath(dir, real))
		return pt_fail_sys(err, PT_E_IO, "'%s'", dir);
	for (size_t i = 0; i < FILES; i++)
		if (snprintf(d->path[i], PATH_SIZE, "%s/%s", real, names[i]) >= PATH_SIZE)
			return pt_fail(err, PT_E_INVALID, "the name of folder '%s' is too long", dir);
	d->lock = open(d->path[LOCK], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (d->lock < 0)
		return pt_fail_sys(err, PT_E_IO, "'%s'", d->path[LOCK]);
	if (flock(d->lock, LOCK_EX | LOCK_NB) < 0) {
		(void)pt_fail(err, PT_E_CONFLICT, "a demo is running in '%s' already", real);
		return pt_hint(err, "end it, or give this one a folder of its own: postern demo --dir DIR");
	}
	rc = pt_mkdirs(d->path[SECRETS], err);
	return rc < 0 ? rc : pt_mkdirs(d->path[SPOOL], err);
}

static int write_file(const char *path, const char *text, struct pt_err *err)
{
	return pt_file_replace(path, text, strlen(text), 0600, err);
}

static int make_files(struct demo *d, struct pt_err *err)
{
	pt_auto_buf secret = PT_BUF_INIT(16384);
	int rc = PT_OK;

	if (access(d->path[OWNER_TOKEN], F_OK) != 0) {
		pt_auto(pt_freep) char *token = pt_secret_new("ptt_");

		rc = token ? write_file(d->path[OWNER_TOKEN], token, err) : pt_fail_oom(err);
	}
	if (rc >= 0)
		rc = pt_demo_data(d->path[DATA], "/var/lib/dpkg/status", err);
	if (rc < 0)
		return rc;
	pt_buf_str(&secret, "{\"connect_args\": {\"path\": ");
	pt_buf_json(&secret, d->path[DATA], strlen(d->path[DATA]));
	pt_buf_str(&secret, "}}\n");
	return write_file(d->path[SECRET], secret.p, err);
}

/* --- the gateway --- */

/* A port that was written to path, 0 = none. */
static unsigned read_port(const char *path)
{
	pt_auto_buf b = PT_BUF_INIT(64);
	struct pt_err ignored;
	unsigned long v = pt_file_read(path, &b, &ignored) < 0 ? 0 : strtoul(b.p, NULL, 10);

	return v < 65536 ? (unsigned)v : 0;
}

static bool port_is_free(unsigned port)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons((uint16_t)port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	pt_auto(pt_closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;

	return fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
	       bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
}

static int gateway_listens(struct demo *d, struct pt_err *err)
{
	unsigned port = read_port(d->path[GATEWAY_PORT]);

	snprintf(d->url, sizeof(d->url), "http://127.0.0.1:%u", port);
	return port != 0;
}

static int gateway_ready(struct demo *d, struct pt_err *err)
{
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	int rc = pt_ctl_get_path(d->api, &a, err, "/readyz");

	return rc < 0 ? rc : 1;
}

static int start_gateway(struct demo *d, struct pt_err *err)
{
	unsigned last = read_port(d->path[GATEWAY_PORT]);
	char database[PATH_SIZE + 16];
	const char *args[] = { "gateway",
			       "--listen",
			       d->listen,
			       "--database",
			       database,
			       "--owner-token-file",
			       d->path[OWNER_TOKEN],
			       "--port-file",
			       d->path[GATEWAY_PORT],
			       "--log-format",
			       "plain",
			       NULL };
	int rc;

	snprintf(database, sizeof(database), "sqlite:%s", d->path[GATEWAY_DB]);
	snprintf(d->listen, sizeof(d->listen), "127.0.0.1:%u", last && port_is_free(last) ? last : 0);
	(void)unlink(d->path[GATEWAY_PORT]); /* written again once it listens */
	rc = pt_child_start(&d->gateway, args, err);
	if (rc >= 0)
		rc = await(d, gateway_listens, START_MS, "the gateway's start", err);
	if (rc >= 0)
		rc = pt_ctl_api_open(&d->api, &(struct pt_ctl_target) { .url = d->url, .token_file = d->path[OWNER_TOKEN] }, err);
	if (rc >= 0) /* without retry_ms: await() repeats, and watches the children meanwhile */
		rc = await(d, gateway_ready, START_MS, "the gateway's readiness", err);
	if (rc >= 0)
		step("gateway", d->url);
	return rc;
}

/* --- what the gateway knows --- */

static int post(struct demo *d, const char *path, json_t *body, struct pt_ctl_answer *ret, struct pt_err *err)
{
	int rc = pt_ctl_call(d->api, &(struct pt_ctl_call) { .method = "POST", .path = path, .body = body }, ret, err);

	json_decref(body);
	return rc;
}

static int make_key(struct demo *d, struct pt_err *err)
{
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	pt_auto_buf text = PT_BUF_INIT(4096);
	int rc = post(d, "/api/v1/agents/demo/keys", json_pack("{s:s}", "name", "demo"), &a, err);
	const char *id, *secret;

	if (rc < 0)
		return rc;
	id = pt_ctl_text(a.doc, "key_id");
	secret = pt_ctl_text(a.doc, "key_secret");
	pt_buf_str(&text, "{\"key_id\": ");
	pt_buf_json(&text, id, strlen(id));
	pt_buf_str(&text, ", \"key_secret\": ");
	pt_buf_json(&text, secret, strlen(secret));
	pt_buf_str(&text, "}\n");
	rc = write_file(d->path[AGENT_TOKEN], text.p, err);
	explicit_bzero(text.p, text.len);
	return rc;
}

/* The agent with a key on disk, enabled. */
static int register_agent(struct demo *d, struct pt_err *err)
{
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	int rc = pt_ctl_get_path(d->api, &a, err, "/api/v1/agents/demo");
	bool is_new = rc == PT_E_NOT_FOUND;

	if (is_new)
		rc = post(d, "/api/v1/agents", json_pack("{s:s, s:s}", "name", "demo", "kind", "generic"), &a, err);
	if (rc >= 0 && (is_new || access(d->path[AGENT_TOKEN], F_OK) != 0))
		rc = make_key(d, err);
	if (rc >= 0)
		rc = post(d, "/api/v1/agents/demo/enable", NULL, &a, err);
	return rc;
}

static int register_integration(struct demo *d, struct pt_err *err)
{
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	int rc = pt_ctl_get_path(d->api, &a, err, "/api/v1/integrations/packages");

	if (rc >= 0 && strcmp(pt_ctl_text(a.doc, "credential.file_path"), d->path[SECRET]) == 0)
		return PT_OK;
	if (rc >= 0) { /* the folder was moved */
		rc = pt_ctl_call(d->api, &(struct pt_ctl_call) { .method = "DELETE", .path = "/api/v1/integrations/packages" },
				 &a, err);
		if (rc < 0)
			return rc;
	} else if (rc != PT_E_NOT_FOUND) {
		return rc;
	}
	return post(d, "/api/v1/integrations",
		    json_pack("{s:s, s:s, s:s, s:{s:s, s:s}}", "name", "packages", "connection_type", "sqlite", "agent", "demo",
			      "credential", "type", "FILE", "file_path", d->path[SECRET]),
		    &a, err);
}

/* --- the agent --- */

static int agent_connected(struct demo *d, struct pt_err *err)
{
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	int rc = pt_ctl_get_path(d->api, &a, err, "/api/v1/agents/demo");

	return rc < 0 ? rc : json_array_size(json_object_get(a.doc, "instances")) > 0;
}

static int start_agent(struct demo *d, struct pt_err *err)
{
	const char *args[] = { "agent",
			       "--gateway-url",
			       d->url,
			       "--token-file",
			       d->path[AGENT_TOKEN],
			       "--spool-dir",
			       d->path[SPOOL],
			       "--listen",
			       "127.0.0.1:0",
			       "--port-file",
			       d->path[AGENT_PORT],
			       "--credential-dirs",
			       d->path[SECRETS],
			       "--log-format",
			       "plain",
			       NULL };
	int rc = pt_child_start(&d->agent, args, err);

	if (rc >= 0)
		rc = await(d, agent_connected, START_MS, "the agent's connection", err);
	if (rc >= 0)
		step("agent", "demo, connected (a second process; it listens to nobody but this machine)");
	return rc;
}

/* --- the query --- */

static int query(struct demo *d, struct pt_err *err)
{
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	pt_auto_buf path = PT_BUF_INIT(256);
	int64_t begin = pt_mono_ms();
	char took[32];
	int rc = post(d, "/api/v1/operations",
		      json_pack("{s:s, s:s, s:{s:s}, s:i}", "type", "query", "integration", "packages", "input", "sql", QUERY,
				"deadline_s", QUERY_MS / 1000),
		      &a, err);

	if (rc < 0)
		return rc;
	(void)pt_ctl_path(&path, "operations", pt_ctl_text(a.doc, "id"), "?wait=1");
	while (rc >= 0 && (rc = pt_ctl_get_path(d->api, &a, err, "%s", path.p)) >= 0 && !pt_ctl_ended(a.doc))
		rc = pause_ms(d, 0, err);
	if (rc >= 0)
		rc = pt_ctl_outcome(a.doc, err);
	if (rc < 0)
		return rc;
	pt_time_span(pt_mono_ms() - begin, took);
	fprintf(stderr, "%-10s %s\n%-10s client -> gateway -> agent -> %s and back in %s\n\n", "query", QUERY, "path",
		names[DATA], took);
	return pt_ctl_result(d->api, a.doc, "table", err);
}

/* As a shell reads it back: quoted only when it must be. */
static void shell_word(struct pt_buf *out, const char *s)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+=:,./@";

	if (!s[strspn(s, plain)]) {
		pt_buf_str(out, s);
		return;
	}
	pt_buf_chr(out, '\'');
	for (; *s; s++)
		*s == '\'' ? pt_buf_str(out, "'\\''") : pt_buf_chr(out, *s);
	pt_buf_chr(out, '\'');
}

/* " PATH=FOLDER:$PATH" when a shell would not find this very program by its name. */
static void path_setting(struct pt_buf *out)
{
	char exe[4096] = "", found[4096];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	const char *path = getenv("PATH");
	char *slash = n > 0 ? strrchr(exe, '/') : NULL;
	struct stat mine, other;

	if (!slash || stat(exe, &mine) < 0)
		return;
	for (const char *p = path; p && *p; p += strcspn(p, ":"), p += *p == ':') {
		snprintf(found, sizeof(found), "%.*s/postern", (int)strcspn(p, ":"), p);
		if (stat(found, &other) == 0 && other.st_dev == mine.st_dev && other.st_ino == mine.st_ino)
			return;
	}
	pt_buf_str(out, " PATH=");
	*slash = '\0';
	shell_word(out, exe);
	pt_buf_str(out, ":\"$PATH\"");
}

static int tell(struct demo *d, struct pt_err *err)
{
	pt_auto_buf token = PT_BUF_INIT(16384), path = PT_BUF_INIT(16384), file = PT_BUF_INIT(16384);
	int rc = pt_ctl_token_file(d->path[OWNER_TOKEN], &token, err);

	path_setting(&path);
	shell_word(&file, d->path[OWNER_TOKEN]);
	if (rc >= 0)
		rc = pt_ctl_say(err,
				"\nGateway  %s\nToken    %s\n         in %s\n\nTry next, in another terminal:\n"
				"  export POSTERN_GATEWAY_URL=%s POSTERN_API_TOKEN_FILE=%s%s\n"
				"  postern ctl operations run --integration packages --wait --sql 'SELECT section, count(*) FROM "
				"packages GROUP BY 1'\n"
				"  postern ctl operations list\n"
				"  postern ctl agents show demo\n",
				d->url, token.p, d->path[OWNER_TOKEN], d->url, file.p, path.p);
	explicit_bzero(token.p, token.len);
	return rc;
}

static int run_until_signal(struct demo *d, struct pt_err *err)
{
	int rc;

	fprintf(stderr, "\nCtrl-C ends gateway and agent; what they know stays in the folder for the next start.\n");
	while ((rc = pause_ms(d, 3600000, err)) >= 0)
		;
	return rc == PT_E_CANCELLED ? PT_OK : rc;
}

static int demo(struct demo *d, const struct conf *s, struct pt_err *err)
{
	int rc = prepare(d, s->dir, err);

	if (rc >= 0)
		rc = make_files(d, err);
	if (rc >= 0)
		rc = start_gateway(d, err);
	if (rc >= 0)
		rc = register_agent(d, err);
	if (rc >= 0)
		rc = start_agent(d, err);
	if (rc >= 0)
		rc = register_integration(d, err);
	if (rc >= 0)
		rc = query(d, err);
	if (rc >= 0 && s->once) { /* what ends now is not there to be tried */
		fprintf(stderr, "\nGateway and agent end again; without --once they stay, for you to try more.\n");
		return PT_OK;
	}
	if (rc < 0)
		return rc;
	rc = tell(d, err);
	return rc < 0 ? rc : run_until_signal(d, err);
}

static void show_logs(const struct demo *d)
{
	const struct pt_child *const children[] = { &d->gateway, &d->agent };

	for (size_t i = 0; i < PT_COUNT(children); i++) {
		pt_auto_buf tail = PT_BUF_INIT(1 << 20);

		pt_child_tail(children[i], LOG_LINES, &tail);
		if (tail.len)
			fprintf(stderr, "--- last lines of %s\n%s%s", children[i]->log, tail.p,
				tail.p[tail.len - 1] == '\n' ? "" : "\n");
	}
}

static int run_demo(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	struct demo d = { .lock = -1 };
	struct conf s = { 0 };
	sigset_t set, before;
	int rc = pt_opt_parse(pt_opt_root, cmd, argc, argv, &s, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	d.gateway = (struct pt_child) { .name = "gateway", .log = d.path[GATEWAY_LOG] };
	d.agent = (struct pt_child) { .name = "agent", .log = d.path[AGENT_LOG] };
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGHUP);
	(void)sigaddset(&set, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &set, &before);
	rc = demo(&d, &s, err);
	pt_child_stop(&d.agent, STOP_MS);
	pt_child_stop(&d.gateway, STOP_MS);
	if (rc < 0 && rc != PT_E_CANCELLED && rc != PT_E_CONFLICT) {
		show_logs(&d);
		if (!err->hint[0] && d.lock < 0)
			(void)pt_hint(err, "name a folder that you may write: postern demo --dir DIR");
		else if (!err->hint[0])
			(void)pt_hint(err, "the logs are in %.120s; a start with an empty folder: postern demo --dir DIR", s.dir);
	}
	pt_ctl_api_free(d.api);
	pt_closep(&d.lock);
	(void)sigprocmask(SIG_SETMASK, &before, NULL);
	return rc;
}

const struct pt_command pt_cmd_demo = {
	.name = "demo",
	.summary = "gateway, agent and a query on this machine, in one command",
	.text = "Starts a gateway and an agent as two processes on the loopback address, makes a SQLite database\n"
		"of the packages of this machine, and runs a query on it through the whole path. Then it tells\n"
		"what to try next and runs until Ctrl-C. Everything is kept in one folder; a second start goes on\n"
		"with it.",
	.opts = opts,
	.n_opts = PT_COUNT(opts),
	.run = run_demo,
};
