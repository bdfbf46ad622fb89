"""Bare words of YAML: what is sent to a field is what stands in the file, or the activation is wrong and says why."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from memory_org import PARENT, THING, activation

from dinmo_dbt.config.spelling import bare_words, other_numbers
from dinmo_dbt.config.written import keys_of
from dinmo_dbt.destination import Field
from dinmo_dbt.rows import values
from dinmo_dbt.rows.field_types import TYPES
from dinmo_dbt.rows.resolve import resolve

KINDS = ("string", "textarea", "picklist", "double", "boolean", "date", "datetime", "time", "reference")
WORDS = (
    "NO", "no", "on", "off", "Yes", "y", "true", "TRUE", "~", "null", "Null", "NULL", "", "0755", "010", "08", "1.10",
    "1_000", "1e3", "1.5e+3", "0x1F", "0b11", "0o17", "12:30:00", "22:00", "12:30:00.5", ".inf", "-.inf", ".NaN", ".5",
    "2026-01-05", "2026-1-5", "2026-01-05 10:00:00", "2026-01-05T10:00:00Z", "2026-01-05 10:00:00.1234567 -5",
    "12345678901234567890.123456", "12345678901234567890", "+7", "-0", "1.", "abc", "007", "0", "42", "1.5", "-3.25",
)  # fmt: skip


def block(text: str, under: str) -> str:
    way = "{constants: {F__c: %s}}" if under == "constants" else "{on_removed: {set: {F__c: %s}}}"
    return f"models: [{{name: things, config: {{meta: {{dinmo: {{key: id, activations: [{way % text}]}}}}}}}}]\n"


def by_dbt(read: Any) -> Any:
    """dbt's manifest: JSON, with dates in ISO form."""
    return json.loads(json.dumps(read, default=lambda day: day.isoformat()))


def judged(folder: Path, text: str, kind: str, under: str = "constants") -> tuple[list[str], Any]:
    """The codes of what is wrong, and the text that would be sent."""
    (folder / "m.yml").write_text(block(text, under), encoding="utf-8")
    (key,) = keys_of(folder, "m.yml")
    value = by_dbt(yaml.safe_load(f"[{text}]")[0]) if text else None
    given = (("F__c", value),)
    declared = activation(**({"constants": given} if under == "constants" else {"on_removed_set": given}))
    declared = dataclasses.replace(declared, bare=bare_words([key], declared))
    problems = list(other_numbers([key], declared))
    field = Field("F__c", "F", kind, precision=38, scale=18) if kind == "double" else Field("F__c", "F", kind)
    schema = dataclasses.replace(THING, fields={**THING.fields, "F__c": field})
    mapping, found = resolve(declared, schema, {"Parent__c": PARENT}.__getitem__, None)
    codes = [problem.code for problem in (*problems, *found)]
    if mapping is None:
        return codes, None
    sent = next(c for c in (*mapping.constants, *mapping.removed) if c.header == "F__c")
    return codes, values.text(sent.value, sent.field)[0].as_py()


def stands(text: str, kind: str, sent: Any) -> bool:
    """Whether what is sent is what stands there, by this test's own reading."""
    if sent is None:
        return text in ("null", "") or (not TYPES[kind].is_text and text in ("~", "Null", "NULL"))
    if kind == "double":
        return Decimal(sent) == Decimal(text)
    if kind == "boolean":
        return sent == str(text.lower() in ("true", "yes", "on", "y")).lower()
    if kind == "datetime":
        moment = dt.datetime.fromisoformat(yaml.safe_load(f"[{text}]")[0].isoformat())
        return dt.datetime.fromisoformat(sent) == moment
    return sent.removesuffix(".000Z") == text if kind == "time" else sent == text


@pytest.mark.parametrize("under", ["constants", "on_removed"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sent_is_what_stands_there(tmp_path, kind, under):
    for text in WORDS:
        codes, sent = judged(tmp_path, text, kind, under)
        assert codes or stands(text, kind, sent), (text, sent)


@settings(max_examples=60, deadline=None)
@example("2026-01-05 10:00:00", "string")
@given(st.from_regex(r"[0-9+.~:eExo_TZ -]{1,14}|[A-Za-z~.]{1,5}", fullmatch=True), st.sampled_from(KINDS))
def test_any_bare_word_is_sent_as_it_stands_or_reported(tmp_path_factory, text, kind):
    text = text.strip()
    try:
        if not isinstance(yaml.safe_load(f"[{text}]")[0], str | int | float | dt.date | None) or ": " in text:
            return
    except (yaml.YAMLError, ValueError, IndexError):
        return
    folder = tmp_path_factory.mktemp("drawn")
    try:
        codes, sent = judged(folder, text, kind)
    except (ValueError, InvalidOperation):
        raise AssertionError(text) from None
    assert codes or stands(text, kind, sent), (text, sent)


@pytest.mark.parametrize("text", ['"0755"', "'NO'", '"2026-01-05 10:00:00"', "abc", '"~"', "!!str 0755"])
def test_text_in_quotes_goes_as_it_is(tmp_path, text):
    assert judged(tmp_path, text, "string") == ([], yaml.safe_load(f"[{text}]")[0])


@pytest.mark.parametrize("text", ["0755", "12:30:00", "0x1F", "12345678901234567890.123456"])
def test_a_number_that_is_not_what_stands_there_is_reported_wherever_it_stands(tmp_path, text):
    (tmp_path / "m.yml").write_text(
        "models:\n  - name: things\n    config:\n      meta:\n        dinmo:\n          activations:\n"
        f"            - guards:\n                max_delete: {text}\n            - name: other\n"
    )
    (key,) = keys_of(tmp_path, "m.yml")
    here = activation(meta_path="m.yml: things.config.meta.dinmo.activations[0]")
    (problem,) = other_numbers([key], here)
    assert (problem.code, problem.where) == (
        "DB108",
        "m.yml:8: models.things.config.meta.dinmo.activations[0].guards.max_delete",
    )
    other = activation(meta_path="m.yml: things.config.meta.dinmo.activations[1]")
    assert list(other_numbers([key], other)) == []


def test_what_the_manifest_has_of_elsewhere_is_not_judged_by_the_file(tmp_path):
    (tmp_path / "m.yml").write_text(block("2026-01-05 10:00:00", "constants"))
    keys = keys_of(tmp_path, "m.yml")
    for value in ("elsewhere", None, 3):
        assert bare_words(keys, activation(constants=(("F__c", value),))) == {}


@pytest.mark.parametrize(("text", "value"), [("1e3", 1000.0), ("0o17", 15)])
def test_numbers_of_another_yaml_are_judged_too(tmp_path, text, value):
    """dbt 2 reads YAML 1.2."""
    (tmp_path / "m.yml").write_text(block(text, "constants"))
    found = bare_words(keys_of(tmp_path, "m.yml"), activation(constants=(("F__c", value),)))
    assert found == {"constants.F__c": text}
