"""What a settled batch says beside its rows: what is looked at again after the run, and whether to stop. Pure."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.codes import ROWS_REFUSED_ALIKE
from dinmo_dbt.delivery.run import SAMPLE
from dinmo_dbt.delivery.settlement import diagnoses_of
from dinmo_dbt.destination import Batch, Destination, Fate, Operation, Remedy
from dinmo_dbt.errors import Problem
from dinmo_dbt.rows.snapshot import Flag


def drawn(sample: pa.Table, batch: Batch, results: pa.Table, count: int) -> pa.Table:
    """The sample, with rows of this batch that were delivered whole drawn into it by chance."""
    ids = results["record_id"]
    if batch.operation is Operation.UPDATE:
        ids = pc.coalesce(ids, batch.rows["Id"])
    chance = np.random.default_rng(list(batch.id.encode())).random(len(ids))
    found = pa.table([batch.rows["key"], batch.rows["kh"], ids, pa.array(chance)], schema=SAMPLE)
    whole = pa.array(batch.rows["flags"].to_numpy() & np.uint8(Flag.UNFINISHED) == 0)
    delivered = pc.and_(pc.equal(results["fate"], Fate.SUCCEEDED.value), pc.is_valid(ids))
    found = found.filter(pc.and_(delivered, whole))
    return pa.concat_tables([sample, found]).sort_by("chance").slice(0, count)


def stopping(batch: Batch, results: pa.Table, destination: Destination) -> Problem | None:
    """What to stop with, where a refusal says that no other row would pass either."""
    rejected = results.filter(pc.equal(results["fate"], Fate.REJECTED.value))
    diagnoses = diagnoses_of(rejected, destination)
    stops = [number for number, diagnosis in enumerate(diagnoses) if diagnosis.remedy is Remedy.STOP]
    if not stops:
        return None
    code, diagnosis = rejected["code"][stops[0]].as_py(), diagnoses[stops[0]]
    message = f"{code}: Salesforce refused {len(stops):,} rows for it, and would refuse the others"
    return Problem(ROWS_REFUSED_ALIKE, message, f"{batch.object}, {batch.operation}", diagnosis.hint)
