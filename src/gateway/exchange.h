/* One exchange request of an agent instance, from its arrival to its answer.
 *
 * Owner: the HTTP thread until it is submitted; the writer's thread while in_writer is set; then, when there is nothing to tell yet, the
 * presence table (parked) until somebody takes it to answer it.  While in_writer is set only the writer's thread may end it. */
#ifndef PT_GATEWAY_EXCHANGE_H
#define PT_GATEWAY_EXCHANGE_H
#include "gateway/internal.h"

struct pt_types; /* the operation types that an instance can run: one list for all that say the same */

struct pt_exchange {
	struct pt_call *c;               /* the request and its caller; c->job is the writer's job */
	struct pt_exchange_request *q;   /* = c->body; its types are gone after pt_presence_seen() */
	struct pt_types *types;          /* here they are then */
	struct pt_exchange_response a;
	size_t lease_bytes;     /* of the inputs in a.leases */
	bool urgent;            /* a has something that the instance does not know yet */
	uint64_t serial;        /* order of arrival */
	struct pt_watch *watch; /* is its client still there?  NULL = not known; lives as long as the request */
	int64_t until;      /* answer at the latest */
	int64_t recheck_at; /* look again for what was not acknowledged; 0 = no need */
	bool in_writer;     /* this and the next two: under the presence lock */
	bool parked, again; /* waiting in the presence table; look again when the writer is done with it */
	bool borrowed;      /* in_writer was set for the dispatch only, not for a job of x */
	bool chosen;        /* writer's thread only: dispatch has leased something to it in this group */
	int64_t tick;       /* while parked: its bucket of the wheel (presence_wheel.c) */
	struct pt_exchange *prev, *next; /* in its bucket, or in the list of the chosen ones */
};

/* The instance said something: remember it.  An older exchange of the same instance is answered.  0, with *ret_tell = the instance is
 * new or its agent's enabled flag has changed; 1 when x itself is an older one, whose news are none; CONFLICT. */
int pt_presence_seen(struct pt_gateway *g, struct pt_exchange *x, bool enabled, bool *ret_tell, struct pt_err *err) PT_MUSTCHECK;
/* Shall the instance be told at once of an attempt that it holds?  Not when it was told within PT_REDELIVER_MS: it needs time to stop,
 * and an exchange that is answered at once for so long would spin.  *ret_again: when to tell it again. */
bool pt_presence_tell(struct pt_gateway *g, const char *instance, const char *operation, int64_t attempt, int64_t *ret_again);
const struct pt_list *pt_types_list(const struct pt_types *t); /* of char * */
/* Before x is freed. */
void pt_presence_release(struct pt_gateway *g, struct pt_exchange *x);
void pt_presence_leave(struct pt_gateway *g, const char *instance);
void pt_presence_park(struct pt_gateway *g, struct pt_exchange *x);
/* The writer is done with x.  False: x stays parked, or was submitted again; true: the caller ends it. */
bool pt_presence_settle(struct pt_gateway *g, struct pt_exchange *x);
/* Call fn for each agent with new work, with some of its parked exchanges; again with others while it returns 1 (there may be more
 * work).  0: done, the agent is no longer dirty.  fn unparks those it chooses.  Stops at < 0; the agent stays dirty then. */
int pt_presence_each_dirty(struct pt_gateway *g, int (*fn)(void *arg, const char *agent, struct pt_exchange *const *xs, size_t n), void *arg);
void pt_presence_unpark(struct pt_gateway *g, struct pt_exchange *x);
/* Has the client of the exchange left? */
bool pt_presence_left(struct pt_gateway *g, const struct pt_exchange *x);
/* Slots as last said; 0 when the agent has no such instance or it is draining. */
int64_t pt_presence_slots(struct pt_gateway *g, const char *agent, const char *instance);
/* Is it an instance of the agent that is connected now?  Then *ret_types are the types it runs (of char *, the caller's). */
bool pt_presence_takes(struct pt_gateway *g, const char *agent, const char *instance, struct pt_list *ret_types);

/* Writer's thread: take in what it says, fill x->a; parks it when there is nothing to tell.  CONFLICT, UNAUTHENTICATED. */
int pt_exchange_run(struct pt_exchange *x, struct pt_tx *tx, struct pt_err *err) PT_MUSTCHECK;
void pt_exchange_submit(struct pt_exchange *x); /* (again) to the writer; in_writer is set by the caller */
void pt_exchange_answer(struct pt_exchange *x, const struct pt_err *err); /* x->a, or the error; frees x */
void pt_exchange_watch(
	struct pt_exchange *x); /* hold the request, notice a client that leaves; the request's body is gone then */
/* UNAVAILABLE, with Retry-After, when it came on a connection that the server has no room for. */
int pt_exchange_room(const struct pt_call *c, struct pt_err *err) PT_MUSTCHECK;
/* How long to hold one that may wait for ms: long waits end up to an eighth earlier, at random, so that instances that connected
 * together (after a restart) do not come back together for ever. */
int64_t pt_exchange_wait_ms(int64_t ms);
#endif
