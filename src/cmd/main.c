/* The program: a table of commands, and what becomes of their errors. */
#include "cmd/cmd.h"
#include "ctl/ctl.h"
#include "agent/agent.h"
#include "check/check.h"
#include "gateway/gateway.h"
#include "config.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>

enum { EXIT_USAGE = 64, EXIT_EPIPE = 128 + SIGPIPE }; /* sysexits.h; what a shell says when SIGPIPE ends a program */

static const struct pt_command *const parts[] = {
	&pt_cmd_demo, &pt_cmd_gateway, &pt_cmd_agent, &pt_cmd_check, &pt_cmd_ctl, &pt_cmd_help, &pt_cmd_version,
};
static struct pt_command table[PT_COUNT(parts) + 1]; /* filled by main(): rows of other files are no constants to the compiler */
static const struct pt_command root = {
	.name = "",
	.summary = "run operations next to private data, without opening the network",
	.text = "`postern demo` shows the whole path on this machine. `postern help COMMAND` explains a command.",
	.sub = table,
};

static const char *last_word(const char *name)
{
	const char *space = strrchr(name, ' ');

	return space ? space + 1 : name;
}

static int unknown(const struct pt_command *group, const char *word, struct pt_err *err)
{
	const char *names[32], *near, *space = group->name[0] ? " " : "";
	size_t n = 0;

	for (const struct pt_command *s = group->sub; s->name && n < PT_COUNT(names); s++)
		names[n++] = last_word(s->name);
	near = pt_closest(word, names, n);
	(void)pt_fail(err, PT_E_INVALID, "there is no command 'postern %s%s%.60s'", group->name, space, word);
	return near ? pt_hint(err, "did you mean `postern %s%s%s`?", group->name, space, near)
		    : pt_hint(err, "`postern help%s%s` lists the commands", space, group->name);
}

int pt_cmd_find(size_t n, char *const *words, const struct pt_command **ret, size_t *ret_used, struct pt_err *err)
{
	const struct pt_command *cmd = pt_opt_root;
	size_t used = 0;

	while (cmd->sub && used < n && words[used][0] != '-') {
		const struct pt_command *s = cmd->sub;

		while (s->name && strcmp(last_word(s->name), words[used]) != 0)
			s++;
		if (!s->name)
			return unknown(cmd, words[used], err);
		cmd = s;
		used++;
	}
	*ret = cmd;
	*ret_used = used;
	return PT_OK;
}

/* A name that is no command by itself ("postern ctl"): its help is all it can give. */
static int group(const struct pt_command *cmd, size_t n, char **rest)
{
	pt_auto_buf out = PT_BUF_INIT(1 << 20);
	bool asked = n && (strcmp(rest[0], "--help") == 0 || strcmp(rest[0], "-h") == 0);

	if (n && strcmp(rest[0], "--version") == 0) {
		puts("postern " PT_VERSION);
		return 0;
	}
	if (n && !asked) {
		fprintf(stderr, "postern%s%s: '%.60s' must stand behind a command\n", cmd->name[0] ? " " : "", cmd->name,
			rest[0]);
		return EXIT_USAGE;
	}
	pt_opt_help(cmd, &out);
	fputs(out.p, asked ? stdout : stderr);
	return asked ? 0 : EXIT_USAGE;
}

/* The error for people: what, what to do, and the name to look it up by. */
static int report(const char *name, const struct pt_err *err)
{
	if (err->sys == EPIPE)
		return EXIT_EPIPE; /* the reader has what it wanted (… | head) */
	fprintf(stderr, "postern%s%s: %s\n", name[0] ? " " : "", name, err->msg);
	if (err->hint[0])
		fprintf(stderr, "  hint: %s\n", err->hint);
	if (err->code != PT_E_INVALID)
		fprintf(stderr, "  code: %s%s%s%s\n", pt_code_wire(err->code), err->native[0] ? " (" : "", err->native,
			err->native[0] ? ")" : "");
	return pt_code_exit(err->code);
}

/* A daemon may be started with 0, 1 or 2 closed: the next file opened, such as a database, would get the number, and what is printed. */
static void occupy_standard_files(void)
{
	int fd = open("/dev/null", O_RDWR);

	while (fd >= 0 && fd <= STDERR_FILENO)
		fd = dup(fd);
	if (fd >= 0)
		(void)close(fd);
}

int main(int argc, char **argv)
{
	const struct pt_command *cmd = NULL;
	struct pt_err err = { 0 };
	size_t used = 0, n = argc > 0 ? (size_t)argc - 1 : 0;
	int rc;

	pt_check_share_settings();
	for (size_t i = 0; i < PT_COUNT(parts); i++)
		table[i] = *parts[i];
	pt_opt_root = &root;
	occupy_standard_files();
	(void)signal(SIGPIPE, SIG_IGN); /* a peer that goes away is an error of that call, not the end of the program */
	if (pt_cmd_find(n, argv + 1, &cmd, &used, &err) < 0)
		return report("", &err);
	if (!cmd->run)
		return group(cmd, n - used, argv + 1 + used);
	rc = cmd->run(cmd, argc - (int)used, argv + used, &err);
	return rc < 0 ? report(cmd->name, &err) : rc;
}
