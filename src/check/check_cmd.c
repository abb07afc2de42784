/* `postern check`: the settings of an agent, the table of checks, running them one after the other, and the answer. */
#include "base/clock.h"
#include "base/log.h"
#include "check/ask.h"
#include "check/check.h"
#include "check/check_int.h"
#include "check/report.h"
#include "os/cond.h"
#include <signal.h>
#include <stdio.h>

enum { AGENT_OPTS_MOST = 64, STACK_BYTES = 512 * 1024 };

/* In the order in which they run; one may look at the results of those before it.  docs/check.md tells what each looks at. */
const struct pt_check_type pt_check_types[] = {
	{ "environment", pt_check_environment, 3000 },
	{ "filesystem", pt_check_filesystem, 8000 },
	{ "identity", pt_check_identity, 2000 },
	{ "cgroup", pt_check_cgroup, 2000 },
	{ "dns", pt_check_dns, 12000 },
	{ "proxy", pt_check_proxy, 20000 },
	{ "tls", pt_check_tls, 20000 },
	{ "gateway", pt_check_gateway, 20000 },
	{ "clock", pt_check_clock, 20000 },
	{ "token", pt_check_token, 20000 },
	{ "storage", pt_check_storage, 30000 },
	{ "integrations", pt_check_integrations, 8000 },
	{ "metadata", pt_check_metadata, 4000 },
	{ "security", pt_check_security, 4000 },
	{ "agent", pt_check_agent, 8000 },
};
const size_t pt_check_n_types = PT_COUNT(pt_check_types);

struct conf {
	struct pt_agent_conf agent; /* first: the agent's table of settings fills it */
	const char *output;
	struct pt_opt_strs only, skip;
	int64_t timeout_ms;
};

static const char *const outputs[] = { "text", "json", NULL };
static const struct pt_opt own[] = {
	PT_O(struct conf, output, "output", PT_OPT_ENUM, .flags = PT_OPT_NO_ENV, .def = "text", .values = outputs, .letter = 'o',
	     .help = "form of the answer"),
	PT_O(struct conf, only, "only", PT_OPT_STRS, .flags = PT_OPT_NO_ENV, .value = "NAMES",
	     .help = "run these checks only, separated by commas"),
	PT_O(struct conf, skip, "skip", PT_OPT_STRS, .flags = PT_OPT_NO_ENV, .value = "NAMES", .help = "leave these checks out"),
	PT_O(struct conf, timeout_ms, "timeout", PT_OPT_DURATION, .flags = PT_OPT_NO_ENV, .def = "60s", .min = 1000, .max = 60000,
	     .value = "TIME", .help = "for all checks together"),
};
static struct pt_opt opts[AGENT_OPTS_MOST + PT_COUNT(own)];

void pt_check_share_settings(void)
{
	size_t n = pt_cmd_agent.n_opts;

	pt_assert(n <= AGENT_OPTS_MOST);
	memcpy(opts, pt_cmd_agent.opts, n * sizeof(*opts));
	memcpy(opts + n, own, sizeof(own));
	pt_cmd_check.opts = opts;
	pt_cmd_check.n_opts = n + PT_COUNT(own);
}

/* --- which ones --- */

/* Call fn for each name of the lists, until one is < 0 or > 0; what it said. */
static int each_word(const struct pt_opt_strs *lists, int (*fn)(const char *word, void *arg, struct pt_err *err), void *arg,
		     struct pt_err *err)
{
	for (size_t i = 0; i < lists->n; i++)
		for (const char *p = lists->v[i] + strspn(lists->v[i], ", "); *p; p += strspn(p, ", ")) {
			size_t n = strcspn(p, ", ");
			char word[64];
			int rc;

			snprintf(word, sizeof(word), "%.*s", (int)n, p);
			rc = fn(word, arg, err);
			if (rc != 0)
				return rc;
			p += n;
		}
	return PT_OK;
}

static int is_it(const char *word, void *name, struct pt_err *err)
{
	return strcmp(word, name) == 0;
}

/* INVALID: no check has that name. */
static int is_known(const char *word, void *flag, struct pt_err *err)
{
	const char *names[PT_COUNT(pt_check_types)], *near;

	for (size_t i = 0; i < PT_COUNT(names); i++)
		names[i] = pt_check_types[i].name;
	near = pt_closest(word, names, PT_COUNT(names));
	if (near && strcmp(near, word) == 0)
		return PT_OK;
	(void)pt_fail(err, PT_E_INVALID, "%s: there is no check '%s'", (const char *)flag, word);
	return near ? pt_hint(err, "did you mean '%s'?", near) : pt_hint(err, "`postern check --help` names the checks");
}

static bool chosen(const struct conf *conf, const char *name)
{
	void *arg = (void *)(uintptr_t)name;

	return (!conf->only.n || each_word(&conf->only, is_it, arg, NULL) > 0) && each_word(&conf->skip, is_it, arg, NULL) == 0;
}

/* --- running --- */

/* One check under way.  Shared by its thread and by who waits for it; the last of them frees it. */
struct job {
	pthread_mutex_t lock;
	pthread_cond_t ended;
	bool done;
	const struct pt_check_type *type;
	struct pt_check_ctx *ctx;
	struct pt_check_result result;
};

static void result_init(struct pt_check_result *r, const char *name)
{
	*r = (struct pt_check_result) {
		.name = name, .problems = PT_BUF_INIT(8192), .notes = PT_BUF_INIT(8192), .fix = PT_BUF_INIT(8192)
	};
}

static void *job_main(void *arg)
{
	struct job *j = arg;

	j->type->run(j->ctx, &j->result);
	pthread_mutex_lock(&j->lock);
	j->done = true;
	pthread_cond_broadcast(&j->ended);
	pthread_mutex_unlock(&j->lock);
	return NULL;
}

static int job_start(struct job *j, pthread_t *t)
{
	pthread_attr_t attr;
	int rc;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	rc = pthread_create(t, &attr, job_main, j);
	pthread_attr_destroy(&attr);
	return rc;
}

/* False: it did not come back, and its thread is left behind. */
static bool run_one(struct pt_check_ctx *c, const struct pt_check_type *type, int64_t left_ms, struct pt_check_result *ret)
{
	int64_t began = pt_mono_ms(), limit = type->limit_ms < left_ms ? type->limit_ms : left_ms;
	struct job *j = calloc(1, sizeof(*j));
	pthread_t t;
	bool done;

	result_init(ret, type->name);
	if (limit <= 0) {
		pt_check_skip(ret, "no time was left for it");
		free(j);
		return true;
	}
	if (j) {
		pthread_mutex_init(&j->lock, NULL);
		pt_cond_init(&j->ended);
		j->type = type;
		j->ctx = c;
		result_init(&j->result, type->name);
	}
	if (!j || job_start(j, &t) != 0) {
		pt_check_fail(ret, "Raise the limits of memory and of processes: the agent needs many threads.",
			      "no thread could be started");
		free(j);
		return true;
	}
	pthread_mutex_lock(&j->lock);
	while (!j->done && pt_mono_ms() < began + limit)
		(void)pt_cond_wait_ms(&j->ended, &j->lock, began + limit - pt_mono_ms());
	done = j->done;
	pthread_mutex_unlock(&j->lock);
	if (done) {
		pthread_join(t, NULL);
		*ret = j->result;
		pthread_mutex_destroy(&j->lock);
		pthread_cond_destroy(&j->ended);
		free(j);
		if (!ret->problems.len && !ret->notes.len)
			pt_check_note(ret, "nothing to say");
	} else {
		pt_check_fail(ret,
			      "Something here hangs: a network file system whose server is away, or a network that swallows "
			      "packets.",
			      "it did not end within %.3g s", (double)limit / 1000);
	}
	ret->elapsed_ms = pt_mono_ms() - began;
	return done;
}

static void mistake(void *arg, const struct pt_err *err)
{
	struct pt_check_ctx *c = arg;
	struct pt_err ignored;

	if (pt_list_append(&c->mistakes, sizeof(*err), err, &ignored) < 0)
		fprintf(stderr, "postern check: %s (and no memory is left)\n", err->msg);
}

static void release(struct pt_check_ctx *c)
{
	for (size_t i = 0; i < c->n_results; i++) {
		pt_buf_release(&c->results[i].problems);
		pt_buf_release(&c->results[i].notes);
		pt_buf_release(&c->results[i].fix);
	}
	free(c->results);
	free(c->mistakes.items);
	json_decref(c->link.doc);
	pthread_mutex_destroy(&c->link_lock);
}

/* A row as soon as it is known: who waits for a check that hangs sees the others. */
static void show(const struct pt_check_result *r, size_t width)
{
	pt_auto_buf row = PT_BUF_INIT(32 * 1024);

	pt_check_row(r, width, isatty(STDOUT_FILENO), &row);
	(void)fwrite(row.p, 1, row.len, stdout);
	(void)fflush(stdout); /* what fails is told at the end */
}

static int check_main(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	static struct pt_check_ctx ctx; /* a check that is left behind may still look at them */
	static struct conf conf;
	struct pt_check_ctx *c = &ctx;
	bool all_ended = true, json;
	size_t width = 0;
	int64_t end;
	int rc;

	pthread_mutex_init(&c->link_lock, NULL);
	c->conf = &conf.agent;
	rc = pt_opt_parse_each(pt_opt_root, cmd, argc, argv, &conf, mistake, c, err);
	if (rc == 0)
		rc = each_word(&conf.only, is_known, (void *)(uintptr_t) "--only", err);
	if (rc == 0)
		rc = each_word(&conf.skip, is_known, (void *)(uintptr_t) "--skip", err);
	if (rc == 0)
		rc = pt_log_init("error", "plain", 0, err);
	if (rc == 0)
		rc = pt_agent_conf_check(&conf.agent, mistake, c, err);
	if (rc != 0)
		return rc < 0 ? rc : PT_OK;
	(void)signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error of that write */
	c->results = calloc(PT_COUNT(pt_check_types), sizeof(*c->results));
	if (!c->results)
		return pt_fail_oom(err);
	end = pt_mono_ms() + conf.timeout_ms;
	for (size_t i = 0; i < PT_COUNT(pt_check_types); i++)
		if (chosen(&conf, pt_check_types[i].name)) {
			c->to_come |= 1U << i;
			width = strlen(pt_check_types[i].name) > width ? strlen(pt_check_types[i].name) : width;
		}
	if (!c->to_come)
		return pt_fail(err, PT_E_INVALID, "--only and --skip leave no check to run");
	json = strcmp(conf.output, "json") == 0;
	for (size_t i = 0; i < PT_COUNT(pt_check_types); i++) {
		if (!(c->to_come >> i & 1))
			continue;
		c->to_come &= ~(1U << i);
		all_ended &= run_one(c, &pt_check_types[i], end - pt_mono_ms(), &c->results[c->n_results]);
		if (!json)
			show(&c->results[c->n_results], width);
		c->n_results++;
	}
	rc = pt_check_report(c, json, err);
	if (!all_ended) { /* a thread is left behind */
		if (rc < 0)
			fprintf(stderr, "postern check: %s\n", err->msg);
		_exit(rc < 0 ? pt_code_exit(err->code) : rc);
	}
	release(c);
	return rc;
}

struct pt_command pt_cmd_check = {
	.name = "check",
	.summary = "look at a place where an agent is to run, or runs: does everything it needs work?",
	.text = "Takes the settings of `postern agent`, from the same flags and environment, and checks what stands between them and\n"
		"an agent that works.  Each check ends as PASS, WARN, FAIL or SKIP; WARN and FAIL come with a fix.  It starts no\n"
		"agent, and does not disturb one that runs here.\n\n"
		"The checks are environment, filesystem, identity, cgroup, dns, proxy, tls, gateway, clock, token, storage,\n"
		"integrations, metadata, security and agent.  docs/check.md tells what each looks at.\n\n"
		"The exit code is 0 without a FAIL, 1 with one, 64 when the command line is wrong.\n\n"
		"Example:\n\n"
		"    postern check\n"
		"    postern check -o json --skip metadata\n",
	.run = check_main,
	.sub = pt_check_probes,
};
