/* Inside the log outbox: what outbox.c (lines in memory, who waits for what) and outbox_disk.c (records on disk) share. */
#ifndef PT_AGENT_OUTBOX_INT_H
#define PT_AGENT_OUTBOX_INT_H
#include "agent/outbox.h"
#include "agent/seglog.h"
#include <pthread.h>

enum {
	OUTBOX_SEGMENT_MIN = 64 * 1024,
	OUTBOX_SEGMENT_MAX = 1024 * 1024,
};

struct outbox_segment { /* of those with lines */
	struct outbox_segment *next;
	struct seglog_segment *seg;
	int64_t lines, acked;
	int64_t at, line; /* where the next batch begins: offset of a record, lines in it that are done */
	uint64_t last;    /* number of the last line */
	char instance[PT_ID_SIZE];
};

/* What stands in front of all lines: those that had to go. */
struct outbox_note {
	uint64_t lines;   /* 0 = there is no note */
	uint64_t last;    /* number of the last one */
	uint64_t through; /* number of the segment it was in: nothing up to there counts any more */
	int64_t at;
	char instance[PT_ID_SIZE];
};

struct pt_outbox {
	char instance[PT_ID_SIZE];
	bool ready; /* it was opened: all on disk is known */

	pthread_mutex_t mem; /* guards what is in memory; may be taken under disk */
	pthread_cond_t added_cond;
	struct pt_buf lines; /* each with a line feed */
	uint64_t next, lost; /* number of the next line; lines lost that no note stands for yet */
	int64_t cut;         /* lines that memory had no room for */
	uint64_t n_lines;    /* in lines */
	bool urgent;
	unsigned wakes;
	_Atomic int64_t flushing; /* lines on the way from memory to disk, until their fsync */

	pthread_mutex_t disk; /* guards the rest */
	pthread_cond_t flushed_cond;
	struct seglog log;
	struct outbox_segment *head;   /* oldest first */
	struct outbox_note note, read; /* read: the last one met while segments are read */
	uint64_t note_in;              /* number of the segment with its record */
	bool note_dirty;               /* the disk says something else */
	bool dropping;                 /* no segment goes before the note that stands for it is on disk */
	struct pt_outbox_stats st;
};

extern const char outbox_note_head[]; /* level and message of a note */
void outbox_note_fields(uint64_t lines, char out[static 96]);

/* --- outbox_disk.c; all under disk, which they may let go while they wait for an fsync --- */
int outbox_scan(struct pt_outbox *o, struct pt_err *err) PT_MUSTCHECK; /* at open */
int outbox_rekey(struct pt_outbox *o, const struct pt_seal_ring *ring, struct pt_err *err) PT_MUSTCHECK;
void outbox_retire(struct pt_outbox *o); /* segments of which nothing is needed go */
void outbox_forget(struct pt_outbox *o); /* all that is in memory; at close */
/* Write lines as records, and the note when it has changed; makes room by dropping the oldest segments.  *ret_lost: lines that
 * could not be kept. */
int outbox_append(struct pt_outbox *o, const struct pt_buf *lines, uint64_t first, uint64_t *ret_lost,
		  struct pt_err *err) PT_MUSTCHECK;
/* Fill b with the note, or from the head; CORRUPT when a record is damaged, with what stands before it in b. */
int outbox_fill(struct pt_outbox *o, size_t max_lines, struct pt_outbox_batch *b, struct pt_err *err) PT_MUSTCHECK;
#endif
