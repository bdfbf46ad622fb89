"""The history is expendable: whatever has become of it, no command ends for it, and no exit code is its own.

What can be read of a damaged one is kept, row by row, and is all there is to a reader. The first that writes puts the
damaged one aside, never away, and goes on with that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from dinmo_dbt.errors import StateError
from dinmo_dbt.state.damage import HistoryDamaged
from dinmo_dbt.state.sqlite import create
from dinmo_dbt.state.storage import Storage

P = ParamSpec("P")
R = TypeVar("R")


class _OfStore(Protocol):
    @property
    def _store(self) -> Storage: ...


S = TypeVar("S", bound=_OfStore)


def expendable(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Where the history turns out to be damaged, the same once more with what is left of it."""

    @wraps(method)
    def tried(self: S, /, *given: P.args, **named: P.kwargs) -> R:
        try:
            return method(self, *given, **named)
        except HistoryDamaged:
            self._store.salvage_history()
        except (ValueError, TypeError, KeyError, AttributeError):  # of a value in it, if it has one like that
            if not self._store.salvage_history():
                raise
        return method(self, *given, **named)

    return tried


def salvaged(
    source: Any,
    tables: Mapping[str, str],
    checks: Mapping[str, Callable[[Any], object]],
    *,
    without: Collection[str] = (),
) -> tuple[sqlite3.Connection, int]:
    """In memory, the rows of these tables that can be read and hold what theirs hold; and how many do not. The source
    is `without` some of them."""
    kept = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    kept.row_factory = sqlite3.Row
    lost = 0
    for name, columns in tables.items():
        kept.execute(create(name, columns))
        for row in _readable(None if name in without else source, name):
            try:
                checks[name](row)
                held = {column: row[column] for column in row.keys()}  # noqa: SIM118 (SQLite's rows are values, too)
                places = ", ".join("?" * len(held))
                kept.execute(f"INSERT INTO {name} ({', '.join(held)}) VALUES ({places})", tuple(held.values()))
            except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, sqlite3.Error):
                lost += 1
    return kept, lost


def _readable(source: Any, table: str) -> list[Any]:
    """The rows of a table up to where it breaks off."""
    rows: list[Any] = []
    if source is not None:
        with suppress(sqlite3.Error, StateError, UnicodeDecodeError):
            rows.extend(source.execute(f"SELECT * FROM {table}").fetchall())
        if not rows:  # of a page that can't be read: those before it, one by one
            with suppress(sqlite3.Error, StateError, UnicodeDecodeError):
                found = source.execute(f"SELECT * FROM {table}")
                while (row := found.fetchone()) is not None:
                    rows.append(row)
    return rows
