"""An idle agent is small: docs/decisions/0008-idle-memory.md."""
import pytest

from harness import proc_status
from product import sanitized

MIB = 1 << 20


@pytest.mark.skipif(sanitized(), reason="a sanitizer build's memory says nothing")
def test_an_idle_agent_is_small(stack):
    agent = stack.agent(stack.gateway(tls=True))
    assert proc_status(agent.pid, "RssAnon") <= 3 * MIB
    assert proc_status(agent.pid, "VmRSS") <= 16 * MIB  # 13 here; how much of a library is mapped depends on the kernel, too
