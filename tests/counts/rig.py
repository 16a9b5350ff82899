"""What runs while requests are counted: a backend, a certificate, and the gateway with one worker."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import clients
import origin
import testbed

PATIENCE = 120


class Rig:
    """The backend and the gateway, in a folder of their own. Leaving it ends both."""

    def __init__(self, binary, wrapper=()):
        self.folder = Path(tempfile.mkdtemp(prefix="counts-"))
        self.binary = binary
        # The tool that counts: its command and its options, given the rig.
        self.wrapper = wrapper
        self.started = []
        self.secure, self.clear, self.backend = (testbed.free_port() for _ in range(3))
        self.log = self.folder / "access.log"

    def __enter__(self):
        try:
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))
            testbed.certify(self.folder / "letsencrypt", clients.HOST)
            self.start("origin", [sys.executable, origin.__file__, str(self.backend)], self.backend)
            self.gateway = self.start("gateway", [*self.wrapper, *self.command()], self.secure)
            return self
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        for process in self.started:
            process.send_signal(signal.SIGTERM)
        for process in self.started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(self.folder)

    def start(self, name, command, port):
        """Starts a process in its own session and waits until it takes connections."""
        errors = self.folder / f"{name}.err"
        with open(self.log, "ab") as log, open(errors, "ab") as err:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=err,
                                       env={"PATH": os.environ["PATH"]}, start_new_session=True)
        self.started.append(process)
        if testbed.listens(process, port, PATIENCE):
            return process
        said = errors.read_text(errors="replace")[-2000:] + self.log.read_text()[-2000:]
        raise clients.Failed(f"{name} takes no connections on port {port}:\n{said}")

    def command(self):
        """Writes the gateway's configuration; gives its command."""
        objects = self.folder / "objects"
        objects.mkdir()
        (self.folder / "standalone.yaml").write_text(STANDALONE.format(objects=objects))
        (objects / "all.yaml").write_text(OBJECTS.format(
            secure=self.secure, clear=self.clear, backend=self.backend, host=clients.HOST))
        return [self.binary, "run", "--config", self.folder / "standalone.yaml",
                "--letsencrypt-dir", self.folder / "letsencrypt",
                "--control-socket", self.folder / "control.sock",
                "--state-dir", self.folder / "state",
                "--workers", "1", "--no-watch", "--log-format", "json",
                "--admin-listen", "none", "--metrics-listen",
                f"127.0.0.1:{testbed.free_port()}"]

    def open(self, scenario):
        """The connections of a scenario, ready for requests."""
        port = self.secure if scenario.secure else self.clear
        return [scenario.client(scenario, port) for _ in range(scenario.connections)]

    def send(self, scenario, opened, rounds):
        """So many rounds of requests on all connections; waits until the log has their lines."""
        since = self.log.stat().st_size
        for _ in range(rounds):
            for connection in opened:
                connection.ask()
            for connection in opened:
                connection.take()
        self.logged(scenario, since, rounds * scenario.requests)

    def logged(self, scenario, since, expected):
        """Waits for the lines of the access log and compares their statuses."""
        wanted = b'"status":%d,' % scenario.status
        end = time.monotonic() + PATIENCE
        while True:
            with open(self.log, "rb") as log:
                log.seek(since)
                lines = [line for line in log.read().splitlines() if b'"status":' in line]
            if len(lines) >= expected:
                break
            if time.monotonic() > end:
                raise clients.Failed(f"expected {expected} lines of the log, found {len(lines)}")
            time.sleep(0.05)
        other = [line for line in lines if wanted not in line.replace(b" ", b"")]
        if other or len(lines) != expected:
            raise clients.Failed(f"expected {expected} lines with status {scenario.status}, found "
                                 f"{len(lines)}, of others {other[:1]}")


STANDALONE = """\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyGateway
provider:
  type: Custom
  custom:
    resource:
      type: File
      file:
        paths: [{objects}]
    infrastructure:
      type: Host
      host: {{}}
extensionApis:
  enableBackend: true
"""

# Eleven rules, so that a look-up has something to look through.
OBJECTS = """\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata:
  name: eg
spec:
  controllerName: gateway.envoyproxy.io/gatewayclass-controller
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: eg
spec:
  gatewayClassName: eg
  addresses:
    - value: 127.0.0.1
  listeners:
    - name: https
      protocol: HTTPS
      port: {secure}
      tls:
        mode: Terminate
        certificateRefs:
          - kind: Secret
            name: {host}
    - name: http
      protocol: HTTP
      port: {clear}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata:
  name: origin
spec:
  endpoints:
    - ip:
        address: 127.0.0.1
        port: {backend}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: forwarded
spec:
  parentRefs:
    - name: eg
      sectionName: https
  rules:
""" + "".join(f"""\
    - matches:
        - path:
            type: PathPrefix
            value: {path}
      backendRefs:
        - group: gateway.envoyproxy.io
          kind: Backend
          name: origin
""" for path in ("/large", *(f"/app-{number}" for number in range(9)))) + """\
    - matches:
        - path:
            type: PathPrefix
            value: /redirected
      filters:
        - type: RequestRedirect
          requestRedirect:
            hostname: elsewhere.test
            statusCode: 301
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: redirected
spec:
  parentRefs:
    - name: eg
      sectionName: http
  rules:
    - matches:
        - path:
            type: PathPrefix
            value: /app-5
      filters:
        - type: RequestRedirect
          requestRedirect:
            scheme: https
            statusCode: 301
"""
