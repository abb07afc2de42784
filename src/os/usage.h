/* What this process uses, and what it may use: memory, files, CPU, disks.  Reads /proc, the cgroup files and statvfs(3);
 * blocks on those only, a few dozen microseconds.  Any thread. */
#ifndef PT_OS_USAGE_H
#define PT_OS_USAGE_H
#include "base/metric.h"

/* Numbers that cannot be told are -1. */
struct pt_usage {
	double cpu_seconds, started; /* started: wall seconds since 1970 */
	int64_t resident_bytes, threads, open_files, max_files;
	int64_t memory_bytes,
		memory_limit_bytes; /* of the cgroup that has the smallest limit above us; without page cache that can be
						     dropped; -1 without a limit */
	double throttled_seconds;   /* how long the cgroup's CPU limit has held us up */
};
void pt_usage_now(struct pt_usage *ret);
/* The cgroup part of it: proc is "/proc/self/cgroup", sys is "/sys/fs/cgroup" (tests have others).  Versions 1 and 2. */
void pt_usage_cgroup(const char *proc, const char *sys, struct pt_usage *ret);

/* The same as metrics; what cannot be told is left out. */
extern const struct pt_metric_table pt_process_metrics;
void pt_process_expose(struct pt_buf *b);

/* Bytes of the file system that path is on: *ret_free those that this user may still take.  False: it cannot be told. */
bool pt_disk_space(const char *path, int64_t *ret_free, int64_t *ret_size);
#endif
