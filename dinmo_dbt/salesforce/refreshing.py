"""The refresh token of an org that gives a new one with each login: kept before the old one is given up.

One small file for each token that dinmo.yml gives, for its owner alone, beside the state and no part of it: it holds
the token that is valid now. A new one in dinmo.yml starts over. Logins come one at a time on this machine: the lock is
held from before the token is read until the next one is on disk. The file is written before the request too: a full
disk is met before the old token is spent, and that a login died between is known.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dinmo_dbt.codes import REFRESH_TOKEN_UNUSABLE
from dinmo_dbt.durable import make_folder, read_file, whole_file
from dinmo_dbt.errors import AuthError, StateError, unwritable
from dinmo_dbt.org import Secret

FOLDER = "logins"
_WAIT_S, _LOOK_S = 120.0, 0.25
_BYTES_MAX = 64 * 1024


@dataclass
class Kept:
    """The token to log in with, while its file is locked. `in_doubt`: an earlier login with it had no answer."""

    path: Path
    token: Secret
    rotated: bool  # else it is dinmo.yml's own, which is not written again
    in_doubt: bool

    def before(self) -> None:
        """About to be sent."""
        self._write(asked=True)

    def refused(self) -> None:
        """The login server took it not, and said so: this login left no doubt, an earlier one's stays."""
        self._write(asked=self.in_doubt)

    def answered(self, rotated: str | None) -> None:
        """The login server took it; `rotated` is the next one, if it gave one."""
        if rotated is not None:
            self.token, self.rotated = Secret(rotated), True
        self._write(asked=False)

    def _write(self, *, asked: bool) -> None:
        document = {"refresh_token": self.token.reveal() if self.rotated else None, "asked": asked}
        with _naming_the_file(), whole_file(self.path) as file:
            file.write(json.dumps(document).encode())


@contextmanager
def kept(folder: Path, given: Secret, pause: Callable[[float], None]) -> Iterator[Kept]:
    """The token that descends from the given one, locked. AuthError DB616 if its file can't be used; StateError DB510
    if it can't be written, with the old token still good."""
    with _naming_the_file():
        make_folder(folder)
        if not (folder / ".gitignore").exists():
            with whole_file(folder / ".gitignore") as file:
                file.write(b"*\n")
    name = hashlib.sha256(given.reveal().encode()).hexdigest()[:24]
    with _locked(folder / f"{name}.lock", pause):
        yield _read(folder / f"{name}.json", given)


@contextmanager
def _naming_the_file() -> Iterator[None]:
    """A login that fails over a file says what the file is for."""
    try:
        yield
    except StateError as error:
        error.add_hint("the org's refresh token is kept there from login to login, since it may give a new one")
        raise


def _read(path: Path, given: Secret) -> Kept:
    try:
        info = os.lstat(path)
        if info.st_mode & 0o077 or info.st_uid != os.getuid():
            raise _unusable(path, "other users may read or change it", "chmod 600 it, and see that it is yours")
        found = json.loads(read_file(path, _BYTES_MAX))
        token, asked = found["refresh_token"], found["asked"]
        if not isinstance(token, str | None) or not isinstance(asked, bool):
            raise TypeError
    except FileNotFoundError:
        return Kept(path, given, rotated=False, in_doubt=False)
    except (OSError, ValueError, KeyError, TypeError):
        raise _unusable(path, "it can't be read", "authorize the app again, put the new refresh token into dinmo.yml's "
                        "variable or file, and remove this file") from None  # fmt: skip
    return Kept(path, Secret(token) if token else given, rotated=bool(token), in_doubt=asked)


def _unusable(path: Path, why: str, advice: str) -> AuthError:
    return AuthError(
        REFRESH_TOKEN_UNUSABLE, f"the kept refresh token can't be used: {why}", where=str(path), hint=advice
    )


@contextmanager
def _locked(path: Path, pause: Callable[[float], None]) -> Iterator[None]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unwritable(path, error) from None
    try:
        for _ in range(int(_WAIT_S / _LOOK_S)):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pause(_LOOK_S)
        else:
            raise StateError(
                REFRESH_TOKEN_UNUSABLE, f"another process has been logging in for {_WAIT_S:g} seconds", where=str(path),
                hint="does a command hang? End it, and run again",
            )  # fmt: skip
        yield
    finally:
        os.close(descriptor)
