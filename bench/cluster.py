#!/usr/bin/env -S /usr/bin/python3 -B
"""What our image and pods cost in a real Kubernetes (tests/cluster): size, cold start to Ready, idle memory.

    bench/cluster.py [--starts N] [--json FILE]

Uses the cluster that runs, or starts one and stops it.  Prints a table and, last, one JSON object.  Times are those that a platform sees: from the request
to the API server until it says Ready, probes included.
"""
import argparse
import contextlib
import json
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/cluster"))

import kube  # noqa: E402
import programs  # noqa: E402
from installed import Agent, Gateway, process, push_images, wait_until  # noqa: E402

NODE, OTHER = kube.NODES  # the agent has a node for itself
NS = "bench"


def image_bytes(cluster):
    """Compressed: what a node downloads."""
    doc = json.loads(
        cluster.call(programs.debian("skopeo"), "inspect", "--raw", "--tls-verify=false",
                     f"docker://{kube.REGISTRY}/postern/postern:0.1.0").stdout)
    return doc["config"]["size"] + sum(layer["size"] for layer in doc["layers"])


def without_pods(agent):
    """Wait until its pods are gone."""
    agent.kubectl("scale", "deployment/postern-agent-deployment", "--replicas=0")
    agent.kubectl("wait", "--for=delete", "pod", "-l", "app=postern-agent", "--timeout=60s")
    return agent


def timed_start(agent):
    """Seconds from "one pod, please" to Ready."""
    begin = time.monotonic()
    agent.kubectl("scale", "deployment/postern-agent-deployment", "--replicas=1")
    agent.kubectl("wait", "--for=create", "pod", "-l", "app=postern-agent", "--timeout=30s")
    agent.kubectl("wait", "--for=condition=Ready", "pod", "-l", "app=postern-agent", "--timeout=60s")
    return time.monotonic() - begin


def forget_image(machine):
    """The node has never seen the image, as far as it knows."""
    ctr = ["ctr", "-n", "k8s.io", "images"]

    def gone():
        names = [n for n in machine.run(*ctr, "ls", "-q").split() if "postern/postern" in n]
        if names:
            machine.run(*ctr, "rm", "--sync", *names)
        return not names

    wait_until(gone, 60, "the image is removed from the node")


def memory(cluster, pod):
    """Of an idle pod, in KiB: the process, and what its cgroup is charged with (without file cache that can go)."""
    path = pathlib.Path(process(cluster, pod))
    fields = dict(line.split(":", 1) for line in (path / "status").read_text().splitlines())
    rollup = dict(line.split(":", 1) for line in (path / "smaps_rollup").read_text().splitlines()[1:])
    uid = pod["metadata"]["uid"]
    cgroup = next(p for p in cluster.cgroup(pod["spec"]["nodeName"]).rglob("*") if p.is_dir() and uid in p.name)
    with contextlib.suppress(OSError):
        usage, inactive = int((cgroup / "memory.usage_in_bytes").read_text()), "total_inactive_file"
    with contextlib.suppress(OSError):
        usage, inactive = int((cgroup / "memory.current").read_text()), "inactive_file"
    stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    return {
        "rss_kib": int(fields["VmRSS"].split()[0]), "pss_kib": int(rollup["Pss"].split()[0]),
        "private_kib": int(rollup["Private_Dirty"].split()[0]), "pod_working_set_kib": (usage - int(stat[inactive])) // 1024}


def measure(cluster, folder, starts):
    for ns in (NS, f"{NS}-gw"):
        cluster.kubectl("delete", "namespace", ns, "--ignore-not-found")
    gateway = Gateway(cluster, f"{NS}-gw", folder, {"nodeSelector": {"kubernetes.io/hostname": OTHER}})
    agent = Agent(
        cluster, gateway, NS, {
            "replicaCount": 1, "nodeSelector": {"kubernetes.io/hostname": NODE}, "podDisruptionBudget": {"enabled": False},
            "image": {"pullPolicy": "IfNotPresent"}})
    try:
        out = {"image_bytes": image_bytes(cluster)}
        without_pods(agent)
        forget_image(cluster.machines[NODE])
        out["start_s_image_pulled"] = round(timed_start(agent), 2)
        times = sorted(timed_start(without_pods(agent)) for _ in range(starts))
        out["start_s_image_present"] = {
            "p50": round(statistics.median(times), 2), "min": round(times[0], 2), "max": round(times[-1], 2), "n": starts}
        time.sleep(10)  # idle
        out["idle_agent"] = memory(cluster, agent.pods()[0])
        out["idle_gateway"] = memory(cluster, gateway.pods()[0])
        return out
    finally:
        for ns in (NS, f"{NS}-gw"):
            cluster.kubectl("delete", "namespace", ns, "--wait=false")


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args(argv)
    ours = not kube.running()
    cluster = kube.up(lambda text: print(text, file=sys.stderr, flush=True))
    try:
        with tempfile.TemporaryDirectory() as folder:
            if ours:
                push_images(cluster, folder)
            out = measure(cluster, pathlib.Path(folder), args.starts)
    finally:
        if ours:
            kube.down()
    agent, gateway = out["idle_agent"], out["idle_gateway"]
    print(f"image, compressed            {out['image_bytes'] / 1e6:8.1f} MB")
    print(f"start to Ready, pulled       {out['start_s_image_pulled']:8.2f} s")
    print(f"start to Ready, present      {out['start_s_image_present']['p50']:8.2f} s")
    print(f"idle agent, RSS / pod        {agent['rss_kib'] / 1024:8.1f} MiB {agent['pod_working_set_kib'] / 1024:6.1f} MiB")
    print(f"idle gateway, RSS / pod      {gateway['rss_kib'] / 1024:8.1f} MiB {gateway['pod_working_set_kib'] / 1024:6.1f} MiB")
    text = json.dumps({"cluster": out})
    if args.json:
        args.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
