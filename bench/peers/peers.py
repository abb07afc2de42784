"""Durable queues beside a gateway, in the same run: each server with an fsync before its confirm, on loopback, in its own folder.

    python3 bench/peers/peers.py BUILD [MESSAGES]        # alone; bench/run calls run()

RabbitMQ and Redis are Debian's.  Debian's nats-server (2.9) cannot sync each write (`sync_interval` came with 2.10), so a newer one
is built from the Go module proxy when a Go is at hand; without, JetStream is named as skipped.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/integration"))
from harness import Process, can_connect, clean_env, free_port, wait_until  # noqa: E402

NATS = "github.com/nats-io/nats-server/v2@v2.11.10"
MODES = {"128 connections, one under way on each": (128, 1), "one connection, 128 under way": (1, 128)}
PAYLOAD = 1024


class Skip(Exception):
    pass


class Redis(Process):
    """Redis Streams, the append-only file synced before each answer."""
    title = "Redis Streams, appendfsync always"

    def __init__(self, home, build):
        self.port = free_port()
        super().__init__(["redis-server", "--bind", "127.0.0.1", "--port", self.port, "--dir", home, "--appendonly", "yes",
                          "--appendfsync", "always", "--save", ""], home, "redis", env=clean_env())
        self.until(lambda: can_connect(self.port), 30, "redis listens")


class Nats(Process):
    """JetStream, the file store synced before each acknowledgement."""
    title = "NATS JetStream, sync_interval always"

    def __init__(self, home, build):
        binary = build / "peers/nats-server"
        if not binary.exists():
            if not shutil.which("go"):
                raise Skip("Debian's nats-server has no sync_interval, and there is no Go to build a newer one")
            env = {**os.environ, "GOBIN": str(binary.parent), "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
            built = subprocess.run(["go", "install", NATS], env=env, capture_output=True, text=True)
            if built.returncode:
                raise Skip(f"go install {NATS} failed: {built.stderr.strip().splitlines()[-1]}")
        self.port = free_port()
        conf = home / "nats.conf"
        conf.write_text(f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{home}/js", sync_interval: always }}\n')
        super().__init__([binary, "-c", conf], home, "nats", env=clean_env())
        self.until(lambda: can_connect(self.port), 30, "nats listens")


class RabbitMQ(Process):
    """A durable queue of persistent messages; its store syncs before it confirms."""
    title = "RabbitMQ, durable queue, confirms"

    def __init__(self, home, build):
        self.port, dist, epmd = free_port(), free_port(), free_port()
        self.epmd_env = clean_env(HOME=home, ERL_EPMD_PORT=epmd, ERL_EPMD_ADDRESS="127.0.0.1")
        (home / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\ndisk_free_limit.absolute = 50MB\n")
        (home / "plugins").write_text("[].\n")
        env = {**self.epmd_env, "RABBITMQ_NODENAME": f"bench{self.port}@localhost", "RABBITMQ_MNESIA_BASE": home,
               "RABBITMQ_LOG_BASE": home, "RABBITMQ_LOGS": "-", "RABBITMQ_DIST_PORT": dist, "RABBITMQ_CONFIG_FILE": home / "rabbitmq.conf",
               "RABBITMQ_ENABLED_PLUGINS_FILE": home / "plugins", "RABBITMQ_CONF_ENV_FILE": "/dev/null",
               "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}"}
        super().__init__(["/usr/lib/rabbitmq/bin/rabbitmq-server"], home, "rabbitmq", env=clean_env(**env))
        self.until(lambda: can_connect(self.port), 90, "rabbitmq listens")

    def stop(self):
        super().stop()
        wait_until(lambda: subprocess.run(["epmd", "-kill"], env=self.epmd_env,
                                          capture_output=True).returncode == 0, 20, "the port mapper ends")


def run(build, messages):
    """{server: {mode: figures of bench_load's kind}, or {"skipped": why}}"""
    results = {}
    for server, program in ((RabbitMQ, "peer_rabbitmq"), (Nats, "peer_nats"), (Redis, "peer_redis")):
        figures = results[server.title] = {}
        try:
            if subprocess.run(["ninja", "-C", build, f"bench/{program}"], capture_output=True).returncode:
                raise Skip("its client library is not installed: tools/deps bench")
            for mode, (connections, window) in MODES.items():
                figures[mode] = measure(server, build, program, messages, connections, window)
        except Skip as why:
            figures["skipped"] = str(why)
    return results


def measure(server, build, program, messages, connections, window):
    """A fresh server, one load."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="postern-bench-peer-"))
    try:
        peer = server(home, build)
        try:
            out = subprocess.run([build / "bench" / program, *map(str, (peer.port, messages, connections, window, PAYLOAD))],
                                 capture_output=True, text=True, timeout=600)
        finally:
            peer.stop()
        if out.returncode:
            raise RuntimeError(f"{program}: {out.stderr.strip()}")
        return json.loads(out.stdout)
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    for name, modes in run(pathlib.Path(sys.argv[1]).absolute(), int(sys.argv[2]) if len(sys.argv) > 2 else 40000).items():
        for mode, figures in modes.items():
            print(f"{name}; {mode}: {json.dumps(figures)}")
