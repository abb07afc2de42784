"""Certificates and kubeconfigs of a cluster, made by openssl, for a month."""
import concurrent.futures
import json
import subprocess

CLIENTS = {  # who: subject
    "admin": "/O=system:masters/CN=admin",
    "controllers": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "proxy": "/CN=system:kube-proxy",
    "apiserver-kubelet": "/O=system:masters/CN=apiserver-kubelet",
    "front-proxy": "/CN=front-proxy",
}
NO_KUBECONFIG = ("apiserver-kubelet", "front-proxy")


def openssl(*argv):
    subprocess.run(["openssl", *map(str, argv)], stdin=subprocess.DEVNULL, check=True, capture_output=True)


def ca(folder, name="ca", subject="/CN=postern-test-cluster"):
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", subject,
            "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt", "-addext", "keyUsage=critical,keyCertSign,cRLSign")


def issue(folder, name, subject, usage, sans="", ca_name="ca"):
    """folder/NAME.crt and .key, signed by folder/CA_NAME."""
    ext = folder / f"{name}.ext"
    ext.write_text(f"extendedKeyUsage={usage}\nbasicConstraints=CA:FALSE\n" + (f"subjectAltName={sans}\n" if sans else ""))
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject, "-keyout",
            folder / f"{name}.key", "-out", folder / f"{name}.csr")
    openssl("x509", "-req", "-in", folder / f"{name}.csr", "-CA", folder / f"{ca_name}.crt", "-CAkey", folder / f"{ca_name}.key",
            "-set_serial", f"0x{abs(hash(name)) + 1:x}", "-days", "30", "-extfile", ext, "-out", folder / f"{name}.crt")


def kubeconfig(folder, name, server):
    path = folder / f"{name}.kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1", "kind": "Config", "current-context": "postern", "clusters": [{
                    "name": "postern", "cluster": {"server": server, "certificate-authority": str(folder / "ca.crt")}
                }], "users": [{
                    "name": name, "user": {
                        "client-certificate": str(folder / f"{name}.crt"), "client-key": str(folder / f"{name}.key")}}],
                "contexts": [{"name": "postern", "context": {"cluster": "postern", "user": name}}]}, indent=1))
    path.chmod(0o600)
    return path


def make(folder, control, nodes):
    """Everything for an API server at address control and nodes {name: address}."""
    folder.mkdir(mode=0o700)
    ca(folder)
    openssl("genrsa", "-out", folder / "sa.key", "2048")
    openssl("rsa", "-in", folder / "sa.key", "-pubout", "-out", folder / "sa.pub")
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"]
    jobs = [("apiserver", "/CN=kube-apiserver", "serverAuth",
             ",".join([f"DNS:{n}" for n in names] + [f"IP:{a}" for a in ("127.0.0.1", "10.96.0.1", control)]))]
    jobs += [(name, subject, "clientAuth") for name, subject in CLIENTS.items()]
    for node, address in nodes.items():
        jobs.append((f"kubelet-{node}", f"/O=system:nodes/CN=system:node:{node}", "clientAuth"))
        jobs.append((f"kubelet-{node}-server", f"/CN={node}", "serverAuth", f"DNS:{node},IP:{address}"))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(issue, folder, *job) for job in jobs]:
            done.result()
    for name in [*(c for c in CLIENTS if c not in NO_KUBECONFIG), *(f"kubelet-{n}" for n in nodes)]:
        kubeconfig(folder, name, f"https://{control}:6443")
