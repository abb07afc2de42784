/* Limits of control groups, read from the text that the kernel shows.  Version 1, 2 and both at once. */
#ifndef PT_OS_CGROUP_H
#define PT_OS_CGROUP_H
#include "base/buf.h"

/* The path of this process in a control group, from /proc/self/cgroup: controller "memory", or "" for version 2 ("0::/…").  False:
 * there is none. */
bool pt_cgroup_path(const char *proc_self_cgroup, const char *controller, char *out, size_t size);
/* The number a file holds; -1: no limit ("max", or what version 1 writes for it, near 2^63), or no number. */
int64_t pt_cgroup_number(const char *text);
/* The smallest value of file in the group's folder and those above it, up to root; paths that do not exist (a container sees its own
 * group as the root) are passed over.  -1: no limit ("max", or more than any machine has). */
int64_t pt_cgroup_least(const char *root, const char *path, const char *file);
/* "max 100000", "50000 100000": hundredths of a CPU, -1 = no limit. */
int64_t pt_cgroup_cpu(const char *cpu_max);
/* The number behind a word in text like "low 0\noom_kill 3\n"; -1 without it. */
int64_t pt_cgroup_value(const char *text, const char *word);

struct pt_limits {
	int version;                                        /* of the control groups, 0 = none found */
	int64_t memory_bytes, cpu_percent, pids, oom_kills; /* -1 = no limit */
};
/* root: "/sys/fs/cgroup". */
void pt_limits_read(const char *root, const char *proc_self_cgroup, struct pt_limits *ret);
#endif
