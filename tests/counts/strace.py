"""strace, which writes down every system call of the process."""

import re
from collections import Counter

from rig import Rig

READS = ("read", "readv", "recvfrom", "recvmsg")
WRITES = ("write", "writev", "sendto", "sendmsg", "sendmmsg")
WAITS = ("epoll_wait", "epoll_pwait", "epoll_pwait2")

# Each count: its name, the calls, and where their descriptor leads; None where that is not asked.
COUNTS = (
    ("client reads", READS, "client"),
    ("client writes", WRITES, "client"),
    ("backend reads", READS, "backend"),
    ("backend writes", WRITES, "backend"),
    ("connects", ("connect",), "backend"),
    ("epoll_ctl", ("epoll_ctl",), None),
    ("epoll_wait", WAITS, None),
    ("futex", ("futex",), None),
)


class Strace:
    """The gateway under strace."""

    def __init__(self, binary, _keep=None):
        self.rig = Rig(binary)
        self.file = self.rig.folder / "strace.out"
        self.rig.wrapper = ["strace", "-f", "-q", "-s0", "-o", self.file]
        self.trace = Trace(self.file, self.rig.backend)

    def __enter__(self):
        self.rig.__enter__()
        return self

    def __exit__(self, *_):
        self.rig.__exit__()

    def count(self, scenario):
        """What one request of the scenario costs."""
        opened = self.rig.open(scenario)
        self.rig.send(scenario, opened, scenario.warm)
        self.trace.calls()
        # strace slows the gateway less than callgrind does: more rounds, for the calls that a clock
        # makes.
        rounds = 2 * scenario.rounds
        self.rig.send(scenario, opened, rounds)
        calls = self.trace.calls()
        for connection in opened:
            connection.close()
        counts = {name: sum(count for (call, peer), count in calls.items()
                            if call in kinds and wanted in (peer, None))
                  for name, kinds, wanted in COUNTS}
        counts["system calls"] = sum(calls.values())
        return {name: count / (rounds * scenario.requests) for name, count in counts.items()}


class Trace:
    """The file that strace writes, and what each descriptor of the process leads to."""

    LINE = re.compile(r"^(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)$")

    def __init__(self, file, backend):
        self.file = file
        self.backend = f"sin_port=htons({backend})"
        self.offset = 0
        self.peers = {}
        # What strace wrote of a call before another thread came between.
        self.begun = {}

    def calls(self):
        """The calls since the last time, counted by their name and where they lead."""
        with open(self.file, "rb") as trace:
            trace.seek(self.offset)
            data = trace.read()
        data = data[:data.rfind(b"\n") + 1]
        self.offset += len(data)
        counted = Counter()
        for line in data.decode(errors="replace").splitlines():
            if found := self.LINE.match(line):
                self.call(counted, *found.groups())
        return counted

    def call(self, counted, thread, resumed, call, rest):
        """One line of the file."""
        if resumed:
            call, rest = resumed, self.begun.pop(thread, "") + rest
        elif rest.endswith("<unfinished ...>"):
            self.begun[thread] = rest.removesuffix("<unfinished ...>")
            return
        descriptor = re.match(r"\d*", rest)[0]
        result = re.search(r" = (\d+)", rest)
        if call == "connect" and self.backend in rest:
            self.peers[descriptor] = "backend"
        elif call in ("accept", "accept4") and result:
            self.peers[result[1]] = "client"
        counted[call, self.peers.get(descriptor)] += 1
        if call == "close":
            self.peers.pop(descriptor, None)
