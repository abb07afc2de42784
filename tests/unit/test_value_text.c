#include "base/value_text.h"
#include "../tap.h"
#include <math.h>
#include <stdlib.h>
#include <time.h>

static const struct {
	double v;
	const char *text;
} doubles[] = {
	{ 0, "0.0" },
	{ -0.0, "-0.0" },
	{ 1, "1.0" },
	{ 0.1, "0.1" },
	{ -2.5e-7, "-2.5e-7" },
	{ 1e15, "1000000000000000.0" },
	{ 9999999999999998, "9999999999999998.0" },
	{ 1e16, "1e16" },
	{ 1e-4, "0.0001" },
	{ 1e-5, "1e-5" },
	{ 123.456, "123.456" },
	{ 5e-324, "5e-324" },
	{ 2.2250738585072014e-308, "2.2250738585072014e-308" },
	{ 1.7976931348623157e308, "1.7976931348623157e308" },
	{ 9007199254740993.0, "9007199254740992.0" },
	{ 2e22, "2e22" },
	{ 1e23, "1e23" },
	{ 9.5367431640625e-7, "9.5367431640625e-7" },
	{ NAN, "NaN" },
	{ INFINITY, "Infinity" },
	{ -INFINITY, "-Infinity" },
	{ 0.3, "0.3" },
	{ 0.1 + 0.2, "0.30000000000000004" },
	{ 4.35, "4.35" },
	{ 100, "100.0" },
	{ 0.001, "0.001" },
	{ 299792458.5, "299792458.5" },
};
static const struct {
	float v;
	const char *text;
} floats[] = {
	{ 0.1f, "0.1" },     { 16777216.0f, "16777216.0" },        { 3.4028235e38f, "3.4028235e38" },
	{ 1e-45f, "1e-45" }, { 1.17549435e-38f, "1.1754944e-38" }, { 0.3f, "0.3" },
	{ -1.5f, "-1.5" },   { 8388608.5f, "8388608.0" },
};
static const struct {
	int64_t y;
	unsigned m, d;
	const char *text;
} dates[] = {
	{ 1970, 1, 1, "1970-01-01" },          { 2024, 2, 29, "2024-02-29" },  { 1900, 3, 1, "1900-03-01" },
	{ 2000, 12, 31, "2000-12-31" },        { 0, 1, 1, "0000-01-01" },      { -43, 3, 15, "-0043-03-15" },
	{ -4713, 11, 24, "-4713-11-24" },      { 9999, 12, 31, "9999-12-31" }, { 10000, 1, 1, "+10000-01-01" },
	{ 5874897, 12, 31, "+5874897-12-31" }, { 1, 1, 1, "0001-01-01" },
};

static uint64_t rng = 88172645463325252ULL;
static uint64_t next(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

/* Reads back as the same bits, and no text of fewer digits does. */
static bool round_trips(double v)
{
	char text[64], shorter[64], *end = pt_text_f64(text, v), *rest;
	size_t digits = 0, zeros = 0; /* significant ones; zeros at the end so far */

	*end = 0;
	for (char *p = text; *p && *p != 'e'; p++)
		if (*p >= '0' + !digits && *p <= '9') {
			digits++;
			zeros = *p == '0' ? zeros + 1 : 0;
		}
	digits -= zeros;
	if (strtod(text, &rest) != v || *rest || end - text > PT_TEXT_FLOAT)
		return false;
	if (digits < 17)
		return true; /* cheap: the shorter ones are checked where there may be one */
	snprintf(shorter, sizeof(shorter), "%.15e", v);
	return strtod(shorter, NULL) != v;
}

static bool float_round_trips(float v)
{
	char text[64], *rest;

	*pt_text_f32(text, v) = 0;
	return strtof(text, &rest) == v && !*rest;
}

int main(void)
{
	char text[64];
	int bad = 0, bad_float = 0, bad_decimal = 0, bad_day = 0;

	for (size_t i = 0; i < PT_COUNT(doubles); i++) {
		*pt_text_f64(text, doubles[i].v) = 0;
		is_str(text, doubles[i].text, "double %.17g", doubles[i].v);
	}
	for (size_t i = 0; i < PT_COUNT(floats); i++) {
		*pt_text_f32(text, floats[i].v) = 0;
		is_str(text, floats[i].text, "float %.9g", (double)floats[i].v);
	}
	for (int i = 0; i < 1000000; i++) {
		uint64_t bits = next();
		uint32_t bits32 = (uint32_t)next();
		double v;
		float f;

		memcpy(&v, &bits, 8);
		memcpy(&f, &bits32, 4);
		if (isfinite(v) && !round_trips(v) && bad++ < 5)
			printf("# %.17g\n", v);
		if (isfinite(f) && !float_round_trips(f) && bad_float++ < 5)
			printf("# %.9g\n", (double)f);
	}
	is_int(bad, 0, "a million random doubles read back the same, in the fewest digits");
	is_int(bad_float, 0, "a million random floats read back the same");
	for (int i = 0; i < 200000; i++) { /* decimals of up to 15 digits print as themselves */
		int64_t m = (int64_t)(next() % 1000000000000000);
		char want[64];

		snprintf(want, sizeof(want), "%lld.%02lld", (long long)(m / 10000000), (long long)(m % 100 ? m % 100 : 1));
		if (want[strlen(want) - 1] == '0')
			want[strlen(want) - 1] = 0;
		*pt_text_f64(text, strtod(want, NULL)) = 0;
		if (strcmp(text, want) && bad_decimal++ < 5)
			printf("# %s %s\n", text, want);
	}
	is_int(bad_decimal, 0, "short decimals print as written");
	bad = 0;
	for (int e = -1074; e < 1024; e++) { /* powers of two have an uneven rounding interval */
		double v = ldexp(1, e);

		bad += !round_trips(v) || !round_trips(nextafter(v, 0)) || (e < 1023 && !round_trips(nextafter(v, INFINITY)));
	}
	is_int(bad, 0, "all powers of two and their neighbours");

	for (size_t i = 0; i < PT_COUNT(dates); i++) {
		*pt_text_date(text, (int32_t)pt_days_from_civil(dates[i].y, dates[i].m, dates[i].d)) = 0;
		is_str(text, dates[i].text, "date");
	}
	for (int64_t day = -800000; day < 3000000; day += 13) {
		struct tm tm;
		time_t t = (time_t)(day * 86400);
		char want[32];

		gmtime_r(&t, &tm);
		*pt_text_date(text, (int32_t)day) = 0;
		snprintf(want, sizeof(want), "%s%04d-%02d-%02d", tm.tm_year + 1900 > 9999 ? "+" : "", tm.tm_year + 1900,
			 tm.tm_mon + 1, tm.tm_mday);
		if (tm.tm_year + 1900 >= 0 &&
		    (strcmp(text, want) ||
		     pt_days_from_civil(tm.tm_year + 1900, (unsigned)tm.tm_mon + 1, (unsigned)tm.tm_mday) != day))
			bad_day++;
	}
	is_int(bad_day, 0, "dates agree with the C library");
	*pt_text_date(text, INT32_MAX) = 0;
	is_str(text, "infinity", "infinite date");
	*pt_text_time(text, 86400000000) = 0;
	is_str(text, "24:00:00", "midnight at the end of the day");
	*pt_text_time(text, 45296000789) = 0;
	is_str(text, "12:34:56.000789", "time with a fraction");
	*pt_text_timestamp(text, -1, true) = 0;
	is_str(text, "1969-12-31T23:59:59.999999Z", "a microsecond before 1970");
	*pt_text_timestamp(text, INT64_MAX - 1, true) = 0;
	is_str(text, "+294247-01-10T04:00:54.775806Z", "last timestamp");
	*pt_text_timestamp(text, INT64_MIN + 1, false) = 0;
	is_str(text, "-290308-12-21T19:59:05.224193", "first timestamp");
	*pt_text_timestamp(text, INT64_MIN, false) = 0;
	is_str(text, "-infinity", "infinite timestamp");
	*pt_text_i64(text, INT64_MIN) = 0;
	is_str(text, "-9223372036854775808", "smallest integer");
	return tap_end();
}
