"""A run killed at every call it makes, and what the next run makes of it."""

import dataclasses
import os
import shutil
import signal
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from memory_org import (
    ORG,
    FieldMapping,
    Flag,
    Killed,
    Match,
    MemoryOrg,
    Mode,
    Model,
    NoProgress,
    Trip,
    World,
    activation,
    fates,
)

from dinmo_dbt.delivery import again, aside
from dinmo_dbt.delivery.batch_state import BatchState, check_transition
from dinmo_dbt.delivery.run import Outcome, Status, SyncRun
from dinmo_dbt.delivery.settlement import settlement_of
from dinmo_dbt.delivery.sync import execute
from dinmo_dbt.destination import RESULTS, Api, Batch, Field, Operation, PayloadColumn
from dinmo_dbt.errors import AuthError, CountsError, Interrupted, NotApplied, OutcomeUnknown, StateError
from dinmo_dbt.plan import batches as batching
from dinmo_dbt.plan.guards import Ceilings
from dinmo_dbt.plan.plan import Counts
from dinmo_dbt.rows.rowhash import DIGEST

BEFORE = [
    {"id": "1", "ext": "e1", "a": "x1", "b": "y"},
    {"id": "2", "ext": "e2", "a": "x2", "b": "y"},
    {"id": "3", "ext": "e3", "a": "x3", "b": "y"},
    {"id": "4", "ext": "e4", "a": "x4", "b": "y"},
]
AFTER = [
    {"id": "1", "ext": "e1", "a": "x1", "b": "y"},
    {"id": "2", "ext": "e2", "a": "x2 new", "b": "y"},
    {"id": "3", "ext": "e3", "a": "x3", "b": "y new"},
    {"id": "5", "ext": "e5", "a": "x5", "b": "y"},
    {"id": "6", "ext": "e6", "a": "x6", "b": "y"},
    {"id": "7", "ext": "e7", "a": "same", "b": "same"},
    {"id": "8", "ext": "e8", "a": "same", "b": "same"},
]

CASES = {
    "insert": activation("insert"),
    "upsert by bulk": activation("upsert", api="bulk"),
    "upsert by collections": activation("upsert"),
    "update by bulk": activation("update", api="bulk", match=Match("ext", "Code__c")),
    "update by collections": activation("update", match=Match("ext", "Code__c")),
    "upsert that creates": activation("upsert", match=Match("ext", "Code__c", create=True)),
}


def prepared(folder, act):
    """A world in which BEFORE was synced and Salesforce knows what an update needs."""
    world = World(folder)
    if act.mode is Mode.UPDATE:
        for row in [*BEFORE, *AFTER]:
            if (row["ext"],) not in world.org.held("Code__c"):
                world.org.add(Code__c=row["ext"], Ext__c=row["ext"])
    run = world.sync(act, Model.of(BEFORE))
    assert run.outcome.succeeded == 4
    return world


def expected(act):
    if act.mode is Mode.INSERT:
        new = [row for row in AFTER if row["id"] != "1"]
        return sorted((row["a"], row["b"]) for row in [*BEFORE, *new])
    gone = [BEFORE[3]]
    rows = [*gone, *AFTER]
    return sorted((row["ext"], row["a"], row["b"]) for row in rows)


def held(world, act):
    if act.mode is Mode.INSERT:
        return world.org.held("A__c", "B__c")
    return world.org.held(act.match.field, "A__c", "B__c")


def assert_all_is_well(world, act, run):
    """One record a key, the right values, no loss, the counts add up, nothing left behind, and then quiet."""
    assert held(world, act) == expected(act)
    assert run.problem is None
    run.check_counts()
    assert fates(run) == {}
    left = [name for name in world.files() if "spool" in name or name.endswith(".tmp")]
    assert left == []
    again = world.plan(act, Model.of(AFTER))
    assert (again.counts.unchanged, again.batches) == (len(AFTER), ())
    present = {key for key, (_, flags) in world.snapshot(act).items() if not flags & 4}
    assert present == {row["id"] for row in AFTER}


@pytest.fixture
def memory(tmp_path):
    """A folder in memory where there is one: hundreds of runs sync their files to disk, which proves nothing more."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def kill_points(seen):
    """After each call; that is before the next one too, so before needs a test only for a commit: it rolls back."""
    for at, call in enumerate(seen):
        if at == 0 or call == "commit":
            yield at, False
        yield at, True


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
def test_killed_at_every_call_a_run_is_completed_by_the_next(name, memory):
    act, model = CASES[name], Model.of(AFTER)
    start = prepared(memory / "start", act)
    trip = Trip()
    start.copy(memory / "whole").sync(act, model, trip=trip)
    for at, after in kill_points(trip.seen):
        world = start.copy(memory / f"{at}{after}")
        with pytest.raises(Killed):
            world.sync(act, model, trip=Trip(at, after))
        run = world.sync(act, model)
        try:
            assert_all_is_well(world, act, run)
        except AssertionError as error:
            when = "after" if after else "before"
            raise AssertionError(f"killed {when} call {at} of {trip.seen}: {error}") from error


@pytest.mark.slow
@pytest.mark.parametrize("name", ["insert", "upsert by collections"])
def test_a_recovery_that_is_killed_is_recovered_from(name, memory):
    """Killed once in each state a batch can be in, and then again at each call of the run that recovers it."""
    act, model = CASES[name], Model.of(AFTER)
    start = prepared(memory / "start", act)
    trip = Trip()
    start.copy(memory / "whole").sync(act, model, trip=trip)
    advances = [at for at, call in enumerate(trip.seen) if call in ("advance", "close", "send")]
    for first in advances[:4]:
        killed = start.copy(memory / f"{first}")
        with pytest.raises(Killed):
            killed.sync(act, model, trip=Trip(first, True))
        trip = Trip()
        killed.copy(memory / f"{first}whole").sync(act, model, trip=trip)
        begin = trip.seen.index("begin")
        for second, after in kill_points(trip.seen[: begin + 1]):
            world = killed.copy(memory / f"{first}-{second}{after}")
            with pytest.raises(Killed):
                world.sync(act, model, trip=Trip(second, after))
            assert_all_is_well(world, act, world.sync(act, model))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["insert", "upsert"])
def test_killed_while_a_mapping_changes_nothing_is_sent_twice_or_lost(mode, memory):
    act = CASES["insert"] if mode == "insert" else CASES["upsert by bulk"]
    wider = dataclasses.replace(act, fields=(*act.fields, FieldMapping("ext", "Code__c")))
    start = prepared(memory / "start", act)
    trip = Trip()
    start.copy(memory / "whole").sync(wider, Model.of(AFTER), trip=trip)
    for at, after in kill_points(trip.seen):
        world = start.copy(memory / f"{at}{after}")
        with pytest.raises(Killed):
            world.sync(wider, Model.of(AFTER), trip=Trip(at, after))
        run = world.sync(wider, Model.of(AFTER))
        assert_all_is_well(world, wider, run)
        if mode == "upsert":
            present = [row["ext"] for row in AFTER]
            assert all(code == ext for ext, code in world.org.held("Ext__c", "Code__c") if ext in present)


def test_a_dead_runs_batch_is_settled_under_its_own_mapping(tmp_path):
    """The mapping changes between the kill and the recovery: what was delivered is known, and only remapped."""
    act = CASES["insert"]
    world = prepared(tmp_path / "s", act)
    with pytest.raises(Killed):
        world.sync(act, Model.of(AFTER), trip=Trip("close", True))
    wider = dataclasses.replace(act, fields=(*act.fields, FieldMapping("ext", "Code__c")))
    run = world.sync(wider, Model.of(AFTER))
    assert run.recovered.succeeded == 6
    assert run.plan_counts.planned == 0
    assert_all_is_well(world, wider, run)


# What Salesforce may do to a job behind our back


def test_a_job_that_expired_before_it_was_closed_is_sent_again(tmp_path):
    """Salesforce drops open jobs after seven days; its rows were never processed, so they are not unknown."""
    act = CASES["insert"]
    world = prepared(tmp_path / "s", act)
    with pytest.raises(Killed):
        world.sync(act, Model.of(AFTER), trip=Trip("upload", True))
    world.org.jobs.clear()
    assert_all_is_well(world, act, world.sync(act, Model.of(AFTER)))


def test_an_insert_whose_results_are_gone_is_unknown_and_never_sent_again_by_itself(tmp_path):
    act = activation("insert")
    world = World(tmp_path / "s")
    with pytest.raises(Killed):
        world.sync(act, Model.of(BEFORE), trip=Trip("close", True))
    world.org.jobs.clear()
    run = world.sync(act, Model.of(BEFORE))
    assert (run.recovered.unknown, run.status) == (4, Status.UNKNOWN)
    assert fates(run) == {row["id"]: ("held", "OUTCOME_UNKNOWN") for row in BEFORE}
    assert run.plan_counts.held == 4

    def unsent(act, rows):
        run = world.sync(act, Model.of(rows))
        run.check_counts()
        assert run.status is Status.UNKNOWN, "until somebody has looked"
        return run.plan_counts.planned == 0 and {key: code for key, (_, code) in fates(run).items()}

    doubtful = dict.fromkeys("1234", "OUTCOME_UNKNOWN")
    wider = dataclasses.replace(act, fields=(*act.fields, FieldMapping("ext", "Code__c")))
    for _ in range(2):
        assert unsent(act, BEFORE) == doubtful
        assert unsent(wider, BEFORE) == doubtful, "a new mapping is no new change"
    world.clock.time += 10 * 86_400
    assert unsent(act, BEFORE) == doubtful
    assert unsent(act, BEFORE[1:]) == dict.fromkeys("234", "OUTCOME_UNKNOWN")
    assert unsent(act, BEFORE) == doubtful, "nor is coming back"
    assert world.snapshot(act)["1"][1] & Flag.UNKNOWN

    changed = [{**BEFORE[0], "a": "new"}, *BEFORE[1:]]
    world.org.refuse = lambda row: "FIELD_CUSTOM_VALIDATION_EXCEPTION:no:--"
    assert world.sync(act, Model.of(changed)).outcome.rejected == 1
    world.org.refuse = lambda row: None
    assert unsent(act, BEFORE) == doubtful, "a change that was refused leaves the doubt where it was"
    run = world.sync(act, Model.of(changed))
    assert (run.plan_counts.changed, run.outcome.succeeded) == (1, 1), "a change is a record of its own"
    assert world.snapshot(act)["1"][1] & Flag.UNKNOWN == 0
    ignoring = activation("insert", on_change="ignore")
    run = world.sync(ignoring, Model.of([changed[0], {**BEFORE[1], "a": "newer"}, *BEFORE[2:]]))
    assert (run.plan_counts.planned, run.plan_counts.held, run.plan_counts.unchanged) == (0, 3, 1)


@pytest.mark.parametrize("name", ["upsert by bulk", "update by bulk", "upsert that creates"])
def test_other_modes_send_again_what_can_not_be_learned(name, tmp_path):
    act = CASES[name]
    world = prepared(tmp_path / "s", act)
    with pytest.raises(Killed):
        world.sync(act, Model.of(AFTER), trip=Trip("close", True))
    world.org.jobs.clear()
    assert_all_is_well(world, act, world.sync(act, Model.of(AFTER)))


class Unreliable:
    """An org that does what it is asked and says that it may not have, or does not do it and says so."""

    def __init__(self, org, faults):
        self._org, self._faults = org, faults

    def __getattr__(self, name):
        attribute = getattr(self._org, name)
        if name not in self._faults:
            return attribute

        def call(*arguments):
            faults = self._faults[name]
            if not faults:
                return attribute(*arguments)
            error, acts = faults.pop(0)
            if acts:
                attribute(*arguments)
            raise error("DB600", f"no luck with {name}")

        return call


DONE, NOT_DONE = True, False


@pytest.mark.parametrize("api", ["bulk", "collections"])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("call", "error", "acts"),
    [
        ("create_job", OutcomeUnknown, DONE),
        ("create_job", NotApplied, NOT_DONE),
        ("upload", OutcomeUnknown, DONE),
        ("upload", NotApplied, NOT_DONE),
        ("close", OutcomeUnknown, DONE),
        ("close", OutcomeUnknown, NOT_DONE),
        ("close", NotApplied, NOT_DONE),
        ("close", AuthError, NOT_DONE),
        ("job", NotApplied, NOT_DONE),
        ("results", OutcomeUnknown, NOT_DONE),
        ("send", OutcomeUnknown, DONE),
        ("send", NotApplied, NOT_DONE),
    ],
)
def test_replies_that_are_lost_lose_and_double_nothing(call, error, acts, count, api, tmp_path):
    act = CASES["insert"] if api == "bulk" else CASES["upsert by collections"]
    world = prepared(tmp_path / "s", act)
    honest = world.org
    world.org = Unreliable(honest, {call: [(error, acts)] * count})
    run = world.sync(act, Model.of(AFTER))
    sent = run.outcome
    assert run.plan_counts.planned == 6 == sent.succeeded + sent.held, "nothing is unknown, nothing is rejected"
    assert (run.problem is None) == (sent.held == 0)
    assert len(fates(run)) == sent.held
    world.org = honest
    run = world.sync(act, Model.of(AFTER))
    assert_all_is_well(world, act, run)


@pytest.mark.parametrize("end", ["Failed", "Aborted"])
def test_a_job_that_ends_half_way_holds_what_it_did_not_process_and_fails_the_run(end, tmp_path):
    act = CASES["insert"]
    world = prepared(tmp_path / "s", act)
    real = world.org.close

    def close(job_id):
        real(job_id)
        job = world.org.jobs[job_id]
        world.org._process(job, 2)
        job.left, job.state = job.rows[2:], end

    world.org.close = close
    run = world.sync(act, Model.of(AFTER))
    assert (run.status, run.problem.code) == (Status.FAILED, "DB620")
    assert (run.outcome.succeeded, run.outcome.held) == (2, 4)
    assert {code for _, code in fates(run).values()} == {"UNPROCESSED"}
    del world.org.close
    assert_all_is_well(world, act, world.sync(act, Model.of(AFTER)))


# Rows that wait


def test_a_rejected_row_waits_for_one_two_four_runs_and_returns_at_once_when_it_changes(tmp_path):
    act, world = activation("insert"), World(tmp_path / "s")
    world.org.refuse = lambda row: "FIELD_CUSTOM_VALIDATION_EXCEPTION:no:--" if row["A__c"] == "bad" else None
    bad = [{"id": "1", "ext": "e1", "a": "bad", "b": "y"}]
    tried = [world.sync(act, Model.of(bad)).outcome.rejected for _ in range(12)]
    assert tried == [1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]
    assert fates(world.sync(act, Model.of(bad))) == {"1": ("held", "FIELD_CUSTOM_VALIDATION_EXCEPTION")}
    other = [{**bad[0], "b": "other"}]
    assert world.sync(act, Model.of(other)).outcome.rejected == 1, "a change is tried at once"
    assert world.sync(act, Model.of(bad)).outcome.rejected == 0, "what was refused before still waits"
    world.clock.time += 86_400
    assert world.sync(act, Model.of(bad)).outcome.rejected == 1, "once a day in any case"
    good = [{**bad[0], "a": "good"}]
    assert world.sync(act, Model.of(good)).outcome.succeeded == 1
    assert world.state().known()[0].pending == 0


def test_a_locked_row_is_tried_by_every_run(tmp_path):
    act, world = activation(), World(tmp_path / "s")
    world.org.refuse = lambda row: "UNABLE_TO_LOCK_ROW:locked:--"
    assert [world.sync(act, Model.of(BEFORE)).outcome.rejected for _ in range(4)] == [4] * 4


def test_full_tries_waiting_rows_too(tmp_path):
    act, world = activation(), World(tmp_path / "s")
    world.org.refuse = lambda row: "REQUIRED_FIELD_MISSING:no:--"
    outcomes = [
        world.sync(act, Model.of(BEFORE), Ceilings(full=f)).outcome.rejected for f in (False, False, False, True)
    ]
    assert outcomes == [4, 4, 0, 4]


def test_rows_rejected_in_a_dead_runs_job_were_tried_in_that_run(tmp_path):
    act, world = activation("insert"), World(tmp_path / "s")
    world.org.refuse = lambda row: "UNABLE_TO_LOCK_ROW:locked:--"
    with pytest.raises(Killed):
        world.sync(act, Model.of(BEFORE), trip=Trip("close", True))
    for _ in range(2):
        world.org.job(list(world.org.jobs)[-1])
    world.org.refuse = lambda row: None
    run = world.sync(act, Model.of(BEFORE))
    assert (run.recovered.rejected, run.outcome.succeeded) == (4, 4)
    assert (run.status, fates(run)) == (Status.SUCCESS, {}), "their last fate counts, once"


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_what_a_dead_runs_job_refused_is_reported_even_when_this_run_has_no_word_on_the_row(change, tmp_path):
    act, world = activation("insert"), World(tmp_path / "s")
    world.org.refuse = lambda row: "STRING_TOO_LONG:no:A__c --" if row["A__c"] in ("x1", "x2") else None
    with pytest.raises(Killed):
        world.sync(act, Model.of(BEFORE), trip=Trip("close", True))
    rows = BEFORE[1:] if change == "gone" else [{**BEFORE[0], "a": "short"}, *BEFORE[1:]]
    run = world.sync(act, Model.of(rows))
    assert (run.recovered.succeeded, run.recovered.rejected, run.recovering) == (2, 2, 4)
    expected = {"2": ("rejected", "STRING_TOO_LONG")}
    if change == "gone":
        expected["1"] = ("rejected", "STRING_TOO_LONG")
    assert (run.status, fates(run)) == (Status.REJECTED, expected)
    run.check_counts()


def test_rows_of_a_dead_run_that_are_not_accounted_for_end_the_run():
    run = SyncRun("r", 0.0, recovering=3, recovered=Outcome(succeeded=2))
    with pytest.raises(CountsError, match="of 3 rows of an earlier run 2"):
        run.check_counts()


# Rows that may pass when they are sent again


class Locks:
    """An org in which the first so many writes of each row find it locked."""

    def __init__(self, times, error="UNABLE_TO_LOCK_ROW:unable to obtain exclusive access to this record:--"):
        self.times, self.error, self.tries = times, error, Counter()

    def __call__(self, row):
        self.tries[row["Ext__c"]] += 1
        return self.error if self.tries[row["Ext__c"]] <= self.times.get(row["Ext__c"], 0) else None


def naps_of(world):
    """What the runs slept in one go, from a second on."""
    naps, sleep = [], world.clock.sleep
    world.clock.sleep = lambda seconds: (naps.append(seconds) if seconds > 1 else None, sleep(seconds))
    return naps


MAPPED = (FieldMapping("a", "A__c"), FieldMapping("b", "B__c"), FieldMapping("ext", "Ext__c"))
WAYS = {
    "insert": activation("insert", fields=MAPPED, on_change="ignore"),
    "upsert by bulk": activation(api="bulk"),
    "upsert by collections": activation(),
}


@pytest.mark.parametrize("act", WAYS.values(), ids=WAYS)
def test_locked_rows_alone_are_sent_again_before_the_run_ends_and_count_once(act, tmp_path):
    world = World(tmp_path / "s")
    naps = naps_of(world)
    world.org.refuse = Locks({"e1": 1, "e3": 3})
    run = world.sync(act, Model.of(BEFORE))
    assert (run.outcome.succeeded, run.outcome.rejected, run.status, fates(run)) == (4, 0, Status.SUCCESS, {})
    assert world.org.refuse.tries == {"e1": 2, "e2": 1, "e3": 4, "e4": 1}
    assert len(world.org.held("Ext__c")) == 4
    assert len(naps) == len(again.AGAIN_PAUSES_S)
    assert all(pause / 2 <= nap <= pause * 1.5 for nap, pause in zip(naps, again.AGAIN_PAUSES_S, strict=True))
    assert world.state().known()[0].pending == 0
    assert world.sync(act, Model.of(BEFORE)).plan_counts.unchanged == 4


@pytest.mark.parametrize("act", WAYS.values(), ids=WAYS)
def test_a_row_that_stays_locked_is_left_to_the_next_run(act, tmp_path):
    world = World(tmp_path / "s")
    world.org.refuse = Locks({"e2": 99})
    run = world.sync(act, Model.of(BEFORE))
    assert (run.outcome.succeeded, run.outcome.rejected, run.status) == (3, 1, Status.REJECTED)
    assert fates(run) == {"2": ("rejected", "UNABLE_TO_LOCK_ROW")}
    assert world.org.refuse.tries["e2"] == 1 + len(again.AGAIN_PAUSES_S), "bounded"
    assert world.state().known()[0].pending == 1
    world.org.refuse = Locks({})
    assert world.sync(act, Model.of(BEFORE)).outcome.succeeded == 1
    assert len(world.org.held("Ext__c")) == 4


@pytest.mark.slow
@pytest.mark.parametrize("act", WAYS.values(), ids=WAYS)
def test_killed_while_locked_rows_are_sent_again_nothing_is_doubled_or_lost(act, memory):
    trip, start = Trip(), World(memory / "start")
    start.folder.mkdir()
    start.org.refuse = Locks({"e1": 1, "e3": 2})
    whole = start.copy(memory / "whole")
    whole.sync(act, Model.of(BEFORE), trip=trip)
    for at, after in kill_points(trip.seen):
        world = start.copy(memory / f"{at}{after}")
        with pytest.raises(Killed):
            world.sync(act, Model.of(BEFORE), trip=Trip(at, after))
        world.sync(act, Model.of(BEFORE))
        assert world.org.held("Ext__c", "A__c") == [(row["ext"], row["a"]) for row in BEFORE], trip.seen[at]
        assert world.plan(act, Model.of(BEFORE)).counts.unchanged == 4


def many(count):
    return Model.of([{"id": f"{n:04}", "ext": f"e{n:04}", "a": "x", "b": "y"} for n in range(count)])


@pytest.mark.parametrize("act", WAYS.values(), ids=WAYS)
def test_what_was_too_much_for_the_orgs_automation_is_sent_in_smaller_batches(act, tmp_path, monkeypatch):
    """A trigger that asks three queries a row: 33 rows pass, 34 do not."""
    world, sizes = World(tmp_path / "s"), []
    naps = naps_of(world)
    too_many = "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY:Too many SOQL queries 101:--"

    def sized(call, rows_of):
        def sizing(*given):
            sizes.append(min(200, rows_of(*given)))
            world.org.refuse = lambda row: too_many if sizes[-1] > 33 else None
            return call(*given)

        return sizing

    world.org.close = sized(world.org.close, lambda job_id: len(world.org.jobs[job_id].rows))
    world.org.send = sized(world.org.send, lambda batch, before: len(batch.rows))
    run = world.sync(act, many(250))
    assert (run.outcome.succeeded, run.outcome.rejected) == (250, 0)
    assert sorted(set(sizes), reverse=True)[:4] == [200, 100, 50, 25]
    assert len(world.org.held("Ext__c")) == 250
    assert naps == [], "the size helps, not the time"


def test_automation_that_fails_at_every_size_ends_at_the_floor_and_is_the_next_runs(tmp_path):
    act, world = activation(), World(tmp_path / "s")
    world.org.refuse = lambda row: "CANNOT_EXECUTE_FLOW_TRIGGER:Apex CPU time limit exceeded:--"
    run = world.sync(act, many(30))
    assert (run.outcome.rejected, world.org.writes.total()) == (30, 30 * (1 + len(again.SMALLER_ROWS)))
    world.org.refuse = lambda row: None
    assert world.sync(act, many(30)).outcome.succeeded == 30


def test_what_is_sent_again_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(aside, "AGAIN_ROWS_MAX", 10)
    monkeypatch.setattr(again, "SMALLER_BATCHES_MAX", 1)
    monkeypatch.setattr(again, "SMALLER_ROWS", (4, 2))
    act, world = activation(), World(tmp_path / "s")
    world.org.refuse = lambda row: "CANNOT_EXECUTE_FLOW_TRIGGER:Apex CPU time limit exceeded:--"
    run = world.sync(act, many(30))
    assert world.org.writes.total() == 30 + 4 + 2
    assert (run.outcome.rejected, run.outcome.held) == (20 + 2, 6 + 2)
    assert len(fates(run)) == 30


def test_rows_a_job_left_when_it_ended_on_locks_are_sent_again_in_the_same_run(tmp_path):
    act, world = activation("insert"), World(tmp_path / "s")
    real_close, real_job = world.org.close, world.org.job
    failing = []

    def close(job_id):
        real_close(job_id)
        if not failing:
            failing.append(job_id)
            job = world.org.jobs[job_id]
            world.org._process(job, 1)
            job.left, job.state = job.rows[1:], "Failed"

    world.org.close = close
    world.org.job = lambda job_id: dataclasses.replace(
        real_job(job_id), error="TooManyLockFailure : Too many lock failures" if job_id in failing else ""
    )
    run = world.sync(act, Model.of(BEFORE))
    assert (run.outcome.succeeded, run.problem, len(run.jobs)) == (4, None, 2)
    assert len(world.org.held("A__c")) == 4


@pytest.mark.parametrize(
    "error",
    [
        "STORAGE_LIMIT_EXCEEDED:storage limit exceeded:--",
        "INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE:read-only:--",
    ],
)
def test_a_refusal_that_every_other_row_would_meet_stops_the_run(error, tmp_path, monkeypatch):
    monkeypatch.setattr(batching, "BULK_ROWS_MAX", 10)
    act, world = activation("insert"), World(tmp_path / "s")
    world.org.refuse = lambda row: error
    run = world.sync(act, many(30))
    assert (run.status, run.problem.code) == (Status.FAILED, "DB613")
    assert error.partition(":")[0] in run.problem.message and run.problem.hint
    assert (run.outcome.rejected, run.outcome.held, world.org.writes.total()) == (10, 20, 10)
    world.org.refuse = lambda row: None
    assert world.sync(act, many(30)).outcome.succeeded == 30, "none of them waits for more than a run"


# Waits end when what they were for may have changed


def test_a_change_of_a_mapped_fields_description_ends_the_waits(tmp_path):
    act, world = activation(), World(tmp_path / "s")
    world.org.refuse = lambda row: "STRING_TOO_LONG:no:A__c --" if row["A__c"] == "x1" else None
    assert [world.sync(act, Model.of(BEFORE)).outcome.rejected for _ in range(2)] == [1, 1]
    thing = world.org.schemas["Thing__c"]

    def describe(name, **change):
        fields = {**thing.fields, name: dataclasses.replace(thing.fields[name], **change)}
        world.org.schemas["Thing__c"] = dataclasses.replace(thing, fields=fields)

    describe("Source__c", length=300)
    assert world.plan(act, Model.of(BEFORE)).counts.held == 1, "a field that is not mapped"
    describe("A__c", label="Another label")
    assert world.plan(act, Model.of(BEFORE)).counts.held == 1
    for change in ({"length": 300}, {"nillable": False}, {"picklist": ("x1",)}):
        describe("A__c", **change)
        assert world.plan(act, Model.of(BEFORE)).counts.planned == 1, change
    assert world.sync(act, Model.of(BEFORE)).outcome.rejected == 1
    assert world.sync(act, Model.of(BEFORE)).outcome.rejected == 0, "and then it waits again"


def test_another_mapping_ends_the_waits(tmp_path):
    act, world = activation(), World(tmp_path / "s")
    world.org.refuse = lambda row: "STRING_TOO_LONG:no:A__c --" if row.get("A__c") == "x1" else None
    for _ in range(3):
        run = world.sync(act, Model.of(BEFORE))
    assert run.plan_counts.held == 1
    other = dataclasses.replace(act, fields=(FieldMapping("a", "Source__c"), FieldMapping("b", "B__c")))
    assert world.sync(other, Model.of(BEFORE)).outcome.rejected == 0
    assert len(world.org.held("Source__c")) == 4


# Asked to stop


class Asked:
    """A clock of a process that is asked to stop at that sleep."""

    def __init__(self, clock, at):
        self.clock, self.at, self.slept = clock, at, 0

    time = property(lambda self: self.clock.time, lambda self, moment: setattr(self.clock, "time", moment))

    def now(self):
        return self.clock.now()

    def monotonic(self):
        return self.clock.monotonic()

    def sleep(self, seconds):
        self.slept += 1
        if self.slept > self.at:
            raise Interrupted(signal.SIGTERM)
        self.clock.sleep(seconds)


@pytest.mark.parametrize("name", list(CASES))
def test_asked_to_stop_at_any_point_a_run_accounts_for_every_row_and_the_next_continues(name, memory):
    act, model = CASES[name], Model.of(AFTER)
    start = prepared(memory / "start", act)
    counting = start.copy(memory / "whole")
    clock = counting.clock
    counting.clock = Asked(clock, 10_000)
    counting.sync(act, model)
    assert counting.clock.slept >= 2
    for at in range(counting.clock.slept):
        world = start.copy(memory / f"{at}")
        clock = world.clock
        world.clock = Asked(clock, at)
        run = world.sync(act, model)
        assert (run.status, run.interrupted, run.problem.code) == (Status.INTERRUPTED, True, "DB690")
        run.check_counts()
        assert {fate for fate, _ in fates(run).values()} == {"held"}
        assert len(fates(run)) == run.outcome.held > 0
        world.clock = clock
        assert_all_is_well(world, act, world.sync(act, model))


# The parts


def test_a_batch_goes_one_way_and_is_never_given_up_after_its_commit_point():
    passing = {(before, after) for before in BatchState for after in BatchState if allowed(before, after)}
    assert {b for b, after in passing if after is BatchState.ABANDONED} == {
        BatchState.PLANNED,
        BatchState.OPENED,
        BatchState.SENDING,
    }
    assert {after for before, after in passing if before is BatchState.CLOSING} == {
        BatchState.CLOSED,
        BatchState.SETTLED,
    }
    order = list(BatchState)
    assert all(order.index(before) < order.index(after) for before, after in passing)
    ends = {state for state in BatchState if not any(before is state for before, _ in passing)}
    assert ends == {BatchState.SETTLED, BatchState.ABANDONED}


def allowed(before, after):
    try:
        check_transition(before, after)
    except AssertionError:
        return False
    return True


CK = {n: bytes([n] * 16) for n in range(10)}


def batch_of(operation, flags=(0, 0, 0, 0)):
    field = Field("A__c", "A", "string")
    rows = pa.table(
        {
            "key": ["a", "b", "c", "d"],
            "kh": pa.array([1, 2, 3, 4], pa.uint64()),
            "ck": pa.array([CK[n] for n in (5, 6, 7, 8)], DIGEST),
            "flags": pa.array(flags, pa.uint8()),
            "Id": ["i1", "i2", "i3", "i4"],
            "A__c": ["w", "x", "y", "z"],
        }
    )
    return Batch("b", operation, "Thing__c", Api.BULK, (PayloadColumn("A__c", field),), None, rows)


def results_of(*rows):
    columns = list(zip(*rows, strict=True))
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, RESULTS, strict=True)], schema=RESULTS)


FOUR = results_of(
    ("succeeded", "n1", True, None, None, None),
    ("rejected", None, None, "ENTITY_IS_DELETED", "gone", None),
    ("unknown", None, None, "NO_RESULT", "?", None),
    ("held", None, None, "UNPROCESSED", None, None),
)


def settled(operation, results=FOUR, **more):
    return settlement_of(batch_of(operation, **more), results, MemoryOrg())


def moves(settlement):
    return [(r["op"], r["key"], r["record_id"], r["flags"], r["ck"]) for r in settlement.snapshot.to_pylist()]


@pytest.mark.parametrize("operation", [Operation.INSERT, Operation.UPDATE, Operation.UPSERT])
def test_a_settlement_moves_acknowledged_rows_and_keeps_rejected_ones_waiting(operation):
    settlement = settled(operation)
    assert (settlement.succeeded, settlement.rejected, settlement.unknown, settlement.held) == (1, 1, 1, 1)
    created = ("put", "a", "n1", int(Flag.CREATED), CK[5])
    forgotten = ("forget", "b", None, 0, CK[6])
    doubtful = ("put", "c", None, int(Flag.UNKNOWN), CK[7])
    assert (
        moves(settlement)
        == [created]
        + {
            Operation.INSERT: [doubtful],
            Operation.UPDATE: [forgotten],
            Operation.UPSERT: [],
        }[operation]
    )
    assert settlement.resolved.to_pylist() == [{"kh": 1, "key": "a"}]
    assert settlement.waiting.select(["key", "ck", "code", "transient"]).to_pylist() == [
        {"key": "b", "ck": CK[6], "code": "ENTITY_IS_DELETED", "transient": False}
    ]
    assert settlement.not_delivered["key"].to_pylist() == ["b", "c", "d"]


def test_an_acknowledged_row_keeps_who_made_its_record_and_loses_its_doubts():
    everything = int(Flag.ADOPTED | Flag.LEFT | Flag.STALE | Flag.UNKNOWN)
    ok = results_of(*[("succeeded", None, False, None, None, None)] * 4)
    settlement = settled(Operation.UPDATE, ok, flags=(everything, int(Flag.CREATED), 0, 0))
    assert moves(settlement)[:2] == [
        ("put", "a", "i1", int(Flag.ADOPTED), CK[5]),
        ("put", "b", "i2", int(Flag.CREATED), CK[6]),
    ]


def test_results_that_are_too_few_or_too_many_are_a_defect_and_never_settled():
    with pytest.raises(CountsError, match="4 rows were sent, 3 results read"):
        settled(Operation.INSERT, FOUR.slice(1))


def test_counts_that_do_not_add_up_end_the_run(tmp_path):
    run = SyncRun("r", 0.0, plan_counts=Counts(read=3, planned=3))
    with pytest.raises(CountsError, match="read 3, planned 3, accounted for 0"):
        run.check_counts()
    run = SyncRun("r", 0.0, plan_counts=Counts(read=3, planned=2))
    with pytest.raises(CountsError):
        run.check_counts()
    assert CountsError.exit_code == 7


def test_a_stale_plan_is_refused(tmp_path):
    act, world = activation(), World(tmp_path / "s")
    world.sync(act, Model.of(BEFORE))
    stale = world.plan(act, Model.of(AFTER))
    world.sync(act, Model.of(AFTER))
    with world.state().locked(ORG, act) as state, pytest.raises(StateError, match="DB504"):
        execute(stale, world.org, state, world.clock, run=SyncRun("r", 0.0), progress=NoProgress())
    other = activation(fields=(FieldMapping("a", "A__c"),))
    with world.state().locked(ORG, other) as state, pytest.raises(StateError, match="DB504"):
        fresh = world.plan(act, Model.of(AFTER))
        execute(fresh, world.org, state, world.clock, run=SyncRun("r", 0.0), progress=NoProgress())


def test_a_plan_names_the_rows_in_flight_and_leaves_them_out(tmp_path):
    act, world = activation("insert"), World(tmp_path / "s")
    with pytest.raises(Killed):
        world.sync(act, Model.of(BEFORE), trip=Trip("close", True))
    for job_id in list(world.org.jobs)[-1:]:
        world.org.job(job_id)
        world.org.job(job_id)
    plan = world.plan(act, Model.of([*BEFORE, AFTER[-1]]))
    assert plan.refusal is None, "the records are this activation's own"
    assert (plan.counts.in_flight, plan.counts.planned) == (4, 1)
    assert plan.counts.add_up
    run = world.sync(act, Model.of([*BEFORE, AFTER[-1]]))
    assert (run.recovered.succeeded, run.outcome.succeeded) == (4, 1)


@pytest.mark.parametrize("dies", [True, False], ids=["killed", "no reply"])
@pytest.mark.parametrize("api", ["collections", "bulk"])
@pytest.mark.parametrize("mode", ["upsert", "update"])
def test_a_row_that_is_back_at_what_was_acknowledged_is_sent_where_a_write_is_in_doubt(tmp_path, mode, api, dies):
    """Salesforce may hold what nobody acknowledged, and the model says again what was acknowledged before."""
    world = World(tmp_path / "state")
    for row in BEFORE_ROWS:
        world.org.add(Ext__c=row["ext"])
    act = activation(mode, api=api)
    world.sync(act, Model.of(BEFORE_ROWS))
    honest = world.org
    if dies:
        with pytest.raises(Killed):
            world.sync(act, Model.of(AFTER_ROWS), trip=Trip("send" if api == "collections" else "close", True))
        honest.jobs.clear()  # and Salesforce has forgotten the job
    else:
        call = "send" if api == "collections" else "results"
        world.org = Unreliable(honest, {call: [(OutcomeUnknown, True)] * 3})
        world.sync(act, Model.of(AFTER_ROWS))
        world.org = honest
    for record, row in zip(honest.records["Thing__c"].values(), AFTER_ROWS, strict=True):
        record["A__c"] = row["a"]  # it was carried out
    for _ in range(2):
        run = world.sync(act, Model.of(BEFORE_ROWS))
    assert world.org.held("Ext__c", "A__c") == [(row["ext"], row["a"]) for row in BEFORE_ROWS]
    assert run.plan_counts.planned == 0


@pytest.mark.parametrize("mode", ["upsert", "update"])
def test_a_row_of_unknown_outcome_that_is_back_at_what_was_acknowledged_is_sent(tmp_path, mode):
    world = World(tmp_path / "state")
    for row in BEFORE_ROWS:
        world.org.add(Ext__c=row["ext"])
    act = activation(mode, api="bulk")
    world.sync(act, Model.of(BEFORE_ROWS))
    read = world.org.results

    def blurred(job_id, batch):
        fates = pa.array(["unknown"] * len(batch.rows))
        return read(job_id, batch).set_column(0, "fate", fates)

    world.org.results = blurred
    assert world.sync(act, Model.of(AFTER_ROWS)).outcome.unknown == len(AFTER_ROWS)
    world.org.results = read
    world.sync(act, Model.of(BEFORE_ROWS))
    assert world.org.held("Ext__c", "A__c") == [(row["ext"], row["a"]) for row in BEFORE_ROWS]


BEFORE_ROWS = [{"id": str(n), "ext": f"e{n}", "a": "before", "b": "y"} for n in range(3)]
AFTER_ROWS = [{**row, "a": "after"} for row in BEFORE_ROWS]


@pytest.mark.parametrize("waits", [True, False])
def test_an_older_copy_looks_up_what_a_job_of_the_newer_one_makes_once_it_has(tmp_path, monkeypatch, waits):
    """Such an upsert inserts what it does not find, and a job that runs can't be found out about by looking."""
    act = activation("upsert", match=Match("code", "Code__c", create=True))
    world = World(tmp_path / "s")
    rows = [{"id": n, "code": f"c{n}", "a": f"a{n}", "b": "b"} for n in "123"]
    world.sync(act, Model.of(rows[:1]))
    shutil.copytree(tmp_path / "s", tmp_path / "copy")
    older = World(tmp_path / "copy", world.org, world.clock, world.runs + 10)
    with pytest.raises(Killed):
        world.sync(act, Model.of(rows), trip=Trip("close", True))

    def job_goes_on(_):
        for _ in range(2):
            world.org.job(list(world.org.jobs)[-1])

    with monkeypatch.context() as patch, pytest.raises(StateError) as refused:
        if waits:
            patch.setattr(world.clock, "sleep", job_goes_on)
        older.sync(act, Model.of(rows))
    assert refused.value.problems[0].code == "DB522"
    job_goes_on(0)
    assert older.sync(act, Model.of(rows)).outcome.created == 0
    assert [code for (code,) in world.org.held("Code__c")] == ["c1", "c2", "c3"]
