"""What must come of the fortnight, worked out from the world's own facts by other means than the code's.

Moments are walked forwards, minute by minute, on the wall clocks of their zones. What runs owe to people is worked out
from what each run met. From the state only what is beyond doubt is read: which runs ended, and what is paused.
"""

from __future__ import annotations

import json
import re
import sqlite3
from bisect import bisect_right
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from dinmo_dbt.activation import Activation, QuietHours, ScheduleKind, WarningKind
from dinmo_dbt.channels import goes_on
from dinmo_dbt.config.channel import Channel
from dinmo_dbt.watch.notice import Severity

from .process import Process, database
from .world import DAY, LIMIT, LOGIN, MINUTE, PLACES, READ, SCHEMA, TARGET, UNREACHED, World

PROBE_PAUSE_S = 900.0  # what paused by itself may be left alone for so long
LASTING = (LOGIN, SCHEMA)
DONE = ("success", "rejected")
K = WarningKind


class Broken(AssertionError):
    """A law does not hold. `at`: when that came about; None: now."""

    def __init__(self, what: str, at: float | None = None) -> None:
        super().__init__(what)
        self.at = at


# When activations are due


def is_quiet(quiet: QuietHours | None, at: float) -> bool:
    if quiet is None:
        return False
    local = datetime.fromtimestamp(at, ZoneInfo(quiet.timezone))
    now = local.hour * 60 + local.minute
    return quiet.start <= now < quiet.end if quiet.start < quiet.end else now >= quiet.start or now < quiet.end


def moments(declared: Activation, start: float, end: float) -> list[tuple[float, float]]:
    """When the activation is due by the clock, and to when quiet hours put that off; in order."""
    schedule = declared.schedule
    if schedule.kind is ScheduleKind.EVERY:
        first = int(start // schedule.every_s) + 1
        found = [float(n * schedule.every_s) for n in range(first, int(end // schedule.every_s) + 1)]
    elif schedule.kind is ScheduleKind.CRON:
        found = list(cron_moments(schedule.cron, schedule.timezone, start, end))
    else:
        found = []
    return [(moment, put_off(declared.quiet_hours, moment)) for moment in found]


def put_off(quiet: QuietHours | None, moment: float) -> float:
    while is_quiet(quiet, moment):
        moment = (moment // MINUTE + 1) * MINUTE
    return moment


def cron_moments(line: str, zone: str, start: float, end: float) -> list[float]:
    """By the rules of Debian's cron: a line with fixed hours comes once at an hour that is repeated, and right after
    one that is skipped; one with a wildcard follows the clock on the wall."""
    fields = [_numbers(text, *bounds) for text, bounds in zip(line.split(), _BOUNDS, strict=True)]
    minute_text, hour_text, day_text, _, weekday_text = line.split()
    follows = minute_text.startswith("*") or hour_text.startswith("*")
    either = day_text != "*" and weekday_text != "*"

    def matches(wall: datetime) -> bool:
        minutes, hours, days, months, weekdays = fields
        day, weekday = wall.day in days, wall.isoweekday() % 7 in weekdays
        fits = (day or weekday) if either else (day and weekday)
        return wall.minute in minutes and wall.hour in hours and wall.month in months and fits

    found, tz = [], ZoneInfo(zone)
    at = (int(start) // 60 + 1) * 60
    before = datetime.fromtimestamp(at - 60, tz).replace(tzinfo=None)
    for moment in range(at, int(end) + 1, 60):
        aware = datetime.fromtimestamp(moment, tz)
        wall, again = aware.replace(tzinfo=None, fold=0), aware.fold == 1
        skipped = wall - before - timedelta(minutes=1)
        gap = range(int(skipped.total_seconds()) // 60)
        late = not follows and any(matches(before + timedelta(minutes=1 + n)) for n in gap)
        if late or (matches(wall) and (follows or not again)):
            found.append(float(moment))
        before = wall
    return found


_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


def _numbers(text: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        bounds = (low, high) if span == "*" else (int(first), int(last or first))
        found |= set(range(bounds[0], bounds[1] + 1, int(step or 1)))
    return found


# What happened


@dataclass(frozen=True)
class Ended:
    """A run that ended, as the state has it."""

    run_id: str
    name: str
    started: float
    finished: float
    status: str
    code: str
    trigger: str
    invocation: str


@dataclass(frozen=True)
class Paused:
    at: float
    by_itself: bool


@dataclass
class Book:
    """What is known of one activation."""

    declared: Activation
    due: list[tuple[float, float]]
    cover: float  # everything due up to here is done
    ran: bool = False
    invocations: set[str] = field(default_factory=set)
    owed: tuple[str, float] | None = None  # a dbt command that was noted, for a run to follow, and when
    started: float = 0.0  # its last run that ended
    paused: Paused | None = None
    since: float = 0.0  # while it is paused by itself: when it was last looked at
    done: bool = False
    lasting: int = 0  # runs in a row that failed for a lasting reason
    standing: dict[WarningKind, bool] = field(default_factory=dict)  # and whether critical
    expects_pause: bool = False

    def pending(self, now: float) -> tuple[int, float]:
        """How many moments are due by now, and the latest of them."""
        start = bisect_right(self.due, (self.cover, float("inf")))
        overdue = {late for raw, late in self.due[start : bisect_right(self.due, (now, float("inf")))] if late <= now}
        if self.declared.schedule.kind is ScheduleKind.EVERY and not self.ran:
            return 1, now
        return len(overdue), max(overdue, default=0.0)


class Judge:
    """Looks on, and says what is broken."""

    def __init__(self, world: World) -> None:
        self.world = world
        end = world.end + 2 * DAY
        self.books = {a.name: Book(a, moments(a, world.start, end), cover=world.start) for a in world.activations}
        self.pendings: dict[int, dict[str, tuple[int, float]]] = {}  # by process
        self.live: list[Process] = []
        self.seen: set[str] = set()
        self.ended: dict[str, Ended] = {}
        self.expected: Counter[tuple[str, ...]] = Counter()
        self.critical: dict[tuple[str, ...], bool] = {}
        self.doubles: Counter[tuple[str, str]] = Counter()
        self.all_down = False
        self.digests: set[float] = set()
        self.digests_maybe: set[float] = set()
        self.first_digest: float | None = None
        self.counts: Counter[str] = Counter()

    # On the way

    def begin(self, process: Process) -> None:
        self.observe()
        self.live.append(process)
        now = self.world.now
        self.pendings[process.number] = {name: self._pending(book, process, now) for name, book in self.books.items()}
        process.paused = {name: book.paused for name, book in self.books.items()}  # type: ignore[attr-defined]
        process.since = {name: book.since for name, book in self.books.items()}  # type: ignore[attr-defined]

    def _pending(self, book: Book, process: Process, now: float) -> tuple[int, float]:
        declared = book.declared
        if not declared.enabled or is_quiet(declared.quiet_hours, now):
            return 0, 0.0
        if declared.schedule.kind is ScheduleKind.AFTER_DBT:
            return int(self._is_new(book, process) or book.owed is not None), 0.0
        return book.pending(now)

    @staticmethod
    def _is_new(book: Book, process: Process) -> bool:
        """Whether dbt built its model by a command that no run has followed."""
        return book.declared.name in process.dbt.built and process.dbt.invocation not in book.invocations

    def end(self, process: Process) -> None:
        """The process is over, dead or not."""
        self.observe()
        process.ended = self.world.now
        self.live.remove(process)
        if process.dead:
            self.counts["processes killed"] += 1
            for pair in process.unrecorded:
                self.doubles[pair] += 1
        elif process.what == "due":
            if not process.raised_all:
                self._noted(process)
            self._nothing_left(process)
        if process.what == "due" or process.what == "hand":
            self._all(process)
        del self.pendings[process.number]

    def observe(self) -> None:
        """What ended since, and what paused: of every process that lives."""
        path = database(self.world)
        if not path.exists():
            return
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            for process in self.live:
                ids = [run_id for run_id in process.run_ids if run_id not in self.seen]
                marks = ",".join("?" * len(ids))
                rows = connection.execute(
                    "SELECT id, name, started, finished, status, detail FROM run "
                    f"WHERE id IN ({marks}) AND finished IS NOT NULL ORDER BY finished, id",
                    ids,
                ).fetchall()
                for row in rows:
                    self.seen.add(row[0])
                    if row[4] != "interrupted":
                        self._run(process, _ended(row))
                    elif not process.dead:
                        raise Broken(f"{row[1]}: run {row[0]} was interrupted, and its process lives")
            rows = connection.execute("SELECT name, since, paused, by_itself, owed, owed_at FROM activity").fetchall()
            standing = connection.execute("SELECT count(*) FROM standing WHERE name = ''").fetchone()[0]
        for name, since, at, by_itself, owed, owed_at in rows:
            if name in self.books:
                self._owe(self.books[name], (owed, owed_at) if owed else None)
                self._pause(self.books[name], since, Paused(at, bool(by_itself)) if at is not None else None)
        if bool(standing) != self.all_down:
            self.all_down = bool(standing)
            self.expected["all", "down" if standing else "up"] += 1

    def _owe(self, book: Book, now: tuple[str, float] | None) -> None:
        before, name = book.owed, book.declared.name
        if now == before:
            return
        if now is not None:
            self.counts["dbt commands noted"] += 1
            if before and now[0] <= before[0]:
                raise Broken(f"{name}: dbt {now[0]} is noted in the place of {before[0]}, which came later")
        elif before and before[0] not in book.invocations and book.started < before[1]:
            raise Broken(f"{name}: dbt {before[0]} is forgotten, and no run followed it")
        book.owed = now

    def _pause(self, book: Book, since: float, now: Paused | None) -> None:
        before, name = book.paused, book.declared.name
        told = WarningKind.PAUSED in book.declared.warnings
        if now != before:
            if before is not None and (now is None or now.by_itself):
                self.world.tell(f"{name} is resumed")
                self.counts["resumed by itself" if before.by_itself and not self._by_hand else "resumed by hand"] += 1
                self.expected["pause", name, "resumed"] += told
                if self._by_hand:
                    book.cover = max(book.cover, since)
            if now is not None and now.by_itself:
                self.world.tell(f"{name} pauses by itself")
                self.counts["paused by itself"] += 1
                if not book.expects_pause:
                    raise Broken(f"{name} paused by itself after {book.lasting} runs that failed for a lasting reason")
                book.expects_pause = False
            elif now is not None:
                self.world.tell(f"{name} is paused by hand")
                self.counts["paused by hand"] += 1
                self.expected["pause", name, "paused"] += told
        elif now is not None and now.by_itself and since > book.since:
            book.cover = max(book.cover, since)  # it was looked at in vain
        if now is not None and now.by_itself and book.expects_pause:
            raise Broken(f"{name} has paused already, and was to pause")
        if book.expects_pause:
            raise Broken(f"{name} did not pause after {book.lasting} runs that failed for a lasting reason")
        book.paused, book.since = now, since

    @property
    def _by_hand(self) -> bool:
        return any(process.what in ("pause", "resume") for process in self.live[-1:])

    def _run(self, process: Process, run: Ended) -> None:
        """A run that ended."""
        book, world = self.books[run.name], self.world
        self.ended[run.run_id] = run
        declared = book.declared
        world.tell(f"{run.name} ran by {process.number}: {run.status} {run.code} ({run.trigger})", run.finished)
        pending = self.pendings[process.number][run.name]
        kind = "by hand" if run.trigger == "by_hand" else declared.schedule.kind.value
        self.counts[f"runs {kind}"] += 1
        self.counts[f"ended {run.status}"] += 1
        number = 0
        if run.trigger != "by_hand":
            self._was_due(process, book, run)
            if kind != "after_dbt":
                number = pending[0]
                self.counts["moments"] += number
                self.counts["made up for later"] += number > 1 or run.started - pending[1] > 10 * MINUTE
        paused = process.paused[run.name]  # type: ignore[attr-defined]
        if paused and not paused.by_itself:
            raise Broken(f"{run.name} ran although it was paused by hand")
        if book.paused and not book.paused.by_itself and book.paused.at < run.started:
            raise Broken(f"{run.name} ran although it had been paused by hand meanwhile")
        if not declared.enabled:
            raise Broken(f"{run.name} ran although it is not enabled")
        self._judge(process, book, run, pending)
        book.cover, book.ran = max(book.cover, run.started), True
        book.started = max(book.started, run.started)
        if book.owed and run.invocation == book.owed[0] != process.dbt.invocation:
            self.counts["followed later dbt commands"] += 1
        if run.invocation:
            book.invocations.add(run.invocation)

    def _was_due(self, process: Process, book: Book, run: Ended) -> None:
        if is_quiet(book.declared.quiet_hours, run.started):
            raise Broken(f"{run.name} ran in its quiet hours, {_at(run.started)}")
        if process.what != "due":
            raise Broken(f"{run.name} ran as due by a command that runs nothing that is due")
        if self._pending(book, process, run.started)[0] == 0:
            raise Broken(f"{run.name} ran at {_at(run.started)} and nothing was due since {_at(book.cover)}")

    def _noted(self, process: Process) -> None:
        """What dbt built and no run has followed yet is noted: its next command leaves no word of it."""
        for name in sorted(process.dbt.built - process.dbt.failed):
            book = self.books[name]
            if not book.declared.enabled or book.declared.schedule.kind is not ScheduleKind.AFTER_DBT:
                continue
            if self._is_new(book, process) and (book.owed is None or book.owed[0] < process.dbt.invocation):
                raise Broken(f"{name}: dbt {process.dbt.invocation} built it, and that is neither followed nor noted")

    def _nothing_left(self, process: Process) -> None:
        """Of what was due when a process looked that came to its end, nothing is."""
        for name, (number, latest) in self.pendings[process.number].items():
            book = self.books[name]
            if not number or process.raised_all:
                continue
            if book.declared.schedule.kind is ScheduleKind.AFTER_DBT:
                owed = book.owed is not None and book.owed[1] < process.began
                if not self._is_new(book, process) and not owed:
                    continue
            elif book.ran and book.cover >= latest:
                continue
            paused, since = process.paused[name], process.since[name]  # type: ignore[attr-defined]
            now = book.paused
            if any(each and not each.by_itself for each in (paused, now)):
                continue
            facts = process.met.get(name)
            rests = process.began - since < PROBE_PAUSE_S and not (book.owed and book.owed[1] > since)
            if paused and (rests or (facts and facts.stops_probe)):
                continue
            if any(is_quiet(book.declared.quiet_hours, at) for at in _minutes(process.began, process.ended)):
                continue
            if any(other.at == name for other in self.live):
                continue
            raise Broken(f"{name} was due at {_at(latest or process.began)} and did not run at {_at(process.began)}")

    # What people are told

    def _judge(self, process: Process, book: Book, run: Ended, pending: tuple[int, float]) -> None:
        facts, name = process.met.get(run.name), run.name
        blocked = name in process.dbt.failed and name in process.dbt.built
        status, code, drawn = self._owed(process, book, run)
        fits = run.status in DONE if status == "done" else run.status == status and run.code == code
        if not fits:
            raise Broken(f"{name}: run {run.run_id} is {run.status} {run.code}, and met {status} {code}")
        trouble = facts.trouble if facts and not blocked and not facts.login else ""
        found: dict[WarningKind, bool | None] = {
            K.FAILED: True if status == "failed" else False if status == "done" else None,
            K.REFUSED: True if status in ("refused", "blocked") else False if status == "done" else None,
            K.REJECTED: (trouble == "bad") if status == "done" else None,
            K.EMPTY: (trouble == "empty") if drawn and trouble != "twice" else None,
            K.DRIFT: True if code == SCHEMA else False if drawn else None,
            K.API_BUDGET: True if code == LIMIT else None if blocked or not facts or facts.login else False,
            K.MISSED: None,
        }
        clocked = book.declared.schedule.kind in (ScheduleKind.EVERY, ScheduleKind.CRON)
        if run.trigger != "by_hand" and clocked:
            limit = book.declared.warnings[K.MISSED].limit if K.MISSED in book.declared.warnings else 0.0
            assert isinstance(limit, float)
            found[K.MISSED] = run.started - pending[1] > limit or pending[0] > 1
        self._tell(book, run, found, _CAUSED.get(code, ()))
        book.done = book.done or status == "done"
        if book.done:
            self.world.done.add(name)
        book.lasting = book.lasting + 1 if code in LASTING else 0
        limit_runs = book.declared.auto_pause
        if limit_runs is not None and code in LASTING and book.lasting >= limit_runs:
            book.expects_pause = True
            if K.PAUSED in book.declared.warnings:
                self._expect((run.run_id, "paused"), book.declared.warnings[K.PAUSED].critical)

    def _owed(self, process: Process, book: Book, run: Ended) -> tuple[str, str, bool]:
        """The status that what it met makes of a run, its code, and whether a plan was drawn."""
        facts, name = process.met.get(run.name), run.name
        if name in process.dbt.failed and name in process.dbt.built:
            return "blocked", "DB450", False
        if facts is None:
            raise Broken(f"{name}: run {run.run_id} met nothing")
        if facts.login:
            return "failed", facts.login, False
        if facts.trouble in ("limit", "schema", "read"):
            return "failed", {"limit": LIMIT, "schema": SCHEMA, "read": READ}[facts.trouble], False
        if facts.trouble in ("empty", "twice"):
            return "refused", {"empty": "DB402", "twice": "DB410"}[facts.trouble], True
        if name in process.cut:
            return "failed", UNREACHED, True
        return "done", "", True

    def _tell(self, book: Book, run: Ended, found: dict[WarningKind, bool | None], caused: tuple[str, ...]) -> None:
        watches = book.declared.warnings
        begun, over = [], []
        for kind, bad in found.items():
            if kind not in watches or bad is None:
                continue
            if bad and kind not in book.standing:
                begun.append(kind)
            elif not bad and kind in book.standing:
                over.append(kind)
        was = {kind: book.standing.pop(kind) for kind in over}
        book.standing |= {kind: watches[kind].critical for kind in begun}
        # That an org's calls are used up is told of the first of its activations, and is over with the last.
        org = [other for other in self.books.values() if other.declared.destination == book.declared.destination]
        if any(K.API_BUDGET in other.standing for other in org if other is not book):
            begun, over = [[kind for kind in kinds if kind is not K.API_BUDGET] for kinds in (begun, over)]
        for kinds in (
            [kind for kind in over if kind is not K.API_BUDGET],
            [K.API_BUDGET] if K.API_BUDGET in over else [],
        ):
            if kinds:
                self._expect((run.run_id, "over", *sorted(kinds)), any(was[kind] for kind in kinds))
        together = [kind for kind in begun if kind in caused]
        for kinds in ([together] if together else []) + [[kind] for kind in begun if kind not in caused]:
            self._expect((run.run_id, "begun", *sorted(kinds)), any(watches[kind].critical for kind in kinds))

    def _expect(self, key: tuple[str, ...], critical: bool) -> None:
        self.expected[key] += 1
        self.critical[key] = critical

    def _all(self, process: Process) -> None:
        if process.dead:
            return
        if process.raised_all != self.all_down:
            raise Broken(f"what keeps all from running was {'met' if process.raised_all else 'over'}, and is not told")

    def digest(self, process: Process, *, ended: bool) -> None:
        """A command came to its messages."""
        end = _last_digest(self.world.now)
        if self.first_digest is None:
            self.first_digest = end
        if end > self.first_digest:
            (self.digests if ended else self.digests_maybe).add(end)

    # At the end

    def close(self) -> None:
        """Compare what was received with what was owed, channel by channel."""
        received: dict[str, Counter[tuple[str, ...]]] = {place: Counter() for place in PLACES}
        times: Counter[tuple[str, str]] = Counter()
        for taken in self.world.taken:
            pair = (taken.notice.id, taken.place)
            times[pair] += 1
            if times[pair] == 1:
                received[taken.place][_key(taken.notice.id, taken.notice.title)] += 1
        moot = {each for each in self._moot() if each[:2] not in times}
        for id, place, title in moot:
            received[place][_key(id, title)] += 1
        self.counts["refused, with a later one of its incident taken"] = len(moot)
        for channel in self.world.project.channels:
            self._incidents(channel)
        for pair, number in times.items():
            if number - 1 > self.doubles[pair]:
                raise Broken(f"{pair[0]} was sent to {pair[1]} {number} times; of kills between sending and noting "
                             f"there were {self.doubles[pair]}")  # fmt: skip
        self.counts["sent twice"] = sum(number - 1 for number in times.values())
        self.counts["killed between sending and noting"] = sum(self.doubles.values())
        sure = Counter(self.expected)
        for end in self.digests:
            sure["digest", f"{end:.0f}"] += 1
        for place in PLACES:
            got = received[place]
            owed = Counter({key: n for key, n in sure.items() if n and self._takes(place, key)})
            got = Counter({key: n for key, n in got.items() if self._takes(place, key)}) if place == PLACES[0] else got
            for end in self.digests_maybe - self.digests:
                got.pop(("digest", f"{end:.0f}"), None)
            missing, more = owed - got, got - owed
            for what, keys in (("never got", missing), ("got, and nobody owed it,", more)):
                if keys:
                    first = min(keys)
                    run = self.ended.get(first[0])
                    of = f"{run.name} {run.status} {run.code} at {_at(run.finished)}: " if run else ""
                    at = run.finished if run else self.world.now
                    raise Broken(f"{place} {what} {of}{' '.join(first)}, and {len(keys) - 1} more", at)
        for key in received[PLACES[0]]:
            what = {"begun": "warnings", "over": "recoveries"}.get(key[1], f"{key[0]} {key[1]}")
            if key[0] == "pause" or key[1] == "paused":
                what = key[-1]
            if key[0] == "digest":
                what = "digests"
            self.counts[f"told {what}"] += received[PLACES[0]][key]
        if self.counts["told warnings"] == 0:
            raise Broken("the fortnight told nobody of anything")

    def _moot(self) -> set[tuple[str, str, str]]:
        """What a channel of incidents refused for good, and took a later notice of the same incident after."""
        last = {(taken.place, taken.notice.incident): taken.at for taken in self.world.taken}
        return {
            (each.notice.id, each.place, each.notice.title)
            for each in self.world.refused
            if each.place != PLACES[0] and last.get((each.place, each.notice.incident), 0.0) > each.at
        }

    def _incidents(self, channel: Channel) -> None:
        """Those that are open at the end are of what stands."""
        if channel.place == PLACES[0]:
            return
        opened: set[str] = set()
        for taken in self.world.taken:
            told = taken.notice
            if taken.place == channel.place and told.severity is Severity.RECOVERED and not goes_on(channel, told):
                opened.discard(told.incident)
            elif taken.place == channel.place:
                opened.add(told.incident)
        self.counts["incidents open at the end"] += len(opened)
        due = {f"{TARGET}/:all"} if self.all_down else set()
        for book in self.books.values():
            for kind, critical in book.standing.items():
                of = f":api_budget/{book.declared.destination}" if kind is K.API_BUDGET else book.declared.name
                due |= {f"{TARGET}/{of}"} if critical or not channel.only_critical else set()
            watch = book.declared.warnings.get(K.PAUSED)
            if book.paused and watch and (watch.critical or not channel.only_critical):
                due.add(f"{TARGET}/{book.declared.name}/paused")
        if opened != due:
            raise Broken(f"{channel.place}: open is {sorted(opened - due)}, and {sorted(due - opened)} is not")

    def _takes(self, place: str, key: tuple[str, ...]) -> bool:
        if place == PLACES[1]:
            return key[0] != "digest"
        if place != PLACES[2]:
            return True
        if key[0] in ("all",):
            return True
        if key[0] == "pause":
            watch = self.books[key[1]].declared.warnings.get(K.PAUSED)
            return watch is not None and watch.critical
        return self.critical.get(key, False)


# By what a run's own problem is told; all else is told by itself.
_CAUSED: dict[str, tuple[str, ...]] = {
    SCHEMA: (K.FAILED, K.DRIFT),
    LIMIT: (K.FAILED,),
    LOGIN: (K.FAILED,),
    UNREACHED: (K.FAILED,),
    READ: (K.FAILED,),
    "DB402": (K.REFUSED, K.EMPTY),
    "DB410": (K.REFUSED,),
    "DB450": (K.REFUSED,),
}


def _key(id: str, title: str) -> tuple[str, ...]:
    """What a message is of, by its id and title."""
    first, *rest = id.split(":")
    if first == "all":
        return "all", "up" if rest[-1] == "recovered" else "down"
    if first == "digest":
        return "digest", rest[-1]
    if not re.fullmatch(r"\d{8}T\d{6}-[0-9a-f]{6}", first):
        return "pause", first, rest[-1]
    told = re.fullmatch(rf"dinmo-dbt \[{TARGET}\] \S+: (.*)", title)
    assert told, title
    kinds = told[1].removesuffix(" recovered").split(", ")
    if kinds == ["paused"]:
        return first, "paused"
    return first, "over" if title.endswith(" recovered") else "begun", *sorted(kinds)


def _ended(row: tuple[str, ...]) -> Ended:
    run_id, name, started, finished, status, text = row
    detail = json.loads(text)
    trigger = detail["trigger"]
    code = (detail["problem"] or {}).get("code", "")
    return Ended(run_id, name, float(started), float(finished), status, code, trigger["kind"], trigger["invocation"])


def _last_digest(now: float) -> float:
    zone = ZoneInfo("Europe/Paris")
    today = datetime.fromtimestamp(now, zone)
    at = [datetime(d.year, d.month, d.day, 8, tzinfo=zone).timestamp() for d in (today, today - timedelta(days=1))]
    return next(moment for moment in at if moment <= now)


def _minutes(start: float, end: float) -> list[float]:
    return [*(start + n * MINUTE for n in range(int((end - start) // MINUTE) + 1)), end]


def _at(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%a %m-%d %H:%M:%SZ")
