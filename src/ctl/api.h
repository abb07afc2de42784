/* Calls to the client API: the only place that knows the URL, the token, how errors come back and when a call may be repeated. */
#ifndef PT_CTL_API_H
#define PT_CTL_API_H
#include "base/shape.h"
#include "os/cancel.h"

/* Where the gateway is and who we are.  Members that are NULL come from the file that login wrote. */
struct pt_ctl_target {
	const char *url, *token_file, *token, *ca, *config;
	const char *https_proxy, *http_proxy, *no_proxy;
	int64_t retry_ms; /* how long a call is tried again while the gateway is away, 0 = not at all */
};
struct pt_ctl_api;

/* Prepares only; the first call connects.  INVALID when no gateway is known, UNAUTHENTICATED when no token is.  A stored token
 * is only ever sent to the gateway it was stored for. */
int pt_ctl_api_open(struct pt_ctl_api **ret, const struct pt_ctl_target *t, struct pt_err *err) PT_MUSTCHECK;
void pt_ctl_api_free(struct pt_ctl_api *api);
PT_DEFINE_CLEANUP(struct pt_ctl_api *, pt_ctl_api_free)
const char *pt_ctl_api_url(const struct pt_ctl_api *api);
/* Append the command that starts an agent of this gateway, for people. */
void pt_ctl_api_agent(const struct pt_ctl_api *api, struct pt_buf *out);

struct pt_ctl_answer {
	struct pt_buf text; /* as it came */
	json_t *doc;        /* parsed; NULL when the answer has no body */
	int status;
};
#define PT_CTL_ANSWER_INIT                     \
	{                                      \
		.text = PT_BUF_INIT(64u << 20) \
	}
void pt_ctl_answer_release(struct pt_ctl_answer *a);
#define pt_auto_answer pt_auto(pt_ctl_answer_release) struct pt_ctl_answer

/* One call.  path begins with "/api/v1" or is complete as given.  body NULL = none.  A call that could not connect is tried again
 * with backoff for the target's retry_ms; so is a GET, or one with an idempotency key or repeatable, when its answer is lost or
 * says 429 or 503 (Retry-After is obeyed).  The first time this is said on standard error: a wrong URL should show at once.  An
 * answer of 400 and above is an error. */
struct pt_ctl_call {
	const char *method, *path;
	const json_t *body;
	const char *idempotency_key;
	bool repeatable; /* doing it twice does no more than doing it once */
	const struct pt_cancel *cancel;
};
int pt_ctl_call(struct pt_ctl_api *api, const struct pt_ctl_call *call, struct pt_ctl_answer *ret,
		struct pt_err *err) PT_MUSTCHECK;
int pt_ctl_get_path(struct pt_ctl_api *api, struct pt_ctl_answer *ret, struct pt_err *err, const char *fmt, ...)
	PT_PRINTF(4, 5) PT_MUSTCHECK;
/* POST body, whose reference is taken; key: the call's idempotency key, NULL = none. */
int pt_ctl_post(struct pt_ctl_api *api, const char *path, json_t *body, const char *key, struct pt_ctl_answer *ret,
		struct pt_err *err) PT_MUSTCHECK;
/* Try again for at least this long from now on, if at all: for commands that wait anyway. */
void pt_ctl_api_patience(struct pt_ctl_api *api, int64_t ms);

/* GET a body of any size, decoded (zstd), in pieces.  Tried again as a call is, until its first piece. */
int pt_ctl_stream(struct pt_ctl_api *api, const char *path,
		  int (*on_data)(void *arg, const char *p, size_t n, struct pt_err *err), void *arg,
		  struct pt_err *err) PT_MUSTCHECK;

/* "/api/v1/agents/" + name, percent-encoded, + rest.  Returns out->p. */
const char *pt_ctl_path(struct pt_buf *out, const char *collection, const char *name, const char *rest);

/* The file that login writes. */
struct pt_ctl_login {
	char *url, *token, *ca_file;
};
extern const struct pt_shape pt_ctl_login_shape;
int pt_ctl_login_path(const struct pt_ctl_target *t, struct pt_buf *out, struct pt_err *err) PT_MUSTCHECK;
/* Append the token of a file, white space at its ends removed. */
int pt_ctl_token_file(const char *path, struct pt_buf *out, struct pt_err *err) PT_MUSTCHECK;
#endif
