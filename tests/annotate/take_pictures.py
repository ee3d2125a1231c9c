"""The screenshots of docs/annotate.md: python tests/annotate/take_pictures.py docs/pictures"""

import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what pytest's conftest.py does for the tests
from annotation_server import PASSWORD, Server, log_in  # noqa: E402
from chromium import Browser  # noqa: E402

from tastemaker.annotate import people, store  # noqa: E402
from tastemaker.annotate.leases import hold, lease  # noqa: E402
from tastemaker.annotate.projects import all_projects, change_project, membership  # noqa: E402
from tastemaker.annotate.submit import Sent, answer, find_task  # noqa: E402
from tastemaker.workflows.annotate import add_demo  # noqa: E402


def take(out: Path, folder: Path) -> None:
    database = store.open_store(folder / "a.db")
    with database.session() as session:
        for login, role in (("admin", "admin"), ("ann", "annotator"), *((f"p{k}", "annotator") for k in range(5))):
            people.create_person(session, login, PASSWORD, role)
    add_demo(database)
    with database.session() as session:
        pairs, ranking, stages = [p.id for p in all_projects(session)]
        change_project(session, pairs, overlap=5, repeat_rate=0.1)
        session.execute(store.I.update().where(store.I.c.project_id == pairs).values(wanted=5))
    for k in range(5):
        vote(database, pairs, f"p{k}", 26 + 3 * k)
    database.close()
    server = Server(folder / "a.db", "--no-demo")
    try:
        shoot(out, server.url, pairs, ranking, stages)
    finally:
        server.kill()


def vote(database, project, login, count):
    """A person who mostly sees which picture is true."""
    rng = random.Random(login)
    with database.engine.begin() as db:
        view, person = next(p for p in all_projects(db) if p.id == project), people.find(db, login)
        hold(db, view, person.id, 1, rng)
        for _ in range(count):
            task = hold(db, view, person.id, 1, rng)
            if not task:
                return
            row = find_task(db, task[0]["token"], person.id)
            best = rng.choices(("true", "other", "tie", "both_bad"), (62, 20, 14, 4))[0]
            choice = {"true": "ab"[row.shown.index(0)], "other": "ab"[row.shown.index(1)]}.get(best, best)
            ms = int(rng.lognormvariate(8.1, 0.5))
            answer(db, view, row, {"choice": choice}, Sent(rng.randbytes(8).hex(), ms, "keyboard 1280x800"))
            lease(db, view, membership(db, view, person.id), rng)


def shoot(out: Path, url: str, pairs: int, ranking: int, stages: int) -> None:
    loaded = "[...document.images].every((i) => i.complete && i.naturalWidth) && document.images.length"
    with Browser(1280, 800) as page:
        log_in(page, url, "ann")
        for project in (pairs, ranking, stages):
            page.open(f"{url}/work/{project}")
            if project == pairs:
                page.picture(out / "annotate-consent.png")
            page.until("document.activeElement.id === 'agree'")
            page.press("Enter")
            page.until(f"document.body.dataset.task && ({loaded} || document.querySelector('.options'))")
            if project == pairs:
                page.press("t")
                page.until("document.getElementById('saved').textContent === 'Saved'")
                page.until(loaded)
                page.picture(out / "annotate-pairs.png")
                page.press("z", "+")
                page.picture(out / "annotate-zoom.png")
                page.press("Escape", "?")
                page.picture(out / "annotate-keys.png")
                page.press("Escape")
            if project == ranking:
                page.press("1", "2", "2")
                page.picture(out / "annotate-ranking.png")
            if project == stages:
                page.press("w")
                page.picture(out / "annotate-prompt.png")
                page.press("Enter", "5", "6", "e")
                page.until(loaded)
                page.picture(out / "annotate-rating.png")
        page.dark()
        page.open(f"{url}/work/{pairs}")
        page.until(f"document.body.dataset.task && {loaded}")
        page.picture(out / "annotate-dark.png")
    with Browser(390, 800, mobile=True) as page:
        log_in(page, url, "ann")
        for project, name in ((pairs, "phone"), (ranking, "phone-ranking"), (stages, "phone-rating")):
            page.open(f"{url}/work/{project}")
            page.until(f"document.body.dataset.task && {loaded}")
            page.picture(out / f"annotate-{name}.png")
    with Browser(1280, 800) as page:
        log_in(page, url, "admin")
        for path, name in (("/admin", "admin"), (f"/admin/projects/{pairs}", "project"),
                           (f"/admin/projects/{pairs}/statistics", "statistics")):  # fmt: skip
            page.open(url + path)
            page.picture(out / f"annotate-{name}.png", full=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        take(Path(sys.argv[1]), Path(name))
