/* The timeline of an operation is the text of one of its columns: an event always comes with a change of the operation, so it costs
 * no row of its own.  One line per event, oldest first:
 *
 *     AT ATTEMPT EVENT INSTANCE [DETAIL]
 *
 * AT in wall milliseconds, INSTANCE "-" when there is none, DETAIL a JSON string (so that it has no line feed).
 *
 * It has a bound, and adding to it does not fail for that: an operation must be able to end, whatever happened to it.  Long details
 * are cut; when it is full, what stands between the first event and the newest ones makes way for the event "omitted". */
#include "gateway/internal.h"
#include <stdio.h>

enum {
	TIMELINE_MAX = 256 * 1024, /* each change of the operation writes all of it */
	LINE_MAX_BYTES = 16 * 1024,
	DETAIL_MAX = 2000,
};

/* The detail up to the last whole character that fits. */
static void add_detail(struct pt_buf *b, const char *detail)
{
	size_t n = strlen(detail), fits = 0;
	int one;

	if (n <= DETAIL_MAX)
		fits = n;
	while (fits < n && (one = pt_utf8_len(detail + fits, n - fits)) > 0 && fits + (size_t)one <= DETAIL_MAX)
		fits += (size_t)one;
	pt_buf_chr(b, ' ');
	pt_buf_json(b, detail, fits);
}

/* The first line, the mark, and of the newest ones what takes a quarter. */
static void keep_ends(struct pt_buf *b, const char *timeline, int64_t at)
{
	const char *first = strchrnul(timeline, '\n'), *end = timeline + strlen(timeline), *tail;

	tail = end - first > TIMELINE_MAX / 4 ? end - TIMELINE_MAX / 4 : first;
	tail = strchrnul(tail, '\n');
	if (first - timeline < LINE_MAX_BYTES) {
		pt_buf_add(b, timeline, (size_t)(first - timeline));
		pt_buf_chr(b, '\n');
	}
	pt_buf_fmt(b, "%lld 0 omitted -", (long long)at);
	pt_buf_str(b, tail);
}

int pt_timeline_add(char **timeline, int64_t at, int64_t attempt, const char *event, const char *instance, const char *detail,
		    struct pt_err *err)
{
	pt_auto_buf b = PT_BUF_INIT(TIMELINE_MAX + LINE_MAX_BYTES);
	char *text;
	int rc;

	if (*timeline) {
		if (strlen(*timeline) < TIMELINE_MAX)
			pt_buf_str(&b, *timeline);
		else
			keep_ends(&b, *timeline, at);
		pt_buf_chr(&b, '\n');
	}
	pt_buf_i64(&b, at);
	pt_buf_chr(&b, ' ');
	pt_buf_i64(&b, attempt);
	pt_buf_chr(&b, ' ');
	pt_buf_str(&b, event);
	pt_buf_chr(&b, ' ');
	pt_buf_str(&b, *instance ? instance : "-");
	if (detail && *detail)
		add_detail(&b, detail);
	rc = pt_buf_done(&b, err);
	if (rc < 0)
		return rc;
	text = pt_buf_detach(&b, NULL);
	if (!text)
		return pt_fail_oom(err);
	free(*timeline);
	*timeline = text;
	return PT_OK;
}

bool pt_timeline_next(const char **at, struct pt_event *ret)
{
	const char *line = *at, *end;
	long long ms = 0, attempt = 0;
	int n = 0;

	if (!line || !*line)
		return false;
	end = strchrnul(line, '\n');
	*at = *end ? end + 1 : end;
	*ret = (struct pt_event) { 0 };
	if (sscanf(line, "%lld %lld %31[a-z_] %39[^ \n]%n", &ms, &attempt, ret->event, ret->instance, &n) != 4)
		return pt_timeline_next(at, ret); /* not written here: passed over */
	ret->at = ms;
	ret->attempt = attempt;
	if (strcmp(ret->instance, "-") == 0)
		ret->instance[0] = '\0';
	if (line[n] == ' ') {
		ret->detail = line + n + 1;
		ret->n_detail = (size_t)(end - ret->detail);
	}
	return true;
}
