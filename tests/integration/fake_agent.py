"""Agent instances made of nothing but HTTP requests, so that a test says every word of the agent API itself.

    agent = Instance(gw, gw.agent("warehouse"), slots=2)
    agent.exchange()                            # {"leases": [...], "cancels": [...], ...}
    waiting = agent.hold()                      # a long poll in a thread
    gw.submit("health", agent="warehouse")
    lease, = waiting.result(1)["leases"]
    assert agent.put(lease).status == 200       # its result
"""
import base64
import hashlib
import http.client
import json
import secrets
import threading
import time

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix):
    n = int(time.time() * 1000) << 80 | secrets.randbits(80)
    return f"{prefix}_" + "".join(ALPHABET[n >> shift & 31] for shift in range(125, -1, -5))


class Held:
    """A request in a thread.  result(timeout) gives its answer, or raises what it raised."""

    def __init__(self, call):
        self._answer = self._error = None
        self.took = None
        self._thread = threading.Thread(target=self._run, args=(call, time.monotonic()), daemon=True)
        self._thread.start()

    def _run(self, call, start):
        try:
            self._answer = call()
        except Exception as e:  # noqa: given to the caller of result()
            self._error = e
        self.took = time.monotonic() - start

    @property
    def waiting(self):
        return self._thread.is_alive()

    def result(self, timeout):
        self._thread.join(timeout)
        assert not self.waiting, f"no answer within {timeout} s"
        if self._error:
            raise self._error
        return self._answer


def head_of(instance, body=b"", status="succeeded", **more):
    """The head of a result, as an agent writes it."""
    head = {"instance": instance, "status": status, **more}
    if status != "succeeded":
        head.setdefault("error", {"code": "query_failed" if status == "failed" else status, "message": "by the fake agent"})
    if body:
        head.setdefault("body_format", "jsonl")
        head.setdefault("body_size", len(body))
        head.setdefault("bytes", len(body))
        head.setdefault("body_sha256", hashlib.sha256(body).hexdigest())
    return head


def small(lease, instance, body=b"", status="succeeded", attempt=None, **more):
    """A result as one of many (POST /agent/v1/results)."""
    doc = {"operation": lease["operation"], "attempt": attempt or lease["attempt"], "head": head_of(instance, body, status, **more)}
    return {**doc, "body": base64.b64encode(body).decode()} if body else doc


class Instance:
    """One connection per thread is kept open, as agents do."""

    def __init__(self, gateway, key, slots=18, types=None, id=None):
        self.gateway, self.key, self.slots, self.types = gateway, key, slots, types
        self.id = id or new_id("in")
        self._local = threading.local()

    def request(self, method, path, body=None, headers=None, timeout=70):
        """(status, headers, body).  On the kept connection; once more when the server had closed it."""
        headers = {"Authorization": "Basic " + base64.b64encode(":".join(self.key.basic).encode()).decode(), **(headers or {})}
        for attempt in (1, 2):
            c = getattr(self._local, "connection", None)
            fresh = c is None
            if fresh:
                c = self._local.connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=timeout)
            try:
                c.timeout = timeout
                c.request(method, path, body=body, headers=headers)
                r = c.getresponse()
                return r.status, r.headers, r.read()
            except (http.client.HTTPException, ConnectionError):
                self.close()
                if fresh or attempt == 2:
                    raise

    def close(self):
        c = getattr(self._local, "connection", None)
        if c:
            c.close()
        self._local.connection = None

    def said(self, wait_ms=0, holding=(), released=(), **more):
        doc = {"instance": self.id, "version": "fake", "hostname": "test", "slots": self.slots, "wait_ms": wait_ms,
               "holding": list(holding), "released": list(released), **more}
        if self.types is not None:
            doc["types"] = self.types
        return doc

    def exchange(self, wait_ms=0, expect=200, **said):
        status, _, body = self.request("POST", "/agent/v1/exchange", json.dumps(self.said(wait_ms, **said)),
                                       {"Content-Type": "application/json"})
        assert status == expect, (status, body)
        return json.loads(body)

    def connect(self, **said):
        """The first exchange of an instance is answered at once; the next ones wait."""
        return self.exchange(**said)

    def hold(self, wait_ms=40000, **said):
        return Held(lambda: self.exchange(wait_ms, **said))

    def holds(self, lease, state="running", started=True, **more):
        """A row of `holding`."""
        return {"operation": lease["operation"], "attempt": lease["attempt"], "state": state,
                **({"started_at": int(time.time() * 1000)} if started else {}), **more}

    def put_raw(self, operation, attempt, data, headers=None):
        return self.request("PUT", f"/agent/v1/operations/{operation}/attempts/{attempt}/result", data,
                            {"Content-Type": "application/vnd.postern.result", **(headers or {})})

    def put(self, lease, body=b"", status="succeeded", attempt=None, instance=None, **more):
        """Deliver a result; (status, document).  instance: that ran it, when it is not this one."""
        head = head_of(instance or self.id, body, status, **more)
        code, _, text = self.put_raw(lease["operation"], attempt or lease["attempt"], json.dumps(head).encode() + b"\n" + body)
        return code, json.loads(text)

    def post(self, *results, expect=200):
        """Deliver many small results; the answer's document."""
        status, _, text = self.request("POST", "/agent/v1/results", json.dumps({"instance": self.id, "results": list(results)}),
                                       {"Content-Type": "application/json"})
        assert status == expect, (status, text)
        return json.loads(text)
