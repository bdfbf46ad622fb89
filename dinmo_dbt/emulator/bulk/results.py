"""The result files of an ingest job, made from the upload and its row outcomes when they are asked for.

Only outcomes are stored. Rows come in an order that is not the upload's, the same at each read: Salesforce promises
none. Source: wire reference §3.7.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.emulator.bulk import csvtext
from dinmo_dbt.emulator.bulk.columns import Target, given_cells
from dinmo_dbt.emulator.bulk.csvtext import DELIMITERS, LINE_ENDINGS
from dinmo_dbt.emulator.bulk.job import Job, JobTable
from dinmo_dbt.emulator.bulk.outcomes import unpack
from dinmo_dbt.emulator.bulk.uploads import Uploads
from dinmo_dbt.emulator.records.rules import Errors, Origin
from dinmo_dbt.emulator.schema.definitions import accepted
from dinmo_dbt.emulator.soql.values import csv_text
from dinmo_dbt.emulator.store import Store

_SF_ERROR = r"(?s)^(?P<code>[^:]+):.*?:(?P<fields>[\w. ]*)--(?: |$)"
_FAILED_IDS_SINCE = 53.0  # failedResults have no sf__Id before v53


class Results:
    """Reads the files of finished jobs."""

    def __init__(self, store: Store, jobs: JobTable, uploads: Uploads) -> None:
        self._store = store
        self._jobs = jobs
        self._uploads = uploads

    def outcomes(self, job: Job, *, good: bool) -> Iterator[bytes]:
        """successfulResults or failedResults."""
        if job.layout is None:  # failed before the header was read
            return
        layout = self._uploads.layout(job)
        delimiter, line_end = DELIMITERS[job.delimiter], LINE_ENDINGS[job.line_ending]
        second = "sf__Created" if good else "sf__Error"
        yield csvtext.header_line(["sf__Id", second], list(layout.header), delimiter=delimiter, line_end=line_end)
        rows = self._store.reading().execute(
            "SELECT batch, outcome FROM job_batch WHERE job = ? ORDER BY batch", (job.number,)
        ).fetchall()  # fmt: skip
        if not rows:
            return
        targets = self._uploads.columns(job, layout)
        random.Random(job.number).shuffle(rows)
        with self._jobs.upload_path(job.number).open("rb") as file:
            for batch, packed in rows:
                rids, created, errors = unpack(packed)
                accepted = errors.is_null().to_numpy(zero_copy_only=False)
                chosen = np.flatnonzero(accepted if good else ~accepted)
                if not len(chosen):
                    continue
                order = np.random.default_rng([job.number, batch]).permutation(chosen)
                texts = csvtext.read(
                    file, layout.offsets[batch], layout.offsets[batch + 1], width=len(layout.header),
                    delimiter=delimiter,
                )  # fmt: skip
                taken = pa.array(order)
                known = rids[order] > 0
                if not good and float(job.api_version) < _FAILED_IDS_SINCE:
                    known[:] = False
                ids = self._store.codec.encode_many(np.where(known, rids[order], -1))
                extra = pc.if_else(created.take(taken), "true", "false") if good else errors.take(taken)
                columns = [pc.fill_null(ids, ""), extra]
                for name, target, text in zip(layout.header, targets, texts, strict=True):
                    columns.append(self._echo(name, target, text.take(taken)))
                yield csvtext.rows(columns, delimiter=delimiter, line_end=line_end)

    def _echo(self, name: str, target: Target, text: pa.Array) -> pa.Array:
        """A value as result files repeat it: numbers, booleans and times in stored form, the rest as sent.

        A header whose case is not the API name's loses its values (known issue a028c00000gAyI4AAK).
        """
        if target is None or target[1] is not None:
            return text
        field = target[0]
        if name != field.name:
            return pa.array([""] * len(text), pa.string())
        if not field.kind.is_echoed_as_stored:
            return text
        cell, _ = given_cells(text)
        errors: Errors = {}
        stored = csv_text(self._store, field, accepted(field, cell, Origin(0), errors).to_pylist())
        kept = cell.is_null().to_numpy(zero_copy_only=False).copy()
        kept[list(errors)] = True
        return pc.if_else(pa.array(kept), text, stored)

    def unprocessed(self, job: Job) -> Iterator[bytes]:
        """unprocessedrecords: the rows without an outcome, as they were uploaded."""
        if not job.uploaded:
            return
        path = self._jobs.upload_path(job.number)
        sql = "SELECT batch, outcome FROM job_batch WHERE job = ?"
        done = dict(self._store.reading().execute(sql, (job.number,)).fetchall())
        if job.layout is None or (not done and job.state != "JobComplete"):
            with path.open("rb") as file:
                yield from iter(lambda: file.read(1 << 20), b"")
            return
        layout = self._uploads.layout(job)
        yield csvtext.header_line(
            [], list(layout.header), delimiter=DELIMITERS[job.delimiter], line_end=LINE_ENDINGS[job.line_ending]
        )
        if job.state == "JobComplete":
            return
        last = max(done)
        with path.open("rb") as file:
            for batch in range(layout.batches):
                start = layout.offsets[batch]
                if batch in done and batch < last:
                    continue
                file.seek(start)
                data = file.read(layout.offsets[batch + 1] - start)
                yield data[csvtext.end_of_rows(data, len(unpack(done[batch])[0])) :] if batch in done else data


def reasons(store: Store, job: Job) -> Counter[str]:
    """How many rows of an ingest job failed with each status code and its fields; of several, a row's first.

    Texts may hold values, which may look like the names of fields: what is no field of the object is left out.
    """
    counted: Counter[str] = Counter()
    sql = "SELECT outcome FROM job_batch WHERE job = ?"
    for (packed,) in store.reading().execute(sql, (job.number,)):
        parts = pc.extract_regex(unpack(packed)[2].drop_null(), _SF_ERROR)
        pairs = pc.binary_join_element_wise(pc.struct_field(parts, 0), pc.struct_field(parts, 1), ":")
        tally = pc.fill_null(pairs, "?:").value_counts()
        counted.update(dict(zip(tally.field(0).to_pylist(), tally.field(1).to_pylist(), strict=True)))
    sobject = store.schema.get(job.object)
    known = {field.name for field in sobject.every} if sobject is not None else set()
    found: Counter[str] = Counter()
    for pair, rows in counted.items():
        code, _, fields = pair.partition(":")
        names = fields.split()
        found[" ".join([code, *names]) if known.issuperset(names) else code] += rows
    return found
