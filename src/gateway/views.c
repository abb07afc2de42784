/* Records as the JSON documents of docs/protocol.md. */
#include "base/clock.h"
#include "base/json_write.h"
#include "gateway/internal.h"
#include <stdio.h>

void pt_view_agent(struct pt_gateway *g, const struct pt_rec_agent *a, struct pt_buf *out)
{
	struct pt_presence_info p;

	pt_presence_of(g, a->id, &p);
	pt_buf_chr(out, '{');
	pt_jw_str(out, "id", a->id);
	pt_jw_str(out, "name", a->name);
	pt_jw_str(out, "kind", a->kind);
	pt_jw_bool(out, "enabled", a->enabled);
	pt_jw_bool(out, "connected", p.instances > 0);
	pt_jw_time(out, "last_seen_at", p.last_seen);
	pt_jw_time(out, "created_at", a->created);
	pt_presence_view(g, a->id, out);
	pt_buf_chr(out, '}');
}

int pt_view_integration(struct pt_tx *tx, const struct pt_rec_integration *i, struct pt_buf *out, struct pt_err *err)
{
	pt_auto_rec(agent) a = { 0 };
	int rc;

	pt_id_copy(a.id, i->agent);
	rc = pt_tx_get(tx, &pt_agents, &a, err);
	if (rc < 0 && rc != PT_E_NOT_FOUND)
		return rc;
	pt_buf_chr(out, '{');
	pt_jw_str(out, "id", i->id);
	pt_jw_str(out, "name", i->name);
	pt_jw_str(out, "connection_type", i->connection_type);
	pt_jw_str(out, "agent", i->agent);
	pt_jw_str(out, "agent_name", a.name);
	pt_jw_open(out, "credential", '{');
	pt_jw_str(out, "type", i->credential_type);
	pt_jw_str(out, "file_path", i->file_path);
	pt_jw_str(out, "env_var_name", i->env_var_name);
	pt_jw_close(out, '}');
	pt_jw_time(out, "created_at", i->created);
	pt_buf_chr(out, '}');
	return PT_OK;
}

/* --- operations --- */

struct ahead {
	const char *self;
	int64_t n;
};

static int count_ahead(void *arg, void *rec)
{
	struct ahead *a = arg;

	if (strcmp(((struct pt_rec_operation *)rec)->id, a->self) == 0 || a->n == 1000)
		return 1;
	a->n++;
	return 0;
}

/* Why a queued operation waits, in the order in which a person would look. */
static int why_queued(struct pt_gateway *g, struct pt_tx *tx, const struct pt_rec_operation *op, bool full, char *why, size_t size,
		      struct pt_err *err)
{
	pt_auto_rec(agent) a = { 0 };
	struct pt_presence_info p;
	struct ahead ahead = { .self = op->id };
	struct pt_rec_operation m = { .queue = PT_QUEUE_READY };
	char when[32];
	int rc;

	pt_id_copy(a.id, op->agent);
	rc = pt_tx_get(tx, &pt_agents, &a, err);
	if (rc == PT_E_NOT_FOUND) {
		snprintf(why, size, "its agent was deleted");
		return PT_OK;
	}
	if (rc < 0)
		return rc;
	pt_presence_of(g, a.id, &p);
	if (!a.enabled) {
		snprintf(why, size, "agent %s is disabled; enable it: postern ctl agents enable %s", a.name, a.name);
		return PT_OK;
	}
	if (op->queue == PT_QUEUE_PARKED) {
		pt_time_text(op->due, when);
		snprintf(why, size, "attempt %lld ended without a result (%s); the next one starts at %s", (long long)op->attempt,
			 op->reason ? op->reason : "lease lost", when);
		return PT_OK;
	}
	if (!p.instances) {
		if (p.last_seen)
			pt_time_text(p.last_seen, when);
		snprintf(why, size, "agent %s has no connected instance%s%s", a.name, p.last_seen ? "; last seen at " : "",
			 p.last_seen ? when : "");
		return PT_OK;
	}
	if (!full) {
		snprintf(why, size, "waiting for a free slot");
		return PT_OK;
	}
	pt_id_copy(m.agent, op->agent);
	rc = pt_tx_scan(tx, &pt_operations, &(struct pt_scan){ .index = &pt_operations_by_queue, .match = &m, .n_eq = 2 }, count_ahead, &ahead,
			err);
	if (rc < 0)
		return rc;
	if (!p.slots)
		snprintf(why, size, "every connected instance of agent %s is stopping and takes no new work", a.name);
	else
		snprintf(why, size, "no free slot: all %lld slots of agent %s (%u connected instance%s) are taken; %lld operation%s ahead",
			 (long long)p.slots, a.name, p.instances, p.instances == 1 ? "" : "s", (long long)ahead.n, ahead.n == 1 ? "" : "s");
	return PT_OK;
}

static int why(struct pt_gateway *g, struct pt_tx *tx, const struct pt_rec_operation *op, bool full, struct pt_buf *out, struct pt_err *err)
{
	char text[500] = "", when[32];
	pt_auto_rec(lease) l = { 0 };
	int rc = PT_OK;

	switch ((enum pt_op_state)op->state) {
	case PT_OP_QUEUED:
		rc = why_queued(g, tx, op, full, text, sizeof(text), err);
		break;
	case PT_OP_LEASED:
	case PT_OP_RUNNING:
		pt_id_copy(l.instance, op->instance);
		pt_id_copy(l.operation, op->id);
		if (pt_tx_get(tx, &pt_leases, &l, err) < 0)
			break;
		pt_time_text(l.until, when);
		snprintf(text, sizeof(text), "attempt %lld %s instance %s, lease until %s%s", (long long)op->attempt,
			 op->state == PT_OP_RUNNING ? "runs on" : "is leased to", op->instance, when,
			 op->cancel_requested ? "; it was asked to stop" : "");
		pt_jw_time(out, "lease_until", l.until);
		break;
	default:
		snprintf(text, sizeof(text), "%s", op->reason ? op->reason : "");
	}
	pt_jw_str(out, "why", text);
	return rc;
}

static int event_row(void *arg, void *rec)
{
	struct pt_rec_event *e = rec;
	struct pt_buf *b = arg;

	pt_jw_open(b, NULL, '{');
	pt_jw_time(b, "at", e->at);
	pt_jw_str(b, "event", e->event);
	pt_jw_i64(b, "attempt", e->attempt);
	pt_jw_str(b, "instance", e->instance);
	pt_jw_str(b, "detail", e->detail);
	pt_jw_close(b, '}');
	return 0;
}

static int result_part(struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_buf *out, struct pt_err *err)
{
	pt_auto_rec(result) r = { .attempt = op->attempt };
	struct pt_result_head h = { 0 };
	char href[PT_ID_SIZE + 40];
	int rc;

	pt_id_copy(r.operation, op->id);
	rc = pt_tx_get(tx, &pt_results, &r, err);
	if (rc == PT_E_NOT_FOUND) {
		pt_jw_raw(out, "error", op->error);
		return PT_OK;
	}
	if (rc < 0 || (rc = pt_shape_parse(&pt_result_head_shape, r.head, strlen(r.head), &h, err)) < 0)
		return rc;
	if (h.error.code) {
		pt_jw_key(out, "error");
		pt_shape_write(&pt_error_doc_shape, &h.error, out);
	}
	pt_jw_open(out, "result", '{');
	pt_jw_i64(out, "attempt", r.attempt);
	pt_jw_i64(out, "rows", h.rows);
	if (h.affected >= 0)
		pt_jw_i64(out, "affected", h.affected);
	pt_jw_i64(out, "bytes", h.bytes);
	pt_jw_str(out, "partial", h.partial);
	if (h.columns.n) {
		pt_jw_open(out, "columns", '[');
		for (size_t i = 0; i < h.columns.n; i++) {
			pt_jw_key(out, NULL);
			pt_shape_write(&pt_column_shape, &((struct pt_column *)h.columns.items)[i], out);
		}
		pt_jw_close(out, ']');
	}
	if (h.document) {
		pt_jw_key(out, "document");
		pt_json_write(out, h.document);
	}
	if (h.body_format) {
		snprintf(href, sizeof(href), "/api/v1/operations/%s/result", op->id);
		pt_jw_open(out, "body", '{');
		pt_jw_str(out, "format", h.body_format);
		pt_jw_str(out, "encoding", h.body_encoding);
		pt_jw_i64(out, "size", h.body_size);
		pt_jw_str(out, "sha256", h.body_sha256);
		pt_jw_str(out, "href", href);
		pt_jw_close(out, '}');
	}
	pt_jw_close(out, '}');
	pt_shape_release(&pt_result_head_shape, &h);
	return PT_OK;
}

static int names(struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_buf *out, struct pt_err *err)
{
	pt_auto_rec(agent) a = { 0 };
	pt_auto_rec(integration) i = { 0 };
	int rc;

	pt_id_copy(a.id, op->agent);
	rc = pt_tx_get(tx, &pt_agents, &a, err);
	if (rc < 0 && rc != PT_E_NOT_FOUND)
		return rc;
	pt_jw_str(out, "agent_name", a.name);
	if (!*op->integration)
		return PT_OK;
	pt_id_copy(i.id, op->integration);
	rc = pt_tx_get(tx, &pt_integrations, &i, err);
	if (rc < 0 && rc != PT_E_NOT_FOUND)
		return rc;
	pt_jw_str(out, "integration", op->integration);
	pt_jw_str(out, "integration_name", i.name);
	return PT_OK;
}

static void full_part(const struct pt_rec_operation *op, struct pt_buf *out)
{
	pt_jw_raw(out, "input", op->input);
	pt_jw_open(out, "limits", '{');
	pt_jw_i64(out, "timeout_ms", op->timeout_ms);
	pt_jw_i64(out, "max_rows", op->max_rows);
	pt_jw_i64(out, "max_bytes", op->max_bytes);
	pt_jw_close(out, '}');
	pt_jw_str(out, "created_by", op->created_by);
	pt_jw_str(out, "idempotency_key", op->idempotency_key);
}

int pt_view_operation(struct pt_gateway *g, struct pt_tx *tx, const struct pt_rec_operation *op, bool full, struct pt_buf *out,
		      struct pt_err *err)
{
	struct pt_rec_event m = { 0 };
	int64_t rows, bytes;
	int rc;

	pt_buf_chr(out, '{');
	pt_jw_str(out, "id", op->id);
	pt_jw_str(out, "agent", op->agent);
	if ((rc = names(tx, op, out, err)) < 0)
		return rc;
	pt_jw_str(out, "type", op->type);
	pt_jw_str(out, "state", pt_op_state_name((enum pt_op_state)op->state));
	if ((rc = why(g, tx, op, full, out, err)) < 0)
		return rc;
	pt_jw_i64(out, "attempt", op->attempt);
	pt_jw_i64(out, "max_attempts", op->max_attempts);
	pt_jw_i64(out, "priority", op->priority);
	pt_jw_str(out, "delivery", op->at_most_once ? "at-most-once" : "at-least-once");
	pt_jw_str(out, "instance", op->instance);
	pt_jw_bool(out, "cancel_requested", op->cancel_requested);
	pt_jw_raw(out, "labels", op->labels);
	pt_jw_time(out, "created_at", op->created);
	pt_jw_time(out, "deadline_at", op->deadline);
	pt_jw_time(out, "leased_at", op->leased_at);
	pt_jw_time(out, "started_at", op->started_at);
	pt_jw_time(out, "finished_at", op->finished_at);
	if (op->queue == PT_QUEUE_LEASED && pt_presence_progress(g, op->instance, op->id, &rows, &bytes)) {
		pt_jw_open(out, "progress", '{');
		pt_jw_i64(out, "rows", rows);
		pt_jw_i64(out, "bytes", bytes);
		pt_jw_close(out, '}');
	}
	if (full) {
		full_part(op, out);
		if (pt_op_terminal((enum pt_op_state)op->state) && (rc = result_part(tx, op, out, err)) < 0)
			return rc;
		pt_id_copy(m.operation, op->id);
		pt_jw_open(out, "events", '[');
		rc = pt_tx_scan(tx, &pt_events, &(struct pt_scan){ .match = &m, .n_eq = 1 }, event_row, out, err);
		pt_jw_close(out, ']');
	}
	pt_buf_chr(out, '}');
	return rc < 0 ? rc : PT_OK;
}
