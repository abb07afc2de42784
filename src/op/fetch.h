/* One HTTP exchange on behalf of an operation: the guard, the choice between proxy and direct, redirects, a bound on the body.
 *
 * The choice of the proxy is made here, per hop, and then forced on the HTTP client, so that the guard and the client can never
 * disagree about it.  Direct: the guard sees each address before it is connected to.  By a proxy: see pt_guard_proxied_host(). */
#ifndef PT_OP_FETCH_H
#define PT_OP_FETCH_H
#include "net/http_client.h"
#include "op/guard.h"
#include "op/op.h"

struct pt_fetch_header {
	char *name, *value; /* name in lower case */
};
struct pt_fetch {
	/* in */
	const struct pt_op_run *run;
	const char *method, *url;
	const char *const *headers; /* "Name: value", NULL-terminated; NULL = none */
	const void *body;
	int64_t body_size;
	int timeout_ms;   /* all hops together */
	bool follow;      /* up to 5 redirects; headers that may hold a credential stay with the first origin */
	size_t max_bytes; /* of the response's body; the rest is left unread */
	/* out, owned; of the last hop */
	struct pt_buf data;       /* the body */
	struct pt_list response;  /* of struct pt_fetch_header, as they came */
	struct pt_http_call call; /* status, peer, timings */
	bool truncated;           /* the body went on after data */
	bool proxied;
	int redirects;
	char *final_url;
};

/* http or https, a host, no user and password.  member: for the message. */
int pt_fetch_url_check(const char *member, const char *url, struct pt_err *err) PT_MUSTCHECK;
/* 0: a response came, whatever its status.  < 0: what pt_http_do() says; BLOCKED; PROTOCOL (redirects).  Call
 * pt_fetch_release() in both cases. */
int pt_fetch_do(struct pt_fetch *f, struct pt_err *err) PT_MUSTCHECK;
void pt_fetch_release(struct pt_fetch *f);
const char *pt_fetch_header(const struct pt_fetch *f, const char *name); /* the first one; NULL = absent */
/* The proxy that url's scheme and host ask for, NULL = direct. */
const char *pt_fetch_proxy(const struct pt_http_client_conf *conf, const char *scheme, const char *host);
#endif
