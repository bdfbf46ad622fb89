"""What became of each activation of a sync: reported at its end, and written to target/dinmo_run_results.json."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dinmo_dbt.cli.session import Session
from dinmo_dbt.codes import RESULTS_NOT_WRITTEN
from dinmo_dbt.errors import Problem
from dinmo_dbt.text.moments import iso

if TYPE_CHECKING:
    from dinmo_dbt.activation import Activation
    from dinmo_dbt.config.meta import NotActivated
    from dinmo_dbt.delivery.run import SyncRun

STATUS_EXIT = {
    "success": 0,
    "rejected": 3,
    "unknown": 6,
    "failed": 1,
    "on_its_way": 1,
    "refused": 4,
    "skipped": 0,
    "blocked": 4,
    "under way": 4,
    "paused": 4,
}


@dataclass
class Report:
    """What target/dinmo_run_results.json says."""

    started: float
    results: list[dict[str, Any]] = field(default_factory=list)
    state_problem: Problem | None = None  # what keeps the state itself from being used
    codes: list[int] = field(default_factory=lambda: [0])

    def add(
        self, activation: Activation | NotActivated, status: str, seconds: float, message: str, **content: Any
    ) -> None:
        self.codes.append(content.pop("exit_code", STATUS_EXIT.get(status, 1)))
        self.results.append(
            {
                "activation": activation.name,
                "model": activation.model.unique_id,
                "object": activation.object,
                "status": status,
                "message": message,
                "seconds": round(seconds, 3),
                **content,
            }
        )

    def put_in_order(self, names: Sequence[str]) -> None:
        """Each in the place of its turn, whichever ended first."""
        self.results.sort(key=lambda result: names.index(result["activation"]))


def exit_code(session: Session, run: SyncRun) -> int:
    return 128 + session.clock.signal if run.interrupted else STATUS_EXIT[run.status.value]


def after(run: SyncRun, activation: Activation) -> list[str]:
    """What is worth a line under a finished activation: rows not delivered, and what an earlier run had left."""
    import pyarrow as pa

    from dinmo_dbt.cli import render

    lines = []
    recovered = run.recovered
    settled = recovered.succeeded + recovered.rejected + recovered.held + recovered.unknown
    if settled:
        lines.append(
            f"settled first, from a run that was cut off: {recovered.succeeded:,} of {settled:,} rows were accepted"
        )
    if run.not_delivered:
        left_out = pa.concat_tables(run.not_delivered)
        lines += render.left_out_lines(left_out)
        if run.status.value == "rejected":
            lines += render.next_lines(left_out, activation.name, waiting=run.plan_counts.waiting)
    if run.audited:
        lines += render.audit_lines(run.audited)
    return lines


def summary(report: Report) -> str:
    groups = [
        ("PASS", ("success",)),
        ("WARN", ("rejected", "unknown")),
        ("ERROR", ("failed",)),
        ("ON ITS WAY", ("on_its_way",)),
        ("REFUSED", ("refused",)),
        ("INTERRUPTED", ("interrupted",)),
        ("SKIP", ("skipped", "blocked", "under way", "paused")),
    ]
    numbers = [(name, sum(r["status"] in statuses for r in report.results)) for name, statuses in groups]
    counts = [f"{name}={number}" for name, number in numbers if number or name not in ("INTERRUPTED", "ON ITS WAY")]
    return f"Done. {' '.join(counts)} TOTAL={len(report.results)}"


def summary_word(report: Report) -> str:
    """The word of a summary that is to stand out: what went wrong, or that nothing did."""
    worst_first = [("ERROR", "failed"), ("REFUSED", "refused"), ("WARN", "unknown"), ("WARN", "rejected")]
    present = {result["status"] for result in report.results}
    return next((word for word, status in worst_first if status in present), "PASS")


def _as_dbt_names(result: dict[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in result.items() if name not in ("model", "seconds")}
    return {"unique_id": result["model"], "execution_time": result["seconds"], **own}


def write_results(session: Session, report: Report) -> None:
    """target/dinmo_run_results.json, with the names that dbt's run results have: whole or not at all."""
    from dinmo_dbt import __version__

    content = {
        "metadata": {
            "dinmo_schema_version": "1",
            "dinmo_version": __version__,
            "generated_at": iso(session.clock.now()),
            "dbt_invocation_id": session.manifest.invocation_id,
        },
        "args": {
            "target": session.target[1],
            "select": list(session.flags.select),
            "exclude": list(session.flags.exclude),
        },
        "elapsed_time": round(time.monotonic() - report.started, 3),
        "results": [_as_dbt_names(result) for result in report.results],
    }
    path = session.target_path / "dinmo_run_results.json"
    half = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        half.write_text(json.dumps(content, indent=2), encoding="utf-8")
        half.replace(path)
    except OSError as error:
        half.unlink(missing_ok=True)
        session.console.note(
            Problem(RESULTS_NOT_WRITTEN, f"can't be written: {error.strerror}; the history has it", str(path))
        )
