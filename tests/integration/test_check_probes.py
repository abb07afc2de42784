"""postern check live, ready, reachability: the probes of a container without a shell or curl."""
import json
import socket

import pytest

from harness import clean_env, free_port, run
from product import BIN


def check(word, *flags, **env):
    return run(BIN, "check", word, *flags, env=clean_env(**env), check=False)


def test_of_an_agent_that_works(stack):
    agent = stack.agent(stack.gateway())
    for how in ((), {"POSTERN_LISTEN": f"0.0.0.0:{agent.port}"}), ((("--listen", f"127.0.0.1:{agent.port}")), {}):
        for word in ("live", "ready"):
            p = check(word, *how[0], **how[1])
            assert (p.returncode, p.stdout, p.stderr) == (0, "", "")
        p = check("reachability", *how[0], **how[1])
        assert p.returncode == 0 and p.stderr == "" and '"ok": true' in p.stdout
        assert json.loads(p.stdout)["key_id"] == agent.key.id


def test_of_an_agent_without_a_gateway(stack):
    gw = stack.gateway()
    agent = stack.agent(gw)
    gw.stop()
    agent.until(lambda: not agent.ready(), 20, "/readyz is 503")
    listen = f"127.0.0.1:{agent.port}"
    assert check("live", "--listen", listen).returncode == 0
    p = check("ready", "--listen", listen)
    assert p.returncode == 1 and p.stdout == "" and "postern check ready: the link is down: " in p.stderr and "  hint: " in p.stderr
    p = check("reachability", "--listen", listen)
    assert p.returncode == 1 and json.loads(p.stdout)["error"]["code"] == "connect_failed" and '"ok": false' in p.stdout


@pytest.mark.parametrize("word", ["live", "ready", "reachability"])
def test_nobody_there(word, origin):
    """No agent, something that is no agent, and an agent that listens nowhere."""
    p = check(word, "--listen", f"127.0.0.1:{free_port()}")
    assert p.returncode == 1 and p.stdout == "" and "no agent listens there" in p.stderr
    p = check(word, "--listen", "")
    assert p.returncode == 1 and "has no local endpoints" in p.stderr
    if word == "reachability":
        p = check(word, "--listen", f"127.0.0.1:{origin.port}")  # it answers 200 to everything
        assert p.returncode == 1


def test_one_that_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        p = check("live", "--listen", f"127.0.0.1:{silent.getsockname()[1]}")
    assert p.returncode == 1 and "hint: something listens there and does not answer" in p.stderr


def test_it_goes_by_no_proxy(stack, tinyproxy):
    agent = stack.agent(stack.gateway())
    p = check("ready", "--listen", f"0.0.0.0:{agent.port}", HTTP_PROXY=tinyproxy.url)
    assert p.returncode == 0 and not tinyproxy.saw(f"127.0.0.1:{agent.port}")


def test_mistakes_are_usage_errors():
    assert check("live", "--lisen", "x").returncode == 64
    p = check("readyy")
    assert p.returncode == 64 and "did you mean `postern check ready`?" in p.stderr
