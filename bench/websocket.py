"""A load of WebSocket messages over TLS: each is sent, comes back, and the next one follows."""

import multiprocessing
import socket
import ssl
import time

# A text message of 64 bytes, masked with zeros: the proxy does not care, and sees the same bytes.
MESSAGE = bytes((0x81, 0x80 | 64, 0, 0, 0, 0)) + b"m" * 64
ANSWER = bytes((0x81, 64)) + b"m" * 64


def send(messages, workers, host, port, path):
    """Sends `messages` messages over `workers` connections; gives (seconds they took, cipher)."""
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        took = pool.starmap(converse, [(host, port, path, messages // workers)] * workers)
        return max(seconds for seconds, _ in took), took[0][1]


def converse(host, port, path, count):
    """The messages of one connection; gives (seconds they took, cipher)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with context.wrap_socket(plain, server_hostname=host) as connection:
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            part = connection.recv(1)
            if not part:
                raise ValueError(f"port {port} closed a WebSocket: {head[:200]}")
            head += part
        if not head.startswith(b"HTTP/1.1 101 "):
            raise ValueError(f"port {port} gave no WebSocket: {head[:200]}")
        began = time.monotonic()
        for _ in range(count):
            connection.sendall(MESSAGE)
            answer = b""
            while len(answer) < len(ANSWER):
                part = connection.recv(4096)
                if not part:
                    raise ValueError(f"port {port} closed a WebSocket")
                answer += part
            if answer != ANSWER:
                raise ValueError(f"port {port} changed a message: {answer}")
        return time.monotonic() - began, connection.cipher()[0]
