"""Where a history keeps its state: in a folder, or in a schema of a warehouse, which is a DuckDB file or Postgres."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dinmo_dbt.clock import Clock
from dinmo_dbt.state import LocalState
from dinmo_dbt.state.marks import Marks
from dinmo_dbt.state.store import Store

from .process import Process, current

HISTORY = "history.db"
MEANINGS = (
    "UPDATE run SET detail = substr(detail, 2)", "UPDATE run SET detail = '[]'", "UPDATE run SET started = 'x'",
    "UPDATE run SET status = 1, finished = 'x'", "UPDATE activity SET since = 'x'", "DROP TABLE standing",
    "UPDATE activity SET invocations = '{}'", "UPDATE meta SET value = '99'", "DELETE FROM meta",
    """UPDATE run SET detail = '{"counts": []}'""", "UPDATE run SET name = x'ff'", "DROP TABLE run",
)  # fmt: skip
NO_STATES = (
    "UPDATE meta SET value = 'x'", "DROP TABLE batch", "DROP TABLE pending", "UPDATE activation SET files = 'x'",
    "UPDATE activation SET files = '[{}]'",
)  # fmt: skip
IN_FLIGHT = "SELECT spool FROM batch WHERE state NOT IN ('settled', 'abandoned')"


class Told:
    """A state that tells its process which writer it is."""

    @contextmanager
    def locked(self, *activation: Any) -> Iterator[Any]:
        with super().locked(*activation) as state:  # type: ignore[misc]
            process = current()
            assert process is not None
            process.epoch = state.epoch
            state.kept = nullcontext  # its thread waits for minutes of real time, which never pass here
            try:
                yield state
            finally:
                process.leaving = True

    @property
    def history(self) -> Any:
        """What the run before left out tells how long a row waits and nothing else, so it may be out of reach."""
        runs = super().history  # type: ignore[misc]
        read = runs._before

        def before(record: Any) -> Any:
            process = current()
            if process is None:
                return read(record)
            leaving, process.leaving = process.leaving, True
            try:
                return read(record)
            finally:
                process.leaving = leaving

        runs._before = before
        return runs


class FolderState(Told, LocalState):
    """State in a folder."""


@dataclass(frozen=True)
class Damage:
    """What was done, and to what. `of_history`: to nothing else. `comes_back`: all of it is an older copy."""

    said: str
    of_history: bool
    comes_back: bool


class Place(ABC):
    """Copies are known by their names. `is_shared`: processes of other machines are at it, so that of one that is gone
    only the lease tells."""

    said = ""
    commits = 12  # of a run, about
    is_shared = False

    @abstractmethod
    def new(self) -> None:
        """Nothing is there."""

    @abstractmethod
    def exists(self) -> bool: ...
    @abstractmethod
    def fault(self, kind: str) -> str:
        """What kind of `BadDisk` a process meets here where that one is drawn."""

    @abstractmethod
    def has_written(self, process: Process) -> bool: ...
    @abstractmethod
    def disk(self) -> Path:
        """What a new process writes to."""

    @abstractmethod
    def store(self, clock: Clock, marks: Marks, target: str) -> Store: ...
    @abstractmethod
    def copy(self, name: str) -> None: ...
    @abstractmethod
    def has(self, name: str) -> bool: ...
    @abstractmethod
    def put_back(self, name: str) -> None: ...
    @abstractmethod
    def drop(self, name: str) -> None: ...
    @abstractmethod
    def files(self) -> Iterator[Path]: ...
    @abstractmethod
    def spools(self) -> set[str]:
        """Of batches that are neither settled nor abandoned, as the journal's own table says."""

    @abstractmethod
    def written(self) -> Path:
        """A folder with all that it holds, to be read and not changed."""

    @abstractmethod
    def contents(self) -> dict[str, Any]:
        """What holds the state, part by part."""

    @abstractmethod
    def bend(self, chance: random.Random, damages: random.Random) -> Damage: ...
    @abstractmethod
    def is_of_history(self, where: str) -> bool:
        """Whether an error there is one of the history, where nothing else is damaged."""


class Folder(Place):
    def __init__(self, home: Path) -> None:
        self._home, self._folder = home, home / "state"

    def new(self) -> None:
        """Its history's folder is."""

    def fault(self, kind: str) -> str:
        return kind

    def has_written(self, process: Process) -> bool:
        return bool(process.accesses)

    def exists(self) -> bool:
        return self._folder.exists()

    def disk(self) -> Path:
        return self._folder

    def store(self, clock: Clock, marks: Marks, target: str) -> Store:
        return FolderState(self._folder, clock, marks, target=target)

    def copy(self, name: str) -> None:
        self.drop(name)
        shutil.copytree(self._folder, self._home / name)

    def has(self, name: str) -> bool:
        return (self._home / name).exists()

    def put_back(self, name: str) -> None:
        shutil.rmtree(self._folder)
        shutil.copytree(self._home / name, self._folder)

    def drop(self, name: str) -> None:
        shutil.rmtree(self._home / name, ignore_errors=True)

    def files(self) -> Iterator[Path]:
        return (Path(found, name) for found, _, names in os.walk(self._folder) for name in names)

    def spools(self) -> set[str]:
        with closing(sqlite3.connect(self._folder / "state.db")) as database:
            return {spool.rpartition("/")[2] for (spool,) in database.execute(IN_FLIGHT).fetchall()}

    def written(self) -> Path:
        return self._folder

    def contents(self) -> dict[str, Any]:
        kept = (".db", ".parquet", ".arrow")
        found = (path for path in self._folder.rglob("*") if path.suffix in kept)
        return {str(path.relative_to(self._folder)): path.read_bytes() for path in found}

    def bend(self, chance: random.Random, damages: random.Random) -> Damage:
        how = chance.choice(("a bit flips", "it is cut", "it is gone", "an older copy comes back"))
        files = sorted(path for path in self._folder.rglob("*") if path.suffix in (".db", ".parquet", ".arrow"))
        bent = chance.choice(files)
        content = bytearray(bent.read_bytes())
        place = chance.randrange(len(content))
        comes_back = how == "an older copy comes back" and self.has("older")
        if comes_back:
            self.put_back("older")
        elif bent.name == HISTORY and chance.random() < 0.6:  # a valid database that holds something else
            how = _executed(bent, chance.choice(MEANINGS))
        elif bent.name == "state.db" and damages.random() < 0.5:
            how = _executed(bent, damages.choice(NO_STATES))
        elif bent.match("snapshots/*/*/*/*.parquet") and damages.random() < 0.5:
            how = "rows are gone from it"
            with suppress(OSError):  # it was damaged before
                pq.write_table(pq.read_table(bent).slice(1), bent)
        elif how == "it is cut":
            os.truncate(bent, place)
        elif how == "it is gone" and bent.name != "state.db":  # a state that is not there is a new one
            bent.unlink()
        else:
            content[place] ^= 1 << chance.randrange(8)
            bent.write_bytes(content)
        of_history = bent.name.startswith(HISTORY) and not comes_back
        return Damage(f"{how}, {bent.relative_to(self._folder)}", of_history, comes_back)

    def is_of_history(self, where: str) -> bool:
        return where.startswith(str(self._folder / HISTORY))


def _executed(database: Path, statement: str) -> str:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement)
    return statement
