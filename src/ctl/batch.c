/* ctl operations run --batch: many operations from a file with one JSON object a line. */
#include "ctl/run.h"
#include "base/id.h"
#include "os/file.h"
#include "proto/messages.h"
#include <stdio.h>

enum { FILE_MAX = 1 << 30, GROUP_BYTES = 3 << 20 }; /* the gateway takes 4 MiB */

struct batch {
	const struct pt_ctl_run *s;
	struct pt_ctl_api *api;
	json_t *group; /* array */
	size_t bytes;  /* of its lines */
	size_t sent, failed;
	struct pt_err first; /* of those that failed */
};

static int parse(const char *line, size_t n, long no, json_t **ret, struct pt_err *err)
{
	int rc = pt_err_wrap(err, pt_json_parse(line, n, ret, err), "--batch: line %ld", no);

	if (rc < 0 || json_is_object(*ret))
		return rc;
	rc = pt_fail(err, PT_E_INVALID, "--batch: line %ld is %s; it must be a JSON object", no, pt_json_type_name(*ret));
	json_decref(pt_steal(ret));
	return rc;
}

static int show(struct batch *b, const json_t *item, struct pt_err *err)
{
	pt_auto_buf text = PT_BUF_INIT(64 * 1024);
	struct pt_error_doc doc = { 0 };
	struct pt_err why = { 0 };
	int rc;

	if (json_object_get(item, "error")) {
		if (pt_shape_decode(&pt_error_doc_shape, json_object_get(item, "error"), &doc, &why) == 0)
			pt_error_doc_to(&doc, &why);
		pt_shape_release(&pt_error_doc_shape, &doc);
		if (!b->failed++)
			b->first = why;
	}
	if (pt_ctl_json(&b->s->c)) {
		pt_json_write(&text, item);
		pt_buf_chr(&text, '\n');
		rc = pt_buf_done(&text, err);
		return rc < 0 ? rc : pt_ctl_out(&text, err);
	}
	if (why.code)
		return pt_ctl_say(err, "-\t%s: %s\n", pt_code_wire(why.code), why.msg);
	return pt_ctl_say(err, "%s\t%s\n", pt_ctl_text(item, "operation.id"), pt_ctl_text(item, "operation.state"));
}

static int send_group(struct batch *b, struct pt_err *err)
{
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	json_t *body = json_pack("{s:O}", "operations", b->group), *items, *item;
	size_t i, n = json_array_size(b->group);
	int rc = PT_OK;

	if (n) /* its operations have keys */
		rc = pt_ctl_call(b->api,
				 &(struct pt_ctl_call) {
					 .method = "POST", .path = "/api/v1/operations/batch", .body = body, .repeatable = true },
				 &a, err);
	json_decref(body);
	items = json_object_get(a.doc, "items");
	if (rc == 0 && n && json_array_size(items) != n)
		rc = pt_fail(err, PT_E_PROTOCOL, "the gateway answered for %zu of %zu operations", json_array_size(items), n);
	json_array_foreach(items, i, item)
		if (rc == 0)
			rc = show(b, item, err);
	b->sent += n;
	b->bytes = 0;
	(void)json_array_clear(b->group);
	return rc;
}

static int add(struct batch *b, json_t *op, size_t bytes, struct pt_err *err)
{
	char key[PT_ID_SIZE];
	int rc = PT_OK;

	if (!json_object_get(op, "idempotency_key")) {
		pt_id_new(key, "ctl"); /* so that a lost answer can be asked for again without second operations */
		(void)json_object_set_new(op, "idempotency_key", json_string(key));
	}
	bytes += 100;
	if (json_array_size(b->group) == PT_BATCH_MAX || b->bytes + bytes > GROUP_BYTES)
		rc = send_group(b, err);
	b->bytes += bytes;
	if (json_array_append_new(b->group, op) < 0 && rc == 0)
		rc = pt_fail_oom(err);
	return rc;
}

/* Every line, first without and then with a batch: nothing is sent of a file with a line that is wrong. */
static int each_line(const struct pt_buf *text, struct batch *b, struct pt_err *err)
{
	const char *p = text->p, *end = text->p + text->len;
	int rc = PT_OK;

	for (long no = 1; rc == 0 && p < end; no++) {
		const char *nl = memchr(p, '\n', (size_t)(end - p)), *stop = nl ? nl : end;
		size_t n = (size_t)(stop - p);
		json_t *op = NULL;

		if (strspn(p, " \t\r") < n) {
			rc = parse(p, n, no, &op, err);
			if (rc == 0 && b)
				rc = add(b, op, n, err);
			else
				json_decref(op);
		}
		p = nl ? nl + 1 : end;
	}
	return rc;
}

int pt_ctl_run_batch(struct pt_ctl_api *api, const struct pt_ctl_run *s, struct pt_err *err)
{
	pt_auto_buf text = PT_BUF_INIT(FILE_MAX);
	struct batch b = { .s = s, .api = api };
	int rc;

	if (s->agent || s->type || s->integration || s->input || s->sql || s->key || s->wait || s->params.n || s->labels.n)
		return pt_fail(err, PT_E_INVALID,
			       "--batch: its lines say what to do; no other option about operations goes with it");
	rc = pt_file_read(strcmp(s->batch, "-") == 0 ? "/dev/stdin" : s->batch, &text, err);
	if (rc < 0)
		return pt_err_wrap(err, rc, "--batch");
	if ((rc = each_line(&text, NULL, err)) < 0)
		return rc;
	b.group = json_array();
	if (!b.group)
		return pt_fail_oom(err);
	rc = each_line(&text, &b, err);
	if (rc == 0)
		rc = send_group(&b, err);
	json_decref(b.group);
	if (rc < 0 || !b.failed)
		return rc;
	(void)pt_fail(err, b.first.code, "%zu of %zu operations were refused; the first: %s", b.failed, b.sent, b.first.msg);
	return *b.first.hint ? pt_hint(err, "%s", b.first.hint) : (int)b.first.code;
}
