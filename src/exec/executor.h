/* Executors: how an operation is executed.  Today: thread (in the agent).  process and job follow the same contract. */
#ifndef PT_EXEC_EXECUTOR_H
#define PT_EXEC_EXECUTOR_H
#include "os/cancel.h"

struct pt_executor;
struct pt_executor_ops {
	const char *name; /* "thread" */
	/* Run fn(arg) soon; never blocks.  PT_E_LIMIT when every slot is taken. */
	int (*submit)(struct pt_executor *e, void (*fn)(void *arg), void *arg, struct pt_err *err);
	/* Slots not running anything now. */
	unsigned (*idle)(struct pt_executor *e);
	/* Wait until all work ended (most_ms), then free.  Returns how many were still running (their threads are left alone and
	 * the executor is not freed). */
	unsigned (*stop)(struct pt_executor *e, int64_t most_ms);
};
struct pt_executor {
	const struct pt_executor_ops *ops;
};
/* A pool of up to slots threads with small stacks (256 KiB), made when first needed, ended after a minute idle. */
int pt_executor_thread(struct pt_executor **ret, unsigned slots, struct pt_err *err) PT_MUSTCHECK;
#endif
