"""Arrow types, and arrays in their plain form. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

DECIMAL = pa.decimal128(38, 18)
DATETIME = pa.timestamp("ms", "UTC")
TIME = pa.time32("ms")
Positions = npt.NDArray[np.int64]


def plain_type(source: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(source):
        return source.value_type
    return pa.utf8() if isinstance(source, pa.UuidType) else source


def plain(array: pa.Array) -> pa.Array:
    """Text as utf8, whatever Arrow layout the adapter gave it."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if isinstance(array.type, pa.UuidType):
        return _uuid_text(array)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(pa.utf8()) if is_text(array.type) and not pa.types.is_string(array.type) else array


def is_text(source: pa.DataType) -> bool:
    return bool(pa.types.is_string(source) or pa.types.is_large_string(source) or pa.types.is_string_view(source))


def is_number(source: pa.DataType) -> bool:
    return bool(pa.types.is_integer(source) or pa.types.is_floating(source) or pa.types.is_decimal(source))


def is_simple(source: pa.DataType) -> bool:
    """Whether one value of it has one text."""
    if pa.types.is_temporal(source):
        return not (pa.types.is_duration(source) or pa.types.is_interval(source))
    return bool(is_text(source) or is_number(source) or pa.types.is_boolean(source))


def is_list(source: pa.DataType) -> bool:
    views = pa.types.is_list_view(source) or pa.types.is_large_list_view(source)
    sized = pa.types.is_fixed_size_list(source)
    return bool(pa.types.is_list(source) or pa.types.is_large_list(source) or sized or views)


def is_list_of_simple(source: pa.DataType) -> bool:
    if not is_list(source):
        return False
    element = plain_type(source.value_type)
    return pa.types.is_null(element) or is_simple(element)


def _uuid_text(array: pa.Array) -> pa.Array:
    raw = array.storage.fill_null(bytes(16)) if array.null_count else array.storage
    octets = np.frombuffer(raw.buffers()[1], np.uint8)[array.offset * 16 : (array.offset + len(array)) * 16]
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    pairs = np.stack([digits[octets >> 4], digits[octets & 15]], axis=1).reshape(-1, 32)
    dash = np.full((len(array), 1), ord("-"), np.uint8)
    parts = [pairs[:, 0:8], dash, pairs[:, 8:12], dash, pairs[:, 12:16], dash, pairs[:, 16:20], dash, pairs[:, 20:32]]
    return fixed_text(np.hstack(parts), array)


def fixed_text(characters: npt.NDArray[np.uint8], like: pa.Array) -> pa.Array:
    """A utf8 array from rows of ASCII bytes, null where `like` is."""
    count, width = characters.shape
    offsets = np.arange(0, (count + 1) * width, width, dtype=np.int32)
    array = pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(characters)))
    return array if like.null_count == 0 else pc.if_else(pc.is_valid(like), array, pa.scalar(None, pa.utf8()))


def readable(array: pa.Array, form: str) -> pa.Array:
    return pc.if_else(pc.match_substring_regex(array, form), array, pa.scalar(None, pa.utf8()))
