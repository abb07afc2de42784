/* PostgreSQL types: the table, and the binary forms (network byte order; src/backend/utils/adt/ *_send in PostgreSQL). */
#include "connector/pg_types.h"
#include "base/value_text.h"
#include <arpa/inet.h>
#include <stdio.h>

enum { ARRAY_DIMS = 6, ARRAY_TEXT_MAX = INT32_MAX };

static inline uint16_t be16(const char *p)
{
	uint16_t v;

	memcpy(&v, p, 2);
	return ntohs(v);
}

static inline uint32_t be32(const char *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return ntohl(v);
}

static inline uint64_t be64(const char *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return __builtin_bswap64(v);
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "be64 swaps");

int pg_bad_value(const struct pg_col *col, struct pt_err *err)
{
	return pt_fail(err, PT_E_PROTOCOL, "the server sent a value of type %s that makes no sense", col->type->name);
}

static int out_of_range(const char *what, struct pt_err *err)
{
	(void)pt_fail(err, PT_E_UNSUPPORTED, "a %s after the year 294246 does not fit into 64 bits", what);
	return pt_hint(err, "cast the column to text in the query");
}

int pg_as_it_is(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	pt_add_bytes(b, c, p, (size_t)n);
	return PT_OK;
}

static int bin_bool(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	if (n != 1)
		return pg_bad_value(col, err);
	pt_add_bool(c, *p != 0);
	return PT_OK;
}

static int bin_int16(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	if (n != 2)
		return pg_bad_value(col, err);
	pt_add_i16(c, (int16_t)be16(p));
	return PT_OK;
}

static int bin_int32(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	if (n != 4)
		return pg_bad_value(col, err);
	pt_add_i32(c, (int32_t)be32(p));
	return PT_OK;
}

static int bin_int64(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	if (n != 8)
		return pg_bad_value(col, err);
	pt_add_i64(c, (int64_t)be64(p));
	return PT_OK;
}

static int bin_oid(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	if (n != 4)
		return pg_bad_value(col, err);
	pt_add_i64(c, be32(p));
	return PT_OK;
}

static int bin_float32(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	uint32_t u;
	float v;

	if (n != 4)
		return pg_bad_value(col, err);
	u = be32(p);
	memcpy(&v, &u, 4);
	pt_add_f32(c, v);
	return PT_OK;
}

static int bin_float64(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	uint64_t u;
	double v;

	if (n != 8)
		return pg_bad_value(col, err);
	u = be64(p);
	memcpy(&v, &u, 8);
	pt_add_f64(c, v);
	return PT_OK;
}

static inline char *put4(char *p, unsigned v)
{
	p[0] = (char)('0' + v / 1000);
	p[1] = (char)('0' + v / 100 % 10);
	p[2] = (char)('0' + v / 10 % 10);
	p[3] = (char)('0' + v % 10);
	return p + 4;
}

/* Digits of base 10,000 at p; digit i stands for 10000^(weight - i). */
static char *numeric_text(char *o, const char *p, int digits, int weight, bool negative, int dscale)
{
	char *frac;

	if (negative)
		*o++ = '-';
	if (weight < 0) {
		*o++ = '0';
	} else {
		unsigned first = digits ? be16(p) : 0;

		o = pt_text_i64(o, first);
		for (int i = 1; i <= weight; i++)
			o = put4(o, i < digits ? be16(p + 2 * i) : 0);
	}
	if (!dscale)
		return o;
	*o++ = '.';
	frac = o;
	for (int i = weight + 1; o - frac < dscale; i++)
		o = put4(o, i >= 0 && i < digits ? be16(p + 2 * i) : 0);
	return frac + dscale;
}

static int bin_numeric(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	int digits, weight, sign, dscale;
	const char *special = NULL;
	char *o;

	if (n < 8)
		return pg_bad_value(col, err);
	digits = be16(p);
	weight = (int16_t)be16(p + 2);
	sign = be16(p + 4);
	dscale = be16(p + 6);
	if (n != 8 + 2 * digits)
		return pg_bad_value(col, err);
	if (sign == 0xc000)
		special = "NaN";
	else if (sign == 0xd000)
		special = "Infinity";
	else if (sign == 0xf000)
		special = "-Infinity";
	if (special)
		return pg_as_it_is(col, b, c, special, (int)strlen(special), err);
	o = pt_col_room(b, c, (size_t)(weight > 0 ? weight : 0) * 4 + (size_t)dscale + 16);
	pt_col_wrote(c, o ? (size_t)(numeric_text(o, p + 8, digits, weight, sign == 0x4000, dscale) - o) : 0);
	return PT_OK;
}

void pg_add_money(const struct pg_col *col, struct pt_builder *b, struct pt_col *c, int64_t v)
{
	char digits[32], out[40], *o = out;
	uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
	int n = snprintf(digits, sizeof(digits), "%0*llu", col->money_scale + 1, (unsigned long long)u),
	    whole = n - col->money_scale;

	if (v < 0)
		*o++ = '-';
	memcpy(o, digits, (size_t)whole);
	o += whole;
	if (col->money_scale) {
		*o++ = '.';
		memcpy(o, digits + whole, (size_t)col->money_scale);
		o += col->money_scale;
	}
	pt_add_bytes(b, c, out, (size_t)(o - out));
}

static int bin_money(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	if (n != 8)
		return pg_bad_value(col, err);
	pg_add_money(col, b, c, (int64_t)be64(p));
	return PT_OK;
}

static int bin_char(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	unsigned char v = n == 1 ? (unsigned char)*p : 0;
	char octal[4] = { '\\', (char)('0' + (v >> 6)), (char)('0' + (v >> 3 & 7)), (char)('0' + (v & 7)) };

	if (n != 1)
		return pg_bad_value(col, err);
	if (v >= 0x80) /* half a character in UTF-8: as PostgreSQL 16 writes it */
		pt_add_bytes(b, c, octal, 4);
	else
		pt_add_bytes(b, c, p, v ? 1 : 0);
	return PT_OK;
}

static int bin_date(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	int32_t v;

	if (n != 4)
		return pg_bad_value(col, err);
	v = (int32_t)be32(p);
	if (v != PT_DATE_INF && v != PT_DATE_NINF && __builtin_add_overflow(v, PG_EPOCH_DAYS, &v))
		return pg_bad_value(col, err);
	pt_add_i32(c, v);
	return PT_OK;
}

static int bin_time(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	int64_t us;

	if (n != 8)
		return pg_bad_value(col, err);
	us = (int64_t)be64(p);
	if (us < 0 || us > 86400000000)
		return pg_bad_value(col, err);
	pt_add_i64(c, us);
	return PT_OK;
}

void pg_add_timetz(struct pt_builder *b, struct pt_col *c, int64_t us, int east)
{
	char out[48], *o = pt_text_time(out, us);
	int s = east < 0 ? -east : east;

	o += snprintf(o, 16, "%c%02d:%02d", east < 0 ? '-' : '+', s / 3600 % 100, s / 60 % 60);
	if (s % 60)
		o += snprintf(o, 8, ":%02d", s % 60);
	pt_add_bytes(b, c, out, (size_t)(o - out));
}

static int bin_timetz(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	int64_t us;
	int32_t west;

	if (n != 12)
		return pg_bad_value(col, err);
	us = (int64_t)be64(p);
	west = (int32_t)be32(p + 8);
	if (us < 0 || us > 86400000000 || west < -86400 || west > 86400)
		return pg_bad_value(col, err);
	pg_add_timetz(b, c, us, -west);
	return PT_OK;
}

static int bin_timestamp(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	int64_t v;

	if (n != 8)
		return pg_bad_value(col, err);
	v = (int64_t)be64(p);
	if (v != PT_TS_INF && v != PT_TS_NINF && __builtin_add_overflow(v, PG_EPOCH_US, &v))
		return out_of_range(col->type->name, err);
	pt_add_i64(c, v);
	return PT_OK;
}

static char *put_part(char *o, int64_t v, char unit)
{
	if (v) {
		o = pt_text_i64(o, v);
		*o++ = unit;
	}
	return o;
}

/* As PostgreSQL writes it with IntervalStyle iso_8601: "P1Y2M3DT4H5M6.7S", every part with its own sign. */
static int bin_interval(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	char out[128], *o = out;
	int32_t days, months;
	int64_t us, sec;

	if (n != 16)
		return pg_bad_value(col, err);
	us = (int64_t)be64(p);
	days = (int32_t)be32(p + 8);
	months = (int32_t)be32(p + 12);
	if (us == INT64_MAX && days == INT32_MAX && months == INT32_MAX) /* since PostgreSQL 17 */
		return pg_as_it_is(col, b, c, "infinity", 8, err);
	if (us == INT64_MIN && days == INT32_MIN && months == INT32_MIN)
		return pg_as_it_is(col, b, c, "-infinity", 9, err);
	if (!us && !days && !months)
		return pg_as_it_is(col, b, c, "PT0S", 4, err);
	*o++ = 'P';
	o = put_part(o, months / 12, 'Y');
	o = put_part(o, months % 12, 'M');
	o = put_part(o, days, 'D');
	if (us)
		*o++ = 'T';
	o = put_part(o, us / 3600000000, 'H');
	o = put_part(o, us / 60000000 % 60, 'M');
	sec = us % 60000000;
	if (sec) {
		if (sec < 0)
			*o++ = '-';
		sec = sec < 0 ? -sec : sec;
		o = pt_text_i64(o, sec / 1000000);
		if (sec % 1000000) {
			o += snprintf(o, 16, ".%06d", (int)(sec % 1000000));
			while (o[-1] == '0')
				o--;
		}
		*o++ = 'S';
	}
	pt_add_bytes(b, c, out, (size_t)(o - out));
	return PT_OK;
}

static int bin_uuid(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	if (n != 16)
		return pg_bad_value(col, err);
	pt_add_uuid(c, p);
	return PT_OK;
}

static int bin_jsonb(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	if (n < 1 || *p != 1)
		return pg_bad_value(col, err);
	pt_add_bytes(b, c, p + 1, (size_t)n - 1);
	return PT_OK;
}

static int bin_inet(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	char out[INET6_ADDRSTRLEN + 8];
	int six = n > 0 && p[0] == 3, len = six ? 16 : 4, bits;
	size_t o;

	if (n != 4 + len || (p[0] != 2 && p[0] != 3) || p[3] != len ||
	    !inet_ntop(six ? AF_INET6 : AF_INET, p + 4, out, sizeof(out)))
		return pg_bad_value(col, err);
	bits = (unsigned char)p[1];
	o = strlen(out);
	if (p[2] || bits != len * 8)
		o += (size_t)snprintf(out + o, sizeof(out) - o, "/%d", bits);
	pt_add_bytes(b, c, out, o);
	return PT_OK;
}

static int bin_macaddr(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	char out[32];
	size_t o = 0;

	if (n != 6 && n != 8)
		return pg_bad_value(col, err);
	for (int i = 0; i < n; i++)
		o += (size_t)snprintf(out + o, sizeof(out) - o, i ? ":%02x" : "%02x", (unsigned char)p[i]);
	pt_add_bytes(b, c, out, o);
	return PT_OK;
}

static int bin_bits(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	int64_t bits = n >= 4 ? (int32_t)be32(p) : -1;
	char *o;

	if (bits < 0 || n != 4 + (bits + 7) / 8)
		return pg_bad_value(col, err);
	o = pt_col_room(b, c, (size_t)bits);
	for (int64_t i = 0; o && i < bits; i++)
		o[i] = (char)('0' + (p[4 + i / 8] >> (7 - i % 8) & 1));
	pt_col_wrote(c, o ? (size_t)bits : 0);
	return PT_OK;
}

/* --- arrays --- */
int pg_array_element(struct pg_col *col, const char *p, int n, struct pt_err *err)
{
	struct pt_col *e = &col->elem.cols[0];
	size_t most;
	int rc;

	if (!p) {
		pt_buf_add(&col->buf, "null", 4);
		return PT_OK;
	}
	e->n = 0;
	e->len = 0;
	e->data[0] = 0; /* a bool's bit */
	rc = col->decode_elem(col, &col->elem, e, p, n, err);
	if (rc == 0)
		rc = pt_builder_failed(&col->elem, err);
	if (rc < 0)
		return rc;
	pt_json_col_bind_build(&col->json, e);
	most = pt_json_value_most(&col->json, 0);
	if (pt_buf_room(&col->buf, most))
		col->buf.len = (size_t)(col->json.write(col->buf.p + col->buf.len, &col->json, 0) - col->buf.p);
	return PT_OK;
}

int pg_array_end(struct pg_col *col, struct pt_builder *b, struct pt_col *c, struct pt_err *err)
{
	int rc = pt_buf_done(&col->buf, err);

	pt_add_bytes(b, c, col->buf.p, rc < 0 ? 0 : col->buf.len);
	if (col->buf.cap > 1 << 20)
		pt_buf_release(&col->buf);
	return rc;
}

static int bin_array(struct pg_col *col, struct pt_builder *b, struct pt_col *c, const char *p, int n, struct pt_err *err)
{
	const char *end = p + n;
	int dims = n >= 12 ? (int32_t)be32(p) : -1;
	int64_t size[ARRAY_DIMS], at[ARRAY_DIMS] = { 0 };

	pt_buf_clear(&col->buf);
	if (dims < 0 || dims > ARRAY_DIMS || n < 12 + 8 * dims)
		return pg_bad_value(col, err);
	p += 12;
	for (int d = 0; d < dims; d++, p += 8) {
		size[d] = (int32_t)be32(p);
		if (size[d] <= 0)
			return pg_bad_value(col, err);
	}
	for (int d = 0; d < (dims ? dims : 1); d++)
		pt_buf_chr(&col->buf, '[');
	while (dims) {
		int len = end - p >= 4 ? (int32_t)be32(p) : -2, d = dims - 1, rc;

		p += 4;
		if (len < -1 || (len > 0 && end - p < len))
			return pg_bad_value(col, err);
		rc = pg_array_element(col, len < 0 ? NULL : p, len, err);
		if (rc < 0)
			return rc;
		p += len > 0 ? len : 0;
		while (d >= 0 && ++at[d] == size[d]) { /* like an odometer: close what is full */
			at[d--] = 0;
			pt_buf_chr(&col->buf, ']');
		}
		if (d < 0)
			break;
		pt_buf_chr(&col->buf, ',');
		for (d++; d < dims; d++)
			pt_buf_chr(&col->buf, '[');
	}
	if (!dims)
		pt_buf_chr(&col->buf, ']');
	return p == end ? pg_array_end(col, b, c, err) : pg_bad_value(col, err);
}

/* --- the table --- */
static const struct pg_type types[] = {
	{ 16, 1000, "bool", PT_L_BOOL, bin_bool, pg_text_bool },
	{ 17, 1001, "bytea", PT_L_BYTES, pg_as_it_is, pg_text_bytea },
	{ 18, 1002, "\"char\"", PT_L_TEXT, bin_char, pg_as_it_is },
	{ 19, 1003, "name", PT_L_TEXT, pg_as_it_is, pg_as_it_is },
	{ 20, 1016, "int8", PT_L_INT64, bin_int64, pg_text_int64 },
	{ 21, 1005, "int2", PT_L_INT16, bin_int16, pg_text_int16 },
	{ 23, 1007, "int4", PT_L_INT32, bin_int32, pg_text_int32 },
	{ 25, 1009, "text", PT_L_TEXT, pg_as_it_is, pg_as_it_is },
	{ 26, 1028, "oid", PT_L_INT64, bin_oid, pg_text_int64 },
	{ 114, 199, "json", PT_L_JSON, pg_as_it_is, pg_as_it_is },
	{ 142, 143, "xml", PT_L_TEXT, pg_as_it_is, pg_as_it_is },
	{ 650, 651, "cidr", PT_L_TEXT, bin_inet, pg_as_it_is },
	{ 700, 1021, "float4", PT_L_FLOAT32, bin_float32, pg_text_float32 },
	{ 701, 1022, "float8", PT_L_FLOAT64, bin_float64, pg_text_float64 },
	{ 705, 0, "unknown", PT_L_TEXT, pg_as_it_is, pg_as_it_is },
	{ 774, 775, "macaddr8", PT_L_TEXT, bin_macaddr, pg_as_it_is },
	{ 790, 791, "money", PT_L_DECIMAL, bin_money, pg_text_money },
	{ 829, 1040, "macaddr", PT_L_TEXT, bin_macaddr, pg_as_it_is },
	{ 869, 1041, "inet", PT_L_TEXT, bin_inet, pg_as_it_is },
	{ 1042, 1014, "bpchar", PT_L_TEXT, pg_as_it_is, pg_as_it_is },
	{ 1043, 1015, "varchar", PT_L_TEXT, pg_as_it_is, pg_as_it_is },
	{ 1082, 1182, "date", PT_L_DATE, bin_date, pg_text_date },
	{ 1083, 1183, "time", PT_L_TIME, bin_time, pg_text_time },
	{ 1114, 1115, "timestamp", PT_L_TIMESTAMP, bin_timestamp, pg_text_timestamp },
	{ 1184, 1185, "timestamptz", PT_L_TIMESTAMPTZ, bin_timestamp, pg_text_timestamp },
	{ 1186, 1187, "interval", PT_L_INTERVAL, bin_interval, pg_as_it_is },
	{ 1266, 1270, "timetz", PT_L_TIMETZ, bin_timetz, pg_text_timetz },
	{ 1560, 1561, "bit", PT_L_TEXT, bin_bits, pg_as_it_is },
	{ 1562, 1563, "varbit", PT_L_TEXT, bin_bits, pg_as_it_is },
	{ 1700, 1231, "numeric", PT_L_DECIMAL, bin_numeric, pg_as_it_is },
	{ 2950, 2951, "uuid", PT_L_UUID, bin_uuid, pg_text_uuid },
	{ 3802, 3807, "jsonb", PT_L_JSON, bin_jsonb, pg_as_it_is },
};
const struct pg_type pg_type_label = { 0, 0, "enum", PT_L_TEXT, pg_as_it_is, pg_as_it_is };
const struct pg_type pg_type_other = { 0, 0, "other", PT_L_TEXT, NULL, pg_as_it_is };

const struct pg_type *pg_type_find(unsigned oid, bool *ret_array)
{
	for (size_t i = 0; i < PT_COUNT(types); i++)
		if (oid && (types[i].oid == oid || types[i].array_oid == oid)) {
			*ret_array = types[i].oid != oid;
			return &types[i];
		}
	return NULL;
}

int pg_col_init(struct pg_col *col, const struct pg_type *t, bool array, bool text, struct pt_err *err)
{
	struct pt_column_def def = { .name = "element", .type = t->type };
	int rc;

	*col = (struct pg_col) {
		.type = t, .array = array, .decode = text ? t->text : t->binary, .buf = PT_BUF_INIT(ARRAY_TEXT_MAX)
	};
	if (!array)
		return PT_OK;
	col->decode_elem = col->decode;
	col->decode = text ? pg_text_array : bin_array;
	pt_json_col_init(&col->json, t->type);
	rc = pt_builder_init(&col->elem, &def, 1, err);
	if (rc == 0)
		rc = pt_builder_begin(&col->elem, err);
	return rc;
}

void pg_col_release(struct pg_col *col)
{
	pt_builder_release(&col->elem);
	if (col->type)
		pt_buf_release(&col->buf);
}

void pg_numeric_typmod(int typmod, int *ret_precision, int *ret_scale)
{
	*ret_precision = *ret_scale = 0;
	if (typmod >= 4) {
		*ret_precision = (typmod - 4) >> 16 & 0xffff;
		*ret_scale = ((typmod - 4) & 0x7ff) - (((typmod - 4) & 0x400) ? 0x800 : 0); /* 11 bits, signed */
	}
}

void pg_native_name(const struct pg_type *t, const char *name, bool array, int typmod, char *out, size_t size)
{
	char mod[32] = "";
	int precision, scale;

	pg_numeric_typmod(typmod, &precision, &scale);
	if (typmod >= 4 && t->oid == 1700)
		snprintf(mod, sizeof(mod), "(%d,%d)", precision, scale);
	else if (typmod >= 4 && (t->oid == 1042 || t->oid == 1043))
		snprintf(mod, sizeof(mod), "(%d)", typmod - 4);
	else if (typmod >= 0 &&
		 (t->oid == 1560 || t->oid == 1562 || t->oid == 1083 || t->oid == 1114 || t->oid == 1184 || t->oid == 1266))
		snprintf(mod, sizeof(mod), "(%d)", typmod);
	snprintf(out, size, "%s%s%s", name ? name : t->name, mod, array ? "[]" : "");
}
