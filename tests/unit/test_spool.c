/* The spool by one thread: what comes back, in which order, after which damage, and what is left on disk. */
#include "agent/spool_int.h"
#include "spool_util.h"
#include "base/log.h"
#include <signal.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <zstd.h>

static struct pt_err err;

static struct pt_spool *open_or_die(const char *dir, int64_t max)
{
	struct pt_spool *s = NULL;

	if (pt_spool_open(&s, dir, max, ring("key_1"), &err) < 0) {
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

/* Take everything, acknowledge it, and give the operations' names in order: "op_a1 op_b2 " (name and attempt). */
static void drain(struct pt_spool *s, struct pt_buf *names)
{
	struct pt_spool_entry e;

	while (pt_spool_take(s, &e, 0, &err) == 1) {
		pt_buf_fmt(names, "%s%lld ", e.operation, (long long)e.attempt);
		pt_spool_ack(s, &e);
	}
}

static void is_drained(struct pt_spool *s, const char *want, const char *what)
{
	pt_auto_buf names = PT_BUF_INIT(65536);

	drain(s, &names);
	is_str(names.p, want, "%s", what);
}

/* A body in a file, whole, in pieces that fit no frame. */
static bool read_file_body(struct pt_spool_entry *e, char *to)
{
	int64_t at = 0;
	ssize_t n;

	while ((n = pt_spool_read_body(e, to + at, at + 10007 < e->body_size ? 10007 : (size_t)(e->body_size - at), at)) > 0)
		at += n;
	return n == 0 && at == e->body_size;
}

/* Take one entry and compare its body with what put_result() wrote. */
static bool body_is(struct pt_spool_entry *e, size_t n)
{
	char *want = body_bytes(n, (unsigned)e->attempt), sum[65];
	char *got = malloc(n + 1), *packed = malloc((size_t)e->body_size + 1);
	struct pt_result_head h;
	bool same;

	if (pt_shape_parse(&pt_result_head_shape, e->head.p, e->head.len, &h, &err) < 0)
		return false;
	pt_sha256_hex(want, n, sum);
	same = strcmp(h.body_sha256, sum) == 0 && h.body_size == e->body_size;
	if (e->body_fd >= 0) {
		same = same && strcmp(h.body_encoding, "zstd") == 0 && read_file_body(e, packed) &&
		       ZSTD_decompress(got, n, packed, (size_t)e->body_size) == n && memcmp(got, want, n) == 0;
	} else {
		same = same && strcmp(h.body_encoding, "identity") == 0 && e->inline_body.n == n &&
		       memcmp(e->inline_body.p, want, n) == 0;
	}
	free(want);
	free(got);
	free(packed);
	pt_shape_release(&pt_result_head_shape, &h);
	return same;
}

static void test_bodies(const char *dir)
{
	static const struct {
		size_t n;
		bool file;
	} cases[] = { { 1, false }, { 32 * 1024, false }, { 32 * 1024 + 1, true }, { 3000000, true } };
	struct pt_spool *s = open_or_die(dir, 64 << 20);
	struct pt_spool_entry e;
	struct stat st;
	char name[300], path[400];

	for (size_t i = 0; i < PT_COUNT(cases); i++) {
		ok(put_result(s, "op_x", (int64_t)i + 1, cases[i].n, &err) == 0, "put %zu bytes", cases[i].n);
		is_int(files(dir, "body-", ".zst", name), cases[i].file, "in a file or not");
		if (i & 1) { /* what is on disk, too */
			pt_spool_close(s);
			s = open_or_die(dir, 64 << 20);
		}
		is_int(pt_spool_take(s, &e, 0, &err), 1, "taken");
		ok((e.body_fd >= 0) == cases[i].file && body_is(&e, cases[i].n), "the same body comes back");
		if (*name) {
			snprintf(path, sizeof(path), "%s/%s", dir, name);
			ok(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600, "body files are private");
		}
		pt_spool_ack(s, &e);
		is_int(files(dir, "body-", "", name), 0, "no body file after the acknowledgement");
	}
	ok(put_result(s, "op_none", 1, 0, &err) == 0, "a result without a body");
	ok(pt_spool_take(s, &e, 0, &err) == 1 && e.body_fd < 0 && !e.inline_body.n, "has none");
	ok(!strstr(e.head.p, "body_sha256"), "and says nothing of one");
	pt_spool_ack(s, &e);
	is_int(stats(s).entries, 0, "empty");
	pt_spool_close(s);
	wipe(dir, false);
}

static void test_order(const char *dir)
{
	struct pt_spool *s = open_or_die(dir, 64 << 20);
	struct pt_spool_entry a, b, c;
	char op[PT_ID_SIZE];

	for (int i = 0; i < 5; i++) {
		snprintf(op, sizeof(op), "op_%c", 'e' - i);
		ok(put_result(s, op, 1, 10, &err) == 0, "put %s", op);
	}
	ok(pt_spool_take(s, &a, 0, &err) == 1 && !strcmp(a.operation, "op_e"), "oldest first");
	ok(pt_spool_take(s, &b, 0, &err) == 1 && !strcmp(b.operation, "op_d"), "one taken is not given twice");
	pt_spool_retry(s, &a, 60000);
	ok(pt_spool_take(s, &c, 0, &err) == 1 && !strcmp(c.operation, "op_c"), "one that waits is passed over");
	pt_spool_ack(s, &b);
	pt_spool_retry(s, &c, 60000);
	pt_spool_wake(s);
	ok(pt_spool_take(s, &a, 0, &err) == 1 && !strcmp(a.operation, "op_e") && a.tries == 1, "wake ends the waiting");
	ok(pt_spool_has(s, "op_e", 1) && !pt_spool_has(s, "op_e", 2) && !pt_spool_has(s, "op_d", 1), "has");
	ok(put_result(s, "op_e", 1, 20, &err) < 0 || stats(s).entries == 5, "(the same attempt again)");
	pt_spool_retry(s, &a, 0);
	pt_spool_close(s);
	s = open_or_die(dir, 64 << 20);
	ok(!pt_spool_has(s, "op_d", 1), "acknowledged ones stay away after opening again");
	is_drained(s, "op_c1 op_b1 op_a1 op_e1 ", "order and entries are kept; the later record of an attempt counts");
	pt_spool_close(s);
	s = open_or_die(dir, 64 << 20);
	is_drained(s, "", "nothing left");
	pt_spool_close(s);
	wipe(dir, false);
}

enum { KEY_RECORDS = 2 * (sizeof(struct seglog_record_head) + 60 + 5) }; /* a data key, sealed for "key_1", twice */

/* Every place where power loss can cut the last record, and every byte of it that a disk can turn. */
static void test_crash_points(const char *dir)
{
	struct pt_spool *s = open_or_die(dir, 64 << 20);
	char name[300], path[400];
	pt_auto_buf whole = PT_BUF_INIT(1 << 20);
	size_t keep, n, bad_cut = 0, bad_flip = 0, bad_head = 0;

	ok(put_result(s, "op_a", 1, 100, &err) == 0 && put_result(s, "op_b", 1, 100, &err) == 0, "two results");
	keep = (size_t)stats(s).bytes;
	ok(put_result(s, "op_c", 1, 100, &err) == 0, "and the last");
	n = (size_t)stats(s).bytes;
	pt_spool_close(s);
	is_int(files(dir, "seg-", ".log", name), 1, "one segment");
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	ok(pt_file_read(path, &whole, &err) == 0 && whole.len == n, "its bytes");
	for (size_t cut = keep; cut <= n; cut++) {
		pt_auto_buf names = PT_BUF_INIT(100);

		wipe(dir, false);
		ok_quiet(pt_file_replace(path, whole.p, cut, 0600, &err) == 0);
		s = open_or_die(dir, 64 << 20);
		bad_cut += stats(s).damaged != 0;
		pt_spool_close(s);
		s = open_or_die(dir, 64 << 20); /* cut once, and clean from then on */
		bad_cut += stats(s).damaged != 0;
		drain(s, &names);
		bad_cut += strcmp(names.p, cut == n ? "op_a1 op_b1 op_c1 " : "op_a1 op_b1 ") != 0;
		pt_spool_close(s);
	}
	is_int(bad_cut, 0, "cut at each of %zu places: all committed entries, no damage reported", n - keep);
	for (size_t at = 0; at < n; at++) {
		pt_auto_buf names = PT_BUF_INIT(100);
		bool last = at >= keep;

		wipe(dir, false);
		whole.p[at] ^= 0x40;
		ok_quiet(pt_file_replace(path, whole.p, n, 0600, &err) == 0);
		whole.p[at] ^= 0x40;
		s = open_or_die(dir, 64 << 20);
		bad_flip += (stats(s).damaged != 0) == last; /* a bad tail counts as torn, a bad middle as damage */
		drain(s, &names);
		bad_flip += last               ? strcmp(names.p, "op_a1 op_b1 ") != 0
			    : at < KEY_RECORDS ? strcmp(names.p, "op_a1 op_b1 op_c1 ") != 0
					       : strcmp(names.p, "op_a1 op_c1 ") != 0 && strcmp(names.p, "op_b1 op_c1 ") != 0;
		pt_spool_close(s);
		if (!last) {
			s = open_or_die(dir, 64 << 20);
			bad_head += stats(s).damaged != 0 || files(dir, "seg-", ".damaged", name) != 1;
			pt_spool_close(s);
		}
	}
	is_int(bad_flip, 0, "flip each of %zu bytes: the other entries survive", n);
	is_int(bad_head, 0, "a damaged segment is kept aside once and not reported again");
	wipe(dir, false);
}

static void test_bodies_on_disk(const char *dir)
{
	struct pt_spool *s = open_or_die(dir, 64 << 20);
	struct pt_spool_writer *w = NULL;
	struct pt_spool_entry e;
	char name[300], path[400];
	char *big = body_bytes(200000, 1);

	ok(pt_spool_begin(s, "op_half", 1, &w, &err) == 0, "a result that is never committed");
	ok(pt_spool_body(w)->write(pt_spool_body(w), big, 200000, &err) == 0, "with a body file");
	ok(stats(s).bytes > 100000, "counts while it is written");
	pt_spool_writer_free(w);
	ok(stats(s).bytes == 0 && files(dir, "body-", "", name) == 0, "and leaves nothing behind");
	ok(put_result(s, "op_a", 1, 200000, &err) == 0 && put_result(s, "op_b", 1, 200000, &err) == 0, "two with body files");
	pt_spool_close(s);
	snprintf(path, sizeof(path), "%s/body-00000000000000ff.zst", dir);
	ok(pt_file_replace(path, "x", 1, 0600, &err) == 0, "an orphan");
	ok(files(dir, "body-", ".zst", name) == 3, "is there");
	s = open_or_die(dir, 64 << 20);
	ok(access(path, F_OK) < 0, "and removed at open");
	files(dir, "body-", ".zst", name);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	ok(truncate(path, 1000) == 0, "op_b's body is cut behind our back");
	ok(pt_spool_take(s, &e, 0, &err) == 1 && !strcmp(e.operation, "op_a"), "op_a is fine");
	pt_spool_ack(s, &e);
	is_int(pt_spool_take(s, &e, 0, &err), PT_E_CORRUPT, "op_b is refused");
	ok(strstr(err.msg, "op_b") != NULL, "by name: %s", err.msg);
	ok(stats(s).entries == 0 && stats(s).damaged == 1, "and set aside");
	is_int(files(dir, "body-", ".damaged", name), 1, "under another name");
	ok(put_result(s, "op_c", 1, 200000, &err) == 0, "the spool goes on");
	pt_spool_close(s);
	files(dir, "body-", ".zst", name);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	(void)unlink(path);
	s = open_or_die(dir, 64 << 20);
	ok(stats(s).entries == 0 && stats(s).damaged == 1, "a missing body is reported at open");
	pt_spool_close(s);
	s = open_or_die(dir, 64 << 20);
	ok(stats(s).damaged == 0, "once");
	pt_spool_close(s);
	free(big);
	wipe(dir, false);
}

static void test_full(const char *dir)
{
	struct pt_spool *s = open_or_die(dir, 1 << 20);
	struct pt_spool_writer *w = NULL;
	struct pt_result_head head = { .instance = "in_test", .affected = -1 };
	struct pt_spool_entry e;
	char *big = body_bytes(2 << 20, 1);
	int n = 0, freed = 0;

	ok(pt_spool_begin(s, "op_big", 1, &w, &err) == 0, "a result larger than the spool");
	is_int(pt_spool_body(w)->write(pt_spool_body(w), big, 2 << 20, &err), PT_E_LIMIT, "is refused while it is written");
	ok(*err.hint, "with a hint: %s", err.hint);
	head.status = strdup("succeeded");
	ok(pt_spool_commit(w, &head, &err) < 0, "a part of a body is never committed as the whole");
	pt_spool_abandon_body(w);
	free(head.status);
	head.status = strdup("failed");
	is_int(pt_spool_commit(w, &head, &err), 0, "its head without a body fits");
	pt_spool_writer_free(w);
	pt_shape_release(&pt_result_head_shape, &head);
	is_drained(s, "op_big1 ", "and is delivered");
	ok(!stats(s).full, "the spool is not full");

	while (n < 1000 && put_result(s, "op_m", n + 1, 20000, &err) == 0)
		n++;
	ok(n > 30 && n < 53, "%d results of 20,000 bytes fit in 1 MiB", n);
	is_int(err.code, PT_E_LIMIT, "then it is full: %s", err.msg);
	ok(stats(s).full && stats(s).bytes <= 1 << 20, "says so, and stays within its limit");
	ok(put_result(s, "op_a_head", 1, 0, &err) == 0, "a head without a body still fits");
	while (stats(s).full && pt_spool_take(s, &e, 0, &err) == 1) {
		pt_spool_ack(s, &e);
		freed++;
	}
	ok(freed > 3 && freed < n, "full until %d were delivered, not just one", freed);
	ok(put_result(s, "op_n", 1, 20000, &err) == 0, "and takes results again");
	pt_spool_close(s);
	s = open_or_die(dir, 1 << 20);
	is_int(stats(s).entries, n - freed + 2, "everything not delivered is there");
	pt_spool_close(s);
	wipe(dir, false);
	free(big);
}

/* A disk without room, by the file size limit, in a child. */
static void test_no_space(const char *dir)
{
	pid_t pid;
	int status = -1;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		struct rlimit small = { 100000, RLIM_INFINITY }, none = { RLIM_INFINITY, RLIM_INFINITY };
		struct pt_spool *s = open_or_die(dir, 64 << 20);
		int n = 0, rc;

		signal(SIGXFSZ, SIG_IGN);
		setrlimit(RLIMIT_FSIZE, &small);
		while (n < 100 && (rc = put_result(s, "op_a", n + 1, 20000, &err)) == 0)
			n++;
		if (n != 4 || rc != PT_E_LIMIT || !stats(s).full)
			_exit(1);
		if (put_result(s, "op_big", 1, 500000, &err) != PT_E_LIMIT)
			_exit(2);
		setrlimit(RLIMIT_FSIZE, &none);
		for (int i = 0; i < 300 && stats(s).full; i++)
			usleep(10000);
		if (stats(s).full || put_result(s, "op_b", 1, 20000, &err) < 0)
			_exit(3);
		_exit(0); /* without closing */
	}
	waitpid(pid, &status, 0);
	is_int(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0, "a full disk: LIMIT, full, and by itself well again");
	{
		struct pt_spool *s = open_or_die(dir, 64 << 20);

		ok(stats(s).damaged == 0, "no damage");
		is_drained(s, "op_a1 op_a2 op_a3 op_a4 op_b1 ", "the committed ones are there");
		pt_spool_close(s);
	}
	wipe(dir, false);
}

enum { CANNOT = 77 };

/* In a mount namespace of its own, on a disk of 2 MiB that something else fills. */
static int on_a_small_disk(const char *dir)
{
	char filler[100];
	pt_auto(pt_closep) int fd = -1;
	struct pt_spool_entry e;
	char zeros[4096] = { 0 };
	struct pt_spool *s;
	int n = 0, there = 0;

	if ((unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount("tmpfs", dir, "tmpfs", 0, "size=2m") < 0)
		return CANNOT;
	s = open_or_die(dir, 64 << 20);
	while (n < 1000 && put_result(s, "op_a", n + 1, n % 2 ? 20000 : 60000, &err) == 0)
		n++;
	if (n < 20 || err.code != PT_E_LIMIT || !strstr(err.msg, "the disk of the agent's spool") ||
	    !strstr(err.msg, "No space left"))
		return 1;
	if (!stats(s).full || stats(s).disk_errno != ENOSPC || stats(s).bytes >= 2 << 20)
		return 2;
	snprintf(filler, sizeof(filler), "%s/filler", dir);
	fd = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	while (write(fd, zeros, sizeof(zeros)) > 0)
		;
	pt_spool_close(s);
	s = open_or_die(dir, 64 << 20); /* a restart on a full disk */
	if (stats(s).entries != n || stats(s).damaged)
		return 3;
	while (there < n && pt_spool_take(s, &e, 0, &err) == 1) { /* acknowledged though nothing can be written at first */
		there += body_is(&e, e.attempt % 2 ? 60000 : 20000);
		pt_spool_ack(s, &e);
	}
	if (there != n || stats(s).entries)
		return 4;
	if (unlink(filler) < 0 || close(fd) < 0)
		return 5;
	fd = -1;
	for (int i = 0; i < 500 && stats(s).full; i++)
		usleep(10000);
	if (stats(s).full || stats(s).disk_errno || put_result(s, "op_b", 1, 60000, &err) < 0)
		return 6;
	pt_spool_close(s);
	return 0;
}

static void test_small_disk(const char *dir)
{
	int status = -1;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0)
		_exit(on_a_small_disk(dir));
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT)
		ok(true, "a disk of 2 MiB # SKIP no mount namespace here");
	else
		is_int(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0,
		       "a disk of 2 MiB: says so, loses nothing, is well again by itself");
}

/* One entry that is never delivered must not keep the space of thousands that were. */
static void test_compaction(const char *dir)
{
	struct pt_spool *s = open_or_die(dir, 1 << 20);
	struct pt_spool_entry stuck, e;
	int n = 0;

	ok(put_result(s, "op_stuck", 7, 20000, &err) == 0 && pt_spool_take(s, &stuck, 0, &err) == 1, "one stays");
	while (n < 500 && put_result(s, "op_x", n + 1, 20000, &err) == 0 && pt_spool_take(s, &e, 0, &err) == 1) {
		pt_spool_ack(s, &e);
		n++;
	}
	is_int(n, 500, "10 MB pass through a spool of 1 MiB behind it");
	ok(!stats(s).full && stats(s).bytes < 600 << 10, "%lld bytes in use", (long long)stats(s).bytes);
	pt_spool_retry(s, &stuck, 0);
	pt_spool_close(s);
	s = open_or_die(dir, 1 << 20);
	is_int(stats(s).entries, 1, "one entry after opening again");
	ok(pt_spool_take(s, &e, 0, &err) == 1 && e.attempt == 7 && body_is(&e, 20000), "the right one");
	pt_spool_ack(s, &e);
	pt_spool_close(s);
	wipe(dir, false);
}

static void test_lock(const char *dir)
{
	struct pt_spool *s = open_or_die(dir, 1 << 20), *other = NULL;
	char want[80];
	struct stat st;
	char name[300], path[400];

	is_int(pt_spool_open(&other, dir, 1 << 20, ring("key_1"), &err), PT_E_CONFLICT, "a second process is refused");
	snprintf(want, sizeof(want), "in use by process %ld", (long)getpid());
	ok(strstr(err.msg, want) && *err.hint, "and told who has it: %s", err.msg);
	ok(put_result(s, "op_a", 1, 5, &err) == 0, "the first goes on");
	files(dir, "seg-", ".log", name);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	ok(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600, "segments are private");
	pt_spool_close(s);
	snprintf(path, sizeof(path), "%s/sub/spool", dir);
	s = open_or_die(path, 1 << 20);
	ok(stat(path, &st) == 0 && (st.st_mode & 0777) == 0700, "folders it makes are private");
	pt_spool_close(s);
	wipe(path, true);
	snprintf(path, sizeof(path), "%s/sub", dir);
	wipe(path, true);
	ok(pt_spool_open(&s, "/proc/nothing/here", 1 << 20, ring("key_1"), &err) < 0 && *err.hint, "an impossible folder: %s",
	   err.msg);
}

int main(void)
{
	char dir[64];

	temp_dir_quick(dir);
	if (pt_log_init("error", "plain", 0, &err) < 0)
		return 1;
	ok(seglog_crc32c(0, "123456789", 9) == 0xe3069283, "the checksum is CRC-32C");
	test_bodies(dir);
	test_order(dir);
	test_crash_points(dir);
	test_bodies_on_disk(dir);
	test_full(dir);
	test_no_space(dir);
	test_small_disk(dir);
	test_compaction(dir);
	test_lock(dir);
	wipe(dir, true);
	return tap_end();
}
