/* Amazon S3, what is compatible with it, and Google Cloud Storage by its XML API, which is S3's but for the credentials: HMAC
 * keys sign as in S3, workload identity gives a bearer token.  Used by one thread. */
#include "base/clock.h"
#include "cloud/aws.h"
#include "cloud/token.h"
#include "store/web.h"
#include <stdio.h>

enum { LIST_BYTES = 4 << 20, ACL_BYTES = 256 * 1024 };

struct s3 {
	struct pt_web web;  /* first */
	bool gcs, own_keys; /* own_keys: from the settings */
	char region[64];
	struct pt_aws_keys keys;
	struct pt_token token;
};

static const struct pt_web_error errors[] = {
	{ "SignatureDoesNotMatch", PT_E_SOURCE_AUTH,
	  "the secret key is not the one of this access key: compare both, without a line break at the end; a proxy that "
	  "rewrites requests does this too" },
	{ "InvalidAccessKeyId", PT_E_SOURCE_AUTH,
	  "the store does not know this access key: a typing error, a deleted key, or another store's" },
	{ "InvalidToken", PT_E_SOURCE_AUTH, "the session token does not belong to the keys: get all three again" },
	{ "InvalidClientTokenId", PT_E_SOURCE_AUTH, "the store does not know this access key" },
	{ "ExpiredToken", PT_E_SOURCE_AUTH,
	  "the temporary keys have expired: AWS_SESSION_TOKEN is for trying things only; use a role" },
	{ "AuthenticationRequired", PT_E_SOURCE_AUTH,
	  "the token was not accepted: does the ServiceAccount exist and is it enabled?" },
	{ "RequestTimeTooSkewed", PT_E_SOURCE_AUTH, NULL }, /* explained below, like those without a hint that follow */
	{ "AccessDenied", PT_E_SOURCE_DENIED, NULL },
	{ "AllAccessDisabled", PT_E_SOURCE_DENIED, "the owner has disabled the bucket" },
	{ "AccountProblem", PT_E_SOURCE_DENIED, "the account has a problem that its owner must solve with the provider" },
	{ "NoSuchBucket", PT_E_NOT_FOUND, "create the bucket, or correct POSTERN_STORAGE_BUCKET_NAME; the agent creates none" },
	{ "InvalidBucketName", PT_E_INVALID, "correct POSTERN_STORAGE_BUCKET_NAME" },
	{ "PermanentRedirect", PT_E_INVALID, NULL },
	{ "TemporaryRedirect", PT_E_INVALID, NULL },
	{ "AuthorizationHeaderMalformed", PT_E_INVALID, NULL },
	{ "AuthorizationQueryParametersError", PT_E_INVALID, NULL },
	{ "IllegalLocationConstraintException", PT_E_INVALID, NULL },
	{ "SlowDown", PT_E_LIMIT, "the store asks for fewer requests: try again" },
	{ "QuotaExceeded", PT_E_LIMIT, "the bucket's quota is used up: raise it, or delete objects" },
	{ "XMinioStorageFull", PT_E_LIMIT, "the store's disks are full" },
	{ "InvalidObjectState", PT_E_INVALID, "the object is archived: use a storage class without retrieval" },
	{ "KMS.DisabledException", PT_E_SOURCE_DENIED, "the bucket's encryption key is disabled" },
	{ NULL },
};

/* --- credentials --- */

static int sign(struct pt_web *w, const struct pt_signable *r, struct pt_lines *out, struct pt_err *err)
{
	struct s3 *s = (struct s3 *)w;
	int rc;

	if (s->gcs && !s->own_keys) {
		if (!s->token.text || pt_web_expires(s->token.expires_at)) {
			pt_token_release(&s->token);
			rc = pt_gcp_token(&s->token, w->http, w->cancel, err);
			if (rc < 0)
				return rc;
		}
		pt_lines_add(out, "Host: %s", r->host);
		pt_lines_add(out, "Authorization: Bearer %s", s->token.text);
		return PT_OK;
	}
	if (!s->own_keys && (!s->keys.access_key || pt_web_expires(s->keys.expires_at))) {
		pt_aws_keys_release(&s->keys);
		rc = pt_aws_keys_get(&s->keys, s->region, w->http, w->cancel, err);
		if (rc < 0)
			return rc;
	}
	return pt_sigv4_sign(r, &s->keys, s->region, "s3", out, err);
}

static void anonymous(struct pt_web *w, const struct pt_signable *r, struct pt_lines *out)
{
	pt_lines_add(out, "Host: %s", r->host);
}

/* The region that the answer names, for those who asked in the wrong one. */
static void explain_region(const struct s3 *s, struct pt_xml answer, struct pt_err *err)
{
	pt_auto_buf region = PT_BUF_INIT(80), endpoint = PT_BUF_INIT(200);

	if (pt_xml_text(answer, "Region", &region) && region.len && strcmp(region.p, s->region) != 0)
		(void)pt_hint(err, "the bucket is in another region: set POSTERN_STORAGE_REGION=%s (now %s)", region.p,
			      s->region);
	else if (pt_xml_text(answer, "Endpoint", &endpoint) && endpoint.len)
		(void)pt_hint(err, "the bucket is elsewhere, at %s: set POSTERN_STORAGE_REGION to its region (now %s)",
			      endpoint.p, s->region);
	else
		(void)pt_hint(err, "is %s the bucket's region? Set POSTERN_STORAGE_REGION", s->region);
}

static void explain_clock(struct pt_xml answer, struct pt_err *err)
{
	pt_auto_buf theirs = PT_BUF_INIT(80);
	char ours[32];

	pt_time_text(pt_wall_ms(), ours);
	(void)pt_xml_text(answer, "ServerTime", &theirs);
	(void)pt_hint(err, "this machine's clock says %s%s%s: set it right (NTP); stores accept up to 15 minutes of difference",
		      ours, theirs.len ? ", the store's " : "", theirs.p);
}

static void explain(struct pt_web *w, const char *native, struct pt_xml answer, struct pt_err *err)
{
	struct s3 *s = (struct s3 *)w;

	if (strcmp(native, "RequestTimeTooSkewed") == 0)
		explain_clock(answer, err);
	else if (strstr(native, "Redirect") || strncmp(native, "Authorization", 13) == 0 || strstr(native, "LocationConstraint"))
		explain_region(s, answer, err);
}

static const struct pt_web_kind kind = { .errors = errors, .sign = sign, .anonymous = anonymous, .explain = explain };

static void s3_close(struct pt_store *st)
{
	struct s3 *s = (struct s3 *)st;

	pt_aws_keys_release(&s->keys);
	pt_token_release(&s->token);
	pt_web_release(&s->web);
	free(s);
}

/* --- opening --- */

/* Keys by the settings, or else the first ones by workload identity. */
static int credentials(struct s3 *s, const struct pt_store_conf *conf, struct pt_err *err)
{
	int rc = pt_store_secret(conf->access_key, conf->access_key_file, &s->keys.access_key, err);

	rc = rc < 0 ? rc : pt_store_secret(conf->secret_key, conf->secret_key_file, &s->keys.secret_key, err);
	if (rc < 0)
		return rc;
	s->own_keys = s->keys.access_key != NULL;
	if (s->own_keys && strpbrk(s->keys.access_key, "\r\n")) {
		(void)pt_fail(err, PT_E_CREDENTIAL, "'%s' has more than one line", conf->access_key_file);
		return pt_hint(err, "it must hold the access key alone");
	}
	if (s->own_keys)
		s->web.store.credentials =
			pt_store_has(conf->access_key_file) ? "POSTERN_STORAGE_ACCESS_KEY_FILE" : "POSTERN_STORAGE_ACCESS_KEY";
	else if (s->gcs)
		rc = pt_gcp_token(&s->token, s->web.http, s->web.cancel, err);
	else
		rc = pt_aws_keys_get(&s->keys, s->region, s->web.http, s->web.cancel, err);
	if (rc == 0 && !s->own_keys)
		s->web.store.credentials = s->gcs ? "workload identity" : s->keys.source;
	return rc;
}

static int address(struct s3 *s, const struct pt_store_conf *conf, struct pt_err *err)
{
	const char *region = pt_store_has(conf->region) ? conf->region : pt_aws_region();
	char base[300];

	snprintf(s->region, sizeof(s->region), "%s", s->gcs ? "auto" : region ? region : "us-east-1");
	if (pt_store_has(conf->endpoint))
		return pt_web_init(&s->web, conf->endpoint, conf->bucket, err);
	if (s->gcs)
		return pt_web_init(&s->web, "https://storage.googleapis.com", conf->bucket, err);
	if (strchr(conf->bucket, '.')) { /* its name would not match the certificate's wildcard */
		snprintf(base, sizeof(base), "https://s3.%s.%s", s->region, pt_aws_domain(s->region));
		return pt_web_init(&s->web, base, conf->bucket, err);
	}
	snprintf(base, sizeof(base), "https://%s.s3.%s.%s", conf->bucket, s->region, pt_aws_domain(s->region));
	return pt_web_init(&s->web, base, NULL, err);
}

static int open_as(const struct pt_store_ops *ops, struct pt_store **ret, const struct pt_store_conf *conf,
		   const struct pt_http_client_conf *http, const struct pt_cancel *cancel, struct pt_err *err)
{
	struct s3 *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return pt_fail_oom(err);
	s->web = (struct pt_web) { .store.ops = ops, .kind = &kind, .conf = conf, .http = http, .cancel = cancel };
	s->gcs = ops == &pt_store_gcs;
	rc = address(s, conf, err);
	if (rc == 0)
		rc = credentials(s, conf, err);
	if (rc < 0) {
		s3_close(&s->web.store);
		return rc;
	}
	*ret = &s->web.store;
	return PT_OK;
}

static int s3_open(struct pt_store **ret, const struct pt_store_conf *conf, const struct pt_http_client_conf *http,
		   const struct pt_cancel *cancel, struct pt_err *err)
{
	return open_as(&pt_store_s3, ret, conf, http, cancel, err);
}

static int gcs_open(struct pt_store **ret, const struct pt_store_conf *conf, const struct pt_http_client_conf *http,
		    const struct pt_cancel *cancel, struct pt_err *err)
{
	return open_as(&pt_store_gcs, ret, conf, http, cancel, err);
}

/* --- objects --- */

/* A refusal for want of permission names the permission. */
static int allowed(const struct s3 *s, int rc, const char *action, const char *role, struct pt_err *err)
{
	if (rc != PT_E_SOURCE_DENIED || *err->hint)
		return rc;
	if (s->gcs)
		return pt_hint(err, "grant %s on bucket %s (role Storage Object User has all that is needed)", role,
			       s->web.conf->bucket);
	return pt_hint(err,
		       "allow %s on bucket %s in the policy of the user or role; look for a Deny in the bucket's policy or a VPC "
		       "endpoint's, and at its KMS key",
		       action, s->web.conf->bucket);
}

static int s3_put(struct pt_store *st, const char *key, const void *data, size_t n, struct pt_err *err)
{
	struct s3 *s = (struct s3 *)st;
	struct pt_web_call call = { .method = "PUT", .key = key, .body = data, .n = n };

	return allowed(s, pt_web_do(&s->web, &call, err), "s3:PutObject", "storage.objects.create", err);
}

static int s3_get(struct pt_store *st, const char *key, struct pt_buf *out, struct pt_err *err)
{
	struct s3 *s = (struct s3 *)st;
	struct pt_web_call call = { .method = "GET", .key = key, .out = out };

	return allowed(s, pt_web_do(&s->web, &call, err), "s3:GetObject", "storage.objects.get", err);
}

static int s3_list(struct pt_store *st, const char *prefix, unsigned max, int (*fn)(void *arg, const char *key), void *arg,
		   struct pt_err *err)
{
	struct s3 *s = (struct s3 *)st;
	char most[12];
	const struct pt_param params[] = { { "list-type", "2" }, { "max-keys", most }, { "prefix", prefix }, { NULL } };
	pt_auto_buf answer = PT_BUF_INIT(LIST_BYTES), key = PT_BUF_INIT(8192);
	struct pt_web_call call = { .method = "GET", .params = params, .out = &answer };
	struct pt_xml rest, one;
	int rc;

	snprintf(most, sizeof(most), "%u", max);
	rc = allowed(s, pt_web_do(&s->web, &call, err), "s3:ListBucket", "storage.objects.list", err);
	rest = (struct pt_xml) { answer.p, answer.len };
	while (rc == 0 && pt_xml_next(&rest, "Contents", &one)) {
		pt_buf_clear(&key);
		if (pt_xml_text(one, "Key", &key))
			rc = fn(arg, key.p);
	}
	return rc;
}

static int s3_remove(struct pt_store *st, const char *key, struct pt_err *err)
{
	struct s3 *s = (struct s3 *)st;
	struct pt_web_call call = { .method = "DELETE", .key = key };
	int rc = pt_web_do(&s->web, &call, err);

	if (rc == PT_E_NOT_FOUND && strcmp(err->native, "NoSuchKey") == 0)
		return PT_OK;
	return allowed(s, rc, "s3:DeleteObject", "storage.objects.delete", err);
}

/* --- public? --- */

/* What the bucket says of itself: 1 public, 0 private, < 0 not to be known. */
static int by_policy(struct s3 *s)
{
	const struct pt_param params[] = { { "policyStatus", "" }, { NULL } };
	pt_auto_buf answer = PT_BUF_INIT(ACL_BYTES), is = PT_BUF_INIT(16);
	struct pt_web_call call = { .method = "GET", .params = params, .out = &answer };
	struct pt_err err = { 0 };
	int rc = pt_web_do(&s->web, &call, &err);

	if (rc < 0)
		return strcmp(err.native, "NoSuchBucketPolicy") == 0 ? 0 : -1;
	return pt_xml_text((struct pt_xml) { answer.p, answer.len }, "IsPublic", &is) ? strcasecmp(is.p, "true") == 0 : -1;
}

static int by_acl(struct s3 *s)
{
	const struct pt_param params[] = { { "acl", "" }, { NULL } };
	pt_auto_buf answer = PT_BUF_INIT(ACL_BYTES), uri = PT_BUF_INIT(400);
	struct pt_web_call call = { .method = "GET", .params = params, .out = &answer };
	struct pt_xml rest, grant;
	struct pt_err err = { 0 };

	if (pt_web_do(&s->web, &call, &err) < 0)
		return -1;
	rest = (struct pt_xml) { answer.p, answer.len };
	while (pt_xml_next(&rest, "Grant", &grant)) {
		pt_buf_clear(&uri);
		if (pt_xml_text(grant, "URI", &uri) && (strstr(uri.p, "/AllUsers") || strstr(uri.p, "/AuthenticatedUsers")))
			return 1;
	}
	return strstr(answer.p, "AccessControlList") ? 0 : -1;
}

static int s3_is_public(struct pt_store *st, const char *key, char why[static 200])
{
	struct s3 *s = (struct s3 *)st;
	const struct pt_param params[] = { { "list-type", "2" }, { "max-keys", "1" }, { NULL } };
	int object = pt_web_anonymous(&s->web, key, NULL), list = pt_web_anonymous(&s->web, NULL, params), policy, acl;

	if (object > 0 || list > 0) {
		snprintf(why, 200, "%s without credentials", object > 0 ? "its objects can be read" : "it can be listed");
		return 1;
	}
	policy = s->gcs ? -1 : by_policy(s);
	acl = s->gcs ? -1 : by_acl(s);
	if (policy > 0 || acl > 0) {
		snprintf(why, 200, "its %s lets everybody in", policy > 0 ? "policy" : "access control list");
		return 1;
	}
	if (object < 0 || list < 0) {
		snprintf(why, 200, "a request without credentials got no clear answer");
		return -1;
	}
	snprintf(why, 200, "requests without credentials are refused%s",
		 policy == 0 && acl == 0 ? ", and neither its policy nor its access control list is public" : "");
	return 0;
}

const struct pt_store_ops pt_store_s3 = { .name = "S3",
					  .open = s3_open,
					  .put = s3_put,
					  .get = s3_get,
					  .list = s3_list,
					  .remove = s3_remove,
					  .is_public = s3_is_public,
					  .close = s3_close };
const struct pt_store_ops pt_store_gcs = { .name = "GCS",
					   .open = gcs_open,
					   .put = s3_put,
					   .get = s3_get,
					   .list = s3_list,
					   .remove = s3_remove,
					   .is_public = s3_is_public,
					   .close = s3_close };
