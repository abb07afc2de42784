/* What only a database on disk can promise: data survives close and kill -9, old files migrate, newer, foreign, damaged and
 * used ones are refused, and a full disk fails work without losing what was there. */
#include "db/db.h"
#include "../folder.h"
#include "../tap.h"
#include "db_things.h"
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static char dir[64], path[128], url[160];
static struct pt_err err;

/* In place of libc's: files whose names end so cannot be written, or synced. */
static struct fault {
	const char *end; /* NULL: all can */
	int error;
	int met;
} writing, syncing;

static bool fails(int fd, struct fault *f)
{
	size_t end = f->end ? strlen(f->end) : 0;
	char link[32], name[256];
	ssize_t n = 0;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (end)
		n = readlink(link, name, sizeof(name));
	if (!end || n < (ssize_t)end || memcmp(name + n - end, f->end, end) != 0)
		return false;
	f->met++;
	errno = f->error;
	return true;
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t at) /* off_t has 64 bits: this is pwrite64, as SQLite calls it */
{
	return fails(fd, &writing) ? -1 : syscall(SYS_pwrite64, fd, p, n, at);
}

int fdatasync(int fd)
{
	return fails(fd, &syncing) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	return fails(fd, &syncing) ? -1 : (int)syscall(SYS_fsync, fd);
}

static void new_path(void)
{
	static int n;

	snprintf(path, sizeof(path), "%s/a/b/%d.db", dir, ++n);
	snprintf(url, sizeof(url), "sqlite:%s", path);
}

static struct pt_db *open_with(const struct pt_table *const *tables)
{
	struct pt_db *db = NULL;

	if (pt_db_open(&db, url, tables, &err) < 0)
		printf("# open: %s\n", err.msg);
	return db;
}

static int insert(struct pt_db *db, const struct thing *t)
{
	struct pt_tx *tx;
	int rc = pt_db_begin(db, true, &tx, &err);

	if (rc < 0)
		return rc;
	rc = pt_tx_insert(tx, &things, t, &err);
	if (rc == 0)
		return pt_tx_commit(tx, &err);
	pt_tx_rollback(tx);
	return rc;
}

static int sum(void *arg, void *rec)
{
	*(int64_t *)arg += ((struct thing *)rec)->rank;
	return 0;
}

static int count(void *arg, void *rec)
{
	++*(int64_t *)arg;
	return 0;
}

static int64_t sum_of(struct pt_db *db)
{
	struct pt_tx *tx;
	int64_t n = 0;
	int rc = pt_db_begin(db, false, &tx, &err);

	if (rc < 0)
		return rc;
	rc = pt_tx_scan(tx, &things, &(struct pt_scan) { 0 }, sum, &n, &err);
	pt_tx_rollback(tx);
	return rc < 0 ? rc : n;
}

/* Change the closed file behind the program's back. */
static void alter(const char *sql)
{
	sqlite3 *h;
	char *msg = NULL;

	pt_assert(sqlite3_open(path, &h) == SQLITE_OK);
	ok(sqlite3_exec(h, sql, NULL, NULL, &msg) == SQLITE_OK, "%s %s", sql, msg ? msg : "");
	sqlite3_free(msg);
	sqlite3_close(h);
}

static void test_reopen(void)
{
	struct stat st;
	struct pt_db *db, *second = NULL;
	char pid[32];

	new_path();
	db = open_with(all_tables);
	ok(db && insert(db, &(struct thing) { .id = "a", .rank = 5 }) == 0, "the folders are made, a row is stored");
	ok(stat(path, &st) == 0 && (st.st_mode & 07777) == 0600, "the file is for its owner only");
	snprintf(pid, sizeof(pid), "(pid %d)", (int)getpid());
	ok(pt_db_open(&second, url, all_tables, &err) == PT_E_CONFLICT && strstr(err.msg, pid) && err.hint[0],
	   "a second gateway is refused: %s (%s)", err.msg, err.hint);
	pt_db_close(db);
	db = open_with(all_tables);
	ok(db && sum_of(db) == 5, "it is there after close and open");
	pt_db_close(db);
	ok(pt_db_open(&db, "sqlite:", all_tables, &err) == PT_E_INVALID, "a path is needed: %s", err.msg);
	ok(pt_db_open(&db, "sqlite:/dev/null/x.db", all_tables, &err) < 0 && strstr(err.msg, "/dev/null/x.db"),
	   "and a possible one: %s", err.msg);
	snprintf(url, sizeof(url), "sqlite:%s", dir);
	ok(pt_db_open(&db, url, all_tables, &err) == PT_E_INVALID, "a folder is none: %s", err.msg);
}

static void test_refused(void)
{
	static const char *const newer[] = {
		"PRAGMA user_version=99",
		"ALTER TABLE thing ADD COLUMN later TEXT",
		"CREATE TABLE later (id TEXT)",
		"CREATE TRIGGER later AFTER INSERT ON thing BEGIN SELECT 1; END",
	};
	static const unsigned char junk[8192] = { 1, 2, 3 };
	struct pt_db *db = NULL;
	int rc;
	FILE *f;

	for (size_t i = 0; i < PT_COUNT(newer); i++) {
		new_path();
		pt_db_close(open_with(all_tables));
		alter(newer[i]);
		ok(pt_db_open(&db, url, all_tables, &err) == PT_E_UNSUPPORTED && strstr(err.msg, "newer postern") && err.hint[0],
		   "refused: %s (%s)", err.msg, err.hint);
	}
	new_path();
	alter("CREATE TABLE recipes (id INTEGER PRIMARY KEY, soup TEXT)");
	ok(pt_db_open(&db, url, all_tables, &err) == PT_E_INVALID && strstr(err.msg, "another program"), "another program's: %s",
	   err.msg);
	f = fopen(path, "r");
	ok(f && fseek(f, 18, SEEK_SET) == 0 && fgetc(f) == 1 && fclose(f) == 0,
	   "and left as it was: its header does not ask for a log");

	new_path();
	f = fopen(path, "w");
	pt_assert(f && fwrite(junk, sizeof(junk), 1, f) == 1 && fclose(f) == 0);
	ok(pt_db_open(&db, url, all_tables, &err) == PT_E_CORRUPT, "no database at all: %s", err.msg);

	new_path();
	db = open_with(all_tables);
	for (int i = 0; i < 200; i++) {
		struct thing t = {
			.note = (char *)(uintptr_t) "a row that fills pages of the table, so that there is something to damage"
		};

		snprintf(t.id, sizeof(t.id), "t%03d", i);
		pt_assert(insert(db, &t) == 0);
	}
	pt_assert(db->ops->maintain(db, &err) == 0);
	pt_db_close(db);
	f = fopen(path, "r+");
	for (long at = 4096; at < 60000; at += 4096)
		pt_assert(fseek(f, at, SEEK_SET) == 0 && fwrite(junk, 64, 1, f) == 1);
	pt_assert(fclose(f) == 0);
	db = NULL;
	rc = pt_db_open(&db, url, all_tables, &err);
	if (rc == 0)
		rc = db->ops->maintain(db, &err);
	ok(rc == PT_E_CORRUPT && err.hint[0], "a damaged one: %s (%s)", err.msg, err.hint);
	pt_db_close(db);
}

/* The table as an older release had it: fewer columns, another index. */
static void test_migrate(void)
{
	static const struct pt_shape old_shape = {
		.name = "thing", .size = sizeof(struct thing), .fields = thing_fields, .n = 3
	};
	static const struct pt_index old_index[] = { { .name = "by_rank", .cols = { "owner" } },
						     { .name = "gone", .cols = { "name" } } };
	static const struct pt_table old_things = { "thing", &old_shape, old_index, PT_COUNT(old_index) };
	struct thing t = { .id = "a", .owner = "o", .name = (char *)(uintptr_t) "n" }, match = { .owner = "o" };
	struct pt_tx *tx;
	int64_t n = 0;
	struct pt_db *db;

	new_path();
	db = open_with((const struct pt_table *const[]) { &old_things, NULL });
	ok(db && pt_db_begin(db, true, &tx, &err) == 0 && pt_tx_insert(tx, &old_things, &t, &err) == 0 &&
		   pt_tx_commit(tx, &err) == 0,
	   "a row by the older release");
	pt_db_close(db);
	db = open_with(all_tables);
	ok(db && pt_db_begin(db, false, &tx, &err) == 0, "opened by the newer one");
	t = (struct thing) { .id = "a" };
	ok(pt_tx_get(tx, &things, &t, &err) == 0 && !strcmp(t.owner, "o") && !t.note && t.rank == 0 && !t.doc && !t.raw.p,
	   "the row has the new columns, empty");
	pt_shape_release(things.shape, &t);
	ok(pt_tx_scan(tx, &things, &(struct pt_scan) { .index = &thing_indexes[1], .match = &match, .n_eq = 2 }, count, &n,
		      &err) == 0 &&
		   n == 1,
	   "a zero of a new column is found by its index");
	pt_tx_rollback(tx);
	ok(insert(db, &(struct thing) { .id = "b", .owner = "o", .name = (char *)(uintptr_t) "n" }) == PT_E_CONFLICT &&
		   strstr(err.msg, "by_name"),
	   "the new unique index holds");
	ok(insert(db, &(struct thing) { .id = "b", .rank = 7 }) == 0, "and rows are written");
	pt_db_close(db);
	ok(pt_db_open(&db, url, (const struct pt_table *const[]) { &old_things, NULL }, &err) == PT_E_UNSUPPORTED,
	   "the older one refuses it now: %s", err.msg);
}

/* No file may grow past a limit: what a full disk looks like to the program. */
static void limit_files(rlim_t bytes)
{
	struct rlimit r;

	pt_assert(getrlimit(RLIMIT_FSIZE, &r) == 0);
	r.rlim_cur = bytes < r.rlim_max ? bytes : r.rlim_max;
	pt_assert(setrlimit(RLIMIT_FSIZE, &r) == 0);
}

static void test_disk_full(void)
{
	enum { ROW = 60000 };
	char *big = malloc(ROW + 1);
	struct pt_db *db;

	pt_assert(big);
	memset(big, 'x', ROW);
	big[ROW] = '\0';
	(void)signal(SIGXFSZ, SIG_IGN);
	new_path();
	db = open_with(all_tables);
	ok(db && insert(db, &(struct thing) { .id = "first", .rank = 1 }) == 0, "one row");
	for (int rows = 20; rows <= 400; rows += 380) { /* 1.2 MB fit in the cache and fail at commit, 24 MB fail before it */
		struct pt_tx *tx;
		int rc = 0, n = 0;

		limit_files(400 * 1024);
		pt_assert(pt_db_begin(db, true, &tx, &err) == 0);
		for (; rc == 0 && n < rows; n++) {
			struct thing t = { .note = big, .rank = 1000 };

			snprintf(t.id, sizeof(t.id), "big%d", n);
			rc = pt_tx_insert(tx, &things, &t, &err);
		}
		ok((rc < 0) == (rows > 100), "%d of %d rows", n, rows);
		if (rc < 0) {
			ok(rc == PT_E_IO && err.hint[0], "insert: %s (%s)", err.msg, err.hint);
			ok(pt_tx_insert(tx, &things, &(struct thing) { .id = "late" }, &err) == PT_E_IO &&
				   pt_tx_undo(tx, &err) == PT_E_IO,
			   "nothing more can be done in this transaction: %s", err.msg);
		}
		ok(pt_tx_commit(tx, &err) == PT_E_IO && err.hint[0], "commit: %s (%s)", err.msg, err.hint);
		limit_files(RLIM_INFINITY);
		is_int(sum_of(db), 1, "what was there stays");
	}
	ok(insert(db, &(struct thing) { .id = "second", .rank = 2 }) == 0 && sum_of(db) == 3, "with room again, work goes on");
	pt_db_close(db);
	db = open_with(all_tables);
	ok(db && sum_of(db) == 3 && db->ops->maintain(db, &err) == 0, "and the file is whole");
	pt_db_close(db);
	free(big);
}

static struct thing big_row(int64_t n)
{
	static char note[60001];
	struct thing t = { .note = note, .rank = 1 };

	memset(note, 'x', sizeof(note) - 1);
	snprintf(t.id, sizeof(t.id), "t%lld", (long long)n);
	return t;
}

static int insert_row(struct pt_db *db, int64_t n)
{
	struct thing t = big_row(n);

	return insert(db, &t);
}

/* A disk that has room for the log, but not for its index, which grows with each 4,096th page, or none when the log is synced. */
static void test_no_room_at_commit(void)
{
	struct pt_db *db;
	int64_t rows = 0;
	int rc = 0;

	new_path();
	db = open_with(all_tables);
	pt_assert(db);
	writing = (struct fault) { "-shm", ENOSPC };
	while (rows < 2000 && (rc = insert_row(db, rows)) == 0)
		rows++;
	ok(rc == PT_E_UNAVAILABLE && strstr(err.hint, "full"), "no room for the index of the log, row %lld: %s (%s)",
	   (long long)rows, err.msg, err.hint);
	writing.end = NULL;
	is_int(sum_of(db), rows, "that row is not there");
	syncing = (struct fault) { "-wal", ENOSPC };
	rc = insert_row(db, rows);
	ok(rc == PT_E_UNAVAILABLE && strstr(err.hint, "full"), "no room when the log is synced: %s (%s)", err.msg, err.hint);
	syncing.end = NULL;
	is_int(sum_of(db), rows, "that row is not there");
	is_int(insert_row(db, rows), 0, "with room again it is stored");
	is_int(sum_of(db), rows + 1, "once");
	pt_db_close(db);
}

/* A commit says what its own failure was, also after a checkpoint that failed for another reason, of which nobody is told. */
static void test_full_or_failing(void)
{
	static const int errors[] = { EIO, ENOSPC };

	for (int i = 0; i < 4; i++) {
		int before = errors[i / 2], now = errors[i % 2], rc = 0;
		int64_t rows = 0;
		struct pt_db *db;

		new_path();
		db = open_with(all_tables);
		pt_assert(db);
		syncing = (struct fault) { strrchr(path, '/'), before };
		while (rows < 2000 && !syncing.met && (rc = insert_row(db, rows)) == 0)
			rows++;
		ok(rc == 0 && syncing.met, "a checkpoint: %s", strerror(before));
		syncing = (struct fault) { "-wal", now };
		rc = insert_row(db, rows + 1);
		ok(now == ENOSPC ? rc == PT_E_UNAVAILABLE && strstr(err.hint, "full")
				 : rc == PT_E_IO && strstr(err.hint, "failing"),
		   "then a commit, %s: %s", strerror(now), err.hint);
		syncing.end = NULL;
		pt_db_close(db);
	}
}

/* A statement for which there is no room ends the whole transaction: what else is in it hears why. */
static void test_no_room_for_all(void)
{
	struct pt_db *db;
	struct pt_tx *tx;
	int rc = 0;

	new_path();
	db = open_with(all_tables);
	pt_assert(db && pt_db_begin(db, true, &tx, &err) == 0);
	writing = (struct fault) { "-wal", ENOSPC };
	for (int n = 0; rc == 0 && n < 1000; n++) { /* until the cache is full */
		struct thing t = big_row(n);

		rc = pt_tx_insert(tx, &things, &t, &err);
	}
	ok(rc == PT_E_UNAVAILABLE && pt_db_undone(&err), "who met it: %s (%s)", err.msg, err.hint);
	rc = pt_tx_undo(tx, &err);
	ok(rc == PT_E_UNAVAILABLE && pt_db_undone(&err) && strstr(err.hint, "full"), "who else was there: %s (%s)", err.msg,
	   err.hint);
	rc = pt_tx_commit(tx, &err);
	ok(rc == PT_E_UNAVAILABLE && pt_db_undone(&err), "and all: %s", err.msg);
	writing.end = NULL;
	is_int(sum_of(db), 0, "nothing happened");
	pt_db_close(db);
}

/* Free pages go back to the file system. */
static void test_shrink(void)
{
	char note[2000];
	struct stat full, shrunk;
	struct pt_db *db;
	struct pt_tx *tx;

	memset(note, 'x', sizeof(note) - 1);
	note[sizeof(note) - 1] = '\0';
	new_path();
	db = open_with(all_tables);
	for (int pass = 0; pass < 2; pass++) {
		pt_assert(pt_db_begin(db, true, &tx, &err) == 0);
		for (int i = 0; i < 10000; i++) {
			struct thing t = { .note = note };

			snprintf(t.id, sizeof(t.id), "t%d", i);
			pt_assert((pass ? pt_tx_remove(tx, &things, &t, &err) : pt_tx_insert(tx, &things, &t, &err)) == 0);
		}
		pt_assert(pt_tx_commit(tx, &err) == 0);
		ok(pass == 0 || db->ops->maintain(db, &err) == 0, "pass %d", pass);
		pt_db_close(db);
		pt_assert(stat(path, pass ? &shrunk : &full) == 0);
		db = open_with(all_tables);
	}
	ok(full.st_size > 20000000 && shrunk.st_size < full.st_size / 10, "from %lld to %lld bytes", (long long)full.st_size,
	   (long long)shrunk.st_size);
	pt_db_close(db);
}

/* A child commits row after row, each a row in two tables and a counter, and tells the number of each when its commit has
 * returned. */
static _Noreturn void commit_rows(int ack)
{
	struct counter c = { .n = 1 };
	struct pt_db *db = open_with(all_tables);
	struct pt_tx *tx;

	if (!db)
		_exit(1);
	for (;;) {
		struct thing t = { .note = (char *)(uintptr_t) "note" };
		struct step s = { .op = "op", .text = (char *)(uintptr_t) "text" };
		bool first;

		if (pt_db_begin(db, true, &tx, &err) < 0)
			_exit(2);
		first = pt_tx_get(tx, &counters, &c, &err) == PT_E_NOT_FOUND;
		s.seq = t.rank = ++c.v;
		snprintf(t.id, sizeof(t.id), "t%08lld", (long long)c.v);
		if (pt_tx_insert(tx, &things, &t, &err) < 0 || pt_tx_insert(tx, &steps, &s, &err) < 0 ||
		    (first ? pt_tx_insert(tx, &counters, &c, &err) : pt_tx_update(tx, &counters, &c, &err)) < 0 ||
		    pt_tx_commit(tx, &err) < 0 || write(ack, &c.v, sizeof(c.v)) != sizeof(c.v))
			_exit(3);
	}
}

struct contents {
	int64_t n, bad;
};
static int check_thing(void *arg, void *rec)
{
	struct contents *c = arg;
	const struct thing *t = rec;

	c->bad += t->rank != ++c->n || !t->note || strcmp(t->note, "note") != 0;
	return 0;
}
static int check_step(void *arg, void *rec)
{
	struct contents *c = arg;

	c->bad += ((struct step *)rec)->seq != ++c->n;
	return 0;
}

static void test_kill(void)
{
	enum { KILLS = 20 };
	unsigned seed = 20261120;
	int64_t acked = 0, lost = 0, bad = 0, in_doubt = 0;

	new_path();
	for (int k = 0; k < KILLS; k++) {
		struct contents t = { 0 }, s = { 0 };
		struct counter c = { .n = 1 };
		struct pt_db *db;
		struct pt_tx *tx;
		int64_t value;
		int fds[2], status, acks = 1 + rand_r(&seed) % 60;
		pid_t child;

		pt_assert(pipe(fds) == 0);
		(void)fflush(stdout);
		child = fork();
		pt_assert(child >= 0);
		if (!child)
			commit_rows(fds[1]);
		(void)close(fds[1]);
		for (int i = 0; i < acks && read(fds[0], &value, sizeof(value)) == sizeof(value); i++)
			acked = value;
		for (int spin = rand_r(&seed) % 100000; spin > 0; spin--)
			__asm__ volatile("" ::: "memory"); /* a moment anywhere inside the next commits */
		(void)kill(child, SIGKILL);
		while (read(fds[0], &value, sizeof(value)) == sizeof(value))
			acked = value;
		(void)close(fds[0]);
		pt_assert(waitpid(child, &status, 0) == child);
		bad += !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL;

		db = open_with(all_tables);
		pt_assert(db && pt_db_begin(db, false, &tx, &err) == 0);
		bad += pt_tx_scan(tx, &things, &(struct pt_scan) { 0 }, check_thing, &t, &err) < 0;
		bad += pt_tx_scan(tx, &steps, &(struct pt_scan) { 0 }, check_step, &s, &err) < 0;
		bad += pt_tx_get(tx, &counters, &c, &err) < 0;
		pt_tx_rollback(tx);
		bad += db->ops->maintain(db, &err) < 0;
		pt_db_close(db);
		bad += t.bad + s.bad + (t.n != s.n) + (t.n != c.v) + (t.n > acked + 1);
		lost += t.n < acked ? acked - t.n : 0;
		in_doubt += t.n - acked;
	}
	ok(acked > KILLS, "%lld rows acknowledged over %d kills, %lld more committed before their acknowledgement",
	   (long long)acked, KILLS, (long long)in_doubt);
	is_int(lost, 0, "no acknowledged row is lost");
	is_int(bad, 0, "every transaction is whole or absent");
}

int main(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%.30s/pt-db-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(dir))
		return 1;
	test_reopen();
	test_refused();
	test_migrate();
	test_disk_full();
	test_no_room_at_commit();
	test_full_or_failing();
	test_no_room_for_all();
	test_shrink();
	test_kill();
	folder_remove(dir);
	return tap_end();
}
