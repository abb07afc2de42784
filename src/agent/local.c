/* The local HTTP endpoints: probes, health, reachability, metrics.  Handlers run on the server's thread and only look; the
 * reachability check talks to the gateway, so it runs on a thread of its own while the request is held. */
#include "agent/agent_int.h"
#include "base/clock.h"
#include "net/http_server.h"
#include "net/url.h"
#include "os/file.h"
#include <stdio.h>

enum { PROBES = 2, PROBE_MS = 15000, BODY_MAX = 4096, ANSWER_MAX = 64 * 1024 };

struct pt_local {
	struct pt_agent *agent;
	struct pt_http_server *_Atomic server; /* set while handlers may run already */
	struct pt_cancel stop;
	pthread_mutex_t lock;
	pthread_cond_t ended;
	unsigned probes; /* threads that check reachability */
};

/* --- probes --- */

static void answer_probe(struct pt_http_req *r, const struct pt_err *err, const char *reason)
{
	pt_auto_buf b = PT_BUF_INIT(8192);

	if (!reason) {
		pt_buf_str(&b, "{\"ok\": true}");
		pt_http_reply_json(r, 200, &b);
		return;
	}
	pt_buf_str(&b, "{\"ok\": false, \"reason\": ");
	pt_buf_json(&b, reason, strlen(reason));
	if (err) {
		pt_buf_fmt(&b, ", \"code\": \"%s\"", pt_code_wire(err->code));
		if (*err->hint) {
			pt_buf_str(&b, ", \"hint\": ");
			pt_buf_json(&b, err->hint, strlen(err->hint));
		}
	}
	pt_buf_chr(&b, '}');
	pt_http_reply_json(r, 503, &b);
}

static void handle_live(struct pt_http_req *r, void *ctx)
{
	struct pt_local *l = ctx;

	answer_probe(r, NULL, pt_agent_stuck(l->agent));
}

static void handle_ready(struct pt_http_req *r, void *ctx)
{
	struct pt_local *l = ctx;
	struct pt_err err = { 0 };
	bool ready = pt_agent_ready(l->agent, &err) == 0;

	answer_probe(r, &err, ready ? NULL : err.msg);
}

static void handle_health(struct pt_http_req *r, void *ctx)
{
	struct pt_local *l = ctx;
	pt_auto_buf b = PT_BUF_INIT(64 * 1024);

	pt_report_health(l->agent, &b);
	pt_http_reply_json(r, 200, &b);
}

static void handle_metrics(struct pt_http_req *r, void *ctx)
{
	struct pt_local *l = ctx;
	pt_auto_buf b = PT_BUF_INIT(512 * 1024);

	pt_report_metrics(l->agent, &b);
	pt_http_reply_buf(r, 200, "text/plain; version=0.0.4; charset=utf-8", &b);
}

/* --- reachability --- */

struct probe {
	struct pt_local *local;
	struct pt_http_req *req;
};

static int ping(struct pt_local *l, struct pt_http_call *c, struct pt_buf *out, struct pt_err *err)
{
	struct pt_agent *a = l->agent;
	pt_auto(pt_http_client_freep) struct pt_http_client *client = NULL;
	int rc = pt_http_client_new(&client, &a->http, err);

	if (rc < 0)
		return rc;
	*c = (struct pt_http_call) { .method = "GET", .out = out, .timeout_ms = PROBE_MS, .cancel = &l->stop };
	rc = pt_link_do(a, client, "/agent/v1/ping", c, err);
	if (rc == 0 && c->status / 100 != 2)
		rc = pt_http_error_of(c, out, err);
	return rc;
}

static void write_reach(struct pt_agent *a, int rc, const struct pt_http_call *c, const struct pt_buf *answer,
			const struct pt_err *err, struct pt_buf *b)
{
	pt_auto_buf url = PT_BUF_INIT(4096);
	struct pt_err ignored;
	json_t *j = NULL;
	struct pt_key key;

	pt_keys_get(&a->keys, &key);
	explicit_bzero(key.secret, sizeof(key.secret));
	pt_url_masked(a->base_url, &url);
	pt_buf_str(b, rc == 0 ? "{\"ok\": true" : "{\"ok\": false"); /* people grep for it, space and all */
	pt_buf_str(b, ", \"gateway_url\": ");
	pt_buf_json(b, url.p, url.len);
	pt_buf_str(b, ", \"key_id\": ");
	pt_buf_json(b, key.id, strlen(key.id));
	pt_buf_fmt(b, ", \"elapsed_ms\": %lld", (long long)(c->total_us / 1000));
	if (rc == 0 && pt_json_parse(answer->p, answer->len, &j, &ignored) == 0) {
		pt_buf_str(b, ", \"gateway\": ");
		pt_json_write(b, j);
	}
	json_decref(j);
	if (rc < 0) {
		pt_auto_buf doc = PT_BUF_INIT(8192);

		pt_error_body(err, &doc); /* {"error": {…}}: its member goes into ours */
		pt_buf_str(b, ", ");
		pt_buf_add(b, doc.p + 1, doc.len > 1 ? doc.len - 1 : 0);
		return;
	}
	pt_buf_chr(b, '}');
}

static void *probe_thread(void *arg)
{
	struct probe p = *(struct probe *)arg;
	struct pt_local *l = p.local;
	pt_auto_buf out = PT_BUF_INIT(ANSWER_MAX);
	pt_auto_buf b = PT_BUF_INIT(ANSWER_MAX * 2);
	struct pt_http_call c = { .status = 0 };
	struct pt_err err = { 0 };
	int rc;

	free(arg);
	rc = ping(l, &c, &out, &err);
	write_reach(l->agent, rc, &c, &out, &err, &b);
	pt_http_reply_json(p.req, rc == 0 ? 200 : 503, &b);
	pthread_mutex_lock(&l->lock);
	l->probes--;
	pthread_cond_broadcast(&l->ended);
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

static void handle_reach(struct pt_http_req *r, void *ctx)
{
	struct pt_local *l = ctx;
	struct probe *p = malloc(sizeof(*p));
	struct pt_err err = { 0 };
	pthread_t t;
	bool room;
	int rc;

	pthread_mutex_lock(&l->lock);
	room = p && l->probes < PROBES;
	l->probes += room;
	pthread_mutex_unlock(&l->lock);
	if (!room) {
		rc = p ? pt_fail(&err, PT_E_LIMIT, "%d reachability checks are under way", PROBES) : pt_fail_oom(&err);
		free(p);
		pt_http_reply_err(r, &err);
		return;
	}
	*p = (struct probe){ .local = l, .req = r };
	pt_http_hold(r, NULL, NULL);
	rc = pt_agent_thread(&t, "reachability", probe_thread, p, &err);
	if (rc == 0) {
		pthread_detach(t);
		return;
	}
	free(p);
	pthread_mutex_lock(&l->lock);
	l->probes--;
	pthread_mutex_unlock(&l->lock);
	pt_http_reply_err(r, &err);
}

static const struct pt_http_route routes[] = {
	{ .method = "GET", .path = "/livez", .handle = handle_live },
	{ .method = "GET", .path = "/readyz", .handle = handle_ready },
	{ .method = "GET", .path = "/api/v1/test/healthcheck", .handle = handle_live },
	{ .method = "GET", .path = "/api/v1/test/health", .handle = handle_health },
	{ .method = "POST", .path = "/api/v1/test/reachability", .handle = handle_reach, .body_max = BODY_MAX },
	{ .method = "GET", .path = "/metrics", .handle = handle_metrics },
	{ .method = "GET", .path = "/actuator/prometheus", .handle = handle_metrics },
};

/* --- start and stop --- */

int pt_local_start(struct pt_agent *a, struct pt_err *err)
{
	struct pt_http_server_conf conf = {
		.listen = a->conf->listen,
		.threads = 1,
		.max_connections = 64,
		.idle_timeout_s = 60,
		.body_timeout_s = 10,
		.routes = routes,
		.n_routes = PT_COUNT(routes),
	};
	struct pt_http_server *server = NULL;
	struct pt_local *l;
	char port[16];
	int rc;

	if (!a->conf->listen || !*a->conf->listen)
		return PT_OK;
	l = calloc(1, sizeof(*l));
	if (!l)
		return pt_fail_oom(err);
	l->agent = a;
	conf.ctx = l;
	rc = pt_cancel_init(&l->stop, err);
	if (rc < 0) {
		free(l);
		return rc;
	}
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->ended, NULL);
	a->local = l;
	rc = pt_http_server_start(&server, &conf, err);
	l->server = server;
	if (rc < 0) {
		rc = pt_err_wrap(err, rc, "local endpoints (--listen %s)", a->conf->listen);
		if (!*err->hint)
			(void)pt_hint(err, "set --listen to a free address, or to \"\" to go without");
		return rc;
	}
	if (!a->conf->port_file || !*a->conf->port_file)
		return PT_OK;
	snprintf(port, sizeof(port), "%u\n", pt_http_server_port(l->server));
	return pt_err_wrap(err, pt_file_replace(a->conf->port_file, port, strlen(port), 0644, err), "--port-file");
}

void pt_local_stop(struct pt_agent *a)
{
	struct pt_local *l = a->local;

	if (!l)
		return;
	pt_cancel_fire(&l->stop, PT_E_CANCELLED, "the agent is stopping");
	if (l->server)
		pt_http_server_quiesce(l->server);
	pthread_mutex_lock(&l->lock);
	while (l->probes)
		pthread_cond_wait(&l->ended, &l->lock);
	pthread_mutex_unlock(&l->lock);
	pt_http_server_stop(l->server, 200);
	a->local = NULL;
	pthread_mutex_destroy(&l->lock);
	pthread_cond_destroy(&l->ended);
	pt_cancel_release(&l->stop);
	free(l);
}

unsigned pt_local_port(const struct pt_local *l)
{
	return l && l->server ? pt_http_server_port(l->server) : 0;
}

unsigned pt_local_active(const struct pt_local *l)
{
	struct pt_http_stats st;

	if (!l->server)
		return 0;
	pt_http_server_stats(l->server, &st);
	return st.active;
}
