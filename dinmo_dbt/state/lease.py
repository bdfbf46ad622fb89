"""Who holds an activation's state: what is written into it while a run lasts, and how that is reported."""

from __future__ import annotations

import dataclasses
import getpass
import json
import os
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass

from dinmo_dbt.codes import HELD_BY_ANOTHER, TAKEN_OVER
from dinmo_dbt.errors import StateError
from dinmo_dbt.state.state_id import StateId
from dinmo_dbt.text.moments import moment

# Who holds an activation says so again before this has passed: with each write of its journal, and between them once
# a third has. After it, another run may take over.
LEASE_S = 600.0
RENEW_S = LEASE_S / 3
# In SQL, with `?` for now, as `has_lapsed`.
LAPSED = f"abs(lease_until - ? - {LEASE_S}) > {LEASE_S}"


@dataclass(frozen=True, slots=True)
class Holder:
    """One lock of one process. `since` in seconds since the epoch, UTC, by that process's clock."""

    lock_id: str
    host: str
    pid: int
    user: str
    since: float
    run_id: str = ""

    def as_text(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    def __str__(self) -> str:
        run = f", run {self.run_id}" if self.run_id else ""
        return f"process {self.pid} on {self.host} (user {self.user}{run}, since {moment(self.since)})"

    @property
    def lives(self) -> bool | None:
        """Whether its process is there; None when it is another host's, which can't be known from here."""
        if self.host != socket.gethostname():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


@dataclass(frozen=True, slots=True)
class Held:
    """An activation that is held: by whom, and until when if they say no more."""

    org_id: str
    target: str
    name: str
    epoch: int
    holder: Holder
    until: float
    in_flight: int  # rows of its unsettled batches
    overdue: bool

    @property
    def id(self) -> StateId:
        return StateId(self.org_id, self.target, self.name)

    @property
    def seems_dead(self) -> bool:
        return self.overdue or self.holder.lives is False


def has_lapsed(until: float, now: float) -> bool:
    """Whether a lease is over. So is one that ends later than any of today's can: a clock that ran ahead wrote it."""
    return abs(until - now - LEASE_S) > LEASE_S


def this_process(now: float, run_id: str = "") -> Holder:
    """A new lock of this process."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = str(os.getuid())
    return Holder(secrets.token_hex(8), socket.gethostname(), os.getpid(), user, now, run_id)


def holder_of(text: str) -> Holder:
    """Of a stored text; of a damaged one nobody that is known, as somebody may hold the lease all the same."""
    nobody = Holder("", "an unknown machine", 0, "unknown", 0.0)
    with suppress(ValueError, KeyError, TypeError):
        stored = json.loads(text)
        found = {field.name: stored[field.name] for field in dataclasses.fields(Holder)}
        if all(isinstance(value, type(getattr(nobody, name))) for name, value in found.items()):
            return Holder(**found)
    return nobody


def held_error(name: str, held: Held | None) -> StateError:
    """DB501: somebody else is at it."""
    if held is None:
        return StateError(
            HELD_BY_ANOTHER, f"{name} is being synced by another process", hint="try again when that has ended"
        )
    hint = "wait for it; the lock goes by itself when that process ends"
    if held.seems_dead:
        hint = f"it seems to be gone. Look at it and let it go: dinmo-dbt state unlock {name}"
    return StateError(HELD_BY_ANOTHER, f"{name} is being synced by {held.holder}", hint=hint)


def taken_over(name: str, where: str) -> StateError:
    """DB503: we were away for so long that another run took over."""
    return StateError(
        TAKEN_OVER,
        f"another run took over {name}: nothing more was recorded",
        where=where,
        hint="the next run settles what this one left",
    )
