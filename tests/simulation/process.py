"""A process of ours, simulated: each call, write, sync, rename and commit of it is a seam, where it can end, stop, or
find its disk broken.

The seams are put under our code where it leaves Python: `os`, `sqlite3` and the client's session. A process that is
dead does nothing any more: what the code still does while it unwinds fails, and its folder is put back as it was. With
a power cut what was not synced by then is lost too, as far as POSIX and SQLite let it be.
"""

from __future__ import annotations

import errno
import io
import os
import random
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from memory_org import Killed

from dinmo_dbt.state import sqlite

WAKE_MAX_S = 120.0
_running = threading.local()


def current() -> Process | None:
    """The simulated process whose code this thread runs."""
    process: Process | None = getattr(_running, "process", None)
    return process


@dataclass(frozen=True)
class End:
    """At seam number `at`, before or after the act: the process is killed, perhaps by a power cut, or it stops. With
    `among`, only seams whose names begin so are counted."""

    at: int
    after: bool = False
    power: bool = False
    stops: bool = False
    among: str | tuple[str, ...] = ""


@dataclass(frozen=True)
class BadDisk:
    """From disk access number `at` on.

    full: `room` more bytes fit. read_only: nothing can be changed. sync, rename, commit: that one fails; a commit
    whose failure is reported `late` has happened.
    """

    kind: str
    at: int
    room: int = 0
    late: bool = False


@dataclass
class Process:
    """One process and what is to become of it. `disk` is everything it writes to."""

    disk: Path
    end: End | None = None
    bad: BadDisk | None = None
    seed: int = 0
    seen: list[str] = field(default_factory=list)
    accesses: int = 0
    dead: str = ""
    calls: int = 0
    hurt: bool = False  # its disk failed it
    told_of_history: bool = False  # that it can't be kept, or is damaged: that hurts no run
    own: str = "things"  # whose state it works on
    epoch: int = 0  # of its lease, once it has one
    misled: bool = False  # another org answered its login
    is_over: bool = False
    leaving: bool = False  # it gives the lease back; a disk that fails then does no harm
    after_call: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._prefix = str(self.disk)
        self._cut = self.disk.with_name(f"{self.disk.name}.cut")
        self._files: dict[int, str] = {}
        self._room = self.bad.room if self.bad else 0
        self._counted = 0  # of the seams that its end counts
        self._unsynced: dict[str, None] = {}
        self._names: list[_Name] = []
        self._commits: dict[str, bytes] = {}
        self._stopped, self._wakes = threading.Event(), threading.Event()

    # Its life

    def run(self, work: Callable[[], Any]) -> Any:
        """Do `work` as this process. Killed if it died; its folder is then as it was at that instant."""
        assert current() is None
        _running.process = self
        try:
            done = work()
        except BaseException:
            if self.dead:
                raise Killed(self.dead) from None
            raise
        else:
            if self.dead:
                raise Killed(self.dead)
            return done
        finally:
            _running.process = None
            self.is_over = True
            self._stopped.set()
            if self.dead:
                self._bury()

    def around(self, name: str, act: Callable[[], Any], part: Callable[[], Any] | None = None) -> Any:
        """A seam; `part` is what of the act may be done when the process dies before it is."""
        if self.dead:
            raise Killed(name)
        meant = self._is_meant(name)
        self.seen.append(name)
        if meant and self.end and not self.end.after:
            if part and not self.end.stops:
                part()
            self._meet(name, "before")
        done = act()
        if meant and self.end and self.end.after:
            self._meet(name, "after")
        return done

    def _is_meant(self, name: str) -> bool:
        if self.end is None or not name.startswith(self.end.among):
            return False
        self._counted += 1
        return self.end.at == self._counted - 1

    def _meet(self, name: str, when: str) -> None:
        assert self.end
        if self.end.stops:
            if when == "before" and "/composite/sobjects" in name:
                return  # nothing can keep back a collections call once its process has looked: that is not promised
            self._stopped.set()
            assert self._wakes.wait(WAKE_MAX_S), "a stopped process was never woken"
            return
        self.dead = f"{when} {_plain(name)}"
        if self.disk.exists():
            _as_nobody(lambda: shutil.copytree(self.disk, self._cut))
            if self.end.power:
                _as_nobody(self._lose)
        raise Killed(self.dead)

    def _bury(self) -> None:
        shutil.rmtree(self.disk, ignore_errors=True)
        if self._cut.exists():
            self._cut.rename(self.disk)

    # Its disk

    def owns(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and (
            str(path).startswith(self._prefix) or str(path) == os.path.dirname(self._prefix)
        )

    def access(self, kind: str) -> None:
        """An OSError, if that is what this access meets."""
        number, self.accesses = self.accesses, self.accesses + 1
        if self.bad is None or number < self.bad.at or self.dead:
            return
        if self.bad.kind == "read_only":
            self._fail(errno.EROFS)
        if self.bad.kind == "full" and kind in ("create", "mkdir") and not self._room:
            self._fail(errno.ENOSPC)
        if kind == self.bad.kind:
            self.bad = None
            self._fail(errno.EIO)

    def _fail(self, number: int) -> NoReturn:
        self.hurt = not self.leaving
        raise OSError(number, os.strerror(number))

    def open(self, path: Any, flags: int, mode: int) -> int:
        writing = flags & (os.O_WRONLY | os.O_RDWR)
        if not writing:
            descriptor = _Real.open(path, flags, mode)
        else:
            fresh = bool(flags & os.O_CREAT) and not os.path.exists(path)
            self.access("create" if fresh else "open")
            descriptor = self.around(f"open {path}", lambda: _Real.open(path, flags, mode))
            if fresh:
                self._names.append(_Name("create", str(path)))
                self._unsynced[str(path)] = None
        self._files[descriptor] = str(path)
        return descriptor

    def file(self, descriptor: int, closefd: bool) -> io.BufferedWriter:
        return io.BufferedWriter(_Raw(self, descriptor, closefd))

    def write(self, descriptor: int, data: Any, put: Callable[[Any], int]) -> int:
        self.access("write")
        if self.bad is not None and self.bad.kind == "full" and self.accesses > self.bad.at:
            if not self._room:
                self._fail(errno.ENOSPC)
            data = memoryview(data)[: self._room]
            self._room -= len(data)
        path = self._files.get(descriptor, "")
        self._unsynced[path] = None
        half = memoryview(data)[: len(data) // 2]
        return int(self.around(f"write {path}", lambda: put(data), lambda: put(half)))

    def close(self, descriptor: int) -> None:
        self._files.pop(descriptor, None)

    def sync(self, descriptor: int) -> None:
        path = self._files[descriptor]
        self.access("sync")
        self.around(f"sync {path}", lambda: None)
        self._unsynced.pop(path, None)
        self._names = [name for name in self._names if os.path.dirname(name.path) != path]

    def rename(self, call: Callable[..., None], source: Any, target: Any) -> None:
        self.access("rename")
        before = _content(target) if self.end and self.end.power else None
        self.around(f"rename {target}", lambda: call(source, target))
        if str(source) in self._unsynced:
            del self._unsynced[str(source)]
            self._unsynced[str(target)] = None
        self._names.append(_Name("rename", str(target), before))

    def link(self, call: Callable[..., None], source: Any, target: Any) -> None:
        self.access("rename")
        self.around(f"link {target}", lambda: call(source, target))
        self._names.append(_Name("create", str(target)))
        if str(source) in self._unsynced:
            self._unsynced[str(target)] = None

    def unlink(self, call: Callable[..., None], path: Any) -> None:
        if not os.path.lexists(path):
            call(path)
        self.access("unlink")
        before = _content(path) if self.end and self.end.power else None
        self.around(f"unlink {path}", lambda: call(path))
        self._unsynced.pop(str(path), None)
        self._names.append(_Name("unlink", str(path), before))

    def mkdir(self, call: Callable[..., None], path: Any, mode: int) -> None:
        if os.path.lexists(path):
            call(path, mode)
        self.access("mkdir")
        self.around(f"mkdir {path}", lambda: call(path, mode))
        self._names.append(_Name("mkdir", str(path)))

    def commit(self, connection: _Connection, act: Callable[[], Any]) -> Any:
        late = self.bad is not None and self.bad.late
        try:
            self.access("commit")
        except OSError as error:
            if error.errno == errno.EROFS:
                raise sqlite3.OperationalError("attempt to write a readonly database") from None
            if late:
                self.around("commit", act)
            raise sqlite3.OperationalError("disk I/O error") from None
        if self.bad is not None and self.bad.kind == "full" and self.accesses > self.bad.at:
            self.hurt = not self.leaving
            raise sqlite3.OperationalError("database or disk is full")
        if self.end and self.end.power:
            self._keep_for_power_cut(connection)
        return self.around("commit", act)

    def _keep_for_power_cut(self, connection: _Connection) -> None:
        """A commit that SQLite does not sync down to its journal's end is lost with the power."""
        level = sqlite3.Connection.execute(connection, "PRAGMA synchronous").fetchone()[0]
        kept = sqlite3.Connection.execute(connection, "PRAGMA journal_mode").fetchone()[0]
        if level < (2 if kept == "wal" else 3):
            self._commits.setdefault(connection.path, Path(connection.path).read_bytes())
        else:
            self._commits.pop(connection.path, None)

    def _lose(self) -> None:
        """Of the copy that was cut off: half of what is not synced, each by its own chance."""
        chance = random.Random(self.seed)

        def there(path: str) -> Path:
            return Path(str(self._cut) + path.removeprefix(self._prefix))

        for path, content in self._commits.items():
            there(path).write_bytes(content)
        for path in self._unsynced:
            if there(path).is_file():
                os.truncate(there(path), chance.choice((0, there(path).stat().st_size // 2)))
        for name in reversed(self._names):
            if chance.random() < 0.5 and there(name.path).parent.exists():
                name.undo(there(name.path))


@dataclass(frozen=True)
class _Name:
    """A change of a folder that has not been synced."""

    kind: str
    path: str
    before: bytes | None = None

    def undo(self, path: Path) -> None:
        if self.kind == "mkdir":
            shutil.rmtree(path, ignore_errors=True)
        elif self.before is not None:
            path.write_bytes(self.before)
        elif self.kind in ("create", "rename"):
            path.unlink(missing_ok=True)


class _Raw(io.FileIO):
    """A file whose writes are seams."""

    def __init__(self, process: Process, descriptor: int, closefd: bool) -> None:
        super().__init__(descriptor, "wb", closefd=closefd)
        self._process = process

    def write(self, data: Any) -> int:  # type: ignore[override]
        return self._process.write(self.fileno(), data, super().write)

    def close(self) -> None:
        if not self.closed and self.closefd:
            self._process.close(self.fileno())
        super().close()


class _Connection(sqlite3.Connection):
    """A connection whose commits are seams."""

    process: Process | None = None
    path = ""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if self.process is None or not sql.startswith("COMMIT"):
            return super().execute(sql, *parameters)
        done: sqlite3.Cursor = self.process.commit(self, lambda: sqlite3.Connection.execute(self, sql))
        return done

    def executescript(self, script: str) -> sqlite3.Cursor:
        if self.process is None:
            return super().executescript(script)
        self.process.access("write")
        done = super().executescript(script)
        self.process._unsynced.pop(self.path, None)
        return done


class _Real:
    """What is under the seams."""

    open, fdopen, close, dup, fsync = os.open, os.fdopen, os.close, os.dup, os.fsync
    rename, replace, link, unlink, mkdir = os.rename, os.replace, os.link, os.unlink, os.mkdir
    connect = sqlite3.connect


def _open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    process = current()
    if process is None or dir_fd is not None or not process.owns(path):
        descriptor = _Real.open(path, flags, mode, dir_fd=dir_fd)
        if process is not None:
            process.close(descriptor)  # one that Arrow has closed may have had that number
        return descriptor
    return process.open(path, flags, mode)


def _fdopen(descriptor: int, mode: str = "r", *more: Any, closefd: bool = True, **options: Any) -> Any:
    process = current()
    if process is None or mode != "wb" or descriptor not in process._files:
        return _Real.fdopen(descriptor, mode, *more, closefd=closefd, **options)
    return process.file(descriptor, closefd)


def _close(descriptor: int) -> None:
    process = current()
    if process is not None:
        process.close(descriptor)
    _Real.close(descriptor)


def _dup(descriptor: int) -> int:
    process, made = current(), _Real.dup(descriptor)
    if process is not None:
        process.close(made)  # what had that number was closed by Arrow
    if process is not None and descriptor in process._files:
        process._files[made] = process._files[descriptor]
    return made


def _fsync(descriptor: int) -> None:
    process = current()
    if process is None or descriptor not in process._files:
        return _Real.fsync(descriptor)
    return process.sync(descriptor)


def _two_names(name: str) -> Callable[..., None]:
    real = getattr(_Real, name)

    def call(source: Any, target: Any, **options: Any) -> None:
        process = current()
        if process is None or options or not process.owns(target):
            return real(source, target, **options)  # type: ignore[no-any-return]
        return process.link(real, source, target) if name == "link" else process.rename(real, source, target)

    return call


def _unlink(path: Any, *, dir_fd: int | None = None) -> None:
    process = current()
    if process is None or dir_fd is not None or not process.owns(path):
        return _Real.unlink(path, dir_fd=dir_fd)
    return process.unlink(_Real.unlink, path)


def _mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
    process = current()
    if process is None or dir_fd is not None or not process.owns(path):
        return _Real.mkdir(path, mode, dir_fd=dir_fd)
    return process.mkdir(_Real.mkdir, path, mode)


def _connect(database: Any, *more: Any, **options: Any) -> sqlite3.Connection:
    process = current()
    path = re.sub(r"^file://|\?.*$", "", str(database))
    if process is None or not process.owns(path):
        return _Real.connect(database, *more, **options)
    made: _Connection = _Real.connect(database, *more, factory=_Connection, **options)
    made.process, made.path = process, path
    return made


@contextmanager
def seams() -> Iterator[None]:
    """Inside, what a simulated process does passes through its seams; everything else is as ever."""
    os.open, os.fdopen, os.close, os.dup, os.fsync = _open, _fdopen, _close, _dup, _fsync  # type: ignore[assignment]
    os.rename, os.replace, os.link = _two_names("rename"), _two_names("replace"), _two_names("link")  # type: ignore[assignment]
    os.unlink, os.mkdir = _unlink, _mkdir  # type: ignore[assignment]
    sqlite3.connect = _connect  # type: ignore[assignment]
    waits, sqlite.LOCK_WAIT_S = sqlite.LOCK_WAIT_S, 0.0  # what has stopped frees nothing while another one waits
    try:
        yield
    finally:
        for name in ("open", "fdopen", "close", "dup", "fsync", "rename", "replace", "link", "unlink", "mkdir"):
            setattr(os, name, getattr(_Real, name))
        sqlite3.connect = _Real.connect
        sqlite.LOCK_WAIT_S = waits


class Stopped:
    """A process that runs in a thread of its own until it stops at its seam, and goes on when it is woken.

    One of the two threads runs at any time, so a history stays one history.
    """

    def __init__(self, pool: ThreadPoolExecutor, process: Process, work: Callable[[], Any]) -> None:
        self.process = process
        self._done: Future[Any] = pool.submit(process.run, work)
        assert process._stopped.wait(WAKE_MAX_S), "a process neither stops nor ends"

    def __enter__(self) -> Stopped:
        return self

    def __exit__(self, *_: object) -> None:
        """If it was never woken, it is killed."""
        if self.is_waiting:
            self.process.dead = "while it was stopped"
            with suppress(Killed):
                self.wake()

    @property
    def is_waiting(self) -> bool:
        return not self._done.done()

    def wake(self) -> Any:
        """Let it go on to its end: what it returns or raises."""
        self.process._wakes.set()
        return self._done.result(WAKE_MAX_S)


def _as_nobody(act: Callable[[], Any]) -> None:
    """Outside of any process: what the simulation itself does to the disk is no seam."""
    process, _running.process = current(), None
    try:
        act()
    finally:
        _running.process = process


def _content(path: Any) -> bytes | None:
    return Path(path).read_bytes() if os.path.isfile(path) else None


def _plain(seam: str) -> str:
    """A seam as it is told: its file without the folder, and without the part of the name that chance gave it."""
    act, _, path = seam.partition(" ")
    if act.isupper():
        return seam  # a call
    return f"{act} {re.sub(r'^[.]|[.][0-9a-f]{8}([.]tmp)?$|[.]tmp$', '', os.path.basename(path))}".rstrip()
