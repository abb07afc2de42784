#include "ctl/run.h"
#include "os/file.h"
#include "tap.h"

/* Numbers that are 0 in said stand for "not said". */
static void body(const struct pt_ctl_run *said, const char *want, const char *what)
{
	struct pt_ctl_run s = *said;
	int64_t *const numbers[] = { &s.timeout_ms,  &s.max_rows,     &s.max_bytes,  &s.priority,
				     &s.deadline_ms, &s.max_attempts, &s.backoff_ms, &s.max_backoff_ms };
	pt_auto_buf out = PT_BUF_INIT(65536);
	json_t *j = json_object();
	struct pt_err err = { 0 };
	int rc;

	for (size_t i = 0; i < PT_COUNT(numbers); i++)
		if (!*numbers[i])
			*numbers[i] = PT_CTL_UNSET;
	rc = pt_ctl_run_body(&s, "k1", j, &err);
	if (rc < 0)
		pt_buf_str(&out, err.msg);
	else
		pt_json_write(&out, j);
	is_str(out.p, want, "%s", what);
	json_decref(j);
}
#define RUN(...) (&(struct pt_ctl_run) { __VA_ARGS__ })

int main(void)
{
	char file[] = "/tmp/postern-test-XXXXXX";
	pt_auto_buf at = PT_BUF_INIT(64);
	int fd = mkstemp(file);
	struct pt_err err;

	body(RUN(.type = "health", .agent = "a"), "{\"type\":\"health\",\"agent\":\"a\",\"idempotency_key\":\"k1\",\"input\":{}}",
	     "what is not said is not sent");
	body(RUN(.sql = "SELECT $1", .integration = "i",
		 .params = { { "5", "text", "null", "\"5\"", "2026-11-01", "1.50", "{" }, 7 }),
	     "{\"type\":\"query\",\"integration\":\"i\",\"idempotency_key\":\"k1\",\"input\":{\"sql\":\"SELECT "
	     "$1\",\"params\":[5,\"text\","
	     "null,\"5\",\"2026-11-01\",1.5,\"{\"]}}",
	     "a statement makes it a query; parameters are JSON or text");
	body(RUN(.sql = "x", .integration = "i", .write = true, .priority = 9, .timeout_ms = 1500, .max_rows = 10,
		 .max_bytes = 2048, .deadline_ms = 1001, .max_attempts = 1, .at_most_once = true,
		 .labels = { { "team=finance", "x==" }, 2 }),
	     "{\"type\":\"query\",\"integration\":\"i\",\"idempotency_key\":\"k1\",\"input\":{\"sql\":\"x\",\"mode\":\"write\"},"
	     "\"limits\":"
	     "{\"timeout_ms\":1500,\"max_rows\":10,\"max_bytes\":2048},\"priority\":9,\"deadline_s\":2,\"max_attempts\":1,"
	     "\"delivery\":"
	     "\"at-most-once\",\"labels\":{\"team\":\"finance\",\"x\":\"=\"}}",
	     "limits, delivery, labels");
	body(RUN(.type = "health", .agent = "a", .max_attempts = 5, .backoff_ms = 250, .max_backoff_ms = 4000,
		 .retry_on = { { "lost", "timeout" }, 2 }),
	     "{\"type\":\"health\",\"agent\":\"a\",\"idempotency_key\":\"k1\",\"input\":{},\"max_attempts\":5,\"retry\":"
	     "{\"backoff_ms\":250,\"max_backoff_ms\":4000,\"on\":[\"lost\",\"timeout\"]}}",
	     "retry policy");
	body(RUN(.sql = "x", .input = "{}"), "--sql and --input exclude each other", "sql and input");
	body(RUN(.type = "query", .params = { { "5" }, 1 }), "--param and --write belong to --sql", "param without sql");
	body(RUN(.type = "t", .input = "[1]"), "--input is an array; it must be a JSON object", "input of a wrong type");
	body(RUN(.type = "t", .labels = { { "novalue" }, 1 }), "--label 'novalue' is not KEY=VALUE", "label without =");
	body(RUN(.type = "t", .labels = { { "=v" }, 1 }), "--label '=v' is not KEY=VALUE", "label without a name");
	body(RUN(.sql = "@/nonexistent/x"), "--sql: open '/nonexistent/x': No such file or directory", "absent file");
	body(RUN(.sql = "a\xff"), "--sql is not UTF-8 text", "sql of wrong bytes");

	ok(fd >= 0 && pt_write_all(fd, "{\"host\":\"db\"}", 13, &err) == 0, "file written");
	pt_buf_fmt(&at, "@%s", file);
	body(RUN(.type = "network.tcp", .agent = "a", .input = at.p),
	     "{\"type\":\"network.tcp\",\"agent\":\"a\",\"idempotency_key\":\"k1\",\"input\":{\"host\":\"db\"}}",
	     "input of a file");
	close(fd);
	unlink(file);
	return tap_end();
}
