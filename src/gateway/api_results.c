/* Many small results with one request of an agent.  Each is a job of the writer, undone alone when it fails; one more job, the last, leases
 * new work for all slots that became free. */
#include "base/json_write.h"
#include "base/log.h"
#include "gateway/internal.h"

struct item {
	struct pt_write_job job;
	struct results *all;
	struct pt_small_result in;
	struct pt_result_head head;
	struct pt_buf head_text; /* as it is stored */
	struct pt_delivery d;
	int status;        /* of its part of the answer; 0 = not known yet */
	struct pt_err err; /* with a status of 400 and above */
};
struct results {
	struct pt_call *c;
	struct pt_write_job refill;
	struct pt_list leases;
	size_t n, left; /* left: jobs that the writer has; its thread's, once they are submitted */
	struct item items[];
};

static void drop_leases(struct results *all)
{
	struct pt_results_response a = { .leases = all->leases };

	pt_shape_release(&pt_results_response_shape, &a);
	all->leases = (struct pt_list) { 0 };
}

static void results_free(void *extra)
{
	struct results *all = extra;

	for (size_t i = 0; i < all->n; i++) {
		pt_shape_release(&pt_small_result_shape, &all->items[i].in);
		pt_shape_release(&pt_result_head_shape, &all->items[i].head);
		pt_buf_release(&all->items[i].head_text);
	}
	drop_leases(all);
	free(all);
}

static void item_failed(struct item *it, const struct pt_err *err)
{
	it->err = *err;
	it->status = pt_code_http(err->code);
	if (it->status == 500)
		pt_log_err(PT_LOG_ERROR, "cannot take a result", err, "operation", it->in.operation, "attempt",
			   pt_num(it->in.attempt));
}

/* What needs no database. */
static int prepare(struct item *it, const json_t *from, struct pt_err *err)
{
	struct pt_verify *v = NULL;
	int rc = pt_shape_decode(&pt_small_result_shape, from, &it->in, err);

	if (rc < 0)
		return pt_undecoded(rc, err);
	rc = pt_shape_decode(&pt_result_head_shape, it->in.head, &it->head, err);
	if (rc < 0)
		return pt_err_wrap(err, rc, "result head");
	if ((rc = pt_check_head(&it->head, err)) < 0)
		return rc;
	if (it->head.body_size != (int64_t)it->in.body.n)
		return pt_fail(err, PT_E_INVALID, "the body has %zu bytes, and body_size is %lld", it->in.body.n,
			       (long long)it->head.body_size);
	if (it->in.body.n) {
		rc = pt_verify_begin(&it->head, &v, err);
		if (rc == 0)
			rc = pt_verify_update(v, it->in.body.p, it->in.body.n, err);
		if (rc == 0)
			rc = pt_verify_end(v, err);
		pt_verify_free(v);
		if (rc < 0)
			return rc;
	}
	pt_json_write(&it->head_text, it->in.head);
	return pt_buf_done(&it->head_text, err);
}

static void reply(struct results *all)
{
	struct pt_results_response a = { .leases = all->leases };
	struct pt_buf *out = &all->c->out;

	pt_jw_open(out, NULL, '{');
	pt_jw_open(out, "items", '[');
	for (size_t i = 0; i < all->n; i++) {
		const struct item *it = &all->items[i];

		pt_jw_open(out, NULL, '{');
		pt_jw_i64(out, "status", it->status);
		if (it->d.duplicate)
			pt_jw_bool(out, "duplicate", true);
		if (it->status >= 400) {
			pt_jw_key(out, "error");
			pt_error_doc_write(&it->err, out);
		}
		pt_jw_close(out, '}');
	}
	pt_jw_close(out, ']');
	pt_jw_open(out, "leases", '[');
	for (size_t i = 0; i < a.leases.n; i++) {
		pt_jw_key(out, NULL);
		pt_shape_write(&pt_lease_shape, (struct pt_lease *)a.leases.items + i, out);
	}
	pt_jw_close(out, ']');
	pt_jw_close(out, '}');
	pt_call_reply(all->c);
}

static void one_less(struct results *all)
{
	if (--all->left == 0)
		reply(all);
}

static int item_run(struct pt_tx *tx, struct pt_write_job *job, struct pt_err *err)
{
	struct item *it = pt_container_of(job, struct item, job);
	struct pt_call *c = it->all->c;

	it->d = (struct pt_delivery) { .agent = c->who.agent,
				       .operation = it->in.operation,
				       .attempt = it->in.attempt,
				       .head = &it->head,
				       .head_text = it->head_text.p,
				       .body = it->in.body };
	return pt_deliver(c->g, tx, &it->d, err);
}

static void item_done(struct pt_write_job *job, int rc)
{
	struct item *it = pt_container_of(job, struct item, job);

	it->status = 200;
	if (rc < 0)
		item_failed(it, &job->err);
	else if (it->d.refused.code)
		item_failed(it, &it->d.refused);
	it->d.duplicate &= it->status == 200;
	one_less(it->all);
}

static int refill_run(struct pt_tx *tx, struct pt_write_job *job, struct pt_err *err)
{
	struct results *all = pt_container_of(job, struct results, refill);
	const struct pt_results *in = all->c->body;

	return pt_refill(all->c->g, tx, all->c->who.agent, in->instance, &all->leases, err);
}

static void refill_done(struct pt_write_job *job, int rc)
{
	struct results *all = pt_container_of(job, struct results, refill);

	if (rc < 0) { /* the next exchange brings what there is */
		pt_log_err(PT_LOG_WARN, "no work for the slots that results made free", &job->err);
		drop_leases(all);
	}
	one_less(all);
}

void pt_api_results(struct pt_call *c)
{
	const struct pt_results *in = c->body;
	size_t n = json_array_size(in->results);
	struct results *all = calloc(1, sizeof(*all) + n * sizeof(all->items[0]));
	struct pt_write_job *jobs[PT_RESULTS_MAX + 1];
	struct pt_err err = { 0 };

	if (!all) {
		(void)pt_fail_oom(&err);
		pt_call_fail(c, &err);
		return;
	}
	all->c = c;
	all->n = n;
	c->extra = all;
	c->extra_free = results_free;
	for (size_t i = 0; i < n; i++) {
		struct item *it = &all->items[i];

		it->all = all;
		it->head_text = (struct pt_buf)PT_BUF_INIT(2 * PT_RESULTS_BYTES);
		it->job.run = item_run;
		it->job.done = item_done;
		if (prepare(it, json_array_get(in->results, i), &err) < 0)
			item_failed(it, &err);
		else
			jobs[all->left++] = &it->job;
		err = (struct pt_err) { 0 };
	}
	if (!all->left) {
		reply(all);
		return;
	}
	all->refill.run = refill_run;
	all->refill.done = refill_done;
	jobs[all->left++] = &all->refill;
	c->of_request = true;
	pt_http_set_data(c->req, c, pt_call_end);
	pt_http_hold(c->req, NULL, NULL);
	n = all->left;
	pt_writer_submit_all(c->g->writer, jobs, n);
}
