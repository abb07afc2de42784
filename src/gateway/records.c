#include "gateway/records.h"
#include <stdio.h>

#define ID(st, m, ...)   PT_F(st, m, PT_T_ID, 0, ##__VA_ARGS__)
#define KEY(st, m)       PT_F(st, m, PT_T_ID, PT_KEY)
#define STR(st, m)       PT_F(st, m, PT_T_STR, 0)
#define I64(st, m)       PT_F(st, m, PT_T_I64, 0)
#define BOOL(st, m)      PT_F(st, m, PT_T_BOOL, 0)
#define FIELDS(kind)     static const struct pt_field kind##_fields[]
#define SHAPE(kind)      static const struct pt_shape kind##_shape = PT_SHAPE(#kind, struct pt_rec_##kind, kind##_fields); \
	void pt_rec_##kind##_release(struct pt_rec_##kind *r) { pt_shape_release(&kind##_shape, r); }

FIELDS(account) = { KEY(struct pt_rec_account, id), STR(struct pt_rec_account, name), I64(struct pt_rec_account, created) };
SHAPE(account)

FIELDS(user) = { KEY(struct pt_rec_user, id), ID(struct pt_rec_user, account), STR(struct pt_rec_user, name),
		 I64(struct pt_rec_user, role), I64(struct pt_rec_user, created) };
SHAPE(user)

FIELDS(token) = { KEY(struct pt_rec_token, id),	  ID(struct pt_rec_token, account),  ID(struct pt_rec_token, user),
		  STR(struct pt_rec_token, name), STR(struct pt_rec_token, hash),    I64(struct pt_rec_token, created),
		  I64(struct pt_rec_token, expires) };
SHAPE(token)

FIELDS(agent) = { KEY(struct pt_rec_agent, id),	  ID(struct pt_rec_agent, account),   STR(struct pt_rec_agent, name),
		  STR(struct pt_rec_agent, kind), BOOL(struct pt_rec_agent, enabled), I64(struct pt_rec_agent, created) };
SHAPE(agent)

FIELDS(key) = { KEY(struct pt_rec_key, id),	ID(struct pt_rec_key, account),	 ID(struct pt_rec_key, agent),
		STR(struct pt_rec_key, name),	STR(struct pt_rec_key, hash),	 I64(struct pt_rec_key, created),
		I64(struct pt_rec_key, expires) };
SHAPE(key)

FIELDS(integration) = {
	KEY(struct pt_rec_integration, id),
	ID(struct pt_rec_integration, account),
	ID(struct pt_rec_integration, agent),
	STR(struct pt_rec_integration, name),
	STR(struct pt_rec_integration, connection_type),
	STR(struct pt_rec_integration, credential_type),
	STR(struct pt_rec_integration, file_path),
	STR(struct pt_rec_integration, env_var_name),
	I64(struct pt_rec_integration, created),
};
SHAPE(integration)

#define OP struct pt_rec_operation
FIELDS(operation) = {
	KEY(OP, id),	       ID(OP, account),	       ID(OP, agent),		  ID(OP, integration),	   ID(OP, created_by),
	STR(OP, type),	       STR(OP, input),	       STR(OP, labels),		  I64(OP, timeout_ms),	   I64(OP, max_rows),
	I64(OP, max_bytes),    I64(OP, priority),      I64(OP, deadline),	  I64(OP, max_attempts),   BOOL(OP, at_most_once),
	STR(OP, idempotency_key), STR(OP, request_digest), I64(OP, state),	  I64(OP, queue),	   I64(OP, rank),
	I64(OP, due),	       I64(OP, attempt),       I64(OP, released),       ID(OP, instance),	  STR(OP, reason),	   STR(OP, error),
	BOOL(OP, cancel_requested), I64(OP, events),	  I64(OP, created),	   I64(OP, leased_at),
	I64(OP, started_at),   I64(OP, finished_at),
};
SHAPE(operation)

FIELDS(lease) = { KEY(struct pt_rec_lease, instance), KEY(struct pt_rec_lease, operation), ID(struct pt_rec_lease, agent),
		  I64(struct pt_rec_lease, attempt),  I64(struct pt_rec_lease, leased_at), I64(struct pt_rec_lease, until),
		  BOOL(struct pt_rec_lease, started), I64(struct pt_rec_lease, stop_at) };
SHAPE(lease)

FIELDS(event) = { KEY(struct pt_rec_event, operation), PT_F(struct pt_rec_event, seq, PT_T_I64, PT_KEY), I64(struct pt_rec_event, at),
		  I64(struct pt_rec_event, attempt),   STR(struct pt_rec_event, event), STR(struct pt_rec_event, detail),
		  ID(struct pt_rec_event, instance) };
SHAPE(event)

FIELDS(result) = { KEY(struct pt_rec_result, operation), PT_F(struct pt_rec_result, attempt, PT_T_I64, PT_KEY),
		   STR(struct pt_rec_result, head),	 PT_F(struct pt_rec_result, body, PT_T_BYTES, 0),
		   STR(struct pt_rec_result, blob),	 I64(struct pt_rec_result, stored_at) };
SHAPE(result)



#define TABLE(var, text, kind, ...)                                                                                          \
	static const struct pt_index kind##_indexes[] = { __VA_ARGS__ };                                                     \
	const struct pt_table var = { .name = text, .shape = &kind##_shape, .indexes = kind##_indexes, .n_indexes = PT_COUNT(kind##_indexes) }

const struct pt_table pt_accounts = { .name = "accounts", .shape = &account_shape };
TABLE(pt_users, "users", user,
      { .name = "users_by_name", .cols = { "account", "name" }, .unique = true });
TABLE(pt_tokens, "tokens", token,
      { .name = "tokens_by_hash", .cols = { "hash" }, .unique = true },
      { .name = "tokens_by_user", .cols = { "account", "user" } });
TABLE(pt_agents, "agents", agent,
      { .name = "agents_by_name", .cols = { "account", "name" }, .unique = true });
TABLE(pt_keys, "keys", key,
      { .name = "keys_by_agent", .cols = { "agent" } });
TABLE(pt_integrations, "integrations", integration,
      { .name = "integrations_by_name", .cols = { "account", "name" }, .unique = true },
      { .name = "integrations_by_agent", .cols = { "agent" } });
TABLE(pt_operations, "operations", operation,
      { .name = "operations_by_queue", .cols = { "agent", "queue", "rank" } },
      { .name = "operations_by_account", .cols = { "account", "id" } },
      { .name = "operations_by_due", .cols = { "due" } },
      { .name = "operations_by_idempotency", .cols = { "account", "idempotency_key" }, .unique = true });
TABLE(pt_leases, "leases", lease,
      { .name = "leases_by_until", .cols = { "until" } });
const struct pt_table pt_events = { .name = "events", .shape = &event_shape };
TABLE(pt_results, "results", result,
      { .name = "results_by_blob", .cols = { "blob" } });

const struct pt_table *const pt_gateway_tables[] = { &pt_accounts,   &pt_users,	 &pt_tokens, &pt_agents, &pt_keys, &pt_integrations,
						     &pt_operations, &pt_leases, &pt_events, &pt_results, NULL };

int pt_collect_id(void *list, void *rec)
{
	struct pt_err ignored;

	return pt_list_append(list, PT_ID_SIZE, rec, &ignored);
}

int pt_collect_lease(void *list, void *rec)
{
	struct pt_err ignored;

	return pt_list_append(list, sizeof(struct pt_rec_lease), rec, &ignored);
}

void pt_id_copy(char dst[static PT_ID_SIZE], const char *src)
{
	snprintf(dst, PT_ID_SIZE, "%s", src ? src : "");
}

static const char *const role_names[] = { "none", "viewer", "operator", "owner", "agent" };

const char *pt_role_name(enum pt_role r)
{
	return role_names[r];
}

enum pt_role pt_role_from(const char *name)
{
	for (size_t i = PT_ROLE_VIEWER; i <= PT_ROLE_OWNER; i++)
		if (strcmp(role_names[i], name) == 0)
			return (enum pt_role)i;
	return PT_ROLE_NONE;
}
