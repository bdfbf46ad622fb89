"""A process of ours: a session of the real code over the world, that may die at any of its seams.

Seams are the commits of the state, the calls to an org, the logins, and the messages to a channel. A process that is
dead does nothing any more: whatever it still tries raises `Killed` again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import gmtime, strftime
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
from memory_org import DESTINATION, Killed

from dinmo_dbt.artifacts.gate import gate
from dinmo_dbt.channels import Attempted
from dinmo_dbt.cli import recording
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session
from dinmo_dbt.cli.stopping import Stop
from dinmo_dbt.codes import CHANNEL_NOT_REACHED, CHANNEL_REFUSED
from dinmo_dbt.config.channel import Channel
from dinmo_dbt.destination import ObjectSchema
from dinmo_dbt.errors import DestinationError, Problem, WarehouseError
from dinmo_dbt.state import LocalState
from dinmo_dbt.watch.notice import Notice

from .world import LIMIT, LOGIN, READ, TARGET, UNREACHED, Facts, Taken, World


@dataclass
class Kill:
    """The process dies at that many more seams of the kind from now, before or after the act."""

    kind: str
    left: int
    after: bool


class Process:
    """One process, and the facts it met."""

    def __init__(self, world: World, number: int, what: str, kill: Kill | None) -> None:
        self.world, self.number, self.what, self.kill = world, number, what, kill
        self.began, self.ended = world.now, 0.0
        self.dbt = world.dbt
        self.dead = ""
        self.raised_all = False  # what keeps every activation from running was met
        self.met: dict[str, Facts] = {}
        self.cut: set[str] = set()  # activations whose delivery the org did cut off
        self.at = ""  # the activation it is at
        self.run_ids: list[str] = []
        self.unrecorded: set[tuple[str, str]] = set()  # messages that were taken, which no commit has noted
        self.aside: Callable[[], None] = lambda: None  # what another process does meanwhile

    def seam(self, kind: str, act: Callable[[], Any], detail: str = "") -> Any:
        self.alive()
        after = self.meets(kind, detail)
        done = act()
        if after:
            self.die(f"after a {kind}", detail)
        return done

    def meets(self, kind: str, detail: str = "") -> bool:
        """A seam: whether the process is to die after it; it may die before it, here."""
        if self.kill is None or not kind.startswith(self.kill.kind):
            return False
        self.kill.left -= 1
        if self.kill.left >= 0:
            return False
        if not self.kill.after:
            self.die(f"before a {kind}", detail)
        return True

    def alive(self) -> None:
        if self.dead:
            raise Killed(self.dead)

    def die(self, where: str, detail: str = "") -> None:
        self.dead = where
        self.world.met[f"killed {where}"] += 1
        self.world.tell(f"process {self.number} is killed {where} {detail}".rstrip())
        raise Killed(where)

    def facts(self, name: str) -> Facts:
        self.at = name
        if name not in self.met:
            self.met[name] = self.world.facts(self.world.by_name[name])
        return self.met[name]

    def token(self) -> str:
        """Of a new run's id, which begins with the time."""
        self.world.met["run ids"] += 1
        token = f"{self.world.met['run ids']:06x}"
        self.run_ids.append(f"{strftime('%Y%m%dT%H%M%S', gmtime(self.world.now + self.world.ahead))}-{token}")
        return token


class Clock:
    signal = 0

    def __init__(self, process: Process) -> None:
        self._process = process

    def now(self) -> float:
        return self.monotonic() + self._process.world.ahead

    def monotonic(self) -> float:
        self._process.alive()
        return self._process.world.now

    def sleep(self, seconds: float) -> None:
        self._process.alive()
        self._process.world.pass_time(seconds)


class State(LocalState):
    """The state, whose commits are seams."""

    process: Process

    # Whether a bit of it flipped is others' to try: to look for that takes longer than the runs themselves.

    def rest(self) -> None: ...
    def _check_whole(self, connection: Any, *, writing: bool) -> None: ...

    @contextmanager
    def connection(self, *, writing: bool, history: bool = False) -> Iterator[Any]:
        process, after = self.process, False
        process.alive()
        with super().connection(writing=writing, history=history) as connection:
            yield connection
            process.alive()
            after = writing and process.meets("commit")
        if writing:
            process.unrecorded.clear()
        if after:
            process.die("after a commit")


class Destination:
    """An org as one process sees it."""

    def __init__(self, process: Process, name: str) -> None:
        self._process, self._org, self.calls = process, process.world.orgs[name], 0
        self._names = {a.object: a.name for a in process.world.activations}
        self.usage = SimpleNamespace(used=100, limit=1000)
        self.org_time = process.world.now

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._org, name)
        if name not in DESTINATION:
            return attribute

        def call(*arguments: Any, **options: Any) -> Any:
            process = self._process
            process.world.pass_time(process.world.rng.uniform(0.1, 1.0))
            process.aside()
            if name in ("send", "create_job") and process.facts(process.at).trouble == "cut":
                process.alive()
                process.cut.add(process.at)
                raise DestinationError(UNREACHED, "Salesforce did not answer")
            self.calls += 1
            return process.seam(f"call {name}", lambda: attribute(*arguments, **options), process.at)

        return call

    def describe(self, object_name: str) -> ObjectSchema:
        process = self._process
        process.alive()
        facts = process.facts(self._names[object_name])
        process.world.pass_time(0.2)
        process.aside()
        process.alive()
        self.calls += 1
        if facts.trouble == "limit":
            raise DestinationError(LIMIT, "the org's daily API calls are used up")
        found = self._org.describe(object_name)
        if facts.trouble != "schema":
            return found
        fields = {name: each for name, each in found.fields.items() if name != "B__c"}
        return replace(found, fields=fields)


class Warehouse:
    """The models."""

    connected = SimpleNamespace(database="db", schema="main", target="prod", adapter_type="duckdb")

    def __init__(self, process: Process) -> None:
        self._process = process

    def _facts(self, relation_name: str) -> Facts:
        self._process.alive()
        return self._process.facts(relation_name.removeprefix("db."))

    def schema(self, relation_name: str) -> pa.Schema:
        return self._facts(relation_name).table.schema

    def read(self, relation_name: str, columns: list[str], where: str | None) -> Iterator[pa.RecordBatch]:
        facts = self._facts(relation_name)
        self._process.aside()
        if facts.slow_s:
            self._process.world.met["slow runs"] += 1
        self._process.world.pass_time(facts.slow_s or 0.5)
        self._process.alive()
        if facts.trouble == "read":
            raise WarehouseError(READ, "the connection broke while reading")
        yield from facts.table.select(list(columns)).combine_chunks().to_batches()


class Mute(Console):
    """Says nothing."""

    def say(self, line: str = "", word: str = "") -> None: ...
    def answer(self, lines: Any, word: str = "") -> None: ...
    def document(self, content: Any) -> None: ...
    def problems(self, problems: Any, label: str = "") -> None: ...
    def note(self, problem: Problem) -> None: ...
    def stopped(self, what: str) -> None: ...


class SimulatedSession(Session):
    """One command's view of the world."""

    def __init__(self, process: Process, flags: Flags | None = None) -> None:
        super().__init__(flags or Flags(), Mute(quiet=True), stop=Stop())
        self.process, world = process, process.world
        self.clock = Clock(process)  # type: ignore[assignment]
        self.root = world.folder
        self.target_path = world.folder / "target"
        self.scratch = world.folder / "scratch"
        self.target = ("p", "prod")
        self.project = world.project
        self.manifest = _of(world, process.dbt.invocation)
        self.declared = world.loaded
        self.run_results = world.run_results(process.dbt)
        self.gate = gate(self.manifest, self.run_results)
        state = State(world.project.state_location, self.clock, target=TARGET)
        state.process, state.history_s = process, world.project.history_s
        self.state = state
        self._other_places = ()  # a fortnight keeps its state in one place

    @cached_property
    def warehouse(self) -> Any:
        """Connected to once, as by the real session: what begins to be wrong later is a read that breaks off."""
        self.process.alive()
        if self.process.raised_all or self.process.world.troubled("warehouse"):
            self.process.raised_all = True
            raise WarehouseError("DB707", "the warehouse can't be reached")
        return Warehouse(self.process)

    def _connect(self, name: str) -> Any:
        process = self.process
        world = process.world
        process.alive()
        world.pass_time(0.3)
        process.aside()
        login = world.troubled(name, LOGIN, UNREACHED)
        for each in world.activations:  # of one session an org answers every activation alike
            if each.destination == name and each.name not in process.met:
                process.met[each.name] = world.facts(each)
            if each.destination == name:
                process.met[each.name] = _with_login(process.met[each.name], login)
        if login:
            process.alive()
            raise DestinationError(login, "no login")
        return process.seam("call login", lambda: Destination(process, name))

    def send(self, channel: Channel, notice: Notice) -> Attempted:
        process, world = self.process, self.process.world
        world.pass_time(0.5)
        process.aside()
        if world.troubled(channel.place):
            process.alive()
            world.met["sendings that failed"] += 1
            code = world.rng.choice([CHANNEL_NOT_REACHED, CHANNEL_REFUSED])
            if code == CHANNEL_REFUSED:
                world.refused.append(Taken(world.now, channel.place, notice))
            return Attempted("json", Problem(code, "the channel did not take the message"))

        def take() -> Attempted:
            world.met["messages for several"] += bool(notice.of)
            for each in notice.of or (notice,):
                world.taken.append(Taken(world.now, channel.place, each))
                process.unrecorded.add((each.id, channel.place))
            return Attempted("json", None)

        return process.seam("message", take, notice.id)  # type: ignore[no-any-return]


def _with_login(facts: Facts, login: str) -> Facts:
    return replace(facts, login=login)


def _of(world: World, invocation: str) -> Any:
    return replace(world.manifest, invocation_id=invocation)


class Tokens:
    """What stands for `secrets` where runs get their ids: the next number, of the process that runs."""

    def __init__(self) -> None:
        self.live: list[Process] = []

    def token_hex(self, size: int) -> str:
        assert size == 3
        return self.live[-1].token()


@contextmanager
def numbered(tokens: Tokens) -> Iterator[None]:
    real = recording.secrets
    recording.secrets = tokens  # type: ignore[assignment]
    try:
        yield
    finally:
        recording.secrets = real


def database(world: World) -> Path:
    return world.project.state_location / "history.db"
