/* The spool: results on disk from the moment an operation ends until the gateway has acknowledged them.
 *
 * A folder with append-only segments (seglog.h; kinds of records: put = a result head with a small body or the name and
 * key of a body file, done = a result was acknowledged) and body files for large results.  Everything but lengths and numbers
 * is encrypted under keys derived from the agent's; what no present key opens stays as it is until its key is there again.
 * put returns after fsync; threads that put at the same time share one fsync.  A torn tail (power cut) is cut off at open; a
 * damaged record in the middle is reported, its segment kept aside as *.damaged and the rest is used.  Thread-safe.  One process
 * at a time (lock file).  A full disk counts as a full spool. */
#ifndef PT_AGENT_SPOOL_H
#define PT_AGENT_SPOOL_H
#include "agent/seal.h"
#include "op/op.h"

struct pt_spool;
struct pt_spool_stats {
	int64_t entries, bytes, max_bytes;
	int64_t oldest_ms; /* age of the oldest entry, 0 = empty */
	bool full;         /* no room for another result: stop leasing */
	int64_t damaged;   /* records and body files found damaged since open */
	int disk_errno;    /* full because the disk takes nothing more: its errno; 0 = not because of that */
	int64_t sealed, sealed_bytes; /* segments that no key opens; bytes of them and of bodies that may be theirs */
	char sealed_by[128];          /* id of the agent's key that sealed the first of them, "" = unknown or none */
	int64_t syncs;     /* fsyncs of segments since open: far fewer than results when many end at once */
};
/* max_bytes bounds segments and body files together; one result may use what is left.  Errors: CONFLICT (another process has
 * it; names its pid), DENIED or IO (the folder cannot be used; the hint says what to do).  ring is copied; its first key seals. */
int pt_spool_open(struct pt_spool **ret, const char *dir, int64_t max_bytes, const struct pt_seal_ring *ring,
		  struct pt_err *err) PT_MUSTCHECK;
/* The agent's keys have changed: what is here is sealed for the first key of the ring (on disk after 0; a failure is made good
 * by a later record), and what could not be opened before is, when its key is among them. */
int pt_spool_rekey(struct pt_spool *s, const struct pt_seal_ring *ring, struct pt_err *err) PT_MUSTCHECK;
void pt_spool_close(struct pt_spool *s);
PT_DEFINE_CLEANUP(struct pt_spool *, pt_spool_close)
void pt_spool_stats(struct pt_spool *s, struct pt_spool_stats *ret);

/* A result being made.  Its body stays in memory up to 32 KiB, then moves to a file (zstd level 1). */
struct pt_spool_writer;
int pt_spool_begin(struct pt_spool *s, const char *operation, int64_t attempt, struct pt_spool_writer **ret,
		   struct pt_err *err) PT_MUSTCHECK;
struct pt_body *pt_spool_body(struct pt_spool_writer *w);
/* Fills head's body_* members and bytes, stores everything and fsyncs.  After 0 the result survives kill -9 and power loss
 * and is handed to a publisher.  PT_E_LIMIT when the spool is full: the caller may put the same head without a body
 * (pt_spool_abandon_body() first). */
int pt_spool_commit(struct pt_spool_writer *w, struct pt_result_head *head, struct pt_err *err) PT_MUSTCHECK;
/* After LIMIT: the body is small (or there is none), so it fits as soon as others are delivered. */
bool pt_spool_will_fit(const struct pt_spool_writer *w);
void pt_spool_abandon_body(struct pt_spool_writer *w);
void pt_spool_writer_free(struct pt_spool_writer *w); /* removes what was not committed */

/* Publishers. */
struct pt_spool_entry {
	char operation[PT_ID_SIZE];
	int64_t attempt;
	struct pt_buf head; /* JSON text of the head */
	struct pt_bytes inline_body;
	int body_fd; /* -1 when inline or none; read it by pt_spool_read_body() */
	struct spool_body_reader *body;
	int64_t body_size;
	int64_t stored_at;  /* wall ms */
	unsigned tries;     /* how often it was given back by pt_spool_retry() */
};
/* Take the oldest entry that nobody has and that is not waiting for its retry time; waits up to most_ms.  1 = got one, 0 = none.
 * When it cannot be read back: < 0, the entry is set aside (its files keep the name *.damaged).  An entry that was taken ends in
 * exactly one pt_spool_ack() or pt_spool_retry(), which release what it holds. */
int pt_spool_take(struct pt_spool *s, struct pt_spool_entry *ret, int64_t most_ms, struct pt_err *err) PT_MUSTCHECK;
/* Up to n bytes of a body that is in a file, from offset on; 0 = its end, -1 = it cannot be read.  When that is because it
 * has changed on disk, pt_spool_retry() sets the entry aside instead. */
ssize_t pt_spool_read_body(const struct pt_spool_entry *e, void *buf, size_t n, int64_t offset);
void pt_spool_ack(struct pt_spool *s, struct pt_spool_entry *e);                   /* delivered, or refused for good: forget it */
void pt_spool_retry(struct pt_spool *s, struct pt_spool_entry *e, int64_t after_ms); /* not now */
void pt_spool_wake(struct pt_spool *s); /* the link is back: retry everything now, and wake takers */
void pt_spool_stop(struct pt_spool *s); /* takers get nothing from now on, at once; everything else goes on */
/* Wait until nothing is left, up to most_ms, not after pt_spool_stop().  True: nothing is left. */
bool pt_spool_wait_empty(struct pt_spool *s, int64_t most_ms);
bool pt_spool_has(struct pt_spool *s, const char *operation, int64_t attempt);
/* Call fn for each entry (for the exchange's holding list). */
void pt_spool_each(struct pt_spool *s, void (*fn)(void *arg, const char *operation, int64_t attempt), void *arg);
#endif
