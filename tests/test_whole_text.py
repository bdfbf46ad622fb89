"""Halves of surrogate pairs and NUL, which Python reads from others and nothing else takes: replaced at each door."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from emulator.deep import examples
from hypothesis import example, given
from hypothesis import strategies as st

from dinmo_dbt.artifacts import manifest
from dinmo_dbt.config import document
from dinmo_dbt.text import whole_text
from dinmo_dbt.warehouse import profiles

TORN = ["\ud83d", "\ude00", "\0", "\udcff"]
ODD = st.text(alphabet=["a", "😀", "\\", '"', *TORN], max_size=6)
VALUES = st.recursive(ODD | st.integers(), lambda v: st.lists(v, max_size=3) | st.dictionaries(ODD, v, max_size=3))


@given(VALUES, st.booleans())
@examples(150)
def test_what_is_whole_can_be_written_and_what_was_is_left_alone(value: Any, ascii_only: bool) -> None:
    made = whole_text.whole(value)
    text = json.dumps(made, ensure_ascii=False)
    text.encode()
    assert "\\u0000" not in text
    raw = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert made == value or whole_text.is_odd(raw)


@pytest.mark.parametrize("torn", ["\\ud83d", "\\u0000", "\\udcff", "\\uD83D a"])
def test_each_reader_of_a_file_replaces_them(tmp_path: Path, torn: str) -> None:
    raw = f'{{"key": "a {torn}"}}'
    (tmp_path / "file").write_text(raw)
    read = [
        manifest.read_json(tmp_path / "file"),
        document.parse(raw.encode(), "dinmo.yml").value,
        profiles._read_yaml(tmp_path / "file"),
    ]
    for found in read:
        assert found["key"].startswith("a \ufffd"), found


@pytest.mark.parametrize("escape", ["\\0", "\\x00", "\\U0000d83d"])
def test_yaml_has_more_ways_to_write_them(escape: str) -> None:
    assert document.parse(f'key: "a {escape}"'.encode(), "dinmo.yml").value == {"key": "a \ufffd"}


def test_a_variable_that_is_no_text_is_one_after_that() -> None:
    assert whole_text.whole_environment({"A": b"\xff\xc3\xa9".decode("utf-8", "surrogateescape")}) == {"A": "\ufffdé"}


@given(st.recursive(st.text() | st.integers(), lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v)))
@examples(100)
@example({"flag": "😀 \U000e0067\x85\u2028\x7f\ufeff"})
def test_what_is_written_for_yaml_is_one_line_and_read_as_it_was(value: Any) -> None:
    told = whole_text.as_yaml(whole_text.whole(value))
    assert told.isprintable()
    assert yaml.safe_load(told) == whole_text.whole(value)
