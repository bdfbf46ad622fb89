"""YAML by hand and YAML of dbt's: read by two rules, and bounded by one."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.config import document
from dinmo_dbt.errors import ConfigError

ALIASES = "after aliases are expanded"


def chain(count, link):
    return "a0: &a0 [1]\n" + "\n".join(f"a{n}: &a{n} {link.format(*[f'*a{n - 1}'] * 9)}" for n in range(1, count))


def refused(read, text):
    try:
        read(text.encode())
    except (ConfigError, ValueError, yaml.YAMLError) as error:
        return str(error)
    return ""


def by_hand(raw):
    return document.parse(raw, "dinmo.yml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: &a [*a]", "an alias stands within what it means"),
        ("a: &a {b: {c: *a}}", "an alias stands within what it means"),
        (chain(100, "[{}]"), f"more than 50 levels {ALIASES}"),
        (chain(100, "{{<<: {}}}"), f"more than 50 levels {ALIASES}"),
        (chain(9, "[{},{},{},{},{},{},{},{},{}]"), f"values {ALIASES}"),
        ("[" * 50 + "]" * 50, ""),
    ],
)
def test_both_readers_take_and_refuse_the_same(text, told):
    for read in (by_hand, document.of_dbt):
        found = refused(read, text)
        assert told in found and bool(told) == bool(found)


@pytest.mark.slow
@given(st.integers(0, 60), st.integers(1, 40), st.integers(1, 4))
def test_what_aliases_expand_to_is_counted_as_if_it_were_written(deep, wide, anchors):
    """One bound, whichever way the values are written."""
    inner = "[" * deep + ",".join(["1"] * wide) + "]" * deep if deep else "[" + ",".join(["1"] * wide) + "]"
    aliased = f"a: &a {inner}\n" + "\n".join(f"b{n}: *a" for n in range(anchors))
    written = f"a: {inner}\n" + "\n".join(f"b{n}: {inner}" for n in range(anchors))
    for read in (by_hand, document.of_dbt):
        assert bool(refused(read, aliased)) == bool(refused(read, written))


@pytest.mark.slow
def test_a_key_is_a_part_of_its_value():
    fits = "\n".join(f"k{n}: 1" for n in range(document.NODES_MAX - 1))
    assert not refused(by_hand, fits)
    assert refused(by_hand, f"{fits}\nmore: 1").endswith(f"more than 10,000 values {ALIASES}")
