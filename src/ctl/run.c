#include "ctl/run.h"
#include "os/file.h"

enum { TEXT_MAX = 16 << 20 };

/* The argument itself, or with @FILE or - what stands there. */
static int read_text(const char *arg, const char *flag, struct pt_buf *out, struct pt_err *err)
{
	if (arg[0] == '@')
		return pt_err_wrap(err, pt_file_read(arg + 1, out, err), "%s", flag);
	if (strcmp(arg, "-") == 0)
		return pt_err_wrap(err, pt_file_read("/dev/stdin", out, err), "%s", flag);
	pt_buf_str(out, arg);
	return pt_buf_done(out, err);
}

static json_t *param(const char *text)
{
	json_t *v = json_loads(text, JSON_DECODE_ANY, NULL);

	return v ? v : json_string(text);
}

static int sql_input(const struct pt_ctl_run *s, json_t **ret, struct pt_err *err)
{
	pt_auto_buf sql = PT_BUF_INIT(TEXT_MAX);
	json_t *params, *v;
	int rc = read_text(s->sql, "--sql", &sql, err);

	if (rc < 0)
		return rc;
	v = json_stringn(sql.p, sql.len);
	if (!v)
		return pt_fail(err, PT_E_INVALID, "--sql is not UTF-8 text");
	*ret = json_pack("{s:o}", "sql", v);
	if (s->params.n) {
		params = json_array();
		for (size_t i = 0; i < s->params.n; i++)
			if (json_array_append_new(params, param(s->params.v[i])) < 0)
				rc = pt_fail(err, PT_E_INVALID, "--param %zu is not UTF-8 text", i + 1);
		(void)json_object_set_new(*ret, "params", params);
	}
	if (s->write)
		(void)json_object_set_new(*ret, "mode", json_string("write"));
	return rc;
}

static int make_input(const struct pt_ctl_run *s, json_t **ret, struct pt_err *err)
{
	pt_auto_buf text = PT_BUF_INIT(TEXT_MAX);
	int rc;

	if (s->sql && s->input) {
		(void)pt_fail(err, PT_E_INVALID, "--sql and --input exclude each other");
		return pt_hint(err, "--sql STATEMENT is short for --type query --input '{\"sql\": \"STATEMENT\"}'");
	}
	if (!s->sql && (s->params.n || s->write))
		return pt_fail(err, PT_E_INVALID, "--param and --write belong to --sql");
	if (s->sql)
		return sql_input(s, ret, err);
	if (!s->input) {
		*ret = json_object();
		return PT_OK;
	}
	rc = read_text(s->input, "--input", &text, err);
	if (rc >= 0)
		rc = pt_err_wrap(err, pt_json_parse(text.p, text.len, ret, err), "--input");
	if (rc >= 0 && !json_is_object(*ret))
		rc = pt_fail(err, PT_E_INVALID, "--input is %s; it must be a JSON object", pt_json_type_name(*ret));
	return rc;
}

static int add_labels(const struct pt_ctl_run *s, json_t *body, struct pt_err *err)
{
	json_t *labels = json_object();
	int rc = PT_OK;

	for (size_t i = 0; rc >= 0 && i < s->labels.n; i++) {
		const char *kv = s->labels.v[i], *eq = strchr(kv, '=');

		if (!eq || eq == kv || json_object_setn_new(labels, kv, (size_t)(eq - kv), json_string(eq + 1)) < 0)
			rc = pt_fail(err, PT_E_INVALID, "--label '%s' is not KEY=VALUE", kv);
	}
	if (s->labels.n)
		(void)json_object_set(body, "labels", labels);
	json_decref(labels);
	return rc;
}

static void add_number(json_t *to, const char *member, int64_t v)
{
	if (v != PT_CTL_UNSET)
		(void)json_object_set_new(to, member, json_integer(v));
}

static void add_text(json_t *to, const char *member, const char *v)
{
	if (v)
		(void)json_object_set_new(to, member, json_string(v));
}

static void add_retry(const struct pt_ctl_run *s, json_t *body)
{
	json_t *retry = json_object(), *on = json_array();

	add_number(retry, "backoff_ms", s->backoff_ms);
	add_number(retry, "max_backoff_ms", s->max_backoff_ms);
	for (size_t i = 0; i < s->retry_on.n; i++)
		(void)json_array_append_new(on, json_string(s->retry_on.v[i]));
	if (s->retry_on.n)
		(void)json_object_set(retry, "on", on);
	if (json_object_size(retry))
		(void)json_object_set(body, "retry", retry);
	json_decref(on);
	json_decref(retry);
}

int pt_ctl_run_body(const struct pt_ctl_run *s, const char *key, json_t *body, struct pt_err *err)
{
	json_t *input = NULL, *limits = json_object();
	int rc = make_input(s, &input, err);

	add_text(body, "type", s->type ? s->type : s->sql ? "query" : NULL);
	add_text(body, "agent", s->agent);
	add_text(body, "integration", s->integration);
	add_text(body, "idempotency_key", key);
	if (input)
		(void)json_object_set_new(body, "input", input);
	add_number(limits, "timeout_ms", s->timeout_ms);
	add_number(limits, "max_rows", s->max_rows);
	add_number(limits, "max_bytes", s->max_bytes);
	if (json_object_size(limits))
		(void)json_object_set(body, "limits", limits);
	json_decref(limits);
	add_number(body, "priority", s->priority);
	add_number(body, "deadline_s", s->deadline_ms == PT_CTL_UNSET ? PT_CTL_UNSET : (s->deadline_ms + 999) / 1000);
	add_number(body, "max_attempts", s->max_attempts);
	add_retry(s, body);
	add_text(body, "delivery", s->at_most_once ? "at-most-once" : NULL);
	return rc < 0 ? rc : add_labels(s, body, err);
}
