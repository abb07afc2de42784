"""Tests of the Helm charts, without a cluster.  By hand:
  /usr/bin/python3 -m pytest tests/charts [-k NAME] [--update]      --update writes the golden renders anew

values/CHART/*.yaml and the chart's examples/*.yaml are the value sets: each is rendered, compared with golden/CHART/NAME.yaml, and must
have the properties that test_charts.py states of every chart.  refused/CHART.yaml lists values that are refused, and what is said.
The cluster tests send the same value sets to a real API server.
"""
import pytest

import charts


def pytest_addoption(parser):
    parser.addoption("--update", action="store_true", help="write the golden renders anew")


def pytest_generate_tests(metafunc):
    if "value_set" in metafunc.fixturenames:
        sets = [s for s in charts.value_sets() if getattr(metafunc.module, "CHART", s.chart) == s.chart]
        metafunc.parametrize("value_set", sets, ids=str)
    if "refusal" in metafunc.fixturenames:
        metafunc.parametrize("refusal", charts.refusals(), ids=lambda r: f"{r['chart']}-{r['name']}")
    if "chart" in metafunc.fixturenames:
        metafunc.parametrize("chart", charts.CHARTS)


@pytest.fixture(scope="session", autouse=True)
def helm():
    """The pinned helm; without Go to build it there is nothing to test with."""
    try:
        return charts.helm()
    except charts.NoHelm as e:
        pytest.skip(str(e))


@pytest.fixture
def objects(value_set):
    return charts.objects(value_set)
