#include "cmd/child.h"
#include "base/clock.h"
#include "os/file.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static bool left_out(const char *name)
{
	static const char *const prefixes[] = { "POSTERN_",    "HTTPS_PROXY=", "HTTP_PROXY=", "https_proxy=",
						"http_proxy=", "ALL_PROXY=",   "all_proxy=" };

	for (size_t i = 0; i < PT_COUNT(prefixes); i++)
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	return false;
}

/* Environment without what is meant for other gateways.  Caller frees the array. */
static char **clean_environment(void)
{
	size_t n = 0, k = 0;
	char **env;

	while (environ[n])
		n++;
	env = calloc(n + 1, sizeof(*env));
	for (size_t i = 0; env && i < n; i++)
		if (!left_out(environ[i]))
			env[k++] = environ[i];
	return env;
}

/* Between fork and exec: async-signal-safe calls only. */
_Noreturn static void become(char *const *argv, char *const *env, int log, pid_t parent)
{
	sigset_t none;

	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(0);    /* the parent ended before the line above */
	(void)setpgid(0, 0); /* Ctrl-C on the terminal is for the parent, which then stops us in order */
	(void)dup2(log, STDOUT_FILENO);
	(void)dup2(log, STDERR_FILENO);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)execve("/proc/self/exe", argv, env);
	_exit(127);
}

int pt_child_start(struct pt_child *c, const char *const *args, struct pt_err *err)
{
	pt_auto(pt_closep) int log = open(c->log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	pt_auto(pt_freep) char **env = clean_environment();
	const char *argv[32] = { "postern" };
	pid_t parent = getpid(), pid;
	size_t n = 1;

	if (log < 0)
		return pt_fail_sys(err, PT_E_IO, "open '%s'", c->log);
	if (!env)
		return pt_fail_oom(err);
	for (; *args; args++) {
		pt_assert(n + 1 < PT_COUNT(argv));
		argv[n++] = *args;
	}
	pid = fork();
	if (pid < 0)
		return pt_fail_sys(err, PT_E_INTERNAL, "start the %s", c->name);
	if (pid == 0)
		become((char *const *)argv, env, log, parent);
	c->pid = pid;
	return PT_OK;
}

bool pt_child_ended(struct pt_child *c)
{
	if (c->pid && waitpid(c->pid, &c->status, WNOHANG) == c->pid)
		c->pid = 0;
	return !c->pid;
}

void pt_child_stop(struct pt_child *c, int64_t most_ms)
{
	int64_t end = pt_mono_ms() + most_ms;

	if (pt_child_ended(c))
		return;
	(void)kill(c->pid, SIGTERM);
	while (!pt_child_ended(c)) {
		if (pt_mono_ms() >= end) {
			(void)kill(c->pid, SIGKILL);
			(void)waitpid(c->pid, &c->status, 0);
			c->pid = 0;
			return;
		}
		(void)poll(NULL, 0, 10);
	}
}

void pt_child_how(const struct pt_child *c, struct pt_buf *out)
{
	if (WIFSIGNALED(c->status))
		pt_buf_fmt(out, "was killed by signal %d", WTERMSIG(c->status));
	else
		pt_buf_fmt(out, "exited with code %d", WEXITSTATUS(c->status));
}

void pt_child_tail(const struct pt_child *c, size_t lines, struct pt_buf *out)
{
	pt_auto_buf text = PT_BUF_INIT(16 << 20);
	struct pt_err ignored; /* no log, no lines */
	const char *p;

	if (pt_file_read(c->log, &text, &ignored) < 0)
		return;
	p = text.p + text.len;
	if (p > text.p && p[-1] == '\n')
		p--;
	while (p > text.p && (p[-1] != '\n' || --lines))
		p--;
	pt_buf_str(out, p);
}
