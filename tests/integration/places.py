"""Places where `postern check` looks: a healthy one, and the means to break it for real (namespaces, mounts, control groups, a
name server, somebody who is no gateway)."""
import contextlib
import json
import os
import pathlib
import shlex
import socket
import struct
import threading

from harness import clean_env, free_port, run
from product import BIN
from web import Web

NAMES = ["environment", "filesystem", "identity", "cgroup", "dns", "proxy", "tls", "gateway", "clock", "token", "storage",
         "integrations", "metadata", "security", "agent"]
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all")


class Answer:
    """What a check said: .code, .doc, .checks by name."""

    def __init__(self, p):
        self.p, self.code, self.doc = p, p.returncode, json.loads(p.stdout)
        self.checks = {c["name"]: c for c in self.doc["checks"]}
        for c in self.doc["checks"]:
            assert set(c) == {"name", "status", "detail", "fix", "elapsed_ms"} and c["detail"] and "\n" not in c["detail"], c
            assert bool(c["fix"]) == (c["status"] in ("WARN", "FAIL")), c
        s = self.doc["summary"]
        for word, key in (("PASS", "passed"), ("WARN", "warnings"), ("FAIL", "failed"), ("SKIP", "skipped")):
            assert s[key] == len(self.named(word)), self.doc
        assert self.doc["ok"] == (s["failed"] == 0) and self.code == (0 if self.doc["ok"] else 1), (self.code, self.doc)

    def named(self, word):
        return [n for n, c in self.checks.items() if c["status"] == word]

    def fails(self, *names):
        """Exactly these fail; the detail and fix of the first as one text."""
        assert self.named("FAIL") == list(names), json.dumps(self.doc, indent=1)
        c = self.checks[names[0]]
        return f"{c['detail']} | {c['fix']}"

    def warns(self, name):
        c = self.checks[name]
        assert c["status"] == "WARN", c
        return f"{c['detail']} | {c['fix']}"

    def passes(self, name):
        c = self.checks[name]
        assert c["status"] == "PASS", c
        return c["detail"]

    def skips(self, name):
        c = self.checks[name]
        assert c["status"] == "SKIP", c
        return c["detail"]


class Place:
    """The settings of an agent that would work; change .env to break them."""

    def __init__(self, stack, gateway, key=None, name="place"):
        self.home = stack.home / name
        self.home.mkdir()
        self.gateway, self.key = gateway, key or gateway.agent(name)
        self.spool = self.home / "spool"
        self.spool.mkdir(mode=0o700)
        self.env = {"POSTERN_GATEWAY_URL": gateway.url, "POSTERN_TOKEN_FILE": str(self.key.file), "POSTERN_SPOOL_DIR": str(self.spool),
                    "POSTERN_LISTEN": f"127.0.0.1:{free_port()}", "POSTERN_CREDENTIAL_DIRS": str(stack.credentials)}
        if gateway.tls:
            self.env["POSTERN_CA_FILE"] = str(stack.ca.cert)

    def check(self, *flags, inside=(), metadata=False, text=False, **env):
        """Run it; env replaces settings (None: not set), inside is a command to run it by."""
        own = {k: v for k, v in {**self.env, **env}.items() if v is not None}
        flags = [*flags] if metadata or "--only" in flags else [*flags, "--skip", "metadata"]
        p = run(*inside, BIN, "check", *flags, *([] if text else ["-o", "json"]), env=clean_env(HOME=self.home, **own), check=False)
        return p if text else Answer(p)


def in_namespace(commands, *kinds):
    """Run what follows in namespaces of its own ("-m", "-n"), prepared by shell commands."""
    return ["unshare", *kinds, "sh", "-e", "-c", commands + '; exec "$@"', "sh"]


def with_mount(what, *then):
    return in_namespace(" && ".join([f"mount {what}", *then]), "-m")


def with_resolv_conf(path, text):
    pathlib.Path(path).write_text(text)
    return with_mount(f"--bind {shlex.quote(str(path))} /etc/resolv.conf")


@contextlib.contextmanager
def control_group(controller, **limits):
    """A control group; yields the command to run something in it."""
    root = pathlib.Path("/sys/fs/cgroup")
    v2 = (root / "cgroup.controllers").exists()
    group = (root if v2 else root / controller) / f"postern-check-{os.getpid()}"
    group.mkdir()
    try:
        for file, value in limits["v2" if v2 else "v1"].items():
            (group / file).write_text(str(value))
        yield ["sh", "-e", "-c", f'echo $$ >{group}/cgroup.procs; exec "$@"', "sh"]
    finally:
        group.rmdir()


def has_control_group(controller):
    root = pathlib.Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return os.access(root, os.W_OK) and controller in (root / "cgroup.subtree_control").read_text().split()
    return os.access(root / controller, os.W_OK)


class NameServer:
    """A server at 127.0.0.77:53 that knows no name, or with silent=True says nothing."""
    address = "127.0.0.77"

    def __init__(self, silent):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((self.address, 53))
        self.silent = silent
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                data, peer = self.sock.recvfrom(512)
                if not peer:
                    return
                if not self.silent:
                    self.sock.sendto(data[:2] + struct.pack(">HHHHH", 0x8183, 1, 0, 0, 0) + data[12:], peer)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread, which would keep the port
        self.sock.close()


def no_gateway(status, **headers):
    """Something else that answers where a gateway should: an ingress, a login page."""
    return Web(lambda r: (status, b"<html>Not here</html>", {"Content-Type": "text/html", **headers}))


def own_network():
    """May we make namespaces and mounts here?"""
    return os.getuid() == 0 and run("unshare", "-mn", "true", check=False).returncode == 0
