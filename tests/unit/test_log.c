/* Log lines in each format, the ring, and lines that are too long. */
#include "base/log.h"
#include "base/clock.h"
#include "base/shape.h"
#include "../tap.h"
#include <fcntl.h>
#include <pthread.h>

static int64_t fake(bool mono)
{
	return 1795190645123;
}

/* Standard error goes to a file; take() gives what came since the last call. */
static FILE *sink;
static int real_stderr;
static long taken;

static void take(struct pt_buf *b)
{
	char chunk[4096];
	size_t n;

	pt_buf_clear(b);
	fseek(sink, taken, SEEK_SET);
	while ((n = fread(chunk, 1, sizeof(chunk), sink)) > 0)
		pt_buf_add(b, chunk, n);
	taken += (long)b->len;
	lseek(fileno(sink), 0, SEEK_END);
}

static void formats(void)
{
	struct pt_err e = { 0 }, failed = { 0 };
	pt_auto_buf b = PT_BUF_INIT(65536);

	ok(pt_log_init("info", "json", 0, &e) == 0, "json");
	pt_info("lease \"taken\"", "operation", "op_1", "none", NULL, "attempt", pt_num(-3));
	take(&b);
	is_str(b.p,
	       "{\"time\":\"2026-11-20T16:04:05.123Z\",\"level\":\"info\",\"msg\":\"lease \\\"taken\\\"\",\"operation\":\"op_1\","
	       "\"attempt\":\"-3\"}\n",
	       "JSON line");
	pt_debug("not shown");
	take(&b);
	is_str(b.p, "", "below the level");
	ok(!pt_log_on(PT_LOG_DEBUG) && pt_log_on(PT_LOG_WARN), "levels");

	ok(pt_log_init("DEBUG", "Plain", 0, &e) == 0, "plain, names in any case");
	pt_warn("slow", "a", "x y", "b", "", "c", "1", "d", "k=v", "e", "two\nlines", "f", "\033[31m", "g", "\xc3\xa9");
	take(&b);
	is_str(b.p,
	       "2026-11-20T16:04:05.123Z warn  slow a=\"x y\" b=\"\" c=1 d=\"k=v\" e=\"two\\nlines\" f=\"\\u001b[31m\" g=\xc3\xa9\n",
	       "plain line: one line, no control characters");
	pt_debug("shown");
	take(&b);
	is_str(b.p, "2026-11-20T16:04:05.123Z debug shown\n", "debug");

	ok(pt_log_init("error", "dev", 0, &e) == 0, "dev");
	pt_error("broken");
	take(&b);
	is_str(b.p, "16:04:05.123 error broken\n", "short time, no colours in a file");

	ok(pt_log_init("info", "plain", 0, &e) == 0, "errors");
	(void)pt_fail(&failed, PT_E_TIMEOUT, "no answer");
	pt_log_err(PT_LOG_ERROR, "query", &failed);
	take(&b);
	is_str(b.p, "2026-11-20T16:04:05.123Z error query code=timeout error=\"no answer\"\n", "an error's fields");
	(void)pt_hint(&failed, "wait");
	pt_native(&failed, "57014");
	pt_log_err(PT_LOG_ERROR, "query", &failed);
	take(&b);
	ok(strstr(b.p, " hint=wait native=57014\n"), "hint and native code");
	pt_log_err(PT_LOG_ERROR, "query", &failed, "operation", "op_1", "skipped", NULL, "attempt", pt_num(2));
	take(&b);
	ok(strstr(b.p, " native=57014 operation=op_1 attempt=2\n"), "and what it is about");

	ok(pt_log_init("loud", "json", 0, &e) == PT_E_INVALID && strstr(e.msg, "unknown log level 'loud'"), "%s", e.msg);
	ok(pt_log_init("info", "xml", 0, &e) == PT_E_INVALID && strstr(e.msg, "unknown log format 'xml'"), "%s", e.msg);
}

static void too_long(void)
{
	struct pt_err e = { 0 };
	pt_auto_buf b = PT_BUF_INIT(65536);
	pt_auto_buf big = PT_BUF_INIT(65536);
	json_t *j = NULL;

	/* each length around the limit, so that the one that fits to the byte is among them */
	for (size_t n = 16200; n < 16420; n++) {
		pt_buf_clear(&big);
		while (big.len < n)
			pt_buf_chr(&big, 'x');
		if (pt_log_init("info", "json", 0, &e) < 0)
			break;
		pt_info("m", "k", big.p);
		take(&b);
		j = NULL;
		if (!b.len || b.p[b.len - 1] != '\n' || pt_json_parse(b.p, b.len, &j, &e) < 0)
			break;
		json_decref(j);
		if (pt_log_init("info", "plain", 0, &e) < 0)
			break;
		pt_info("m", "k", big.p);
		take(&b);
		if (!b.len || b.p[b.len - 1] != '\n')
			break;
	}
	is_int(big.len, 16419, "long lines are whole lines, and valid JSON");
	ok(strstr(b.p, "too long"), "and say so");
}

/* The lines of the ring as their messages, "1 2 3". */
static uint64_t messages(struct pt_buf *out, uint64_t after, size_t max)
{
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	uint64_t last = pt_log_ring(&b, after, max);

	pt_buf_clear(out);
	for (char *line = b.p, *end; (end = strchr(line, '\n')); line = end + 1) {
		struct pt_err e;
		json_t *j = NULL;

		if (pt_json_parse(line, (size_t)(end - line), &j, &e) < 0)
			pt_buf_str(out, "(broken)");
		else
			pt_buf_fmt(out, "%s%s", out->len ? " " : "", json_string_value(json_object_get(j, "msg")));
		json_decref(j);
	}
	return last;
}

static void ring(void)
{
	struct pt_err e = { 0 };
	pt_auto_buf m = PT_BUF_INIT(1 << 20);
	uint64_t first, last;
	int bad = 0;

	ok(pt_log_init("info", "plain", 0, &e) == 0, "without a ring");
	pt_info("x");
	is_int(messages(&m, 0, 10), 0, "nothing is kept");

	ok(pt_log_init("info", "plain", 300, &e) == 0, "room for four lines or so");
	is_int(messages(&m, 0, 10), 0, "empty");
	pt_info("a");
	first = messages(&m, 0, 10);
	is_str(m.p, "a", "one line, as JSON whatever the format");
	pt_info("b");
	pt_info("c");
	last = messages(&m, 0, SIZE_MAX);
	is_str(m.p, "a b c", "three, oldest first, no limit");
	is_int(last, first + 2, "numbered");
	(void)messages(&m, 0, 2);
	is_str(m.p, "b c", "the newest two");
	(void)messages(&m, first, 10);
	is_str(m.p, "b c", "those after the first");
	is_int(messages(&m, last, 10), 0, "none after the last");
	/* wrap at every possible place */
	for (int i = 0; i < 1000; i++) {
		char want[32];

		pt_info(pt_num(i), "k", i % 3 ? "some text" : "");
		snprintf(want, sizeof(want), i ? "%d %d" : "c %d", i ? i - 1 : i, i);
		(void)messages(&m, 0, 2);
		bad += strcmp(m.p, want) != 0;
		(void)messages(&m, 0, 100);
		bad += strstr(m.p, "(broken)") != NULL || strlen(m.p) < 5;
	}
	is_int(bad, 0, "whole lines only, wherever it wraps");
	last = messages(&m, 0, 1);
	{
		char big[500];

		memset(big, 'y', sizeof(big));
		big[sizeof(big) - 1] = '\0';
		pt_info(big);
	}
	is_int(messages(&m, 0, 1), last, "a line larger than the ring is not kept");
	is_str(m.p, "999", "and spoils nothing");
}

static void *chatter(void *arg)
{
	for (int i = 0; i < 500; i++)
		pt_info("from a thread", "i", pt_num(i));
	return NULL;
}

static void threads(void)
{
	struct pt_err e = { 0 };
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	pthread_t t[4];
	int lines = 0, bad = 0;

	ok(pt_log_init("info", "json", 4096, &e) == 0, "ring of 4 KiB");
	take(&b);
	for (int i = 0; i < 4; i++)
		bad |= pthread_create(&t[i], NULL, chatter, NULL);
	for (int i = 0; i < 50; i++)
		(void)messages(&b, 0, 100);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	take(&b);
	for (char *line = b.p, *end; (end = strchr(line, '\n')); line = end + 1, lines++)
		bad |= strncmp(line, "{\"time\":", 8) != 0 || end[-1] != '}';
	ok(lines == 2000 && !bad, "lines of threads do not mix");
}

static struct pt_buf seen = PT_BUF_INIT(1 << 20);

static void to_sink(void *arg, const struct pt_log_line *l)
{
	pt_buf_fmt(&seen, "%d%s {%.*s} {%.*s}\n", l->level, l->operation ? " op" : "", (int)l->head_n, l->head, (int)l->fields_n,
		   l->fields);
}

static void sinks(void)
{
	struct pt_err err;
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	char *big = malloc(20000);

	(void)!pt_log_init("info", "plain", 0, &err);
	pt_log_sink(to_sink, NULL);
	pt_debug("not printed", "operation", "op_1");
	pt_info("bare");
	pt_warn("with \"quotes\"", "operation", "op_1", "left out", NULL, "k", "v");
	is_str(seen.p,
	       "1 {\"level\":\"info\",\"msg\":\"bare\"} {}\n"
	       "2 op {\"level\":\"warn\",\"msg\":\"with \\\"quotes\\\"\"} {\"operation\":\"op_1\",\"k\":\"v\"}\n",
	       "the sink gets each printed line in two parts");
	pt_buf_clear(&seen);
	memset(big, 'x', 19999);
	big[19999] = '\0';
	pt_info("large", "operation", big);
	is_str(seen.p, "1 {\"level\":\"info\",\"msg\":\"large\"} {\"note\":\"fields left out: the line is too long\"}\n",
	       "also one that is too long");
	pt_log_sink(NULL, NULL);
	pt_buf_clear(&seen);
	pt_info("after");
	is_str(seen.p, "", "and none after it was taken away");
	free(big);
	pt_buf_release(&seen);
	take(&b);
}

int main(void)
{
	sink = tmpfile();
	real_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	/* O_APPEND: each line behind the last, also after take() has moved the offset */
	fcntl(fileno(sink), F_SETFL, O_APPEND);
	dup2(fileno(sink), STDERR_FILENO);
	pt_clock_inject(fake);
	formats();
	too_long();
	ring();
	threads();
	sinks();
	pt_clock_inject(NULL);
	dup2(real_stderr, STDERR_FILENO);
	fclose(sink);
	return tap_end();
}
