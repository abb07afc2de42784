"""The faults: a table of kinds, a schedule that is a function of the seed, and what each does.

A fault has a time, a target, a length and a generator of its own.  Faults overlap: each runs in its own thread, and only those that start
and stop the same process wait for one another.
"""
import dataclasses
import math
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from links import MODES
from system import seeded

INSTANCES = ("a1", "a2", "b1")
LINKS = ("clients", "a1", "a1", "a2", "b1")


@dataclasses.dataclass
class Fault:
    n: int
    at: float      # seconds since the start
    kind: str
    target: str
    seconds: float
    detail: dict


# --- what they do: f(system, fault, rng)

def kill(system, f, rng):
    node = system.nodes[f.target]
    with node.lock:
        done = node.kill(rng if f.detail.get("cut") else None)
        time.sleep(f.seconds)
        node.start()
    return done


def restart(system, f, rng):
    node = system.nodes[f.target]
    with node.lock:
        status = node.terminate()
        time.sleep(f.seconds)
        node.start()
    return {"exit": status}


def pause(system, f, rng):
    node = system.nodes[f.target]
    with node.lock, node.pausing:  # not while it is starting
        node.pauses += 1
        node.process.send(signal.SIGSTOP)
    time.sleep(f.seconds)
    with node.pausing:  # without the other lock: who stops the process has it, and waits for this
        node.pauses -= 1
        if not node.pauses:  # pauses overlap: the last one to end is the end
            node.process.send(signal.SIGCONT)


def partition(system, f, rng):
    link = system.links[f.target]
    link.set(f.detail["mode"], **{k: v for k, v in f.detail.items() if k != "mode"})
    time.sleep(f.seconds)
    link.set("pass")


def disk_full(system, f, rng):
    disk = system.nodes[f.target].disk
    full = disk.fill(f.detail["spare_kb"])
    time.sleep(f.seconds)
    disk.empty()
    return {"full": full}


def clock_jump(system, f, rng):
    shim = system.nodes[f.target].shim
    shim.jump(f.detail["by"])
    time.sleep(f.seconds)
    shim.jump(-f.detail["by"])


def rotate(system, f, rng):
    system.rotate(f.target, f.seconds)


def disable(system, f, rng):
    agent = system.keys[f.target].agent
    system.api("POST", f"/agents/{agent}/disable")
    time.sleep(f.seconds)
    system.api("POST", f"/agents/{agent}/enable")


def cut_sessions(system, f, rng):
    pids = [r[0] for r in system.postgres.sql("SELECT pid FROM pg_stat_activity WHERE usename = 'app' ORDER BY pid", dbname="postgres")]
    for pid in pids:
        if rng.random() < f.detail["share"]:
            system.postgres.sql("SELECT pg_terminate_backend(%s)", (pid,), "postgres")


# --- the table

def lasts(low, high):
    """Mostly short: as many between 0.1 and 1 s as between 1 and 10 s."""
    return lambda rng: round(math.exp(rng.uniform(math.log(low), math.log(high))), 2)


def link_detail(rng):
    mode = rng.choice(MODES)
    detail = {"mode": mode}
    if mode in ("blackhole", "up", "down"):
        detail["hang"] = rng.random() < 0.5
    if mode in ("cut", "reset"):
        detail["way"] = rng.choice(("up", "down"))
    if mode == "cut":
        detail["bytes"] = int(math.exp(rng.uniform(0, math.log(60000))))
    if mode == "slow":
        detail["delay"] = round(rng.uniform(0.02, 0.5), 2)
    return detail


@dataclasses.dataclass
class Kind:
    name: str
    weight: float
    run: object
    targets: tuple
    lasts: object
    detail: object = staticmethod(lambda rng: {})
    needs: str = ""


KINDS = (
    Kind("kill gateway", 5, kill, ("gateway",), lasts(0.05, 3)),
    Kind("power cut gateway", 6, kill, ("gateway",), lasts(0.05, 3), lambda rng: {"cut": True}),
    Kind("kill instance", 9, kill, INSTANCES, lasts(0.05, 5)),
    Kind("power cut instance", 9, kill, INSTANCES, lasts(0.05, 5), lambda rng: {"cut": True}),
    Kind("pause gateway", 4, pause, ("gateway",), lasts(0.1, 15)),
    Kind("pause instance", 9, pause, INSTANCES, lasts(0.1, 90)),
    Kind("partition", 30, partition, LINKS, lasts(0.1, 25), link_detail),
    Kind("full disk", 6, disk_full, ("gateway", "a1"), lasts(0.5, 8), lambda rng: {"spare_kb": rng.choice((0, 4, 64, 300))}, "disk"),
    Kind("clock jump", 5, clock_jump, ("gateway", *INSTANCES), lasts(1, 60), lambda rng: {"by": rng.choice((-1, 1)) * rng.randint(1, 3600)}),
    Kind("restart gateway", 3, restart, ("gateway",), lasts(0.05, 1)),
    Kind("restart instance", 5, restart, INSTANCES, lasts(0.05, 1)),
    Kind("rotate key", 2, rotate, ("alpha", "beta"), lasts(0.1, 5)),
    Kind("disable agent", 2, disable, ("alpha", "beta"), lasts(0.2, 8)),
    Kind("cut sessions", 6, cut_sessions, ("postgres",), lasts(0.01, 0.02), lambda rng: {"share": rng.choice((0.2, 0.5, 1))}),
)


def schedule(seed, n, gap, longest=90, without=(), only=None):
    """n faults, on average one each `gap` seconds: a function of the arguments."""
    rng = seeded(seed, "schedule")
    kinds = [k for k in KINDS if (not k.needs or k.needs not in without) and (not only or k.name in only)]
    weights = [k.weight for k in kinds]
    found, at = [], 1.0
    for i in range(n):
        k = rng.choices(kinds, weights)[0]
        found.append(Fault(i, round(at, 3), k.name, rng.choice(k.targets), min(k.lasts(rng), longest), k.detail(rng)))
        at += min(rng.expovariate(1 / gap), 5 * gap)
    return found


class Faults:
    """Runs a schedule.  Its threads live as long as the run: children die with the thread that started them."""

    def __init__(self, system, seed, history):
        self.system, self.seed, self.history = system, seed, history
        self.pool = ThreadPoolExecutor(64, thread_name_prefix="fault")
        self.running = []
        self.kinds = {k.name: k for k in KINDS}
        self.counts = {}
        self._lock = threading.Lock()

    def start(self, f):
        self.counts[f.kind] = self.counts.get(f.kind, 0) + 1
        self.running.append((f, self.pool.submit(self._run, f)))

    def _run(self, f):
        self.history.add("fault", n=f.n, kind=f.kind, target=f.target, detail={**f.detail, "seconds": f.seconds})
        done = self.kinds[f.kind].run(self.system, f, seeded(self.seed, "fault", f.n))
        self.history.add("healed", n=f.n, done=done)

    def wait(self, seconds):
        """For all to be over.  Returns what went wrong in this program or in the product while healing."""
        end, wrong = time.monotonic() + seconds, []
        for f, future in self.running:
            try:
                future.result(max(0.1, end - time.monotonic()))
            except Exception as e:  # noqa: BLE001: told with the fault that met it
                wrong.append(f"fault {f.n} ({f.kind}, {f.target}) did not come to its end: {type(e).__name__}: {e}")
        return wrong
