/* GET /metrics: what the gateway counts, in Prometheus' text format.  Counters are in memory; gauges are read from the state, so that none can
 * drift. */
#include "config.h"
#include "gateway/internal.h"
#include <stdio.h>

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

/* What the gauges of each agent need, read once. */
struct agents {
	struct pt_call *c;
	struct pt_tx *tx;
	struct pt_err *err;
	struct pt_list list; /* of struct one_agent */
};
struct one_agent {
	char name[64];
	struct pt_presence_info here;
	struct depth ready;
};

static int add_agent(void *arg, void *rec)
{
	struct agents *all = arg;
	const struct pt_rec_agent *a = rec;
	struct pt_rec_operation m = { .queue = PT_QUEUE_READY };
	struct one_agent one = { .here = { 0 } };
	int rc;

	snprintf(one.name, sizeof(one.name), "%s", a->name);
	pt_presence_of(all->c->g, a->id, &one.here);
	pt_id_copy(m.agent, a->id);
	rc = pt_tx_scan(all->tx, &pt_operations, &(struct pt_scan) { .index = &pt_operations_by_queue, .match = &m, .n_eq = 2 },
			count_ready, &one.ready, all->err);
	return rc < 0 ? rc : pt_list_append(&all->list, sizeof(one), &one, all->err);
}

static double instances_of(const struct one_agent *a, int64_t now)
{
	return a->here.instances;
}

static double slots_of(const struct one_agent *a, int64_t now)
{
	return (double)a->here.slots;
}

static double held_of(const struct one_agent *a, int64_t now)
{
	return (double)a->here.held;
}

static double queued_of(const struct one_agent *a, int64_t now)
{
	return (double)a->ready.n;
}

static double oldest_of(const struct one_agent *a, int64_t now)
{
	return a->ready.oldest ? (double)(now - a->ready.oldest) / 1000 : 0;
}

/* An autoscaler wants queued + held (what there is to do) beside slots (what there is to do it with); queued > 0 with slots > held for
 * long means that work does not find its way. */
static int agents_part(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	static const struct {
		const char *name, *help;
		double (*value)(const struct one_agent *a, int64_t now);
	} gauges[] = {
		{ "agent_instances", "Connected instances, by agent.", instances_of },
		{ "agent_slots", "Slots of those that take work, by agent.", slots_of },
		{ "agent_held", "Operations that they hold, by agent.", held_of },
		{ "queued_operations", "Operations ready to be leased, by agent (counted up to 10,000).", queued_of },
		{ "queue_oldest_seconds", "Age of the oldest ready operation, by agent.", oldest_of },
	};
	struct agents all = { .c = c, .tx = tx, .err = err };
	struct pt_rec_agent m = { 0 };
	int64_t now = pt_gateway_now(c->g);
	int rc;

	pt_id_copy(m.account, c->who.account);
	rc = pt_tx_scan(tx, &pt_agents, &(struct pt_scan) { .index = &pt_agents_by_name, .match = &m, .n_eq = 1 }, add_agent, &all, err);
	for (size_t i = 0; rc == 0 && i < PT_COUNT(gauges); i++) {
		metric(&c->out, gauges[i].name, "gauge", gauges[i].help);
		for (size_t k = 0; k < all.list.n; k++) {
			const struct one_agent *a = &((struct one_agent *)all.list.items)[k];

			pt_buf_fmt(&c->out, "postern_gateway_%s{agent=\"%s\"} %.12g\n", gauges[i].name, a->name, gauges[i].value(a, now));
		}
	}
	free(all.list.items);
	return rc;
}

enum { DEAD_MAX = 10000 };

struct dead {
	uint64_t total, by_state[PT_OP_STATES_END];
};

static int count_dead(void *arg, void *rec)
{
	struct dead *d = arg;

	d->by_state[((struct pt_rec_dead_letter *)rec)->state]++;
	return ++d->total == DEAD_MAX;
}

static int dead_letters(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	struct pt_rec_dead_letter m = { 0 };
	struct dead d = { 0 };
	int rc;

	pt_id_copy(m.account, c->who.account);
	rc = pt_tx_scan(tx, &pt_dead_letters, &(struct pt_scan) { .match = &m, .n_eq = 1 }, count_dead, &d, err);
	pt_buf_str(&c->out,
		   "# HELP postern_dead_letters Operations that ended and need a person, by state (counted up to 10,000).\n"
		   "# TYPE postern_dead_letters gauge\n");
	for (int s = 0; s < PT_OP_STATES_END; s++)
		if (pt_op_needs_person((enum pt_op_state)s))
			pt_buf_fmt(&c->out, "postern_dead_letters{state=\"%s\"} %llu\n", pt_op_state_name((enum pt_op_state)s),
				   (unsigned long long)d.by_state[s]);
	return rc < 0 ? rc : PT_OK;
}

int pt_api_metrics(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	struct pt_gateway *g = c->g;
	struct pt_buf *b = &c->out;
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
	one(b, "attempts_failed_total", "counter", "Attempts whose result was an error and that were tried again.",
	    g->m.attempts_failed);
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
	one(b, "http_connections_max", "gauge", "How many there may be (from the limit of open files).", hs.max_connections);
	one(b, "http_connections_crowded_total", "counter", "Connections beyond that: one short request each, no exchange.",
	    hs.crowded);
	one(b, "http_held", "gauge", "Requests held open.", hs.held);
	metric(b, "http_responses_total", "counter", "Responses by class of status.");
	for (int i = 1; i < 6; i++)
		pt_buf_fmt(b, "postern_gateway_http_responses_total{class=\"%dxx\"} %llu\n", i, (unsigned long long)g->m.http[i]);
	pt_logs_metrics(g, b);
	one(b, "connected_instances", "gauge", "Connected agent instances.", pt_presence_count(g));
	rc = agents_part(c, tx, err);
	c->content_type = "text/plain; version=0.0.4; charset=utf-8";
	return rc < 0 ? rc : dead_letters(c, tx, err);
}
