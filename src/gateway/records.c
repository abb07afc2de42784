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
#define CONST(m, ty) PT_F(OP, m, ty, PT_CONST)
FIELDS(operation) = {
	/* what was submitted stays as it is … */
	KEY(OP, id),
	CONST(account, PT_T_ID),
	CONST(agent, PT_T_ID),
	CONST(integration, PT_T_ID),
	CONST(created_by, PT_T_ID),
	CONST(type, PT_T_STR),
	CONST(input_bytes, PT_T_I64),
	CONST(labels, PT_T_STR),
	CONST(timeout_ms, PT_T_I64),
	CONST(max_rows, PT_T_I64),
	CONST(max_bytes, PT_T_I64),
	CONST(priority, PT_T_I64),
	CONST(deadline, PT_T_I64),
	CONST(max_attempts, PT_T_I64),
	CONST(at_most_once, PT_T_BOOL),
	CONST(idempotency_key, PT_T_STR),
	CONST(request_digest, PT_T_STR),
	CONST(retry, PT_T_STR),
	CONST(rerun_of, PT_T_ID),
	CONST(created, PT_T_I64),
	/* … and this changes */
	I64(OP, state),
	I64(OP, queue),
	I64(OP, rank),
	I64(OP, due),
	I64(OP, attempt),
	I64(OP, released),
	ID(OP, instance),
	STR(OP, reason),
	STR(OP, error),
	BOOL(OP, cancel_requested),
	I64(OP, events),
	STR(OP, timeline),
	I64(OP, leased_at),
	I64(OP, started_at),
	I64(OP, finished_at),
};
SHAPE(operation)

FIELDS(lease) = { KEY(struct pt_rec_lease, instance), KEY(struct pt_rec_lease, operation), ID(struct pt_rec_lease, agent),
		  I64(struct pt_rec_lease, attempt),  I64(struct pt_rec_lease, leased_at), I64(struct pt_rec_lease, until),
		  BOOL(struct pt_rec_lease, started), I64(struct pt_rec_lease, stop_at) };
SHAPE(lease)

FIELDS(input) = { KEY(struct pt_rec_input, operation), STR(struct pt_rec_input, input) };
SHAPE(input)

FIELDS(result) = { KEY(struct pt_rec_result, operation), PT_F(struct pt_rec_result, attempt, PT_T_I64, PT_KEY),
		   STR(struct pt_rec_result, head),	 PT_F(struct pt_rec_result, body, PT_T_BYTES, 0),
		   STR(struct pt_rec_result, blob),	 I64(struct pt_rec_result, stored_at) };
SHAPE(result)

FIELDS(dead_letter) = { KEY(struct pt_rec_dead_letter, account), KEY(struct pt_rec_dead_letter, operation),
			ID(struct pt_rec_dead_letter, agent), I64(struct pt_rec_dead_letter, state) };
SHAPE(dead_letter)

FIELDS(settlement) = { KEY(struct pt_rec_settlement, operation), STR(struct pt_rec_settlement, decision),
		       STR(struct pt_rec_settlement, note),      STR(struct pt_rec_settlement, by_name),
		       ID(struct pt_rec_settlement, by),         ID(struct pt_rec_settlement, rerun),
		       I64(struct pt_rec_settlement, at) };
SHAPE(settlement)

#define TABLE(var, text, kind, more, ...)                                                                                    \
	static const struct pt_index kind##_indexes[] = { __VA_ARGS__ };                                                     \
	const struct pt_table var = {                                                                                        \
		.name = text, .shape = &kind##_shape, .indexes = kind##_indexes, .n_indexes = PT_COUNT(kind##_indexes), more \
	}
#define STEADY .steady = true
#define LARGE  .small = false
#define SMALL  .small = true

const struct pt_table pt_accounts = { .name = "accounts", .shape = &account_shape, STEADY };
TABLE(pt_users, "users", user, STEADY, { .name = "users_by_name", .cols = { "account", "name" }, .unique = true });
TABLE(pt_tokens, "tokens", token, STEADY, { .name = "tokens_by_hash", .cols = { "hash" }, .unique = true },
      { .name = "tokens_by_user", .cols = { "account", "user" } });
TABLE(pt_agents, "agents", agent, STEADY, { .name = "agents_by_name", .cols = { "account", "name" }, .unique = true });
TABLE(pt_keys, "keys", key, STEADY, { .name = "keys_by_agent", .cols = { "agent" } });
TABLE(pt_integrations, "integrations", integration, STEADY,
      { .name = "integrations_by_name", .cols = { "account", "name" }, .unique = true },
      { .name = "integrations_by_agent", .cols = { "agent" } });
/* Each change of an operation pays for every index that has one of the changed columns: hence so few, and sparse ones. */
TABLE(pt_operations, "operations", operation, LARGE,
      { .name = "operations_by_queue", .cols = { "agent", "queue", "rank" }, .sparse = "queue" }, /* not the ended ones */
      { .name = "operations_by_account", .cols = { "account", "id" } },
      { .name = "operations_by_due", .cols = { "due" }, .sparse = "due" },
      { .name = "operations_by_idempotency",
	.cols = { "account", "idempotency_key" },
	.unique = true,
	.sparse = "idempotency_key" });
const struct pt_table pt_inputs = { .name = "inputs", .shape = &input_shape };
TABLE(pt_leases, "leases", lease, SMALL, { .name = "leases_by_until", .cols = { "until" } });
TABLE(pt_results, "results", result, LARGE, { .name = "results_by_blob", .cols = { "blob" }, .sparse = "blob" });

const struct pt_table pt_dead_letters = { .name = "dead_letters", .shape = &dead_letter_shape };
const struct pt_table pt_settlements = { .name = "settlements", .shape = &settlement_shape };

const struct pt_table *const pt_gateway_tables[] = { &pt_accounts,     &pt_users,       &pt_tokens, &pt_agents, &pt_keys,
						     &pt_integrations, &pt_operations,  &pt_inputs, &pt_leases, &pt_results,
						     &pt_dead_letters, &pt_settlements, NULL };

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
