"""Lines are added to YAML that somebody wrote, and nothing of theirs is changed."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.scaffold.insertion import inserted, new_file

BLOCK = ["dinmo:", "  key: id  # which row", "  activation: {object: Account}"]
VALUE = {"key": "id", "activation": {"object": "Account"}}

PLAIN = (
    "version: 2\nmodels:\n  - name: other\n  - name: dim\n"
    '    description: "a: b"  # why\n    columns:\n      - name: id\n'
)
CONFIG = "models:\n- name: dim\n  config:\n    # how it is built\n    materialized: table\n  columns: []\n"
META = (
    "models:\n  - description: first\n    name: dim\n"
    "    config:\n      meta:\n        owner: sales\n      tags: [crm]\n"
)
SNAPSHOT = "snapshots:\n  - name: dim\n    relation: ref('x')\n"
LAST = "seeds:\n  - name: dim"
WINDOWS = PLAIN.replace("\n", "\r\n")
FOLDED = (
    "models:\n  - name: dim\n    description: >\n      two\n      lines\n\n    config:\n      meta: \n        a: 1\n"
)


@pytest.mark.parametrize("text", [PLAIN, CONFIG, META, SNAPSHOT, LAST, WINDOWS, FOLDED])
def test_the_block_is_where_dbt_reads_it_and_every_line_stands(text: str) -> None:
    after = inserted(text, "dim", BLOCK)
    assert after is not None
    (entry,) = [
        e
        for entries in yaml.safe_load(after).values()
        if isinstance(entries, list)
        for e in entries
        if e["name"] == "dim"
    ]
    assert entry["config"]["meta"]["dinmo"] == VALUE
    left = after.splitlines()
    assert [line for line in text.splitlines() if line not in left] == []
    added = [line.strip() for line in left[:]]
    for line in text.splitlines():
        added.remove(line.strip())
    assert {*added} <= {"config:", "meta:", *(line.strip() for line in BLOCK)}
    assert ("\r\n" in after) == ("\r\n" in text)


@pytest.mark.parametrize(
    "text",
    [
        "models: [{name: dim}]\n",
        '{"models": [{"name": "dim"}]}\n',
        "models:\n  - {name: dim}\n",
        "models:\n  - name: dim\n    config: {materialized: table}\n",
        "models:\n  - name: dim\n    config:\n",
        "models:\n  - name: dim\n    config:\n      meta:\n        dinmo: {key: id}\n",
        "models:\n  - name: other\n",
        "models:\n  - name: dim\n    config: &c\n      tags: [a]\n  - name: other\n    config: *c\n",
        "",
        "not: [closed\n",
        "- a list\n",
    ],
)
def test_what_lines_alone_can_not_do_is_left_to_a_person(text: str) -> None:
    assert inserted(text, "dim", BLOCK) is None


def test_a_new_file_holds_the_one_model() -> None:
    found = yaml.safe_load(new_file("dim", "models", BLOCK))
    assert found == {"models": [{"name": "dim", "config": {"meta": {"dinmo": VALUE}}}]}


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@given(
    before=st.lists(st.dictionaries(st.sampled_from(["description", "columns", "tests", "docs"]), _VALUES), max_size=3),
    more=st.dictionaries(st.sampled_from(["description", "columns", "access"]), _VALUES),
    config=st.none() | st.dictionaries(st.sampled_from(["meta", "tags", "enabled"]), _VALUES, max_size=3),
    indent=st.sampled_from([2, 3, 4]),
)
def test_of_any_file_the_values_are_those_from_before_and_the_block(
    before: list[dict[str, object]], more: dict[str, object], config: dict[str, object] | None, indent: int
) -> None:
    entry = {"name": "dim", **more, **({} if config is None else {"config": config})}
    values = {"version": 2, "models": [*({"name": f"m{i}", **each} for i, each in enumerate(before)), entry]}
    text = yaml.safe_dump(values, sort_keys=False, indent=indent, allow_unicode=True)
    values = yaml.safe_load(text)
    after = inserted(text, "dim", BLOCK)
    if after is None:
        assert config is not None, "a model without config takes lines everywhere"
        return
    found = yaml.safe_load(after)
    assert found["models"][-1]["config"]["meta"].pop("dinmo") == VALUE
    empty = {"config": {"meta": {}}} if config is None else {"config": {"meta": {}, **config}}
    values["models"][-1].update(empty)
    assert found == values
