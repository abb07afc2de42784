/* Inside of the HTTP client: what its files share.  Not for others. */
#ifndef PT_NET_HTTP_CLIENT_PRIV_H
#define PT_NET_HTTP_CLIENT_PRIV_H
#include "net/http_client.h"
#include "net/url.h"
#include <curl/curl.h>
#include <openssl/x509.h>

/* Trust: the system's certificates and the conf's; and what a failed check was about. */
struct pt_trust {
	STACK_OF(X509) *extra;          /* NULL = none */
	char *dir, *bundle;             /* the system's: a hashed folder (read by need: small in memory) or else one file */
	char subject[200], issuer[200]; /* of the certificate that failed, "" = none did */
	int verify_error;               /* X509_V_ERR_… */
	int64_t expires;                /* of the newest server certificate seen, wall seconds; 0 = none yet */
	struct pt_http_tls *seen;       /* the call's; NULL = not wanted */
};
int pt_trust_init(struct pt_trust *t, const char *ca, struct pt_err *err) PT_MUSTCHECK;
void pt_trust_release(struct pt_trust *t);
/* Set up an easy handle: verification on, TLS 1.2 or newer, t's certificates, t's record of failures.  t must outlive the
 * connections. */
void pt_trust_apply(struct pt_trust *t, CURL *e);
/* The error of a failed handshake with host; text is libcurl's. */
int pt_trust_fail(const struct pt_trust *t, const char *host, const char *text, struct pt_err *err);

/* Proxy settings as libcurl takes them, owned by the caller; NULL when there is no memory. */
char *pt_http_no_proxy_normal(const char *s);
char *pt_http_proxy_normal(const char *s);
/* INVALID, which names the setting. */
int pt_http_proxies_check(const char *https_proxy, const char *http_proxy, struct pt_err *err) PT_MUSTCHECK;
#endif
