/* Results: the agent's PUT (head line, then the body, streamed) and the client's GET of the body. */
#include "base/id.h"
#include "base/json_write.h"
#include "base/log.h"
#include "gateway/internal.h"
#include <stdio.h>
#include <sys/stat.h>
#include <zstd.h>

enum { HEAD_MAX = 1024 * 1024 };
static const int64_t RESULT_MAX = INT64_C(64) << 30;

/* --- PUT --- */

struct upload {
	struct pt_call c; /* first: job, request, caller, answer */
	struct pt_result_head head;
	struct pt_buf head_text, body; /* body: while it is small */
	bool head_done;
	int64_t got;                   /* body bytes so far */
	struct pt_blob_writer *blob;
	char *blob_name;
	bool ran; /* put_run() succeeded: only its commit may have failed */
	struct pt_verify *verify;
	char operation[PT_ID_SIZE];
	int64_t attempt;
	struct pt_delivery d;
};

static void upload_free(void *p)
{
	struct upload *u = p;

	pt_shape_release(&pt_result_head_shape, &u->head);
	pt_buf_release(&u->head_text);
	pt_buf_release(&u->body);
	pt_blob_abort(u->blob);
	pt_verify_free(u->verify);
	free(u->blob_name);
	pt_buf_release(&u->c.out);
	free(u);
}

static void upload_fail(struct upload *u, const struct pt_err *err)
{
	if (pt_code_http(err->code) == 500)
		pt_log_err(PT_LOG_ERROR, "cannot take a result", err, "operation", u->operation, "attempt", pt_num(u->attempt));
	pt_http_reply_err(u->c.req, err); /* the request's end frees u */
}

static int begin(struct pt_http_req *r, void *ctx, struct pt_err *err)
{
	const char *attempt = pt_http_param(r, "n"), *id = pt_http_param(r, "id");
	struct pt_caller who;
	struct upload *u;
	char *end = NULL;
	long long n = strtoll(attempt, &end, 10);
	int rc = pt_authenticate(ctx, r, PT_ROLE_AGENT, &who, err);

	if (rc < 0 || (rc = pt_check_query(r, pt_http_req_route(r)->meta, err)) < 0)
		return rc;
	if (!pt_id_valid(id, "op") || end == attempt || *end || n < 1 || n > 1000000)
		return pt_fail(err, PT_E_NOT_FOUND, "no such attempt");
	if (pt_http_body_expected(r) < 0)
		return pt_fail(err, PT_E_INVALID, "Content-Length is missing");
	u = calloc(1, sizeof(*u));
	if (!u)
		return pt_fail_oom(err);
	u->c = (struct pt_call){ .g = ctx, .req = r, .route = pt_http_req_route(r)->meta, .who = who, .status = 200,
				 .out = PT_BUF_INIT(16 * 1024 * 1024) };
	u->head_text = (struct pt_buf)PT_BUF_INIT(HEAD_MAX);
	u->body = (struct pt_buf)PT_BUF_INIT(PT_INLINE_BODY + 1);
	pt_id_copy(u->operation, id);
	u->attempt = n;
	pt_http_set_data(r, u, upload_free);
	return PT_OK;
}

static int body_bytes(struct upload *u, const char *p, size_t n, struct pt_err *err)
{
	int rc;

	if (u->got + (int64_t)n > u->head.body_size)
		return pt_fail(err, PT_E_INVALID, "the body is longer than body_size = %lld", (long long)u->head.body_size);
	u->got += (int64_t)n;
	if ((!u->verify && (rc = pt_verify_begin(&u->head, &u->verify, err)) < 0) || (rc = pt_verify_update(u->verify, p, n, err)) < 0)
		return rc;
	if (u->head.body_size <= PT_INLINE_BODY) {
		pt_buf_add(&u->body, p, n);
		return pt_buf_done(&u->body, err);
	}
	if (!u->blob)
		rc = pt_blob_begin(u->c.g, &u->blob, err);
	return rc < 0 ? rc : pt_blob_write(u->blob, p, n, err);
}

int pt_check_head(const struct pt_result_head *head, struct pt_err *err)
{
	if (strcmp(head->status, "succeeded") != 0 && !head->error.code)
		return pt_fail(err, PT_E_INVALID, "result head: status '%s' needs an error", head->status);
	if (head->body_size < 0 || head->body_size > RESULT_MAX || (head->body_size && !head->body_format))
		return pt_fail(err, PT_E_INVALID, "result head: body_size and body_format do not fit");
	return PT_OK;
}

static int parse_head(struct upload *u, struct pt_err *err)
{
	int rc = pt_shape_parse(&pt_result_head_shape, u->head_text.p, u->head_text.len, &u->head, err);

	if (rc < 0)
		return pt_err_wrap(err, rc, "result head");
	if ((rc = pt_check_head(&u->head, err)) < 0)
		return rc;
	u->head_done = true;
	return PT_OK;
}

static int chunk(struct pt_http_req *r, void *ctx, const void *data, size_t n, struct pt_err *err)
{
	struct upload *u = pt_http_data(r);
	const char *p = data, *nl;
	int rc;

	(void)ctx;
	if (!u->head_done) {
		nl = memchr(p, '\n', n);
		pt_buf_add(&u->head_text, p, nl ? (size_t)(nl - p) : n);
		if ((rc = pt_buf_done(&u->head_text, err)) < 0)
			return pt_err_wrap(err, rc, "result head");
		if (!nl)
			return PT_OK;
		if ((rc = parse_head(u, err)) < 0)
			return rc;
		n -= (size_t)(nl + 1 - p);
		p = nl + 1;
	}
	return n ? body_bytes(u, p, n, err) : PT_OK;
}

static int put_run(struct pt_tx *tx, struct pt_write_job *job, struct pt_err *err)
{
	struct upload *u = pt_container_of(pt_container_of(job, struct pt_call, job), struct upload, c);
	struct pt_result_response a = { .accepted = true };
	int rc;

	u->d = (struct pt_delivery) { .agent = u->c.who.agent,
				      .operation = u->operation,
				      .attempt = u->attempt,
				      .head = &u->head,
				      .head_text = u->head_text.p,
				      .blob = u->blob_name };
	if (u->body.len)
		u->d.body = (struct pt_bytes) { (unsigned char *)u->body.p, u->body.len };
	rc = pt_deliver(u->c.g, tx, &u->d, err);
	if (rc == 0 && !u->d.refused.code)
		rc = pt_refill(u->c.g, tx, u->d.agent, u->head.instance, &a.leases, err);
	a.duplicate = u->d.duplicate;
	u->ran = rc == 0;
	if (rc == 0)
		pt_shape_write(&pt_result_response_shape, &a, &u->c.out);
	pt_shape_release(&pt_result_response_shape, &a);
	return rc;
}

static void put_done(struct pt_write_job *job, int rc)
{
	struct upload *u = pt_container_of(pt_container_of(job, struct pt_call, job), struct upload, c);
	bool named = u->ran && !u->d.refused.code && !u->d.duplicate && !u->d.again; /* a row names its blob */

	if (u->blob_name && named && rc < 0 && !pt_db_undone(&job->err))
		pt_blob_unsure(u->c.g, u->blob_name);
	else if (u->blob_name && (!named || rc < 0))
		pt_blob_remove(u->c.g, u->blob_name);
	if (rc < 0 || u->d.refused.code)
		upload_fail(u, rc < 0 ? &job->err : &u->d.refused);
	else
		pt_http_reply_json(u->c.req, 200, &u->c.out);
}

static void end(struct pt_http_req *r, void *ctx)
{
	struct upload *u = pt_http_data(r);
	struct pt_gateway *g = ctx;
	struct pt_err err = { 0 };
	int rc = PT_OK;

	if (!u->head_done || u->got != u->head.body_size)
		rc = pt_fail(&err, PT_E_INVALID, "the result ends early: %lld of %lld body bytes", (long long)u->got,
			     (long long)u->head.body_size);
	if (rc == 0 && u->verify)
		rc = pt_verify_end(u->verify, &err);
	if (rc == 0 && u->blob)
		rc = pt_blob_commit(u->blob, &u->blob_name, &err);
	if (rc == 0 && !pt_gateway_enter(g))
		rc = pt_gateway_closed(&err);
	if (rc < 0) {
		upload_fail(u, &err);
		return;
	}
	u->c.job.run = put_run;
	u->c.job.done = put_done;
	pt_http_hold(r, NULL, NULL);
	pt_writer_submit(u->c.g->writer, &u->c.job);
	pt_gateway_leave(g);
}

static void aborted(struct pt_http_req *r, void *ctx)
{
	(void)r; /* the request's end frees the upload, and with it the part of a blob */
	(void)ctx;
}

const struct pt_http_route pt_api_result_stream = {
	.body_max = SIZE_MAX / 2, .begin = begin, .chunk = chunk, .end = end, .abort = aborted
};

/* --- GET --- */

struct download {
	struct pt_rec_result res;
	int fd;              /* -1: the body is in res.body */
	int64_t at;
	ZSTD_DStream *zstd;  /* NULL: as stored */
	char in[16384];
	ZSTD_inBuffer zin;
	bool drained, whole; /* all stored bytes are read; a frame is complete */
};

static void download_free(void *p)
{
	struct download *d = p;

	pt_rec_result_release(&d->res);
	pt_closep(&d->fd);
	ZSTD_freeDStream(d->zstd);
	free(d);
}

static ssize_t stored_bytes(struct download *d, char *buf, size_t max)
{
	ssize_t n;

	if (d->fd >= 0) {
		do
			n = pread(d->fd, buf, max, d->at);
		while (n < 0 && errno == EINTR);
	} else {
		size_t left = d->res.body.n - (size_t)d->at;

		n = (ssize_t)(left < max ? left : max);
		if (n)
			memcpy(buf, d->res.body.p + d->at, (size_t)n);
	}
	if (n > 0)
		d->at += n;
	return n;
}

static ssize_t download_read(void *arg, char *buf, size_t max)
{
	struct download *d = arg;
	ZSTD_outBuffer out = { .dst = buf, .size = max };

	if (!d->zstd)
		return stored_bytes(d, buf, max);
	while (out.pos == 0) {
		size_t rc;

		if (d->zin.pos == d->zin.size && !d->drained) {
			ssize_t n = stored_bytes(d, d->in, sizeof(d->in));

			if (n < 0)
				return -1;
			d->drained = n == 0;
			d->zin = (ZSTD_inBuffer){ .src = d->in, .size = (size_t)n };
		}
		if (d->drained && d->whole)
			return 0;
		rc = ZSTD_decompressStream(d->zstd, &out, &d->zin);
		if (ZSTD_isError(rc))
			return -1;
		d->whole = rc == 0;
		if (out.pos == 0 && d->drained && !d->whole)
			return -1; /* a frame that stops early is not the whole result */
	}
	return (ssize_t)out.pos;
}

static bool takes_zstd(const char *accept)
{
	for (const char *p = accept; p && (p = strstr(p, "zstd")); p += 4)
		if ((p == accept || p[-1] == ' ' || p[-1] == ',') && strncmp(p + 4, ";q=0", 4) != 0)
			return true;
	return false;
}

static int open_body(struct pt_call *c, struct download *d, struct pt_result_head *h, struct pt_err *err)
{
	pt_auto(pt_tx_rollbackp) struct pt_tx *tx = NULL;
	pt_auto_rec(operation) op = { 0 };
	int rc = pt_db_begin(c->g->db, false, &tx, err);

	if (rc < 0 || (rc = pt_find_operation(tx, c->who.account, pt_http_param(c->req, "id"), &op, err)) < 0)
		return rc;
	pt_id_copy(d->res.operation, op.id);
	d->res.attempt = op.attempt;
	rc = pt_tx_get(tx, &pt_results, &d->res, err);
	if (rc == PT_E_NOT_FOUND || (rc == 0 && !d->res.head)) {
		(void)pt_fail(err, PT_E_NOT_FOUND, "operation %s is %s and has no result", op.id,
			      pt_op_state_name((enum pt_op_state)op.state));
		return pt_hint(err, pt_op_terminal((enum pt_op_state)op.state) ? "GET the operation: its error says why"
									       : "GET the operation with ?wait=60 first");
	}
	if (rc < 0 || (rc = pt_shape_parse(&pt_result_head_shape, d->res.head, strlen(d->res.head), h, err)) < 0)
		return rc;
	if (!h->body_format) {
		(void)pt_fail(err, PT_E_NOT_FOUND, "the result of %s has no body", op.id);
		return pt_hint(err, "GET the operation: result.document or error has all of it");
	}
	return d->res.blob ? pt_blob_open(c->g, d->res.blob, &d->fd, err) : PT_OK;
}

void pt_api_operations_result(struct pt_call *c)
{
	struct download *d = calloc(1, sizeof(*d));
	struct pt_result_head h = { 0 };
	struct pt_err err = { 0 };
	bool packed, as_stored;
	int rc = PT_E_INTERNAL;

	if (!d)
		(void)pt_fail_oom(&err);
	else {
		d->fd = -1;
		rc = open_body(c, d, &h, &err);
	}
	packed = rc == 0 && h.body_size && h.body_encoding && strcmp(h.body_encoding, "zstd") == 0;
	as_stored = !packed || takes_zstd(pt_http_header(c->req, "Accept-Encoding"));
	if (rc == 0 && !as_stored)
		rc = pt_zstd_reader(&d->zstd, &err);
	if (rc < 0) {
		if (d)
			download_free(d);
		pt_shape_release(&pt_result_head_shape, &h);
		pt_call_fail(c, &err);
		return;
	}
	if (packed && as_stored)
		pt_http_set_header(c->req, "Content-Encoding", "zstd");
	pt_http_set_header(c->req, "Vary", "Accept-Encoding");
	if (h.body_sha256)
		pt_http_set_header(c->req, "X-Postern-SHA256", h.body_sha256);
	/* Unpacked size: as the agent said, or unknown. */
	pt_http_reply_stream(c->req, 200, "application/jsonl",
			     as_stored ? h.body_size
			     : h.bytes ? h.bytes
				       : -1,
			     download_read, download_free, d);
	pt_shape_release(&pt_result_head_shape, &h);
	pt_call_free(c);
}

/* --- who am I, as an agent --- */

int pt_api_ping(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	pt_auto_rec(agent) a = { 0 };
	int rc;

	pt_id_copy(a.id, c->who.agent);
	if ((rc = pt_tx_get(tx, &pt_agents, &a, err)) < 0)
		return rc;
	pt_jw_open(&c->out, NULL, '{');
	pt_jw_bool(&c->out, "ok", true);
	pt_jw_str(&c->out, "agent", a.id);
	pt_jw_str(&c->out, "agent_name", a.name);
	pt_jw_bool(&c->out, "enabled", a.enabled);
	pt_jw_i64(&c->out, "server_time", pt_gateway_now(c->g));
	pt_jw_close(&c->out, '}');
	return PT_OK;
}
