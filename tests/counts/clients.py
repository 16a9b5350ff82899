"""Clients that send an exact number of requests, and know each answer: HTTP/1.1 and HTTP/2."""

import socket
import ssl

HOST = "counts.test"
PATIENCE = 120

class Failed(Exception):
    """An answer that is not the expected one: the counts mean nothing."""


def connect(port, protocol):
    """A connection with TLS that speaks `protocol`, or one in clear if there is none."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if protocol is None:
        return plain
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([protocol])
    secure = context.wrap_socket(plain, server_hostname=HOST)
    if secure.selected_alpn_protocol() != protocol:
        raise Failed(f"expected {protocol}, found {secure.selected_alpn_protocol()}")
    return secure


class Http1:
    """A connection of HTTP/1.1: one request, then its answer."""

    def __init__(self, scenario, port):
        self.scenario = scenario
        self.connection = connect(port, "http/1.1" if scenario.secure else None)
        fields = "".join(f"{name}: {value}\r\n" for name, value in scenario.fields)
        self.request = f"GET {scenario.path} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n".encode()

    def ask(self):
        """Sends the requests of one round."""
        self.connection.sendall(self.request)

    def take(self):
        """Reads their answers."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.receive()
        head, _, body = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 %d " % self.scenario.status):
            raise Failed(f"expected status {self.scenario.status}, found {head[:100]}")
        _, found, length = head.lower().partition(b"\r\ncontent-length: ")
        left = int(length.split(b"\r\n")[0]) - len(body) if found else 0
        while left > 0:
            left -= len(self.receive())

    def receive(self):
        """The next bytes."""
        data = self.connection.recv(65536)
        if not data:
            raise Failed("the gateway closed the connection")
        return data

    def close(self):
        """Closes the connection."""
        self.connection.close()


# Frame types and flags of RFC 9113.
DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
ACK = END_STREAM = 1
END_HEADERS = 4
# The indexes of RFC 7541, appendix A, that begin an answer's block of fields.
STATUSES = {200: 8, 400: 12, 404: 13}


def frame(kind, flags, stream, payload=b""):
    """A frame of HTTP/2."""
    return (len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
            + payload)


def word(text):
    """A string literal of HPACK, without Huffman's code."""
    data = text.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    if len(data) < 127 + 128:
        return bytes([127, len(data) - 127]) + data
    raise ValueError(f"too long for this client: {text}")


class Http2:
    """A connection of HTTP/2: as many streams as the scenario has, then their answers."""

    def __init__(self, scenario, port):
        self.scenario = scenario
        self.connection = connect(port, "h2")
        self.buffer = bytearray()
        self.stream = 1
        # `:method: GET`, `:scheme: https`, `:path` without indexing; the others enter the dynamic
        # table with the first request, and later ones refer to it, newest first.
        start = b"\x82\x87\x04" + word(scenario.path)
        fields = ((":authority", HOST), *scenario.fields)
        self.block = start + b"".join(b"\x40" + word(name) + word(value) for name, value in fields)
        self.again = start + bytes(0x80 | 62 + place for place in reversed(range(len(fields))))
        # Room for all bodies there will be.
        settings = b"\x00\x02\x00\x00\x00\x00" + b"\x00\x04\x40\x00\x00\x00"
        self.connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings)
                                + frame(WINDOW_UPDATE, 0, 0, (0x7000_0000).to_bytes(4, "big")))

    def ask(self):
        """Sends the requests of one round, all in one write."""
        requests = []
        for _ in range(self.scenario.streams):
            requests.append(frame(HEADERS, END_HEADERS | END_STREAM, self.stream, self.block))
            self.block = self.again
            self.stream += 2
        self.connection.sendall(b"".join(requests))

    def take(self):
        """Reads their answers."""
        open_streams = self.scenario.streams
        while open_streams:
            kind, flags, stream, payload = self.receive()
            if kind == SETTINGS and not flags & ACK:
                self.connection.sendall(frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                self.connection.sendall(frame(PING, ACK, 0, payload))
            elif kind == HEADERS:
                self.check(payload)
            elif kind not in (DATA, SETTINGS, PING, WINDOW_UPDATE):
                raise Failed(f"a frame of type {kind}: {bytes(payload)}")
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                open_streams -= 1

    def check(self, block):
        """The status of an answer."""
        index = STATUSES.get(self.scenario.status)
        # A change of the dynamic table's size may come first (RFC 7541, section 6.3).
        first = next(byte for byte in block if byte & 0xe0 != 0x20)
        if index and first != 0x80 | index:
            raise Failed(f"expected status {self.scenario.status}, found {bytes(block)}")

    def receive(self):
        """The next frame: its type, its flags, its stream and its payload."""
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            data = self.connection.recv(65536)
            if not data:
                raise Failed("the gateway closed the connection")
            self.buffer += data
        end = 9 + int.from_bytes(self.buffer[:3], "big")
        whole = bytes(self.buffer[:end])
        del self.buffer[:end]
        return whole[3], whole[4], int.from_bytes(whole[5:9], "big") & 0x7fff_ffff, whole[9:]

    def close(self):
        """Closes the connection."""
        self.connection.close()
