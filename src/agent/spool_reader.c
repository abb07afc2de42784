/* Reading results back: the form of a put record, and body files frame by frame.  A body file is a row of frames of 64 KiB, each
 * sealed under the body's own key, which stands in its put record, with the frame's number as nonce; so memory stays flat and no
 * file passes for another.  A reader belongs to one thread. */
#include "agent/spool_int.h"
#include <endian.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include "os/file.h"

static const unsigned char no_key[SEAL_KEY_BYTES];

void spool_body_name(uint64_t no, char out[static 40])
{
	snprintf(out, 40, "body-%016llx.zst", (unsigned long long)no);
}

int64_t spool_body_disk(int64_t size, const unsigned char *key)
{
	if (!key || memcmp(key, no_key, sizeof(no_key)) == 0)
		return size;
	return size + (size + SPOOL_FRAME - 1) / SPOOL_FRAME * SEAL_TAG_BYTES;
}

void spool_body_nonce(unsigned char nonce[static SEAL_NONCE_BYTES], uint64_t frame)
{
	frame = htole64(frame);
	memset(nonce, 0, SEAL_NONCE_BYTES);
	memcpy(nonce, &frame, sizeof(frame));
}

bool spool_put_get(const struct seglog_record *r, struct spool_put_view *ret)
{
	struct spool_put p;
	const char *at = r->payload + sizeof(p);
	size_t key, left;

	if (r->n < sizeof(p))
		return false;
	memcpy(&p, r->payload, sizeof(p));
	*ret = (struct spool_put_view) { .put = {
						 .stored_at = (int64_t)le64toh((uint64_t)p.stored_at),
						 .attempt = (int64_t)le64toh((uint64_t)p.attempt),
						 .body_size = (int64_t)le64toh((uint64_t)p.body_size),
						 .body_file = le64toh(p.body_file),
						 .op_len = le32toh(p.op_len),
						 .head_len = le32toh(p.head_len),
					 } };
	key = ret->put.body_file && !r->plain ? SEAL_KEY_BYTES : 0;
	left = r->n - sizeof(p);
	if (ret->put.op_len >= PT_ID_SIZE || ret->put.body_size < 0 || ret->put.body_size > INT64_MAX / 2 ||
	    (size_t)ret->put.op_len + key + ret->put.head_len > left)
		return false;
	ret->operation = at;
	at += ret->put.op_len;
	ret->body_key = !ret->put.body_file ? NULL : key ? (const unsigned char *)at : no_key;
	ret->head = at + key;
	ret->body = ret->head + ret->put.head_len;
	ret->body_len = left - ret->put.op_len - key - ret->put.head_len;
	return true;
}

void spool_put_write(const struct spool_put_view *v, struct pt_buf *b)
{
	struct spool_put p = {
		.stored_at = (int64_t)htole64((uint64_t)v->put.stored_at),
		.attempt = (int64_t)htole64((uint64_t)v->put.attempt),
		.body_size = (int64_t)htole64((uint64_t)v->put.body_size),
		.body_file = htole64(v->put.body_file),
		.op_len = htole32(v->put.op_len),
		.head_len = htole32(v->put.head_len),
	};

	seglog_record_begin(b);
	pt_buf_add(b, &p, sizeof(p));
	pt_buf_add(b, v->operation, v->put.op_len);
	if (v->put.body_file)
		pt_buf_add(b, v->body_key, SEAL_KEY_BYTES);
	pt_buf_add(b, v->head, v->put.head_len);
	pt_buf_add(b, v->body, v->body_len);
}

/* --- body files --- */

struct spool_body_reader {
	EVP_CIPHER_CTX *cipher; /* NULL: a plain file */
	unsigned char key[SEAL_KEY_BYTES];
	int fd;
	int64_t size, frame; /* frame: number of the one in memory, -1 = none */
	size_t frame_len;
	bool broken;
	char data[SPOOL_FRAME + SEAL_TAG_BYTES];
};

struct spool_body_reader *spool_reader_new(int fd, int64_t size, const unsigned char *key)
{
	bool plain = memcmp(key, no_key, sizeof(no_key)) == 0;
	struct spool_body_reader *r = calloc(1, plain ? offsetof(struct spool_body_reader, data) : sizeof(*r));

	if (!r)
		return NULL;
	r->fd = fd;
	r->size = size;
	r->frame = -1;
	memcpy(r->key, key, sizeof(r->key));
	if (!plain && !(r->cipher = seal_cipher_new())) {
		spool_reader_free(r);
		return NULL;
	}
	return r;
}

bool spool_reader_broken(const struct spool_body_reader *r)
{
	return r && r->broken;
}

void spool_reader_free(struct spool_body_reader *r)
{
	if (!r)
		return;
	OPENSSL_cleanse(r->key, sizeof(r->key));
	EVP_CIPHER_CTX_free(r->cipher);
	free(r);
}

static bool load_frame(struct spool_body_reader *r, int64_t frame)
{
	int64_t at = frame * SPOOL_FRAME, left = r->size - at;
	size_t n = left < SPOOL_FRAME ? (size_t)left : SPOOL_FRAME;
	unsigned char nonce[SEAL_NONCE_BYTES];
	struct pt_err err = { 0 };
	int rc;

	r->frame = -1;
	rc = pt_pread_all(r->fd, r->data, n + SEAL_TAG_BYTES, frame * (SPOOL_FRAME + SEAL_TAG_BYTES), &err);
	spool_body_nonce(nonce, (uint64_t)frame);
	if (rc == 0)
		rc = unseal_data(r->cipher, r->key, nonce, NULL, 0, r->data, n, r->data + n, &err);
	r->broken |= rc == PT_E_CORRUPT;
	if (rc < 0)
		return false;
	r->frame = frame;
	r->frame_len = n;
	return true;
}

ssize_t pt_spool_read_body(const struct pt_spool_entry *e, void *buf, size_t n, int64_t offset)
{
	struct spool_body_reader *r = e->body;
	size_t skip = (size_t)(offset % SPOOL_FRAME);
	ssize_t got;

	if (offset >= r->size)
		return 0;
	if (!r->cipher) {
		do
			got = pread(r->fd, buf, n, offset);
		while (got < 0 && errno == EINTR);
		return got;
	}
	if (r->frame != offset / SPOOL_FRAME && !load_frame(r, offset / SPOOL_FRAME))
		return -1;
	if (n > r->frame_len - skip)
		n = r->frame_len - skip;
	memcpy(buf, r->data + skip, n);
	return (ssize_t)n;
}
