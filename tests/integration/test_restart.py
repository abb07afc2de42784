"""Stopping and coming back: gateways and agents that restart under load, sockets that outlive a process, peers that vanish, names
whose address changes, keys that are replaced as Kubernetes does it."""
import contextlib
import email.utils
import http.client
import itertools
import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import sys
import threading
import time

import pytest

from fake_agent import Held, Instance
from harness import CA, Process, clean_env, request, run, wait_until
from product import BIN, Gateway, sanitized, write_private
from web import Web

SLOW = 4 if sanitized() else 1


class Client:
    """Submits and waits for ever, as a careful program does: the same key until there is an answer.  .done, .retries, .errors"""

    def __init__(self, gw, agent):
        self.gw, self.agent = gw, agent
        self.done, self.errors, self.retries, self.stop = [], [], 0, False
        self._n = itertools.count()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _call(self, method, path, body=None):
        end = time.monotonic() + 30
        while True:
            try:
                r = self.gw.request(method, path, body, timeout=60)
                if r.status < 300:
                    return r.json()
                what = r
                if r.status != 503:
                    break
            except (OSError, http.client.HTTPException) as e:
                what = e
            if time.monotonic() > end:
                break
            self.retries += 1
            time.sleep(0.02)
        self.errors.append(f"{method} {path}: {what}")
        return None

    def _run(self):
        while not self.stop and not self.errors:
            key = f"{id(self)}-{next(self._n)}"
            op = self._call("POST", "/api/v1/operations", {"type": "health", "input": {}, "agent": self.agent, "idempotency_key": key})
            while op and not op.get("finished_at"):
                op = self._call("GET", f"/api/v1/operations/{op['id']}?wait=30")
            if op:
                self.done.append(op)

    def end(self):
        self.stop = True
        self._thread.join(60)
        assert not self._thread.is_alive() and not self.errors, self.errors


def test_rolling_restart_under_load(stack):
    """Three restarts of the gateway and one of each agent: nothing fails, nothing is done twice in the books."""
    gw = stack.gateway()
    key = gw.agent("warehouse")
    agents = [stack.agent(gw, key=key, name=f"warehouse{n}") for n in range(2)]
    clients = [Client(gw, key.agent) for _ in range(4)]
    commands, stop = [], []

    def commander():  # the same through ctl, which must retry by itself
        while not stop:
            commands.append(stack.ctl(gw, "operations", "run", "--agent", key.agent, "--type", "health", "--wait", "-o", "json",
                                      check=False, timeout=60))

    ctl = Held(commander)

    def progress(n):
        before = [len(c.done) for c in clients]
        wait_until(lambda: all(len(c.done) >= b + n for c, b in zip(clients, before)), 40, f"{n} more operations of each client")

    progress(5)
    for _ in range(3):
        assert gw.stop() == 0
        gw.restart()
        progress(5)
    for agent in agents:
        assert agent.stop() == 0
        agent.start()
        progress(5)
    stop.append(True)
    for c in clients:
        c.end()
    ctl.result(60)
    failed = [p for p in commands if p.returncode]
    assert not failed and len(commands) > 3, failed[0].stderr
    ops = [op for c in clients for op in c.done]
    assert {op["state"] for op in ops} == {"succeeded"}
    for op in ops:
        assert [e["event"] for e in op["events"]].count("succeeded") == 1
    print(f"{len(ops)} operations, {sum(c.retries for c in clients)} retried calls, {len(commands)} commands")


# --- a socket that outlives the process

PASS = """import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])"""


class Activated(Gateway):
    """A gateway whose socket is held by somebody else (here the test, elsewhere systemd)."""

    def start(self):
        if not hasattr(self, "socket"):
            self.socket = socket.create_server(("127.0.0.1", 0), backlog=512)
            self.socket.set_inheritable(True)
        argv = [sys.executable, "-c", PASS, self.socket.fileno(), BIN, "gateway", "--listen", "systemd", "--database",
                f"sqlite:{self.home}/gateway.db", "--blob-dir", self.home / "blobs", "--owner-token-file", self.token_file, *self.flags]
        Process.__init__(self, argv, self.home, self._name, env=clean_env(HOME=self.home), pass_fds=(self.socket.fileno(),))
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.until(self._ready, 30, "GET /readyz answers 200")


def test_a_passed_socket_refuses_nobody(stack):
    """A new connection for each request, none of them tried again: the requests of the gap wait for the next process."""
    gw = stack.add(Activated(stack))
    statuses, errors, end = [], [], []

    def visitor():
        while not end:
            try:
                statuses.append(request("GET", gw.url + "/api/v1/whoami", token=gw.token, timeout=30).status)
            except (OSError, http.client.HTTPException) as e:
                errors.append(repr(e))

    visitors = [Held(visitor) for _ in range(4)]
    for _ in range(3):
        before = len(statuses)
        wait_until(lambda: len(statuses) > before + 50, 20)
        assert gw.stop() == 0
        gw.start()
    end.append(True)
    for v in visitors:
        v.result(30)
    assert not errors and set(statuses) == {200}, (errors[:3], set(statuses))


@pytest.mark.parametrize("env, says", [({}, "no socket was passed"), ({"LISTEN_FDS": 1, "LISTEN_PID": 1}, "no socket was passed")])
def test_no_socket_was_passed(stack, env, says):
    p = run(BIN, "gateway", "--listen", "systemd", "--database", "mem:", "--blob-dir", stack.home / "blobs",
            env=clean_env(HOME=stack.home, **env), check=False)
    assert p.returncode != 0 and says in p.stderr and "socket unit" in p.stderr, p.stderr


def test_queued_connections_are_served(stack):
    """A client whose connection is made when the signal comes, and whose request comes right after it."""
    for n in range(5):
        gw = stack.gateway(name=f"gateway{n}")
        socks = [socket.create_connection(("127.0.0.1", gw.port), 10) for _ in range(20)]
        gw.send(signal.SIGTERM)
        answers = []
        gw.wait_log("gateway is stopping")
        for s in socks:
            s.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        for s in socks:
            with contextlib.closing(s):
                answers.append(s.recv(4096))
        assert gw.popen.wait(10) == 0
        assert [a.split(b"\r\n")[0] for a in answers] == [b"HTTP/1.1 200 OK"] * 20
        assert all(b"connection: close" in a.lower() for a in answers)


# --- stop actions

def busy_agent(stack, *flags, **fields):
    gw = stack.gateway()
    agent = stack.agent(gw, *flags)
    path = stack.home / "numbers.db"
    with contextlib.closing(sqlite3.connect(path)) as c:
        c.execute("CREATE TABLE t (n INTEGER)")
        c.commit()
    gw.integration("numbers", agent.key, "sqlite", {"path": str(path)})
    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 4000000000) SELECT count(*) FROM r"
    op = gw.submit("query", {"sql": endless}, integration="numbers", **fields)
    gw.wait(op, "running", timeout=10)
    return gw, agent, op


@pytest.mark.parametrize("action", ["grace-shutdown", "force-shutdown"])
@pytest.mark.parametrize("delivery, state, event", [("at-least-once", "queued", "released"), ("at-most-once", None, None)])
def test_stop_actions_hand_back_at_once(stack, action, delivery, state, event):
    gw, agent, op = busy_agent(stack, "--stop-action", action, "--stop-timeout", "60s", delivery=delivery)
    began = time.monotonic()
    assert agent.stop(signal.SIGTERM) == 0
    took = time.monotonic() - began
    assert took < 2.5 * SLOW, agent.tail()
    doc = gw.operation(op)  # at once: by the goodbye, not by the end of the lease
    if state:
        assert (doc["state"], doc["events"][-1]["event"]) == (state, event), doc
        return
    if action == "force-shutdown" and doc["state"] == "running":  # its result came into the spool at the last moment, and stays there
        agent.start()
        doc = gw.wait(op, "cancelled", timeout=20)
    # never started twice: it was cancelled, or nobody knows
    assert doc["state"] == "cancelled" if action == "grace-shutdown" else doc["state"] in ("cancelled", "unknown"), doc
    assert [e["event"] for e in doc["events"]].count("leased") == 1, doc


@pytest.mark.parametrize("action", ["drain", "grace-shutdown", "force-shutdown"])
def test_an_idle_agent_ends_at_once(stack, action):
    gw = stack.gateway()
    agent = stack.agent(gw, "--stop-action", action, "--stop-timeout", "60s")
    took = []
    for n in range(3):  # the best of three: the machine is busy with other things, too
        if n:
            agent.start()
        began = time.monotonic()
        assert agent.stop(signal.SIGTERM) == 0
        took.append(time.monotonic() - began)
    assert min(took) < 0.2 * SLOW, took
    wait_until(lambda: gw.api("GET", f"/agents/{agent.key.agent}")["instances"] == [], 3, "the gateway has heard its goodbye")


def test_impossible_sums_are_refused(stack):
    key = write_private(stack.home / "key.json", '{"key_id": "k", "key_secret": "s"}')
    for flags, env, says in [
            (["--stop-timeout", "1s"], {}, "too short: it takes at least 2 s = 0.5 to cancel"),
            (["--stop-timeout", "60s"], {"POSTERN_TERMINATION_GRACE_SECONDS": 30}, "killed after 30 s"),
            (["--stop-timeout", "0"], {"POSTERN_TERMINATION_GRACE_SECONDS": 30}, "no limit"),
            (["--stop-timeout", "0"], {"POSTERN_STOP_ACTION": "grace-shutdown"}, "--stop-action drain only")]:
        p = run(BIN, "agent", "--gateway-url", "http://127.0.0.1:1", "--token-file", key, "--listen", "127.0.0.1:0", "--spool-dir",
                stack.home / "spool", *flags, env=clean_env(**env), check=False, timeout=20)
        assert p.returncode == 64 and says in p.stderr and "hint: " in p.stderr, p.stderr


# --- the link

def test_both_ends_ask_whether_the_other_is_there(stack):
    """Half-open connections end: TCP keepalive runs on the exchange's connection, at the agent and at the gateway."""
    if not shutil.which("ss"):
        pytest.skip("needs ss (iproute2)")
    gw = stack.gateway()
    stack.agent(gw)

    def timers():
        out = run("ss", "-Htno", "state", "established", f"( sport = :{gw.port} or dport = :{gw.port} )").stdout
        ends = [line.split() for line in out.splitlines()]
        return {"gateway" if e[2].endswith(f":{gw.port}") else "agent" for e in ends if "timer:(keepalive," in e[-1]}

    wait_until(lambda: timers() == {"agent", "gateway"}, 10, "both ends have a keepalive timer")


class Forwarder:
    """Passes connections to one address on to a port of 127.0.0.1."""

    def __init__(self, address, port, to):
        self.seen, self.to, self._open, self._frozen = 0, to, [], set()
        self.late = 0  # seconds that what comes back takes
        self.listener = socket.create_server((address, port), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                a, _ = self.listener.accept()
            except OSError:
                return
            self.seen += 1
            b = socket.create_connection(("127.0.0.1", self.to))
            self._open += [a, b]
            for x, y, back in ((a, b, False), (b, a, True)):
                threading.Thread(target=self._pass, args=(x, y, back), daemon=True).start()

    def _pass(self, x, y, back):
        with contextlib.suppress(OSError):
            while data := x.recv(1 << 16):
                if back and self.late:
                    time.sleep(self.late)
                if x not in self._frozen:
                    y.sendall(data)
        with contextlib.suppress(OSError):
            y.shutdown(socket.SHUT_RDWR)

    def freeze(self):
        """What comes on today's connections is taken and goes nowhere: they are half-open, and acknowledged.  New ones work."""
        self._frozen |= set(self._open)

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for s in self._open:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()


@pytest.mark.parametrize("trouble", ["half-open", "slow"])
def test_a_stop_delivers_all_the_same(stack, trouble):
    """A result that meets a connection that hangs goes by another one within the stop's time, and one whose answer is slow gets its time."""
    gw = stack.gateway()
    way = Forwarder("127.0.0.1", 0, gw.port)
    agent = stack.agent(gw, "--publishers", "1", "--stop-timeout", "25s", gateway_url=f"http://127.0.0.1:{way.port}")
    assert gw.run("health", agent="agent")["state"] == "succeeded"  # the publisher has a connection now
    pg = stack.postgres(tls=False)
    gw.integration("pg", agent.key, "postgres", pg.connect_args(sslmode="disable"))
    with pg.admin() as lock, lock.cursor() as cur:
        cur.execute("SELECT pg_advisory_lock(1)")
        ops = [gw.submit("query", {"sql": "SELECT pg_advisory_lock_shared(1), repeat('x', 100000)"}, integration="pg") for _ in range(3)]
        for op in ops:
            gw.wait(op, "running", timeout=20)
        if trouble == "half-open":
            way.freeze()
        else:
            way.late = 3
        agent.send(signal.SIGTERM)
        agent.wait_log("agent is stopping")
        cur.execute("SELECT pg_advisory_unlock(1)")
    assert agent.popen.wait(60) == 0
    for op in ops:
        doc = gw.operation(op)
        assert (doc["state"], doc["attempt"]) == ("succeeded", 1), agent.tail()
    assert "stay in the spool" not in agent.text()
    way.close()


@pytest.mark.skipif(os.getuid() != 0, reason="a private /etc/hosts needs a mount namespace")
def test_a_name_that_moves_is_followed(stack):
    """The name is looked up at each new connection: a gateway that moves is found, without a restart of the agent."""
    if run("unshare", "-m", "true", check=False).returncode:
        pytest.skip("no mount namespaces here")
    gw = stack.gateway()
    first = Forwarder("127.0.0.2", 0, gw.port)
    hosts = stack.home / "hosts"
    hosts.write_text("127.0.0.2 gateway.test\n")
    key = gw.agent("moving")
    argv = ["unshare", "-m", "sh", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "sh", BIN, "agent", "--gateway-url",
            f"http://gateway.test:{first.port}", "--token-file", key.file, "--listen", "127.0.0.1:0", "--spool-dir",
            stack.home / "spool"]
    agent = stack.add(Process(argv, stack.home, "moving", env=clean_env(HOME=stack.home)))
    assert gw.run("health", agent="moving")["state"] == "succeeded"
    assert first.seen
    second = Forwarder("127.0.0.3", first.port, gw.port)
    hosts.write_text("127.0.0.3 gateway.test\n")  # in place: the mount is of this file
    first.close()
    assert gw.run("health", agent="moving", timeout=20 * SLOW)["state"] == "succeeded"
    assert second.seen and agent.running
    assert agent.stop() == 0
    second.close()


def test_a_ca_that_changes_is_read_again(stack):
    """The gateway comes back with a certificate of another CA: what the agent trusts is in its file, and is read anew."""
    gw = stack.gateway(tls=True)
    trusted = stack.home / "trusted.pem"
    shutil.copy(stack.ca.cert, trusted)
    agent = stack.agent(gw, "--ca-file", trusted)
    other = CA(stack.home / "other", "Another Test CA")
    gw.stop()
    cert, key = other.issue("gateway")
    gw.flags, gw.ca_file = ("--tls-cert", cert, "--tls-key", key), other.cert
    gw.restart()
    agent.wait_log("Another Test CA", 20)
    shutil.copy(other.cert, trusted)
    wait_until(agent.ready, 20 * SLOW, "the link is up with the new CA")
    assert gw.run("health", agent="agent")["state"] == "succeeded"


def test_a_renewed_certificate_needs_no_restart(stack):
    """New connections see the new one, those that are open stay, and files that do not fit change nothing."""
    gw = stack.gateway(tls=True)
    agent = stack.agent(gw)
    cert, key = stack.ca.home / "gateway.pem", stack.ca.home / "gateway.key"

    def seen(version=ssl.TLSVersion.TLSv1_3):
        context = ssl._create_unverified_context()
        context.maximum_version = version
        with socket.create_connection(("127.0.0.1", gw.port), 5) as s, context.wrap_socket(s) as t:
            return ssl.DER_cert_to_PEM_cert(t.getpeercert(True))

    def expiry():
        name = "postern_gateway_certificate_expiry_timestamp_seconds "
        return next(float(line.split()[-1]) for line in gw.request("GET", "/metrics").text.splitlines() if line.startswith(name))

    first, until = seen(), expiry()
    assert first.strip() == cert.read_text().strip()
    stack.ca.issue("gateway", days=9)
    wait_until(lambda: seen() != first, 5 * SLOW, "the new one is shown")
    second = seen()
    assert second.strip() == cert.read_text().strip() and 6 < (expiry() - until) / 86400 < 8
    assert gw.run("health", agent="agent")["state"] == "succeeded" and agent.text().count("link is up") == 1

    good = cert.read_text()
    cert.write_text("-----BEGIN CERTIFICATE-----\nbroken")
    wait_until(lambda: seen() == second and "cannot be used; the certificate before stays" in gw.text(), 5 * SLOW, "told, and the one before stays")
    cert.write_text(good)  # and a chain; of another kind, for TLS 1.2, too
    wait_until(lambda: seen() == second and gw.text().count("the TLS certificate was read again") == 2, 5 * SLOW, "read again")
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=rsa", "-days", 3, "-keyout", key, "-out", cert)
    own = cert.read_text()
    cert.write_text(own + stack.ca.cert.read_text())
    wait_until(lambda: seen(ssl.TLSVersion.TLSv1_2).strip() == own.strip(), 5 * SLOW, "the RSA one is shown")
    assert agent.stop() == 0 and gw.stop() == 0


def test_ctl_obeys_retry_after(home):
    """In seconds and as a date, for what may be repeated and not beyond --retry-for."""
    said, seen = [], []

    def answer(r):
        seen.append(time.monotonic())
        status, after = said.pop(0) if said else (200, None)
        return status, b'{"items": []}' if status == 200 else b"", {"Retry-After": after} if after else {}

    token = write_private(home / "token", "pts_" + "x" * 40)

    def agents(*flags):
        seen.clear()
        return run(BIN, "ctl", "agents", "list", "--url", gateway.url, "--token-file", token, *flags,
                   env=clean_env(HOME=home), check=False)

    with Web(answer) as gateway:
        for status in (503, 429):
            for form in (lambda: "2", lambda: email.utils.formatdate(time.time() + 3, usegmt=True)):
                said[:] = [(status, form())]
                p = agents()
                assert p.returncode == 0 and p.stderr.count("--retry-for") == 1, p.stderr
                assert len(seen) == 2 and 1.9 < seen[1] - seen[0] < 5, seen
        said[:] = [(503, "60")] * 2
        p = agents("--retry-for", "10s")  # it would not help: no wait
        assert p.returncode == 69 and len(seen) == 1


def test_a_key_swapped_by_symlinks(stack):
    """A mounted Secret: token.json -> ..data/token.json, ..data -> ..2026_1, and the second link is replaced."""
    gw = stack.gateway()
    mount = stack.home / "secret"

    def publish(name, key):
        folder = mount / name
        folder.mkdir(parents=True)
        write_private(folder / "token.json", key.file.read_text())
        link = mount / "..data_tmp"
        link.symlink_to(name)
        os.replace(link, mount / "..data")

    first = gw.agent("warehouse")
    publish("..2026_1", first)
    (mount / "token.json").symlink_to("..data/token.json")
    agent = stack.agent(gw, "--token-file", mount / "token.json", key=first)
    second = gw.key(first.agent, "second")
    publish("..2026_2", second)
    began = time.monotonic()
    agent.wait_log(f"read again.*{second.id}", 5)  # the exchange that waits is not waited for
    assert time.monotonic() - began < 3 * SLOW
    gw.api("DELETE", f"/keys/{first.id}")
    assert gw.run("health", agent=first.agent)["state"] == "succeeded"
    assert "refuses the agent's key" not in agent.text()

    # revoked before the file changed: the agent is shut out, and recovers by itself
    third = gw.key(first.agent, "third")
    gw.api("DELETE", f"/keys/{second.id}")
    agent.wait_log("refuses the agent's key")
    publish("..2026_3", third)
    wait_until(agent.ready, 6 * SLOW, "the link is up with the third key")


def test_a_stopping_gateway_says_when_to_come_back(stack):
    """spread_ms grows with those who wait: they come back over a while, and not in one wave."""
    gw = stack.gateway()
    key = gw.agent("crowd")
    crowd = [Instance(gw, key, slots=1) for _ in range(40)]
    for i in crowd:
        i.connect()
    held = [i.hold() for i in crowd]
    wait_until(lambda: len(gw.api("GET", f"/agents/{key.agent}")["instances"]) == 40, 10)
    wait_until(lambda: re.search(r"^postern_gateway_http_held 40$", gw.request("GET", "/metrics").text, re.MULTILINE), 10)
    gw.send(signal.SIGTERM)
    spreads = {h.result(5 * SLOW).get("spread_ms", 0) for h in held}
    assert len(spreads) == 1 and 10 <= spreads.pop() <= 20
