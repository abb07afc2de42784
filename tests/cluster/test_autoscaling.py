"""The autoscaler follows the backlog: out while there is much to do, in when there is not, and the pods that go finish what they run.

The metric comes from the gateway through an API of external metrics (adapter.py), registered with the real API server.
"""
import json
import sys
import time

import pytest

import adapter
import kube
import pki
from installed import Agent, Gateway, Postgres, external_service, ready, wait_until

PORT = 6444
SLOTS, OPERATIONS = 4, 160


@pytest.fixture(scope="module")
def site(cluster, module_scratch, tmp_path_factory):
    home = tmp_path_factory.mktemp("autoscaling")
    gateway = Gateway(cluster, f"{module_scratch}-gw", home)
    postgres = Postgres(cluster, f"{module_scratch}-db")
    key = gateway.agent("busy")
    gateway.make_integration("busy-db", key)
    serve_metrics(cluster, gateway, home)
    agent = Agent(
        cluster, gateway, module_scratch, {
            "container": {"backendServiceUrl": gateway.service, "opsRunnerThreadCount": str(SLOTS)}, "autoscaling": {
                "enabled": True, "minReplicas": 1, "maxReplicas": 4, "targetCPUUtilizationPercentage": None,
                "backlog": {"enabled": True, "selector": {"agent": "busy"}, "target": 8}, "behavior": {
                    "scaleUp": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]},
                    "scaleDown": {
                        "stabilizationWindowSeconds": 5, "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}}}},
        files={"busy-db.json": postgres.credentials()}, key=key)
    agent.postgres = postgres
    yield agent
    cluster.kubectl("delete", "apiservice", "v1beta1.external.metrics.k8s.io", "--ignore-not-found")
    for ns in (gateway.ns, postgres.ns):
        cluster.kubectl("delete", "namespace", ns, "--wait=false")


def serve_metrics(cluster, gateway, home):
    """The adapter on the control machine, until the API server has an answer of it."""
    certs = cluster.home / "pki"
    pki.issue(certs, "external-metrics", "/CN=external-metrics", "serverAuth", "DNS:external-metrics.kube-system.svc")
    config = home / "adapter.json"
    config.write_text(json.dumps({
        "listen": [kube.CONTROL, PORT], "cert": str(certs / "external-metrics.crt"), "key": str(certs / "external-metrics.key"),
        "client_ca": str(certs / "ca.crt"), "gateway": gateway.url, "token": gateway.token}))
    cluster.control.spawn("external-metrics", sys.executable, adapter.__file__, config)
    cluster.apply(
        external_service("external-metrics", "kube-system", kube.CONTROL, PORT, 443) +
        adapter.registration((certs / "ca.crt").read_bytes(), "kube-system", "external-metrics"))
    cluster.kubectl("wait", "--for=condition=Available", "apiservice/v1beta1.external.metrics.k8s.io", "--timeout=60s")


def replicas(site):
    return sum(map(ready, site.pods()))


@pytest.mark.limit(400)
def test_out_and_in_again(cluster, site):
    gateway = site.gateway
    site.postgres.sql("CREATE TABLE done (n int PRIMARY KEY, at timestamptz DEFAULT clock_timestamp())")
    assert replicas(site) == 1
    ops = [
        gateway.submit("query", {"sql": "INSERT INTO done SELECT $1::int FROM pg_sleep(3)", "params": [str(n)], "mode": "write"},
                       integration="busy-db") for n in range(OPERATIONS)]
    most, end = 1, time.monotonic() + 240
    while time.monotonic() < end:  # watch it grow while the work is done
        most = max(most, replicas(site))
        if gateway.operation(ops[-1])["state"] == "succeeded" and most == 4:
            break
        time.sleep(1)
    assert most == 4, cluster.kubectl("describe", "hpa", "-n", site.ns)
    # Long operations run while it shrinks: the pods that go must finish or hand them over.
    late = [
        gateway.submit("query", {
            "sql": "INSERT INTO done SELECT $1::int FROM pg_sleep(20)", "params": [str(OPERATIONS + n)], "mode": "write"},
                       integration="busy-db") for n in range(6)]
    wait_until(lambda: replicas(site) <= 2, 150, "it scales in", every=1)
    for op in ops + late:
        assert gateway.wait(op, timeout=120)["state"] == "succeeded"
    wait_until(lambda: replicas(site) == 1, 150, "one pod is left", every=1)
    assert site.postgres.sql("SELECT count(*), count(DISTINCT n) FROM done") == [[str(OPERATIONS + 6)] * 2]
    events = cluster.kubectl("get", "events", "-n", site.ns, "--field-selector", "reason=SuccessfulRescale", "-o",
                             "jsonpath={.items[*].message}")
    assert "external metric postern_gateway_outstanding_operations" in events and "below target" in events, events
