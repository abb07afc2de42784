/* Log lines as clients see them: a page of an operation's or an agent's, and waiting for more.  A thread of its own answers those who
 * wait, so that the log writer and the HTTP threads do not. */
#include "base/clock.h"
#include "base/json_write.h"
#include "gateway/logs.h"
#include "os/cond.h"
#include <stdio.h>
#include <utlist.h>

enum {
	LIMIT = 200,
	LIMIT_MAX = 500,
	WAIT_MAX_S = 60,
	TICK_MS = 200,
	CROWDED_MS = 1000, /* longest wait on a connection that the server has no room for */
	LOOK_MAX = 64,     /* chunks that one page looks at */
};

struct page {
	struct pt_call *c;
	struct pt_tx *logs;
	struct pt_err *err;
	bool of_operation, newest; /* newest: the last lines, since no `after` was given */
	int64_t after, limit, wait_s, looked, last;
	int level;
	char operation[PT_ID_SIZE], agent[PT_ID_SIZE];
	bool ended, more;
	char **items; /* in order of collection */
	size_t n;
};

/* --- collecting --- */

/* Does the stored line count?  Its JSON, or NULL. */
static const char *wanted(const struct page *p, const char *line, size_t n)
{
	const char *tab = memchr(line, '\t', n);
	size_t op = strlen(p->operation);

	if (!tab || line[0] - '0' < p->level)
		return NULL;
	if (p->of_operation && ((size_t)(tab - line) != op + 2 || memcmp(line + 2, p->operation, op) != 0))
		return NULL;
	return tab + 1;
}

static int keep(struct page *p, int64_t id, const char *json, const char *end)
{
	size_t n = (size_t)(end - json);
	char *item = malloc(n + 40);

	if (!item)
		return pt_fail_oom(p->err);
	snprintf(item, n + 40, "{\"id\":%lld,%.*s", (long long)id, (int)n - 1, json + 1);
	p->items[p->n++] = item;
	return PT_OK;
}

/* The chunk's lines, in order or, for the newest, from its end.  1: the page is full. */
static int collect(struct page *p, const struct pt_rec_log_chunk *k)
{
	const char *starts[PT_LOG_CHUNK_LINES + 1];
	int64_t base = (int64_t)strtoull(k->n, NULL, 16) * PT_LOG_CHUNK_LINES;
	size_t n = 0;

	starts[0] = k->text ? k->text : "";
	for (const char *nl; n < PT_LOG_CHUNK_LINES && (nl = strchr(starts[n], '\n')); n++)
		starts[n + 1] = nl + 1;
	for (size_t i = 0; i < n; i++) {
		size_t at = p->newest ? n - 1 - i : i;
		const char *end = starts[at + 1] - 1, *json;

		if (base + (int64_t)at <= p->after || !(json = wanted(p, starts[at], (size_t)(end - starts[at]))))
			continue;
		if ((int64_t)p->n == p->limit) {
			p->more = true;
			return 1;
		}
		if (!p->newest)
			p->last = base + (int64_t)at;
		if (keep(p, base + (int64_t)at, json, end) < 0)
			return PT_E_INTERNAL;
	}
	return 0;
}

static int of_chunk(void *arg, void *rec)
{
	struct page *p = arg;
	const struct pt_rec_log_chunk *k = rec;
	int64_t end = (int64_t)strtoull(k->n, NULL, 16) * PT_LOG_CHUNK_LINES + PT_LOG_CHUNK_LINES - 1;
	int rc;

	if (p->looked++ == LOOK_MAX) {
		p->more = true;
		return 1;
	}
	rc = collect(p, k);
	if ((rc == 0 || p->newest) && end > p->last) /* seen to its end: the next page begins behind it */
		p->last = end;
	return rc;
}

static int of_operation(void *arg, void *rec)
{
	struct page *p = arg;
	struct pt_rec_log_chunk k = { 0 };
	int rc;

	pt_id_copy(k.n, ((struct pt_rec_log_operation *)rec)->n);
	rc = pt_tx_get(p->logs, &pt_log_chunks, &k, p->err);
	if (rc == 0)
		rc = of_chunk(p, &k);
	pt_rec_log_chunk_release(&k);
	return rc;
}

static int scan(struct page *p, struct pt_err *err)
{
	struct pt_rec_log_operation mo = { 0 };
	struct pt_rec_log_chunk mc = { 0 };
	struct pt_scan q = { .n_eq = 1, .desc = p->newest };
	char before[PT_ID_SIZE];

	if (p->after >= PT_LOG_CHUNK_LINES) {
		pt_log_chunk_name((uint64_t)p->after / PT_LOG_CHUNK_LINES - 1, before);
		q.beyond = before;
	}
	if (p->of_operation) {
		pt_id_copy(mo.operation, p->operation);
		q.match = &mo;
		return pt_tx_scan(p->logs, &pt_log_operations, &q, of_operation, p, err);
	}
	pt_id_copy(mc.agent, p->agent);
	q.match = &mc;
	q.index = &pt_log_chunks_by_agent;
	return pt_tx_scan(p->logs, &pt_log_chunks, &q, of_chunk, p, err);
}

/* Whose lines?  The main database knows. */
static int find(struct page *p, struct pt_err *err)
{
	const char *id = pt_http_param(p->c->req, "id");
	pt_auto(pt_tx_rollbackp) struct pt_tx *tx = NULL;
	int rc = pt_db_begin(p->c->g->db, false, &tx, err);

	if (rc == 0 && p->of_operation) {
		pt_auto_rec(operation) op = { 0 };

		rc = pt_find_operation(tx, p->c->who.account, id, &op, err);
		pt_id_copy(p->operation, op.id);
		pt_id_copy(p->agent, op.agent);
		p->ended = pt_op_terminal((enum pt_op_state)op.state);
	} else if (rc == 0) {
		pt_auto_rec(agent) a = { 0 };

		rc = pt_find_agent(tx, p->c->who.account, id, &a, err);
		pt_id_copy(p->agent, a.id);
	}
	return rc;
}

static int arguments(struct page *p, struct pt_err *err)
{
	static const char *const names[] = { "debug", "info", "warn", "error" };
	const char *level = p->of_operation ? NULL : pt_http_query(p->c->req, "level");
	int rc = pt_query_i64(p->c, "after", 0, INT64_C(1) << 53, -1, &p->after, err);

	if (rc == 0)
		rc = pt_query_i64(p->c, "limit", 1, LIMIT_MAX, LIMIT, &p->limit, err);
	if (rc == 0)
		rc = pt_query_i64(p->c, "wait", 0, WAIT_MAX_S, 0, &p->wait_s, err);
	if (rc < 0)
		return rc;
	p->newest = p->after < 0;
	if (p->newest)
		p->after = 0;
	p->last = p->after;
	while (level && p->level < (int)PT_COUNT(names) && strcmp(names[p->level], level) != 0)
		p->level++;
	return p->level < (int)PT_COUNT(names)
		       ? PT_OK
		       : pt_fail(err, PT_E_INVALID, "level: '%.40s' is not debug, info, warn or error", level);
}

static void write_page(struct page *p)
{
	struct pt_buf *b = &p->c->out;

	pt_buf_clear(b);
	pt_jw_open(b, NULL, '{');
	pt_jw_open(b, "items", '[');
	for (size_t i = 0; i < p->n; i++)
		pt_jw_raw(b, NULL, p->items[p->newest ? p->n - 1 - i : i]);
	pt_jw_close(b, ']');
	pt_jw_i64(b, "next", p->last);
	pt_jw_bool(b, "more", p->more && !p->newest);
	if (p->of_operation)
		pt_jw_bool(b, "ended", p->ended);
	pt_jw_close(b, '}');
}

/* Fill p and the call's answer. */
static int look(struct page *p, struct pt_call *c, struct pt_err *err)
{
	int rc;

	*p = (struct page) { .c = c, .err = err, .of_operation = strstr(c->route->path, "/operations/") != NULL };
	rc = arguments(p, err);
	if (rc == 0)
		rc = find(p, err);
	if (rc < 0)
		return rc;
	p->items = calloc((size_t)p->limit, sizeof(*p->items));
	if (!p->items)
		return pt_fail_oom(err);
	rc = pt_db_begin(c->g->logs->db, false, &p->logs, err);
	if (rc == 0)
		rc = scan(p, err);
	pt_tx_rollback(p->logs);
	if (rc >= 0)
		write_page(p);
	for (size_t i = 0; i < p->n; i++)
		free(p->items[i]);
	free(p->items);
	return rc < 0 ? rc : PT_OK;
}

/* --- waiting --- */

struct pt_log_waiter {
	struct pt_call *c;
	char agent[PT_ID_SIZE];
	int64_t until; /* pt_mono_ms() */
	bool ready;    /* look again */
	struct pt_log_waiter *prev, *next;
};

void pt_log_news(struct pt_gateway *g, const char *agent)
{
	struct pt_logs *l = g->logs;
	struct pt_log_waiter *w;

	pthread_mutex_lock(&l->lock);
	DL_FOREACH(l->waiters, w)
	w->ready |= strcmp(w->agent, agent) == 0;
	if (l->waiters)
		pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
}

/* Look for one who waits.  False: nothing yet, it goes on waiting. */
static bool answer(struct pt_log_waiter *w, bool last)
{
	struct pt_err err = { 0 };
	struct page p;

	if (look(&p, w->c, &err) < 0)
		pt_call_fail(w->c, &err);
	else if (p.n || p.more || last)
		pt_call_reply(w->c);
	else
		return false;
	free(w);
	return true;
}

static void *reader_thread(void *arg)
{
	struct pt_gateway *g = arg;
	struct pt_logs *l = g->logs;

	pthread_mutex_lock(&l->lock);
	while (!l->drain || l->waiters) {
		struct pt_log_waiter *w;
		int64_t now = pt_mono_ms();

		for (w = l->waiters; w && !w->ready && w->until > now && !l->drain; w = w->next)
			;
		if (!w) {
			(void)pt_cond_wait_ms(&l->wake, &l->lock, TICK_MS);
			continue;
		}
		DL_DELETE(l->waiters, w);
		w->ready = false;
		now = l->drain || w->until <= now;
		pthread_mutex_unlock(&l->lock);
		if (answer(w, now))
			w = NULL;
		pthread_mutex_lock(&l->lock);
		if (w) /* news that came meanwhile is in the database only: look once more soon */
			DL_APPEND(l->waiters, w);
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

static void hold(struct pt_call *c, const struct page *p)
{
	struct pt_logs *l = c->g->logs;
	struct pt_log_waiter *w = calloc(1, sizeof(*w));
	bool drain;

	if (!w) {
		pt_call_reply(c); /* with nothing, as if the time were over */
		return;
	}
	w->c = c;
	w->until = pt_mono_ms() + (pt_http_crowded(c->req) ? CROWDED_MS : p->wait_s * 1000);
	w->ready = true; /* lines may have come since the look */
	pt_id_copy(w->agent, p->agent);
	pt_http_hold(c->req, NULL, NULL);
	pthread_mutex_lock(&l->lock);
	drain = l->drain;
	if (!drain)
		DL_APPEND(l->waiters, w);
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
	if (drain) {
		free(w);
		pt_call_reply(c);
	}
}

void pt_api_logs_get(struct pt_call *c)
{
	struct pt_err err = { 0 };
	struct page p;

	if (look(&p, c, &err) < 0)
		pt_call_fail(c, &err);
	else if (p.n || p.more || !p.wait_s)
		pt_call_reply(c);
	else
		hold(c, &p);
}

int pt_log_readers_start(struct pt_gateway *g, struct pt_err *err)
{
	struct pt_logs *l = g->logs;

	pthread_mutex_init(&l->lock, NULL);
	pt_cond_init(&l->wake);
	errno = pthread_create(&l->thread, NULL, reader_thread, g);
	l->thread_runs = !errno;
	return errno ? pt_fail_sys(err, PT_E_INTERNAL, "start a thread") : PT_OK;
}

void pt_logs_drain(struct pt_gateway *g)
{
	struct pt_logs *l = g->logs;

	if (!l || !l->thread_runs)
		return;
	pthread_mutex_lock(&l->lock);
	l->drain = true;
	pthread_cond_signal(&l->wake);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);
	l->thread_runs = false;
}
