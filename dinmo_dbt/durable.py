"""A file that must survive: written whole, synced, then put in place; readable by its owner alone. And the one way to
read a file that a user may have replaced by anything."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dinmo_dbt.errors import unwritable

BYTES_MAX = 1 << 30


def read_file(path: Path, most: int = -1) -> bytes:
    """Its content, or the first `most` bytes. What is no file is an OSError that says what it is instead, at once: to
    open a fifo or a device as a file is opened can wait for ever. So is one larger than any of ours, or of dbt's."""
    descriptor = open_file(path)
    with os.fdopen(descriptor, "rb") as file:
        if most < 0 and os.fstat(descriptor).st_size > BYTES_MAX:
            raise OSError(errno.EFBIG, f"it is larger than {BYTES_MAX:,} bytes", str(path))
        return file.read(most)


def open_file(path: Path) -> int:
    """A descriptor to read from. OSError if there is no file, or something that is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        found = next((word for is_kind, word in _KINDS if is_kind(kind)), "something else")
        raise OSError(errno.EINVAL, f"it is {found}, not a file", str(path))
    return descriptor


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a fifo"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """What is written is at `path`, complete and synced, once the block has ended well; else nothing changes there.
    StateError DB510 on a full disk."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                yield file
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        discard(temporary)


def make_folder(folder: Path) -> Path:
    """The folder, made if need be with its parents, for its owner alone; durable, so that what is synced in it is."""
    if folder.is_dir():
        return folder
    try:
        for each in (*reversed(folder.parents), folder):  # mkdir(parents=True) would open the parents to all
            if not each.is_dir():
                each.mkdir(exist_ok=True, mode=0o700)
                sync_folder(each.parent)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def discard(temporary: Path) -> None:
    """Remove a file that was not finished. Where even that is refused it stays, and nothing names it."""
    with suppress(OSError):
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
