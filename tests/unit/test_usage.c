/* What the process uses, and the cgroup files of both versions, which the test writes. */
#include "os/file.h"
#include "os/usage.h"
#include "base/clock.h"
#include "tap.h"
#include <fcntl.h>
#include <stdlib.h>

static char root[] = "/tmp/postern-usage-XXXXXX";

/* Write below the root, making the folders. */
static void give(const char *path, const char *text)
{
	char full[300], dir[300];
	struct pt_err err;

	snprintf(full, sizeof(full), "%s/%s", root, path);
	snprintf(dir, sizeof(dir), "%s", full);
	*strrchr(dir, '/') = '\0';
	if (pt_mkdirs(dir, &err) < 0 || pt_file_replace(full, text, strlen(text), 0600, &err) < 0) {
		printf("Bail out! %s\n", err.msg);
		exit(1);
	}
}

static struct pt_usage look(const char *proc, const char *sys)
{
	char a[200], b[200];
	struct pt_usage u = { 0 };

	snprintf(a, sizeof(a), "%s/%s", root, proc);
	snprintf(b, sizeof(b), "%s/%s", root, sys);
	pt_usage_cgroup(a, b, &u);
	return u;
}

static void test_v2(void)
{
	struct pt_usage u;

	give("v2/proc", "0::/pod/c1\n");
	give("v2/sys/memory.stat", "anon 1\n");
	give("v2/sys/pod/memory.max", "9000000\n");
	give("v2/sys/pod/memory.current", "800000\n");
	give("v2/sys/pod/memory.stat", "anon 1\ninactive_file 50000\nfile 60000\n");
	give("v2/sys/pod/c1/memory.max", "max\n");
	give("v2/sys/pod/c1/memory.current", "700000\n");
	give("v2/sys/pod/c1/cpu.stat", "usage_usec 5\nnr_throttled 1\nthrottled_usec 2500000\n");
	u = look("v2/proc", "v2/sys");
	is_int(u.memory_limit_bytes, 9000000, "the pod's limit counts where the container has none");
	is_int(u.memory_bytes, 750000, "use without cache that can be dropped");
	ok(u.throttled_seconds == 2.5, "throttled %g s", u.throttled_seconds);
	give("v2/sys/pod/c1/memory.max", "1000000\n");
	u = look("v2/proc", "v2/sys");
	ok(u.memory_limit_bytes == 1000000 && u.memory_bytes == 700000, "the smaller limit counts, with its own use");
	give("in/proc", "0::/\n");
	give("in/sys/memory.max", "4096\n");
	give("in/sys/memory.current", "1024\n");
	u = look("in/proc", "in/sys");
	ok(u.memory_limit_bytes == 4096 && u.memory_bytes == 1024 && u.throttled_seconds == -1, "in a container: at the top");
	give("host/proc", "0::/kubepods/a/b\n");
	u = look("host/proc", "in/sys");
	is_int(u.memory_limit_bytes, 4096, "a path of the host, that is not there: the top again");
}

static void test_v1(void)
{
	struct pt_usage u;

	give("v1/proc", "9:cpu,cpuacct:/x\n4:memory:/x\n0::/x\n");
	give("v1/sys/memory/x/memory.limit_in_bytes", "2000000\n");
	give("v1/sys/memory/x/memory.usage_in_bytes", "500000\n");
	give("v1/sys/memory/x/memory.stat", "cache 7\ninactive_file 3\ntotal_inactive_file 100000\n");
	give("v1/sys/memory/memory.limit_in_bytes", "9223372036854771712\n");
	give("v1/sys/memory/memory.usage_in_bytes", "900000000\n");
	u = look("v1/proc", "v1/sys");
	ok(u.memory_limit_bytes == 2000000 && u.memory_bytes == 400000, "version 1");
	give("v1/sys/memory/x/memory.limit_in_bytes", "9223372036854771712\n");
	u = look("v1/proc", "v1/sys");
	ok(u.memory_limit_bytes == -1 && u.memory_bytes == -1, "no limit is none");
	u = look("nothing", "v1/sys");
	is_int(u.memory_limit_bytes, -1, "no cgroup at all");
}

static void test_now(void)
{
	struct pt_usage a, b;
	int64_t room, size;
	int fd;

	pt_usage_now(&a);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	for (volatile int i = 0; i < 100000000; i++)
		;
	pt_usage_now(&b);
	is_int(b.open_files - a.open_files, 1, "one file more is counted");
	ok(b.open_files >= 4 && b.open_files < b.max_files, "%lld of %lld files", (long long)b.open_files,
	   (long long)b.max_files);
	ok(b.cpu_seconds > a.cpu_seconds, "CPU time grows");
	ok(b.resident_bytes > 500000 && b.resident_bytes < 1 << 30, "%lld bytes resident", (long long)b.resident_bytes);
	is_int(b.threads, 1, "threads");
	ok(b.started > (double)pt_wall_ms() / 1000 - 60 && b.started < (double)pt_wall_ms() / 1000 + 1, "started a moment ago");
	ok(pt_disk_space(root, &room, &size) && room > 0 && room <= size, "a disk");
	ok(!pt_disk_space("/nowhere/at/all", &room, &size), "no disk");
	close(fd);
}

int main(void)
{
	char command[100];

	if (!mkdtemp(root))
		return 1;
	test_v2();
	test_v1();
	test_now();
	snprintf(command, sizeof(command), "rm -r %s", root);
	ok(system(command) == 0, "end");
	return tap_end();
}
