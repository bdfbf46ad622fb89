"""A command's folder for temporary files: gone with the command, or after a kill with the next one."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "dinmo-"
_OURS = re.compile(rf"{_PREFIX}[a-z0-9_]{{8}}")  # as tempfile names them
_TRIES = 100


@contextmanager
def scratch_folder(parent: Path | None) -> Iterator[Path]:
    """A private folder in `parent`, or where temporary files go, that no other command removes. What killed commands
    left in `parent` goes first: each holds a lock on its own, which goes with its process. OSError if it can't be made.
    """
    if parent is not None:
        _clear_up(parent)
    for _ in range(_TRIES):
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent, ignore_cleanup_errors=True) as name:
            held = _locked(name)
            if held is None:
                continue  # another command took it for one that was left, before the lock was ours
            try:
                yield Path(name)
            finally:
                os.close(held)
            return
    raise BlockingIOError("other commands keep removing it")


def _clear_up(parent: Path) -> None:
    with suppress(OSError):  # what can't be removed is in nobody's way
        for entry in [each for each in os.scandir(parent) if _OURS.fullmatch(each.name)]:
            held = _locked(entry.path)
            if held is not None:
                shutil.rmtree(entry.path, ignore_errors=True)
                os.close(held)


def _locked(path: str) -> int | None:
    """A descriptor of the folder with its lock; None if it is another's, or is not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), Path(path).stat()):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None
