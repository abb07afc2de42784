"""How a `query` ends that does not succeed: stopped by a person, a limit or a deadline, refused by the source, cut off with it.
Each end has a structured error of its own; no secret shows up anywhere."""
import contextlib
import json
import os
import re
import signal
import socket
import time

import pytest

from data_path import DataPath
from harness import wait_until
from product import write_private

CANARY = "canary-Zq8vR2"  # part of every secret here
GONE_S = 2  # a stopped statement has left the server after so long


@pytest.fixture(scope="module")
def silent():
    """A server that accepts connections and says nothing: its port."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        yield s.getsockname()[1]


@pytest.fixture(scope="module")
def refused():
    """A port that is taken and refuses connections."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        yield s.getsockname()[1]


class Env(DataPath):
    def __init__(self, stack):
        good = {"host": "127.0.0.1", "dbname": "test", "user": "canary", "password": CANARY}
        variables = {"POSTERN_CREDENTIAL_GOOD": "", "POSTERN_CREDENTIAL_BAD": CANARY, "UNRELATED": CANARY}
        self.plain = stack.postgres(tls=False, name="plain")
        variables["POSTERN_CREDENTIAL_GOOD"] = json.dumps({"connect_args": {**good, "port": self.plain.port, "sslmode": "disable"}})
        super().__init__(stack, "--log-level", "debug", env=variables)
        for pg in (self.pg, self.plain):
            pg.sql(f"CREATE ROLE canary LOGIN PASSWORD '{CANARY}'")
        self.args = {**good, "port": self.pg.port}

    def add(self, name, connection_type, credential):
        """An integration by what the agent finds: connect_args, the text of a secret, or a reference."""
        if isinstance(credential, dict) and "type" in credential:
            self.gw.api("POST", "/integrations", {"name": name, "connection_type": connection_type, "agent": self.agent.key.agent,
                                                  "credential": credential})
            return
        self.gw.integration(name, self.agent.key, connection_type, credential if isinstance(credential, dict) else {})
        if isinstance(credential, str):
            write_private(self.stack.credentials / f"{name}.json", credential)


@pytest.fixture(scope="module")
def env(module_stack):
    return Env(module_stack)


def check_error(op, state, code, native=None, retryable=False, message="", hint=None):
    e = op.get("error") or {}
    assert (op["state"], e.get("code"), e.get("native_code"), e.get("retryable")) == (state, code, native, retryable), op
    assert re.search(message, e["message"]) and re.search(hint or "", e.get("hint", "")), e
    assert not hint or e.get("hint"), e
    assert op["why"] and CANARY not in json.dumps(op)


# --- stopped

STATEMENTS = {  # marker: statement
    "waits": "SELECT pg_sleep(60) /* waits {} */",
    "computes": "SELECT count(*) FROM generate_series(1, 1000000000000) i /* computes {} */",
    "streams": "SELECT i, repeat('x', 100) FROM generate_series(1, 1000000000000) i /* streams {} */",
}


def runs(env, pattern):
    return env.pg.activity(f"%{pattern}%")


def submit_running(env, kind, name, **fields):
    """Submit the statement and wait until both the server and the gateway have it running."""
    op = env.submit(STATEMENTS[kind].format(name), **fields)
    wait_until(lambda: runs(env, f"{kind} {name}"), 5, "the statement runs")
    return op


@pytest.mark.parametrize("kind", STATEMENTS)
def test_cancel(env, kind):
    op = submit_running(env, kind, "cancel")
    env.gw.wait(op, "running", timeout=5)
    out = env.stack.ctl(env.gw, "operations", "cancel", op["id"], "--reason", "no longer wanted").stdout
    asked = time.monotonic()
    assert op["id"] in out
    wait_until(lambda: not runs(env, f"{kind} cancel"), GONE_S, "the statement is gone")
    op = env.gw.wait(op, timeout=10)
    assert time.monotonic() - asked < GONE_S + 1
    check_error(op, "cancelled", "cancelled", message="no longer wanted")
    assert [e["event"] for e in op["events"]] == ["accepted", "leased", "started", "cancel_requested", "cancelled"]
    assert "body" not in op.get("result", {})
    again = env.stack.ctl(env.gw, "operations", "cancel", op["id"]).stdout
    assert "ended already" in again


@pytest.mark.parametrize("kind", STATEMENTS)
def test_time_limit(env, kind):
    begin = time.monotonic()
    op = submit_running(env, kind, "limit", limits={"timeout_ms": 2000})
    wait_until(lambda: not runs(env, f"{kind} limit"), begin + 2 + GONE_S - time.monotonic(), "the statement is gone")
    check_error(env.gw.wait(op, timeout=5), "failed", "deadline_exceeded", message="time limit of 2000 ms", hint="timeout_ms")
    assert time.monotonic() - begin < 2 + GONE_S + 1


@pytest.mark.parametrize("kind", STATEMENTS)
def test_deadline(env, kind):
    begin = time.monotonic()
    op = submit_running(env, kind, "deadline", deadline_s=2)
    wait_until(lambda: not runs(env, f"{kind} deadline"), begin + 2 + GONE_S - time.monotonic(), "the statement is gone")
    check_error(env.gw.wait(op, timeout=5), "expired", "deadline_exceeded", message="deadline passed", hint="deadline_s")
    assert 1.9 < time.monotonic() - begin < 2 + GONE_S + 1


def test_cancel_while_the_server_does_not_answer(env, silent):
    env.add("silent", "postgres", {**env.args, "port": silent})
    op = env.submit("SELECT 1", integration="silent")
    env.gw.wait(op, "running", timeout=5)
    asked = time.monotonic()
    env.gw.api("POST", f"/operations/{op['id']}/cancel", {})
    check_error(env.gw.wait(op, timeout=10), "cancelled", "cancelled")
    assert time.monotonic() - asked < GONE_S


def test_deadline_passes_before_an_agent_takes_it(env):
    lonely = env.gw.agent("lonely")  # no instance of it runs
    op = env.gw.run("health", agent=lonely.agent, deadline_s=1)
    check_error(op, "expired", "deadline_exceeded", message="before any agent instance")


# --- refused.  name: what the agent finds, and the error: code, native code, retryable, message, hint

def connections(env, silent, refused, ca):
    a, outside = env.args, write_private(env.stack.home / "outside.json", json.dumps({"connect_args": env.args}))
    link = env.stack.credentials / "link.json"
    link.symlink_to(outside)
    plain = {**a, "port": env.plain.port}
    tls_only = {**a, "user": "tls_only", "password": env.pg.password("tls_only")}
    lost = str(env.stack.credentials / "no-such-file.json")
    return {
        "wrong password": ({**a, "password": CANARY + "-wrong"}, "source_auth_failed", "28P01", False, 'for user "canary"', "password"),
        "unknown user": ({**a, "user": "nobody"}, "source_auth_failed", "28P01", False, 'for user "nobody"', "user and password"),
        "no password": ({**a, "password": None}, "source_auth_failed", None, False, "no password supplied", "set password"),
        "unknown host": ({**a, "host": "no-such-host.invalid"}, "host_unknown", None, True, "no-such-host.invalid", "DNS"),
        "server wants TLS": ({**tls_only, "sslmode": "disable"}, "tls_required", "28000", False, "no encryption", "require"),
        "server has no TLS": (plain, "tls_required", None, False, "does not support SSL", "ssl_mode"),
        "other authority": ({**a, "ssl_mode": "verify-full", "sslrootcert": "/etc/ssl/certs/ca-certificates.crt"}, "tls_failed", None,
                            False, "certificate verify failed", "ca_data"),
        "unknown database": ({**a, "dbname": "nowhere"}, "invalid_request", "3D000", False, "nowhere", "dbname"),
        "connection refused": ({**a, "port": refused}, "connect_failed", None, True, "refused", None),
        "no answer": ({**a, "port": silent, "connect_timeout": 1}, "timeout", None, True, "within 1 s", None),
        "file missing": ({"type": "FILE", "file_path": lost}, "credential_unavailable", None, False, "No such file", "mounted"),
        "file outside": ({"type": "FILE", "file_path": str(outside)}, "permission_denied", None, False, "not below", "below"),
        "link outside": ({"type": "FILE", "file_path": str(link)}, "permission_denied", None, False, "symbolic link", "folder"),
        "variable missing": ({"type": "ENV_VAR", "env_var_name": "POSTERN_CREDENTIAL_NONE"}, "credential_unavailable", None, False,
                             "POSTERN_CREDENTIAL_NONE", "set it"),
        "variable not JSON": ({"type": "ENV_VAR", "env_var_name": "POSTERN_CREDENTIAL_BAD"}, "credential_unavailable", None, False,
                              "not valid JSON", "connect_args"),
        "file not JSON": ('{"connect_args": {"password": "' + CANARY, "credential_unavailable", None, False, "not valid JSON",
                          "connect_args"),
        "not an object": (f'["{CANARY}"]', "credential_unavailable", None, False, "array", "connect_args"),
        "no connect_args": (f'{{"password": "{CANARY}"}}', "credential_unavailable", None, False, "no member connect_args",
                            "connect_args"),
        "unknown argument": ({**a, "pwd": CANARY}, "invalid_request", None, False, "'pwd'", "password"),
        "value of wrong type": ({**a, "password": [CANARY]}, "invalid_request", None, False, "password: expected a string", None),
        "unknown ssl_mode": ({**a, "ssl_mode": CANARY}, "invalid_request", None, False, "ssl_mode: not a known value", "verify-full"),
        "bad port": ({**a, "port": CANARY}, "invalid_request", None, False, "port: expected a number", None),
        "missing host": ({**a, "host": None}, "invalid_request", None, False, "missing argument 'host'", None),
    }


def test_connection_errors(env, silent, refused, ca):
    cases = connections(env, silent, refused, ca)
    ops = {}
    for name, (credential, *_) in cases.items():
        env.add(name.replace(" ", "-"), "postgres", credential)
        ops[name] = env.submit("SELECT 1", integration=name.replace(" ", "-"))
    wrong = []
    for name, (_, code, native, retryable, message, hint) in cases.items():
        op = env.gw.wait(ops[name], timeout=60)
        try:
            check_error(op, "failed", code, native, retryable, message, hint)
        except (AssertionError, KeyError) as e:
            wrong.append(f"{name}: {op.get('error')}: {e}"[:400])
    assert not wrong, "\n".join(wrong)


def test_verified_tls(env, ca):
    env.add("verified", "postgres", {**env.args, "ssl_mode": "verify-full", "ssl_options": {"ca_data": ca.cert.read_text()}})
    assert env.rows("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", integration="verified") == [[True]]


def test_credential_in_a_variable(env):
    env.add("by-variable", "postgres", {"type": "ENV_VAR", "env_var_name": "POSTERN_CREDENTIAL_GOOD"})
    assert env.rows("SELECT current_user::text", integration="by-variable") == [["canary"]]


def test_references_that_are_refused_at_once(env):
    """The earliest point that can know: the gateway."""
    for connection_type, credential in (("postgres", {"type": "ENV_VAR", "env_var_name": "UNRELATED"}), ("postgres", {"type": "FILE"}),
                                        ("postgres", {"type": "FILE", "file_path": "relative.json"}),
                                        ("postgres", {"type": "FILE", "file_path": "/etc/secrets/../shadow"}),
                                        ("postgres", {"type": "NONE", "file_path": "/x"})):
        r = env.gw.request("POST", "/api/v1/integrations", {"name": "refused", "connection_type": connection_type,
                                                            "agent": env.agent.key.agent, "credential": credential})
        assert r.status == 400 and r.json()["error"]["code"] == "invalid_request", (credential, r)


def test_ctl_says_what_to_do(env):
    env.add("ctl-wrong", "postgres", {**env.args, "password": CANARY + "-ctl"})
    p = env.stack.ctl(env.gw, "integrations", "test", "ctl-wrong", check=False)
    assert p.returncode == 77 and "28P01" in p.stderr and "check user and password" in p.stderr, (p.returncode, p.stderr)
    p = env.stack.ctl(env.gw, "operations", "run", "--integration", "pg", "--wait", "--sql", "SELECT 1/0", check=False)
    assert p.returncode == 65 and "22012" in p.stderr and "division by zero" in p.stderr, (p.returncode, p.stderr)
    assert CANARY not in p.stderr + p.stdout


STATEMENT_ERRORS = [
    ("SELEC 1", "query_failed", "42601", r'syntax error .*at character 1\b'),
    ("SELECT * FROM nowhere", "query_failed", "42P01", "nowhere"),
    ("SELECT 10 / (50000 - i) FROM generate_series(1, 100000) i", "query_failed", "22012", "division by zero"),
    ("TABLE pg_authid", "source_permission_denied", "42501", "pg_authid"),
    ("SELECT 1; SELECT 2", "query_failed", "42601", "multiple commands"),
    ("COPY (SELECT 1) TO STDOUT", "unsupported", None, "COPY"),
    ("", "invalid_request", None, "sql"),
    ("-- nothing", "invalid_request", None, "empty"),
]


@pytest.mark.parametrize("sql,code,native,message", STATEMENT_ERRORS)
def test_statement_errors(env, sql, code, native, message):
    if not sql:
        r = env.gw.request("POST", "/api/v1/operations", {"type": "query", "integration": "pg", "input": {"sql": sql}})
        assert r.status == 400 and r.json()["error"]["code"] == code and message in r.json()["error"]["message"]
        return
    op = env.query(sql)
    check_error(op, "failed", code, native, False, message)
    assert "body" not in op.get("result", {})


# --- the server goes away

@pytest.mark.parametrize("kind", STATEMENTS)
def test_backend_terminated(env, kind):
    op = submit_running(env, kind, "terminated")
    assert env.pg.terminate(f"%{kind} terminated%") == 1
    check_error(env.gw.wait(op, timeout=10), "failed", "connection_lost", "57P01", True, "terminating connection")


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGQUIT], ids=["SIGKILL", "SIGQUIT"])
def test_server_killed(env, sig):
    name = f"killed{int(sig)}"
    pg = env.stack.postgres(name=name)
    env.gw.integration(name, env.agent.key, "postgres", pg.connect_args())
    op = env.submit("SELECT pg_sleep(60)", integration=name)
    backend, = wait_until(lambda: pg.activity("%pg_sleep(60)%"), 5, "the statement runs")
    pg.send(sig)
    pg.popen.wait(20)
    if sig == signal.SIGKILL:
        with contextlib.suppress(ProcessLookupError):  # it may have noticed
            os.kill(backend[0], signal.SIGKILL)  # the machine is gone: nobody is left to say goodbye
    op = env.gw.wait(op, timeout=20)
    check_error(op, "failed", "connection_lost", None, True, "connection to the server was lost", "server's log")
    check_error(env.query("SELECT 1", integration=name), "failed", "connect_failed", None, True, "refused")


# --- at the end: what was written down in all of this

def test_no_secret_was_written_anywhere(env):
    env.gw.wait(env.submit("SELECT 1"), "succeeded")
    assert env.agent.stop() == 0 and env.gw.stop() == 0  # everything is on disk
    secrets = [CANARY.encode(), env.pg.password("tls_only").encode(), env.pg.password("app").encode()]
    found = {s: set() for s in secrets}
    looked = set()
    for path in env.stack.home.rglob("*"):
        top = path.relative_to(env.stack.home).parts[0]
        if path.is_file() and not path.is_symlink() and top.split(".")[0] not in ("data", "plain", "killed9", "killed3"):
            looked.add(top)
            text = path.read_bytes()
            for s in secrets:
                if s in text:
                    found[s].add(top)
    assert {"gateway", "agent", "credentials"} <= looked
    # where they belong: which also shows that this search finds them
    assert found == {secrets[0]: {"credentials", "outside.json"}, secrets[1]: {"credentials"}, secrets[2]: {"credentials"}}
    assert " debug " in env.gw.text()  # everything there is to say was said
    assert "source_auth_failed" in env.agent.text()  # it was told, without the secret
