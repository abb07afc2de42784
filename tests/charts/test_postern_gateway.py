"""What the chart of the gateway does with its values."""
import base64
import re
import subprocess

import pytest

import charts

CHART = "postern-gateway"
LONGEST_WAIT, IDLE = 60, 90  # seconds: a client's ?wait=, and when the gateway closes an idle connection


def gateway(objects):
    """The pod's spec and the gateway's environment."""
    spec = charts.pod_template(charts.one(objects, "StatefulSet"))[2]
    return spec, {e["name"]: e["value"] for e in spec["containers"][0]["env"]}


def test_one_process_has_the_database(objects):
    workload = charts.one(objects, "StatefulSet")  # never two pods at a time, unlike a Deployment
    assert workload["spec"]["replicas"] <= 1 and "volumeClaimTemplates" not in workload["spec"]
    assert not charts.of_kind(objects, "Deployment")


def test_what_outlives_the_release(objects):
    for o in charts.of_kind(objects, "PersistentVolumeClaim", "Secret", "Namespace"):
        assert o["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep", o["kind"]


@pytest.mark.parametrize("name", ["minimal", "everything", "example-private-ca"])
def test_the_gateway_takes_the_environment(name):
    _, env = gateway(charts.named(CHART, name))
    p = charts.postern("gateway", "--print-config", env=env)
    assert p.returncode == 0, p.stderr
    for variable, value in env.items():
        if variable.startswith("POSTERN_"):
            assert re.search(rf"{variable}\b", p.stdout), f"{variable}: {p.stdout}"


def test_every_setting_of_the_gateway_has_a_value():
    known = set(re.findall(r"\[(POSTERN_\w+)\]", charts.postern("gateway", "--help").stdout))
    ours = {n for name in ("minimal", "example-private-ca") for n in gateway(charts.named(CHART, name))[1]}
    assert known - ours == {"POSTERN_BLOB_DIR", "POSTERN_PORT_FILE"}  # beside the database; a port that is known
    with open(f"{charts.chart_path(CHART)}/templates/_validate.tpl", encoding="utf-8") as f:
        refused = set(re.findall(r'"(POSTERN_\w+)"', f.read()))
    assert known - refused == {"POSTERN_PORT_FILE"}, "container.extraEnv must refuse what the chart sets"


def test_owner_token_is_made_and_good():
    made = []
    for _ in range(2):
        p = charts.template(CHART)
        secret = charts.one(charts.parse(p.stdout), "Secret")
        made.append(base64.b64decode(secret["data"]["token"]).decode())
    assert made[0] != made[1]
    assert all(re.fullmatch(r"ptt_[A-Za-z0-9]{43}", t) for t in made)


def test_stop_fits_into_the_grace_period(objects):
    spec, env = gateway(objects)
    assert spec["terminationGracePeriodSeconds"] >= int(env["POSTERN_STOP_TIMEOUT"].removesuffix("s")) + 20


def seconds_of(objects):
    """Every response or idle timeout that the load balancer in front is told."""
    ingress = charts.one(objects, "Ingress")
    for name, value in (ingress["metadata"].get("annotations") or {}).items():
        if "timeout" in name or "timeout" in value:
            yield int(re.search(r"\d+$", value).group())
    for o in charts.of_kind(objects, "BackendConfig"):
        yield o["spec"]["timeoutSec"]


@pytest.mark.parametrize("name, timeouts", [("example-nginx", 2), ("example-eks", 1), ("example-gke", 1), ("gce-tls", 1)])
def test_what_stands_in_front_waits_long_enough(name, timeouts):
    found = list(seconds_of(charts.named(CHART, name)))
    assert len(found) == timeouts
    assert all(LONGEST_WAIT < s < IDLE for s in found), found


def test_own_annotations_win():
    annotations = charts.one(charts.parse(charts.template(
        CHART, "--values", f"{charts.chart_path(CHART)}/examples/nginx.yaml",
        "--set-string", r"ingress.annotations.nginx\.ingress\.kubernetes\.io/proxy-read-timeout=80").stdout), "Ingress")["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"] == "80"
    assert annotations["nginx.ingress.kubernetes.io/proxy-body-size"] == "0"
    assert annotations["cert-manager.io/cluster-issuer"] == "letsencrypt"


def test_tls_in_the_pod_is_https_everywhere():
    objects = charts.named(CHART, "example-private-ca")
    spec, env = gateway(objects)
    main = spec["containers"][0]
    assert {main[p]["httpGet"]["scheme"] for p in ("startupProbe", "livenessProbe", "readinessProbe")} == {"HTTPS"}
    assert env["POSTERN_TLS_CERT"] and env["POSTERN_TLS_KEY"]
    endpoint = charts.one(objects, "ServiceMonitor")["spec"]["endpoints"][0]
    assert (endpoint["scheme"], endpoint["tlsConfig"]["serverName"]) == ("https", "gateway.internal.example.com")
    test = charts.one(objects, "Pod")["spec"]["containers"][0]
    assert {e["name"]: e["value"] for e in test["env"]} == {
        "POSTERN_GATEWAY_URL": "https://gateway.internal.example.com", "POSTERN_API_TOKEN_FILE": "/etc/secrets/postern-owner-token/token",
        "POSTERN_CA_FILE": "/etc/postern/tls/ca.crt"}


def test_dashboard():
    dashboard = charts.one(charts.named(CHART, "monitoring"), "ConfigMap")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1" and dashboard["metadata"]["labels"]["team"] == "platform"
    with open(f"{charts.ROOT}/deploy/grafana/postern.json", encoding="utf-8") as f:
        assert dashboard["data"] == {"postern.json": f.read()}


def test_nothing_goes_out_by_default():
    assert charts.one(charts.named(CHART, "minimal"), "NetworkPolicy")["spec"]["egress"] == []


def test_notes_say_what_comes_next(tmp_path):
    """helm template leaves NOTES.txt out: a copy of the chart renders it as a value."""
    copy = tmp_path / "chart"
    subprocess.run(["cp", "-r", charts.chart_path(CHART), copy], check=True)
    (copy / "templates/NOTES.txt").rename(copy / "notes")
    (copy / "templates/notes.yaml").write_text('notes: {{ tpl (.Files.Get "notes") . | toJson }}\n')
    p = charts.template(CHART, "--values", f"{charts.chart_path(CHART)}/examples/nginx.yaml", "-s", "templates/notes.yaml", path=str(copy))
    assert p.returncode == 0, p.stderr
    notes = charts.parse(p.stdout)[0]["notes"]
    for command in ("kubectl get secret -n postern-gateway postern-gateway-owner-token", "postern ctl login --url https://gateway.example.com",
                    "postern ctl keys create --agent warehouse --output-file agent-token.json", "container.backendServiceUrl: https://gateway.example.com"):
        assert command in notes, notes
    assert "WARNING" not in notes
