"""The agent as its neighbours see it: probes, health, metrics, keys that change, errors at start, signals."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import threading
import time

import pytest

import prometheus
from harness import can_connect, clean_env, frozen, request, run, wait_until
from product import BIN, sanitized, write_private
from web import Web

SLOW = 4 if sanitized() else 1


def reachability(agent):
    """As in the manual: curl."""
    return run("curl", "-s", "-X", "POST", f"http://localhost:{agent.port}/api/v1/test/reachability").stdout


def not_ready(agent, text, timeout=10):
    """Wait until /readyz is 503 and says text; its document."""
    def there():
        r = agent.local("GET", "/readyz")
        return r.json() if r.status == 503 and text in r.text else None

    doc = wait_until(there, timeout, f"/readyz is 503 with {text!r}; now {agent.local('GET', '/readyz')}")
    assert doc["ok"] is False
    return doc


def slow_source(home, name="numbers.db"):
    """A SQLite file, and a statement on it that runs for as many seconds as its parameter says, about."""
    path = home / name
    with contextlib.closing(sqlite3.connect(path)) as c:
        c.execute("CREATE TABLE t (n INTEGER)")
        c.commit()
    return path, "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 4000000000) SELECT count(*) FROM r"


# --- probes

def test_reachability_and_readiness_follow_the_link(stack):
    gw = stack.gateway()
    agent = stack.agent(gw)
    out = reachability(agent)
    assert '"ok": true' in out
    doc = json.loads(out)
    assert doc["gateway_url"] == gw.url and doc["key_id"] == agent.key.id and doc["gateway"]["agent_name"] == "agent"
    assert agent.key.secret not in out

    gw.stop()
    doc = not_ready(agent, "connect_failed")
    assert doc["reason"].startswith("the link is down: 127.0.0.1") and "HTTPS_PROXY" in doc["hint"]
    out = reachability(agent)
    assert '"ok": false' in out
    error = json.loads(out)["error"]
    assert error["code"] == "connect_failed" and f"127.0.0.1:{gw.port}" in error["message"] and error["retryable"] is True
    assert agent.local("POST", "/api/v1/test/reachability").status == 503
    assert agent.live() and agent.local("GET", "/api/v1/test/healthcheck").status == 200

    gw.restart()
    wait_until(agent.ready, 10, "/readyz is 200 again")
    assert '"ok": true' in reachability(agent)


def test_revoked_key(stack):
    gw = stack.gateway()
    agent = stack.agent(gw)
    began = time.monotonic()
    gw.api("DELETE", f"/keys/{agent.key.id}")
    doc = not_ready(agent, "unauthenticated", 5)  # although an exchange was waiting
    assert doc["reason"].startswith("the gateway refuses the agent's key") and "keys create" in doc["hint"]
    assert time.monotonic() - began < 5
    error = json.loads(reachability(agent))["error"]
    assert error["code"] == "unauthenticated" and "revoked" in error["message"] and "keys create" in error["hint"]
    assert agent.live()
    assert re.search(r"the gateway refuses the agent's key", agent.text())


def test_a_revoked_key_gets_no_work(stack):
    """Not even by the exchange that was waiting when it was revoked."""
    gw = stack.gateway()
    agent = stack.agent(gw)
    gw.api("DELETE", f"/keys/{agent.key.id}")
    op = gw.submit("health", agent=agent.key.agent)
    not_ready(agent, "unauthenticated", 5)
    assert gw.operation(op)["state"] == "queued"


class Refuser(Web):
    """Passes requests on to a gateway, but answers results (PUT) with 503 until .let is set: an outage of one half."""

    def __init__(self, gateway):
        self.let = False

        def answer(r):
            if r.method == "PUT" and not self.let:
                return 503, b"{}", {}
            headers = {k: v for k, v in r.headers.items() if k in ("Authorization", "Content-Type")}
            a = request(r.method, gateway.url + r.path, r.body, headers, timeout=60)
            return a.status, a.body, {}

        super().__init__(answer)


def test_full_spool(stack):
    """The link is up, results are not taken: the spool fills, readiness says so, no more work is leased; then all comes through."""
    gw = stack.gateway()
    half = stack.add(Refuser(gw))
    agent = stack.agent(gw, "--spool-max-bytes", "16M", gateway_url=half.url)
    path, _ = slow_source(stack.home)
    gw.integration("noise", agent.key, "sqlite", {"path": str(path)})
    sql = ("WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 4400) "
           "SELECT hex(randomblob(1000)) FROM r")  # 9 MB of text, half of that compressed
    ops = []
    for n in range(4):  # one after the other: three fit, and more than three quarters are then in use
        ops.append(gw.submit("query", {"sql": sql}, integration="noise"))
        wait_until(lambda: agent.local("GET", "/api/v1/test/health").json()["spool"]["entries"] == n + 1, 20, f"result {n} is in the spool")
    doc = not_ready(agent, "spool is full", 30)
    assert doc["code"] == "limit_exceeded" and "--spool-max-bytes" in doc["hint"]
    assert agent.live()
    health = agent.local("GET", "/api/v1/test/health").json()
    assert health["spool"]["full"] is True and health["spool"]["bytes"] <= 16 << 20 and health["link"]["state"] == "up"
    metrics = prometheus.parse(agent.local("GET", "/metrics").text)
    assert prometheus.value(metrics, "postern_agent_spool_full") == 1 and prometheus.value(metrics, "postern_agent_accepting") == 0

    half.let = True
    wait_until(agent.ready, 45, "/readyz is 200 again")
    ended = [gw.wait(op) for op in ops]
    assert [op["state"] for op in ended] == ["succeeded"] * 3 + ["failed"]
    assert ended[3]["error"]["code"] == "limit_exceeded" and ended[0]["result"]["rows"] == 4400
    assert gw.run("health", agent=agent.key.agent)["state"] == "succeeded"


def test_liveness_tells_the_truth(stack):
    """One thread of an agent is held.  Liveness of that agent fails and names the loop, and recovers; that of an agent whose
    gateway does not answer at all stays, since a restart would not help it."""
    gw, mute = stack.gateway(), stack.gateway(name="mute")
    link, publisher, waiting = (stack.agent(g, name=n) for g, n in ((gw, "held-link"), (gw, "held-publisher"), (mute, "waiting")))
    probes = [(link, "link", "the link's loop does not move"), (publisher, "publisher-1", "a publisher's loop does not move")]
    for agent in (link, publisher, waiting):
        assert agent.local("GET", "/livez").json() == {"ok": True}
    mute.send(signal.SIGSTOP)
    answer = []
    unanswered = threading.Thread(target=lambda: answer.append(json.loads(reachability(waiting))))
    unanswered.start()
    try:
        with contextlib.ExitStack() as held:
            for agent, thread, _ in probes:
                held.enter_context(frozen(agent.pid, thread))
            left = list(probes)

            def all_seen():
                assert waiting.live()
                left[:] = [p for p in left if p[0].local("GET", "/livez").status == 200]
                return not left

            wait_until(all_seen, 40, "both loops are reported", every=0.25)
            for agent, _, why in probes:
                for path in ("/livez", "/api/v1/test/healthcheck"):
                    r = agent.local("GET", path)
                    assert r.status == 503 and r.json() == {"ok": False, "reason": why}
                health = agent.local("GET", "/api/v1/test/health").json()
                assert health["ok"] is False and health["stuck"] == why
        for agent, _, _ in probes:
            wait_until(agent.live, 10, "/livez is 200 again")
        unanswered.join(30)
        assert answer[0]["ok"] is False and answer[0]["error"]["code"] == "timeout" and answer[0]["error"]["retryable"]
    finally:
        mute.send(signal.SIGCONT)
    assert gw.run("health", agent=link.key.agent)["state"] == "succeeded"
    assert gw.run("health", agent=publisher.key.agent)["state"] == "succeeded"
    wait_until(waiting.ready, 40, "the gateway that woke up is used again")


# --- health and metrics

def test_nothing_secret_is_shown(stack):
    secrets = {"POSTERN_CREDENTIAL_SALES": '{"connect_args": {"password": "hidden-in-env"}}',
               "HTTPS_PROXY": "http://ada:hidden-in-proxy@127.0.0.1:1", "NO_PROXY": "127.0.0.1", "POSTERN_LOG_LEVEL": "debug",
               "SOMETHING": "hidden-something"}
    gw = stack.gateway(tls=True)
    agent = stack.agent(gw, env=secrets)
    ops = [gw.run(t, agent=agent.key.agent) for t in ("health", "logs", "metrics")]
    assert [op["state"] for op in ops] == ["succeeded"] * 3
    shown = [agent.local("GET", p).text for p in ("/api/v1/test/health", "/metrics", "/livez", "/readyz")]
    shown += [reachability(agent), agent.text(), json.dumps(ops), json.dumps(gw.rows(ops[1]))]
    shown.append(run(*agent.argv, "--print-config", env=clean_env(**secrets)).stdout)
    assert len(shown[-1].splitlines()) > 15 and "environment HTTPS_PROXY" in shown[-1]
    for text in shown:
        assert "hidden-" not in text and agent.key.secret not in text
    health = json.loads(shown[0])
    assert health["ok"] is True and health["link"]["agent"] == agent.key.agent and health["key_id"] == agent.key.id
    assert health["slots"] == {"total": 18, "busy": 0, "running": 0} and health["spool"]["entries"] == 0
    gw_lines = [json.dumps(line) for line in gw.rows(ops[1])]
    assert any("link is up" in line for line in gw_lines)


def test_metrics(stack):
    gw = stack.gateway()
    agent = stack.agent(gw, "--slots", "7")
    assert gw.run("health", agent=agent.key.agent)["state"] == "succeeded"
    assert gw.run("network.tcp", {"host": "127.0.0.1", "port": 1}, agent=agent.key.agent)["state"] == "failed"
    version = run(BIN, "--version").stdout.split()[-1]

    def settled():
        m = prometheus.parse(agent.local("GET", "/metrics").text)
        return m if prometheus.value(m, "postern_agent_results_delivered_total") == 2 else None

    m = wait_until(settled, 5, "both results are counted")
    for name, want in (("app_agent_status", 1), ("app_active_task_count", 0), ("app_active_request_count", 1),
                       ("app_open_sessions_count", 1), ("postern_agent_slots", 7), ("postern_agent_link_up", 1),
                       ("postern_agent_leases_total", 2)):
        assert prometheus.value(m, name) == want, name
    assert prometheus.value(m, "postern_agent_operation_seconds_count", type="health") == 1
    assert prometheus.value(m, "app_version_info", version=version) == 1
    assert prometheus.value(m, "postern_agent_results_total", type="health", status="succeeded") == 1
    assert prometheus.value(m, "postern_agent_results_total", type="network.tcp", status="failed") == 1
    r = agent.local("GET", "/actuator/prometheus")
    assert r.status == 200 and r.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert prometheus.parse(r.text).keys() == m.keys()
    of_gateway = prometheus.parse(gw.request("GET", "/metrics").text)
    assert all(n.startswith(("postern_", "process_")) for n in of_gateway)


# --- keys

def test_key_is_rotated_without_a_restart(stack):
    gw = stack.gateway()
    agent = stack.agent(gw)
    old = agent.key
    path, _ = slow_source(stack.home)
    gw.integration("numbers", old, "sqlite", {"path": str(path)})
    run_sql = {"sql": "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < $1) SELECT count(*) FROM r"}
    ops = [gw.submit("query", {**run_sql, "params": [300000 * (n % 4) + 1]}, integration="numbers", max_attempts=1) for n in range(12)]
    new = gw.key(old.agent, "second")
    # as Kubernetes does it: another file in its place
    shutil.copy(new.file, old.file.with_suffix(".new"))
    os.replace(old.file.with_suffix(".new"), old.file)
    gw.api("DELETE", f"/keys/{old.id}")
    ops += [gw.submit("query", {**run_sql, "params": [n]}, integration="numbers", max_attempts=1) for n in range(12)]
    for op in ops:
        assert gw.wait(op, timeout=30)["state"] == "succeeded"
    wait_until(agent.ready, 5, "the link is up with the new key")
    assert json.loads(reachability(agent))["key_id"] == new.id
    assert "was read again" in agent.text() and "refuses the agent's key" not in agent.text()

    # a key that came too late: the link is refused, and comes back soon after the file changes, not after the 30 s
    third = gw.key(old.agent, "third")
    gw.api("DELETE", f"/keys/{new.id}")
    not_ready(agent, "unauthenticated", 5)
    write_private(old.file, "{")  # half-written: the old key stays, and it is said once
    agent.wait_log("cannot be used")
    write_private(old.file, third.file.read_text())
    wait_until(agent.ready, 6, "the link is up with the third key")


def test_token_file_of_the_other_names(stack):
    gw = stack.gateway()
    key = gw.agent("seeded")
    write_private(key.file, json.dumps({"mcd_id": key.id, "mcd_token": key.secret}))
    agent = stack.agent(gw, key=key)
    assert gw.run("health", agent="seeded")["state"] == "succeeded"
    assert json.loads(reachability(agent))["key_id"] == key.id


# --- start

GOOD = json.dumps({"key_id": "key_1", "key_secret": "s"})


class Start:
    """What `postern agent` is started with; the rows below change it."""

    def __init__(self, home):
        self.home = home
        self.key = write_private(home / "key.json", GOOD)
        self.flags = {"gateway-url": "http://127.0.0.1:1", "token-file": self.key, "listen": "127.0.0.1:0", "spool-dir": home / "spool"}
        self.more, self.env, self.close = [], {}, []

    def run(self):
        argv = [x for k, v in self.flags.items() for x in (f"--{k}", v)]
        try:
            return run(BIN, "agent", *argv, *self.more, env=clean_env(**self.env), check=False, timeout=20)
        finally:
            for c in self.close:
                c.close()


def missing(s):
    s.flags["token-file"] = s.home / "nowhere.json"


def token(text):
    return lambda s: write_private(s.key, text)


def spool_is_a_file(s):
    s.flags["spool-dir"] = s.key


def spool_unwritable(s):
    s.flags["spool-dir"] = "/proc/postern"


def taken(s):
    c = socket.create_server(("127.0.0.1", 0))
    s.close.append(c)
    s.flags["listen"] = f"127.0.0.1:{c.getsockname()[1]}"


def flag(name, value):
    return lambda s: s.flags.update({name: value})


def more(*words):
    return lambda s: s.more.extend(words)


def env(**names):
    return lambda s: s.env.update(names)


def without(name):
    return lambda s: s.flags.pop(name)


STARTS = [
    ("token file is missing", missing, 66, r"token file: .*nowhere\.json.*No such file", r"mount the agent's key|--token-file"),
    ("placeholder", token('{"key_id": "key_1", "key_secret": "<your secret>"}'), 64, r"key_secret.* still is a placeholder", r"keys create"),
    ("seed documents' placeholder", token('{"mcd_id": "replace-me", "mcd_token": "x"}'), 64, r"still is a placeholder", r"keys create"),
    ("not JSON", token("key_1:secret-in-file"), 64, r"key\.json' is not a JSON object", r"key_id"),
    ("not an object", token('["secret-in-file"]'), 64, r"is not a JSON object", r"key_id"),
    ("no secret", token('{"key_id": "key_1"}'), 64, r"no text member \"key_secret\"", r"keys create"),
    ("empty", token(""), 64, r"is not a JSON object", r"key_id"),
    ("spool is a file", spool_is_a_file, 64, r"spool: '.*key\.json' is not a folder", r"must be able to create and write"),
    ("spool cannot be made", spool_unwritable, 66, r"spool: create folder '/proc/postern'", r"must be able to create and write"),
    ("port in use", taken, 69, r"\(--listen 127\.0\.0\.1:\d+\).*in use", r"another program has this port"),
    ("listen is nonsense", flag("listen", "here"), 64, r"here", r"."),
    ("unknown variable", env(POSTERN_SLOT="3"), 64, r"POSTERN_SLOT; did you mean POSTERN_SLOTS\?", r"."),
    ("unknown variable, nothing near", env(POSTERN_XYZZY_PLUGH="3"), 64, r"unknown environment variable POSTERN_XYZZY_PLUGH", r"."),
    ("unknown flag", more("--spool-dri", "x"), 64, r"--spool-dri.*did you mean.*--spool-dir", r"--help"),
    ("a word too many", more("now"), 64, r"unexpected argument 'now'", r"--help"),
    ("slots: none", flag("slots", "0"), 64, r"--slots.*0", r"."),
    ("slots: too many", flag("slots", "5000"), 64, r"--slots.*1024", r"."),
    ("slots: text", env(POSTERN_PUBLISHERS="three"), 64, r"POSTERN_PUBLISHERS.*three", r"."),
    ("log level", flag("log-level", "verbose"), 64, r"--log-level.*debug", r"."),
    ("time", flag("stop-timeout", "5 parsecs"), 64, r"--stop-timeout", r"."),
    ("size", flag("spool-max-bytes", "1M"), 64, r"--spool-max-bytes.*16", r"."),
    ("scheme", flag("gateway-url", "htps://gateway.example.com"), 64, r"--gateway-url: 'htps' is neither https nor http", r"https://"),
    ("no scheme", flag("gateway-url", "gateway.example.com"), 64, r"--gateway-url", r"https://"),
    ("password in the URL", flag("gateway-url", "https://a:secret-in-url@gw.example.com"), 64, r"no user or password", r"token file"),
    ("no gateway", without("gateway-url"), 64, r"--gateway-url is missing.*POSTERN_GATEWAY_URL", r"--help"),
    ("no token file", without("token-file"), 64, r"--token-file is missing.*POSTERN_TOKEN_FILE", r"--help"),
    ("CA is missing", flag("ca-file", "/nowhere/ca.pem"), 64, r"/nowhere/ca\.pem", r"PEM"),
    ("CA is no certificate", flag("ca-file", "/etc/hostname"), 64, r"no certificate in PEM format", r"BEGIN CERTIFICATE"),
    ("range", flag("allowed-cidrs", "10.0.0.0/33"), 64, r"allowed-cidrs.*10\.0\.0\.0/33", r"10\.0\.0\.0/8"),
    ("proxy", env(HTTPS_PROXY="gopher://ada:secret-in-proxy@proxy:3128"), 64, r"HTTPS_PROXY.*gopher", r"http://user:password"),
]


@pytest.mark.parametrize("change, code, message, hint", [row[1:] for row in STARTS], ids=[row[0] for row in STARTS])
def test_start_errors(change, code, message, hint, home):
    start = Start(home)
    change(start)
    p = start.run()
    first, *rest = p.stderr.splitlines()
    assert p.returncode == code, p.stderr
    assert first.startswith("postern agent: ") and re.search(message, first), p.stderr
    assert rest and re.search(r"^  hint: .*(?:" + hint + ")", rest[0]), p.stderr
    assert p.stdout == "" and "secret-in-" not in p.stderr and "Sanitizer" not in p.stderr


def test_second_agent_on_the_same_spool(stack):
    gw = stack.gateway()
    agent = stack.agent(gw)
    p = run(BIN, "agent", "--gateway-url", gw.url, "--token-file", agent.key.file, "--spool-dir", agent.home / "spool", "--listen", "",
            check=False, timeout=20)
    assert p.returncode == 65 and f"in use by process {agent.pid}" in p.stderr and "--spool-dir" in p.stderr
    assert agent.ready()
    agent.kill()  # the lock ends with its owner
    agent.start()


def test_settings_of_other_commands_are_no_error(home):
    """One environment for all of them (a compose file, a shell) is normal."""
    s = Start(home)
    s.env = {"POSTERN_API_TOKEN": "hidden-token", "POSTERN_DATABASE": "sqlite:x", "POSTERN_SLOTS": "4", "HTTP_PROXY": "http://u:hidden-pw@p:1"}
    s.more = ["--print-config"]
    p = s.run()
    assert p.returncode == 0 and "hidden-" not in p.stdout + p.stderr
    assert re.search(r"^slots +4 +environment POSTERN_SLOTS$", p.stdout, re.MULTILINE)
    assert re.search(r"^http-proxy +\S*\*\*\*\*\S* +environment HTTP_PROXY$", p.stdout, re.MULTILINE)
    assert re.search(r"^publishers +3 +default$", p.stdout, re.MULTILINE)


def commands(words=()):
    """Every command, found as a reader would: by the help of the one above."""
    yield words
    listed = re.search(r"^Commands:\n((?:  \S.*\n(?:   +.*\n)*)+)", run(BIN, *words, "--help").stdout, re.MULTILINE)
    for line in listed[1].splitlines() if listed else ():
        if m := re.match(r"  (\S+)  ", line):
            yield from commands((*words, m[1]))


def test_help_of_every_command():
    found = list(commands())
    assert {("demo",), ("gateway",), ("agent",), ("ctl", "operations", "run"), ("ctl", "keys", "create")} <= set(found)
    assert len(found) > 25
    for words in found:
        p = run(BIN, *words, "--help")
        assert p.stderr == "" and p.stdout.startswith(f"Usage: postern{''.join(' ' + w for w in words)} ")
        assert max(map(len, p.stdout.splitlines())) <= 100, words
        assert run(BIN, "help", *words).stdout == p.stdout


# --- signals

def busy_agent(stack, *flags):
    gw = stack.gateway()
    agent = stack.agent(gw, *flags)
    path, endless = slow_source(stack.home)
    gw.integration("numbers", agent.key, "sqlite", {"path": str(path)})
    op = gw.submit("query", {"sql": endless}, integration="numbers")
    gw.wait(op, "running", timeout=10)
    return gw, agent, op


def test_ctrl_c_ends_an_idle_agent_at_once(stack):
    gw = stack.gateway()
    agent = stack.agent(gw)
    began = time.monotonic()
    assert agent.stop(signal.SIGINT) == 0
    assert time.monotonic() - began < 2 * SLOW
    assert "agent has stopped" in agent.text() and not can_connect(agent.port)
    wait_until(lambda: gw.api("GET", f"/agents/{agent.key.agent}")["instances"] == [], 3, "the gateway has heard its goodbye")


def test_sigterm_gives_running_work_back(stack):
    """Several agents at once: what the link says while it stops comes from three threads, and must not get lost between them."""
    gw, agent, op = busy_agent(stack, "--stop-timeout", "3s")
    busy = [(agent, op)]
    for n in range(5):
        agent = stack.agent(gw, "--stop-timeout", "3s", name=f"more{n}")
        path, endless = slow_source(stack.home, f"more{n}.db")
        gw.integration(f"numbers{n}", agent.key, "sqlite", {"path": str(path)})
        busy.append((agent, gw.submit("query", {"sql": endless}, integration=f"numbers{n}")))
    for _, op in busy:
        gw.wait(op, "running", timeout=10)
    began = time.monotonic()
    for agent, _ in busy:
        agent.send(signal.SIGTERM)
    not_ready(busy[0][0], "stopping", 2)
    assert busy[0][0].live()
    for agent, op in busy:
        assert agent.popen.wait(20) == 0
        doc = gw.operation(op)  # at once, by the goodbye and not by the end of the lease
        assert doc["state"] == "queued" and [e["event"] for e in doc["events"]][-1] == "released", doc["events"]
    assert time.monotonic() - began < 3 + 2 * SLOW


def test_second_sigterm_ends_a_busy_agent_at_once(stack):
    gw, agent, op = busy_agent(stack, "--stop-timeout", "60s")
    agent.send(signal.SIGTERM)
    agent.wait_log("agent is stopping")
    not_ready(agent, "stopping", 2)
    began = time.monotonic()
    agent.send(signal.SIGTERM)
    code = agent.popen.wait(20)
    assert time.monotonic() - began < 4 * SLOW
    assert code == 0, agent.tail()
    assert gw.operation(op)["state"] in ("running", "queued")
    assert "agent is stopping" in agent.text()
