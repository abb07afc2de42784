/* What the agent says about itself: is it alive, can it take work, health as JSON, metrics as Prometheus text.  Never a value
 * of an environment variable, never a secret. */
#include "agent/agent_int.h"
#include "base/clock.h"
#include "config.h"
#include "net/url.h"

const char *pt_agent_stuck(struct pt_agent *a)
{
	int64_t now = pt_mono_ms();

	if (now > a->link.beat.due)
		return "the link's loop does not move";
	for (unsigned i = 0; i < (unsigned)a->conf->publishers; i++)
		if (a->publishers && now > a->publishers[i].beat.due)
			return "a publisher's loop does not move";
	if (pt_slots_stuck(a))
		return "an operation runs long after its time limit";
	return NULL;
}

/* A copy of what the link knows, taken under its lock. */
struct link_view {
	enum pt_link_state state;
	bool enabled, told_enabled, drain;
	struct pt_err err;
	int64_t since_ms, last_ok_ms, skew_ms;
	char agent[64], agent_name[128];
};

static void look(struct pt_agent *a, struct link_view *v)
{
	struct pt_link *l = &a->link;

	pthread_mutex_lock(&l->lock);
	*v = (struct link_view){ .state = l->state,
				  .enabled = l->enabled,
				  .told_enabled = l->told_enabled,
				  .drain = l->drain,
				  .err = l->last_err,
				  .since_ms = l->since_ms,
				  .last_ok_ms = l->last_ok_ms,
				  .skew_ms = l->skew_ms };
	memcpy(v->agent, l->agent, sizeof(v->agent));
	memcpy(v->agent_name, l->agent_name, sizeof(v->agent_name));
	pthread_mutex_unlock(&l->lock);
}

int pt_agent_ready(struct pt_agent *a, struct pt_err *err)
{
	struct pt_spool_stats st;
	struct link_view v;

	look(a, &v);
	if (a->draining)
		return pt_fail(err, PT_E_UNAVAILABLE, "the agent is stopping");
	if (v.state == PT_LINK_CONNECTING)
		return pt_fail(err, PT_E_UNAVAILABLE, "the first exchange with the gateway is under way");
	if (v.state != PT_LINK_UP) {
		*err = v.err;
		return pt_err_wrap(err, err->code,
				   v.state == PT_LINK_REFUSED ? "the gateway refuses the agent's key" : "the link is down");
	}
	pt_spool_stats(a->spool, &st);
	if (st.full && st.disk_errno) {
		errno = st.disk_errno;
		(void)pt_fail_sys(err, PT_E_LIMIT, "the disk of the spool is full (%lld of %lld bytes in use by the spool)",
				  (long long)st.bytes, (long long)st.max_bytes);
		return pt_hint(err, "give the volume of '%s' more room; the agent takes work again by itself",
			       a->conf->spool_dir);
	}
	if (st.full) {
		(void)pt_fail(err, PT_E_LIMIT, "the spool is full (%lld of %lld bytes)", (long long)st.bytes,
			      (long long)st.max_bytes);
		if (st.sealed_bytes >= st.max_bytes / 4)
			return pt_hint(err, "%lld bytes are sealed with key '%s': put it into the token file as \"previous\"",
				       (long long)st.sealed_bytes, st.sealed_by);
		return pt_hint(err, "results wait for the gateway; raise --spool-max-bytes or give the volume more room");
	}
	return PT_OK;
}

/* --- health --- */

static void key(struct pt_buf *b, const char *name)
{
	if (b->len && b->p[b->len - 1] != '{')
		pt_buf_str(b, ", ");
	pt_buf_fmt(b, "\"%s\": ", name);
}

static void text(struct pt_buf *b, const char *name, const char *v)
{
	if (!v || !*v)
		return;
	key(b, name);
	pt_buf_json(b, v, strlen(v));
}

static void num(struct pt_buf *b, const char *name, int64_t v)
{
	key(b, name);
	pt_buf_i64(b, v);
}

static void flag(struct pt_buf *b, const char *name, bool v)
{
	key(b, name);
	pt_buf_str(b, v ? "true" : "false");
}

static void when(struct pt_buf *b, const char *name, int64_t wall_ms)
{
	char t[32];

	if (!wall_ms)
		return;
	pt_time_text(wall_ms, t);
	text(b, name, t);
}

static const char *const link_states[] = { "connecting", "up", "down", "key refused" };

void pt_report_health(void *agent, struct pt_buf *b)
{
	struct pt_agent *a = agent;
	pt_auto_buf url = PT_BUF_INIT(4096);
	struct pt_spool_stats st;
	struct pt_err err = { 0 };
	struct link_view v;
	struct pt_key k;
	const char *stuck = pt_agent_stuck(a);
	bool ready = pt_agent_ready(a, &err) == 0;

	look(a, &v);
	pt_spool_stats(a->spool, &st);
	pt_keys_get(&a->keys, &k);
	explicit_bzero(k.secret, sizeof(k.secret));
	pt_url_masked(a->base_url, &url);
	pt_buf_chr(b, '{');
	text(b, "version", PT_VERSION);
	text(b, "platform", "generic");
	text(b, "instance", a->instance);
	text(b, "hostname", a->hostname);
	when(b, "started_at", a->started_at);
	num(b, "uptime_s", (pt_mono_ms() - a->started_mono) / 1000);
	flag(b, "ok", !stuck && ready);
	text(b, "stuck", stuck);
	text(b, "not_ready", ready ? NULL : err.msg);
	flag(b, "draining", a->draining);
	text(b, "gateway_url", url.p);
	text(b, "key_id", k.id);
	text(b, "token_file", a->conf->token_file);
	key(b, "link");
	pt_buf_chr(b, '{');
	text(b, "state", link_states[v.state]);
	when(b, "since", v.since_ms);
	when(b, "last_exchange", v.last_ok_ms);
	text(b, "agent", v.agent);
	text(b, "agent_name", v.agent_name);
	if (v.told_enabled)
		flag(b, "enabled", v.enabled);
	num(b, "clock_skew_ms", v.skew_ms);
	text(b, "error", v.state == PT_LINK_DOWN || v.state == PT_LINK_REFUSED ? v.err.msg : NULL);
	text(b, "hint", v.state == PT_LINK_DOWN || v.state == PT_LINK_REFUSED ? v.err.hint : NULL);
	pt_buf_chr(b, '}');
	key(b, "slots");
	pt_buf_chr(b, '{');
	num(b, "total", a->conf->slots);
	num(b, "busy", pt_slots_busy(a));
	num(b, "running", pt_slots_running(a));
	pt_buf_chr(b, '}');
	key(b, "spool");
	pt_buf_chr(b, '{');
	text(b, "folder", a->conf->spool_dir);
	num(b, "entries", st.entries);
	num(b, "bytes", st.bytes);
	num(b, "max_bytes", st.max_bytes);
	num(b, "oldest_ms", st.oldest_ms);
	flag(b, "full", st.full);
	text(b, "full_because",
	     !st.full        ? NULL
	     : st.disk_errno ? strerrordesc_np(st.disk_errno)
			     : "--spool-max-bytes is reached");
	num(b, "damaged", st.damaged);
	num(b, "sealed", st.sealed);
	num(b, "sealed_bytes", st.sealed_bytes);
	text(b, "sealed_by", st.sealed_by);
	text(b, "sealed_hint", st.sealed ? "put that key into the token file as \"previous\"; nothing is lost meanwhile" : NULL);
	pt_buf_chr(b, '}');
	key(b, "storage");
	pt_store_json(&a->conf->store, b);
	pt_buf_chr(b, '}');
}

/* --- metrics --- */

static void metric(struct pt_buf *b, const char *name, const char *type, const char *help)
{
	pt_buf_fmt(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void one(struct pt_buf *b, const char *name, const char *type, const char *help, int64_t v)
{
	metric(b, name, type, help);
	pt_buf_fmt(b, "%s %lld\n", name, (long long)v);
}

static void seconds(struct pt_buf *b, struct pt_agent *a)
{
	static const char *const bounds[PT_SECONDS_BUCKETS] = { "0.01", "0.1", "0.5", "1", "5", "30", "120", "600" };
	static const char name[] = "postern_agent_operation_seconds";
	int64_t sum = 0;

	metric(b, name, "histogram", "Run time of attempts that left a result.");
	for (size_t i = 0; i < PT_SECONDS_BUCKETS; i++)
		pt_buf_fmt(b, "%s_bucket{le=\"%s\"} %lld\n", name, bounds[i], (long long)(sum += a->counts.seconds[i]));
	sum += a->counts.seconds[PT_SECONDS_BUCKETS];
	pt_buf_fmt(b, "%s_bucket{le=\"+Inf\"} %lld\n%s_sum %.3f\n%s_count %lld\n", name, (long long)sum, name,
		   (double)a->counts.seconds_sum_ms / 1000, name, (long long)sum);
}

void pt_report_metrics(void *agent, struct pt_buf *b)
{
	struct pt_agent *a = agent;
	struct pt_agent_counts *c = &a->counts;
	unsigned busy = pt_slots_busy(a);
	struct pt_spool_stats st;
	struct link_view v;

	look(a, &v);
	pt_spool_stats(a->spool, &st);
	metric(b, "app_version_info", "gauge", "Version of the agent; always 1.");
	pt_buf_fmt(b, "app_version_info{version=\"%s\"} 1\n", PT_VERSION);
	one(b, "app_agent_status", "gauge", "1 while the agent takes work, 0 while it stops.", !a->draining);
	one(b, "app_active_task_count", "gauge", "Operations running in this instance.", pt_slots_running(a));
	one(b, "app_active_request_count", "gauge", "Requests being handled by the local endpoints.",
	    a->local ? pt_local_active(a->local) : 0);
	one(b, "app_open_sessions_count", "gauge", "Open sessions with the gateway.", v.state == PT_LINK_UP);
	one(b, "postern_agent_slots", "gauge", "Operations that this instance may run at the same time.", a->conf->slots);
	one(b, "postern_agent_slots_busy", "gauge", "Slots taken by operations.", busy);
	one(b, "postern_agent_accepting", "gauge", "1 while the instance asks for work.",
	    !a->draining && !st.full && v.state == PT_LINK_UP);
	one(b, "postern_agent_link_up", "gauge", "1 while exchanges with the gateway succeed.", v.state == PT_LINK_UP);
	one(b, "postern_agent_enabled", "gauge", "1 when the gateway gives this agent work.", v.enabled);
	metric(b, "postern_agent_clock_skew_seconds", "gauge", "The gateway's clock minus this machine's.");
	pt_buf_fmt(b, "postern_agent_clock_skew_seconds %.3f\n", (double)v.skew_ms / 1000);
	one(b, "postern_agent_exchanges_total", "counter", "Exchanges begun.", c->exchanges);
	one(b, "postern_agent_exchange_failures_total", "counter", "Exchanges that failed.", c->exchange_failures);
	one(b, "postern_agent_leases_total", "counter", "Attempts leased to this instance.", c->leases);
	metric(b, "postern_agent_results_total", "counter", "Results stored, by status.");
	for (size_t i = 0; i < PT_RESULT_STATUSES; i++)
		pt_buf_fmt(b, "postern_agent_results_total{status=\"%s\"} %lld\n", pt_result_statuses[i],
			   (long long)c->results[i]);
	one(b, "postern_agent_results_delivered_total", "counter", "Results that the gateway has taken.", c->published);
	one(b, "postern_agent_results_refused_total", "counter", "Results that the gateway has refused for good.", c->refused);
	one(b, "postern_agent_delivery_retries_total", "counter", "Deliveries that must be tried again.", c->retries);
	seconds(b, a);
	one(b, "postern_agent_spool_entries", "gauge", "Results waiting for delivery.", st.entries);
	one(b, "postern_agent_spool_bytes", "gauge", "Bytes of the spool on disk.", st.bytes);
	one(b, "postern_agent_spool_max_bytes", "gauge", "Most bytes the spool may take.", st.max_bytes);
	metric(b, "postern_agent_spool_oldest_seconds", "gauge", "Age of the oldest result waiting.");
	pt_buf_fmt(b, "postern_agent_spool_oldest_seconds %.3f\n", (double)st.oldest_ms / 1000);
	one(b, "postern_agent_spool_full", "gauge", "1 while the spool is full and no work is taken.", st.full);
	one(b, "postern_agent_spool_damaged_total", "counter", "Records and files of the spool found damaged.", st.damaged);
	one(b, "postern_agent_spool_disk_full", "gauge", "1 while the disk of the spool takes nothing more.", st.disk_errno != 0);
	one(b, "postern_agent_spool_sealed_segments", "gauge", "Segments of the spool that no key of the token file opens.",
	    st.sealed);
	one(b, "postern_agent_spool_sealed_bytes", "gauge", "Bytes of the spool that no key of the token file opens.",
	    st.sealed_bytes);
	one(b, "postern_agent_spool_syncs_total", "counter", "fsyncs of the spool.", st.syncs);
	pt_ship_metrics(a, b);
}
