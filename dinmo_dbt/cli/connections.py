"""What a session reaches: the warehouse, the orgs and the channels; opened when first asked for, closed at its end."""

from __future__ import annotations

import copy
import os
import random
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from dinmo_dbt.cli.clock import SystemClock
from dinmo_dbt.cli.declarations import Declarations
from dinmo_dbt.cli.scratch import scratch_folder
from dinmo_dbt.cli.stopping import Stop
from dinmo_dbt.errors import DinmoError, Refused, unwritable

if TYPE_CHECKING:
    import pyarrow as pa

    from dinmo_dbt.activation import Activation
    from dinmo_dbt.channels import Attempted
    from dinmo_dbt.cli.embedded_org import EmbeddedOrg
    from dinmo_dbt.cli.lanes import Lanes
    from dinmo_dbt.config.channel import Channel
    from dinmo_dbt.salesforce import SalesforceDestination
    from dinmo_dbt.warehouse import Warehouse
    from dinmo_dbt.watch.notice import Notice


# What a session opens for itself, and another thread may not use.
OF_ONE_THREAD = ("warehouse", "scratch", "state")


@dataclass(frozen=True)
class Stoppable:
    """The warehouse, read until the user asks the command to stop."""

    warehouse: Warehouse
    clock: SystemClock

    def schema(self, relation_name: str) -> pa.Schema:
        return self.warehouse.schema(relation_name)

    def read(self, relation_name: str, columns: Sequence[str], where: str | None) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self.warehouse.read(relation_name, columns, where):
                self.clock.sleep(0)
                yield batch
        except Exception:
            self.clock.sleep(0)  # a driver has its own error for a query that was broken off
            raise


@dataclass
class Connections(Declarations):
    """While it is entered, the first SIGINT or SIGTERM asks the command to stop (`Stop`)."""

    stop: Stop | None = None  # entered already, by who makes one session after the other
    lanes: Lanes | None = None  # of the sessions that run side by side
    writes: bool = False  # a state is copied to the warehouse, or from it

    def __post_init__(self) -> None:
        self.stack = ExitStack()
        self._stop = self.stop or Stop()
        self.clock = SystemClock(self._stop)
        self._destinations: dict[str, SalesforceDestination] = {}
        self._unreachable: dict[str, DinmoError] = {}
        self._others: list[Self] = []

    def __enter__(self) -> Self:
        if self.stop is None:
            self.stack.enter_context(self._stop)
        return self

    def __exit__(self, _: object, error: object, __: object) -> None:
        if isinstance(error, DinmoError):
            error.put(self.console.place)  # who tells it knows no project
        self.stack.close()

    def beside(self) -> Self:
        """A session for another thread: what is read and declared is this one's, its connections are its own. It ends
        before this one does; the embedded org is this one's to end."""
        other = copy.copy(self)
        for name in OF_ONE_THREAD:
            other.__dict__.pop(name, None)
        other.stop = self._stop
        other.__post_init__()
        other._unreachable = self._unreachable  # one refusal of a login is enough: several may lock its user out
        self._others.append(other)
        return other

    @cached_property
    def warehouse(self) -> Warehouse:
        from dinmo_dbt.warehouse import connect

        flags = self.flags
        warehouse = connect(
            self.root,
            profiles_dir=flags.profiles_dir,
            profile=flags.profile,
            target=flags.target,
            vars=self.vars,
            env=os.environ,
            writes=self.writes or self.project.state_warehouse_schema is not None,
            show_values=flags.show_values,
        )
        self.stack.callback(warehouse.close)
        self._stop.breaks.append(warehouse.interrupt)
        self.stack.callback(self._stop.breaks.remove, warehouse.interrupt)
        return warehouse

    @property
    def source(self) -> Stoppable:
        """The models' rows."""
        return Stoppable(self.warehouse, self.clock)

    def check_target(self, *, allow_mismatch: bool) -> None:
        """Stop when the manifest's relation names were made for another target than the connected one."""
        from dinmo_dbt.artifacts.gate import ConnectedTarget, target_check

        connected = self.warehouse.connected
        problem = target_check(
            self.manifest,
            self.run_results,
            ConnectedTarget(
                connected.database or "",
                connected.schema,
                connected.target,
                connected.adapter_type,
                self._default_target(),
            ),
        )
        if problem is None:
            return
        if allow_mismatch:
            self.console.note(problem)
            return
        raise Refused.of(problem)

    @cached_property
    def scratch(self) -> Path:
        """A private folder for temporary files, on the disk of the state: its size and speed are the user's choice."""
        location = self.project.state_location
        parent = location if location.is_dir() and os.access(location, os.W_OK) else None
        try:
            return self.stack.enter_context(scratch_folder(parent))
        except OSError as error:
            raise unwritable(parent or Path(tempfile.gettempdir()), error) from error

    @property
    def api_calls(self) -> int:
        """HTTP calls to every org so far, logins included, and those of the sessions beside."""
        own = sum(destination.calls for destination in self._destinations.values())
        return own + sum(each.api_calls for each in self._others)

    def destination(self, name: str) -> SalesforceDestination:
        """The org of a destination, logged in; the embedded one is started for the command's duration."""
        if name not in self._destinations:
            if name in self._unreachable:
                raise self._unreachable[name]
            try:
                self._destinations[name] = self._connect(name)
            except DinmoError as error:
                error.put(lambda place: place or self.place_of(name))
                self._unreachable[name] = error  # asked once; each activation that needs it says so
                raise
        return self._destinations[name]

    def place_of(self, destination: str) -> str:
        """Where in dinmo.yml a destination's org is said, for what has no place of its own."""
        return f"destination {destination}, target {self.target[1]}"

    @cached_property
    def embedded(self) -> EmbeddedOrg:
        """The embedded org, started when first asked for."""
        from dinmo_dbt.cli.embedded_org import EmbeddedOrg

        if self.lanes is not None:
            return self.stack.enter_context(self.lanes.org(lambda: EmbeddedOrg(self.project.emulator)))
        started = EmbeddedOrg(self.project.emulator)
        self.stack.callback(started.close)
        return started

    def start_orgs(self, activations: Iterable[Activation]) -> None:
        """Start the embedded org if one of them needs it; it comes up while the warehouse is connected."""
        if any(self.project.org(activation.destination).is_emulator for activation in activations):
            _ = self.embedded

    def send(self, channel: Channel, notice: Notice) -> Attempted:
        """One attempt to send a notice to a channel. Other dbt projects may have it too: the incident is this one's."""
        from dinmo_dbt import channels
        from dinmo_dbt.watch.notice import incident

        about = f"{incident('dinmo-dbt', self.project_name)}/{notice.incident}" if notice.incident else ""
        return channels.send(channel, replace(notice, incident=about))

    def org_of(self, destination: str) -> str:
        """What tells the org of a destination under this target: its id once it has been asked for, else its name."""
        known = self._destinations.get(destination)
        return known.org_id if known is not None else destination

    def _connect(self, name: str) -> SalesforceDestination:
        from dinmo_dbt import salesforce

        org = self.project.org(name)
        if org.is_emulator:
            org = self.embedded.address(org)
        destination = salesforce.connect(
            org,
            scratch=self.scratch,
            sleep=self.clock.sleep,
            rng=random.Random(),
            now=self.clock.now,
            logins=self.project.state_location / "logins",
            env=os.environ,
            say=self.console.timed,
        )
        self.stack.callback(destination.disconnect)
        return destination
