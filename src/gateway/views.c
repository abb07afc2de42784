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

enum { COUNT_MAX = 1000, TEXT_MAX = 900 };

struct ahead {
	const char *self;
	int64_t n;
};

static int count_ahead(void *arg, void *rec)
{
	struct ahead *a = arg;

	if (strcmp(((struct pt_rec_operation *)rec)->id, a->self) == 0 || a->n == COUNT_MAX)
		return 1;
	a->n++;
	return 0;
}

/* Operations of op's agent in this part of its queue, those in front of op only when it stands there; at most COUNT_MAX. */
static int count_queue(struct pt_tx *tx, const struct pt_rec_operation *op, enum pt_queue queue, int64_t *ret, struct pt_err *err)
{
	struct ahead ahead = { .self = op->id };
	struct pt_rec_operation m = { .queue = queue };
	int rc;

	pt_id_copy(m.agent, op->agent);
	rc = pt_tx_scan(tx, &pt_operations, &(struct pt_scan) { .index = &pt_operations_by_queue, .match = &m, .n_eq = 2 },
			count_ahead, &ahead, err);
	*ret = ahead.n;
	return rc;
}

static const char *plural(int64_t n)
{
	return n == 1 ? "" : "s";
}

/* An agent with a connected instance that runs the type: is there a slot? */
static int why_no_slot(struct pt_tx *tx, const struct pt_rec_operation *op, const struct pt_rec_agent *a,
		       const struct pt_presence_info *p, char *why, size_t size, struct pt_err *err)
{
	int64_t ahead, taken;
	int rc = count_queue(tx, op, PT_QUEUE_READY, &ahead, err);

	if (rc == 0)
		rc = count_queue(tx, op, PT_QUEUE_LEASED, &taken, err);
	if (rc < 0)
		return rc;
	if (taken == COUNT_MAX) /* more than are counted: as the instances last said */
		taken = p->held;
	if (taken < p->slots)
		snprintf(why, size, "agent %s has a free slot: it goes out with the next exchange; %lld operation%s ahead",
			 a->name, (long long)ahead, plural(ahead));
	else
		snprintf(why, size,
			 "no free slot: all %lld slots of agent %s (%u connected instance%s) are taken; %lld operation%s ahead",
			 (long long)p->slots, a->name, p->instances, plural(p->instances), (long long)ahead, plural(ahead));
	return PT_OK;
}

/* Why an operation that is ready waits, in the order in which a person would look.  full: what takes a look at the queue, too. */
static int why_ready(struct pt_gateway *g, struct pt_tx *tx, const struct pt_rec_operation *op, const struct pt_rec_agent *a,
		     bool full, char *why, size_t size, struct pt_err *err)
{
	struct pt_presence_info p;
	char when[32] = "";

	pt_presence_of(g, a->id, &p);
	if (!p.instances) {
		if (p.last_seen)
			pt_time_text(p.last_seen, when);
		snprintf(why, size, "agent %s has no connected instance%s%s", a->name, p.last_seen ? "; last seen at " : "",
			 when);
		return PT_OK;
	}
	if (!p.slots) {
		snprintf(why, size, "every connected instance of agent %s is stopping or takes no new work", a->name);
		return PT_OK;
	}
	if (!pt_presence_runs(g, a->id, op->type)) {
		snprintf(why, size, "no connected instance of agent %s runs operations of type %s", a->name, op->type);
		return PT_OK;
	}
	if (full)
		return why_no_slot(tx, op, a, &p, why, size, err);
	if (tx->write && !op->attempt) /* the answer to a submit: perhaps it is handed out with this very commit */
		snprintf(why, size, "accepted; agent %s has %u connected instance%s", a->name, p.instances, plural(p.instances));
	else
		snprintf(why, size, "waiting for a free slot or the next exchange of agent %s", a->name);
	return PT_OK;
}

static int why_queued(struct pt_gateway *g, struct pt_tx *tx, const struct pt_rec_operation *op, bool full, char *why,
		      size_t size, struct pt_err *err)
{
	pt_auto_rec(agent) a = { 0 };
	const char *before = op->attempt && op->reason ? op->reason : "";
	char now[400], when[32];
	int rc;

	pt_id_copy(a.id, op->agent);
	rc = pt_tx_get(tx, &pt_agents, &a, err);
	if (rc < 0 && rc != PT_E_NOT_FOUND)
		return rc;
	pt_time_text(op->due, when);
	if (rc == PT_E_NOT_FOUND)
		snprintf(now, sizeof(now), "its agent was deleted");
	else if (!a.enabled)
		snprintf(now, sizeof(now), "agent %s is disabled; enable it: postern ctl agents enable %s", a.name, a.name);
	else if (op->queue == PT_QUEUE_PARKED && op->due < op->deadline)
		snprintf(now, sizeof(now), "next try at %s", when);
	else if (op->queue == PT_QUEUE_PARKED)
		snprintf(now, sizeof(now), "no time is left for another try before its deadline at %s", when);
	else if ((rc = why_ready(g, tx, op, &a, full, now, sizeof(now), err)) < 0)
		return rc;
	snprintf(why, size, "%s%s%s", before, *before ? "; " : "", now);
	return PT_OK;
}

/* Asked to stop: by whom, and until when. */
static void why_stopping(const struct pt_rec_operation *op, const struct pt_rec_lease *l, char *why, size_t size)
{
	char since[32], until[32];

	pt_time_text(l->stop_at, since);
	pt_time_text(l->stop_at + PT_STOP_GRACE_MS, until);
	snprintf(why, size, "attempt %lld on instance %s was asked to stop at %s (%s); it has until %s", (long long)op->attempt,
		 op->instance, since, op->reason ? op->reason : "the deadline has passed", until);
}

static void why_leased(struct pt_gateway *g, const struct pt_rec_operation *op, const struct pt_rec_lease *l, char *why,
		       size_t size)
{
	char lease[32], since[32], until[32], progress[80] = "";
	int64_t rows, bytes;

	pt_time_text(l->until, lease);
	if (l->stop_at) {
		why_stopping(op, l, why, size);
	} else if (op->state == PT_OP_LEASED) {
		pt_time_text(op->leased_at, since);
		pt_time_text(op->leased_at + PT_START_MAX_MS, until);
		snprintf(
			why, size,
			"attempt %lld is leased to instance %s since %s and has not started yet; it has until %s, lease until %s",
			(long long)op->attempt, op->instance, since, until, lease);
	} else {
		pt_time_text(op->started_at, since);
		if (pt_presence_progress(g, op->instance, op->id, &rows, &bytes) && (rows || bytes))
			snprintf(progress, sizeof(progress), ", %lld rows and %lld bytes so far", (long long)rows,
				 (long long)bytes);
		snprintf(why, size, "attempt %lld runs on instance %s since %s%s; lease until %s", (long long)op->attempt,
			 op->instance, since, progress, lease);
	}
}

static int why(struct pt_gateway *g, struct pt_tx *tx, const struct pt_rec_operation *op, bool full, struct pt_buf *out, struct pt_err *err)
{
	pt_auto_rec(lease) l = { 0 };
	char text[TEXT_MAX] = "";
	int rc = PT_OK;

	switch ((enum pt_op_state)op->state) {
	case PT_OP_QUEUED:
		rc = why_queued(g, tx, op, full, text, sizeof(text), err);
		break;
	case PT_OP_LEASED:
	case PT_OP_RUNNING:
		pt_id_copy(l.instance, op->instance);
		pt_id_copy(l.operation, op->id);
		rc = pt_tx_get(tx, &pt_leases, &l, err);
		if (rc == PT_E_NOT_FOUND)
			rc = PT_OK;
		if (rc < 0 || !l.attempt)
			break;
		why_leased(g, op, &l, text, sizeof(text));
		pt_jw_time(out, "lease_until", l.until);
		break;
	default:
		snprintf(text, sizeof(text), "%s", op->reason ? op->reason : "");
	}
	pt_jw_str(out, "why", text);
	return rc;
}

/* Of operations that need, or needed, a person. */
static int settled_part(struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_buf *out, struct pt_err *err)
{
	pt_auto_rec(settlement) s = { 0 };
	int rc;

	pt_id_copy(s.operation, op->id);
	rc = pt_tx_get(tx, &pt_settlements, &s, err);
	if (rc < 0 && rc != PT_E_NOT_FOUND)
		return rc;
	pt_jw_bool(out, "dead_letter", rc == PT_E_NOT_FOUND);
	if (rc == PT_E_NOT_FOUND)
		return PT_OK;
	pt_jw_open(out, "settled", '{');
	pt_jw_str(out, "decision", s.decision);
	pt_jw_str(out, "note", s.note);
	pt_jw_str(out, "by", s.by);
	pt_jw_str(out, "by_name", s.by_name);
	pt_jw_time(out, "at", s.at);
	pt_jw_close(out, '}');
	pt_jw_str(out, "rerun", s.rerun);
	return PT_OK;
}

static int retry_part(const struct pt_rec_operation *op, struct pt_buf *out, struct pt_err *err)
{
	static char *lost[] = { (char *)(uintptr_t) "lost" };
	struct pt_retry r = { 0 };
	int rc = pt_retry_of(op, &r, err);

	if (rc == 0) {
		struct pt_retry shown = r;

		if (!r.on.n)
			shown.on = (struct pt_list) { lost, 1 };
		pt_jw_key(out, "retry");
		pt_shape_write(&pt_retry_shape, &shown, out);
	}
	pt_shape_release(&pt_retry_shape, &r);
	return rc;
}

static void events_part(const struct pt_rec_operation *op, struct pt_buf *b)
{
	const char *at = op->timeline;
	struct pt_event e;

	pt_jw_open(b, "events", '[');
	while (pt_timeline_next(&at, &e)) {
		pt_jw_open(b, NULL, '{');
		pt_jw_time(b, "at", e.at);
		pt_jw_str(b, "event", e.event);
		pt_jw_i64(b, "attempt", e.attempt);
		pt_jw_str(b, "instance", e.instance);
		if (e.detail) {
			pt_jw_key(b, "detail");
			pt_buf_add(b, e.detail, e.n_detail);
		}
		pt_jw_close(b, '}');
	}
	pt_jw_close(b, ']');
}

static int result_part(struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_buf *out, struct pt_err *err)
{
	pt_auto_rec(result) r = { .attempt = op->attempt };
	struct pt_result_head h = { 0 };
	char href[PT_ID_SIZE + 40];
	int rc;

	pt_id_copy(r.operation, op->id);
	rc = pt_tx_get(tx, &pt_results, &r, err);
	if (rc == PT_E_NOT_FOUND || (rc == 0 && !r.head)) {
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

static int full_part(struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_buf *out, struct pt_err *err)
{
	pt_auto_rec(input) in = { 0 };
	int rc;

	pt_id_copy(in.operation, op->id);
	if ((rc = pt_tx_get(tx, &pt_inputs, &in, err)) < 0)
		return rc;
	pt_jw_raw(out, "input", in.input);
	pt_jw_open(out, "limits", '{');
	pt_jw_i64(out, "timeout_ms", op->timeout_ms);
	pt_jw_i64(out, "max_rows", op->max_rows);
	pt_jw_i64(out, "max_bytes", op->max_bytes);
	pt_jw_close(out, '}');
	pt_jw_str(out, "created_by", op->created_by);
	pt_jw_str(out, "idempotency_key", op->idempotency_key);
	return PT_OK;
}

int pt_view_operation(struct pt_gateway *g, struct pt_tx *tx, const struct pt_rec_operation *op, bool full, struct pt_buf *out,
		      struct pt_err *err)
{
	int64_t rows, bytes;
	int rc;

	(void)pt_buf_room(out, 1024); /* most need no more: grow once */
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
	pt_jw_str(out, "rerun_of", op->rerun_of);
	if (pt_op_needs_person((enum pt_op_state)op->state) && (rc = settled_part(tx, op, out, err)) < 0)
		return rc;
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
		if ((rc = full_part(tx, op, out, err)) < 0 || (rc = retry_part(op, out, err)) < 0)
			return rc;
		if (pt_op_terminal((enum pt_op_state)op->state) && (rc = result_part(tx, op, out, err)) < 0)
			return rc;
		events_part(op, out);
	}
	pt_buf_chr(out, '}');
	return rc < 0 ? rc : PT_OK;
}
