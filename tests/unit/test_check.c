/* What postern check reads: control groups, resolv.conf, names of products, where an agent listens; and how it answers. */
#include "check/ask.h"
#include "os/cgroup.h"
#include "check/report.h"
#include "check/resolv.h"
#include "check/security.h"
#include "os/file.h"
#include "../tap.h"

static void test_cgroup_paths(void)
{
	static const struct {
		const char *text, *controller, *path;
	} cases[] = {
		{ "0::/kubepods.slice/pod1\n", "", "/kubepods.slice/pod1" },
		{ "0::/\n", "", "/" },
		{ "9:name=systemd:/\n4:cpu,cpuacct:/a\n3:memory:/b:c\n0::/d\n", "memory", "/b:c" },
		{ "9:name=systemd:/\n4:cpu,cpuacct:/a\n0::/d\n", "cpuacct", "/a" },
		{ "9:name=systemd:/\n4:cpu,cpuacct:/a\n0::/d", "", "/d" },
		{ "4:cpuset:/x\n", "cpu", NULL },
		{ "4:cpu\n", "cpu", NULL },
		{ "", "memory", NULL },
	};

	for (size_t i = 0; i < PT_COUNT(cases); i++) {
		char path[100] = "";
		bool there = pt_cgroup_path(cases[i].text, cases[i].controller, path, sizeof(path));

		is_int(there, cases[i].path != NULL, "case %zu: '%s'", i, cases[i].controller);
		if (cases[i].path)
			is_str(path, cases[i].path, "its path");
	}
}

static void put(const char *root, const char *file, const char *text)
{
	struct pt_err err = { 0 };
	char path[300], *slash;

	snprintf(path, sizeof(path), "%s/%s", root, file);
	slash = strrchr(path, '/');
	*slash = '\0';
	pt_assert(pt_mkdirs(path, &err) == 0);
	*slash = '/';
	pt_assert(pt_file_replace(path, text, strlen(text), 0600, &err) == 0);
}

static void is_limits(const char *root, const char *proc, struct pt_limits want, const char *what)
{
	struct pt_limits l;

	pt_limits_read(root, proc, &l);
	is_int(l.version, want.version, "%s: version", what);
	is_int(l.memory_bytes, want.memory_bytes, "%s: memory", what);
	is_int(l.cpu_percent, want.cpu_percent, "%s: CPU", what);
	is_int(l.pids, want.pids, "%s: processes", what);
	is_int(l.oom_kills, want.oom_kills, "%s: OOM kills", what);
}

static void test_limits(const char *dir)
{
	char root[200];

	snprintf(root, sizeof(root), "%s/v2", dir);
	put(root, "cgroup.controllers", "cpu memory pids\n");
	put(root, "pod/memory.max", "134217728\n");
	put(root, "pod/cpu.max", "max 100000\n");
	put(root, "pod/app/memory.max", "max\n");
	put(root, "pod/app/cpu.max", "25000 100000\n");
	put(root, "pod/app/pids.max", "500\n");
	put(root, "pod/app/memory.events", "low 0\noom 4\noom_kill 3\n");
	is_limits(root, "0::/pod/app\n", (struct pt_limits) { 2, 134217728, 25, 500, 3 }, "the smallest on the way up counts");
	put(root, "memory.max", "67108864\n");
	put(root, "memory.events", "oom_kill 1\n");
	is_limits(root, "0::/../elsewhere/pod9\n", (struct pt_limits) { 2, 67108864, -1, -1, 1 },
		  "a container's own group is the root");

	snprintf(root, sizeof(root), "%s/v1", dir);
	put(root, "memory/pod/memory.limit_in_bytes", "268435456\n");
	put(root, "memory/memory.limit_in_bytes", "9223372036854771712\n");
	put(root, "memory/pod/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
	put(root, "cpu/pod/cpu.cfs_quota_us", "150000\n");
	put(root, "cpu/pod/cpu.cfs_period_us", "100000\n");
	put(root, "cpu/cpu.cfs_quota_us", "-1\n");
	put(root, "pids/pod/pids.max", "max\n");
	is_limits(root, "5:pids:/pod\n4:cpu,cpuacct:/pod\n3:memory:/pod\n0::/\n", (struct pt_limits) { 1, 268435456, 150, -1, 2 },
		  "version 1");
	is_limits(root, "3:memory:/\n", (struct pt_limits) { 1, -1, -1, -1, 0 }, "a number near 2^63 is no limit");
	is_limits(dir, "", (struct pt_limits) { 0, -1, -1, -1, 0 }, "nothing");
	is_int(pt_cgroup_cpu("100000 0"), -1, "a period of 0");
	is_int(pt_cgroup_cpu(""), -1, "no text");
	is_int(pt_cgroup_cpu("9223372036854775807 100000"), -1, "more than any machine has is no limit");
	is_int(pt_cgroup_value("oom 4\noom_kill", "oom_kill"), -1, "a word without a number");
}

static void test_resolv(void)
{
	struct pt_resolv r;
	unsigned char q[512];
	char label[70];

	pt_resolv_parse(
		"# made by the kubelet\nsearch ns.svc.cluster.local svc.cluster.local  cluster.local\nnameserver 10.96.0.10\n"
		"options ndots:5 timeout:2\n",
		&r);
	is_int(r.n_servers, 1, "one server");
	is_str(r.servers[0], "10.96.0.10", "its address");
	is_int(r.n_search, 3, "three search domains");
	is_int(r.ndots, 5, "ndots");
	pt_resolv_parse(
		"nameserver\nnameserver\tfd00::53%eth0 ; here\nnameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\ndomain "
		"example.com",
		&r);
	is_int(r.n_servers, 3, "never more than the resolver takes");
	is_str(r.servers[0], "fd00::53%eth0", "IPv6 with a zone");
	is_int(r.n_search, 1, "domain is a search list of one");
	is_int(r.ndots, 1, "the default");
	pt_resolv_parse("", &r);
	is_int(r.n_servers, 0, "an empty file");
	is_int(pt_resolv_question("a.bc", 0x1234, q), 22, "a question");
	ok(memcmp(q, "\x12\x34\1\0\0\1\0\0\0\0\0\0\1a\2bc\0\0\1\0\1", 22) == 0, "as RFC 1035 has it");
	is_int(pt_resolv_question("a.bc.", 1, q), 22, "a dot at the end");
	is_int(pt_resolv_question("a..b", 1, q), 0, "an empty label");
	memset(label, 'a', 64);
	label[64] = '\0';
	is_int(pt_resolv_question(label, 1, q), 0, "a label that is too long");
}

static void test_products(void)
{
	static const struct {
		const char *text, *product;
	} cases[] = {
		{ "falcon-sensor", "CrowdStrike Falcon" },
		{ "falcon_lsm_serviceable 724992 1 - Live 0x0 (OE)", "CrowdStrike Falcon" },
		{ "52 30 0:44 / /opt/CrowdStrike rw - ext4 /dev/sda1 rw", "CrowdStrike Falcon" },
		{ "falco", "Falco" },
		{ "/opt/aquasec/slklib.so", "Aqua" },
		{ "wdavdaemon", "Microsoft Defender" },
		{ "/var/lib/twistlock/.tools", "Prisma Cloud (Twistlock)" },
		{ "liboneagentproc.so", "Dynatrace OneAgent" },
		{ "falconry", NULL },
		{ "peregrine_falcons", NULL },
		{ "mysysdigger", NULL },
		{ "postern", NULL },
		{ "", NULL },
	};

	for (size_t i = 0; i < PT_COUNT(cases); i++) {
		const char *got = pt_security_product(cases[i].text);

		is_str(got ? got : "none", cases[i].product ? cases[i].product : "none", "'%s'", cases[i].text);
	}
}

static void test_urls(void)
{
	static const struct {
		const char *listen, *url;
	} cases[] = {
		{ "0.0.0.0:8080", "http://127.0.0.1:8080/livez" },
		{ ":8080", "http://127.0.0.1:8080/livez" },
		{ "[::]:8080", "http://[::1]:8080/livez" },
		{ "[fd00::1]:80", "http://[fd00::1]:80/livez" },
		{ "10.1.2.3:81", "http://10.1.2.3:81/livez" },
		{ "", NULL },
		{ NULL, NULL },
		{ "0.0.0.0:0", NULL },
		{ "localhost", NULL },
		{ "systemd", NULL },
	};

	for (size_t i = 0; i < PT_COUNT(cases); i++) {
		pt_auto_buf url = PT_BUF_INIT(200);
		struct pt_err err = { 0 };
		int rc = pt_ask_url(cases[i].listen, "/livez", &url, &err);

		is_int(rc, cases[i].url ? 0 : PT_E_INVALID, "--listen '%s'", cases[i].listen ? cases[i].listen : "(null)");
		if (rc == 0)
			is_str(url.p, cases[i].url, "is asked at %s", cases[i].url);
	}
}

/* Texts of others are cut, and may be no UTF-8: the document stays JSON. */
static void test_odd_texts(void)
{
	struct pt_check_result r = {
		.name = "one", .problems = PT_BUF_INIT(999), .notes = PT_BUF_INIT(8192), .fix = PT_BUF_INIT(999)
	};
	struct pt_check_ctx c = { .results = &r, .n_results = 1 };
	pt_auto_buf doc = PT_BUF_INIT(1 << 20), longer = PT_BUF_INIT(4096);
	struct pt_err err = { 0 };
	json_t *j = NULL;

	for (int i = 0; i < 800; i++)
		pt_buf_str(&longer, "\xc3\xa9");
	pt_check_note(&r, "x%s", longer.p);
	for (int i = 0; i < 20; i++)
		pt_check_fail(&r, longer.p, "\xff\xfe%.100s", longer.p);
	pt_check_json(&c, &doc);
	is_int(pt_json_parse(doc.p, doc.len, &j, &err), 0, "JSON: %s", err.msg);
	json_decref(j);
	pt_buf_release(&r.problems);
	pt_buf_release(&r.notes);
	pt_buf_release(&r.fix);
}

static void test_answer(void)
{
	struct pt_check_result r[3];
	struct pt_check_ctx c = { .results = r, .n_results = PT_COUNT(r) };
	struct pt_err err = { .msg = "no\nline \"break\"", .hint = "do this" };
	static const char *const names[] = { "one", "second", "three" };
	pt_auto_buf text = PT_BUF_INIT(4096);
	pt_auto_buf doc = PT_BUF_INIT(4096);
	json_t *j = NULL;

	for (size_t i = 0; i < PT_COUNT(r); i++)
		r[i] = (struct pt_check_result) {
			.name = names[i], .problems = PT_BUF_INIT(999), .notes = PT_BUF_INIT(999), .fix = PT_BUF_INIT(999)
		};
	pt_check_skip(&r[0], "nothing there");
	pt_check_note(&r[1], "fine");
	pt_check_fail_err(&r[1], &err, "never shown");
	pt_check_warn(&r[1], "And that.", "%d more", 2);
	pt_check_warn(&r[1], "And that.", "again");
	pt_check_warn(&r[2], "Third\n\033[2J\xc2\x9b.", "careful");
	for (size_t i = 0; i < PT_COUNT(r); i++)
		pt_check_row(&r[i], 6, false, &text);
	pt_check_end(&c, &text);
	is_str(text.p,
	       "SKIP  one     nothing there\nFAIL  second  no line \"break\"; 2 more; again; fine\nWARN  three   careful\n\n"
	       "0 passed, 1 warning, 1 failed, 1 skipped\n\nWhat to do:\n 1. second: Do this. And that.\n 2. three: Third  [2J  .\n",
	       "the worst counts, all is told, fixes once, failures first");
	pt_check_json(&c, &doc);
	is_int(pt_json_parse(doc.p, doc.len, &j, &err), 0, "JSON");
	ok(json_is_false(json_object_get(j, "ok")), "not ok");
	is_str(json_string_value(json_object_get(json_array_get(json_object_get(j, "checks"), 1), "fix")), "Do this. And that.",
	       "its fix");
	ok(json_is_null(json_object_get(json_array_get(json_object_get(j, "checks"), 0), "fix")), "none without a problem");
	json_decref(j);
	for (size_t i = 0; i < PT_COUNT(r); i++) {
		pt_buf_release(&r[i].problems);
		pt_buf_release(&r[i].notes);
		pt_buf_release(&r[i].fix);
	}
}

int main(void)
{
	char dir[] = "/tmp/postern-check-XXXXXX", remove[64];

	pt_assert(mkdtemp(dir));
	test_cgroup_paths();
	test_limits(dir);
	test_resolv();
	test_products();
	test_urls();
	test_answer();
	test_odd_texts();
	snprintf(remove, sizeof(remove), "rm -rf %s", dir);
	ok(system(remove) == 0, "removed");
	return tap_end();
}
