"""The pages as people use them, without a browser: accounts, work, review, administration, export, statistics."""

import csv
import io
import json
import re
import zipfile

import pytest
from annotation_server import PASSWORD, Client, filled
from sqlalchemy import event, select

from tastemaker.annotate import store
from tastemaker.annotate.database import Event, Item
from tastemaker.annotate.web.app import create_app
from tastemaker.annotate.web.markdown import to_html
from tastemaker.annotate.web.statistics_page import statistics
from tastemaker.data.votes import read_votes
from tastemaker.records import Ranking, Vote
from tastemaker.workflows.annotate import exporters


def opened(tmp_path, **settings):
    database, project = filled(tmp_path / "a.db", **settings)
    return database, project, create_app(database, exporters=exporters())


@pytest.fixture
def place(tmp_path):
    database, project, app = opened(tmp_path, overlap=2, review=0.5)
    with Client(app) as first:
        yield database, project, lambda login: logged_in(first.app, login)


def logged_in(app, login):
    client = Client(app)
    assert client.log_in(login).status_code == 303
    return client


def test_from_the_login_to_the_last_answer(place):
    database, project, client = place
    ann = client("ann")
    assert "I agree" in ann.get(f"/work/{project}").text
    ann.form(f"/work/{project}")
    page = ann.get(f"/work/{project}").text
    assert 'id="task"' in page and "Guideline 1" in page
    held, done = ann.hold(project), 0
    queue = held["tasks"]
    assert len(queue) == 2 and held["left"] == 6
    while queue:
        reply = ann.answer(queue.pop(0), {"choice": "a"}).json()
        done += 1
        assert reply["progress"]["done"] == done
        queue += [reply["next"]] if reply["next"] else []
    assert done == 6 and ann.hold(project)["tasks"] == []
    back = ann.tell(f"/api/projects/{project}/undo", {"client_token": "undo-1234"}).json()
    assert (
        back["task"]["draft"] == {"choice": "a", "ratings": back["task"]["draft"].get("ratings")}
        or back["task"]["draft"]["choice"] == "a"
    )
    assert back["progress"]["done"] == 5
    assert "<b>5</b> answers" in ann.get(f"/mine/{project}").text


def test_a_new_guideline_has_a_number_and_answers_carry_it(place):
    database, project, client = place
    admin = client("admin")
    admin.form(f"/admin/projects/{project}/guideline", text="# New\n\nLook **twice**.")
    ann = client("ann")
    assert "<strong>twice</strong>" in ann.get(f"/guideline/{project}").text
    assert "version 1" in ann.get(f"/guideline/{project}?version=1").text
    assert ann.get(f"/guideline/{project}?version=9").status_code == 422
    ann.answer(ann.hold(project)["tasks"][0], {"choice": "tie"})
    with database.reading() as session:
        assert store.votes(session)[0].about["guideline"] == 2


def test_people_are_made_changed_and_erased(place):
    database, project, client = place
    admin = client("admin")
    page = admin.form("/admin/people", login="zoe", role="annotator").text
    password = re.search(r"shown only now: ([\w-]+)", page)[1]
    zoe = Client(admin.app)
    assert zoe.log_in("zoe", password).status_code == 303
    old = {"old": password, "new": "a better password"}
    assert zoe.form("/password", **{**old, "old": "wrong"}).status_code == 401
    assert zoe.form("/password", **{**old, "new": "short"}).status_code == 422
    assert (
        zoe.form("/password", **old).status_code == 303
        and zoe.get("/projects", follow_redirects=False).status_code == 303
    )
    key = re.search(r"/admin/people/(\d+)\"[^\n]*(?=\n[^\n]*Role of zoe)", admin.get("/admin").text)[1]
    zoe.log_in("zoe", "a better password")
    zoe.answer(zoe.hold(project)["tasks"][0], {"choice": "a"})
    assert admin.form(f"/admin/people/{key}", what="role", role="reviewer").status_code == 303
    assert zoe.get("/projects", follow_redirects=False).headers["location"].startswith("/login"), (
        "a new role, a new session"
    )
    assert admin.form(f"/admin/people/{key}", what="erase").status_code == 303
    assert zoe.log_in("zoe", "a better password").status_code == 401
    assert "zoe" not in admin.get("/admin").text and "zoe" not in admin.get(f"/admin/projects/{project}").text
    assert admin.form("/admin/people", login="ann", role="annotator").status_code == 422, "the name is taken"
    assert admin.form("/admin/people", login="a b", role="annotator").status_code == 422
    assert admin.form(f"/admin/people/{key}", what="promote").status_code == 422


def test_a_reviewer_works_through_the_queue(tmp_path):
    database, project, app = opened(tmp_path, review=1.0)
    with Client(app):
        ann, rev = logged_in(app, "ann"), logged_in(app, "rev")
        tasks = ann.hold(project)["tasks"]
        for task, choice in zip(tasks, "ab"):
            ann.answer(task, {"choice": choice})
        said = rev.tell(f"/api/review/{project}/queue").json()
        assert said["count"] == 2 and said["waiting"][0]["answer"] == {"choice": "a"}, "as the annotator saw it"
        assert rev.get(said["waiting"][0]["pictures"][0]["url"]).status_code == 200
        assert "model" not in json.dumps(said)
        verdict = {"token": said["waiting"][0]["token"], "verdict": "relabel", "answer": {"choice": "b"}}
        assert rev.tell(f"/api/review/{project}/decide", verdict).status_code == 200
        assert rev.tell(f"/api/review/{project}/decide", verdict).status_code == 409
        assert rev.tell(f"/api/review/{project}/decide", {**verdict, "token": "x"}).status_code == 422
        assert rev.tell(f"/api/review/{project}/queue").json()["count"] == 1
        assert "agree" in logged_in(app, "admin").get("/admin/audit").text


def test_settings_close_a_project_and_are_checked(place):
    database, project, client = place
    admin, ann = client("admin"), client("ann")
    ann.hold(project)
    assert admin.form(f"/admin/projects/{project}/settings", overlap="0").status_code == 422
    assert admin.form(f"/admin/projects/{project}/settings", overlap="many").status_code == 422
    assert admin.form(f"/admin/projects/{project}/settings", quota="3", closed="on").status_code == 303
    task = ann.hold(project)["tasks"][0]
    assert ann.answer(task, {"choice": "a"}).json()["next"] is None, "what is held may be answered, nothing is added"
    assert admin.form(f"/admin/projects/{project}/people/3", what="quota", quota="1").status_code == 303
    assert admin.form(f"/admin/projects/{project}/people/3", what="quota", quota="-1").status_code == 422


def test_exports_hold_everything(place):
    database, project, client = place
    admin, ann = client("admin"), client("ann")
    for task in ann.hold(project)["tasks"]:
        ann.answer(task, {"choice": "b"})
    path = f"/admin/projects/{project}/export"
    votes = [json.loads(line) for line in admin.get(f"{path}/votes.jsonl").text.splitlines()]
    assert len(votes) == 2 and votes[0]["about"]["hidden"][0]["model"] == "model-0"
    rows = list(csv.DictReader(io.StringIO(admin.get(f"{path}/events.csv").text)))
    assert [r["kind"] for r in rows if r["kind"] == "answer"] == ["answer"] * 2
    assert admin.get(f"{path}/ratings.jsonl").text == ""
    assert admin.get(f"{path}/nothing.zip").status_code == 422


def test_a_zip_is_read_back_as_the_same_votes(place, tmp_path):
    database, project, client = place
    admin, ann = client("admin"), client("ann")
    for task in ann.hold(project)["tasks"]:
        ann.answer(task, {"choice": "b"})
    reply = admin.get(f"/admin/projects/{project}/export/jsonl.zip")
    with zipfile.ZipFile(io.BytesIO(reply.content)) as file:
        file.extractall(tmp_path / "votes")
    back = read_votes(tmp_path / "votes")
    with database.reading() as session:
        assert list(back.votes) == store.votes(session) and isinstance(back.votes[0], Vote)
    assert back.picture(back.votes[0].image_a).is_file()
    assert (tmp_path / "votes" / "events.jsonl").is_file()


def test_statistics_live(place):
    database, project, client = place
    admin = client("admin")
    path = f"/admin/projects/{project}/statistics"
    assert "Nobody has answered" in admin.get(path).text
    for login in ("ann", "bob"):
        me = client(login)
        queue = me.hold(project)["tasks"]
        while queue:
            said = me.answer(queue.pop(0), {"choice": "a"}).json()
            queue += [said["next"]] if said["next"] else []
    page = admin.get(f"{path}?part=1").text
    assert page.count("<svg") >= 4 and "Krippendorff" in page and "model-0" in page
    found = admin.get(f"{path}.json").json()
    assert found["counts"]["votes"] == 12 and found["position"]["left"]["value"] == 1.0
    assert set(found["models"]) == {"model-0", "model-1"}
    assert "<b>12</b> of 12 answers" in admin.get(f"/admin/projects/{project}").text


def test_statistics_look_at_the_answers_once(place):
    database, project, client = place
    ann = client("ann")
    for task in ann.hold(project)["tasks"]:
        ann.answer(task, {"choice": "b"})
    looks = []
    event.listen(database.engine, "before_cursor_execute", lambda *said: looks.append("pseudonym" in said[2]))
    with database.reading() as session:
        assert statistics(session, project)["counts"]["votes"] == 2
        assert sum(looks) == 1
        votes, ratings, rankings = store.everything(session, project)
        assert votes == store.votes(session, project) and ratings == rankings == []


def test_rankings_come_out_in_the_order_of_the_item(tmp_path):
    database, project, app = opened(tmp_path, preset="ranking", pictures=4)
    with Client(app):
        ann = logged_in(app, "ann")
        task = ann.hold(project)["tasks"][0]
        part = {"part": {"slots": [3, 0, 0, 0]}, "client_token": "part-0001"}
        for _ in range(2):
            assert ann.tell(f"/api/tasks/{task['token']}/part", part).json()["kept"]
        again = ann.hold(project)["tasks"][0]
        assert again["token"] == task["token"] and again["draft"]["slots"] == [3, 0, 0, 0]
        for wrong in ([1, 2, 3], [1, 1, 1, 2], [0, 1, 2, 3], [1, 2, 3, 6], ["1", 2, 3, 4], [1.0, 2, 3, 4]):
            assert ann.answer(task, {"slots": wrong}).status_code == 422, wrong
        assert ann.answer(task, {"slots": [1, 2, 2, 5]}).status_code == 200
        with database.reading() as session:
            found = store.rankings(session)[0]
            pictures = session.execute(select(Item.pictures).join_from(Item, Event)).scalars().first()
            assert session.execute(select(Event.id).where(Event.kind == "part")).all() and pictures
        assert isinstance(found, Ranking) and [found.slots[k] for k in found.about["shown"]] == [1, 2, 2, 5]


def test_markdown_is_small_and_safe():
    text = "# Head\n\nA **bold** line\ngoes on.\n\n* one\n* two\n\n1. first\n2) second\n<b>no</b>"
    html = str(to_html(text))
    assert "<h2>Head</h2>" in html and "<p>A <strong>bold</strong> line goes on.</p>" in html
    assert "<ul><li>one</li><li>two</li></ul>" in html and "<ol><li>first</li><li>second</li></ol>" in html
    assert "&lt;b&gt;no" in html


def test_pages_that_are_not_there(place):
    _, project, client = place
    ann = client("ann")
    assert ann.get("/nothing").status_code == 404 and "There is no such page" in ann.get("/nothing").text
    assert ann.get("/work/99").status_code == 422
    assert ann.get("/static/../a.db").status_code == 404 and ann.get("/openapi.json").status_code == 404
    assert Client(ann.app).get("/health").text == "well"


def test_every_account_can_log_in_and_out(place):
    _, _, client = place
    for login in ("ann", "rev", "admin"):
        me = client(login)
        assert me.form("/logout").status_code == 303
        assert me.get("/projects", follow_redirects=False).headers["location"].startswith("/login")
    assert PASSWORD not in client("admin").get("/admin").text
