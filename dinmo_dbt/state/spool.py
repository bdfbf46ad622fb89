"""Rows on disk: those a scan found, until the plan has taken them, and those of a batch, until it is settled."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from dinmo_dbt.codes import SPOOL_DAMAGED
from dinmo_dbt.destination import Api, Batch, Field, Operation, PayloadColumn
from dinmo_dbt.errors import StateError, unwritable
from dinmo_dbt.rows.snapshot import Positions
from dinmo_dbt.state.files import stored

# By the thread that has them: rows of a few columns are packed sooner than they are handed round.
_WRITE = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_READ = pa.ipc.IpcReadOptions(use_threads=False)


class ScanSpool:
    """The changed rows of one scan, in one Arrow IPC file that has no name: it goes with the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._file = (
                os.open(folder, os.O_RDWR | os.O_TMPFILE, 0o600) if hasattr(os, "O_TMPFILE") else _unlinked(folder)
            )
        except OSError:
            self._file = _unlinked(folder)
        self._sink: pa.NativeFile | None = None
        self._writer: pa.ipc.RecordBatchFileWriter | None = None
        self._source: pa.PythonFile | None = None
        self._reader: pa.ipc.RecordBatchFileReader | None = None
        self._ends: list[int] = []

    def write(self, rows: pa.RecordBatch) -> None:
        assert self._reader is None, "a spool is written first and read afterwards"
        with self._writing():
            if self._writer is None:
                self._sink = pa.PythonFile(os.fdopen(os.dup(self._file), "wb"), mode="w")
                self._writer = pa.ipc.new_file(self._sink, rows.schema, options=_WRITE)
            self._writer.write_batch(rows)
        self._ends.append((self._ends[-1] if self._ends else 0) + rows.num_rows)

    def take(self, rows: Positions, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of these numbers, ascending and without repeats, in one table."""
        reader = self._open()
        ends = np.array(self._ends)
        starts = ends - np.diff(ends, prepend=0)
        first, last = np.searchsorted(rows, starts), np.searchsorted(rows, ends)
        parts = []
        for number in np.flatnonzero(last > first):
            batch = reader.get_batch(int(number))
            if columns is not None:
                batch = batch.select(list(columns))
            wanted = rows[first[number] : last[number]] - starts[number]
            parts.append(batch if len(wanted) == batch.num_rows else batch.take(pa.array(wanted)))
        schema = reader.schema if columns is None else pa.schema([reader.schema.field(name) for name in columns])
        return pa.Table.from_batches(parts, schema).combine_chunks()

    def close(self) -> None:
        for file in (self._sink, self._source):
            if file is not None:
                with suppress(OSError):  # a full disk was reported when it was written to; the file goes anyway
                    file.close()
        os.close(self._file)

    def _finish(self) -> None:
        if self._writer is not None and self._sink is not None:
            with self._writing():
                self._writer.close()
                self._sink.close()
            self._writer = None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unwritable(self._folder, error) from error

    def _open(self) -> pa.ipc.RecordBatchFileReader:
        if self._reader is None:
            self._finish()
            self._source = pa.PythonFile(os.fdopen(os.dup(self._file), "rb"), mode="r")
            self._source.seek(0)
            self._reader = pa.ipc.open_file(self._source, options=_READ)
        return self._reader


def _unlinked(folder: Path) -> int:
    path = folder / f".scan-{os.getpid()}-{os.urandom(4).hex()}.arrow"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    path.unlink()
    return descriptor


def batch_writer(batch: Batch) -> Callable[[pa.NativeFile], None]:
    """What writes a batch's rows into a sink."""

    def write(sink: pa.NativeFile) -> None:
        with pa.ipc.new_file(sink, batch.rows.schema, options=_WRITE) as writer:
            writer.write_table(batch.rows)

    return write


def read_batch(path: Path, digest: str, described: dict[str, Any]) -> Batch:
    """The batch as it was spooled. StateError if the file is gone or not the one that was written."""
    try:
        whole = stored(path).sha256 == digest
        with pa.OSFile(str(path)) as source:
            rows = pa.ipc.open_file(source, options=_READ).read_all() if whole else None
    except OSError:
        rows = None
    if rows is None:
        raise StateError(
            SPOOL_DAMAGED,
            "the rows of an unfinished batch are missing or damaged, so what became of them can't be known",
            where=str(path),
            hint="restore the state folder from a copy, or start again: dinmo-dbt state reset",
        )
    return Batch(
        id=described["id"],
        operation=Operation(described["operation"]),
        object=described["object"],
        api=Api(described["api"]),
        columns=tuple(PayloadColumn(c["header"], _field(c["field"]), c["keep_nulls"]) for c in described["columns"]),
        match=described["match"],
        rows=rows,
        reverts=described.get("reverts", False),
        leavers=described.get("leavers", False),
    )


def describe_batch(batch: Batch) -> dict[str, Any]:
    """Everything of a batch but its rows, as JSON values."""
    return {
        "id": batch.id,
        "operation": batch.operation.value,
        "object": batch.object,
        "api": batch.api.value,
        "columns": [dataclasses.asdict(column) for column in batch.columns],
        "match": batch.match,
        "reverts": batch.reverts,
        "leavers": batch.leavers,
    }


def _field(stored: dict[str, Any]) -> Field:
    lists = {name: tuple(stored[name]) for name in ("picklist", "reference_to")}
    known = {f.name for f in dataclasses.fields(Field)}
    return Field(**{name: value for name, value in {**stored, **lists}.items() if name in known})
