"""The real CRDs of what our charts can make objects for, out of the Go modules of those projects."""
import json
import pathlib
import subprocess

import programs

MODULES = {  # module@version: folder
    "github.com/external-secrets/external-secrets@v0.20.4": "config/crds/bases/external-secrets.io_*.yaml",
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": "example/prometheus-operator-crd/*_{servicemonitors,podmonitors,prometheusrules}.yaml",
    "github.com/kedacore/keda/v2@v2.18.1": "config/crd/bases/keda.sh_*.yaml",
}


def files():
    """Manifests of all CRDs."""
    go, out = programs.tool("go"), []
    for module, pattern in MODULES.items():
        p = subprocess.run([go, "mod", "download", "-json", module], cwd="/", stdin=subprocess.DEVNULL, capture_output=True,
                           text=True, check=False)
        if p.returncode != 0:
            raise programs.ProgramError(
                f"{module} could not be had from the Go module proxy (go env GOPROXY):\n{p.stdout}{p.stderr}")
        head, _, names = pattern.partition("{")
        names, _, tail = names.partition("}")
        for name in names.split(",") if names else [""]:
            found = sorted(pathlib.Path(json.loads(p.stdout)["Dir"]).glob(head + name + tail))
            assert found, f"{module}: no {head}{name}{tail}"
            out += found
    return out


def install(cluster):
    """Until the API server serves them.  (Server side: they are too long for an annotation.)"""
    args = [a for f in files() for a in ("-f", f)]
    cluster.kubectl("apply", "--server-side", *args)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
