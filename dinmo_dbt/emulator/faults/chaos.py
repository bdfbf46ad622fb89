"""Random faults: which of the kinds comes, and with what settings, all by hash."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase

from dinmo_dbt.emulator.faults.draw import draw, pick
from dinmo_dbt.emulator.faults.fault import KINDS, Fault, by_chance
from dinmo_dbt.emulator.faults.presets import PRESETS

_STATUSES = (400, 401, 403, 404, 409, 413, 414, 420, 429, 500, 502, 503, 504)
_RETRY_AFTER = (None, "1", "30", "Wed, 21 Oct 2065 07:28:00 GMT", "soon")


def settled(chaos: Fault, acts: tuple[str, ...], name: str, key: tuple[str | int, ...]) -> Fault | None:
    """A fault for this call out of the kinds that fit it; None when none does."""
    fitting = [
        k for k in chaos.kinds or by_chance()
        if KINDS[k].acts in acts and fnmatchcase(name, KINDS[k].calls)
    ]  # fmt: skip
    if not fitting:
        return None
    kind = pick(fitting, *key, "kind")
    part = draw(*key, "part")
    fault = Fault(
        kind=kind, seed=chaos.seed, status=503 if kind == "status" else None,
        seconds=1.0 if kind == "job_stuck" else None, preset="lock" if kind == "rows" else None,
    )  # fmt: skip
    match kind:
        case "status":
            status = pick(_STATUSES, *key, "status")
            return replace(
                fault, status=status, html=status >= 502 and part < 0.5, done=draw(*key, "done") < 0.2,
                retry_after=pick(_RETRY_AFTER, *key, "after") if status in (429, 503) else None,
            )  # fmt: skip
        case "slow" | "hang":
            return replace(fault, seconds=round(part * (2 if kind == "slow" else 600), 3))
        case "trickle":
            return replace(fault, bytes_per_s=1.0 + 10_000 * part)
        case "truncated" | "results_cut_bytes":
            return replace(fault, at=int(part * 2000))
        case "content_length":
            return replace(fault, at=1 + int(part * 100))
        case "redirect":
            return replace(fault, location=pick(("{path}", "https://other.invalid{path}"), *key, "location"))
        case "job_failed" | "job_aborted":
            return replace(fault, row=int(part * part * 30_000))
        case "job_stuck":
            state = "UploadComplete" if draw(*key, "state") < 0.5 else "InProgress"
            return replace(fault, state=state, seconds=round(part * 26 * 3600, 3))
        case "batch_retried":
            return replace(fault, retries=1 + int(part * 22))
        case "rows":
            return replace(fault, preset=pick(tuple(PRESETS), *key, "preset"), share=part * part)
        case "results_cut":
            return replace(fault, row=int(part * 500))
        case "results_repeated" | "results_missing" | "limits_wrong":
            return replace(fault, share=part)
        case _:
            return fault
