"""`tastemaker annotate`: items in, votes out, accounts, two runs judged by people."""

import json
import random

import pytest
from annotation_server import PASSWORD, filled, items, picture
from sqlalchemy import select

from tastemaker.annotate import people, store
from tastemaker.annotate.answers import agrees, as_shown, canonical, violations
from tastemaker.annotate.database import Item
from tastemaker.annotate.imports import read_items
from tastemaker.annotate.leases import hold
from tastemaker.annotate.presets import preset_settings
from tastemaker.annotate.projects import find_project
from tastemaker.annotate.serve import listen
from tastemaker.annotate.submit import Sent, answer, find_task
from tastemaker.cli import annotate as command
from tastemaker.cli.main import main
from tastemaker.errors import MissingExtra, TastemakerError
from tastemaker.workflows.annotate import add_demo, first_admin, votes_of
from tastemaker.workflows.human import ask_people, read_people


@pytest.fixture
def table(tmp_path):
    """A writer of tables beside two pictures."""
    for k, name in enumerate(("a.png", "b.png")):
        (tmp_path / name).write_bytes(picture(k))

    def write(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_tables_in_three_kinds_say_the_same(table):
    row = {"prompt": "a cat", "images": ["a.png", "b.png"], "gold": {"choice": "a"}, "testing": True, "priority": 2}
    lines = table("t.jsonl", json.dumps(row) + "\n\n")
    listed = table("t.json", json.dumps([row]))
    cells = table(
        "t.csv", 'prompt,image_a,image_b,gold,testing,priority\na cat,a.png,b.png,"{""choice"": ""a""}",true,2\n'
    )
    found = [read_items(path)[0] for path in (lines, listed, cells)]
    assert len({(i.prompt, tuple(i.images), i.testing, i.priority, str(i.gold)) for i in found}) == 1


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("t.jsonl", '{"prompt": "x", "images": ["a.png", "c.png"]}', "row 1 column `images`: there is no picture"),
        ("t.jsonl", '{"prompt": "x", "images": "a.png"}', "column `images`: expected a list"),
        ("t.jsonl", '{"prompt": "x", "image_a": "a.png"}', "column `image_b`"),
        ("t.jsonl", '{"prompt": "x", "imags": []}', "unknown column 'imags'; nearest known: images"),
        ("t.jsonl", '{"prompt": 5, "images": ["a.png", "b.png"]}', "column `prompt`: expected words"),
        (
            "t.jsonl",
            '{"prompt": "x", "images": ["a.png", "b.png"], "wanted": 1.5}',
            "column `wanted`: expected a number",
        ),
        ("t.jsonl", '{"prompt": "x", "images": ["a.png", "b.png"], "sensitive": "maybe"}', "expected true or false"),
        ("t.jsonl", '{"prompt": "x", "images": ["a.png", "b.png"], "priority": NaN}', "column `priority`"),
        ("t.jsonl", "[1]", "expected an object"),
        ("t.json", '{"prompt": "x"}', "expected a list of rows"),
        ("t.csv", "prompt,image_a,image_b\nx,a.png\n", "row 2: expected as many cells"),
        ("t.csv", "prompt\n", "holds no rows"),
        ("t.txt", "x", "unknown kind of table"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_taken(table, tmp_path, name, text, words):
    good = '{"prompt": "fine", "images": ["a.png", "b.png"]}\n' if name.endswith("jsonl") else ""
    words = words.replace("row 1", "row 2") if good else words
    with pytest.raises(TastemakerError, match=".") as error:
        read_items(table(name, good + text))
    assert words in str(error.value)


def test_import_is_whole_or_nothing(table, tmp_path, capsys):
    base = str(tmp_path / "a.db")
    row = '{"prompt": "%s", "images": ["a.png", "b.png"]%s}\n'
    good = table("good.jsonl", row % ("one", "") + row % ("two", ', "sensitive": true'))
    words = ["annotate", "import", str(good), "--project", "P", "--database", base]
    assert main(words) == 0 and "2 items" in capsys.readouterr().out
    bad = table("bad.jsonl", row % ("three", "") + row % ("four", ', "gold": {"choice": "c"}'))
    assert main([*words[:2], str(bad), *words[3:]]) == 2
    assert "row 2 column `gold`" in capsys.readouterr().err
    opened = store.open_store(base)
    with opened.reading() as session:
        assert session.execute(select(Item.prompt).order_by(Item.id)).scalars().all() == ["one", "two"]


def act(database, project, login, choose):
    """Answer everything that a person gets; choose: (place of the item's first picture) -> choice as shown."""
    with database.engine.begin() as db:
        view, person = find_project(db, project), people.find(db, login).id
        while tasks := hold(db, view, person, 1, random.Random(0)):
            task = find_task(db, tasks[0]["token"], person)
            given = {"choice": choose(task.shown.index(0))}
            answer(db, view, task, given, Sent(random.randbytes(8).hex(), 1000, "test"))


def run_folder(folder, seeds, offset=0):
    folder.mkdir()
    rows = [{"file": f"{s}.png", "prompt": f"prompt {s // 2}", "seed": s} for s in seeds]
    for row in rows:
        (folder / row["file"]).write_bytes(picture(row["seed"] + offset))
    (folder / "pictures.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


@pytest.mark.parametrize("preset, shown", [("pairs", [2] * 7), ("ranking", [4, 2])])
def test_what_was_sampled_becomes_questions(tmp_path, capsys, preset, shown):
    folder = run_folder(tmp_path / "drawn", range(6))
    rows = [json.loads(line) for line in (folder / "pictures.jsonl").read_text().splitlines()]
    lines = [json.dumps(row | {"prompt": f"prompt {k // 4}"}) for k, row in enumerate(rows)]
    (folder / "pictures.jsonl").write_text("\n".join(lines))
    base = str(tmp_path / "a.db")
    words = ["annotate", "import", str(folder), "--project", "P", "--preset", preset, "--database", base]
    assert main(words) == 0 and f"{len(shown)} items" in capsys.readouterr().out
    with store.open_store(base).reading() as session:
        found = session.execute(select(Item.pictures, Item.hidden).order_by(Item.id)).all()
    assert sorted((len(row.pictures) for row in found), reverse=True) == shown
    assert all(h["model"] == "drawn" for row in found for h in row.hidden)


def test_one_picture_of_each_prompt_cannot_be_compared(tmp_path, capsys):
    folder = run_folder(tmp_path / "drawn", [0, 2, 4])
    base = tmp_path / "a.db"
    assert main(["annotate", "import", str(folder), "--project", "P", "--database", str(base)]) == 2
    assert "draw more with" in capsys.readouterr().err and not base.exists()


def test_people_compare_two_runs_blindly(tmp_path, capsys):
    base, tuned = run_folder(tmp_path / "base", range(12)), run_folder(tmp_path / "tuned", range(2, 14), 500)
    where = str(tmp_path / "a.db")
    assert ask_people(base, tuned, where) == "base or tuned"
    database = store.open_store(where)
    with database.session() as session:
        people.create_person(session, "ann", PASSWORD)
    with pytest.raises(TastemakerError, match="at least 2"):
        read_people(where, "base or tuned")
    count = iter(range(99))
    act(database, "base or tuned", "ann", lambda first: "tie" if next(count) < 2 else "ab"[1 - first])
    found = read_people(where, "base or tuned")
    assert found.answers == 10 and found.ties == 2 and found.runs == (str(base), str(tuned))
    assert found.win_rate.value == pytest.approx(0.9) and found.decided.value == 1.0
    assert found.win_rate.low < 0.9 <= found.win_rate.high
    assert main(["annotate", "preferred", "base or tuned", "--database", where]) == 0
    assert "10 answers, 2 without a preference" in capsys.readouterr().out
    with pytest.raises(TastemakerError, match="share no prompt and seed"):
        ask_people(base, run_folder(tmp_path / "other", range(50, 52)), where)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TastemakerError, match=r"holds no pictures\.jsonl and no model"):
        ask_people(base, tmp_path / "empty", where)
    with pytest.raises(TastemakerError, match="unknown model"):
        ask_people(base, tmp_path / "nothing", where)


@pytest.fixture
def two_runs(tmp_path):
    """(words of `evaluate human`, function that lets a person answer with a choice as of the item)."""
    runs = [str(run_folder(tmp_path / name, range(8), offset)) for name, offset in (("base", 0), ("tuned", 500))]
    where = str(tmp_path / "a.db")
    words = ["evaluate", "human", *runs, "--database", where, "--out", str(tmp_path / "run")]

    def say(login, *choices):
        database, given = store.open_store(where), iter(choices)
        with database.session() as session:
            people.create_person(session, login, PASSWORD)
        as_shown = {0: {"a": "a", "b": "b"}, 1: {"a": "b", "b": "a"}}  # by the place of the item's first picture
        act(database, "base or tuned", login, lambda first: as_shown[first].get(c := next(given), c))

    return words, say


def test_evaluate_human_asks_first_and_reads_later(two_runs, tmp_path, capsys):
    words, say = two_runs
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "project 'base or tuned'" in said and "annotate serve --no-demo --database" in said
    assert main(words) == 0 and "0 of 8 answers so far" in capsys.readouterr().out
    assert not (tmp_path / "run").exists(), "nothing to write yet"
    say("ann", *"bbbbbaa", "tie")
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "tuned preferred to" in said and ": 0.688 [" in said and "8 of 8 answers so far" in said
    assert "of the 7 that prefer one: 0.714 [0.359, 0.918]" in said and "1 without a preference" in said
    result = json.loads((tmp_path / "run" / "result.json").read_text())["second"]
    rate = result["people"]["win rate, a tie half a win"]
    assert result["label"].endswith("tuned") and rate["value"] == 0.6875 and rate["low"] < 0.6875 < rate["high"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "8 answers of people who saw blind pairs" in page and "0.688" in page
    assert main(words) == 0, "read again, over its own earlier page"


def test_evaluate_human_does_not_mix_runs_up_nor_write_over_others(two_runs, tmp_path, capsys):
    words, say = two_runs
    assert main([*words, "--limit", "3"]) == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = str(run_folder(elsewhere / "tuned", range(8), 900))
    assert main([*words[:3], other, *words[4:]]) == 2
    assert "not" in (said := capsys.readouterr().err) and "choose another name with --project" in said
    assert main([*words, "--within", "maker"]) == 2 and "not of two runs" in capsys.readouterr().err
    say("ann", *"bbb")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep")
    assert main(words) == 2 and "is not a run" in capsys.readouterr().err
    assert (tmp_path / "run" / "mine.txt").read_text() == "keep"


def test_evaluate_human_draws_the_pictures_of_models(tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("a red apple\n")
    words = ["evaluate", "human", "tiny-flow", "tiny-flow", "--prompts", str(tmp_path / "prompts.txt"), "--seed", "0"]
    where = str(tmp_path / "a.db")
    assert main([*words, "--database", where]) == 0
    with store.open_store(where).reading() as session:
        row = session.execute(select(Item.prompt, Item.pictures, Item.hidden)).one()
    assert row.prompt == "a red apple" and len(row.pictures) == 2
    assert [h["model"] for h in row.hidden] == ["tiny-flow", "tiny-flow"]


def test_votes_leave_with_their_pictures_and_come_back_as_items(tmp_path, capsys):
    database, _ = filled(tmp_path / "a.db", count=3)
    act(database, "Test", "ann", lambda first: "ab"[first])
    words = ["annotate", "export", "--database", str(tmp_path / "a.db"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    with database.reading() as session:
        votes = votes_of(session)
    assert {v.choice for v in votes.votes} == {"a"} and len(votes.pictures) == 6
    assert all(votes.picture(v.image_a).is_file() for v in votes.votes)
    again = ["annotate", "import", str(tmp_path / "out" / "votes.jsonl"), "--project", "Again"]
    assert main([*again, "--database", str(tmp_path / "a.db")]) == 0
    assert "3 items" in capsys.readouterr().out
    assert main([*words, "--project", "Nothing"]) == 2
    assert "unknown project 'Nothing'" in capsys.readouterr().err


def test_accounts_from_the_command_line(tmp_path, capsys):
    where = str(tmp_path / "a.db")
    assert main(["annotate", "user", "zoe", "--role", "reviewer", "--database", where]) == 0
    password = capsys.readouterr().out.split(": ")[1].strip()
    database = store.open_store(where)
    with database.reading() as session:
        zoe = people.find(session, "zoe")
        assert zoe.role == "reviewer" and people.password_fits(zoe.password, password)
    assert main(["annotate", "user", "zoe", "--password", "another one", "--database", where]) == 0
    with database.reading() as session:
        assert people.find(session, "zoe").role == "annotator" and people.find(session, "zoe").epoch == 2
    assert main(["annotate", "user", "x", "--role", "king", "--database", where]) == 2
    assert main(["annotate", "user", "x", "--password", "short", "--database", where]) == 2


def test_a_new_database_gets_an_admin_once_and_a_demo(tmp_path):
    database = store.open_store(tmp_path / "a.db")
    password = first_admin(database)
    assert first_admin(database) is None
    add_demo(database, count=4)
    with database.reading() as session:
        admin = people.find(session, "admin")
        assert admin.role == "admin" and people.password_fits(admin.password, password)
        rows = session.execute(select(Item.pictures, Item.hidden, Item.prompt)).all()
    assert sorted(len(r.pictures) for r in rows) == [2] * 4 + [4] * 2
    assert all(len(set(r.pictures)) == len(r.pictures) and len({h["model"] for h in r.hidden}) > 1 for r in rows)


def test_stats_say_whether_log_and_state_agree(tmp_path, capsys):
    database, _ = filled(tmp_path / "a.db", count=2)
    act(database, "Test", "ann", lambda first: "tie")
    assert main(["annotate", "stats", "--database", str(tmp_path / "a.db")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["audit"] == [] and found["projects"]["Test"]["counts"]["votes"] == 2
    assert found["projects"]["Test"]["progress"]["counted"] == 2


def test_a_port_that_is_taken_is_one_sentence():
    taken = listen("127.0.0.1", 0)
    taken.listen()
    for host, port in (("127.0.0.1", taken.getsockname()[1]), ("203.0.113.1", 0), ("127.0.0.1", 70_000)):
        with pytest.raises(TastemakerError, match="port"):
            listen(host, port)
    taken.close()


def test_a_missing_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tastemaker.workflows.annotate", None)
    monkeypatch.delattr(sys.modules["tastemaker.workflows"], "annotate", raising=False)
    with pytest.raises(MissingExtra, match=r"tastemaker\[web\]"):
        command.workflow()


def test_an_answer_is_turned_into_the_order_of_the_item_and_back():
    settings = preset_settings("ranking")
    shown = [2, 0, 1]
    kept = canonical(settings, shown, {"slots": [1, 4, 5], "harmful": True})
    assert kept == {"slots": [4, 5, 1], "harmful": True} and as_shown(shown, kept)["slots"] == [1, 4, 5]
    pairs = preset_settings("pairs")
    assert canonical(pairs, [1, 0], {"choice": "a"}) == {"choice": "b"}
    assert as_shown([1, 0], {"choice": "b"}) == {"choice": "a"}


def test_violations_and_gold():
    marks = [{"overall": m} for m in (7, 5, 5)]
    assert violations({"ratings": marks, "slots": [2, 1, 3]}) == [[0, 1]]
    assert violations({"ratings": marks, "slots": [1, 1, 3]}) == [], (
        "an order finer or coarser than the marks is fine"
    )
    assert agrees({"choice": ["a", "tie"]}, {"choice": "tie"}) and not agrees({"choice": "a"}, {"choice": "skip"})
    assert agrees({"slots": [1, 2, 3]}, {"slots": [1, 3, 5]}) and not agrees(
        {"slots": [1, 2, 3]}, {"slots": [2, 1, 3]}
    )


@pytest.mark.parametrize(
    "changes",
    [{"preset": "pears"}, {"consistency": "loud"}, {"overlap": 0}, {"gold_rate": 1.5}, {"quota": -1}, {"slots": 1},
     {"overlap": "many"}, {"colour": 1}, {"lease_seconds": 0}],
)  # fmt: skip
def test_settings_that_cannot_be(changes):
    with pytest.raises(TastemakerError):
        preset_settings(**{"preset": "pairs", **changes})


def test_items_that_do_not_fit_the_project(tmp_path):
    database, project = filled(tmp_path / "a.db", count=1)
    for wrong, words in (
        (items(1, 3), "expected 2 to 2 pictures, got 3"),
        (items(1, gold={"slots": [1, 2]}), "gold `choice`"),
    ):
        with pytest.raises(TastemakerError, match=words), database.session() as session:
            store.add_items(session, project, wrong)
