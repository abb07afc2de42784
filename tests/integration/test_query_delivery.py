"""Slots, drains and crashes on the path of a `query`: what waits says why, what was acknowledged is delivered, nothing runs twice that
did not have to.  Statements that write a row when they run are the witnesses."""
import re
import signal
import time

import pytest

from data_path import DataPath
from harness import wait_until


class Env(DataPath):
    def work(self, name, seconds, **fields):
        """Submit a statement that takes so long and leaves a row."""
        return self.submit("WITH s AS MATERIALIZED (SELECT pg_sleep($2::float8)) INSERT INTO ran SELECT $1 FROM s RETURNING id",
                           [name, seconds], mode="write", **fields)

    def ran(self, name):
        return self.pg.sql("SELECT count(*) FROM ran WHERE id = %s", (name,))[0][0]

    def spooled(self):
        """Results that wait in the agent's spool."""
        return self.agent.local("GET", "/api/v1/test/health").json()["spool"]["entries"]

    def delivered(self, op, name, attempt=1, **kw):
        op = self.gw.wait(op, **kw)
        assert (op["state"], op["attempt"], op["result"]["affected"]) == ("succeeded", attempt, 1), op
        assert self.gw.rows(op) == [[name]] and self.ran(name) == 1
        return op


@pytest.fixture(scope="module")
def pg(module_stack):
    pg = module_stack.postgres()
    pg.sql("CREATE TABLE ran (id text); ALTER TABLE ran OWNER TO app")
    return pg


@pytest.fixture
def env(stack, pg):
    pg.sql("TRUNCATE ran")
    return Env(stack, pg=pg)


def event(op, name):
    return [e["at"] for e in op["events"] if e["event"] == name]


def test_twenty_operations_on_eighteen_slots(env):
    ops = [env.submit(f"SELECT pg_sleep(6), {i}") for i in range(20)]
    wait_until(lambda: len(env.pg.activity("%pg_sleep(6)%")) == 18, 5, "18 statements run")
    states = [env.gw.operation(op)["state"] for op in ops]
    assert states.count("queued") == 2 and set(states[:18]) <= {"leased", "running"}, states
    assert states[18:] == ["queued"] * 2  # the oldest go first
    for i, ahead in ((18, "0 operations ahead"), (19, "1 operation ahead")):
        shown = env.stack.ctl(env.gw, "operations", "show", ops[i]["id"]).stdout
        assert re.search(r"^state +queued$", shown, re.M), shown
        assert re.search(rf"^why +no free slot: all 18 slots of agent agent \(1 connected instance\) are taken; {ahead}$", shown, re.M)
    listed = env.stack.ctl(env.gw, "operations", "list", "--state", "queued").stdout
    assert all(op["id"] in listed for op in ops[18:]) and "waiting for a free slot" in listed
    assert len(env.pg.activity("%pg_sleep(6)%")) == 18  # still: never more at the same time

    done = [env.gw.wait(op, timeout=30) for op in ops]
    assert [(op["state"], op["attempt"]) for op in done] == [("succeeded", 1)] * 20
    assert [env.gw.rows(op)[0][1] for op in done] == list(range(20))
    first_end = min(op["finished_at"] for op in done)
    for op in done[18:]:  # a freed slot is filled at once
        assert event(op, "leased")[0] >= first_end
        assert env.pg.sql("SELECT %s::timestamptz - %s::timestamptz < interval '1 s'", (event(op, "leased")[0], first_end)) == [(True,)]


def spool_a_result(env, stop_gateway, name):
    """A result in the spool that the gateway cannot take; the operation."""
    op = env.work(name, 4)
    env.gw.wait(op, "running")
    stop_gateway()
    env.agent.until(lambda: env.spooled() == 1, 10, "the result is in the spool")
    assert env.ran(name) == 1
    return op


def test_agent_is_killed_while_its_result_waits_and_the_gateway_is_paused(env):
    op = spool_a_result(env, lambda: env.gw.send(signal.SIGSTOP), "paused")
    env.agent.kill()
    env.gw.send(signal.SIGCONT)
    env.agent.start()
    op = env.delivered(op, "paused", timeout=20)
    assert event(op, "leased") and len(event(op, "leased")) == 1
    wait_until(lambda: env.spooled() == 0, 5, "the spool is empty")


def test_agent_and_gateway_are_killed_while_a_result_waits(env):
    op = spool_a_result(env, env.gw.kill, "killed")
    env.agent.kill()
    env.gw.restart()
    env.agent.start()
    op = env.delivered(op, "killed", timeout=20)
    assert len(event(op, "leased")) == 1
    wait_until(lambda: env.spooled() == 0, 5, "the spool is empty")


def test_gateway_is_killed_while_operations_run_and_wait(env):
    """24 on 18 slots: some run, some are leased, some wait; the agent stays."""
    ops = [env.work(f"g{i}", 1 + i * 0.1) for i in range(24)]
    wait_until(lambda: len(env.pg.activity("%INSERT INTO ran%")) >= 10, 5, "some run")
    env.gw.kill()
    env.gw.restart()
    for i, op in enumerate(ops):
        env.delivered(op, f"g{i}", timeout=30)
    assert env.pg.sql("SELECT count(*) FROM ran") == [(24,)]


def test_sigterm_drains_the_agent(env):
    op = env.work("drained", 3)
    env.gw.wait(op, "running")
    begin = time.monotonic()
    env.agent.send(signal.SIGTERM)
    wait_until(lambda: not env.agent.ready(), 5, "it is not ready any more")
    later = env.work("later", 0)
    assert env.agent.running and env.ran("drained") == 0  # it finishes what it has
    assert env.agent.popen.wait(20) == 0
    assert time.monotonic() - begin < 6  # of 25 s
    env.delivered(op, "drained", timeout=1)
    assert env.gw.operation(later)["state"] == "queued"  # nothing new was taken
    env.agent.start()
    env.delivered(later, "later")


def test_sigterm_gives_back_what_does_not_end_in_time(env):
    assert env.agent.stop() == 0
    env.agent.flags = ("--stop-timeout", "2s")
    env.agent.start()
    op = env.work("long", 3.5)
    env.gw.wait(op, "running")
    begin = time.monotonic()
    assert env.agent.stop() == 0
    assert time.monotonic() - begin < 2
    assert not env.pg.activity("%INSERT INTO ran%") and env.ran("long") == 0  # stopped and undone
    shown = env.gw.operation(op)
    assert shown["state"] == "queued" and event(shown, "released"), shown
    env.agent.start()
    env.delivered(op, "long", attempt=2)


def test_sigterm_ends_an_idle_agent_at_once(env):
    env.rows("SELECT 1")
    begin = time.monotonic()
    assert env.agent.stop() == 0
    assert time.monotonic() - begin < 1
    wait_until(lambda: not env.gw.api("GET", "/agents/agent")["connected"], 2, "the gateway knows")


def test_second_start_on_the_same_folders(env):
    first = env.query("SELECT i, repeat('x', 200) FROM generate_series(1, 20000) i")
    rows = env.gw.rows(first)
    assert len(rows) == 20000
    for stop in (lambda p: p.stop(), lambda p: p.kill()):
        stop(env.agent)
        stop(env.gw)
        env.gw.restart()
        waiting = env.submit("SELECT 42")
        assert "no connected instance" in env.gw.operation(waiting)["why"]
        env.agent.start()
        assert env.gw.rows(env.gw.wait(waiting)) == [[42]]
        again = env.gw.operation(first)
        assert again == first and env.gw.rows(again) == rows
        assert env.rows("SELECT 1") == [[1]]
