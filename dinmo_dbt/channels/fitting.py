"""A notice that is too long for a service, cut at a line, with a pointer to the rest. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

_COMMAND = "dinmo-dbt "


def one_message(body: str, ending: str, fits: Callable[[str], bool]) -> str:
    """As much of the body as `fits` allows, and the ending. What is left out is counted, with the command that shows
    it: the body's last line where that is one. The body alone, for the sender to cut, where not even the ending fits.
    """
    if fits(whole := f"{body}\n\n{ending}"):
        return whole
    lines = body.splitlines()
    where = lines[-1] if lines and lines[-1].startswith(_COMMAND) else f"{_COMMAND}status"

    def cut(kept: int, part: str = "") -> str:
        left_out = len(lines) - kept
        message = f"... {left_out} more {'line' if left_out == 1 else 'lines'}: {where}"
        return "\n".join([*lines[:kept], *([f"{part} ..."] if part else []), message, "", ending])

    kept = _most(len(lines) - 1, lambda number: fits(cut(number)))
    if kept is None:
        least = (f"{where}\n\n{ending}", f"{lines[0] if lines else where}\n{ending}", ending)
        return next((text for text in least if fits(text)), body)
    if kept:
        return cut(kept)
    first = lines[0] if lines else ""  # one that is too long by itself
    part = _most(len(first), lambda number: fits(cut(0, first[:number])))
    return cut(0, first[: part or 0].rstrip())


def _most(limit: int, fits: Callable[[int], bool]) -> int | None:
    """The largest number up to the limit that fits, where all below it do; None if not even 0 does."""
    return bisect_left(range(limit + 1), True, key=lambda number: not fits(number)) - 1 if fits(0) else None
