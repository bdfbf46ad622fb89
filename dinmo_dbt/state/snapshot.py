"""A snapshot on disk: one base file sorted by key hash, and deltas that apply to it in serial order, in sorted runs.

Columns of both: kh (uint64), ck (16 bytes), key, record_id (utf8), flags (uint8); a delta has `op` (put | leave |
forget) too. A put or a leave stands for the whole row; a forget takes the row away.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dinmo_dbt.codes import SNAPSHOT_DAMAGED
from dinmo_dbt.durable import open_file
from dinmo_dbt.errors import StateError
from dinmo_dbt.rows.rowhash import DIGEST, Digests, Hashes, as_arrow, from_arrow
from dinmo_dbt.rows.sets import without
from dinmo_dbt.rows.snapshot import Positions
from dinmo_dbt.state.damage import other_format
from dinmo_dbt.state.files import write_whole

FORMAT = 2
ROW_GROUP_ROWS = 131_072
AT_ONCE_ROWS = 4 * ROW_GROUP_ROWS  # whose texts are in memory while a base is made
BASE = pa.schema(
    [
        pa.field("kh", pa.uint64()),
        pa.field("ck", DIGEST),
        pa.field("key", pa.utf8()),
        pa.field("record_id", pa.utf8()),
        pa.field("flags", pa.uint8()),
    ],
    metadata={"dinmo_dbt.format": str(FORMAT)},
)
DELTA = BASE.append(pa.field("op", pa.utf8()))
START_AGAIN = "start again: dinmo-dbt state reset"
_FORGET = "forget"
_NUMBERS = ["kh", "ck", "flags"]


class FileSnapshot:
    """The merged view of a base and its deltas; keys and record ids stay on disk until they are asked for."""

    kh: Hashes
    ck: Digests
    flags: npt.NDArray[np.uint8]

    def __init__(self, folder: Path, files: Sequence[str], ways_out: str = START_AGAIN) -> None:
        self._folder, self._names, self._ways_out = folder, list(files), ways_out
        self._files = [_open(folder / name, ways_out) for name in files]
        self._starts = np.cumsum([0, *(file.metadata.num_rows for file in self._files)])
        base = [number for number, name in enumerate(files) if name.startswith("base-")]
        assert base in ([], [0]), files
        self._merge(bool(base))

    def keys(self, positions: Positions) -> pa.Array:
        return self._gather("key", positions)

    def record_ids(self, positions: Positions) -> pa.Array:
        return self._gather("record_id", positions)

    def tables(self) -> Iterator[pa.Table]:
        """Every row, sorted by key hash, some at a time and at least one table: what a new base file holds."""
        for start in range(0, max(1, len(self.kh)), AT_ONCE_ROWS):
            part = slice(start, start + AT_ONCE_ROWS)
            positions = np.arange(start, start + len(self.kh[part]))
            columns = [pa.array(self.kh[part]), as_arrow(self.ck[part]), self.keys(positions)]
            columns += [self.record_ids(positions), pa.array(self.flags[part])]
            yield pa.table(columns, schema=BASE)

    def _merge(self, has_base: bool) -> None:
        kh, ck, flags, forgotten = self._numbers()
        base_rows = int(self._starts[1]) if has_base else 0
        self._source: Positions | None = None  # of each row, its number over all files; None: its own place
        if len(self._files) > int(has_base):
            self._source = self._stands(kh, base_rows, forgotten)
            kh = kh[self._source]
            ck = ck[self._source]
            flags = flags[self._source]
        self.kh, self.ck, self.flags = kh, ck, flags

    def _numbers(self) -> tuple[Hashes, Digests, npt.NDArray[np.uint8], Positions]:
        """Of the rows of all files, and which rows forget. By row groups, so that nothing is in memory twice."""
        rows = int(self._starts[-1])
        kh, ck, flags = np.empty(rows, np.uint64), np.empty((rows, 2), np.uint64), np.empty(rows, np.uint8)
        forgotten, start = [np.empty(0, np.int64)], 0
        for number, file in enumerate(self._files):
            names = _NUMBERS if file.schema_arrow.equals(BASE) else [*_NUMBERS, "op"]
            for group in range(file.metadata.num_row_groups):
                read = self._columns(number, names, group).combine_chunks()
                if not read.num_rows:
                    continue
                end = start + read.num_rows
                kh[start:end] = read["kh"].chunk(0)
                ck[start:end] = from_arrow(read["ck"])
                flags[start:end] = read["flags"].chunk(0)
                if "op" in names:
                    forgets = pc.equal(read["op"].chunk(0), _FORGET).to_numpy(zero_copy_only=False)
                    forgotten.append(start + np.flatnonzero(forgets))
                start = end
        return kh, ck, flags, np.concatenate(forgotten)

    def _stands(self, kh: Hashes, base_rows: int, forgotten: Positions) -> Positions:
        """The rows that stand, sorted by key hash: those of the base that no delta speaks of, and of a key's rows in
        the deltas the last, unless it forgets the key."""
        last = self._last_words(kh, base_rows)
        in_base = np.ones(base_rows, np.bool_)
        in_base[self._superseded(kh, base_rows, last)] = False
        base = np.flatnonzero(in_base)
        of_deltas = without(last, forgotten)
        of_deltas = of_deltas[np.argsort(kh[of_deltas], kind="stable")]
        return np.insert(base, np.searchsorted(kh[base], kh[of_deltas], "right"), of_deltas)

    def _last_words(self, kh: Hashes, base_rows: int) -> Positions:
        """Of the delta rows, the last for each key."""
        rows: Positions = np.arange(base_rows, len(kh))
        if not rows.size:
            return rows
        keys = self._read("key", rows)
        table = pa.table({"kh": kh[rows], "key": keys, "row": rows})
        ordered = table.sort_by([("kh", "ascending"), ("key", "ascending"), ("row", "ascending")])
        hashes, texts = ordered["kh"].to_numpy(), ordered["key"].combine_chunks()
        same = (hashes[1:] == hashes[:-1]) & pc.equal(texts[1:], texts[:-1]).to_numpy(zero_copy_only=False)
        final: Positions = ordered["row"].to_numpy()[np.append(~same, True)]
        return final

    def _superseded(self, kh: Hashes, base_rows: int, last: Positions) -> Positions:
        """Base rows whose key a delta speaks of: found by key hash, decided by the key."""
        base = kh[:base_rows]
        first, end = np.searchsorted(base, kh[last], "left"), np.searchsorted(base, kh[last], "right")
        counts = end - first
        rows = np.repeat(last, counts)
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        candidates = np.repeat(first, counts) + offsets
        if not rows.size:
            return rows
        same = pc.equal(self._read("key", candidates), self._read("key", rows)).to_numpy(zero_copy_only=False)
        found: Positions = candidates[same]
        return found

    def _gather(self, column: str, positions: Positions) -> pa.Array:
        return self._read(column, positions if self._source is None else self._source[positions])

    def _read(self, column: str, rows: Positions) -> pa.Array:
        """Values by row number over all files; each row group with wanted rows is read once."""
        if not len(rows):
            return pa.array([], pa.utf8())
        order = np.argsort(rows, kind="stable")
        wanted = rows[order]
        parts = []
        for number, file in enumerate(self._files):
            start = int(self._starts[number])
            for group in range(file.metadata.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                low, high = np.searchsorted(wanted, (start, end))
                if high > low:
                    values = self._columns(number, [column], group)[column].combine_chunks()
                    parts.append(values.take(pa.array(wanted[low:high] - start)))
                start = end
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return pa.concat_arrays(parts).take(pa.array(back))

    def _columns(self, number: int, names: list[str], group: int | None = None) -> pa.Table:
        """Columns of one file, or of one row group of it; every page's checksum is verified."""
        file = self._files[number]
        try:
            # To share out one column, or to one core, costs more than the read.
            threads = len(names) > 1 and pa.cpu_count() > 1
            if group is None:
                return file.read(columns=names, use_threads=threads)
            return file.read_row_group(group, columns=names, use_threads=threads)
        except (OSError, pa.ArrowException) as error:
            raise damaged(self._folder / self._names[number], self._ways_out) from error


def in_runs(rows: pa.Table) -> Iterator[pa.Table]:
    """The rows of a delta so that a range of key hashes is in few of its row groups; of a key's rows the last stays
    last. Never all at once: texts of more than 2 GiB are no array."""
    for start in range(0, len(rows), AT_ONCE_ROWS):
        run = rows.slice(start, AT_ONCE_ROWS).combine_chunks()
        yield run.take(pa.array(np.argsort(run["kh"].to_numpy(), kind="stable")))


def write_rows(path: Path, rows: pa.Table, schema: pa.Schema) -> None:
    """One base or delta file, whole and synced."""
    write_whole(path, writer([rows], schema))


def writer(tables: Iterable[pa.Table], schema: pa.Schema) -> Callable[[pa.NativeFile], None]:
    """What writes one base or delta file into a sink. It takes the tables as they come."""
    is_base = "op" not in schema.names

    def write(sink: pa.NativeFile) -> None:
        with pq.ParquetWriter(
            sink,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=False if is_base else ["op"],
            column_encoding={"kh": "DELTA_BINARY_PACKED" if is_base else "PLAIN"},
            write_statistics=False,
            write_page_checksum=True,
        ) as file:
            for rows in tables:
                file.write_table(rows.select(schema.names).cast(schema), row_group_size=ROW_GROUP_ROWS)

    return write


def _open(path: Path, ways_out: str) -> pq.ParquetFile:
    try:
        os.close(open_file(path))  # Arrow would wait for a fifo
        # From a disk, to fetch pages ahead is no quicker, and takes a thread for each read.
        file = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, ways_out) from error
    written = (file.schema_arrow.metadata or {}).get(b"dinmo_dbt.format", b"")
    if not written.isdigit():
        raise damaged(path, ways_out)
    if int(written) != FORMAT:
        raise other_format("the snapshot", int(written), FORMAT, str(path), ways_out)
    expected = BASE if path.name.startswith("base-") else DELTA
    if not file.schema_arrow.equals(expected):
        raise damaged(path, ways_out)
    return file


def damaged(path: Path, ways_out: str) -> StateError:
    """DB513, with commands after which it can go on."""
    return StateError(
        SNAPSHOT_DAMAGED,
        "a snapshot file is missing or damaged; it is left as it is",
        where=str(path),
        hint=f"restore the state from a copy, or {ways_out}",
    )
