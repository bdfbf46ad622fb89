"""What the columns of JSON records are: names to fields, values to text. Pure.

Source: REST API Developer Guide, sObject rows, upsert by external id; wire reference §2.5, §4.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dinmo_dbt.emulator.errors import ApiError, RowError
from dinmo_dbt.emulator.records.cell import Mask
from dinmo_dbt.emulator.records.rules import Origin
from dinmo_dbt.emulator.records.work import Column
from dinmo_dbt.emulator.schema.definitions import Field, Schema, SObject

# A field, and for a parent that is named by another field than its id the parent and that field.
_Target = tuple[Field, tuple[SObject, Field] | None]


@dataclass(frozen=True, slots=True)
class JsonColumns:
    """Records of one object as columns of text, `Id` aside, and why a row can't be read."""

    columns: list[Column]
    ids: list[str | None]
    unread: dict[int, RowError]


@dataclass(frozen=True, slots=True)
class _Gathered:
    """One column while its values come in, record by record."""

    target: _Target
    texts: list[str | None]
    given: Mask

    def column(self, origin: Origin) -> Column:
        field, parent = self.target
        given = None if self.given.all() else self.given
        return Column(field, pa.array(self.texts, pa.string()), given, parent, origin)


def columns_of(schema: Schema, sobject: SObject, records: list[Any], origin: Origin) -> JsonColumns:
    """What can't be read, an unknown field or a value, refuses the request.

    Of a collection it refuses the record (amp-labs/connectors, replies of an org): the last of the three, the first
    refusal of each.
    """
    ids: list[str | None] = [None] * len(records)
    unread: dict[int, RowError] = {}
    gathered: dict[tuple[str, str], _Gathered] = {}
    for row, record in enumerate(records):
        if not isinstance(record, dict):
            raise ApiError(400, "JSON_PARSER_ERROR", "A record must be a JSON object at [line:1, column:1]")
        for name, value in record.items():
            if name == "attributes":
                continue
            if name.lower() == "id":
                ids[row] = None if value is None else str(value)
                continue
            try:
                cells = list(_cells(schema, sobject, name, value))
            except ApiError as error:
                if not origin.collection:
                    raise
                unread.setdefault(row, RowError(error.body[0]["errorCode"], error.body[0]["message"]))
                continue
            for (field, parent), cell in cells:
                text = _text(parent[1] if parent is not None else field, cell, origin)
                if isinstance(text, RowError):
                    unread.setdefault(row, text)
                    continue
                place = (field.name, parent[1].name if parent is not None else "")
                if place not in gathered:
                    nothing = np.zeros(len(records), np.bool_)
                    gathered[place] = _Gathered((field, parent), [None] * len(records), nothing)
                gathered[place].texts[row] = text
                gathered[place].given[row] = True
    return JsonColumns([each.column(origin) for each in gathered.values()], ids, unread)


def field_named(sobject: SObject, name: str) -> Field:
    """The field, or Salesforce's 400."""
    field = sobject.field(name)
    if field is None:
        raise ApiError(400, "INVALID_FIELD", f"No such column '{name}' on sobject of type {sobject.name}")
    return field


def _cells(schema: Schema, sobject: SObject, name: str, value: Any) -> Iterator[tuple[_Target, Any]]:
    """What a name and its value in JSON write: a field, or a lookup by one or several fields of its parent."""
    link = sobject.relationship(name)
    if link is None or sobject.field(name) is not None:
        yield (field_named(sobject, name), None), value
        return
    if value is None:  # a null parent clears the lookup (unverified)
        yield (link, None), None
        return
    if not isinstance(value, dict):
        raise ApiError(400, "JSON_PARSER_ERROR", f"{name} must be an object at [line:1, column:1]")
    attributes = value.get("attributes")
    parent_name = attributes.get("type") if isinstance(attributes, dict) else None
    parent = schema.get(str(parent_name or link.reference_to[-1]))
    if parent is None or parent.name not in link.reference_to:
        raise ApiError(400, "INVALID_TYPE", f"sObject type '{parent_name}' is not supported.")
    for key_name, key_value in value.items():
        if key_name == "attributes":
            continue
        key = field_named(parent, key_name)
        if not key.id_lookup:
            message = f"{key_name} specified for foreign key reference is not an external id or idLookup field"
            raise ApiError(400, "INVALID_FIELD", message)
        yield (link, None if key.name == "Id" else (parent, key)), key_value


def _text(field: Field, value: Any, origin: Origin) -> str | RowError | None:
    """A JSON value as text. Scalars are coerced, as Salesforce does a number in a string; others are refused.

    An empty string is null in text and lookups (for the latter unverified) and can't be read as anything else: known
    of dates (CumulusCI #3283), unverified of numbers. Unlike Bulk's, JSON's booleans are not written `1` and `0`
    (formie #1173, craft-freeform #1168; of numbers that are no strings unverified).
    """
    match value:
        case None:
            return None
        case str():
            if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
                return origin.parser_error("Invalid UTF-16 surrogate in a string value at")
            if field.kind.is_text:
                return value
            if field.kind.is_id:
                return value.strip() or None
            if not value.strip() or (field.type == "boolean" and value.strip() in ("0", "1")):
                return origin.unreadable(field, value)
            return value
        case bool():
            text = "true" if value else "false"
            return text if field.kind.takes_json_booleans else origin.unreadable(field, text, f"VALUE_{text.upper()}")
        case int() | float():
            if not field.kind.takes_json_numbers:
                kind = "INT" if isinstance(value, int) else "FLOAT"
                return origin.unreadable(field, repr(value), f"VALUE_NUMBER_{kind}")
            return repr(value)
        case list():
            return origin.parser_error(f"Cannot deserialize instance of {field.type} from START_ARRAY value")
        case _:
            return origin.parser_error(
                f"Cannot deserialize instance of {field.type} from START_OBJECT value {{ or request may be missing a "
                "required field at"
            )
