#!/usr/bin/env python3
"""Takes samples of bench_rows, psql COPY binary and a Python named cursor + json.dumps in turn; prints medians and ratios.

rows_peer.py BENCH_ROWS ROWS SAMPLES, with PGHOST, PGPORT, PGUSER of a server that has the table of rows_bench.sh.  The Python
cursor reads at most 500,000 rows (it is an order of magnitude slower; its rate does not depend on the number)."""
import json
import os
import resource
import statistics
import subprocess
import sys
import time

SQL = "SELECT * FROM bench"
PYTHON = r"""
import json, os, resource, sys, time
import psycopg2
db = psycopg2.connect("")
cur = db.cursor("c")
cur.itersize = 10000
limit = int(sys.argv[1])
out = open("/dev/null", "w")
start = time.monotonic()
cur.execute("SELECT * FROM bench LIMIT %d" % limit)
n = size = 0
while True:
    rows = cur.fetchmany(10000)
    if not rows:
        break
    for row in rows:
        line = json.dumps(row, default=str)
        out.write(line + "\n")
        size += len(line) + 1
    n += len(rows)
s = time.monotonic() - start
print(json.dumps({"rows": n, "bytes": size, "seconds": round(s, 3), "rows_per_s": round(n / s),
                  "max_rss_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


def ours(bench, rows):
    args = json.dumps({"host": os.environ["PGHOST"], "port": int(os.environ["PGPORT"]), "user": os.environ["PGUSER"],
                       "dbname": os.environ["PGDATABASE"]})
    return json.loads(subprocess.run([bench, "postgres", args, SQL], check=True, capture_output=True, text=True).stdout)


def psql(bench, rows):
    start = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open("/dev/null", "wb") as null:
        subprocess.run(["psql", "-X", "-c", f"COPY ({SQL}) TO STDOUT (FORMAT binary)"], check=True, stdout=null)
    seconds = time.monotonic() - start
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"rows": rows, "seconds": round(seconds, 3), "rows_per_s": round(rows / seconds),
            "cpu_s": round(cpu.ru_utime + cpu.ru_stime - before.ru_utime - before.ru_stime, 3)}


def python(bench, rows):
    run = subprocess.run(["/usr/bin/python3", "-c", PYTHON, str(min(rows, 500000))], capture_output=True, text=True)
    if run.returncode:
        return None  # no psycopg2 here
    return json.loads(run.stdout)


def main():
    bench, rows, samples = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    kinds = {"postern jsonl": ours, "psql copy binary": psql, "python cursor + json": python}
    results = {k: [] for k in kinds}
    ours(bench, rows)  # warm up
    for _ in range(samples):
        for name, fn in kinds.items():
            r = fn(bench, rows)
            if r:
                results[name].append(r)
                print(json.dumps({"what": name, **r}), flush=True)
    mid = {k: statistics.median(r["rows_per_s"] for r in v) for k, v in results.items() if v}
    print(f"\n{'what':<24}{'krow/s':>10}{'ratio to psql':>16}{'RSS KiB':>10}")
    for name, rate in mid.items():
        rss = max((r.get("max_rss_kib", 0) for r in results[name]), default=0)
        print(f"{name:<24}{rate / 1000:>10.0f}{rate / mid['psql copy binary']:>16.2f}{rss or '-':>10}")
    print(json.dumps({"rows": rows, "rows_per_s": mid, "ratio_to_psql": {k: round(v / mid["psql copy binary"], 3) for k, v in mid.items()}}))


if __name__ == "__main__":
    main()
