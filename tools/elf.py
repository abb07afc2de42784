"""What a dynamically linked program needs to run, asked of this machine's own loader.  No architecture is named here."""
import re
import subprocess


class Missing(Exception):
    pass


def libraries(*programs):
    """Paths of the dynamic loader and of all shared libraries that these programs and libraries need, sorted; links are not followed.
    Raises Missing with what is not installed."""
    found = set()
    for program in programs:
        # LC_ALL: the words "not found" are looked for.
        p = subprocess.run(["ldd", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"})
        if p.returncode or "not found" in p.stdout:
            raise Missing(f"ldd {program}:\n{p.stdout}")
        found.update(re.findall(r"(?:=> |^\s+)(/\S+)", p.stdout, re.MULTILINE))
    return sorted(found)
