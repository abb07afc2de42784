"""postern check in places that work and in places broken for real: what is wrong is named, with a fix, and the exit code tells."""
import json
import os
import pathlib
import re
import shutil
import socket

import pytest

from harness import Process, free_port
from places import (NAMES, NOBODY, NameServer, Place, control_group, has_control_group, in_namespace, no_gateway, own_network,
                    with_mount, with_resolv_conf)
from product import BIN, sanitized, write_private

root = pytest.mark.skipif(not own_network(), reason="needs root, for namespaces, mounts and users of its own")


@pytest.fixture(scope="module")
def gateway(module_stack):
    """https, with a certificate that lasts."""
    cert, key = module_stack.ca.issue("lasting", days=90)
    return module_stack.gateway("--tls-cert", cert, "--tls-key", key, tls=True)


@pytest.fixture
def place(stack, gateway):
    return Place(stack, gateway, key=gateway.agent(os.urandom(4).hex()))


# --- a place that works

def test_healthy(place):
    a = place.check(metadata=True)
    assert a.code == 0 and list(a.checks) == NAMES and not a.p.stderr
    for name in ("environment", "filesystem", "dns", "tls", "gateway", "clock", "token", "integrations"):
        a.passes(name)
    assert "18 slots" in a.passes("environment") and "25 s" in a.passes("environment")
    assert "Postern Test CA" in a.passes("tls") and "TLSv1.3" in a.passes("tls") and "CA file only" in a.passes("tls")
    assert place.key.id in a.passes("token") and place.key.secret not in a.p.stdout
    assert a.checks["proxy"]["status"] == "SKIP" and a.checks["agent"]["status"] == "SKIP"
    assert not list(place.spool.iterdir())  # nothing is left behind


def test_text(place):
    p = place.check(text=True, POSTERN_STOP_TIMEOUT="1s")
    lines = p.stdout.splitlines()
    assert p.returncode == 1 and "\x1b" not in p.stdout
    assert re.match(r"FAIL  environment   --stop-timeout of 1 s is too short", lines[0])
    assert re.match(r"PASS  filesystem    ", lines[1])  # aligned
    assert re.search(r"^\d+ passed, \d+ warnings?, 1 failed, \d+ skipped$", p.stdout, re.M)
    assert re.search(r"^ 1\. environment: Give it more time", p.stdout, re.M)


def test_the_settings_are_the_agents(place):
    """The same flags and names, and what the agent refuses at start fails here with the same words."""
    a = place.check("--stop-timeout", "60s", "--termination-grace-seconds", "30")
    words = "a stop would be killed after 30 s"
    assert words in a.fails("environment") and "terminationGracePeriodSeconds" in a.fails("environment")
    agent = Process([BIN, "agent", "--stop-timeout", "60s", "--termination-grace-seconds", "30"], place.home, "agent", env=place.env)
    assert agent.popen.wait(10) == 64 and words in agent.text()


def test_choosing(place):
    a = place.check("--only", "token,dns")
    assert list(a.checks) == ["dns", "token"] and a.code == 0
    assert "dns" not in place.check("--skip", "dns, gateway").checks
    p = place.check("--only", "tokens", text=True)
    assert p.returncode == 64 and "did you mean 'token'?" in p.stderr
    for nothing in (["--only", ""], ["--only", "dns", "--skip", "dns"]):  # says nothing about the place, so it is no success
        p = place.check(*nothing, text=True)
        assert p.returncode == 64 and "no check to run" in p.stderr
    assert place.check("--output", "xml", text=True).returncode == 64
    assert place.check("--nothing", text=True).returncode == 64


def test_beside_an_agent_that_runs(stack, gateway):
    agent = stack.agent(gateway)
    place = Place(stack, gateway, key=agent.key)
    spool = agent.home / "spool"
    before = sorted(p.name for p in spool.iterdir())
    a = place.check(POSTERN_SPOOL_DIR=spool, POSTERN_LISTEN=f"0.0.0.0:{agent.port}")
    assert a.code == 0 and "in use by a running agent" in a.passes("filesystem") and "is ready" in a.passes("agent")
    assert sorted(p.name for p in spool.iterdir()) == before and agent.ready()
    op = gateway.run("health", agent=agent.key.agent)
    assert op["state"] == "succeeded" and not re.search(r"^\S+ (warn|error)", agent.text(), re.M)


# --- settings

def test_unknown_variable(place):
    text = place.check(POSTERN_SLOT="3", POSTERN_GATEWAY_ULR="x").fails("environment")
    assert "did you mean POSTERN_SLOTS?" in text and "did you mean POSTERN_GATEWAY_URL?" in text


def test_bad_values_do_not_end_it(place):
    a = place.check(POSTERN_SLOTS="many", POSTERN_STOP_ACTION="jump", POSTERN_BLOCKED_CIDRS="10.0.0.0/99")
    text = a.fails("environment")
    assert "'many' is not a number" in text and "'jump' is not one of" in text and "10.0.0.0/8" in text
    hinted = place.check("--only", "environment", POSTERN_GATEWAY_URL="gateway.example.com", POSTERN_SLOTS="many").checks["environment"]
    assert "such as https:// (it looks like https://" in hinted["detail"] and hinted["fix"].startswith("Correct these;")
    a.passes("gateway")
    a.passes("token")


def test_without_any_setting(home):
    class Nothing:
        url, tls = "", False

    place = Place.__new__(Place)
    place.home, place.env = home, {"POSTERN_SPOOL_DIR": str(home / "spool"), "POSTERN_LISTEN": f"127.0.0.1:{free_port()}"}
    a = place.check()
    text = a.fails("environment", "token")
    assert "--gateway-url is missing" in text and "--token-file is missing" in text
    assert a.checks["gateway"]["status"] == "SKIP" and not (home / "spool").exists()


@pytest.mark.parametrize("url", ["ftp://gateway.example.com", "gateway.example.com", "https://u:hunter2@gateway.example.com"])
def test_bad_url(place, url):
    a = place.check(POSTERN_GATEWAY_URL=url)
    assert "--gateway-url" in a.fails("environment") and "hunter2" not in a.p.stdout


def test_bad_ca_file(place):
    (place.home / "ca.pem").write_text("no certificate")
    assert "has no certificate in PEM format" in place.check(POSTERN_CA_FILE=place.home / "ca.pem").fails("environment")
    assert "does not exist" in place.check(POSTERN_CA_FILE="/nowhere/ca.pem").fails("environment")


# --- disk

@root
def test_read_only_spool(place):
    a = place.check(inside=with_mount(f"-t tmpfs -o ro tmpfs {place.spool}"))
    assert "Read-only file system" in a.fails("filesystem") and "volume that can be written" in a.fails("filesystem")
    a.passes("gateway")


@root
def test_full_disk(place):
    fill = f"dd if=/dev/zero of={place.spool}/other bs=64k 2>/dev/null || true"
    text = place.check(inside=with_mount(f"-t tmpfs -o size=2m tmpfs {place.spool}", f"({fill})")).fails("filesystem")
    assert "No space left on device" in text and "the spool's disk is full: 0 bytes are free" in text and "larger one" in text


@root
def test_small_disk(place):
    a = place.check(inside=with_mount(f"-t tmpfs -o size=200m tmpfs {place.spool}"))
    assert a.code == 0 and "200M are free" in a.warns("filesystem") and "want 1.06G" in a.warns("filesystem")
    assert "in memory (tmpfs)" in a.warns("filesystem")
    a = place.check("--spool-max-bytes", "64M", "--ship-logs", "off", inside=with_mount(f"-t tmpfs -o size=200m tmpfs {place.spool}"))
    assert "are free" not in a.warns("filesystem")


@root
def test_no_inodes(place):
    text = place.check(inside=with_mount(f"-t tmpfs -o size=200m,nr_inodes=40 tmpfs {place.spool}")).fails("filesystem")
    assert re.search(r"\d+ inodes are free", text)


@root
def test_spool_of_another_user(place):
    place.key.file.chmod(0o644)
    place.home.chmod(0o755)
    a = place.check(inside=NOBODY)
    assert "Permission denied" in a.fails("filesystem") and "uid 65534" in a.fails("filesystem") and "fsGroup" in a.fails("filesystem")
    assert "no capabilities" in a.passes("identity")


@root
def test_a_folder_that_is_made_is_removed(place):
    a = place.check(POSTERN_SPOOL_DIR=place.home / "a/b/c")
    assert "can be made" in a.passes("filesystem") and not (place.home / "a").exists()
    (place.home / "file").write_text("")
    assert "Not a directory" in place.check(POSTERN_SPOOL_DIR=place.home / "file/spool").fails("filesystem")


def test_files_that_others_may_change(place):
    place.key.file.chmod(0o666)
    a = place.check()
    assert a.code == 0 and "can be changed by everybody (mode 0666)" in a.warns("filesystem")


# --- the process's place

@root
@pytest.mark.skipif(not has_control_group("memory"), reason="no control group of memory can be made here")
@pytest.mark.skipif(sanitized(), reason="a sanitizer build does not fit in it")
def test_tiny_memory_limit(place):
    with control_group("memory", v1={"memory.limit_in_bytes": 20 << 20}, v2={"memory.max": 20 << 20}) as inside:
        text = place.check(inside=inside).fails("cgroup")
    assert "memory limit of 20 MiB is not enough" in text and "128Mi" in text
    with control_group("memory", v1={"memory.limit_in_bytes": 50 << 20}, v2={"memory.max": 50 << 20}) as inside:
        a = place.check(inside=inside)
        assert "18 slots may want 68" in a.warns("cgroup")
        assert "memory limit 50 MiB" in place.check("--slots", "4", inside=inside).passes("cgroup")


@root
@pytest.mark.skipif(not has_control_group("pids"), reason="no control group of processes can be made here")
def test_few_processes(place):
    with control_group("pids", v1={"pids.max": 20}, v2={"pids.max": 20}) as inside:
        assert "the agent wants 29 threads" in place.check(inside=inside).fails("cgroup")


def test_few_open_files(place):
    text = place.check(inside=["sh", "-c", 'ulimit -n 40; exec "$@"', "sh"]).fails("cgroup")
    assert "40 open files are not enough" in text and "ulimit -n" in text
    assert "the slots may want 148" in place.check(inside=["sh", "-c", 'ulimit -n 100; exec "$@"', "sh"]).warns("cgroup")


def test_security_software(place):
    copy = place.home / "falcon-sensor"
    shutil.copy(shutil.which("sleep"), copy)
    p = Process([copy, "60"], place.home, "edr")
    try:
        a = place.check()
    finally:
        p.stop()
    assert a.code == 0 and "CrowdStrike Falcon is active here (a process)" in a.warns("security") and "exception" in a.warns("security")


@root
@pytest.mark.parametrize("there", [True, False])
def test_metadata_service(place, there):
    """A network of its own, where the address answers or not."""
    commands = "ip link set lo up"
    if there:
        commands += (f"; ip addr add 169.254.169.254/32 dev lo; cd {place.home}; python3 -m http.server --bind 169.254.169.254 80 "
                     ">server.log 2>&1 & server=$!; for i in $(seq 150); do curl -s 169.254.169.254 >/dev/null && break; sleep 0.2; done")
    run_it = ["unshare", "-n", "--kill-child", "--mount-proc", "-p", "-f", "sh", "-c", commands + '; "$@"', "sh"]
    a = place.check("--only", "metadata", inside=run_it)
    if there:
        assert "answers at 169.254.169.254" in a.warns("metadata") and "NetworkPolicy" in a.warns("metadata")
    else:
        a.passes("metadata")


# --- names

@root
@pytest.mark.parametrize("silent", [True, False])
def test_name_server(place, silent):
    with NameServer(silent) as server:
        inside = with_resolv_conf(place.home / "resolv.conf", f"nameserver {server.address}\noptions timeout:1 attempts:1\n")
        a = place.check(POSTERN_GATEWAY_URL="https://gateway.postern.test", inside=inside)
    text = a.fails("dns")
    if silent:
        assert f"no name server answers: {server.address}" in text and "port 53" in text
    else:
        assert "know no such name" in text and "--gateway-url" in text
    assert a.checks["gateway"]["status"] == "SKIP" and "see dns" in a.checks["token"]["detail"]


@root
def test_no_name_server(place):
    inside = with_resolv_conf(place.home / "resolv.conf", "nameserver 127.0.0.78\nsearch example.com\n")  # nobody is there
    assert "no name server answers: 127.0.0.78" in place.check(POSTERN_GATEWAY_URL="https://gateway.postern.test", inside=inside).fails("dns")
    inside = with_resolv_conf(place.home / "resolv.conf", "# empty\n")
    text = place.check(POSTERN_GATEWAY_URL="https://gateway.postern.test", inside=inside).fails("dns")
    assert "names no server" in text or "no name server answers" in text


# --- the way

@root
def test_blocked_egress(place):
    """A network without any way out."""
    a = place.check(POSTERN_GATEWAY_URL="https://192.0.2.1", inside=in_namespace("ip link set lo up", "-n"))
    text = a.fails("gateway")
    assert "192.0.2.1:443" in text and "firewall" in text
    assert "see gateway" in a.checks["clock"]["detail"] and "see gateway" in a.checks["token"]["detail"]


def test_nobody_listens(place):
    assert "Failed to connect" in place.check(POSTERN_GATEWAY_URL=f"https://127.0.0.1:{free_port()}").fails("gateway")


def test_own_ca_is_not_trusted(place):
    a = place.check(POSTERN_CA_FILE=None)
    text = a.fails("tls")
    assert "issuer 'CN=Postern Test CA'" in text and "POSTERN_CA_FILE" in text and "firewallCa" in text
    assert "see tls" in a.checks["gateway"]["detail"]


def test_tls_inspection(place, mitmproxy):
    a = place.check(HTTPS_PROXY=mitmproxy.url)
    assert re.search(r"issuer '[^']*CN=mitmproxy", a.fails("tls")) and "inspects TLS" in a.fails("tls")
    assert "passes the connection on" in a.passes("proxy")
    a = place.check(HTTPS_PROXY=mitmproxy.url, POSTERN_CA_FILE=mitmproxy.ca)
    assert a.code == 0 and "CN=mitmproxy" in a.passes("tls") and "inspects TLS" in a.passes("tls")
    a.passes("token")


def test_expired_certificate(stack, place):
    from test_network import Unready
    cert, key = stack.ca.issue("expired", days=-1)
    gw = stack.add(Unready(stack, "--tls-cert", cert, "--tls-key", key, tls=True))
    assert "has expired" in place.check(POSTERN_GATEWAY_URL=gw.url).fails("tls")


def test_certificate_that_ends_soon(stack):
    gw = stack.gateway(tls=True)  # for two days
    a = Place(stack, gw).check()
    assert a.code == 0 and re.search(r"'CN=gateway' ends in [12] days?", a.warns("tls")) and "Renew" in a.warns("tls")


def test_plain_http(stack):
    gw = stack.gateway()
    place = Place(stack, gw)
    assert place.check().checks["tls"]["status"] == "SKIP"
    name = os.uname().nodename
    if name != "localhost":  # another name of this machine
        a = place.check("--only", "tls", POSTERN_GATEWAY_URL=f"http://{name}:{gw.port}")
        assert "unencrypted" in a.warns("tls")


def test_proxy_wants_a_login(place, tinyproxy_auth):
    text = place.check(HTTPS_PROXY=tinyproxy_auth.address).fails("proxy")
    assert "407" in text or "401" in text
    assert "user:password" in text
    a = place.check(HTTPS_PROXY=tinyproxy_auth.url.replace(tinyproxy_auth.password, "hunter2"))
    assert "does not accept the user and password" in a.fails("proxy") and "hunter2" not in a.p.stdout
    a = place.check(HTTPS_PROXY=tinyproxy_auth.url)
    assert a.code == 0 and tinyproxy_auth.password not in a.p.stdout
    a.passes("proxy")


def test_proxy_is_away(place):
    text = place.check(HTTPS_PROXY=f"http://127.0.0.1:{free_port()}").fails("proxy")
    assert "NO_PROXY" in text
    a = place.check(HTTPS_PROXY=f"http://127.0.0.1:{free_port()}", NO_PROXY="127.0.0.1")
    assert a.code == 0 and "directly" in a.passes("proxy")


def test_proxy_in_a_cluster(place, tinyproxy):
    cluster = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HTTPS_PROXY": tinyproxy.url, "POSTERN_TERMINATION_GRACE_SECONDS": 30}
    assert ".svc,.cluster.local" in place.check(**cluster).warns("proxy")
    place.check(**cluster, NO_PROXY=".svc,.cluster.local,10.0.0.0/8").passes("proxy")
    cluster["POSTERN_TERMINATION_GRACE_SECONDS"] = None
    assert "terminationGracePeriodSeconds" in place.check(**cluster).warns("environment")


@pytest.mark.parametrize("status, headers, words", [
    (404, {}, "as from an ingress without a rule"), (503, {}, "in front of the gateway"), (200, {}, "login page or a captive portal"),
    (302, {"Location": "https://login.example.com/?state=secret"}, "https://login.example.com/'"),
])
def test_somebody_else_answers(place, status, headers, words):
    with no_gateway(status, **headers) as other:
        a = place.check(POSTERN_GATEWAY_URL=other.url)
    assert words in a.fails("gateway") and "state=secret" not in a.p.stdout
    assert a.checks["token"]["status"] == "SKIP" and a.checks["clock"]["status"] == "SKIP"


# --- clock

@pytest.mark.skipif(not shutil.which("faketime"), reason="faketime is not installed; 'tools/deps test' does that")
@pytest.mark.skipif(sanitized(), reason="a sanitizer must be the first library that is loaded")
@pytest.mark.parametrize("offset, status, words", [("+10m", "FAIL", "ahead of the gateway's"), ("-10m", "FAIL", "behind the gateway's"),
                                                   ("+60s", "WARN", "ahead of the gateway's")])
def test_clock(stack, offset, status, words):
    place = Place(stack, stack.gateway())
    a = place.check(inside=["faketime", "-f", offset], FAKETIME_DONT_FAKE_MONOTONIC=1)
    c = a.checks["clock"]
    assert c["status"] == status and words in c["detail"] and "NTP" in c["fix"]
    assert a.named("FAIL") == (["clock"] if status == "FAIL" else [])
    assert "libfaketime" in a.warns("security")  # a library in every program is worth a word


# --- token and secrets

def test_token(place, gateway):
    gone = place.home / "gone.json"
    assert "mount the agent's key" in place.check(POSTERN_TOKEN_FILE=gone).fails("token").lower()
    assert "it is a folder" in place.check(POSTERN_TOKEN_FILE=place.home).fails("token").lower()
    write_private(gone, '{"key_id": "<key id>", "key_secret": "x"}')
    assert "placeholder" in place.check(POSTERN_TOKEN_FILE=gone).fails("token")
    gone.write_text("{")
    assert "is not a JSON object" in place.check(POSTERN_TOKEN_FILE=gone).fails("token")
    gone.write_text(json.dumps({"key_id": place.key.id, "key_secret": "wrong-but-long-enough"}))
    assert "does not accept key" in place.check(POSTERN_TOKEN_FILE=gone).fails("token")
    gateway.api("POST", f"/agents/{place.key.agent}/disable")
    a = place.check()
    assert a.code == 0 and "is not enabled" in a.warns("token") and "agents enable" in a.warns("token")


def test_revoked_token(place, gateway):
    gateway.api("DELETE", f"/keys/{place.key.id}")
    text = place.check().fails("token")
    assert "revoked" in text and "keys create" in text


def test_storage(place, swift):
    assert "POSTERN_STORAGE" in place.check().skips("storage")
    text = place.check(**swift.settings("work")).passes("storage")
    assert "s3://work" in text and "deleted" in text and "POSTERN_STORAGE_ACCESS_KEY" in text
    text = place.check(**swift.settings("work", SECRET_KEY="hunter2")).fails("storage")
    assert "s3://work" in text and "secret key" in text and "hunter2" not in text
    text = place.check(**swift.settings("absent")).fails("storage")
    assert "absent" in text
    swift.request("PUT", "/seen-by-all", x_amz_acl="public-read")
    assert "anybody can read it" in place.check(**swift.settings("seen-by-all")).warns("storage")
    a = place.check(POSTERN_STORAGE="S3_COMPATIBLE", POSTERN_STORAGE_BUCKET_NAME="x")
    assert "POSTERN_STORAGE_ENDPOINT_URL" in a.fails("environment") and "see environment" in a.skips("storage")


def test_integrations(place, stack):
    write_private(stack.credentials / "good.json", '{"connect_args": {"host": "h", "password": "hunter2"}}')
    write_private(stack.credentials / "empty.json", "{}")
    a = place.check()
    assert "1 secret is fine" in a.passes("integrations") and "placeholder" in a.passes("integrations")
    write_private(stack.credentials / "bad.json", '{"connect_args": {"password": "hunter2",}}')
    a = place.check(POSTERN_CREDENTIAL_SALES="hunter2")
    text = a.fails("integrations")
    assert "bad.json: the secret is not valid JSON" in text and "POSTERN_CREDENTIAL_SALES" in text and "hunter2" not in a.p.stdout


@root
def test_integrations_that_cannot_be_read(place, stack):
    """As Kubernetes mounts them: links to links."""
    data = stack.credentials / "..2026_01_01"
    data.mkdir()
    write_private(data / "sales.json", '{"connect_args": {}}')
    (stack.credentials / "..data").symlink_to("..2026_01_01")
    (stack.credentials / "sales.json").symlink_to("..data/sales.json")
    place.passes = place.check().passes("integrations")
    assert "1 secret is fine" in place.passes
    for p in (stack.credentials, data):
        p.chmod(0o755)
    for p in (place.key.file, place.spool):
        shutil.chown(p, 65534)
    text = place.check(inside=NOBODY).fails("integrations")
    assert "sales.json" in text and "Permission denied" in text


# --- the agent's port

def test_port(place, stack, origin):
    a = place.check(POSTERN_LISTEN=f"127.0.0.1:{origin.port}")
    assert "something else than an agent" in a.fails("agent")
    assert "Cannot assign requested address" in place.check(POSTERN_LISTEN="192.0.2.1:8080").fails("agent")
    assert "port is missing" in place.check(POSTERN_LISTEN="localhost").fails("agent")
    for listen in ("127.0.0.1:0", "systemd", ""):
        assert place.check("--listen", listen).checks["agent"]["status"] == "SKIP"


def test_agent_that_does_not_answer(place):
    with socket.create_server(("127.0.0.1", 0)) as s:
        text = place.check("--only", "agent", POSTERN_LISTEN=f"127.0.0.1:{s.getsockname()[1]}").fails("agent")
    assert "no answer" in text and "an agent that hangs" in text


def test_agent_that_is_not_ready(place, stack, gateway):
    agent = stack.agent(gateway, key=place.key, linked=False, gateway_url=f"https://127.0.0.1:{free_port()}")
    a = place.check(POSTERN_LISTEN=f"127.0.0.1:{agent.port}")
    assert "is not ready: the link is down" in a.fails("agent") and a.checks["agent"]["fix"].startswith("Does it run there")


# --- bounds

def test_something_hangs(place):
    """A token file that never ends: the whole is bounded, and what can be said is said."""
    fifo = place.home / "token"
    os.mkfifo(fifo)
    a = place.check("--timeout", "4s", POSTERN_TOKEN_FILE=fifo)
    assert a.code == 1 and "tls" in a.named("FAIL") and "did not end within" in a.checks["tls"]["detail"]
    assert a.checks["agent"]["detail"] == "no time was left for it"
    assert sum(c["elapsed_ms"] for c in a.doc["checks"]) < 5000


def test_every_check_is_documented():
    text = (pathlib.Path(__file__).resolve().parents[2] / "docs/check.md").read_text()
    assert re.findall(r"^### (\w+)$", text, re.M) == NAMES
