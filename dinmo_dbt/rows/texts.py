"""Texts, choices and ids: from Arrow to what Salesforce keeps. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.destination import Field
from dinmo_dbt.rows.arrow import Positions, fixed_text, is_list, plain
from dinmo_dbt.rows.datetimes import YEARS_OF_TEXT, canonical_times, datetime_text, in_years, milliseconds, time_text
from dinmo_dbt.rows.numbers import ANY_NUMBER, canonical_numbers, decimal_text, doubles, from_floats
from dinmo_dbt.rows.reasons import Reason, Reasons, merge, reasons_of, without

# What Bulk API 2.0 reads as null; as a text value it can't travel in a CSV file.
BULK_NULL = "#N/A"


def ordered(array: pa.Array) -> pa.Array:
    """Multi-select picklists are sets: their values in one order, each once."""
    chosen = [
        None if text is None else sorted({part.strip() for part in text.split(";")}) for text in array.to_pylist()
    ]
    return pa.array([None if parts is None else ";".join(parts) for parts in chosen], pa.utf8())


_BLANKS = " \t\n\r"


def without_empty(array: pa.Array) -> pa.Array:
    """An empty text is null."""
    return pc.if_else(pc.equal(array, ""), pa.scalar(None, pa.utf8()), array)


def trimmed(array: pa.Array) -> pa.Array:
    """Salesforce's text without blanks at its ends; what is then empty, or `#N/A`, is null."""
    text = pc.utf8_trim_whitespace(array)
    empty = pc.or_(pc.equal(text, ""), pc.equal(text, BULK_NULL))
    return pc.if_else(empty, pa.scalar(None, pa.utf8()), text)


def echo_text(array: pa.Array) -> pa.Array:
    """A text as any that Salesforce may make of it when it echoes it: trimmed, newlines `\\n`, '' null."""
    return without_empty(pc.utf8_trim_whitespace(unix_newlines(array)))


def sent_text(array: pa.Array, field: Field) -> tuple[pa.Array, Reasons | None]:
    array, reasons = as_text(array)
    return _sent(array, reasons, field, lambda text, listed: pc.is_in(text, value_set=listed))


def sent_choices(array: pa.Array, field: Field) -> tuple[pa.Array, Reasons | None]:
    array, reasons = _choices(array)
    return _sent(array, reasons, field, _all_listed)


def _sent(
    array: pa.Array, reasons: Reasons | None, field: Field, is_listed: Callable[[pa.Array, pa.Array], pa.Array]
) -> tuple[pa.Array, Reasons | None]:
    if _has_control_bytes(array):
        array = unix_newlines(array)
        control = pc.match_substring_regex(array, r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
        reasons = merge(reasons, reasons_of(control, Reason.CONTROL))
    array = _trimmed(array)
    if field.length and pc.any(pc.greater(pc.binary_length(array), field.length)).as_py():
        reasons = merge(reasons, reasons_of(pc.greater(pc.utf8_length(array), field.length), Reason.LENGTH))
    if field.restricted_picklist:
        fits = is_listed(array, pa.array(field.picklist, pa.utf8()))
        unlisted = pc.and_(pc.is_valid(array), pc.invert(fits))
        reasons = merge(reasons, reasons_of(unlisted, Reason.PICKLIST))
    return without(array, reasons)


def _trimmed(array: pa.Array) -> pa.Array:
    """As Salesforce saves it: without blanks at its ends; what is then empty is null."""
    if len(array) == 0:
        return array
    offsets = np.frombuffer(array.buffers()[1], "<i4")[array.offset : array.offset + len(array) + 1]
    starts, ends = offsets[:-1], offsets[1:]
    is_filled = starts < ends
    if not is_filled.all():
        starts, ends = starts[is_filled], ends[is_filled]
    has_blanks = _has_blank_ends(array, starts, ends)
    if has_blanks:
        array = pc.utf8_trim(array, characters=_BLANKS)
    elif is_filled.all():
        return array
    return without_empty(array)


def _has_blank_ends(array: pa.Array, starts: npt.NDArray[np.int32], ends: npt.NDArray[np.int32]) -> bool:
    if len(starts) == 0:
        return False
    octets = np.frombuffer(array.buffers()[2], np.uint8)
    return bool((octets.take(starts) <= 32).any() or (octets.take(ends - 1) <= 32).any())


def _choices(array: pa.Array) -> tuple[pa.Array, Reasons | None]:
    """Choices joined by semicolons, each without blanks at its ends; one that is null or empty is none."""
    if is_list(array.type):
        elements = plain(pc.list_flatten(array))
        elements = pa.nulls(len(elements), pa.utf8()) if pa.types.is_null(elements.type) else elements
        return _joined_choices(array, elements, pc.list_parent_indices(array).to_numpy())
    array, reasons = as_text(array)
    if pc.any(pc.match_substring_regex(array, _JSON)).as_py():
        read = [_json_choices(text) for text in array.to_pylist()]
        lists = pa.array([each if isinstance(each, list) else None for each in read], pa.list_(pa.utf8()))
        joined, bad = _choices(lists)
        nested = np.array([each is _NESTED for each in read])
        reasons = merge(merge(reasons, bad), reasons_of(nested, Reason.CHOICE))
        array = pc.if_else(pc.is_valid(lists), joined, array)
    if pc.any(pc.match_substring(array, ";")).as_py():
        array = pc.replace_substring_regex(array, pattern=r"[ \t\n\r]*;[ \t\n\r;]*", replacement=";")
        array = pc.utf8_trim(array, characters=";" + _BLANKS)
    return array, reasons


def _joined_choices(lists: pa.Array, elements: pa.Array, parents: Positions) -> tuple[pa.Array, Reasons | None]:
    """`parents`: the list that each of the elements is in, ascending. Of a list without choices '' is left."""
    elements, odd = as_text(elements)
    elements = _trimmed(elements)
    odd = merge(odd, reasons_of(pc.match_substring(elements, ";"), Reason.CHOICE))
    reasons = None
    if odd is not None:
        reasons = np.zeros(len(lists), np.uint8)
        reasons[parents[odd != 0]] = odd[odd != 0]
    there = pc.is_valid(elements).to_numpy(zero_copy_only=False)
    counts = np.bincount(parents[there], minlength=len(lists))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    return pc.binary_join(pa.ListArray.from_arrays(offsets, elements.drop_null()), ";"), reasons


_JSON = r"(?s)^\s*(\[.*\]|\{.*\})\s*$"
_NESTED = object()


def _json_choices(text: str | None) -> list[str | None] | object:
    """The plain values of a JSON array, as warehouses without lists write one; None for a text that is none."""
    if text is None or not re.match(_JSON, text):
        return None
    try:
        read = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    if not isinstance(read, list) or any(isinstance(each, list | dict) for each in read):
        return _NESTED
    return [str(each).lower() if isinstance(each, bool) else each for each in read]


def as_text(array: pa.Array) -> tuple[pa.Array, Reasons | None]:
    """Any simple column as text; a value that has none is null, with its reason."""
    kind = array.type
    if pa.types.is_string(kind):
        return array, None
    if pa.types.is_floating(kind):
        numbers, reasons = from_floats(doubles(array))
        return decimal_text(numbers), reasons
    if pa.types.is_timestamp(kind):
        moments, reasons = in_years(milliseconds(array), 1, YEARS_OF_TEXT)
        return datetime_text(moments), reasons
    if pa.types.is_date(kind):
        days, reasons = in_years(array.cast(pa.date32(), safe=False), 86_400_000, YEARS_OF_TEXT)
        return days.cast(pa.utf8()), reasons
    if pa.types.is_time(kind):
        clocks, reasons = canonical_times(array)
        return time_text(clocks), reasons
    if pa.types.is_decimal(kind) and kind.scale > 6:
        numbers, reasons = canonical_numbers(array, ANY_NUMBER)
        return decimal_text(numbers), reasons
    return array.cast(pa.utf8()), None


def _text_bytes(array: pa.Array) -> npt.NDArray[np.uint8]:
    _, offsets_buffer, data = array.buffers()
    if len(array) == 0:
        return np.empty(0, np.uint8)
    offsets = np.frombuffer(offsets_buffer, "<i4")
    return np.frombuffer(data, np.uint8)[offsets[array.offset] : offsets[array.offset + len(array)]]


def _has_control_bytes(array: pa.Array) -> bool:
    octets = _text_bytes(array)
    low = octets[octets < 32]
    return bool(((low != 10) & (low != 9)).any())


def unix_newlines(array: pa.Array) -> pa.Array:
    # Bulk jobs declare LF line ends, and a CR inside a quoted value of such a job fails the whole job; JSON would
    # keep it. One form for both, so that the same row gives the same record by either API.
    if not (_text_bytes(array) == 13).any():
        return array
    return pc.replace_substring(pc.replace_substring(array, "\r\n", "\n"), "\r", "\n")


def _all_listed(array: pa.Array, listed: pa.Array) -> pa.Array:
    parts = pc.split_pattern(array, ";")
    unlisted = pc.invert(pc.is_in(parts.flatten(), value_set=listed)).to_numpy(zero_copy_only=False)
    good = np.ones(len(array), np.bool_)
    good[pc.list_parent_indices(parts).to_numpy()[unlisted]] = False
    return pa.array(good)


_SUFFIX = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345", np.uint8)


def canonical_ids(array: pa.Array) -> tuple[pa.Array, Reasons | None]:
    trimmed = without_empty(pc.utf8_trim_whitespace(array))
    shaped = pc.fill_null(pc.match_substring_regex(trimmed, "^[0-9A-Za-z]{15}([0-9A-Za-z]{3})?$"), True)
    reasons = reasons_of(pc.invert(shaped), Reason.ID_FORM)
    sound = pc.if_else(shaped, trimmed, pa.scalar(None, pa.utf8()))
    padded = pc.utf8_rpad(pc.fill_null(sound, ""), width=18, padding=" ")
    characters = _text_bytes(padded).reshape(-1, 18)
    upper = (characters[:, :15] >= ord("A")) & (characters[:, :15] <= ord("Z"))
    suffix = _SUFFIX[(upper.reshape(-1, 3, 5) * np.array([1, 2, 4, 8, 16])).sum(axis=2)]
    # The suffix itself is not case-sensitive: it says only which of the first fifteen are upper case.
    given = characters[:, 15:]
    given = np.where((given >= ord("a")) & (given <= ord("z")), given - 32, given)
    wrong = (given[:, 0] != ord(" ")) & (given != suffix).any(axis=1)
    reasons = merge(reasons, reasons_of(wrong, Reason.ID_CHECKSUM))
    return without(fixed_text(np.hstack([characters[:, :15], suffix]), sound), reasons)
