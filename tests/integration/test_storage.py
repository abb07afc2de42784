"""Object storage: the probe and the contract on a real S3 server that checks signatures (Swift), on a directory, with every source of
credentials.  The emulators that Debian does not have are in test_storage_emulated.py."""
import json
import os
import re
import socket
import urllib.parse

import pytest

from harness import clean_env, give, run, unprivileged
from product import write_private
from stores import TESTS, Swift, contract, probe
from web import Answers

SECRETS = re.compile(r"secret-of-|hunter2")


def failed(doc, step, code, native, message="", hint=""):
    assert (doc["step"], doc["code"], doc["native"]) == (step, code, native), doc
    assert message in doc["message"] and hint in doc["hint"] and doc["hint"], doc
    assert not SECRETS.search(json.dumps(doc)), doc


# --- S3

def test_contract_s3(swift):
    contract(swift.settings("work", PREFIX="contract"))


def test_probe_s3(swift):
    doc = probe(swift.settings("work", PREFIX="a=b + c@\u00e9(:)/%41"))
    assert doc["step"] == "" and doc["left"] is False and doc["credentials"] == "POSTERN_STORAGE_ACCESS_KEY"
    assert doc["access"] == "private" and doc["key"].startswith("a=b + c@\u00e9(:)/%41/postern-check-")
    assert "<Key>" not in swift.request("GET", "/work").text  # nothing is left behind
    assert "secret" not in json.dumps(doc["conf"]) and doc["conf"]["endpoint"] == swift.url


def test_public_bucket_is_seen(swift):
    swift.request("PUT", "/listable", x_amz_acl="public-read")
    doc = probe(swift.settings("listable"))
    assert doc["step"] == "" and doc["access"] == "public" and "access control list" in doc["why"]


@pytest.mark.parametrize("over,flags,want", [
    ({"SECRET_KEY": "hunter2"}, [], ("write", "source_auth_failed", "SignatureDoesNotMatch", "s3://work", "secret key")),
    ({"BUCKET_NAME": "absent"}, [], ("write", "not_found", "NoSuchBucket", "s3://absent", "create the bucket")),
    ({"ACCESS_KEY": "test:reader", "SECRET_KEY": "secret-of-reader"}, [],
     ("write", "source_permission_denied", "AccessDenied", "", "s3:PutObject on bucket work")),
    ({"REGION": "eu-west-1"}, [], ("write", "invalid_request", "AuthorizationHeaderMalf", "us-east-1", "POSTERN_STORAGE_REGION=us-east-1")),
    ({}, ["--ahead", "1h"], ("write", "source_auth_failed", "RequestTimeTooSkewed", "", "NTP")),
], ids=["secret", "bucket", "permission", "region", "clock"])
def test_refusals_of_s3(swift, over, flags, want):
    failed(probe(swift.settings("work", **over), *flags), *want)


def test_each_missing_permission_is_named(swift):
    """A bucket that all may list and nobody but the owner may write to; one that reader may write to, but not list."""
    swift.request("PUT", "/readable", x_amz_acl="public-read")
    doc = probe(swift.settings("readable", user="test:reader"))
    failed(doc, "write", "source_permission_denied", "AccessDenied", "write: ", "s3:PutObject")
    swift.request("PUT", "/drop", x_amz_grant_write='id="test:reader"')
    doc = probe(swift.settings("drop", user="test:reader"))
    failed(doc, "list", "source_permission_denied", "AccessDenied", "list: ", "s3:ListBucket")
    assert doc["left"] is False
    assert "<Key>" not in swift.request("GET", "/drop").text  # deleted although the list failed


def test_a_wrong_endpoint_is_told_apart(swift, origin):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{s.getsockname()[1]}"
        failed(probe(swift.settings("work", ENDPOINT_URL=closed)), "write", "connect_failed", "")
    with Answers({}) as console:
        doc = probe(swift.settings("work", ENDPOINT_URL=console.url))
        failed(doc, "write", "not_found", "404", "without an error document", "web console")
    failed(probe(swift.settings("work", ENDPOINT_URL="http://store.invalid")), "write", "host_unknown", "")


def test_a_store_that_does_not_keep_its_word(swift):
    """Other bytes than were written, a list without the new object, and an object that cannot be deleted."""
    denied = (403, "application/xml", "<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
    with Answers({"PUT *": (200, "", ""), "GET *": (200, "text/plain", "something else"), "DELETE *": denied}) as store:
        doc = probe(swift.settings("work", ENDPOINT_URL=store.url))
        failed(doc, "read", "corrupt_data", "", "other bytes", "proxy")
        assert doc["left"] is True  # the failed read is what is told, not the failed delete

    class Memory(dict):
        """Keeps objects, lists nothing, and does not delete."""
        def get(self, what, default=None):
            method, path = what.split(" ", 1)
            if method == "PUT" and path != "*":
                self[path] = True
            if method == "GET" and path in self:
                key = path.rsplit("/", 1)[1]
                return (200, "text/plain", f"{key}: written to see whether this store works; it may be deleted\n")
            if method == "GET" and path != "*":
                return (200, "application/xml", "<ListBucketResult></ListBucketResult>")
            return {"PUT": (200, "", ""), "DELETE": denied}.get(method, default)

    memory = Memory()
    with Answers(memory) as store:
        doc = probe(swift.settings("work", ENDPOINT_URL=store.url))
        failed(doc, "list", "corrupt_data", "", "not in the list")
        assert doc["left"] is True


def test_through_a_proxy(swift, squid):
    assert probe(swift.settings("work"), "--http-proxy", squid.url)["step"] == ""
    assert squid.saw(f"127.0.0.1:{swift.port}")


def test_keys_from_files(swift, home):
    files = {"ACCESS_KEY_FILE": write_private(home / "id", "test:ada\n"), "SECRET_KEY_FILE": write_private(home / "key", "secret-of-ada\n")}
    env = swift.settings("work", ACCESS_KEY=None, SECRET_KEY=None, **{k: str(v) for k, v in files.items()})
    assert probe(env)["credentials"] == "POSTERN_STORAGE_ACCESS_KEY_FILE"
    files["SECRET_KEY_FILE"].unlink()
    failed(probe(env), "credentials", "credential_unavailable", "", "No such file", "mounted")


# --- S3 by identity

def s3_without_keys(swift, **env):
    return {**swift.settings("work", ACCESS_KEY=None, SECRET_KEY=None, **{"": "S3"}), **env}


def test_keys_of_the_environment(swift):
    env = s3_without_keys(swift, AWS_ACCESS_KEY_ID="test:ada", AWS_SECRET_ACCESS_KEY="secret-of-ada", AWS_SESSION_TOKEN="a+b/c=")
    assert probe(env)["credentials"] == "AWS_ACCESS_KEY_ID"
    failed(probe({**env, "AWS_REGION": "eu-west-1"}), "write", "invalid_request", "AuthorizationHeaderMalf", "", "now eu-west-1")
    failed(probe(s3_without_keys(swift)), "settings", "invalid_request", "", "no credentials", "IRSA")


STS = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials>
<AccessKeyId>test:ada</AccessKeyId><SecretAccessKey>secret-of-ada</SecretAccessKey><SessionToken>session</SessionToken>
<Expiration>{expires}</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


def web_identity(swift, home, sts):
    token = write_private(home / "token", "eyJ.web+identity/\n")
    return s3_without_keys(swift, AWS_ROLE_ARN="arn:aws:iam::123456789012:role/agent", AWS_WEB_IDENTITY_TOKEN_FILE=str(token),
                           AWS_ENDPOINT_URL_STS=sts.url + "/", AWS_REGION="us-east-1")


def test_irsa(swift, home):
    with Answers({"POST /": (200, "text/xml", STS.format(expires="2100-01-01T00:00:00Z"))}) as sts:
        assert probe(web_identity(swift, home, sts))["credentials"] == "AWS_WEB_IDENTITY_TOKEN_FILE"
        form = dict(urllib.parse.parse_qsl(sts.seen[0][2]))
        assert form == {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleArn": "arn:aws:iam::123456789012:role/agent",
                        "RoleSessionName": "postern", "WebIdentityToken": "eyJ.web+identity/"}
        assert len(sts.seen) == 1  # the keys last
        sts.answers["POST /"] = (200, "text/xml", STS.format(expires="2001-01-01T00:00:00Z"))
        assert probe(web_identity(swift, home, sts))["step"] == ""
        assert len(sts.seen) > 4  # these do not


def test_irsa_refused(swift, home):
    refusal = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message></Error></ErrorResponse>"
    with Answers({"POST /": (403, "text/xml", refusal)}) as sts:
        doc = probe(web_identity(swift, home, sts))
        failed(doc, "credentials", "credential_unavailable", "", "Not authorized to perform sts:AssumeRoleWithWebIdentity", "trust")
        assert "role/agent" in doc["message"]
        sts.answers["POST /"] = (200, "text/html", "<html>login</html>")
        assert "no keys" in probe(web_identity(swift, home, sts))["message"]


def test_pod_identity(swift, home):
    keys = {"AccessKeyId": "test:ada", "SecretAccessKey": "secret-of-ada", "Token": "session", "Expiration": "2100-01-01T00:00:00Z"}
    with Answers({"GET /v1/credentials": (200, "application/json", json.dumps(keys))}) as agent, Answers({}) as proxy:
        env = s3_without_keys(swift, AWS_CONTAINER_CREDENTIALS_FULL_URI=agent.url + "/v1/credentials",
                              AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(write_private(home / "token", "pod-token\n")))
        assert probe(env)["credentials"] == "AWS_CONTAINER_CREDENTIALS_FULL_URI"
        assert agent.seen[0][1]["Authorization"] == "pod-token"
        # a proxy is for the store, never for the pod's own token
        failed(probe(env, "--http-proxy", proxy.url), "write", "not_found", "404", "without an error document")
        assert len(agent.seen) == 2 and all(path.startswith(swift.url) for path, _, _ in proxy.seen)
        agent.answers["GET /v1/credentials"] = (403, "application/json", '{"message": "no association for this pod"}')
        failed(probe(env), "credentials", "credential_unavailable", "", "no association for this pod", "Pod Identity")


# --- GCS: its XML API is S3's

def test_gcs_with_an_hmac_key(home):
    """On Swift in region "auto", which is how requests to Google are signed."""
    server = Swift(home, region="auto")
    try:
        server.request("PUT", "/work")
        env = server.settings("work", **{"": "GCS"})
        doc = probe(env)
        assert doc["step"] == "" and doc["credentials"] == "POSTERN_STORAGE_ACCESS_KEY" and doc["access"] == "private"
        contract({**env, "POSTERN_STORAGE_PREFIX": "contract"})
        failed(probe({**env, "POSTERN_STORAGE_SECRET_KEY": "hunter2"}), "write", "source_auth_failed", "SignatureDoesNotMatch")
    finally:
        server.stop()


def test_gcs_with_workload_identity(swift):
    path = "/computeMetadata/v1/instance/service-accounts/default/token"
    token = json.dumps({"access_token": "ya29.hunter2", "expires_in": 3599, "token_type": "Bearer"})
    with Answers({f"GET {path}": (200, "application/json", token)}) as metadata, Answers({}) as store:
        env = {"POSTERN_STORAGE": "GCS", "POSTERN_STORAGE_BUCKET_NAME": "work", "POSTERN_STORAGE_ENDPOINT_URL": store.url,
               "GCE_METADATA_HOST": metadata.url[7:]}
        failed(probe(env), "write", "not_found", "404")
        assert metadata.seen[0][1]["Metadata-Flavor"] == "Google"
        assert store.seen[0][0].startswith("/work/postern-check-") and store.seen[0][1]["Authorization"] == "Bearer ya29.hunter2"
        metadata.answers[f"GET {path}"] = (200, "application/json", token.replace("3599", str(2**63 - 1)))
        failed(probe(env), "write", "not_found", "404")
        assert len(metadata.seen) == 2  # asked once for each probe: a token without an end is a good one
        metadata.answers.clear()
        failed(probe(env), "credentials", "credential_unavailable", "", "metadata server", "Workload Identity")


# --- the clouds' own addresses

@pytest.mark.parametrize("env,host", [
    ({"": "S3", "REGION": "eu-west-1"}, "work.s3.eu-west-1.amazonaws.com"),
    ({"": "S3"}, "work.s3.us-east-1.amazonaws.com"),
    ({"": "S3", "REGION": "cn-north-1"}, "work.s3.cn-north-1.amazonaws.com.cn"),
    ({"": "S3", "BUCKET_NAME": "a.work"}, "s3.us-east-1.amazonaws.com"),
    ({"": "GCS"}, "storage.googleapis.com"),
    ({"": "AZURE_BLOB", "ACCOUNT_NAME": "acct1", "ACCESS_KEY": "aHVudGVyMmh1bnRlcjJodW50ZXIy", "SECRET_KEY": ""},
     "acct1.blob.core.windows.net"),
], ids=["region", "default", "china", "dots", "gcs", "azure"])
def test_addresses_of_the_clouds(env, host):
    """As a proxy is told them, which lets nobody through."""
    env = {"BUCKET_NAME": "work", "ACCESS_KEY": "GOOG1", "SECRET_KEY": "hunter2", **env}
    with Answers({}) as proxy:
        doc = probe({("POSTERN_STORAGE_" + k).rstrip("_"): v for k, v in env.items()}, "--https-proxy", proxy.url)
        failed(doc, "write", "proxy_failed", "404")
        assert {path for path, _, _ in proxy.seen} == {host + ":443"}


# --- a directory

def test_directory(home):
    env = {"POSTERN_STORAGE": "DIRECTORY", "POSTERN_STORAGE_BUCKET_NAME": str(home / "volume"), "POSTERN_STORAGE_PREFIX": "a/b"}
    failed(probe(env), "credentials", "not_found", "", "volume", "mount the volume")
    (home / "volume").mkdir()
    doc = probe(env)
    assert doc["step"] == "" and doc["access"] == "unknown" and not list((home / "volume/a/b").iterdir())
    contract({**env, "POSTERN_STORAGE_PREFIX": "contract"})


def test_directory_that_is_not_ours(home):
    (home / "volume").mkdir(mode=0o755)
    env = clean_env(POSTERN_STORAGE="DIRECTORY", POSTERN_STORAGE_BUCKET_NAME=home / "volume")
    user = unprivileged("nobody")
    if user:
        give(home, user)
        os.chown(home / "volume", 0, 0)
    else:
        (home / "volume").chmod(0o555)
    as_user = {"user": user, "group": "nogroup", "extra_groups": []} if user else {}
    p = run(TESTS / "store_probe", env=env, check=False, **as_user)
    failed(json.loads(p.stdout), "write", "source_permission_denied", "", "Permission denied", "fsGroup")
