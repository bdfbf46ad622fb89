"""The documentation says what the code does: generated pages, error codes, commands, exit codes, links."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from dinmo_dbt import errors
from dinmo_dbt.cli import commands

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGE = sorted((ROOT / "dinmo_dbt").rglob("*.py"))
# Salesforce's own codes that the client reads; ours are documented.
ROW_CODE = re.compile(r"[A-Z]{2,}_[A-Z_]+")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = load("generate")


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


def test_generated_pages_are_up_to_date() -> None:
    stale = [name for name, text in GENERATE.pages().items() if (ROOT / name).read_text(encoding="utf-8") != text]
    assert not stale, "run `make docs`"


def test_every_error_code_of_the_source_is_documented_and_no_other() -> None:
    used = {code for path in PACKAGE for text in strings(path) for code in re.findall(r"\bDB\d{3}\b", text)}
    assert used == set(GENERATE.documented_errors())


def test_no_two_error_codes_mean_the_same() -> None:
    known = GENERATE.documented_errors()
    meanings = [meaning for meaning, _ in known.values()]
    assert len(set(meanings)) == len(meanings)
    assert all(len(entry) == 2 and all(text.endswith(".") for text in entry) for entry in known.values())
    assert list(known) == sorted(known)


def test_an_error_code_is_one_name_in_the_source() -> None:
    named: dict[str, set[str]] = {}
    for path in PACKAGE:
        for line in path.read_text(encoding="utf-8").splitlines():
            if found := re.match(r'([A-Z_]+) = "(DB\d{3})"', line):
                named.setdefault(found[2], set()).add(found[1])
    assert named
    assert {code: names for code, names in named.items() if len(names) > 1} == {}


def test_every_row_code_of_ours_is_documented() -> None:
    page = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    for name in ("plan.py", "sync.py", "salesforce/results.py"):
        codes = {text for text in strings(ROOT / "dinmo_dbt" / name) if ROW_CODE.fullmatch(text)}
        assert {code for code in codes if f"`{code}`" not in page} <= {"UNKNOWN_EXCEPTION"}


def helps() -> dict[str, str]:
    command: Any = typer.main.get_command(commands.app())
    return dict(GENERATE.helps(command, None, "dinmo-dbt"))


@pytest.mark.parametrize("command", helps())
def test_every_command_says_what_it_does_and_explains_its_flags(command: str) -> None:
    lines = helps()[command].splitlines()
    assert any(line.startswith("  ") and line.strip().endswith(".") for line in lines[1:4]), lines[:4]
    for line in lines:
        assert not re.fullmatch(r"\s+(-\w, )*--[\w-]+( <\w+>)?", line), f"{line} has no help"


def test_the_readme_names_only_commands_and_flags_that_exist() -> None:
    known = helps()
    flags = set(re.findall(r"--[a-z][a-z-]+", " ".join(known.values())))
    fenced = re.findall(r"^dinmo-dbt ([a-z]+(?: (?:show|reset|move|serve))?)", README, re.MULTILINE)
    for words in (*fenced, *re.findall(r"`dinmo-dbt ([a-z]+)", README)):
        assert f"dinmo-dbt {words}" in known, words
    dbts_own = {"--empty", "--sample", "--select"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) <= flags | dbts_own


def test_the_readme_and_the_help_know_the_same_exit_codes() -> None:
    in_readme = set(re.findall(r"\d+", " ".join(re.findall(r"^\| ([\d, ]+) \|", README, re.MULTILINE))))
    in_help = set(re.findall(r"(?:^|; |: )(\d+) ", commands._EPILOG))
    classes = {str(c.exit_code) for c in vars(errors).values() if isinstance(c, type) and hasattr(c, "exit_code")}
    assert in_readme == in_help
    assert classes <= in_readme


def test_every_error_code_of_the_readme_exists() -> None:
    assert set(re.findall(r"\bDB\d{3}\b", README)) <= set(GENERATE.documented_errors())


def test_every_module_has_a_line_in_the_architecture_page() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for path in PACKAGE:
        line = next(
            (at for at in page.splitlines() if at.startswith(f"| `{path.relative_to(ROOT / 'dinmo_dbt')}` |")), ""
        )
        assert len(line.split("|")[2].strip()) > 10, f"{path} has no docstring, or `make docs` is due"


@pytest.mark.parametrize(
    "page", sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if "://" not in target and not target.startswith("#"):
            place, _, anchor = target.partition("#")
            assert (ROOT / page).parent.joinpath(place).exists(), f"{page}: {target}"
            if anchor:
                headings = re.findall(
                    r"^#+ (.*)$", (ROOT / page).parent.joinpath(place).read_text("utf-8"), re.MULTILINE
                )
                assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, f"{page}: {target}"


def test_the_yaml_of_the_readme_is_accepted(tmp_path: Path) -> None:
    import jsonschema
    import yaml

    from dinmo_dbt import block, project

    page = (ROOT / "docs" / "warnings.md").read_text(encoding="utf-8")
    for text in re.findall(r"```yaml\n(.*?)```", README + page, re.DOTALL):
        content = yaml.safe_load(text)
        if "models" not in content:  # dinmo.yml, or a part of it
            jsonschema.validate({"destinations": {}} | content, project.json_schema())
        else:
            for model in content["models"]:
                jsonschema.validate(model["config"]["meta"]["dinmo"], block.json_schema())


def test_the_state_page_knows_every_table_and_column() -> None:
    from dinmo_dbt.state import journal, runs, snapshot, store
    from dinmo_dbt.sync import BatchState

    page = (ROOT / "docs/state.md").read_text(encoding="utf-8")
    for table in store.TABLES:
        assert f"| `{table}` |" in page
    for column in snapshot.DELTA.names:
        assert f"| `{column}` |" in page
    for state in BatchState:
        assert f"`{state.value}`" in page
    assert f"at least the last {runs.KEPT_MIN}, at most {runs.KEPT_MAX:,}" in page
    assert f"more than {journal.DELTAS_MAX} of them" in page


def test_each_promise_is_held_by_laws_planted_faults_and_tests_that_exist() -> None:
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    promises = re.findall(r"^(\d)\. ", page.partition("## What is promised")[2].partition("\n## ")[0], re.MULTILINE)
    table = page.partition("## What holds each promise")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if re.match(r"\| \d", line)]
    assert [promise for promise, *_ in rows] == promises == re.findall(r"^(\d)\. \S", _relied_on(), re.MULTILINE)
    for _, laws, planted, whole in rows:
        assert re.findall(r"\bI\d+\b", laws)
        assert set(re.findall(r"\bI\d+\b", laws)) <= set(re.findall(r"^\| (I\d+) ", page, re.MULTILINE))
        for name in re.findall(r"`(\w+)`", planted):
            assert (ROOT / "tests/simulation/planted" / f"{name}.yml").exists(), name
        assert "::" in whole
        for file, test in re.findall(r"`([\w/.]+)::(\w+)`", laws + whole):
            tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
            assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{test}"


def _relied_on() -> str:
    return README.partition("## What you can rely on")[2].partition("\n## ")[0]


def test_the_picture_is_shortened_and_the_same_every_time() -> None:
    picture = load("picture")
    told = (
        "$ dinmo-dbt plan\na_to_crm: x -> Y\n  read 1\n\nWhat would change:\n\n"
        "12:34:56  1 of 1 OK a [1 sent in 1.23s]\n" + "x" * 200 + "\nDone in 61 s; all stopped.\nWhere to look next:\n"
    )
    lines = picture.shortened(picture.alike(told))
    assert lines == ["What would change:", "", "09:00:00  1 of 1 OK a [1 sent]", "x" * 200, "Done; all stopped."]
    assert picture.drawn(lines) == picture.drawn(lines)
    assert "x" * picture.WIDTH not in picture.drawn(lines)
    assert "url(http" not in picture.drawn(lines)
