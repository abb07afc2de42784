#include "base/clock.h"
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <time.h>

static int64_t (*injected)(bool mono);

static int64_t read_ns(clockid_t id)
{
	struct timespec ts;

	pt_assert(clock_gettime(id, &ts) == 0);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t pt_wall_ms(void)
{
	return injected ? injected(false) : read_ns(CLOCK_REALTIME) / 1000000;
}

int64_t pt_mono_ns(void)
{
	return injected ? injected(true) * 1000000 : read_ns(CLOCK_MONOTONIC);
}

int64_t pt_mono_ms(void)
{
	return pt_mono_ns() / 1000000;
}

void pt_clock_inject(int64_t (*now_ms)(bool mono))
{
	injected = now_ms;
}

void pt_time_text(int64_t wall_ms, char out[static 32])
{
	int ms = (int)((wall_ms % 1000 + 1000) % 1000); /* counts upwards before 1970 too */
	time_t s = (time_t)((wall_ms - ms) / 1000);
	struct tm tm;
	char date[24] = "";

	if (!gmtime_r(&s, &tm) || !strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm))
		snprintf(date, sizeof(date), "?");
	snprintf(out, 32, "%s.%03dZ", date, ms);
}

struct unit {
	const char *name;
	double factor;
};

static int parse_unit(const char *s, const struct unit *units, size_t n, int64_t *ret, const char *what, struct pt_err *err)
{
	char *end = NULL;
	double v = strtod(s, &end);

	/* strtod() also reads white space, signs, "inf" and hexadecimal numbers */
	if (isdigit((unsigned char)*s) && !memchr("xX", s[1], 2) && isfinite(v))
		for (size_t i = 0; i < n; i++)
			if (strcmp(end, units[i].name) == 0 && v * units[i].factor < 9e15) {
				*ret = (int64_t)(v * units[i].factor + 0.5);
				return PT_OK;
			}
	return pt_fail(err, PT_E_INVALID, "'%.40s' is not %s", s, what);
}

int pt_duration_parse(const char *s, int64_t *ret_ms, struct pt_err *err)
{
	static const struct unit units[] = { { "", 1e3 },   { "ms", 1 },     { "s", 1e3 },
					     { "m", 60e3 }, { "h", 3600e3 }, { "d", 86400e3 } };

	return parse_unit(s, units, PT_COUNT(units), ret_ms, "a duration such as 30s, 5m or 250ms", err);
}

int pt_size_parse(const char *s, int64_t *ret_bytes, struct pt_err *err)
{
	static const struct unit units[] = { { "", 1 },        { "k", 1024 },     { "K", 1024 },       { "Ki", 1024 },
					     { "M", 1048576 }, { "Mi", 1048576 }, { "G", 1073741824 }, { "Gi", 1073741824 },
					     { "T", 0x1p40 },  { "Ti", 0x1p40 } };

	return parse_unit(s, units, PT_COUNT(units), ret_bytes, "a size such as 4096, 64k, 10M or 2G", err);
}
