"""Every render of the charts (tests/charts: the documents' values, the examples, the corners) is given to the real API server, server side, with the
real CRDs of External Secrets, the Prometheus Operator and KEDA; and Pod Security judges every pod of them."""
import copy
import json
import os
import sys

import pytest

import crds
import installed

sys.path.insert(0, str(installed.ROOT / "tests/charts"))
import charts  # noqa: E402

CLUSTER_WIDE = ("Namespace", "ClusterRole", "ClusterRoleBinding", "PersistentVolume")
ELSEWHERE = {"BackendConfig"}  # GKE has it built in; its CRD is in no module
SETS = charts.value_sets()


@pytest.fixture(scope="module")
def admitted(cluster):
    """A namespace that enforces `restricted`, and the API server knows the CRDs."""
    crds.install(cluster)
    name = f"dry-{os.getpid()}"
    installed.namespace(cluster, name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def test_there_are_enough_sets():
    agents = [s for s in SETS if s.chart == "postern-agent"]
    kinds = {o["kind"] for s in SETS for o in charts.objects(s)}
    assert len(agents) >= 20
    assert {
        "ExternalSecret", "SecretStore", "ServiceMonitor", "PrometheusRule", "ScaledObject", "HorizontalPodAutoscaler",
        "NetworkPolicy", "PodDisruptionBudget", "StatefulSet"} <= kinds


@pytest.mark.parametrize("value_set", SETS, ids=str)
def test_the_api_server_takes_it(cluster, admitted, value_set):
    """Strictly: an unknown or repeated field, a wrong type, or a warning (also one of Pod Security) fails."""
    docs = []
    for o in copy.deepcopy(charts.objects(value_set)):
        if o["kind"] in ELSEWHERE:
            continue
        if o["kind"] not in CLUSTER_WIDE:
            o["metadata"]["namespace"] = admitted
        if o["kind"] == "Pod":  # what a pod names must be there, also for a dry run
            for there in ("serviceAccountName", "priorityClassName"):
                o["spec"].pop(there, None)
        if o["kind"] == "Secret" and "data" in o:  # what charts.render() replaced
            o["data"] = {k: "UkFORE9N" if v == "RANDOM" else v for k, v in o["data"].items()}
        docs.append(o)
    text = "\n---\n".join(map(json.dumps, docs))
    p = cluster.call(cluster.bin / "kubectl", "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-",
                     input=text, check=False)
    assert p.returncode == 0, p.stderr
    assert "Warning" not in p.stderr, p.stderr
    assert p.stdout.count("(server dry run)") == len(docs)


@pytest.mark.parametrize("value_set", SETS, ids=str)
def test_pod_security_admits_its_pods(cluster, admitted, value_set):
    """The pods themselves, as their controllers would make them."""
    made = []
    for o in charts.objects(value_set):
        if found := charts.pod_template(o):
            labels, annotations, spec = found
            spec = copy.deepcopy(spec)
            # What only the controller gives, and what need not be here for the question.
            for claim in o["spec"].get("volumeClaimTemplates", []) if o["kind"] == "StatefulSet" else []:
                spec.setdefault("volumes", []).append({"name": claim["metadata"]["name"], "emptyDir": {}})
            spec.pop("serviceAccountName", None)
            spec.pop("priorityClassName", None)
            made.append({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": f"{o['kind'].lower()}-{len(made)}", "namespace": admitted, "labels": labels}, "spec": spec})
    assert made
    p = cluster.call(cluster.bin / "kubectl", "create", "--dry-run=server", "-f", "-",
                     input="\n---\n".join(map(json.dumps, made)), check=False)
    assert p.returncode == 0 and "violates" not in p.stderr, p.stderr
