/* `postern gateway`: settings, first start, main loop, drain. */
#include "gateway/gateway.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "config.h"
#include "gateway/internal.h"
#include "net/http_client.h"
#include "os/file.h"
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

enum { SPREAD_MOST_MS = 5000, FILES_WANTED = 65536 };

struct conf {
	const char *listen, *database, *blob_dir, *public_url, *tls_cert, *tls_key, *owner_token_file, *port_file, *log_level, *log_format;
	int64_t threads, retention_ms, lease_ms, stop_ms;
	int64_t log_retention_ms, log_max_bytes;
};

static const char *const levels[] = { "debug", "info", "warn", "error", NULL };
static const char *const formats[] = { "json", "plain", "dev", NULL };
static const struct pt_opt opts[] = {
	PT_O(struct conf, listen, "listen", PT_OPT_STR, .def = "127.0.0.1:7070", .value = "HOST:PORT",
	     .help = "address to serve; port 0 takes a free one; 'systemd' takes the socket that systemd passes (LISTEN_FDS)"),
	PT_O(struct conf, database, "database", PT_OPT_STR, .def = "sqlite:/var/lib/postern/gateway.db", .value = "URL",
	     .help = "where the state lives: sqlite:PATH; mem: keeps nothing (tests)"),
	PT_O(struct conf, blob_dir, "blob-dir", PT_OPT_STR, .value = "DIR",
	     .help = "folder for large results; default: 'blobs' beside the database"),
	PT_O(struct conf, public_url, "public-url", PT_OPT_STR, .value = "URL",
	     .help = "how agents and clients reach the gateway; for its messages"),
	PT_O(struct conf, tls_cert, "tls-cert", PT_OPT_STR, .value = "FILE",
	     .help = "PEM certificate chain; with --tls-key serves HTTPS"),
	PT_O(struct conf, tls_key, "tls-key", PT_OPT_STR, .value = "FILE", .help = "PEM private key"),
	PT_O(struct conf, owner_token_file, "owner-token-file", PT_OPT_STR, .value = "FILE",
	     .help = "API token of the first owner; without it the first start makes one and prints it once"),
	PT_O(struct conf, port_file, "port-file", PT_OPT_STR, .value = "FILE", .help = "write the port served to this file"),
	PT_O(struct conf, threads, "threads", PT_OPT_INT, .def = "4", .min = 1, .max = 64, .help = "HTTP threads"),
	PT_O(struct conf, retention_ms, "retention", PT_OPT_DURATION, .def = "30d", .min = 60000, .max = INT64_C(315360000000),
	     .help = "how long ended operations and their results are kept"),
	PT_O(struct conf, lease_ms, "lease", PT_OPT_DURATION, .def = "60s", .min = 5000, .max = 3600000,
	     .help = "how long an agent instance that is not heard of keeps what it was given; then others run it"),
	PT_O(struct conf, log_retention_ms, "log-retention", PT_OPT_DURATION, .def = "7d", .min = 1000,
	     .max = INT64_C(315360000000), .help = "how long log lines of agents are kept"),
	PT_O(struct conf, log_max_bytes, "log-max-bytes", PT_OPT_SIZE, .def = "256M", .min = 1 << 20, .max = INT64_C(1) << 40,
	     .help = "most bytes of such lines that an account may have; the oldest go first"),
	PT_O(struct conf, stop_ms, "stop-timeout", PT_OPT_DURATION, .def = "10s", .min = 0, .max = 3600000,
	     .help = "how long a stop waits for open requests"),
	PT_O(struct conf, log_level, "log-level", PT_OPT_ENUM, .def = "info", .values = levels,
	     .help = "least severe lines to print"),
	PT_O(struct conf, log_format, "log-format", PT_OPT_ENUM, .def = "plain", .values = formats, .help = "form of log lines"),
};

bool pt_gateway_enter(struct pt_gateway *g)
{
	g->inside++;
	if (!g->closed)
		return true;
	g->inside--;
	return false;
}

void pt_gateway_leave(struct pt_gateway *g)
{
	g->inside--;
}

int pt_gateway_closed(struct pt_err *err)
{
	return pt_fail(err, PT_E_UNAVAILABLE, "the gateway is stopping");
}

/* --- first start --- */

/* What fits into an Authorization header (RFC 6750); what made the token does not matter. */
#define TOKEN_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/="

static int read_owner_token(const char *path, struct pt_buf *out, struct pt_err *err)
{
	int rc = pt_file_read(path, out, err);

	if (rc < 0)
		return pt_err_wrap(err, rc, "owner token file");
	while (out->len && strchr(" \t\r\n", out->p[out->len - 1]))
		out->p[--out->len] = '\0';
	if (out->len < 20 || strspn(out->p, TOKEN_CHARACTERS) != out->len) {
		(void)pt_fail(err, PT_E_INVALID, out->len < 20 ? "the owner token in '%s' has fewer than 20 characters" :
								   "'%s' does not hold one API token", path);
		return pt_hint(err, "make one: (printf ptt_; head -c 32 /dev/urandom | base64 | tr -d '=\\n') > %s", path);
	}
	return PT_OK;
}

static int any_record(void *arg, void *rec)
{
	pt_id_copy(arg, rec);
	return 1;
}

#define FROM_FILE "owner token file"

struct older {
	const struct pt_rec_token *newest;
	char id[PT_ID_SIZE];
};

static int find_older(void *arg, void *rec)
{
	struct older *o = arg;
	const struct pt_rec_token *t = rec;

	if (!t->name || strcmp(t->name, FROM_FILE) != 0 || strcmp(t->id, o->newest->id) == 0)
		return 0;
	pt_id_copy(o->id, t->id);
	return 1;
}

/* A new token in the file takes the place of the one that was there before. */
static int revoke_older(struct pt_tx *tx, const struct pt_rec_token *newest, struct pt_err *err)
{
	struct pt_rec_token m = { 0 };

	pt_id_copy(m.account, newest->account);
	pt_id_copy(m.user, newest->user);
	for (;;) {
		pt_auto_rec(token) t = { 0 };
		struct older o = { .newest = newest };
		int rc = pt_tx_scan(tx, &pt_tokens, &(struct pt_scan){ .index = &pt_tokens_by_user, .match = &m, .n_eq = 2 }, find_older, &o, err);

		if (rc < 0 || !*o.id)
			return rc;
		pt_id_copy(t.id, o.id);
		if ((rc = pt_tx_remove(tx, &pt_tokens, &t, err)) < 0)
			return rc;
	}
}

/* Make sure that there is an account with an owner, and that the owner token file's token is valid. */
static int first_owner(struct pt_gateway *g, const struct conf *conf, struct pt_err *err)
{
	pt_auto(pt_tx_rollbackp) struct pt_tx *tx = NULL;
	pt_auto_buf token = PT_BUF_INIT(4096);
	struct pt_rec_account acc = { .name = (char *)(uintptr_t) "default", .created = pt_gateway_now(g) };
	struct pt_rec_user user = { .name = (char *)(uintptr_t) "owner", .role = PT_ROLE_OWNER, .created = acc.created };
	struct pt_rec_token tok = { .name = (char *)(uintptr_t)(conf->owner_token_file ? FROM_FILE : "first owner"), .created = acc.created };
	char hash[65];
	bool fresh;
	int rc;

	if (conf->owner_token_file && (rc = read_owner_token(conf->owner_token_file, &token, err)) < 0)
		return rc;
	if ((rc = pt_db_begin(g->db, true, &tx, err)) < 0)
		return rc;
	if ((rc = pt_tx_scan(tx, &pt_accounts, &(struct pt_scan){ .limit = 1 }, any_record, acc.id, err)) < 0)
		return rc;
	fresh = !*acc.id;
	if (!fresh && !token.len)
		return PT_OK;
	if (fresh) {
		pt_id_new(acc.id, "acc");
		if ((rc = pt_tx_insert(tx, &pt_accounts, &acc, err)) < 0)
			return rc;
	}
	pt_id_copy(user.account, acc.id);
	if (!fresh) {
		pt_auto_rec(user) old = { .name = strdup(user.name) };

		pt_id_copy(old.account, acc.id);
		rc = pt_tx_find(tx, &pt_users, &pt_users_by_name, &old, err);
		if (rc < 0 && rc != PT_E_NOT_FOUND)
			return rc;
		pt_id_copy(user.id, old.id);
	}
	if (!*user.id) { /* on the first start, and when somebody deleted it: whoever holds the file owns the gateway */
		pt_id_new(user.id, "usr");
		if ((rc = pt_tx_insert(tx, &pt_users, &user, err)) < 0)
			return rc;
	}
	if (!token.len) {
		pt_auto(pt_freep) char *secret = pt_secret_new("ptt_");

		if (!secret)
			return pt_fail_oom(err);
		pt_buf_str(&token, secret);
	}
	pt_sha256_hex(token.p, token.len, hash);
	tok.hash = hash;
	pt_id_new(tok.id, "tok");
	pt_id_copy(tok.account, acc.id);
	pt_id_copy(tok.user, user.id);
	rc = pt_tx_insert(tx, &pt_tokens, &tok, err);
	if (rc == PT_E_CONFLICT) /* this token is there already */
		return PT_OK;
	if (rc == 0 && conf->owner_token_file)
		rc = revoke_older(tx, &tok, err);
	if (rc < 0 || (rc = pt_tx_commit(pt_steal(&tx), err)) < 0)
		return rc;
	if (!conf->owner_token_file) {
		printf("First start: this is the owner's API token. It is shown once, keep it.\n\n  %s\n\n", token.p);
		fflush(stdout);
	}
	explicit_bzero(token.p, token.len);
	return PT_OK;
}

/* --- start and stop --- */

static void request_done(void *ctx, const struct pt_http_route *route, int status, int64_t elapsed_us, uint64_t bytes_out)
{
	struct pt_gateway *g = ctx;

	(void)bytes_out;
	pt_count_request(g, route ? route->meta : NULL, status, elapsed_us);
	if (pt_log_on(PT_LOG_DEBUG))
		pt_debug("request", "method", route ? route->method : "?", "path", route ? route->path : "?", "status", pt_num(status), "us",
			 pt_num(elapsed_us));
}

static int set_blob_dir(struct pt_gateway *g, const struct conf *conf, struct pt_err *err)
{
	pt_auto_buf b = PT_BUF_INIT(4096);
	const char *path = strncmp(conf->database, "sqlite:", 7) == 0 ? conf->database + 7 : "";
	const char *slash = strrchr(path, '/');

	if (conf->blob_dir)
		pt_buf_str(&b, conf->blob_dir);
	else if (*path)
		pt_buf_fmt(&b, "%.*sblobs", slash ? (int)(slash - path) + 1 : 0, path);
	else
		pt_buf_str(&b, "/tmp/postern-blobs-XXXXXX");
	if (pt_buf_done(&b, err) < 0)
		return PT_E_INVALID;
	g->blob_dir = pt_buf_detach(&b, NULL);
	if (!g->blob_dir)
		return pt_fail_oom(err);
	if (!conf->blob_dir && !*path && !mkdtemp(g->blob_dir))
		return pt_fail_sys(err, PT_E_IO, "create folder '%s'", g->blob_dir);
	return PT_OK;
}

static int serve(struct pt_gateway *g, const struct conf *conf, struct pt_http_route **ret_routes, struct pt_err *err)
{
	struct pt_writer_hooks hooks = { .arg = g, .before_commit = pt_dispatch, .after_commit = pt_dispatch_committed, .tick = pt_reap,
					 .tick_ms = 250 };
	struct pt_http_server_conf http = { .listen = conf->listen, .tls_cert = conf->tls_cert, .tls_key = conf->tls_key,
					    .threads = (unsigned)conf->threads, .idle_timeout_s = 90, .body_timeout_s = 60, .ctx = g,
					    .done = request_done, .write_error = pt_error_body, .n_routes = pt_api_n_routes };
	char port[16];
	int rc;

	if (!conf->tls_cert != !conf->tls_key)
		return pt_fail(err, PT_E_INVALID, "--tls-cert and --tls-key go together");
	g->database = strncmp(conf->database, "sqlite:", 7) == 0 ? conf->database + 7 : NULL;
	if ((rc = set_blob_dir(g, conf, err)) < 0 || (rc = pt_db_open(&g->db, conf->database, pt_gateway_tables, err)) < 0 ||
	    (rc = pt_gateway_clock(g, err)) < 0 || (rc = pt_logs_start(g, conf->database, err)) < 0 ||
	    (rc = pt_blob_sweep(g, err)) < 0 || (rc = first_owner(g, conf, err)) < 0 || (rc = pt_blob_claim(g, err)) < 0 ||
	    (rc = pt_lease_grace(g, err)) < 0 || (rc = pt_presence_new(g, err)) < 0 || (rc = pt_waiters_new(g, err)) < 0 ||
	    (rc = pt_writer_start(&g->writer, g->db, &hooks, err)) < 0)
		return rc;
	http.routes = *ret_routes = pt_api_http_routes();
	if (!http.routes)
		return pt_fail_oom(err);
	if ((rc = pt_http_server_start(&g->http, &http, err)) < 0)
		return rc;
	snprintf(port, sizeof(port), "%u", pt_http_server_port(g->http));
	if (conf->port_file && (rc = pt_file_replace(conf->port_file, port, strlen(port), 0644, err)) < 0)
		return rc;
	pt_info("gateway is ready", "listen", conf->listen, "port", port, "tls", conf->tls_cert ? "yes" : "no", "database", conf->database,
		"url", conf->public_url, "version", PT_VERSION);
	return PT_OK;
}

static void nap(void)
{
	(void)nanosleep(&(struct timespec) { .tv_nsec = 2000000 }, NULL);
}

/* As many milliseconds as keep those who waited here from coming back in one wave: two a millisecond. */
static int64_t spread_of(const struct pt_gateway *g)
{
	struct pt_http_stats s;

	pt_http_server_stats(g->http, &s);
	return s.held / 2 < SPREAD_MOST_MS ? s.held / 2 : SPREAD_MOST_MS;
}

static void await_requests(const struct pt_gateway *g, int64_t most_ms)
{
	int64_t end = pt_mono_ms() + most_ms;
	struct pt_http_stats s;

	for (;;) {
		bool expects = pt_http_server_expects(g->http); /* first: what is expected becomes active */

		pt_http_server_stats(g->http, &s);
		if ((!expects && s.active + s.held == 0) || pt_mono_ms() >= end)
			return;
		nap();
	}
}

/* Long polls are answered and the rest is finished before the last thread ends: a rolling restart fails no request. */
static void stop(struct pt_gateway *g, int64_t stop_ms)
{
	if (g->http)
		g->spread_ms = spread_of(g);
	g->stopping = true;
	if (g->http) {
		pt_http_server_quiesce(g->http);
		pt_presence_drain(g);
	}
	if (g->waiters)
		pt_waiters_drain(g);
	pt_logs_drain(g);
	if (g->http)
		await_requests(g, stop_ms);
	/* The writer answers requests, so it ends before the HTTP server does. */
	g->closed = true;
	while (g->inside)
		nap();
	pt_writer_stop(g->writer);
	pt_logs_free(g);
	pt_http_server_stop(g->http, 0);
	pt_waiters_free(g);
	pt_presence_free(g);
	pt_db_close(g->db);
	free(g->unsure.items);
	free(g->blob_dir);
}

/* Each connected instance needs a file; the usual soft limit of 1024 is for programs that call select().  Best effort. */
static void raise_file_limit(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return;
	files.rlim_cur = files.rlim_max < FILES_WANTED   ? files.rlim_max
			 : files.rlim_cur < FILES_WANTED ? FILES_WANTED
							 : files.rlim_cur;
	(void)setrlimit(RLIMIT_NOFILE, &files);
}

static int run(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	struct pt_gateway g = { 0 };
	struct conf conf = { 0 };
	struct pt_http_route *routes = NULL;
	sigset_t set;
	int rc, sig = 0;

	rc = pt_opt_parse(pt_opt_root, cmd, argc, argv, &conf, err);
	if (rc != 0)
		return rc < 0 ? rc : PT_OK;
	if ((rc = pt_log_init(conf.log_level, conf.log_format, 0, err)) < 0)
		return rc;
	raise_file_limit();
	mallopt(M_ARENA_MAX, 8); /* one for each busy thread: what one thread makes another frees, and fewer make them wait */
	g.retention_ms = conf.retention_ms;
	g.lease_ms = conf.lease_ms;
	g.log_retention_ms = conf.log_retention_ms;
	g.log_max_bytes = conf.log_max_bytes;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_BLOCK, &set, NULL); /* before threads start: only the sigwait below takes them */
	rc = serve(&g, &conf, &routes, err);
	if (rc == 0) {
		(void)sigwait(&set, &sig);
		pt_info("gateway is stopping", "signal", sig == SIGTERM ? "SIGTERM" : "SIGINT");
	}
	stop(&g, conf.stop_ms);
	free(routes);
	if (rc == 0)
		pt_info("gateway has stopped");
	return rc;
}

const struct pt_command pt_cmd_gateway = {
	.name = "gateway",
	.summary = "serve clients and agents, keep operations and results",
	.text = "The gateway keeps operations in its database and hands them to agents, which connect to it.  An operation that it has\n"
		"acknowledged is on disk.\n\n"
		"The first start makes the account `default` with one user `owner` and prints that user's API token once; there is no\n"
		"default password.  With --owner-token-file the token is taken from that file instead, at every start: so a lost\n"
		"token is replaced.\n\n"
		"SIGTERM or SIGINT stops it: long polls are answered, open requests are finished, connections that wait to be\n"
		"accepted are served, then it exits.  Agents and `postern ctl` come back by themselves.  With --listen systemd\n"
		"(socket activation) the socket stays open between two processes, and no connection is refused meanwhile.\n\n"
		"Example:\n\n"
		"    postern gateway --listen 127.0.0.1:7070 --database sqlite:/var/lib/postern/gateway.db",
	.opts = opts,
	.n_opts = PT_COUNT(opts),
	.run = run,
};
