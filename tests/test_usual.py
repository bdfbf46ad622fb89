"""What is usual for a number of rows or a duration, and how often that errs."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinmo_dbt.watch.usual import RUNS, RUNS_MIN, Measure, usual_rows, usual_seconds

DAY = 86400.0
SEED = 20260304


def measures(values: list[float], step: float = DAY) -> list[Measure]:
    """Newest first, as the history has them."""
    return [Measure(number * step, value) for number, value in enumerate(values)][::-1]


def is_usual(values: list[float], now: float, percent: Decimal | None = None) -> bool:
    bands = usual_rows(measures(values), len(values) * DAY, percent)
    return not bands or any(band.holds(now) for band in bands)


Growth = Callable[[random.Random, int], float]
SERIES: dict[str, Growth] = {
    "steady, 1% noise": lambda chance, day: 10_000 * chance.gauss(1, 0.01),
    "steady, 5% noise": lambda chance, day: 10_000 * chance.gauss(1, 0.05),
    "few rows, 15% noise": lambda chance, day: 40 * chance.gauss(1, 0.15),
    "a fifth at weekends": lambda chance, day: 10_000 * (0.2 if day % 7 > 4 else 1) * chance.gauss(1, 0.05),
    "0.5% more a day": lambda chance, day: 10_000 * 1.005**day * chance.gauss(1, 0.02),
    "2% more a day": lambda chance, day: 10_000 * 1.02**day * chance.gauss(1, 0.02),
}
# At most so many false alarms in 1,000 runs, and at least so many percent of halvings seen.
HELD: dict[str, tuple[float, float]] = {
    "steady, 1% noise": (0.5, 99),
    "steady, 5% noise": (4, 95),
    "few rows, 15% noise": (4, 5),  # half of 40 is within what such a number does by itself
    "a fifth at weekends": (4, 65),
    "0.5% more a day": (1, 90),
    "2% more a day": (1, 0),  # doubles in five weeks: half of it was usual a month ago
}


@pytest.mark.parametrize("name", SERIES)
def test_the_usual_band_errs_as_rarely_as_was_measured(name: str) -> None:
    """From the fourth week on; the first weekends of a new activation may well be told of."""
    chance = random.Random(SEED)
    alarms = seen = runs = 0
    for _ in range(20):
        values = [float(round(SERIES[name](chance, day))) for day in range(130)]
        for day in range(28, 130):
            runs += 1
            alarms += not is_usual(values[:day], values[day])
            seen += not is_usual(values[:day], values[day] // 2)
    false, halved = 1000 * alarms / runs, 100 * seen / runs
    print(f"seed {SEED}, {name}: {false:.1f} false alarms in 1,000 runs, {halved:.0f}% of halvings seen")
    most, least = HELD[name]
    assert false <= most
    assert halved >= least


def test_an_empty_table_is_seen_whatever_the_number_did_before() -> None:
    chance = random.Random(SEED)
    for series in SERIES.values():
        values = [float(round(series(chance, day))) for day in range(60)]
        if series is not SERIES["2% more a day"]:
            assert not is_usual(values, 0), f"seed {SEED}"


def test_a_level_that_lasted_ten_runs_is_usual_and_the_old_one_is_not() -> None:
    values = [10_000.0] * 30 + [5_000.0] * 10
    assert is_usual(values, 5_000)
    assert not is_usual(values, 2_500)


def test_few_runs_say_nothing_but_for_a_percentage() -> None:
    assert usual_rows(measures([100.0] * (RUNS_MIN - 1)), 0) == ()
    assert usual_seconds(measures([100.0] * (RUNS_MIN - 1))) == ()
    assert is_usual([100.0], 129, Decimal(30))
    assert not is_usual([100.0], 131, Decimal(30))


def test_runs_of_one_day_are_no_weekday() -> None:
    every_hour = measures([100.0] * 20, step=3600)
    assert len(usual_rows(every_hour, 21 * 3600.0)) == 1
    assert len(usual_rows(measures([100.0] * 20), 20 * DAY)) == 2


@given(st.lists(st.integers(0, 10**9), min_size=RUNS_MIN, max_size=40))
def test_the_median_is_usual_and_so_is_a_number_that_never_moves(values: list[int]) -> None:
    numbers = [float(value) for value in values]
    for band in (*usual_rows(measures(numbers), 41 * DAY), *usual_seconds(measures(numbers))):
        assert band.holds(band.middle)
    assert is_usual([numbers[0]] * RUNS, numbers[0])


@pytest.mark.parametrize(("seconds", "usual"), [(1, True), (29, True), (69, True), (71, False)])
def test_a_duration_is_unusual_past_three_times_the_median_and_a_minute(seconds: float, usual: bool) -> None:
    (band,) = usual_seconds(measures([10.0] * RUNS))
    assert band.holds(seconds) == usual
