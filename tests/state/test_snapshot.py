"""Snapshot files against a dictionary, and what becomes of a file that was cut, bent or written by somebody else."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dinmo_dbt.errors import StateError
from dinmo_dbt.rows.key_hashes import key_hash
from dinmo_dbt.rows.rowhash import DIGEST
from dinmo_dbt.state import snapshot
from dinmo_dbt.state.files import write_whole
from dinmo_dbt.state.snapshot import BASE, DELTA, FileSnapshot, in_runs, write_rows, writer


def eight_bits(keys):
    return key_hash(keys) & np.uint64(0xFF)


def two_values(keys):
    return key_hash(keys) & np.uint64(1)


def table(rows, hash_key, op=None):
    """Rows (key, ck, record id, flags) or, of a delta, (key, ck, record id, flags, op); ck as a number."""
    rows = [(row[0], row[1].to_bytes(16, "little"), *row[2:]) for row in rows]
    keys = pa.array([row[0] for row in rows], pa.utf8())
    columns = [
        pa.array(hash_key(keys)) if rows else pa.array([], pa.uint64()),
        *(
            pa.array([row[n] for row in rows], kind)
            for n, kind in ((1, DIGEST), (0, pa.utf8()), (2, pa.utf8()), (3, pa.uint8()))
        ),
    ]
    made = pa.table(columns, schema=BASE)
    if op is None:
        return made.sort_by("kh")
    return made.append_column("op", pa.array([row[4] for row in rows], pa.utf8()))


def as_dictionary(found):
    rows = pa.concat_tables(found.tables()).to_pylist()
    assert len({row["key"] for row in rows}) == len(rows)
    assert found.kh.tolist() == sorted(found.kh.tolist())
    return {row["key"]: (int.from_bytes(row["ck"], "little"), row["record_id"], row["flags"]) for row in rows}


keys = st.text("abcdef", min_size=1, max_size=2)
words = st.tuples(st.integers(0, 2**128 - 1), st.sampled_from([None, "r1", "r2"]), st.integers(0, 31))
bases = st.dictionaries(keys, words, max_size=20)
deltas = st.lists(
    st.lists(st.tuples(keys, words, st.sampled_from(["put", "leave", "forget"])), max_size=12), max_size=5
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(base=bases, deltas=deltas, compacted=st.integers(0, 5), asked=st.lists(st.integers(0, 1000), max_size=8))
@pytest.mark.parametrize("hash_key", [key_hash, eight_bits, two_values])
def test_base_and_deltas_are_what_a_dictionary_says(tmp_path_factory, hash_key, base, deltas, compacted, asked):
    folder = tmp_path_factory.mktemp("snapshot")
    expected, files = dict(base), []
    if base:
        files.append("base-1.parquet")
        write_rows(folder / files[0], table([(k, *w) for k, w in base.items()], hash_key), BASE)
    for number, delta in enumerate(deltas):
        rows = list({key: (key, *word, op) for key, word, op in delta}.values())
        files.append(f"delta-{number}.parquet")
        write_rows(folder / files[-1], table(rows, hash_key, "op"), DELTA)
        for key, *word, op in rows:
            if op == "forget":
                expected.pop(key, None)
            else:
                expected[key] = tuple(word)
        if number + 1 == compacted:
            whole = FileSnapshot(folder, files)
            files = [f"base-c{number}.parquet"]
            write_rows(folder / files[0], pa.concat_tables(whole.tables()), BASE)
    found = FileSnapshot(folder, files)
    assert as_dictionary(found) == expected
    if expected:
        positions = np.array([number % len(expected) for number in asked], np.int64)
        whole = pa.concat_tables(found.tables())
        for name, got in (("key", found.keys(positions)), ("record_id", found.record_ids(positions))):
            assert got.to_pylist() == whole[name].take(pa.array(positions)).to_pylist(), "in the order asked"


def test_many_row_groups_are_read_in_the_order_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "ROW_GROUP_ROWS", 7)
    monkeypatch.setattr(snapshot, "AT_ONCE_ROWS", 9)
    rows = [(f"k{n}", n, f"r{n}", 0) for n in range(100)]
    write_rows(tmp_path / "base-1.parquet", table(rows, key_hash), BASE)
    write_rows(
        tmp_path / "delta-2.parquet",
        table([(f"k{n}", 7, "new", 4, "leave") for n in range(50, 90)], key_hash, 1),
        DELTA,
    )
    found = FileSnapshot(tmp_path, ["base-1.parquet", "delta-2.parquet"])
    order = np.random.default_rng(1).permutation(100)
    by_key = dict(zip(found.keys(order).to_pylist(), found.record_ids(order).to_pylist(), strict=True))
    assert by_key == {f"k{n}": "new" if 50 <= n < 90 else f"r{n}" for n in range(100)}
    assert len(found.keys(np.empty(0, np.int64))) == 0
    parts = list(found.tables())
    assert [len(part) for part in parts] == [9] * 11 + [1]
    write_whole(tmp_path / "base-3.parquet", writer(found.tables(), BASE))
    assert FileSnapshot(tmp_path, ["base-3.parquet"]).kh.tolist() == found.kh.tolist()
    assert as_dictionary(FileSnapshot(tmp_path, ["base-3.parquet"])) == as_dictionary(found)


@pytest.fixture
def files(tmp_path):
    write_rows(tmp_path / "base-1.parquet", table([(f"k{n}", n, f"r{n}", 0) for n in range(3000)], key_hash), BASE)
    write_rows(tmp_path / "delta-2.parquet", table([("k1", 7, "new", 4, "leave")], key_hash, 1), DELTA)
    return tmp_path


def read_all(folder):
    return as_dictionary(FileSnapshot(folder, ["base-1.parquet", "delta-2.parquet"]))


def test_a_file_that_is_cut_bent_or_gone_is_refused_and_left_alone(files):
    whole, path = read_all(files), files / "base-1.parquet"
    content = path.read_bytes()
    random = np.random.default_rng(3)
    damaged = [content[:at] for at in (0, 1, 4, 100, len(content) // 2, len(content) - 1)]
    for at in random.integers(0, len(content), 150):
        bent = bytearray(content)
        bent[at] ^= 1 << int(random.integers(8))
        damaged.append(bytes(bent))
    refused = 0
    for bad in damaged:
        path.write_bytes(bad)
        try:
            assert read_all(files) == whole, "what is read is what was written"
        except StateError as error:
            assert error.problems[0].code in ("DB513", "DB514")
            assert error.problems[0].where == str(path)
            refused += 1
        assert path.read_bytes() == bad
    assert refused > len(damaged) * 0.9
    path.unlink()
    with pytest.raises(StateError, match=r"DB513.*missing or damaged"):
        read_all(files)


def test_a_foreign_file_or_one_of_another_format_is_refused(files):
    path = files / "base-1.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(StateError, match="DB513"):
        read_all(files)
    for other, way_out in (("1", "state reset"), ("3", "newer dinmo-dbt")):
        written = BASE.with_metadata({"dinmo_dbt.format": other})
        pq.write_table(BASE.empty_table().cast(written), path)
        with pytest.raises(StateError, match=rf"DB514.*format {other}; this version reads 2\n(.|\n)*{way_out}"):
            read_all(files)


def test_the_rows_of_a_delta_are_written_in_sorted_runs_and_the_last_word_of_a_key_stays_last(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "AT_ONCE_ROWS", 5)
    said = [(f"k{n % 4}", n, f"r{n}", 0, "forget" if n == 10 else "put") for n in range(12)]
    rows = table(said, key_hash, "op")
    runs = list(in_runs(rows))
    assert [len(run) for run in runs] == [5, 5, 2]
    assert all(run["kh"].to_pylist() == sorted(run["kh"].to_pylist()) for run in runs)
    write_whole(tmp_path / "delta-1.parquet", writer(runs, DELTA))
    found = as_dictionary(FileSnapshot(tmp_path, ["delta-1.parquet"]))
    assert found == {"k0": (8, "r8", 0), "k1": (9, "r9", 0), "k3": (11, "r11", 0)}
