/* The gateway's records, one struct and one table each (src/db stores them).  Times are wall milliseconds. */
#ifndef PT_GATEWAY_RECORDS_H
#define PT_GATEWAY_RECORDS_H
#include "db/db.h"
#include "proto/messages.h"

enum pt_role { PT_ROLE_NONE, PT_ROLE_VIEWER, PT_ROLE_OPERATOR, PT_ROLE_OWNER, PT_ROLE_AGENT };

struct pt_rec_account {
	char id[PT_ID_SIZE];
	char *name;
	int64_t created;
};
struct pt_rec_user {
	char id[PT_ID_SIZE], account[PT_ID_SIZE];
	char *name;
	int64_t role, created;
};
struct pt_rec_token {
	char id[PT_ID_SIZE], account[PT_ID_SIZE], user[PT_ID_SIZE];
	char *name, *hash; /* SHA-256 of the token's text, hex */
	int64_t created, expires; /* expires 0 = never */
};
struct pt_rec_agent {
	char id[PT_ID_SIZE], account[PT_ID_SIZE];
	char *name, *kind;
	bool enabled;
	int64_t created;
};
struct pt_rec_key {
	char id[PT_ID_SIZE], account[PT_ID_SIZE], agent[PT_ID_SIZE];
	char *name, *hash;
	int64_t created, expires;
};
struct pt_rec_integration {
	char id[PT_ID_SIZE], account[PT_ID_SIZE], agent[PT_ID_SIZE];
	char *name, *connection_type, *credential_type, *file_path, *env_var_name;
	int64_t created;
};

/* Where an operation stands in its agent's queue. */
enum pt_queue { PT_QUEUE_DONE, PT_QUEUE_READY, PT_QUEUE_PARKED, PT_QUEUE_LEASED };

struct pt_rec_operation {
	char id[PT_ID_SIZE], account[PT_ID_SIZE], agent[PT_ID_SIZE], integration[PT_ID_SIZE], created_by[PT_ID_SIZE];
	char *type, *labels; /* labels: JSON text; the input is in pt_inputs */
	int64_t input_bytes, timeout_ms, max_rows, max_bytes, priority, deadline, max_attempts;
	bool at_most_once;
	char *idempotency_key, *request_digest;
	char *retry;               /* JSON text of struct pt_retry without max_attempts; NULL = the defaults */
	char rerun_of[PT_ID_SIZE]; /* the dead letter that a person had run again, "" = none */
	/* what changes: only in src/gateway/lifecycle.c */
	int64_t state;          /* enum pt_op_state */
	int64_t queue;          /* enum pt_queue, follows state */
	int64_t rank;           /* order in the queue: (9 - priority) * PT_RANK_PRIORITY + created */
	int64_t due; /* when the reaper must look: deadline or end of parking; of a terminal one: PT_DUE_ENDED + end of retention */
	int64_t attempt;        /* newest attempt, 0 = none yet */
	int64_t released;       /* attempts that their instances gave back: they do not count as tries */
	char instance[PT_ID_SIZE]; /* of the newest attempt */
	char *reason;           /* why it is in this state, a sentence */
	char *error;            /* error document (JSON text) of a terminal state that no result explains */
	bool cancel_requested;
	int64_t events;         /* how many events it has */
	char *timeline;         /* those events, see timeline.c */
	int64_t created, leased_at, started_at, finished_at;
};
/* The right of an instance to run an attempt.  Small and apart, since renewals write it. */
struct pt_rec_lease {
	char instance[PT_ID_SIZE], operation[PT_ID_SIZE], agent[PT_ID_SIZE];
	int64_t attempt, leased_at, until;
	bool started;    /* the instance said that it runs */
	int64_t stop_at; /* since when the instance is asked to stop (cancel or deadline), 0 = not */
};
/* What an operation is to do: apart, because it may be large and never changes, while the operation changes often. */
struct pt_rec_input {
	char operation[PT_ID_SIZE];
	char *input; /* JSON text */
};
struct pt_rec_result {
	char operation[PT_ID_SIZE];
	int64_t attempt;
	char *head; /* JSON text of struct pt_result_head; NULL: the attempt failed and was tried again, nothing of it is kept */
	struct pt_bytes body; /* small bodies, as delivered */
	char *blob;           /* name of the file that holds a large one */
	int64_t stored_at;
};
/* A terminal operation that needs a person: there from its end until it is settled. */
struct pt_rec_dead_letter {
	char account[PT_ID_SIZE], operation[PT_ID_SIZE], agent[PT_ID_SIZE];
	int64_t state; /* enum pt_op_state */
};
/* What a person decided about one. */
struct pt_rec_settlement {
	char operation[PT_ID_SIZE];
	char *decision, *note, *by_name;
	char by[PT_ID_SIZE], rerun[PT_ID_SIZE]; /* rerun: the operation made by decision "rerun" */
	int64_t at;
};
#define PT_RANK_PRIORITY (INT64_C(1) << 48)
/* Added to the `due` of terminal operations: however many wait for the end of their retention, none stands before a deadline. */
#define PT_DUE_ENDED (INT64_C(1) << 60)

extern const struct pt_table pt_accounts, pt_users, pt_tokens, pt_agents, pt_keys, pt_integrations, pt_operations, pt_inputs,
	pt_leases, pt_results, pt_dead_letters, pt_settlements;
extern const struct pt_table *const pt_gateway_tables[];
/* The indexes that scans name (`&pt_agents_by_name`), in the order of their tables in records.c. */
#define pt_users_by_name	     pt_users.indexes[0]
#define pt_tokens_by_hash	     pt_tokens.indexes[0]
#define pt_tokens_by_user	     pt_tokens.indexes[1]
#define pt_agents_by_name	     pt_agents.indexes[0]
#define pt_keys_by_agent	     pt_keys.indexes[0]
#define pt_integrations_by_name	     pt_integrations.indexes[0]
#define pt_integrations_by_agent     pt_integrations.indexes[1]
#define pt_operations_by_queue	     pt_operations.indexes[0]
#define pt_operations_by_account     pt_operations.indexes[1]
#define pt_operations_by_due	     pt_operations.indexes[2]
#define pt_operations_by_idempotency pt_operations.indexes[3]
#define pt_leases_by_until	     pt_leases.indexes[0]
#define pt_results_by_blob	     pt_results.indexes[0]

/* Declare a record that releases itself at the end of its scope. */
void pt_rec_account_release(struct pt_rec_account *r);
void pt_rec_user_release(struct pt_rec_user *r);
void pt_rec_token_release(struct pt_rec_token *r);
void pt_rec_agent_release(struct pt_rec_agent *r);
void pt_rec_key_release(struct pt_rec_key *r);
void pt_rec_integration_release(struct pt_rec_integration *r);
void pt_rec_operation_release(struct pt_rec_operation *r);
void pt_rec_lease_release(struct pt_rec_lease *r);
void pt_rec_input_release(struct pt_rec_input *r);
void pt_rec_result_release(struct pt_rec_result *r);
void pt_rec_dead_letter_release(struct pt_rec_dead_letter *r);
void pt_rec_settlement_release(struct pt_rec_settlement *r);
#define pt_auto_rec(kind) pt_auto(pt_rec_##kind##_release) struct pt_rec_##kind

/* Scan callbacks that only collect, since a scan must not write to its table: the id that every record but leases, inputs and results
 * begins with (list of char[PT_ID_SIZE]), and whole leases, which own no memory (list of struct pt_rec_lease). */
int pt_collect_id(void *list, void *rec);
int pt_collect_lease(void *list, void *rec);

void pt_id_copy(char dst[static PT_ID_SIZE], const char *src); /* cut when too long; NULL = "" */
const char *pt_role_name(enum pt_role r);
enum pt_role pt_role_from(const char *name); /* PT_ROLE_NONE when unknown */
#endif
