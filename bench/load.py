"""Loads, most of them by h2load, and what they cost a proxy in CPU time and memory."""

import re
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import handshakes



@dataclass(frozen=True)
class Load:
    """One kind of load.

    `aim` is the most CPU per request that the gateway may take, as a share of nginx's; None where
    no aim is set.
    """

    name: str
    says: str
    arguments: tuple
    clients: int
    routes: int = 10
    paths: str = "routes"
    aim: float | None = None


KEEP_ALIVE = ("--h1", "-m1")

LOADS = (
    Load("http1", "HTTP/1.1, keep-alive, 1 KiB", KEEP_ALIVE, 32, aim=0.85),
    Load("http2", "HTTP/2, 10 streams a connection, 1 KiB", ("-m10",), 16, aim=0.85),
    Load("connections", "new TLS connection, full handshake", (), 4, aim=0.75),
    Load("resumed", "new TLS connection, session resumed",
         (*KEEP_ALIVE, "-H", "connection: close"), 16),
    Load("download", "10 MiB download, HTTP/1.1", KEEP_ALIVE, 4, paths="/download", aim=1.0),
    Load("upload", "10 MiB upload, HTTP/1.1", KEEP_ALIVE, 4, paths="/upload", aim=1.0),
    Load("routes-1000", "HTTP/1.1, 1,000 routes", KEEP_ALIVE, 32, routes=1000),
    Load("routes-10000", "HTTP/1.1, 10,000 routes", KEEP_ALIVE, 32, routes=10000),
)


class Failed(Exception):
    """A load that was not answered as it should be: its figures mean nothing."""


@dataclass
class Figures:
    """What one load on one proxy came to."""

    requests_per_second: float
    cpu_microseconds: float
    cipher: str


def send(load, host, port, paths, body, requests):
    """Sends `requests` requests and gives (seconds they took, cipher)."""
    if load.name == "connections":
        path = paths.read_text().split()[0]
        return handshakes.send(requests, load.clients, host, port, path)
    return h2load(load, host, port, paths, body, requests)


def h2load(load, host, port, paths, body, requests, bound=60):
    """The same by h2load."""
    command = ["h2load", *load.arguments, "-t1", f"-c{load.clients}", f"-n{requests}",
               f"--connect-to=127.0.0.1:{port}", f"--base-uri=https://{host}:{port}", f"-i{paths}"]
    if load.name == "upload":
        command.append(f"--data={body}")
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=bound)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"not done after {bound} s: {' '.join(command)}") from error
    good = re.search(r"^status codes: (\d+) 2xx", run.stdout, re.M)
    if not good or int(good[1]) != requests:
        raise Failed(f"{' '.join(command)}\n{run.stdout}{run.stderr}")
    amount, unit = re.search(r"^finished in ([0-9.]+)(m?s|us)", run.stdout, re.M).groups()
    cipher = re.search(r"^Cipher: (\S+)", run.stdout, re.M)
    return float(amount) * {"s": 1, "ms": 1e-3, "us": 1e-6}[unit], cipher[1] if cipher else ""


def processes(root):
    """The process `root` and all below it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = stat(int(entry.name))[1]
            except (OSError, ValueError):
                continue
    found, added = {root}, True
    while added:
        more = {child for child, parent in parents.items() if parent in found} - found
        found |= more
        added = bool(more)
    return found


def stat(pid):
    """The fields of /proc/PID/stat after the name, which may hold anything: state, parent, ..."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return [fields[0], *(int(field) for field in fields[1:])]


def cpu_seconds(root):
    """User and system time of all threads of the process and of those below it.

    By the clocks of the processes, which count nanoseconds; `/proc/PID/stat` has hundredths of a
    second.
    """
    # clock_getcpuclockid(3) of another process, which Python has no name for.
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in processes(root))


def memory_mib(root):
    """(resident, proportional) MiB; the second counts what processes share once."""
    resident = proportional = 0
    for pid in processes(root):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        resident += int(re.search(r"^Rss: +(\d+)", text, re.M)[1])
        proportional += int(re.search(r"^Pss: +(\d+)", text, re.M)[1])
    return resident / 1024, proportional / 1024


def idle_connections(host, port, count):
    """Opens `count` TLS connections that have had one answer each."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    opened = []
    for _ in range(count):
        plain = socket.create_connection(("127.0.0.1", port), timeout=5)
        connection = context.wrap_socket(plain, server_hostname=host)
        connection.sendall(f"GET /app-00000/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answer = b""
        while answer.count(b"x") < 1024:
            part = connection.recv(65536)
            if not part:
                raise Failed(f"port {port} closed an idle connection: {answer[:200]}")
            answer += part
        opened.append(connection)
    return opened


def measure(load, host, port, pid, paths, body, requests):
    """One load on one proxy, after a short one that warms both."""
    send(load, host, port, paths, body, max(1, requests // 10 // load.clients) * load.clients)
    before = cpu_seconds(pid)
    seconds, cipher = send(load, host, port, paths, body, requests)
    # The last lines of a log may still be on their way.
    time.sleep(0.05)
    spent = cpu_seconds(pid) - before
    return Figures(requests / seconds, spent * 1e6 / requests, cipher)


def requests_for(load, host, port, paths, body, seconds):
    """How many requests take about `seconds`, found by a small load."""
    requests = load.clients * (4 if load.paths != "routes" else 20)
    send(load, host, port, paths, body, requests)
    took, _ = send(load, host, port, paths, body, requests)
    share = requests * seconds / max(took, 1e-3) / load.clients
    return max(1, round(share)) * load.clients
