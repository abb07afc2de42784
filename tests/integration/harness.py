"""Parts that every integration test uses: waiting, HTTP, processes, certificates.

Nothing here knows Postern.  Everything listens on 127.0.0.1, lives below a folder of its own and is stopped by process id.
No test sleeps and hopes: use wait_until(), which fails with what it waited for.
"""
import base64
import collections
import contextlib
import ctypes
import http.client
import json
import os
import pathlib
import pwd
import re
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.parse

libc = ctypes.CDLL(None, use_errno=True)


# --- waiting and measuring

def wait_until(cond, timeout=10, what=None, every=0.02):
    """Call cond() until it returns something true, and return that.  AssertionError after timeout seconds."""
    end = time.monotonic() + timeout
    while True:
        value = cond()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {what or cond}")
        time.sleep(every)


def held_port():
    """A socket that holds a port and does not listen: as long as it lives, nobody else is given the port, and connections are refused.  A
    server that sets SO_REUSEADDR, as all do that can be restarted, may listen on it, again and again."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", 0))
    return s


_held = collections.deque(maxlen=50)


def free_port():
    """A port that is held for a while: nobody listens there, and one server may."""
    _held.append(held_port())
    return _held[-1].getsockname()[1]


def can_connect(port):
    with contextlib.closing(socket.socket()) as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", port)) == 0


def proc_status(pid, field):
    """A number of /proc/PID/status: "VmHWM" is the peak resident memory, "VmRSS" the present one, in bytes; "Threads"."""
    m = re.search(rf"^{field}:\s+(\d+)( kB)?", pathlib.Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(m.group(1)) * (1024 if m.group(2) else 1)


def peak_rss(pid):
    return proc_status(pid, "VmHWM")


def reset_peak_rss(pid):
    """Start measuring the peak anew (clear_refs, see proc(5))."""
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5")


@contextlib.contextmanager
def frozen(pid, thread):
    """Hold the thread of that name (ptrace): while the block runs it does not move, and the rest of the process does."""
    def ptrace(request):
        assert libc.ptrace(ctypes.c_long(request), ctypes.c_long(tid), None, None) == 0, os.strerror(ctypes.get_errno())

    seize, interrupt, detach, clone = 0x4206, 0x4207, 17, 0x40000000  # <sys/ptrace.h>, __WALL
    tid = next(int(t.name) for t in pathlib.Path(f"/proc/{pid}/task").iterdir() if (t / "comm").read_text().strip() == thread)
    ptrace(seize)
    ptrace(interrupt)
    os.waitpid(tid, clone)
    try:
        yield
    finally:
        ptrace(detach)


# --- HTTP client: one request per connection, no environment, no redirects

class Response:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.text[:300]}>"


def connection(url, ca=None, timeout=30):
    u = urllib.parse.urlsplit(url)
    if u.scheme == "https":
        return http.client.HTTPSConnection(u.hostname, u.port, timeout=timeout, context=ssl.create_default_context(cafile=ca))
    return http.client.HTTPConnection(u.hostname, u.port, timeout=timeout)


def request(method, url, body=None, headers=None, token=None, basic=None, ca=None, timeout=30, on_data=None):
    """One HTTP request.  body: bytes, or anything else is sent as JSON.  token: bearer; basic: (user, password).
    on_data(chunk) gets the response's body in pieces instead of Response.body, so that large ones need no memory."""
    headers = dict(headers or {})
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        headers.setdefault("Content-Type", "application/json")
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if basic:
        headers["Authorization"] = "Basic " + base64.b64encode(":".join(basic).encode()).decode()
    u = urllib.parse.urlsplit(url)
    with contextlib.closing(connection(url, ca, timeout)) as c:
        c.request(method, u.path + (f"?{u.query}" if u.query else ""), body=body, headers=headers)
        r = c.getresponse()
        if on_data:
            while chunk := r.read(1 << 16):
                on_data(chunk)
        return Response(r.status, r.headers, b"" if on_data else r.read())


def raw_request(port, data, timeout=10):
    """Send bytes as they are (malformed requests) and return whatever comes until the server closes or timeout passes."""
    out = b""
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout)) as s:
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            while chunk := s.recv(1 << 16):
                out += chunk
        except (TimeoutError, ConnectionError):
            pass
    return out


# --- processes

def clean_env(**more):
    """Environment for programs under test: nothing of ours that changes what they do (proxies, POSTERN_*, CA settings)."""
    keep = ("PATH", "TMPDIR", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS")
    env = {k: os.environ[k] for k in keep if k in os.environ}
    env["PATH"] = env.get("PATH", "/usr/local/bin:/usr/bin:/bin") + ":/usr/sbin:/sbin"  # squid lives there
    env.update(LANG="C.UTF-8", TZ="UTC")
    env.update({k: str(v) for k, v in more.items()})
    return env


def unprivileged(name):
    """User for servers that refuse to run as root: name when we are root, else None (run as we are)."""
    if os.getuid() != 0:
        return None
    return pwd.getpwnam(name).pw_name


def give(path, user):
    """Hand a folder to that user, when there is one (see unprivileged())."""
    if user:
        p = pwd.getpwnam(user)
        os.chown(path, p.pw_uid, p.pw_gid)


class Process:
    """A server process with a log file.  When this process dies, even by SIGKILL, so does the server."""

    started = []  # every one, for the report of a failed test

    def __init__(self, argv, home, name, env=None, user=None, cwd=None, pass_fds=()):
        self.argv = [str(a) for a in argv]
        self.name = name
        self.log = pathlib.Path(home) / f"{name}.log"
        self._mark = 0
        account = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
        with open(self.log, "ab") as log:
            self.popen = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cwd or home,
                                          env=env if env is not None else clean_env(), preexec_fn=self._die_with_parent,
                                          pass_fds=pass_fds, **account)
        self.pid = self.popen.pid
        Process.started.append(self)

    @staticmethod
    def _die_with_parent():
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG

    @property
    def running(self):
        return self.popen.poll() is None

    def text(self):
        return self.log.read_text(errors="replace")

    def wait_log(self, pattern, timeout=10):
        """Wait for a line of the log; returns the match."""
        return self.until(lambda: re.search(pattern, self.text()), timeout, f"{pattern!r} in the log of {self.name}")

    def until(self, cond, timeout, what):
        """wait_until(), which ends early when the process does."""
        def check():
            value = cond()
            if not value and not self.running:
                raise AssertionError(f"{self.name} ended with {self.popen.returncode} before {what}:\n{self.tail()}")
            return value

        try:
            return wait_until(check, timeout, what)
        except AssertionError as e:
            raise AssertionError(f"{e}\n{self.tail()}" if self.running else str(e)) from None

    def mark(self):
        """From here on counts what since_mark() gives (the report of a failed test)."""
        self._mark = len(self.text())

    def since_mark(self):
        return self.text()[self._mark:] if self.log.exists() else ""

    def tail(self, lines=30):
        return "\n".join(self.text().splitlines()[-lines:])

    def send(self, sig):
        if self.running:
            self.popen.send_signal(sig)

    def kill(self):
        """SIGKILL, and wait."""
        self.send(signal.SIGKILL)
        return self.popen.wait(10)

    def stop(self, sig=signal.SIGTERM, timeout=20):
        """Ask it to end; returns the exit code.  SIGKILL and AssertionError when it does not."""
        self.send(sig)
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end within {timeout} s after signal {int(sig)}:\n{self.tail()}") from None


def retry_port(start, tries=5):
    """start(port) with a free port; again with another one when it fails."""
    for n in range(tries):
        try:
            return start(free_port())
        except AssertionError:
            if n == tries - 1:
                raise


def run(*argv, env=None, timeout=60, check=True, input=None, **kw):
    """Run a program to its end.  AssertionError with its output when it fails (unless check=False)."""
    p = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout,
                       env=env if env is not None else clean_env(), input=input if input is not None else "", **kw)
    if check:
        assert p.returncode == 0, f"{' '.join(map(str, argv))}: exit code {p.returncode}\n{p.stdout}{p.stderr}"
    return p


def new_home():
    """A folder with a short path (Unix sockets have at most 107 bytes) that other users may enter."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="postern-", dir="/tmp"))
    home.chmod(0o755)
    return home


# --- certificates

class CA:
    """A certificate authority made by openssl.  ca.cert is the file to trust; issue() gives (cert, key) files."""

    def __init__(self, home, name="Postern Test CA"):
        self.home = pathlib.Path(home)
        self.home.mkdir(parents=True, exist_ok=True)
        self.name, self.cert, self.key = name, self.home / "ca.pem", self.home / "ca.key"
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
            f"/CN={name}", "-keyout", self.key, "-out", self.cert, "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def issue(self, name, sans="DNS:localhost,IP:127.0.0.1", days=2):
        """days=-1 makes one that expired yesterday."""
        cert, key, csr = (self.home / f"{name}.{x}" for x in ("pem", "key", "csr"))
        ext = self.home / f"{name}.ext"
        ext.write_text(f"subjectAltName={sans}\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n")
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-keyout", key, "-out", csr)
        run("openssl", "x509", "-req", "-in", csr, "-CA", self.cert, "-CAkey", self.key, "-CAcreateserial", "-days", days,
            "-extfile", ext, "-out", cert)
        return cert, key
