/* The route table of both APIs, and what every request goes through: who is it, may it, is its body well formed; then the handler inside
 * a read transaction (HTTP thread) or a job of the writer.  docs/protocol.md is the contract, openapi.c prints this table. */
#include "base/id.h"
#include "base/log.h"
#include "gateway/internal.h"
#include <stdio.h>

enum {
	SMALL_BODY = 64 * 1024,
	OPERATION_BODY = 2 * 1024 * 1024,
	BATCH_BODY = 4 * 1024 * 1024,
	RESULTS_BODY = 2 * PT_RESULTS_BYTES,
	EXCHANGE_BODY = 1024 * 1024,
	OUT_MAX = 64 * 1024 * 1024
};

#define Q(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define V PT_ROLE_VIEWER
#define O PT_ROLE_OPERATOR
#define W PT_ROLE_OWNER
#define A PT_ROLE_AGENT

const struct pt_api_route pt_api_routes[] = {
	{ "GET", "/livez", PT_ROLE_NONE, "The process answers.", .special = pt_api_livez },
	{ "GET", "/readyz", PT_ROLE_NONE, "The database answers, its disk has room, and the gateway is not stopping.",
	  .special = pt_api_readyz },
	{ "GET", "/metrics", V, "Metrics in Prometheus text format.", .read = pt_api_metrics },
	{ "GET", "/api/v1/openapi.json", PT_ROLE_NONE, "This document.", .special = pt_api_openapi },
	{ "GET", "/api/v1/whoami", V, "The token's user, role and account.", .read = pt_api_whoami },
	{ "POST", "/api/v1/users", W, "Create a user.", &pt_user_new_shape, .write = pt_api_users_create },
	{ "GET", "/api/v1/users", W, "List the account's users.", .read = pt_api_users_list },
	{ "DELETE", "/api/v1/users/{id}", W, "Delete a user and revoke its tokens.", .write = pt_api_users_delete },
	{ "POST", "/api/v1/tokens", W, "Create an API token; it is shown once.", &pt_token_new_shape,
	  .write = pt_api_tokens_create },
	{ "GET", "/api/v1/tokens", W, "List the account's tokens.", .read = pt_api_tokens_list },
	{ "DELETE", "/api/v1/tokens/{id}", W, "Revoke a token.", .write = pt_api_tokens_delete },
	{ "POST", "/api/v1/agents", W, "Register an agent (not enabled).", &pt_agent_new_shape, .write = pt_api_agents_create },
	{ "GET", "/api/v1/agents", V, "List the agents with their connected instances.", .read = pt_api_agents_list },
	{ "GET", "/api/v1/agents/{id}", V, "One agent, by id or name.", .read = pt_api_agents_get },
	{ "POST", "/api/v1/agents/{id}/enable", W, "Let the agent take work.", .write = pt_api_agents_enable },
	{ "POST", "/api/v1/agents/{id}/disable", W, "Give the agent no more work.", .write = pt_api_agents_disable },
	{ "DELETE", "/api/v1/agents/{id}", W, "Delete an agent, its keys and integrations.", .query = Q("force"),
	  .write = pt_api_agents_delete },
	{ "POST", "/api/v1/agents/{id}/keys", W, "Create a key; its secret is shown once.", &pt_key_new_shape,
	  .body_optional = true, .write = pt_api_keys_create },
	{ "GET", "/api/v1/agents/{id}/keys", W, "List the agent's keys.", .read = pt_api_keys_list },
	{ "DELETE", "/api/v1/keys/{id}", W, "Revoke a key.", .write = pt_api_keys_delete },
	{ "POST", "/api/v1/integrations", O, "Name a data source and where the agent finds its credentials.",
	  &pt_integration_new_shape, .write = pt_api_integrations_create },
	{ "GET", "/api/v1/integrations", V, "List the integrations.", .read = pt_api_integrations_list },
	{ "GET", "/api/v1/integrations/{id}", V, "One integration, by id or name.", .read = pt_api_integrations_get },
	{ "DELETE", "/api/v1/integrations/{id}", O, "Delete an integration.", .write = pt_api_integrations_delete },
	{ "POST", "/api/v1/operations", O, "Submit an operation; 201 means that it is on disk.", &pt_operation_new_shape,
	  .body_max = OPERATION_BODY, .prepare = pt_api_operations_prepare, .write = pt_api_operations_create },
	{ "POST", "/api/v1/operations/batch", O, "Submit up to 100 operations, each of which stands or fails alone.",
	  &pt_operation_batch_shape, .body_max = BATCH_BODY, .special = pt_api_operations_batch },
	{ "GET", "/api/v1/operations", V, "List operations, newest first; dead_letter=true: those that need a person.",
	  .query = Q("state", "agent", "type", "dead_letter", "limit", "before"), .read = pt_api_operations_list },
	{ "GET", "/api/v1/operations/{id}", V, "One operation with its timeline; wait=S holds the answer until it has ended.",
	  .query = Q("wait"), .special = pt_api_operations_get },
	{ "GET", "/api/v1/operations/{id}/result", V, "The body of its result.", .special = pt_api_operations_result },
	{ "POST", "/api/v1/operations/{id}/cancel", O, "Cancel an operation.", &pt_cancel_new_shape, .body_optional = true,
	  .write = pt_api_operations_cancel },
	{ "POST", "/api/v1/operations/{id}/settle", O, "Say what becomes of a dead letter.", &pt_settle_new_shape,
	  .write = pt_api_operations_settle },
	{ "GET", "/api/v1/operations/{id}/logs", V, "Log lines about it; wait=S holds the answer until there is one.",
	  .query = Q("after", "limit", "wait"), .special = pt_api_logs_get },
	{ "GET", "/api/v1/agents/{id}/logs", V, "Log lines of the agent's instances; wait=S holds the answer until there is one.",
	  .query = Q("after", "limit", "level", "wait"), .special = pt_api_logs_get },
	{ "GET", "/agent/v1/ping", A, "Is this key good?", .read = pt_api_ping },
	{ "POST", "/agent/v1/exchange", A, "The link of an agent instance.", &pt_exchange_request_shape,
	  .body_max = EXCHANGE_BODY, .special = pt_api_exchange },
	{ "POST", "/agent/v1/logs", A, "Log lines of an agent instance.", &pt_log_batch_shape, .body_max = 256 * 1024,
	  .special = pt_api_logs_intake },
	{ "POST", "/agent/v1/results", A, "Deliver up to 64 small results, each of which stands or fails alone.",
	  &pt_results_shape, .body_max = RESULTS_BODY, .special = pt_api_results },
	{ "PUT", "/agent/v1/operations/{id}/attempts/{n}/result", A, "Deliver the result of an attempt.",
	  .stream = &pt_api_result_stream },
};
const size_t pt_api_n_routes = PT_COUNT(pt_api_routes);

/* --- authentication --- */

static int bad_credentials(struct pt_gateway *g, struct pt_err *err)
{
	g->m.auth_failed++;
	(void)pt_fail(err, PT_E_UNAUTHENTICATED, "the credentials are wrong, expired or revoked");
	return pt_hint(err, "`postern ctl keys create` makes a new key of an agent, `postern ctl tokens create` a token");
}

static int auth_token(struct pt_gateway *g, const char *token, struct pt_caller *who, struct pt_err *err)
{
	pt_auto_rec(token) t = { 0 };
	pt_auto_rec(user) u = { 0 };
	char hash[65];
	int rc;

	pt_sha256_hex(token, strlen(token), hash);
	t.hash = strdup(hash);
	if (!t.hash)
		return pt_fail_oom(err);
	rc = pt_db_find(g->db, &pt_tokens, &pt_tokens_by_hash, &t, err);
	if (rc == PT_E_NOT_FOUND || (rc == 0 && t.expires && t.expires <= pt_gateway_now(g)))
		return bad_credentials(g, err);
	if (rc < 0)
		return rc;
	pt_id_copy(u.id, t.user);
	rc = pt_db_get(g->db, &pt_users, &u, err);
	if (rc == PT_E_NOT_FOUND)
		return bad_credentials(g, err);
	if (rc < 0)
		return rc;
	who->role = (enum pt_role)u.role;
	pt_id_copy(who->account, u.account);
	pt_id_copy(who->user, u.id);
	pt_id_copy(who->key, t.id);
	snprintf(who->name, sizeof(who->name), "%s", u.name);
	return PT_OK;
}

static int auth_key(struct pt_gateway *g, const char *basic, struct pt_caller *who, struct pt_err *err)
{
	pt_auto_rec(key) k = { 0 };
	pt_auto_rec(agent) a = { 0 };
	pt_auto_buf text = PT_BUF_INIT(512);
	char *colon, hash[65];
	int rc;

	if (pt_base64_decode(basic, strlen(basic), &text, err) < 0 || !(colon = memchr(text.p, ':', text.len)) ||
	    colon - text.p >= PT_ID_SIZE)
		return bad_credentials(g, err);
	*colon = '\0';
	pt_id_copy(k.id, text.p);
	pt_sha256_hex(colon + 1, strlen(colon + 1), hash);
	explicit_bzero(colon + 1, strlen(colon + 1));
	rc = *k.id ? pt_db_get(g->db, &pt_keys, &k, err) : PT_E_NOT_FOUND;
	if (rc == PT_E_NOT_FOUND || (rc == 0 && (!pt_equal_secret(hash, k.hash) || (k.expires && k.expires <= pt_gateway_now(g)))))
		return bad_credentials(g, err);
	if (rc < 0)
		return rc;
	pt_id_copy(a.id, k.agent);
	rc = pt_db_get(g->db, &pt_agents, &a, err);
	if (rc == PT_E_NOT_FOUND)
		return bad_credentials(g, err);
	if (rc < 0)
		return rc;
	who->role = PT_ROLE_AGENT;
	pt_id_copy(who->account, a.account);
	pt_id_copy(who->agent, a.id);
	pt_id_copy(who->key, k.id);
	snprintf(who->name, sizeof(who->name), "%s", a.name);
	return PT_OK;
}

int pt_authenticate(struct pt_gateway *g, struct pt_http_req *r, enum pt_role need, struct pt_caller *who, struct pt_err *err)
{
	const char *h = pt_http_header(r, "Authorization");
	int rc;

	*who = (struct pt_caller){ 0 };
	if (need == PT_ROLE_NONE)
		return PT_OK;
	if (!h) {
		(void)pt_fail(err, PT_E_UNAUTHENTICATED, "no credentials were sent");
		return pt_hint(err, need == PT_ROLE_AGENT ? "send the agent's key: Authorization: Basic key_id:key_secret"
							  : "send an API token: Authorization: Bearer TOKEN");
	}
	if (strncasecmp(h, "Bearer ", 7) == 0)
		rc = auth_token(g, h + 7 + strspn(h + 7, " "), who, err);
	else if (strncasecmp(h, "Basic ", 6) == 0)
		rc = auth_key(g, h + 6 + strspn(h + 6, " "), who, err);
	else
		rc = pt_fail(err, PT_E_UNAUTHENTICATED, "the Authorization header is neither Bearer nor Basic");
	if (rc < 0)
		return rc;
	if ((need == PT_ROLE_AGENT) != (who->role == PT_ROLE_AGENT))
		return pt_fail(err, PT_E_DENIED, need == PT_ROLE_AGENT ? "this endpoint is for agents' keys, not for API tokens"
								       : "this endpoint is for API tokens, not for agents' keys");
	if (who->role < need) {
		(void)pt_fail(err, PT_E_DENIED, "this needs the role %s; %s has the role %s", pt_role_name(need), who->name,
			      pt_role_name(who->role));
		return pt_hint(err, "ask an owner of the account");
	}
	return PT_OK;
}

/* --- one request --- */

void pt_call_free(struct pt_call *c)
{
	if (c->body) {
		pt_shape_release(c->route->shape, c->body);
		free(c->body);
	}
	if (c->extra_free)
		c->extra_free(c->extra);
	pt_buf_release(&c->out);
	free(c);
}

void pt_call_end(void *c)
{
	pt_call_free(c);
}

void pt_call_reply(struct pt_call *c)
{
	bool of_request = c->of_request; /* then c may be gone as soon as it is answered */

	if (c->content_type)
		pt_http_reply_buf(c->req, c->status, c->content_type, &c->out);
	else
		pt_http_reply_json(c->req, c->status, &c->out);
	if (!of_request)
		pt_call_free(c);
}

void pt_call_fail(struct pt_call *c, const struct pt_err *err)
{
	bool of_request = c->of_request;

	if (pt_code_http(err->code) == 500)
		pt_log_err(PT_LOG_ERROR, "request failed", err, "method", pt_http_method(c->req), "path", pt_http_path(c->req));
	pt_http_reply_err(c->req, err);
	if (!of_request)
		pt_call_free(c);
}

static int write_run(struct pt_tx *tx, struct pt_write_job *job, struct pt_err *err)
{
	struct pt_call *c = pt_container_of(job, struct pt_call, job);

	pt_buf_clear(&c->out);
	return c->route->write(c, tx, err);
}

static void write_done(struct pt_write_job *job, int rc)
{
	struct pt_call *c = pt_container_of(job, struct pt_call, job);

	if (rc < 0)
		pt_call_fail(c, &job->err);
	else
		pt_call_reply(c);
}

struct query_check {
	const struct pt_api_route *route;
	struct pt_err *err;
};

static int known_query(void *arg, const char *name, const char *value)
{
	struct query_check *q = arg;

	(void)value;
	for (const char *const *k = q->route->query; k && *k; k++)
		if (strcmp(*k, name) == 0)
			return 0;
	return pt_fail(q->err, PT_E_INVALID, "unknown query argument '%.60s'", name);
}

int pt_check_query(struct pt_http_req *r, const struct pt_api_route *route, struct pt_err *err)
{
	return pt_http_query_each(r, known_query, &(struct query_check){ route, err });
}

int pt_undecoded(int rc, struct pt_err *err)
{
	if (rc < 0 && !*err->hint)
		(void)pt_hint(err, "GET /api/v1/openapi.json describes the body");
	return rc;
}

static int decode_body(struct pt_call *c, struct pt_err *err)
{
	size_t n;
	const char *text = pt_http_body(c->req, &n);

	if (!c->route->shape)
		return n ? pt_fail(err, PT_E_INVALID, "this endpoint takes no body") : PT_OK;
	c->body = calloc(1, c->route->shape->size);
	if (!c->body)
		return pt_fail_oom(err);
	if (!n && c->route->body_optional)
		return PT_OK;
	return pt_undecoded(pt_shape_parse(c->route->shape, text, n, c->body, err), err);
}

static void serve(struct pt_http_req *r, void *ctx)
{
	const struct pt_api_route *route = pt_http_req_route(r)->meta;
	struct pt_call *c = calloc(1, sizeof(*c));
	struct pt_tx *tx = NULL;
	struct pt_err err = { 0 };
	int rc;

	if (!c) {
		(void)pt_fail_oom(&err);
		pt_http_reply_err(r, &err);
		return;
	}
	*c = (struct pt_call){ .g = ctx, .req = r, .route = route, .status = 200, .out = PT_BUF_INIT(OUT_MAX) };
	rc = pt_authenticate(c->g, r, route->role, &c->who, &err);
	if (rc == 0)
		rc = pt_check_query(r, route, &err);
	if (rc == 0)
		rc = decode_body(c, &err);
	if (rc == 0 && route->prepare)
		rc = route->prepare(c, &err);
	if (rc < 0) {
		pt_call_fail(c, &err);
	} else if (route->special) {
		route->special(c);
	} else if (route->write) {
		c->job.run = write_run;
		c->job.done = write_done;
		c->of_request = true;
		pt_http_set_data(r, c, pt_call_end);
		pt_http_hold(r, NULL, NULL);
		pt_writer_submit(c->g->writer, &c->job);
	} else {
		rc = pt_db_begin(c->g->db, false, &tx, &err);
		if (rc == 0)
			rc = route->read(c, tx, &err);
		pt_tx_rollback(tx);
		if (rc < 0)
			pt_call_fail(c, &err);
		else
			pt_call_reply(c);
	}
}

static void handle(struct pt_http_req *r, void *ctx)
{
	struct pt_err err = { 0 };

	if (pt_gateway_enter(ctx)) {
		serve(r, ctx);
		pt_gateway_leave(ctx);
	} else {
		(void)pt_gateway_closed(&err);
		pt_http_reply_err(r, &err);
	}
}

struct pt_http_route *pt_api_http_routes(void)
{
	struct pt_http_route *out = calloc(pt_api_n_routes, sizeof(*out));

	for (size_t i = 0; out && i < pt_api_n_routes; i++) {
		const struct pt_api_route *r = &pt_api_routes[i];

		if (r->stream)
			out[i] = *r->stream;
		else
			out[i] = (struct pt_http_route){ .handle = handle,
							 .body_max = r->body_max ? r->body_max : r->shape ? SMALL_BODY : 0 };
		out[i].method = r->method;
		out[i].path = r->path;
		out[i].meta = r;
	}
	return out;
}

int pt_query_i64(struct pt_call *c, const char *name, int64_t min, int64_t max, int64_t def, int64_t *ret, struct pt_err *err)
{
	const char *s = pt_http_query(c->req, name);
	char *end = NULL;
	long long v;

	*ret = def;
	if (!s)
		return PT_OK;
	errno = 0;
	v = strtoll(s, &end, 10);
	if (errno || end == s || *end || v < min || v > max)
		return pt_fail(err, PT_E_INVALID, "%s: '%.40s' is not a number from %lld to %lld", name, s, (long long)min, (long long)max);
	*ret = v;
	return PT_OK;
}

/* --- finding records --- */

int pt_find_agent(struct pt_tx *tx, const char *account, const char *id_or_name, struct pt_rec_agent *ret, struct pt_err *err)
{
	int rc;

	if (pt_id_valid(id_or_name, "ag")) {
		pt_id_copy(ret->id, id_or_name);
		rc = pt_tx_get(tx, &pt_agents, ret, err);
	} else {
		pt_id_copy(ret->account, account);
		ret->name = strdup(id_or_name);
		rc = ret->name ? pt_tx_find(tx, &pt_agents, &pt_agents_by_name, ret, err) : pt_fail_oom(err);
	}
	if (rc == PT_E_NOT_FOUND || (rc == 0 && strcmp(ret->account, account) != 0)) {
		pt_rec_agent_release(ret);
		return pt_fail(err, PT_E_NOT_FOUND, "no agent '%.80s'", id_or_name);
	}
	return rc;
}

int pt_find_integration(struct pt_tx *tx, const char *account, const char *id_or_name, struct pt_rec_integration *ret, struct pt_err *err)
{
	int rc;

	if (pt_id_valid(id_or_name, "int")) {
		pt_id_copy(ret->id, id_or_name);
		rc = pt_tx_get(tx, &pt_integrations, ret, err);
	} else {
		pt_id_copy(ret->account, account);
		ret->name = strdup(id_or_name);
		rc = ret->name ? pt_tx_find(tx, &pt_integrations, &pt_integrations_by_name, ret, err) : pt_fail_oom(err);
	}
	if (rc == PT_E_NOT_FOUND || (rc == 0 && strcmp(ret->account, account) != 0)) {
		pt_rec_integration_release(ret);
		return pt_fail(err, PT_E_NOT_FOUND, "no integration '%.80s'", id_or_name);
	}
	return rc;
}

int pt_find_operation(struct pt_tx *tx, const char *account, const char *id, struct pt_rec_operation *ret, struct pt_err *err)
{
	int rc = PT_E_NOT_FOUND;

	if (pt_id_valid(id, "op")) {
		pt_id_copy(ret->id, id);
		rc = pt_tx_get(tx, &pt_operations, ret, err);
	}
	if (rc == PT_E_NOT_FOUND || (rc == 0 && strcmp(ret->account, account) != 0)) {
		pt_rec_operation_release(ret);
		return pt_fail(err, PT_E_NOT_FOUND, "no operation '%.60s'", id);
	}
	return rc;
}
