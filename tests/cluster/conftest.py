"""Fixtures of the tests in a real Kubernetes (README.md).  The cluster is started once; one that runs already is used, and stays.

  cluster    kube.Cluster, with our image, PostgreSQL's and busybox's in its registry
  gateway    installed.Gateway, the vendor's side, for the whole session
  postgres   installed.Postgres, likewise
  scratch    a namespace for one test, removed afterwards

A test that runs longer than 300 s fails; @pytest.mark.limit(seconds) changes that.
"""
import itertools
import os
import pathlib
import signal
import subprocess

import pytest

import images
import installed
import kube

ROOT = pathlib.Path(__file__).resolve().parents[2]
numbers = itertools.count(1)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    marker = item.get_closest_marker("limit")
    seconds = marker.args[0] if marker else 300

    def late(signum, frame):
        raise TimeoutError(f"the test ran longer than its {seconds} s")

    old = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory, request):
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        ours = not kube.running()
        cluster = kube.up(lambda text: print(text, flush=True))
    for name in ("postgres", "busybox"):
        cluster.push(images.make(name, tmp_path_factory.mktemp("images") / name), f"postern-test/{name}:1")
    push_product(cluster)
    yield cluster
    if ours and not os.environ.get("POSTERN_CLUSTER_KEEP"):
        kube.down()


def push_product(cluster):
    """The image of this working tree, as postern/postern:VERSION and :latest."""
    archive = os.environ.get("POSTERN_IMAGE")
    if not archive:
        subprocess.run([ROOT / "tools/image", "--local"], check=True, cwd=ROOT, stdin=subprocess.DEVNULL)
        archive = next((ROOT / "build/image/archive").glob("*.oci.tar"))
    for tag in ("0.1.0", "latest"):
        cluster.push(archive, f"postern/postern:{tag}")


@pytest.fixture(scope="session")
def gateway(cluster):
    return installed.Gateway(cluster, "vendor")


@pytest.fixture(scope="session")
def postgres(cluster):
    return installed.Postgres(cluster, "data")


@pytest.fixture
def scratch(cluster, request):
    """The name of a namespace that the test makes; shown when the test fails, and removed."""
    name = f"t{next(numbers)}-{os.getpid()}"
    yield name
    cluster.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    name, cluster = item.funcargs.get("scratch"), item.funcargs.get("cluster")
    if report.failed and name and cluster:
        report.sections.append((f"namespace {name}", installed.describe(cluster, name)))
