/* Sealing what lies on disk: AES-256-GCM under keys that are derived from the agent's key secret.  No state; any thread, one
 * context for each thread at a time.  docs/decisions/0009-spool-encryption.md says which key seals what. */
#ifndef PT_AGENT_SEAL_H
#define PT_AGENT_SEAL_H
#include "base/buf.h"
#include <openssl/evp.h>

enum {
	SEAL_KEY_BYTES = 32,
	SEAL_NONCE_BYTES = 12,
	SEAL_TAG_BYTES = 16,
	PT_SEAL_RING_MAX = 9, /* today's key and eight earlier ones */
};

/* The keys that may seal and open, derived from the agent's keys: the first one seals, all of them open. */
struct pt_seal_ring {
	unsigned n, generation; /* generation: a ring with a lower one comes too late and is passed over */
	struct {
		char id[128]; /* the agent's key id; no secret */
		unsigned char key[SEAL_KEY_BYTES];
	} keys[PT_SEAL_RING_MAX];
};
/* Derive a key (HKDF-SHA256; use, "spool" or whatever else is stored, and id go into it) and append it.  Beyond the last place
 * nothing is added. */
int pt_seal_ring_add(struct pt_seal_ring *r, const char *use, const char *id, const char *secret,
		     struct pt_err *err) PT_MUSTCHECK;
void pt_seal_ring_clear(struct pt_seal_ring *r); /* wipes it */

EVP_CIPHER_CTX *seal_cipher_new(void); /* NULL: no memory, or no AES-256-GCM.  Freed by EVP_CIPHER_CTX_free() */
/* Encrypt n bytes in place and put the tag at tag.  INTERNAL only. */
int seal_data(EVP_CIPHER_CTX *c, const unsigned char *key, const unsigned char *nonce, const void *aad, size_t aad_len,
	      void *data, size_t n, void *tag, struct pt_err *err) PT_MUSTCHECK;
/* The reverse.  CORRUPT: not what was sealed under this key and nonce with this aad; data then is of no use. */
int unseal_data(EVP_CIPHER_CTX *c, const unsigned char *key, const unsigned char *nonce, const void *aad, size_t aad_len,
		void *data, size_t n, const void *tag, struct pt_err *err) PT_MUSTCHECK;
#endif
