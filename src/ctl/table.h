/* Tables of text for people: columns as wide as their content, never wrapped.  Cells are UTF-8; control characters are shown as
 * escapes, so that data cannot speak to the terminal. */
#ifndef PT_CTL_TABLE_H
#define PT_CTL_TABLE_H
#include "base/buf.h"

struct pt_table_col {
	const char *title;
	bool right;         /* numbers */
	unsigned max_width; /* in terminal cells, longer text is cut with "…"; 0 = whole */
};
struct pt_table;

/* cols (n of them) must outlive the table; titles are shown as they are.  rule: a line of dashes below the titles. */
int pt_table_new(struct pt_table **ret, const struct pt_table_col *cols, size_t n, bool rule, struct pt_err *err) PT_MUSTCHECK;
void pt_table_free(struct pt_table *t);
PT_DEFINE_CLEANUP(struct pt_table *, pt_table_free)
/* The next cell of the current row; a row is complete after n cells.  NULL text is shown as NULL (an empty cell is ""). */
void pt_table_cell(struct pt_table *t, const char *text, size_t len);
/* Append what was added since the last call.  The first call fixes the widths by the rows known so far and writes the titles; a later
 * cell that is wider stands out of its column.  So a result of any size needs memory for the rows between two calls only. */
int pt_table_write(struct pt_table *t, struct pt_buf *out, struct pt_err *err) PT_MUSTCHECK;
size_t pt_table_pending(const struct pt_table *t); /* rows not written yet */

/* Width of UTF-8 text in terminal cells. */
size_t pt_text_width(const char *s, size_t n);
/* Append s with control characters and bytes that are not UTF-8 as escapes (\n, \t, \x1b). */
void pt_text_printable(struct pt_buf *out, const char *s, size_t n);
/* Cut the text in b to max cells, with "…" at its end. */
void pt_text_cut(struct pt_buf *b, size_t max);
/* RFC 3339 text to local time: "16:04:05" today, "Nov 20 16:04" this year, else "2025-11-20"; other text stays as it is. */
void pt_time_short(const char *rfc3339, int64_t now_wall_ms, char out[static 32]);
/* Milliseconds as "350 ms", "4.2 s", "3 m 10 s", "2 h 5 m", "3 d 4 h". */
void pt_time_span(int64_t ms, char out[static 32]);
#endif
