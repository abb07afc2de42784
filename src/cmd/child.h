/* This program's own commands as child processes: for the demo.  Children end with their parent, whatever ends it. */
#ifndef PT_CMD_CHILD_H
#define PT_CMD_CHILD_H
#include "base/buf.h"
#include <sys/types.h>

struct pt_child {
	const char *name; /* for messages */
	const char *log;  /* file that gets its standard output and error */
	pid_t pid;        /* 0 = not running */
	int status;       /* of waitpid(2), once it has ended */
};

/* Start `postern args…` (NULL-terminated, without the program's name).  It gets an environment without POSTERN_* names and proxies,
 * no signals blocked, and SIGTERM when this process ends. */
int pt_child_start(struct pt_child *c, const char *const *args, struct pt_err *err) PT_MUSTCHECK;
/* Has it ended?  Does not block. */
bool pt_child_ended(struct pt_child *c);
/* SIGTERM, then SIGKILL after most_ms.  Nothing when it is not running. */
void pt_child_stop(struct pt_child *c, int64_t most_ms);
/* "exited with code 69", "was killed by signal 9". */
void pt_child_how(const struct pt_child *c, struct pt_buf *out);
/* Append the last lines of its log. */
void pt_child_tail(const struct pt_child *c, size_t lines, struct pt_buf *out);
#endif
