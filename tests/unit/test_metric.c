/* The text that Prometheus reads, and the document, from one table. */
#include "base/metric.h"
#include "tap.h"

enum { COUNT, SIZE, TIME, WAIT };
static const struct pt_metric rows[] = {
	[COUNT] = { "x_total", "How many.", PT_COUNTER, .labels = { "type", "state" } },
	[SIZE] = { "x_bytes", "How large.", PT_GAUGE, "bytes" },
	[TIME] = { "x_seconds", "How long.", PT_HISTOGRAM, "seconds", { "type" } },
	[WAIT] = { "x_count", "Of others.", PT_UNTYPED },
};
static const struct pt_metric_table table = { "Things", rows, PT_COUNT(rows) };

int main(void)
{
	static const struct pt_buckets buckets = { { 1000, 2500000 }, 2 };
	struct pt_histogram h = { 0 };
	pt_auto_buf b = PT_BUF_INIT(8192);
	struct pt_exposition x = { .b = &b, .table = &table };

	pt_metric_begin(&x, COUNT);
	pt_metric_put(&x, 3, PT_LABELS("a\"b\\c\nd", ""));
	pt_metric_put(&x, 1e15, PT_LABELS("q", "s"));
	is_str(b.p,
	       "# HELP x_total How many.\n# TYPE x_total counter\nx_total{type=\"a\\\"b\\\\c\\nd\",state=\"\"} 3\n"
	       "x_total{type=\"q\",state=\"s\"} 1e+15\n",
	       "labels are escaped");
	pt_buf_clear(&b);
	pt_metric_one(&x, SIZE, -0.125);
	pt_metric_one(&x, WAIT, 123456789012);
	is_str(b.p,
	       "# HELP x_bytes How large.\n# TYPE x_bytes gauge\nx_bytes -0.125\n# HELP x_count Of others.\n# TYPE x_count untyped\n"
	       "x_count 123456789012\n",
	       "numbers without labels");
	pt_buf_clear(&b);
	for (int64_t us = 1000; us < 10000000; us *= 1000)
		pt_histogram_add(&h, &buckets, us);
	pt_histogram_add(&h, &buckets, 9000000);
	pt_histogram_add(&h, &buckets, -5);
	pt_metric_begin(&x, TIME);
	pt_metric_histogram(&x, &h, &buckets, PT_LABELS("t"));
	is_str(b.p,
	       "# HELP x_seconds How long.\n# TYPE x_seconds histogram\nx_seconds_bucket{type=\"t\",le=\"0.001\"} 2\n"
	       "x_seconds_bucket{type=\"t\",le=\"2.5\"} 3\nx_seconds_bucket{type=\"t\",le=\"+Inf\"} 4\nx_seconds_sum{type=\"t\"} 10.001\n"
	       "x_seconds_count{type=\"t\"} 4\n",
	       "a histogram is cumulative, a bound belongs to its bucket");
	pt_buf_clear(&b);
	pt_metric_markdown(&table, &b);
	ok(strstr(b.p, "\n## Things\n") && strstr(b.p, "\n| `x_total` | counter |  | `type`, `state` | How many. |\n") &&
		   strstr(b.p, "\n| `x_bytes` | gauge | bytes |  | How large. |\n"),
	   "the document");
	return tap_end();
}
