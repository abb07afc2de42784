"""Many operations with one request: each stands or fails alone, all of them share a commit, and a gateway that dies between the commit
and its answer makes none of them twice."""
import json
import re
import socket

import pytest

from fake_agent import Instance, new_id, small
from harness import wait_until

HEALTH = {"agent": "warehouse", "type": "health", "input": {}}


@pytest.fixture(scope="module")
def gw(module_stack):
    gateway = module_stack.gateway()
    gateway.agent("warehouse")
    return gateway


def batch(gw, *operations):
    return gw.api("POST", "/operations/batch", {"operations": operations})["items"]


def metric(gw, name):
    return int(re.search(rf"^postern_gateway_{name} (\d+)$", gw.request("GET", "/metrics").text, re.MULTILINE).group(1))


def test_each_stands_or_fails_alone(gw):
    other = gw.api("POST", "/agents", {"name": "other"})
    gw.api("POST", "/integrations", {"name": "sales", "connection_type": "postgres", "agent": "warehouse",
                                     "credential": {"type": "ENV_VAR", "env_var_name": "MCD_X"}})
    table = [
        HEALTH, {**HEALTH, "agent": "nobody"}, {"type": "health", "input": {}}, {**HEALTH, "type": "healthy"}, {}, {**HEALTH, "priority": 10},
        {"type": "query", "integration": "sales", "input": {"sql": "SELECT 1"}}, {**HEALTH, "input": {"x": 1}}, {**HEALTH, "zz": 1},
        {"type": "query", "integration": "sales", "input": {"sql": " "}}, {**HEALTH, "agent": other["name"], "priority": 9},
        {"type": "query", "integration": "sales", "input": {"sql": "SELECT 1"}, "agent": "other"}, {**HEALTH, "labels": {"a": 1}},
    ]
    items = batch(gw, *table)
    assert len(items) == len(table)
    for body, item in zip(table, items):
        alone = gw.request("POST", "/api/v1/operations", body)
        assert item["status"] == alone.status, (body, item, alone)
        if alone.status == 201:
            assert set(item) == {"status", "operation"} and item["operation"]["state"] == "queued"
            shown = gw.operation(item["operation"])
            assert shown["type"] == body["type"] and shown["priority"] == body.get("priority", 5)
        else:
            assert item["error"] == alone.json()["error"], body
    assert [i["status"] for i in items].count(201) == 3


def test_one_commit_for_all(gw):
    before = metric(gw, "commits_total"), metric(gw, "operations_submitted_total")
    assert {i["status"] for i in batch(gw, *[HEALTH] * 100)} == {201}
    assert metric(gw, "operations_submitted_total") == before[1] + 100
    assert metric(gw, "commits_total") <= before[0] + 3  # one, and the reaper's


def test_keys(gw):
    def body(key, **more):
        return {**HEALTH, "idempotency_key": key, **more}

    first, second, third = batch(gw, body("a"), body("b"), body("a"))
    assert (first["status"], second["status"], third["status"]) == (201, 201, 200)
    assert first["operation"] == third["operation"] != second["operation"]
    again = batch(gw, body("b"), body("a"), body("c"), body("a", priority=6))
    assert [i["status"] for i in again] == [200, 200, 201, 409]
    assert again[:2] == [{**second, "status": 200}, {**first, "status": 200}]
    assert again[3]["error"]["code"] == "conflict" and first["operation"]["id"] in again[3]["error"]["message"]
    # the same as alone, however it is written
    alone = gw.request("POST", "/api/v1/operations", json.dumps({"idempotency_key": "a", "input": {}, "type": "health", "agent": "warehouse"}, indent=3).encode())
    assert alone.status == 200 and alone.json()["id"] == first["operation"]["id"]
    alone = gw.request("POST", "/api/v1/operations", HEALTH, headers={"Idempotency-Key": "b"})
    assert alone.status == 200 and alone.json()["id"] == second["operation"]["id"]
    alone = gw.request("POST", "/api/v1/operations", HEALTH, headers={"Idempotency-Key": "d"})
    assert alone.status == 201
    assert batch(gw, body("d")) == [{"status": 200, "operation": {"id": alone.json()["id"], "state": "queued"}}]


@pytest.mark.parametrize("operations,text", [([], "at least 1"), ([HEALTH] * 101, "at most 100"), ([HEALTH, []], r"operations[1]"), ("x", "an array"),
                                             ([None], "an object"), ({}, "an array")])
def test_the_whole_batch_is_refused(gw, operations, text):
    submitted = metric(gw, "operations_submitted_total")
    r = gw.request("POST", "/api/v1/operations/batch", {"operations": operations})
    assert r.status == 400 and text in r.json()["error"]["message"], r
    assert metric(gw, "operations_submitted_total") == submitted


def test_a_key_for_the_whole_batch_is_refused(gw):
    r = gw.request("POST", "/api/v1/operations/batch", {"operations": [HEALTH]}, headers={"Idempotency-Key": "x"})
    assert r.status == 400 and "idempotency_key" in r.json()["error"]["message"]


def send_only(gw, operations):
    """Send a batch; its connection, from which nobody has read an answer."""
    data = json.dumps({"operations": operations}).encode()
    s = socket.create_connection(("127.0.0.1", gw.port), 20)
    s.sendall(f"POST /api/v1/operations/batch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gw.token}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    return s


@pytest.mark.limit(240)
def test_killed_between_commit_and_answer(stack):
    gw = stack.gateway()
    key = gw.agent("warehouse")
    accepted = {}
    for n in range(10):
        operations = [{**HEALTH, "idempotency_key": f"{n}-{i}", "labels": {"n": f"{n}-{i}"}} for i in range(100)]
        with send_only(gw, operations):
            if n % 2:  # it is committed, and the client never hears of it; else the kill comes at any point before
                wait_until(lambda: any(o["labels"]["n"] == f"{n}-99" for o in gw.api("GET", "/operations?limit=1")["items"]),
                           what="the batch is committed")
            gw.kill()
        gw.restart()
        items = batch(gw, *operations)
        statuses = {i["status"] for i in items}
        assert statuses == {200} if n % 2 else statuses <= {200, 201}, statuses
        for op, item in zip(operations, items):
            accepted[item["operation"]["id"]] = op["labels"]["n"]
    assert len(accepted) == 1000 and len(set(accepted.values())) == 1000
    listed, before = [], ""
    while before is not None:
        page = gw.api("GET", "/operations?limit=500" + (f"&before={before}" if before else ""))
        listed += page["items"]
        before = page.get("next")
    assert {o["id"]: o["labels"]["n"] for o in listed} == accepted and len(listed) == 1000
    agent = Instance(gw, key, slots=1000)
    leases = {}
    while len(leases) < 1000:
        for lease in agent.exchange(holding=[agent.holds(lease) for lease in leases.values()]).get("leases", []):
            assert lease["attempt"] == 1
            leases[lease["operation"]] = lease
    assert set(leases) == set(accepted)


# --- results

def leased(gw, agent, n):
    """n operations in the hands of the instance, oldest first."""
    batch(gw, *[HEALTH] * n)
    got = []
    while len(got) < n:
        got += agent.exchange(holding=[agent.holds(lease) for lease in got]).get("leases", [])
    return got


@pytest.fixture
def agent(stack):
    gateway = stack.gateway()
    return Instance(gateway, gateway.agent("warehouse"), slots=20)


def test_each_result_stands_or_fails_alone(agent):
    gw = agent.gateway
    good, failed, rows, stale, large, broken, wrong, early, older = leases = leased(gw, agent, 9)
    foreign = {"operation": new_id("op"), "attempt": 1}
    sent = [
        (200, small(good, agent.id, document={"a": 1})), (200, small(failed, agent.id, status="failed")), (200, small(rows, agent.id, b"[1]\n[2]\n", rows=2)),
        (404, small(foreign, agent.id)), (409, small(stale, agent.id, attempt=7)), (413, small(large, agent.id, b"[" + b"1" * 32768 + b"]\n")),
        (400, small(broken, agent.id, b"[1]\n", body_sha256="0" * 64)), (400, small(wrong, agent.id, status="maybe")),
        (400, {**small(early, agent.id, b"[1]\n"), "body": "WzFd"}), (400, {"operation": early["operation"]}), (200, small(good, agent.id)),
        (200, small(older, new_id("in"))),
    ]
    answer = agent.post(*[doc for _, doc in sent])
    assert [i["status"] for i in answer["items"]] == [status for status, _ in sent]
    assert [n for n, i in enumerate(answer["items"]) if i.get("duplicate")] == [10]
    codes = {400: {"invalid_request"}, 404: {"not_found"}, 409: {"stale_attempt"}, 413: {"too_large"}}
    for item in answer["items"]:
        assert item["status"] == 200 or item["error"]["code"] in codes[item["status"]], item
    states = {lease["operation"]: gw.operation({"id": lease["operation"]}) for lease in leases}
    assert states[good["operation"]]["state"] == states[rows["operation"]]["state"] == states[older["operation"]]["state"] == "succeeded"
    assert states[good["operation"]]["result"]["document"] == {"a": 1}
    assert states[failed["operation"]]["state"] == "failed" and states[failed["operation"]]["error"]["code"] == "query_failed"
    assert gw.request("GET", states[rows["operation"]]["result"]["body"]["href"]).body == b"[1]\n[2]\n"
    assert "result_refused" in [e["event"] for e in states[stale["operation"]]["events"]]
    for lease in (stale, large, broken, wrong, early):
        assert states[lease["operation"]]["state"] == "leased", lease
    assert agent.put(good)[1]["duplicate"]  # the two ways know of each other
    assert agent.post(small(early, agent.id), small(early, agent.id))["items"] == [{"status": 200}, {"status": 200, "duplicate": True}]


def test_results_bring_work_for_every_slot_they_free(agent):
    gw = agent.gateway
    first = leased(gw, agent, 20)
    waiting = {i["operation"]["id"] for i in batch(gw, *[HEALTH] * 30)}
    before = metric(gw, "commits_total")
    answer = agent.post(*[small(lease, agent.id) for lease in first[:15]])
    assert metric(gw, "commits_total") <= before + 3
    got = {lease["operation"] for lease in answer["leases"]}
    assert len(got) == len(answer["leases"]) == 15 and got < waiting
    # another process delivers from an old spool: the work is for itself, and only for what it has room for
    other = Instance(gw, agent.key, slots=3)
    other.connect(draining=True)
    other.exchange(draining=False, holding=[])
    answer = other.post(*[small(lease, agent.id) for lease in first[15:]])
    assert [i["status"] for i in answer["items"]] == [200] * 5
    assert not {lease["operation"] for lease in answer["leases"]} & got and len(answer["leases"]) <= 3


def test_many_results_are_refused_as_a_whole(agent):
    lease, = leased(agent.gateway, agent, 1)
    for results in ([], [small(lease, agent.id)] * 65, [None]):
        agent.post(*results, expect=400)
    assert agent.gateway.operation({"id": lease["operation"]})["state"] == "leased"


# --- ctl operations run --batch

def test_ctl(module_stack, gw, tmp_path):
    lines = [json.dumps({**HEALTH, "labels": {"n": str(n)}}) for n in range(250)]
    lines[7] = json.dumps({**HEALTH, "agent": "nobody"})
    file = tmp_path / "operations.jsonl"
    file.write_text("\n".join(lines[:10]) + "\n\n" + "\n".join(lines[10:]))
    before = metric(gw, "operations_submitted_total")
    r = module_stack.ctl(gw, "operations", "run", "--batch", file, check=False)
    shown = r.stdout.splitlines()
    assert len(shown) == 250 and r.returncode != 0 and "1 of 250 operations were refused" in r.stderr, r
    assert shown[7].startswith("-\tnot_found: no agent 'nobody'")
    assert metric(gw, "operations_submitted_total") == before + 249
    for n in (0, 99, 100, 249):
        op, state = shown[n].split("\t")
        assert state == "queued" and gw.operation({"id": op})["labels"] == {"n": str(n)}
    r = module_stack.ctl(gw, "operations", "run", "-o", "json", "--batch", "-", input="\n".join(lines[:3]))
    assert [json.loads(x)["status"] for x in r.stdout.splitlines()] == [201] * 3


@pytest.mark.parametrize("text,flags,want", [('{}\n[]\n', [], "line 2 is an array"), ('{"a"}\n', [], "line 1"), ("", ["--agent", "warehouse"], "--batch")])
def test_ctl_sends_nothing_of_what_is_wrong(module_stack, gw, text, flags, want):
    before = metric(gw, "operations_submitted_total")
    r = module_stack.ctl(gw, "operations", "run", *flags, "--batch", "-", input=text, check=False)
    assert r.returncode != 0 and want in r.stderr, r
    assert metric(gw, "operations_submitted_total") == before
