"""One command's view of the world: from flags and environment to project, artifacts, activations, connections and
state, each a floor on the one before."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from dinmo_dbt.cli.connections import Connections
from dinmo_dbt.codes import STATE_LEFT_BEHIND
from dinmo_dbt.errors import ConfigError, DinmoError, Problem, StateError

if TYPE_CHECKING:
    from dinmo_dbt.activation import Activation
    from dinmo_dbt.state import Activity, Place, StateId, Store
    from dinmo_dbt.state.journal import ActivationState


@dataclass
class Session(Connections):
    """All of it: the state, and what it may not share with other targets and activations."""

    @cached_property
    def state(self) -> Store:
        """Where dinmo.yml says; in the warehouse it is reached over the connection that models are read by."""
        from dinmo_dbt.state import open_to_others

        store = self.store_at(self.place)
        open_folder = open_to_others(self.project.state_location, self.project.root)
        if open_folder is not None:
            self.console.note_once(open_folder)
        store.refuse_copied()
        return store

    @property
    def place(self) -> Place:
        """Where dinmo.yml keeps the state."""
        from dinmo_dbt.state import Place, PlaceKind

        schema, bucket = self.project.state_warehouse_schema, self.project.state_bucket
        if bucket:
            return Place(PlaceKind.BUCKET, bucket)
        return (
            Place(PlaceKind.WAREHOUSE, schema) if schema else Place(PlaceKind.FOLDER, str(self.project.state_location))
        )

    def store_at(self, place: Place) -> Store:
        """That place, whatever is in it; to write to a schema needs a session that `writes`, or keeps its state in
        one."""
        from dinmo_dbt.state import BucketState, LocalState, Marks, PlaceKind, WarehouseState

        marks, target = Marks(_user_state_folder()), self.target[1]
        if place.kind is PlaceKind.FOLDER:
            store: Store = LocalState(Path(place.name), self.clock, marks, target=target)
        elif place.kind is PlaceKind.BUCKET:
            from dinmo_dbt.objects import BucketTables, open_bucket

            bucket = open_bucket(place.name, self.clock)
            scratch = self.scratch / f"state-{quote(place.name, safe='')}"
            store = BucketState(bucket, BucketTables(bucket), scratch, self.clock, marks, target=target)
        else:
            tables, scratch = self.warehouse.tables(place.name), self.scratch / f"state-{place.name}"
            store = WarehouseState(tables, scratch, self.clock, marks, target=target)
        store.history_s = self.project.history_s
        store.tell = self.console.note
        return store

    @property
    def activity(self) -> Activity:
        """Schedules, pauses and warnings of the chosen dbt target's activations."""
        return self.state.activity(self.target[1])

    def refuse_sharing(self, activation: Activation, state: ActivationState, *, is_meant: bool = False) -> None:
        """Before anything is drawn from a state: stop where another dbt target has this org, or where the activation
        could delete what another one keeps. `is_meant`: as `say_left_behind` has it."""
        project = self.project
        if project.shared_orgs:
            raise ConfigError.of(list(project.shared_orgs))
        state.refuse_shared(project.may_share, project.places)
        self.say_left_behind(activation, state, is_meant=is_meant)
        problems = [each for each in self.removals if each.where == activation.meta_path]
        if problems:
            raise ConfigError.of(problems)

    def say_left_behind(self, activation: Activation, state: ActivationState, *, is_meant: bool = False) -> None:
        """A first sync beside a state of the activation in another place: an insert would make every row again, and is
        refused, unless a person says that it is meant; others send them again."""
        from dinmo_dbt.activation import Mode
        from dinmo_dbt.state import PlaceKind

        if state.exists:
            return
        old = self._left_behind.get(state.own)
        if old is None:
            return
        name = Path(old.name).name if old == self._usual_folder else old.name
        where = f"the folder {name}" if old.kind is PlaceKind.FOLDER else str(old)
        means = "an insert would make every row again" if activation.mode is Mode.INSERT else "every row is sent again"
        message = f"{activation.name} has no state in {self.place}, and one in {where}: {means}"
        copying = f"dinmo-dbt state copy --to {self.place.kind} --from {name}"
        hint = f"take it along: {copying}"
        if activation.mode is Mode.INSERT:
            hint += f"\nis it somebody else's? take over what Salesforce holds: {activation.adopting}"
            hint += "\nif every row is to be a new record: add --first-sync"
        problem = Problem(STATE_LEFT_BEHIND, message, activation.meta_path, hint)
        if activation.mode is Mode.INSERT and not is_meant:
            raise StateError(problem.code, problem.message, where=problem.where, hint=problem.hint)
        self.console.note_once(problem)

    @property
    def _usual_folder(self) -> Place:
        from dinmo_dbt.state import Place, PlaceKind

        return Place(PlaceKind.FOLDER, str(self.root / ".dinmo"))

    @cached_property
    def _other_places(self) -> tuple[Place, ...]:
        """Where else than dinmo.yml says a state may be: in the usual folder, and in schemas that have its tables."""
        from dinmo_dbt.state import TABLES, Place, PlaceKind

        places = [self._usual_folder]
        with suppress(DinmoError):
            schemas = self.warehouse.tables("dinmo").schemas_with(TABLES)
            places += [Place(PlaceKind.WAREHOUSE, schema) for schema in schemas]
        return tuple(place for place in places if place != self.place)

    @cached_property
    def _left_behind(self) -> dict[StateId, Place]:
        """What was begun elsewhere, and where. Each place is asked once, one after the other: there may be hundreds of
        schemas. One that can't be read says nothing; the org is asked before an insert all the same."""
        found: dict[StateId, Place] = {}
        for place in self._other_places:
            with suppress(DinmoError), closing(self.store_at(place)) as store:
                for own in store.begun():
                    found.setdefault(own, place)
        return found

    @cached_property
    def removals(self) -> list[Problem]:
        """Activations that could delete what others keep."""
        from dinmo_dbt.config import sharing

        return sharing.removals(self.declared.activations, self.org_of)


def _user_state_folder() -> Path | None:
    """Where this user's programs keep what outlives a project's folder (XDG Base Directory); None without a home."""
    given = os.environ.get("XDG_STATE_HOME", "")
    try:
        base = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:
        return None
    return base / "dinmo-dbt"
