/* A request from its first line to its end: MHD's callbacks, all on MHD's thread of the connection, and the accessors.
 *
 * MHD calls pt_http_on_request() when the headers are in, for each piece of the body, when the body is complete, and once more
 * after a held request was resumed.  It takes a response only in the first and the last two of these: a refusal in
 * the middle of a body goes straight to the socket (pt_http_send_raw) and the rest is drained for a moment, because a
 * close with unread bytes would reset the connection and take the response away from the client. */
#include "net/http_server_priv.h"
#include "base/clock.h"

/* --- the parts of the URL --- */

void *pt_http_on_uri(void *cls, const char *uri, struct MHD_Connection *c)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct pt_http_req *r = info ? info->socket_context : NULL;

	if (!r)
		return NULL;
	r->uri = uri;
	r->bad = NULL;
	r->start_ns = pt_mono_ns();
	atomic_store(&r->since_ms, r->start_ns / 1000000);
	if (!pt_http_phase_move(r, PT_PH_IDLE, PT_PH_RECV))
		pt_http_phase_move(r, PT_PH_FRESH, PT_PH_RECV);
	return r;
}

/* The path stays as it came (a "%2F" must not become a separator); the arguments are decoded in place. */
size_t pt_http_on_unescape(void *cls, struct MHD_Connection *c, char *s)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct pt_http_req *r = info ? info->socket_context : NULL;
	size_t n = strlen(s);

	if (!r || s == r->uri)
		return n;
	if (!pt_http_unescape(s, n, &n))
		r->bad = "an argument of the query is not well encoded";
	return n;
}

static bool plain_path(const char *p)
{
	if (*p != '/')
		return false;
	for (; *p; p++)
		if ((unsigned char)*p <= 0x20 || *p == 0x7f)
			return false;
	return true;
}

/* Copy and decode the values of the path's parameters; the escapes of the other segments are checked by the way. */
static int params(struct pt_http_req *r, const struct pt_http_match *m, struct pt_err *err)
{
	size_t need = 0;
	char *out = r->param_text;

	for (unsigned i = 0; i < m->n; i++)
		need += m->values[i].n + 1;
	if (need > sizeof(r->param_text)) {
		out = r->param_heap = malloc(need);
		if (!out)
			return pt_fail_oom(err);
	}
	for (unsigned i = 0; i < m->n; i++) {
		size_t n = m->values[i].n;

		memcpy(out, m->values[i].p, n);
		if (!pt_http_unescape(out, n, &n) || strpbrk(out, "\t\r\n"))
			return pt_fail(err, PT_E_INVALID, "the path is not well encoded");
		r->names[i] = m->names[i];
		r->values[i] = out;
		out += n + 1;
	}
	r->n_params = m->n;
	return PT_OK;
}

/* --- the steps --- */

/* All checks that need no body.  < 0: refuse. */
static int check(struct pt_http_req *r, const char *version, struct pt_err *err)
{
	struct pt_http_match m;
	char allow[120];
	int rc;

	pt_http_strict(r, version);
	if (r->bad) {
		r->close = true;
		return pt_fail(err, PT_E_INVALID, "malformed request: %s", r->bad);
	}
	if (r->headers_over) /* past MHD, which has too little of its pool left for a response */
		return pt_fail(err, PT_E_HEADERS, "the request's headers take more than %d bytes", PT_HTTP_HEADERS_MAX);
	if (!plain_path(r->path)) {
		r->close = true;
		return pt_fail(err, PT_E_INVALID, "malformed request: the path has a byte that is not allowed");
	}
	rc = pt_http_routes_find(r->s->routes, r->method, r->path, &m, allow, sizeof(allow));
	if (rc == PT_E_METHOD) {
		pt_http_set_header(r, "Allow", allow);
		return pt_fail(err, PT_E_METHOD, "%s is not possible here", r->method);
	}
	if (rc < 0) {
		pt_fail(err, PT_E_NOT_FOUND, "nothing is at %.200s", r->path);
		return PT_E_NOT_FOUND;
	}
	r->route = m.route;
	rc = params(r, &m, err);
	if (rc < 0)
		return rc;
	if (r->expected && !r->route->body_max)
		return pt_fail(err, PT_E_INVALID, "%s %s takes no body", r->method, r->route->path);
	if (r->expected > 0 && (uint64_t)r->expected > r->route->body_max)
		return pt_fail(err, PT_E_TOO_LARGE, "the body has %lld bytes, %zu are allowed", (long long)r->expected,
			       r->route->body_max);
	return PT_OK;
}

/* After a handler returned: give the reply to MHD, or suspend until there is one. */
static enum MHD_Result settle(struct pt_http_req *r)
{
	struct pt_http_lock *l = pt_http_lock_of(r->s, r->slot);
	bool replied, stopping;

	pthread_mutex_lock(&l->m);
	replied = r->replied;
	stopping = atomic_load(&r->s->stopping);
	pt_assert(replied || r->holding); /* a handler replies or holds */
	if (!replied && !stopping) {
		MHD_suspend_connection(r->mhd);
		r->suspended = true;
		atomic_fetch_add(&r->s->held, 1);
	}
	pthread_mutex_unlock(&l->m);
	if (!replied && !stopping) {
		/* The reply may come from here on, but what it wakes is this thread: r stays until we return. */
		if (r->gone)
			pt_http_watch_add(r);
		return MHD_YES;
	}
	if (!replied) {
		struct pt_err err = { 0 };

		if (r->gone)
			r->gone(r->gone_arg);
		pt_fail(&err, PT_E_UNAVAILABLE, "the server is stopping");
		pt_http_reply_err(r, &err);
	}
	return pt_http_queue(r);
}

/* A reply was given before the body was there. */
static enum MHD_Result settle_early(struct pt_http_req *r, bool first)
{
	bool small = !r->close && !r->expect && r->expected >= 0 && (uint64_t)r->expected - r->got <= PT_HTTP_SMALL_REST;

	if ((!r->expected || small) && !r->headers_over)
		return MHD_YES; /* read the rest first: keeps the connection */
	r->close = true;
	if (first && !r->headers_over && (r->expect || r->reply.stream))
		return pt_http_queue(r); /* the client waits for us, or there is no other way */
	if (!pt_http_phase_move(r, PT_PH_RECV, PT_PH_LINGER))
		return MHD_NO;
	atomic_store(&r->since_ms, pt_mono_ms());
	return pt_http_send_raw(r) ? MHD_YES : first ? pt_http_queue(r) : MHD_NO;
}

static enum MHD_Result refuse(struct pt_http_req *r, const struct pt_err *err, bool first)
{
	if (r->close)
		pt_http_set_header(r, "Connection", "close");
	pt_http_reply_err(r, err);
	return settle_early(r, first);
}

static enum MHD_Result complete(struct pt_http_req *r)
{
	r->body_done = true;
	if (atomic_load(&r->phase) == PT_PH_LINGER)
		return MHD_NO; /* all is drained */
	if (!pt_http_phase_move(r, PT_PH_RECV, PT_PH_BUSY))
		return MHD_NO; /* the watcher found it too slow a moment ago */
	if (r->replied)
		return pt_http_queue(r); /* refused, and its small rest is read */
	r->ended = true;
	if (r->route->handle)
		r->route->handle(r, r->s->conf.ctx);
	else
		r->route->end(r, r->s->conf.ctx);
	return settle(r);
}

static enum MHD_Result first_call(struct pt_http_req *r, const char *version)
{
	struct pt_err err = { 0 };

	r->seen = true;
	atomic_fetch_add_explicit(&r->s->open, 1, memory_order_relaxed);
	if (check(r, version, &err) < 0)
		return refuse(r, &err, true);
	if (r->route->begin) {
		int rc = r->route->begin(r, r->s->conf.ctx, &err);

		if (rc < 0)
			return refuse(r, &err, true);
		if (r->replied)
			return settle_early(r, true);
		r->begun = true;
	} else if (r->expected) {
		r->body.max = r->route->body_max + 1;
		if (r->expected > 0)
			(void)pt_buf_room(&r->body, (size_t)r->expected); /* one allocation; a failure sticks and shows below */
	}
	return MHD_YES; /* also without a body: MHD closes after a response that is queued now */
}

/* A large body that comes steadily is not a slow client: what has come moves the start of its time, but never past now. */
static void earn_time(struct pt_http_req *r, size_t n)
{
	int64_t now, start;

	if ((r->got ^ (r->got - n)) >> 16 == 0)
		return; /* look at the clock once for 64 KiB */
	now = pt_mono_ms();
	start = r->start_ns / 1000000 + (int64_t)(r->got / PT_HTTP_LEAST_RATE);
	atomic_store(&r->since_ms, start < now ? start : now);
}

static enum MHD_Result body_piece(struct pt_http_req *r, const char *data, size_t n)
{
	struct pt_err err = { 0 };
	int rc = PT_OK;

	r->got += n;
	if (atomic_load_explicit(&r->phase, memory_order_relaxed) == PT_PH_RECV)
		earn_time(r, n);
	if (r->replied)
		return MHD_YES; /* refused: drain */
	if (r->got > r->route->body_max)
		rc = pt_fail(&err, PT_E_TOO_LARGE, "the body has more than the allowed %zu bytes", r->route->body_max);
	else if (r->route->begin)
		rc = r->route->chunk(r, r->s->conf.ctx, data, n, &err);
	else {
		pt_buf_add(&r->body, data, n);
		rc = pt_buf_done(&r->body, &err);
	}
	return rc < 0 ? refuse(r, &err, false) : MHD_YES;
}

enum MHD_Result pt_http_on_request(void *cls, struct MHD_Connection *c, const char *url, const char *method, const char *version,
				   const char *data, size_t *n, void **con_cls)
{
	struct pt_http_req *r = *con_cls;
	size_t got = *n;

	if (!r)
		return MHD_NO;
	if (!r->seen) {
		r->method = method;
		r->path = url;
		return first_call(r, version);
	}
	if (got) {
		*n = 0;
		return body_piece(r, data, got);
	}
	return r->body_done ? pt_http_queue(r) : complete(r);
}

void pt_http_on_completed(void *cls, struct MHD_Connection *c, void **con_cls, enum MHD_RequestTerminationCode why)
{
	struct pt_http_req *r = *con_cls;
	struct pt_http_server *s = cls;
	struct pt_http_lock *l;
	struct pt_http_reply rest;
	bool cut;

	if (!r)
		return;
	l = pt_http_lock_of(s, r->slot);
	pthread_mutex_lock(&l->m);
	while (r->gone_running)
		pthread_cond_wait(&l->gone_done, &l->m);
	rest = r->reply;
	r->reply = (struct pt_http_reply) { 0 };
	r->replied = r->holding = r->suspended = r->gone_told = false;
	r->gone = NULL;
	/* Under the lock: from here on the watcher does not write to this connection (its TLS session may go). */
	cut = atomic_load(&r->phase) == PT_PH_CUT;
	if (!cut)
		atomic_store(&r->phase, PT_PH_IDLE);
	pthread_mutex_unlock(&l->m);
	pt_http_reply_release(&rest);
	if (r->seen) {
		int64_t now = pt_mono_ns();
		int status = r->sent_status || !cut ? r->sent_status : 408;

		atomic_store(&r->since_ms, now / 1000000);
		if (r->begun && !r->ended && r->route->abort)
			r->route->abort(r, s->conf.ctx);
		if (s->conf.done)
			s->conf.done(s->conf.ctx, r->route, status, (now - r->start_ns) / 1000, r->bytes_out);
		if (r->data && r->data_free)
			r->data_free(r->data);
		atomic_fetch_sub(&s->open, 1);
	}
	pt_buf_release(&r->body);
	pt_buf_release(&r->headers);
	free(r->param_heap);
	r->param_heap = NULL;
	r->data = NULL;
	r->data_free = NULL;
	r->route = NULL;
	r->n_params = 0;
	r->got = r->bytes_out = 0;
	r->expected = 0;
	r->sent_status = 0;
	r->seen = r->chunked = r->expect = r->begun = r->ended = r->headers_over = r->close = r->body_done = false;
	*con_cls = NULL;
}

/* --- accessors --- */

const struct pt_http_route *pt_http_req_route(const struct pt_http_req *r)
{
	return r->route;
}

const char *pt_http_method(const struct pt_http_req *r)
{
	return r->method;
}

const char *pt_http_path(const struct pt_http_req *r)
{
	return r->path;
}

const char *pt_http_param(const struct pt_http_req *r, const char *name)
{
	size_t n = strlen(name);

	for (unsigned i = 0; i < r->n_params; i++)
		if (r->names[i].n == n && memcmp(r->names[i].p, name, n) == 0)
			return r->values[i];
	return NULL;
}

const char *pt_http_query(const struct pt_http_req *r, const char *name)
{
	const char *v = NULL;

	if (MHD_lookup_connection_value_n(r->mhd, MHD_GET_ARGUMENT_KIND, name, strlen(name), &v, NULL) != MHD_YES)
		return NULL;
	return v ? v : "";
}

struct each {
	int (*fn)(void *arg, const char *name, const char *value);
	void *arg;
	int rc;
};

static enum MHD_Result each_argument(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct each *e = cls;

	e->rc = e->fn(e->arg, name, value ? value : "");
	return e->rc < 0 ? MHD_NO : MHD_YES;
}

int pt_http_query_each(struct pt_http_req *r, int (*fn)(void *arg, const char *name, const char *value), void *arg)
{
	struct each e = { fn, arg, 0 };

	MHD_get_connection_values(r->mhd, MHD_GET_ARGUMENT_KIND, each_argument, &e);
	return e.rc < 0 ? e.rc : PT_OK;
}

const char *pt_http_header(const struct pt_http_req *r, const char *name)
{
	return MHD_lookup_connection_value(r->mhd, MHD_HEADER_KIND, name);
}

const char *pt_http_body(const struct pt_http_req *r, size_t *ret_n)
{
	if (ret_n)
		*ret_n = r->body.len;
	return r->body.p;
}

void pt_http_drop_body(struct pt_http_req *r)
{
	pt_buf_release(&r->body);
}

bool pt_http_crowded(const struct pt_http_req *r)
{
	return r->crowded;
}

const char *pt_http_peer(const struct pt_http_req *r)
{
	return r->peer;
}

int64_t pt_http_body_expected(const struct pt_http_req *r)
{
	return r->expected;
}

void pt_http_set_data(struct pt_http_req *r, void *data, void (*free_fn)(void *))
{
	r->data = data;
	r->data_free = free_fn;
}

void pt_http_hold(struct pt_http_req *r, void (*gone)(void *arg), void *arg)
{
	struct pt_http_lock *l = pt_http_lock_of(r->s, r->slot);

	pthread_mutex_lock(&l->m);
	r->holding = true;
	r->gone = gone;
	r->gone_arg = arg;
	pthread_mutex_unlock(&l->m);
}

void *pt_http_data(const struct pt_http_req *r)
{
	return r->data;
}
