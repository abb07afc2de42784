/* Log lines of agents, inside the gateway.  They live in a database of their own beside the main one, with a writer of its own, so that
 * many lines never keep an operation waiting.
 *
 * A chunk is what one request brought: text with one line per log line, "LEVEL OPERATION\tJSON\n" (LEVEL a digit, OPERATION "-" when it is
 * about none).  A line's id is the chunk's number times PT_LOG_CHUNK_LINES plus its place in it: ids grow in order of arrival.  A start
 * numbers chunks from its time in milliseconds on, so that ids grow also when nothing is left of those before. */
#ifndef PT_GATEWAY_LOGS_H
#define PT_GATEWAY_LOGS_H
#include "gateway/internal.h"
#include <pthread.h>

enum { PT_LOG_CHUNK_LINES = 1024 };

struct pt_rec_log_chunk {
	char n[PT_ID_SIZE]; /* number as 16 hexadecimal digits, so that it can be sought as text */
	char account[PT_ID_SIZE], agent[PT_ID_SIZE];
	int64_t received, bytes;
	char *text;
};
struct pt_rec_log_operation { /* which chunks have lines about it */
	char operation[PT_ID_SIZE], n[PT_ID_SIZE];
};
struct pt_rec_log_mark { /* what came of an instance */
	char agent[PT_ID_SIZE], instance[PT_ID_SIZE];
	int64_t last, at; /* number of its newest line; when it came */
};
struct pt_rec_log_total {
	char account[PT_ID_SIZE];
	int64_t bytes;
};
extern const struct pt_table pt_log_chunks, pt_log_operations, pt_log_marks, pt_log_totals;
#define pt_log_chunks_by_agent     pt_log_chunks.indexes[0]
#define pt_log_chunks_by_account   pt_log_chunks.indexes[1]
#define pt_log_operations_by_chunk pt_log_operations.indexes[0]
#define pt_log_marks_by_at         pt_log_marks.indexes[0]
void pt_rec_log_chunk_release(struct pt_rec_log_chunk *r);

struct pt_log_waiter;
struct pt_logs {
	struct pt_db *db;
	struct pt_writer *writer;
	uint64_t next; /* number of the next chunk; writer's thread */
	_Atomic uint64_t lines, duplicates, ignored, expired;

	/* logs_read.c: clients that wait for lines */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t thread;
	bool thread_runs, drain;
	struct pt_log_waiter *waiters;
};

int pt_log_readers_start(struct pt_gateway *g, struct pt_err *err) PT_MUSTCHECK;
void pt_log_news(struct pt_gateway *g, const char *agent); /* lines of this agent are committed */
void pt_log_chunk_name(uint64_t n, char out[static PT_ID_SIZE]);
#endif
