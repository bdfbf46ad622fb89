"""Canonical 128-bit row hashes over Arrow arrays, vectorised with numpy; stable between releases of every library.

The hash is part of the state format: change anything here only together with `HASH_VERSION`. It says whether a row is
the one that Salesforce acknowledged, so two rows that differ must never agree.

Each value is hashed by itself with MurmurHash3_x64_128 (Austin Appleby, SMHasher, public domain), under a seed of its
own for each position, type and mapping; h1 and h2 both start from those 64 bits. Its bytes are canonical: UTF-8 text,
the 128-bit unscaled decimal, or 64 bits for a date, a time and a boolean, little-endian. Null is the empty text of a
type of its own. The row's hash is the sum of its values' hashes, lane by lane modulo 2^64: AdHash, "randomize, then
combine" (Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing", EUROCRYPT 1997).

Why a difference is seen:

- In one value: up to 16 bytes of one length the hash is a bijection (odd products, rotations, sums and shifted xors
  only), so it is never missed. Longer texts and other lengths agree by chance alone, 2^-128: the length is mixed in,
  and a block of 16 bytes enters a state of 128 bits whose lanes feed each other.
- In several values: each has been mixed whole, with its length, by the finalizer of each lane, which flips every bit
  with a chance of half, before it meets another. So sums agree with a chance of 2^-128, whatever the values have in
  common: no bytes of one can make up for bytes of another, slide into it, or change places with it.

`tests/differential.py` measures both. It is not cryptographic: it detects change, it does not prove origin, and who
sets out to can make two rows that agree.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

HASH_VERSION = 2

Hashes = npt.NDArray[np.uint64]
"""64 bits a row: enough to find one, not to take it for another."""
Digests = npt.NDArray[np.uint64]
"""128 bits a row, as two lanes: shape (rows, 2)."""
Positions = npt.NDArray[np.int64]
NO_DIGESTS: Digests = np.empty((0, 2), np.uint64)
DIGEST = pa.binary(16)  # the same in Arrow and Parquet, the first lane first, little-endian

_CHUNK_ROWS = 8192  # what a dozen columns of numbers may have to stay in a core's cache
_MIX_1, _MIX_2 = np.uint64(0x87C37B91114253D5), np.uint64(0x4CF5AD432745937F)
_FINAL_1, _FINAL_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_STEP, _STEP_1, _STEP_2 = np.uint64(5), np.uint64(0x52DCE729), np.uint64(0x38495AB5)
# Of the 16 bytes of a block: the bits of its first and of its second word that are the text's, by bytes that are left.
_KEPT_1 = np.array([(1 << (8 * n)) - 1 for n in range(9)], np.uint64)
_KEPT_2 = np.concatenate([np.zeros(8, np.uint64), _KEPT_1])
_NULL, _TEXT, _BOOLEAN, _DECIMAL, _DATE, _MOMENT, _TIME = range(7)

assert sys.byteorder == "little", "row hashes are defined on little-endian buffers"


def digest_columns(arrays: Sequence[pa.Array], *, seed: int = 0, positions: Sequence[int] | None = None) -> Digests:
    """128 bits a row over `arrays` (at least one, of one length), in the order given, or at these positions of a longer
    row: the digests of its parts add up to its own, lane by lane.

    Takes utf8, bool, decimal128(38, 18), date32, timestamp[ms] and time32[ms] arrays, sliced or not. '' and null
    hash apart. `seed` (64 bits) keeps hashes of different mappings apart.
    """
    placed = zip(positions or range(len(arrays)), arrays, strict=True)
    return _sums([_column(array, seed, position) for position, array in placed], len(arrays[0]))


def hash_columns(arrays: Sequence[pa.Array], *, seed: int = 0) -> Hashes:
    """The first lane of `digest_columns`: to find rows that may be alike, which are then compared."""
    return np.ascontiguousarray(digest_columns(arrays, seed=seed)[:, 0])


def murmur3(array: pa.Array, seed: int) -> Digests:
    """MurmurHash3_x64_128 of each value's bytes, as it was published but for the seed, which has 64 bits."""
    return _sums([_values(array, seed)], len(array))


def same_digests(some: Digests, others: Digests) -> npt.NDArray[np.bool_]:
    """Row by row, whether both lanes are the same."""
    lanes: npt.NDArray[np.bool_] = some == others
    same: npt.NDArray[np.bool_] = lanes[:, 0] & lanes[:, 1]
    return same


def as_arrow(digests: Digests) -> pa.Array:
    """As `DIGEST`."""
    return pa.Array.from_buffers(DIGEST, len(digests), [None, pa.py_buffer(np.ascontiguousarray(digests))])


def from_arrow(array: pa.Array | pa.ChunkedArray) -> Digests:
    """Of `DIGEST`, without nulls."""
    chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
    parts = [
        np.frombuffer(chunk.buffers()[1], np.uint64, 2 * (chunk.offset + len(chunk)))[2 * chunk.offset :].reshape(-1, 2)
        for chunk in chunks
        if len(chunk)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate([NO_DIGESTS, *parts])


class _Scratch:
    """Room for the numbers of one chunk, used again for the next: what is new each time is not in the cache."""

    def __init__(self, rows: int) -> None:
        self._kept = [np.empty(rows, np.uint64) for _ in range(9)]

    def of(self, rows: int) -> list[Hashes]:
        return [room[:rows] for room in self._kept]


_Column = Callable[[int, int, _Scratch], tuple[Hashes, Hashes]]
"""From a row to a row: both lanes of each value, before the finalizer. They are the scratch's own."""


def _sums(columns: Sequence[_Column], rows: int) -> Digests:
    digests = np.empty((rows, 2), np.uint64)
    scratch = _Scratch(min(rows, _CHUNK_ROWS))
    for start in range(0, rows, _CHUNK_ROWS):
        end = min(rows, start + _CHUNK_ROWS)
        first, second = np.zeros(end - start, np.uint64), np.zeros(end - start, np.uint64)
        for column in columns:
            one, other = column(start, end, scratch)
            free = scratch.of(end - start)[2]
            _finish(one, free)
            _finish(other, free)
            first += one
            second += other
        # The last step of each value's hash, `h1 += h2; h2 += h1`, once for all: it is linear.
        first += second
        second += first
        digests[start:end, 0], digests[start:end, 1] = first, second
    return digests


def _column(array: pa.Array, seed: int, position: int) -> _Column:
    own = _values(array, _seed(seed, position, _tag(array.type)))
    if not array.null_count:
        return own
    there = _bits(array.buffers()[0], array.offset, len(array))
    null = _seed(seed, position, _NULL)

    def with_nulls(start: int, end: int, scratch: _Scratch) -> tuple[Hashes, Hashes]:
        one, other = own(start, end, scratch)
        missing = ~there[start:end]
        np.copyto(one, np.uint64(2 * null % 2**64), where=missing)  # where the empty text is by now
        np.copyto(other, np.uint64(3 * null % 2**64), where=missing)
        return one, other

    return with_nulls


def _seed(seed: int, position: int, tag: int) -> int:
    """One for each mapping, position and type: the next number of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    state = ((seed ^ (position << 8 | tag)) + 0x9E3779B97F4A7C15) % 2**64
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
    return state ^ (state >> 31)


def _tag(kind: pa.DataType) -> int:
    if pa.types.is_string(kind):
        return _TEXT
    if pa.types.is_boolean(kind):
        return _BOOLEAN
    if pa.types.is_decimal128(kind):
        return _DECIMAL
    if pa.types.is_date32(kind):
        return _DATE
    if pa.types.is_timestamp(kind):
        return _MOMENT
    assert pa.types.is_time32(kind), kind
    return _TIME


def _values(array: pa.Array, seed: int) -> _Column:
    tag, buffers, rows = _tag(array.type), array.buffers(), slice(array.offset, array.offset + len(array))
    if tag == _TEXT:
        offsets = np.frombuffer(buffers[1], "<i4")[array.offset : rows.stop + 1] if len(array) else np.zeros(1, "<i4")
        words = _padded_words(buffers[2], int(offsets[-1]))
        return lambda start, end, scratch: _text(words, offsets[start : end + 1].astype(np.int64), seed, scratch)
    if tag == _DECIMAL:
        pairs = np.frombuffer(buffers[1], "<u8").reshape(-1, 2)[rows]
        return lambda start, end, scratch: _two_words(pairs[start:end], seed, scratch)
    if tag == _BOOLEAN:
        bits = _bits(buffers[1], array.offset, len(array))
        return lambda start, end, scratch: _one_word(bits[start:end].astype(np.uint64), seed, scratch)
    numbers = np.frombuffer(buffers[1], np.dtype(f"<i{array.type.bit_width // 8}"))[rows]
    return lambda start, end, scratch: _one_word(numbers[start:end].astype(np.int64).view(np.uint64), seed, scratch)


# One value each: the tail of the published function alone, a block of its body alone, and the whole of it


def _one_word(words: Hashes, seed: int, scratch: _Scratch) -> tuple[Hashes, Hashes]:
    """Of a tail of 8 bytes the second word is empty, and an empty one changes nothing."""
    one, other, free, *_ = scratch.of(len(words))
    begin = np.uint64(seed ^ 8)
    np.copyto(one, words)
    _mix_1(one, free)
    one ^= begin
    one += begin
    np.add(one, begin, out=other)
    return one, other


def _two_words(pairs: Digests, seed: int, scratch: _Scratch) -> tuple[Hashes, Hashes]:
    one, other, free, block_1, block_2, *_ = scratch.of(len(pairs))
    one.fill(seed)
    other.fill(seed)
    np.copyto(block_1, pairs[:, 0])
    np.copyto(block_2, pairs[:, 1])
    _add_block(one, other, block_1, block_2, free)
    one ^= np.uint64(16)
    other ^= np.uint64(16)
    one += other
    other += one
    return one, other


def _text(words: Hashes, offsets: Positions, seed: int, scratch: _Scratch) -> tuple[Hashes, Hashes]:
    start, length = offsets[:-1], np.diff(offsets)
    one, other, free, block_1, block_2, *_ = scratch.of(len(start))
    one.fill(seed)
    other.fill(seed)
    longest = int(length.max())
    if longest >= 16:
        _add_blocks(one, other, words, start, length, scratch)
    left = length & 15
    long = longest > 8
    _read_block(words, start + (length - left), scratch, long=long)
    block_1 &= _KEPT_1.take(left, mode="clip")
    _mix_1(block_1, free)
    one ^= block_1
    if long:
        block_2 &= _KEPT_2.take(left)
        _mix_2(block_2, free)
        other ^= block_2
    one ^= length.view(np.uint64)
    other ^= length.view(np.uint64)
    one += other
    other += one
    return one, other


def _add_blocks(
    one: Hashes, other: Hashes, words: Hashes, start: Positions, length: Positions, scratch: _Scratch
) -> None:
    """Every whole block of 16 bytes, of all rows the first, then of those that have one the second, and so on."""
    done = 0
    rows = np.flatnonzero(length >= 16)
    while rows.size:  # bounded by the longest text
        _, _, free, block_1, block_2, *_ = scratch.of(len(rows))
        _read_block(words, start.take(rows) + done, scratch)
        if len(rows) == len(one):
            _add_block(one, other, block_1, block_2, free)
        else:
            some, others = one.take(rows), other.take(rows)
            _add_block(some, others, block_1, block_2, free)
            one[rows], other[rows] = some, others
        done += 16
        rows = rows.compress(length.take(rows) >= done + 16)


def _read_block(words: Hashes, position: Positions, scratch: _Scratch, *, long: bool = True) -> None:
    """The two words (with `long`, else one) at each byte position, into the scratch's rooms for a block."""
    _, _, _, block_1, block_2, low, high, shift, back = scratch.of(len(position))
    np.copyto(shift, (position & 7) << 3, casting="unsafe")
    np.subtract(np.uint64(63), shift, out=back)
    index = position >> 3
    words.take(index, out=low, mode="clip")
    words.take(index + 1, out=high, mode="clip")
    # A shift by 64 is undefined, hence in two steps: `<< 1 << (63 - shift)` is 0 where shift is 0.
    np.right_shift(low, shift, out=block_1)
    np.left_shift(high, np.uint64(1), out=low)
    np.left_shift(low, back, out=low)
    block_1 |= low
    if long:
        words.take(index + 2, out=low, mode="clip")
        np.right_shift(high, shift, out=block_2)
        np.left_shift(low, np.uint64(1), out=low)
        np.left_shift(low, back, out=low)
        block_2 |= low


def _padded_words(data: pa.Buffer, end: int) -> Hashes:
    """The text bytes as 64-bit words, with words of slack so that every byte before the end is in a whole one."""
    size = end // 8 + 1
    if data.size >= size * 8:
        return np.frombuffer(data, "<u8", data.size // 8)
    words = np.zeros(size, dtype="<u8")
    words.view(np.uint8)[:end] = np.frombuffer(data, np.uint8, end)
    return words


# The published steps


def _mix_1(word: Hashes, free: Hashes) -> None:
    word *= _MIX_1
    _rotate(word, 31, free)
    word *= _MIX_2


def _mix_2(word: Hashes, free: Hashes) -> None:
    word *= _MIX_2
    _rotate(word, 33, free)
    word *= _MIX_1


def _add_block(one: Hashes, other: Hashes, block_1: Hashes, block_2: Hashes, free: Hashes) -> None:
    _mix_1(block_1, free)
    one ^= block_1
    _rotate(one, 27, free)
    one += other
    one *= _STEP
    one += _STEP_1
    _mix_2(block_2, free)
    other ^= block_2
    _rotate(other, 31, free)
    other += one
    other *= _STEP
    other += _STEP_2


def _rotate(word: Hashes, bits: int, free: Hashes) -> None:
    np.right_shift(word, np.uint64(64 - bits), out=free)
    word <<= np.uint64(bits)
    word |= free


def _finish(word: Hashes, free: Hashes) -> None:
    for factor in (_FINAL_1, _FINAL_2, None):
        np.right_shift(word, np.uint64(33), out=free)
        word ^= free
        if factor is not None:
            word *= factor


def _bits(buffer: pa.Buffer, offset: int, length: int) -> npt.NDArray[np.bool_]:
    first_byte = offset // 8
    packed = np.frombuffer(buffer, np.uint8)[first_byte : (offset + length + 7) // 8]
    bits = np.unpackbits(packed, bitorder="little")
    return bits[offset - 8 * first_byte :][:length].view(np.bool_)
