"""The studio in a real browser: by keyboard alone, on a phone, and what it says when something is wrong."""

import pytest
import told_model
from server_process import ServerProcess

pytest.importorskip("websockets", reason="the browser is driven over a web socket")
import chromium  # noqa: E402
from chromium import Browser  # noqa: E402

pytestmark = pytest.mark.skipif(chromium.PATH is None, reason="Chromium is not installed")
URLS = "[...document.querySelectorAll('#pictures img')].map((i) => i.src).join()"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = ServerProcess("studio", told_model.write(tmp_path_factory.mktemp("studio") / "run"), seconds=120)
    yield server
    server.kill()


def begin(page, server):
    page.open(server.url)
    page.until("document.querySelectorAll('#pictures img').length === 4")
    page.until("[...document.querySelectorAll('#pictures img')].every((i) => i.complete && i.naturalWidth === 16)")


def then(page, *keys):
    """Press keys that ask for other pictures, and wait for them."""
    before = page.run(URLS)
    page.press(*keys)
    page.until(f"{URLS} !== {before!r} && !document.querySelector('.waiting')")


def command(page):
    return page.run("document.getElementById('command').textContent")


def test_by_keyboard_alone(server):
    with Browser() as page:
        begin(page, server)
        page.press("1")
        page.until("document.activeElement.id === 'level-0'")
        then(page, "Home")
        assert "sharpness=0," in command(page)
        then(page, "ArrowRight", "ArrowRight")
        assert "sharpness=0.4," in command(page), "one level of five each"
        then(page, "x")
        assert "sharpness" not in command(page) and "harmony=" in command(page)
        assert page.run("document.activeElement.ariaValueText") == "not asked"
        page.press("2")
        then(page, "x")
        assert "--targets none" in command(page)
        assert page.run("!document.getElementById('nothing').hidden")
        then(page, "Home")
        then(page, "End")
        assert "--targets harmony=1 " in command(page)
        assert page.run("document.querySelectorAll('#pictures .scores meter').length") == 8, (
            "four pictures, two levels"
        )

        page.press("p")
        page.type("a photo of a red aple")
        page.until("document.getElementById('trouble').textContent.includes('nearest known: apple')")
        page.press("Escape", "p")
        page.type("a photo of a red apple")
        page.until("document.getElementById('trouble').hidden")
        page.press("Escape")
        page.until("document.getElementById('command').textContent.includes('red apple')")
        then(page, "n")

        page.press("t")
        page.until("document.querySelectorAll('#strip img').length === 7")
        page.run("document.querySelector('#strip figure:last-child button').focus()")
        then(page, "Enter")
        assert "sharpness=0,harmony=1" in command(page), "the levels of the last picture"
        kept = page.run(URLS)
        page.call("Page.reload")
        page.until(f"document.readyState === 'complete' && {URLS} === {kept!r}")

        page.press("?")
        page.until("document.querySelector('#keys[open]')")
        page.press("Escape", "c")
        page.until("/^(Copied|Selected)/.test(document.getElementById('state').textContent)")
        assert [u for u in page.requests() if not u.startswith((server.url, "about:", "data:"))] == []
        assert [c for c in page.complaints() if "422" not in c] == []


def test_sliding_fast_draws_the_last_setting(server):
    with Browser() as page:
        begin(page, server)
        page.press("1", "Home")
        for _ in range(5):
            page.press("ArrowRight")
            page.run("new Promise((r) => setTimeout(r, 130))")  # longer than the page waits: each is asked for
        page.until("document.getElementById('command').textContent.includes('sharpness=1')")
        page.until("!document.querySelector('.waiting')")
        assert page.run("document.getElementById('trouble').hidden")


def test_a_phone_and_what_a_screen_reader_finds(server):
    with Browser(390, 800, mobile=True) as page:
        begin(page, server)
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), "nothing hangs over the side"
        page.run("document.getElementById('level-1').scrollIntoView({block: 'center'})")
        seen = "(() => { const b = document.querySelector('#pictures img').getBoundingClientRect(); "
        assert page.run(seen + "return b.top >= 0 && b.bottom <= innerHeight; })()"), "pictures stay while sliding"
        assert page.run("[...document.querySelectorAll('input[type=range]')].every((r) => r.offsetHeight >= 44)")
        assert page.run("[...document.querySelectorAll('img')].every((i) => i.alt)")
        assert page.run(
            "[...document.querySelectorAll('input, select')].every((i) => i.labels.length || i.ariaLabel)"
        )
        assert page.run("[...document.querySelectorAll('button')].every((b) => b.textContent.trim())")
        assert page.run("document.documentElement.lang") == "en"
        page.click("#strip-button")
        page.until("document.querySelectorAll('#strip img').length === 7")
        assert page.run("document.documentElement.scrollWidth <= innerWidth")


def test_a_server_that_died_is_said_and_found_again(server):
    with Browser() as page:
        begin(page, server)
        server.kill()
        try:
            page.press("1", "Home")
            page.until(
                "document.getElementById('trouble').textContent.includes('is tastemaker studio still running?')"
            )
            assert page.run("document.querySelectorAll('#pictures img').length") == 4, "the last pictures stay"
        finally:
            server.start()
        page.press("ArrowRight")
        page.until("document.getElementById('trouble').hidden && document.querySelectorAll('#pictures img').length")
        assert "sharpness=0.2," in command(page)
