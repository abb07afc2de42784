/* Errors that came as the error document of a Postern server. */
#include "net/http_client.h"
#include "base/shape.h"
#include <stdio.h>

static const struct {
	int status;
	enum pt_code code;
} statuses[] = {
	{ 400, PT_E_INVALID },    { 401, PT_E_UNAUTHENTICATED }, { 403, PT_E_DENIED },      { 404, PT_E_NOT_FOUND },
	{ 405, PT_E_METHOD },     { 408, PT_E_REQUEST_TIMEOUT }, { 409, PT_E_CONFLICT },    { 413, PT_E_TOO_LARGE },
	{ 415, PT_E_MEDIA_TYPE }, { 422, PT_E_QUERY },           { 429, PT_E_LIMIT },       { 431, PT_E_HEADERS },
	{ 500, PT_E_INTERNAL },   { 502, PT_E_UNAVAILABLE },     { 503, PT_E_UNAVAILABLE }, { 504, PT_E_TIMEOUT },
};

static enum pt_code of_status(int status)
{
	for (size_t i = 0; i < PT_COUNT(statuses); i++)
		if (statuses[i].status == status)
			return statuses[i].code;
	return status / 100 == 4 ? PT_E_INVALID : status / 100 == 5 ? PT_E_UNAVAILABLE : PT_E_PROTOCOL;
}

static const char *text_of(const json_t *o, const char *name)
{
	const char *s = json_string_value(json_object_get(o, name));

	return s ? s : "";
}

int pt_http_error_of(const struct pt_http_call *call, const struct pt_buf *body, struct pt_err *err)
{
	enum pt_code code = of_status(call->status);
	json_t *doc = NULL, *e;
	const char *wire;
	char native[12];

	if (body && body->len && pt_json_parse(body->p, body->len, &doc, NULL) < 0)
		doc = NULL;
	e = json_object_get(doc, "error");
	wire = text_of(e, "code");
	if (wire[0]) {
		/* an unknown code (a newer server) keeps the class of its status */
		if (pt_code_from_wire(wire) != PT_E_INTERNAL || strcmp(wire, pt_code_wire(PT_E_INTERNAL)) == 0)
			code = pt_code_from_wire(wire);
		pt_fail(err, code, "%s", text_of(e, "message"));
		pt_hint(err, "%s", text_of(e, "hint"));
		pt_native(err, text_of(e, "native_code"));
	} else {
		/* A proxy that speaks plain HTTP for us can answer in the server's place; tinyproxy does so to a wrong password. */
		bool proxy = call->proxied && (call->status == 401 || call->status == 403);

		code = proxy ? PT_E_PROXY : code;
		pt_fail(err, code, "the %s answered with status %d and no error document", proxy ? "proxy" : "server",
			call->status);
		snprintf(native, sizeof(native), "%d", call->status);
		pt_native(err, native);
		if (proxy && call->status == 401)
			pt_hint(err, "the proxy does not accept the user and password in HTTP_PROXY: correct them");
		else if (proxy)
			pt_hint(err, "the proxy must not reach this host and port: ask its owner, or add the host to NO_PROXY");
		else
			pt_hint(err, "the answer is not from Postern itself: a proxy or ingress in the path?");
	}
	json_decref(doc);
	return code;
}
