"""An image archive unpacked, and run by runc as a cluster would: any user, root read-only, no capabilities, no new privileges.

The network is the machine's: gateways and agents listen on free loopback ports."""
import json
import pathlib
import secrets
import subprocess
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests/integration")]

import oci  # noqa: E402
from harness import Process, clean_env, run  # noqa: E402

USERS = {"the user of the image": (65534, 65534), "a random user of group 0": (1000620000, 0)}


def unpack(archive, folder):
    """The layers, one over the other, below a folder; gives the image's config."""
    with tarfile.open(archive) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))[0]
        for blob in manifest["Layers"]:
            with tarfile.open(fileobj=tar.extractfile(blob), mode="r:gz") as layer:
                layer.extractall(folder, numeric_owner=True)
    return oci.read(archive)["config"]


class Image:
    """An unpacked image.  .root is its file system, .config what the archive says of it."""

    def __init__(self, archive, home):
        self.home, self.root = home, home / "root"
        self.root.mkdir()
        self.config = unpack(archive, self.root)
        self.started = []

    def bundle(self, user, argv, env=None, binds=None):
        """A bundle for runc.  binds: {path in the container: file or folder of ours}, writable."""
        where = self.home / secrets.token_hex(4)
        where.mkdir()
        run("cp", "-a", self.root, where / "rootfs")  # runc makes the places of mounts in it
        run("runc", "spec", cwd=where)
        spec = json.loads((where / "config.json").read_text())
        spec["root"]["readonly"] = True
        process = spec["process"]
        process.update(terminal=False, args=self.config["Entrypoint"] + [str(a) for a in argv], noNewPrivileges=True, rlimits=[],
                       user={"uid": user[0], "gid": user[1]},
                       env=self.config["Env"] + [f"{k}={v}" for k, v in (env or {}).items()])
        process["capabilities"] = {k: [] for k in process["capabilities"]}
        spec["linux"]["namespaces"] = [n for n in spec["linux"]["namespaces"] if n["type"] != "network"]
        for path, ours in (binds or {}).items():
            spec["mounts"].append({"destination": path, "type": "bind", "source": str(ours), "options": ["bind", "rw"]})
        (where / "config.json").write_text(json.dumps(spec))
        return where

    def run(self, user, *argv, **kw):
        """Run it to its end; what subprocess gives."""
        where = self.bundle(user, argv, **kw)
        return run("runc", "run", "--bundle", where, f"postern-{where.name}", check=False)

    def start(self, name, user, *argv, **kw):
        """Run it in the background: a harness.Process."""
        where = self.bundle(user, argv, **kw)
        self.started.append(f"postern-{where.name}")
        return Process(["runc", "run", "--bundle", where, self.started[-1]], where, name, env=clean_env())

    def stop(self):
        for name in self.started:
            subprocess.run(["runc", "delete", "--force", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
