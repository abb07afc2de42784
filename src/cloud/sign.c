/* Signatures of requests, see sign.h: pure functions of their arguments. */
#include "cloud/sign.h"
#include "base/id.h"
#include "net/url.h"
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <time.h>

enum { LINE_MAX_BYTES = 16 * 1024, MAC = 32 };

/* --- header lines, parameters --- */

void pt_lines_add(struct pt_lines *l, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;
	int n;

	pt_assert(l->n < PT_LINES_MAX);
	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0)
		l->bad = true;
	else
		l->line[l->n++] = text;
}

static void wipe(char **p)
{
	if (*p)
		explicit_bzero(*p, strlen(*p));
	free(*p);
	*p = NULL;
}

void pt_lines_release(struct pt_lines *l)
{
	while (l->n)
		wipe(&l->line[--l->n]);
}

void pt_aws_keys_release(struct pt_aws_keys *k)
{
	wipe(&k->access_key);
	wipe(&k->secret_key);
	wipe(&k->token);
	*k = (struct pt_aws_keys) { 0 };
}

void pt_params_encode(const struct pt_param *params, struct pt_buf *out)
{
	for (const struct pt_param *p = params; p && p->name; p++) {
		pt_assert(p == params || strcmp(p[-1].name, p->name) < 0);
		pt_buf_str(out, p == params ? "" : "&");
		pt_url_encode(out, p->name, strlen(p->name));
		pt_buf_chr(out, '=');
		pt_url_encode(out, p->value, strlen(p->value));
	}
}

static void mac(const void *key, size_t key_n, const char *text, size_t n, unsigned char out[static MAC])
{
	unsigned len = 0;

	pt_assert(HMAC(EVP_sha256(), key, (int)key_n, (const unsigned char *)text, n, out, &len) && len == MAC);
}

static struct tm utc(int64_t wall_ms)
{
	time_t s = (time_t)(wall_ms / 1000);
	struct tm tm;

	pt_assert(gmtime_r(&s, &tm));
	return tm;
}

void pt_http_date(int64_t wall_ms, char out[static 40])
{
	struct tm tm = utc(wall_ms);

	pt_assert(strftime(out, 40, "%a, %d %b %Y %H:%M:%S GMT", &tm) > 0); /* the program never sets a locale */
}

/* --- AWS Signature Version 4 --- */

/* The key of one day, region and service. */
static void sigv4_key(const char *secret, const char *day, const char *region, const char *service, unsigned char out[static MAC])
{
	const char *const steps[] = { region, service, "aws4_request" };
	pt_auto_buf first = PT_BUF_INIT(4096);

	pt_buf_fmt(&first, "AWS4%s", secret);
	mac(first.p, first.len, day, strlen(day), out);
	explicit_bzero(first.p, first.len);
	for (size_t i = 0; i < PT_COUNT(steps); i++) {
		unsigned char next[MAC];

		mac(out, MAC, steps[i], strlen(steps[i]), next);
		memcpy(out, next, MAC);
		explicit_bzero(next, sizeof(next));
	}
}

int pt_sigv4_sign(const struct pt_signable *r, const struct pt_aws_keys *k, const char *region, const char *service,
		  struct pt_lines *out, struct pt_err *err)
{
	pt_auto_buf request = PT_BUF_INIT(LINE_MAX_BYTES), text = PT_BUF_INIT(1024), hex = PT_BUF_INIT(80);
	const char *names =
		k->token ? "host;x-amz-content-sha256;x-amz-date;x-amz-security-token" : "host;x-amz-content-sha256;x-amz-date";
	char at[20], day[12], body[65], digest[65];
	unsigned char key[MAC], sum[MAC];
	struct tm tm = utc(r->at_ms);
	int rc;

	pt_assert(strftime(at, sizeof(at), "%Y%m%dT%H%M%SZ", &tm) > 0 && strftime(day, sizeof(day), "%Y%m%d", &tm) > 0);
	pt_sha256_hex(r->body ? r->body : "", r->n, body);
	pt_buf_fmt(&request, "%s\n%s\n", r->method, r->path);
	pt_params_encode(r->params, &request);
	pt_buf_fmt(&request, "\nhost:%s\nx-amz-content-sha256:%s\nx-amz-date:%s\n", r->host, body, at);
	if (k->token)
		pt_buf_fmt(&request, "x-amz-security-token:%s\n", k->token);
	pt_buf_fmt(&request, "\n%s\n%s", names, body);
	pt_sha256_hex(request.p, request.len, digest);
	pt_buf_fmt(&text, "AWS4-HMAC-SHA256\n%s\n%s/%s/%s/aws4_request\n%s", at, day, region, service, digest);
	if ((rc = pt_buf_done(&request, err)) < 0 || (rc = pt_buf_done(&text, err)) < 0)
		return pt_err_wrap(err, rc, "sign a request");
	sigv4_key(k->secret_key, day, region, service, key);
	mac(key, MAC, text.p, text.len, sum);
	explicit_bzero(key, sizeof(key));
	pt_buf_hex(&hex, sum, sizeof(sum));
	pt_lines_add(out, "Host: %s", r->host);
	pt_lines_add(out, "x-amz-date: %s", at);
	pt_lines_add(out, "x-amz-content-sha256: %s", body);
	if (k->token)
		pt_lines_add(out, "x-amz-security-token: %s", k->token);
	pt_lines_add(out, "Authorization: AWS4-HMAC-SHA256 Credential=%s/%s/%s/%s/aws4_request, SignedHeaders=%s, Signature=%s",
		     k->access_key, day, region, service, names, hex.p);
	return out->bad || hex.bad ? pt_fail_oom(err) : PT_OK;
}

/* --- Azure Shared Key --- */

int pt_azure_sign(const struct pt_signable *r, const char *account, const char *key, struct pt_lines *out, struct pt_err *err)
{
	static const char *const names[] = { "x-ms-blob-type:", "x-ms-date:", "x-ms-version:" }; /* signed in this order */
	pt_auto_buf text = PT_BUF_INIT(LINE_MAX_BYTES), raw = PT_BUF_INIT(4096), sum64 = PT_BUF_INIT(80);
	unsigned char sum[MAC];
	char date[40];
	int rc;

	pt_http_date(r->at_ms, date);
	pt_lines_add(out, "x-ms-date:%s", date);
	pt_buf_fmt(&text, "%s\n\n\n", r->method);
	if (r->n)
		pt_buf_fmt(&text, "%zu", r->n);
	pt_buf_str(&text, "\n\n\n\n\n\n\n\n\n");
	for (size_t k = 0; k < PT_COUNT(names); k++)
		for (unsigned i = 0; i < out->n; i++)
			if (strncmp(out->line[i], names[k], strlen(names[k])) == 0)
				pt_buf_fmt(&text, "%s\n", out->line[i]);
	pt_buf_fmt(&text, "/%s%s", account, r->path);
	for (const struct pt_param *p = r->params; p && p->name; p++)
		pt_buf_fmt(&text, "\n%s:%s", p->name, p->value);
	rc = pt_buf_done(&text, err);
	rc = rc < 0 ? rc : pt_base64_decode(key, strlen(key), &raw, err);
	if (rc < 0)
		return pt_err_wrap(err, rc, "sign a request with the storage account's key");
	mac(raw.p, raw.len, text.p, text.len, sum);
	explicit_bzero(raw.p, raw.len);
	pt_buf_base64(&sum64, sum, sizeof(sum));
	pt_lines_add(out, "Host: %s", r->host);
	pt_lines_add(out, "Authorization: SharedKey %s:%s", account, sum64.p);
	return out->bad || sum64.bad ? pt_fail_oom(err) : PT_OK;
}
