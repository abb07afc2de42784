/* Times as text, durations and sizes. */
#include "base/clock.h"
#include "../tap.h"

static int64_t fake(bool mono)
{
	return mono ? 5 : 1795190645123;
}

int main(void)
{
	static const struct {
		int64_t ms;
		const char *text;
	} times[] = {
		{ 0, "1970-01-01T00:00:00.000Z" },
		{ 1795190645123, "2026-11-20T16:04:05.123Z" },
		{ 951782400000, "2000-02-29T00:00:00.000Z" },
		{ -1, "1969-12-31T23:59:59.999Z" },
		{ -1000, "1969-12-31T23:59:59.000Z" },
		{ 253402300799999, "9999-12-31T23:59:59.999Z" },
	};
	static const struct {
		const char *text;
		int64_t duration, size; /* -1 = refused */
	} t[] = {
		{ "0", 0, 0 },
		{ "30", 30000, 30 },
		{ "30s", 30000, -1 },
		{ "1.5s", 1500, -1 },
		{ "250ms", 250, -1 },
		{ "10m", 600000, -1 },
		{ "2h", 7200000, -1 },
		{ "1d", 86400000, -1 },
		{ "64k", -1, 65536 },
		{ "64K", -1, 65536 },
		{ "1Ki", -1, 1024 },
		{ "10M", -1, 10485760 },
		{ "2G", -1, 2147483648 },
		{ "1Ti", -1, 1LL << 40 },
		{ "0.5k", -1, 512 },
		{ "", -1, -1 },
		{ "s", -1, -1 },
		{ "-1", -1, -1 },
		{ "+1", -1, -1 },
		{ " 1", -1, -1 },
		{ "1 ", -1, -1 },
		{ "1 s", -1, -1 },
		{ "0x10", -1, -1 },
		{ "inf", -1, -1 },
		{ "nan", -1, -1 },
		{ "1e999", -1, -1 },
		{ "99999999999999d", -1, -1 },
		{ "1MB", -1, -1 },
		{ "1S", -1, -1 },
		{ "1.2.3", -1, -1 },
		{ "9999999T", -1, -1 },
	};
	struct pt_err e = { 0 };
	int64_t a, b;

	for (size_t i = 0; i < PT_COUNT(times); i++) {
		char text[32];

		pt_time_text(times[i].ms, text);
		is_str(text, times[i].text, "time %lld", (long long)times[i].ms);
	}
	{
		char text[32];

		pt_time_text(INT64_MAX, text);
		ok(strlen(text) < sizeof(text), "a time beyond all years is no harm: %s", text);
	}
	for (size_t i = 0; i < PT_COUNT(t); i++) {
		int64_t v = -7;
		int rc = pt_duration_parse(t[i].text, &v, &e);

		ok(rc == (t[i].duration < 0 ? PT_E_INVALID : 0), "duration '%s'", t[i].text);
		is_int(v, rc ? -7 : t[i].duration, "its value");
		v = -7;
		rc = pt_size_parse(t[i].text, &v, &e);
		ok(rc == (t[i].size < 0 ? PT_E_INVALID : 0), "size '%s'", t[i].text);
		is_int(v, rc ? -7 : t[i].size, "its value");
	}
	ok(pt_duration_parse("soon", &a, &e) < 0 && strstr(e.msg, "'soon' is not a duration such as"), "%s", e.msg);

	a = pt_mono_ns();
	b = pt_mono_ns();
	ok(b >= a && a > 0, "monotonic time does not go back");
	ok(pt_wall_ms() > 1700000000000, "wall time");
	pt_clock_inject(fake);
	ok(pt_wall_ms() == 1795190645123 && pt_mono_ms() == 5 && pt_mono_ns() == 5000000, "a clock of our own");
	pt_clock_inject(NULL);
	ok(pt_mono_ns() != 5000000, "and the kernel's again");
	return tap_end();
}
