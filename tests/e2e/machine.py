"""A Debian machine with a real systemd, in a container of its own network."""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "e2e"
# What a bare server has, what the stories need, and an ACME server.
PACKAGES = (
    "systemd,systemd-sysv,dbus,init-system-helpers,iproute2,procps,"
    "certbot,openssl,curl,ca-certificates,pebble,python3-hpack,gunicorn"
)


def root_of(suite):
    """The root file system of a Debian release: built once, and not written to."""
    name = hashlib.sha256(PACKAGES.encode()).hexdigest()[:8]
    root = CACHE / f"{suite}-{name}"
    if root.exists():
        return root
    print(f"building a root file system of {suite}", flush=True)
    building = CACHE / f"{suite}-building"
    shutil.rmtree(building, ignore_errors=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", suite, building],
        check=True,
    )
    # minbase has none, and without it nobody finds `localhost`.
    (building / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (building / "etc/hostname").write_text("gateway\n")
    building.rename(root)
    return root


class Failed(Exception):
    """A command inside failed, or something did not come true in time."""


def why_not():
    """What keeps a machine from running here; nothing if it can."""
    if os.geteuid() != 0:
        return "it needs root, for mounts and containers"
    if not Path("/etc/debian_version").exists():
        return "this is not Debian"
    for command in ("mmdebstrap", "systemd-nspawn"):
        if shutil.which(command) is None:
            return f"{command} is missing"
    # The kernel, or a container around us, may forbid one of these. The machine that is tried has
    # this host's /usr and no more.
    CACHE.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="try-", dir=CACHE))
    try:
        overlay("/usr", directory)
        subprocess.run(["umount", directory / "root"], check=True, capture_output=True)
        command = [*NSPAWN, "--directory=/", "--volatile=yes", "--pipe", "/bin/true"]
        subprocess.run(command, check=True, capture_output=True, env=NSPAWN_ENVIRONMENT)
    except subprocess.CalledProcessError as failed:
        said = failed.stderr.decode(errors="replace").split("\n")[0]
        return f"{failed.cmd[0]} does not work here: {said}"
    finally:
        shutil.rmtree(directory)
    return None


NSPAWN = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network"]
NSPAWN_ENVIRONMENT = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}


def control_group(name):
    """A new one. nspawn boots in the one that it is in, and two machines in one end each other."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    groups = Path("/proc/self/cgroup").read_text().splitlines()
    mounted = next(line.split()[4] for line in mounts if " - cgroup2 " in line)
    own = next(line.removeprefix("0::/") for line in groups if line.startswith("0::/"))
    group = Path(mounted) / own / name
    group.mkdir()
    return group


def overlay(lower, directory):
    """Mounts `lower` at `directory`/root; what is written there goes to `directory`."""
    for part in ("root", "upper", "work"):
        (directory / part).mkdir()
    layers = f"lowerdir={lower},upperdir={directory}/upper,workdir={directory}/work"
    command = ["mount", "-t", "overlay", "overlay", "-o", layers, directory / "root"]
    subprocess.run(command, check=True, capture_output=True)


class Machine:
    """Boots at once; `stop` it, or use it in a `with`."""

    def __init__(self, suite):
        self.suite = suite
        self.nspawn = self.init = None
        lower = root_of(suite)
        self.directory = Path(tempfile.mkdtemp(prefix=f"{suite}-run-", dir=CACHE))
        self.root = self.directory / "root"
        self.group = control_group(self.directory.name)
        overlay(lower, self.directory)
        try:
            self.boot()
        except BaseException:
            self.stop()
            raise

    def boot(self):
        """Starts it and waits until systemd has nothing left to start."""
        self.nspawn = subprocess.Popen(
            [
                "sh", "-ec", 'echo $$ >"$0/cgroup.procs"; exec "$@"', self.group,
                *NSPAWN, "--directory", self.root, f"--machine=e2e-{self.suite}",
                "--boot", "--console=pipe",
            ],
            env=NSPAWN_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=(self.directory / "console").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        eventually("systemd is PID 1 inside", self._find_init, 20)
        self.run("ip link set lo up")
        eventually(
            "the machine is up",
            lambda: self.run("systemctl is-system-running", check=False).stdout.strip()
            in ("running", "degraded"),
            30,
        )

    def _find_init(self):
        children = Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children")
        for child in children.read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                self.init = int(child)
                return True
        return False

    def _enter(self, command):
        return ["nsenter", "--target", str(self.init), "--all", "--", "sh", "-ec", command]

    def run(self, command, check=True, timeout=120):
        """A shell command inside; its outcome, with both outputs as one text."""
        try:
            done = subprocess.run(
                self._enter(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise Failed(f"`{command}` took more than {timeout} s: {late.output}") from None
        if check and done.returncode != 0:
            raise Failed(f"`{command}` ended with {done.returncode}:\n{done.stdout}")
        return done

    def start(self, command):
        """The same, in the background; standard output is a pipe."""
        return subprocess.Popen(
            self._enter(f"exec {command}"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    def write(self, path, text, mode=0o644):
        """A file inside."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def copy(self, file, path):
        """A file from here to inside."""
        shutil.copy(file, self.root / path.lstrip("/"))

    def halt(self):
        """Shuts it down as a person would."""
        self.run("systemctl poweroff --no-block", check=False)
        try:
            self.nspawn.wait(60)
        except subprocess.TimeoutExpired:
            print("the machine does not shut down; killed", file=sys.stderr)
            os.killpg(self.nspawn.pid, signal.SIGKILL)
            self.nspawn.wait()

    def stop(self):
        """Ends it at once and leaves nothing of it."""
        if self.nspawn and self.nspawn.poll() is None:
            if self.init:
                os.kill(self.init, signal.SIGKILL)
            else:
                self.nspawn.kill()
            try:
                self.nspawn.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.nspawn.pid, signal.SIGKILL)
                self.nspawn.wait()
        subprocess.run(["umount", "--lazy", self.root], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)
        for group, _, _ in os.walk(self.group, topdown=False):
            # What still ends in it keeps it; it is empty, and costs nothing.
            with contextlib.suppress(OSError):
                os.rmdir(group)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def eventually(what, check, seconds=30):
    """Waits until `check` is true; how long that took."""
    begun = time.monotonic()
    while not check():
        if time.monotonic() - begun > seconds:
            raise Failed(f"not within {seconds} s: {what}")
        # Nobody tells us, so we look again.
        time.sleep(0.05)
    return time.monotonic() - begun
