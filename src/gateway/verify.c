/* Is a result's body what its head says?  Checked while it arrives, since after the 200 the agent deletes its copy: what was damaged on the
 * agent's disk or on the way is refused, and the attempt runs again instead. */
#include "gateway/internal.h"
#include <openssl/evp.h>
#include <zstd.h>

enum { OUT_SIZE = 64 * 1024 };

struct pt_verify {
	const struct pt_result_head *head;
	EVP_MD_CTX *sha;
	ZSTD_DStream *zstd; /* NULL: the body is not compressed */
	size_t zstd_left;   /* 0 = at the end of a frame */
	int64_t plain;      /* bytes before compression, so far */
	char out[OUT_SIZE];
};

int pt_zstd_reader(ZSTD_DStream **ret, struct pt_err *err)
{
	*ret = ZSTD_createDStream();
	if (!*ret || ZSTD_isError(ZSTD_DCtx_setParameter(*ret, ZSTD_d_windowLogMax, PT_ZSTD_WINDOW_LOG))) {
		ZSTD_freeDStream(*ret);
		*ret = NULL;
		return pt_fail_oom(err);
	}
	return PT_OK;
}

int pt_verify_begin(const struct pt_result_head *head, struct pt_verify **ret, struct pt_err *err)
{
	struct pt_verify *v = calloc(1, sizeof(*v));
	int rc = PT_OK;

	if (!v || !(v->sha = EVP_MD_CTX_new()) || EVP_DigestInit_ex(v->sha, EVP_sha256(), NULL) != 1)
		rc = pt_fail_oom(err);
	else if (head->body_encoding && strcmp(head->body_encoding, "zstd") == 0)
		rc = pt_zstd_reader(&v->zstd, err);
	if (rc < 0) {
		pt_verify_free(v);
		return rc;
	}
	v->head = head;
	*ret = v;
	return PT_OK;
}

static int plain(struct pt_verify *v, const void *p, size_t n, struct pt_err *err)
{
	v->plain += (int64_t)n;
	if (v->plain > v->head->bytes)
		return pt_fail(err, PT_E_INVALID, "the body unpacks to more than bytes = %lld", (long long)v->head->bytes);
	if (EVP_DigestUpdate(v->sha, p, n) != 1)
		return pt_fail(err, PT_E_INTERNAL, "SHA-256 failed");
	return PT_OK;
}

int pt_verify_update(struct pt_verify *v, const void *p, size_t n, struct pt_err *err)
{
	ZSTD_inBuffer in = { .src = p, .size = n };
	int rc;

	if (!v->zstd)
		return plain(v, p, n, err);
	while (in.pos < in.size) {
		ZSTD_outBuffer out = { .dst = v->out, .size = sizeof(v->out) };

		v->zstd_left = ZSTD_decompressStream(v->zstd, &out, &in);
		if (ZSTD_isError(v->zstd_left))
			return pt_fail(err, PT_E_INVALID, "the body is not zstd: %s", ZSTD_getErrorName(v->zstd_left));
		if ((rc = plain(v, v->out, out.pos, err)) < 0)
			return rc;
	}
	return PT_OK;
}

int pt_verify_end(struct pt_verify *v, struct pt_err *err)
{
	unsigned char md[EVP_MAX_MD_SIZE];
	pt_auto_buf hex = PT_BUF_INIT(2 * EVP_MAX_MD_SIZE + 1);
	unsigned n = 0;

	/* What the last input left in the decoder's window. */
	while (v->zstd && v->zstd_left) {
		ZSTD_inBuffer none = { 0 };
		ZSTD_outBuffer out = { .dst = v->out, .size = sizeof(v->out) };
		int rc;

		v->zstd_left = ZSTD_decompressStream(v->zstd, &out, &none);
		if (ZSTD_isError(v->zstd_left) || (out.pos == 0 && v->zstd_left))
			return pt_fail(err, PT_E_INVALID, "the body ends in the middle of a zstd frame");
		if ((rc = plain(v, v->out, out.pos, err)) < 0)
			return rc;
	}
	if (v->plain != v->head->bytes)
		return pt_fail(err, PT_E_INVALID, "the body has %lld bytes, its head says %lld", (long long)v->plain, (long long)v->head->bytes);
	if (!v->head->body_sha256)
		return PT_OK;
	if (EVP_DigestFinal_ex(v->sha, md, &n) != 1)
		return pt_fail(err, PT_E_INTERNAL, "SHA-256 failed");
	pt_buf_hex(&hex, md, n);
	if (strcmp(hex.p, v->head->body_sha256) != 0)
		return pt_fail(err, PT_E_INVALID, "the body does not match its body_sha256");
	return PT_OK;
}

void pt_verify_free(struct pt_verify *v)
{
	if (!v)
		return;
	EVP_MD_CTX_free(v->sha);
	ZSTD_freeDStream(v->zstd);
	free(v);
}
