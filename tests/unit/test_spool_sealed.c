/* The spool's encryption: nothing readable on disk, keys that rotate, keys that are missing, and data that somebody has changed,
 * moved, exchanged or cut. */
#include "agent/spool_int.h"
#include "spool_util.h"
#include "base/log.h"
#include <endian.h>
#include <zstd.h>

enum { MAX = 16 << 20, SMALL = 1 << 20 }; /* segments of 1 MiB and 64 KiB */

static struct pt_err err;

static struct pt_spool *open_with(const char *dir, int64_t max, const struct pt_seal_ring *r)
{
	struct pt_spool *s = NULL;

	if (pt_spool_open(&s, dir, max, r, &err) < 0) {
		printf("Bail out! %s\n", err.msg);
		exit(1);
	}
	return s;
}

static struct pt_spool_stats stats(struct pt_spool *s)
{
	struct pt_spool_stats st;

	pt_spool_stats(s, &st);
	return st;
}

/* What is taken and can be read to its end, in order; acknowledged.  What cannot is given back, and not listed. */
static void is_drained(struct pt_spool *s, const char *want, const char *what)
{
	pt_auto_buf names = PT_BUF_INIT(65536);
	struct pt_spool_entry e;
	int rc;

	while ((rc = pt_spool_take(s, &e, 0, &err)) != 0) {
		int64_t at = 0;
		char piece[5000];
		ssize_t n = 0;

		if (rc < 0)
			continue;
		while (e.body_fd >= 0 && (n = pt_spool_read_body(&e, piece, sizeof(piece), at)) > 0)
			at += n;
		if (n < 0) {
			pt_spool_retry(s, &e, 60000);
			continue;
		}
		pt_buf_fmt(&names, "%s%lld ", e.operation, (long long)e.attempt);
		pt_spool_ack(s, &e);
	}
	is_str(names.p, want, "%s", what);
}

static char *path_of(const char *dir, const char *name)
{
	static char path[8][400];
	static unsigned at;

	at = (at + 1) % 8;
	snprintf(path[at], sizeof(path[at]), "%s/%s", dir, name);
	return path[at];
}

static const char *segment(const char *dir, uint64_t no)
{
	char name[40];

	seglog_segment_name(no, name);
	return path_of(dir, name);
}

static const char *body(const char *dir, uint64_t no)
{
	char name[40];

	spool_body_name(no, name);
	return path_of(dir, name);
}

static void load(const char *path, struct pt_buf *b)
{
	pt_buf_clear(b);
	if (pt_file_read(path, b, &err) < 0)
		abort();
}

static void store(const char *path, const struct pt_buf *b)
{
	if (pt_file_replace(path, b->p, b->len, 0600, &err) < 0)
		abort();
}

/* Offset of the nth record that is no key record, and its length. */
static size_t record_at(const struct pt_buf *b, int nth, size_t *ret_len)
{
	struct seglog_record_head h;
	size_t at = 0, n;

	for (; (n = seglog_record_check(b->p + at, b->len - at)); at += n) {
		seglog_head_get(b->p + at, &h);
		if (h.kind != SEGLOG_KIND_KEY && nth-- == 0) {
			*ret_len = n;
			return at;
		}
	}
	abort();
}

static void fix_checksum(char *record, size_t n)
{
	uint32_t crc = htole32(seglog_crc32c(0, record + 8, n - 8));

	memcpy(record + 4, &crc, sizeof(crc));
}

static void test_nothing_readable(const char *dir)
{
	static const char *const words[] = { "op_readable", "in_test", "succeeded", "jsonl" };
	struct pt_spool *s = open_with(dir, MAX, ring("key_1"));
	pt_auto_buf b = PT_BUF_INIT(8 << 20);
	char name[300];
	static const uint32_t zstd_magic = 0xfd2fb528;
	char *plain = body_bytes(1000, 1);
	int found = 0;

	ok(put_result(s, "op_readable", 1, 1000, &err) == 0 && put_result(s, "op_readable", 2, 300000, &err) == 0, "put");
	load(segment(dir, 1), &b);
	for (size_t i = 0; i < PT_COUNT(words); i++)
		found += memmem(b.p, b.len, words[i], strlen(words[i])) != NULL;
	found += memmem(b.p, b.len, plain, 100) != NULL;
	found += memmem(b.p, b.len, "pts_secret", 10) != NULL;
	found += memmem(b.p, b.len, s->log.key->key, SEAL_KEY_BYTES) != NULL;
	found += memmem(b.p, b.len, s->log.ring.keys[0].key, SEAL_KEY_BYTES) != NULL;
	load(body(dir, 1), &b);
	found += memmem(b.p, b.len, &zstd_magic, sizeof(zstd_magic)) != NULL;
	is_int(found, 0, "neither names, heads, bodies nor keys are in the files");
	is_drained(s, "op_readable1 op_readable2 ", "and both come back");
	is_int(files(dir, "body-", "", name), 0, "the body file has gone");
	pt_spool_close(s);
	free(plain);
	wipe(dir, false);
}

/* Bytes changed with a checksum that fits: only the seal tells. */
static void test_forged(const char *dir)
{
	struct pt_spool *s = open_with(dir, MAX, ring("key_1"));
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	size_t at, n, bad = 0;

	ok(put_result(s, "op_a", 1, 60, &err) == 0 && put_result(s, "op_b", 1, 60, &err) == 0, "two results");
	pt_spool_close(s);
	load(segment(dir, 1), &b);
	at = record_at(&b, 0, &n);
	for (size_t i = 12; i < n; i++) { /* behind the length, which leads elsewhere */
		for (int bit = 0; bit < 8; bit += i < 40 ? 1 : 7) {
			b.p[at + i] ^= (char)(1 << bit);
			fix_checksum(b.p + at, n);
			wipe(dir, false);
			store(segment(dir, 1), &b);
			b.p[at + i] ^= (char)(1 << bit);
			s = open_with(dir, MAX, ring("key_1"));
			/* Another id of the data key, in the first record of all: a key that we do not have. */
			if (stats(s).sealed)
				bad += i < 16 || i >= 24;
			else
				bad += stats(s).damaged < 1 || pt_spool_has(s, "op_a", 1) || !pt_spool_has(s, "op_b", 1);
			pt_spool_close(s);
		}
	}
	is_int(bad, 0, "any bit of a record of %zu bytes, the checksum made to fit: not taken, and the other one is", n);
	wipe(dir, false);
}

static void test_exchanged(const char *dir)
{
	struct pt_spool *s = open_with(dir, MAX, ring("key_1"));
	pt_auto_buf one = PT_BUF_INIT(1 << 20);
	pt_auto_buf two = PT_BUF_INIT(1 << 20);
	pt_auto_buf big = PT_BUF_INIT(1 << 20);
	pt_auto_buf x = PT_BUF_INIT(1 << 20);
	size_t a, b, n, m;
	char swap[4096];

	ok(put_result(s, "op_a", 1, 60, &err) == 0 && put_result(s, "op_b", 1, 60, &err) == 0 &&
		   put_result(s, "op_c", 1, 60, &err) == 0,
	   "three results of one size");
	s->log.must_roll = true;
	ok(put_result(s, "op_d", 1, 60, &err) == 0, "and one in the next segment, under the same data key");
	pt_spool_close(s);
	load(segment(dir, 1), &one);
	load(segment(dir, 2), &two);

	a = record_at(&one, 0, &n);
	b = record_at(&one, 1, &m);
	ok(n == m && n < sizeof(swap), "records of one length");
	memcpy(swap, one.p + a, n);
	memcpy(one.p + a, one.p + b, n);
	memcpy(one.p + b, swap, n);
	store(segment(dir, 1), &one);
	s = open_with(dir, MAX, ring("key_1"));
	is_int(stats(s).damaged, 2, "two records exchanged in their segment are both noticed");
	is_drained(s, "op_c1 op_d1 ", "and the others are fine");
	pt_spool_close(s);

	memcpy(one.p + b, one.p + a, n);
	memcpy(one.p + a, swap, n); /* as it was */
	a = record_at(&two, 0, &m);
	b = record_at(&one, 2, &n);
	memcpy(swap, two.p + a, m);
	ok(n == m, "records of one length");
	memcpy(two.p + a, one.p + b, n);
	memcpy(one.p + b, swap, n);
	wipe(dir, false);
	store(segment(dir, 1), &one);
	store(segment(dir, 2), &two);
	s = open_with(dir, MAX, ring("key_1"));
	is_int(stats(s).damaged, 2, "two records exchanged between segments are both noticed");
	is_drained(s, "op_a1 op_b1 ", "and the others are fine");
	pt_spool_close(s);
	wipe(dir, false);

	s = open_with(dir, MAX, ring("key_1"));
	ok(put_result(s, "op_a", 1, 100000, &err) == 0 && put_result(s, "op_b", 1, 100000, &err) == 0, "two body files");
	pt_spool_close(s);
	load(body(dir, 1), &big);
	load(body(dir, 2), &x);
	ok(big.len == x.len, "of one size");
	store(body(dir, 1), &x);
	store(body(dir, 2), &big);
	s = open_with(dir, MAX, ring("key_1"));
	is_drained(s, "", "body files exchanged: neither is delivered");
	ok(stats(s).damaged == 2 && stats(s).entries == 0, "both results are set aside");
	is_int(files(dir, "body-", ".damaged", swap), 2, "with their bodies");
	pt_spool_close(s);
	wipe(dir, false);
}

static void test_bodies(const char *dir)
{
	struct pt_spool *s = open_with(dir, MAX, ring("key_1"));
	pt_auto_buf b = PT_BUF_INIT(1 << 20), seg = PT_BUF_INIT(1 << 20);
	static const size_t places[] = { 0, 1, 65535, 65536, 65551, 65552, 131103, 131104, 150000 };
	size_t bad = 0;
	char swap[1000];

	ok(put_result(s, "op_a", 1, 200000, &err) == 0, "a body of several frames");
	pt_spool_close(s);
	load(body(dir, 1), &b);
	load(segment(dir, 1), &seg);
	for (size_t i = 0; i <= PT_COUNT(places); i++) {
		size_t at = i < PT_COUNT(places) ? places[i] : b.len - 1;

		wipe(dir, false);
		b.p[at] ^= 1;
		store(body(dir, 1), &b);
		b.p[at] ^= 1;
		store(segment(dir, 1), &seg);
		s = open_with(dir, MAX, ring("key_1"));
		for (struct pt_spool_entry e; pt_spool_take(s, &e, 0, &err) == 1;) {
			int64_t off = 0;
			ssize_t n;

			while ((n = pt_spool_read_body(&e, swap, sizeof(swap), off)) > 0)
				off += n;
			bad += n == 0 || off > (int64_t)at;
			pt_spool_retry(s, &e, 0);
		}
		bad += stats(s).entries != 0 || stats(s).damaged != 1;
		pt_spool_close(s);
	}
	is_int(bad, 0, "a bit anywhere in a body file: nothing behind it is read, and the result is set aside, once");
	wipe(dir, false);
	memmove(b.p, b.p + SPOOL_FRAME + SEAL_TAG_BYTES, SPOOL_FRAME + SEAL_TAG_BYTES);
	store(body(dir, 1), &b);
	store(segment(dir, 1), &seg);
	s = open_with(dir, MAX, ring("key_1"));
	is_drained(s, "", "frames in another order are not read");
	pt_spool_close(s);
	wipe(dir, false);
}

static void test_cut_at_a_record(const char *dir)
{
	struct pt_spool *s = open_with(dir, MAX, ring("key_1"));
	pt_auto_buf b = PT_BUF_INIT(1 << 20);
	size_t n, at;

	ok(put_result(s, "op_a", 1, 60, &err) == 0 && put_result(s, "op_b", 1, 60, &err) == 0, "two results");
	s->log.must_roll = true;
	ok(put_result(s, "op_c", 1, 60, &err) == 0, "and one in the next segment");
	pt_spool_close(s);
	load(segment(dir, 1), &b);
	at = record_at(&b, 1, &n);
	ok(truncate(segment(dir, 1), (off_t)at) == 0, "the first segment loses its last record");
	s = open_with(dir, MAX, ring("key_1"));
	is_int(stats(s).damaged, 1, "that is noticed, though every record that is left is fine");
	is_drained(s, "op_a1 op_c1 ", "and they are delivered");
	pt_spool_close(s);
	wipe(dir, false);
}

static void test_rotation(const char *dir)
{
	struct pt_spool *s = open_with(dir, MAX, ring("key_1"));

	ok(put_result(s, "op_a", 1, 60, &err) == 0 && put_result(s, "op_b", 1, 100000, &err) == 0, "results under key_1");
	is_int(pt_spool_rekey(s, ring("key_2"), &err), 0, "key_2 alone, while it runs");
	ok(put_result(s, "op_c", 1, 60, &err) == 0, "a result under key_2");
	ok(pt_spool_has(s, "op_a", 1) && stats(s).sealed == 0, "nothing is lost");
	pt_spool_close(s);
	s = open_with(dir, MAX, ring("key_2"));
	is_int(stats(s).sealed, 0, "a process that knows key_2 alone opens all of it");
	is_int(stats(s).entries, 3, "the three results");
	pt_spool_close(s);
	s = open_with(dir, MAX, ring("key_3", "key_2", "key_1"));
	pt_spool_close(s);
	s = open_with(dir, MAX, ring("key_3"));
	is_int(stats(s).entries, 3, "opened once with key_3 and the previous ones: then key_3 is enough");
	is_int(stats(s).damaged, 0, "no damage");
	is_drained(s, "op_a1 op_b1 op_c1 ", "in order, with their bodies");
	pt_spool_close(s);
	wipe(dir, false);
}

static void test_missing_key(const char *dir)
{
	struct pt_spool *s = open_with(dir, MAX, ring("key_1"));
	char name[300];
	int64_t bytes;

	ok(put_result(s, "op_a", 1, 60, &err) == 0 && put_result(s, "op_b", 1, 100000, &err) == 0, "results under key_1");
	bytes = stats(s).bytes;
	pt_spool_close(s);

	s = open_with(dir, MAX, ring("key_2"));
	ok(stats(s).entries == 0 && stats(s).sealed == 1 && stats(s).damaged == 0,
	   "with key_2 alone they are set aside, not damaged");
	is_str(stats(s).sealed_by, "key_1", "and say whose they are");
	ok(stats(s).sealed_bytes == bytes && stats(s).bytes == bytes, "their bytes, those of the body too, count");
	ok(put_result(s, "op_c", 1, 60, &err) == 0 && put_result(s, "op_d", 1, 100000, &err) == 0, "the agent goes on");
	is_int(files(dir, "body-", ".zst", name), 2, "both bodies are there");
	is_drained(s, "op_c1 op_d1 ", "what is new is delivered");
	ok(put_result(s, "op_e", 1, 60, &err) == 0, "one more stays");
	pt_spool_close(s);

	s = open_with(dir, MAX, ring("key_3"));
	ok(stats(s).sealed == 2 && stats(s).entries == 0, "with a third key both wait");
	is_int(pt_spool_rekey(s, ring("key_3", "key_2"), &err), 0, "key_2 comes back as a previous key, while it runs");
	ok(stats(s).sealed == 1 && stats(s).entries == 1, "its results are there at once");
	is_drained(s, "op_e1 ", "and are delivered; what was acknowledged is not");
	is_int(pt_spool_rekey(s, ring("key_3", "key_1"), &err), 0, "key_1, too");
	ok(stats(s).sealed == 0 && stats(s).sealed_bytes == 0, "nothing is set aside any more");
	is_drained(s, "op_a1 op_b1 ", "and everything of it comes, bodies too");
	ok(stats(s).damaged == 0 && files(dir, "body-", "", name) == 0, "no damage, nothing left over");
	pt_spool_close(s);
	wipe(dir, false);

	s = open_with(dir, MAX, ring("key_1"));
	ok(put_result(s, "op_a", 1, 60, &err) == 0, "a result under key_1");
	pt_spool_close(s);
	{
		struct pt_seal_ring other = { .generation = 1000000 };

		if (pt_seal_ring_add(&other, "spool", "key_1", "pts_another_secret", &err) < 0)
			abort();
		s = open_with(dir, MAX, &other);
	}
	ok(stats(s).sealed == 1 && stats(s).damaged == 0, "the same id with another secret: set aside, too");
	pt_spool_close(s);
	s = open_with(dir, MAX, ring("key_2", "key_1"));
	is_drained(s, "op_a1 ", "and there with the right one, in the next process");
	pt_spool_close(s);
	wipe(dir, false);
}

/* Numbers that a sealed segment uses are not used again: what is acknowledged meanwhile takes back nothing of it. */
static void test_numbers(const char *dir)
{
	struct pt_spool *s = open_with(dir, MAX, ring("key_1"));

	ok(put_result(s, "op_a", 1, 60, &err) == 0 && put_result(s, "op_b", 1, 60, &err) == 0, "two results under key_1");
	pt_spool_close(s);
	s = open_with(dir, MAX, ring("key_2"));
	ok(put_result(s, "op_c", 1, 60, &err) == 0 && put_result(s, "op_d", 1, 60, &err) == 0, "two under key_2");
	is_drained(s, "op_c1 op_d1 ", "delivered");
	pt_spool_close(s);
	s = open_with(dir, MAX, ring("key_2", "key_1"));
	is_drained(s, "op_a1 op_b1 ", "those under key_1 are still there");
	pt_spool_close(s);
	wipe(dir, false);
}

/* A spool of the version before encryption. */
static void plain_record(struct pt_buf *out, unsigned kind, const void *payload, size_t n)
{
	struct seglog_plain_head h = { .magic = htole32(SEGLOG_PLAIN_MAGIC), .len = htole32((uint32_t)n), .kind = htole32(kind) };
	size_t at = out->len;

	pt_buf_add(out, &h, sizeof(h));
	pt_buf_add(out, payload, n);
	fix_checksum(out->p + at, out->len - at);
}

static void plain_put(struct pt_buf *out, uint64_t seq, const char *op, const char *small, uint64_t file, int64_t size)
{
	static const char head[] = "{\"instance\": \"in_old\", \"status\": \"succeeded\"}";
	pt_auto_buf p = PT_BUF_INIT(4096);
	struct spool_put put = { .stored_at = (int64_t)htole64(1000),
				 .attempt = (int64_t)htole64(1),
				 .body_file = htole64(file),
				 .body_size = (int64_t)htole64((uint64_t)size),
				 .op_len = htole32((uint32_t)strlen(op)),
				 .head_len = htole32(sizeof(head) - 1) };

	seq = htole64(seq);
	pt_buf_add(&p, &seq, sizeof(seq));
	pt_buf_add(&p, &put, sizeof(put));
	pt_buf_str(&p, op);
	pt_buf_str(&p, head);
	pt_buf_str(&p, small);
	plain_record(out, SPOOL_PUT, p.p, p.len);
}

static void test_plain(const char *dir)
{
	pt_auto_buf seg = PT_BUF_INIT(1 << 20), b = PT_BUF_INIT(1 << 20), big = PT_BUF_INIT(1 << 20);
	uint64_t two = htole64(2);
	struct pt_spool *s;
	struct pt_spool_entry e;
	char got[100] = "";
	size_t n;

	plain_put(&seg, 1, "op_a", "small body", 0, 10);
	plain_put(&seg, 2, "op_b", "gone", 0, 4);
	plain_put(&seg, 3, "op_c", "", 7, 12);
	plain_record(&seg, SPOOL_DONE, &two, sizeof(two));
	store(segment(dir, 4), &seg);
	pt_buf_str(&big, "a large body");
	store(body(dir, 7), &big);
	s = open_with(dir, SMALL, ring("key_1"));
	ok(stats(s).entries == 2 && stats(s).damaged == 0 && stats(s).sealed == 0, "a plain spool is read");
	ok(put_result(s, "op_d", 1, 20, &err) == 0, "new results are sealed beside it");
	load(segment(dir, 5), &b);
	ok(!memmem(b.p, b.len, "op_d", 4), "in a segment of their own");
	ok(pt_spool_take(s, &e, 0, &err) == 1 && e.inline_body.n == 10 && !memcmp(e.inline_body.p, "small body", 10),
	   "its bodies come back");
	pt_spool_ack(s, &e);
	/* So much dead space that the plain record is moved, and sealed by that; its body stays plain. */
	for (int i = 0; i < 200; i++) {
		struct pt_spool_entry x;

		ok_quiet(put_result(s, "op_x", i + 1, 20000, &err) == 0);
		ok_quiet(pt_spool_take(s, &e, 0, &err) == 1);
		if (!strcmp(e.operation, "op_c") || !strcmp(e.operation, "op_d")) {
			ok_quiet(pt_spool_take(s, &x, 0, &err) == 1);
			if (strcmp(x.operation, "op_x") != 0) {
				struct pt_spool_entry y;

				ok_quiet(pt_spool_take(s, &y, 0, &err) == 1);
				pt_spool_ack(s, &y);
				pt_spool_retry(s, &x, 0);
			} else {
				pt_spool_ack(s, &x);
			}
			pt_spool_retry(s, &e, 0);
		} else {
			pt_spool_ack(s, &e);
		}
	}
	ok(access(segment(dir, 4), F_OK) < 0, "the plain segment has gone");
	pt_spool_close(s);
	s = open_with(dir, SMALL, ring("key_1"));
	ok(stats(s).entries == 2 && stats(s).damaged == 0, "what lived in it does so elsewhere");
	ok(pt_spool_take(s, &e, 0, &err) == 1 && !strcmp(e.operation, "op_c") && pt_spool_read_body(&e, got, 100, 0) == 12 &&
		   !strcmp(got, "a large body"),
	   "with its body");
	pt_spool_ack(s, &e);
	is_drained(s, "op_d1 ", "and nothing else");
	pt_spool_close(s);
	wipe(dir, false);

	s = open_with(dir, MAX, ring("key_1"));
	ok(put_result(s, "op_a", 1, 20, &err) == 0 && put_result(s, "op_b", 1, 20, &err) == 0, "two sealed results");
	pt_spool_close(s);
	load(segment(dir, 1), &b);
	plain_put(&b, 9, "op_forged", "forged", 0, 6);
	(void)record_at(&b, 2, &n);
	store(segment(dir, 1), &b);
	s = open_with(dir, MAX, ring("key_1"));
	is_int(stats(s).damaged, 1, "a plain record among sealed ones is damage");
	is_drained(s, "op_a1 op_b1 ", "and is not delivered");
	pt_spool_close(s);
	wipe(dir, false);
}

int main(void)
{
	char dir[64];

	temp_dir_quick(dir);
	if (pt_log_init("error", "plain", 0, &err) < 0)
		return 1;
	test_nothing_readable(dir);
	test_forged(dir);
	test_exchanged(dir);
	test_bodies(dir);
	test_cut_at_a_record(dir);
	test_rotation(dir);
	test_missing_key(dir);
	test_numbers(dir);
	test_plain(dir);
	wipe(dir, true);
	return tap_end();
}
