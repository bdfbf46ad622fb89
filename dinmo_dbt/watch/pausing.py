"""When an activation pauses by itself: its runs fail, one after the other, for a reason that lasts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from dinmo_dbt.activation import Activation
from dinmo_dbt.codes import meaning
from dinmo_dbt.watch.history import RunRecord


def lasts(run: RunRecord) -> bool:
    """Whether a run failed for a reason that a person has to mend."""
    return run.status == "failed" and run.problem is not None and meaning(run.problem.code).lasts


def why_pause(activation: Activation, run: RunRecord, earlier: Sequence[RunRecord]) -> str:
    """Why the activation is to be paused after `run`, in words; '' if it is not. `earlier`: the runs that ended before
    it, newest first."""
    limit = activation.auto_pause
    if limit is None or not lasts(run) or run.problem is None:
        return ""
    in_a_row = 1 + sum(1 for _ in takewhile(lasts, earlier))
    if in_a_row < limit:
        return ""
    runs = "1 run" if in_a_row == 1 else f"{in_a_row} runs in a row"
    return f"{runs} failed: {run.problem.code} {run.problem.message}"
