#include "agent/seal.h"
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/kdf.h>
#include <stdio.h>

static int derive(const char *use, const char *id, const char *secret, unsigned char *out, struct pt_err *err)
{
	EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
	EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
	char info[256];
	int n = snprintf(info, sizeof(info), "postern %s v1 key %s", use, id);
	bool good = ctx && n > 0 && (size_t)n < sizeof(info);

	if (good) {
		OSSL_PARAM params[] = {
			OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char[]) { "SHA256" }, 0),
			OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)secret, strlen(secret)),
			OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, (size_t)n),
			OSSL_PARAM_construct_end(),
		};

		good = EVP_KDF_derive(ctx, out, SEAL_KEY_BYTES, params) == 1;
	}
	EVP_KDF_CTX_free(ctx);
	EVP_KDF_free(kdf);
	return good ? PT_OK : pt_fail(err, PT_E_INTERNAL, "HKDF-SHA256 is not available");
}

int pt_seal_ring_add(struct pt_seal_ring *r, const char *use, const char *id, const char *secret, struct pt_err *err)
{
	int rc;

	if (r->n == PT_SEAL_RING_MAX)
		return PT_OK;
	rc = derive(use, id, secret, r->keys[r->n].key, err);
	if (rc < 0)
		return rc;
	snprintf(r->keys[r->n].id, sizeof(r->keys[r->n].id), "%s", id);
	r->n++;
	return PT_OK;
}

void pt_seal_ring_clear(struct pt_seal_ring *r)
{
	OPENSSL_cleanse(r, sizeof(*r));
}

EVP_CIPHER_CTX *seal_cipher_new(void)
{
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();

	if (c && EVP_CipherInit_ex(c, EVP_aes_256_gcm(), NULL, NULL, NULL, 1) != 1) {
		EVP_CIPHER_CTX_free(c);
		c = NULL;
	}
	return c;
}

int seal_data(EVP_CIPHER_CTX *c, const unsigned char *key, const unsigned char *nonce, const void *aad, size_t aad_len,
	      void *data, size_t n, void *tag, struct pt_err *err)
{
	int len;

	if (EVP_EncryptInit_ex(c, NULL, NULL, key, nonce) != 1 ||
	    (aad_len && EVP_EncryptUpdate(c, NULL, &len, aad, (int)aad_len) != 1) ||
	    (n && EVP_EncryptUpdate(c, data, &len, data, (int)n) != 1) || EVP_EncryptFinal_ex(c, tag, &len) != 1 ||
	    EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, SEAL_TAG_BYTES, tag) != 1)
		return pt_fail(err, PT_E_INTERNAL, "AES-256-GCM failed");
	return PT_OK;
}

int unseal_data(EVP_CIPHER_CTX *c, const unsigned char *key, const unsigned char *nonce, const void *aad, size_t aad_len,
		void *data, size_t n, const void *tag, struct pt_err *err)
{
	unsigned char none[SEAL_TAG_BYTES];
	int len;

	if (EVP_DecryptInit_ex(c, NULL, NULL, key, nonce) != 1 ||
	    (aad_len && EVP_DecryptUpdate(c, NULL, &len, aad, (int)aad_len) != 1) ||
	    (n && EVP_DecryptUpdate(c, data, &len, data, (int)n) != 1) ||
	    EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, SEAL_TAG_BYTES, (void *)(uintptr_t)tag) != 1)
		return pt_fail(err, PT_E_INTERNAL, "AES-256-GCM failed");
	if (EVP_DecryptFinal_ex(c, none, &len) != 1)
		return pt_fail(err, PT_E_CORRUPT, "it has changed on disk, or was sealed for another place");
	return PT_OK;
}
