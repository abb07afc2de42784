/* ctl operations: run, list, show, result, cancel, dead-letters, settle. */
#include "ctl/run.h"
#include "base/id.h"
#include "base/clock.h"
#include "net/url.h"
#include <stdio.h>
#include <time.h>

struct conf {
	struct pt_ctl_conf c;
	const char *id, *state, *agent, *type, *before, *reason, *format, *decision, *note;
	int64_t limit;
};

static const char *const states[] = { "queued",    "leased",  "running", "succeeded", "failed",
				      "cancelled", "expired", "unknown", NULL };
static const char *const decisions[] = { "rerun", "done", "abandon", NULL };
#define ID_OPT                                                                                                       \
	PT_O(struct conf, id, "operation", PT_OPT_STR, .flags = PT_OPT_POSITIONAL | PT_OPT_REQUIRED | PT_OPT_NO_ENV, \
	     .value = "ID", .help = "id of the operation")
#define FILTER(member, nm, val, text) \
	PT_O(struct conf, member, nm, PT_OPT_STR, .flags = PT_OPT_NO_ENV, .value = val, .help = text)

#define LIST_OPTS                                                                                                              \
	FILTER(agent, "agent", "AGENT", "only of this agent (name or id)"), FILTER(type, "type", "TYPE", "only of this type"), \
		FILTER(before, "before", "ID", "older than this one: the next page"),                                          \
		PT_O(struct conf, limit, "limit", PT_OPT_INT, .flags = PT_OPT_NO_ENV, .def = "20", .value = "N", .min = 1,     \
		     .max = 500, .help = "at most so many"),                                                                   \
		PT_CTL_OPTS(struct conf)

static const struct pt_opt list_opts[] = {
	PT_O(struct conf, state, "state", PT_OPT_ENUM, .flags = PT_OPT_NO_ENV, .values = states, .help = "only in this state"),
	LIST_OPTS,
};
static const struct pt_opt dead_opts[] = { LIST_OPTS };
static const struct pt_opt settle_opts[] = {
	ID_OPT,
	PT_O(struct conf, decision, "decision", PT_OPT_ENUM, .flags = PT_OPT_NO_ENV | PT_OPT_REQUIRED, .values = decisions,
	     .help = "rerun: a new operation with the same fields; done: its work is done, or was done otherwise; abandon: it is not needed"),
	FILTER(note, "note", "TEXT", "why, kept in the operation's timeline"),
	PT_CTL_OPTS(struct conf),
};
static const struct pt_opt id_opts[] = { ID_OPT, PT_CTL_OPTS(struct conf) };
static const struct pt_opt cancel_opts[] = {
	ID_OPT,
	FILTER(reason, "reason", "TEXT", "kept in the operation's timeline"),
	PT_CTL_OPTS(struct conf),
};
static const struct pt_opt result_opts[] = {
	ID_OPT,
	PT_O(struct conf, format, "format", PT_OPT_ENUM, .flags = PT_OPT_NO_ENV, .values = pt_ctl_formats,
	     .help = "table, jsonl (one JSON array per row) or csv; default: table on a terminal, else jsonl"),
	PT_CTL_OPTS(struct conf),
};

static int64_t wall_of(const json_t *op, const char *member)
{
	struct tm tm = { 0 };
	const char *s = pt_ctl_text(op, member), *rest = strptime(s, "%Y-%m-%dT%H:%M:%S", &tm);

	return rest ? (int64_t)timegm(&tm) * 1000 + (rest[0] == '.' ? strtol(rest + 1, NULL, 10) : 0) : 0;
}

/* How long it ran, or runs by now. */
static void show_took(const json_t *op, struct pt_buf *out)
{
	int64_t from = wall_of(op, "started_at"), to = wall_of(op, "finished_at");
	char text[32];

	if (!from)
		return;
	if (!to)
		to = pt_wall_ms();
	pt_time_span(to > from ? to - from : 0, text);
	pt_buf_str(out, text);
}

static int list_path(const struct conf *s, struct pt_buf *path, struct pt_err *err)
{
	const struct {
		const char *name, *value;
	} filters[] = { { "state", s->state }, { "agent", s->agent }, { "type", s->type }, { "before", s->before } };

	pt_buf_fmt(path, "/api/v1/operations?limit=%lld", (long long)s->limit);
	for (size_t i = 0; i < PT_COUNT(filters); i++)
		if (filters[i].value) {
			pt_buf_fmt(path, "&%s=", filters[i].name);
			pt_url_encode(path, filters[i].value, strlen(filters[i].value));
		}
	return pt_buf_done(path, err);
}

static int show_list(const struct pt_command *cmd, int argc, char **argv, const char *more, const char *empty, struct pt_err *err)
{
	static const struct pt_ctl_col cols[] = {
		{ "ID", "id" },
		{ "STATE", "state" },
		{ "TYPE", "type" },
		{ "AGENT", "agent_name", .max_width = 24 },
		{ "INTEGRATION", "integration_name", .max_width = 24 },
		{ "ROWS", "result.rows", .right = true },
		{ "TOOK", "", show_took, .right = true },
		{ "CREATED", "created_at", pt_ctl_show_time },
		{ "WHY", "why", .max_width = 60 },
	};
	struct conf s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	pt_auto_buf path = PT_BUF_INIT(4096);
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	rc = list_path(&s, &path, err);
	if (rc >= 0)
		rc = pt_ctl_get_path(api, &a, err, "%s%s", path.p, more);
	if (rc >= 0)
		rc = pt_ctl_list(&s.c, &a, cols, PT_COUNT(cols), empty, err);
	if (rc >= 0 && !pt_ctl_json(&s.c) && pt_ctl_text(a.doc, "next")[0])
		fprintf(stderr, "Older ones: --before %s\n", pt_ctl_text(a.doc, "next"));
	return rc;
}

static int list(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	return show_list(cmd, argc, argv, "", "no operations", err);
}

static int dead_letters(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	return show_list(cmd, argc, argv, "&dead_letter=true", "no dead letters", err);
}

static int get(struct pt_ctl_api *api, const char *id, struct pt_ctl_answer *ret, struct pt_err *err)
{
	pt_auto_buf path = PT_BUF_INIT(8192);

	return pt_ctl_get_path(api, ret, err, "%s", pt_ctl_path(&path, "operations", id, ""));
}

static void show_attempts(const json_t *op, struct pt_buf *out)
{
	pt_buf_fmt(out, "%lld of %lld", (long long)json_integer_value(json_object_get(op, "attempt")),
		   (long long)json_integer_value(json_object_get(op, "max_attempts")));
}

static void show_object(const json_t *v, struct pt_buf *out)
{
	if (json_object_size(v))
		pt_json_write(out, v);
}

static void show_columns(const json_t *v, struct pt_buf *out)
{
	const json_t *c;
	size_t i;

	json_array_foreach(v, i, c)
		pt_buf_fmt(out, "%s%s %s", i ? ", " : "", pt_ctl_text(c, "name"), pt_ctl_text(c, "type"));
}

static const struct pt_ctl_col fields[] = {
	{ "operation", "id" },
	{ "state", "state" },
	{ "why", "why" },
	{ "error", "error.message" },
	{ "error code", "error.code" },
	{ "native code", "error.native_code" },
	{ "hint", "error.hint" },
	{ "type", "type" },
	{ "agent", "agent_name" },
	{ "integration", "integration_name" },
	{ "input", "input", show_object },
	{ "limits", "limits", show_object },
	{ "labels", "labels", show_object },
	{ "priority", "priority" },
	{ "delivery", "delivery" },
	{ "retry", "retry", show_object },
	{ "attempt", "", show_attempts },
	{ "rerun of", "rerun_of" },
	{ "settled", "settled.decision" },
	{ "settled by", "settled.by_name" },
	{ "settled at", "settled.at", pt_ctl_show_time },
	{ "note", "settled.note" },
	{ "rerun", "rerun" },
	{ "instance", "instance" },
	{ "created", "created_at", pt_ctl_show_time },
	{ "started", "started_at", pt_ctl_show_time },
	{ "finished", "finished_at", pt_ctl_show_time },
	{ "deadline", "deadline_at", pt_ctl_show_time },
	{ "took", "", show_took },
	{ "rows", "result.rows" },
	{ "bytes", "result.bytes" },
	{ "partial", "result.partial" },
	{ "columns", "result.columns", show_columns },
	{ "document", "result.document", show_object },
};

static int show(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	static const struct pt_ctl_col events[] = {
		{ "AT", "at", pt_ctl_show_time }, { "EVENT", "event" },   { "ATTEMPT", "attempt", .right = true },
		{ "INSTANCE", "instance" },       { "DETAIL", "detail" },
	};
	struct conf s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	pt_auto_buf out = PT_BUF_INIT(64u << 20);
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	rc = get(api, s.id, &a, err);
	if (rc < 0)
		return rc;
	if (pt_ctl_json(&s.c))
		return pt_ctl_out_json(&a, err);
	pt_ctl_fields(a.doc, fields, PT_COUNT(fields), &out);
	pt_buf_chr(&out, '\n');
	(void)pt_ctl_items(json_object_get(a.doc, "events"), events, PT_COUNT(events), &out);
	return pt_ctl_out(&out, err);
}

static int result(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	struct conf s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	rc = get(api, s.id, &a, err);
	if (rc < 0)
		return rc;
	if (!pt_ctl_ended(a.doc)) {
		(void)pt_fail(err, PT_E_CONFLICT, "the operation is %s: %s", pt_ctl_text(a.doc, "state"),
			      pt_ctl_text(a.doc, "why"));
		return pt_hint(err, "its state: postern ctl operations show %s", s.id);
	}
	rc = pt_ctl_outcome(a.doc, err);
	return rc < 0 ? rc : pt_ctl_result(api, a.doc, s.format ? s.format : pt_ctl_json(&s.c) ? "jsonl" : NULL, err);
}

/* POST to an operation what may be said twice; frees the body. */
static int act(struct pt_ctl_api *api, const char *id, const char *what, json_t *body, struct pt_ctl_answer *a,
	       struct pt_err *err)
{
	pt_auto_buf path = PT_BUF_INIT(8192);
	int rc = pt_ctl_call(
		api,
		&(struct pt_ctl_call) {
			.method = "POST", .path = pt_ctl_path(&path, "operations", id, what), .body = body, .repeatable = true },
		a, err);

	json_decref(body);
	return rc;
}

static int cancel(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	struct conf s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	json_t *body;
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	body = s.reason ? json_pack("{s:s}", "reason", s.reason) : json_object();
	if (!body)
		return pt_fail(err, PT_E_INVALID, "the reason is not valid UTF-8");
	rc = act(api, s.id, "/cancel", body, &a, err);
	if (rc < 0)
		return rc;
	if (pt_ctl_json(&s.c))
		return pt_ctl_out_json(&a, err);
	if (a.status == 200)
		return pt_ctl_say(err, "%s had ended already: %s\n", s.id, pt_ctl_text(a.doc, "state"));
	return pt_ctl_say(err, "%s will be cancelled; see: postern ctl operations show %s\n", s.id, s.id);
}

static int settle(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	struct conf s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	json_t *body;
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	body = json_pack("{s:s, s:s*}", "decision", s.decision, "note", s.note);
	if (!body)
		return pt_fail(err, PT_E_INVALID, "--note is not UTF-8 text");
	rc = act(api, s.id, "/settle", body, &a, err);
	if (rc < 0)
		return rc;
	if (pt_ctl_json(&s.c))
		return pt_ctl_out_json(&a, err);
	if (pt_ctl_text(a.doc, "rerun")[0])
		return pt_ctl_say(err, "%s runs again as %s; see: postern ctl operations show %s\n", s.id,
				  pt_ctl_text(a.doc, "rerun"), pt_ctl_text(a.doc, "rerun"));
	return pt_ctl_say(err, "%s is settled: %s\n", s.id, pt_ctl_text(a.doc, "settled.decision"));
}

/* --- run --- */

#define TEXT(member, nm, val, text) \
	PT_O(struct pt_ctl_run, member, nm, PT_OPT_STR, .flags = PT_OPT_NO_ENV, .value = val, .help = text)
#define TEXTS(member, nm, val, text) \
	PT_O(struct pt_ctl_run, member, nm, PT_OPT_STRS, .flags = PT_OPT_NO_ENV, .value = val, .help = text)
#define FLAG(member, nm, text) PT_O(struct pt_ctl_run, member, nm, PT_OPT_BOOL, .flags = PT_OPT_NO_ENV, .help = text)
#define NUMBER(member, nm, ty, val, least, most, text) \
	PT_O(struct pt_ctl_run, member, nm, ty, .flags = PT_OPT_NO_ENV, .value = val, .min = least, .max = most, .help = text)

static const struct pt_opt run_opts[] = {
	TEXT(agent, "agent", "AGENT", "name or id of the agent; not needed with --integration"),
	TEXT(type, "type", "TYPE", "operation type: query, network.tcp, health, …; default with --sql: query"),
	TEXT(integration, "integration", "NAME", "name or id of the data source"),
	TEXT(input, "input", "JSON", "the type's input as a JSON object; @FILE reads a file, - standard input"),
	TEXT(sql, "sql", "SQL", "statement of a query; @FILE reads a file, - standard input"),
	TEXTS(params, "param", "VALUE", "next parameter of the statement: 5, true and null are JSON, everything else is text"),
	FLAG(write, "write", "let the statement change data"),
	NUMBER(timeout_ms, "timeout", PT_OPT_DURATION, "TIME", 1, 604800000, "most run time of one attempt"),
	NUMBER(max_rows, "max-rows", PT_OPT_INT, "N", 1, INT64_MAX, "stop after so many rows and mark the result as partial"),
	NUMBER(max_bytes, "max-bytes", PT_OPT_SIZE, "SIZE", 1, INT64_MAX,
	       "stop after so many bytes and mark the result as partial"),
	NUMBER(priority, "priority", PT_OPT_INT, "N", 0, 9, "9 goes first, 0 last; default: 5"),
	NUMBER(deadline_ms, "deadline", PT_OPT_DURATION, "TIME", 1000, 31536000000,
	       "give up when it has not ended by then; default: 1d"),
	NUMBER(max_attempts, "max-attempts", PT_OPT_INT, "N", 1, 100, "most tries; default: 3"),
	TEXTS(retry_on, "retry-on", "WHAT", "try again after this: lost, retryable or an error's code; default: lost"),
	NUMBER(backoff_ms, "backoff", PT_OPT_DURATION, "TIME", 1, 2592000000,
	       "bound of the first pause between tries; default: 1s"),
	NUMBER(max_backoff_ms, "max-backoff", PT_OPT_DURATION, "TIME", 1, 2592000000,
	       "bound of every pause between tries; default: 60s"),
	FLAG(at_most_once, "at-most-once", "never start it twice: when it is not certain what happened it ends as unknown"),
	TEXT(key, "idempotency-key", "KEY", "repeating the command with this key gives the first operation, not a second one"),
	TEXTS(labels, "label", "KEY=VALUE", "kept with the operation"),
	TEXT(batch, "batch", "FILE",
	     "submit many: one JSON object a line, as POST /api/v1/operations takes it; - is standard input"),
	FLAG(wait, "wait", "wait for the end and print the result"),
	PT_O(struct pt_ctl_run, format, "format", PT_OPT_ENUM, .flags = PT_OPT_NO_ENV, .values = pt_ctl_formats,
	     .help = "of the rows: table, jsonl (one JSON array per row) or csv; default: table on a terminal, else jsonl"),
	PT_CTL_OPTS(struct pt_ctl_run),
};

static const char run_text[] =
	"Without --wait it prints the operation's id as soon as the gateway has it on disk. With --wait\n"
	"it shows on a terminal what the operation does or waits for, then prints its rows; the exit code\n"
	"tells how it ended. Ctrl-C says how to cancel the operation, and a second Ctrl-C stops the\n"
	"waiting; the operation goes on. With -o json the operation is printed, and its rows are left to\n"
	"`postern ctl operations result`. --batch prints for each line the id and state of its operation, or\n"
	"\"-\" and why it was refused; the others are submitted all the same.\n"
	"\n"
	"  postern ctl operations run --integration sales --wait \\\n"
	"      --sql 'SELECT * FROM orders WHERE day = $1' --param 2026-11-01\n"
	"  postern ctl operations run --agent warehouse --wait \\\n"
	"      --type network.tcp --input '{\"host\": \"db\", \"port\": 5432}'";

static const char settle_text[] =
	"A dead letter is an operation that failed, expired or ended as unknown. Its state stays as it is; the\n"
	"decision, who took it, when and the note are kept with it, and it leaves the list of dead letters.\n"
	"\n"
	"  postern ctl operations settle op_01k… --decision rerun --note 'the disk has room again'";

static int submit(struct pt_ctl_api *api, const struct pt_ctl_run *s, struct pt_ctl_answer *ret, struct pt_err *err)
{
	char own_key[PT_ID_SIZE];
	const char *key = s->key;
	json_t *body = json_object();
	int rc;

	if (!key) {
		pt_id_new(own_key, "ctl"); /* so that a lost answer can be asked for again without a second operation */
		key = own_key;
	}
	rc = pt_ctl_run_body(s, key, body, err);
	if (rc < 0) {
		json_decref(body);
		return rc;
	}
	return pt_ctl_post(api, "/api/v1/operations", body, key, ret, err);
}

static int wait_and_print(struct pt_ctl_api *api, const struct pt_ctl_run *s, const char *id, struct pt_err *err)
{
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	int rc = pt_ctl_wait(api, id, &a, err);

	if (rc < 0)
		return rc;
	if (pt_ctl_json(&s->c)) {
		rc = pt_ctl_out_json(&a, err);
		return rc < 0 ? rc : pt_ctl_outcome(a.doc, err);
	}
	rc = pt_ctl_outcome(a.doc, err);
	return rc < 0 ? rc : pt_ctl_result(api, a.doc, s->format, err);
}

static int run(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	struct pt_ctl_run s = PT_CTL_RUN_INIT;
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	const char *id;
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	if (s.batch)
		return pt_ctl_run_batch(api, &s, err);
	if (!s.type && !s.sql) {
		(void)pt_fail(err, PT_E_INVALID, "which type of operation?");
		return pt_hint(err, "--type TYPE with --input JSON, or --sql STATEMENT");
	}
	if (!s.agent && !s.integration) {
		(void)pt_fail(err, PT_E_INVALID, "for which agent or data source?");
		return pt_hint(err,
			       "--integration NAME (postern ctl integrations list) or --agent NAME (postern ctl agents list)");
	}
	rc = submit(api, &s, &a, err);
	if (rc < 0)
		return rc;
	id = pt_ctl_text(a.doc, "id");
	if (s.wait)
		return wait_and_print(api, &s, id, err);
	if (pt_ctl_json(&s.c))
		return pt_ctl_out_json(&a, err);
	fprintf(stderr, "%s%s%s\nSee: postern ctl operations show %s\n", pt_ctl_text(a.doc, "state"),
		pt_ctl_text(a.doc, "why")[0] ? ": " : "", pt_ctl_text(a.doc, "why"), id);
	return pt_ctl_say(err, "%s\n", id);
}

const struct pt_command pt_ctl_operations[] = {
	PT_CTL_COMMAND("ctl operations run", run, run_opts, "submit an operation, and wait for its result with --wait",
		       .text = run_text),
	PT_CTL_COMMAND("ctl operations list", list, list_opts, "list operations, newest first"),
	PT_CTL_COMMAND("ctl operations show", show, id_opts, "show an operation: state, why it waits, timeline"),
	PT_CTL_COMMAND("ctl operations result", result, result_opts, "write an operation's rows to standard output"),
	PT_CTL_COMMAND("ctl operations logs", pt_ctl_operation_logs, pt_ctl_operation_logs_opts,
		       "show what agents logged about an operation", .text = pt_ctl_logs_text),
	PT_CTL_COMMAND("ctl operations cancel", cancel, cancel_opts, "stop an operation"),
	PT_CTL_COMMAND("ctl operations dead-letters", dead_letters, dead_opts,
		       "list operations that ended and need a person, newest first"),
	PT_CTL_COMMAND("ctl operations settle", settle, settle_opts, "say what becomes of a dead letter", .text = settle_text),
	{ 0 },
};
