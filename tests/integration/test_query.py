"""`query` through the whole path on real data: client -> gateway -> agent -> PostgreSQL or SQLite and back.

Values are compared with what PostgreSQL itself prints for them (its text form, read by psycopg2 without any conversion) and with what
Python's sqlite3 reads.
"""
import base64
import hashlib
import itertools
import json
import re
import sqlite3
import subprocess
import time

import psycopg2.extensions
import pytest

from data_path import DataPath
from harness import clean_env, peak_rss, reset_peak_rss
from product import BIN, sanitized

LIMIT_RSS = 64 << 20


@pytest.fixture(scope="module")
def env(module_stack):
    return DataPath(module_stack)


# --- what PostgreSQL's text says, in the JSON form of docs/types.md

def as_it_is(s):
    return s


def a_float(s):
    return s if s in ("NaN", "Infinity", "-Infinity") else float(s)


def a_date(s):
    if "infinity" in s:
        return s
    m = re.fullmatch(r"(\d{4,})(-\d\d-\d\d)( BC)?", s)
    year = 1 - int(m[1]) if m[3] else int(m[1])
    return ("+" if year > 9999 else "-" if year < 0 else "") + f"{abs(year):04d}{m[2]}"


def a_time(s):
    m = re.fullmatch(r"(\d\d:\d\d:\d\d)(\.\d+)?(?:([+-]\d\d)(:\d\d)?(:\d\d)?)?", s)
    return m[1] + (f"{m[2]:0<7}" if m[2] else "") + (m[3] + (m[4] or ":00") + (m[5] or "") if m[3] else "")


def a_timestamp(s):
    if "infinity" in s:
        return s
    date, rest = s.split(" ", 1)
    bc = rest.endswith(" BC")
    clock = a_time(rest.removesuffix(" BC").removesuffix("+00"))
    return f"{a_date(date + ' BC' * bc)}T{clock}" + "Z" * ("+00" in rest)


def some_bytes(s):
    return base64.b64encode(bytes.fromhex(s.removeprefix("\\x"))).decode()


def an_amount(s):
    return s.replace("$", "").replace(",", "")


# column type, logical type, native type, conversion of PostgreSQL's text, values (the rows are as long as the longest; NULL fills)
TYPES = [
    ("boolean", "bool", "bool", lambda s: s == "t", "true", "false"),
    ("smallint", "int16", "int2", int, "-32768", "32767", "0"),
    ("integer", "int32", "int4", int, "-2147483648", "2147483647", "0"),
    ("bigint", "int64", "int8", int, "-9223372036854775808", "9223372036854775807", "9007199254740993"),
    ("oid", "int64", "oid", int, "4294967295", "0"),
    ("real", "float32", "float4", a_float, "0.1", "NaN", "-Infinity", "3.4028235e38", "1e-45"),
    ("double precision", "float64", "float8", a_float, "0.30000000000000004", "NaN", "Infinity", "5e-324", "1.7976931348623157e308",
     "-0"),
    ("numeric", "decimal", "numeric", as_it_is, "9" * 60 + "." + "1" * 40, "NaN", "-Infinity", "0.000", "-1e-30", "1e100"),
    ("numeric(12,2)", "decimal", "numeric(12,2)", as_it_is, "-9999999999.99", "0.5"),
    ("money", "decimal", "money", an_amount, "-92233720368547758.08", "92233720368547758.07", "0.05"),
    ("text", "text", "text", as_it_is, "", "a\"b\\c\n\t\r\x01\x7f/", "žluťoučký 🐎 \u2028", "'; DROP TABLE x; --", "x" * 100000),
    ("varchar(20)", "text", "varchar(20)", as_it_is, "n", "null"),
    ("char(6)", "text", "bpchar(6)", as_it_is, "ab", ""),
    ("name", "text", "name", as_it_is, "pg_class"),
    ('"char"', "text", '"char"', as_it_is, "c"),
    ("xml", "text", "xml", as_it_is, "<a b=\"c\">d</a>"),
    ("mood", "text", "mood", as_it_is, "happy", "so so"),
    ("small", "int32", "int4", int, "7"),
    ("inet", "text", "inet", as_it_is, "10.0.0.1", "10.0.0.1/24", "2001:db8::/32"),
    ("cidr", "text", "cidr", as_it_is, "10.0.0.0/8", "::/0"),
    ("macaddr", "text", "macaddr", as_it_is, "08:00:2b:01:02:03"),
    ("macaddr8", "text", "macaddr8", as_it_is, "08:00:2b:01:02:03:04:05"),
    ("bit(5)", "text", "bit(5)", as_it_is, "10110"),
    ("bit varying", "text", "varbit", as_it_is, "", "1" * 70),
    ("bytea", "bytes", "bytea", some_bytes, "", "\\x00ff7f", "\\x" + bytes(range(256)).hex()),
    ("date", "date", "date", a_date, "2024-02-29", "4714-11-24 BC", "5874897-12-31", "infinity", "-infinity", "0001-01-01 BC"),
    ("time", "time", "time", a_time, "00:00", "24:00", "12:34:56.000789"),
    ("time with time zone", "timetz", "timetz", a_time, "12:34:56.7+02", "00:00-15:59", "23:59:59.999999+05:30"),
    ("timestamp", "timestamp", "timestamp", a_timestamp, "2024-02-29 23:59:59.999999", "4714-11-24 00:00:00 BC",
     "294246-12-31 23:59:59.999999", "infinity", "-infinity", "1969-12-31 23:59:59.5"),
    ("timestamptz", "timestamptz", "timestamptz", a_timestamp, "2024-02-29 23:59:59.5+05:30", "4714-11-24 00:00:00+00 BC",
     "294246-12-31 23:59:59.999999+00", "infinity", "-infinity"),
    ("interval", "interval", "interval", as_it_is, "1 year 2 mons 3 days 04:05:06.7", "-1 mon +2 days -00:00:00.5", "0",
     "178000000 years", "-178000000 years", "1 mon -26:03"),
    ("uuid", "uuid", "uuid", as_it_is, "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
    ("json", "json", "json", json.loads, '{"b": 1,\n "a": [1.10, null, "\\u00e9\\"x"], "b": 2}', "null", "[]", '"text"',
     "123456789012345678901234567890"),
    ("jsonb", "json", "jsonb", json.loads, '{"b": [true, {"c": null}], "a": 1e10}', "null", "{}"),
    ("integer[]", "array", "int4[]", json.loads, "{}", "{1,NULL,-2147483648}", "{{1,2},{3,4}}"),
    ("text[]", "array", "text[]", json.loads, "{}", '{"a \\"b\\\\",NULL,"NULL",""}'),
    ("timestamptz[]", "array", "timestamptz[]", json.loads, '{"2024-02-29 12:00:00+00",NULL}'),
    ("mood[]", "array", "mood[]", json.loads, "{happy,NULL}"),
]
N_ROWS = max(len(t) - 4 for t in TYPES) + 1


@pytest.fixture(scope="module")
def typed(env):
    """Table "everything", a column of each type: (expected columns, expected rows)."""
    with psycopg2.connect(**env.pg.connect_args()) as c, c.cursor() as cur:
        cur.execute("CREATE TYPE mood AS ENUM ('happy', 'so so'); CREATE DOMAIN small AS integer CHECK (VALUE < 10)")
        names = [f"c{i}" for i in range(len(TYPES))]
        cur.execute(f"CREATE TABLE everything (n serial, {', '.join(f'{n} {t[0]}' for n, t in zip(names, TYPES))})")
        values = list(itertools.zip_longest(*(t[4:] for t in TYPES), [None] * N_ROWS))
        for row in values:
            cur.execute(f"INSERT INTO everything ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})", row[:-1])
    with env.pg.admin() as c, c.cursor() as cur:
        cur.execute("SET intervalstyle = 'iso_8601'; SET timezone = 'UTC'; SET bytea_output = 'hex'")
        # arrays: PostgreSQL's own JSON of them, whose timestamps are written as ours but for the zone
        ask = ", ".join(f"replace(array_to_json({n})::text, '+00:00', 'Z')" if t[1] == "array" else n for n, t in zip(names, TYPES))
        cur.execute(f"SELECT {ask} FROM everything ORDER BY n LIMIT 0")
        raw = psycopg2.extensions.new_type(tuple(d.type_code for d in cur.description), "RAW", lambda s, _: s)
        psycopg2.extensions.register_type(raw, c)
        cur.execute(f"SELECT {ask} FROM everything ORDER BY n")
        expected = [[None if v is None else t[3](v) for v, t in zip(row, TYPES)] for row in cur.fetchall()]
    assert len(expected) == N_ROWS and all(v is None for v in expected[-1])
    return names, expected


def compare(columns, got, names, expected):
    assert [(c["name"], c["type"], c["native"]) for c in columns] == [(n, t[1], t[2]) for n, t in zip(names, TYPES)]
    assert len(got) == len(expected)
    for r, (g, e) in enumerate(zip(got, expected)):
        for t, a, b in zip(TYPES, g, e):
            assert repr(a) == repr(b), f"row {r}, column of type {t[0]}: got {a!r}, PostgreSQL says {b!r}"


def test_every_type(env, typed):
    names, expected = typed
    op = env.query(f"SELECT {', '.join(names)} FROM everything ORDER BY n")
    assert op["state"] == "succeeded", op["error"]
    assert op["result"]["rows"] == N_ROWS and "partial" not in op["result"]
    compare(op["result"]["columns"], env.gw.rows(op), names, expected)
    sized = next(c for c in op["result"]["columns"] if c["native"] == "numeric(12,2)")
    assert (sized["precision"], sized["scale"]) == (12, 2)


def test_every_type_beside_one_without_a_binary_form(env, typed):
    """All columns come as text then: the same values and types."""
    names, expected = typed
    op = env.query(f"SELECT {', '.join(names)}, point(n, 2), int4range(1, n + 2) FROM everything ORDER BY n")
    assert op["state"] == "succeeded", op["error"]
    rows = env.gw.rows(op)
    compare(op["result"]["columns"][:-2], [r[:-2] for r in rows], names, expected)
    assert rows[0][-2:] == ["(1,2)", "[1,3)"] and [c["type"] for c in op["result"]["columns"][-2:]] == ["text", "text"]


def test_what_does_not_fit_is_an_error_that_names_the_column(env):
    op = env.query("SELECT 1 AS a, '294276-12-31'::timestamp AS late")
    assert op["state"] == "failed" and op["error"]["code"] == "unsupported" and "late" in op["error"]["message"], op


def test_parameters(env):
    sql = ("SELECT $1::bigint, $2::text, $3::date, $4::bytea, $5::jsonb, $6::boolean, $7::numeric, $8::text, $9::float8, "
           "$10::int = ANY($11::int[])")
    params = [2**63 - 1, "'; DROP TABLE x; -- é", "2024-02-29", "\\x00ff", {"a": [1, None]}, True, "0.10", None, 0.1, 2, "{1,2}"]
    assert env.rows(sql, params) == [
        [2**63 - 1, params[1], "2024-02-29", "AP8=", {"a": [1, None]}, True, "0.10", None, 0.1, True]]
    for wrong in ([], [1, 2]):
        op = env.query("SELECT $1::int", wrong)
        assert op["state"] == "failed" and op["error"]["code"] == "invalid_request", op
        assert f"params has {len(wrong)}" in op["error"]["message"]
    op = env.query("SELECT $1::int", ["abc"])
    assert op["state"] == "failed" and op["error"]["code"] == "query_failed" and op["error"]["native_code"] == "22P02"


def test_pgbench_with_limits(env):
    env.pg.load_pgbench(1)
    sql = "SELECT aid, bid, abalance, filler FROM pgbench_accounts ORDER BY aid"
    line = len(json.dumps([1, 1, 0, " " * 84], separators=(",", ":"))) + 1

    op = env.query(sql)
    assert op["result"]["rows"] == 100000 and "partial" not in op["result"]
    rows = env.gw.rows(op)
    assert [r[0] for r in rows] == list(range(1, 100001)) and rows[-1] == [100000, 1, 0, " " * 84]

    for limit, n, partial in ((1000, 1000, "row_limit"), (100000, 100000, None), (99999, 99999, "row_limit"), (1, 1, "row_limit")):
        op = env.query(sql, limits={"max_rows": limit})
        assert (op["state"], op["result"]["rows"], op["result"].get("partial")) == ("succeeded", n, partial), op["result"]
        assert env.gw.rows(op) == rows[:n]
    for limit in (50000, line, line - 1):
        op = env.query(sql, limits={"max_bytes": limit})
        assert (op["state"], op["result"].get("partial")) == ("succeeded", "byte_limit"), op
        text = env.gw.request("GET", f"/api/v1/operations/{op['id']}/result").text
        assert len(text) == op["result"]["bytes"] <= limit and limit - len(text) < line + 10
        assert [json.loads(x) for x in text.split("\n")[:-1]] == rows[:op["result"]["rows"]]


def test_read_only_unless_mode_write(env):
    env.pg.sql("CREATE TABLE ledger (id int PRIMARY KEY, note text); ALTER TABLE ledger OWNER TO app")
    insert = "INSERT INTO ledger SELECT i, 'n' FROM generate_series(1, 3) i"
    for sql in (insert, "WITH x AS (INSERT INTO ledger VALUES (9) RETURNING id) SELECT * FROM x", "DROP TABLE ledger"):
        op = env.query(sql)
        assert op["state"] == "failed" and (op["error"]["code"], op["error"]["native_code"]) == ("query_failed", "25006"), op
        assert "mode" in op["error"]["hint"] and "write" in op["error"]["hint"] and op["error"]["retryable"] is False
    for sql in ("COMMIT", "SET TRANSACTION READ WRITE; " + insert, "SET TRANSACTION READ WRITE"):
        env.query(sql)
    assert env.query(insert)["state"] == "failed"
    assert env.pg.sql("SELECT count(*) FROM ledger") == [(0,)]

    op = env.query(insert, mode="write")
    assert op["state"] == "succeeded" and op["result"]["affected"] == 3 and "body" not in op["result"], op
    op = env.query("UPDATE ledger SET note = $1 WHERE id > 1 RETURNING id, note", ["x"], mode="write")
    assert op["result"]["affected"] == 2 and sorted(env.gw.rows(op)) == [[2, "x"], [3, "x"]]
    # a limit cuts the rows, not the statement
    op = env.query("DELETE FROM ledger WHERE id > 1 RETURNING id", mode="write", limits={"max_rows": 1})
    assert (op["result"]["affected"], op["result"]["rows"], op["result"]["partial"]) == (2, 1, "row_limit")
    assert env.pg.sql("SELECT id FROM ledger") == [(1,)]
    # a statement that fails leaves nothing
    op = env.query("INSERT INTO ledger SELECT 11 - i FROM generate_series(1, 10) i", mode="write")
    assert (op["state"], op["error"]["native_code"]) == ("failed", "23505"), op
    assert env.pg.sql("SELECT id FROM ledger") == [(1,)]


def test_a_statement_that_writes_sees_its_operation_and_attempt(env):
    env.pg.sql("CREATE TABLE seen (operation text PRIMARY KEY, attempt int); ALTER TABLE seen OWNER TO app")
    insert = ("INSERT INTO seen VALUES (current_setting('postern.operation'), current_setting('postern.attempt')::int) "
              "ON CONFLICT (operation) DO NOTHING")
    ops = [env.query(insert, mode="write") for _ in range(2)]
    assert env.pg.sql("SELECT operation, attempt FROM seen ORDER BY 1") == sorted((op["id"], 1) for op in ops)
    # a reader needs no token, and none is left behind in the session
    op = env.query("SELECT coalesce(nullif(current_setting('postern.operation', true), ''), 'none')")
    assert env.gw.rows(op) == [["none"]]


# --- SQLite

def test_sqlite(env):
    path = env.stack.home / "data.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE t (i INTEGER, r REAL, s TEXT, b BLOB, mixed)")
        rows = [(-2**63, 0.1, "", b"", 1), (2**63 - 1, 5e-324, "a\"b\\\n\x01 é🐎", bytes(range(256)), "two"), (0, -0.0, "'", b"\0", b"\xff"),
                (9007199254740993, 1.7976931348623157e308, "x" * 100000, b"x" * 100000, 2.5), (None,) * 5]
        db.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", rows)
    env.gw.integration("lite", env.agent.key, "sqlite", {"path": str(path)})

    def value(v):
        return base64.b64encode(v).decode() if isinstance(v, bytes) else v

    op = env.query("SELECT * FROM t ORDER BY rowid", integration="lite")
    assert [(c["name"], c["type"]) for c in op["result"]["columns"]] == [
        ("i", "int64"), ("r", "float64"), ("s", "text"), ("b", "bytes"), ("mixed", "any")]
    assert env.gw.rows(op) == [[*map(value, r[:4]), {"base64": "/w=="} if r[4] == b"\xff" else r[4]] for r in rows]

    assert env.rows("SELECT ?1 + 1, ?2, ?3, ?4", [41, "é", None, 0.5], integration="lite") == [[42, "é", None, 0.5]]
    op = env.query("SELECT i FROM t", integration="lite", limits={"max_rows": 2})
    assert (op["result"]["rows"], op["result"]["partial"]) == (2, "row_limit")
    op = env.query("DELETE FROM t", integration="lite")
    assert op["state"] == "failed" and op["error"]["code"] == "query_failed" and "mode" in op["error"]["hint"], op
    assert env.query("DELETE FROM t WHERE i = ?", [0], integration="lite", mode="write")["result"]["affected"] == 1
    assert env.rows("SELECT count(*) FROM t", integration="lite") == [[4]]
    for sql, code in (("SELEC 1", "query_failed"), ("SELECT * FROM nowhere", "query_failed"), ("ATTACH ':memory:' AS x", None)):
        op = env.query(sql, integration="lite")
        assert op["state"] == "failed" and (not code or op["error"]["code"] == code), op
    op = env.query("WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n", integration="lite",
                   limits={"timeout_ms": 300})
    assert (op["state"], op["error"]["code"]) == ("failed", "deadline_exceeded"), op


# --- five million rows

MANY = """SELECT i::integer, i * 1000003::bigint, (i + 0.5)::float8, (i / 100.0)::numeric(12,2), 'row ' || i || ' é',
          CASE WHEN i % 7 > 0 THEN i % 2 = 0 END, date '2000-01-01' + i % 10000, timestamptz '2024-01-01 00:00Z' + i * interval '1 second'
          FROM generate_series(1, {}) i"""
# the same lines, made by PostgreSQL alone
LINES = """COPY (SELECT '[' || i || ',' || i * 1000003::bigint || ',' || (i + 0.5)::float8 || ',"' || (i / 100.0)::numeric(12,2)
           || '","row ' || i || ' é",' || coalesce((CASE WHEN i % 7 > 0 THEN i % 2 = 0 END)::text, 'null') || ',"'
           || date '2000-01-01' + i % 10000 || '","' || to_char(timestamp '2024-01-01' + i * interval '1 second', 'YYYY-MM-DD"T"HH24:MI:SS')
           || 'Z"]' FROM generate_series(1, {}) i) TO STDOUT"""


class Sink:
    """Counts lines and hashes what passes by."""

    def __init__(self):
        self.hash, self.lines, self.size = hashlib.sha256(), 0, 0

    def write(self, data):
        self.hash.update(data)
        self.lines += data.count(b"\n")
        self.size += len(data)

    def __eq__(self, other):
        return (self.lines, self.size, self.hash.digest()) == (other.lines, other.size, other.hash.digest())

    def __repr__(self):
        return f"<{self.lines} lines, {self.size} bytes, {self.hash.hexdigest()}>"


def ctl_result(env, op, sink):
    """`postern ctl operations result` into the sink; its peak resident memory."""
    peak = 0
    p = subprocess.Popen([BIN, "ctl", "operations", "result", op["id"]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         env=clean_env(POSTERN_GATEWAY_URL=env.gw.url, POSTERN_API_TOKEN_FILE=env.gw.token_file, HOME=env.stack.home))
    with p:
        while chunk := p.stdout.read(1 << 20):
            sink.write(chunk)
            peak = max(peak, peak_rss(p.pid)) if proc_status_exists(p.pid) else peak
    assert p.returncode == 0
    return peak


def proc_status_exists(pid):
    try:
        return bool(peak_rss(pid))
    except (OSError, AttributeError):  # it has just ended: a zombie has no memory
        return False


@pytest.mark.limit(240)
def test_five_million_rows(env):
    n = 500_000 if sanitized() else 5_000_000
    for p in (env.agent, env.gw):
        reset_peak_rss(p.pid)
    begin = time.monotonic()
    op = env.query(MANY.format(n), limits={"timeout_ms": 180_000}, timeout=200)
    assert op["state"] == "succeeded" and op["result"]["rows"] == n and "partial" not in op["result"], op
    ran = time.monotonic()

    http, ctl, expected = Sink(), Sink(), Sink()
    r = env.gw.request("GET", f"/api/v1/operations/{op['id']}/result", on_data=http.write, timeout=60)
    assert r.status == 200
    got = time.monotonic()
    ctl_peak = ctl_result(env, op, ctl)
    took = time.monotonic() - begin
    peaks = {"agent": peak_rss(env.agent.pid), "gateway": peak_rss(env.gw.pid), "ctl": ctl_peak}
    print(f"{n} rows: query {ran - begin:.1f} s, HTTP {got - ran:.1f} s, all {took:.1f} s; peaks",
          {k: f"{v >> 20} MiB" for k, v in peaks.items()})

    with env.pg.admin() as c, c.cursor() as cur:
        cur.copy_expert(LINES.format(n), expected)
    assert expected.lines == n and expected.size == op["result"]["bytes"]
    assert http == expected and ctl == expected
    if not sanitized():
        assert took < 90
        assert all(0 < v <= LIMIT_RSS for v in peaks.values()), peaks
