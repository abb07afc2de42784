/* What the messages need beside their shapes: defaults, names of states, and the way of errors into documents and back. */
#include "proto/messages.h"

enum { TIMEOUT_MS = 840000, DEADLINE_S = 86400, MAX_ATTEMPTS = 3 };
static const int64_t max_bytes = 10LL << 30;
static const char at_least_once[] = "at-least-once", at_most_once[] = "at-most-once";

void pt_limits_defaults(struct pt_limits *l)
{
	if (!l->timeout_ms)
		l->timeout_ms = TIMEOUT_MS;
	if (!l->max_bytes)
		l->max_bytes = max_bytes;
}

void pt_operation_new_defaults(struct pt_operation_new *o)
{
	pt_limits_defaults(&o->limits);
	if (!o->deadline_s)
		o->deadline_s = DEADLINE_S;
	if (!o->max_attempts)
		o->max_attempts = MAX_ATTEMPTS;
	if (!o->delivery)
		o->delivery = strdup(at_least_once);
}

bool pt_at_most_once(const char *delivery)
{
	return delivery && strcmp(delivery, at_most_once) == 0;
}

static const char *const state_names[] = {
#define X(n, wire) wire,
	PT_OPERATION_STATES(X)
#undef X
};

const char *pt_op_state_name(enum pt_op_state s)
{
	pt_assert(s < PT_OP_STATES_END);
	return state_names[s];
}

int pt_op_state_from(const char *name)
{
	for (size_t i = 0; name && i < PT_COUNT(state_names); i++)
		if (strcmp(state_names[i], name) == 0)
			return (int)i;
	return -1;
}

void pt_error_doc_from(struct pt_error_doc *d, const struct pt_err *err)
{
	*d = (struct pt_error_doc) {
		.code = strdup(pt_code_wire(err->code)),
		.message = strdup(err->msg),
		.hint = *err->hint ? strdup(err->hint) : NULL,
		.native_code = *err->native ? strdup(err->native) : NULL,
		.retryable = pt_code_retryable(err->code),
	};
}

void pt_error_doc_to(const struct pt_error_doc *d, struct pt_err *err)
{
	enum pt_code code = d->code ? pt_code_from_wire(d->code) : PT_E_INTERNAL;

	(void)pt_fail(err, code, "%s", d->message ? d->message : "(no message)");
	if (d->hint)
		(void)pt_hint(err, "%s", d->hint);
	pt_native(err, d->native_code);
}

void pt_error_body(const struct pt_err *err, struct pt_buf *out)
{
	/* A view of err, written at once: no copies, so that the answer to "out of memory" needs none. */
	const struct pt_error_doc d = {
		.code = (char *)(uintptr_t)pt_code_wire(err->code),
		.message = (char *)(uintptr_t)err->msg,
		.hint = *err->hint ? (char *)(uintptr_t)err->hint : NULL,
		.native_code = *err->native ? (char *)(uintptr_t)err->native : NULL,
		.retryable = pt_code_retryable(err->code),
	};

	pt_buf_str(out, "{\"error\":");
	pt_shape_write(&pt_error_doc_shape, &d, out);
	pt_buf_chr(out, '}');
}
