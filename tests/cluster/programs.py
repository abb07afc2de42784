"""Programs of the cluster that Debian has not: built from Go modules, once, into a cache.

The cache is $POSTERN_CACHE or ~/.cache/postern.  Kubernetes lies in a folder named after its version and what it is built from.
A build needs the Go module proxy; what is in the cache needs nothing.  ProgramError says what to do.
"""
import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCE = HERE / "k8s"
KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")


class ProgramError(Exception):
    pass


def cache():
    folder = pathlib.Path(os.environ.get("POSTERN_CACHE") or pathlib.Path.home() / ".cache/postern")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def locked(path):
    with open(path, "w", encoding="utf-8") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def version():
    """Of Kubernetes: "1.36.2"."""
    return re.search(r"^\s*k8s\.io/kubernetes v(\S+)$", (SOURCE / "go.mod").read_text(), re.MULTILINE).group(1)


def kubernetes(say=print):
    """The folder with the programs of Kubernetes and coredns; builds them when the cache has not got them (6 minutes on two cores)."""
    files = [SOURCE / f for f in ("go.mod", "go.sum", "main.go", "dns/main.go")]
    folder = cache() / f"k8s-{version()}-{hashlib.sha256(b''.join(f.read_bytes() for f in files)).hexdigest()[:12]}"
    with locked(cache() / "k8s.lock"):
        if not (folder / "kubectl").exists():
            folder.mkdir(exist_ok=True)
            start = time.monotonic()
            say(f"building Kubernetes {version()} and CoreDNS from their Go modules, once (some minutes)")
            build(folder / "k8s", ".", "-tags", "providerless")
            build(folder / "coredns", "./dns")
            for name in KUBERNETES:  # kubectl is last: it says that all is there
                (folder / name).unlink(missing_ok=True)
                (folder / name).symlink_to("k8s")
            say(f"built in {time.monotonic() - start:.0f} s")
    return folder


def build(out, package, *flags):
    names = {"gitVersion": f"v{version()}", "gitMajor": version().split(".")[0], "gitMinor": version().split(".")[1]}
    link = " ".join(f"-X k8s.io/component-base/version.{k}={v}" for k, v in names.items())
    p = subprocess.run([tool("go"), "build", "-trimpath", "-ldflags", f"-s -w {link}", *flags, "-o", out, package], cwd=SOURCE,
                       stdin=subprocess.DEVNULL,
                       env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOROOT": "", "GOFLAGS": "-buildvcs=false"},
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if p.returncode != 0:
        raise ProgramError(
            f"go build {package} failed:\n{p.stdout[-2000:]}\nModules that are not in the cache come from the Go module proxy (go env GOPROXY)."
        )


def tool(name):
    """The path of a program that tools/go-tool installs."""
    p = subprocess.run([ROOT / "tools/go-tool", name], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if p.returncode != 0:
        raise ProgramError(p.stderr.strip() or f"tools/go-tool {name} failed")
    return pathlib.Path(p.stdout.strip().splitlines()[-1])


def debian(name):
    """The path of a program that `tools/deps cluster` installs."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin")
    if not found:
        raise ProgramError(f"{name} is missing; 'tools/deps cluster' installs it")
    return found
