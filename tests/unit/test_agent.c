/* The agent against a gateway in the same process: leases, results, refusals, cancels, keys. */
#include "agent_util.h"

static void test_results(void)
{
	struct fake_put *p;

	begin();
	fake_lease(gw, "op_small", 1, "bytes", "{\"n\": 1000}");
	fake_lease(gw, "op_large", 1, "bytes", "{\"n\": 3000000}");
	fake_lease(gw, "op_fail", 1, "fail", "{}");
	fake_lease_to(gw, &gw->leases, "op_late", 1, "sleep", "{}", 60000, -1000);
	agent_begin(&t);
	ok(fake_until(gw, gw->accepted == 4), "four leases, four results");
	p = fake_find(gw, "op_small", 1);
	ok(p && !strcmp(p->status, "succeeded") && p->bytes == 1000 && p->whole, "a small body");
	p = fake_find(gw, "op_large", 1);
	ok(p && !strcmp(p->status, "succeeded") && p->bytes > 16384 && p->whole, "a large body, streamed from its file");
	p = fake_find(gw, "op_fail", 1);
	ok(p && !strcmp(p->status, "failed") && !strcmp(p->code, "query_failed") && p->bytes == 0,
	   "an error, without the half of a body");
	p = fake_find(gw, "op_late", 1);
	ok(p && !strcmp(p->status, "expired"), "past its deadline before it began: expired");
	is_int(started, 3, "and not started");
	ok(fake_until(gw, gw->last.slots == 4 && gw->last.types.n == 3 && !gw->last.draining),
	   "the exchange says slots and types");
	fake_lease_to(gw, &gw->put_leases, "op_next", 1, "bytes", "{\"n\": 5}", 60000, 60000);
	fake_lease(gw, "op_first", 1, "bytes", "{\"n\": 5}");
	ok(fake_until(gw, fake_find(gw, "op_next", 1)), "a lease in the answer to a result is run");
	end();
}

static void test_redelivery(void)
{
	begin();
	fake_lease(gw, "op_a", 1, "sleep", "{}");
	agent_begin(&t);
	ok(fake_until(gw, fake_holds(gw, "op_a") && fake_holds(gw, "op_a")->started_at), "held, and told as started soon");
	fake_lease(gw, "op_a", 1, "sleep", "{}");
	fake_lease(gw, "op_b", 1, "bytes", "{\"n\": 1}");
	ok(fake_until(gw, fake_find(gw, "op_b", 1)), "an answer that repeats the lease of a running attempt");
	is_int(started, 2, "is ignored");
	wake_sleepers = 1;
	ok(fake_until(gw, fake_find(gw, "op_a", 1)), "it ends");
	fake_lease(gw, "op_a", 1, "sleep", "{}");
	fake_lease(gw, "op_c", 1, "bytes", "{\"n\": 1}");
	ok(fake_until(gw, fake_find(gw, "op_c", 1)), "and an answer that repeats one that has ended");
	is_int(started, 3, "is ignored too");
	fake_lease(gw, "op_a", 2, "bytes", "{\"n\": 1}");
	ok(fake_until(gw, fake_find(gw, "op_a", 2)), "the next attempt of the same operation is run");
	end();
}

static void test_cancel(void)
{
	struct fake_put *p;

	begin();
	fake_lease(gw, "op_a", 1, "sleep", "{}");
	fake_lease(gw, "op_b", 1, "sleep", "{}");
	fake_lease(gw, "op_c", 1, "sleep", "{}");
	fake_lease_to(gw, &gw->leases, "op_d", 1, "sleep", "{}", 200, 60000);
	agent_begin(&t);
	ok(fake_until(gw, started == 4), "four run");
	fake_ref(gw, &gw->cancels, "op_a", 1, "cancelled");
	fake_ref(gw, &gw->cancels, "op_b", 1, "deadline_exceeded");
	fake_ref(gw, &gw->drops, "op_c", 1, "stale_attempt");
	fake_ref(gw, &gw->drops, "op_unknown", 1, "stale_attempt");
	ok(fake_until(gw, gw->accepted == 3), "cancelled, past the deadline, timed out: a result each");
	p = fake_find(gw, "op_a", 1);
	ok(p && !strcmp(p->status, "cancelled") && !strcmp(p->code, "cancelled"), "cancelled");
	p = fake_find(gw, "op_b", 1);
	ok(p && !strcmp(p->status, "expired"), "expired");
	p = fake_find(gw, "op_d", 1);
	ok(p && !strcmp(p->status, "failed") && !strcmp(p->code, "deadline_exceeded"), "its own time limit: failed");
	fake_poke(gw);
	ok(fake_until(gw, gw->last.holding.n == 0), "the dropped one is no longer held");
	ok(!fake_find(gw, "op_c", 1), "and its result is thrown away");
	end();
}

static void test_refusals(void)
{
	static const struct {
		int status;
		bool again, foreign;
	} cases[] = { { 409, false }, { 404, false }, { 400, false }, { 413, false }, { 401, true },	   { 403, true },
		      { 408, true },  { 429, true },  { 500, true },  { 503, true },  { 404, true, true }, { 400, true, true },
		      { 409, true, true }, { 200, true, true } };

	for (size_t i = 0; i < PT_COUNT(cases); i++) {
		begin();
		gw->put_status = cases[i].status;
		gw->foreign = cases[i].foreign;
		fake_lease(gw, "op_a", 1, "bytes", "{\"n\": 10}");
		agent_begin(&t);
		ok(fake_until(gw, fake_count(gw, "op_a") >= 1 + cases[i].again), "%d%s: tried", cases[i].status,
		   cases[i].foreign ? " of somebody else" : "");
		pthread_mutex_lock(&gw->lock);
		gw->put_status = 0;
		gw->foreign = false;
		pthread_mutex_unlock(&gw->lock);
		fake_lease(gw, "op_b", 1, "bytes", "{\"n\": 10}");
		ok(fake_until(gw, fake_find(gw, "op_b", 1) && gw->accepted == 1 + cases[i].again), "others go through");
		if (!cases[i].again)
			is_int(fake_count(gw, "op_a"), 1, "a refusal for good is not repeated");
		else
			is_str(gw->puts[gw->n_puts - 1].status, "succeeded", "the result arrives in the end");
		end();
	}
}

static void test_outage(void)
{
	int before;

	begin();
	fake_lease(gw, "op_a", 1, "sleep", "{}");
	agent_begin(&t);
	ok(fake_until(gw, started == 1 && fake_holds(gw, "op_a")), "one runs");
	fake_hang_up(gw);
	wake_sleepers = 1;
	usleep(300000); /* it ends while nobody is there; any moment will do */
	before = gw->n_puts;
	is_int(before, 0, "nothing could be delivered");
	fake_listen(gw);
	ok(fake_until(gw, fake_find(gw, "op_a", 1)), "the gateway is back: the result is delivered");
	ok(fake_until(gw, gw->held != NULL), "and the link is up again");
	/* the same with the agent gone in between */
	gw->put_status = 500;
	fake_lease(gw, "op_b", 1, "bytes", "{\"n\": 100000}");
	ok(fake_until(gw, fake_find(gw, "op_b", 1)), "another result, refused for now");
	pt_agent_stop(t.a);
	ok(agent_stop(&t) < 3000, "told twice to stop: at once");
	fake_set(gw, &gw->put_status, 0);
	before = gw->accepted;
	fake_lease_to(gw, &gw->put_leases, "op_old", 1, "bytes", "{\"n\": 5}", 60000, 60000); /* for the instance that is gone */
	agent_begin(&t);
	ok(fake_until(gw, gw->accepted == before + 1), "the next process delivers what was in the spool");
	ok(fake_find(gw, "op_b", 1)->whole, "whole");
	fake_lease(gw, "op_c", 1, "bytes", "{\"n\": 5}");
	ok(fake_until(gw, fake_find(gw, "op_c", 1)), "and goes on");
	ok(!fake_find(gw, "op_old", 1), "what the answer leased to its predecessor it leaves alone");
	end();
}

static void test_key(void)
{
	int before;

	begin();
	snprintf(gw->want_auth, sizeof(gw->want_auth), "Basic a2V5XzI6cHRzXzI="); /* key_2:pts_2 */
	agent_begin(&t);
	ok(fake_until(gw, gw->refused_auth >= 1), "a key that the gateway refuses: the agent stays");
	snprintf(gw->want_auth, sizeof(gw->want_auth), "Basic a2V5XzE6cHRzXzE="); /* key_1:pts_1 */
	agent_stop(&t);
	agent_begin(&t);
	ok(fake_until(gw, gw->held != NULL), "the right key: the link is up");
	write_key(t.token, "key_2", "pts_2");
	pthread_mutex_lock(&gw->lock);
	snprintf(gw->want_auth, sizeof(gw->want_auth), "Basic a2V5XzI6cHRzXzI=");
	pthread_mutex_unlock(&gw->lock);
	fake_lease(gw, "op_a", 1, "bytes", "{\"n\": 1}");
	ok(fake_until(gw, fake_find(gw, "op_a", 1)), "the key is rotated by its file, without a restart");
	end();

	begin();
	agent_begin(&t);
	ok(fake_until(gw, gw->held != NULL), "an exchange waits");
	pthread_mutex_lock(&gw->lock);
	snprintf(gw->want_auth, sizeof(gw->want_auth), "Basic a2V5XzI6cHRzXzI=");
	before = gw->exchanges;
	pthread_mutex_unlock(&gw->lock);
	write_key(t.token, "key_2", "pts_2");
	ok(fake_until(gw, gw->exchanges > before && gw->held), "a new key does not wait for its end");
	is_int(gw->refused_auth, 0, "and the old one was not used again");
	end();
}

static void test_start_errors(void)
{
	static const struct {
		const char *text, *says;
		int code;
	} cases[] = {
		{ NULL, "token file", PT_E_NOT_FOUND },
		{ "", "not a JSON object", PT_E_INVALID },
		{ "pts_abc", "not a JSON object", PT_E_INVALID },
		{ "{\"key_id\": \"key_1\"}", "key_secret", PT_E_INVALID },
		{ "{\"key_id\": \"key_1\", \"key_secret\": 5}", "key_secret", PT_E_INVALID },
		{ "{\"key_id\": \"<key id>\", \"key_secret\": \"<secret>\"}", "placeholder", PT_E_INVALID },
	};
	static const char old_names[] = "{\"mcd_id\": \"k\", \"mcd_token\": \"s\"}";
	struct pt_agent *a = NULL;
	struct pt_err err;
	char taken[40];

	begin();
	for (size_t i = 0; i < PT_COUNT(cases); i++) {
		(void)unlink(t.token);
		if (cases[i].text && pt_file_replace(t.token, cases[i].text, strlen(cases[i].text), 0600, &err) < 0)
			abort();
		is_int(pt_agent_start(&a, &t.conf, &err), cases[i].code, "token file %zu", i);
		ok(strstr(err.msg, cases[i].says) && *err.hint && !strstr(err.msg, "pts_"), "%s (%s)", err.msg, err.hint);
	}
	if (pt_file_replace(t.token, old_names, strlen(old_names), 0600, &err) < 0)
		abort();
	t.conf.gateway_url = "gateway.example.com";
	ok(pt_agent_start(&a, &t.conf, &err) == PT_E_INVALID && strstr(err.msg, "--gateway-url"), "%s", err.msg);
	t.conf.gateway_url = "https://u:secret@gateway.example.com";
	ok(pt_agent_start(&a, &t.conf, &err) == PT_E_INVALID && !strstr(err.msg, "secret"), "%s", err.msg);
	t.conf.gateway_url = t.url;
	t.conf.blocked_cidrs = "10.0.0.0/99";
	ok(pt_agent_start(&a, &t.conf, &err) == PT_E_INVALID, "%s", err.msg);
	t.conf.blocked_cidrs = NULL;
	snprintf(taken, sizeof(taken), "127.0.0.1:%u", gw->port);
	t.conf.listen = taken;
	ok(pt_agent_start(&a, &t.conf, &err) == PT_E_UNAVAILABLE && *err.hint, "%s (%s)", err.msg, err.hint);
	t.conf.listen = "127.0.0.1:0";
	t.conf.spool_dir = "/proc/postern";
	ok(pt_agent_start(&a, &t.conf, &err) < 0 && *err.hint, "%s (%s)", err.msg, err.hint);
	t.conf.spool_dir = t.spool;
	agent_begin(&t);
	ok(fake_until(gw, gw->held != NULL), "mcd_id and mcd_token are read too");
	ok(pt_agent_start(&a, &t.conf, &err) == PT_E_CONFLICT, "%s", err.msg);
	end();
}

int main(void)
{
	struct pt_err err;

	setvbuf(stdout, NULL, _IOLBF, 0);
	temp_dir(dir);
	if (pt_log_init(getenv("PT_TEST_LOG") ? "debug" : "error", "plain", 0, &err) < 0)
		return 1;
	test_results();
	test_redelivery();
	test_cancel();
	test_refusals();
	test_outage();
	test_key();
	test_start_errors();
	wipe(dir, true);
	return tap_end();
}
