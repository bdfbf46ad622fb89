"""The rooms of the package: what stands where, and what may know what, beside the contracts of pyproject.toml."""

from __future__ import annotations

import ast
import re
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

PACKAGE = Path(__file__).parent.parent / "dinmo_dbt"
ROOT_MODULES_MAX = 9
LINES_MAX = 500
CLASS_LINES_MAX = 200


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Of each module those that it imports, wherever it does, and for types alone too."""
    graph = grimp.build_graph("dinmo_dbt", cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def test_no_module_imports_itself_by_way_of_others(imports: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_the_emulator_imports_nothing_of_ours(imports: dict[str, set[str]]) -> None:
    own = "dinmo_dbt.emulator"
    others = {
        (module, name)
        for module, names in imports.items()
        for name in names
        if module.startswith(own) and not f"{name}.".startswith(f"{own}.")
    }
    assert not others
    assert len([module for module in imports if module.startswith(own)]) > 50


def test_few_modules_stand_at_the_root() -> None:
    at_root = [path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__")]
    assert len(at_root) <= ROOT_MODULES_MAX


def test_a_module_has_one_idea_and_so_few_lines() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert not {path.relative_to(PACKAGE).as_posix(): count for path, count in lines.items() if count > LINES_MAX}


def test_a_class_has_few_lines_or_says_why() -> None:
    long = {
        f"{path.relative_to(PACKAGE).as_posix()}: {node.name}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        and (node.end_lineno or 0) - node.lineno >= CLASS_LINES_MAX
        and "Long, because" not in (ast.get_docstring(node) or "")
    }
    assert not long


# Of these one contract stands above, and each edge has its own: a database's or a bucket's.
AT_EACH_EDGE = {"Bucket", "BucketTables", "Column", "Rows", "Tables"}


def test_the_name_of_a_class_means_one_thing() -> None:
    """The emulator is a world of its own, and a document is the JSON of what it is named after."""
    named = Counter(
        node.name.lstrip("_")
        for path in PACKAGE.rglob("*.py")
        if not {"emulator", "documents"} & set(path.relative_to(PACKAGE).parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, times in named.items() if times > 1} == AT_EACH_EDGE


# By name from elsewhere: a library's own, or a check that only mypy makes.
CALLED_BY_OTHERS = {
    "cert_verify",  # requests
    "get_connection_with_tls_context",  # requests
    "makefile",  # http.client
    "sendall",  # http.client
    "respond",  # cheroot
    "murmur3",  # the reference vectors
    "write_rows",  # files of a state that tests damage
    "_fulfils_the_contract",  # mypy
}


@pytest.mark.slow
def test_what_nothing_uses_is_gone() -> None:
    texts = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")]
    times = Counter(word for text in texts for word in re.findall(r"\w+", text))
    defined = {
        node.name
        for text in texts
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.decorator_list
    }
    assert {name for name in defined if times[name] == 1 and not name.startswith("__")} == CALLED_BY_OTHERS
