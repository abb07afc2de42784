"""The checker: good histories pass, and each rule alone catches a bad one that passes without it."""
import copy
import json
import subprocess
import sys

import pytest

import checker

GOOD, OTHER = "a" * 64, "b" * 64


def timeline(*names):
    """Events from "accepted", "leased/1", "started/1", …, a second apart."""
    out = []
    for i, name in enumerate(names):
        event, _, attempt = name.partition("/")
        out.append({"at": f"2026-11-20T19:00:{i:02}.000Z", "event": event, "attempt": int(attempt or 0), "instance": "in_1"})
    return out


def story(*names, delivery="at-least-once", effects=1, key="k", op="op_1", **final):
    """The history of one operation whose timeline this is."""
    events = timeline(*names)
    state = next((e["event"] for e in reversed(events) if e["event"] in checker.TERMINAL), "running")
    attempt = max(e["attempt"] for e in events)
    last = {"e": "final", "op": op, "key": key, "state": state, "attempt": attempt, "events": events,
            "result_sha256": GOOD if state == "succeeded" else None, **final}
    h = [{"e": "submit", "key": key, "delivery": delivery, "kind": "insert", "expect": GOOD},
         {"e": "accepted", "key": key, "op": op},
         {"e": "seen", "op": op, "state": "queued", "attempt": 0},
         {"e": "seen", "op": op, "state": "leased", "attempt": min(attempt, 1)},
         {"e": "seen", "op": op, "state": last["state"], "attempt": last["attempt"]},
         {"e": "fault", "kind": "kill", "target": "agent-1", "detail": ""},
         {"e": "effect", "key": key, "n": effects}, last]
    return stamp(h)


def stamp(history):
    return [{"t": float(i), **{k: v for k, v in h.items() if k != "t"}} for i, h in enumerate(history)]


def without(history, e):
    return [h for h in history if h["e"] != e]


def insert(history, at, entry):
    return stamp([*history[:at], entry, *history[at:]])


DONE = ("accepted", "leased/1", "started/1", "succeeded/1")
ONCE = {"delivery": "at-most-once"}

STORED = {"e": "stored", "op": "op_1", "attempt": 1, "status": "succeeded"}
LOST_ONE = story("accepted", "leased/1", "lease_lost/1", "leased/2", "succeeded/2")

GOOD_HISTORIES = {
    "plain": story(*DONE),
    "without a start": story("accepted", "leased/1", "succeeded/1"),
    "retried, both had the effect": story("accepted", "leased/1", "started/1", "lease_lost/1", "leased/2", "succeeded/2", effects=2),
    "retried, one had it": story("accepted", "leased/1", "lease_lost/1", "leased/2", "started/2", "succeeded/2"),
    "failed with an effect": story("accepted", "leased/1", "failed/1"),
    "failed without": story("accepted", "leased/1", "failed/1", effects=0),
    "cancelled while queued": story("accepted", "cancel_requested/0", "cancelled/0", effects=0),
    "late result": story("accepted", "leased/1", "lease_lost/1", "leased/2", "succeeded/2", "result_refused/2", effects=2),
    "settled": story("accepted", "leased/1", "lease_lost/1", "unknown/1", "settled/1", **ONCE),
    "at-most-once": story(*DONE, **ONCE),
    "at-most-once, given back before its start": story("accepted", "leased/1", "released/1", "leased/2", "succeeded/2", **ONCE),
    "at-most-once, unknown without effect": story("accepted", "leased/1", "started/1", "lease_lost/1", "unknown/1", effects=0, **ONCE),
    "at-most-once, cancelled and lost": story("accepted", "leased/1", "cancel_requested/1", "lease_lost/1", "cancelled/1", **ONCE),
    "accepted twice": insert(story(*DONE), 2, {"e": "accepted", "key": "k", "op": "op_1"}),
    "refused": stamp([{"e": "submit", "key": "k", "delivery": "at-least-once", "kind": "insert", "expect": GOOD},
                      {"e": "refused", "key": "k", "status": 400}]),
    "the answer was lost, it ran": without(story(*DONE), "accepted"),
    "the answer was lost, it was never stored": story(*DONE)[:1],
    "the agent's clock is ahead": story("accepted", "leased/1", "started/1", "succeeded/1", events=[
        {**e, "at": "2027-01-01T00:00:00.000Z"} if e["event"] == "started" else e for e in timeline(*DONE)]),
    "the gateway's clock went back": insert(story(*DONE, events=[
        {**e, "at": "2025-01-01T00:00:00.000Z"} if e["event"] == "succeeded" else e for e in timeline(*DONE)]),
        2, {"e": "fault", "kind": "clock-jump", "target": "gateway", "detail": "-1 y"}),
    "stored and accepted": insert(story(*DONE), 5, STORED),
    "stored and refused": insert(story("accepted", "leased/1", "lease_lost/1", "leased/2", "succeeded/2", "result_refused/2"), 5, STORED),
    "stored, and accepted after its lease": insert(story("accepted", "leased/1", "lease_lost/1", "succeeded/1"), 5, STORED),
    "a read has no effect": [{**h, "kind": "read-large"} if h["e"] == "submit" else h for h in story(*DONE, effects=0)],
    "tried again": story("accepted", "leased/1", "started/1", "retry/1", "leased/2", "started/2", "succeeded/2"),
    "result not known": [{**h, "expect": None} if h["e"] == "submit" else h for h in story(*DONE, result_sha256=None)],
}

# For each rule histories that it alone catches.
BAD_HISTORIES = {
    checker.lost: {
        "gone": without(story(*DONE), "final"),
        "gone for a while": insert(story(*DONE), 3, {"e": "seen", "op": "op_1", "state": "HTTP 404", "attempt": 0})},
    checker.unfinished: {"running": story("accepted", "leased/1", "started/1"), "queued": story("accepted", effects=0, state="queued")},
    checker.state_changed: {
        "failed, then succeeded": insert(story(*DONE), 4, {"e": "seen", "op": "op_1", "state": "failed", "attempt": 1}),
        "cancelled, then queued": insert(story("accepted", "cancelled/0", effects=0), 2,
                                         {"e": "seen", "op": "op_1", "state": "cancelled", "attempt": 0}),
        "only at the end": [{**h, "state": "failed"} if h["e"] == "seen" and h["state"] == "succeeded" else h for h in story(*DONE)]},
    checker.attempt_decreased: {"seen": insert(story(*DONE), 3, {"e": "seen", "op": "op_1", "state": "running", "attempt": 2})},
    checker.end_of_timeline: {
        "two ends": story("accepted", "leased/1", "failed/1", "succeeded/1"),
        "no end": story("accepted", "leased/1", state="succeeded", result_sha256=GOOD),
        "another end": story(*DONE, state="failed", result_sha256=None),
        "events after it": story(*DONE, "cancel_requested/1"),
        "no beginning": story("leased/1", "succeeded/1"),
        "two beginnings": story("accepted", *DONE)},
    checker.leased_twice: {
        "the same number": story("accepted", "leased/1", "released/1", "leased/1", "succeeded/1"),
        "a number left out": story("accepted", "leased/2", "succeeded/2"),
        "a lease without a trace": story(*DONE, attempt=1, events=timeline("accepted", "leased/1", "lease_lost/1", "leased/2", "failed/2"),
                                         state="failed", result_sha256=None)},
    checker.fencing: {
        "late result accepted": story("accepted", "leased/1", "lease_lost/1", "leased/2", "succeeded/1", attempt=2),
        "late start": story("accepted", "leased/1", "lease_lost/1", "leased/2", "started/1", "succeeded/2"),
        "never leased": story("accepted", "leased/1", "succeeded/2", attempt=1)},
    checker.order: {
        "started twice": story("accepted", "leased/1", "started/1", "started/1", "succeeded/1"),
        "lost after it was given back": story("accepted", "leased/1", "released/1", "lease_lost/1", "leased/2", "succeeded/2"),
        "the past": story(*DONE, events=[{**e, "at": "2020-01-01T00:00:00.000Z"} if e["event"] == "succeeded" else e for e in timeline(*DONE)])},
    checker.lease_lost: {"of an agent that is fine": [{**h, "target": "gateway"} if h["e"] == "fault" else h for h in LOST_ONE]},
    checker.spool_lost: {
        "never arrived, tried again": insert(LOST_ONE, 5, STORED),
        "never arrived, unknown": insert(story("accepted", "leased/1", "lease_lost/1", "unknown/1", **ONCE), 5, STORED),
        "one arrived, two were there": insert(insert(story("accepted", "leased/1", "lease_lost/1", "leased/2", "lease_lost/2", "result_refused/2",
                                                           "failed/2"), 5, STORED), 5, {**STORED, "attempt": 2})},
    checker.result_lost: {"missing": story(*DONE, result_sha256=None), "of another attempt": story(*DONE, has_result=False)},
    checker.result_changed: {"flipped": story(*DONE, result_sha256=OTHER)},
    checker.started_twice: {
        "leased after a start": story("accepted", "leased/1", "started/1", "released/1", "leased/2", "cancelled/2", **ONCE),
        "leased after a loss": story("accepted", "leased/1", "lease_lost/1", "leased/2", "unknown/2", **ONCE)},
    checker.uncertain_end: {
        "lost and failed": story("accepted", "leased/1", "lease_lost/1", "failed/1", **ONCE),
        "given back and failed": story("accepted", "leased/1", "started/1", "released/1", "failed/1", **ONCE)},
    checker.effect_missing: {"none": story(*DONE, effects=0), "none, no row at all": without(story(*DONE), "effect")},
    checker.effect_doubled: {
        "one attempt ran twice": story(*DONE, effects=2),
        "at-most-once": story("accepted", "leased/1", "released/1", "leased/2", "succeeded/2", effects=2, **ONCE),
        "never leased": story("accepted", "cancelled/0", effects=1)},
    checker.attempt_ran_twice: {"while the other did nothing": [{**h, "attempts": [1, 1]} if h["e"] == "effect" else h for h in story(
        "accepted", "leased/1", "lease_lost/1", "leased/2", "succeeded/2", effects=2)]},
    checker.key_doubled: {
        "two answers": insert(story(*DONE), 2, {"e": "accepted", "key": "k", "op": "op_0"}) +
        [{**h, "t": 20.0} for h in without(story(*DONE, op="op_0"), "submit") if h["e"] == "final"],
        "one that nobody was told of": insert(story(*DONE), 7, {"e": "listed", "key": "k", "op": "op_9"}),
        "two at the end": story(*DONE) + [{**h, "t": 20.0} for h in story(*DONE, op="op_2") if h["e"] == "final"]},
    checker.final_twice: {"listed twice": story(*DONE) + [{**story(*DONE)[-1], "t": 20.0}]},
    checker.stray_effect: {
        "of nobody": stamp([{"e": "effect", "key": "x", "n": 1}]),
        "of a refused one": stamp([*GOOD_HISTORIES["refused"], {"e": "effect", "key": "k", "n": 1}]),
        "twice, not acknowledged": stamp([*story(*DONE, **ONCE)[:1], {"e": "effect", "key": "k", "n": 2}])},
    checker.vacuous: {"everything failed": [h for n in range(checker.FEW) for h in story(
        "accepted", "leased/1", "failed/1", effects=0, key=f"k{n}", op=f"op_{n}")]},
    checker.crashed: {"gateway": insert(story(*DONE), 5, {"e": "exit", "target": "gateway", "status": -6})},
}
CASES = [(rule, name) for rule, histories in BAD_HISTORIES.items() for name in histories]


@pytest.mark.parametrize("name", GOOD_HISTORIES)
def test_good(name):
    assert checker.check(GOOD_HISTORIES[name]) == []


@pytest.mark.parametrize("rule, name", CASES, ids=[f"{r.__name__}: {n}" for r, n in CASES])
def test_bad(rule, name):
    history = BAD_HISTORIES[rule][name]
    found = checker.check(copy.deepcopy(history))
    assert found and {v.split(":")[0] for v in found} == {rule.__name__}, found
    assert checker.check(history, without=[rule]) == []


def test_every_rule_has_a_bad_history():
    assert set(BAD_HISTORIES) == {*checker.OPERATION_RULES, *checker.KEY_RULES, *checker.RUN_RULES}
    assert {*checker.LOST, *checker.DOUBLED} <= {r.__name__ for r in BAD_HISTORIES}


def test_a_history_may_come_out_of_order():
    assert checker.check(list(reversed(GOOD_HISTORIES["plain"]))) == []


def test_stored_from_a_log():
    line = '{"time":"x","level":"info","msg":"%s","operation":"op_1","attempt":"1","status":"%s","ms":"3"}'
    log = ["{}", line % ("operation started", "succeeded"), line % ("operation given back", "succeeded"),
           line % ("operation finished", "succeeded"), line % ("operation ended without success", "failed"),
           (line % ("operation finished", "succeeded"))[:-9]]
    assert checker.stored("\n".join(log)) == [{**STORED, "t": 0.0}, {**STORED, "status": "failed", "t": 0.0}]


def test_summary():
    s = checker.summary(story(*DONE) + [{**h, "t": h["t"] + 50} for h in
                                        story("accepted", "leased/1", "lease_lost/1", "leased/2", "succeeded/2", effects=3, key="l", op="op_2")])
    assert s == {"submitted": 2, "accepted": 2, "refused": 0, "operations": 2, "kinds": {"insert": 2}, "states": {"succeeded": 2},
                 "deliveries": {"at-least-once": 2}, "attempts": 3, "retried": 1, "effects": 4, "faults": {"kill": 2},
                 "violations": {"effect_doubled": 1}, "lost": 0, "doubled": 1}


def test_the_command(tmp_path):
    for history, code in ((story(*DONE), 0), (story(*DONE, effects=2), 1)):
        path = tmp_path / "history.jsonl"
        path.write_text("".join(json.dumps(h) + "\n" for h in history))
        p = subprocess.run([sys.executable, checker.__file__, path], stdout=subprocess.PIPE, text=True)
        assert p.returncode == code and ('"lost": 0' in p.stdout) and ("effect_doubled: op_1" in p.stdout) == bool(code)
