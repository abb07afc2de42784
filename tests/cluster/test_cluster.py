"""The cluster itself: what the other tests rely on."""
import installed
import kube
import pytest


def busybox(name, *command, **spec):
    """A pod that Pod Security `restricted` admits."""
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
            "restartPolicy": "Never", "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "c", "image": "postern-test/busybox:1", "command": list(command),
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}], **spec}}


def run_pod(cluster, ns, *command, **spec):
    """Run a command in a pod to its end: (exit code, output)."""
    name = "run"
    cluster.apply(busybox(name, *command, **spec), "-n", ns)
    pod = installed.wait_until(
        lambda: (p := cluster.get("pod", "-n", ns, name))["status"]["phase"] in ("Succeeded", "Failed") and p, 30, "the pod ends")
    out = cluster.kubectl("logs", "-n", ns, name)
    cluster.kubectl("delete", "pod", "-n", ns, name, "--now")
    return pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], out


def test_two_nodes_of_the_pinned_version(cluster):
    nodes = cluster.get("nodes")["items"]
    assert sorted(n["metadata"]["name"] for n in nodes) == sorted(kube.NODES)
    assert {n["status"]["nodeInfo"]["kubeletVersion"] for n in nodes} == {f"v{kube.programs.version()}"}


def connect(host, port, seconds=3):
    """A command of busybox: exit code 0 when it connects."""
    return "sh", "-c", f"nc -w {seconds} {host} {port} </dev/null"


def test_names_and_services(cluster, scratch, postgres):
    installed.namespace(cluster, scratch)
    for node in kube.NODES:
        shell, flag, once = connect(postgres.host, 5432)  # a node may hear of a service a little later
        code, out = run_pod(cluster, scratch, shell, flag, f"for i in $(seq 20); do {once} && exit; sleep 1; done; exit 1", nodeName=node)
        assert code == 0, out


def test_nothing_outside_is_reachable(cluster, scratch):
    installed.namespace(cluster, scratch)
    code, _ = run_pod(cluster, scratch, *connect("192.0.2.1", 443))
    assert code != 0


def test_pod_security_refuses(cluster, scratch):
    installed.namespace(cluster, scratch)
    pod = busybox("root", "true")
    pod["spec"]["securityContext"]["runAsUser"] = 0
    with pytest.raises(kube.ClusterError, match="violates PodSecurity"):
        cluster.apply(pod, "-n", scratch)


def test_a_second_up_finds_the_first(cluster):
    said = []
    assert kube.up(said.append).machines["control"].pid == cluster.machines["control"].pid
    assert "runs already" in said[0]


def test_database(postgres):
    assert postgres.sql("SELECT 1, 'x'") == [["1", "x"]]


def test_network_policies_are_enforced(cluster, scratch, postgres):
    """Egress by address, exception, selector and named port; ingress by namespace."""
    installed.namespace(cluster, scratch)
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}}
    server = busybox("server", "httpd", "-f", "-p", "8080")
    server["metadata"]["labels"] = {"role": "server"}
    server["spec"]["containers"][0]["ports"] = [{"name": "web", "containerPort": 8080}]
    cluster.apply(server, "-n", scratch)
    cluster.kubectl("wait", "--for=condition=Ready", "pod/server", "-n", scratch, "--timeout=30s")
    there = cluster.get("pod", "-n", scratch, "server")["status"]["podIP"]
    client = busybox("client", "sleep", "300")
    client["metadata"]["labels"] = {"role": "client"}
    cluster.apply(client, "-n", scratch)
    cluster.kubectl("wait", "--for=condition=Ready", "pod/client", "-n", scratch, "--timeout=30s")

    def reaches(host, port):
        return cluster.call(cluster.bin / "kubectl", "exec", "-n", scratch, "client", "--", *connect(host, port, 1),
                            check=False).returncode == 0

    def only(reachable, **spec):
        """With this policy the client reaches these (server by address, database by name) and not the others."""
        cluster.apply({**policy, "spec": spec}, "-n", scratch)
        both = {"server": (there, 8080), "database": (postgres.host, 5432)}
        installed.wait_until(lambda: {n for n, a in both.items() if reaches(*a)} == reachable, 15, f"only {reachable} is reached")

    only({"server", "database"}, podSelector={}, policyTypes=["Egress"], egress=[{}])
    to_client = {"podSelector": {"matchLabels": {"role": "client"}}, "policyTypes": ["Egress"]}
    only(set(), **to_client)
    dns = {"ports": [{"port": 53, "protocol": "UDP"}]}
    only({"server"}, **to_client,
         egress=[dns, {"to": [{"podSelector": {"matchLabels": {"role": "server"}}}], "ports": [{"port": "web"}]}])
    only({"database"}, **to_client, egress=[dns, {"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": [f"{there}/32"]}}]}])
    only({"database"}, podSelector={"matchLabels": {"role": "server"}},
         ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"no": "such"}}}]}])
    only({"server", "database"}, podSelector={"matchLabels": {"role": "server"}},
         ingress=[{"from": [{"namespaceSelector": {}}], "ports": [{"port": "web"}]}])
