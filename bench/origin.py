"""The one backend behind every proxy: 1 KiB answers and 10 MiB files by nginx, the rest by readers here.

nginx answers `return 200` before a body has arrived and then reads the rest in vain, which some
proxies take as a reason to close. So uploads go to a reader that counts the body to its end. Another
one sends each WebSocket message back. Their own CPU time is never part of a figure.
"""

import base64
import hashlib
import socket
import sys
import threading

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def nginx_config(folder, port, unix):
    """The configuration of the nginx that answers; `folder` holds the file `10m`, `unix` is its socket."""
    return f"""
daemon off;
worker_processes 1;
pid {folder}/origin.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/origin-body;
    proxy_temp_path {folder}/origin-proxy;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        listen unix:{unix} backlog=4096;
        default_type text/plain;
        location / {{ return 200 "{'x' * 1024}"; }}
        location /download {{ alias {folder}/10m; }}
    }}
}}
"""


def head_and_rest(connection, buffer):
    """Reads to the blank line; gives the head and what came after it, or None at the end."""
    data = b""
    while b"\r\n\r\n" not in data:
        got = connection.recv_into(buffer)
        if not got:
            return None
        data += buffer[:got]
    head, _, rest = bytes(data).partition(b"\r\n\r\n")
    return head.lower(), rest


def serve(connection):
    """Answers every request on one connection after the last byte of its body."""
    buffer = memoryview(bytearray(1 << 18))
    with connection:
        while read := head_and_rest(connection, buffer):
            head, rest = read
            _, found, length = head.partition(b"\r\ncontent-length:")
            if found:
                left = int(length.split(b"\r\n", 1)[0]) - len(rest)
                while left > 0:
                    got = connection.recv_into(buffer)
                    if not got:
                        return
                    left -= got
            elif b"transfer-encoding:" in head:
                end = rest
                while not end.endswith(b"\r\n0\r\n\r\n") and end != b"0\r\n\r\n":
                    got = connection.recv_into(buffer)
                    if not got:
                        return
                    end = (end + bytes(buffer[:got]))[-7:]
            connection.sendall(ANSWER)


# RFC 6455, section 1.3.
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def exactly(connection, length):
    """So many bytes, or None at the end."""
    data = bytearray()
    while len(data) < length:
        got = connection.recv(length - len(data))
        if not got:
            return None
        data += got
    return data


def echo(connection):
    """Speaks WebSocket and sends the payload of each short message back."""
    with connection:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            got = connection.recv(65536)
            if not got:
                return
            head += got
        fields = (line.partition(b":") for line in head.split(b"\r\n"))
        key = next(value.strip() for name, _, value in fields
                   if name.lower() == b"sec-websocket-key")
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                           b"Connection: Upgrade\r\nSec-WebSocket-Accept: "
                           + base64.b64encode(hashlib.sha1(key + MAGIC).digest()) + b"\r\n\r\n")
        while frame := exactly(connection, 6):
            payload = exactly(connection, frame[1] & 0x7f)
            mask = (frame[2:6] * (len(payload) // 4 + 1))[:len(payload)]
            plain = int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")
            connection.sendall(bytes((frame[0], len(payload))) + plain.to_bytes(len(payload), "big"))


def main():
    """Listens on the port given until it is killed; `upload` or `echo` says what it does."""
    listener = socket.create_server(("127.0.0.1", int(sys.argv[2])), backlog=1024)
    answer = {"upload": serve, "echo": echo}[sys.argv[1]]
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
