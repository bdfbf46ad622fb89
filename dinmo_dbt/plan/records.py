"""Which record holds a value, as Salesforce compares values. Reads only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.destination import Destination, Field
from dinmo_dbt.rows import values


def find_records(
    destination: Destination, object_name: str, by: Field, wanted: pa.Array, only: tuple[str, str] | None = None
) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
    """The record id for each wanted value (null: none or several), and where there are several. `only`: as
    `Destination.lookup` has it."""
    distinct = pc.unique(wanted.drop_null())
    nothing = pa.nulls(len(wanted), pa.utf8()), np.zeros(len(wanted), np.bool_)
    if len(distinct) == 0:
        return nothing
    records = destination.lookup(object_name, by, distinct, only)
    records = records.filter(pc.is_valid(records["value"]))
    if len(records) == 0:
        return nothing
    # Values that differ in case only are asked in different queries, and each query finds the same record.
    record_ids = records["record_id"].combine_chunks()
    records = records.take(pc.index_in(pc.unique(record_ids), value_set=record_ids))
    held, asked = compared(records["value"].combine_chunks(), by), compared(wanted, by)
    counts = held.value_counts()
    several = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    ids = records["record_id"].combine_chunks().take(pc.index_in(asked, value_set=held))
    twice = pc.and_(pc.is_in(asked, value_set=several), pc.is_valid(asked)).to_numpy(zero_copy_only=False)
    return pc.if_else(pa.array(twice), pa.scalar(None, pa.utf8()), ids), twice


def find_parents(
    destination: Destination, child: str, header: str, lookup: Field, by: Field, wanted: pa.Array
) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
    """As `find_records`, for the parents that rows of the object `child` name in the parent path `header`. Each object
    has record types of its own, and two may have some of one name."""
    parent = parent_object(header, lookup)
    return find_records(destination, parent, by, wanted, ("SobjectType", child) if parent == "RecordType" else None)


def compared(array: pa.Array, by: Field) -> pa.Array:
    """Values in the form in which two of them are one to Salesforce."""
    return values.fold(values.echo_form(array, by), by)


def ids_missing(ids: pa.Array) -> npt.NDArray[np.bool_]:
    """Where no record id is known."""
    missing: npt.NDArray[np.bool_] = pc.is_null(ids).to_numpy(zero_copy_only=False)
    return missing


def repeated(ids: pa.Array) -> npt.NDArray[np.bool_]:
    """Where an id is that stands more than once."""
    counts = ids.value_counts()
    several = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    found: npt.NDArray[np.bool_] = pc.is_in(ids, value_set=several).to_numpy(zero_copy_only=False)
    return found


def parent_object(header: str, lookup: Field) -> str:
    """The object that a parent path leads to: the lookup's only one, or the one that the path names."""
    type_name, _, _ = header.rpartition(":")
    return next(name for name in lookup.reference_to if len(lookup.reference_to) == 1 or name == type_name)
