"""CONTRIBUTING.md's list of changes, held to the code: each file and test that it names is there, each module that a
change like the one to copy from touches is named, and each `make` that a page names is a target."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dinmo_dbt"
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
LIST = PAGE.partition("## Your first change")[2].partition("\n## ")[0]
CHANGES = dict(re.findall(r"^\*\*([A-Z][\w ]+)\.\*\* (.*?)(?=^\*\*[A-Z]|\Z)", LIST, re.DOTALL | re.MULTILINE))
ROWS = dict(re.findall(r"^\| ([a-zA-Z ]+) \|.*\| ([^|]+) \|$", LIST, re.MULTILINE))

# By what a module shows that the example of a change touches it, and modules in which that is something else.
TOUCHED = {
    "Field type": (
        r"""["']time["']""",
        {
            "rows/forms.py",
            "warehouse/spark/columns.py",
            "text/redaction.py",
            "emulator/bulk/worker.py",
            "emulator/bulk/pace.py",
        },
    ),
    "Auth flow": ("client_credentials", set()),
    "Guard": ("max_created", set()),
    "Meta key": ("give_up_after", {"salesforce/errors.py"}),  # a hint
    "Command": (r"\borg_objects\b|class OrgObjects", {"cli/documents/__init__.py"}),
    "Error code": (r"\bVALUES_MOVED\b", set()),
    "Warning": (r"ROW_COUNT\b", set()),
    "API version": (r"^(API|LAST)_VERSION\b|^FIRST_VERSION, LAST_VERSION", set()),
    "Emulator endpoint": ("record_count", set()),
}  # fmt: skip


def paths(text: str) -> list[str]:
    """Files and folders that a text names, from the root, each once: of the package where they begin in no other."""
    named = [name.partition("::")[0] for name in re.findall(r"`([\w./-]+(?:::\w+)?)`", text)]
    files = [name for name in named if "/" in name or name.endswith((".py", ".toml", ".md"))]
    other = ("tests/", "docs/", "changes/", "dinmo_dbt/", ".ci/", "pyproject.toml", "README.md")
    return list(dict.fromkeys(name if name.startswith(other) else f"dinmo_dbt/{name}" for name in files))


def test_twelve_changes_are_reported_and_the_table_has_them() -> None:
    assert len(CHANGES) == 12
    assert [name.lower() for name in CHANGES] == [name.lower() for name in ROWS if name != "change"]


@pytest.mark.parametrize("change", CHANGES)
def test_each_file_and_test_that_a_change_names_is_there(change: str) -> None:
    for name in paths(CHANGES[change]):
        assert (ROOT / name).exists(), name
    for file, test in re.findall(r"`([\w/.]+)::(\w+)`", CHANGES[change]):
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{test}"
    assert "\nDone: " in CHANGES[change]


@pytest.mark.parametrize("change", TOUCHED)
def test_no_module_that_a_change_touches_is_left_out(change: str) -> None:
    pattern, otherwise = TOUCHED[change]
    touched = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert touched - {f"dinmo_dbt/{name}" for name in otherwise} <= set(paths(CHANGES[change]))
    assert touched, "the example is gone: name another"


def test_the_pages_name_targets_of_make_that_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in (ROOT / "CONTRIBUTING.md", ROOT / "README.md", ROOT / "changes/README.md", *ROOT.glob("docs/*.md")):
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"(?:^|`)make ([a-z][a-z-]+)", text, re.MULTILINE)) <= targets, page.name
