"""When an activation is due. Pure: the past and the time come in, a trigger goes out.

The clock's schedules are a row of moments: multiples of an interval from midnight UTC of 1970-01-01, or what a cron
line matches in its time zone, by the rules of Debian's cron (cron(8), on changes of less than three hours): a moment
that a daylight-saving change skips comes right after it, one that it repeats comes once, unless the line has `*` for
the minute or the hour. Moments in quiet hours are put off to their end. Whatever has passed since the last run is run
once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from heapq import merge
from itertools import count, groupby, pairwise, takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim

from dinmo_dbt.activation import Activation, QuietHours, Schedule, ScheduleKind
from dinmo_dbt.watch.history import Trigger

_CHANGE_S = 3 * 3600  # more than any change of the clocks
BY_MOMENT = "at "  # in the place of an invocation id: when a dbt command ran that another one wrote over since
PASSED_MAX = 1000  # moments that went by without a run are counted so far


@dataclass(frozen=True, slots=True)
class Past:
    """What the state knows of an activation under one dbt target.

    `since`: when its last run that ended started, or it was first seen, looked at in vain while paused, or resumed,
    whichever is latest. `ran`: whether a run of it ever ended. `invocations`: dbt commands that its runs followed.
    `owed`: one that built its model, and that no run has followed yet, though dbt's artifacts may tell of another by
    now; '' if there is none. `owed_at`: when it was seen.
    """

    since: float
    ran: bool = False
    invocations: frozenset[str] = frozenset()
    owed: str = ""
    owed_at: float = 0.0

    def follows(self, built_by: str) -> bool:
        """Whether that dbt command has had its run."""
        return not built_by or built_by in self.invocations


def due(activation: Activation, past: Past, *, now: float, built_by: str = "") -> Trigger | None:
    """Why the activation is due now; None if it is not. `built_by` is the dbt command that last built its model, by its
    invocation id; '' where no artifact says so."""
    schedule, quiet = activation.schedule, activation.quiet_hours
    if not activation.enabled or (quiet and is_quiet(quiet, now)):
        return None
    match schedule.kind:
        case ScheduleKind.MANUAL:
            return None
        case ScheduleKind.AFTER_DBT:
            asked_by = past.owed if past.follows(built_by) else built_by
            shown = asked_by if asked_by.startswith(BY_MOMENT) else asked_by[:8]
            return Trigger("due", f"after dbt ({shown})", invocation=asked_by) if asked_by else None
        case ScheduleKind.EVERY if not past.ran:
            return Trigger("due", f"{schedule}: first run", due=now, invocation=built_by)
    moments = _since(schedule, quiet, past.since, now)
    if not moments:
        return None
    passed = len(moments) - 1
    missed = f", and {passed:,} earlier" if passed else ""
    at = datetime.fromtimestamp(moments[0], UTC).strftime("%Y-%m-%d %H:%M")
    return Trigger("due", f"{schedule}: due at {at}Z{missed}", due=moments[0], passed=passed, invocation=built_by)


def next_due(activation: Activation, past: Past, *, now: float) -> float | None:
    """The next moment the activation is due by the clock; None for a schedule without one."""
    schedule, quiet = activation.schedule, activation.quiet_hours
    if not activation.enabled or schedule.kind in (ScheduleKind.MANUAL, ScheduleKind.AFTER_DBT):
        return None
    first = schedule.kind is ScheduleKind.EVERY and not past.ran
    if first or next(_moments(schedule, now, backwards=True), past.since) > past.since:
        return _put_off(quiet, now)
    return _put_off(quiet, next(_moments(schedule, now)))


def is_quiet(quiet: QuietHours, now: float) -> bool:
    local = datetime.fromtimestamp(now, ZoneInfo(quiet.timezone))
    minute = local.hour * 60 + local.minute
    if quiet.start < quiet.end:
        return quiet.start <= minute < quiet.end
    return minute >= quiet.start or minute < quiet.end


def _put_off(quiet: QuietHours | None, moment: float) -> float:
    """The moment itself, or the end of the quiet hours it lies in."""
    if quiet is None or not is_quiet(quiet, moment):
        return moment
    zone = ZoneInfo(quiet.timezone)
    today = datetime.fromtimestamp(moment, zone).replace(
        hour=quiet.end // 60, minute=quiet.end % 60, second=0, microsecond=0
    )
    ends = (
        (today + timedelta(days=days)).replace(fold=fold).timestamp()  # by the wall's clock, which may show it twice
        for days in (0, 1)
        for fold in (0, 1)
    )
    end = next(end for end in ends if end > moment)
    if not _clocks_change(zone, moment, end):
        return end
    return next(float(minute) for minute in count(int(moment // 60 + 1) * 60, 60) if not is_quiet(quiet, minute))


def _since(schedule: Schedule, quiet: QuietHours | None, since: float, now: float) -> list[float]:
    """The moments after `since` and up to `now`, latest first, put off by quiet hours; at most so many."""
    found: list[float] = []
    for moment in takewhile(lambda moment: moment > since, _moments(schedule, now, backwards=True)):
        late = _put_off(quiet, moment)
        if late <= now and late not in found[-1:]:
            found.append(late)
        if len(found) > PASSED_MAX:
            break
    return found


def _moments(schedule: Schedule, start: float, *, backwards: bool = False) -> Iterator[float]:
    """Moments after `start`; backwards: those up to and with it, latest first."""
    if schedule.kind is ScheduleKind.EVERY:
        before = int(start // schedule.every_s)
        for number in count(before, -1) if backwards else count(before + 1):
            yield float(number * schedule.every_s)
    zone = ZoneInfo(schedule.timezone)
    # What the wall's clock shows twice is looked at from outside of both times.
    away = _CHANGE_S if _clocks_change(zone, start - _CHANGE_S, start + _CHANGE_S) else 1
    begin = datetime.fromtimestamp(int(start) + (away if backwards else -away), zone).replace(tzinfo=None)
    folds = (0,) if _has_hours(schedule.cron) else (0, 1)
    shown = (_shown(schedule.cron, zone, begin, fold, backwards) for fold in folds)
    for moment, _ in groupby(merge(*shown, reverse=backwards)):
        if (moment <= start) == backwards:
            yield moment


def _has_hours(line: str) -> bool:
    """Whether a cron line names minutes and hours, and is so to Debian's cron a job that a change of the clocks neither
    drops nor repeats."""
    return not any(part.startswith("*") for part in line.split()[:2])


def _shown(line: str, zone: ZoneInfo, begin: datetime, fold: int, backwards: bool) -> Iterator[float]:
    """When the wall's clock shows what the line matches: of two times the first or, by `fold`, the second. cronsim is
    asked without a zone: with one it loses moments where clocks change by half an hour."""
    for wall in CronSim(line, begin, reverse=backwards):
        moment = _moment(wall, zone, fold)
        if moment is None and _has_hours(line):
            after = (wall + timedelta(minutes=minutes) for minutes in count(1))
            moment = next(found for each in after if (found := _moment(each, zone, fold)) is not None)
        if moment is not None:
            yield moment


def _moment(wall: datetime, zone: ZoneInfo, fold: int) -> float | None:
    """None where the clock is put forward past it."""
    moment = wall.replace(tzinfo=zone, fold=fold).timestamp()
    return moment if datetime.fromtimestamp(moment, zone).replace(tzinfo=None, fold=0) == wall else None


def _clocks_change(zone: ZoneInfo, start: float, end: float) -> bool:
    return datetime.fromtimestamp(start, zone).utcoffset() != datetime.fromtimestamp(end, zone).utcoffset()


# For schedulers outside


def wakes(activations: Sequence[Activation], *, now: float, zone: tzinfo = UTC, least: int = 1) -> list[str]:
    """Cron lines, by the clock of `zone`, that between them come at every moment at which one of the activations is due
    by the clock, and may come more often: `sync --due` at each runs what is due then. Sorted; none for `after_dbt` and
    `manual`. `least`: minutes that a line leaves between two of its moments.

    A cron line of a time zone comes at the hours that it has with each offset of a year; a moment that a
    daylight-saving change skips is met within the hour after. Where `zone` itself changes its clock a line comes every
    hour: what a cron does with the hours that are skipped and repeated differs from cron to cron.
    """
    lines = {line for declared in activations if declared.enabled for line in _wakes(declared, now, zone, least)}
    return sorted(lines)


def _wakes(activation: Activation, now: float, zone: tzinfo, least: int) -> Iterator[str]:
    schedule, quiet = activation.schedule, activation.quiet_hours
    if schedule.kind in (ScheduleKind.AFTER_DBT, ScheduleKind.MANUAL):
        return
    if schedule.kind is ScheduleKind.CRON:
        yield _of_cron(schedule, now, zone, least)
    else:
        minutes = schedule.every_s // 60
        yield _line({number * minutes % 1440 for number in range(1440)}, "* * *", _offsets(UTC, zone, now), least)
    if quiet:
        over = f"{quiet.end % 60} {quiet.end // 60} * * *"
        ended = Schedule(ScheduleKind.CRON, cron=over, timezone=quiet.timezone)
        yield _of_cron(ended, now, zone, least)


def _of_cron(schedule: Schedule, now: float, zone: tzinfo, least: int) -> str:
    own = ZoneInfo(schedule.timezone)
    line = CronSim(schedule.cron, datetime.fromtimestamp(now, own))
    starts = {hour * 60 + minute for hour in line.hours for minute in line.minutes}
    of_month, month, of_week = schedule.cron.split()[2:]
    if "7" in of_week:  # Sunday too for crontab(5), nothing for GitHub Actions
        of_week = _cron_field({day % 7 for day in line.weekdays if isinstance(day, int)}, 7)
    return _line(starts, f"{of_month} {month} {of_week}", _offsets(own, zone, now), least)


def _offsets(own: tzinfo, zone: tzinfo, now: float) -> tuple[set[int], bool]:
    """By how many minutes the clock of `zone` is ahead of `own`'s within a year, and whether it is set within it."""
    days = [now + day * 86400 for day in range(366)]
    there, here = ([_offset(clock, at) for at in days] for clock in (zone, own))
    return {theirs - ours for theirs, ours in zip(there, here, strict=True)}, len(set(there)) > 1


def _offset(zone: tzinfo, at: float) -> int:
    offset = datetime.fromtimestamp(at, zone).utcoffset()
    assert offset is not None
    return int(offset.total_seconds()) // 60


def _line(starts: set[int], day_fields: str, offsets: tuple[set[int], bool], least: int) -> str:
    """A line for these minutes of a day by one clock, by another."""
    ahead, is_set = offsets
    shifted = {start + minutes for start in starts for minutes in ahead}
    if is_set or any(not 0 <= start < 1440 for start in shifted):
        day_fields = "* * *"  # on another day there
    minutes, hours = {start % 60 for start in shifted}, {start // 60 % 24 for start in shifted}
    if _closest(minutes) < least:
        minutes = set(range(0, 60, least))
    return f"{_cron_field(minutes, 60)} {'*' if is_set else _cron_field(hours, 24)} {day_fields}"


def _closest(minutes: set[int]) -> int:
    """The shortest time between two minutes of an hour and the next."""
    inorder = sorted(minutes)
    return min(after - before for before, after in pairwise([*inorder, inorder[0] + 60]))


def _cron_field(numbers: set[int], size: int) -> str:
    if len(numbers) == size:
        return "*"
    step = size // len(numbers)
    if len(numbers) > 1 and numbers == set(range(0, size, step)):
        return f"*/{step}"
    return ",".join(str(number) for number in sorted(numbers))
