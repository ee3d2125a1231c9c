"""A fresh database of each kind, where PostgreSQL is installed."""

import pytest
from annotation_server import postgresql
from sqlalchemy import text

from tastemaker.annotate.database import open_database


@pytest.fixture(scope="session")
def postgres():
    with postgresql() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request, tmp_path):
    if request.param == "sqlite":
        return str(tmp_path / "annotations.db")
    url = request.getfixturevalue("postgres") or pytest.skip("PostgreSQL is not installed")
    server = open_database(url)
    with server.session() as session:
        session.execute(text("DROP SCHEMA public CASCADE"))
        session.execute(text("CREATE SCHEMA public"))
    server.close()
    return url
