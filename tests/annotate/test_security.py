"""Who may see and change what; what an attacker or a mistake can send."""

import io
import json
import re
import time

import pytest
from annotation_server import PASSWORD, Client, filled, picture
from PIL import Image
from sqlalchemy import select
from starlette.responses import Response

from tastemaker.annotate import people
from tastemaker.annotate.database import Annotator, Assignment, Event, Item
from tastemaker.annotate.web import security
from tastemaker.annotate.web.app import create_app
from tastemaker.annotate.web.security import COOKIE, HOURS, MOST_JSON, LoginLimit, Sessions


@pytest.fixture
def place(tmp_path):
    database, project = filled(tmp_path / "a.db", overlap=3)
    app = create_app(database)
    clients = []

    def client(login=None):
        made = Client(app)
        made.__enter__() if not clients else None
        clients.append(made)
        if login:
            assert made.log_in(login).status_code == 303
        return made

    yield database, project, client
    clients[0].__exit__(None, None, None)


def test_pages_are_for_those_who_are_logged_in(place):
    _, project, client = place
    nobody = client()
    for path in (
        "/",
        "/projects",
        f"/work/{project}",
        "/admin",
        f"/mine/{project}",
        f"/review/{project}",
        "/password",
    ):
        reply = nobody.get(path, follow_redirects=False)
        assert reply.status_code == 303 and reply.headers["location"].startswith("/login"), path
    assert nobody.post(f"/api/projects/{project}/hold").status_code == 401
    assert nobody.get("/pictures/x/0").status_code == 401


@pytest.mark.parametrize("login, allowed", [("ann", 0), ("rev", 1), ("admin", 2)])
def test_roles(place, login, allowed):
    _, project, client = place
    me = client(login)
    admin = ["/admin", f"/admin/projects/{project}", f"/admin/projects/{project}/statistics", "/admin/audit"]
    admin += [f"/admin/projects/{project}/export/{n}" for n in ("votes.jsonl", "events.csv")]
    admin += [f"/admin/projects/{project}/statistics.json"]
    for path in admin:
        assert me.get(path).status_code == (200 if allowed == 2 else 403), path
    assert me.get(f"/review/{project}").status_code == (200 if allowed >= 1 else 403)
    for path in (f"/api/review/{project}/queue", f"/api/review/{project}/decide"):
        assert (me.tell(path).status_code == 403) == (allowed == 0)
    for path in ("/admin/people", "/admin/projects", "/admin/people/1", f"/admin/projects/{project}/settings",
                 f"/admin/projects/{project}/guideline", f"/admin/projects/{project}/import",
                 f"/admin/projects/{project}/people/1"):  # fmt: skip
        if allowed < 2:
            assert me.form(path, login="x", role="admin", what="erase").status_code == 403, path


def test_nothing_of_the_models_or_of_others_reaches_an_annotator(place):
    database, project, client = place
    ann, bob = client("ann"), client("bob")
    held = ann.hold(project)
    task = held["tasks"][0]
    assert ann.answer(task, {"choice": "a"}).status_code == 200
    with database.reading() as session:
        shas = {s for row in session.execute(select(Item.pictures)).scalars() for s in row}
        assignments = session.execute(select(Assignment.id, Assignment.item_id, Assignment.token)).all()
    texts = [json.dumps(held), json.dumps(bob.hold(project))]
    texts += [ann.get(p).text for p in (f"/work/{project}", f"/mine/{project}", f"/guideline/{project}", "/projects")]
    for text in texts:
        assert (
            "model-" not in text and "/home/me" not in text and not any(s in text for s in shas) and "id-" not in text
        )
    picture = ann.get(task["pictures"][0]["url"])
    assert picture.headers["content-type"] == "image/png" and b"secret-model" not in picture.content
    assert not {"etag", "last-modified", "content-disposition", "server"} & set(picture.headers)
    assert bob.get(task["pictures"][0]["url"]).status_code == 404, "the pictures of another's task"
    assert bob.answer(task, {"choice": "b"}).status_code == 404
    for a in assignments:
        for name in (a.id, a.item_id):
            assert ann.get(f"/pictures/{name}/0").status_code == 404
    for wrong in ("2", "-1", "99999999999999999999"):
        assert ann.get(task["pictures"][0]["url"][:-1] + wrong).status_code == 404
    assert ann.get("/pictures/..%2f..%2fa.db/0").status_code == 404


def test_two_people_get_other_orders_and_other_names(place):
    database, project, client = place
    for login in ("ann", "bob", "eve"):
        me = client(login)
        for _ in range(6):
            tasks = me.hold(project)["tasks"]
            me.answer(tasks[0], {"choice": "a"}) if tasks else None
    with database.reading() as session:
        rows = session.execute(select(Assignment.token, Assignment.shown)).all()
    assert len({r.token for r in rows}) == len(rows) >= 15 and all(len(r.token) >= 22 for r in rows)
    assert {tuple(r.shown) for r in rows} == {(0, 1), (1, 0)}


def test_forms_need_the_token_of_their_session(place):
    database, project, client = place
    admin, ann = client("admin"), client("ann")
    for token in ("", "0" * 40, ann.token):
        assert admin.tell(f"/api/projects/{project}/hold", token=token).status_code == 403
        sent = admin.post("/admin/people", data={"login": "spy", "role": "admin", "form_token": token})
        assert sent.status_code == 403
    assert admin.post("/admin/people", data={"login": "spy", "role": "admin"}).status_code == 403
    assert admin.post("/logout").status_code == 403
    with database.reading() as session:
        assert people.find(session, "spy") is None
    fresh = client()
    fresh.get("/login")
    assert fresh.post("/login", data={"login": "ann", "password": PASSWORD}).status_code == 403


def test_sessions_cannot_be_made_up_and_end(place):
    database, project, client = place
    ann = client("ann")
    cookie = ann.cookies[COOKIE]
    ticket = Sessions("another secret").read(type("R", (), {"cookies": {COOKIE: cookie}}))
    assert ticket is None, "signed with another key"
    forged = client()
    for words in (cookie[:-3] + "abc", "x", "", "WzEsMCwiYSJd.aaaa.bbbb"):
        forged.cookies.set(COOKIE, words)
        assert forged.get("/projects", follow_redirects=False).status_code == 303
    with database.session() as session:
        people.set_password(session, people.find(session, "ann").id, "another password")
    ann.app.state.tastemaker.forget()
    assert ann.get(f"/work/{project}", follow_redirects=False).status_code == 303, "a new password ends old sessions"


def test_a_session_ends_after_its_hours_also_where_its_signature_is_remembered(monkeypatch):
    def asking(cookie):
        return type("R", (), {"cookies": {COOKIE: cookie}})

    sessions, answer = Sessions("a secret"), Response()
    ticket = sessions.open(answer, 5, 1)
    cookie = answer.headers["set-cookie"].split("=", 1)[1].split(";")[0]
    assert sessions.read(asking(cookie)) == ticket == sessions.read(asking(cookie))
    later = time.time() + HOURS * 3600 + 2
    monkeypatch.setattr(time, "time", lambda: later)
    assert sessions.read(asking(cookie)) is None and Sessions("a secret").read(asking(cookie)) is None


def test_the_memory_of_signatures_is_bounded(monkeypatch):
    monkeypatch.setattr(security, "MOST_READ", 3)
    sessions = Sessions("a secret")
    for person in range(1, 9):
        answer = Response()
        ticket = sessions.open(answer, person, 0)
        cookie = answer.headers["set-cookie"].split("=", 1)[1].split(";")[0]
        assert sessions.read(type("R", (), {"cookies": {COOKIE: cookie}})) == ticket
        assert len(sessions._read) <= 3


def test_the_cookie_and_the_headers(place):
    _, _, client = place
    me = client()
    reply = me.get("/login")
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=lax" in cookie
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff" and reply.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in policy
    before = me.cookies[COOKIE]
    me.log_in("ann")
    assert me.cookies[COOKIE] != before, "a session planted before the login is worthless"


def test_pages_ask_nothing_of_others_and_hold_no_inline_script(place):
    _, project, client = place
    admin = client("admin")
    admin.form(f"/work/{project}")
    scripts = [f"/static/{n}.js" for n in ("work", "parts", "send", "pairs", "ranking", "stages", "review", "live")]
    mine = [f"/admin/projects/{project}", f"/admin/projects/{project}/statistics", f"/work/{project}"]
    for path in ("/login", "/projects", "/admin", f"/review/{project}", "/static/style.css", *mine, *scripts):
        text = admin.get(path).text
        assert not re.search(r"https?://(?!www\.w3\.org)", text), path
        assert not re.search(r"<script(?![^>]*(src=|application/json))", text) and " style=" not in text, path
        assert not re.search(r"\son\w+=\"", text), path


def test_passwords_are_argon2_and_login_is_limited(place):
    database, _, client = place
    with database.reading() as session:
        kept = session.execute(select(Annotator.password)).scalars().all()
    assert all(p.startswith("$argon2id$") for p in kept) and PASSWORD not in str(kept)
    me = client()
    assert [me.log_in("ann", "wrong").status_code for _ in range(6)] == [401] * 5 + [429]
    reply = me.log_in("ann")
    assert reply.status_code == 429 and int(reply.headers["retry-after"]) > 200, "also the right one"
    assert me.log_in("bob").status_code == 303, "others can log in"


def test_a_whole_class_can_log_in_from_one_address():
    limit = LoginLimit(most=5, seconds=300)
    for k in range(200):
        assert limit.wait("1.2.3.4", f"name-{k}") == 0
        limit.failed("1.2.3.4", f"name-{k}")
        limit.succeeded("1.2.3.4", f"name-{k}")


def test_the_limit_forgets_after_its_time_and_counts_addresses():
    limit = LoginLimit(most=2, seconds=0.2)
    for k in range(20):
        limit.failed("1.2.3.4", f"name-{k}")
    assert limit.wait("1.2.3.4", "new") > 0 and limit.wait("5.6.7.8", "new") == 0
    time.sleep(0.25)
    assert limit.wait("1.2.3.4", "new") == 0


def test_an_unknown_name_takes_as_long_as_a_wrong_password():
    known = people.hashed(PASSWORD)

    def seconds(kept):
        start = time.perf_counter()
        assert not people.password_fits(kept, "wrong password")
        return time.perf_counter() - start

    people.password_fits(None, "x")
    a, b = (min(seconds(kept) for _ in range(3)) for kept in (known, None))
    assert 0.3 < a / b < 3


@pytest.mark.parametrize(
    "follow", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)"]
)
def test_the_login_leads_nowhere_else(place, follow):
    _, _, client = place
    me = client()
    me.get("/login")
    fields = {"login": "ann", "password": PASSWORD, "form_token": me.form_token("/login"), "next": follow}
    reply = me.post("/login", data=fields, follow_redirects=False)
    assert reply.status_code == 303 and reply.headers["location"] == "/"


EVIL = '<img src=x onerror="alert(1)"></script><script>alert(2)</script>'


def test_words_of_others_are_only_words(place):
    database, project, client = place
    admin = client("admin")
    admin.form(f"/admin/projects/{project}/guideline", text=f"# {EVIL}\n\n* {EVIL}\n\n**{EVIL}**")
    admin.form(f"/admin/projects/{project}/settings", question=EVIL)
    admin.form("/admin/projects", name=EVIL, preset="pairs")
    for path in (f"/work/{project}", f"/guideline/{project}", "/admin", f"/admin/projects/{project}", "/projects"):
        text = admin.get(path).text
        assert "<img src=x" not in text and "<script>alert" not in text, path
    admin.form(f"/work/{project}")
    assert "<script>alert" not in admin.get(f"/work/{project}").text, "nor inside the page's data"


@pytest.mark.parametrize(
    "body",
    [
        {"answer": {"choice": "c"}},
        {"answer": None},
        {"answer": ["a"]},
        {"answer": {"choice": ["a"]}},
        {"answer": {"slots": [1, 2]}},
        {"answer": {"choice": "skip", "reason": "none of these"}},
        {"answer": {"choice": "a"}, "client_token": ""},
        {"answer": {"choice": "a"}, "client_token": 5},
        {"answer": {"choice": "a"}, "client_token": "x" * 65},
        {"answer": {"choice": "a"}, "ms": "soon"},
        {"answer": {"choice": "a"}, "ms": -1},
        {"answer": {"choice": "a"}, "ms": float("1e300")},
    ],
)
def test_answers_that_cannot_be_are_refused_and_nothing_is_kept(place, body):
    database, project, client = place
    ann = client("ann")
    task = ann.hold(project)["tasks"][0]
    reply = ann.tell(f"/api/tasks/{task['token']}/answer", {"client_token": "t" * 10, **body})
    assert reply.status_code == 422 and "expected" in reply.json()["error"]
    with database.reading() as session:
        assert session.execute(select(Event.id).where(Event.kind == "answer")).all() == []


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b"null", b"[" * 5000])
def test_bodies_that_are_no_json_objects(place, content):
    _, project, client = place
    ann = client("ann")
    task = ann.hold(project)["tasks"][0]
    reply = ann.post(f"/api/tasks/{task['token']}/answer", content=content, headers={"x-form-token": ann.token})
    assert reply.status_code == 422


def test_bodies_are_limited(place):
    _, project, client = place
    ann = client("ann")
    long = b"x" * (MOST_JSON + 1)
    headers = {"x-form-token": ann.token}
    assert ann.post(f"/api/projects/{project}/undo", content=long, headers=headers).status_code == 413

    def in_pieces():
        for _ in range(10):
            yield long[: MOST_JSON // 4]

    reply = ann.post(f"/api/projects/{project}/undo", content=in_pieces(), headers=headers)
    assert reply.status_code == 413, "also without a length"


def upload(client, project, *files):
    return client.post(
        f"/admin/projects/{project}/import", data={"form_token": client.token}, files=[("files", f) for f in files]
    )


def row(**more):
    return json.dumps({"prompt": "a cat", "images": ["a.png", "b.png"], **more}).encode()


def test_an_upload_is_decoded_and_kept_whole_or_not_at_all(place):
    database, project, client = place
    admin = client("admin")
    good = [("a.png", picture(1)), ("b.png", picture(2))]
    reply = upload(admin, project, ("items.jsonl", row()), *good)
    assert reply.status_code == 200 and "1 items were added" in reply.text
    out = io.BytesIO()
    Image.new("1", (9000, 9000)).save(out, "PNG")
    bad = {
        "row 2 column `prompt`": [("t.jsonl", row() + b"\n" + row(prompt=" ")), *good],
        "row 1 is not JSON": [("t.jsonl", b"{"), *good],
        "column": [("t.csv", b"prompt,image_a,picture\na,a.png,b.png\n"), *good],
        "was not uploaded": [("t.jsonl", row(images=["a.png", "../../etc/passwd"])), *good],
        "expected 2 to 2 pictures, got 1": [("t.jsonl", row(images=["a.png"])), *good],
        "cannot be decoded": [("t.jsonl", row()), good[0], ("b.png", b"<svg onload='alert(1)'/>")],
        "million pixels": [("t.jsonl", row()), good[0], ("b.png", out.getvalue())],
        "expected one table": good,
        "is not UTF-8": [("t.csv", b"prompt\n\xff"), *good],
    }
    for words, files in bad.items():
        reply = upload(admin, project, *files)
        text = reply.text.replace("&#39;", "'").replace("64,000,000", "64 million")
        assert reply.status_code == 422 and words in text, (words, reply.text)
    with database.reading() as session:
        assert len(session.execute(select(Item.id).where(Item.prompt == "a cat")).all()) == 1


def test_exports_are_safe_to_open_in_a_spreadsheet(place):
    _, project, client = place
    admin = client("admin")
    upload(
        admin,
        project,
        ("t.jsonl", row(prompt="=HYPERLINK(1)", priority=9)),
        ("a.png", picture(1)),
        ("b.png", picture(2)),
    )
    task = admin.hold(project)["tasks"][0]
    assert task["prompt"] == "=HYPERLINK(1)"
    admin.answer(task, {"choice": "a"})
    text = admin.get(f"/admin/projects/{project}/export/votes.csv").text
    assert ",'=HYPERLINK(1)," in text
    assert admin.get(f"/admin/projects/{project}/export/setting.csv").status_code == 422
