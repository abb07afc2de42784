/* The table of operation types, and the way from a lease to a type's run function. */
#include "op/op.h"
#include "base/opt.h"
#include <stdalign.h>

static const struct pt_op_type *const types[] = {
	&pt_op_query,        &pt_op_network_tcp, &pt_op_network_dns, &pt_op_network_tls, &pt_op_network_http,
	&pt_op_http_request, &pt_op_health,      &pt_op_logs,        &pt_op_metrics,     NULL,
};

const struct pt_op_type *const *pt_op_types(void)
{
	return types;
}

const struct pt_op_type *pt_op_find(const char *name)
{
	for (size_t i = 0; types[i]; i++)
		if (strcmp(types[i]->name, name) == 0)
			return types[i];
	return NULL;
}

/* code: the gateway calls an unknown type a bad request; an agent may just be older than its gateway. */
static int find(const char *name, enum pt_code code, const struct pt_op_type **ret, struct pt_err *err)
{
	const char *names[PT_COUNT(types) - 1], *near;

	*ret = name ? pt_op_find(name) : NULL;
	if (*ret)
		return PT_OK;
	for (size_t i = 0; types[i]; i++)
		names[i] = types[i]->name;
	near = name ? pt_closest(name, names, PT_COUNT(names)) : NULL;
	(void)pt_fail(err, code, "there is no operation type '%.60s'", name ? name : "");
	if (near)
		(void)pt_hint(err, "did you mean '%s'?", near);
	else
		(void)pt_hint(err, code == PT_E_UNSUPPORTED ? "a newer agent may know it" : "docs/operations.md lists the types");
	return code;
}

/* A decoded input, released when it goes out of scope. */
struct input {
	const struct pt_shape *shape;
	alignas(max_align_t) char bytes[PT_OP_INPUT_MAX];
};

static void release(struct input *in)
{
	if (in->shape)
		pt_shape_release(in->shape, in->bytes);
}

static int decode(const struct pt_op_type *t, const json_t *input, bool has_integration, struct input *ret, struct pt_err *err)
{
	json_t *none = NULL;
	int rc;

	pt_assert(t->input_size <= PT_OP_INPUT_MAX && t->input_size == t->input->size);
	if (t->integration && !has_integration) {
		(void)pt_fail(err, PT_E_INVALID, "an operation of type %s needs an integration", t->name);
		(void)pt_hint(err, "name it in \"integration\"; `postern ctl integrations list` shows them");
		return PT_E_INVALID;
	}
	if (!t->integration && has_integration)
		return pt_fail(err, PT_E_INVALID, "an operation of type %s takes no integration", t->name);
	if (!input) {
		input = none = json_object();
		if (!none)
			return pt_fail_oom(err);
	}
	rc = pt_shape_decode(t->input, input, ret->bytes, err);
	json_decref(none);
	if (rc < 0)
		return pt_err_wrap(err, rc, "input");
	ret->shape = t->input;
	return t->check ? pt_err_wrap(err, t->check(ret->bytes, err), "input") : PT_OK;
}

int pt_op_check(const char *type, const json_t *input, bool has_integration, struct pt_err *err)
{
	pt_auto(release) struct input in = { 0 };
	const struct pt_op_type *t;
	int rc = find(type, PT_E_INVALID, &t, err);

	return rc < 0 ? rc : decode(t, input, has_integration, &in, err);
}

int pt_op_execute(struct pt_op_run *run, struct pt_err *err)
{
	const struct pt_lease *lease = run->lease;
	pt_auto(release) struct input in = { 0 };
	const struct pt_op_type *t;
	int rc = find(lease->type, PT_E_UNSUPPORTED, &t, err);

	run->head->affected = -1;
	if (rc == 0)
		rc = decode(t, lease->input, lease->connection_type != NULL, &in, err);
	if (rc == 0)
		rc = pt_cancel_check(run->cancel, err);
	return rc < 0 ? rc : t->run(run, in.bytes, err);
}
