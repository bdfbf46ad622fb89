"""A folder of a bucket: objects that are created once and never changed, listed, read and removed.

That an object can be created only where there is none is all that keeps two writers apart, so a store which does not
hold to that is refused (`check`). S3 has it as `If-None-Match: *`, Google as `ifGenerationMatch=0`, Azure as a blob
that may not be overwritten; the three list what was written at once. Credentials are the store's own: what its
command line would use.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dinmo_dbt.clock import Clock
from dinmo_dbt.codes import NO_CONDITIONAL_WRITES, STATE_CONNECTION_LOST, STATE_NOT_OPENED, STATE_NOT_WRITABLE
from dinmo_dbt.errors import StateError, unwritable

# By the scheme of a location: the extra that brings its client.
SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
# A request that gets no answer is made again: to create an object twice does no harm.
TRIES = 5
_OPTIONS: dict[str, dict[str, Any]] = {"s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 60}}}
_PAUSE_S = 0.5
_OF_THE_DISK = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)


class Bucket:
    """What lies below one location such as `s3://bucket/prefix`. Names have slashes. StateError for what the store
    refuses: DB510, DB515 or DB520."""

    def __init__(self, location: str, filesystem: Any, clock: Clock) -> None:
        self.location = location.rstrip("/")
        self.clock, self._files = clock, filesystem
        self._root = self.location.partition("://")[2]

    def create(self, name: str, content: bytes) -> bool:
        """Whether it was created just now, durably. False if there is one of that name: another's, or our own whose
        reply was lost."""
        for left in reversed(range(TRIES)):
            try:
                with self._refusals():
                    self._files.pipe_file(self._path(name), content, mode="create")
            except StateError as error:
                if error.problems[0].code != STATE_CONNECTION_LOST or left == 0:
                    raise
                self.clock.sleep(_PAUSE_S)
            except FileNotFoundError:
                raise self._no_bucket() from None
            except FileExistsError:
                return False
            else:
                return True
        raise AssertionError

    def read(self, name: str) -> bytes | None:
        """None if there is no such object."""
        try:
            with self._refusals():
                content: bytes = self._files.cat_file(self._path(name))
                return content
        except FileNotFoundError:
            return None

    def upload(self, name: str, path: Path) -> None:
        """The file as that object, whatever was there."""
        try:
            with self._refusals():
                self._files.put_file(str(path), self._path(name))
        except FileNotFoundError:
            raise self._no_bucket() from None

    def download(self, name: str, path: Path) -> bool:
        """The object as that file; False if there is none."""
        try:
            with self._refusals():
                try:
                    self._files.get_file(self._path(name), str(path))
                except OSError as error:
                    if error.errno in _OF_THE_DISK:
                        raise unwritable(path, error) from None
                    raise
        except FileNotFoundError:
            return False
        return True

    def copy(self, name: str, to: str) -> None:
        with self._refusals():
            self._files.cp_file(self._path(name), self._path(to))

    def names(self, folder: str) -> list[str]:
        """Of the objects right below it, without the folder; sorted."""
        try:
            with self._refusals():
                found = self._files.ls(self._path(folder), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return sorted(path.rpartition("/")[2] for path in found if not path.endswith("/"))

    def remove(self, names: Iterable[str]) -> None:
        """Those that are there; no error for others."""
        for name in names:
            with suppress(FileNotFoundError), self._refusals():
                self._files.rm_file(self._path(name))

    def check(self) -> float:
        """How far the store's clock is ahead of this machine's, in seconds; refuse a store that creates an object where
        there is one. StateError DB521."""
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
        finally:
            with suppress(StateError):
                self.remove([name])
        # Stores tell whole seconds: below that the machine's clock is as good.
        return ahead if abs(ahead) > 2 else 0.0

    def _modified(self, name: str) -> float:
        with self._refusals():
            moment: datetime = self._files.modified(self._path(name))
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
                hint="the credentials need to list, read, create and delete objects below it",
            ) from None
        except (OSError, TimeoutError) as error:
            raise self._lost(error) from None
        except Exception as error:  # noqa: BLE001 - clients raise their own
            if _is_passing(error):
                raise self._lost(error) from None
            raise StateError(
                STATE_NOT_OPENED, f"the state can't be reached: {_said(error)}", where=self.location
            ) from None

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
            hint="run again: what was sent meanwhile is settled first",
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
            hint=f"pip install 'dinmo-dbt[{SCHEMES[scheme]}]'",
        ) from None
    except Exception as error:  # noqa: BLE001 - and so do they of a location
        raise StateError(STATE_NOT_OPENED, f"the state can't be reached: {_said(error)}", where=location) from None
    return Bucket(location, filesystem, clock)


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _is_passing(error: BaseException) -> bool:
    """Whether a client's own exception is of a connection: by its name, for the classes belong to libraries below."""
    return any(
        word in kind.__name__
        for kind in type(error).__mro__
        for word in ("Timeout", "ConnectionError", "ClientConnect")
    )
