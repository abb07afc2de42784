"""Fixtures of the integration tests.

The tests drive the binary $POSTERN_BIN (default build/src/cmd/postern); tools/run-tests sets it.  Run some by hand with
  /usr/bin/python3 -m pytest tests/integration -k NAME

Session-wide, started when first used, shared by every test (so a test changes nothing that others see):
  ca            harness.CA: .cert is the file to trust, .issue(name) gives (cert, key)
  postgres      servers.Postgres with TLS; .connect_args(), .sql(), .activity(), .load_pgbench()
  tinyproxy, tinyproxy_auth, squid, squid_auth    servers.Proxy: .url, .saw(target), .refused()
  mitmproxy     servers.Mitmproxy: the same, and .ca
  swift         stores.Swift, an S3 server that checks signatures: .settings(bucket), .request(); has the bucket "work"
  origin, tls_origin    harness.Origin: .url, .port, .seen

For one test:
  home          a folder with a short path, removed after the test
  stack         product.Stack: starts gateways, agents, ctl and more servers, and stops them all, newest first
Use module_stack where the tests of a file share one gateway.

When a test fails, the report has what its processes logged during the test.  A test that
runs longer than 120 s fails; @pytest.mark.limit(seconds) changes that.
"""
import shutil

import pytest

import limit
from harness import CA, Process, new_home
from product import Stack
from servers import Mitmproxy, Postgres, Squid, Tinyproxy
from stores import Swift
from web import Origin

pytest_runtest_call = limit.hook(120)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    Process.started[:] = [p for p in Process.started if p.running]
    for p in Process.started:
        p.mark()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for p in Process.started:
            text = p.since_mark()
            if text:
                report.sections.append((f"log of {p.name} (pid {p.pid})", "\n".join(text.splitlines()[-60:])))


@pytest.fixture(scope="session")
def session_home():
    home = new_home()
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def home():
    home = new_home()
    yield home
    shutil.rmtree(home, ignore_errors=True)


def stopped(server):
    yield server
    server.stop()


@pytest.fixture(scope="session")
def ca(session_home):
    return CA(session_home / "ca")


@pytest.fixture(scope="session")
def postgres(session_home, ca):
    yield from stopped(Postgres(session_home, ca))


@pytest.fixture(scope="session")
def tinyproxy(session_home):
    yield from stopped(Tinyproxy(session_home, "tinyproxy"))


@pytest.fixture(scope="session")
def tinyproxy_auth(session_home):
    yield from stopped(Tinyproxy(session_home, "tinyproxy-auth", "ada", "s3cret-tiny"))


@pytest.fixture(scope="session")
def squid(session_home):
    yield from stopped(Squid(session_home, "squid"))


@pytest.fixture(scope="session")
def squid_auth(session_home):
    yield from stopped(Squid(session_home, "squid-auth", "ada", "s3cret-squid"))


@pytest.fixture(scope="session")
def mitmproxy(session_home, ca):
    yield from stopped(Mitmproxy(session_home, ca))


@pytest.fixture(scope="session")
def swift(session_home):
    server = Swift(session_home)
    server.request("PUT", "/work")
    yield from stopped(server)


@pytest.fixture(scope="session")
def origin():
    yield from stopped(Origin())


@pytest.fixture(scope="session")
def tls_origin(ca):
    yield from stopped(Origin(*ca.issue("origin")))


@pytest.fixture
def stack(home, ca):
    with Stack(home, ca) as s:
        yield s


@pytest.fixture(scope="module")
def module_stack(ca):
    home = new_home()
    with Stack(home, ca) as s:
        yield s
    shutil.rmtree(home, ignore_errors=True)
