#include "../connector_util.h"
#include "base/clock.h"
#include <sqlite3.h>
#include <sys/stat.h>

static char dir[] = "/tmp/postern-sqlite.XXXXXX", path[64], args[128];

static const char schema[] =
	"CREATE TABLE t (id INTEGER PRIMARY KEY, name VARCHAR(20), price REAL, raw BLOB, amount NUMERIC, day DATE);"
	"INSERT INTO t VALUES (1, 'a', 1.5, x'0001ff', 10, '2024-01-01'), (2, NULL, 2, NULL, 10.5, NULL), (3, 'c\"', NULL, x'', "
	"'x', '2024-02');"
	"CREATE TABLE mixed (v); INSERT INTO mixed VALUES (1), (2.5), ('t'), (x'ff'), (NULL);"
	"CREATE TABLE big (n INTEGER, f, t TEXT);"
	"WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM r WHERE i < 10000) INSERT INTO big SELECT i, i, 'row' FROM r;"
	"CREATE TABLE dirty (n INTEGER);"
	"WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM r WHERE i < 2000) INSERT INTO dirty SELECT i FROM r;"
	"INSERT INTO dirty VALUES ('not a number'); CREATE TABLE empty (a INT, b TEXT, c REAL, d BLOB, e, f DECIMAL(10,2));";

static const struct {
	const char *sql, *params, *json, *types;
} good[] = {
	{ "SELECT * FROM t", NULL,
	  "[1,\"a\",1.5,\"AAH/\",10,\"2024-01-01\"]\n[2,null,2.0,null,10.5,null]\n[3,\"c\\\"\",null,\"\",\"x\",\"2024-02\"]\n",
	  "int64,text,float64,bytes,any,text" },
	{ "SELECT v FROM mixed", NULL, "[1]\n[2.5]\n[\"t\"]\n[{\"base64\":\"/w==\"}]\n[null]\n", "any" },
	{ "SELECT 1, 2.5, 'x', x'00', NULL", NULL, "[1,2.5,\"x\",\"AA==\",null]\n", "int64,float64,text,bytes,text" },
	{ "SELECT 1 UNION ALL SELECT 2.5", NULL, "[1.0]\n[2.5]\n", "float64" },
	{ "SELECT 9007199254740993 UNION ALL SELECT 2.5", NULL, "[9007199254740993]\n[2.5]\n", "any" },
	{ "SELECT * FROM empty", NULL, "", "int64,text,float64,bytes,text,text" },
	{ "SELECT 9223372036854775807, -9223372036854775808", NULL, "[9223372036854775807,-9223372036854775808]\n",
	  "int64,int64" },
	{ "SELECT 1e999, -1e999, 0.1", NULL, "[\"Infinity\",\"-Infinity\",0.1]\n", "float64,float64,float64" },
	{ "SELECT ?, ?, ?, ?, ?, ?", "[null, true, -5, 0.1, \"it's\", {\"a\":[1]}]",
	  "[null,1,-5,0.1,\"it's\",\"{\\\"a\\\":[1]}\"]\n", "text,int64,int64,float64,text,text" },
	{ "SELECT ?2, ?1", "[1, 2]", "[2,1]\n", "int64,int64" },
	{ "SELECT 'a' || char(0) || 'b'", NULL, "[\"a\\u0000b\"]\n", "text" },
	{ "SELECT count(*) FROM big; -- that is all\n", NULL, "[10000]\n", "int64" },
	{ "EXPLAIN SELECT 1 WHERE 0", NULL, NULL, NULL },
	{ "PRAGMA table_info(big)", NULL, NULL, NULL },
	{ "SELECT name FROM pragma_table_info('mixed')", NULL, "[\"v\"]\n", "text" },
	{ "PRAGMA user_version", NULL, "[0]\n", "int64" },
};

static const struct {
	const char *sql, *params;
	bool write;
	int code;
	const char *text;
} bad[] = {
	{ "SELEC 1", NULL, false, PT_E_QUERY, "syntax" },
	{ "SELECT 1; SELECT 2", NULL, false, PT_E_QUERY, "more than one" },
	{ "", NULL, false, PT_E_INVALID, "empty" },
	{ "-- nothing", NULL, false, PT_E_INVALID, "empty" },
	{ "SELECT ?", NULL, false, PT_E_INVALID, "1 parameters" },
	{ "SELECT 1", "[1]", false, PT_E_INVALID, "0 parameters" },
	{ "SELECT * FROM nowhere", NULL, false, PT_E_QUERY, "nowhere" },
	{ "INSERT INTO mixed VALUES (1)", NULL, false, PT_E_QUERY, "write" },
	{ "CREATE TABLE x (i)", NULL, false, PT_E_QUERY, "write" },
	{ "SELECT n FROM dirty", NULL, false, PT_E_QUERY, "row 2001" },
	{ "ATTACH '/tmp/other.db' AS o", NULL, true, PT_E_SOURCE_DENIED, "" },
	{ "ATTACH '/tmp/other.db' AS o", NULL, false, PT_E_SOURCE_DENIED, "" },
	{ "VACUUM INTO '/tmp/postern-stolen.db'", NULL, false, PT_E_QUERY, "" },
	{ "VACUUM INTO '/tmp/postern-stolen.db'", NULL, true, PT_E_QUERY, "" },
	{ "BEGIN", NULL, true, PT_E_SOURCE_DENIED, "" },
	{ "COMMIT", NULL, true, PT_E_SOURCE_DENIED, "" },
	{ "PRAGMA query_only = OFF", NULL, false, PT_E_SOURCE_DENIED, "" },
	{ "PRAGMA writable_schema = ON", NULL, true, PT_E_SOURCE_DENIED, "" },
	{ "PRAGMA user_version = 7", NULL, true, PT_E_SOURCE_DENIED, "" },
	{ "SELECT load_extension('x')", NULL, true, PT_E_QUERY, "not authorized" },
};

static void test_open(void)
{
	static const struct {
		const char *args;
		int code;
		const char *text;
	} opens[] = {
		{ "{\"path\":\"/tmp/postern-sqlite-none/x.db\"}", PT_E_CONNECT, "No such file" },
		{ "{\"path\":\"/tmp\"}", PT_E_INVALID, "path" },
		{ "{\"file\":\":memory:\"}", PT_E_INVALID, "file" },
		{ "{\"path\":\"file:/etc/passwd?mode=ro\"}", PT_E_INVALID, "path" },
		{ "{\"database\":\"/etc/passwd\"}", PT_E_INVALID, "not an SQLite" },
		{ "{\"path\":\"\"}", PT_E_INVALID, "path" },
		{ "{}", PT_E_INVALID, "path" },
		{ "{\"path\":1}", PT_E_INVALID, "string" },
		{ "{\"path\":\"a\",\"file\":\"b\"}", PT_E_INVALID, "twice" },
		{ "{\"mode\":\"rw\"}", PT_E_INVALID, "mode" },
		{ "1", PT_E_INVALID, "object" },
	};
	struct pt_conn *c = NULL;
	struct pt_err e;

	for (size_t i = 0; i < PT_COUNT(opens); i++) {
		is_int(open_json(&pt_connector_sqlite, &c, opens[i].args, NULL, &e), opens[i].code, "open %s: %s", opens[i].args,
		       e.msg);
		ok(strstr(e.msg, opens[i].text), "says %s", opens[i].text);
	}
	ok(access("/tmp/postern-sqlite-none", F_OK) != 0, "nothing was created");
}

static void test_cancel(struct pt_conn *c)
{
	static const char forever[] = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM r) SELECT count(*) FROM r";
	struct answer a = { 0 };
	struct pt_cancel k;
	struct pt_err e;
	int64_t start = pt_mono_ms();

	ok(pt_cancel_init(&k, &e) == 0, "token");
	k.deadline_ms = start + 200;
	is_int(ask(c, &a, forever, NULL, false, &k), PT_E_DEADLINE, "deadline");
	ok(pt_mono_ms() - start < 1000, "in time");
	pt_cancel_fire(&k, PT_E_CANCELLED, "by a test");
	is_int(ask(c, &a, forever, NULL, true, &k), PT_E_CANCELLED, "cancelled before it began");
	ok(ask(c, &a, "SELECT 1", NULL, false, NULL) == 0, "works again");
	pt_cancel_release(&k);
	pt_buf_release(&a.text);
}

static void test_write(struct pt_conn *c)
{
	struct answer a = { 0 };
	struct pt_conn *other = NULL;
	struct ArrowArrayStream s = { 0 };
	struct ArrowArray batch = { 0 };
	struct pt_query q = { .sql = "INSERT INTO mixed SELECT n FROM big RETURNING v", .write = true };
	struct pt_cancel k;
	struct pt_err e;

	ok(ask(c, &a, "INSERT INTO mixed VALUES (7), (8)", NULL, true, NULL) == 0 && c->type->affected(c) == 2, "two rows %s",
	   a.err.msg);
	ok(ask(c, &a, "SELECT count(*) FROM mixed", NULL, false, NULL) == 0 && !strcmp(a.text.p, "[7]\n"), "seen by the reader");
	ok(c->type->affected(c) == -1, "a reader changes nothing");
	ok(pt_conn_query(c, &q, &s, &e) == 0 && s.get_next(&s, &batch) == 0, "a write with rows");
	batch.release(&batch);
	ok(open_json(&pt_connector_sqlite, &other, args, NULL, &e) == 0 && pt_cancel_init(&k, &e) == 0, "another connection");
	k.deadline_ms = pt_mono_ms() + 200;
	ok(ask(other, &a, "DELETE FROM mixed", NULL, true, &k) == PT_E_DEADLINE, "waits for the file no longer than it may: %s",
	   a.err.msg);
	pt_cancel_release(&k);
	pt_conn_close(other);
	s.release(&s);
	ok(ask(c, &a, "SELECT count(*) FROM mixed", NULL, false, NULL) == 0 && !strcmp(a.text.p, "[7]\n"),
	   "released early: undone");
	pt_buf_release(&a.text);
}

int main(void)
{
	struct answer a = { 0 };
	struct pt_conn *c = NULL;
	struct pt_err e;
	sqlite3 *db;

	if (!mkdtemp(dir))
		return 1;
	snprintf(path, sizeof(path), "%s/t.db", dir);
	snprintf(args, sizeof(args), "{\"path\":\"%s\"}", path);
	ok(sqlite3_open(path, &db) == SQLITE_OK && sqlite3_exec(db, schema, NULL, NULL, NULL) == SQLITE_OK, "a file");
	sqlite3_close(db);
	ok(open_json(&pt_connector_sqlite, &c, args, NULL, &e) == 0, "open %s", e.msg);
	if (!c)
		return tap_end();
	for (size_t i = 0; i < PT_COUNT(good); i++) {
		is_int(ask(c, &a, good[i].sql, good[i].params, false, NULL), 0, "%zu: %s", i, a.err.msg);
		if (good[i].json)
			is_str(a.text.p, good[i].json, "rows");
		if (good[i].types)
			is_str(a.types, good[i].types, "types");
	}
	ask(c, &a, "SELECT n, f, t, n + 1 FROM big", NULL, false, NULL);
	is_int(a.stats.rows, 10000, "more rows than are read ahead");
	is_str(a.types, "int64,any,text,any", "types that are promised for all of them");
	is_str(a.natives, "INTEGER,-,TEXT,-", "declared types");
	ok(strstr(a.text.p, "[9999,9999,\"row\",10000]\n[10000,10000,\"row\",10001]\n"), "the last rows");
	for (size_t i = 0; i < PT_COUNT(bad); i++) {
		is_int(ask(c, &a, bad[i].sql, bad[i].params, bad[i].write, NULL), bad[i].code, "refused: %s (%s; %s)", bad[i].sql,
		       a.err.msg, a.err.hint);
		ok(strstr(a.err.msg, bad[i].text), "says so");
		ok(ask(c, &a, "SELECT 1", NULL, false, NULL) == 0 && !strcmp(a.text.p, "[1]\n"), "and works on");
	}
	ok(access("/tmp/postern-stolen.db", F_OK) != 0 && access("/tmp/other.db", F_OK) != 0, "no other file was made");
	test_cancel(c);
	test_write(c);
	test_open();
	ok(pt_connector_find("sqlite3") == &pt_connector_sqlite && pt_connector_find("postgresql") == &pt_connector_postgres &&
		   !pt_connector_find("oracle"),
	   "found by name and alias");
	pt_buf_release(&a.text);
	pt_conn_close(c);
	unlink(path);
	rmdir(dir);
	return tap_end();
}
