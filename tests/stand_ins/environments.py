"""`python -m stand_ins.environments NAME`: the virtual environments of a stand-in, made or renewed in build/stand-ins.

A stand-in's server pins what we don't, and a warehouse's adapter pins what our own environment has newer: so each has
an environment of its own, next to the one that runs the tests. `--lock` installs the newest that fits and pins it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "build" / "stand-ins"


@dataclass(frozen=True)
class Environment:
    """`pins`: the constraint file, from the root of the repository."""

    name: str
    requirements: tuple[str, ...]
    pins: str

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    def program(self, name: str) -> Path:
        return self.folder / "bin" / name

    @property
    def _wanted(self) -> str:
        """All that decides what is installed."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        extras = [found[1] for each in self.requirements if (found := re.fullmatch(r"-e .*\[(\w+)\]", each))]
        ours = [str(project["optional-dependencies"][extra]) for extra in extras]
        ours += project["dependencies"] if extras else []
        pins = ROOT / self.pins
        return "\n".join([*self.requirements, *ours, pins.read_text(encoding="utf-8") if pins.exists() else ""])

    @property
    def is_made(self) -> bool:
        done = self.folder / "done"
        return done.exists() and done.read_text(encoding="utf-8") == self._wanted

    def make(self) -> None:
        if not self.is_made:
            print(f"Installing into {self.folder.relative_to(ROOT)}/ ...", flush=True)
            self._install("-c", str(ROOT / self.pins))

    def lock(self) -> None:
        """Of the newest versions that fit together."""
        self._install()
        pip = (str(self.program("pip")), "freeze", "--exclude-editable")
        frozen = subprocess.run(pip, check=True, capture_output=True, text=True).stdout
        asked = ", ".join(each.replace(f"{ROOT}/", "").replace(str(ROOT), "dinmo-dbt") for each in self.requirements)
        head = f"# What `make stand-ins` installs for: {asked}. Renew it with `make lock-stand-ins`.\n"
        (ROOT / self.pins).write_text(head + frozen, encoding="utf-8")
        (self.folder / "done").write_text(self._wanted, encoding="utf-8")

    def _install(self, *options: str) -> None:
        venv.create(self.folder, clear=True, with_pip=True)
        asked = [part for each in self.requirements for part in each.split(maxsplit=1)]
        pip = [str(self.program("pip")), "install", "--quiet", "--disable-pip-version-check", *options]
        subprocess.run([*pip, *asked], check=True)
        (self.folder / "done").write_text(self._wanted, encoding="utf-8")


def needed(*environments: Environment) -> None:
    """Skip the tests where one of them is missing: they are made by `make stand-ins`, which takes minutes."""
    for each in environments:
        if not each.is_made:
            pytest.skip(f"build/stand-ins/{each.name} is not made, or of other versions: run make stand-ins")


# The server, and dinmo-dbt with the adapter: by the stand-in's name.
ENVIRONMENTS = {
    "bigquery": (
        Environment(
            "bigquery-server",
            (
                "bqemulator==1.4.0",
                "numpy",
                "duckdb==1.5.5",
                "duckdb-extensions==1.5.5",
                "duckdb-extension-spatial==1.5.5",
                "duckdb-extension-avro==1.5.5",
            ),
            "tests/stand_ins/bigquery_server.txt",
        ),
        # The reader is tried by itself where Google's clients are.
        Environment(
            "bigquery",
            (f"-e {ROOT}[bigquery]", "pytest", "pytest-timeout", "hypothesis"),
            "constraints-bigquery.txt",
        ),
    ),
    "snowflake": (
        # A later connector lacks a module that fakesnow imports.
        Environment(
            "snowflake-server",
            ("fakesnow[server]==0.12.1", "snowflake-connector-python<5"),
            "tests/stand_ins/snowflake_server.txt",
        ),
        Environment("snowflake", (f"-e {ROOT}[snowflake]",), "constraints-snowflake.txt"),
    ),
    # Spark itself, in the process that reads it: it needs Java 17, and no server.
    "spark": (Environment("spark", (f"-e {ROOT}[spark]",), "constraints-spark.txt"),),
    # The server is the Postgres of the machine, behind a relay in the test's own process.
    "redshift": (Environment("redshift", (f"-e {ROOT}[redshift]",), "constraints-redshift.txt"),),
    # The server is of the connector's own Thrift classes. Left alone, pip takes an older dbt-core for a newer adapter.
    "databricks": (
        Environment("databricks", (f"-e {ROOT}[databricks]", "dbt-core==1.11.16"), "constraints-databricks.txt"),
    ),
}


def main(arguments: list[str]) -> None:
    names = [each for each in arguments if not each.startswith("-")] or list(ENVIRONMENTS)
    for name in names:
        for environment in ENVIRONMENTS[name]:
            if "--lock" in arguments:
                environment.lock()
            else:
                environment.make()


if __name__ == "__main__":
    main(sys.argv[1:])
