#!/usr/bin/python3
"""Does the chaos run find bugs?  Builds the product with one deliberate bug after the other and wants each one caught.

Usage: tests/chaos/mutants.py [--list] [--build-only] [--faults N] [--seed S] [--driver PROGRAM] [NAME…]

A mutant is a file mutants/NAME.mutant: what the bug is, "faults: KIND, …" (the faults that bring it to light), perhaps
"arguments: …" (more of the driver's), and changes of the source:
"file: PATH", then the old text between <<<< and ====, and the new one between ==== and >>>>.  The old text must be there exactly once:
a mutant that no longer fits the source is a failure, and is brought up to date with the change that broke it.

The source is copied to build-mutants/source, so a mutant costs the files that it changes.  The driver (tests/chaos/run) gets the faults by
--only, and a mutant is caught when it ends with 1, a violation, in one of two tries.  Prints TAP.
"""
import argparse
import dataclasses
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = ROOT / "build-mutants"
SOURCE, BUILD, BIN = WORK / "source", WORK / "build", WORK / "bin"
CHANGE = re.compile(r"^file: (\S+)\n<<<<\n(.*?)^====\n(.*?)^>>>>\n", re.MULTILINE | re.DOTALL)
TRIES = 2
LONGEST = 600  # seconds of a run: one with a violation may wait for operations that never end


class Stale(Exception):
    """The mutant does not fit the source any more."""


@dataclasses.dataclass
class Mutant:
    name: str
    what: str
    faults: list
    changes: list  # of (path, old, new)
    more: list = dataclasses.field(default_factory=list)  # arguments of the driver

    @classmethod
    def load(cls, path):
        text = path.read_text(encoding="utf-8")
        faults = re.search(r"^faults: (.+)$", text, re.MULTILINE)
        more = re.search(r"^arguments: (.+)$", text, re.MULTILINE)
        changes = CHANGE.findall(text)
        if not faults or not changes or CHANGE.sub("", text[(more or faults).end():]).strip():
            raise Stale(f"{path} is not a mutant: see the head of {__file__}")
        return cls(path.stem, text[:faults.start()].strip(), faults.group(1).split(", "), changes, more.group(1).split() if more else [])

    def apply(self, source):
        """Change the files below source; what they were."""
        before = {}
        for path, old, new in self.changes:
            text = (source / path).read_text(encoding="utf-8")
            old, new = old.removesuffix("\n"), new.removesuffix("\n")
            if text.count(old) != 1:
                restore(source, before)
                raise Stale(f"the old text is {text.count(old)} times in {path}")
            before.setdefault(path, text)
            (source / path).write_text(text.replace(old, new), encoding="utf-8")
        return before


def restore(source, before):
    for path, text in before.items():
        (source / path).write_text(text, encoding="utf-8")


def load(names=()):
    mutants = {m.name: m for m in map(Mutant.load, sorted((HERE / "mutants").glob("*.mutant")))}
    unknown = [n for n in names if n not in mutants]
    if unknown:
        sys.exit(f"mutants.py: no mutant '{unknown[0]}'; there are {', '.join(mutants)}")
    return [mutants[n] for n in names] or list(mutants.values())


def copy_source():
    """The source as it is here; a file that did not change keeps its time, so that the build stays incremental."""
    names = subprocess.check_output(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True).split("\0")
    for name in filter(None, names):
        src, dst = ROOT / name, SOURCE / name
        if not src.is_file() or (dst.is_file() and dst.read_bytes() == src.read_bytes()):
            continue
        dst.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(src, dst)


def run(*argv):
    p = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if p.returncode:
        raise Stale(f"{argv[0]} failed:\n{p.stdout[-3000:]}")


def build(mutant):
    """The mutant's program."""
    before = mutant.apply(SOURCE)
    try:
        if not (BUILD / "build.ninja").exists():
            run("meson", "setup", "-Dtests=false", BUILD, SOURCE)
        run("ninja", "-C", BUILD, "--quiet", "src/cmd/postern", *(["-j", os.environ["JOBS"]] if os.environ.get("JOBS") else []))
        BIN.mkdir(exist_ok=True)
        (BIN / mutant.name).unlink(missing_ok=True)  # it may still run
        return shutil.copy(BUILD / "src/cmd/postern", BIN / mutant.name)
    finally:
        restore(SOURCE, before)


def hunt(mutant, binary, args):
    """Run the driver; whether it found a violation, and its last lines."""
    for n in range(TRIES):
        argv = [args.driver, "--scenario", "random", "--faults", str(args.faults), "--gap", "0.7", "--longest", "12", "--lease", "5s",
                "--rate", "60", "--seed", f"{args.seed}-{n}", *(a for kind in mutant.faults for a in ("--only", kind)), *mutant.more]
        p = subprocess.Popen(argv, env={**os.environ, "POSTERN_BIN": str(binary)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            out, _ = p.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            p.send_signal(signal.SIGINT)
            return False, [*p.communicate()[0].splitlines(), f"no verdict within {LONGEST} s"]
        if p.returncode != 0:
            break
    return p.returncode == 1, out.splitlines()


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--list", action="store_true", help="name the mutants")
    ap.add_argument("--build-only", action="store_true", help="do they fit the source, and compile?")
    ap.add_argument("--faults", type=int, default=40, help="of a run (default 40)")
    ap.add_argument("--seed", default=str(int(time.time())))
    ap.add_argument("--driver", default=str(HERE / "run"), help="default: tests/chaos/run")
    ap.add_argument("names", nargs="*", metavar="NAME")
    args = ap.parse_args()
    mutants = load(args.names)
    if args.list:
        for m in mutants:
            print(f"{m.name}: {m.what}")
        return 0
    copy_source()
    failed = 0
    print(f"# seed {args.seed}\n1..{len(mutants)}", flush=True)
    for i, m in enumerate(mutants, 1):
        start = time.monotonic()
        try:
            binary = build(m)
            good, lines = (True, []) if args.build_only else hunt(m, binary, args)
        except Stale as e:
            good, lines = False, str(e).splitlines()
        failed += not good
        print(f"{'ok' if good else 'not ok'} {i} - {m.name} ({time.monotonic() - start:.0f} s)")
        print("".join(f"# {line}\n" for line in lines[-12:]), end="", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("mutants.py: interrupted")
