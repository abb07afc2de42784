#include "base/err.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
	const char *wire;
	int http, exit;
	bool retry;
} map[] = {
#define X(n, wire, http, ex, retry) { wire, http, ex, retry },
	PT_ERR_MAP(X)
#undef X
};

static size_t row(enum pt_code code)
{
	return code > PT_ERR_BASE_ && code < PT_ERR_END_ ? (size_t)(code - PT_ERR_BASE_ - 1)
							 : (size_t)(PT_E_INTERNAL - PT_ERR_BASE_ - 1);
}

static void clip(char *s, size_t size, int want)
{
	if (want >= (int)size)
		memcpy(s + size - 4, "...", 4);
}

_Noreturn void pt_panic_(const char *file, int line, const char *what)
{
	fprintf(stderr, "postern: broken invariant at %s:%d: %s\n", file, line, what);
	abort();
}

int pt_err_set_(struct pt_err *err, enum pt_code code, int sys, const char *file, int line, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (!err)
		return code;
	*err = (struct pt_err) { .code = code, .sys = sys, .file = file, .line = line };
	va_start(ap, fmt);
	n = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(err->msg) && sys) {
		char text[128];

		n += snprintf(err->msg + n, sizeof(err->msg) - (size_t)n, ": %s", strerror_r(sys, text, sizeof(text)));
	}
	clip(err->msg, sizeof(err->msg), n);
	return code;
}

int pt_err_wrap(struct pt_err *err, int rc, const char *fmt, ...)
{
	char inner[sizeof(err->msg)];
	va_list ap;
	int n;

	if (!err || rc >= 0)
		return rc;
	memcpy(inner, err->msg, sizeof(inner));
	va_start(ap, fmt);
	n = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(err->msg))
		n += snprintf(err->msg + n, sizeof(err->msg) - (size_t)n, ": %s", inner);
	clip(err->msg, sizeof(err->msg), n);
	return rc;
}

int pt_hint(struct pt_err *err, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (!err)
		return 0;
	va_start(ap, fmt);
	n = vsnprintf(err->hint, sizeof(err->hint), fmt, ap);
	va_end(ap);
	clip(err->hint, sizeof(err->hint), n);
	return err->code;
}

void pt_native(struct pt_err *err, const char *native)
{
	if (err)
		snprintf(err->native, sizeof(err->native), "%s", native ? native : "");
}

const char *pt_code_wire(enum pt_code code)
{
	return code == PT_OK ? "ok" : map[row(code)].wire;
}

enum pt_code pt_code_from_wire(const char *wire)
{
	for (size_t i = 0; i < PT_COUNT(map); i++)
		if (strcmp(map[i].wire, wire) == 0)
			return (enum pt_code)(PT_ERR_BASE_ + 1 + (int)i);
	return PT_E_INTERNAL;
}

int pt_code_http(enum pt_code code)
{
	return map[row(code)].http;
}

int pt_code_exit(enum pt_code code)
{
	return code == PT_OK ? 0 : map[row(code)].exit;
}

bool pt_code_retryable(enum pt_code code)
{
	return code != PT_OK && map[row(code)].retry;
}
