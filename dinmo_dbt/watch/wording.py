"""The words of a notice. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dinmo_dbt.errors import Problem
from dinmo_dbt.text.moments import minute
from dinmo_dbt.watch.history import RunRecord

CAUSES_MAX = 5


def activation_name(target: str, activation: str) -> str:
    return f"dinmo-dbt [{target}] {activation}"


def place_lines(run: RunRecord, object_name: str) -> list[str]:
    """Which run it was, and where to look."""
    place = f"{object_name}, org {run.org_id}" if run.org_id else object_name
    return ["", f"{minute(run.started)}, {run.trigger.said}", place, next_command("history", run)]


def next_command(name: str, run: RunRecord) -> str:
    return f"dinmo-dbt {name} {run.run_id} --target {run.target}"


def problem_lines(problem: Problem) -> list[str]:
    lines = [" ".join(part for part in (problem.code, problem.message) if part)]
    lines += [f"({problem.where})"] if problem.where else []
    return lines + [f"-> {line}" for line in problem.hint.splitlines()]


def short_cause(problem: Problem | None) -> str:
    return " ".join(part for part in (problem.code, problem.message) if part) if problem else ""


def progress_of(run: RunRecord) -> str:
    """How far it came."""
    sent, removed = run.outcome.get("succeeded", 0) - run.outcome.get("removed", 0), run.outcome.get("removed", 0)
    numbers = [(removed, "removed"), (run.refused_rows, "rejected or invalid"), (run.waiting_rows, "held")]
    parts = [f"{counted(sent, 'row')} sent", *(f"{number:,} {name}" for number, name in numbers if number)]
    parts += [f"{run.counts['unchanged']:,} unchanged"] if run.counts.get("unchanged") else []
    return "Nothing was sent" if not run.outcome.get("succeeded") and len(parts) == 1 else ", ".join(parts)


def was_refused(group: Mapping[str, Any]) -> bool:
    """Rejected or invalid now, or waiting since an earlier rejection; what waits for its parent never was refused."""
    waits = group.get("fate") == "held" and group.get("class") in ("data", "reference", "automation")
    return group.get("fate") in ("rejected", "invalid") or (waits and not str(group["code"]).startswith("PARENT_"))


def causes_of(run: RunRecord, wanted: Callable[[Mapping[str, Any]], bool]) -> list[str]:
    """The commonest reasons, each with what to do."""
    groups = [group for group in run.detail.get("left_out") or () if wanted(group)]
    lines = []
    for group in groups[:CAUSES_MAX]:
        fields = f" [{', '.join(group['fields'])}]" if group["fields"] else ""
        lines.append(f"- {group['rows']:,} {group['code'] or group['fate']}{fields}")
        lines += [f"  {group['hint']}"] if group.get("hint") else []
    more = len(groups) - CAUSES_MAX
    return [*lines, f"- and {counted(more, 'other reason')}"] if more > 0 else lines


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def times_over(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")


def span(seconds: float) -> str:
    """In the largest unit of which there are at least two."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length):,} {unit}s"
    return counted(int(seconds), "second")
