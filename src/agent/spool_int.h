/* Inside the spool: what spool.c (entries, publishers), spool_segment.c (records on disk), spool_scan.c (reading them at
 * open) and spool_body.c (results being made) share.  Everything below is guarded by spool.lock unless it says otherwise. */
#ifndef PT_AGENT_SPOOL_INT_H
#define PT_AGENT_SPOOL_INT_H
#include "agent/spool.h"
#include <pthread.h>
#include <uthash.h>

enum {
	SPOOL_INLINE_MAX = 32 * 1024,       /* body bytes kept in the record itself */
	SPOOL_HEAD_MAX = 1024 * 1024,       /* the protocol's limit of a head */
	SPOOL_SEGMENT_MAX = 8 * 1024 * 1024,
};

/* One file of records, named by its number.  Removed oldest first, so that a done record never goes before its put record. */
struct spool_segment {
	struct spool_segment *next;
	uint64_t no;
	int64_t size, live_bytes; /* of the file; of records that are still needed */
	unsigned live;            /* entries whose put record is here */
	bool damaged;             /* keep it aside when it goes */
};

struct spool_key {
	char operation[PT_ID_SIZE];
	int64_t attempt;
};
_Static_assert(sizeof(struct spool_key) == PT_ID_SIZE + 8, "hashed as bytes: no padding");
struct spool_entry {
	struct spool_key key; /* hashed as bytes, the text zero-padded */
	uint64_t seq;         /* order of arrival, never used twice while a record names it */
	struct spool_segment *seg;
	int64_t offset, length;  /* of the whole put record */
	uint64_t body_file;      /* 0 = inline or none */
	int64_t body_size, stored_at;
	int64_t next_try;        /* pt_mono_ms() */
	unsigned tries;
	bool taken;
	struct spool_entry *prev, *next; /* by seq */
	UT_hash_handle hh, by_seq;       /* by_seq only during open */
};

struct pt_spool {
	pthread_mutex_t lock;
	pthread_cond_t synced; /* a group fsync ended */
	pthread_cond_t avail;  /* there may be something to take, or nothing is left (monotonic clock) */
	int dir_fd, lock_fd;
	char *dir;

	struct spool_segment *oldest, *cur; /* list by number; cur is its last, or NULL before the first put */
	int cur_fd;
	int64_t seg_max;
	uint64_t next_segment, appended; /* appended: records since open, the log sequence number of the newest */
	bool syncing, must_roll, moving, stopped;
	uint64_t settled, failed; /* records up to here: their fsync ended; the newest whose fsync failed */
	struct pt_err sync_err;   /* of failed */

	struct spool_entry *entries, *table, *seq_table; /* list by seq, hash by key, hash by seq */
	int64_t n_entries;
	uint64_t next_seq, next_file;

	int64_t max_bytes, reserve; /* reserve: room that only heads without a body may use, for "failed: full" */
	int64_t seg_bytes, live_bytes, body_bytes;
	bool full, refused;
	int64_t nospace_at;         /* pt_mono_ms() when the disk was last found full, 0 = it is not */
	int64_t damaged, syncs;
};

/* --- spool_segment.c --- */
enum spool_kind { SPOOL_PUT = 1, SPOOL_DONE = 2 };
struct spool_record_head { /* little-endian on disk */
	uint32_t magic, crc, len, kind; /* crc: CRC-32C of len, kind and payload */
};
struct spool_put { /* payload of a put record: this, operation, head, inline body */
	uint64_t seq;
	int64_t stored_at, attempt, body_size;
	uint64_t body_file;
	uint32_t op_len, head_len;
};
enum { SPOOL_MAGIC = 0x31725450 }; /* "PTr1" */

uint32_t spool_crc32c(uint32_t crc, const void *data, size_t n);
/* Start a record in b; payload is then appended to b and spool_record_end() fills in length and checksum. */
void spool_record_begin(struct pt_buf *b, enum spool_kind kind);
void spool_record_end(struct pt_buf *b);
/* Length of the valid record at p (n bytes are there), 0 = none. */
size_t spool_record_check(const char *p, size_t n);
void spool_put_get(const char *payload, struct spool_put *ret);
/* Append a record to the current segment (a new one when it is full).  Under the lock, which may be let go and taken again
 * before the record is written, not after.  LIMIT when the spool would grow beyond limit bytes, or the disk is full. */
int spool_append(struct pt_spool *s, const struct pt_buf *rec, int64_t limit, struct spool_segment **ret_seg,
		 int64_t *ret_offset, struct pt_err *err) PT_MUSTCHECK;
/* Wait until everything appended so far is on disk; one thread syncs for all that wait.  Lets the lock go meanwhile.  Fails
 * when the fsync of a record after number since failed. */
int spool_sync(struct pt_spool *s, uint64_t since, struct pt_err *err) PT_MUSTCHECK;
int spool_segment_read(struct pt_spool *s, const struct spool_segment *seg, int64_t offset, size_t n, struct pt_buf *out,
		       struct pt_err *err) PT_MUSTCHECK;
void spool_segment_name(uint64_t no, char out[static 40]);
void spool_body_name(uint64_t no, char out[static 40]);
/* Remove segments in which nothing lives; move what lives in the oldest one away when too much dead space stands behind it. */
void spool_retire(struct pt_spool *s);
bool spool_disk_full(int e); /* does this errno mean "no room"? */

/* --- spool_scan.c --- */
int spool_scan(struct pt_spool *s, struct pt_err *err) PT_MUSTCHECK; /* at open, alone */

/* --- spool.c --- */
void spool_entry_add(struct pt_spool *s, struct spool_entry *e);
void spool_entry_drop(struct pt_spool *s, struct spool_entry *e); /* takes it out of list, table and segment, and frees it */
/* Write that an entry is done, and drop it.  aside: keep its body file as *.damaged.  May let the lock go. */
void spool_forget(struct pt_spool *s, struct spool_entry *e, bool aside);
void spool_update_full(struct pt_spool *s);
/* Make n more bytes of body file ours, or LIMIT. */
int spool_reserve(struct pt_spool *s, int64_t n, struct pt_err *err) PT_MUSTCHECK;
int spool_no_room(struct pt_spool *s, struct pt_err *err); /* remember that something did not fit; LIMIT */
int spool_no_disk(struct pt_spool *s, struct pt_err *err); /* the disk itself is full; LIMIT */
#endif
