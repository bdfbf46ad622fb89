"""What follows from a field's type, on every surface of the org: one value a type, in `TYPES`.

A type that is kept as another takes one line there. Sources: Object Reference, "Field Types"; recorded describes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.emulator.records import rules
from dinmo_dbt.emulator.soql import scalars
from dinmo_dbt.emulator.soql.java import java_doubles


def _same(value: Any) -> Any:
    return value


def _strings(values: list[Any]) -> pa.Array:
    return pa.array(values, pa.string())


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldType:
    """One type of fields. `accept`: from text to the stored form; `literals`: the kinds of literal that it is compared
    with in SOQL, and `of_literal` one of them, if it is no string, as it is stored."""

    metadata: tuple[str, ...] = ()  # <type> of a custom field's file
    form: str  # of what is stored: a field may change to a type of the same form
    accept: rules.Accept | None = None  # None: an id, or nothing is stored
    literals: tuple[str, ...] = ("string",)
    of_literal: Callable[[str], Any] = _same
    json: Callable[[Any], Any] = _same  # of a stored value
    csv: Callable[[list[Any]], pa.Array] = _strings
    empty: Any = None  # what REST prints for null
    soap: str = "xsd:string"
    apex: str = "String"
    called: str = "string"  # in errors of SOQL
    xsd: str = "double"  # in errors of Bulk
    is_text: bool = False
    is_number: bool = False
    is_id: bool = False
    is_stored: bool = True
    holds_several: bool = False
    is_ordered: bool = True  # by < and > of SOQL
    groupable: bool = True
    aggregatable: bool = True
    sortable: bool = True
    bytes_a_character: int = 3
    takes_json_numbers: bool = True
    takes_json_booleans: bool = False
    is_echoed_as_stored: bool = False  # in the result files of Bulk
    folds_always: bool = False  # in a match


def _whole_texts(values: list[Any]) -> pa.Array:
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _doubles(values: list[Any]) -> pa.Array:
    return java_doubles(pa.array(values, pa.float64()))


def _moments(values: list[Any]) -> pa.Array:
    return pc.binary_join_element_wise(pa.array(values, pa.string()), ".000Z", "")


def _flags(values: list[Any]) -> pa.Array:
    return pa.array(["true" if value else "false" for value in values], pa.string())


TEXT = FieldType(form="text", accept=rules.text, is_text=True, takes_json_booleans=True)
NUMBER = FieldType(
    form="number",
    accept=rules.double,
    literals=("number",),
    of_literal=scalars.number,
    csv=_doubles,
    soap="xsd:double",
    apex="Double",
    called="double",
    is_number=True,
    groupable=False,
    is_echoed_as_stored=True,
)
ID = FieldType(form="id", soap="tns:ID", apex="Id", is_id=True, bytes_a_character=1)

TYPES: dict[str, FieldType] = {
    "string": replace(TEXT, metadata=("Text", "AutoNumber")),
    "textarea": replace(TEXT, metadata=("TextArea", "LongTextArea", "Html")),
    "url": replace(TEXT, metadata=("Url",)),
    "phone": replace(TEXT, metadata=("Phone",)),
    "combobox": replace(TEXT, groupable=False),
    "email": replace(TEXT, metadata=("Email",), accept=rules.email, folds_always=True),
    "picklist": replace(TEXT, metadata=("Picklist",)),
    "multipicklist": replace(
        TEXT, metadata=("MultiselectPicklist",), holds_several=True, is_ordered=False, groupable=False,
        aggregatable=False, sortable=False, bytes_a_character=1,
    ),
    "id": replace(ID, called="id"),
    "reference": replace(ID, metadata=("Lookup", "MasterDetail", "Hierarchy"), form="reference"),
    "double": replace(NUMBER, metadata=("Number", "Summary")),
    "currency": replace(NUMBER, metadata=("Currency",)),
    "percent": replace(NUMBER, metadata=("Percent",)),
    "int": replace(
        NUMBER, form="int", accept=rules.whole, csv=_whole_texts, soap="xsd:int", apex="Integer", called="integer",
        xsd="int", groupable=True,
    ),
    "boolean": FieldType(
        metadata=("Checkbox",), form="boolean", accept=rules.boolean, literals=("true", "false"),
        of_literal=lambda kind: 1 if kind == "true" else 0, json=bool, csv=_flags, empty=False, soap="xsd:boolean",
        apex="Boolean", called="boolean", xsd="boolean", is_ordered=False, aggregatable=False, takes_json_numbers=False,
        takes_json_booleans=True, is_echoed_as_stored=True,
    ),
    "date": FieldType(
        metadata=("Date",), form="date", accept=rules.day, literals=("date",), of_literal=scalars.day,
        soap="xsd:date", apex="Date", called="date", xsd="date", takes_json_numbers=False, is_echoed_as_stored=True,
    ),
    "datetime": FieldType(
        metadata=("DateTime",), form="datetime", accept=rules.moment, literals=("datetime",),
        of_literal=scalars.moment, json=lambda value: f"{value}.000+0000", csv=_moments, soap="xsd:dateTime",
        apex="Datetime", called="dateTime", xsd="dateTime", groupable=False, takes_json_numbers=False,
        is_echoed_as_stored=True,
    ),
    "time": FieldType(
        metadata=("Time",), form="time", accept=rules.clock, literals=("time",), of_literal=scalars.time,
        soap="xsd:time", apex="Time", called="time", xsd="time", takes_json_numbers=False,
    ),
}  # fmt: skip
# Compound values and the like: described, always null, filtered at most.
_ABSENT = FieldType(
    form="none", literals=("number",), of_literal=scalars.number, csv=_whole_texts, is_stored=False, groupable=False,
    aggregatable=False, sortable=False,
)  # fmt: skip
_OTHERS = {
    name: replace(_ABSENT, soap=soap)
    for name, soap in (("address", "urn:address"), ("location", "urn:location"), ("base64", "xsd:base64Binary"),
                       ("anyType", "xsd:anyType"))
}  # fmt: skip


def type_named(name: str) -> FieldType:
    """The type that describe calls so."""
    return TYPES.get(name) or _OTHERS.get(name, _ABSENT)
