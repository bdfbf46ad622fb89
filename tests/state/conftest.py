"""Worlds whose state is in a folder, a DuckDB file, a real Postgres and a bucket of an S3 server: one contract."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import duckdb
import pytest
from memory_org import Trip, WatchedBucketState, WatchedWarehouseState, World
from warehouse.conftest import Postgres, Project, postgres, project

from dinmo_dbt.objects import BucketTables, open_bucket
from dinmo_dbt.warehouse.connection import Warehouse, connect

__all__ = ["postgres", "project"]

_SCHEMAS = itertools.count(1)
KINDS = ("local", "duckdb", "postgres", "bucket")


class WarehouseWorld(World):
    """A world whose state is a schema of a warehouse. Each `new_runner` has a connection and a scratch of its own."""

    def __init__(self, folder: Path, warehouse: Callable[[], Warehouse], schema: str) -> None:
        super().__init__(folder)
        self.schema, self._warehouse = schema, warehouse
        folder.mkdir()
        self.new_runner()

    def new_runner(self) -> None:
        self.scratch = self.folder / f"scratch{next(_SCHEMAS)}"
        self.tables = self._warehouse().tables(self.schema)

    def state(self, trip: Trip | None = None) -> WatchedWarehouseState:  # type: ignore[override]
        state = WatchedWarehouseState(self.tables, self.scratch, self.clock, target=self.target)
        state.trip = trip or Trip()
        return state


class BucketWorld(World):
    """A world whose state is in a bucket. Each `new_runner` has a client's view and a scratch of its own."""

    def __init__(self, folder: Path, location: str) -> None:
        super().__init__(folder)
        self.location = location
        folder.mkdir()
        self.new_runner()

    def new_runner(self) -> None:
        self.scratch = self.folder / f"scratch{next(_SCHEMAS)}"
        self.bucket = open_bucket(self.location, self.clock)
        self.tables = BucketTables(self.bucket)

    def state(self, trip: Trip | None = None) -> WatchedBucketState:  # type: ignore[override]
        state = WatchedBucketState(self.bucket, self.tables, self.scratch, self.clock, target=self.target)
        state.trip = trip or Trip()
        return state


@pytest.fixture(params=KINDS)
def new_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], World]]:
    """Makes worlds with empty states of one kind."""
    numbers = itertools.count(1)
    if request.param == "local":
        yield lambda: World(tmp_path / f"state{next(numbers)}")
        return
    if request.param == "bucket":
        place = f"{request.getfixturevalue('s3')}/{next(_SCHEMAS)}"
        yield lambda: BucketWorld(tmp_path / f"world{next(numbers)}", f"{place}/{next(numbers)}")
        return
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dbt_project.yml").write_text("name: shop\nprofile: shop\n", encoding="utf-8")
    project = Project(folder, {"HOME": str(tmp_path)})
    project.profiles({"dev": {"type": "duckdb", "path": str(tmp_path / "shop.duckdb")}})
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        project.profiles({"dev": server.output()})
    with ExitStack() as stack:
        if request.param == "duckdb":
            # A file that is open already opens at once. That we let go of it is for test_warehouse.py to see.
            stack.enter_context(duckdb.connect(str(tmp_path / "shop.duckdb")))

        def opened() -> Warehouse:
            warehouse = connect(
                folder, profiles_dir=None, profile=None, target=None, vars={}, env=project.env, writes=True
            )
            stack.callback(warehouse.close)
            return warehouse

        shared = opened()
        runner = opened if request.param == "postgres" else lambda: shared
        yield lambda: WarehouseWorld(tmp_path / f"world{next(numbers)}", runner, f"dinmo {next(_SCHEMAS)}")
    shutil.rmtree(folder)


@pytest.fixture
def any_world(new_world: Callable[[], World]) -> World:
    return new_world()
