/* The shapes of the messages: which members a document has, what is allowed in them, and what they mean (the help texts go into
 * the OpenAPI document). */
#include "proto/messages.h"

/* Most bytes of a name (agents, integrations, users) and of a text for people; most items of a list of attempts. */
enum { NAME_MAX_BYTES = 200, TEXT_MAX = 2000, ATTEMPTS_MAX = 1024, TYPES_MAX = 64, COLUMNS_MAX = 4096, LABELS_MAX = 16 * 1024 };
#define INPUT_MAX    (1024 * 1024)
#define BYTES_MAX    (1LL << 50)
#define DEADLINE_MAX 2592000LL /* 30 days in seconds */
#define ANY          INT64_MAX
#define TIME_MAX      253402300799999LL /* the end of the year 9999 */
#define LOG_LINE_MAX  (32 * 1024)
#define LOG_LINES_MAX 1000

static const char *const credential_types[] = { "FILE", "ENV_VAR", NULL };
static const char *const deliveries[] = { "at-least-once", "at-most-once", NULL };
static const char *const holding_states[] = { "running", "spooled", NULL };
static const char *const result_states[] = { "succeeded", "failed", "cancelled", "expired", NULL };
static const char *const partials[] = { "row_limit", "byte_limit", NULL };
static const char *const body_formats[] = { "jsonl", NULL };
static const char *const body_encodings[] = { "identity", "zstd", NULL };

static const struct pt_field error_doc_fields[] = {
	PT_F(struct pt_error_doc, code, PT_T_STR, PT_REQUIRED, .min = 1, .max = 64,
	     .help = "what went wrong, from a closed list (docs/errors.md): branch on this"),
	PT_F(struct pt_error_doc, message, PT_T_STR, PT_REQUIRED, .max = TEXT_MAX, .help = "what went wrong, for people"),
	PT_F(struct pt_error_doc, hint, PT_T_STR, 0, .max = TEXT_MAX, .help = "what can be done about it, for people"),
	PT_F(struct pt_error_doc, native_code, PT_T_STR, 0, .max = 64,
	     .help = "the code of the foreign system: an SQLSTATE, an HTTP status"),
	PT_F(struct pt_error_doc, retryable, PT_T_BOOL, 0, .help = "the same request may succeed later without a change"),
};
const struct pt_shape pt_error_doc_shape = PT_SHAPE("error", struct pt_error_doc, error_doc_fields);

static const struct pt_field credential_ref_fields[] = {
	PT_F(struct pt_credential_ref, type, PT_T_STR, PT_REQUIRED, .values = credential_types,
	     .help = "where the agent finds the secret, which never leaves its network"),
	PT_F(struct pt_credential_ref, file_path, PT_T_STR, 0, .min = 1, .max = 4096,
	     .help = "FILE: absolute path on the agent, below one of its allowed folders"),
	PT_F(struct pt_credential_ref, env_var_name, PT_T_STR, 0, .min = 1, .max = 256,
	     .help = "ENV_VAR: name of the agent's environment variable; begins with POSTERN_CREDENTIAL_ or MCD_"),
};
const struct pt_shape pt_credential_ref_shape = PT_SHAPE("credential", struct pt_credential_ref, credential_ref_fields);

static const struct pt_field column_fields[] = {
	PT_F(struct pt_column, name, PT_T_STR, PT_REQUIRED, .max = 4096, .help = "the column's name as the source gave it"),
	PT_F(struct pt_column, type, PT_T_STR, PT_REQUIRED, .min = 1, .max = 64,
	     .help = "logical type: int64, decimal, text, timestamptz, … (docs/types.md)"),
	PT_F(struct pt_column, native, PT_T_STR, 0, .max = 1024, .help = "the source's own name of the type"),
	PT_F(struct pt_column, nullable, PT_T_BOOL, 0, .help = "may hold null"),
	PT_F(struct pt_column, precision, PT_T_I64, PT_SKIP_ZERO, .min = 0, .max = 100000,
	     .help = "decimal: digits in all; absent when not declared"),
	PT_F(struct pt_column, scale, PT_T_I64, PT_SKIP_ZERO, .min = -100000, .max = 100000,
	     .help = "decimal: digits behind the point"),
};
const struct pt_shape pt_column_shape = PT_SHAPE("column", struct pt_column, column_fields);

static const struct pt_field limits_fields[] = {
	PT_F(struct pt_limits, timeout_ms, PT_T_I64, PT_SKIP_ZERO, .min = 1, .max = DEADLINE_MAX * 1000,
	     .help = "run time of one attempt in milliseconds; 840000 when absent"),
	PT_F(struct pt_limits, max_rows, PT_T_I64, PT_SKIP_ZERO, .min = 0, .max = ANY,
	     .help = "the result ends after so many rows and is marked partial; 0 or absent: no limit"),
	PT_F(struct pt_limits, max_bytes, PT_T_I64, PT_SKIP_ZERO, .min = 1, .max = BYTES_MAX,
	     .help = "the result ends after so many bytes of text and is marked partial; 10737418240 (10 GiB) when absent"),
};
const struct pt_shape pt_limits_shape = PT_SHAPE("limits", struct pt_limits, limits_fields);

static const struct pt_field retry_fields[] = {
	PT_F(struct pt_retry, max_attempts, PT_T_I64, PT_SKIP_ZERO, .min = 1, .max = 100,
	     .help = "how often it is tried before it fails; 3 when absent"),
	PT_F(struct pt_retry, backoff_ms, PT_T_I64, PT_SKIP_ZERO, .min = 1, .max = DEADLINE_MAX * 1000,
	     .help = "the first pause is a random time up to this, then the bound doubles; 1000 when absent"),
	PT_F(struct pt_retry, max_backoff_ms, PT_T_I64, PT_SKIP_ZERO, .min = 1, .max = DEADLINE_MAX * 1000,
	     .help = "no pause is longer; 60000 when absent"),
	PT_F(struct pt_retry, on, PT_T_STRS, 0, .min = 1, .max = 40,
	     .help = "after what it is tried again: lost (the lease ended without a result), retryable (failed with an error that says "
		     "retryable), or codes of errors; lost when absent"),
};
const struct pt_shape pt_retry_shape = PT_SHAPE("retry", struct pt_retry, retry_fields);

static const struct pt_field operation_new_fields[] = {
	PT_F(struct pt_operation_new, agent, PT_T_STR, 0, .min = 1, .max = NAME_MAX_BYTES,
	     .help = "id or name of the agent that shall run it"),
	PT_F(struct pt_operation_new, type, PT_T_STR, PT_REQUIRED, .min = 1, .max = 64, .help = "operation type, such as query"),
	PT_F(struct pt_operation_new, integration, PT_T_STR, 0, .min = 1, .max = NAME_MAX_BYTES,
	     .help = "id or name of the integration; only for types that use one"),
	PT_F(struct pt_operation_new, input, PT_T_JSON, PT_REQUIRED | PT_OBJECT, .max = INPUT_MAX,
	     .help = "what to do; its members depend on the type"),
	PT_F(struct pt_operation_new, limits, PT_T_SHAPE, 0, .sub = &pt_limits_shape,
	     .help = "bounds of one attempt and its result"),
	PT_F(struct pt_operation_new, priority, PT_T_I64, 0, .min = 0, .max = 9, .def = 5,
	     .help = "0 (last) to 9 (first); 5 when absent"),
	PT_F(struct pt_operation_new, deadline_s, PT_T_I64, PT_SKIP_ZERO, .min = 1, .max = DEADLINE_MAX,
	     .help = "seconds from now after which it expires; 86400 when absent"),
	PT_F(struct pt_operation_new, max_attempts, PT_T_I64, PT_SKIP_ZERO, .min = 1, .max = 100,
	     .help = "short form of retry.max_attempts"),
	PT_F(struct pt_operation_new, retry, PT_T_SHAPE, 0, .sub = &pt_retry_shape,
	     .help = "when and how often it is tried again"),
	PT_F(struct pt_operation_new, delivery, PT_T_STR, 0, .values = deliveries,
	     .help = "at-least-once (when absent): repeated after a lost attempt; at-most-once: never started twice"),
	PT_F(struct pt_operation_new, idempotency_key, PT_T_STR, 0, .min = 1, .max = 255,
	     .help = "a second request with the same key answers with the first one's operation; the Idempotency-Key header counts too"),
	PT_F(struct pt_operation_new, labels, PT_T_JSON, PT_STRING_MAP, .max = LABELS_MAX,
	     .help = "names and values of your own, kept as they are"),
};
const struct pt_shape pt_operation_new_shape = PT_SHAPE("operation", struct pt_operation_new, operation_new_fields);

static const struct pt_field operation_batch_fields[] = {
	PT_F(struct pt_operation_batch, operations, PT_T_JSON, PT_REQUIRED | PT_OBJECTS, .min = 1, .max = PT_BATCH_MAX,
	     .sub = &pt_operation_new_shape,
	     .help = "operations to submit, each as alone; one that is refused keeps none of the others"),
};
const struct pt_shape pt_operation_batch_shape = PT_SHAPE("operation batch", struct pt_operation_batch, operation_batch_fields);

static const struct pt_field lease_fields[] = {
	PT_F(struct pt_lease, operation, PT_T_ID, PT_REQUIRED, .help = "operation id"),
	PT_F(struct pt_lease, attempt, PT_T_I64, PT_REQUIRED, .min = 1, .max = ANY, .help = "number of the attempt, from 1"),
	PT_F(struct pt_lease, type, PT_T_STR, PT_REQUIRED, .min = 1, .max = 64, .help = "operation type"),
	PT_F(struct pt_lease, input, PT_T_JSON, PT_REQUIRED | PT_OBJECT, .text = offsetof(struct pt_lease, input_text),
	     .help = "what to do; its members depend on the type"),
	PT_F(struct pt_lease, limits, PT_T_SHAPE, 0, .sub = &pt_limits_shape, .help = "bounds of the attempt and its result"),
	PT_F(struct pt_lease, deadline, PT_T_I64, PT_REQUIRED, .min = 0, .max = ANY,
	     .help = "milliseconds since 1970; must not be started later"),
	PT_F(struct pt_lease, lease_ms, PT_T_I64, PT_REQUIRED, .min = 1, .max = DEADLINE_MAX * 1000,
	     .help = "how long the lease lasts without renewal"),
	PT_F(struct pt_lease, delivery, PT_T_STR, 0, .values = deliveries, .help = "at-least-once (when absent) or at-most-once"),
	PT_F(struct pt_lease, connection_type, PT_T_STR, 0, .min = 1, .max = 64, .help = "of the integration; absent: none"),
	PT_F(struct pt_lease, credential, PT_T_SHAPE, 0, .sub = &pt_credential_ref_shape,
	     .help = "of the integration: where the agent finds the secret"),
};
const struct pt_shape pt_lease_shape = PT_SHAPE_OPEN("lease", struct pt_lease, lease_fields);

static const struct pt_field holding_fields[] = {
	PT_F(struct pt_holding, operation, PT_T_ID, PT_REQUIRED, .help = "operation id"),
	PT_F(struct pt_holding, attempt, PT_T_I64, PT_REQUIRED, .min = 1, .max = ANY, .help = "number of the attempt"),
	PT_F(struct pt_holding, state, PT_T_STR, PT_REQUIRED, .values = holding_states,
	     .help = "running, or spooled: its result is on the agent's disk and on its way"),
	PT_F(struct pt_holding, started_at, PT_T_I64, PT_SKIP_ZERO, .min = 0, .max = ANY,
	     .help = "milliseconds since 1970; absent: not started yet"),
	PT_F(struct pt_holding, rows, PT_T_I64, PT_SKIP_ZERO, .min = 0, .max = ANY, .help = "rows so far"),
	PT_F(struct pt_holding, bytes, PT_T_I64, PT_SKIP_ZERO, .min = 0, .max = ANY, .help = "bytes of result so far"),
};
const struct pt_shape pt_holding_shape = PT_SHAPE("holding", struct pt_holding, holding_fields);

static const struct pt_field attempt_ref_fields[] = {
	PT_F(struct pt_attempt_ref, operation, PT_T_ID, PT_REQUIRED, .help = "operation id"),
	PT_F(struct pt_attempt_ref, attempt, PT_T_I64, PT_REQUIRED, .min = 1, .max = ANY, .help = "number of the attempt"),
	PT_F(struct pt_attempt_ref, reason, PT_T_STR, 0, .max = TEXT_MAX, .help = "why, for people"),
	PT_F(struct pt_attempt_ref, code, PT_T_STR, 0, .max = 64, .help = "why, from the list of error codes"),
};
const struct pt_shape pt_attempt_ref_shape = PT_SHAPE("attempt", struct pt_attempt_ref, attempt_ref_fields);

static const struct pt_field exchange_request_fields[] = {
	PT_F(struct pt_exchange_request, instance, PT_T_ID, PT_REQUIRED,
	     .help = "id of the agent's process, made anew at each start"),
	PT_F(struct pt_exchange_request, version, PT_T_STR, PT_REQUIRED, .min = 1, .max = 64, .help = "version of the agent"),
	PT_F(struct pt_exchange_request, hostname, PT_T_STR, 0, .max = 255, .help = "host or pod that the agent runs on"),
	PT_F(struct pt_exchange_request, slots, PT_T_I64, PT_REQUIRED, .min = 0, .max = 1024,
	     .help = "how many operations it can run at the same time"),
	PT_F(struct pt_exchange_request, wait_ms, PT_T_I64, 0, .min = 0, .max = 60000,
	     .help = "how long the gateway may hold the request when it has nothing to say; 0: answer at once"),
	PT_F(struct pt_exchange_request, holding, PT_T_LIST, 0, .max = ATTEMPTS_MAX, .sub = &pt_holding_shape,
	     .help = "every attempt that the instance has"),
	PT_F(struct pt_exchange_request, released, PT_T_LIST, 0, .max = ATTEMPTS_MAX, .sub = &pt_attempt_ref_shape,
	     .help = "attempts given back unstarted or unfinished"),
	PT_F(struct pt_exchange_request, types, PT_T_STRS, 0, .max = TYPES_MAX, .help = "operation types that it can run"),
	PT_F(struct pt_exchange_request, draining, PT_T_BOOL, PT_SKIP_ZERO, .help = "wants no new work"),
	PT_F(struct pt_exchange_request, goodbye, PT_T_BOOL, PT_SKIP_ZERO,
	     .help = "is about to exit and holds nothing from now on"),
};
const struct pt_shape pt_exchange_request_shape =
	PT_SHAPE("exchange request", struct pt_exchange_request, exchange_request_fields);

static const struct pt_field exchange_response_fields[] = {
	PT_F(struct pt_exchange_response, leases, PT_T_LIST, 0, .max = ATTEMPTS_MAX, .sub = &pt_lease_shape,
	     .help = "attempts to run; one that the instance has already is ignored"),
	PT_F(struct pt_exchange_response, cancels, PT_T_LIST, 0, .max = ATTEMPTS_MAX, .sub = &pt_attempt_ref_shape,
	     .help = "attempts to stop; their results are sent as usual"),
	PT_F(struct pt_exchange_response, drops, PT_T_LIST, 0, .max = ATTEMPTS_MAX, .sub = &pt_attempt_ref_shape,
	     .help = "attempts that are no longer this instance's: stop them and throw the results away"),
	PT_F(struct pt_exchange_response, enabled, PT_T_BOOL, PT_REQUIRED, .help = "false: registered, but gets no work"),
	PT_F(struct pt_exchange_response, drain, PT_T_BOOL, PT_SKIP_ZERO, .help = "finish what you hold, take nothing, exit"),
	PT_F(struct pt_exchange_response, lease_ms, PT_T_I64, PT_REQUIRED, .min = 1, .max = DEADLINE_MAX * 1000,
	     .help = "the next exchange must come well within this time"),
	PT_F(struct pt_exchange_response, server_time, PT_T_I64, PT_REQUIRED, .min = 0, .max = ANY,
	     .help = "the gateway's clock, milliseconds since 1970"),
	PT_F(struct pt_exchange_response, spread_ms, PT_T_I64, PT_SKIP_ZERO, .min = 0, .max = 60000,
	     .help = "the gateway stops: come back at a random moment within so many milliseconds"),
	PT_F(struct pt_exchange_response, agent, PT_T_STR, 0, .max = NAME_MAX_BYTES, .help = "the agent's id"),
	PT_F(struct pt_exchange_response, agent_name, PT_T_STR, 0, .max = NAME_MAX_BYTES, .help = "the agent's name"),
};
const struct pt_shape pt_exchange_response_shape =
	PT_SHAPE_OPEN("exchange response", struct pt_exchange_response, exchange_response_fields);

static const struct pt_field result_head_fields[] = {
	PT_F(struct pt_result_head, instance, PT_T_ID, PT_REQUIRED, .help = "id of the agent's process that ran the attempt"),
	PT_F(struct pt_result_head, status, PT_T_STR, PT_REQUIRED, .values = result_states, .help = "how the attempt ended"),
	PT_F(struct pt_result_head, error, PT_T_SHAPE, 0, .sub = &pt_error_doc_shape,
	     .help = "what went wrong, unless succeeded"),
	PT_F(struct pt_result_head, document, PT_T_JSON, 0, .help = "result of operation types that answer with a document"),
	PT_F(struct pt_result_head, columns, PT_T_LIST, 0, .max = COLUMNS_MAX, .sub = &pt_column_shape,
	     .help = "columns of a result with rows"),
	PT_F(struct pt_result_head, rows, PT_T_I64, 0, .min = 0, .max = ANY, .help = "rows of the result"),
	PT_F(struct pt_result_head, affected, PT_T_I64, 0, .min = -1, .max = ANY, .def = -1,
	     .help = "rows that the statement changed; -1: not known"),
	PT_F(struct pt_result_head, bytes, PT_T_I64, 0, .min = 0, .max = ANY, .help = "bytes of the body before it was encoded"),
	PT_F(struct pt_result_head, partial, PT_T_STR, 0, .values = partials,
	     .help = "which limit cut the result short; absent: it is whole"),
	PT_F(struct pt_result_head, body_format, PT_T_STR, 0, .values = body_formats, .help = "absent: there is no body"),
	PT_F(struct pt_result_head, body_encoding, PT_T_STR, 0, .values = body_encodings, .help = "how the body is compressed"),
	PT_F(struct pt_result_head, body_size, PT_T_I64, PT_SKIP_ZERO, .min = 0, .max = ANY, .help = "bytes of the encoded body"),
	PT_F(struct pt_result_head, body_sha256, PT_T_STR, 0, .min = 64, .max = 64,
	     .help = "SHA-256 of the body before it was encoded, in hexadecimal"),
	PT_F(struct pt_result_head, started_at, PT_T_I64, PT_SKIP_ZERO, .min = 0, .max = ANY,
	     .help = "milliseconds since 1970, by the agent's clock"),
	PT_F(struct pt_result_head, finished_at, PT_T_I64, PT_SKIP_ZERO, .min = 0, .max = ANY,
	     .help = "milliseconds since 1970, by the agent's clock"),
};
const struct pt_shape pt_result_head_shape = PT_SHAPE("result", struct pt_result_head, result_head_fields);

static const struct pt_field result_response_fields[] = {
	PT_F(struct pt_result_response, accepted, PT_T_BOOL, PT_REQUIRED, .help = "the gateway has stored the result"),
	PT_F(struct pt_result_response, duplicate, PT_T_BOOL, PT_SKIP_ZERO, .help = "this attempt's result was here already"),
	PT_F(struct pt_result_response, leases, PT_T_LIST, 0, .max = ATTEMPTS_MAX, .sub = &pt_lease_shape,
	     .help = "attempts to run in the slot that became free"),
};
const struct pt_shape pt_result_response_shape =
	PT_SHAPE_OPEN("result response", struct pt_result_response, result_response_fields);

static const struct pt_field small_result_fields[] = {
	PT_F(struct pt_small_result, operation, PT_T_ID, PT_REQUIRED, .help = "operation id"),
	PT_F(struct pt_small_result, attempt, PT_T_I64, PT_REQUIRED, .min = 1, .max = ANY, .help = "number of the attempt"),
	PT_F(struct pt_small_result, head, PT_T_JSON, PT_REQUIRED | PT_OBJECT, .help = "the result's head, as in its PUT"),
	PT_F(struct pt_small_result, body, PT_T_BYTES, 0, .max = PT_RESULTS_BODY,
	     .help = "the result's body in base64; absent: it has none, or an empty one"),
};
const struct pt_shape pt_small_result_shape = PT_SHAPE("small_result", struct pt_small_result, small_result_fields);

static const struct pt_field results_fields[] = {
	PT_F(struct pt_results, instance, PT_T_ID, PT_REQUIRED, .help = "id of the agent's process that delivers them"),
	PT_F(struct pt_results, results, PT_T_JSON, PT_REQUIRED | PT_OBJECTS, .min = 1, .max = PT_RESULTS_MAX,
	     .sub = &pt_small_result_shape, .help = "results with small bodies; one that is refused keeps none of the others"),
};
const struct pt_shape pt_results_shape = PT_SHAPE("results", struct pt_results, results_fields);

static const struct pt_field results_item_fields[] = {
	PT_F(struct pt_results_item, status, PT_T_I64, PT_REQUIRED, .min = 100, .max = 599, .help = "the status of its PUT"),
	PT_F(struct pt_results_item, duplicate, PT_T_BOOL, PT_SKIP_ZERO, .help = "this attempt's result was here already"),
	PT_F(struct pt_results_item, error, PT_T_JSON, PT_OBJECT, .help = "why it was not taken"),
};
static const struct pt_shape results_item_shape = PT_SHAPE_OPEN("item", struct pt_results_item, results_item_fields);

static const struct pt_field results_response_fields[] = {
	PT_F(struct pt_results_response, items, PT_T_LIST, PT_REQUIRED, .max = PT_RESULTS_MAX, .sub = &results_item_shape,
	     .help = "what became of each, in order"),
	PT_F(struct pt_results_response, leases, PT_T_LIST, 0, .max = ATTEMPTS_MAX, .sub = &pt_lease_shape,
	     .help = "attempts to run in the slots that are free"),
};
const struct pt_shape pt_results_response_shape =
	PT_SHAPE_OPEN("results response", struct pt_results_response, results_response_fields);

static const char *const log_levels[] = { "debug", "info", "warn", "error", NULL };

static const struct pt_field shipped_line_fields[] = {
	PT_F(struct pt_shipped_line, seq, PT_T_I64, PT_REQUIRED, .min = 1, .max = ANY,
	     .help = "number of the line in its instance; higher than that of the line before"),
	PT_F(struct pt_shipped_line, at, PT_T_I64, PT_REQUIRED, .min = 0, .max = TIME_MAX,
	     .help = "milliseconds since 1970, by the agent's clock"),
	PT_F(struct pt_shipped_line, level, PT_T_STR, PT_REQUIRED, .values = log_levels, .help = "how severe it is"),
	PT_F(struct pt_shipped_line, msg, PT_T_STR, PT_REQUIRED, .max = LOG_LINE_MAX, .help = "what happened, for people"),
	PT_F(struct pt_shipped_line, fields, PT_T_JSON, PT_STRING_MAP, .max = LOG_LINE_MAX,
	     .help = "more about it; operation names the operation that it is about"),
};
static const struct pt_shape shipped_line_shape = PT_SHAPE("log line", struct pt_shipped_line, shipped_line_fields);

static const struct pt_field log_batch_fields[] = {
	PT_F(struct pt_log_batch, instance, PT_T_ID, PT_REQUIRED, .help = "id of the agent's process that wrote the lines"),
	PT_F(struct pt_log_batch, lines, PT_T_LIST, PT_REQUIRED, .max = LOG_LINES_MAX, .sub = &shipped_line_shape,
	     .help = "in the order of seq"),
};
const struct pt_shape pt_log_batch_shape = PT_SHAPE("log lines", struct pt_log_batch, log_batch_fields);

static const struct pt_field log_response_fields[] = {
	PT_F(struct pt_log_response, accepted, PT_T_I64, PT_REQUIRED, .min = 0, .max = ANY, .help = "lines stored"),
	PT_F(struct pt_log_response, duplicates, PT_T_I64, PT_SKIP_ZERO, .min = 0, .max = ANY,
	     .help = "lines that were here already"),
	PT_F(struct pt_log_response, ignored, PT_T_I64, PT_SKIP_ZERO, .min = 0, .max = ANY,
	     .help = "lines about operations that are not this agent's"),
};
const struct pt_shape pt_log_response_shape = PT_SHAPE_OPEN("log response", struct pt_log_response, log_response_fields);
