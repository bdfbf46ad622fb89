"""The state's own trace in the org, before a run sends anything: jobs there that the state does not know. Reads only.

An older copy of a state looks whole: a CI cache, a machine's snapshot, a folder that was forked. What it has forgotten
is in the org. Salesforce lists the ingest jobs of the last 7 days, and the state keeps the ids of its own. No field of
another job says who made it (one user may have several tools), but its results show what was sent. An unknown insert
that made rows which this run would make again has to be noticed, whichever tool made it. So an
insert's unknown jobs are read, once each, and the run stops where one of their rows is one of its own and the record is
still there. Other modes end in the same place whatever was sent before: for them an unknown job is a note. But an
upsert that looks records up does not see those that a job is about to make, so what it would insert waits for that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.activation import Activation, Mode
from dinmo_dbt.codes import UNKNOWN_JOB
from dinmo_dbt.destination import Destination, ListedJob, ObjectSchema, Operation
from dinmo_dbt.errors import StateError
from dinmo_dbt.plan.plan import Plan, PlannedBatch
from dinmo_dbt.rows import values
from dinmo_dbt.rows.field_types import type_of
from dinmo_dbt.rows.sets import distinct

ENDED = ("JobComplete", "Failed", "Aborted")
# A job of another program may take hours; it is waited for as long as a person would.
WAIT_MAX_S, WAIT_S = 300.0, 5.0
READ_MAX = 200  # unknown jobs that one run reads
_ASKED_FIRST = 200  # records: one call
RECORD_ID = "sf__Id"

Hashes = npt.NDArray[np.uint64]


class Trace(Protocol):
    """What a state knows of the org's jobs. Only a locked run's may be written."""

    writing: bool

    def known_jobs(self) -> frozenset[str]:
        """Its own, of every activation in this org, and those that were accepted or reported."""

    def know(self, marks: Collection[str]) -> None: ...

    def read_jobs(self) -> frozenset[str]:
        """Unknown jobs whose rows were read before."""

    def job_rows(self, job_id: str) -> pa.Table | None:
        """What was kept of them; None if it can't be read."""

    def keep_job_rows(self, job_id: str, rows: pa.Table) -> None: ...

    def drop_job_rows(self, jobs: Collection[str]) -> None: ...

    def hold(self) -> None: ...


def check(
    plan: Plan,
    destination: Destination,
    trace: Trace,
    *,
    sleep: Callable[[float], None] | None,
) -> tuple[str, ...]:
    """Notes on jobs that the state does not know. StateError DB522 if they made what this plan would insert.

    Where the plan sends nothing nothing is asked. With `sleep` a job that still runs is waited for, without one the
    plan is refused at once.
    """
    if plan.refusal or not plan.batches:
        return ()
    jobs = destination.listed_jobs()
    if jobs is None:
        return (
            f"the jobs of org {plan.org_id} can't be listed: whether another copy of this state sent rows is not known",
        )
    inserting = plan.activation.mode is Mode.INSERT
    fence = _Fence(plan, destination, trace, sleep)
    if inserting:
        return _look_at_inserts(fence, jobs)
    _wait_for_inserts(fence, jobs)
    return _look_at_others(fence, jobs)


def unknown_inserts(object_name: str, jobs: Sequence[ListedJob], known: Collection[str]) -> list[ListedJob]:
    """Jobs that may have made records of the object as ours do, newest first. An open one has made nothing: its data
    may not even be there."""
    found = [
        job
        for job in jobs
        if job.id not in known
        and job.operation == Operation.INSERT
        and job.object.lower() == object_name.lower()
        and job.as_ours
        and job.state != "Open"
    ]
    return sorted(found, key=lambda job: job.created, reverse=True)


@dataclass(frozen=True)
class _Fence:
    plan: Plan
    destination: Destination
    trace: Trace
    sleep: Callable[[float], None] | None

    @property
    def where(self) -> str:
        return f"{self.plan.activation.name} in org {self.plan.org_id}"

    def refusal(self, message: str, hint: str) -> StateError:
        return StateError(UNKNOWN_JOB, message, where=self.where, hint=hint)


# Inserts


def _look_at_inserts(fence: _Fence, jobs: Sequence[ListedJob]) -> tuple[str, ...]:
    plan, trace = fence.plan, fence.trace
    name, known = plan.schema.name, trace.known_jobs()
    suspects = unknown_inserts(name, jobs, known)
    if trace.writing:
        trace.drop_job_rows(trace.read_jobs() - {job.id for job in suspects})
    if not suspects:
        return ()
    suspects = _ended(fence, suspects, known)
    planned = _Planned.of(plan)
    notes, read = [], 0
    for job in suspects:
        rows = trace.job_rows(job.id) if job.id in trace.read_jobs() else None
        if rows is None:
            if read == READ_MAX:
                notes.append(
                    f"more than {READ_MAX} insert jobs on {name} are unknown to this state; the others were not read"
                )
                break
            read += 1
            made = fence.destination.made_by(job.id, planned.headers | plan.schema.fields.keys())
            if made is None:
                notes.append(_unread(fence, job, {each.user for each in jobs if each.id in known}))
                continue
            rows = prints(made, plan.schema)
            if trace.writing:
                trace.keep_job_rows(job.id, rows)
        again = planned.made_by(rows)
        if len(again) and _exist(fence.destination, name, again):
            raise _doubled(fence, job, len(again), planned.rows)
    return tuple(notes)


def _unread(fence: _Fence, job: ListedJob, ours: Collection[str]) -> str:
    """A note on a job whose rows Salesforce does not show; StateError if it may well be one of ours: those it shows."""
    if ours and job.user not in ours:
        return f"what job {job.id} of another user made can't be read: whether this run makes it again is not known"
    raise fence.refusal(
        f"job {job.id} ({job.said}), which this state does not know, made records, and Salesforce does not show which: "
        "whether this run would make them again can't be known",
        "run again. If it stays so, look at that job in Salesforce's Setup, Bulk Data Load Jobs; if no copy of this "
        f"state made it: dinmo-dbt state accept {fence.plan.activation.name}",
    )


def _ended(
    fence: _Fence,
    suspects: list[ListedJob],
    known: Collection[str],
    is_suspect: Callable[[ListedJob], bool] = lambda _: True,
) -> list[ListedJob]:
    """The same once none of them runs; StateError if one still does."""
    waited, name = 0.0, fence.plan.schema.name
    while running := [job for job in suspects if job.state not in ENDED]:
        if fence.sleep is None or waited >= WAIT_MAX_S:
            job = running[0]
            raise fence.refusal(
                f"job {job.id} ({job.said}) runs, and this state does not know it: whether it makes rows that this run "
                "would insert can't be known before it ends",
                f"run again later. If it is no copy of this state that made it: dinmo-dbt state accept "
                f"{fence.plan.activation.name}",
            )
        fence.trace.hold()
        fence.sleep(WAIT_S)
        waited += WAIT_S
        suspects = list(filter(is_suspect, unknown_inserts(name, fence.destination.listed_jobs() or (), known)))
    return suspects


def _doubled(fence: _Fence, job: ListedJob, again: int, planned: int) -> StateError:
    return fence.refusal(
        f"the org knows more than this state: job {job.id} ({job.said}), which the state does not know, made {again:,} "
        f"of the {planned:,} rows that this run would insert",
        ways_out(fence.plan.activation),
    )


def ways_out(activation: Activation) -> str:
    """What to do with a state that the org knows more than."""
    return (
        "this looks like an older copy of the state, or another one. Put the newer state back, or take over what "
        f"Salesforce holds: {activation.adopting}\n"
        f"To insert them again all the same: dinmo-dbt state accept {activation.name}"
    )


def _exist(destination: Destination, name: str, ids: pa.Array) -> bool:
    """Whether a record of these is there still: what was deleted since may be made again."""
    for part in (ids.slice(0, _ASKED_FIRST), ids.slice(_ASKED_FIRST)):
        if len(part) and len(destination.read_many(name, ("Id",), pc.unique(part))):
            return True
    return False


# Rows as they look to Salesforce


@dataclass(frozen=True)
class _Planned:
    """The rows that a plan would insert, by batch: a hash for each column, and which columns feed the key."""

    batches: tuple[pa.Table, ...]
    key: frozenset[str]  # headers; empty if the key is not mapped
    key_alone: bool  # a changed row is no new record: the key is all that counts

    @classmethod
    def of(cls, plan: Plan) -> _Planned:
        fed = {column.source: column.header for column in plan.mapping.columns}
        key = frozenset(fed[name] for name in plan.mapping.key if name in fed)
        whole = len(key) == len(plan.mapping.key)
        batches = tuple(_of_batch(plan, planned) for planned in plan.batches if planned.operation is Operation.INSERT)
        return cls(batches, key if whole else frozenset(), plan.activation.on_change == "ignore")

    @property
    def headers(self) -> frozenset[str]:
        return frozenset(name for batch in self.batches for name in batch.column_names)

    @property
    def rows(self) -> int:
        return sum(len(batch) for batch in self.batches)

    def made_by(self, job: pa.Table) -> pa.Array:
        """The record ids of the job's rows that are rows of ours."""
        found = [pa.array([], pa.utf8())]
        for batch in self.batches if len(job) else ():
            here, shared = set(batch.column_names), sorted(set(batch.column_names) & set(job.column_names))
            if self.key and not self.key <= set(shared):
                continue
            if self.key and self.key_alone:
                shared = sorted(self.key)
            if not shared:
                continue
            rows, made = _together(batch, shared), _together(job, shared)
            if not self.key and len(shared) < len(here) and not (2 * len(shared) > len(here) and _tell(rows, made)):
                continue
            found.append(job[RECORD_ID].combine_chunks().filter(pa.array(np.isin(made, rows))))
        return pa.concat_arrays(found)


def _of_batch(plan: Plan, planned: PlannedBatch) -> pa.Table:
    rows = plan.batch_rows(planned)
    return pa.table(
        {
            c.header: _prints(values.text(rows[c.header].combine_chunks(), c.field), c.header, plan.schema)
            for c in planned.columns
        }
    )


def prints(rows: pa.Table, schema: ObjectSchema) -> pa.Table:
    """A job's rows as they are kept: the record's id, and for each column that was sent a hash of 64 bits."""
    sent = [name for name in rows.column_names if not name.startswith("sf__")]
    return pa.table({RECORD_ID: rows[RECORD_ID], **{n: _prints(rows[n].combine_chunks(), n, schema) for n in sent}})


def _prints(texts: pa.Array, header: str, schema: ObjectSchema) -> pa.Array:
    """Of Salesforce's texts, ours and its own, in the form in which both are one."""
    field = schema.field(header)
    if field is not None:
        texts = values.text(values.echo_form(values.from_text(texts, field), field), field)
        if type_of(field).is_checkbox:
            texts = pc.fill_null(texts, "false")
    known = texts.dictionary_encode() if isinstance(texts, pa.Array) else texts.combine_chunks().dictionary_encode()
    made = [_print_of(text) for text in known.dictionary.to_pylist()]
    return pa.array([*made, _print_of(None)], pa.uint64()).take(pc.fill_null(known.indices, len(made)))


def _print_of(text: str | None) -> int:
    tagged = b"\0" if text is None else b"\1" + text.encode()
    return int.from_bytes(hashlib.blake2b(tagged, digest_size=8).digest(), "big")


def _tell(*sides: npt.NDArray[np.void]) -> bool:
    """Whether these columns tell rows apart: nine of ten are there once."""
    return all(10 * len(distinct(rows)) >= 9 * len(rows) for rows in sides)


def _together(rows: pa.Table, columns: Sequence[str]) -> npt.NDArray[np.void]:
    """One value a row of the hashes of these columns."""
    side_by_side = np.column_stack([rows[name].to_numpy() for name in columns])
    return np.ascontiguousarray(side_by_side).view(np.dtype((np.void, 8 * len(columns)))).ravel()


# Other modes


def _wait_for_inserts(fence: _Fence, jobs: Sequence[ListedJob]) -> None:
    """Until no unknown job of our users makes records of the object, where the plan would too. StateError if one still
    does, or made what was looked up in vain before it had."""
    plan, known = fence.plan, fence.trace.known_jobs()
    if not any(planned.operation is Operation.INSERT for planned in plan.batches):
        return
    users = {job.user for job in jobs if job.id in known}

    def may_be_ours(job: ListedJob) -> bool:
        return not users or job.user in users

    suspects = [job for job in unknown_inserts(plan.schema.name, jobs, known) if may_be_ours(job)]
    running = [job for job in suspects if job.state not in ENDED]
    if not running:
        return
    _ended(fence, running, known, may_be_ours)
    planned = _Planned.of(plan)
    for job in running:
        made = fence.destination.made_by(job.id, planned.headers | plan.schema.fields.keys())
        if made is None or len(planned.made_by(prints(made, plan.schema))):
            raise fence.refusal(
                f"job {job.id} ({job.said}), which this state does not know, has ended since the records were "
                "looked up, and may have made some of them",
                "run again: they are found then",
            )


def _look_at_others(fence: _Fence, jobs: Sequence[ListedJob]) -> tuple[str, ...]:
    """Jobs on the object that look as our own do (user, API version, form), made since the first of those."""
    plan, trace = fence.plan, fence.trace
    known = trace.known_jobs()
    ours = [job for job in jobs if job.id in known]
    users = {(job.user, job.api_version) for job in ours}
    begun = min((job.created for job in ours), default="")
    found = [
        job
        for job in jobs
        if job.id not in known
        and job.object.lower() == plan.schema.name.lower()
        and (job.user, job.api_version) in users
        and job.as_ours
        and job.created >= begun
        and job.state not in ("Open", "Aborted")
    ]
    if not found:
        return ()
    if trace.writing:
        trace.know([job.id for job in found])  # reported once
    newest = max(found, key=lambda job: job.created)
    others = f", and {len(found) - 1:,} more" if len(found) > 1 else ""
    return (
        f"job {newest.id} ({newest.said}){others}, made as this activation makes its own, is not in this state. If a "
        "newer copy of it made the job, put that back: this one may send rows again, and does not know of all records",
    )
