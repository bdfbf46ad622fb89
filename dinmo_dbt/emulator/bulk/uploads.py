"""The uploads of ingest jobs: where their batches are, what their columns are, a batch read and converted.

Source: Bulk API 2.0 Developer Guide; wire reference §3.5, §3.6.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import pyarrow as pa

from dinmo_dbt.emulator.bulk import csvtext
from dinmo_dbt.emulator.bulk.bounds import check_cells, check_header
from dinmo_dbt.emulator.bulk.columns import Plan, Target, column, given_cells, plan_columns, refuse_ids
from dinmo_dbt.emulator.bulk.csvtext import DELIMITERS, CsvError, Layout
from dinmo_dbt.emulator.bulk.job import Job, JobTable
from dinmo_dbt.emulator.limits import Usage
from dinmo_dbt.emulator.records.engine import Org
from dinmo_dbt.emulator.records.rules import Origin
from dinmo_dbt.emulator.records.work import Column, Work
from dinmo_dbt.emulator.schema.definitions import SObject
from dinmo_dbt.emulator.store import Store

BATCH_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Block:
    """One batch, ready to be written: `ids` is the text of its Id column where that finds the records."""

    work: Work
    ids: pa.Array | None
    spent_s: float


class Uploads:
    """Reads the uploads of one org's jobs; touches no record."""

    def __init__(self, store: Store, org: Org, jobs: JobTable, usage: Usage) -> None:
        self._store = store
        self._org = org
        self._jobs = jobs
        self._usage = usage

    def layout(self, job: Job) -> Layout:
        """The upload's header and batches, found once and kept."""
        if job.layout is not None:
            kept = json.loads(job.layout)
            return Layout(tuple(kept["header"]), tuple(kept["offsets"]))
        if not job.uploaded:  # closing a job without data: the reply is unverified
            raise CsvError("InvalidBatch : Failed to parse CSV. The job has no data")
        layout = csvtext.scan(
            self._jobs.upload_path(job.number), delimiter=DELIMITERS[job.delimiter], line_ending=job.line_ending,
            batch_rows=BATCH_ROWS,
        )  # fmt: skip
        check_header(self._usage.limits, layout.header)
        text = json.dumps({"header": layout.header, "offsets": layout.offsets})
        with self._store.writing() as db:
            db.execute("UPDATE job SET layout = ? WHERE number = ?", (text, job.number))
        return layout

    def plan(self, job: Job, layout: Layout) -> Plan:
        return plan_columns(
            self._org, self._sobject(job), layout.header, operation=job.operation, external_id=job.external_id
        )

    def columns(self, job: Job, layout: Layout) -> list[Target]:
        """What the upload's columns are by the schema as it is now; None for one that has gone since it was read."""
        sobject, found = self._sobject(job), []
        for name in layout.header:
            try:
                found.append(column(self._org, sobject, name))
            except CsvError:
                found.append(None)
        return found

    def prepare(self, job: Job, layout: Layout, plan: Plan, batch: int) -> Block:
        """One batch read and converted; nothing behind the row where a fault ends the job."""
        begun = time.monotonic()
        texts = self._texts(job, layout, batch)
        check_cells(self._usage.limits, texts)
        kept = job.fate.kept_rows
        if kept is not None:
            texts = [t.slice(0, max(0, kept - batch * BATCH_ROWS)) for t in texts]
        ids = None
        columns: list[Column] = []
        for place, (target, text) in enumerate(zip(plan.columns, texts, strict=True)):
            cell, given = given_cells(text, by_parent=target is not None and target[1] is not None)
            if target is None:
                ids = cell
            else:
                columns.append(Column(target[0], cell, given, target[1], Origin(place)))
        work = self._org.prepare(self._store.table(self._sobject(job)), columns, len(texts[0]) if texts else 0)
        by_id = job.operation in ("update", "delete") or (job.operation == "upsert" and plan.key is None)
        if ids is not None and not by_id:
            refuse_ids(work, ids)
            ids = None
        return Block(work, ids, time.monotonic() - begun)

    def has_more(self, job: Job, rows: int) -> bool:
        """Whether the job was given more rows than that."""
        layout = self.layout(job)
        batch, rest = divmod(rows, BATCH_ROWS)
        if batch + 1 < layout.batches:
            return True
        return batch < layout.batches and len(self._texts(job, layout, batch)[0]) > rest

    def _texts(self, job: Job, layout: Layout, batch: int) -> list[pa.Array]:
        with self._jobs.upload_path(job.number).open("rb") as file:
            return csvtext.read(
                file, layout.offsets[batch], layout.offsets[batch + 1], width=len(layout.header),
                delimiter=DELIMITERS[job.delimiter],
            )  # fmt: skip

    def _sobject(self, job: Job) -> SObject:
        sobject = self._org.schema.get(job.object)
        if sobject is None:
            raise CsvError(f"InvalidBatch : the object {job.object} is no longer in the schema")
        return sobject
