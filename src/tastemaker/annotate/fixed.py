"""Statements of the busiest request, turned into SQL once for each kind of database.

`Connection.execute` finds the cached SQL of a statement anew each time and prepares for everything that a statement
can be, which takes several times as long as SQLite needs to do it. A `Fixed` statement is compiled by SQLAlchemy the
first time, with the same types, and then handed to the driver directly, inside the connection's transaction.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

Convert = Callable[[Any], Any]


class Fixed:
    """columns: of an INSERT without values, the columns that each row has. Values go by the names of the bindparams
    and columns; errors are those of `Connection.execute`."""

    def __init__(self, statement: Any, columns: Sequence[str] | None = None):
        self.statement, self.columns = statement, columns
        self._made: dict[str, _Made] = {}

    def first(self, db: Connection, values: Mapping[str, Any]) -> Any | None:
        """The first row, with its columns as attributes, or None."""
        made = self._of(db.dialect)
        cursor = self._run(db, made, values)
        rows = cursor.fetchall()  # all: a statement that still has rows would hold up the commit
        return made.row(rows[0], cursor.description) if rows else None

    def changed(self, db: Connection, values: Mapping[str, Any]) -> int:
        """Run it; how many rows it changed."""
        return self._run(db, self._of(db.dialect), values).rowcount

    def _of(self, dialect: Dialect) -> _Made:
        made = self._made.get(dialect.name)
        if made is None:
            made = self._made[dialect.name] = _Made(self.statement, self.columns, dialect)
        return made

    def _run(self, db: Connection, made: _Made, values: Mapping[str, Any]) -> Any:
        cursor = db.connection.cursor()
        try:
            cursor.execute(made.sql, made.parameters(values))
        except made.error as error:
            raise DBAPIError(made.sql, None, error) from error
        return cursor


class _Made:
    """A statement for one kind of database."""

    def __init__(self, statement: Any, columns: Sequence[str] | None, dialect: Dialect):
        compiled: SQLCompiler = statement.compile(dialect=dialect, column_keys=columns)
        self.sql, self.order = str(compiled), compiled.positiontup if compiled.positional else None
        self.error = dialect.loaded_dbapi.Error  # type: ignore[attr-defined]
        binds = {name: bind.type.dialect_impl(dialect) for name, bind in compiled.binds.items()}
        writers = {name: kind.bind_processor(dialect) for name, kind in binds.items()}
        self.write = {name: convert for name, convert in writers.items() if convert is not None}
        shown = list(getattr(statement, "exported_columns", ()))
        kinds = {c.name: c.type.dialect_impl(dialect) for c in shown}
        self.kind: Any = namedtuple("Row", list(kinds), rename=True)  # type: ignore[misc]
        self.readers = [partial(kind.result_processor, dialect) for kind in kinds.values()]
        self.read: list[tuple[int, Convert]] | None = None  # (column, how), known with the first row
        brought = {name: bind.value for name, bind in compiled.binds.items() if not bind.required}
        self.given = self._written(brought)

    def parameters(self, values: Mapping[str, Any]) -> Any:
        row = {**self.given, **self._written(values)}
        return row if self.order is None else [row[name] for name in self.order]

    def _written(self, values: Mapping[str, Any]) -> dict[str, Any]:
        row = dict(values)
        for name, convert in self.write.items():
            if name in row:
                row[name] = convert(row[name])
        return row

    def row(self, found: Sequence[Any], description: Sequence[Sequence[Any]]) -> Any:
        """description: of the driver's cursor; its second column is the type that came."""
        if self.read is None:
            readers = (reader(told[1]) for reader, told in zip(self.readers, description, strict=True))
            self.read = [(k, convert) for k, convert in enumerate(readers) if convert is not None]
        cells = list(found)
        for k, convert in self.read:
            cells[k] = convert(cells[k])
        return self.kind._make(cells)
