/* Errors: one return convention, one record, one table of meanings.
 *
 * Functions return 0 when they succeed, a negative enum pt_code when they fail (the record is then filled), and a
 * positive value only where their header names it.  Callers branch on the code, never on the text.  Library code
 * neither prints nor exits: the owner of the work logs the error once. */
#ifndef PT_BASE_ERR_H
#define PT_BASE_ERR_H
#include "base/attr.h"
#include <errno.h>
#include <stdbool.h>

/* clang-format off */
/* name, wire string, HTTP status, exit code (sysexits.h), may the same request succeed later without a change? */
#define PT_ERR_MAP(X)                                                          \
	X(INVALID,          "invalid_request",          400, 64, 0)            \
	X(UNAUTHENTICATED,  "unauthenticated",          401, 77, 0)            \
	X(DENIED,           "permission_denied",        403, 77, 0)            \
	X(BLOCKED,          "address_blocked",          403, 77, 0)            \
	X(NOT_FOUND,        "not_found",                404, 66, 0)            \
	X(METHOD,           "method_not_allowed",       405, 64, 0)            \
	X(REQUEST_TIMEOUT,  "request_timeout",          408, 75, 1)            \
	X(CONFLICT,         "conflict",                 409, 65, 0)            \
	X(STALE,            "stale_attempt",            409, 65, 0)            \
	X(CANCELLED,        "cancelled",                409, 75, 0)            \
	X(TOO_LARGE,        "too_large",                413, 65, 0)            \
	X(MEDIA_TYPE,       "unsupported_media_type",   415, 64, 0)            \
	X(QUERY,            "query_failed",             422, 65, 0)            \
	X(SOURCE_DENIED,    "source_permission_denied", 422, 77, 0)            \
	X(SOURCE_AUTH,      "source_auth_failed",       422, 77, 0)            \
	X(CREDENTIAL,       "credential_unavailable",   422, 78, 0)            \
	X(UNSUPPORTED,      "unsupported",              422, 64, 0)            \
	X(LIMIT,            "limit_exceeded",           429, 75, 1)            \
	X(HEADERS,          "headers_too_large",        431, 65, 0)            \
	X(INTERNAL,         "internal",                 500, 70, 0)            \
	X(CORRUPT,          "corrupt_data",             500, 74, 0)            \
	X(IO,               "io_error",                 500, 74, 1)            \
	X(HOST_UNKNOWN,     "host_unknown",             502, 68, 1)            \
	X(CONNECT,          "connect_failed",           502, 69, 1)            \
	X(TLS,              "tls_failed",               502, 76, 0)            \
	X(TLS_REQUIRED,     "tls_required",             502, 76, 0)            \
	X(PROXY,            "proxy_failed",             502, 76, 1)            \
	X(CONNECTION_LOST,  "connection_lost",          502, 69, 1)            \
	X(PROTOCOL,         "protocol_error",           502, 76, 0)            \
	X(UNAVAILABLE,      "unavailable",              503, 69, 1)            \
	X(TIMEOUT,          "timeout",                  504, 75, 1)            \
	X(DEADLINE,         "deadline_exceeded",        504, 75, 0)

enum pt_code {
	PT_OK = 0,
	PT_ERR_BASE_ = -100,
#define X(n, wire, http, ex, retry) PT_E_##n,
	PT_ERR_MAP(X)
#undef X
	PT_ERR_END_
};
/* clang-format on */

/* Caller-owned, on the stack, never allocates: reporting an error cannot itself fail or leak. */
struct pt_err {
	enum pt_code code;
	int sys;          /* errno at the origin, 0 if none */
	const char *file; /* origin in our source, for logs only */
	int line;
	char native[24]; /* code of the foreign system: SQLSTATE, HTTP status, "" if none */
	char msg[400];   /* "outer: inner: strerror", clipped with "..." */
	char hint[240];  /* what the reader can do, "" if we know nothing better than the message */
};

int pt_err_set_(struct pt_err *err, enum pt_code code, int sys, const char *file, int line, const char *fmt, ...) PT_PRINTF(6, 7);
#define pt_fail(err, code, ...)     pt_err_set_((err), (code), 0, __FILE__, __LINE__, __VA_ARGS__)
#define pt_fail_sys(err, code, ...) pt_err_set_((err), (code), errno, __FILE__, __LINE__, __VA_ARGS__)
#define pt_fail_oom(err)            pt_fail((err), PT_E_INTERNAL, "out of memory")

/* Put "<fmt>: " in front of the message of a failed call; rc >= 0 passes through.  Returns rc. */
int pt_err_wrap(struct pt_err *err, int rc, const char *fmt, ...) PT_PRINTF(3, 4);
/* Set the hint.  Returns err->code, so that "return pt_hint(err, …)" reads well after pt_fail(). err may be NULL (0). */
int pt_hint(struct pt_err *err, const char *fmt, ...) PT_PRINTF(2, 3);
/* Set the foreign code, clipped to fit. */
void pt_native(struct pt_err *err, const char *native);

const char *pt_code_wire(enum pt_code code);      /* "invalid_request"; "ok" for PT_OK */
enum pt_code pt_code_from_wire(const char *wire); /* PT_E_INTERNAL when unknown */
int pt_code_http(enum pt_code code);
int pt_code_exit(enum pt_code code);
bool pt_code_retryable(enum pt_code code);
#endif
