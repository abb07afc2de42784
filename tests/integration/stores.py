"""Object stores that the tests start, and a small S3 client of the tests' own (its signatures are not made by the code under test)."""
import base64
import datetime
import hashlib
import hmac
import json
import pathlib
import urllib.parse

from harness import Process, can_connect, clean_env, request, retry_port, run
from product import BIN

TESTS = BIN.parents[2] / "tests"  # programs of the tests in the same build
SWIFT = pathlib.Path(__file__).with_name("swift_server.py")


def s3_request(method, url, access, secret, body=b"", headers=None, region="us-east-1"):
    """Do an S3 request, signed by AWS's description of Signature Version 4."""
    u = urllib.parse.urlsplit(url)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    signed = {"host": u.netloc, "x-amz-content-sha256": digest, "x-amz-date": now, **(headers or {})}
    names = ";".join(sorted(signed))
    query = "&".join(sorted(p if "=" in p else p + "=" for p in u.query.split("&"))) if u.query else ""
    canonical = "\n".join([method, u.path, query, *(f"{k}:{signed[k]}" for k in sorted(signed)), "", names, digest])
    scope = f"{now[:8]}/{region}/s3/aws4_request"
    key = ("AWS4" + secret).encode()
    for part in (now[:8], region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    to_sign = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    del signed["host"]
    signed["Authorization"] = f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={signature}"
    return request(method, url, body or None, headers=signed)


def probe(env, *flags):
    """Probe the store of these settings as the agent would; what came of it."""
    p = run(TESTS / "store_probe", *flags, env=clean_env(**env), check=False)
    doc = json.loads(p.stdout)
    assert (p.returncode == 0) == (doc["step"] == ""), p
    return doc


def contract(env):
    """The contract suite of stores, on this one."""
    p = run(TESTS / "store_contract", env=clean_env(**env), check=False)
    assert p.returncode == 0, "\n".join(line for line in p.stdout.splitlines() if not line.startswith("ok"))


class Swift(Process):
    """OpenStack Swift with its S3 API, which checks signatures, payload hashes and the clock.  .url is the endpoint; users: test:ada (may
    do everything), test:reader (what ACLs permit)."""

    def __init__(self, home, name="swift", region="us-east-1"):
        self.home = pathlib.Path(home) / name
        self.home.mkdir()
        self._name, self.region = name, region
        retry_port(self._start)

    def _start(self, port):
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        super().__init__(["/usr/bin/python3", "-B", SWIFT, self.home, port, self.region], self.home.parent, self._name,
                         env=clean_env(HOME=self.home))
        self.until(lambda: "ready" in self.text(), 60, "Swift serves")

    def request(self, method, path, body=b"", user="test:ada", **headers):
        r = s3_request(method, self.url + path, user, f"secret-of-{user.split(':')[1]}", body,
                       {k.replace("_", "-"): v for k, v in headers.items()}, self.region)
        assert r.status < 300, r
        return r

    def settings(self, bucket, user="test:ada", **over):
        """POSTERN_STORAGE…; over replaces by the rest of the name (SECRET_KEY=…), None removes."""
        env = {"": "S3_COMPATIBLE", "BUCKET_NAME": bucket, "ENDPOINT_URL": self.url, "ACCESS_KEY": user,
               "SECRET_KEY": f"secret-of-{user.split(':')[1]}", **over}
        return {("POSTERN_STORAGE_" + k).rstrip("_"): v for k, v in env.items() if v is not None}


EMULATORS = pathlib.Path(__file__).resolve().parents[2] / "build/emulators"  # filled by tools/emulators
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # public, of its documentation


class Azurite(Process):
    """Azure Blob Storage's emulator, which checks Shared Key signatures.  tls: with a certificate, and then also OAuth tokens, of which it
    checks the claims."""
    program = EMULATORS / "node_modules/.bin/azurite-blob"

    def __init__(self, home, ca=None, name="azurite"):
        self.home = pathlib.Path(home) / name
        self.home.mkdir()
        self._name, self.ca = name, ca
        retry_port(self._start)

    def _start(self, port):
        self.port, self.url = port, f"{'https' if self.ca else 'http'}://127.0.0.1:{port}"
        argv = ["node", self.program, "--blobHost", "127.0.0.1", "--blobPort", port, "--location", self.home, "--disableTelemetry"]
        if self.ca:
            cert, key = self.ca.issue(self._name)
            argv += ["--cert", cert, "--key", key, "--oauth", "basic"]
        super().__init__(argv, self.home.parent, self._name, env=clean_env(HOME=self.home))
        self.until(lambda: "successfully listens" in self.text(), 60, "Azurite listens")

    def make(self, container, **headers):
        """Create a container; headers: x_ms_blob_public_access="container"."""
        account = "devstoreaccount1"
        h = {"x-ms-date": datetime.datetime.now(datetime.timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT"),
             "x-ms-version": "2021-12-02", **{k.replace("_", "-"): v for k, v in headers.items()}}
        text = "PUT" + "\n" * 12 + "".join(f"{k}:{h[k]}\n" for k in sorted(h)) + f"/{account}/{account}/{container}\nrestype:container"
        h["Authorization"] = f"SharedKey {account}:" + base64.b64encode(
            hmac.new(base64.b64decode(AZURITE_KEY), text.encode(), hashlib.sha256).digest()).decode()
        r = request("PUT", f"{self.url}/{account}/{container}?restype=container", headers=h, ca=self.ca and self.ca.cert)
        assert r.status == 201, r

    def settings(self, container, **over):
        env = {"": "AZURE_BLOB", "BUCKET_NAME": container, "ENDPOINT_URL": self.url, "ACCOUNT_NAME": "devstoreaccount1",
               "ACCESS_KEY": AZURITE_KEY, **over}
        return {("POSTERN_STORAGE_" + k).rstrip("_"): v for k, v in env.items() if v is not None}


class Moto(Process):
    """AWS's emulator: S3 and STS.  It checks no signature."""
    program = EMULATORS / "venv/bin/moto_server"

    def __init__(self, home, name="moto"):
        self._home, self._name = home, name
        retry_port(self._start)

    def _start(self, port):
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        super().__init__([self.program, "-H", "127.0.0.1", "-p", port], self._home, self._name, env=clean_env(HOME=self._home))
        self.until(lambda: can_connect(port), 60, "moto listens")
