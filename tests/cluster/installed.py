"""What tests install into the cluster: the gateway, agents, a PostgreSQL; all from their charts and images, with the real helm and kubectl.

    gw = Gateway(cluster, "vendor", folder)                       # chart postern-gateway; product.Api: agents, keys, operations
    agent = Agent(cluster, gw, "customer", {"replicaCount": 2})   # chart postern-agent; waits until its pods are Ready
    db = Postgres(cluster, "data")
"""
import contextlib
import json
import os
import pathlib
import secrets
import subprocess
import sys
import tempfile

import yaml

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests/integration"))
from harness import request, wait_until  # noqa: E402
from product import Api, Key, write_private  # noqa: E402

import images  # noqa: E402
from kube import CONTROL, ClusterError  # noqa: E402

CHARTS = ROOT / "deploy/helm"
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}


def namespace(cluster, name, restricted=True):
    """A namespace in which Pod Security refuses every pod that is not `restricted`."""
    cluster.recycle_volumes()
    cluster.apply({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED if restricted else {}}})
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=30s")


def push_images(cluster, folder):
    """Put our image (of this working tree, or $POSTERN_IMAGE) and those of the tests into the cluster's registry."""
    for name in ("postgres", "busybox"):
        cluster.push(images.make(name, pathlib.Path(folder) / name), f"postern-test/{name}:1")
    archive = os.environ.get("POSTERN_IMAGE")
    if not archive:
        subprocess.run([ROOT / "tools/image", "--local"], check=True, cwd=ROOT, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL)
        archive = next((ROOT / "build/image/archive").glob("*.oci.tar"))
    for tag in ("0.1.0", "latest"):
        cluster.push(archive, f"postern/postern:{tag}")


def secret(cluster, ns, name, files, kind="Opaque"):
    """Make or replace a Secret; files: {entry: text or document}."""
    data = {k: v if isinstance(v, str) else json.dumps(v) for k, v in files.items()}
    cluster.apply({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": ns}, "stringData": data, "type": kind})


def pods(cluster, ns, selector=""):
    """Pods that are not on their way out."""
    found = cluster.get("pods", "-n", ns, *(["-l", selector] if selector else []))["items"]
    return [p for p in found if not p["metadata"].get("deletionTimestamp")]


def ready(pod):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def process(cluster, pod):
    """The agent's process as this host sees it: its folder in /proc."""
    uid = pod["metadata"]["uid"]
    for path in cluster.cgroup(pod["spec"]["nodeName"]).rglob("cgroup.procs"):
        if uid in str(path):
            for pid in path.read_text().split():
                if "postern" in pathlib.Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8"):
                    return f"/proc/{pid}"
    raise AssertionError(f"no process of {pod['metadata']['name']}")


def describe(cluster, ns):
    """What a person would look at: pods, events, the last log lines."""
    out = [cluster.call(cluster.bin / "kubectl", "get", "pods,events", "-n", ns, "-o", "wide", check=False).stdout[-4000:]]
    for p in cluster.get("pods", "-n", ns)["items"]:
        for c in p["spec"]["containers"]:
            log = cluster.call(cluster.bin / "kubectl", "logs", "-n", ns, p["metadata"]["name"], "-c", c["name"], "--tail=15",
                               check=False)
            out.append(f"--- log of {p['metadata']['name']}\n{log.stdout}{log.stderr}")
    return "\n".join(out)


class Release:
    """A Helm release.  .upgrade(values) installs and upgrades, and waits until its pods are Ready unless told otherwise."""

    def __init__(self, cluster, chart, name, ns):
        self.cluster, self.chart, self.name, self.ns = cluster, CHARTS / chart, name, ns
        self.values = {"image": {"pullPolicy": "Always"}}  # a cluster that stays has older ones

    def upgrade(self, values=None, wait=True, timeout=120):
        self.values.update(values or {})
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
            yaml.safe_dump(self.values, f)
            f.flush()
            try:
                return self.cluster.helm("upgrade", "--install", self.name, self.chart, "-n", self.ns, "-f", f.name,
                                         *(["--wait", f"--timeout={timeout}s"] if wait else []))
            except ClusterError as e:
                raise AssertionError(f"{e}\n{describe(self.cluster, self.ns)}") from None

    def remove(self):
        self.cluster.helm("uninstall", self.name, "-n", self.ns, "--wait", "--ignore-not-found")

    def kubectl(self, *argv, **kw):
        return self.cluster.kubectl("-n", self.ns, *argv, **kw)

    def pods(self):
        """Of the workload: not those of Jobs and tests."""
        return [p for p in pods(self.cluster, self.ns, f"app.kubernetes.io/instance={self.name}")
                if p["metadata"].get("ownerReferences", [{}])[0].get("kind") in ("ReplicaSet", "StatefulSet")]


class Gateway(Api, Release):
    """The vendor's side, in a namespace of its own.  .service is its URL for pods, .url for this host.  ca: a harness.CA, for https."""

    def __init__(self, cluster, ns, home, values=None, ca=None):
        Release.__init__(self, cluster, "postern-gateway", "postern-gateway", ns)
        self.home, self.token, self.ca_file = pathlib.Path(home), f"pts_{secrets.token_urlsafe(32)}", ca and ca.cert
        namespace(cluster, ns)
        secret(cluster, ns, "owner-token", {"token": self.token + "\n"})
        values = {"ownerToken": {"existingSecret": {"name": "owner-token"}}, **(values or {})}
        name, scheme = f"postern-gateway.{ns}.svc.cluster.local", "http"
        # A second Service, whose address is known before the certificate is made.
        cluster.apply({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "from-outside", "namespace": ns}, "spec": {
                "selector": {"app.kubernetes.io/name": "postern-gateway", "app.kubernetes.io/component": "gateway"},
                "ports": [{"port": 7070}]}})
        address = cluster.get("service", "-n", ns, "from-outside")["spec"]["clusterIP"]
        if ca:
            cert, key = ca.issue(ns, f"DNS:{name},IP:{address}", days=90)
            secret(cluster, ns, "tls", {"tls.crt": cert.read_text(), "tls.key": key.read_text()}, "kubernetes.io/tls")
            values["tls"], scheme = {"existingSecret": {"name": "tls"}}, "https"
        self.upgrade(values)
        self.service, self.url = f"{scheme}://{name}:7070", f"{scheme}://{address}:7070"
        wait_until(self.answers, 30, "the gateway answers")

    def answers(self):
        with contextlib.suppress(OSError):
            return self.request("GET", "/readyz", token=None, timeout=3).status == 200
        return False

    def make_integration(self, name, key, connection_type="postgres"):
        """Register an integration whose credential is a file that the agent's Secret has."""
        return self.api(
            "POST", "/integrations", {
                "name": name, "connection_type": connection_type, "agent": key.agent, "credential": {
                    "type": "FILE", "file_path": f"/etc/secrets/integrations/{name}.json"}})


class Agent(Release):
    """A customer's side.  .key is the agent's Key, .files what its integrations Secret has."""

    def __init__(self, cluster, gateway, ns, values=None, files=None, key=None, wait=True, name="postern-agent"):
        super().__init__(cluster, "postern-agent", name, ns)
        self.gateway, self.key = gateway, key or gateway.agent(ns)
        namespace(cluster, ns)
        self.put_token(self.key)
        self.put_integrations(files or {"empty.json": {}})
        self.upgrade(
            {"namespace": ns, "container": {"backendServiceUrl": gateway.service}, "skipExternalSecrets": True, **(values or {})},
            wait)

    def put_token(self, key):
        secret(self.cluster, self.ns, "postern-agent-token-secret",
               {"contents.json": {"key_id": key.id, "key_secret": key.secret}})

    def put_integrations(self, files):
        secret(self.cluster, self.ns, "postern-integrations-secrets", files)

    def metric(self, pod, name):
        text = request("GET", f"http://{pod['status']['podIP']}:8080/metrics", timeout=5).text
        return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} ")))


class Postgres:
    """A PostgreSQL in the cluster.  .sql() runs psql in its pod."""

    def __init__(self, cluster, ns):
        self.cluster, self.ns, self.password = cluster, ns, secrets.token_urlsafe(16)
        self.host = f"postgres.{ns}.svc.cluster.local"
        namespace(cluster, ns)
        secret(cluster, ns, "postgres", {"password": self.password})
        cluster.apply((HERE / "manifests/postgres.yaml").read_text(), "-n", ns)
        cluster.kubectl("rollout", "status", "-n", ns, "deployment/postgres", "--timeout=90s")

    def sql(self, statement):
        """Rows of text fields."""
        out = self.cluster.kubectl("exec", "-i", "-n", self.ns, "deployment/postgres", "--", "psql", "-h", "/tmp", "-U", "app",
                                   "-d", "app", "-v", "ON_ERROR_STOP=1", "-qAt", "-F", "\t", input=statement)
        return [line.split("\t") for line in out.splitlines()]

    def connect_args(self):
        return {"host": self.host, "port": 5432, "dbname": "app", "user": "app", "password": self.password, "sslmode": "disable"}

    def credentials(self):
        """What a file of the integrations Secret has."""
        return {"connect_args": self.connect_args()}


class ObjectStore:
    """An S3 server that checks signatures (OpenStack Swift) on the control machine, under the name that a MinIO in the cluster would have."""
    bucket, access_key, secret_key = "postern-agent-storage", "test:ada", "secret-of-ada"
    service = "http://minio-api.minio.svc.cluster.local:9000"

    def __init__(self, cluster):
        from stores import SWIFT, s3_request
        home = cluster.control.folder / "s3"
        if not home.exists():  # it lives as long as the cluster
            home.mkdir()
            cluster.control.spawn("s3-server", "/usr/bin/python3", "-B", SWIFT, home, 9000, "us-east-1", CONTROL)
        namespace(cluster, "minio")
        cluster.apply(external_service("minio-api", "minio", CONTROL, 9000))
        url = f"http://{CONTROL}:9000/{self.bucket}"

        def bucket():
            with contextlib.suppress(OSError):
                return s3_request("PUT", url, self.access_key, self.secret_key).status in (200, 409)
            return False

        wait_until(bucket, 60, "the object store has its bucket")


def external_service(name, ns, address, port, service_port=None):
    """A Service of the cluster for something that is no pod."""
    meta = {"name": name, "namespace": ns}
    return [{
        "apiVersion": "v1", "kind": "Service", "metadata": meta,
        "spec": {"ports": [{"name": "p", "port": service_port or port, "targetPort": port}]}}, {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {**meta, "labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4",
            "ports": [{"name": "p", "port": port}], "endpoints": [{"addresses": [address], "conditions": {"ready": True}}]}]


__all__ = [
    "Agent", "Gateway", "Key", "ObjectStore", "Postgres", "Release", "describe", "namespace", "pods", "process", "push_images",
    "ready", "request", "secret", "wait_until", "write_private"]
