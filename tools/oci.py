"""Write an OCI image archive without a registry, an engine or a daemon.

    layer = Layer()
    layer.file("/usr/bin/program", open("program", "rb").read(), 0o755)
    layer.link("/bin", "usr/bin")
    write("image.oci.tar", "example/program:1.0", "amd64", [layer], {"Entrypoint": ["/usr/bin/program"]})

The archive is an OCI layout that also has the manifest.json of `docker save`, so `ctr images import`, `skopeo copy oci-archive:`,
`podman load` and `docker load` of every version take it.  Layers are gzip: each of them reads that.

The same content gives the same bytes: entries are sorted, times are 0, owners have numbers only, and nothing of this machine gets in.
"""
import gzip
import hashlib
import io
import json
import os
import tarfile

GZIP_LEVEL = 9


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def full_name(name):
    """The name as containerd and kubelets complete it: postern/postern:1 is docker.io/postern/postern:1."""
    first, slash, _ = name.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def compact(value):
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def entry(name, mode, kind=tarfile.REGTYPE, size=0, target="", owner=(0, 0)):
    t = tarfile.TarInfo(name)
    t.mode, t.type, t.size, t.linkname, t.mtime = mode, kind, size, target, 0
    t.uid, t.gid = owner
    return t


class Layer:
    """Files, folders and links of one layer.  Folders above them are made as needed: root's, mode 0755."""

    def __init__(self):
        self.entries = {}  # path without a leading slash: (TarInfo, content or None)

    def _add(self, path, content, **kw):
        path = path.strip("/")
        self.entries[path] = (entry(path, **kw), content)
        while "/" in path:
            path = path.rpartition("/")[0]
            self.entries.setdefault(path, (entry(path, 0o755, tarfile.DIRTYPE), None))

    def folder(self, path, mode=0o755, owner=(0, 0)):
        self._add(path, None, mode=mode, kind=tarfile.DIRTYPE, owner=owner)

    def file(self, path, content, mode=0o644, owner=(0, 0)):
        self._add(path, content, mode=mode, size=len(content), owner=owner)

    def link(self, path, target, owner=(0, 0)):
        self._add(path, None, mode=0o777, kind=tarfile.SYMTYPE, target=target, owner=owner)

    def copy(self, source, path=None):
        """One file of this machine, links followed; runnable when it is here."""
        with open(source, "rb") as f:
            self.file(path or source, f.read(), 0o755 if os.access(source, os.X_OK) else 0o644)

    def tree(self, source, path="/", owner=(0, 0)):
        """What is below a folder of this machine, with its modes."""
        for where, folders, files in os.walk(source):
            for name in folders + files:
                here = os.path.join(where, name)
                there = os.path.join(path, os.path.relpath(here, source))
                mode = os.lstat(here).st_mode & 0o7777
                if os.path.islink(here):
                    self.link(there, os.readlink(here), owner)
                elif name in folders:
                    self.folder(there, mode, owner)
                else:
                    with open(here, "rb") as f:
                        self.file(there, f.read(), mode, owner)

    def tar(self):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for _, (info, content) in sorted(self.entries.items()):
                tar.addfile(info, None if content is None else io.BytesIO(content))
        return out.getvalue()


def write(out, name, arch, layers, config, created="1970-01-01T00:00:00Z", level=GZIP_LEVEL, also=()):
    """Write the archive `out` of the image `name` ("repository:tag"; `also`: more of them).  `config` has the keys of Docker's and OCI's
    "config" object."""
    tars = [layer.tar() for layer in layers]
    packed = [gzip.compress(t, level, mtime=0) for t in tars]
    image = compact({
        "architecture": arch, "os": "linux", "created": created, "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest(t) for t in tars]},
        "history": [{"created": created, "created_by": "tools/oci.py"} for _ in layers],
    })
    manifest = compact({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(image), "size": len(image)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(p), "size": len(p)} for p in packed],
    })
    names = [name, *also]
    index = compact({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(manifest), "size": len(manifest),
            "platform": {"architecture": arch, "os": "linux"},
            "annotations": {"io.containerd.image.name": full_name(n), "org.opencontainers.image.ref.name": n.rpartition(":")[2]},
        } for n in names],
    })

    def blob(data):
        return "blobs/sha256/" + digest(data).partition(":")[2]

    docker = compact([{"Config": blob(image), "RepoTags": names, "Layers": [blob(p) for p in packed]}])
    content = {"oci-layout": compact({"imageLayoutVersion": "1.0.0"}), "index.json": index, "manifest.json": docker}
    content.update((blob(data), data) for data in (image, manifest, *packed))
    part = f"{out}.part"
    with tarfile.open(part, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in ("blobs", "blobs/sha256"):
            tar.addfile(entry(path, 0o755, tarfile.DIRTYPE))
        for path in sorted(content):
            tar.addfile(entry(path, 0o644, size=len(content[path])), io.BytesIO(content[path]))
    os.replace(part, out)


def read(archive):
    """What is in an archive: {"names", "digest" of the manifest, "size" in compressed bytes, "layers" each in bytes, "config"}."""
    with tarfile.open(archive) as tar:
        def load(path):
            return json.load(tar.extractfile(path))

        first = load("index.json")["manifests"][0]
        manifest = load("blobs/sha256/" + first["digest"].partition(":")[2])
        layers = [layer["size"] for layer in manifest["layers"]]
        return {"names": load("manifest.json")[0]["RepoTags"], "digest": first["digest"], "layers": layers,
                "size": first["size"] + manifest["config"]["size"] + sum(layers),
                "config": load("blobs/sha256/" + manifest["config"]["digest"].partition(":")[2])["config"]}
