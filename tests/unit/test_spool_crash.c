/* The spool with many threads and with sudden death: what was committed is there, whatever happened in the same moment. */
#include "spool_util.h"
#include "base/log.h"
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

enum { THREADS = 8, EACH = 60, ROUNDS = 20 };

static struct pt_spool *spool;

static void *putter(void *arg)
{
	char op[PT_ID_SIZE];
	struct pt_err err = { 0 };
	intptr_t bad = 0;

	snprintf(op, sizeof(op), "op_t%d", (int)(intptr_t)arg);
	for (int i = 0; i < EACH; i++)
		bad += put_result(spool, op, i + 1, i % 20 == 0 ? 60000 : 300, &err) != 0;
	return (void *)bad;
}

static void *taker(void *arg)
{
	struct pt_err err = { 0 };
	struct pt_spool_entry e;
	intptr_t n = 0;

	while (pt_spool_take(spool, &e, 500, &err) == 1) {
		n++;
		if (n % 3 == 0)
			pt_spool_retry(spool, &e, 1);
		else
			pt_spool_ack(spool, &e);
	}
	return (void *)n;
}

static void test_threads(const char *dir)
{
	pthread_t p[THREADS], t[3];
	struct pt_spool_stats st;
	struct pt_err err = { 0 };
	intptr_t bad = 0;
	void *r;

	ok(pt_spool_open(&spool, dir, 64 << 20, ring("key_1"), &err) == 0, "open");
	for (intptr_t i = 0; i < THREADS; i++)
		pthread_create(&p[i], NULL, putter, (void *)i);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(p[i], &r);
		bad += (intptr_t)r;
	}
	pt_spool_stats(spool, &st);
	is_int(bad, 0, "8 threads put %d results at the same time", THREADS * EACH);
	is_int(st.entries, THREADS * EACH, "all are there");
	ok(st.syncs < THREADS * EACH * 3 / 4, "and shared their fsyncs: %lld", (long long)st.syncs);
	for (intptr_t i = 0; i < THREADS; i++)
		pthread_create(&p[i], NULL, putter, (void *)(i + 100));
	for (int i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, taker, NULL);
	for (int i = 0; i < THREADS; i++)
		pthread_join(p[i], NULL);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	pt_spool_stats(spool, &st);
	is_int(st.entries, 0, "three takers empty it while eight put");
	pt_spool_close(spool);
	wipe(dir, false);
}

/* A child puts results with three threads and writes each name to the pipe after the commit returned. */
static int child_pipe;

static void *child_putter(void *arg)
{
	struct pt_err err = { 0 };
	char op[PT_ID_SIZE], line[64];

	snprintf(op, sizeof(op), "op_c%d", (int)(intptr_t)arg);
	for (int64_t i = 1;; i++) {
		int n;

		if (put_result(spool, op, i, i % 5 == 0 ? 50000 : 200, &err) < 0)
			_exit(3);
		n = snprintf(line, sizeof(line), "%s %lld\n", op, (long long)i);
		if (write(child_pipe, line, (size_t)n) != n)
			_exit(4);
	}
	return NULL;
}

static _Noreturn void child(const char *dir, int fd)
{
	pthread_t t[3];
	struct pt_err err = { 0 };

	child_pipe = fd;
	if (pt_spool_open(&spool, dir, 256 << 20, ring("key_1"), &err) < 0)
		_exit(2);
	for (intptr_t i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, child_putter, (void *)i);
	for (;;)
		pause();
}

/* Run a child until it has reported some commits, kill it, and look whether every commit that it reported is in the spool. */
static void one_kill(const char *dir, int reports, int *committed, int *lost, int *damaged)
{
	struct {
		char op[PT_ID_SIZE];
		long long attempt;
	} seen[4096];
	struct pt_err err = { 0 };
	struct pt_spool_stats st;
	struct pt_spool_entry e;
	int fd[2], n = 0;
	FILE *f;
	pid_t pid;

	fflush(stdout);
	if (pipe(fd) < 0 || (pid = fork()) < 0)
		abort();
	if (pid == 0)
		child(dir, fd[1]);
	close(fd[1]);
	f = fdopen(fd[0], "r");
	while (n < 4096 && fscanf(f, "%39s %lld", seen[n].op, &seen[n].attempt) == 2)
		if (++n == reports) /* it goes on for a moment: the rest of the pipe is read too */
			kill(pid, SIGKILL);
	fclose(f);
	waitpid(pid, NULL, 0);
	if (pt_spool_open(&spool, dir, 256 << 20, ring("key_1"), &err) < 0)
		abort();
	pt_spool_stats(spool, &st);
	for (int i = 0; i < n; i++)
		*lost += !pt_spool_has(spool, seen[i].op, seen[i].attempt);
	while (pt_spool_take(spool, &e, 0, &err) == 1)
		pt_spool_ack(spool, &e);
	pt_spool_stats(spool, &st);
	*damaged += (int)st.damaged + (int)st.entries;
	*committed += n;
	pt_spool_close(spool);
}

static void test_kill(const char *dir)
{
	int committed = 0, lost = 0, damaged = 0;
	char name[300];

	for (int i = 0; i < ROUNDS; i++)
		one_kill(dir, 1 + i * 3, &committed, &lost, &damaged);
	ok(committed >= ROUNDS, "killed %d times, %d results committed", ROUNDS, committed);
	is_int(lost, 0, "each of them is there afterwards");
	is_int(damaged, 0, "readable, and nothing is damaged");
	is_int(files(dir, "body-", "", name), 0, "no body file is left over");
}

int main(void)
{
	struct pt_err err;
	char dir[64];

	temp_dir(dir);
	if (pt_log_init("error", "plain", 0, &err) < 0)
		return 1;
	test_threads(dir);
	test_kill(dir);
	wipe(dir, true);
	return tap_end();
}
