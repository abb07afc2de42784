/* security: software that watches processes may stop them, hold their files or open their TLS.  A container sees little of its
 * node, but it sees what was put into itself (mounts, libraries, neighbours) and the kernel's modules. */
#include "check/security.h"
#include "check/check_int.h"
#include "os/file.h"
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <strings.h>

static const struct {
	const char *word, *product;
} products[] = {
	{ "falcon", "CrowdStrike Falcon" },
	{ "falcond", "CrowdStrike Falcon" },
	{ "crowdstrike", "CrowdStrike Falcon" },
	{ "falcon_lsm_serviceable", "CrowdStrike Falcon" },
	{ "mdatp", "Microsoft Defender" },
	{ "wdavdaemon", "Microsoft Defender" },
	{ "microsoft-defender", "Microsoft Defender" },
	{ "twistlock", "Prisma Cloud (Twistlock)" },
	{ "prismacloud", "Prisma Cloud (Twistlock)" },
	{ "neuvector", "NeuVector" },
	{ "sysdig", "Sysdig" },
	{ "sysdig_probe", "Sysdig" },
	{ "sysdigcloud_probe", "Sysdig" },
	{ "dragent", "Sysdig" },
	{ "draios", "Sysdig" },
	{ "aquasec", "Aqua" },
	{ "aqua-enforcer", "Aqua" },
	{ "slklib", "Aqua" },
	{ "falco", "Falco" },
	{ "falco_probe", "Falco" },
	{ "tetragon", "Tetragon" },
	{ "tracee", "Tracee" },
	{ "kubearmor", "KubeArmor" },
	{ "sentinelone", "SentinelOne" },
	{ "sentinel-agent", "SentinelOne" },
	{ "s1-agent", "SentinelOne" },
	{ "cbagentd", "Carbon Black" },
	{ "cbdaemon", "Carbon Black" },
	{ "ds_agent", "Trend Micro" },
	{ "tmhook", "Trend Micro" },
	{ "bmhook", "Trend Micro" },
	{ "sophos", "Sophos" },
	{ "traps_pmd", "Cortex XDR" },
	{ "cortex-agent", "Cortex XDR" },
	{ "liboneagentproc", "Dynatrace OneAgent" },
	{ "lacework", "Lacework" },
};

static bool of_word(char c)
{
	return isalnum((unsigned char)c) || c == '_';
}

static bool has_word(const char *text, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = text; (p = strcasestr(p, word)); p++)
		if ((p == text || !of_word(p[-1])) && !of_word(p[n]))
			return true;
	return false;
}

const char *pt_security_product(const char *text)
{
	for (size_t i = 0; i < PT_COUNT(products); i++)
		if (has_word(text, products[i].word))
			return products[i].product;
	return NULL;
}

static const char fix[] =
	"Ask its owner for an exception for /usr/bin/postern and the spool folder. It can stop the agent, hold its "
	"files or open its TLS; when operations die without a reason, look there first.";

static void seen(const char *text, const char *where, struct pt_check_result *r)
{
	const char *product = pt_security_product(text);

	if (product && !strstr(r->problems.p, product))
		pt_check_warn(r, fix, "%s is active here (%s)", product, where);
}

static void each_line(const char *path, const char *where, struct pt_check_result *r)
{
	pt_auto_buf text = PT_BUF_INIT(4 << 20);
	struct pt_err ignored;

	if (pt_file_read(path, &text, &ignored) < 0)
		return;
	for (char *line = text.p; *line;) {
		size_t n = strcspn(line, "\n");
		bool more = line[n] != '\0';

		line[n] = '\0';
		seen(line, where, r);
		line += n + more;
	}
}

static void process_names(struct pt_check_result *r)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	char path[300], name[64];

	while (d && (e = readdir(d))) {
		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/comm", e->d_name);
		pt_check_line(path, name, sizeof(name));
		seen(name, "a process", r);
	}
	if (d)
		closedir(d);
}

/* Whatever is loaded into every program is loaded into the agent. */
static void preloaded(struct pt_check_result *r)
{
	const char *libs = getenv("LD_PRELOAD");
	char line[1024];

	if (!libs || !*libs) {
		pt_check_line("/etc/ld.so.preload", line, sizeof(line));
		libs = line;
	}
	if (!*libs)
		return;
	seen(libs, "a preloaded library", r);
	if (!pt_security_product(libs))
		pt_check_warn(r, "Take it out of LD_PRELOAD or /etc/ld.so.preload for the agent, unless you know what it does.",
			      "a library is loaded into every program here: %.200s", libs);
}

void pt_check_security(struct pt_check_ctx *c, struct pt_check_result *r)
{
	char text[64], lsm[200];

	(void)c;
	process_names(r);
	preloaded(r);
	each_line("/proc/modules", "a kernel module", r);
	each_line("/proc/self/mountinfo", "a mount", r);
	each_line("/proc/self/maps", "a library in this process", r);
	if (pt_check_proc("TracerPid", text, sizeof(text)) && strcmp(text, "0") != 0)
		pt_check_warn(r, "Find out who traces processes here: a traced agent is slow, and may be stopped.",
			      "this process is traced by process %s", text);
	if (!r->problems.len)
		pt_check_note(r, "none seen");
	if (pt_check_proc("Seccomp", text, sizeof(text)))
		pt_check_note(r, "seccomp %s", strcmp(text, "2") == 0 ? "filter" : strcmp(text, "0") == 0 ? "off" : "strict");
	if (pt_check_proc("NoNewPrivs", text, sizeof(text)))
		pt_check_note(r, "no_new_privs %s", strcmp(text, "1") == 0 ? "on" : "off");
	pt_check_line("/sys/kernel/security/lsm", lsm, sizeof(lsm));
	if (*lsm)
		pt_check_note(r, "kernel modules for security: %s", lsm);
}
