#include "base/metric.h"
#include <math.h>
#include <stdio.h>

static const char *const type_names[] = {
	[PT_COUNTER] = "counter", [PT_GAUGE] = "gauge", [PT_HISTOGRAM] = "histogram", [PT_UNTYPED] = "untyped"
};

void pt_metric_begin(struct pt_exposition *x, size_t row)
{
	pt_assert(row < x->table->n);
	x->open = &x->table->rows[row];
	pt_buf_fmt(x->b, "# HELP %s %s\n# TYPE %s %s\n", x->open->name, x->open->help, x->open->name, type_names[x->open->type]);
}

static void label(struct pt_buf *b, const char *name, const char *value)
{
	pt_buf_fmt(b, "%s%s=\"", b->p[b->len - 1] == '{' ? "" : ",", name);
	for (const char *s = value; *s; s++) {
		if (*s == '\n')
			pt_buf_str(b, "\\n");
		else if (*s == '"' || *s == '\\')
			pt_buf_fmt(b, "\\%c", *s);
		else
			pt_buf_chr(b, *s);
	}
	pt_buf_chr(b, '"');
}

/* Name, suffix and labels; le is a histogram's bound, NULL = none. */
static void head(struct pt_exposition *x, const char *suffix, const char *const *labels, const char *le)
{
	const struct pt_metric *m = x->open;

	pt_buf_fmt(x->b, "%s%s", m->name, suffix);
	if (m->labels[0] || le) {
		pt_buf_chr(x->b, '{');
		for (size_t i = 0; m->labels[i]; i++)
			label(x->b, m->labels[i], labels[i]);
		if (le)
			label(x->b, "le", le);
		pt_buf_chr(x->b, '}');
	}
	pt_buf_chr(x->b, ' ');
}

static void number(struct pt_buf *b, double v)
{
	if (fabs(v) < 1e15 && v == (double)(int64_t)v) /* NaN and infinity are not below it */
		pt_buf_i64(b, (int64_t)v);
	else
		pt_buf_fmt(b, "%.15g", v);
	pt_buf_chr(b, '\n');
}

void pt_metric_put(struct pt_exposition *x, double value, const char *const *labels)
{
	pt_assert(x->open && x->open->type != PT_HISTOGRAM);
	head(x, "", labels, NULL);
	number(x->b, value);
}

void pt_metric_one(struct pt_exposition *x, size_t row, double value)
{
	pt_metric_begin(x, row);
	pt_assert(!x->open->labels[0]);
	pt_metric_put(x, value, NULL);
}

void pt_histogram_add(struct pt_histogram *h, const struct pt_buckets *b, int64_t us)
{
	size_t i = 0;

	while (i < b->n && us > b->us[i])
		i++;
	h->n[i]++;
	h->sum_us += us > 0 ? (uint64_t)us : 0;
}

void pt_metric_histogram(struct pt_exposition *x, const struct pt_histogram *h, const struct pt_buckets *b,
			 const char *const *labels)
{
	uint64_t sum = 0;
	char le[32];

	pt_assert(x->open && x->open->type == PT_HISTOGRAM);
	for (size_t i = 0; i <= b->n; i++) {
		snprintf(le, sizeof(le), i < b->n ? "%g" : "+Inf", i < b->n ? (double)b->us[i] / 1e6 : 0);
		sum += h->n[i];
		head(x, "_bucket", labels, le);
		number(x->b, (double)sum);
	}
	head(x, "_sum", labels, NULL);
	number(x->b, (double)h->sum_us / 1e6);
	head(x, "_count", labels, NULL);
	number(x->b, (double)sum);
}

void pt_metric_markdown(const struct pt_metric_table *t, struct pt_buf *out)
{
	pt_buf_fmt(out, "\n## %s\n\n| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n", t->title);
	for (size_t i = 0; i < t->n; i++) {
		const struct pt_metric *m = &t->rows[i];

		pt_buf_fmt(out, "| `%s` | %s | %s | ", m->name, type_names[m->type], m->unit ? m->unit : "");
		for (size_t k = 0; m->labels[k]; k++)
			pt_buf_fmt(out, "%s`%s`", k ? ", " : "", m->labels[k]);
		pt_buf_fmt(out, " | %s |\n", m->help);
	}
}
