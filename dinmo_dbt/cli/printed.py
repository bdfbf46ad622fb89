"""What every command prints: lines, tables, problems, and the JSON document around its answer. Pure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dinmo_dbt import __version__
from dinmo_dbt.errors import Problem

if TYPE_CHECKING:
    from dinmo_dbt.state.state_id import StateId

JSON_VERSION = 1
LINE_WIDTH = 88  # of a line without its time, where no terminal says otherwise


def document(command: str, **content: Any) -> dict[str, Any]:
    """The one JSON document of a `--json` command."""
    return {"version": JSON_VERSION, "command": command, "dinmo_dbt": __version__, **content}


def dotted(text: str, status: str, width: int = LINE_WIDTH) -> str:
    """A line as dbt prints it: text, dots, status in brackets. A text that leaves no room for dots is cut."""
    room = max(20, width - len(status) - 7)
    shown = text if len(text) <= room else text[: room - 1] + "…"
    return f"{shown} {'.' * max(3, width - len(shown) - len(status) - 4)} [{status}]"


def wrapped(line: str, width: int) -> list[str]:
    """A line on as many as it needs; what follows the first stands deeper. Words are never cut."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(
        line, max(width, 60), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ) or [line]


def table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A heading and a line for each row, its cells one under the other."""
    cells = [list(columns), *([str(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[number]) for line in cells) for number in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def count_word(things: Sequence[object], noun: str) -> str:
    return noun if len(things) == 1 else noun + "s"


def problem_lines(problem: Problem, label: str = "") -> list[str]:
    """Where, what, and what to do next."""
    lines = [f"{label}{problem.code}  {problem.where}" if problem.where else f"{label}{problem.code}"]
    lines.append(f"  {problem.message}")
    lines += [
        f"  -> {line}" if number == 0 else f"     {line}" for number, line in enumerate(problem.hint.splitlines())
    ]
    return lines


def problem_json(problem: Problem) -> dict[str, Any]:
    return {"code": problem.code, "message": problem.message, "where": problem.where, "hint": problem.hint}


def state_id_json(state_id: StateId) -> dict[str, str]:
    """Whose a state is."""
    return {"org_id": state_id.org_id, "target": state_id.target, "activation": state_id.name}


def field_names(fields: str | None) -> list[str]:
    """The fields of a row that was left out, one by one; Salesforce names several in one text."""
    return re.split(r"[,;\s]+", fields) if fields else []
