/* identity, cgroup, metadata, agent: the process's own place. */
#include "base/clock.h"
#include "check/ask.h"
#include "check/check_int.h"
#include "os/cgroup.h"
#include "os/file.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/resource.h>

#define MIB (1024LL * 1024)

void pt_check_line(const char *path, char *out, size_t size)
{
	pt_auto(pt_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t n = fd < 0 ? 0 : read(fd, out, size - 1);

	out[n > 0 ? n : 0] = '\0';
	out[strcspn(out, "\n")] = '\0';
}

bool pt_check_proc(const char *name, char *out, size_t size)
{
	pt_auto_buf text = PT_BUF_INIT(64 * 1024);
	struct pt_err ignored;
	size_t n = strlen(name);

	if (pt_file_read("/proc/self/status", &text, &ignored) < 0)
		return false;
	for (const char *p = text.p; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
		if (strncmp(p, name, n) == 0 && p[n] == ':') {
			p += n + 1 + strspn(p + n + 1, " \t");
			snprintf(out, size, "%.*s", (int)strcspn(p, "\n"), p);
			return true;
		}
	return false;
}

/* --- identity --- */

static const char *const capabilities[] = {
	"CHOWN",
	"DAC_OVERRIDE",
	"DAC_READ_SEARCH",
	"FOWNER",
	"FSETID",
	"KILL",
	"SETGID",
	"SETUID",
	"SETPCAP",
	"LINUX_IMMUTABLE",
	"NET_BIND_SERVICE",
	"NET_BROADCAST",
	"NET_ADMIN",
	"NET_RAW",
	"IPC_LOCK",
	"IPC_OWNER",
	"SYS_MODULE",
	"SYS_RAWIO",
	"SYS_CHROOT",
	"SYS_PTRACE",
	"SYS_PACCT",
	"SYS_ADMIN",
	"SYS_BOOT",
	"SYS_NICE",
	"SYS_RESOURCE",
	"SYS_TIME",
	"SYS_TTY_CONFIG",
	"MKNOD",
	"LEASE",
	"AUDIT_WRITE",
	"AUDIT_CONTROL",
	"SETFCAP",
	"MAC_OVERRIDE",
	"MAC_ADMIN",
	"SYSLOG",
	"WAKE_ALARM",
	"BLOCK_SUSPEND",
	"AUDIT_READ",
	"PERFMON",
	"BPF",
	"CHECKPOINT_RESTORE",
};

void pt_check_identity(struct pt_check_ctx *c, struct pt_check_result *r)
{
	pt_auto_buf names = PT_BUF_INIT(2048);
	unsigned long long caps = 0;
	unsigned n = 0;
	char text[64];

	(void)c;
	if (pt_check_proc("CapEff", text, sizeof(text)))
		caps = strtoull(text, NULL, 16);
	for (unsigned i = 0; i < 64; i++) {
		if (!(caps >> i & 1))
			continue;
		if (n++ < 5 && i < PT_COUNT(capabilities))
			pt_buf_fmt(&names, "%s%s", names.len ? ", " : "", capabilities[i]);
	}
	if (geteuid() == 0)
		pt_check_warn(r,
			      "Run it as another user (runAsNonRoot: true, runAsUser: 65534); the agent needs no rights of root.",
			      "it runs as root");
	if (n)
		pt_check_warn(r, "Drop all capabilities (capabilities: {drop: [ALL]}).", "it has %u capabilities: %s%s", n,
			      names.p, n > 5 ? ", …" : "");
	pt_check_note(r, "uid %ld, gid %ld%s", (long)geteuid(), (long)getegid(), n ? "" : ", no capabilities");
}

/* --- cgroup --- */

/* What an agent takes, measured: about 16 MiB idle; a slot that moves rows takes its buffers, and the connectors' own. */
enum { MEMORY_BASE_MIB = 32, MEMORY_SLOT_MIB = 2, MEMORY_LEAST_MIB = 24, THREADS_BASE = 8, FILES_BASE = 64, FILES_SLOT = 4 };

static void memory(const struct pt_agent_conf *conf, const struct pt_limits *l, struct pt_check_result *r)
{
	long long need = MEMORY_BASE_MIB + MEMORY_SLOT_MIB * conf->slots, have = l->memory_bytes / MIB;

	if (l->memory_bytes < 0) {
		pt_check_note(r, "no memory limit");
		return;
	}
	if (have < MEMORY_LEAST_MIB)
		pt_check_fail(r, "Raise the memory limit (resources.limits.memory): 128Mi is a good start.",
			      "the memory limit of %lld MiB is not enough for an idle agent (%d MiB)", have, MEMORY_LEAST_MIB);
	else if (have < need)
		pt_check_warn(r, "Raise the memory limit (resources.limits.memory), or lower --slots.",
			      "the memory limit is %lld MiB; %lld slots may want %lld", have, (long long)conf->slots, need);
	else
		pt_check_note(r, "memory limit %lld MiB", have);
	if (l->oom_kills > 0)
		pt_check_warn(r, "Raise the memory limit (resources.limits.memory), or lower --slots.",
			      "%lld processes here were killed for want of memory", (long long)l->oom_kills);
}

static void processes(const struct pt_agent_conf *conf, const struct pt_limits *l, struct pt_check_result *r)
{
	long long need = conf->slots + conf->publishers + THREADS_BASE;
	static const char fix[] = "Raise the limit of processes (podPidsLimit of the kubelet, TasksMax), or lower --slots.";

	if (l->pids < 0)
		return;
	if (l->pids < need)
		pt_check_fail(r, fix, "the limit of %lld processes is not enough: the agent wants %lld threads",
			      (long long)l->pids, need);
	else if (l->pids < 2 * need)
		pt_check_warn(r, fix,
			      "the limit of %lld processes is narrow: the agent wants %lld threads, and name lookups more",
			      (long long)l->pids, need);
}

static void open_files(const struct pt_agent_conf *conf, struct pt_check_result *r)
{
	unsigned long long need = FILES_BASE + FILES_SLOT * (unsigned long long)(conf->slots + conf->publishers);
	static const char fix[] = "Raise the limit of open files (ulimit -n, LimitNOFILE).";
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0 || l.rlim_cur == RLIM_INFINITY || l.rlim_cur >= need)
		return;
	if (l.rlim_cur < FILES_BASE)
		pt_check_fail(r, fix, "%llu open files are not enough for an idle agent (%d)", (unsigned long long)l.rlim_cur,
			      FILES_BASE);
	else
		pt_check_warn(r, fix, "%llu open files; the slots may want %llu", (unsigned long long)l.rlim_cur, need);
}

void pt_check_cgroup(struct pt_check_ctx *c, struct pt_check_result *r)
{
	pt_auto_buf proc = PT_BUF_INIT(64 * 1024);
	struct pt_limits l;
	struct pt_err ignored;

	if (pt_file_read("/proc/self/cgroup", &proc, &ignored) < 0)
		pt_buf_clear(&proc);
	pt_limits_read("/sys/fs/cgroup", proc.p, &l);
	memory(c->conf, &l, r);
	processes(c->conf, &l, r);
	open_files(c->conf, r);
	if (l.cpu_percent >= 0 && l.cpu_percent < 10)
		pt_check_warn(r, "Raise the CPU limit (resources.limits.cpu), or leave it out.",
			      "the CPU limit is %lld %% of a CPU: handshakes and probes become slow", (long long)l.cpu_percent);
	else if (l.cpu_percent >= 0)
		pt_check_note(r, "CPU limit %lld.%02lld", (long long)l.cpu_percent / 100, (long long)l.cpu_percent % 100);
	if (l.version)
		pt_check_note(r, "cgroup v%d", l.version);
	else
		pt_check_note(r, "no cgroup is visible");
}

/* --- metadata --- */

enum { METADATA_MS = 1000 };
static const char *const metadata_addresses[] = { "169.254.169.254", "fd00:ec2::254" };

static int metadata_socket(const char *address)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(80) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(80) };
	bool is4 = inet_pton(AF_INET, address, &v4.sin_addr) == 1;
	int fd, rc;

	if (!is4 && inet_pton(AF_INET6, address, &v6.sin6_addr) != 1)
		return -1;
	fd = socket(is4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	rc = is4 ? connect(fd, (struct sockaddr *)&v4, sizeof(v4)) : connect(fd, (struct sockaddr *)&v6, sizeof(v6));
	if (rc == 0 || errno == EINPROGRESS)
		return fd;
	close(fd);
	return -1;
}

/* Does it speak HTTP?  Something on the way may accept every connection. */
static bool answers(int fd, int64_t end)
{
	static const char ask[] = "GET / HTTP/1.0\r\nHost: metadata\r\n\r\n";
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	char byte[5];

	if (poll(&p, 1, (int)(end - pt_mono_ms() > 0 ? end - pt_mono_ms() : 0)) != 1 ||
	    send(fd, ask, sizeof(ask) - 1, MSG_NOSIGNAL) != (ssize_t)sizeof(ask) - 1)
		return false;
	p.events = POLLIN;
	return poll(&p, 1, (int)(end - pt_mono_ms() > 0 ? end - pt_mono_ms() : 0)) == 1 &&
	       recv(fd, byte, sizeof(byte), 0) == (ssize_t)sizeof(byte) && memcmp(byte, "HTTP/", 5) == 0;
}

void pt_check_metadata(struct pt_check_ctx *c, struct pt_check_result *r)
{
	int64_t end = pt_mono_ms() + METADATA_MS;

	(void)c;
	for (size_t i = 0; i < PT_COUNT(metadata_addresses); i++) {
		pt_auto(pt_closep) int fd = metadata_socket(metadata_addresses[i]);

		if (fd >= 0 && answers(fd, end + (int64_t)i * METADATA_MS))
			pt_check_warn(
				r,
				"Block it with a NetworkPolicy (networkPolicy of the Helm chart), or by the cloud's hop limit of 1. "
				"The agent's own operations may not go there in any case.",
				"the cloud's metadata service answers at %s: whoever runs code here can ask it for credentials",
				metadata_addresses[i]);
	}
	if (!r->problems.len)
		pt_check_note(r, "not reachable from here");
}

/* --- agent --- */

/* Could an agent listen there?  For the moment of the question nobody else can. */
static void is_free(const char *listen_at, struct pt_check_result *r)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };
	const int one = 1;
	struct pt_err ignored;
	char host[256];
	unsigned port;
	int fd, rc;

	if (pt_hostport_parse(listen_at, host, &port, &ignored) < 0)
		return;
	v4.sin_port = v6.sin6_port = htons((uint16_t)port);
	if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
		fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		rc = bind(fd, (struct sockaddr *)&v6, sizeof(v6));
	} else {
		(void)inet_pton(AF_INET, *host ? host : "0.0.0.0", &v4.sin_addr);
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		rc = bind(fd, (struct sockaddr *)&v4, sizeof(v4));
	}
	if (rc < 0)
		pt_check_fail(r, "Set --listen (POSTERN_LISTEN) to a free address with a port above 1023.",
			      "the agent could not listen at %s: %s", listen_at, strerror(errno));
	pt_closep(&fd);
}

static void not_ready(struct pt_check_result *r, const char *reason, const char *hint)
{
	struct pt_err err;

	(void)pt_fail(&err, PT_E_UNAVAILABLE, "the agent that runs here is not ready: %s",
		      reason ? reason : "it gives no reason");
	if (hint)
		(void)pt_hint(&err, "%s", hint);
	pt_check_fail_err(r, &err, "Its log says why.");
}

void pt_check_agent(struct pt_check_ctx *c, struct pt_check_result *r)
{
	pt_auto_buf body = PT_BUF_INIT(64 * 1024);
	const char *at = c->conf->listen;
	struct pt_err err = { 0 };
	json_t *j = NULL, *ok;
	int status = 0, rc;

	if (!at || !*at) {
		pt_check_skip(r, "--listen is empty: there are no local endpoints");
		return;
	}
	if (strcmp(at, "systemd") == 0 || strcmp(strrchr(at, ':') ? strrchr(at, ':') : "", ":0") == 0) {
		pt_check_skip(r, "--listen %s does not say which port an agent here has", at);
		return;
	}
	rc = pt_ask(at, "GET", "/readyz", 3000, &status, &body, &err);
	if (rc == PT_E_CONNECT) {
		pt_check_skip(r, "no agent runs here");
		is_free(at, r);
		return;
	}
	if (rc == PT_E_INVALID) {
		pt_check_fail_err(r, &err, "Write --listen as ADDRESS:PORT.");
		return;
	}
	if (rc == PT_E_TIMEOUT) {
		pt_check_fail(r, "See its log; an agent that hangs is restarted by its liveness probe.",
			      "there is no answer from what listens at %s: an agent that hangs, or something else", at);
		return;
	}
	if (rc == 0 && pt_json_parse(body.p, body.len, &j, &err) < 0)
		j = NULL;
	ok = json_object_get(j, "ok");
	if (!json_is_boolean(ok))
		pt_check_fail(r, "Give the agent another --listen (POSTERN_LISTEN), or stop what has the port.",
			      "something else than an agent listens at %s", at);
	else if (json_is_true(ok))
		pt_check_note(r, "the agent that runs here is ready");
	else
		not_ready(r, json_string_value(json_object_get(j, "reason")), json_string_value(json_object_get(j, "hint")));
	json_decref(j);
}
