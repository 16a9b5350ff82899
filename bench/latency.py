"""Latency under an open load: requests are due at fixed times, whether or not answers have come.

A request is late from the time at which it was due, not from the one at which it was sent. So an
answer that holds up the next requests counts for each of them ("coordinated omission").
"""

import math
import subprocess
from dataclasses import dataclass

from load import Failed

# h2load looks at its clock every 10 ms at most, so one connection is given fewer requests than that.
RATE_OF_CONNECTION = 80
CONNECTIONS = 32


@dataclass
class Latency:
    """Milliseconds, and how many requests in a second were due."""

    rate: float
    median: float
    most_of_100: float
    most_of_1000: float
    most: float


def measure(rate, seconds, host, port, paths, folder):
    """Sends `rate` requests a second over HTTP/1.1 for so long."""
    connections = max(CONNECTIONS, math.ceil(rate / RATE_OF_CONNECTION))
    each = rate / connections
    count = max(10, round(each * seconds))
    logs = [folder / f"latency-{number}" for number in range(connections)]
    # A process for each connection, since the log of h2load does not tell connections apart. They
    # start one after the other, so that their requests are due at different times.
    running = [subprocess.Popen(
        ["h2load", "--h1", "-m1", "-t1", "-c1", f"-n{count}", f"--rps={each}",
         f"--connect-to=127.0.0.1:{port}", f"--base-uri=https://{host}:{port}", f"-i{paths}",
         f"--log-file={log}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for log in logs]
    for process in running:
        _, said = process.communicate(timeout=seconds + 60)
        if process.returncode:
            raise Failed(f"h2load: {said.decode(errors='replace')}")
    late = []
    for log in logs:
        rows = sorted(tuple(map(int, line.split())) for line in log.read_text().splitlines())
        log.unlink()
        if len(rows) != count or any(status != 200 for _, status, _ in rows):
            raise Failed(f"expected {count} answers of status 200 from port {port}, found {len(rows)}:"
                         f" {[row for row in rows if row[1] != 200][:3]}")
        # The first one goes out with the connection, not with the clock. Of the others the one that
        # was sent most in time says when all of them were due.
        due = [number * 1e6 / each for number in range(count)]
        begin = min(began - at for (began, _, _), at in zip(rows[1:], due[1:]))
        late += [began + took - (begin + at) for (began, _, took), at in zip(rows[1:], due[1:])]
    late.sort()

    def share(of):
        return late[min(len(late) - 1, int(len(late) * of))] / 1000

    return Latency(rate, share(0.5), share(0.99), share(0.999), late[-1] / 1000)
