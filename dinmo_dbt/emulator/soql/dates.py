"""Date literals as ranges of days, and date functions as SQL.

Weeks start on Sunday (locale en_US); the fiscal year starts in January, as in a new org, so fiscal literals and
functions equal the calendar's; the org's and the user's time zone is UTC. Source: SOQL and SOSL Reference, date
formats and date literals, date functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

_UNITS = ("DAY", "WEEK", "MONTH", "QUARTER", "YEAR", "FISCAL_QUARTER", "FISCAL_YEAR")
_MONTHS = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}

# name -> unit, the first unit counted from the current one, number of units
_FIXED: dict[str, tuple[str, int, int]] = {
    "TODAY": ("DAY", 0, 1),
    "YESTERDAY": ("DAY", -1, 1),
    "TOMORROW": ("DAY", 1, 1),
    "LAST_90_DAYS": ("DAY", -90, 91),  # with today, so 91 days
    "NEXT_90_DAYS": ("DAY", 1, 90),
    **{
        f"{word}_{unit}": (unit, first, 1)
        for unit in _UNITS[1:]
        for word, first in (("LAST", -1), ("THIS", 0), ("NEXT", 1))
    },
}
# name -> unit, the first unit and the number of units, each as n times one number plus another
_COUNTED: dict[str, tuple[str, tuple[int, int], tuple[int, int]]] = {
    **{f"LAST_N_{unit}S": (unit, (-1, 0), (1, 0)) for unit in _UNITS},
    "LAST_N_DAYS": ("DAY", (-1, 0), (1, 1)),  # with today
    **{f"NEXT_N_{unit}S": (unit, (0, 1), (1, 0)) for unit in _UNITS},
    **{f"N_{unit}S_AGO": (unit, (-1, 0), (0, 1)) for unit in _UNITS},
}


def day_range(name: str, n: int | None, today: date) -> tuple[date, date] | None:
    """The first day of a literal and the first day after it; None if there is no such literal.

    Raises OverflowError where the range leaves the years 1 to 9999.
    """
    if n is None and name in _FIXED:
        unit, first, count = _FIXED[name]
    elif n is not None and name in _COUNTED:
        unit, (times, plus), (count_times, count_plus) = _COUNTED[name]
        first, count = times * n + plus, count_times * n + count_plus
    else:
        return None
    return _shifted(unit, today, first), _shifted(unit, today, first + count)


def _shifted(unit: str, today: date, units: int) -> date:
    """The first day of the unit that lies `units` after the one of today."""
    if unit == "DAY":
        return today + timedelta(days=units)
    if unit == "WEEK":
        return today - timedelta(days=today.isoweekday() % 7) + timedelta(weeks=units)
    size = _MONTHS[unit.removeprefix("FISCAL_")]
    start = (today.year * 12 + today.month - 1) // size * size
    year, month = divmod(start + units * size, 12)
    if not 1 <= year <= 9999:
        raise OverflowError(f"year {year}")
    return date(year, month + 1, 1)


@dataclass(frozen=True, slots=True)
class DateFunction:
    """A date function: its SQL around one `{}`, its type, and whether it needs a time of day."""

    sql: str
    type: str = "int"
    of_time: bool = False


_YEAR = DateFunction("CAST(substr({}, 1, 4) AS INTEGER)")
_MONTH = DateFunction("CAST(substr({}, 6, 2) AS INTEGER)")
_QUARTER = DateFunction("(CAST(substr({}, 6, 2) AS INTEGER) + 2) / 3")
FUNCTIONS = {
    "CALENDAR_YEAR": _YEAR, "FISCAL_YEAR": _YEAR, "CALENDAR_MONTH": _MONTH, "FISCAL_MONTH": _MONTH,
    "CALENDAR_QUARTER": _QUARTER, "FISCAL_QUARTER": _QUARTER,
    "DAY_IN_MONTH": DateFunction("CAST(substr({}, 9, 2) AS INTEGER)"),
    "DAY_IN_WEEK": DateFunction("strftime('%w', {}) + 1"),  # 1 is Sunday
    "DAY_IN_YEAR": DateFunction("CAST(strftime('%j', {}) AS INTEGER)"),
    "DAY_ONLY": DateFunction("substr({}, 1, 10)", type="date", of_time=True),
    "HOUR_IN_DAY": DateFunction("CAST(substr({}, 12, 2) AS INTEGER)", of_time=True),
    "WEEK_IN_MONTH": DateFunction("(CAST(substr({}, 9, 2) AS INTEGER) + 6) / 7"),  # the first is the 1st to the 7th
    "WEEK_IN_YEAR": DateFunction("(CAST(strftime('%j', {}) AS INTEGER) + 6) / 7"),
}  # fmt: skip
