/* `postern agent`: its settings, signals, and the process around the agent. */
#include "agent/agent.h"
#include "agent/stop.h"
#include "base/log.h"
#include "os/cancel.h"
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/signalfd.h>

enum { RING_BYTES = 256 * 1024, KIB = 1024 };
#define GIB (1024LL * 1024 * 1024)

static const char *const formats[] = { "json", "plain", "dev", NULL };
static const char *const ships[] = { "off", "operations", "all", NULL };
static const char *const levels[] = { "debug", "info", "warn", "error", NULL };

static const struct pt_opt opts[] = {
	PT_O(struct pt_agent_conf, gateway_url, "gateway-url", PT_OPT_STR, .flags = PT_OPT_REQUIRED, .value = "URL",
	     .help = "the gateway, https://gateway.example.com"),
	PT_O(struct pt_agent_conf, token_file, "token-file", PT_OPT_STR, .flags = PT_OPT_REQUIRED, .value = "FILE",
	     .help = "the agent's key: JSON with key_id and key_secret (or mcd_id and mcd_token), and with earlier keys as previous; read again "
		     "when it changes"),
	PT_O(struct pt_agent_conf, slots, "slots", PT_OPT_INT, .def = "18", .value = "N", .min = 1, .max = 1024,
	     .help = "operations that run at the same time"),
	PT_O(struct pt_agent_conf, publishers, "publishers", PT_OPT_INT, .def = "3", .value = "N", .min = 1, .max = 64,
	     .help = "results that are delivered at the same time"),
	PT_O(struct pt_agent_conf, spool_dir, "spool-dir", PT_OPT_STR, .def = "/var/lib/postern/spool", .value = "FOLDER",
	     .help = "where results wait until the gateway has them; one agent each"),
	PT_O(struct pt_agent_conf, spool_max_bytes, "spool-max-bytes", PT_OPT_SIZE, .def = "1G", .value = "SIZE",
	     .min = 16 * KIB * KIB, .max = 1024 * GIB,
	     .help = "most that the spool may take on disk; when it is full the agent takes no work"),
	PT_O(struct pt_agent_conf, listen, "listen", PT_OPT_STR, .def = "0.0.0.0:8080", .value = "ADDRESS",
	     .help = "local endpoints (probes, health, metrics); --listen \"\" is none"),
	PT_O(struct pt_agent_conf, port_file, "port-file", PT_OPT_STR, .value = "FILE",
	     .help = "gets the number of the port that --listen got; for port 0"),
	PT_O(struct pt_agent_conf, ca_file, "ca-file", PT_OPT_STR, .value = "FILE",
	     .help = "PEM file, or base64 of one, with certificates to trust besides the system's"),
	PT_O(struct pt_agent_conf, https_proxy, "https-proxy", PT_OPT_STR, .flags = PT_OPT_STD_ENV | PT_OPT_SECRET,
	     .env = "HTTPS_PROXY", .value = "URL", .help = "proxy for https, http://user:password@proxy:3128"),
	PT_O(struct pt_agent_conf, http_proxy, "http-proxy", PT_OPT_STR, .flags = PT_OPT_STD_ENV | PT_OPT_SECRET,
	     .env = "HTTP_PROXY", .value = "URL", .help = "proxy for http"),
	PT_O(struct pt_agent_conf, no_proxy, "no-proxy", PT_OPT_STR, .flags = PT_OPT_STD_ENV, .env = "NO_PROXY", .value = "LIST",
	     .help = "hosts to reach without a proxy: host,.domain,10.0.0.0/8"),
	PT_O(struct pt_agent_conf, credential_dirs, "credential-dirs", PT_OPT_STR, .def = "/etc/secrets/integrations",
	     .value = "FOLDERS", .help = "folders, separated by colons, below which integrations may read credential files"),
	PT_O(struct pt_agent_conf, blocked_cidrs, "blocked-cidrs", PT_OPT_STR, .value = "LIST",
	     .help = "addresses that operations may not connect to, besides the built-in ones"),
	PT_O(struct pt_agent_conf, allowed_cidrs, "allowed-cidrs", PT_OPT_STR, .value = "LIST",
	     .help = "addresses that operations may connect to although they are blocked"),
	PT_STORE_OPTS(struct pt_agent_conf, store),
	PT_O(struct pt_agent_conf, stop_action, "stop-action", PT_OPT_ENUM, .def = "drain", .values = pt_stop_actions,
	     .help = "what SIGTERM does to operations that run: let them finish, cancel them, or leave them at once"),
	PT_O(struct pt_agent_conf, stop_timeout_ms, "stop-timeout", PT_OPT_DURATION, .def = "25s", .value = "TIME", .min = 0,
	     .max = 7LL * 24 * 3600 * 1000, .help = "from SIGTERM to exit, all phases together; 0 is no limit (drain only)"),
	PT_O(struct pt_agent_conf, grace_s, "termination-grace-seconds", PT_OPT_INT, .value = "SECONDS", .min = 1,
	     .max = 7 * 24 * 3600,
	     .help = "when the service manager kills (terminationGracePeriodSeconds); a stop that takes longer is refused at start"),
	PT_O(struct pt_agent_conf, ship_logs, "ship-logs", PT_OPT_ENUM, .def = "operations", .values = ships,
	     .help = "log lines that the gateway gets: none, those about an operation, or all"),
	PT_O(struct pt_agent_conf, log_outbox_bytes, "log-outbox-bytes", PT_OPT_SIZE, .def = "64M", .value = "SIZE",
	     .min = KIB * KIB, .max = 64 * GIB,
	     .help = "most that such lines may take below the spool folder while the gateway is away; the oldest go first"),
	PT_O(struct pt_agent_conf, log_format, "log-format", PT_OPT_ENUM, .def = "plain", .values = formats,
	     .help = "form of log lines"),
	PT_O(struct pt_agent_conf, log_level, "log-level", PT_OPT_ENUM, .def = "info", .values = levels,
	     .help = "least severe lines to print"),
};

struct signals {
	struct pt_agent *agent;
	struct pt_cancel done;
	int fd;
};

static void *signal_thread(void *arg)
{
	struct signals *s = arg;
	struct signalfd_siginfo si;
	struct pt_err err;

	while (pt_cancel_poll(&s->done, s->fd, POLLIN, -1, &err) == 0)
		if (read(s->fd, &si, sizeof(si)) == (ssize_t)sizeof(si))
			pt_agent_stop(s->agent);
	return NULL;
}

static int run_until_signal(struct pt_agent *a, struct signals *s, struct pt_err *err)
{
	pthread_t t;
	int rc = pt_cancel_init(&s->done, err);

	if (rc < 0)
		return rc;
	s->agent = a;
	errno = pthread_create(&t, NULL, signal_thread, s);
	if (errno) {
		pt_cancel_release(&s->done);
		return pt_fail_sys(err, PT_E_INTERNAL, "start a thread");
	}
	if (!pt_agent_run(a))
		_exit(0); /* the log has said it */
	pt_cancel_fire(&s->done, PT_E_CANCELLED, "done");
	pthread_join(t, NULL);
	pt_cancel_release(&s->done);
	return PT_OK;
}

static int agent_main(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	struct pt_agent_conf conf = { 0 };
	struct pt_agent *a = NULL;
	pt_auto(pt_closep) int fd = -1;
	struct signals s = { .fd = -1 };
	sigset_t set;
	int rc = pt_opt_parse(pt_opt_root, cmd, argc, argv, &conf, err);

	if (rc != 0)
		return rc < 0 ? rc : PT_OK;
	rc = pt_log_init(conf.log_level, conf.log_format, RING_BYTES, err);
	if (rc < 0)
		return rc;
	/* Two arenas and early trimming: many threads that mostly sleep must not each keep memory of their own. */
	(void)mallopt(M_ARENA_MAX, 2);
	(void)mallopt(M_TRIM_THRESHOLD, 256 * KIB);
	(void)mallopt(M_MMAP_THRESHOLD, 256 * KIB);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error of that write */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	errno = pthread_sigmask(SIG_BLOCK, &set, NULL); /* before any thread: all inherit it */
	s.fd = fd = errno ? -1 : signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return pt_fail_sys(err, PT_E_INTERNAL, "signals");
	rc = pt_agent_start(&a, &conf, err);
	if (rc < 0)
		return rc;
	rc = run_until_signal(a, &s, err);
	pt_agent_free(a);
	return rc;
}

const struct pt_command pt_cmd_agent = {
	.name = "agent",
	.summary = "run operations for a gateway, next to private data",
	.text = "The agent opens one outbound connection to the gateway, leases operations, runs them, and delivers their\n"
		"results.  Nothing listens to the outside; --listen serves probes, health and metrics to the cluster.\n\n"
		"Results wait in the spool until the gateway has confirmed them.  They survive a crash, a restart and hours\n"
		"without a gateway.  When the spool is full the agent takes no work until there is room again.\n\n"
		"SIGTERM or SIGINT stops it: no new work, then what --stop-action says.  drain lets operations finish and cancels\n"
		"those that do not; grace-shutdown cancels at once; force-shutdown waits for nothing.  What did not finish is\n"
		"given back, so that another instance starts it.  --stop-timeout is the time for everything, and is divided when\n"
		"the agent starts: about half to finish, the rest to cancel, deliver and say goodbye.  An idle agent exits at\n"
		"once.  A second signal ends it without waiting; what is not delivered stays in the spool.  The grace period of\n"
		"the service manager (terminationGracePeriodSeconds, TimeoutStopSec) must be at least --stop-timeout.\n\n"
		"Example:\n\n"
		"    postern agent --gateway-url https://gateway.example.com --token-file /etc/postern/token.json\n",
	.opts = opts,
	.n_opts = PT_COUNT(opts),
	.run = agent_main,
};
