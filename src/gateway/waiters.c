/* Clients that wait for the end of an operation (GET /api/v1/operations/{id}?wait=S).  A thread of its own reads the operation and
 * answers, so that neither the writer nor the HTTP threads do it for many at once. */
#include "base/clock.h"
#include "gateway/internal.h"
#include "os/cond.h"
#include <pthread.h>
#include <uthash.h>
#include <utlist.h>

enum {
	TICK_MS = 200,
	CROWDED_MS = 1000, /* longest wait on a connection that the server has no room for */
};

struct waiter {
	struct pt_call *c;
	char operation[PT_ID_SIZE];
	int64_t until; /* pt_mono_ms() */
	struct waiter *prev, *next;           /* of the same operation */
	struct waiter *t_prev, *t_next;       /* all, in order of until */
};
struct topic {
	char operation[PT_ID_SIZE];
	struct waiter *waiters;
	UT_hash_handle hh;
};
struct pt_waiters {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t thread;
	bool drain; /* answer all, then end */
	struct topic *topics;
	struct waiter *by_time, *ready;
	struct pt_list ended; /* ids that ended in the writer's open transaction; writer's thread only */
};

static void unlink_waiter(struct pt_waiters *ws, struct waiter *w)
{
	struct topic *t;

	DL_DELETE2(ws->by_time, w, t_prev, t_next);
	HASH_FIND_STR(ws->topics, w->operation, t);
	pt_assert(t);
	DL_DELETE(t->waiters, w);
	if (!t->waiters) {
		HASH_DEL(ws->topics, t);
		free(t);
	}
}

static void make_ready(struct pt_waiters *ws, struct waiter *w)
{
	unlink_waiter(ws, w);
	DL_APPEND(ws->ready, w);
}

static int by_until(const struct waiter *a, const struct waiter *b)
{
	return a->until < b->until ? -1 : a->until > b->until;
}

static bool ended_already(struct pt_gateway *g, const char *account, const char *operation)
{
	pt_auto_rec(operation) op = { 0 };
	struct pt_tx *tx = NULL;
	struct pt_err err;
	bool ended = true; /* cannot tell: answer now, with whatever the answer is */

	if (pt_db_begin(g->db, false, &tx, &err) < 0)
		return true;
	if (pt_find_operation(tx, account, operation, &op, &err) == 0)
		ended = pt_op_terminal((enum pt_op_state)op.state);
	pt_tx_rollback(tx);
	return ended;
}

static void wake_topic(struct pt_waiters *ws, const char *operation)
{
	struct topic *t;

	HASH_FIND_STR(ws->topics, operation, t);
	for (struct waiter *w = t ? t->waiters : NULL, *next; w; w = next) {
		next = w->next; /* the topic is freed with its last waiter */
		make_ready(ws, w);
	}
	if (ws->ready)
		pthread_cond_signal(&ws->wake);
}

void pt_wait_for(struct pt_call *c, const char *operation, int64_t ms)
{
	struct pt_gateway *g = c->g;
	struct pt_waiters *ws = g->waiters;
	struct waiter *w = calloc(1, sizeof(*w));
	struct topic *t = NULL;
	char account[PT_ID_SIZE], id[PT_ID_SIZE];

	if (!w) {
		pt_answer_operation(c, operation);
		return;
	}
	pt_id_copy(account, c->who.account); /* from the registration on, c may be answered and gone */
	pt_id_copy(id, operation);
	pt_id_copy(w->operation, operation);
	w->c = c;
	w->until = pt_mono_ms() + (pt_http_crowded(c->req) && ms > CROWDED_MS ? CROWDED_MS : ms);
	pt_http_hold(c->req, NULL, NULL); /* a client that left is answered into the void when its time is over */
	pthread_mutex_lock(&ws->lock);
	if (ws->drain) { /* the thread has ended */
		pthread_mutex_unlock(&ws->lock);
		free(w);
		pt_answer_operation(c, id);
		return;
	}
	HASH_FIND_STR(ws->topics, id, t);
	if (!t && (t = calloc(1, sizeof(*t)))) {
		pt_id_copy(t->operation, id);
		HASH_ADD_STR(ws->topics, operation, t);
	}
	if (t) {
		DL_APPEND(t->waiters, w);
		if (!ws->by_time || ws->by_time->t_prev->until <= w->until)
			DL_APPEND2(ws->by_time, w, t_prev, t_next);
		else
			DL_INSERT_INORDER2(ws->by_time, w, by_until, t_prev, t_next);
	} else {
		DL_APPEND(ws->ready, w);
		pthread_cond_signal(&ws->wake);
	}
	pthread_mutex_unlock(&ws->lock);
	/* Registered first, looked second: an end between the two is not missed. */
	if (t && ended_already(g, account, id)) {
		pthread_mutex_lock(&ws->lock);
		wake_topic(ws, id);
		pthread_mutex_unlock(&ws->lock);
	}
}

void pt_wait_wake(struct pt_gateway *g, const char *operation)
{
	struct pt_err ignored;

	/* Short of memory the waiter is answered when its time is over. */
	if (pt_list_append(&g->waiters->ended, PT_ID_SIZE, operation, &ignored) < 0)
		return;
}

void pt_wait_flush(struct pt_gateway *g, bool committed)
{
	struct pt_waiters *ws = g->waiters;

	if (!ws->ended.n)
		return;
	pthread_mutex_lock(&ws->lock);
	for (size_t i = 0; committed && i < ws->ended.n && ws->topics; i++)
		wake_topic(ws, (char *)ws->ended.items + i * PT_ID_SIZE);
	pthread_mutex_unlock(&ws->lock);
	free(ws->ended.items);
	ws->ended = (struct pt_list){ 0 };
}

static void *answer(void *arg)
{
	struct pt_gateway *g = arg;
	struct pt_waiters *ws = g->waiters;

	pthread_mutex_lock(&ws->lock);
	for (;;) {
		int64_t now = pt_mono_ms();
		struct waiter *w;

		while (ws->by_time && (ws->drain || ws->by_time->until <= now))
			make_ready(ws, ws->by_time);
		if ((w = ws->ready)) {
			DL_DELETE(ws->ready, w);
			pthread_mutex_unlock(&ws->lock);
			pt_answer_operation(w->c, w->operation);
			free(w);
			pthread_mutex_lock(&ws->lock);
			continue;
		}
		if (ws->drain)
			break;
		(void)pt_cond_wait_ms(&ws->wake, &ws->lock, TICK_MS);
	}
	pthread_mutex_unlock(&ws->lock);
	return NULL;
}

int pt_waiters_new(struct pt_gateway *g, struct pt_err *err)
{
	struct pt_waiters *ws = calloc(1, sizeof(*ws));

	if (!ws)
		return pt_fail_oom(err);
	pthread_mutex_init(&ws->lock, NULL);
	pt_cond_init(&ws->wake);
	g->waiters = ws;
	if (pthread_create(&ws->thread, NULL, answer, g) == 0)
		return PT_OK;
	free(ws);
	g->waiters = NULL;
	return pt_fail(err, PT_E_INTERNAL, "cannot start a thread");
}

void pt_waiters_drain(struct pt_gateway *g)
{
	pthread_mutex_lock(&g->waiters->lock);
	g->waiters->drain = true;
	pthread_cond_signal(&g->waiters->wake);
	pthread_mutex_unlock(&g->waiters->lock);
	pthread_join(g->waiters->thread, NULL);
}

void pt_waiters_free(struct pt_gateway *g)
{
	struct pt_waiters *ws = g->waiters;

	if (!ws)
		return;
	pt_assert(ws->drain);
	pthread_mutex_destroy(&ws->lock);
	pthread_cond_destroy(&ws->wake);
	free(ws->ended.items);
	free(ws);
	g->waiters = NULL;
}
