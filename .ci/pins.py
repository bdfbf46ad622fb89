"""The constraints of one column of CI's matrix: `pins.py locked`, `pins.py lowest`, or `pins.py dbt 1.9`.

`locked` is constraints.txt. `lowest` has each of our dependencies at the lowest version that pyproject.toml allows.
`dbt` has one minor version of dbt, and the rest as new as that takes. What runs the tests is pinned in each, so that a
column tells of our dependencies and not of a new pytest; the linters are not: they have dependencies of their own.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
DBT = ("dbt-core", "dbt-duckdb", "dbt-postgres")
RUNNERS = ("hypothesis", "pytest", "pytest-timeout", "pytest-xdist")


def pins(column: str, version: str = "") -> list[str]:
    locked = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    runners = [line for line in locked if _name(line) in RUNNERS]
    match column, version:
        case "locked", "":
            return locked
        case "lowest", "":
            return [*runners, *map(_lowest, (*project["dependencies"], *project["optional-dependencies"]["postgres"]))]
        case "dbt", minor if re.fullmatch(r"1\.\d+", minor):
            return [*runners, *(f"{name}=={minor}.*" for name in DBT)]
    raise SystemExit(f"no such column: {column} {version}".rstrip() + "; there are: locked, lowest, dbt 1.9")


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def _lowest(requirement: str) -> str:
    found = re.search(r">=([\d.]+)", requirement)
    if not found:
        raise SystemExit(f"{requirement} has no lowest version")
    return f"{_name(requirement)}=={found[1]}"


if __name__ == "__main__":
    print("\n".join(pins(*sys.argv[1:])))
