"""State in a warehouse: two runners never write at once, and a lost one's batches are settled by the next."""

import itertools
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest
from memory_org import ORG, Killed, Model, Trip, activation
from warehouse.conftest import Project

from dinmo_dbt.errors import ConfigError, StateError, WarehouseError
from dinmo_dbt.state.own_lease import OwnLease
from dinmo_dbt.warehouse.connection import Warehouse, connect

from .conftest import WarehouseWorld

ROWS = [{"id": str(n), "ext": f"e{n}", "a": "x", "b": "y"} for n in range(4)]
_SCHEMAS = itertools.count(1)


@pytest.fixture
def shop(postgres, tmp_path):
    """A project whose target is the Postgres server."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dbt_project.yml").write_text("name: shop\nprofile: shop\n", encoding="utf-8")
    project = Project(folder, {"HOME": str(tmp_path)})
    project.profiles({"dev": postgres.output()})
    return project


def opened(project, **more):
    return connect(
        project.folder, profiles_dir=None, profile=None, target=None, vars={}, env=project.env, writes=True, **more
    )


@pytest.fixture
def world(shop, tmp_path):
    with ExitStack() as stack:

        def runner() -> Warehouse:
            warehouse = opened(shop)
            stack.callback(warehouse.close)
            return warehouse

        yield WarehouseWorld(tmp_path / "world", runner, f"runners_{next(_SCHEMAS)}")


def expire(world):
    with world.state().connection(writing=True) as connection:
        connection.execute("UPDATE activation SET lease_until = lease_until - 601")


RUNNER = """
import os, sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from memory_org import ORG, ManualClock, activation
from dinmo_dbt.errors import StateError
from dinmo_dbt.state import WarehouseState
from dinmo_dbt.warehouse.connection import connect

folder, schema, log = Path({folder!r}), {schema!r}, {log!r}
with connect(folder, profiles_dir=None, profile=None, target=None, vars={{}}, env={env!r}, writes=True) as warehouse:
    state = WarehouseState(warehouse.tables(schema), folder / f"scratch{{os.getpid()}}", ManualClock(), target="dev")
    print("connected", flush=True)
    sys.stdin.readline()
    {what}
"""
TAKE_TURNS = """
    got = 0
    while got < 5:
        try:
            with state.locked(ORG, activation()) as held:
                for word in ("enter", "leave"):
                    with open(log, "a") as file:
                        file.write(f"{word} {os.getpid()}\\n")
                    held.retry_now()
            got += 1
        except StateError as error:
            assert error.problems[0].code == "DB501", error
"""
HOLD = """
    with state.locked(ORG, activation()):
        print("holding", flush=True)
        time.sleep(300)
"""


@pytest.fixture
def start(shop, world, tmp_path):
    """Another runner, as a process of its own, connected and waiting for a line."""
    processes = []

    def begin(what):
        tests = os.path.dirname(os.path.dirname(__file__))
        code = RUNNER.format(
            tests=tests,
            folder=str(shop.folder),
            schema=world.schema,
            log=str(tmp_path / "log"),
            env=shop.env,
            what=what.strip(),
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, stderr=-1, text=True)
        processes.append(process)
        assert process.stdout.readline() == "connected\n", process.stderr.read()
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_two_runners_make_the_tables_and_never_write_at_once(start, tmp_path):
    runners = [start(TAKE_TURNS) for _ in range(2)]
    for runner in runners:
        runner.stdin.write("go\n")
        runner.stdin.flush()
    for runner in runners:
        _, err = runner.communicate(timeout=120)
        assert runner.returncode == 0, err
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 20
    for entered, left in zip(lines[::2], lines[1::2], strict=True):
        assert entered.split() == ["enter", left.split()[1]]


@pytest.mark.slow
def test_a_killed_runner_keeps_others_out_until_its_lease_ends_or_is_taken(start, world):
    runner = start(HOLD)
    runner.stdin.write("go\n")
    runner.stdin.flush()
    assert runner.stdout.readline() == "holding\n"
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    with pytest.raises(StateError, match=rf"(?s)DB501.*process {runner.pid} .*seems to be gone.*state unlock things"):
        world.sync(activation(), Model.of(ROWS))
    [held] = world.state().held("things")
    world.state().unlock(held)
    assert world.sync(activation(), Model.of(ROWS)).outcome.succeeded == 4


@pytest.mark.parametrize("mode", ["upsert", "insert"])
def test_a_lost_runners_batches_are_settled_by_the_next_with_its_own_scratch(world, monkeypatch, mode):
    act = activation(mode, api="bulk")
    monkeypatch.setattr(OwnLease, "release", lambda self: None)  # a runner that is lost says nothing
    with pytest.raises(Killed):
        world.sync(act, Model.of(ROWS), trip=Trip("close", True))
    monkeypatch.undo()
    world.new_runner()
    with pytest.raises(StateError, match="DB501"):
        world.sync(act, Model.of(ROWS))
    assert [flying.job_id for flying in world.state().view(ORG, act).in_flight] == list(world.org.jobs)
    expire(world)
    run = world.sync(act, Model.of(ROWS))
    assert (run.recovered.succeeded, run.plan_counts.planned) == (4, 0)
    assert len(world.org.held("A__c")) == 4


def test_a_paused_runner_that_was_taken_over_is_refused(world):
    act = activation(api="bulk")
    world.sync(act, Model.of(ROWS))
    paused = world.state()
    with paused.locked(ORG, act) as state:
        expire(world)
        world.new_runner()
        assert world.sync(act, Model.of([{**ROWS[0], "a": "new"}, *ROWS[1:]])).outcome.succeeded == 1
        serial = world.state().known()[0].serial
        world.clock.sleep(2)
        for write in (state.hold, state.compact, state.retry_now):
            with pytest.raises(StateError, match="DB503"):
                write()
    assert world.state().known()[0].serial == serial


def test_a_connection_that_was_lost_between_two_writes_is_opened_again(world, postgres):
    act = activation()
    world.sync(act, Model.of(ROWS))
    postgres.run("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
    assert world.sync(act, Model.of(ROWS)).plan_counts.unchanged == 4


def test_a_connection_that_is_lost_within_a_transaction_is_reported(world, postgres):
    act = activation()
    world.sync(act, Model.of(ROWS))
    lost = pytest.raises(StateError, match=r"DB520.*connection to the state was lost")
    with lost, world.state().connection(writing=True) as connection:
        postgres.run("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")
        connection.execute("UPDATE activation SET runs = 99")
    assert world.sync(act, Model.of(ROWS)).plan_counts.unchanged == 4


def test_without_permission_the_grant_is_named_and_with_it_nothing_more_is_needed(shop, postgres, tmp_path):
    name = f"runner_{next(_SCHEMAS)}"
    postgres.run(f"create role {name} login password 'least'", "revoke create on database shop from public")
    shop.profiles({"dev": postgres.output(user=name, password="least")})
    with opened(shop) as warehouse:
        world = WarehouseWorld(tmp_path / "least", lambda: warehouse, name)
        assert world.plan(activation(), Model.of(ROWS)).is_first
        with pytest.raises(
            StateError, match=rf"(?s)DB510.*no permission.*grant usage, create on schema {name}"
        ) as error:
            world.sync(activation(), Model.of(ROWS))
        assert error.value.exit_code == 5
        assert not world.org.writes
        postgres.run(f"create schema {name}", f"grant usage, create on schema {name} to {name}")
        assert world.sync(activation(), Model.of(ROWS)).outcome.succeeded == 4
        assert world.sync(activation(), Model.of(ROWS)).plan_counts.unchanged == 4


def test_a_run_is_found_among_many_by_an_index(world):
    world.sync(activation(), Model.of(ROWS))
    with world.state().connection(writing=True) as connection:
        connection.execute(
            "INSERT INTO run "
            "SELECT 'r' || n, 'org', 'dev', 'a' || mod(n, 50), n, n, 'success', repeat('x', 1500), NULL, n "
            "FROM generate_series(1, 20000) AS n"
        )
        connection.execute("ANALYZE run")
        for asked in ("AND name = 'a7' ORDER BY number DESC LIMIT 1", "ORDER BY number DESC, id DESC LIMIT 20"):
            plan = connection.execute(f"EXPLAIN SELECT * FROM run WHERE target = 'dev' {asked}").fetchall()
            assert "Index" in str([row["QUERY PLAN"] for row in plan]), asked


def test_tables_of_somebody_else_are_refused_and_left_alone(world, postgres):
    postgres.run(f"create schema {world.schema}", f"create table {world.schema}.meta (key text, value text)")
    with pytest.raises(StateError, match="DB502"):
        world.sync(activation(), Model.of(ROWS))


def test_a_duckdb_file_that_another_process_has_is_reported(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dbt_project.yml").write_text("name: shop\nprofile: shop\n", encoding="utf-8")
    project = Project(folder, {"HOME": str(tmp_path)})
    project.profiles({"dev": {"type": "duckdb", "path": "shop.duckdb"}})
    opening = f"c = duckdb.connect({str(folder / 'shop.duckdb')!r})"
    code = f"import duckdb, sys; {opening}; print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.MonkeyPatch.context() as patch, pytest.raises(WarehouseError, match=f"DB708.*process {holder.pid}"):
            patch.setattr("dinmo_dbt.warehouse.duckdb.LOCK_WAIT_S", 0.2)
            opened(project)
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.slow
def test_a_killed_process_keeps_nobody_out_of_a_duckdb_file(tmp_path, monkeypatch):
    """A DuckDB file is one machine's, which knows what processes there are: a lease of one that is gone is nobody's, of
    one that lives it is kept, although the file is free between two transactions."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dbt_project.yml").write_text("name: shop\nprofile: shop\n", encoding="utf-8")
    project = Project(folder, {"HOME": str(tmp_path)})
    project.profiles({"dev": {"type": "duckdb", "path": "shop.duckdb"}})
    with opened(project) as warehouse:
        world = WarehouseWorld(tmp_path / "world", lambda: warehouse, "dinmo")
        world.sync(activation(), Model.of(ROWS))
        with world.state().locked(ORG, activation()) as state:
            other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1)
            owner = state.lease.owner.replace(f'"pid": {os.getpid()}', f'"pid": {other.pid}')
            with world.state().connection(writing=True) as connection:
                connection.execute("UPDATE activation SET lease_owner = ?", (owner,))
            with pytest.raises(StateError, match=f"DB501.*process {other.pid}"):
                world.sync(activation(), Model.of(ROWS))
            other.communicate(b"\n")
            assert world.sync(activation(), Model.of(ROWS)).plan_counts.unchanged == 4


@pytest.mark.slow
def test_two_runs_of_one_process_share_a_duckdb_file(tmp_path):
    """As the looks of one service do, side by side: each has a connection, and they wait for one another."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dbt_project.yml").write_text("name: shop\nprofile: shop\n", encoding="utf-8")
    project = Project(folder, {"HOME": str(tmp_path)})
    project.profiles({"dev": {"type": "duckdb", "path": "shop.duckdb"}})
    failed = []

    def run(number):
        name = f"things{number}"
        try:
            with opened(project) as warehouse:
                world = WarehouseWorld(tmp_path / name, lambda: warehouse, "dinmo")
                world.runs = 100 * number
                for a in "xyz":
                    world.sync(activation(name=name), Model.of([{**row, "a": a} for row in ROWS]))
        except BaseException as error:  # noqa: BLE001 - asserted below
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with opened(project) as warehouse:
        state = WarehouseWorld(tmp_path / "after", lambda: warehouse, "dinmo").state()
        assert {known.name: known.rows for known in state.known()} == {f"things{number}": 4 for number in range(3)}
        assert len(state.history.latest(limit=100)) == 9


def test_other_warehouses_are_a_configuration_error(project):
    project.profiles({"dev": {"type": "duckdb", "path": "warehouse.duckdb"}})
    with opened(project) as warehouse:
        warehouse._engine.tables = lambda schema: None
        with pytest.raises(ConfigError, match=r"(?s)DB713.*duckdb.*location: \.dinmo") as error:
            warehouse.tables("dinmo")
        assert error.value.exit_code == 2
