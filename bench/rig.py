"""What runs during a benchmark: a backend, proxies, a certificate, all in a folder of their own."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import load as loads
import log_service
import origin
import peers
import testbed

CACHE = peers.HERE / ".cache"


class Bench:
    """What runs during a benchmark. Leaving it ends every process that it started."""

    def __init__(self):
        self.folder = CACHE / f"run-{os.getpid()}"
        self.started = []
        # Files outside the folder.
        self.remove = []

    def __enter__(self):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        # nginx as root gives its workers to another user, who must reach its folders.
        self.folder.mkdir(parents=True)
        self.body = self.folder / "10m"
        self.body.write_bytes(random.Random(1).randbytes(10 << 20))
        testbed.certify(self.folder / "letsencrypt", peers.HOST)
        self.start_origin()
        return self

    def __exit__(self, *_):
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.started:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for file in self.remove:
            file.unlink(missing_ok=True)
        shutil.rmtree(self.folder)

    def start(self, name, command, port, output):
        """Starts a process in its own session and waits until it takes connections."""
        with open(output, "ab") as log, open(self.folder / f"{name}.err", "ab") as errors:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=errors,
                                       env=peers.environment(), start_new_session=True)
        self.started.append(process)
        if testbed.listens(process, port, 30):
            return process
        said = (self.folder / f"{name}.err").read_text(errors="replace")[-2000:]
        raise loads.Failed(f"{name} takes no connections on port {port}:\n{said}")

    def start_origin(self):
        """The backend: nginx, the reader of uploads, and the one that sends messages back."""
        ports = [testbed.free_port() for _ in range(3)]
        self.backends = peers.Backends(*ports, self.folder / "origin.sock")
        config = self.folder / "origin.conf"
        config.write_text(origin.nginx_config(self.folder, ports[0], self.backends.unix))
        nginx = peers.PEERS["nginx"].binary()
        self.start("origin", [nginx, "-e", "stderr", "-p", self.folder, "-c", config], ports[0],
                   os.devnull)
        # A proxy that runs as another user connects to it, too.
        self.backends.unix.chmod(0o777)
        for name, port in (("upload", ports[1]), ("echo", ports[2])):
            reader = [sys.executable, Path(origin.__file__), name, str(port)]
            self.start(name, reader, port, os.devnull)

    def start_log_service(self):
        """What takes log records where a log service would; gives the process that does.

        Where a journald runs, the gateway's records go to that one.
        """
        own = [self.folder / "log.sock"]
        running = log_service.journald() if log_service.JOURNAL.exists() else None
        if running is None:
            log_service.JOURNAL.unlink(missing_ok=True)
            own.append(log_service.JOURNAL)
            self.remove.append(log_service.JOURNAL)
        process = subprocess.Popen([sys.executable, log_service.__file__, *own],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.started.append(process)
        if process.stdout.readline() != b"ready\n":
            raise loads.Failed("the log service does not start; it needs root")
        return {"edge-gateway": running or process.pid, None: process.pid}

    def start_peer(self, peer, setup):
        """One proxy; gives its process and its place."""
        name = f"{peer.name}-{setup.routes}-{setup.workers}-{setup.log}"
        folder = self.folder / name
        folder.mkdir()
        port, clear, metrics = (testbed.free_port() for _ in range(3))
        place = peers.Place(folder, setup, port, clear, self.backends,
                            self.folder / "letsencrypt", metrics, self.folder / "log.sock")
        return self.start(name, peer.command(place), place.port, place.log), place

    def paths(self, load):
        """The file of the paths that a load asks for."""
        file = self.folder / f"paths-{load.paths.strip('/')}-{load.setup.routes}"
        if not file.exists():
            wanted = [load.paths]
            if load.paths == "routes":
                wanted = [f"{peers.prefix(number)}/" for number in range(load.setup.routes)]
                random.Random(1).shuffle(wanted)
            file.write_text("".join(f"{path}\n" for path in wanted))
        return file
