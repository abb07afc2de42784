"""Charts, their value sets, and renders of them.  Also used by the cluster tests."""
import functools
import glob
import json
import os
import re
import subprocess
import tempfile

import pytest
import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.join(ROOT, "tests/charts")
BINARY = os.environ.get("POSTERN_BIN", f"{ROOT}/build/src/cmd/postern")
CHARTS = sorted(os.path.basename(os.path.dirname(p)) for p in glob.glob(f"{ROOT}/deploy/helm/*/Chart.yaml"))


class NoHelm(Exception):
    pass


class ValueSet:
    """One file of values for a chart.  The release has the chart's name, and so has its namespace."""

    def __init__(self, chart, path):
        self.chart, self.path = chart, path
        kind = "example-" if "/examples/" in path else ""
        self.name = kind + os.path.basename(path).removesuffix(".yaml")
        self.golden = os.path.join(HERE, "golden", chart, self.name + ".yaml")

    def __str__(self):
        return f"{self.chart}-{self.name}"

    def values(self):
        return load(self.path)


def load(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f) if str(path).endswith(".json") else yaml.safe_load(f)


def value_sets():
    return [ValueSet(c, p) for c in CHARTS
            for p in sorted(glob.glob(f"{HERE}/values/{c}/*.yaml") + glob.glob(f"{ROOT}/deploy/helm/{c}/examples/*.yaml"))]


def refusals():
    out = []
    for c in CHARTS:
        path = f"{HERE}/refused/{c}.yaml"
        if os.path.exists(path):
            out += [{**row, "chart": c} for row in load(path)]
    return out


@functools.cache
def helm():
    p = subprocess.run([f"{ROOT}/tools/go-tool", "helm"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if p.returncode == 69:
        raise NoHelm(p.stderr.strip())
    p.check_returncode()
    return p.stdout.strip()


def run(*argv):
    """helm with arguments; a result whose stdout and stderr are text."""
    return subprocess.run([helm(), *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def chart_path(chart):
    return f"{ROOT}/deploy/helm/{chart}"


def template(chart, *argv, path=None):
    return run("template", chart, path or chart_path(chart), "--namespace", chart, *argv)


@functools.cache
def render(path, chart):
    """The text of a render with one file of values.  The owner's token of a gateway is another one each time: it is left out."""
    p = template(chart, "--values", path)
    if p.returncode:
        raise AssertionError(f"{path}: {p.stderr}")
    return re.sub(r"(?m)^  token: [A-Za-z0-9+/=]{60,}$", "  token: RANDOM", p.stdout)


def parse(text):
    return [o for o in yaml.safe_load_all(text) if o]


def objects(value_set):
    return parse(render(value_set.path, value_set.chart))


def refused(chart, values):
    """What is said when values, on top of the smallest ones that work, are refused; None when they are not."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
        yaml.safe_dump(values, f)
        f.flush()
        p = template(chart, "--values", f"{HERE}/values/{chart}/minimal.yaml", "--values", f.name)
    return p.stderr if p.returncode else None


def named(chart, name):
    """The objects of one value set of a chart."""
    return objects(next(s for s in value_sets() if s.chart == chart and s.name == name))


def of_kind(objects, *kinds):
    return [o for o in objects if o["kind"] in kinds]


def one(objects, kind):
    found = of_kind(objects, kind)
    assert len(found) == 1, f"{kind}: {[o['metadata']['name'] for o in found]}"
    return found[0]


def postern(*argv, env=None):
    """Run the program; the test is skipped where it is not built."""
    if not os.access(BINARY, os.X_OK):
        pytest.skip(f"{BINARY} is not built")
    return subprocess.run([BINARY, *argv], env=env or {}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def pod_template(o):
    """Labels, annotations and spec of the pods that an object makes; None when it makes none."""
    if o["kind"] == "Pod":
        where = o
    elif o["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
        where = o["spec"]["template"]
    elif o["kind"] == "CronJob":
        where = o["spec"]["jobTemplate"]["spec"]["template"]
    else:
        return None
    meta = where.get("metadata", {})
    return meta.get("labels", {}), meta.get("annotations") or {}, where["spec"]


def containers(spec):
    return spec.get("initContainers", []) + spec["containers"]


def matches(selector, labels):
    """Whether a selector with matchLabels only, or a plain map, selects labels."""
    return all(labels.get(k) == v for k, v in selector.get("matchLabels", selector).items())
