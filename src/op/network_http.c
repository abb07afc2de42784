/* network.http: does a URL answer, through which address, and where does the time go?  The body is read (up to a limit) to time
 * it, and thrown away. */
#include "op/doc.h"
#include "op/fetch.h"

enum { HTTP_TIMEOUT_MS = 10000, MOST_TIMEOUT_MS = 120000, READ_MOST = 1 << 20 };

struct http_input {
	char *url, *method;
	int64_t timeout_ms, expect_status;
};
static const char *const methods[] = { "GET", "HEAD", NULL };
static const struct pt_field http_fields[] = {
	PT_F(struct http_input, url, PT_T_STR, PT_REQUIRED, .max = 8192, .help = "http:// or https://"),
	PT_F(struct http_input, method, PT_T_STR, 0, .values = methods, .help = "GET or HEAD; GET"),
	PT_F(struct http_input, timeout_ms, PT_T_I64, 0, .min = 1, .max = MOST_TIMEOUT_MS, .def = HTTP_TIMEOUT_MS),
	PT_F(struct http_input, expect_status, PT_T_I64, 0, .min = 100, .max = 599, .help = "ok only with this status"),
};
static const struct pt_shape http_shape = PT_SHAPE("input", struct http_input, http_fields);

static int http_check(const void *input, struct pt_err *err)
{
	return pt_fetch_url_check("url", ((const struct http_input *)input)->url, err);
}

/* A response with a status that was not wanted is an error of the check. */
static int judge(const struct http_input *in, const struct pt_fetch *f, struct pt_err *err)
{
	char status[8];

	if (!in->expect_status || f->call.status == in->expect_status)
		return PT_OK;
	snprintf(status, sizeof(status), "%d", f->call.status);
	(void)pt_fail(err, PT_E_PROTOCOL, "status %s, expected %lld", status, (long long)in->expect_status);
	pt_native(err, status);
	return PT_E_PROTOCOL;
}

static int http_run(struct pt_op_run *run, const void *input, struct pt_err *err)
{
	const struct http_input *in = input;
	pt_auto(pt_fetch_release) struct pt_fetch f = { .run = run,
							.method = in->method ? in->method : "GET",
							.url = in->url,
							.timeout_ms = (int)in->timeout_ms,
							.max_bytes = READ_MOST };
	int64_t start = pt_mono_ns();
	pt_auto_buf b = PT_DOC_INIT;
	int rc = pt_fetch_do(&f, err);

	if (rc == 0)
		rc = judge(in, &f, err);
	if (rc < 0 && !pt_check_is_answer(err->code))
		return rc;
	pt_doc_open(&b, NULL, '{');
	pt_doc_bool(&b, "ok", rc == 0);
	pt_doc_str(&b, "url", f.final_url);
	if (f.call.status)
		pt_doc_int(&b, "status", f.call.status);
	pt_doc_bool(&b, "proxied", f.proxied);
	pt_doc_str(&b, "peer", f.call.peer);
	pt_doc_str(&b, "content_type", f.call.content_type);
	pt_doc_str(&b, "location", pt_fetch_header(&f, "location"));
	if (f.call.status) {
		pt_doc_int(&b, "size", (int64_t)f.data.len);
		pt_doc_bool(&b, "truncated", f.truncated);
	}
	pt_doc_ms(&b, "dns_ms", f.call.dns_us);
	pt_doc_ms(&b, "connect_ms", f.call.connect_us);
	pt_doc_ms(&b, "tls_ms", f.call.tls_us);
	pt_doc_ms(&b, "ttfb_ms", f.call.ttfb_us);
	pt_doc_ms(&b, "ms", (pt_mono_ns() - start) / 1000);
	if (rc < 0)
		pt_doc_err(&b, "error", err);
	pt_buf_chr(&b, '}');
	return pt_doc_done(run, &b, err);
}

const struct pt_op_type pt_op_network_http = { .name = "network.http",
					       .summary = "does a URL answer, and where does the time go?",
					       .input = &http_shape,
					       .input_size = sizeof(struct http_input),
					       .check = http_check,
					       .run = http_run };
