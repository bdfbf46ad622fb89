"""A folder of a bucket: objects that are created once and never changed, listed, read and removed.

That an object can be created only where there is none is all that keeps two writers apart, so a store which does not
hold to that is refused (`check`). S3 has it as `If-None-Match: *`, Google as `ifGenerationMatch=0`, Azure as a blob
that may not be overwritten; the three list what was written at once. Credentials are the store's own: what its
command line would use.
"""

from __future__ import annotations

import errno
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from dinmo_dbt.clock import Clock
from dinmo_dbt.codes import NO_CONDITIONAL_WRITES, STATE_CONNECTION_LOST, STATE_NOT_OPENED, STATE_NOT_WRITABLE
from dinmo_dbt.config.project import BUCKET_SCHEMES
from dinmo_dbt.errors import StateError, unwritable

# A request that gets no answer is made again, by us alone: of tries within tries nobody knows the end.
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 20, "retries": {"total_max_attempts": 1}}}
}
_PAUSES_S = (0.5, 1.0, 2.0, 4.0)
_PATIENCE_S = 45.0  # since the first try: after it there is no other
_TRY_S = 30.0  # and the bytes' own time
_BYTES_A_SECOND = 1 << 20
_HASTY_S = 5.0  # one try, where the one before got no answer
_DOWNLOAD_S = 600.0  # whose size is not known; one that stands still ends sooner
_OF_THE_DISK = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)
_FOR_GOOD = (errno.EREMCHG, errno.ENOSYS, errno.EPERM, errno.ENAMETOOLONG)
_PASSING = (
    *("Timeout", "Connection", "ClientConnect", "HTTPClientError", "Disconnected", "PayloadError", "IncompleteRead"),
    *("ResponseParser", "ServiceRequest", "ServiceResponse"),
)
_LOGINS = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_PROFILE or a role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS or a service account",
    "az": "AZURE_STORAGE_CONNECTION_STRING or an identity",
}


class Bucket:
    """What lies below one location such as `s3://bucket/prefix`. Names have slashes. StateError for what the store
    refuses: DB510, DB515 or DB520."""

    def __init__(self, location: str, filesystem: Any, clock: Clock) -> None:
        self.location = location.rstrip("/")
        self.clock, self._files = clock, filesystem
        self._root = self.location.partition("://")[2]
        self._is_lost = False  # the last request got no answer, however often it was made

    def create(self, name: str, content: bytes) -> bool:
        """Whether it was created just now, durably. False if there is one of that name: another's, or our own whose
        reply was lost."""
        try:
            self._ask(partial(self._files.pipe_file, self._path(name), content, mode="create"), _time_of(len(content)))
        except FileNotFoundError:
            raise self._no_bucket() from None
        except FileExistsError:
            return False
        return True

    def read(self, name: str) -> bytes | None:
        """None if there is no such object."""
        try:
            content: bytes = self._ask(partial(self._files.cat_file, self._path(name)), _DOWNLOAD_S)
        except FileNotFoundError:
            return None
        return content

    def upload(self, name: str, path: Path) -> None:
        """The file as that object, whatever was there."""
        seconds = _time_of(path.stat().st_size)
        try:
            self._ask(partial(self._files.put_file, str(path), self._path(name)), seconds)
        except FileNotFoundError:
            raise self._no_bucket() from None

    def download(self, name: str, path: Path) -> bool:
        """The object as that file; False if there is none."""

        def get(**bound: float) -> None:
            try:
                self._files.get_file(self._path(name), str(path), **bound)
            except OSError as error:
                if error.errno in _OF_THE_DISK:
                    raise unwritable(path, error) from None
                raise

        try:
            self._ask(get, _DOWNLOAD_S)
        except FileNotFoundError:
            return False
        return True

    def copy(self, name: str, to: str) -> None:
        """If it is there; who needs it finds out."""
        with suppress(FileNotFoundError):
            self._ask(partial(self._files.cp_file, self._path(name), self._path(to)), _DOWNLOAD_S)

    def names(self, folder: str) -> list[str]:
        """Of the objects right below it, without the folder; sorted."""
        try:
            found = self._ask(partial(self._files.ls, self._path(folder), detail=False, refresh=True))
        except FileNotFoundError:
            return []
        return sorted(path.rpartition("/")[2] for path in found if not path.endswith("/"))

    def remove(self, names: Iterable[str]) -> None:
        """Those that are there; no error for others."""
        for name in names:
            with suppress(FileNotFoundError):
                self._ask(partial(self._files.rm_file, self._path(name)))

    def _ask(self, act: Callable[..., Any], seconds: float = _TRY_S) -> Any:
        """What the client answers, each try within that time. Whatever is asked here may be done twice. Once the store
        gave no answer for long, each request that follows is made once and briefly, until one is answered: a command
        that ends has several left."""
        end = self.clock.monotonic() + _PATIENCE_S
        pauses = iter(() if self._is_lost else _PAUSES_S)
        while True:
            try:
                with self._refusals():
                    answer = act(**self._bound(_HASTY_S if self._is_lost else seconds))
            except StateError as error:
                if error.problems[0].code != STATE_CONNECTION_LOST:
                    raise
                pause = next(pauses, None)
                if pause is None or self.clock.monotonic() > end:
                    self._is_lost = True
                    raise
                self.clock.sleep(pause)
            else:
                self._is_lost = False
                return answer

    def _bound(self, seconds: float) -> dict[str, float]:
        """What ends a call of fsspec's clients that have an event loop, as those of all three stores do."""
        return {"timeout": seconds} if getattr(self._files, "async_impl", False) else {}

    def check(self) -> float:
        """How far the store's clock is ahead of this machine's, in seconds; refuse a store that creates an object where
        there is one, and credentials that may not create or delete. StateError DB521, DB510."""
        name = f"probe/{secrets.token_hex(8)}"
        try:
            before = self.clock.now()
            self.create(name, b"1")
            ahead = self._modified(name) - (before + self.clock.now()) / 2
            if self.create(name, b"2"):
                raise StateError(
                    NO_CONDITIONAL_WRITES,
                    "the store lets two writers create the same object, so two runs could write the state at once",
                    where=self.location,
                    hint="keep the state in a store that honours conditional writes (If-None-Match), in the warehouse "
                    "or in a folder",
                )
        except StateError:
            with suppress(StateError):
                self.remove([name])
            raise
        self.remove([name])
        # Stores tell whole seconds: below that the machine's clock is as good.
        return ahead if abs(ahead) > 2 else 0.0

    def _modified(self, name: str) -> float:
        moment: datetime = self._ask(lambda **_: self._files.modified(self._path(name)))
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """FileNotFoundError and FileExistsError pass: what they mean depends on what was asked."""
        try:
            yield
        except (FileNotFoundError, FileExistsError, StateError):
            raise
        except PermissionError as error:
            raise StateError(
                STATE_NOT_WRITABLE,
                f"no permission for the state: {_said(error)}",
                where=self.location,
                hint="renew the credentials if they have expired; they need to list, read, create and delete objects "
                "below it",
            ) from None
        except Exception as error:  # noqa: BLE001 - clients raise their own
            if _is_passing(error):
                raise self._lost(error) from None
            raise _unreachable(self.location, error) from None

    def _no_bucket(self) -> StateError:
        return StateError(
            STATE_NOT_OPENED,
            "the state can't be written: there is no such bucket",
            where=self.location,
            hint="make the bucket first, or correct `state.location` of dinmo.yml",
        )

    def _lost(self, error: Exception) -> StateError:
        return StateError(
            STATE_CONNECTION_LOST,
            f"the connection to the state was lost: {_said(error)}",
            where=self.location,
            hint="run again once it answers: what was sent meanwhile is settled first",
        )


def open_bucket(location: str, clock: Clock) -> Bucket:
    """The client for it. StateError DB515 if it is not installed, or takes no such location."""
    scheme = location.partition("://")[0]
    try:
        import fsspec

        options = {"use_listings_cache": False, "skip_instance_cache": True, **_OPTIONS.get(scheme, {})}
        filesystem, _ = fsspec.core.url_to_fs(location, **options)
    except ImportError as error:
        raise StateError(
            STATE_NOT_OPENED,
            f"the client for {scheme}:// is not installed ({error.name or error})",
            where=location,
            hint=f"pip install 'dinmo-dbt[{BUCKET_SCHEMES[scheme]}]'",
        ) from None
    except Exception as error:  # noqa: BLE001 - and so do they of a location
        raise _unreachable(location, error) from None
    if BUCKET_SCHEMES[scheme] == "s3":
        filesystem.retries = 1
    return Bucket(location, filesystem, clock)


def _unreachable(location: str, error: Exception) -> StateError:
    login = _LOGINS[BUCKET_SCHEMES.get(location.partition("://")[0], "s3")]
    return StateError(
        STATE_NOT_OPENED,
        f"the state can't be reached: {_said(error)}",
        where=location,
        hint=f"look at the location, and at this machine's login to the store: {login}",
    )


def _time_of(size: int) -> float:
    return _TRY_S + size / _BYTES_A_SECOND


def _said(error: Exception) -> str:
    """Without what follows the `?` of an address: a signature may be in it."""
    said = re.sub(r"\?[^\s\"']+", "", " ".join(str(error).split()))[:300]
    return said or ("no answer" if isinstance(error, TimeoutError) else type(error).__name__)


def _is_passing(error: BaseException) -> bool:
    """Whether it may go by itself: by the status, or by the name of a client's own exception, for the classes belong to
    libraries below."""
    if isinstance(error, OSError):
        return error.errno not in _FOR_GOOD
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    if isinstance(status, int):
        return status >= 500 or status in (408, 429)
    return any(word in kind.__name__ for kind in type(error).__mro__ for word in _PASSING)
