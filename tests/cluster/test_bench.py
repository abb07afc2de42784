"""bench/cluster.py measures, and what it finds is within the goals."""
import json
import subprocess

import pytest

from installed import ROOT


@pytest.mark.limit(240)
def test_size_start_and_memory(cluster, tmp_path):
    p = subprocess.run([ROOT / "bench/cluster.py", "--starts", "3", "--json", tmp_path / "out.json"], stdin=subprocess.DEVNULL,
                       capture_output=True, text=True, check=False)
    assert p.returncode == 0, p.stderr
    print(p.stdout)
    out = json.loads((tmp_path / "out.json").read_text())["cluster"]
    assert json.loads(p.stdout.splitlines()[-1])["cluster"] == out
    assert out["image_bytes"] <= 15e6
    assert out["idle_agent"]["pod_working_set_kib"] <= 24 << 10  # below that, `postern check` calls a limit too small
    assert out["start_s_image_present"]["min"] <= 10 and out["start_s_image_pulled"] <= 30
