"""The agent's storage settings: refused at start when they contradict, shown without secrets, and never in the way of other work."""
from harness import clean_env, run
from product import BIN, write_private


def test_the_agent_refuses_settings_that_contradict(home):
    env = {"POSTERN_STORAGE": "S3_COMPATIBLE", "POSTERN_STORAGE_BUCKET_NAME": "work", "POSTERN_STORAGE_SECRET_KEY": "hunter2"}
    token = write_private(home / "token.json", '{"key_id": "key_1", "key_secret": "pts_x"}')
    argv = [BIN, "agent", "--gateway-url", "http://127.0.0.1:9", "--token-file", token, "--spool-dir", home / "spool", "--listen", ""]
    p = run(*argv, env=clean_env(**env), check=False)
    assert p.returncode == 64 and "POSTERN_STORAGE_ENDPOINT_URL is not set" in p.stderr and "hint: " in p.stderr
    p = run(*argv, "--print-config", env=clean_env(**env))
    assert "hunter2" not in p.stdout and "POSTERN_STORAGE_SECRET_KEY" in p.stdout


def test_the_agent_runs_without_its_store(stack):
    env = {"POSTERN_STORAGE": "S3_COMPATIBLE", "POSTERN_STORAGE_BUCKET_NAME": "work", "POSTERN_STORAGE_ENDPOINT_URL": "http://127.0.0.1:9",
           "POSTERN_STORAGE_ACCESS_KEY": "hunter2a", "POSTERN_STORAGE_SECRET_KEY": "hunter2s", "POSTERN_STORAGE_PREFIX": "a/b"}
    gw = stack.gateway()
    agent = stack.agent(gw, env=env)
    health = agent.local("GET", "/api/v1/test/health")
    assert health.json()["storage"] == {"type": "S3_COMPATIBLE", "bucket": "work", "endpoint": "http://127.0.0.1:9", "prefix": "a/b"}
    assert "hunter2" not in health.text + agent.text()
    assert stack.agent(gw, name="plain").local("GET", "/api/v1/test/health").json()["storage"] is None
