"""When an activation is due: laws over drawn schedules, and the days on which clocks change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count, islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from config_cases import activation, block, manifest, node
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from dinmo_dbt.activation import Activation, QuietHours, Schedule, ScheduleKind
from dinmo_dbt.artifacts.declared import activations
from dinmo_dbt.watch.schedule import Past, due, is_quiet, next_due, wakes

PARIS = ZoneInfo("Europe/Paris")
START = datetime(2026, 10, 20, tzinfo=UTC).timestamp()
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


DECLARED = activations(manifest(node(dinmo=block(activation()))), {}).activations[0]


def scheduled(schedule: Schedule, quiet: QuietHours | None = None) -> Activation:
    return replace(DECLARED, schedule=schedule, quiet_hours=quiet)


def every(seconds: int) -> Schedule:
    return Schedule(ScheduleKind.EVERY, every_s=seconds)


def cron(line: str, timezone: str = "Europe/Paris") -> Schedule:
    return Schedule(ScheduleKind.CRON, cron=line, timezone=timezone)


def at(text: str, zone: ZoneInfo = PARIS) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def runs(declared: Activation, start: float, end: float, *, tick: float = MINUTE) -> list[float]:
    """The moments at which a scheduler that looks every `tick` seconds starts a run."""
    past, started, now = Past(start, ran=True), [], start
    while now <= end:
        if due(declared, past, now=now):
            started.append(now)
            past = replace(past, since=now)
        now += tick
    return started


crons = st.builds(
    "{} {} * * {}".format,
    st.sampled_from(["0", "30", "*/15", "5,35", "59"]),
    st.sampled_from(["*", "2", "1-3", "0", "23", "*/6"]),
    st.sampled_from(["*", "1-5", "0,6"]),
)
zones = st.sampled_from(["Europe/Paris", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "UTC"])
schedules = st.one_of(
    st.integers(1, 2000).map(lambda minutes: every(minutes * 60)),
    st.builds(cron, crons, zones),
)
quiets = (
    st.none()
    | st.builds(QuietHours, st.integers(0, 719), st.integers(720, 1439), zones)
    | st.builds(QuietHours, st.integers(720, 1439), st.integers(0, 719), zones)
)
moments = st.integers(int(at("2026-01-01T00:00:00")), int(at("2027-01-01T00:00:00"))).map(float)


@given(schedules, quiets, moments, st.integers(0, 10 * 86400))
def test_it_is_due_from_the_next_moment_on_and_not_before(
    schedule: Schedule, quiet: QuietHours | None, since: float, later: int
) -> None:
    declared, past = scheduled(schedule, quiet), Past(since, ran=True)
    coming = next_due(declared, past, now=since)
    assert coming is not None and coming > since
    now = since + later
    found = due(declared, past, now=now)
    if now < coming or (quiet and is_quiet(quiet, now)):
        assert found is None
    else:
        assert found is not None and found.due is not None and coming <= found.due <= now
        assert due(declared, replace(past, since=now), now=now) is None
    assert due(declared, past, now=coming) is not None


@pytest.mark.slow
@given(schedules, quiets, moments)
def test_no_run_starts_in_quiet_hours(schedule: Schedule, quiet: QuietHours | None, start: float) -> None:
    for moment in runs(scheduled(schedule, quiet), start, start + 2 * DAY, tick=7 * MINUTE):
        assert quiet is None or not is_quiet(quiet, moment)


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(st.builds(cron, crons, zones), moments)
def test_a_cron_line_runs_once_at_each_of_its_moments(schedule: Schedule, start: float) -> None:
    start = start // 60 * 60
    assert runs(scheduled(schedule), start, start + 3 * DAY) == list(walked(schedule, start, start + 3 * DAY))


def walked(schedule: Schedule, start: float, end: float) -> Iterator[float]:
    """The moments after `start` and up to `end` by the rules of Debian's cron, as who looks at the clock each minute
    finds them."""
    zone, fixed = ZoneInfo(schedule.timezone), "*" not in (schedule.cron[0], schedule.cron.split()[1][0])
    first, last = (datetime.fromtimestamp(at, UTC).replace(tzinfo=None) for at in (start - DAY, end + DAY))
    matched = set(takewhile(lambda wall: wall < last, CronSim(schedule.cron, first)))
    for minute in range(int(start) + 60, int(end) + 1, 60):
        now = datetime.fromtimestamp(minute, zone)
        before = datetime.fromtimestamp(minute - 60, zone).replace(tzinfo=None) + timedelta(minutes=1)
        wall = now.replace(tzinfo=None, fold=0)
        skipped = {before + timedelta(minutes=m) for m in range(int((wall - before) / timedelta(minutes=1)))}
        if (fixed and skipped & matched) or (wall in matched and not (fixed and now.fold)):
            yield float(minute)


@pytest.mark.slow
@given(schedules, quiets, moments, zones, st.sampled_from([1, 5]))
def test_outside_schedulers_wake_at_every_moment_at_which_it_is_due(
    schedule: Schedule, quiet: QuietHours | None, now: float, machine: str, least: int
) -> None:
    """By the clock of the machine that they run on, wherever that is."""
    declared, zone = scheduled(schedule, quiet), ZoneInfo(machine)
    lines = wakes([declared], now=now, zone=zone, least=least)
    moment: float | None = now
    for _ in range(50):
        moment = next_due(declared, Past(moment, ran=True), now=moment)
        assert moment is not None
        if moment > now + 360 * DAY:
            break
        before = datetime.fromtimestamp(moment - 1, zone)
        wait = min(next(CronSim(line, before)).timestamp() for line in lines) - moment
        assert wait < least * MINUTE or (wait < HOUR and was_skipped(schedule, quiet, moment)), (lines, moment)
    assert all(least == 1 or closest(line) >= least for line in lines)


def closest(line: str) -> float:
    """Minutes between two moments of a line, at the least."""
    moments = [each.timestamp() for each in islice(CronSim(line, datetime(2026, 1, 1, tzinfo=UTC)), 70)]
    return min(after - before for before, after in pairwise(moments)) / MINUTE


def was_skipped(schedule: Schedule, quiet: QuietHours | None, moment: float) -> bool:
    """Whether the clocks went forward within the hour before."""
    for name in (schedule.timezone, quiet.timezone if quiet else "UTC"):
        before, after = (datetime.fromtimestamp(moment + off, ZoneInfo(name)).utcoffset() for off in (-HOUR, 0))
        assert before is not None and after is not None
        if before < after:
            return True
    return False


def test_a_moment_that_daylight_saving_skips_comes_right_after() -> None:
    found = runs(scheduled(cron("30 2 * * *")), at("2026-03-28T12:00"), at("2026-03-30T12:00"))
    assert found == [at("2026-03-29T03:00"), at("2026-03-30T02:30")]


def test_a_moment_that_daylight_saving_repeats_comes_once() -> None:
    found = runs(scheduled(cron("30 2 * * *")), at("2026-10-24T12:00"), at("2026-10-26T12:00"))
    assert found == [at("2026-10-25T02:30"), at("2026-10-26T02:30")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("Europe/Paris", "2026-03-29"),
        ("Europe/Paris", "2026-10-25"),
        ("America/New_York", "2026-03-08"),
        ("America/New_York", "2026-11-01"),
        ("Australia/Lord_Howe", "2026-04-05"),  # by half an hour
        ("Australia/Lord_Howe", "2026-10-04"),
    ],
)
@pytest.mark.parametrize(
    "line",
    [
        "30 2 * * *",
        "0 2 * * *",
        "0 3 * * *",
        "*/20 * * * *",
        "45 1 * * *",
        "50 1-3 * * *",
        "0 */6 * * *",
        "45 */4 * * *",
    ],
)
def test_whenever_it_is_looked_at_around_a_change_of_the_clocks_it_is_due_at_the_same_moments(
    line: str, zone: str, day: str
) -> None:
    """After a restart a look may come at any minute, also within the hour that is there twice."""
    declared, noon = scheduled(cron(line, zone)), datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).timestamp()
    start, end = noon - 20 * HOUR, noon + 8 * HOUR
    moments = list(walked(cron(line, zone), start, noon + 3 * DAY))
    past = Past(start, ran=True)
    for now in range(int(noon - 2 * HOUR), int(end), 60):
        passed = [moment for moment in moments if moment <= now]
        found = due(declared, past, now=now)
        assert (found and found.due, found and found.passed) == (
            (passed[-1], len(passed) - 1) if passed else (None, None)
        ), datetime.fromtimestamp(now, UTC)
        up_to_date = Past(float(now), ran=True)
        assert due(declared, up_to_date, now=now) is None
        assert next_due(declared, up_to_date, now=now) == next(moment for moment in moments if moment > now)


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-06-01"])
@pytest.mark.parametrize("hours", [(135, 165), (1320, 150), (120, 180), (1380, 240), (60, 150), (150, 61)])
def test_what_comes_in_quiet_hours_is_put_off_to_the_first_minute_without_them(
    hours: tuple[int, int], day: str
) -> None:
    """Also where the end is there twice, or the clocks pass over it."""
    quiet = QuietHours(*hours, "Europe/Berlin")
    declared = scheduled(every(1800), quiet)
    noon = datetime.fromisoformat(day).replace(tzinfo=PARIS).timestamp()
    for moment in range(int(noon - 3 * HOUR), int(noon + 6 * HOUR), 1800):
        late = next(minute for minute in count(moment, 60) if not is_quiet(quiet, minute))
        past = Past(moment - 1.0, ran=True)
        assert next_due(declared, past, now=moment) == late
        assert late == moment or due(declared, past, now=late - 60) is None
        assert due(declared, past, now=late) is not None


def test_an_hourly_line_comes_25_times_on_the_day_of_25_hours() -> None:
    found = runs(scheduled(cron("0 * * * *")), at("2026-10-24T23:30"), at("2026-10-25T23:30"))
    assert len(found) == 25


def test_what_was_missed_is_run_once_and_counted() -> None:
    declared = scheduled(every(900))
    found = due(declared, Past(START, ran=True), now=START + 3 * HOUR + 100)
    assert found is not None
    assert (found.due, found.passed) == (START + 3 * HOUR, 11)
    assert found.said == "every 15 minutes: due at 2026-10-20 03:00Z, and 11 earlier"
    long_ago = due(declared, Past(START - 365 * DAY, ran=True), now=START)
    assert long_ago is not None and long_ago.passed == 1000


def test_moments_in_quiet_hours_become_one_at_their_end() -> None:
    night = QuietHours(22 * 60, 6 * 60, "Europe/Paris")
    declared = scheduled(cron("0 * * * *"), night)
    past = Past(at("2026-10-20T21:30"), ran=True)
    assert due(declared, past, now=at("2026-10-21T05:59")) is None
    found = due(declared, past, now=at("2026-10-21T06:00"))
    assert found is not None and (found.due, found.passed) == (at("2026-10-21T06:00"), 0)
    assert next_due(declared, past, now=at("2026-10-20T22:30")) == at("2026-10-21T06:00")


def test_an_interval_starts_at_once_and_a_cron_line_waits_for_its_moment() -> None:
    first = due(scheduled(every(3600)), Past(START), now=START + 10)
    assert first is not None and (first.due, first.passed) == (START + 10, 0)
    assert due(scheduled(cron("0 6 * * *")), Past(START), now=START + 10) is None


def test_after_dbt_it_is_due_once_for_each_command_that_built_its_model() -> None:
    declared = scheduled(Schedule())
    assert due(declared, Past(START), now=START) is None
    found = due(declared, Past(START), now=START, built_by="abcdef-123456")
    assert found is not None and (found.invocation, found.due) == ("abcdef-123456", None)
    assert (
        due(declared, Past(START, invocations=frozenset({"abcdef-123456"})), now=START, built_by="abcdef-123456")
        is None
    )
    assert next_due(declared, Past(START), now=START) is None


@pytest.mark.parametrize(
    ("built_by", "followed", "owed", "expected"),
    [
        ("", (), "first", "first"),  # another dbt command has written its artifacts meanwhile
        ("second", (), "first", "second"),  # which has built it too
        ("second", ("second",), "first", "first"),
        ("first", ("first",), "", None),
        ("", (), "", None),
    ],
)
def test_after_dbt_what_is_owed_is_due_until_a_later_build_takes_its_place(
    built_by: str, followed: tuple[str, ...], owed: str, expected: str | None
) -> None:
    past = Past(START, invocations=frozenset(followed), owed=owed)
    found = due(scheduled(Schedule()), past, now=START, built_by=built_by)
    assert (found.invocation if found else None) == expected
    quiet = replace(scheduled(Schedule()), quiet_hours=QuietHours(0, 1439, "UTC"))
    assert due(quiet, past, now=START, built_by=built_by) is None


@pytest.mark.parametrize("schedule", [Schedule(ScheduleKind.MANUAL), every(60), Schedule(), cron("* * * * *")])
def test_what_is_disabled_or_manual_is_never_due(schedule: Schedule) -> None:
    declared = scheduled(schedule)
    if schedule.kind is not ScheduleKind.MANUAL:
        declared = replace(declared, enabled=False)
    assert due(declared, Past(0.0), now=START, built_by="x") is None
    assert next_due(declared, Past(0.0), now=START) is None
    assert wakes([declared], now=START) == []


def test_wakes_are_short_where_they_can_be() -> None:
    wanted = {
        every(900): ["*/15 * * * *"],
        every(45 * 60): ["*/15 * * * *"],
        every(6 * 3600): ["0 */6 * * *"],
        every(5 * 3600): ["0 * * * *"],
        every(2 * 86400): ["0 0 * * *"],
        cron("0 6 * * 1-5"): ["0 4,5 * * 1-5"],
        cron("0 1 * * 1-5"): ["0 0,23 * * *"],
        cron("*/5 * * * *"): ["*/5 * * * *"],
        cron("0 12 * * 5-7", "UTC"): ["0 12 * * 0,5,6"],
    }
    for schedule, lines in wanted.items():
        assert wakes([scheduled(schedule)], now=START) == lines
    assert wakes([scheduled(every(60)), scheduled(every(60))], now=START) == ["* * * * *"]
