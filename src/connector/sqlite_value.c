/* SQLite's values: the types of columns, and a value in its column. */
#include "connector/sqlite_value.h"
#include "base/value_text.h"
#include <math.h>

enum { SEEN_INT = 1, SEEN_REAL = 2, SEEN_TEXT = 4, SEEN_BLOB = 8, SEEN_LARGE = 16 /* an integer that no double equals */ };
static const int64_t exact = 1LL << 53;

unsigned lite_seen(sqlite3_value *v)
{
	switch (sqlite3_value_type(v)) {
	case SQLITE_INTEGER: {
		int64_t i = sqlite3_value_int64(v);

		return SEEN_INT | (i > exact || i < -exact ? SEEN_LARGE : 0);
	}
	case SQLITE_FLOAT:
		return SEEN_REAL;
	case SQLITE_TEXT:
		return SEEN_TEXT;
	case SQLITE_BLOB:
		return SEEN_BLOB;
	default:
		return 0;
	}
}

static bool contains(const char *decl, const char *const *words)
{
	for (; *words; words++)
		if (strcasestr(decl, *words))
			return true;
	return false;
}

/* Type by affinity (sqlite.org/datatype3.html, 3.1); any for NUMERIC, whose values are integers, reals or texts. */
static enum pt_logical declared(const char *decl)
{
	static const char *const text[] = { "CHAR", "CLOB", "TEXT", NULL }, *const real[] = { "REAL", "FLOA", "DOUB", NULL };

	if (strcasestr(decl, "INT"))
		return PT_L_INT64;
	if (contains(decl, text))
		return PT_L_TEXT;
	if (strcasestr(decl, "BLOB"))
		return PT_L_BYTES;
	return contains(decl, real) ? PT_L_FLOAT64 : PT_L_ANY;
}

static bool fits(enum pt_logical t, unsigned seen_bits)
{
	static const unsigned allowed[PT_L_END] = {
		[PT_L_INT64] = SEEN_INT | SEEN_LARGE,
		[PT_L_FLOAT64] = SEEN_REAL | SEEN_INT,
		[PT_L_TEXT] = SEEN_TEXT,
		[PT_L_BYTES] = SEEN_BLOB,
		[PT_L_ANY] = ~0U,
	};

	return !(seen_bits & ~allowed[t]);
}

enum pt_logical lite_decide(const char *decl, unsigned bits, bool whole)
{
	static const enum pt_logical order[] = { PT_L_INT64, PT_L_FLOAT64, PT_L_TEXT, PT_L_BYTES, PT_L_ANY };
	enum pt_logical t = decl && *decl ? declared(decl) : PT_L_ANY;
	size_t i = 0;

	if (t != PT_L_ANY && fits(t, bits))
		return t;
	if (!whole)
		return PT_L_ANY;
	if (!bits)
		return PT_L_TEXT;
	while (!fits(order[i], bits))
		i++;
	return order[i];
}

static void add_any(struct pt_builder *b, struct pt_col *col, sqlite3_value *v)
{
	pt_auto_buf json = PT_BUF_INIT(INT32_MAX);
	char num[PT_TEXT_FLOAT];
	double d;

	switch (sqlite3_value_type(v)) {
	case SQLITE_INTEGER:
		pt_buf_i64(&json, sqlite3_value_int64(v));
		break;
	case SQLITE_FLOAT:
		d = sqlite3_value_double(v);
		if (!isfinite(d))
			pt_buf_chr(&json, '"');
		pt_buf_add(&json, num, (size_t)(pt_text_f64(num, d) - num));
		if (!isfinite(d))
			pt_buf_chr(&json, '"');
		break;
	case SQLITE_TEXT:
		pt_buf_json(&json, (const char *)sqlite3_value_text(v), (size_t)sqlite3_value_bytes(v));
		break;
	default:
		pt_buf_str(&json, "{\"base64\":\"");
		pt_buf_base64(&json, sqlite3_value_blob(v), (size_t)sqlite3_value_bytes(v));
		pt_buf_str(&json, "\"}");
	}
	if (json.bad)
		b->bad = json.bad;
	pt_add_bytes(b, col, json.p, json.len);
}

static int misfit(const struct pt_column_def *d, int64_t row, struct pt_err *err)
{
	(void)pt_fail(err, PT_E_QUERY, "column '%.60s', row %lld: the value is not of type %s, which the column has so far",
		      d->name, (long long)row + 1, pt_logical_name(d->type));
	return pt_hint(err, "select CAST(%.60s AS TEXT) or another single type", d->name);
}

int lite_add(struct pt_builder *b, size_t i, int64_t row, sqlite3_value *v, struct pt_err *err)
{
	struct pt_col *col = &b->cols[i];

	if (sqlite3_value_type(v) == SQLITE_NULL) {
		pt_add_null(col);
		return PT_OK;
	}
	if (!fits(col->type, lite_seen(v)))
		return misfit(&b->defs[i], row, err);
	switch (col->type) {
	case PT_L_INT64:
		pt_add_i64(col, sqlite3_value_int64(v));
		break;
	case PT_L_FLOAT64:
		pt_add_f64(col, sqlite3_value_double(v));
		break;
	case PT_L_TEXT:
		pt_add_bytes(b, col, sqlite3_value_text(v), (size_t)sqlite3_value_bytes(v));
		break;
	case PT_L_BYTES:
		pt_add_bytes(b, col, sqlite3_value_blob(v), (size_t)sqlite3_value_bytes(v));
		break;
	default:
		add_any(b, col, v);
	}
	return PT_OK;
}
