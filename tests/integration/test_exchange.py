"""The agent API: exchanges, leases, results, what survives a crash, and the stop of a gateway."""
import base64
import hashlib
import json
import random
import signal
import socket
import subprocess
import time

import pytest

from fake_agent import Held, Instance, head_of, new_id
from harness import peak_rss, request, reset_peak_rss, wait_until
from product import BIN, sanitized

SLOW = 5 if sanitized() else 1  # sanitizer builds may take so much longer


@pytest.fixture(scope="module")
def gw(module_stack):
    return module_stack.gateway()


names = iter(f"agent-{n}" for n in range(10000))


@pytest.fixture
def key(gw):
    """An agent of the test's own."""
    k = gw.agent(name := next(names))
    k.name = name
    return k


@pytest.fixture
def agent(gw, key):
    a = Instance(gw, key)
    assert a.connect()["enabled"] is True
    return a


def submit(gw, key, n=1, **fields):
    ops = [gw.submit("health", agent=key.agent, **fields) for _ in range(n)]
    return ops[0] if n == 1 else ops


def events(gw, op):
    return [e["event"] for e in gw.operation(op)["events"]]


def held(gw, agent):
    """A long poll of the agent that has reached the gateway."""
    before = metric(gw, "exchanges_total")
    poll = agent.hold()
    wait_until(lambda: metric(gw, "exchanges_total") > before, 5)
    return poll


def metric(gw, name):
    text = gw.request("GET", "/metrics").text
    return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(f"postern_gateway_{name} ")))


# --- leases

def test_lease_arrives_within_a_held_exchange(gw, key, agent):
    for _ in range(5):
        poll = held(gw, agent)
        start = time.monotonic()
        op = submit(gw, key)
        answer = poll.result(1 * SLOW)
        assert time.monotonic() - start < 1 * SLOW
        lease, = answer["leases"]
        assert lease["operation"] == op["id"] and lease["attempt"] == 1 and lease["type"] == "health" and lease["input"] == {}
        assert lease["lease_ms"] == 60000 and lease["limits"]["timeout_ms"] == 840000 and "connection_type" not in lease
        assert agent.put(lease)[0] == 200
        assert gw.operation(op)["state"] == "succeeded"


def test_a_lease_brings_where_the_credential_is(gw, key, agent):
    gw.api("POST", "/integrations", {"name": "db-" + key.name, "connection_type": "postgres", "agent": key.agent,
                                     "credential": {"type": "FILE", "file_path": "/etc/secrets/integrations/x.json"}})
    gw.submit("query", {"sql": "SELECT 1"}, integration="db-" + key.name, limits={"max_rows": 5})
    lease, = agent.exchange()["leases"]
    assert lease["connection_type"] == "postgres" and lease["limits"]["max_rows"] == 5
    assert lease["credential"] == {"type": "FILE", "file_path": "/etc/secrets/integrations/x.json"}


def test_slots_are_derived_and_why_says_so(gw, key, agent):
    ops = submit(gw, key, 20)
    leases = agent.exchange()["leases"]
    assert [x["operation"] for x in leases] == [op["id"] for op in ops[:18]]
    holding = [agent.holds(x) for x in leases]
    assert agent.exchange(holding=holding).get("leases", []) == []
    for n, op in enumerate(ops[18:]):
        doc = gw.operation(op)
        assert doc["state"] == "queued"
        assert "all 18 slots" in doc["why"] and key.name in doc["why"] and f"{n} operation" in doc["why"], doc["why"]
    code, answer = agent.put(leases[0])
    assert code == 200 and answer["accepted"] is True
    next_lease, = answer["leases"]  # the answer fills the slot
    assert next_lease["operation"] == ops[18]["id"]
    # a spooled result keeps its slot
    holding = [agent.holds(x, "spooled") for x in [*leases[1:], next_lease]]
    assert agent.exchange(holding=holding).get("leases", []) == []


def test_types_limit_what_is_leased(gw, key):
    agent = Instance(gw, key, slots=5, types=["query", "network.dns"])
    agent.connect()
    dns = gw.submit("network.dns", {"name": "localhost"}, agent=key.agent)
    health = submit(gw, key, 3)
    lease, = agent.exchange()["leases"]
    assert lease["operation"] == dns["id"]
    assert agent.put(lease)[1].get("leases", []) == [], "nor does the answer to a result lease what it cannot run"
    assert agent.exchange().get("leases", []) == []
    other = Instance(gw, key, slots=5)
    assert {x["operation"] for x in other.exchange()["leases"]} == {op["id"] for op in health}


def test_few_operations_spread_over_instances(gw, key):
    pair = [Instance(gw, key, slots=4) for _ in range(2)]
    for a in pair:
        a.connect()
    polls = [held(gw, a) for a in pair]
    submit(gw, key)
    first = wait_until(lambda: next((n for n, p in enumerate(polls) if not p.waiting), None) is not None and
                       [n for n, p in enumerate(polls) if not p.waiting], 5)
    submit(gw, key)
    for p in polls:
        assert len(p.result(5)["leases"]) == 1
    assert len(first) == 1


def test_work_finds_its_way_among_many_instances(gw, key):
    """More instances than dispatch looks at in one go."""
    blind = [Instance(gw, key, slots=4, types=["network.dns"]) for _ in range(50)]
    seeing = [Instance(gw, key, slots=1) for _ in range(50)]
    polls = {}
    for a in [*blind, *seeing]:
        a.connect()
        polls[a.id] = held(gw, a)
    wait_until(lambda: metric(gw, "http_held") >= 100, 10)
    ops = {op["id"] for op in submit(gw, key, 60)}
    got = []
    for a in seeing:
        lease, = polls[a.id].result(10 * SLOW)["leases"]
        got.append((a, lease))
    assert len({x["operation"] for _, x in got}) == 50 and {x["operation"] for _, x in got} <= ops
    assert all(polls[a.id].waiting for a in blind)
    more = [lease for a, x in got for lease in a.put(x)[1].get("leases", [])]
    assert {x["operation"] for x in more} | {x["operation"] for _, x in got} == ops
    gw.submit("network.dns", {"name": "x"}, agent=key.agent)
    wait_until(lambda: [a for a in blind if not polls[a.id].waiting], 5 * SLOW)
    gw.api("POST", f"/agents/{key.agent}/disable")
    for a in blind:
        polls[a.id].result(10 * SLOW)


def test_a_lease_not_acknowledged_is_sent_again(gw, key, agent):
    op = submit(gw, key)
    first, = agent.exchange()["leases"]
    start = time.monotonic()
    assert agent.exchange().get("leases", []) == [], "it may still be on its way"
    again, = agent.exchange(wait_ms=10000)["leases"]  # held until it is time
    assert again == first and 1 < time.monotonic() - start < 4 * SLOW
    acknowledged = agent.exchange(holding=[agent.holds(first, started=False)])
    assert acknowledged.get("leases", []) == []
    assert events(gw, op) == ["accepted", "leased"]


def test_unknown_attempts_are_dropped(gw, key, agent):
    ghost = {"operation": new_id("op"), "attempt": 1}
    answer = agent.exchange(wait_ms=20000, holding=[agent.holds(ghost)])
    assert [(d["operation"], d["attempt"], d["code"]) for d in answer["drops"]] == [(ghost["operation"], 1, "stale_attempt")]
    assert agent.exchange(holding=[agent.holds(ghost, "spooled")]).get("drops", []) == [], "the answer to its result says it"


def test_running_and_progress(gw, key, agent):
    op = submit(gw, key)
    lease, = agent.exchange()["leases"]
    assert gw.operation(op)["state"] == "leased"
    agent.exchange(holding=[agent.holds(lease, rows=17, bytes=1234)])
    doc = gw.operation(op)
    assert doc["state"] == "running" and doc["progress"] == {"rows": 17, "bytes": 1234} and doc["instance"] == agent.id
    assert doc["lease_until"] > doc["created_at"] and "runs on instance" in doc["why"]
    listed, = gw.api("GET", f"/agents/{key.agent}")["instances"]
    assert listed["id"] == agent.id and listed["holding"] == 1 and listed["slots"] == 18
    assert agent.put(lease)[0] == 200
    listed, = gw.api("GET", f"/agents/{key.agent}")["instances"]
    assert listed["holding"] == 0, "its result is here"


def test_cancel_reaches_a_held_exchange(gw, key, agent):
    op = submit(gw, key)
    lease, = agent.exchange()["leases"]
    holding = [agent.holds(lease)]
    agent.exchange(holding=holding)
    poll = agent.hold(holding=holding)
    time.sleep(0.1)  # not needed for the result, only so that it is often held by now
    r = gw.request("POST", f"/api/v1/operations/{op['id']}/cancel", {"reason": "no longer needed"})
    assert r.status == 202
    cancel, = poll.result(1 * SLOW)["cancels"]
    assert cancel["operation"] == op["id"] and cancel["attempt"] == 1 and cancel["code"] == "cancelled"
    assert "no longer needed" in cancel["reason"]
    start, n = time.monotonic(), 0  # it needs a while to stop: it is told again, but its exchanges do not spin
    while time.monotonic() - start < 3:
        assert agent.exchange(wait_ms=1000, holding=holding)["cancels"]
        n += 1
    assert n <= 5
    assert agent.put(lease, status="cancelled")[0] == 200
    doc = gw.operation(op)
    assert doc["state"] == "cancelled" and doc["error"]["code"] == "cancelled"
    assert gw.request("POST", f"/api/v1/operations/{op['id']}/cancel").status == 200


def test_deadline_reaches_a_held_exchange(gw, key, agent):
    op = submit(gw, key, deadline_s=1)
    lease, = agent.exchange()["leases"]
    answer = agent.exchange(wait_ms=20000, holding=[agent.holds(lease)])
    cancel, = answer["cancels"]
    assert cancel["code"] == "deadline_exceeded"
    assert agent.put(lease, status="expired", error={"code": "deadline_exceeded", "message": "too late"})[0] == 200
    assert gw.operation(op)["state"] == "expired"


def test_an_operation_nobody_takes_expires(gw, key):
    op = gw.wait(submit(gw, key, deadline_s=1), timeout=20)
    assert op["state"] == "expired" and op["error"]["code"] == "deadline_exceeded" and "before any agent" in op["why"]


def test_released_attempts_go_to_another_instance_at_once(gw, key, agent):
    op = submit(gw, key)
    lease, = agent.exchange()["leases"]
    other = Instance(gw, key)
    other.connect()
    poll = held(gw, other)
    start = time.monotonic()
    agent.exchange(draining=True, released=[{"operation": op["id"], "attempt": 1, "reason": "the pod moves"}])
    second, = poll.result(1 * SLOW)["leases"]
    assert time.monotonic() - start < 1 * SLOW and second["operation"] == op["id"] and second["attempt"] == 2
    assert events(gw, op) == ["accepted", "leased", "released", "leased"]
    assert agent.put(lease)[0] == 409, "the first attempt is no longer current"
    assert other.put(second)[0] == 200
    assert events(gw, op)[-2:] == ["result_refused", "succeeded"]


def test_goodbye_gives_back_at_once(gw, key, agent):
    ops = submit(gw, key, 3)
    assert len(agent.exchange()["leases"]) == 3
    other = Instance(gw, key)
    other.connect()
    poll = held(gw, other)
    agent.exchange(wait_ms=30000, goodbye=True, draining=True)
    assert {x["operation"] for x in poll.result(1 * SLOW)["leases"]} == {op["id"] for op in ops}
    assert [i["id"] for i in gw.api("GET", f"/agents/{key.agent}")["instances"]] == [other.id]


def test_a_second_exchange_ends_the_first(gw, key, agent):
    first = held(gw, agent)
    second = agent.hold()
    assert first.result(2 * SLOW).get("leases", []) == []
    submit(gw, key)
    assert len(second.result(2 * SLOW)["leases"]) == 1


def test_a_client_that_left_gets_no_work(gw, key):
    """The connection of a held exchange breaks: work goes to the instance that is there."""
    dead, alive = Instance(gw, key, slots=18), Instance(gw, key, slots=1)
    dead.connect()
    body = json.dumps(dead.said(40000)).encode()
    with socket.create_connection(("127.0.0.1", gw.port)) as s:
        s.sendall(f"POST /agent/v1/exchange HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {auth_of(key)}\r\n"
                  f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: gw.api("GET", f"/agents/{key.agent}")["connected"], 5)
    wait_until(lambda: not gw.api("GET", f"/agents/{key.agent}")["connected"], 5, "the gateway notices")
    alive.connect()
    poll = held(gw, alive)
    submit(gw, key)
    assert len(poll.result(2 * SLOW)["leases"]) == 1


def test_disabled_agents_get_nothing(gw, key, agent):
    gw.api("POST", f"/agents/{key.agent}/disable")
    op = submit(gw, key)
    assert agent.exchange()["enabled"] is False
    answer = agent.exchange()
    assert answer["enabled"] is False and answer.get("leases", []) == []
    assert "is disabled" in gw.operation(op)["why"]
    assert json.loads(agent.request("GET", "/agent/v1/ping")[2])["enabled"] is False
    poll = held(gw, agent)
    gw.api("POST", f"/agents/{key.agent}/enable")
    answer = poll.result(1 * SLOW)
    assert answer["enabled"] is True and [x["operation"] for x in answer["leases"]] == [op["id"]]
    poll = agent.hold(holding=[agent.holds(answer["leases"][0])])
    gw.api("POST", f"/agents/{key.agent}/disable")
    assert poll.result(2 * SLOW)["enabled"] is False
    assert agent.put(answer["leases"][0])[0] == 200, "what it has it may finish"


def test_agents_do_not_see_each_other(gw, key, agent):
    op = submit(gw, key)
    lease, = agent.exchange()["leases"]
    stranger = Instance(gw, gw.agent(next(names)))
    assert stranger.connect().get("leases", []) == []
    assert stranger.put(lease)[0] == 404
    stranger.exchange(released=[{"operation": op["id"], "attempt": 1}])
    answer = stranger.exchange(holding=[stranger.holds(lease)])
    assert [d["operation"] for d in answer["drops"]] == [op["id"]]
    assert events(gw, op) == ["accepted", "leased"]
    thief = Instance(gw, stranger.key, id=agent.id)
    assert thief.exchange(expect=409)["error"]["code"] == "conflict"
    # a result that names a foreign instance leases nothing to it
    mine = submit(gw, stranger.key, 2)
    own = stranger.exchange()["leases"]
    stranger.exchange(draining=True, released=[{"operation": mine[1]["id"], "attempt": 1}])
    code, answer = stranger.put(own[0], instance=agent.id)
    assert code == 200 and answer.get("leases", []) == []
    assert gw.operation(op)["state"] == "leased"


def test_revoked_keys_and_deleted_agents_end(gw, key, agent):
    second = Instance(gw, gw.key(key.agent))
    second.connect()
    gw.api("DELETE", f"/keys/{second.key.id}")
    assert second.exchange(expect=401)["error"]["code"] == "unauthenticated"
    poll = held(gw, agent)
    gw.api("DELETE", f"/agents/{key.agent}")
    assert_unauthenticated(poll)


def assert_unauthenticated(poll):
    with pytest.raises(AssertionError, match="401"):
        poll.result(2 * SLOW)


# --- results

def test_result_with_a_small_body(gw, key, agent):
    op = submit(gw, key)
    lease, = agent.exchange()["leases"]
    body = b'[1,"a"]\n[2,"b"]\n'
    columns = [{"name": "n", "type": "int64", "nullable": False}, {"name": "t", "type": "text", "nullable": True}]
    code, answer = agent.put(lease, body, rows=2, columns=columns, body_encoding="identity", started_at=int(time.time() * 1000))
    assert code == 200 and answer == {"accepted": True}
    doc = gw.operation(op)
    result = doc["result"]
    assert result["rows"] == 2 and result["bytes"] == len(body) and [c["name"] for c in result["columns"]] == ["n", "t"]
    assert result["body"]["size"] == len(body) and result["body"]["sha256"] == hashlib.sha256(body).hexdigest()
    assert events(gw, op) == ["accepted", "leased", "started", "succeeded"]
    r = request("GET", gw.url + result["body"]["href"], token=gw.token)
    assert r.status == 200 and r.body == body and r.headers["X-Postern-SHA256"] == hashlib.sha256(body).hexdigest()
    assert gw.rows(op) == [[1, "a"], [2, "b"]]


def test_result_with_a_document_has_no_body(gw, key, agent):
    op = submit(gw, key)
    lease, = agent.exchange()["leases"]
    assert agent.put(lease, document={"ok": True, "nested": [1, 2.5, None]})[0] == 200
    assert gw.operation(op)["result"]["document"] == {"ok": True, "nested": [1, 2.5, None]}
    r = gw.request("GET", f"/api/v1/operations/{op['id']}/result")
    assert r.status == 404 and "no body" in r.json()["error"]["message"]


def test_failed_result(gw, key, agent):
    op = submit(gw, key)
    lease, = agent.exchange()["leases"]
    error = {"code": "source_auth_failed", "message": "no", "hint": "look", "native_code": "28P01", "retryable": False}
    assert agent.put(lease, status="failed", error=error)[0] == 200
    doc = gw.operation(op)
    assert doc["state"] == "failed" and doc["error"] == error and doc["why"] == "no"


def test_result_before_its_end(gw, key):
    r = gw.request("GET", f"/api/v1/operations/{submit(gw, key)['id']}/result")
    assert r.status == 404 and "wait" in r.json()["error"]["hint"]


@pytest.mark.parametrize("size", [1000, 300_000], ids=["inline", "file"])
def test_zstd_result_in_both_forms(gw, key, agent, size):
    op = submit(gw, key)
    lease, = agent.exchange()["leases"]
    plain = b"".join(b'[%d,"row"]\n' % n for n in range(size // 10))
    packed = subprocess.run(["zstd", "-q", "-1", "-c"], input=plain, stdout=subprocess.PIPE, check=True).stdout
    if size > 1000:  # in several frames, stored larger than what the database takes
        packed = b"".join(subprocess.run(["zstd", "-q", "--fast=50", "-c"], input=plain[n:n + 9000], stdout=subprocess.PIPE, check=True).stdout
                          for n in range(0, len(plain), 9000))
        assert len(packed) > 32 * 1024
    head = {"body_encoding": "zstd", "bytes": len(plain), "body_sha256": hashlib.sha256(plain).hexdigest()}
    assert agent.put(lease, packed, **head)[0] == 200
    path = f"/api/v1/operations/{op['id']}/result"
    r = gw.request("GET", path)
    assert r.body == plain and "Content-Encoding" not in r.headers and r.headers["Vary"] == "Accept-Encoding"
    r = gw.request("GET", path, headers={"Accept-Encoding": "gzip, zstd"})
    assert r.body == packed and r.headers["Content-Encoding"] == "zstd"
    assert gw.request("GET", path, headers={"Accept-Encoding": "zstd;q=0"}).body == plain


@pytest.mark.parametrize("size", [5000, 300_000], ids=["inline", "file"])
def test_damaged_results_are_refused(gw, key, agent, size):
    op = submit(gw, key)
    lease, = agent.exchange()["leases"]
    plain = random.Random(1).randbytes(size)
    packed = subprocess.run(["zstd", "-q", "-c"], input=plain, stdout=subprocess.PIPE, check=True).stdout
    sha = hashlib.sha256(plain).hexdigest()
    n_blobs = len(blobs(gw))
    flipped = packed[:99] + bytes([packed[99] ^ 1]) + packed[100:]
    for body, n, digest in [(packed, 0, sha), (packed, size - 1, sha), (packed, size + 1, sha), (packed, size, "0" * 64), (packed[:-5], size, sha),
                            (packed + b"x", size, sha), (flipped, size, sha), (plain, size, sha)]:
        code, answer = agent.put(lease, body, body_encoding="zstd", bytes=n, body_sha256=digest)
        assert code == 400 and answer["error"]["code"] == "invalid_request"
    assert agent.put(lease, plain, body_sha256="0" * 64)[0] == 400
    assert gw.operation(op)["state"] == "leased"
    wait_until(lambda: len(blobs(gw)) == n_blobs, 5 * SLOW, "nothing of them stays")
    assert agent.put(lease, packed, body_encoding="zstd", bytes=size, body_sha256=sha)[0] == 200
    assert gw.request("GET", f"/api/v1/operations/{op['id']}/result").body == plain


def test_zstd_result_of_nothing(gw, key, agent):
    op = submit(gw, key)
    lease, = agent.exchange()["leases"]
    packed = subprocess.run(["zstd", "-q", "-c"], input=b"", stdout=subprocess.PIPE, check=True).stdout
    assert agent.put(lease, packed, body_encoding="zstd", bytes=0, body_sha256=hashlib.sha256(b"").hexdigest())[0] == 200
    r = gw.request("GET", f"/api/v1/operations/{op['id']}/result")
    assert r.status == 200 and r.body == b""


def blobs(gw):
    return list((gw.home / "blobs").rglob("blob_*"))


class Stream:
    """A result of any size as http.client reads it."""

    def __init__(self, head, line, count):
        self.parts = [head, *[line] * count]

    def __iter__(self):
        return iter(self.parts)


def test_40_megabytes_stream_through(gw, key, agent):
    op = submit(gw, key)
    lease, = agent.exchange()["leases"]
    line = b'[1,"%s"]\n' % (b"x" * 4000) * 16
    count = 40_000_000 // len(line) + 1
    sha = hashlib.sha256()
    for _ in range(count):
        sha.update(line)
    size = len(line) * count
    head = json.dumps(head_of(agent.id, b"", body_format="jsonl", body_size=size, bytes=size, body_sha256=sha.hexdigest())).encode() + b"\n"
    before = len(blobs(gw))
    reset_peak_rss(gw.pid)
    code, _, answer = agent.put_raw(op["id"], lease["attempt"], Stream(head, line, count), {"Content-Length": str(len(head) + size)})
    assert code == 200, answer
    assert len(blobs(gw)) == before + 1
    got, n = hashlib.sha256(), 0

    def take(data):
        nonlocal n
        got.update(data)
        n += len(data)

    r = gw.request("GET", f"/api/v1/operations/{op['id']}/result", on_data=take)
    assert r.status == 200 and n == size and got.hexdigest() == sha.hexdigest()
    if not sanitized():
        assert peak_rss(gw.pid) < 64 << 20
    # the same again: accepted, and nothing of it stays
    code, _, answer = agent.put_raw(op["id"], lease["attempt"], Stream(head, line, count), {"Content-Length": str(len(head) + size)})
    assert code == 200 and json.loads(answer)["duplicate"] is True
    wait_until(lambda: len(blobs(gw)) == before + 1, 5, "the second copy is gone")


def test_wrong_results_are_refused(gw, key, agent):
    op = submit(gw, key)
    lease, = agent.exchange()["leases"]
    n_blobs = len(blobs(gw))

    def put(head, body=b"", **kw):
        if isinstance(head, dict):
            head = json.dumps(head).encode()
        return agent.put_raw(op["id"], 1, head + b"\n" + body, **kw)

    good = head_of(agent.id, b"[1]\n")
    big = b"x" * 100_000
    cases = [
        (b"", b""), (b"[]", b""), (b"{}", b""), (b"not json", b""), (b"{\"instance\":", b""), (b"\xff\xfe", b""),
        ({**good, "status": "running"}, b"[1]\n"), ({**good, "status": "queued"}, b"[1]\n"), ({**good, "more": 1}, b"[1]\n"),
        ({**good, "status": "failed"}, b"[1]\n"), ({**good, "body_format": "csv"}, b"[1]\n"),
        ({**good, "body_encoding": "gzip"}, b"[1]\n"), ({**good, "body_size": 5}, b"[1]\n"), ({**good, "body_size": 3}, b"[1]\n"),
        ({**good, "body_size": -1}, b"[1]\n"), ({**good, "rows": -1}, b"[1]\n"), ({**good, "body_sha256": "ab"}, b"[1]\n"),
        ({k: v for k, v in good.items() if k != "body_format"}, b"[1]\n"), ({**good, "body_size": 1 << 60}, b"[1]\n"),
        ({**good, "body_size": len(big) + 1}, big), ({**good, "body_size": len(big) - 1}, big), (good, b""),
    ]
    for head, body in cases:
        status, _, text = put(head, body)
        assert status == 400, (head, status, text)
        assert json.loads(text)["error"]["code"] == "invalid_request"
    status, _, text = put(b'{"instance":"' + b"x" * (1 << 20) + b'"}')
    assert status in (400, 413)
    agent.close()
    for op_id, attempt, want in [(new_id("op"), 1, 404), ("op_x", 1, 404), (op["id"], 0, 404), (op["id"], "x", 404), (op["id"], -1, 404),
                                 (op["id"], "1x", 404), (op["id"], 10**20, 404), (op["id"], 2, 409), (lease["operation"] + "x", 1, 404)]:
        data = json.dumps(good).encode() + b"\n[1]\n"
        status, _, text = agent.put_raw(op_id, attempt, data)
        assert status == want, (op_id, attempt, status, text)
    status, _, _ = agent.put_raw(op["id"], 1, iter([json.dumps(good).encode() + b"\n", b"[1]\n"]), {"Transfer-Encoding": "chunked"})
    assert status == 400, "Content-Length is required"
    agent.close()
    assert gw.operation(op)["state"] == "leased"
    assert len(blobs(gw)) == n_blobs, "refused results leave no file"
    assert put(good, b"[1]\n")[0] == 200


def auth_of(key):
    return base64.b64encode(":".join(key.basic).encode()).decode()


@pytest.mark.parametrize("body", [b"[1]\n" * 10, b"[1]\n" * 100_000], ids=["inline", "file"])
def test_truncated_upload_leaves_nothing(gw, key, agent, body):
    op = submit(gw, key)
    lease, = agent.exchange()["leases"]
    n_blobs = len(blobs(gw))
    head = json.dumps(head_of(agent.id, body)).encode() + b"\n"
    for _ in range(10):  # the end of the stream comes together with the last bytes, or after them
        with socket.create_connection(("127.0.0.1", gw.port)) as s:
            s.sendall(f"PUT /agent/v1/operations/{op['id']}/attempts/1/result HTTP/1.1\r\nHost: x\r\n"
                      f"Authorization: Basic {auth_of(key)}\r\nContent-Length: {len(head) + len(body)}\r\n\r\n".encode()
                      + head + body[:len(body) // 2])
            if len(body) > 32768:
                wait_until(lambda: len(blobs(gw)) == n_blobs + 1, 5, "it streams into a file")
        wait_until(lambda: len(blobs(gw)) == n_blobs, 5 * SLOW, "the part is gone")
    assert gw.operation(op)["state"] == "leased"
    assert agent.put(lease, body)[0] == 200


def test_repeated_and_late_results(gw, key, agent):
    op = submit(gw, key)
    lease, = agent.exchange()["leases"]
    assert agent.put(lease, b"[1]\n") == (200, {"accepted": True})
    for _ in range(3):
        assert agent.put(lease, b"[2]\n") == (200, {"accepted": True, "duplicate": True})
    assert gw.rows(op) == [[1]]
    code, answer = agent.put(lease, attempt=2)
    assert code == 409 and answer["error"]["code"] == "stale_attempt"
    assert events(gw, op) == ["accepted", "leased", "succeeded", "result_refused"]


def test_result_of_a_cancelled_agent_delete(gw, key, agent):
    op = submit(gw, key)
    lease, = agent.exchange()["leases"]
    assert gw.request("DELETE", f"/api/v1/agents/{key.agent}").status == 409
    assert gw.request("DELETE", f"/api/v1/agents/{key.agent}?force=true").status == 200
    doc = gw.operation(op)
    assert doc["state"] == "cancelled" and "deleted" in doc["why"]
    assert agent.put(lease)[0] == 401


def test_a_result_by_the_next_process_leases_nothing_to_the_dead_one(gw, key):
    """An agent was killed and starts again with its spool: the head of the result names the dead instance."""
    first = Instance(gw, key, slots=2)
    submit(gw, key, 4)
    lease = first.connect()["leases"][0]
    body = json.dumps(first.said(40000, holding=[first.holds(lease)])).encode()
    with socket.create_connection(("127.0.0.1", gw.port)) as s:
        s.sendall(f"POST /agent/v1/exchange HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {auth_of(key)}\r\n"
                  f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: gw.operation({"id": lease["operation"]})["state"] == "running", 5)
    wait_until(lambda: not gw.api("GET", f"/agents/{key.agent}")["connected"], 5)
    second = Instance(gw, key, slots=2)
    code, answer = second.put(lease, instance=first.id)
    assert code == 200 and answer.get("leases", []) == []
    assert len(second.exchange()["leases"]) == 2


# --- crashes and the end

@pytest.mark.limit(180)
def test_kill_9_loses_nothing_acknowledged(stack):
    gw = stack.gateway()
    key = gw.agent("warehouse")
    agent = Instance(gw, key, slots=4)
    agent.connect()
    for round in range(4):
        ops = submit(gw, key, 6, idempotency_key=None) if round == 0 else submit(gw, key, 6)
        leases = agent.exchange()["leases"]
        big = b"[1]\n" * 20_000
        assert agent.put(leases[0], b"[7]\n")[0] == 200
        assert agent.put(leases[1], big)[0] == 200
        last = submit(gw, key)
        gw.kill()
        gw.restart()
        docs = {op["id"]: gw.operation(op) for op in [*ops, last]}
        assert docs[last["id"]]["state"] in ("queued", "leased")
        assert gw.rows({"id": leases[0]["operation"]}) == [[7]]
        assert gw.request("GET", f"/api/v1/operations/{leases[1]['operation']}/result").body == big
        # the leases are still there, with a full period; their results count
        for lease in leases[2:4]:
            assert gw.operation({"id": lease["operation"]})["state"] == "leased"
            assert agent.put(lease)[0] == 200
        rest = [*agent.exchange().get("leases", [])]
        deadline = time.monotonic() + 20
        while rest or [o for o in docs if gw.operation({"id": o})["state"] in ("queued", "leased")]:
            assert time.monotonic() < deadline
            for lease in rest:
                agent.put(lease)
            rest = agent.exchange(wait_ms=500).get("leases", [])
        assert {gw.operation({"id": o})["state"] for o in docs} == {"succeeded"}


def failing_sync(stack):
    """A gateway whose commits fail while the file `failing` is there (failing_sync.c), and an operation that is leased."""
    failing = stack.home / "failing"
    gw = stack.gateway(env={"LD_PRELOAD": BIN.parents[2] / "tests/libfailing_sync.so", "FAILING_SYNC": failing})
    agent = Instance(gw, gw.agent("warehouse"))
    agent.connect()
    waiting = agent.hold()
    op = gw.submit("health", agent="warehouse")
    lease, = waiting.result(10)["leases"]
    return failing, gw, agent, op, lease


@pytest.mark.skipif(sanitized(), reason="a sanitizer's runtime wants to be the first library")
def test_a_commit_whose_sync_fails_keeps_the_body(stack):
    """The commit is refused, but it may be on the disk: after a crash its row is there, and so must be the file with the body."""
    failing, gw, agent, op, lease = failing_sync(stack)
    body = b"[1]\n" * 100000
    failing.touch()
    for _ in range(3):
        status, doc = agent.put(lease, body)
        assert status == 500, doc
    gw.kill()
    assert len(blobs(gw)) == 3
    failing.unlink()
    gw.restart()
    agent.close()
    status, doc = agent.put(lease, body)
    assert status == 200, doc
    wait_until(lambda: len(blobs(gw)) == 1, 5, "the others are gone")
    assert gw.operation(op)["state"] == "succeeded"
    assert gw.request("GET", f"/api/v1/operations/{op['id']}/result").body == body


@pytest.mark.skipif(sanitized(), reason="a sanitizer's runtime wants to be the first library")
def test_bodies_of_failed_commits_go_with_the_next_one(stack):
    failing, gw, agent, op, lease = failing_sync(stack)
    body = b"[1]\n" * 100000
    full = failing.with_name("failing.full")
    full.touch()
    for _ in range(3):
        assert agent.put(lease, body)[0] == 503
        assert len(blobs(gw)) == 0, "a full disk needs the room, and nothing of that commit counts"
    full.unlink()
    failing.touch()
    for _ in range(3):
        assert agent.put(lease, body)[0] == 500
    assert len(blobs(gw)) == 3
    while (status := agent.put(lease, body)[0]) == 500:
        assert len(blobs(gw)) <= 16
    assert status == 503, "they do not fill the disk"
    failing.unlink()
    gw.submit("health", agent="warehouse")
    wait_until(lambda: len(blobs(gw)) == 0, 5, "any commit makes sure")
    assert agent.put({"operation": new_id("op"), "attempt": 1}, body)[0] == 404
    assert len(blobs(gw)) == 0, "what is refused leaves nothing"
    assert agent.put(lease, body)[0] == 200
    assert len(blobs(gw)) == 1
    assert gw.request("GET", f"/api/v1/operations/{op['id']}/result").body == body


def test_sigterm_answers_what_waits_and_ends(stack):
    gw = stack.gateway()
    keys = [gw.agent(f"a{n}") for n in range(3)]
    agents = [Instance(gw, k) for k in keys for _ in range(4)]
    for a in agents:
        a.connect()
    polls = [held(gw, a) for a in agents]
    op = submit(gw, keys[0])
    lease = wait_until(lambda: next((p for p in polls[:4] if not p.waiting), None), 5).result(1)["leases"][0]
    waiting = Held(lambda: gw.operation(op, wait=50))
    polls = [p for p in polls if p.waiting]
    wait_until(lambda: metric(gw, "http_held") >= len(polls) + 1, 5, "everything is held")
    start = time.monotonic()
    gw.send(signal.SIGTERM)
    for p in polls:
        answer = p.result(3 * SLOW)
        assert answer["enabled"] is True and answer.get("leases", []) == []
    assert waiting.result(3 * SLOW)["state"] == "leased"
    assert gw.popen.wait(5 * SLOW) == 0
    assert time.monotonic() - start < 2 * SLOW
    gw.restart()
    agent = next(a for a in agents if a.id == gw.operation(op)["instance"])
    assert agent.put(lease)[0] == 200


def test_sigterm_while_exchanges_come_and_go(stack):
    """Two requests of each instance end one another all the time, so that some are with the writer when the signal comes."""
    gw = stack.gateway()
    key = gw.agent("warehouse")
    for round in range(8):
        agents = [Instance(gw, key, slots=1) for _ in range(6)]
        before = metric(gw, "exchanges_total")

        def poller(agent):
            while True:
                try:
                    agent.exchange(wait_ms=40000)
                except Exception:  # noqa: the gateway has ended
                    return

        threads = [Held(lambda a=a: poller(a)) for a in agents for _ in range(2)]
        wait_until(lambda: metric(gw, "exchanges_total") > before + 200, 20)
        start = time.monotonic()
        gw.send(signal.SIGTERM)
        assert gw.popen.wait(20) == 0
        assert time.monotonic() - start < 3 * SLOW
        for t in threads:
            t.result(20)
        gw.restart()


@pytest.mark.parametrize("flags", [(), ("--stop-timeout", "0s")], ids=["patient", "at once"])
def test_sigterm_under_load(stack, flags):
    """Many requests at once while it stops: every answer that comes is true after the next start, and the process ends."""
    gw = stack.gateway(*flags)
    key = gw.agent("warehouse")
    for round in range(3):
        stop, accepted, errors = [], [], []
        agent = Instance(gw, key, slots=50)

        def submitter(n):
            mine = Instance(gw, key)
            while not stop:
                try:
                    status, _, body = mine.request("POST", "/api/v1/operations", json.dumps({"agent": key.agent, "type": "health", "input": {}}),
                                                   {"Authorization": f"Bearer {gw.token}"})
                except OSError:
                    return
                except Exception:  # noqa: the connection ended
                    return
                if status == 201:
                    accepted.append(json.loads(body)["id"])
                elif status != 503:
                    errors.append((status, body))

        def worker():
            while not stop:
                try:
                    for lease in agent.exchange(wait_ms=2000).get("leases", []):
                        agent.put(lease)
                except Exception:  # noqa: the connection ended
                    return

        threads = [Held(lambda n=n: submitter(n)) for n in range(6)] + [Held(worker) for _ in range(2)]
        wait_until(lambda: len(accepted) > 50, 30)
        gw.send(signal.SIGTERM)
        assert gw.popen.wait(15) == 0
        stop.append(True)
        for t in threads:
            t.result(75)
        assert not errors
        gw.restart()
        for op in accepted:
            assert gw.operation({"id": op})["state"] in ("queued", "leased", "succeeded")
