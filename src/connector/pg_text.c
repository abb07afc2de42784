/* PostgreSQL's text forms of the types whose columns are not text.  Used when a result has a column whose type has no binary form
 * that we know: libpq asks for one format for all columns. */
#include "connector/pg_types.h"
#include "base/value_text.h"

enum { NUMBER_MAX = 64 };

/* A bounded cursor: every reader checks against end. */
struct cur {
	const char *p, *end;
};

static bool eat(struct cur *c, char ch)
{
	if (c->p == c->end || *c->p != ch)
		return false;
	c->p++;
	return true;
}

static bool digits(struct cur *c, int64_t *ret) /* at least one, at most 18 */
{
	const char *from = c->p;
	int64_t v = 0;

	while (c->p < c->end && *c->p >= '0' && *c->p <= '9' && c->p - from < 18)
		v = v * 10 + (*c->p++ - '0');
	*ret = v;
	return c->p > from;
}

static bool word(struct cur *c, const char *w)
{
	size_t n = strlen(w);

	if ((size_t)(c->end - c->p) < n || memcmp(c->p, w, n) != 0)
		return false;
	c->p += n;
	return true;
}

static bool integer(const char *p, int n, int64_t min, int64_t max, int64_t *ret)
{
	struct cur c = { p, p + n };
	bool negative = eat(&c, '-');
	uint64_t v = 0;

	if (c.p == c.end)
		return false;
	for (; c.p < c.end; c.p++)
		if (*c.p < '0' || *c.p > '9' || __builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *c.p - '0', &v))
			return false;
	if (v > (uint64_t)INT64_MAX + negative)
		return false;
	*ret = negative ? (int64_t)(0 - v) : (int64_t)v;
	return *ret >= min && *ret <= max;
}

int pg_text_bool(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	if (n != 1 || (*p != 't' && *p != 'f'))
		return pg_bad_value(col, err);
	pt_add_bool(c, *p == 't');
	return PT_OK;
}

int pg_text_int16(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	int64_t v;

	if (!integer(p, n, INT16_MIN, INT16_MAX, &v))
		return pg_bad_value(col, err);
	pt_add_i16(c, (int16_t)v);
	return PT_OK;
}

int pg_text_int32(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	int64_t v;

	if (!integer(p, n, INT32_MIN, INT32_MAX, &v))
		return pg_bad_value(col, err);
	pt_add_i32(c, (int32_t)v);
	return PT_OK;
}

int pg_text_int64(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	int64_t v;

	if (!integer(p, n, INT64_MIN, INT64_MAX, &v))
		return pg_bad_value(col, err);
	pt_add_i64(c, v);
	return PT_OK;
}

/* A float's text with a NUL behind it, for strtod(); false when it cannot be one. */
static bool number(const char *p, int n, char out[static NUMBER_MAX])
{
	if (n < 1 || n >= NUMBER_MAX)
		return false;
	memcpy(out, p, (size_t)n);
	out[n] = '\0';
	return true;
}

int pg_text_float32(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	char text[NUMBER_MAX], *rest;
	float v;

	if (!number(p, n, text))
		return pg_bad_value(col, err);
	v = strtof(text, &rest);
	if (*rest)
		return pg_bad_value(col, err);
	pt_add_f32(c, v);
	return PT_OK;
}

int pg_text_float64(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	char text[NUMBER_MAX], *rest;
	double v;

	if (!number(p, n, text))
		return pg_bad_value(col, err);
	v = strtod(text, &rest);
	if (*rest)
		return pg_bad_value(col, err);
	pt_add_f64(c, v);
	return PT_OK;
}

static int nibble(char ch)
{
	if (ch >= '0' && ch <= '9')
		return ch - '0';
	ch |= 0x20;
	return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

/* n hexadecimal digits at p, which is an even number of them, to out. */
static bool unhex(const char *p, int n, char *out)
{
	for (int i = 0; i + 1 < n; i += 2) {
		int hi = nibble(p[i]), lo = nibble(p[i + 1]);

		if (hi < 0 || lo < 0)
			return false;
		out[i / 2] = (char)(hi << 4 | lo);
	}
	return n % 2 == 0;
}

int pg_text_bytea(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	char *o = n >= 2 ? pt_col_room(b, c, (size_t)n / 2) : NULL;
	bool good = n >= 2 && p[0] == '\\' && p[1] == 'x' && (!o || unhex(p + 2, n - 2, o));

	pt_col_wrote(c, o && good ? (size_t)(n - 2) / 2 : 0);
	return good ? PT_OK : pg_bad_value(col, err);
}

int pg_text_uuid(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	char plain[32], out[16];
	int k = 0;

	for (int i = 0; i < n && k < 32; i++)
		if (p[i] != '-')
			plain[k++] = p[i];
	if (n != 36 || k != 32 || !unhex(plain, 32, out))
		return pg_bad_value(col, err);
	pt_add_uuid(c, out);
	return PT_OK;
}

/* The lc_monetary of the server decides about signs and separators: digits count, and whether it is negative. */
int pg_text_money(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	bool negative = false;
	uint64_t v = 0;

	for (int i = 0; i < n; i++) {
		negative |= p[i] == '-' || p[i] == '(';
		if (p[i] >= '0' && p[i] <= '9' &&
		    (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, p[i] - '0', &v)))
			return pg_bad_value(col, err);
	}
	pg_add_money(col, b, c, (int64_t)(negative ? 0 - v : v));
	return PT_OK;
}

/* --- dates and times --- */
static bool date_part(struct cur *c, int64_t *y, int64_t *m, int64_t *d)
{
	return digits(c, y) && eat(c, '-') && digits(c, m) && eat(c, '-') && digits(c, d) && *m >= 1 && *m <= 12 && *d >= 1 &&
	       *d <= 31 && *y < 6000000;
}

static bool time_part(struct cur *c, int64_t *us)
{
	int64_t h, m, s, fraction = 0;

	if (!digits(c, &h) || !eat(c, ':') || !digits(c, &m) || !eat(c, ':') || !digits(c, &s) || h > 24 || m > 59 || s > 60)
		return false;
	if (eat(c, '.')) {
		const char *from = c->p;

		if (!digits(c, &fraction) || c->p - from > 6)
			return false;
		for (int i = (int)(c->p - from); i < 6; i++)
			fraction *= 10;
	}
	*us = (h * 3600 + m * 60 + s) * 1000000 + fraction;
	return true;
}

static bool zone_part(struct cur *c, int *ret_east) /* +02, -05:30, +00:19:32 */
{
	int64_t h = 0, m = 0, s = 0;
	bool west = eat(c, '-');

	if ((!west && !eat(c, '+')) || !digits(c, &h) || (eat(c, ':') && !digits(c, &m)) || (eat(c, ':') && !digits(c, &s)) ||
	    h > 24)
		return false;
	*ret_east = (int)(h * 3600 + m * 60 + s) * (west ? -1 : 1);
	return true;
}

int pg_text_date(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	struct cur k = { p, p + n };
	int64_t y, m, d;

	if (n == 8 && !memcmp(p, "infinity", 8)) {
		pt_add_i32(c, PT_DATE_INF);
	} else if (n == 9 && !memcmp(p, "-infinity", 9)) {
		pt_add_i32(c, PT_DATE_NINF);
	} else {
		if (!date_part(&k, &y, &m, &d))
			return pg_bad_value(col, err);
		y = word(&k, " BC") ? 1 - y : y;
		if (k.p != k.end)
			return pg_bad_value(col, err);
		pt_add_i32(c, (int32_t)pt_days_from_civil(y, (unsigned)m, (unsigned)d));
	}
	return PT_OK;
}

int pg_text_time(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	struct cur k = { p, p + n };
	int64_t us;

	if (!time_part(&k, &us) || k.p != k.end)
		return pg_bad_value(col, err);
	pt_add_i64(c, us);
	return PT_OK;
}

int pg_text_timetz(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	struct cur k = { p, p + n };
	int64_t us;
	int east;

	if (!time_part(&k, &us) || !zone_part(&k, &east) || k.p != k.end)
		return pg_bad_value(col, err);
	pg_add_timetz(b, c, us, east);
	return PT_OK;
}

/* With and without time zone. */
int pg_text_timestamp(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	struct cur k = { p, p + n };
	int64_t y, m, d, us, v;
	int east = 0;

	if (n == 8 && !memcmp(p, "infinity", 8)) {
		pt_add_i64(c, PT_TS_INF);
		return PT_OK;
	}
	if (n == 9 && !memcmp(p, "-infinity", 9)) {
		pt_add_i64(c, PT_TS_NINF);
		return PT_OK;
	}
	if (!date_part(&k, &y, &m, &d) || !eat(&k, ' ') || !time_part(&k, &us) ||
	    (c->type == PT_L_TIMESTAMPTZ && !zone_part(&k, &east)))
		return pg_bad_value(col, err);
	y = word(&k, " BC") ? 1 - y : y;
	if (k.p != k.end)
		return pg_bad_value(col, err);
	if (__builtin_mul_overflow(pt_days_from_civil(y, (unsigned)m, (unsigned)d), 86400000000LL, &v) ||
	    __builtin_add_overflow(v, us - east * 1000000LL, &v)) {
		(void)pt_fail(err, PT_E_UNSUPPORTED, "a %s after the year 294246 does not fit into 64 bits", col->type->name);
		return pt_hint(err, "cast the column to text in the query");
	}
	pt_add_i64(c, v);
	return PT_OK;
}

/* --- arrays: {1,NULL,"a \"quoted\" one",{…}}, maybe after bounds: [0:2]={…} --- */
/* One element at k; quoted ones are unescaped into tmp. */
static int element(struct pg_col *col, struct cur *k, struct pt_buf *tmp, struct pt_err *err)
{
	const char *from = k->p;
	int rc;

	if (eat(k, '"')) {
		pt_buf_clear(tmp);
		for (;;) {
			if (k->p == k->end)
				return pg_bad_value(col, err);
			if (*k->p == '"')
				break;
			if (*k->p == '\\' && ++k->p == k->end)
				return pg_bad_value(col, err);
			pt_buf_chr(tmp, *k->p++);
		}
		k->p++;
		rc = pt_buf_done(tmp, err);
		return rc < 0 ? rc : pg_array_element(col, tmp->p, (int)tmp->len, err);
	}
	while (k->p < k->end && *k->p != ',' && *k->p != '}')
		k->p++;
	if (k->p - from == 4 && !memcmp(from, "NULL", 4))
		return pg_array_element(col, NULL, 0, err);
	return k->p == from ? pg_bad_value(col, err) : pg_array_element(col, from, (int)(k->p - from), err);
}

int pg_text_array(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	pt_auto_buf tmp = PT_BUF_INIT(INT32_MAX);
	struct cur k = { p, p + n };
	int depth = 0, rc;

	if (n && *p == '[') {
		k.p = memchr(p, '=', (size_t)n);
		if (!k.p)
			return pg_bad_value(col, err);
		k.p++;
	}
	pt_buf_clear(&col->buf);
	while (k.p < k.end) {
		if (eat(&k, '{')) {
			depth++;
			pt_buf_chr(&col->buf, '[');
		} else if (eat(&k, '}')) {
			depth--;
			pt_buf_chr(&col->buf, ']');
		} else if (eat(&k, ',')) {
			pt_buf_chr(&col->buf, ',');
		} else if ((rc = element(col, &k, &tmp, err)) < 0) {
			return rc;
		}
		if (depth < 0 || (depth == 0 && k.p < k.end))
			return pg_bad_value(col, err);
	}
	return depth ? pg_bad_value(col, err) : pg_array_end(col, b, c, err);
}
