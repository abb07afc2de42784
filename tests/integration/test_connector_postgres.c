/* The PostgreSQL connector against a real server: run by tests/with-postgres.sh (see tests/meson.build for its options). */
#include "../connector_util.h"
#include "base/clock.h"
#include "os/resolve.h"
#include <arpa/inet.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/socket.h>

static char server_args[512]; /* superuser, TCP without TLS */
static const struct pt_connector *type = &pt_connector_postgres;

/* Each expression is asked for in binary, and again beside a column of a type without a binary form of ours, which makes the whole
 * result text: both must give the same JSON and the same type. */
static const struct {
	const char *sql, *json, *type, *native;
} values[] = {
	{ "true", "true", "bool", "bool" },
	{ "false", "false", "bool", "bool" },
	{ "'-32768'::int2", "-32768", "int16", "int2" },
	{ "'-2147483648'::int4", "-2147483648", "int32", "int4" },
	{ "'-9223372036854775808'::int8", "-9223372036854775808", "int64", "int8" },
	{ "9223372036854775807::int8", "9223372036854775807", "int64", "int8" },
	{ "4294967295::oid", "4294967295", "int64", "oid" },
	{ "0.1::float4", "0.1", "float32", "float4" },
	{ "'-3.4028235e38'::float4", "-3.4028235e38", "float32", "float4" },
	{ "'NaN'::float4", "\"NaN\"", "float32", "float4" },
	{ "0.1::float8", "0.1", "float64", "float8" },
	{ "5e-324::float8", "5e-324", "float64", "float8" },
	{ "'-0'::float8", "-0.0", "float64", "float8" },
	{ "'-Infinity'::float8", "\"-Infinity\"", "float64", "float8" },
	{ "1.7976931348623157e308::float8", "1.7976931348623157e308", "float64", "float8" },
	{ "12.50::numeric(12,2)", "\"12.50\"", "decimal", "numeric(12,2)" },
	{ "0::numeric", "\"0\"", "decimal", "numeric" },
	{ "0.000::numeric", "\"0.000\"", "decimal", "numeric" },
	{ "-0.00012345::numeric", "\"-0.00012345\"", "decimal", "numeric" },
	{ "100000000::numeric", "\"100000000\"", "decimal", "numeric" },
	{ "10000.0001::numeric", "\"10000.0001\"", "decimal", "numeric" },
	{ "1234567890123456789012345678901234567890.123456789::numeric", "\"1234567890123456789012345678901234567890.123456789\"",
	  "decimal", "numeric" },
	{ "1e-20::numeric", "\"0.00000000000000000001\"", "decimal", "numeric" },
	{ "1e30::numeric", "\"1000000000000000000000000000000\"", "decimal", "numeric" },
	{ "12300::numeric(5,-2)", "\"12300\"", "decimal", "numeric(5,-2)" },
	{ "'NaN'::numeric", "\"NaN\"", "decimal", "numeric" },
	{ "'Infinity'::numeric", "\"Infinity\"", "decimal", "numeric" },
	{ "'-Infinity'::numeric", "\"-Infinity\"", "decimal", "numeric" },
	{ "'-12345.67'::money", "\"-12345.67\"", "decimal", "money" },
	{ "'0.05'::money", "\"0.05\"", "decimal", "money" },
	{ "E'a\"\\\\\\n\\u00e9'::text", "\"a\\\"\\\\\\n\xc3\xa9\"", "text", "text" },
	{ "''::text", "\"\"", "text", "text" },
	{ "'ab'::varchar(5)", "\"ab\"", "text", "varchar(5)" },
	{ "'ab'::char(4)", "\"ab  \"", "text", "bpchar(4)" },
	{ "'n'::name", "\"n\"", "text", "name" },
	{ "'c'::\"char\"", "\"c\"", "text", "\"char\"" },
	{ "''::\"char\"", "\"\"", "text", "\"char\"" },
	{ "'literal'", "\"literal\"", "text", "text" },
	{ "'<a>b</a>'::xml", "\"<a>b</a>\"", "text", "xml" },
	{ "'\\x0001ff'::bytea", "\"AAH/\"", "bytes", "bytea" },
	{ "''::bytea", "\"\"", "bytes", "bytea" },
	{ "'2024-02-29'::date", "\"2024-02-29\"", "date", "date" },
	{ "'0044-03-15 BC'::date", "\"-0043-03-15\"", "date", "date" },
	{ "'0001-01-01 BC'::date", "\"0000-01-01\"", "date", "date" },
	{ "'4713-11-24 BC'::date", "\"-4712-11-24\"", "date", "date" },
	{ "'5874897-12-31'::date", "\"+5874897-12-31\"", "date", "date" },
	{ "'12345-06-07'::date", "\"+12345-06-07\"", "date", "date" },
	{ "'infinity'::date", "\"infinity\"", "date", "date" },
	{ "'-infinity'::date", "\"-infinity\"", "date", "date" },
	{ "'12:34:56.000789'::time", "\"12:34:56.000789\"", "time", "time" },
	{ "'24:00'::time", "\"24:00:00\"", "time", "time" },
	{ "'12:34:56.7+02'::timetz", "\"12:34:56.700000+02:00\"", "timetz", "timetz" },
	{ "'00:00-05:30'::timetz", "\"00:00:00-05:30\"", "timetz", "timetz" },
	{ "'00:00+00:19:32'::timetz", "\"00:00:00+00:19:32\"", "timetz", "timetz" },
	{ "'2024-02-29 23:59:59.999999'::timestamp", "\"2024-02-29T23:59:59.999999\"", "timestamp", "timestamp" },
	{ "'2024-02-29 10:00:00.5'::timestamp(3)", "\"2024-02-29T10:00:00.500000\"", "timestamp", "timestamp(3)" },
	{ "'0044-03-15 12:00 BC'::timestamp", "\"-0043-03-15T12:00:00\"", "timestamp", "timestamp" },
	{ "'infinity'::timestamp", "\"infinity\"", "timestamp", "timestamp" },
	{ "'1999-12-31 23:59:59.999999+00'::timestamptz", "\"1999-12-31T23:59:59.999999Z\"", "timestamptz", "timestamptz" },
	{ "'2024-02-29 10:00+05:30'::timestamptz", "\"2024-02-29T04:30:00Z\"", "timestamptz", "timestamptz" },
	{ "'1880-01-01 00:00+00'::timestamptz", "\"1880-01-01T00:00:00Z\"", "timestamptz", "timestamptz" },
	{ "'12345-01-01 00:00+00'::timestamptz", "\"+12345-01-01T00:00:00Z\"", "timestamptz", "timestamptz" },
	{ "'4714-11-24 00:00+00 BC'::timestamptz", "\"-4713-11-24T00:00:00Z\"", "timestamptz", "timestamptz" },
	{ "'-infinity'::timestamptz", "\"-infinity\"", "timestamptz", "timestamptz" },
	{ "'1 year 2 months 3 days 04:05:06.7'::interval", "\"P1Y2M3DT4H5M6.7S\"", "interval", "interval" },
	{ "'-1 month +2 days -00:00:00.5'::interval", "\"P-1M2DT-0.5S\"", "interval", "interval" },
	{ "'1 month -26:03'::interval", "\"P1MT-26H-3M\"", "interval", "interval" },
	{ "'0'::interval", "\"PT0S\"", "interval", "interval" },
	{ "'00010203-0405-0607-0809-0a0b0c0d0eff'::uuid", "\"00010203-0405-0607-0809-0a0b0c0d0eff\"", "uuid", "uuid" },
	{ "E'{\"a\":\\n [1, null]}'::json", "{\"a\":  [1, null]}", "json", "json" },
	{ "'{\"b\":1,\"a\":\"x\"}'::jsonb", "{\"a\": \"x\", \"b\": 1}", "json", "jsonb" },
	{ "'192.168.0.1'::inet", "\"192.168.0.1\"", "text", "inet" },
	{ "'192.168.0.1/24'::inet", "\"192.168.0.1/24\"", "text", "inet" },
	{ "'2001:db8::1'::inet", "\"2001:db8::1\"", "text", "inet" },
	{ "'10.0.0.0/8'::cidr", "\"10.0.0.0/8\"", "text", "cidr" },
	{ "'10.0.0.1/32'::cidr", "\"10.0.0.1/32\"", "text", "cidr" },
	{ "'08:00:2b:01:02:03'::macaddr", "\"08:00:2b:01:02:03\"", "text", "macaddr" },
	{ "'08:00:2b:01:02:03:04:05'::macaddr8", "\"08:00:2b:01:02:03:04:05\"", "text", "macaddr8" },
	{ "B'1011001110'", "\"1011001110\"", "text", "bit" },
	{ "B''::varbit", "\"\"", "text", "varbit" },
	{ "'happy'::mood", "\"happy\"", "text", "mood" },
	{ "7::positive", "7", "int32", "int4" },
	{ "array[1,2,null]", "[1,2,null]", "array", "int4[]" },
	{ "'{}'::int4[]", "[]", "array", "int4[]" },
	{ "'{{1,2},{3,4}}'::int8[]", "[[1,2],[3,4]]", "array", "int8[]" },
	{ "'[0:1]={5,6}'::int4[]", "[5,6]", "array", "int4[]" },
	{ "array['a b','q\"u\\o','NULL',null,'','{x,y}']::text[]", "[\"a b\",\"q\\\"u\\\\o\",\"NULL\",null,\"\",\"{x,y}\"]",
	  "array", "text[]" },
	{ "array[true,false,true,null]", "[true,false,true,null]", "array", "bool[]" },
	{ "array[1.10,null]::numeric[]", "[\"1.10\",null]", "array", "numeric[]" },
	{ "array['2024-01-01 00:00Z']::timestamptz[]", "[\"2024-01-01T00:00:00Z\"]", "array", "timestamptz[]" },
	{ "array['{\"a\":1}']::jsonb[]", "[{\"a\": 1}]", "array", "jsonb[]" },
	{ "array['\\x00ff']::bytea[]", "[\"AP8=\"]", "array", "bytea[]" },
	{ "array['happy','sad']::mood[]", "[\"happy\",\"sad\"]", "array", "mood[]" },
	{ "array[1,2]::positive[]", "[1,2]", "array", "positive[]" },
	{ "array[1.5,'NaN']::float8[]", "[1.5,\"NaN\"]", "array", "float8[]" },
	{ "'{{{1},{2}},{{3},{4}}}'::int2[]", "[[[1],[2]],[[3],[4]]]", "array", "int2[]" },
};

/* Types without a binary form of ours: the server's text. */
static const struct {
	const char *sql, *json, *native;
} others[] = {
	{ "int4range(1,5)", "[\"[1,5)\"]\n", "other" },
	{ "row(1,'a')", "[\"(1,a)\"]\n", "other" },
	{ "'(1,2)'::point", "[\"(1,2)\"]\n", "other" },
	{ "'fat & rat'::tsquery", "[\"'fat' & 'rat'\"]\n", "other" },
	{ "array[int4range(1,2)]", "[\"{\\\"[1,2)\\\"}\"]\n", "other" },
	{ "'(1,x)'::pair", "[\"(1,x)\"]\n", "pair" },
};

static const struct {
	const char *sql, *params, *json;
} bound[] = {
	{ "SELECT $1::int4 + 1", "[41]", "[42]\n" },
	{ "SELECT $1::text, $1 IS NULL", "[null]", "[null,true]\n" },
	{ "SELECT $1::bool", "[true]", "[true]\n" },
	{ "SELECT $1::float8", "[0.1]", "[0.1]\n" },
	{ "SELECT $1::float8", "[1e300]", "[1e300]\n" },
	{ "SELECT $1::int8", "[-9223372036854775808]", "[-9223372036854775808]\n" },
	{ "SELECT $1::text", "[\"it's; DROP\"]", "[\"it's; DROP\"]\n" },
	{ "SELECT $1::jsonb->'a'", "[{\"a\":[1]}]", "[[1]]\n" },
	{ "SELECT $1::date + 1", "[\"2024-02-28\"]", "[\"2024-02-29\"]\n" },
	{ "SELECT $2::text || $1::text", "[\"a\",\"b\"]", "[\"ba\"]\n" },
	{ "SELECT $1::int4range", "[\"[1,2)\"]", "[\"[1,2)\"]\n" },
	{ "SELECT count(*) FROM generate_series(1,10) i WHERE i > $1", "[7]", "[3]\n" },
};

static const struct {
	const char *sql, *params;
	int code;
	const char *native, *hint;
} wrong[] = {
	{ "SELEC 1", NULL, PT_E_QUERY, "42601", "" },
	{ "SELECT 1; SELECT 2", NULL, PT_E_QUERY, "42601", "" },
	{ "SELECT nothing FROM nowhere", NULL, PT_E_QUERY, "42P01", "" },
	{ "SELECT 1/0", NULL, PT_E_QUERY, "22012", "" },
	{ "SELECT 10/(5-i) FROM generate_series(1,9) i", NULL, PT_E_QUERY, "22012", "" },
	{ "SELECT 10/($1-i) FROM generate_series(1,9) i", "[5]", PT_E_QUERY, "22012", "" },
	{ "SELECT 1) TO PROGRAM 'true' -- ", NULL, PT_E_QUERY, "42601", "" },
	{ "SELECT 1 INTO made", NULL, PT_E_QUERY, "", "" },
	{ "CREATE TABLE made (i int)", NULL, PT_E_QUERY, "25006", "mode: write" },
	{ "SELECT nextval('seq')", NULL, PT_E_QUERY, "25006", "mode: write" },
	{ "SELECT $1::int4", "[\"x\"]", PT_E_QUERY, "22P02", "" },
	{ "SELECT $1::int4", NULL, PT_E_INVALID, "", "" },
	{ "SELECT 1", "[1]", PT_E_INVALID, "", "" },
	{ "SELECT $1::text", "[\"a\\u0000b\"]", PT_E_INVALID, "", "" },
	{ "", NULL, PT_E_INVALID, "", "" },
	{ "-- nothing", NULL, PT_E_INVALID, "", "" },
	{ "COPY (SELECT 1) TO STDOUT", NULL, PT_E_UNSUPPORTED, "", "SELECT" },
	{ "SELECT '294276-12-31 23:59'::timestamp", NULL, PT_E_UNSUPPORTED, "", "cast" },
	{ "SELECT '294276-12-31 23:59'::timestamp, int4range(1,2)", NULL, PT_E_UNSUPPORTED, "", "cast" },
};

static void test_types(struct pt_conn *c)
{
	struct answer a = { 0 };
	char sql[512], want[512];

	for (size_t i = 0; i < PT_COUNT(values); i++) {
		snprintf(sql, sizeof(sql), "SELECT %s", values[i].sql);
		snprintf(want, sizeof(want), "[%s]\n", values[i].json);
		ask(c, &a, sql, NULL, false, NULL);
		is_str(a.text.p, want, "%s binary %s", values[i].sql, a.err.msg);
		is_str(a.types, values[i].type, "its type");
		is_str(a.natives, values[i].native, "its native type");
		snprintf(sql, sizeof(sql), "SELECT %s, int4range(1,2)", values[i].sql);
		snprintf(want, sizeof(want), "[%s,\"[1,2)\"]\n", values[i].json);
		ask(c, &a, sql, NULL, false, NULL);
		is_str(a.text.p, want, "as text %s", a.err.msg);
		snprintf(sql, sizeof(sql), "SELECT %s WHERE $1", values[i].sql);
		snprintf(want, sizeof(want), "[%s]\n", values[i].json);
		ask(c, &a, sql, "[true]", false, NULL);
		is_str(a.text.p, want, "with a parameter, not by COPY %s", a.err.msg);
		snprintf(sql, sizeof(sql), "SELECT CASE WHEN i = 1 THEN %s END FROM generate_series(0,2) i ORDER BY i",
			 values[i].sql);
		snprintf(want, sizeof(want), "[null]\n[%s]\n[null]\n", values[i].json);
		ask(c, &a, sql, NULL, false, NULL);
		is_str(a.text.p, want, "among NULLs %s", a.err.msg);
	}
	for (size_t i = 0; i < PT_COUNT(others); i++) {
		snprintf(sql, sizeof(sql), "SELECT %s", others[i].sql);
		ask(c, &a, sql, NULL, false, NULL);
		is_str(a.text.p, others[i].json, "%s %s", others[i].sql, a.err.msg);
		is_str(a.types, "text", "as text");
	}
	ask(c, &a, "SELECT '{1,2}'::int4[] FROM generate_series(1,10000)", NULL, false, NULL);
	is_int(a.stats.rows, 10000, "many arrays");
	ask(c, &a, "SELECT repeat('x', 3000000) FROM generate_series(1,3)", NULL, false, NULL);
	is_int(a.stats.bytes, 3 * 3000005, "large values");
	ask(c, &a, "SELECT 1 -- a comment at the end", NULL, false, NULL);
	is_str(a.text.p, "[1]\n", "a comment at the end");
	ask(c, &a, "(VALUES (1), (2));", NULL, false, NULL);
	is_str(a.text.p, "[1]\n[2]\n", "a semicolon at the end");
	ask(c, &a, "WITH x AS (SELECT 1 AS i) TABLE x", NULL, false, NULL);
	is_str(a.text.p, "[1]\n", "WITH");
	ask(c, &a, "EXPLAIN (COSTS OFF) SELECT 1", NULL, false, NULL);
	is_str(a.text.p, "[\"Result\"]\n", "EXPLAIN");
	ask(c, &a, "SELECT 1 AS a, 2 AS a", NULL, false, NULL);
	is_str(a.text.p, "[1,2]\n", "two columns of one name");
	ask(c, &a, "SELECT FROM generate_series(1,2)", NULL, false, NULL);
	is_str(a.text.p, "[]\n[]\n", "rows without columns");
	ask(c, &a, "SELECT 1 WHERE false", NULL, false, NULL);
	ok(a.rc == 0 && a.text.len == 0 && !strcmp(a.types, "int32"), "no rows, but columns");
	pt_buf_release(&a.text);
}

static void test_statements(struct pt_conn *c)
{
	struct answer a = { 0 };

	for (size_t i = 0; i < PT_COUNT(bound); i++) {
		ask(c, &a, bound[i].sql, bound[i].params, false, NULL);
		is_str(a.text.p, bound[i].json, "%s with %s %s", bound[i].sql, bound[i].params, a.err.msg);
	}
	for (size_t i = 0; i < PT_COUNT(wrong); i++) {
		is_int(ask(c, &a, wrong[i].sql, wrong[i].params, false, NULL), wrong[i].code, "refused: %s (%s)", wrong[i].sql,
		       a.err.msg);
		ok(!*wrong[i].native || !strcmp(a.err.native, wrong[i].native), "SQLSTATE %s", a.err.native);
		ok(strstr(a.err.hint, wrong[i].hint), "hint");
		ok(ask(c, &a, "SELECT 1", NULL, false, NULL) == 0, "and the connection works: %s", a.err.msg);
	}
	ok(ask(c, &a, "CREATE TABLE t (i int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)", NULL, true, NULL) == 0, "create %s",
	   a.err.msg);
	ok(ask(c, &a, "INSERT INTO t SELECT generate_series(1,5)", NULL, true, NULL) == 0 && c->type->affected(c) == 5,
	   "affected rows");
	ok(ask(c, &a, "INSERT INTO t VALUES (6) RETURNING i", NULL, true, NULL) == 0, "returning");
	is_str(a.text.p, "[6]\n", "rows of a write");
	ok(ask(c, &a, "INSERT INTO t VALUES (6)", NULL, true, NULL) == PT_E_QUERY && !strcmp(a.err.native, "23505"),
	   "fails at commit");
	ok(ask(c, &a, "DELETE FROM t", NULL, false, NULL) == PT_E_QUERY, "not without write");
	ok(ask(c, &a, "SET search_path = pg_catalog", NULL, false, NULL) == 0 &&
		   ask(c, &a, "SHOW search_path", NULL, false, NULL) == 0 && !strstr(a.text.p, "pg_catalog"),
	   "a SET does not stay in the session");
	is_int(ask(c, &a, "SELECT * FROM t", NULL, false, NULL) == 0 ? a.stats.rows : -1, 6, "six rows are there");
	{ /* early release of a writing statement: nothing is written */
		struct ArrowArrayStream s = { 0 };
		struct ArrowArray batch = { 0 };
		struct pt_query q = { .sql = "INSERT INTO t SELECT generate_series(100,100000) RETURNING i", .write = true };
		struct pt_err e;

		ok(pt_conn_query(c, &q, &s, &e) == 0 && s.get_next(&s, &batch) == 0 && batch.length > 0, "a first batch");
		batch.release(&batch);
		s.release(&s);
		is_int(ask(c, &a, "SELECT * FROM t", NULL, false, NULL) == 0 ? a.stats.rows : -1, 6, "released early: undone");
		q = (struct pt_query) { .sql = "SELECT generate_series(1, 100000000), repeat('x', 100)" };
		for (int i = 0; i < 3; i++) {
			int64_t start = pt_mono_ms();

			ok(pt_conn_query(c, &q, &s, &e) == 0 && s.get_next(&s, &batch) == 0, "a long one");
			if (batch.release)
				batch.release(&batch);
			if (s.release)
				s.release(&s);
			ok(pt_mono_ms() - start < 2000, "ends at once: %d ms", (int)(pt_mono_ms() - start));
			ok(ask(c, &a, "SELECT 1", NULL, false, NULL) == 0, "and the connection works: %s", a.err.msg);
		}
	}
	pt_buf_release(&a.text);
}

/* From a second connection: wait until `want` statements with this mark run. */
static bool wait_running(struct pt_conn *watch, const char *mark, int want)
{
	struct answer a = { 0 };
	char sql[256], text[16];
	int64_t end = pt_mono_ms() + 5000;
	bool good = false;

	snprintf(sql, sizeof(sql),
		 "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%%%s%%' AND pid <> "
		 "pg_backend_pid()",
		 mark);
	snprintf(text, sizeof(text), "[%d]\n", want);
	while (!good && pt_mono_ms() < end) {
		good = ask(watch, &a, sql, NULL, false, NULL) == 0 && !strcmp(a.text.p, text);
		if (!good)
			usleep(2000);
	}
	pt_buf_release(&a.text);
	return good;
}

struct later {
	struct pt_conn *watch;
	struct pt_cancel *cancel;
	const char *mark, *sql; /* what to do once the statement runs: fire, or run sql */
	int64_t at_ms;
};

static void *do_later(void *arg)
{
	struct later *l = arg;
	struct answer a = { 0 };

	if (!wait_running(l->watch, l->mark, 1))
		return NULL;
	l->at_ms = pt_mono_ms();
	if (l->cancel)
		pt_cancel_fire(l->cancel, PT_E_CANCELLED, "cancelled by a test");
	else
		ask(l->watch, &a, l->sql, NULL, false, NULL);
	if (a.text.max)
		pt_buf_release(&a.text);
	return NULL;
}

static void test_cancel(struct pt_conn *c, struct pt_conn *watch)
{
	static const char *const sqls[] = {
		"SELECT pg_sleep(60) /* mark1 */", "SELECT generate_series(1, 1000000000), repeat('x', 200) /* mark2 */",
		"SELECT count(*) FROM generate_series(1, 100000000000) i /* mark3 */",
		"SELECT generate_series(1, 1000000000), repeat('x', 200), int4range(1, 2) /* mark5 */"
	};
	static const char *const marks[] = { "mark1", "mark2", "mark3", "mark5" };
	struct answer a = { 0 };
	struct pt_err e;
	struct pt_cancel k;

	for (size_t i = 0; i < PT_COUNT(sqls); i++) {
		struct later l = { .watch = watch, .cancel = &k, .mark = marks[i] };
		struct ArrowArrayStream s = { 0 };
		struct pt_query q = { .sql = sqls[i], .cancel = &k };
		struct ArrowArray batch = { 0 };
		pthread_t t;
		int rc;

		ok(pt_cancel_init(&k, &e) == 0, "token");
		pthread_create(&t, NULL, do_later, &l);
		rc = pt_conn_query(c, &q, &s, &e);
		while (rc == 0 && s.get_next(&s, &batch) == 0 && batch.release)
			batch.release(&batch);
		pthread_join(t, NULL);
		is_int(rc == 0 ? c->stream_err.code : rc, PT_E_CANCELLED, "cancelled (%s)", c->stream_err.msg);
		is_str(c->stream_err.msg, "cancelled by a test", "with its reason");
		ok(l.at_ms && pt_mono_ms() - l.at_ms < 1000, "within a second");
		if (rc == 0)
			s.release(&s);
		ok(wait_running(watch, marks[i], 0), "and it is gone from the server");
		ok(ask(c, &a, "SELECT 1", NULL, false, NULL) == 0, "the connection works: %s", a.err.msg);
		pt_cancel_release(&k);
	}
	for (size_t i = 0; i < PT_COUNT(sqls); i++) {
		struct ArrowArrayStream s = { 0 };
		struct pt_query q = { .sql = sqls[i], .cancel = &k };
		struct ArrowArray batch = { 0 };
		int64_t start = pt_mono_ms();
		int rc;

		ok(pt_cancel_init(&k, &e) == 0, "token");
		k.deadline_ms = start + 300;
		rc = pt_conn_query(c, &q, &s, &e);
		while (rc == 0 && s.get_next(&s, &batch) == 0 && batch.release)
			batch.release(&batch);
		is_int(rc == 0 ? c->stream_err.code : rc, PT_E_DEADLINE, "deadline (%s)", c->stream_err.msg);
		ok(pt_mono_ms() - start >= 300 && pt_mono_ms() - start < 1300, "in time");
		if (rc == 0)
			s.release(&s);
		ok(wait_running(watch, marks[i], 0), "gone from the server");
		ok(ask(c, &a, "SELECT 1", NULL, false, NULL) == 0, "the connection works: %s", a.err.msg);
		pt_cancel_release(&k);
	}
	ok(pt_cancel_init(&k, &e) == 0, "token");
	k.deadline_ms = pt_mono_ms() + 7000;
	ok(ask(c, &a, "SELECT setting::int BETWEEN 7000 AND 7500 FROM pg_settings WHERE name = 'statement_timeout'", NULL, false,
	       &k) == 0 &&
		   !strcmp(a.text.p, "[true]\n"),
	   "the server has the limit too");
	ok(ask(c, &a, "SHOW statement_timeout", NULL, false, NULL) == 0 && !strcmp(a.text.p, "[\"0\"]\n"),
	   "for that statement only");
	pt_cancel_fire(&k, PT_E_CANCELLED, "before it began");
	ok(ask(c, &a, "SELECT 1", NULL, false, &k) == PT_E_CANCELLED, "a cancelled one does not start");
	pt_cancel_release(&k);
	pt_buf_release(&a.text);
}

static void test_lost(struct pt_conn *watch)
{
	struct later l = { .watch = watch,
			   .mark = "mark4",
			   .sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%mark4%' AND pid <> "
				  "pg_backend_pid()" };
	struct answer a = { 0 };
	struct pt_conn *c = NULL;
	struct pt_err e;
	pthread_t t;

	ok(open_json(type, &c, server_args, NULL, &e) == 0, "a third connection");
	pthread_create(&t, NULL, do_later, &l);
	is_int(ask(c, &a, "SELECT generate_series(1, 1000000000), repeat('x', 200) /* mark4 */", NULL, false, NULL),
	       PT_E_CONNECTION_LOST, "the server ends the session (%s)", a.err.msg);
	pthread_join(t, NULL);
	is_int(ask(c, &a, "SELECT 1", NULL, false, NULL), PT_E_CONNECTION_LOST, "it stays lost");
	pt_conn_close(c);
	pt_buf_release(&a.text);
}

static void test_memory(struct pt_conn *c)
{
	struct ArrowArrayStream s = { 0 };
	struct pt_query q = { .sql = "SELECT i, i::numeric(12,2), repeat('x', 100), now() FROM generate_series(1, 1000000) i" };
	struct ArrowArray batch = { 0 };
	struct pt_err e;
	int64_t rows = 0;
	long peak[2] = { 0 };

	ok(pt_conn_query(c, &q, &s, &e) == 0, "a million rows");
	while (s.get_next(&s, &batch) == 0 && batch.release) {
		char line[128];
		FILE *f;

		rows += batch.length;
		batch.release(&batch);
		if (rows < 50000 || !(f = fopen("/proc/self/status", "re")))
			continue;
		while (fgets(line, sizeof(line), f))
			if (sscanf(line, "VmHWM: %ld", &peak[rows > 100000]) == 1)
				break;
		fclose(f);
	}
	s.release(&s);
	is_int(rows, 1000000, "all of them");
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	peak[1] = peak[0]; /* the sanitizers keep freed memory */
#endif
	ok(peak[0] && peak[1] && peak[1] - peak[0] < 1024, "memory stays flat: %ld kB, then %ld kB at most", peak[0], peak[1]);
}

/* @ is replaced by the port, % by the text of a CA file. */
static const struct {
	const char *args;
	int code;
	const char *native, *text, *hint;
} opens[] = {
	{ "{\"host\":\"127.0.0.1\",\"port\":@,\"user\":\"ada\",\"password\":\"lovelace\",\"database\":\"postgres\"}", 0, "", "",
	  "" },
	{ "{\"host\":\"localhost\",\"port\":\"@\",\"user\":\"ada\",\"password\":\"lovelace\",\"db_name\":\"postgres\",\"ssl_"
	  "mode\":\"disable\"}",
	  0, "", "", "" },
	{ "{\"host\":\"127.0.0.1\",\"port\":@,\"user\":\"ada\",\"password\":\"s3cret-wrong\",\"dbname\":\"postgres\"}",
	  PT_E_SOURCE_AUTH, "28P01", "ada", "password" },
	{ "{\"host\":\"127.0.0.1\",\"port\":@,\"user\":\"ada\",\"dbname\":\"postgres\"}", PT_E_SOURCE_AUTH, "", "password",
	  "password" },
	{ "{\"host\":\"127.0.0.1\",\"port\":@,\"user\":\"nobody\",\"password\":\"x\",\"dbname\":\"postgres\"}", PT_E_SOURCE_AUTH,
	  "28000", "", "" },
	{ "{\"host\":\"127.0.0.1\",\"port\":@,\"user\":\"ada\",\"password\":\"lovelace\",\"dbname\":\"none\"}", PT_E_INVALID,
	  "3D000", "none", "dbname" },
	{ "{\"host\":\"127.0.0.1\",\"port\":@,\"user\":\"tlsada\",\"password\":\"lovelace\",\"dbname\":\"postgres\",\"ssl_mode\":"
	  "\"disable\"}",
	  PT_E_TLS_REQUIRED, "28000", "", "ssl_mode" },
	{ "{\"host\":\"127.0.0.1\",\"port\":@,\"user\":\"tlsada\",\"password\":\"lovelace\",\"dbname\":\"postgres\"}", 0, "", "",
	  "" },
	{ "{\"host\":\"localhost\",\"port\":@,\"user\":\"ada\",\"password\":\"lovelace\",\"dbname\":\"postgres\",\"ssl_mode\":"
	  "\"verify-full\","
	  "\"ssl_options\":{\"ca_data\":\"%CA\"}}",
	  0, "", "", "" },
	{ "{\"host\":\"localhost\",\"port\":@,\"user\":\"ada\",\"password\":\"lovelace\",\"dbname\":\"postgres\",\"ssl_mode\":"
	  "\"verify-full\","
	  "\"ssl_options\":{\"ca_data\":\"%OTHER\"}}",
	  PT_E_TLS, "", "certificate", "ca_data" },
	{ "{\"host\":\"localhost\",\"port\":@,\"user\":\"ada\",\"password\":\"lovelace\",\"dbname\":\"postgres\","
	  "\"ssl_options\":{\"ca_data\":\"%OTHER\"}}",
	  PT_E_TLS, "", "certificate", "ca_data" },
	{ "{\"host\":\"127.1.2.3,127.0.0.1\",\"port\":@,\"user\":\"ada\",\"password\":\"lovelace\",\"dbname\":\"postgres\"}", 0,
	  "", "", "" },
	{ "{\"host\":\"127.0.0.1\",\"port\":@,\"user\":\"ada\",\"password\":\"lovelace\",\"ssl_mode\":\"verify-full\","
	  "\"sslrootcert\":\"/none\"}",
	  PT_E_TLS, "", "/none", "ca_data" },
	{ "{\"host\":\"127.0.0.1\",\"port\":1,\"user\":\"ada\"}", PT_E_CONNECT, "", "refused", "" },
	{ "{\"host\":\"no-such-host.invalid\",\"user\":\"ada\"}", PT_E_HOST_UNKNOWN, "", "no-such-host.invalid", "host" },
	{ "{\"host\":\"x\",\"user\":\"ada\",\"pasword\":\"s3cret-wrong\"}", PT_E_INVALID, "", "pasword", "password" },
	{ "{\"host\":\"x\"}", PT_E_INVALID, "", "user", "" },
	{ "{\"user\":\"x\"}", PT_E_INVALID, "", "host", "" },
	{ "{\"host\":\"x\",\"user\":\"x\",\"port\":70000}", PT_E_INVALID, "", "port", "" },
	{ "{\"host\":\"x\",\"user\":\"x\",\"ssl_mode\":\"sometimes\"}", PT_E_INVALID, "", "ssl_mode", "" },
	{ "{\"host\":\"x\",\"user\":\"x\",\"dbname\":\"a\",\"database\":\"b\"}", PT_E_INVALID, "", "twice", "" },
	{ "{\"host\":\"x\",\"user\":\"x\",\"ssl_options\":{\"key\":1}}", PT_E_INVALID, "", "ssl_options.key", "" },
	{ "[]", PT_E_INVALID, "", "connect_args", "" },
};

static void expand(const char *args, struct pt_buf *out)
{
	static const struct {
		const char *mark, *file;
	} files[] = { { "%CA", "PG_CA_FILE" }, { "%OTHER", "PG_OTHER_CA_FILE" } };

	for (; *args; args++) {
		if (*args == '@') {
			pt_buf_str(out, getenv("PGPORT"));
			continue;
		}
		for (size_t i = 0; i < PT_COUNT(files) && *args == '%'; i++)
			if (!strncmp(args, files[i].mark, strlen(files[i].mark))) {
				char pem[8192];
				FILE *f = fopen(getenv(files[i].file), "re");
				size_t n = f ? fread(pem, 1, sizeof(pem), f) : 0, from = out->len;

				if (f)
					fclose(f);
				pt_buf_json(out, pem, n);
				memmove(out->p + from, out->p + from + 1, out->len - from - 2); /* without the quotes */
				out->len -= 2;
				args += strlen(files[i].mark);
			}
		pt_buf_chr(out, *args);
	}
}

static void test_open(void)
{
	struct pt_err e;
	struct pt_conn *c;

	for (size_t i = 0; i < PT_COUNT(opens); i++) {
		pt_auto_buf args = PT_BUF_INIT(16384);
		int rc;

		expand(opens[i].args, &args);
		c = NULL;
		rc = open_json(type, &c, args.p, NULL, &e);
		is_int(rc, opens[i].code, "open %zu (%s)", i, e.msg);
		is_str(e.native, opens[i].native, "SQLSTATE");
		ok(strstr(e.msg, opens[i].text) && strstr(e.hint, opens[i].hint), "message and hint: %s; %s", e.msg, e.hint);
		ok(!strstr(e.msg, "s3cret") && !strstr(e.hint, "s3cret") && !strstr(e.msg, "LOCATION"),
		   "no secret, no source location");
		pt_conn_close(c);
	}
	{ /* a listener that never answers: the token and the limit end it */
		struct pt_cancel k;
		int64_t start = pt_mono_ms();

		ok(pt_cancel_init(&k, &e) == 0, "token");
		k.deadline_ms = start + 200;
		is_int(open_json(type, &c, getenv("PT_SILENT_ARGS"), &k, &e), PT_E_DEADLINE, "deadline while connecting (%s)",
		       e.msg);
		ok(pt_mono_ms() - start < 1000, "at once");
		is_int(open_json(type, &c, getenv("PT_SILENT_ARGS"), NULL, &e), PT_E_TIMEOUT, "connect_timeout (%s)", e.msg);
		pt_cancel_release(&k);
	}
}

/* "db.test" has two addresses, and the server listens on the second alone; "hangs.test" is never answered. */
static sem_t hang;
static int lookup(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **ret)
{
	int rc;

	if (strcmp(host, "hangs.test") == 0)
		sem_wait(&hang);
	if (strcmp(host, "db.test") != 0)
		return EAI_NONAME;
	rc = getaddrinfo("127.1.2.3", port, hints, ret);
	return rc ? rc : getaddrinfo("127.0.0.1", port, hints, &(*ret)->ai_next);
}

static void test_names(void)
{
	static const struct {
		const char *host;
		int code;
	} names[] = {
		{ "db.test", 0 },
		{ "other.test,db.test", 0 },
		{ "127.1.2.3,other.test,127.0.0.1", 0 },
		{ "other.test", PT_E_HOST_UNKNOWN },
		{ "other.test,another.test", PT_E_HOST_UNKNOWN },
	};
	struct pt_conn *c = NULL;
	struct pt_cancel k;
	struct pt_err e = { 0 };
	int64_t start;

	sem_init(&hang, 0, 0);
	pt_resolve_inject(lookup);
	for (size_t i = 0; i < PT_COUNT(names); i++) {
		char args[200];

		snprintf(args, sizeof(args), "{\"host\":\"%s\",\"port\":%s,\"user\":\"postgres\",\"sslmode\":\"disable\"}",
			 names[i].host, getenv("PGPORT"));
		is_int(open_json(type, &c, args, NULL, &e), names[i].code, "host %s (%s)", names[i].host, e.msg);
		pt_conn_close(c);
		c = NULL;
	}
	ok(strstr(e.msg, "another.test") && strstr(e.hint, "DNS"), "the name is told, with a hint");
	start = pt_mono_ms();
	ok(pt_cancel_init(&k, &e) == 0, "token");
	k.deadline_ms = start + 200;
	is_int(open_json(type, &c, "{\"host\":\"hangs.test\",\"user\":\"x\"}", &k, &e), PT_E_DEADLINE,
	       "deadline during a lookup (%s)", e.msg);
	is_int(open_json(type, &c, "{\"host\":\"hangs.test\",\"user\":\"x\",\"connect_timeout\":1}", NULL, &e), PT_E_TIMEOUT,
	       "connect_timeout (%s)", e.msg);
	ok(pt_mono_ms() - start < 2000, "at once");
	pt_cancel_release(&k);
	sem_post(&hang); /* the abandoned lookups end */
	sem_post(&hang);
	pt_resolve_inject(NULL);
}

static void setup(struct pt_conn *c)
{
	static const char *const sqls[] = { "CREATE TYPE mood AS ENUM ('happy', 'sad')",
					    "CREATE DOMAIN positive AS int4 CHECK (VALUE > 0)",
					    "CREATE TYPE pair AS (a int4, b text)",
					    "CREATE SEQUENCE seq",
					    "CREATE ROLE poor LOGIN",
					    "CREATE TABLE secret (i int)" };
	struct answer a = { 0 };

	for (size_t i = 0; i < PT_COUNT(sqls); i++)
		ok(ask(c, &a, sqls[i], NULL, true, NULL) == 0, "%s %s", sqls[i], a.err.msg);
	pt_buf_release(&a.text);
}

int main(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sin);
	struct pt_conn *c = NULL, *watch = NULL;
	struct answer a = { 0 };
	char silent[128];
	struct pt_err e;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (!getenv("PGPORT")) {
		printf("1..0 # SKIP no server: run by tests/with-postgres.sh\n");
		return 0;
	}
	if (fd < 0 || bind(fd, (struct sockaddr *)&sin, len) < 0 || listen(fd, 5) < 0 ||
	    getsockname(fd, (struct sockaddr *)&sin, &len) < 0)
		return 1;
	snprintf(silent, sizeof(silent), "{\"host\":\"127.0.0.1\",\"port\":%d,\"user\":\"x\",\"connect_timeout\":1}",
		 ntohs(sin.sin_port));
	setenv("PT_SILENT_ARGS", silent, 1);
	snprintf(server_args, sizeof(server_args),
		 "{\"host\":\"127.0.0.1\",\"port\":%s,\"user\":\"postgres\",\"dbname\":\"postgres\",\"sslmode\":\"disable\"}",
		 getenv("PGPORT"));
	ok(open_json(type, &c, server_args, NULL, &e) == 0 && open_json(type, &watch, server_args, NULL, &e) == 0,
	   "connected (%s)", e.msg);
	if (!c || !watch)
		return tap_end();
	setup(c);
	test_types(c);
	test_statements(c);
	test_cancel(c, watch);
	test_lost(watch);
	test_memory(c);
	test_open();
	test_names();
	ok(ask(c, &a, "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()", NULL, false, NULL) == 0 &&
		   !strcmp(a.text.p, "[\"postern\"]\n"),
	   "application_name");
	pt_buf_release(&a.text);
	pt_conn_close(c);
	c = NULL;
	snprintf(silent, sizeof(silent),
		 "{\"host\":\"%s\",\"port\":%s,\"user\":\"ada\",\"password\":\"lovelace\",\"dbname\":\"postgres\"}",
		 getenv("PG_SOCKET_DIR"), getenv("PGPORT"));
	ok(open_json(type, &c, silent, NULL, &e) == 0, "Unix socket (%s)", e.msg);
	if (c) {
		is_int(ask(c, &a, "SELECT * FROM secret", NULL, false, NULL), PT_E_SOURCE_DENIED, "no permission");
		is_str(a.err.native, "42501", "SQLSTATE");
		pt_buf_release(&a.text);
	}
	pt_conn_close(c);
	pt_conn_close(watch);
	close(fd);
	return tap_end();
}
