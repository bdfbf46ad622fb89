"""What is outside of dinmo-dbt: the clock, fifty declared activations, dbt, orgs, a warehouse, channels, and what goes
wrong with each. All of it is drawn from one seed; none of it knows what the code makes of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
from memory_org import THING, MemoryOrg, activation, dbt_model

from dinmo_dbt.activation import Activation, Ceiling, QuietHours, Schedule, ScheduleKind, WarningKind, Watch
from dinmo_dbt.artifacts.declared import Loaded
from dinmo_dbt.artifacts.gate import Result, RunResults
from dinmo_dbt.artifacts.manifest import Manifest, Test
from dinmo_dbt.config.channel import Channel, Digest
from dinmo_dbt.config.project import EmulatorConfig, Project
from dinmo_dbt.org import Org, Secret
from dinmo_dbt.watch.notice import Notice

TARGET = "prod"
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
DAYS = 14
# The last Sundays of October and March are in the middle: clocks go back in Europe at 01:00 UTC, and forward.
STARTS = (datetime(2026, 10, 18, 5, 1, 7, tzinfo=UTC), datetime(2026, 3, 22, 5, 1, 7, tzinfo=UTC))
LOGIN, UNREACHED, LIMIT, SCHEMA, READ = "DB601", "DB607", "DB609", "DB302", "DB712"
PLACES = ("warnings.channels[0]", "warnings.channels[1]", "warnings.channels[2]")
URLS = ("json://a", "pagerduty://key@key", "opsgenie://key")  # the latter two keep incidents
ROWS = 6

_CRONS = (
    ("*/20 * * * *", "Europe/Paris"),
    ("0 * * * *", "Europe/Berlin"),
    ("15 */3 * * *", "Europe/Paris"),
    ("30 2 * * *", "Europe/Paris"),
    ("10 2-4 * * *", "Europe/Berlin"),
    ("15 1 * * *", "Europe/London"),
    ("50 1,2 * * *", "Europe/Madrid"),
    ("0 7 * * 1-5", "America/New_York"),
    ("45 23 * * *", "Asia/Tokyo"),
    ("0 6,12,18 * * *", "Australia/Sydney"),
    ("5 0 * * 0", "UTC"),
    ("0 9 1,25 * *", "Europe/Paris"),
    ("*/30 8-18 * * 1-5", "Europe/Rome"),
)
_INTERVALS = (5, 10, 15, 15, 30, 30, 60, 60, 60, 60, 60, 60, 120, 120, 120, 360, 360, 1440, 1440)
_QUIET = (
    QuietHours(22 * 60, 6 * 60, "Europe/Paris"),
    QuietHours(0, 4 * 60, "Europe/London"),
    QuietHours(12 * 60, 13 * 60 + 30, "America/New_York"),
    QuietHours(2 * 60 + 15, 2 * 60 + 45, "Europe/Berlin"),
)


def declared(rng: random.Random) -> tuple[Activation, ...]:
    """Fifty activations of all kinds of schedules."""
    schedules = [Schedule(ScheduleKind.EVERY, every_s=minutes * 60) for minutes in _INTERVALS]
    schedules += [Schedule(ScheduleKind.CRON, cron=line, timezone=zone) for line, zone in _CRONS]
    schedules += [Schedule(ScheduleKind.MANUAL)] * 2
    schedules += [Schedule()] * (50 - len(schedules))
    return tuple(_declared(number, schedule, rng) for number, schedule in enumerate(schedules))


def _declared(number: int, schedule: Schedule, rng: random.Random) -> Activation:
    name = f"{schedule.kind}_{number:02}"
    kinds = (WarningKind.FAILED, WarningKind.REFUSED, WarningKind.EMPTY, WarningKind.DRIFT, WarningKind.PAUSED)
    watches = {kind: Watch(rng.random() < 0.5) for kind in kinds}
    watches[WarningKind.REJECTED] = Watch(rng.random() < 0.3, Ceiling(rows=0))
    watches[WarningKind.MISSED] = Watch(rng.random() < 0.3, rng.choice([10, 30, 60]) * MINUTE)
    watches[WarningKind.API_BUDGET] = Watch(True, Decimal(80))
    for kind in rng.sample(sorted(watches), rng.choice([0, 0, 0, 1])):
        del watches[kind]
    return activation(
        name=name,
        model=dbt_model(name),
        destination=f"org{number % 4}",
        object=f"Thing{number}__c",
        schedule=schedule,
        quiet_hours=rng.choice(_QUIET) if schedule.kind is not ScheduleKind.MANUAL and rng.random() < 0.25 else None,
        auto_pause=rng.choice([3, 3, 3, 3, 2, 1, None]),
        warnings=watches,
        api="bulk" if number % 7 == 3 else "auto",
        enabled=number != 30,
    )


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something is wrong with an activation, an org, a channel or the warehouse, for a while."""

    kind: str
    who: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What a process meets at an activation, from its first look at it to its end."""

    name: str
    login: str  # with what it fails
    trouble: str  # schema, limit, read, cut, empty, twice, bad or ''
    rows: int
    table: pa.Table
    slow_s: float

    @property
    def stops_probe(self) -> bool:
        return bool(self.login) or self.trouble in ("schema", "limit")


@dataclass(frozen=True, slots=True)
class Dbt:
    """The last dbt command: its results, and of which models a test failed."""

    invocation: str
    built: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()


@dataclass
class Taken:
    """What a channel received."""

    at: float
    place: str
    notice: Notice


@dataclass
class World:
    """Everything outside, at one instant."""

    seed: int
    folder: Path
    days: float = DAYS
    fewer: int = 1  # of the activations only every n-th
    now: float = 0.0
    ahead: float = 0.0  # by how much somebody has set our clock ahead
    taken: list[Taken] = field(default_factory=list)
    refused: list[Taken] = field(default_factory=list)  # for good
    met: Counter[str] = field(default_factory=Counter)
    done: set[str] = field(default_factory=set)  # activations of which a run delivered
    story: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.start = STARTS[self.seed % 2].timestamp()
        if self.days < 3:  # the days around the change of the clocks
            self.start += 6.3 * DAY
        self.now, self.end = self.start, self.start + self.days * DAY
        self.activations = declared(self.rng)[:: self.fewer]
        self.by_name = {each.name: each for each in self.activations}
        self.orgs = {f"org{number}": self._org(number) for number in range(4)}
        self.versions = {name: [0] * ROWS for name in self.by_name}
        self.dbt = Dbt("")
        self._dbt_at = sorted(self.rng.uniform(self.start, self.end) for _ in range(int(self.days * 5)))
        self.troubles = self._troubles()
        self.project = self._project()
        self.manifest = self._manifest()
        self.loaded = Loaded(self.activations, ())

    def _org(self, number: int) -> MemoryOrg:
        own = [a for a in self.activations if a.destination == f"org{number}"]
        org = MemoryOrg(*(replace(THING, name=a.object, label=a.object) for a in own))
        org.org_id = f"00D00000000{number}001EAA"
        org.refuse = lambda row: (
            "FIELD_CUSTOM_VALIDATION_EXCEPTION:no:A__c --" if (row.get("A__c") or "").startswith("bad") else None
        )
        return org

    def _project(self) -> Project:
        folder = self.folder
        return Project(
            root=folder,
            target=TARGET,
            state_location=folder / "state",
            state_warehouse_schema=None,
            state_bucket=None,
            history_s=1.5 * DAY,  # each run looks through the whole state
            emulator=EmulatorConfig(folder, folder, folder),
            orgs={name: Org(name, TARGET, credentials=object()) for name in self.orgs},  # type: ignore[arg-type]
            targets=dict.fromkeys(self.orgs, (TARGET,)),
            defaults={},
            channels=tuple(
                Channel(place, Secret(url), place == PLACES[2]) for place, url in zip(PLACES, URLS, strict=True)
            ),
            digest=Digest("08:00", "Europe/Paris"),
        )

    def _manifest(self) -> Manifest:
        tests = {f"test.p.{name}": Test(f"test.p.{name}", name, (f"model.p.{name}",)) for name in self.by_name}
        ids = frozenset([*tests, *(a.model.unique_id for a in self.activations)])
        return Manifest(
            "duckdb", "", "p", "1.11.0", {}, tests, (), (), frozenset(), has_selectors=False, strays=(), ids=ids
        )

    # What goes wrong, and when

    def _troubles(self) -> list[Trouble]:
        rng, found = self.rng, []
        share = self.days / DAYS

        def some(kind: str, who: Iterable[str], number: float, low_s: float, high_s: float) -> None:
            names = sorted(who)
            for _ in range(max(1, round(number * share))):
                start = rng.uniform(self.start, self.end - 0.6 * DAY)
                end = min(start + rng.uniform(low_s, high_s), self.end - 0.5 * DAY)
                found.append(Trouble(kind, rng.choice(names), start, end))

        some("schema", self.by_name, 18, HOUR, 40 * HOUR)
        some("empty", self.by_name, 10, HOUR, 12 * HOUR)
        some("twice", self.by_name, 10, HOUR, 12 * HOUR)
        some("bad", [a.name for a in self.activations if a.api != "bulk"], 15, HOUR, 24 * HOUR)
        some("read", self.by_name, 10, HOUR, 6 * HOUR)
        some("cut", self.by_name, 15, HOUR, 6 * HOUR)
        some("slow", self.by_name, 15, HOUR, 10 * HOUR)
        some(LOGIN, self.orgs, 4, 2 * HOUR, 30 * HOUR)
        some(UNREACHED, self.orgs, 8, 5 * MINUTE, HOUR)
        some("limit", self.orgs, 4, HOUR, 6 * HOUR)
        some("warehouse", ["warehouse"], 4, 5 * MINUTE, 2 * HOUR)
        some("channel", PLACES, 12, 10 * MINUTE, 30 * HOUR)
        return found

    def troubled(self, who: str, *kinds: str) -> str:
        """What is wrong with it now; '' if nothing is."""
        wrong = (t.kind for t in self.troubles if t.who == who and t.start <= self.now < t.end)
        return next((kind for kind in wrong if not kinds or kind in kinds), "")

    def facts(self, declared: Activation) -> Facts:
        name, org = declared.name, self.orgs[declared.destination]
        trouble = self.troubled(declared.destination, "limit") or self.troubled(
            name, "schema", "empty", "twice", "bad", "read", "cut"
        )
        if trouble in ("empty", "twice", "schema", "cut", "bad") and name not in self.done:
            trouble = ""  # before anything was delivered it would mean something else
        versions = list(self.versions[name])
        rows = [] if trouble == "empty" else list(enumerate(versions))
        if trouble == "twice":
            rows.append((0, versions[0] + 1))
        bad = 3 if trouble == "bad" else 0
        table = pa.table(
            {
                "id": pa.array([f"{number}" for number, _ in rows], pa.utf8()),
                "ext": pa.array([f"x{number}" for number, _ in rows], pa.utf8()),
                "a": pa.array([f"{'bad' if n < bad else 'a'}{version}" for n, version in rows], pa.utf8()),
                "b": pa.array(["b"] * len(rows), pa.utf8()),
            }
        )
        slow_s = self.rng.uniform(10 * MINUTE, 50 * MINUTE) if self.troubled(name, "slow") else 0.0
        return Facts(
            name,
            self.troubled(declared.destination, LOGIN, UNREACHED) if org else "",
            trouble,
            len(rows),
            table,
            slow_s if self.rng.random() < 0.3 else 0.0,
        )

    # Time

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        while self._dbt_at and self._dbt_at[0] <= self.now:
            self._run_dbt(self._dbt_at.pop(0))

    def _run_dbt(self, at: float) -> None:
        rng = self.rng
        self.met["dbt commands"] += 1
        share = rng.choice((0.9, 0.9, 0.3))  # `dbt build`, or a few models of it
        built = [a for a in self.activations if rng.random() < share]
        failed = frozenset(a.name for a in built if rng.random() < 0.04)
        for each in built:
            for number in rng.sample(range(ROWS), rng.choice([0, 1, 2])):
                self.versions[each.name][number] += 1
        self.dbt = Dbt(f"{self.met['dbt commands']:08x}", frozenset(a.name for a in built), failed)
        names = ", ".join(sorted(failed)) or "none"
        self.tell(f"dbt {self.dbt.invocation} built {len(built)}, tests failed: {names}", at)

    def run_results(self, dbt: Dbt) -> RunResults | None:
        if not dbt.invocation:
            return None
        results = [Result(f"model.p.{name}", "success", "") for name in sorted(dbt.built)]
        results += [Result(f"test.p.{name}", "fail", "") for name in sorted(dbt.failed)]
        return RunResults(dbt.invocation, "build", TARGET, False, False, tuple(results))

    def tell(self, what: str, at: float | None = None) -> None:
        self.story.append((self.now if at is None else at, what))
