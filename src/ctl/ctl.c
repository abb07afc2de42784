#include "ctl/ctl.h"
#include "base/clock.h"
#include "os/file.h"
#include <stdio.h>

const char *const pt_ctl_outputs[] = { "table", "json", NULL };

int pt_ctl_begin(const struct pt_command *cmd, int argc, char **argv, void *conf, struct pt_ctl_api **ret, struct pt_err *err)
{
	int rc = pt_opt_parse(pt_opt_root, cmd, argc, argv, conf, err);

	return rc ? rc : pt_ctl_api_open(ret, &((struct pt_ctl_conf *)conf)->target, err);
}

/* --- output --- */

int pt_ctl_out(const struct pt_buf *b, struct pt_err *err)
{
	int rc = pt_buf_done(b, err);

	if (rc >= 0)
		rc = pt_err_wrap(err, pt_write_all(STDOUT_FILENO, b->p, b->len, err), "standard output");
	return rc;
}

int pt_ctl_say(struct pt_err *err, const char *fmt, ...)
{
	pt_auto_buf b = PT_BUF_INIT(65536);
	va_list ap;
	int n;

	va_start(ap, fmt);
	if (pt_buf_room(&b, 8192)) {
		n = vsnprintf(b.p, 8192, fmt, ap);
		b.len = n < 0 ? 0 : n < 8192 ? (size_t)n : 8191;
	}
	va_end(ap);
	return pt_ctl_out(&b, err);
}

char *pt_ctl_dumps(const json_t *doc, size_t flags)
{
	char *text = json_dumps(doc, flags | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
	json_t *back = text ? json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;
	bool same = back && json_equal(back, doc);

	json_decref(back);
	if (same)
		return text;
	free(text);
	return json_dumps(doc, flags | JSON_ENCODE_ANY);
}

int pt_ctl_out_json(const struct pt_ctl_answer *a, struct pt_err *err)
{
	pt_auto_buf b = PT_BUF_INIT(SIZE_MAX);
	char *pretty = isatty(STDOUT_FILENO) && a->doc ? pt_ctl_dumps(a->doc, JSON_INDENT(2)) : NULL;

	if (pretty)
		pt_buf_str(&b, pretty);
	else
		pt_buf_add(&b, a->text.p, a->text.len);
	free(pretty);
	if (b.len && b.p[b.len - 1] != '\n')
		pt_buf_chr(&b, '\n');
	return pt_ctl_out(&b, err);
}

/* --- members --- */

const json_t *pt_ctl_get(const json_t *doc, const char *path)
{
	while (doc) {
		size_t n = strcspn(path, ".");

		doc = json_object_getn(doc, path, n);
		if (!path[n])
			break;
		path += n + 1;
	}
	return doc;
}

const char *pt_ctl_text(const json_t *doc, const char *path)
{
	const char *s = json_string_value(pt_ctl_get(doc, path));

	return s ? s : "";
}

void pt_ctl_show_text(const json_t *v, struct pt_buf *out)
{
	if (json_is_string(v))
		pt_buf_add(out, json_string_value(v), json_string_length(v));
	else if (v && !json_is_null(v))
		pt_json_write(out, v);
}

void pt_ctl_show_time(const json_t *v, struct pt_buf *out)
{
	char text[32];

	if (!json_is_string(v))
		return;
	pt_time_short(json_string_value(v), pt_wall_ms(), text);
	pt_buf_str(out, text);
}

void pt_ctl_show_yes(const json_t *v, struct pt_buf *out)
{
	if (json_is_boolean(v))
		pt_buf_str(out, json_is_true(v) ? "yes" : "no");
}

static void show(const struct pt_ctl_col *c, const json_t *row, struct pt_buf *out)
{
	const json_t *v = c->path[0] ? pt_ctl_get(row, c->path) : row;

	(c->show ? c->show : pt_ctl_show_text)(v, out);
}

/* --- tables --- */

static int fill(const json_t *items, const struct pt_ctl_col *cols, size_t n, struct pt_buf *out, struct pt_err *err)
{
	struct pt_table_col layout[16];
	pt_auto(pt_table_freep) struct pt_table *t = NULL;
	pt_auto_buf cell = PT_BUF_INIT(1 << 20);
	size_t i;
	json_t *row;
	int rc;

	pt_assert(n <= PT_COUNT(layout));
	for (i = 0; i < n; i++)
		layout[i] = (struct pt_table_col) { cols[i].title, cols[i].right, cols[i].max_width };
	rc = pt_table_new(&t, layout, n, false, err);
	if (rc < 0)
		return rc;
	json_array_foreach(items, i, row)
		for (size_t k = 0; k < n; k++) {
			pt_buf_clear(&cell);
			show(&cols[k], row, &cell);
			pt_table_cell(t, cell.p, cell.len);
		}
	return pt_table_write(t, out, err);
}

bool pt_ctl_items(const json_t *items, const struct pt_ctl_col *cols, size_t n, struct pt_buf *out)
{
	return json_array_size(items) && fill(items, cols, n, out, NULL) >= 0;
}

int pt_ctl_list(const struct pt_ctl_conf *c, const struct pt_ctl_answer *a, const struct pt_ctl_col *cols, size_t n,
		const char *empty, struct pt_err *err)
{
	const json_t *items = json_object_get(a->doc, "items");
	pt_auto_buf out = PT_BUF_INIT(64u << 20);
	int rc;

	if (pt_ctl_json(c))
		return pt_ctl_out_json(a, err);
	if (!json_array_size(items)) {
		fprintf(stderr, "%s\n", empty);
		return PT_OK;
	}
	rc = fill(items, cols, n, &out, err);
	return rc < 0 ? rc : pt_ctl_out(&out, err);
}

void pt_ctl_fields(const json_t *doc, const struct pt_ctl_col *cols, size_t n, struct pt_buf *out)
{
	pt_auto_buf value = PT_BUF_INIT(1 << 20);
	int width = 0;

	for (size_t i = 0; i < n; i++)
		if ((int)strlen(cols[i].title) > width)
			width = (int)strlen(cols[i].title);
	for (size_t i = 0; i < n; i++) {
		pt_buf_clear(&value);
		show(&cols[i], doc, &value);
		if (!value.len)
			continue;
		pt_buf_fmt(out, "%-*s  ", width, cols[i].title);
		pt_text_printable(out, value.p, value.len);
		pt_buf_chr(out, '\n');
	}
}

int pt_ctl_run_list(const struct pt_command *cmd, int argc, char **argv, const char *path, const struct pt_ctl_col *cols,
		    size_t n, const char *empty, struct pt_err *err)
{
	struct pt_ctl_plain s = { 0 };
	pt_auto(pt_ctl_api_freep) struct pt_ctl_api *api = NULL;
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	int rc = pt_ctl_begin(cmd, argc, argv, &s, &api, err);

	if (rc)
		return rc < 0 ? rc : PT_OK;
	rc = pt_ctl_get_path(api, &a, err, "%s", path);
	return rc < 0 ? rc : pt_ctl_list(&s.c, &a, cols, n, empty, err);
}

int pt_ctl_act(const struct pt_ctl_conf *c, struct pt_ctl_api *api, const char *method, const char *path, struct pt_err *err,
	       const char *done_fmt, ...)
{
	pt_auto_answer a = PT_CTL_ANSWER_INIT;
	char done[1024];
	va_list ap;
	int rc = pt_ctl_call(api,
			     &(struct pt_ctl_call) { .method = method, .path = path, .repeatable = strcmp(method, "POST") == 0 },
			     &a, err); /* the second DELETE would not find what the first has deleted */

	if (rc < 0)
		return rc;
	if (pt_ctl_json(c))
		return pt_ctl_out_json(&a, err);
	va_start(ap, done_fmt);
	(void)vsnprintf(done, sizeof(done), done_fmt, ap);
	va_end(ap);
	return pt_ctl_say(err, "%s\n", done);
}
