"""State in a bucket of an object store, for runners without a disk whose warehouse can't keep one.

As in a warehouse: the lease alone decides who writes, by the store's clock. The tables are one small object for each
commit (`dinmo_dbt.objects` says how), and each file of the state is an object of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from dinmo_dbt.clock import Clock
from dinmo_dbt.durable import make_folder
from dinmo_dbt.errors import unwritable
from dinmo_dbt.state.copied import Place, PlaceKind
from dinmo_dbt.state.files import Stored, stored, write_whole
from dinmo_dbt.state.marks import Marks
from dinmo_dbt.state.tables import HISTORY, TABLES, Connection
from dinmo_dbt.state.warehouse import Tables, WarehouseState

if TYPE_CHECKING:
    import pyarrow as pa


class Bucket(Protocol):
    """Objects below one location, as `dinmo_dbt.objects` gives them. Every method may raise StateError."""

    location: str

    def upload(self, name: str, path: Path) -> None: ...
    def download(self, name: str, path: Path) -> bool: ...
    def copy(self, name: str, to: str) -> None: ...
    def names(self, folder: str) -> list[str]: ...
    def remove(self, names: Iterable[str]) -> None: ...


class BucketTables(Tables, Protocol):
    def check(self) -> None:
        """Before the first write: whether the store keeps two writers apart."""


class BucketState(WarehouseState):
    """State below one location of an object store; the first run makes it. `scratch`: a folder for copies of its
    files."""

    own_tables: ClassVar[dict[str, str]] = {**TABLES, **HISTORY}

    def __init__(
        self,
        bucket: Bucket,
        tables: BucketTables,
        scratch: Path,
        clock: Clock,
        marks: Marks | None = None,
        *,
        target: str,
    ) -> None:
        super().__init__(tables, scratch, clock, marks, target=target)
        self.files = BucketFiles(bucket, scratch)
        self._bucket, self._checked = bucket, tables

    @contextmanager
    def connection(self, *, writing: bool, history: bool = False) -> Iterator[Connection]:
        if writing:
            self._checked.check()
        with super().connection(writing=writing, history=history) as connection:
            yield connection

    @property
    def place(self) -> Place:
        return Place(PlaceKind.BUCKET, self._bucket.location)


class BucketFiles:
    """`Files` as objects; read from copies in a scratch folder."""

    def __init__(self, bucket: Bucket, scratch: Path) -> None:
        self._bucket, self._scratch = bucket, scratch

    def put(self, folder: str, name: str, write: Callable[[pa.NativeFile], None]) -> Stored:
        path = make_folder(self._scratch / folder) / name
        write_whole(path, write)
        self._bucket.upload(f"{folder}/{name}", path)
        return stored(path)

    def fetch(self, folder: str, names: Iterable[str]) -> Path:
        place = make_folder(self._scratch / folder)
        for name in names:
            part = place / f".{name}.part"
            if not (place / name).exists() and self._bucket.download(f"{folder}/{name}", part):
                _rename(part, place / name)
        return place

    def names(self, folder: str) -> list[str]:
        return self._bucket.names(folder)

    def remove(self, folder: str, names: Iterable[str]) -> None:
        names = list(names)
        self._bucket.remove(f"{folder}/{name}" for name in names)
        for name in names:
            (self._scratch / folder / name).unlink(missing_ok=True)

    def copy(self, folder: str, to: str) -> None:
        for name in self.names(folder):
            self._bucket.copy(f"{folder}/{name}", f"{to}/{name}")


def _rename(part: Path, path: Path) -> None:
    try:
        part.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
