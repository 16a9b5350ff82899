"""What the benchmark and `tests/counts` need of a host: ports, a certificate, processes that listen,
and the header fields of a browser."""

import socket
import subprocess
import time

# What a browser sends with a navigation, beside `Host`.
BROWSER = (
    ("sec-ch-ua", '"Chromium";v="136", "Google Chrome";v="136", "Not.A/Brand";v="99"'),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", '"Linux"'),
    ("upgrade-insecure-requests", "1"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
                   "Chrome/136.0.0.0 Safari/537.36"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "document"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
    ("cookie", "session=4f6d0a8e2b7c41d39a5e; csrftoken=Zq8vN2pLxT0aWm3r; theme=dark"),
)


def free_port():
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def certify(folder, host):
    """One self-signed ECDSA P-256 certificate for `host`, laid out in `folder` as certbot does."""
    archive, live = folder / "archive" / host, folder / "live" / host
    archive.mkdir(parents=True)
    live.mkdir(parents=True)
    subprocess.run([
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
        "-nodes", "-days", "30", "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}",
        "-keyout", archive / "privkey1.pem", "-out", archive / "fullchain1.pem",
    ], check=True, capture_output=True)
    for part in ("fullchain", "privkey"):
        (live / f"{part}.pem").symlink_to(f"../../archive/{host}/{part}1.pem")


def listens(process, port, patience):
    """Waits until a process takes connections on a port; false if it ends, or after `patience`
    seconds."""
    end = time.monotonic() + patience
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False
