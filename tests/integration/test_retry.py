"""Retry policies, dead letters and the reasons why operations wait, through the client API."""
import re

import pytest

from fake_agent import Held, Instance
from harness import wait_until

NAMES = (f"r{n}" for n in range(10**6))


@pytest.fixture(scope="module")
def gw(module_stack):
    return module_stack.gateway()


@pytest.fixture(scope="module")
def key(gw):
    return gw.agent("warehouse")


def operation(gw, **fields):
    return gw.submit("health", agent="warehouse", **fields)


def leases_of(agent):
    leases = agent.exchange().get("leases", [])
    agent.exchange(draining=True)
    return leases


def put_failed(agent, lease, code="connect_failed", retryable=True):
    return agent.put(lease, status="failed", error={"code": code, "message": "no route", "retryable": retryable})


def test_retry_policy(gw, key):
    a = Instance(gw, gw.agent(next(NAMES)), slots=1)
    name = gw.api("GET", f"/agents/{a.key.agent}")["name"]
    a.connect()
    op = gw.submit("health", agent=name, retry={"max_attempts": 3, "backoff_ms": 1, "max_backoff_ms": 5, "on": ["lost", "retryable"]})
    doc = gw.operation(op)
    assert doc["max_attempts"] == 3
    assert doc["retry"] == {"max_attempts": 3, "backoff_ms": 1, "max_backoff_ms": 5, "on": ["lost", "retryable"]}
    for n in (1, 2):
        lease = wait_until(lambda: next(iter(a.exchange().get("leases", [])), None), 20)
        assert lease["attempt"] == n
        assert put_failed(a, lease)[:1] == (200,)
        code, answer = put_failed(a, lease)
        assert code == 200 and answer["duplicate"]
        doc = gw.operation(op)
        assert doc["why"].startswith(f"attempt {n} of 3 failed: no route; ") and not doc.get("result"), doc["why"]
    lease = wait_until(lambda: next(iter(a.exchange().get("leases", [])), None), 20)
    code, answer = a.put(lease, b"[1]\n")
    assert code == 200
    code, answer = put_failed(a, {**lease, "attempt": 1})
    assert code == 200 and answer["duplicate"]
    doc = gw.operation(op)
    assert doc["state"] == "succeeded" and doc["attempt"] == 3 and doc["result"]["rows"] == 0
    failed = [e for e in doc["events"] if e["event"] == "attempt_failed"]
    assert [(e["attempt"], e["detail"]) for e in failed] == [(1, "no route"), (2, "no route")]
    assert gw.request("GET", f"/api/v1/operations/{op['id']}/result").body == b"[1]\n"


def test_retry_keeps_no_body(gw, key):
    """The body of an attempt that is tried again is not kept, also when it is a file."""
    a = Instance(gw, gw.agent(next(NAMES)), slots=1)
    name = gw.api("GET", f"/agents/{a.key.agent}")["name"]
    a.connect()
    op = gw.submit("health", agent=name, retry={"backoff_ms": 60000, "max_backoff_ms": 60000, "on": ["unavailable"]})
    lease, = a.exchange()["leases"]
    def blobs():
        return sorted(f for f in (gw.home / "blobs").rglob("*") if f.is_file())

    before = blobs()
    error = {"code": "unavailable", "message": "gone", "retryable": True}
    assert a.put(lease, b"[1]\n" * 20000, status="failed", error=error)[0] == 200
    assert blobs() == before
    doc = gw.operation(op)
    assert doc["state"] == "queued" and "next try at 20" in doc["why"]
    assert gw.request("GET", f"/api/v1/operations/{op['id']}/result").status == 404
    gw.api("POST", f"/operations/{op['id']}/cancel", {"reason": "enough"})
    doc = gw.operation(op)
    assert doc["state"] == "cancelled" and doc["error"]["code"] == "cancelled" and "result" not in doc


@pytest.mark.parametrize("fields, what", [
    ({"max_attempts": 2, "retry": {"max_attempts": 3}}, "max_attempts: 2, but retry.max_attempts is 3"),
    ({"retry": {"backoff_ms": 5, "max_backoff_ms": 4}}, "retry.backoff_ms: 5 is more than"),
    ({"retry": {"on": []}}, "on: 0 items, at least 1"),
    ({"retry": {"on": ["sometimes"]}}, "'sometimes' is neither"),
    ({"retry": {"on": ["ok"]}}, "'ok' is neither"),
    ({"retry": {"on": ["retryable"]}, "delivery": "at-most-once"}, "is not possible with at-most-once"),
    ({"retry": {"on": ["lost", "timeout"]}, "delivery": "at-most-once"}, "'timeout' is not possible"),
    ({"retry": {"max_attempts": 0}}, "max_attempts: 0 is not between"),
])
def test_retry_policies_that_cannot_be(gw, key, fields, what):
    r = gw.request("POST", "/api/v1/operations", {"agent": "warehouse", "type": "health", "input": {}, **fields})
    assert r.status == 400 and what in r.json()["error"]["message"] and r.json()["error"]["hint"], r


def test_retry_defaults_and_short_form(gw, key):
    for fields, want in (({}, (3, 1000, 60000, ["lost"])), ({"max_attempts": 2, "retry": {"max_attempts": 2}}, (2, 1000, 60000, ["lost"])),
                         ({"retry": {"backoff_ms": 90000}}, (3, 90000, 90000, ["lost"])),
                         ({"delivery": "at-most-once", "retry": {"on": ["lost"]}}, (3, 1000, 60000, ["lost"]))):
        retry = gw.operation(operation(gw, **fields))["retry"]
        assert tuple(retry[k] for k in ("max_attempts", "backoff_ms", "max_backoff_ms", "on")) == want


def dead_letters(gw, **query):
    text = "&".join(f"{k}={v}" for k, v in query.items())
    return gw.api("GET", f"/operations?dead_letter=true&{text}")


def dead_metric(gw):
    text = gw.request("GET", "/metrics").text
    return {s: int(re.search(rf'postern_dead_letters{{state="{s}"}} (\d+)', text).group(1)) for s in ("failed", "expired", "unknown")}


def test_dead_letters(gw, key):
    a = Instance(gw, gw.agent(next(NAMES)), slots=100)
    name = gw.api("GET", f"/agents/{a.key.agent}")["name"]
    a.connect()
    before = dead_metric(gw)
    ops = [gw.submit("health", agent=name, labels={"n": str(n)}, priority=7, retry={"backoff_ms": 9}) for n in range(5)]
    ok_op = gw.submit("health", agent=name)
    for lease in leases_of(a):
        good = lease["operation"] == ok_op["id"]
        assert a.put(lease, status="succeeded" if good else "failed")[0] == 200
    ids = [op["id"] for op in reversed(ops)]
    assert [d["id"] for d in dead_letters(gw, agent=name)["items"]] == ids
    assert dead_metric(gw) == {**before, "failed": before["failed"] + 5}
    page = dead_letters(gw, agent=name, limit=2)
    assert [d["id"] for d in page["items"]] == ids[:2] and all(d["dead_letter"] for d in page["items"])
    page = dead_letters(gw, agent=name, limit=2, before=page["next"])
    assert [d["id"] for d in page["items"]] == ids[2:4]
    assert not dead_letters(gw, agent=name, type="logs")["items"] and not dead_letters(gw, agent=name, state="expired")["items"]
    assert len(gw.api("GET", f"/operations?agent={name}&dead_letter=false")["items"]) == 6

    rerun, done, abandon = ids[:3]
    doc = gw.api("POST", f"/operations/{rerun}/settle", {"decision": "rerun", "note": "fixed"})
    assert doc["state"] == "failed" and not doc["dead_letter"] and doc["events"][-1]["event"] == "settled"
    assert doc["settled"]["decision"] == "rerun" and doc["settled"]["note"] == "fixed" and doc["settled"]["by_name"] == "owner"
    assert doc["settled"]["at"] and doc["settled"]["by"].startswith("usr_")
    new = gw.operation({"id": doc["rerun"]})
    assert new["rerun_of"] == rerun and new["state"] in ("queued", "leased") and new["events"][0]["detail"] == f"rerun of {rerun}"
    old = gw.operation({"id": rerun})
    same = ("agent", "type", "input", "limits", "labels", "priority", "delivery", "retry", "max_attempts")
    assert {k: new.get(k) for k in same} == {k: old.get(k) for k in same}
    again = gw.api("POST", f"/operations/{rerun}/settle", {"decision": "rerun", "note": "fixed"})
    assert again["rerun"] == new["id"] and again["settled"] == doc["settled"]
    for body in ({"decision": "rerun"}, {"decision": "rerun", "note": "else"}, {"decision": "done", "note": "fixed"}):
        r = gw.request("POST", f"/api/v1/operations/{rerun}/settle", body)
        assert r.status == 409 and "settled by owner already: rerun: fixed" in r.json()["error"]["message"], r
    gw.api("POST", f"/operations/{done}/settle", {"decision": "done"})
    gw.api("POST", f"/operations/{abandon}/settle", {"decision": "abandon", "note": ""})
    assert [d["id"] for d in dead_letters(gw, agent=name)["items"]] == ids[3:]
    assert dead_metric(gw)["failed"] == before["failed"] + 2
    for op, what in ((ok_op["id"], "is succeeded"), (new["id"], "there is nothing to settle")):
        r = gw.request("POST", f"/api/v1/operations/{op}/settle", {"decision": "done"})
        assert r.status == 409 and what in r.json()["error"]["message"] and r.json()["error"]["hint"], r


def test_settle_at_the_same_time(gw, key):
    a = Instance(gw, key, slots=1000)
    a.connect()
    op = operation(gw)
    lease = next(x for x in leases_of(a) if x["operation"] == op["id"])
    assert a.put(lease, status="failed")[0] == 200
    answers = [Held(lambda: gw.request("POST", f"/api/v1/operations/{op['id']}/settle", {"decision": "rerun"})) for _ in range(12)]
    answers = [a.result(30) for a in answers]
    assert {a.status for a in answers} == {200} and len({a.json()["rerun"] for a in answers}) == 1


def test_rerun_without_its_agent(gw):
    name = next(NAMES)
    k = gw.agent(name)
    a = Instance(gw, k, slots=1)
    a.connect()
    op = gw.submit("health", agent=name)
    lease, = a.exchange()["leases"]
    assert a.put(lease, status="failed")[0] == 200
    gw.api("DELETE", f"/agents/{k.agent}")
    r = gw.request("POST", f"/api/v1/operations/{op['id']}/settle", {"decision": "rerun"})
    assert r.status == 409 and "agent was deleted" in r.json()["error"]["message"]
    assert op["id"] in [d["id"] for d in dead_letters(gw)["items"]]
    assert gw.api("POST", f"/operations/{op['id']}/settle", {"decision": "abandon"})["settled"]["decision"] == "abandon"


def test_dead_letters_survive_a_restart(stack):
    gw = stack.gateway()
    a = Instance(gw, gw.agent("one"), slots=1)
    a.connect()
    op = gw.submit("health", agent="one")
    lease, = a.exchange()["leases"]
    assert a.put(lease, status="failed")[0] == 200
    settled = gw.submit("health", agent="one")
    lease, = a.exchange()["leases"]
    assert a.put(lease, status="failed")[0] == 200
    rerun = gw.api("POST", f"/operations/{settled['id']}/settle", {"decision": "rerun"})["rerun"]
    gw.kill()
    gw.restart()
    assert [d["id"] for d in dead_letters(gw)["items"]] == [op["id"]]
    assert gw.operation({"id": settled["id"]})["rerun"] == rerun and gw.operation({"id": rerun})["rerun_of"] == settled["id"]


def test_why_right_after_submit(gw):
    """Nobody is told to wait for a slot while one is free."""
    name = next(NAMES)
    a = Instance(gw, gw.agent(name), slots=2, types=["health"])
    a.connect()
    op = gw.submit("health", agent=name)
    assert op["why"] == f"accepted; agent {name} has 1 connected instance"
    assert gw.operation(op)["why"].startswith(f"agent {name} has a free slot")
    lease, = a.exchange()["leases"]
    why = gw.operation(op)["why"]
    assert f"is leased to instance {a.id} since 20" in why and "has not started yet" in why and "lease until 20" in why
    a.exchange(holding=[a.holds(lease, rows=5, bytes=70)])
    assert "5 rows and 70 bytes so far" in gw.operation(op)["why"]
    gw.api("POST", f"/operations/{op['id']}/cancel", {"reason": "enough"})
    why = gw.operation(op)["why"]
    assert "was asked to stop at 20" in why and "(cancelled by owner: enough); it has until 20" in why
    assert a.exchange(released=[{"operation": op["id"], "attempt": 1}])
    other = gw.submit("logs", agent=name)
    assert other["why"] == f"no connected instance of agent {name} runs operations of type logs"
    back = gw.submit("health", agent=name)
    lease, = a.exchange()["leases"]
    a.exchange(released=[{"operation": back["id"], "attempt": 1, "reason": "no room"}], slots=0)
    why = gw.operation(back)["why"]
    assert why == f"attempt 1 was given back: no room; every connected instance of agent {name} is stopping or takes no new work"
