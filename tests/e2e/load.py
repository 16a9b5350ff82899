#!/usr/bin/env python3
"""Constant load on the gateway of this machine, until SIGTERM; then one line of JSON.

Each client is a thread that goes on to its next request as soon as one is answered:

    plain   HTTP/1.1 on port 80, a new connection for each request
    tls     HTTP/1.1 on port 443, a new connection for each request
    keep    HTTP/1.1 on port 443, on one connection for as long as it lasts
    http2   HTTP/2, on one connection for as long as it lasts
    slow    HTTP/1.1 on port 443; the answer takes a second
    ws      a WebSocket on which a message goes to and fro

What a client may do again without anybody noticing is done again and counted as `retried`: a request
on a kept connection that was closed before any byte of an answer (RFC 9110 section 9.2.2), and a
stream above the last one of GOAWAY (RFC 9113 section 6.8). Everything else that goes wrong is
counted by what it was.
"""

import base64
import json
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections import Counter

import hpack

NAME = "gw.example.test"
PATIENCE = 20
# Between two requests of a client; a few hundred requests a second in all.
PAUSE = 0.004

# By RST, or in good order where an answer, or the server's half of a handshake, was still to come.
CUT_OFF = (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError, ssl.SSLZeroReturnError)

done = threading.Event()


class Closed(Exception):
    """The connection was closed in a way that lets the client retry."""


class Cut(Exception):
    """An answer had begun, and then the connection was closed."""


class Client(threading.Thread):
    """One client and its count."""

    def __init__(self, kind):
        super().__init__(daemon=True)
        self.kind = kind
        self.count = Counter()
        self.longest = 0.0

    def run(self):
        loop = getattr(self, self.kind)
        while not done.is_set():
            try:
                loop()
            except Closed:
                self.count["retried"] += 1
            except ConnectionRefusedError:
                self.count["refused"] += 1
            except CUT_OFF:
                self.count["reset"] += 1
            except TimeoutError:
                self.count["timeout"] += 1
            except Exception as error:  # whatever it is, it is a failure to be shown
                self.count[f"failed: {error!r}"] += 1
                time.sleep(0.05)

    def answered(self, begun, status):
        took = time.monotonic() - begun
        self.longest = max(self.longest, took)
        self.count["ok" if status == 200 else f"failed: status {status}"] += 1
        time.sleep(PAUSE)

    def plain(self):
        begun = time.monotonic()
        with connect(80) as stream:
            self.answered(begun, exchange(stream, "/echo/", close=True))

    def tls(self):
        begun = time.monotonic()
        with secure() as stream:
            self.answered(begun, exchange(stream, "/echo/", close=True))

    def slow(self):
        begun = time.monotonic()
        with secure() as stream:
            status = exchange(stream, "/echo/?delay=1s", close=True)
            self.answered(begun + 1, status)

    def keep(self):
        with secure() as stream:
            used = False
            while not done.is_set():
                begun = time.monotonic()
                try:
                    stream.sendall(request("/echo/", close=False))
                    status, closes = read_response(stream)
                except (Closed, *CUT_OFF) as error:
                    # On a fresh connection nothing was kept, so nothing may be retried.
                    raise (Closed if used else ConnectionResetError) from error
                self.answered(begun, status)
                used = True
                if closes:
                    return

    def http2(self):
        with secure("h2") as stream:
            connection = Http2(stream)
            while not done.is_set() and not connection.closes:
                begun = time.monotonic()
                self.answered(begun, connection.get("/echo/"))

    def ws(self):
        with secure() as stream:
            key = base64.b64encode(os.urandom(16)).decode()
            stream.sendall(
                f"GET /echo/ HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\n"
                f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
            )
            head, rest = read_head(stream)
            if b" 101 " not in head.split(b"\r\n")[0]:
                raise ValueError(head.split(b"\r\n")[0])
            self.count["opened"] += 1
            while not done.is_set():
                begun = time.monotonic()
                # A masked text frame of five bytes, with a mask of zeros.
                try:
                    stream.sendall(b"\x81\x85\0\0\0\0hello")
                    frame, rest = rest or stream.recv(100), b""
                except OSError:
                    frame = b""
                if frame[:1] != b"\x81":
                    # A close frame, or the end of the connection: both end a drain.
                    self.count["ended"] += 1
                    return
                self.answered(begun, 200)
                time.sleep(0.05)


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def secure(protocol="http/1.1"):
    context = ssl.create_default_context()
    # Which certificate it is, the stories look at.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context.wrap_socket(connect(443), server_hostname=NAME)


def request(path, close):
    connection = "Connection: close\r\n" if close else ""
    return f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\n{connection}\r\n".encode()


def read_head(stream):
    data = b""
    while b"\r\n\r\n" not in data:
        more = stream.recv(65536)
        if not more:
            raise Cut if data else Closed
        data += more
    return data.split(b"\r\n\r\n", 1)


def read_response(stream):
    """Status, and whether the server will close; the body was read."""
    head, body = read_head(stream)
    lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
    length = int(fields["content-length"])
    while len(body) < length:
        more = stream.recv(65536)
        if not more:
            raise Cut
        body += more
    return int(lines[0].split()[1]), "close" in fields.get("connection", "")


def exchange(stream, path, close):
    stream.sendall(request(path, close))
    try:
        return read_response(stream)[0]
    except Closed:
        # On a connection of its own that is a request lost.
        raise ConnectionResetError from None


class Http2:
    """One connection, one stream after the other (RFC 9113)."""

    DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8

    def __init__(self, stream):
        self.stream = stream
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.number = -1
        # GOAWAY was seen; what it said of the last stream.
        self.closes, self.last = False, 2**31 - 1
        self.buffer = b""
        stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.send(self.SETTINGS, 0, 0, b"")
        # Room for all answers of this connection.
        self.send(self.WINDOW_UPDATE, 0, 0, (2**30).to_bytes(4, "big"))

    def send(self, kind, flags, number, payload):
        head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big")
        self.stream.sendall(head + payload)

    def frame(self):
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            more = self.stream.recv(65536)
            if not more:
                raise ConnectionResetError
            self.buffer += more
        end = 9 + int.from_bytes(self.buffer[:3], "big")
        frame, self.buffer = self.buffer[:end], self.buffer[end:]
        return frame[3], frame[4], int.from_bytes(frame[5:9], "big"), frame[9:]

    def get(self, path):
        """The status, once the answer is whole."""
        self.number += 2
        fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", NAME),
            (":path", path),
        ]
        status = None
        try:
            # END_STREAM and END_HEADERS.
            self.send(self.HEADERS, 5, self.number, self.encoder.encode(fields))
            while True:
                kind, flags, number, payload = self.frame()
                if kind == self.SETTINGS and not flags & 1:
                    self.send(self.SETTINGS, 1, 0, b"")
                elif kind == self.PING and not flags & 1:
                    self.send(self.PING, 1, 0, payload)
                elif kind == self.GOAWAY:
                    self.closes, self.last = True, int.from_bytes(payload[:4], "big")
                    if self.last < self.number:
                        raise Closed
                elif kind == self.RST_STREAM and number == self.number:
                    # REFUSED_STREAM: it was not acted upon.
                    raise Closed if payload == (7).to_bytes(4, "big") else Cut
                elif kind == self.HEADERS:
                    fields = dict(self.decoder.decode(payload))
                    status = int(fields.get(":status", status))
                if kind in (self.DATA, self.HEADERS) and flags & 1 and number == self.number:
                    return status
        except OSError:
            if self.last < self.number:
                raise Closed from None
            raise


def main():
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    clients = [Client(kind) for kind in sys.argv[1:]]
    for client in clients:
        client.start()
    # Bounded, whatever becomes of who started it.
    done.wait(300)
    done.set()
    total, longest = {}, {}
    for client in clients:
        client.join(PATIENCE + 5)
        total.setdefault(client.kind, Counter()).update(client.count)
        longest[client.kind] = max(longest.get(client.kind, 0), round(client.longest, 3))
    print(json.dumps({"count": total, "longest": longest}))


main()
