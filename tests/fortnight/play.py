"""One fortnight: commands one after the other on the world's clock, some of them killed, some beside others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from memory_org import Killed

from dinmo_dbt.cli import pausing
from dinmo_dbt.cli.commands.sync import sync_due
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags, Gating
from dinmo_dbt.cli.service import Service
from dinmo_dbt.cli.stopping import Stop
from dinmo_dbt.cli.syncing import sync_chosen
from dinmo_dbt.errors import WarehouseError
from dinmo_dbt.plan.guards import Ceilings
from dinmo_dbt.state import sqlite

from .judge import Judge
from .process import Kill, Mute, Process, SimulatedSession, Tokens, numbered
from .world import DAY, HOUR, MINUTE, World

_KILLS = (("commit", 400), ("call", 400), ("call send", 60), ("message", 20), ("", 1200))


class Fortnight:
    """The scheduler, and whoever else runs commands."""

    def __init__(self, world: World) -> None:
        self.world, self.judge, self.tokens = world, Judge(world), Tokens()
        self.processes = 0
        self.kill = self._next_kill()
        self.calm = False
        self.aside: Callable[[Process], None] = self._aside  # what runs while a process waits for a reply

    def play(self) -> None:
        world = self.world
        (world.folder / "scratch").mkdir(parents=True)
        (world.folder / "target").mkdir()
        with numbered(self.tokens), as_ever(self):
            self.calm = True
            self.command("due")  # all are seen
            self.calm = False
            while world.now < world.end:
                self._period()
            self.calm = True
            for _ in range(500):
                world.pass_time(10 * MINUTE)
                self.command("due")
                if world.now > world.end + DAY / 2:
                    break
        self.judge.close()

    def _period(self) -> None:
        """From one start of the scheduler to its end, by whatever ends it, and the time without one."""
        world, rng = self.world, self.world.rng
        serves = rng.random() < 0.5
        tick_s = rng.choice([5, 5, 5, 10, 15]) * MINUTE
        until = world.now + rng.uniform(2 * HOUR, 2 * DAY)
        while world.now < min(until, world.end):
            process = self.command("serve" if serves else "due")
            if process.dead:
                break
            if rng.random() < 0.01:
                self._someone()
            wait_s = tick_s - world.now % tick_s
            if serves:
                soonest = min(process.due_next.values(), default=world.now + tick_s)  # type: ignore[attr-defined]
                wait_s = min(soonest - world.now if soonest > world.now else MINUTE / 2, 5 * MINUTE)
            world.pass_time(wait_s)
        down = rng.choice([5.0, 5.0, MINUTE, MINUTE, 10 * MINUTE, HOUR / 2, HOUR, 5 * HOUR])
        world.met["restarts"] += 1
        world.tell(f"nothing runs for {down / 60:.0f} minutes")
        world.pass_time(rng.uniform(down / 2, down))

    def _someone(self, due: Sequence[str] = ()) -> None:
        """Somebody types a command, perhaps about what is `due`."""
        rng, books = self.world.rng, self.judge.books
        paused = sorted(name for name, book in books.items() if book.paused)
        what = rng.choice(["pause", "resume", "resume", "hand", "hand"])
        name = rng.choice(paused) if paused and what == "resume" else rng.choice(due or sorted(books))
        self.command(what, name)

    # A command

    def command(self, what: str, name: str = "") -> Process:
        """A process from its start to its end; it may be killed."""
        self.processes += 1
        kind = "due" if what == "serve" else what
        process = Process(self.world, self.processes, kind, None if self.calm else self.kill)
        process.due_next = {}  # type: ignore[attr-defined]
        process.aside = lambda: self.aside(process)
        self.judge.begin(process)
        self.tokens.live.append(process)
        self.world.met[f"commands {what}"] += 1
        try:
            self._do(process, what, name)
            process.alive()
        except Killed:
            if not process.dead:
                raise
            self.kill = self._next_kill()
        finally:
            self.tokens.live.remove(process)
        self.judge.digest(process, ended=not process.dead)
        self.judge.end(process)
        return process

    def _do(self, process: Process, what: str, name: str) -> None:
        try:
            if what in ("pause", "resume"):
                self.typed = process
                pausing.set_pauses(Flags(select=(name,)), False, "by hand" if what == "pause" else None)
                return
            session = SimulatedSession(process)
            with session:
                if what == "hand":
                    sync_chosen(session, [self.world.by_name[name]], Ceilings(), Gating())
                elif what == "due":
                    sync_due(session, Ceilings(), Gating())
                else:
                    service = Service(Flags(), Mute(quiet=True), Stop())
                    service._session = lambda: session  # type: ignore[method-assign]
                    service._look()
                    process.due_next = service.health.due_next  # type: ignore[attr-defined]
        except WarehouseError:
            if not process.raised_all:
                raise

    def _aside(self, process: Process) -> None:
        """Now and then another command runs while this one waits for a reply."""
        if self.calm or process.dead or len(self.judge.live) > 1 or self.world.rng.random() > 0.003:
            return
        self.world.met["commands beside others"] += 1
        self.judge.observe()
        if self.world.rng.random() < 0.5:
            self.command("due")
        else:
            self._someone([name for name, (number, _) in self.judge.pendings[process.number].items() if number])

    def _next_kill(self) -> Kill:
        rng = self.world.rng
        kind, most = rng.choice(_KILLS)
        return Kill(kind, rng.randrange(most), rng.random() < 0.5)


@contextmanager
def as_ever(fortnight: Fortnight) -> Iterator[None]:
    """`pause` and `resume` make their own session: here it is one of the world's."""

    def session(flags: Flags, console: Console, **options: Any) -> SimulatedSession:
        return SimulatedSession(fortnight.typed, flags)

    waits, sqlite.LOCK_WAIT_S = sqlite.LOCK_WAIT_S, 0.0  # what waits here waits for itself
    real, pausing.Session = pausing.Session, session  # type: ignore[assignment,misc]
    shown, pausing.Console = pausing.Console, lambda as_json: Mute(quiet=True)  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        pausing.Session, pausing.Console, sqlite.LOCK_WAIT_S = real, shown, waits  # type: ignore[misc]
