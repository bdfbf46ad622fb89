"""The rows of one batch as they would be sent: canonical values, hashes, and why some can't be sent. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.rows import values
from dinmo_dbt.rows.forms import in_form, text_form
from dinmo_dbt.rows.keys import key_text, why_not_key
from dinmo_dbt.rows.mapping import MappedColumn, Mapping
from dinmo_dbt.rows.reasons import Reason, Reasons, unreadable
from dinmo_dbt.rows.rowhash import Digests, Hashes, digest_columns

Arrays = dict[tuple[str, str, bool], pa.Array]  # by source, header and keep_nulls


@dataclass(frozen=True)
class Hashed:
    """Rows that have a key, column by column. `reason`: why a row can't be sent, 0 for none; `culprit`: which of the
    mapping's columns that is of, -1 for the match. `longest`: by header, the most characters of a text that its field
    has no place for."""

    key: pa.Array
    kh: Hashes
    ck: Digests
    arrays: Arrays
    reason: Reasons
    culprit: npt.NDArray[np.int16]
    longest: dict[str, int]

    def of(self, column: MappedColumn) -> pa.Array:
        return self.arrays[_place(column)]


def hash_rows(batch: pa.RecordBatch, key: pa.Array, mapping: Mapping, hash_key: Callable[[pa.Array], Hashes]) -> Hashed:
    arrays: Arrays = {}
    longest: dict[str, int] = {}
    reason = np.zeros(batch.num_rows, np.uint8)
    culprit = np.full(batch.num_rows, -1, np.int16)
    columns: list[tuple[int, MappedColumn]] = list(enumerate(mapping.columns))
    if mapping.match:
        columns.insert(0, (-1, mapping.match))
    for number, column in columns:
        given = batch.column(column.source)
        array, unfit = values.canonical(given, column.field, keep_nulls=column.keep_nulls)
        arrays[_place(column)] = array
        if (characters := _longest_unfit(given, unfit)) is not None:
            longest[column.header] = max(characters, longest.get(column.header, 0))
        # A match is compared as a double: two that are one are refused, which says more.
        lost = None if number < 0 else values.unkept(given, array, column.field)
        for bad in (unreadable(batch, column.source), unfit, lost):
            if bad is not None:
                first = (bad != 0) & (reason == 0)
                reason[first], culprit[first] = bad[first], number
    return Hashed(key, hash_key(key), check_hash(key, mapping, arrays), arrays, reason, culprit, longest)


def hash_under(batch: pa.RecordBatch, key: pa.Array, mapping: Mapping) -> Digests:
    """The check hashes that these rows had under an earlier mapping, written by the types of then."""
    arrays: Arrays = {}
    for column in _columns(mapping):
        given, typed = batch.column(column.source), batch.schema.field(column.source)
        array, _ = values.canonical(given, column.field, keep_nulls=column.keep_nulls)
        if column.form not in ("", text_form(typed, column.field)):
            array = in_form(array, column.form)
        arrays[_place(column)] = array
    return check_hash(key, mapping, arrays)


def check_hash(key: pa.Array, mapping: Mapping, arrays: Arrays) -> Digests:
    return digest_columns([key, *(arrays[_place(column)] for column in _columns(mapping))], seed=mapping.digest)


def _columns(mapping: Mapping) -> list[MappedColumn]:
    return ([mapping.match] if mapping.match else []) + list(mapping.columns)


def _place(column: MappedColumn) -> tuple[str, str, bool]:
    return column.source, column.header, column.keep_nulls


def _longest_unfit(given: pa.Array, unfit: Reasons | None) -> int | None:
    """The most characters of a text that is too long; None where none is."""
    long = None if unfit is None else unfit == Reason.LENGTH
    if long is None or not long.any() or why_not_key(given.type) is not None:  # it is not one text
        return None
    text = key_text([given.filter(pa.array(long))])
    return pc.max(pc.utf8_length(pc.utf8_trim_whitespace(text))).as_py() or 0
