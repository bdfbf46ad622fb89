"""Which row became what: Bulk API 2.0 result files joined to the batch by content, never by position. Pure.

The files come in no order, with the sent columns echoed and numbers rewritten, so rows are joined on columns in
`values.echo_form`: an upsert on its external id, update and delete on the record id, an insert on the multiset of
every echoed column. Rows that look alike to Salesforce form a group; within it fates can be told apart only if all
payloads are equal (then the rows are interchangeable) or all fates are. Everything is numpy and Arrow over whole
columns; no Python runs per row, except to unescape HTML in error texts.
"""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from dinmo_dbt.destination import RESULTS, Batch, Fate, Field, Operation, PayloadColumn
from dinmo_dbt.rows import rowhash, values
from dinmo_dbt.salesforce.errors import GONE

SLOTS = 8

RECORD_ID = "sf__Id"
UNPROCESSED = "UNPROCESSED"
MISSING = "NO_RESULT"
INDISTINGUISHABLE = "INDISTINGUISHABLE"

# A row is read only if it lies in one block or two; a record has at most 400,000 characters.
_BLOCK_BYTES = 4 << 20
_MORE_COLUMNS_MAX = 16  # what Salesforce may add to those of today
_HEADER_BYTES_MAX = 1 << 20

_SUCCEEDED, _FAILED, _UNPROCESSED = range(3)

# CODE:message:FIELD --   or   CODE:message:--   The message may hold colons and newlines, so fields are what stands
# between the last colon and the dashes (Bulk API 2.0 guide, "Get Job Failed Record Results").
_ERROR = r"(?s)^\s*(?P<code>[A-Za-z][A-Za-z0-9_]*):(?P<message>.*):(?P<fields>[A-Za-z0-9_., ;\[\]]*?) *--\s*$"

Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ResultFiles:
    """A job's three result files, all columns utf8."""

    succeeded: pa.Table
    failed: pa.Table
    unprocessed: pa.Table

    @property
    def rows(self) -> int:
        return sum(int(table.num_rows) for table in (self.succeeded, self.failed, self.unprocessed))


class UnreadableFile(ValueError):
    """A result file that is not whole CSV."""


def read_file(file: BinaryIO, *, rows_max: int, names: Collection[str], sent: int = 0) -> pa.Table:
    """One file as utf8 columns, those of `names` that it has; an empty body has no columns. UnreadableFile as in
    `read_pieces`."""
    return pa.concat_tables(read_pieces(file, rows_max=rows_max, names=names, sent=sent))


def read_pieces(file: BinaryIO, *, rows_max: int, names: Collection[str], sent: int = 0) -> Iterator[pa.Table]:
    """One file in pieces that take little memory, at least one. UnreadableFile if it is no whole CSV, has more rows
    than `rows_max`, or far more columns than `names`, or than were `sent` and come back beside what is read."""
    file.seek(0)
    first = file.readline(_HEADER_BYTES_MAX)
    if not first.strip():
        yield pa.table({})
        return
    try:
        header = next(csv.reader(io.StringIO(first.decode("utf-8-sig"), newline="")), [])
        if len(set(header)) != len(header):
            raise UnreadableFile("a column name occurs twice")
        if len(header) > len(names) + sent + _MORE_COLUMNS_MAX:
            raise UnreadableFile("more columns than were sent or asked for")
        known = [name for name in header if name in names] or header[:1]  # one, for the count of its rows
        yield pa.table({name: pa.array([], pa.utf8()) for name in known})
        if not file.read(1):
            return
        file.seek(-1, io.SEEK_END)
        if file.read(1) not in (b"\n", b"\r"):
            raise UnreadableFile("the last line does not end")
        file.seek(len(first))
        rows = 0
        for piece in _csv_pieces(file, header, known):
            rows += piece.num_rows
            if rows > rows_max:
                raise UnreadableFile("more rows than were sent or asked for")
            yield pa.Table.from_batches([piece])
    except (pa.ArrowInvalid, UnicodeDecodeError, csv.Error) as fault:
        raise UnreadableFile(type(fault).__name__) from None


def _csv_pieces(file: BinaryIO, header: Sequence[str], known: Sequence[str]) -> Iterator[pa.RecordBatch]:
    options = pacsv.ConvertOptions(
        column_types=dict.fromkeys(known, pa.utf8()), strings_can_be_null=False, check_utf8=True, include_columns=known
    )
    reading = pacsv.ReadOptions(column_names=header, block_size=_BLOCK_BYTES, encoding="utf8", use_threads=False)
    parsing = pacsv.ParseOptions(newlines_in_values=True, ignore_empty_lines=len(header) > 1)
    try:
        reader = pacsv.open_csv(_native(file), reading, parsing, options)
    except pa.ArrowInvalid as fault:
        if "Empty CSV file" in str(fault):  # of lines that are ignored
            return
        raise
    yield from reader


def _native(file: BinaryIO) -> pa.NativeFile:
    """The rest of the file as Arrow reads it itself. Its readahead is a thread, which may hold what it reads a moment
    longer than the reader lives: of Python's it must be nothing, or a process that ends just then aborts."""
    try:
        file.flush()
        own = pa.OSFile(f"/dev/fd/{file.fileno()}")
    except (OSError, io.UnsupportedOperation):  # in memory, or a system without /dev/fd
        content = file.read()
        buffer = pa.allocate_buffer(len(content))
        memoryview(buffer).cast("B")[:] = content
        return pa.BufferReader(buffer)
    own.seek(file.tell())
    return own


def nothing_made() -> pa.Table:
    """The rows of a job that wrote none."""
    return pa.table({RECORD_ID: pa.array([], pa.utf8())})


def join(batch: Batch, files: ResultFiles, *, touched: bool, job_error: str = "") -> pa.Table:
    """`RESULTS` for each batch row in batch order.

    `touched`: the job processed something, so a row without a result is unknown; otherwise it is held, as are
    unprocessed rows, with `job_error` as their message.
    """
    count = batch.rows.num_rows
    tables = (files.succeeded, files.failed, files.unprocessed)
    fates = np.repeat(np.arange(3), [table.num_rows for table in tables])
    groups = _Groups.of(_key_arrays(batch, tables), count)
    answered = groups.answer(fates)

    alone = groups.batch_rows[groups.of_batch] == 1
    trusted = groups.trusted(fates, _payloads(batch) if not alone.all() else None)[groups.of_batch]
    chosen = np.where(trusted, answered, -1)

    outcome = _outcomes(batch, files, job_error)
    picked = outcome.take(pa.array(chosen, mask=chosen < 0))
    rows = {name: picked.column(name).combine_chunks() for name in RESULTS.names}
    rows["record_id"] = pc.if_else(pa.array(alone), rows["record_id"], pa.scalar(None, pa.utf8()))

    blurred = trusted & (chosen >= 0) & ~groups.uniform(_error_hashes(outcome), fates)[groups.of_batch]
    _overwrite(rows, blurred, None, INDISTINGUISHABLE, "one of several errors of rows that look alike to Salesforce")
    missing = trusted & (chosen < 0)
    if touched:
        _overwrite(rows, missing, Fate.UNKNOWN, MISSING, "Salesforce's result files do not mention the row")
    else:
        _overwrite(rows, missing, Fate.HELD, UNPROCESSED, job_error)
    text = "rows that look alike to Salesforce had different outcomes"
    _overwrite(rows, ~trusted, Fate.UNKNOWN, INDISTINGUISHABLE, text)
    return pa.table(rows, schema=RESULTS)


def parse_errors(texts: pa.Array) -> tuple[pa.Array, pa.Array, pa.Array]:
    """`sf__Error` texts as code, message and comma-joined field names."""
    parts = pc.extract_regex(texts, _ERROR)
    whole = pc.is_valid(parts)
    code = pc.if_else(whole, pc.struct_field(parts, "code"), "UNKNOWN_EXCEPTION")
    message = _unescaped(pc.if_else(whole, pc.struct_field(parts, "message"), texts))
    message = pc.replace_substring(message, "\0", "\ufffd")  # which no database of a state takes
    names = pc.replace_substring_regex(pc.struct_field(parts, "fields"), r"[\[\]]", "")
    names = pc.replace_substring_regex(pc.utf8_trim_whitespace(names), r"[ ,;]+", ",")
    names = pc.if_else(pc.and_kleene(whole, pc.not_equal(names, "")), names, pa.scalar(None, pa.utf8()))
    return code, message, names


def result_columns(batch: Batch) -> frozenset[str]:
    """The columns of a batch's result files that are read: Salesforce's own, and those that rows are joined on."""
    headers = {column.header for column in batch.columns}
    if batch.operation is Operation.UPSERT and batch.match in headers:
        headers = {str(batch.match)}
    elif batch.operation in (Operation.UPDATE, Operation.DELETE):
        headers = {"Id"}
    return frozenset(headers | {"sf__Id", "sf__Created", "sf__Error"})


def job_slots(rows: pa.Table, columns: Sequence[PayloadColumn]) -> npt.NDArray[np.int8]:
    """Which of `SLOTS` jobs each row of an insert belongs in, so that in one job rows that look alike to Salesforce
    are alike. Rows with equal payloads share a slot; from the eighth different payload on they share the last.
    """
    count = rows.num_rows
    slots = np.zeros(count, dtype=np.int8)
    if count == 0:
        return slots
    looks = rowhash.hash_columns([_echo(_column(rows, c.header), c.field) for c in columns])
    order = np.argsort(looks, kind="stable")
    alike = looks[order][1:] == looks[order][:-1]
    twins = order[np.append(alike, False) | np.append(False, alike)]  # mostly none: only these need their payloads
    if twins.size == 0:
        return slots
    some = rows.take(pa.array(twins))
    payloads = rowhash.hash_columns([_column(some, c.header) for c in columns])
    by_payload = np.lexsort((payloads, looks[twins]))
    twins, payloads = twins[by_payload], payloads[by_payload]
    new_group = np.append(True, looks[twins][1:] != looks[twins][:-1])
    new_payload = new_group | np.append(True, payloads[1:] != payloads[:-1])
    nth = np.cumsum(new_payload)
    first = np.maximum.accumulate(np.where(new_group, nth, 0))
    slots[twins] = np.minimum(nth - first, SLOTS - 1)
    return slots


# Groups of rows that look alike


@dataclass(frozen=True, slots=True)
class _Groups:
    """Batch rows and result rows that share an echo form."""

    of_batch: Indices  # group of each batch row
    of_result: Indices
    batch_rows: Indices  # rows a group
    result_rows: Indices
    torn: Flags  # equal hashes, unequal values: nothing can be said

    @classmethod
    def of(cls, keys: Sequence[pa.Array], batch_rows: int) -> _Groups:
        """Group `keys`, whose first `batch_rows` rows are the batch's and the rest the results'."""
        total = len(keys[0]) if keys else 0
        hashes = rowhash.hash_columns(keys) if total else np.empty(0, np.uint64)
        _, first, group = np.unique(hashes, return_index=True, return_inverse=True)  # noqa: TID251
        like = first[group]
        compared = np.flatnonzero(like != np.arange(total))
        unequal = compared[~_equal_rows(keys, compared, like[compared])]
        torn = np.zeros(len(first), dtype=bool)
        torn[group[unequal]] = True
        of_batch, of_result = group[:batch_rows], group[batch_rows:]
        return cls(
            of_batch,
            of_result,
            np.bincount(of_batch, minlength=len(first)),
            np.bincount(of_result, minlength=len(first)),
            torn,
        )

    def answer(self, fates: Indices) -> Indices:
        """For each batch row the index of a result of its group, each result used once; -1 if there is none left."""
        order = np.argsort(self.of_batch, kind="stable")
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order)) - _starts(self.batch_rows)[self.of_batch[order]]
        results = np.append(np.lexsort((fates, self.of_result)), -1)
        at = _starts(self.result_rows)[self.of_batch] + rank
        return np.where(rank < self.result_rows[self.of_batch], results[np.minimum(at, len(results) - 1)], -1)

    def trusted(self, fates: Indices, payloads: rowhash.Hashes | None) -> Flags:
        """Groups in which each row's fate follows from the results. `payloads` None: all groups hold one row."""
        fits: Flags = ~self.torn & (self.result_rows <= self.batch_rows)
        if payloads is None:
            return fits
        same_payload = _uniform(self.of_batch, payloads, len(fits))
        same_fate = _uniform(self.of_result, fates.astype(np.uint64), len(fits))
        complete = (self.result_rows == self.batch_rows) | (self.result_rows == 0)
        is_sure: Flags = (self.batch_rows <= 1) | same_payload | (same_fate & complete)
        return fits & is_sure

    def uniform(self, errors: rowhash.Hashes, fates: Indices) -> Flags:
        """Groups of one row, or in which every failed result has the same error."""
        failed = fates == _FAILED
        same_error = _uniform(self.of_result[failed], errors[failed], len(self.torn))
        return np.logical_or(self.batch_rows <= 1, same_error)


def _starts(counts: Indices) -> Indices:
    return np.cumsum(counts) - counts


def _uniform(group: Indices, marks: rowhash.Hashes, groups: int) -> Flags:
    """Groups whose members all carry one mark (or that have none)."""
    order = np.argsort(group, kind="stable")
    group, marks = group[order], marks[order]
    uneven = np.flatnonzero((group[1:] == group[:-1]) & (marks[1:] != marks[:-1]))
    same = np.ones(groups, dtype=bool)
    same[group[uneven]] = False
    return same


def _equal_rows(keys: Sequence[pa.Array], left: Indices, right: Indices) -> Flags:
    same = np.ones(len(left), dtype=bool)
    if len(left) == 0:
        return same
    left_rows, right_rows = pa.array(left), pa.array(right)
    for key in keys:
        ours, theirs = key.take(left_rows), key.take(right_rows)
        equal = pc.fill_null(pc.equal(ours, theirs), False)
        both_null = pc.and_(pc.is_null(ours), pc.is_null(theirs))
        same &= pc.or_(equal, both_null).to_numpy(zero_copy_only=False)
    return same


# Columns to join on


def _key_arrays(batch: Batch, tables: Sequence[pa.Table]) -> list[pa.Array]:
    """The joining columns, the batch's rows first, then those of the files in order."""
    arrays = []
    for column in _key_columns(batch, tables):
        pieces = [_folded(_echo(_column(batch.rows, column.header), column.field), column, batch)]
        for table in tables:
            name = column.header
            if name == "Id" and name not in table.column_names:
                name = "sf__Id"
            if table.num_rows:
                array = values.from_text(_column(table, name), column.field)
                pieces.append(_folded(_echo(array, column.field), column, batch))
        arrays.append(pa.concat_arrays(pieces))
    if not arrays:  # nothing was echoed: every row looks like every other
        total = batch.rows.num_rows + sum(table.num_rows for table in tables)
        arrays.append(pa.nulls(total, pa.utf8()))
    return arrays


def _key_columns(batch: Batch, tables: Sequence[pa.Table]) -> list[PayloadColumn]:
    echoed = [set(table.column_names) for table in tables if table.num_rows]
    present = [column for column in batch.columns if all(column.header in names for names in echoed)]
    if batch.operation is Operation.INSERT:
        return present
    if batch.operation is Operation.UPSERT:
        return [column for column in present if column.header == batch.match] or present
    return [column for column in batch.columns if column.header == "Id"]


def _folded(echo: pa.Array, column: PayloadColumn, batch: Batch) -> pa.Array:
    matches = batch.operation is Operation.UPSERT and column.header == batch.match
    return (
        pc.utf8_lower(echo) if matches and values.folds_case(column.field) and pa.types.is_string(echo.type) else echo
    )


def _echo(array: pa.Array, field: Field) -> pa.Array:
    echo = values.echo_form(array, field)
    return pc.fill_null(echo, False) if pa.types.is_boolean(echo.type) else echo  # a checkbox has no null


def _column(table: pa.Table, name: str) -> pa.Array:
    if name not in table.column_names:
        return pa.array([""] * table.num_rows, pa.utf8())
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], column.type)])


def _payloads(batch: Batch) -> rowhash.Hashes:
    return rowhash.hash_columns([_column(batch.rows, column.header) for column in batch.columns])


# What each result row says


def _outcomes(batch: Batch, files: ResultFiles, job_error: str) -> pa.Table:
    """Every result row as a `RESULTS` row, in the files' order."""
    ok, bad, left = files.succeeded, files.failed, files.unprocessed
    code, message, names = parse_errors(_column(bad, "sf__Error"))
    fate = pa.array([Fate.REJECTED.value] * bad.num_rows, pa.utf8())
    if batch.operation is Operation.DELETE:  # already gone is what a delete wants
        gone = pc.is_in(code, value_set=pa.array(GONE))
        nothing = pa.scalar(None, pa.utf8())
        fate = pc.if_else(gone, Fate.SUCCEEDED.value, fate)
        code, message, names = (pc.if_else(gone, nothing, text) for text in (code, message, names))
    created = pc.equal(pc.utf8_lower(_column(ok, "sf__Created")), "true")
    not_created = pc.if_else(pc.equal(fate, Fate.SUCCEEDED.value), False, pa.scalar(None, pa.bool_()))
    rejected = pa.table(
        [fate, _ids(bad), not_created, code, message, names],
        schema=RESULTS,
    )
    return pa.concat_tables(
        [
            _rows(ok.num_rows, fate=Fate.SUCCEEDED.value, record_id=_ids(ok), created=created),
            rejected,
            _rows(left.num_rows, fate=Fate.HELD.value, code=UNPROCESSED, message=job_error or None),
        ]
    )


def _rows(count: int, **given: pa.Array | str | None) -> pa.Table:
    columns = []
    for field in RESULTS:
        value = given.get(field.name)
        if isinstance(value, str) or value is None:
            value = pa.array([value], field.type).take(pa.array(np.zeros(count, dtype=np.int64)))
        columns.append(value)
    return pa.table(columns, schema=RESULTS)


def _ids(table: pa.Table) -> pa.Array:
    ids = _column(table, "sf__Id")
    return pc.if_else(pc.equal(ids, ""), pa.scalar(None, pa.utf8()), ids)


def _error_hashes(outcome: pa.Table) -> rowhash.Hashes:
    if outcome.num_rows == 0:
        return np.empty(0, np.uint64)
    return rowhash.hash_columns([_column(outcome, name) for name in ("code", "message", "fields")])


def _unescaped(texts: pa.Array) -> pa.Array:
    """Bulk API escapes row values inside its messages as HTML (`Macy&#39;s`)."""
    escaped = pc.fill_null(pc.match_substring(texts, "&"), False)
    if not pc.any(escaped).as_py():
        return texts
    plain = [html.unescape(text) for text in texts.filter(escaped).to_pylist()]
    return pc.replace_with_mask(texts, escaped, pa.array(plain, pa.utf8()))


def _overwrite(rows: dict[str, pa.Array], where: Flags, fate: Fate | None, code: str, message: str) -> None:
    if not where.any():
        return
    mask = pa.array(where)
    if fate is not None:
        rows["fate"] = pc.if_else(mask, fate.value, rows["fate"])
        for name in ("record_id", "created"):
            rows[name] = pc.if_else(mask, pa.scalar(None, rows[name].type), rows[name])
    rows["code"] = pc.if_else(mask, code, rows["code"])
    rows["message"] = pc.if_else(mask, pa.scalar(message or None, pa.utf8()), rows["message"])
    rows["fields"] = pc.if_else(mask, pa.scalar(None, pa.utf8()), rows["fields"])
