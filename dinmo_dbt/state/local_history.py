"""The history in a state folder: an SQLite file that is used while it is whole, and what is left of it from then on."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from dinmo_dbt.durable import sync_folder
from dinmo_dbt.errors import StateError
from dinmo_dbt.state import activity
from dinmo_dbt.state.damage import HistoryDamaged, history_damaged
from dinmo_dbt.state.expendable import salvaged
from dinmo_dbt.state.sqlite import Database, ForNow, format_of
from dinmo_dbt.state.tables import FORMAT, HISTORY, HISTORY_INDEXES, TABLES


class LocalHistory:
    """`refuse_other_journal` raises what is wrong with the format of the state as a whole, which comes first.
    `report_damage` is called with how many entries can't be read, `report_loss` when what is left can't be kept."""

    def __init__(
        self,
        path: Path,
        refuse_other_journal: Callable[[], None],
        report_damage: Callable[[int], None],
        report_loss: Callable[[], None],
    ) -> None:
        self.path = path
        self._file = Database(path, {"meta": TABLES["meta"], **HISTORY}, _script, history_damaged)
        self._refuse_other_journal = refuse_other_journal
        self._report_damage, self._report_loss = report_damage, report_loss
        self._remains: sqlite3.Connection | None = None  # in memory: what readers have until somebody writes

    def exists(self) -> bool:
        return self._remains is not None or self._file.exists()

    def take_back(self) -> None:
        """Take back a commit that was cut off. If that can't be, the readers find out."""
        if self._file.was_cut_off:
            with suppress(StateError), self._file.connection(writing=True):
                pass

    @contextmanager
    def connection(self, *, writing: bool) -> Iterator[sqlite3.Connection]:
        if self._remains is not None and writing:
            self._put_aside(self._remains)
        if self._remains is not None:
            yield self._remains
            return
        with self._whole(writing=writing) as connection:
            yield connection

    @contextmanager
    def _whole(self, *, writing: bool) -> Iterator[sqlite3.Connection]:
        """HistoryDamaged whatever keeps the file from being used, but for what goes by: a full disk, another writer."""
        try:
            with ExitStack() as stack:
                before = None if writing else self._file.before_commit()
                if before is not None:
                    connection = stack.enter_context(closing(before))
                else:
                    connection = stack.enter_context(self._file.connection(writing=writing))
                if format_of(self._file, connection) != FORMAT:
                    self._refuse_other_journal()
                    raise self._damaged()
                self._file.refuse_other_tables(connection)
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise self._damaged() from error
        except (HistoryDamaged, ForNow):
            raise
        except StateError as error:
            if error.problems[0].where in map(str, (self.path, *self._file.beside)):
                raise self._damaged() from error
            raise

    def _damaged(self) -> StateError:
        return history_damaged(str(self.path))

    def salvage(self) -> int:
        with ExitStack() as stack:
            source = None
            with suppress(sqlite3.Error, StateError):
                source = stack.enter_context(closing(self._file.raw()))
            self._remains, lost = salvaged(source, HISTORY, activity.CHECKS)
        self._report_damage(lost)
        return lost

    def _put_aside(self, remains: sqlite3.Connection) -> None:
        """The damaged file gets another name, with what is beside it, and what is left of it goes on under its own.
        Where that can't be done, what is left goes on in memory, to the end of the command."""
        aside = f".damaged-{secrets.token_hex(4)}"
        try:
            for each in (self.path, *self._file.beside):
                with suppress(FileNotFoundError):  # none is there, or somebody has moved it away
                    each.rename(each.with_name(each.name.replace(self.path.name, f"{self.path.name}{aside}", 1)))
            sync_folder(self.path.parent)
            with self._file.connection(writing=True) as connection:
                for name in HISTORY:
                    for row in remains.execute(f"SELECT * FROM {name}"):
                        places = ", ".join("?" * len(row))
                        connection.execute(f"INSERT OR IGNORE INTO {name} VALUES ({places})", tuple(row))
        except (OSError, StateError):
            self._report_loss()
            return
        self._remains = None


def _script() -> str:
    indexes = " ".join(f"{index};" for index in HISTORY_INDEXES)
    return f"{indexes} INSERT INTO meta VALUES ('format', '{FORMAT}');"
