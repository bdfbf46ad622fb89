"""What people do beside syncs: `retry` of what waits, `revert` of a run. Each seed draws by a stream of its own."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pyarrow as pa
from memory_org import Killed

from dinmo_dbt.cli.commands import retry as retrying
from dinmo_dbt.cli.commands import revert as reverting

from .auditor import Broken
from .org import FIELDS

if TYPE_CHECKING:
    from .history import History


class Upkeep:
    def __init__(self, history: History) -> None:
        self.history, self.random = history, random.Random(f"upkeep {history.seed}")
        self.keeps_images = history.mode in ("upsert", "update") and self.random.random() < 0.3

    # retry

    def retry(self) -> None:
        """What waits is sent now, and nothing keeps it back; an insert that may have made a record only if a person
        says so, who has looked."""
        history = self.history
        if history.quota_gone or self.random.random() < 0.5:
            return
        doubtful = history.audit.doubtful
        unknown = bool(doubtful) and not any(doubtful.values()) and not history.audit.excused
        act = history._activation()

        def work() -> int:
            waits, doubts = retrying._waiting(history.session, act)
            if waits or (unknown and doubts):
                retrying._make_due(history.session, act, unknown=unknown)
            return waits + (doubts if unknown else 0)

        rows = history._process().run(work)
        if not rows:
            return
        history.met["retried"] += rows
        if unknown:
            doubtful.clear()
        run = history._run()
        told = [] if run is None else pa.concat_tables(run.not_delivered).to_pylist()
        if run is None or not all(history.is_over(row) for row in told):
            raise Broken("I2: rows that nothing keeps back are not delivered by a retry")

    def ask_again(self) -> None:
        """What was given up is asked for by name, which counts anew."""
        history = self.history

        def work() -> int:
            retrying._make_due(history.session, history._activation(), unknown=False)
            return retrying._waiting(history.session, history._activation())[0]

        rows = history._process().run(work)
        history._tell(f"retry: {rows} rows wait, some of them given up")
        history.met["asked for again"] += 1

    # revert

    def revert(self) -> None:
        """A run is undone: its records are as they were before, but for those that somebody wrote to since. Then the
        model's values are sent again."""
        history, org, audit = self.history, self.history.org, self.history.audit
        if not self.keeps_images or history.quota_gone or history.beside.rows:
            return
        history._edit()
        before = {record["Id"]: record for record in org.held()}
        run = history._run()
        if run is None or not run.outcome.succeeded:
            return
        after = {record["Id"]: record for record in org.held()}
        touched = self._touch({id: _changed(before.get(id), record) for id, record in after.items()})
        held = {record["Id"]: record for record in org.held()}
        if self.random.random() < 0.4:
            self._carry_out(run.run_id, is_killed=True)
        self._carry_out(run.run_id)
        history.met["reverted"] += 1
        now = {record["Id"]: record for record in org.held()}
        for record_id in after:
            wanted = held[record_id] if record_id == touched else before.get(record_id)
            if now.get(record_id) != wanted:
                fields = [name for name in FIELDS if (now.get(record_id) or {}).get(name) != (wanted or {}).get(name)]
                raise Broken(f"I19: a run is undone, and {', '.join(fields)} of {record_id} is not as it was")
        audit.went_back()
        if history._run() is None:
            raise Broken("I19: the run after a revert fails")
        if history._planned()[0].has_changes:
            raise Broken("I15: after a revert and a run there are rows to send")

    def _touch(self, changed: dict[str, list[str]]) -> str | None:
        """Somebody writes to a field that the run had written; to which record."""
        sent = [record_id for record_id, fields in changed.items() if fields]
        if not sent or self.random.random() < 0.5:
            return None
        record_id, audit = self.random.choice(sent), self.history.audit
        self.history.org.edit(record_id, **{self.random.choice(changed[record_id]): "theirs since"})
        if record_id in audit.seen:
            audit.excuse(audit.seen[record_id][0])
        return record_id

    def _carry_out(self, run_id: str, *, is_killed: bool = False) -> None:
        history = self.history
        end = history._end_of_process(random=self.random) if is_killed else None
        process = history._process(end)
        process.after_call = lambda: None  # records go back, as they should
        act, session = history._activation(), history.session

        def work() -> int:
            _, run = reverting._carry_out(session, act, session.state.history.of(run_id), allow_deletes=1000)
            return int(run.outcome.succeeded)

        try:
            history._tell(f"revert of {run_id}: {process.run(work)} records")
        except Killed as killed:
            history._tell(f"revert, killed {killed}")


def _changed(before: dict[str, str | None] | None, after: dict[str, str | None]) -> list[str]:
    """Fields of a record that are not as they were; of a new one those that have a value."""
    return [name for name in FIELDS if name in ("A__c", "B__c", "C__c") and (before or {}).get(name) != after[name]]
