"""Canonical 64-bit row hashes over Arrow arrays, vectorised with numpy; stable between releases of every library.

The hash is part of the state format. It is defined on canonical values only: UTF-8 bytes and their length, the
128-bit unscaled decimal, days, milliseconds, one bit. Each 64-bit word is folded in by
`acc = (acc ^ word) * M; acc ^= acc >> 32`, a bijection in the word and in the accumulator, so a change confined
to one word is never missed; any other change is missed with probability 2^-64. It is not cryptographic: it detects
change, it does not prove origin. Change anything here only together with `HASH_VERSION`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

HASH_VERSION = 1

Hashes = npt.NDArray[np.uint64]

_FOLD = np.uint64(0x9E3779B97F4A7C15)
_FINAL_1 = np.uint64(0xBF58476D1CE4E5B9)
_FINAL_2 = np.uint64(0x94D049BB133111EB)
_NULL = np.uint64(0xD6E8FEB86659FD93)
_LENGTH = np.uint64(0xA0761D6478BD642F)
_BYTES_KEPT = np.array([(1 << (8 * n)) - 1 for n in range(8)] + [2**64 - 1], dtype=np.uint64)

assert sys.byteorder == "little", "row hashes are defined on little-endian buffers"


def hash_columns(arrays: Sequence[pa.Array], *, seed: int = 0) -> Hashes:
    """One hash a row over `arrays` (at least one, of one length), in the order given.

    Takes utf8, bool, decimal128(38, 18), date32, timestamp[ms] and time32[ms] arrays, sliced or not. '' and null
    hash apart. `seed` (64 bits) keeps hashes of different mappings apart.
    """
    accumulator = np.full(len(arrays[0]), np.uint64((seed ^ 0x2545F4914F6CDD1D) & (2**64 - 1)), dtype=np.uint64)
    for array in arrays:
        _fold_in(accumulator, array)
    return _finish(accumulator)


def _fold_in(accumulator: Hashes, array: pa.Array) -> None:
    if len(array) == 0:
        return
    kind = array.type
    valid = None if array.null_count == 0 else _bits(array.buffers()[0], array.offset, len(array))
    if pa.types.is_string(kind):
        _fold_text(accumulator, array, valid)
    elif pa.types.is_boolean(kind):
        _fold_words(accumulator, _bits(array.buffers()[1], array.offset, len(array)).astype(np.uint64), valid)
    elif pa.types.is_decimal128(kind):
        words = np.frombuffer(array.buffers()[1], "<u8").reshape(-1, 2)[array.offset : array.offset + len(array)]
        _fold_words(accumulator, words[:, 0], valid)
        _fold_words(accumulator, words[:, 1], valid)
    else:
        assert pa.types.is_date32(kind) or pa.types.is_timestamp(kind) or pa.types.is_time32(kind), kind
        width = np.dtype(f"<i{kind.bit_width // 8}")
        numbers = np.frombuffer(array.buffers()[1], width)[array.offset : array.offset + len(array)]
        _fold_words(accumulator, numbers.astype(np.int64).view(np.uint64), valid)


def _fold_words(accumulator: Hashes, words: Hashes, valid: npt.NDArray[np.bool_] | None) -> None:
    _fold(accumulator, words if valid is None else np.where(valid, words, _NULL))


def _fold_text(accumulator: Hashes, array: pa.Array, valid: npt.NDArray[np.bool_] | None) -> None:
    _, offsets_buffer, data = array.buffers()
    offsets = np.frombuffer(offsets_buffer, "<i4")[array.offset : array.offset + len(array) + 1].astype(np.int64)
    start, length = offsets[:-1], np.diff(offsets)
    if valid is not None:
        length = np.where(valid, length, 0)
    words = _padded_words(data, int(offsets[-1]))

    first = _eight_bytes(words, start, length)
    first ^= (length.view(np.uint64) + np.uint64(1)) * _LENGTH
    _fold(accumulator, first if valid is None else np.where(valid, first, _NULL))

    done = 8
    longer = np.flatnonzero(length > done)
    while longer.size:  # bounded by the longest text, eight bytes a turn
        rows = accumulator.take(longer)
        _fold(rows, _eight_bytes(words, start.take(longer) + done, length.take(longer) - done))
        accumulator[longer] = rows
        done += 8
        longer = longer.compress(length.take(longer) > done)


def _padded_words(data: pa.Buffer | None, end: int) -> Hashes:
    """The text bytes as 64-bit words, with two words of slack so that reading past a row's end stays inside."""
    size = end // 8 + 2
    if data is not None and data.size >= size * 8:
        return np.frombuffer(data, "<u8", data.size // 8)
    words = np.zeros(size, dtype="<u8")
    if data is not None and end:
        words.view(np.uint8)[:end] = np.frombuffer(data, np.uint8, end)
    return words


def _eight_bytes(words: Hashes, position: npt.NDArray[np.int64], remaining: npt.NDArray[np.int64]) -> Hashes:
    """The eight bytes at each byte position, zero past the row's end."""
    index = position >> 3
    shift = ((position & 7) << 3).view(np.uint64)
    low = words.take(index) >> shift
    # A shift by 64 is undefined, hence in two steps: `<< 1 << (63 - shift)` is 0 where shift is 0.
    high = (words.take(index + 1, mode="clip") << np.uint64(1)) << (np.uint64(63) - shift)
    low |= high
    low &= _BYTES_KEPT.take(remaining, mode="clip")
    return low


def _fold(accumulator: Hashes, words: Hashes) -> None:
    np.bitwise_xor(accumulator, words, out=accumulator)
    np.multiply(accumulator, _FOLD, out=accumulator)
    np.bitwise_xor(accumulator, accumulator >> np.uint64(32), out=accumulator)


def _finish(accumulator: Hashes) -> Hashes:
    accumulator ^= accumulator >> np.uint64(30)
    accumulator *= _FINAL_1
    accumulator ^= accumulator >> np.uint64(29)
    accumulator *= _FINAL_2
    accumulator ^= accumulator >> np.uint64(32)
    return accumulator


def _bits(buffer: pa.Buffer, offset: int, length: int) -> npt.NDArray[np.bool_]:
    first_byte = offset // 8
    packed = np.frombuffer(buffer, np.uint8)[first_byte : (offset + length + 7) // 8]
    bits = np.unpackbits(packed, bitorder="little")
    return bits[offset - 8 * first_byte :][:length].view(np.bool_)
