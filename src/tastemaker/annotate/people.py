"""Accounts: names, passwords, roles, and how a person is forgotten."""

from __future__ import annotations

import re
import secrets
import time
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import bindparam, func, select, update
from sqlalchemy.engine import Connection, Row
from sqlalchemy.orm import Session

from ..errors import TastemakerError, UnknownName
from .database import Annotator
from .log import record

ROLES = ("annotator", "reviewer", "admin")
LOGIN = re.compile(r"[\w.@+-]{1,64}")
LEAST_PASSWORD, MOST_PASSWORD = 8, 256
Access = Connection | Session


@cache
def hasher() -> PasswordHasher:
    """Argon2id with 19 MiB, two passes, one lane (OWASP password storage cheat sheet, 2023)."""
    return PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


def new_password() -> str:
    """About 95 bits, in letters that are not mistaken for each other."""
    letters = "abcdefghijkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(5)) for _ in range(4))


def create_person(db: Access, login: str, password: str, role: str = "annotator", by: int | None = None) -> int:
    """Its id. Raises TastemakerError for a login that is taken or has other characters, and a short password."""
    if not LOGIN.fullmatch(login):
        raise TastemakerError(f"expected a login of at most 64 letters, digits or . @ + - _, got {login!r}")
    if role not in ROLES:
        raise UnknownName("role", role, ROLES)
    if find(db, login) is not None:
        raise TastemakerError(f"the login '{login}' is taken; choose another")
    row = {
        "login": login,
        "pseudonym": _pseudonym(),
        "password": hashed(password),
        "role": role,
        "epoch": 0,
        "created_at": time.time(),
    }
    key = db.execute(Annotator.__table__.insert().values(**row)).inserted_primary_key[0]  # type: ignore
    record(db, "person", annotator_id=key, about={"role": role, "by": by})
    return key


def hashed(password: str) -> str:
    if not LEAST_PASSWORD <= len(password) <= MOST_PASSWORD:
        raise TastemakerError(
            f"expected a password of {LEAST_PASSWORD} to {MOST_PASSWORD} characters, got {len(password)}"
        )
    return hasher().hash(password)


def find(db: Access, login: str) -> Row | None:
    return db.execute(select(Annotator.__table__).where(Annotator.login == login)).first()


_BY_ID = select(Annotator.__table__).where(Annotator.id == bindparam("key"))


def by_id(db: Access, key: int) -> Row | None:
    return db.execute(_BY_ID, {"key": key}).first()


def password_fits(password_hash: str | None, password: str) -> bool:
    """Takes as long for a person who does not exist, so that the time tells nothing."""
    try:
        return hasher().verify(password_hash or _nobody(), password) and password_hash is not None
    except (Argon2Error, InvalidHashError):
        return False


@cache
def _nobody() -> str:
    return hasher().hash(secrets.token_hex())


def set_password(db: Access, key: int, password: str, by: int | None = None) -> None:
    """A new password; every session that the person has is void."""
    values = {"password": hashed(password), "epoch": Annotator.epoch + 1}
    db.execute(update(Annotator).where(Annotator.id == key).values(**values))
    record(db, "password", annotator_id=key, about={"by": by})


def set_role(db: Access, key: int, role: str, by: int | None = None) -> None:
    """Raises TastemakerError for an unknown role, and where no admin would be left."""
    if role not in ROLES:
        raise UnknownName("role", role, ROLES)
    person = by_id(db, key)
    if person is not None and person.role == "admin" and role != "admin":
        _keep_an_admin(db)
    db.execute(update(Annotator).where(Annotator.id == key).values(role=role, epoch=Annotator.epoch + 1))
    record(db, "role", annotator_id=key, about={"role": role, "by": by})


def erase(db: Access, key: int, by: int | None = None) -> str:
    """Forget who a person was: login and password go, the pseudonym is replaced by a new one that nobody can link.

    The answers stay, under the new pseudonym. The log gets an entry that says so, with neither the old nor the new.
    Returns the new pseudonym. Raises TastemakerError where there is no such person or no admin would be left.
    """
    person = by_id(db, key)
    if person is None or person.erased_at is not None:
        raise TastemakerError("there is no such person, or they are erased already")
    if person.role == "admin":
        _keep_an_admin(db)
    fresh = _pseudonym()
    values = {"login": None, "password": None, "pseudonym": fresh, "erased_at": time.time(), "role": "annotator"}
    db.execute(update(Annotator).where(Annotator.id == key).values(**values, epoch=Annotator.epoch + 1))
    record(db, "erase", annotator_id=key, about={"by": by})
    return fresh


def _keep_an_admin(db: Access) -> None:
    living = (Annotator.role == "admin") & Annotator.erased_at.is_(None)
    if (db.execute(select(func.count()).select_from(Annotator).where(living)).scalar() or 0) < 2:
        raise TastemakerError("this is the only admin; make another one first")


def _pseudonym() -> str:
    return "p-" + secrets.token_hex(6)


def everybody(db: Access) -> list[Row]:
    living = Annotator.erased_at.is_(None)
    return list(db.execute(select(Annotator.__table__).where(living).order_by(Annotator.id)))
