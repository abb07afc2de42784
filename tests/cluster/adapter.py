#!/usr/bin/python3
"""A tiny server of external metrics for the tests: what prometheus-adapter or KEDA do in a real cluster.

It serves external.metrics.k8s.io/v1beta1 over TLS to the API server, which it knows by the front proxy's certificate, and takes each metric from the
gateway's /metrics: an autoscaler that asks for postern_gateway_outstanding_operations{agent="x"} gets the sum of its samples with that label.

    adapter.py CONFIG.json      {"listen": [host, port], "cert": , "key": , "client_ca": , "gateway": URL, "token": }
"""
import base64
import http.server
import json
import ssl
import sys
import time
import urllib.parse
import urllib.request

GROUP = "external.metrics.k8s.io/v1beta1"


def samples(text, name):
    """Values of a metric in Prometheus text with their labels."""
    for line in text.splitlines():
        if line.startswith((f"{name} ", f"{name}{{")):
            labels, _, value = line[len(name):].rpartition(" ")
            pairs = (p.partition("=") for p in labels.strip("{} ").split(",") if p)
            yield {k: v.strip('"') for k, _, v in pairs}, float(value)


METRICS = {"postern_gateway_outstanding_operations"}


def serve(config):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            url = urllib.parse.urlsplit(self.path)
            parts = url.path.strip("/").split("/")
            try:
                status, doc = 200, self.document(parts, urllib.parse.parse_qs(url.query))
            except (OSError, ValueError) as e:
                status, doc = 503, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": str(e), "code": 503}
            if doc is None:
                status, doc = 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(doc).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def document(self, parts, query):
            if parts == ["apis", *GROUP.split("/")]:
                return {
                    "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP, "resources": [{
                        "name": m, "singularName": "", "namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]}
                                                                                                        for m in METRICS]}
            if len(parts) != 6 or parts[3] != "namespaces" or parts[5] not in METRICS:
                return None
            labels = dict(p.split("=") for p in query.get("labelSelector", [""])[0].split(",") if p)
            ask = urllib.request.Request(f"{config['gateway']}/metrics", headers={"Authorization": f"Bearer {config['token']}"})
            with opener.open(ask, timeout=5) as r:
                value = sum(v for has, v in samples(r.read().decode(), parts[5]) if has["agent"] == labels.get("agent"))
            return {
                "kind": "ExternalMetricValueList", "apiVersion": GROUP, "metadata": {}, "items": [{
                    "metricName": parts[5], "metricLabels": labels,
                    "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "value": str(int(value))}]}

        def log_message(self, *args):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(config["cert"], config["key"])
    context.load_verify_locations(config["client_ca"])
    context.verify_mode = ssl.CERT_REQUIRED
    server = http.server.ThreadingHTTPServer(tuple(config["listen"]), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


def registration(ca, namespace, service):
    """What makes the API server ask it, and lets the autoscaler."""
    return [{
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
        "spec": {
            "service": {"name": service, "namespace": namespace}, "group": "external.metrics.k8s.io", "version": "v1beta1",
            "caBundle": base64.b64encode(ca).decode(), "groupPriorityMinimum": 100, "versionPriority": 100}}, {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                "metadata": {"name": "hpa-external-metrics"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "external-metrics-reader"},
                "subjects": [{"kind": "ServiceAccount", "name": "horizontal-pod-autoscaler", "namespace": "kube-system"}]}, {
                    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                    "metadata": {"name": "external-metrics-reader"},
                    "rules": [{"apiGroups": ["external.metrics.k8s.io"], "resources": ["*"], "verbs": ["get", "list"]}]}]


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as f:
        serve(json.load(f))
