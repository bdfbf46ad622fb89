"""`--select` and `--exclude`: dbt's meaning, and typos that never pass for an empty selection."""

from __future__ import annotations

import pytest
from config_cases import activation, block, golden, insert, manifest, node, told
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.artifacts.declared import activations
from dinmo_dbt.artifacts.selection import select
from dinmo_dbt.errors import UsageError

KNOWN = activations(
    manifest(
        node(
            "dim_customers",
            dinmo=block(activation(name="customers.crm"), insert(name="events")),
            tags=["nightly", "crm"],
            fqn=["lab", "marts", "finance", "dim_customers"],
            original_file_path="models/marts/finance/dim_customers.sql",
        ),
        node("fct_orders", dinmo=block(activation(name="orders")), tags=["hourly"]),
        node("stg_notes", dinmo=block(insert(name="notes")), fqn=["lab", "staging", "stg_notes"],
             original_file_path="models/staging/stg_notes.sql"),
    ),
    {},
).activations  # fmt: skip


def picked(*terms: str, without: tuple[str, ...] = ()) -> list[str]:
    return [a.name for a in select(KNOWN, terms, without)]


@pytest.mark.parametrize(
    "terms, names",
    [
        ((), "customers.crm events notes orders"),
        (("dim_customers",), "customers.crm events"),
        (("customers.crm",), "customers.crm"),
        (("marts",), "customers.crm events orders"),
        (("marts.finance",), "customers.crm events"),
        (("lab.marts.finance.dim_customers",), "customers.crm events"),
        (("marts.*",), "customers.crm events orders"),
        (("*.fct_orders",), "orders"),
        (("fqn:staging",), "notes"),
        (("fct_*",), "orders"),
        (("e*",), "events"),
        (("*",), "customers.crm events notes orders"),
        (("tag:nightly",), "customers.crm events"),
        (("tag:*ly",), "customers.crm events orders"),
        (("path:models/marts",), "customers.crm events orders"),
        (("path:models/marts/",), "customers.crm events orders"),
        (("path:models/*/stg_notes.sql",), "notes"),
        (("models/staging",), "notes"),
        (("stg_notes.sql",), "notes"),
        (("orders notes",), "notes orders"),
        (("orders", "notes"), "notes orders"),
        (("marts,tag:hourly",), "orders"),
        (("tag:nightly,e* orders",), "events orders"),
    ],
)
def test_terms_select_as_in_dbt(terms: tuple[str, ...], names: str) -> None:
    assert picked(*terms) == names.split()


def test_exclude_takes_away() -> None:
    assert picked("marts", without=("tag:nightly",)) == ["orders"]
    assert picked(without=("staging orders",)) == ["customers.crm", "events"]


@pytest.mark.parametrize(
    "case, terms, without",
    [
        ("typo", ("ordres",), ()),
        ("typo_beside_a_match", ("orders custmers.crm",), ()),
        ("typo_in_exclude", (), ("tag:nigthly",)),
        ("empty_intersection", ("staging,tag:nightly",), ()),
        ("nothing_left", ("orders",), ("marts",)),
        ("state", ("state:modified",), ()),
        ("result", ("result:error",), ()),
        ("graph_before", ("+orders",), ()),
        ("graph_after", ("orders+2",), ()),
        ("graph_at", ("@orders",), ()),
        ("empty_value", ("tag:",), ()),
        ("empty_part", ("orders,",), ()),
        ("control_characters", ("\x1b[31mx",), ()),
    ],
)
def test_each_mistake_has_its_message(case: str, terms: tuple[str, ...], without: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as raised:
        select(KNOWN, terms, without)
    golden(f"select_{case}", told(raised.value))


def test_a_project_without_activations_selects_nothing_only_when_asked() -> None:
    assert select(()) == ()
    with pytest.raises(UsageError, match="declares no activation"):
        select((), ("orders",))


@given(
    st.lists(st.text(max_size=12), max_size=3), st.lists(st.text(alphabet="*[]!?:,+@. marts", max_size=8), max_size=2)
)
def test_any_terms_select_or_give_a_usage_error(terms: list[str], without: list[str]) -> None:
    try:
        assert set(select(KNOWN, terms, without)) <= set(KNOWN)
    except UsageError as error:
        assert error.problems
