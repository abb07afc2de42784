/* For tests of operations: an agent's view, a lease and a result in memory.  Include after tap.h. */
#ifndef PT_TESTS_OP_RUN_H
#define PT_TESTS_OP_RUN_H
#include "base/clock.h"
#include "net/http_client.h"
#include "op/op.h"

struct op_run {
	struct pt_lease lease;
	struct pt_agent_view view;
	struct pt_http_client_conf http;
	struct pt_credential_conf credential;
	struct pt_cancel cancel;
	struct pt_result_head head;
	struct pt_body body; /* writes to text */
	struct pt_buf text;
	int body_fails_after; /* bytes, 0 = never */
	_Atomic int64_t rows, bytes;
};

static int op_body_write(struct pt_body *b, const void *data, size_t n, struct pt_err *err)
{
	struct op_run *r = pt_container_of(b, struct op_run, body);

	pt_buf_add(&r->text, data, n);
	if (r->body_fails_after && r->text.len > (size_t)r->body_fails_after)
		return pt_fail(err, PT_E_IO, "the spool is full");
	return pt_buf_done(&r->text, err);
}

/* Loopback is permitted, as the servers of the tests live there. */
static void op_run_init(struct op_run *r)
{
	struct pt_err err;

	*r = (struct op_run) { .text = PT_BUF_INIT(64 << 20), .body.write = op_body_write };
	r->view.http = &r->http;
	r->view.credential = &r->credential;
	r->view.allowed_cidrs = "127.0.0.0/8,::1";
	r->http.connect_timeout_ms = 5000;
	pt_assert(pt_cancel_init(&r->cancel, &err) == 0);
}

static void op_run_clear(struct op_run *r)
{
	pt_shape_release(&pt_result_head_shape, &r->head);
	pt_buf_clear(&r->text);
	r->rows = r->bytes = 0;
}

static void op_run_release(struct op_run *r)
{
	op_run_clear(r);
	pt_buf_release(&r->text);
	pt_cancel_release(&r->cancel);
}

/* Run one operation; what it gave is in r->head and r->text until the next one. */
static int op_do(struct op_run *r, const char *type, const char *input, struct pt_err *err)
{
	struct pt_op_run run = { .lease = &r->lease,
				 .cancel = &r->cancel,
				 .agent = &r->view,
				 .body = &r->body,
				 .head = &r->head,
				 .rows = &r->rows,
				 .bytes = &r->bytes };
	int rc;

	op_run_clear(r);
	*err = (struct pt_err) { 0 };
	r->lease.type = (char *)(uintptr_t)type;
	rc = pt_json_parse(input, strlen(input), &r->lease.input, err);
	pt_assert(rc == 0);
	rc = pt_op_execute(&run, err);
	json_decref(r->lease.input);
	r->lease.input = NULL;
	if (rc < 0)
		printf("# %s %s: %s: %s\n", type, input, pt_code_wire(err->code), err->msg);
	return rc;
}

/* A member of the result's document by a path such as "error.code" or "addresses.0"; NULL when absent. */
static PT_UNUSED const json_t *op_doc(const struct op_run *r, const char *path)
{
	const json_t *j = r->head.document;

	while (j && *path) {
		size_t n = strcspn(path, ".");
		char key[64];

		snprintf(key, sizeof(key), "%.*s", (int)n, path);
		j = json_is_array(j) ? json_array_get(j, (size_t)strtoul(key, NULL, 10)) : json_object_get(j, key);
		path += n + (path[n] == '.');
	}
	return j;
}
static PT_UNUSED const char *op_str(const struct op_run *r, const char *path)
{
	return json_string_value(op_doc(r, path));
}
static PT_UNUSED int64_t op_int(const struct op_run *r, const char *path)
{
	return json_integer_value(op_doc(r, path));
}
static PT_UNUSED bool op_is(const struct op_run *r, const char *path)
{
	return json_is_true(op_doc(r, path));
}
#endif
