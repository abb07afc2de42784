#!/usr/bin/python3
"""Enforces NetworkPolicies on one node by iptables, since the bridge plugin does not: the whole of networking.k8s.io/v1 for IPv4.

    policy.py NODE SERVER CA CERT KEY

Looks at pods, namespaces and policies a few times a second.  A connection is checked when it begins: at the node of the pod that opens it (egress) and at that
of the pod it goes to (ingress); what is not allowed is dropped, as most network plugins do.  The node itself reaches its pods, as the API says it must.
"""
import hashlib
import http.client
import ipaddress
import json
import ssl
import subprocess
import sys
import time

TOP, MARK = "POSTERN-POLICY", "0x100000/0x100000"


def selects(selector, labels):
    """Does a label selector match?  {} matches everything."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for e in selector.get("matchExpressions", []):
        has, listed = e["key"] in labels, labels.get(e["key"]) in e.get("values", [])
        if not {"In": listed, "NotIn": not listed, "Exists": has, "DoesNotExist": not has}[e["operator"]]:
            return False
    return True


class Pod:
    def __init__(self, doc):
        self.ns, self.name, self.labels = doc["metadata"]["namespace"], doc["metadata"]["name"], doc["metadata"].get("labels", {})
        self.ip, self.node = doc["status"].get("podIP"), doc["spec"].get("nodeName")
        self.ports = {(p["name"], p.get("protocol", "TCP")): p["containerPort"]
                      for c in doc["spec"]["containers"] for p in c.get("ports", []) if p.get("name")}
        ended = doc["status"].get("phase") in ("Succeeded", "Failed")
        self.matters = self.ip and not ended and not doc["spec"].get("hostNetwork")


def types(policy):
    return policy["spec"].get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in policy["spec"] else [])]


class State:
    """What the API server has, as one picture."""

    def __init__(self, pods, namespaces, policies):
        self.pods = [p for p in map(Pod, pods) if p.matters]
        self.namespaces = {n["metadata"]["name"]: n["metadata"].get("labels", {}) for n in namespaces}
        self.policies = policies

    def peers(self, peer, ns):
        """The pods a peer of a policy in ns stands for."""
        for p in self.pods:
            if "namespaceSelector" in peer:
                there = selects(peer["namespaceSelector"], self.namespaces.get(p.ns, {}))
            else:
                there = p.ns == ns
            if there and selects(peer.get("podSelector", {}), p.labels):
                yield p

    def allowed(self, policy, direction, pod):
        """(network or None for all, its exceptions, pod it is or None, ports or None for all) for each thing a policy allows."""
        for rule in policy["spec"].get(direction.lower(), []):
            ports = rule.get("ports")
            peers = rule.get("to" if direction == "Egress" else "from")
            if not peers:
                yield None, [], None if direction == "Egress" else pod, ports
            for peer in peers or []:
                if "ipBlock" in peer:
                    block = peer["ipBlock"]
                    if ":" not in block["cidr"]:
                        yield block["cidr"], block.get("except", []), pod if direction == "Ingress" else None, ports
                else:
                    for p in self.peers(peer, policy["metadata"]["namespace"]):
                        yield f"{p.ip}/32", [], p if direction == "Egress" else pod, ports


def matches(ports, target):
    """iptables matches for a list of ports; target: the pod whose port names count."""
    if not ports:
        yield ""
    for p in ports or []:
        protocol, port = p.get("protocol", "TCP"), p.get("port")
        if isinstance(port, str):
            port = target.ports.get((port, protocol)) if target else None
            if port is None:
                continue
        span = f" --dport {port}" + (f":{p['endPort']}" if "endPort" in p else "") if port else ""
        yield f" -p {protocol.lower()}{span}"


def chains(state, node):
    """{chain: [rules]} of a node, TOP first."""
    out = {TOP: ["-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"]}
    for pod in state.pods:
        mine = [
            p for p in state.policies if p["metadata"]["namespace"] == pod.ns and selects(p["spec"]["podSelector"], pod.labels)]
        for direction, own, other in (("Egress", "-s", "-d"), ("Ingress", "-d", "-s")):
            policies = [p for p in mine if direction in types(p)]
            if pod.node != node or not policies:
                continue
            name = f"POSTERN-{direction[0]}-" + hashlib.sha1(f"{pod.ns}/{pod.name}".encode()).hexdigest()[:12]
            out[TOP].append(f"{own} {pod.ip}/32 -j {name}")
            rules = out[name] = ["-j MARK --set-xmark 0x0/0x100000"]
            for policy in policies:
                for network, excepted, target, ports in state.allowed(policy, direction, pod):
                    match = f"{other} {network}" if network else ""
                    into = "MARK --set-xmark " + MARK
                    if any(":" not in e for e in excepted):
                        into = f"{name}-{len(out)}"
                        out[into] = [f"{other} {e} -j RETURN" for e in excepted if ":" not in e] + ["-j MARK --set-xmark " + MARK]
                    rules += [f"{match}{port} -j {into}" for port in matches(ports, target)]
            rules.append(f"-m mark ! --mark {MARK} -j DROP")
    return out


def restore(now, before):
    """Input of iptables-restore that makes it so in one step."""
    gone = [c for c in before if c not in now]
    lines = ["*filter", *(f":{c} - [0:0]" for c in (*now, *gone))]
    lines += [f"-A {chain} {' '.join(rule.split())}" for chain, rules in now.items() for rule in rules]
    return "\n".join([*lines, *(f"-X {c}" for c in gone), "COMMIT", ""])


def main(node, server, ca, cert, key):
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(cert, key)
    address = ipaddress.ip_address(server.partition(":")[0])
    connection = http.client.HTTPSConnection(str(address), int(server.partition(":")[2]), context=context, timeout=10)

    def items(path):
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())["items"]

    before = {}
    while True:
        try:
            state = State(items("/api/v1/pods"), items("/api/v1/namespaces"), items("/apis/networking.k8s.io/v1/networkpolicies"))
        except (OSError, http.client.HTTPException, KeyError) as e:
            print(f"the API server: {e!r}", flush=True)
            connection.close()
            time.sleep(1)
            continue
        now = chains(state, node)
        if now != before:
            text = restore(now, before)
            p = subprocess.run(["iptables-restore", "-w", "--noflush"], input=text, capture_output=True, text=True, check=False)
            if p.returncode != 0:
                print(f"{p.stderr}\n{text}", flush=True)
            elif not before:
                subprocess.run(["iptables", "-w", "-I", "FORWARD", "-j", TOP], check=True)
            before = now if p.returncode == 0 else before
        time.sleep(0.3)


if __name__ == "__main__":
    main(*sys.argv[1:])
