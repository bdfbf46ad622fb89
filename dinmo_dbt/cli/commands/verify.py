"""verify: what Salesforce holds, against what was delivered."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinmo_dbt.cli import examples, options
from dinmo_dbt.cli.console import Console, worst
from dinmo_dbt.cli.drawing import scan_spool
from dinmo_dbt.cli.known import known_state
from dinmo_dbt.cli.notices import deliver
from dinmo_dbt.cli.options import Flags, Gating
from dinmo_dbt.cli.session import Session
from dinmo_dbt.cli.syncing import sync_each
from dinmo_dbt.codes import INSERT_NOT_REPAIRED, PLAN_STALE
from dinmo_dbt.errors import DinmoError, Refused, StateError

if TYPE_CHECKING:
    import pyarrow as pa

    from dinmo_dbt.activation import Activation
    from dinmo_dbt.upkeep.verify import Verification

DRIFTED = 3


def verify(
    flags: Flags,
    repair: Annotated[
        bool, typer.Option("--repair", help="Send drifted rows again, and rows whose record is gone (update, upsert).")
    ] = False,
    show_values: Annotated[
        bool, typer.Option("--show-values", help="For each field that drifted: the model's value and Salesforce's.")
    ] = False,
    limit: options.Limit = 20,
    allow_changes: options.AllowChanges = 0,
    allow_target_mismatch: options.TargetMismatch = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare Salesforce with what was delivered.

    Reads the model, and of every row that Salesforce acknowledged as it is now the record. Lists what others edited or
    deleted since; rows that a sync would send anyway are pending. Changes nothing without --repair, which lets a sync
    send those rows again, held by its guards. Exit code 3: something drifted or is gone.

    \b
    Examples:
      dinmo-dbt verify
      dinmo-dbt verify -s customers_to_crm --show-values
      dinmo-dbt verify -s customers_to_crm --repair
    """
    from dinmo_dbt.cli import printed

    console = Console(as_json, quiet)
    with Session(flags, console) as session:
        session.say_notes()
        session.start_orgs(session.chosen)
        session.check_target(allow_mismatch=allow_target_mismatch)
        checked = [_Checked(activation) for activation in session.chosen]
        for one in checked:
            one.verify(session, limit, show_values=show_values, repairs=repair)
        results: list[dict[str, Any]] = []
        codes = [one.code for one in checked]
        if repair:
            codes, results = _repair(
                session, checked, Gating(allow_target_mismatch=allow_target_mismatch), allow_changes
            )
        code = worst([0, *codes])
        more = {"results": results} if repair else {}
        documents = [one.document for one in checked]
        console.document(printed.document("verify", exit_code=code, activations=documents, **more))
        deliver(session)
        raise typer.Exit(code)


@dataclass
class _Checked:
    """One activation's verification, and what came of it."""

    activation: Activation
    found: Verification | None = None
    code: int = 0
    document: dict[str, Any] = dataclasses.field(default_factory=dict)

    def verify(self, session: Session, limit: int, *, show_values: bool, repairs: bool) -> None:
        from dinmo_dbt.cli import render

        name = self.activation.name
        self.document = {"activation": name}
        try:
            if self.activation.mode == "delete":
                session.console.answer([f"{name}: mode delete leaves nothing to compare"])
                self.document["skipped"] = "mode delete"
                return
            self.found = self._compare(session, show_values=show_values)
        except DinmoError as error:
            self.fail(session, error)
            return
        self.code = 0 if self.found.holds else DRIFTED
        org_id = session.destination(self.activation.destination).org_id
        self.document |= {"object": self.activation.object, "mode": self.activation.mode.value, "org_id": org_id}
        self.document |= render.verification_json(self.found, with_values=show_values)
        lines = render.verification_lines(self.found, limit, with_values=show_values)
        if not (self.found.holds or repairs or self.activation.mode == "insert"):
            lines.append(f"  to send them again: dinmo-dbt verify -s {name} --repair")
        session.console.answer([f"{name}: {self.activation.object} in org {org_id}", *lines])

    def _compare(self, session: Session, *, show_values: bool) -> Verification:
        from dinmo_dbt.upkeep import verify as verifying

        destination, state = known_state(session, self.activation)
        with scan_spool(session) as spool, examples.shown_with(session, self.activation):
            return verifying.verify(self.activation, session.source, destination, state, spool, with_values=show_values)

    def fail(self, session: Session, error: DinmoError) -> None:
        session.console.failure(error, f"{self.activation.name}: ")
        self.document["problems"] = session.console.documents(error.problems)
        self.code = error.exit_code

    def mark(self, session: Session) -> pa.Table:
        """Let the next sync send the drifted rows, and forget the records that are gone; what was moved."""
        import pyarrow as pa

        from dinmo_dbt.rows.snapshot import snapshot_rows, stale_rows

        assert self.found is not None
        org_id = session.destination(self.activation.destination).org_id
        with session.state.locked(org_id, self.activation) as state:
            if state.serial != self.found.serial:
                raise StateError(PLAN_STALE, "the state moved while Salesforce was compared", hint="verify again")
            drifted, gone = (table["position"].to_numpy() for table in (self.found.drifted, self.found.gone))
            forgotten = snapshot_rows(state.snapshot, gone, "forget")
            moves = pa.concat_tables([stale_rows(state.snapshot, drifted), forgotten])
            state.amend(moves)
        return moves

    def repaired(self, session: Session, marked: pa.Table) -> int:
        """How many of the marked rows Salesforce has acknowledged since."""
        import numpy as np
        import pyarrow.compute as pc

        from dinmo_dbt.rows.sets import among
        from dinmo_dbt.rows.snapshot import Flag

        org_id = session.destination(self.activation.destination).org_id
        snapshot = session.state.view(org_id, self.activation).snapshot
        unsure = Flag.LEFT | Flag.STALE | Flag.UNKNOWN | Flag.UNFINISHED
        sound = among(snapshot.kh, marked["kh"].to_numpy()) & (snapshot.flags & unsure == 0)
        keys = snapshot.keys(np.flatnonzero(sound))
        return int(pc.is_in(keys, value_set=marked["key"].combine_chunks()).to_numpy(zero_copy_only=False).sum())


def _repair(
    session: Session, checked: list[_Checked], gating: Gating, allow_changes: int
) -> tuple[list[int], list[dict[str, Any]]]:
    """Mark what drifted, sync those activations as `sync` does, and say what became of it: exit codes and results."""
    from dinmo_dbt.cli import printed
    from dinmo_dbt.plan.guards import Ceilings

    marked: list[tuple[_Checked, pa.Table]] = []
    for one in checked:
        if one.found is None or one.found.holds:
            continue
        try:
            if one.activation.mode == "insert":
                raise Refused(
                    INSERT_NOT_REPAIRED,
                    "an insert never changes a record, so it can't be repaired",
                    where=one.activation.meta_path,
                    hint="correct the records in Salesforce, or declare another activation with mode: update",
                )
            marked.append((one, one.mark(session)))
        except DinmoError as error:
            one.fail(session, error)
    results: list[dict[str, Any]] = []
    codes: list[int] = []
    if marked:
        drifted = [one.activation for one, _ in marked]
        report = sync_each(session, drifted, Ceilings(allow_changes=allow_changes), gating)
        codes, results = report.codes, report.results
    for one, moves in marked:
        done = one.repaired(session, moves)
        one.code = 0 if done == len(moves) else DRIFTED
        one.document["repair"] = {"marked": len(moves), "repaired": done}
        line = f"{one.activation.name}: {done:,} of {printed.count(len(moves), 'row')} repaired"
        session.console.answer([line if done == len(moves) else f"{line}; the others: dinmo-dbt rejected"])
    return [*codes, *(one.code for one in checked)], results
