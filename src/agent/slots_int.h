/* An attempt, as slots.c (the table of attempts) and slots_run.c (the thread that runs one) see it.  Internal to these two. */
#ifndef PT_AGENT_SLOTS_INT_H
#define PT_AGENT_SLOTS_INT_H
#include "agent/agent_int.h"

struct attempt_key {
	char operation[PT_ID_SIZE];
	int64_t attempt;
};
_Static_assert(sizeof(struct attempt_key) == PT_ID_SIZE + 8, "hashed as bytes: no padding");

struct pt_attempt {
	struct attempt_key key;
	struct pt_agent *agent;
	struct pt_lease lease;
	struct pt_cancel cancel;
	int64_t deadline_ms; /* the operation's, pt_mono_ms() */
	enum pt_attempt_state state;
	_Atomic bool cancelled;  /* the gateway asked for it */
	bool dropped, give_back; /* no longer ours; our own stop wants it back at the gateway */
	int64_t started_at;      /* wall */
	_Atomic int64_t rows, bytes;
	UT_hash_handle hh;
};

/* Run the attempt, which is in state running, and store its result.  Blocks as long as both take; the calling executor thread owns
 * lease and result meanwhile, the rest of the attempt is guarded by slots.lock.  True: the attempt is done with, false: it is to be given back. */
bool pt_attempt_run(struct pt_attempt *a);
#endif
