/* The agent's keys and what it has stored under them: rotated while it runs, replaced while it is away, and given back. */
#include "agent/agent_int.h"
#include "agent_util.h"

/* A result in the spool that the gateway does not take, and the agent gone. */
static void leave_a_result(const char *op)
{
	fake_set(gw, &gw->put_status, 500);
	agent_begin(&t);
	fake_lease(gw, op, 1, "bytes", "{\"n\": 100000}");
	ok(fake_until(gw, fake_find(gw, op, 1)), "%s is stored, and refused for now", op);
}

static void leave_at_once(void)
{
	pt_agent_stop(t.a);
	agent_stop(&t);
}

static void write_keys(const char *text)
{
	struct pt_err err;

	if (pt_file_replace(t.token, text, strlen(text), 0600, &err) < 0)
		abort();
}

static void health(struct pt_buf *b)
{
	pt_buf_clear(b);
	pt_report_health(t.a, b);
}

static void test_rotation(void)
{
	pt_auto_buf b = PT_BUF_INIT(65536);
	int before;

	begin();
	leave_a_result("op_a");
	write_key(t.token, "key_2", "pts_2");
	health(&b); /* looks at the key, as each exchange and delivery does */
	ok(strstr(b.p, "\"key_id\": \"key_2\"") != NULL, "the key is replaced while the agent runs");
	leave_at_once();
	before = gw->accepted;
	fake_set(gw, &gw->put_status, 0);
	agent_begin(&t);
	ok(fake_until(gw, gw->accepted == before + 1), "a process that has the new key alone delivers what the old one stored");
	ok(fake_find(gw, "op_a", 1)->whole, "whole");
	end();
}

static void test_missing(void)
{
	pt_auto_buf b = PT_BUF_INIT(65536);
	pt_auto_buf m = PT_BUF_INIT(1 << 20);
	int before;

	begin();
	leave_a_result("op_a");
	leave_at_once();
	before = gw->accepted;
	fake_set(gw, &gw->put_status, 0);
	write_key(t.token, "key_2", "pts_2");
	agent_begin(&t);
	fake_lease(gw, "op_b", 1, "bytes", "{\"n\": 10}");
	ok(fake_until(gw, fake_find(gw, "op_b", 1)), "with a new key only: the agent works");
	health(&b);
	ok(strstr(b.p, "\"sealed\": 1") && strstr(b.p, "\"sealed_by\": \"key_1\"") && strstr(b.p, "\"damaged\": 0"),
	   "and says what it cannot open, and whose it is");
	ok(strstr(b.p, "\\\"previous\\\"") != NULL, "and what to do");
	pt_report_metrics(t.a, &m);
	ok(strstr(m.p, "\npostern_agent_spool_sealed_segments 1\n") != NULL, "metrics, too");
	write_keys("{\"key_id\": \"key_2\", \"key_secret\": \"pts_2\", "
		   "\"previous\": {\"key_id\": \"key_1\", \"key_secret\": \"pts_1\"}}");
	health(&b);
	ok(fake_until(gw, gw->accepted == before + 2), "the old key as previous: delivered, without a restart");
	health(&b);
	ok(strstr(b.p, "\"sealed\": 0") != NULL, "nothing is sealed any more");
	ok(!strstr(b.p, "pts_"), "no secret in health");
	end();
}

static void test_token_file(void)
{
#define KEY "\"key_id\": \"key_1\", \"key_secret\": \"pts_1\""
	static const struct {
		const char *text, *error; /* NULL: fine */
	} cases[] = {
		{ "{" KEY ", \"previous\": {\"mcd_id\": \"key_0\", \"mcd_token\": \"pts_0\"}}", NULL },
		{ "{" KEY ", \"previous\": []}", NULL },
		{ "{" KEY ", \"previous\": [{" KEY "}, {" KEY "}]}", NULL },
		{ "{" KEY ", \"previous\": \"key_0\"}", "something that is not a key" },
		{ "{" KEY ", \"previous\": [{\"key_id\": \"key_0\"}]}", "no text member \"key_secret\"" },
		{ "{" KEY ", \"previous\": {\"key_id\": \"key_0\", \"key_secret\": \"<secret>\"}}", "placeholder" },
		{ "{" KEY ", \"previous\": [{},{},{},{},{},{},{},{},{}]}", "more than 8" },
		/* Random text may hold a word of a placeholder: what has the form of a key is one. */
		{ "{\"key_id\": \"key_01m80bhfgexxxx7b3a474hqpmb\", \"key_secret\": "
		  "\"pts_XXxXCyour_aRq3yUr-ZLGiPWb3FzfExAmplehYkl4AQ\"}",
		  NULL },
		{ "{\"key_id\": \"key_xxxx\", \"key_secret\": \"pts_1\"}", "\"key_id\" still is a placeholder" },
		{ "{\"key_id\": \"key_1\", \"key_secret\": \"pts_xxxxxxxxxxxxxxxx\"}", "\"key_secret\" still is a placeholder" },
		{ "{\"mcd_id\": \"your-mcd-id\", \"mcd_token\": \"your-mcd-token\"}", "placeholder" },
	};
	struct pt_keys keys;
	struct pt_err err;

	begin();
	for (size_t i = 0; i < PT_COUNT(cases); i++) {
		int rc;

		write_keys(cases[i].text);
		rc = pt_keys_open(&keys, t.token, &err);
		ok(cases[i].error ? rc == PT_E_INVALID && strstr(err.msg, cases[i].error) : rc == 0, "%s", cases[i].text);
		ok(rc == 0 || !strstr(err.msg, "pts_"), "no secret in the message");
		pt_keys_close(&keys);
	}
	write_key(t.token, "key_1", "pts_1");
	end();
}

int main(void)
{
	struct pt_err err;

	temp_dir(dir);
	if (pt_log_init("error", "plain", 0, &err) < 0)
		return 1;
	test_rotation();
	test_missing();
	test_token_file();
	wipe(dir, true);
	return tap_end();
}
