/* Operation types: one file each, one row in the table.  Closed and typed: an input that the type's shape does not know is refused, by
 * the gateway when it is submitted (the same check) and by the agent before it runs. */
#ifndef PT_OP_OP_H
#define PT_OP_OP_H
#include "base/log.h"
#include "credential/credential.h"
#include "os/cancel.h"
#include "proto/messages.h"

/* What an operation may ask of the agent that runs it.  Filled by src/agent; NULL members in tests are "not available". */
struct pt_agent_view {
	void *arg;
	void (*health)(void *arg, struct pt_buf *json);  /* a JSON object: version, instance, uptime, slots, spool, link */
	void (*metrics)(void *arg, struct pt_buf *text); /* Prometheus text format */
	const struct pt_http_client_conf *http;          /* proxies and CA, for http.request and network.* */
	const struct pt_credential_conf *credential;
	const char *blocked_cidrs, *allowed_cidrs;       /* comma lists besides the built-in ones (docs/security.md); NULL = none */
};

/* Where a result with rows goes: a file of the spool.  The writer compresses and hashes. */
struct pt_body {
	int (*write)(struct pt_body *b, const void *data, size_t n, struct pt_err *err);
};

struct pt_op_run {
	const struct pt_lease *lease;
	const struct pt_cancel *cancel;
	const struct pt_agent_view *agent;
	struct pt_body *body;
	struct pt_result_head *head;    /* the type fills document, columns, rows, affected, bytes, partial, body_format */
	_Atomic int64_t *rows, *bytes;  /* progress, for the exchange; may be NULL */
};

/* Log lines of an operation carry its id and attempt, and reach whoever asks the gateway for its log (--ship-logs).  They leave the
 * network: say nothing there that the result does not say anyway, and no value of a credential. */
#define pt_op_info(run, msg, ...) \
	pt_info(msg, "operation", (run)->lease->operation, "attempt", pt_num((run)->lease->attempt), ##__VA_ARGS__)

struct pt_op_type {
	const char *name;    /* "network.tcp" */
	const char *summary; /* for docs and ctl */
	bool integration;    /* needs one */
	const struct pt_shape *input; /* what "input" must look like */
	size_t input_size;            /* sizeof its struct, at most PT_OP_INPUT_MAX */
	int (*check)(const void *input, struct pt_err *err); /* beyond the shape; NULL = nothing more */
	/* Do it, blocking, watching run->cancel.  input is the decoded struct. */
	int (*run)(struct pt_op_run *run, const void *input, struct pt_err *err);
};
enum { PT_OP_INPUT_MAX = 512 };

const struct pt_op_type *pt_op_find(const char *name);
const struct pt_op_type *const *pt_op_types(void); /* NULL-terminated */
/* Where a type stands in that table, for counting by type; PT_OP_TYPES_MAX when it is not there. */
enum { PT_OP_TYPES_MAX = 32 };
static inline size_t pt_op_index(const char *name)
{
	const struct pt_op_type *const *types = pt_op_types();

	for (size_t i = 0; types[i] && i < PT_OP_TYPES_MAX; i++)
		if (name && strcmp(types[i]->name, name) == 0)
			return i;
	return PT_OP_TYPES_MAX;
}
/* The name to count under; *i moves to PT_OP_TYPES_MAX, whose name is "other", behind the last type. */
static inline const char *pt_op_index_name(size_t *i)
{
	const struct pt_op_type *const *types = pt_op_types();

	if (*i < PT_OP_TYPES_MAX && types[*i])
		return types[*i]->name;
	*i = PT_OP_TYPES_MAX;
	return "other";
}
/* Check an input as it is submitted: unknown type, shape, check(), does it have (or wrongly have) an integration. */
int pt_op_check(const char *type, const json_t *input, bool has_integration, struct pt_err *err) PT_MUSTCHECK;
/* Decode the lease's input and run it.  What went wrong is in err (and not in head). */
int pt_op_execute(struct pt_op_run *run, struct pt_err *err) PT_MUSTCHECK;

extern const struct pt_op_type pt_op_query, pt_op_network_tcp, pt_op_network_dns, pt_op_network_tls, pt_op_network_http,
	pt_op_http_request, pt_op_health, pt_op_logs, pt_op_metrics;
#endif
