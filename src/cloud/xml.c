/* Reading answers in XML, see xml.h.  A scanner: it keeps no state but its place. */
#include "cloud/xml.h"
#include <ctype.h>

static void skip(struct pt_xml *x, size_t n)
{
	x->p += n;
	x->n -= n;
}

/* Behind the next text (which is part of what is skipped), or the end. */
static void skip_past(struct pt_xml *x, const char *text)
{
	const char *at = memmem(x->p, x->n, text, strlen(text));

	skip(x, at ? (size_t)(at - x->p) + strlen(text) : x->n);
}

/* The name at x without its namespace's prefix. */
static struct pt_xml name_of(const struct pt_xml *x)
{
	struct pt_xml name = { x->p, 0 };
	const char *colon;

	while (name.n < x->n && !isspace((unsigned char)name.p[name.n]) && !strchr("/><", name.p[name.n]))
		name.n++;
	colon = memchr(name.p, ':', name.n);
	if (colon)
		name = (struct pt_xml) { colon + 1, name.n - (size_t)(colon + 1 - name.p) };
	return name;
}

static bool is(struct pt_xml name, const char *text)
{
	return name.n == strlen(text) && memcmp(name.p, text, name.n) == 0;
}

/* To behind the '>' of a start tag; true when it was "/>". */
static bool skip_tag(struct pt_xml *x)
{
	char quote = 0, last = 0;

	while (x->n) {
		char c = *x->p;

		skip(x, 1);
		if (quote) {
			quote = c == quote ? 0 : quote;
		} else if (c == '"' || c == '\'') {
			quote = c;
		} else if (c == '>') {
			break;
		}
		last = c;
	}
	return last == '/';
}

/* The content up to the end tag of name, which is skipped; the rest when there is none. */
static struct pt_xml content(struct pt_xml *x, const char *name)
{
	struct pt_xml in = *x;

	while (x->n) {
		const char *lt = memchr(x->p, '<', x->n);

		skip(x, lt ? (size_t)(lt - x->p) : x->n);
		in.n = (size_t)(x->p - in.p);
		if (x->n < 2)
			break;
		skip(x, 1);
		if (*x->p != '/')
			continue;
		skip(x, 1);
		if (is(name_of(x), name)) {
			(void)skip_tag(x);
			return in;
		}
	}
	in.n = (size_t)(x->p - in.p);
	return in;
}

bool pt_xml_next(struct pt_xml *rest, const char *name, struct pt_xml *ret)
{
	while (rest->n) {
		skip_past(rest, "<");
		if (rest->n >= 3 && memcmp(rest->p, "!--", 3) == 0) {
			skip_past(rest, "-->");
		} else if (rest->n && is(name_of(rest), name)) {
			if (skip_tag(rest))
				*ret = (struct pt_xml) { rest->p, 0 };
			else
				*ret = content(rest, name);
			return true;
		}
	}
	return false;
}

static void utf8(struct pt_buf *out, unsigned long c)
{
	if (c == 0 || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
		pt_buf_str(out, "\xef\xbf\xbd");
	} else if (c < 0x80) {
		pt_buf_chr(out, (char)c);
	} else if (c < 0x800) {
		pt_buf_chr(out, (char)(0xc0 | c >> 6));
		pt_buf_chr(out, (char)(0x80 | (c & 0x3f)));
	} else {
		if (c >= 0x10000)
			pt_buf_chr(out, (char)(0xf0 | c >> 18));
		pt_buf_chr(out, (char)(c < 0x10000 ? 0xe0 | c >> 12 : 0x80 | (c >> 12 & 0x3f)));
		pt_buf_chr(out, (char)(0x80 | (c >> 6 & 0x3f)));
		pt_buf_chr(out, (char)(0x80 | (c & 0x3f)));
	}
}

/* "amp", "#38", "#x26"; false: it is none that we know. */
static bool reference(const char *p, size_t n, struct pt_buf *out)
{
	static const struct {
		const char *name;
		char c;
	} known[] = { { "amp", '&' }, { "lt", '<' }, { "gt", '>' }, { "quot", '"' }, { "apos", '\'' } };
	char digits[12], *end;
	unsigned long c;
	bool hex;

	for (size_t i = 0; i < PT_COUNT(known); i++)
		if (is((struct pt_xml) { p, n }, known[i].name)) {
			pt_buf_chr(out, known[i].c);
			return true;
		}
	if (n < 2 || *p != '#')
		return false;
	hex = p[1] == 'x';
	p += 1 + hex;
	n -= (size_t)1 + hex;
	if (n == 0 || n >= sizeof(digits) || !isxdigit((unsigned char)*p))
		return false;
	memcpy(digits, p, n);
	digits[n] = '\0';
	c = strtoul(digits, &end, hex ? 16 : 10);
	if (*end)
		return false;
	utf8(out, c);
	return true;
}

bool pt_xml_text(struct pt_xml doc, const char *name, struct pt_buf *out)
{
	struct pt_xml in;

	if (!pt_xml_next(&doc, name, &in))
		return false;
	while (in.n) {
		const char *semi = *in.p == '&' ? memchr(in.p, ';', in.n < 16 ? in.n : 16) : NULL;

		if (semi && reference(in.p + 1, (size_t)(semi - in.p - 1), out)) {
			skip(&in, (size_t)(semi - in.p) + 1);
			continue;
		}
		pt_buf_chr(out, *in.p);
		skip(&in, 1);
	}
	return true;
}
