/* The log outbox's encryption: nothing readable on disk, keys that rotate, keys that are missing, and what somebody else wrote there. */
#include "agent/outbox_int.h"
#include "spool_util.h"
#include <pthread.h>

static char dir[64];
static struct pt_err err;

static struct pt_outbox *outbox(int64_t max, const struct pt_seal_ring *r, const char *instance)
{
	struct pt_outbox *o = NULL;

	if (pt_outbox_open(&o, dir, max, r, instance, &err) < 0) {
		printf("Bail out! %s\n", err.msg);
		exit(1);
	}
	return o;
}

static void add(struct pt_outbox *o, int from, int to, int size)
{
	for (int i = from; i <= to; i++) {
		char head[2000];
		struct pt_log_line l = {
			.at = 5, .level = PT_LOG_INFO, .head = head, .fields = "\"table\":\"salaries\"", .fields_n = 18
		};

		l.head_n = (size_t)snprintf(head, sizeof(head), "\"level\":\"info\",\"msg\":\"m%d %0*d\"", i, size, 0);
		pt_outbox_add(o, &l);
	}
	if (pt_outbox_flush(o, &err) < 0)
		ok(false, "flush: %s", err.msg);
}

static struct pt_outbox_stats stats(struct pt_outbox *o)
{
	struct pt_outbox_stats st;

	pt_outbox_stats(o, &st);
	return st;
}

/* What comes out, as "instance:seq " of each line, notes as "instance:seq=LINES "; acknowledged. */
static void taken(struct pt_outbox *o, struct pt_buf *out)
{
	struct pt_outbox_batch b = { .lines = PT_BUF_INIT(1 << 20) };

	pt_buf_clear(out);
	while (pt_outbox_peek(o, 1000, &b, &err) == 1) {
		pt_auto_buf doc = PT_BUF_INIT(1 << 20);
		json_t *j = NULL, *line;
		size_t i;

		pt_buf_fmt(&doc, "[%s]", b.lines.p);
		ok_quiet(pt_json_parse(doc.p, doc.len, &j, &err) == 0);
		json_array_foreach(j, i, line) {
			const char *lines = json_string_value(json_object_get(json_object_get(line, "fields"), "lines"));

			pt_buf_fmt(out, "%s:%lld", b.instance, json_integer_value(json_object_get(line, "seq")));
			pt_buf_fmt(out, lines ? "=%s " : " ", lines);
		}
		json_decref(j);
		pt_outbox_ack(o, &b, true);
	}
	pt_buf_release(&b.lines);
}

static void is_taken(struct pt_outbox *o, const char *want, const char *what)
{
	pt_auto_buf got = PT_BUF_INIT(1 << 20);

	taken(o, &got);
	pt_buf_str(&got, "");
	is_str(got.p ? got.p : "", want, "%s", what);
}

static const char *path_of(const char *name)
{
	static char path[400];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

/* How many files below dir hold the text. */
static int found(const char *text, size_t n)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int count = 0;

	while (d && (e = readdir(d))) {
		pt_auto_buf b = PT_BUF_INIT(4 << 20);

		if (*e->d_name == '.')
			continue;
		ok_quiet(pt_file_read(path_of(e->d_name), &b, &err) == 0);
		count += b.len && memmem(b.p, b.len, text, n) != NULL;
	}
	closedir(d);
	return count;
}

static void test_nothing_readable(void)
{
	static const char *const words[] = { "salaries",          "\"msg\"",    "info",      "in_aaa",
					     "log lines dropped", "pts_secret", "0000000000" };
	struct pt_outbox *o = outbox(1 << 20, ring("key_1"), "in_aaa");
	char name[300];
	int n = 0;

	for (int i = 0; i < 150; i++)
		add(o, i * 100 + 1, i * 100 + 100, 100);
	ok(stats(o).dropped > 1000 && o->note.lines > 1000, "lines, and a note for those that had to go");
	for (size_t i = 0; i < PT_COUNT(words); i++)
		n += found(words[i], strlen(words[i]));
	n += found((const char *)o->log.key->key, SEAL_KEY_BYTES);
	n += found((const char *)o->log.ring.keys[0].key, SEAL_KEY_BYTES);
	is_int(n, 0, "neither lines, numbers of a note, names nor keys are in any file");
	is_int(found("key_1", 5) > 10 && files(dir, "", "", name) == files(dir, "seg-", ".log", name) + 3, 1,
	       "there are segments and the lock, and no other file");
	pt_outbox_close(o);
	wipe(dir, false);
}

/* Every bit of it sealed: with the checksum made right again, a changed byte is damage, and nothing wrong comes out. */
static void test_forged(void)
{
	struct pt_outbox *o = outbox(1 << 20, ring("key_1"), "in_a");
	struct seglog_record_head h;
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	size_t at, len;
	char path[400], name[300];
	int bad = 0, tried = 0;

	add(o, 1, 1, 20);
	add(o, 2, 2, 20);
	(void)files(dir, "seg-", ".log", name);
	snprintf(path, sizeof(path), "%s", path_of(name));
	ok_quiet(pt_file_read(path, &b, &err) == 0);
	pt_outbox_close(o);
	for (at = 0; (len = seglog_record_check(b.p + at, b.len - at)); at += len) {
		seglog_head_get(b.p + at, &h);
		if (h.kind != SEGLOG_KIND_KEY)
			break;
	}
	for (size_t i = 12; i < len; i++, tried++) { /* behind magic, checksum and length */
		pt_auto_buf got = PT_BUF_INIT(1 << 20);
		uint32_t crc, was;

		memcpy(&was, b.p + at + 4, 4);
		b.p[at + i] ^= 1;
		crc = seglog_crc32c(0, b.p + at + 8, len - 8);
		memcpy(b.p + at + 4, &crc, 4);
		wipe(dir, false);
		ok_quiet(pt_file_replace(path, b.p, b.len, 0600, &err) == 0);
		o = outbox(1 << 20, ring("key_1"), "in_b");
		taken(o, &got);
		/* set aside: it names another data key; and that one bit makes it look like a key record */
		bad += stats(o).damaged == 0 && stats(o).sealed == 0 && i != 14;
		bad += got.len && strcmp(got.p, "in_a:2 ") != 0;
		pt_outbox_close(o);
		b.p[at + i] ^= 1;
		memcpy(b.p + at + 4, &was, 4);
	}
	ok(tried > 100 && bad == 0, "a bit changed under a right checksum is noticed (%d places, %d wrong)", tried, bad);
	wipe(dir, false);
}

static void test_rotation(void)
{
	struct pt_outbox *o = outbox(1 << 20, ring("key_1"), "in_a");

	add(o, 1, 2, 20);
	is_int(pt_outbox_rekey(o, ring("key_2"), &err), 0, "key_2 alone, while it runs");
	add(o, 3, 3, 20);
	is_int(stats(o).lines, 3, "nothing is lost");
	pt_outbox_close(o);
	o = outbox(1 << 20, ring("key_2"), "in_b");
	is_int(stats(o).sealed, 0, "key_2 alone opens all of it");
	is_int(pt_outbox_rekey(o, ring("key_4"), &err), 0, "key_4 alone, and no line after it");
	pt_outbox_close(o);
	o = outbox(1 << 20, ring("key_3", "key_4"), "in_b");
	is_int(stats(o).sealed, 0, "key_4 alone opens all of it");
	pt_outbox_close(o);
	o = outbox(1 << 20, ring("key_3"), "in_c");
	is_int(stats(o).lines, 3, "opened once with key_3 and the previous one: then key_3 is enough");
	is_taken(o, "in_a:1 in_a:2 in_a:3 ", "in order");
	is_int(stats(o).damaged, 0, "no damage");
	pt_outbox_close(o);
	wipe(dir, false);
}

static void test_missing_key(void)
{
	struct pt_outbox *o = outbox(1 << 20, ring("key_1"), "in_a");
	char name[300];

	add(o, 1, 2, 20);
	pt_outbox_close(o);
	o = outbox(1 << 20, ring("key_2"), "in_b");
	ok(stats(o).sealed == 1 && stats(o).lines == 0 && stats(o).damaged == 0, "without their key lines are set aside");
	add(o, 1, 1, 20);
	is_taken(o, "in_b:1 ", "new ones are shipped");
	add(o, 2, 2, 20);
	pt_outbox_close(o);
	o = outbox(1 << 20, ring("key_3"), "in_c");
	is_int(stats(o).sealed, 2, "two keys are missing");
	add(o, 1, 1, 20);
	is_int(pt_outbox_rekey(o, ring("key_3", "key_1"), &err), 0, "one comes back, while it runs");
	ok(stats(o).sealed == 1 && stats(o).lines == 3, "its lines are there");
	is_taken(o, "in_a:1 in_a:2 in_c:1 ", "and come first");
	is_int(pt_outbox_rekey(o, ring("key_3", "key_2"), &err), 0, "the other, too");
	is_taken(o, "in_b:1 in_b:2 ", "what was acknowledged in a segment that is still there comes again");
	is_int(stats(o).waiting, 0, "nothing waits");
	pt_outbox_close(o);
	is_int(files(dir, "seg-", "", name), 0, "nothing is left over");
	wipe(dir, false);
}

/* Sealed segments make room first. */
static void test_missing_key_at_the_bound(void)
{
	struct pt_outbox *o = outbox(1 << 20, ring("key_1"), "in_a");
	pt_auto_buf got = PT_BUF_INIT(4 << 20);
	int most = 0, i;

	for (i = 0; i < 20; i++)
		add(o, i * 100 + 1, i * 100 + 100, 100);
	pt_outbox_close(o);
	o = outbox(1 << 20, ring("key_2"), "in_b");
	ok(stats(o).sealed > 2, "segments without a key");
	for (i = 0; stats(o).dropped == 0 && i < 1000; i++) {
		add(o, i * 100 + 1, i * 100 + 100, 100);
		most = stats(o).bytes > most ? (int)stats(o).bytes : most;
	}
	ok(stats(o).sealed == 0 && stats(o).sealed_dropped > 2, "they go before any line that can be shipped, and are counted");
	ok(most <= 1 << 20 && most > 900 * 1024, "never more than the bound (%d)", most);
	taken(o, &got);
	ok(strncmp(got.p, "in_b:", 5) == 0 && strchr(got.p, '='), "then the oldest lines, with a note");
	pt_outbox_close(o);
	wipe(dir, false);
}

/* A note outlives death, a change of key, and is told once. */
static void test_note(void)
{
	struct pt_outbox *o = outbox(1 << 20, ring("key_1"), "in_a"), *dead;
	pt_auto_buf got = PT_BUF_INIT(4 << 20);
	char want[100];
	uint64_t lines;
	int i;

	for (i = 0; o->note.lines == 0; i++)
		add(o, i * 100 + 1, i * 100 + 100, 100);
	lines = o->note.lines;
	snprintf(want, sizeof(want), "in_a:%d=%d in_a:%d ", (int)lines, (int)lines, (int)lines + 1);
	dead = o;
	pt_closep(&dead->log.lock_fd);
	o = outbox(1 << 20, ring("key_2", "key_1"), "in_b");
	pt_outbox_close(o);
	o = outbox(1 << 20, ring("key_2"), "in_c");
	taken(o, &got);
	ok(strncmp(got.p, want, strlen(want)) == 0, "the note stands in front, with the number of its last line");
	add(o, 1, 1, 20);
	is_int(stats(o).waiting, 1, "everything else was taken");
	pt_closep(&o->log.lock_fd); /* and dies */
	{
		struct pt_outbox *last = outbox(1 << 20, ring("key_2"), "in_d");

		taken(last, &got);
		ok(!strchr(got.p, '='), "an acknowledged note is not told again");
		pt_outbox_close(last);
	}
	wipe(dir, false);
	pt_outbox_close(o);
	pt_outbox_close(dead);
	wipe(dir, false);
}

/* Its record stands in the segment that is being written, and stays there. */
static void test_note_acknowledged(void)
{
	struct pt_outbox *o = outbox(1 << 20, ring("key_1"), "in_a"), *dead;
	pt_auto_buf got = PT_BUF_INIT(4 << 20);
	int i;

	for (i = 0; o->note.lines == 0; i++)
		add(o, i * 100 + 1, i * 100 + 100, 100);
	taken(o, &got);
	ok(strchr(got.p, '=') && stats(o).waiting == 0, "a note is told and acknowledged");
	add(o, 1, 1, 20);
	dead = o;
	pt_closep(&dead->log.lock_fd);
	o = outbox(1 << 20, ring("key_1"), "in_b");
	taken(o, &got);
	ok(got.len && !strchr(got.p, '='), "after death it is not told again");
	pt_outbox_close(o);
	wipe(dir, false);
	pt_outbox_close(dead);
	wipe(dir, false);
}

/* Death between the note and the removal of what it stands for. */
static void test_note_and_lines(void)
{
	struct pt_outbox *o = outbox(1 << 20, ring("key_1"), "in_a"), *dead;
	pt_auto_buf first = PT_BUF_INIT(1 << 20);
	pt_auto_buf got = PT_BUF_INIT(4 << 20);
	char path[400], want[100];
	int i;

	add(o, 1, 100, 100);
	for (i = 1; o->note.lines == 0; i++) {
		if (o->head->next && !first.len) { /* the first segment is whole */
			char name[40];

			seglog_segment_name(o->head->seg->no, name);
			snprintf(path, sizeof(path), "%s", path_of(name));
			ok_quiet(pt_file_read(path, &first, &err) == 0);
		}
		add(o, i * 100 + 1, i * 100 + 100, 100);
	}
	snprintf(want, sizeof(want), "in_a:%d=%d in_a:%d ", (int)o->note.lines, (int)o->note.lines, (int)o->note.lines + 1);
	ok(first.len && access(path, F_OK) < 0, "the first segment has gone");
	ok_quiet(pt_file_replace(path, first.p, first.len, 0600, &err) == 0);
	dead = o;
	pt_closep(&dead->log.lock_fd);
	o = outbox(1 << 20, ring("key_1"), "in_b");
	taken(o, &got);
	ok(strncmp(got.p, want, strlen(want)) == 0, "as if it had: the note, and then the lines behind it");
	pt_outbox_close(o);
	wipe(dir, false);
	pt_outbox_close(dead);
	wipe(dir, false);
}

static void test_plain(void)
{
	struct pt_outbox *o;
	struct seglog_plain_head h = { .magic = SEGLOG_PLAIN_MAGIC, .len = 80, .kind = 1 };
	char rec[sizeof(h) + 80] = { 0 }, name[300];

	ok_quiet(pt_file_replace(path_of("log-0000000000000001.seg"), "secret line", 11, 0600, &err) == 0);
	memcpy(rec, &h, sizeof(h)); /* a segment in the plain form that the spool still reads */
	rec[16] = rec[24] = 1;
	memcpy(rec + 32, "in_forged", 9);
	memcpy(rec + 72, "{\"seq\":1}\n", 10);
	h.crc = seglog_crc32c(0, rec + 8, sizeof(rec) - 8);
	memcpy(rec, &h, sizeof(h));
	ok_quiet(pt_file_replace(path_of("seg-0000000000000001.log"), rec, sizeof(rec), 0600, &err) == 0);
	o = outbox(1 << 20, ring("key_1"), "in_a");
	is_int(files(dir, "log-", "", name), 0, "plain lines of earlier builds are removed");
	is_int(stats(o).damaged, 1, "a plain record is damage");
	is_taken(o, "", "and is not shipped");
	add(o, 1, 1, 20);
	is_taken(o, "in_a:1 ", "the outbox goes on");
	pt_outbox_close(o);
	wipe(dir, false);
}

static void test_two_processes(void)
{
	struct pt_outbox *o = outbox(1 << 20, ring("key_1"), "in_a"), *other = NULL;
	char name[300];

	add(o, 1, 1, 20);
	is_int(pt_outbox_open(&other, dir, 1 << 20, ring("key_1"), "in_b", &err), PT_E_CONFLICT,
	       "a second one does not get the folder");
	is_int(files(dir, "seg-", "", name), 1, "nor does it touch what is there");
	is_taken(o, "in_a:1 ", "the first goes on");
	pt_outbox_close(o);
	wipe(dir, false);
}

/* Lines come, go and are dropped while the key changes. */
static _Atomic bool over;

static void *flusher(void *o)
{
	struct pt_err e;

	while (!over)
		if (pt_outbox_wait_added(o, 20, false))
			(void)!pt_outbox_flush(o, &e);
	return NULL;
}

static void *changer(void *o)
{
	struct pt_err e;
	int failed = 0;

	for (int i = 0; i < 200; i++)
		failed += pt_outbox_rekey(o, ring(i % 2 ? "key_1" : "key_2"), &e) < 0;
	ok_quiet(!failed);
	return NULL;
}

static void *adder(void *o)
{
	char head[400];
	struct pt_log_line l = { .at = 5, .level = PT_LOG_INFO, .head = head, .fields = "\"k\":\"v\"", .fields_n = 7 };

	l.head_n = (size_t)snprintf(head, sizeof(head), "\"level\":\"info\",\"msg\":\"%0300d\"", 0);
	for (int i = 0; i < 20000; i++)
		pt_outbox_add(o, &l);
	return NULL;
}

static void test_threads(void)
{
	struct pt_outbox *o = outbox(1 << 20, ring("key_1"), "in_a");
	struct pt_outbox_batch b = { .lines = PT_BUF_INIT(1 << 20) };
	static void *(*const run[])(void *) = { flusher, changer, adder };
	struct pt_outbox_stats st;
	pthread_t threads[3];
	struct pt_err e;
	bool failed = false;

	over = false;
	for (size_t i = 0; i < PT_COUNT(run); i++)
		pthread_create(&threads[i], NULL, run[i], o);
	do {
		int rc = pt_outbox_peek(o, 100, &b, &e);

		failed |= rc < 0;
		if (rc == 1)
			pt_outbox_ack(o, &b, true);
		else
			(void)pt_outbox_wait_flushed(o, 10);
		st = stats(o);
	} while (st.added < 20000 || st.waiting);
	pthread_join(threads[1], NULL);
	over = true;
	pt_outbox_wake(o);
	pthread_join(threads[0], NULL);
	pthread_join(threads[2], NULL);
	st = stats(o);
	ok(!failed && st.damaged == 0 && st.sealed == 0, "200 changes of the key while lines come and go (%lld dropped)",
	   (long long)st.dropped);
	ok(st.shipped + st.dropped >= 20000 && st.waiting == 0, "each line was shipped or is counted");
	pt_buf_release(&b.lines);
	pt_outbox_close(o);
	wipe(dir, false);
}

int main(void)
{
	temp_dir_quick(dir);
	if (pt_log_init("error", "plain", 0, &err) < 0)
		return 1;
	test_nothing_readable();
	test_forged();
	test_rotation();
	test_missing_key();
	test_missing_key_at_the_bound();
	test_note();
	test_note_acknowledged();
	test_note_and_lines();
	test_plain();
	test_two_processes();
	test_threads();
	wipe(dir, true);
	return tap_end();
}
