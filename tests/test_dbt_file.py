"""The JSON Schema of a dbt YAML file: what dbt takes passes, what our block has not fails where dbt hands it on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt import cli
from dinmo_dbt.config import block, dbt_file
from dinmo_dbt.config.dinmo_yml import json_schema

ROOT = Path(__file__).parent.parent
SCHEMA = dbt_file.json_schema()
BLOCK: dict[str, Any] = {
    "key": "id",
    "activation": {"destination": "crm", "object": "Account", "mode": "insert", "fields": {"name": "Name"}},
}

PLACES: dict[str, Callable[[Any], Any]] = {
    "model": lambda own: {"models": [{"name": "a", "config": {"meta": {"dinmo": own}}}]},
    "model's meta": lambda own: {"models": [{"name": "a", "meta": {"dinmo": own}}]},
    "seed": lambda own: {"seeds": [{"name": "a", "config": {"meta": {"dinmo": own, "owner": 1}}}]},
    "snapshot": lambda own: {"snapshots": [{"name": "a"}, {"name": "b", "config": {"meta": {"dinmo": own}}}]},
    "version": lambda own: {"models": [{"name": "a", "versions": [{"v": 1, "config": {"meta": {"dinmo": own}}}]}]},
    "project": lambda own: {"name": "shop", "models": {"+meta": {"dinmo": own}}},
    "folder": lambda own: {"models": {"shop": {"marts": {"+materialized": "table", "+meta": {"dinmo": own}}}}},
    "folder without plus": lambda own: {"seeds": {"shop": {"meta": {"dinmo": own}}}},
}

WRONG: dict[str, Callable[[dict[str, Any]], Any]] = {
    "key": lambda own: {**own, "segmants": {}},
    "activation's key": lambda own: {**own, "activation": {**own["activation"], "feilds": {}}},
    "mode": lambda own: {**own, "activation": {**own["activation"], "mode": "upsrt"}},
    "no object": lambda own: {"activation": {"destination": "crm", "mode": "insert"}},
    "guard": lambda own: {**own, "activation": {**own["activation"], "guards": {"max_deletes": "1%"}}},
    "one of several": lambda own: {**own, "activations": [own["activation"], {"object": "Account"}]},
    "long field": lambda own: {**own, "activation": {**own["activation"], "fields": {"a": {"field": "A", "null": 1}}}},
    "enabled": lambda own: {**own, "activation": {**own["activation"], "enabled": "yes"}},
    "not a mapping": lambda own: [own],
    "text": lambda own: "a block",
}

_PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
_DBT = st.recursive(
    _PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "config", "meta", "+meta", "models", "columns", "versions", "tests", "+tags", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def is_right(document: Any, schema: dict[str, Any] = SCHEMA) -> bool:
    plain = json.loads(json.dumps(document, default=str))
    return bool(jsonschema.Draft202012Validator(schema).is_valid(plain))


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("place", PLACES)
def test_a_block_passes_at_each_place(place: str) -> None:
    assert is_right(PLACES[place](BLOCK))


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("place", PLACES)
def test_what_a_block_does_not_have_fails_at_each_place(place: str, wrong: str) -> None:
    assert not is_right(PLACES[place](WRONG[wrong](BLOCK)))


@pytest.mark.parametrize(
    "rendered",
    [
        "{{ var('block') }}",
        {**BLOCK, "activation": "{{ var('activation') }}"},
        {**BLOCK, "activation": {**BLOCK["activation"], "enabled": "{{ target.name == 'prod' }}"}},
        {**BLOCK, "activation": {**BLOCK["activation"], "mode": "{{ var('mode') }}", "object": "{{ var('object') }}"}},
        {**BLOCK, "activation": {**BLOCK["activation"], "guards": {"max_delete": "{{ var('most') }}"}}},
    ],
)
def test_what_dbt_renders_passes(rendered: Any) -> None:
    assert is_right(PLACES["folder"](rendered))
    assert is_right(PLACES["model"](rendered))


@given(st.dictionaries(st.sampled_from(["version", "models", "seeds", "snapshots", "sources", "exposures"]), _DBT))
def test_without_a_block_everything_passes(document: Any) -> None:
    assert is_right(document)


def test_blocks_elsewhere_are_not_looked_at() -> None:
    """`dinmo-dbt validate` tells of those that were meant."""
    assert is_right({"exposures": [{"name": "a", "meta": {"dinmo": {"generated": True}}}], "sources": [{"name": "b"}]})


def test_the_sample_project_and_the_pages_are_right() -> None:
    files = [*(ROOT / "sample_dbt_project").rglob("*.yml")]
    texts = [path.read_text("utf-8") for path in files if path.name not in ("dinmo.yml", "profiles.yml")]
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        texts += re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    documents = [yaml.safe_load(text) for text in texts]
    blocks = [document for document in documents if "dinmo" in json.dumps(document, default=str)]
    assert len(blocks) > 10
    for document in documents:
        assert is_right(document), document


@pytest.mark.parametrize(
    ("arguments", "schema"),
    [
        ((), dbt_file.json_schema),
        (("dbt",), dbt_file.json_schema),
        (("dinmo.yml",), json_schema),
        (("meta",), block.json_schema),
    ],
)
def test_the_command_prints_each(
    arguments: tuple[str, ...], schema: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["schema", *arguments]) == 0
    assert json.loads(capsys.readouterr().out) == schema()
