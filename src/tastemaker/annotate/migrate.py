"""The schema's history, run when a database is opened. The steps lie in `migrations/versions`."""

from __future__ import annotations

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.engine import Engine

FOLDER = Path(__file__).with_name("migrations")
LOCK = 7_240_116_553  # any number that others are unlikely to use


def upgrade(engine: Engine) -> None:
    """Bring the database to the newest schema. Several processes may call it at once."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        command.upgrade(configuration(connection), "head")


def configuration(connection: object) -> Config:
    """Alembic's settings for a connection that is open."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
