#include "connector/json_value.h"
#include "connector/rows.h"
#include "../tap.h"
#include <errno.h>
#include <math.h>

/* A stream over a builder's batches: rows are made by fill(i). */
struct source {
	struct pt_builder b;
	int64_t next, rows, fail_at;
	void (*fill)(struct pt_builder *b, int64_t i);
	struct pt_conn conn;
};

static int get_schema(struct ArrowArrayStream *s, struct ArrowSchema *ret)
{
	struct source *src = s->private_data;
	struct pt_err e;

	return pt_builder_schema(&src->b, ret, &e) < 0 ? ENOMEM : 0;
}

static int get_next(struct ArrowArrayStream *s, struct ArrowArray *ret)
{
	struct source *src = s->private_data;
	struct pt_err e;

	*ret = (struct ArrowArray) { 0 };
	if (src->fail_at && src->next >= src->fail_at) {
		(void)pt_fail(&src->conn.stream_err, PT_E_CONNECTION_LOST, "gone");
		return EIO;
	}
	if (src->next == src->rows)
		return 0;
	if (pt_builder_begin(&src->b, &e) < 0)
		return ENOMEM;
	while (src->next < src->rows && !pt_builder_full(&src->b)) {
		src->fill(&src->b, src->next++);
		if (pt_builder_end_row(&src->b, &e) < 0)
			return ENOMEM;
	}
	return pt_builder_finish(&src->b, ret, &e) < 0 ? ENOMEM : 0;
}

static const char *last_error(struct ArrowArrayStream *s)
{
	return "failed";
}

static int collect(void *arg, const char *p, size_t n, struct pt_err *err)
{
	struct pt_buf *b = arg;

	if (n && p[n - 1] != '\n')
		return pt_fail(err, PT_E_INTERNAL, "a piece that does not end with a line");
	pt_buf_add(b, p, n);
	return PT_OK;
}

static int run(struct source *src, const struct pt_column_def *defs, size_t n, const struct pt_rows_limits *lim,
	       struct pt_buf *out, struct pt_rows_stats *st, struct pt_err *e)
{
	struct ArrowArrayStream s = { get_schema, get_next, last_error, NULL, src };
	int rc = pt_builder_init(&src->b, defs, n, e);

	if (rc == 0)
		rc = pt_rows_jsonl(&s, &src->conn, lim, collect, out, st, e);
	pt_builder_release(&src->b);
	return rc;
}

static void add_text(struct pt_builder *b, size_t col, const char *s)
{
	pt_add_bytes(b, &b->cols[col], s, strlen(s));
}

static const struct pt_column_def every[] = {
	{ "b", NULL, PT_L_BOOL },       { "i2", NULL, PT_L_INT16 },       { "i4", NULL, PT_L_INT32 },
	{ "i8", NULL, PT_L_INT64 },     { "f4", NULL, PT_L_FLOAT32 },     { "f8", NULL, PT_L_FLOAT64 },
	{ "d", NULL, PT_L_DECIMAL },    { "t", NULL, PT_L_TEXT },         { "y", NULL, PT_L_BYTES },
	{ "da", NULL, PT_L_DATE },      { "ti", NULL, PT_L_TIME },        { "tz", NULL, PT_L_TIMETZ },
	{ "ts", NULL, PT_L_TIMESTAMP }, { "tt", NULL, PT_L_TIMESTAMPTZ }, { "iv", NULL, PT_L_INTERVAL },
	{ "u", NULL, PT_L_UUID },       { "j", NULL, PT_L_JSON },         { "a", NULL, PT_L_ARRAY },
	{ "x", NULL, PT_L_ANY },
};
static const char every_lines[] =
	"[true,-32768,-2147483648,-9223372036854775808,0.1,\"NaN\",\"123456789012345678901234567890.10\","
	"\"q\\\"\\\\\\n\xc3\xa9\",\"AAH/\","
	"\"2024-02-29\",\"24:00:00\",\"12:00:00+02:00\",\"2024-02-29T00:00:00\",\"2024-02-29T00:00:00.000001Z\",\"P1Y2M\","
	"\"00010203-0405-0607-0809-0a0b0c0d0e0f\",{\"a\": [1, 2],  \"b\":\"x\"},[1,null],7]\n"
	"[null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null]\n"
	"[false,32767,2147483647,9223372036854775807,\"-Infinity\",1e300,\"NaN\",\"\",\"\",\"infinity\",\"00:00:00\",\"\",\"-"
	"infinity\","
	"\"infinity\",\"PT0S\",\"00010203-0405-0607-0809-0a0b0c0d0e0f\",\"{broken\",[],\"t\"]\n";

static void fill_every(struct pt_builder *b, int64_t i)
{
	static const uint8_t uuid[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
	struct pt_col *c = b->cols;
	bool first = i == 0;

	if (i == 1) {
		for (size_t k = 0; k < b->n_cols; k++)
			pt_add_null(&c[k]);
		return;
	}
	pt_add_bool(&c[0], first);
	pt_add_i16(&c[1], first ? INT16_MIN : INT16_MAX);
	pt_add_i32(&c[2], first ? INT32_MIN : INT32_MAX);
	pt_add_i64(&c[3], first ? INT64_MIN : INT64_MAX);
	pt_add_f32(&c[4], first ? 0.1f : -INFINITY);
	pt_add_f64(&c[5], first ? NAN : 1e300);
	add_text(b, 6, first ? "123456789012345678901234567890.10" : "NaN");
	add_text(b, 7, first ? "q\"\\\n\xc3\xa9" : "");
	pt_add_bytes(b, &c[8], "\0\1\xff", first ? 3 : 0);
	pt_add_i32(&c[9], first ? 19782 : PT_DATE_INF);
	pt_add_i64(&c[10], first ? 86400000000 : 0);
	add_text(b, 11, first ? "12:00:00+02:00" : "");
	pt_add_i64(&c[12], first ? 19782 * 86400000000 : PT_TS_NINF);
	pt_add_i64(&c[13], first ? 19782 * 86400000000 + 1 : PT_TS_INF);
	add_text(b, 14, first ? "P1Y2M" : "PT0S");
	pt_add_uuid(&c[15], uuid);
	add_text(b, 16, first ? "{\"a\": [1, 2],\n\t\"b\":\"x\"}" : "{broken");
	add_text(b, 17, first ? "[1,null]" : "[]");
	add_text(b, 18, first ? "7" : "\"t\"");
}

static const struct pt_column_def two[] = { { "n", "int8", PT_L_INT64, .required = true }, { "t", "text", PT_L_TEXT } };

static void fill_two(struct pt_builder *b, int64_t i)
{
	pt_add_i64(&b->cols[0], i);
	add_text(b, 1, "a row of text");
}

static void fill_huge(struct pt_builder *b, int64_t i)
{
	char *p = pt_col_room(b, &b->cols[1], 3000000);

	pt_add_i64(&b->cols[0], i);
	memset(p, i == 1 ? 1 : 'x', 3000000); /* control characters: six bytes of JSON each */
	pt_col_wrote(&b->cols[1], i == 2 ? 10 : 3000000);
}

static const struct {
	const char *text;
	bool valid;
} documents[] = {
	{ "null", true },
	{ " [1 , -2.5e+10, \"\\u00e9\\n\" , {\"a\" : {} , \"b\":[]}]\n", true },
	{ "0", true },
	{ "-0.5", true },
	{ "", false },
	{ " ", false },
	{ "01", false },
	{ "1.", false },
	{ ".5", false },
	{ "1e", false },
	{ "-", false },
	{ "+1", false },
	{ "NaN", false },
	{ "[1,]", false },
	{ "[,1]", false },
	{ "[1 2]", false },
	{ "{\"a\"}", false },
	{ "{a:1}", false },
	{ "{\"a\":1,}", false },
	{ "[1", false },
	{ "[", false },
	{ "{", false },
	{ "]", false },
	{ "[1}", false },
	{ "1 2", false },
	{ "\"\n\"", false },
	{ "\"\\x\"", false },
	{ "\"\\u12g4\"", false },
	{ "\"\\u12", false },
	{ "\"abc", false },
	{ "\"\xff\"", false },
	{ "\"\xc3\xa9\"", true },
	{ "tru", false },
	{ "truex", false },
	{ "{\"a\":tru}", false },
	{ "[[[[[[]]]]]]", true },
	{ "{\"a\":{\"b\":[{}]}}", true },
	{ "[1],", false },
};

int main(void)
{
	struct pt_err e = { 0 };
	struct pt_rows_stats st;
	pt_auto_buf out = PT_BUF_INIT(64 << 20);
	struct source src = { .rows = 3, .fill = fill_every };

	ok(run(&src, every, PT_COUNT(every), NULL, &out, &st, &e) == 0, "every type (%s)", e.msg);
	is_str(out.p, every_lines, "as JSON");
	ok(st.rows == 3 && st.bytes == (int64_t)out.len && !st.partial, "counted");

	for (size_t i = 0; i < PT_COUNT(documents); i++)
		ok(pt_json_valid(documents[i].text, strlen(documents[i].text)) == documents[i].valid, "JSON document %zu", i);
	{
		char deep[4000];

		memset(deep, '[', 1000);
		memset(deep + 1000, ']', 1000);
		ok(pt_json_valid(deep, 2000), "1,000 levels");
		memset(deep, '[', 1001);
		memset(deep + 1001, ']', 1001);
		ok(!pt_json_valid(deep, 2002), "1,001 levels are too deep");
	}
	static const struct {
		int64_t rows, max_rows, max_bytes, want;
		const char *partial;
	} limits[] = {
		{ 10, 0, 0, 10, NULL },
		{ 10, 10, 0, 10, NULL },
		{ 10, 9, 0, 9, "row_limit" },
		{ 10, 1, 0, 1, "row_limit" },
		{ 10000, 4096, 0, 4096, "row_limit" },
		{ 4096, 4096, 0, 4096, NULL },
		{ 10000, 10000, 0, 10000, NULL },
		{ 10, 0, 10 * 20, 10, NULL },
		{ 10, 0, 10 * 20 - 1, 9, "byte_limit" },
		{ 10, 0, 1, 0, "byte_limit" },
		{ 10, 3, 100, 3, "row_limit" },
		{ 0, 1, 1, 0, NULL },
	};
	for (size_t i = 0; i < PT_COUNT(limits); i++) {
		struct pt_rows_limits lim = { limits[i].max_rows, limits[i].max_bytes };

		pt_buf_clear(&out);
		src = (struct source) { .rows = limits[i].rows, .fill = fill_two };
		ok(run(&src, two, 2, &lim, &out, &st, &e) == 0, "limit %zu", i);
		is_int(st.rows, limits[i].want, "rows");
		ok(st.bytes == (int64_t)out.len && (!lim.max_bytes || st.bytes <= lim.max_bytes), "bytes within the limit");
		ok(limits[i].partial ? st.partial && !strcmp(st.partial, limits[i].partial) : !st.partial, "partial");
		ok(!out.len || out.p[out.len - 1] == '\n', "no row is cut");
	}
	pt_buf_clear(&out);
	src = (struct source) { .rows = 3, .fill = fill_huge };
	ok(run(&src, two, 2, NULL, &out, &st, &e) == 0, "rows larger than the buffer");
	is_int(out.len, 3000007 + (18000000 + 7) + 17, "all of it");
	ok(!memcmp(out.p + out.len - 17, "[2,\"xxxxxxxxxx\"]\n", 17), "and the next row");

	pt_buf_clear(&out);
	src = (struct source) { .rows = 10000, .fill = fill_two, .fail_at = 4096 };
	ok(run(&src, two, 2, NULL, &out, &st, &e) == PT_E_CONNECTION_LOST, "the stream's own reason");
	is_str(e.msg, "gone", "its message");
	is_int(st.rows, 4096, "rows before it");
	{
		struct ArrowArrayStream s = { get_schema, get_next, last_error, NULL, &src };
		struct pt_list l = { 0 };
		struct pt_column *c;

		ok(pt_builder_init(&src.b, two, 2, &e) == 0 && pt_rows_columns(&s, &l, &e) == 0, "columns");
		c = l.items;
		is_int(l.n, 2, "two");
		is_str(c[0].name, "n", "name");
		is_str(c[0].type, "int64", "type");
		is_str(c[0].native, "int8", "native");
		ok(!c[0].nullable && c[1].nullable, "nullable");
		for (size_t i = 0; i < l.n; i++) {
			free(c[i].name);
			free(c[i].type);
			free(c[i].native);
		}
		free(l.items);
		pt_builder_release(&src.b);
	}
	return tap_end();
}
