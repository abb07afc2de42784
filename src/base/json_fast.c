/* A quick reader of plain JSON: requests carry kilobytes of text that jansson looks at byte by byte through three functions, which
 * was a third of the gateway's work for a request.  What is not plain (an escape by \u, a fraction, a long number, a repeated name, a
 * deep nesting, anything wrong) is left to jansson, which reads all of it again: it decides, and has the messages. */
#include "base/json_fast.h"
#include "base/buf.h"

enum { DEPTH = 64, DIGITS = 18 };

struct text {
	const unsigned char *p, *end;
	int depth;
};

static json_t *value(struct text *t);

static void skip_space(struct text *t)
{
	while (t->p < t->end && (*t->p == ' ' || *t->p == '\n' || *t->p == '\r' || *t->p == '\t'))
		t->p++;
}

static bool take(struct text *t, char c)
{
	skip_space(t);
	if (t->p == t->end || *t->p != (unsigned char)c)
		return false;
	t->p++;
	return true;
}

/* The bytes up to the next quote or backslash; false when one of them is not valid in a string. */
static bool run(struct text *t)
{
	while (t->p < t->end && *t->p != '"' && *t->p != '\\') {
		int n = *t->p < 0x20 ? 0 : *t->p < 0x80 ? 1 : pt_utf8_len((const char *)t->p, (size_t)(t->end - t->p));

		if (!n)
			return false;
		t->p += n;
	}
	return t->p < t->end;
}

/* Behind the opening quote.  The result lies in the text, or in b when it has escapes. */
static bool string(struct text *t, struct pt_buf *b, const char **ret, size_t *ret_n)
{
	static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
	const unsigned char *start = t->p;

	for (;;) {
		const char *e;

		if (!run(t))
			return false;
		if (*t->p == '"')
			break;
		if (t->end - t->p < 2 || !t->p[1] || !(e = strchr(escapes, t->p[1])))
			return false;
		pt_buf_add(b, start, (size_t)(t->p - start));
		pt_buf_chr(b, meant[e - escapes]);
		t->p += 2;
		start = t->p;
	}
	*ret = (const char *)start;
	*ret_n = (size_t)(t->p++ - start);
	if (b->len || b->bad) {
		pt_buf_add(b, start, *ret_n);
		*ret = b->p;
		*ret_n = b->len;
	}
	return !b->bad;
}

static json_t *string_value(struct text *t)
{
	pt_auto_buf b = PT_BUF_INIT(SIZE_MAX / 2);
	const char *s;
	size_t n;

	return string(t, &b, &s, &n) ? json_stringn_nocheck(s, n) : NULL;
}

static bool members(struct text *t, json_t *object)
{
	if (take(t, '}'))
		return true;
	do {
		pt_auto_buf b = PT_BUF_INIT(SIZE_MAX / 2);
		size_t before = json_object_size(object), n;
		const char *name;

		if (!take(t, '"') || !string(t, &b, &name, &n) || !take(t, ':') ||
		    json_object_setn_new_nocheck(object, name, n, value(t)) < 0 || json_object_size(object) == before)
			return false;
	} while (take(t, ','));
	return take(t, '}');
}

static bool items(struct text *t, json_t *array)
{
	if (take(t, ']'))
		return true;
	do
		if (json_array_append_new(array, value(t)) < 0)
			return false;
	while (take(t, ','));
	return take(t, ']');
}

static json_t *container(struct text *t, bool object)
{
	json_t *j = ++t->depth > DEPTH ? NULL : object ? json_object() : json_array();

	if (j && !(object ? members(t, j) : items(t, j))) {
		json_decref(j);
		j = NULL;
	}
	t->depth--;
	return j;
}

static json_t *number(struct text *t)
{
	bool minus = t->p < t->end && *t->p == '-';
	const unsigned char *start = t->p += minus;
	json_int_t n = 0;

	while (t->p < t->end && *t->p >= '0' && *t->p <= '9' && t->p - start < DIGITS)
		n = n * 10 + (*t->p++ - '0');
	if (t->p == start || (*start == '0' && t->p - start > 1) || (minus && !n) ||
	    (t->p < t->end && ((*t->p >= '0' && *t->p <= '9') || *t->p == '.' || *t->p == 'e' || *t->p == 'E')))
		return NULL;
	return json_integer(minus ? -n : n);
}

static bool word(struct text *t, const char *text)
{
	size_t n = strlen(text);

	if ((size_t)(t->end - t->p) < n || memcmp(t->p, text, n) != 0)
		return false;
	t->p += n;
	return true;
}

static json_t *value(struct text *t)
{
	skip_space(t);
	if (t->p == t->end)
		return NULL;
	switch (*t->p) {
	case '"':
		t->p++;
		return string_value(t);
	case '{':
	case '[':
		return container(t, *t->p++ == '{');
	case 't':
		return word(t, "true") ? json_true() : NULL;
	case 'f':
		return word(t, "false") ? json_false() : NULL;
	case 'n':
		return word(t, "null") ? json_null() : NULL;
	default:
		return number(t);
	}
}

json_t *pt_json_fast(const char *text, size_t n)
{
	struct text t = { .p = (const unsigned char *)text, .end = (const unsigned char *)text + n };
	json_t *j = value(&t);

	skip_space(&t);
	if (j && t.p != t.end) {
		json_decref(j);
		return NULL;
	}
	return j;
}
