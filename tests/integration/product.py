"""The product under test: gateways, agents and the client, as real processes of $POSTERN_BIN.

    def test_query(stack, postgres):
        gw = stack.gateway()
        agent = stack.agent(gw)                                   # made, enabled, linked
        gw.integration("sales", agent.key, "postgres", postgres.connect_args())
        op = gw.run("query", {"sql": "SELECT 1"}, integration="sales")
        assert op["state"] == "succeeded" and gw.rows(op) == [[1]]

A Stack stops everything it started, newest first, and then fails the test when a sanitizer has complained in a log.
Flags are given as on the command line: stack.gateway("--log-level", "debug"); the flags set here may be given again (the last
one counts).  Environment: env={"HTTPS_PROXY": squid.url}; nothing is inherited but PATH and sanitizer options.
"""
import json
import os
import pathlib
import re
import secrets

from harness import Process, clean_env, held_port, request, retry_port, run, wait_until
from servers import Mitmproxy, Postgres, Squid, Tinyproxy
from web import Origin

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("POSTERN_BIN", ROOT / "build/src/cmd/postern")).absolute()
COMPLAINTS = re.compile(r"ERROR: (?:Address|Leak|Thread)Sanitizer|WARNING: ThreadSanitizer|runtime error:|Assertion .* failed")


def sanitized():
    """Is it a sanitizer build?  Its memory and speed say nothing about the product."""
    return re.search(rb"__(asan|tsan|ubsan)_", BIN.read_bytes()) is not None


def write_private(path, text):
    path.touch(mode=0o600)
    path.write_text(text)
    return path


class Key:
    """A key of an agent; .file is its --token-file."""

    def __init__(self, agent, doc, path):
        self.agent, self.id, self.secret = agent, doc["key_id"], doc["key_secret"]
        self.basic = (self.id, self.secret)
        self.file = write_private(path, json.dumps({"key_id": self.id, "key_secret": self.secret}))


class Api:
    """The client API of a gateway, wherever it runs.  Needs .url, .token (the owner's), .ca_file and .home (for token files of keys)."""

    def request(self, method, path, body=None, token="", **kw):
        """Any request.  token: "" is the owner's, None is none."""
        return request(method, self.url + path, body, token=self.token if token == "" else token, ca=self.ca_file, **kw)

    def api(self, method, path, body=None, **kw):
        """A client API request that must succeed; the answer's document."""
        r = self.request(method, "/api/v1" + path, body, **kw)
        assert r.status < 300, f"{method} {path}: {r}"
        return r.json() if r.body else None

    # --- shortcuts
    def agent(self, name="warehouse", enable=True):
        """Make an agent with one key; returns the Key (.agent is its id)."""
        doc = self.api("POST", "/agents", {"name": name})
        if enable:
            self.api("POST", f"/agents/{doc['id']}/enable")
        return self.key(doc["id"])

    def key(self, agent, name="test"):
        doc = self.api("POST", f"/agents/{agent}/keys", {"name": name})
        return Key(agent, doc, self.home / f"{doc['key_id']}.json")

    def submit(self, type, input=None, **fields):
        """Submit an operation; its document.  fields: agent, integration, limits, priority, deadline_s, …"""
        return self.api("POST", "/operations", {"type": type, "input": input or {}, **fields})

    def operation(self, op, wait=0):
        return self.api("GET", f"/operations/{op['id']}" + (f"?wait={wait}" if wait else ""), timeout=wait + 30)

    def wait(self, op, state=None, timeout=60):
        """Wait for a state, or without one for any terminal state; the operation's document."""
        def there():
            doc = self.operation(op, wait=0 if state else min(timeout, 30))
            return doc if doc["state"] == state or (not state and doc.get("finished_at")) else None

        return wait_until(there, timeout, f"operation {op['id']} is {state or 'terminal'}", every=0.05)

    def run(self, type, input=None, timeout=60, **fields):
        """Submit and wait for the end."""
        return self.wait(self.submit(type, input, **fields), timeout=timeout)

    def rows(self, op):
        """The result's rows (JSON Lines), all in memory; for large ones use request(..., on_data=…)."""
        r = self.request("GET", f"/api/v1/operations/{op['id']}/result")
        assert r.status == 200, r
        return [json.loads(line) for line in r.body.split(b"\n")[:-1]]  # str.splitlines() ends lines at U+2028 too


class Gateway(Api, Process):
    """`postern gateway` with a SQLite database in its own folder.  .token is the owner's API token, .token_file holds it."""

    def __init__(self, stack, *flags, tls=False, name="gateway", env=None):
        self.stack, self.flags, self.tls, self._name, self._env = stack, flags, tls, name, env or {}
        self.home = stack.home / name
        self.home.mkdir()
        self.token = f"pts_{secrets.token_urlsafe(32)}"
        self.token_file = write_private(self.home / "owner-token", self.token + "\n")
        self.ca_file = stack.ca.cert if tls else None
        self._held = held_port()  # nobody else may have the port while it is away
        self.port = self._held.getsockname()[1]
        self.start()

    def start(self):
        """Start it (again: agents find it where it was)."""
        port_file = self.home / "port"
        port_file.unlink(missing_ok=True)
        argv = [BIN, "gateway", "--listen", f"127.0.0.1:{self.port}", "--port-file", port_file, "--database",
                f"sqlite:{self.home}/gateway.db", "--blob-dir", self.home / "blobs", "--owner-token-file", self.token_file]
        if self.tls:
            cert, key = self.stack.ca.issue(self._name)
            argv += ["--tls-cert", cert, "--tls-key", key]
        Process.__init__(self, [*argv, *self.flags], self.home, self._name, env=clean_env(HOME=self.home, **self._env))
        self.until(lambda: port_file.exists() and port_file.read_text().strip() == str(self.port), 30, "the port file is written")
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"
        self.until(self._ready, 30, "GET /readyz answers 200")

    def _ready(self):
        try:
            return self.request("GET", "/readyz", token=None).status == 200
        except OSError:
            return False

    def restart(self):
        """Start it again on the same port, after stop(), kill() or a crash."""
        assert not self.running
        self.start()

    def integration(self, name, key, connection_type, connect_args):
        """Make an integration whose secret is a file in the folder that agents of this stack may read."""
        path = write_private(self.stack.credentials / f"{name}.json", json.dumps({"connect_args": connect_args}))
        return self.api("POST", "/integrations", {"name": name, "connection_type": connection_type, "agent": key.agent,
                                                  "credential": {"type": "FILE", "file_path": str(path)}})


class Agent(Process):
    """`postern agent`.  .key is its Key, .port its local port, .local(method, path) asks its local endpoints."""

    def __init__(self, stack, gateway, *flags, key=None, name="agent", env=None, gateway_url=None, linked=True):
        self.stack, self.gateway, self.flags, self._name, self._env = stack, gateway, flags, name, env or {}
        self.home = stack.home / name
        self.home.mkdir()
        self.key = key or gateway.agent(name)
        self.gateway_url = gateway_url or gateway.url
        self.start(linked)

    def start(self, linked=True):
        """Start it (again, with the same spool).  linked: wait until it has exchanged with the gateway."""
        retry_port(self._start)
        if linked:
            self.until(self.ready, 30, "GET /readyz answers 200")

    def _start(self, port):
        self.port = port
        argv = [BIN, "agent", "--gateway-url", self.gateway_url, "--token-file", self.key.file, "--listen", f"127.0.0.1:{port}",
                "--spool-dir", self.home / "spool", "--credential-dirs", self.stack.credentials]
        if self.gateway.tls and "--ca-file" not in self.flags and "POSTERN_CA_FILE" not in self._env:
            argv += ["--ca-file", self.stack.ca.cert]
        Process.__init__(self, [*argv, *self.flags], self.home, self._name, env=clean_env(HOME=self.home, **self._env))
        self.until(self.live, 20, "GET /livez answers 200")

    def local(self, method, path, body=None, **kw):
        return request(method, f"http://127.0.0.1:{self.port}{path}", body, **kw)

    def _is(self, path):
        try:
            return self.local("GET", path, timeout=5).status == 200
        except OSError:
            return False

    def live(self):
        return self._is("/livez")

    def ready(self):
        return self._is("/readyz")


class Stack:
    """Everything one test (or file) starts."""

    def __init__(self, home, ca):
        self.home, self.ca, self.servers = pathlib.Path(home), ca, []
        self.credentials = self.home / "credentials"
        self.credentials.mkdir()

    def __enter__(self):
        return self

    def __exit__(self, exc_type, *rest):
        problems = []
        for server in reversed(self.servers):
            try:
                server.stop()
            except AssertionError as e:
                problems.append(str(e))
            if isinstance(server, (Gateway, Agent)) and COMPLAINTS.search(server.text()):
                problems.append(f"a sanitizer or assertion complained in {server.name}:\n{server.tail(80)}")
        assert exc_type or not problems, "\n".join(problems)

    def add(self, server):
        self.servers.append(server)
        return server

    def gateway(self, *flags, **kw):
        return self.add(Gateway(self, *flags, **kw))

    def agent(self, gateway, *flags, **kw):
        return self.add(Agent(self, gateway, *flags, **kw))

    def postgres(self, tls=True, name="postgres"):
        return self.add(Postgres(self.home, self.ca, tls, name))

    def tinyproxy(self, user=None, password=None, name="tinyproxy"):
        return self.add(Tinyproxy(self.home, name, user, password))

    def squid(self, user=None, password=None, name="squid"):
        return self.add(Squid(self.home, name, user, password))

    def mitmproxy(self, name="mitmproxy"):
        return self.add(Mitmproxy(self.home, self.ca, name))

    def origin(self, tls=False):
        return self.add(Origin(*(self.ca.issue("origin") if tls else ())))

    def ctl(self, gateway, *argv, token_file=None, env=None, **kw):
        """Run `postern ctl ARGV…` as the owner; a CompletedProcess.  check=False allows failure."""
        own = {"POSTERN_GATEWAY_URL": gateway.url, "POSTERN_API_TOKEN_FILE": token_file or gateway.token_file,
               "POSTERN_CTL_CONFIG": self.home / "ctl.json", "HOME": self.home}
        if gateway.tls:
            own["POSTERN_CA_FILE"] = self.ca.cert
        return run(BIN, "ctl", *argv, env=clean_env(**{**own, **(env or {})}), **kw)

    def ctl_json(self, gateway, *argv, **kw):
        return json.loads(self.ctl(gateway, *argv, "-o", "json", **kw).stdout)
