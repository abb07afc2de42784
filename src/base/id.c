#include "base/id.h"
#include "base/clock.h"
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/random.h>

static const char crockford[] = "0123456789abcdefghjkmnpqrstvwxyz";

void pt_random(void *p, size_t n)
{
	char *d = p;

	while (n) {
		ssize_t got = getrandom(d, n, 0);

		pt_assert(got > 0 || errno == EINTR);
		if (got > 0) {
			d += got;
			n -= (size_t)got;
		}
	}
}

void pt_id_new(char out[static PT_ID_SIZE], const char *prefix)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static uint64_t last_ms;
	static unsigned char rnd[10];
	uint64_t ms = (uint64_t)pt_wall_ms();
	unsigned __int128 v;
	int n;

	pthread_mutex_lock(&lock);
	if (ms > last_ms) {
		last_ms = ms;
		pt_random(rnd, sizeof(rnd));
		rnd[0] &= 0x7f; /* leaves room to count upwards */
	} else {                /* same millisecond, or the clock went back: stay in order by adding one to the random part */
		for (size_t i = sizeof(rnd); i-- > 0 && ++rnd[i] == 0;)
			;
	}
	v = last_ms & 0xffffffffffff;
	for (size_t i = 0; i < sizeof(rnd); i++)
		v = v << 8 | rnd[i];
	pthread_mutex_unlock(&lock);

	n = snprintf(out, PT_ID_SIZE, "%s_", prefix);
	pt_assert(n > 0 && n + 26 < PT_ID_SIZE);
	for (int i = 25; i >= 0; i--, v >>= 5)
		out[n + i] = crockford[v & 31];
	out[n + 26] = '\0';
}

bool pt_id_valid(const char *s, const char *prefix)
{
	size_t n = strlen(prefix);

	return strncmp(s, prefix, n) == 0 && s[n] == '_' && strlen(s + n + 1) == 26 && strspn(s + n + 1, crockford) == 26;
}

char *pt_secret_new(const char *prefix)
{
	unsigned char raw[32];
	pt_auto_buf b = PT_BUF_INIT(128);

	pt_random(raw, sizeof(raw));
	pt_buf_str(&b, prefix);
	pt_buf_base64(&b, raw, sizeof(raw));
	explicit_bzero(raw, sizeof(raw));
	for (size_t i = 0; i < b.len; i++)
		b.p[i] = b.p[i] == '+' ? '-' : b.p[i] == '/' ? '_' : b.p[i];
	if (b.bad)
		return NULL;
	if (b.len && b.p[b.len - 1] == '=')
		b.p[b.len - 1] = '\0';
	return pt_buf_detach(&b, NULL);
}

bool pt_secret_valid(const char *s, const char *prefix)
{
	static const char base64url[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"; /* RFC 4648, section 5 */
	size_t n = strlen(prefix);

	return strncmp(s, prefix, n) == 0 && strlen(s + n) == 43 && strspn(s + n, base64url) == 43;
}

void pt_sha256_hex(const void *data, size_t n, char out[static 65])
{
	static const char hex[] = "0123456789abcdef";
	unsigned char md[SHA256_DIGEST_LENGTH];

	SHA256(data, n, md);
	for (size_t i = 0; i < sizeof(md); i++) { /* without a buffer: a hash must not become "" for lack of memory */
		out[2 * i] = hex[md[i] >> 4];
		out[2 * i + 1] = hex[md[i] & 15];
	}
	out[2 * sizeof(md)] = '\0';
}

bool pt_equal_secret(const char *a, const char *b)
{
	size_t n = strlen(a);

	return n == strlen(b) && CRYPTO_memcmp(a, b, n) == 0;
}
