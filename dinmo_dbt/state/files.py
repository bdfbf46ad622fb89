"""The files of a state, each known by its name, size and checksum."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dinmo_dbt.durable import discard, make_folder, open_file, sync_folder, whole_file
from dinmo_dbt.errors import unwritable

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Stored:
    """A file as the state's pointer knows it."""

    name: str
    sha256: str
    bytes: int


class Files(Protocol):
    """The files of a state: in folders with slashes, each written once, whole or not there."""

    def put(self, folder: str, name: str, write: Callable[[pa.NativeFile], None]) -> Stored:
        """Call `write` with a sink; what it wrote is durable when this returns. StateError DB510 if it can't be."""

    def fetch(self, folder: str, names: Iterable[str]) -> Path:
        """A folder of this machine with these files in it; those that are missing there are missing."""

    def names(self, folder: str) -> list[str]: ...

    def remove(self, folder: str, names: Iterable[str]) -> None:
        """Those that are there; no error for others."""

    def copy(self, folder: str, to: str) -> None:
        """Every file of the folder, into another one, durably."""


@dataclass(frozen=True)
class LocalFiles:
    """`Files` under one folder of a disk."""

    root: Path

    def put(self, folder: str, name: str, write: Callable[[pa.NativeFile], None]) -> Stored:
        path = make_folder(self.root / folder) / name
        write_whole(path, write)
        try:
            return stored(path)
        except OSError as error:  # a run that took over has removed it
            raise unwritable(path, error) from error

    def fetch(self, folder: str, names: Iterable[str]) -> Path:  # noqa: ARG002
        return self.root / folder

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(entry.name for entry in os.scandir(self.root / folder) if Path(entry.path).is_file())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise unwritable(self.root / folder, error) from error

    def remove(self, folder: str, names: Iterable[str]) -> None:
        for name in names:
            try:
                (self.root / folder / name).unlink(missing_ok=True)
            except OSError as error:
                raise unwritable(self.root / folder / name, error) from error

    def copy(self, folder: str, to: str) -> None:
        target = make_folder(self.root / to)
        for name in self.names(folder):
            (target / name).unlink(missing_ok=True)
            os.link(self.root / folder / name, target / name)
        sync_folder(target)


def write_note(path: Path, text: str) -> None:
    """A small file, whole or not at all, that may be lost in a power cut. OSError if it can't be written."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
        temporary.replace(path)
    finally:
        discard(temporary)


def stored(path: Path) -> Stored:
    """What the pointer keeps of a file that is on disk. OSError if it is not."""
    with os.fdopen(open_file(path), "rb") as file:
        return Stored(path.name, hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def stored_of(value: dict[str, Any]) -> Stored:
    return Stored(value["name"], value["sha256"], value["bytes"])


def is_whole(folder: Path, file: Stored) -> bool:
    """Whether the file is the one that was written."""
    try:
        return stored(folder / file.name) == file
    except OSError:
        return False


def first_damaged(folder: Path, files: Sequence[Stored]) -> Stored | None:
    return next((file for file in files if not is_whole(folder, file)), None)


def write_whole(path: Path, write: Callable[[pa.NativeFile], None]) -> None:
    """Call `write` with a sink; the file is at `path` complete and synced, or not at all. StateError on a full disk."""
    import pyarrow as pa

    with whole_file(path) as raw, pa.PythonFile(raw, mode="w") as sink:
        write(sink)
