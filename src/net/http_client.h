/* HTTP client on libcurl: proxies, custom CA, TLS always verified, time limits, cancel, streaming bodies.  One client per
 * thread (it keeps connections open); the conf may be shared. */
#ifndef PT_NET_HTTP_CLIENT_H
#define PT_NET_HTTP_CLIENT_H
#include "os/cancel.h"
#include "base/buf.h"

struct pt_http_client;
struct pt_http_client_conf {
	/* Path of a PEM file, or base64 of PEM text; trusted besides the system's; NULL = system only. */
	const char *ca;
	const char *https_proxy, *http_proxy; /* "http://user:password@host:3128"; NULL or "" = direct */
	/* "host,.domain,*.domain,10.0.0.0/8,*": a name is meant with its subdomains; ranges are for hosts that are written as
	 * addresses (names are not looked up for this); no ports. */
	const char *no_proxy;
	const char *user_agent;
	int64_t connect_timeout_ms; /* DNS, proxy, TCP and TLS; 0 = 10 s */
	/* How long the peer may leave what was sent unacknowledged, or take nothing, before the connection is given up
	 * (TCP_USER_TIMEOUT); 0 = as the system does.  Silence is noticed by keepalive after 30 s in any case. */
	unsigned unheard_ms;
};

/* What a TLS handshake showed.  Certificates are named as in RFC 2253. */
struct pt_http_tls {
	char version[16];               /* "TLSv1.3", "" = there was no handshake */
	char subject[200], issuer[200]; /* of the server's certificate */
	int64_t not_after;              /* its end, seconds since 1970 */
	bool own_ca;                    /* trusted by the conf's ca */
};

struct pt_http_call {
	/* request */
	const char *method, *url;                /* http:// or https:// only */
	const char *const *headers;              /* "Name: value" lines, NULL-terminated; NULL = none */
	const char *basic_user, *basic_password; /* Authorization: Basic; NULL = none */
	const void *body;                        /* NULL with read == NULL: no body */
	int64_t body_size;                       /* -1 = unknown (chunked) */
	/* Streams the body: 0 = end, < 0 = give up. */
	ssize_t (*read)(void *arg, char *buf, size_t max);
	/* Start the body again (proxy authentication, lost connection); NULL = cannot. */
	int (*rewind)(void *arg);
	/* response */
	/* The body, up to its limit (PT_E_TOO_LARGE beyond); NULL with on_data == NULL: thrown away. */
	struct pt_buf *out;
	/* Streams a 2xx body; < 0 ends the call with err.  Bodies of other statuses go to out when it is set. */
	int (*on_data)(void *arg, const char *data, size_t n, struct pt_err *err);
	void *arg;                                                         /* for read, rewind, on_data */
	void (*on_header)(void *arg, const char *name, const char *value); /* names in lower case; NULL = not wanted */
	/* limits */
	int64_t timeout_ms;             /* whole call; 0 = none */
	int64_t stall_timeout_ms;       /* no byte either way for so long; 0 = none */
	const struct pt_cancel *cancel; /* NULL = cannot be cancelled */
	/* Called by the calling thread at least every 1.5 s while the call is under way, may change stall_timeout_ms; NULL = not
	 * wanted. */
	void (*tick)(void *arg);
	void *tick_arg;
	bool follow; /* follow up to 5 redirects */
	/* Must not be sent twice: takes a new connection, because libcurl itself sends again what a kept connection lost before
	 * any byte of a response. */
	bool once;
	/* Called with each address before the TCP connection is made (SSRF guard); < 0 refuses with err.  sa is a struct
	 * sockaddr.  Such a call, with its redirects, takes new connections only.  Behind a proxy it is the proxy's address. */
	int (*allow_address)(void *arg, const void *sa, struct pt_err *err);
	void *allow_arg;
	/* results */
	int status;             /* HTTP status, 0 when none came */
	/* Of the Retry-After header (seconds, or a date: against the Date header, since our clock may be wrong), -1 = none. */
	int64_t retry_after_ms;
	char content_type[80];
	char peer[64]; /* address connected to */
	bool proxied;  /* it was the proxy's */
	int64_t ttfb_us, connect_us, tls_us, dns_us, total_us;
	int64_t cert_expires; /* end of the server's certificate, wall seconds, as this client saw it last; 0 = no TLS */
	/* Set it to learn about a handshake that this call made and that was accepted; NULL = not wanted. */
	struct pt_http_tls *tls;
};

int pt_http_client_new(struct pt_http_client **ret, const struct pt_http_client_conf *conf, struct pt_err *err) PT_MUSTCHECK;
void pt_http_client_free(struct pt_http_client *c);
PT_DEFINE_CLEANUP(struct pt_http_client *, pt_http_client_free)
/* Do the call.  0: an HTTP response arrived (look at call->status).  < 0: HOST_UNKNOWN, CONNECT, PROXY (native = status the
 * proxy gave), TLS (the message names the subject and the issuer that is not trusted), TIMEOUT, CONNECTION_LOST, TOO_LARGE,
 * CANCELLED, DEADLINE, BLOCKED, INVALID (URL), PROTOCOL (not HTTP, too many redirects), IO (read gave up).  Never retries by
 * itself.  Passwords in URLs never reach a message. */
int pt_http_do(struct pt_http_client *c, struct pt_http_call *call, struct pt_err *err) PT_MUSTCHECK;

/* How long an answer of 429 or 503 asks to wait, 0 = not at all. */
static inline int64_t pt_http_retry_after(const struct pt_http_call *c)
{
	return (c->status == 429 || c->status == 503) && c->retry_after_ms > 0 ? c->retry_after_ms : 0;
}

/* Turn a non-2xx answer of a Postern server into an error: reads the error document from body, falls back to the status. */
int pt_http_error_of(const struct pt_http_call *call, const struct pt_buf *body, struct pt_err *err);
#endif
