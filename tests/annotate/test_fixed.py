"""A statement that is compiled once says what `Connection.execute` says: on SQLite and on PostgreSQL."""

import pytest
from annotation_server import filled
from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import DBAPIError

from tastemaker.annotate.database import Item, Picture
from tastemaker.annotate.fixed import Fixed

I, P = Item.__table__, Picture.__table__  # noqa: E741
BY_PLACE = (
    select(I).where(I.c.project_id == bindparam("project")).order_by(I.c.shuffle).offset(bindparam("k")).limit(1)
)
SHAS = {"sha256": "0" * 64, "suffix": ".png", "width": 3, "height": 4}


@pytest.fixture
def db(where, tmp_path):
    database, project = filled(where, folder=tmp_path / "pictures")
    with database.engine.begin() as connection:
        connection.execute(
            update(I).where(I.c.prompt == "prompt 0").values(gold={"choice": ["a", "tie"]}, open=False)
        )
        yield connection, project
    database.close()


def test_rows_are_the_same_value_by_value(db):
    connection, project = db
    fixed, seen = Fixed(BY_PLACE), set()
    for k in range(6):
        values = {"project": project, "k": k}
        plain, row = connection.execute(BY_PLACE, values).first(), fixed.first(connection, values)
        assert row._asdict() == dict(plain._mapping)
        assert [type(x) for x in row] == [type(x) for x in plain]
        seen |= {(row.gold is None, row.open)}
    assert seen == {(True, True), (False, False)}, "JSON, nothing, and both truth values came by"
    assert fixed.first(connection, {"project": project, "k": 6}) is None


def test_what_is_written_is_the_same(db):
    connection, _ = db
    about = Fixed(update(I).where(I.c.prompt == bindparam("which")).values(about=bindparam("said"), sensitive=True))
    assert about.changed(connection, {"which": "prompt 1", "said": {"a": [1, "é"]}}) == 1
    assert about.changed(connection, {"which": "no such prompt", "said": {}}) == 0
    row = connection.execute(select(I.c.about, I.c.sensitive).where(I.c.prompt == "prompt 1")).one()
    assert tuple(row) == ({"a": [1, "é"]}, True)


def test_an_error_is_one_of_sqlalchemy_and_tells_no_values(db):
    connection, _ = db
    add = Fixed(P.insert().returning(P.c.sha256, P.c.width), list(SHAS))
    assert tuple(add.first(connection, SHAS)) == ("0" * 64, 3)
    with connection.begin_nested() as inner, pytest.raises(DBAPIError, match=r"(?i)unique") as error:
        try:
            add.first(connection, SHAS)
        finally:
            inner.rollback()
    assert error.value.orig is not None and error.value.params is None
    with pytest.raises((KeyError, DBAPIError)):
        add.first(connection, {"sha256": "1" * 64})
