"""The JSON that commands print and runs leave behind, described for those who read it.

dinmo_dbt/documents.schema.json and docs/json.md are made from these types, and every document that a test reads is held
against them. Nothing at run time imports this package.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from dinmo_dbt.cli.documents.declared import Debug, List, Validate
from dinmo_dbt.cli.documents.mended import Demo, Revert, Verify
from dinmo_dbt.cli.documents.orgs import OrgFields, OrgObjects
from dinmo_dbt.cli.documents.parts import Document, Failure, Part
from dinmo_dbt.cli.documents.seen import History, Pausing, Rejected, Schedule, Status
from dinmo_dbt.cli.documents.served import EmulatorImport, EmulatorReset, EmulatorServe, Health, WarningsTest
from dinmo_dbt.cli.documents.states import (
    StateAccept,
    StateAdopt,
    StateCopy,
    StateMove,
    StateRekey,
    StateReset,
    StateShow,
    StateUnlock,
)
from dinmo_dbt.cli.documents.synced import LogLine, Plan, RunResults, Sync

# What commands print, in the order of the page.
DOCUMENTS: tuple[type[Document], ...] = (
    Failure,
    List,
    Debug,
    Validate,
    Plan,
    Sync,
    Schedule,
    Pausing,
    Status,
    History,
    Rejected,
    Verify,
    Revert,
    Demo,
    OrgObjects,
    OrgFields,
    StateShow,
    StateReset,
    StateAdopt,
    StateRekey,
    StateAccept,
    StateCopy,
    StateMove,
    StateUnlock,
    WarningsTest,
    EmulatorServe,
    EmulatorReset,
    EmulatorImport,
)
FILES: tuple[type[Part], ...] = (RunResults, LogLine, Health)


def json_schema() -> dict[str, Any]:
    """JSON Schema of every document: one of them matches what was printed, and `$defs` has each by its name."""
    every = (*DOCUMENTS, *FILES)
    _, made = models_json_schema([(each, "validation") for each in every], by_alias=True)
    definitions = {name: _plain(each) for name, each in made["$defs"].items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "JSON of dinmo-dbt",
        "description": "What commands print with --json, what a sync leaves in target/, log lines, and serve's health.",
        "anyOf": [{"$ref": f"#/$defs/{each.__name__}"} for each in every],
        "$defs": definitions,
    }


def _plain(definition: dict[str, Any]) -> dict[str, Any]:
    """Without what pydantic adds: a key's name in other letters, and a default for one that may be missing."""
    for value in definition.get("properties", {}).values():
        value.pop("title", None)
        value.pop("default", None)
    return definition
