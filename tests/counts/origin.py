"""The backend of the counts: one thread that answers each request with a body of the size in its path."""

import selectors
import socket
import sys


def answer(size):
    """An answer with a body of so many bytes, and the header fields that a web server sends."""
    head = (f"HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Mon, 02 Jun 2025 10:00:00 GMT\r\n"
            f"Content-Type: text/plain\r\nContent-Length: {size}\r\n\r\n")
    return head.encode() + b"x" * size


SMALL, LARGE = answer(1024), answer(100 << 10)


def main():
    """Listens on the port given until it is killed."""
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096)
    ready = selectors.EpollSelector()
    ready.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                ready.register(connection, selectors.EVENT_READ, bytearray())
                continue
            connection, head = key.fileobj, key.data
            try:
                got = connection.recv(65536)
                head += got
                if head.endswith(b"\r\n\r\n"):
                    connection.sendall(LARGE if head.startswith(b"GET /large") else SMALL)
                    head.clear()
            except OSError:
                got = b""
            if not got:
                ready.unregister(connection)
                connection.close()


if __name__ == "__main__":
    main()
