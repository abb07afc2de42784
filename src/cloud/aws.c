/* Keys from the environment, by web identity (IRSA) and from the container's endpoint (EKS Pod Identity).  See aws.h. */
#include "cloud/aws.h"
#include "base/shape.h"
#include "cloud/token.h"
#include "cloud/xml.h"
#include "net/url.h"
#include <stdio.h>
#include <time.h>

enum { ANSWER_MAX = 64 * 1024, FORM_MAX = 32 * 1024 };

const char *pt_aws_region(void)
{
	const char *r = pt_env("AWS_REGION");

	return r ? r : pt_env("AWS_DEFAULT_REGION");
}

const char *pt_aws_domain(const char *region)
{
	return strncmp(region, "cn-", 3) == 0 ? "amazonaws.com.cn" : "amazonaws.com";
}

static char *copy_env(const char *name)
{
	const char *v = pt_env(name);

	return v ? strdup(v) : NULL;
}

/* "2026-11-21T14:00:00Z" in wall ms, 0 when it is no such time: then the keys are fetched again for each use. */
static int64_t expiry(const char *text)
{
	struct tm tm = { 0 };

	return strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) ? (int64_t)timegm(&tm) * 1000 : 1;
}

/* Keys go into headers: nothing that would end a line. */
static int keys_done(const char *who, struct pt_aws_keys *k, struct pt_err *err)
{
	if (k->access_key && *k->access_key && k->secret_key && *k->secret_key && !strpbrk(k->access_key, "\r\n") &&
	    !(k->token && strpbrk(k->token, "\r\n")))
		return PT_OK;
	pt_aws_keys_release(k);
	return pt_fail(err, PT_E_CREDENTIAL, "%s gives no credentials: its answer has no keys", who);
}

/* --- the environment --- */

static int from_env(struct pt_aws_keys *ret, const char *region, const struct pt_http_client_conf *http,
		    const struct pt_cancel *cancel, struct pt_err *err)
{
	if (!pt_env("AWS_SECRET_ACCESS_KEY"))
		return pt_fail(err, PT_E_CREDENTIAL, "AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not");
	*ret = (struct pt_aws_keys) { .access_key = copy_env("AWS_ACCESS_KEY_ID"),
				      .secret_key = copy_env("AWS_SECRET_ACCESS_KEY"),
				      .token = copy_env("AWS_SESSION_TOKEN") };
	return keys_done("the environment", ret, err);
}

/* --- web identity --- */

static char *xml_member(const struct pt_buf *answer, const char *name)
{
	pt_auto_buf b = PT_BUF_INIT(ANSWER_MAX);
	char *copy;

	if (!pt_xml_text((struct pt_xml) { answer->p, answer->len }, name, &b))
		return NULL;
	copy = strdup(b.p);
	explicit_bzero(b.p, b.len);
	return copy;
}

static void form_add(struct pt_buf *form, const char *name, const char *value)
{
	pt_buf_fmt(form, "&%s=", name);
	pt_url_encode(form, value, strlen(value));
}

static int from_web_identity(struct pt_aws_keys *ret, const char *region, const struct pt_http_client_conf *http,
			     const struct pt_cancel *cancel, struct pt_err *err)
{
	const char *const headers[] = { "Content-Type: application/x-www-form-urlencoded", NULL };
	const char *role = pt_env("AWS_ROLE_ARN"), *own = pt_env("AWS_ENDPOINT_URL_STS"), *name = pt_env("AWS_ROLE_SESSION_NAME");
	pt_auto_buf form = PT_BUF_INIT(FORM_MAX), answer = PT_BUF_INIT(ANSWER_MAX);
	char *token = NULL, *expires, url[400], who[300];
	int rc;

	if (!role)
		return pt_fail(err, PT_E_CREDENTIAL, "AWS_WEB_IDENTITY_TOKEN_FILE is set, but AWS_ROLE_ARN is not");
	rc = pt_secret_file(pt_env("AWS_WEB_IDENTITY_TOKEN_FILE"), &token, err);
	if (rc < 0)
		return rc;
	snprintf(who, sizeof(who), "STS (role %.200s)", role);
	if (own)
		snprintf(url, sizeof(url), "%s", own);
	else
		snprintf(url, sizeof(url), "https://sts.%s.%s/", region, pt_aws_domain(region));
	pt_buf_str(&form, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15");
	form_add(&form, "RoleArn", role);
	form_add(&form, "RoleSessionName", name ? name : "postern");
	form_add(&form, "WebIdentityToken", token);
	explicit_bzero(token, strlen(token));
	free(token);
	rc = pt_buf_done(&form, err);
	if (rc == 0)
		rc = pt_token_fetch(who, url, headers, form.p, false, http, cancel, &answer, err);
	explicit_bzero(form.p, form.len);
	if (rc == PT_E_CREDENTIAL && !*err->hint)
		(void)pt_hint(err, "the role must trust the cluster's OIDC provider for the pod's ServiceAccount; compare the "
				   "eks.amazonaws.com/role-arn annotation with the role's trust policy");
	if (rc < 0)
		return rc;
	*ret = (struct pt_aws_keys) { .access_key = xml_member(&answer, "AccessKeyId"),
				      .secret_key = xml_member(&answer, "SecretAccessKey"),
				      .token = xml_member(&answer, "SessionToken") };
	expires = xml_member(&answer, "Expiration");
	ret->expires_at = expires ? expiry(expires) : 1;
	free(expires);
	explicit_bzero(answer.p, answer.len);
	return keys_done(who, ret, err);
}

/* --- the container's endpoint --- */

/* Only where a platform's agent can be: the environment must not send the pod's token anywhere else (as in AWS's own SDKs). */
static int check_container_url(const char *url, struct pt_err *err)
{
	static const char *const hosts[] = { "169.254.170.2", "169.254.170.23", "fd00:ec2::23", "127.0.0.1", "::1", "localhost" };
	struct pt_url u;
	int rc = pt_url_parse(url, &u, err);

	if (rc < 0)
		return pt_err_wrap(err, rc, "AWS_CONTAINER_CREDENTIALS_FULL_URI");
	for (size_t i = 0; i < PT_COUNT(hosts); i++)
		if (strcmp(u.host, hosts[i]) == 0)
			return PT_OK;
	return strcmp(u.scheme, "https") == 0
		       ? PT_OK
		       : pt_fail(err, PT_E_CREDENTIAL,
				 "AWS_CONTAINER_CREDENTIALS_FULL_URI is plain http to '%s', which is neither loopback nor the "
				 "address of EKS or ECS",
				 u.host);
}

static char *json_member(const json_t *j, const char *name)
{
	const char *s = json_string_value(json_object_get(j, name));

	return s ? strdup(s) : NULL;
}

static int from_container(struct pt_aws_keys *ret, const char *region, const struct pt_http_client_conf *http,
			  const struct pt_cancel *cancel, struct pt_err *err)
{
	static const char who[] = "the container credentials endpoint";
	const char *url = pt_env("AWS_CONTAINER_CREDENTIALS_FULL_URI"), *file = pt_env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
	pt_auto_buf answer = PT_BUF_INIT(ANSWER_MAX);
	struct pt_lines lines = { 0 };
	char *token = NULL, *expires;
	json_t *j = NULL;
	int rc = check_container_url(url, err);

	if (rc == 0 && file)
		rc = pt_secret_file(file, &token, err);
	if (rc < 0)
		return rc;
	if (token) {
		pt_lines_add(&lines, "Authorization: %s", token);
		explicit_bzero(token, strlen(token));
		free(token);
	}
	rc = pt_token_fetch(who, url, (const char *const *)lines.line, NULL, true, http, cancel, &answer, err);
	pt_lines_release(&lines);
	if (rc == PT_E_CREDENTIAL && !*err->hint)
		(void)pt_hint(
			err, "is the EKS Pod Identity Agent add-on running on this node, is the ServiceAccount associated with a "
			     "role, and may the pod reach 169.254.170.23?");
	if (rc < 0)
		return rc;
	if (pt_json_parse(answer.p, answer.len, &j, NULL) < 0)
		j = NULL;
	*ret = (struct pt_aws_keys) { .access_key = json_member(j, "AccessKeyId"),
				      .secret_key = json_member(j, "SecretAccessKey"),
				      .token = json_member(j, "Token") };
	expires = json_member(j, "Expiration");
	ret->expires_at = expires ? expiry(expires) : 1;
	free(expires);
	json_decref(j);
	explicit_bzero(answer.p, answer.len);
	return keys_done(who, ret, err);
}

/* --- the order --- */

static const struct {
	const char *env; /* set = this one is used */
	int (*get)(struct pt_aws_keys *ret, const char *region, const struct pt_http_client_conf *http,
		   const struct pt_cancel *cancel, struct pt_err *err);
} sources[] = {
	{ "AWS_ACCESS_KEY_ID", from_env },
	{ "AWS_WEB_IDENTITY_TOKEN_FILE", from_web_identity },
	{ "AWS_CONTAINER_CREDENTIALS_FULL_URI", from_container },
};

const char *pt_aws_source(void)
{
	for (size_t i = 0; i < PT_COUNT(sources); i++)
		if (pt_env(sources[i].env))
			return sources[i].env;
	return NULL;
}

int pt_aws_keys_get(struct pt_aws_keys *ret, const char *region, const struct pt_http_client_conf *http,
		    const struct pt_cancel *cancel, struct pt_err *err)
{
	for (size_t i = 0; i < PT_COUNT(sources); i++)
		if (pt_env(sources[i].env)) {
			int rc = sources[i].get(ret, region, http, cancel, err);

			if (rc == 0)
				ret->source = sources[i].env;
			return rc;
		}
	(void)pt_fail(err, PT_E_CREDENTIAL, "there are no AWS credentials");
	return pt_hint(err,
		       "associate the pod's ServiceAccount with a role (IRSA, EKS Pod Identity), or set AWS_ACCESS_KEY_ID and "
		       "AWS_SECRET_ACCESS_KEY");
}
