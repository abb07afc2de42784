"""A real Kubernetes of two nodes on this machine: up(), down(), and Cluster, the handle of one that runs.

  this host 10.99.0.254 ── pt-k8s ──┐
                                    │ bridge
  machine "control" 10.99.0.1 ──────┼── etcd, API server, controllers, scheduler, a registry
  machine "node1"   10.99.0.11 ─────┼── containerd, kubelet, kube-proxy; pods 10.244.1.0/24
  machine "node2"   10.99.0.12 ─────┘   the same;                     pods 10.244.2.0/24

Machines are namespaces (machine.py).  None has a default route: what is not in the cluster cannot be reached.  The nodes pull every image of docker.io from
the registry in the cluster.  policy.py enforces network policies.  All state is below one folder ($POSTERN_CLUSTER_DIR, /tmp/postern-cluster); the cgroups are below postern-k8s.
"""
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import urllib.request

import images
import oci  # on the path since images is imported
import pki
import programs
from machine import Machine

HERE = pathlib.Path(__file__).resolve().parent
CONTROL, HOST, LINK = "10.99.0.1", "10.99.0.254", "pt-k8s"
NODES = {"node1": "10.99.0.11", "node2": "10.99.0.12"}
PODS, SERVICES, DNS = "10.244.0.0/16", "10.96.0.0/16", "10.96.0.10"
REGISTRY = f"{CONTROL}:5000"
CGROUPS = "postern-k8s"
MARK = "this-is-a-cluster-of-postern-tests"  # without it a folder is not removed
VOLUMES = 3  # on each node
DOMAIN = "cluster.local"


def pods_of(node):
    return f"10.244.{list(NODES).index(node) + 1}.0/24"


def folder():
    return pathlib.Path(os.environ.get("POSTERN_CLUSTER_DIR") or "/tmp/postern-cluster")


class ClusterError(Exception):
    pass


def wait_for(what, cond, timeout=60, every=0.1, log=lambda: ""):
    end = time.monotonic() + timeout
    while not (value := cond()):
        if time.monotonic() > end:
            raise ClusterError(f"{what}: not within {timeout} s\n{log()}")
        time.sleep(every)
    return value


class Cluster:
    """A cluster that runs.  kubectl(), helm(), apply() raise ClusterError with the program's own words."""

    def __init__(self, home, machines):
        self.home, self.machines = home, machines
        self.bin, self.kubeconfig = home / "bin", home / "pki/admin.kubeconfig"
        self.control = machines["control"]

    @property
    def env(self):
        return {
            "KUBECONFIG": str(self.kubeconfig), "PATH": f"{self.bin}:{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin",
            "HELM_CACHE_HOME": str(self.home / "helm"), "HELM_CONFIG_HOME": str(self.home / "helm"),
            "HELM_DATA_HOME": str(self.home / "helm"), "HOME": str(self.home)}

    def call(self, *argv, input=None, check=True, timeout=300):
        """Run a program with this cluster's environment; a CompletedProcess with text."""
        try:
            p = subprocess.run(list(map(str, argv)), input=input, stdin=subprocess.DEVNULL if input is None else None,
                               capture_output=True, text=True, check=False, env=self.env, timeout=timeout)
        except subprocess.TimeoutExpired as e:
            raise ClusterError(f"{' '.join(map(str, argv))}: not within {timeout} s\n{e.stdout}{e.stderr}") from None
        if check and p.returncode != 0:
            raise ClusterError(f"{' '.join(map(str, argv))}: exit code {p.returncode}\n{p.stdout}{p.stderr}")
        return p

    def kubectl(self, *argv, **kw):
        return self.call(self.bin / "kubectl", *argv, **kw).stdout

    def helm(self, *argv, **kw):
        return self.call(self.bin / "helm", *argv, **kw).stdout

    def get(self, *argv):
        """kubectl get -o json; None when it is not there."""
        p = self.call(self.bin / "kubectl", "get", "-o", "json", *argv, check=False)
        if p.returncode != 0:
            if "NotFound" in p.stderr:
                return None
            raise ClusterError(p.stderr)
        return json.loads(p.stdout)

    def apply(self, manifest, *argv):
        """manifest: text, a document or a list of documents."""
        if isinstance(manifest, dict):
            manifest = [manifest]
        if isinstance(manifest, list):
            manifest = "\n---\n".join(map(json.dumps, manifest))
        return self.kubectl("apply", "-f", "-", *argv, input=manifest)

    def push(self, archive, name):
        """Put the image of an OCI archive that has NAME's tag into the registry, as docker.io/NAME for the nodes."""
        tag = name.rpartition(":")[2]
        self.call(programs.debian("skopeo"), "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false",
                  f"oci-archive:{archive}:{tag}", f"docker://{REGISTRY}/{name}")

    def recycle_volumes(self):
        """Make disks free again whose claim is gone."""
        for volume in self.get("pv")["items"]:
            if volume["status"].get("phase") == "Released":
                node, _, number = volume["metadata"]["name"].rpartition("-")
                shutil.rmtree(self.machines[node].folder / "volumes" / number)
                (self.machines[node].folder / "volumes" / number).mkdir()
                self.kubectl("patch", "pv", volume["metadata"]["name"], "--type=json", "-p",
                             '[{"op": "remove", "path": "/spec/claimRef"}]')

    def cgroup(self, node, controller="memory"):
        """The folder of a node's cgroups on this host."""
        v1 = pathlib.Path("/sys/fs/cgroup") / controller
        return (v1 if v1.is_dir() else v1.parent) / CGROUPS / node


# --- what runs

def recorded(home):
    """The machines of state.json, by name; {} when there is none."""
    try:
        doc = json.loads((home / "state.json").read_text())
    except FileNotFoundError:
        return {}
    return {m["name"]: Machine(m["name"], home / m["name"], m["outer"], m["pid"], m["start"]) for m in doc}


def running():
    """The Cluster that runs, or None."""
    home = folder()
    machines = recorded(home)
    if len(machines) == 1 + len(NODES) and all(m.running for m in machines.values()) and (home / "ready").exists():
        return Cluster(home, machines)
    return None


def record(home, machines):
    path = home / "state.json"
    path.with_suffix(".new").write_text(json.dumps([m.record() for m in machines.values()]))
    path.with_suffix(".new").rename(path)


@contextlib.contextmanager
def lock():
    """One up or down at a time."""
    with programs.locked(programs.cache() / "cluster.lock"):
        yield


# --- up

def sh(*argv):
    subprocess.run([*map(str, argv)], check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def network(machines):
    control = machines["control"]
    sh("ip", "link", "add", LINK, "type", "veth", "peer", "name", "host", "netns", control.pid)
    sh("ip", "address", "add", f"{HOST}/24", "dev", LINK)
    sh("ip", "link", "set", LINK, "up")
    sh("ip", "route", "add", PODS, "via", CONTROL)
    sh("ip", "route", "add", SERVICES, "via", NODES["node1"])
    control.run("ip", "link", "add", "br0", "type", "bridge")
    control.run("ip", "address", "add", f"{CONTROL}/24", "dev", "br0")
    control.run("ip", "link", "set", "br0", "up")
    control.run("ip", "link", "set", "host", "master", "br0", "up")
    control.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    for node, address in NODES.items():
        m = machines[node]
        sh("nsenter", "-t", m.pid, "-n", "ip", "link", "add", "eth0", "type", "veth", "peer", "name", node, "netns", control.pid)
        m.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        m.run("ip", "link", "set", "eth0", "up")
        control.run("ip", "link", "set", node, "master", "br0", "up")
        control.run("ip", "route", "add", pods_of(node), "via", address)
        for other, there in NODES.items():
            if other != node:
                m.run("ip", "route", "add", pods_of(other), "via", there)
        m.run("ip", "route", "add", SERVICES, "dev", "eth0")  # where a service without pods is refused
        m.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1")
    control.run("ip", "route", "add", SERVICES, "via", NODES["node1"])


def control_plane(home, machine):
    bins, certs = home / "bin", home / "pki"
    machine.spawn("etcd", programs.debian("etcd"), "--data-dir", "/run/etcd", "--log-level=warn", "--logger=zap")
    machine.spawn("kube-apiserver", bins / "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379",
                  f"--advertise-address={CONTROL}", "--secure-port=6443", f"--tls-cert-file={certs}/apiserver.crt",
                  f"--tls-private-key-file={certs}/apiserver.key", f"--client-ca-file={certs}/ca.crt",
                  f"--service-account-key-file={certs}/sa.pub", f"--service-account-signing-key-file={certs}/sa.key",
                  f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}", f"--service-cluster-ip-range={SERVICES}",
                  "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
                  "--enable-aggregator-routing=true", f"--kubelet-certificate-authority={certs}/ca.crt",
                  f"--kubelet-client-certificate={certs}/apiserver-kubelet.crt",
                  f"--kubelet-client-key={certs}/apiserver-kubelet.key", "--kubelet-preferred-address-types=InternalIP",
                  f"--requestheader-client-ca-file={certs}/ca.crt", "--requestheader-allowed-names=front-proxy",
                  "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
                  "--requestheader-extra-headers-prefix=X-Remote-Extra-", f"--proxy-client-cert-file={certs}/front-proxy.crt",
                  f"--proxy-client-key-file={certs}/front-proxy.key", "--v=1")
    machine.spawn("kube-controller-manager", bins / "kube-controller-manager", f"--kubeconfig={certs}/controllers.kubeconfig",
                  "--bind-address=127.0.0.1", f"--cluster-cidr={PODS}", f"--service-cluster-ip-range={SERVICES}",
                  f"--root-ca-file={certs}/ca.crt", f"--service-account-private-key-file={certs}/sa.key",
                  "--use-service-account-credentials=true", "--leader-elect=false", "--node-monitor-grace-period=20s",
                  "--horizontal-pod-autoscaler-sync-period=3s", "--horizontal-pod-autoscaler-downscale-stabilization=10s",
                  "--v=1")
    machine.spawn("kube-scheduler", bins / "kube-scheduler", f"--kubeconfig={certs}/scheduler.kubeconfig",
                  "--bind-address=127.0.0.1", "--leader-elect=false", "--v=1")
    (home / "registry.yaml").write_text(
        json.dumps({
            "version": "0.1", "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(home / "registry")},
                        "delete": {"enabled": True}}, "http": {"addr": f"{CONTROL}:5000"}}))
    machine.spawn("registry", programs.debian("docker-registry"), "serve", home / "registry.yaml")


CONTAINERD = """version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/postern-test/pause:1"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{home}/certs.d"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def start_containerd(home, machine):
    """The container runtime of a node.  Its registry is the cluster's, for every image of docker.io."""
    mirror = home / "certs.d/docker.io/hosts.toml"
    mirror.parent.mkdir(parents=True, exist_ok=True)
    mirror.write_text(f'server = "http://{REGISTRY}"\n[host."http://{REGISTRY}"]\n  capabilities = ["pull", "resolve"]\n')
    (machine.folder / "containerd.toml").write_text(CONTAINERD.format(home=home, folder=machine.folder))
    (machine.folder / "cni.d").mkdir()
    (machine.folder / "cni.d/10-bridge.conflist").write_text(json.dumps({"cniVersion": "0.4.0", "name": "bridge", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True,
         "ipam": {"type": "host-local", "ranges": [[{"subnet": pods_of(machine.name)}]], "routes": [{"dst": "0.0.0.0/0"}]}},
        {"type": "portmap", "capabilities": {"portMappings": True}}]}))
    machine.spawn("containerd", programs.debian("containerd"), "-c", machine.folder / "containerd.toml")


def start_node(home, machine):
    certs, name, node = home / "pki", f"kubelet-{machine.name}", machine.folder
    (node / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "authentication": {
            "anonymous": {"enabled": False}, "webhook": {"enabled": True}, "x509": {"clientCAFile": f"{certs}/ca.crt"}
        }, "authorization": {"mode": "Webhook"}, "tlsCertFile": f"{certs}/{name}-server.crt",
        "tlsPrivateKeyFile": f"{certs}/{name}-server.key", "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{CGROUPS}/{machine.name}", "failCgroupV1": False, "failSwapOn": False,
        "clusterDNS": [DNS], "clusterDomain": DOMAIN, "resolvConf": str(node / "resolv.conf"), "imageGCHighThresholdPercent": 100,
        "syncFrequency": "5s", "nodeStatusUpdateFrequency": "4s", "serializeImagePulls": False,
        "configMapAndSecretChangeDetectionStrategy": "Watch", "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"}}
    (node / "kubelet.yaml").write_text(json.dumps(kubelet))
    machine.spawn("kubelet", home / "bin/kubelet", f"--config={node}/kubelet.yaml", f"--kubeconfig={certs}/{name}.kubeconfig",
                  f"--hostname-override={machine.name}", f"--node-ip={NODES[machine.name]}",
                  f"--node-labels=topology.kubernetes.io/zone=zone-{machine.name[-1]}", "--v=1")
    (node / "proxy.yaml").write_text(
        json.dumps({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": f"{certs}/proxy.kubeconfig"}, "mode": "iptables", "clusterCIDR": PODS,
            "hostnameOverride": machine.name, "conntrack": {"maxPerCore": 0},
            "iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"}}))
    machine.spawn("kube-proxy", home / "bin/kube-proxy", f"--config={node}/proxy.yaml", "--v=1")
    machine.spawn("policy", "/usr/bin/python3", HERE / "policy.py", machine.name, f"{CONTROL}:6443", certs / "ca.crt",
                  certs / "admin.crt", certs / "admin.key")


def coredns_image(home):
    layer = oci.Layer()
    layer.copy(home / "bin/coredns", "/coredns")
    arch = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    oci.write(home / "coredns.tar", "docker.io/coredns/coredns:1", arch, [layer], {"Entrypoint": ["/coredns"]}, level=1)
    return home / "coredns.tar"


def cgroup_folders():
    """The cgroups of the nodes in every hierarchy, innermost last."""
    root = pathlib.Path("/sys/fs/cgroup")
    v1 = [p for p in root.iterdir() if p.is_dir() and not p.is_symlink()]
    return [h / CGROUPS / n for h in ([root] if (root / "cgroup.controllers").exists() else v1) for n in NODES]


def volumes(cluster):
    """Disks of the nodes: a default storage class, bound when a pod needs one."""
    docs = [{
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
        "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}]
    for node in NODES:
        for i in range(VOLUMES):
            (cluster.machines[node].folder / "volumes" / str(i)).mkdir()
            docs.append({
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"{node}-{i}"}, "spec": {
                    "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
                    "persistentVolumeReclaimPolicy": "Retain", "local": {"path": f"/var/lib/volumes/{i}"}, "nodeAffinity": {
                        "required": {
                            "nodeSelectorTerms": [{
                                "matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}}}})
    cluster.apply(docs)


def reachable(url):
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=1):
            return True
    except OSError:
        return False


def up(say=print):
    """Start a cluster and return it; the one that runs, when there is one.  Ready means: nodes Ready, DNS answers."""
    if os.geteuid() != 0:
        raise ClusterError(
            "a cluster needs root: namespaces, cgroups, mounts.  Run it in a virtual machine if you would rather not.")
    with lock():
        if cluster := running():
            say(f"a cluster runs already, in {cluster.home}")
            return cluster
        clean()
        begin = time.monotonic()

        def note(what):
            say(f"{time.monotonic() - begin:6.1f} s  {what}")

        for name in ("etcd", "containerd", "runc", "docker-registry", "skopeo", "iptables", "conntrack", "ip", "nsenter"):
            programs.debian(name)
        kubernetes, helm = programs.kubernetes(say), programs.tool("helm")
        note("programs are there")
        home = folder()
        home.mkdir(mode=0o755, exist_ok=True)
        (home / MARK).touch()
        (home / "bin").mkdir()
        for name in (*programs.KUBERNETES, "coredns"):
            (home / "bin" / name).symlink_to(kubernetes / name)
        (home / "bin/helm").symlink_to(helm)
        machines = {}
        try:
            return start(home, machines, note)
        except BaseException:
            say(f"logs are in {home}/*/*.log; 'tests/cluster/cluster down' removes them")
            for m in machines.values():
                m.cut_power()
            raise


def start(home, machines, note):
    for cgroup in cgroup_folders():
        cgroup.mkdir(parents=True, exist_ok=True)
    for name in ("control", *NODES):
        machines[name] = Machine(name, home / name).boot()
        record(home, machines)
    network(machines)
    pki.make(home / "pki", CONTROL, NODES)
    cluster = Cluster(home, machines)
    note("machines, certificates")
    control_plane(home, machines["control"])
    for node in NODES:
        start_containerd(home, machines[node])
    wait_for("the registry", lambda: reachable(f"http://{REGISTRY}/v2/"), log=lambda: cluster.control.tail("registry"))
    cluster.push(images.make("pause", home / "pause.tar"), "postern-test/pause:1")
    wait_for("the API server",
             lambda: cluster.call(cluster.bin / "kubectl", "get", "--raw", "/readyz", check=False).returncode == 0,
             log=lambda: cluster.control.tail("kube-apiserver") + cluster.control.tail("etcd"))
    note("API server is ready")
    for node in NODES:
        start_node(home, machines[node])
    cluster.push(coredns_image(home), "coredns/coredns:1")
    cluster.apply((HERE / "manifests/dns.yaml").read_text().replace("IMAGE", "coredns/coredns:1"))
    volumes(cluster)
    cluster.kubectl("wait", "--for=create", *(f"node/{n}" for n in NODES), "--timeout=60s")
    cluster.kubectl("wait", "--for=condition=Ready", *(f"node/{n}" for n in NODES), "--timeout=60s")
    note("nodes are Ready")
    cluster.kubectl("rollout", "status", "-n", "kube-system", "deployment/coredns", "--timeout=90s")
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", "-n", "default", "--timeout=60s")
    (home / "ready").touch()
    note("DNS answers; the cluster is ready")
    return cluster


# --- down

def clean():
    """Remove everything of a cluster, also of one that did not come up or was killed."""
    home = folder()
    machines = recorded(home)
    for m in machines.values():
        m.cut_power()
    if pathlib.Path(f"/sys/class/net/{LINK}").exists():  # gone with the machine in a moment, or now
        subprocess.run(["ip", "link", "delete", LINK], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    for cgroup in cgroup_folders():
        for below in sorted(cgroup.rglob("*/"), key=lambda p: -len(p.parts)) if cgroup.is_dir() else ():
            wait_for(f"{below} is empty", lambda p=below: remove_cgroup(p), timeout=10)
        for p in (cgroup, cgroup.parent):
            with contextlib.suppress(OSError):
                p.rmdir()
    if home.exists():
        if not (home / MARK).exists() and any(home.iterdir()):
            raise ClusterError(f"{home} is no folder of a cluster; POSTERN_CLUSTER_DIR names another one")
        shutil.rmtree(home)


def remove_cgroup(path):
    try:
        path.rmdir()
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


def down():
    """Stop the cluster, in whatever state it is.  False when there was none."""
    with lock():
        was = folder().exists()
        clean()
    return was


if __name__ == "__main__":
    sys.exit("tests/cluster/cluster is the program")
