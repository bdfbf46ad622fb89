"""Rows that may have to be sent: their columns, what they are, and how long they are on their way. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.rows import values
from dinmo_dbt.rows.hashed import Hashed
from dinmo_dbt.rows.mapping import Mapping
from dinmo_dbt.rows.reasons import Reason, Reasons
from dinmo_dbt.rows.rowhash import Hashes, as_arrow
from dinmo_dbt.rows.snapshot import Positions
from dinmo_dbt.rows.texts import BULK_NULL

_Number = TypeVar("_Number", bound=np.generic)
# "Bulk API and Bulk API 2.0 Limits and Allocations": one longer record fails the whole batch that holds it.
ROW_CHARACTERS_MAX = 400_000
_ROW_BYTES = 24  # a record id, its comma, the line's end


@dataclass(frozen=True)
class Spooled:
    """What is known of spooled rows, parallel to the spool, as in `ChangeSet`. Their check hashes are in the spool: few
    are asked for."""

    kind: npt.NDArray[np.uint8]
    position: Positions
    older: npt.NDArray[np.int8]
    kh: Hashes
    no_bulk: Reasons
    width: npt.NDArray[np.uint32]


def joined(parts: Sequence[Spooled]) -> Spooled:
    return Spooled(
        kind=_joined([part.kind for part in parts], np.uint8),
        position=_joined([part.position for part in parts], np.int64),
        older=_joined([part.older for part in parts], np.int8),
        kh=_joined([part.kh for part in parts], np.uint64),
        no_bulk=_joined([part.no_bulk for part in parts], np.uint8),
        width=_joined([part.width for part in parts], np.uint32),
    )


def spool_columns(rows: Positions, hashed: Hashed, mapping: Mapping) -> dict[str, pa.Array]:
    """These rows of a batch, column by column as they are spooled."""
    taken, whole = pa.array(rows), len(rows) == len(hashed.key)
    match = (("match", mapping.match),) if mapping.match else ()
    key = hashed.key if whole else hashed.key.take(taken)
    columns = {"key": key, "kh": pa.array(hashed.kh[rows]), "ck": as_arrow(hashed.ck[rows])}
    for name, column in (*match, *((column.header, column) for column in mapping.columns)):
        array = hashed.of(column)
        columns[name] = array if whole else array.take(taken)
    return columns


def constant_characters(mapping: Mapping) -> int:
    """How many characters of a row its constants are."""
    return sum(len(values.text(c.value, c.field)[0].as_py() or BULK_NULL) for c in mapping.constants)


def lengths(columns: dict[str, pa.Array], mapping: Mapping, constants: int) -> tuple[Reasons, npt.NDArray[np.uint32]]:
    """Of spooled columns, why each row can't travel by Bulk API 2.0, and its bytes in a CSV file, never too few."""
    count = len(columns["key"])
    literal = np.zeros(count, np.bool_)
    width = np.full(count, _ROW_BYTES, np.uint32)
    if mapping.match is not None:
        width += _csv_bytes(columns["match"])
    for column in mapping.columns:
        array = columns[column.header]
        width += _csv_bytes(array)
        if pa.types.is_string(array.type):
            equal = pc.equal(pc.utf8_trim_whitespace(array), BULK_NULL)
            if pc.any(equal).as_py():
                literal |= pc.fill_null(equal, False).to_numpy(zero_copy_only=False)
    no_bulk = np.where(literal, np.uint8(Reason.BULK_NULL_TEXT), np.uint8(0))
    long = np.flatnonzero(width.astype(np.int64) + constants > ROW_CHARACTERS_MAX)
    if long.size:
        no_bulk[long[_characters(columns, mapping, constants, long) > ROW_CHARACTERS_MAX]] = Reason.ROW_SIZE
    return no_bulk, width


def _characters(
    columns: dict[str, pa.Array], mapping: Mapping, constants: int, rows: Positions
) -> npt.NDArray[np.int64]:
    """How many characters those rows have as they are sent, with a record id and the match value."""
    total = np.full(len(rows), 18 + constants, np.int64)
    sent = {column.header: (columns[column.header], column) for column in mapping.columns}
    if match := mapping.match:
        sent.setdefault(match.header, (columns["match"], match))
    for array, column in sent.values():
        text = values.text(array.take(pa.array(rows)), column.field)
        total += pc.fill_null(pc.utf8_length(text), 0 if column.keep_nulls else len(BULK_NULL)).to_numpy()
    return total


def _csv_bytes(array: pa.Array) -> npt.NDArray[np.uint32]:
    """An upper bound of each value's bytes in a CSV file, comma included: a quote may double every byte of text."""
    if not pa.types.is_string(array.type):
        return np.full(len(array), 44, np.uint32)
    lengths = pc.fill_null(pc.binary_length(array), 4).to_numpy(zero_copy_only=False)
    bound: npt.NDArray[np.uint32] = (lengths * 2 + 3).astype(np.uint32)
    return bound


def _joined(parts: list[npt.NDArray[_Number]], kind: type[_Number]) -> npt.NDArray[_Number]:
    return np.concatenate(parts) if parts else np.empty(0, kind)
