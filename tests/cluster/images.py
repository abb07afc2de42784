#!/usr/bin/python3
"""Images of the cluster tests, made of this machine's own Debian packages: no registry is asked.

    images.make("postgres", "postgres.oci.tar")     # gives the path; the image is named images.name("postgres")

  pause      what containerd holds a pod with; static
  busybox    busybox-static: a shell, wget, nc, nslookup …
  postgres   PostgreSQL's server, psql and pgbench, with busybox for a shell; entrypoint image-files/postgres.sh;
             runs as 999:999, data below /var/lib/postgresql

`tests/cluster/images.py NAME OUT` does the same by hand.  Packages: tools/deps image.
"""
import glob
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
FILES = os.path.join(HERE, "image-files")
sys.path.insert(0, os.path.join(HERE, "../../tools"))

import elf  # noqa: E402
import oci  # noqa: E402

BUSYBOX = "/bin/busybox"
PATH = "PATH=/usr/local/bin:/usr/bin:/bin"
POSTGRES_PROGRAMS = ("initdb", "pg_ctl", "pg_isready", "pgbench", "postgres", "psql")


def name(image):
    return f"localhost/postern-test/{image}:1"


def make(image, out):
    """Write one image as an OCI archive to the path `out`, which is given back."""
    layer, config = IMAGES[image]()
    arch = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    oci.write(out, name(image), arch, [layer], config, level=1)
    return out


def pause():
    layer = oci.Layer()
    with tempfile.TemporaryDirectory() as tmp:
        subprocess.check_call(["cc", "-static", "-Os", "-s", "-Wall", "-Werror", "-o", f"{tmp}/pause", f"{FILES}/pause.c"])
        layer.copy(f"{tmp}/pause", "/pause")
    return layer, {"Entrypoint": ["/pause"], "User": "65535:65535"}


def shell(layer):
    layer.copy(BUSYBOX, "/bin/busybox")
    for applet in subprocess.check_output([BUSYBOX, "--list"], text=True).split():
        if applet != "busybox":
            layer.link(f"/bin/{applet}", "busybox")
    layer.folder("/tmp", 0o1777)


def busybox():
    layer = oci.Layer()
    shell(layer)
    layer.file("/etc/passwd", b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
    layer.file("/etc/group", b"root:x:0:\nnobody:x:65534:\n")
    return layer, {"Cmd": ["sh"], "Env": [PATH], "User": "65534:65534"}


def postgres():
    layer = oci.Layer()
    shell(layer)
    home = max(glob.glob("/usr/lib/postgresql/*/bin/postgres"), key=lambda p: int(p.split("/")[4]))[:-len("/bin/postgres")]
    version = home.rpartition("/")[2]
    programs = [f"{home}/bin/{p}" for p in POSTGRES_PROGRAMS]
    modules = [m for m in glob.glob(f"{home}/lib/*.so") if "llvmjit" not in m]  # LLVM is larger than all the rest
    for path in programs + modules + elf.libraries(*programs, *modules):
        layer.copy(path)
    for path in programs:
        layer.link(f"/usr/bin/{os.path.basename(path)}", path)
    for tree in (f"/usr/share/postgresql/{version}", "/usr/share/zoneinfo"):
        layer.tree(tree, tree)
    layer.copy(f"{FILES}/postgres.sh", "/usr/local/bin/postgres.sh")
    layer.file("/etc/passwd", b"root:x:0:0:root:/:/bin/sh\npostgres:x:999:999:postgres:/var/lib/postgresql:/bin/sh\n")
    layer.file("/etc/group", b"root:x:0:\npostgres:x:999:\n")
    layer.folder("/var/lib/postgresql", 0o700, (999, 999))
    layer.folder("/docker-entrypoint-initdb.d")
    return layer, {"Entrypoint": ["/usr/local/bin/postgres.sh"], "Env": [PATH, "LC_ALL=C"], "User": "999:999", "StopSignal": "SIGINT",
                   "ExposedPorts": {"5432/tcp": {}}}


IMAGES = {"pause": pause, "busybox": busybox, "postgres": postgres}

if __name__ == "__main__":
    print(make(*sys.argv[1:]))
