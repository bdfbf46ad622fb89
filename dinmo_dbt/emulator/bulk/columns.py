"""What the columns of an upload are: header names to fields, cells to what they ask for.

Source: Bulk API 2.0 Developer Guide, relationship fields in a header row; wire reference §3.6, §4.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.emulator.bulk.csvtext import CsvError
from dinmo_dbt.emulator.records.engine import Org
from dinmo_dbt.emulator.records.rules import Origin
from dinmo_dbt.emulator.records.work import Column, Work, read_only
from dinmo_dbt.emulator.schema.definitions import Field, SObject

# A field, and for `Parent__r.Ext__c` the parent and its field; None is the Id column.
Target = tuple[Field, tuple[SObject, Field] | None] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What each column of an upload is: the Id, or a field (of the parent)."""

    columns: tuple[Target, ...]
    key: Field | None


def plan_columns(
    org: Org, sobject: SObject, header: tuple[str, ...], *, operation: str, external_id: str | None
) -> Plan:
    """Each column's field; the first one that can't be found fails the whole job."""
    columns = tuple(column(org, sobject, name) for name in header)
    names = ["Id" if c is None else c[0].name if c[1] is None else "" for c in columns]
    key = sobject.field(external_id) if external_id and external_id != "Id" else None
    if operation in ("update", "delete") and "Id" not in names:
        raise CsvError("InvalidBatch : Field name not found : Id")
    if operation == "delete" and len(names) > 1:  # the exact text is unverified
        raise CsvError("InvalidBatch : A delete job takes the Id column only")
    if operation == "upsert" and external_id not in names:
        raise CsvError(f"InvalidBatch : Field name not found : {external_id}")
    repeated = sorted({n for n in names if n and names.count(n) > 1})
    if repeated:  # unverified
        raise CsvError(f"InvalidBatch : Duplicate column : {repeated[0]}")
    return Plan(columns, key)


def column(org: Org, sobject: SObject, name: str) -> Target:
    """A header name's field. Relationship columns: `Parent__r.Ext__c`, polymorphic `Lead:Who.Email`."""
    if name.lower() == "id":
        return None
    if "." not in name:
        field = sobject.field(name)
        if field is None:
            raise CsvError(f"InvalidBatch : Field name not found : {name}")
        return field, None
    before, _, key_name = name.partition(".")
    kind, colon, relationship = before.rpartition(":")
    link = sobject.relationship(relationship)
    if link is None:
        raise CsvError(f"InvalidBatch : Unable to find relationship: {relationship}")
    polymorphic = len(link.reference_to) > 1
    if colon and not polymorphic:
        message = f"type is not needed for non polymorphic foreign key references: {relationship}"
        raise CsvError(f"InvalidBatch : {message}")
    if polymorphic and not colon:
        raise CsvError(f"InvalidBatch : Unable to find relationship: {relationship}")
    parent = org.schema.get(kind if colon else link.reference_to[0])
    key = parent.field(key_name) if parent is not None else None
    if parent is None or key is None or not key.id_lookup:
        raise CsvError(f"InvalidBatch : Field name not found : {name}")
    return link, (parent, key)


def cell_columns(org: Org, sobject: SObject, header: tuple[str, ...], texts: list[pa.Array]) -> list[Column]:
    """The columns of a file of new records, read as a Bulk insert reads them. An Id column is refused."""
    columns = []
    for place, (name, text) in enumerate(zip(header, texts, strict=True)):
        target = column(org, sobject, name)
        if target is None:
            raise CsvError("a new record can't have an Id")
        cell, given = given_cells(text, by_parent=target[1] is not None)
        columns.append(Column(target[0], cell, given, target[1], Origin(place)))
    return columns


def given_cells(text: pa.Array, *, by_parent: bool = False) -> tuple[pa.Array, Any]:
    """An empty cell is not given; `#N/A` asks for null. The guide says that of fields only: in a relationship column it
    is looked for as any other external id is, and not found (unverified)."""
    empty = pc.equal(pc.binary_length(text), 0)
    given = None
    if pc.any(empty).as_py():
        given = ~empty.to_numpy(zero_copy_only=False)
        text = pc.if_else(empty, pa.scalar(None, pa.string()), text)
    cleared = pc.equal(text, "#N/A")
    if not by_parent and pc.any(cleared).as_py():
        text = pc.if_else(cleared, pa.scalar(None, pa.string()), text)
    return text, given


def refuse_ids(work: Work, ids: pa.Array) -> None:
    """An Id beside another key may be an empty column (jsforce sends one); a value in it is refused."""
    for row in np.flatnonzero(ids.is_valid().to_numpy(zero_copy_only=False)).tolist():
        work.refuse(row, read_only(("Id",)))
