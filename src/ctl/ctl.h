/* `postern ctl`: the client of the gateway's client API.  What its commands share: the settings every one takes, the API handle
 * and how an answer is shown.  One thread; results go to standard output, everything else to standard error. */
#ifndef PT_CTL_CTL_H
#define PT_CTL_CTL_H
#include "base/opt.h"
#include "ctl/api.h"
#include "ctl/table.h"

extern const struct pt_command pt_cmd_ctl;

/* First member "c" of each command's settings. */
struct pt_ctl_conf {
	struct pt_ctl_target target;
	const char *output; /* table | json */
};
extern const char *const pt_ctl_outputs[];

#define PT_CTL_TARGET_OPTS(st)                                                                                                   \
	PT_O(st, c.target.url, "url", PT_OPT_STR, .flags = PT_OPT_STD_ENV, .env = "POSTERN_GATEWAY_URL", .value = "URL",         \
	     .help = "gateway to talk to; default: the one of `postern ctl login`"),                                             \
		PT_O(st, c.target.token_file, "token-file", PT_OPT_STR, .flags = PT_OPT_STD_ENV,                                 \
		     .env = "POSTERN_API_TOKEN_FILE", .value = "FILE",                                                           \
		     .help = "file with an API token; default: the token of `postern ctl login`"),                               \
		PT_O(st, c.target.token, "api-token", PT_OPT_STR, .flags = PT_OPT_NO_FLAG | PT_OPT_SECRET, .value = "TOKEN",     \
		     .help = "an API token itself"),                                                                             \
		PT_O(st, c.target.ca, "ca-file", PT_OPT_STR, .value = "FILE",                                                    \
		     .help = "PEM file (or its base64) with certificates to trust besides the system's"),                        \
		PT_O(st, c.target.config, "config", PT_OPT_STR, .flags = PT_OPT_STD_ENV, .env = "POSTERN_CTL_CONFIG",            \
		     .value = "FILE",                                                                                            \
		     .help = "file that login writes; default: $XDG_CONFIG_HOME/postern/ctl.json, else "                         \
			     "~/.config/postern/ctl.json"),                                                                      \
		PT_O(st, c.target.https_proxy, "https-proxy", PT_OPT_STR, .flags = PT_OPT_STD_ENV | PT_OPT_SECRET,               \
		     .env = "HTTPS_PROXY", .value = "URL", .help = "proxy for https:// gateways"),                               \
		PT_O(st, c.target.http_proxy, "http-proxy", PT_OPT_STR, .flags = PT_OPT_STD_ENV | PT_OPT_SECRET,                 \
		     .env = "HTTP_PROXY", .value = "URL", .help = "proxy for http:// gateways"),                                 \
		PT_O(st, c.target.no_proxy, "no-proxy", PT_OPT_STR, .flags = PT_OPT_STD_ENV, .env = "NO_PROXY", .value = "LIST", \
		     .help = "hosts, .domains and networks to reach without a proxy"),                                           \
		PT_O(st, c.target.retry_ms, "retry-for", PT_OPT_DURATION, .def = "30s", .value = "TIME", .min = 0,               \
		     .max = 24 * 3600 * 1000, .help = "try again for so long while the gateway is away; 0 is not at all")

#define PT_CTL_OPTS(st)                                                                                      \
	PT_O(st, c.output, "output", PT_OPT_ENUM, .letter = 'o', .flags = PT_OPT_NO_ENV, .def = "table",     \
	     .values = pt_ctl_outputs, .help = "table for people, json for programs: the API's own answer"), \
		PT_CTL_TARGET_OPTS(st)

#define PT_CTL_COMMAND(nm, fn, opt_rows, sum, ...)                                                                           \
	{                                                                                                                    \
		.name = (nm), .run = (fn), .opts = (opt_rows), .n_opts = PT_COUNT(opt_rows), .summary = (sum), ##__VA_ARGS__ \
	}

/* Settings of commands that have none of their own. */
struct pt_ctl_plain {
	struct pt_ctl_conf c;
};
/* Read the settings and open the API.  0; 1 = help was asked and given; < 0. */
int pt_ctl_begin(const struct pt_command *cmd, int argc, char **argv, void *conf, struct pt_ctl_api **ret,
		 struct pt_err *err) PT_MUSTCHECK;

/* --- showing answers --- */
static inline bool pt_ctl_json(const struct pt_ctl_conf *c)
{
	return c->output[0] == 'j';
}
/* Standard output, all of it.  A reader that has gone (EPIPE) is an error with err->sys == EPIPE. */
int pt_ctl_out(const struct pt_buf *b, struct pt_err *err) PT_MUSTCHECK;
int pt_ctl_say(struct pt_err *err, const char *fmt, ...) PT_PRINTF(2, 3) PT_MUSTCHECK;
/* JSON text whose numbers read as they came: 0.1, not 0.10000000000000001, unless they need all digits.  Free it; NULL: no memory. */
char *pt_ctl_dumps(const json_t *doc, size_t flags);
/* The API's answer: its own bytes, or indented when standard output is a terminal. */
int pt_ctl_out_json(const struct pt_ctl_answer *a, struct pt_err *err) PT_MUSTCHECK;

struct pt_ctl_col {
	const char *title;
	const char *path;                                  /* "instances", "progress.rows" */
	void (*show)(const json_t *v, struct pt_buf *out); /* NULL = pt_ctl_show_text; v may be NULL (member absent) */
	bool right;
	unsigned max_width; /* 0 = whole */
};
void pt_ctl_show_text(const json_t *v, struct pt_buf *out); /* strings as they are, other values as JSON, absent and null as "" */
void pt_ctl_show_time(const json_t *v, struct pt_buf *out); /* RFC 3339 to short local time */
void pt_ctl_show_yes(const json_t *v, struct pt_buf *out);  /* yes, no */
const json_t *pt_ctl_get(const json_t *doc, const char *path); /* member at a dotted path, NULL when absent */
const char *pt_ctl_text(const json_t *doc, const char *path);  /* "" when absent or not a string */

/* Show {"items": […]} by columns, or as JSON; says so when it is empty (on standard error). */
int pt_ctl_list(const struct pt_ctl_conf *c, const struct pt_ctl_answer *a, const struct pt_ctl_col *cols, size_t n,
		const char *empty, struct pt_err *err) PT_MUSTCHECK;
/* A whole command without settings of its own: pt_ctl_list() of what GET path answers. */
int pt_ctl_run_list(const struct pt_command *cmd, int argc, char **argv, const char *path, const struct pt_ctl_col *cols,
		    size_t n, const char *empty, struct pt_err *err) PT_MUSTCHECK;
/* Append one object as "title  value" lines; rows whose value is empty are left out. */
void pt_ctl_fields(const json_t *doc, const struct pt_ctl_col *cols, size_t n, struct pt_buf *out);
/* Append a JSON array as a table; false when it is absent or empty. */
bool pt_ctl_items(const json_t *items, const struct pt_ctl_col *cols, size_t n, struct pt_buf *out);

/* DELETE path, or POST without a body, and say what was done. */
int pt_ctl_act(const struct pt_ctl_conf *c, struct pt_ctl_api *api, const char *method, const char *path, struct pt_err *err,
	       const char *done_fmt, ...) PT_PRINTF(6, 7) PT_MUSTCHECK;

/* --- operations, shared by run, result and integrations test --- */
/* Wait until the operation is terminal, with a live line on a terminal.  *ret holds the last answer. */
int pt_ctl_wait(struct pt_ctl_api *api, const char *id, struct pt_ctl_answer *ret, struct pt_err *err) PT_MUSTCHECK;
/* Is the operation in a terminal state? */
bool pt_ctl_ended(const json_t *op);
/* The error of an operation that ended other than succeeded; 0 when it succeeded. */
int pt_ctl_outcome(const json_t *op, struct pt_err *err) PT_MUSTCHECK;
/* Write the rows (or the document) of a succeeded operation to standard output.  format: table | jsonl | csv; NULL = table on a
 * terminal, jsonl elsewhere. */
int pt_ctl_result(struct pt_ctl_api *api, const json_t *op, const char *format, struct pt_err *err) PT_MUSTCHECK;
extern const char *const pt_ctl_formats[];

/* --- log lines (logs.c): rows of the groups agents and operations --- */
int pt_ctl_operation_logs(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err);
int pt_ctl_agent_logs(const struct pt_command *cmd, int argc, char **argv, struct pt_err *err);
extern const struct pt_opt pt_ctl_operation_logs_opts[12], pt_ctl_agent_logs_opts[14];
extern const char pt_ctl_logs_text[];

/* The groups of commands, each ended by a row without a name. */
extern const struct pt_command pt_ctl_users[], pt_ctl_tokens[], pt_ctl_agents[], pt_ctl_keys[], pt_ctl_integrations[],
	pt_ctl_operations[];
#endif
