/* The messages between agent, gateway and client, each a struct and its shape (JSON on the wire: docs/protocol.md). */
#ifndef PT_PROTO_MESSAGES_H
#define PT_PROTO_MESSAGES_H
#include "base/shape.h"

/* --- errors, as documents --- */
struct pt_error_doc {
	char *code, *message, *hint, *native_code;
	bool retryable;
};
void pt_error_doc_from(struct pt_error_doc *d, const struct pt_err *err); /* on OOM members stay NULL */
void pt_error_doc_to(const struct pt_error_doc *d, struct pt_err *err);
void pt_error_doc_write(const struct pt_err *err, struct pt_buf *out);
/* {"error":{…}}, for HTTP answers. */
void pt_error_body(const struct pt_err *err, struct pt_buf *out);

/* --- parts of several messages --- */
/* Where the agent finds a data source's secret (src/credential).  The secret itself never crosses the gateway. */
struct pt_credential_ref {
	char *type;         /* FILE | ENV_VAR */
	char *file_path;    /* FILE */
	char *env_var_name; /* ENV_VAR; begins with POSTERN_CREDENTIAL_ or MCD_ */
};
/* One column of a result with rows (docs/types.md). */
struct pt_column {
	char *name;
	char *type;   /* logical type: "int64", "decimal", "timestamptz", … */
	char *native; /* the source's own name: "numeric(12,2)" */
	bool nullable;
	int64_t precision, scale; /* decimal only; 0 = not declared */
};

/* --- operations --- */
struct pt_limits {
	int64_t timeout_ms; /* run time of one attempt; default 840,000 */
	int64_t max_rows;   /* 0 = none */
	int64_t max_bytes;  /* of the result's text; default 10 GiB */
};
/* Members that are 0 get their default; what is set stays. */
void pt_limits_defaults(struct pt_limits *l);
/* clang-format off */
#define PT_OPERATION_STATES(X)                                                  \
	X(QUEUED, "queued") X(LEASED, "leased") X(RUNNING, "running")           \
	X(SUCCEEDED, "succeeded") X(FAILED, "failed") X(CANCELLED, "cancelled") \
	X(EXPIRED, "expired") X(UNKNOWN, "unknown")
enum pt_op_state {
#define X(n, wire) PT_OP_##n,
	PT_OPERATION_STATES(X)
#undef X
	PT_OP_STATES_END
};
/* clang-format on */
const char *pt_op_state_name(enum pt_op_state s);
int pt_op_state_from(const char *name); /* -1 = none, also for NULL */
static inline bool pt_op_terminal(enum pt_op_state s)
{
	return s >= PT_OP_SUCCEEDED;
}

/* When an attempt that brought no success is followed by another one. */
struct pt_retry {
	int64_t max_attempts;               /* 0 = as the operation's own max_attempts says */
	int64_t backoff_ms, max_backoff_ms; /* bounds of the first and of the longest pause; the pause is random below them */
	struct pt_list on;                  /* of char *: lost, retryable, error codes; empty = lost */
};
/* Members that are 0 get their default. */
void pt_retry_defaults(struct pt_retry *r);
bool pt_retry_on(const struct pt_retry *r, const char *what);

/* POST /api/v1/operations */
struct pt_operation_new {
	char *agent;       /* id or name */
	char *type;        /* "query" */
	char *integration; /* id or name; NULL when the type needs none */
	json_t *input;     /* object, checked by the type's own shape */
	struct pt_limits limits;
	int64_t priority;      /* 0 (last) to 9 (first); absent reads as 5 */
	int64_t deadline_s;    /* from now; default 86,400 */
	int64_t max_attempts;  /* default 3; short form of retry.max_attempts */
	struct pt_retry retry;
	char *delivery;        /* "at-least-once" (default) | "at-most-once" */
	char *idempotency_key; /* header Idempotency-Key counts too */
	json_t *labels;        /* object of strings, kept as is */
};
/* After decoding: limits, deadline_s, max_attempts and delivery that are absent get their default (out of memory leaves
 * delivery NULL, which pt_at_most_once() reads as the default). */
void pt_operation_new_defaults(struct pt_operation_new *o);
/* Before that: what no single member can tell (INVALID): a retry policy that contradicts itself, max_attempts, or the delivery. */
int pt_operation_new_check(const struct pt_operation_new *o, struct pt_err *err) PT_MUSTCHECK;
bool pt_at_most_once(const char *delivery); /* of an operation or a lease; NULL is at-least-once */

/* POST /api/v1/operations/batch */
enum { PT_BATCH_MAX = 100 };
struct pt_operation_batch {
	json_t *operations; /* array of objects, each a struct pt_operation_new that stands or fails alone */
};

/* --- agent protocol --- */
struct pt_lease { /* one attempt for an instance to run */
	char operation[PT_ID_SIZE];
	int64_t attempt;
	char *type;
	json_t *input;
	char *input_text; /* the gateway's: the input as it is stored, written in the place of input */
	struct pt_limits limits;
	int64_t deadline; /* wall ms; the agent must not start it later */
	int64_t lease_ms; /* for how long without renewal */
	char *delivery;
	char *connection_type;               /* of the integration; NULL = none */
	struct pt_credential_ref credential; /* of the integration */
};
struct pt_holding { /* one attempt the instance has */
	char operation[PT_ID_SIZE];
	int64_t attempt;
	char *state;         /* "running" | "spooled" (its result is on disk, on its way) */
	int64_t started_at;  /* wall ms, 0 = not yet */
	int64_t rows, bytes; /* progress so far */
};
struct pt_attempt_ref {
	char operation[PT_ID_SIZE];
	int64_t attempt;
	char *reason; /* "cancelled by ada", "deadline", "superseded", "agent is stopping" */
	char *code;   /* "cancelled" | "deadline_exceeded" | "stale_attempt" */
};
/* POST /agent/v1/exchange */
struct pt_exchange_request {
	char instance[PT_ID_SIZE]; /* made anew at each process start */
	char *version, *hostname;
	int64_t slots;
	int64_t wait_ms;         /* how long the gateway may hold the request; 0 = answer at once */
	struct pt_list holding;  /* of struct pt_holding */
	struct pt_list released; /* of struct pt_attempt_ref: given back unstarted or unfinished */
	struct pt_list types;    /* of char *: operation types it can run */
	bool draining;           /* wants no new work */
	bool goodbye;            /* is about to exit: holds nothing from now on */
};
struct pt_exchange_response {
	struct pt_list leases;  /* of struct pt_lease.  May repeat an attempt the instance has: then it is ignored */
	struct pt_list cancels; /* of struct pt_attempt_ref: stop, then send the result as usual */
	struct pt_list drops;   /* of struct pt_attempt_ref: no longer this instance's; stop and throw away */
	bool enabled;           /* false: the agent is registered but not enabled; it gets no work */
	bool drain;             /* finish what you hold, take nothing, exit */
	int64_t lease_ms;       /* renew (by an exchange) well within this time */
	int64_t server_time;    /* wall ms, for clock skew */
	int64_t spread_ms;      /* the gateway stops: come back at a random moment within so long; 0 = at once */
	char *agent;            /* the agent's id and name as the gateway knows them */
	char *agent_name;
};
/* PUT /agent/v1/operations/{id}/attempts/{n}/result
 * Body: this head as one line of JSON, a line feed, then exactly body_size bytes (encoded as body_encoding says). */
struct pt_result_head {
	char instance[PT_ID_SIZE];
	char *status;                    /* "succeeded" | "failed" | "cancelled" | "expired" */
	struct pt_error_doc error;       /* unless succeeded */
	json_t *document;                /* result of operation types that answer with a document */
	struct pt_list columns;          /* of struct pt_column: result with rows */
	int64_t rows, affected;          /* affected -1 = not known (also when absent) */
	int64_t bytes;                   /* of the body before encoding */
	char *partial;                   /* "row_limit" | "byte_limit"; NULL = whole */
	char *body_format;               /* "jsonl"; NULL = no body */
	char *body_encoding;             /* "identity" | "zstd" (RFC 8878) */
	int64_t body_size;               /* bytes on the wire */
	char *body_sha256;               /* hex, of the body before encoding */
	int64_t started_at, finished_at; /* wall ms on the agent */
};
struct pt_result_response {
	bool accepted;
	bool duplicate;        /* this attempt's result was here already */
	struct pt_list leases; /* of struct pt_lease: the freed slot is filled at once */
};
/* POST /agent/v1/results: many that are small */
enum {
	PT_RESULTS_MAX = 64,
	PT_RESULTS_BODY = 32 * 1024,
	PT_RESULTS_BYTES = 1024 * 1024
}; /* in number; bytes of one body, of a request */
struct pt_small_result {
	char operation[PT_ID_SIZE];
	int64_t attempt;
	json_t *head;         /* object, a struct pt_result_head */
	struct pt_bytes body; /* body_size bytes */
};
struct pt_results {
	char instance[PT_ID_SIZE]; /* that delivers them; each head names the one that ran it */
	json_t *results;           /* array of objects, each a struct pt_small_result that stands or fails alone */
};
struct pt_results_item {
	int64_t status; /* the HTTP status that its PUT would have had */
	bool duplicate;
	json_t *error; /* object, with a status of 400 and above */
};
struct pt_results_response {
	struct pt_list items;  /* of struct pt_results_item, in the order of the results */
	struct pt_list leases; /* of struct pt_lease: for the free slots of the instance that delivers */
};
/* POST /agent/v1/logs */
struct pt_shipped_line {
	int64_t seq, at; /* number in its instance, from 1, upwards; wall ms on the agent */
	char *level, *msg;
	json_t *fields; /* object of strings; "operation" names the operation that the line is about */
};
struct pt_log_batch {
	char instance[PT_ID_SIZE]; /* that wrote the lines; an earlier process, perhaps */
	struct pt_list lines;      /* of struct pt_shipped_line */
};
struct pt_log_response {
	int64_t accepted;   /* lines stored */
	int64_t duplicates; /* lines that were here already */
	int64_t ignored;    /* lines about an operation that is not this agent's, or not known (any more) */
};

extern const struct pt_shape pt_small_result_shape, pt_results_shape, pt_results_response_shape;
extern const struct pt_shape pt_log_batch_shape, pt_log_response_shape;
extern const struct pt_shape pt_error_doc_shape, pt_limits_shape, pt_retry_shape, pt_operation_new_shape,
	pt_operation_batch_shape, pt_lease_shape, pt_holding_shape, pt_attempt_ref_shape, pt_exchange_request_shape,
	pt_exchange_response_shape, pt_result_head_shape, pt_result_response_shape, pt_column_shape, pt_credential_ref_shape;
#endif
