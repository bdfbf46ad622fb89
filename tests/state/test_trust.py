"""A state is whole, ours and the newest, or it is refused and left as it is, with a way out that works."""

import os
import random
import shutil
import sqlite3
from contextlib import closing, suppress

import pytest
from memory_org import ORG, OWN, Ceilings, Killed, Model, Trip, World, activation

from dinmo_dbt.errors import StateError
from dinmo_dbt.state import Marks, journal, rewriting
from dinmo_dbt.state.spool import ScanSpool

ROWS = [{"id": str(n), "ext": f"e{n}", "a": "x", "b": "y"} for n in range(4)]


class MarkedWorld(World):
    """A world whose user has a home."""

    def state(self, trip=None):
        state = super().state(trip)
        state.marks = Marks(self.folder.parent / "marks")
        return state


@pytest.fixture
def world(tmp_path):
    return MarkedWorld(tmp_path / "state")


def everything(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def put_back(folder, copy):
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)


def changed(n):
    return Model.of([{**row, "a": str(n)} for row in ROWS])


# An older copy


def test_an_older_copy_that_is_put_back_is_refused(world, tmp_path):
    world.sync(activation(), changed(0))
    shutil.copytree(world.folder, tmp_path / "copy")
    world.sync(activation(), changed(1))
    shutil.copytree(world.folder, tmp_path / "newest")
    put_back(world.folder, tmp_path / "copy")
    before = everything(world.folder)
    for look in (lambda: world.plan(activation(), changed(2)), lambda: world.sync(activation(), changed(2))):
        with pytest.raises(StateError, match=r"(?s)DB518.*older copy.*state reset things --to-serial \d+") as error:
            look()
        assert error.value.exit_code == 5
    assert everything(world.folder) == before
    put_back(world.folder, tmp_path / "newest")
    assert world.plan(activation(), changed(1)).counts.unchanged == 4


def test_an_older_database_beside_newer_files_is_refused_without_any_mark(tmp_path):
    world = World(tmp_path / "state")
    world.sync(activation(), changed(0))
    old = (world.folder / "state.db").read_bytes()
    for n in range(3):
        world.sync(activation(), changed(n + 1))
    (world.folder / "state.db").write_bytes(old)
    with pytest.raises(StateError, match="DB518"):
        world.sync(activation(), changed(3))


def test_an_older_copy_can_be_gone_on_from(world, tmp_path):
    world.sync(activation(), changed(0))
    shutil.copytree(world.folder, tmp_path / "copy")
    for n in range(3):
        world.sync(activation(), changed(n + 1))
    newest = world.state().known()[0].serial
    put_back(world.folder, tmp_path / "copy")
    rewriting.go_back(world.state(), OWN, world.state().known()[0].serial)
    assert world.state().known()[0].serial > newest
    assert world.plan(activation(), changed(0)).counts.unchanged == 4
    assert world.sync(activation(), changed(3)).outcome.succeeded == 4
    assert world.sync(activation(), changed(3)).plan_counts.planned == 0


def test_an_insert_can_not_go_back_and_starts_again_only_with_rows_that_no_job_has_made(world, tmp_path):
    act = activation("insert")
    world.sync(act, changed(0))
    shutil.copytree(world.folder, tmp_path / "copy")
    world.sync(act, changed(1))
    put_back(world.folder, tmp_path / "copy")
    with pytest.raises(StateError, match=r"(?s)DB518.*state reset things, then dinmo-dbt state adopt things"):
        world.sync(act, changed(1))
    with pytest.raises(StateError, match=r"(?s)DB519.*inserted again.*state adopt things"):
        rewriting.go_back(world.state(), OWN, world.state().known()[0].serial)
    assert rewriting.reset(world.state(), OWN)
    assert world.plan(act, changed(0)).is_first
    with pytest.raises(StateError, match=r"(?s)DB522.*state adopt things.*state accept things"):
        world.sync(act, changed(1), Ceilings(first_sync=True))
    assert world.sync(act, changed(2), Ceilings(first_sync=True)).outcome.succeeded == 4


def test_a_state_that_is_forgotten_is_first_again_and_its_serials_go_on(world):
    world.sync(activation(), changed(0))
    serial = world.state().known()[0].serial
    rewriting.reset(world.state(), OWN)
    plan = world.plan(activation(), changed(0))
    assert plan.is_first and plan.counts.added == 4
    with pytest.raises(Killed):
        world.sync(activation(), changed(0), trip=Trip("begin", True))
    assert world.plan(activation(), changed(0)).is_first, "begun, and nothing acknowledged yet"
    world.sync(activation(), changed(0))
    assert world.state().known()[0].serial > serial


@pytest.mark.parametrize("home", [None, "a file"])
def test_without_a_home_there_are_no_marks_and_no_error(tmp_path, home):
    world = World(tmp_path / "state")
    (tmp_path / "file").touch()
    marks = Marks(tmp_path / "file" / "marks") if home else Marks()

    def state(trip=None):
        made = World.state(world, trip)
        made.marks = marks
        return made

    world.state = state
    world.sync(activation(), changed(0))
    shutil.copytree(world.folder, tmp_path / "copy")
    world.sync(activation(), changed(1))
    put_back(world.folder, tmp_path / "copy")
    assert world.sync(activation(), changed(1)).outcome.succeeded == 4


def test_marks_are_by_lineage(world, tmp_path):
    for n in range(3):
        world.sync(activation(), changed(n))
    shutil.rmtree(world.folder)
    assert world.sync(activation(), changed(0)).outcome.succeeded == 4
    assert len(list((tmp_path / "marks").iterdir())) == 2


# Damage


def test_a_kept_serial_is_gone_back_to_when_the_newest_is_damaged(world, monkeypatch):
    monkeypatch.setattr(journal, "DELTA_SHARE_MAX", 1000.0)
    for n in range(4):
        world.sync(activation(), changed(n))
    state = world.state().view(ORG, activation())
    path = world.folder / "snapshots" / OWN.folder / state.files[-1].name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    kept = [pointer["serial"] for pointer in state.previous]
    [known] = world.state().known()
    assert known.kept_serials == tuple(kept)
    assert all(pointer["mappings"] for pointer in state.previous), "what its hashes are of"
    assert "damaged" in known.problem
    for look in (lambda: world.plan(activation(), changed(3)), lambda: world.sync(activation(), changed(3))):
        with pytest.raises(StateError, match=rf"(?s)DB513.*state reset things --to-serial {kept[0]}"):
            look()
    with pytest.raises(StateError, match=r"DB516.*not whole either"):
        rewriting.go_back(world.state(), OWN, state.serial)
    with pytest.raises(StateError, match=r"DB516.*not kept; kept: \d+, \d+, \d+"):
        rewriting.go_back(world.state(), OWN, 1)
    rewriting.go_back(world.state(), OWN, kept[0])
    run = world.sync(activation(), changed(3))
    assert (run.plan_counts.changed, run.outcome.succeeded) == (4, 4)
    assert world.sync(activation(), changed(3)).plan_counts.planned == 0


def test_a_damaged_snapshot_can_be_forgotten(world):
    world.sync(activation(), changed(0))
    for path in (world.folder / "snapshots").rglob("*.parquet"):
        path.write_bytes(b"")
    assert world.state().known()[0].problem
    assert rewriting.reset(world.state(), OWN)
    assert world.sync(activation(), changed(0)).outcome.succeeded == 4


def variants(content, samples, chance):
    """The file cut at some lengths, and with some bits flipped."""
    yield b""
    for length in sorted(chance.sample(range(1, len(content)), samples // 3)):
        yield content[:length]
    for at in sorted(chance.sample(range(len(content)), samples)):
        bent = bytearray(content)
        bent[at] ^= 1 << chance.randrange(8)
        yield bytes(bent)


@pytest.mark.slow
def test_any_file_cut_anywhere_or_with_any_bit_flipped_is_refused_or_harmless(world, monkeypatch):
    monkeypatch.setattr(journal, "DELTA_SHARE_MAX", 1000.0)
    act = activation()
    world.org.refuse = lambda row: "REQUIRED_FIELD_MISSING:no:A__c --" if row.get("Ext__c") == "e1" else None
    for n in range(3):
        world.sync(act, changed(n))
    whole = world.folder.parent / "whole"
    shutil.copytree(world.folder, whole)
    counts = world.plan(act, changed(3)).counts
    kept, chance, refused, tried = everything(whole), random.Random(11), 0, 0
    for name in [name for name in kept if name.endswith((".db", ".parquet")) and not name.startswith("runs")]:
        for content in variants(kept[name], 120 if name.endswith(".db") else 60, chance):
            if content == kept[name]:
                continue
            (world.folder / name).write_bytes(content)
            with closing(ScanSpool(world.folder.parent)):
                try:
                    assert world.plan(act, changed(3)).counts == counts, (name, len(content))
                    with world.state().locked(ORG, act) as state:
                        assert state.serial
                except StateError as error:
                    assert error.problems[0].code in ("DB502", "DB513", "DB514", "DB515", "DB518"), error
                    assert error.problems[0].hint
                    assert (world.folder / name).read_bytes() == content, "left as it is"
                    refused += name != "history.db"
            put_back(world.folder, whole)
            tried += name != "history.db"  # which holds no row
    assert refused > 0.9 * tried


@pytest.mark.slow
def test_a_reader_refuses_a_snapshot_with_any_bit_flipped(world):
    """Pages have checksums, the footer that says where they are has none: a plan reads no file that is not whole."""
    act = activation()
    world.sync(act, changed(0))
    (file,) = world.state().view(ORG, act).files
    (path,) = (world.folder / "snapshots").rglob(file.name)
    content = path.read_bytes()
    for at in range(0, len(content), 2):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at // 2 % 8]) + content[at + 1 :])
        with pytest.raises(StateError, match="DB513"):
            world.state().view(ORG, act)


def test_rows_of_the_journal_that_are_no_longer_what_was_written_are_refused(world):
    """After a kill the note about the database is of the past: what is read must stand on its own."""
    with pytest.raises(Killed):
        world.sync(activation(api="bulk"), changed(0), trip=Trip("close", True))
    path = world.folder / "state.db"
    content = path.read_bytes()
    for column, value in (("state", "clxsed"), ("described", "{}"), ("described", "[")):
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"UPDATE batch SET {column} = ?", (value,))
        bent = path.read_bytes()
        with pytest.raises(StateError, match="DB502"):
            world.sync(activation(api="bulk"), changed(0))
        path.write_bytes(content)
        assert bent != content
    for column in ("files", "previous", "identity", "mappings"):
        for value in ("[{}]", "{", "3"):
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.execute(f"UPDATE activation SET {column} = ?", (value,))
            with suppress(StateError):
                world.plan(activation(api="bulk"), changed(0))
            path.write_bytes(content)


def test_permission_denied_and_read_only_are_reported_and_nothing_is_half_moved(world, monkeypatch):
    world.sync(activation(), changed(0))
    before = everything(world.folder)

    def denied(*arguments, **options):
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr("sqlite3.connect", denied)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(StateError, match=r"DB510.*permission denied") as error:
        world.plan(activation(), changed(0))
    assert str(world.folder / "state.db") in error.value.problems[0].where
    monkeypatch.undo()
    real = os.open

    def read_only(path, flags, *more, **options):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(30, "Read-only file system")
        return real(path, flags, *more, **options)

    monkeypatch.setattr("os.open", read_only)
    with pytest.raises(StateError, match=r"DB510.*read-only"):
        world.sync(activation(), changed(1))
    monkeypatch.undo()
    assert everything(world.folder) == before


def test_a_database_from_elsewhere_beside_these_files_is_refused(world, tmp_path):
    world.sync(activation(), changed(0))
    other = World(tmp_path / "other")
    for n in range(3):
        other.sync(activation(), changed(n))
    before = everything(world.folder / "snapshots")
    shutil.copy(other.folder / "state.db", world.folder / "state.db")
    with pytest.raises(StateError, match="DB513"):
        world.sync(activation(), changed(0))
    shutil.copy(other.folder / "state.db.sha256", world.folder / "state.db.sha256")
    with pytest.raises(StateError, match="DB513"):
        world.sync(activation(), changed(0))
    assert everything(world.folder / "snapshots") == before


def test_files_of_another_org_in_the_place_of_ours_are_refused(world):
    world.sync(activation(), changed(0))
    ours = world.folder / "snapshots" / OWN.folder / world.state().view(ORG, activation()).files[-1].name
    other = MarkedWorld(world.folder.parent / "other")
    other.org.org_id = "00D000000000002EAA"
    other.sync(activation(), changed(1))
    state = other.state().view(other.org.org_id, activation())
    shutil.copy(other.folder / state.place / state.files[-1].name, ours)
    with pytest.raises(StateError, match="DB513"):
        world.sync(activation(), changed(0))
