/* Identifiers: order and uniqueness, also over threads and when the clock goes back; secrets and hashes. */
#include "base/id.h"
#include "base/clock.h"
#include "../tap.h"
#include <pthread.h>

enum { THREADS = 4, EACH = 20000 };
static char (*ids)[PT_ID_SIZE];

static void *make(void *arg)
{
	char(*mine)[PT_ID_SIZE] = arg;

	for (int i = 0; i < EACH; i++)
		pt_id_new(mine[i], "op");
	return NULL;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(a, b);
}

static int64_t fake_now = 1795190645123;
static int64_t fake(bool mono)
{
	return fake_now;
}

static void order(void)
{
	pthread_t t[THREADS];
	int unordered = 0, equal = 0, invalid = 0;

	ids = calloc((size_t)THREADS * EACH, sizeof(*ids));
	for (int i = 0; i < THREADS; i++)
		ok(pthread_create(&t[i], NULL, make, ids + i * EACH) == 0, "thread");
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	for (int i = 0; i < THREADS * EACH; i++) {
		unordered += i % EACH && strcmp(ids[i - 1], ids[i]) >= 0;
		invalid += !pt_id_valid(ids[i], "op");
	}
	qsort(ids, (size_t)THREADS * EACH, sizeof(*ids), by_text);
	for (int i = 1; i < THREADS * EACH; i++)
		equal += strcmp(ids[i - 1], ids[i]) == 0;
	is_int(unordered, 0, "each thread's ids are in order");
	is_int(equal, 0, "no two are equal");
	is_int(invalid, 0, "all are valid");
	free(ids);
}

static void clock_back(void)
{
	char a[PT_ID_SIZE], b[PT_ID_SIZE], c[PT_ID_SIZE];

	fake_now = 4102444800000; /* 2100: later than any real clock of this test */
	pt_clock_inject(fake);
	pt_id_new(a, "op");
	fake_now -= 86400000;
	pt_id_new(b, "op");
	fake_now += 86400001;
	pt_id_new(c, "op");
	pt_clock_inject(NULL);
	ok(strcmp(a, b) < 0 && strcmp(b, c) < 0, "in order when the clock goes back");
	ok(strncmp(a + 3, b + 3, 10) == 0, "the time part stays: %s", b);
	ok(strncmp(a + 3, c + 3, 10) < 0, "a later one: %s", c);
}

static void valid(void)
{
	static const struct {
		const char *id, *prefix;
		bool good;
	} t[] = {
		{ "op_01arz3ndektsv4rrffq69g5fav", "op", true },
		{ "op_01arz3ndektsv4rrffq69g5fav", "ag", false },
		{ "op_01ARZ3NDEKTSV4RRFFQ69G5FAV", "op", false },
		{ "op_01arz3ndektsv4rrffq69g5fa", "op", false },
		{ "op_01arz3ndektsv4rrffq69g5favx", "op", false },
		{ "op_01arz3ndektsv4rrffq69g5fau", "op", false }, /* no u in the alphabet */
		{ "op", "op", false },
		{ "", "op", false },
	};

	for (size_t i = 0; i < PT_COUNT(t); i++)
		ok(pt_id_valid(t[i].id, t[i].prefix) == t[i].good, "'%s' as %s", t[i].id, t[i].prefix);
}

static void secrets(void)
{
	char *a = pt_secret_new("pts_"), *b = pt_secret_new("pts_"), hash[65];

	ok(a && b && strlen(a) == 47 && strncmp(a, "pts_", 4) == 0, "256 bits behind the prefix");
	ok(strspn(a + 4, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == 43, "safe in a URL");
	ok(pt_secret_valid(a, "pts_") && !pt_secret_valid(a, "ptt_"), "told by its form");
	ok(!pt_secret_valid("pts_", "pts_"), "not without its bits");
	a[46] = '.';
	ok(!pt_secret_valid(a, "pts_"), "not with another character");
	a[46] = '\0';
	ok(!pt_secret_valid(a, "pts_"), "not with one too few");
	ok(strcmp(a, b) != 0 && !pt_equal_secret(a, b) && pt_equal_secret(a, a), "compared");
	ok(!pt_equal_secret(a, "pts_") && !pt_equal_secret("", a) && pt_equal_secret("", ""), "of other length");
	free(a);
	free(b);
	pt_sha256_hex("abc", 3, hash); /* FIPS 180-2, B.1 */
	is_str(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "SHA-256");
	pt_sha256_hex("", 0, hash);
	is_str(hash, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "of nothing");
}

int main(void)
{
	order();
	clock_back();
	valid();
	secrets();
	return tap_end();
}
