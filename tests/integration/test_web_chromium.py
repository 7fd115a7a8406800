"""The status page in a real Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.browser import Browser, Page
from support.webface import WebFace


pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

#: A VM's name, as somebody may choose it who means no good.
MARKUP = "<img src=x onerror=alert(1)><b>bold</b>"

ROWS = "document.getElementById('event-rows').rows"
CONNECTED = "document.getElementById('connection').dataset.state === 'connected'"

#: The positions of the events that are shown, the newest first; null for a gap.
SHOWN = f"""[...{ROWS}].map((row) => row.className === 'gap' ? null
    : JSON.parse(row.querySelector('pre').textContent).seq)"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """One browser for all tests, without the pages of the one before."""
    yield chromium
    chromium.close_pages()


@pytest.fixture
def face() -> Iterator[WebFace]:
    with WebFace("--vm", "vm1", "--vm", MARKUP, "--last", "40") as face:
        yield face


def opened(browser: Browser, face: WebFace, **options: Any) -> Page:
    page = browser.open(face.url, **options)
    page.wait_for(CONNECTED)
    return page


def assert_well(page: Page) -> None:
    assert page.problems == []
    assert page.violations == []


def test_live_rows_appear(browser: Browser, face: WebFace) -> None:
    page = opened(browser, face)
    page.wait_for(SHOWN, lambda shown: shown == list(range(40, 0, -1)))
    face.happen(3)
    page.wait_for(SHOWN, lambda shown: shown == list(range(43, 0, -1)))
    for _ in range(5):
        face.happen(2)
    page.wait_for(SHOWN, lambda shown: shown == list(range(53, 0, -1)))
    assert page.text("#event-rows td:nth-child(3)") == "STOP"
    assert page.text("h1") == "qmp-monitor on node7.example"
    assert page.text("#vms-words") == "2 of 2 up"
    assert page.text("#sink-rows td") == "file"
    assert page.text("#spool-size") == "1.0 MiB of 256 MiB"
    # The rate is drawn when the first interval is over.
    page.wait_for("document.querySelectorAll('#chart polyline').length === 1")
    assert "peak" in page.text("#rate-words")
    assert_well(page)


def test_markup_in_a_name_stays_text(browser: Browser, face: WebFace) -> None:
    page = opened(browser, face)
    page.wait_for(f"{ROWS}.length === 40")
    names = page.evaluate(
        "[...document.querySelectorAll('#vm-rows td:first-child')].map((td) => td.textContent)"
    )
    assert sorted(names) == sorted([MARKUP, "vm1"])
    named = f"[...{ROWS}].filter((row) => row.cells[1].textContent === {json.dumps(MARKUP)})"
    assert page.evaluate(f"{named}.length") == 20
    assert page.evaluate("document.querySelectorAll('img, b, iframe, object').length") == 0
    page.evaluate("document.getElementById('filter').value = '<B>'")
    page.evaluate("document.getElementById('filter').dispatchEvent(new Event('input'))")
    assert page.evaluate("document.getElementById('vm-rows').rows.length") == 1
    assert page.evaluate(f"[...{ROWS}].filter((row) => !row.hidden).length") == 20
    assert_well(page)


def test_nothing_but_our_own_script_runs(browser: Browser, face: WebFace) -> None:
    page = opened(browser, face)
    page.evaluate("""(() => {
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
        const image = document.createElement("img");
        image.src = "http://127.0.0.1:9/picture.png";
        document.body.append(image);
    })()""")
    page.wait_for("window.violations.length >= 2")
    assert sorted(page.violations) == ["img-src", "script-src-elem"]
    assert page.evaluate("window.ran") is None
    refused = page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'came', () => 'refused')")
    assert refused == "refused"
    assert "connect-src" in page.violations


def test_another_site_cannot_read_it(browser: Browser, face: WebFace) -> None:
    """A page from elsewhere that opens ours gets nothing, by any of the ways that browsers have."""
    page = browser.open("data:text/html,<p>elsewhere</p>")
    reading = f"fetch('{face.url}api/v1/status').then((a) => a.text(), () => 'refused')"
    assert page.evaluate(reading) == "refused"
    page.evaluate(
        f"(() => {{ const s = new EventSource('{face.url}events?after=0');"
        " window.heard = 0; s.onmessage = () => { window.heard += 1; };"
        " s.onerror = () => { window.refused = true; }; })()"
    )
    page.wait_for("window.refused")
    assert page.evaluate("window.heard") == 0
    page.evaluate(
        f"(() => {{ const f = document.createElement('iframe'); f.src = '{face.url}';"
        " f.onload = () => { window.framed = true; }; document.body.append(f); })()"
    )
    page.wait_for("window.framed")
    (frame,) = browser.frames()
    frame.wait_for("location.href === 'chrome-error://chromewebdata/'")


def test_it_comes_back_after_a_restart(browser: Browser) -> None:
    with WebFace("--last", "40") as face:
        page = opened(browser, face)
        page.wait_for(f"{ROWS}.length === 40")
        face.happen(5)
        page.wait_for(SHOWN, lambda shown: shown == list(range(45, 0, -1)))
        assert_well(page)
        assert face.stop() < 5
        page.wait_for(f"!({CONNECTED})")
        assert "not connected" in page.text("#connection")
        assert page.evaluate("document.title").startswith("(not connected)")
        port = face.port
    with WebFace("--last", "50", port=port) as face:
        page.wait_for(CONNECTED)
        face.happen(1)
        # What happened meanwhile is there too, and nothing twice.
        page.wait_for(SHOWN, lambda shown: shown == list(range(51, 0, -1)))
        assert page.evaluate("document.title") == "qmp-monitor"
    # What the browser itself says of the attempts in between is all that is in the console.
    assert all(each.startswith("network: ") for each in page.problems)
    assert page.violations == []


def test_another_spool_after_a_restart(browser: Browser) -> None:
    with WebFace("--last", "40") as face:
        page = opened(browser, face)
        page.wait_for(f"{ROWS}.length === 40")
        face.stop()
        page.wait_for(f"!({CONNECTED})")
        port = face.port
    with WebFace("--identity", "feed-2", "--last", "60", port=port):
        page.wait_for(SHOWN, lambda shown: shown[:60] == list(range(60, 0, -1)))
        assert page.evaluate(SHOWN)[60:] == [None, *range(40, 0, -1)]
        assert "another spool" in page.evaluate(f"{ROWS}[60].textContent")


def test_away_for_too_long(browser: Browser) -> None:
    with WebFace("--last", "5") as face:
        page = opened(browser, face)
        page.wait_for(f"{ROWS}.length === 5")
        face.stop()
        page.wait_for(f"!({CONNECTED})")
        port = face.port
    with WebFace("--last", "9000", port=port) as face:
        page.wait_for(SHOWN, lambda shown: shown[:1] == [9000])
        face.happen(1)
        page.wait_for(SHOWN, lambda shown: shown == list(range(9001, 8801, -1)))


def test_the_page_stays_small(browser: Browser) -> None:
    with WebFace("--vm=vm1", "--size=1000") as face:
        page = opened(browser, face)
        for number in range(1, 31):
            face.happen(200)
            page.wait_for(SHOWN, lambda shown, most=number * 200: shown[:1] == [most])
            if number == 10:
                heap, nodes = page.memory()
        assert page.evaluate(f"{ROWS}.length") == 200
        heap_after, nodes_after = page.memory()
        assert heap_after < heap + 2_000_000
        assert nodes_after < nodes + 500
        assert_well(page)


def test_a_flood(browser: Browser) -> None:
    """2,000 events a second: the page keeps up, or says what it left out."""
    with WebFace("--vm=vm1", "--size=300", "--rate=2000") as face:
        page = opened(browser, face)
        page.wait_for(SHOWN, lambda shown: bool(shown) and (shown[0] or 0) > 8000)
        assert page.evaluate(f"{ROWS}.length") == 200
        assert_well(page)


def test_a_held_list_stays_small(browser: Browser, face: WebFace) -> None:
    page = opened(browser, face)
    page.wait_for(f"{ROWS}.length === 40")
    page.evaluate("document.getElementById('pause').click()")
    for count in range(300, 3001, 300):
        face.happen(300)
        page.wait_for(
            "document.getElementById('events-words').textContent",
            lambda words, count=count: words == f"paused; {count:,} more have come",
        )
    assert page.evaluate(f"{ROWS}.length") == 40
    page.evaluate("document.getElementById('pause').click()")
    page.wait_for(SHOWN, lambda shown: shown == list(range(3040, 2840, -1)))
    assert_well(page)


def test_many_vms(browser: Browser) -> None:
    names = [f"--vm=vm-{number:04d}" for number in range(450)]
    with WebFace(*names) as face:
        page = opened(browser, face)
        assert page.evaluate("document.getElementById('vm-rows').rows.length") == 200
        assert page.text("#vms-more") == "and 250 more: narrow it down by name"
        page.evaluate("document.getElementById('filter').value = 'VM-044'")
        page.evaluate("document.getElementById('filter').dispatchEvent(new Event('input'))")
        assert page.evaluate("document.getElementById('vm-rows').rows.length") == 10
        assert page.evaluate("document.getElementById('vms-more').hidden")
        assert_well(page)


# How it looks


@pytest.mark.parametrize("width", [320, 360, 768, 1280, 2560])
def test_it_fits(browser: Browser, width: int) -> None:
    with WebFace("--story") as face:
        page = opened(browser, face)
        page.wait_for(f"{ROWS}.length === 100")
        page.resize(width, 700, phone=width < 500)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        assert_well(page)


CONTRAST = """(() => {
    const numbers = (color) => color.match(/[0-9.]+/g).map(Number);
    const luminance = (color) => numbers(color).slice(0, 3).map((value) => {
        const part = value / 255;
        return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    }).reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const color = getComputedStyle(each).backgroundColor;
            if ((numbers(color)[3] ?? 1) > 0) return color;
        }
    };
    return [...document.querySelectorAll("h1, h2, th, td, dt, dd, p, a, .state, summary, button")]
        .filter((element) => element.offsetParent !== null && element.textContent.trim())
        .map((element) => {
            const two = [getComputedStyle(element).color, ground(element)].map(luminance);
            two.sort((a, b) => b - a);
            return [(two[0] + 0.05) / (two[1] + 0.05), element.textContent.slice(0, 40)];
        });
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read(browser: Browser, scheme: str) -> None:
    """Each text has the contrast that WCAG asks for (AA), and each state a word and a sign."""
    with WebFace("--story") as face:
        page = opened(browser, face)
        page.prefer(scheme)
        page.wait_for(f"{ROWS}.length === 100")
        found = page.evaluate(CONTRAST)
        assert len(found) > 200
        assert [each for each in found if each[0] < 4.5] == []
        signs = page.evaluate(
            "[...document.querySelectorAll('.state')].map((element) => [element.textContent,"
            " getComputedStyle(element, '::before').content])"
        )
        words = dict(signs)
        assert set(words) == {"connected", "gap", "busy", "up", "gone", "failing", "disabled"}
        assert len({words[each] for each in ("up", "gap", "busy", "gone")}) == 4
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(246, 247, 249)", "dark": "rgb(15, 19, 23)"}[scheme]
        assert json.loads(page.evaluate("JSON.stringify(window.violations)")) == []
