"""Loads, most of them by h2load, and what they cost a proxy in CPU time and memory."""

import re
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import handshakes
import websocket
from peers import Setup
from testbed import BROWSER


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
    setup: Setup = Setup()
    paths: str = "routes"
    # The 10 MiB go up as the body.
    uploads: bool = False
    # In clear, where each answer is a redirect.
    redirects: bool = False
    aim: float | None = None


KEEP_ALIVE = ("--h1", "-m1")
FIELDS = tuple(part for name, value in BROWSER for part in ("-H", f"{name}: {value}"))

LOADS = (
    Load("http1", "HTTP/1.1, keep-alive, 1 KiB", KEEP_ALIVE, 32, aim=0.85),
    Load("http2", "HTTP/2, 10 streams a connection, 1 KiB", ("-m10",), 16, aim=0.85),
    Load("http2-one", "HTTP/2, one stream a connection, 1 KiB", ("-m1",), 32),
    Load("http2-32", "HTTP/2, 32 streams a connection, 1 KiB", ("-m32",), 16),
    Load("browser", "HTTP/1.1, a browser's 13 header fields", (*KEEP_ALIVE, *FIELDS), 32),
    Load("redirect", "HTTP/1.1 in clear, redirected", KEEP_ALIVE, 32, redirects=True),
    Load("unix", "HTTP/1.1, the backend on a UNIX socket", KEEP_ALIVE, 32, paths="/unix"),
    Load("connections", "new TLS connection, full handshake", (), 4, aim=0.75),
    Load("resumed", "new TLS connection, session resumed",
         (*KEEP_ALIVE, "-H", "connection: close"), 16),
    Load("download", "10 MiB download, HTTP/1.1", KEEP_ALIVE, 4, paths="/download", aim=1.0),
    Load("upload", "10 MiB upload, HTTP/1.1", KEEP_ALIVE, 4, paths="/upload", uploads=True, aim=1.0),
    Load("download-http2", "10 MiB download, HTTP/2", ("-m1",), 4, paths="/download"),
    Load("upload-http2", "10 MiB upload, HTTP/2", ("-m1",), 4, paths="/upload", uploads=True),
    Load("websocket", "WebSocket message of 64 bytes and its echo", (), 4, paths="/echo"),
    Load("http1-no-log", "HTTP/1.1, no access log", KEEP_ALIVE, 32, Setup(log="nowhere")),
    Load("http2-32-no-log", "HTTP/2, 32 streams, no access log", ("-m32",), 16, Setup(log="nowhere")),
    Load("http1-log-service", "HTTP/1.1, access log to a log service", KEEP_ALIVE, 32,
         Setup(log="socket")),
    Load("http1-1-worker", "HTTP/1.1, 1 worker", KEEP_ALIVE, 32, Setup(workers=1)),
    Load("http1-4-workers", "HTTP/1.1, 4 workers", KEEP_ALIVE, 32, Setup(workers=4)),
    Load("http2-32-1-worker", "HTTP/2, 32 streams, 1 worker", ("-m32",), 16, Setup(workers=1)),
    Load("http2-32-4-workers", "HTTP/2, 32 streams, 4 workers", ("-m32",), 16, Setup(workers=4)),
    Load("routes-1000", "HTTP/1.1, 1,000 routes", KEEP_ALIVE, 32, Setup(routes=1000)),
    Load("routes-10000", "HTTP/1.1, 10,000 routes", KEEP_ALIVE, 32, Setup(routes=10000)),
)


class Failed(Exception):
    """A load that was not answered as it should be: its figures mean nothing."""


@dataclass
class Figures:
    """What one load on one proxy came to."""

    requests_per_second: float
    cpu_microseconds: float
    cipher: str
    # Of the log service, where the access log goes to one.
    log_microseconds: float | None = None


def send(load, host, place, paths, body, requests):
    """Sends `requests` requests and gives (seconds they took, cipher)."""
    others = {"connections": handshakes, "websocket": websocket}
    if load.name in others:
        path = paths.read_text().split()[0]
        return others[load.name].send(requests, load.clients, host, place.port, path)
    return h2load(load, host, place, paths, body, requests)


def h2load(load, host, place, paths, body, requests, bound=60):
    """The same by h2load."""
    scheme, port = ("http", place.clear) if load.redirects else ("https", place.port)
    command = ["h2load", *load.arguments, "-t1", f"-c{load.clients}", f"-n{requests}",
               f"--connect-to=127.0.0.1:{port}", f"--base-uri={scheme}://{host}:{port}", f"-i{paths}"]
    if load.uploads:
        command.append(f"--data={body}")
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=bound)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"not done after {bound} s: {' '.join(command)}") from error
    answered = re.search(r"^status codes: (\d+) 2xx, (\d+) 3xx", run.stdout, re.M)
    if not answered or int(answered[2 if load.redirects else 1]) != requests:
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


def measure(load, host, place, pid, log_service, paths, body, requests):
    """One load on one proxy, after a short one that warms both."""
    send(load, host, place, paths, body, max(1, requests // 10 // load.clients) * load.clients)
    pids = [pid, *([log_service] if load.setup.log == "socket" else [])]
    before = [cpu_seconds(each) for each in pids]
    seconds, cipher = send(load, host, place, paths, body, requests)
    # The last lines of a log may still be on their way.
    time.sleep(0.05)
    spent = [(cpu_seconds(each) - start) * 1e6 / requests for each, start in zip(pids, before)]
    return Figures(requests / seconds, spent[0], cipher, *spent[1:])


def requests_for(load, host, place, paths, body, seconds):
    """How many requests take about `seconds`, found by a small load."""
    requests = load.clients * (4 if load.paths in ("/download", "/upload") else 20)
    send(load, host, place, paths, body, requests)
    took, _ = send(load, host, place, paths, body, requests)
    share = requests * seconds / max(took, 1e-3) / load.clients
    return max(1, round(share)) * load.clients
