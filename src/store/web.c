/* Requests to stores, and what their refusals mean.  See web.h. */
#include "store/web.h"
#include "base/clock.h"
#include "net/url.h"
#include <stdio.h>

enum { CALL_MS = 60000, STALL_MS = 20000, ERROR_MAX = 64 * 1024, URL_MAX = 8192, EARLY_MS = 5 * 60000 };

/* What a status means when the error document says nothing that we know. */
static const struct {
	int status;
	enum pt_code code;
} statuses[] = {
	{ 400, PT_E_INVALID },     { 401, PT_E_SOURCE_AUTH }, { 403, PT_E_SOURCE_DENIED }, { 404, PT_E_NOT_FOUND },
	{ 409, PT_E_CONFLICT },    { 413, PT_E_TOO_LARGE },   { 429, PT_E_LIMIT },         { 500, PT_E_UNAVAILABLE },
	{ 502, PT_E_UNAVAILABLE }, { 503, PT_E_UNAVAILABLE }, { 504, PT_E_TIMEOUT },       { 507, PT_E_LIMIT },
};

int pt_web_init(struct pt_web *w, const char *base, const char *bucket, struct pt_err *err)
{
	pt_auto_buf path = PT_BUF_INIT(URL_MAX), origin = PT_BUF_INIT(600);
	struct pt_url u;
	bool plain, v6;
	size_t n;
	int rc = pt_url_parse(base, &u, err);

	if (rc < 0)
		return rc;
	plain = u.port == (strcmp(u.scheme, "https") == 0 ? 443U : 80U);
	v6 = strchr(u.host, ':') != NULL;
	snprintf(w->host, sizeof(w->host), plain ? "%s%s%s" : "%s%s%s:%u", v6 ? "[" : "", u.host, v6 ? "]" : "", u.port);
	pt_buf_fmt(&origin, "%s://%s", u.scheme, w->host);
	for (n = strlen(u.path); n && u.path[n - 1] == '/';)
		n--;
	pt_buf_add(&path, u.path, n);
	if (bucket) {
		pt_buf_chr(&path, '/');
		pt_url_encode(&path, bucket, strlen(bucket));
	}
	if ((rc = pt_buf_done(&origin, err)) < 0 || (rc = pt_buf_done(&path, err)) < 0)
		return rc;
	w->origin = pt_buf_detach(&origin, NULL);
	w->path = pt_buf_detach(&path, NULL);
	if (!w->origin || !w->path)
		return pt_fail_oom(err);
	return pt_http_client_new(&w->client, w->http, err);
}

void pt_web_release(struct pt_web *w)
{
	pt_http_client_free(w->client);
	free(w->origin);
	free(w->path);
}

bool pt_web_expires(int64_t at)
{
	return at && pt_wall_ms() > at - EARLY_MS;
}

/* Each segment encoded, the '/' between them not. */
static void add_key(struct pt_buf *path, const char *key)
{
	while (*key) {
		size_t n = strcspn(key, "/");

		pt_url_encode(path, key, n);
		key += n;
		if (*key)
			pt_buf_chr(path, *key++);
	}
}

/* --- refusals --- */

/* Codes that the stores share. */
static const struct pt_web_error common[] = {
	{ "InternalError", PT_E_UNAVAILABLE, "try again; if it stays, ask the store's operator" },
	{ "ServiceUnavailable", PT_E_UNAVAILABLE, "try again; if it stays, ask the store's operator" },
	{ NULL },
};

static const struct pt_web_error *find(const struct pt_web_error *e, const char *native)
{
	while (e->native && strcmp(e->native, native) != 0)
		e++;
	return e->native ? e : NULL;
}

static enum pt_code of_status(int status)
{
	for (size_t i = 0; i < PT_COUNT(statuses); i++)
		if (statuses[i].status == status)
			return statuses[i].code;
	return status / 100 == 5 ? PT_E_UNAVAILABLE : status / 100 == 4 ? PT_E_INVALID : PT_E_PROTOCOL;
}

/* An answer without an error document that we understand. */
static int no_document(const struct pt_http_call *call, struct pt_err *err)
{
	char native[12];

	(void)pt_fail(err, of_status(call->status), "the answer is status %d without an error document of an object store",
		      call->status);
	snprintf(native, sizeof(native), "%d", call->status);
	pt_native(err, native);
	if (call->proxied && (call->status == 403 || call->status == 401 || call->status == 407))
		return pt_hint(err, "it came through the proxy: may the proxy reach this host? Else add the host to NO_PROXY");
	return pt_hint(
		err, "does the endpoint lead to the store's API (not to its web console), and is no proxy or ingress answering?");
}

static int refused(struct pt_web *w, const struct pt_http_call *call, const struct pt_buf *body, struct pt_err *err)
{
	pt_auto_buf code = PT_BUF_INIT(200), message = PT_BUF_INIT(ERROR_MAX);
	struct pt_xml doc = { body->p, body->len };
	const struct pt_web_error *e;

	if (!pt_xml_text(doc, "Code", &code) || !code.len || code.bad)
		return no_document(call, err);
	(void)pt_xml_text(doc, "Message", &message);
	e = find(w->kind->errors, code.p);
	e = e ? e : find(common, code.p);
	(void)pt_fail(err, e ? e->code : of_status(call->status), "%s%s%.*s (status %d)", code.p, message.len ? ": " : "",
		      (int)strcspn(message.p, "\r\n"), message.p, call->status);
	pt_native(err, code.p);
	if (e && e->hint)
		(void)pt_hint(err, "%s", e->hint);
	if (w->kind->explain)
		w->kind->explain(w, code.p, doc, err);
	return err->code;
}

/* --- requests --- */

static int on_data(void *arg, const char *data, size_t n, struct pt_err *err)
{
	struct pt_buf *out = arg;

	if (!out)
		return PT_OK;
	pt_buf_add(out, data, n);
	return pt_buf_done(out, err);
}

int pt_web_do(struct pt_web *w, const struct pt_web_call *call, struct pt_err *err)
{
	pt_auto_buf path = PT_BUF_INIT(URL_MAX), url = PT_BUF_INIT(URL_MAX), answer = PT_BUF_INIT(ERROR_MAX);
	pt_auto(pt_lines_release) struct pt_lines lines = { 0 };
	struct pt_http_call http = { .method = call->method,
				     .body = call->body,
				     .body_size = (int64_t)call->n,
				     .out = &answer,
				     .on_data = on_data,
				     .arg = call->out,
				     .timeout_ms = CALL_MS,
				     .stall_timeout_ms = STALL_MS,
				     .cancel = w->cancel };
	struct pt_signable r = { .method = call->method,
				 .host = w->host,
				 .params = call->params,
				 .body = call->body,
				 .n = call->n,
				 .at_ms = pt_wall_ms() };
	int rc;

	pt_buf_str(&path, w->path);
	if (call->key || !*w->path)
		pt_buf_chr(&path, '/');
	add_key(&path, call->key ? call->key : "");
	pt_buf_fmt(&url, "%s%s%s", w->origin, path.p, call->params ? "?" : "");
	pt_params_encode(call->params, &url);
	if ((rc = pt_buf_done(&path, err)) < 0 || (rc = pt_buf_done(&url, err)) < 0)
		return rc;
	r.path = path.p;
	http.url = url.p;
	w->status = 0;
	if (call->anonymous)
		w->kind->anonymous(w, &r, &lines);
	else
		rc = w->kind->sign(w, &r, &lines, err);
	if (rc == 0 && lines.bad)
		rc = pt_fail_oom(err);
	if (rc < 0)
		return rc;
	http.headers = (const char *const *)lines.line;
	rc = pt_http_do(w->client, &http, err);
	w->status = http.status;
	return rc < 0 || http.status / 100 == 2 ? rc : refused(w, &http, &answer, err);
}

int pt_web_anonymous(struct pt_web *w, const char *key, const struct pt_param *params)
{
	struct pt_web_call call = { .method = "GET", .key = key, .params = params, .anonymous = true };
	struct pt_err err = { 0 };

	return pt_web_do(w, &call, &err) == 0 ? 1 : w->status / 100 == 4 ? 0 : -1;
}
