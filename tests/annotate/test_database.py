"""The log is the truth, leases do not collide, sending twice does no harm: on SQLite and on PostgreSQL."""

import random
import threading
import time
from collections import Counter

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from annotation_server import filled, items
from sqlalchemy import func, inspect, select, text
from sqlalchemy.exc import DBAPIError

from tastemaker.annotate import people, store
from tastemaker.annotate.audit import audit
from tastemaker.annotate.database import Assignment, Base, Event, Item, Membership, database_url, open_database
from tastemaker.annotate.leases import expire, hold
from tastemaker.annotate.migrate import configuration
from tastemaker.annotate.projects import load_project, membership
from tastemaker.annotate.review import decide, queue
from tastemaker.annotate.submit import Conflict, NotYours, Sent, answer, find_task, keep_part, retest, undo
from tastemaker.errors import TastemakerError

RNG = random.Random(0)


@pytest.fixture
def desk(where, tmp_path):
    return Desk(where, tmp_path / "pictures")


class Desk:
    """The parts that a page uses, without the page."""

    def __init__(self, where, folder, **settings):
        self.database, self.key = filled(where, folder=folder, **settings)

    def do(self, act):
        with self.database.engine.begin() as db:
            return act(db, load_project(db, self.key))

    def who(self, login):
        return self.do(lambda db, _: people.find(db, login).id)

    def hold(self, login, ahead=1):
        return self.do(lambda db, project: hold(db, project, self.who_in(db, login), ahead, RNG))

    @staticmethod
    def who_in(db, login):
        return people.find(db, login).id

    def answer(self, login, task, given, token=None):
        def act(db, project):
            found = find_task(db, task["token"], self.who_in(db, login))
            return answer(db, project, found, given, Sent(token or RNG.randbytes(8).hex(), 900, "test"))[0]

        return self.do(act)

    def undo(self, login):
        token = RNG.randbytes(8).hex()
        return self.do(lambda db, project: undo(db, project, self.who_in(db, login), Sent(token)))

    def rows(self, query):
        with self.database.reading() as session:
            return session.execute(query).all()

    def check(self):
        with self.database.reading() as session:
            assert audit(session) == []

    def votes(self, **more):
        with self.database.reading() as session:
            return store.votes(session, **more)


def test_migrations_make_the_tables_that_the_code_has(where):
    database = open_database(where)
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    again = open_database(where)  # what is there already stays
    again.close()


def test_the_log_takes_nothing_back(desk):
    desk.answer("ann", *[desk.hold("ann")[0], {"choice": "a"}])
    for words in ("UPDATE event SET ms = 0", "DELETE FROM event"):
        with pytest.raises(DBAPIError, match="append-only"), desk.database.session() as session:
            session.execute(text(words))


def test_an_answer_is_kept_with_all_that_belongs_to_it(desk):
    task = desk.hold("ann")[0]
    said = desk.answer("ann", task, {"choice": "a"}, "token-123")
    event = desk.rows(select(Event.__table__).where(Event.id == said["event"]))[0]
    assert (event.kind, event.ms, event.client, event.guideline, event.late) == ("answer", 900, "test", 1, False)
    vote = desk.votes()[0]
    assert vote.choice == "ab"[event.shown[0]], "the first picture that was shown, in the order of the item"
    assert vote.about["shown"] == event.shown and vote.about["counted"] and vote.prompt_id.startswith("id-")
    assert vote.annotator.startswith("p-") and "ann" not in vote.annotator
    assert vote.about["hidden"][0]["model"] == "model-0"
    desk.check()


def test_sending_twice_counts_once_and_says_the_same(desk):
    task = desk.hold("ann")[0]
    first = desk.answer("ann", task, {"choice": "tie"}, "token-123")
    again = desk.answer("ann", task, {"choice": "tie"}, "token-123")
    assert again["event"] == first["event"] and again["counted"] and again["again"]
    with pytest.raises(Conflict, match="answered already"):
        desk.answer("ann", task, {"choice": "a"}, "token-456")
    other = desk.hold("ann")[0]
    with pytest.raises(Conflict, match="client_token was used before"):
        desk.answer("ann", other, {"choice": "a"}, "token-123")
    assert len(desk.votes()) == 1
    desk.check()


def test_a_resend_that_comes_after_an_undo_does_not_bring_the_answer_back(desk):
    task = desk.hold("ann")[0]
    desk.answer("ann", task, {"choice": "a"}, "token-123")
    assert desk.undo("ann")["token"] == task["token"]
    assert desk.answer("ann", task, {"choice": "a"}, "token-123")["again"]
    assert desk.votes() == []
    desk.answer("ann", task, {"choice": "tie"}, "token-456")
    assert [v.choice for v in desk.votes()] == ["tie"]
    desk.check()


def test_an_undo_that_is_sent_twice_takes_back_one_answer(desk):
    for _ in range(2):
        desk.answer("ann", desk.hold("ann")[0], {"choice": "a"})
    sent = Sent("undo-once")
    back = [desk.do(lambda db, p: undo(db, p, desk.who_in(db, "ann"), sent)) for _ in range(2)]
    assert back[0] == back[1] and len(desk.votes()) == 1
    desk.check()


def test_nobody_gets_the_task_of_another(desk):
    task = desk.hold("ann")[0]
    with pytest.raises(NotYours):
        desk.answer("bob", task, {"choice": "a"})
    with pytest.raises(NotYours):
        desk.answer("bob", {"token": "made-up"}, {"choice": "a"})


def test_a_person_gets_an_item_once_and_an_item_has_as_many_answers_as_wanted(where, tmp_path):
    desk = Desk(where, tmp_path / "p", count=5, overlap=2)
    for login in ("ann", "bob", "eve"):
        while tasks := desk.hold(login):
            desk.answer(login, tasks[0], {"choice": "a"})
    often = Counter(v.prompt_id for v in desk.votes())
    assert set(often.values()) == {2} and len(often) == 5
    assert max(Counter((v.prompt_id, v.annotator) for v in desk.votes()).values()) == 1
    desk.check()


def test_two_people_never_get_the_last_place(where, tmp_path):
    desk = Desk(where, tmp_path / "p", count=8)
    given, barrier = [], threading.Barrier(3)

    def take(login):
        barrier.wait()
        given.extend(t["token"] for t in desk.hold(login, ahead=8))

    threads = [threading.Thread(target=take, args=(name,)) for name in ("ann", "bob", "eve")]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    held = desk.rows(select(Assignment.item_id).where(Assignment.state == "leased"))
    assert len(given) == len(held) and max(Counter(held).values()) == 1 and len(held) == 8
    desk.check()


def test_a_lease_that_ran_out_is_free_for_others_and_a_late_vote_is_kept_but_counts_once(where, tmp_path):
    desk = Desk(where, tmp_path / "p", count=1)
    task = desk.hold("ann")[0]
    assert desk.hold("bob") == []
    assert desk.do(lambda db, _: expire(db, time.time() + 10_000)) == 1
    desk.answer("bob", desk.hold("bob")[0], {"choice": "tie"})
    said = desk.answer("ann", task, {"choice": "a"}, "late-token")
    assert said["late"] and not said["counted"]
    assert [v.choice for v in desk.votes()] == ["tie"]
    late = [v for v in desk.votes(every=True) if v.about["late"]]
    assert len(late) == 1 and not late[0].about["counted"]
    again = desk.answer("ann", task, {"choice": "a"}, "late-token")
    assert again["again"] and not again["counted"]
    desk.check()


def test_a_late_vote_counts_where_the_place_is_still_free(where, tmp_path):
    desk = Desk(where, tmp_path / "p", count=1)
    task = desk.hold("ann")[0]
    desk.do(lambda db, _: expire(db, time.time() + 10_000))
    said = desk.answer("ann", task, {"choice": "a"})
    assert said["late"] and said["counted"] and len(desk.votes()) == 1 and desk.hold("bob") == []
    desk.check()


def test_a_lease_that_ran_out_comes_back_to_its_person_as_it_was(where, tmp_path):
    desk = Desk(where, tmp_path / "p", count=1)
    task = desk.hold("ann")[0]
    desk.do(lambda db, _: expire(db, time.time() + 10_000))
    assert desk.hold("ann")[0] == task
    desk.check()


def test_undo_gives_the_task_back_with_its_answer_and_skips_are_limited(where, tmp_path):
    desk = Desk(where, tmp_path / "p", skip_limit=1)
    task = desk.hold("ann")[0]
    desk.answer("ann", task, {"choice": "a"})
    back = desk.undo("ann")
    assert back["token"] == task["token"] and back["draft"]["choice"] == "a" and desk.undo("ann") is None
    assert desk.answer("ann", task, {"choice": "skip", "reason": "unclear"})["counted"] is False
    other = desk.hold("ann")[0]
    assert other["token"] != task["token"]
    with pytest.raises(Conflict, match="skips are used"):
        desk.answer("ann", other, {"choice": "skip", "reason": "unclear"})
    desk.check()
    assert desk.undo("ann")["token"] == task["token"]
    desk.answer("ann", task, {"choice": "b"})
    assert [v.choice for v in desk.votes()] != ["skip"] and len(desk.votes()) == 1
    desk.check()


def test_a_skip_is_exported_and_its_place_is_free(where, tmp_path):
    desk = Desk(where, tmp_path / "p", count=1)
    desk.answer("ann", desk.hold("ann")[0], {"choice": "skip", "reason": "discomfort"})
    assert [(v.choice, v.about["reason"]) for v in desk.votes()] == [("skip", "discomfort")]
    assert desk.hold("ann") == [] and len(desk.hold("bob")) == 1
    desk.check()


def test_quota(where, tmp_path):
    desk = Desk(where, tmp_path / "p", quota=2)
    for _ in range(2):
        desk.answer("ann", desk.hold("ann", ahead=1)[0], {"choice": "a"})
    assert desk.hold("ann") == [] and len(desk.hold("bob", ahead=5)) == 2


def gold(count, right="a", testing=True):
    return items(count, gold={"choice": right}, testing=testing)


@pytest.mark.parametrize("right, status", [(3, "qualified"), (1, "failed")])
def test_the_test_decides_who_works(where, tmp_path, right, status):
    desk = Desk(where, tmp_path / "p", tests=gold(4), qualification=4, threshold=0.75)
    for k in range(4):
        task = desk.hold("ann", ahead=9)[0]
        shown = desk.rows(select(Assignment.shown).where(Assignment.token == task["token"]))[0][0]
        truth = "ab"[shown.index(0)]
        desk.answer("ann", task, {"choice": truth if k < right else "tie"})
    assert desk.undo("ann") is None, "a test is not taken back"
    member = desk.do(lambda db, project: membership(db, project, desk.who_in(db, "ann")))
    assert (member.status, member.gold_seen, member.gold_right, member.done) == (status, 4, right, 0)
    assert len(desk.hold("ann")) == (status == "qualified")
    assert desk.votes() == [] and len(desk.votes(every=True)) == 4
    desk.check()
    if status == "failed":
        desk.do(lambda db, project: retest(db, project, desk.who_in(db, "ann")))
        assert desk.hold("ann") == [], "every test item was seen"


def test_hidden_gold_looks_like_work(where, tmp_path):
    desk = Desk(where, tmp_path / "p", count=3, tests=gold(3, testing=False), gold_rate=0.5)
    seen = []
    while tasks := desk.hold("ann"):
        seen.append(tasks[0])
        desk.answer("ann", tasks[0], {"choice": "a"})
    kinds = Counter(k for (k,) in desk.rows(select(Assignment.kind)))
    assert kinds["gold"] >= 1 and kinds["work"] == 3
    assert len({tuple(sorted(t)) for t in seen}) == 1, "the page cannot tell them apart"
    assert {v.about.get("right") for v in desk.votes(every=True)} >= {None}
    desk.check()


def test_repeats_come_swapped_and_do_not_count(where, tmp_path):
    desk = Desk(where, tmp_path / "p", count=12, repeat_rate=1.0)
    while tasks := desk.hold("ann"):
        desk.answer("ann", tasks[0], {"choice": "a"})
    rows = desk.rows(select(Assignment.item_id, Assignment.kind, Assignment.shown))
    first = {r.item_id: r.shown for r in rows if r.kind == "work"}
    repeats = [r for r in rows if r.kind == "repeat"]
    assert repeats and all(r.shown == first[r.item_id][::-1] for r in repeats)
    assert len(desk.votes()) == 12 and len(desk.votes(every=True)) == 12 + len(repeats)
    desk.check()


def test_a_reviewer_accepts_rejects_and_relabels(where, tmp_path):
    desk = Desk(where, tmp_path / "p", count=3, review=1.0)
    for _ in range(3):
        desk.answer("ann", desk.hold("ann")[0], {"choice": "tie"})
    rev = desk.who("rev")
    waiting = desk.do(lambda db, project: queue(db, project.id, rev))
    assert len(waiting) == 3 and desk.do(lambda db, project: queue(db, project.id, desk.who_in(db, "ann"))) == []
    verdicts = [("accept", None), ("reject", None), ("relabel", {"choice": "both_bad"})]
    for row, (verdict, given) in zip(waiting, verdicts):
        desk.do(lambda db, project: decide(db, project, rev, row.token, verdict, given, "why"))  # noqa: B023
        with pytest.raises(Conflict):
            desk.do(lambda db, project: decide(db, project, rev, row.token, "accept"))  # noqa: B023
    assert Counter(v.choice for v in desk.votes()) == {"tie": 1, "both_bad": 1}
    desk.check()
    assert desk.hold("ann") == [] and len(desk.hold("bob", 5)) == 1, "the rejected item goes to somebody else"
    assert desk.undo("ann") is None, "what a reviewer has seen stays"


def rating(overall, alignment=4, fidelity=4):
    return {"overall": overall, "alignment": alignment, "fidelity": fidelity, "problems": ["body"]}


@pytest.mark.parametrize("rule", ["warn", "block", "off"])
def test_three_stages_and_the_rule_of_consistency(where, tmp_path, rule):
    desk = Desk(where, tmp_path / "p", count=1, pictures=3, preset="imagereward", consistency=rule)
    task = desk.hold("ann")[0]
    prompt = {"category": "animals", "problems": ["violent"], "unclear": False}
    sent = lambda: Sent(RNG.randbytes(8).hex())  # noqa: E731
    for part in ({"prompt": prompt}, {"picture": 1, "rating": rating(6)}):
        desk.do(lambda db, p: keep_part(db, p, find_task(db, task["token"], desk.who_in(db, "ann")), part, sent()))  # noqa: B023
    draft = desk.hold("ann")[0]["draft"]
    assert draft["prompt"] == prompt and draft["ratings"] == [None, rating(6), None], "kept as it was shown"
    full = {"prompt": prompt, "ratings": [rating(7), rating(6), rating(2)], "slots": [2, 1, 5]}
    said = desk.answer("ann", task, full)
    logged = desk.rows(select(Event.__table__).where(Event.about.is_not(None), Event.kind.in_(("answer", "blocked"))))
    if rule == "off":
        assert said["violations"] == [] and not any("violations" in e.about for e in logged)
    else:
        assert (
            said["violations"] == [[0, 1]]
            and logged[0].about["violations"]
            and bool(said.get("blocked")) == (rule == "block")
        )
    if rule == "block":
        desk.answer("ann", task, {**full, "slots": [1, 2, 5]})
    with desk.database.reading() as session:
        ranks, marks = store.rankings(session), store.ratings(session)
    assert len(ranks) == 1 and len(marks) == 9 and marks[0].about["problems"] == ["body"]
    shown = ranks[0].about["shown"]
    by_place = [ranks[0].slots[k] for k in shown]
    assert by_place == ([1, 2, 5] if rule == "block" else [2, 1, 5])
    overall = {m.image: m.value for m in marks if m.scale == "overall"}
    assert [overall[ranks[0].images[k]] for k in shown] == [7, 6, 2]
    desk.check()


def test_erasing_a_person_pseudonymises_the_log_and_is_logged(desk):
    desk.answer("ann", desk.hold("ann")[0], {"choice": "a"})
    before, key = desk.votes()[0].annotator, desk.who("ann")
    with desk.database.session() as session:
        after = people.erase(session, key)
    assert desk.votes()[0].annotator == after != before
    with desk.database.reading() as session:
        log = list(store.raw_events(session))
        assert people.find(session, "ann") is None
    assert [e["about"] for e in log if e["kind"] == "erase"] == [{"by": None}]
    assert before not in str(log) and "'ann'" not in str(log)
    with pytest.raises(TastemakerError, match="erased already"), desk.database.session() as session:
        people.erase(session, key)
    with pytest.raises(TastemakerError, match="only admin"), desk.database.session() as session:
        people.erase(session, people.find(session, "admin").id)


def test_the_audit_finds_what_does_not_fit(desk):
    desk.answer("ann", desk.hold("ann")[0], {"choice": "a"})
    with desk.database.session() as session:
        session.execute(text("UPDATE item SET taken = taken + 1"))
        session.execute(text("UPDATE assignment SET state = 'expired'"))
        session.execute(text("UPDATE membership SET done = 7"))
    with desk.database.reading() as session:
        said = " ".join(audit(session))
    assert "is taken 2 times" in said and "its log says answered" in said and "done of person" in said


def test_a_checkpoint_empties_the_log_of_writes_and_waits_for_no_reader(tmp_path):
    desk = Desk(tmp_path / "a.db", tmp_path / "p")
    log = tmp_path / "a.db-wal"
    for _ in range(3):
        desk.answer("ann", desk.hold("ann")[0], {"choice": "a"})
    desk.database.checkpoint()
    length = log.stat().st_size
    for _ in range(2):
        desk.answer("ann", desk.hold("ann")[0], {"choice": "b"})
        desk.database.checkpoint()
    assert 0 < log.stat().st_size == length, "the log began anew"
    with desk.database.reading() as session:
        session.execute(select(Event)).all()
        desk.answer("bob", desk.hold("bob")[0], {"choice": "b"})
        began = time.monotonic()
        desk.database.checkpoint()
        assert time.monotonic() - began < 5
    assert len(desk.votes()) == 6
    desk.check()


def test_a_database_of_the_first_schema_is_brought_up_to_date_with_what_it_holds(where, tmp_path):
    desk = Desk(where, tmp_path / "p")
    task = desk.hold("ann")[0]
    engine = desk.database.engine
    with engine.begin() as connection:
        command.downgrade(configuration(connection), "0001")
        assert "version" in {c["name"] for c in inspect(connection).get_columns("item")}
    desk.database.close()
    again = open_database(where)
    with again.reading() as session:
        assert "version" not in {c["name"] for c in inspect(session.connection()).get_columns("item")}
    desk.answer("ann", task, {"choice": "a"})
    desk.check()


def test_a_picture_is_kept_once_and_shown_without_what_hangs_on_it(desk):
    with desk.database.reading() as session:
        shas = session.execute(select(Item.pictures)).scalars().all()
        folder = store.store_of(session)
    sha = shas[0][0]
    assert b"secret-model" in folder.original(sha, ".png").read_bytes()
    assert b"secret-model" not in folder.shown(sha).read_bytes()
    files = list(folder.folder.rglob("*.png"))
    assert len(files) == 2 * len({s for row in shas for s in row})


def test_a_bad_item_leaves_nothing_of_its_file(desk):
    count = desk.rows(select(func.count(Item.id)))[0][0]
    bad = items(2)
    bad[1] = type(bad[1])("prompt", [b"no picture", b""], where="row 2")
    with pytest.raises(TastemakerError, match="row 2.*cannot be decoded"), desk.database.session() as session:
        store.add_items(session, desk.key, bad)
    assert desk.rows(select(func.count(Item.id)))[0][0] == count


def test_urls_and_files():
    assert database_url("postgres://me@host/base") == "postgresql+psycopg://me@host/base"
    assert database_url("a.db").startswith("sqlite:////")
    with pytest.raises(TastemakerError, match="mysql"):
        open_database("mysql://me@host/base")
    with pytest.raises(TastemakerError, match="cannot open the database") as error:
        open_database("postgresql://me:secret@127.0.0.1:1/base")
    assert "secret" not in str(error.value)


def test_a_file_that_is_no_database_is_one_sentence(tmp_path):
    (tmp_path / "a.db").write_text("this is a text file and not a database at all" * 100)
    with pytest.raises(TastemakerError, match="cannot open the database"):
        open_database(tmp_path / "a.db")


def test_members_are_counted_for_each_project(desk):
    desk.hold("ann")
    assert len(desk.rows(select(Membership.annotator_id))) == 1
