"""What became of the rows of a batch, as it is stored: Arrow, compressed. Pure."""

from __future__ import annotations

import pyarrow as pa

from dinmo_dbt.emulator.ids import Ints
from dinmo_dbt.emulator.records.work import Outcome


def pack(outcome: Outcome) -> bytes:
    texts: list[str | None] = [None] * len(outcome.rids)
    for row, errors in outcome.errors.items():
        # How Salesforce joins several errors of one row is unverified.
        texts[row] = " ".join(e.bulk_text() for e in errors)
    batch = pa.record_batch(
        [pa.array(outcome.rids), pa.array(outcome.created), pa.array(texts, pa.string())],
        names=["rid", "created", "error"],
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(
        sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    ) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def unpack(packed: bytes) -> tuple[Ints, pa.Array, pa.Array]:
    """The record of each row, whether it is new, and its errors as one text; null where it has none."""
    batch = pa.ipc.open_stream(packed, options=pa.ipc.IpcReadOptions(use_threads=False)).read_next_batch()
    return batch.column(0).to_numpy(), batch.column(1), batch.column(2)
