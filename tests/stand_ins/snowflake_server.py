"""`python snowflake_server.py PORT`: fakesnow, mended where it is not as the service is. It runs in an environment of
its own and imports nothing of ours.

- A null timestamp stays null: fakesnow's pair of seconds and fraction has no mask.
- Numbers are packed as the service packs them: the narrowest integers that a result's values allow, with the scale told
  beside them, as the connector's own converter expects. Two reads of one column then differ in type.
"""

from __future__ import annotations

import sys

import fakesnow.arrow as arrow
import pyarrow as pa
import pyarrow.compute as pc
from fakesnow.cli import main

_NARROW = (pa.int8(), pa.int16(), pa.int32(), pa.int64())
_UNSCALED = pa.decimal128(38, 0)
_pair_of = arrow.timestamp_to_sf_struct
_columns_of = arrow.to_sf


def _masked(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    filled = _pair_of(whole.fill_null(0))
    children = [filled.field(position) for position in range(filled.type.num_fields)]
    return pa.StructArray.from_arrays(children, fields=list(filled.type), mask=pc.is_null(whole))


def _packed(table: pa.Table, rowtype: list[dict[str, object]]) -> pa.Table:
    made = _columns_of(table, rowtype)
    for position, field in enumerate(made.schema):
        if field.metadata[b"logicalType"] == b"FIXED":
            packed = _narrowest(made.column(position))
            made = made.set_column(position, field.with_type(packed.type), packed)
    return made


def _narrowest(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """What has more digits than 64 bits hold stays a decimal."""
    whole = column
    if pa.types.is_decimal(column.type):
        whole = pa.chunked_array([_unscaled(chunk) for chunk in column.chunks], _UNSCALED)
    for kind in _NARROW:
        try:
            return whole.cast(kind)
        except pa.ArrowInvalid:
            continue
    return column


def _unscaled(chunk: pa.Array) -> pa.Array:
    """The same 16 bytes a value, read as a whole number."""
    wide = chunk.cast(pa.decimal128(38, chunk.type.scale))
    return pa.Array.from_buffers(_UNSCALED, len(wide), wide.buffers(), null_count=-1, offset=wide.offset)


arrow.timestamp_to_sf_struct = _masked
arrow.to_sf = _packed

if __name__ == "__main__":
    sys.exit(main(["-s", "-p", sys.argv[1]]))
