/* A result being made: its body in memory, or compressed into a file of the spool, and the commit that makes it durable.  A
 * writer belongs to one thread. */
#include "agent/spool_int.h"
#include "base/clock.h"
#include "base/id.h"
#include "os/file.h"
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <zstd.h>

/* 256 KiB of window: about 1.1 MB for each result being compressed, and text of rows loses next to nothing. */
enum { WINDOW_LOG = 18 };

struct pt_spool_writer {
	struct pt_body body;
	struct pt_spool *spool;
	struct spool_key key;
	EVP_MD_CTX *hash;
	struct pt_buf small; /* the body, until it moves to the file */
	ZSTD_CCtx *zstd;     /* not NULL: it has moved */
	char *frame;         /* what zstd gave and is not written yet, and room for its tag */
	size_t frame_len;
	EVP_CIPHER_CTX *cipher;
	unsigned char file_key[SEAL_KEY_BYTES];
	uint64_t frames; /* written */
	int fd;
	uint64_t file;
	int64_t file_disk; /* written and reserved */
	int64_t file_size; /* of it without tags */
	int64_t plain;     /* bytes of the body before compression */
	bool committed, broken; /* broken: a write failed, the body is not whole */
};

static int hash_start(struct pt_spool_writer *w, struct pt_err *err)
{
	if (!w->hash)
		w->hash = EVP_MD_CTX_new();
	if (!w->hash || EVP_DigestInit_ex(w->hash, EVP_sha256(), NULL) != 1)
		return pt_fail(err, PT_E_INTERNAL, "SHA-256 is not available");
	return PT_OK;
}

/* Make n more bytes of body file ours, or LIMIT. */
static int reserve(struct pt_spool *s, int64_t n, struct pt_err *err)
{
	int rc = PT_OK;

	pthread_mutex_lock(&s->lock);
	if (seglog_bytes(&s->log) + n > s->log.max_bytes - s->log.reserve)
		rc = seglog_no_room(&s->log, err);
	else
		s->log.other_bytes += n;
	pthread_mutex_unlock(&s->lock);
	return rc;
}

static int disk_refuses(struct pt_spool *s, int e, struct pt_err *err)
{
	int rc;

	pthread_mutex_lock(&s->lock);
	rc = seglog_no_disk(&s->log, e, err);
	pthread_mutex_unlock(&s->lock);
	return rc;
}

/* Seal the frame and write it. */
static int write_frame(struct pt_spool_writer *w, struct pt_err *err)
{
	size_t n = w->frame_len + SEAL_TAG_BYTES;
	unsigned char nonce[SEAL_NONCE_BYTES];
	int rc = reserve(w->spool, (int64_t)n, err);

	if (rc < 0)
		return rc;
	w->file_disk += (int64_t)n;
	w->file_size += (int64_t)w->frame_len;
	spool_body_nonce(nonce, w->frames++);
	rc = seal_data(w->cipher, w->file_key, nonce, NULL, 0, w->frame, w->frame_len, w->frame + w->frame_len, err);
	w->frame_len = 0;
	if (rc == 0) {
		struct pt_err e = { 0 };

		rc = pt_write_all(w->fd, w->frame, n, &e);
		if (rc < 0 && seglog_disk_full(e.sys))
			return disk_refuses(w->spool, e.sys, err);
		if (rc < 0 && err)
			*err = e;
	}
	return rc;
}

static int compress(struct pt_spool_writer *w, const void *data, size_t n, ZSTD_EndDirective how, struct pt_err *err)
{
	ZSTD_inBuffer in = { data, n, 0 };
	size_t left;
	int rc;

	do {
		ZSTD_outBuffer out = { w->frame, SPOOL_FRAME, w->frame_len };

		left = ZSTD_compressStream2(w->zstd, &out, &in, how);
		if (ZSTD_isError(left))
			return pt_fail(err, PT_E_INTERNAL, "zstd: %s", ZSTD_getErrorName(left));
		w->frame_len = out.pos;
		if (out.pos == SPOOL_FRAME && (rc = write_frame(w, err)) < 0)
			return rc;
	} while (how == ZSTD_e_end ? left != 0 : in.pos < in.size);
	return how == ZSTD_e_end && w->frame_len ? write_frame(w, err) : PT_OK;
}

/* The body is too large for memory: begin its file with what there is. */
static int to_file(struct pt_spool_writer *w, struct pt_err *err)
{
	struct pt_spool *s = w->spool;
	char name[40];
	int rc;

	pthread_mutex_lock(&s->lock);
	w->file = s->next_file++;
	pthread_mutex_unlock(&s->lock);
	spool_body_name(w->file, name);
	w->fd = openat(s->log.dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (w->fd < 0) {
		int e = errno;

		w->file = 0;
		if (seglog_disk_full(e))
			return disk_refuses(s, e, err);
		errno = e;
		return pt_fail_sys(err, PT_E_IO, "create '%s/%s'", s->log.dir, name);
	}
	pt_random(w->file_key, sizeof(w->file_key));
	w->frame = malloc(SPOOL_FRAME + SEAL_TAG_BYTES);
	w->cipher = seal_cipher_new();
	w->zstd = ZSTD_createCCtx();
	if (!w->frame || !w->cipher || !w->zstd || ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_compressionLevel, 1)) ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_windowLog, WINDOW_LOG)))
		return pt_fail_oom(err);
	rc = compress(w, w->small.p, w->small.len, ZSTD_e_continue, err);
	pt_buf_release(&w->small);
	return rc;
}

static int body_write(struct pt_body *b, const void *data, size_t n, struct pt_err *err)
{
	struct pt_spool_writer *w = pt_container_of(b, struct pt_spool_writer, body);
	int rc = PT_OK;

	if (EVP_DigestUpdate(w->hash, data, n) != 1)
		return pt_fail(err, PT_E_INTERNAL, "SHA-256 failed");
	w->plain += (int64_t)n;
	if (!w->file && w->small.len + n <= SPOOL_INLINE_MAX) {
		pt_buf_add(&w->small, data, n);
		return pt_buf_done(&w->small, err);
	}
	if (w->broken)
		return pt_fail(err, PT_E_IO, "an earlier part of the result could not be stored");
	if (!w->file)
		rc = to_file(w, err);
	if (rc == 0)
		rc = compress(w, data, n, ZSTD_e_continue, err);
	w->broken = rc < 0;
	return rc;
}

int pt_spool_begin(struct pt_spool *s, const char *operation, int64_t attempt, struct pt_spool_writer **ret, struct pt_err *err)
{
	struct pt_spool_writer *w = calloc(1, sizeof(*w));
	int rc;

	if (!w)
		return pt_fail_oom(err);
	w->body.write = body_write;
	w->spool = s;
	w->fd = -1;
	w->small = (struct pt_buf)PT_BUF_INIT(SPOOL_INLINE_MAX + 1);
	w->key.attempt = attempt;
	snprintf(w->key.operation, sizeof(w->key.operation), "%s", operation);
	rc = hash_start(w, err);
	if (rc < 0) {
		pt_spool_writer_free(w);
		return rc;
	}
	*ret = w;
	return PT_OK;
}

struct pt_body *pt_spool_body(struct pt_spool_writer *w)
{
	return &w->body;
}

static void drop_zstd(struct pt_spool_writer *w)
{
	ZSTD_freeCCtx(w->zstd);
	w->zstd = NULL;
	free(w->frame);
	w->frame = NULL;
	EVP_CIPHER_CTX_free(w->cipher);
	w->cipher = NULL;
}

bool pt_spool_will_fit(const struct pt_spool_writer *w)
{
	return !w->file && !w->broken;
}

void pt_spool_abandon_body(struct pt_spool_writer *w)
{
	struct pt_spool *s = w->spool;
	char name[40];

	drop_zstd(w);
	pt_buf_release(&w->small);
	pt_closep(&w->fd);
	w->fd = -1;
	if (w->file && !w->committed) {
		spool_body_name(w->file, name);
		(void)unlinkat(s->log.dir_fd, name, 0); /* an orphan is removed at the next start */
		pthread_mutex_lock(&s->lock);
		s->log.other_bytes -= w->file_disk;
		seglog_update_full(&s->log);
		pthread_mutex_unlock(&s->lock);
	}
	w->file = 0;
	w->file_size = w->file_disk = w->plain = 0;
	w->frames = w->frame_len = 0;
	OPENSSL_cleanse(w->file_key, sizeof(w->file_key));
	w->broken = false;
	(void)hash_start(w, NULL); /* it worked before, and allocates nothing the second time */
}

void pt_spool_writer_free(struct pt_spool_writer *w)
{
	if (!w)
		return;
	pt_spool_abandon_body(w);
	EVP_MD_CTX_free(w->hash);
	free(w);
}

static int set_str(char **p, const char *s, struct pt_err *err)
{
	free(*p);
	*p = s ? strdup(s) : NULL;
	return s && !*p ? pt_fail_oom(err) : PT_OK;
}

/* Everything of the body to disk, and what it is into the head. */
static int finish_body(struct pt_spool_writer *w, struct pt_result_head *head, struct pt_err *err)
{
	unsigned char sum[32];
	pt_auto_buf hex = PT_BUF_INIT(80);
	EVP_MD_CTX *copy;
	bool good;
	int rc = PT_OK;

	if (w->zstd) {
		rc = compress(w, NULL, 0, ZSTD_e_end, err);
		if (rc < 0)
			return rc;
		drop_zstd(w);
		if (fsync(w->fd) < 0 || fsync(w->spool->log.dir_fd) < 0)
			return seglog_disk_full(errno) ? disk_refuses(w->spool, errno, err)
						       : pt_fail_sys(err, PT_E_IO, "fsync of a result's body");
	}
	head->body_size = w->file ? w->file_size : (int64_t)w->small.len;
	head->bytes = w->plain;
	if (!head->body_format && !head->body_size)
		return (rc = set_str(&head->body_encoding, NULL, err)) < 0 ? rc : set_str(&head->body_sha256, NULL, err);
	copy = EVP_MD_CTX_new(); /* a commit that failed may be tried again */
	good = copy && EVP_MD_CTX_copy_ex(copy, w->hash) == 1 && EVP_DigestFinal_ex(copy, sum, NULL) == 1;
	EVP_MD_CTX_free(copy);
	if (!good)
		return pt_fail(err, PT_E_INTERNAL, "SHA-256 failed");
	pt_buf_hex(&hex, sum, sizeof(sum));
	rc = pt_buf_done(&hex, err);
	if (rc == 0)
		rc = set_str(&head->body_sha256, hex.p, err);
	return rc < 0 ? rc : set_str(&head->body_encoding, w->file ? "zstd" : "identity", err);
}

/* Append the record and wait for the disk.  Under the lock. */
static int put(struct pt_spool *s, struct spool_entry *e, struct pt_buf *rec, int64_t limit, struct pt_err *err)
{
	int rc = seglog_append(&s->log, SPOOL_PUT, e->seq, rec, limit, &e->seg, &e->offset, &e->length, err);

	if (rc < 0)
		return rc;
	/* Counted as living at once, so that its segment stays while the fsync runs. */
	e->seg->live++;
	e->seg->live_bytes += e->length;
	s->log.live_bytes += e->length;
	rc = seglog_sync(&s->log, s->log.appended - 1, err);
	e->seg->live--;
	e->seg->live_bytes -= e->length;
	s->log.live_bytes -= e->length;
	if (rc < 0)
		return rc;
	spool_entry_add(s, e);
	seglog_update_full(&s->log);
	pthread_cond_signal(&s->avail);
	return PT_OK;
}

int pt_spool_commit(struct pt_spool_writer *w, struct pt_result_head *head, struct pt_err *err)
{
	pt_auto_buf json = PT_BUF_INIT(SPOOL_HEAD_MAX + 1);
	pt_auto_buf rec = PT_BUF_INIT(SPOOL_RECORD_MAX);
	struct pt_spool *s = w->spool;
	struct spool_entry *e;
	struct spool_put_view v;
	int rc;

	if (w->broken)
		return pt_fail(err, PT_E_IO, "a part of the result could not be stored");
	rc = finish_body(w, head, err);
	if (rc < 0)
		return rc;
	pt_shape_write(&pt_result_head_shape, head, &json);
	rc = pt_buf_done(&json, err);
	if (rc < 0)
		return pt_err_wrap(err, rc, "the result's head (document, columns, error)");
	e = calloc(1, sizeof(*e));
	if (!e)
		return pt_fail_oom(err);
	e->key = w->key;
	e->body_file = w->file;
	e->body_size = head->body_size;
	e->body_disk = w->file_disk;
	e->stored_at = pt_wall_ms();
	v = (struct spool_put_view) {
		.put = { .stored_at = e->stored_at,
			 .attempt = e->key.attempt,
			 .body_size = e->body_size,
			 .body_file = e->body_file,
			 .op_len = (uint32_t)strlen(e->key.operation),
			 .head_len = (uint32_t)json.len },
		.operation = e->key.operation,
		.head = json.p,
		.body = w->small.p,
		.body_key = w->file_key,
		.body_len = w->small.len,
	};
	spool_put_write(&v, &rec); /* an error of it sticks in rec */
	pthread_mutex_lock(&s->lock);
	e->seq = s->next_seq++;
	rc = put(s, e, &rec, w->small.len ? s->log.max_bytes - s->log.reserve : s->log.max_bytes, err);
	pthread_mutex_unlock(&s->lock);
	if (rc < 0) {
		free(e);
		return rc;
	}
	w->committed = true;
	return PT_OK;
}
