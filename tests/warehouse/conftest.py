"""Real databases: DuckDB files under tmp_path, and one throw-away Postgres server on loopback for the session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest
import yaml
from postgres_server import Postgres, running, server_programs

from dinmo_dbt.warehouse import Warehouse, connect, plain_duckdb


@dataclass(frozen=True)
class Project:
    """A folder with the two YAML files dbt needs, and the warehouse they lead to."""

    folder: Path
    env: dict[str, str]

    def connect(
        self, *, target: str | None = None, writes: bool = False, show_values: bool = False, **env: str
    ) -> Warehouse:
        return connect(
            self.folder,
            profiles_dir=None,
            profile=None,
            target=target,
            vars={},
            env={**self.env, **env},
            writes=writes,
            show_values=show_values,
        )

    def profiles(self, outputs: dict[str, object], target: str = "dev") -> None:
        written = {"shop": {"target": target, "outputs": outputs}}
        (self.folder / "profiles.yml").write_text(yaml.safe_dump(written), encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dbt_project.yml").write_text("name: shop\nprofile: shop\n", encoding="utf-8")
    made = Project(folder, {"HOME": str(tmp_path)})
    made.profiles({"dev": {"type": "duckdb", "path": "warehouse.duckdb"}})
    return made


@pytest.fixture
def by_dbt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain profile of DuckDB is opened by dbt's adapter, as every other is."""
    monkeypatch.setattr(plain_duckdb, "credentials", lambda written, env: None)


@pytest.fixture
def fill(project: Project) -> Callable[..., None]:
    """Run statements in the project's DuckDB file, which is closed afterwards."""

    def run(*statements: str) -> None:
        with duckdb.connect(str(project.folder / "warehouse.duckdb")) as connection:
            for statement in statements:
                connection.execute(statement)

    return run


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    pytest.importorskip("dbt.adapters.postgres", reason="dbt-postgres is not installed")
    programs = server_programs()
    if programs is None:
        pytest.skip("no Postgres server on this machine: install the `postgresql` package")
    with running(programs) as server:
        yield server
