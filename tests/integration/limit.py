"""How long a test may run."""
import signal

import pytest


def hook(default):
    """A conftest's pytest_runtest_call: a test fails after default seconds, or those of its @pytest.mark.limit(seconds)."""
    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(item):
        marker = item.get_closest_marker("limit")
        seconds = marker.args[0] if marker else default

        def late(signum, frame):
            raise TimeoutError(f"the test ran longer than its {seconds} s")

        old = signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)

    return pytest_runtest_call
