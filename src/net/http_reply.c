/* Replies: stored by whoever answers, handed to MHD by the connection's own thread. */
#include "net/http_server_priv.h"
#include "base/log.h"
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>

enum { STREAM_BLOCK = 32 * 1024, RAW_MAX = 64 * 1024 };

void pt_http_reply_release(struct pt_http_reply *rep)
{
	free(rep->body);
	if (rep->stream && rep->free_fn)
		rep->free_fn(rep->arg);
	*rep = (struct pt_http_reply) { 0 };
}

bool pt_http_deliver_locked(struct pt_http_req *r, struct pt_http_reply *rep)
{
	if (r->replied)
		return false;
	r->reply = *rep;
	r->replied = true;
	if (r->suspended) {
		r->suspended = false;
		atomic_fetch_sub(&r->s->held, 1);
		MHD_resume_connection(r->mhd);
	}
	return true;
}

static void deliver(struct pt_http_req *r, struct pt_http_reply *rep)
{
	struct pt_http_lock *l = pt_http_lock_of(r->s, r->slot);
	bool taken;

	pthread_mutex_lock(&l->m);
	taken = pt_http_deliver_locked(r, rep);
	pthread_mutex_unlock(&l->m); /* r may be gone: only the lock and rep from here on */
	if (!taken)
		pt_http_reply_release(rep); /* the server stops and has answered in the holder's place */
}

static void set_type(struct pt_http_reply *rep, const char *type)
{
	snprintf(rep->type, sizeof(rep->type), "%s", type ? type : "");
}

static void oom(struct pt_http_req *r)
{
	struct pt_http_reply rep = { .status = 500 };

	deliver(r, &rep);
}

void pt_http_reply(struct pt_http_req *r, int status, const char *content_type, const void *body, size_t n)
{
	struct pt_http_reply rep = { .status = status, .n = n };

	set_type(&rep, content_type);
	if (n && !(rep.body = malloc(n))) {
		oom(r);
		return;
	}
	if (n)
		memcpy(rep.body, body, n);
	deliver(r, &rep);
}

void pt_http_reply_buf(struct pt_http_req *r, int status, const char *content_type, struct pt_buf *b)
{
	struct pt_http_reply rep = { .status = status };

	set_type(&rep, content_type);
	if (b->len)
		rep.body = pt_buf_detach(b, &rep.n);
	pt_buf_release(b);
	deliver(r, &rep);
}

void pt_http_reply_json(struct pt_http_req *r, int status, struct pt_buf *b)
{
	struct pt_err err = { 0 };

	if (pt_buf_done(b, &err) < 0) {
		pt_buf_release(b);
		pt_err_wrap(&err, PT_E_INTERNAL, "the answer could not be written");
		err.code = PT_E_INTERNAL;
		pt_http_reply_err(r, &err);
		return;
	}
	pt_http_reply_buf(r, status, "application/json", b);
}

void pt_http_reply_stream(struct pt_http_req *r, int status, const char *content_type, int64_t size,
			  ssize_t (*read)(void *arg, char *buf, size_t max), void (*free_fn)(void *arg), void *arg)
{
	struct pt_http_reply rep = { .status = status,
				     .stream = true,
				     .known_size = size >= 0,
				     .size = size < 0 ? 0 : (uint64_t)size,
				     .read = read,
				     .free_fn = free_fn,
				     .arg = arg };

	set_type(&rep, content_type);
	deliver(r, &rep);
}

/* --- errors --- */

static void error_document(const struct pt_err *err, struct pt_buf *b)
{
	pt_buf_str(b, "{\"error\":{\"code\":\"");
	pt_buf_str(b, pt_code_wire(err->code));
	pt_buf_str(b, "\",\"message\":");
	pt_buf_json(b, err->msg, strlen(err->msg));
	if (err->hint[0]) {
		pt_buf_str(b, ",\"hint\":");
		pt_buf_json(b, err->hint, strlen(err->hint));
	}
	pt_buf_str(b, ",\"retryable\":");
	pt_buf_str(b, pt_code_retryable(err->code) ? "true" : "false");
	if (err->native[0]) {
		pt_buf_str(b, ",\"native_code\":");
		pt_buf_json(b, err->native, strlen(err->native));
	}
	pt_buf_str(b, "}}\n");
}

static void write_error(struct pt_http_server *s, const struct pt_err *err, struct pt_buf *b)
{
	(s->conf.write_error ? s->conf.write_error : error_document)(err, b);
}

static bool header_set(const struct pt_http_req *r, const char *name)
{
	const char *p = r->headers.p, *end = p + r->headers.len;

	for (bool is_name = true; p < end; p += strlen(p) + 1, is_name = !is_name)
		if (is_name && strcasecmp(p, name) == 0)
			return true;
	return false;
}

void pt_http_reply_err(struct pt_http_req *r, const struct pt_err *err)
{
	int status = pt_code_http(err->code);
	pt_auto_buf b = PT_BUF_INIT(8192);

	if (status == 401) {
		pt_http_set_header(r, "WWW-Authenticate", "Bearer realm=\"postern\"");
		pt_http_set_header(r, "WWW-Authenticate", "Basic realm=\"postern\", charset=\"UTF-8\"");
	}
	if ((status == 429 || status == 503) && !header_set(r, "Retry-After"))
		pt_http_set_header(r, "Retry-After", "1");
	write_error(r->s, err, &b);
	pt_http_reply_buf(r, status, "application/json", &b);
}

void pt_http_set_header(struct pt_http_req *r, const char *name, const char *value)
{
	/* Both or neither: what does not fit is left out. */
	if (!pt_buf_room(&r->headers, strlen(name) + strlen(value) + 2)) {
		r->headers.bad = PT_OK;
		pt_warn("a response header does not fit and is left out", "header", name);
		return;
	}
	pt_buf_add(&r->headers, name, strlen(name) + 1);
	pt_buf_add(&r->headers, value, strlen(value) + 1);
}

/* --- handing over to MHD --- */

struct stream {
	struct pt_http_req *r;
	ssize_t (*read)(void *arg, char *buf, size_t max);
	void (*free_fn)(void *arg);
	void *arg;
	bool known_size;
	uint64_t size;
};

static ssize_t stream_read(void *cls, uint64_t pos, char *buf, size_t max)
{
	struct stream *st = cls;
	ssize_t n;

	if (st->known_size && st->size - pos < max)
		max = (size_t)(st->size - pos);
	n = st->read(st->arg, buf, max);
	if (n < 0 || (size_t)n > max || (n == 0 && st->known_size))
		return MHD_CONTENT_READER_END_WITH_ERROR;
	st->r->bytes_out += (uint64_t)n;
	return n ? n : MHD_CONTENT_READER_END_OF_STREAM;
}

static void stream_free(void *cls)
{
	struct stream *st = cls;

	if (st->free_fn)
		st->free_fn(st->arg);
	free(st);
}

/* Takes the body or the stream out of the reply. */
static struct MHD_Response *response(struct pt_http_req *r, struct pt_http_reply *rep)
{
	struct MHD_Response *resp = NULL;

	if (rep->stream) {
		struct stream *st = malloc(sizeof(*st));

		if (!st)
			return NULL;
		*st = (struct stream) { r, rep->read, rep->free_fn, rep->arg, rep->known_size, rep->size };
		resp = MHD_create_response_from_callback(rep->known_size ? rep->size : MHD_SIZE_UNKNOWN, STREAM_BLOCK,
							 stream_read, st, stream_free);
		if (resp)
			rep->stream = false;
		else
			free(st);
	} else if (rep->n) {
		resp = MHD_create_response_from_buffer(rep->n, rep->body, MHD_RESPMEM_MUST_FREE);
		if (resp)
			rep->body = NULL;
	} else {
		resp = MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT);
	}
	return resp;
}

enum MHD_Result pt_http_queue(struct pt_http_req *r)
{
	struct pt_http_reply *rep = &r->reply; /* replied: nobody else touches it any more */
	struct MHD_Response *resp = response(r, rep);
	const char *p = r->headers.p, *end = p + r->headers.len;
	enum MHD_Result rc;

	if (!resp)
		return MHD_NO;
	if (rep->type[0])
		MHD_add_response_header(resp, "Content-Type", rep->type);
	if (!r->headers.len || !header_set(r, "Cache-Control"))
		MHD_add_response_header(resp, "Cache-Control", "no-store");
	MHD_add_response_header(resp, "X-Content-Type-Options", "nosniff");
	while (p < end) {
		const char *value = p + strlen(p) + 1;

		if (MHD_add_response_header(resp, p, value) != MHD_YES)
			pt_warn("a response header is not well formed and is left out", "header", p);
		p = value + strlen(value) + 1;
	}
	if ((r->crowded || atomic_load_explicit(&r->s->quiet, memory_order_relaxed)) &&
	    !(r->headers.len && header_set(r, "Connection")))
		MHD_add_response_header(resp, "Connection", "close");
	rc = MHD_queue_response(r->mhd, (unsigned)rep->status, resp);
	if (rc == MHD_YES) {
		r->sent_status = rep->status;
		if (!rep->read && strcmp(r->method, "HEAD") != 0)
			r->bytes_out = rep->n;
	}
	MHD_destroy_response(resp);
	return rc;
}

/* --- past MHD --- */

void pt_http_raw_write(struct pt_http_req *r, const void *p, size_t n)
{
	/* It fits the empty socket buffer; when it does not, the client gets a part and then the end. */
	if (r->tls)
		(void)gnutls_record_send(r->tls, p, n);
	else
		(void)send(r->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void raw_head(struct pt_buf *b, int status, const char *type, size_t n)
{
	pt_buf_fmt(b, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Length: %zu\r\n", status,
		   MHD_get_reason_phrase_for((unsigned)status), n);
	if (type[0])
		pt_buf_fmt(b, "Content-Type: %s\r\n", type);
	pt_buf_str(b, "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n");
}

bool pt_http_send_raw(struct pt_http_req *r)
{
	struct pt_http_reply *rep = &r->reply;
	const char *p = r->headers.p, *end = p + r->headers.len;
	bool head = strcmp(r->method, "HEAD") == 0;
	pt_auto_buf b = PT_BUF_INIT(RAW_MAX + 8192);

	if (rep->stream || rep->n > RAW_MAX)
		return false;
	raw_head(&b, rep->status, rep->type, rep->n);
	while (p < end) {
		const char *value = p + strlen(p) + 1;

		if (strcasecmp(p, "Connection") != 0 && strcasecmp(p, "Cache-Control") != 0 && !strpbrk(value, "\r\n"))
			pt_buf_fmt(&b, "%s: %s\r\n", p, value);
		p = value + strlen(value) + 1;
	}
	pt_buf_str(&b, "\r\n");
	if (!head)
		pt_buf_add(&b, rep->body, rep->n);
	pt_http_raw_write(r, b.p, b.len);
	if (r->tls)
		(void)gnutls_bye(r->tls, GNUTLS_SHUT_WR);
	(void)shutdown(r->fd, SHUT_WR);
	r->sent_status = rep->status;
	r->bytes_out = head ? 0 : rep->n;
	return true;
}

void pt_http_error_text(struct pt_http_server *s, enum pt_code code, const char *msg, struct pt_buf *out)
{
	struct pt_err err = { 0 };

	pt_fail(&err, code, "%s", msg);
	write_error(s, &err, out);
}

void pt_http_raw_error(struct pt_http_server *s, enum pt_code code, const char *msg, struct pt_buf *out)
{
	pt_auto_buf doc = PT_BUF_INIT(4096);

	pt_http_error_text(s, code, msg, &doc);
	raw_head(out, pt_code_http(code), "application/json", doc.len);
	pt_buf_str(out, "\r\n");
	pt_buf_add(out, doc.p, doc.len);
}
