/* JSON text of single values.  A writer per logical type, chosen once per column. */
#include "connector/json_value.h"
#include "base/value_text.h"
#include <math.h>

static const char hex[] = "0123456789abcdef";

#define ONES 0x0101010101010101ULL
#define HIGH 0x8080808080808080ULL

/* The high bit of each byte that needs a look: below 0x20, a quote, a backslash, not ASCII.  A borrow may mark a byte above one that
 * is marked, never below: the lowest mark is right (little-endian: the first byte). */
static inline uint64_t special8(uint64_t w)
{
	uint64_t quote = w ^ (ONES * '"'), slash = w ^ (ONES * '\\');

	return ((w - ONES * 0x20) | (quote - ONES) | (slash - ONES) | w) & HIGH;
}

static char *put_escaped(char *p, unsigned char c)
{
	const char *at = memchr("\bb\ff\nn\rr\tt", c, 10);

	*p++ = '\\';
	if (c == '"' || c == '\\') {
		*p++ = (char)c;
	} else if (at) {
		*p++ = at[1];
	} else {
		memcpy(p, "u00", 3);
		p[3] = hex[c >> 4];
		p[4] = hex[c & 15];
		p += 5;
	}
	return p;
}

/* A JSON string; bytes that are not UTF-8 become U+FFFD.  Takes at most 6 bytes per byte and the quotes. */
static char *put_string(char *p, const char *s, size_t n)
{
	const char *end = s + n;

	*p++ = '"';
	while (s < end) {
		unsigned char c;
		int u;

		if (end - s >= 8) {
			uint64_t w, special;
			int plain;

			memcpy(&w, s, 8);
			special = special8(w);
			plain = special ? __builtin_ctzll(special) / 8 : 8;
			memcpy(p, &w, 8);
			p += plain;
			s += plain;
			if (!special)
				continue;
		}
		c = (unsigned char)*s;
		if (c >= 0x20 && c < 0x80 && c != '"' && c != '\\') {
			*p++ = (char)c;
			s++;
		} else if (c < 0x80) {
			p = put_escaped(p, c);
			s++;
		} else if ((u = pt_utf8_len(s, (size_t)(end - s))) > 0) {
			memcpy(p, s, (size_t)u);
			p += u;
			s += u;
		} else {
			memcpy(p, "\xef\xbf\xbd", 3);
			p += 3;
			s++;
		}
	}
	*p++ = '"';
	return p;
}

/* What put_string() takes at most, with a look at each byte. */
static size_t string_most(const char *s, size_t n)
{
	size_t most = n + 2;

	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c < 0x20)
			most += 5;
		else if (c >= 0x80)
			most += 2; /* one byte alone may become three */
		else if (c == '"' || c == '\\')
			most++;
	}
	return most;
}

/* --- well-formed JSON --- */
enum { DEPTH = 1000 };

static const char *skip_space(const char *s, const char *end)
{
	while (s < end && (*s == ' ' || *s == '\n' || *s == '\r' || *s == '\t'))
		s++;
	return s;
}

static const char *skip_string(const char *s, const char *end) /* after the opening quote; NULL = bad */
{
	while (s < end) {
		unsigned char c = (unsigned char)*s;
		int u = 1;

		if (c == '"')
			return s + 1;
		if (c < 0x20)
			return NULL;
		if (c == '\\') {
			if (end - s < 2 || !s[1] || !strchr("\"\\/bfnrtu", s[1]))
				return NULL;
			u = s[1] == 'u' ? 6 : 2;
			if (end - s < u)
				return NULL;
			for (int i = 2; i < u; i++)
				if (!memchr("0123456789abcdefABCDEF", s[i], 22))
					return NULL;
		} else if (c >= 0x80) {
			u = pt_utf8_len(s, (size_t)(end - s));
			if (!u)
				return NULL;
		}
		s += u;
	}
	return NULL;
}

static const char *skip_digits(const char *s, const char *end)
{
	const char *from = s;

	while (s < end && *s >= '0' && *s <= '9')
		s++;
	return s > from ? s : NULL;
}

static const char *skip_number(const char *s, const char *end)
{
	if (s < end && *s == '-')
		s++;
	if (s < end && *s == '0')
		s++;
	else if (!(s = skip_digits(s, end)))
		return NULL;
	if (s < end && *s == '.' && !(s = skip_digits(s + 1, end)))
		return NULL;
	if (s < end && (*s == 'e' || *s == 'E')) {
		s++;
		if (s < end && (*s == '+' || *s == '-'))
			s++;
		s = skip_digits(s, end);
	}
	return s;
}

static const char *skip_scalar(const char *s, const char *end)
{
	static const char *const words[] = { "true", "false", "null" };

	if (*s == '"')
		return skip_string(s + 1, end);
	for (size_t i = 0; i < PT_COUNT(words); i++) {
		size_t n = strlen(words[i]);

		if ((size_t)(end - s) >= n && memcmp(s, words[i], n) == 0)
			return s + n;
	}
	return skip_number(s, end);
}

/* "name": */
static const char *skip_name(const char *s, const char *end)
{
	s = skip_space(s, end);
	if (s == end || *s != '"' || !(s = skip_string(s + 1, end)))
		return NULL;
	s = skip_space(s, end);
	return s < end && *s == ':' ? skip_space(s + 1, end) : NULL;
}

bool pt_json_valid(const char *s, size_t n)
{
	const char *end = s + n;
	char open[DEPTH];
	int depth = 0;

	s = skip_space(s, end);
	for (;;) { /* a value begins at s */
		if (!s || s == end)
			return false;
		if (*s == '[' || *s == '{') {
			char close = *s == '[' ? ']' : '}';

			if (depth == DEPTH)
				return false;
			s = skip_space(s + 1, end);
			if (s == end)
				return false;
			if (*s != close) {
				open[depth++] = close;
				if (close == '}')
					s = skip_name(s, end);
				continue;
			}
			s++;
		} else if (!(s = skip_scalar(s, end))) {
			return false;
		}
		for (;;) { /* a value has ended */
			s = skip_space(s, end);
			if (!depth)
				return s == end;
			if (s == end)
				return false;
			if (*s != open[depth - 1])
				break;
			depth--;
			s++;
		}
		if (*s++ != ',')
			return false;
		s = open[depth - 1] == '}' ? skip_name(s, end) : skip_space(s, end);
	}
}

/* --- one writer per type --- */
static inline const char *text_at(const struct pt_json_col *c, int64_t row, size_t *ret_n)
{
	*ret_n = pt_json_source_len(c, row);
	return (const char *)c->data + c->offsets[c->first + row];
}

static char *write_bool(char *p, const struct pt_json_col *c, int64_t row)
{
	row += c->first;
	if (((const uint8_t *)c->data)[row >> 3] >> (row & 7) & 1)
		return (char *)memcpy(p, "true", 4) + 4;
	return (char *)memcpy(p, "false", 5) + 5;
}

static char *write_int16(char *p, const struct pt_json_col *c, int64_t row)
{
	return pt_text_i64(p, ((const int16_t *)c->data)[c->first + row]);
}

static char *write_int32(char *p, const struct pt_json_col *c, int64_t row)
{
	return pt_text_i64(p, ((const int32_t *)c->data)[c->first + row]);
}

static char *write_int64(char *p, const struct pt_json_col *c, int64_t row)
{
	return pt_text_i64(p, ((const int64_t *)c->data)[c->first + row]);
}

static char *write_float32(char *p, const struct pt_json_col *c, int64_t row)
{
	float v = ((const float *)c->data)[c->first + row];

	if (isfinite(v))
		return pt_text_f32(p, v);
	*p++ = '"';
	p = pt_text_f32(p, v);
	*p++ = '"';
	return p;
}

static char *write_float64(char *p, const struct pt_json_col *c, int64_t row)
{
	double v = ((const double *)c->data)[c->first + row];

	if (isfinite(v))
		return pt_text_f64(p, v);
	*p++ = '"';
	p = pt_text_f64(p, v);
	*p++ = '"';
	return p;
}

static char *write_text(char *p, const struct pt_json_col *c, int64_t row)
{
	size_t n;
	const char *s = text_at(c, row, &n);

	return put_string(p, s, n);
}

static char *write_bytes(char *p, const struct pt_json_col *c, int64_t row)
{
	static const char b64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t n;
	const unsigned char *d = (const unsigned char *)text_at(c, row, &n);

	*p++ = '"';
	for (size_t i = 0; i < n; i += 3) {
		unsigned v = (unsigned)d[i] << 16 | (i + 1 < n ? (unsigned)d[i + 1] << 8 : 0) | (i + 2 < n ? d[i + 2] : 0);

		*p++ = b64[v >> 18];
		*p++ = b64[v >> 12 & 63];
		*p++ = i + 1 < n ? b64[v >> 6 & 63] : '=';
		*p++ = i + 2 < n ? b64[v & 63] : '=';
	}
	*p++ = '"';
	return p;
}

static char *write_date(char *p, const struct pt_json_col *c, int64_t row)
{
	*p++ = '"';
	p = pt_text_date(p, ((const int32_t *)c->data)[c->first + row]);
	*p++ = '"';
	return p;
}

static char *write_time(char *p, const struct pt_json_col *c, int64_t row)
{
	*p++ = '"';
	p = pt_text_time(p, ((const int64_t *)c->data)[c->first + row]);
	*p++ = '"';
	return p;
}

static char *write_timestamp(char *p, const struct pt_json_col *c, int64_t row)
{
	*p++ = '"';
	p = pt_text_timestamp(p, ((const int64_t *)c->data)[c->first + row], false);
	*p++ = '"';
	return p;
}

static char *write_timestamptz(char *p, const struct pt_json_col *c, int64_t row)
{
	*p++ = '"';
	p = pt_text_timestamp(p, ((const int64_t *)c->data)[c->first + row], true);
	*p++ = '"';
	return p;
}

static char *write_uuid(char *p, const struct pt_json_col *c, int64_t row)
{
	*p++ = '"';
	p = pt_text_uuid(p, (const uint8_t *)c->data + 16 * (c->first + row));
	*p++ = '"';
	return p;
}

/* Embedded as it is, on one line: control characters cannot be within the strings of a well-formed document, so those that are
 * there separate tokens.  What is not well-formed becomes a JSON string: the line stays valid and nothing is lost. */
static char *write_json(char *p, const struct pt_json_col *c, int64_t row)
{
	size_t n;
	const char *s = text_at(c, row, &n);

	if (!pt_json_valid(s, n))
		return put_string(p, s, n);
	for (size_t i = 0; i < n; i++)
		p[i] = (unsigned char)s[i] < 0x20 ? ' ' : s[i];
	return p + n;
}

static const struct {
	pt_json_writer *write;
	size_t fixed;
} writers[PT_L_END] = {
	[PT_L_BOOL] = { write_bool, 5 },
	[PT_L_INT16] = { write_int16, PT_TEXT_I64 },
	[PT_L_INT32] = { write_int32, PT_TEXT_I64 },
	[PT_L_INT64] = { write_int64, PT_TEXT_I64 },
	[PT_L_FLOAT32] = { write_float32, PT_TEXT_FLOAT },
	[PT_L_FLOAT64] = { write_float64, PT_TEXT_FLOAT },
	[PT_L_DECIMAL] = { write_text, 4 },
	[PT_L_TEXT] = { write_text, 4 },
	[PT_L_BYTES] = { write_bytes, 4 },
	[PT_L_DATE] = { write_date, PT_TEXT_DATE + 2 },
	[PT_L_TIME] = { write_time, PT_TEXT_DATE + 2 },
	[PT_L_TIMETZ] = { write_text, 4 },
	[PT_L_TIMESTAMP] = { write_timestamp, PT_TEXT_TIMESTAMP + 2 },
	[PT_L_TIMESTAMPTZ] = { write_timestamptz, PT_TEXT_TIMESTAMP + 2 },
	[PT_L_INTERVAL] = { write_text, 4 },
	[PT_L_UUID] = { write_uuid, 38 },
	[PT_L_JSON] = { write_json, 4 },
	[PT_L_ARRAY] = { write_json, 4 },
	[PT_L_ANY] = { write_json, 4 },
};

void pt_json_col_init(struct pt_json_col *c, enum pt_logical t)
{
	*c = (struct pt_json_col) { .write = writers[t].write, .fixed = writers[t].fixed };
}

void pt_json_col_bind(struct pt_json_col *c, const struct ArrowArray *a, int64_t first)
{
	bool variable = a->n_buffers == 3;

	c->valid = a->null_count ? a->buffers[0] : NULL;
	c->offsets = variable ? a->buffers[1] : NULL;
	c->data = a->buffers[variable ? 2 : 1];
	c->first = a->offset + first;
}

void pt_json_col_bind_build(struct pt_json_col *c, const struct pt_col *col)
{
	c->valid = col->nulls ? col->valid : NULL;
	c->offsets = col->offsets;
	c->data = col->data;
	c->first = 0;
}

size_t pt_json_value_most(const struct pt_json_col *c, int64_t row)
{
	size_t n;
	const char *s;

	if (!c->offsets || pt_json_is_null(c, row))
		return c->fixed;
	s = text_at(c, row, &n);
	if (c->write == write_bytes)
		return (n + 2) / 3 * 4 + 2;
	return n <= 4096 ? 6 * n + 4 : string_most(s, n) + 2;
}
