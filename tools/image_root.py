"""The files of the image, from the packages of this machine and the program.

fill(out, program, licence) makes below `out` what the COPY lines of deploy/docker/Dockerfile take:
  libraries/  shared libraries, dynamic loader, certificates of public authorities, names of users, what scanners and lawyers look for
  program/    /usr/bin/postern, stripped, and its licence
  data/       postern, which becomes /var/lib/postern
and gives (packages, files) for the SBOM.

Only what Debian packages brought goes in: a library or certificate that was put on this machine by hand never does.
"""
import functools
import glob
import hashlib
import os
import shutil
import ssl
import subprocess

import elf

# Loaded by name while the program runs: glibc wants it for pthread_exit, and aborts without it.
LOADED_BY_NAME = ("libgcc_s.so.1",)
CERTIFICATES = "/usr/share/ca-certificates/mozilla"  # not /etc/ssl/certs: that has what this machine trusts besides
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
TEXTS = {
    "/etc/passwd": "root:x:0:0:root:/:/nonexistent\nnobody:x:65534:65534:nobody:/:/nonexistent\n",
    "/etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
STANZA = ("Package: ${Package}\nStatus: ${Status}\nMaintainer: ${Maintainer}\nArchitecture: ${Architecture}\n"
          "Source: ${source:Package} (${source:Version})\nVersion: ${Version}\nHomepage: ${Homepage}\n"
          "Description: ${binary:Summary}\n")


class Bad(Exception):
    """The image cannot be made; the text says what to do."""


class Root:
    """One staging folder, and which package each of its regular files comes from (None: from us)."""

    def __init__(self, folder):
        self.folder, self.owner = folder, {}
        os.makedirs(folder)

    def place(self, path):
        here = self.folder + path
        os.makedirs(os.path.dirname(here), exist_ok=True)
        return here

    def write(self, path, content, package=None):
        with open(self.place(path), "wb") as f:
            f.write(content)
        os.chmod(f.name, 0o644)
        self.owner[path] = package

    def link(self, path, target):
        if not os.path.lexists(self.folder + path):
            os.symlink(target, self.place(path))

    def take(self, path):
        """A file of this machine at the path where it is, with every symbolic link on the way there."""
        at, parts = "", path.strip("/").split("/")
        while parts:
            name = parts.pop(0)
            if name == "..":
                at = os.path.dirname(at).rstrip("/")
                continue
            at += "/" + name
            if not os.path.islink(at):
                continue
            target = os.readlink(at)
            self.link(at, target)
            parts = target.strip("/").split("/") + parts
            at = "" if target.startswith("/") else os.path.dirname(at).rstrip("/")
        if at not in self.owner:
            package = owner(at)
            with open(at, "rb") as f:
                content = f.read()
            unchanged(at, content, package)
            self.write(at, content, package)
            os.chmod(self.folder + at, 0o755 if os.access(at, os.X_OK) else 0o644)
        return self.owner[at]


def names_of(path):
    """Debian 12 joins /lib and /usr/lib, and dpkg knows a file by the name its package used."""
    return [path, path[4:]] if path.startswith("/usr/lib") else [path]


def owner(path):
    for name in names_of(path):
        p = subprocess.run(["dpkg-query", "-S", name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if p.returncode == 0:
            return p.stdout.partition(": ")[0].split(",")[0]
    raise Bad(f"{path} is of no Debian package, so nobody can say what it is; remove it, or install the package in its place")


@functools.lru_cache(maxsize=None)
def md5_of_files(package):
    """{path without the leading slash: MD5}, as the package brought them."""
    p = subprocess.run(["dpkg-query", "--control-show", package, "md5sums"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return {line[34:]: line[:32] for line in p.stdout.splitlines()}


def unchanged(path, content, package):
    known = md5_of_files(package)
    wanted = [known[name[1:]] for name in names_of(path) if name[1:] in known]
    if wanted and hashlib.md5(content, usedforsecurity=False).hexdigest() not in wanted:
        raise Bad(f"{path} is not as package {package} brought it; do: apt-get install --reinstall {package}")


def about_package(package):
    keys = ("Package", "Version", "Architecture", "source:Package", "source:Version", "Maintainer", "Homepage")
    out = subprocess.check_output(["dpkg-query", "-W", "-f", "\\n".join("${%s}" % k for k in keys), package], text=True)
    return dict(zip(keys, out.split("\n")))


def by_name(program, library):
    """Where the loader finds a library that no one is linked with."""
    out = subprocess.check_output(["gcc", f"-print-file-name={library}"], text=True).strip()
    if not os.path.isabs(out):
        raise Bad(f"{library} is not installed, and {program} needs it; do: tools/deps build")
    return os.path.normpath(out)


def trust(root):
    """One bundle, and the names that libcurl, GnuTLS and OpenSSL look for unless they are told."""
    certificates = sorted(glob.glob(f"{CERTIFICATES}/*.crt"))
    if not certificates:
        raise Bad(f"{CERTIFICATES} is empty; do: tools/deps build")
    content = b""
    for path in certificates:
        with open(path, "rb") as f:
            pem = f.read()
        unchanged(path, pem, "ca-certificates")
        content += pem.rstrip() + b"\n"
    root.write(BUNDLE, content, "ca-certificates")
    default = ssl.get_default_verify_paths()
    root.link(default.openssl_cafile, BUNDLE)
    root.link(default.openssl_capath, os.path.dirname(BUNDLE))


def fill(out, program, licence):
    shutil.rmtree(out, ignore_errors=True)
    libraries, ours = Root(f"{out}/libraries"), Root(f"{out}/program")

    subprocess.check_call(["strip", "-o", ours.place("/usr/bin/postern"), program])
    os.chmod(f"{ours.folder}/usr/bin/postern", 0o755)
    ours.owner["/usr/bin/postern"] = None
    with open(licence, "rb") as f:
        ours.write("/usr/share/doc/postern/copyright", f.read())

    for path in elf.libraries(program) + [by_name(program, name) for name in LOADED_BY_NAME]:
        libraries.take(path)
    trust(libraries)
    libraries.take("/etc/os-release")
    for path, text in TEXTS.items():
        libraries.write(path, text.encode())
    # The licence of each package; that may be a file of yet another package.
    todo = sorted(set(filter(None, libraries.owner.values())))
    while todo:
        package = todo.pop().partition(":")[0]
        other = libraries.take(f"/usr/share/doc/{package}/copyright")
        if not os.path.exists(f"{libraries.folder}/usr/share/doc/{other.partition(':')[0]}/copyright"):
            todo.append(other)
    # Scanners for known vulnerabilities read this of an image without dpkg.
    for package in sorted(set(filter(None, libraries.owner.values()))):
        stanza = subprocess.check_output(["dpkg-query", "-W", "-f", STANZA, package])
        libraries.write(f"/var/lib/dpkg/status.d/{package.partition(':')[0]}", stanza)
    os.mkdir(libraries.place("/tmp"))

    # Any user of group 0 may write here; user 65534 owns it.  A volume on it or on the spool starts with the same rights.
    for path in ("", "/postern", "/postern/spool"):
        os.makedirs(f"{out}/data{path}")
    for path, mode in ((f"{libraries.folder}/tmp", 0o1777), (f"{out}/data/postern", 0o775), (f"{out}/data/postern/spool", 0o775)):
        os.chmod(path, mode)
    for root in (libraries, ours):
        for where, folders, _ in os.walk(root.folder):
            for name in folders:
                path = os.path.join(where, name)
                if not os.path.islink(path) and path != f"{libraries.folder}/tmp":
                    os.chmod(path, 0o755)  # whatever the umask

    packages = [about_package(p) for p in sorted(set(filter(None, libraries.owner.values())))]
    files = []
    for root in (libraries, ours):
        for path, package in root.owner.items():
            with open(root.folder + path, "rb") as f:
                content = f.read()
            files.append({"path": path, "package": package and package.partition(":")[0],
                          "sha1": hashlib.sha1(content, usedforsecurity=False).hexdigest(),
                          "sha256": hashlib.sha256(content).hexdigest()})
    return packages, sorted(files, key=lambda f: f["path"])
