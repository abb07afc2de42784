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

static const struct pt_table *const all_tables[] PT_UNUSED = { &things, &steps, &counters, &labels, NULL };
#endif
