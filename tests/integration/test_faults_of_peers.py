"""How comparable systems lose, repeat or strand work, one test each: the public complaints are listed in docs/delivery.md, whose rows
name these tests.  Leases are short here (5 s), so that a test can wait for their end."""
import random
import signal
import threading
import time

import pytest

from data_path import DataPath
from fake_agent import Instance
from harness import request, wait_until
from web import Web

LEASE = 5
names = iter(f"peer-{n}" for n in range(10000))


@pytest.fixture(scope="module")
def gw(module_stack):
    return module_stack.gateway("--lease", f"{LEASE}s")


@pytest.fixture
def key(gw):
    k = gw.agent(name := next(names))
    k.name = name
    return k


@pytest.fixture(scope="module")
def pg(module_stack):
    pg = module_stack.postgres()
    pg.sql("CREATE TABLE ran (id text, attempt int); ALTER TABLE ran OWNER TO app")
    return pg


@pytest.fixture
def path(stack, pg):
    """A gateway, a real agent and a PostgreSQL."""
    pg.sql("TRUNCATE ran")
    return DataPath(stack, "--lease", f"{LEASE}s", agent_flags=(), pg=pg)


RUN = ("WITH s AS MATERIALIZED (SELECT pg_sleep($2::float8)) "
       "INSERT INTO ran SELECT $1, current_setting('postern.attempt')::int FROM s RETURNING id")


def work(path, name, seconds, **fields):
    return path.submit(RUN, [name, seconds], mode="write", **fields)


def events(op):
    return [e["event"] for e in op["events"]]


def take(gw, agent, n=1, timeout=10):
    """Exchange until the instance has been leased n attempts."""
    leases = []

    def got():
        leases.extend(agent.exchange(holding=[agent.holds(x) for x in leases]).get("leases", []))
        return len(leases) >= n

    wait_until(got, timeout, f"{n} leases")
    return leases


def running(gw, agent, lease):
    """Say that it runs."""
    agent.exchange(holding=[agent.holds(lease)])


# --- A: lost and stuck work

def test_a1_capacity_comes_back_after_every_kind_of_end(gw, key):
    """A counter of running work leaks; slots are derived from the leases that there are."""
    rng = random.Random(1)
    agent = Instance(gw, key, slots=3)
    agent.connect()

    def by_result(lease):
        assert agent.put(lease, status=rng.choice(["succeeded", "failed"]))[0] == 200

    def by_repeated_result(lease):
        assert [agent.put(lease)[0] for _ in range(3)] == [200] * 3

    def by_release(lease):
        agent.exchange(released=[{"operation": lease["operation"], "attempt": lease["attempt"], "reason": "test"}])

    def by_cancel(lease):
        gw.api("POST", f"/operations/{lease['operation']}/cancel")
        assert agent.put(lease, status="cancelled")[0] == 200

    for _ in range(40):
        for _ in range(3):
            gw.submit("health", agent=key.agent)
        leases = take(gw, agent, 3)
        assert len(leases) == 3
        assert not agent.exchange(holding=[agent.holds(x) for x in leases]).get("leases")  # never more than slots
        for lease in leases:
            rng.choice([by_result, by_repeated_result, by_release, by_cancel])(lease)
        for op in gw.api("GET", f"/operations?agent={key.agent}&state=queued&limit=100")["items"]:
            gw.api("POST", f"/operations/{op['id']}/cancel")
        wait_until(lambda: not [o for s in ("queued", "leased", "running") for o in
                                gw.api("GET", f"/operations?agent={key.agent}&state={s}")["items"] if not leave(agent, gw, o)], 10)


def leave(agent, gw, op):
    """An operation that was queued again by a release may have been leased meanwhile: end it; True when it is over."""
    doc = gw.operation(op)
    if doc["state"] in ("leased", "running"):
        agent.put({"operation": doc["id"], "attempt": doc["attempt"]})
    elif doc["state"] == "queued":
        gw.api("POST", f"/operations/{op['id']}/cancel")
    return gw.operation(op).get("finished_at") is not None


def test_a2_a_restart_does_not_keep_ended_work_as_running(stack):
    gw = stack.gateway("--lease", f"{LEASE}s")
    key = gw.agent("restarted")
    agent = Instance(gw, key, slots=2)
    agent.connect()
    body = {"type": "health", "input": {}, "agent": key.agent, "idempotency_key": "once"}
    op = gw.api("POST", "/operations", body)
    lease, = take(gw, agent)
    assert agent.put(lease)[0] == 200
    gw.kill()
    gw.restart()
    assert gw.operation(op)["state"] == "succeeded"
    assert gw.api("POST", "/operations", body)["id"] == op["id"]  # answered, not "already running"
    code, doc = agent.put(lease)
    assert code == 200 and doc["duplicate"] is True  # said, not dropped in silence
    agent.connect()
    more = [gw.submit("health", agent=key.agent) for _ in range(2)]
    leases = take(gw, agent, 2)  # both slots are free
    assert {x["operation"] for x in leases} == {o["id"] for o in more}


def test_a3_healthy_work_survives_a_gateway_that_was_held_up(path):
    """The one who decides who is dead was itself not listening."""
    op = work(path, "a3", LEASE + 5)
    path.gw.wait(op, "running")
    path.gw.send(signal.SIGSTOP)
    time.sleep(LEASE + 2)
    path.gw.send(signal.SIGCONT)
    op = path.gw.wait(op, timeout=30)
    assert (op["state"], op["attempt"]) == ("succeeded", 1) and "lease_lost" not in events(op), op
    assert path.pg.sql("SELECT id, attempt FROM ran") == [("a3", 1)]


def test_a4_work_handed_to_one_who_never_starts_goes_to_another(gw, key):
    silent, other = Instance(gw, key, slots=1), Instance(gw, key, slots=1)
    silent.connect()
    op = gw.submit("health", agent=key.agent)
    lease, = take(gw, silent)
    why = gw.operation(op)["why"]
    assert silent.id in why, why  # it is named
    other.connect()
    again, = take(gw, other, timeout=LEASE + 10)
    assert (again["operation"], again["attempt"]) == (op["id"], 2)
    assert other.put(again)[0] == 200
    assert silent.put(lease)[0] == 409  # too late
    shown = gw.operation(op)
    assert shown["state"] == "succeeded" and events(shown)[-1] == "result_refused", shown


def test_a5_who_is_gone_is_no_capacity(gw, key):
    gone = [Instance(gw, key, slots=5) for _ in range(3)]
    for agent in gone:
        agent.connect()
        agent.close()
    here = Instance(gw, key, slots=5)
    poll = here.hold() if here.connect() else None
    ops = [gw.submit("health", agent=key.agent) for _ in range(5)]
    leases = poll.result(5)["leases"]
    leases += take(gw, here, 5 - len(leases)) if len(leases) < 5 else []
    assert {x["operation"] for x in leases} == {o["id"] for o in ops}
    wait_until(lambda: gw.api("GET", f"/agents/{key.agent}")["connected"] == 1, LEASE + 50, "only one counts")


def test_a6_who_connects_finds_the_backlog(stack):
    gw = stack.gateway("--lease", f"{LEASE}s")
    key = gw.agent("late")
    ops = [gw.submit("health", agent=key.agent) for _ in range(4)]
    assert "no connected instance" in gw.operation(ops[0])["why"]
    gw.kill()
    gw.restart()
    agent = stack.agent(gw, key=key, name="late")
    for op in ops:
        assert gw.wait(op, timeout=20)["state"] == "succeeded"
    agent.kill()  # and again, without anything new being submitted
    more = [gw.submit("health", agent=key.agent) for _ in range(4)]
    agent.start()
    for op in more:
        assert gw.wait(op, timeout=LEASE + 20)["state"] == "succeeded"


def test_a7_work_that_meets_a_goodbye_is_handed_back_at_once(gw, key):
    """Scaled down in the moment in which its work arrives."""
    stays = Instance(gw, key, slots=100)
    stays.connect()
    for n in range(20):
        leaves = Instance(gw, key, slots=100)
        leaves.connect()
        poll = leaves.hold()
        submitted = []
        t = threading.Thread(target=lambda: submitted.extend(gw.submit("health", agent=key.agent) for _ in range(3)))
        t.start()
        time.sleep(random.Random(n).random() * 0.01)
        leaves.exchange(goodbye=True)
        t.join()
        poll.result(5)
        begin = time.monotonic()
        for lease in take(gw, stays, 3):
            assert stays.put(lease)[0] == 200
        assert time.monotonic() - begin < LEASE - 2  # nobody waited for a lease's end
        assert all(gw.operation(op)["state"] == "succeeded" for op in submitted)


def test_a8_the_node_dies(path):
    op = work(path, "a8", 5)
    path.gw.wait(op, "running")
    path.agent.kill()
    second = path.stack.agent(path.gw, key=path.agent.key, name="second")
    op = path.gw.wait(op, timeout=LEASE + 20)
    assert (op["state"], op["attempt"]) == ("succeeded", 2) and "lease_lost" in events(op), op
    assert second.running


def test_a9_one_slot_is_not_blocked_by_a_claim_that_never_started(gw, key):
    dies, next_one = Instance(gw, key, slots=1), Instance(gw, key, slots=1)
    dies.connect()
    ops = [gw.submit("health", agent=key.agent) for _ in range(3)]
    take(gw, dies)  # claimed, never acknowledged, never heard of again
    next_one.connect()
    done = set()
    while len(done) < 3:
        lease, = take(gw, next_one, timeout=LEASE + 10)
        assert next_one.put(lease)[0] == 200
        done.add(lease["operation"])
    assert done == {o["id"] for o in ops}


def test_a10_a_result_that_meets_the_end_of_its_lease(gw, key):
    """The rescuer overwrites what has completed meanwhile: here one of the two happens, and everybody is told the same."""
    agent = Instance(gw, key, slots=40)
    agent.connect()
    for _ in range(40):
        gw.submit("health", agent=key.agent, max_attempts=1)
    leases = take(gw, agent, 40)
    begin = time.monotonic()
    agent.exchange(holding=[agent.holds(x) for x in leases])
    outcome = {}
    for n, lease in enumerate(leases):  # results around the lease's end
        time.sleep(max(0, begin + LEASE - 0.4 + n * 0.03 - time.monotonic()))
        outcome[lease["operation"]] = agent.put(lease)[0]
    wait_until(lambda: all(gw.operation({"id": op}).get("finished_at") for op in outcome), LEASE + 5)
    for op, code in outcome.items():
        doc = gw.operation({"id": op})
        ends = [e for e in events(doc) if e in ("succeeded", "failed")]
        assert len(ends) == 1 and (doc["state"], code) in (("succeeded", 200), ("failed", 409)), (doc, code)


class Ingress(Web):
    """What stands in front of a gateway: passes requests on, except that the next results meet what is in `faults`."""

    def __init__(self, gw):
        self.gw, self.faults, self.met = gw, [], []
        super().__init__(self._pass_on)

    def _pass_on(self, r):
        fault = self.faults.pop(0) if r.method == "PUT" and self.faults else None
        if fault:
            self.met.append(fault)
        if fault == "cut before":
            return None
        if isinstance(fault, int):
            return fault, b"<html>not the gateway</html>", {"Content-Type": "text/html"}
        headers = {k: v for k, v in r.headers.items() if k != "Host"}
        a = request(r.method, self.gw.url + r.path, r.body, headers, timeout=70)
        if fault == "cut after":  # the gateway has it, the agent does not know
            return None
        return a.status, a.body, {"Content-Type": a.headers.get("Content-Type", "text/plain")}


def test_a11_a_result_outlives_what_an_ingress_does_to_it(stack):
    gw = stack.gateway("--lease", f"{LEASE}s")
    ingress = Ingress(gw)
    agent = stack.agent(gw, gateway_url=ingress.url)
    faults = [502, "cut before", 404, 200, "cut after"]  # each answer is not the gateway's own
    ingress.faults = list(faults)
    op = gw.wait(gw.submit("health", agent=agent.key.agent), timeout=60)
    assert (op["state"], op["attempt"]) == ("succeeded", 1), op
    wait_until(lambda: agent.local("GET", "/api/v1/test/health").json()["spool"]["entries"] == 0, 60, "the agent knows that it was taken")
    assert ingress.met == faults and [e for e in events(gw.operation(op)) if e == "succeeded"] == ["succeeded"]
    ingress.shutdown()


# --- B: orphans and duplicates

def test_b13_work_that_was_given_away_is_stopped(path):
    """Reported as failed while it still runs: the instance that lost its lease stops the statement when it is back."""
    op = work(path, "b13", 120)
    path.gw.wait(op, "running")
    path.agent.send(signal.SIGSTOP)
    wait_until(lambda: "lease_lost" in events(path.gw.operation(op)), LEASE + 10, "the lease ends")
    path.gw.api("POST", f"/operations/{op['id']}/cancel")
    path.gw.wait(op)
    assert path.pg.activity("%INSERT INTO ran%")  # nobody could tell it yet
    path.agent.send(signal.SIGCONT)
    wait_until(lambda: not path.pg.activity("%INSERT INTO ran%"), 20, "the statement is stopped")
    assert path.pg.sql("SELECT count(*) FROM ran") == [(0,)]
    assert path.gw.operation(op)["state"] == "cancelled"


def test_b14_one_authority_over_tries(gw, key):
    """Two layers that try again multiply: here attempts are counted once, whoever is lost."""
    op = gw.submit("health", agent=key.agent, max_attempts=2)
    for attempt in (1, 2):
        agent = Instance(gw, key, slots=1)
        agent.connect()
        lease, = take(gw, agent, timeout=LEASE + 10)
        assert lease["attempt"] == attempt
    doc = gw.wait(op, timeout=LEASE + 15)
    assert (doc["state"], doc["attempt"], events(doc).count("leased")) == ("failed", 2, 2), doc
    assert "2 of 2" in doc["why"]
    watcher = Instance(gw, key, slots=1)
    watcher.connect()
    assert not watcher.exchange(wait_ms=2000).get("leases")


def test_b15_a_lease_that_comes_twice_runs_once(path):
    """Its answer was lost and is sent again while the first copy runs: neither a second run nor an empty success."""
    op = work(path, "b15", LEASE)
    path.gw.wait(op, "running")
    for _ in range(3):  # the link breaks and comes back
        path.agent.send(signal.SIGSTOP)
        time.sleep(1)
        path.agent.send(signal.SIGCONT)
        time.sleep(0.3)
    op = path.gw.wait(op, timeout=30)
    assert (op["state"], op["attempt"]) == ("succeeded", 1) and path.gw.rows(op) == [["b15"]], op
    assert path.pg.sql("SELECT id, attempt FROM ran") == [("b15", 1)]


def test_b16_a_token_at_the_side_effect(path):
    """Two attempts reach the data source; the operation's id as a unique key lets one effect through."""
    path.pg.sql("DROP TABLE IF EXISTS paid; CREATE TABLE paid (operation text PRIMARY KEY, attempt int); ALTER TABLE paid OWNER TO app")
    op = path.submit("WITH s AS MATERIALIZED (SELECT pg_sleep(12)) INSERT INTO paid SELECT current_setting('postern.operation'), "
                     "current_setting('postern.attempt')::int FROM s ON CONFLICT (operation) DO NOTHING", mode="write")
    path.gw.wait(op, "running")
    path.agent.send(signal.SIGSTOP)  # its statement goes on in the database, and holds the key until its transaction ends
    second = path.stack.agent(path.gw, key=path.agent.key, name="second")
    wait_until(lambda: len(path.pg.activity("%INTO paid%")) == 2, 20, "both attempts are in the data source")
    wait_until(lambda: path.pg.sql("SELECT 1 FROM pg_stat_activity WHERE query LIKE %s AND wait_event_type = 'Lock'", ("%INTO paid%",)), 40,
               "the second waits for the first")
    path.agent.send(signal.SIGCONT)
    op = path.gw.wait(op, timeout=30)
    assert (op["state"], op["attempt"]) == ("succeeded", 2), op
    assert [row[0] for row in path.pg.sql("SELECT operation FROM paid")] == [op["id"]]
    assert second.running


def test_b17_what_is_alive_is_not_reaped(gw, key):
    agent = Instance(gw, key, slots=1)
    agent.connect()
    op = gw.submit("health", agent=key.agent)
    lease, = take(gw, agent)
    end = time.monotonic() + 3 * LEASE
    while time.monotonic() < end:  # it says nothing but that it runs, with one held exchange after the other
        assert not agent.exchange(wait_ms=40000, holding=[agent.holds(lease)]).get("drops")
    doc = gw.operation(op)
    assert (doc["state"], doc["attempt"]) == ("running", 1) and "lease_lost" not in events(doc), doc
    assert agent.put(lease)[0] == 200


# --- C: drain and scaling

def test_c18_a_drain_lasts_as_long_as_the_work_and_no_longer(path):
    """A fixed grace kills long work and delays idle agents; here the cap is one, and nobody waits for it."""
    assert path.agent.stop() == 0
    path.agent.flags = ("--stop-timeout", "120s")
    path.agent.start()
    op = work(path, "c18", 6)
    path.gw.wait(op, "running")
    begin = time.monotonic()
    assert path.agent.stop(timeout=60) == 0
    assert 2 < time.monotonic() - begin < 14
    op = path.gw.wait(op, timeout=5)
    assert (op["state"], op["attempt"]) == ("succeeded", 1), op
    path.agent.start()
    begin = time.monotonic()
    assert path.agent.stop() == 0
    assert time.monotonic() - begin < 1.5


def test_c19_a_stop_reaches_the_work_in_the_data_source(path):
    assert path.agent.stop() == 0
    path.agent.flags = ("--stop-action", "grace-shutdown")
    path.agent.start()
    op = work(path, "c19", 120)
    path.gw.wait(op, "running")
    wait_until(lambda: path.pg.activity("%INSERT INTO ran%"), 5, "the statement runs")
    assert path.agent.stop() == 0
    assert not path.pg.activity("%INSERT INTO ran%")  # cancelled there, its transaction undone, its locks gone
    assert path.pg.sql("SELECT count(*) FROM ran") == [(0,)]
    doc = path.gw.operation(op)
    assert doc["state"] == "queued" and events(doc)[-1] == "released", doc
    path.gw.api("POST", f"/operations/{op['id']}/cancel")


def gauge(gw, name, agent):
    return next(float(line.split()[-1]) for line in gw.request("GET", "/metrics").text.splitlines()
                if line.startswith(f'postern_gateway_{name}{{agent="{agent}"}}'))


def test_c20_what_there_is_to_do_is_told(gw, key):
    """Scaled on the wrong number: here queued, held and slots come from the same state that work is given by."""
    agent = Instance(gw, key, slots=2)
    agent.connect()
    for _ in range(5):
        gw.submit("health", agent=key.agent)
    leases = take(gw, agent, 2)
    agent.exchange(holding=[agent.holds(x) for x in leases])
    assert [gauge(gw, g, key.name) for g in ("agent_instances", "agent_slots", "agent_held", "queued_operations")] == [1, 2, 2, 3]
    assert gauge(gw, "queue_oldest_seconds", key.name) >= 0
    for lease in leases:
        agent.put(lease)
    agent.exchange(goodbye=True)
    wait_until(lambda: [gauge(gw, g, key.name) for g in ("agent_instances", "agent_held", "queued_operations")] == [0, 0, 3], 5,
               "work that nobody holds is still counted")
