/* Executors: how an operation is executed; here on a thread of the agent.  Thread-safe, but for stop. */
#ifndef PT_EXEC_EXECUTOR_H
#define PT_EXEC_EXECUTOR_H
#include "os/cancel.h"

struct pt_executor;
struct pt_executor_ops {
	const char *name; /* "thread" */
	/* Run fn(arg) soon; never blocks.  A slot is taken from here until fn has returned.  PT_E_LIMIT when every slot is taken or
	 * the system gives no more threads, PT_E_UNAVAILABLE after stop. */
	int (*submit)(struct pt_executor *e, void (*fn)(void *arg), void *arg, struct pt_err *err);
	/* Slots not taken now. */
	unsigned (*idle)(struct pt_executor *e);
	/* Take no more work, wait until all work ended (at most most_ms), then free.  Returns how much was still running: then
	 * nothing is freed, the threads are left alone, and stop may be called again.  One caller, not from within fn. */
	unsigned (*stop)(struct pt_executor *e, int64_t most_ms);
};
struct pt_executor {
	const struct pt_executor_ops *ops;
};
/* A pool of up to slots (at least 1) threads with small stacks (256 KiB) and all signals blocked, made when first needed, ended
 * after a minute idle. */
int pt_executor_thread(struct pt_executor **ret, unsigned slots, struct pt_err *err) PT_MUSTCHECK;
/* The same with another idle time, for tests. */
int pt_executor_thread_idle(struct pt_executor **ret, unsigned slots, int64_t idle_ms, struct pt_err *err) PT_MUSTCHECK;
#endif
