"""The power-cut shim: what it takes back is what was not synced, and only that."""
import os
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from powercut import BUILT, Shim

SCRIBBLE = Path(os.environ.get("POWERCUT_LIB", BUILT)).parent / "scribble"
BLOCK = 4096


class Bench:
    """A folder under the shim and the children that write in it."""

    def __init__(self, tmp_path):
        self.data = tmp_path / "data"
        self.data.mkdir()
        self.shim = Shim(tmp_path, [self.data])

    def child(self, argv, **kw):
        return subprocess.Popen([str(a) for a in argv], env={**os.environ, **self.shim.env()}, stdout=subprocess.PIPE, text=True, **kw)

    def scribble(self, case):
        p = self.child([SCRIBBLE, case, self.data])
        assert p.stdout.readline() == "ready\n"
        p.kill()
        p.wait()
        p.stdout.close()

    def fresh(self):
        for f in self.data.iterdir():
            if f.is_dir():
                for g in f.iterdir():
                    g.unlink()
                f.rmdir()
            else:
                f.unlink()

    def outcomes(self, case, look, n=60):
        seen = []
        for seed in range(n):
            self.fresh()
            self.scribble(case)
            self.shim.cut(random.Random(seed))
            seen.append(look(self.data))
        return seen


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def sectors(path):
    text = path.read_bytes()
    return [text[i:i + 512] for i in range(0, len(text), 512)]


def test_unsynced_overwrites_are_taken_back_by_the_sector(bench):
    seen = bench.outcomes("overwrite", lambda d: sectors(d / "a"))
    for s in seen:
        assert 16 * 8 <= len(s) <= 20 * 8
        assert set(s[:64]) <= {b"a" * 512, b"b" * 512}
        assert set(s[64:128]) == {b"a" * 512}, "synced and not touched since"
        assert set(s[128:]) <= {b"c" * 512, bytes(512)}
    assert any(set(s[:64]) == {b"a" * 512} for s in seen) and any(set(s[:64]) == {b"b" * 512} for s in seen)
    assert any(len(set(s[i:i + 8])) == 2 for s in seen for i in range(0, 64, 8)), "no write was torn"
    assert any(bytes(512) in s[128:] for s in seen), "a size without its data"
    assert {len(s) for s in seen} >= {128, 160}


def test_synced_content_stays(bench):
    for text in bench.outcomes("synced", lambda d: (d / "a").read_bytes(), n=10):
        assert text == b"b" * 8 * BLOCK + b"a" * 8 * BLOCK


def test_a_truncate_is_undone_with_what_it_cut_off(bench):
    seen = bench.outcomes("truncated", lambda d: (d / "a").read_bytes())
    for text in seen:
        assert text[:2 * BLOCK] == b"a" * 2 * BLOCK
        rest = text[2 * BLOCK:]
        assert rest == b"a" * 14 * BLOCK or (len(rest) <= 8 and set(rest) <= set(b"b\0")), rest[:20]
    assert len({len(t) for t in seen}) >= 3


def names_of(d):
    return tuple((n, (d / n).read_bytes() if (d / n).is_file() else "folder") for n in sorted(p.name for p in d.iterdir()))


def test_names_go_back_in_order(bench):
    old, new, gone, sub, tmp = ("old", b"old"), ("old", b"new"), ("gone", b"gone"), ("sub", "folder"), ("old.tmp", b"new")
    seen = set(bench.outcomes("names", names_of))
    assert seen == {(gone, old, tmp), (gone, new), (new,), (new, sub)}, "old.tmp was synced, and with it its name"


def test_synced_names_stay(bench):
    seen = set(bench.outcomes("names_synced", names_of, n=10))
    assert seen == {(("old", b"new"), ("sub", "folder"))}


def test_a_seed_replays(bench):
    a = bench.outcomes("overwrite", lambda d: (d / "a").read_bytes(), n=8)
    assert a == bench.outcomes("overwrite", lambda d: (d / "a").read_bytes(), n=8)


def test_a_kill_without_a_cut_loses_nothing_and_its_writes_stay_unsynced(bench):
    bench.scribble("overwrite")
    before = (bench.data / "a").read_bytes()
    bench.shim.env()  # as for a next child
    assert (bench.data / "a").read_bytes() == before
    lost = bench.shim.cut(random.Random(3))
    assert lost["kept"] + lost["torn"] + lost["lost"] == 12


def test_clocks(bench):
    p = bench.child([SCRIBBLE, "clocks", bench.data], stdin=subprocess.PIPE)

    def ask():
        p.stdin.write("\n")
        p.stdin.flush()
        return [int(n) for n in p.stdout.readline().split()]

    for jump, sum_of in ((0, 0), (3600, 3600), (-7200, -3600)):
        bench.shim.jump(jump)
        wall, mono, seconds = ask()
        assert abs(wall - time.time() - sum_of) < 3 and abs(seconds - time.time() - sum_of) < 3
        assert abs(mono - time.monotonic()) < 3
    p.stdin.close()
    assert p.wait() == 0
    p.stdout.close()


WRITER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA synchronous=" + sys.argv[2])
db.execute("PRAGMA wal_autocheckpoint=8")
db.execute("CREATE TABLE IF NOT EXISTS t (i INTEGER PRIMARY KEY, x BLOB)")
last = db.execute("SELECT coalesce(max(i), 0) FROM t").fetchone()[0]
for i in range(last + 1, last + 10000):
    db.execute("INSERT INTO t VALUES (?, randomblob(900))", (i,))
    print(i, flush=True)
"""


def sqlite_cuts(bench, synchronous, cuts, rng):
    """How many cuts lost rows, and how many left a file that SQLite finds damaged."""
    path, lost, damaged, committed = bench.data / "db", 0, 0, 0
    for _ in range(cuts):
        p = bench.child([sys.executable, "-c", WRITER, path, synchronous], stderr=subprocess.DEVNULL)
        for _ in range(rng.randint(1, 30)):
            line = p.stdout.readline()
            committed = int(line) if line else committed
        p.kill()
        p.wait()
        committed = max([committed, *map(int, p.stdout.read().split("\n")[:-1])])
        p.stdout.close()
        bench.shim.cut(rng)
        try:
            db = sqlite3.connect(path)
            rows = db.execute("SELECT count(*), coalesce(max(i), 0) FROM t").fetchone()
            sound = db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            db.close()
        except sqlite3.DatabaseError:
            rows, sound = (0, 0), False
        lost += min(rows) < committed
        damaged += not sound
        if not sound or min(rows) < committed:
            bench.fresh()
            committed = 0
    return lost, damaged


def test_sqlite_full_survives_200_cuts(bench):
    assert sqlite_cuts(bench, "FULL", 200, random.Random(1)) == (0, 0)


def test_sqlite_off_does_not(bench):
    lost, damaged = sqlite_cuts(bench, "OFF", 30, random.Random(1))
    assert lost > 5 and damaged > 0, (lost, damaged)
