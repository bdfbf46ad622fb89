"""Rows that were refused for a reason that may pass, kept to be sent once more in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.delivery.passing import ROWS_MAX as PASSING_ROWS_MAX
from dinmo_dbt.delivery.passing import may_pass
from dinmo_dbt.delivery.settlement import diagnoses_of
from dinmo_dbt.destination import Batch, Destination, Fate, Remedy

# Their payloads are in memory; and each job costs about ten API calls.
AGAIN_ROWS_MAX = 200_000
_MERGED_BYTES_MAX = 16 << 20  # in Arrow; as CSV well under what a job takes


@dataclass(frozen=True)
class SetAside:
    """Rows of one batch that were refused, or not processed, and are to be sent again in this run; their results."""

    remedy: Remedy
    batch: Batch
    results: pa.Table


@dataclass
class ToSendAgain:
    """`remedies`: which refused rows are still sent again in this run."""

    remedies: set[Remedy] = field(default_factory=set)
    rows: list[SetAside] = field(default_factory=list)

    @property
    def passing(self) -> int:
        return sum(len(each.batch.rows) for each in self.rows if each.remedy is Remedy.LET_GO)

    def taken(self, remedy: Remedy, *, last: bool) -> list[Batch]:
        """What was set aside for this remedy, to be sent now; with `last` what is refused after this stays refused."""
        if last:
            self.remedies.discard(remedy)
        chosen = [each.batch for each in self.rows if each.remedy is remedy]
        self.rows = [each for each in self.rows if each.remedy is not remedy]
        return _merged(chosen)

    def split(
        self, batch: Batch, results: pa.Table, unprocessed: Remedy | None, destination: Destination
    ) -> tuple[Batch, pa.Table, list[SetAside]]:
        """The rows whose fate is settled, and those that this run sends again: as many as may be kept."""
        if batch.without_parents:
            return batch, results, []
        remedies = _remedies(results, unprocessed, destination)
        if not may_pass(batch):
            remedies[remedies == Remedy.LET_GO.value] = None
        room = AGAIN_ROWS_MAX - sum(len(each.batch.rows) for each in self.rows)
        kept, aside = np.ones(len(batch.rows), np.bool_), []
        for remedy in sorted(self.remedies):
            most = room if remedy is not Remedy.LET_GO else min(room, PASSING_ROWS_MAX - self.passing)
            rows = np.flatnonzero(remedies == remedy.value)[: max(0, most)]
            if rows.size:
                taken = pa.array(rows)
                aside.append(SetAside(remedy, replace(batch, rows=batch.rows.take(taken)), results.take(taken)))
                kept[rows] = False
                room -= len(rows)
        if not aside:
            return batch, results, []
        mask = pa.array(kept)
        return replace(batch, rows=batch.rows.filter(mask)), results.filter(mask), aside


def _remedies(results: pa.Table, unprocessed: Remedy | None, destination: Destination) -> npt.NDArray[np.object_]:
    """What may help each row that was not delivered; None for the others."""
    found = np.full(len(results), None, object)
    rejected = pc.equal(results["fate"], Fate.REJECTED.value).to_numpy()
    found[rejected] = [diagnosis.remedy.value for diagnosis in diagnoses_of(results.filter(rejected), destination)]
    if unprocessed is not None:
        held = pc.equal(results["fate"], Fate.HELD.value).to_numpy()
        found[held] = unprocessed.value
    return found


def _merged(batches: Sequence[Batch]) -> list[Batch]:
    """Batches of one shape in one, as far as the files stay small."""
    shapes: dict[tuple[object, ...], list[list[Batch]]] = {}
    for batch in batches:
        shape = (batch.operation, batch.api, batch.columns, batch.match, batch.reverts, batch.leavers)
        groups = shapes.setdefault((*shape, *batch.rows.column_names), [[]])
        if sum(each.rows.nbytes for each in groups[-1]) + batch.rows.nbytes > _MERGED_BYTES_MAX:
            groups.append([])
        groups[-1].append(batch)
    together = [group for groups in shapes.values() for group in groups if group]
    return [replace(group[0], rows=pa.concat_tables([each.rows for each in group])) for group in together]
