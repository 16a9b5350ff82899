"""What an operator does, in the order in which it is done. Each story says what was measured."""

import json
import subprocess
import time
from collections import Counter
from pathlib import Path

from machine import Failed, eventually

LETSENCRYPT = "/etc/letsencrypt"
CA = "https://localhost:14000/dir"
# What the gateway serves in these stories: an echo on its own host, for two names.
GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: eg }
spec:
  gatewayClassName: eg
  listeners:
    - { name: http, protocol: HTTP, port: 8080 }
    - name: https
      protocol: HTTPS
      port: 8443
      tls: { certificateRefs: [{ name: edge-gateway-tls }] }
    - name: https-two
      protocol: HTTPS
      port: 8443
      hostname: two.example.test
      tls: { certificateRefs: [{ name: two.example.test }] }
"""
ECHO = """\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: { name: echo }
spec: { endpoints: [{ ip: { address: 127.0.0.1, port: 3000 } }] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: echo }
spec:
  parentRefs: [{ name: eg }]
  rules:
    - matches: [{ path: { type: PathPrefix, value: /echo/ } }]
      backendRefs: [{ group: gateway.envoyproxy.io, kind: Backend, name: echo }]
"""
# It outlives a boot.
ECHO_UNIT = """\
[Service]
ExecStart=/usr/bin/edge-gateway echo --listen 127.0.0.1:3000
[Install]
WantedBy=multi-user.target
"""
# In the echo's place, with requests that wait while it restarts.
GUNICORN = ECHO.replace("port: 3000", "port: 3001").replace(
    "metadata: { name: echo }",
    "metadata: { name: echo, annotations: { edge-gateway.io/hold-requests-for: 20s } }",
    1,
)
APPLICATION = """\
def application(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\\n"]
"""
# systemd refuses more than five starts in ten seconds otherwise.
GUNICORN_UNIT = """\
[Unit]
StartLimitIntervalSec=0
[Service]
Type=notify
ExecStart=/usr/bin/gunicorn --chdir /root --threads 8 --bind 127.0.0.1:3001 application
"""
# Of a request over TLS that reached its backend; docs/configuration.md tells each.
FIELDS = (
    "CLIENT DURATION_MS FLAGS HOST LISTENER METHOD PATH PEER PROTOCOL REQUEST_BYTES REQUEST_ID"
    " RESPONSE_BYTES ROUTE STATUS TIME TLS UPSTREAM UPSTREAM_MS USER_AGENT"
)
BROKEN = "/etc/edge-gateway/common/routes/broken.yaml"


class Host:
    """The machine as the stories see it."""

    def __init__(self, machine, package):
        self.machine = machine
        self.load = None
        self.run = machine.run
        for file in ("load.py", "pebble.json"):
            machine.copy(Path(__file__).parent / file, f"/root/{file}")
        machine.copy(package, "/root/edge-gateway.deb")

    def begin_load(self, *clients):
        """Constant load, until `end_load`; see load.py."""
        self.load = self.machine.start(f"python3 /root/load.py {' '.join(clients)}")
        # So that every client has begun.
        time.sleep(0.7)

    def end_load(self):
        """What the load counted, by client."""
        if self.load is None:
            return None
        self.run("pkill -TERM -f '^python3 /root/load.py'", check=False)
        load, self.load = self.load, None
        try:
            out, _ = load.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            load.kill()
            raise Failed("the load does not end") from None
        return json.loads(out) if out else None

    def counted(self, allowed=()):
        """Ends the load; fails if anything was lost but the kinds of failure that are `allowed`."""
        load = self.end_load()
        fine = {"ok", "retried", "opened", "ended", *allowed}
        lost = {
            f"{client}: {kind}": number
            for client, count in load["count"].items()
            for kind, number in count.items()
            if kind not in fine
        }
        if lost:
            raise Failed(f"lost: {lost}, of {load}")
        total = sum(count.get("ok", 0) for count in load["count"].values())
        others = {
            f"{client} {kind}": number
            for client, count in load["count"].items()
            for kind, number in count.items()
            if kind != "ok"
        }
        longest = max(load["longest"].values())
        kinds = "".join(f", {kind} {number}" for kind, number in others.items())
        return f"{total} answered, 0 refused, 0 lost{kinds}; longest {1000 * longest:.0f} ms"

    def active(self, unit):
        return self.run(f"systemctl is-active {unit}", check=False).stdout.strip()

    def status(self):
        """The STATUS line."""
        return self.run("systemctl show -p StatusText --value edge-gateway").stdout.strip()

    def pid(self):
        return self.run("systemctl show -p MainPID --value edge-gateway").stdout.strip()

    def seconds_between(self, earlier, later):
        """Of two of the gateway's timestamps as systemd keeps them, in microseconds."""
        shown = self.run(f"systemctl show -p {earlier} -p {later} edge-gateway").stdout
        times = dict(line.split("=") for line in shown.split())
        return (int(times[later]) - int(times[earlier])) / 1e6

    def get(self, url, options=""):
        """Status and body; the status is 000 where there is no answer."""
        done = self.run(
            f"curl --silent --insecure --max-time 10 --write-out '\\n%{{http_code}}' {options} {url}",
            check=False,
        )
        body, _, status = done.stdout.rpartition("\n")
        return status, body

    def serial(self, name="gw.example.test"):
        """The serial of the certificate that a client of that name gets; empty if there is none."""
        return self.run(
            f"timeout 5 openssl s_client -connect 127.0.0.1:443 -servername {name} </dev/null"
            " 2>/dev/null | openssl x509 -noout -serial 2>/dev/null",
            check=False,
        ).stdout.strip()

    def serial_on_disk(self, lineage="gw.example.test"):
        return self.run(
            f"openssl x509 -noout -serial -in {LETSENCRYPT}/live/{lineage}/fullchain.pem"
        ).stdout.strip()

    def serves_what_is_on_disk(self, name="gw.example.test"):
        return eventually(
            f"the certificate on disk is served for {name}",
            lambda: self.serial(name) == self.serial_on_disk(name),
            15,
        )

    def owner(self, path):
        """`root:edge-gateway 640`, of what a link leads to."""
        return self.run(f"stat -Lc '%U:%G %a' {path}").stdout.strip()

    def certbot(self, arguments):
        return self.run(
            f"REQUESTS_CA_BUNDLE=/root/ca.pem certbot {arguments} -n --agree-tos"
            f" -m a@example.test --server {CA}"
        )

    def issue(self, name):
        """The command that a person types, with a server of our own."""
        self.certbot(f"certonly --webroot -w /var/lib/edge-gateway/acme -d {name}")

    def reload(self):
        self.run("systemctl reload edge-gateway")

    def journal_now(self):
        """Where the journal ends."""
        return json.loads(self.run("journalctl -n 1 -o json --output-fields=MESSAGE").stdout)["__CURSOR"]

    def said_since(self, cursor):
        """What the gateway told the journal after that, requests aside."""
        return self.run(
            f"journalctl -u edge-gateway -o cat --no-pager --after-cursor='{cursor}' | grep -v '\"GET '",
            check=False,
        ).stdout

    def journal(self):
        return self.run(
            "journalctl -b --no-pager -o short-monotonic -n 60 -u 'edge-gateway*' _SYSTEMD_UNIT=init.scope"
            " | grep -v '\"GET '",
            check=False,
        ).stdout

    def install(self, package="/root/edge-gateway.deb", options=""):
        return self.run(
            "DEBIAN_FRONTEND=noninteractive apt-get install -q -y --allow-downgrades"
            f" --no-install-recommends {options} {package}"
        ).stdout

    def repacked(self, version, change="true"):
        """The same package under another version, after a shell command in its tree."""
        package = f"/root/edge-gateway-{version}.deb"
        self.run(
            "rm -rf /root/tree && dpkg-deb --raw-extract /root/edge-gateway.deb /root/tree"
            f" && cd /root/tree && sed -i 's/^Version:.*/Version: {version}/' DEBIAN/control"
            f" && ({change}) && dpkg-deb --root-owner-group -Znone --build /root/tree {package}"
        )
        return package


def expect(truth, what):
    if not truth:
        raise Failed(what)


def installation(host):
    """After `apt install`, nothing edited, port 80 answers on both families."""
    begun = time.monotonic()
    host.install()
    took = time.monotonic() - begun
    units = "edge-gateway-http.socket edge-gateway-https.socket edge-gateway-certs.path"
    states = host.active(f"{units} edge-gateway.service").split()
    expect(states == ["active"] * 4, f"units are {states}")
    enabled = host.run(f"systemctl is-enabled {units} edge-gateway.service").stdout.split()
    expect(enabled == ["enabled"] * 4, f"units are {enabled}")
    for address in ("127.0.0.1", "[::1]"):
        status, body = host.get(f"http://{address}/")
        expect(status == "200" and "What to do next" in body, f"{address} answers {status} {body}")
    expect(host.serial() == "", "443 has a certificate, and there is none")
    user = host.run(f"stat -c %U /proc/{host.pid()}").stdout.strip()
    expect(user == "edge-gateway", f"it runs as {user}")
    capabilities = host.run(f"grep ^Cap /proc/{host.pid()}/status").stdout
    expect(set(capabilities.split()[1::2]) == {"0" * 16}, f"it has capabilities: {capabilities}")
    # No manual pages are installed, so they are not looked for.
    problems = host.run(
        "cd /usr/lib/systemd/system;"
        " systemd-analyze verify --man=no edge-gateway*.path edge-gateway*.service edge-gateway*.socket 2>&1"
    ).stdout
    expect(problems == "", f"systemd-analyze verify: {problems}")
    exposure = [
        host.run(
            f"systemd-analyze security --offline=true --threshold=13 /usr/lib/systemd/system/{unit}.service"
            " | grep Overall | grep -o '[0-9]\\.[0-9]'"
        ).stdout.strip()
        for unit in ("edge-gateway", "edge-gateway-bridge")
    ]
    next_step = "issue one with `certbot certonly --webroot"
    said = host.run("journalctl -u edge-gateway --no-pager -o cat").stdout
    expect(next_step in said, f"the journal does not say what to do next: {said}")
    expect(next_step in host.status(), f"nor does the status: {host.status()}")
    return f"installed in {took:.1f} s, exposure {' and '.join(exposure)}; status: {host.status()}"


def challenges(host):
    """A file of certbot's webroot is answered on port 80, whatever the Host; nothing else is."""
    directory = "/var/lib/edge-gateway/acme/.well-known/acme-challenge"
    expect(host.owner("/var/lib/edge-gateway/acme") == "root:root 755", "the webroot is not root's")
    host.run(f"mkdir -p {directory} && echo proof >{directory}/token-1")
    status, body = host.get("http://127.0.0.1/.well-known/acme-challenge/token-1", "-H 'Host: a.test'")
    expect((status, body) == ("200", "proof\n"), f"the token: {status} {body}")
    host.run(f"rm -r {directory}")


def first_certificate(host):
    """DOMAIN, one certbot command, and HTTPS is on; no hook ran, nobody reloaded."""
    run = host.run
    run(
        "cd /root && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        " -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout ca.key -out ca.pem 2>&1"
    )
    # Newer ones serve DNS over HTTPS, too, and later have another word for DNS.
    flags = run("pebble-challtestsrv -help 2>&1", check=False).stdout
    doh = "-doh ''" if "-doh" in flags else ""
    dns = "-dnsserver" if "-dnsserver" in flags else "-dns01"
    run(
        "systemd-run --quiet --unit=dns pebble-challtestsrv -defaultIPv4 127.0.0.1 -defaultIPv6 ''"
        " -http01 '' -https01 '' -tlsalpn01 '' -management 127.0.0.1:8055"
        f" {doh} {dns} 127.0.0.1:8053"
    )
    run(
        "systemd-run --quiet --unit=pebble --setenv=PEBBLE_VA_NOSLEEP=1"
        " --setenv=PEBBLE_WFE_NONCEREJECT=0 pebble -config /root/pebble.json -dnsserver 127.0.0.1:8053"
    )
    host.machine.write("/etc/systemd/system/echo.service", ECHO_UNIT)
    run("systemctl enable --quiet --now echo")
    eventually("the name server listens",
               lambda: run("ss -Hlun 'sport = :8053'").stdout and run("ss -Hltn 'sport = :8053'").stdout)
    eventually("the ACME server listens", lambda: host.get(CA)[0] == "200")
    # A drain as short as the slowest request of these stories needs, since each restart waits for it.
    run("printf 'DOMAIN=gw.example.test\\nEDGE_GATEWAY_OPTS=--drain-timeout 4s\\n' >>/etc/default/edge-gateway")
    run("systemctl restart edge-gateway")
    host.machine.write("/etc/edge-gateway/common/routes/echo.yaml", ECHO)
    host.issue("gw.example.test")
    took = host.serves_what_is_on_disk()
    key = f"{LETSENCRYPT}/live/gw.example.test/privkey.pem"
    expect(host.owner(key) == "root:edge-gateway 640", f"the key is {host.owner(key)}")
    other = run(f"setpriv --reuid=nobody --regid=nogroup --clear-groups cat {key}", check=False)
    expect(other.returncode != 0, "others read the key")
    status, body = host.get("https://gw.example.test/echo/", "--resolve gw.example.test:443:127.0.0.1")
    expect(status == "200" and "x-forwarded-proto" in body, f"{status} {body}")
    return f"served {took:.1f} s after certbot was done"


def certificates_told(host):
    """`edge-gateway certs` tells root and nobody else what is served, and `certs setup` the command."""
    certificates = json.loads(host.run("edge-gateway certs --json").stdout)
    host.run("edge-gateway certs")
    other = host.run("setpriv --reuid=nobody --regid=nogroup --clear-groups edge-gateway certs", check=False)
    expect(other.returncode != 0, f"others may ask: {other.stdout}")
    said = host.run("edge-gateway certs setup a.example.test").stdout
    expect("--deploy-hook /etc/letsencrypt/renewal-hooks/deploy/edge-gateway" in said, said)
    verdicts = [certificate["verdict"] for certificate in certificates["certificates"]]
    expect(verdicts == ["good"], f"{certificates}")
    return said.strip()


def doctor(host):
    """`edge-gateway doctor` finds nothing wrong but that no name server knows this machine."""
    said = host.run("edge-gateway doctor", check=False).stdout
    failed = [line for line in said.splitlines() if line.startswith("FAIL")]
    expect([line.split()[1] for line in failed] == ["DNS"], said)
    return said.splitlines()[-1]


def journal(host):
    """The journal finds a request by what it was, and has all that is to be known of it."""
    host.get("https://127.0.0.1/echo/?status=418", "-H 'Host: teapot.test'")
    found = lambda: host.run(
        "journalctl -u edge-gateway --no-pager -o json EG_HOST=teapot.test EG_STATUS=418 EG_METHOD=GET"
    ).stdout
    eventually("its line is in the journal", found)
    line = json.loads(found())
    missing = [field for field in FIELDS.split() if not line.get(f"EG_{field}")]
    expect(not missing, f"{missing} is not in {line}")
    expect("teapot.test/echo/?status=418" in line["MESSAGE"], line["MESSAGE"])
    expect((line["PRIORITY"], line["SYSLOG_IDENTIFIER"]) == ("6", "edge-gateway"), f"{line}")
    return line["MESSAGE"]


def second_lineage(host):
    """A Gateway with a second name; its certificate comes later, and that is enough."""
    host.machine.write("/etc/edge-gateway/prod/gateway.yaml", GATEWAY)
    eventually("the new Gateway is served", lambda: "3 listeners" in host.status())
    # Until then it gets that of DOMAIN.
    expect(host.serial("two.example.test") == host.serial(), "the second name has a certificate")
    host.begin_load("plain", "tls", "ws")
    said = host.run(
        "REQUESTS_CA_BUNDLE=/root/ca.pem edge-gateway certs setup --run two.example.test"
        f" -- -n --agree-tos --server {CA}"
    ).stdout
    expect("edge-gateway: serves two.example.test" in said, f"the hook has not run: {said}")
    took = host.serves_what_is_on_disk("two.example.test")
    return f"served {took:.1f} s after certbot was done; {host.counted()}"


def renewal(host):
    """Both lineages in one run of certbot's timer, by the hook, under load; no reload is needed."""
    run = host.run
    run(f"sed -i '1i renew_before_expiry = 20 years' {LETSENCRYPT}/renewal/*.conf")
    for unit, text in {
        # An empty OnCalendar= takes away that of the unit, twice a day.
        "certbot.timer": "[Timer]\nOnCalendar=\nOnActiveSec=1s\nRandomizedDelaySec=0\nAccuracySec=1ms\n",
        "certbot.service": "[Service]\nEnvironment=REQUESTS_CA_BUNDLE=/root/ca.pem\n",
    }.items():
        host.machine.write(f"/etc/systemd/system/{unit}.d/now.conf", text)
    names = ["gw.example.test", "two.example.test"]
    before = [host.serial(name) for name in names]
    ended = lambda: run("systemctl show -p ExecMainExitTimestampMonotonic --value certbot").stdout
    host.begin_load("plain", "tls", "keep", "http2", "slow", "ws")
    begun, last_run, since = time.monotonic(), ended(), host.journal_now()
    run("systemctl daemon-reload; systemctl restart certbot.timer")
    eventually("certbot's timer has run it", lambda: ended() not in (last_run, "0\n"), 90)
    took = time.monotonic() - begun
    result = run("systemctl show -p Result --value certbot").stdout.strip()
    expect(result == "success", f"certbot.service came to {result}")
    # The hook has waited for it.
    for name, old in zip(names, before):
        new = host.serial(name)
        expect(new == host.serial_on_disk(name) != old, f"{name}: {old} before, {new} now")
        key = f"{LETSENCRYPT}/live/{name}/privkey.pem"
        expect(host.owner(key) == "root:edge-gateway 640", f"the key is {host.owner(key)}")
    counted = host.counted()
    expect("ended" not in counted, f"a WebSocket did not stay open: {counted}")
    log = run("cat /var/log/letsencrypt/letsencrypt.log").stdout
    expect(log.count("edge-gateway: serves ") >= 2, "the hook has not said what is served")
    reloads = host.said_since(since).count("reloading ")
    expect(reloads <= 1, f"{reloads} reloads for two lineages")
    run(
        "rm -r /etc/systemd/system/certbot.*.d; systemctl daemon-reload; systemctl restart certbot.timer;"
        f" sed -i '/^renew_before_expiry/d' {LETSENCRYPT}/renewal/*.conf"
    )
    return f"two renewed in {took:.1f} s, with {reloads} reloads; {counted}"


def hook_tells(host):
    """The hook fails, with a clear line, if the certificate that it is given is not served."""
    host.run(
        "mkdir -p /root/lineage && cd /root/lineage && openssl req -x509 -newkey rsa:2048 -nodes -days 2"
        " -subj /CN=x -addext subjectAltName=DNS:gw.example.test -keyout privkey.pem -out fullchain.pem 2>&1"
    )
    hook = f"{LETSENCRYPT}/renewal-hooks/deploy/edge-gateway"
    begun = time.monotonic()
    failed = host.run(f"RENEWED_LINEAGE=/root/lineage {hook}", check=False)
    took = time.monotonic() - begun
    expect(failed.returncode == 1 and "does not serve the new certificate" in failed.stdout,
           f"{failed.returncode} {failed.stdout}")
    again = [
        host.run(f"RENEWED_LINEAGE={LETSENCRYPT}/live/gw.example.test {hook}").stdout for _ in range(2)
    ]
    expect(again[0] == again[1] and "serves gw.example.test" in again[0], f"not idempotent: {again}")
    return f"after {took:.0f} s: {failed.stdout.strip()}"


def reload_and_broken_file(host):
    """A reload loses nothing; one of a broken file fails, changes nothing, and says so everywhere."""
    host.begin_load("plain", "tls", "keep", "http2", "slow", "ws")
    for _ in range(5):
        host.run("systemctl reload edge-gateway")
        host.run("systemctl kill --kill-who=main -s HUP edge-gateway")
    host.run("systemctl reload-or-restart edge-gateway")
    host.machine.write(BROKEN, "kind: HTTPRoute\nspec: [")
    failed = host.run("systemctl reload edge-gateway", check=False)
    expect(failed.returncode != 0, "a reload of a broken file has succeeded")
    broken = host.status()
    expect("broken.yaml:2" in broken, f"the status is {broken}")
    asked = host.run("edge-gateway reload --wait", check=False)
    expect(asked.returncode == 1 and "broken.yaml:2" in asked.stdout, f"it says {asked.stdout}")
    host.run(f"rm {BROKEN}; systemctl reload edge-gateway")
    expect("failed" not in host.status(), f"the status is {host.status()}")
    counted = host.counted()
    expect("ended" not in counted, f"a WebSocket did not stay open: {counted}")
    return f"{counted}; status: {broken}"


def restart(host):
    """Three restarts, under load; what was under way finishes."""
    host.begin_load("plain", "tls", "keep", "http2", "slow", "slow")
    times = []
    for _ in range(3):
        begun = time.monotonic()
        host.run("systemctl restart edge-gateway")
        times.append(f"{time.monotonic() - begun:.1f}")
    return f"in {', '.join(times)} s; {host.counted()}"


def backend_restarted(host):
    """`systemctl restart` of gunicorn under load, five times: its Backend holds requests, and none fails."""
    routes = "/etc/edge-gateway/common/routes/echo.yaml"
    host.machine.write("/root/application.py", APPLICATION)
    host.machine.write("/etc/systemd/system/gunicorn.service", GUNICORN_UNIT)
    host.run("systemctl daemon-reload && systemctl start gunicorn")
    host.machine.write(routes, GUNICORN)
    eventually("gunicorn is behind the gateway",
               lambda: host.get("https://127.0.0.1/echo/", "-H 'Host: gw.example.test'") == ("200", "ok\n"))
    host.begin_load("plain", "tls", "keep", "http2")
    for _ in range(5):
        host.run("systemctl restart gunicorn")
        time.sleep(1)
    told = host.counted()
    held = host.run("journalctl -u edge-gateway --no-pager -o cat EG_DETAILS='via_upstream{held}' | wc -l").stdout
    expect(int(held) > 0, "no request waited")
    host.machine.write(routes, ECHO)
    eventually("the echo is behind the gateway",
               lambda: "x-forwarded-proto" in host.get("https://127.0.0.1/echo/", "-H 'Host: gw.example.test'")[1])
    host.run("systemctl stop gunicorn")
    return f"{told}; {int(held)} waited"


def restart_with_tunnel(host):
    """A WebSocket may last as long as the drain; nobody else waits for it."""
    host.begin_load("plain", "tls", "ws")
    begun = time.monotonic()
    host.run("systemctl restart edge-gateway")
    took = time.monotonic() - begun
    return f"in {took:.1f} s; {host.counted()}"


def drop_ins(host):
    """What an administrator has changed holds for the bridge, too."""
    host.run(
        "mkdir -p /etc/systemd/system/edge-gateway.service.d; printf '[Service]\\nEnvironment=OWN=1\\n'"
        " >/etc/systemd/system/edge-gateway.service.d/own.conf; systemctl daemon-reload;"
        " systemctl restart edge-gateway"
    )
    environment = host.run("systemctl show -p Environment --value edge-gateway-bridge").stdout
    host.run("rm -r /etc/systemd/system/edge-gateway.service.d; systemctl daemon-reload")
    expect("OWN=1" in environment, f"the bridge had {environment}")


def upgrade_and_downgrade(host):
    """A newer version, then the one before, under load; afterwards the new binary runs."""
    newer = host.repacked("0.9.0-1")
    host.begin_load("plain", "tls", "keep", "http2", "slow", "slow")
    times = []
    for package in (newer, "/root/edge-gateway.deb"):
        before = host.pid()
        begun = time.monotonic()
        host.install(package)
        times.append(f"{time.monotonic() - begun:.1f}")
        exe = host.run(f"readlink /proc/{host.pid()}/exe").stdout.strip()
        expect(host.pid() != before and exe == "/usr/bin/edge-gateway", f"{exe} runs")
    return f"in {' and '.join(times)} s; {host.counted()}"


def bad_binary(host):
    """A version whose binary does not start: the one before it serves on, until a good one comes."""
    bad = host.repacked("0.9.1-1", "printf '#!/bin/sh\\nexit 1\\n' >usr/bin/edge-gateway")
    good = host.repacked("0.9.2-1")
    host.begin_load("plain", "tls", "keep", "http2", "slow")
    said = host.install(bad)
    expect("does not start" in said and "goes on serving" in said, f"apt says: {said}")
    # Long enough for a dozen attempts to start.
    time.sleep(4)
    restarts = host.run("systemctl show -p NRestarts --value edge-gateway").stdout.strip()
    host.install(good)
    expect(host.active("edge-gateway") == "active", "the good one does not run")
    eventually("the bridge is gone", lambda: host.active("edge-gateway-bridge") == "inactive", 10)
    host.install("/root/edge-gateway.deb")
    return f"{restarts} failed starts; {host.counted()}"


def crashed(host, clients):
    """Ends the load of a crash: what was under way is lost with the process, and nothing else."""
    # So that what waited has its answer.
    time.sleep(0.5)
    load = host.end_load()
    count = Counter()
    for one in load["count"].values():
        count.update(one)
    under_way = ("reset", "failed: Cut()", "ended")
    lost = sum(count[kind] for kind in under_way)
    others = set(count) - {"ok", "opened", "retried", *under_way}
    # Each client has one request under way, or one WebSocket.
    expect(not others and lost <= clients, f"{load}")
    longest = max(load["longest"].values())
    return (
        f"{count['ok']} answered, 0 refused, 0 failed, {lost} under way lost, {count['retried']} retried;"
        f" longest {1000 * longest:.0f} ms"
    )


def kill(host):
    """kill -9: back within a second, and the ports stay open."""
    clients = ["plain", "tls", "keep", "http2", "slow", "ws"]
    host.begin_load(*clients)
    before = host.pid()
    host.run("systemctl kill --kill-who=main -s KILL edge-gateway")
    eventually("it is back",
               lambda: host.active("edge-gateway") == "active" and host.pid() not in (before, "0"), 30)
    # By systemd's own clock, which waits for nobody here.
    took = host.seconds_between("ActiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic")
    return f"back after {took:.2f} s; {crashed(host, len(clients))}"


def watchdog(host):
    """SIGSTOP: the watchdog ends it, and it starts again; who came meanwhile has waited."""
    host.run(
        "mkdir -p /run/systemd/system/edge-gateway.service.d;"
        " printf '[Service]\\nWatchdogSec=2\\n' >/run/systemd/system/edge-gateway.service.d/dog.conf;"
        " systemctl daemon-reload; systemctl restart edge-gateway"
    )
    before = host.pid()
    clients = ["plain", "tls", "keep", "http2", "ws"]
    host.begin_load(*clients)
    begun = time.monotonic()
    host.run("systemctl kill --kill-who=main -s STOP edge-gateway")
    eventually("it is back",
               lambda: host.pid() not in (before, "0") and host.active("edge-gateway") == "active", 60)
    took = time.monotonic() - begun
    counted = crashed(host, len(clients))
    said = host.run("journalctl -u edge-gateway -n 200 -o cat --no-pager _PID=1").stdout
    expect("Watchdog timeout" in said, "it was not the watchdog that ended it")
    host.run("rm -r /run/systemd/system/edge-gateway.service.d; systemctl daemon-reload;"
             " systemctl restart edge-gateway")
    return f"back after {took:.1f} s; {counted}"


def stop_means_stop(host):
    """After a stop the ports are closed, connections or none; a start opens them."""
    # The end of a bridge makes systemd listen too, and one connection would cancel the stop.
    host.run("systemctl restart edge-gateway")
    eventually("the bridge is gone", lambda: host.active("edge-gateway-bridge") == "inactive", 20)
    slow = host.machine.start("curl --silent http://127.0.0.1/echo/?delay=3s")
    # So that it is under way.
    time.sleep(0.3)
    stop = host.machine.start("systemctl stop edge-gateway")
    # While it drains, nobody but systemd could take a connection.
    host.begin_load("plain", "tls")
    expect(stop.wait(60) == 0, "the stop has failed")
    expect("x-request-id" in slow.communicate(timeout=20)[0], "what was under way was cut")
    eventually("port 80 is closed", lambda: host.get("http://127.0.0.1/")[0] == "000", 3)
    time.sleep(0.5)
    load = host.end_load()
    kinds = {kind for count in load["count"].values() for kind in count}
    expect("refused" in kinds and not any(kind.startswith("failed") for kind in kinds), f"{load}")
    states = host.active("edge-gateway.service edge-gateway-bridge.service edge-gateway-http.socket"
                         " edge-gateway-https.socket").split()
    expect(states == ["inactive"] * 4, f"units are {states}")
    host.run("systemctl start edge-gateway")
    expect(host.get("http://127.0.0.1/echo/")[0] == "200", "it does not serve after a start")


def crash_loop(host):
    """A gateway that never starts: its ports stay open, and a stop closes them all the same."""
    host.run("mkdir -p /run/systemd/system/edge-gateway.service.d;"
             " printf '[Service]\\nEnvironment=EDGE_GATEWAY_OPTS=--no-such-flag\\nEnvironmentFile=\\n'"
             " >/run/systemd/system/edge-gateway.service.d/loop.conf; systemctl daemon-reload;"
             " systemctl stop edge-gateway; systemctl start --no-block edge-gateway")
    # Many more starts than any default limit allows.
    eventually("it has failed to start 15 times",
               lambda: int(host.run("systemctl show -p NRestarts --value edge-gateway").stdout) > 15, 20)
    states = host.active("edge-gateway-http.socket edge-gateway-https.socket").split()
    expect(states == ["active"] * 2, f"sockets are {states}")
    for _ in range(5):
        host.run("systemctl start --no-block edge-gateway; sleep 0.3; systemctl stop edge-gateway")
        eventually("the sockets are closed",
                   lambda: "active" not in host.active("edge-gateway-http.socket edge-gateway-https.socket"
                                                       ).split(), 5)
        host.get("http://127.0.0.1/")
        expect(host.active("edge-gateway") in ("inactive", "failed"), "a connection has started it again")
    host.run("rm -r /run/systemd/system/edge-gateway.service.d; systemctl daemon-reload;"
             " systemctl reset-failed edge-gateway; systemctl start edge-gateway")
    expect(host.get("http://127.0.0.1/echo/")[0] == "200", "it does not serve after a start")


def lineage_restored(host):
    """Deleted and restored from a backup, as root's alone; the old one serves on, then the new."""
    run = host.run
    run(f"cd {LETSENCRYPT} && tar -cf /root/backup.tar archive live renewal")
    serial = host.serial()
    run("certbot delete -n --cert-name gw.example.test")
    time.sleep(1)
    expect(host.serial() == serial, "a certificate went with its files")
    run(f"cd {LETSENCRYPT} && tar -xf /root/backup.tar --no-same-owner &&"
        " chown -R root:root live archive && chmod 700 live archive && chmod 600 archive/*/privkey*.pem")
    key = f"{LETSENCRYPT}/live/gw.example.test/privkey.pem"
    took = eventually("the key is the gateway's", lambda: host.owner(key) == "root:edge-gateway 640")
    # A new one proves that it is read again.
    host.certbot("renew --force-renewal --no-random-sleep-on-renew --cert-name gw.example.test")
    host.serves_what_is_on_disk()
    return f"readable after {took:.1f} s"


def lineages_of_others(host):
    """A lineage that is not the gateway's is root's alone, and a key of another group is left to it."""
    # It may be at work for the lineage before, and would go on by the settings that it has read.
    eventually("the .path unit's service rests",
               lambda: host.active("edge-gateway-certs.service") == "inactive", 20)
    host.run("sed -i '$a EDGE_GATEWAY_LINEAGES=\"gw.*\"' /etc/default/edge-gateway;"
             " systemctl start edge-gateway-certs.service")
    key = LETSENCRYPT + "/live/{}.example.test/privkey.pem"
    owners = [host.owner(key.format(name)) for name in ("gw", "two")]
    host.run("sed -i '/EDGE_GATEWAY_LINEAGES=\"gw/d' /etc/default/edge-gateway;"
             " systemctl start edge-gateway-certs.service")
    expect(owners == ["root:edge-gateway 640", "root:root 600"], f"keys are {owners}")
    expect(host.owner(key.format("two")) == "root:edge-gateway 640", "it was not given back")
    host.run(f"chgrp mail $(readlink -f {key.format('two')}); systemctl reload edge-gateway || true")
    owner = host.owner(key.format("two"))
    said = host.run("journalctl -u edge-gateway --no-pager -n 20").stdout
    host.run(f"chgrp edge-gateway $(readlink -f {key.format('two')})")
    expect(owner == "root:mail 640" and "usermod -aG mail" in said, f"it is {owner} now: {said}")


def removal(host):
    """A removal gives the keys back to root; the configuration is there for the next installation."""
    host.run("apt-get remove -q -y edge-gateway")
    key = f"{LETSENCRYPT}/live/gw.example.test/privkey.pem"
    expect(host.owner(key) == "root:root 600", f"the key is {host.owner(key)}")
    expect(host.get("http://127.0.0.1/")[0] == "000", "port 80 answers")
    hook = host.run(f"RENEWED_LINEAGE={LETSENCRYPT}/live/gw.example.test"
                    f" {LETSENCRYPT}/renewal-hooks/deploy/edge-gateway")
    expect(hook.stdout == "", f"the hook says {hook.stdout}")
    host.install()
    expect(host.owner(key) == "root:edge-gateway 640", f"the key is {host.owner(key)}")
    took = host.serves_what_is_on_disk()
    status, _ = host.get("https://gw.example.test/echo/", "--resolve gw.example.test:443:127.0.0.1")
    expect(status == "200", f"the routes are not what they were: {status}")
    return f"certbot first, package later: served after {took:.1f} s"


def port_taken(host):
    """Somebody else has port 443: apt says who, and does not fail; port 80 is not half open."""
    host.run("systemctl stop edge-gateway; systemd-run --quiet --unit=other python3 -m http.server 443")
    eventually("the other one listens", lambda: host.get("http://127.0.0.1:443/")[0] == "200")
    host.install(options="--reinstall")
    state = host.active("edge-gateway-http.socket")
    expect(state == "inactive", f"it was stopped, and an upgrade made it {state}")
    said = host.run("/var/lib/dpkg/info/edge-gateway.postinst configure 0.1.0-1").stdout
    listens = [line for line in said.splitlines() if line.startswith("LISTEN")]
    expect("80 or 443 is in use" in said and len(listens) == 1 and "python3" in listens[0], said)
    expect(host.get("http://127.0.0.1/")[0] == "000", "port 80 is open")
    # As at a boot, where each socket is started for itself.
    host.run("systemctl start edge-gateway-http.socket")
    expect(host.get("http://127.0.0.1/")[0] == "000", "port 80 answers")
    eventually("it gives up", lambda: host.active("edge-gateway-http.socket") != "active")
    host.run("systemctl stop other; systemctl start edge-gateway")
    expect(host.get("http://127.0.0.1/echo/")[0] == "200", "it does not serve after a start")
    return " ".join(listens[0].split())


def reboot(host):
    """After a boot it serves, and nobody did anything."""
    begun = time.monotonic()
    host.machine.halt()
    host.machine.boot()
    host.serves_what_is_on_disk()
    failed = host.run("systemctl --failed --no-legend --plain").stdout
    expect("edge-gateway" not in failed, f"failed units: {failed}")
    return f"halt, boot and serve in {time.monotonic() - begun:.1f} s"


def boot_with_broken_files(host):
    """What loaded last is served, through restart and upgrade too, and it says so until it is mended."""
    newer = host.repacked("0.9.3-1")
    host.machine.write(BROKEN, "kind: HTTPRoute\nspec: [")
    host.machine.halt()
    host.machine.boot()
    host.serves_what_is_on_disk()
    failed = host.run("systemctl reload edge-gateway", check=False)
    expect(failed.returncode != 0, "a reload of a broken file has succeeded")
    host.begin_load("plain", "tls", "keep", "http2", "slow")
    since = host.journal_now()
    for change in ("systemctl restart edge-gateway", f"dpkg --install {newer}"):
        host.run(change)
        status = host.status()
        expect("the last good configuration is served" in status and "broken.yaml:2" in status, f"{change}: {status}")
    counted = host.counted()
    said = host.said_since(since)
    for line in ("the files are refused; serving the last good configuration", "broken.yaml:2:"):
        expect(line in said, f"the journal does not say `{line}`: {said}")
    host.run(f"rm {BROKEN}; systemctl reload edge-gateway")
    mended = host.status()
    expect("broken" not in mended and "last" not in mended, f"the status is {mended}")
    host.install()
    return f"{counted}; status: {status}"


def purge(host):
    """Nothing is left behind, and what is certbot's is as certbot makes it."""
    host.run("apt-get purge -q -y edge-gateway")
    left = host.run(
        # What ran before this boot is in /run no more, and the journal may keep what was said.
        "find / /run -xdev \\( -path /proc -o -path /sys -o -path /root -o -path /var/log -o -path /tmp \\)"
        " -prune -o \\( -name '*edge-gateway*' -o -nouser -o -nogroup \\) -print;"
        " getent passwd edge-gateway; getent group edge-gateway;"
        " systemctl list-units --all --plain --no-legend 'edge-gateway*';"
        " systemctl list-unit-files --no-legend 'edge-gateway*'",
        check=False,
    ).stdout
    expect(left == "", f"left: {left}")
    owners = {host.owner(f"{LETSENCRYPT}/{path}") for path in ("live", "archive", "archive/*/privkey*.pem")}
    expect(all("edge-gateway" not in owner and owner.count("root:root") for owner in owners), f"{owners}")


STORIES = [
    installation,
    challenges,
    first_certificate,
    certificates_told,
    doctor,
    journal,
    second_lineage,
    renewal,
    hook_tells,
    reload_and_broken_file,
    restart,
    backend_restarted,
    restart_with_tunnel,
    drop_ins,
    upgrade_and_downgrade,
    bad_binary,
    kill,
    watchdog,
    stop_means_stop,
    crash_loop,
    lineage_restored,
    lineages_of_others,
    removal,
    port_taken,
    reboot,
    boot_with_broken_files,
    purge,
]
# Without these there is nothing to tell of.
BEGINNING = STORIES[:3]
