"""What a pod of ours is on a cluster that trusts nobody: Pod Security `restricted`, any user, a root that cannot be written, no metadata."""
import json
import re

import pytest

import installed
import kube
from installed import Agent, process, ready, wait_until
from test_cluster import busybox, connect


def refused(cluster, ns, kind):
    """Why pods of a namespace were refused."""
    return [
        e["message"] for e in cluster.get("events", "-n", ns)["items"]
        if "violates PodSecurity" in e.get("message", "") and e["involvedObject"]["kind"] == kind]


@pytest.fixture(scope="module")
def agent(cluster, gateway, postgres, module_scratch):
    """Two pods in a restricted namespace, with everything that renders pods turned on."""
    agent = Agent(cluster, gateway, module_scratch, {"replicaCount": 2, "preflight": {"enabled": True}},
                  files={"pods-db.json": postgres.credentials()})
    gateway.make_integration("pods-db", agent.key)
    return agent


def test_restricted_admits_every_pod(cluster, agent, gateway):
    """Installed, upgraded (with the preflight Job) and tested in namespaces that enforce `restricted`, nothing was refused."""
    agent.upgrade()
    out = cluster.helm("test", agent.name, "-n", agent.ns, "--logs", "--timeout=60s")
    assert re.search(r"Phase:\s+Succeeded", out), out
    for ns in (agent.ns, gateway.ns):
        assert refused(cluster, ns, "ReplicaSet") + refused(cluster, ns, "StatefulSet") + refused(cluster, ns, "Job") == []


def test_statefulset_keeps_its_spool(cluster, gateway, scratch):
    """Also a StatefulSet with claims is admitted; a pod that comes back has the same volume."""
    agent = Agent(cluster, gateway, scratch,
                  {"replicaCount": 1, "workload": {"kind": "StatefulSet"}, "spool": {"type": "pvc", "size": "1Gi"}})
    before = {c["metadata"]["name"]: c["spec"]["volumeName"] for c in cluster.get("pvc", "-n", scratch)["items"]}
    assert len(before) == 1
    pod = agent.pods()[0]["metadata"]
    cluster.kubectl("delete", "pod", "-n", scratch, pod["name"])
    wait_until(lambda: any(ready(p) and p["metadata"]["uid"] != pod["uid"] for p in agent.pods()), 60, "the pod is back")
    assert {c["metadata"]["name"]: c["spec"]["volumeName"] for c in cluster.get("pvc", "-n", scratch)["items"]} == before
    agent.remove()


SCC = {
    "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": "like-openshift"},
    "spec": {
        "matchConstraints": {
            "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
        "matchConditions": [{
            "name": "no-user-yet",
            "expression": "!has(object.spec.securityContext) || !has(object.spec.securityContext.runAsUser)"}],
        "failurePolicy": "Fail", "reinvocationPolicy": "Never", "mutations": [{
            "patchType": "ApplyConfiguration", "applyConfiguration": {
                "expression": """Object{spec: Object.spec{securityContext: Object.spec.securityContext{
        runAsUser: 1000620000, runAsGroup: 0, fsGroup: 1000620000}}}"""}}]}}


def test_any_user_in_group_0(cluster, gateway, scratch):
    """As OpenShift runs pods: the chart names no user, and admission gives one of its own choice, with group 0."""
    binding = {
        "apiVersion": SCC["apiVersion"], "kind": "MutatingAdmissionPolicyBinding", "metadata": SCC["metadata"], "spec": {
            "policyName": "like-openshift",
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": scratch}}}}}
    cluster.apply([SCC, binding])
    installed.namespace(cluster, scratch)
    nobody_named = busybox("probe", "true", securityContext={"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}})

    def counts():  # the API server takes a moment to know a new policy
        doc = json.loads(cluster.apply(nobody_named, "-n", scratch, "--dry-run=server", "-o", "json"))
        return doc["spec"]["securityContext"].get("runAsUser") == 1000620000

    try:
        wait_until(counts, 30, "the policy counts")
        agent = Agent(cluster, gateway, scratch, {"openshift": True, "replicaCount": 1})
        pod = agent.pods()[0]
        assert ids(cluster, pod) == {"Uid": 1000620000, "Gid": 0}
        assert gateway.run("health", agent=agent.key.agent)["state"] == "succeeded"
    finally:
        cluster.kubectl("delete", "mutatingadmissionpolicy,mutatingadmissionpolicybinding", "like-openshift")


def ids(cluster, pod):
    with open(f"{process(cluster, pod)}/status", encoding="utf-8") as f:
        return {k: int(v.split()[0]) for k, _, v in (line.partition(":") for line in f) if k in ("Uid", "Gid")}


def test_nothing_of_root_or_privilege(cluster, agent):
    for pod in agent.pods():
        with open(f"{process(cluster, pod)}/status", encoding="utf-8") as f:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
        assert status["Uid"].split()[0] == "65534" and status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
        assert all(int(status[c], 16) == 0 for c in ("CapPrm", "CapEff", "CapBnd", "CapAmb"))


def test_read_only_root_is_real(cluster, agent):
    """By the kernel's own table of mounts: what can be written are the folders that the chart gives, and nothing else."""
    allowed = {
        "/tmp", "/var/lib/postern/spool", "/dev", "/dev/shm", "/dev/mqueue", "/dev/pts", "/dev/termination-log", "/proc",
        "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}
    for pod in agent.pods():
        with open(f"{process(cluster, pod)}/mounts", encoding="utf-8") as f:
            mounts = {m[1]: m[3].split(",")[0] for m in map(str.split, f)}
        assert mounts["/"] == "ro"
        written = {path for path, mode in mounts.items() if mode == "rw"}
        assert {p for p in written - allowed if not p.startswith(("/proc/", "/sys/"))} == set()  # those are root's, or masks
        assert "/var/run/secrets/kubernetes.io/serviceaccount" not in mounts  # no token of the cluster


def test_egress_policy(cluster, gateway, postgres, scratch):
    """`listed`: DNS, the gateway and the declared database are reached, and nothing else; whoever runs in a pod with these labels does not get to the
    clouds' metadata address, also with `open`."""
    declared = {
        "enabled": True, "egress": "listed",
        "gateway": {"peer": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": gateway.ns}}}},
        "dataSources": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": postgres.ns}}, "ports": [5432]}]}
    agent = Agent(cluster, gateway, scratch, {"networkPolicy": declared, "replicaCount": 1},
                  files={f"{scratch}.json": postgres.credentials()})
    gateway.make_integration(scratch, agent.key)
    assert gateway.run("query", {"sql": "SELECT 1"}, integration=scratch)["state"] == "succeeded"
    elsewhere = busybox("elsewhere", "httpd", "-f", "-p", "8080")
    cluster.apply(elsewhere, "-n", "default")
    cluster.kubectl("wait", "--for=condition=Ready", "pod/elsewhere", "-n", "default", "--timeout=30s")
    there = cluster.get("pod", "-n", "default", "elsewhere")["status"]["podIP"]
    try:
        def reaches(host, port):
            op = gateway.run("network.tcp", {"host": host, "port": port, "timeout_ms": 2000}, agent=agent.key.agent)
            assert op["state"] == "succeeded", op
            return op["result"]["document"]["ok"]

        assert reaches(postgres.host, 5432)
        assert not reaches(there, 8080)
        agent.upgrade({"networkPolicy": {"enabled": True, "egress": "open"}})
        wait_until(lambda: reaches(there, 8080), 20, "egress open reaches a pod that is not declared")
    finally:
        cluster.kubectl("delete", "pod", "-n", "default", "elsewhere", "--now")
    policy = cluster.get("networkpolicy", "-n", scratch)["items"][0]["spec"]
    excepted = {e for rule in policy["egress"] for peer in rule.get("to", []) for e in peer.get("ipBlock", {}).get("except", [])}
    assert {"169.254.169.254/32", "fd00:ec2::254/128"} <= excepted


@pytest.fixture
def metadata(cluster):
    """A cloud's metadata service, where clouds have it."""
    address, control = "169.254.169.254", cluster.control
    control.run("ip", "address", "add", f"{address}/32", "dev", "br0")
    for node in kube.NODES:
        cluster.machines[node].run("ip", "route", "add", f"{address}/32", "via", kube.CONTROL)
    control.spawn("metadata", "/usr/bin/python3", "-m", "http.server", "--bind", address, "--directory", "/run", "80")
    yield address
    control.run("ip", "address", "delete", f"{address}/32", "dev", "br0")
    for node in kube.NODES:
        cluster.machines[node].run("ip", "route", "delete", f"{address}/32")


def test_metadata_is_out_of_reach(cluster, agent, metadata):
    """A pod beside the agent's reaches the metadata service; one that has their labels does not, though it reaches everything else."""
    labels = cluster.get("deployment", "-n", agent.ns, "postern-agent-deployment")["spec"]["template"]["metadata"]["labels"]
    for name, theirs in (("neighbour", {}), ("insider", labels)):
        pod = busybox(name, "sleep", "300")
        pod["metadata"]["labels"] = theirs
        cluster.apply(pod, "-n", agent.ns)
    cluster.kubectl("wait", "--for=condition=Ready", "pod/neighbour", "pod/insider", "-n", agent.ns, "--timeout=30s")

    def reaches(pod, host, port):
        return cluster.call(cluster.bin / "kubectl", "exec", "-n", agent.ns, pod, "--", *connect(host, port, 2), check=False).returncode == 0

    wait_until(lambda: reaches("neighbour", metadata, 80), 20, "the neighbour reaches it")
    wait_until(lambda: not reaches("insider", metadata, 80), 20, "the policy counts")
    wait_until(lambda: reaches("insider", kube.CONTROL, 5000), 20, "and nothing else is closed")
    cluster.kubectl("delete", "pod", "-n", agent.ns, "neighbour", "insider", "--now")


def test_a_wrong_token_says_why(cluster, gateway, scratch):
    """Not Ready, and pod events and log tell what is wrong and what to do."""
    key = gateway.agent(scratch)
    key.secret = "not-this-one"
    agent = Agent(cluster, gateway, scratch, {"replicaCount": 1}, key=key, wait=False)
    pod = wait_until(lambda: [p for p in agent.pods() if p["status"].get("phase") == "Running"], 40,
                     "the pod runs")[0]["metadata"]["name"]
    log = wait_until(lambda: (t := cluster.kubectl("logs", "-n", scratch, pod)) and "unauthenticated" in t and t, 40,
                     "the log names the key")
    assert "refuses the agent's key" in log and "postern ctl keys create" in log, log
    assert not any(map(ready, agent.pods()))
    events = wait_until(
        lambda: [
            e for e in cluster.get("events", "-n", scratch)["items"]
            if e["reason"] == "Unhealthy" and e["involvedObject"]["name"] == pod], 60, "a readiness event")
    assert "503" in events[0]["message"], events
    agent.put_token(gateway.key(key.agent))  # the right one: no restart
    wait_until(lambda: any(map(ready, agent.pods())), 120, "the pod is Ready with the right key")
    assert agent.pods()[0]["status"]["containerStatuses"][0]["restartCount"] == 0
