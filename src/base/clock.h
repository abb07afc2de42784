/* Time.  Wall time (milliseconds since 1970, UTC) is for records and people; monotonic time is for waiting.  Tests may put
 * their own source in place: the two functions are the only place the program reads a clock. */
#ifndef PT_BASE_CLOCK_H
#define PT_BASE_CLOCK_H
#include "base/buf.h"

int64_t pt_wall_ms(void);
int64_t pt_mono_ms(void);
int64_t pt_mono_ns(void);

/* Test hook: now_ms(mono) answers in place of the kernel; NULL puts the kernel back.  Set it before threads start. */
void pt_clock_inject(int64_t (*now_ms)(bool mono));

/* RFC 3339 in UTC with milliseconds, "2026-11-20T16:04:05.123Z".  out needs 32 bytes. */
void pt_time_text(int64_t wall_ms, char out[static 32]);
/* "1.5s", "250ms", "10m", "2h", "1d" or plain seconds to milliseconds. */
int pt_duration_parse(const char *s, int64_t *ret_ms, struct pt_err *err) PT_MUSTCHECK;
/* "256", "64k", "10M", "2G" (powers of 1024) to bytes. */
int pt_size_parse(const char *s, int64_t *ret_bytes, struct pt_err *err) PT_MUSTCHECK;
#endif
