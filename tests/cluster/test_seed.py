"""A platform engineer's walk: the documented steps, command for command, on a cluster that knows nothing of us yet.

Chart and image come from registries; the agent's owner has a token at the gateway; MinIO's place is taken by another S3 server.  The tests of this file are one
walk and run in order.
"""
import json
import subprocess
import textwrap

import pytest

import installed
import kube
from installed import ROOT, wait_until

pytestmark = pytest.mark.limit(240)


class Walk:
    """A folder with the engineer's files, and a shell in it."""

    def __init__(self, cluster, gateway, postgres, folder):
        self.cluster, self.gateway, self.postgres, self.folder, self.agent = cluster, gateway, postgres, folder, None

    def sh(self, script):
        """Commands as a person types them; their output."""
        p = subprocess.run(["bash", "-euo", "pipefail", "-c", textwrap.dedent(script)], cwd=self.folder, env=self.cluster.env,
                           stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False)
        assert p.returncode == 0, f"{script}\nexit code {p.returncode}\n{p.stdout}{p.stderr}\n{installed.describe(self.cluster, 'postern-agent')}"
        return p.stdout

    def write(self, name, text):
        (self.folder / name).write_text(textwrap.dedent(text))

    def helm(self):
        """The seed's command; the chart's registry is the cluster's."""
        return self.sh(f"""
            helm upgrade --install postern-agent \\
              oci://{kube.REGISTRY}/charts/postern-agent --plain-http \\
              --version 0.1.0 \\
              -f values.yaml""")

    def deployed(self):
        self.sh("kubectl rollout status -n postern-agent deployment/postern-agent-deployment --timeout=90s")


@pytest.fixture(scope="module")
def walk(cluster, gateway, postgres, tmp_path_factory):
    folder = tmp_path_factory.mktemp("walk")
    cluster.helm("package", installed.CHARTS / "postern-agent", "-d", folder)
    cluster.helm("push", next(folder.glob("postern-agent-*.tgz")), f"oci://{kube.REGISTRY}/charts", "--plain-http")
    yield Walk(cluster, gateway, postgres, folder)
    cluster.call(cluster.bin / "helm", "uninstall", "postern-agent", "-n", "default", "--ignore-not-found")
    cluster.kubectl("delete", "namespace", "postern-agent", "--ignore-not-found")


def test_register(walk):
    """Settings > Deployments > Add: an id and a secret, shown once."""
    walk.agent = walk.gateway.agent("walk", enable=False)
    walk.write("agent-token.json", json.dumps({"mcd_id": walk.agent.id, "mcd_token": walk.agent.secret}))


def test_namespace_and_secrets(walk):
    walk.sh("""
        kubectl create namespace postern-agent
        kubectl label namespace postern-agent app.kubernetes.io/managed-by=Helm
        kubectl annotate namespace postern-agent meta.helm.sh/release-name=postern-agent meta.helm.sh/release-namespace=default

        kubectl create secret generic postern-agent-token-secret -n postern-agent \\
          --from-file=contents.json=agent-token.json
        kubectl create secret generic postern-integrations-secrets -n postern-agent \\
          --from-file=empty.json=<(echo '{}')""")


def test_install(walk, s3):
    walk.write("values.yaml", f"""\
        namespace: postern-agent
        replicaCount: 1
        image:
          pullPolicy: Always
          tag: "latest"
        container:
          backendServiceUrl: "{walk.gateway.service}"
          storageBucketName: "{s3.bucket}"
          storageType: "S3_COMPATIBLE"
          storageEndpointUrl: "{s3.service}"
          storageAccessKey: "{s3.access_key}"
          storageSecretKey: "{s3.secret_key}"
        skipExternalSecrets: true
        """)
    out = walk.helm()
    assert "postern check reachability" in out  # the notes say how to go on
    walk.deployed()


def test_verify(walk):
    assert "Running" in walk.sh("kubectl get pods -n postern-agent")
    assert walk.sh("kubectl logs -n postern-agent -l app=postern-agent --tail=30").strip()
    out = walk.sh("""
        kubectl exec -n postern-agent deploy/postern-agent-deployment -- \\
          postern check reachability""")
    assert '"ok": true' in out
    doc = json.loads(walk.sh("kubectl exec -n postern-agent deploy/postern-agent-deployment -- postern check -o json"))
    checks = {c["name"]: c for c in doc["checks"]}
    assert doc["ok"] and checks["storage"]["status"] == checks["agent"]["status"] == "PASS", doc
    assert checks["token"]["status"] == "WARN" and "enable" in checks["token"]["fix"], doc  # that comes next


def test_the_image_has_no_shell(walk):
    with pytest.raises(AssertionError, match="(?i)no such file|not found"):
        walk.sh("kubectl exec -n postern-agent deploy/postern-agent-deployment -- sh -c true")


def test_enable(walk):
    """The first operation waits until the agent is enabled."""
    op = walk.gateway.submit("health", agent=walk.agent.agent)
    walk.gateway.api("POST", f"/agents/{walk.agent.agent}/enable")
    assert walk.gateway.wait(op, timeout=30)["state"] == "succeeded"


def test_integration_credentials(walk):
    """The empty secret is replaced by one with connection details; a query gives rows to the client."""
    walk.write("credentials.json", json.dumps(walk.postgres.credentials()))
    walk.sh("""
        kubectl delete secret postern-integrations-secrets -n postern-agent
        kubectl create secret generic postern-integrations-secrets -n postern-agent \\
          --from-file=sales.json=credentials.json
        kubectl rollout restart deployment/postern-agent-deployment -n postern-agent""")
    walk.deployed()
    ctl = [ROOT / "build/src/cmd/postern", "ctl"]
    walk.write("api-token", walk.gateway.token)
    (walk.folder / "api-token").chmod(0o600)
    env = {
        "POSTERN_GATEWAY_URL": walk.gateway.url, "POSTERN_API_TOKEN_FILE": walk.folder / "api-token", "HOME": walk.folder,
        "PATH": "/usr/bin:/bin"}

    def client(*argv):
        p = subprocess.run([*ctl, *argv], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90,
                           check=False)
        assert p.returncode == 0, p.stdout + p.stderr
        return p.stdout

    client("integrations", "add-self-hosted-credentials-v2", "--connection-type", "postgres", "--self-hosted-credentials-type",
           "FILE", "--file-path", "/etc/secrets/integrations/sales.json", "--name", "walk-sales", "--agent", walk.agent.agent)
    walk.postgres.sql("CREATE TABLE orders (id int, total numeric); INSERT INTO orders VALUES (1, 9.50), (2, 12.00)")
    out = client("operations", "run", "--type", "query", "--integration", "walk-sales", "--input",
                 json.dumps({"sql": "SELECT id, total FROM orders ORDER BY id"}), "--wait")
    assert "9.50" in out and "12.00" in out, out


def test_scale(walk):
    """Replicas, threads and resources, as the document's questions and answers have them."""
    values = (walk.folder / "values.yaml").read_text()
    assert "replicaCount: 1" in values
    values = values.replace("replicaCount: 1", "replicaCount: 3").replace("container:\n", textwrap.dedent("""\
        container:
          opsRunnerThreadCount: "36"
          resources:
            requests:
              cpu: "50m"
              memory: "64Mi"
            limits:
              cpu: "2"
              memory: "2Gi"
        """))
    walk.write("values.yaml", values)
    walk.helm()
    walk.deployed()
    doc = wait_until(
        lambda: (d := walk.gateway.api("GET", f"/agents/{walk.agent.agent}"))["instances"] and len(d["instances"]) == 3 and d, 60,
        "three instances")
    assert {i["slots"] for i in doc["instances"]} == {36}


def test_rotate_the_token(walk):
    new = walk.gateway.key(walk.agent.agent, "second")
    walk.write("agent-token.json", json.dumps({"mcd_id": new.id, "mcd_token": new.secret}))
    walk.sh("""
        kubectl delete secret postern-agent-token-secret -n postern-agent
        kubectl create secret generic postern-agent-token-secret -n postern-agent \\
          --from-file=contents.json=agent-token.json
        kubectl rollout restart deployment postern-agent-deployment -n postern-agent""")
    walk.deployed()
    walk.gateway.api("DELETE", f"/keys/{walk.agent.id}")
    assert walk.gateway.run("health", agent=walk.agent.agent, timeout=60)["state"] == "succeeded"


def test_tear_down(walk):
    walk.sh("""
        helm uninstall postern-agent
        kubectl delete namespace postern-agent --timeout=120s""")
    for kind in ("pods", "deployments", "secrets", "services"):
        assert walk.cluster.get(kind, "-n", "postern-agent")["items"] == []
    assert walk.cluster.get("namespace", "postern-agent") is None
