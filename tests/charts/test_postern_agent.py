"""What the chart of the agent does with its values."""
import re
import subprocess

import pytest
import yaml

import charts

CHART = "postern-agent"


def agent(objects):
    """The workload, its pod's spec, and the agent's environment."""
    found = charts.of_kind(objects, "Deployment", "StatefulSet")
    assert len(found) == 1
    spec = charts.pod_template(found[0])[2]
    return found[0], spec, {e["name"]: e for e in spec["containers"][0]["env"]}


def test_names_that_the_walk_through_uses():
    objects = charts.named(CHART, "seed-kubernetes")
    workload, spec, env = agent(objects)
    assert (workload["kind"], workload["metadata"]["name"], workload["metadata"]["namespace"]) == ("Deployment", "postern-agent-deployment", "postern-agent")
    assert charts.pod_template(workload)[0]["app"] == "postern-agent"  # kubectl logs -l app=postern-agent
    assert [c["name"] for c in spec["containers"]] == ["postern-agent"]
    assert spec["containers"][0]["args"] == ["agent"]
    assert workload["spec"]["replicas"] == 1
    mounts = {m["name"]: m["mountPath"] for m in spec["containers"][0]["volumeMounts"]}
    assert mounts["token"] == "/etc/secrets/postern-agent-token"
    assert mounts["integrations"] == "/etc/secrets/integrations"
    volumes = {v["name"]: v for v in spec["volumes"]}
    assert volumes["token"]["secret"] == {"secretName": "postern-agent-token-secret", "items": [{"key": "contents.json", "path": "contents.json"}]}
    assert volumes["integrations"]["secret"] == {"secretName": "postern-integrations-secrets", "optional": True}
    assert env["POSTERN_STORAGE"]["value"] == "S3_COMPATIBLE"
    assert env["POSTERN_STORAGE_BUCKET_NAME"]["value"] == "postern-agent-storage"
    assert env["POSTERN_STORAGE_ENDPOINT_URL"]["value"] == "http://minio-api.minio.svc.cluster.local:9000"


def test_notes_say_what_comes_next(tmp_path):
    """helm template leaves NOTES.txt out: a copy of the chart renders it as a value."""
    copy = tmp_path / "chart"
    subprocess.run(["cp", "-r", charts.chart_path(CHART), copy], check=True)
    (copy / "templates/NOTES.txt").rename(copy / "notes")
    (copy / "templates/notes.yaml").write_text('notes: {{ tpl (.Files.Get "notes") . | toJson }}\n')
    p = charts.template(CHART, "--values", f"{charts.HERE}/values/{CHART}/seed-kubernetes.yaml", "-s", "templates/notes.yaml", path=str(copy))
    assert p.returncode == 0, p.stderr
    notes = charts.parse(p.stdout)[0]["notes"]
    assert "kubectl exec -n postern-agent deploy/postern-agent-deployment -- postern check reachability" in notes
    assert "kubectl logs -n postern-agent -l app=postern-agent" in notes
    assert "postern ctl agents enable" in notes
    # not helm test --logs: Helm would look for the pod in the release's namespace, and this one is in another
    assert "--logs" not in notes and "kubectl logs -n postern-agent postern-agent-check\n" in notes
    assert "takes at most 300 s; Kubernetes waits 315 s" in notes


def test_stop_budget_adds_up(value_set, objects):
    _, spec, env = agent(objects)
    timeout = int(env["POSTERN_STOP_TIMEOUT"]["value"].removesuffix("s"))
    assert env["POSTERN_TERMINATION_GRACE_SECONDS"]["value"] == str(spec["terminationGracePeriodSeconds"])
    assert spec["terminationGracePeriodSeconds"] >= timeout + 5


def test_one_that_hangs_is_not_waited_for(objects):
    """The grace period is for work to finish; a process that fails its liveness probe does none."""
    _, spec, _ = agent(objects)
    for probe in ("startupProbe", "livenessProbe"):
        assert spec["containers"][0][probe]["terminationGracePeriodSeconds"] == 30


def size(text):
    units = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "M": 10**6, "G": 10**9}
    m = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    return float(m.group(1)) * units[m.group(2)]


def test_spool_fits_its_volume(objects):
    workload, spec, env = agent(objects)
    volume = next((v for v in spec["volumes"] if v["name"] == "spool"), {})
    if "emptyDir" in volume:
        limit = size(volume["emptyDir"]["sizeLimit"])
    else:
        (claim,) = workload["spec"].get("volumeClaimTemplates") or charts.of_kind(objects, "PersistentVolumeClaim")
        limit = size(claim["spec"]["resources"]["requests"]["storage"])
    outbox = 64 * 2**20
    most = int(env["POSTERN_SPOOL_MAX_BYTES"]["value"])
    assert 16 * 2**20 <= most and most + outbox <= 0.8 * limit + 1


def test_replicas_are_the_autoscalers(value_set, objects):
    workload, _, _ = agent(objects)
    scalers = charts.of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
    assert len(scalers) == (1 if value_set.values().get("autoscaling", {}).get("enabled") else 0)
    assert ("replicas" in workload["spec"]) == (not scalers)


def test_helm_test_and_preflight_run_in_the_agents_shoes(objects):
    """The same settings and mounts: what the check sees is what the agent will see."""
    _, spec, _ = agent(objects)
    main = spec["containers"][0]
    checks = [o for o in objects if o["kind"] in ("Pod", "Job")]
    assert checks
    for o in checks:
        other = charts.pod_template(o)[2]
        assert other["restartPolicy"] == "Never"
        (check,) = other["containers"]
        assert check["args"] == ["check"]
        assert check["image"] == main["image"] and check["volumeMounts"] == main["volumeMounts"]
        assert other["securityContext"] == spec["securityContext"] and check["securityContext"] == main["securityContext"]
        assert yaml.safe_dump(check["env"]).replace("-preflight", "") == yaml.safe_dump(main["env"])


def test_rolling_update_loses_nobody():
    workload, _, _ = agent(charts.named(CHART, "minimal"))
    assert workload["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    workload, _, _ = agent(charts.named(CHART, "deployment-pvc"))
    assert workload["spec"]["strategy"] == {"type": "Recreate"}  # two pods would want one volume


def checksum(values, tmp_path):
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    p = charts.template(CHART, "--values", f"{charts.HERE}/values/{CHART}/preflight.yaml", "--values", str(path))
    assert p.returncode == 0, p.stderr
    return charts.pod_template(agent(charts.parse(p.stdout))[0])[1]["checksum/config"]


@pytest.mark.parametrize("values, rolls", [
    ({}, False),
    ({"container": {"storageSecretKey": "another"}}, True),
    ({"proxy": {"httpsProxy": "http://user:another@proxy.example.com:3128"}}, True),
    ({"firewallCa": {"cert": "-----BEGIN CERTIFICATE-----\nother\n-----END CERTIFICATE-----\n"}}, True),
    ({"integrationsSecrets": {"refreshInterval": "5m"}}, False),  # the agent reads those again itself
    ({"replicaCount": 5}, False),
])
def test_only_what_cannot_be_read_again_rolls_the_pods(values, rolls, tmp_path):
    assert (checksum(values, tmp_path) != checksum({}, tmp_path)) == rolls


def test_identities_of_the_clouds():
    def account(name):
        return charts.one(charts.named(CHART, name), "ServiceAccount")["metadata"].get("annotations")

    assert account("example-eks")["eks.amazonaws.com/role-arn"] == "arn:aws:iam::123456789012:role/postern-agent"
    assert account("example-eks-pod-identity") is None
    assert account("example-gke") == {"iam.gke.io/gcp-service-account": "postern-agent@example-project.iam.gserviceaccount.com"}
    assert account("example-aks")["azure.workload.identity/client-id"] == "11111111-2222-3333-4444-555555555555"
    for o in charts.named(CHART, "example-aks"):
        if charts.pod_template(o):
            assert charts.pod_template(o)[0]["azure.workload.identity/use"] == "true"
    assert not charts.of_kind(charts.named(CHART, "bare"), "ServiceAccount")


def test_external_secrets():
    objects = charts.named(CHART, "example-externalsecrets")
    assert not charts.of_kind(objects, "SecretStore", "Secret")
    found = {o["metadata"]["name"]: o["spec"] for o in charts.of_kind(objects, "ExternalSecret")}
    assert found.keys() == {"postern-agent-token-secret", "postern-integrations-secrets", "postern-agent-ca"}
    token = found["postern-agent-token-secret"]
    assert token["secretStoreRef"] == {"name": "vault", "kind": "ClusterSecretStore"}
    assert token["data"] == [{"secretKey": "contents.json", "remoteRef": {"key": "platform/postern/agent", "property": "token"}}]
    assert [d["secretKey"] for d in found["postern-integrations-secrets"]["data"]] == ["warehouse.json", "billing.json"]
    store = charts.one(charts.named(CHART, "example-eks"), "SecretStore")
    assert store["spec"]["provider"]["aws"]["region"] == "us-east-1" and store["apiVersion"] == "external-secrets.io/v1"


@pytest.mark.parametrize("served, used", [(["v1beta1"], "v1beta1"), (["v1beta1", "v1"], "v1"), (["v1"], "v1")])
def test_external_secrets_of_older_clusters(served, used):
    apis = [a for v in served for a in ("--api-versions", f"external-secrets.io/{v}")]
    p = charts.template(CHART, "--values", f"{charts.chart_path(CHART)}/examples/eks.yaml", *apis)
    assert p.returncode == 0, p.stderr
    found = charts.of_kind(charts.parse(p.stdout), "ExternalSecret", "SecretStore")
    assert found and {o["apiVersion"] for o in found} == {f"external-secrets.io/{used}"}


def test_backlog():
    external = charts.one(charts.named(CHART, "backlog-hpa"), "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert external == [{"type": "External", "external": {
        "metric": {"name": "postern_gateway_outstanding_operations", "selector": {"matchLabels": {"agent": "my-agent"}}},
        "target": {"type": "AverageValue", "averageValue": "14"}}}]  # 80 % of 18 slots
    triggers = charts.one(charts.named(CHART, "keda-statefulset"), "ScaledObject")["spec"]["triggers"]
    assert [t["type"] for t in triggers] == ["memory", "prometheus"]
    assert triggers[1]["metadata"]["query"] == 'sum(max by (namespace, agent) (postern_gateway_outstanding_operations{account="a\\"b",agent="my-agent"}))'
    assert triggers[1]["authenticationRef"]["name"] == "prometheus"
    with open(f"{charts.ROOT}/deploy/prometheus/adapter-rules.yml", encoding="utf-8") as f:
        tested = re.search(r"^# +query: (.*)$", f.read(), re.MULTILINE)[1]  # against a real Prometheus
    query = charts.one(charts.named(CHART, "example-keda"), "ScaledObject")["spec"]["triggers"][1]["metadata"]["query"]
    assert query == tested.replace("warehouse", "my-agent")


def test_proxy():
    _, _, env = agent(charts.named(CHART, "proxy-plain"))
    assert env["HTTPS_PROXY"]["value"] == "http://proxy.example.com:3128" and "HTTP_PROXY" not in env
    hosts = env["NO_PROXY"]["value"].split(",")
    assert {"127.0.0.1", ".svc", ".cluster.local", "10.0.0.0/8", ".corp.example.com", "metadata.google.internal"} <= set(hosts)
    _, _, env = agent(charts.named(CHART, "preflight"))
    assert env["HTTPS_PROXY"]["valueFrom"] == {"secretKeyRef": {"name": "postern-agent-proxy", "key": "HTTPS_PROXY"}}
    _, _, env = agent(charts.named(CHART, "example-proxy"))
    assert env["HTTPS_PROXY"]["valueFrom"]["secretKeyRef"]["name"] == "egress-proxy"


def test_listed_egress_is_no_more_than_the_list():
    rules = charts.one(charts.named(CHART, "example-networkpolicy"), "NetworkPolicy")["spec"]["egress"]
    assert [sorted({p["port"] for p in r["ports"]}) for r in rules] == [[53], [7070], [5432], [1433, 3306, 5432], [443]]
    assert rules[1]["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "postern-gateway"}},
                               "podSelector": {"matchLabels": {"app": "postern-gateway"}}}]
    assert rules[4]["to"][0]["ipBlock"]["except"] == ["169.254.169.254/32", "168.63.129.16/32"]


def test_agent_knows_every_setting(value_set, objects):
    """The agent refuses names that it does not know, and values that cannot be."""
    _, _, env = agent(objects)
    given = {n: e.get("value", "http://u:p@proxy.example.com:3128") for n, e in env.items()}
    p = charts.postern("agent", "--print-config", env=given)
    assert p.returncode == 0 and not p.stderr, p.stderr
    for name in given:
        if name.startswith("POSTERN_"):
            assert f"[{name}]" in p.stdout or re.search(rf"\b{name}\b", p.stdout), f"{name} is not a setting of the agent:\n{p.stdout}"
