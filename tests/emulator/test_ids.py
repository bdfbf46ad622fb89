"""Ids: layout, checksum, both lengths, and the vector forms against the scalar ones."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.emulator.ids import ALPHABET, COUNTER_BITS, MALFORMED, Codec, checksum

CODEC = Codec("5fA", {1: "001", 2: "a00", 7: "00Q"})
rids = st.builds(lambda n, c: n << COUNTER_BITS | c, st.sampled_from([1, 2, 7]), st.integers(1, 2**40 - 1))


def test_checksums_are_salesforce_s() -> None:
    assert checksum("a00B000000FSjVU") == "IA1"
    assert checksum("012000000000000") == "AAA"


@given(st.lists(rids, max_size=50))
def test_vector_and_scalar_forms_agree(values: list[int]) -> None:
    texts = [CODEC.encode(v) for v in values]
    assert CODEC.encode_many(np.array(values, np.int64)).to_pylist() == texts
    for form in (texts, [t[:15] for t in texts]):
        assert CODEC.decode_many(pa.array(form, pa.string())).tolist() == values
        assert [CODEC.decode(t) for t in form] == values


@given(st.integers(0, 2**40), st.sampled_from(["750", "01g"]))
def test_the_id_of_a_job_gives_its_number_back_to_its_own_org_only(number: int, kind: str) -> None:
    text = CODEC.job_id(number, kind)
    assert CODEC.job_number(text, kind) == CODEC.job_number(text[:15], kind) == number
    assert CODEC.job_number(text[:14], kind) is None
    assert Codec("xyz", {}).job_number(text, kind) is None


@given(st.lists(st.text(ALPHABET + "é -", max_size=19), max_size=20))
def test_decoding_anything_agrees_too(texts: list[str]) -> None:
    assert CODEC.decode_many(pa.array(texts, pa.string())).tolist() == [CODEC.decode(t) for t in texts]


def test_wrong_checksums_prefixes_and_lengths_are_malformed() -> None:
    good = CODEC.encode(1 << COUNTER_BITS | 12345)
    for text in (good[:-1], good[:-1] + "@", "zzz" + good[3:15], "", good + "A"):
        assert CODEC.decode(text) == MALFORMED
    other = Codec("xyz", CODEC.prefixes).encode(1 << COUNTER_BITS | 5)
    assert CODEC.decode(other) == 1 << COUNTER_BITS
