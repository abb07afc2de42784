/* Values as text, fast: integers, shortest floats, dates and times as ISO 8601.  Each writes at p without a final NUL and returns
 * the end.  No allocation, no locale, thread-safe. */
#ifndef PT_BASE_VALUE_TEXT_H
#define PT_BASE_VALUE_TEXT_H
#include "base/err.h"

enum { PT_TEXT_I64 = 20, PT_TEXT_FLOAT = 32, PT_TEXT_DATE = 20, PT_TEXT_TIMESTAMP = 44 }; /* most bytes written */

char *pt_text_i64(char *p, int64_t v);
/* The shortest decimal that reads back as the same value (the closest such one), always recognisable as a float: "1.0", "0.1",
 * "1e16", "-2.5e-7"; positional from 1e-4 to below 1e16.  Not finite: NaN, Infinity, -Infinity. */
char *pt_text_f64(char *p, double v);
char *pt_text_f32(char *p, float v);
/* Days and microseconds since 1970-01-01, proleptic Gregorian calendar, astronomical years (1 BC is 0000, 2 BC is -0001); years
 * above 9999 get a plus sign.  The ends of the range are "infinity" and "-infinity".  Fractions: none or 6 digits. */
char *pt_text_date(char *p, int32_t days);
char *pt_text_time(char *p, int64_t us);                /* since midnight; 86,400,000,000 is "24:00:00" */
char *pt_text_timestamp(char *p, int64_t us, bool utc); /* utc: ends in Z */
char *pt_text_uuid(char *p, const uint8_t u[16]);       /* 36 bytes */

/* Days since 1970 of a date (astronomical year, month 1 to 12, day 1 to 31). */
int64_t pt_days_from_civil(int64_t y, unsigned m, unsigned d);
#endif
