/* Metrics in Prometheus' text format (version 0.0.4), written from a table: what is not in the table cannot be written, and
 * docs/metrics.md is made from the same rows.  No allocation but the buffer's; the exposition belongs to one thread. */
#ifndef PT_BASE_METRIC_H
#define PT_BASE_METRIC_H
#include "base/buf.h"
#include <stdatomic.h>
#include <stdint.h>

/* PT_UNTYPED: a gauge whose name, given by others, belongs to another type. */
enum pt_metric_type { PT_COUNTER, PT_GAUGE, PT_HISTOGRAM, PT_UNTYPED };
enum { PT_METRIC_LABELS = 3 };
struct pt_metric {
	const char *name, *help; /* help: one sentence */
	enum pt_metric_type type;
	const char *unit; /* seconds, bytes, …; NULL = a count or a flag */
	const char *labels[PT_METRIC_LABELS + 1];
};
struct pt_metric_table {
	const char *title; /* of its section in the document */
	const struct pt_metric *rows;
	size_t n;
};

struct pt_exposition {
	struct pt_buf *b;
	const struct pt_metric_table *table;
	const struct pt_metric *open; /* whose samples are being written */
};
/* Begin the samples of a row (HELP and TYPE).  Each row once in an exposition; a row that has nothing to say is left out. */
void pt_metric_begin(struct pt_exposition *x, size_t row);
#define PT_LABELS(...) ((const char *const[]) { __VA_ARGS__ })
/* A sample of the row begun: a value for each of its labels, in their order. */
void pt_metric_put(struct pt_exposition *x, double value, const char *const *labels);
/* Begin a row without labels and write its one sample. */
void pt_metric_one(struct pt_exposition *x, size_t row, double value);

/* Durations, counted into buckets by any thread.  The buckets are the caller's table, in microseconds, ascending. */
enum { PT_BUCKETS_MAX = 12 };
struct pt_buckets {
	int64_t us[PT_BUCKETS_MAX];
	size_t n;
};
struct pt_histogram {
	_Atomic uint64_t n[PT_BUCKETS_MAX + 1]; /* the last: above all of them; not cumulative */
	_Atomic uint64_t sum_us;
};
void pt_histogram_add(struct pt_histogram *h, const struct pt_buckets *b, int64_t us); /* below 0 counts as 0 */
/* Samples of a PT_HISTOGRAM row begun: _bucket, _sum and _count, in seconds. */
void pt_metric_histogram(struct pt_exposition *x, const struct pt_histogram *h, const struct pt_buckets *b,
			 const char *const *labels);

/* Append the table as a section in Markdown. */
void pt_metric_markdown(const struct pt_metric_table *t, struct pt_buf *out);
#endif
