#include "ctl/cells.h"
#include <jansson.h>

static void blanks(struct pt_cells *c)
{
	while (c->p < c->end && strchr(" \t\r", *c->p) && *c->p)
		c->p++;
}

static int bad(const struct pt_cells *c, struct pt_err *err)
{
	size_t n = (size_t)(c->end - c->p);

	return pt_fail(err, PT_E_CORRUPT, "a row is not a JSON array at '%.*s'", (int)(n < 20 ? n : 20), c->p);
}

/* End of the string that begins at p (behind its closing quote), NULL when it has none. */
static const char *string_end(const char *p, const char *end)
{
	for (p++; p < end; p++)
		if (*p == '\\')
			p++;
		else if (*p == '"')
			return p + 1;
	return NULL;
}

/* End of the value at p: a string, a nested value, or a bare word. */
static const char *value_end(const char *p, const char *end)
{
	size_t depth = 0;

	if (p < end && *p == '"')
		return string_end(p, end);
	while (p && p < end) {
		if (*p == '"') {
			p = string_end(p, end);
			continue;
		}
		if (!depth && strchr(",] \t\r", *p))
			return p;
		if (*p == '[' || *p == '{')
			depth++;
		if ((*p == ']' || *p == '}') && --depth == 0)
			return p + 1;
		p++;
	}
	return NULL; /* at least the row's own bracket must follow */
}

/* The text of the JSON string p[0..n).  Without escapes it is what stands between the quotes. */
static int decode(const char *p, size_t n, struct pt_buf *scratch, struct pt_cell *ret, struct pt_err *err)
{
	json_t *j;

	if (!memchr(p, '\\', n)) {
		*ret = (struct pt_cell) { .p = p + 1, .n = n - 2 };
		return PT_OK;
	}
	j = json_loadb(p, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
	if (!j)
		return pt_fail(err, PT_E_CORRUPT, "a row has a string that is not JSON");
	pt_buf_clear(scratch);
	pt_buf_add(scratch, json_string_value(j), json_string_length(j));
	json_decref(j);
	*ret = (struct pt_cell) { .p = scratch->p, .n = scratch->len };
	return pt_buf_done(scratch, err);
}

int pt_cells_next(struct pt_cells *c, struct pt_buf *scratch, struct pt_cell *ret, struct pt_err *err)
{
	char open = c->started ? ',' : '[';
	const char *p, *stop;
	int rc = PT_OK;

	blanks(c);
	if (c->p < c->end && c->started && *c->p == ']') {
		c->p++;
		blanks(c);
		return c->p == c->end ? 0 : bad(c, err);
	}
	if (c->p == c->end || *c->p != open)
		return bad(c, err);
	c->p++;
	blanks(c);
	if (!c->started && c->p < c->end && *c->p == ']') {
		c->started = true;
		return pt_cells_next(c, scratch, ret, err); /* an empty row: its end */
	}
	c->started = true;
	p = c->p;
	stop = value_end(p, c->end);
	if (!stop || stop == p)
		return bad(c, err);
	if (*p == '"')
		rc = decode(p, (size_t)(stop - p), scratch, ret, err);
	else
		*ret = (struct pt_cell) { .p = p, .n = (size_t)(stop - p), .null = stop - p == 4 && memcmp(p, "null", 4) == 0 };
	c->p = stop;
	return rc < 0 ? rc : 1;
}
