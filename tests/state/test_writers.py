"""One writer: whoever was taken over can't write any more, and an amendment moves the snapshot alone."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager

import pyarrow as pa
import pytest
from memory_org import ORG, OWN, Killed, Model, World, activation, fates, own

from dinmo_dbt.delivery.batch_state import BatchState
from dinmo_dbt.delivery.run import SyncRun
from dinmo_dbt.delivery.sync import execute
from dinmo_dbt.errors import StateError
from dinmo_dbt.plan.draw import draw
from dinmo_dbt.plan.plan import payload_batch
from dinmo_dbt.rows.snapshot import Flag
from dinmo_dbt.state import LocalState, own_lease, rewriting
from dinmo_dbt.state.journal import ActivationState
from dinmo_dbt.state.snapshot import DELTA
from dinmo_dbt.state.spool import ScanSpool

ROWS = [{"id": str(n), "ext": f"e{n}", "a": "x", "b": "y"} for n in range(4)]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "state")


def statement(world, text, *parameters):
    with closing(sqlite3.connect(world.folder / "state.db")) as connection, connection:
        return connection.execute(text, parameters).fetchall()


def taken_over(world):
    """Another run has been here: the epoch moved on."""
    statement(world, "UPDATE activation SET epoch = epoch + 1")


def everything(world):
    with closing(sqlite3.connect(world.folder / "state.db")) as connection:
        return list(connection.iterdump())


def rows(snapshot, keys, flag, op):
    every = pa.concat_tables(snapshot.tables())
    chosen = every.filter(pa.array([key in keys for key in every["key"].to_pylist()]))
    flags = pa.array([value | flag for value in chosen["flags"].to_pylist()], pa.uint8())
    return chosen.set_column(4, "flags", flags).append_column("op", pa.repeat(op, len(chosen))).cast(DELTA)


def test_a_writer_that_was_taken_over_records_nothing(world):
    act = activation(api="bulk")
    world.sync(act, Model.of(ROWS))
    with world.state().locked(ORG, act) as state:
        with closing(ScanSpool(world.folder.parent)) as spool:
            plan = draw(act, Model.of([{**row, "a": "new"} for row in ROWS]), world.org, state, spool)
            rows_sent = plan.batch_rows(plan.batches[0])
        state.begin(plan)
        [planned] = plan.batches
        batch = payload_batch(plan, planned, "run-1", rows_sent)
        state.planned(batch, "run")
        taken_over(world)
        world.clock.sleep(2)
        before = everything(world)
        attempts = (
            state.hold,
            lambda: state.begin(plan),
            lambda: state.planned(batch, "run"),
            lambda: state.advance("run-1", BatchState.OPENED, "750"),
            lambda: state.abandon("run-1"),
            lambda: state.amend(rows(state.snapshot, {"1"}, Flag.STALE, "put")),
            lambda: state.finish(complete=True),
            state.compact,
        )
        for attempt in attempts:
            with pytest.raises(StateError, match=r"DB503.*took over things") as error:
                attempt()
            assert error.value.exit_code == 5
        assert everything(world) == before


def test_a_run_that_is_taken_over_while_it_reads_sends_nothing(world):
    act = activation(api="bulk")
    with closing(ScanSpool(world.folder.parent)) as spool, world.state().locked(ORG, act) as state:
        plan = draw(act, Model.of(ROWS), world.org, state, spool)
        taken_over(world)
        with pytest.raises(StateError, match="DB503"):
            execute(plan, world.org, state, world.clock, run=SyncRun("r", 0.0), progress=None)
    assert not world.org.writes
    assert world.state().known() == []


def test_holding_renews_the_lease_when_a_third_of_it_has_passed(world):
    def until():
        return statement(world, "SELECT lease_until FROM activation")[0][0]

    with world.state().locked(ORG, activation()) as state:
        first = until()
        assert first == world.clock.now() + 600
        world.clock.sleep(199)
        state.hold()
        assert until() == first
        world.clock.sleep(1)
        state.hold()
        assert until() == first + 200


def test_a_writer_that_is_paused_as_soon_as_it_has_committed_looks_again(world, monkeypatch):
    connection = LocalState.connection

    @contextmanager
    def paused(store, *, writing, history=False):
        with connection(store, writing=writing, history=history) as opened:
            yield opened
        if writing:
            world.clock.sleep(700)

    act = activation(api="bulk")
    with world.state().locked(ORG, act) as state, closing(ScanSpool(world.folder.parent)) as spool:
        plan = draw(act, Model.of(ROWS), world.org, state, spool)
        monkeypatch.setattr(LocalState, "connection", paused)
        state.begin(plan)
        monkeypatch.undo()
        taken_over(world)
        with pytest.raises(StateError, match="DB503"):
            state.hold()


def test_a_start_that_draws_no_plan_is_no_state(world):
    with world.state().locked(ORG, activation()):
        pass
    assert world.state().known() == []
    assert not world.state().view(ORG, activation("insert")).exists, "nor has it an identity"
    world.sync(activation(name="other"), Model.of(ROWS))
    rewriting.move(world.state(), own("other"), own("things"))
    assert world.sync(activation(), Model.of(ROWS)).plan_counts.unchanged == 4


def test_an_amendment_moves_the_snapshot_by_its_rows(world):
    act = activation()
    world.sync(act, Model.of(ROWS))
    with world.state().locked(ORG, act) as state:
        serial = state.serial
        state.amend(rows(state.snapshot, {"1"}, Flag.ADOPTED, "put"))
        state.amend(rows(state.snapshot, {"2"}, 0, "forget"))
        state.amend(rows(state.snapshot, (), 0, "put"))
        assert state.serial == serial + 2
    kept = world.snapshot(act)
    assert sorted(kept) == ["0", "1", "3"]
    assert kept["1"][1] & Flag.ADOPTED
    run = world.sync(act, Model.of(ROWS))
    assert (run.plan_counts.added, run.plan_counts.unchanged, fates(run)) == (1, 3, {})


# Leases, with real processes

HOLDER = """
import sys
sys.path.insert(0, {tests!r})
from contextlib import closing
from pathlib import Path
from memory_org import ORG, Model, World, activation
from dinmo_dbt.errors import StateError
from dinmo_dbt.plan.draw import draw
from dinmo_dbt.plan.plan import payload_batch
from dinmo_dbt.state.spool import ScanSpool
from dinmo_dbt.delivery.batch_state import BatchState

world, act = World(Path({folder!r})), activation(api="bulk")
rows = [{{"id": str(n), "ext": f"e{{n}}", "a": "paused", "b": "y"}} for n in range(4)]
with world.state().locked(ORG, act, "paused-run") as state, closing(ScanSpool(world.folder.parent)) as spool:
    plan = draw(act, Model.of(rows), world.org, state, spool)
    state.begin(plan)
    batch = payload_batch(plan, plan.batches[0], "paused-0001", plan.batch_rows(plan.batches[0]))
    state.planned(batch, "paused-run")
    print("holding", flush=True)
    sys.stdin.readline()
    world.clock.sleep(700)
    for act in (state.hold, lambda: state.advance("paused-0001", BatchState.OPENED, "750"), state.compact):
        try:
            act()
            print("wrote", flush=True)
        except StateError as error:
            print(error.problems[0].code, flush=True)
"""


@pytest.fixture
def holder(world):
    """A process that holds the state of `things`, with a batch under way."""
    tests = os.path.dirname(os.path.dirname(__file__))
    code = HOLDER.format(tests=tests, folder=str(world.folder))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout.readline() == "holding\n"
    yield process
    process.kill()
    process.communicate()


def test_a_paused_process_is_taken_over_when_its_lease_has_run_out_and_refused_when_it_wakes(world, holder):
    act = activation(api="bulk")
    holder.send_signal(signal.SIGSTOP)
    world.clock.sleep(500)
    with pytest.raises(StateError, match=rf"DB501.*process {holder.pid} .*run paused-run"):
        world.sync(act, Model.of(ROWS))
    world.clock.sleep(100)
    run = world.sync(act, Model.of(ROWS))
    assert (run.status, run.outcome.succeeded, run.recovered.succeeded) == ("success", 4, 0)
    after = everything(world)
    files = world.files()
    holder.send_signal(signal.SIGCONT)
    answers = holder.communicate("go on\n", timeout=30)[0].split()
    assert answers == ["DB503"] * 3
    assert holder.returncode == 0
    assert everything(world) == after
    left = set(world.files()) - set(files)
    assert all("/base-" in name for name in left), "a file that nothing names, which the next run removes"
    assert world.sync(act, Model.of(ROWS)).plan_counts.unchanged == 4
    assert not left & set(world.files())


def test_who_takes_over_is_the_one_holder_from_then_on(world, holder):
    holder.send_signal(signal.SIGSTOP)
    world.clock.sleep(601)
    with world.state().locked(ORG, activation()) as state:
        with pytest.raises(StateError, match=f"DB501.*process {os.getpid()} "), world.state().locked(ORG, activation()):
            pass
        holder.kill()
        holder.wait()
        with pytest.raises(StateError, match="DB501"), world.state().locked(ORG, activation()):
            pass
        world.clock.sleep(700)
        state.hold()
    with world.state().locked(ORG, activation()):
        pass


def test_a_lease_that_is_taken_is_reported_and_taken_by_an_unlock(world, holder):
    [held] = world.state().held("things")
    assert (held.holder.pid, held.holder.run_id, held.in_flight) == (holder.pid, "paused-run", 4)
    assert held.holder.lives and not held.overdue
    assert world.state().held("others") == []
    world.state().unlock(held)
    assert world.state().held() == []
    run = world.sync(activation(api="bulk"), Model.of(ROWS))
    assert run.outcome.succeeded == 4
    assert holder.communicate("go on\n", timeout=30)[0].split() == ["DB503"] * 3
    with pytest.raises(StateError, match=r"DB501.*changed hands"):
        world.state().unlock(held)
    assert world.sync(activation(api="bulk"), Model.of(ROWS)).plan_counts.unchanged == 4


def test_a_killed_process_leaves_a_lease_that_keeps_nobody_out(world, holder):
    holder.kill()
    holder.wait()
    [held] = world.state().held("things")
    assert held.holder.lives is False and held.seems_dead
    world.sync(activation(api="bulk"), Model.of(ROWS))
    assert world.state().held() == []


def test_a_state_that_moves_between_the_look_and_the_lease_is_looked_at_again(world, monkeypatch):
    world.sync(activation(), Model.of(ROWS))
    start = ActivationState.start

    def late(state, *arguments):
        taken_over(world)
        start(state, *arguments)

    monkeypatch.setattr(ActivationState, "start", late)
    with (
        pytest.raises(StateError, match=r"DB501.*another run wrote meanwhile"),
        world.state().locked(ORG, activation()),
    ):
        pass
    monkeypatch.undo()
    assert world.sync(activation(), Model.of(ROWS)).plan_counts.unchanged == 4


def test_a_lock_file_that_was_replaced_is_no_lock(world):
    path = world.folder / "locks" / f"{OWN.file_name}.lock"
    with world.state().locked(ORG, activation()):
        path.unlink()
        path.touch()
        with world.state().locked(ORG, activation()):
            pass


def test_while_a_warehouse_is_waited_for_the_lease_is_renewed_beside_it(world, monkeypatch):
    monkeypatch.setattr(own_lease, "RENEW_S", 0.01)
    with world.state().locked(ORG, activation()) as state:
        world.clock.sleep(300)
        with state.kept():
            until = time.monotonic() + 30
            while world.state().held("things")[0].until < world.clock.now() + 600 and time.monotonic() < until:
                threading.Event().wait(0.01)
        assert world.state().held("things")[0].until == world.clock.now() + 600
        assert not [thread for thread in threading.enumerate() if thread.name == "lease"]
        taken_over(world)
        with state.kept():
            pass
        with pytest.raises(StateError, match="DB503"):
            state.retry_now()


def test_a_take_over_that_is_killed_before_its_lock_file_is_in_place_is_taken_over_in_its_turn(
    world, holder, monkeypatch
):
    def killed(lock):
        raise Killed("replace")

    holder.send_signal(signal.SIGSTOP)
    world.clock.sleep(601)
    monkeypatch.setattr("dinmo_dbt.state.local._FileLock.replace", killed)
    with pytest.raises(Killed):
        world.sync(activation(api="bulk"), Model.of(ROWS))
    monkeypatch.undo()
    with pytest.raises(StateError, match=f"DB501.*process {os.getpid()} "):
        world.sync(activation(api="bulk"), Model.of(ROWS))
    world.clock.sleep(601)
    assert world.sync(activation(api="bulk"), Model.of(ROWS)).outcome.succeeded == 4
    holder.send_signal(signal.SIGCONT)
    assert holder.communicate("go on\n", timeout=30)[0].split() == ["DB503"] * 3
