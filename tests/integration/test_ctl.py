"""The client commands, help, and the demo, as people and programs use them."""
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import time

import pytest

from harness import clean_env, run, wait_until
from product import BIN, ROOT
from web import Web


@pytest.fixture(scope="module")
def gw(module_stack):
    return module_stack.gateway()


@pytest.fixture(scope="module")
def shop(module_stack, gw):
    """A SQLite source behind a connected agent."""
    path = module_stack.home / "shop.db"
    db = sqlite3.connect(path)
    db.executescript("CREATE TABLE item(id INTEGER, name TEXT, price REAL);"
                     "INSERT INTO item VALUES (1, 'tea', 2.5), (2, NULL, 10), (3, 'a \"quoted\", line' || char(10) || 'two', 0.1);")
    db.close()
    agent = module_stack.agent(gw)
    gw.integration("shop", agent.key, "sqlite", {"path": str(path)})
    return agent


@pytest.fixture
def ctl(module_stack, gw):
    def call(*argv, **kw):
        return module_stack.ctl(gw, *argv, **kw)
    return call


# --- the command table

@pytest.mark.parametrize("argv, code, out, err", [
    ((), 64, "", "Usage: postern COMMAND"),
    (("--help",), 0, "Usage: postern COMMAND", ""),
    (("--version",), 0, "postern ", ""),
    (("version",), 0, "postern ", ""),
    (("help",), 0, "Commands:\n", ""),
    (("help", "ctl", "operations", "run"), 0, "--param VALUE", ""),
    (("ctl",), 64, "", "operations"),
    (("ctl", "--help"), 0, "operations", ""),
    (("ctl", "agents", "create", "--help"), 0, "Usage: postern ctl agents create", ""),
    (("clt",), 64, "", "did you mean `postern ctl`?"),
    (("ctl", "agents", "lst"), 64, "", "did you mean `postern ctl agents list`?"),
    (("help", "ctl", "nothing-like-it"), 64, "", "`postern help ctl` lists the commands"),
    (("-o", "json", "ctl"), 64, "", "must stand behind a command"),
    (("ctl", "agents", "list", "--outptu", "json"), 64, "", "did you mean --output?"),
    (("ctl", "agents", "list", "-o", "yaml"), 64, "", "not one of table, json"),
    (("ctl", "agents", "list"), 64, "", "postern ctl login --url"),
    (("ctl", "agents", "list", "--url", "gopher://x", "--token-file", "/dev/null"), 64, "", "is not the URL of a gateway"),
    (("ctl", "agents", "list", "--url", "http://x", "--token-file", "/no/such"), 66, "", "--token-file names the file that holds"),
])
def test_command_line(home, argv, code, out, err):
    p = run(BIN, *argv, check=False, env=clean_env(HOME=home))
    assert p.returncode == code, p.stderr
    assert out in p.stdout and err in p.stderr
    assert bool(p.stdout) == (code == 0)


def test_unknown_setting_in_environment(home):
    p = run(BIN, "ctl", "whoami", check=False, env=clean_env(HOME=home, POSTERN_GATEWAY_ULR="http://x"))
    assert p.returncode == 64 and "did you mean POSTERN_GATEWAY_URL?" in p.stderr


def test_reference_is_current():
    assert (ROOT / "docs/cli.md").read_text() == run(BIN, "help", "--markdown").stdout, \
        "write it again: postern help --markdown > docs/cli.md"


@pytest.mark.parametrize("page", [(), ("demo",), ("gateway",), ("agent",), ("check",), ("ctl",)])
def test_manual_pages(page):
    text = run(BIN, "help", "--man", *page).stdout
    assert text.startswith(".Dd ") and ".Sh EXIT STATUS" in text
    if shutil.which("groff"):
        p = run("groff", "-K", "utf8", "-mdoc", "-Tutf8", "-ww", "-Wbreak", input=text)
        assert not p.stderr
    if page == ("ctl",):
        assert ".It Cm operations run" in text and text.count(".Ev POSTERN_CTL_CONFIG") == 0 and "POSTERN_CTL_CONFIG" in text


def test_completion(home):
    script = home / "postern.bash"
    script.write_text(run(BIN, "help", "--completion", "bash").stdout)

    def complete(*words):
        code = f'. {script}; COMP_WORDS=(postern {" ".join(words)}); COMP_CWORD={len(words)}; _postern; echo "${{COMPREPLY[@]}}"'
        return run("bash", "-c", code).stdout.split()

    assert "ctl" in complete("c")
    assert complete("ctl", "op") == ["operations"]
    assert complete("ctl", "operations", "run", "--form") == ["--format"]
    assert complete("ctl", "operations", "run", "--format", "js") == ["jsonl"]


# --- login and errors of the connection

def test_login(home, gw):
    env = clean_env(HOME=home)
    p = run(BIN, "ctl", "login", "--url", gw.url + "/", env=env, input=gw.token + "\n")
    assert "as owner (owner of account default)" in p.stdout and gw.token not in p.stdout + p.stderr
    stored = home / ".config/postern/ctl.json"
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert json.loads(stored.read_text())["token"] == gw.token
    assert json.loads(run(BIN, "ctl", "whoami", "-o", "json", env=env).stdout)["role"] == "owner"
    assert "role        owner" in run(BIN, "ctl", "whoami", "--url", gw.url, env=env).stdout  # stored for this URL
    before = stored.read_bytes()
    p = run(BIN, "ctl", "login", "--url", gw.url, env=env, input="pts_wrong\n", check=False)
    assert p.returncode == 77 and "unauthenticated" in p.stderr and stored.read_bytes() == before
    stored.write_text("{")
    p = run(BIN, "ctl", "whoami", env=env, check=False)
    assert p.returncode == 64 and "ctl login" in p.stderr
    run(BIN, "ctl", "login", "--url", gw.url, "--token-file", gw.token_file, env=env)  # a broken file does not stop it


def test_login_asks_on_the_terminal(home, gw):
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(BIN, ["postern", "ctl", "login", "--url", gw.url], clean_env(HOME=home))
    text = read_until(fd, "API token")
    time.sleep(0.1)  # the prompt comes after the terminal went mute; this only makes the test stricter
    os.write(fd, gw.token.encode() + b"\n")
    text += read_all(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0 and "logged in" in text
    assert gw.token not in text


def test_login_can_be_left(home, gw):
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(BIN, ["postern", "ctl", "login", "--url", gw.url], clean_env(HOME=home))
    read_until(fd, "API token")
    os.write(fd, b"\x03")
    assert "interrupted" in read_until(fd, "code: cancelled")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 75


def test_login_remembers_where_the_ca_file_is(home, gw, ca):
    shutil.copy(ca.cert, home / "ca.pem")
    run(BIN, "ctl", "login", "--url", gw.url, "--ca-file", "ca.pem", cwd=home, env=clean_env(HOME=home), input=gw.token)
    run(BIN, "ctl", "whoami", cwd="/", env=clean_env(HOME=home))
    says = run(BIN, "ctl", "agents", "create", "with-ca", cwd="/", env=clean_env(HOME=home)).stdout
    assert f"\n  postern agent --gateway-url {gw.url} --token-file token.json --ca-file {home}/ca.pem\n" in says


def test_stored_token_goes_to_its_gateway_only(home, gw, origin):
    env = clean_env(HOME=home)
    run(BIN, "ctl", "login", "--url", gw.url, env=env, input=gw.token)
    seen = len(origin.seen)
    p = run(BIN, "ctl", "whoami", "--url", origin.url, env=env, check=False)
    assert p.returncode == 77 and "no API token for " + origin.url in p.stderr
    assert len(origin.seen) == seen


def test_no_gateway_there(home, gw):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{s.getsockname()[1]}"
        begin = time.monotonic()
        list_agents = [BIN, "ctl", "agents", "list", "--url", url, "--token-file", gw.token_file]
        p = run(*list_agents, "--retry-for", "0s", env=clean_env(HOME=home), check=False)
        assert p.returncode == 69 and f"cannot reach gateway at {url}" in p.stderr and "hint: " in p.stderr
        assert "--retry-for" not in p.stderr and time.monotonic() - begin < 3
        p = run(*list_agents, "--retry-for", "2s", env=clean_env(HOME=home), check=False)
        assert p.returncode == 69 and len(re.findall(r"Trying again for (?:2\.0|1\.\d) s \(--retry-for\)", p.stderr)) == 1, p.stderr
        # a URL that is typed for the first time is rather wrong than away
        p = run(BIN, "ctl", "login", "--url", url, env=clean_env(HOME=home), input=gw.token, check=False)
        assert p.returncode == 69 and "--retry-for" not in p.stderr


# --- users, tokens, agents, keys

def test_users_and_tokens(home, gw, ctl):
    assert "created user ada" in ctl("users", "create", "ada", "--role", "viewer").stdout
    token = home / "ada.token"
    ctl("tokens", "create", "--user", "ada", "--name", "laptop", "--expires", "1h", "--output-file", token)
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert json.loads(ctl("whoami", "-o", "json", token_file=token).stdout)["role"] == "viewer"
    p = ctl("agents", "create", "x", token_file=token, check=False)
    assert p.returncode == 77 and "owner" in p.stderr
    p = ctl("tokens", "create", "--user", "ada", "--output-file", token, check=False)
    assert p.returncode == 65 and "is there already" in p.stderr
    tokens = json.loads(ctl("tokens", "list", "-o", "json").stdout)["items"]
    mine = [t["id"] for t in tokens if t.get("name") == "laptop"]
    assert len(mine) == 1
    ctl("tokens", "revoke", mine[0])
    assert ctl("whoami", token_file=token, check=False).returncode == 77
    users = {u["name"]: u["id"] for u in json.loads(ctl("users", "list", "-o", "json").stdout)["items"]}
    ctl("users", "delete", users["ada"])
    assert not re.search(r"\bada\b", ctl("users", "list").stdout)


def test_agents_and_keys(home, gw, ctl):
    p = ctl("agents", "create", "depot")
    assert "postern ctl keys create --agent depot" in p.stdout and gw.url in p.stdout
    assert ctl("agents", "create", "depot", check=False).returncode == 65
    key = home / "key.json"
    ctl("keys", "create", "--agent", "depot", "--output-file", key)
    doc = json.loads(key.read_text())
    assert set(doc) == {"key_id", "key_secret"} and stat.S_IMODE(key.stat().st_mode) == 0o600
    assert gw.request("GET", "/agent/v1/ping", token=None, basic=(doc["key_id"], doc["key_secret"])).status == 200
    shown = ctl("keys", "create", "--agent", "depot")
    assert "shown once" in shown.stderr and set(json.loads(shown.stdout)) == {"key_id", "key_secret"}
    listed = ctl("keys", "list", "--agent", "depot").stdout
    assert doc["key_id"] in listed and doc["key_secret"] not in listed
    ctl("keys", "revoke", doc["key_id"])
    assert gw.request("GET", "/agent/v1/ping", token=None, basic=(doc["key_id"], doc["key_secret"])).status == 401
    ctl("agents", "enable", "depot")
    assert re.search(r"depot +generic +yes +no ", ctl("agents", "list").stdout)
    assert "No instance is connected" in ctl("agents", "show", "depot").stdout
    ctl("agents", "disable", "depot")
    ctl("agents", "delete", "depot")
    p = ctl("agents", "show", "depot", check=False)
    assert p.returncode == 66 and "no agent 'depot'" in p.stderr


def test_key_that_cannot_be_kept_is_not_made(gw, ctl):
    gw.api("POST", "/agents", {"name": "careful"})
    p = ctl("keys", "create", "--agent", "careful", "--output-file", "/nonexistent/key.json", check=False)
    assert p.returncode == 77
    assert json.loads(ctl("keys", "list", "--agent", "careful", "-o", "json").stdout)["items"] == []
    ctl("agents", "delete", "careful")


def test_integration_of_the_only_agent(stack):
    gw = stack.gateway()
    add = ("integrations", "add-self-hosted-credentials-v2", "--connection-type", "postgres", "--self-hosted-credentials-type", "FILE",
           "--file-path", "/etc/secrets/integrations/sales.json", "--name")
    p = stack.ctl(gw, *add, "sales", check=False)
    assert p.returncode == 64 and "there is no agent yet" in p.stderr
    a = gw.api("POST", "/agents", {"name": "one"})
    stack.ctl(gw, *add, "sales")
    assert stack.ctl_json(gw, "integrations", "show", "sales")["agent"] == a["id"]
    gw.api("POST", "/agents", {"name": "two"})
    p = stack.ctl(gw, *add, "more", check=False)
    assert p.returncode == 64 and "--agent with one of: one, two" in p.stderr
    stack.ctl(gw, *add, "more", "--agent", "two")
    assert len(stack.ctl_json(gw, "integrations", "list")["items"]) == 2
    listed = stack.ctl(gw, "integrations", "list").stdout
    assert re.search(r"more +postgres +two +FILE +/etc/secrets/integrations/sales.json ", listed)
    stack.ctl(gw, "integrations", "delete", "more")
    p = stack.ctl(gw, "integrations", "test", "sales", "--timeout", "1s", check=False)
    assert p.returncode == 75 and "operation expired" in p.stderr and "ctl agents enable one" in p.stderr
    stack.ctl(gw, "agents", "enable", "one")
    p = stack.ctl(gw, "integrations", "test", "sales", "--timeout", "1s", check=False)
    assert p.returncode == 75 and "agent one has no connected instance" in p.stderr
    p = stack.ctl(gw, "integrations", "add-self-hosted-credentials-v2", "--connection-type", "postgres", "--self-hosted-credentials-type",
                  "ENV_VAR", "--file-path", "/x", "--name", "n", check=False)
    assert p.returncode == 64 and "--env-var-name" in p.stderr


# --- operations

QUERY = ("operations", "run", "--integration", "shop", "--wait", "--sql")


def test_rows_in_every_format(shop, ctl):
    sql = "SELECT id, name, price FROM item ORDER BY id"
    assert [json.loads(r) for r in ctl(*QUERY, sql).stdout.splitlines()] == [
        [1, "tea", 2.5], [2, None, 10.0], [3, 'a "quoted", line\ntwo', 0.1]]
    assert ctl(*QUERY, sql, "--format", "table").stdout.splitlines()[2:] == [
        " 1  tea                      2.5", " 2  NULL                    10.0", ' 3  a "quoted", line\\ntwo    0.1']
    assert ctl(*QUERY, sql, "--format", "csv").stdout == \
        'id,name,price\r\n1,tea,2.5\r\n2,,10.0\r\n3,"a ""quoted"", line\ntwo",0.1\r\n'.replace("\r\n", "\n")  # text mode reads \r\n as \n


def test_log_lines(shop, gw, ctl, module_stack):
    logs = ("operations", "run", "--agent", shop.key.agent, "--type", "logs", "--wait")
    assert json.loads(ctl(*logs).stdout.splitlines()[0])["msg"] == "agent started"
    p = ctl(*logs, "--format", "csv", check=False)
    assert p.returncode == 64 and "--format jsonl" in p.stderr
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(BIN, ["postern", "ctl", *map(str, logs)],
                  clean_env(HOME=module_stack.home, POSTERN_GATEWAY_URL=gw.url, POSTERN_API_TOKEN_FILE=gw.token_file))
    assert '"msg":"agent started"' in read_all(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_write(shop, ctl):
    p = ctl(*QUERY, "UPDATE item SET price = 11 WHERE id = 2", check=False)
    assert p.returncode == 65 and "--write" in p.stderr
    p = ctl(*QUERY, "UPDATE item SET price = 10 WHERE id = 2", "--write")
    assert p.stdout == "" and "1 row affected" in p.stderr


def test_operation_document_and_result(shop, ctl):
    op = json.loads(ctl(*QUERY, "SELECT id FROM item WHERE name = ? OR id = ?", "--param", "tea", "--param", "3", "--label", "team=shop",
                        "--priority", "9", "--timeout", "30s", "-o", "json").stdout)
    assert op["state"] == "succeeded" and op["labels"] == {"team": "shop"} and op["priority"] == 9
    assert op["input"]["params"] == ["tea", 3] and op["limits"]["timeout_ms"] == 30000
    assert ctl("operations", "result", op["id"]).stdout == "[1]\n[3]\n"
    shown = ctl("operations", "show", op["id"]).stdout
    assert re.search(r"state +succeeded", shown) and re.search(r"\d\d:\d\d:\d\d +leased +1 ", shown)
    assert op["id"] in ctl("operations", "list", "--agent", shop.key.agent, "--state", "succeeded").stdout
    assert "Older ones: --before op_" in ctl("operations", "list", "--limit", "1").stderr


def test_failures_have_exit_codes(shop, ctl):
    p = ctl(*QUERY, "SELECT absent", check=False)
    assert p.returncode == 65 and "operation failed: no such column: absent" in p.stderr and "query_failed" in p.stderr
    p = ctl(*QUERY, "SELECT absent", "-o", "json", check=False)
    assert p.returncode == 65 and json.loads(p.stdout)["state"] == "failed"
    p = ctl("operations", "run", "--integration", "nix", "--sql", "SELECT 1", check=False)
    assert p.returncode == 66
    assert ctl("operations", "run", "--sql", "SELECT 1", check=False).returncode == 64
    assert ctl("integrations", "test", "shop").stdout.startswith("ok: shop answers (sqlite by agent ")


def test_dead_letters(shop, ctl):
    run_it = ("operations", "run", "--integration", "shop", "--sql", "SELECT absent", "--retry-on", "query_failed", "--max-attempts", "2",
              "--backoff", "1ms", "--max-backoff", "2ms")
    op = json.loads(ctl(*run_it, "--wait", "-o", "json", check=False).stdout)
    assert op["state"] == "failed" and op["attempt"] == 2 and op["dead_letter"] is True
    assert [e["event"] for e in op["events"]].count("attempt_failed") == 1
    listed = ctl("operations", "dead-letters", "--agent", shop.key.agent).stdout
    assert re.search(rf"{op['id']} +failed +query ", listed)
    assert op["id"] in [d["id"] for d in json.loads(ctl("operations", "dead-letters", "-o", "json").stdout)["items"]]
    assert "no dead letters" in ctl("operations", "dead-letters", "--type", "logs").stderr
    p = ctl("operations", "settle", op["id"], check=False)
    assert p.returncode == 64 and "--decision" in p.stderr
    settle = ("operations", "settle", op["id"], "--decision", "rerun", "--note", "the column is there")
    said = ctl(*settle).stdout
    rerun = re.search(r"runs again as (op_\w+)", said).group(1)
    assert ctl(*settle).stdout == said
    p = ctl("operations", "settle", op["id"], "--decision", "done", check=False)
    assert p.returncode == 65 and "was settled by owner already: rerun: the column is there" in p.stderr
    shown = ctl("operations", "show", op["id"]).stdout
    assert re.search(r"^state +failed$", shown, re.M) and re.search(r"^settled +rerun$", shown, re.M)
    assert re.search(rf"^rerun +{rerun}$", shown, re.M) and re.search(r"^note +the column is there$", shown, re.M)
    assert re.search(rf"^rerun of +{op['id']}$", ctl("operations", "show", rerun).stdout, re.M)
    wait_until(lambda: json.loads(ctl("operations", "show", rerun, "-o", "json").stdout)["state"] == "failed", 20)
    assert f"{rerun} is settled: abandon" in ctl("operations", "settle", rerun, "--decision", "abandon").stdout
    listed = ctl("operations", "dead-letters", "--limit", "500").stdout
    assert op["id"] not in listed and rerun not in listed


def test_limits_and_documents(shop, ctl):
    p = ctl(*QUERY, "SELECT id FROM item", "--max-rows", "2")
    assert len(p.stdout.splitlines()) == 2 and "the row limit was reached" in p.stderr
    health = ctl("operations", "run", "--agent", shop.key.agent, "--type", "health", "--wait").stdout
    assert json.loads(health)["ok"] is True


def test_reader_that_leaves(shop, module_stack, gw, ctl):
    op = ctl("operations", "run", "--integration", "shop", "-o", "json", "--wait", "--sql",
             "WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t WHERE i < 200000) SELECT i, 'some text' FROM t").stdout
    p = subprocess.run(f"'{BIN}' ctl operations result {json.loads(op)['id']} | head -1; echo ${{PIPESTATUS[0]}}", shell=True, text=True,
                       executable="/bin/bash", stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
                       env=clean_env(POSTERN_GATEWAY_URL=gw.url, POSTERN_API_TOKEN_FILE=gw.token_file))
    assert p.stdout == '[1,"some text"]\n141\n' and not p.stderr


def read_until(fd, what, timeout=20):
    """Output of a terminal up to and with a text."""
    text, end = "", time.monotonic() + timeout
    while what not in text:
        assert time.monotonic() < end, f"no '{what}' in {text!r}"
        if select.select([fd], [], [], 0.2)[0]:
            text += os.read(fd, 65536).decode()
    return text


def read_all(fd):
    text = ""
    while True:
        try:
            data = os.read(fd, 65536)
        except OSError:  # the other side has closed
            return text
        if not data:
            return text
        text += data.decode()


def test_waiting_on_a_terminal(stack):
    gw = stack.gateway()
    a = gw.api("POST", "/agents", {"name": "absent"})
    gw.api("POST", f"/agents/{a['id']}/enable")
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(BIN, ["postern", "ctl", "operations", "run", "--agent", "absent", "--type", "health", "--wait"],
                  clean_env(HOME=stack.home, POSTERN_GATEWAY_URL=gw.url, POSTERN_API_TOKEN_FILE=gw.token_file))
    read_until(fd, "queued, ")
    text = read_until(fd, "no connected instance")
    os.write(fd, b"\x03")
    text = read_until(fd, "Ctrl-C once more leaves")
    op = re.search(r"operations cancel (op_\w+)", text).group(1)
    read_until(fd, "queued, ")
    os.write(fd, b"\x03")
    read_all(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert gw.operation({"id": op})["state"] == "queued"
    assert "will be cancelled" in stack.ctl(gw, "operations", "cancel", op, "--reason", "test").stdout or \
        gw.operation({"id": op})["state"] == "cancelled"
    assert stack.ctl(gw, "operations", "result", op, check=False).returncode == 75
    assert "had ended already" in stack.ctl(gw, "operations", "cancel", op).stdout


def test_waiting_outlives_the_gateway(stack):
    gw = stack.gateway()
    a = gw.api("POST", "/agents", {"name": "later"})
    p = subprocess.Popen([BIN, "ctl", "operations", "run", "--agent", "later", "--type", "health", "--wait", "-o", "json"], text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         env=clean_env(HOME=stack.home, POSTERN_GATEWAY_URL=gw.url, POSTERN_API_TOKEN_FILE=gw.token_file))
    try:
        wait_until(lambda: gw.api("GET", "/operations")["items"], 20, "the operation is there")
        gw.kill()
        gw.restart()
        op = gw.api("GET", "/operations")["items"][0]
        gw.api("POST", f"/operations/{op['id']}/cancel", {})
        out, err = p.communicate(timeout=30)
    finally:
        p.kill()
    assert p.returncode == 75 and json.loads(out)["state"] == "cancelled", err
    assert a


LIE = {"id": "op_1", "state": "succeeded", "result": {
    "rows": 1, "columns": [{"name": "a", "type": "int64"}],
    "body": {"format": "jsonl", "sha256": "0" * 64, "href": "/api/v1/operations/op_1/result"}}}


@pytest.mark.parametrize("rows, code, message", [
    (b"[1]\n", 74, "SHA-256 differs"),
    (b"[1,2]\n", 74, "does not have 1 columns"),
    (b"[1", 74, "the last row has no end"),
    (b"not json\n", 74, "a row is not a JSON array"),
    (b"\x28\xb5\x2f\xfd\x08" + b"\xff" * 20, 74, "the result does not decompress"),
    (b"\x28\xb5\x2f\xfd\x00\x58\x59", 69, "the result ends early"),
])
def test_wrong_results_are_noticed(home, rows, code, message):
    """From a gateway whose results are not what it says."""
    def lie(r):
        if not r.path.endswith("/result"):
            return 200, json.dumps(LIE).encode(), {}
        return 200, rows, {"Content-Encoding": "zstd"} if rows[:4] == b"\x28\xb5\x2f\xfd" else {}

    with Web(lie) as gateway:
        p = run(BIN, "ctl", "operations", "result", "op_1", "--format", "csv", check=False,
                env=clean_env(HOME=home, POSTERN_GATEWAY_URL=gateway.url, POSTERN_API_TOKEN="x"))
    assert p.returncode == code and message in p.stderr, p.stderr


# --- demo

def demo_port(var):
    return int((var / "gateway.port").read_text())


def test_demo_twice(home):
    var = home / "var"
    first = run(BIN, "demo", "--once", "--dir", var, env=clean_env(HOME=home))
    assert re.match(r"name +version +installed_mb\n-+", first.stdout) and "Try next" not in first.stdout
    assert stat.S_IMODE((var / "owner-token").stat().st_mode) == 0o600
    port, data = demo_port(var), (var / "packages.db").stat()
    second = run(BIN, "demo", "--once", "--dir", var, env=clean_env(HOME=home))
    assert demo_port(var) == port and (var / "packages.db").stat().st_mtime == data.st_mtime
    assert first.stdout == second.stdout
    with socket.socket() as s:  # its port is taken: it finds another
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
        s.listen()
        run(BIN, "demo", "--once", "--dir", var, env=clean_env(HOME=home))
    assert demo_port(var) != port


def test_demo_tells_commands_that_work(home):
    var = home / "o'ne $1"
    p = subprocess.Popen([BIN, "demo", "--dir", var], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean_env(HOME=home))
    try:
        seen = ""
        while "Ctrl-C ends" not in seen:
            line = p.stdout.readline()
            assert line, seen
            seen += line
        script = "set -e\n" + re.search(r"Try next.*:\n((?:  .*\n)+)", seen).group(1)
        tried = run("/bin/sh", "-c", script, env=clean_env(HOME=home))
        assert '["admin",' in tried.stdout and "succeeded" in tried.stdout and "1 instance" in tried.stdout
    finally:
        p.terminate()
        p.wait(20)


def test_demo_in_a_folder_that_cannot_be(home):
    (home / "file").write_text("")
    p = run(BIN, "demo", "--once", "--dir", home / "file", env=clean_env(HOME=home), check=False)
    assert p.returncode == 64 and "is not a folder" in p.stderr and "--dir DIR" in p.stderr and "logs" not in p.stderr


def children(pid):
    return [int(c) for c in open(f"/proc/{pid}/task/{pid}/children").read().split()]


def gone(pids):
    return not any(os.path.exists(f"/proc/{p}") for p in pids)


@pytest.mark.parametrize("sig, code", [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_demo_ends_its_children(home, sig, code):
    p = subprocess.Popen([BIN, "demo", "--dir", home / "var"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         env=clean_env(HOME=home))
    try:
        seen = ""
        while "Ctrl-C ends" not in seen:
            line = p.stdout.readline()
            assert line, seen
            seen += line
        pids = children(p.pid)
        assert len(pids) == 2
        other = run(BIN, "demo", "--once", "--dir", home / "var", env=clean_env(HOME=home), check=False)
        assert other.returncode == 65 and "is running in" in other.stderr
        p.send_signal(sig)
        assert p.wait(20) == code
        wait_until(lambda: gone(pids), 20, "its children are gone")
    finally:
        p.kill()
        p.wait()


def test_demo_says_why_it_failed(home):
    var = home / "var"
    var.mkdir()
    (var / "gateway.db").write_text("this is no database " * 100)
    p = run(BIN, "demo", "--once", "--dir", var, env=clean_env(HOME=home), check=False)
    assert p.returncode == 69 and "the gateway exited with code" in p.stderr and f"last lines of {var}/gateway.log" in p.stderr
