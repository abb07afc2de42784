"""The system under chaos: one gateway, three agent instances of two agents, one PostgreSQL, and a Link wherever they meet.

    clients ── link "clients" ──> gateway <── link "a1" ── a1 ─┐
                                          <── link "a2" ── a2 ─┼─> PostgreSQL
                                          <── link "b1" ── b1 ─┘

Each process is a Node: it is started again when it ends, as a service manager would, and somebody is told when it ended by itself.
"""
import contextlib
import json
import os
import pathlib
import random
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
from harness import CA, request, wait_until  # noqa: E402
from product import COMPLAINTS, Agent, Gateway, Stack  # noqa: E402

from links import Link  # noqa: E402
from powercut import Shim  # noqa: E402
from workload import SCHEMA  # noqa: E402

SPOOL_BYTES = "256M"
SLOTS = 16
DISK_KB = 4 << 20
STARTS_WITHIN = 60  # seconds, and at least STARTS tries: a disk may be full for a while, a pause may stop one start
STARTS = 5


class Dead(Exception):
    """A process does not start any more: no run goes on from there, and it is a violation."""


class Disk:
    """A folder of its own file system (tmpfs), that can be full.  Without the right to mount it is a plain folder: .can is False."""

    def __init__(self, path):
        self.path = path
        path.mkdir(parents=True)
        self.can = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_KB}k,mode=755", "postern-chaos", path],
                                  stderr=subprocess.DEVNULL).returncode == 0
        self.full_until = 0  # and for a while after it: what ended because of it is excused

    def _resize(self, kb):
        return subprocess.run(["mount", "-o", f"remount,size={kb}k", self.path], stderr=subprocess.DEVNULL).returncode == 0

    def fill(self, spare_kb):
        """Nothing but spare_kb is free from now on."""
        self.full_until = float("inf")
        for _ in range(50):
            st = os.statvfs(self.path)
            if self._resize((st.f_blocks - st.f_bfree) * st.f_frsize // 1024 + 4 + spare_kb):
                return True
        return False  # it grows faster than we look

    def empty(self):
        self._resize(DISK_KB)
        self.full_until = time.monotonic() + 15


class Node:
    """A process under test: harness.Process, made by make(env), its shim and its disk.  .up says that it is meant to run."""

    def __init__(self, name, system, data, disk=None):
        self.name, self.system, self.data, self.disk = name, system, data, disk
        data.mkdir(parents=True, exist_ok=True)
        # The control folder lies beside the data, so that deleted files can come back; not on a disk that can be full.
        control = system.home / "control" / name if disk else data.parent / f"{name}-control"
        control.mkdir(parents=True)
        self.shim = Shim(control, [data])
        self.lock = threading.RLock()
        self.pauses, self.pausing = 0, threading.Lock()  # those that have begun and did not end
        self.process = None
        self.up = True
        self.starts = 0

    def start(self):
        """Start it; again when it ends at once (its disk may be full), but not for ever."""
        with self.lock:
            give_up, least = time.monotonic() + STARTS_WITHIN, self.starts + STARTS
            while True:
                self.system.check()
                env = self.shim.env()
                try:
                    self.starts += 1
                    if self.process:
                        self.process._env = env
                        self.again()
                    else:
                        self.process = self.first(env)
                    self.up = True
                    return
                except AssertionError as e:
                    status = self.process.popen.poll() if self.process else None
                    self.reap()
                    self.system.ended_by_itself(self, status, f"at its start: {e}")
                    if time.monotonic() > give_up and self.starts >= least:
                        self.system.dead = f"{self.name} does not start any more, after tries for {STARTS_WITHIN} s: {e}"
                time.sleep(0.5)

    def reap(self):
        if self.process and self.process.running:
            self.process.kill()

    def kill(self, cut=None):
        """kill -9; with a generator also a power cut.  Returns what the cut did."""
        with self.lock:
            self.up = False
            self.reap()
            if not cut:
                return None
            if self.disk:
                self.disk.empty()  # to put old content back may need room
            return self.shim.cut(cut)

    def terminate(self, timeout=40):
        """SIGTERM, and wait; the exit code.  None when it had to be killed: it may be paused."""
        with self.lock:
            self.up = False
            with contextlib.suppress(AssertionError):
                return self.process.stop(timeout=timeout)

    def look(self):
        """Has it ended by itself?  Then start it again."""
        if not self.up or not self.lock.acquire(blocking=False):
            return
        try:
            if self.up and self.process and not self.process.running:
                status = self.process.popen.returncode
                self.system.ended_by_itself(self, status, f"exit status {status}")
                self.start()
        finally:
            self.lock.release()


class GatewayNode(Node):
    def __init__(self, system, disk, lease):
        super().__init__("gateway", system, disk.path / "data", disk)
        self.flags = ["--database", f"sqlite:{self.data}/gateway.db", "--blob-dir", f"{self.data}/blobs", "--lease", lease]

    def first(self, env):
        return Gateway(self.system.stack, *self.flags, env=env)

    def again(self):
        self.process.restart()


class AgentNode(Node):
    def __init__(self, name, system, key, link, data, disk=None):
        super().__init__(name, system, data, disk)
        self.key, self.link = key, link
        self.flags = ["--spool-dir", f"{self.data}/spool", "--spool-max-bytes", SPOOL_BYTES, "--slots", str(SLOTS), "--stop-timeout", "10s",
                      "--log-level", "debug", "--log-format", "json"]

    def first(self, env):
        return Agent(self.system.stack, self.system.gateway.process, *self.flags, key=self.key, name=self.name, env=env,
                     gateway_url=self.link.url, linked=False)

    def again(self):
        self.process.start(linked=False)

    def metric(self, name):
        text = request("GET", f"http://127.0.0.1:{self.process.port}/metrics", timeout=5).text
        return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} ")))


class System:
    """Everything, started.  With `with`: everything is stopped at the end."""

    def __init__(self, home, loop, history, seed, lease="10s", tmpfs=True):
        self.home, self.loop, self.history = home, loop, history
        self.problems = []  # what is wrong whatever the history says
        self.dead = None  # why no run can go on
        self.stopping = threading.Event()
        (home / "stack").mkdir(parents=True)
        self.ca = CA(home / "ca")
        self.stack = Stack(home / "stack", self.ca)
        self.nodes, self.links = {}, {}
        try:
            self._start(seed, lease)
        except BaseException:
            self.close()
            raise

    def _start(self, seed, lease):
        self.postgres = self.stack.postgres(tls=False)
        # Thousands of sessions: their passwords are not what is tested, and would take half of the time.
        (self.postgres.data / "pg_hba.conf").write_text("local all all trust\nhost all app 127.0.0.1/32 trust\n")
        self.postgres.sql("SELECT pg_reload_conf()")
        with self.postgres.admin() as c, c.cursor() as cur:
            cur.execute("SET ROLE app")
            cur.execute(SCHEMA)
        self.gateway = self.nodes["gateway"] = GatewayNode(self, Disk(self.home / "disk-gateway"), lease)
        self.gateway.start()
        gw = self.gateway.process
        for name in ("clients", "a1", "a2", "b1"):
            self.links[name] = Link(name, self.loop, gw.port, seed)
        self.keys, self.sealed_by = {}, {}  # sealed_by: an agent's earlier keys, newest first
        for agent in ("alpha", "beta"):
            self.keys[agent] = gw.agent(agent)
            gw.integration(f"{agent}-db", self.keys[agent], "postgres", self.postgres.connect_args(sslmode="disable"))
        for name, agent in (("a1", "alpha"), ("a2", "alpha"), ("b1", "beta")):
            disk = Disk(self.home / f"disk-{name}") if name == "a1" else None
            data = (disk.path if disk else self.home / f"disk-{name}") / "data"
            self.nodes[name] = AgentNode(name, self, self.keys[agent], self.links[name], data, disk)
            self.nodes[name].start()
        self.agents = [self.nodes[n] for n in ("a1", "a2", "b1")]
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self):
        """The service manager.  This thread lives as long as the run: children die with the thread that started them."""
        while not self.stopping.wait(0.2):
            for n in self.nodes.values():
                with contextlib.suppress(Dead):  # the run sees it
                    n.look()
        threading.Event().wait()

    def check(self):
        """Raises Dead when no run can go on."""
        if self.dead:
            raise Dead(self.dead)

    def ended_by_itself(self, node, status, what):
        """A process that we did not end.  On a full disk it may refuse to start, but not die of a signal."""
        excused = (status or 0) >= 0 and node.disk and node.disk.full_until > time.monotonic()
        log = node.process.tail(15) if node.process else ""
        self.history.add("excused" if excused else "exit", target=node.name, status=f"{what}\n{log}")

    # --- the control plane, directly

    def api(self, method, path, body=None, give_up=300):
        """An owner's request, repeated until the gateway answers; the document.  None for 404."""
        def ask():
            self.check()
            with contextlib.suppress(OSError):
                r = self.gateway.process.request(method, "/api/v1" + path, body, timeout=5)
                if r.status < 500:
                    return r
            time.sleep(0.2)
            return None

        r = wait_until(ask, give_up, f"{method} {path} is answered")
        assert r.status < 300 or r.status == 404, f"{method} {path}: {r}"
        return r.json() if r.body and r.status < 300 else None

    def rotate(self, agent, pause):
        """A new key into the token file, with those before it for what an instance sealed and could not seal again; after a while the
        old one is revoked."""
        key = self.keys[agent]
        before = [{"key_id": key.id, "key_secret": key.secret}, *self.sealed_by.get(agent, [])][:8]
        self.sealed_by[agent] = before
        doc = self.api("POST", f"/agents/{key.agent}/keys", {"name": "rotated"})
        new = key.file.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(json.dumps({"key_id": doc["key_id"], "key_secret": doc["key_secret"], "previous": before}))
        os.replace(new, key.file)
        old, key.id, key.secret = key.id, doc["key_id"], doc["key_secret"]
        time.sleep(pause)
        self.api("DELETE", f"/keys/{old}")

    # --- the end

    def heal(self):
        for link in self.links.values():
            link.set("pass")
        for n in self.nodes.values():
            if n.disk:
                n.disk.empty()
            n.shim.jump(-n.shim.offset_s)
        for a in self.keys.values():
            self.api("POST", f"/agents/{a.agent}/enable")

    def complaints(self):
        return [f"a sanitizer or an assertion complained in the log of {n.name}" for n in self.nodes.values()
                if n.process and COMPLAINTS.search(n.process.text())]

    def effects(self):
        """{key: [attempt, …]} in the order they came."""
        found = {}
        for key, attempt in self.postgres.sql("SELECT key, attempt FROM effects ORDER BY at"):
            found.setdefault(key, []).append(attempt)
        return found

    def keep_data(self):
        """Copy what lies on file systems that end with us."""
        for n in self.nodes.values():
            if n.disk and n.disk.can:
                subprocess.run(["cp", "-a", n.disk.path, f"{n.disk.path}-kept"], stderr=subprocess.DEVNULL)

    def close(self):
        self.stopping.set()
        for n in self.nodes.values():
            with n.lock:
                n.up = False
                n.reap()
        for s in reversed(self.stack.servers):
            with contextlib.suppress(AssertionError):
                s.stop()
        for n in self.nodes.values():
            if n.disk and n.disk.can:
                subprocess.run(["umount", "-l", n.disk.path], stderr=subprocess.DEVNULL)


def seeded(seed, *what):
    """A generator of its own for each concern, so that one does not shift the others."""
    return random.Random("/".join(str(w) for w in (seed, *what)))
