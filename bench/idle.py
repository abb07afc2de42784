#!/usr/bin/env -S /usr/bin/python3 -B
"""Idle instances on one gateway process: memory of each, CPU, restarts, dispatch.  Part of `make bench`; alone:

    bench/idle.py [--quick] [--instances 10000,19000] [--seconds 60]

Prints a table and, last, one JSON object.  $POSTERN_BIN is the binary; bench_idle is built beside it.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/integration"))
BIN = pathlib.Path(os.environ.setdefault("POSTERN_BIN", str(ROOT / "build-release/src/cmd/postern"))).absolute()
BUILD = BIN.parents[2]
AGENTS = 20

import harness  # noqa: E402
import product  # noqa: E402
from fleet import Fleet  # noqa: E402


class Idle:
    """bench_idle while it runs: idle("dispatch", 300) gives the answer to that command."""

    def __init__(self, gw, keys, count):
        file = gw.home / "keys"
        file.write_text("".join(f"{k.agent} {k.id} {k.secret}\n" for k in keys))
        self.popen = subprocess.Popen([BUILD / "bench/bench_idle", str(gw.port), gw.token, str(file), str(count)],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.popen.stdin.close()
        self.popen.wait(30)

    def __call__(self, *command):
        self.popen.stdin.write(" ".join(map(str, command)) + "\n")
        self.popen.stdin.flush()
        line = self.popen.stdout.readline()
        if not line:
            sys.exit("bench: bench_idle ended")
        return json.loads(line)


def cpu_s(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_kib(pid):
    text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {k: int(re.search(rf"^{k}:\s+(\d+)", text, re.MULTILINE).group(1)) for k in ("Rss", "Pss", "Anonymous")}


def each_kib(pid, before, count):
    now = memory_kib(pid)
    return {k: round((now[k] - before[k]) / count, 2) for k in now}


def ready(stack, name, **kw):
    """A gateway that has done some work, its agents' keys, and its memory now."""
    gw = stack.gateway(name=f"many-{name}", **kw)
    keys = [gw.agent(f"agent-{i}") for i in range(AGENTS)]
    for _ in range(50):
        gw.api("GET", "/agents")
    return gw, keys, memory_kib(gw.pid)


def restart(gw, idle, how):
    idle("mark")
    begin = time.monotonic()
    getattr(gw, how)()
    gw.restart()
    up = time.monotonic() - begin
    doc = idle("up", 120)
    return {"gateway_away_ms": round(up * 1000), "all_back_ms": doc["ms"], "back": doc["up"], "failed_attempts": doc["failures"],
            "gateway_cpu_s": round(cpu_s(gw.pid), 2)}


def many(stack, count, seconds, dispatched):
    gw, keys, before = ready(stack, f"gateway-{count}")
    with Idle(gw, keys, count) as idle:
        doc = idle("up", 120)
        out = {"instances": count, "connected": doc["up"], "connect_ms": doc["ms"], "connect_cpu_s": round(cpu_s(gw.pid), 2)}
        begin, cpu = time.monotonic(), cpu_s(gw.pid)
        time.sleep(seconds)
        out["idle_cpu_percent"] = round(100 * (cpu_s(gw.pid) - cpu) / (time.monotonic() - begin), 2)
        out["kib_each"] = each_kib(gw.pid, before, count)
        out["dispatch"] = idle("dispatch", dispatched)
        held = idle("begin", 200)["held"]
        out["restart_sigterm"] = restart(gw, idle, "stop")
        out["restart_sigkill"] = restart(gw, idle, "kill")
        out["under_way"] = held
        out["finished"] = idle("finish")["finished"]
        out["open"] = sum(len(gw.api("GET", f"/operations?state={s}")["items"]) for s in ("queued", "leased", "running"))
    gw.stop(timeout=60)
    return out


def tls(stack, count):
    """What TLS adds: the same instances with it and without."""
    each = {}
    for name, on in (("plain", False), ("tls", True)):
        gw, keys, before = ready(stack, f"gateway-{name}", tls=on)
        with Fleet(gw, keys, count) as fleet:
            fleet.wait_up(60)
            time.sleep(1)
            each[name] = each_kib(gw.pid, before, count)["Anonymous"]
        gw.stop(timeout=60)
    return {"instances": count, "kib_each": each["tls"], "kib_each_plain": each["plain"], "kib_of_tls": round(each["tls"] - each["plain"], 2)}


def measure(stack, quick, counts=(10000, 19000), seconds=60):
    if quick:
        counts, seconds = (1000,), 5
    return {"many": [many(stack, n, seconds, 100 if quick else 1000) for n in counts], "tls": tls(stack, 200 if quick else 1000)}


def bad(doc):
    return any(m["connected"] != m["instances"] or m["dispatch"]["failed"] or m["finished"] != m["under_way"] or m["open"]
               or m["restart_sigkill"]["back"] != m["instances"] for m in doc["many"])


def lines(doc):
    """(title, [(name, value)]) for the table."""
    for m in doc["many"]:
        d, t, k = m["dispatch"], m["restart_sigterm"], m["restart_sigkill"]
        yield f"{m['instances']} idle instances on one gateway", [
            ("connected", f"{m['connected']} in {m['connect_ms'] / 1000:.1f} s"),
            ("memory of each", f"{m['kib_each']['Rss']:.1f} KiB resident, {m['kib_each']['Pss']:.1f} Pss (goal 16)"),
            ("CPU while idle", f"{m['idle_cpu_percent']:.2f} % of a core"),
            ("submit to lease", f"p50 {d['leased_p50_us'] / 1000:.2f} ms   p99 {d['leased_p99_us'] / 1000:.2f} ms"),
            ("of it to the 201", f"p50 {d['accepted_p50_us'] / 1000:.2f} ms   p99 {d['accepted_p99_us'] / 1000:.2f} ms"),
            ("restart, SIGTERM", f"all back {t['all_back_ms'] / 1000:.1f} s after the signal (gateway away {t['gateway_away_ms'] / 1000:.1f} s)"),
            ("restart, SIGKILL", f"all back {k['all_back_ms'] / 1000:.1f} s after the signal (gateway away {k['gateway_away_ms'] / 1000:.1f} s)"),
            ("operations under way meanwhile", f"{m['under_way']}, finished {m['finished']}"),
        ]
    t = doc["tls"]
    yield f"{t['instances']} idle instances over TLS", [("memory of each", f"{t['kib_each']:.1f} KiB, of it TLS {t['kib_of_tls']:.1f}")]


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--quick", action="store_true", help="small counts: is it all there?")
    ap.add_argument("--instances", default="10000,19000", help="counts to measure")
    ap.add_argument("--seconds", type=int, default=60, help="how long idleness is measured")
    args = ap.parse_args()
    subprocess.run(["ninja", "-C", BUILD, "bench/bench_idle"], check=True, stdout=subprocess.DEVNULL)
    home = pathlib.Path(tempfile.mkdtemp(prefix="postern-idle-"))
    with product.Stack(home, harness.CA(home / "ca")) as stack:
        doc = measure(stack, args.quick, [int(n) for n in args.instances.split(",")], args.seconds)
    for title, rows in lines(doc):
        width = max(len(name) for name, _ in rows)
        print(f"\n{title}")
        for name, value in rows:
            print(f"  {name:<{width}}  {value}")
    print(json.dumps(doc))
    return 1 if bad(doc) else 0


if __name__ == "__main__":
    sys.exit(main())
