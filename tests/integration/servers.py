"""Real servers that the tests start: PostgreSQL, tinyproxy, squid, mitmproxy.

Each is a Process with a free loopback port and its data below home.  Proxies share one interface:
  .url          "http://[user:password@]127.0.0.1:PORT", ready for HTTPS_PROXY
  .saw(target)  has this proxy passed something on to "127.0.0.1:PORT"?  Taken from the proxy's own log
  .refused()    how many requests it has refused for want of a password, by its own log (tinyproxy, squid)
"""
import contextlib
import functools
import glob
import os
import pathlib
import re
import shutil
import signal

import psycopg2

from harness import Process, can_connect, clean_env, give, retry_port, run, unprivileged


# --- PostgreSQL

@functools.cache
def pg_bin(program):
    """The newest installed PostgreSQL server's programs."""
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{program}"), key=lambda p: int(p.split("/")[4]))
    assert found, f"no /usr/lib/postgresql/*/bin/{program}: run 'tools/deps test'"
    return found[-1]


class Postgres(Process):
    """A PostgreSQL server with one database `test` and these users (all passwords: "secret of NAME"):
      app        owns the database
      reader     may connect, owns nothing
      tls_only   is refused without TLS (pg_hba.conf), if the server has TLS
    tls: True for a server certificate of `ca` (127.0.0.1, localhost), False for a server that does not know TLS."""

    def __init__(self, home, ca, tls=True, name="postgres"):
        self.home = pathlib.Path(home) / name
        self.home.mkdir()
        self.tls = tls
        user = unprivileged("postgres")
        give(self.home, user)
        as_user = {"user": user, "group": user, "extra_groups": []} if user else {}
        self.data = self.home / "data"
        run(pg_bin("initdb"), "-D", self.data, "-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "-E", "UTF8",
            "--locale=C.UTF-8", "--no-sync", cwd=self.home, **as_user)
        conf = ["fsync = off", "synchronous_commit = off", "full_page_writes = off", "listen_addresses = '127.0.0.1'",
                f"unix_socket_directories = '{self.home}'", "max_connections = 60", "shared_buffers = 64MB", "max_wal_size = 4GB",
                "log_connections = on", "log_line_prefix = '%m [%p] %u@%d %a '", "timezone = 'UTC'", "jit = off"]
        hba = ["local all all trust"]
        if tls:
            cert, key = ca.issue(name)
            for src, dst in ((cert, "server.crt"), (key, "server.key")):
                shutil.copy(src, self.home / dst)
                (self.home / dst).chmod(0o600)
                give(self.home / dst, user)
            conf += ["ssl = on", f"ssl_cert_file = '{self.home}/server.crt'", f"ssl_key_file = '{self.home}/server.key'"]
            hba += ["hostnossl all tls_only 127.0.0.1/32 reject"]
        hba += ["host all all 127.0.0.1/32 scram-sha-256"]
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as f:
            f.write("\n".join(conf) + "\n")
        (self.data / "pg_hba.conf").write_text("\n".join(hba) + "\n")
        self._name, self._user = name, user
        retry_port(self._start)
        for role in ("app", "reader", "tls_only"):
            self.sql(f"CREATE ROLE {role} LOGIN PASSWORD '{self.password(role)}'", dbname="postgres")
        self.sql("CREATE DATABASE test OWNER app", dbname="postgres")

    def _start(self, port):
        self.port = port
        super().__init__([pg_bin("postgres"), "-D", self.data, "-p", port], self.home.parent, self._name, user=self._user,
                         env=clean_env(HOME=self.home))
        self.until(lambda: "ready to accept connections" in self.text(), 30, "PostgreSQL accepts connections")

    @staticmethod
    def password(role):
        return f"secret of {role}"

    @contextlib.contextmanager
    def admin(self, dbname="test"):
        """A superuser's connection, by the Unix socket (works whatever the test did to passwords)."""
        c = psycopg2.connect(host=str(self.home), port=self.port, user="postgres", dbname=dbname, application_name="harness")
        c.autocommit = True
        try:
            yield c
        finally:
            c.close()

    def sql(self, text, args=None, dbname="test"):
        """Run as superuser; rows as a list of tuples, [] when the statement has none."""
        with self.admin(dbname) as c, c.cursor() as cur:
            cur.execute(text, args)
            return cur.fetchall() if cur.description else []

    def connect_args(self, user="app", **over):
        """The connect_args document of a self-hosted credential; over replaces members, None removes one."""
        args = {"host": "127.0.0.1", "port": self.port, "dbname": "test", "user": user, "password": self.password(user)}
        args.update(over)
        return {k: v for k, v in args.items() if v is not None}

    def activity(self, pattern="%"):
        """Statements that run now: [(pid, state, query)], without the harness's own."""
        return self.sql("SELECT pid, state, query FROM pg_stat_activity WHERE backend_type = 'client backend' AND query LIKE %s "
                        "AND application_name <> 'harness' AND state <> 'idle' ORDER BY pid", (pattern,), "postgres")

    def terminate(self, pattern="%"):
        """Cut the connections whose statement matches; returns how many."""
        return sum(self.sql("SELECT pg_terminate_backend(%s)", (pid,), "postgres")[0][0] for pid, _, _ in self.activity(pattern))

    def load_pgbench(self, scale=1):
        """pgbench -i as user app: tables pgbench_accounts (scale * 100,000 rows), _branches, _tellers, _history."""
        run(pg_bin("pgbench"), "-i", "-q", "-I", "dtGvp", "--unlogged-tables", "-s", scale, "-h", self.home, "-p", self.port,
            "-U", "app", "test", timeout=300)

    def crash(self):
        """What a killed server looks like to clients: immediate shutdown, connections cut."""
        return super().stop(signal.SIGQUIT)

    def stop(self, sig=signal.SIGINT, timeout=30):
        """Fast shutdown: does not wait for clients."""
        return super().stop(sig, timeout)


# --- proxies

class Proxy(Process):
    """Common part: address, optional user and password."""

    def __init__(self, home, name, user=None, password=None):
        self.home = pathlib.Path(home) / name
        self.home.mkdir()
        self.user, self.password, self._name = user, password, name
        retry_port(self._start)

    def _run(self, argv, env=None, account=None, timeout=20):
        Process.__init__(self, argv, self.home.parent, self._name, env=env, user=account)
        self.until(lambda: can_connect(self.port), timeout, f"{self._name} listens")

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self):
        return self.address if not self.user else f"http://{self.user}:{self.password}@127.0.0.1:{self.port}"

    def access_log(self):
        return self.text()

    def saw(self, target):
        return re.search(self.passed.format(target=re.escape(target)), self.access_log()) is not None


class Tinyproxy(Proxy):
    """Logs each request, and each connection it opens for one; a refusal is a request without the latter."""
    passed = r"opensock: opening connection to {target}\n"

    def refused(self):
        log = self.text()
        return log.count(": Request (") - log.count("opensock: opening connection to ")

    def _start(self, port):
        self.port = port
        auth = f"BasicAuth {self.user} {self.password}\n" if self.user else ""
        conf = self.home / "tinyproxy.conf"
        conf.write_text(f"Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 100\nLogLevel Info\n"
                        f"PidFile \"{self.home}/pid\"\n{auth}")
        self._run(["tinyproxy", "-d", "-c", conf])


class Squid(Proxy):
    """access.log has each request when it ends, cache.log each that was allowed when its connection is opened (a long poll
    is seen at once)."""
    passed = r"Find IP destination for: (?:http://)?{target}[/']"

    def refused(self):
        return self.access_log().count("TCP_DENIED/407")

    def _start(self, port):
        self.port = port
        user = unprivileged("proxy")
        give(self.home, user)
        auth = ""
        if self.user:
            hashed = run("openssl", "passwd", "-apr1", self.password).stdout.strip()
            (self.home / "passwords").write_text(f"{self.user}:{hashed}\n")
            helper = next(p for p in glob.glob("/usr/lib/squid/basic_ncsa_auth") + glob.glob("/usr/lib64/squid/basic_ncsa_auth"))
            auth = (f"auth_param basic program {helper} {self.home}/passwords\nauth_param basic children 1\n"
                    "acl known proxy_auth REQUIRED\nhttp_access deny !known\n")
        conf = self.home / "squid.conf"
        conf.write_text(
            f"http_port 127.0.0.1:{port}\n{auth}http_access allow all\ncache deny all\ncache_mem 8 MB\nmax_filedescriptors 1024\n"
            f"access_log stdio:{self.home}/access.log\ncache_log {self.home}/cache.log\n"
            f"pid_filename {self.home}/pid\ncoredump_dir {self.home}\npinger_enable off\nshutdown_lifetime 0 seconds\n"
            f"visible_hostname localhost\nnetdb_filename none\n"
            f"cache_effective_user {user or 'proxy'}\ndebug_options ALL,1 44,2\n")
        self._run(["squid", "-N", "-f", conf, "-n", f"postern{os.getpid()}"], account=user)

    def access_log(self):
        return "".join(p.read_text(errors="replace") for n in ("access.log", "cache.log") if (p := self.home / n).exists())


class Mitmproxy(Proxy):
    """A proxy that opens TLS: clients must trust .ca.  Upstream it trusts `upstream_ca`."""
    passed = r"(?:GET|HEAD|POST|PUT|DELETE|PATCH) https?://{target}/"

    def __init__(self, home, upstream_ca, name="mitmproxy"):
        self.upstream_ca = upstream_ca
        super().__init__(home, name)

    @property
    def ca(self):
        return self.home / "mitmproxy-ca-cert.pem"

    def _start(self, port):
        self.port = port
        self._run(["mitmdump", "--listen-host", "127.0.0.1", "-p", port, "--set", f"confdir={self.home}",
                   "--set", "flow_detail=1", "--set", f"ssl_verify_upstream_trusted_ca={self.upstream_ca.cert}", "--set", "connection_strategy=lazy",
                   "--set", "stream_large_bodies=1m"], env=clean_env(HOME=self.home, PYTHONUNBUFFERED=1), timeout=60)
        self.until(self.ca.exists, 10, "its CA exists")
