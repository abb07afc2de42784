/* Signing requests: AWS Signature Version 4, and Azure's Shared Key.  Our own and not libcurl's, which (7.88) leaves out
 * x-amz-content-sha256 and neither sorts nor encodes what it signs. */
#ifndef PT_CLOUD_SIGN_H
#define PT_CLOUD_SIGN_H
#include "base/buf.h"

/* Header lines of a request, for pt_http_call.headers.  Wiped when released: they hold tokens. */
enum { PT_LINES_MAX = 12 };
struct pt_lines {
	char *line[PT_LINES_MAX + 1]; /* ended by NULL */
	unsigned n;
	bool bad; /* out of memory */
};
void pt_lines_add(struct pt_lines *l, const char *fmt, ...) PT_PRINTF(2, 3);
void pt_lines_release(struct pt_lines *l);

/* One parameter of a query; a list of them is sorted by name and ends with a NULL name. */
struct pt_param {
	const char *name, *value;
};
/* Append "a=b&c=", encoded. */
void pt_params_encode(const struct pt_param *params, struct pt_buf *out);

/* What is signed of a request. */
struct pt_signable {
	const char *method, *host; /* host as in the Host header: with the port when it is not the scheme's own */
	const char *path;          /* encoded, from '/' */
	const struct pt_param *params;
	const void *body;
	size_t n;
	int64_t at_ms; /* wall clock */
};

struct pt_aws_keys {
	char *access_key, *secret_key, *token; /* token: of temporary keys, NULL = none */
	int64_t expires_at;                    /* wall ms, 0 = never */
	const char *source;                    /* static text: where they came from */
};
void pt_aws_keys_release(struct pt_aws_keys *k); /* wipes */

/* Add Host, x-amz-date, x-amz-content-sha256, x-amz-security-token and Authorization.  The path is taken as encoded once, as S3
 * wants it (other services encode it twice; it makes no difference for "/"). */
int pt_sigv4_sign(const struct pt_signable *r, const struct pt_aws_keys *k, const char *region, const char *service,
		  struct pt_lines *out, struct pt_err *err) PT_MUSTCHECK;

/* Add Host, x-ms-date and Authorization.  out has the other x-ms-* headers already, as "x-ms-name:value" in lower case:
 * x-ms-version and x-ms-blob-type are known and signed.  key is the account's, in base64: INVALID when it is not. */
int pt_azure_sign(const struct pt_signable *r, const char *account, const char *key, struct pt_lines *out,
		  struct pt_err *err) PT_MUSTCHECK;
/* The date of a request as Azure wants it, "Sat, 21 Nov 2026 13:55:00 GMT". */
void pt_http_date(int64_t wall_ms, char out[static 40]);
#endif
