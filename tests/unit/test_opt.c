/* Config tables: flags and environment to values and errors, and the texts made from the table. */
#include "base/opt.h"
#include "../tap.h"
#include <fcntl.h>
#include <sys/wait.h>

struct conf {
	const char *url, *token, *format, *proxy, *file;
	int64_t slots, grace, spool;
	bool metrics, verbose;
};
static const char *const formats[] = { "json", "plain", "dev", NULL };
static const struct pt_opt agent_opts[] = {
	PT_O(struct conf, url, "gateway-url", PT_OPT_STR, .flags = PT_OPT_REQUIRED, .value = "URL",
	     .help = "Where the gateway is. Only an https URL is taken."),
	PT_O(struct conf, token, "token", PT_OPT_STR, .flags = PT_OPT_SECRET, .env = "MCD_TOKEN", .help = "Secret of the key."),
	PT_O(struct conf, format, "log-format", PT_OPT_ENUM, .def = "plain", .values = formats, .help = "Format of log lines.",
	     .letter = 'f'),
	PT_O(struct conf, proxy, "https-proxy", PT_OPT_STR, .flags = PT_OPT_STD_ENV, .env = "HTTPS_PROXY", .value = "URL",
	     .help = "Proxy for https: 'http://…' or \"none\"."),
	PT_O(struct conf, slots, "slots", PT_OPT_INT, .def = "18", .min = 1, .max = 1024, .help = "Operations at the same time."),
	PT_O(struct conf, grace, "grace", PT_OPT_DURATION, .def = "30s", .min = 1000, .max = 3600000, .help = "Time to finish."),
	PT_O(struct conf, spool, "spool-max", PT_OPT_SIZE, .def = "1G", .min = 1 << 20, .max = 1LL << 40,
	     .help = "Room for results."),
	PT_O(struct conf, metrics, "metrics", PT_OPT_BOOL, .def = "true", .help = "Serve metrics."),
	PT_O(struct conf, verbose, "verbose", PT_OPT_BOOL, .flags = PT_OPT_NO_ENV, .help = "Say more.", .letter = 'v'),
	PT_O(struct conf, file, "file", PT_OPT_STR, .flags = PT_OPT_POSITIONAL, .value = "FILE", .help = "Read this."),
};
static const struct pt_opt gateway_opts[] = {
	PT_O(struct conf, url, "public-url", PT_OPT_STR, .value = "URL", .help = "How the world sees it."),
};
static const struct pt_command ctl_subs[] = {
	{ .name = "ctl operations run", .summary = "run an operation", .opts = gateway_opts, .n_opts = 1 },
	{ .name = "ctl login", .summary = "keep a token: it's short", .opts = gateway_opts, .n_opts = 1 },
	{ 0 },
};
static const struct pt_command commands[] = {
	{ .name = "agent",
	  .summary = "run operations next to private data",
	  .text = "The agent opens one connection. It listens to nobody.\n.This line begins with a dot.\n\nExamples:\n\n"
		  "    postern agent --gateway-url https://gateway.example \\\n        --slots 4\n    .hidden 'x'\n\nFiles: none.\n",
	  .opts = agent_opts,
	  .n_opts = PT_COUNT(agent_opts) },
	{ .name = "gateway", .summary = "accept operations", .opts = gateway_opts, .n_opts = 1 },
	{ .name = "ctl", .summary = "client commands", .sub = ctl_subs },
	{ 0 },
};
static const struct pt_command root = { .name = "postern", .summary = "run operations next to private data", .sub = commands };

enum { ARGS = 8, ENVS = 4 };
struct given {
	const char *args[ARGS]; /* behind the command's name */
	const char *env[ENVS];  /* NAME=value */
};

static int parse(const struct pt_command *cmd, const struct given *g, struct conf *c, struct pt_err *err)
{
	char *argv[ARGS + 2] = { (char *)(uintptr_t)cmd->name };
	int argc = 1;

	clearenv();
	for (int i = 0; i < ENVS && g->env[i]; i++)
		putenv((char *)(uintptr_t)g->env[i]);
	for (; argc <= ARGS && g->args[argc - 1]; argc++)
		argv[argc] = (char *)(uintptr_t)g->args[argc - 1];
	memset(c, 0, sizeof(*c));
	memset(err, 0, sizeof(*err));
	return pt_opt_parse(&root, cmd, argc, argv, c, err);
}

#define URL "--gateway-url", "https://g"
/* want: what differs from "--gateway-url https://g" alone. */
static const struct {
	struct given in;
	const char *want;
} good[] = {
	{ { { URL }, { 0 } }, "" },
	{ { { "--gateway-url=https://g" }, { 0 } }, "" },
	{ { { 0 }, { "POSTERN_GATEWAY_URL=https://g" } }, "" },
	{ { { URL }, { "POSTERN_GATEWAY_URL=https://other", "POSTERN_SLOTS=" } }, "" },
	{ { { URL }, { "POSTERN_SLOTS=4", "POSTERN_GRACE=2m", "POSTERN_METRICS=No" } }, " slots=4 grace=120000 metrics=0" },
	{ { { URL, "--slots", "5", "--slots=6" }, { "POSTERN_SLOTS=4" } }, " slots=6" },
	{ { { URL, "--no-metrics", "-v" }, { "POSTERN_METRICS=true" } }, " metrics=0 verbose=1" },
	{ { { URL, "--metrics=0", "--verbose" }, { 0 } }, " metrics=0 verbose=1" },
	{ { { URL, "--log-format", "JSON" }, { 0 } }, " format=json" },
	{ { { URL, "-f", "dev" }, { 0 } }, " format=dev" },
	{ { { URL, "-fdev" }, { 0 } }, " format=dev" },
	{ { { URL, "--spool-max", "64M" }, { 0 } }, " spool=67108864" },
	{ { { URL }, { "HTTPS_PROXY=http://p", "https_proxy=http://q" } }, " proxy=http://p" },
	{ { { URL }, { "HTTPS_PROXY=", "https_proxy=http://q" } }, " proxy=http://q" },
	{ { { URL }, { "POSTERN_TOKEN=a", "MCD_TOKEN=b" } }, " token=a" },
	{ { { URL }, { "MCD_TOKEN=b" } }, " token=b" },
	{ { { "x.sql", URL }, { 0 } }, " file=x.sql" },
	{ { { URL, "--", "--x" }, { 0 } }, " file=--x" },
	{ { { URL, "-" }, { 0 } }, " file=-" },
	{ { { URL, "--token=--x" }, { 0 } }, " token=--x" },
	{ { { URL, "--token", "-x" }, { 0 } }, " token=-x" },
	/* known to another command; made by Kubernetes; a secret; empty; not ours */
	{ { { URL }, { "POSTERN_PUBLIC_URL=x", "POSTERN_CREDENTIAL_DB={}", "POSTERN_OLD=", "POSTERNISH=1" } }, "" },
	{ { { URL },
	    { "POSTERN_GATEWAY_SERVICE_HOST=1.2.3.4", "POSTERN_GATEWAY_SERVICE_PORT=80",
	      "POSTERN_GATEWAY_SERVICE_PORT_HTTP=80" } },
	  "" },
	{ { { URL },
	    { "POSTERN_GATEWAY_PORT=tcp://1.2.3.4:80", "POSTERN_GATEWAY_PORT_80_TCP=tcp://1.2.3.4:80",
	      "POSTERN_GATEWAY_PORT_80_TCP_ADDR=1.2.3.4", "POSTERN_GATEWAY_PORT_53_UDP_PROTO=udp" } },
	  "" },
};

static const struct {
	struct given in;
	const char *want;
} bad[] = {
	{ { { 0 }, { 0 } }, "--gateway-url is missing (or environment variable POSTERN_GATEWAY_URL)" },
	{ { { "--gateway-url=" }, { 0 } }, "--gateway-url is missing" },
	{ { { 0 }, { "POSTERN_GATEWAY_URI=x" } },
	  "unknown environment variable POSTERN_GATEWAY_URI; did you mean POSTERN_GATEWAY_URL?" },
	{ { { URL }, { "POSTERN_FROBNICATION=x" } }, "unknown environment variable POSTERN_FROBNICATION" },
	{ { { URL }, { "POSTERN_VERBOSE=1" } }, "unknown environment variable POSTERN_VERBOSE" },
	{ { { URL }, { "POSTERN_FILE=1" } }, "unknown environment variable POSTERN_FILE" },
	{ { { URL }, { "POSTERN_GATEWAY_PORT=80" } }, "unknown environment variable POSTERN_GATEWAY_PORT" },
	{ { { URL }, { "POSTERN_PORT_X_TCP=80" } }, "unknown environment variable POSTERN_PORT_X_TCP" },
	{ { { URL }, { "POSTERN_SLOTS=x" } }, "environment variable POSTERN_SLOTS: 'x' is not a number" },
	{ { { URL }, { "MCD_TOKEN=t", "POSTERN_METRICS=maybe" } },
	  "environment variable POSTERN_METRICS: 'maybe' is neither true nor false" },
	{ { { URL, "--slots", "0" }, { 0 } }, "--slots: 0 is not between 1 and 1024" },
	{ { { URL, "--slots", "1e3" }, { 0 } }, "--slots: '1e3' is not a number" },
	{ { { URL, "--slots", " 3" }, { 0 } }, "--slots: ' 3' is not a number" },
	{ { { URL, "--slots", "99999999999999999999" }, { 0 } }, "is not a number" },
	{ { { URL, "--grace", "2h" }, { 0 } }, "--grace: 2h is not between 1s and 1h" },
	{ { { URL, "--grace", "soon" }, { 0 } }, "--grace: 'soon' is not a duration such as" },
	{ { { URL, "--spool-max", "1k" }, { 0 } }, "--spool-max: 1k is not between 1M and 1T" },
	{ { { URL, "--log-format", "xml" }, { 0 } }, "--log-format: 'xml' is not one of json, plain, dev" },
	{ { { URL, "--slot", "3" }, { 0 } }, "unknown flag '--slot'; did you mean --slots?" },
	{ { { URL, "--gatewya-url=3" }, { 0 } }, "unknown flag '--gatewya-url'; did you mean --gateway-url?" },
	{ { { URL, "--completely-else" }, { 0 } }, "unknown flag '--completely-else'" },
	{ { { URL, "--no-slots" }, { 0 } }, "unknown flag '--no-slots'" },
	{ { { URL, "--file", "x" }, { 0 } }, "unknown flag '--file'" },
	{ { { URL, "-x" }, { 0 } }, "unknown flag '-x'" },
	{ { { URL, "-vf" }, { 0 } }, "unknown flag '-vf'" },
	{ { { "--gateway-url" }, { 0 } }, "--gateway-url needs a value" },
	{ { { "--gateway-url", "--slots", "3" }, { 0 } }, "--gateway-url needs a value" },
	{ { { URL, "-f" }, { 0 } }, "-f needs a value" },
	{ { { URL, "a", "b" }, { 0 } }, "unexpected argument 'b'" },
};

static void differing(const struct conf *c, struct pt_buf *b)
{
	if (strcmp(c->url, "https://g") != 0)
		pt_buf_fmt(b, " url=%s", c->url);
	if (c->token)
		pt_buf_fmt(b, " token=%s", c->token);
	if (c->format != formats[1]) /* the table's own text */
		pt_buf_fmt(b, " format=%s", c->format);
	if (c->proxy)
		pt_buf_fmt(b, " proxy=%s", c->proxy);
	if (c->file)
		pt_buf_fmt(b, " file=%s", c->file);
	if (c->slots != 18)
		pt_buf_fmt(b, " slots=%d", (int)c->slots);
	if (c->grace != 30000)
		pt_buf_fmt(b, " grace=%d", (int)c->grace);
	if (c->spool != 1 << 30)
		pt_buf_fmt(b, " spool=%d", (int)c->spool);
	if (!c->metrics)
		pt_buf_str(b, " metrics=0");
	if (c->verbose)
		pt_buf_str(b, " verbose=1");
}

static bool same(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static void values(void)
{
	struct pt_err e;
	struct conf c;

	for (size_t i = 0; i < PT_COUNT(good); i++) {
		pt_auto_buf b = PT_BUF_INIT(1024);
		int rc = parse(&commands[0], &good[i].in, &c, &e);

		ok(rc == 0, "good %zu %s", i, e.msg);
		if (rc == 0)
			differing(&c, &b);
		is_str(b.p, good[i].want, "values of good %zu", i);
	}
	for (size_t i = 0; i < PT_COUNT(bad); i++) {
		ok(parse(&commands[0], &bad[i].in, &c, &e) == PT_E_INVALID, "bad %zu is refused", i);
		ok(strstr(e.msg, bad[i].want), "bad %zu: %s", i, e.msg);
		ok(*e.hint, "bad %zu has a hint", i);
	}
	ok(parse(&root, &(struct given) { { "agnet" }, { 0 } }, &c, &e) == PT_E_INVALID, "a command's name in its place");
	is_str(e.msg, "unexpected argument 'agnet'; did you mean 'agent'?", "a near command is named");
}

/* What pt_opt_parse() prints. */
static int printed(const struct pt_command *cmd, const struct given *g, struct pt_buf *out, struct pt_err *err)
{
	FILE *f = tmpfile();
	int saved = dup(STDOUT_FILENO), rc;
	char chunk[4096];
	struct conf c;
	size_t n;

	fflush(stdout);
	dup2(fileno(f), STDOUT_FILENO);
	rc = parse(cmd, g, &c, err);
	fflush(stdout);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	rewind(f);
	while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0)
		pt_buf_add(out, chunk, n);
	fclose(f);
	return rc;
}

static void answers(void)
{
	static const struct given config = { { "--print-config", "--slots", "4", "--token", "s3cret" },
					     { "HTTPS_PROXY=http://u:pass@p:1", "POSTERN_GRACE=5s" } };
	struct pt_err e;
	pt_auto_buf b = PT_BUF_INIT(65536);

	ok(printed(&commands[0], &config, &b, &e) == 1, "--print-config, also without a required setting: %s", e.msg);
	is_str(b.p,
	       "NAME         VALUE              SOURCE\n"
	       "gateway-url  -                  not set\n"
	       "token        ****               flag\n"
	       "log-format   plain              default\n"
	       "https-proxy  http://u:****@p:1  environment HTTPS_PROXY\n"
	       "slots        4                  flag\n"
	       "grace        5s                 environment POSTERN_GRACE\n"
	       "spool-max    1G                 default\n"
	       "metrics      true               default\n"
	       "verbose      -                  not set\n"
	       "file         -                  not set\n",
	       "the table");
	pt_buf_clear(&b);
	ok(printed(&commands[0], &(struct given) { { "--version" }, { 0 } }, &b, &e) == 1, "--version");
	ok(strncmp(b.p, "postern ", 8) == 0 && b.p[b.len - 1] == '\n', "%s", b.p);
	pt_buf_clear(&b);
	ok(printed(&commands[0], &(struct given) { { "--bad", "--help" }, { "POSTERN_BAD=1" } }, &b, &e) == 1,
	   "--help counts most");
	ok(strstr(b.p, "Usage: postern agent [OPTIONS] [FILE]\n"), "usage");
	ok(strstr(b.p, "\n      --gateway-url URL            Where the gateway is.") && strstr(b.p, "[POSTERN_GATEWAY_URL]"),
	   "an option");
	ok(strstr(b.p, "  -f, --log-format json|plain|dev ") && strstr(b.p, "Default: plain."), "with letter, values, default");
	ok(strstr(b.p, "[HTTPS_PROXY]") && strstr(b.p, "--no-metrics"), "standard name, switch");
	ok(!strstr(b.p, "[POSTERN_VERBOSE]") && strstr(b.p, "  FILE "), "flag without environment, argument");
	pt_buf_clear(&b);
	ok(printed(&commands[0], &(struct given) { { "-h" }, { 0 } }, &b, &e) == 1 && b.len, "-h too");
	pt_buf_clear(&b);
	pt_opt_help(&root, &b);
	ok(strstr(b.p, "Usage: postern COMMAND") && strstr(b.p, "\n  gateway  accept operations\n"), "commands");
	pt_buf_clear(&b);
	pt_opt_help(&commands[2], &b);
	ok(strstr(b.p, "\n  run    run an operation\n"), "subcommands by their last word");
}

static void masked(void)
{
	static const char *const t[][2] = {
		{ "https://h/p", "https://h/p" },
		{ "https://u:p@h", "https://u:****@h" },
		{ "postgresql://u:p/w@d@h/db?password=x&y=1", "postgresql://u:****@h/db?password=****&y=1" },
		{ "host=h password=x user=u", "host=h password=**** user=u" },
		{ "", "" },
	};

	for (size_t i = 0; i < PT_COUNT(t); i++) {
		pt_auto_buf b = PT_BUF_INIT(256);

		pt_opt_masked(t[i][0], &b);
		is_str(b.p, t[i][1], "masked");
	}
}

static void closest(void)
{
	static const char *const names[] = { "gateway-url", "slots", "log-level" };
	static const char *const t[][2] = {
		{ "gateway-uri", "gateway-url" },
		{ "slosts", "slots" },
		{ "slost", "slots" },
		{ "SLOTS", "slots" },
		{ "log", NULL },
		{ "", NULL },
		{ "0123456789012345678901234567890123456789012345678901234567890123456789", NULL },
	};

	for (size_t i = 0; i < PT_COUNT(t); i++)
		ok(same(pt_closest(t[i][0], names, 3), t[i][1]), "closest to '%s'", t[i][0]);
}

static char *path; /* of the environment that the test was started in */

/* Give text on standard input to a program; its exit status, -1 when it is not there. */
static int feed(const char *const *argv, const struct pt_buf *text)
{
	int p[2], status = -1;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) < 0)
		return -1;
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		dup2(p[0], STDIN_FILENO);
		dup2(STDERR_FILENO, STDOUT_FILENO); /* standard output is for TAP */
		setenv("PATH", path, 1);
		execvp(argv[0], (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	close(p[0]);
	if (pid > 0) {
		ok(write(p[1], text->p, text->len) == (ssize_t)text->len, "text given to %s", argv[0]);
		close(p[1]);
		waitpid(pid, &status, 0);
	}
	return WIFEXITED(status) && WEXITSTATUS(status) != 127 ? WEXITSTATUS(status) : -1;
}

static void verdict(int rc, const char *program, const char *what)
{
	if (rc < 0)
		printf("ok %d - %s # SKIP %s is not here\n", ++tap_n_, what, program);
	else
		is_int(rc, 0, "%s", what);
}

/* The scripts must parse, and bash must offer the right words. */
static void completion(void)
{
	static const struct {
		const char *line, *want;
	} t[] = {
		{ "postern ''", "agent gateway ctl --help --version --print-config" },
		{ "postern ag", "agent" },
		{ "postern agent --slo", "--slots" },
		{ "postern agent --no-", "--no-metrics --no-verbose" },
		{ "postern agent --log-format ''", "json plain dev" },
		{ "postern agent -f d", "dev" },
		{ "postern agent --slots ''", "" },
		{ "postern ctl ''", "operations login --help --version --print-config" },
		{ "postern ctl operations ''", "run --help --version --print-config" },
		{ "postern ctl operations run --p", "--public-url --print-config" },
	};
	pt_auto_buf bash = PT_BUF_INIT(65536);
	pt_auto_buf zsh = PT_BUF_INIT(65536);
	pt_auto_buf none = PT_BUF_INIT(65536);

	pt_opt_complete(&root, "fish", &none);
	is_int(none.len, 0, "a shell that we do not know");
	pt_opt_complete(&root, "zsh", &zsh);
	verdict(feed((const char *const[]) { "zsh", "-n", NULL }, &zsh), "zsh", "zsh script parses");
	pt_opt_complete(&root, "bash", &bash);
	verdict(feed((const char *const[]) { "bash", "-n", NULL }, &bash), "bash", "bash script parses");
	for (size_t i = 0; i < PT_COUNT(t); i++) {
		pt_auto_buf run = PT_BUF_INIT(65536);

		pt_buf_add(&run, bash.p, bash.len);
		pt_buf_fmt(&run,
			   "COMP_WORDS=(%s); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _postern; [ \"${COMPREPLY[*]}\" = \"%s\" ]\n",
			   t[i].line, t[i].want);
		verdict(feed((const char *const[]) { "bash", NULL }, &run), "bash", t[i].line);
	}
}

static void manual(void)
{
	static const char *const lint[] = { "mandoc", "-Tlint", "-Wwarning", NULL };
	pt_auto_buf b = PT_BUF_INIT(65536);

	clearenv();
	setenv("SOURCE_DATE_EPOCH", "1795190400", 1);
	pt_opt_man(&commands[0], "postern agent", &b);
	ok(strncmp(b.p, ".Dd November 20, 2026\n.Dt POSTERN-AGENT 1\n", 42) == 0, "date and title");
	ok(strstr(b.p, ".It Fl Fl gateway\\-url Ar \"\\&URL\"\n"), "an option");
	ok(strstr(b.p, ".It Ev POSTERN_GATEWAY_URL\n") && strstr(b.p, ".Ev MCD_TOKEN"), "its variable");
	ok(strstr(b.p, "\n\\&.This line begins") && strstr(b.p, "\n\\&.hidden"), "text is never taken for requests");
	ok(strstr(b.p, ".It 75\n") && strstr(b.p, "timeout"), "exit status");
	verdict(feed(lint, &b), "mandoc", "page of a command passes mandoc");
	pt_buf_clear(&b);
	pt_opt_man(&root, "postern", &b);
	ok(strstr(b.p, ".It Cm agent\n"), "commands");
	verdict(feed(lint, &b), "mandoc", "page of the program passes mandoc");
}

/* pt_opt_parse_each(): mistakes are handed over, the defaults count, and the rest is read. */
static void collect(void *arg, const struct pt_err *err)
{
	pt_buf_fmt(arg, "%s|", err->msg);
}

static void mistakes(void)
{
	char *argv[] = { (char *)(uintptr_t) "agent", (char *)(uintptr_t) "--spool-max", (char *)(uintptr_t) "2G", NULL };
	char *wrong[] = { (char *)(uintptr_t) "agent", (char *)(uintptr_t) "--nothing", NULL };
	char *flag[] = { (char *)(uintptr_t) "agent", (char *)(uintptr_t) "--verbose=maybe", NULL };
	pt_auto_buf told = PT_BUF_INIT(4096);
	struct conf c = { 0 };
	struct pt_err err = { 0 };

	clearenv();
	setenv("POSTERN_SLOTS", "many", 1);
	setenv("POSTERN_GRACE", "1ms", 1);
	setenv("POSTERN_SLOTTS", "2", 1);
	is_int(pt_opt_parse_each(&root, &commands[0], 3, argv, &c, collect, &told, &err), 0, "it succeeds");
	is_str(told.p,
	       "unknown environment variable POSTERN_SLOTTS; did you mean POSTERN_SLOTS?|environment variable POSTERN_SLOTS: 'many' is not "
	       "a number|environment variable POSTERN_GRACE: 1ms is not between 1s and 1h|--gateway-url is missing (or environment variable "
	       "POSTERN_GATEWAY_URL)|",
	       "all mistakes");
	ok(c.slots == 18 && c.grace == 30000 && c.spool == 2LL << 30, "defaults in their place, the rest as given");
	is_int(pt_opt_parse_each(&root, &commands[0], 2, wrong, &c, collect, &told, &err), PT_E_INVALID,
	       "an unknown flag is none of them");
	is_int(pt_opt_parse_each(&root, &commands[0], 2, flag, &c, collect, &told, &err), PT_E_INVALID,
	       "nor is a flag without an environment name");
}

int main(void)
{
	path = strdup(getenv("PATH") ? getenv("PATH") : "/usr/bin:/bin");
	values();
	answers();
	masked();
	closest();
	mistakes();
	completion();
	manual();
	free(path);
	return tap_end();
}
