/* The log outbox: order, kill, torn tails, damage, the bound and its note, and what is shipped again. */
#include "agent/outbox_int.h"
#include "spool_util.h"
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

static char dir[64];

static void add(struct pt_outbox *o, int n, size_t size)
{
	pt_auto_buf head = PT_BUF_INIT(1 << 20);
	struct pt_log_line l = { .at = 5, .level = PT_LOG_INFO, .fields = "\"k\":\"v\"", .fields_n = 7 };

	pt_buf_fmt(&head, "\"level\":\"info\",\"msg\":\"m%d %0*d\"", n, (int)size, 0);
	l.head = head.p;
	l.head_n = head.len;
	pt_outbox_add(o, &l);
}

static struct pt_outbox *outbox(int64_t max, const char *instance)
{
	struct pt_outbox *o = NULL;
	struct pt_err err;

	if (pt_outbox_open(&o, dir, max, ring("key_1"), instance, &err) < 0) {
		printf("Bail out! %s\n", err.msg);
		exit(1);
	}
	return o;
}

static void flush(struct pt_outbox *o)
{
	struct pt_err err = { 0 };

	if (pt_outbox_flush(o, &err) < 0)
		ok(false, "flush: %s", err.msg);
}

/* What was taken out: "instance:seq:message " of each line, messages without their filling. */
struct taken {
	struct pt_buf text;
	int n;
	long long noted; /* sum of the notes */
};

static int take(struct pt_outbox *o, size_t most, bool ack, struct taken *t)
{
	struct pt_outbox_batch b = { .lines = PT_BUF_INIT(1 << 20) };
	struct pt_err err = { 0 };
	pt_auto_buf doc = PT_BUF_INIT(1 << 20);
	json_t *j = NULL, *line;
	size_t i;
	int rc = pt_outbox_peek(o, most, &b, &err);

	if (rc == 1) {
		pt_buf_fmt(&doc, "[%s]", b.lines.p);
		if (pt_json_parse(doc.p, doc.len, &j, &err) < 0)
			ok(false, "the batch is JSON: %s", err.msg);
		json_array_foreach(j, i, line) {
			const char *msg = json_string_value(json_object_get(line, "msg"));
			const char *lines = json_string_value(json_object_get(json_object_get(line, "fields"), "lines"));

			pt_buf_fmt(&t->text, "%s:%lld:%.*s ", b.instance, json_integer_value(json_object_get(line, "seq")),
				   lines ? 17 : (int)strcspn(msg, " "), msg);
			t->noted += lines ? strtoll(lines, NULL, 10) : 0;
			t->n += !lines;
		}
		json_decref(j);
		if (b.n != i)
			ok(false, "the batch counts its lines");
		if (ack)
			pt_outbox_ack(o, &b, true);
	}
	pt_buf_release(&b.lines);
	return rc;
}

static struct taken take_all(struct pt_outbox *o, size_t most)
{
	struct taken t = { .text = PT_BUF_INIT(64 << 20) };

	while (take(o, most, true, &t) == 1)
		;
	return t;
}

static void expect(const char *instance, int from, int to, struct pt_buf *out)
{
	for (int i = from; i <= to; i++)
		pt_buf_fmt(out, "%s:%d:m%d ", instance, i, i);
}

static void is_lines(struct taken *t, const char *instance, int from, int to, const char *what)
{
	pt_auto_buf want = PT_BUF_INIT(64 << 20);

	expect(instance, from, to, &want);
	ok(strcmp(want.p, t->text.p) == 0, "%s", what);
	if (strcmp(want.p, t->text.p) != 0)
		printf("# got %.400s\n", t->text.p);
	pt_buf_release(&t->text);
}

static void test_order(void)
{
	struct pt_outbox *o = outbox(1 << 20, "in_a");
	struct pt_outbox_stats st;
	struct taken t;

	for (int i = 1; i <= 3000; i++) {
		add(o, i, (size_t)(i % 300));
		if (i % 7 == 0)
			flush(o);
	}
	pt_outbox_stats(o, &st);
	is_int(st.waiting, 3000, "3,000 lines wait");
	flush(o);
	t = (struct taken) { .text = PT_BUF_INIT(1 << 20) };
	ok(take(o, 1000, false, &t) == 1 && t.n > 100, "a batch has many");
	pt_buf_release(&t.text);
	t = take_all(o, 97);
	is_lines(&t, "in_a", 1, 3000, "every line comes out once, in order, and again when it was not acknowledged");
	pt_outbox_stats(o, &st);
	ok(st.waiting == 0 && st.shipped == 3000 && st.dropped == 0 && st.added == 3000, "the numbers agree");
	ok(st.bytes <= 64 * 1024 + 40000, "delivered segments are removed (%lld bytes)", (long long)st.bytes);
	add(o, 3001, 1);
	flush(o);
	t = take_all(o, 1000);
	is_lines(&t, "in_a", 3001, 3001, "and on it goes");
	pt_outbox_close(o);
	char name[300];
	is_int(files(dir, "seg-", "", name), 0, "nothing is left");
}

/* Death without a word: the object is left as it is. */
static void test_kill(void)
{
	struct pt_outbox *o = outbox(1 << 20, "in_a"), *o2;
	struct taken t;

	for (int i = 1; i <= 500; i++)
		add(o, i, 200);
	flush(o);
	t = (struct taken) { .text = PT_BUF_INIT(1 << 20) };
	(void)!take(o, 10, true, &t);
	pt_buf_release(&t.text);
	add(o, 501, 1);
	pt_closep(&o->log.lock_fd);
	o2 = outbox(1 << 20, "in_b");
	add(o2, 1, 1);
	add(o2, 2, 1);
	flush(o2);
	t = take_all(o2, 1000);
	pt_auto_buf want = PT_BUF_INIT(1 << 20);
	expect("in_a", 1, 500, &want);
	expect("in_b", 1, 2, &want);
	is_str(t.text.p, want.p, "what was flushed is here, of both processes, in order; what was delivered comes again");
	pt_buf_release(&t.text);
	pt_outbox_close(o2);
	wipe(dir, false);
	pt_outbox_close(o);
	wipe(dir, false);
}

static void path_of(const char *name, char out[static 400])
{
	snprintf(out, 400, "%s/%s", dir, name);
}

static void write_file(const char *path, const char *p, size_t n)
{
	struct pt_err err;

	if (pt_file_replace(path, p, n, 0600, &err) < 0)
		abort();
}

/* How many records of lines end at or before byte n. */
static int whole_records(const struct pt_buf *b, size_t n)
{
	struct seglog_record_head h;
	int count = 0;

	for (size_t at = 0, len; (len = seglog_record_check(b->p + at, b->len - at)) && at + len <= n; at += len) {
		seglog_head_get(b->p + at, &h);
		count += h.kind != SEGLOG_KIND_KEY;
	}
	return count;
}

static int intact_before(const struct pt_buf *b, size_t n)
{
	struct seglog_record_head h;

	for (size_t at = 0, len; (len = seglog_record_check(b->p + at, b->len - at)); at += len) {
		seglog_head_get(b->p + at, &h);
		if (n < at + len) /* there are two key records: one is enough */
			return whole_records(b, h.kind == SEGLOG_KIND_KEY ? b->len : n);
	}
	abort();
}

/* A segment cut at every byte, and with every byte changed. */
static void test_torn(void)
{
	struct pt_outbox *o = outbox(1 << 20, "in_a");
	pt_auto_buf whole = PT_BUF_INIT(1 << 20);
	struct pt_err err;
	char name[300], path[400];
	int bad_cut = 0, bad_flip = 0, k;

	for (int i = 1; i <= 5; i++) {
		add(o, i, 1);
		flush(o);
	}
	(void)files(dir, "seg-", "", name);
	path_of(name, path);
	if (pt_file_read(path, &whole, &err) < 0)
		abort();
	is_int(whole_records(&whole, whole.len), 5, "five records");
	pt_outbox_close(o);
	for (size_t n = 0; n <= whole.len; n++) {
		struct taken t;

		wipe(dir, false);
		write_file(path, whole.p, n);
		o = outbox(1 << 20, "in_b");
		add(o, 1, 1);
		flush(o);
		t = take_all(o, 1000);
		pt_auto_buf want = PT_BUF_INIT(1 << 20);
		expect("in_a", 1, whole_records(&whole, n), &want);
		expect("in_b", 1, 1, &want);
		bad_cut += strcmp(want.p, t.text.p) != 0;
		pt_buf_release(&t.text);
		pt_outbox_close(o);
	}
	is_int(bad_cut, 0, "cut at every byte: the whole records before the cut, and what comes after the restart");
	for (size_t n = 0; n < whole.len; n++) {
		struct taken t;

		wipe(dir, false);
		whole.p[n] ^= 0x41;
		write_file(path, whole.p, whole.len);
		whole.p[n] ^= 0x41;
		o = outbox(1 << 20, "in_b");
		t = take_all(o, 1000);
		pt_auto_buf want = PT_BUF_INIT(1 << 20);
		k = intact_before(&whole, n);
		expect("in_a", k ? 1 : 2, k ? k : 5, &want); /* reading begins behind a damaged first record */
		bad_flip += strcmp(want.p, t.text.p) != 0;
		pt_buf_release(&t.text);
		pt_outbox_close(o);
	}
	is_int(bad_flip, 0, "every byte changed: the records before it, none that is wrong");
	wipe(dir, false);
}

static void test_damage_while_open(void)
{
	struct pt_outbox *o = outbox(1 << 20, "in_a");
	struct pt_outbox_stats st;
	struct taken t = { .text = PT_BUF_INIT(1 << 20) };
	char name[300], path[400];
	int fd;

	for (int i = 1; i <= 3; i++) {
		add(o, i, 1);
		flush(o);
	}
	(void)files(dir, "seg-", "", name);
	path_of(name, path);
	fd = open(path, O_RDWR);
	ok(fd >= 0 && pwrite(fd, "XXXX", 4, lseek(fd, 0, SEEK_END) - 200) == 4, "bytes change under us");
	close(fd);
	is_int(take(o, 1000, true, &t), 1, "what stands before is delivered");
	is_int(take(o, 1000, true, &t), PT_E_CORRUPT, "the rest is said to be lost");
	is_int(take(o, 1000, true, &t), 0, "once");
	pt_outbox_stats(o, &st);
	ok(st.damaged == 1 && st.waiting == 0 && st.shipped + st.dropped == 3, "and counted");
	add(o, 4, 1);
	flush(o);
	ok(take(o, 1000, true, &t) == 1 && strstr(t.text.p, "in_a:4:m4"), "later lines come");
	pt_buf_release(&t.text);
	pt_outbox_close(o);
	wipe(dir, false);
}

/* The sum of notes and lines that arrive is what was added; the newest are whole and in order. */
static void check_bound(struct taken *t, int added, const char *what)
{
	int first = added - t->n + 1;
	pt_auto_buf want = PT_BUF_INIT(64 << 20);
	const char *tail = strchr(t->text.p, ' ');

	expect("in_a", first, added, &want);
	ok(t->noted > 0 && t->noted + t->n == added, "%s: %lld dropped and %d delivered are the %d that were added", what,
	   t->noted, t->n, added);
	ok(strncmp(t->text.p, "in_a:", 5) == 0 && strstr(t->text.p, ":log lines dropped ") < strstr(t->text.p, ":m"),
	   "%s: the note stands in front", what);
	tail = strstr(t->text.p, "dropped ");
	ok(tail && strcmp(tail + 8, want.p) == 0, "%s: one note, then the newest lines in order", what);
	ok(strtoll(t->text.p + 5, NULL, 10) == first - 1, "%s: the note has the number of the last line dropped", what);
}

static void test_bound(bool restart)
{
	struct pt_outbox *o = outbox(1 << 20, "in_a");
	const char *what = restart ? "after a restart" : "at the bound";
	struct pt_outbox_stats st;
	struct taken t;
	int most = 0;

	for (int i = 1; i <= 20000; i++) {
		add(o, i, 200);
		if (i % 20)
			continue;
		flush(o);
		pt_outbox_stats(o, &st);
		most = st.bytes > most ? (int)st.bytes : most;
	}
	ok(most <= 1 << 20 && most > 900 * 1024, "%s: never more than the bound (%d)", what, most);
	ok(st.dropped > 10000 && st.waiting > 2000, "%s: the oldest lines are gone (%lld)", what, (long long)st.dropped);
	if (restart) {
		struct pt_outbox *dead = o;

		pt_closep(&dead->log.lock_fd);
		o = outbox(1 << 20, "in_b");
		t = take_all(o, 1000);
		check_bound(&t, 20000, what);
		pt_buf_release(&t.text);
		pt_outbox_close(o);
		wipe(dir, false);
		pt_outbox_close(dead);
		wipe(dir, false);
		return;
	}
	t = take_all(o, 1000);
	check_bound(&t, 20000, what);
	pt_buf_release(&t.text);
	pt_outbox_stats(o, &st);
	is_int(st.waiting, 0, "nothing waits");
	pt_outbox_close(o);
	wipe(dir, false);
}

/* A batch is under way while its segment has to go. */
static void test_ack_of_what_went(void)
{
	struct pt_outbox *o = outbox(1 << 20, "in_a");
	struct pt_outbox_batch b = { .lines = PT_BUF_INIT(1 << 20) };
	struct pt_outbox_stats st;
	struct pt_err err;
	struct taken t;
	int i;

	for (i = 1; i <= 20; i++)
		add(o, i, 200);
	flush(o);
	is_int(pt_outbox_peek(o, 1000, &b, &err), 1, "a batch is under way");
	for (; i <= 10000; i++) {
		add(o, i, 200);
		if (i % 20 == 0)
			flush(o);
	}
	flush(o);
	pt_outbox_ack(o, &b, true);
	t = take_all(o, 1000);
	check_bound(&t, 10000, "an acknowledgement that came too late");
	pt_outbox_stats(o, &st);
	is_int(st.waiting, 0, "nothing waits");
	pt_buf_release(&t.text);
	pt_buf_release(&b.lines);
	pt_outbox_close(o);
	wipe(dir, false);
}

/* The disk does not keep up: memory is bounded, and the note is one of the newest lines. */
static void test_memory(void)
{
	struct pt_outbox *o = outbox(64 << 20, "in_a");
	struct pt_outbox_stats st;
	struct taken t;

	for (int i = 1; i <= 30000; i++)
		add(o, i, 300);
	flush(o);
	t = take_all(o, 1000);
	pt_outbox_stats(o, &st);
	ok(t.n > 5000 && t.noted > 5000 && t.n + t.noted == 30000, "%d lines and %lld dropped", t.n, t.noted);
	is_int(st.dropped, t.noted, "and counted");
	ok(t.text.len > 40 && strstr(t.text.p + t.text.len - 40, "30001:log lines dropped "), "the note comes last");
	pt_buf_release(&t.text);
	pt_outbox_close(o);
	wipe(dir, false);
}

/* A file size limit stands for a disk without room. */
static void test_disk_full(void)
{
	struct pt_outbox *o = outbox(1 << 20, "in_a");
	struct rlimit was, small;
	struct pt_outbox_stats st;
	struct pt_err err = { 0 };
	struct taken t;
	int i;

	(void)signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &was);
	small = was;
	small.rlim_cur = 20000;
	for (i = 1; i <= 50; i++)
		add(o, i, 200);
	flush(o);
	setrlimit(RLIMIT_FSIZE, &small);
	for (; i <= 100; i++)
		add(o, i, 200);
	is_int(pt_outbox_flush(o, &err), PT_E_LIMIT, "a disk without room is an error of the flush");
	setrlimit(RLIMIT_FSIZE, &was);
	pt_outbox_stats(o, &st);
	ok(st.dropped == 50 && st.waiting == 50, "what did not fit is counted");
	add(o, 101, 200);
	flush(o);
	t = take_all(o, 1000);
	ok(t.n == 51 && t.noted == 50, "and said as soon as there is room");
	ok(strstr(t.text.p, "in_a:50:m50 in_a:101:m101 in_a:102:log lines dropped "),
	   "what was there, what came later, the note");
	pt_buf_release(&t.text);
	pt_outbox_close(o);
	wipe(dir, false);
}

/* --- many threads --- */

static void *adder(void *arg)
{
	for (int i = 0; i < 3000; i++)
		add(arg, i, 50);
	return NULL;
}

static _Atomic bool over;

static void *flusher(void *arg)
{
	struct pt_err err;

	while (!over)
		if (pt_outbox_wait_added(arg, 20, false))
			(void)!pt_outbox_flush(arg, &err);
	return NULL;
}

static void test_threads(void)
{
	struct pt_outbox *o = outbox(64 << 20, "in_a");
	struct pt_outbox_stats st;
	struct taken t = { .text = PT_BUF_INIT(64 << 20) };
	pthread_t a[4], f;
	long long last = 0;
	bool sorted = true;
	int batches = 0;

	over = false;
	pthread_create(&f, NULL, flusher, o);
	for (int i = 0; i < 4; i++)
		pthread_create(&a[i], NULL, adder, o);
	do {
		if (take(o, 100, true, &t) == 1)
			batches++;
		else
			(void)pt_outbox_wait_flushed(o, 10);
		pt_outbox_stats(o, &st);
	} while (st.added < 12000 || st.waiting);
	over = true;
	pt_outbox_wake(o);
	for (int i = 0; i < 4; i++)
		pthread_join(a[i], NULL);
	pthread_join(f, NULL);
	for (const char *p = t.text.p; *p; p = strchr(p, ' ') + 1) {
		long long seq = strtoll(p + 5, NULL, 10);

		sorted &= seq > last;
		last = seq;
	}
	ok(sorted, "numbers only grow (%d batches)", batches);
	ok(t.n == 12000 && st.shipped == 12000 && st.dropped == 0, "each line comes out once");
	pt_buf_release(&t.text);
	pt_outbox_close(o);
	wipe(dir, false);
}

int main(void)
{
	struct pt_err err;

	temp_dir_quick(dir);
	if (pt_log_init("error", "plain", 0, &err) < 0)
		return 1;
	test_order();
	test_kill();
	test_torn();
	test_damage_while_open();
	test_bound(false);
	test_bound(true);
	test_ack_of_what_went();
	test_memory();
	test_disk_full();
	test_threads();
	wipe(dir, true);
	return tap_end();
}
