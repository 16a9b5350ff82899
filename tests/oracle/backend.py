"""The backends behind both gateways: each keeps what it saw of every request, and answers as its header
`X-Backend` asks, a query string:

    status=503   delay=0.5   body=TEXT   size=4096   type=text/html   header=NAME:VALUE (more than once)
    failing=N    the first N attempts of a request get status 503, or `status`
    closing=N    the first N attempts of a request are closed without an answer
"""

import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

# The header by which a request is found again.
MARK = "X-Oracle"


class Backend(ThreadingHTTPServer):
    """One of them. `seen` has the attempts of each request, by its mark; shared by all backends."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, name, port, seen):
        super().__init__(("127.0.0.1", port), Handler)
        self.name = name
        self.seen = seen
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        """Says nothing of connections that a gateway resets."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    # Nothing is left in a buffer while an answer is delayed.
    wbufsize = 0

    def handle_one_request(self):
        """As the class above does, for any method."""
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        self.answer()

    def answer(self):
        """Keeps the request, and answers it."""
        body = self.whole_body()
        asked = parse_qs(self.headers.get("X-Backend", ""), keep_blank_values=True)

        def wish(name, default):
            return asked.get(name, [default])[-1]

        attempts = self.server.seen[self.headers.get(MARK)]
        attempts.append({
            "backend": self.server.name, "method": self.command, "target": self.path,
            "headers": [(name.lower(), value) for name, value in self.headers.items()], "body": len(body),
        })
        time.sleep(float(wish("delay", "0")))
        if len(attempts) <= int(wish("closing", "0")):
            self.close_connection = True
            return
        failing = int(wish("failing", "0"))
        status = int(wish("status", "503" if failing else "200"))
        if failing and len(attempts) > failing:
            status = 200
        text = wish("body", f"{self.server.name}\n").encode()
        text = (text * (int(wish("size", len(text))) // len(text) + 1))[:int(wish("size", len(text)))]
        self.send_response_only(status)
        self.send_header("Content-Type", wish("type", "text/plain"))
        for line in asked.get("header", []):
            self.send_header(*line.split(":", 1))
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(text)))
        try:
            self.end_headers()
            self.finish_answer(text, status)
        except OSError:
            # Who asked did not wait.
            self.close_connection = True

    def finish_answer(self, text, status):
        """Sends the body, if there is one."""
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(text)

    def whole_body(self):
        """The body, in either framing."""
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def log_message(self, *_):
        """Says nothing."""


def start(ports):
    """Starts a backend for each name; gives what they see."""
    seen = defaultdict(list)
    for name, port in ports.items():
        Backend(name, port, seen)
    return seen
