/* Identifiers: a typed prefix and 26 characters of Crockford base32: 48 bits of milliseconds since 1970, 80 random bits (the
 * ULID layout, github.com/ulid/spec).  They sort by time of creation, also within one process and millisecond. */
#ifndef PT_BASE_ID_H
#define PT_BASE_ID_H
#include "base/shape.h"

/* prefix: "op", "ag", "in", "key", "tok", "usr", "acc", "int" (integration).  Thread-safe.  Aborts when the kernel
 * gives no random bytes. */
void pt_id_new(char out[static PT_ID_SIZE], const char *prefix);
/* Is s an id with this prefix? */
bool pt_id_valid(const char *s, const char *prefix);

/* A secret of 256 random bits as 43 characters of URL-safe base64 behind a readable prefix ("pts_"), for keys and tokens.
 * Caller frees; NULL when out of memory. */
char *pt_secret_new(const char *prefix);
/* Has s the form of a secret with this prefix? */
bool pt_secret_valid(const char *s, const char *prefix);
/* Random bytes from the kernel; aborts when it gives none. */
void pt_random(void *p, size_t n);
/* SHA-256 as 64 lower-case hexadecimal characters. */
void pt_sha256_hex(const void *data, size_t n, char out[static 65]);
/* Compare two strings of the same expected length without telling by time where they differ. */
bool pt_equal_secret(const char *a, const char *b);
#endif
