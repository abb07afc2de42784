/* Tokens of Google and Azure, and what fetching credentials has in common.  See token.h. */
#include "cloud/token.h"
#include "base/clock.h"
#include "base/shape.h"
#include "cloud/xml.h"
#include "net/url.h"
#include "os/file.h"
#include <ctype.h>
#include <stdio.h>

enum { FETCH_MS = 15000, CONNECT_MS = 5000, SECRET_MAX = 16 * 1024, ANSWER_MAX = 64 * 1024, LASTS_MOST_S = 7 * 86400 };

const char *pt_env(const char *name)
{
	const char *v = getenv(name);

	return v && *v ? v : NULL;
}

void pt_token_release(struct pt_token *t)
{
	if (t->text)
		explicit_bzero(t->text, strlen(t->text));
	free(t->text);
	*t = (struct pt_token) { 0 };
}

int pt_secret_file(const char *path, char **ret, struct pt_err *err)
{
	pt_auto_buf b = PT_BUF_INIT(SECRET_MAX);
	int rc = pt_file_read(path, &b, err);
	const char *p = b.p;
	size_t n = b.len;
	char *copy;

	if (rc < 0) {
		if (err)
			err->code = PT_E_CREDENTIAL;
		return pt_hint(err, "check that the secret is mounted at this path and that the agent's user may read it");
	}
	while (n && isspace((unsigned char)*p))
		p++, n--;
	while (n && isspace((unsigned char)p[n - 1]))
		n--;
	copy = n ? strndup(p, n) : NULL;
	explicit_bzero(b.p, b.len);
	if (!n)
		return pt_fail(err, PT_E_CREDENTIAL, "'%s' is empty", path);
	if (!copy)
		return pt_fail_oom(err);
	*ret = copy;
	return PT_OK;
}

/* What the service says of its refusal: OAuth's error_description, or the message of an AWS error. */
static void reason(const struct pt_buf *answer, char *out, size_t n)
{
	static const char *const members[] = { "error_description", "message", "Message", "error" };
	pt_auto_buf text = PT_BUF_INIT(ANSWER_MAX);
	json_t *j = NULL;

	if (pt_json_parse(answer->p, answer->len, &j, NULL) == 0)
		for (size_t i = 0; i < PT_COUNT(members) && !text.len; i++)
			if (json_is_string(json_object_get(j, members[i])))
				pt_buf_str(&text, json_string_value(json_object_get(j, members[i])));
	json_decref(j);
	if (!text.len && pt_xml_text((struct pt_xml) { answer->p, answer->len }, "Code", &text)) {
		pt_buf_str(&text, ": ");
		(void)pt_xml_text((struct pt_xml) { answer->p, answer->len }, "Message", &text);
	}
	snprintf(out, n, "%.*s", (int)strcspn(text.p, "\r\n"), text.p);
}

int pt_token_fetch(const char *who, const char *url, const char *const *headers, const char *form, bool direct,
		   const struct pt_http_client_conf *http, const struct pt_cancel *cancel, struct pt_buf *out, struct pt_err *err)
{
	pt_auto(pt_http_client_freep) struct pt_http_client *client = NULL;
	struct pt_http_client_conf conf = *http;
	struct pt_http_call call = { .method = form ? "POST" : "GET",
				     .url = url,
				     .headers = headers,
				     .body = form,
				     .body_size = form ? (int64_t)strlen(form) : 0,
				     .out = out,
				     .timeout_ms = FETCH_MS,
				     .cancel = cancel };
	char why[200];
	int rc;

	if (direct)
		conf.https_proxy = conf.http_proxy = NULL;
	conf.connect_timeout_ms = CONNECT_MS;
	rc = pt_http_client_new(&client, &conf, err);
	if (rc == 0)
		rc = pt_http_do(client, &call, err);
	if (rc == PT_E_CANCELLED || rc == PT_E_DEADLINE)
		return rc;
	if (rc == 0 && call.status != 200) {
		reason(out, why, sizeof(why));
		rc = pt_fail(err, PT_E_CREDENTIAL, "status %d%s%s", call.status, *why ? ": " : "", why);
	}
	if (rc < 0) {
		(void)pt_err_wrap(err, rc, "%s gives no credentials", who);
		err->code = PT_E_CREDENTIAL;
		return PT_E_CREDENTIAL;
	}
	return PT_OK;
}

/* {"access_token": "…", "expires_in": 3599}, of both clouds. */
static int token_of(const char *who, const struct pt_buf *answer, struct pt_token *ret, struct pt_err *err)
{
	const char *text;
	json_t *j = NULL;
	json_int_t lasts;
	int rc = PT_OK;

	if (pt_json_parse(answer->p, answer->len, &j, NULL) < 0)
		j = NULL;
	text = json_string_value(json_object_get(j, "access_token"));
	lasts = json_integer_value(json_object_get(j, "expires_in"));
	if (!text || !*text || strpbrk(text, "\r\n")) {
		rc = pt_fail(err, PT_E_CREDENTIAL, "%s gives no credentials: its answer has no access_token", who);
	} else {
		ret->text = strdup(text);
		ret->expires_at = pt_wall_ms() + 1000 * (lasts < 0 ? 0 : lasts > LASTS_MOST_S ? LASTS_MOST_S : lasts);
		rc = ret->text ? PT_OK : pt_fail_oom(err);
	}
	json_decref(j);
	return rc;
}

int pt_gcp_token(struct pt_token *ret, const struct pt_http_client_conf *http, const struct pt_cancel *cancel, struct pt_err *err)
{
	static const char who[] = "Google's metadata server";
	const char *const headers[] = { "Metadata-Flavor: Google", NULL };
	const char *host = pt_env("GCE_METADATA_HOST");
	pt_auto_buf answer = PT_BUF_INIT(ANSWER_MAX);
	char url[400];
	int rc;

	snprintf(url, sizeof(url), "http://%.255s/computeMetadata/v1/instance/service-accounts/default/token",
		 host ? host : "metadata.google.internal");
	rc = pt_token_fetch(who, url, headers, NULL, true, http, cancel, &answer, err);
	if (rc == PT_E_CREDENTIAL)
		return pt_hint(
			err, "bind the pod's Kubernetes ServiceAccount to a Google one (Workload Identity) and let the pod reach "
			     "169.254.169.254, or give HMAC keys");
	if (rc == 0)
		rc = token_of(who, &answer, ret, err);
	explicit_bzero(answer.p, answer.len);
	return rc;
}

static const char *const azure_names[] = { "AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE" };

bool pt_azure_token_possible(void)
{
	for (size_t i = 0; i < PT_COUNT(azure_names); i++)
		if (!pt_env(azure_names[i]))
			return false;
	return true;
}

int pt_azure_token(struct pt_token *ret, const struct pt_http_client_conf *http, const struct pt_cancel *cancel,
		   struct pt_err *err)
{
	static const char who[] = "Microsoft Entra";
	const char *const headers[] = { "Content-Type: application/x-www-form-urlencoded", NULL };
	const char *authority = pt_env("AZURE_AUTHORITY_HOST");
	pt_auto_buf url = PT_BUF_INIT(2048), form = PT_BUF_INIT(2 * SECRET_MAX), answer = PT_BUF_INIT(ANSWER_MAX);
	char *assertion = NULL;
	size_t n;
	int rc;

	for (size_t i = 0; i < PT_COUNT(azure_names); i++)
		if (!pt_env(azure_names[i])) {
			(void)pt_fail(err, PT_E_CREDENTIAL, "%s is not set", azure_names[i]);
			return pt_hint(err, "label the pod azure.workload.identity/use and annotate its ServiceAccount, "
					    "or give the account's key");
		}
	rc = pt_secret_file(pt_env("AZURE_FEDERATED_TOKEN_FILE"), &assertion, err);
	if (rc < 0)
		return rc;
	authority = authority ? authority : "https://login.microsoftonline.com";
	n = strlen(authority);
	pt_buf_fmt(&url, "%.*s/", (int)(n && authority[n - 1] == '/' ? n - 1 : n), authority);
	pt_url_encode(&url, pt_env("AZURE_TENANT_ID"), strlen(pt_env("AZURE_TENANT_ID")));
	pt_buf_str(&url, "/oauth2/v2.0/token");
	pt_buf_str(&form, "grant_type=client_credentials&scope=https%3A%2F%2Fstorage.azure.com%2F.default&client_assertion_type="
			  "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_id=");
	pt_url_encode(&form, pt_env("AZURE_CLIENT_ID"), strlen(pt_env("AZURE_CLIENT_ID")));
	pt_buf_str(&form, "&client_assertion=");
	pt_url_encode(&form, assertion, strlen(assertion));
	explicit_bzero(assertion, strlen(assertion));
	free(assertion);
	if ((rc = pt_buf_done(&url, err)) == 0 && (rc = pt_buf_done(&form, err)) == 0)
		rc = pt_token_fetch(who, url.p, headers, form.p, false, http, cancel, &answer, err);
	if (rc == PT_E_CREDENTIAL && !*err->hint)
		(void)pt_hint(
			err, "check the federated credential of the managed identity: issuer, subject (the pod's ServiceAccount) "
			     "and AZURE_CLIENT_ID, AZURE_TENANT_ID");
	if (rc == 0)
		rc = token_of(who, &answer, ret, err);
	explicit_bzero(form.p, form.len);
	explicit_bzero(answer.p, answer.len);
	return rc;
}
