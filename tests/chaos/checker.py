"""Proves from the history of a chaos run that the delivery promises held (docs/protocol.md).

A history is a list of dicts, each with "t" (monotonic seconds) and "e":
  submit    key, delivery, kind, expect   before the request is sent; expect: SHA-256 of the result, or None when it is not known
  accepted  key, op                       a 2xx was read; may come several times for a key
  refused   key, status                   a definite 4xx
  cancel    op
  seen      op, state, attempt            any read; reads of one operation do not overlap
  effect    key, n, attempts              rows in the table of effects at the end, and (if known) of which attempt each is; a key
                                          without it has none; a kind with "read" in its name has no effects to count
  stored    op, attempt, status           an agent had the attempt's result in its spool, fsynced: stored() reads its log
  listed    op, key                       at the end: an operation that the gateway's list has
  final     op, key, state, attempt, result_sha256, events, has_result    at the end, for each accepted operation
  fault     kind, target, detail
  exit      target, status                a process ended that nobody had told to

check() returns what is wrong, one line each: "RULE: operation: evidence".  A rule is a function that yields those lines for one operation, or
for a key; to add one, write it and put it into OPERATION_RULES or KEY_RULES.
Run: checker.py HISTORY.jsonl
"""
import collections
import dataclasses
import json
import sys

TERMINAL = ("succeeded", "failed", "cancelled", "expired", "unknown")
AFTER_THE_END = ("result_refused", "settled")  # events that may follow the terminal one
ASIDES = ("cancel_requested", *AFTER_THE_END)  # events that change nothing of an attempt
GIVEN_UP = ("released", "lease_lost")          # events that end an attempt without its result
FEW, LEAST_SUCCEEDED = 50, 0.1                 # from so many operations on, this share succeeds in a run that means something
CLOCK_FAULTS = ("clock", "jump")               # a fault kind with one of these in it moves wall clocks


@dataclasses.dataclass
class Key:
    """What one idempotency key stands for: at most one operation."""
    name: str
    submit: dict = None
    effects: int = 0
    attempts: list = dataclasses.field(default_factory=list)  # that had an effect
    refused: list = dataclasses.field(default_factory=list)
    accepted: list = dataclasses.field(default_factory=list)  # operation ids, in order, without repeats
    finals: list = dataclasses.field(default_factory=list)
    listed: list = dataclasses.field(default_factory=list)

    @property
    def has_effect(self):
        return bool(self.submit) and "read" not in self.submit["kind"]

    @property
    def at_most_once(self):
        return bool(self.submit) and self.submit["delivery"] == "at-most-once"


@dataclasses.dataclass
class Operation:
    """All that the history tells of an operation.  final: None when it was not found at the end."""
    id: str
    key: Key
    accepted_at: float = None
    seen: list = dataclasses.field(default_factory=list)
    stored: dict = dataclasses.field(default_factory=dict)  # attempts whose result was in a spool, and its status
    final: dict = None
    clock_moved: bool = False
    agents_hurt: bool = True  # was anything but the gateway hurt?

    @property
    def events(self):
        return self.final["events"] if self.final else []

    @property
    def reads(self):
        return [s for s in [*self.seen, *([self.final] if self.final else [])] if not s["state"].startswith("HTTP")]

    @property
    def leased(self):
        return [e["attempt"] for e in self.events if e["event"] == "leased"]


def read(history):
    """The history by key and by operation."""
    keys, ops = {}, {}
    hurt = any(h["e"] == "fault" and not h["target"].startswith("gateway") for h in history)
    moved = any(h["e"] == "fault" and any(c in h["kind"] for c in CLOCK_FAULTS) for h in history)

    def key(name):
        return keys.setdefault(name, Key(name))

    def op(ident, name=None):
        if ident not in ops:
            ops[ident] = Operation(ident, key(name) if name is not None else Key("?"), clock_moved=moved, agents_hurt=hurt)
        elif name is not None and ops[ident].key.name == "?":
            ops[ident].key = key(name)
        return ops[ident]

    for h in sorted(history, key=lambda h: h["t"]):
        kind = h["e"]
        if kind == "submit":
            key(h["key"]).submit = key(h["key"]).submit or h
        elif kind == "accepted":
            k, o = key(h["key"]), op(h["op"], h["key"])
            if h["op"] not in k.accepted:
                k.accepted.append(h["op"])
            o.accepted_at = h["t"] if o.accepted_at is None else o.accepted_at
        elif kind == "refused":
            key(h["key"]).refused.append(h["status"])
        elif kind == "seen":
            op(h["op"]).seen.append(h)
        elif kind == "stored":
            op(h["op"]).stored[h["attempt"]] = h["status"]
        elif kind == "effect":
            key(h["key"]).effects += h["n"]
            key(h["key"]).attempts += h.get("attempts", [])
        elif kind == "listed":
            key(h["key"]).listed.append(h["op"])
        elif kind == "final":
            o = op(h["op"], h["key"])
            o.final = o.final or h
            key(h["key"]).finals.append(h)
    return keys, ops


def timeline(op):
    return " ".join(f"{e['event']}/{e['attempt']}" for e in op.events)


# --- of an operation ---

def lost(op):
    """What was acknowledged exists at the end."""
    if op.accepted_at is not None and not op.final:
        yield f"acknowledged at t={op.accepted_at:.3f}, not found at the end"
    yield from (f"read at t={s['t']:.3f}: {s['state']}" for s in op.seen if s["state"].startswith("HTTP"))


def unfinished(op):
    """It reached a terminal state."""
    if op.final and op.final["state"] not in TERMINAL:
        yield f"still {op.final['state']} at the end ({timeline(op)})"


def state_changed(op):
    """A terminal state that was seen once never changes."""
    end = None
    for s in op.reads:
        if end and (s["state"], s["attempt"]) != end:
            yield f"seen {end[0]} in attempt {end[1]}, later {s['state']} in attempt {s['attempt']} at t={s['t']:.3f}"
            return
        if s["state"] in TERMINAL:
            end = s["state"], s["attempt"]


def attempt_decreased(op):
    """Attempt numbers that are seen never go back."""
    most = 0
    for s in op.reads:
        if s["attempt"] < most:
            yield f"attempt {s['attempt']} at t={s['t']:.3f} after attempt {most} was seen"
            return
        most = s["attempt"]


def end_of_timeline(op):
    """The timeline begins with accepted and has one terminal event, that of the state, with only afterthoughts behind it."""
    if not op.final or op.final["state"] not in TERMINAL:
        return
    names = [e["event"] for e in op.events]
    ends = [i for i, n in enumerate(names) if n in TERMINAL]
    if names[:1] != ["accepted"] or names.count("accepted") != 1:
        yield f"the timeline does not begin with the one 'accepted' ({timeline(op)})"
    elif len(ends) != 1:
        yield f"{len(ends)} terminal events ({timeline(op)})"
    elif names[ends[0]] != op.final["state"]:
        yield f"is {op.final['state']}, its timeline says {names[ends[0]]}"
    elif any(n not in AFTER_THE_END for n in names[ends[0] + 1:]):
        yield f"events after the end ({timeline(op)})"


def leased_twice(op):
    """Each attempt is leased once, in order, and the last one is the operation's."""
    leased = op.leased
    if leased != list(range(1, len(leased) + 1)):
        yield f"attempts leased: {leased}"
    elif op.final and op.final["attempt"] != len(leased):
        yield f"is in attempt {op.final['attempt']}, leased were {leased}"


def fencing(op):
    """Nothing of an attempt counts after a newer one was leased, and nothing starts or succeeds that was not leased."""
    newest = 0
    for e in op.events:
        if e["event"] == "leased":
            newest = max(newest, e["attempt"])
        elif e["event"] in ("started", "succeeded") and e["attempt"] != newest:
            yield f"{e['event']} in attempt {e['attempt']} while attempt {newest} was the newest ({timeline(op)})"


def order(op):
    """A step of the timeline follows from the one before: no lease while one is held, no start without one, no start or loss twice; the
    gateway's times do not go back while nobody moves its clock (a start has the agent's time)."""
    state, last = "queued", None
    needs = {"leased": ("queued",), "started": ("leased",), "released": ("leased", "running"), "lease_lost": ("leased", "running")}
    becomes = {"leased": "leased", "started": "running"}
    for e in op.events:
        if state not in needs.get(e["event"], (state,)):
            yield f"'{e['event']}' while it was {state} ({timeline(op)})"
            return
        if e["event"] not in ASIDES:  # any other event gives the attempt up: lost, given back, to be tried again
            state = becomes.get(e["event"], "queued")
        if e["event"] == "started" or op.clock_moved:
            continue
        if last and e["at"] < last:
            yield f"'{e['event']}' at {e['at']}, after an event at {last}"
            return
        last = e["at"]


def lease_lost(op):
    """While only the gateway is hurt, no lease is lost: it gives the instances time to come back."""
    lost_events = [e for e in op.events if e["event"] == "lease_lost"]
    if lost_events and not op.agents_hurt:
        yield f"nothing happened to an agent, and attempt {lost_events[0]['attempt']} lost its lease ({timeline(op)})"


def spool_lost(op):
    """A result that was in a spool arrived: it was accepted (also after its lease was lost, while its attempt is the newest), or refused
    because it came too late."""
    if not op.final:
        return
    ends = {(e["attempt"], e["event"]) for e in op.events if e["event"] in TERMINAL}
    missing = sorted(n for n, status in op.stored.items() if (n, status) not in ends)
    refused = sum(e["event"] == "result_refused" for e in op.events)
    if len(missing) > refused:
        yield f"results of attempts {missing} were in a spool, {refused} arrived late ({timeline(op)})"


def result_lost(op):
    """What succeeded has its result, of the attempt that succeeded (has_result), and its rows where some were expected."""
    if not op.final or op.final["state"] != "succeeded":
        return
    if not op.final.get("has_result", True) or op.key.submit and op.key.submit["expect"] and not op.final["result_sha256"]:
        yield f"succeeded in attempt {op.final['attempt']}, and its result is not there"


def result_changed(op):
    """A result is the one that was computed."""
    if op.final and op.final["state"] == "succeeded" and op.key.submit and op.key.submit["expect"] and op.final["result_sha256"] and \
            op.final["result_sha256"] != op.key.submit["expect"]:
        yield f"result has SHA-256 {op.final['result_sha256']}, expected {op.key.submit['expect']}"


def started_twice(op):
    """An at-most-once operation that may have started is never leased again."""
    if not op.key.at_most_once:
        return
    uncertain = None
    for e in op.events:
        if e["event"] == "leased" and uncertain:
            yield f"at-most-once, leased again after {uncertain} ({timeline(op)})"
            return
        if e["event"] in ("started", "lease_lost"):
            uncertain = f"{e['event']}/{e['attempt']}"


def uncertain_end(op):
    """An at-most-once attempt that started and was given up leaves the operation unknown, or cancelled or expired when that was asked for."""
    if not op.key.at_most_once or not op.final:
        return
    started = False
    for e in op.events:
        started |= e["event"] in ("started", "lease_lost")
        if e["event"] in GIVEN_UP and started and op.final["state"] not in ("unknown", "cancelled", "expired"):
            yield f"at-most-once, uncertain after {e['event']}/{e['attempt']}, and is {op.final['state']}"
            return


def effect_missing(op):
    """What succeeded had its effect."""
    if op.final and op.final["state"] == "succeeded" and op.key.has_effect and op.key.effects == 0:
        yield f"succeeded in attempt {op.final['attempt']} without its effect"


def effect_doubled(op):
    """An at-most-once operation has its effect once at most; another one once per attempt at most."""
    most = min(len(op.leased), 1) if op.key.at_most_once else len(op.leased)
    if op.final and op.key.effects > most:
        yield f"{op.key.effects} effects of {len(op.leased)} attempts, {op.key.submit['delivery'] if op.key.submit else '?'} ({timeline(op)})"


def attempt_ran_twice(op):
    """One attempt has its effect once."""
    twice = sorted({n for n in op.key.attempts if op.key.attempts.count(n) > 1})
    if op.final and twice:
        yield f"attempts {twice} had their effect more than once: {op.key.attempts} ({timeline(op)})"


# --- of a key ---

def key_doubled(key):
    """A key stands for one operation, in answers and at the end."""
    ops = sorted({*key.accepted, *key.listed, *(f["op"] for f in key.finals)})
    if len(ops) > 1:
        yield f"stands for {len(ops)} operations: {', '.join(ops)}"


def final_twice(key):
    """The gateway lists an operation once."""
    if len(key.finals) > len({f["op"] for f in key.finals}):
        yield f"its operation is listed {len(key.finals)} times"


def stray_effect(key):
    """An effect belongs to an operation: one that was submitted, not refused; and one that nobody acknowledged is at-most-once, too."""
    if not key.effects or key.finals or key.accepted:
        return
    if not key.submit:
        yield f"{key.effects} effects, and nobody submitted it"
    elif key.refused:
        yield f"{key.effects} effects, and it was refused ({key.refused})"
    elif key.at_most_once and key.effects > 1:
        yield f"{key.effects} effects of an at-most-once operation that was not acknowledged"


# --- of the run ---

def crashed(history):
    """No process ends by itself."""
    for h in history:
        if h["e"] == "exit":
            yield f"{h['target']} ended at t={h['t']:.3f}: {h['status']}"


def vacuous(history):
    """A run in which next to nothing succeeds proves nothing."""
    finals = [h for h in history if h["e"] == "final"]
    good = sum(h["state"] == "succeeded" for h in finals)
    if len(finals) >= FEW and good < len(finals) * LEAST_SUCCEEDED:
        yield f"{good} of {len(finals)} operations succeeded: the workload does not work"


OPERATION_RULES = [lost, unfinished, state_changed, attempt_decreased, end_of_timeline, leased_twice, fencing, order, lease_lost,
                   spool_lost, result_lost, result_changed, started_twice, uncertain_end, effect_missing, effect_doubled, attempt_ran_twice]
KEY_RULES = [key_doubled, final_twice, stray_effect]
RUN_RULES = [crashed, vacuous]
LOST = ("lost", "unfinished", "spool_lost", "result_lost", "result_changed", "effect_missing")
DOUBLED = ("leased_twice", "started_twice", "effect_doubled", "attempt_ran_twice", "key_doubled", "final_twice")


def check(history, without=()):
    """What is wrong with a history; without: rules that are left out (for the checker's own tests)."""
    keys, ops = read(history)
    found = []
    for op in ops.values():
        for rule in OPERATION_RULES:
            if rule not in without:
                found += [f"{rule.__name__}: {op.id} (key {op.key.name}): {text}" for text in rule(op)]
    for key in keys.values():
        for rule in KEY_RULES:
            if rule not in without:
                found += [f"{rule.__name__}: key {key.name}: {text}" for text in rule(key)]
    for rule in RUN_RULES:
        if rule not in without:
            found += [f"{rule.__name__}: {text}" for text in rule(history)]
    return found


def stored(log, t=0.0):
    """The "stored" entries of an agent's log (--log-format json): the line comes after the result is in the spool."""
    found = []
    for line in log.splitlines():
        if '"operation finished"' not in line and '"operation ended without success"' not in line:
            continue
        try:
            doc = json.loads(line)
        except ValueError:
            continue  # the last line, cut by a kill
        found.append({"t": t, "e": "stored", "op": doc["operation"], "attempt": int(doc["attempt"]), "status": doc["status"]})
    return found


def summary(history):
    """Numbers of a run: operations by kind and state, attempts, effects, faults by kind, violations by rule, lost, doubled."""
    keys, ops = read(history)
    wrong = collections.Counter(v.split(":", 1)[0] for v in check(history))
    done = [o for o in ops.values() if o.final]
    return {
        "submitted": sum(bool(k.submit) for k in keys.values()),
        "accepted": sum(bool(k.accepted) for k in keys.values()),
        "refused": sum(bool(k.refused) and not k.accepted for k in keys.values()),
        "operations": len(done),
        "kinds": dict(collections.Counter(o.key.submit["kind"] if o.key.submit else "?" for o in done)),
        "states": dict(collections.Counter(o.final["state"] for o in done)),
        "deliveries": dict(collections.Counter(o.key.submit["delivery"] if o.key.submit else "?" for o in done)),
        "attempts": sum(len(o.leased) for o in done),
        "retried": sum(len(o.leased) > 1 for o in done),
        "effects": sum(k.effects for k in keys.values()),
        "faults": dict(collections.Counter(h["kind"] for h in history if h["e"] == "fault")),
        "violations": dict(wrong),
        "lost": sum(wrong[r] for r in LOST),
        "doubled": sum(wrong[r] for r in DOUBLED),
    }


def main(argv):
    if len(argv) != 1:
        print(__doc__, file=sys.stderr)
        return 64
    with open(argv[0], encoding="utf-8") as f:
        history = [json.loads(line) for line in f]
    found = check(history)
    print(json.dumps(summary(history), indent=1))
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
