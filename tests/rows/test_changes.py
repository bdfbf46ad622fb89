"""Laws of change detection: against a plain model in dictionaries, and the same answer with colliding key hashes."""

import dataclasses
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinmo_dbt.destination import Field
from dinmo_dbt.rows import examples
from dinmo_dbt.rows.changes import Aside, Kind
from dinmo_dbt.rows.compare import between
from dinmo_dbt.rows.key_hashes import key_hash
from dinmo_dbt.rows.key_problems import KeyProblem
from dinmo_dbt.rows.keys import key_text
from dinmo_dbt.rows.mapping import Constant, MappedColumn, Mapping, from_header
from dinmo_dbt.rows.reasons import Reason, unreadable_mark
from dinmo_dbt.rows.rowhash import digest_columns
from dinmo_dbt.rows.snapshot import Flag, Pending


@dataclass
class MemorySpool:
    batches: list = field(default_factory=list)

    def write(self, rows):
        self.batches.append(rows)

    def take(self, rows, columns=None):
        table = pa.Table.from_batches(self.batches).take(pa.array(rows, pa.int64()))
        return table.select(columns) if columns else table


class MemorySnapshot:
    """Acknowledged rows: {key: (ck, record id, flags)}."""

    def __init__(self, rows, hash_key=key_hash):
        keys = list(rows)
        kh = hash_key(pa.array(keys, pa.utf8())) if keys else np.empty(0, np.uint64)
        order = np.argsort(kh, kind="stable")
        self.kh = kh[order]
        self._keys = [keys[i] for i in order]
        hashes = [rows[k][0] for k in self._keys]
        self.ck = np.array([h if isinstance(h, list) else [h, 0] for h in hashes], np.uint64).reshape(-1, 2)
        self._ids = [rows[k][1] for k in self._keys]
        self.flags = np.array([rows[k][2] for k in self._keys], np.uint8)

    def keys(self, positions):
        return pa.array([self._keys[i] for i in positions], pa.utf8())

    def record_ids(self, positions):
        return pa.array([self._ids[i] for i in positions], pa.utf8())


def text_column(name, **more):
    return MappedColumn(name, f"{name.title()}__c", Field(f"{name.title()}__c", name, "string", **more))


PLAIN = Mapping(("id",), None, (text_column("a"), text_column("b")))


def batch(rows, names=("id", "a", "b")):
    columns = list(zip(*rows, strict=True)) if rows else [[] for _ in names]
    return pa.RecordBatch.from_arrays([pa.array(c, pa.utf8()) for c in columns], names=list(names))


def check_hash(mapping, row):
    arrays = [pa.array([value or None], pa.utf8()) for value in row[1:]]
    return digest_columns([pa.array([row[0]]), *arrays], seed=mapping.digest)[0].tolist()


def eight_bits(keys):
    return key_hash(keys) & np.uint64(0xFF)


def scan(batches, snapshot, mapping=PLAIN, hash_key=key_hash, **options):
    spool = MemorySpool()
    found = between(batches, mapping, snapshot, spool, hash_key=hash_key, **options)
    if not found.refusals:
        assert found.read == found.unchanged + int(np.count_nonzero(found.kind != Kind.DROPPED)) + len(found.aside)
    kinds = {}
    if len(found.kind):
        keys = spool.take(np.arange(len(found.kind)), ["key"])["key"].to_pylist()
        kinds = {key: Kind(kind) for key, kind in zip(keys, found.kind, strict=True)}
    return found, kinds


values = st.sampled_from([None, "", "x", "y", "a longer text than eight bytes", "a longer text than eight bytez"])
rows = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.tuples(values, values), max_size=40)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(before=rows, after=rows, left=st.sets(st.text("abcdef", min_size=1, max_size=3)), sizes=st.integers(1, 9))
@pytest.mark.parametrize("hash_key", [key_hash, eight_bits])
def test_a_change_set_is_what_a_dictionary_says(hash_key, before, after, left, sizes):
    acknowledged = {
        key: (check_hash(PLAIN, (key, *row)), f"id-{key}", int(Flag.LEFT) if key in left else 0)
        for key, row in before.items()
    }
    snapshot = MemorySnapshot(acknowledged, hash_key)
    listed = [(key, *row) for key, row in after.items()]
    batches = [batch(listed[i : i + sizes]) for i in range(0, len(listed), sizes)]
    found, kinds = scan(batches, snapshot, hash_key=hash_key)

    def plain(row):
        return tuple(value or None for value in row)

    expected = {}
    for key, row in after.items():
        if key not in before:
            expected[key] = Kind.ADDED
        elif key in left:
            expected[key] = Kind.RETURNED
        elif plain(before[key]) != plain(row):
            expected[key] = Kind.CHANGED
    assert kinds == expected
    assert found.refusals == []
    assert {snapshot.keys([p])[0].as_py() for p in found.left} == {
        k for k in before if k not in after and k not in left
    }
    for key, position in zip(kinds, found.position, strict=True):
        assert (position == -1) == (key not in before)
        if position >= 0:
            assert snapshot.record_ids([position])[0].as_py() == f"id-{key}"


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    listed=st.lists(st.tuples(st.sampled_from("abcd"), values, values), max_size=12),
    known=st.sets(st.sampled_from("abcd")),
)
@pytest.mark.parametrize("hash_key", [key_hash, eight_bits])
def test_repeated_keys_are_refused_and_only_those(hash_key, listed, known):
    snapshot = MemorySnapshot({k: (check_hash(PLAIN, (k, "x", "y")), None, 0) for k in known}, hash_key)
    found, _ = scan([batch(listed[i : i + 3]) for i in range(0, len(listed), 3)], snapshot, hash_key=hash_key)
    keys = [row[0] for row in listed]
    repeated = {key for key in keys if keys.count(key) > 1}
    if repeated:
        assert "more than once" in found.refusals[0].message
        assert set(found.refusals[0].hashes) == {int(hash_key(pa.array([k]))[0]) for k in repeated}
    else:
        assert found.refusals == []


def test_blank_keys_are_refused_with_their_count():
    found, _ = scan([batch([(None, "x", "y"), ("  ", "x", "y"), ("k", "x", "y")])], MemorySnapshot({}))
    assert [each.message for each in found.refusals] == ["2 rows have no key (id is null or blank)"]


def test_match_values_are_folded_before_they_are_compared():
    column = text_column("a", unique=True)
    mapping = Mapping(("id",), column, (text_column("b"),))
    found, _ = scan([batch([("1", "abc", "x"), ("2", "ABC ", "y"), ("3", "z", "y")])], MemorySnapshot({}), mapping)
    assert "1 value of a occurs more than once" in found.refusals[0].message
    sensitive = Mapping(("id",), text_column("a", unique=True, case_sensitive=True), (text_column("b"),))
    found, _ = scan([batch([("1", "abc", "x"), ("2", "ABC", "y")])], MemorySnapshot({}), sensitive)
    assert found.refusals == []


def test_invalid_rows_are_set_aside_and_still_count_as_present():
    mapping = Mapping(("id",), None, (text_column("a", length=2), text_column("b")))
    snapshot = MemorySnapshot({"k": (check_hash(mapping, ("k", "x", "y")), "id-k", 0)})
    found, kinds = scan([batch([("k", "too long", "y"), ("n", "ok", "y")])], snapshot, mapping)
    assert kinds == {"n": Kind.ADDED}
    assert found.aside["why"].to_pylist() == [Aside.INVALID]
    assert found.aside["column"].to_pylist() == ["A__c"]
    assert len(found.left) == 0


def test_a_pending_row_waits_until_it_is_due_or_changes():
    ck = check_hash(PLAIN, ("k", "x", "y"))
    kh = key_hash(pa.array(["k"]))
    code, described = pa.array(["REQUIRED_FIELD_MISSING"]), pa.array(["d"])
    waiting = Pending(kh, np.array([ck], np.uint64), np.array([False]), code, described)
    found, kinds = scan([batch([("k", "x", "y")])], MemorySnapshot({}), pending=waiting)
    assert kinds == {}
    assert found.aside["why"].to_pylist() == [Aside.HELD]
    assert found.aside["code"].to_pylist() == ["REQUIRED_FIELD_MISSING"]
    _, kinds = scan([batch([("k", "x", "z")])], MemorySnapshot({}), pending=waiting)
    assert kinds == {"k": Kind.ADDED}
    due = Pending(kh, waiting.ck, np.array([True]), waiting.codes, waiting.described)
    _, kinds = scan([batch([("k", "x", "y")])], MemorySnapshot({}), pending=due)
    assert kinds == {"k": Kind.ADDED}


OLD = Mapping(("id",), None, (text_column("a"),))


def remap_snapshot(flags=0):
    return MemorySnapshot({k: (check_hash(OLD, (k, "x")), f"id-{k}", flags) for k in "kl"})


def test_a_new_column_remaps_rows_that_are_otherwise_the_same():
    listed = [batch([("k", "x", "new"), ("l", "changed", "new")])]
    found, kinds = scan(listed, remap_snapshot(), older=[from_header(OLD.header())])
    assert kinds == {"k": Kind.REMAPPED, "l": Kind.CHANGED}
    assert found.older.tolist() == [0, -1]
    assert PLAIN.added_since(OLD) == (frozenset({"B__c"}), frozenset())


def test_an_insert_sends_nothing_for_remapped_rows_but_moves_their_baseline():
    listed = [batch([("k", "x", "new"), ("l", "changed", "new")])]
    found, kinds = scan(listed, remap_snapshot(), older=[OLD], inserting=True)
    assert kinds == {"k": Kind.DROPPED, "l": Kind.CHANGED}
    assert found.baseline.ck.tolist() == [check_hash(PLAIN, ("k", "x", "new"))]
    assert found.unchanged == 1


def test_a_dropped_column_is_only_a_new_baseline():
    snapshot = MemorySnapshot({"k": (check_hash(PLAIN, ("k", "x", "y")), "id-k", 0)})
    found, kinds = scan([batch([("k", "x", "y")])], snapshot, OLD, older=[PLAIN])
    assert kinds == {"k": Kind.DROPPED}
    assert found.baseline.ck.tolist() == [check_hash(OLD, ("k", "x"))]
    assert found.unchanged == 1


def test_a_new_constant_remaps_every_row():
    constant = Constant("Source__c", Field("Source__c", "Source", "string"), pa.array(["dbt"]))
    mapping = Mapping(("id",), None, OLD.columns, (constant,))
    assert mapping.digest != OLD.digest
    assert from_header(mapping.header()).digest == mapping.digest
    _, kinds = scan([batch([("k", "x", ""), ("l", "x", "")])], remap_snapshot(), mapping, older=[OLD])
    assert kinds == {"k": Kind.REMAPPED, "l": Kind.REMAPPED}


def test_an_insert_never_repeats_a_key_that_left_and_returned():
    same = MemorySnapshot({"k": (check_hash(PLAIN, ("k", "x", "y")), "id-k", int(Flag.LEFT))})
    found, kinds = scan([batch([("k", "x", "y")])], same, inserting=True)
    assert kinds == {}
    assert found.baseline.positions.tolist() == [0]
    assert found.unchanged == 1
    _, kinds = scan([batch([("k", "x", "other")])], same, inserting=True)
    assert kinds == {"k": Kind.CHANGED}
    stale = MemorySnapshot({"k": (1, "id-k", int(Flag.LEFT | Flag.STALE))})
    _, kinds = scan([batch([("k", "x", "other")])], stale, inserting=True)
    assert kinds == {"k": Kind.DROPPED}


def test_an_insert_may_ignore_changes():
    snapshot = MemorySnapshot({"k": (1, "id-k", 0)})
    found, kinds = scan([batch([("k", "x", "other")])], snapshot, inserting=True, ignore_changes=True)
    assert kinds == {"k": Kind.DROPPED}
    assert found.baseline.ck.tolist() == [check_hash(PLAIN, ("k", "x", "other"))]


def test_full_sends_unchanged_rows_again():
    snapshot = MemorySnapshot({"k": (check_hash(PLAIN, ("k", "x", "y")), "id-k", 0)})
    found, kinds = scan([batch([("k", "x", "y"), ("n", "x", "y")])], snapshot, resend=True)
    assert kinds == {"k": Kind.SAME, "n": Kind.ADDED}
    assert found.unchanged == 0


@pytest.mark.parametrize("value", ["x", "changed", "older"])
def test_a_row_whose_check_hash_says_nothing_is_sent_again_and_counts_as_no_change(value):
    mapping, listed = (PLAIN, ("k", value, "y")), [batch([("k", value, "y")])]
    ck = check_hash(OLD, ("k", "older")) if value == "older" else check_hash(PLAIN, ("k", "x", "y"))
    snapshot = MemorySnapshot({"k": (ck, "id-k", Flag.STALE | Flag.CREATED)})
    found, kinds = scan(listed, snapshot, mapping[0], older=[OLD])
    assert kinds == {"k": Kind.SAME}
    assert (found.unchanged, found.count(Kind.CHANGED), found.count(Kind.REMAPPED), found.position.tolist()) == (
        0,
        0,
        0,
        [0],
    )
    found, kinds = scan(listed, snapshot, mapping[0], older=[OLD], inserting=True)
    assert set(kinds.values()) <= {Kind.DROPPED}
    assert found.unchanged == 1, "an insert never repeats it"


def test_a_row_that_is_sent_again_waits_like_others_and_comes_back_from_having_left():
    ck = check_hash(PLAIN, ("k", "x", "y"))
    kh = key_hash(pa.array(["k"]))
    waiting = Pending(kh, np.array([ck], np.uint64), np.array([False]), pa.array(["DELETE_FAILED"]), pa.array([""]))
    listed = [batch([("k", "x", "y")])]
    found, kinds = scan(listed, MemorySnapshot({"k": (ck, "id-k", Flag.STALE)}), pending=waiting)
    assert (kinds, found.unchanged, found.refusals) == ({}, 0, [])
    assert found.aside["code"].to_pylist() == ["DELETE_FAILED"]
    _, kinds = scan(listed, MemorySnapshot({"k": (ck, "id-k", Flag.STALE | Flag.LEFT)}))
    assert kinds == {"k": Kind.RETURNED}


def test_text_equal_to_bulks_null_is_marked():
    found, _ = scan([batch([("k", "#N/A", "y"), ("l", "x", None)])], MemorySnapshot({}))
    assert found.no_bulk.tolist() == [Reason.BULK_NULL_TEXT, 0]


def test_a_value_that_can_t_be_read_leaves_its_row_out():
    """It is null in its column and marked beside it: never a null that would empty the field."""
    rows = batch([("k1", "x", "y"), ("k2", None, "y"), ("k3", None, "y")])
    marked = rows.append_column(unreadable_mark("a"), pa.array([False, True, False]))
    found, kinds = scan([marked, rows.slice(0, 0)], MemorySnapshot({}))
    assert kinds == {"k1": Kind.ADDED, "k3": Kind.ADDED}
    assert found.aside.select(["key", "why", "reason", "column"]).to_pylist() == [
        {"key": "k2", "why": Aside.INVALID, "reason": Reason.UNREADABLE, "column": "A__c"}
    ]


def test_a_key_that_can_t_be_read_is_none():
    marked = batch([(None, "x", "y")]).append_column(unreadable_mark("id"), pa.array([True]))
    found, _ = scan([marked], MemorySnapshot({}))
    assert [each.message for each in found.refusals] == ["1 row has no key (id is null or blank)"]


TWINS = [
    ([2**53, 2**53 + 1], pa.int64(), "double"),
    ([123456789012345678, 123456789012345679], pa.int64(), "double"),
    ([9007199254740990, 9007199254740991], pa.int64(), "double"),
    (["0.1", "0.10000000000000001"], pa.decimal128(38, 18), "double"),
    ([1_700_000_000_100, 1_700_000_000_900], pa.timestamp("ms", "UTC"), "datetime"),
]


@pytest.mark.parametrize(("values_of_two", "kind", "field_type"), TWINS)
def test_two_match_values_that_salesforce_keeps_as_one_are_refused(values_of_two, kind, field_type):
    """A number field is a double there, and we tell 15 digits of it apart."""
    match = MappedColumn("m", "M__c", Field("M__c", "M", field_type))
    mapping = Mapping(("id",), match, (text_column("a"),))
    column = pa.array([Decimal(each) if isinstance(each, str) else each for each in values_of_two], kind)
    rows = pa.RecordBatch.from_arrays([pa.array(["1", "2"]), column, pa.array(["x", "y"])], ["id", "m", "a"])
    for batches in ([rows], [rows.slice(0, 1), rows.slice(1)]):
        found, _ = scan(batches, MemorySnapshot({}), mapping)
        (refusal,) = found.refusals
        assert refusal.message.startswith("1 value of m occurs more than once, as Salesforce compares M__c")
    found, _ = scan([rows.slice(0, 1)], MemorySnapshot({}), mapping)
    assert found.refusals == []


@pytest.mark.parametrize("key", [pa.array([1, 1, 2], pa.timestamp("ns")), pa.array(["a", "a", "b"])])
def test_keys_that_python_has_no_type_for_are_shown_as_text(key):
    rows, problem = pa.record_batch([key], ["id"]), KeyProblem("twice", ("id",))
    texts = key_text([key])
    problem = dataclasses.replace(problem, hashes=key_hash(texts)[:1])
    (found,) = examples.examples([rows], PLAIN, [problem])
    assert found.values == {texts[0].as_py(): 2 + (texts[0] == texts[2])}
    assert found.rows.keys() >= {(str(key.cast(pa.utf8())[0]),)}


def test_a_match_value_that_can_not_be_sent_is_not_shown_as_none():
    match = text_column("m", length=3)
    mapping = dataclasses.replace(PLAIN, match=match)
    rows = pa.record_batch([pa.array([None, "long one", " "])], ["m"])
    problem = KeyProblem("none", ("m",), is_match=True)
    (found,) = examples.examples([rows], mapping, [problem])
    assert (found.values, list(found.rows)) == ({None: 2}, [(None,), (" ",)])
