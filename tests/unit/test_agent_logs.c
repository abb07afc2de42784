/* The way of log lines from the agent to the gateway: what leaves, what waits, what is refused, and what a stop does. */
#include "agent_util.h"

static int logs_dir(char out[static 120])
{
	return snprintf(out, 120, "%s/logs", t.spool);
}

static void begin_logs(const char *ship)
{
	begin();
	t.conf.ship_logs = ship;
	t.conf.log_outbox_bytes = 1 << 20;
}

static void end_logs(void)
{
	char path[120];

	(void)logs_dir(path);
	if (t.a)
		agent_stop(&t);
	wipe(path, true);
	end();
}

static int lines_of(const char *what)
{
	int n = 0;

	pthread_mutex_lock(&gw->lock);
	for (const char *p = gw->logs.p; (p = strstr(p, what)); p++)
		n++;
	pthread_mutex_unlock(&gw->lock);
	return n;
}

static void test_operations(void)
{
	begin_logs("operations");
	fake_lease(gw, "op_a", 1, "bytes", "{\"n\": 100}");
	fake_lease(gw, "op_b", 1, "fail", "{}");
	agent_begin(&t);
	ok(fake_until(gw, strstr(gw->logs.p, ":4:")), "four lines arrive");
	is_int(lines_of("operation started"), 2, "both begin");
	ok(lines_of("operation finished") == 1 && lines_of("operation ended without success") == 1, "and end");
	agent_stop(&t);
	is_int(lines_of(":5:"), 0, "nothing that is about no operation leaves");
	end_logs();
}

static void test_all(void)
{
	int64_t ms;

	begin_logs("all");
	agent_begin(&t);
	ok(fake_until(gw, strstr(gw->logs.p, "agent started")), "all lines leave");
	ms = agent_stop(&t);
	ok(ms < 1000, "an idle agent still ends at once (%lld ms)", (long long)ms);
	is_int(lines_of("agent is stopping"), 1, "and delivers what it said on its way out");
	agent_begin(&t);
	ok(fake_until(gw, strstr(gw->logs.p, "agent has stopped")), "the very last line by the next start");
	end_logs();
}

static void test_off(void)
{
	char path[120], name[300];

	begin_logs("off");
	fake_lease(gw, "op_a", 1, "bytes", "{\"n\": 100}");
	agent_begin(&t);
	ok(fake_until(gw, gw->accepted == 1), "an operation");
	agent_stop(&t);
	is_int(fake_get(gw, gw->log_posts), 0, "no line leaves");
	(void)logs_dir(path);
	ok(files(path, "", "", name) == 0 && access(path, F_OK) != 0, "and none is kept");
	end_logs();
}

static void test_outage(void)
{
	static const int statuses[] = { 503, 401, 404, 429, 500 };

	for (size_t i = 0; i <= PT_COUNT(statuses); i++) {
		bool foreign = i == PT_COUNT(statuses); /* an ingress whose backend is away: 404, not a gateway's */

		begin_logs("operations");
		gw->logs_status = foreign ? 404 : statuses[i];
		gw->foreign = foreign;
		agent_begin(&t);
		fake_lease(gw, "op_a", 1, "sleep", "{}");
		ok(fake_until(gw, started == 1 && gw->log_posts > 0), "an operation has begun, its lines are not taken (%d)",
		   gw->logs_status);
		pthread_mutex_lock(&gw->lock);
		gw->logs_status = 0;
		gw->foreign = false;
		pthread_mutex_unlock(&gw->lock);
		wake_sleepers = 1;
		ok(fake_until(gw, strstr(gw->logs.p, "operation finished")), "later they are");
		ok(lines_of("operation started") == 1 && fake_get(gw, strstr(gw->logs.p, ":1:operation started ") != NULL),
		   "all, once, in order");
		end_logs();
	}
}

static void test_restart(void)
{
	int64_t ms;

	begin_logs("operations");
	gw->logs_status = 503;
	fake_lease(gw, "op_a", 1, "bytes", "{\"n\": 100}");
	agent_begin(&t);
	ok(fake_until(gw, gw->accepted == 1), "an operation whose lines are not taken");
	ms = agent_stop(&t);
	ok(ms < 1500, "does not keep the agent (%lld ms)", (long long)ms);
	is_str(gw->logs.p, "", "no line has left");
	gw->logs_status = 0;
	agent_begin(&t);
	ok(fake_until(gw, strstr(gw->logs.p, "operation finished")), "the next start delivers them");
	is_int(lines_of("operation "), 2, "both");
	end_logs();
}

static int files_with(const char *folder, const char *text)
{
	DIR *d = opendir(folder);
	struct dirent *e;
	char path[400];
	int n = 0;

	while (d && (e = readdir(d))) {
		pt_auto_buf b = PT_BUF_INIT(2 << 20);
		struct pt_err err;

		snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
		if (*e->d_name != '.' && pt_file_read(path, &b, &err) == 0)
			n += b.len && memmem(b.p, b.len, text, strlen(text)) != NULL;
	}
	if (d)
		closedir(d);
	return n;
}

/* Lines wait sealed; the key changes while the agent runs, and the old one is not needed any more. */
static void test_new_key(void)
{
	char path[120];

	begin_logs("operations");
	gw->logs_status = 503;
	fake_lease(gw, "op_a", 1, "bytes", "{\"n\": 100}");
	agent_begin(&t);
	ok(fake_until(gw, gw->accepted == 1 && gw->log_posts > 0), "an operation whose lines are not taken");
	write_key(t.token, "key_2", "pts_2");
	ok(fake_until(gw, gw->log_posts > 2), "the key is replaced");
	(void)agent_stop(&t);
	(void)logs_dir(path);
	is_int(files_with(path, "operation"), 0, "no line can be read on the disk");
	ok(files_with(path, "key_1") > 0 && files_with(path, "key_2") > 0,
	   "the lines are sealed for the old key and for the new one");
	gw->logs_status = 0;
	agent_begin(&t);
	ok(fake_until(gw, strstr(gw->logs.p, "operation finished")), "a process that has the new key alone delivers them");
	is_int(lines_of("operation "), 2, "both");
	end_logs();
}

static void test_refused(void)
{
	begin_logs("all");
	gw->logs_refuse = "operation started";
	fake_lease(gw, "op_a", 1, "bytes", "{\"n\": 100}");
	agent_begin(&t);
	ok(fake_until(gw, strstr(gw->logs.p, "operation finished")), "a line that is refused for good does not stop the others");
	ok(lines_of("agent started") == 1 && lines_of("operation started") == 0, "and is the only one missing");
	pthread_mutex_lock(&gw->lock);
	gw->logs_refuse = NULL;
	pthread_mutex_unlock(&gw->lock);
	end_logs();
}

int main(void)
{
	struct pt_err err;

	temp_dir_quick(dir);
	if (pt_log_init("info", "plain", 65536, &err) < 0)
		return 1;
	test_operations();
	test_all();
	test_off();
	test_outage();
	test_restart();
	test_new_key();
	test_refused();
	wipe(dir, true);
	return tap_end();
}
