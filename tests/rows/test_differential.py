"""The differential suite in its small size, and whether it would find a weak hash."""

import differential
import numpy as np
import pyarrow as pa
import pytest
from differential import FOLDED, SHAPES, avalanche, check_hash, judge, judge_folded

from dinmo_dbt.rows import rowhash
from dinmo_dbt.rows.arrow import DATETIME


@pytest.mark.slow
def test_no_pair_of_rows_that_differ_agrees_in_a_lane_of_the_check_hash():
    verdict = judge(check_hash, 1_000_000)
    assert verdict.holds, (verdict.missed, verdict.examples, verdict.sigmas)
    assert verdict.pairs > 950_000 and verdict.by_shape.keys() == {shape.__name__ for shape in SHAPES}


@pytest.mark.parametrize("folded", FOLDED, ids=lambda folded: folded.name)
def test_no_pair_of_values_that_differ_agrees(folded):
    verdict = judge_folded(folded, 100_000)
    assert verdict.holds, (verdict.missed, verdict.examples, verdict.sigmas)
    assert verdict.pairs > 60_000


def test_each_bit_of_a_row_turns_each_bit_of_its_hash_half_the_time():
    mean, worst = avalanche(1 << 12)
    assert mean < 0.008, "0.006 is chance"
    assert worst < 2 * differential.BIAS_MAX


def folded_words(arrays, seed=0x5EED):
    """The row hash of version 1, which mixed words that differ into one another before it mixed them whole."""
    mask = np.uint64(0xD6E8FEB86659FD93)
    found = np.full(len(arrays[0]), np.uint64(seed ^ 0x2545F4914F6CDD1D))

    def fold(rows, words):
        turned = (found[rows] ^ words) * np.uint64(0x9E3779B97F4A7C15)
        found[rows] = turned ^ turned >> np.uint64(32)

    for array in arrays:
        there = array.is_valid().to_numpy(zero_copy_only=False)
        every = np.arange(len(array))
        if pa.types.is_string(array.type):
            plain = [value or b"" for value in array.cast(pa.binary()).to_pylist()]
            length = np.array([len(value) for value in plain], np.uint64)
            width = max(8, -(-int(length.max()) // 8) * 8)
            words = np.frombuffer(b"".join(value.ljust(width, b"\0") for value in plain), "<u8").reshape(len(plain), -1)
            first = words[:, 0] ^ (length + np.uint64(1)) * np.uint64(0xA0761D6478BD642F)
            fold(every, np.where(there, first, mask))
            for n in range(1, words.shape[1]):
                rows = np.flatnonzero(length > 8 * n)
                fold(rows, words[rows, n])
        elif pa.types.is_decimal128(array.type):
            pairs = np.frombuffer(array.buffers()[1], "<u8").reshape(-1, 2)
            for lane in (0, 1):
                fold(every, np.where(there, pairs[:, lane], mask))
        else:
            whole = array.cast({1: pa.int8(), 32: pa.int32(), 64: pa.int64()}[array.type.bit_width]).fill_null(0)
            fold(every, np.where(there, whole.to_numpy().astype(np.int64).view(np.uint64), mask))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (29, 0x94D049BB133111EB), (32, 1)):
        found ^= found >> np.uint64(shift)
        found *= np.uint64(factor)
    return found


def one_block_short(arrays):
    """Of each text the first sixteen bytes."""
    cut = [
        pa.compute.binary_slice(a.cast(pa.binary()), 0, 16).cast(pa.utf8(), safe=False)
        if pa.types.is_string(a.type)
        else a
        for a in arrays
    ]
    return rowhash.digest_columns(cut)


def without_position(arrays):
    return np.sum([rowhash.digest_columns([array]) for array in arrays], axis=0, dtype=np.uint64)


def without_type(arrays):
    def plain(array):
        numbers = pa.types.is_date(array.type) or pa.types.is_time(array.type)
        return array.cast(pa.int32()).cast(pa.int64()).cast(pa.timestamp("ms")).cast(DATETIME) if numbers else array

    return rowhash.digest_columns([plain(array) for array in arrays])


def run_together(arrays):
    texts = [a.cast(pa.utf8()).fill_null("") for a in arrays]
    return rowhash.digest_columns([pa.compute.binary_join_element_wise(*texts, "")])


def of_few_bits(arrays):
    return rowhash.digest_columns(arrays) & np.uint64(2**12 - 1)


def with_a_bit_that_stands_still(arrays):
    return rowhash.digest_columns(arrays) | np.uint64(1 << 37)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weak", "found_by"),
    [
        (folded_words, {"high_bytes"}),
        (one_block_short, {"byte_pairs", "blocks", "three_words"}),
        (without_position, {"swapped", "moved", "alike"}),
        (without_type, {"types"}),
        (run_together, {"sliding", "moved", "empties"}),
        (of_few_bits, {"byte_pairs"}),
        (with_a_bit_that_stands_still, set()),
    ],
)
def test_a_weak_hash_is_found(weak, found_by):
    shapes = [shape for shape in SHAPES if shape.__name__ in found_by] or SHAPES
    verdict = judge(weak, 100_000 * len(shapes), shapes=shapes)
    assert not verdict.holds
    assert verdict.missed.keys() >= found_by, verdict.missed
    assert len(verdict.examples) > 0 or not found_by
