#include "ctl/table.h"
#include <stdio.h>
#include <time.h>

struct pt_table {
	const struct pt_table_col *cols;
	size_t n, filled;    /* columns; cells in the current row */
	bool rule, fixed;    /* widths are decided and the titles written */
	struct pt_buf cells; /* pending cells, printable, each ended by NUL */
	size_t rows;
	size_t width[];
};

enum { CELLS_MAX = 64 << 20, CELL_MAX = 4096 }; /* nobody reads a longer cell in a table */

int pt_table_new(struct pt_table **ret, const struct pt_table_col *cols, size_t n, bool rule, struct pt_err *err)
{
	struct pt_table *t = calloc(1, sizeof(*t) + n * sizeof(t->width[0]));

	if (!t)
		return pt_fail_oom(err);
	t->cols = cols;
	t->n = n;
	t->rule = rule;
	t->cells = (struct pt_buf)PT_BUF_INIT(CELLS_MAX);
	*ret = t;
	return PT_OK;
}

void pt_table_free(struct pt_table *t)
{
	if (!t)
		return;
	pt_buf_release(&t->cells);
	free(t);
}

size_t pt_table_pending(const struct pt_table *t)
{
	return t->rows;
}

void pt_table_cell(struct pt_table *t, const char *text, size_t len)
{
	if (!text)
		pt_buf_str(&t->cells, "NULL");
	else
		pt_text_printable(&t->cells, text, len < CELL_MAX ? len : CELL_MAX);
	pt_buf_chr(&t->cells, '\0');
	if (++t->filled == t->n) {
		t->filled = 0;
		t->rows++;
	}
}

/* --- text in terminal cells --- */

/* Decode one valid sequence of n bytes. */
static unsigned decode(const char *s, int n)
{
	static const unsigned char lead[] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
	unsigned c = (unsigned char)s[0] & lead[n];

	for (int i = 1; i < n; i++)
		c = c << 6 | ((unsigned char)s[i] & 0x3f);
	return c;
}

/* Ranges that take no cell (combining, zero width) or two (East Asian wide, emoji): the common ones of Unicode's
 * EastAsianWidth and general categories, enough to keep columns straight. */
static const struct {
	unsigned first, last;
	unsigned char width;
} widths[] = {
	{ 0x300, 0x36f, 0 },     { 0x483, 0x489, 0 },   { 0x591, 0x5bd, 0 },   { 0x610, 0x61a, 0 },     { 0x64b, 0x65f, 0 },
	{ 0x1100, 0x115f, 2 },   { 0x1ab0, 0x1aff, 0 }, { 0x1dc0, 0x1dff, 0 }, { 0x200b, 0x200f, 0 },   { 0x202a, 0x202e, 0 },
	{ 0x2060, 0x2064, 0 },   { 0x20d0, 0x20ff, 0 }, { 0x2e80, 0x303e, 2 }, { 0x3041, 0xa4cf, 2 },   { 0xa960, 0xa97c, 2 },
	{ 0xac00, 0xd7a3, 2 },   { 0xf900, 0xfaff, 2 }, { 0xfe00, 0xfe0f, 0 }, { 0xfe20, 0xfe2f, 0 },   { 0xfe30, 0xfe6f, 2 },
	{ 0xfeff, 0xfeff, 0 },   { 0xff00, 0xff60, 2 }, { 0xffe0, 0xffe6, 2 }, { 0x1f300, 0x1f64f, 2 }, { 0x1f900, 0x1f9ff, 2 },
	{ 0x20000, 0x3fffd, 2 },
};

static size_t cell_width(unsigned c)
{
	for (size_t i = 0; i < PT_COUNT(widths) && c >= widths[i].first; i++)
		if (c <= widths[i].last)
			return widths[i].width;
	return 1;
}

/* Bytes of s that fit into max cells; *ret_width = cells they take. */
static size_t fit(const char *s, size_t n, size_t max, size_t *ret_width)
{
	size_t i = 0, w = 0;

	while (i < n) {
		int len = pt_utf8_len(s + i, n - i);
		size_t cw = len ? cell_width(decode(s + i, len)) : 1;

		if (w + cw > max)
			break;
		w += cw;
		i += len ? (size_t)len : 1;
	}
	*ret_width = w;
	return i;
}

size_t pt_text_width(const char *s, size_t n)
{
	size_t w;

	(void)fit(s, n, SIZE_MAX, &w);
	return w;
}

void pt_text_cut(struct pt_buf *b, size_t max)
{
	size_t w, n = fit(b->p, b->len, max, &w);

	if (n == b->len)
		return;
	n = fit(b->p, b->len, max - 1, &w);
	b->len = n;
	b->p[n] = '\0';
	pt_buf_str(b, "…");
}

void pt_text_printable(struct pt_buf *out, const char *s, size_t n)
{
	for (size_t i = 0; i < n;) {
		int len = pt_utf8_len(s + i, n - i);
		unsigned c = len ? decode(s + i, len) : (unsigned char)s[i];
		bool bidi =
			(c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069); /* would reorder what stands around it */

		if (c == '\n' || c == '\t' || c == '\r')
			pt_buf_fmt(out, "\\%c", c == '\n' ? 'n' : c == '\t' ? 't' : 'r');
		else if (bidi)
			pt_buf_fmt(out, "\\u%04x", c);
		else if (!len || c < 0x20 || (c >= 0x7f && c < 0xa0))
			pt_buf_fmt(out, "\\x%02x", c);
		else
			pt_buf_add(out, s + i, (size_t)len);
		i += len ? (size_t)len : 1;
	}
}

/* --- layout --- */

static void spaces(struct pt_buf *out, size_t n)
{
	while (n--)
		pt_buf_chr(out, ' ');
}

/* One cell padded to its column; last: no blanks at the end of the line.  A cell of a later row may be wider than its column: then the
 * line is crooked, but what it says is true. */
static void put(const struct pt_table *t, size_t col, const char *s, struct pt_buf *out)
{
	size_t n = strlen(s), width = t->width[col], most = t->cols[col].max_width, w,
	       bytes = fit(s, n, most ? most : SIZE_MAX, &w);
	bool cut = bytes < n;

	if (cut)
		bytes = fit(s, n, most - 1, &w);
	w += cut;
	if (t->cols[col].right && w < width)
		spaces(out, width - w);
	pt_buf_add(out, s, bytes);
	if (cut)
		pt_buf_str(out, "…");
	if (col + 1 == t->n) {
		while (out->len && out->p[out->len - 1] == ' ') /* of empty cells at the end */
			out->p[--out->len] = '\0';
		pt_buf_chr(out, '\n');
	} else {
		spaces(out, (!t->cols[col].right && w < width ? width - w : 0) + 2);
	}
}

static void fix_widths(struct pt_table *t, struct pt_buf *out)
{
	const char *s = t->cells.p;

	for (size_t i = 0; i < t->n; i++)
		t->width[i] = pt_text_width(t->cols[i].title, strlen(t->cols[i].title));
	for (size_t r = 0; r < t->rows; r++)
		for (size_t i = 0; i < t->n; i++, s += strlen(s) + 1) {
			size_t w = pt_text_width(s, strlen(s));

			if (w > t->width[i])
				t->width[i] = w;
		}
	for (size_t i = 0; i < t->n; i++)
		if (t->cols[i].max_width && t->width[i] > t->cols[i].max_width)
			t->width[i] = t->cols[i].max_width;
	for (size_t i = 0; i < t->n; i++)
		put(t, i, t->cols[i].title, out);
	for (size_t i = 0; t->rule && i < t->n; i++) {
		for (size_t k = 0; k < t->width[i]; k++)
			pt_buf_chr(out, '-');
		pt_buf_str(out, i + 1 == t->n ? "\n" : "  ");
	}
	t->fixed = true;
}

int pt_table_write(struct pt_table *t, struct pt_buf *out, struct pt_err *err)
{
	const char *s = t->cells.p;
	int rc = pt_buf_done(&t->cells, err);

	if (rc < 0)
		return rc;
	if (!t->fixed)
		fix_widths(t, out);
	for (; t->rows; t->rows--)
		for (size_t i = 0; i < t->n; i++, s += strlen(s) + 1)
			put(t, i, s, out);
	pt_buf_clear(&t->cells);
	return pt_buf_done(out, err);
}

/* --- time --- */

void pt_time_short(const char *rfc3339, int64_t now_wall_ms, char out[static 32])
{
	time_t now = (time_t)(now_wall_ms / 1000), at;
	struct tm utc = { 0 }, local, today;
	const char *rest = strptime(rfc3339, "%Y-%m-%dT%H:%M:%S", &utc);

	snprintf(out, 32, "%s", rfc3339);
	if (!rest || rest[strspn(rest, ".0123456789")] != 'Z')
		return; /* the API writes UTC; what is something else is shown as it came */
	at = timegm(&utc);
	if (!localtime_r(&at, &local) || !localtime_r(&now, &today))
		return;
	if (local.tm_year != today.tm_year)
		(void)strftime(out, 32, "%Y-%m-%d", &local);
	else if (local.tm_yday != today.tm_yday)
		(void)strftime(out, 32, "%b %e %H:%M", &local);
	else
		(void)strftime(out, 32, "%H:%M:%S", &local);
}

void pt_time_span(int64_t ms, char out[static 32])
{
	static const struct {
		int64_t unit, part;
		const char *name, *part_name;
	} steps[] = { { 86400000, 3600000, "d", "h" }, { 3600000, 60000, "h", "m" }, { 60000, 1000, "m", "s" } };

	for (size_t i = 0; i < PT_COUNT(steps); i++)
		if (ms >= steps[i].unit) {
			snprintf(out, 32, "%lld %s %lld %s", (long long)(ms / steps[i].unit), steps[i].name,
				 (long long)(ms % steps[i].unit / steps[i].part), steps[i].part_name);
			return;
		}
	if (ms >= 1000)
		snprintf(out, 32, "%lld.%lld s", (long long)(ms / 1000), (long long)(ms % 1000 / 100));
	else
		snprintf(out, 32, "%lld ms", (long long)ms);
}
