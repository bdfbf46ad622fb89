"""The tables of bad inputs and of security rules name tests that exist, and leave no case, code or rule out."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from dinmo_dbt.codes import MEANINGS
from dinmo_dbt.rows.reasons import Reason

HERE = Path(__file__).parent
BAD_INPUTS: list[dict[str, Any]] = yaml.safe_load((HERE / "bad_inputs.yml").read_text(encoding="utf-8"))
SECURITY: list[dict[str, Any]] = yaml.safe_load((HERE / "security.yml").read_text(encoding="utf-8"))


@cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", [*BAD_INPUTS, *SECURITY], ids=lambda row: row.get("input") or row["rule"][:40])
def test_each_row_is_held_by_tests_that_exist(row: dict[str, Any]) -> None:
    assert {"tests", "cases", "decided", "not_here", "left"} & set(row)
    for reference in row.get("tests", ()):
        file, _, name = reference.partition("::")
        name, _, case = name.partition("[")
        assert name in functions_of(file), reference
        assert not case or f'"{case[:-1]}"' in (HERE / file).read_text(encoding="utf-8"), reference


def test_each_case_of_bad_input_stands_in_the_table_once_and_with_its_code() -> None:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (HERE / "golden" / "bad_inputs").glob("*.txt")}
    listed = [(case, row["codes"]) for row in BAD_INPUTS for case in row.get("cases", ())]
    assert sorted(case for case, _ in listed) == sorted(texts)
    for case, codes in listed:
        coded = "DB" in texts[case]
        assert not coded or any(code in texts[case] for code in codes), (case, codes)


def test_each_code_of_the_table_is_one_that_is_printed() -> None:
    known = set(MEANINGS) | {reason.code for reason in Reason} | {"PARENT_MISSING"}
    assert {code for row in BAD_INPUTS for code in row["codes"]} <= known


def test_each_reason_of_a_value_has_its_row() -> None:
    listed = {code for row in BAD_INPUTS for code in row["codes"] if code.startswith("V-")}
    assert listed == {reason.code for reason in Reason if reason is not Reason.OK}


def test_no_security_rule_is_left_out() -> None:
    assert [row["rule"].split()[0] for row in SECURITY] == [f"S{number}" for number in range(1, 35)]


def test_the_security_page_names_every_rule_s_subject() -> None:
    page = (HERE.parent / "SECURITY.md").read_text(encoding="utf-8")
    for heading in ("Reporting", "Threat model", "What is kept at rest", "What is not promised"):
        assert f"## {heading}" in page
    assert "tests/security.yml" in page
