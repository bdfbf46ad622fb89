"""Row hashes are part of the state format: the numbers below change only together with HASH_VERSION."""

import datetime as dt
from decimal import Context, Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinmo_dbt.destination import Field
from dinmo_dbt.rows import rowhash
from dinmo_dbt.rows.arrow import DATETIME, DECIMAL, TIME
from dinmo_dbt.rows.key_hashes import key_hash
from dinmo_dbt.rows.mapping import Constant, MappedColumn, Mapping
from dinmo_dbt.rows.rowhash import as_arrow, digest_columns, from_arrow, hash_columns, murmur3, same_digests

VALUES = {
    "null": (None, pa.utf8()),
    "empty": ("", pa.utf8()),
    "letter": ("a", pa.utf8()),
    "eight": ("12345678", pa.utf8()),
    "nine": ("123456789", pa.utf8()),
    "long": ("the quick brown fox jumps over the lazy dog", pa.utf8()),
    "emoji": ("é 漢字 😀", pa.utf8()),
    "false": (False, pa.bool_()),
    "true": (True, pa.bool_()),
    "no bool": (None, pa.bool_()),
    "zero": (Decimal(0), DECIMAL),
    "number": (Decimal("19.99"), DECIMAL),
    "negative": (Decimal("-99999999999999999999.999999999999999999"), DECIMAL),
    "no number": (None, DECIMAL),
    "day": (dt.date(1969, 12, 31), pa.date32()),
    "moment": (dt.datetime(2024, 2, 29, 23, 59, 59, 999000, dt.UTC), DATETIME),
    "time": (dt.time(23, 59, 59), TIME),
}
GOLDEN = {
    "null": "a094728a76ce6ac538044f7e03903792",
    "empty": "e382af944e01dc834ee9ca1d5f009af1",
    "letter": "b20fec0f69e28686c8ab8781590b25ba",
    "eight": "34a7bd3506dd503ece67f5bb9a32903d",
    "nine": "b54134a7665b6710314fe3b07bb528ad",
    "long": "c48e320088d699723cc44041b4dc8859",
    "emoji": "99da23480767eb21c605c7e8c4cc6080",
    "false": "ff81e098b71572e701c81d420ca91932",
    "true": "3a2818ab80105a0e690813c3ed7b2ad3",
    "no bool": "a094728a76ce6ac538044f7e03903792",
    "zero": "763b1aa94095b0b29608283dc1d92568",
    "number": "9eb4f8479988b35de3d1f75190b3ed47",
    "negative": "cbc6b940c19140c1052dca4d6ff8dc54",
    "no number": "a094728a76ce6ac538044f7e03903792",
    "day": "cc488c1d7ec835456083e4f7e3d753f9",
    "moment": "bba48d241e66d6c51661b120c90a7b6b",
    "time": "d1fd56df4146ae5e8ff14babcb494d1e",
}


def one(name):
    value, kind = VALUES[name]
    return pa.array([value], kind)


def raw(rows):
    """Rows of any bytes as text."""
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(rows), pa.py_buffer(offsets), pa.py_buffer(b"".join(rows)))


def published(key, seed):
    """MurmurHash3_x64_128 as SMHasher's MurmurHash3.cpp has it, a byte string at a time."""
    every, c1, c2 = 2**64 - 1, 0x87C37B91114253D5, 0x4CF5AD432745937F

    def rotated(word, bits):
        return (word << bits | word >> (64 - bits)) & every

    def mixed(word, first, bits, second):
        return rotated(word * first & every, bits) * second & every

    def final(word):
        word = (word ^ word >> 33) * 0xFF51AFD7ED558CCD & every
        word = (word ^ word >> 33) * 0xC4CEB9FE1A85EC53 & every
        return word ^ word >> 33

    h1 = h2 = seed
    body = len(key) // 16 * 16
    for at in range(0, body, 16):
        k1, k2 = (int.from_bytes(key[at + n : at + n + 8], "little") for n in (0, 8))
        h1 = (rotated(h1 ^ mixed(k1, c1, 31, c2), 27) + h2) * 5 + 0x52DCE729 & every
        h2 = (rotated(h2 ^ mixed(k2, c2, 33, c1), 31) + h1) * 5 + 0x38495AB5 & every
    tail = key[body:]
    h2 ^= mixed(int.from_bytes(tail[8:], "little"), c2, 33, c1)
    h1 ^= mixed(int.from_bytes(tail[:8], "little"), c1, 31, c2)
    h1, h2 = h1 ^ len(key), h2 ^ len(key)
    h1 = h1 + h2 & every
    h2 = h2 + h1 & every
    h1, h2 = final(h1), final(h2)
    h1 = h1 + h2 & every
    return [h1, h2 + h1 & every]


def test_it_is_the_published_function_by_its_verification_value():
    """SMHasher's own check: keys of 0 to 255 bytes under seeds from 256 down, and the hash of all their hashes."""
    hashes = b"".join(murmur3(raw([bytes(range(n))]), 256 - n).astype("<u8").tobytes() for n in range(256))
    assert murmur3(raw([hashes]), 0).astype("<u8").tobytes()[:4] == (0x6384BA69).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("text", "seed", "expected"),
    [  # by mmh3 5.3.1
        ("", 0, [0x0, 0x0]),
        ("", 1, [0x4610ABE56EFF5CB5, 0x51622DAA78F83583]),
        ("hello", 0, [0xCBD8A7B341BD9B02, 0x5B1E906A48AE1D19]),
        ("hello, world", 0, [0x342FAC623A5EBC8E, 0x4CDCBC079642414D]),
        ("The quick brown fox jumps over the lazy dog", 0, [0xE34BBC7BBC071B6C, 0x7A433CA9C49A9347]),
    ],
)
def test_texts_hash_as_they_were_published(text, seed, expected):
    assert murmur3(pa.array([text]), seed).tolist() == [expected] == [published(text.encode(), seed)]


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.binary(max_size=70), min_size=1, max_size=20), seed=st.integers(0, 2**64 - 1))
def test_any_bytes_under_a_seed_of_64_bits_hash_as_one_by_one(rows, seed):
    assert murmur3(raw(rows), seed).tolist() == [published(row, seed) for row in rows]


def seed_of(seed, position, tag):
    """SplitMix64."""
    every = 2**64 - 1
    word = (seed ^ (position << 8 | tag)) + 0x9E3779B97F4A7C15 & every
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & every
    word = (word ^ word >> 27) * 0x94D049BB133111EB & every
    return word ^ word >> 31


@pytest.mark.parametrize("seed", [0, 7, 2**63, 2**64 - 1])
def test_a_row_hashes_to_the_sum_of_its_values_hashes(seed):
    """Of the bytes that the docstring tells, under seeds by mapping, position and type."""
    row = [one(name) for name in VALUES]
    moment = 1709251199999
    told = [
        (0, b""),
        (1, b""),
        *((1, str(VALUES[n][0]).encode()) for n in ("letter", "eight", "nine", "long", "emoji")),
    ]
    told += [(2, bytes(8)), (2, b"\1" + bytes(7)), (0, b""), (3, bytes(16))]
    told += [
        (3, (1999 * 10**16).to_bytes(16, "little")),
        (3, (1 - 10**38).to_bytes(16, "little", signed=True)),
        (0, b""),
    ]
    told += [(4, b"\xff" * 8), (5, moment.to_bytes(8, "little")), (6, (86_399_000).to_bytes(8, "little"))]
    parts = [published(content, seed_of(seed, n, tag)) for n, (tag, content) in enumerate(told)]
    assert digest_columns(row, seed=seed).tolist() == [[sum(lane) % 2**64 for lane in zip(*parts, strict=True)]]


def test_the_hashes_of_known_values_stay_what_they_are():
    assert rowhash.HASH_VERSION == 2
    assert {name: as_arrow(digest_columns([one(name)]))[0].as_py().hex() for name in VALUES} == GOLDEN


def test_the_hash_of_a_row_of_a_key_and_of_a_mapping_stay_what_they_are():
    row = [one(name) for name in VALUES]
    assert as_arrow(digest_columns(row, seed=7))[0].as_py().hex() == "30dba56225fd5804a28ef6835818ebd9"
    assert f"{int(key_hash(pa.array(['customer-1']))[0]):016x}" == "d7fdda8e87a95c6b"
    text, number = Field("A__c", "A", "string"), Field("N__c", "N", "currency")
    mapping = Mapping(
        ("id",),
        MappedColumn("ext", "Ext__c", text),
        (MappedColumn("a", "A__c", text), MappedColumn("n", "N__c", number, keep_nulls=True)),
        (Constant("S__c", text, pa.array(["dbt"])),),
    )
    assert f"{mapping.digest:016x}" == "08cdb217c9353e12"


@pytest.mark.parametrize("rows", [0, 1, 8191, 8192, 8193, 20_000])
def test_chunks_of_rows_hash_as_their_rows(rows):
    """The values that stand where chunks meet, and those of every row."""
    numbers = np.arange(rows)
    array = pa.array([None if n % 5 == 0 else "x" * (n % 37) for n in numbers], pa.utf8())
    days = pa.array(numbers.astype(np.int32)).cast(pa.date32())
    found = digest_columns([array, days], seed=3)
    assert found.shape == (rows, 2)
    for n in {0, 1, 8190, 8191, 8192, rows - 1} & set(range(rows)):
        assert found[n].tolist() == digest_columns([array.slice(n, 1), days.slice(n, 1)], seed=3)[0].tolist()
    assert len(np.unique(found, axis=0)) == rows
    assert (hash_columns([array, days], seed=3) == found[:, 0]).all()


def test_digests_in_arrow_and_back():
    digests = digest_columns([pa.array(["a", "b", "c", "d"])])
    array = as_arrow(digests)
    assert (array.type, array[0].as_py()) == (rowhash.DIGEST, digests[0].astype("<u8").tobytes())
    chunked = pa.chunked_array([array.slice(1, 2), array.slice(0, 0), array.slice(3)])
    assert from_arrow(chunked).tolist() == digests[1:].tolist()
    assert from_arrow(array.slice(2)).tolist() == digests[2:].tolist()
    assert from_arrow(pa.chunked_array([], rowhash.DIGEST)).shape == (0, 2)
    other = digests.copy()
    other[1, 0] += np.uint64(1)
    other[2, 1] += np.uint64(1)
    assert same_digests(digests, other).tolist() == [True, False, False, True]


def test_values_that_look_alike_hash_apart():
    hashes = {name: int(hash_columns([one(name)])[0]) for name in VALUES}
    texts = [hashes[name] for name in ("null", "empty", "letter", "eight", "nine")]
    assert len(set(texts)) == len(texts)
    pairs = [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc"), ("abc", None), (None, "abc"), ("a\0", ""), ("a", "\0")]
    columns = [pa.array([pair[n] for pair in pairs]) for n in (0, 1)]
    assert len(set(hash_columns(columns).tolist())) == len(pairs)
    assert hash_columns([one("letter")], seed=1) != hash_columns([one("letter")], seed=2)


texts = st.lists(st.one_of(st.none(), st.text(max_size=40)), min_size=1, max_size=30)
numbers = st.lists(st.one_of(st.none(), st.integers(-(10**38) + 1, 10**38 - 1)), min_size=1, max_size=30)


EXACT = Context(prec=60)  # the default of 28 digits would round


def decimals(unscaled):
    return pa.array([None if n is None else Decimal(n).scaleb(-18, EXACT) for n in unscaled], DECIMAL)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(values=texts, start=st.integers(0, 29), length=st.integers(0, 30), before=st.text(max_size=9))
def test_a_slice_hashes_as_the_same_rows_of_their_own(values, start, length, before):
    array = pa.array([before, *values], pa.utf8()).slice(1)
    part = array.slice(start, length)
    own = pa.array(part.to_pylist(), pa.utf8())
    assert hash_columns([part]).tolist() == hash_columns([own]).tolist()
    assert hash_columns([part]).tolist() == [int(hash_columns([pa.array([v], pa.utf8())])[0]) for v in own.to_pylist()]


@pytest.mark.parametrize("name", [name for name in VALUES if VALUES[name][1] != pa.utf8()])
def test_every_type_hashes_alike_sliced_or_not_with_nulls_or_without(name):
    value, kind = VALUES[name]
    array = pa.array([None, value, None, value, value, value, None, value, value, None], kind)
    for start in range(10):
        for length in range(10 - start):
            own = pa.array(array.slice(start, length).to_pylist(), kind)
            assert hash_columns([array.slice(start, length)]).tolist() == hash_columns([own]).tolist()
    if value is not None:
        whole = pa.array([value] * 3, kind)
        assert set(hash_columns([whole]).tolist()) == {int(hash_columns([array])[1])}


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(values=st.lists(st.text(max_size=30), min_size=2, max_size=30, unique=True))
def test_texts_that_differ_hash_apart(values):
    assert len(set(hash_columns([pa.array(values)]).tolist())) == len(values)


@settings(max_examples=100, deadline=None)
@given(values=numbers)
def test_numbers_hash_by_their_value(values):
    hashes = hash_columns([decimals(values)]).tolist()
    assert len(set(hashes)) == len(set(values))


def test_values_of_up_to_sixteen_bytes_of_one_length_never_agree():
    """Their hash is a bijection: none of these agrees with another."""
    random = np.random.default_rng(5)
    words = np.unique(np.concatenate([1 << np.arange(63), random.integers(-(2**62), 2**62, 200_000)]))
    moments = pa.array(words).cast(pa.timestamp("ms")).cast(DATETIME)
    assert len(np.unique(digest_columns([moments]), axis=0)) == len(words)


def test_no_rows_and_no_buffers_are_fine():
    for kind in (pa.utf8(), pa.bool_(), DECIMAL, pa.date32(), DATETIME, TIME):
        assert digest_columns([pa.array([], kind)]).shape == (0, 2)
        assert len(set(hash_columns([pa.nulls(3, kind)]).tolist())) == 1
    assert hash_columns([pa.array(["", ""])]).tolist() == hash_columns([one("empty")]).tolist() * 2


def test_a_part_of_a_long_column_hashes_as_its_texts():
    """Wherever it ends: right before the end of the buffer, some words before, and at its beginning."""
    texts = pa.array([f"{n:011d}" for n in range(1_000)])
    whole = hash_columns([texts])
    for start, end in ((0, 1), (0, 990), (1, 998), (900, 999), (999, 1_000)):
        assert hash_columns([texts.slice(start, end - start)]).tolist() == whole[start:end].tolist()


def test_the_digests_of_a_row_s_parts_add_up_where_each_value_has_its_position():
    row = [one(name) for name in ("letter", "number", "day", "null")]
    parts = [digest_columns([row[at] for at in some], seed=7, positions=some) for some in ([1], [3, 0], [2])]
    assert sum(parts).tolist() == digest_columns(row, seed=7).tolist()
    for some in ([1], [1, 0, 3]):
        with pytest.raises(ValueError, match="zip"):
            digest_columns(row[:2], positions=some)


def test_a_mapping_without_a_seed_has_the_seed_0():
    assert digest_columns([one("letter")]).tolist() == digest_columns([one("letter")], seed=0).tolist()
    assert hash_columns([one("letter")]).tolist() == hash_columns([one("letter")], seed=0).tolist()
