"""A load of new TLS connections: a full handshake each, one request, and the end.

h2load resumes the session when it connects again, which spares the server its signature; so this
load is made here.
"""

import multiprocessing
import socket
import ssl
import time


def send(requests, workers, host, port, path):
    """Sends `requests` from `workers` processes; gives (seconds they took, cipher).

    An answer other than 200 or a session that was resumed is an error.
    """
    share = [(host, port, path, requests // workers)] * workers
    # Forked, since the proxies' process times are read while nothing else is started.
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        began = time.monotonic()
        ciphers = pool.starmap(connect, share)
        return time.monotonic() - began, ciphers[0]


def connect(host, port, path, count):
    """One connection after the other; gives the cipher of the last."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    cipher = ""
    for _ in range(count):
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(plain, server_hostname=host) as connection:
            connection.sendall(request)
            answer = b""
            while part := connection.recv(65536):
                answer += part
            if not answer.startswith(b"HTTP/1.1 200"):
                raise ValueError(f"port {port} answered {answer[:200]}")
            if connection.session_reused:
                raise ValueError(f"port {port} resumed a session that was not offered")
            cipher = connection.cipher()[0]
    return cipher
