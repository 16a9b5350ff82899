"""The dashboard in Chromium, driven by Playwright as a hand and an eye would.

`tests/stories/dashboard.rs` starts the gateway, its backends and this, and says by the environment
where they are. What is read here is what a person sees; nothing of the gateway is played. The tests
stand in the order of a day: all is well, there is traffic, a file is broken, the gateway is drained.

With SCREENSHOTS=FOLDER pictures are left there.
"""

import http.client
import os
import pathlib
import re
import socket
import threading
import time

import pytest
from playwright.sync_api import Page, expect, sync_playwright

ADMIN = os.environ["ADMIN"]
GATEWAY = os.environ["GATEWAY"]
ROUTES = pathlib.Path(os.environ["ROUTES"])
BACKEND = os.environ["BACKEND"]
DEAD = os.environ["DEAD"]
SECRET = os.environ["SECRET"]
SCREENSHOTS = os.environ.get("SCREENSHOTS")

# Long, for a machine that is busy; nothing here waits for as long as that and is right.
PATIENCE = 20_000
expect.set_options(timeout=PATIENCE)

BROWSER = [
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        # Chromium will not sandbox itself for root, which CI is.
        chromium = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=BROWSER, chromium_sandbox=False
        )
        yield chromium
        chromium.close()


@pytest.fixture
def looked(browser):
    """Opens the dashboard; what it asked for, and what it complained of, is judged at the end."""
    contexts = []
    asked, complaints, shown = [], [], []
    # Chromium complains of every answer that is no success; this one is no fault of the page.
    forgiven = ["422 (Unprocessable"]

    def look(**settings) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(f"{said.type}: {said.text}"))
        page.goto(ADMIN)
        shown.append(page)
        # Both readings are there: what changes every two seconds, and what does so now and then.
        expect(page.locator("#connections")).not_to_have_text("–")
        expect(page.locator("#summary")).not_to_be_empty()
        return page

    look.forgiven = forgiven
    yield look
    for page in shown:
        html = page.content()
        assert SECRET not in html
        assert page.evaluate("window.taken") is None, "something of a client's ran as a script"
        assert page.locator("img, iframe, object, body script, a[href]").count() == 0
    for context in contexts:
        context.close()
    assert asked
    outside = [url for url in asked if not url.startswith((f"{ADMIN}/", "data:"))]
    assert not outside, outside
    complaints = [one for one in complaints if not any(part in one for part in forgiven)]
    assert not complaints, complaints


def ask(target, host="shop.test", **headers):
    connection = http.client.HTTPConnection(GATEWAY, timeout=20)
    connection.request("GET", target, headers={"Host": host, **headers})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def raw(head):
    """A request byte for byte, however wrong."""
    host, port = GATEWAY.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=20) as wire:
        wire.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        return int(wire.recv(4096).split(b" ")[1])


class Traffic:
    """Requests as they come all day: most are answered well, some are not."""

    def __init__(self):
        self._over = threading.Event()
        self._turn = threading.Lock()
        self._failed = []
        self._thread = threading.Thread(target=self._go)
        self._thread.start()

    def _go(self):
        number = 0
        while not self._over.wait(0.1):
            number += 1
            try:
                with self._turn:
                    self._some(number)
            except Exception as error:  # Told by `stop`, where a test can fail.
                self._failed.append(repr(error))
                return

    @staticmethod
    def _some(number):
        assert ask(f"/api/item?number={number}") == 200
        if number % 4 == 0:
            assert ask("/api/broken") == 500
            assert ask("/old") == 302
            assert ask("/", host="dead.test") == 503

    def pause(self):
        """Nothing is asked in a `with` of it."""
        return self._turn

    def stop(self):
        self._over.set()
        self._thread.join()
        assert not self._failed, self._failed


@pytest.fixture(scope="module")
def traffic():
    begun = Traffic()
    yield begun
    begun.stop()


def row(page: Page, table: str, *parts: str):
    rows = page.locator(f"#{table} tbody tr")
    for part in parts:
        rows = rows.filter(has_text=part)
    return rows.first


def route(page: Page, host: str, match: str):
    """A row of the routes, on the first of their listeners."""
    rows = page.locator("#routes tbody tr")
    for cell in (host, match):
        rows = rows.filter(has=page.get_by_text(cell, exact=True))
    return rows.first


def picture(page: Page, name: str):
    if SCREENSHOTS:
        page.screenshot(path=f"{SCREENSHOTS}/{name}.png", full_page=True)
        size = page.viewport_size
        for part in range(3 if size["width"] < 500 else 0):
            clip = {"x": 0, "y": part * 1400, "width": size["width"], "height": 1400}
            page.screenshot(path=f"{SCREENSHOTS}/{name}-{part}.png", full_page=True, clip=clip)


def test_a_glance_says_that_all_is_well(looked):
    page = looked()
    health = page.locator("#health")
    expect(health).to_have_text("healthy")
    expect(health).to_have_class("badge good")
    expect(page.locator("#trouble")).to_be_hidden()
    expect(page.locator("#summary")).to_contain_text("on 3 listeners")
    expect(page.locator("#live")).to_contain_text("none since this page is open")


def test_listeners_certificates_and_the_first_load_are_there(looked):
    page = looked()
    expect(row(page, "listeners", "envoy-gateway-system/eg/http", "*:8080")).to_contain_text("http")
    expect(row(page, "listeners", "envoy-gateway-system/eg/https")).to_contain_text("*:8443")
    certificate = row(page, "certificates", "shop.test")
    expect(certificate.locator(".badge")).to_have_text("good")
    days = certificate.locator("td.n").inner_text()
    assert days == page.locator("#days").inner_text()
    assert int(days.replace(",", "")) > 20
    expect(row(page, "reloads", "start")).to_contain_text("loaded")


def test_a_route_has_its_figures_while_there_is_traffic(looked, traffic):
    page = looked()
    api = route(page, "shop.test", "prefix /api")
    expect(api).to_contain_text("set request header authorization")
    expect(api.locator("td").nth(3)).to_have_text("api")
    hits, errors, p50, p99 = (api.locator(f'td[data-name="{name}"]') for name in ("hits", "errors", "p50", "p99"))
    expect(hits).to_have_text(re.compile(r"^[1-9][\d,]*$"))
    # One of five is an error.
    expect(errors.locator(".badge.bad")).to_have_text(re.compile(r"^(1[0-9]|2[0-9])(\.\d)? %$"))
    for time_taken in (p50, p99):
        expect(time_taken).to_have_text(re.compile(r"^\d+(\.\d)? ms$"))
    line = api.locator("svg.spark")
    expect(line).to_have_attribute("aria-label", re.compile(r"^[1-9][\d.]* requests a second"))
    heights = {point.split(",")[1] for point in line.locator("polyline").get_attribute("points").split()}
    assert all(0 <= float(height) <= 20 for height in heights)
    # On two listeners, and counted once.
    again = page.locator("#routes tbody tr").filter(has=page.get_by_text("prefix /api", exact=True))
    expect(again).to_have_count(2)
    expect(again.nth(1).locator('td[data-name="hits"]')).to_have_text("″")
    expect(again.locator("svg.spark")).to_have_count(1)
    old = route(page, "shop.test", "exact /old")
    expect(old).to_contain_text("redirect 302")
    expect(old.locator("td.n").first).to_have_text(re.compile(r"^[1-9]"))

    before = int(hits.inner_text().replace(",", ""))
    expect(hits).not_to_have_text(f"{before:,}")
    assert int(hits.inner_text().replace(",", "")) > before
    for figure in ("rate", "errors"):
        expect(page.locator(f"#{figure}")).to_have_text(re.compile(r"^[1-9]|^0\.[1-9]"))
    expect(page.locator("#p99")).to_contain_text("ms")


def test_routes_are_found_by_what_is_typed(looked):
    page = looked()
    expect(route(page, "shop.test", "prefix /api")).to_be_visible()
    page.get_by_label("Filter routes").fill("/old")
    expect(route(page, "shop.test", "exact /old")).to_be_visible()
    expect(page.locator("#routes")).not_to_contain_text("prefix /api")
    page.get_by_label("Filter routes").fill("no such thing")
    expect(page.locator("#routes")).to_contain_text("no route has that in it")


def test_a_backend_that_is_dead_shows_as_such(looked, traffic):
    page = looked()
    expect(row(page, "clusters", BACKEND).locator(".badge")).to_have_text("healthy")
    dead = row(page, "clusters", DEAD).locator(".badge")
    expect(dead).to_have_text("unreachable")
    expect(dead).to_have_class("badge bad")
    expect(page.locator("#trouble-list")).to_contain_text(f"no endpoint can be reached: {DEAD}")
    expect(page.locator("#health")).to_have_text("1 problem")
    expect(route(page, "dead.test", "prefix /").locator(".badge.bad")).to_have_text("100 %")


def test_requests_are_seen_as_they_come_and_found_by_what_is_typed(looked, traffic):
    page = looked()
    assert ask("/api/just-now") == 200
    seen = row(page, "live", "/api/just-now")
    expect(seen).to_contain_text("GET shop.test/api/just-now")
    expect(seen).to_contain_text(BACKEND)
    expect(seen.locator(".badge.good")).to_have_text("200")
    expect(row(page, "live", "dead.test").locator(".badge.bad")).to_have_text("503")

    found = page.get_by_label("Filter requests")
    found.fill("just-now")
    expect(page.locator("#live tbody tr")).to_have_count(1)
    found.fill("503")
    expect(row(page, "live", "dead.test")).to_be_visible()
    expect(page.locator("#live")).not_to_contain_text("just-now")
    found.fill("")

    def another_look():
        page.wait_for_event("response", lambda answer: "/stats" in answer.url)

    # Nothing moves under the eye of somebody who reads.
    with traffic.pause():
        page.get_by_label("follow").uncheck()
        # Whatever was on its way is there then.
        another_look()
        assert ask("/api/while-away") == 200
        another_look()
        another_look()
        expect(page.locator("#live")).not_to_contain_text("while-away")
        page.get_by_label("follow").check()
        expect(row(page, "live", "/api/while-away")).to_be_visible()

        # More than are kept: it is told that some are not there.
        page.get_by_label("follow").uncheck()
        another_look()
        for _ in range(300):
            ask("/old")
        page.get_by_label("follow").check()
        # One or the other is left out whenever two ask at the same moment; these are more.
        expect(page.locator("#live-note")).to_have_text(re.compile(r"^\d{2,} left out"))


def test_what_is_no_http_is_shown_by_its_connections(looked):
    page = looked()
    plain = route(page, "any", "every connection")
    expect(plain).to_contain_text("tcp-0")
    host, port = os.environ["TCP"].rsplit(":", 1)
    for number in range(3):
        with socket.create_connection((host, int(port)), timeout=20) as wire:
            wire.sendall(b"ping")
            wire.shutdown(socket.SHUT_WR)
            heard = b"".join(iter(lambda: wire.recv(4096), b""))
            assert heard == b"hello from tcp\npingbye\n", heard
    expect(plain.locator('td[data-name="hits"]')).to_have_text("3")
    expect(plain.locator('td[data-name="errors"]')).to_have_text("0 %")
    page.reload()
    expect(row(page, "clusters", "envoy-gateway-system/tcp-0").locator("td").nth(1)).to_have_text("tcp")
    ended = row(page, "live", "TCP envoy-gateway-system/eg/tcp")
    expect(ended).to_contain_text("4 bytes up, 23 down")
    expect(ended.locator(".badge.good")).to_have_text("ended")


HOSTILE = "<img/src=x/onerror=window.taken=1>"


def test_what_a_client_sends_is_text_and_never_markup(looked):
    page = looked()
    script = "<script>window.taken=1</script>"
    raw(f"GET /api/{HOSTILE}{script} HTTP/1.1\nHost: shop.test\nUser-Agent: {script}")
    raw(f"GET /api/host HTTP/1.1\nHost: {HOSTILE}")
    raw(f'GET /api/"onmouseover="window.taken=1 HTTP/1.1\nHost: shop.test')
    raw(f"{script} / HTTP/1.1\nHost: shop.test")
    assert ask("/api/last-of-them", **{"User-Agent": f'"><svg onload=window.taken=1>{HOSTILE}'}) == 200
    seen = row(page, "live", "/api/last-of-them")
    seen.hover()
    assert "onload=window.taken=1" in seen.locator(".mono").first.get_attribute("title")
    told = page.locator("#live").inner_text()
    assert "onerror=window.taken=1" in told, told


def test_a_request_is_explained_without_being_sent(looked):
    page = looked()
    looked.forgiven.append("400 (Bad Request)")
    url = page.get_by_label("URL")

    def explained(text, method="GET", header=""):
        page.get_by_label("Method").select_option(method)
        page.get_by_role("textbox", name="Header").fill(header)
        url.fill(text)
        with page.expect_response(lambda answer: "/explain" in answer.url):
            page.get_by_role("button", name="Explain").click()

    told = page.locator("#explained")
    explained("http://shop.test:8080/api/x?y=1", "POST", "X-Any: thing")
    expect(told).to_contain_text("httproute/envoy-gateway-system/api/rule/0")
    expect(told).to_contain_text("prefix /api")
    expect(told).to_contain_text("set request header authorization")
    expect(told).to_contain_text(BACKEND)
    expect(told).to_contain_text("POST /api/x?y=1")
    expect(told.locator("dt", has_text="lost")).to_be_visible()
    expect(told).to_contain_text("httproute/envoy-gateway-system/api/rule/2")

    explained("http://shop.test:8080/old")
    expect(told).to_contain_text("302")
    explained("http://nobody.test:8080/")
    expect(told).to_contain_text("404")
    explained("this is no address")
    expect(told.locator("dd.bad")).to_be_visible()
    explained(f"http://shop.test:8080/api/{HOSTILE}")
    expect(told).to_contain_text("onerror=window.taken=1")
    explained("http://quiet.test:8080/")
    expect(told).to_contain_text("httproute/envoy-gateway-system/quiet/rule/0")
    page.reload()
    expect(route(page, "quiet.test", "prefix /").locator('td[data-name="hits"]')).to_have_text("0")


BROKEN = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: broken
  namespace: envoy-gateway-system
spec:
  parentRefs: [{name: eg}]
  rules:
    - matches: [{path: {type: Prefix, value: /b}}]
"""


def test_a_broken_file_is_refused_and_told_with_its_line(looked):
    page = looked()
    broken = ROUTES / "broken.yaml"
    reload = page.get_by_role("button", name="Reload")
    broken.write_text(BROKEN.replace("[{name: eg}]", "eg"))
    reload.click()
    expect(page.get_by_role("alert")).to_contain_text("still serving the previous configuration")
    expect(page.locator("#health")).to_have_text("files refused")
    trouble = page.locator("#trouble-list li")
    expect(trouble.filter(has_text="broken.yaml:7:")).to_contain_text("parentRefs")
    expect(row(page, "reloads", "refused").locator(".badge.bad")).to_be_visible()
    picture(page, "refused")

    # A fault of one object is its condition, and the others are loaded.
    broken.write_text(BROKEN)
    reload.click()
    expect(page.get_by_role("alert")).to_contain_text("Loaded as generation 2")
    expect(page.locator("#health")).to_have_class("badge bad")
    expect(trouble.filter(has_text="broken.yaml:9:")).to_contain_text("PathPrefix")

    # A reference that leads nowhere, too.
    broken.write_text(BROKEN.replace("type: Prefix,", "type: PathPrefix,") + "      backendRefs: [{name: nowhere, port: 80}]\n")
    reload.click()
    expect(page.get_by_role("alert")).to_contain_text("Loaded as generation 3")
    expect(trouble.filter(has_text="broken.yaml:10:")).to_contain_text("nowhere")
    expect(route(page, "any host", "prefix /b")).to_contain_text("nothing (500)")

    broken.unlink()
    reload.click()
    expect(page.get_by_role("alert")).to_contain_text("Loaded as generation 4")
    expect(page.locator("#trouble-list")).not_to_contain_text("broken.yaml")
    expect(page.locator("#reloads tbody tr")).to_have_count(5)


def luminance(colour: str) -> float:
    """Of `rgb(1, 2, 3)`, as WCAG has it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


CONTRASTS = """() => [...document.querySelectorAll("h1, h2, th, td, .badge, button, figure, p, li, dt, dd, b, span, input")]
  .filter((one) => one.offsetParent && one.innerText?.trim()).map((one) => {
    let back = one;
    while (back && getComputedStyle(back).backgroundColor === "rgba(0, 0, 0, 0)") back = back.parentElement;
    return [one.innerText.slice(0, 40), getComputedStyle(one).color, getComputedStyle(back ?? document.body).backgroundColor];
  })"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_by_day_and_by_night(looked, traffic, scheme):
    page = looked(color_scheme=scheme)
    expect(route(page, "shop.test", "prefix /api").locator('td[data-name="p99"]')).to_contain_text("ms")
    expect(row(page, "live", "shop.test")).to_be_visible()
    page_back = luminance(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert page_back > 0.8 if scheme == "light" else page_back < 0.05
    faint = []
    for text, ink, back in page.evaluate(CONTRASTS):
        light, dark = sorted((luminance(ink), luminance(back)), reverse=True)
        # WCAG 2.2, 1.4.3: 4.5 to 1.
        if (light + 0.05) / (dark + 0.05) < 4.5:
            faint.append((text, ink, back))
    assert not faint, faint
    picture(page, scheme)


# What sticks out of a page of this width, and does not scroll by itself.
BEYOND = """(width) => [...document.querySelectorAll("body *")]
  .filter((one) => one.getBoundingClientRect().right > width && !one.closest(".scroll"))
  .map((one) => `${one.tagName} ${one.id} ${one.getBoundingClientRect().right}`)"""


@pytest.mark.parametrize("width", [320, 390])
def test_it_fits_a_phone(looked, traffic, width):
    page = looked(viewport={"width": width, "height": 844}, is_mobile=True, has_touch=True, device_scale_factor=2)
    expect(row(page, "live", "shop.test")).to_be_visible()
    expect(route(page, "shop.test", "prefix /api").locator('td[data-name="p99"]')).to_contain_text("ms")
    page.get_by_label("URL").fill(f"http://shop.test:8080/api/{'long-' * 40}")
    page.get_by_role("button", name="Explain").tap()
    expect(page.locator("#explained")).to_contain_text("rule/0")
    wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth, innerWidth]")
    assert wide == [width] * 3, (wide, page.evaluate(BEYOND, width))
    hidden = page.evaluate("""() => [...document.querySelectorAll(".scroll")]
      .filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.firstChild.id)""")
    assert not hidden, f"a part of {hidden} is out of sight"
    # What can be touched is large enough for a finger.
    for button in page.get_by_role("button").all():
        box = button.bounding_box()
        assert box["height"] >= 32 and box["x"] >= 0 and box["x"] + box["width"] <= width, box
    picture(page, f"phone-{width}")


def test_a_drain_is_asked_about_before_it_begins(looked, traffic):
    traffic.stop()
    page = looked()
    # It is told that the gateway drains, and then nobody answers any more.
    looked.forgiven += ["503 (Service Unavailable)", "net::ERR_"]
    asked = []
    answers = iter(["dismiss", "accept"])

    def answer(dialog):
        asked.append(dialog.message)
        dialog.accept() if next(answers) == "accept" else dialog.dismiss()

    posts = []
    page.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
    page.on("dialog", answer)
    drain = page.get_by_role("button", name="Drain")
    drain.click()
    assert len(asked) == 1 and "no more connections" in asked[0], asked
    assert not posts
    assert ask("/api/still-there") == 200

    drain.click()
    expect(page.get_by_role("alert")).to_contain_text("Draining")
    assert posts == [f"{ADMIN}/drain_listeners"], posts
