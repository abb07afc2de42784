/* What a durable operation costs the gateway's database: its life is 1 insert of a row with 1 KiB of input, 3 events, 2 updates
 * (leased, done) and 1 result, each life a marked job of a group, each group one commit.  Prints JSON: lives and rows per
 * second by the clock and by the writer's CPU time, per group size, beside the machine's own fdatasync.
 *
 *     bench_db [FOLDER] [SECONDS per group size] */
#include "base/clock.h"
#include "base/id.h"
#include "db/db.h"
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

struct operation {
	char id[PT_ID_SIZE], account[PT_ID_SIZE], agent[PT_ID_SIZE], instance[PT_ID_SIZE];
	char *type, *state, *request_key, *input, *reason;
	int64_t priority, attempt, created_ms, deadline_ms, lease_until_ms, ended_ms;
};
static const struct pt_field operation_fields[] = {
	PT_F(struct operation, id, PT_T_ID, PT_KEY),      PT_F(struct operation, account, PT_T_ID, 0),
	PT_F(struct operation, agent, PT_T_ID, 0),        PT_F(struct operation, instance, PT_T_ID, 0),
	PT_F(struct operation, type, PT_T_STR, 0),        PT_F(struct operation, state, PT_T_STR, 0),
	PT_F(struct operation, request_key, PT_T_STR, 0), PT_F(struct operation, input, PT_T_STR, 0),
	PT_F(struct operation, reason, PT_T_STR, 0),      PT_F(struct operation, priority, PT_T_I64, 0),
	PT_F(struct operation, attempt, PT_T_I64, 0),     PT_F(struct operation, created_ms, PT_T_I64, 0),
	PT_F(struct operation, deadline_ms, PT_T_I64, 0), PT_F(struct operation, lease_until_ms, PT_T_I64, 0),
	PT_F(struct operation, ended_ms, PT_T_I64, 0),
};
static const struct pt_shape operation_shape = PT_SHAPE("operation", struct operation, operation_fields);
static const struct pt_index operation_indexes[] = {
	{ .name = "by_queue", .cols = { "agent", "state", "priority" } },
	{ .name = "by_account", .cols = { "account", "created_ms" } },
	{ .name = "by_request_key", .cols = { "account", "request_key" }, .unique = true },
};
static const struct pt_table operations = { "operation", &operation_shape, operation_indexes, PT_COUNT(operation_indexes) };

struct event {
	char op[PT_ID_SIZE];
	int64_t seq, at_ms;
	char *kind, *detail;
};
static const struct pt_field event_fields[] = {
	PT_F(struct event, op, PT_T_ID, PT_KEY), PT_F(struct event, seq, PT_T_I64, PT_KEY),
	PT_F(struct event, at_ms, PT_T_I64, 0),  PT_F(struct event, kind, PT_T_STR, 0),
	PT_F(struct event, detail, PT_T_STR, 0),
};
static const struct pt_shape event_shape = PT_SHAPE("event", struct event, event_fields);
static const struct pt_table events = { "event", &event_shape, NULL, 0 };

struct result {
	char op[PT_ID_SIZE];
	int64_t attempt;
	struct pt_bytes body;
};
static const struct pt_field result_fields[] = {
	PT_F(struct result, op, PT_T_ID, PT_KEY),
	PT_F(struct result, attempt, PT_T_I64, 0),
	PT_F(struct result, body, PT_T_BYTES, 0),
};
static const struct pt_shape result_shape = PT_SHAPE("result", struct result, result_fields);
static const struct pt_table results = { "result", &result_shape, NULL, 0 };
static const struct pt_table *const tables[] = { &operations, &events, &results, NULL };
enum { ROWS_PER_LIFE = 7 };

static _Noreturn void die(const struct pt_err *err)
{
	fprintf(stderr, "bench_db: %s\n", err->msg);
	exit(1);
}
#define MUST(call)                 \
	do {                       \
		if ((call) < 0)    \
			die(&err); \
	} while (0)

static int64_t cpu_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts); /* cannot fail for the own thread */
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static char input[1025];
static unsigned char body[200];

static void add_event(struct pt_tx *tx, struct event *e, const char *kind)
{
	struct pt_err err;

	e->seq++;
	e->kind = (char *)(uintptr_t)kind;
	MUST(pt_tx_insert(tx, &events, e, &err));
}

/* The whole life inside one job: the pattern of rows is that of many operations side by side. */
static void life(struct pt_tx *tx)
{
	struct operation op = { .account = "acc_01JD0000000000000000000000",
				.agent = "ag_01JD0000000000000000000000",
				.priority = 5 };
	struct event e = { .at_ms = pt_wall_ms(), .detail = (char *)(uintptr_t) "instance in_01JD0000000000000000000000" };
	struct result r = { .attempt = 1, .body = { .p = body, .n = sizeof(body) } };
	struct pt_err err;

	pt_id_new(op.id, "op");
	memcpy(e.op, op.id, sizeof(op.id));
	memcpy(r.op, op.id, sizeof(op.id));
	op.type = (char *)(uintptr_t) "query";
	op.state = (char *)(uintptr_t) "waiting";
	op.input = input;
	op.created_ms = e.at_ms;
	MUST(pt_tx_insert(tx, &operations, &op, &err));
	add_event(tx, &e, "accepted");
	op.state = (char *)(uintptr_t) "leased";
	op.attempt = 1;
	op.lease_until_ms = e.at_ms + 60000;
	MUST(pt_tx_update(tx, &operations, &op, &err));
	add_event(tx, &e, "leased");
	op.state = (char *)(uintptr_t) "succeeded";
	op.ended_ms = e.at_ms;
	MUST(pt_tx_update(tx, &operations, &op, &err));
	add_event(tx, &e, "succeeded");
	MUST(pt_tx_insert(tx, &results, &r, &err));
}

static void run(const char *dir, int group, double seconds, bool last)
{
	struct pt_db *db = NULL;
	struct pt_err err;
	char url[200];
	int64_t wall, cpu, n = 0;

	snprintf(url, sizeof(url), "sqlite:%s/bench-%d.db", dir, group);
	MUST(pt_db_open(&db, url, tables, &err));
	wall = pt_mono_ns();
	cpu = cpu_ns();
	while (pt_mono_ns() - wall < (int64_t)(seconds * 1e9)) {
		struct pt_tx *tx = NULL;

		MUST(pt_db_begin(db, true, &tx, &err));
		for (int i = 0; i < group; i++, n++) {
			MUST(pt_tx_mark(tx, &err));
			life(tx);
		}
		MUST(pt_tx_commit(tx, &err));
	}
	wall = pt_mono_ns() - wall;
	cpu = cpu_ns() - cpu;
	printf("    {\"group\": %d, \"lives\": %lld, \"lives_per_s\": %.0f, \"rows_per_s\": %.0f, \"lives_per_cpu_s\": %.0f, "
	       "\"commit_ms\": %.3f}%s\n",
	       group, (long long)n, (double)n * 1e9 / (double)wall, (double)n * ROWS_PER_LIFE * 1e9 / (double)wall,
	       (double)n * 1e9 / (double)cpu, (double)wall / 1e6 * group / (double)n, last ? "" : ",");
	pt_db_close(db);
}

/* Append 4 KiB and fdatasync: the floor under a commit. */
static double fdatasync_ms(const char *dir)
{
	enum { TIMES = 200 };
	static const char page[4096];
	char path[200];
	int64_t t;
	int fd;

	snprintf(path, sizeof(path), "%s/fdatasync", dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	t = pt_mono_ns();
	for (int i = 0; i < TIMES; i++)
		if (write(fd, page, sizeof(page)) != sizeof(page) || fdatasync(fd) < 0) {
			perror("bench_db: fdatasync");
			exit(1);
		}
	t = pt_mono_ns() - t;
	(void)close(fd);
	return (double)t / 1e6 / TIMES;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return remove(path);
}

int main(int argc, char **argv)
{
	static const int groups[] = { 1, 8, 64, 256 };
	double seconds = argc > 2 ? strtod(argv[2], NULL) : 2;
	char dir[100];

	snprintf(dir, sizeof(dir), "%.80s/bench-XXXXXX", argc > 1 ? argv[1] : ".");
	if (!mkdtemp(dir)) {
		perror("bench_db");
		return 1;
	}
	pt_random(input, sizeof(input) - 1);
	for (size_t i = 0; i + 1 < sizeof(input); i++)
		input[i] = (char)('a' + (input[i] & 15));
	printf("{\n  \"fdatasync_ms\": %.3f,\n  \"sqlite\": [\n", fdatasync_ms(dir));
	for (size_t i = 0; i < PT_COUNT(groups); i++)
		run(dir, groups[i], seconds, i + 1 == PT_COUNT(groups));
	printf("  ]\n}\n");
	(void)nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	return 0;
}
