#include "os/usage.h"
#include "base/clock.h"
#include "base/metric.h"
#include "os/cgroup.h"
#include "os/file.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <time.h>

enum { TEXT_MAX = 64 * 1024 };

/* --- the process --- */

static int64_t count_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	int64_t n = -3; /* ".", ".." and the folder itself */

	if (!d)
		return -1;
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static double seconds_of(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

/* proc(5): the program's name, in parentheses, may have blanks; behind it stands "S ppid …": field 3 is the first. */
static void read_stat(struct pt_usage *u)
{
	pt_auto_buf b = PT_BUF_INIT(TEXT_MAX);
	struct timespec up;
	struct pt_err ignored;
	char *at, *rest = NULL, *word;
	double ticks = (double)sysconf(_SC_CLK_TCK);
	int field = 3;

	if (pt_file_read("/proc/self/stat", &b, &ignored) < 0 || !(at = strrchr(b.p, ')')))
		return;
	for (word = strtok_r(at + 1, " ", &rest); word; word = strtok_r(NULL, " ", &rest), field++) {
		if (field == 20)
			u->threads = strtoll(word, NULL, 10);
		else if (field == 22 && clock_gettime(CLOCK_BOOTTIME, &up) == 0)
			u->started = (double)pt_wall_ms() / 1000 - ((double)up.tv_sec + (double)up.tv_nsec / 1e9) +
				     strtod(word, NULL) / ticks;
		else if (field == 24)
			u->resident_bytes = strtoll(word, NULL, 10) * sysconf(_SC_PAGESIZE);
	}
}

void pt_usage_now(struct pt_usage *ret)
{
	struct rusage r;
	struct rlimit files;

	*ret = (struct pt_usage) { .cpu_seconds = -1, .started = -1, .resident_bytes = -1, .threads = -1 };
	read_stat(ret);
	ret->open_files = count_files();
	ret->max_files = getrlimit(RLIMIT_NOFILE, &files) == 0 ? (int64_t)files.rlim_cur : -1;
	if (getrusage(RUSAGE_SELF, &r) == 0)
		ret->cpu_seconds = seconds_of(r.ru_utime) + seconds_of(r.ru_stime);
	pt_usage_cgroup("/proc/self/cgroup", "/sys/fs/cgroup", ret);
}

/* --- its cgroup --- */

/* Where one of the two versions keeps what we want. */
struct version {
	const char *controller; /* in /proc/self/cgroup */
	const char *folder;     /* below /sys/fs/cgroup */
	const char *limit, *used, *cache;
};
static const struct version versions[] = {
	{ "", "", "memory.max", "memory.current", "inactive_file" },
	{ "memory", "/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file" },
};

static bool read_below(struct pt_buf *b, const char *dir, const char *file)
{
	pt_auto_buf path = PT_BUF_INIT(8192);
	struct pt_err ignored;

	pt_buf_clear(b);
	pt_buf_fmt(&path, "%s/%s", dir, file);
	return pt_buf_done(&path, &ignored) == 0 && pt_file_read(path.p, b, &ignored) == 0;
}

static int64_t read_number(const char *dir, const char *file)
{
	pt_auto_buf b = PT_BUF_INIT(TEXT_MAX);

	return read_below(&b, dir, file) ? pt_cgroup_number(b.p) : -1;
}

/* A number that stands behind its name, at the beginning of a line. */
static int64_t read_line(const char *dir, const char *file, const char *name)
{
	pt_auto_buf b = PT_BUF_INIT(TEXT_MAX);

	return read_below(&b, dir, file) ? pt_cgroup_value(b.p, name) : -1;
}

/* A limit counts for all below it: the smallest on the way up is ours. */
static void look_up(const struct version *v, const char *top, char *dir, struct pt_usage *ret)
{
	size_t n_top = strlen(top);

	for (;;) {
		int64_t limit = read_number(dir, v->limit), used = read_number(dir, v->used), cache, us;

		if (ret->throttled_seconds < 0 && (us = read_line(dir, "cpu.stat", "throttled_usec")) >= 0)
			ret->throttled_seconds = (double)us / 1e6;
		if (limit >= 0 && used >= 0 && (ret->memory_limit_bytes < 0 || limit < ret->memory_limit_bytes)) {
			cache = read_line(dir, "memory.stat", v->cache);
			ret->memory_limit_bytes = limit;
			ret->memory_bytes = cache > 0 && cache <= used ? used - cache : used;
		}
		if (strlen(dir) <= n_top || !strrchr(dir, '/'))
			return;
		*strrchr(dir, '/') = '\0';
	}
}

void pt_usage_cgroup(const char *proc, const char *sys, struct pt_usage *ret)
{
	pt_auto_buf b = PT_BUF_INIT(TEXT_MAX);
	struct pt_err ignored;
	char path[4096];

	ret->memory_bytes = ret->memory_limit_bytes = -1;
	ret->throttled_seconds = -1;
	if (pt_file_read(proc, &b, &ignored) < 0)
		return;
	for (size_t i = 0; i < PT_COUNT(versions); i++) {
		const struct version *v = &versions[i];
		pt_auto_buf top = PT_BUF_INIT(4096);
		pt_auto_buf dir = PT_BUF_INIT(8192);

		if (!pt_cgroup_path(b.p, v->controller, path, sizeof(path)))
			continue;
		pt_buf_fmt(&top, "%s%s", sys, v->folder);
		/* in a container the path may be the host's, and its files are at the top */
		pt_buf_fmt(&dir, "%s%s", top.p, strcmp(path, "/") == 0 ? "" : path);
		if (pt_buf_done(&top, &ignored) == 0 && pt_buf_done(&dir, &ignored) == 0)
			look_up(v, top.p, dir.p, ret);
	}
}

/* --- as metrics --- */

enum { CPU, RESIDENT, FDS, MAX_FDS, STARTED, THREADS, MEMORY, MEMORY_LIMIT, THROTTLED };
static const struct pt_metric rows[] = {
	[CPU] = { "process_cpu_seconds_total", "CPU time spent by the process.", PT_COUNTER, "seconds" },
	[RESIDENT] = { "process_resident_memory_bytes", "Memory of the process that is resident.", PT_GAUGE, "bytes" },
	[FDS] = { "process_open_fds", "Files that the process has open.", PT_GAUGE },
	[MAX_FDS] = { "process_max_fds", "Most files that it may have open.", PT_GAUGE },
	[STARTED] = { "process_start_time_seconds",
		      "When the process started, in seconds since 1970: time() minus this is its uptime.", PT_GAUGE, "seconds" },
	[THREADS] = { "process_threads", "Threads of the process.", PT_GAUGE },
	[MEMORY] = { "postern_cgroup_memory_bytes",
		     "Memory of the cgroup whose limit is the smallest, without page cache that can be dropped.", PT_GAUGE,
		     "bytes" },
	[MEMORY_LIMIT] = { "postern_cgroup_memory_limit_bytes",
			   "The smallest memory limit above the process; absent without one.", PT_GAUGE, "bytes" },
	[THROTTLED] = { "postern_cgroup_throttled_seconds_total",
			"How long the CPU limit of the cgroup held the process up (cgroup v2).", PT_COUNTER, "seconds" },
};
const struct pt_metric_table pt_process_metrics = { "Both: the process", rows, PT_COUNT(rows) };

void pt_process_expose(struct pt_buf *b)
{
	struct pt_exposition x = { .b = b, .table = &pt_process_metrics };
	struct pt_usage u;

	pt_usage_now(&u);
	const double values[] = {
		[CPU] = u.cpu_seconds,
		[RESIDENT] = (double)u.resident_bytes,
		[FDS] = (double)u.open_files,
		[MAX_FDS] = (double)u.max_files,
		[STARTED] = u.started,
		[THREADS] = (double)u.threads,
		[MEMORY] = (double)u.memory_bytes,
		[MEMORY_LIMIT] = (double)u.memory_limit_bytes,
		[THROTTLED] = u.throttled_seconds,
	};
	for (size_t i = 0; i < PT_COUNT(values); i++)
		if (values[i] >= 0)
			pt_metric_one(&x, i, values[i]);
}

/* --- disks --- */

bool pt_disk_space(const char *path, int64_t *ret_free, int64_t *ret_size)
{
	struct statvfs v;

	if (statvfs(path, &v) < 0)
		return false;
	*ret_free = (int64_t)(v.f_bavail * v.f_frsize);
	*ret_size = (int64_t)(v.f_blocks * v.f_frsize);
	return true;
}
