"""The image as `tools/image --local` makes it: what is in it, what is not, and that it runs as clusters run it."""
import hashlib
import json
import os
import secrets
import shutil
import ssl
import stat
import subprocess

import pytest

from container import ROOT, USERS
from harness import free_port, request, run, wait_until

import oci


def entries(image):
    """Every path of the file system with its lstat."""
    for where, folders, files in os.walk(image.root):
        for name in folders + files:
            path = os.path.join(where, name)
            yield path[len(str(image.root)):], os.lstat(path)


def sbom(archive):
    return json.loads((archive.parent / archive.name.replace(".oci.tar", ".spdx.json")).read_text())


# --- the archive

def test_the_same_commit_gives_the_same_image_elsewhere(archive, home):
    source = home / "elsewhere"
    listed = subprocess.check_output(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True)
    for name in filter(os.path.exists, listed.split("\0")[:-1]):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    first = oci.read(archive)
    labels = first["config"]["Labels"]
    env = dict(os.environ, REVISION=labels["org.opencontainers.image.revision"], CREATED=labels["org.opencontainers.image.created"])
    subprocess.check_call([source / "tools/image", "--local"], env=env)
    again, = source.glob("build/image/archive/*.oci.tar")
    assert oci.read(again)["digest"] == first["digest"]
    assert sbom(again) == sbom(archive)


def test_it_is_small_and_a_larger_one_is_refused(archive, home):
    assert oci.read(archive)["size"] <= 15e6
    p = run(ROOT / "tools/image", "--local", "--output", home / "limited", "--limit", "1", check=False)
    assert p.returncode == 1 and "too large" in p.stderr and "at most 1" in p.stdout


@pytest.mark.parametrize("transport", ["oci-archive", "docker-archive"])
def test_other_programs_read_the_archive(archive, home, transport):
    where = home / transport
    run("skopeo", "copy", "--insecure-policy", f"{transport}:{archive}:{'postern/postern:' if transport == 'docker-archive' else ''}0.1.0",
        f"dir:{where}")
    got = json.loads((where / "manifest.json").read_text())
    ours = [digest["digest"] for digest in got["layers"]]
    assert len(ours) == len(oci.read(archive)["layers"])
    config = json.loads((where / got["config"]["digest"].partition(":")[2]).read_text())["config"]
    assert config["User"] == "65534:65534" and config["Entrypoint"] == ["/usr/bin/postern"]
    assert config["Labels"]["org.opencontainers.image.version"] == "0.1.0"


def test_containerd_gets_the_complete_name(archive):
    """Kubelets ask containerd for docker.io/postern/postern, however short the name in the manifest of a pod is."""
    index = json.loads(subprocess.check_output(["tar", "-xOf", archive, "index.json"]))
    names = [m["annotations"]["io.containerd.image.name"] for m in index["manifests"]]
    assert names == ["docker.io/postern/postern:0.1.0", "docker.io/postern/postern:latest"]
    assert oci.full_name("localhost/a:1") == "localhost/a:1" and oci.full_name("r.example:5000/a/b:1") == "r.example:5000/a/b:1"
    assert oci.full_name("busybox:1") == "docker.io/library/busybox:1"


def test_configuration(image):
    c = image.config
    assert c["Healthcheck"]["Test"] == ["CMD", "/usr/bin/postern", "check", "live"]
    assert c["ExposedPorts"] == {"8080/tcp": {}} and c["Env"] == ["PATH=/usr/bin"]


# --- what is in it

def test_no_shell_and_nothing_else_to_run(image):
    runnable = {path for path, s in entries(image) if stat.S_ISREG(s.st_mode) and s.st_mode & 0o111}
    assert {os.path.basename(p) for p in runnable if "/lib/" not in p} == {"postern"}
    for name in ("sh", "bash", "dash", "busybox", "apt", "apt-get", "dpkg", "perl", "python3", "curl"):
        assert not any(os.path.basename(path) == name and not stat.S_ISDIR(s.st_mode) for path, s in entries(image)), name


def test_modes_and_owners(image):
    writable_by_all, special, owned = [], [], []
    for path, s in entries(image):
        if stat.S_ISLNK(s.st_mode):
            continue
        if s.st_mode & 0o002:
            writable_by_all.append(path)
        if s.st_mode & (stat.S_ISUID | stat.S_ISGID):
            special.append(path)
        if (s.st_uid, s.st_gid) != (0, 0):
            owned.append((path, s.st_uid, s.st_gid, stat.S_IMODE(s.st_mode)))
    assert writable_by_all == ["/tmp"] and special == []
    assert sorted(owned) == [("/var/lib/postern", 65534, 0, 0o775), ("/var/lib/postern/spool", 65534, 0, 0o775)]


def test_no_link_leads_nowhere(image):
    for path, s in entries(image):
        if stat.S_ISLNK(s.st_mode):
            target = os.path.join(os.path.dirname(path), os.readlink(image.root / path[1:]))
            assert inside(image, target), f"{path} leads to {target}"


def inside(image, path):
    """Does a path exist when the image's root is the root?"""
    at = ""
    for name in os.path.normpath(path).strip("/").split("/"):
        at += "/" + name
        here = str(image.root) + at
        if os.path.islink(here):
            at = os.path.normpath(os.path.join(os.path.dirname(at), os.readlink(here)))
            if not inside(image, at):
                return False
    return os.path.lexists(str(image.root) + at)


def test_certificates_are_those_of_the_package(image):
    """All of Debian's and none that this machine trusts besides."""
    folder = "/usr/share/ca-certificates/mozilla"
    wanted = {ssl.PEM_cert_to_DER_cert(open(os.path.join(folder, n), encoding="ascii").read()) for n in os.listdir(folder)}
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.load_verify_locations(image.root / "etc/ssl/certs/ca-certificates.crt")
    assert set(c.get_ca_certs(binary_form=True)) == wanted and len(wanted) > 100


# --- the list of what is in it

def test_sbom_is_valid(archive, pyspdxtools):
    p = run(pyspdxtools, "--version", "SPDX-2.3", "-i", archive.parent / archive.name.replace(".oci.tar", ".spdx.json"), check=False)
    assert p.returncode == 0, p.stdout + p.stderr


def test_sbom_has_every_file_once(image, archive):
    doc = sbom(archive)
    listed = {f["fileName"][1:]: f for f in doc["files"]}
    there = {path for path, s in entries(image) if stat.S_ISREG(s.st_mode)}
    assert set(listed) == there
    for path, f in listed.items():
        sums = {c["algorithm"]: c["checksumValue"] for c in f["checksums"]}
        assert sums["SHA256"] == hashlib.sha256((image.root / path[1:]).read_bytes()).hexdigest(), path
    contains = [r["relatedSpdxElement"] for r in doc["relationships"]
                if r["relationshipType"] == "CONTAINS" and r["relatedSpdxElement"].startswith("SPDXRef-File-")]
    assert sorted(contains) == sorted(f["SPDXID"] for f in doc["files"])


def test_sbom_names_packages_as_dpkg_does(archive):
    packages = {p["name"]: p for p in sbom(archive)["packages"]}
    for name in ("libc6", "libcurl4", "libssl3", "libpq5", "libsqlite3-0", "ca-certificates"):
        assert packages[name]["versionInfo"] == subprocess.check_output(["dpkg-query", "-W", "-f", "${Version}", name], text=True)
    assert packages["libjansson4"]["licenseDeclared"] == "MIT" and packages["zlib1g"]["licenseDeclared"] == "Zlib"
    assert packages["postern"]["licenseDeclared"] == "Apache-2.0"


def test_every_package_has_its_licence_and_its_status(image, archive):
    for p in sbom(archive)["packages"]:
        if p["SPDXID"] == "SPDXRef-Image":
            continue
        assert inside(image, f"/usr/share/doc/{p['name']}/copyright"), p["name"]
        if p["name"] != "postern":
            status = (image.root / "var/lib/dpkg/status.d" / p["name"]).read_text()
            assert f"\nVersion: {p['versionInfo']}\n" in status


# --- it runs

@pytest.mark.parametrize("who", USERS)
def test_commands_run(image, who):
    user = USERS[who]
    assert image.run(user, "version").stdout.startswith("postern ")
    p = image.run(user, "agent", "--print-config", env={"POSTERN_GATEWAY_URL": "https://gateway.test", "POSTERN_TOKEN_FILE": "/token.json"})
    assert p.returncode == 0 and "https://gateway.test" in p.stdout, p.stdout + p.stderr


@pytest.mark.parametrize("who", USERS)
def test_gateway_and_agent_over_tls(image, home, ca, who):
    """Names come from /etc/hosts, the gateway's is one of them; data lies in a volume; each ends on SIGTERM."""
    user, where = USERS[who], home / secrets.token_hex(4)
    data, spool = where / "data", where / "spool"
    for folder in (where, data, spool):
        folder.mkdir(mode=0o755)
    for folder in (data, spool):
        os.chown(folder, 0, user[1])
        folder.chmod(0o775)
    cert, key = ca.issue(where.name, sans="DNS:gateway.test,DNS:localhost")
    token = f"pts_{secrets.token_urlsafe(32)}"
    (where / "owner-token").write_text(token)
    (where / "hosts").write_text("127.0.0.1 localhost\n127.0.0.1 gateway.test\n")
    for private in (key, where / "owner-token"):
        os.chown(private, *user)
    port, local = free_port(), free_port()
    gateway = image.start("gateway", user, "gateway", "--listen", f"127.0.0.1:{port}", "--tls-cert", "/tls/cert", "--tls-key", "/tls/key",
                          "--owner-token-file", "/tls/token", binds={
                              "/var/lib/postern": data, "/tls/cert": cert, "/tls/key": key, "/tls/token": where / "owner-token"})
    url = f"https://localhost:{port}"

    def api(method, path, body=None):
        r = request(method, url + path, body, token=token, ca=ca.cert)
        assert r.status < 300, r
        return r.json() if r.body else None

    def answers(url, **kw):
        try:
            return request("GET", url + "/readyz", **kw).status == 200
        except OSError:
            return False

    gateway.until(lambda: answers(url, ca=ca.cert), 20, "the gateway is ready")
    agent_id = api("POST", "/api/v1/agents", {"name": "warehouse"})["id"]
    api("POST", f"/api/v1/agents/{agent_id}/enable")
    made = api("POST", f"/api/v1/agents/{agent_id}/keys", {"name": "test"})
    (where / "token.json").write_text(json.dumps({"key_id": made["key_id"], "key_secret": made["key_secret"]}))
    os.chown(where / "token.json", *user)
    agent = image.start("agent", user, "agent", env={
        "POSTERN_GATEWAY_URL": f"https://gateway.test:{port}", "POSTERN_CA_FILE": "/etc/postern/ca/ca.crt",
        "POSTERN_TOKEN_FILE": "/etc/secrets/postern-agent-token/contents.json", "POSTERN_LISTEN": f"127.0.0.1:{local}"}, binds={
            "/var/lib/postern/spool": spool, "/etc/postern/ca/ca.crt": ca.cert, "/etc/hosts": where / "hosts",
            "/etc/secrets/postern-agent-token/contents.json": where / "token.json"})
    agent.until(lambda: answers(f"http://127.0.0.1:{local}"), 20, "the agent is ready")

    op = api("POST", "/api/v1/operations", {"type": "network.dns", "agent": agent_id, "input": {"name": "gateway.test"}})
    done = wait_until(lambda: (d := api("GET", f"/api/v1/operations/{op['id']}?wait=5")).get("finished_at") and d, 20, "the operation ends")
    assert done["state"] == "succeeded", done
    assert os.listdir(data) and os.listdir(spool)
    assert agent.stop() == 0 and gateway.stop() == 0


def test_the_root_is_read_only_and_a_missing_volume_is_named(image, home):
    """Without a volume there is nowhere to spool to: the agent says so, and does not start."""
    token = home / "any-token.json"
    token.write_text('{"key_id": "ptk_1", "key_secret": "s"}')
    p = image.run((65534, 65534), "agent", binds={"/token.json": token},
                  env={"POSTERN_GATEWAY_URL": "https://gateway.test", "POSTERN_TOKEN_FILE": "/token.json", "POSTERN_LISTEN": ""})
    assert p.returncode != 0 and "/var/lib/postern/spool" in p.stderr and "Read-only file system" in p.stderr, p
