"""The guides below docs/install say what the charts take: each block of YAML renders, and each path and chart that a command names is there."""
import glob
import os
import re
import tempfile

import pytest
import yaml

import charts

PLACEHOLDERS = {"<your-gateway-url>": "https://gateway.example.com", "<your-access-key>": "access", "<your-secret-key>": "secret"}


def chart_of(path):
    return "postern-gateway" if "gateway" in os.path.basename(path) else "postern-agent"


def blocks(language):
    out = []
    for path in sorted(glob.glob(f"{charts.ROOT}/docs/install/*.md")):
        with open(path, encoding="utf-8") as f:
            text = f.read()
        for m in re.finditer(rf"```{language}\n(.*?)```", text, re.DOTALL):
            out.append(pytest.param(path, m.group(1), id=f"{os.path.basename(path)}:{text[:m.start()].count(chr(10)) + 2}"))
    return out


@pytest.mark.parametrize("path, text", blocks("yaml"))
def test_values_render(path, text):
    for placeholder, value in PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    said = charts.refused(chart_of(path), yaml.safe_load(text))
    assert said is None, said


@pytest.mark.parametrize("path, text", blocks("sh"))
def test_commands_name_what_is_there(path, text):
    # deploy/NAME without a folder is kubectl's word for a Deployment.
    for there in re.findall(r"(?<![\w./-])(?:deploy/\w+|tools|tests)/[\w./-]+", text):
        assert os.path.exists(f"{charts.ROOT}/{there}"), f"{there} does not exist"


def test_a_placeholder_left_is_refused():
    """The guide promises it."""
    path = f"{charts.ROOT}/docs/install/kubernetes.md"
    block = next(p.values[1] for p in blocks("yaml") if p.values[0] == path and "<your-gateway-url>" in p.values[1])
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
        f.write(block)
        f.flush()
        p = charts.template("postern-agent", "--values", f.name)
    for value in ("backendServiceUrl", "storageAccessKey", "storageSecretKey"):
        assert p.returncode and f"container.{value} is still a placeholder" in p.stderr
