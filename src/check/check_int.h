/* Inside of `postern check`: what a check is, what it knows, and how it says what it found.
 *
 * Each check runs on a thread of its own, one after the other, with a time limit.  One that does not come back (a network file
 * system that hangs) is left behind: what it may still touch is never freed, and the process leaves by _exit(2). */
#ifndef PT_CHECK_CHECK_INT_H
#define PT_CHECK_CHECK_INT_H
#include "agent/agent.h"
#include "agent/keys.h"
#include "base/shape.h"
#include "net/http_client.h"
#include "net/url.h"
#include <pthread.h>

enum pt_check_status { PT_CHECK_SKIP, PT_CHECK_PASS, PT_CHECK_WARN, PT_CHECK_FAIL };

/* A request to the gateway as the agent makes it, made once for all checks that look at it. */
struct pt_check_link {
	int rc; /* of pt_http_do(); INVALID also when no request could be made */
	struct pt_err err;
	struct pt_http_call call;
	struct pt_http_tls tls;
	json_t *doc;        /* the answer, NULL = no JSON */
	char location[300]; /* of a redirect */
	int64_t skew_ms;    /* our clock minus the gateway's; INT64_MIN = not known */
	int key_rc;         /* of reading the token file */
	struct pt_err key_err;
	char key_id[128];
};

struct pt_check_result {
	const char *name;
	enum pt_check_status status;
	struct pt_buf problems, notes, fix;
	int64_t elapsed_ms;
};
struct pt_check_ctx {
	const struct pt_agent_conf *conf; /* members may be NULL: the settings may be wrong */
	struct pt_list mistakes;          /* of struct pt_err: settings that the agent would refuse */
	struct pt_check_result *results;  /* of the checks so far */
	size_t n_results;
	unsigned to_come; /* bits: those of pt_check_types that are still to run */
	pthread_mutex_t link_lock;
	bool link_tried;
	struct pt_check_link link;
};

struct pt_check_type {
	const char *name;
	void (*run)(struct pt_check_ctx *c, struct pt_check_result *r);
	int64_t limit_ms;
};
extern const struct pt_check_type pt_check_types[];
extern const size_t pt_check_n_types;

/* What a check found.  The worst word counts; all texts stay.  fix says what to do, in one or two sentences. */
void pt_check_note(struct pt_check_result *r, const char *fmt, ...) PT_PRINTF(2, 3); /* at least a PASS */
void pt_check_warn(struct pt_check_result *r, const char *fix, const char *fmt, ...) PT_PRINTF(3, 4);
void pt_check_fail(struct pt_check_result *r, const char *fix, const char *fmt, ...) PT_PRINTF(3, 4);
void pt_check_skip(struct pt_check_result *r, const char *fmt, ...) PT_PRINTF(2, 3); /* unless something else was found */
void pt_check_fail_err(struct pt_check_result *r, const struct pt_err *err, const char *fix); /* the hint, or fix without one */

/* The request, made when first asked for. */
const struct pt_check_link *pt_check_link(struct pt_check_ctx *c);
/* There was no answer: skip when the check that tells why has failed or is still to run, else fail with the error. */
void pt_check_no_answer(struct pt_check_ctx *c, const struct pt_check_link *l, struct pt_check_result *r);
/* Which check tells about this error of a request. */
const char *pt_check_owner(int rc);

/* One line of text of a file, without its end; "" when it cannot be read.  For /proc and /sys. */
void pt_check_line(const char *path, char *out, size_t size);
/* The value behind "NAME:" in /proc/self/status; false when there is none. */
bool pt_check_proc(const char *name, char *out, size_t size);
static inline bool pt_check_in_kubernetes(void)
{
	const char *host = getenv("KUBERNETES_SERVICE_HOST");

	return host && *host;
}

/* The checks. */
void pt_check_environment(struct pt_check_ctx *c, struct pt_check_result *r);
void pt_check_filesystem(struct pt_check_ctx *c, struct pt_check_result *r);
void pt_check_identity(struct pt_check_ctx *c, struct pt_check_result *r);
void pt_check_cgroup(struct pt_check_ctx *c, struct pt_check_result *r);
void pt_check_dns(struct pt_check_ctx *c, struct pt_check_result *r);
void pt_check_proxy(struct pt_check_ctx *c, struct pt_check_result *r);
void pt_check_tls(struct pt_check_ctx *c, struct pt_check_result *r);
void pt_check_gateway(struct pt_check_ctx *c, struct pt_check_result *r);
void pt_check_clock(struct pt_check_ctx *c, struct pt_check_result *r);
void pt_check_token(struct pt_check_ctx *c, struct pt_check_result *r);
void pt_check_storage(struct pt_check_ctx *c, struct pt_check_result *r);
void pt_check_integrations(struct pt_check_ctx *c, struct pt_check_result *r);
void pt_check_metadata(struct pt_check_ctx *c, struct pt_check_result *r);
void pt_check_security(struct pt_check_ctx *c, struct pt_check_result *r);
void pt_check_agent(struct pt_check_ctx *c, struct pt_check_result *r);
#endif
