/* The agent: leases operations from a gateway, runs them, and returns their results through the spool.
 *
 * Threads: one for the link (link.c), one for each publisher (publisher.c), up to slots threads of the executor (slots.c),
 * one of the local HTTP server, and the caller of pt_agent_run(), which drains when it is time to stop. */
#ifndef PT_AGENT_AGENT_H
#define PT_AGENT_AGENT_H
#include "base/metric.h"
#include "base/opt.h"
#include "net/http_client.h"
#include "store/store.h"

struct pt_agent_conf {
	const char *gateway_url, *token_file;
	int64_t slots, publishers;
	const char *spool_dir;
	int64_t spool_max_bytes;
	const char *listen;    /* of the local endpoints; NULL or "" = none */
	const char *port_file; /* gets the port that listen got; NULL = none */
	const char *ca_file, *https_proxy, *http_proxy, *no_proxy;
	const char *credential_dirs, *blocked_cidrs, *allowed_cidrs;
	struct pt_store_conf store;
	const char *stop_action; /* of pt_stop_actions; NULL = drain */
	int64_t stop_timeout_ms; /* from the request to stop until exit, 0 = no limit: see agent/stop.h */
	int64_t grace_s;         /* after which the service manager kills, 0 = not known */
	const char *ship_logs;   /* off | operations | all: log lines that the gateway gets; NULL = off */
	int64_t log_outbox_bytes;
	const char *log_format, *log_level; /* for the command; the agent itself does not set up the log */
};

/* Everything that can be known about conf without the token file, the spool and the network: what pt_agent_start() refuses before it
 * looks at those.  bad NULL: the first mistake fails, as there.  Else each mistake goes to bad, and the function succeeds.  Reads the
 * CA file. */
int pt_agent_conf_check(const struct pt_agent_conf *conf, pt_opt_bad_fn *bad, void *arg, struct pt_err *err) PT_MUSTCHECK;
/* How conf goes out: CA, proxies, user agent.  Points into conf. */
struct pt_http_client_conf pt_agent_http_conf(const struct pt_agent_conf *conf);

struct pt_agent;
/* Open the spool, read the key, listen, start all threads.  conf must outlive the agent.  Works without a gateway: the link
 * keeps trying.  Errors name the setting: NOT_FOUND, DENIED, INVALID (token file), CONFLICT (spool in use), UNAVAILABLE (port
 * in use). */
int pt_agent_start(struct pt_agent **ret, const struct pt_agent_conf *conf, struct pt_err *err) PT_MUSTCHECK;
/* Until pt_agent_stop() is called or the gateway orders a drain; then stop as the conf says, within its time.  True: all threads have
 * ended.  False: the thread of an operation that hears no cancel is left behind; the process must leave by _exit(2), since
 * exit(3) would take away what that thread uses.  Call it once. */
bool pt_agent_run(struct pt_agent *a) PT_MUSTCHECK;
/* First call: stop as the conf says.  Second: leave at once; what is not delivered stays in the spool.  Any thread, but no signal handler. */
void pt_agent_stop(struct pt_agent *a);
unsigned pt_agent_port(const struct pt_agent *a); /* of the local endpoints, 0 = none */
void pt_agent_free(struct pt_agent *a);           /* after pt_agent_run(); keeps what a thread left behind may touch */

extern const struct pt_metric_table pt_agent_metrics;
extern const struct pt_command pt_cmd_agent;
#endif
