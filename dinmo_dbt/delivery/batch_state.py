"""Where a journalled batch stands, and which way its life goes. Pure."""

from __future__ import annotations

from enum import StrEnum


class BatchState(StrEnum):
    """Where a journalled batch stands."""

    PLANNED = "planned"  # spooled; nothing sent
    OPENED = "opened"  # the job exists; nothing is processed before it is closed
    CLOSING = "closing"  # UploadComplete is being asked for, or was
    CLOSED = "closed"  # the job is Salesforce's now
    SENDING = "sending"  # collections calls are being made
    SETTLED = "settled"
    ABANDONED = "abandoned"  # nothing of it was written, or it can be sent again without harm


_NEXT: dict[BatchState, frozenset[BatchState]] = {
    BatchState.PLANNED: frozenset({BatchState.OPENED, BatchState.SENDING, BatchState.ABANDONED}),
    BatchState.OPENED: frozenset({BatchState.CLOSING, BatchState.ABANDONED}),
    # From CLOSING on only the job's own results may end the batch: to abandon it would be to send it again.
    BatchState.CLOSING: frozenset({BatchState.CLOSED, BatchState.SETTLED}),
    BatchState.CLOSED: frozenset({BatchState.SETTLED}),
    BatchState.SENDING: frozenset({BatchState.SETTLED, BatchState.ABANDONED}),
    BatchState.SETTLED: frozenset(),
    BatchState.ABANDONED: frozenset(),
}


def check_transition(before: BatchState, after: BatchState) -> None:
    """The life of a batch goes one way; anything else is a defect of ours."""
    if after not in _NEXT[before]:
        raise AssertionError(f"a {before} batch can't become {after}")
