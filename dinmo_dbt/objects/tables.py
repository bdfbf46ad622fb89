"""Tables in a bucket: a small database whose every version is an object, and a commit is the creation of the next one.

A transaction works on a copy in memory of the newest version. To commit it creates the object with the next number,
which only one writer can. A writer that comes second asks its statements again of what the first one left: where they
answer the same, its transaction stands on that as well, and is committed there; where they don't, it is refused, and
nothing of it was ever seen by others. A transaction is thus serial to all others without a lock to be left behind.

The newest version is the one with the largest number, and is never removed. A version names those before it, by the
tokens of their writers: so a writer knows whether its own stands, when the reply was lost, when others have built on it
meanwhile, or when it slept so long that its number had been removed and was free again.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from dinmo_dbt.codes import HELD_BY_ANOTHER, STATE_DAMAGED
from dinmo_dbt.errors import StateError
from dinmo_dbt.objects.bucket import Bucket

_KEPT = 3  # versions, for readers that have just listed them
_NAMED = 100  # versions before it that one names
_ROUNDS = 20
_BYTES_MAX = 1 << 30
_FOLDER = "versions"
_NAME = re.compile(r"\d{12}")
# By location: threads of one process wait for each other, and would be refused where many are at it.
_LOCKS: dict[str, threading.RLock] = {}


@dataclass
class Rows:
    """What a statement answered: rows by column name, or how many it changed."""

    found: list[dict[str, Any]] = field(default_factory=list)
    rowcount: int = 0

    def fetchone(self) -> dict[str, Any] | None:
        return self.found[0] if self.found else None

    def fetchall(self) -> list[dict[str, Any]]:
        return self.found


@dataclass(frozen=True)
class _Executed:
    """One statement of a transaction, and its answer."""

    statement: str
    parameters: Any  # a row of them, or several
    many: bool
    answer: Rows | None


@dataclass(frozen=True)
class _Head:
    """The first line of a version, as JSON; the file follows, compressed. `before`: tokens, the latest first."""

    token: str = ""
    before: tuple[str, ...] = ()
    sha256: str = ""
    size: int = 0

    def next(self, file: bytes) -> _Head:
        before = (self.token, *self.before)[:_NAMED] if self.token else ()
        return _Head(secrets.token_hex(16), before, hashlib.sha256(file).hexdigest(), len(file))


class BucketTables:
    """The tables of one state. A transaction within a transaction is part of it; other threads wait."""

    here = False  # processes of other machines are at it

    def __init__(self, bucket: Bucket) -> None:
        self.bucket, self.place, self.schema = bucket, bucket.location, bucket.location
        self._lock = _LOCKS.setdefault(bucket.location, threading.RLock())
        self._number = 0  # of the version in memory; 0 where there is none yet, -1 if it is no version
        self._head = _Head()
        self._database = _empty()
        self._asked: list[_Executed] | None = None  # of the transaction that is open
        self._ahead: float | None = None

    def check(self) -> None:
        """Before the first write of this process: that the store keeps writers apart, and what its clock says."""
        if self._ahead is None:
            self._ahead = self.bucket.check()

    def now(self) -> float:
        """By the store's clock, once it was asked; seconds since the epoch."""
        return self.bucket.clock.now() + (self._ahead or 0.0)

    def exists(self) -> bool:
        with self._lock:
            if self._asked is None:
                self._catch_up()
            return bool(self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])

    @contextmanager
    def transaction(self) -> Iterator[BucketTables]:
        """Statements that hold together: all of them, or none. StateError if the store refuses, or another one was
        first."""
        with self._lock:
            if self._asked is not None:
                yield self
                return
            self._catch_up()
            self._asked = []
            self._database.execute("BEGIN")
            try:
                yield self
                self._commit(self._asked)
            finally:
                self._asked = None
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Rows:
        assert self._asked is not None, "a statement is part of a transaction"
        row = [_plain(value) for value in parameters]
        with self._damage():
            answer = self._run(statement, row)
        self._asked.append(_Executed(statement, row, False, answer))
        return Rows([dict(each) for each in answer.found], answer.rowcount)

    def executemany(self, statement: str, parameters: Iterable[Sequence[Any]], /) -> None:
        assert self._asked is not None, "a statement is part of a transaction"
        rows = [[_plain(value) for value in row] for row in parameters]
        with self._damage():
            self._database.executemany(statement, rows)
        self._asked.append(_Executed(statement, rows, True, None))

    def make(self, tables: dict[str, str], rows: dict[str, str], indexes: Sequence[str]) -> None:
        """The tables, and the rows of `meta` that a new state begins with, unless they are there."""
        try:
            with self.transaction():
                if self.exists():
                    return
                for name, columns in tables.items():
                    self.execute(f"CREATE TABLE {name} ({columns})")
                self.index(indexes)
                self.executemany("INSERT INTO meta VALUES (?, ?)", list(rows.items()))
        except StateError as error:
            made_by_another = error.problems[0].code == HELD_BY_ANOTHER and self.exists()
            if not made_by_another:
                raise

    def columns(self) -> dict[str, dict[str, str]]:
        """What each table has: its columns, and their declared types."""
        with self.transaction():
            tables = [row["name"] for row in self.execute("SELECT name FROM sqlite_master WHERE type = 'table'").found]
            return {
                table: {row["name"]: row["type"] for row in self.execute(f"PRAGMA table_info({table})").found}
                for table in tables
            }

    def index(self, statements: Sequence[str]) -> None:
        for statement in statements:
            self.execute(statement)

    def close(self) -> None:
        """Nothing is held open."""

    # Versions

    def _catch_up(self) -> None:
        """Have the newest version in memory."""
        for _ in range(_ROUNDS):
            newest = max(self._numbers(), default=0)
            if newest == self._number:
                return
            content = self.bucket.read(_object(newest)) if newest else b""
            if content is not None:  # else it was removed, because there is a newer one
                self._load(newest, content)
                return
        raise self._busy()

    def _numbers(self) -> list[int]:
        return [int(name) for name in self.bucket.names(_FOLDER) if _NAME.fullmatch(name)]

    def _load(self, number: int, content: bytes) -> None:
        database, head = _empty(), _Head()
        if number:
            with self._damage():
                head, file = _read(content)
                database.deserialize(file)
                database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        self._database.close()
        self._database, self._number, self._head = database, number, head

    def _commit(self, asked: list[_Executed]) -> None:
        self._database.execute("COMMIT")
        for _ in range(_ROUNDS):
            file = _file(self._database)
            head = self._head.next(file)
            if not file or head.sha256 == self._head.sha256:
                return  # it has only read
            number, self._number = self._number + 1, -1
            created = self.bucket.create(_object(number), _written(head, file))
            numbers = self._numbers()
            if created and number == max(numbers, default=0):
                self._number, self._head = number, head
                self._tidy(numbers)
                return
            self._catch_up()
            if head.token in (self._head.token, *self._head.before):
                return
            self._again(asked)
        raise self._busy()

    def _again(self, asked: list[_Executed]) -> None:
        """The same statements on what others left. StateError DB501 if one of them answers otherwise."""
        self._database.execute("BEGIN")
        try:
            alike = all(self._answers_alike(each) for each in asked)
        except sqlite3.Error:
            alike = False
        self._database.execute("COMMIT" if alike else "ROLLBACK")
        if not alike:
            raise self._busy()

    def _answers_alike(self, asked: _Executed) -> bool:
        if asked.many:
            self._database.executemany(asked.statement, asked.parameters)
            return True
        return self._run(asked.statement, asked.parameters) == asked.answer

    def _tidy(self, numbers: list[int]) -> None:
        old = sorted(numbers)[:-_KEPT]
        with suppress(StateError):  # the next commit tries again
            self.bucket.remove(_object(number) for number in old)

    # Statements

    def _run(self, statement: str, parameters: list[Any]) -> Rows:
        cursor = self._database.execute(statement, parameters)
        names = [column[0] for column in cursor.description or ()]
        return Rows([dict(zip(names, row, strict=True)) for row in cursor.fetchall()], cursor.rowcount)

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError, KeyError, TypeError, OSError):
            raise StateError(
                STATE_DAMAGED,
                "the state is damaged, or is none of dinmo-dbt's; it is left as it is",
                where=self.place,
                hint="restore the objects from a copy, or name another location and start again: insert activations "
                "then by dinmo-dbt state adopt ACTIVATION",
            ) from None

    def _busy(self) -> StateError:
        return StateError(
            HELD_BY_ANOTHER, "another run wrote the state at the same time", where=self.place, hint="try again"
        )


def _empty() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)


def _file(database: sqlite3.Connection) -> bytes:
    """Empty where nothing was ever written, of which SQLite makes no file."""
    return database.serialize() if database.execute("PRAGMA page_count").fetchone()[0] else b""


def _object(number: int) -> str:
    return f"{_FOLDER}/{number:012d}"


def _written(head: _Head, file: bytes) -> bytes:
    packed: bytes = pa.compress(file, codec="zstd", asbytes=True)
    return json.dumps(asdict(head)).encode() + b"\n" + packed


def _read(content: bytes) -> tuple[_Head, bytes]:
    """ValueError if it is not as it was written."""
    line, _, packed = content.partition(b"\n")
    stored = json.loads(line)
    head = _Head(str(stored["token"]), tuple(map(str, stored["before"])), str(stored["sha256"]), int(stored["size"]))
    if not 0 < head.size <= _BYTES_MAX:
        raise ValueError("no size of ours")
    file: bytes = pa.decompress(packed, head.size, codec="zstd", asbytes=True)
    if hashlib.sha256(file).hexdigest() != head.sha256:
        raise ValueError("another content than was written")
    return head, file


def _plain(value: Any) -> Any:
    """A str that is an enum's member as what it says."""
    return str(value) if isinstance(value, str) else value
