"""What every state does, wherever it is kept: in a folder, in a DuckDB file, in Postgres."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from memory_org import ORG, OWN, Ceilings, FieldMapping, Killed, Model, Trip, activation, fates, own

from dinmo_dbt.activation import WarningKind
from dinmo_dbt.errors import StateError
from dinmo_dbt.plan.plan import LEFT_OUT
from dinmo_dbt.rows.snapshot import Flag, snapshot_rows
from dinmo_dbt.state import Judged, Pause, journal, rewriting, runs
from dinmo_dbt.state.state_id import StateId
from dinmo_dbt.watch.history import RunRecord, Trigger
from dinmo_dbt.watch.notice import Notice, Severity
from dinmo_dbt.watch.schedule import Past
from dinmo_dbt.watch.standing import OpenWarning

ROWS = [{"id": str(n), "ext": f"e{n}", "a": "x", "b": "y"} for n in range(7)]


def changed(value):
    return Model.of([{**row, "a": value} for row in ROWS])


def statement(world, text, *parameters):
    with world.state().connection(writing=True) as connection:
        return connection.execute(text, parameters).fetchall()


@pytest.mark.parametrize("gone", ["run", "activity"])
def test_a_table_of_the_history_that_is_gone_ends_no_run_and_is_made_again(any_world, gone):
    world, told = any_world, []
    world.sync(activation(), Model.of(ROWS))
    world.state().activity("dev").pause("things", "by hand")
    with world.state().connection(writing=True, history=True) as connection:
        connection.execute(f"DROP TABLE {gone}")
    looking = world.state()
    looking.tell = told.append
    assert [run.run_id for run in looking.history.latest()] == ([] if gone == "run" else ["run0001"])
    assert set(looking.activity("dev").pauses()) == ({"things"} if gone == "run" else set())
    assert [problem.code for problem in told] == ["DB531"], "said once"
    assert world.sync(activation(), changed("new")).outcome.succeeded == 7
    after = world.state()
    after.tell = told.append
    after.activity("dev").see(["things"])
    assert "run0002" in [run.run_id for run in after.history.latest()]
    assert len(told) == 1


def test_a_look_at_a_state_that_is_not_there_makes_nothing(any_world):
    assert any_world.plan(activation(), Model.of(ROWS)).is_first
    state = any_world.state()
    assert state.known() == state.history.latest() == state.held() == []
    assert state.history.of("nothing") is None and state.known_lineage() is None
    assert not state.exists()


def test_what_was_acknowledged_is_not_sent_again(any_world):
    world = any_world
    assert world.sync(activation(), Model.of(ROWS)).outcome.succeeded == 7
    assert world.sync(activation(), Model.of(ROWS)).plan_counts.unchanged == 7
    assert world.sync(activation(), changed("new")).plan_counts.changed == 7
    assert world.plan(activation(), changed("new")).counts.planned == 0
    [known] = world.state().known()
    assert (known.rows, known.left, known.pending, known.in_flight, known.held_by) == (7, 0, 0, 0, None)
    assert known.bytes > 0
    assert [run.status for run in world.state().history.latest()] == ["success"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["upsert", "insert"])
def test_a_run_that_is_killed_is_completed_by_the_next(new_world, mode):
    """`test_sync` kills at every call; here it is every third."""
    act = activation(mode, api="bulk")
    probe = Trip()
    new_world().sync(act, Model.of(ROWS), trip=probe)
    for at in range(mode == "insert", len(probe.seen), 3):
        world = new_world()
        with pytest.raises(Killed):
            world.sync(act, Model.of(ROWS), trip=Trip(at, bool(at % 2)))
        if world.state().exists():
            statement(world, "UPDATE activation SET lease_until = lease_until - 601")
        world.sync(act, Model.of(ROWS), Ceilings(first_sync=not world.state().known()))
        assert len(world.org.held("A__c")) == 7, (at, probe.seen[at])
        assert world.plan(act, Model.of(ROWS)).counts.unchanged == 7
        assert world.state().known()[0].in_flight == 0


@pytest.mark.slow
def test_one_writer_at_a_time(any_world):
    world, act = any_world, activation()
    world.sync(act, Model.of(ROWS))
    with world.state().locked(ORG, act, "first"):
        with pytest.raises(StateError, match=r"DB501.*being synced by process.*run first"):
            world.sync(act, Model.of(ROWS))
        for attempt in (
            lambda: rewriting.reset(world.state(), OWN),
            lambda: rewriting.move(world.state(), own("things"), own("others")),
            lambda: rewriting.move(world.state(), own("others"), own("things")),
            lambda: rewriting.go_back(world.state(), OWN, 1),
        ):
            with pytest.raises(StateError, match="DB501"):
                attempt()
        with world.state().locked(ORG, activation(name="other")):
            pass
        with world.state().locked("00D000000000002EAA", act):
            pass
    assert world.sync(act, Model.of(ROWS)).plan_counts.unchanged == 7


def test_who_was_unlocked_writes_no_more(any_world):
    world, act = any_world, activation()
    world.sync(act, Model.of(ROWS))
    with world.state().locked(ORG, act) as state:
        [held] = world.state().held("things")
        assert held.holder.lives and not held.overdue
        world.state().unlock(held)
        world.clock.sleep(2)
        serial = world.state().known()[0].serial
        for write in (state.hold, state.compact, lambda: state.finish(complete=True), state.retry_now):
            with pytest.raises(StateError, match="DB503"):
                write()
        assert world.state().known()[0].serial == serial
        assert world.sync(act, Model.of(ROWS)).plan_counts.unchanged == 7
    assert world.state().held() == []


def test_a_lease_that_ran_out_is_taken_where_the_lease_alone_decides(any_world):
    world, act = any_world, activation()
    with world.state().locked(ORG, act) as state:
        statement(world, "UPDATE activation SET lease_until = lease_until - 601")
        [held] = world.state().held("things")
        assert held.overdue and held.seems_dead
        with world.state().locked(ORG, act) as other:
            other.hold()
            world.clock.sleep(2)
            with pytest.raises(StateError, match="DB503"):
                state.hold()


@pytest.mark.slow
def test_rows_that_wait_are_kept_with_their_reasons(any_world):
    world = any_world
    world.org.refuse = lambda row: "REQUIRED_FIELD_MISSING:no:A__c --" if row.get("Ext__c") == "e1" else None
    run = world.sync(activation(), Model.of(ROWS))
    assert fates(run) == {"1": ("rejected", "REQUIRED_FIELD_MISSING")}
    assert world.state().history.not_delivered(world.state().history.latest()[0])["key"].to_pylist() == ["1"]
    world.sync(activation(), Model.of(ROWS))
    assert world.plan(activation(), Model.of(ROWS)).counts.held == 1
    with world.state().locked(ORG, activation()) as state:
        assert state.retry_now() == 1
    world.org.refuse = lambda row: None
    assert world.sync(activation(), Model.of(ROWS)).outcome.succeeded == 1
    assert world.state().known()[0].pending == 0


@pytest.mark.slow
def test_a_state_is_forgotten_moved_and_gone_back_to(any_world, monkeypatch):
    monkeypatch.setattr(journal, "DELTA_SHARE_MAX", 1000.0)
    world, act = any_world, activation()
    for n in range(3):
        world.sync(act, changed(str(n)))
    kept = world.state().known()[0].kept_serials
    assert len(kept) == 2
    rewriting.go_back(world.state(), OWN, kept[0])
    assert world.plan(act, changed("2")).counts.changed == 7
    assert world.plan(act, changed("1")).counts.unchanged == 7
    rewriting.move(world.state(), own("things"), own("renamed"))
    renamed = activation(name="renamed")
    assert world.sync(renamed, changed("1")).plan_counts.unchanged == 7
    assert world.plan(act, changed("1")).is_first
    with pytest.raises(StateError, match="DB516"):
        rewriting.move(world.state(), own("things"), own("renamed"))
    assert rewriting.reset(world.state(), OWN._replace(name="renamed"))
    assert world.plan(renamed, changed("1")).is_first
    assert world.state().known() == []
    assert world.sync(renamed, changed("1")).outcome.succeeded == 7


TARGETS = ["ci", "DEV", "dév", "../dev", "/", "..", "", "d" * 300, "dev.", "a+b", "\udcff", "开发 环境"]


@pytest.mark.slow
def test_two_targets_of_one_org_know_nothing_of_each_other(any_world):
    """Serials, rows, waits, runs, locks: all of it is apart, under names too that are paths or differ in case alone."""
    world, act = any_world, activation()
    world.sync(act, changed("0"))
    targets = [t for t in TARGETS if t.isprintable() and t.isascii()] + ["dév"]
    for number, target in enumerate(targets, 1):
        world.target = target
        assert world.plan(act, changed(str(number))).is_first, target
        with world.state().locked(ORG, act):
            assert world.state().held("things")[0].target == target
        assert world.sync(act, changed(str(number))).plan_counts.added == 7
        assert [run.target for run in world.state().history.latest()] == [target]
    assert {state.id.target for state in world.state().known()} == {"dev", *targets}
    for number, target in enumerate(["dev", *targets]):
        world.target = target
        assert world.plan(act, changed(str(number))).counts.unchanged == 7
    world.target = "ci"
    assert rewriting.reset(world.state(), world.state().own(ORG, "things"))
    assert world.plan(act, changed("0")).is_first
    world.target = "dev"
    assert world.plan(act, changed("0")).counts.unchanged == 7


def test_the_state_of_a_renamed_target_moves_with_its_runs_and_its_pause(any_world):
    world, act = any_world, activation()
    world.sync(act, changed("0"))
    world.state().activity("dev").pause("things", "a look at it")
    world.target = "development"
    assert world.plan(act, changed("0")).is_first
    rewriting.move(world.state(), OWN, world.state().own(ORG, "things"))
    assert world.sync(act, changed("0")).plan_counts.unchanged == 7
    assert [run.target for run in world.state().history.latest()] == ["development"] * 2
    assert list(world.state().activity("development").pauses()) == ["things"]
    assert world.state().activity("dev").pauses() == {}
    with pytest.raises(StateError, match=r"DB516.*things already has state in org \w+ under dbt target development"):
        rewriting.move(world.state(), OWN, world.state().own(ORG, "things"))


def test_each_state_has_files_of_its_own_on_any_file_system(tmp_path):
    """Names that fold to one another (macOS), are paths, are too long, or are none at all."""
    ids = [StateId(ORG, target, name) for target in TARGETS for name in ("things", "Things", "..", "a.b", "n" * 100)]
    for names in ([each.folder for each in ids], [each.file_name for each in ids]):
        assert len({name.casefold() for name in names}) == len(ids)
        for name in names:
            assert name.isascii() and name.isprintable() and ".." not in name.split("/")
            assert max(map(len, name.split("/"))) <= 250
            (tmp_path / name).mkdir(parents=True)
    assert StateId(ORG, "dev", "things").folder == f"{ORG}/dev/things"


def test_an_amendment_moves_the_snapshot_alone(any_world):
    world, act = any_world, activation()
    world.sync(act, Model.of(ROWS))
    with world.state().locked(ORG, act) as state:
        two = np.arange(2)
        state.amend(snapshot_rows(state.snapshot, two, "put", state.snapshot.flags[two] | np.uint8(Flag.ADOPTED)))
        state.amend(snapshot_rows(state.snapshot, np.array([6]), "forget"))
    flags = [flag for _, flag in world.snapshot(act).values()]
    assert len(flags) == 6
    assert sum(bool(flag & Flag.ADOPTED) for flag in flags) == 2
    assert world.sync(act, Model.of(ROWS)).plan_counts.added == 1


@pytest.mark.slow
def test_deltas_are_folded_and_what_nothing_names_goes(any_world, monkeypatch):
    monkeypatch.setattr(journal, "DELTAS_MAX", 3)
    monkeypatch.setattr(journal, "DELTA_SHARE_MAX", 1e9)
    world, act = any_world, activation()
    world.sync(act, Model.of(ROWS))
    for n in range(6):
        world.sync(act, Model.of([{**ROWS[0], "a": str(n)}, *ROWS[1:]]))
    world.sync(act, Model.of([{**ROWS[0], "a": "5"}, *ROWS[1:]]))
    state = world.state().view(ORG, act)
    named = {file.name for file in state.files} | {file["name"] for p in state.previous for file in p["files"]}
    assert set(world.state().files.names(state.place)) == named
    assert len(state.files) <= 4
    assert len(world.snapshot(act)) == 7


@pytest.mark.slow
def test_history_keeps_the_latest_runs(any_world, monkeypatch):
    monkeypatch.setattr(runs, "KEPT_MIN", 2)
    monkeypatch.setattr(runs, "KEPT_MAX", 2)
    world = any_world
    world.org.refuse = lambda row: "REQUIRED_FIELD_MISSING:no:A__c --"
    for n in range(4):
        world.sync(activation("insert"), changed(str(n)))
    assert [run.run_id for run in world.state().history.latest()] == ["run0004", "run0003"]
    assert world.state().files.names("runs") == ["run0003.parquet", "run0004.parquet"]
    world.org.refuse = lambda row: None
    with pytest.raises(Killed):
        world.sync(activation("insert", fields=(FieldMapping("a", "A__c"),)), Model.of(ROWS), trip=Trip("begin", True))
    assert world.state().history.of("run0005").status == "running"
    world.sync(activation("insert"), Model.of(ROWS))
    assert world.state().history.of("run0005").status == "interrupted"


@pytest.mark.parametrize(("other", "way_out"), [(6, "newer dinmo-dbt"), (4, "state reset --all"), (1, "state adopt")])
def test_another_format_is_refused_with_its_way_out(any_world, other, way_out):
    world = any_world
    world.sync(activation(), Model.of(ROWS))
    statement(world, f"UPDATE meta SET value = '{other}' WHERE key = 'format'")
    told = rf"DB514.*format {other}; this version reads 5\n(.|\n)*{way_out}"
    for look in (
        lambda: world.plan(activation(), Model.of(ROWS)),
        lambda: world.sync(activation(), Model.of(ROWS)),
        world.state().known,
    ):
        with pytest.raises(StateError, match=told):
            look()
    if other > 5:
        with pytest.raises(StateError, match=told):
            world.state().start_anew()


def test_an_older_state_is_removed_whole_and_a_new_one_begins(any_world):
    world, act = any_world, activation(keep_before_images=True)
    world.org.refuse = lambda row: "REQUIRED_FIELD_MISSING:no:A__c --" if row["Ext__c"] == "e3" else None
    world.sync(act, Model.of(ROWS))
    assert world.state().start_anew() is None, "it is today's"
    assert world.state().known()[0].rows == len(ROWS) - 1
    with world.state().locked(ORG, act):
        statement(world, "UPDATE meta SET value = '4' WHERE key = 'format'")
        with pytest.raises(StateError, match=r"DB501.*things"):
            world.state().start_anew()
    if hasattr(world, "new_runner"):
        with world.tables.transaction() as tables:
            tables.execute("UPDATE activation SET lease_until = 0")  # it could not be given back
    assert world.state().start_anew() == 4
    state = world.state()
    assert (state.known(), state.history.latest(), state.start_anew()) == ([], [], None)
    world.org.refuse = lambda row: None
    assert world.sync(act, Model.of(ROWS)).outcome.succeeded == len(ROWS)
    assert world.plan(act, Model.of(ROWS)).counts.planned == 0


def test_a_spool_that_is_gone_stops_the_recovery(any_world):
    world, act = any_world, activation("insert")
    with pytest.raises(Killed):
        world.sync(act, Model.of(ROWS), trip=Trip("close", True))
    files = world.state().files
    folder = f"spool/{OWN.folder}"
    files.remove(folder, files.names(folder))
    with pytest.raises(StateError, match="DB512"):
        world.sync(act, Model.of(ROWS))


def test_files_of_many_parts_are_whole(any_world, monkeypatch):
    monkeypatch.setattr("dinmo_dbt.state.warehouse.PART_BYTES", 100)
    files = any_world.state().files
    any_world.sync(activation(), Model.of(ROWS))
    content = bytes(range(256)) * 5

    def write(sink: pa.NativeFile) -> None:
        sink.write(content)

    put = files.put("runs", "x.bin", write)
    assert put.bytes == len(content)
    if hasattr(any_world, "new_runner"):
        any_world.new_runner()
    files = any_world.state().files
    assert (files.fetch("runs", ["x.bin", "y.bin"]) / "x.bin").read_bytes() == content
    assert not (files.fetch("runs", ["y.bin"]) / "y.bin").exists()
    assert "x.bin" in files.names("runs")


@pytest.mark.slow
def test_a_run_is_reverted_from_images_that_another_runner_kept(any_world):
    world, act = any_world, activation(keep_before_images=True)
    world.sync(act, Model.of(ROWS))
    before = world.org.held("Ext__c", "A__c", "B__c")
    more = Model.of([{**row, "a": "wrong"} for row in ROWS] + [{"id": "n", "ext": "en", "a": "x", "b": "y"}])
    run = world.sync(act, more)
    if hasattr(world, "new_runner"):
        world.new_runner()
    undone = world.revert(act, run.run_id)
    assert (undone.outcome.succeeded, fates(undone)) == (8, {})
    assert world.org.held("Ext__c", "A__c", "B__c") == before
    assert world.sync(act, Model.of(ROWS)).plan_counts.resent == 7
    assert world.plan(act, Model.of(ROWS)).counts.planned == 0


def test_rows_that_wait_are_due_once_they_are_asked_for(any_world):
    world, act = any_world, activation()
    world.org.refuse = lambda row: "FIELD_CUSTOM_VALIDATION_EXCEPTION:no:--" if row["Ext__c"] == "e3" else None
    for _ in range(2):
        world.sync(act, Model.of(ROWS))
    assert world.plan(act, Model.of(ROWS)).counts.held == 1
    with world.state().locked(ORG, act) as state:
        assert state.retry_now() == 1
    assert world.plan(act, Model.of(ROWS)).counts.planned == 1


# Schedules, pauses and notices


def test_an_activation_is_seen_once_and_counts_from_then(any_world):
    activity = any_world.state().activity("dev")
    any_world.sync(activation(), Model.of(ROWS))
    seen = any_world.clock.time
    activity.see(["a", "b"])
    any_world.clock.time += 100
    activity.see(["a", "b"])
    assert activity.pasts(["a", "c"]) == {"a": Past(seen), "c": Past(any_world.clock.time)}
    assert any_world.state().activity("prod").pasts(["a"]) == {"a": Past(any_world.clock.time)}


def test_a_renamed_activation_keeps_its_pause_its_past_and_its_warnings(any_world):
    world = any_world
    world.sync(activation(), Model.of(ROWS))
    activity = world.state().activity("dev")
    past, stands = (
        activity.pasts(["things"])["things"],
        OpenWarning("things", "dev", WarningKind.EMPTY, 1.0, "r", True, "no row"),
    )
    activity.begin_standing(stands, Notice("n1", Severity.CRITICAL, "t", "b"))
    activity.pause("things", "a look at it")
    world.clock.sleep(100)
    activity.see(["other"])
    world.state().activity("prod").see(["other"])
    rewriting.move(world.state(), own("things"), own("other"))
    assert {name: pause.reason for name, pause in activity.pauses().items()} == {"other": "a look at it"}
    assert activity.pasts(["other"])["other"] == past
    assert activity.standing() == [replace(stands, activation="other")]
    assert world.state().activity("prod").pasts(["other"])["other"].since == world.clock.now(), (
        "of that target none was"
    )
    assert [run.activation for run in world.state().history.latest()] == ["other"]


def test_a_run_is_judged_by_the_last_that_worked_however_long_ago(any_world, monkeypatch):
    monkeypatch.setattr(runs, "EARLIER_MAX", 3)
    world, seen = any_world, []

    def judge(record, earlier, standing, others):
        seen.append([run.run_id for run in earlier])
        return Judged()

    history = world.state().history
    for number, status in enumerate(["success", "rejected", "failed", "failed", "failed", "failed", "failed"]):
        record = RunRecord(f"r{number}", "things", "dev", ORG, 100.0 + number, 101.0 + number, status)
        history.finish(record, LEFT_OUT.empty_table(), judge)
    assert seen[4:] == [["r3", "r2", "r1"], ["r4", "r3", "r2", "r1"], ["r5", "r4", "r3", "r1"]]


def test_of_two_that_want_to_send_one_does(any_world):
    world, other = any_world, StateError("DB501", "another one is at it")
    with world.state().alone(" send dev", other):
        with pytest.raises(StateError, match="another one is at it"), world.state().alone(" send dev", other):
            raise AssertionError
        with world.state().alone(" send prod", other):
            pass
    with pytest.raises(ValueError, match="ours"), world.state().alone(" send dev", other):
        raise ValueError("ours")
    with world.state().alone(" send dev", other):
        assert world.state().known() == []


def test_of_two_digests_of_one_moment_one_is_sent(any_world):
    world = any_world
    world.sync(activation(), Model.of(ROWS))
    activity = world.state().activity("dev")
    assert activity.last_digest() is None
    for number, moment in enumerate((100.0, 100.0, 200.0, 100.0)):
        activity.note_digest(moment, [Notice(f"n{number}", Severity.INFO, "t", "b")])
    assert activity.last_digest() == 200.0
    assert [each.notice.id for each in activity.unsent()] == ["n0", "n2"]


def test_what_dbt_built_is_owed_until_a_run_that_started_later_has_ended(any_world):
    world = any_world
    world.sync(activation(), Model.of(ROWS))
    activity = world.state().activity("dev")

    def owed():
        return activity.pasts(["things"])["things"].owed

    world.clock.sleep(10)
    activity.owe({"things": "first"})
    assert owed() == "first"
    activity.pause("things", "a look at it")
    activity.looked("things")
    activity.resume("things")
    activity.see(["things"])
    assert owed() == "first"
    with pytest.raises(Killed):
        world.sync(activation(), changed("new"), trip=Trip("begin", True))
    assert owed() == "first", "that run did not end"
    started = world.clock.now()
    world.clock.sleep(10)
    activity.owe({"things": "second"})
    record = RunRecord("by hand", "things", "dev", ORG, started, world.clock.now(), "success")
    world.state().history.finish(record, LEFT_OUT.empty_table())
    assert owed() == "second", "it read the model before"
    world.sync(activation(), changed("new"))
    assert owed() == ""
    activity.owe({"things": "third"})
    of_it = replace(record, run_id="of it", trigger=Trigger("due", "after dbt", invocation="third"))
    world.state().history.finish(of_it, LEFT_OUT.empty_table())
    assert owed() == "" and "third" in activity.pasts(["things"])["things"].invocations


def test_a_run_that_ended_is_the_past_of_its_schedule_and_one_that_was_cut_off_is_not(any_world):
    world = any_world
    world.sync(activation(), Model.of(ROWS))
    past = world.state().activity("dev").pasts(["things"])["things"]
    assert (past.ran, past.since) == (True, world.state().history.of("run0001").started)
    with pytest.raises(Killed):
        world.sync(activation(), Model.of(ROWS[:2]), trip=Trip("begin", True))
    assert world.state().activity("dev").pasts(["things"])["things"] == past


def test_a_pause_holds_until_it_is_resumed_and_per_target(any_world):
    world = any_world
    world.sync(activation(), Model.of(ROWS))
    dev, prod = world.state().activity("dev"), world.state().activity("prod")
    told = Notice("n1", Severity.CRITICAL, "paused", "why")
    dev.pause("things", "sales is cleaning up", [told])
    assert dev.pauses() == {"things": Pause(world.clock.time, "sales is cleaning up", False)}
    assert prod.pauses() == {}
    world.clock.time += 1000
    dev.resume("things")
    assert dev.pauses() == {}
    assert dev.pasts(["things"])["things"].since == world.clock.time
    assert [unsent.notice for unsent in dev.unsent()] == [told]


def test_what_a_run_is_judged_by_and_what_comes_of_it_are_kept_with_its_end(any_world):
    world, seen = any_world, []
    stands = OpenWarning("things", "dev", WarningKind.FAILED, 5.0, "r3", True, "DB607", "dev/things")
    told = Notice("r3:failed", Severity.CRITICAL, "failed", "body")

    def judge(run, earlier, standing, others):
        assert others == []
        seen.append((run.run_id, [each.run_id for each in earlier], list(standing)))
        return Judged((stands,), (told,), "3 runs in a row failed") if run.run_id == "r3" else Judged()

    history = world.state().history
    for number, (kind, status) in enumerate([("by_hand", "failed"), ("revert", "success"), ("due", "failed")], 1):
        trigger = Trigger(kind, kind)
        run = RunRecord(f"r{number}", "things", "dev", ORG, float(number), number + 0.5, status, trigger)
        history.finish(run, LEFT_OUT.empty_table(), judge)
    history.finish(RunRecord("r4", "things", "dev", ORG, 4.0, 4.5, "interrupted"), LEFT_OUT.empty_table(), judge)
    assert seen == [
        ("r1", [], []),
        ("r2", ["r1"], []),
        ("r3", ["r1"], []),
        ("r4", ["r3", "r1"], [stands]),
    ]
    activity = world.state().activity("dev")
    assert activity.standing() == []
    assert [unsent.notice for unsent in activity.unsent()] == [told]
    assert activity.pauses()["things"].by_itself
    assert activity.pasts(["things"])["things"].since == 3.0


def test_a_notice_is_kept_until_every_place_has_it(any_world):
    world = any_world
    world.sync(activation(), Model.of(ROWS))
    activity = world.state().activity("dev")
    notices = [
        Notice(
            "n1",
            Severity.WARNING,
            "dinmo-dbt [dev] things: failed",
            "body",
            True,
            "things",
            "DB607 no answer",
            incident="dev/things",
            stands=Severity.CRITICAL,
        ),
        Notice("n2", Severity.INFO, "title", "body"),
    ]
    activity.add(notices)
    activity.add(notices)
    activity.sent(["n1"], "warnings.channels[1]")
    activity.sent(["n1", "gone"], "warnings.channels[0]")
    assert [(unsent.notice.id, sorted(unsent.sent)) for unsent in activity.unsent()] == [
        ("n1", ["warnings.channels[0]", "warnings.channels[1]"]),
        ("n2", []),
    ]
    assert [unsent.notice for unsent in activity.unsent()] == notices
    assert world.state().activity("prod").unsent() == []
    activity.forget(["n1"])
    assert [unsent.notice.id for unsent in activity.unsent()] == ["n2"]


def test_rows_that_wait_are_known_by_since_when(any_world):
    world = any_world
    rows = pa.table(
        [["1", "2"], ["held", "held"], ["X", "X"], ["m", "m"], *([None, None] for _ in range(3))], schema=LEFT_OUT
    )
    world.sync(activation(), Model.of(ROWS))
    history, start = world.state().history, world.clock.time + 1
    for number, table in enumerate([rows.slice(0, 1), rows, LEFT_OUT.empty_table(), rows.slice(1)]):
        began = start + number
        history.finish(RunRecord(f"r{number}", "things", "dev", ORG, began, began + 0.5, "success"), table)
    kept = [history.of(f"r{number}") for number in range(4)]
    waits = [(1, start), (2, start), (0, None), (1, start + 3)]
    assert [(run.waiting_rows, run.waiting_since) for run in kept] == waits
    assert history.not_delivered(kept[1]).equals(rows)


def test_runs_older_than_is_kept_go_and_the_latest_stay(any_world, monkeypatch):
    monkeypatch.setattr(runs, "KEPT_MIN", 2)
    world = any_world
    store = world.state()
    store.history_s = 100.0
    started = [world.clock.time - age for age in (500.0, 400.0, 300.0, 50.0, 10.0)]
    for number, start in enumerate(started):
        run = RunRecord(f"r{number}", "things", "dev", ORG, start, start + 1, "success")
        store.history.finish(run, LEFT_OUT.empty_table())
    assert [run.run_id for run in store.history.latest()] == ["r4", "r3"]
    assert [run.run_id for run in store.history.between("dev", started[3], started[4])] == ["r3"]


@pytest.mark.parametrize("name", ["\ud800", "\udcff", "n" * 5000, "'", "été"])
def test_a_run_id_that_no_run_can_have_is_none_and_says_nothing_of_the_history(any_world, name):
    any_world.sync(activation(), Model.of(ROWS))
    store, told = any_world.state(), []
    store.tell = told.append
    assert store.history.of(name) is None
    assert not told


def test_an_entry_of_the_history_that_nobody_wrote_ends_no_run_and_is_kept_apart(any_world):
    act = activation()
    any_world.sync(act, Model.of(ROWS))
    any_world.state().activity("dev").pause("others", "by hand")
    with any_world.state().connection(writing=True, history=True) as connection:
        connection.execute("UPDATE run SET detail = 'x'")
    told = []
    store = any_world.state()
    store.tell = told.append
    assert store.history.latest() == []
    assert set(store.activity("dev").pauses()) == {"others"}
    store.activity("dev").see(["new"])
    assert [problem.code for problem in told] == ["DB531"]
    assert any_world.sync(act, Model.of(ROWS)).plan_counts.planned == 0
    assert len(any_world.state().history.latest()) == 1
    assert set(any_world.state().activity("dev").pauses()) == {"others"}
