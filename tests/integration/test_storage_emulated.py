"""Object storage on emulators that Debian does not have: Azure Blob Storage (Azurite), AWS STS (moto).  `tools/emulators` installs them; what
is not there is skipped."""
import base64
import json
import time

import pytest

from product import write_private
from stores import Azurite, Moto, contract, probe, s3_request
from test_storage import failed
from web import Answers


@pytest.fixture(scope="module")
def azurite(session_home):
    if not Azurite.program.exists():
        pytest.skip("Azurite is not installed: tools/emulators")
    server = Azurite(session_home)
    server.make("work")
    server.make("open", x_ms_blob_public_access="container")
    yield server
    server.stop()


def test_contract_azure(azurite):
    contract(azurite.settings("work", PREFIX="contract"))


def test_probe_azure(azurite):
    doc = probe(azurite.settings("work", PREFIX="a=b + c@\u00e9(:)/%41"))
    assert doc["step"] == "" and doc["access"] == "private" and doc["left"] is False
    assert probe(azurite.settings("open"))["access"] == "public"


def test_refusals_of_azure(azurite):
    wrong = base64.b64encode(b"hunter2" * 8).decode()
    failed(probe(azurite.settings("work", ACCESS_KEY=wrong)), "write", "source_permission_denied", "AuthorizationFailure", "", "key")
    failed(probe(azurite.settings("absent")), "write", "not_found", "ContainerNotFound", "absent", "create the container")


def test_azure_workload_identity(session_home, home, ca):
    if not Azurite.program.exists():
        pytest.skip("Azurite is not installed: tools/emulators")
    now = int(time.time())
    part = [base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in (
        {"alg": "none", "typ": "JWT"}, {"aud": "https://storage.azure.com", "iss": "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/",
                                        "iat": now, "nbf": now - 60, "exp": now + 3600, "oid": "x"})]
    token = json.dumps({"access_token": ".".join([*part, "sig"]), "expires_in": 3599})
    server = Azurite(session_home, ca, "azurite-tls")
    try:
        server.make("work")
        with Answers({"POST /tenant-1/oauth2/v2.0/token": (200, "application/json", token)}) as entra:
            env = {**server.settings("work", ACCESS_KEY=None), "AZURE_CLIENT_ID": "client-1", "AZURE_TENANT_ID": "tenant-1",
                   "AZURE_AUTHORITY_HOST": entra.url + "/", "AZURE_FEDERATED_TOKEN_FILE": str(write_private(home / "token", "jwt.of.pod"))}
            doc = probe(env, "--ca-file", str(ca.cert))
            assert doc["step"] == "" and doc["credentials"] == "workload identity", doc
            assert "client_assertion=jwt.of.pod" in entra.seen[0][2] and "scope=https%3A%2F%2Fstorage.azure.com%2F.default" in entra.seen[0][2]
            entra.answers["POST /tenant-1/oauth2/v2.0/token"] = (400, "application/json", '{"error": "x", "error_description": "AADSTS70021: no match"}')
            failed(probe(env, "--ca-file", str(ca.cert)), "credentials", "credential_unavailable", "", "AADSTS70021", "federated")
    finally:
        server.stop()


def test_irsa_with_moto(session_home, home):
    if not Moto.program.exists():
        pytest.skip("moto is not installed: tools/emulators")
    server = Moto(session_home)
    try:
        assert s3_request("PUT", server.url + "/work", "a", "b").status == 200
        env = {"POSTERN_STORAGE": "S3", "POSTERN_STORAGE_BUCKET_NAME": "work", "POSTERN_STORAGE_ENDPOINT_URL": server.url,
               "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/agent", "AWS_ENDPOINT_URL_STS": server.url,
               "AWS_WEB_IDENTITY_TOKEN_FILE": str(write_private(home / "token", "eyJ.a.b"))}
        doc = probe(env)
        assert doc["step"] == "" and doc["credentials"] == "AWS_WEB_IDENTITY_TOKEN_FILE"
        contract({**env, "POSTERN_STORAGE_PREFIX": "contract"})
    finally:
        server.stop()
