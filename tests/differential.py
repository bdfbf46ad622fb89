"""Crafted pairs of rows that differ, and every hash that says "equal, so there is nothing to do": none may agree.

    python -m differential                        a million pairs a hash
    python -m differential --pairs 100000000      `make deep`

A shape makes pairs of rows that differ as real ones do, or as a weak hash would like them to. A hash is anything from
columns to one row of words a row, so another one, such as a warehouse's own, is put through the same by `judge`. Words
are judged one by one: each lane of 64 bits has to tell all pairs apart by itself. By chance one byte of the hash agrees
in one pair of 256, and the suite says how far the worst byte is from that.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.delivery import images
from dinmo_dbt.destination import Field
from dinmo_dbt.rows import rowhash, values
from dinmo_dbt.rows.arrow import DATETIME, DECIMAL
from dinmo_dbt.rows.key_hashes import key_hash, match_hash
from dinmo_dbt.rows.keys import key_text

Columns = list[pa.Array]
Shape = Callable[[np.random.Generator, int], tuple[Columns, Columns]]
Hash = Callable[[Sequence[pa.Array]], Any]
"""uint64, one word a row or several (rows, words)."""
Random = np.random.Generator

PART = 1 << 12  # pairs at once: few, so that each shape is made in each of its ways
SIGMAS_MAX = 6.0
BIAS_MAX = 0.025  # chance alone makes 0.02 of 16,384 samples, as the worst of 50,000
TEXT = Field("A__c", "A", "string")


# Arrays


def texts(letters: Any, lengths: Any = None) -> pa.Array:
    """Rows of bytes as text; of each row the first so many."""
    rows, width = letters.shape
    if lengths is None:
        lengths = np.full(rows, width)
    offsets = np.zeros(rows + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    kept = letters[np.arange(width) < np.asarray(lengths)[:, None]]
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(kept, np.uint8)))


def decimals(low: Any, high: Any) -> pa.Array:
    words = np.stack([np.asarray(low).astype(np.uint64), np.asarray(high).astype(np.int64).view(np.uint64)], axis=1)
    return pa.Array.from_buffers(DECIMAL, len(words), [None, pa.py_buffer(np.ascontiguousarray(words))])


def whole(numbers: Any) -> pa.Array:
    """Whole numbers, as the type that Salesforce's numbers have."""
    return pa.array(np.asarray(numbers, np.int64)).cast(pa.decimal128(19, 0)).cast(DECIMAL)


def numbers_text(numbers: Any, width: int = 0) -> pa.Array:
    text = pa.array(np.asarray(numbers, np.int64)).cast(pa.utf8())
    return pc.utf8_lpad(text, width, "0") if width else text


def days(numbers: Any) -> pa.Array:
    return pa.array(np.asarray(numbers, np.int32)).cast(pa.date32())


def moments(numbers: Any) -> pa.Array:
    return pa.array(np.asarray(numbers, np.int64)).cast(pa.timestamp("ms")).cast(DATETIME)


def day_text(numbers: Any) -> pa.Array:
    return pc.strftime(days(numbers), "%Y%m%d")


def letters(random: Random, rows: int, width: int) -> Any:
    return random.integers(32, 127, (rows, width), np.uint8)


# Shapes


def byte_pairs(random: Random, rows: int) -> tuple[Columns, Columns]:
    """Two bytes of two texts, every pair of places in turn: of one word, neighbours, far apart, of one text or two."""
    sizes = [(8, 8), (16, 8), (3, 20), (24, 24), (40, 9), (16, 16), (64, 17)][random.integers(7)]
    width = sum(sizes)
    before = letters(random, rows, width)
    pairs = np.array([(i, j) for i in range(width) for j in range(i, width)])
    places = pairs[(np.arange(rows) + random.integers(len(pairs))) % len(pairs)]
    after = before.copy()
    for place in places.T:
        after[np.arange(rows), place] ^= random.integers(1, 32, rows, np.uint8)
    cut = sizes[0]
    return [texts(before[:, :cut]), texts(before[:, cut:])], [texts(after[:, :cut]), texts(after[:, cut:])]


def high_bytes(random: Random, rows: int) -> tuple[Columns, Columns]:
    """One byte of a word, its last or any, and two bytes of the next one alike, every pair of places in turn."""
    before = letters(random, rows, 32)
    after = before.copy()
    every, word = np.arange(rows), 8 * random.integers(0, 3, rows)
    after[every, word + (7 if random.integers(2) else random.integers(0, 8, rows))] ^= random.integers(
        1, 16, rows, np.uint8
    )
    pairs = np.array([(i, j) for i in range(8) for j in range(i)])
    places = pairs[(every + random.integers(28)) % 28]
    turned = random.integers(1, 16, rows, np.uint8)
    for place in places.T:
        after[every, word + 8 + place] ^= turned
    return [texts(before[:, :8]), texts(before[:, 8:])], [texts(after[:, :8]), texts(after[:, 8:])]


def three_words(random: Random, rows: int) -> tuple[Columns, Columns]:
    """A bit or two in each of three or four words of a long text, blocks apart or not."""
    before = letters(random, rows, 64)
    after = before.copy()
    first = random.integers(0, 4, rows)
    for word in range(int(random.integers(3, 5))):
        after[np.arange(rows), 8 * (first + word) + random.integers(0, 8, rows)] ^= np.uint8(1) << random.integers(
            0, 5, rows, np.uint8
        )
    return [texts(before)], [texts(after)]


def blocks(random: Random, rows: int) -> tuple[Columns, Columns]:
    """Blocks of 8 or 16 bytes of a text change places, or one comes twice."""
    size = (8, 16)[random.integers(2)]
    before = letters(random, rows, 4 * size)
    i, j = random.choice(4, 2, replace=False) * size
    after = before.copy()
    after[:, i : i + size] = before[:, j : j + size]
    if random.integers(2):
        after[:, j : j + size] = before[:, i : i + size]
    return [texts(before)], [texts(after)]


def digits(random: Random, rows: int) -> tuple[Columns, Columns]:
    """Numbers as text, with and without leading zeros, both a little off, or with two digits that changed places."""
    width = (0, 8, 12)[random.integers(3)]
    one, other = random.integers(0, 10**8, (2, rows))
    off = random.integers(-50, 51, (2, rows)) * 10 ** random.integers(0, 7, (2, rows))
    moved = [np.abs(one + off[0]), np.abs(other + off[1])]
    return [numbers_text(n, width) for n in (one, other)], [numbers_text(n, width) for n in moved]


def dates(random: Random, rows: int) -> tuple[Columns, Columns]:
    """A start that moves by some days, an end that moves by years and days."""
    start = random.integers(10_000, 20_000, rows)
    end = start + random.integers(1, 1500, rows)
    starts = start + random.integers(-9, 10, rows)
    ends = end + random.integers(-9, 10, rows) + random.integers(0, 6, rows) * 365
    make = (days, day_text, lambda n: moments(np.asarray(n) * 86_400_000))[random.integers(3)]
    return [make(start), make(end)], [make(starts), make(ends)]


def times(random: Random, rows: int) -> tuple[Columns, Columns]:
    """Moments of which one bit or unit differs, in one or both."""
    before = random.integers(-(10**12), 4 * 10**12, (2, rows))
    units = np.array([1, 1000, 60_000, 3_600_000, 86_400_000, 1 << 20, 1 << 32, 1 << 40])
    off = units[random.integers(0, 8, (2, rows))] * random.integers(-3, 4, (2, rows))
    return [moments(n) for n in before], [moments(n) for n in before + off]


def signs(random: Random, rows: int) -> tuple[Columns, Columns]:
    """A number of the other sign, ten times as large, or of other halves, in one or both."""
    one, other = random.integers(1, 10 ** int(random.integers(1, 13)), (2, rows))
    kind = random.integers(3)
    if kind == 0:
        return [whole(one), whole(other)], [whole(-one), whole(np.where(random.integers(0, 2, rows), other, -other))]
    if kind == 1:
        return [whole(one), whole(other)], [whole(one * 10), whole(other * 10 ** random.integers(0, 4, rows))]
    return [decimals(one, other), whole(one)], [decimals(other, one), whole(one)]


def decimal_bits(random: Random, rows: int) -> tuple[Columns, Columns]:
    """One bit of each of two numbers, in the low or the high half."""
    low = random.integers(0, 1 << 63, (2, rows)).astype(np.uint64)
    high = random.integers(-(1 << 60), 1 << 60, (2, rows))
    flips = np.uint64(1) << random.integers(0, 63, (2, rows)).astype(np.uint64)
    turns = np.int64(1) << random.integers(0, 60, (2, rows))
    in_low = random.integers(0, 2, (2, rows)).astype(np.bool_)
    low_after, high_after = np.where(in_low, low ^ flips, low), np.where(in_low, high, high ^ turns)
    return [decimals(low[n], high[n]) for n in (0, 1)], [decimals(low_after[n], high_after[n]) for n in (0, 1)]


def case(random: Random, rows: int) -> tuple[Columns, Columns]:
    """Letters of the other case, in both columns."""
    width = int(random.integers(1, 30))
    before = random.integers(97, 123, (2, rows, width)).astype(np.uint8)
    after = before.copy()
    for n in range(2):
        after[n, np.arange(rows), random.integers(0, width, rows)] ^= 32
    return [texts(part) for part in before], [texts(part) for part in after]


def sliding(random: Random, rows: int) -> tuple[Columns, Columns]:
    """One text cut in two or three at other places."""
    width = int(random.integers(2, 50))
    text = random.integers(48, 50 if random.integers(2) else 58, (rows, width)).astype(np.uint8)

    def cut() -> Columns:
        first, second = np.sort(random.integers(0, width + 1, (2, rows)), axis=0)
        places = np.arange(width)
        parts = []
        for start, end in ((np.zeros(rows, np.int64), first), (first, second), (second, np.full(rows, width))):
            source = np.minimum(places + start[:, None], width - 1)
            parts.append(texts(np.take_along_axis(text, source, axis=1), end - start))
        return parts

    return cut(), cut()


def lengths(random: Random, rows: int) -> tuple[Columns, Columns]:
    """Blanks, zero bytes and zeros at the end of one text or both, or taken away."""
    width = 40
    fill = np.uint8((0, 32, 48)[random.integers(3)])
    text = np.full((rows, width), fill, np.uint8)
    said = random.integers(0, 20, (2, rows))
    parts = []
    for n in range(2):
        part = text.copy()
        part[:, :20] = np.where(np.arange(20) < said[n][:, None], letters(random, rows, 20), fill)
        parts.append(part)
    before, after = said + random.integers(0, 20, (2, rows)), said + random.integers(0, 20, (2, rows))
    return [texts(parts[n], before[n]) for n in (0, 1)], [texts(parts[n], after[n]) for n in (0, 1)]


def swapped(random: Random, rows: int) -> tuple[Columns, Columns]:
    """Columns of one type change places, two of four or all of them in a ring."""
    make: Callable[[Any], pa.Array] = (
        numbers_text,
        whole,
        days,
        moments,
        lambda n: pa.array(np.asarray(n) % 2 == 0),
        lambda n: numbers_text(n, 20),
    )[random.integers(6)]
    columns = [make(random.integers(0, 3000, rows)) for _ in range(4)]
    if random.integers(2):
        return columns, [columns[n] for n in (1, 2, 3, 0)]
    i, j = random.choice(4, 2, replace=False)
    order = [j if n == i else i if n == j else n for n in range(4)]
    return columns, [columns[n] for n in order]


def alike(random: Random, rows: int) -> tuple[Columns, Columns]:
    """Equal columns that all take another value, or that exchange it: (a, a, b) and (b, b, a)."""
    one, other = random.integers(0, 3000, (2, rows))
    make = (numbers_text, whole, days, moments)[random.integers(4)]
    a, b = make(one), make(other)
    return [a, a, b, b], [[b, b, a, a], [a, b, a, b], [b, a, a, b], [a, a, a, a], [b, b, b, b]][random.integers(5)]


def empties(random: Random, rows: int) -> tuple[Columns, Columns]:
    """Null, '', '0', 'false', 'null', a blank; 0 and null; false and null: each with each, in three columns."""
    words = pa.array([None, "", "0", "false", "null", " ", "\0", "1"])
    numbers = pa.array([None, 0, 1, -1, 10**18], pa.int64()).cast(DECIMAL)
    flags = pa.array([None, False, True])
    days = pa.array([None, 0, 1], pa.int32()).cast(pa.date32())
    kinds = [(words, numbers, flags), (words, words, words), (numbers, numbers, flags), (days, numbers, words)]
    chosen = kinds[random.integers(4)]
    before, after = ([kind.take(pa.array(random.integers(0, len(kind), rows))) for kind in chosen] for _ in range(2))
    return list(before), list(after)


def moved(random: Random, rows: int) -> tuple[Columns, Columns]:
    """A value goes from one column to another, and leaves null or the empty text behind."""
    value = numbers_text(random.integers(0, 10**6, rows))
    nothing = pa.nulls(rows, pa.utf8()) if random.integers(2) else pa.array([""]).take(pa.array(np.zeros(rows, int)))
    i, j = random.choice(5, 2, replace=False)
    return [value if n == i else nothing for n in range(5)], [value if n == j else nothing for n in range(5)]


def types(random: Random, rows: int) -> tuple[Columns, Columns]:
    """The same number as text, number, day, moment, yes or no."""
    numbers = random.integers(0, 2 if random.integers(2) else 128, rows)
    made = [numbers_text(numbers), whole(numbers), decimals(numbers, np.zeros(rows)), days(numbers), moments(numbers)]
    made.append(pa.array(numbers.astype(np.int32)).cast(pa.time32("ms")))
    made.append(pa.array(numbers % 2 == 1))
    raw = np.zeros((rows, 8), np.uint8)
    raw[:] = numbers.astype("<i8").view(np.uint8).reshape(rows, 8)
    made.append(texts(raw))  # the very bytes of the day and of the moment
    i, j = random.choice(len(made), 2, replace=False)
    return [made[i], numbers_text(numbers)], [made[j], numbers_text(numbers)]


SHAPES: tuple[Shape, ...] = (
    byte_pairs, high_bytes, three_words, blocks, digits, dates, times, signs, decimal_bits, case, sliding, lengths,
    swapped, alike, empties, moved, types,
)  # fmt: skip


# Of these no pair comes twice: what comes twice is no second chance.
RICH = frozenset(shape.__name__ for shape in (byte_pairs, high_bytes, three_words, blocks, times, decimal_bits))


# Judging


def differing(before: Columns, after: Columns) -> Any:
    """Where any column differs, null from a value too; everywhere where types do."""
    found = np.zeros(len(before[0]), np.bool_)
    for one, other in zip(before, after, strict=True):
        if one.type != other.type:
            return np.ones(len(one), np.bool_)
        same = pc.if_else(
            pc.and_(pc.is_valid(one), pc.is_valid(other)),
            pc.equal(one, other),
            pc.and_(pc.is_null(one), pc.is_null(other)),
        )
        found |= ~same.to_numpy(zero_copy_only=False)
    return found


@dataclass
class Verdict:
    """What a hash did. `missed`: by shape, pairs of which some word agrees, with the first of them."""

    pairs: int = 0
    missed: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    chances: int = 0  # pairs of the shapes in `RICH`
    alike: Any = 0  # how often each byte agreed in those
    by_shape: dict[str, int] = field(default_factory=dict)

    @property
    def sigmas(self) -> float:
        """How many standard deviations the worst byte is from chance."""
        expected = self.chances / 256
        return float(np.max(np.abs(self.alike - expected))) / math.sqrt(expected) if self.chances else 0.0

    @property
    def holds(self) -> bool:
        return not self.missed and self.sigmas < SIGMAS_MAX


def pairs(shapes: Sequence[Shape], count: int, seed: int) -> Iterator[tuple[str, Columns, Columns]]:
    """So many pairs of all these shapes, in parts, each with a key of its own in front."""
    random = np.random.default_rng(seed)
    done, turn = 0, 0
    while done < count:
        shape = shapes[turn % len(shapes)]
        rows = PART
        before, after = shape(random, rows)
        key = numbers_text(random.integers(0, 10**9, rows))
        yield shape.__name__, [key, *before], [key, *after]
        done, turn = done + rows, turn + 1


def judge(hashing: Hash, count: int, seed: int = 0, shapes: Sequence[Shape] = SHAPES) -> Verdict:
    """Put a hash through the suite."""
    verdict = Verdict()
    for name, before, after in pairs(shapes, count, seed):
        apart = differing(before, after)
        some, others = (np.asarray(hashing(columns), np.uint64).reshape(len(apart), -1) for columns in (before, after))
        weigh(verdict, name, (before, some), (after, others), apart)
    return verdict


def weigh(verdict: Verdict, name: str, one: tuple[Columns, Any], other: tuple[Columns, Any], apart: Any) -> None:
    """Count the pairs that are apart: columns and hashes of both sides."""
    rows = np.flatnonzero(apart)
    difference = np.ascontiguousarray(one[1][rows] ^ other[1][rows])
    missed = rows[(difference == 0).any(axis=1)]
    if missed.size:
        verdict.missed[name] = verdict.missed.get(name, 0) + len(missed)
        if len(verdict.examples) < 10:
            said = [" | ".join(_said(column, int(missed[0])) for column in columns) for columns in (one[0], other[0])]
            verdict.examples.append(f"{name}: {said[0]}  and  {said[1]}")
    if name in RICH:
        octets = difference.view(np.uint8).reshape(len(rows), 8 * difference.shape[1])
        verdict.alike = verdict.alike + np.count_nonzero(octets == 0, axis=0)
        verdict.chances += len(rows)
    verdict.pairs += len(rows)
    verdict.by_shape[name] = verdict.by_shape.get(name, 0) + len(rows)


def _said(column: pa.Array, row: int) -> str:
    value = column.slice(row, 1)
    return repr(value.cast(pa.binary())[0].as_py() if pa.types.is_string(value.type) else value[0].as_py())


# What is judged


def check_hash(columns: Sequence[pa.Array]) -> Any:
    """The row's check hash; its first lane is `hash_columns`, which results are joined to rows by."""
    return rowhash.digest_columns(columns, seed=0x5EED)


@dataclass(frozen=True)
class Folded:
    """A hash of one value, in the form in which two values are one to Salesforce: pairs of which the forms differ."""

    name: str
    form: Callable[[pa.Array], pa.Array]
    hashing: Callable[[pa.Array], Any]


FOLDED = (
    Folded("key hash", lambda array: key_text([array]), lambda array: key_hash(key_text([array]))),
    Folded(
        "match hash",
        lambda array: values.fold(values.echo_form(array, TEXT), TEXT),
        lambda array: match_hash(array, TEXT),
    ),
    Folded(
        "before-image's fingerprint",
        lambda array: values.held_form(array, TEXT),
        lambda array: images.fingerprint(array, TEXT, "run").to_numpy(),
    ),
)


def judge_folded(folded: Folded, count: int, seed: int = 0) -> Verdict:
    verdict = Verdict()
    for name, before, after in pairs(SHAPES, count, seed):
        for one, other in zip(before[1:], after[1:], strict=True):
            if pa.types.is_string(one.type) and pa.types.is_string(other.type):
                forms = [folded.form(one)], [folded.form(other)]
                apart = differing(*forms) & pc.and_(*(pc.is_valid(f[0]) for f in forms)).to_numpy(zero_copy_only=False)
                some, others = (np.asarray(folded.hashing(a), np.uint64).reshape(-1, 1) for a in (one, other))
                weigh(verdict, name, ([one], some), ([other], others), apart)
    return verdict


def avalanche(samples: int = 1 << 14, seed: int = 0) -> tuple[float, float]:
    """Over each bit of a text of 24 bytes, of a number and of a moment, in a row of three, and each bit of the row's
    hash: how far the chance that the one turns the other is from a half; the mean and the worst."""
    random = np.random.default_rng(seed)
    text = random.integers(0, 256, (samples, 24)).astype(np.uint8)
    low, high = random.integers(0, 1 << 63, (2, samples)).astype(np.uint64)
    moment = random.integers(-(1 << 62), 1 << 62, samples)

    def bits(text: Any, low: Any, high: Any, moment: Any) -> Any:
        hashes = check_hash([texts(text), decimals(low, high.view(np.int64)), moments_raw(moment)])
        return np.unpackbits(hashes.view(np.uint8).reshape(samples, 16), axis=1)

    before = bits(text, low, high, moment)
    biases = []

    def turned(after: Any) -> None:
        biases.append(np.abs((before ^ after).mean(axis=0) - 0.5))

    for bit in range(24 * 8):
        changed = text.copy()
        changed[:, bit // 8] ^= np.uint8(1 << bit % 8)
        turned(bits(changed, low, high, moment))
    for bit in range(64):
        flip = np.uint64(1 << bit)
        turned(bits(text, low ^ flip, high, moment))
        turned(bits(text, low, high ^ flip, moment))
        turned(bits(text, low, high, moment ^ flip.astype(np.int64)))
    found = np.array(biases)
    return float(found.mean()), float(found.max())


def moments_raw(numbers: Any) -> pa.Array:
    return pa.Array.from_buffers(DATETIME, len(numbers), [None, pa.py_buffer(np.ascontiguousarray(numbers))])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m differential", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1_000_000, help="of the check hash; a tenth of the others")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    jobs = {"check hash, each lane": lambda: judge(check_hash, given.pairs, given.seed)}
    for folded in FOLDED:
        jobs[folded.name] = functools.partial(judge_folded, folded, given.pairs // 10, given.seed)
    holds = True
    for name, job in jobs.items():
        began = time.process_time()
        verdict = job()
        print(
            f"{name:27} {verdict.pairs:>12,} pairs of {len(verdict.by_shape)} shapes  "
            f"missed: {sum(verdict.missed.values()):,}  bytes agree by chance, within {verdict.sigmas:.1f} sigma  "
            f"({time.process_time() - began:.0f} s)",
            flush=True,
        )
        for line in (*(f"{shape}: {missed:,}" for shape, missed in verdict.missed.items()), *verdict.examples):
            print(f"  {line}")
        holds &= verdict.holds
    mean, worst = avalanche()
    print(
        "avalanche: a bit of a row turns each bit of its hash with a chance of 0.5, "
        f"but for {mean:.4f} on average and {worst:.4f} at worst"
    )
    return int(not (holds and worst < BIAS_MAX))


if __name__ == "__main__":
    sys.exit(main())
