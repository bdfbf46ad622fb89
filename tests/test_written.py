"""The project's YAML as it is written: which keys are blocks, where they stand, and on which lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dinmo_dbt.config.written import is_block, is_near, keys_of, written

TEXT = """\
models:
  - name: shops
    config:
      meta:
        dinmo:
          key: id
          activations:
            - destination: crm
              object: Shop__c
              fields:
                name: Name
                town:
                  field: Town__c
            - {destination: crm, object: Place__c}
"""


def project(root: Path, text: str) -> Path:
    (root / "models").mkdir()
    (root / "models" / "m.yml").write_text(text)
    return root


@pytest.mark.parametrize(
    ("way", "line"),
    [
        ("", 5),
        (".key", 6),
        (".activations[0]", 8),
        (".activations[0].mode", 8),
        (".activations[0].fields.town", 12),
        (".activations[0].fields.town.field", 13),
        (".activations[0].fields.tow", 10),
        (".activations[1].object", 14),
    ],
)
def test_a_place_has_the_line_of_its_key_or_of_what_would_hold_it(tmp_path: Path, way: str, line: int) -> None:
    found = written(project(tmp_path, TEXT), {})
    (key,) = found.keys
    place = f"shops.config.meta.dinmo{way}"
    same = {("model", "shops"): key.value}
    assert found.with_line(f"models/m.yml: {place}", same) == f"models/m.yml:{line}: {place}"
    assert found.with_line(f"models/m.yml: {place}", {}) == f"models/m.yml:5: {place}"
    for other in (f"models/x.yml: {place}", "models/m.yml: shopsy.config.meta.dinmo", "dinmo.yml:3: defaults", ""):
        assert found.with_line(other, same) == other


def test_a_place_in_dbt_project_yml_has_the_line_of_its_key(tmp_path: Path) -> None:
    (tmp_path / "dbt_project.yml").write_text(
        "models:\n  shop:\n    +meta:\n      dinmo:\n        activation:\n          mode: upsrt\n          fields:\n"
        "            a: A\n"
    )
    found = written(tmp_path, {})
    (key,) = found.keys
    way = "models.shop.+meta.dinmo"
    for inner, line in (("", 4), (".activation.mode", 6), (".activation.fields.a", 8), (".activation.match", 5)):
        assert found.with_line(f"{key.where}{inner}", {}) == f"dbt_project.yml:{line}: {way}{inner}"
    assert found.with_line(f"dbt_project.yml:9: {way}.key", {}) == f"dbt_project.yml:9: {way}.key"


def test_values_and_keys_are_as_dbt_has_them_in_its_manifest(tmp_path: Path) -> None:
    constants = "{On__c: 2024-01-01, At__c: 2024-01-01 10:00:00, yes: a, 1: b, ~: c, 0755: d, 'no': e}"
    text = f"models: [{{name: a, config: {{meta: {{dinmo: {{activation: {{constants: {constants}}}}}}}}}}}]"
    (key,) = written(project(tmp_path, text), {}).keys
    found = key.value["activation"]["constants"]
    moment = {"On__c": "2024-01-01", "At__c": "2024-01-01T10:00:00"}
    assert found == {**moment, "true": "a", "1": "b", "null": "c", "493": "d", "no": "e"}
    assert not key.twice and all(("activation", "constants", word) in key.lines for word in found)


@pytest.mark.parametrize(
    "word", ["dimno", "dinm", "dinmoo", "dnimo", "Dinmo", "DINMO", "dinmo_dbt", "dinmo-dbt", "denmo"]
)
def test_a_slip_of_the_fingers_is_near(word: str) -> None:
    assert is_block(word, {"activation": {}})


@pytest.mark.parametrize("word", ["dagster", "owner", "config", "meta", "models", "hightouch", "demographics"])
def test_another_word_is_none(word: str) -> None:
    assert not is_block(word, {"activation": {}}) and not is_block(word, {"key": "id"})


def test_a_near_word_without_a_block_is_anybodys() -> None:
    assert not is_block("demo", {"owner": "a"}) and not is_block("dino", "rex") and is_near("dino")
    assert not is_block("activation", {"date": "2026-01-01"}) and not is_block("activations", ["a", "b"])


@given(st.text(max_size=200))
@example("{yes: 1, 1: 2, 1.0: 3}")
@example("{0x1: {}, '1': {}, ? [a] : b, ? {c: d} : e, ? [a] : f}")
def test_any_text_gives_keys_or_none(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.yml"
        path.write_text(f"dinmo: {text}", encoding="utf-8", errors="surrogatepass")
        assert len(keys_of(Path(folder), "a.yml")) <= 1


def test_an_alias_that_holds_itself_ends(tmp_path: Path) -> None:
    root = project(tmp_path, "models: &m\n  - name: dinmo\n    all: *m\n")
    assert written(root, {}).keys == ()
