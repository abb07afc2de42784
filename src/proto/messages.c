/* What the messages need beside their shapes: defaults, names of states, and the way of errors into documents and back. */
#include "proto/messages.h"

enum { TIMEOUT_MS = 840000, DEADLINE_S = 86400, MAX_ATTEMPTS = 3, BACKOFF_MS = 1000, BACKOFF_MAX_MS = 60000 };
static const int64_t max_bytes = 10LL << 30;
static const char at_least_once[] = "at-least-once", at_most_once[] = "at-most-once";

void pt_limits_defaults(struct pt_limits *l)
{
	if (!l->timeout_ms)
		l->timeout_ms = TIMEOUT_MS;
	if (!l->max_bytes)
		l->max_bytes = max_bytes;
}

void pt_retry_defaults(struct pt_retry *r)
{
	if (!r->backoff_ms)
		r->backoff_ms = r->max_backoff_ms && r->max_backoff_ms < BACKOFF_MS ? r->max_backoff_ms : BACKOFF_MS;
	if (!r->max_backoff_ms)
		r->max_backoff_ms = r->backoff_ms > BACKOFF_MAX_MS ? r->backoff_ms : BACKOFF_MAX_MS;
}

bool pt_retry_on(const struct pt_retry *r, const char *what)
{
	for (size_t i = 0; i < r->on.n; i++)
		if (strcmp(((char **)r->on.items)[i], what) == 0)
			return true;
	return !r->on.n && strcmp(what, "lost") == 0;
}

static bool known_class(const char *name)
{
	return strcmp(name, "lost") == 0 || strcmp(name, "retryable") == 0 ||
	       strcmp(pt_code_wire(pt_code_from_wire(name)), name) == 0;
}

int pt_operation_new_check(const struct pt_operation_new *o, struct pt_err *err)
{
	const struct pt_retry *r = &o->retry;

	if (o->max_attempts && r->max_attempts && o->max_attempts != r->max_attempts) {
		(void)pt_fail(err, PT_E_INVALID, "max_attempts: %lld, but retry.max_attempts is %lld", (long long)o->max_attempts,
			      (long long)r->max_attempts);
		return pt_hint(err, "max_attempts is the short form; give one of the two");
	}
	if (r->backoff_ms && r->max_backoff_ms && r->backoff_ms > r->max_backoff_ms) {
		(void)pt_fail(err, PT_E_INVALID, "retry.backoff_ms: %lld is more than retry.max_backoff_ms, %lld",
			      (long long)r->backoff_ms, (long long)r->max_backoff_ms);
		return pt_hint(err, "backoff_ms is the bound of the first pause, max_backoff_ms of the longest");
	}
	for (size_t i = 0; i < r->on.n; i++) {
		const char *name = ((char **)r->on.items)[i];

		if (!known_class(name)) {
			(void)pt_fail(err, PT_E_INVALID,
				      "retry.on: '%.60s' is neither lost nor retryable nor the code of an error", name);
			return pt_hint(err, "docs/protocol.md has the list, such as connect_failed, timeout or unavailable");
		}
		if (pt_at_most_once(o->delivery) && strcmp(name, "lost") != 0) {
			(void)pt_fail(err, PT_E_INVALID, "retry.on: '%.60s' is not possible with at-most-once", name);
			return pt_hint(err, "an attempt that failed has run, and at-most-once operations are never run again; "
					    "leave retry.on out, or use at-least-once");
		}
	}
	return PT_OK;
}

void pt_operation_new_defaults(struct pt_operation_new *o)
{
	pt_limits_defaults(&o->limits);
	pt_retry_defaults(&o->retry);
	if (!o->max_attempts)
		o->max_attempts = o->retry.max_attempts;
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

void pt_error_doc_write(const struct pt_err *err, struct pt_buf *out)
{
	/* A view of err, written at once: no copies, so that the answer to "out of memory" needs none. */
	const struct pt_error_doc d = {
		.code = (char *)(uintptr_t)pt_code_wire(err->code),
		.message = (char *)(uintptr_t)err->msg,
		.hint = *err->hint ? (char *)(uintptr_t)err->hint : NULL,
		.native_code = *err->native ? (char *)(uintptr_t)err->native : NULL,
		.retryable = pt_code_retryable(err->code),
	};

	pt_shape_write(&pt_error_doc_shape, &d, out);
}

void pt_error_body(const struct pt_err *err, struct pt_buf *out)
{
	pt_buf_str(out, "{\"error\":");
	pt_error_doc_write(err, out);
	pt_buf_chr(out, '}');
}
