/* Many small results of the spool in one request: which go together, what each item of the answer means for its entry, and what an answer
 * that is not a gateway's, or an older gateway's, means for all of them. */
#include "agent_util.h"

/* Results of an earlier process wait in the spool: n with a small body, then one whose body is large when that is asked for. */
static void fill(int n, size_t large)
{
	struct pt_seal_ring r = { .generation = 1 };
	struct pt_spool *s = NULL;
	struct pt_err err;
	char op[20];

	ok_quiet(pt_seal_ring_add(&r, "spool", "key_1", "pts_1", &err) == 0);
	ok_quiet(pt_spool_open(&s, t.spool, 64 << 20, &r, &err) == 0);
	for (int i = 0; i < n; i++) {
		snprintf(op, sizeof(op), "op_%d", i);
		ok_quiet(put_result(s, op, 1, i % 2 ? 100 : 0, &err) == 0);
	}
	if (large)
		ok_quiet(put_result(s, "op_large", 1, large, &err) == 0);
	pt_spool_close(s);
}

static void start(int n, size_t large)
{
	begin();
	t.conf.publishers = 1; /* nobody else takes any */
	gw->many = true;
	fill(n, large);
}

/* Nothing is left in the spool; the gateway was told of each exactly `times`. */
static bool each_came(int n, int times)
{
	char op[20];

	for (int i = 0; i < n; i++) {
		snprintf(op, sizeof(op), "op_%d", i);
		if (fake_count(gw, op) != times)
			return false;
	}
	return true;
}

static void test_together(void)
{
	start(70, 300000);
	fake_lease_to(gw, &gw->put_leases, "op_next", 1, "bytes", "{\"n\": 10}", 60000, 3600000);
	agent_begin(&t);
	ok(fake_until(gw, fake_find(gw, "op_next", 1)), "the answer's lease runs");
	ok(fake_until(gw, gw->accepted == 72), "everything is delivered");
	ok(each_came(70, 1) && fake_count(gw, "op_large") == 1, "once each");
	is_int(fake_get(gw, gw->n_posts), 2, "with two requests");
	is_int(fake_get(gw, gw->most_posted), 64, "64 at most in one");
	is_int(fake_get(gw, gw->n_posted), 70, "all that are small");
	ok(fake_find(gw, "op_large", 1)->whole && fake_find(gw, "op_large", 1)->bytes > 32768, "the large one by a PUT");
	ok(fake_find(gw, "op_1", 1)->whole && fake_find(gw, "op_1", 1)->bytes == 100, "with their bodies");
	end();
}

static void test_one(void)
{
	start(1, 0);
	agent_begin(&t);
	ok(fake_until(gw, gw->accepted == 1), "one result");
	is_int(fake_get(gw, gw->n_posts), 0, "goes by a PUT");
	end();
}

static void test_items(void)
{
	static const struct {
		int status;
		bool again, foreign;
	} cases[] = {
		{ 409, false }, { 404, false }, { 400, false },      { 413, false },      { 401, true }, { 429, true },
		{ 500, true },  { 503, true },  { 404, true, true }, { 409, true, true }, { 201, true }, { 400, true, true }
	};

	for (size_t i = 0; i < PT_COUNT(cases); i++) {
		start(5, 0);
		gw->item_status[2] = cases[i].status;
		gw->item_foreign = cases[i].foreign;
		agent_begin(&t);
		ok(fake_until(gw, gw->accepted == 4 + cases[i].again), "%d%s: the others are taken", cases[i].status,
		   cases[i].foreign ? " without our code" : "");
		is_int(fake_get(gw, gw->n_posted), 5, "they came together");
		is_int(fake_count(gw, "op_2"), 1 + cases[i].again, cases[i].again ? "it is sent again" : "it is dropped");
		is_int(fake_get(gw, gw->n_puts), 5 + cases[i].again, "nothing else is");
		agent_stop(&t);
		agent_begin(&t); /* what is still in the spool would come first */
		fake_lease(gw, "op_end", 1, "bytes", "{\"n\": 10}");
		ok(fake_until(gw, fake_find(gw, "op_end", 1)), "after a restart");
		is_int(fake_get(gw, gw->n_puts), 6 + cases[i].again, "nothing of it is left");
		end();
	}
}

/* Answers for all: none of them may cost a result. */
static void test_whole(void)
{
	static const struct {
		const char *what;
		int status;
		bool foreign, odd, put; /* put: each goes by a PUT at once */
	} cases[] = {
		{ "400 of a gateway", 400, false, false, true },
		{ "413 of a gateway", 413, false, false, true },
		{ "405", 405, false, false, true },
		{ "404 of an older gateway", 404, false, false, true },
		{ "404 of an ingress", 404, true, false, true },
		{ "400 of a proxy", 400, true, false, true },
		{ "409", 409, false, false, false },
		{ "401", 401, false, false, false },
		{ "503", 503, false, false, false },
		{ "500", 500, true, false, false },
		{ "200 of a login page", 200, true, false, false },
		{ "an item too many", 0, false, true, false },
	};

	for (size_t i = 0; i < PT_COUNT(cases); i++) {
		start(5, 0);
		gw->many_status = cases[i].status;
		gw->many_odd = cases[i].odd;
		gw->foreign = cases[i].foreign;
		gw->put_status = 503; /* while that lasts */
		agent_begin(&t);
		ok(fake_until(gw, gw->n_posts >= 1 && (!cases[i].put || gw->n_puts >= 1)), "%s", cases[i].what);
		if (!cases[i].odd)
			is_int(fake_get(gw, gw->accepted), 0, "nothing is taken");
		pthread_mutex_lock(&gw->lock);
		gw->many_status = gw->put_status = 0;
		gw->foreign = gw->many_odd = false;
		gw->accepted = 0;
		pthread_mutex_unlock(&gw->lock);
		ok(fake_until(gw, gw->accepted == 5), "%s: all of them arrive in the end", cases[i].what);
		end();
	}
}

static void test_older_gateway(void)
{
	start(5, 0);
	gw->many = false;
	agent_begin(&t);
	ok(fake_until(gw, gw->accepted == 5), "an older gateway gets PUTs");
	ok(each_came(5, 1), "one for each");
	is_int(fake_get(gw, gw->n_posts) <= 2, 1, "it was asked, and once more when the link came up");
	for (int i = 0; i < 4; i++) {
		char op[20];

		snprintf(op, sizeof(op), "op_x%d", i);
		fake_lease(gw, op, 1, "bytes", "{\"n\": 10}");
	}
	ok(fake_until(gw, gw->accepted == 9), "more results");
	ok(fake_get(gw, gw->n_posts) <= 2, "it is not asked again");
	fake_hang_up(gw);
	ok(fake_until(gw, true), "it is replaced by a newer one");
	gw->many = true;
	agent_stop(&t);
	fill(5, 0);
	fake_listen(gw);
	agent_begin(&t);
	ok(fake_until(gw, gw->accepted == 14 && gw->n_posted >= 2), "which gets them together");
	end();
}

int main(void)
{
	struct pt_err err;

	setvbuf(stdout, NULL, _IOLBF, 0);
	temp_dir(dir);
	if (pt_log_init(getenv("PT_TEST_LOG") ? "debug" : "error", "plain", 0, &err) < 0)
		return 1;
	test_together();
	test_one();
	test_items();
	test_whole();
	test_older_gateway();
	wipe(dir, true);
	return tap_end();
}
