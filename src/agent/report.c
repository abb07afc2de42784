/* What the agent says about itself: is it alive, can it take work, health as JSON.  Never a value of an environment
 * variable, never a secret. */
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

int pt_agent_ready(struct pt_agent *a, struct pt_err *err)
{
	struct pt_spool_stats st;
	struct pt_link_view v;

	pt_link_look(a, &v);
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
	struct pt_link_view v;
	struct pt_key k;
	const char *stuck = pt_agent_stuck(a);
	bool ready = pt_agent_ready(a, &err) == 0;

	pt_link_look(a, &v);
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
