/* GET /metrics: what the gateway counts; every name is a row of the table.  Counters are in memory; gauges are read from the
 * state, so that none can drift.  The cost of a scrape is bounded: per agent a few index ranges of up to COUNT_MAX entries and a
 * row for each priority. */
#include "config.h"
#include "gateway/gateway.h"
#include "gateway/internal.h"
#include "os/usage.h"
#include <stdio.h>
#include <sys/stat.h>

enum { COUNT_MAX = 10000, VERSIONS_MAX = 20 };

enum {
	BUILD,
	SUBMITTED,
	FINISHED,
	WAIT_SECONDS,
	SECONDS,
	LEASED,
	REDELIVERED,
	LEASES_LOST,
	ATTEMPTS_FAILED,
	RESULTS,
	DUPLICATES,
	REFUSED,
	EXCHANGES,
	AUTH_FAILED,
	COMMITS,
	COMMIT_JOBS,
	COMMIT_SECONDS,
	WRITER_BACKLOG,
	HTTP_CONNECTIONS,
	HTTP_CONNECTIONS_MAX,
	HTTP_CROWDED,
	HTTP_HELD,
	HTTP_RESPONSES,
	HTTP_SECONDS,
	CERTIFICATE,
	LOG_LINES,
	LOG_DUPLICATES,
	LOG_IGNORED,
	LOG_EXPIRED,
	DATABASE_BYTES,
	BLOBS,
	BLOB_BYTES,
	DISK_FREE,
	DISK_SIZE,
	DISK_FULL,
	INSTANCES,
	VERSIONS,
	AGENT_ENABLED,
	AGENT_INSTANCES,
	AGENT_SLOTS,
	AGENT_HELD,
	QUEUED,
	PARKED,
	AGENT_LEASED,
	OUTSTANDING,
	QUEUE_OLDEST,
	DEAD_LETTERS,
};
#define G(name) "postern_gateway_" name
static const struct pt_metric rows[] = {
	[BUILD] = { G("build_info"), "Version of the gateway; always 1.", PT_GAUGE, .labels = { "version" } },
	[SUBMITTED] = { G("operations_submitted_total"), "Operations accepted.", PT_COUNTER },
	[FINISHED] = { G("operations_finished_total"),
		       "Operations that ended, by type and state; type other is none of this version's.", PT_COUNTER,
		       .labels = { "type", "state" } },
	[WAIT_SECONDS] = { G("operation_wait_seconds"), "From submit to the first lease.", PT_HISTOGRAM, "seconds" },
	[SECONDS] = { G("operation_seconds"), "From submit to the end, by type.", PT_HISTOGRAM, "seconds", { "type" } },
	[LEASED] = { G("leases_total"), "Attempts leased.", PT_COUNTER },
	[REDELIVERED] = { G("leases_redelivered_total"), "Leases sent again because their answer was lost.", PT_COUNTER },
	[LEASES_LOST] = { G("leases_lost_total"), "Leases that ended without renewal.", PT_COUNTER },
	[ATTEMPTS_FAILED] = { G("attempts_failed_total"), "Attempts whose result was an error and that were tried again.",
			      PT_COUNTER },
	[RESULTS] = { G("results_total"), "Results stored.", PT_COUNTER },
	[DUPLICATES] = { G("results_duplicate_total"), "Results delivered again.", PT_COUNTER },
	[REFUSED] = { G("results_refused_total"), "Results of attempts that were no longer current.", PT_COUNTER },
	[EXCHANGES] = { G("exchanges_total"), "Exchange requests.", PT_COUNTER },
	[AUTH_FAILED] = { G("authentication_failures_total"), "Requests with wrong, expired or revoked credentials.",
			  PT_COUNTER },
	[COMMITS] = { G("commits_total"), "Transactions committed (each one fsync).", PT_COUNTER },
	[COMMIT_JOBS] = { G("commit_jobs_total"), "Changes committed in them.", PT_COUNTER },
	[COMMIT_SECONDS] = { G("commit_seconds"), "Duration of commits: mostly the fsync of the disk.", PT_HISTOGRAM, "seconds" },
	[WRITER_BACKLOG] = { G("writer_backlog"), "Changes waiting for the writer.", PT_GAUGE },
	[HTTP_CONNECTIONS] = { G("http_connections"), "Open connections.", PT_GAUGE },
	[HTTP_CONNECTIONS_MAX] = { G("http_connections_max"), "How many there may be (from the limit of open files).", PT_GAUGE },
	[HTTP_CROWDED] = { G("http_connections_crowded_total"), "Connections beyond that: one short request each, no exchange.",
			   PT_COUNTER },
	[HTTP_HELD] = { G("http_held"), "Requests held open.", PT_GAUGE },
	[HTTP_RESPONSES] = { G("http_responses_total"), "Responses by class of status.", PT_COUNTER, .labels = { "class" } },
	[HTTP_SECONDS] = { G("http_request_seconds"),
			   "Duration of requests by kind: client and agent (those that are answered at once), wait (held open on purpose), "
			   "other (probes, metrics, unknown paths).",
			   PT_HISTOGRAM,
			   "seconds",
			   { "kind" } },
	[CERTIFICATE] = { G("certificate_expiry_timestamp_seconds"), "End of the certificate of --tls-cert; absent without TLS.",
			  PT_GAUGE, "seconds since 1970" },
	[LOG_LINES] = { G("log_lines_total"), "Log lines of agents stored.", PT_COUNTER },
	[LOG_DUPLICATES] = { G("log_lines_duplicate_total"), "Log lines that agents sent again.", PT_COUNTER },
	[LOG_IGNORED] = { G("log_lines_ignored_total"), "Log lines about operations that are not the sender's.", PT_COUNTER },
	[LOG_EXPIRED] = { G("log_chunks_expired_total"), "Chunks of log lines removed by age or bytes.", PT_COUNTER },
	[DATABASE_BYTES] = { G("database_bytes"),
			     "Bytes of the database's files: the state, and its write-ahead log.",
			     PT_GAUGE,
			     "bytes",
			     { "file" } },
	[BLOBS] = { G("blobs"), "Large results in files of their own.", PT_GAUGE },
	[BLOB_BYTES] = { G("blob_bytes"), "Bytes of them.", PT_GAUGE, "bytes" },
	[DISK_FREE] = { G("disk_free_bytes"),
			"Bytes free on the disk of the database and of the blobs.",
			PT_GAUGE,
			"bytes",
			{ "of" } },
	[DISK_SIZE] = { G("disk_size_bytes"), "Size of that disk.", PT_GAUGE, "bytes", { "of" } },
	[DISK_FULL] = { G("disk_full"), "1 while a disk has so little room that the gateway is not ready.", PT_GAUGE },
	[INSTANCES] = { G("connected_instances"), "Connected agent instances.", PT_GAUGE },
	[VERSIONS] = { G("instances_by_version"), "Connected agent instances by their version.", PT_GAUGE,
		       .labels = { "version" } },
	[AGENT_ENABLED] = { G("agent_enabled"), "1 when the agent is given work.", PT_GAUGE, .labels = { "agent" } },
	[AGENT_INSTANCES] = { G("agent_instances"), "Connected instances, by agent.", PT_GAUGE, .labels = { "agent" } },
	[AGENT_SLOTS] = { G("agent_slots"), "Slots of those that take work, by agent.", PT_GAUGE, .labels = { "agent" } },
	[AGENT_HELD] = { G("agent_held"), "Operations that they hold, by agent.", PT_GAUGE, .labels = { "agent" } },
	[QUEUED] = { G("queued_operations"), "Operations ready to be leased, by agent (counted up to 10,000).", PT_GAUGE,
		     .labels = { "agent" } },
	[PARKED] = { G("parked_operations"), "Operations that pause before their next attempt, by agent (counted up to 10,000).",
		     PT_GAUGE, .labels = { "agent" } },
	[AGENT_LEASED] = { G("leased_operations"), "Operations leased to instances, by agent (counted up to 10,000).", PT_GAUGE,
			   .labels = { "agent" } },
	[OUTSTANDING] = { G("outstanding_operations"), "Queued and leased together: what there is to do.  Scale on this.",
			  PT_GAUGE, .labels = { "agent" } },
	[QUEUE_OLDEST] = { G("queue_oldest_seconds"),
			   "Age of the oldest ready operation, by agent.",
			   PT_GAUGE,
			   "seconds",
			   { "agent" } },
	[DEAD_LETTERS] = { "postern_dead_letters", "Operations that ended and need a person, by state (counted up to 10,000).",
			   PT_GAUGE, .labels = { "state" } },
};
const struct pt_metric_table pt_gateway_metrics = { "Gateway", rows, PT_COUNT(rows) };

/* --- counting --- */

static const struct pt_buckets operation_time = {
	{ 10000, 50000, 100000, 500000, 1000000, 5000000, 30000000, 120000000, 600000000, 3600000000 }, 10
};
static const struct pt_buckets request_time = { { 1000, 2500, 5000, 10000, 25000, 100000, 250000, 1000000, 5000000, 30000000 },
						10 };
static const char *const kinds[PT_REQUEST_KINDS] = { "client", "agent", "wait", "other" };

void pt_count_end(struct pt_gateway *g, const struct pt_rec_operation *op)
{
	size_t t = pt_op_index(op->type);

	g->m.types[t].finished[op->state]++;
	pt_histogram_add(&g->m.types[t].seconds, &operation_time, (op->finished_at - op->created) * 1000);
}

void pt_count_lease(struct pt_gateway *g, const struct pt_rec_operation *op)
{
	g->m.leased++;
	if (op->attempt == 1)
		pt_histogram_add(&g->m.wait, &operation_time, (op->leased_at - op->created) * 1000);
}

static enum pt_request_kind kind_of(const struct pt_api_route *r)
{
	if (!r || (strncmp(r->path, "/api/", 5) != 0 && strncmp(r->path, "/agent/", 7) != 0))
		return PT_REQUEST_OTHER;
	if (strcmp(r->path, "/agent/v1/exchange") == 0)
		return PT_REQUEST_WAIT;
	for (const char *const *q = r->query; q && *q; q++)
		if (strcmp(*q, "wait") == 0)
			return PT_REQUEST_WAIT;
	return r->role == PT_ROLE_AGENT ? PT_REQUEST_AGENT : PT_REQUEST_CLIENT;
}

void pt_count_request(struct pt_gateway *g, const struct pt_api_route *route, int status, int64_t us)
{
	if (status < 100 || status >= 600)
		return;
	g->m.http[status / 100]++;
	pt_histogram_add(&g->m.requests[kind_of(route)], &request_time, us);
}

/* --- agents --- */

/* What the gauges of each agent need, read once. */
struct one_agent {
	char name[64];
	bool enabled;
	struct pt_presence_info here;
	int64_t ready, parked, leased, oldest;
};
struct agents {
	struct pt_call *c;
	struct pt_tx *tx;
	struct pt_err *err;
	struct pt_list list; /* of struct one_agent */
};

static int count(struct agents *all, const char *agent, enum pt_queue queue, int64_t *ret)
{
	struct pt_rec_operation m = { .queue = queue };

	pt_id_copy(m.agent, agent);
	return pt_tx_count(all->tx, &pt_operations,
			   &(struct pt_scan) { .index = &pt_operations_by_queue, .match = &m, .n_eq = 2, .limit = COUNT_MAX },
			   ret, all->err);
}

struct first {
	int64_t rank, created;
	bool found;
};

static int take_first(void *arg, void *rec)
{
	const struct pt_rec_operation *op = rec;

	*(struct first *)arg = (struct first) { .rank = op->rank, .created = op->created, .found = true };
	return 1;
}

/* When the oldest ready operation was made, 0 = there is none.  The queue's order is priority, then age: so it is the first of
 * one of the priorities. */
static int find_oldest(struct agents *all, const char *agent, int64_t *ret)
{
	struct pt_rec_operation m = { .queue = PT_QUEUE_READY };
	struct pt_scan q = { .index = &pt_operations_by_queue, .match = &m, .n_eq = 2, .has_at_least = true, .limit = 1 };
	struct first f;
	int rc;

	pt_id_copy(m.agent, agent);
	do {
		f = (struct first) { .found = false };
		rc = pt_tx_scan(all->tx, &pt_operations, &q, take_first, &f, all->err);
		if (f.found && (!*ret || f.created < *ret))
			*ret = f.created;
		q.at_least = (f.rank / PT_RANK_PRIORITY + 1) * PT_RANK_PRIORITY;
	} while (rc == 0 && f.found);
	return rc;
}

static int add_agent(void *arg, void *rec)
{
	struct agents *all = arg;
	const struct pt_rec_agent *a = rec;
	struct one_agent one = { .enabled = a->enabled };
	int rc;

	snprintf(one.name, sizeof(one.name), "%s", a->name);
	pt_presence_of(all->c->g, a->id, &one.here);
	if ((rc = count(all, a->id, PT_QUEUE_READY, &one.ready)) < 0 ||
	    (rc = count(all, a->id, PT_QUEUE_PARKED, &one.parked)) < 0 ||
	    (rc = count(all, a->id, PT_QUEUE_LEASED, &one.leased)) < 0 || (rc = find_oldest(all, a->id, &one.oldest)) < 0)
		return rc;
	return pt_list_append(&all->list, sizeof(one), &one, all->err);
}

static double value_of(const struct one_agent *a, int row, int64_t now)
{
	switch (row) {
	case AGENT_ENABLED:
		return a->enabled;
	case AGENT_INSTANCES:
		return a->here.instances;
	case AGENT_SLOTS:
		return (double)a->here.slots;
	case AGENT_HELD:
		return (double)a->here.held;
	case QUEUED:
		return (double)a->ready;
	case PARKED:
		return (double)a->parked;
	case AGENT_LEASED:
		return (double)a->leased;
	case OUTSTANDING:
		return (double)(a->ready + a->leased);
	default:
		return a->oldest && now > a->oldest ? (double)(now - a->oldest) / 1000 : 0;
	}
}

/* queued > 0 with slots > leased for long means that work does not find its way. */
static int agents_part(struct pt_call *c, struct pt_tx *tx, struct pt_exposition *x, struct pt_err *err)
{
	struct agents all = { .c = c, .tx = tx, .err = err };
	struct pt_rec_agent m = { 0 };
	int64_t now = pt_gateway_now(c->g);
	int rc;

	pt_id_copy(m.account, c->who.account);
	rc = pt_tx_scan(tx, &pt_agents, &(struct pt_scan) { .index = &pt_agents_by_name, .match = &m, .n_eq = 1 }, add_agent, &all, err);
	for (int row = AGENT_ENABLED; rc == 0 && all.list.n && row <= QUEUE_OLDEST; row++) {
		pt_metric_begin(x, (size_t)row);
		for (size_t k = 0; k < all.list.n; k++) {
			const struct one_agent *a = &((struct one_agent *)all.list.items)[k];

			pt_metric_put(x, value_of(a, row, now), PT_LABELS(a->name));
		}
	}
	free(all.list.items);
	return rc;
}

/* --- dead letters --- */

struct dead {
	uint64_t total, by_state[PT_OP_STATES_END];
};

static int count_dead(void *arg, void *rec)
{
	struct dead *d = arg;

	d->by_state[((struct pt_rec_dead_letter *)rec)->state]++;
	return ++d->total == COUNT_MAX;
}

static int dead_letters(struct pt_call *c, struct pt_tx *tx, struct pt_exposition *x, struct pt_err *err)
{
	struct pt_rec_dead_letter m = { 0 };
	struct dead d = { 0 };
	int rc;

	pt_id_copy(m.account, c->who.account);
	rc = pt_tx_scan(tx, &pt_dead_letters, &(struct pt_scan) { .match = &m, .n_eq = 1 }, count_dead, &d, err);
	pt_metric_begin(x, DEAD_LETTERS);
	for (int s = 0; s < PT_OP_STATES_END; s++)
		if (pt_op_needs_person((enum pt_op_state)s))
			pt_metric_put(x, (double)d.by_state[s], PT_LABELS(pt_op_state_name((enum pt_op_state)s)));
	return rc < 0 ? rc : PT_OK;
}

/* --- the rest --- */

static void work_part(struct pt_exposition *x, const struct pt_gateway_counts *m)
{
	pt_metric_one(x, SUBMITTED, (double)m->submitted);
	pt_metric_begin(x, FINISHED);
	for (size_t t = 0; t <= PT_OP_TYPES_MAX; t++) {
		const char *type = pt_op_index_name(&t);

		for (int s = PT_OP_SUCCEEDED; s < PT_OP_STATES_END; s++)
			pt_metric_put(x, (double)m->types[t].finished[s], PT_LABELS(type, pt_op_state_name((enum pt_op_state)s)));
	}
	pt_metric_begin(x, WAIT_SECONDS);
	pt_metric_histogram(x, &m->wait, &operation_time, NULL);
	pt_metric_begin(x, SECONDS);
	for (size_t t = 0; t <= PT_OP_TYPES_MAX; t++) {
		const char *type = pt_op_index_name(&t);

		pt_metric_histogram(x, &m->types[t].seconds, &operation_time, PT_LABELS(type));
	}
	pt_metric_one(x, LEASED, (double)m->leased);
	pt_metric_one(x, REDELIVERED, (double)m->redelivered);
	pt_metric_one(x, LEASES_LOST, (double)m->lease_lost);
	pt_metric_one(x, ATTEMPTS_FAILED, (double)m->attempts_failed);
	pt_metric_one(x, RESULTS, (double)m->results);
	pt_metric_one(x, DUPLICATES, (double)m->duplicates);
	pt_metric_one(x, REFUSED, (double)m->refused);
	pt_metric_one(x, EXCHANGES, (double)m->exchanges);
	pt_metric_one(x, AUTH_FAILED, (double)m->auth_failed);
}

static void server_part(struct pt_exposition *x, struct pt_gateway *g)
{
	int64_t cert_expires = pt_http_server_cert_expires(g->http);
	struct pt_writer_stats ws;
	struct pt_http_stats hs;

	pt_writer_stats(g->writer, &ws);
	pt_http_server_stats(g->http, &hs);
	pt_metric_one(x, COMMITS, (double)ws.commits);
	pt_metric_one(x, COMMIT_JOBS, (double)ws.jobs);
	pt_metric_begin(x, COMMIT_SECONDS);
	pt_metric_histogram(x, pt_writer_commit_time(g->writer), &pt_commit_buckets, NULL);
	pt_metric_one(x, WRITER_BACKLOG, (double)pt_writer_backlog(g->writer));
	pt_metric_one(x, HTTP_CONNECTIONS, hs.connections);
	pt_metric_one(x, HTTP_CONNECTIONS_MAX, hs.max_connections);
	pt_metric_one(x, HTTP_CROWDED, (double)hs.crowded);
	pt_metric_one(x, HTTP_HELD, hs.held);
	pt_metric_begin(x, HTTP_RESPONSES);
	for (int i = 1; i < 6; i++) {
		char class[] = { (char)('0' + i), 'x', 'x', '\0' };

		pt_metric_put(x, (double)g->m.http[i], PT_LABELS(class));
	}
	pt_metric_begin(x, HTTP_SECONDS);
	for (int i = 0; i < PT_REQUEST_KINDS; i++)
		pt_metric_histogram(x, &g->m.requests[i], &request_time, PT_LABELS(kinds[i]));
	if (cert_expires)
		pt_metric_one(x, CERTIFICATE, (double)cert_expires);
}

static void logs_part(struct pt_exposition *x, struct pt_gateway *g)
{
	struct pt_logs_stats ls;

	pt_logs_stats(g, &ls);
	pt_metric_one(x, LOG_LINES, (double)ls.lines);
	pt_metric_one(x, LOG_DUPLICATES, (double)ls.duplicates);
	pt_metric_one(x, LOG_IGNORED, (double)ls.ignored);
	pt_metric_one(x, LOG_EXPIRED, (double)ls.expired);
}

static void database_part(struct pt_exposition *x, const char *path)
{
	static const char *const files[][2] = { { "", "state" }, { "-wal", "wal" } };
	struct stat st;

	if (!path)
		return;
	pt_metric_begin(x, DATABASE_BYTES);
	for (size_t i = 0; i < PT_COUNT(files); i++) {
		pt_auto_buf name = PT_BUF_INIT(8192);

		pt_buf_fmt(&name, "%s%s", path, files[i][0]);
		pt_metric_put(x, stat(name.p, &st) == 0 ? (double)st.st_size : 0, PT_LABELS(files[i][1]));
	}
}

static void disk_part(struct pt_exposition *x, struct pt_gateway *g)
{
	const struct {
		const char *path, *of;
	} places[] = { { g->blob_dir, "blobs" }, { g->database, "database" } };
	size_t n = g->database ? 2 : 1;
	int64_t room[2] = { 0 }, size[2] = { 0 };
	struct pt_err ignored;
	bool can = true;

	database_part(x, g->database);
	pt_metric_one(x, BLOBS, (double)g->m.blobs);
	pt_metric_one(x, BLOB_BYTES, (double)g->m.blob_bytes);
	for (size_t i = 0; i < n; i++)
		can &= pt_disk_space(places[i].path, &room[i], &size[i]);
	for (int row = DISK_FREE; can && row <= DISK_SIZE; row++) {
		pt_metric_begin(x, (size_t)row);
		for (size_t i = 0; i < n; i++)
			pt_metric_put(x, (double)(row == DISK_FREE ? room[i] : size[i]), PT_LABELS(places[i].of));
	}
	pt_metric_one(x, DISK_FULL, pt_disk_check(g, &ignored) < 0);
}

static void instances_part(struct pt_exposition *x, struct pt_gateway *g)
{
	struct pt_version_count versions[VERSIONS_MAX];
	size_t n = pt_presence_versions(g, versions, VERSIONS_MAX);

	pt_metric_one(x, INSTANCES, pt_presence_count(g));
	if (n)
		pt_metric_begin(x, VERSIONS);
	for (size_t i = 0; i < n; i++)
		pt_metric_put(x, versions[i].instances, PT_LABELS(versions[i].version));
}

int pt_api_metrics(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
{
	struct pt_exposition x = { .b = &c->out, .table = &pt_gateway_metrics };
	int rc;

	pt_metric_begin(&x, BUILD);
	pt_metric_put(&x, 1, PT_LABELS(PT_VERSION));
	work_part(&x, &c->g->m);
	server_part(&x, c->g);
	logs_part(&x, c->g);
	disk_part(&x, c->g);
	instances_part(&x, c->g);
	rc = agents_part(c, tx, &x, err);
	c->content_type = "text/plain; version=0.0.4; charset=utf-8";
	if (rc == 0)
		rc = dead_letters(c, tx, &x, err);
	pt_process_expose(&c->out);
	return rc;
}
