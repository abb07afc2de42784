/* What the presence table's files share: presence.c (instances, parking, dispatch's questions), presence_wheel.c (parked exchanges by
 * time), presence_types.c (what instances can run), presence_notify.c (clients that leave, exchanges whose time is over, start and end) and presence_view.c (for people).
 * Everything here is under the presence lock. */
#ifndef PT_GATEWAY_PRESENCE_INT_H
#define PT_GATEWAY_PRESENCE_INT_H
#include "gateway/exchange.h"
#include <pthread.h>
#include <uthash.h>
#include <utlist.h>

enum {
	PT_TICK_MS = 100, /* how late an exchange is answered whose time is over */
	PT_WHEEL = 512,   /* ticks of one turn: longer than the longest wait */
};

struct instance {
	char id[PT_ID_SIZE], agent[PT_ID_SIZE];
	char version[40], hostname[80];
	int64_t slots, connected_at, last_seen;
	bool draining;
	int told; /* enabled flag as last told to the instance; -1 = nothing yet */
	uint64_t serial;        /* of its newest exchange */
	uint64_t round;         /* of the dispatch that looked at it last */
	struct pt_list holding; /* of struct held, as last said */
	struct pt_types *types; /* NULL until its first exchange is taken in */
	struct pt_exchange *waiting;
	struct instance *prev, *next; /* in one of its agent's lists */
	UT_hash_handle hh;
};
struct held {
	char operation[PT_ID_SIZE];
	int64_t attempt, rows, bytes;
	int64_t told_at; /* when it was told to stop or drop it, 0 = not */
};
struct agent {
	char id[PT_ID_SIZE];
	struct instance *waiting; /* instances with a parked exchange, those first that dispatch looks at next */
	struct instance *others;  /* the rest */
	int n_instances;
	bool dirty;
	struct agent *next_dirty;
	UT_hash_handle hh;
};
struct pt_presence {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t notifier;
	bool stop;
	uint64_t serial;
	uint64_t round; /* from 1; counts the agents that dispatch has looked at */
	struct instance *instances;
	struct agent *agents;
	struct agent *dirty;
	struct pt_types *types;
	struct pt_exchange *wheel[PT_WHEEL]; /* the parked exchanges */
	int64_t ticked;                      /* the last tick whose bucket was looked at */
	size_t n_parked;
};

/* Owned by the HTTP request: lives until the request ends, so a late gone() finds it, and longer than its exchange. */
struct pt_watch {
	struct pt_gateway *g;
	char instance[PT_ID_SIZE];
	bool left; /* under the presence lock */
};

void pt_presence_lock(struct pt_gateway *g);
void pt_presence_unlock(struct pt_gateway *g);
/* NULL when there is none; make: added when it is missing (NULL: no memory). */
struct instance *pt_presence_instance(struct pt_presence *p, const char *id);
struct agent *pt_presence_agent(struct pt_presence *p, const char *id, bool make);
struct held *pt_presence_held(const struct pt_list *holding, const char *operation, int64_t attempt);
bool pt_presence_connected(const struct instance *i, int64_t now);
void pt_presence_forget(struct pt_presence *p, struct instance *i);
/* x is nobody's after this: the caller ends it, or runs it again. */
void pt_presence_unpark_locked(struct pt_gateway *g, struct pt_exchange *x);
struct pt_exchange *pt_presence_take_locked(struct pt_gateway *g, struct pt_exchange *x);
/* The list, kept once; NULL: no memory. */
struct pt_types *pt_types_ref(struct pt_presence *p, const struct pt_list *list);
void pt_types_unref(struct pt_presence *p, struct pt_types *t); /* NULL is fine */
void pt_wheel_add(struct pt_presence *p, struct pt_exchange *x);
void pt_wheel_remove(struct pt_presence *p, struct pt_exchange *x);
/* Unpark those whose time is over, or who are to be looked at again, and append them to the lists; not those that the writer has. */
void pt_wheel_turn(struct pt_gateway *g, int64_t now, struct pt_exchange **ret_over, struct pt_exchange **ret_recheck);
void pt_wheel_empty(struct pt_gateway *g, struct pt_exchange **ret_all); /* all, but not those that the writer has */
/* Hand x (NULL is fine) to the writer again.  Without the lock. */
void pt_exchange_run_again(struct pt_exchange *x);
#endif
