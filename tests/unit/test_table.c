#include "ctl/table.h"
#include "base/clock.h"
#include "tap.h"
#include <time.h>

static void widths(void)
{
	static const struct {
		const char *text;
		size_t width;
	} cases[] = { { "", 0 },
		      { "abc", 3 },
		      { "é", 1 },
		      { "e\xcc\x81", 1 },
		      { "日本", 4 },
		      { "🙂", 2 },
		      { "\xff", 1 },
		      { "a\xe2\x80\x8b"
			"b",
			2 } };

	for (size_t i = 0; i < PT_COUNT(cases); i++)
		is_int(pt_text_width(cases[i].text, strlen(cases[i].text)), cases[i].width, "width of case %zu", i);
}

static void printable(void)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "plain ü", "plain ü" },
		{ "a\nb\tc\r", "a\\nb\\tc\\r" },
		{ "\x1b[31mred", "\\x1b[31mred" },
		{ "\xc2\x9b", "\\x9b" }, /* CSI of C1: a terminal may take it for ESC [ */
		{ "\xff\xfe", "\\xff\\xfe" },
		{ "a\xe2\x80\xae"
		  "b",
		  "a\\u202eb" }, /* right-to-left override */
		{ "\x7f", "\\x7f" },
	};

	for (size_t i = 0; i < PT_COUNT(cases); i++) {
		pt_auto_buf b = PT_BUF_INIT(256);

		pt_text_printable(&b, cases[i].in, strlen(cases[i].in));
		is_str(b.p, cases[i].out, "printable case %zu", i);
	}
}

static void cut(void)
{
	static const struct {
		const char *in;
		size_t max;
		const char *out;
	} cases[] = { { "hello", 5, "hello" },
		      { "hello!", 5, "hell…" },
		      { "日本語", 5, "日本…" },
		      { "日本語", 4, "日…" },
		      { "ab", 1, "…" } };

	for (size_t i = 0; i < PT_COUNT(cases); i++) {
		pt_auto_buf b = PT_BUF_INIT(256);

		pt_buf_str(&b, cases[i].in);
		pt_text_cut(&b, cases[i].max);
		is_str(b.p, cases[i].out, "cut case %zu", i);
	}
}

static void cell(struct pt_table *t, const char *s)
{
	pt_table_cell(t, s, s ? strlen(s) : 0);
}

static void layout(void)
{
	static const struct pt_table_col cols[] = { { "NAME", .max_width = 6 }, { "N", true }, { "NOTE" } };
	pt_auto(pt_table_freep) struct pt_table *t = NULL;
	pt_auto_buf out = PT_BUF_INIT(4096);
	struct pt_err err;

	ok(pt_table_new(&t, cols, 3, false, &err) == 0, "new");
	cell(t, "é"), cell(t, "7"), cell(t, "");
	cell(t, "long name"), cell(t, "1234"), cell(t, "x");
	cell(t, NULL), cell(t, NULL), cell(t, "last\nline");
	is_int(pt_table_pending(t), 3, "rows wait");
	ok(pt_table_write(t, &out, &err) == 0, "write");
	is_str(out.p,
	       "NAME       N  NOTE\n"
	       "é          7\n"
	       "long …  1234  x\n"
	       "NULL    NULL  last\\nline\n",
	       "columns by content");
	pt_buf_clear(&out);
	cell(t, "b"), cell(t, "1234567"), cell(t, "later");
	ok(pt_table_write(t, &out, &err) == 0, "write later rows");
	is_str(out.p, "b       1234567  later\n", "no titles again, and a number is never cut");
}

static void rule(void)
{
	static const struct pt_table_col cols[] = { { "a" }, { "count", true } };
	pt_auto(pt_table_freep) struct pt_table *t = NULL;
	pt_auto_buf out = PT_BUF_INIT(4096);
	struct pt_err err;

	ok(pt_table_new(&t, cols, 2, true, &err) == 0, "new");
	ok(pt_table_write(t, &out, &err) == 0, "write without rows");
	is_str(out.p, "a  count\n-  -----\n", "titles and their rule");
}

static void times(void)
{
	static const int64_t now = INT64_C(1795190400000); /* 2026-11-20T16:00:00Z */
	static const struct {
		const char *in, *out;
	} cases[] = {
		{ "2026-11-20T15:04:05.123Z", "15:04:05" },
		{ "2026-11-02T03:00:00Z", "Nov  2 03:00" },
		{ "2025-11-20T16:00:00.000Z", "2025-11-20" },
		{ "yesterday", "yesterday" },
		{ "2026-11-20T15:04:05+01:00", "2026-11-20T15:04:05+01:00" },
	};
	static const struct {
		int64_t ms;
		const char *out;
	} spans[] = { { 0, "0 ms" },          { 999, "999 ms" },      { 4250, "4.2 s" },
		      { 190000, "3 m 10 s" }, { 7500000, "2 h 5 m" }, { 273600000, "3 d 4 h" } };
	char text[32];

	setenv("TZ", "UTC", 1);
	tzset();
	for (size_t i = 0; i < PT_COUNT(cases); i++) {
		pt_time_short(cases[i].in, now, text);
		is_str(text, cases[i].out, "short time of %s", cases[i].in);
	}
	for (size_t i = 0; i < PT_COUNT(spans); i++) {
		pt_time_span(spans[i].ms, text);
		is_str(text, spans[i].out, "span of %lld ms", (long long)spans[i].ms);
	}
}

int main(void)
{
	widths();
	printable();
	cut();
	layout();
	rule();
	times();
	return tap_end();
}
