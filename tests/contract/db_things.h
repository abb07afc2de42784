/* The tables that the database tests use: every column type, one and several key columns, unique and plain indexes. */
#ifndef PT_TESTS_DB_THINGS_H
#define PT_TESTS_DB_THINGS_H
#include "db/db.h"

struct thing {
	char id[PT_ID_SIZE], owner[PT_ID_SIZE];
	char *name, *note;
	int64_t rank;
	bool on;
	double ratio;
	json_t *doc;
	struct pt_bytes raw;
};
static const struct pt_field thing_fields[] = {
	PT_F(struct thing, id, PT_T_ID, PT_KEY), PT_F(struct thing, owner, PT_T_ID, 0), PT_F(struct thing, name, PT_T_STR, 0),
	PT_F(struct thing, note, PT_T_STR, 0),   PT_F(struct thing, rank, PT_T_I64, 0), PT_F(struct thing, on, PT_T_BOOL, 0),
	PT_F(struct thing, ratio, PT_T_F64, 0),  PT_F(struct thing, doc, PT_T_JSON, 0), PT_F(struct thing, raw, PT_T_BYTES, 0),
};
static const struct pt_shape thing_shape = PT_SHAPE("thing", struct thing, thing_fields);
static const struct pt_index thing_indexes[] = {
	{ .name = "by_name", .cols = { "owner", "name" }, .unique = true },
	{ .name = "by_rank", .cols = { "owner", "rank" } },
};
static const struct pt_table things = { .name = "thing", .shape = &thing_shape, .indexes = thing_indexes, .n_indexes = 2 };
static const struct pt_index foreign_index PT_UNUSED = { .name = "foreign", .cols = { "id" } };

struct step {
	char op[PT_ID_SIZE];
	int64_t seq;
	char *text;
};
static const struct pt_field step_fields[] = {
	PT_F(struct step, op, PT_T_ID, PT_KEY),
	PT_F(struct step, seq, PT_T_I64, PT_KEY),
	PT_F(struct step, text, PT_T_STR, 0),
};
static const struct pt_shape step_shape = PT_SHAPE("step", struct step, step_fields);
static const struct pt_table steps = { .name = "step", .shape = &step_shape };

struct counter {
	int64_t n, v;
};
static const struct pt_field counter_fields[] = {
	PT_F(struct counter, n, PT_T_I64, PT_KEY),
	PT_F(struct counter, v, PT_T_I64, 0),
};
static const struct pt_shape counter_shape = PT_SHAPE("counter", struct counter, counter_fields);
static const struct pt_table counters = { .name = "counter", .shape = &counter_shape };

struct label {
	char *name;
	int64_t v;
};
static const struct pt_field label_fields[] = {
	PT_F(struct label, name, PT_T_STR, PT_KEY),
	PT_F(struct label, v, PT_T_I64, 0),
};
static const struct pt_shape label_shape = PT_SHAPE("label", struct label, label_fields);
static const struct pt_table labels = { .name = "label", .shape = &label_shape };

/* What saves work: constant columns, sparse indexes, a small table, a steady table. */
struct job {
	char id[PT_ID_SIZE], owner[PT_ID_SIZE];
	char *text, *tag;
	int64_t queue, rank;
	struct pt_bytes raw;
};
static const struct pt_field job_fields[] = {
	PT_F(struct job, id, PT_T_ID, PT_KEY),       PT_F(struct job, owner, PT_T_ID, PT_CONST),
	PT_F(struct job, text, PT_T_STR, PT_CONST),  PT_F(struct job, tag, PT_T_STR, 0),
	PT_F(struct job, queue, PT_T_I64, 0),        PT_F(struct job, rank, PT_T_I64, 0),
	PT_F(struct job, raw, PT_T_BYTES, PT_CONST),
};
static const struct pt_shape job_shape = PT_SHAPE("job", struct job, job_fields);
static const struct pt_index job_indexes[] = {
	{ .name = "by_queue", .cols = { "owner", "queue", "rank" }, .sparse = "queue" },
	{ .name = "by_tag", .cols = { "owner", "tag" }, .unique = true, .sparse = "tag" },
};
static const struct pt_table tasks = {
	.name = "job", .shape = &job_shape, .indexes = job_indexes, .n_indexes = 2, .small = true
};

struct person {
	char id[PT_ID_SIZE];
	char *name;
	int64_t age;
	bool here;
};
static const struct pt_field person_fields[] = {
	PT_F(struct person, id, PT_T_ID, PT_KEY),
	PT_F(struct person, name, PT_T_STR, 0),
	PT_F(struct person, age, PT_T_I64, 0),
	PT_F(struct person, here, PT_T_BOOL, 0),
};
static const struct pt_shape person_shape = PT_SHAPE("person", struct person, person_fields);
static const struct pt_index person_indexes[] = { { .name = "by_name", .cols = { "name" }, .unique = true } };
static const struct pt_table people = {
	.name = "person", .shape = &person_shape, .indexes = person_indexes, .n_indexes = 1, .steady = true
};

static const struct pt_table *const all_tables[] PT_UNUSED = { &things, &steps, &counters, &labels, &tasks, &people, NULL };
#endif
