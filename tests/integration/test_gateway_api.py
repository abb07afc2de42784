"""The client API: who may do what, malformed requests, idempotency, order, lists, waiting, names, conflicts."""
import base64
import json
import random
import re
import socket
import threading
import time
import urllib.parse

import pytest

from fake_agent import Held, Instance, head_of, new_id, small
from harness import request, wait_until

NAMES = (f"n{n}" for n in range(10**6))


@pytest.fixture(scope="module")
def gw(module_stack):
    return module_stack.gateway()


@pytest.fixture(scope="module")
def openapi(gw):
    r = gw.request("GET", "/api/v1/openapi.json", token=None)
    assert r.status == 200
    return r.json()


@pytest.fixture(scope="module")
def key(gw):
    """An agent that the whole file uses."""
    return gw.agent("warehouse")


@pytest.fixture(scope="module")
def agent(gw, key):
    a = Instance(gw, key, slots=1000)
    a.connect()
    return a


# --- every endpoint: how to make a request that succeeds.  (path, body, status of success); each call makes new objects.

def user(gw):
    return gw.api("POST", "/users", {"name": next(NAMES), "role": "viewer"})


def operation(gw, **fields):
    return gw.submit("health", agent="warehouse", **fields)


def finished(gw, agent, body=b"[1]\n"):
    op = operation(gw)
    lease = next(x for x in leases_of(agent) if x["operation"] == op["id"])
    assert agent.put(lease, body)[0] == 200
    return op


def leases_of(agent):
    """Every lease of the instance: what is not acknowledged yet, too."""
    leases = agent.exchange().get("leases", [])
    agent.exchange(draining=True, released=[])
    return leases


def dead_letter(gw, agent, **fields):
    """An operation that has failed."""
    op = operation(gw, **fields)
    lease = next(x for x in leases_of(agent) if x["operation"] == op["id"])
    assert agent.put(lease, status="failed")[0] == 200
    return op


def leased(gw, agent):
    op = operation(gw)
    return next(x for x in leases_of(agent) if x["operation"] == op["id"])


def integration(gw):
    return {"name": next(NAMES), "connection_type": "postgres", "agent": "warehouse",
            "credential": {"type": "ENV_VAR", "env_var_name": "MCD_X"}}


def new_agent(gw):
    return gw.api("POST", "/agents", {"name": next(NAMES)})["id"]


def result(agent, lease):
    return json.dumps(head_of(agent.id, b"[1]\n")).encode() + b"\n[1]\n"


ENDPOINTS = {
    ("GET", "/livez"): lambda g, a: ("/livez", None, 200),
    ("GET", "/readyz"): lambda g, a: ("/readyz", None, 200),
    ("GET", "/metrics"): lambda g, a: ("/metrics", None, 200),
    ("GET", "/api/v1/openapi.json"): lambda g, a: ("/api/v1/openapi.json", None, 200),
    ("GET", "/api/v1/whoami"): lambda g, a: ("/api/v1/whoami", None, 200),
    ("POST", "/api/v1/users"): lambda g, a: ("/api/v1/users", {"name": next(NAMES), "role": "viewer"}, 201),
    ("GET", "/api/v1/users"): lambda g, a: ("/api/v1/users", None, 200),
    ("DELETE", "/api/v1/users/{id}"): lambda g, a: (f"/api/v1/users/{user(g)['id']}", None, 200),
    ("POST", "/api/v1/tokens"): lambda g, a: ("/api/v1/tokens", {"user": "owner", "name": "t", "expires_in_s": 60}, 201),
    ("GET", "/api/v1/tokens"): lambda g, a: ("/api/v1/tokens", None, 200),
    ("DELETE", "/api/v1/tokens/{id}"): lambda g, a: (f"/api/v1/tokens/{g.api('POST', '/tokens', {'user': 'owner'})['id']}", None, 200),
    ("POST", "/api/v1/agents"): lambda g, a: ("/api/v1/agents", {"name": next(NAMES), "kind": "generic"}, 201),
    ("GET", "/api/v1/agents"): lambda g, a: ("/api/v1/agents", None, 200),
    ("GET", "/api/v1/agents/{id}"): lambda g, a: ("/api/v1/agents/warehouse", None, 200),
    ("POST", "/api/v1/agents/{id}/enable"): lambda g, a: (f"/api/v1/agents/{new_agent(g)}/enable", None, 200),
    ("POST", "/api/v1/agents/{id}/disable"): lambda g, a: (f"/api/v1/agents/{new_agent(g)}/disable", None, 200),
    ("DELETE", "/api/v1/agents/{id}"): lambda g, a: (f"/api/v1/agents/{new_agent(g)}", None, 200),
    ("POST", "/api/v1/agents/{id}/keys"): lambda g, a: (f"/api/v1/agents/{new_agent(g)}/keys", {"name": "k", "expires_in_s": 60}, 201),
    ("GET", "/api/v1/agents/{id}/keys"): lambda g, a: ("/api/v1/agents/warehouse/keys", None, 200),
    ("DELETE", "/api/v1/keys/{id}"): lambda g, a: (f"/api/v1/keys/{g.key(new_agent(g)).id}", None, 200),
    ("POST", "/api/v1/integrations"): lambda g, a: ("/api/v1/integrations", integration(g), 201),
    ("GET", "/api/v1/integrations"): lambda g, a: ("/api/v1/integrations", None, 200),
    ("GET", "/api/v1/integrations/{id}"): lambda g, a: (f"/api/v1/integrations/{g.api('POST', '/integrations', integration(g))['name']}", None, 200),
    ("DELETE", "/api/v1/integrations/{id}"): lambda g, a: (f"/api/v1/integrations/{g.api('POST', '/integrations', integration(g))['id']}", None, 200),
    ("POST", "/api/v1/operations"): lambda g, a: ("/api/v1/operations", {"agent": "warehouse", "type": "health", "input": {}, "priority": 5,
                                                                       "labels": {"a": "b"}}, 201),
    ("POST", "/api/v1/operations/batch"): lambda g, a: ("/api/v1/operations/batch", {"operations": [
        {"agent": "warehouse", "type": "health", "input": {}, "priority": 5}, {"agent": "warehouse", "type": "health", "input": {}}]}, 200),
    ("GET", "/api/v1/operations"): lambda g, a: ("/api/v1/operations", None, 200),
    ("GET", "/api/v1/operations/{id}"): lambda g, a: (f"/api/v1/operations/{operation(g)['id']}", None, 200),
    ("GET", "/api/v1/operations/{id}/result"): lambda g, a: (f"/api/v1/operations/{finished(g, a)['id']}/result", None, 200),
    ("POST", "/api/v1/operations/{id}/cancel"): lambda g, a: (f"/api/v1/operations/{operation(g)['id']}/cancel", {"reason": "test"}, 200),
    ("POST", "/api/v1/operations/{id}/settle"): lambda g, a: (f"/api/v1/operations/{dead_letter(g, a)['id']}/settle",
                                                               {"decision": "done", "note": "by hand"}, 200),
    ("GET", "/api/v1/operations/{id}/logs"): lambda g, a: (f"/api/v1/operations/{operation(g)['id']}/logs", None, 200),
    ("GET", "/api/v1/agents/{id}/logs"): lambda g, a: ("/api/v1/agents/warehouse/logs", None, 200),
    ("POST", "/agent/v1/logs"): lambda g, a: ("/agent/v1/logs", {"instance": a.id, "lines": [
        {"seq": 1, "at": 1763654400000, "level": "info", "msg": "hello", "fields": {"a": "b"}}]}, 200),
    ("POST", "/agent/v1/results"): lambda g, a: ("/agent/v1/results", {"instance": a.id, "results": [
        small(lease := leased(g, a), a.id), small(lease, a.id)]}, 200),
    ("GET", "/agent/v1/ping"): lambda g, a: ("/agent/v1/ping", None, 200),
    ("POST", "/agent/v1/exchange"): lambda g, a: ("/agent/v1/exchange", Instance(g, a.key, slots=0).said(), 200),
    ("PUT", "/agent/v1/operations/{id}/attempts/{n}/result"): lambda g, a: (
        f"/agent/v1/operations/{(lease := leased(g, a))['operation']}/attempts/{lease['attempt']}/result", result(a, lease), 200),
}
RANK = {"none": 0, "viewer": 1, "operator": 2, "owner": 3}


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def basic(key_id, secret):
    return {"Authorization": "Basic " + base64.b64encode(f"{key_id}:{secret}".encode()).decode()}


@pytest.fixture(scope="module")
def callers(gw, key):
    """name -> (headers, what it is)"""
    def token(role, **more):
        u = gw.api("POST", "/users", {"name": next(NAMES), "role": role})
        return gw.api("POST", "/tokens", {"user": u["id"], **more})

    out = {role: (bearer(token(role)["token"]), role) for role in ("viewer", "operator", "owner")}
    revoked, expired = token("owner"), token("owner", expires_in_s=1)
    gw.api("DELETE", f"/tokens/{revoked['id']}")
    orphan = token("owner")
    gw.api("DELETE", f"/users/{orphan['user']}")
    k_revoked = gw.key(key.agent)
    gw.api("DELETE", f"/keys/{k_revoked.id}")
    k_expired = gw.api("POST", f"/agents/{key.agent}/keys", {"expires_in_s": 1})
    gone = gw.agent(next(NAMES))
    gw.api("DELETE", f"/agents/{gone.agent}")
    foreign = gw.agent(next(NAMES))
    out |= {
        "nobody": ({}, None),
        "a made-up token": (bearer("pts_" + "x" * 43), None),
        "an empty token": (bearer(""), None),
        "a revoked token": (bearer(revoked["token"]), None),
        "an expired token": (bearer(expired["token"]), None),
        "a token of a deleted user": (bearer(orphan["token"]), None),
        "the agent's key": (basic(*key.basic), "agent"),
        "a foreign agent's key": (basic(*foreign.basic), "foreign"),
        "a revoked key": (basic(*k_revoked.basic), None),
        "an expired key": (basic(k_expired["key_id"], k_expired["key_secret"]), None),
        "a key of a deleted agent": (basic(*gone.basic), None),
        "a key with a wrong secret": (basic(key.id, foreign.secret), None),
        "a key without a secret": (basic(key.id, ""), None),
        "a key id as token": (bearer(key.secret), None),
        "no base64": ({"Authorization": "Basic !!!!"}, None),
        "no colon": ({"Authorization": "Basic " + base64.b64encode(b"abc").decode()}, None),
        "an unknown scheme": ({"Authorization": "Digest x"}, None),
        "a very long key id": (basic("key_" + "x" * 3000, "y"), None),
    }
    for k in ("an expired token", "an expired key"):
        path = "/api/v1/whoami" if "token" in k else "/agent/v1/ping"
        wait_until(lambda: request("GET", gw.url + path, headers=out[k][0]).status == 401, 10)
    return out


def test_the_table_has_every_endpoint(openapi):
    described = {(m.upper(), p) for p, methods in openapi["paths"].items() for m in methods}
    assert described == set(ENDPOINTS)


def wanted(need, is_a, path, ok):
    if need == "none":
        return ok
    if is_a is None:
        return 401
    if need == "agent":
        return 403 if is_a in RANK else 404 if is_a == "foreign" and "/attempts/" in path else ok
    return ok if is_a in RANK and RANK[is_a] >= RANK[need] else 403


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=" ".join)
def test_who_may_do_what(gw, agent, openapi, callers, endpoint):
    method, template = endpoint
    need = openapi["paths"][template][method.lower()]["x-postern-role"]
    path, body, ok = ENDPOINTS[endpoint](gw, agent)
    order = sorted(callers, key=lambda name: wanted(need, callers[name][1], template, ok) == ok)  # those who change something last
    for name in order:
        headers, is_a = callers[name]
        want = wanted(need, is_a, template, ok)
        if want == ok:
            path, body, _ = ENDPOINTS[endpoint](gw, agent)
        r = request(method, gw.url + path, body, headers=headers)
        assert r.status == want, (name, r)
        if want >= 400:
            error = r.json()["error"]
            assert error["code"] == {401: "unauthenticated", 403: "permission_denied", 404: "not_found"}[want], (name, r)
            if want == 401:
                assert r.headers["WWW-Authenticate"]


def test_no_secret_is_shown_twice(gw, key):
    token = gw.api("POST", "/tokens", {"user": "owner", "name": "laptop"})
    second = gw.key(key.agent)
    for path in ("/tokens", f"/agents/{key.agent}/keys", "/users", "/agents"):
        text = json.dumps(gw.api("GET", path))
        assert token["token"] not in text and second.secret not in text and gw.token not in text and not re.search(r'"\w*hash\w*":', text)
    assert token["token"] not in gw.text() and second.secret not in gw.text() and gw.token not in gw.text()


# --- malformed requests

def raw(gw, data, half_close=False, pieces=1, pause=0.0):
    """Send bytes; (status, body) of the answer, or (None, b"") when the connection was closed without one."""
    out = b""
    with socket.create_connection(("127.0.0.1", gw.port), 20) as s:
        try:
            step = len(data) // pieces + 1
            for n in range(0, len(data), step):
                s.sendall(data[n:n + step])
                if pause:
                    time.sleep(pause)
            if half_close:
                s.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass
        try:
            while chunk := s.recv(65536):
                out += chunk
        except ConnectionError:
            pass
    if not out.startswith(b"HTTP/1.1 "):
        return None, out
    head, _, body = out.partition(b"\r\n\r\n")
    assert b"HTTP/1.1 " not in body or b"<html>" in body, f"two answers: {out[:2000]}"
    return int(head.split()[1]), body


def http(method, path, body=b"", auth=(), headers=(), length=None):
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *(f"{k}: {v}" for k, v in dict(auth).items()), *headers]
    if body or length is not None:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def wrong_values(schema):
    kind = schema.get("type")
    yield from {
        "string": [17, 1.5, True, [], {}, "nul\u0000", ["a"]], "integer": ["5", 1.5, True, [], {}, 10**30, -10**30, 1e300],
        "boolean": ["true", 1, [], {}], "array": [{}, "x", 5, True, [[]], [None]], "object": [[], "x", 5, True, {"zz-unknown": 1}],
    }.get(kind, [])
    if schema.get("additionalProperties") == {"type": "string"}:
        yield {"a": 5}
        yield {"a": {"b": "c"}}
    if "maxLength" in schema:
        yield "x" * (schema["maxLength"] + 1)
    if "enum" in schema:
        yield "no-such-value"
        yield ""
    if "maximum" in schema:
        yield schema["maximum"] + 1
        yield schema["minimum"] - 1
    if kind == "array":
        yield [schema["items"]] * 20000
        for value in wrong_values(schema["items"]):
            yield [value]
    for name, sub in schema.get("properties", {}).items():
        for value in wrong_values(sub):
            yield {name: value}


def wrong_documents(schema, good, rng):
    """JSON texts that an endpoint must refuse."""
    text = json.dumps(good)
    for name in schema.get("required", []):
        yield json.dumps({k: v for k, v in good.items() if k != name}).encode()
    for name, sub in schema["properties"].items():
        for value in wrong_values(sub):
            if isinstance(value, dict) and sub.get("type") == "object" and "properties" not in sub and "zz-unknown" in value:
                continue  # any object will do there, or only strings
            yield json.dumps({**good, name: value}).encode()
    for bad in ("", " ", "null", "true", "5", '"x"', "[]", "[{}]", "{", "}", "{]", "nul", "<xml/>", "a=b&c=d", "\ufeff" + text, text + text,
                text + "x", text + ",", text.replace(":", "=", 1), text.replace('"', "'"), text[:-1] + ",}", "{" + "/*c*/" + text[1:]):
        yield bad.encode()
    first = next(iter(good))
    yield (text[:-1] + f", {json.dumps(first)}: {json.dumps(good[first])}}}").encode()  # twice
    for depth in (65, 1000, 60000):
        yield b'{"x":' * depth + b"1" + b"}" * depth
        yield b"[" * depth
        yield (text[:-1] + ', "zz": ' + "[" * depth + "]" * depth + "}").encode()
    for byte in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x00", b"\x1f", b"\n"):
        yield text.encode()[:-1] + b', "a' + byte + b'": 1}'
        yield text.encode().replace(b'"', b'"' + byte, 1)
    while True:
        what = rng.randrange(4)
        if what == 0:
            yield text[:rng.randrange(1, len(text))].encode()
        elif what == 1:
            yield json.dumps({**good, "zz" + str(rng.random()): rng.choice([1, "x", None, [], {}])}).encode()
        elif what == 2:
            yield bytes(rng.randrange(256) for _ in range(rng.randrange(1, 200)))
        else:
            at = rng.randrange(1, len(text))
            yield (text[:at] + chr(rng.randrange(1, 32)).replace("\t", "\x01").replace("\n", "\x01").replace("\r", "\x01") + "\x02" + text[at:]).encode()


def wrong_result_bodies(good, rng):
    head, _, body = good.partition(b"\n")
    doc = json.loads(head)
    for extra in ({"zz": 1}, {"status": "maybe"}, {"rows": "x"}, {"body_size": 3}, {"body_size": 5}, {"error": []}, {"instance": "x" * 60},
                  {"columns": [{}]}, {"status": "failed"}, {"body_encoding": "br"}, {"body_format": "xls"}, {"bytes": -1}):
        yield json.dumps({**doc, **extra}).encode() + b"\n" + body
    while True:
        what = rng.randrange(3)
        if what == 0:
            yield good[:rng.randrange(len(good))]
        elif what == 1:
            yield bytes(rng.randrange(256) for _ in range(rng.randrange(1, 300))) + b"\n" + body
        else:
            yield good + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 3000)))


def wrong_paths(template, path, rng):
    """Paths and arguments that must be refused: (path, is it a body's endpoint still?)"""
    query = ["zz=1", "=", "a", "wait", "%zz=1", "limit=%", "a=b&a=b", "\x7f=1", "zz=" + "x" * 3000, "%00=1", "zz[]=1", "&&zz"]
    values = {"limit": ["0", "-1", "501", "x", "1e3", "", "9" * 30, "1.5", "0x10"], "wait": ["-1", "61", "x", "", "1.5", "9" * 30],
              "state": ["", "QUEUED", "done", "x" * 300], "agent": ["", "no-such-agent", "x" * 300, "ag_" + "0" * 26],
              "dead_letter": ["", "1", "yes", "TRUE", "truex"], "before": ["x", "op_", "op_" + "x" * 26 + "x", "ag_" + "0" * 26, "x" * 300],
              "force": ["1", "yes", "", "TRUE", "truex"], "after": ["-1", "x", "", "1.5", "9" * 30], "level": ["", "INFO", "fatal", "x" * 300]}
    own = {"/api/v1/operations": ["limit", "state", "agent", "before", "dead_letter"], "/api/v1/operations/{id}": ["wait"],
           "/api/v1/operations/{id}/logs": ["after", "limit", "wait"], "/api/v1/agents/{id}/logs": ["after", "limit", "level", "wait"],
           "/api/v1/agents/{id}": ["force"]}
    for q in query:
        yield f"{path}?{q}"
    for name in own.get(template, []):
        for value in values[name]:
            yield f"{path}?{name}={urllib.parse.quote(value)}"
    for bad in ("/", "//", "/%", "/%zz", "/..", "/x/y/z", "%00", "\x7f"):
        yield path + bad
    while True:
        yield f"{path}?zz{rng.randrange(10**9)}={rng.randrange(10**9)}"


def wrong_ids(template, rng):
    ids = ["x", "%20", "..", "%2e%2e%2f", "op_", "op_x", "op_" + "0" * 25, "op_" + "0" * 27, "OP_" + "0" * 26, "op_" + "u" * 26, "ag_" + "0" * 26,
           "usr_" + "z" * 26, "key_" + "z" * 26, "x" * 200, "x" * 3000, "%C3%28", "%FF", "%0a", "'; drop table operations; --".replace(" ", "%20"),
           "a%2fb", "%F0%9F%9A%AA", "-1", "0", "null", "{id}", "$(id)", "%25"]
    while True:
        for i in ids:
            yield template.replace("{id}", i).replace("{n}", "1")
        ids = [new_id(rng.choice(["op", "ag", "int", "tok", "usr", "key"])) for _ in range(20)]


def wrong_headers():
    return [["Content-Length: -1"], ["Content-Length: x"], ["Content-Length: 1", "Content-Length: 2"], ["Content-Length: 99999999999999999999"],
            ["Transfer-Encoding: gzip"], ["Transfer-Encoding: chunked", "Content-Length: 5"], ["Host: y"], [" folded: x"], ["No colon"],
            ["Bad Name: x"], ["X: " + "y" * 20000], [f"X-{n}: {n}" for n in range(400)]]


def first_ones(n, *iterators):
    """n items in turn of iterators, fewer when all end."""
    out, left = [], list(iterators)
    while len(out) < n and left:
        for it in list(left):
            try:
                out.append(next(it))
            except StopIteration:
                left.remove(it)
    return out[:n]


def malformed(method, template, path, body, spec, auth, rng):
    """(what, bytes to send) of 100 requests, and more where there is more to say."""
    schema = spec.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    optional = not spec.get("requestBody", {}).get("required", True)
    text = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    yield from (("headers", http(method, path, b"", auth, h)) for h in wrong_headers())
    urls = first_ones(40 if "{id}" not in template else 25, wrong_paths(template, path, rng))
    yield from (("path", http(method, u, text, auth)) for u in urls)
    if "{id}" in template:
        yield from (("id", http(method, u, text, auth)) for u in first_ones(30, wrong_ids(template, rng)))
    if schema:
        limit = {"/api/v1/operations": 2 << 20, "/api/v1/operations/batch": 4 << 20, "/agent/v1/exchange": 1 << 20, "/agent/v1/logs": 256 << 10, "/agent/v1/results": 2 << 20}.get(template, 64 << 10)
        yield "huge", http(method, path, b" " * limit + text, auth)
        documents = wrong_documents(schema, body, rng)
        for doc in first_ones(230, documents):
            if doc or not optional:
                yield "body", http(method, path, doc, auth, ["Content-Type: application/json"])
    elif isinstance(body, bytes):
        yield from (("result", http(method, path, b, auth)) for b in first_ones(60, wrong_result_bodies(body, rng)))
    else:
        yield from (("unexpected body", http(method, path, bytes(rng.randrange(256) for _ in range(rng.randrange(1, 2000))), auth)) for _ in range(65))


@pytest.mark.limit(400)
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=" ".join)
def test_malformed_requests(gw, agent, openapi, endpoint):
    method, template = endpoint
    rng = random.Random(" ".join(endpoint))
    spec = openapi["paths"][template][method.lower()]
    path, body, _ = ENDPOINTS[endpoint](gw, agent)
    auth = basic(*agent.key.basic) if spec["x-postern-role"] == "agent" else bearer(gw.token)
    n = 0
    for what, data in malformed(method, template, path, body, spec, auth, rng):
        status, answer = raw(gw, data)
        assert status and 400 <= status < 500, (what, data[:300], status, answer[:300])
        n += 1
        if what == "headers" and b"<html>" in answer:
            continue  # libmicrohttpd refuses it before anything of ours is asked
        assert answer.startswith(b"{"), (what, data[:300], answer[:300])
        error = json.loads(answer)["error"]
        assert error["code"] and error["message"] and isinstance(error["retryable"], bool), (what, data[:300], answer)
    text = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    for part in {len(text) // 2, max(len(text) - 1, 0), 0} if text else ():  # shorter than its Content-Length
        status, _ = raw(gw, http(method, path, text[:part], auth, length=len(text)), half_close=True)
        assert status is None or 400 <= status < 500, part
        n += 1
    whole = http(method, path, text, auth)
    for cut in (4, 20, len(whole) // 2):  # broken off, some of them slowly
        status, _ = raw(gw, whole[:cut], half_close=True, pieces=5, pause=0.01)
        assert status is None or 400 <= status < 500, cut
        n += 1
    assert n >= 100, n
    assert gw.request("GET", "/readyz", token=None).status == 200 and gw.running
    # after all that the very same request still works
    r = request(method, gw.url + path, body, headers=auth)
    assert r.status < 300, r


def test_methods_and_unknown_paths(gw):
    for method, path, want in [("PATCH", "/api/v1/agents", 405), ("DELETE", "/api/v1/operations", 405), ("PUT", "/livez", 405),
                               ("GET", "/agent/v1/exchange", 405), ("GET", "/", 404), ("GET", "/api/v2/agents", 404),
                               ("GET", "/api/v1/agents/", 404), ("POST", "/oauth2/nothing", 404)]:
        r = gw.request(method, path)
        assert r.status == want and r.json()["error"]["code"] == {404: "not_found", 405: "method_not_allowed"}[want], (method, path, r)
        assert want == 404 or r.headers["Allow"]


# --- submitting

def test_idempotency(gw, key):
    body = {"agent": "warehouse", "type": "health", "input": {}, "idempotency_key": "order-1"}
    first = gw.request("POST", "/api/v1/operations", body)
    again = gw.request("POST", "/api/v1/operations", body)
    other = gw.request("POST", "/api/v1/operations", {**body, "priority": 1})
    assert (first.status, again.status, other.status) == (201, 200, 409)
    assert first.json()["id"] == again.json()["id"]
    assert first.json()["id"] in other.json()["error"]["message"] and other.json()["error"]["code"] == "conflict"
    body = {k: v for k, v in body.items() if k != "idempotency_key"}
    headers = {"Idempotency-Key": "order-2"}
    first = gw.request("POST", "/api/v1/operations", body, headers=headers)
    again = gw.request("POST", "/api/v1/operations", body, headers=headers)
    assert (first.status, again.status) == (201, 200) and first.json()["id"] == again.json()["id"]
    differ = gw.request("POST", "/api/v1/operations", {**body, "idempotency_key": "order-3"}, headers=headers)
    assert differ.status == 400
    for bad in ("", "x" * 256):
        assert gw.request("POST", "/api/v1/operations", body, headers={"Idempotency-Key": bad}).status == 400
    assert gw.request("POST", "/api/v1/operations", body, headers={"Idempotency-Key": "x" * 255}).status == 201


def test_idempotency_at_the_same_time(gw, key):
    body = {"agent": "warehouse", "type": "health", "input": {}, "idempotency_key": "race"}
    answers = [Held(lambda: gw.request("POST", "/api/v1/operations", body)) for _ in range(16)]
    answers = [a.result(30) for a in answers]
    assert sorted(a.status for a in answers) == [200] * 15 + [201]
    assert len({a.json()["id"] for a in answers}) == 1


def test_submit_says_what_is_wrong(gw, key):
    other = gw.api("POST", "/agents", {"name": next(NAMES)})
    i = gw.api("POST", "/integrations", integration(gw))
    good = {"agent": "warehouse", "type": "health", "input": {}}
    query = {"type": "query", "input": {"sql": "SELECT 1"}}
    for body, status, text in [
        ({**good, "agent": "nobody"}, 404, "no agent 'nobody'"), ({**good, "agent": "ag_" + "0" * 26}, 404, "no agent"),
        ({"type": "health", "input": {}}, 400, "agent: missing"), ({**good, "type": "healthy"}, 422, "healthy"),
        ({**good, "input": {"x": 1}}, 400, "input: unknown member 'x'"), ({**query, "agent": "warehouse"}, 400, "integration"),
        ({**query, "integration": "nothing"}, 404, "no integration 'nothing'"),
        ({**query, "integration": i["name"], "agent": other["name"]}, 400, "another agent"),
        ({**query, "integration": i["name"], "input": {"sql": " "}}, 400, "sql: is empty"),
        ({**good, "priority": 10}, 400, "priority: 10 is not between 0 and 9"),
        ({**good, "labels": {"a": 1}}, 400, "labels"), ({**good, "delivery": "exactly-once"}, 400, "delivery"),
        ({**good, "input": {}, "labels": {"a": "x" * 17000}}, 400, "labels"),
    ]:
        r = gw.request("POST", "/api/v1/operations", body)
        assert r.status == status or (status == 422 and r.status == 400), (body, r)
        assert text in r.json()["error"]["message"], (body, r)
    assert gw.request("POST", "/api/v1/operations", {**query, "integration": i["name"]}).status == 201
    assert gw.request("POST", "/api/v1/operations", {**query, "integration": i["id"], "agent": key.agent}).status == 201
    doc = gw.api("POST", "/operations", {**good, "labels": {"a": "x" * 16000, "é": "ü"}})
    assert doc["labels"]["é"] == "ü"


def test_what_was_submitted_is_shown(gw, key):
    doc = gw.operation(gw.submit("network.tcp", {"host": "localhost", "port": 1}, agent="warehouse", priority=7, deadline_s=100, max_attempts=2,
                                 delivery="at-most-once", labels={"team": "x"}, limits={"timeout_ms": 5000, "max_rows": 10, "max_bytes": 1000}))
    assert doc["input"] == {"host": "localhost", "port": 1} and doc["limits"] == {"timeout_ms": 5000, "max_rows": 10, "max_bytes": 1000}
    assert (doc["priority"], doc["max_attempts"], doc["delivery"], doc["labels"]) == (7, 2, "at-most-once", {"team": "x"})
    assert doc["agent"] == key.agent and doc["agent_name"] == "warehouse" and doc["state"] == "queued" and doc["attempt"] == 0
    assert doc["created_by"].startswith("usr_") and doc["deadline_at"] > doc["created_at"]
    assert [(e["event"], e["attempt"]) for e in doc["events"]] == [("accepted", 0)]


def test_priority_then_age(gw):
    key = gw.agent(name := next(NAMES))
    order = [5, 0, 9, 5, 9, 3, None, 7]
    ops = [gw.submit("health", agent=name, **({} if p is None else {"priority": p})) for p in order]
    want = [ops[n]["id"] for n in sorted(range(len(order)), key=lambda n: (-(5 if order[n] is None else order[n]), n))]
    one = Instance(gw, key, slots=1)
    got = [one.exchange()["leases"][0]]
    while leases := one.put(got[-1])[1].get("leases"):
        got += leases
    assert [x["operation"] for x in got] == want


# --- looking

def test_lists_page_and_filter(gw):
    key = gw.agent(name := next(NAMES))
    ops = [gw.submit(*(("health", {}) if n % 3 else ("network.dns", {"name": "x"})), agent=name)["id"] for n in range(25)]
    gw.request("POST", f"/api/v1/operations/{ops[0]}/cancel")

    def pages(query):
        got, before = [], ""
        while True:
            doc = gw.api("GET", f"/operations?{query}{before}")
            got += [i["id"] for i in doc["items"]]
            if "next" not in doc:
                return got
            before = f"&before={doc['next']}"

    newest = ops[::-1]
    for limit in (1, 7, 24, 25, 26, 500):
        assert pages(f"agent={name}&limit={limit}") == newest
    assert pages(f"agent={key.agent}&type=network.dns&limit=4") == [ops[n] for n in range(24, -1, -3)]
    assert pages(f"agent={name}&state=cancelled") == [ops[0]]
    assert pages(f"agent={name}&state=queued&limit=5") == newest[:-1]
    assert pages(f"agent={name}&state=failed") == []
    assert pages(f"agent={name}&type=network.dns&state=cancelled") == [ops[0]]
    everything = pages("limit=100")
    assert everything == sorted(everything, reverse=True) and set(ops) <= set(everything)
    first = gw.api("GET", f"/operations?agent={name}&limit=1")
    assert first["items"][0]["why"] and "events" not in first["items"][0]


def test_wait_holds_until_the_end(gw, agent):
    op = operation(gw)
    start = time.monotonic()
    assert gw.operation(op, wait=1)["state"] in ("queued", "leased") and 0.9 < time.monotonic() - start < 10
    waiting = [Held(lambda: gw.operation(op, wait=60)) for _ in range(20)]
    time.sleep(0.2)
    assert all(w.waiting for w in waiting)
    lease = next(x for x in leases_of(agent) if x["operation"] == op["id"])
    assert all(w.waiting for w in waiting)
    agent.put(lease, b"[1]\n")
    assert {w.result(5)["state"] for w in waiting} == {"succeeded"}
    start = time.monotonic()
    assert gw.operation(op, wait=60)["state"] == "succeeded" and time.monotonic() - start < 5
    assert gw.request("GET", f"/api/v1/operations/{new_id('op')}?wait=60").status == 404


def test_wait_of_clients_that_leave(gw, agent):
    op = operation(gw)
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", gw.port)) as s:
            s.sendall(http("GET", f"/api/v1/operations/{op['id']}?wait=60", auth=bearer(gw.token)))
    gw.request("POST", f"/api/v1/operations/{op['id']}/cancel")
    assert gw.operation(op, wait=60)["state"] in ("cancelled", "leased", "queued")


# --- names and conflicts

def test_names(gw, key):
    for path, body in (("agents", {}), ("users", {"role": "viewer"}), ("integrations", {k: v for k, v in integration(gw).items() if k != "name"})):
        name = next(NAMES)
        first = gw.api("POST", f"/{path}", {**body, "name": name})
        r = gw.request("POST", f"/api/v1/{path}", {**body, "name": name})
        assert r.status == 409 and name in r.json()["error"]["message"] and r.json()["error"]["code"] == "conflict"
        for good in ("a", "A.b-c_d", "_x", "x" * 63, "0"):
            r = gw.request("POST", f"/api/v1/{path}", {**body, "name": good + (name if len(good) < 60 else "")})
            assert r.status == 201, r
        for bad in ("", "-x", ".x", "a b", "a/b", "ä", "a\n", "x" * 64, "a:b"):
            assert gw.request("POST", f"/api/v1/{path}", {**body, "name": bad}).status == 400, bad
        if path != "users":
            assert gw.api("GET", f"/{path}/{name}") == gw.api("GET", f"/{path}/{first['id']}") | {}
            assert gw.request("GET", f"/api/v1/{path}/{name}x").status == 404


def test_integrations(gw, key):
    good = integration(gw)
    for change, text in [({"connection_type": "oracle"}, "is not one of"), ({"agent": "nobody"}, "no agent"),
                         ({"credential": {"type": "FILE"}}, "file_path"), ({"credential": {"type": "ENV_VAR"}}, "env_var_name"),
                         ({"credential": {"type": "FILE", "file_path": "relative"}}, "file_path"),
                         ({"credential": {"type": "ENV_VAR", "env_var_name": "PATH"}}, "env_var_name"),
                         ({"credential": {"type": "VAULT"}}, "credential")]:
        r = gw.request("POST", "/api/v1/integrations", {**good, **change})
        assert r.status in (400, 404, 422) and text in r.json()["error"]["message"], (change, r)
    doc = gw.api("POST", "/integrations", good)
    assert doc["agent"] == key.agent and doc["credential"] == good["credential"]
    assert doc in gw.api("GET", "/integrations")["items"]
    op = gw.submit("query", {"sql": "SELECT 1"}, integration=doc["name"])
    assert gw.operation(op)["integration_name"] == doc["name"]
    gw.api("DELETE", f"/integrations/{doc['name']}")
    assert gw.request("GET", f"/api/v1/integrations/{doc['id']}").status == 404
    assert gw.operation(op)["integration"] == doc["id"], "operations outlive it"


def test_users_and_tokens(gw):
    u = gw.api("POST", "/users", {"name": next(NAMES), "role": "operator"})
    assert u in gw.api("GET", "/users")["items"]
    tokens = [gw.api("POST", "/tokens", {"user": who, "name": "t"})["token"] for who in (u["id"], u["name"])]
    who = gw.api("GET", "/whoami", token=tokens[0])
    assert (who["user"], who["name"], who["role"], who["account_name"]) == (u["id"], u["name"], "operator", "default")
    me = gw.api("GET", "/whoami")
    r = gw.request("DELETE", f"/api/v1/users/{me['user']}")
    assert r.status == 409 and "itself" in r.json()["error"]["message"]
    gw.api("DELETE", f"/users/{u['id']}")
    assert [gw.request("GET", "/api/v1/whoami", token=t).status for t in tokens] == [401, 401]
    assert gw.request("POST", "/api/v1/tokens", {"user": u["id"]}).status == 404
    assert u["id"] not in {t["user"] for t in gw.api("GET", "/tokens")["items"]}


def test_agent_delete(gw):
    key = gw.agent(name := next(NAMES))
    i = gw.api("POST", "/integrations", {**integration(gw), "agent": name})
    agent = Instance(gw, key, slots=2)
    agent.connect()
    ops = [gw.submit("health", agent=name) for _ in range(4)]
    assert len(agent.exchange()["leases"]) == 2
    for query in ("", "?force=false"):
        r = gw.request("DELETE", f"/api/v1/agents/{name}{query}")
        assert r.status == 409 and "force=true" in r.json()["error"]["hint"]
    assert gw.request("DELETE", f"/api/v1/agents/{name}?force=true").status == 200
    for op in ops:
        doc = gw.operation(op)
        assert doc["state"] == "cancelled" and doc["error"]["code"] == "cancelled" and doc["agent"] == key.agent
    assert gw.request("GET", f"/api/v1/agents/{key.agent}").status == 404
    assert gw.request("GET", f"/api/v1/integrations/{i['id']}").status == 404
    assert gw.request("DELETE", f"/api/v1/keys/{key.id}").status == 404
    agent.exchange(expect=401)
    assert gw.api("POST", "/agents", {"name": name})["enabled"] is False, "the name is free again"


def test_metrics(gw, key, agent):
    finished(gw, agent)
    text = gw.request("GET", "/metrics").text
    for line in text.splitlines():
        assert line.startswith("# ") or len(line.rsplit(" ", 1)) == 2 and float(line.rsplit(" ", 1)[1]) >= 0, line
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    for name in ("operations_submitted_total", "leases_total", "results_total", "exchanges_total", "commits_total", "authentication_failures_total",
                 'operations_finished_total{type="health",state="succeeded"}', "connected_instances"):
        assert float(values[f"postern_gateway_{name}"]) > 0, name
    assert 'postern_gateway_queued_operations{agent="warehouse"}' in values


def test_owner_token_file(stack):
    """The token in the file is valid after a start, and the only one from there."""
    gw = stack.gateway()
    other = gw.api("POST", "/tokens", {"user": "owner"})["token"]
    old, gw.token = gw.token, "ptt_" + "n" * 40
    for _ in range(2):
        gw.token_file.write_text(gw.token)
        gw.stop()
        gw.restart()
        assert [gw.request("GET", "/api/v1/whoami", token=t).status for t in (gw.token, old, other)] == [200, 401, 200]
    u = gw.api("POST", "/users", {"name": "second", "role": "owner"})
    second = gw.api("POST", "/tokens", {"user": u["id"]})["token"]
    gw.api("DELETE", f"/users/{gw.api('GET', '/whoami')['user']}", token=second)
    assert gw.request("GET", "/api/v1/whoami").status == 401
    gw.stop()
    gw.restart()
    assert gw.api("GET", "/whoami")["role"] == "owner"
    gw.stop()
    gw.token_file.write_text("short")
    with pytest.raises(AssertionError, match="fewer than 20 characters"):
        gw.restart()


# --- load

@pytest.mark.limit(400)
def test_load(stack):
    """16 clients submit while 4 instances work: every operation succeeds exactly once, no request fails."""
    gw = stack.gateway()
    key = gw.agent("warehouse")
    total, threads, done, errors = 2000, 16, {}, []
    lock = threading.Lock()
    finish = threading.Event()

    def submitter(n):
        client, ids = Instance(gw, key), []
        for m in range(total // threads):
            status, _, body = client.request("POST", "/api/v1/operations", json.dumps(
                {"agent": "warehouse", "type": "health", "input": {}, "idempotency_key": f"{n}-{m}"}), bearer(gw.token))
            assert status == 201, (status, body)
            ids.append(json.loads(body)["id"])
        return ids

    def instance():
        """One thread polls, three deliver; what is leased by answers to results is delivered, too."""
        me, work, have = Instance(gw, key, slots=18), [], {}
        ready = threading.Condition(lock)

        def took(leases):
            with lock:
                for x in leases:
                    k = (x["operation"], x["attempt"])
                    if k not in have and k not in done:
                        have[k] = x
                        work.append(x)
                ready.notify_all()

        def link():
            while not finish.is_set():
                with lock:
                    holding = [me.holds(x) for x in have.values()]
                answer = me.exchange(wait_ms=200, holding=holding)
                took(answer.get("leases", []))
                if answer.get("cancels"):
                    errors.append(("unexpected", answer))

        def deliver():
            while not finish.is_set():
                with lock:
                    if not work:
                        ready.wait(0.1)
                        continue
                    x = work.pop(0)
                body = b"[1]\n" * (20000 if int(x["operation"][-2:].encode().hex(), 16) % 50 == 0 else 1)
                code, answer = me.put(x, body, rows=1)
                k = (x["operation"], x["attempt"])
                with lock:
                    have.pop(k)
                    done[k] = done.get(k, 0) + 1
                if code != 200 or answer.get("duplicate"):
                    errors.append((code, answer))
                took(answer.get("leases", []))

        return [Held(link)] + [Held(deliver) for _ in range(3)]

    workers = [w for _ in range(4) for w in instance()]
    submitters = [Held(lambda n=n: submitter(n)) for n in range(threads)]
    ids = [i for s in submitters for i in s.result(300)]
    assert len(set(ids)) == total
    for i in ids:
        doc = gw.operation({"id": i}, wait=60)
        assert doc["state"] == "succeeded" and doc["attempt"] == 1, doc
        assert [e["event"] for e in doc["events"]] in (["accepted", "leased", "succeeded"], ["accepted", "leased", "started", "succeeded"])
    finish.set()
    for w in workers:
        w.result(30)
    assert not errors and len(done) == total and set(done.values()) == {1}
