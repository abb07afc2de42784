/* What `ctl operations run` is told, and the request that it makes of it. */
#ifndef PT_CTL_RUN_H
#define PT_CTL_RUN_H
#include "ctl/ctl.h"

enum { PT_CTL_UNSET = -1 }; /* the gateway's default counts */
struct pt_ctl_run {
	struct pt_ctl_conf c;
	const char *agent, *type, *integration, *input, *sql, *key, *format, *batch;
	struct pt_opt_strs params, labels, retry_on;
	int64_t timeout_ms, max_rows, max_bytes, priority, deadline_ms, max_attempts, backoff_ms,
		max_backoff_ms; /* PT_CTL_UNSET where nothing was said */
	bool write, at_most_once, wait;
};
#define PT_CTL_RUN_INIT                                                                                                    \
	{                                                                                                                  \
		.timeout_ms = PT_CTL_UNSET, .max_rows = PT_CTL_UNSET, .max_bytes = PT_CTL_UNSET, .priority = PT_CTL_UNSET, \
		.deadline_ms = PT_CTL_UNSET, .max_attempts = PT_CTL_UNSET, .backoff_ms = PT_CTL_UNSET,                     \
		.max_backoff_ms = PT_CTL_UNSET                                                                             \
	}

/* Fill body (an object) for POST /api/v1/operations with what was said and no more.  Reads files and standard input where an
 * argument names them. */
int pt_ctl_run_body(const struct pt_ctl_run *s, const char *key, json_t *body, struct pt_err *err) PT_MUSTCHECK;
/* --batch: submit what stands in the file, one JSON object a line, and print one line for each.  Nothing is sent when a line is no object.
 * An error also when some were refused. */
int pt_ctl_run_batch(struct pt_ctl_api *api, const struct pt_ctl_run *s, struct pt_err *err) PT_MUSTCHECK;
#endif
