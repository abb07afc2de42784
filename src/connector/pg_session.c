/* A session with a PostgreSQL server, apart from rows: waiting for results, what errors mean, commands of our own, the end of a
 * transaction, and stopping a statement.
 *
 * Cancel and deadline: every wait is a poll on the socket and the token.  The cancel request goes to the server from a thread of
 * its own, since PQcancel() blocks; the answer is awaited for a bounded time, then the connection is given up. */
#include "connector/pg_conn.h"
#include "base/clock.h"
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>

enum { END_MS = 5000, COMMIT_MS = 60000 };

int pg_lost(struct pg_conn *c, const char *why, struct pt_err *err)
{
	const char *text = why ? why : PQerrorMessage(c->db);
	size_t n = strcspn(text, "\n");

	c->broken = true;
	(void)pt_fail(err, PT_E_CONNECTION_LOST, "the connection to the server was lost%s%.*s", n ? ": " : "", (int)n, text);
	return pt_hint(err, "look at the server's log: was it stopped, or does something on the way cut idle connections?");
}

int pg_wait_ready(struct pg_conn *c, const struct pt_cancel *cancel, int64_t end_ms, struct pt_err *err)
{
	for (;;) {
		int unsent = PQflush(c->db), rc;
		int64_t left = end_ms == INT64_MAX ? -1 : end_ms - pt_mono_ms(); /* pt_cancel_poll(): -1 is no limit */

		if (end_ms != INT64_MAX && left < 0)
			left = 0;
		/* not read before it is needed: libpq would move all that it has for every piece more */
		if (!PQisBusy(c->db))
			return PT_OK;
		if (!PQconsumeInput(c->db) || unsent < 0)
			return pg_lost(c, NULL, err);
		if (!PQisBusy(c->db))
			return PT_OK;
		rc = pt_cancel_poll(cancel, PQsocket(c->db), (short)(POLLIN | (unsent ? POLLOUT : 0)), (int)left, err);
		if (rc < 0)
			return rc;
	}
}

int pg_query_error(struct pg_conn *c, const PGresult *res, struct pt_err *err)
{
	const char *state = res ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : NULL;
	const char *text = res ? PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY) : NULL;
	const char *at = res ? PQresultErrorField(res, PG_DIAG_STATEMENT_POSITION) : NULL;
	const char *hint = res ? PQresultErrorField(res, PG_DIAG_MESSAGE_HINT) : NULL;
	enum pt_code code = PT_E_QUERY;

	if (!state)
		return PQstatus(c->db) == CONNECTION_BAD ? pg_lost(c, NULL, err)
							 : pt_fail(err, PT_E_PROTOCOL, "%.300s", PQerrorMessage(c->db));
	if (strcmp(state, "57014") == 0 && pt_cancel_check(c->cancel, err) < 0)
		return err->code;
	if (!strncmp(state, "08", 2) || !strcmp(state, "57P01") || !strcmp(state, "57P02") || !strcmp(state, "57P03") ||
	    !strcmp(state, "57P05") || !strcmp(state, "25P03")) {
		code = PT_E_CONNECTION_LOST;
		c->broken = true;
	} else if (strcmp(state, "42501") == 0) {
		code = PT_E_SOURCE_DENIED;
	}
	if (at)
		(void)pt_fail(err, code, "%.300s (at character %s)", text ? text : "error", at);
	else
		(void)pt_fail(err, code, "%.300s", text ? text : "error");
	pt_native(err, state);
	if (strcmp(state, "25006") == 0)
		return pt_hint(err, "set mode: write (postern ctl: --write) to let the operation change data");
	if (hint)
		(void)pt_hint(err, "%.200s", hint);
	return code;
}

struct canceller {
	PGcancel *request;
	int done; /* eventfd */
	_Atomic int refs;
};

static void canceller_unref(struct canceller *k)
{
	if (atomic_fetch_sub(&k->refs, 1) > 1)
		return;
	PQfreeCancel(k->request);
	pt_closep(&k->done);
	free(k);
}

static void *canceller_run(void *arg)
{
	struct canceller *k = arg;
	char why[256];
	uint64_t one = 1;

	/* The result says nothing that the statement's end will not say. */
	(void)PQcancel(k->request, why, sizeof(why));
	while (write(k->done, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	canceller_unref(k);
	return NULL;
}

/* Ask the server to stop, and wait (bounded) until it has got that: a late cancel would hit the connection's next statement. */
static bool send_cancel(struct pg_conn *c)
{
	struct canceller *k = calloc(1, sizeof(*k));
	struct pt_err ignored;
	pthread_attr_t attr;
	pthread_t t;
	bool sent;

	if (!k)
		return false;
	*k = (struct canceller) { .request = PQgetCancel(c->db), .done = eventfd(0, EFD_CLOEXEC), .refs = 2 };
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sent = k->request && k->done >= 0 && pthread_create(&t, &attr, canceller_run, k) == 0;
	pthread_attr_destroy(&attr);
	if (sent)
		sent = pt_cancel_poll(NULL, k->done, POLLIN, END_MS, &ignored) == 0;
	else
		k->refs = 1;
	canceller_unref(k);
	return sent;
}

/* Take all results of what was sent until the connection is idle.  False: it cannot be used any more. */
static bool drain(struct pg_conn *c)
{
	int64_t end = pt_mono_ms() + END_MS;
	struct pt_err ignored;
	char *copy;

	for (;;) {
		PGresult *res;
		ExecStatusType st;

		if (pg_wait_ready(c, NULL, end, &ignored) < 0)
			return false;
		res = PQgetResult(c->db);
		st = PQresultStatus(res);
		PQclear(res);
		if (!res && PQpipelineStatus(c->db) == PQ_PIPELINE_OFF)
			return PQstatus(c->db) == CONNECTION_OK;
		if (st == PGRES_PIPELINE_SYNC)
			return PQexitPipelineMode(c->db) == 1;
		if (PQstatus(c->db) == CONNECTION_BAD)
			return false;
		if (st == PGRES_COPY_IN)
			(void)PQputCopyEnd(c->db, "not supported");
		while (st == PGRES_COPY_OUT && pt_mono_ms() < end) {
			int n = PQgetCopyData(c->db, &copy, 1);

			if (n > 0)
				PQfreemem(copy);
			else if (n < 0)
				break;
			else if (pt_cancel_poll(NULL, PQsocket(c->db), POLLIN, END_MS, &ignored) < 0 || !PQconsumeInput(c->db))
				return false;
		}
	}
}

int pg_run(struct pg_conn *c, const char *sql, PGresult **ret, struct pt_err *err)
{
	PGresult *res = NULL, *last = NULL;
	int rc = PQsendQueryParams(c->db, sql, 0, NULL, NULL, NULL, NULL, 0) ? PT_OK : pg_lost(c, NULL, err);

	c->running = true;
	while (rc == 0 && (rc = pg_next_result(c, &res, err)) == 0 && res) {
		PQclear(last);
		last = res;
	}
	c->running = rc < 0;
	if (rc == 0 && PQresultStatus(last) != PGRES_COMMAND_OK && PQresultStatus(last) != PGRES_TUPLES_OK)
		rc = pg_query_error(c, last, err);
	if (rc == 0 && ret)
		*ret = last;
	else
		PQclear(last);
	return rc;
}

int pg_end(struct pg_conn *c, bool commit, struct pt_err *err)
{
	struct pt_cancel limit = { .fd = -1, .deadline_ms = pt_mono_ms() + (commit ? COMMIT_MS : END_MS) };
	const struct pt_cancel *saved = c->cancel;
	int rc;

	c->active = false;
	c->cancel = &limit;
	rc = c->broken ? pg_lost(c, NULL, err) : pg_run(c, commit ? "COMMIT" : "ROLLBACK", NULL, err);
	c->cancel = saved;
	if (rc == PT_E_DEADLINE)
		rc = pg_lost(c, "the server did not answer the end of the transaction: its outcome is not known", err);
	return rc;
}

void pg_stop(struct pg_conn *c)
{
	struct pt_err ignored;

	if (!c->active)
		return;
	if (!c->broken && c->running && !send_cancel(c))
		c->broken = true;
	if (!c->broken && PQtransactionStatus(c->db) == PQTRANS_ACTIVE && !drain(c))
		c->broken = true;
	c->running = false;
	if (pg_end(c, false, &ignored) < 0)
		c->broken = true;
}
