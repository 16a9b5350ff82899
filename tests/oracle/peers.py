"""Envoy Gateway and the gateway, each with the same objects on ports of its own."""

import json
import os
import re
import signal
import subprocess
import time
from collections import defaultdict
from pathlib import Path

import yaml

import play

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / ".cache/oracle"
CLASS = "eg"
CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"
# Any: Envoy Gateway looks for the program below it, and asks the network for others.
ENVOY = "1.40.0"
BACKENDS = {"echo": 9001, "second": 9002}
# Nobody listens there.
REFUSING = 9009
PATIENCE = 120
# Seconds.
SETTLING = 1.5
# What both write of each request.
LOG_FIELDS = {
    "mark": "%REQ(X-ORACLE)%", "flags": "%RESPONSE_FLAGS%", "details": "%RESPONSE_CODE_DETAILS%",
    "status": "%RESPONSE_CODE%",
}


class Peer:
    """What both have in common: a folder, ports, the objects, the access log."""

    def __init__(self, name, folder, ports):
        self.name = name
        self.folder = folder / name
        (self.folder / "objects").mkdir(parents=True)
        self.ports = dict(zip(("http", "other"), ports, strict=True))
        self.log = self.folder / "access.log"
        self.process = None
        # The objects of the last case.
        self.last = ""

    def document(self):
        """The EnvoyGateway document."""
        return {
            "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyGateway",
            "gateway": {"controllerName": CONTROLLER},
            "provider": {"type": "Custom", "custom": {
                "resource": {"type": "File", "file": {"paths": [str(self.folder / "objects")]}},
                "infrastructure": {"type": "Host", "host": {
                    f"{one}Home": str(self.folder / one) for one in ("config", "data", "state")
                } | {"runtimeDir": str(self.folder / "runtime")}},
            }},
            "extensionApis": {"enableBackend": True},
        }

    def objects(self, text):
        """Puts this peer's ports and files into objects."""
        values = {
            "HTTP": self.ports["http"], "OTHER": self.ports["other"], "LOG": self.log,
            "ECHO": BACKENDS["echo"], "SECOND": BACKENDS["second"], "REFUSING": REFUSING,
            "FORMAT": json.dumps(LOG_FIELDS), "ENVOY": ENVOY,
        }
        return re.sub(r"\$\{(\w+)\}", lambda found: str(values[found[1]]), text)

    def write(self, name, text):
        """Replaces a file of objects at once."""
        new = self.folder / f"{name}.new"
        new.write_text(self.objects(text))
        new.rename(self.folder / "objects" / name)

    def start(self, *command):
        """Starts the program in a session of its own."""
        with open(self.folder / "out.log", "ab") as out:
            self.process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder)}, start_new_session=True)

    def stop(self):
        """Ends it, and what it started."""
        if not self.process:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process = None

    def await_case(self, name, patience):
        """Waits until the case is served: its route of its own names it; false if it never does."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} has ended: {self.folder}/out.log")
            try:
                got = play.exchange(self.ports["http"], {"to": "case.test/"}, "ready")
                if (f"https://{name}.test",) == tuple(
                        value.split(":443")[0].rstrip("/") for key, value in got["headers"] if key == "location"):
                    return True
            except OSError:
                pass
            # Files and sockets are watched by the peer itself; there is nothing to wait for here.
            time.sleep(0.1)
        return False

    def logged(self, marks, patience=5):
        """The access log's lines of these requests, by mark."""
        end = time.monotonic() + patience
        while True:
            lines = defaultdict(list)
            if self.log.exists():
                for line in self.log.read_text().splitlines():
                    entry = json.loads(line)
                    lines[entry["mark"]].append(entry)
            if all(mark in lines for mark in marks) or time.monotonic() > end:
                return lines
            time.sleep(0.1)


class EnvoyGateway(Peer):
    """Envoy Gateway with the Envoy that it starts. One start serves the cases that change no listener."""

    def prepare(self, base, first):
        """Starts it with the first case."""
        program = CACHE / "envoy-gateway"
        envoy = next((CACHE / "venv/lib").glob("python3*/site-packages/envoy/_bin/envoy"))
        home = self.folder / f"data/envoy-versions/{ENVOY}/bin"
        home.mkdir(parents=True)
        (home / "envoy").symlink_to(envoy)
        document = self.document() | {"telemetry": {"metrics": {"prometheus": {"disable": True}}}}
        (self.folder / "gateway.yaml").write_text(yaml.safe_dump(document))
        subprocess.run([program, "certgen", "--local", "--config-home", self.folder / "config"],
                       check=True, capture_output=True, env={"PATH": os.environ["PATH"], "HOME": str(self.folder)})
        self.write("base.yaml", base)
        self.write("case.yaml", first)
        self.launch()

    def launch(self):
        """Starts it."""
        self.start(CACHE / "envoy-gateway", "server", "--config-path", self.folder / "gateway.yaml")

    def serve(self, name, text):
        """Serves a case in place of the last one."""
        # Listeners change some time after the routes, and nothing tells when: it starts anew for them.
        listeners = "ClientTrafficPolicy" in text + self.last
        self.last = text
        if listeners:
            self.stop()
        self.write("case.yaml", text)
        if listeners:
            self.launch()
        is_served = self.await_case(name, PATIENCE)
        # Envoy has the routes before the clusters that they name: a request in between gets 503 with flag NC, and
        # nothing tells when that is over.
        time.sleep(SETTLING)
        return is_served

    def statuses(self):
        """The last status that it told of each object: one that is as before it does not tell again."""
        told = (self.folder / "out.log").read_text(errors="replace")
        found = {}
        for kind, status, key in re.findall(
                r'Got new status for (\w+)\n(.*?)\n?\t\{[^\n]*"key": "([^"]+)"', told, re.S):
            namespace, _, name = key.partition("/")
            found[kind, namespace, name] = yaml.safe_load(status)
        return found


class EdgeGateway(Peer):
    """The gateway. Every case has a start of its own."""

    def __init__(self, program, *rest):
        super().__init__(*rest)
        self.program = program

    def prepare(self, base, _):
        """Writes what all cases have."""
        (self.folder / "gateway.yaml").write_text(yaml.safe_dump(self.document()))
        self.write("base.yaml", base)

    def options(self):
        """What `run` and `check` take both."""
        return ["--config", self.folder / "gateway.yaml", "--letsencrypt-dir", self.folder / "none",
                "--env-file", "/dev/null", "--control-socket", self.folder / "control.sock"]

    def serve(self, name, text):
        """Serves a case in place of the last one."""
        self.stop()
        self.write("case.yaml", text)
        options = [one for one in self.options() if one not in ("--env-file", "/dev/null")]
        self.start(self.program, "run", *options, "--acme-webroot", self.folder / "none",
                   "--metrics-listen", "none", "--admin-listen", "none", "--log-format", "text",
                   "--workers", "1", "--reload-policy", "partial")
        return self.await_case(name, 30)

    def check(self, text=None):
        """What `check --status` prints."""
        if text is not None:
            self.write("case.yaml", text)
        said = subprocess.run([self.program, "check", *self.options(), "--status"],
                              capture_output=True, text=True, check=False)
        return said.stdout

    def unserved(self, text):
        """What it says it does not serve yet of a case."""
        return re.findall(r".*(?:not supported yet).*", self.check(text))

    def statuses(self):
        """The status of each object."""
        lines = self.check().splitlines()
        told = "\n".join(line for line in lines if not line.startswith(f"{self.folder}/"))
        documents = yaml.safe_load_all(re.sub(r"\n?\d+ objects? in .*", "", told))
        return {(one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]): one.get("status")
                for one in documents if one}
