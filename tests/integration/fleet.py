"""Many agent instances at once, for tests and measurements: each holds an exchange open on a connection of its own, as the link of a
real agent does, and takes leases without running them.

    with Fleet(gw, keys, 1000) as fleet:
        fleet.wait_up(10)
        operation, attempt, link = fleet.lease(op["id"])
        fleet.deliver(op["id"])

One thread serves all links.  After a failure a link backs off with full jitter and asks with wait_ms 0; an answer makes it count as up.
bench/idle.c is the same for 19,000.
"""
import base64
import json
import random
import secrets
import select
import socket
import ssl
import threading
import time

from harness import request, wait_until

TYPES = ["query", "network.tcp", "network.dns", "network.tls", "network.http", "http.request", "health", "logs", "metrics"]


class Link:
    def __init__(self, key):
        self.id = "in_" + "".join(secrets.choice("0123456789abcdefghjkmnpqrstvwxyz") for _ in range(26))
        self.id = self.id[:3] + "01" + self.id[5:]
        self.key, self.sock, self.up, self.due, self.failures, self.got = key, None, False, 0.0, 0, b""
        self.auth = base64.b64encode(":".join(key.basic).encode()).decode()
        self.holding = []


class Fleet:
    def __init__(self, gateway, keys, count, wait_ms=40000):
        self.gateway, self.wait_ms = gateway, wait_ms
        self.links = [Link(keys[i % len(keys)]) for i in range(count)]
        self.leases, self.refused, self.error = {}, [], None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._epoll, self._by_fd = select.epoll(), {}
        self._context = ssl.create_default_context(cafile=gateway.ca_file) if gateway.tls else None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        self._thread.join()
        for link in self.links:
            self._close(link)
        self._epoll.close()
        assert exc[0] or not self.error, self.error

    # --- for the test's thread

    def up(self):
        return sum(link.up for link in self.links)

    def wait_up(self, seconds):
        """Wait until every link is up; the seconds it took."""
        begin = time.monotonic()
        wait_until(lambda: self.error or self.up() == len(self.links), seconds, f"all {len(self.links)} links are up")
        assert not self.error, self.error
        return time.monotonic() - begin

    def lease(self, operation, timeout=10):
        """Wait for its lease: (link, attempt)."""
        return wait_until(lambda: self.leases.get(operation), timeout, f"{operation} is leased")

    def deliver(self, operation, body=b""):
        """Deliver its result: the answer."""
        link, attempt = self.lease(operation)
        head = {"instance": link.id, "status": "succeeded", "document": {"ok": True}, "started_at": int(time.time() * 1000),
                "finished_at": int(time.time() * 1000)}
        if body:
            head.update(body_format="jsonl", body_encoding="identity", body_size=len(body), bytes=len(body))
        r = request("PUT", f"{self.gateway.url}/agent/v1/operations/{operation}/attempts/{attempt}/result",
                    json.dumps(head).encode() + b"\n" + body, {"Content-Type": "application/vnd.postern.result"},
                    basic=link.key.basic, ca=self.gateway.ca_file)
        with self._lock:
            link.holding = [h for h in link.holding if h["operation"] != operation]
        return r

    # --- the thread

    def _run(self):
        try:
            while not self._stop.is_set():
                now = time.monotonic()
                for link in self.links:
                    if not link.sock and link.due <= now:
                        self._dial(link)
                for fd, _ in self._epoll.poll(0.01):
                    self._readable(self._by_fd[fd])
        except Exception as e:
            self.error = e
            raise

    def _close(self, link):
        if link.sock:
            fd = link.sock.fileno()
            self._epoll.unregister(fd)
            del self._by_fd[fd]
            link.sock.close()
        link.sock, link.got = None, b""

    def _failed(self, link, at_least=0.0):
        self._close(link)
        link.up = False
        link.due = time.monotonic() + max(at_least, random.random() * min(30, 0.25 * 2 ** link.failures))
        link.failures += 1

    def _dial(self, link):
        try:
            sock = socket.create_connection(("127.0.0.1", self.gateway.port), 5)
            if self._context:
                sock = self._context.wrap_socket(sock, server_hostname="localhost")
        except OSError:
            self._failed(link)
            return
        sock.setblocking(False)
        link.sock = sock
        self._by_fd[sock.fileno()] = link
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self._ask(link)

    def _ask(self, link):
        with self._lock:
            body = json.dumps({"instance": link.id, "version": "0.1.0", "hostname": "warehouse-agent-5d8f7c9b6d-x2x4z", "slots": 18,
                               "wait_ms": self.wait_ms if link.up else 0, "types": TYPES, "holding": link.holding})
        try:
            link.sock.send(f"POST /agent/v1/exchange HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {link.auth}\r\n"
                           f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        except OSError:
            self._failed(link)

    def _readable(self, link):
        while True:
            try:
                data = link.sock.recv(1 << 16)
            except (BlockingIOError, ssl.SSLWantReadError):
                break
            except OSError:
                data = b""
            if not data:
                self._failed(link)
                return
            link.got += data
        head, sep, body = link.got.partition(b"\r\n\r\n")
        if not sep:
            return
        lines = head.decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        if len(body) < int(headers["content-length"]):
            return
        link.got = b""
        if lines[0].split()[1] != "200":
            self.refused.append((lines[0], headers))
            self._failed(link, float(headers.get("retry-after", 0)))
            return
        for lease in json.loads(body).get("leases", []):
            with self._lock:
                link.holding.append({"operation": lease["operation"], "attempt": lease["attempt"], "state": "running"})
            self.leases[lease["operation"]] = (link, lease["attempt"])
        link.up, link.failures = True, 0
        if headers.get("connection") == "close":
            self._close(link)
            link.due = 0.0
        else:
            self._ask(link)
