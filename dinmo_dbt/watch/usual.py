"""What is usual for a number that each run has, judged by the last runs. Pure.

tests/test_usual.py measures how often it errs: on steady, weekly and growing numbers, and on one that is halved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import median

RUNS = 14  # of daily runs two weeks: enough for a median, and few enough that a table that grows is not far ahead of it
RUNS_MIN = 8  # fewer say nothing of how far the number moves by itself
# So many in a row on another level, and that is the usual one: they are most of the last RUNS by then.
NEW_RUNS = 10
WEEKS = 5
_DAY_S = 86400
_NORMAL = 1.4826  # of a normal distribution, its standard deviation is this times the median deviation


@dataclass(frozen=True, slots=True)
class Measure:
    """A run's number, and when it was measured: seconds since the epoch."""

    at: float
    value: float


@dataclass(frozen=True, slots=True)
class Band:
    """From `low` to `high`, around the median of so many runs."""

    low: float
    high: float
    middle: float
    runs: int

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def usual_rows(earlier: Sequence[Measure], at: float, percent: Decimal | None = None) -> tuple[Band, ...]:
    """Where a number of rows at that time is usual: in any of these; () while too few runs are known.

    `earlier` are newest first. One band is that of the last runs, the other that of the same weekday in the last weeks.
    Each is as far around its median as `percent` says; without it five standard deviations, as the median deviation
    tells them, and never less than 10 rows or a tenth of the median; a fifth for the few runs of a weekday.
    """
    if len(earlier) < (RUNS_MIN if percent is None else 1):
        return ()
    bands = [_around([m.value for m in earlier[:RUNS]], percent, 0.1)]
    alike = [m for m in earlier if _weekday(m.at) == _weekday(at) and at - m.at <= WEEKS * 7 * _DAY_S]
    if len({m.at // _DAY_S for m in alike}) > 1:  # of one day alone, which may be today
        bands.append(_around([m.value for m in alike], percent, 0.2))
    return tuple(bands)


def usual_seconds(earlier: Sequence[Measure]) -> tuple[Band, ...]:
    """The same of a duration: up to three times the median, if that is far enough from it. None is too quick."""
    if len(earlier) < RUNS_MIN:
        return ()
    last = [m.value for m in earlier[:RUNS]]
    middle = median(last)
    return (Band(0, max(3 * middle, middle + 5 * _deviation(last, middle), middle + 60), middle, len(last)),)


def _around(values: Sequence[float], percent: Decimal | None, least: float) -> Band:
    middle = median(values)
    if percent is None:
        width = max(5 * _NORMAL * _deviation(values, middle), middle * least, 10)
    else:
        width = middle * float(percent) / 100
    return Band(middle - width, middle + width, middle, len(values))


def _deviation(values: Sequence[float], middle: float) -> float:
    return median(abs(value - middle) for value in values)


def _weekday(at: float) -> int:
    return int(at // _DAY_S) % 7
