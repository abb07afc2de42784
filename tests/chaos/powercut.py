"""What a power cut leaves of files: runs a child under powercut.c, and rolls its files back after the child was killed.

  shim = Shim(home, watch=[spool_dir])
  child = subprocess.Popen([...], env={**os.environ, **shim.env()})
  child.kill(); child.wait()
  shim.cut(random.Random(seed))     # the files are now as a disk might have them; start the next child
  shim.jump(-3600)                  # any time: the child's wall clock goes back an hour

One shim per process under test and its successors: a cut takes back what any of them had not made durable.  The model and the files of the
control folder are told in powercut.c.  A cut is a function of the files, the records and the generator's state.
"""
import dataclasses
import os
import shutil
import struct
import tempfile
from pathlib import Path

SECTOR = 512
UNDO = struct.Struct("<IIQQQQ")
UNDO_MAGIC = 0x756e646f
BUILT = Path(__file__).resolve().parents[2] / "build/tests/libpowercut.so"


@dataclasses.dataclass
class Undo:
    """A change of a file's content: what [offset, offset + length) was before; a truncate: what was behind offset."""
    truncate: bool
    offset: int
    length: int
    old_size: int
    at: int      # of the saved bytes in the journal
    saved: int

    @property
    def end(self):
        return max(self.offset + self.length, self.offset + self.saved)


@dataclasses.dataclass
class Name:
    """A change of a name.  kind: C create, M mkdir, R rename (of "other" to "path"), U unlink."""
    kind: str
    ino: int
    path: str
    other: str
    grave: str


class Shim:
    def __init__(self, home, watch, library=None):
        self.library = Path(library or os.environ.get("POWERCUT_LIB") or BUILT)
        if not self.library.exists():
            raise FileNotFoundError(f"{self.library} is not built; 'tools/build plain' does that")
        self.watch = [os.path.realpath(d) for d in watch]
        self.control = Path(os.path.realpath(tempfile.mkdtemp(prefix=".powercut-", dir=home)))
        for d in ("data", "grave"):
            (self.control / d).mkdir()
        self.offset_s = 0.0
        self.clock = self.control / "clock"
        self.clock.write_bytes(bytes(8))

    def env(self):
        """Of a child.  Call it for each child anew: notes that are of no use any more are dropped here."""
        self.tidy()
        return {"LD_PRELOAD": str(self.library), "POWERCUT_DIR": str(self.control), "POWERCUT_WATCH": ":".join(self.watch)}

    def jump(self, seconds):
        """Shift the wall clock of the children by so much more; the monotonic clock goes on."""
        self.offset_s += seconds
        with open(self.clock, "r+b", buffering=0) as f:
            f.write(struct.pack("<q", int(self.offset_s * 1e9)))

    # --- names ---

    def names(self):
        """The changes that are not durable yet, by folder, in order."""
        pending = {}
        try:
            lines = (self.control / "names").read_text(errors="surrogateescape").splitlines()
        except FileNotFoundError:
            return pending
        for line in lines:
            fields = line.split("\t")
            if len(fields) != 5:
                continue  # the last one, torn by the kill: its change did not happen
            kind, ino, path, other, grave = fields[0], int(fields[1]), *fields[2:]
            of_folder = pending.setdefault(os.path.dirname(path), [])
            if kind in "CMRU":
                of_folder.append(Name(kind, ino, path, other, grave))
            elif kind == "X":  # the last change of this name failed
                self.drop_last(of_folder, path)
            elif kind == "I":  # which inode the created file got
                of_folder[-1].ino = ino
            elif kind == "D":
                pending[path] = []
                self.own_name_durable(pending, path)
            elif kind == "F":
                self.own_name_durable(pending, path)
        return {d: names for d, names in pending.items() if names}

    @staticmethod
    def drop_last(names, path):
        for i in range(len(names) - 1, -1, -1):
            if names[i].path == path:
                del names[i]
                return

    @staticmethod
    def own_name_durable(pending, path):
        """The name, all older ones of its folder, and the names of the folders above."""
        while len(path) > 1:
            folder = os.path.dirname(path)
            names = pending.get(folder, [])
            last = max((i for i, n in enumerate(names) if n.path == path and n.kind != "U"), default=-1)
            del names[:last + 1]
            path = folder

    @staticmethod
    def undo_name(n):
        there = os.path.lexists(n.path)
        if n.kind == "C" and there and n.ino in (0, os.lstat(n.path).st_ino):
            os.unlink(n.path)
        elif n.kind == "M" and there:
            shutil.rmtree(n.path)
        elif n.kind == "R" and there and os.lstat(n.path).st_ino == n.ino:
            os.rename(n.path, n.other)
        if n.grave and os.path.exists(n.grave) and not os.path.lexists(n.path) and os.path.isdir(os.path.dirname(n.path)):
            os.rename(n.grave, n.path)

    def tidy(self):
        """Forget names that are durable, and the graves that only they needed."""
        pending = self.names()
        keep = {n.grave for names in pending.values() for n in names}
        with open(self.control / "names.new", "w", errors="surrogateescape") as f:
            for names in pending.values():
                for n in names:
                    f.write("\t".join((n.kind, str(n.ino), n.path, n.other, n.grave)) + "\n")
        os.rename(self.control / "names.new", self.control / "names")
        for grave in (self.control / "grave").iterdir():
            if str(grave) not in keep:
                grave.unlink()

    # --- content ---

    @staticmethod
    def undos(journal):
        """The records of one file since its last fsync, oldest first."""
        size = os.fstat(journal).st_size
        head = os.pread(journal, 8, 0)
        at = struct.unpack("<q", head)[0] if len(head) == 8 else size
        found = []
        while at + UNDO.size <= size:
            magic, truncate, offset, length, old_size, saved = UNDO.unpack(os.pread(journal, UNDO.size, at))
            at += UNDO.size
            if magic != UNDO_MAGIC or at + saved > size:
                break
            found.append(Undo(bool(truncate), offset, length, old_size, at, saved))
            at += saved
        return found

    def roll_back(self, fd, journal, undos, rng):
        """Give each unsynced sector, and the size, one of the states they had.  How many writes came through whole, in part, not at all."""
        mode = rng.choice(("none", "all", "prefix", "prefix", "sectors", "sectors", "sectors"))
        n = len(undos)
        until = {"none": 0, "all": n}.get(mode, rng.randint(0, n))
        sizes = [u.old_size for u in undos] + [os.fstat(fd).st_size]
        size_at = rng.randint(0, n) if mode == "sectors" else until  # so many changes of the size are on the disk
        chosen, kept = {}, [[0, 0] for _ in undos]
        truncates = [(i, u) for i, u in enumerate(undos) if u.truncate]

        def survivor(sector):
            """How many of the changes this sector has seen."""
            low = max((i + 1 for i, u in truncates if i < size_at and touches(u, sector)), default=0)
            high = min((i for i, u in truncates if i >= size_at and touches(u, sector)), default=n)
            return max(low, min(until if mode != "sectors" else rng.randint(0, n), high))

        def touches(u, sector):
            return u.offset < (sector + 1) * SECTOR and u.end > sector * SECTOR

        for s in sorted({s for u in undos for s in range(u.offset // SECTOR, -(-u.end // SECTOR))}):
            chosen[s] = survivor(s)
        if mode == "prefix" and until < n:  # the write that the cut interrupts is torn
            torn = undos[until]
            inside = [s for s in chosen if touches(torn, s)]
            if not torn.truncate and len(inside) > 1:
                for s in inside[:rng.randint(0, len(inside) - 1)]:
                    chosen[s] = until + 1
                size_at += 1
        for i in range(n - 1, -1, -1):
            u = undos[i]
            for s in range(u.offset // SECTOR, -(-u.end // SECTOR)):
                kept[i][chosen[s] > i] += 1
                if chosen[s] > i:
                    continue
                start, end = max(u.offset, s * SECTOR), min(u.end, (s + 1) * SECTOR)
                have = os.pread(journal, min(end, u.offset + u.saved) - start, u.at + start - u.offset) \
                    if start < u.offset + u.saved else b""
                os.pwrite(fd, have + bytes(end - start - len(have)), start)
        os.ftruncate(fd, sizes[size_at])
        return (sum(not k[0] for k in kept), sum(bool(k[0] and k[1]) for k in kept), sum(bool(k[0] and not k[1]) for k in kept))

    def by_inode(self):
        found = {}
        for top in (*self.watch, self.control / "grave"):
            for folder, _, files in os.walk(top):
                if os.path.realpath(folder).startswith(f"{self.control}/") and folder != str(self.control / "grave"):
                    continue
                for name in files:
                    path = os.path.join(folder, name)
                    st = os.lstat(path)
                    found[f"{st.st_dev:x}-{st.st_ino}"] = path
        return found

    # --- the cut ---

    def cut(self, rng):
        """Roll back what is not durable; the child must be dead.  Returns numbers: writes kept, torn and lost, names undone."""
        done = {"kept": 0, "torn": 0, "lost": 0, "names_undone": 0, "names_kept": 0}
        where = self.by_inode()
        for path in sorted((self.control / "data").iterdir(), key=lambda p: where.get(p.name, "")):
            target = where.get(path.name)
            if target:
                journal, fd = os.open(path, os.O_RDONLY), os.open(target, os.O_RDWR)
                undos = self.undos(journal)
                if undos:
                    kept, torn, lost = self.roll_back(fd, journal, undos, rng)
                    done["kept"] += kept
                    done["torn"] += torn
                    done["lost"] += lost
                os.close(fd)
                os.close(journal)
            path.unlink()
        pending = self.names()
        for folder in sorted(pending, reverse=True):  # what is in a folder before the folder
            stays = rng.randint(0, len(pending[folder]))
            for n in reversed(pending[folder][stays:]):
                self.undo_name(n)
            done["names_kept"] += stays
            done["names_undone"] += len(pending[folder]) - stays
        (self.control / "names").write_bytes(b"")
        for grave in (self.control / "grave").iterdir():
            grave.unlink()
        for top in self.watch:
            for shm in Path(top).rglob("*-shm"):
                shm.unlink()
        return done
