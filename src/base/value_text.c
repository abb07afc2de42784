/* Values as text.  Floats: the shortest decimal in the rounding interval by one multiplication of each of its ends with a 128-bit
 * power of ten ("Schubfach": R. Giulietti, The Schubfach way to render doubles, 2020).  The 617 powers are computed once, at first
 * use, by exact integer arithmetic: 10 KiB and some microseconds, instead of a table in the source. */
#include "base/value_text.h"
#include <math.h>
#include <pthread.h>
#include <string.h>

static const char pairs[] =
	"00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748495051525354555657"
	"5859606162636465666768697071727374757677787980818283848586878889909192939495969798"
	"99";

static inline char *two(char *p, unsigned v)
{
	memcpy(p, pairs + 2 * v, 2);
	return p + 2;
}

/* Digits right to left; 64-bit divisions only while there are more than 8 digits. */
static char *text_u64(char *p, uint64_t u)
{
	char tmp[20], *e = tmp + sizeof(tmp), *s = e;
	uint32_t v;

	while (u >= 100000000) {
		v = (uint32_t)(u % 100000000);
		u /= 100000000;
		for (int i = 0; i < 4; i++, v /= 100) {
			s -= 2;
			two(s, v % 100);
		}
	}
	for (v = (uint32_t)u; v >= 100; v /= 100) {
		s -= 2;
		two(s, v % 100);
	}
	if (v >= 10) {
		s -= 2;
		two(s, v);
	} else {
		*--s = (char)('0' + v);
	}
	memcpy(p, s, (size_t)(e - s));
	return p + (e - s);
}

char *pt_text_i64(char *p, int64_t v)
{
	if (v < 0)
		*p++ = '-';
	return text_u64(p, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

/* --- floats --- */
enum { POW_MIN = -292, POW_MAX = 324, LIMBS = 20 };
struct pow10 {
	uint64_t hi, lo;
};
static struct pow10 powers[POW_MAX - POW_MIN + 1];

/* The top 128 bits of the little-endian number, rounded up when anything is below them (or inexact says so). */
static struct pow10 top128(const uint64_t *x, bool inexact)
{
	int n = LIMBS;
	unsigned shift;
	struct pow10 r;

	while (!x[n - 1])
		n--;
	shift = (unsigned)__builtin_clzll(x[n - 1]);
	r.hi = x[n - 1] << shift | (shift && n > 1 ? x[n - 2] >> (64 - shift) : 0);
	r.lo = (n > 1 ? x[n - 2] << shift : 0) | (shift && n > 2 ? x[n - 3] >> (64 - shift) : 0);
	inexact |= n > 2 && (x[n - 3] << shift) != 0;
	for (int i = n - 4; i >= 0; i--)
		inexact |= x[i] != 0;
	if (inexact && ++r.lo == 0)
		r.hi++;
	return r;
}

static void powers_init(void)
{
	uint64_t x[LIMBS] = { 1 };
	unsigned __int128 t;

	for (int k = 0; k <= POW_MAX; k++) {
		uint64_t carry = 0;

		powers[k - POW_MIN] = top128(x, false);
		for (int i = 0; i < LIMBS; i++) {
			t = (unsigned __int128)x[i] * 10 + carry;
			x[i] = (uint64_t)t;
			carry = (uint64_t)(t >> 64);
		}
	}
	/* 2^1279 divided by ten again and again: 970 bits below go to 10^292, 309 remain above 128 */
	memset(x, 0, sizeof(x));
	x[LIMBS - 1] = 1ULL << 63;
	for (int k = -1; k >= POW_MIN; k--) {
		uint64_t rest = 0;

		for (int i = LIMBS - 1; i >= 0; i--) {
			t = (unsigned __int128)rest << 64 | x[i];
			x[i] = (uint64_t)(t / 10);
			rest = (uint64_t)(t % 10);
		}
		powers[k - POW_MIN] = top128(x, true);
	}
}

/* High 64 bits of g * c / 2^64 with a sticky lowest bit. */
static inline uint64_t round_to_odd(struct pow10 g, uint64_t c)
{
	unsigned __int128 x = (unsigned __int128)g.lo * c, y = (unsigned __int128)g.hi * c + (uint64_t)(x >> 64);

	return (uint64_t)(y >> 64) | ((uint64_t)y > 1);
}

struct decimal {
	uint64_t digits;
	int exp10;
};

/* c * 2^q, c > 0; near: the lower neighbour is at half distance (c is a power of two and not the smallest). */
static struct decimal shortest(uint64_t c, int q, bool near)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	uint64_t odd = c & 1, lower, upper, vb, s, mid;
	int k = (q * 1262611 - (near ? 524031 : 0)) >> 22; /* floor(log10(2^q)), of 3/4 of it when near */
	int h = q + ((-k * 1741647) >> 19) + 1;            /* floor(log2(10^-k)) */
	struct pow10 g;
	bool down_in, up_in;

	pthread_once(&once, powers_init);
	g = powers[-k - POW_MIN];
	lower = round_to_odd(g, (4 * c - 2 + near) << h) + odd;
	vb = round_to_odd(g, (4 * c) << h);
	upper = round_to_odd(g, (4 * c + 2) << h) - odd;
	s = vb / 4;
	if (s >= 10) { /* one digit fewer */
		uint64_t t = s / 10;

		down_in = lower <= 40 * t;
		up_in = 40 * t + 40 <= upper;
		if (down_in != up_in)
			return (struct decimal) { t + up_in, k + 1 };
	}
	down_in = lower <= 4 * s;
	up_in = 4 * s + 4 <= upper;
	if (down_in != up_in)
		return (struct decimal) { s + up_in, k };
	mid = 4 * s + 2;
	return (struct decimal) { s + (vb > mid || (vb == mid && (s & 1))), k };
}

static char *text_decimal(char *p, struct decimal d)
{
	char digits[20];
	int n, point;

	while (d.digits % 10 == 0) {
		d.digits /= 10;
		d.exp10++;
	}
	n = (int)(text_u64(digits, d.digits) - digits);
	point = n + d.exp10; /* digits before the decimal point */
	if (point > 16 || point < -3) {
		*p++ = digits[0];
		if (n > 1) {
			*p++ = '.';
			memcpy(p, digits + 1, (size_t)n - 1);
			p += n - 1;
		}
		*p++ = 'e';
		return pt_text_i64(p, point - 1);
	}
	if (point <= 0) {
		memcpy(p, "0.000", 5);
		p += 2 - point;
		memcpy(p, digits, (size_t)n);
		return p + n;
	}
	if (point >= n) {
		memcpy(p, digits, (size_t)n);
		memset(p + n, '0', (size_t)(point - n));
		memcpy(p + point, ".0", 2);
		return p + point + 2;
	}
	memcpy(p, digits, (size_t)point);
	p[point] = '.';
	memcpy(p + point + 1, digits + point, (size_t)(n - point));
	return p + n + 1;
}

static char *text_special(char *p, bool nan, bool negative)
{
	if (nan)
		return (char *)memcpy(p, "NaN", 3) + 3;
	if (negative)
		*p++ = '-';
	return (char *)memcpy(p, "Infinity", 8) + 8;
}

char *pt_text_f64(char *p, double v)
{
	uint64_t bits, c;
	int e;

	if (!isfinite(v))
		return text_special(p, isnan(v), v < 0);
	memcpy(&bits, &v, 8);
	if (bits >> 63)
		*p++ = '-';
	c = bits & ((1ULL << 52) - 1);
	e = (int)(bits >> 52 & 0x7ff);
	if (!e && !c)
		return (char *)memcpy(p, "0.0", 3) + 3;
	return text_decimal(p, e ? shortest(c | 1ULL << 52, e - 1075, !c && e > 1) : shortest(c, -1074, false));
}

char *pt_text_f32(char *p, float v)
{
	uint32_t bits, c;
	int e;

	if (!isfinite(v))
		return text_special(p, isnan(v), v < 0);
	memcpy(&bits, &v, 4);
	if (bits >> 31)
		*p++ = '-';
	c = bits & ((1U << 23) - 1);
	e = (int)(bits >> 23 & 0xff);
	if (!e && !c)
		return (char *)memcpy(p, "0.0", 3) + 3;
	return text_decimal(p, e ? shortest(c | 1U << 23, e - 150, !c && e > 1) : shortest(c, -149, false));
}

/* --- dates --- */
/* Years begin in March, so that the leap day is the last one; eras of 400 years have 146097 days. */
int64_t pt_days_from_civil(int64_t y, unsigned m, unsigned d)
{
	int64_t era, yoe, doy;

	y -= m <= 2;
	era = (y >= 0 ? y : y - 399) / 400;
	yoe = y - era * 400;
	doy = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1;
	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

static char *text_days(char *p, int64_t days)
{
	int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097, y;
	unsigned doe = (unsigned)(z - era * 146097), yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153, m = mp < 10 ? mp + 3 : mp - 9;

	y = (int64_t)yoe + era * 400 + (m <= 2);
	if (y < 0 || y > 9999)
		*p++ = y < 0 ? '-' : '+';
	if (y < 0)
		y = -y;
	if (y > 9999)
		p = pt_text_i64(p, y);
	else
		p = two(two(p, (unsigned)y / 100), (unsigned)y % 100);
	*p++ = '-';
	p = two(p, m);
	*p++ = '-';
	return two(p, doy - (153 * mp + 2) / 5 + 1);
}

char *pt_text_date(char *p, int32_t days)
{
	if (days == INT32_MAX)
		return (char *)memcpy(p, "infinity", 8) + 8;
	if (days == INT32_MIN)
		return (char *)memcpy(p, "-infinity", 9) + 9;
	return text_days(p, days);
}

char *pt_text_time(char *p, int64_t us)
{
	unsigned fraction = (unsigned)(us % 1000000), s = (unsigned)(us / 1000000);

	p = two(p, s / 3600);
	*p++ = ':';
	p = two(p, s / 60 % 60);
	*p++ = ':';
	p = two(p, s % 60);
	if (fraction) {
		*p++ = '.';
		p = two(two(two(p, fraction / 10000), fraction / 100 % 100), fraction % 100);
	}
	return p;
}

char *pt_text_timestamp(char *p, int64_t us, bool utc)
{
	const int64_t day = 86400000000;
	int64_t days = us / day, rest = us % day;

	if (us == INT64_MAX)
		return (char *)memcpy(p, "infinity", 8) + 8;
	if (us == INT64_MIN)
		return (char *)memcpy(p, "-infinity", 9) + 9;
	if (rest < 0) {
		rest += day;
		days--;
	}
	p = text_days(p, days);
	*p++ = 'T';
	p = pt_text_time(p, rest);
	if (utc)
		*p++ = 'Z';
	return p;
}

char *pt_text_uuid(char *p, const uint8_t u[16])
{
	static const char hex[] = "0123456789abcdef";

	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = hex[u[i] >> 4];
		*p++ = hex[u[i] & 15];
	}
	return p;
}
