"""What runs during a benchmark: a backend, proxies, a certificate, all in a folder of their own."""

import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import load as loads
import origin
import peers

CACHE = peers.HERE / ".cache"


class Bench:
    """What runs during a benchmark. Leaving it ends every process that it started."""

    def __init__(self):
        self.folder = CACHE / f"run-{os.getpid()}"
        self.started = []

    def __enter__(self):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        # nginx as root gives its workers to another user, who must reach its folders.
        self.folder.mkdir(parents=True)
        self.body = self.folder / "10m"
        self.body.write_bytes(random.Random(1).randbytes(10 << 20))
        self.certify()
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
        shutil.rmtree(self.folder)

    def certify(self):
        """One self-signed ECDSA P-256 certificate, laid out as certbot does."""
        archive = self.folder / "letsencrypt/archive" / peers.HOST
        live = self.folder / "letsencrypt/live" / peers.HOST
        archive.mkdir(parents=True)
        live.mkdir(parents=True)
        subprocess.run([
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "30", "-subj", f"/CN={peers.HOST}",
            "-addext", f"subjectAltName=DNS:{peers.HOST}",
            "-keyout", archive / "privkey1.pem", "-out", archive / "fullchain1.pem",
        ], check=True, capture_output=True)
        for part in ("fullchain", "privkey"):
            (live / f"{part}.pem").symlink_to(f"../../archive/{peers.HOST}/{part}1.pem")

    def start(self, name, command, port, output):
        """Starts a process in its own session and waits until it takes connections."""
        with open(output, "ab") as log, open(self.folder / f"{name}.err", "ab") as errors:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=errors,
                                       env=peers.environment(), start_new_session=True)
        self.started.append(process)
        end = time.monotonic() + 30
        while time.monotonic() < end and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return process
            except OSError:
                time.sleep(0.05)
        said = (self.folder / f"{name}.err").read_text(errors="replace")[-2000:]
        raise loads.Failed(f"{name} takes no connections on port {port}:\n{said}")

    def start_origin(self):
        """The backend: nginx, and the reader of uploads."""
        self.origin, self.upload = free_port(), free_port()
        config = self.folder / "origin.conf"
        config.write_text(origin.nginx_config(self.folder, self.origin))
        nginx = peers.PEERS["nginx"].binary()
        self.start("origin", [nginx, "-e", "stderr", "-p", self.folder, "-c", config], self.origin,
                   os.devnull)
        reader = [sys.executable, Path(origin.__file__), str(self.upload)]
        self.start("upload", reader, self.upload, os.devnull)

    def start_peer(self, peer, routes):
        """One proxy with so many routes; gives its process and its place."""
        name = f"{peer.name}-{routes}"
        folder = self.folder / name
        folder.mkdir()
        place = peers.Place(folder, free_port(), self.origin, self.upload,
                            self.folder / "letsencrypt", routes, free_port())
        return self.start(name, peer.command(place), place.port, place.log), place

    def paths(self, load):
        """The file of the paths that a load asks for."""
        file = self.folder / f"paths-{load.paths.strip('/')}-{load.routes}"
        if not file.exists():
            wanted = [load.paths]
            if load.paths == "routes":
                wanted = [f"{peers.prefix(number)}/" for number in range(load.routes)]
                random.Random(1).shuffle(wanted)
            file.write_text("".join(f"{path}\n" for path in wanted))
        return file


def free_port():
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
