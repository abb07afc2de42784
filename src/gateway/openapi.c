/* The OpenAPI document and the two probes. */
#include "base/json_write.h"
#include "config.h"
#include "gateway/internal.h"
#include <ctype.h>
#include <stdio.h>

static void field_schema(const struct pt_field *f, struct pt_buf *b);

static void object_schema(const struct pt_shape *sh, struct pt_buf *b)
{
	pt_jw_str(b, "type", "object");
	pt_jw_bool(b, "additionalProperties", false);
	pt_jw_open(b, "properties", '{');
	for (size_t i = 0; i < sh->n; i++) {
		pt_jw_open(b, sh->fields[i].name, '{');
		field_schema(&sh->fields[i], b);
		pt_jw_close(b, '}');
	}
	pt_jw_close(b, '}');
	pt_jw_open(b, "required", '[');
	for (size_t i = 0; i < sh->n; i++)
		if (sh->fields[i].flags & PT_REQUIRED)
			pt_jw_str(b, NULL, sh->fields[i].name);
	pt_jw_close(b, ']');
}

static void field_schema(const struct pt_field *f, struct pt_buf *b)
{
	switch (f->type) {
	case PT_T_ID:
	case PT_T_STR:
	case PT_T_BYTES:
		pt_jw_str(b, "type", "string");
		if (f->max && f->type == PT_T_STR)
			pt_jw_i64(b, "maxLength", f->max);
		break;
	case PT_T_I64:
		pt_jw_str(b, "type", "integer");
		if (f->max > f->min) {
			pt_jw_i64(b, "minimum", f->min);
			pt_jw_i64(b, "maximum", f->max);
		}
		break;
	case PT_T_BOOL:
		pt_jw_str(b, "type", "boolean");
		break;
	case PT_T_F64:
		pt_jw_str(b, "type", "number");
		break;
	case PT_T_JSON: /* anything, or as its help says */
		if (f->flags & PT_OBJECTS) { /* by name: what is wrong in one of them is said of that one */
			pt_jw_str(b, "type", "array");
			pt_jw_i64(b, "minItems", f->min);
			pt_jw_i64(b, "maxItems", f->max);
			pt_jw_open(b, "items", '{');
			pt_jw_key(b, "$ref");
			pt_buf_fmt(b, "\"#/components/schemas/%s\"", f->sub->name);
			pt_jw_close(b, '}');
		}
		if (f->flags & (PT_OBJECT | PT_STRING_MAP))
			pt_jw_str(b, "type", "object");
		if (f->flags & PT_STRING_MAP)
			pt_jw_raw(b, "additionalProperties", "{\"type\":\"string\"}");
		break;
	case PT_T_SHAPE:
		object_schema(f->sub, b);
		break;
	case PT_T_LIST:
	case PT_T_STRS:
		pt_jw_str(b, "type", "array");
		pt_jw_open(b, "items", '{');
		if (f->type == PT_T_LIST)
			object_schema(f->sub, b);
		else
			pt_jw_str(b, "type", "string");
		pt_jw_close(b, '}');
		break;
	}
	if (f->values) {
		pt_jw_open(b, "enum", '[');
		for (const char *const *v = f->values; *v; v++)
			pt_jw_str(b, NULL, *v);
		pt_jw_close(b, ']');
	}
	pt_jw_str(b, "description", f->help);
}

static void parameter(struct pt_buf *b, const char *in, const char *name, size_t n)
{
	char text[64];

	snprintf(text, sizeof(text), "%.*s", (int)n, name);
	pt_jw_open(b, NULL, '{');
	pt_jw_str(b, "name", text);
	pt_jw_str(b, "in", in);
	pt_jw_bool(b, "required", strcmp(in, "path") == 0);
	pt_jw_open(b, "schema", '{');
	pt_jw_str(b, "type", "string");
	pt_jw_close(b, '}');
	pt_jw_close(b, '}');
}

static void route_doc(const struct pt_api_route *r, struct pt_buf *b)
{
	char method[16] = "";

	for (size_t i = 0; r->method[i] && i + 1 < sizeof(method); i++)
		method[i] = (char)tolower((unsigned char)r->method[i]);
	pt_jw_open(b, method, '{');
	pt_jw_str(b, "summary", r->summary);
	pt_jw_str(b, "x-postern-role", pt_role_name(r->role));
	pt_jw_open(b, "security", '[');
	if (r->role != PT_ROLE_NONE)
		pt_jw_raw(b, NULL, r->role == PT_ROLE_AGENT ? "{\"key\":[]}" : "{\"token\":[]}");
	pt_jw_close(b, ']');
	pt_jw_open(b, "parameters", '[');
	for (const char *p = r->path; (p = strchr(p, '{')); p++)
		parameter(b, "path", p + 1, strcspn(p + 1, "}"));
	for (const char *const *q = r->query; q && *q; q++)
		parameter(b, "query", *q, strlen(*q));
	pt_jw_close(b, ']');
	if (r->shape) {
		pt_jw_open(b, "requestBody", '{');
		pt_jw_bool(b, "required", !r->body_optional);
		pt_buf_str(b, ",\"content\":{\"application/json\":{\"schema\":{");
		object_schema(r->shape, b);
		pt_buf_str(b, "}}}}");
	}
	pt_jw_raw(b, "responses",
		  "{\"default\":{\"description\":\"an error document\",\"content\":{\"application/json\":{\"schema\":"
		  "{\"$ref\":\"#/components/schemas/error\"}}}},\"2XX\":{\"description\":\"docs/protocol.md has the form\"}}");
	pt_jw_close(b, '}');
}

void pt_api_openapi(struct pt_call *c)
{
	static const struct pt_shape *const named[] = { &pt_operation_new_shape, &pt_small_result_shape };
	struct pt_buf *b = &c->out;

	pt_jw_open(b, NULL, '{');
	pt_jw_str(b, "openapi", "3.1.0");
	pt_jw_raw(b, "info", "{\"title\":\"Postern gateway\",\"version\":\"" PT_VERSION "\",\"license\":{\"name\":\"Apache-2.0\"}}");
	pt_jw_open(b, "paths", '{');
	for (size_t i = 0; i < pt_api_n_routes; i++) {
		bool first = true;

		for (size_t k = 0; k < i; k++)
			first &= strcmp(pt_api_routes[k].path, pt_api_routes[i].path) != 0;
		if (!first)
			continue;
		pt_jw_open(b, pt_api_routes[i].path, '{');
		for (size_t k = i; k < pt_api_n_routes; k++)
			if (strcmp(pt_api_routes[k].path, pt_api_routes[i].path) == 0)
				route_doc(&pt_api_routes[k], b);
		pt_jw_close(b, '}');
	}
	pt_jw_close(b, '}');
	pt_jw_open(b, "components", '{');
	pt_jw_raw(b, "securitySchemes", "{\"token\":{\"type\":\"http\",\"scheme\":\"bearer\"},\"key\":{\"type\":\"http\",\"scheme\":\"basic\"}}");
	pt_jw_open(b, "schemas", '{');
	for (size_t i = 0; i < PT_COUNT(named); i++) {
		pt_jw_open(b, named[i]->name, '{');
		object_schema(named[i], b);
		pt_jw_close(b, '}');
	}
	pt_jw_open(b, "error", '{');
	pt_jw_str(b, "type", "object");
	pt_jw_open(b, "properties", '{');
	pt_jw_open(b, "error", '{');
	object_schema(&pt_error_doc_shape, b);
	pt_buf_str(b, "}}}}}}");
	pt_call_reply(c);
}

/* --- probes --- */

void pt_api_livez(struct pt_call *c)
{
	pt_buf_str(&c->out, "{\"ok\": true}");
	pt_call_reply(c);
}

void pt_api_readyz(struct pt_call *c)
{
	struct pt_tx *tx = NULL;
	struct pt_err err = { 0 };
	int rc = c->g->stopping ? pt_fail(&err, PT_E_UNAVAILABLE, "the gateway is stopping") : pt_disk_check(c->g, &err);

	if (rc == 0)
		rc = pt_db_begin(c->g->db, false, &tx, &err);
	pt_tx_rollback(tx);
	if (rc < 0) {
		pt_call_fail(c, &err);
		return;
	}
	pt_buf_str(&c->out, "{\"ok\": true}");
	pt_call_reply(c);
}
