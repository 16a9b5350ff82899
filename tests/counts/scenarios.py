"""The kinds of requests that are counted."""

from dataclasses import dataclass

from clients import Http1, Http2
from testbed import BROWSER


@dataclass(frozen=True)
class Scenario:
    """One kind of request. It is sent in rounds: on all connections and streams, then all answers."""

    name: str
    says: str
    client: type
    connections: int
    # Rounds before anything is counted, and rounds that are counted.
    warm: int
    rounds: int
    streams: int = 1
    path: str = "/app-5/"
    status: int = 200
    # Over TLS, or in clear.
    secure: bool = True
    # Of the request, beside the host.
    fields: tuple = ()

    @property
    def requests(self):
        """In one round."""
        return self.connections * self.streams


FEW = {"connections": 16, "warm": 40, "rounds": 60}
MANY = {"connections": 16, "warm": 3, "rounds": 4, "streams": 32}

# Those that open many connections to the backend are the last: the pool closes what it does not need
# any more while the next scenario runs.
SCENARIOS = (
    Scenario("h1", "HTTP/1.1, TLS, forwarded, 1 KiB", Http1, **FEW),
    Scenario("h1-browser", "the same with a browser's 13 header fields", Http1, **FEW, fields=BROWSER),
    Scenario("h1-100k", "HTTP/1.1, TLS, forwarded, 100 KiB", Http1, 8, 10, 20, path="/large"),
    Scenario("h1-refused", "HTTP/1.1, TLS, no route: 404", Http1, **FEW, path="/", status=404),
    Scenario("redirect", "HTTP/1.1 in clear, redirected: 301", Http1, **FEW, status=301, secure=False),
    Scenario("h2-one-stream", "HTTP/2, TLS, one stream at once, forwarded, 1 KiB", Http2, **FEW),
    Scenario("h2-redirect", "HTTP/2, TLS, 32 streams at once, redirected: 301", Http2, **MANY,
             path="/redirected", status=301),
    Scenario("h2-refused", "HTTP/2, TLS, 32 streams at once, no route: 404", Http2, **MANY, path="/",
             status=404),
    Scenario("h2", "HTTP/2, TLS, 32 streams at once, forwarded, 1 KiB", Http2, **MANY),
    Scenario("h2-browser", "32 streams at once, a browser's 13 header fields", Http2, **MANY,
             fields=BROWSER),
)
