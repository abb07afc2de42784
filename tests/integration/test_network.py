"""The agent's way out: proxies, TLS inspection, certificates; and operations that look at the network, with their guard."""
import base64
import json
import re

import pytest

from harness import can_connect, wait_until
from product import Gateway
from test_local import not_ready, reachability


def at(gateway):
    return f"127.0.0.1:{gateway.port}"


@pytest.fixture(scope="module")
def gateways(module_stack):
    return {"http": module_stack.gateway(name="plain"), "https": module_stack.gateway(name="tls", tls=True)}


@pytest.fixture(scope="module")
def key(gateways):
    """For agents that do not get as far as the gateway."""
    return gateways["https"].agent("never-there")


def works(gateway, agent):
    """A whole operation, with rows in its result."""
    op = gateway.run("logs", agent=agent.key.agent, timeout=30)
    assert op["state"] == "succeeded", op
    assert any("link is up" in json.dumps(line) for line in gateway.rows(op))


# --- forward proxies

@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("name", ["tinyproxy", "tinyproxy_auth", "squid", "squid_auth"])
def test_through_a_proxy(name, scheme, request, stack):
    """https goes by CONNECT, http as a request to the proxy."""
    proxy, gw = request.getfixturevalue(name), stack.gateway(tls=scheme == "https")
    refused = proxy.refused()
    assert not proxy.saw(at(gw))
    agent = stack.agent(gw, env={f"{scheme.upper()}_PROXY": proxy.url})
    works(gw, agent)
    assert '"ok": true' in reachability(agent)
    wait_until(lambda: proxy.saw(at(gw)), 5, f"{name} has logged the connection")
    assert proxy.refused() == refused


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("login", ["none", "wrong"])
@pytest.mark.parametrize("name", ["tinyproxy_auth", "squid_auth"])
def test_proxy_password(name, login, scheme, request, gateways, key, stack):
    proxy, gw = request.getfixturevalue(name), gateways[scheme]
    refused = proxy.refused()
    url = proxy.address if login == "none" else proxy.url.replace(proxy.password, "guess%2Fed")
    agent = stack.agent(gw, key=key, linked=False, env={f"{scheme.upper()}_PROXY": url})
    doc = not_ready(agent, "proxy_failed")
    assert doc["reason"].startswith("the link is down: ") and "proxy" in doc["reason"], doc
    wait_until(lambda: proxy.refused() > refused, 5, f"{name} has logged the refusal")
    assert not proxy.saw(at(gw))
    error = json.loads(reachability(agent))["error"]
    assert error["code"] == "proxy_failed" and error["native_code"] in ("401", "407")
    hint = "user:password" if login == "none" else "does not accept the user and password"
    assert hint in error["hint"]
    # tinyproxy closes before it has read a body: its answer to an exchange may be lost, and only that it closed is known
    assert hint in doc["hint"] or (name == "tinyproxy_auth" and scheme == "http" and "user:password in HTTP_PROXY" in doc["hint"])
    assert re.search(r"warn .*link is down.* code=proxy_failed .*hint=.*PROXY", agent.text())
    assert "guess" not in agent.text() + json.dumps(doc) + json.dumps(error)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no-such-proxy.invalid:3128"])
def test_no_proxy_there(url, gateways, key, stack):
    agent = stack.agent(gateways["https"], key=key, linked=False, env={"HTTPS_PROXY": url})
    doc = not_ready(agent, "proxy_failed", 60)
    assert "NO_PROXY" in doc["hint"] and "proxy" in doc["reason"]


@pytest.mark.parametrize("no_proxy, host, direct", [
    ("127.0.0.0/8", "127.0.0.1", True), ("10.0.0.0/8, 127.0.0.1/32", "127.0.0.1", True), ("127.0.0.1", "127.0.0.1", True),
    ("localhost", "localhost", True), ("example.com,.localhost", "localhost", True), ("*", "127.0.0.1", True),
    ("10.0.0.0/8", "127.0.0.1", False), ("127.0.0.2", "127.0.0.1", False), ("host,ocalhost", "localhost", False),
])
def test_no_proxy(no_proxy, host, direct, tinyproxy, gateways, key, stack):
    gw = gateways["https"]
    lines = tinyproxy.text()
    agent = stack.agent(gw, key=gw.key(key.agent), gateway_url=f"https://{host}:{gw.port}",
                        env={"HTTPS_PROXY": tinyproxy.url, "NO_PROXY": no_proxy})
    assert '"ok": true' in reachability(agent)
    through = f"opensock: opening connection to {host}:{gw.port}"
    if not direct:
        wait_until(lambda: through in tinyproxy.text()[len(lines):], 5, "the proxy has logged it")
    else:
        assert str(gw.port) not in tinyproxy.text()[len(lines):]


# --- TLS inspection

@pytest.mark.parametrize("form", ["path", "base64", "flag"])
def test_tls_inspecting_proxy(form, mitmproxy, stack):
    gw = stack.gateway(tls=True)
    ca = str(mitmproxy.ca) if form != "base64" else base64.b64encode(mitmproxy.ca.read_bytes()).decode()
    flags, env = (("--ca-file", ca), {}) if form == "flag" else ((), {"POSTERN_CA_FILE": ca})
    agent = stack.agent(gw, *flags, env={"HTTPS_PROXY": mitmproxy.url, **env})
    works(gw, agent)
    assert '"ok": true' in reachability(agent)
    wait_until(lambda: mitmproxy.saw(at(gw)), 5, "mitmproxy has logged the requests")


def test_tls_inspecting_proxy_is_refused_without_its_ca(mitmproxy, stack):
    gw = stack.gateway(tls=True)
    agent = stack.agent(gw, linked=False, env={"HTTPS_PROXY": mitmproxy.url})  # trusts the gateway's CA only
    doc = not_ready(agent, "tls_failed")
    error = json.loads(reachability(agent))["error"]
    line = agent.wait_log(r"warn .*link is down.*")[0]
    for text in (doc["reason"], error["message"], line):
        assert re.search(r"issuer '[^']*CN=mitmproxy", text), text
    for text in (doc["hint"], error["hint"], line):
        assert "POSTERN_CA_FILE" in text and "TLS-inspecting proxy" in text
    assert error["code"] == "tls_failed" and "code=tls_failed" in line
    assert not mitmproxy.saw(at(gw))  # not one request, so no key either


# --- the gateway's certificate

class Unready(Gateway):
    """A gateway that clients refuse: it is up when it listens."""

    def _ready(self):
        return can_connect(self.port)


CERTIFICATES = [
    ("expired", dict(days=-1), r"certificate of 'CN=expired'.*Postern Test CA.*certificate has expired", r"clock"),
    ("other-name", dict(sans="DNS:gateway.example.com"), r"TLS with 127\.0\.0\.1: .*(does not match|subject name).*127\.0\.0\.1", r"host in the URL"),
]


@pytest.mark.parametrize("name, how, message, hint", CERTIFICATES, ids=[c[0] for c in CERTIFICATES])
def test_certificate_is_refused(name, how, message, hint, key, stack):
    cert, cert_key = stack.ca.issue(name, **how)
    gw = stack.add(Unready(stack, "--tls-cert", cert, "--tls-key", cert_key, tls=True))
    agent = stack.agent(gw, key=key, linked=False)
    doc = not_ready(agent, "tls_failed")
    error = json.loads(reachability(agent))["error"]
    line = agent.wait_log(r"warn .*link is down.*")[0]
    for text in (doc["reason"], error["message"], line):
        assert re.search(message, text), text
    for text in (doc["hint"], error["hint"], line):
        assert hint in text, text


def test_own_ca(stack):
    """Unknown without --ca-file; with it, and when the gateway speaks no TLS at all."""
    gw, plain = stack.gateway(tls=True), stack.gateway(name="plain")
    agent = stack.agent(gw, "--ca-file", "", linked=False, name="without")
    doc = not_ready(agent, "tls_failed")
    assert "issuer 'CN=Postern Test CA'" in doc["reason"] and "--ca-file" in doc["hint"]
    works(gw, stack.agent(gw, name="with"))
    agent = stack.agent(plain, name="no-tls", linked=False, gateway_url=f"https://{at(plain)}")
    doc = not_ready(agent, "tls_failed")
    assert "does not seem to speak TLS" in doc["hint"]


# --- operations that look at the network, by the client

@pytest.fixture(scope="module")
def seer(module_stack, gateways):
    """An agent that may look at this machine."""
    return module_stack.agent(gateways["http"], "--allowed-cidrs", "127.0.0.0/8,::1", "--ca-file", module_stack.ca.cert, name="seer")


@pytest.fixture(scope="module")
def shut(module_stack, gateways):
    """An agent as it comes, but for one address: where the redirecting server is."""
    return module_stack.agent(gateways["http"], "--allowed-cidrs", "127.0.0.1/32", name="shut")


@pytest.fixture(scope="module")
def strict(module_stack, gateways):
    return module_stack.agent(gateways["http"], name="strict")


def ctl_run(stack, gateway, agent, type, input=None, check=True):
    p = stack.ctl(gateway, "operations", "run", "--agent", agent.key.agent, "--type", type, "--wait", "-o", "json",
                  *(["--input", json.dumps(input)] if input else []), check=False)
    assert not check or p.returncode == 0, p.stdout + p.stderr
    return json.loads(p.stdout), p


def document(module_stack, gateway, agent, type, input=None):
    op, _ = ctl_run(module_stack, gateway, agent, type, input)
    assert op["state"] == "succeeded" and op["type"] == type
    return op["result"]["document"]


def test_network_operations(module_stack, gateways, seer, origin, tls_origin):
    gw = gateways["http"]

    def ask(type, **input):
        return document(module_stack, gw, seer, type, input)

    doc = ask("network.tcp", host="localhost", port=origin.port)
    assert doc["ok"] is True and doc["peer"].startswith("127.0.0.1") and doc["ms"] >= 0
    doc = ask("network.tcp", host="127.0.0.1", port=1)
    assert doc["ok"] is False and doc["error"]["code"] == "connect_failed"
    doc = ask("network.dns", name="localhost")
    assert doc["ok"] is True and "127.0.0.1" in doc["addresses"]
    doc = ask("network.dns", name="no-such-host.invalid")
    assert doc["ok"] is False and doc["error"]["code"] == "host_unknown"
    doc = ask("network.http", url=origin.url + "/status/418", expect_status=418)
    assert doc["ok"] is True and doc["status"] == 418 and doc["proxied"] is False
    doc = ask("network.http", url=origin.url + "/status/500", expect_status=200)
    assert doc["ok"] is False and doc["error"]["native_code"] == "500"
    doc = ask("network.tls", host="127.0.0.1", port=tls_origin.port)
    assert doc["ok"] is True and "Postern Test CA" in json.dumps(doc)
    doc = ask("network.tls", host="127.0.0.1", port=origin.port)
    assert doc["ok"] is False and doc["error"]["code"] == "tls_failed"
    doc = ask("http.request", url=origin.url + "/echo", method="POST", body_json={"n": 1}, headers={"X-Test": "yes"}, response="json")
    assert doc["status"] == 200 and doc["body"]["body"] == '{"n":1}' and doc["body"]["headers"]["X-Test"] == "yes"


def test_operations_about_the_agent(module_stack, gateways, seer):
    gw = gateways["http"]
    doc = document(module_stack, gw, seer, "health")
    assert doc["ok"] is True and doc["link"]["agent_name"] == "seer" and doc["key_id"] == seer.key.id
    assert "app_version_info" in document(module_stack, gw, seer, "metrics")["text"]
    op, _ = ctl_run(module_stack, gw, seer, "logs", {"max_lines": 5})
    assert 0 < op["result"]["rows"] <= 5
    lines = module_stack.ctl(gw, "operations", "result", op["id"], "--format", "jsonl").stdout.splitlines()
    assert len(lines) == op["result"]["rows"] and all(json.loads(line) for line in lines)


BLOCKED = [
    # host, the address that the hint permits
    ("127.0.0.1", "127.0.0.1/32"), ("localhost", None), ("LOCALHOST", None), ("127.1", "127.0.0.1/32"), ("2130706433", "127.0.0.1/32"),
    ("0x7f000001", "127.0.0.1/32"), ("0x7f.1", "127.0.0.1/32"), ("017700000001", "127.0.0.1/32"), ("0", "0.0.0.0/32"),
    ("127.8.8.8", "127.8.8.8/32"), ("169.254.169.254", "169.254.169.254/32"), ("2852039166", "169.254.169.254/32"),
    ("0xa9fea9fe", "169.254.169.254/32"), ("[::1]", "::1/128"), ("[::]", "::/128"), ("[::ffff:127.0.0.1]", "127.0.0.1/32"),
    ("[::ffff:a9fe:a9fe]", "169.254.169.254/32"), ("[::127.0.0.1]", "127.0.0.1/32"), ("[64:ff9b::7f00:1]", "127.0.0.1/32"),
    ("[2002:7f00:1::]", "127.0.0.1/32"), ("[fe80::1]", "fe80::1/128"), ("[fd00:ec2::254]", "fd00:ec2::254/128"),
]


def check_blocked(op, permits):
    error = op["error"]
    assert op["state"] == "failed" and error["code"] == "address_blocked", (op["type"], op["input"], error)
    assert not error["retryable"] and "--allowed-cidrs " + (permits or "") in error["hint"], error


def test_guard(gateways, strict, origin):
    """Nothing is connected to, whichever operation asks and however the address is written."""
    gw, seen = gateways["http"], len(origin.seen)
    ops = []
    for host, permits in BLOCKED:
        bare = host.strip("[]")
        for type, input in (("http.request", {"url": f"http://{host}:{origin.port}/guarded"}),
                            ("network.http", {"url": f"http://{host}:{origin.port}/guarded"}),
                            ("network.tcp", {"host": bare, "port": origin.port}), ("network.tls", {"host": bare, "port": origin.port})):
            ops.append((gw.submit(type, input, agent=strict.key.agent), permits))
    for op, permits in ops:
        check_blocked(gw.wait(op), permits)
    assert len(origin.seen) == seen


@pytest.mark.parametrize("to", ["http://169.254.169.254/latest/meta-data/", "http://127.0.0.2:{port}/x", "http://[::1]:{port}/x",
                                "http://0x7f000002:{port}/x", "//127.0.0.2:{port}/x", "http://[::ffff:169.254.169.254]/x"])
def test_guard_looks_at_redirects(to, gateways, shut, origin):
    gw = gateways["http"]
    url = f"{origin.url}/redirect?to={to.format(port=origin.port)}"
    op = gw.run("http.request", {"url": url, "follow": True}, agent=shut.key.agent)
    check_blocked(op, None)
    assert not [r for r in origin.seen if r["path"] == "/x"]
    op = gw.run("http.request", {"url": url}, agent=shut.key.agent)  # not followed: its answer is the result
    assert op["state"] == "succeeded" and op["result"]["document"]["status"] == 302


def test_guard_by_the_client(module_stack, gateways, strict, shut, origin):
    gw, url = gateways["http"], {"url": origin.url + "/permitted"}
    op, p = ctl_run(module_stack, gw, strict, "http.request", url, check=False)
    check_blocked(op, "127.0.0.1/32")
    assert p.returncode == 77
    op, _ = ctl_run(module_stack, gw, shut, "http.request", url)
    assert op["state"] == "succeeded" and op["result"]["document"]["status"] == 200
    p = module_stack.ctl(gw, "operations", "run", "--agent", strict.key.agent, "--type", "http.request", "--wait", "--input",
                         json.dumps(url), check=False)
    assert p.returncode == 77 and "--allowed-cidrs 127.0.0.1/32" in p.stderr


def test_guard_behind_a_proxy(stack, tinyproxy, origin):
    """A proxy that could reach what the agent must not is not asked to."""
    gw = stack.gateway()
    agent = stack.agent(gw, env={"HTTP_PROXY": tinyproxy.url, "NO_PROXY": "127.0.0.1/32"})
    lines = len(tinyproxy.text())
    for host in ("localhost", "127.0.0.2", "0x7f000002", "metadata.google.internal", "169.254.169.254"):
        op = gw.run("http.request", {"url": f"http://{host}:{origin.port}/x"}, agent=agent.key.agent)
        check_blocked(op, None)
    assert ": Request (" not in tinyproxy.text()[lines:]
