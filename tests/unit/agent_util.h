/* An agent in the test's process, with operation types of the test's own: "sleep" (until cancelled or told), "bytes" (a body
 * of n bytes), "fail".  The definitions of pt_op_types() and pt_op_execute() here take the place of src/op's. */
#ifndef PT_TEST_AGENT_UTIL_H
#define PT_TEST_AGENT_UTIL_H
#include "agent/agent.h"
#include "base/log.h"
#include "fake_gateway.h"
#include "op/op.h"
#include "os/file.h"
#include "spool_util.h"
#include <poll.h>
#include <stdatomic.h>

static const struct pt_op_type type_sleep = { .name = "sleep" }, type_bytes = { .name = "bytes" }, type_fail = { .name = "fail" };
static const struct pt_op_type *const test_types[] = { &type_sleep, &type_bytes, &type_fail, NULL };
static _Atomic int started, wake_sleepers; /* how many operations began; how many sleeps may end */

const struct pt_op_type *const *pt_op_types(void)
{
	return test_types;
}

static int op_sleep(struct pt_op_run *run, bool deaf, struct pt_err *err)
{
	for (;;) {
		struct pollfd p = { .fd = run->cancel->fd, .events = POLLIN };
		int n = wake_sleepers;

		if (n > 0 && atomic_compare_exchange_strong(&wake_sleepers, &n, n - 1))
			return 0;
		if (!deaf && pt_cancel_check(run->cancel, err) < 0)
			return err->code;
		atomic_fetch_add(run->rows, 1);
		poll(deaf ? NULL : &p, deaf ? 0 : 1, 2);
	}
}

int pt_op_execute(struct pt_op_run *run, struct pt_err *err)
{
	const char *type = run->lease->type;
	int64_t n = json_integer_value(json_object_get(run->lease->input, "n"));
	char *piece;
	int rc = 0;

	started++;
	run->head->affected = -1;
	if (strcmp(type, "sleep") == 0)
		return op_sleep(run, n == 1, err);
	if (strcmp(type, "fail") == 0) {
		run->head->body_format = strdup("jsonl");
		(void)run->body->write(run->body, "half", 4, err);
		return pt_fail(err, PT_E_QUERY, "syntax error");
	}
	piece = body_bytes(16384, (unsigned)n);
	for (int64_t at = 0; rc == 0 && at < n; at += 16384)
		rc = run->body->write(run->body, piece, n - at < 16384 ? (size_t)(n - at) : 16384, err);
	free(piece);
	run->head->bytes = n;
	run->head->body_format = strdup("jsonl");
	*run->bytes += n;
	return rc;
}

struct test_agent {
	struct pt_agent_conf conf;
	struct pt_agent *a;
	pthread_t thread;
	bool all_ended; /* what pt_agent_run() said */
	char url[64], token[100], spool[100];
};

static void *agent_thread(void *arg)
{
	struct test_agent *t = arg;

	t->all_ended = pt_agent_run(t->a);
	return NULL;
}

static void write_key(const char *path, const char *id, const char *secret)
{
	char text[200];
	struct pt_err err;

	snprintf(text, sizeof(text), "{\"key_id\": \"%s\", \"key_secret\": \"%s\"}", id, secret);
	if (pt_file_replace(path, text, strlen(text), 0600, &err) < 0)
		abort();
}

static void conf_for(struct test_agent *t, const struct fake *f, const char *dir)
{
	snprintf(t->url, sizeof(t->url), "http://127.0.0.1:%u/", f->port);
	snprintf(t->token, sizeof(t->token), "%s/token.json", dir);
	snprintf(t->spool, sizeof(t->spool), "%s/spool", dir);
	write_key(t->token, "key_1", "pts_1");
	t->conf = (struct pt_agent_conf) { .gateway_url = t->url,
					   .token_file = t->token,
					   .slots = 4,
					   .publishers = 2,
					   .spool_dir = t->spool,
					   .spool_max_bytes = 64 << 20,
					   .listen = "127.0.0.1:0",
					   .credential_dirs = "/nowhere",
					   .stop_timeout_ms = 6000 };
}

static void agent_begin(struct test_agent *t)
{
	struct pt_err err;

	if (pt_agent_start(&t->a, &t->conf, &err) < 0) {
		printf("Bail out! %s\n", err.msg);
		exit(1);
	}
	pthread_create(&t->thread, NULL, agent_thread, t);
}

static struct fake *gw; /* of the case that runs */

/* Wait for the end (after a stop, or a drain that the gateway ordered); how long it took. */
static int64_t agent_end(struct test_agent *t)
{
	int64_t began = pt_mono_ms();

	pthread_join(t->thread, NULL);
	pt_agent_free(t->a);
	t->a = NULL;
	if (gw) { /* what it has counted may be read without its lock from here on */
		pthread_mutex_lock(&gw->lock);
		pthread_mutex_unlock(&gw->lock);
	}
	return pt_mono_ms() - began;
}

static int64_t agent_stop(struct test_agent *t)
{
	int64_t began = pt_mono_ms(); /* before the stop: what it may take counts from there */

	pt_agent_stop(t->a);
	(void)agent_end(t);
	return pt_mono_ms() - began;
}

/* What each case of a test starts from, and its end. */
static struct test_agent t;
static char dir[64];

static void begin(void)
{
	gw = fake_start();
	conf_for(&t, gw, dir);
	started = wake_sleepers = 0;
}

static void end(void)
{
	if (t.a)
		agent_stop(&t);
	fake_stop(gw);
	gw = NULL;
	wipe(t.spool, true);
	wipe(dir, false);
}
#endif
