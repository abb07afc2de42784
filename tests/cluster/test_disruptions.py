"""What a platform does to pods, while clients submit work whose effects a PostgreSQL counts: nothing may be lost or done twice.

Orderly disruptions (rolling upgrade, deleted pods, drained node, rotated key): every operation succeeds.  Sudden ones (OOM kill, pods deleted by force): what
was at-least-once is done again, at-most-once work that was cut off ends as `unknown`.  The load and the verdict are those of tests/chaos.
"""
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from installed import ROOT, Agent, Gateway, Postgres, process, ready, wait_until

sys.path.insert(0, str(ROOT / "tests/chaos"))
import checker  # noqa: E402
import report  # noqa: E402
from history import History  # noqa: E402
from workload import ROLLING, SCHEMA, Workload  # noqa: E402

pytestmark = pytest.mark.limit(400)
LIMIT = 128 << 20


class Site:
    """A gateway, a database and three pods of one agent, of their own."""

    def __init__(self, cluster, ns, home):
        self.cluster = cluster
        # Both stay on node1, so that node2 can be drained.  Leases are short, so that what is cut off starts again soon.
        self.gateway = Gateway(cluster, f"{ns}-gw", home,
                               {"nodeSelector": {"kubernetes.io/hostname": "node1"}, "container": {"lease": "10s"}})
        self.postgres = Postgres(cluster, f"{ns}-db")
        self.postgres.sql(SCHEMA)
        key = self.gateway.agent("site")
        self.gateway.make_integration("site-db", key)
        self.agent = Agent(
            cluster, self.gateway, ns, {
                "replicaCount": 3, "container": {
                    "backendServiceUrl": self.gateway.service, "resources": {
                        "requests": {"memory": "64Mi"}, "limits": {"memory": str(LIMIT)}}}},
            files={"site-db.json": self.postgres.credentials()}, key=key)

    def ready_pods(self, n=3):
        """Wait for so many; those that run then."""
        return wait_until(lambda: len(found := [p for p in self.agent.pods() if ready(p)]) >= n and found, 120,
                          f"{n} pods are Ready")


class Load:
    """Clients at work in a thread, from `with` to the verdict."""

    def __init__(self, site, folder, name):
        self.site, self.name = site, name
        self.history = History(folder / f"{name}.jsonl")
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.address = (site.gateway.url.split("/")[2].split(":")[0], 7070)

    def call(self, coroutine, timeout=None):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def __enter__(self):
        async def start():
            self.work = Workload(self.history, self.address, self.site.gateway.token, ["site-db"], self.name, kinds=ROLLING,
                                 users=60, rate=40)
            self.work.start()

        self.thread.start()
        self.call(start())
        self.goes_on()
        return self

    def __exit__(self, *exc):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def goes_on(self, n=100):
        """Wait until so many more operations have succeeded."""
        if wrong := self.work.failed():
            raise wrong
        before = self.work.ended["succeeded"]
        wait_until(lambda: self.work.ended["succeeded"] >= before + n, 90, f"{n} more operations succeed")

    def fault(self, kind, target):
        self.history.add("fault", n=0, kind=kind, target=target, detail={})

    def verdict(self):
        """Everything has ended; the checker's summary."""
        self.work.stop()
        self.call(self.work.wait(120))
        self.call(report.read_finals(self.history, self.address, self.site.gateway.token, self.work.accepted))
        effects = {}
        for key, attempt in self.site.postgres.sql("SELECT key, attempt FROM effects ORDER BY at"):
            effects.setdefault(key, []).append(int(attempt))
        ours = {k: v for k, v in effects.items() if k in self.work.keys}
        report.add_effects(self.history, ours, self.work.keys, self.work.kinds)
        self.history.close()
        assert checker.check(self.history.events) == []
        summary = checker.summary(self.history.events)
        assert (summary["lost"], summary["doubled"], summary["refused"]) == (0, 0, 0)
        assert summary["operations"] == summary["accepted"] > 500
        print(f"{self.name}: {summary['operations']} operations, {summary['states']}, lost = 0, doubled = 0")
        return summary

    def ended_as(self, *states):
        """Operations with one of these final states, with all that is known of them."""
        return [json.dumps(h) for h in self.history.events if h["e"] == "final" and h["state"] in states]


@pytest.fixture(scope="module")
def site(cluster, module_scratch, tmp_path_factory):
    site = Site(cluster, module_scratch, tmp_path_factory.mktemp("site"))
    yield site
    for ns in (site.gateway.ns, site.postgres.ns):
        cluster.kubectl("delete", "namespace", ns, "--wait=false")


@pytest.fixture(scope="module")
def orderly(site, tmp_path_factory):
    with Load(site, tmp_path_factory.mktemp("load"), "orderly") as load:
        yield load


@pytest.fixture(scope="module")
def sudden(site, tmp_path_factory):
    with Load(site, tmp_path_factory.mktemp("load"), "sudden") as load:
        yield load


def names(pods):
    return {p["metadata"]["name"] for p in pods}


def test_rolling_upgrade(site, orderly):
    before = names(site.ready_pods())
    orderly.fault("rolling upgrade", "deployment")
    site.agent.upgrade({"podAnnotations": {"changed": "yes"}})
    site.agent.kubectl("rollout", "status", "deployment/postern-agent-deployment", "--timeout=120s")
    assert not before & names(site.ready_pods())
    orderly.goes_on()


def test_delete_pod(site, orderly):
    victim = site.ready_pods()[0]["metadata"]["name"]
    orderly.fault("delete pod", victim)
    site.agent.kubectl("delete", "pod", victim, "--timeout=120s")
    assert victim not in names(site.ready_pods())
    orderly.goes_on()


def test_drain_node(cluster, site, orderly):
    here = [p for p in site.ready_pods() if p["spec"]["nodeName"] == "node2"]
    assert here, "the pods are spread over the nodes"
    orderly.fault("drain", "node2")
    try:
        cluster.kubectl("drain", "node2", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=150s")
        assert {p["spec"]["nodeName"] for p in site.ready_pods()} == {"node1"}
        orderly.goes_on()
    finally:
        cluster.kubectl("uncordon", "node2")


def test_rotate_the_key(site, orderly):
    """The Secret is replaced; when every pod uses the new key, the old one is revoked.  Nothing restarts."""
    old, pods = site.agent.key, names(site.ready_pods())
    new = site.agent.key = site.gateway.key(old.agent, "next")
    orderly.fault("rotate key", "agent")
    site.agent.put_token(new)

    def used(pod):
        out = site.agent.kubectl("exec", pod["metadata"]["name"], "--", "postern", "check", "reachability", check=False)
        return json.loads(out).get("key_id") if out else None

    wait_until(lambda: {used(p) for p in site.agent.pods()} == {new.id}, 120, "every pod uses the new key", every=1)
    site.gateway.api("DELETE", f"/keys/{old.id}")
    orderly.goes_on()
    assert names(site.ready_pods()) == pods
    assert all(c["restartCount"] == 0 for p in site.agent.pods() for c in p["status"]["containerStatuses"])


def test_orderly_disruptions_lose_nothing(orderly):
    orderly.verdict()
    assert orderly.ended_as("failed", "cancelled", "expired", "unknown") == []


HOG = """
import os, sys, time
cgroup, victim = sys.argv[1:]
open(cgroup + "/cgroup.procs", "w").write(str(os.getpid()))
held = []
while os.path.exists(f"/proc/{victim}"):
    held.append(bytearray(os.urandom(1)) * (4 << 20))
    time.sleep(0.01)
"""


@contextlib.contextmanager
def hog(cluster, pod):
    """Something that eats the memory of the pod's container up to its limit.  The kernel then kills the agent (it is told to prefer it)."""
    path = process(cluster, pod)
    pid = path.rsplit("/", 1)[1]
    with open(f"{path}/cgroup", encoding="utf-8") as f:
        lines = [line.strip().split(":", 2) for line in f]
    where = next((p for n, c, p in lines if "memory" in c.split(",")), None)
    cgroup = f"/sys/fs/cgroup/memory{where}" if where else f"/sys/fs/cgroup{next(p for n, c, p in lines if n == '0')}"
    with open(f"{path}/oom_score_adj", "w", encoding="utf-8") as f:
        f.write("1000")
    p = subprocess.Popen([sys.executable, "-c", HOG, cgroup, pid], stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(p.pid, signal.SIGKILL)
        p.wait()


def test_oom_kill(cluster, site, sudden):
    pod = site.ready_pods()[0]
    name = pod["metadata"]["name"]
    sudden.fault("OOM kill", name)

    def killed():
        status = cluster.get("pod", "-n", site.agent.ns, name)["status"]["containerStatuses"][0]
        return status["restartCount"] >= 1 and status["lastState"]["terminated"]

    with hog(cluster, pod):
        end = wait_until(killed, 60, "the container is killed and started again", every=0.5)
    assert end["reason"] == "OOMKilled", end
    site.ready_pods()
    sudden.goes_on()


def test_delete_by_force(site, sudden):
    """SIGKILL, and the spool's emptyDir is gone with the pod."""
    victim = site.ready_pods()[0]["metadata"]["name"]
    sudden.fault("delete by force", victim)
    site.agent.kubectl("delete", "pod", victim, "--force", "--grace-period=0")
    wait_until(lambda: victim not in names(site.agent.pods()), 30, "it is gone")
    site.ready_pods()
    sudden.goes_on()


def test_gateway_restarts(cluster, site, sudden):
    sudden.fault("delete pod", "gateway")
    site.gateway.kubectl("delete", "pod", "postern-gateway-0", "--timeout=60s")
    cluster.kubectl("wait", "--for=condition=Ready", "pod/postern-gateway-0", "-n", site.gateway.ns, "--timeout=60s")
    sudden.goes_on()


def test_sudden_disruptions_lose_nothing(sudden):
    start = time.monotonic()
    summary = sudden.verdict()
    assert sudden.ended_as("failed", "cancelled", "expired") == []
    assert summary["states"]["succeeded"] > 0.9 * summary["operations"]
    assert time.monotonic() - start < 180
