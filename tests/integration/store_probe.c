/* Probe the store that POSTERN_STORAGE… describe, as the agent would, and print what came of it as JSON: for test_storage.py. 
 * --ca-file and the proxies are the agent's; --ahead makes our clock wrong. */
#include "base/clock.h"
#include "store/store.h"
#include <stdio.h>
#include <time.h>

struct conf {
	struct pt_store_conf store;
	const char *ca, *https_proxy, *http_proxy;
	int64_t ahead_ms;
};

static const struct pt_opt opts[] = {
	PT_STORE_OPTS(struct conf, store),
	PT_O(struct conf, ca, "ca-file", PT_OPT_STR, .value = "FILE", .help = "certificates"),
	PT_O(struct conf, https_proxy, "https-proxy", PT_OPT_STR, .value = "URL", .help = "proxy"),
	PT_O(struct conf, http_proxy, "http-proxy", PT_OPT_STR, .value = "URL", .help = "proxy"),
	PT_O(struct conf, ahead_ms, "ahead", PT_OPT_DURATION, .value = "TIME", .help = "how far our clock is ahead"),
};
static const struct pt_command cmd = { .name = "store_probe", .summary = "probe", .opts = opts, .n_opts = PT_COUNT(opts) };

static int64_t ahead_ms;

static int64_t shifted(bool mono)
{
	struct timespec t;

	clock_gettime(mono ? CLOCK_MONOTONIC : CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000 + (mono ? 0 : ahead_ms);
}

static void text(struct pt_buf *b, const char *name, const char *v)
{
	pt_buf_fmt(b, "%s\"%s\": ", b->len > 1 ? ", " : "", name);
	pt_buf_json(b, v ? v : "", v ? strlen(v) : 0);
}

int main(int argc, char **argv)
{
	static const char *const access[] = { "unknown", "private", "public" };
	struct conf conf = { .ca = NULL };
	struct pt_store_probe p = { .step = PT_STORE_STEPS };
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	struct pt_http_client_conf http;
	struct pt_err err = { 0 };
	int rc = pt_opt_parse(NULL, &cmd, argc, argv, &conf, &err);
	bool checked;

	rc = rc ? rc : pt_store_conf_check(&conf.store, &err);
	checked = rc == 0;
	ahead_ms = conf.ahead_ms;
	if (ahead_ms)
		pt_clock_inject(shifted);
	http = (struct pt_http_client_conf) { .ca = conf.ca, .https_proxy = conf.https_proxy, .http_proxy = conf.http_proxy };
	if (rc == 0)
		rc = pt_store_probe(&conf.store, &http, NULL, &p, &err);
	pt_buf_chr(&b, '{');
	text(&b, "step", rc == 0 ? "" : !checked ? "settings" : pt_store_step_names[p.step]);
	text(&b, "code", rc == 0 ? "" : pt_code_wire(err.code));
	text(&b, "native", err.native);
	text(&b, "message", err.msg);
	text(&b, "hint", err.hint);
	text(&b, "credentials", p.credentials);
	text(&b, "access", access[p.access]);
	text(&b, "why", p.access_why);
	text(&b, "key", p.key);
	pt_buf_fmt(&b, ", \"left\": %s, \"conf\": ", p.left ? "true" : "false");
	pt_store_json(&conf.store, &b);
	pt_buf_str(&b, "}\n");
	fputs(b.p, stdout);
	return rc < 0;
}
