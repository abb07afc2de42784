#include "check/report.h"
#include "base/json_write.h"
#include "config.h"
#include <stdio.h>

static const struct {
	const char *word, *colour;
} words[] = {
	[PT_CHECK_SKIP] = { "SKIP", "\033[2m" },
	[PT_CHECK_PASS] = { "PASS", "\033[32m" },
	[PT_CHECK_WARN] = { "WARN", "\033[33m" },
	[PT_CHECK_FAIL] = { "FAIL", "\033[31m" },
};

/* --- what checks say --- */

/* One line, whatever servers and files put into it: nothing that a terminal obeys. */
static void add_line(struct pt_buf *b, const char *between, const char *text)
{
	size_t at = b->len;

	pt_buf_fmt(b, "%s%s", at ? between : "", text);
	for (; at < b->len; at++) {
		unsigned char c = (unsigned char)b->p[at], next = (unsigned char)b->p[at + 1];

		if (c == 0xc2 && next >= 0x80 && next < 0xa0) /* U+0080 to U+009F in UTF-8 */
			b->p[at] = b->p[at + 1] = ' ';
		else if (c < ' ' || c == 0x7f)
			b->p[at] = ' ';
	}
}

static PT_PRINTF(3, 0) void add(struct pt_buf *b, const char *between, const char *fmt, va_list ap)
{
	char text[1024];

	if (vsnprintf(text, sizeof(text), fmt, ap) >= 0)
		add_line(b, between, text);
}

static void worse(struct pt_check_result *r, enum pt_check_status s)
{
	if (s > r->status)
		r->status = s;
}

static PT_PRINTF(3, 0) void problem(struct pt_check_result *r, const char *fix, const char *fmt, va_list ap)
{
	add(&r->problems, "; ", fmt, ap);
	if (fix && *fix && !strstr(r->fix.p, fix))
		add_line(&r->fix, " ", fix);
}

void pt_check_note(struct pt_check_result *r, const char *fmt, ...)
{
	va_list ap;

	worse(r, PT_CHECK_PASS);
	va_start(ap, fmt);
	add(&r->notes, "; ", fmt, ap);
	va_end(ap);
}

void pt_check_skip(struct pt_check_result *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	add(&r->notes, "; ", fmt, ap);
	va_end(ap);
}

void pt_check_warn(struct pt_check_result *r, const char *fix, const char *fmt, ...)
{
	va_list ap;

	worse(r, PT_CHECK_WARN);
	va_start(ap, fmt);
	problem(r, fix, fmt, ap);
	va_end(ap);
}

void pt_check_fail(struct pt_check_result *r, const char *fix, const char *fmt, ...)
{
	va_list ap;

	worse(r, PT_CHECK_FAIL);
	va_start(ap, fmt);
	problem(r, fix, fmt, ap);
	va_end(ap);
}

void pt_check_fail_err(struct pt_check_result *r, const struct pt_err *err, const char *fix)
{
	char text[sizeof(err->hint) + 2];
	size_t n = strlen(err->hint);

	/* Hints of errors begin small and have no full stop; a fix is a sentence. */
	snprintf(text, sizeof(text), "%s%s", err->hint, n && strchr(".!?", err->hint[n - 1]) ? "" : ".");
	if (*text >= 'a' && *text <= 'z' && strncmp(text, "postern", 7) != 0)
		*text = (char)(*text - 'a' + 'A');
	pt_check_fail(r, n ? text : fix, "%s", err->msg);
}

/* --- the answer --- */

static void counts(const struct pt_check_ctx *c, size_t n[static 4])
{
	for (size_t i = 0; i < 4; i++)
		n[i] = 0;
	for (size_t i = 0; i < c->n_results; i++)
		n[c->results[i].status]++;
}

static void detail(const struct pt_check_result *r, struct pt_buf *out)
{
	pt_buf_str(out, r->problems.p);
	if (r->notes.len)
		pt_buf_fmt(out, "%s%s", out->len ? "; " : "", r->notes.p);
}

void pt_check_row(const struct pt_check_result *r, size_t width, bool colour, struct pt_buf *out)
{
	pt_auto_buf d = PT_BUF_INIT(20000);

	detail(r, &d);
	pt_buf_fmt(out, "%s%s%s  %-*s  %s\n", colour ? words[r->status].colour : "", words[r->status].word,
		   colour ? "\033[0m" : "", (int)width, r->name, d.p);
}

void pt_check_end(const struct pt_check_ctx *c, struct pt_buf *out)
{
	size_t n[4], fixes = 0;

	counts(c, n);
	pt_buf_fmt(out, "\n%zu passed, %zu %s, %zu failed", n[PT_CHECK_PASS], n[PT_CHECK_WARN],
		   n[PT_CHECK_WARN] == 1 ? "warning" : "warnings", n[PT_CHECK_FAIL]);
	pt_buf_fmt(out, n[PT_CHECK_SKIP] ? ", %zu skipped\n" : "\n", n[PT_CHECK_SKIP]);
	for (enum pt_check_status s = PT_CHECK_FAIL; s >= PT_CHECK_WARN; s--)
		for (size_t i = 0; i < c->n_results; i++) {
			const struct pt_check_result *r = &c->results[i];

			if (r->status == s && r->fix.len)
				pt_buf_fmt(out, "%s%2zu. %s: %s\n", fixes ? "" : "\nWhat to do:\n", fixes + 1, r->name, r->fix.p);
			fixes += r->status == s && r->fix.len;
		}
}

void pt_check_json(const struct pt_check_ctx *c, struct pt_buf *out)
{
	size_t n[4];

	counts(c, n);
	pt_jw_open(out, NULL, '{');
	pt_jw_bool(out, "ok", n[PT_CHECK_FAIL] == 0);
	pt_jw_str(out, "version", PT_VERSION);
	pt_jw_open(out, "checks", '[');
	for (size_t i = 0; i < c->n_results; i++) {
		const struct pt_check_result *r = &c->results[i];
		pt_auto_buf d = PT_BUF_INIT(20000);

		detail(r, &d);
		pt_jw_open(out, NULL, '{');
		pt_jw_str(out, "name", r->name);
		pt_jw_str(out, "status", words[r->status].word);
		pt_jw_str(out, "detail", d.p);
		if (r->fix.len)
			pt_jw_str(out, "fix", r->fix.p);
		else
			pt_jw_raw(out, "fix", "null");
		pt_jw_i64(out, "elapsed_ms", r->elapsed_ms);
		pt_jw_close(out, '}');
	}
	pt_jw_close(out, ']');
	pt_jw_open(out, "summary", '{');
	pt_jw_i64(out, "passed", (int64_t)n[PT_CHECK_PASS]);
	pt_jw_i64(out, "warnings", (int64_t)n[PT_CHECK_WARN]);
	pt_jw_i64(out, "failed", (int64_t)n[PT_CHECK_FAIL]);
	pt_jw_i64(out, "skipped", (int64_t)n[PT_CHECK_SKIP]);
	pt_jw_close(out, '}');
	pt_jw_close(out, '}');
	pt_buf_chr(out, '\n');
}

int pt_check_report(const struct pt_check_ctx *c, bool json, struct pt_err *err)
{
	pt_auto_buf out = PT_BUF_INIT(1 << 20);
	size_t n[4];
	int rc;

	counts(c, n);
	if (json)
		pt_check_json(c, &out);
	else
		pt_check_end(c, &out);
	rc = pt_buf_done(&out, err);
	if (rc == 0 && (fwrite(out.p, 1, out.len, stdout) != out.len || fflush(stdout) != 0 || ferror(stdout)))
		rc = pt_fail_sys(err, PT_E_IO, "standard output");
	return rc < 0 ? rc : n[PT_CHECK_FAIL] > 0;
}
