"""callgrind, which counts what runs inside the process: instructions, and the calls of functions."""

import re
import subprocess
from collections import Counter

from clients import PATIENCE
from rig import Rig

# A block of memory comes from mimalloc for Rust, and from the C library for aws-lc. Both are several
# functions that call each other; the call from outside is the one that counts.
ALLOCATE = re.compile(
    r"^(mi_(theap_|heap_)?(m|z|c|re|rez|rec)alloc\w*|(m|c|re)alloc|posix_memalign|aligned_alloc)$")
ALLOCATOR = re.compile(r"^_?mi_|^(m|c|re)alloc$|^posix_memalign$|^aligned_alloc$")
# What looks something up in a map of header fields, changes it, or walks through it.
HEADERS = re.compile(
    r"http::header::map::HeaderMap(<T>)?::(get|get_mut|get_all|contains_key|insert|append|remove|entry"
    r"|try_insert|try_append|try_entry|iter|iter_mut|keys|values|drain)$"
    r"|HeaderMap(<T>)? as .*IntoIterator>::into_iter$")
HEADER_MAP = re.compile(r"http::header::map::")
COPY = re.compile(r"^(__)?mem(cpy|move)(_|@|$)")
CLOCK = re.compile(r"^(__)?clock_gettime")


class Callgrind:
    """The gateway under callgrind, which counts nothing until it is told to."""

    def __init__(self, binary, keep=None):
        self.rig = Rig(binary)
        # A folder for the profiles, or None.
        self.keep = keep
        self.prefix = self.rig.folder / "vgdb"
        self.rig.wrapper = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--quiet",
                            f"--vgdb-prefix={self.prefix}",
                            f"--callgrind-out-file={self.rig.folder}/callgrind.out"]

    def __enter__(self):
        self.rig.__enter__()
        return self

    def __exit__(self, *_):
        self.rig.__exit__()

    def tell(self, *command):
        """Gives a command to callgrind in the process."""
        subprocess.run(["vgdb", f"--vgdb-prefix={self.prefix}", f"--pid={self.rig.gateway.pid}",
                        *command], check=True, capture_output=True, timeout=PATIENCE)

    def count(self, scenario):
        """What one request of the scenario costs."""
        opened = self.rig.open(scenario)
        self.rig.send(scenario, opened, scenario.warm)
        self.tell("instrumentation", "on")
        self.rig.send(scenario, opened, 1)
        self.tell("zero")
        self.rig.send(scenario, opened, scenario.rounds)
        self.tell("dump", "counts")
        self.tell("instrumentation", "off")
        for connection in opened:
            connection.close()
        (file,) = self.rig.folder.glob("callgrind.out.*")
        text = file.read_text(errors="replace")
        file.unlink()
        if self.keep:
            (self.keep / f"{scenario.name}.callgrind").write_text(text)
        requests = scenario.rounds * scenario.requests
        return {name: count / requests for name, count in Profile(text).counts().items()}


class Profile:
    """The calls of functions that callgrind wrote down, and the sum of all instructions."""

    def __init__(self, text):
        self.instructions = int(re.search(r"^(?:summary|totals): (\d+)", text, re.M)[1])
        self.calls = Counter()
        names, caller, callee = {}, "", ""

        def name(said):
            # The first time a function has a number and a name, then the number alone. A recursion
            # adds its depth.
            number, _, given = said.partition(" ")
            if given:
                names[number] = re.sub(r"'\d+$", "", given)
            return names[number]

        for line in text.splitlines():
            if line.startswith("fn="):
                caller = name(line[3:])
            elif line.startswith("cfn="):
                callee = name(line[4:])
            elif line.startswith("calls="):
                self.calls[caller, callee] += int(line[6:].split()[0])

    def called(self, what, inside=None):
        """Calls of the functions that match `what`, but not those from inside the same thing."""
        inside = inside or what
        return sum(count for (caller, callee), count in self.calls.items()
                   if what.search(callee) and not inside.search(caller))

    def counts(self):
        """All counts, by their names."""
        return {
            "instructions": self.instructions,
            "allocations": self.called(ALLOCATE, ALLOCATOR),
            "header operations": self.called(HEADERS, HEADER_MAP),
            "copies": self.called(COPY),
            "clock reads": self.called(CLOCK),
        }
