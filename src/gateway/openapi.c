/* The OpenAPI document, the metrics and the two probes: everything the gateway tells about itself. */
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
	int rc = c->g->stopping ? pt_fail(&err, PT_E_UNAVAILABLE, "the gateway is stopping") : pt_db_begin(c->g->db, false, &tx, &err);

	pt_tx_rollback(tx);
	if (rc < 0) {
		pt_call_fail(c, &err);
		return;
	}
	pt_buf_str(&c->out, "{\"ok\": true}");
	pt_call_reply(c);
}

/* --- metrics --- */

static void metric(struct pt_buf *b, const char *name, const char *type, const char *help)
{
	pt_buf_fmt(b, "# HELP postern_gateway_%s %s\n# TYPE postern_gateway_%s %s\n", name, help, name, type);
}

static void one(struct pt_buf *b, const char *name, const char *type, const char *help, uint64_t value)
{
	metric(b, name, type, help);
	pt_buf_fmt(b, "postern_gateway_%s %llu\n", name, (unsigned long long)value);
}

struct depth {
	uint64_t n;
	int64_t oldest;
};

static int count_ready(void *arg, void *rec)
{
	const struct pt_rec_operation *op = rec;
	struct depth *d = arg;

	if (!d->oldest || op->created < d->oldest)
		d->oldest = op->created;
	return ++d->n == 10000;
}

struct queue_metrics {
	struct pt_call *c;
	struct pt_tx *tx;
	struct pt_err *err;
	struct pt_buf age;
};

static int queue_of_agent(void *arg, void *rec)
{
	struct queue_metrics *q = arg;
	const struct pt_rec_agent *a = rec;
	struct pt_rec_operation m = { .queue = PT_QUEUE_READY };
	struct depth d = { 0 };
	int rc;

	pt_id_copy(m.agent, a->id);
	rc = pt_tx_scan(q->tx, &pt_operations, &(struct pt_scan){ .index = &pt_operations_by_queue, .match = &m, .n_eq = 2 }, count_ready, &d,
			q->err);
	pt_buf_fmt(&q->c->out, "postern_gateway_queued_operations{agent=\"%s\"} %llu\n", a->name, (unsigned long long)d.n);
	pt_buf_fmt(&q->age, "postern_gateway_queue_oldest_seconds{agent=\"%s\"} %.3f\n", a->name,
		   d.oldest ? (double)(pt_gateway_now(q->c->g) - d.oldest) / 1000 : 0.0);
	return rc < 0 ? rc : 0;
}

int pt_api_metrics(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	struct pt_gateway *g = c->g;
	struct pt_buf *b = &c->out;
	struct queue_metrics q = { .c = c, .tx = tx, .err = err, .age = PT_BUF_INIT(4 * 1024 * 1024) };
	struct pt_rec_agent m = { 0 };
	struct pt_writer_stats ws;
	struct pt_http_stats hs;
	int rc;

	pt_writer_stats(g->writer, &ws);
	pt_http_server_stats(g->http, &hs);
	metric(b, "build_info", "gauge", "Version of the gateway.");
	pt_buf_str(b, "postern_gateway_build_info{version=\"" PT_VERSION "\"} 1\n");
	one(b, "operations_submitted_total", "counter", "Operations accepted.", g->m.submitted);
	metric(b, "operations_finished_total", "counter", "Operations that ended, by state.");
	for (int s = PT_OP_SUCCEEDED; s < PT_OP_STATES_END; s++)
		pt_buf_fmt(b, "postern_gateway_operations_finished_total{state=\"%s\"} %llu\n", pt_op_state_name((enum pt_op_state)s),
			   (unsigned long long)g->m.finished[s]);
	one(b, "leases_total", "counter", "Attempts leased.", g->m.leased);
	one(b, "leases_redelivered_total", "counter", "Leases sent again because their answer was lost.", g->m.redelivered);
	one(b, "leases_lost_total", "counter", "Leases that ended without renewal.", g->m.lease_lost);
	one(b, "results_total", "counter", "Results stored.", g->m.results);
	one(b, "results_duplicate_total", "counter", "Results delivered again.", g->m.duplicates);
	one(b, "results_refused_total", "counter", "Results of attempts that were no longer current.", g->m.refused);
	one(b, "exchanges_total", "counter", "Exchange requests.", g->m.exchanges);
	one(b, "authentication_failures_total", "counter", "Requests with wrong, expired or revoked credentials.", g->m.auth_failed);
	one(b, "commits_total", "counter", "Transactions committed (each one fsync).", ws.commits);
	one(b, "commit_jobs_total", "counter", "Changes committed in them.", ws.jobs);
	one(b, "commit_last_microseconds", "gauge", "Duration of the newest commit.", (uint64_t)ws.last_commit_us);
	one(b, "writer_backlog", "gauge", "Changes waiting for the writer.", pt_writer_backlog(g->writer));
	one(b, "http_connections", "gauge", "Open connections.", hs.connections);
	one(b, "http_held", "gauge", "Requests held open.", hs.held);
	metric(b, "http_responses_total", "counter", "Responses by class of status.");
	for (int i = 1; i < 6; i++)
		pt_buf_fmt(b, "postern_gateway_http_responses_total{class=\"%dxx\"} %llu\n", i, (unsigned long long)g->m.http[i]);
	one(b, "connected_instances", "gauge", "Connected agent instances.", pt_presence_count(g));
	pt_id_copy(m.account, c->who.account);
	metric(b, "queued_operations", "gauge", "Operations ready to be leased, by agent (counted up to 10,000).");
	rc = pt_tx_scan(tx, &pt_agents, &(struct pt_scan){ .index = &pt_agents_by_name, .match = &m, .n_eq = 1 }, queue_of_agent, &q, err);
	metric(b, "queue_oldest_seconds", "gauge", "Age of the oldest ready operation, by agent.");
	pt_buf_add(b, q.age.p, q.age.len);
	pt_buf_release(&q.age);
	c->content_type = "text/plain; version=0.0.4; charset=utf-8";
	return rc < 0 ? rc : PT_OK;
}
