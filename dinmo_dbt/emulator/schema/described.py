"""A real org's objects, from its describe replies (`GET sobjects/<Object>/describe`, or `sf sobject describe --json`).

What this package derives by itself is read into definitions; every other key a reply had is kept and given back as it
was. Values that can't be computed here (formulas, compound addresses, files) are null, and `notes` says so.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from dinmo_dbt.emulator.errors import SchemaError
from dinmo_dbt.emulator.field_types import type_named
from dinmo_dbt.emulator.schema.declared import with_record_types
from dinmo_dbt.emulator.schema.definitions import Field, PicklistValue, RecordType, SObject, literal
from dinmo_dbt.emulator.schema.describe import field_keys, own_keys
from dinmo_dbt.emulator.schema.standard import system_fields

_READ = (
    ("name", "name"), ("label", "label"), ("type", "type"), ("length", "length"), ("precision", "precision"),
    ("scale", "scale"), ("digits", "digits"), ("nillable", "nillable"), ("createable", "createable"),
    ("updateable", "updateable"), ("defaultedOnCreate", "defaulted_on_create"), ("custom", "custom"),
    ("unique", "unique"), ("caseSensitive", "case_sensitive"), ("externalId", "external_id"),
    ("idLookup", "id_lookup"), ("nameField", "name_field"), ("namePointing", "name_pointing"),
    ("calculated", "calculated"), ("calculatedFormula", "formula"), ("relationshipName", "relationship_name"),
    ("relationshipOrder", "relationship_order"), ("cascadeDelete", "cascade_delete"),
    ("restrictedDelete", "restricted_delete"), ("restrictedPicklist", "restricted_picklist"),
    ("inlineHelpText", "help"), ("htmlFormatted", "html"),
)  # fmt: skip
_DERIVED = ("fields", "childRelationships", "recordTypeInfos", "urls")
_LONG = 255


def read_describes(path: Path) -> list[dict[str, Any]]:
    """The describes in a JSON file: one, a list, or the CLI's reply around one. SchemaError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        raise SchemaError(f"{path}: is not JSON: {error}") from error
    listed = content if isinstance(content, list) else [content]
    found = [d["result"] if isinstance(d, dict) and isinstance(d.get("result"), dict) else d for d in listed]
    for each in found:
        if not isinstance(each, dict) or not isinstance(each.get("fields"), list) or not each.get("name"):
            raise SchemaError(f"{path}: is no describe of an object: it has no `name` and `fields`")
    return found


def described_object(given: dict[str, Any], known: SObject | None, where: str) -> tuple[SObject, list[str]]:
    """The object, and what is not as in its org. `known` lends the SQL of values that are computed here too."""
    notes: list[str] = []
    try:
        fields = [_field(entry, known, given["name"], notes) for entry in given["fields"]]
        types = [_record_type(entry) for entry in given.get("recordTypeInfos") or ()]
        sobject = SObject(
            name=given["name"], label=given["label"], label_plural=given["labelPlural"], prefix=given.get("keyPrefix"),
            custom=given.get("custom", False), createable=given.get("createable", True),
            deletable=given.get("deletable", True), updateable=given.get("updateable", True),
            every=(*fields, *_unseen(fields)),
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise SchemaError(f"{where}: the describe of {given.get('name')} can't be read: {error!r}") from error
    own = own_keys(sobject)
    kept = {k: v for k, v in given.items() if k not in _DERIVED and own.get(k, _DERIVED) != v}
    kept |= {"childRelationships": given["childRelationships"]} if "childRelationships" in given else {}
    sobject = replace(sobject, kept=tuple(kept.items()))
    return with_record_types(sobject, tuple(r for r in types if not r.master)) if len(types) > 1 else sobject, notes


def _unseen(fields: list[Field]) -> list[Field]:
    """System fields that the describe leaves out; every record has them all the same."""
    names = {f.name for f in fields}
    needed = [f for f in system_fields(custom=False) if f.name not in names and f.name != "OwnerId"]
    return [replace(f, hidden=True) for f in needed]


def _field(given: dict[str, Any], known: SObject | None, object_name: str, notes: list[str]) -> Field:
    made: dict[str, Any] = {name: given[key] for key, name in _READ if given.get(key) is not None}
    kind, where = made["type"], f"{object_name}.{made['name']}"
    if kind == "encryptedstring":  # kept as text: what the org encrypts is not imitated
        notes.append(f"{where} is encrypted in its org and plain here")
        kind = made["type"] = "string"
    made["reference_to"] = tuple(given.get("referenceTo") or ())
    made["picklist"] = tuple(
        PicklistValue(v["value"], v.get("label") or v["value"], v.get("active", True), v.get("defaultValue", False))
        for v in given.get("picklistValues") or ()
    )
    made["long_text"] = kind == "textarea" and made.get("length", 0) > _LONG
    if given.get("autoNumber"):
        made["auto_number"] = "{0}"  # the format is not in a describe
        notes.append(f"{where} counts without its org's display format")
    twin = next((f for f in known.every if f.name == made["name"]), None) if known is not None else None
    if twin is not None and twin.sql is not None:
        made["sql"] = twin.sql
    elif not type_named(kind).is_stored or made.get("calculated"):
        made["sql"] = "NULL"
        what = "a formula" if made.get("calculated") else f"of type {kind}"
        notes.append(f"{where} is {what}: always null here")
    made |= _default(given, kind, made["picklist"])
    field = Field(**made)
    own = field_keys(field)
    kept = tuple((k, v) for k, v in given.items() if own.get(k, _DERIVED) != v)
    return replace(field, kept=kept)


def _default(given: dict[str, Any], kind: str, picklist: tuple[PicklistValue, ...]) -> dict[str, Any]:
    if kind == "boolean":
        return {"default": bool(given.get("defaultValue"))}
    chosen = next((v.value for v in picklist if v.default and v.active), None)
    if chosen is not None:
        return {"default": chosen}
    formula = given.get("defaultValueFormula")
    if formula:
        found = literal(formula)
        return {"default": found} if found is not None else {"default_formula": formula}
    value = given.get("defaultValue")
    return {"default": str(value) if value is not None else None}


def _record_type(given: dict[str, Any]) -> RecordType:
    return RecordType(
        developer_name=given["developerName"], name=given["name"], active=given.get("active", True),
        available=given.get("available", True), default=given.get("defaultRecordTypeMapping", False),
        master=given.get("master", False),
    )  # fmt: skip
