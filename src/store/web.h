/* What the stores that are spoken to by HTTP have in common: addresses, signed requests, errors from XML documents. */
#ifndef PT_STORE_WEB_H
#define PT_STORE_WEB_H
#include "cloud/sign.h"
#include "cloud/xml.h"
#include "store/store_int.h"

struct pt_web;
/* What one of the store's own error codes means. */
struct pt_web_error {
	const char *native;
	enum pt_code code;
	const char *hint;
};
struct pt_web_kind {
	const struct pt_web_error *errors; /* ended by a NULL native; searched before those that all have */
	/* Add the headers that authorise a request, Host among them.  May fetch new credentials first. */
	int (*sign)(struct pt_web *w, const struct pt_signable *r, struct pt_lines *out, struct pt_err *err);
	/* The headers of a request without credentials. */
	void (*anonymous)(struct pt_web *w, const struct pt_signable *r, struct pt_lines *out);
	/* Say more than the table can; NULL = nothing.  answer is the error document. */
	void (*explain)(struct pt_web *w, const char *native, struct pt_xml answer, struct pt_err *err);
};
struct pt_web {
	struct pt_store store; /* first */
	const struct pt_web_kind *kind;
	const struct pt_store_conf *conf;
	const struct pt_http_client_conf *http;
	const struct pt_cancel *cancel;
	struct pt_http_client *client;
	char *origin, *path; /* "https://host:port", "/bucket" (or ""), encoded */
	char host[300];      /* for the Host header */
	int status;          /* of the newest answer */
};

struct pt_web_call {
	const char *method, *key;      /* key NULL = the bucket itself */
	const struct pt_param *params; /* sorted by name, ended by a NULL name; NULL = none */
	const void *body;
	size_t n;
	struct pt_buf *out; /* gets the body of a 2xx; NULL = not wanted */
	bool anonymous;
};

/* base: scheme, host and path; bucket is appended to its path, unless NULL. */
int pt_web_init(struct pt_web *w, const char *base, const char *bucket, struct pt_err *err) PT_MUSTCHECK;
void pt_web_release(struct pt_web *w);
/* 0: a 2xx answer.  < 0: see struct pt_store_ops. */
int pt_web_do(struct pt_web *w, const struct pt_web_call *call, struct pt_err *err) PT_MUSTCHECK;
/* The same without credentials: 1 = it worked, 0 = the store refused, < 0 = no telling. */
int pt_web_anonymous(struct pt_web *w, const char *key, const struct pt_param *params);
/* Does a key or token that expires at wall time at (0 = never) need to be replaced? */
bool pt_web_expires(int64_t at);
#endif
