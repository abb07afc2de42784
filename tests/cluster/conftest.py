"""Fixtures of the tests in a real Kubernetes (README.md).  The cluster is started once; one that runs already is used, and stays.

  cluster    kube.Cluster, with our image, PostgreSQL's and busybox's in its registry
  gateway    installed.Gateway, the vendor's side, for the whole session
  postgres   installed.Postgres, likewise
  s3         installed.ObjectStore, likewise
  scratch    the name of a namespace for one test, removed afterwards; what is in it is shown when the test fails
  module_scratch    the same for the tests of a file

A test that runs longer than 300 s fails; @pytest.mark.limit(seconds) changes that.
"""
import itertools
import os

import pytest

import installed
import kube
import limit
import programs

numbers = itertools.count(1)

pytest_runtest_call = limit.hook(300)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory, request):
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with programs.locked(programs.cache() / "cluster-tests.lock"):  # two sessions would be in each other's way
        with capture.global_and_fixture_disabled():
            ours = not kube.running()
            cluster = kube.up(lambda text: print(text, flush=True))
        installed.push_images(cluster, tmp_path_factory.mktemp("images"))
        yield cluster
        if ours and not os.environ.get("POSTERN_CLUSTER_KEEP"):
            kube.down()


def namespace(cluster, prefix):
    """The name of a namespace that nobody has, also not an earlier session in the same cluster; it is removed afterwards."""
    name = f"{prefix}-{os.getpid()}-{next(numbers)}"
    yield name
    cluster.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="session")
def gateway(cluster, tmp_path_factory):
    for name in namespace(cluster, "vendor"):
        yield installed.Gateway(cluster, name, tmp_path_factory.mktemp("vendor"))


@pytest.fixture(scope="session")
def postgres(cluster):
    for name in namespace(cluster, "data"):
        yield installed.Postgres(cluster, name)


@pytest.fixture(scope="session")
def s3(cluster):
    return installed.ObjectStore(cluster)


@pytest.fixture
def scratch(cluster):
    yield from namespace(cluster, "test")


@pytest.fixture(scope="module")
def module_scratch(cluster):
    yield from namespace(cluster, "tests")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    args = getattr(item, "funcargs", {})
    for name in ("scratch", "module_scratch"):
        if report.failed and name in args and "cluster" in args:
            report.sections.append((f"namespace {args[name]}", installed.describe(args["cluster"], args[name])))
