"""The app in a real browser, by keyboard alone: qualify, rate, rank, take back, kill the server, go on, export."""

import json

import pytest
from annotation_server import Server, filled, items, log_in

pytest.importorskip("websockets", reason="the browser is driven over a web socket")
import chromium  # noqa: E402
from chromium import Browser  # noqa: E402

from tastemaker.annotate import store  # noqa: E402
from tastemaker.annotate.audit import audit  # noqa: E402
from tastemaker.cli.main import main  # noqa: E402
from tastemaker.data.votes import read_votes  # noqa: E402

pytestmark = pytest.mark.skipif(chromium.PATH is None, reason="Chromium is not installed")


def begin(page, url, project):
    page.open(f"{url}/work/{project}")
    page.until("document.activeElement.id === 'agree'")
    page.press("Enter")
    page.until("document.body.dataset.task")


def task(page):
    return page.run("document.body.dataset.task || ''")


def then(page, *keys):
    """Press keys that answer, and wait for the next task."""
    before = task(page)
    page.run("new Promise((r) => setTimeout(r, 180))")  # a key held down does not answer twice
    page.press(*keys)
    page.until(f"(document.body.dataset.task || '') !== '{before}'")


def saved(page):
    page.until("document.getElementById('saved').textContent === 'Saved'")


def rate_three_pictures(page):
    """The first two steps: a category; then marks for each picture, with a problem for the first."""
    page.press("w", "2", "Enter")  # animals; violent
    for k, overall in enumerate("642"):
        page.until(f"document.querySelector('.steps [aria-current]').textContent.includes('{k + 1} of 3')")
        page.press(overall, "5", "5", *(["w"] if k == 0 else []), "Enter")
    page.until("document.querySelector('.slots')")


def test_by_keyboard_alone(where, tmp_path):
    gold = items(2, 3, gold={"slots": [1, 3, 5]}, testing=True)
    settings = {"preset": "imagereward", "pictures": 3, "count": 3, "qualification": 2, "threshold": 0.0}
    database, project = filled(where, folder=tmp_path / "pictures", tests=gold, **settings)
    database.close()
    server = Server(where, "--no-demo")
    try:
        with Browser() as page:
            log_in(page, server.url, "ann")
            begin(page, server.url, project)
            for _ in range(2):  # qualify
                assert "Test before the work" in page.text()
                rate_three_pictures(page)
                page.press("1", "2", "3")
                then(page, "Enter")
            page.until("document.getElementById('progress').textContent.startsWith('0 answered')")

            rate_three_pictures(page)  # rate and rank, against the marks: a warning, then the right order
            page.press("3", "2", "1", "Enter")
            page.until("document.querySelector('.notice:not([hidden])')")
            first = task(page)
            page.press("ArrowLeft", "ArrowLeft", "1", "ArrowRight", "ArrowRight", "5")
            then(page, "Enter")
            saved(page)

            page.press("u")  # take back: the same task, with everything that was said
            page.until(f"document.body.dataset.task === '{first}'")
            assert page.run("document.querySelectorAll('.slot .piece').length") == 3
            then(page, "Enter")
            saved(page)

            page.press("w", "Enter")  # half of the next one, then the server dies
            page.press("7", "7", "7", "Enter")
            page.until("document.querySelector('.steps [aria-current]').textContent.includes('2 of 3')")
            saved(page)
            server.kill()
            page.press("6", "6", "6", "Enter")
            page.until("document.getElementById('saved').textContent.startsWith('Not saved')")
            server.start()
            saved(page)
            page.open(f"{server.url}/work/{project}")  # as after a new start of the browser
            page.until("document.querySelector('.steps [aria-current]')?.textContent.includes('3 of 3')")
            page.press("5", "5", "5", "Enter")
            page.until("document.querySelector('.slots')")
            page.press("1", "2", "3")
            then(page, "Enter")
            saved(page)
            page.press("s")  # skip the last, with a reason
            page.until("document.querySelector('dialog[open]')")
            page.press("2")
            page.until("document.querySelector('.done')")
            outside = [u for u in page.requests() if not u.startswith((server.url, "about:", "data:"))]
            assert outside == []
            assert [c for c in page.complaints() if "ERR_CONNECTION" not in c and "Failed to fetch" not in c] == []
    finally:
        server.kill()
    database = store.open_store(where)
    with database.reading() as session:
        assert audit(session) == []
    database.close()
    assert main(["annotate", "export", "--database", where, "--out", str(tmp_path / "out"), "--format", "jsonl"]) == 0
    votes = read_votes(tmp_path / "out")
    assert len(votes.rankings) == 2 and len(votes.ratings) == 2 * 3 * 3
    first, second = votes.rankings
    in_place = lambda r: [r.slots[k] for k in r.about["shown"]]  # noqa: E731
    assert in_place(first) == [1, 2, 5] and in_place(second) == [1, 2, 3]
    assert {r.about["stage"]["category"] for r in votes.ratings} == {"animals"}
    log = [json.loads(line) for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines()]
    kinds = [e["kind"] for e in log if e["annotator"] == first.annotator]
    assert kinds.count("undo") == 1 and kinds.count("qualified") == 1 and kinds.count("skip") == 1
    assert all(e["client"].startswith("keyboard") for e in log if e["kind"] == "answer")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    database, project = filled(folder / "a.db", count=8, overlap=5, repeat_rate=0.0)
    with database.session() as session:
        store.add_items(session, project, items(1, sensitive=True, priority=9.0))
    database.close()
    server = Server(folder / "a.db", "--no-demo")
    yield server, project
    server.kill()


def test_pairs_with_keys_mouse_zoom_and_veil(site):
    server, project = site
    with Browser() as page:
        log_in(page, server.url, "bob")
        begin(page, server.url, project)
        assert page.run("document.querySelectorAll('.frame.veiled').length") == 2, "blurred until asked"
        page.press("v")
        page.until("!document.querySelector('.frame.veiled')")
        page.press("z")
        page.until("document.querySelector('dialog.zoom[open]')")
        page.press("+", "ArrowLeft")
        moved = page.run("[...document.querySelectorAll('.zoom .pane img')].map((i) => i.style.transform)")
        assert len(set(moved)) == 1 and "scale(1.4)" in moved[0] and "translate(60px" in moved[0], "together"
        page.press("Escape")
        page.until("!document.querySelector('dialog[open]')")
        for key in ("1", "ArrowRight", "t", "x"):
            then(page, key)
        page.run("new Promise((r) => setTimeout(r, 180))")
        before = task(page)
        page.click(".pair .frame img")
        page.until(f"document.body.dataset.task !== '{before}'")
        page.press("?")
        page.until("document.querySelector('#keys[open]')")
        assert "Take back the last answer" in page.text()
        page.press("Escape")
        saved(page)
        assert page.run("document.getElementById('progress').textContent") == "5 answered"
        assert page.complaints() == []


def test_a_phone_and_what_a_screen_reader_finds(site):
    server, project = site
    with Browser(390, 800, mobile=True) as page:
        log_in(page, server.url, "eve")
        begin(page, server.url, project)
        assert page.run("document.documentElement.scrollWidth <= innerWidth"), "nothing hangs over the side"
        assert page.run("[...document.querySelectorAll('.choices button')].every((b) => b.offsetHeight >= 44)")
        low = "[...document.querySelectorAll('.choices button')].map((b) => b.getBoundingClientRect().bottom)"
        assert page.run(f"Math.max(...{low}) <= innerHeight"), "every choice is on the screen"
        assert page.run("[...document.querySelectorAll('img')].every((i) => i.alt)")
        assert page.run(
            "[...document.querySelectorAll('button')].every((b) => (b.ariaLabel || b.textContent).trim())"
        )
        assert page.run("document.documentElement.lang") == "en"
        then(page, "Tab", "1")
        page.open(f"{server.url}/login")
        assert page.run("[...document.querySelectorAll('input:not([type=hidden])')].every((i) => i.labels.length)")
