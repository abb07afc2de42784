"""deploy/checks/run-check.sh without a cluster: its command line, and telling kubectl's errors apart.  (With one: tests/cluster.)"""
import json
import os
import shutil

import pytest

from harness import clean_env, free_port, run
from product import ROOT
from web import Web

SCRIPT = ROOT / "deploy/checks/run-check.sh"
TOOLS = ("sh", "mktemp", "sed", "awk", "grep", "tail", "head", "cut", "tr", "cat", "rm", "sort", "wc")
needs_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="there is no kubectl")


def run_check(home, *flags, code, **env):
    p = run(SCRIPT, "--namespace", "agents", "--release", "blue", *flags, env=clean_env(HOME=home, **env), check=False)
    assert p.returncode == code, p.stdout + p.stderr
    return p


def checks(home, server, *flags, code=1):
    """The checks by name, from a cluster at that URL."""
    config = home / "kubeconfig"
    config.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": {"token": "t"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}))
    doc = json.loads(run_check(home, "--kubeconfig", config, "-o", "json", *flags, code=code).stdout)
    assert doc["ok"] == (code == 0) and doc["pod"] is None
    assert sum(doc["summary"].values()) == len(doc["checks"])
    for c in doc["checks"]:
        assert set(c) == {"name", "status", "detail", "fix"} and bool(c["fix"]) == (c["status"] in ("WARN", "FAIL")), c
    return {c["name"]: c for c in doc["checks"]}


def api_server(status, reason, message, version=True):
    """An API server that says one thing, and its version."""
    refusal = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": status}

    def answer(r):
        if version and r.path.startswith("/version"):
            return 200, json.dumps({"major": "1", "minor": "30+", "gitVersion": "v1.30.1"}).encode(), {}
        return status, json.dumps(refusal).encode(), {}

    return Web(answer)


def test_command_line(home):
    p = run(SCRIPT, "--help")
    assert p.stdout.startswith("Check a release") and "--kubeconfig FILE" in p.stdout and "shellcheck" not in p.stdout
    for flags in (["--release", "blue"], ["--namespace"], ["--namspace", "x"], ["-n", "a", "-r", "b", "-o", "xml"]):
        p = run(SCRIPT, *flags, check=False)
        assert p.returncode == 64 and "run-check.sh: " in p.stderr and not p.stdout
    assert "--namespace and --release are missing" in run(SCRIPT, check=False).stderr


def test_without_kubectl(home):
    (home / "bin").mkdir()
    for tool in TOOLS:
        (home / "bin" / tool).symlink_to(shutil.which(tool))
    p = run(SCRIPT, "--namespace=agents", "--release=blue", env={"PATH": str(home / "bin")}, check=False)
    assert p.returncode == 1 and "FAIL  kubectl        kubectl is not installed" in p.stdout
    assert "0 passed, 0 warnings, 1 failed" in p.stdout and " 1. kubectl: Install" in p.stdout


@needs_kubectl
def test_no_cluster_there(home):
    c = checks(home, f"http://127.0.0.1:{free_port()}")["access"]
    assert c["status"] == "FAIL" and "cannot be reached" in c["detail"] and "VPN" in c["fix"]


@needs_kubectl
def test_no_configuration(home):
    p = run_check(home, "--kubeconfig", home / "nothing", code=1)
    assert "FAIL  access         kubectl has no usable configuration" in p.stdout and "--context" in p.stdout
    (home / "empty").write_text("")  # kubectl then asks localhost:8080, where no cluster is
    assert "kubectl has no usable configuration" in run_check(home, "--kubeconfig", home / "empty", code=1).stdout


@needs_kubectl
def test_wrong_credentials(home):
    with api_server(401, "Unauthorized", "Unauthorized", version=False) as api:
        c = checks(home, api.url)["access"]
    assert c["status"] == "FAIL" and "does not accept your credentials" in c["detail"] and "Log in" in c["fix"]


@needs_kubectl
def test_not_allowed(home):
    """To look at the namespace is no must; to look at the release is."""
    with api_server(403, "Forbidden", 'namespaces "agents" is forbidden: User "u" cannot get') as api:
        c = checks(home, api.url)
    assert c["access"]["status"] == "PASS" and "v1.30.1" in c["access"]["detail"]
    assert c["namespace"]["status"] == "WARN" and "you may not look" in c["namespace"]["detail"]
    assert c["workload"]["status"] == "FAIL"


@needs_kubectl
def test_no_namespace(home):
    with api_server(404, "NotFound", 'namespaces "agents" not found') as api:
        c = checks(home, api.url)["namespace"]
    assert c["status"] == "FAIL" and c["detail"] == "there is no namespace 'agents'" and "kubectl create namespace agents" in c["fix"]


def test_it_can_be_run():
    assert os.access(SCRIPT, os.X_OK)
