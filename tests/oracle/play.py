"""Requests to a gateway, written by hand: what is sent is what a case says."""

import http.client
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from backend import MARK

# A case sets shorter limits where it is about one.
TIMEOUT = 20


def exchange(port, asked, mark):
    """Sends one request; gives the status, headers and body of the answer, and how long it took."""
    host, slash, path = asked["to"].partition("/")
    method = asked.get("method", "GET")
    body = asked.get("body", "").encode() * asked.get("body_times", 1)
    headers = [("Host", host), (MARK, mark), *((name, value) for name, value in asked.get("headers", []))]
    if "backend" in asked:
        headers.append(("X-Backend", asked["backend"]))
    if body:
        headers.append(("Content-Length", str(len(body))))
    head = f"{method} {slash}{path} HTTP/{asked.get('http', '1.1')}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
    before = asked.get("before", "").encode().decode("unicode_escape").encode("latin-1")
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        try:
            connection.sendall(before + head.encode("latin-1") + body)
        except (BrokenPipeError, ConnectionResetError):
            # It may have answered already.
            pass
        response = http.client.HTTPResponse(connection, method=method)
        try:
            response.begin()
            got = {"status": response.status, "headers": [
                (name.lower(), value) for name, value in response.getheaders()], "body": response.read()}
        except http.client.IncompleteRead as error:
            got = {"status": response.status, "headers": [
                (name.lower(), value) for name, value in response.getheaders()],
                "body": error.partial + b" (cut off)"}
        except (http.client.HTTPException, OSError) as error:
            got = {"status": f"none, {type(error).__name__}", "headers": [], "body": b""}
    got["seconds"] = time.monotonic() - start
    return got


def play(peer, requests, prefix):
    """Plays the requests of a case in turn; gives the answers by mark."""
    answers = {}
    for place, asked in enumerate(requests, 1):
        # A case says what it waits for.
        time.sleep(asked.get("wait", 0))
        port = peer.ports[asked.get("port", "http")]
        marks = [f"{prefix}-{place}"]
        if (times := asked.get("times", asked.get("together", 1))) > 1:
            marks = [f"{prefix}-{place}.{turn}" for turn in range(1, times + 1)]
        with ThreadPoolExecutor(len(marks) if "together" in asked else 1) as pool:
            answers |= dict(zip(marks, pool.map(lambda mark: exchange(port, asked, mark), marks), strict=True))
    return answers
