/* The contract of db/db.h, run on every backend: argument "mem" or "sqlite". */
#include "db/writer.h"
#include "db_open.h"
#include <pthread.h>

static int put(struct pt_tx *tx, const char *id, const char *owner, const char *name, int64_t rank)
{
	struct thing t = { .name = (char *)(uintptr_t)name, .rank = rank };

	snprintf(t.id, sizeof(t.id), "%s", id);
	snprintf(t.owner, sizeof(t.owner), "%s", owner);
	return pt_tx_insert(tx, &things, &t, &err);
}

/* Rank of the thing, or the error. */
static int64_t rank_of(struct pt_tx *tx, const char *id)
{
	struct thing t = { 0 };
	int64_t v;
	int rc;

	snprintf(t.id, sizeof(t.id), "%s", id);
	rc = pt_tx_get(tx, &things, &t, &err);
	v = rc < 0 ? rc : t.rank;
	pt_shape_release(things.shape, &t);
	return v;
}

static void test_open(void)
{
	static const struct pt_field listed[] = { PT_F(struct thing, id, PT_T_ID, PT_KEY),
						  PT_F(struct thing, raw, PT_T_STRS, 0) };
	static const struct pt_field late[] = { PT_F(struct thing, rank, PT_T_I64, 0), PT_F(struct thing, id, PT_T_ID, PT_KEY) };
	static const struct pt_field keyless[] = { PT_F(struct thing, rank, PT_T_I64, 0) };
	static const struct pt_field shouting[] = { PT_F(struct thing, id, PT_T_ID, PT_KEY),
						    { .name = "A b", .type = PT_T_I64 } };
	static const struct pt_shape bad_shapes[] = { PT_SHAPE("a", struct thing, listed), PT_SHAPE("b", struct thing, late),
						      PT_SHAPE("c", struct thing, keyless),
						      PT_SHAPE("d", struct thing, shouting) };
	static const struct pt_index on_json[] = { { .name = "x", .cols = { "doc" } } };
	const struct pt_table wrong_index = { .name = "thing", .shape = &thing_shape, .indexes = on_json, .n_indexes = 1 };
	struct pt_db *db = fresh();

	ok(db != NULL, "opens");
	pt_db_close(db);
	for (size_t i = 0; i < PT_COUNT(bad_shapes); i++) {
		const struct pt_table t = { .name = "t", .shape = &bad_shapes[i] };

		ok(pt_db_open(&db, "mem:", (const struct pt_table *const[]) { &t, NULL }, &err) == PT_E_INTERNAL,
		   "a table that cannot be stored is refused: %s", err.msg);
	}
	ok(pt_db_open(&db, "mem:", (const struct pt_table *const[]) { &wrong_index, NULL }, &err) == PT_E_INTERNAL,
	   "so is an index on a document: %s", err.msg);
	ok(pt_db_open(&db, "postgresql://u:secret@h/d", all_tables, &err) == PT_E_UNSUPPORTED && err.hint[0] &&
		   !strstr(err.msg, "secret"),
	   "PostgreSQL is refused in clear words: %s (%s)", err.msg, err.hint);
	ok(pt_db_open(&db, "oracle://u:secret@h", all_tables, &err) == PT_E_INVALID && !strstr(err.msg, "secret"),
	   "so is the unknown");
}

static void test_rows(void)
{
	static const unsigned char raw[] = { 0, 1, 0, 255, 0 };
	struct pt_db *db = fresh();
	struct pt_tx *tx = begin(db, true);
	struct thing t = { .id = "th_1", .owner = "o", .name = (char[1]) { 0 }, .rank = INT64_MIN, .on = true, .ratio = 0.1 },
		     u = { .id = "th_1" };

	t.raw = (struct pt_bytes) { .p = (unsigned char *)(uintptr_t)raw, .n = sizeof(raw) };
	t.doc = json_pack("{s:[i,f,n,s]}", "z", 1, 2.5, "\xc3\xa9");
	ok(pt_tx_insert(tx, &things, &t, &err) == 0, "insert");
	ok(tx->dirty, "the transaction is dirty");
	ok(pt_tx_insert(tx, &things, &u, &err) == PT_E_CONFLICT && strstr(err.msg, "thing") && strstr(err.msg, "key"),
	   "same key: conflict: %s", err.msg);
	ok(pt_tx_get(tx, &things, &u, &err) == 0, "its own write is visible");
	ok(u.name && !*u.name && u.note == NULL, "an empty string is not an absent one");
	ok(u.rank == INT64_MIN && u.on && u.ratio == 0.1 && !strcmp(u.owner, "o"), "numbers and ids");
	ok(u.raw.n == sizeof(raw) && !memcmp(u.raw.p, raw, sizeof(raw)), "bytes with NULs");
	ok(json_equal(u.doc, t.doc) && u.doc != t.doc, "a document");
	pt_shape_release(things.shape, &u);

	json_decref(t.doc);
	t = (struct thing) { .id = "th_1", .ratio = -1e300, .note = (char *)(uintptr_t) "n", .doc = json_null() };
	t.raw.p = (unsigned char *)(uintptr_t)raw;
	ok(pt_tx_update(tx, &things, &t, &err) == 0, "update");
	snprintf(u.id, sizeof(u.id), "th_1");
	ok(pt_tx_get(tx, &things, &u, &err) == 0, "get");
	ok(!u.owner[0] && !u.name && u.rank == 0 && !u.on && u.ratio == -1e300, "the whole row was replaced");
	is_str(u.note, "n", "note");
	ok(json_is_null(u.doc), "null is a document, not an absent one");
	ok(u.raw.p && u.raw.n == 0, "empty bytes are not absent bytes");
	pt_shape_release(things.shape, &u);

	t = (struct thing) { .id = "th_2", .ratio = 0.0 / 0.0 };
	ok(pt_tx_insert(tx, &things, &t, &err) == PT_E_INVALID, "not a number is refused: %s", err.msg);
	ok(pt_tx_update(tx, &things, &(struct thing) { .id = "th_9" }, &err) == PT_E_NOT_FOUND, "update of nothing");
	ok(pt_tx_remove(tx, &things, &(struct thing) { .id = "th_9" }, &err) == PT_E_NOT_FOUND, "remove of nothing");
	snprintf(u.id, sizeof(u.id), "th_9");
	ok(pt_tx_get(tx, &things, &u, &err) == PT_E_NOT_FOUND && !strcmp(u.id, "th_9"), "get of nothing keeps the key");
	ok(pt_tx_remove(tx, &things, &t, &err) == PT_E_NOT_FOUND, "th_2 was not stored");
	ok(pt_tx_remove(tx, &things, &(struct thing) { .id = "th_1" }, &err) == 0, "remove");
	ok(rank_of(tx, "th_1") == PT_E_NOT_FOUND, "gone");

	ok(pt_tx_insert(tx, &things, &(struct thing) { .rank = 5 }, &err) == 0 && rank_of(tx, "") == 5,
	   "an empty id is a key too");
	ok(pt_tx_insert(tx, &steps, &(struct step) { .op = "op_1", .seq = -7, .text = (char *)(uintptr_t) "x" }, &err) == 0,
	   "two key columns");
	ok(pt_tx_insert(tx, &steps, &(struct step) { .op = "op_1", .seq = -8 }, &err) == 0, "differ in one");
	ok(pt_tx_insert(tx, &steps, &(struct step) { .op = "op_1", .seq = -7 }, &err) == PT_E_CONFLICT, "equal in both");
	ok(pt_tx_insert(tx, &counters, &(struct counter) { .n = INT64_MAX, .v = 3 }, &err) == 0, "an integer key");
	ok(pt_tx_insert(tx, &counters, &(struct counter) { .n = INT64_MAX }, &err) == PT_E_CONFLICT && strstr(err.msg, "key"),
	   "%s", err.msg);
	{
		struct counter c = { .n = INT64_MAX };
		struct label l = { .name = strdup("a'b\"") };

		ok(pt_tx_get(tx, &counters, &c, &err) == 0 && c.v == 3, "get by an integer");
		ok(pt_tx_insert(tx, &labels, &(struct label) { 0 }, &err) == PT_E_INVALID, "an absent text key is refused: %s",
		   err.msg);
		ok(pt_tx_insert(tx, &labels, &(struct label) { .name = l.name, .v = 4 }, &err) == 0, "a text key");
		ok(pt_tx_get(tx, &labels, &l, &err) == 0 && l.v == 4 && !strcmp(l.name, "a'b\""), "get by a text");
		pt_shape_release(labels.shape, &l);
	}
	ok(commit(tx) == 0, "commit");
	tx = begin(db, false);
	ok(rank_of(tx, "") == 5, "committed");
	ok(put(tx, "th_3", "", NULL, 0) == PT_E_INTERNAL, "a read transaction cannot write: %s", err.msg);
	ok(pt_tx_mark(tx, &err) == PT_E_INTERNAL && pt_tx_undo(tx, &err) == PT_E_INTERNAL, "nor mark");
	pt_tx_rollback(tx);
	pt_db_close(db);
}

static void test_unique(void)
{
	struct pt_db *db = fresh();
	struct pt_tx *tx = begin(db, true);
	struct thing t = { .id = "b", .owner = "o", .name = (char *)(uintptr_t) "n" };

	ok(put(tx, "a", "o", "n", 0) == 0, "first");
	ok(put(tx, "b", "o", "n", 0) == PT_E_CONFLICT && strstr(err.msg, "thing") && strstr(err.msg, "by_name"), "conflict: %s",
	   err.msg);
	ok(rank_of(tx, "b") == PT_E_NOT_FOUND, "and nothing was written");
	ok(put(tx, "b", "p", "n", 0) == 0 && put(tx, "c", "o", "m", 0) == 0, "differ in one column");
	ok(put(tx, "d", "o", NULL, 0) == 0 && put(tx, "e", "o", NULL, 0) == 0, "an absent last column binds nothing");
	ok(put(tx, "f", "", "n", 0) == 0 && put(tx, "g", "", "n", 0) == 0, "nor does an absent first one");
	ok(put(tx, "h", "o", "", 0) == 0 && put(tx, "i", "o", "", 0) == PT_E_CONFLICT, "an empty string does");
	ok(pt_tx_update(tx, &things, &t, &err) == PT_E_CONFLICT && strstr(err.msg, "by_name"), "update conflicts: %s", err.msg);
	t.name = (char *)(uintptr_t) "other";
	ok(pt_tx_update(tx, &things, &t, &err) == 0 && pt_tx_update(tx, &things, &t, &err) == 0, "but not with itself");
	ok(put(tx, "j", "p", "n", 0) == 0, "the old value is free again");
	ok(pt_tx_remove(tx, &things, &t, &err) == 0 && put(tx, "k", "o", "other", 0) == 0, "and after a remove");
	ok(commit(tx) == 0, "commit");
	pt_db_close(db);
}

/* Collects ids of a scan as "a b c". */
struct collect {
	char text[256];
	int stop_after, fail_after, n;
};

static int collect(void *arg, void *rec)
{
	struct collect *c = arg;
	const struct thing *t = rec;

	snprintf(c->text + strlen(c->text), sizeof(c->text) - strlen(c->text), "%s%s", c->text[0] ? " " : "", t->id);
	c->n++;
	if (c->n == c->fail_after)
		return pt_fail(&err, PT_E_LIMIT, "enough");
	return c->n == c->stop_after;
}

static int take_name(void *arg, void *rec)
{
	struct thing *t = rec;
	char **p = arg;

	*p = pt_steal(&t->name);
	return 1;
}

struct nested {
	struct pt_tx *tx;
	int pairs;
};
static int count(void *arg, void *rec)
{
	++*(int *)arg;
	return 0;
}
static int nest(void *arg, void *rec)
{
	struct nested *n = arg;
	struct counter c = { .n = n->pairs };
	int rc = pt_tx_scan(n->tx, &things, &(struct pt_scan) { .index = &thing_indexes[1] }, count, &n->pairs, &err);

	return rc < 0 ? rc : pt_tx_insert(n->tx, &counters, &c, &err);
}

static void test_scan(void)
{
	static const struct {
		const char *id, *owner, *name;
		int64_t rank;
	} rows[] = {
		{ "b", "o", "n2", 1 }, { "a", "o", "n1", 2 }, { "d", "o", NULL, 2 }, { "c", "o", "n3", -5 },
		{ "f", "p", "n1", 2 }, { "e", "p", NULL, 1 }, { "g", "", NULL, 9 },
	};
	static const struct thing o = { .owner = "o" }, p = { .owner = "p" }, none = { 0 }, o2 = { .owner = "o", .rank = 2 },
				  x = { .owner = "x" };
	static const struct thing o_null = { .owner = "o" };
	const struct pt_index copy = thing_indexes[0], *by_name = &copy, *by_rank = &thing_indexes[1];
	const struct {
		struct pt_scan q;
		const char *want;
	} cases[] = {
		{ { 0 }, "a b c d e f g" },
		{ { .desc = true }, "g f e d c b a" },
		{ { .limit = 3 }, "a b c" },
		{ { .beyond = "c", .limit = 2 }, "d e" },
		{ { .beyond = "c", .desc = true }, "b a" },
		{ { .beyond = "" }, "a b c d e f g" },
		{ { .beyond = "bb" }, "c d e f g" },
		{ { .beyond = "g" }, "" },
		{ { .index = by_rank }, "g c b a d e f" },
		{ { .index = by_rank, .desc = true }, "f e d a b c g" },
		{ { .index = by_rank, .match = &o, .n_eq = 1 }, "c b a d" },
		{ { .index = by_rank, .match = &o, .n_eq = 1, .desc = true }, "d a b c" },
		{ { .index = by_rank, .match = &o, .n_eq = 1, .has_less_than = true, .less_than = 2 }, "c b" },
		{ { .index = by_rank, .match = &o, .n_eq = 1, .has_less_than = true, .less_than = 2, .desc = true }, "b c" },
		{ { .index = by_rank, .match = &o, .n_eq = 1, .has_less_than = true, .less_than = -5 }, "" },
		{ { .index = by_rank, .match = &o, .n_eq = 1, .has_at_least = true, .at_least = 2 }, "a d" },
		{ { .index = by_rank, .match = &o, .n_eq = 1, .has_at_least = true, .at_least = 2, .desc = true }, "d a" },
		{ { .index = by_rank, .match = &o, .n_eq = 1, .has_at_least = true, .at_least = -5, .limit = 1 }, "c" },
		{ { .index = by_rank, .match = &o, .n_eq = 1, .has_at_least = true, .at_least = 3 }, "" },
		{ { .index = by_rank, .match = &o2, .n_eq = 2 }, "a d" },
		{ { .index = by_rank, .match = &o2, .n_eq = 2, .beyond = "a" }, "d" },
		{ { .index = by_rank, .match = &o2, .n_eq = 2, .beyond = "d", .desc = true }, "a" },
		{ { .index = by_rank, .match = &p, .n_eq = 1, .limit = 1 }, "e" },
		{ { .index = by_rank, .match = &none, .n_eq = 1 }, "g" },
		{ { .index = by_rank, .match = &x, .n_eq = 1 }, "" },
		{ { .index = by_rank, .beyond = "o" }, "e f" },
		{ { .index = by_rank, .beyond = "p", .desc = true }, "d a b c g" },
		{ { .index = by_name, .match = &o, .n_eq = 1 }, "d a b c" },
		{ { .index = by_name, .match = &o, .n_eq = 1, .desc = true }, "c b a d" },
		{ { .index = by_name, .match = &o, .n_eq = 1, .beyond = "n1" }, "b c" },
		{ { .index = by_name, .match = &o, .n_eq = 1, .beyond = "n2", .desc = true }, "a d" },
		{ { .index = by_name, .match = &o_null, .n_eq = 2 }, "d" },
	};
	const struct {
		struct pt_scan q;
		const char *what;
	} wrong[] = {
		{ { .beyond = "a", .has_less_than = true }, "two bounds" },
		{ { .index = by_rank, .match = &o, .n_eq = 1, .has_less_than = true, .has_at_least = true },
		  "both bounds of a number" },
		{ { .has_less_than = true }, "a number against text" },
		{ { .index = by_rank, .match = &o, .n_eq = 1, .beyond = "a" }, "text against a number" },
		{ { .index = by_rank, .match = &o, .n_eq = 4 }, "more columns than there are" },
		{ { .n_eq = 1 }, "no record to match" },
		{ { .match = &o, .n_eq = 1, .beyond = "a" }, "no column left for the bound" },
		{ { .index = &foreign_index }, "another table's index" },
	};
	struct pt_db *db = fresh();
	struct pt_tx *tx = begin(db, true);
	struct collect c;
	char *name = NULL;

	for (size_t i = 0; i < PT_COUNT(rows); i++)
		ok(put(tx, rows[i].id, rows[i].owner, rows[i].name, rows[i].rank) == 0, "row %s", rows[i].id);
	for (int committed = 0; committed < 2; committed++) {
		for (size_t i = 0; i < PT_COUNT(cases); i++) {
			c = (struct collect) { 0 };
			ok(pt_tx_scan(tx, &things, &cases[i].q, collect, &c, &err) == 0, "scan %zu", i);
			is_str(c.text, cases[i].want, "rows of scan %zu", i);
		}
		for (size_t i = 0; i < PT_COUNT(wrong); i++)
			ok(pt_tx_scan(tx, &things, &wrong[i].q, collect, &c, &err) == PT_E_INTERNAL, "%s: %s", wrong[i].what,
			   err.msg);
		c = (struct collect) { .stop_after = 2 };
		ok(pt_tx_scan(tx, &things, &cases[0].q, collect, &c, &err) == 0 && !strcmp(c.text, "a b"),
		   "the callback stops the scan");
		c = (struct collect) { .fail_after = 2 };
		ok(pt_tx_scan(tx, &things, &cases[0].q, collect, &c, &err) == PT_E_LIMIT && !strcmp(c.text, "a b"),
		   "or fails it");
		ok(pt_tx_scan(tx, &things, &cases[0].q, take_name, &name, &err) == 0, "scan");
		is_str(name, "n1", "the callback may take a member");
		free(pt_steal(&name));
		if (!committed) {
			ok(commit(tx) == 0, "commit");
			tx = begin(db, false);
		}
	}
	pt_tx_rollback(tx);
	tx = begin(db, true);
	{
		struct nested n = { .tx = tx };

		ok(pt_tx_scan(tx, &things, &(struct pt_scan) { .index = by_rank }, nest, &n, &err) == 0,
		   "a scan inside the same scan");
		is_int(n.pairs, 49, "sees all pairs");
	}
	ok(commit(tx) == 0, "and it may write to another table");
	pt_db_close(db);
}

static void test_transactions(void)
{
	struct pt_db *db = fresh();
	struct pt_tx *tx = begin(db, true), *before, *during, *after;

	ok(put(tx, "a", "", NULL, 1) == 0 && commit(tx) == 0, "one row");
	before = begin(db, false);
	tx = begin(db, true);
	ok(put(tx, "b", "", NULL, 2) == 0, "a second, uncommitted");
	ok(pt_tx_update(tx, &things, &(struct thing) { .id = "a", .rank = 10 }, &err) == 0, "and a change");
	during = begin(db, false);
	ok(rank_of(during, "b") == PT_E_NOT_FOUND && rank_of(during, "a") == 1, "a reader sees nothing of it");
	ok(commit(tx) == 0, "commit");
	after = begin(db, false);
	ok(rank_of(before, "b") == PT_E_NOT_FOUND && rank_of(before, "a") == 1, "older snapshots stay, even when not yet read");
	ok(rank_of(during, "b") == PT_E_NOT_FOUND && rank_of(during, "a") == 1, "and when read");
	ok(rank_of(after, "b") == 2 && rank_of(after, "a") == 10, "a new one has it");
	pt_tx_rollback(before);
	ok(commit(during) == 0, "a read transaction may end with commit");
	pt_tx_rollback(after);

	tx = begin(db, true);
	ok(put(tx, "c", "", NULL, 3) == 0 && pt_tx_remove(tx, &things, &(struct thing) { .id = "a" }, &err) == 0,
	   "write, then roll back");
	pt_tx_rollback(tx);
	tx = begin(db, true);
	ok(rank_of(tx, "c") == PT_E_NOT_FOUND && rank_of(tx, "a") == 10, "nothing happened");
	ok(!tx->dirty && commit(tx) == 0, "a clean commit");

	tx = begin(db, true);
	ok(pt_tx_mark(tx, &err) == 0 && put(tx, "m1", "", NULL, 1) == 0, "job 1");
	ok(pt_tx_mark(tx, &err) == 0 && put(tx, "m2", "", NULL, 2) == 0, "job 2");
	ok(pt_tx_update(tx, &things, &(struct thing) { .id = "m1", .rank = 7 }, &err) == 0, "changes the row of job 1");
	ok(pt_tx_remove(tx, &things, &(struct thing) { .id = "a" }, &err) == 0 && put(tx, "a", "z", NULL, 4) == 0,
	   "replaces a row");
	ok(pt_tx_insert(tx, &counters, &(struct counter) { .n = 1 }, &err) == 0, "writes to another table");
	ok(pt_tx_undo(tx, &err) == 0, "and is undone");
	ok(rank_of(tx, "m1") == 1 && rank_of(tx, "m2") == PT_E_NOT_FOUND && rank_of(tx, "a") == 10, "alone");
	ok(put(tx, "m2", "", NULL, 5) == 0 && pt_tx_undo(tx, &err) == 0 && rank_of(tx, "m2") == PT_E_NOT_FOUND,
	   "undone again to the mark");
	ok(pt_tx_mark(tx, &err) == 0 && pt_tx_undo(tx, &err) == 0, "an empty job is undone");
	ok(rank_of(tx, "m1") == 1, "which does nothing to the others");
	ok(pt_tx_mark(tx, &err) == 0 && put(tx, "m3", "", NULL, 3) == 0, "job 3");
	ok(commit(tx) == 0, "commit");
	tx = begin(db, true);
	ok(rank_of(tx, "m1") == 1 && rank_of(tx, "m2") == PT_E_NOT_FOUND && rank_of(tx, "m3") == 3,
	   "what was not undone is there");
	ok(put(tx, "q", "", NULL, 1) == 0 && pt_tx_undo(tx, &err) == 0 && rank_of(tx, "q") == PT_E_NOT_FOUND,
	   "begin is the first mark");
	ok(put(tx, "r", "", NULL, 1) == 0 && commit(tx) == 0, "and writing goes on");
	tx = begin(db, false);
	ok(rank_of(tx, "r") == 1 && rank_of(tx, "q") == PT_E_NOT_FOUND, "committed");
	pt_tx_rollback(tx);
	if (db->ops->maintain)
		ok(db->ops->maintain(db, &err) == 0, "maintenance");
	pt_db_close(db);
}

/* Writers wait for each other; readers only see whole commits. */
enum { THREADS = 4, ROUNDS = 200 };

static void *add_up(void *arg)
{
	struct pt_db *db = arg;
	struct pt_err e;

	for (int i = 0; i < ROUNDS; i++) {
		struct counter a = { .n = 1 }, b = { .n = 2 };
		struct pt_tx *tx;

		pt_assert(pt_db_begin(db, true, &tx, &e) == 0);
		pt_assert(pt_tx_get(tx, &counters, &a, &e) == 0 && pt_tx_get(tx, &counters, &b, &e) == 0);
		a.v++;
		b.v--;
		pt_assert(pt_tx_update(tx, &counters, &a, &e) == 0 && pt_tx_update(tx, &counters, &b, &e) == 0);
		pt_assert(pt_tx_commit(tx, &e) == 0);
	}
	return NULL;
}

static void *check_sum(void *arg)
{
	struct pt_db *db = arg;
	intptr_t bad = 0;
	struct pt_err e;
	int64_t last = 0;

	while (last < THREADS * ROUNDS) {
		struct counter a = { .n = 1 }, b = { .n = 2 };
		struct pt_tx *tx;

		pt_assert(pt_db_begin(db, false, &tx, &e) == 0);
		pt_assert(pt_tx_get(tx, &counters, &a, &e) == 0 && pt_tx_get(tx, &counters, &b, &e) == 0);
		pt_tx_rollback(tx);
		bad += a.v + b.v != 0 || a.v < last;
		last = a.v;
	}
	return (void *)bad;
}

static void test_threads(void)
{
	enum { READERS = 20 }; /* more than a backend may keep connections for */
	struct pt_db *db = fresh();
	struct pt_tx *tx = begin(db, true);
	pthread_t w[THREADS], r[READERS];
	intptr_t bad = 0;
	void *p;

	ok(pt_tx_insert(tx, &counters, &(struct counter) { .n = 1 }, &err) == 0 &&
		   pt_tx_insert(tx, &counters, &(struct counter) { .n = 2 }, &err) == 0 && commit(tx) == 0,
	   "two counters");
	for (int i = 0; i < READERS; i++)
		pt_assert(pthread_create(&r[i], NULL, check_sum, db) == 0);
	for (int i = 0; i < THREADS; i++)
		pt_assert(pthread_create(&w[i], NULL, add_up, db) == 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(w[i], NULL);
	for (int i = 0; i < READERS; i++) {
		pthread_join(r[i], &p);
		bad += (intptr_t)p;
	}
	is_int(bad, 0, "%d readers beside %d writers saw whole commits in order", READERS, THREADS);
	pt_db_close(db);
}

/* The group writer on a real backend: every third job writes two rows, the second of which exists. */
struct add_job {
	struct pt_write_job base;
	int i;
	pthread_mutex_t *lock; /* guards what follows */
	pthread_cond_t *all_done;
	int *left, *wrong;
};

static int run_add(struct pt_tx *tx, struct pt_write_job *base, struct pt_err *e)
{
	struct add_job *j = pt_container_of(base, struct add_job, base);
	int rc = pt_tx_insert(tx, &counters, &(struct counter) { .n = j->i }, e);

	return rc == 0 && j->i % 3 == 0 ? pt_tx_insert(tx, &counters, &(struct counter) { .n = 1 }, e) : rc;
}

static void done_add(struct pt_write_job *base, int rc)
{
	struct add_job *j = pt_container_of(base, struct add_job, base);

	pthread_mutex_lock(j->lock);
	*j->wrong += rc != (j->i % 3 == 0 ? PT_E_CONFLICT : 0);
	if (!--*j->left)
		pthread_cond_signal(j->all_done);
	pthread_mutex_unlock(j->lock);
}

static int check_added(void *arg, void *rec)
{
	int64_t *state = arg; /* rows, wrong rows */

	state[0]++;
	state[1] += ((struct counter *)rec)->n % 3 == 0;
	return 0;
}

static void test_writer(void)
{
	enum { JOBS = 1500 };
	struct add_job *jobs = calloc(JOBS + 1, sizeof(*jobs));
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t all_done = PTHREAD_COND_INITIALIZER;
	int left = JOBS, wrong = 0;
	int64_t state[2] = { 0 };
	struct pt_writer *w = NULL;
	struct pt_db *db = fresh();
	struct pt_tx *tx;

	pt_assert(jobs && pt_writer_start(&w, db, NULL, &err) == 0);
	for (int i = 1; i <= JOBS; i++) {
		jobs[i] = (struct add_job) { .base = { .run = run_add, .done = done_add }, .i = i, .lock = &lock };
		jobs[i].all_done = &all_done;
		jobs[i].left = &left;
		jobs[i].wrong = &wrong;
		pt_writer_submit(w, &jobs[i].base);
	}
	pthread_mutex_lock(&lock);
	while (left)
		pthread_cond_wait(&all_done, &lock);
	pthread_mutex_unlock(&lock);
	is_int(wrong, 0, "the group writer: each job gets its own outcome");
	tx = begin(db, false);
	ok(pt_tx_scan(tx, &counters, &(struct pt_scan) { 0 }, check_added, state, &err) == 0, "scan");
	pt_tx_rollback(tx);
	is_int(state[0], JOBS / 3 * 2, "what it told is there");
	is_int(state[1], 0, "and nothing of failed jobs");
	pt_writer_stop(w);
	pt_db_close(db);
	free(jobs);
}

/* Random operations against an array. */
enum { IDS = 60, OPS = 20000, OWNERS = 4, NAMES = 12 };
struct model {
	struct {
		bool there;
		int owner, name; /* 0 = absent */
		int64_t rank;
	} row[IDS];
};

static uint64_t seed;
static unsigned rnd(unsigned n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(seed >> 33) % n;
}

static struct thing model_thing(const struct model *m, int i, char name[static 8])
{
	struct thing t = { .rank = m->row[i].rank };

	snprintf(t.id, sizeof(t.id), "i%02d", i);
	if (m->row[i].owner)
		snprintf(t.owner, sizeof(t.owner), "o%d", m->row[i].owner);
	snprintf(name, 8, "n%02d", m->row[i].name);
	t.name = m->row[i].name ? name : NULL;
	return t;
}

static bool model_conflict(const struct model *m, int i)
{
	for (int k = 0; k < IDS; k++)
		if (k != i && m->row[k].there && m->row[i].owner && m->row[i].name && m->row[k].owner == m->row[i].owner &&
		    m->row[k].name == m->row[i].name)
			return true;
	return false;
}

/* One random write on both; what the backend answers must be what the model says. */
static bool random_write(struct pt_tx *tx, struct model *m)
{
	struct model next = *m;
	int i = (int)rnd(IDS), verb = (int)rnd(3), want, rc;
	bool there = m->row[i].there;
	struct thing t;
	char name[8];

	next.row[i].there = verb != 2;
	next.row[i].owner = (int)rnd(OWNERS);
	next.row[i].name = (int)rnd(NAMES);
	next.row[i].rank = (int64_t)rnd(7) - 3;
	t = model_thing(&next, i, name);
	if (verb == 0) {
		want = there || model_conflict(&next, i) ? PT_E_CONFLICT : 0;
		rc = pt_tx_insert(tx, &things, &t, &err);
	} else if (verb == 1) {
		want = !there ? PT_E_NOT_FOUND : model_conflict(&next, i) ? PT_E_CONFLICT : 0;
		rc = pt_tx_update(tx, &things, &t, &err);
	} else {
		want = there ? 0 : PT_E_NOT_FOUND;
		rc = pt_tx_remove(tx, &things, &t, &err);
	}
	if (rc == 0)
		*m = next;
	return rc == want;
}

struct ranked {
	const struct model *m;
	bool desc, bad;
	int n, last;
	int64_t last_rank, less_than;
};

static int check_ranked(void *arg, void *rec)
{
	struct ranked *r = arg;
	const struct thing *t = rec;
	int i = (t->id[1] - '0') * 10 + t->id[2] - '0', order;
	char name[8];
	struct thing want = model_thing(r->m, i, name);

	order = t->rank != r->last_rank ? (t->rank > r->last_rank ? 1 : -1) : i - r->last;
	r->bad |= !r->m->row[i].there || t->rank != want.rank || strcmp(t->owner, want.owner) != 0 || t->rank >= r->less_than;
	r->bad |= (t->name != NULL) != (want.name != NULL) || (t->name && strcmp(t->name, want.name) != 0);
	r->bad |= r->n && (r->desc ? order >= 0 : order <= 0);
	r->last = i;
	r->last_rank = t->rank;
	r->n++;
	return 0;
}

static bool random_read(struct pt_tx *tx, const struct model *m)
{
	int owner = (int)rnd(OWNERS), i = (int)rnd(IDS), n = 0;
	struct ranked r = { .m = m, .desc = rnd(2), .less_than = (int64_t)rnd(9) - 4 };
	struct thing match = { 0 };

	if (rank_of(tx, ((struct thing) { .id = { 'i', (char)('0' + i / 10), (char)('0' + i % 10) } }).id) !=
	    (m->row[i].there ? m->row[i].rank : PT_E_NOT_FOUND))
		return false;
	if (owner)
		snprintf(match.owner, sizeof(match.owner), "o%d", owner);
	for (int k = 0; k < IDS; k++)
		n += m->row[k].there && m->row[k].owner == owner && m->row[k].rank < r.less_than;
	if (pt_tx_scan(tx, &things,
		       &(struct pt_scan) { .index = &thing_indexes[1],
					   .match = &match,
					   .n_eq = 1,
					   .desc = r.desc,
					   .has_less_than = true,
					   .less_than = r.less_than },
		       check_ranked, &r, &err) < 0)
		return false;
	return !r.bad && r.n == n;
}

static void test_model(void)
{
	struct model committed = { 0 }, now = { 0 }, marked = { 0 };
	struct pt_db *db = fresh();
	struct pt_tx *tx = begin(db, true);
	int bad = 0, snapshot_bad = 0;

	seed = 20261120;
	printf("# seed %llu\n", (unsigned long long)seed);
	for (int i = 0; i < OPS && !bad; i++) {
		unsigned k = rnd(100);

		if (k < 60) {
			bad += !random_write(tx, &now);
		} else if (k < 85) {
			bad += !random_read(tx, &now);
		} else if (k < 90) {
			bad += pt_tx_mark(tx, &err) < 0;
			marked = now;
		} else if (k < 94) {
			bad += pt_tx_undo(tx, &err) < 0;
			now = marked;
		} else if (k < 97) {
			struct pt_tx *r = begin(db, false);

			for (int n = 0; n < 3; n++)
				snapshot_bad += !random_read(r, &committed);
			pt_tx_rollback(r);
		} else {
			if (rnd(3)) {
				bad += commit(tx) < 0;
				committed = now;
			} else {
				pt_tx_rollback(tx);
				now = committed;
			}
			marked = now;
			tx = begin(db, true);
		}
		if (bad)
			printf("# operation %d of kind %u: %s\n", i, k, err.msg);
	}
	is_int(bad, 0, "%d random operations agree with the model", OPS);
	is_int(snapshot_bad, 0, "and snapshots with the committed one");
	pt_tx_rollback(tx);
	pt_db_close(db);
}

int main(int argc, char **argv)
{
	if (!start(argc, argv))
		return 1;
	test_open();
	test_rows();
	test_unique();
	test_scan();
	test_transactions();
	test_threads();
	test_writer();
	test_model();
	return end();
}
