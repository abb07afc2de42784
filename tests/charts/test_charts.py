"""What is true of every chart, with every value set."""
import ipaddress
import os
import re
import subprocess

import pytest
import yaml

import charts

CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding", "PriorityClass"}
METADATA = [ipaddress.ip_address(a) for a in ("169.254.169.254", "168.63.129.16", "fd00:ec2::254")]


def pods(objects):
    """(object, labels, annotations, spec) of everything that makes pods."""
    return [(o, *t) for o in objects if (t := charts.pod_template(o))]


def named(o):
    return f"{o['kind']} {o['metadata']['name']}"


def is_hook(o):
    return "helm.sh/hook" in (o["metadata"].get("annotations") or {})


def test_lint(chart):
    """helm lint has nothing to say, also not as a warning."""
    p = charts.run("lint", "--strict", charts.chart_path(chart), "--values", f"{charts.HERE}/values/{chart}/minimal.yaml")
    assert p.returncode == 0, p.stdout + p.stderr


def test_enough_value_sets(chart):
    assert len([s for s in charts.value_sets() if s.chart == chart]) >= 10


@pytest.mark.parametrize("derived", ["readme", "files"])
def test_derived_is_what_its_source_says(derived):
    p = subprocess.run(["tools/charts", derived, "--check"], cwd=charts.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert p.returncode == 0, p.stdout


@pytest.mark.parametrize("name, groups", [
    ("postern-agent", ["postern-agent-records", "postern-agent", "postern-both"]),
    ("postern-gateway", ["postern-gateway-records", "postern-gateway", "postern-both"]),
])
def test_rules_come_out_as_they_are(name, groups):
    """With the braces of Prometheus, and no rule of the other side: PosternGatewayMissing would fire wherever no gateway is scraped."""
    objects = charts.objects(next(s for s in charts.value_sets() if s.chart == name and s.name == "monitoring"))
    (rule,) = charts.of_kind(objects, "PrometheusRule")
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    have = charts.load(f"{charts.ROOT}/deploy/prometheus/postern.rules.yml")["groups"]
    assert {g["name"] for g in have} == {"postern-gateway-records", "postern-gateway", "postern-agent-records", "postern-agent", "postern-both"}
    assert rule["spec"] == {"groups": [g for g in have if g["name"] in groups]}
    assert "{{ $labels.instance }}" in yaml.safe_dump(rule)


def properties(schema, node):
    """Property names of one level of a schema, through its references."""
    while "$ref" in node:
        node = schema["definitions"][node["$ref"].split("/")[-1]]
    return node.get("properties"), node.get("additionalProperties")


def test_schema_and_values_have_the_same_keys(chart):
    """A key of values.yaml that the schema does not know, or the other way round, is one that nobody can set or that does nothing."""
    schema = charts.load(f"{charts.chart_path(chart)}/values.schema.json")
    bad = []

    def walk(node, values, path):
        known, more = properties(schema, node)
        if known is None or not isinstance(values, dict) or (more is not False and not known):
            return
        if more is not False:
            bad.append(f"{path}: takes unknown keys")
        if not values:  # an empty map: what may be in it is the schema's matter
            return
        refused = {k for k, v in known.items() if str(v.get("description", "")).startswith("Refused")}
        optional = {"global", "successThreshold", "claims"} | refused
        bad.extend(f"{path}.{k}: only in values.yaml" for k in values.keys() - known.keys())
        bad.extend(f"{path}.{k}: only in the schema" for k in known.keys() - values.keys() - optional)
        for k in values.keys() & known.keys():
            walk(known[k], values[k], f"{path}.{k}")

    walk(schema, charts.load(f"{charts.chart_path(chart)}/values.yaml"), "")
    assert not bad, "\n".join(bad)


def test_refused(refusal):
    said = charts.refused(refusal["chart"], refusal["values"])
    assert said is not None, "these values are taken"
    for text in [refusal["says"]] if isinstance(refusal["says"], str) else refusal["says"]:
        assert text in said, said
    assert "hunter2" not in said, "a secret is shown"


def test_golden(value_set, request):
    """The render is what it was. Look at what changed, then write it anew with --update."""
    text = charts.render(value_set.path, value_set.chart)
    if request.config.getoption("--update"):
        os.makedirs(os.path.dirname(value_set.golden), exist_ok=True)
        with open(value_set.golden, "w", encoding="utf-8") as f:
            f.write(text)
    with open(value_set.golden, encoding="utf-8") as f:
        assert text.splitlines() == f.read().splitlines()


def test_no_golden_without_values():
    have = {s.golden for s in charts.value_sets()}
    there = {os.path.join(d, f) for d, _, files in os.walk(f"{charts.HERE}/golden") for f in files}
    assert there <= have


def test_names_and_namespaces(value_set, objects):
    namespace = value_set.values().get("namespace") or value_set.chart
    seen = set()
    for o in objects:
        assert o["apiVersion"] and re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", o["metadata"]["name"]), named(o)
        if o["kind"] in CLUSTER_WIDE:
            assert "namespace" not in o["metadata"], named(o)
        else:
            assert o["metadata"]["namespace"] == namespace, named(o)
        key = o["kind"], o["metadata"]["name"]
        assert key not in seen, f"{named(o)} is there twice"
        seen.add(key)
        labels = o["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == value_set.chart, named(o)
        for text in [*labels.values(), *(o["metadata"].get("annotations") or {}).values()]:
            assert isinstance(text, str), f"{named(o)}: labels and annotations are text"
        for text in labels.values():
            assert re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", text), f"{named(o)}: label {text}"


def test_namespace_is_never_deleted(objects):
    for o in charts.of_kind(objects, "Namespace"):
        assert o["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_restricted(value_set, objects):
    """The restricted Pod Security Standard, and more: read-only root, no token, no service links."""
    openshift = value_set.values().get("openshift")
    asked = value_set.values().get("podSecurityContext", {})
    for o, _, _, spec in pods(objects):
        who = named(o)
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True, who
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, who
        if openshift:
            assert not {"runAsUser", "runAsGroup", "fsGroup"} & context.keys(), who
        else:
            for key in ("runAsUser", "runAsGroup", "fsGroup"):
                assert context.get(key) == (None if key in asked else 65534), who
        assert spec["automountServiceAccountToken"] is False, who
        assert spec["enableServiceLinks"] is False, who
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), who
        for c in charts.containers(spec):
            context = c["securityContext"]
            assert context["allowPrivilegeEscalation"] is False and not context.get("privileged"), f"{who}: {c['name']}"
            assert context["readOnlyRootFilesystem"] is True, f"{who}: {c['name']}"
            assert context["capabilities"] == {"drop": ["ALL"]}, f"{who}: {c['name']}"
            assert context.get("runAsNonRoot", True) is True and context.get("runAsUser") != 0, f"{who}: {c['name']}"
        for v in spec.get("volumes", []):
            kinds = v.keys() - {"name"}
            assert kinds <= {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}, who
            if "emptyDir" in kinds and v["name"] not in {x["name"] for x in value_set.values().get("extraVolumes", [])}:
                assert v["emptyDir"]["sizeLimit"], f"{who}: {v['name']} may fill the node"


def test_mounts_and_volumes_fit(objects):
    for o, _, _, spec in pods(objects):
        volumes = [v["name"] for v in spec.get("volumes", [])]
        volumes += [t["metadata"]["name"] for t in o["spec"].get("volumeClaimTemplates", [])]
        assert len(volumes) == len(set(volumes)), named(o)
        for c in charts.containers(spec):
            mounts = c.get("volumeMounts", [])
            assert {m["name"] for m in mounts} <= set(volumes), named(o)
            assert len({m["mountPath"] for m in mounts}) == len(mounts), named(o)


def test_resources_and_images(value_set, objects):
    image = value_set.values().get("image", {})
    for o, _, _, spec in pods(objects):
        for c in charts.containers(spec):
            assert c["resources"]["requests"]["cpu"] and c["resources"]["requests"]["memory"], named(o)
            assert c["resources"]["limits"]["memory"], named(o)
            assert re.search(r":[^/]+$|@sha256:[0-9a-f]{64}$", c["image"]), f"{named(o)}: {c['image']} has neither tag nor digest"
            assert not c["image"].endswith(":latest") or image.get("tag") == "latest", f"{named(o)}: {c['image']}"


def test_probes(objects):
    for o, _, _, spec in pods(objects):
        if o["kind"] in ("Deployment", "StatefulSet"):
            main = spec["containers"][0]
            ports = {p["name"] for p in main["ports"]}
            for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
                assert main[probe]["httpGet"]["path"] == path and main[probe]["httpGet"]["port"] in ports, named(o)
            assert main["livenessProbe"]["failureThreshold"] * main["livenessProbe"]["periodSeconds"] >= 30, "kills what is merely slow"


def secrets_in(values, path=""):
    """Values that are secret by their name, and proxies with a password."""
    for k, v in values.items():
        if isinstance(v, dict):
            yield from secrets_in(v, f"{path}.{k}")
        elif isinstance(v, str) and v and (re.search(r"(AccessKey|SecretKey|[pP]assword|[tT]oken)$", k) or re.search(r"//[^/]*:[^/]*@", v)):
            yield v


def test_no_secret_outside_of_secrets(value_set, objects):
    secrets = set(secrets_in(value_set.values()))
    for o in objects:
        if o["kind"] != "Secret":
            text = yaml.safe_dump(o)
            assert not [s for s in secrets if s in text], f"{named(o)} shows a secret"


def test_environment_is_unique(objects):
    for o, _, _, spec in pods(objects):
        for c in charts.containers(spec):
            names = [e["name"] for e in c.get("env", [])]
            assert len(names) == len(set(names)), named(o)
            assert all(isinstance(e.get("value", ""), str) for e in c.get("env", [])), named(o)


def test_selectors(objects):
    """What selects pods selects those of the workload, and none of a test or a hook."""
    workloads = [(o, labels) for o, labels, _, _ in pods(objects) if o["kind"] in ("Deployment", "StatefulSet")]
    others = [labels for o, labels, _, _ in pods(objects) if o["kind"] not in ("Deployment", "StatefulSet")]
    for o, labels in workloads:
        assert charts.matches(o["spec"]["selector"], labels), named(o)
        assert not any(charts.matches(o["spec"]["selector"], x) for x in others), named(o)
        for c in charts.pod_template(o)[2].get("topologySpreadConstraints", []):
            assert charts.matches(c["labelSelector"], labels), f"{named(o)} spreads over nothing"
    names = {(o["kind"], o["metadata"]["name"]) for o, _ in workloads}
    for o in objects:
        selector = {"Service": o.get("spec", {}).get("selector"), "PodDisruptionBudget": o.get("spec", {}).get("selector")}.get(o["kind"])
        if selector:
            assert any(charts.matches(selector, labels) for _, labels in workloads), named(o)
            assert not any(charts.matches(selector, labels) for labels in others), named(o)
        if o["kind"] == "NetworkPolicy":
            assert any(charts.matches(o["spec"]["podSelector"], labels) for _, labels in workloads), named(o)
        if o["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
            ref = o["spec"]["scaleTargetRef"]
            assert (ref["kind"], ref["name"]) in names, named(o)
        if o["kind"] == "ServiceMonitor":
            services = [s for s in charts.of_kind(objects, "Service") if charts.matches(o["spec"]["selector"], s["metadata"]["labels"])]
            assert len(services) == 1, named(o)
            ports = {p["name"] for p in services[0]["spec"]["ports"]}
            assert {e["port"] for e in o["spec"]["endpoints"]} <= ports, named(o)


def test_what_is_mounted_is_made_or_documented(value_set, objects):
    """A Secret or ConfigMap of the chart's own making that a pod names is there; so is a ServiceAccount; and a hook that runs before
    the rest needs nothing of it."""
    made = {(o["kind"], o["metadata"]["name"]): is_hook(o) for o in objects if o["kind"] in ("Secret", "ConfigMap", "ExternalSecret", "ServiceAccount", "PersistentVolumeClaim")}
    prefix = charts.of_kind(objects, "Deployment", "StatefulSet")[0]["metadata"]["name"].rsplit("-", 1)[0] + "-"
    account = value_set.values().get("serviceAccount", {}).get("create", True)
    for o, _, _, spec in pods(objects):
        early = (o["metadata"].get("annotations") or {}).get("helm.sh/hook", "").startswith("pre-")
        if account and not early:
            assert ("ServiceAccount", spec["serviceAccountName"]) in made, named(o)
        if early:
            assert ("ServiceAccount", spec["serviceAccountName"]) not in made, f"{named(o)} runs before its ServiceAccount is there"
        for v in spec.get("volumes", []):
            kind, name = ("Secret", v.get("secret", {}).get("secretName")) if "secret" in v else ("ConfigMap", v.get("configMap", {}).get("name"))
            if name and name.startswith(prefix) and name not in yaml.safe_dump(value_set.values()) and "optional" not in v.get("secret", {}):
                is_made = made.get((kind, name), made.get(("ExternalSecret", name)))
                documented = name.endswith("-secret")
                assert is_made is not None or documented, f"{named(o)}: {kind} {name}"
                assert not early or is_made or documented, f"{named(o)} runs before {kind} {name} is there"


def test_network_policies_block_metadata(objects):
    for o in charts.of_kind(objects, "NetworkPolicy"):
        assert set(o["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        for rule in o["spec"]["egress"]:
            ports = {p["port"] for p in rule.get("ports", [])}
            assert rule.get("to") or ports <= {53, 5353} and ports, f"{named(o)}: a rule without peers lets everything through"
            for peer in rule.get("to") or []:
                block = peer.get("ipBlock")
                if not block:
                    continue
                net = ipaddress.ip_network(block["cidr"], strict=False)
                out = [ipaddress.ip_network(x) for x in block.get("except", [])]
                assert all(x.version == net.version and x.subnet_of(net) and x != net for x in out), named(o)
                for a in METADATA:
                    if a in net and net.prefixlen < net.max_prefixlen:
                        assert any(a in x for x in out), f"{named(o)}: {net} lets {a} through"
                    elif a in net:  # GKE's, which the pod's own identity comes from
                        assert any("iam.gke.io/gcp-service-account" in (s["metadata"].get("annotations") or {})
                                   for s in charts.of_kind(objects, "ServiceAccount")), named(o)
        for rule in o["spec"]["ingress"]:
            assert rule.get("from"), f"{named(o)}: lets everybody in"
            assert rule["ports"], named(o)


def test_upgrade_keeps_what_is_immutable(value_set, tmp_path):
    """Another version of chart and image: selectors, claims and Service names stay; and a new chart alone rolls no pods."""
    copy = tmp_path / "chart"
    subprocess.run(["cp", "-r", charts.chart_path(value_set.chart), copy], check=True)
    meta = charts.load(copy / "Chart.yaml")
    (copy / "Chart.yaml").write_text(yaml.safe_dump({**meta, "version": "9.9.9"}))
    p = charts.template(value_set.chart, "--values", value_set.path, path=str(copy))
    assert p.returncode == 0, p.stderr
    new = {(o["kind"], o["metadata"]["name"]): o for o in charts.parse(p.stdout)}
    old = {(o["kind"], o["metadata"]["name"]): o for o in charts.objects(value_set)}
    assert new.keys() == old.keys()
    for key, o in old.items():
        if o["kind"] in ("Deployment", "StatefulSet"):
            assert new[key]["spec"] == o["spec"], f"{named(o)} would roll or be refused"


@pytest.mark.parametrize("release", ["a", "a-very-long-name-of-a-release-as-long-as-helm-lets-it"])
def test_other_release_names(chart, release):
    p = charts.run("template", release, charts.chart_path(chart), "--values", f"{charts.HERE}/values/{chart}/minimal.yaml")
    assert p.returncode == 0, p.stderr
    for o in charts.parse(p.stdout):
        assert len(o["metadata"]["name"]) <= 63 and not o["metadata"]["name"].endswith("-"), named(o)
        assert o["metadata"]["labels"]["app.kubernetes.io/instance"] == release
