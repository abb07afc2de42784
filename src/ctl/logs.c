/* ctl operations logs and ctl agents logs: log lines that agents shipped. */
#include "ctl/ctl.h"
#include "base/clock.h"
#include <stdio.h>

enum { PAGE = 500, FOLLOW_S = 5, LAST_S = 3, PATIENCE_MS = 300000 };

struct conf {
	struct pt_ctl_conf c;
	const char *id, *level;
	int64_t lines;
	bool follow;
};

static const char *const levels[] = { "debug", "info", "warn", "error", NULL };
#define FOLLOW_OPT(text) PT_O(struct conf, follow, "follow", PT_OPT_BOOL, .letter = 'f', .flags = PT_OPT_NO_ENV, .help = text)

const struct pt_opt pt_ctl_operation_logs_opts[] = {
	PT_O(struct conf, id, "id", PT_OPT_STR, .flags = PT_OPT_POSITIONAL | PT_OPT_REQUIRED | PT_OPT_NO_ENV, .value = "ID",
	     .help = "id of the operation"),
	FOLLOW_OPT("print lines as they come, until the operation has ended"),
	PT_CTL_OPTS(struct conf),
};
const struct pt_opt pt_ctl_agent_logs_opts[] = {
	PT_O(struct conf, id, "agent", PT_OPT_STR, .flags = PT_OPT_POSITIONAL | PT_OPT_REQUIRED | PT_OPT_NO_ENV, .value = "AGENT",
	     .help = "its name or id"),
	PT_O(struct conf, lines, "lines", PT_OPT_INT, .letter = 'n', .flags = PT_OPT_NO_ENV, .def = "200", .value = "N", .min = 1,
	     .max = PAGE, .help = "how many, the newest ones"),
	PT_O(struct conf, level, "level", PT_OPT_ENUM, .flags = PT_OPT_NO_ENV, .values = levels,
	     .help = "least severe lines to show"),
	FOLLOW_OPT("go on and print lines as they come"),
	PT_CTL_OPTS(struct conf),
};

/* One line: time, level, message, what it is about, fields. */
static void show_line(const json_t *line, bool of_agent, struct pt_buf *out)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	const json_t *attempt = json_object_get(line, "attempt");
	const char *key;
	json_t *value;
	char when[32];

	pt_time_short(pt_ctl_text(line, "at"), pt_wall_ms(), when);
	pt_buf_fmt(&b, "%s %-5s %s", when, pt_ctl_text(line, "level"), pt_ctl_text(line, "msg"));
	if (of_agent && *pt_ctl_text(line, "operation"))
		pt_buf_fmt(&b, " operation=%s", pt_ctl_text(line, "operation"));
	if (attempt)
		pt_buf_fmt(&b, " attempt=%lld", (long long)json_integer_value(attempt));
	json_object_foreach(json_object_get(line, "fields"), key, value) {
		const char *v = json_string_value(value);

		pt_buf_fmt(&b, " %s=", key);
		if (v && *v && !strpbrk(v, " \"="))
			pt_buf_str(&b, v);
		else
			pt_buf_json(&b, v ? v : "", v ? strlen(v) : 0);
	}
	pt_text_printable(out, b.p, b.len);
	pt_buf_chr(out, '\n');
}

/* JSON: one object per line, so that --follow can be read as it comes. */
static int print(const struct conf *s, const json_t *items, bool of_agent, struct pt_err *err)
{
	pt_auto_buf out = PT_BUF_INIT(64u << 20);
	size_t i;
	json_t *line;

	json_array_foreach(items, i, line) {
		if (!pt_ctl_json(&s->c)) {
			show_line(line, of_agent, &out);
			continue;
		}
		pt_json_write(&out, line);
		pt_buf_chr(&out, '\n');
	}
	return pt_ctl_out(&out, err);
}

static int page(struct pt_ctl_api *api, const struct conf *s, bool of_agent, int64_t after, int wait, struct pt_ctl_answer *a,
		struct pt_err *err)
{
	pt_auto_buf path = PT_BUF_INIT(8192);
	pt_auto_buf rest = PT_BUF_INIT(256);

	pt_buf_fmt(&rest, "/logs?limit=%lld&wait=%d", (long long)(of_agent && after < 0 ? s->lines : PAGE), wait);
	if (after >= 0)
		pt_buf_fmt(&rest, "&after=%lld", (long long)after);
	if (s->level)
		pt_buf_fmt(&rest, "&level=%s", s->level);
	return pt_ctl_get_path(api, a, err, "%s", pt_ctl_path(&path, of_agent ? "agents" : "operations", s->id, rest.p));
}

/* An operation's lines travel behind its end: when it has ended, the last look waits for them a little. */
static int logs(const struct pt_command *cmd, int argc, char **argv, bool of_agent, struct pt_err *err)
{
	struct conf s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	int64_t after = of_agent ? -1 : 0, shown = 0;
	bool more = true, ended = false, last = false;
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	if (s.follow)
		pt_ctl_api_patience(api, PATIENCE_MS);
	while (rc == 0 && (more || (s.follow && !last))) {
		pt_auto_answer a = PT_CTL_ANSWER_INIT;
		size_t n;

		last = ended && !more;
		rc = page(api, &s, of_agent, after, !s.follow || more ? 0 : last ? LAST_S : FOLLOW_S, &a, err);
		if (rc < 0)
			break;
		n = json_array_size(json_object_get(a.doc, "items"));
		rc = print(&s, json_object_get(a.doc, "items"), of_agent, err);
		after = json_integer_value(json_object_get(a.doc, "next"));
		more = json_is_true(json_object_get(a.doc, "more"));
		ended = json_is_true(json_object_get(a.doc, "ended"));
		last = last && !n;
		shown += (int64_t)n;
	}
	if (rc == 0 && !shown && !pt_ctl_json(&s.c))
		fprintf(stderr, "no log lines; an agent sends them a moment later, and only those its --ship-logs permits\n");
	return rc;
}

int pt_ctl_operation_logs(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	return logs(cmd, argc, argv, false, err);
}

int pt_ctl_agent_logs(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err)
{
	return logs(cmd, argc, argv, true, err);
}

const char pt_ctl_logs_text[] =
	"Agents keep these lines on disk while the gateway is away and send them when it is back. With -o json\n"
	"each line is one JSON object.";
