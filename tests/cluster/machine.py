"""A machine that is no machine: namespaces of its own for processes, mounts and network on this host.

The kernel cleans up.  When its first process is killed, everything in it dies with it, also container shims that survive their
daemon, and with the last process its mounts and its network are gone.  Nothing is mounted or routed on the host itself.  Inside, /run
and /var/lib are empty, and KEPT folders below /var/lib and /var/log are folders of the machine on the host.  Needs root.
"""
import os
import pathlib
import signal
import subprocess
import time

KEPT = ("containerd", "kubelet", "cni", "volumes")  # below /var/lib
FIRST = r"""
set -e
folder=$1
shift
mount --make-rshared /
mount -t tmpfs -o mode=755 machine /run
mount -t tmpfs -o mode=755 machine /var/lib
mkdir -p "$folder/log"
mount --bind "$folder/log" /var/log
for kept; do
	mkdir -p "$folder/$kept" "/var/lib/$kept"
	mount --bind "$folder/$kept" "/var/lib/$kept"
done
ip link set lo up
echo ready
exec >/dev/null
sleep infinity &
wait
"""  # `wait` also takes orphans, as the first process must


def started_at(pid):
    """A process is known by its id and this; None when it is gone."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rsplit(")", 1)[1].split()
    return None if fields[0] == "Z" else int(fields[19])


class Machine:
    """pid: its first process, as this host sees it.  outer: its parent, which dies with it."""

    def __init__(self, name, folder, outer=None, pid=None, start=None):
        self.name, self.folder = name, pathlib.Path(folder)
        self.outer, self.pid, self.start = outer, pid, start

    @property
    def running(self):
        return self.pid is not None and started_at(self.pid) == self.start

    def boot(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "machine.log", "wb") as log:
            p = subprocess.Popen([
                "unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
                "sh", "-c", FIRST, "first", self.folder, *KEPT], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                                 start_new_session=True)
        if p.stdout.readline() != b"ready\n":
            p.kill()
            p.wait()
            raise RuntimeError(f"machine {self.name} did not start: {(self.folder / 'machine.log').read_text()}")
        p.stdout.close()
        self.outer = p.pid
        self.pid = int(pathlib.Path(f"/proc/{p.pid}/task/{p.pid}/children").read_text().split()[0])
        self.start = started_at(self.pid)
        return self

    def inside(self, *argv):
        """A command line that runs argv in the machine."""
        return ["nsenter", "-t", str(self.pid), "-m", "-n", "-p", "--", *map(str, argv)]

    def run(self, *argv, input=None):
        """Run a program to its end in the machine; its output."""
        p = subprocess.run(self.inside(*argv), input=input, stdin=None if input else subprocess.DEVNULL, capture_output=True,
                           text=True, check=False)
        if p.returncode != 0:
            raise RuntimeError(f"{self.name}: {' '.join(map(str, argv))}: exit code {p.returncode}\n{p.stdout}{p.stderr}")
        return p.stdout

    def spawn(self, name, *argv, env=None):
        """Start a program that stays; its output goes to NAME.log."""
        with open(self.folder / f"{name}.log", "ab") as log:
            subprocess.Popen(
                self.inside(*argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/run", **(env or {})})

    def tail(self, name, lines=15):
        path = self.folder / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"

    def cut_power(self):
        """Everything in it ends now.  (The first process ends last: the kernel kills and reaps the others before.)"""
        if self.running:
            os.kill(self.pid, signal.SIGKILL)
        end = time.monotonic() + 20
        while self.running:
            if time.monotonic() > end:
                raise RuntimeError(f"machine {self.name}: process {self.pid} does not end")
            time.sleep(0.02)

    def record(self):
        return {"name": self.name, "outer": self.outer, "pid": self.pid, "start": self.start}
