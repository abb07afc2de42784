/* Starting, stopping and draining: the order in which the parts come and go. */
#include "agent/agent_int.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/log.h"
#include "config.h"
#include <stdio.h>

enum { STACK_BYTES = 256 * 1024, EXEC_STOP_MS = 1000, ORDERED_DELIVER_MS = 5000, LOG_SHARE_MS = 500 };

void pt_beat_within(struct pt_beat *b, int64_t ms)
{
	b->due = pt_mono_ms() + ms;
}

void pt_beat_tick(void *beat)
{
	pt_beat_within(beat, PT_BEAT_MS);
}

int pt_agent_thread(pthread_t *ret, const char *name, void *(*fn)(void *), void *arg, struct pt_err *err)
{
	pthread_attr_t attr;
	int e;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	e = pthread_create(ret, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	if (!e)
		(void)pthread_setname_np(*ret, name); /* without one it runs as well */
	errno = e;
	return e ? pt_fail_sys(err, PT_E_INTERNAL, "start a thread") : PT_OK;
}

/* --- start --- */

/* Without slashes at the end. */
static size_t base_length(const char *url)
{
	size_t n = strlen(url);

	while (n && url[n - 1] == '/')
		n--;
	return n;
}

static int check_conf(struct pt_agent *a, struct pt_err *err)
{
	const struct pt_agent_conf *c = a->conf;
	int rc = pt_agent_conf_check(c, NULL, NULL, err);

	if (rc == 0)
		rc = pt_stop_plan_make(&a->plan, c->stop_action, c->stop_timeout_ms, c->grace_s * 1000, err);
	if (rc < 0)
		return rc;
	a->base_url = strndup(c->gateway_url, base_length(c->gateway_url));
	if (!a->base_url)
		return pt_fail_oom(err);
	if (gethostname(a->hostname, sizeof(a->hostname) - 1) < 0)
		a->hostname[0] = '\0';
	a->http = pt_agent_http_conf(c);
	a->credential.dirs = c->credential_dirs;
	a->view = (struct pt_agent_view){ .arg = a, .health = pt_report_health, .metrics = pt_report_metrics, .http = &a->http,
					  .credential = &a->credential, .blocked_cidrs = c->blocked_cidrs,
					  .allowed_cidrs = c->allowed_cidrs };
	return pt_keys_open(&a->keys, c->token_file, err);
}

int pt_agent_ring(struct pt_agent *a, const char *use, struct pt_seal_ring *ret, struct pt_err *err)
{
	struct pt_key keys[1 + PT_KEYS_PREVIOUS];
	unsigned n = pt_keys_all(&a->keys, keys);
	int rc = PT_OK;

	ret->n = 0;
	ret->generation = keys[0].generation;
	for (unsigned i = 0; rc == 0 && i < n; i++)
		rc = pt_seal_ring_add(ret, use, keys[i].id, keys[i].secret, err);
	explicit_bzero(keys, sizeof(keys));
	return rc;
}

/* The token file has changed. */
static void keys_changed(void *agent)
{
	struct pt_agent *a = agent;
	struct pt_seal_ring ring;
	struct pt_err err = { 0 };
	int rc = pt_agent_ring(a, "spool", &ring, &err);

	if (rc == 0)
		rc = pt_spool_rekey(a->spool, &ring, &err);
	if (rc < 0)
		pt_log_err(PT_LOG_WARN, "the spool is not yet sealed for the agent's new key", &err);
	pt_seal_ring_clear(&ring);
	pt_ship_rekey(a);
}

static int open_spool(struct pt_agent *a, struct pt_err *err)
{
	struct pt_seal_ring ring;
	int rc = pt_agent_ring(a, "spool", &ring, err);

	if (rc == 0)
		rc = pt_spool_open(&a->spool, a->conf->spool_dir, a->conf->spool_max_bytes, &ring, err);
	pt_seal_ring_clear(&ring);
	a->keys.arg = a;
	a->keys.changed = rc == 0 ? keys_changed : NULL;
	return rc;
}

int pt_agent_start(struct pt_agent **ret, const struct pt_agent_conf *conf, struct pt_err *err)
{
	struct pt_agent *a = calloc(1, sizeof(*a));
	struct pt_spool_stats st;
	int rc;

	if (!a)
		return pt_fail_oom(err);
	a->conf = conf;
	a->started_at = pt_wall_ms();
	a->started_mono = pt_mono_ms();
	pt_id_new(a->instance, "in");
	pthread_mutex_init(&a->lock, NULL);
	pt_cond_init(&a->changed);
	pt_link_init(a);
	a->publish_stop.fd = -1;
	rc = pt_cancel_init(&a->publish_stop, err);
	if (rc == 0)
		rc = check_conf(a, err);
	if (rc == 0)
		rc = open_spool(a, err);
	if (rc == 0)
		rc = pt_ship_start(a, err);
	if (rc == 0)
		rc = pt_slots_open(a, err);
	if (rc == 0)
		rc = pt_publishers_init(a, err);
	if (rc == 0)
		rc = pt_local_start(a, err);
	if (rc == 0)
		rc = pt_publishers_start(a, err);
	if (rc == 0)
		rc = pt_link_start(a, err);
	if (rc < 0) {
		pt_agent_free(a);
		return rc;
	}
	pt_spool_stats(a->spool, &st);
	pt_info("agent started", "version", PT_VERSION, "instance", a->instance, "gateway", a->base_url, "slots",
		pt_num(conf->slots), "results_waiting", st.entries ? pt_num(st.entries) : NULL);
	*ret = a;
	return PT_OK;
}

/* --- stop --- */

void pt_agent_stop(struct pt_agent *a)
{
	int n;

	pthread_mutex_lock(&a->lock);
	n = ++a->stop;
	pthread_cond_broadcast(&a->changed);
	pthread_mutex_unlock(&a->lock);
	pthread_mutex_lock(&a->slots.lock);
	pthread_cond_broadcast(&a->slots.changed);
	pthread_mutex_unlock(&a->slots.lock);
	if (n < 2)
		return;
	pt_spool_stop(a->spool);
	pt_cancel_fire(&a->publish_stop, PT_E_CANCELLED, "the agent is told to leave at once");
	pt_link_phase(a, 3);
}

void pt_agent_order_drain(struct pt_agent *a)
{
	pthread_mutex_lock(&a->lock);
	a->drain_ordered = true;
	pthread_cond_broadcast(&a->changed);
	pthread_mutex_unlock(&a->lock);
}

static int64_t after(int64_t ms)
{
	int64_t now = pt_mono_ms();

	return ms > INT64_MAX / 2 - now ? INT64_MAX / 2 : now + ms;
}

static void cancel_all(struct pt_agent *a)
{
	pt_warn("operations are cancelled and given back, because the agent has to stop", "operations", pt_num(pt_slots_busy(a)));
	pt_slots_cancel_all(a);
}

/* Finish, then cancel, then deliver.  A phase that ends early leaves its time to the delivery; without a limit of the whole it
 * has its own share. */
static void drain(struct pt_agent *a)
{
	const struct pt_stop_plan *p = &a->plan;
	struct pt_spool_stats st;
	int64_t last, left;

	pt_slots_drain(a);
	if (!pt_slots_wait(a, -1, 0)) /* an idle agent has nothing to say before its goodbye */
		pt_link_phase(a, 1);
	if (!a->stop) /* ordered by the gateway: as long as it takes, until somebody here wants it quicker */
		(void)pt_slots_wait(a, 0, INT64_MAX / 2);
	last = after(pt_stop_plan_total(p)) - p->goodbye_ms - p->end_ms;
	if (!pt_slots_wait(a, 1, after(p->finish_ms))) {
		cancel_all(a);
		(void)pt_slots_wait(a, 1, after(p->cancel_ms));
	}
	a->delivering = true;
	pt_spool_wake(a->spool);
	left = p->finish_ms == INT64_MAX ? p->deliver_ms : last - pt_mono_ms();
	if (!a->stop && left < ORDERED_DELIVER_MS)
		left = ORDERED_DELIVER_MS;
	if (!pt_spool_wait_empty(a->spool, left < 0 ? 0 : left)) {
		pt_spool_stats(a->spool, &st);
		pt_warn("results stay in the spool for the next start", "results", pt_num(st.entries), "folder",
			a->conf->spool_dir);
	}
	pt_ship_drain(a, LOG_SHARE_MS);
}

/* Leave: what runs is given back by the goodbye, results stay on disk. */
static void force(struct pt_agent *a)
{
	pt_slots_drain(a);
	if (!pt_slots_wait(a, -1, 0))
		cancel_all(a);
	pt_slots_settle(a, after(a->plan.end_ms));
}

/* Every thread ends, in an order in which nobody is left waiting for somebody who has gone. */
static void end_threads(struct pt_agent *a)
{
	bool idle;

	if (a->spool)
		pt_publishers_join(a);
	if (a->slots.exec) {
		pt_slots_abort(a);
		idle = pt_slots_wait(a, INT32_MAX, a->plan.action == PT_STOP_FORCE ? 0 : after(a->plan.end_ms));
		pt_link_phase(a, a->stop >= 2 ? 3 : 2);
		pt_link_join(a);
		if (a->slots.exec->ops->stop(a->slots.exec, idle ? EXEC_STOP_MS : 0) > 0) {
			pt_warn("an operation does not end; it is left behind");
			a->abandoned = true;
		}
		a->slots.exec = NULL;
	}
	pt_local_stop(a);
}

bool pt_agent_run(struct pt_agent *a)
{
	pthread_mutex_lock(&a->lock);
	while (!a->stop && !a->drain_ordered)
		pthread_cond_wait(&a->changed, &a->lock);
	pthread_mutex_unlock(&a->lock);
	pt_info("agent is stopping", "action", pt_stop_actions[a->plan.action], "operations", pt_num(pt_slots_busy(a)));
	pthread_mutex_lock(&a->link.lock);
	a->draining = true;
	pthread_cond_broadcast(&a->link.wake); /* publishers that pause between two tries */
	pthread_mutex_unlock(&a->link.lock);
	if (a->plan.action == PT_STOP_FORCE && a->stop) /* a gateway that orders a drain means a drain */
		force(a);
	else
		drain(a);
	end_threads(a);
	pt_info("agent has stopped");
	pt_ship_stop(a);
	return !a->abandoned;
}

unsigned pt_agent_port(const struct pt_agent *a)
{
	return pt_local_port(a->local);
}

void pt_agent_free(struct pt_agent *a)
{
	if (!a)
		return;
	a->stop += 2; /* of a start that failed half-way: no goodbye */
	if (a->slots.exec || a->local || a->n_publishers || a->link_started)
		end_threads(a);
	pt_ship_stop(a);
	if (a->abandoned)
		return;
	if (a->slots.slots)
		pt_slots_close(a);
	pt_spool_close(a->spool);
	pt_keys_close(&a->keys);
	pt_cancel_release(&a->publish_stop);
	pthread_mutex_destroy(&a->link.lock);
	pthread_cond_destroy(&a->link.wake);
	pthread_mutex_destroy(&a->lock);
	pthread_cond_destroy(&a->changed);
	free(a->publishers);
	free(a->base_url);
	free(a);
}
