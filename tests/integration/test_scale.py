"""Many connected instances on one gateway: what one costs, a restart, and the limit of open files."""
import contextlib
import random
import re
import resource
import signal
import socket
import time

import product
from fleet import Fleet
from harness import request, wait_until

KIB_EACH = 16


def anonymous_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return int(re.search(r"^Anonymous:\s+(\d+)", f.read(), re.MULTILINE).group(1))


def metric(gw, name):
    r = gw.request("GET", "/metrics")
    assert r.status == 200, r
    return float(re.search(rf"^postern_gateway_{name} (\S+)$", r.text, re.MULTILINE).group(1))


def test_thousand_instances(stack):
    slow = product.sanitized()
    count = 200 if slow else 1000
    gw = stack.gateway()
    keys = [gw.agent(f"agent-{i}") for i in range(5)]
    for _ in range(20):
        gw.api("GET", "/agents")  # the memory that any work costs is there before
    before = anonymous_kib(gw.pid)
    with Fleet(gw, keys, count) as fleet:
        def settled():
            fleet.wait_up(30)
            wait_until(lambda: metric(gw, "http_held") == count, 10, "every exchange is held")

        def submit():
            return gw.submit("health", agent=random.choice(keys).agent)

        settled()
        each = (anonymous_kib(gw.pid) - before) / count
        assert slow or each <= KIB_EACH, f"{each:.1f} KiB for one idle instance"
        assert metric(gw, "connected_instances") == count
        for _ in range(20):  # whoever is chosen gets it, and its result is taken
            op = submit()
            assert fleet.deliver(op["id"]).status == 200
            assert gw.operation(op)["state"] == "succeeded"
        for sig in (signal.SIGTERM, signal.SIGKILL):
            under_way = [submit() for _ in range(10)]
            for op in under_way:
                fleet.lease(op["id"])
            if sig == signal.SIGTERM:
                gw.stop()
            else:
                gw.kill()
            gw.restart()
            settled()
            for op in under_way:  # who had one has it still
                assert fleet.deliver(op["id"]).status == 200
                assert gw.operation(op)["state"] == "succeeded" and gw.operation(op)["attempt"] == 1
        assert not fleet.refused


def with_open_files(home, limit):
    """A program that is postern with so many files (the hard limit too: the gateway raises the soft one)."""
    script = home / "postern-few-files"
    script.write_text(f'#!/bin/sh\nulimit -n {limit}\nexec {product.BIN} "$@"\n')
    script.chmod(0o755)
    return script


def test_soft_limit_of_open_files_is_raised(stack):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        gw = stack.gateway()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert metric(gw, "http_connections_max") > min(hard, 65536) - 500


def test_at_the_limit_of_open_files(stack, monkeypatch):
    monkeypatch.setattr(product, "BIN", with_open_files(stack.home, 256))
    gw = stack.gateway()
    key = gw.agent()
    most = int(metric(gw, "http_connections_max"))
    assert 100 < most < 200
    exchange = {"instance": "in_01k0000000000000000000000a", "version": "0.1.0", "hostname": "late", "slots": 1, "wait_ms": 1000,
                "holding": []}
    with Fleet(gw, [key], most) as fleet:
        fleet.wait_up(20)
        wait_until(lambda: metric(gw, "http_held") == most, 10, "every exchange is held")
        r = request("POST", gw.url + "/agent/v1/exchange", exchange, basic=key.basic)
        assert r.status == 503 and 5 <= int(r.headers["Retry-After"]) < 10 and r.headers["Connection"] == "close", r
        assert "file limit" in r.json()["error"]["message"]
        # What needs no connection for long still works: probes, clients, and results of the agents that are here, in files too.
        assert gw.request("GET", "/readyz", token=None).status == 200
        for body in (b"", b'["x"]\n' * 20000):
            op = gw.submit("health", agent=key.agent)
            assert fleet.deliver(op["id"], body).status == 200
            assert gw.operation(op, wait=5)["state"] == "succeeded"
        # Nobody waits for long there.
        began = time.monotonic()
        assert gw.request("GET", f"/api/v1/operations/{op['id']}/logs?wait=30").json()["items"] == []
        assert time.monotonic() - began < 15
        # Who says nothing does not keep others out for long.
        with contextlib.ExitStack() as silent:
            for _ in range(40):
                silent.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", gw.port), 5)))
            assert wait_until(lambda: gw.request("GET", "/readyz", token=None, timeout=30).status == 200, 40)
        assert fleet.up() == most and not fleet.refused and metric(gw, "http_connections_crowded_total") > 30
    wait_until(lambda: request("POST", gw.url + "/agent/v1/exchange", exchange, basic=key.basic).status == 200, 10, "there is room again")
