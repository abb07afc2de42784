/* Inside the agent: the parts and what they say to each other.  Calls go link, publisher -> slots -> spool; a lock is never
 * held while another part is called, except that slots may look into the spool. */
#ifndef PT_AGENT_AGENT_INT_H
#define PT_AGENT_AGENT_INT_H
#include "agent/agent.h"
#include "agent/keys.h"
#include "agent/spool.h"
#include "agent/stop.h"
#include "base/metric.h"
#include "exec/executor.h"
#include "net/backoff.h"
#include "net/http_client.h"
#include "op/op.h"
#include "os/cond.h"
#include <pthread.h>
#include <stdatomic.h>
#include <uthash.h>

struct pt_agent;

/* A loop's promise to come round by a certain time; a loop that does not is stuck, and liveness says so. */
struct pt_beat {
	_Atomic int64_t due; /* pt_mono_ms() */
};
void pt_beat_within(struct pt_beat *b, int64_t ms);
void pt_beat_tick(void *beat); /* a call under way moves: pt_http_call.tick */
enum { PT_BEAT_MS = 15000 }; /* how long a loop may take from one sign of life to the next */

/* --- slots.c: the attempts that this process has --- */
enum { PT_LEDGER = 8192 };
enum pt_attempt_state {
	PT_ATTEMPT_WAITING,  /* leased, its thread has not begun */
	PT_ATTEMPT_RUNNING,
	PT_ATTEMPT_STORING,  /* done, its result is on the way into the spool */
	PT_ATTEMPT_RELEASED, /* given back; stays until the gateway has been told */
};
struct pt_slots {
	pthread_mutex_t lock;
	pthread_cond_t changed; /* an attempt ended or was released (monotonic clock) */
	struct pt_executor *exec;
	struct pt_attempt *table;
	unsigned slots, busy;   /* busy: attempts that are not RELEASED */
	bool draining, abort;
	int64_t server_at, heard_at; /* the gateway's wall clock when it was last heard, and our pt_mono_ms() then; 0 = never */
	uint64_t ledger[PT_LEDGER]; /* hashes of the newest attempts that ended here */
	unsigned ledger_at;
};
int pt_slots_open(struct pt_agent *a, struct pt_err *err) PT_MUSTCHECK;
void pt_slots_close(struct pt_agent *a); /* after the executor's threads ended, or were given up */
/* Run a lease, unless the attempt is or was here.  Takes what the lease owns and zeroes it. */
void pt_slots_lease(struct pt_agent *a, struct pt_lease *lease);
/* Both say whether that was news. */
bool pt_slots_cancel(struct pt_agent *a, const struct pt_attempt_ref *ref);
bool pt_slots_drop(struct pt_agent *a, const struct pt_attempt_ref *ref);
/* Fill holding (struct pt_holding) and released (struct pt_attempt_ref) for an exchange; *ret_slots is what to tell as slots,
 * *ret_fresh whether a listed one has not begun.  goodbye: what runs ends with this process, and is given back by not being listed.
 * An at-most-once attempt that was started and has no result in the spool is given back in both lists. */
int pt_slots_report(struct pt_agent *a, bool goodbye, struct pt_list *holding, struct pt_list *released, int64_t *ret_slots,
		    bool *ret_fresh, struct pt_err *err) PT_MUSTCHECK;
void pt_slots_told(struct pt_agent *a, const struct pt_list *released); /* the gateway knows: forget them */
void pt_slots_clock(struct pt_agent *a, int64_t server_time);
void pt_slots_drain(struct pt_agent *a);  /* take nothing more, give back what has not begun */
/* Cancel what runs and give it back.  An at-most-once operation that was started ends as its result instead: given back, nobody
 * would start it again. */
void pt_slots_cancel_all(struct pt_agent *a);
/* Wait until no result is on its way into the spool, or until_ms (mono). */
void pt_slots_settle(struct pt_agent *a, int64_t until_ms);
void pt_slots_abort(struct pt_agent *a);  /* stop trying to store results */
/* Wait until nothing is busy, the agent's stop level passes level, or until_ms (mono).  True: nothing is busy. */
bool pt_slots_wait(struct pt_agent *a, int level, int64_t until_ms);
unsigned pt_slots_busy(struct pt_agent *a);
unsigned pt_slots_running(struct pt_agent *a);
bool pt_slots_stuck(struct pt_agent *a); /* an attempt runs long after its time limit */

/* --- link.c: the exchange --- */
enum pt_link_state { PT_LINK_CONNECTING, PT_LINK_UP, PT_LINK_DOWN, PT_LINK_REFUSED };
struct pt_link {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;      /* interrupts the pause between tries (monotonic clock) */
	struct pt_cancel *call;   /* of the exchange under way, NULL = none */
	unsigned key_generation;  /* of the newest exchange; this and the next: the link's thread only */
	int64_t key_look_at;      /* when to look again for another one (mono) */
	bool nudged;              /* end the exchange under way and begin another */
	int phase;                /* 0 normal, 1 draining, 2 say goodbye and end, 3 end */
	/* Under the lock, for readiness and health: */
	enum pt_link_state state; /* written by the link's thread only */
	unsigned ups;             /* how often it came up */
	bool enabled, told_enabled, drain;
	struct pt_err last_err;
	int64_t since_ms, last_ok_ms, skew_ms; /* wall */
	int64_t cert_expires;                  /* of the gateway's certificate, wall seconds; 0 = no TLS */
	char agent[64], agent_name[128];
	struct pt_beat beat;
};
void pt_link_init(struct pt_agent *a);
int pt_link_start(struct pt_agent *a, struct pt_err *err) PT_MUSTCHECK;
void pt_link_nudge(struct pt_agent *a);            /* something urgent to tell */
void pt_link_phase(struct pt_agent *a, int phase); /* only upwards */
void pt_link_join(struct pt_agent *a);
/* One request to the gateway: c at path ("/agent/v1/ping") with today's key.  Blocks; any thread.  Errors: pt_http_do()'s.  Afterwards c has
 * the answer, and points to nothing of the request any more. */
int pt_link_do(struct pt_agent *a, struct pt_http_client *client, const char *path, struct pt_http_call *c,
	       struct pt_err *err) PT_MUSTCHECK;

/* --- publisher.c: results to the gateway --- */
struct pt_publisher {
	struct pt_agent *agent;
	pthread_t thread;
	struct pt_beat beat;
	struct pt_http_call *call;                  /* under way; of its thread … */
	bool kept;                                  /* … by a connection that may be there since before the stop */
	bool answered;                              /* in the last part of a stop: its connection is alive */
	int64_t to_sync; /* bytes of a body that has gone whole: the gateway syncs them before it answers */
	struct pt_spool_entry many[PT_RESULTS_MAX]; /* under way together */
};
int pt_publishers_init(struct pt_agent *a, struct pt_err *err) PT_MUSTCHECK;
int pt_publishers_start(struct pt_agent *a, struct pt_err *err) PT_MUSTCHECK;
void pt_publishers_join(struct pt_agent *a); /* ends their calls; what is not delivered stays in the spool */

/* --- deliver.c --- */
/* Is this error of an answer a refusal for good?  It must be one of `final`, with the status that belongs to it: the 404 of an ingress
 * whose backend is away, a proxy's 400 or a login page must not cost a result. */
bool pt_deliver_refused(int64_t status, const json_t *error, const enum pt_code *final, size_t n);
unsigned pt_deliver_ups(struct pt_agent *a); /* how often the link came up */
/* What ends a pause, as it is before the call that may make one necessary. */
struct pt_pause {
	const struct pt_cancel *stop;
	const _Atomic bool *draining;
	bool was_draining;
	unsigned ups;
};
struct pt_pause pt_deliver_pause(struct pt_agent *a, const struct pt_cancel *stop, const _Atomic bool *draining);
/* Pause.  It ends early when stop is fired, when draining has changed, and (by_link) when the link has come up, also when that was
 * before; whoever fires stop or changes draining wakes link.wake. */
void pt_deliver_wait(struct pt_agent *a, const struct pt_pause *p, int64_t ms, bool by_link);

/* --- agent.c --- */
/* The keys that are used for what ("spool", "outbox"), from those of the token file. */
int pt_agent_ring(struct pt_agent *a, const char *use, struct pt_seal_ring *ret, struct pt_err *err) PT_MUSTCHECK;

/* --- outbox_ship.c: log lines to the gateway (--ship-logs) --- */
struct pt_ship;
int pt_ship_start(struct pt_agent *a, struct pt_err *err) PT_MUSTCHECK; /* opens the outbox; from here on lines go there */
void pt_ship_drain(struct pt_agent *a, int64_t most_ms);                /* deliver what waits, or give up after one try */
void pt_ship_stop(struct pt_agent *a);                                  /* what is not delivered stays on disk */
void pt_ship_rekey(struct pt_agent *a);                                 /* the agent's keys have changed */
/* False: none leave.  retries: deliveries of lines that must be tried again. */
struct pt_outbox_stats;
bool pt_ship_stats(struct pt_agent *a, struct pt_outbox_stats *ret, int64_t *ret_refused, int64_t *ret_retries);

/* --- local.c, report.c, metrics.c: what the agent says about itself --- */
struct pt_local;
int pt_local_start(struct pt_agent *a, struct pt_err *err) PT_MUSTCHECK;
void pt_local_stop(struct pt_agent *a);
unsigned pt_local_port(const struct pt_local *l);
unsigned pt_local_active(const struct pt_local *l);
/* NULL when all loops move, else what does not. */
const char *pt_agent_stuck(struct pt_agent *a);
/* Fill err with why the agent cannot take work now; 0 when it can. */
int pt_agent_ready(struct pt_agent *a, struct pt_err *err) PT_MUSTCHECK;
void pt_report_health(void *agent, struct pt_buf *json);
/* A copy of what the link knows, taken under its lock. */
struct pt_link_view {
	enum pt_link_state state;
	bool enabled, told_enabled, drain;
	unsigned ups;
	struct pt_err err;
	int64_t since_ms, last_ok_ms, skew_ms, cert_expires;
	char agent[64], agent_name[128];
};
void pt_link_look(struct pt_agent *a, struct pt_link_view *ret);
void pt_report_metrics(void *agent, struct pt_buf *text);
/* A result was stored, the attempt ran so long. */
void pt_count_result(struct pt_agent *a, const char *type, const char *status, int64_t ms);

enum { PT_RESULT_STATUSES = 4 };
extern const char *const pt_result_statuses[PT_RESULT_STATUSES];
struct pt_agent_counts {
	_Atomic int64_t exchanges, exchange_failures, leases, published, refused, retries;
	struct {
		_Atomic int64_t results[PT_RESULT_STATUSES];
		struct pt_histogram seconds;
	} types[PT_OP_TYPES_MAX + 1]; /* by pt_op_index() */
};

struct pt_agent {
	const struct pt_agent_conf *conf;
	struct pt_stop_plan plan;
	char instance[PT_ID_SIZE], hostname[256];
	char *base_url; /* the gateway's, without a slash at the end */
	int64_t started_at, started_mono; /* wall ms, for people; pt_mono_ms() */
	struct pt_http_client_conf http;
	struct pt_credential_conf credential;
	struct pt_agent_view view;
	struct pt_keys keys;
	struct pt_spool *spool;
	struct pt_slots slots;
	struct pt_link link;
	struct pt_publisher *publishers;
	unsigned n_publishers;         /* that were started */
	struct pt_cancel publish_stop; /* ends the publishers and their calls */
	_Atomic unsigned put_only;     /* 1 + link.ups of the time when the gateway knew no POST of many results, 0 = never */
	struct pt_ship *ship;          /* NULL = no log lines leave */
	struct pt_local *local;
	struct pt_agent_counts counts;

	pthread_mutex_t lock;
	pthread_cond_t changed; /* stop level or drain order */
	_Atomic int stop;       /* how often pt_agent_stop() was called */
	bool drain_ordered, link_started;
	bool abandoned; /* an operation's thread does not end: nothing that it may touch is freed */
	_Atomic bool draining;
	_Atomic bool delivering; /* the last part of a drain: nothing runs any more, results go */
};
void pt_agent_order_drain(struct pt_agent *a); /* the gateway wants us to go */
/* Small stack.  name: for ps, top and debuggers, at most 15 bytes. */
int pt_agent_thread(pthread_t *ret, const char *name, void *(*fn)(void *), void *arg, struct pt_err *err) PT_MUSTCHECK;
#endif
