"""Case does not matter where Salesforce compares without it, in any alphabet, and SQL and Python agree on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt import emulator
from dinmo_dbt.emulator.folding import fold, folded_sql
from dinmo_dbt.emulator.web.app import App

from .conftest import Org

TEXTS = st.none() | st.text() | st.text(st.characters(max_codepoint=127)) | st.sampled_from(["İ", "ǅ", "ẞ", "Σς", "K"])


@pytest.fixture(scope="module")
def app(schema: Path) -> Iterator[App]:
    app = emulator.app(schema=schema, data=None)
    yield app
    app.close()


@given(text=TEXTS)
def test_text_folds_alike_in_sql_and_in_python(app: App, text: str | None) -> None:
    row = app.site.store.reading().execute(f"SELECT {folded_sql('?1')}", (text,)).fetchone()
    assert row == (fold(text),)


def test_an_upsert_finds_text_beyond_ascii_in_any_case(org: Org) -> None:
    first = org.patch("/sobjects/Customer__c/Code__c/ÉCLAIR-Ø", {"Plan__c": "one"})
    again = org.patch("/sobjects/Customer__c/Code__c/éclair-ø", {"Plan__c": "two"})
    assert (first.status_code, again.status_code) == (201, 200)
    (found,) = org.query("SELECT Plan__c FROM Customer__c WHERE Code__c = 'Éclair-ø' AND Plan__c LIKE 'TW%'")
    assert found["Plan__c"] == "two"
