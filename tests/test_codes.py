"""The table of codes: each stands in it once, by its name, and is raised by errors that end as it says."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from dinmo_dbt import codes
from dinmo_dbt.codes import MEANINGS
from dinmo_dbt.errors import DinmoError

ROOT = Path(__file__).parent.parent
PACKAGE = [path for path in (ROOT / "dinmo_dbt").rglob("*.py") if path.name != "codes.py"]
NAMES = {name: code for name, code in vars(codes).items() if isinstance(code, str) and code in MEANINGS}

# A reply or a name that has no known form, and a kept token of an org: the same reason, met while running.
OTHERWISE = {("NO_OBJECT", 1), ("NO_FIELD", 1), ("REFRESH_TOKEN_UNUSABLE", 5)}


def strings(path: Path) -> list[str]:
    """Every text in a module except docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body and _is_text(node.body[0])
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@pytest.mark.slow
def test_a_code_stands_in_the_table_alone_and_elsewhere_by_its_name() -> None:
    assert len(NAMES) == len(MEANINGS)
    printed = {code for path in PACKAGE for text in strings(path) for code in re.findall(r"\bDB\d{3}\b", text)}
    assert printed == set()


def test_each_code_of_the_table_is_printed() -> None:
    words = {word for path in PACKAGE for word in re.findall(r"\b[A-Z][A-Z_]+\b", path.read_text(encoding="utf-8"))}
    assert set(NAMES) <= words


def test_no_two_codes_mean_the_same() -> None:
    said = [each.means for each in MEANINGS.values()]
    assert len(set(said)) == len(said)
    assert all(text.endswith(".") for each in MEANINGS.values() for text in (each.means, each.what_to_do))
    assert list(MEANINGS) == sorted(MEANINGS)


@pytest.mark.slow
def test_an_error_ends_a_command_as_the_table_says_of_its_code() -> None:
    seen, wrong = 0, []
    for path in PACKAGE:
        if "emulator" in path.parts or path.name == "__main__.py":
            continue
        known = importlib.import_module(
            ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        )
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.args):
                continue
            kind, code = getattr(known, call.func.id, None), call.args[0]
            if not (isinstance(kind, type) and issubclass(kind, DinmoError) and isinstance(code, ast.Name)):
                continue
            name = code.id
            if name not in NAMES or (name, kind.exit_code) in OTHERWISE:
                continue
            seen += 1
            if kind.exit_code != MEANINGS[NAMES[name]].exit_code:
                wrong.append((path.name, call.lineno, kind.__name__, kind.exit_code, name))
    assert not wrong
    assert seen > 100
