/* What the agent counts, and what stands in GET /metrics: every name is a row of the table. */
#include "agent/agent_int.h"
#include "agent/outbox.h"
#include "base/clock.h"
#include "config.h"
#include "os/usage.h"

enum {
	VERSION,
	STATUS,
	TASKS,
	REQUESTS,
	SESSIONS,
	INFO,
	SLOTS,
	SLOTS_BUSY,
	ACCEPTING,
	LINK_UP,
	LINK_UPS,
	ENABLED,
	SKEW,
	LAST_EXCHANGE,
	EXCHANGES,
	EXCHANGE_FAILURES,
	CERTIFICATE,
	KEY_GENERATION,
	KEY_CHANGED,
	KEY_PREVIOUS,
	KEY_BAD,
	LEASES,
	RESULTS,
	DELIVERED,
	REFUSED,
	RETRIES,
	SECONDS,
	SPOOL_ENTRIES,
	SPOOL_BYTES,
	SPOOL_MAX,
	SPOOL_OLDEST,
	SPOOL_FULL,
	SPOOL_DAMAGED,
	SPOOL_DISK_FULL,
	SPOOL_DISK_FREE,
	SPOOL_SEALED,
	SPOOL_SEALED_BYTES,
	SPOOL_SYNCS,
	LOG_LINES,
	LOG_UNFLUSHED,
	LOG_BYTES,
	LOG_MAX,
	LOG_SHIPPED,
	LOG_DROPPED,
	LOG_REFUSED,
	LOG_RETRIES,
	LOG_DAMAGED,
	LOG_SEALED,
	LOG_SEALED_DROPPED,
	LOG_SYNCS,
};
#define A(name) "postern_agent_" name
static const struct pt_metric rows[] = {
	[VERSION] = { "app_version_info", "Version of the agent; always 1.", PT_GAUGE, .labels = { "version" } },
	[STATUS] = { "app_agent_status", "1 while the agent takes work, 0 while it stops.", PT_GAUGE },
	[TASKS] = { "app_active_task_count", "Operations running in this instance.", PT_UNTYPED },
	[REQUESTS] = { "app_active_request_count", "Requests being handled by the local endpoints.", PT_UNTYPED },
	[SESSIONS] = { "app_open_sessions_count", "Open sessions with the gateway.", PT_UNTYPED },
	[INFO] = { A("info"), "Name and id of the agent, once the gateway has told them; always 1.", PT_GAUGE,
		   .labels = { "agent", "agent_id" } },
	[SLOTS] = { A("slots"), "Operations that this instance may run at the same time.", PT_GAUGE },
	[SLOTS_BUSY] = { A("slots_busy"), "Slots taken by operations.", PT_GAUGE },
	[ACCEPTING] = { A("accepting"), "1 while the instance asks for work.", PT_GAUGE },
	[LINK_UP] = { A("link_up"), "1 while exchanges with the gateway succeed.", PT_GAUGE },
	[LINK_UPS] = { A("link_ups_total"), "How often the link came up; it flaps when this grows.", PT_COUNTER },
	[ENABLED] = { A("enabled"), "1 when the gateway gives this agent work.", PT_GAUGE },
	[SKEW] = { A("clock_skew_seconds"), "The gateway's clock minus this machine's.", PT_GAUGE, "seconds" },
	[LAST_EXCHANGE] = { A("last_exchange_timestamp_seconds"),
			    "When the gateway answered last; an idle exchange takes up to 40 s.", PT_GAUGE,
			    "seconds since 1970" },
	[EXCHANGES] = { A("exchanges_total"), "Exchanges begun.", PT_COUNTER },
	[EXCHANGE_FAILURES] = { A("exchange_failures_total"), "Exchanges that failed.", PT_COUNTER },
	[CERTIFICATE] = { A("gateway_certificate_expiry_timestamp_seconds"),
			  "End of the certificate that the gateway, or a proxy that inspects TLS, shows; absent without TLS.",
			  PT_GAUGE, "seconds since 1970" },
	[KEY_GENERATION] = { A("key_generation"), "How many keys the token file has had since the start; a rotation adds one.",
			     PT_GAUGE },
	[KEY_CHANGED] = { A("key_file_modified_timestamp_seconds"), "When the token file was changed.", PT_GAUGE,
			  "seconds since 1970" },
	[KEY_PREVIOUS] = { A("previous_keys"), "Keys that stand in the token file as previous.", PT_GAUGE },
	[KEY_BAD] = { A("key_file_bad"), "1 when the newest token file cannot be used and an older key is.", PT_GAUGE },
	[LEASES] = { A("leases_total"), "Attempts leased to this instance.", PT_COUNTER },
	[RESULTS] = { A("results_total"),
		      "Results stored, by type of the operation and status; type other is none of this version's.", PT_COUNTER,
		      .labels = { "type", "status" } },
	[DELIVERED] = { A("results_delivered_total"), "Results that the gateway has taken.", PT_COUNTER },
	[REFUSED] = { A("results_refused_total"), "Results that the gateway has refused for good.", PT_COUNTER },
	[RETRIES] = { A("delivery_retries_total"), "Deliveries that must be tried again.", PT_COUNTER },
	[SECONDS] = { A("operation_seconds"),
		      "Run time of attempts that left a result, by type.",
		      PT_HISTOGRAM,
		      "seconds",
		      { "type" } },
	[SPOOL_ENTRIES] = { A("spool_entries"), "Results waiting for delivery.", PT_GAUGE },
	[SPOOL_BYTES] = { A("spool_bytes"), "Bytes of the spool on disk.", PT_GAUGE, "bytes" },
	[SPOOL_MAX] = { A("spool_max_bytes"), "Most bytes the spool may take.", PT_GAUGE, "bytes" },
	[SPOOL_OLDEST] = { A("spool_oldest_seconds"), "Age of the oldest result waiting.", PT_GAUGE, "seconds" },
	[SPOOL_FULL] = { A("spool_full"), "1 while the spool is full and no work is taken.", PT_GAUGE },
	[SPOOL_DAMAGED] = { A("spool_damaged_total"), "Records and files of the spool found damaged.", PT_COUNTER },
	[SPOOL_DISK_FULL] = { A("spool_disk_full"), "1 while the disk of the spool takes nothing more.", PT_GAUGE },
	[SPOOL_DISK_FREE] = { A("spool_disk_free_bytes"), "Bytes free on the disk of the spool.", PT_GAUGE, "bytes" },
	[SPOOL_SEALED] = { A("spool_sealed_segments"), "Segments of the spool that no key of the token file opens.", PT_GAUGE },
	[SPOOL_SEALED_BYTES] = { A("spool_sealed_bytes"), "Bytes of the spool that no key of the token file opens.", PT_GAUGE,
				 "bytes" },
	[SPOOL_SYNCS] = { A("spool_syncs_total"), "Calls of fsync for the spool.", PT_COUNTER },
	[LOG_LINES] = { A("log_outbox_lines"), "Log lines waiting for delivery (this and the rest: with --ship-logs).",
			PT_GAUGE },
	[LOG_UNFLUSHED] = { A("log_outbox_unflushed_lines"), "Log lines that are not on disk yet.", PT_GAUGE },
	[LOG_BYTES] = { A("log_outbox_bytes"), "Bytes of the log outbox on disk.", PT_GAUGE, "bytes" },
	[LOG_MAX] = { A("log_outbox_max_bytes"), "Most bytes the log outbox may take.", PT_GAUGE, "bytes" },
	[LOG_SHIPPED] = { A("log_lines_shipped_total"), "Log lines that the gateway has taken.", PT_COUNTER },
	[LOG_DROPPED] = { A("log_lines_dropped_total"), "Log lines dropped because the outbox was full or could not be written.",
			  PT_COUNTER },
	[LOG_REFUSED] = { A("log_lines_refused_total"), "Log lines that the gateway has refused for good.", PT_COUNTER },
	[LOG_RETRIES] = { A("log_delivery_retries_total"), "Deliveries of log lines that must be tried again.", PT_COUNTER },
	[LOG_DAMAGED] = { A("log_outbox_damaged_total"), "Records of the log outbox found damaged.", PT_COUNTER },
	[LOG_SEALED] = { A("log_outbox_sealed_segments"), "Segments of the log outbox that no key of this agent opens.",
			 PT_GAUGE },
	[LOG_SEALED_DROPPED] = { A("log_outbox_sealed_dropped_total"), "Such segments dropped because the outbox was full.",
				 PT_COUNTER },
	[LOG_SYNCS] = { A("log_outbox_syncs_total"), "Calls of fsync for the log outbox.", PT_COUNTER },
};
const struct pt_metric_table pt_agent_metrics = { "Agent", rows, PT_COUNT(rows) };

static const struct pt_buckets run_time = { { 10000, 100000, 500000, 1000000, 5000000, 30000000, 120000000, 600000000 }, 8 };
static const char *const statuses[PT_RESULT_STATUSES] = { "succeeded", "failed", "cancelled", "expired" };

void pt_count_result(struct pt_agent *a, const char *type, const char *status, int64_t ms)
{
	size_t t = pt_op_index(type);

	for (size_t i = 0; i < PT_RESULT_STATUSES; i++)
		if (strcmp(statuses[i], status) == 0)
			a->counts.types[t].results[i]++;
	pt_histogram_add(&a->counts.types[t].seconds, &run_time, ms * 1000);
}

static void link_part(struct pt_exposition *x, const struct pt_link_view *v, const struct pt_agent_counts *c)
{
	if (v->agent[0]) {
		pt_metric_begin(x, INFO);
		pt_metric_put(x, 1, PT_LABELS(v->agent_name, v->agent));
	}
	pt_metric_one(x, LINK_UP, v->state == PT_LINK_UP);
	pt_metric_one(x, LINK_UPS, v->ups);
	pt_metric_one(x, ENABLED, v->enabled);
	pt_metric_one(x, SKEW, (double)v->skew_ms / 1000);
	if (v->last_ok_ms)
		pt_metric_one(x, LAST_EXCHANGE, (double)v->last_ok_ms / 1000);
	pt_metric_one(x, EXCHANGES, (double)c->exchanges);
	pt_metric_one(x, EXCHANGE_FAILURES, (double)c->exchange_failures);
	if (v->cert_expires)
		pt_metric_one(x, CERTIFICATE, (double)v->cert_expires);
}

static void key_part(struct pt_exposition *x, struct pt_keys *keys)
{
	struct pt_keys_state k;

	pt_keys_state(keys, &k);
	pt_metric_one(x, KEY_GENERATION, k.generation);
	if (k.changed_at)
		pt_metric_one(x, KEY_CHANGED, (double)k.changed_at);
	pt_metric_one(x, KEY_PREVIOUS, k.previous);
	pt_metric_one(x, KEY_BAD, k.bad);
}

static void work_part(struct pt_exposition *x, const struct pt_agent_counts *c)
{
	pt_metric_one(x, LEASES, (double)c->leases);
	pt_metric_begin(x, RESULTS);
	for (size_t t = 0; t <= PT_OP_TYPES_MAX; t++) {
		const char *type = pt_op_index_name(&t);

		for (size_t i = 0; i < PT_RESULT_STATUSES; i++)
			pt_metric_put(x, (double)c->types[t].results[i], PT_LABELS(type, statuses[i]));
	}
	pt_metric_one(x, DELIVERED, (double)c->published);
	pt_metric_one(x, REFUSED, (double)c->refused);
	pt_metric_one(x, RETRIES, (double)c->retries);
	pt_metric_begin(x, SECONDS);
	for (size_t t = 0; t <= PT_OP_TYPES_MAX; t++) {
		const char *type = pt_op_index_name(&t);

		pt_metric_histogram(x, &c->types[t].seconds, &run_time, PT_LABELS(type));
	}
}

static void spool_part(struct pt_exposition *x, const struct pt_spool_stats *st, const char *dir)
{
	int64_t room, size;

	pt_metric_one(x, SPOOL_ENTRIES, (double)st->entries);
	pt_metric_one(x, SPOOL_BYTES, (double)st->bytes);
	pt_metric_one(x, SPOOL_MAX, (double)st->max_bytes);
	pt_metric_one(x, SPOOL_OLDEST, (double)st->oldest_ms / 1000);
	pt_metric_one(x, SPOOL_FULL, st->full);
	pt_metric_one(x, SPOOL_DAMAGED, (double)st->damaged);
	pt_metric_one(x, SPOOL_DISK_FULL, st->disk_errno != 0);
	if (pt_disk_space(dir, &room, &size))
		pt_metric_one(x, SPOOL_DISK_FREE, (double)room);
	pt_metric_one(x, SPOOL_SEALED, (double)st->sealed);
	pt_metric_one(x, SPOOL_SEALED_BYTES, (double)st->sealed_bytes);
	pt_metric_one(x, SPOOL_SYNCS, (double)st->syncs);
}

static void log_part(struct pt_exposition *x, struct pt_agent *a)
{
	struct pt_outbox_stats st;
	int64_t refused, retries;

	if (!pt_ship_stats(a, &st, &refused, &retries))
		return;
	pt_metric_one(x, LOG_LINES, (double)st.waiting);
	pt_metric_one(x, LOG_UNFLUSHED, (double)(st.waiting - st.lines));
	pt_metric_one(x, LOG_BYTES, (double)st.bytes);
	pt_metric_one(x, LOG_MAX, (double)st.max_bytes);
	pt_metric_one(x, LOG_SHIPPED, (double)st.shipped);
	pt_metric_one(x, LOG_DROPPED, (double)st.dropped);
	pt_metric_one(x, LOG_REFUSED, (double)refused);
	pt_metric_one(x, LOG_RETRIES, (double)retries);
	pt_metric_one(x, LOG_DAMAGED, (double)st.damaged);
	pt_metric_one(x, LOG_SEALED, (double)st.sealed);
	pt_metric_one(x, LOG_SEALED_DROPPED, (double)st.sealed_dropped);
	pt_metric_one(x, LOG_SYNCS, (double)st.syncs);
}

void pt_report_metrics(void *agent, struct pt_buf *b)
{
	struct pt_agent *a = agent;
	struct pt_exposition x = { .b = b, .table = &pt_agent_metrics };
	struct pt_spool_stats st;
	struct pt_link_view v;

	pt_link_look(a, &v);
	pt_spool_stats(a->spool, &st);
	pt_metric_begin(&x, VERSION);
	pt_metric_put(&x, 1, PT_LABELS(PT_VERSION));
	pt_metric_one(&x, STATUS, !a->draining);
	pt_metric_one(&x, TASKS, pt_slots_running(a));
	pt_metric_one(&x, REQUESTS, a->local ? pt_local_active(a->local) : 0);
	pt_metric_one(&x, SESSIONS, v.state == PT_LINK_UP);
	pt_metric_one(&x, SLOTS, (double)a->conf->slots);
	pt_metric_one(&x, SLOTS_BUSY, pt_slots_busy(a));
	pt_metric_one(&x, ACCEPTING, !a->draining && !st.full && v.state == PT_LINK_UP);
	link_part(&x, &v, &a->counts);
	key_part(&x, &a->keys);
	work_part(&x, &a->counts);
	spool_part(&x, &st, a->conf->spool_dir);
	log_part(&x, a);
	pt_process_expose(b);
}
