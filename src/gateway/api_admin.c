/* Accounts' own things: users, API tokens, agents, keys, integrations. */
#include "base/id.h"
#include "base/json_write.h"
#include "connector/connector.h"
#include "credential/credential.h"
#include "gateway/internal.h"
#include <stdio.h>

struct user_new {
	char *name, *role;
};
struct token_new {
	char *user, *name;
	int64_t expires_in_s;
};
struct agent_new {
	char *name, *kind;
};
struct key_new {
	char *name;
	int64_t expires_in_s;
};
struct integration_new {
	char *name, *connection_type, *agent;
	struct pt_credential_ref credential;
};

enum { NAME_MAX_BYTES = 63, YEARS_10 = 10 * 366 * 86400 };
static const char *const roles[] = { "viewer", "operator", "owner", NULL };
static const char *const kinds[] = { "generic", NULL };

#define NAME(st, fl) PT_F(st, name, PT_T_STR, fl, .max = NAME_MAX_BYTES, .help = "letters, digits, '-', '_' and '.'; unique in the account")
#define EXPIRES(st)  PT_F(st, expires_in_s, PT_T_I64, PT_SKIP_ZERO, .min = 1, .max = YEARS_10, .help = "seconds from now; absent = never")
static const struct pt_field user_fields[] = {
	NAME(struct user_new, PT_REQUIRED),
	PT_F(struct user_new, role, PT_T_STR, PT_REQUIRED, .values = roles, .help = "what the user may do"),
};
static const struct pt_field token_fields[] = {
	PT_F(struct token_new, user, PT_T_STR, PT_REQUIRED, .max = NAME_MAX_BYTES, .help = "id or name of the user"),
	PT_F(struct token_new, name, PT_T_STR, 0, .max = NAME_MAX_BYTES, .help = "for people: where it is used"),
	EXPIRES(struct token_new),
};
static const struct pt_field agent_fields[] = {
	NAME(struct agent_new, PT_REQUIRED),
	PT_F(struct agent_new, kind, PT_T_STR, 0, .values = kinds, .help = "generic (default)"),
};
static const struct pt_field key_fields[] = {
	PT_F(struct key_new, name, PT_T_STR, 0, .max = NAME_MAX_BYTES, .help = "for people: where it is used"),
	EXPIRES(struct key_new),
};
static const struct pt_field integration_fields[] = {
	NAME(struct integration_new, PT_REQUIRED),
	PT_F(struct integration_new, connection_type, PT_T_STR, PT_REQUIRED, .max = 40, .help = "postgres, sqlite"),
	PT_F(struct integration_new, agent, PT_T_STR, PT_REQUIRED, .max = NAME_MAX_BYTES, .help = "id or name of the agent that reaches it"),
	PT_F(struct integration_new, credential, PT_T_SHAPE, PT_REQUIRED, .sub = &pt_credential_ref_shape,
	     .help = "where the agent finds the secret; the secret itself never comes here"),
};
const struct pt_shape pt_user_new_shape = PT_SHAPE("user", struct user_new, user_fields),
		      pt_token_new_shape = PT_SHAPE("token", struct token_new, token_fields),
		      pt_agent_new_shape = PT_SHAPE("agent", struct agent_new, agent_fields),
		      pt_key_new_shape = PT_SHAPE("key", struct key_new, key_fields),
		      pt_integration_new_shape = PT_SHAPE("integration", struct integration_new, integration_fields);

/* Names go into URLs, files and labels. */
static int check_name(const char *name, struct pt_err *err)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");

	if (!*name || name[n] || *name == '.' || *name == '-')
		return pt_fail(err, PT_E_INVALID, "name: '%.63s' may only have the letters a-z and A-Z, digits, '-', '_' and '.', and not begin with '-' or '.'",
			       name);
	return PT_OK;
}

static int taken(int rc, const char *kind, const char *name, struct pt_err *err)
{
	return rc == PT_E_CONFLICT ? pt_fail(err, rc, "there is already %s named '%s'", kind, name) : rc;
}

static void begin_items(struct pt_call *c)
{
	pt_jw_open(&c->out, NULL, '{');
	pt_jw_open(&c->out, "items", '[');
}

static int end_items(struct pt_call *c, int rc)
{
	pt_jw_close(&c->out, ']');
	pt_jw_close(&c->out, '}');
	return rc < 0 ? rc : PT_OK;
}

static int64_t expiry(struct pt_call *c, int64_t in_s)
{
	return in_s ? pt_gateway_now(c->g) + in_s * 1000 : 0;
}

/* --- users --- */

static void view_user(const struct pt_rec_user *u, struct pt_buf *b)
{
	pt_jw_open(b, NULL, '{');
	pt_jw_str(b, "id", u->id);
	pt_jw_str(b, "name", u->name);
	pt_jw_str(b, "role", pt_role_name((enum pt_role)u->role));
	pt_jw_time(b, "created_at", u->created);
	pt_jw_close(b, '}');
}

int pt_api_whoami(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	pt_auto_rec(account) a = { 0 };
	int rc;

	pt_id_copy(a.id, c->who.account);
	if ((rc = pt_tx_get(tx, &pt_accounts, &a, err)) < 0)
		return rc;
	pt_jw_open(&c->out, NULL, '{');
	pt_jw_str(&c->out, "user", c->who.user);
	pt_jw_str(&c->out, "name", c->who.name);
	pt_jw_str(&c->out, "role", pt_role_name(c->who.role));
	pt_jw_str(&c->out, "account", a.id);
	pt_jw_str(&c->out, "account_name", a.name);
	pt_jw_close(&c->out, '}');
	return PT_OK;
}

int pt_api_users_create(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	struct user_new *in = c->body;
	struct pt_rec_user u = { .name = in->name, .role = pt_role_from(in->role), .created = pt_gateway_now(c->g) };
	int rc = check_name(in->name, err);

	if (rc < 0)
		return rc;
	pt_id_new(u.id, "usr");
	pt_id_copy(u.account, c->who.account);
	if ((rc = taken(pt_tx_insert(tx, &pt_users, &u, err), "a user", in->name, err)) < 0)
		return rc;
	c->status = 201;
	view_user(&u, &c->out);
	return PT_OK;
}

static int list_user(void *arg, void *rec)
{
	view_user(rec, arg);
	return 0;
}

int pt_api_users_list(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	struct pt_rec_user m = { 0 };

	pt_id_copy(m.account, c->who.account);
	begin_items(c);
	return end_items(c, pt_tx_scan(tx, &pt_users, &(struct pt_scan){ .index = &pt_users_by_name, .match = &m, .n_eq = 1 }, list_user,
				       &c->out, err));
}

static int remove_matching(struct pt_tx *tx, const struct pt_table *t, const struct pt_index *index, const void *match,
			   unsigned n_eq, struct pt_err *err)
{
	struct pt_list ids = { 0 };
	int rc = pt_tx_scan(tx, t, &(struct pt_scan) { .index = index, .match = match, .n_eq = n_eq }, pt_collect_id, &ids, err);

	for (size_t i = 0; rc == 0 && i < ids.n; i++) {
		char rec[sizeof(struct pt_rec_operation)] __attribute__((aligned(16))) = { 0 };

		memcpy(rec, (char *)ids.items + i * PT_ID_SIZE, PT_ID_SIZE);
		rc = pt_tx_remove(tx, t, rec, err);
	}
	free(ids.items);
	return rc;
}

int pt_api_users_delete(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	const char *id = pt_http_param(c->req, "id");
	pt_auto_rec(user) u = { 0 };
	struct pt_rec_token m = { 0 };
	int rc;

	pt_id_copy(u.id, id);
	rc = pt_tx_get(tx, &pt_users, &u, err);
	if (rc == PT_E_NOT_FOUND || (rc == 0 && strcmp(u.account, c->who.account) != 0))
		return pt_fail(err, PT_E_NOT_FOUND, "no user '%.60s'", id);
	if (rc < 0)
		return rc;
	if (strcmp(u.id, c->who.user) == 0) {
		(void)pt_fail(err, PT_E_CONFLICT, "a user cannot delete itself");
		return pt_hint(err, "another owner can");
	}
	pt_id_copy(m.account, c->who.account);
	pt_id_copy(m.user, u.id);
	if ((rc = remove_matching(tx, &pt_tokens, &pt_tokens_by_user, &m, 2, err)) < 0)
		return rc;
	view_user(&u, &c->out);
	return pt_tx_remove(tx, &pt_users, &u, err);
}

/* --- tokens --- */

static void view_token(const struct pt_rec_token *t, const char *secret, struct pt_buf *b)
{
	pt_jw_open(b, NULL, '{');
	pt_jw_str(b, "id", t->id);
	pt_jw_str(b, "user", t->user);
	pt_jw_str(b, "name", t->name);
	pt_jw_str(b, "token", secret);
	pt_jw_time(b, "created_at", t->created);
	pt_jw_time(b, "expires_at", t->expires);
	pt_jw_close(b, '}');
}

int pt_api_tokens_create(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	struct token_new *in = c->body;
	pt_auto_rec(user) u = { 0 };
	pt_auto(pt_freep) char *secret = pt_secret_new("ptt_");
	struct pt_rec_token t = { .name = in->name, .created = pt_gateway_now(c->g), .expires = expiry(c, in->expires_in_s) };
	char hash[65];
	int rc;

	if (!secret)
		return pt_fail_oom(err);
	if (pt_id_valid(in->user, "usr")) {
		pt_id_copy(u.id, in->user);
		rc = pt_tx_get(tx, &pt_users, &u, err);
	} else {
		pt_id_copy(u.account, c->who.account);
		u.name = strdup(in->user);
		rc = u.name ? pt_tx_find(tx, &pt_users, &pt_users_by_name, &u, err) : pt_fail_oom(err);
	}
	if (rc == PT_E_NOT_FOUND || (rc == 0 && strcmp(u.account, c->who.account) != 0))
		return pt_fail(err, PT_E_NOT_FOUND, "no user '%.60s'", in->user);
	if (rc < 0)
		return rc;
	pt_id_new(t.id, "tok");
	pt_id_copy(t.account, c->who.account);
	pt_id_copy(t.user, u.id);
	pt_sha256_hex(secret, strlen(secret), hash);
	t.hash = hash;
	c->status = 201;
	view_token(&t, secret, &c->out);
	explicit_bzero(secret, strlen(secret));
	return pt_tx_insert(tx, &pt_tokens, &t, err);
}

static int list_token(void *arg, void *rec)
{
	view_token(rec, NULL, arg);
	return 0;
}

int pt_api_tokens_list(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	struct pt_rec_token m = { 0 };

	pt_id_copy(m.account, c->who.account);
	begin_items(c);
	return end_items(c, pt_tx_scan(tx, &pt_tokens, &(struct pt_scan){ .index = &pt_tokens_by_user, .match = &m, .n_eq = 1 }, list_token,
				       &c->out, err));
}

int pt_api_tokens_delete(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	const char *id = pt_http_param(c->req, "id");
	pt_auto_rec(token) t = { 0 };
	int rc;

	pt_id_copy(t.id, id);
	rc = pt_tx_get(tx, &pt_tokens, &t, err);
	if (rc == PT_E_NOT_FOUND || (rc == 0 && strcmp(t.account, c->who.account) != 0))
		return pt_fail(err, PT_E_NOT_FOUND, "no token '%.60s'", id);
	if (rc < 0)
		return rc;
	view_token(&t, NULL, &c->out);
	return pt_tx_remove(tx, &pt_tokens, &t, err);
}

/* --- agents --- */

int pt_api_agents_create(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	struct agent_new *in = c->body;
	struct pt_rec_agent a = { .name = in->name, .kind = in->kind ? in->kind : (char *)(uintptr_t)kinds[0],
				  .created = pt_gateway_now(c->g) };
	int rc = check_name(in->name, err);

	if (rc < 0)
		return rc;
	pt_id_new(a.id, "ag");
	pt_id_copy(a.account, c->who.account);
	if ((rc = taken(pt_tx_insert(tx, &pt_agents, &a, err), "an agent", in->name, err)) < 0)
		return rc;
	c->status = 201;
	pt_view_agent(c->g, &a, &c->out);
	return PT_OK;
}

static int list_agent(void *arg, void *rec)
{
	struct pt_call *c = arg;

	pt_jw_key(&c->out, NULL);
	pt_view_agent(c->g, rec, &c->out);
	return 0;
}

int pt_api_agents_list(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	struct pt_rec_agent m = { 0 };

	pt_id_copy(m.account, c->who.account);
	begin_items(c);
	return end_items(c, pt_tx_scan(tx, &pt_agents, &(struct pt_scan){ .index = &pt_agents_by_name, .match = &m, .n_eq = 1 }, list_agent, c,
				       err));
}

int pt_api_agents_get(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	pt_auto_rec(agent) a = { 0 };
	int rc = pt_find_agent(tx, c->who.account, pt_http_param(c->req, "id"), &a, err);

	if (rc == 0)
		pt_view_agent(c->g, &a, &c->out);
	return rc;
}

static int set_enabled(struct pt_call *c, struct pt_tx *tx, bool on, struct pt_err *err)
{
	pt_auto_rec(agent) a = { 0 };
	int rc = pt_find_agent(tx, c->who.account, pt_http_param(c->req, "id"), &a, err);

	if (rc < 0)
		return rc;
	if (a.enabled != on) {
		a.enabled = on;
		if ((rc = pt_tx_update(tx, &pt_agents, &a, err)) < 0)
			return rc;
		pt_presence_poke_agent(c->g, a.id);
	}
	pt_view_agent(c->g, &a, &c->out);
	return PT_OK;
}

int pt_api_agents_enable(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	return set_enabled(c, tx, true, err);
}

int pt_api_agents_disable(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	return set_enabled(c, tx, false, err);
}

/* End every open operation of the agent, whatever its place in the queue. */
static int cancel_all(struct pt_call *c, struct pt_tx *tx, const char *agent, bool force, struct pt_err *err)
{
	for (int64_t q = PT_QUEUE_READY; q <= PT_QUEUE_LEASED; q++) {
		struct pt_rec_operation m = { .queue = q };
		struct pt_list ids = { 0 };
		struct pt_err why = { 0 };
		int rc;

		pt_id_copy(m.agent, agent);
		rc = pt_tx_scan(tx, &pt_operations,
				&(struct pt_scan) { .index = &pt_operations_by_queue, .match = &m, .n_eq = 2 }, pt_collect_id,
				&ids, err);
		if (rc == 0 && ids.n && !force) {
			(void)pt_fail(err, PT_E_CONFLICT, "the agent has open operations");
			rc = pt_hint(err, "wait for them, or delete with force=true, which cancels them");
		}
		(void)pt_fail(&why, PT_E_CANCELLED, "the agent was deleted by %s", c->who.name);
		for (size_t i = 0; rc == 0 && i < ids.n; i++) {
			pt_auto_rec(operation) op = { 0 };

			pt_id_copy(op.id, (char *)ids.items + i * PT_ID_SIZE);
			if ((rc = pt_tx_get(tx, &pt_operations, &op, err)) == 0)
				rc = pt_op_finish(c->g, tx, &op, PT_OP_CANCELLED, &why, err);
		}
		free(ids.items);
		if (rc < 0)
			return rc;
	}
	return PT_OK;
}

int pt_api_agents_delete(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	const char *force = pt_http_query(c->req, "force");
	pt_auto_rec(agent) a = { 0 };
	struct pt_rec_key k = { 0 };
	struct pt_rec_integration in = { 0 };
	int rc;

	if (force && strcmp(force, "true") != 0 && strcmp(force, "false") != 0)
		return pt_fail(err, PT_E_INVALID, "force: '%.40s' is neither true nor false", force);
	rc = pt_find_agent(tx, c->who.account, pt_http_param(c->req, "id"), &a, err);
	if (rc < 0 || (rc = cancel_all(c, tx, a.id, force && strcmp(force, "true") == 0, err)) < 0)
		return rc;
	pt_id_copy(k.agent, a.id);
	pt_id_copy(in.agent, a.id);
	if ((rc = remove_matching(tx, &pt_keys, &pt_keys_by_agent, &k, 1, err)) < 0 ||
	    (rc = remove_matching(tx, &pt_integrations, &pt_integrations_by_agent, &in, 1, err)) < 0)
		return rc;
	pt_view_agent(c->g, &a, &c->out);
	pt_presence_poke_agent(c->g, a.id);
	return pt_tx_remove(tx, &pt_agents, &a, err);
}

/* --- keys --- */

static void view_key(const struct pt_rec_key *k, const char *secret, struct pt_buf *b)
{
	pt_jw_open(b, NULL, '{');
	pt_jw_str(b, "key_id", k->id);
	pt_jw_str(b, "key_secret", secret);
	pt_jw_str(b, "agent", k->agent);
	pt_jw_str(b, "name", k->name);
	pt_jw_time(b, "created_at", k->created);
	pt_jw_time(b, "expires_at", k->expires);
	pt_jw_close(b, '}');
}

int pt_api_keys_create(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	struct key_new *in = c->body;
	pt_auto_rec(agent) a = { 0 };
	pt_auto(pt_freep) char *secret = pt_secret_new("pts_");
	struct pt_rec_key k = { .name = in->name, .created = pt_gateway_now(c->g), .expires = expiry(c, in->expires_in_s) };
	char hash[65];
	int rc;

	if (!secret)
		return pt_fail_oom(err);
	if ((rc = pt_find_agent(tx, c->who.account, pt_http_param(c->req, "id"), &a, err)) < 0)
		return rc;
	pt_id_new(k.id, "key");
	pt_id_copy(k.account, c->who.account);
	pt_id_copy(k.agent, a.id);
	pt_sha256_hex(secret, strlen(secret), hash);
	k.hash = hash;
	c->status = 201;
	view_key(&k, secret, &c->out);
	explicit_bzero(secret, strlen(secret));
	return pt_tx_insert(tx, &pt_keys, &k, err);
}

static int list_key(void *arg, void *rec)
{
	view_key(rec, NULL, arg);
	return 0;
}

int pt_api_keys_list(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	pt_auto_rec(agent) a = { 0 };
	struct pt_rec_key m = { 0 };
	int rc = pt_find_agent(tx, c->who.account, pt_http_param(c->req, "id"), &a, err);

	if (rc < 0)
		return rc;
	pt_id_copy(m.agent, a.id);
	begin_items(c);
	return end_items(c, pt_tx_scan(tx, &pt_keys, &(struct pt_scan){ .index = &pt_keys_by_agent, .match = &m, .n_eq = 1 }, list_key, &c->out,
				       err));
}

int pt_api_keys_delete(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	const char *id = pt_http_param(c->req, "id");
	pt_auto_rec(key) k = { 0 };
	int rc;

	pt_id_copy(k.id, id);
	rc = pt_tx_get(tx, &pt_keys, &k, err);
	if (rc == PT_E_NOT_FOUND || (rc == 0 && strcmp(k.account, c->who.account) != 0))
		return pt_fail(err, PT_E_NOT_FOUND, "no key '%.60s'", id);
	if (rc < 0)
		return rc;
	view_key(&k, NULL, &c->out);
	pt_presence_poke_agent(c->g, k.agent); /* an exchange that waits with this key ends */
	return pt_tx_remove(tx, &pt_keys, &k, err);
}

/* --- integrations --- */

int pt_api_integrations_create(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	struct integration_new *in = c->body;
	pt_auto_rec(agent) a = { 0 };
	const struct pt_connector *conn = pt_connector_find(in->connection_type);
	struct pt_rec_integration r = { .name = in->name, .connection_type = in->connection_type, .created = pt_gateway_now(c->g),
					.credential_type = in->credential.type, .file_path = in->credential.file_path,
					.env_var_name = in->credential.env_var_name };
	int rc = check_name(in->name, err);

	if (rc < 0)
		return rc;
	if (!conn) {
		char list[200] = "";

		for (const struct pt_connector *const *p = pt_connectors(); *p; p++)
			snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", *list ? ", " : "", (*p)->name);
		return pt_fail(err, PT_E_INVALID, "connection_type: '%s' is not one of %s", in->connection_type, list);
	}
	r.connection_type = (char *)(uintptr_t)conn->name; /* an alias becomes the name */
	if ((rc = pt_credential_check(&in->credential, err)) < 0 || (rc = pt_find_agent(tx, c->who.account, in->agent, &a, err)) < 0)
		return rc;
	pt_id_new(r.id, "int");
	pt_id_copy(r.account, c->who.account);
	pt_id_copy(r.agent, a.id);
	if ((rc = taken(pt_tx_insert(tx, &pt_integrations, &r, err), "an integration", in->name, err)) < 0)
		return rc;
	c->status = 201;
	return pt_view_integration(tx, &r, &c->out, err);
}

struct integration_list {
	struct pt_tx *tx;
	struct pt_buf *out;
	struct pt_err *err;
};

static int list_integration(void *arg, void *rec)
{
	struct integration_list *l = arg;

	pt_jw_key(l->out, NULL);
	return pt_view_integration(l->tx, rec, l->out, l->err);
}

int pt_api_integrations_list(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	struct integration_list l = { .tx = tx, .out = &c->out, .err = err };
	struct pt_rec_integration m = { 0 };

	pt_id_copy(m.account, c->who.account);
	begin_items(c);
	return end_items(c, pt_tx_scan(tx, &pt_integrations, &(struct pt_scan){ .index = &pt_integrations_by_name, .match = &m, .n_eq = 1 },
				       list_integration, &l, err));
}

int pt_api_integrations_get(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	pt_auto_rec(integration) i = { 0 };
	int rc = pt_find_integration(tx, c->who.account, pt_http_param(c->req, "id"), &i, err);

	return rc < 0 ? rc : pt_view_integration(tx, &i, &c->out, err);
}

int pt_api_integrations_delete(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	pt_auto_rec(integration) i = { 0 };
	int rc = pt_find_integration(tx, c->who.account, pt_http_param(c->req, "id"), &i, err);

	if (rc < 0)
		return rc;
	rc = pt_view_integration(tx, &i, &c->out, err);
	return rc < 0 ? rc : pt_tx_remove(tx, &pt_integrations, &i, err);
}
