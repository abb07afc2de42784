/* The part of the contract of db/db.h that saves work, on every backend: constant columns, sparse indexes, count, small and steady
 * tables. */
#include "db_open.h"
#include <pthread.h>

/* --- constant columns, sparse indexes, count, a small table --- */

static int add_job_id(void *arg, void *rec)
{
	pt_buf_fmt(arg, "%s ", ((struct job *)rec)->id);
	return 0;
}

static void tasks_are(struct pt_tx *tx, const struct pt_scan *q, const char *want, const char *what)
{
	pt_auto_buf b = PT_BUF_INIT(1000);
	int64_t n = -1, words = 0;

	ok(pt_tx_scan(tx, &tasks, q, add_job_id, &b, &err) == 0 && strcmp(b.p, want) == 0, "%s: '%s'", what, b.p);
	for (const char *p = want; *p; p++)
		words += *p == ' ';
	ok(pt_tx_count(tx, &tasks, q, &n, &err) == 0 && n == words, "%s: %lld counted", what, (long long)n);
}

static void test_savings(void)
{
	struct pt_db *db = fresh();
	struct pt_tx *tx = begin(db, true);
	struct job j = { .id = "a",
			 .owner = "o",
			 .text = (char *)(uintptr_t) "first",
			 .queue = 1,
			 .rank = 9,
			 .raw = { (unsigned char *)(uintptr_t) "raw", 3 } },
		   got = { .id = "a" }, one = { .owner = "o", .queue = 1 }, two = { .owner = "o", .queue = 2 };
	const struct pt_scan ready = { .index = &job_indexes[0], .match = &one, .n_eq = 2 },
			     first = { .index = &job_indexes[0], .match = &one, .n_eq = 2, .limit = 1 },
			     low = { .index = &job_indexes[0], .match = &one, .n_eq = 2, .has_less_than = true, .less_than = 9 },
			     taken = { .index = &job_indexes[0], .match = &two, .n_eq = 2 },
			     any = { .index = &job_indexes[0], .match = &one, .n_eq = 1, .desc = true },
			     tagged = { .index = &job_indexes[1], .match = &one, .n_eq = 1 };

	ok(pt_tx_insert(tx, &tasks, &j, &err) == 0, "a job");
	ok(pt_tx_insert(tx, &tasks, &(struct job) { .id = "b", .owner = "o", .queue = 1, .rank = 3 }, &err) == 0 &&
		   pt_tx_insert(tx, &tasks, &(struct job) { .id = "c", .owner = "o" }, &err) == 0 &&
		   pt_tx_insert(tx, &tasks, &(struct job) { .id = "d", .owner = "p", .queue = 1 }, &err) == 0,
	   "and others; c is in no queue");
	tasks_are(tx, &ready, "b a ", "the queue in its order");
	tasks_are(tx, &first, "b ", "its first");
	tasks_are(tx, &low, "b ", "bounded");
	tasks_are(tx, &any, "a b ", "every queue of the owner, backwards, without what is in none");
	tasks_are(tx, &tagged, "", "nothing has a tag");
	ok(pt_tx_update(tx, &tasks, &(struct job) { .id = "a", .owner = "x", .text = (char *)(uintptr_t) "other", .queue = 2 },
			&err) == 0 &&
		   pt_tx_get(tx, &tasks, &got, &err) == 0,
	   "an update");
	ok(got.queue == 2 && got.rank == 0 && !strcmp(got.owner, "o") && !strcmp(got.text, "first") && got.raw.n == 3 &&
		   !memcmp(got.raw.p, "raw", 3),
	   "writes what changes, and leaves what is constant");
	pt_shape_release(&job_shape, &got);
	tasks_are(tx, &ready, "b ", "it left its place in the queue");
	tasks_are(tx, &taken, "a ", "for another");
	ok(pt_tx_update(tx, &tasks, &(struct job) { .id = "a" }, &err) == 0, "and leaves all of them");
	tasks_are(tx, &any, "b ", "so b is left");
	ok(commit(tx) == 0, "commit");
	tx = begin(db, true);
	ok(pt_tx_update(tx, &tasks, &(struct job) { .id = "a", .tag = (char *)(uintptr_t) "t" }, &err) == 0 &&
		   pt_tx_update(tx, &tasks, &(struct job) { .id = "d", .tag = (char *)(uintptr_t) "t" }, &err) == 0,
	   "the same tag for two owners");
	ok(pt_tx_update(tx, &tasks, &(struct job) { .id = "b", .tag = (char *)(uintptr_t) "t" }, &err) == PT_E_CONFLICT &&
		   strstr(err.msg, "by_tag"),
	   "not twice for one: %s", err.msg);
	tasks_are(tx, &tagged, "a ", "the tagged one");
	tasks_are(tx, &(struct pt_scan) { 0 }, "a b c d ", "the key has all");
	ok(pt_tx_remove(tx, &tasks, &(struct job) { .id = "a" }, &err) == 0, "removed");
	tasks_are(tx, &tagged, "", "from the index, too");
	ok(commit(tx) == 0, "commit");
	pt_db_close(db);
}

/* --- steady tables --- */

static int put_person(struct pt_tx *tx, const char *id, const char *name, int64_t age, bool update)
{
	struct person p = { .name = (char *)(uintptr_t)name, .age = age, .here = true };

	snprintf(p.id, sizeof(p.id), "%s", id);
	return update ? pt_tx_update(tx, &people, &p, &err) : pt_tx_insert(tx, &people, &p, &err);
}

/* The age, or the error; tx NULL: without a transaction. */
static int64_t age_of(struct pt_db *db, struct pt_tx *tx, const char *id, const char *name)
{
	struct person p = { 0 };
	int64_t v;
	int rc;

	snprintf(p.id, sizeof(p.id), "%s", id ? id : "");
	p.name = name ? strdup(name) : NULL;
	if (id)
		rc = tx ? pt_tx_get(tx, &people, &p, &err) : pt_db_get(db, &people, &p, &err);
	else
		rc = tx ? pt_tx_find(tx, &people, &person_indexes[0], &p, &err)
			: pt_db_find(db, &people, &person_indexes[0], &p, &err);
	v = rc < 0 ? rc : p.here && p.name && *p.id ? p.age : -1000;
	pt_shape_release(&person_shape, &p);
	return v;
}

static void test_steady(void)
{
	struct pt_db *db = fresh();
	struct pt_tx *tx = begin(db, true), *old;

	is_int(age_of(db, NULL, "a", NULL), PT_E_NOT_FOUND, "nobody yet");
	ok(put_person(tx, "a", "ann", 1, false) == 0, "a person");
	is_int(age_of(db, tx, "a", NULL), 1, "seen by who wrote it");
	is_int(age_of(db, NULL, "a", NULL), PT_E_NOT_FOUND, "by nobody else");
	ok(commit(tx) == 0, "commit");
	for (int i = 0; i < 2; i++) { /* from the database, then from the copy */
		is_int(age_of(db, NULL, "a", NULL), 1, "found by the key");
		is_int(age_of(db, NULL, NULL, "ann"), 1, "and by the name");
		is_int(age_of(db, NULL, NULL, "bob"), PT_E_NOT_FOUND, "nobody else");
	}
	old = begin(db, false);
	tx = begin(db, true);
	is_int(age_of(db, tx, "a", NULL), 1, "a writer reads");
	ok(put_person(tx, "a", "ann", 2, true) == 0, "and changes");
	is_int(age_of(db, tx, NULL, "ann"), 2, "it sees its change");
	is_int(age_of(db, NULL, "a", NULL), 1, "others do not");
	pt_tx_rollback(tx);
	is_int(age_of(db, NULL, "a", NULL), 1, "undone, it never was");
	tx = begin(db, true);
	ok(put_person(tx, "a", "amy", 3, true) == 0 && put_person(tx, "b", "ann", 4, false) == 0 && commit(tx) == 0,
	   "a change of names");
	is_int(age_of(db, old, "a", NULL), 1, "who began before still sees what was");
	is_int(age_of(db, NULL, "a", NULL), 3, "everybody else the new one, by the key");
	is_int(age_of(db, NULL, NULL, "ann"), 4, "and by the name");
	is_int(age_of(db, old, NULL, "ann"), 1, "what was, by the name");
	pt_tx_rollback(old);
	is_int(age_of(db, NULL, NULL, "amy"), 3, "and the other name");
	tx = begin(db, true);
	ok(pt_tx_remove(tx, &people, &(struct person) { .id = "a" }, &err) == 0 && commit(tx) == 0, "removed");
	is_int(age_of(db, NULL, "a", NULL), PT_E_NOT_FOUND, "gone by the key");
	is_int(age_of(db, NULL, NULL, "amy"), PT_E_NOT_FOUND, "and by the name");
	pt_db_close(db);
}

static const struct pt_db_ops *real;
static struct pt_db *between;

/* What others read after the commit has happened, before it is counted. */
static int commit_and_read(struct pt_tx *tx, struct pt_err *e)
{
	int rc = real->commit(tx, e);
	struct pt_tx *reader;

	is_int(age_of(between, NULL, "a", NULL), 2, "the new one by the key");
	is_int(age_of(between, NULL, NULL, "ann"), 2, "and no copy of the old one by the name");
	reader = begin(between, false);
	is_int(age_of(between, reader, "a", NULL), 2, "in a transaction, too");
	is_int(age_of(between, reader, NULL, "ann"), 2, "by both");
	pt_tx_rollback(reader);
	return rc;
}

/* A reader begins, and before its next line there is a commit. */
static int begin_and_commit(struct pt_db *db, bool write, struct pt_tx **ret, struct pt_err *e)
{
	int rc = real->begin(db, write, ret, e);
	struct pt_tx *tx;

	db->ops = real;
	tx = begin(db, true);
	ok(put_person(tx, "a", "ann", 3, true) == 0 && commit(tx) == 0, "a change by another");
	return rc;
}

/* Who has seen a change does not see what was before it, not even before the change is acknowledged. */
static void test_steady_between(void)
{
	struct pt_db_ops ops;
	struct pt_tx *tx;

	between = fresh();
	real = between->ops;
	tx = begin(between, true);
	ok(put_person(tx, "a", "ann", 1, false) == 0 && commit(tx) == 0, "a person");
	is_int(age_of(between, NULL, NULL, "ann"), 1, "a copy, by the name");
	tx = begin(between, true);
	ok(put_person(tx, "a", "ann", 2, true) == 0, "a change");
	ops = *real;
	ops.commit = commit_and_read;
	between->ops = &ops;
	ok(commit(tx) == 0, "commit");
	ops = *real;
	ops.begin = begin_and_commit;
	tx = begin(between, false);
	is_int(age_of(between, tx, "a", NULL), 2, "who began before sees what was");
	is_int(age_of(between, NULL, "a", NULL), 3, "others what is");
	is_int(age_of(between, tx, NULL, "ann"), 2, "and no copy of that goes to who began before");
	pt_tx_rollback(tx);
	is_int(age_of(between, NULL, NULL, "ann"), 3, "nor is what it saw remembered");
	pt_db_close(between);
}

struct steady_run {
	struct pt_db *db;
	_Atomic int64_t acknowledged;
	_Atomic bool over;
	_Atomic int bad;
};

/* Once a change is acknowledged nobody reads what was before it. */
static void *read_steady(void *arg)
{
	struct steady_run *r = arg;

	while (!r->over) {
		struct person p = { .id = "a" }, q = { .name = strdup("ann") };
		struct pt_err e;
		int64_t least = r->acknowledged;

		if (pt_db_get(r->db, &people, &p, &e) < 0 || p.age < least ||
		    pt_db_find(r->db, &people, &person_indexes[0], &q, &e) < 0 || q.age < p.age)
			r->bad++;
		pt_shape_release(&person_shape, &p);
		pt_shape_release(&person_shape, &q);
	}
	return NULL;
}

static void test_steady_threads(void)
{
	enum { READERS = 3, CHANGES = 300 };
	struct steady_run r = { .db = fresh() };
	pthread_t t[READERS];
	struct pt_tx *tx = begin(r.db, true);
	int failed = 0;

	ok(put_person(tx, "a", "ann", 0, false) == 0 && commit(tx) == 0, "a person");
	for (int i = 0; i < READERS; i++)
		pt_assert(pthread_create(&t[i], NULL, read_steady, &r) == 0);
	for (int64_t n = 1; n <= CHANGES; n++) {
		tx = begin(r.db, true);
		failed += age_of(r.db, tx, "a", NULL) != n - 1 || put_person(tx, "a", "ann", n, true) < 0 || commit(tx) < 0;
		r.acknowledged = n;
	}
	r.over = true;
	for (int i = 0; i < READERS; i++)
		(void)pthread_join(t[i], NULL);
	is_int(failed, 0, "%d changes of a row that %d threads read", CHANGES, READERS);
	is_int(r.bad, 0, "nobody read an older one than was acknowledged");
	pt_db_close(r.db);
}

int main(int argc, char **argv)
{
	if (!start(argc, argv))
		return 1;
	test_savings();
	test_steady();
	test_steady_between();
	test_steady_threads();
	return end();
}
