"""What a run does, from start to verdict: random, rolling, outage."""
import asyncio
import time

import faults
import report
from harness import wait_until
from system import SLOTS, System, seeded
from workload import LONG, OUTAGE, RANDOM, ROLLING, Workload

FAULTS_END = 200  # seconds for the last faults to be over
USERS_END = 240   # … and then for every open operation to end
SPOOLS_END = 90  # seconds that results may take into the gateway at the end


class Run:
    """System and load; ends with a verdict."""

    def __init__(self, args, folder, history, loop):
        self.args, self.folder, self.history, self.loop = args, folder, history, loop
        self.begin = time.monotonic()
        self.system = System(folder, loop, history, args.seed, args.lease)
        self.problems = self.system.problems
        self.load = None

    def call(self, coroutine, timeout=None):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def start_load(self, port, **kw):
        async def start():
            self.load = Workload(self.history, port, self.system.gateway.process.token, ["alpha-db", "alpha-db", "beta-db"], self.args.seed, **kw)
            self.load.start()

        self.call(start())

    def progress(self, text):
        load = self.load
        print(f"{time.monotonic() - self.begin:6.0f} s  {text}; {len(load.accepted)} operations accepted, {len(load.open)} open, "
              f"{sum(load.numbers.values())} requests repeated", flush=True)

    def check(self):
        """Raises when the run cannot go on."""
        self.system.check()
        if wrong := self.load.failed():
            raise RuntimeError("the load's own fault") from wrong

    def end_load(self, seconds):
        self.load.stop()
        self.progress("no new operations, waiting for the open ones")
        waiting = asyncio.run_coroutine_threadsafe(self.load.wait(seconds), self.loop)
        while not waiting.done():
            self.system.check()
            time.sleep(0.1)
        waiting.result()
        self.progress("the open ones ended" if not self.load.open else "some are still open")

    def stop_agents(self):
        """In the end nobody works any more: what a late attempt does is seen.  First the spools get empty: a delivery on a connection that a
        partition left half-open is given up after a minute without a byte, and a result that waits for that is not lost."""
        end = time.monotonic() + SPOOLS_END
        while (held := {a.name: n for a in self.system.agents if (n := spooled(a))}) and time.monotonic() < end:
            time.sleep(0.2)
        if held:
            self.problems.append(f"results are still in the spools after {SPOOLS_END} s with all well: {held}")
        for a in self.system.agents:
            if a.terminate() != 0:
                self.problems.append(f"{a.name} did not stop within its time when all was well; the end of its log:\n{a.process.tail(15)}")

    def verdict(self):
        s = self.system
        self.progress("reading what the gateway and the data source have")
        gw = s.gateway.process
        self.call(report.read_finals(self.history, gw.port, gw.token, self.load.accepted))
        report.add_effects(self.history, s.effects(), self.load.keys, self.load.kinds)
        if not report.add_stored(self.history, s.agents) and self.load.ended["succeeded"]:
            self.problems.append("the agents' logs name no stored result: the checker cannot see whether one was lost")
        if s.gateway.terminate() != 0:
            self.problems.append(f"the gateway did not stop within its time when all was well; the end of its log:\n{gw.tail(15)}")
        self.problems += s.complaints()
        self.problems += [f"refused: {h['key']}: HTTP {h['status']}: {h['body']}" for h in self.history.events if h["e"] == "refused"]
        header = (f"scenario {self.args.scenario}, seed {self.args.seed}, {time.monotonic() - self.begin:.0f} s, "
                  f"lease {self.args.lease}" + ("" if s.gateway.disk.can else ", without full disks (no right to mount)"))
        code = report.finish(self.history, header, self.problems, self.load.numbers, self.folder)
        if code:
            s.keep_data()
        return code

    def __enter__(self):
        return self

    def __exit__(self, kind, *exc):
        if kind:
            self.system.keep_data()
        self.system.close()


def plan(args, without=()):
    return faults.schedule(args.seed, args.faults, args.gap, args.longest, {*args.without, *without}, args.only)


def random_faults(args, folder, history, loop):
    with Run(args, folder, history, loop) as run:
        s = run.system
        chaos = faults.Faults(s, args.seed, history)
        run.start_load(s.links["clients"].port, kinds=WORK[args.work], rate=args.rate)
        start, said = time.monotonic(), 0
        todo = plan(args, () if s.gateway.disk.can else ("disk",))
        share = (args.operations if args.operations is not None else 50 * args.faults) / max(1, args.faults)
        for f in todo:
            time.sleep(max(0, start + f.at - time.monotonic()))
            late = time.monotonic() + args.gap  # a machine that is slower gets its faults slower
            while len(run.load.accepted) < f.n * share and time.monotonic() < late:
                time.sleep(0.05)
                start += 0.05
            run.check()
            chaos.start(f)
            if time.monotonic() - said > 15:
                said = time.monotonic()
                run.progress(f"fault {f.n + 1} of {len(todo)}")
        run.problems += chaos.wait(FAULTS_END)
        s.heal()
        # Without a shifted clock from here on, and one power cut more: what comes after it is judged.
        s.gateway.kill(seeded(args.seed, "heal"))
        s.gateway.start()
        run.end_load(USERS_END)
        run.stop_agents()
        s.gateway.kill(seeded(args.seed, "end"))
        s.gateway.start()
        return run.verdict()


def linked(node):
    wait_until(node.process.ready, 60, f"{node.name} is linked")


def rolling(args, folder, history, loop):
    """Gateway and instances are restarted by SIGTERM, one by one, under load: no operation fails, no client is refused."""
    with Run(args, folder, history, loop) as run:
        s = run.system
        for a in s.agents:
            linked(a)
        run.start_load(s.gateway.process.port, kinds=ROLLING, rate=args.rate)
        end, n = time.monotonic() + 60 * (args.minutes or 2), 0
        while time.monotonic() < end or n < 3:
            for node in (s.gateway, *s.agents[:2]):
                time.sleep(1.5)
                run.check()
                history.add("fault", n=n, kind="rolling restart", target=node.name, detail={})
                n += 1
                status = node.terminate()
                if status != 0:
                    run.problems.append(f"{node.name}: exit status {status} after SIGTERM; the end of its log:\n{node.process.tail(15)}")
                node.start()
                for a in s.agents:
                    linked(a)
            run.progress(f"{n} restarts")
        run.end_load(USERS_END)
        run.problems += [f"{n} operations ended as {state}" for state, n in run.load.ended.items() if state != "succeeded"]
        run.problems += [f"clients met '{what}' {n} times; a restart may refuse connections and close idle ones, no more"
                         for what, n in run.load.numbers.items() if not what.endswith(("nothing sent", "closed unanswered", "HTTP 503"))]
        run.stop_agents()
        return run.verdict()


def outage(args, folder, history, loop):
    """The gateway is away while work finishes in the agents, and the agents are killed in that time: every result arrives afterwards."""
    with Run(args, folder, history, loop) as run:
        s, minutes = run.system, args.minutes or 10
        for a in s.agents:
            linked(a)
        run.start_load(s.gateway.process.port, kinds=OUTAGE, rate=args.rate, users=60)
        wait_until(lambda: all(busy(a) >= SLOTS // 2 for a in s.agents), 120, "every instance is busy")
        run.load.stop()
        history.add("fault", n=0, kind="gateway away", target="gateway", detail={"minutes": minutes})
        s.gateway.kill(seeded(args.seed, "outage"))
        away = time.monotonic()
        working = {a.name: busy(a) for a in s.agents}
        run.progress(f"the gateway is away; at work: {working}")
        wait_until(lambda: all(busy(a) == 0 for a in s.agents), 90, "the work is done", every=0.5)
        held = {a.name: spooled(a) for a in s.agents}
        run.progress(f"the work is done, results wait in the spools: {held}")
        if min(working.values()) == 0 or any(held[name] < n for name, n in working.items()):
            run.problems.append(f"the spools have {held}, of {working} that were at work")
        for i, a in enumerate(s.agents[:2]):  # one is back at once, the other one when the gateway is
            history.add("fault", n=1 + i, kind="power cut instance", target=a.name, detail={"cut": True})
            a.kill(seeded(args.seed, "outage", a.name))
        s.agents[0].start()
        if spooled(s.agents[0]) != held["a1"]:
            run.problems.append(f"a1 had {held['a1']} results before the kill, has {spooled(s.agents[0])} after it")
        time.sleep(max(0, away + 60 * minutes - time.monotonic()))
        s.gateway.start()
        s.agents[1].start()
        run.progress("the gateway is back")
        run.end_load(USERS_END)
        run.problems += [f"{n} operations ended as {state}" for state, n in run.load.ended.items() if state != "succeeded"]
        run.stop_agents()
        return run.verdict()


def busy(node):
    return int(node.metric("app_active_task_count"))


def spooled(node):
    return int(node.metric("postern_agent_spool_entries"))


WORK = {"mixed": RANDOM, "long": LONG}
ALL = {"random": random_faults, "rolling": rolling, "outage": outage}
