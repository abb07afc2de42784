/* Segments: append-only files of sealed records in a folder, bounded by bytes.  It knows nothing of what the records mean: the
 * owner (the spool, the log outbox) gives kinds, sequence numbers and payloads, and counts in each segment what it still needs.
 *
 * On disk a segment is "seg-NUMBER.log": records of a head (below), the payload under AES-256-GCM and its tag.  It begins with
 * key records: the data key that its records are sealed with, itself sealed under the first key of the ring (twice, so that one
 * damaged place does not cost the segment), and other data keys that were sealed under an earlier one.  A process draws a new data
 * key for its first segment and at each change of the ring, so that no nonce (segment number, count of the record) comes twice.
 * The checksum tells a torn tail cheaply and without a key; the tag covers the head, the segment's number and the offset,
 * so that no record can be changed, moved or exchanged.  Segments of records with the magic "PTr1", of versions before
 * encryption, are read and drained.
 *
 * All of it is guarded by the owner's mutex, log->lock, which every function wants held unless it says otherwise. */
#ifndef PT_AGENT_SEGLOG_H
#define PT_AGENT_SEGLOG_H
#include "agent/seal.h"
#include <pthread.h>

enum { SEGLOG_SEGMENT_MAX = 8 * 1024 * 1024 };

struct seglog_datakey {
	struct seglog_datakey *next;
	uint64_t id;
	unsigned char key[SEAL_KEY_BYTES];
	unsigned epoch; /* log->epoch of the ring whose first key seals it on disk; 0 = another key does */
	unsigned refs;  /* segments, and the log for the one it writes with */
};

/* One file.  Removed oldest first, so that a record that takes back another never goes before it, nor a key record before the
 * segment that needs it. */
struct seglog_segment {
	struct seglog_segment *next;
	uint64_t no;
	struct seglog_datakey *key; /* NULL: plain, empty, or sealed by a key that we do not have */
	int64_t head, size;         /* bytes of key records at its begin (0 when it was read), and of the file */
	int64_t live_bytes;         /* the owner's: of records that are still needed */
	unsigned live;              /* the owner's: such records; it stays while there are any */
	bool damaged;               /* keep it aside as *.damaged when it goes */
	bool plain;                 /* of a version before encryption */
	char sealed_by[128];        /* id of the agent's key that its data key is sealed with, "" = unknown or plain */
};

struct seglog {
	const char *what, *option; /* the owner's, for messages: "spool", "--spool-max-bytes"; static text */
	pthread_mutex_t *lock;
	pthread_cond_t synced; /* a group fsync ended */
	int dir_fd, lock_fd;
	char *dir;

	struct seglog_segment *oldest, *cur; /* list by number; cur is its last, or NULL before the first record */
	struct seglog_segment *sealed;       /* those that no key of the ring opens; they stay as they are */
	int cur_fd;
	int64_t seg_max;                /* the owner's, before open; 0 = a sixteenth of max_bytes, at most SEGLOG_SEGMENT_MAX */
	uint64_t next_segment, max_seq; /* max_seq: highest of any record read, also of those that cannot be opened */
	uint64_t appended;              /* records since open, the log sequence number of the newest */
	bool syncing, must_roll;
	uint64_t settled, failed; /* records up to here: their fsync ended; the newest whose fsync failed */
	struct pt_err sync_err;   /* of failed */

	struct pt_seal_ring ring;
	unsigned epoch;              /* counts the first keys of the ring, from 1 */
	struct seglog_datakey *keys; /* all that we can open */
	struct seglog_datakey *key;  /* the one that new records are sealed with */
	uint32_t count;              /* records sealed in cur */
	EVP_CIPHER_CTX *cipher;

	int64_t max_bytes, reserve; /* reserve: room that only small records may use */
	int64_t bytes, live_bytes;  /* of segments; live_bytes is the owner's, too */
	int64_t other_bytes;        /* of files that the owner has beside the segments: they count for the bound */
	int64_t sealed_bytes;       /* of sealed segments, and of files that may belong to them */
	unsigned n_sealed;
	bool full, refused;
	int disk_errno;  /* why the disk takes nothing, 0 = it does */
	int64_t disk_at; /* pt_mono_ms() when that was last seen */
	int64_t damaged, syncs;
};

/* What a record says.  Pointers into the memory it was read from. */
struct seglog_record {
	unsigned kind; /* the owner's, 1 to SEGLOG_KINDS_MAX */
	bool plain;
	uint64_t seq;
	const char *payload;
	size_t n;
};
enum { SEGLOG_KINDS_MAX = 0xffff };
/* Called for each record, oldest first.  < 0 ends the reading. */
typedef int seglog_record_fn(void *arg, struct seglog_segment *seg, int64_t offset, size_t length, const struct seglog_record *r,
			     struct pt_err *err);

/* A log that is zero, but for what its owner sets, gets a folder.  The lock need not be held until it is shared.  Errors: CONFLICT (another process has the folder;
 * names its pid), DENIED or IO. */
int seglog_open(struct seglog *l, pthread_mutex_t *lock, const char *dir, int64_t max_bytes, const struct pt_seal_ring *ring,
		struct pt_err *err) PT_MUSTCHECK;
/* Read all segments, cut a torn tail, count damage, set aside what no key opens.  Once, before the first append. */
int seglog_scan(struct seglog *l, seglog_record_fn *fn, void *arg, struct pt_err *err) PT_MUSTCHECK;
/* The agent's keys have changed: take the new ring, and read the segments that it opens and the old one did not (fn gets
 * their records after those that were read before). */
int seglog_rekey(struct seglog *l, const struct pt_seal_ring *ring, seglog_record_fn *fn, void *arg,
		 struct pt_err *err) PT_MUSTCHECK;
/* Seal anew, on disk, what is not sealed under the ring's first key.  A failure leaves it for the next segment or call.  May
 * let the lock go. */
int seglog_rewrap(struct seglog *l, struct pt_err *err) PT_MUSTCHECK;
void seglog_say_sealed(const struct seglog *l); /* a warning for each key that is missing */
void seglog_close(struct seglog *l);            /* not under the lock; copes with a log that was never opened */

/* A record: begin, append the payload to b, hand it to seglog_append(), which seals it in place. */
void seglog_record_begin(struct pt_buf *b);
/* Append a record to the current segment (a new one when it is full).  The lock may be let go and taken again before the
 * record is written, not after.  LIMIT when all would grow beyond limit bytes, or the disk is full.  ret_length: its bytes on
 * disk.  b is of no use afterwards. */
int seglog_append(struct seglog *l, unsigned kind, uint64_t seq, struct pt_buf *b, int64_t limit, struct seglog_segment **ret_seg,
		  int64_t *ret_offset, int64_t *ret_length, struct pt_err *err) PT_MUSTCHECK;
/* Wait until everything appended so far is on disk; one thread syncs for all that wait.  Lets the lock go meanwhile.  Fails
 * when the fsync of a record after number since failed. */
int seglog_sync(struct seglog *l, uint64_t since, struct pt_err *err) PT_MUSTCHECK;
/* Read a record back into an empty out and open it.  CORRUPT: it is not what was written there. */
int seglog_record_read(struct seglog *l, const struct seglog_segment *seg, int64_t offset, int64_t length, struct pt_buf *out,
		       struct seglog_record *ret, struct pt_err *err) PT_MUSTCHECK;
/* The same for a record whose length is not known, the one that begins at offset. */
int seglog_record_at(struct seglog *l, const struct seglog_segment *seg, int64_t offset, struct pt_buf *out,
		     struct seglog_record *ret, int64_t *ret_length, struct pt_err *err) PT_MUSTCHECK;
void seglog_drop_sealed(struct seglog *l);   /* the oldest segment that no key opens goes, with what is in it */
void seglog_remove_oldest(struct seglog *l); /* nothing in it is needed any more */
int seglog_damage(struct seglog *l, const char *what, const char *file); /* count it and say it; PT_OK */
void seglog_segment_name(uint64_t no, char out[static 40]);

/* --- room --- */
/* Bytes on disk that count for the bound. */
int64_t seglog_bytes(const struct seglog *l);
void seglog_update_full(struct seglog *l);
int seglog_no_room(struct seglog *l, struct pt_err *err);        /* remember that something did not fit; LIMIT */
int seglog_no_disk(struct seglog *l, int e, struct pt_err *err); /* the disk itself takes nothing more: errno; LIMIT */
bool seglog_disk_full(int e);                                    /* does this errno mean "no room"? */

/* --- numbered files --- */
struct seglog_numbers {
	uint64_t *no; /* in order; the caller frees it */
	size_t n, cap;
};
/* Append the numbers of all files "PREFIX, 16 hexadecimal digits, SUFFIX" in the folder; *next is raised above them and above those
 * that were set aside as *.damaged. */
int seglog_list(struct seglog *l, const char *prefix, const char *suffix, struct seglog_numbers *ret, uint64_t *next,
		struct pt_err *err) PT_MUSTCHECK;
int seglog_by_number(const void *a, const void *b); /* for bsearch() */

/* --- between seglog.c, seglog_record.c and seglog_scan.c --- */
struct seglog_record_head {             /* little-endian on disk */
	uint32_t magic, crc, len, kind; /* crc: CRC-32C of everything behind it; len: bytes behind the head */
	uint64_t key, seq;              /* id of the data key */
	uint32_t count, zero;           /* of the record among those sealed in its segment, for the nonce */
};
struct seglog_plain_head { /* of versions before encryption; the payload begins with seq */
	uint32_t magic, crc, len, kind;
};
enum {
	SEGLOG_MAGIC = 0x32725450,       /* "PTr2" */
	SEGLOG_PLAIN_MAGIC = 0x31725450, /* "PTr1" */
	SEGLOG_KIND_KEY = 0x10001,       /* a data key; seq: bytes of the segment before this one when it was closed, or 0 */
};
uint32_t seglog_crc32c(uint32_t crc, const void *data, size_t n);
size_t seglog_head_size(uint32_t magic); /* 0 = that is none */
/* Length of the valid record at p (n bytes are there), 0 = none. */
size_t seglog_record_check(const char *p, size_t n);
void seglog_head_get(const char *p,
		     struct seglog_record_head *ret); /* of a valid record; a plain one has key 0 and its payload's seq */
/* Open the valid record of length bytes at p, in place. */
int seglog_record_open(struct seglog *l, const struct seglog_segment *seg, int64_t offset, char *p, size_t length,
		       struct seglog_record *ret, struct pt_err *err) PT_MUSTCHECK;
/* Seal the record in b (its payload is there) for the end of the current segment. */
int seglog_record_seal(struct seglog *l, unsigned kind, uint64_t seq, struct pt_buf *b, struct pt_err *err) PT_MUSTCHECK;
int seglog_segment_read(struct seglog *l, uint64_t no, int64_t offset, size_t n, struct pt_buf *out,
			struct pt_err *err) PT_MUSTCHECK;
int seglog_roll(struct seglog *l, struct pt_err *err) PT_MUSTCHECK;
/* The data key in a key record (of length bytes at p, in segment no) joins those of the log when a key of the ring opens it.
 * Gives the id of the agent's key that sealed it ("" when it makes no sense), and the size in it when it could be opened, else 0. */
int seglog_datakey_read(struct seglog *l, uint64_t no, int64_t offset, const char *p, size_t length, char by[static 128],
			int64_t *ret_before, struct pt_err *err) PT_MUSTCHECK;
/* A key record into b, for that place. */
int seglog_datakey_write(struct seglog *l, uint64_t no, int64_t offset, const struct seglog_datakey *k, int64_t before,
			 struct pt_buf *b, struct pt_err *err) PT_MUSTCHECK;
struct seglog_datakey *seglog_datakey_new(struct seglog *l); /* drawn, with no reference; NULL: no memory */
struct seglog_datakey *seglog_datakey_find(struct seglog *l, uint64_t id);
void seglog_datakey_unref(struct seglog *l, struct seglog_datakey *k); /* k may be NULL */
#endif
