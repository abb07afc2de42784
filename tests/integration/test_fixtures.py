"""The harness checks itself: each real server does what the product tests rely on, and each claim can fail.

The proxies are driven with curl here, so that a product test which fails behind the same proxy points at the product.
"""
import http.client
import os
import re
import signal
import ssl
import subprocess
import sys

import psycopg2
import pytest

from harness import Process, clean_env, peak_rss, proc_status, raw_request, request, run, wait_until


def curl(*argv, check=True):
    return run("curl", "-sS", "--max-time", "20", "--noproxy", "", *argv, env=clean_env(HOME="/nonexistent"), check=check)


def host(origin):
    return f"127.0.0.1:{origin.port}"


# --- harness

def test_wait_until_fails_with_what_it_waited_for():
    with pytest.raises(AssertionError, match="not within 0.05 s: pigs fly"):
        wait_until(lambda: False, timeout=0.05, what="pigs fly")
    assert wait_until(lambda: 42) == 42


def test_process_is_stopped_by_pid_and_its_end_is_noticed(home):
    p = Process([sys.executable, "-c", "print('hello', flush=True); import time; time.sleep(60)"], home, "sleeper")
    p.wait_log("hello")
    assert p.stop() == -signal.SIGTERM and not os.path.exists(f"/proc/{p.pid}")
    dead = Process([sys.executable, "-c", "raise SystemExit('no luck')"], home, "dead")
    with pytest.raises(AssertionError, match="dead ended with 1 before .*\n.*no luck"):
        dead.wait_log("never")


def test_process_that_ignores_sigterm_is_killed_and_reported(home):
    p = Process([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"],
                home, "stubborn")
    p.wait_log("up")
    with pytest.raises(AssertionError, match="stubborn did not end within 0.2 s"):
        p.stop(timeout=0.2)
    assert not p.running


def test_servers_die_with_their_parent(home):
    code = (f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); from harness import Process; import os\n"
            f"p = Process(['sleep', '60'], {str(home)!r}, 'child'); print(p.pid, flush=True); os.kill(os.getpid(), 9)")
    pid = int(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True).stdout)

    def gone():
        try:
            return proc_status(pid, "Threads") and " Z" in open(f"/proc/{pid}/stat").read()
        except FileNotFoundError:
            return True

    wait_until(gone, 5, "the orphan is gone")


def test_peak_rss_remembers_what_was_freed(home):
    p = Process([sys.executable, "-c", "x = bytearray(64 << 20); del x; print('freed', flush=True); import time; time.sleep(60)"], home, "hog")
    p.wait_log("freed")
    assert peak_rss(p.pid) > 64 << 20 > proc_status(p.pid, "VmRSS")
    p.stop()


def test_environment_is_clean(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "POSTERN_SLOTS", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, "x")
    out = run(sys.executable, "-c", "import os; print(sorted(os.environ))", env=clean_env(POSTERN_LISTEN="y")).stdout
    assert "POSTERN_LISTEN" in out and "PATH" in out
    assert not any(n in out for n in ("PROXY", "proxy", "POSTERN_SLOTS", "SSL_CERT_FILE"))


# --- origin

def test_origin_echoes(origin, tls_origin, ca):
    r = request("POST", origin.url + "/a?b=c", {"n": 1}, token="t")
    assert r.status == 200 and r.json()["path"] == "/a?b=c" and r.json()["headers"]["Authorization"] == "Bearer t"
    assert request("GET", origin.url + "/status/503").status == 503
    size = []
    request("GET", tls_origin.url + "/bytes/300000", ca=ca.cert, on_data=lambda d: size.append(len(d)))
    assert sum(size) == 300000 and len(size) > 1
    with pytest.raises(OSError, match="certificate verify failed"):
        request("GET", tls_origin.url)
    assert b" 400 " in raw_request(origin.port, b"GET / NONSENSE\r\n\r\n")


# --- PostgreSQL

def connect(**args):
    return psycopg2.connect(connect_timeout=5, **args)


def test_postgres_passwords(postgres):
    connect(**postgres.connect_args()).close()
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        connect(**postgres.connect_args(password="wrong"))


def test_postgres_tls(postgres, ca, stack):
    verified = postgres.connect_args(user="tls_only", sslmode="verify-full", sslrootcert=str(ca.cert))
    with connect(**verified) as c, c.cursor() as cur:
        cur.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert cur.fetchone() == (True,)
    with pytest.raises(psycopg2.OperationalError, match="no encryption"):
        connect(**postgres.connect_args(user="tls_only", sslmode="disable"))
    with pytest.raises(psycopg2.OperationalError, match="certificate verify failed"):
        connect(**dict(verified, sslrootcert="/etc/ssl/certs/ca-certificates.crt"))
    plain = stack.postgres(tls=False, name="plain")
    connect(**plain.connect_args()).close()
    with pytest.raises(psycopg2.OperationalError, match="does not support SSL"):
        connect(**plain.connect_args(sslmode="require"))


def test_postgres_activity_shows_what_runs_and_terminate_cuts_it(postgres):
    c = connect(**postgres.connect_args(), async_=True)
    wait_until(lambda: c.poll() == psycopg2.extensions.POLL_OK, 5, "connected")
    assert postgres.activity("%pg_sleep(61)%") == []
    c.cursor().execute("SELECT pg_sleep(61)")
    wait_until(lambda: c.poll() == psycopg2.extensions.POLL_READ and postgres.activity("SELECT pg_sleep(61)"), 5, "the statement is seen")
    assert postgres.terminate("SELECT pg_sleep(61)") == 1
    wait_until(lambda: not postgres.activity("SELECT pg_sleep(61)"), 5, "the statement is gone")
    c.close()


def test_postgres_pgbench_data(stack):
    pg = stack.postgres()
    pg.load_pgbench(1)
    assert pg.sql("SELECT count(*), min(aid), max(aid) FROM pgbench_accounts") == [(100000, 1, 100000)]


def test_postgres_crash_cuts_connections(stack):
    pg = stack.postgres()
    c = connect(**pg.connect_args())
    pg.crash()
    with pytest.raises(psycopg2.OperationalError):
        c.cursor().execute("SELECT 1")


# --- proxies, each proven by its own log

@pytest.mark.parametrize("name", ["tinyproxy", "squid"])
def test_open_proxy(name, request, stack, ca):
    proxy = request.getfixturevalue(name)
    for where in (stack.origin(), stack.origin(tls=True)):
        assert not proxy.saw(host(where))
        out = curl("-x", proxy.url, "--cacert", ca.cert, f"{where.url}/through-{name}").stdout
        assert f"/through-{name}" in out and len(where.seen) == 1
        wait_until(lambda: proxy.saw(host(where)), 5, f"{name} has logged it")
    assert not proxy.saw("127.0.0.1:1") and proxy.refused() == 0


@pytest.mark.parametrize("name", ["tinyproxy_auth", "squid_auth"])
def test_proxy_with_password(name, request, stack, ca):
    proxy = request.getfixturevalue(name)
    where, before = stack.origin(tls=True), proxy.refused()
    for url, refused in ((proxy.address, 1), (proxy.url.replace(proxy.password, "wrong"), 2)):
        p = curl("-x", url, "--cacert", ca.cert, where.url, check=False)
        # tinyproxy answers 401, not 407, to a wrong password
        assert p.returncode == 56 and re.search(r"response 40[17]", p.stderr), p.stderr
        wait_until(lambda: proxy.refused() - before == refused, 5, f"{name} has logged the refusal")
    assert where.seen == [] and not proxy.saw(host(where))
    assert "/ok" in curl("-x", proxy.url, "--cacert", ca.cert, where.url + "/ok").stdout
    wait_until(lambda: proxy.saw(host(where)), 5, f"{name} has logged it")


def test_squid_logs_a_tunnel_while_it_is_open(squid, stack, ca):
    """A long poll must be seen in the log before it ends."""
    where = stack.origin(tls=True)
    c = http.client.HTTPSConnection("127.0.0.1", squid.port, context=ssl.create_default_context(cafile=ca.cert), timeout=10)
    c.set_tunnel("127.0.0.1", where.port)
    c.request("GET", "/")
    assert c.getresponse().status == 200
    wait_until(lambda: squid.saw(host(where)), 5, "the open tunnel is logged")
    c.close()


def test_tls_inspecting_proxy(mitmproxy, stack, ca):
    where = stack.origin(tls=True)
    p = curl("-x", mitmproxy.url, "--cacert", ca.cert, where.url + "/inspected", check=False)
    assert p.returncode == 60, p.stderr  # the real CA does not help: the proxy's own one signs
    assert where.seen == [] and not mitmproxy.saw(host(where))
    p = curl("-v", "-x", mitmproxy.url, "--cacert", mitmproxy.ca, where.url + "/inspected")
    assert "/inspected" in p.stdout and "issuer: CN=mitmproxy" in p.stderr
    wait_until(lambda: mitmproxy.saw(host(where)), 5, "mitmproxy has logged it")
