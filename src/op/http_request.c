/* http.request: one HTTP request into the network, its response as the result's document.  Whatever status came, the operation
 * succeeded: the status is the answer. */
#include "op/doc.h"
#include "op/fetch.h"
#include <strings.h>

enum {
	REQUEST_TIMEOUT_MS = 30000,
	MOST_TIMEOUT_MS = 840000,
	BODY_MAX = 1 << 20,
	MAX_BYTES = 512 * 1024,
	MOST_BYTES = 1 << 20,
	/* What a response's body may take in the document as text: a result's head is at most 1 MiB (docs/protocol.md). */
	BODY_TEXT_MAX = 800 * 1024,
	MOST_HEADERS = 100,
	HEADER_BYTES = 32 * 1024,
};

struct request_input {
	char *url, *method;
	json_t *headers;
	char *body;
	json_t *body_json;
	int64_t timeout_ms, max_bytes;
	char *response;
	bool follow;
};
static const char *const methods[] = { "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", NULL };
static const char *const forms[] = { "text", "json", "base64", NULL };
static const struct pt_field request_fields[] = {
	PT_F(struct request_input, url, PT_T_STR, PT_REQUIRED, .max = 8192, .help = "http:// or https://"),
	PT_F(struct request_input, method, PT_T_STR, 0, .values = methods, .help = "GET"),
	PT_F(struct request_input, headers, PT_T_JSON, PT_STRING_MAP, .help = "object of strings"),
	PT_F(struct request_input, body, PT_T_STR, 0, .max = BODY_MAX, .help = "text to send"),
	PT_F(struct request_input, body_json, PT_T_JSON, 0, .max = BODY_MAX, .help = "document to send, in place of body"),
	PT_F(struct request_input, timeout_ms, PT_T_I64, 0, .min = 1, .max = MOST_TIMEOUT_MS, .def = REQUEST_TIMEOUT_MS),
	PT_F(struct request_input, max_bytes, PT_T_I64, 0, .min = 1, .max = MOST_BYTES, .def = MAX_BYTES,
	     .help = "of the response's body"),
	PT_F(struct request_input, response, PT_T_STR, 0, .values = forms,
	     .help = "how the body is given: text, json, base64; text"),
	PT_F(struct request_input, follow, PT_T_BOOL, 0, .help = "follow up to 5 redirects; false"),
};
static const struct pt_shape request_shape = PT_SHAPE("input", struct request_input, request_fields);

/* These decide how the message is framed or where it goes, which is the client's business. */
static const char *const own_headers[] = { "connection", "content-length",      "expect",           "host",
					   "keep-alive", "proxy-authorization", "proxy-connection", "te",
					   "trailer",    "transfer-encoding",   "upgrade" };

static bool is_token(const char *s) /* RFC 9110, 5.6.2 */
{
	size_t n = strspn(s, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");

	return n && !s[n];
}

static int check_headers(const json_t *headers, struct pt_err *err)
{
	size_t bytes = 0;
	const char *name;
	json_t *value;

	if (json_object_size(headers) > MOST_HEADERS)
		return pt_fail(err, PT_E_INVALID, "headers: more than %d", MOST_HEADERS);
	json_object_foreach ((json_t *)(uintptr_t)headers, name, value) {
		const char *s = json_string_value(value);

		if (!is_token(name))
			return pt_fail(err, PT_E_INVALID, "headers: '%.60s' is not a header name", name);
		for (size_t i = 0; i < json_string_length(value); i++)
			if (((unsigned char)s[i] < ' ' && s[i] != '\t') || s[i] == 0x7f)
				return pt_fail(err, PT_E_INVALID, "headers: %.60s: holds a control character", name);
		for (size_t i = 0; i < PT_COUNT(own_headers); i++)
			if (strcasecmp(name, own_headers[i]) == 0)
				return pt_fail(err, PT_E_INVALID, "headers: %s cannot be set", name);
		bytes += strlen(name) + json_string_length(value) + 4;
	}
	return bytes > HEADER_BYTES ? pt_fail(err, PT_E_INVALID, "headers: more than %d bytes", HEADER_BYTES) : PT_OK;
}

/* null counts as absent, as it does for the other members */
static const json_t *body_json(const struct request_input *in)
{
	return json_is_null(in->body_json) ? NULL : in->body_json;
}

static int request_check(const void *input, struct pt_err *err)
{
	const struct request_input *in = input;
	const char *method = in->method ? in->method : "GET";
	int rc = pt_fetch_url_check("url", in->url, err);

	if (rc == 0)
		rc = check_headers(in->headers, err);
	if (rc < 0)
		return rc;
	if (in->body && body_json(in))
		return pt_fail(err, PT_E_INVALID, "body and body_json: only one of them");
	if ((in->body || body_json(in)) && (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0))
		return pt_fail(err, PT_E_INVALID, "a %s request has no body", method);
	return PT_OK;
}

struct request {
	char *lines[MOST_HEADERS + 2]; /* "Name: value", NULL-terminated */
	size_t n;
	struct pt_buf json; /* body_json as text */
};

static void request_release(struct request *r)
{
	for (size_t i = 0; i < r->n; i++)
		free(r->lines[i]);
	pt_buf_release(&r->json);
}

static int add_line(struct request *r, const char *name, const char *value, struct pt_err *err)
{
	/* libcurl sends a header without a value only when it ends in ';' */
	int n = *value ? asprintf(&r->lines[r->n], "%s: %s", name, value) : asprintf(&r->lines[r->n], "%s;", name);

	if (n < 0) {
		r->lines[r->n] = NULL;
		return pt_fail_oom(err);
	}
	r->n++;
	return PT_OK;
}

static int prepare(const struct request_input *in, struct request *r, struct pt_err *err)
{
	bool typed = false;
	const char *name;
	json_t *value;
	int rc = PT_OK;

	json_object_foreach (in->headers, name, value) {
		typed |= strcasecmp(name, "content-type") == 0;
		rc = rc == 0 ? add_line(r, name, json_string_value(value), err) : rc;
	}
	if (rc == 0 && !typed && (in->body || body_json(in)))
		rc = add_line(r, "Content-Type", body_json(in) ? "application/json" : "text/plain; charset=utf-8", err);
	if (rc == 0 && body_json(in)) {
		pt_json_write(&r->json, body_json(in));
		rc = pt_err_wrap(err, pt_buf_done(&r->json, err), "body_json");
	}
	return rc;
}

static void write_headers(const struct pt_fetch *f, struct pt_buf *b)
{
	const struct pt_fetch_header *h = f->response.items;

	pt_doc_open(b, "headers", '{');
	for (size_t i = 0; i < f->response.n; i++) {
		pt_auto_buf all = PT_BUF_INIT(128 * 1024);
		bool seen = false;

		for (size_t k = 0; k < i; k++)
			seen |= strcmp(h[k].name, h[i].name) == 0;
		if (seen)
			continue;
		for (size_t k = i; k < f->response.n; k++)
			if (strcmp(h[k].name, h[i].name) == 0) {
				/* cookies hold commas: RFC 6265, 3 */
				if (k > i)
					pt_buf_str(&all, strcmp(h[k].name, "set-cookie") == 0 ? "\n" : ", ");
				pt_buf_str(&all, h[k].value);
			}
		pt_doc_key(b, h[i].name);
		pt_buf_json(b, all.p, all.len);
	}
	pt_buf_chr(b, '}');
}

/* n bytes of text as a JSON string of at most BODY_TEXT_MAX bytes.  Returns how many went in. */
static size_t write_text(struct pt_buf *b, const char *p, size_t n)
{
	for (;;) {
		pt_auto_buf text = PT_BUF_INIT(8 << 20);

		pt_doc_text(&text, NULL, p, n);
		if (!text.bad && text.len <= BODY_TEXT_MAX) {
			pt_buf_add(b, text.p, text.len);
			return n;
		}
		if (!n) { /* out of memory */
			b->bad = PT_E_INTERNAL;
			return 0;
		}
		n = n / 4 * 3;
	}
}

static bool write_json(struct pt_buf *b, const struct pt_buf *data, struct pt_err *why)
{
	pt_auto_buf text = PT_BUF_INIT(BODY_TEXT_MAX + 1);
	json_t *j = NULL;
	int rc = pt_json_parse(data->p, data->len, &j, why);

	if (rc == 0) {
		pt_json_write(&text, j);
		rc = pt_buf_done(&text, why);
	}
	json_decref(j);
	if (rc < 0)
		return false;
	pt_doc_key(b, "body");
	pt_buf_add(b, text.p, text.len);
	return true;
}

static void write_body(struct pt_fetch *f, const char *form, struct pt_buf *b)
{
	struct pt_err why;

	if (strcmp(form, "base64") == 0) {
		size_t most = BODY_TEXT_MAX / 4 * 3, n = f->data.len < most ? f->data.len : most;

		f->truncated |= n < f->data.len;
		pt_doc_key(b, "body");
		pt_buf_chr(b, '"');
		pt_buf_base64(b, f->data.p, n);
		pt_buf_chr(b, '"');
	} else if (strcmp(form, "json") != 0) {
		pt_doc_key(b, "body");
		f->truncated |= write_text(b, f->data.p, f->data.len) < f->data.len;
	} else if (f->data.len && !write_json(b, &f->data, &why)) {
		/* an error page, say: the request had its effect, so its answer is given as it is */
		pt_doc_str(b, "body_error", why.msg);
		pt_doc_key(b, "body_text");
		f->truncated |= write_text(b, f->data.p, f->data.len) < f->data.len;
	}
	pt_doc_bool(b, "truncated", f->truncated);
}

static int request_run(struct pt_op_run *run, const void *input, struct pt_err *err)
{
	const struct request_input *in = input;
	pt_auto(request_release) struct request r = { .json = PT_BUF_INIT(BODY_MAX + 1) };
	int64_t start = pt_mono_ns(), max = in->max_bytes, limit = run->lease->limits.max_bytes;
	pt_auto_buf b = PT_DOC_INIT;
	int rc = prepare(in, &r, err);
	pt_auto(pt_fetch_release) struct pt_fetch f = { .run = run,
							.method = in->method ? in->method : "GET",
							.url = in->url,
							.headers = (const char *const *)r.lines,
							.body = in->body        ? in->body
								: body_json(in) ? r.json.p
										: NULL,
							.body_size = in->body ? (int64_t)strlen(in->body) : (int64_t)r.json.len,
							.timeout_ms = (int)in->timeout_ms,
							.follow = in->follow,
							.max_bytes = (size_t)(limit > 0 && limit < max ? limit : max) };

	if (rc == 0)
		rc = pt_fetch_do(&f, err);
	if (rc < 0)
		return rc;
	pt_doc_open(&b, NULL, '{');
	pt_doc_int(&b, "status", f.call.status);
	pt_doc_str(&b, "url", f.final_url);
	write_headers(&f, &b);
	write_body(&f, in->response ? in->response : "text", &b);
	pt_doc_ms(&b, "ms", (pt_mono_ns() - start) / 1000);
	pt_buf_chr(&b, '}');
	return pt_doc_done(run, &b, err);
}

const struct pt_op_type pt_op_http_request = { .name = "http.request",
					       .summary = "an HTTP request, its response as a document",
					       .input = &request_shape,
					       .input_size = sizeof(struct request_input),
					       .check = request_check,
					       .run = request_run };
