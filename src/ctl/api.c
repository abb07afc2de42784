#include "ctl/api.h"
#include "ctl/table.h"
#include "base/clock.h"
#include "net/backoff.h"
#include "net/http_client.h"
#include "net/url.h"
#include "os/file.h"
#include <stdio.h>
#include <zstd.h>

enum { CALL_MS = 90000, STALL_MS = 120000, BACKOFF_BASE_MS = 200, BACKOFF_CAP_MS = 2000, SECRET_MAX = 16384 };

struct pt_ctl_api {
	struct pt_http_client *http;
	char *url, *shown; /* without a slash at its end; the same without a password */
	char *authorization;
	char *ca; /* a file or its base64; NULL = the system's only */
	int64_t patience_ms;
	bool told; /* that a call is tried again */
};

static const struct pt_field login_fields[] = {
	PT_F(struct pt_ctl_login, url, PT_T_STR, PT_REQUIRED, .max = 4096),
	PT_F(struct pt_ctl_login, token, PT_T_STR, PT_REQUIRED | PT_SECRET, .max = SECRET_MAX),
	PT_F(struct pt_ctl_login, ca_file, PT_T_STR, 0, .max = 1 << 20),
};
const struct pt_shape pt_ctl_login_shape = PT_SHAPE("login", struct pt_ctl_login, login_fields);

static void login_release(struct pt_ctl_login *l)
{
	if (l->token)
		explicit_bzero(l->token, strlen(l->token));
	pt_shape_release(&pt_ctl_login_shape, l);
}

int pt_ctl_login_path(const struct pt_ctl_target *t, struct pt_buf *out, struct pt_err *err)
{
	const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");

	if (t->config)
		pt_buf_str(out, t->config);
	else if (xdg && xdg[0] == '/') /* the specification: a relative path is ignored */
		pt_buf_fmt(out, "%s/postern/ctl.json", xdg);
	else if (home && home[0])
		pt_buf_fmt(out, "%s/.config/postern/ctl.json", home);
	else {
		(void)pt_fail(err, PT_E_INVALID, "no place for the login file: HOME is not set");
		return pt_hint(err, "set POSTERN_CTL_CONFIG to a file");
	}
	return pt_buf_done(out, err);
}

/* What login wrote; nothing (0, *ret empty) when there was no login. */
static int login_read(const struct pt_ctl_target *t, struct pt_ctl_login *ret, struct pt_err *err)
{
	pt_auto_buf path = PT_BUF_INIT(8192), text = PT_BUF_INIT(2 << 20);
	int rc = pt_ctl_login_path(t, &path, err);

	if (rc < 0)
		return t->url ? PT_OK : rc;
	rc = pt_file_read(path.p, &text, err);
	if (rc == PT_E_NOT_FOUND && !t->config)
		return PT_OK;
	if (rc >= 0)
		rc = pt_err_wrap(err, pt_shape_parse(&pt_ctl_login_shape, text.p, text.len, ret, err), "'%s'", path.p);
	explicit_bzero(text.p, text.len);
	if (rc < 0 && rc != PT_E_NOT_FOUND)
		return pt_hint(err, "write it again: postern ctl login --url URL");
	return rc == PT_E_NOT_FOUND ? PT_OK : rc;
}

int pt_ctl_token_file(const char *path, struct pt_buf *out, struct pt_err *err)
{
	static const char blank[] = " \t\r\n";
	pt_auto_buf text = PT_BUF_INIT(SECRET_MAX);
	int rc = pt_file_read(path, &text, err);
	const char *s = text.p + strspn(text.p, blank);
	size_t n = strlen(s);

	if (rc < 0)
		return pt_err_wrap(err, rc, "API token");
	while (n && strchr(blank, s[n - 1]))
		n--;
	if (!n || strcspn(s, blank) < n)
		rc = pt_fail(err, PT_E_INVALID, "'%s' does not hold one API token", path);
	else
		pt_buf_add(out, s, n);
	explicit_bzero(text.p, text.len);
	return rc < 0 ? rc : pt_buf_done(out, err);
}

static int set_url(struct pt_ctl_api *api, const char *url, struct pt_err *err)
{
	pt_auto_buf shown = PT_BUF_INIT(8192);
	struct pt_url parsed;
	size_t n = strlen(url);
	int rc = pt_url_parse(url, &parsed, err);

	if (rc < 0 || (strcmp(parsed.scheme, "http") != 0 && strcmp(parsed.scheme, "https") != 0)) {
		pt_buf_clear(&shown);
		pt_url_masked(url, &shown);
		(void)pt_fail(err, PT_E_INVALID, "'%s' is not the URL of a gateway", shown.p);
		return pt_hint(err, "write it as https://gateway.example.com");
	}
	while (n && url[n - 1] == '/')
		n--;
	api->url = strndup(url, n);
	if (!api->url)
		return pt_fail_oom(err);
	pt_url_masked(api->url, &shown);
	api->shown = pt_buf_detach(&shown, NULL);
	return api->shown ? PT_OK : pt_fail_oom(err);
}

/* Was this login made at this very gateway? */
static bool same_gateway(const struct pt_ctl_api *api, const struct pt_ctl_login *l)
{
	size_t n = strlen(api->url);

	return l->url && strncmp(l->url, api->url, n) == 0 && l->url[n + strspn(l->url + n, "/")] == '\0';
}

/* Token: a file named here, the variable, then the one that was stored for this gateway. */
static int set_token(struct pt_ctl_api *api, const struct pt_ctl_target *t, const struct pt_ctl_login *l, struct pt_err *err)
{
	pt_auto_buf header = PT_BUF_INIT(SECRET_MAX + 32);
	int rc = PT_OK;

	pt_buf_str(&header, "Authorization: Bearer ");
	if (t->token_file)
		rc = pt_ctl_token_file(t->token_file, &header, err);
	else if (t->token)
		pt_buf_str(&header, t->token);
	else if (same_gateway(api, l))
		pt_buf_str(&header, l->token);
	else {
		(void)pt_fail(err, PT_E_UNAUTHENTICATED, "no API token for %s", api->shown);
		return pt_hint(err, "postern ctl login --url %.120s, or set POSTERN_API_TOKEN_FILE", api->shown);
	}
	if (rc == PT_E_NOT_FOUND)
		return pt_hint(err, "--token-file names the file that holds an API token; without it 'postern ctl login' counts");
	if (rc < 0)
		return rc;
	if (strpbrk(header.p, "\r\n"))
		return pt_fail(err, PT_E_INVALID, "the API token has a line break in it");
	api->authorization = pt_buf_detach(&header, NULL);
	return api->authorization ? PT_OK : pt_fail_oom(err);
}

static int open_with(struct pt_ctl_api *api, const struct pt_ctl_target *t, struct pt_ctl_login *l, struct pt_err *err)
{
	struct pt_http_client_conf conf = {
		.https_proxy = t->https_proxy, .http_proxy = t->http_proxy, .no_proxy = t->no_proxy, .user_agent = "postern-ctl"
	};
	int rc;

	if (!t->url && !l->url) {
		(void)pt_fail(err, PT_E_INVALID, "no gateway is known");
		return pt_hint(err, "log in first: postern ctl login --url URL, or set POSTERN_GATEWAY_URL");
	}
	rc = set_url(api, t->url ? t->url : l->url, err);
	if (rc >= 0)
		rc = set_token(api, t, l, err);
	if (rc < 0)
		return rc;
	if (t->ca) {
		api->ca = strdup(t->ca);
		if (!api->ca)
			return pt_fail_oom(err);
	} else if (same_gateway(api, l)) {
		api->ca = pt_steal(&l->ca_file);
	}
	conf.ca = api->ca;
	return pt_http_client_new(&api->http, &conf, err);
}

int pt_ctl_api_open(struct pt_ctl_api **ret, const struct pt_ctl_target *t, struct pt_err *err)
{
	struct pt_ctl_api *api = calloc(1, sizeof(*api));
	struct pt_ctl_login l = { 0 };
	int rc;

	if (!api)
		return pt_fail_oom(err);
	api->patience_ms = t->retry_ms;
	rc = t->url && (t->token || t->token_file)
		     ? PT_OK
		     : login_read(t, &l, err); /* a broken file stops nobody who needs nothing of it */
	if (rc >= 0)
		rc = open_with(api, t, &l, err);
	login_release(&l);
	if (rc < 0) {
		pt_ctl_api_free(api);
		return rc;
	}
	*ret = api;
	return PT_OK;
}

void pt_ctl_api_free(struct pt_ctl_api *api)
{
	if (!api)
		return;
	pt_http_client_free(api->http);
	if (api->authorization)
		explicit_bzero(api->authorization, strlen(api->authorization));
	free(api->authorization);
	free(api->url);
	free(api->shown);
	free(api->ca);
	free(api);
}

const char *pt_ctl_api_url(const struct pt_ctl_api *api)
{
	return api->shown;
}

void pt_ctl_api_agent(const struct pt_ctl_api *api, struct pt_buf *out)
{
	pt_buf_fmt(out, "postern agent --gateway-url %s --token-file token.json", api->shown);
	if (api->ca) /* what is no file is given as base64 */
		pt_buf_fmt(out, " --ca-file %s", access(api->ca, F_OK) == 0 ? api->ca : "FILE");
}

void pt_ctl_api_patience(struct pt_ctl_api *api, int64_t ms)
{
	if (api->patience_ms && api->patience_ms < ms)
		api->patience_ms = ms;
}

void pt_ctl_answer_release(struct pt_ctl_answer *a)
{
	pt_buf_release(&a->text);
	json_decref(a->doc);
	a->doc = NULL;
}

const char *pt_ctl_path(struct pt_buf *out, const char *collection, const char *name, const char *rest)
{
	pt_buf_clear(out);
	pt_buf_fmt(out, "/api/v1/%s/", collection);
	pt_url_encode(out, name, strlen(name));
	pt_buf_str(out, rest);
	return out->p;
}

/* --- calls --- */

/* An error of the connection, told with the gateway's URL. */
static int unreachable(const struct pt_ctl_api *api, int rc, struct pt_err *err)
{
	(void)pt_err_wrap(err, rc, "%s %s",
			  rc == PT_E_CONNECTION_LOST ? "lost the connection to the gateway at" : "cannot reach gateway at",
			  api->shown);
	if (!err->hint[0])
		(void)pt_hint(err, "is it running there? The URL comes from --url, POSTERN_GATEWAY_URL or postern ctl login");
	return rc;
}

/* Turn an answer of 300 and above into an error; what a user of ctl can do about it is told where the gateway does not. */
static int refused(const struct pt_ctl_api *api, const struct pt_http_call *call, const struct pt_buf *body, struct pt_err *err)
{
	int rc = pt_http_error_of(call, body, err);

	if (rc == PT_E_UNAUTHENTICATED && !err->hint[0])
		(void)pt_hint(err, "the token is wrong, expired or revoked: postern ctl login --url %.120s", api->shown);
	if (rc == PT_E_DENIED && !err->hint[0])
		(void)pt_hint(err, "`postern ctl whoami` shows your role");
	return rc;
}

static int join_url(const struct pt_ctl_api *api, const char *path, struct pt_buf *url, struct pt_err *err)
{
	pt_buf_fmt(url, "%s%s", api->url, path);
	return pt_buf_done(url, err);
}

static int call_once(struct pt_ctl_api *api, const struct pt_ctl_call *call, const struct pt_buf *body, struct pt_ctl_answer *ret,
		     int64_t *retry_after_ms, struct pt_err *err)
{
	pt_auto_buf url = PT_BUF_INIT(16384), key = PT_BUF_INIT(1024);
	const char *headers[5] = { api->authorization, "Accept: application/json" };
	struct pt_http_call http = {
		.method = call->method, .headers = headers, .out = &ret->text, .timeout_ms = CALL_MS, .cancel = call->cancel
	};
	size_t n = 2;
	int rc = join_url(api, call->path, &url, err);

	if (rc < 0)
		return rc;
	http.url = url.p;
	if (call->body) {
		headers[n++] = "Content-Type: application/json";
		http.body = body->p;
		http.body_size = (int64_t)body->len;
	}
	if (call->idempotency_key) {
		pt_buf_fmt(&key, "Idempotency-Key: %s", call->idempotency_key);
		headers[n] = key.p;
	}
	pt_buf_clear(&ret->text);
	rc = pt_http_do(api->http, &http, err);
	*retry_after_ms = pt_http_retry_after(&http);
	ret->status = http.status;
	if (rc < 0)
		return rc == PT_E_CANCELLED || rc == PT_E_TOO_LARGE ? rc : unreachable(api, rc, err);
	if (http.status >= 300)
		return refused(api, &http, &ret->text, err);
	if (!ret->text.len)
		return PT_OK;
	rc = pt_json_parse(ret->text.p, ret->text.len, &ret->doc, err);
	if (rc < 0) {
		(void)pt_fail(err, PT_E_PROTOCOL, "%s answered with something that is not JSON", api->shown);
		return pt_hint(err, "is this the URL of a Postern gateway, and does no proxy answer in its place?");
	}
	return PT_OK;
}

/* Trying again, as long as it makes sense. */
struct again {
	struct pt_ctl_api *api;
	struct pt_backoff backoff;
	int64_t end;     /* pt_mono_ms() */
	bool repeatable; /* also when it may have been done already */
	const struct pt_cancel *cancel;
};

static struct again again_begin(struct pt_ctl_api *api, bool repeatable, const struct pt_cancel *cancel)
{
	return (struct again) { .api = api,
				.backoff = PT_BACKOFF_INIT(BACKOFF_BASE_MS, BACKOFF_CAP_MS, 0),
				.end = pt_mono_ms() + api->patience_ms,
				.repeatable = repeatable,
				.cancel = cancel };
}

static bool passing(const struct again *a, enum pt_code code)
{
	if (code == PT_E_CONNECT) /* nothing was sent */
		return true;
	return a->repeatable && (code == PT_E_CONNECTION_LOST || code == PT_E_UNAVAILABLE || code == PT_E_TIMEOUT ||
				 code == PT_E_LIMIT || code == PT_E_PROXY);
}

/* After a failure in err: 0 when it is time to try again, else what to give up with. */
static int again_wait(struct again *a, int64_t retry_after_ms, struct pt_err *err)
{
	int64_t now = pt_mono_ms(), wait = pt_backoff_fail(&a->backoff, retry_after_ms);
	struct pt_err late = { 0 };
	char left[32];
	int rc;

	if (!passing(a, err->code) || now + wait >= a->end)
		return err->code;
	if (!a->api->told) {
		pt_time_span(a->end - now, left);
		fprintf(stderr, "%s\nTrying again for %s (--retry-for).\n", err->msg, left);
	}
	a->api->told = true;
	rc = pt_cancel_poll(a->cancel, -1, 0, (int)wait, &late);
	if (rc == PT_E_TIMEOUT)
		return PT_OK;
	*err = late; /* cancelled while waiting */
	return rc;
}

int pt_ctl_call(struct pt_ctl_api *api, const struct pt_ctl_call *call, struct pt_ctl_answer *ret, struct pt_err *err)
{
	bool repeatable = call->repeatable || strcmp(call->method, "GET") == 0 || call->idempotency_key;
	struct again again = again_begin(api, repeatable, call->cancel);
	pt_auto_buf body = PT_BUF_INIT(16u << 20);
	int rc;

	if (call->body)
		pt_json_write(&body, call->body);
	rc = pt_buf_done(&body, err);
	if (rc < 0)
		return rc;
	json_decref(ret->doc);
	ret->doc = NULL;
	for (;;) {
		int64_t retry_after = 0;

		rc = call_once(api, call, &body, ret, &retry_after, err);
		if (rc < 0)
			rc = again_wait(&again, retry_after, err);
		else
			return rc;
		if (rc < 0)
			return rc;
	}
}

int pt_ctl_get_path(struct pt_ctl_api *api, struct pt_ctl_answer *ret, struct pt_err *err, const char *fmt, ...)
{
	pt_auto_buf path = PT_BUF_INIT(8192);
	va_list ap;
	int n;

	va_start(ap, fmt);
	if (pt_buf_room(&path, 4096)) {
		n = vsnprintf(path.p, 4096, fmt, ap);
		path.len = n > 0 && n < 4096 ? (size_t)n : 0;
	}
	va_end(ap);
	return pt_ctl_call(api, &(struct pt_ctl_call) { .method = "GET", .path = path.p }, ret, err);
}

int pt_ctl_post(struct pt_ctl_api *api, const char *path, json_t *body, const char *key, struct pt_ctl_answer *ret,
		struct pt_err *err)
{
	int rc;

	if (!body) /* jansson takes nothing else into a string */
		return pt_fail(err, PT_E_INVALID, "an argument is not valid UTF-8");
	rc = pt_ctl_call(api, &(struct pt_ctl_call) { .method = "POST", .path = path, .body = body, .idempotency_key = key }, ret,
			 err);
	json_decref(body);
	return rc;
}

/* --- a body of any size --- */

struct stream {
	int (*on_data)(void *arg, const char *p, size_t n, struct pt_err *err);
	void *arg;
	ZSTD_DStream *zstd;
	bool compressed, open_frame, begun;
	char *out;
};

static void stream_header(void *arg, const char *name, const char *value)
{
	struct stream *s = arg;

	if (strcmp(name, "content-encoding") == 0)
		s->compressed = strcmp(value, "zstd") == 0;
}

static int stream_data(void *arg, const char *data, size_t n, struct pt_err *err)
{
	struct stream *s = arg;
	ZSTD_inBuffer in = { data, n, 0 };
	bool full = false; /* the decoder may hold more than fitted into out */

	s->begun = true;
	if (!s->compressed)
		return s->on_data(s->arg, data, n, err);
	if (!s->zstd && !(s->zstd = ZSTD_createDStream()))
		return pt_fail_oom(err);
	while (in.pos < in.size || (full && s->open_frame)) {
		ZSTD_outBuffer out = { s->out, ZSTD_DStreamOutSize(), 0 };
		size_t left = ZSTD_decompressStream(s->zstd, &out, &in);
		int rc = PT_OK;

		if (ZSTD_isError(left))
			return pt_fail(err, PT_E_CORRUPT, "the result does not decompress: %s", ZSTD_getErrorName(left));
		s->open_frame = left != 0;
		full = out.pos == out.size;
		if (out.pos)
			rc = s->on_data(s->arg, s->out, out.pos, err);
		if (rc < 0)
			return rc;
	}
	return PT_OK;
}

int pt_ctl_stream(struct pt_ctl_api *api, const char *path,
		  int (*on_data)(void *arg, const char *p, size_t n, struct pt_err *err), void *arg, struct pt_err *err)
{
	pt_auto_buf url = PT_BUF_INIT(16384), refusal = PT_BUF_INIT(65536);
	const char *headers[] = { api->authorization, "Accept-Encoding: zstd", NULL };
	struct stream s = { .on_data = on_data, .arg = arg, .out = malloc(ZSTD_DStreamOutSize()) };
	struct pt_http_call http = { .method = "GET",
				     .headers = headers,
				     .out = &refusal,
				     .on_data = stream_data,
				     .arg = &s,
				     .on_header = stream_header,
				     .stall_timeout_ms = STALL_MS };
	struct again again = again_begin(api, true, NULL);
	int rc = s.out ? join_url(api, path, &url, err) : pt_fail_oom(err);
	bool more = rc >= 0;

	http.url = url.p;
	while (more) {
		pt_buf_clear(&refusal);
		rc = pt_http_do(api->http, &http, err);
		if (rc == PT_E_CONNECTION_LOST || rc == PT_E_CONNECT || rc == PT_E_TIMEOUT)
			rc = unreachable(api, rc, err);
		else if (rc >= 0 && http.status >= 300)
			rc = refused(api, &http, &refusal, err);
		else if (rc >= 0 && s.open_frame)
			rc = pt_fail(err, PT_E_CONNECTION_LOST, "the result ends early");
		more = rc < 0 && !s.begun && (rc = again_wait(&again, pt_http_retry_after(&http), err)) == 0;
	}
	ZSTD_freeDStream(s.zstd);
	free(s.out);
	return rc;
}
