#include "base/buf.h"
#include <stdio.h>

char pt_buf_empty_[1];

bool pt_buf_room(struct pt_buf *b, size_t n)
{
	size_t cap = b->cap ? b->cap : 64;
	char *p;

	if (b->bad)
		return false;
	if (n >= b->max - b->len) { /* one byte stays for the NUL; no overflow, since len < max always */
		b->bad = PT_E_TOO_LARGE;
		return false;
	}
	if (b->cap > b->len + n)
		return true;
	while (cap <= b->len + n)
		cap *= 2;
	if (cap > b->max)
		cap = b->max;
	p = realloc(b->cap ? b->p : NULL, cap);
	if (!p) {
		b->bad = PT_E_INTERNAL;
		return false;
	}
	b->p = p;
	b->cap = cap;
	return true;
}

void pt_buf_add(struct pt_buf *b, const void *data, size_t n)
{
	if (!n || !pt_buf_room(b, n))
		return;
	memcpy(b->p + b->len, data, n);
	b->len += n;
	b->p[b->len] = '\0';
}

void pt_buf_str(struct pt_buf *b, const char *s)
{
	pt_buf_add(b, s, strlen(s));
}

void pt_buf_chr(struct pt_buf *b, char c)
{
	pt_buf_add(b, &c, 1);
}

void pt_buf_fmt(struct pt_buf *b, const char *fmt, ...)
{
	size_t room = b->bad ? 0 : b->cap - b->len; /* with the NUL; 0 when there is no memory yet */
	va_list ap, ap2;
	int n;

	va_start(ap, fmt);
	va_copy(ap2, ap);
	n = vsnprintf(room ? b->p + b->len : NULL, room, fmt, ap);
	if (n >= 0 && (size_t)n < room) {
		b->len += (size_t)n;
	} else {
		if (room)
			b->p[b->len] = '\0'; /* what did not fit */
		if (n < 0)
			b->bad = PT_E_INTERNAL;
		else if (n && pt_buf_room(b, (size_t)n)) {
			vsnprintf(b->p + b->len, (size_t)n + 1, fmt, ap2);
			b->len += (size_t)n;
		}
	}
	va_end(ap2);
	va_end(ap);
}

void pt_buf_i64(struct pt_buf *b, int64_t v)
{
	char tmp[20], *p = tmp + sizeof(tmp);
	uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;

	do
		*--p = (char)('0' + u % 10);
	while (u /= 10);
	if (v < 0)
		*--p = '-';
	pt_buf_add(b, p, (size_t)(tmp + sizeof(tmp) - p));
}

int pt_utf8_len(const char *str, size_t n)
{
	const unsigned char *s = (const unsigned char *)str;

	if (n >= 1 && s[0] < 0x80)
		return 1;
	if (n >= 2 && s[0] >= 0xc2 && s[0] <= 0xdf && (s[1] & 0xc0) == 0x80)
		return 2;
	if (n >= 3 && (s[0] & 0xf0) == 0xe0 && (s[1] & 0xc0) == 0x80 && (s[2] & 0xc0) == 0x80)
		return (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ? 0 : 3;
	if (n >= 4 && s[0] >= 0xf0 && s[0] <= 0xf4 && (s[1] & 0xc0) == 0x80 && (s[2] & 0xc0) == 0x80 && (s[3] & 0xc0) == 0x80)
		return (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f) ? 0 : 4;
	return 0;
}

void pt_buf_json(struct pt_buf *b, const char *s, size_t n)
{
	static const char hex[] = "0123456789abcdef";
	const char *end = s + n, *run = s;

	pt_buf_chr(b, '"');
	while (s < end) {
		unsigned char c = (unsigned char)*s;
		char esc[6] = { '\\', (char)c };
		size_t esc_len = 2;
		int u;

		if (c >= 0x20 && c < 0x80 && c != '"' && c != '\\') {
			s++;
			continue;
		}
		if (c >= 0x80 && (u = pt_utf8_len(s, (size_t)(end - s))) > 0) {
			s += u;
			continue;
		}
		pt_buf_add(b, run, (size_t)(s - run));
		if (c >= 0x80) {
			memcpy(esc, "\xef\xbf\xbd", 3);
			esc_len = 3;
		} else if (c < 0x20) {
			const char *at = memchr("\bb\ff\nn\rr\tt", c, 10);

			if (at) {
				esc[1] = at[1];
			} else {
				memcpy(esc, "\\u00", 4);
				esc[4] = hex[c >> 4];
				esc[5] = hex[c & 15];
				esc_len = 6;
			}
		}
		pt_buf_add(b, esc, esc_len);
		run = ++s;
	}
	pt_buf_add(b, run, (size_t)(s - run));
	pt_buf_chr(b, '"');
}

void pt_buf_hex(struct pt_buf *b, const void *data, size_t n)
{
	static const char hex[] = "0123456789abcdef";
	const unsigned char *d = data;

	if (!pt_buf_room(b, n * 2))
		return;
	for (size_t i = 0; i < n; i++) {
		b->p[b->len++] = hex[d[i] >> 4];
		b->p[b->len++] = hex[d[i] & 15];
	}
	b->p[b->len] = '\0';
}

static const char b64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void pt_buf_base64(struct pt_buf *b, const void *data, size_t n)
{
	const unsigned char *d = data;

	if (!pt_buf_room(b, (n + 2) / 3 * 4))
		return;
	for (size_t i = 0; i < n; i += 3) {
		unsigned v = (unsigned)d[i] << 16 | (i + 1 < n ? (unsigned)d[i + 1] << 8 : 0) | (i + 2 < n ? d[i + 2] : 0);

		b->p[b->len++] = b64[v >> 18];
		b->p[b->len++] = b64[v >> 12 & 63];
		b->p[b->len++] = i + 1 < n ? b64[v >> 6 & 63] : '=';
		b->p[b->len++] = i + 2 < n ? b64[v & 63] : '=';
	}
	b->p[b->len] = '\0';
}

int pt_base64_decode(const char *s, size_t n, struct pt_buf *b, struct pt_err *err)
{
	unsigned acc = 0, bits = 0, pad = 0;

	for (size_t i = 0; i < n; i++) {
		const char *at = s[i] ? strchr(b64, s[i]) : NULL;

		if (s[i] == ' ' || s[i] == '\n' || s[i] == '\r' || s[i] == '\t')
			continue;
		if (s[i] == '=' && ++pad <= 2)
			continue;
		if (!at || pad)
			return pt_fail(err, PT_E_INVALID, "not base64 at byte %zu", i);
		acc = (acc << 6 | (unsigned)(at - b64)) & 0xffffff;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			pt_buf_chr(b, (char)(acc >> bits & 0xff));
		}
	}
	if (bits >= 6)
		return pt_fail(err, PT_E_INVALID, "base64 ends in the middle of a byte");
	return pt_buf_done(b, err);
}

int pt_buf_done(const struct pt_buf *b, struct pt_err *err)
{
	if (!b->bad)
		return PT_OK;
	return b->bad == PT_E_TOO_LARGE ? pt_fail(err, b->bad, "text passes its limit of %zu bytes", b->max - 1)
					: pt_fail_oom(err);
}

void pt_buf_clear(struct pt_buf *b)
{
	b->len = 0;
	b->bad = PT_OK;
	if (b->cap)
		b->p[0] = '\0';
}

char *pt_buf_detach(struct pt_buf *b, size_t *ret_len)
{
	char *p = b->cap ? b->p : calloc(1, 1);

	if (ret_len)
		*ret_len = b->len;
	*b = (struct pt_buf)PT_BUF_INIT(b->max);
	return p;
}

void pt_buf_release(struct pt_buf *b)
{
	if (b->cap)
		free(b->p);
	*b = (struct pt_buf)PT_BUF_INIT(b->max);
}
