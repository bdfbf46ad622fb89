"""How rows are named: the text of a key, its parts, and keys that are one in another spelling. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.rows.arrow import is_text, plain, plain_type
from dinmo_dbt.rows.forms import in_form
from dinmo_dbt.rows.texts import as_text

_EXAMPLES = 5
_SPELLINGS = (
    (r"^(\d{4}-\d\d-\d\d)[t ]00:00(:00(\.0+)?)?(z|[+]00(:?00)?)?$", r"\1"),
    (r"^([+-]?\d+)\.0+$", r"\1"),
    (r"^([+-]?)0+(\d)", r"\1\2"),
)


def key_text(arrays: Sequence[pa.Array]) -> pa.Array:
    """The model's key as one utf8 column; null where a part is null or blank.

    One column: its plain text. Several: each part with its length before it (`3:abc5:2024x`), so that parts can't
    slide into each other. Parts are text, whole numbers, decimals, dates or timestamps (`why_not_key`).
    """
    parts = []
    for array in arrays:
        part = _key_part(plain(array))
        blank = pc.equal(pc.utf8_trim_whitespace(part), "")
        parts.append(pc.if_else(blank, pa.scalar(None, pa.utf8()), part))
    return _joined_key(parts)


def key_in_forms(keys: pa.Array, forms: Sequence[str]) -> pa.Array:
    """Key texts as columns of these forms would have given them (`in_form`)."""
    if len(forms) == 1:
        return in_form(keys, forms[0])
    columns = key_parts(keys, len(forms))
    return _joined_key([in_form(column, form) for column, form in zip(columns, forms, strict=True)])


def key_parts(keys: pa.Array, count: int) -> list[pa.Array]:
    """The text of each of the key's columns, which are so many."""
    if count == 1:
        return [keys]
    parts = [_key_parts(key, count) for key in keys.to_pylist()]
    return [pa.array([row[number] for row in parts], pa.utf8()) for number in range(count)]


def _joined_key(parts: Sequence[pa.Array]) -> pa.Array:
    if len(parts) == 1:
        return parts[0]
    pieces: list[pa.Array | str] = []
    for part in parts:
        pieces += [pc.utf8_length(part).cast(pa.utf8()), ":", part]
    return pc.binary_join_element_wise(*pieces, "", null_handling="emit_null")


def _key_parts(key: str, count: int) -> list[str]:
    """The parts of a composite key's text."""
    parts = []
    for _ in range(count):
        length, _, rest = key.partition(":")
        parts.append(rest[: int(length)])
        key = rest[int(length) :]
    return parts


def _key_part(array: pa.Array) -> pa.Array:
    """Text of one key column; a decimal loses its trailing zeros, so that a new scale makes no new keys."""
    part, _ = as_text(array)
    if not pa.types.is_decimal(array.type) or not 0 < array.type.scale <= 6:
        return part
    return pc.utf8_rtrim(pc.utf8_rtrim(part, "0"), ".")


def why_not_key(source: pa.DataType) -> str | None:
    """Why a column of that type can't be part of a key; None if it can."""
    source = plain_type(source)
    exact = is_text(source) or pa.types.is_integer(source) or pa.types.is_decimal(source)
    if exact or pa.types.is_date(source) or pa.types.is_timestamp(source):
        return None
    return f"a key is text, a whole number or a date, not {source}: cast it in the model's SQL"


# Keys in another spelling


def spelling(*parts: pa.Array) -> pa.Array:
    """One text for all spellings of keys, whose columns are given."""
    return _joined_key([_spelling(part) for part in parts])


def _spelling(texts: pa.Array) -> pa.Array:
    text = pc.utf8_lower(pc.utf8_trim_whitespace(pc.utf8_normalize(texts, form="NFKC")))
    for pattern, plainly in _SPELLINGS:
        text = pc.replace_substring_regex(text, pattern=pattern, replacement=plainly)
    return text


def respelled(
    left: pa.Array, came: pa.Array, spelled: Callable[[pa.Array], pa.Array] = spelling
) -> tuple[npt.NDArray[np.bool_], list[tuple[str, str]]]:
    """Which keys that came are one that left, written in another way (case, blanks, Unicode form, zeros before a
    number or after its point, a date as its midnight), and the first few such pairs. Of keys that came as several
    spellings of one, the first."""
    before, after = spelled(left), spelled(came)
    at = pc.index_in(after, value_set=before)
    known = pc.is_valid(at)
    pairs = zip(
        left.take(at.filter(known))[:_EXAMPLES].to_pylist(), came.filter(known)[:_EXAMPLES].to_pylist(), strict=True
    )
    first = np.zeros(len(came), np.bool_)
    rows = np.flatnonzero(known)
    first[rows[np.unique(at.drop_null().to_numpy(), return_index=True)[1]]] = True  # noqa: TID251
    return first, list(pairs)
