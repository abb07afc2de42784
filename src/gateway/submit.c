/* Submitting operations: one by one, and many with one request.  Both go the same way: what needs no database is done on the HTTP
 * thread, because the writer's time is everybody's; then each operation is a job of the writer, undone alone when it fails. */
#include "base/id.h"
#include "base/json_write.h"
#include "base/log.h"
#include "gateway/internal.h"
#include "op/op.h"

/* An operation on its way in. */
struct submission {
	struct pt_operation_new *in;        /* the caller's, and outlives it */
	struct pt_buf input, labels, retry; /* as they are stored; retry: empty when it is the default */
	const char *key;                    /* idempotency key, borrowed; NULL = none */
	char digest[65];                    /* of what was asked for, when there is a key */
};

static void submission_release(struct submission *s)
{
	pt_buf_release(&s->input);
	pt_buf_release(&s->labels);
	pt_buf_release(&s->retry);
}

/* The digest is one of the meaning: neither spaces nor the order of members count, nor does how the operation came. */
static int take_key(struct submission *s, const char *header, struct pt_err *err)
{
	pt_auto_buf text = PT_BUF_INIT(4 * 1024 * 1024);
	char *own = s->in->idempotency_key;
	int rc;

	if (header && own && strcmp(header, own) != 0)
		return pt_fail(err, PT_E_INVALID, "idempotency_key: differs from the header Idempotency-Key");
	if (header && (!*header || strlen(header) > 255))
		return pt_fail(err, PT_E_INVALID, "Idempotency-Key: must have 1 to 255 bytes");
	s->key = header ? header : own;
	if (!s->key)
		return PT_OK;
	s->in->idempotency_key = NULL;
	pt_shape_write(&pt_operation_new_shape, s->in, &text);
	s->in->idempotency_key = own;
	if ((rc = pt_buf_done(&text, err)) < 0)
		return rc;
	pt_sha256_hex(text.p, text.len, s->digest);
	return PT_OK;
}

static void store_retry(const struct pt_retry *r, struct pt_buf *out)
{
	struct pt_retry kept = *r; /* borrows the list */

	kept.max_attempts = 0; /* has a column of its own */
	if (kept.backoff_ms || kept.max_backoff_ms || kept.on.n)
		pt_shape_write(&pt_retry_shape, &kept, out);
}

/* s->in is decoded; the rest is filled here, and released by the caller also after a failure. */
static int prepare(struct submission *s, const char *header, struct pt_err *err)
{
	struct pt_operation_new *in = s->in;
	int rc;

	s->input = (struct pt_buf)PT_BUF_INIT(1536 * 1024);
	s->labels = (struct pt_buf)PT_BUF_INIT(64 * 1024); /* more than their shape allows */
	s->retry = (struct pt_buf)PT_BUF_INIT(1024 * 1024);
	if ((rc = pt_operation_new_check(in, err)) < 0 || (rc = take_key(s, header, err)) < 0)
		return rc;
	store_retry(&in->retry, &s->retry);
	pt_operation_new_defaults(in);
	if ((rc = pt_op_check(in->type, in->input, in->integration != NULL, err)) < 0)
		return rc;
	pt_json_write(&s->input, in->input);
	if (in->labels)
		pt_json_write(&s->labels, in->labels);
	rc = pt_buf_done(&s->input, err);
	if (rc == 0)
		rc = pt_buf_done(&s->retry, err);
	return rc < 0 ? rc : pt_buf_done(&s->labels, err);
}

static int resolve_target(const struct pt_caller *who, struct pt_tx *tx, const struct pt_operation_new *in,
			  struct pt_rec_operation *op, struct pt_err *err)
{
	pt_auto_rec(agent) a = { 0 };
	pt_auto_rec(integration) i = { 0 };
	int rc;

	if (!in->agent && !in->integration)
		return pt_fail(err, PT_E_INVALID, "agent: missing (it may be left out only when an integration is given)");
	if (in->integration && (rc = pt_find_integration(tx, who->account, in->integration, &i, err)) < 0)
		return rc;
	rc = pt_find_agent(tx, who->account, in->agent ? in->agent : i.agent, &a, err);
	if (rc < 0)
		return rc;
	if (in->integration && strcmp(a.id, i.agent) != 0)
		return pt_fail(err, PT_E_INVALID, "integration: '%s' belongs to another agent than '%s'", i.name, a.name);
	pt_id_copy(op->agent, a.id);
	pt_id_copy(op->integration, i.id);
	return PT_OK;
}

/* Same key before?  1 = yes, *ret is the first operation. */
static int find_first(struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_rec_operation *ret, struct pt_err *err)
{
	int rc;

	pt_id_copy(ret->account, op->account);
	ret->idempotency_key = strdup(op->idempotency_key);
	if (!ret->idempotency_key)
		return pt_fail_oom(err);
	rc = pt_tx_find(tx, &pt_operations, &pt_operations_by_idempotency, ret, err);
	if (rc == PT_E_NOT_FOUND)
		return 0;
	if (rc < 0)
		return rc;
	if (!ret->request_digest || strcmp(ret->request_digest, op->request_digest) != 0) {
		(void)pt_fail(err, PT_E_CONFLICT, "the idempotency key '%.60s' was used for a different operation, %s",
			      op->idempotency_key, ret->id);
		return pt_hint(err, "use a new key for a new operation");
	}
	return 1;
}

/* Writer's thread.  201: *op is the new operation, and borrows everything from s.  200: it was here before, as *first, which the caller
 * releases in any case. */
static int submit(struct pt_gateway *g, const struct pt_caller *who, struct pt_tx *tx, const struct submission *s,
		  struct pt_rec_operation *op, struct pt_rec_operation *first, struct pt_err *err)
{
	const struct pt_operation_new *in = s->in;
	int rc = resolve_target(who, tx, in, op, err);

	if (rc < 0)
		return rc;
	pt_id_copy(op->account, who->account);
	pt_id_copy(op->created_by, who->user);
	op->type = in->type;
	op->labels = s->labels.len ? s->labels.p : NULL;
	op->timeout_ms = in->limits.timeout_ms;
	op->max_rows = in->limits.max_rows;
	op->max_bytes = in->limits.max_bytes;
	op->priority = in->priority;
	op->deadline = pt_gateway_now(g) + in->deadline_s * 1000;
	op->max_attempts = in->max_attempts;
	op->at_most_once = pt_at_most_once(in->delivery);
	op->retry = s->retry.len ? s->retry.p : NULL;
	op->idempotency_key = (char *)(uintptr_t)s->key;
	op->request_digest = s->key ? (char *)(uintptr_t)s->digest : NULL;
	if (op->idempotency_key && (rc = find_first(tx, op, first, err)) != 0)
		return rc < 0 ? rc : 200;
	pt_id_new(op->id, "op");
	rc = pt_op_insert(g, tx, op, s->input.p, err);
	return rc < 0 ? rc : 201;
}

/* --- one --- */

static void single_free(void *extra)
{
	submission_release(extra);
	free(extra);
}

int pt_api_operations_prepare(struct pt_call *c, struct pt_err *err)
{
	struct submission *s = calloc(1, sizeof(*s));

	if (!s)
		return pt_fail_oom(err);
	s->in = c->body;
	c->extra = s;
	c->extra_free = single_free;
	return prepare(s, pt_http_header(c->req, "Idempotency-Key"), err);
}

int pt_api_operations_create(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	struct pt_rec_operation op = { 0 };
	pt_auto_rec(operation) first = { 0 };
	int rc = submit(c->g, &c->who, tx, c->extra, &op, &first, err);

	if (rc < 0)
		return rc;
	c->status = rc;
	return rc == 200 ? pt_view_operation(c->g, tx, &first, true, &c->out, err)
			 : pt_view_operation(c->g, tx, &op, false, &c->out, err);
}

/* --- many --- */

struct item {
	struct pt_write_job job;
	struct batch *batch;
	struct pt_operation_new in;
	struct submission s;
	int status;          /* of its part of the answer; 0 = not known yet */
	struct pt_err err;   /* with a status of 400 and above */
	char id[PT_ID_SIZE]; /* else: the operation */
	int64_t state;
};
struct batch {
	struct pt_call *c;
	size_t n, left; /* left: those that the writer has; its thread's, once they are submitted */
	struct item items[];
};

static void batch_free(void *extra)
{
	struct batch *b = extra;

	for (size_t i = 0; i < b->n; i++) {
		submission_release(&b->items[i].s);
		pt_shape_release(&pt_operation_new_shape, &b->items[i].in);
	}
	free(b);
}

static void item_failed(struct item *it, const struct pt_err *err)
{
	it->err = *err;
	it->status = pt_code_http(err->code);
	if (it->status == 500)
		pt_log_err(PT_LOG_ERROR, "an operation of a batch failed", err, "agent", it->in.agent, "type", it->in.type);
}

static void batch_reply(struct batch *b)
{
	struct pt_buf *out = &b->c->out;

	pt_jw_open(out, NULL, '{');
	pt_jw_open(out, "items", '[');
	for (size_t i = 0; i < b->n; i++) {
		const struct item *it = &b->items[i];

		pt_jw_open(out, NULL, '{');
		pt_jw_i64(out, "status", it->status);
		if (it->status >= 400) {
			pt_jw_key(out, "error");
			pt_error_doc_write(&it->err, out);
		} else {
			pt_jw_open(out, "operation", '{');
			pt_jw_str(out, "id", it->id);
			pt_jw_str(out, "state", pt_op_state_name((enum pt_op_state)it->state));
			pt_jw_close(out, '}');
		}
		pt_jw_close(out, '}');
	}
	pt_jw_close(out, ']');
	pt_jw_close(out, '}');
	pt_call_reply(b->c);
}

static int item_run(struct pt_tx *tx, struct pt_write_job *job, struct pt_err *err)
{
	struct item *it = pt_container_of(job, struct item, job);
	struct pt_call *c = it->batch->c;
	struct pt_rec_operation op = { 0 };
	pt_auto_rec(operation) first = { 0 };
	int rc = submit(c->g, &c->who, tx, &it->s, &op, &first, err);

	if (rc < 0)
		return rc;
	pt_id_copy(it->id, rc == 200 ? first.id : op.id);
	it->state = rc == 200 ? first.state : op.state;
	return rc;
}

static void item_done(struct pt_write_job *job, int rc)
{
	struct item *it = pt_container_of(job, struct item, job);
	struct batch *b = it->batch;

	if (rc < 0)
		item_failed(it, &job->err);
	else
		it->status = rc;
	if (--b->left == 0)
		batch_reply(b);
}

static int batch_new(struct pt_call *c, const json_t *operations, struct batch **ret, struct pt_err *err)
{
	size_t n = json_array_size(operations);
	struct batch *b = calloc(1, sizeof(*b) + n * sizeof(b->items[0]));

	if (!b)
		return pt_fail_oom(err);
	b->c = c;
	b->n = n;
	c->extra = b;
	c->extra_free = batch_free;
	for (size_t i = 0; i < n; i++) {
		struct item *it = &b->items[i];
		struct pt_err why = { 0 };

		it->batch = b;
		it->s.in = &it->in;
		it->job.run = item_run;
		it->job.done = item_done;
		if (pt_undecoded(pt_shape_decode(&pt_operation_new_shape, json_array_get(operations, i), &it->in, &why), &why) <
			    0 ||
		    prepare(&it->s, NULL, &why) < 0)
			item_failed(it, &why);
	}
	*ret = b;
	return PT_OK;
}

void pt_api_operations_batch(struct pt_call *c)
{
	struct pt_operation_batch *in = c->body;
	struct pt_write_job *jobs[PT_BATCH_MAX];
	struct batch *b = NULL;
	struct pt_err err = { 0 };
	size_t n = 0;
	int rc;

	if (pt_http_header(c->req, "Idempotency-Key"))
		rc = pt_fail(&err, PT_E_INVALID,
			     "Idempotency-Key: a batch has none, each of its operations has an idempotency_key of its own");
	else
		rc = batch_new(c, in->operations, &b, &err);
	if (rc < 0) {
		pt_call_fail(c, &err);
		return;
	}
	for (size_t i = 0; i < b->n; i++)
		if (!b->items[i].status)
			jobs[n++] = &b->items[i].job;
	b->left = n;
	if (!n) {
		batch_reply(b);
		return;
	}
	c->of_request = true;
	pt_http_set_data(c->req, c, pt_call_end);
	pt_http_hold(c->req, NULL, NULL);
	pt_writer_submit_all(c->g->writer, jobs, n);
}
