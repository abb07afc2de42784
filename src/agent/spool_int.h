/* Inside the spool: what spool.c (entries, publishers), spool_load.c (rebuilding them at open), spool_retire.c (removing),
 * spool_body.c (results being made) and spool_reader.c (reading them back) share.  Everything below is guarded by spool.lock
 * unless it says otherwise. */
#ifndef PT_AGENT_SPOOL_INT_H
#define PT_AGENT_SPOOL_INT_H
#include "agent/spool.h"
#include "agent/seglog.h"
#include <pthread.h>
#include <uthash.h>

enum {
	SPOOL_INLINE_MAX = 32 * 1024, /* body bytes kept in the record itself */
	SPOOL_HEAD_MAX = 1024 * 1024, /* the protocol's limit of a head */
	SPOOL_RECORD_MAX = SPOOL_HEAD_MAX + SPOOL_INLINE_MAX + 4096,
	SPOOL_FRAME = 64 * 1024, /* bytes of a body that are sealed together */
};

struct spool_key {
	char operation[PT_ID_SIZE];
	int64_t attempt;
};
_Static_assert(sizeof(struct spool_key) == PT_ID_SIZE + 8, "hashed as bytes: no padding");
struct spool_entry {
	struct spool_key key; /* hashed as bytes, the text zero-padded */
	uint64_t seq;         /* order of arrival, never used twice while a record names it */
	struct seglog_segment *seg;
	int64_t offset, length;  /* of the whole put record */
	uint64_t body_file;      /* 0 = inline or none */
	int64_t body_size, body_disk, stored_at; /* body_disk: bytes of its file */
	int64_t next_try;        /* pt_mono_ms() */
	unsigned tries;
	bool taken;
	bool late;                       /* see spool_late_end() */
	struct spool_entry *prev, *next; /* by seq */
	UT_hash_handle hh, by_seq;       /* by_seq only during open */
};

struct pt_spool {
	pthread_mutex_t lock;
	pthread_cond_t avail; /* there may be something to take, or nothing is left (monotonic clock) */
	struct seglog log;
	bool moving, stopped;

	struct spool_entry *entries, *table, *seq_table; /* list by seq, hash by key, hash by seq */
	int64_t n_entries;
	uint64_t next_seq, next_file;
};

/* --- records --- */
enum spool_kind { SPOOL_PUT = 1, SPOOL_DONE = 2 }; /* the payload of a done record is empty; its seq is that of the put */
struct spool_put { /* payload of a put record, little-endian: this, operation, key of the body file if there is one, head, inline body */
	int64_t stored_at, attempt, body_size;
	uint64_t body_file;
	uint32_t op_len, head_len;
};
struct spool_put_view { /* of a record in memory */
	struct spool_put put;
	const char *operation, *head, *body;
	const unsigned char *body_key; /* NULL: no body file; zeroes: one of a version before encryption */
	size_t body_len;
};
/* False: its lengths make no sense. */
bool spool_put_get(const struct seglog_record *r, struct spool_put_view *ret);
/* The whole record for p (its lengths are filled in) into b, without its seal. */
void spool_put_write(const struct spool_put_view *v, struct pt_buf *b);
int64_t spool_body_disk(int64_t size, const unsigned char *key); /* bytes on disk of a body file of size bytes */
void spool_body_name(uint64_t no, char out[static 40]);
void spool_body_nonce(unsigned char nonce[static SEAL_NONCE_BYTES], uint64_t frame);

/* --- spool_load.c --- */
/* Every record and body file, at open. */
int spool_load(struct pt_spool *s, struct pt_err *err) PT_MUSTCHECK;
/* Records of a segment that opens only now: arg of a seglog_record_fn is the spool. */
int spool_late_record(void *spool, struct seglog_segment *seg, int64_t offset, size_t length, const struct seglog_record *r,
		      struct pt_err *err) PT_MUSTCHECK;
void spool_late_end(
	struct pt_spool *s); /* after them: entries without their body go, the others are in order.  May let the lock go */

/* --- spool.c --- */
void spool_entry_add(struct pt_spool *s, struct spool_entry *e);
void spool_entry_drop(struct pt_spool *s, struct spool_entry *e); /* takes it out of list, table and segment, and frees it */
void spool_body_remove(struct pt_spool *s, struct spool_entry *e, bool aside); /* its body file, if it has one */
/* Write that an entry is done, and drop it.  aside: keep its body file as *.damaged.  May let the lock go. */
void spool_forget(struct pt_spool *s, struct spool_entry *e, bool aside);

/* --- spool_retire.c --- */
/* Remove segments in which nothing lives; move what lives in the oldest one away when too much dead space stands behind it. */
void spool_retire(struct pt_spool *s);

/* --- spool_reader.c; no lock needed --- */
/* A reader of an open body file; it does not own fd.  NULL: no memory. */
struct spool_body_reader *spool_reader_new(int fd, int64_t size, const unsigned char *key);
bool spool_reader_broken(const struct spool_body_reader *r); /* it met data that had changed */
void spool_reader_free(struct spool_body_reader *r);
#endif
