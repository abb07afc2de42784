/* The local endpoints: what probes, health, reachability and metrics answer in each state. */
#include "agent_util.h"
#include "net/http_client.h"

static struct pt_http_client *client;

static int http(const char *method, const char *path, struct pt_buf *out)
{
	char url[200];
	struct pt_http_call c = { .method = method, .url = url, .out = out, .timeout_ms = 20000 };
	struct pt_err err;

	pt_buf_clear(out);
	snprintf(url, sizeof(url), "http://127.0.0.1:%u%s", pt_agent_port(t.a), path);
	if (pt_http_do(client, &c, &err) < 0) {
		printf("# %s %s: %s\n", method, path, err.msg);
		return -1;
	}
	return c.status;
}

/* Ask until the status is as wanted; the last status. */
static int until(const char *path, int want, struct pt_buf *out)
{
	int64_t end = pt_mono_ms() + 60000;
	int got;

	while ((got = http("GET", path, out)) != want && pt_mono_ms() < end)
		usleep(5000);
	return got;
}

static void is_json(const struct pt_buf *b, const char *what)
{
	struct pt_err err;
	json_t *j = NULL;

	ok(pt_json_parse(b->p, b->len, &j, &err) == 0 && json_is_object(j), "%s is a JSON object", what);
	json_decref(j);
}

static double metric_value(const struct pt_buf *b, const char *name)
{
	pt_auto_buf line = PT_BUF_INIT(200);
	const char *at;

	pt_buf_fmt(&line, "\n%s ", name);
	at = strstr(b->p, line.p);
	return at ? strtod(at + line.len, NULL) : -1;
}

static void test_up(void)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	pt_auto_buf file = PT_BUF_INIT(100);
	char port_file[100], *rest;
	struct pt_err err;
	int samples = 0, bad = 0;

	begin();
	snprintf(port_file, sizeof(port_file), "%s/port", dir);
	t.conf.port_file = port_file;
	fake_lease(gw, "op_a", 1, "bytes", "{\"n\": 10}");
	fake_lease(gw, "op_b", 1, "sleep", "{}");
	agent_begin(&t);
	ok(pt_file_read(port_file, &file, &err) == 0 && (unsigned)strtoul(file.p, NULL, 10) == pt_agent_port(t.a),
	   "the port file");
	is_int(until("/readyz", 200, &b), 200, "ready once the link is up");
	is_int(http("GET", "/livez", &b), 200, "alive");
	ok(fake_until(gw, gw->accepted == 1 && started == 2), "one done, one running");
	is_int(http("GET", "/api/v1/test/healthcheck", &b), 200, "healthcheck");
	ok(strstr(b.p, "\"ok\": true"), "%s", b.p);
	is_int(http("GET", "/api/v1/test/health", &b), 200, "health");
	is_json(&b, "health");
	ok(strstr(b.p, "\"agent_name\": \"warehouse\"") && strstr(b.p, "\"key_id\": \"key_1\"") && strstr(b.p, "\"busy\": 1"),
	   "tells names and slots");
	ok(!strstr(b.p, "pts_1"), "and no secret");
	is_int(http("POST", "/api/v1/test/reachability", &b), 200, "reachability");
	is_json(&b, "its answer");
	ok(strstr(b.p, "\"ok\": true") && strstr(b.p, "\"gateway_url\""), "%s", b.p);
	is_int(fake_get(gw, gw->pings), 1, "it asked the gateway");
	is_int(http("GET", "/metrics", &b), 200, "metrics");
	ok(metric_value(&b, "app_agent_status") == 1 && metric_value(&b, "app_active_task_count") == 1 &&
		   metric_value(&b, "app_open_sessions_count") == 1 && metric_value(&b, "postern_agent_leases_total") == 2 &&
		   metric_value(&b, "postern_agent_results_total{type=\"bytes\",status=\"succeeded\"}") == 1 &&
		   metric_value(&b, "postern_agent_operation_seconds_count{type=\"bytes\"}") == 1,
	   "with the values of now");
	for (char *line = strtok_r(b.p, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		size_t n = strcspn(line, "{ ");

		if (*line == '#')
			continue;
		samples++;
		bad += n == 0 || !strrchr(line, ' ') ||
		       strspn(strrchr(line, ' ') + 1, "0123456789.-e+") != strlen(strrchr(line, ' ') + 1);
	}
	ok(samples > 30 && !bad, "%d samples, all of the right form", samples);
	is_int(http("GET", "/actuator/prometheus", &b), 200, "the same at the other path");
	is_int(http("GET", "/api/v1/test/reachability", &b), 405, "reachability is a POST");
	is_int(http("GET", "/nothing", &b), 404, "nothing else");
	wake_sleepers = 1;
	end();
}

static void test_down(void)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 20);

	begin();
	agent_begin(&t);
	is_int(until("/readyz", 200, &b), 200, "ready");
	fake_hang_up(gw);
	is_int(until("/readyz", 503, &b), 503, "not ready when the gateway is away");
	ok(strstr(b.p, "link is down") && strstr(b.p, "\"ok\": false"), "%s", b.p);
	is_int(http("GET", "/livez", &b), 200, "but alive: a restart would not help");
	is_int(http("POST", "/api/v1/test/reachability", &b), 503, "reachability says it, too");
	is_json(&b, "its answer");
	ok(strstr(b.p, "\"ok\": false") && strstr(b.p, "connect_failed") && strstr(b.p, "gateway_url"), "%s", b.p);
	fake_listen(gw);
	is_int(until("/readyz", 200, &b), 200, "ready again by itself");
	snprintf(gw->want_auth, sizeof(gw->want_auth), "Basic nobody");
	fake_poke(gw);
	is_int(until("/readyz", 503, &b), 503, "not ready when the key is refused");
	ok(strstr(b.p, "refuses the agent's key") && strstr(b.p, "unauthenticated"), "%s", b.p);
	is_int(http("POST", "/api/v1/test/reachability", &b), 503, "reachability");
	ok(strstr(b.p, "unauthenticated"), "%s", b.p);
	end();
}

static int64_t offset_ms;

static int64_t shifted(bool mono)
{
	struct timespec ts;

	clock_gettime(mono ? CLOCK_MONOTONIC : CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000 + __atomic_load_n(&offset_ms, __ATOMIC_SEQ_CST);
}

/* A loop that hangs shows: here an operation that hears no cancel, with the clock put forward. */
static void test_stuck(void)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 20);

	begin();
	t.conf.stop_timeout_ms = 2000;
	fake_lease_to(gw, &gw->leases, "op_deaf", 1, "sleep", "{\"n\": 1}", 100, 60000);
	agent_begin(&t);
	ok(fake_until(gw, started == 1), "an operation that hears no cancel");
	is_int(http("GET", "/livez", &b), 200, "is no reason to restart at first");
	__atomic_store_n(&offset_ms, 130000, __ATOMIC_SEQ_CST);
	is_int(http("GET", "/livez", &b), 503, "but two minutes past its time limit it is");
	ok(strstr(b.p, "\"reason\": "), "%s", b.p);
	__atomic_store_n(&offset_ms, 0, __ATOMIC_SEQ_CST);
	wake_sleepers = 1;
	end();
}

int main(void)
{
	struct pt_err err;

	setvbuf(stdout, NULL, _IOLBF, 0);
	temp_dir(dir);
	pt_clock_inject(shifted);
	if (pt_log_init(getenv("PT_TEST_LOG") ? "debug" : "error", "plain", 0, &err) < 0 ||
	    pt_http_client_new(&client, &(struct pt_http_client_conf){ 0 }, &err) < 0)
		return 1;
	test_up();
	test_down();
	test_stuck();
	pt_http_client_free(client);
	wipe(dir, true);
	return tap_end();
}
