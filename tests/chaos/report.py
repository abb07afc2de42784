"""The end of a run: what the gateway and the data source say then, the checker's verdict, and the report."""
import asyncio
import collections
import hashlib
import json
import sys
import time

import checker
from client import Broken, Client
from workload import TERMINAL

MOST = 40  # lines of evidence on the terminal; violations.txt has all


async def read(client, path, patience=60):
    """(status, body), however often the connection has to be tried: the way to a gateway that has moved may lag behind it."""
    end = time.monotonic() + patience
    while True:
        try:
            return await client.request("GET", path, timeout=60)
        except Broken as e:
            if e.sent or time.monotonic() > end:
                raise
            print(f"reading the end: {e.reason}")
        await asyncio.sleep(0.5)


async def read_finals(history, port, token, accepted, tasks=24):
    """What the gateway lists, and each acknowledged operation with the digest of its result."""
    client, before = Client(port, token), ""
    while True:
        status, data = await read(client, f"/api/v1/operations?limit=500{before}")
        assert status == 200, (status, data)
        doc = json.loads(data)
        for o in doc["items"]:
            history.add("listed", op=o["id"], key=o["labels"].get("key"))
        if not doc.get("next"):
            break
        before = f"&before={doc['next']}"
    client.close()
    todo = iter(list(accepted))

    async def reader():
        c = Client(port, token)
        for op in todo:
            status, data = await read(c, f"/api/v1/operations/{op}")
            if status == 404:
                continue  # lost: there is no final state of it
            o, digest = json.loads(data), None
            if o["state"] == "succeeded" and o.get("result", {}).get("body"):
                try:
                    status, body = await read(c, f"/api/v1/operations/{op}/result")
                    digest = hashlib.sha256(body).hexdigest() if status == 200 else None
                except Broken:  # a damaged body: the gateway ends the answer early, and the checker misses the result
                    c.close()
                    c = Client(port, token)
            history.add("final", op=op, key=o["labels"].get("key"), state=o["state"], attempt=o["attempt"], result_sha256=digest,
                        has_result="result" in o,
                        code=(o.get("error") or {}).get("code"), why=o.get("why"), events=o["events"])
        c.close()

    await asyncio.gather(*(reader() for _ in range(tasks)))


def add_effects(history, effects, keys, kinds):
    """A line for each key that wanted an effect, and for each effect that nobody wanted."""
    for key, name in keys.items():
        if kinds[name].effect:
            history.add("effect", key=key, n=len(effects.get(key, ())), attempts=effects.get(key, []))
    for key in effects.keys() - keys.keys():
        history.add("effect", key=key, n=len(effects[key]), attempts=effects[key])


def add_stored(history, agents):
    """What the agents' logs say of results that were in a spool; how many."""
    entries = [entry for a in agents for entry in checker.stored(a.process.text())]
    for entry in entries:
        history.add("stored", **{k: v for k, v in entry.items() if k not in ("t", "e")})
    return len(entries)


def table(title, counts):
    if not counts:
        return []
    width = max(len(str(k)) for k in counts)
    return [f"{title}:"] + [f"  {str(k):{width}}  {n:7}" for k, n in sorted(counts.items(), key=lambda i: -i[1])]


def finish(history, header, problems, clients, folder):
    """Judge, print, keep; the exit code."""
    history.close()
    violations = checker.check(history.events) + list(problems)
    numbers = checker.summary(history.events)
    finals = [h for h in history.events if h["e"] == "final"]
    kinds = {h["key"]: h["kind"] for h in history.events if h["e"] == "submit"}
    by_kind = collections.Counter(f"{kinds.get(h['key'], '?')}: {h['state']}" for h in finals)
    why = collections.Counter(f"{h['state']}: {h['code']}" for h in finals if h["state"] in ("failed", "unknown"))
    attempts = collections.Counter(f"{h['attempt']}" for h in finals)
    done = sum(h["state"] in TERMINAL for h in finals)
    n_faults = sum(h["e"] == "fault" for h in history.events)
    lines = [header, *table("faults", collections.Counter(h["kind"] for h in history.events if h["e"] == "fault")),
             *table("operations", by_kind), *table("why operations failed or are unknown", why),
             *table("operations by number of attempts", attempts), *table("what clients met, and repeated", clients)]
    (folder / "violations.txt").write_text("".join(f"{v}\n" for v in violations))
    (folder / "summary.json").write_text(json.dumps({"header": header, "clients": clients, **numbers}, indent=1) + "\n")
    if violations:
        lines += [f"violations: {len(violations)}", *(f"  {v}" for v in violations[:MOST])]
        lines += [f"  … all in {folder}/violations.txt"] if len(violations) > MOST else []
        lines += [f"logs, history and data are in {folder}"]
    lines += [f"chaos: {n_faults} faults, {done} operations, lost = {numbers['lost']}, doubled = {numbers['doubled']}"
              + (f", {len(violations)} violations" if violations else "")]
    (folder / "report.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    sys.stdout.flush()
    return 1 if violations else 0
