/* Every message there and back, and what each refuses. */
#include "proto/messages.h"
#include "../tap.h"

#define OP "\"operation\":\"op_1\",\"attempt\":1"

/* Good documents.  out: what is written again, NULL = the same text. */
static const struct {
	const struct pt_shape *sh;
	const char *in, *out;
} good[] = {
	{ &pt_error_doc_shape,
	  "{\"code\":\"timeout\",\"message\":\"m\",\"hint\":\"h\",\"native_code\":\"57014\",\"retryable\":true}", NULL },
	{ &pt_error_doc_shape, "{\"code\":\"timeout\",\"message\":\"\"}",
	  "{\"code\":\"timeout\",\"message\":\"\",\"retryable\":false}" },
	{ &pt_credential_ref_shape, "{\"type\":\"FILE\",\"file_path\":\"/etc/secrets/integrations/a.json\"}", NULL },
	{ &pt_credential_ref_shape, "{\"type\":\"ENV_VAR\",\"env_var_name\":\"MCD_X\"}", NULL },
	{ &pt_column_shape,
	  "{\"name\":\"a\",\"type\":\"decimal\",\"native\":\"numeric(12,2)\",\"nullable\":true,\"precision\":12,\"scale\":2}",
	  NULL },
	{ &pt_column_shape, "{\"name\":\"\",\"type\":\"text\",\"native\":null}",
	  "{\"name\":\"\",\"type\":\"text\",\"nullable\":false}" },
	{ &pt_limits_shape, "{\"timeout_ms\":1000,\"max_rows\":5,\"max_bytes\":1024}", NULL },
	{ &pt_limits_shape, "{}", NULL },
	{ &pt_operation_new_shape,
	  "{\"agent\":\"a\",\"type\":\"query\",\"integration\":\"dw\",\"input\":{\"sql\":\"select 1\",\"n\":[1,2.5,null]},"
	  "\"limits\":{\"max_rows\":5},\"priority\":0,\"deadline_s\":60,\"max_attempts\":100,\"delivery\":\"at-most-once\","
	  "\"idempotency_key\":\"k\",\"labels\":{\"team\":\"data\"}}",
	  NULL },
	{ &pt_operation_new_shape,
	  "{\"agent\":\"a\",\"type\":\"health\",\"input\":{},\"priority\":5,\"retry\":{\"max_attempts\":2,\"backoff_ms\":1,"
	  "\"max_backoff_ms\":9,\"on\":[\"lost\",\"timeout\"]}}",
	  NULL },
	{ &pt_operation_new_shape, "{\"agent\":\"a\",\"type\":\"health\",\"input\":{},\"labels\":null,\"limits\":{}}",
	  "{\"agent\":\"a\",\"type\":\"health\",\"input\":{},\"priority\":5}" },
	{ &pt_operation_batch_shape, "{\"operations\":[{\"type\":1},{}]}", NULL }, /* what is in them is not looked at yet */
	{ &pt_lease_shape,
	  "{" OP ",\"type\":\"query\",\"input\":{},\"limits\":{\"max_bytes\":7},\"deadline\":5,\"lease_ms\":60000,"
	  "\"delivery\":\"at-least-once\",\"connection_type\":\"postgres\",\"credential\":{\"type\":\"ENV_VAR\",\"env_var_name\":\"MCD_A\"}}",
	  NULL },
	{ &pt_lease_shape, "{" OP ",\"type\":\"health\",\"input\":{},\"deadline\":5,\"lease_ms\":60000}", NULL },
	{ &pt_holding_shape, "{" OP ",\"state\":\"running\",\"started_at\":9,\"rows\":3,\"bytes\":4}", NULL },
	{ &pt_holding_shape, "{" OP ",\"state\":\"spooled\"}", NULL },
	{ &pt_attempt_ref_shape, "{" OP ",\"reason\":\"cancelled by ada\",\"code\":\"cancelled\"}", NULL },
	{ &pt_exchange_request_shape,
	  "{\"instance\":\"in_1\",\"version\":\"0.1.0\",\"hostname\":\"pod-1\",\"slots\":18,\"wait_ms\":40000,"
	  "\"holding\":[{" OP ",\"state\":\"running\"},{" OP ",\"state\":\"spooled\"}],\"released\":[{" OP "}],"
	  "\"types\":[\"query\",\"health\"],\"draining\":true,\"goodbye\":true}",
	  NULL },
	{ &pt_exchange_request_shape, "{\"instance\":\"in_1\",\"version\":\"0.1.0\",\"slots\":0,\"holding\":[]}",
	  "{\"instance\":\"in_1\",\"version\":\"0.1.0\",\"slots\":0,\"wait_ms\":0}" },
	{ &pt_exchange_response_shape,
	  "{\"leases\":[{" OP ",\"type\":\"health\",\"input\":{},\"deadline\":5,\"lease_ms\":1}],\"cancels\":[{" OP "}],"
	  "\"drops\":[{" OP
	  "}],\"enabled\":true,\"drain\":true,\"lease_ms\":60000,\"server_time\":1,\"agent\":\"ag_1\",\"agent_name\":\"n\"}",
	  NULL },
	{ &pt_exchange_response_shape, "{\"enabled\":false,\"lease_ms\":60000,\"server_time\":1}", NULL },
	{ &pt_result_head_shape,
	  "{\"instance\":\"in_1\",\"status\":\"succeeded\",\"columns\":[{\"name\":\"a\",\"type\":\"int64\",\"nullable\":false}],\"rows\":2,"
	  "\"affected\":-1,\"bytes\":20,\"partial\":\"row_limit\",\"body_format\":\"jsonl\",\"body_encoding\":\"zstd\",\"body_size\":15,"
	  "\"body_sha256\":\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\",\"started_at\":1,\"finished_at\":2}",
	  NULL },
	{ &pt_result_head_shape,
	  "{\"instance\":\"in_1\",\"status\":\"failed\",\"error\":{\"code\":\"timeout\",\"message\":\"m\"},\"document\":[1]}",
	  "{\"instance\":\"in_1\",\"status\":\"failed\",\"error\":{\"code\":\"timeout\",\"message\":\"m\",\"retryable\":false},"
	  "\"document\":[1],\"rows\":0,\"affected\":-1,\"bytes\":0}" },
	{ &pt_result_response_shape,
	  "{\"accepted\":true,\"duplicate\":true,\"leases\":[{" OP
	  ",\"type\":\"health\",\"input\":{},\"deadline\":5,\"lease_ms\":1}]}",
	  NULL },
};

/* Bad documents and what the error must say. */
#define NEW  "{\"agent\":\"a\",\"type\":\"query\",\"input\":{},"
#define EXCH "{\"instance\":\"in_1\",\"version\":\"1\","
#define HEAD "{\"instance\":\"in_1\",\"status\":\"succeeded\","
static const struct {
	const struct pt_shape *sh;
	const char *in, *want;
} bad[] = {
	{ &pt_error_doc_shape, "{\"code\":\"x\"}", "missing member 'message'" },
	{ &pt_error_doc_shape, "{\"code\":\"\",\"message\":\"m\"}", "code: 0 bytes" },
	{ &pt_error_doc_shape, "{\"code\":\"x\",\"message\":\"m\",\"retryable\":1}",
	  "retryable: expected a boolean, got an integer" },
	{ &pt_credential_ref_shape, "{}", "missing member 'type'" },
	{ &pt_credential_ref_shape, "{\"type\":\"file\"}", "'file' is not one of FILE, ENV_VAR" },
	{ &pt_column_shape, "{\"name\":\"a\"}", "missing member 'type'" },
	{ &pt_column_shape, "{\"name\":\"a\",\"type\":\"t\",\"nullable\":\"yes\"}", "nullable: expected a boolean" },
	{ &pt_limits_shape, "{\"timeout_ms\":0}", "timeout_ms: 0 is not between 1 and" },
	{ &pt_limits_shape, "{\"max_rows\":-1}", "max_rows: -1" },
	{ &pt_limits_shape, "{\"max_bytes\":1.5}", "max_bytes: expected an integer, got a number" },
	{ &pt_limits_shape, "{\"max_columns\":1}", "unknown member 'max_columns' in limits" },
	{ &pt_limits_shape, "[]", "expected an object, got an array" },
	{ &pt_limits_shape, "{\"max_rows\":1,\"max_rows\":2}", "duplicate" },
	{ &pt_operation_batch_shape, "{}", "missing member 'operations'" },
	{ &pt_operation_batch_shape, "{\"operations\":null}", "missing member 'operations'" },
	{ &pt_operation_batch_shape, "{\"operations\":{}}", "operations: expected an array, got an object" },
	{ &pt_operation_batch_shape, "{\"operations\":[]}", "operations: 0 items, at least 1" },
	{ &pt_operation_batch_shape, "{\"operations\":[{},5]}", "operations[1]: expected an object, got an integer" },
	{ &pt_operation_new_shape, "{\"agent\":\"\",\"type\":\"query\",\"input\":{}}", "agent: 0 bytes, at least 1" },
	{ &pt_operation_new_shape, "{\"agent\":\"a\",\"input\":{}}", "missing member 'type'" },
	{ &pt_operation_new_shape, "{\"agent\":\"a\",\"type\":\"query\"}", "missing member 'input'" },
	{ &pt_operation_new_shape, "{\"agent\":\"a\",\"type\":\"query\",\"input\":null}", "missing member 'input'" },
	{ &pt_operation_new_shape, "{\"agent\":\"a\",\"type\":\"query\",\"input\":\"select 1\"}",
	  "input: expected an object, got a string" },
	{ &pt_operation_new_shape, NEW "\"priority\":10}", "priority: 10 is not between 0 and 9" },
	{ &pt_operation_new_shape, NEW "\"priority\":-1}", "priority: -1" },
	{ &pt_operation_new_shape, NEW "\"priority\":\"5\"}", "priority: expected an integer, got a string" },
	{ &pt_operation_new_shape, NEW "\"deadline_s\":0}", "deadline_s: 0 is not between 1 and 2592000" },
	{ &pt_operation_new_shape, NEW "\"deadline_s\":2592001}", "deadline_s" },
	{ &pt_operation_new_shape, NEW "\"retry\":{\"on\":[]}}", "on: 0 items, at least 1" },
	{ &pt_operation_new_shape, NEW "\"retry\":{\"max_attempts\":0}}", "max_attempts: 0 is not between 1 and 100" },
	{ &pt_operation_new_shape, NEW "\"max_attempts\":101}", "max_attempts: 101 is not between 1 and 100" },
	{ &pt_operation_new_shape, NEW "\"delivery\":\"exactly-once\"}",
	  "delivery: 'exactly-once' is not one of at-least-once, at-most-once" },
	{ &pt_operation_new_shape, NEW "\"labels\":{\"a\":1}}", "labels: 'a': expected a string, got an integer" },
	{ &pt_operation_new_shape, NEW "\"labels\":[\"a\"]}", "labels: expected an object" },
	{ &pt_operation_new_shape, NEW "\"limits\":{\"max_rows\":\"1\"}}", "limits: max_rows: expected an integer" },
	{ &pt_operation_new_shape, NEW "\"code\":\"x\"}", "unknown member 'code' in operation" },
	{ &pt_lease_shape, "{\"operation\":\"\",\"attempt\":1}", "missing member 'operation'" },
	{ &pt_lease_shape, "{\"operation\":\"op_1\",\"attempt\":0}", "attempt: 0 is not" },
	{ &pt_lease_shape, "{" OP ",\"type\":\"q\",\"input\":[],\"deadline\":5,\"lease_ms\":1}", "input: expected an object" },
	{ &pt_lease_shape, "{" OP ",\"type\":\"q\",\"input\":{},\"deadline\":5,\"lease_ms\":1,\"credential\":{}}",
	  "credential: missing member 'type'" },
	{ &pt_holding_shape, "{" OP "}", "missing member 'state'" },
	{ &pt_holding_shape, "{" OP ",\"state\":\"done\"}", "state: 'done'" },
	{ &pt_attempt_ref_shape, "{\"operation\":\"op_1\"}", "missing member 'attempt'" },
	{ &pt_attempt_ref_shape, "{\"operation\":\"0123456789012345678901234567890123456789\",\"attempt\":1}",
	  "operation: not an id" },
	{ &pt_exchange_request_shape, EXCH "\"wait_ms\":1}", "missing member 'slots'" },
	{ &pt_exchange_request_shape, EXCH "\"slots\":1025}", "slots: 1025" },
	{ &pt_exchange_request_shape, EXCH "\"slots\":1,\"wait_ms\":60001}", "wait_ms" },
	{ &pt_exchange_request_shape, EXCH "\"slots\":1,\"holding\":[{" OP ",\"state\":\"running\"},{}]}",
	  "holding[1]: missing member" },
	{ &pt_exchange_request_shape, EXCH "\"slots\":1,\"holding\":{}}", "holding: expected an array, got an object" },
	{ &pt_exchange_request_shape, EXCH "\"slots\":1,\"types\":[\"query\",7]}", "types: expected a string, got an integer" },
	{ &pt_exchange_response_shape, "{\"lease_ms\":1,\"server_time\":1}", "missing member 'enabled'" },
	{ &pt_exchange_response_shape, "{\"enabled\":true,\"server_time\":1}", "missing member 'lease_ms'" },
	{ &pt_result_head_shape, "{\"instance\":\"in_1\"}", "missing member 'status'" },
	{ &pt_result_head_shape, "{\"instance\":\"in_1\",\"status\":\"unknown\"}", "status: 'unknown'" },
	{ &pt_result_head_shape, HEAD "\"affected\":-2}", "affected: -2" },
	{ &pt_result_head_shape, HEAD "\"body_sha256\":\"ab\"}", "body_sha256: 2 bytes, at least 64" },
	{ &pt_result_head_shape, HEAD "\"body_encoding\":\"gzip\"}", "body_encoding: 'gzip'" },
	{ &pt_result_head_shape, HEAD "\"error\":{\"message\":\"m\"}}", "error: missing member 'code'" },
	{ &pt_result_response_shape, "{}", "missing member 'accepted'" },
};

union any {
	struct pt_error_doc e;
	struct pt_operation_new o;
	struct pt_lease l;
	struct pt_exchange_request q;
	struct pt_exchange_response p;
	struct pt_result_head h;
};

static bool zeroed(const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (((const char *)p)[i])
			return false;
	return true;
}

static void documents(void)
{
	struct pt_err e = { 0 };
	union any a;

	for (size_t i = 0; i < PT_COUNT(good); i++) {
		pt_auto_buf b = PT_BUF_INIT(8192);

		ok(good[i].sh->size <= sizeof(a), "%s fits", good[i].sh->name);
		ok(pt_shape_parse(good[i].sh, good[i].in, strlen(good[i].in), &a, &e) == 0, "good %zu: %s", i, e.msg);
		pt_shape_write(good[i].sh, &a, &b);
		ok(pt_buf_done(&b, &e) == 0, "written");
		is_str(b.p, good[i].out ? good[i].out : good[i].in, "%s there and back", good[i].sh->name);
		pt_shape_release(good[i].sh, &a);
		ok(zeroed(&a, good[i].sh->size), "released");
	}
	for (size_t i = 0; i < PT_COUNT(bad); i++) {
		ok(pt_shape_parse(bad[i].sh, bad[i].in, strlen(bad[i].in), &a, &e) == PT_E_INVALID, "bad %zu is refused", i);
		ok(strstr(e.msg, bad[i].want), "bad %zu says why: %s", i, e.msg);
		ok(zeroed(&a, bad[i].sh->size), "nothing left");
	}
}

/* A list of n items {1} or "x" in the member, in an exchange request. */
static int with_items(const char *member, const char *item, size_t n, struct pt_err *err)
{
	struct pt_exchange_request q;
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	int rc;

	pt_buf_fmt(&b, EXCH "\"slots\":1,\"%s\":[", member);
	for (size_t i = 0; i < n; i++)
		pt_buf_fmt(&b, "%s%s", i ? "," : "", item);
	pt_buf_str(&b, "]}");
	rc = pt_shape_parse(&pt_exchange_request_shape, b.p, b.len, &q, err);
	if (rc == 0)
		pt_shape_release(&pt_exchange_request_shape, &q);
	return rc;
}

static void limits(void)
{
	struct pt_err e = { 0 };
	struct pt_operation_new o;
	pt_auto_buf b = PT_BUF_INIT(4 << 20);

	ok(with_items("holding", "{" OP ",\"state\":\"running\"}", 1024, &e) == 0, "1024 attempts held");
	ok(with_items("holding", "{" OP ",\"state\":\"running\"}", 1025, &e) == PT_E_INVALID, "not 1025: %s", e.msg);
	ok(with_items("released", "{" OP "}", 1025, &e) == PT_E_INVALID, "released: %s", e.msg);
	ok(with_items("types", "\"query\"", 64, &e) == 0, "64 types");
	ok(with_items("types", "\"query\"", 65, &e) == PT_E_INVALID, "not 65: %s", e.msg);

	pt_buf_str(&b, "{\"agent\":\"a\",\"type\":\"query\",\"input\":{\"sql\":\"");
	for (int i = 0; i < 1 << 20; i++)
		pt_buf_chr(&b, 'x');
	pt_buf_str(&b, "\"}}");
	ok(pt_shape_parse(&pt_operation_new_shape, b.p, b.len, &o, &e) == PT_E_INVALID, "input of over 1 MiB: %s", e.msg);
	ok(strstr(e.msg, "input: more than 1048576 bytes"), "named");
}

/* What contradicts itself, and what defaults make of the rest. */
static void retry(void)
{
	static const struct {
		const char *text, *error;
		int64_t attempts, backoff, max_backoff; /* after the defaults */
	} cases[] = {
		{ "\"priority\":5}", NULL, 3, 1000, 60000 },
		{ "\"retry\":{}}", NULL, 3, 1000, 60000 },
		{ "\"max_attempts\":7}", NULL, 7, 1000, 60000 },
		{ "\"retry\":{\"max_attempts\":7}}", NULL, 7, 1000, 60000 },
		{ "\"max_attempts\":7,\"retry\":{\"max_attempts\":7}}", NULL, 7, 1000, 60000 },
		{ "\"max_attempts\":7,\"retry\":{\"max_attempts\":8}}", "max_attempts: 7, but retry.max_attempts is 8", 0, 0, 0 },
		{ "\"retry\":{\"backoff_ms\":70000}}", NULL, 3, 70000, 70000 },
		{ "\"retry\":{\"max_backoff_ms\":10}}", NULL, 3, 10, 10 },
		{ "\"retry\":{\"backoff_ms\":11,\"max_backoff_ms\":10}}", "retry.backoff_ms: 11 is more than", 0, 0, 0 },
		{ "\"retry\":{\"on\":[\"lost\",\"retryable\",\"internal\",\"query_failed\"]}}", NULL, 3, 1000, 60000 },
		{ "\"retry\":{\"on\":[\"ok\"]}}", "'ok' is neither", 0, 0, 0 },
		{ "\"retry\":{\"on\":[\"LOST\"]}}", "'LOST' is neither", 0, 0, 0 },
		{ "\"retry\":{\"on\":[\"lost\"]},\"delivery\":\"at-most-once\"}", NULL, 3, 1000, 60000 },
		{ "\"retry\":{\"on\":[\"lost\",\"timeout\"]},\"delivery\":\"at-most-once\"}",
		  "'timeout' is not possible with at-most-once", 0, 0, 0 },
	};

	for (size_t i = 0; i < PT_COUNT(cases); i++) {
		pt_auto_buf text = PT_BUF_INIT(1000);
		struct pt_operation_new o = { 0 };
		struct pt_err e = { 0 };
		int rc;

		pt_buf_fmt(&text, "%s%s", NEW, cases[i].text);
		ok(pt_shape_parse(&pt_operation_new_shape, text.p, text.len, &o, &e) == 0, "parsed: %s", cases[i].text);
		rc = pt_operation_new_check(&o, &e);
		ok(cases[i].error ? rc == PT_E_INVALID && strstr(e.msg, cases[i].error) && *e.hint : rc == 0, "%s",
		   rc ? e.msg : "good");
		pt_operation_new_defaults(&o);
		ok(rc || (o.max_attempts == cases[i].attempts && o.retry.backoff_ms == cases[i].backoff &&
			  o.retry.max_backoff_ms == cases[i].max_backoff),
		   "defaults");
		ok(rc || pt_retry_on(&o.retry, "lost"), "lost is in");
		pt_shape_release(&pt_operation_new_shape, &o);
	}
}

static void defaults(void)
{
	static const char text[] = NEW "\"limits\":{\"max_rows\":7},\"delivery\":\"at-most-once\",\"deadline_s\":1}";
	struct pt_operation_new o = { 0 };
	struct pt_err e = { 0 };

	pt_operation_new_defaults(&o);
	is_int(o.limits.timeout_ms, 840000, "timeout");
	is_int(o.limits.max_rows, 0, "rows");
	is_int(o.limits.max_bytes, 10737418240, "bytes");
	is_int(o.deadline_s, 86400, "deadline");
	is_int(o.max_attempts, 3, "attempts");
	is_str(o.delivery, "at-least-once", "delivery");
	pt_shape_release(&pt_operation_new_shape, &o);

	ok(pt_shape_parse(&pt_operation_new_shape, text, strlen(text), &o, &e) == 0, "parsed");
	is_int(o.priority, 5, "priority of a document without one");
	pt_operation_new_defaults(&o);
	is_int(o.limits.max_rows, 7, "what is set stays");
	is_int(o.deadline_s, 1, "what is set stays");
	ok(pt_at_most_once(o.delivery) && !pt_at_most_once("at-least-once") && !pt_at_most_once(NULL), "delivery asked");
	pt_shape_release(&pt_operation_new_shape, &o);
}

static void errors(void)
{
	struct pt_err e = { 0 }, back = { 0 };
	struct pt_error_doc d;
	pt_auto_buf b = PT_BUF_INIT(4096);

	(void)pt_fail(&e, PT_E_SOURCE_DENIED, "no \"right\"");
	(void)pt_hint(&e, "ask");
	pt_native(&e, "42501");
	pt_error_doc_from(&d, &e);
	pt_error_doc_to(&d, &back);
	pt_shape_release(&pt_error_doc_shape, &d);
	is_int(back.code, PT_E_SOURCE_DENIED, "code");
	is_str(back.msg, "no \"right\"", "message");
	is_str(back.hint, "ask", "hint");
	is_str(back.native, "42501", "native code");
	pt_error_body(&e, &b);
	is_str(b.p,
	       "{\"error\":{\"code\":\"source_permission_denied\",\"message\":\"no \\\"right\\\"\",\"hint\":\"ask\",\"native_code\":"
	       "\"42501\",\"retryable\":false}}",
	       "body");
	pt_buf_clear(&b);
	(void)pt_fail(&e, PT_E_LIMIT, "later");
	pt_error_body(&e, &b);
	is_str(b.p, "{\"error\":{\"code\":\"limit_exceeded\",\"message\":\"later\",\"retryable\":true}}", "short body");
	memset(&d, 0, sizeof(d));
	pt_error_doc_to(&d, &back);
	ok(back.code == PT_E_INTERNAL && *back.msg, "an empty document is an error all the same");
}

static void states(void)
{
	for (int s = 0; s < PT_OP_STATES_END; s++)
		is_int(pt_op_state_from(pt_op_state_name((enum pt_op_state)s)), s, "state %s",
		       pt_op_state_name((enum pt_op_state)s));
	is_int(pt_op_state_from("done"), -1, "no such state");
	is_int(pt_op_state_from(NULL), -1, "nor this one");
	ok(!pt_op_terminal(PT_OP_RUNNING) && pt_op_terminal(PT_OP_SUCCEEDED) && pt_op_terminal(PT_OP_UNKNOWN),
	   "which are terminal");
}

/* The OpenAPI document takes its texts from the shapes. */
static void help(void)
{
	static const struct pt_shape *const all[] = {
		&pt_error_doc_shape,   &pt_limits_shape,          &pt_operation_new_shape,    &pt_lease_shape,
		&pt_holding_shape,     &pt_attempt_ref_shape,     &pt_exchange_request_shape, &pt_exchange_response_shape,
		&pt_result_head_shape, &pt_result_response_shape, &pt_column_shape,           &pt_credential_ref_shape
	};

	for (size_t i = 0; i < PT_COUNT(all); i++)
		for (size_t k = 0; k < all[i]->n; k++)
			ok(all[i]->fields[k].help, "%s.%s has a help text", all[i]->name, all[i]->fields[k].name);
}

int main(void)
{
	documents();
	limits();
	defaults();
	retry();
	errors();
	states();
	help();
	return tap_end();
}
