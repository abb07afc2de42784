/* What the three peers' load programs share: the same work that bench_load gives to a gateway, as a queue knows it.
 *
 *   peer_NAME PORT MESSAGES CONNECTIONS WINDOW PAYLOAD
 *
 * CONNECTIONS publishers, each with a connection and at most WINDOW messages that the server has not confirmed as durable, send PAYLOAD
 * bytes each; one consumer with a prefetch of PREFETCH (32 instances with 8 slots) acknowledges each message by itself.  Prints one
 * JSON object with the names that bench_load uses: accepted = publish to confirm, started = publish to delivery. */
#ifndef PT_BENCH_PEER_H
#define PT_BENCH_PEER_H
#include "base/clock.h"
#include <pthread.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { PREFETCH = 256, SEQ_DIGITS = 16 };

struct peer {
	int port;
	size_t total, connections, window, payload;
	int64_t *sent, *accepted, *started; /* nanoseconds, by number; 0 = not yet */
	size_t consumed;                    /* the consumer's */
};
struct publisher { /* one thread's */
	struct peer *p;
	size_t next, end; /* the numbers of its messages */
	char *body;
};
struct peer_calls {
	void (*prepare)(struct peer *p); /* runs first; may be NULL */
	void (*publish)(struct publisher *w); /* returns when all its messages are confirmed */
	void (*consume)(struct peer *p);      /* returns when all messages are acknowledged */
};

_Noreturn void peer_die(const char *what, const char *why);
int peer_main(int argc, char **argv, const struct peer_calls *calls);
const char *peer_next(struct publisher *w); /* the body of its next message, the time noted; until the next call */
void peer_confirmed(struct peer *p, size_t seq);
size_t peer_seq(const struct peer *p, const char *body, size_t n); /* the number in a body that came back */
void peer_delivered(struct peer *p, const char *body, size_t n);   /* notes the time; call before the acknowledgement */
#endif
