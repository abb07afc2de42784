"""Metrics, alert rules, the dashboard and the signal to scale on: all of it against a real Prometheus that scrapes a real gateway and a
real agent under work."""
import ctypes
import json
import os
import pathlib
import re
import sqlite3
import threading
import time
import urllib.parse

import pytest
import yaml

import prometheus
from harness import Process, libc, request, retry_port, run, wait_until
from product import BIN, ROOT

RULES = ROOT / "deploy/prometheus/postern.rules.yml"
RULES_TEST = ROOT / "deploy/prometheus/postern.rules.test.yml"
ADAPTER = ROOT / "deploy/prometheus/adapter-rules.yml"
DASHBOARD = ROOT / "deploy/grafana/postern.json"
DOCUMENT = ROOT / "docs/metrics.md"
# What a process has only in certain places: a memory limit, CPU limits of cgroup v2.
OPTIONAL = {"postern_cgroup_memory_bytes", "postern_cgroup_memory_limit_bytes", "postern_cgroup_throttled_seconds_total"}


def documented():
    """{name: labels} of docs/metrics.md."""
    rows = re.findall(r"^\| `(\w+)` \| \w+ \| [^|]*\| ([^|]*)\|", DOCUMENT.read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


def family(name):
    """The documented name of a sample's."""
    known = documented()
    return next((n for n in (name, re.sub(r"_(bucket|sum|count)$", "", name)) if n in known), None)


class Prometheus(Process):
    """A Prometheus that scrapes the gateway and agents each second and evaluates our rules."""

    def __init__(self, home, gateway, agents):
        self.home = home / "prometheus"
        self.home.mkdir()
        (self.home / "prometheus.yml").write_text(yaml.safe_dump({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {"job_name": "gateway", "scheme": "https", "tls_config": {"ca_file": str(gateway.ca_file)},
                 "authorization": {"credentials_file": str(gateway.token_file)},
                 "static_configs": [{"targets": [f"127.0.0.1:{gateway.port}"], "labels": {"namespace": "vendor"}}]},
                {"job_name": "agent",
                 "static_configs": [{"targets": [f"127.0.0.1:{a.port}" for a in agents], "labels": {"namespace": "vendor"}}]}]}))
        retry_port(self._start)

    def _start(self, port):
        self.url = f"http://127.0.0.1:{port}"
        Process.__init__(self, ["prometheus", "--config.file", self.home / "prometheus.yml", "--storage.tsdb.path", self.home / "data",
                                "--web.listen-address", f"127.0.0.1:{port}"], self.home, "prometheus")
        self.until(self._ready, 30, "GET /-/ready answers 200")

    def _ready(self):
        try:
            return request("GET", self.url + "/-/ready").status == 200
        except OSError:
            return False

    def query(self, expr):
        """An instant query; [(labels, value)].  AssertionError with the server's message when it is refused."""
        r = request("GET", f"{self.url}/api/v1/query?query={urllib.parse.quote(expr)}")
        assert r.status == 200, f"{expr}\n{r.text}"
        return [(s["metric"], float(s["value"][1])) for s in r.json()["data"]["result"]]

    def data(self, expr):
        """The same, when it has some: one scrape that takes too long makes all of a target's series stale."""
        return wait_until(lambda: self.query(expr), 20, f"there is data for {expr}")

    def api(self, path):
        return request("GET", f"{self.url}/api/v1/{path}").json()["data"]


class World:
    """A gateway, two agents that work and a third that is enabled and not there, watched by Prometheus."""

    def __init__(self, stack):
        self.gw = stack.gateway(tls=True)
        self.agents = [stack.agent(self.gw, "--ship-logs", "all", name=n) for n in ("warehouse", "lake")]
        self.gw.agent("absent")
        self.gw.submit("health", agent="absent")
        self.prometheus = stack.add(Prometheus(stack.home, self.gw, self.agents))
        self.stop = threading.Event()
        self.worker = threading.Thread(target=self.work)
        self.worker.start()

    def work(self):
        while not self.stop.wait(0.2):
            for name in ("warehouse", "lake"):
                self.gw.run("health", agent=name)
                self.gw.run("network.tcp", {"host": "127.0.0.1", "port": 1}, agent=name)


@pytest.fixture(scope="module")
def world(module_stack):
    w = World(module_stack)
    try:
        wait_until(lambda: w.prometheus.query('min(count_over_time(postern_gateway_build_info[1m])) > 9'), 60, "ten scrapes")
        yield w
    finally:
        w.stop.set()
        w.worker.join()


def expositions(world):
    return [world.agents[0].local("GET", "/metrics").text, world.gw.request("GET", "/metrics").text]


# --- the metrics

def test_document_is_that_of_the_program():
    assert DOCUMENT.read_text() == run(BIN, "help", "--metrics").stdout, "write it again: postern help --metrics > docs/metrics.md"


def test_promtool_finds_nothing_in_the_metrics(world):
    for text in expositions(world):
        p = run("promtool", "check", "metrics", input=text, check=False)
        assert (p.returncode, p.stdout, p.stderr) == (0, "", "")


def test_what_is_emitted_is_documented_and_the_other_way_round(world):
    known, seen = documented(), {}
    for text in expositions(world):
        for f in prometheus.parse(text).values():
            for (name, labels) in f.samples:
                seen.setdefault(f.name, {k for k, _ in labels} - {"le"})
                assert seen[f.name] == {k for k, _ in labels} - {"le"}, name
    assert seen.items() <= known.items()
    assert known.keys() - seen.keys() <= OPTIONAL


def started_at(pid):
    """Seconds since 1970, by proc(5): the 22nd field, in ticks since the machine's start."""
    ticks = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def test_values_are_true(world):
    agent, gw = (prometheus.parse(t) for t in expositions(world))
    value = prometheus.value
    me = world.agents[0]
    assert value(agent, "postern_agent_info", agent="warehouse", agent_id=me.key.agent) == 1
    assert abs(value(agent, "process_start_time_seconds") - started_at(me.pid)) < 5
    assert value(agent, "process_resident_memory_bytes") > 1 << 20
    assert 5 < value(agent, "process_open_fds") < value(agent, "process_max_fds")
    assert abs(time.time() - value(agent, "postern_agent_last_exchange_timestamp_seconds")) < 45
    left = value(agent, "postern_agent_gateway_certificate_expiry_timestamp_seconds") - time.time()
    assert 86400 < left < 2 * 86400 + 60, "the test's certificates last two days"
    assert value(gw, "postern_gateway_certificate_expiry_timestamp_seconds") == pytest.approx(left + time.time(), abs=2)
    assert value(agent, "postern_agent_key_generation") == 1 and value(agent, "postern_agent_key_file_bad") == 0
    assert value(gw, "postern_gateway_agent_enabled", agent="absent") == 1
    assert value(gw, "postern_gateway_agent_instances", agent="absent") == 0
    assert value(gw, "postern_gateway_queued_operations", agent="absent") == 1
    version = run(BIN, "--version").stdout.split()[-1]
    assert value(gw, "postern_gateway_instances_by_version", version=version) == 2
    wait_until(lambda: value(prometheus.parse(expositions(world)[1]), "postern_gateway_database_bytes", file="state") ==
               os.stat(world.gw.home / "gateway.db").st_size, 10, "the size of the database")
    done = value(gw, "postern_gateway_operation_seconds_count", type="health")
    assert done > 5 and value(gw, "postern_gateway_operations_finished_total", type="health", state="succeeded") == done
    assert value(gw, "postern_gateway_commit_seconds_count") > done


def test_key_of_a_rotation_shows(stack):
    gw = stack.gateway()
    agent = stack.agent(gw)

    def is_now(generation, bad):
        m = prometheus.parse(agent.local("GET", "/metrics").text)
        return (prometheus.value(m, "postern_agent_key_generation"), prometheus.value(m, "postern_agent_key_file_bad")) == (generation, bad)

    second = gw.key(agent.key.agent, "second")
    agent.key.file.write_text("{")
    wait_until(lambda: is_now(1, 1), 10, "the bad file shows")
    agent.key.file.write_text(second.file.read_text())
    wait_until(lambda: is_now(2, 0), 10, "the rotation shows")


def test_backlog_counts_and_ages_whatever_the_priority(stack):
    gw = stack.gateway()
    gw.agent("later", enable=False)
    gw.submit("health", agent="later", priority=2)
    time.sleep(1.2)
    for priority in (9, 5, 0):
        gw.submit("health", agent="later", priority=priority)
    m = prometheus.parse(gw.request("GET", "/metrics").text)
    assert prometheus.value(m, "postern_gateway_queued_operations", agent="later") == 4
    assert prometheus.value(m, "postern_gateway_outstanding_operations", agent="later") == 4
    assert 1.2 <= prometheus.value(m, "postern_gateway_queue_oldest_seconds", agent="later") < 20
    for _ in range(110):
        gw.api("POST", "/operations/batch", {"operations": [{"type": "health", "agent": "later", "input": {}}] * 100})
    began = time.monotonic()
    m = prometheus.parse(gw.request("GET", "/metrics").text)
    assert prometheus.value(m, "postern_gateway_queued_operations", agent="later") == 10000, "counted up to there"
    assert time.monotonic() - began < 1, "a scrape does not read the rows"


def test_blobs_are_counted(stack):
    gw = stack.gateway()
    agent = stack.agent(gw)
    path = stack.home / "rows.db"
    gw.integration("rows", agent.key, "sqlite", {"path": str(path)})
    sqlite3.connect(path).execute("CREATE TABLE t (n)").connection.close()
    sql = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 300000) SELECT n, hex(randomblob(8)) FROM r"
    assert gw.run("query", {"sql": sql}, integration="rows")["state"] == "succeeded"

    def sizes():
        m = prometheus.parse(gw.request("GET", "/metrics").text)
        return prometheus.value(m, "postern_gateway_blobs"), prometheus.value(m, "postern_gateway_blob_bytes")

    files = [f for f in (gw.home / "blobs").rglob("blob_*") if f.is_file()]
    assert sizes() == (1, sum(f.stat().st_size for f in files)) and len(files) == 1
    before = sizes()
    gw.stop()
    gw.restart()
    assert sizes() == before, "counted again at the start"


def test_readiness_tells_a_full_disk(stack):
    disk = stack.home / "disk"
    disk.mkdir()
    if libc.mount(b"tmpfs", str(disk).encode(), b"tmpfs", ctypes.c_ulong(0), b"size=16m") < 0:
        pytest.skip("no right to mount a tmpfs")
    try:
        gw = stack.gateway("--database", f"sqlite:{disk}/gateway.db", "--blob-dir", disk / "blobs")
        assert gw.request("GET", "/readyz", token=None).status == 200
        (disk / "filler").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - 512 * 1024))
        r = gw.request("GET", "/readyz", token=None)
        assert r.status == 503 and "is full" in r.json()["error"]["message"] and "more room" in r.json()["error"]["hint"]
        assert gw.request("GET", "/livez", token=None).status == 200, "a restart would not help"
        m = prometheus.parse(gw.request("GET", "/metrics").text)
        assert prometheus.value(m, "postern_gateway_disk_full") == 1
        assert prometheus.value(m, "postern_gateway_disk_free_bytes", of="database") <= 512 * 1024
        (disk / "filler").unlink()
        assert gw.request("GET", "/readyz", token=None).status == 200
        gw.stop()
    finally:
        libc.umount2(str(disk).encode(), 2)


# --- rules and alerts

def alerts():
    return {r["alert"]: r for g in yaml.safe_load(RULES.read_text())["groups"] for r in g["rules"] if "alert" in r}


def metrics_of(expr):
    """Names of metrics in an expression, without label matchers, functions and recorded series."""
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"|\b(by|on|without|group_left)\s*\([^)]*\)", "", expr)
    return set(re.findall(r"(?<![\w:])(?:postern|process|app)_\w+(?![\w:]*:)", text))


def test_rules_pass_their_tests():
    assert "SUCCESS" in run("promtool", "check", "rules", RULES).stdout
    run("promtool", "test", "rules", RULES_TEST)
    tested = {}
    for group in yaml.safe_load(RULES_TEST.read_text())["tests"]:
        for t in group["alert_rule_test"]:
            tested.setdefault(t["alertname"], set()).add(bool(t["exp_alerts"]))
    assert tested == {name: {True, False} for name in alerts()}, "each alert is seen firing and quiet"


def test_alerts_lead_to_the_runbook():
    runbook = (ROOT / "docs/runbook.md").read_text()
    titles = re.findall(r"^## (Postern\w+)$", runbook, re.MULTILINE)
    assert titles == list(alerts()), "the runbook has a section for each alert, in the order of the rules"
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), name
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}, name
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
        assert metrics_of(rule["expr"]) <= documented().keys(), name
    assert metrics_of(runbook) <= documented().keys()


def test_scrape_settings_of_the_runbook_are_good(home):
    conf = home / "prometheus.yml"
    conf.write_text(re.search(r"^```yaml\n(.*?)^```", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE | re.DOTALL)[1])
    assert "SUCCESS" in run("promtool", "check", "config", "--syntax-only", conf).stdout


def test_rules_work_on_real_metrics(world):
    rules = [r for g in world.prometheus.api("rules")["groups"] for r in g["rules"]]
    recorded = yaml.safe_load(RULES.read_text())["groups"]
    assert len(rules) == sum(len(g["rules"]) for g in recorded)
    wait_until(lambda: all(r["health"] == "ok" for g in world.prometheus.api("rules")["groups"] for r in g["rules"]), 20,
               "every rule has been evaluated without an error")
    for g in recorded:
        for r in g["rules"]:
            if "record" in r:
                world.prometheus.data(r["record"])
    pending = {r["name"]: [a["labels"].get("agent") for a in r["alerts"]] for r in rules if r["type"] == "alerting" and r["alerts"]}
    assert pending["PosternAgentDown"] == ["absent"]
    assert "PosternLinkDown" not in pending and "PosternGatewayMissing" not in pending


# --- dashboard

def panels():
    return [p for p in json.loads(DASHBOARD.read_text())["panels"] if p["type"] != "row"]


def expressions():
    return [(p["title"], t["expr"]) for p in panels() for t in p["targets"]]


def test_dashboard_is_complete():
    doc = json.loads(DASHBOARD.read_text())
    assert doc["schemaVersion"] >= 39 and doc["uid"] == "postern"
    assert [v["name"] for v in doc["templating"]["list"]] == ["datasource", "namespace", "agent", "instance"]
    assert len({p["id"] for p in doc["panels"]}) == len(doc["panels"])
    known = documented()
    for p in panels():
        assert p["description"].endswith(".") and p["fieldConfig"]["defaults"]["unit"] and p["targets"], p["title"]
        assert {t["datasource"]["uid"] for t in [p, *p["targets"]]} == {"${datasource}"}, "no data source of one installation"
        for t in p["targets"]:
            names = metrics_of(t["expr"])
            assert names and all(family(n) for n in names), f"{p['title']}: {names}"
            for labels in re.findall(r"\{\{(\w+)\}\}", t["legendFormat"]):
                assert labels == "instance" or any(labels in known[family(n)] for n in names), f"{p['title']}: {labels}"
    taken = set()
    for p in doc["panels"]:
        g = p["gridPos"]
        cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
        assert not cells & taken and g["x"] + g["w"] <= 24, f"{p['title']} lies on another panel"
        taken |= cells


def test_every_panel_shows_data(world):
    for title, expr in expressions():
        for name, text in (("$__rate_interval", "10s"), ("$namespace", "vendor"), ("$agent", ".*"), ("$instance", ".*")):
            expr = expr.replace(name, text)
        assert "$" not in expr, title
        if not metrics_of(expr) & OPTIONAL:
            world.prometheus.data(expr)


def test_variables_have_values(world):
    for v in json.loads(DASHBOARD.read_text())["templating"]["list"][1:]:
        selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", v["query"]["query"]).groups()
        values = {m.get(label) for m, _ in world.prometheus.data(selector.replace("$namespace", "vendor"))}
        assert values and None not in values, v["name"]


# --- the signal to scale on

def test_autoscalers_get_the_backlog(world):
    """What prometheus-adapter makes of its template, and the query for KEDA in the same file."""
    for rule in yaml.safe_load(ADAPTER.read_text())["rules"]["external"]:
        name = rule["seriesQuery"].split("{")[0]
        assert {m["agent"] for m, _ in world.prometheus.data(rule["seriesQuery"])} == {"absent", "lake", "warehouse"}
        query = rule["metricsQuery"].replace("<<.Series>>", name).replace("<<.LabelMatchers>>", 'agent="absent"')
        assert world.prometheus.data(query) == [({"agent": "absent"}, 1)]
    keda = re.search(r"^# +query: (.*)$", ADAPTER.read_text(), re.MULTILINE)[1].replace("warehouse", "absent")
    assert world.prometheus.data(keda) == [({}, 1)]
