"""State in a bucket of an object store, which processes of several machines share.

A process has requests in it: it can end or stop before each that begins a transaction, and before and after each that
creates a version; a request, or the answer to it, can be lost. The store keeps to what the real ones promise: an
object is created once, and listed at once. Time is the store's own, which nobody sets.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from mounted_org import OneClock

from dinmo_dbt.clock import Clock
from dinmo_dbt.objects import Bucket, BucketTables
from dinmo_dbt.state import BucketState
from dinmo_dbt.state.bucket import BucketFiles
from dinmo_dbt.state.marks import Marks

from .places import IN_FLIGHT, NO_STATES, Damage, Place, Told
from .process import Process, current
from .schemas import MEANINGS

_ROOT = "states/one"
_VERSIONS = f"{_ROOT}/versions/"


class Store:
    """Objects by their paths, with the methods of an fsspec file system that are used."""

    def __init__(self, clock: OneClock) -> None:
        self.clock = clock
        self.objects: dict[str, bytes] = {}

    def pipe_file(self, path: str, content: bytes, mode: str) -> None:
        assert mode == "create"
        process = current()
        if process is None or not path.startswith(_VERSIONS):
            self._create(path, content)
        else:
            self._commit(process, partial(self._create, path, content))

    def _create(self, path: str, content: bytes) -> None:
        if path in self.objects:
            raise FileExistsError(path)
        self.objects[path] = content

    def _commit(self, process: Process, act: Any) -> None:
        before = process.hurt
        try:
            self._create_once(process, act)
        except OSError:
            if process.bad is None:  # it is over: who creates a version asks again, and finds out
                process.hurt = before
            raise

    def _create_once(self, process: Process, act: Any) -> None:
        self._reach(process)
        late = process.bad is not None and process.bad.late
        try:
            process.access("commit")
        except OSError as error:
            if error.errno == errno.EIO and late:
                process.around("commit", act)
            raise PermissionError("denied") if error.errno == errno.EROFS else error from None
        process.around("commit", act)

    def cat_file(self, path: str) -> bytes:
        return self._found(path)

    def ls(self, path: str, detail: bool, refresh: bool) -> list[str]:
        process = current()
        if process is not None and f"{path}/" == _VERSIONS:
            process.around("begin", lambda: None)
            self._reach(process)
        found = [name for name in list(self.objects) if name.rpartition("/")[0] == path]
        if not found:
            raise FileNotFoundError(path)
        return found

    def rm_file(self, path: str) -> None:
        self._found(path)
        del self.objects[path]

    def put_file(self, local: str, path: str) -> None:
        process, content = current(), Path(local).read_bytes()
        if process is not None:
            self._reach(process)
        self.objects[path] = content

    def get_file(self, path: str, local: str) -> None:
        content = self._found(path)
        Path(local).write_bytes(content)

    def cp_file(self, path: str, to: str) -> None:
        self.objects[to] = self._found(path)

    def modified(self, path: str) -> datetime:
        self._found(path)
        return datetime.fromtimestamp(self.clock.now(), UTC)

    def _found(self, path: str) -> bytes:
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.objects[path]

    def _reach(self, process: Process) -> None:
        """The store is out of reach: for good, or until it is asked again."""
        bad = process.bad
        if bad is None or bad.kind != "lost" or process.dead:
            return
        number, process.accesses = process.accesses, process.accesses + 1
        if number >= bad.at:
            if bad.late:  # it is asked again
                process.bad = None
            else:
                process.hurt = not process.leaving
            raise ConnectionError("out of reach")


class _StoreClock:
    """A machine whose clock is the store's; what it waits takes no time."""

    def __init__(self, clock: OneClock) -> None:
        self._clock = clock

    def now(self) -> float:
        return float(self._clock.now())

    def monotonic(self) -> float:
        return float(self._clock.now())

    def sleep(self, seconds: float) -> None: ...


class _Files(BucketFiles):
    """With copies in what the process has of a disk."""

    def __init__(self, bucket: Bucket, spare: Path) -> None:
        self._bucket, self._spare = bucket, spare

    @property
    def _scratch(self) -> Path:  # type: ignore[override]
        process = current()
        return process.disk if process else self._spare


class ObjectState(Told, BucketState):
    """State in the bucket, as one process has it."""

    def __init__(self, place: BucketPlace, clock: Clock, marks: Marks, target: str) -> None:
        bucket = place.bucket()
        super().__init__(bucket, BucketTables(bucket), place.spare, clock, marks, target=target)
        self.files = _Files(bucket, place.spare)


class BucketPlace(Place):
    said = "; the state is in a bucket, used by several machines"
    commits = 25
    is_shared = True

    def __init__(self, home: Path, clock: OneClock) -> None:
        self.home, self.store_ = home, Store(clock)
        self.spare = home / "spare"
        self._copies: dict[str, dict[str, bytes]] = {}
        self._numbers = itertools.count(1)

    def bucket(self) -> Bucket:
        return Bucket(f"memory://{_ROOT}", self.store_, _StoreClock(self.store_.clock))

    def ask(self, statement: str) -> list[Any]:
        tables = BucketTables(self.bucket())
        with tables.transaction() as connection:
            return connection.execute(statement).fetchall()

    def names(self) -> list[str]:
        return [row["name"] for row in self.ask("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]

    def new(self) -> None:
        """Its history's store is."""

    def exists(self) -> bool:
        return BucketTables(self.bucket()).exists()

    def disk(self) -> Path:
        made = self.home / f"scratch{next(self._numbers):04}"
        made.mkdir()
        return made

    def fault(self, kind: str) -> str:
        return "lost" if kind in ("rename", "full", "sync") else kind

    def has_written(self, process: Process) -> bool:
        return "commit" in process.seen

    def store(self, clock: Clock, marks: Marks, target: str) -> ObjectState:
        return ObjectState(self, clock, marks, target)

    def copy(self, name: str) -> None:
        self._copies[name] = dict(self.store_.objects)

    def has(self, name: str) -> bool:
        return name in self._copies

    def put_back(self, name: str) -> None:
        self.store_.objects = dict(self._copies[name])

    def drop(self, name: str) -> None:
        self._copies.pop(name, None)

    def files(self) -> Iterator[Path]:
        return (Path(path.removeprefix(f"{_ROOT}/")) for path in self.store_.objects if not path.startswith(_VERSIONS))

    def spools(self) -> set[str]:
        return {row["spool"].rpartition("/")[2] for row in self.ask(IN_FLIGHT)}

    def written(self) -> Path:
        folder = self.home / "written"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name in self.names():
            if name != "daily":  # hashes of keys, in letters that may by chance be a value's
                rows = self.ask(f"SELECT * FROM {name}")
                (folder / f"{name}.txt").write_text("\n".join(str(list(row.values())) for row in rows))
        for path in self.files():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(self.store_.objects[f"{_ROOT}/{path}"])
        return folder

    def contents(self) -> dict[str, Any]:
        """The tables by their rows, since each commit has another token; of a version that can't be read its bytes."""
        files = {str(path): self.store_.objects[f"{_ROOT}/{path}"] for path in self.files()}
        try:
            tables = {name: sorted(str(list(row.values())) for row in self.ask(f"SELECT * FROM {name}"))
                      for name in self.names()}  # fmt: skip
        except Exception:  # noqa: BLE001 - it was damaged
            return files | {"versions": [self.store_.objects[max(self._versions())]]}
        return files | tables

    def _versions(self) -> list[str]:
        return sorted(path for path in self.store_.objects if path.startswith(_VERSIONS))

    def bend(self, chance: random.Random, damages: random.Random) -> Damage:
        what = chance.choice(("a file", "the journal", "the history", "all of it"))
        files = sorted(f"{_ROOT}/{path}" for path in self.files())
        if what == "all of it" and self.has("older"):
            self.put_back("older")
            return Damage("an older copy comes back", of_history=False, comes_back=True)
        if what == "the history":
            return Damage(self._executed(damages.choice(MEANINGS)), of_history=True, comes_back=False)
        if what == "the journal" or not files:
            said = self._bend_object(chance, max(self._versions())) if damages.random() < 0.4 else ""
            return Damage(said or self._executed(damages.choice(NO_STATES)), of_history=False, comes_back=False)
        return Damage(self._bend_object(chance, chance.choice(files)), of_history=False, comes_back=False)

    def _executed(self, statement: str) -> str:
        with BucketTables(self.bucket()).transaction() as connection:
            connection.execute(statement)
        return statement

    def _bend_object(self, chance: random.Random, path: str) -> str:
        content = bytearray(self.store_.objects[path])
        place = chance.randrange(len(content))
        hows = ("a bit flips", "it is cut") + (() if path.startswith(_VERSIONS) else ("it is gone",))
        how = chance.choice(hows)
        if how == "it is gone":
            del self.store_.objects[path]
        else:
            content[place] ^= 1 << chance.randrange(8)
            self.store_.objects[path] = bytes(content[:place]) if how == "it is cut" else bytes(content)
        return f"{how}, {path.removeprefix(_ROOT + os.sep)}"

    def is_of_history(self, where: str) -> bool:
        return where.startswith(f"memory://{_ROOT}")
