/* Bounded byte buffer with a sticky error: append freely, check once with pt_buf_done(). */
#ifndef PT_BASE_BUF_H
#define PT_BASE_BUF_H
#include "base/err.h"
#include <stdarg.h>
#include <string.h>

struct pt_buf {
	char *p; /* never NULL; always NUL-terminated at p[len] */
	size_t len, cap, max;
	enum pt_code bad; /* PT_E_TOO_LARGE or PT_E_INTERNAL once something did not fit */
};

extern char pt_buf_empty_[1];
/* limit includes the final NUL. */
/* clang-format off */
#define PT_BUF_INIT(limit) { .p = pt_buf_empty_, .max = (limit) }
/* clang-format on */

/* Make room for n more bytes (and the NUL).  False, and the error sticks, when the maximum is passed. */
bool pt_buf_room(struct pt_buf *b, size_t n);
void pt_buf_add(struct pt_buf *b, const void *data, size_t n);
void pt_buf_str(struct pt_buf *b, const char *s);
void pt_buf_chr(struct pt_buf *b, char c);
void pt_buf_fmt(struct pt_buf *b, const char *fmt, ...) PT_PRINTF(2, 3);
void pt_buf_i64(struct pt_buf *b, int64_t v);
/* A JSON string with its quotes.  Bytes that are not UTF-8 become U+FFFD, so the output is always valid JSON. */
void pt_buf_json(struct pt_buf *b, const char *s, size_t n);
/* Standard base64 with padding (RFC 4648 section 4), and lower-case hexadecimal. */
void pt_buf_base64(struct pt_buf *b, const void *data, size_t n);
void pt_buf_hex(struct pt_buf *b, const void *data, size_t n);
int pt_buf_done(const struct pt_buf *b, struct pt_err *err) PT_MUSTCHECK;
void pt_buf_clear(struct pt_buf *b); /* empty, keeps the memory, forgets the error */
/* Hand out the memory (caller frees, never NULL unless out of memory); the buffer is empty afterwards. */
char *pt_buf_detach(struct pt_buf *b, size_t *ret_len);
void pt_buf_release(struct pt_buf *b);
#define pt_auto_buf pt_auto(pt_buf_release) struct pt_buf

/* Decode base64 (padding optional, white space skipped) onto b.  PT_E_INVALID on any other byte. */
int pt_base64_decode(const char *s, size_t n, struct pt_buf *b, struct pt_err *err) PT_MUSTCHECK;
/* Length of the valid UTF-8 sequence at s (1 to 4), 0 when it is none (RFC 3629). */
int pt_utf8_len(const char *s, size_t n);
#endif
