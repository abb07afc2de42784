"""Log lines of agents: none is lost within the outbox's bound, none comes twice, none says more than it may."""
import base64
import json
import re
import socket
import time

import pytest

from data_path import DataPath
from fake_agent import Held, Instance, new_id
from harness import wait_until


def pages(gw, path, size=7):
    """All log lines, page by page."""
    out, after = [], 0
    while True:
        doc = gw.api("GET", f"{path}?after={after}&limit={size}")
        out += doc["items"]
        after = doc["next"]
        if not doc["more"]:
            return out


def of(gw, op):
    return pages(gw, f"/operations/{op['id']}/logs")


def messages(lines):
    return [x["msg"] for x in lines]


def metric(agent, name):
    m = re.search(rf"^postern_agent_log_{name} (\S+)$", agent.local("GET", "/metrics").text, re.M)
    return float(m.group(1))


def waiting(agent):
    return metric(agent, "outbox_lines")


LIFE = ["operation started", "connected", "operation finished"]


@pytest.fixture(scope="module")
def pg(module_stack):
    return module_stack.postgres()


def test_a_query_tells_its_life(stack, pg):
    env = DataPath(stack, pg=pg)
    good, bad = env.query("SELECT 1"), env.query("SELECT nonsense")
    lines = wait_until(lambda: len(x := of(env.gw, good)) == 3 and x, 5, "the lines are here")
    assert messages(lines) == LIFE and {x["operation"] for x in lines} == {good["id"]} and {x["attempt"] for x in lines} == {1}
    assert [x["seq"] for x in lines] == sorted({x["seq"] for x in lines}) and lines[2]["fields"]["rows"] == "1"
    lines = wait_until(lambda: len(x := of(env.gw, bad)) == 3 and x, 5, "the lines are here")
    assert messages(lines) == [*LIFE[:2], "operation ended without success"] and lines[2]["fields"]["code"] == "query_failed"
    # for people and for programs
    shown = env.stack.ctl(env.gw, "operations", "logs", good["id"]).stdout
    assert [LIFE[i] in line and "attempt=1" in line for i, line in enumerate(shown.splitlines())] == [True] * 3, shown
    parsed = [json.loads(x) for x in env.stack.ctl(env.gw, "operations", "logs", bad["id"], "-o", "json").stdout.splitlines()]
    assert parsed == lines
    shown = env.stack.ctl(env.gw, "agents", "logs", "agent").stdout
    assert len(shown.splitlines()) == 6 and shown.count(f"operation={good['id']}") == 3, shown
    assert len(env.stack.ctl(env.gw, "agents", "logs", "agent", "-n", "2").stdout.splitlines()) == 2
    assert env.stack.ctl(env.gw, "agents", "logs", "agent", "--level", "warn").stdout == ""


def test_follow_ends_with_the_operation(stack, pg):
    env = DataPath(stack, pg=pg)
    op = env.submit("SELECT pg_sleep(2)")
    follow = Held(lambda: env.stack.ctl(env.gw, "operations", "logs", op["id"], "--follow"))
    out = follow.result(30).stdout
    assert env.gw.operation(op)["state"] == "succeeded"
    assert [LIFE[i] in line for i, line in enumerate(out.splitlines())] == [True] * 3, out


@pytest.mark.parametrize("what", ["off", "operations", "all"])
def test_what_leaves(stack, pg, what):
    """No line that the setting does not permit leaves, and no secret in any."""
    env = DataPath(stack, env={"POSTERN_SHIP_LOGS": what, "POSTERN_LOG_LEVEL": "debug"}, pg=pg)
    op = env.query("SELECT 1")
    env.agent.stop()
    env.agent.start()
    env.query("SELECT 2")
    if what != "off":
        wait_until(lambda: len(of(env.gw, op)) >= 3, 5, "lines")
        env.agent.until(lambda: waiting(env.agent) == 0, 10, "all have gone")
    lines = pages(env.gw, "/agents/agent/logs")
    if what == "off":
        assert lines == [] and not (env.agent.home / "spool" / "logs").exists()
    elif what == "operations":
        assert lines and all(x.get("operation") for x in lines)
    else:
        assert "agent started" in messages(lines) and "agent is stopping" in messages(lines)
    text = json.dumps(lines) + env.agent.text()
    for secret in (env.agent.key.secret, env.pg.connect_args()["password"]):
        assert len(secret) > 5 and secret not in text


def busy(env, n):
    """n operations whose ends wait in the spool; their lines wait in the outbox."""
    ops = [env.submit("SELECT pg_sleep(5)") for _ in range(n)]
    for op in ops:
        env.gw.wait(op, "running")
    return ops


def whole_lives(env, ops):
    """Every line of these operations is here once, in order."""
    for op in ops:
        lines = wait_until(lambda op=op: len(x := of(env.gw, op)) >= 3 and x, 40, "lines have come")
        assert messages(lines) == LIFE, lines
    lines = pages(env.gw, "/agents/agent/logs")
    by_instance = {}
    for x in lines:
        by_instance.setdefault(x["instance"], []).append(x["seq"])
    for seqs in by_instance.values():
        assert seqs == list(range(1, len(seqs) + 1)), seqs
    return by_instance


def test_gateway_is_away_and_the_agent_is_killed(stack, pg):
    env = DataPath(stack, pg=pg)
    ops = busy(env, 12)
    env.gw.kill()
    env.agent.wait_log(r"(?s)(operation finished.*){12}", 20)
    env.agent.until(lambda: metric(env.agent, "outbox_unflushed_lines") == 0 and waiting(env.agent) >= 12, 10, "the lines are on disk")
    env.agent.kill()
    stored = [p.read_bytes() for p in (env.agent.home / "spool" / "logs").glob("seg-*")]
    assert stored and not any(word in data for data in stored for word in (b"operation", b"msg", ops[0]["id"].encode())), "lines lie sealed"
    env.gw.restart()
    env.agent.start()
    more = [env.query("SELECT 1") for _ in range(3)]
    assert len(whole_lives(env, [*ops, *more])) == 2
    env.agent.until(lambda: waiting(env.agent) == 0, 10, "the outbox is empty")
    # killed once more, with lines delivered but their segment still there: they are sent again, and known
    env.agent.kill()
    env.agent.start()
    env.agent.until(lambda: waiting(env.agent) == 0, 10, "the outbox is empty")
    assert len(whole_lives(env, [*ops, *more])) == 2


# --- the intake

@pytest.fixture(scope="module")
def gw(module_stack):
    return module_stack.gateway()


def line(seq, msg="hello", level="info", at=None, **fields):
    return {"seq": seq, "at": at or int(time.time() * 1000), "level": level, "msg": msg, "fields": fields}


def ship(agent, lines, expect=200, instance=None):
    status, _, body = agent.request("POST", "/agent/v1/logs", json.dumps({"instance": instance or agent.id, "lines": lines}),
                                    {"Content-Type": "application/json"})
    assert status == expect, (status, body)
    doc = json.loads(body)
    return (doc["accepted"], doc.get("duplicates", 0), doc.get("ignored", 0)) if status == 200 else doc["error"]


def test_intake_stores_each_line_once(gw):
    agent = Instance(gw, gw.agent("once"))
    assert ship(agent, [line(n, f"m{n}") for n in range(1, 21)]) == (20, 0, 0)
    assert ship(agent, [line(n, f"m{n}") for n in range(1, 21)]) == (0, 20, 0)
    assert ship(agent, [line(n, f"m{n}") for n in range(15, 26)]) == (5, 6, 0)
    assert ship(agent, [line(40, "m40")]) == (1, 0, 0), "a gap is not the gateway's concern"
    assert ship(agent, [line(1, "other process")], instance=new_id("in")) == (1, 0, 0)
    assert messages(pages(gw, "/agents/once/logs")) == [*(f"m{n}" for n in range(1, 26)), "m40", "other process"]
    other = Instance(gw, gw.agent("other"), id=agent.id)
    assert ship(other, [line(1, "same instance id, another agent")]) == (1, 0, 0)
    assert ship(agent, []) == (0, 0, 0)
    assert "does not come after" in ship(agent, [line(50), line(50)], expect=400)["message"]
    assert "instance" in ship(agent, [line(1)], expect=400, instance="op_" + "0" * 26)["message"]


def test_lines_about_operations_of_others_are_ignored(gw):
    agent, other = Instance(gw, gw.agent("mine")), Instance(gw, gw.agent("theirs"))
    op = gw.submit("health", agent="theirs")
    assert ship(agent, [line(1, operation=op["id"]), line(2, "fine"), line(3, operation="op_" + "0" * 26), line(4, operation="' OR 1")]) == (1, 0, 3)
    assert of(gw, op) == [] and messages(pages(gw, "/agents/mine/logs")) == ["fine"]
    assert ship(other, [line(1, "ours", operation=op["id"], attempt="1", x="y")]) == (1, 0, 0)
    (got,) = of(gw, op)
    assert (got["msg"], got["attempt"], got["fields"], got["instance"]) == ("ours", 1, {"x": "y"}, other.id)


def test_pages_levels_and_the_newest(gw):
    agent = Instance(gw, gw.agent("pages"))
    levels = ["debug", "info", "warn", "error"]
    for first in range(1, 101, 10):
        ship(agent, [line(n, f"m{n}", levels[n % 4]) for n in range(first, first + 10)])
    path = "/agents/pages/logs"
    assert messages(pages(gw, path)) == [f"m{n}" for n in range(1, 101)]
    newest = gw.api("GET", f"{path}?limit=15")
    assert messages(newest["items"]) == [f"m{n}" for n in range(86, 101)]
    assert gw.api("GET", f"{path}?after={newest['next']}")["items"] == []
    warn = gw.api("GET", f"{path}?after=0&level=warn&limit=500")["items"]
    assert messages(warn) == [f"m{n}" for n in range(1, 101) if n % 4 >= 2]
    ids = [x["id"] for x in gw.api("GET", f"{path}?after=0&limit=500")["items"]]
    assert ids == sorted(set(ids))


def test_wait_holds_until_a_line_comes(gw):
    agent = Instance(gw, gw.agent("wait"))
    quiet = Instance(gw, gw.agent("quiet"))
    op = gw.submit("health", agent="wait")
    held = [Held(lambda: gw.api("GET", "/agents/wait/logs?after=0&wait=30", timeout=40)),
            Held(lambda: gw.api("GET", f"/operations/{op['id']}/logs?after=0&wait=30", timeout=40))]
    short = Held(lambda: gw.api("GET", "/agents/quiet/logs?after=0&wait=1"))
    time.sleep(0.3)
    assert all(h.waiting for h in held)
    ship(agent, [line(1, "about none")])
    assert messages(held[0].result(5)["items"]) == ["about none"] and held[1].waiting
    ship(agent, [line(2, "about it", operation=op["id"])])
    answer = held[1].result(5)
    assert messages(answer["items"]) == ["about it"] and answer["ended"] is False
    assert short.result(5)["items"] == []
    ship(quiet, [line(1)])


def test_gateway_is_killed_after_the_commit_and_before_the_answer(stack):
    gw = stack.gateway()
    agent = Instance(gw, gw.agent("warehouse"))
    lines = [line(n, f"m{n}") for n in range(1, 51)]
    body = json.dumps({"instance": agent.id, "lines": lines}).encode()
    with socket.create_connection(("127.0.0.1", gw.port)) as s:  # asks, and never reads the answer
        head = ["POST /agent/v1/logs HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}",
                "Authorization: Basic " + base64.b64encode(":".join(agent.key.basic).encode()).decode()]
        s.sendall("\r\n".join([*head, "", ""]).encode() + body)
        wait_until(lambda: len(pages(gw, "/agents/warehouse/logs")) == 50, 10, "committed")
        gw.kill()
    gw.restart()
    assert ship(agent, lines) == (0, 50, 0)
    assert ship(agent, [line(51, "m51")]) == (1, 0, 0)
    assert messages(pages(gw, "/agents/warehouse/logs")) == [f"m{n}" for n in range(1, 52)]


def test_retention_by_bytes_and_age(stack):
    gw = stack.gateway("--log-max-bytes", "1M", "--log-retention", "15s")
    agent = Instance(gw, gw.agent("warehouse"))
    seq = 0
    for _ in range(30):  # 100 KB each
        ship(agent, [line(seq + n, "x" * 10000) for n in range(1, 11)])
        seq += 10
    lines = pages(gw, "/agents/warehouse/logs", size=500)
    assert lines[-1]["seq"] == seq and 90 <= len(lines) < 105 and lines[0]["seq"] == seq - len(lines) + 1
    wait_until(lambda: pages(gw, "/agents/warehouse/logs", size=500) == [], 40, "old lines are gone")
    gw.stop()
    gw.restart()
    ship(agent, [line(seq + 1, "later")])
    assert messages(gw.api("GET", f"/agents/warehouse/logs?after={lines[-1]['id']}")["items"]) == ["later"], "one who follows misses nothing"


@pytest.mark.parametrize("damage", [lambda f: f.write_bytes(b"no database " * 1000),
                                    lambda f: f.write_bytes(f.read_bytes()[:5000] + b"x" * 30000)], ids=["foreign", "pages"])
def test_a_damaged_file_keeps_no_operation_waiting(stack, damage):
    gw = stack.gateway()
    agent = Instance(gw, gw.agent("warehouse"))
    for n in range(1, 400, 10):
        ship(agent, [line(n + m, "x" * 300) for m in range(10)])
    op = gw.submit("health", agent="warehouse")
    gw.stop()
    (path,) = gw.home.glob("gateway.db.logs")
    damage(path)
    gw.restart()
    assert gw.operation(op)["state"] == "queued"
    assert gw.home.joinpath("gateway.db.logs.damaged").exists() and "kept aside" in gw.text()
    assert pages(gw, "/agents/warehouse/logs") == []
    assert ship(agent, [line(1, "again")]) == (1, 0, 0)


def test_an_agent_that_floods_is_slowed_and_nobody_else(stack):
    """Many batches at once: each is stored, or refused for now and sent again; operations go on."""
    gw = stack.gateway()
    agents = [Instance(gw, gw.agent(f"a{n}")) for n in range(6)]

    def flood(agent):
        for first in range(1, 8001, 400):
            batch = [line(n, "y" * 400) for n in range(first, first + 400)]
            wait_until(lambda: agent.request("POST", "/agent/v1/logs", json.dumps({"instance": agent.id, "lines": batch}),
                                             {"Content-Type": "application/json"})[0] == 200, 30)

    floods = [Held(lambda a=a: flood(a)) for a in agents]
    slowest = 0
    while any(f.waiting for f in floods):
        begin = time.monotonic()
        gw.submit("health", agent="a0")
        slowest = max(slowest, time.monotonic() - begin)
    for f in floods:
        f.result(60)
    assert slowest < 5
    for n in range(6):
        assert [x["seq"] for x in pages(gw, f"/agents/a{n}/logs", size=500)] == list(range(1, 8001))
