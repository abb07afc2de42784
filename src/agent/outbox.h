/* The log outbox: log lines on disk from the moment they are flushed until the gateway has acknowledged them.
 *
 * A segment log (seglog.h), sealed as the spool is; a segment has lines of one process (instance), a record those of one flush.  Lines are
 * numbered from 1 in each process and leave in that order, so the gateway knows a repetition by (instance, number).  Acknowledged segments
 * are removed; what was acknowledged in a segment that is still there is shipped again after a restart.
 *
 * Bounded: when it is full the oldest segment gives way to a note, one line "log lines dropped" with their number, that keeps their place.
 * Segments that no key opens wait for theirs, and are the first to go.
 * Lines wait in memory for the next flush (PT_OUTBOX_FLUSH_MS): that much a kill -9 may take.  Thread-safe: any thread adds, one flushes,
 * one ships. */
#ifndef PT_AGENT_OUTBOX_H
#define PT_AGENT_OUTBOX_H
#include "agent/seal.h"
#include "base/log.h"
#include "base/shape.h"

enum { PT_OUTBOX_FLUSH_MS = 250 };

struct pt_outbox;
struct pt_outbox_stats {
	int64_t lines, waiting;          /* not acknowledged: on disk; and those that are not durable yet */
	int64_t bytes, max_bytes;        /* of files */
	int64_t added, shipped, dropped; /* lines since open */
	int64_t damaged;                 /* records found damaged since open: what follows in their segment may be lost */
	int64_t sealed, sealed_dropped;  /* segments that no key opens; those of them that went, since open */
	int64_t syncs;
};

/* dir is made when it is not there.  ring: keys for the use "outbox".  instance: of this process.  Errors: as seglog_open(). */
int pt_outbox_open(struct pt_outbox **ret, const char *dir, int64_t max_bytes, const struct pt_seal_ring *ring,
		   const char *instance, struct pt_err *err) PT_MUSTCHECK;
/* The agent's keys have changed: what is on disk is sealed for the new one, and what it opens is shipped. */
int pt_outbox_rekey(struct pt_outbox *o, const struct pt_seal_ring *ring, struct pt_err *err) PT_MUSTCHECK;
void pt_outbox_close(struct pt_outbox *o); /* flushes first */
void pt_outbox_stats(struct pt_outbox *o, struct pt_outbox_stats *ret);

/* Copies the line into memory; never blocks on the disk, never logs. */
void pt_outbox_add(struct pt_outbox *o, const struct pt_log_line *line);
/* Wait until there is something to flush, for at most most_ms.  True at once for a warning, or when much has come. */
bool pt_outbox_wait_added(struct pt_outbox *o, int64_t most_ms, bool urgent_only);
/* Write what was added and fsync.  After 0 it survives kill -9 and power loss.  On failure the lines count as dropped. */
int pt_outbox_flush(struct pt_outbox *o, struct pt_err *err) PT_MUSTCHECK;
void pt_outbox_wake(struct pt_outbox *o); /* end all waits */

/* The oldest lines that are not acknowledged, all of one instance. */
struct pt_outbox_batch {
	char instance[PT_ID_SIZE];
	struct pt_buf lines; /* JSON objects (docs/protocol.md), commas between them */
	size_t n;
	/* private */
	uint64_t note, segment; /* lines of a note, or the segment; where the next batch begins in it */
	int64_t offset, line;
};
/* Fill b (its lines are cleared first) with up to max_lines; 1 = there are some, 0 = none. */
int pt_outbox_peek(struct pt_outbox *o, size_t max_lines, struct pt_outbox_batch *b, struct pt_err *err) PT_MUSTCHECK;
void pt_outbox_ack(struct pt_outbox *o, const struct pt_outbox_batch *b, bool delivered); /* false: refused for good */
/* Wait until there are lines on disk to ship, for at most most_ms. */
bool pt_outbox_wait_flushed(struct pt_outbox *o, int64_t most_ms);
#endif
