/* What the gateway's files share.
 *
 * Threads: the HTTP server's (requests, reads), the writer's (every change of state, src/db/writer.h), and one notifier that answers
 * held requests whose time has come.  State lives in the database; the only things in memory are who is connected now
 * (presence.c) and who waits for what (presence.c, waiters.c).  Both are rebuilt by the next requests after a restart. */
#ifndef PT_GATEWAY_INTERNAL_H
#define PT_GATEWAY_INTERNAL_H
#include "db/writer.h"
#include "gateway/records.h"
#include "net/http_server.h"
#include "op/op.h"

enum {
	PT_LEASE_MS = 60000,        /* design: default lease (--lease) */
	PT_WAIT_MAX_MS = 40000,     /* longest exchange */
	PT_REDELIVER_MS = 2000,     /* a lease not acknowledged for so long is sent again */
	PT_START_MAX_MS = 600000,   /* leased and not said to start after so long: its lease is not renewed */
	PT_STOP_GRACE_MS = 120000,  /* told to stop and still holding it after so long: its lease is not renewed */
	PT_ZSTD_WINDOW_LOG = 21,    /* largest zstd window taken (2 MiB): memory of one reader */
	PT_INLINE_BODY = 32 * 1024, /* results up to this size live in the database, larger ones in files */
};

struct pt_presence;
struct pt_waiters;
struct pt_logs;

/* Requests by what their duration tells. */
enum pt_request_kind { PT_REQUEST_CLIENT, PT_REQUEST_AGENT, PT_REQUEST_WAIT, PT_REQUEST_OTHER, PT_REQUEST_KINDS };

struct pt_api_route;

struct pt_gateway_counts {
	_Atomic uint64_t submitted, leased, redelivered, lease_lost, attempts_failed, results, duplicates, refused, exchanges,
		auth_failed;
	_Atomic uint64_t http[6]; /* by status class */
	struct {
		_Atomic uint64_t finished[PT_OP_STATES_END];
		struct pt_histogram seconds; /* from submit to end */
	} types[PT_OP_TYPES_MAX + 1];        /* by pt_op_index() */
	struct pt_histogram wait;            /* from submit to the first lease */
	struct pt_histogram requests[PT_REQUEST_KINDS];
	_Atomic int64_t blobs, blob_bytes; /* files in the blob folder */
};

struct pt_gateway {
	struct pt_db *db;
	struct pt_writer *writer;
	struct pt_http_server *http;
	struct pt_presence *presence;
	struct pt_waiters *waiters;
	struct pt_logs *logs;
	struct pt_gateway_counts m;
	char *blob_dir, *public_url;
	const char *database; /* file of the state, NULL = none (mem:) */
	int64_t retention_ms, lease_ms;
	int64_t reaped_at;      /* the writer's: when the reaper last looked */
	struct pt_list unsure;  /* the writer's: names of blobs whose commit failed, see pt_blob_unsure() … */
	uint64_t unsure_since;  /* … and how many commits there were then */
	_Atomic size_t n_unsure;
	int64_t deaf_until;     /* the writer's: a commit failed, and with it what agents said; no lease ends before */
	int64_t (*jitter)(int64_t bound);        /* tests: in place of a random pause in [1, bound] ms; NULL = random */
	int64_t log_retention_ms, log_max_bytes; /* log_max_bytes: of each account */
	int64_t wall0, mono0;   /* pt_gateway_now() */
	_Atomic bool stopping;  /* answer what waits; serve what comes */
	_Atomic int64_t spread_ms; /* while stopping: within what time those who are told so may come back */
	_Atomic bool closed;    /* serve nothing any more */
	_Atomic unsigned inside; /* threads between pt_gateway_enter() and pt_gateway_leave() */
};

/* Whoever gives the writer work, or reads its state, from outside its thread stands between these two, so that the writer can end
 * before the HTTP server does.  False: closed, and there is nothing to leave. */
bool pt_gateway_enter(struct pt_gateway *g);
void pt_gateway_leave(struct pt_gateway *g);
int pt_gateway_closed(struct pt_err *err); /* the error to answer with then */

/* --- metrics.c --- */
void pt_count_end(struct pt_gateway *g, const struct pt_rec_operation *op); /* it has come to a terminal state */
void pt_count_lease(struct pt_gateway *g, const struct pt_rec_operation *op);
void pt_count_request(struct pt_gateway *g, const struct pt_api_route *route, int status, int64_t us); /* route NULL = none */

/* --- disk.c --- */
/* PT_E_UNAVAILABLE when a disk of the gateway has hardly any room: what is acknowledged must be written first. */
int pt_disk_check(struct pt_gateway *g, struct pt_err *err) PT_MUSTCHECK;
int64_t pt_disk_least(int64_t size); /* bytes that must be free on a disk of so many */

/* --- clock.c --- */
/* Wall time that never jumps while the process runs: leases and deadlines are counted in it. */
int64_t pt_gateway_now(const struct pt_gateway *g);
/* Set it, once the database is open and before anything asks: to this machine's time, or to that of the newest record when that is
 * ahead by up to a day. */
int pt_gateway_clock(struct pt_gateway *g, struct pt_err *err) PT_MUSTCHECK;

/* --- api.c: one request --- */
struct pt_caller {
	enum pt_role role;
	char account[PT_ID_SIZE];
	char user[PT_ID_SIZE];  /* PT_ROLE_VIEWER..OWNER */
	char agent[PT_ID_SIZE]; /* PT_ROLE_AGENT */
	char key[PT_ID_SIZE];   /* key or token id */
	char name[64];          /* of the user or agent, for logs and reasons */
};
struct pt_call {
	struct pt_write_job job;
	struct pt_gateway *g;
	struct pt_http_req *req;
	const struct pt_api_route *route;
	struct pt_caller who;
	void *body;        /* decoded by route->shape, NULL when it has none */
	int status;        /* of the answer; preset to 200 */
	struct pt_buf out; /* the answer, JSON … */
	const char *content_type; /* … unless this says otherwise */
	bool of_request;          /* freed with the request, by an HTTP thread: what that made is no work for the writer */
	void *extra;       /* the handler's own … */
	void (*extra_free)(void *extra); /* … freed with the call; NULL = not */
};
struct pt_api_route {
	const char *method, *path;
	enum pt_role role;
	const char *summary;
	const struct pt_shape *shape;       /* of the body */
	bool body_optional;
	const char *const *query;           /* allowed query arguments, NULL-terminated; NULL = none */
	size_t body_max;                    /* 0 with a shape: 64 KiB */
	/* Exactly one of: */
	int (*read)(struct pt_call *c, struct pt_tx *tx, struct pt_err *err);  /* HTTP thread, read transaction */
	int (*write)(struct pt_call *c, struct pt_tx *tx, struct pt_err *err); /* writer thread; answered after the commit */
	/* With write: what can be done before, on the HTTP thread.  NULL = nothing. */
	int (*prepare)(struct pt_call *c, struct pt_err *err);
	void (*special)(struct pt_call *c); /* does everything itself, owns c */
	const struct pt_http_route *stream; /* begin/chunk/end/abort of a streaming route */
};
extern const struct pt_api_route pt_api_routes[];
extern const size_t pt_api_n_routes;
/* Compile the table for the HTTP server; caller frees. */
struct pt_http_route *pt_api_http_routes(void);
void pt_call_free(struct pt_call *c);
void pt_call_end(void *c); /* the same, for pt_http_set_data() of a call that is of_request */
void pt_call_reply(struct pt_call *c);                          /* sends status and out; c is gone */
void pt_call_fail(struct pt_call *c, const struct pt_err *err); /* sends the error; c is gone */
/* A body, or a part of it, is not what it has to be: say where that is written.  Gives rc back. */
int pt_undecoded(int rc, struct pt_err *err) PT_MUSTCHECK;
/* Who is it?  UNAUTHENTICATED or DENIED (role too low). */
int pt_authenticate(struct pt_gateway *g, struct pt_http_req *r, enum pt_role need, struct pt_caller *who, struct pt_err *err) PT_MUSTCHECK;
/* Refuse arguments that the route does not have. */
int pt_check_query(struct pt_http_req *r, const struct pt_api_route *route, struct pt_err *err) PT_MUSTCHECK;
/* Query argument as a number in [min, max]; def when absent. */
int pt_query_i64(struct pt_call *c, const char *name, int64_t min, int64_t max, int64_t def, int64_t *ret, struct pt_err *err) PT_MUSTCHECK;

/* --- handlers, by file --- */
#define PT_READ(name)  int pt_api_##name(struct pt_call *c, struct pt_tx *tx, struct pt_err *err)
#define PT_WRITE(name) PT_READ(name)
PT_READ(whoami);
PT_READ(metrics);
PT_WRITE(users_create);
PT_READ(users_list);
PT_WRITE(users_delete);
PT_WRITE(tokens_create);
PT_READ(tokens_list);
PT_WRITE(tokens_delete);
PT_WRITE(agents_create);
PT_READ(agents_list);
PT_READ(agents_get);
PT_WRITE(agents_enable);
PT_WRITE(agents_disable);
PT_WRITE(agents_delete);
PT_WRITE(keys_create);
PT_READ(keys_list);
PT_WRITE(keys_delete);
PT_WRITE(integrations_create);
PT_READ(integrations_list);
PT_READ(integrations_get);
PT_WRITE(integrations_delete);
int pt_api_operations_prepare(struct pt_call *c, struct pt_err *err);
void pt_api_operations_batch(struct pt_call *c);
PT_WRITE(operations_create);
PT_READ(operations_list);
PT_WRITE(operations_cancel);
PT_WRITE(operations_settle);
PT_READ(ping);
void pt_api_livez(struct pt_call *c);
void pt_api_readyz(struct pt_call *c);
void pt_api_openapi(struct pt_call *c);
void pt_api_operations_get(struct pt_call *c);
void pt_api_operations_result(struct pt_call *c);
void pt_api_exchange(struct pt_call *c);
void pt_api_logs_intake(struct pt_call *c);
void pt_api_logs_get(struct pt_call *c);
void pt_api_results(struct pt_call *c);
extern const struct pt_http_route pt_api_result_stream;
extern const struct pt_shape pt_user_new_shape, pt_token_new_shape, pt_agent_new_shape, pt_key_new_shape,
	pt_integration_new_shape, pt_cancel_new_shape, pt_settle_new_shape;

/* Find by id or name within the caller's account; NOT_FOUND names what was looked for. */
int pt_find_agent(struct pt_tx *tx, const char *account, const char *id_or_name, struct pt_rec_agent *ret, struct pt_err *err) PT_MUSTCHECK;
int pt_find_integration(struct pt_tx *tx, const char *account, const char *id_or_name, struct pt_rec_integration *ret,
			struct pt_err *err) PT_MUSTCHECK;
int pt_find_operation(struct pt_tx *tx, const char *account, const char *id, struct pt_rec_operation *ret,
		      struct pt_err *err) PT_MUSTCHECK;

/* --- views.c: records as JSON --- */
void pt_view_agent(struct pt_gateway *g, const struct pt_rec_agent *a, struct pt_buf *out);
int pt_view_integration(struct pt_tx *tx, const struct pt_rec_integration *i, struct pt_buf *out, struct pt_err *err) PT_MUSTCHECK;
/* full: with input, result and timeline. */
int pt_view_operation(struct pt_gateway *g, struct pt_tx *tx, const struct pt_rec_operation *op, bool full, struct pt_buf *out,
		      struct pt_err *err) PT_MUSTCHECK;

/* --- timeline.c: the events of an operation, as the text of one column --- */
struct pt_event {
	int64_t at, attempt;
	char event[32], instance[PT_ID_SIZE]; /* instance "" = none */
	const char *detail;                   /* a JSON string of n_detail bytes; NULL = none */
	size_t n_detail;
};
/* Append to an owned text (NULL = no events yet).  instance "", detail NULL = none. */
int pt_timeline_add(char **timeline, int64_t at, int64_t attempt, const char *event, const char *instance, const char *detail,
		    struct pt_err *err) PT_MUSTCHECK;
/* Read the event at *at (which starts as the timeline) and move on; false at the end. */
bool pt_timeline_next(const char **at, struct pt_event *ret);

/* --- lifecycle.c: every change of an operation, all on the writer's thread --- */
int pt_op_event(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, const char *event, const char *detail,
		struct pt_err *err) PT_MUSTCHECK; /* op must be updated by the caller afterwards */
/* Move op to a state that is not leased or running; writes op and the event named like the state. */
int pt_op_finish(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, enum pt_op_state state, const struct pt_err *why,
		 struct pt_err *err) PT_MUSTCHECK;
/* With its input (JSON text). */
int pt_op_insert(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, const char *input,
		 struct pt_err *err) PT_MUSTCHECK;
int pt_op_lease(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, const char *instance, struct pt_err *err) PT_MUSTCHECK;
int pt_op_started(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, int64_t at, struct pt_err *err) PT_MUSTCHECK;
/* The same on op alone, which the caller writes. */
int pt_op_note_started(struct pt_gateway *g, struct pt_rec_operation *op, int64_t at, struct pt_err *err) PT_MUSTCHECK;
/* The operation that a lease row belongs to.  1: it does not any more (compared by attempt, instance and state); such a row is removed. */
int pt_op_of_lease(struct pt_tx *tx, const struct pt_rec_lease *l, struct pt_rec_operation *ret, struct pt_err *err) PT_MUSTCHECK;
/* The attempt's result is an error: when the retry policy says so, queue it again (*ret_again); else nothing has changed. */
int pt_op_attempt_failed(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, const struct pt_result_head *head,
			 bool *ret_again, struct pt_err *err) PT_MUSTCHECK;
/* The attempt takes longer than it may: ask the instance to stop.  l is written by the caller. */
int pt_op_overrun(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, struct pt_rec_lease *l,
		  struct pt_err *err) PT_MUSTCHECK;
/* The attempt is over without a result: queue again, or end it. */
int pt_op_give_back(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, bool lost, const char *detail,
		    struct pt_err *err) PT_MUSTCHECK;
int pt_op_cancel(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, const char *by, struct pt_err *err) PT_MUSTCHECK;
/* Deadlines, lost leases, parked operations, retention: the writer's tick. */
int pt_reap(void *gateway, struct pt_tx *tx, struct pt_err *err);
/* Give every lease a full period from now, since the gateway and not the agents was away: at start (the reaper does it when it was held up). */
int pt_lease_grace(struct pt_gateway *g, struct pt_err *err) PT_MUSTCHECK;

/* --- dead_letters.c: terminal operations that need a person --- */
static inline bool pt_op_needs_person(enum pt_op_state s)
{
	return s == PT_OP_FAILED || s == PT_OP_EXPIRED || s == PT_OP_UNKNOWN;
}
/* A person has decided what becomes of one; its state stays.  s (which borrows its texts) has decision, note, by and by_name, its rest is
 * filled here.  With "rerun" a new operation with the same fields is made.  The same decision and note once more change nothing.
 * CONFLICT: another one was taken, op is no dead letter, or what it needs was deleted. */
int pt_dead_letter_settle(struct pt_gateway *g, struct pt_tx *tx, struct pt_rec_operation *op, struct pt_rec_settlement *s,
			  struct pt_err *err) PT_MUSTCHECK;
int pt_dead_letter_add(struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_err *err) PT_MUSTCHECK;
/* The operation goes: so does its row, or what was decided. */
int pt_dead_letter_forget(struct pt_tx *tx, const struct pt_rec_operation *op, struct pt_err *err) PT_MUSTCHECK;

/* --- retry.c: the retry policy of one operation --- */
/* After what; wants `lost`, or the error that a result brought.  at-most-once: never. */
struct pt_retry_cause {
	bool lost;
	const struct pt_error_doc *error;
};
/* Attempts that count: those given back do not. */
int64_t pt_retry_tries(const struct pt_rec_operation *op);
/* *ret_pause: how long to wait before the next attempt; -1: there is none. */
int pt_retry_next(struct pt_gateway *g, const struct pt_rec_operation *op, const struct pt_retry_cause *cause, int64_t *ret_pause,
		  struct pt_err *err) PT_MUSTCHECK;
/* The policy as it counts: defaults filled in, with the operation's max_attempts.  Caller releases with pt_retry_shape. */
int pt_retry_of(const struct pt_rec_operation *op, struct pt_retry *ret, struct pt_err *err) PT_MUSTCHECK;

/* --- presence.c: connected instances and their waiting exchanges --- */
struct pt_exchange; /* one exchange request, see dispatch.c */
/* How many connected instances have the version; at most n rows, the rest in the last as "other".  Returns the number of rows. */
struct pt_version_count {
	char version[40];
	unsigned instances;
};
size_t pt_presence_versions(struct pt_gateway *g, struct pt_version_count *ret, size_t n);
struct pt_presence_info {
	unsigned instances;      /* of the agent, connected now */
	int64_t slots, held;     /* sums over them; held as they last said */
	int64_t last_seen;
};
int pt_presence_new(struct pt_gateway *g, struct pt_err *err) PT_MUSTCHECK;
void pt_presence_free(struct pt_gateway *g);
void pt_presence_of(struct pt_gateway *g, const char *agent, struct pt_presence_info *ret);
/* Does a connected instance of the agent that takes work run this type? */
bool pt_presence_runs(struct pt_gateway *g, const char *agent, const char *type);
void pt_presence_view(struct pt_gateway *g, const char *agent, struct pt_buf *out); /* JSON array of instances */
bool pt_presence_progress(struct pt_gateway *g, const char *instance, const char *operation, int64_t *ret_rows, int64_t *ret_bytes);
/* Its result is here: what is shown of the instance need not wait for its next exchange. */
void pt_presence_ended(struct pt_gateway *g, const char *instance, const char *operation, int64_t attempt);
/* An operation of this agent became ready: dispatch at the end of the group. */
void pt_presence_dirty(struct pt_gateway *g, const char *agent);
/* Something to tell to this instance / to every instance of the agent: answer its exchange. */
void pt_presence_poke_instance(struct pt_gateway *g, const char *instance);
void pt_presence_poke_agent(struct pt_gateway *g, const char *agent);
void pt_presence_drain(struct pt_gateway *g); /* answer every waiting exchange */
unsigned pt_presence_count(struct pt_gateway *g);

/* --- dispatch.c --- */
int pt_dispatch(void *gateway, struct pt_tx *tx, struct pt_err *err); /* writer's before_commit: match ready operations with waiting exchanges */
void pt_dispatch_committed(void *gateway, bool committed);            /* answer those exchanges */
/* Lease up to n operations of the agent to an instance; appends to leases (of struct pt_lease).  *bytes counts their inputs, and
 * ends it before an answer becomes too large: what is left is leased by the next one. */
int pt_lease_some(struct pt_gateway *g, struct pt_tx *tx, const char *agent, const char *instance, const struct pt_list *types,
		  int64_t n, struct pt_list *leases, size_t *bytes, struct pt_err *err) PT_MUSTCHECK;
/* Slots the agent's instance has free now (0 when it is not known or draining), from the leases in the database. */
int pt_free_slots(struct pt_gateway *g, struct pt_tx *tx, const char *agent, const char *instance, int64_t *ret_free,
		  struct pt_err *err) PT_MUSTCHECK;

/* --- delivery.c --- */
struct pt_delivery {                   /* a result as it came */
	const char *agent, *operation; /* who delivers it, and to what */
	int64_t attempt;
	const struct pt_result_head *head;
	const char *head_text;
	struct pt_bytes body; /* small … */
	const char *blob;     /* … or the name of the file that holds it */
	/* what became of it */
	bool duplicate;        /* it was here already: the blob has no row */
	bool again;            /* the attempt failed and is tried again: nor has it then */
	struct pt_err refused; /* STALE: kept as an event only, to be committed and answered as an error */
};
/* Store it and end its operation.  NOT_FOUND: not an operation of this agent. */
int pt_deliver(struct pt_gateway *g, struct pt_tx *tx, struct pt_delivery *d, struct pt_err *err) PT_MUSTCHECK;
/* After that: append leases for the slots that the instance has free now, for the answer.  When it is gone (its result waited in the
 * spool of the next process) or the gateway stops, others may have room, and dispatch sees to it. */
int pt_refill(struct pt_gateway *g, struct pt_tx *tx, const char *of_agent, const char *instance, struct pt_list *leases,
	      struct pt_err *err) PT_MUSTCHECK;
/* api_result.c: what no single member of a head can tell. */
int pt_check_head(const struct pt_result_head *head, struct pt_err *err) PT_MUSTCHECK;

/* --- waiters.c: clients that wait for an operation's end --- */
int pt_waiters_new(struct pt_gateway *g, struct pt_err *err) PT_MUSTCHECK;
void pt_waiters_drain(struct pt_gateway *g); /* answer all that wait, and from now on everybody at once; ends the thread */
void pt_waiters_free(struct pt_gateway *g);  /* after the drain; NULL is fine */
void pt_wait_for(struct pt_call *c, const char *operation, int64_t ms); /* holds c; answered by the notifier */
void pt_wait_wake(struct pt_gateway *g, const char *operation);         /* writer: it has ended; takes effect after the commit */
void pt_wait_flush(struct pt_gateway *g, bool committed);
void pt_answer_operation(struct pt_call *c, const char *operation);     /* reads and replies; owns c */

/* --- logs.c, logs_read.c: log lines of agents (gateway/logs.h) --- */
int pt_logs_start(struct pt_gateway *g, const char *database, struct pt_err *err) PT_MUSTCHECK; /* beside the main database */
void pt_logs_drain(struct pt_gateway *g); /* answer all that wait, and from now on everybody at once */
void pt_logs_free(struct pt_gateway *g);  /* nobody is inside any more; stores what came; fine after a start that failed */
struct pt_logs_stats {
	uint64_t lines, duplicates, ignored, expired; /* expired: chunks */
};
void pt_logs_stats(struct pt_gateway *g, struct pt_logs_stats *ret);

/* --- blobs.c: bodies of large results --- */
struct pt_blob_writer;
/* UNAVAILABLE while commits fail, and many bodies wait for one. */
int pt_blob_begin(struct pt_gateway *g, struct pt_blob_writer **ret, struct pt_err *err) PT_MUSTCHECK;
int pt_blob_write(struct pt_blob_writer *w, const void *p, size_t n, struct pt_err *err) PT_MUSTCHECK;
/* fsync and give its name (caller frees).  It is durable, and an orphan until a result row names it. */
int pt_blob_commit(struct pt_blob_writer *w, char **ret_name, struct pt_err *err) PT_MUSTCHECK;
void pt_blob_abort(struct pt_blob_writer *w); /* also frees after a commit; NULL is fine */
int pt_blob_open(struct pt_gateway *g, const char *name, int *ret_fd, struct pt_err *err) PT_MUSTCHECK;
void pt_blob_remove(struct pt_gateway *g, const char *name);
/* On the writer's thread.  The commit of the row that names this blob failed: it may be on the disk all the same, and count after a
 * crash, until another commit has taken its place. */
void pt_blob_unsure(struct pt_gateway *g, const char *name);
void pt_blobs_sure(struct pt_gateway *g); /* after each commit: when that has happened, remove them */
/* At start: remove files that no result names.  CONFLICT when the folder is another database's. */
int pt_blob_sweep(struct pt_gateway *g, struct pt_err *err) PT_MUSTCHECK;
/* Write into the folder whose it is, unless that stands there.  After the first account was made. */
int pt_blob_claim(struct pt_gateway *g, struct pt_err *err) PT_MUSTCHECK;

/* --- verify.c: is a body what its head says (size, SHA-256, whole zstd frames)? --- */
struct pt_verify;
struct ZSTD_DCtx_s;
int pt_verify_begin(const struct pt_result_head *head, struct pt_verify **ret, struct pt_err *err) PT_MUSTCHECK; /* head outlives it */
int pt_verify_update(struct pt_verify *v, const void *p, size_t n, struct pt_err *err) PT_MUSTCHECK;
int pt_verify_end(struct pt_verify *v, struct pt_err *err) PT_MUSTCHECK;
void pt_verify_free(struct pt_verify *v); /* NULL is fine */
int pt_zstd_reader(struct ZSTD_DCtx_s **ret, struct pt_err *err) PT_MUSTCHECK; /* caller: ZSTD_freeDStream() */
#endif
