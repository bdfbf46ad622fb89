"""A newcomer's walk: a fresh environment, the install line of the README, and the commands it tells in a new project.

What the commands print is compared with tests/golden/newcomer.txt, DINMO_UPDATE_GOLDEN=1 writes it anew.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .lab import environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # pip and twenty commands, on a machine that may be busy
ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden/newcomer.txt"
FILES = {
    "dbt_project.yml": "name: shop\nversion: '1.0'\nprofile: shop\nmodels: {shop: {+materialized: table}}\n"
    "flags: {send_anonymous_usage_stats: false}\n",
    "profiles.yml": "shop:\n  target: dev\n  outputs:\n    dev: {type: duckdb, path: dev.duckdb}\n"
    "    prod: {type: duckdb, path: prod.duckdb}\n",
    "models/dim_customers.sql": "select 'C' || i as customer_id, 'Customer ' || i as customer_name,\n"
    "  'c' || i || '@example.com' as email, cast(10 * i as decimal(12, 2)) as mrr, i % 2 = 0 as is_paying,\n"
    "  ['a', 'b'] as tags\nfrom range(1, {{ var('customers', 20) }} + 1) t(i)\n",
    "models/marts.yml": "models:\n  - name: dim_customers\n    description: One row a customer  # who pays\n"
    "    columns:\n      - name: customer_id\n        data_tests: [unique, not_null]\n",
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment into which the README's line has put dinmo-dbt, and nothing else did."""
    home = tmp_path_factory.mktemp("newcomer")
    clone = home / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():  # not in the clone itself: a build leaves folders there
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_bytes((ROOT / name).read_bytes())
    (line,) = re.findall(r"^pip install .*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert "path/to/this/clone" in line
    subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
    command = line.replace("path/to/this/clone", str(clone))
    done = subprocess.run(
        f"{command} --quiet --disable-pip-version-check", shell=True, cwd=home, env=_environment(home / "venv/bin"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return home / "venv/bin"


def _environment(programs: Path) -> dict[str, str]:
    kept = {name: value for name, value in environment().items() if not name.startswith("PYTHON")}
    return kept | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}


@dataclass
class Walk:
    """A terminal in the project: each command as it is typed, and what it prints."""

    root: Path
    programs: Path
    told: list[str] = field(default_factory=list)

    def __call__(self, command: str, code: int = 0) -> str:
        done = subprocess.run(
            shlex.split(command), cwd=self.root, env=_environment(self.programs), text=True, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == code, f"$ {command}\n{done.stdout}"
        said = "" if command.startswith("dbt ") else _settled(done.stdout, self.root)
        self.told += [f"$ {command}", *said.splitlines(), *([f"(exit {code})"] if code else []), ""]
        return done.stdout

    def says(self, line: str) -> None:
        self.told += [f"# {line}"]

    def edit(self, path: str, old: str, new: str) -> None:
        """In an editor."""
        text = (self.root / path).read_text(encoding="utf-8")
        assert old in text
        (self.root / path).write_text(text.replace(old, new), encoding="utf-8")
        self.says(f"{path}: {old.strip()} -> {new.strip()}")


def _settled(text: str, root: Path) -> str:
    """Without what differs from run to run."""
    for found, shown in (
        (re.escape(str(root)), "PROJECT"), (r"\b\d\d:\d\d:\d\d\b", "HH:MM:SS"), (r"00D\w{15}", "ORG"),
        (r"\d{8}T\d{6}-\w{6}", "RUN"), (r"\.* (\[.*)in [0-9.]+s\]", r" ... \1in N.NNs]"),
    ):  # fmt: skip
        text = re.sub(found, shown, text)
    return text


def test_version_and_list_run_from_the_readmes_install_line(installed: Path, tmp_path: Path) -> None:
    walk = Walk(tmp_path, installed)
    assert re.fullmatch(r"dinmo-dbt \d+\.\d+\.\d+\n", walk("dinmo-dbt --version"))
    assert "DB100" in walk("dinmo-dbt list", 2), "there is no dbt project yet, and it says so"


def test_a_newcomers_walk(installed: Path, tmp_path: Path) -> None:
    root = tmp_path / "shop"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    walk = Walk(root, installed)
    walk("dbt build")
    walk("dinmo-dbt list", 2)
    walk("dinmo-dbt init --yes")
    walk("dinmo-dbt list", 2)
    walk("dinmo-dbt init dim_customers", 2)
    walk("dinmo-dbt init dim_customers --object Customer__c")
    walk("dinmo-dbt init dim_customers --object Customer__c --yes")
    walk("dinmo-dbt validate --online")
    walk("dinmo-dbt plan")
    walk("dinmo-dbt sync")
    walk("dinmo-dbt sync")
    walk("dbt build --vars '{customers: 25}'")
    walk("dinmo-dbt sync")
    walk("dinmo-dbt org fields Customer__c mrr")
    walk.edit("models/marts.yml", "mrr: Mrr__c", "mrr: Mr__c")
    walk("dinmo-dbt sync")  # by what was built, and it says so
    walk("dinmo-dbt validate --online", 2)
    walk("dinmo-dbt sync", 2)
    walk.edit("models/marts.yml", "mrr: Mr__c", "mrr: {field: Mrr__c")
    walk("dinmo-dbt validate", 2)
    walk("dinmo-dbt sync", 2)
    walk.edit("models/marts.yml", "mrr: {field: Mrr__c", "mrr: {field: Mrr__c, nulls: keep}")
    walk("dinmo-dbt validate")
    walk("dinmo-dbt sync")
    walk("dinmo-dbt init dim_customers", 2)

    said = "\n".join(walk.told)
    if os.environ.get("DINMO_UPDATE_GOLDEN"):
        GOLDEN.write_text(said, encoding="utf-8")
    assert said == GOLDEN.read_text(encoding="utf-8")
