"""Ids of records, jobs and cursors: 18 characters on the wire, one integer in the store.

A record's integer is `object number << 40 | counter`, so a reference needs no text index and may point to
any object. On the wire: 3 characters key prefix, 3 of the org's instance, 9 of the counter in base 62, and a
3-character checksum: bit j of a group of five is set if character j is A-Z (checked against 283 recorded ids).
The id of a job or a cursor is made like a record's, with a prefix of its kind; its integer is the counter alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
COUNTER_BITS = 40
COUNTER_MAX = (1 << COUNTER_BITS) - 1
MALFORMED = -1

_CHECK = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
_DIGITS = np.frombuffer(ALPHABET.encode(), np.uint8)
_CHECK_BYTES = np.frombuffer(_CHECK.encode(), np.uint8)
_VALUE = np.full(256, -1, np.int64)
_VALUE[_DIGITS] = np.arange(62)
_POWERS = 62 ** np.arange(8, -1, -1, dtype=np.int64)
_BITS = np.array([1, 2, 4, 8, 16], np.int64)


@lru_cache(100_000)
def checksum(id15: str) -> str:
    """The three characters that make a 15-character id safe where case is lost."""
    groups = (id15[0:5], id15[5:10], id15[10:15])
    return "".join(_CHECK[sum(1 << i for i, c in enumerate(g) if "A" <= c <= "Z")] for g in groups)


def base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def _of_base62(digits: str) -> int:
    number = 0
    for digit in digits:
        number = number * 62 + ALPHABET.index(digit)
    return number


@dataclass(frozen=True)
class Codec:
    """Text ids of one org to integers and back. `prefixes` maps object number to key prefix."""

    instance: str
    prefixes: Mapping[int, str]
    _numbers: dict[str, int] = field(init=False)
    _prefix_table: npt.NDArray[np.uint8] = field(init=False)
    _number_table: Ints = field(init=False)

    def __post_init__(self) -> None:
        table = np.zeros((max(self.prefixes, default=0) + 1, 3), np.uint8)
        numbers = np.full(62**3, -1, np.int64)
        for number, prefix in self.prefixes.items():
            table[number] = np.frombuffer(prefix.encode(), np.uint8)
            a, b, c = (ALPHABET.index(char) for char in prefix)
            numbers[(a * 62 + b) * 62 + c] = number
        object.__setattr__(self, "_numbers", {p: n for n, p in self.prefixes.items()})
        object.__setattr__(self, "_prefix_table", table)
        object.__setattr__(self, "_number_table", numbers)

    def encode(self, rid: int) -> str:
        id15 = self.prefixes[rid >> COUNTER_BITS] + self.instance + base62(rid & COUNTER_MAX, 9)
        return id15 + checksum(id15)

    def decode(self, text: str) -> int:
        """The record's integer; MALFORMED for bad characters, length, checksum or an unknown prefix.

        An id of another org decodes to counter 0, which no record has: well formed, but of no record.
        """
        if len(text) == 18 and text.isascii():
            if checksum(text[:15]) != text[15:]:
                return MALFORMED
            text = text[:15]
        if len(text) != 15 or any(char not in ALPHABET for char in text):
            return MALFORMED
        number = self._numbers.get(text[:3])
        if number is None:
            return MALFORMED
        counter = _of_base62(text[6:])
        if text[3:6] != self.instance or counter > COUNTER_MAX:
            counter = 0
        return number << COUNTER_BITS | counter

    def job_id(self, number: int, kind: str = "750") -> str:
        """The id of a job, or with the prefix `01g` of a cursor."""
        id15 = kind + self.instance + base62(number, 9)
        return id15 + checksum(id15)

    def job_number(self, text: str, kind: str = "750") -> int | None:
        """The number behind such an id of this org, 15 or 18 characters; None for anything else."""
        if not text.startswith(kind + self.instance) or len(text) not in (15, 18):
            return None
        digits = text[6:15]
        if any(char not in ALPHABET for char in digits):
            return None
        number = _of_base62(digits)
        return number if number < 1 << 62 and self.job_id(number, kind)[: len(text)] == text else None

    def encode_many(self, rids: Ints) -> pa.Array:
        """Text of each integer, in order; a negative integer becomes null."""
        count = len(rids)
        valid = rids >= 0
        safe = np.where(valid, rids, 0)
        chars = np.empty((count, 18), np.uint8)
        numbers = np.minimum(safe >> COUNTER_BITS, len(self._prefix_table) - 1)
        chars[:, 0:3] = self._prefix_table[numbers]
        chars[:, 3:6] = np.frombuffer(self.instance.encode(), np.uint8)
        chars[:, 6:15] = _DIGITS[(safe & COUNTER_MAX)[:, None] // _POWERS % 62]
        chars[:, 15:18] = _checks(chars[:, :15])
        fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(18), count, [None, pa.py_buffer(chars)])
        text = pc.cast(pc.cast(fixed, pa.binary()), pa.string())
        if valid.all():
            return text
        return pc.if_else(pa.array(valid), text, pa.scalar(None, pa.string()))

    def decode_many(self, text: pa.Array) -> Ints:
        """`decode` for a column; null decodes to MALFORMED."""
        rids = np.full(len(text), MALFORMED, np.int64)
        lengths = pc.fill_null(pc.binary_length(text), 0).to_numpy(zero_copy_only=False)
        for width in (15, 18):
            where = np.flatnonzero(lengths == width)
            if len(where):
                part = text.take(pa.array(where)) if len(where) < len(text) else text
                data = b"".join(pc.cast(part, pa.binary()).to_pylist()) if part.offset else _data(part)
                chars = np.frombuffer(data, np.uint8, count=len(where) * width).reshape(-1, width)
                rids[where] = self._decode_block(chars)
        return rids

    def _decode_block(self, chars: npt.NDArray[np.uint8]) -> Ints:
        values = _VALUE[chars[:, :15]]
        good = (values >= 0).all(axis=1)
        if chars.shape[1] == 18:
            good &= (_checks(chars[:, :15]) == chars[:, 15:]).all(axis=1)
        prefix = (values[:, 0] * 62 + values[:, 1]) * 62 + values[:, 2]
        number = np.where(good, self._number_table[np.where(good, prefix, 0)], -1)
        counter = values[:, 6:15] @ _POWERS
        here = (chars[:, 3:6] == np.frombuffer(self.instance.encode(), np.uint8)).all(axis=1)
        counter = np.where(here & (counter <= COUNTER_MAX), counter, 0)
        return np.where(number >= 0, number << COUNTER_BITS | counter, MALFORMED)


def _checks(chars: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    upper = ((chars >= 65) & (chars <= 90)).reshape(-1, 3, 5)
    return _CHECK_BYTES[upper @ _BITS]


def _data(strings: pa.Array) -> bytes:
    """The characters of a string column without offset, end to end."""
    offsets = np.frombuffer(strings.buffers()[1], np.int32, count=len(strings) + 1)
    return bytes(memoryview(strings.buffers()[2])[offsets[0] : offsets[-1]])
