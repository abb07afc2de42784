#include "os/cgroup.h"
#include "os/file.h"
#include <stdio.h>

enum { PATH_MOST = 1024 };
#define UNLIMITED_BYTES (1LL << 60) /* version 1 writes "no limit" as a number near 2^63 */

bool pt_cgroup_path(const char *text, const char *controller, char *out, size_t size)
{
	size_t want = strlen(controller);

	for (const char *line = text; *line;) {
		size_t n = strcspn(line, "\n");
		const char *names = memchr(line, ':', n),
			   *path = names ? memchr(names + 1, ':', n - (size_t)(names + 1 - line)) : NULL;

		/* "4:cpu,cpuacct:/path" */
		for (const char *p = names ? names + 1 : NULL; path && p <= path;) {
			size_t w = strcspn(p, ",:");

			if (w == want && memcmp(p, controller, want) == 0) {
				snprintf(out, size, "%.*s", (int)(n - (size_t)(path + 1 - line)), path + 1);
				return true;
			}
			p += w + 1;
		}
		line += n + (line[n] == '\n');
	}
	return false;
}

static bool read_text(const char *root, const char *path, const char *file, struct pt_buf *out)
{
	char name[PATH_MOST];
	struct pt_err ignored;

	pt_buf_clear(out);
	return snprintf(name, sizeof(name), "%s%s/%s", root, strcmp(path, "/") == 0 ? "" : path, file) < (int)sizeof(name) &&
	       pt_file_read(name, out, &ignored) == 0;
}

int64_t pt_cgroup_number(const char *text)
{
	char *end;
	long long v = strtoll(text, &end, 10);

	return end == text || v < 0 || v >= UNLIMITED_BYTES ? -1 : v;
}

static int64_t least(int64_t a, int64_t b)
{
	return a < 0 ? b : b < 0 ? a : a < b ? a : b;
}

/* Call value() for the text of file in path and in each folder above it; the least counts. */
static int64_t least_of(const char *root, const char *path, const char *file, int64_t (*value)(const char *text))
{
	pt_auto_buf text = PT_BUF_INIT(64 * 1024);
	char at[PATH_MOST];
	int64_t best = -1;
	char *slash;

	snprintf(at, sizeof(at), "%s", path);
	for (;;) {
		if (read_text(root, *at ? at : "/", file, &text))
			best = least(best, value(text.p));
		if (!*at || strcmp(at, "/") == 0)
			return best;
		slash = strrchr(at, '/');
		if (!slash)
			return best;
		*slash = '\0';
	}
}

int64_t pt_cgroup_least(const char *root, const char *path, const char *file)
{
	return least_of(root, path, file, pt_cgroup_number);
}

static int64_t percent(int64_t quota, int64_t period)
{
	return quota > 0 && quota <= INT64_MAX / 100 && period > 0 ? quota * 100 / period : -1;
}

int64_t pt_cgroup_cpu(const char *text)
{
	char *end;
	long long quota = strtoll(text, &end, 10); /* 0 for "max" */

	return percent(quota, strtoll(end, NULL, 10));
}

int64_t pt_cgroup_value(const char *text, const char *word)
{
	size_t n = strlen(word);

	for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n')
		if (strncmp(line, word, n) == 0 && line[n] == ' ')
			return strtoll(line + n, NULL, 10);
	return -1;
}

static int64_t kills(const char *events)
{
	int64_t n = pt_cgroup_value(events, "oom_kill");

	return n > 0 ? n : 0;
}

static void read_v2(const char *root, const char *path, struct pt_limits *l)
{
	pt_auto_buf text = PT_BUF_INIT(64 * 1024);

	l->version = 2;
	l->memory_bytes = pt_cgroup_least(root, path, "memory.max");
	l->cpu_percent = least_of(root, path, "cpu.max", pt_cgroup_cpu);
	l->pids = pt_cgroup_least(root, path, "pids.max");
	if (read_text(root, path, "memory.events", &text) || read_text(root, "/", "memory.events", &text))
		l->oom_kills = kills(text.p);
}

/* In a container the group's own folder is mounted as the root, whatever path the kernel tells. */
static void read_v1(const char *root, const char *proc, struct pt_limits *l)
{
	pt_auto_buf text = PT_BUF_INIT(64 * 1024);
	char path[PATH_MOST], base[PATH_MOST];
	int64_t quota, period;

	if (pt_cgroup_path(proc, "memory", path, sizeof(path)) &&
	    snprintf(base, sizeof(base), "%s/memory", root) < (int)sizeof(base)) {
		l->version = 1;
		l->memory_bytes = pt_cgroup_least(base, path, "memory.limit_in_bytes");
		if (read_text(base, path, "memory.oom_control", &text) || read_text(base, "/", "memory.oom_control", &text))
			l->oom_kills = kills(text.p);
	}
	if (pt_cgroup_path(proc, "cpu", path, sizeof(path)) && snprintf(base, sizeof(base), "%s/cpu", root) < (int)sizeof(base)) {
		l->version = 1;
		quota = pt_cgroup_least(base, path, "cpu.cfs_quota_us");
		period = pt_cgroup_least(base, path, "cpu.cfs_period_us");
		l->cpu_percent = percent(quota, period);
	}
	if (pt_cgroup_path(proc, "pids", path, sizeof(path)) && snprintf(base, sizeof(base), "%s/pids", root) < (int)sizeof(base))
		l->pids = pt_cgroup_least(base, path, "pids.max");
}

void pt_limits_read(const char *root, const char *proc, struct pt_limits *ret)
{
	char path[PATH_MOST], file[PATH_MOST];

	*ret = (struct pt_limits) { .memory_bytes = -1, .cpu_percent = -1, .pids = -1 };
	if (pt_cgroup_path(proc, "", path, sizeof(path)) &&
	    snprintf(file, sizeof(file), "%s/cgroup.controllers", root) < (int)sizeof(file) && access(file, F_OK) == 0)
		read_v2(root, path, ret);
	else
		read_v1(root, proc, ret);
}
