"""`postern check` in pods: one that is well, and many that the test has broken; and run-check.sh, which looks from the cluster's side.

Every pod is the one that the chart renders, with one thing changed.  They are started together.
"""
import base64
import copy
import datetime
import email.utils
import json
import re
import subprocess

import pytest

import kube
from harness import CA, request
from installed import ROOT, Agent, Gateway, secret, wait_until
from web import Web

NAMES = ("environment", "filesystem", "identity", "cgroup", "dns", "proxy", "tls", "gateway", "clock", "token", "integrations")


def wants_login(r):
    """A proxy that does."""
    return 407, b"", {"Proxy-Authenticate": 'Basic realm="staff"'}


def in_another_time(gateway, ca):
    """A reverse proxy in front of the gateway whose clock is two hours ahead."""
    def answer(r):
        a = request("GET", gateway + r.path, None, {k: v for k, v in r.headers.items() if k in ("Authorization", "User-Agent", "Accept")},
                    ca=ca, timeout=10)
        ahead = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=2)
        kept = {k: v for k, v in a.headers.items() if k.lower() not in ("date", "connection", "content-length", "transfer-encoding")}
        return a.status, a.body, {**kept, "Date": email.utils.format_datetime(ahead, usegmt=True)}

    return answer


class Site:
    """A gateway with TLS, and a release whose pods are copied."""

    def __init__(self, cluster, ns, home):
        self.cluster, self.ns = cluster, ns
        ca, other = CA(home / "ca"), CA(home / "other", "Corporate Inspection CA")
        self.gateway = Gateway(cluster, f"{ns}-gw", home, ca=ca)
        self.other_ca = other.cert.read_text()
        self.wrong_time = Web(in_another_time(self.gateway.url, ca.cert), kube.HOST).url
        self.wants_login = Web(wants_login, kube.HOST).url
        key = self.gateway.agent("checked")
        self.agent = Agent(cluster, self.gateway, ns, {"replicaCount": 1, "firewallCa": {"cert": ca.cert.read_text()}}, key=key,
                           files={"db.json": {"connect_args": {"host": "db"}}})
        template = cluster.get("deployment", "-n", ns, "postern-agent-deployment")["spec"]["template"]["spec"]
        self.spec = {**template, "restartPolicy": "Never"}
        container = self.spec["containers"][0]
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            container.pop(probe, None)
        container["args"] = ["check", "-o", "json"]

    def pod(self, name, change):
        """A copy of the release's pod with a change: a function of (pod spec, container)."""
        doc = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": self.ns, "labels": {"check": name}},
            "spec": copy.deepcopy(self.spec)}
        change(Change(self, doc["spec"]))
        return doc


class Change:
    """What a broken environment does to a pod."""

    def __init__(self, site, spec):
        self.site, self.spec, self.container = site, spec, spec["containers"][0]

    def env(self, **values):
        kept = [e for e in self.container["env"] if e["name"] not in values]
        self.container["env"] = kept + [{"name": k, "value": v} for k, v in values.items()]

    def volume(self, name, source):
        self.spec["volumes"] = [v for v in self.spec["volumes"] if v["name"] != name] + [{"name": name, **source}]

    def secret(self, volume, files):
        name = f"broken-{len(self.site.cluster.get('secrets', '-n', self.site.ns)['items'])}"
        secret(self.site.cluster, self.site.ns, name, files)
        self.volume(volume, {"secret": {"secretName": name}})


def no_dns(c):
    c.spec.update(dnsPolicy="None", dnsConfig={"nameservers": ["192.0.2.53"]})


def no_such_name(c):
    c.env(POSTERN_GATEWAY_URL="https://postern-gatewai.nowhere.svc.cluster.local:7070")


def wrong_ca(c):
    c.secret("ca", {"ca.crt": c.site.other_ca})


def wrong_clock(c):
    c.env(POSTERN_GATEWAY_URL=c.site.wrong_time)


def read_only_spool(c):
    next(m for m in c.container["volumeMounts"] if m["name"] == "spool")["readOnly"] = True


def full_disk(c):
    c.volume("spool", {"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    c.spec["initContainers"] = [{
        "name": "fill", "image": "postern-test/busybox:1", "securityContext": c.container["securityContext"],
        "command": ["sh", "-c", "dd if=/dev/zero of=/spool/other bs=64k || true"],
        "volumeMounts": [{"name": "spool", "mountPath": "/spool"}]}]


def tiny_memory(c):
    c.container["resources"] = {"limits": {"memory": "16Mi"}, "requests": {"memory": "16Mi"}}


def blocked_egress(c):
    c.site.cluster.apply({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "only-dns", "namespace": c.site.ns},
        "spec": {
            "podSelector": {"matchLabels": {"check": "blocked-egress"}}, "policyTypes": ["Egress"],
            "egress": [{"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}]}})
    # A policy counts for a pod a moment after it has an address.
    c.spec["initContainers"] = [{
        "name": "wait", "image": "postern-test/busybox:1", "securityContext": c.container["securityContext"],
        "command": ["sleep", "3"]}]


def wrong_secret(c):
    c.secret("token", {"contents.json": {"key_id": c.site.agent.key.id, "key_secret": "not-this-one"}})


def revoked_key(c):
    key = c.site.gateway.key(c.site.agent.key.agent, "revoked")
    c.site.gateway.api("DELETE", f"/keys/{key.id}")
    c.secret("token", {"contents.json": {"key_id": key.id, "key_secret": key.secret}})


def placeholder(c):
    c.secret("token", {"contents.json": {"mcd_id": "<your-mcd-id>", "mcd_token": "<your-mcd-token>"}})


def no_token(c):
    c.volume("token", {"secret": {"secretName": "nowhere", "optional": True}})


def bad_integration(c):
    c.secret("integrations", {"sales.json": '{"connect_args": {"host": "db",}}'})


def proxy_wants_login(c):
    c.env(HTTPS_PROXY=c.site.wants_login)


def no_proxy_there(c):
    c.env(HTTPS_PROXY=f"http://{kube.HOST}:9")


def unknown_variable(c):
    c.env(POSTERN_SLOT="3")


def stop_too_long(c):
    c.env(POSTERN_STOP_TIMEOUT="10m", POSTERN_TERMINATION_GRACE_SECONDS="30")


def another_server(c):
    c.env(POSTERN_GATEWAY_URL=f"http://{kube.REGISTRY}")


def nobody_listens(c):
    c.env(POSTERN_GATEWAY_URL=f"https://{kube.HOST}:9")


BROKEN = [  # environment, the check that fails, what it says
    (no_dns, "dns", r"192\.0\.2\.53"),
    (no_such_name, "dns", r"postern-gatewai\.nowhere"),
    (wrong_ca, "tls", r"Postern Test CA"),
    (wrong_clock, "clock", r"\b(2 h|7[12]\d\d s|120 min)"),
    (read_only_spool, "filesystem", r"Read-only file system"),
    (full_disk, "filesystem", r"(?i)no space left|full"),
    (tiny_memory, "cgroup", r"16 MiB"),
    (blocked_egress, "gateway|tls", r"(?i)timed? ?out|within|not reach"),
    (wrong_secret, "token", r"does not accept|refuse"),
    (revoked_key, "token", r"does not accept|refuse|revoked"),
    (placeholder, "token", r"placeholder"),
    (no_token, "token", r"(?i)no such file|does not exist|no file"),
    (bad_integration, "integrations", r"sales\.json"),
    (proxy_wants_login, "proxy", r"407|login|password"),
    (no_proxy_there, "proxy", r"Failed to connect|Couldn't connect"),
    (unknown_variable, "environment", r"POSTERN_SLOTS"),
    (stop_too_long, "environment", r"(?i)stop"),
    (another_server, "gateway", r"(?i)no Postern|not a Postern|is no"),
    (nobody_listens, "gateway|tls", r"(?i)refused|connect"),
]


@pytest.fixture(scope="module")
def site(cluster, module_scratch, tmp_path_factory):
    site = Site(cluster, module_scratch, tmp_path_factory.mktemp("check"))
    yield site
    cluster.kubectl("delete", "namespace", site.gateway.ns, "--wait=false")


@pytest.fixture(scope="module")
def pods(site):
    """All of them, started."""
    changes = {"healthy": lambda c: None, **{f.__name__.replace("_", "-"): f for f, *_ in BROKEN}}
    site.cluster.apply([site.pod(name, change) for name, change in changes.items()])


def answer(site, name):
    """The exit code and the document of a pod's check."""
    pod = wait_until(
        lambda: (p := site.cluster.get("pod", "-n", site.ns, name))["status"]["phase"] in ("Succeeded", "Failed") and p, 120,
        f"pod {name} ends", every=0.3)
    out = site.cluster.kubectl("logs", "-n", site.ns, name, "-c", "postern-agent")
    doc = json.loads(out)
    assert {"ok", "version", "checks", "summary"} <= doc.keys()
    for c in doc["checks"]:
        assert c["status"] in ("PASS", "WARN", "FAIL", "SKIP") and (c["fix"] is not None) == (c["status"] in ("WARN", "FAIL")), c
    return pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], doc


def test_healthy(site, pods):
    code, doc = answer(site, "healthy")
    bad = [c for c in doc["checks"] if c["status"] in ("FAIL", "WARN")]
    assert code == 0 and doc["ok"] and bad == []
    status = {c["name"]: c["status"] for c in doc["checks"]}
    assert all(status[n] == "PASS" for n in NAMES if n != "proxy"), status


@pytest.mark.parametrize("environment, name, says", BROKEN, ids=lambda v: v.__name__ if callable(v) else "")
def test_broken(site, pods, environment, name, says):
    """The one thing that is wrong is named, with what to do; nothing else is a FAIL."""
    code, doc = answer(site, environment.__name__.replace("_", "-"))
    failed = {c["name"]: c for c in doc["checks"] if c["status"] == "FAIL"}
    assert code == 1 and not doc["ok"] and doc["summary"]["failed"] == len(failed)
    assert len(failed) == 1 and re.fullmatch(name, next(iter(failed))), doc
    check = next(iter(failed.values()))
    assert re.search(says, check["detail"]), check
    assert check["fix"]


# --- the wrapper for a release

def run_check(site, *argv):
    """deploy/checks/run-check.sh: (exit code, its JSON)."""
    p = subprocess.run([ROOT / "deploy/checks/run-check.sh", "-o", "json", *argv], env=site.cluster.env, stdin=subprocess.DEVNULL,
                       capture_output=True, text=True, timeout=200, check=False)
    assert p.stdout, p.stderr
    return p.returncode, json.loads(p.stdout)


def test_run_check_of_a_healthy_release(site):
    code, doc = run_check(site, "--namespace", site.ns, "--release", "postern-agent")
    assert code == 0, doc


def test_run_check_without_a_token_secret(site, scratch, cluster):
    """The pods wait for a Secret that nobody made: the script names it."""
    agent = Agent(cluster, site.gateway, scratch, {"replicaCount": 1, "tokenSecret": {"name": "nobody-made-it"}}, wait=False)
    wait_until(agent.pods, 30, "the pod is there")
    code, doc = run_check(site, "--namespace", scratch, "--release", "postern-agent")
    failed = [c for c in doc["checks"] if c["status"] == "FAIL"]
    assert code == 1 and [c["name"] for c in failed] == ["secrets"] and "nobody-made-it" in failed[0]["detail"], doc


def test_run_check_with_a_refused_key(site, scratch, cluster):
    """The pod runs and is not ready: the check inside tells why."""
    key = site.gateway.agent(scratch)
    key.secret = base64.b64encode(b"wrong").decode()
    values = {"replicaCount": 1, "firewallCa": site.agent.values["firewallCa"]}
    agent = Agent(cluster, site.gateway, scratch, values, key=key, wait=False)
    wait_until(lambda: any(p["status"]["phase"] == "Running" for p in agent.pods()), 30, "the pod runs")
    code, doc = run_check(site, "--namespace", scratch, "--release", "postern-agent")
    assert code == 1
    text = json.dumps(doc)
    assert "token" in text and '"FAIL"' in text, doc


def test_run_check_without_a_release(site):
    code, doc = run_check(site, "--namespace", site.ns, "--release", "nobody")
    assert code == 1 and "nobody" in json.dumps(doc)
