"""The state folder: one writer, one transaction, nothing left behind, and nothing guessed."""

import ctypes
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from memory_org import ORG, OWN, Ceilings, FieldMapping, Killed, Model, Trip, World, activation, own

from dinmo_dbt.durable import make_folder
from dinmo_dbt.errors import StateError
from dinmo_dbt.state import LocalState, journal, rewriting, runs, sqlite
from dinmo_dbt.watch.history import RunRecord

ROWS = [{"id": str(n), "ext": f"e{n}", "a": "x", "b": "y"} for n in range(4)]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "state")


def everything(folder):
    return {
        str(p.relative_to(folder)): (p.read_bytes() if p.is_file() else None, p.stat().st_mtime_ns)
        for p in folder.rglob("*")
    }


# Looking changes nothing


def test_a_look_at_a_state_that_is_not_there_makes_nothing(tmp_path):
    world = World(tmp_path / "state")
    assert world.plan(activation(), Model.of(ROWS)).is_first
    assert world.state().known() == world.state().history.latest() == []
    assert list(tmp_path.iterdir()) == []


def test_a_look_makes_and_changes_no_file(world):
    world.sync(activation(), Model.of(ROWS))
    with pytest.raises(Killed):
        world.sync(activation("insert", name="other"), Model.of(ROWS), Ceilings(first_sync=True), Trip("close", True))
    before = everything(world.folder)
    for act in (activation(), activation("insert", name="other"), activation(name="third")):
        world.plan(act, Model.of(ROWS))
    state = world.state()
    state.known()
    state.history.latest()
    state.history.of("run0001")
    assert everything(world.folder) == before


# One writer


def test_two_runs_of_one_activation_never_write_at_once(world):
    act = activation()
    world.sync(act, Model.of(ROWS))
    with world.state().locked(ORG, act):
        with pytest.raises(StateError, match=r"DB501.*being synced by process"), world.state().locked(ORG, act):
            pass
        with pytest.raises(StateError, match="DB501"):
            rewriting.reset(world.state(), OWN)
        with pytest.raises(StateError, match="DB501"):
            rewriting.move(world.state(), own("things"), own("others"))
        with pytest.raises(StateError, match="DB501"):
            rewriting.move(world.state(), own("others"), own("things"))
        with world.state().locked(ORG, activation(name="other")):
            pass
        with world.state().locked("00D000000000002EAA", act):
            pass
    with world.state().locked(ORG, act):
        pass


@pytest.mark.slow
def test_the_lock_goes_with_its_process(world):
    code = f"""
import sys, time
sys.path.insert(0, {os.path.dirname(os.path.dirname(__file__))!r})
from memory_org import ORG, World, activation
from pathlib import Path
with World(Path({str(world.folder)!r})).state().locked(ORG, activation()):
    print("locked", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(StateError, match=f"process {holder.pid}"), world.state().locked(ORG, activation()):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert world.sync(activation(), Model.of(ROWS)).outcome.succeeded == 4


@pytest.mark.slow
def test_processes_of_different_activations_share_a_state_from_its_first_moment(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {os.path.dirname(os.path.dirname(__file__))!r})
from memory_org import Model, World, activation
from pathlib import Path
name = sys.argv[1]
world = World(Path({str(tmp_path / "state")!r}))
act = activation("upsert", name=name, api="bulk")
sys.stdin.readline()
for n in range(6):
    rows = [{{"id": str(i), "ext": f"e{{i}}", "a": str(n), "b": "y"}} for i in range(5)]
    world.runs = n + 1000 * int(name[1:])
    assert world.sync(act, Model.of(rows)).outcome.succeeded == 5
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, f"a{n}"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for n in range(4)
    ]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors
    known = LocalState(tmp_path / "state", World(tmp_path).clock, target="dev").known()
    assert [(state.name, state.rows, state.in_flight) for state in known] == [(f"a{n}", 5, 0) for n in range(4)]


def test_of_two_makers_of_a_state_one_wins_and_both_go_on(tmp_path):
    barrier, failures = threading.Barrier(8), []

    def make(number):
        world = World(tmp_path / "state")
        barrier.wait()
        try:
            world.state().history.start(RunRecord(f"r{number}", f"a{number}", "dev", ORG, 1.0, None, "running"))
        except StateError as error:
            failures.append(error)

    threads = [threading.Thread(target=make, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(World(tmp_path / "state").state().history.latest()) == 8
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["history.db"]


# What is refused, and left as it is


def refused(world, code, act=None):
    act = act or activation()
    before = everything(world.folder)
    for look in (lambda: world.plan(act, Model.of(ROWS)), lambda: world.sync(act, Model.of(ROWS))):
        with pytest.raises(StateError) as error:
            look()
        assert error.value.problems[0].code == code, error.value
        assert error.value.exit_code == 5
    after = {name: kept for name, kept in everything(world.folder).items() if not name.startswith("locks")}
    assert {name: content for name, (content, _) in after.items()} == {
        name: content for name, (content, _) in before.items() if not name.startswith("locks")
    }


def test_a_database_that_is_cut_is_refused(world):
    world.sync(activation(), Model.of(ROWS))
    path = world.folder / "state.db"
    content = path.read_bytes()
    for size in (0, 1, 50, 100, 4096, len(content) // 2, len(content) - 4096):
        path.write_bytes(content[:size])
        refused(world, "DB502")
    path.write_bytes(b"not a database at all" * 1000)
    refused(world, "DB502")
    path.write_bytes(content)
    assert world.sync(activation(), Model.of(ROWS)).plan_counts.planned == 0


def test_a_bent_page_is_refused_before_anything_is_written(world):
    world.sync(activation(), Model.of(ROWS))
    path = world.folder / "state.db"
    content = bytearray(path.read_bytes())
    content[4096:4104] = b"\xff" * 8  # a page's header
    path.write_bytes(content)
    with pytest.raises(StateError, match="DB502"):
        world.sync(activation(), Model.of(ROWS))
    assert path.read_bytes() == content


DAMAGES = {
    "empty": b"",
    "no database": b"not a database at all" * 1000,
    "a table is gone": "DROP TABLE run",
    "a table of somebody else's": "DROP TABLE meta; CREATE TABLE meta (a)",
    "another format": "UPDATE meta SET value = '7'",
    "no format": "DELETE FROM meta",
    "no JSON": "UPDATE run SET detail = substr(detail, 1, length(detail) - 1) || 'y'",
    "JSON of another kind": "UPDATE run SET detail = '[1]'",
    "a count that is a text": """UPDATE run SET detail = '{"counts": "x", "outcome": {}}'""",
    "a count of rows that is a text": """UPDATE run SET detail = '{"counts": {"unchanged": "x"}}'""",
    "groups of nobody's": """UPDATE run SET detail = '{"left_out": [{"code": "JOB_RUNNING"}]}'""",
    "a moment that is none": """UPDATE run SET detail = '{"waiting_since": NaN, "waiting_rows": 1}'""",
    "jobs that are numbers": """UPDATE run SET detail = '{"jobs": [1]}'""",
    "a trigger of nobody's": """UPDATE run SET detail = '{"trigger": {"kind": 1, "x": 2}}'""",
    "a time that is a text": "UPDATE run SET started = 'monday'",
    "no time at all": "UPDATE run SET started = 9e300",
    "no text": "UPDATE run SET status = x'ff'",
    "a past that is no list": "UPDATE activity SET invocations = '{'",
    "a past that is a text": "UPDATE activity SET since = 'x'",
    "a folder": Path.mkdir,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_history_ends_no_run_and_is_put_aside_with_what_it_still_has_kept(world, damage):
    act, new = activation(), Model.of([{**row, "a": "new"} for row in ROWS])
    world.sync(act, Model.of(ROWS))
    world.state().activity("dev").pause("others", "by hand")
    path, how = world.folder / "history.db", DAMAGES[damage]
    if callable(how):
        path.unlink()
        how(path)
    elif isinstance(how, bytes):
        path.write_bytes(how)
    else:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executescript(how)
    left, told = path.read_bytes() if path.is_file() else None, []
    looking = world.state()
    looking.tell = told.append
    looking.history.latest()
    looking.activity("dev").pauses()
    looking.activity("dev").pasts(["things"])
    looking.activity("dev").unsent()
    assert [problem.code for problem in told] == ["DB531"], "said once"
    assert told[0].where == str(path)
    assert callable(how) or path.read_bytes() == left, "a reader changes nothing"
    assert world.sync(act, new).outcome.succeeded == len(ROWS)
    writing = world.state()
    writing.history.latest()
    writing.activity("dev").see(["new"])
    (aside,) = world.folder.glob("history.db.damaged-*")
    assert not isinstance(how, bytes) or aside.read_bytes() == left, "nothing is lost"
    after = world.state()
    assert "run0002" in [run.run_id for run in after.history.latest()]
    keeps_pauses = isinstance(how, str) and "activity" not in how
    assert set(after.activity("dev").pauses()) == ({"others"} if keeps_pauses else set())
    after.tell = told.append
    world.sync(act, new)
    assert len(told) == 1
    assert len(list(world.folder.glob("history.db.damaged-*"))) == 1


BESIDE = {
    "empty": Path.touch,
    "text": lambda path: path.write_text("hello" * 1000),
    "a folder": Path.mkdir,
    "a fifo": os.mkfifo,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "another's": lambda path: (path.write_text("hello" * 1000), os.chown(path, 65534, 65534), path.chmod(0)),
}


@contextmanager
def as_a_plain_user():
    """In this thread: root without its right to every file, as commands usually are."""
    libc, header, data = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    before = data[0]
    data[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH (capability.h)
    assert libc.capset(header, data) == 0
    try:
        yield
    finally:
        data[0] = before
        assert libc.capset(header, data) == 0


@pytest.mark.skipif(os.getuid() != 0, reason="root alone can give files away")
@pytest.mark.parametrize("suffix", ["", "-journal", "-wal", "-shm"])
@pytest.mark.parametrize("kind", BESIDE)
def test_whatever_is_beside_the_history_ends_no_command(world, kind, suffix):
    act, new = activation(), Model.of([{**row, "a": "new"} for row in ROWS])
    world.sync(act, Model.of(ROWS))
    path = world.folder / f"history.db{suffix}"
    path.unlink(missing_ok=True)
    BESIDE[kind](path)
    with as_a_plain_user():
        looking, told = world.state(), []
        looking.tell = told.append
        known = [run.run_id for run in looking.history.latest()]
        assert known == ([] if suffix == "" else ["run0001"]), "what the file itself holds is not lost"
        looking.activity("dev").pauses()
        assert world.sync(act, new).outcome.succeeded == len(ROWS)
        assert "run0002" in [run.run_id for run in world.state().history.latest()]


@pytest.mark.skipif(os.getuid() != 0, reason="root alone can give files away")
@pytest.mark.parametrize("suffix", ["-journal", "-wal"])
@pytest.mark.parametrize("kind", ["a folder", "a fifo", "another's"])
def test_what_is_beside_the_journal_is_named_and_said_in_our_words(world, kind, suffix):
    act, new = activation(), Model.of([{**row, "a": "new"} for row in ROWS])
    world.sync(act, Model.of(ROWS))
    path = world.folder / f"state.db{suffix}"
    BESIDE[kind](path)
    before = (world.folder / "state.db").read_bytes()
    for command in (world.plan, world.sync):
        with as_a_plain_user(), pytest.raises(StateError, match="DB515") as error:
            command(act, new)
        assert error.value.problems[0].where == str(path)
        assert "unable to open" not in str(error.value), "SQLite's own words"
    assert (world.folder / "state.db").read_bytes() == before


def test_a_history_that_can_not_be_put_aside_ends_no_command(world, monkeypatch):
    world.sync(activation(), Model.of(ROWS))
    (world.folder / "history.db").write_bytes(b"no database" * 500)
    rename = Path.rename

    def refused(path, target):
        if path.name.startswith("history"):
            raise PermissionError(1, "Operation not permitted")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    state, told = world.state(), []
    state.tell = told.append
    state.activity("dev").pause("things", "by hand")
    assert set(state.activity("dev").pauses()) == {"things"}, "to the end of the command"
    assert [problem.code for problem in told] == ["DB531", "DB531"]
    assert "lost" in told[1].message
    assert world.sync(activation(), Model.of([{**ROWS[0], "a": "new"}, *ROWS[1:]])).outcome.succeeded == 1


def test_a_commit_cut_off_in_the_history_hides_nothing_from_a_reader(world):
    world.sync(activation(), Model.of(ROWS))
    cut_off(world.folder / "history.db")
    before = everything(world.folder)
    looking, told = world.state(), []
    looking.tell = told.append
    assert [run.run_id for run in looking.history.latest()] == ["run0001"]
    assert (everything(world.folder), told) == (before, []), "a reader takes nothing back, and nothing is damaged"
    world.state().take_back()
    assert not (world.folder / "history.db-journal").exists()
    assert [run.run_id for run in world.state().history.latest()] == ["run0001"]


def test_a_reader_leaves_the_locks_of_a_commit_that_goes_on_in_its_own_process(world, monkeypatch):
    world.sync(activation(), Model.of(ROWS))
    path = world.folder / "history.db"
    monkeypatch.setattr(sqlite, "LOCK_WAIT_S", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as writing:
        writing.execute("BEGIN EXCLUSIVE")
        writing.execute("CREATE TABLE filler (x)")
        with pytest.raises(StateError, match="DB501"):
            world.state().history.latest()
        other = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
        tried = subprocess.run([sys.executable, "-c", other, str(path)], capture_output=True, text=True, check=False)
        assert "database is locked" in tried.stderr
        writing.execute("ROLLBACK")


def test_a_database_of_somebody_else_is_refused(world):
    world.folder.mkdir()
    with sqlite3.connect(world.folder / "state.db") as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    refused(world, "DB502")


def test_a_newer_state_is_refused_and_words_that_are_no_json_too(world):
    world.sync(activation(), Model.of(ROWS))
    for statement, code in (
        ("UPDATE meta SET value = '6' WHERE key = 'format'", "DB514"),
        ("UPDATE meta SET value = 'x' WHERE key = 'format'", "DB502"),
        ("DELETE FROM meta", "DB502"),
    ):
        saved = (world.folder / "state.db").read_bytes()
        with sqlite3.connect(world.folder / "state.db") as connection:
            connection.execute(statement)
        connection.close()
        refused(world, code)
        (world.folder / "state.db").write_bytes(saved)
    with sqlite3.connect(world.folder / "state.db") as connection:
        connection.execute("UPDATE activation SET mappings = '[{'")
    connection.close()
    refused(world, "DB502")


def test_a_spool_that_is_gone_or_bent_stops_the_recovery(world):
    act = activation("insert")
    with pytest.raises(Killed):
        world.sync(act, Model.of(ROWS), trip=Trip("close", True))
    [spool] = (world.folder / "spool").rglob("*.arrow")
    content = spool.read_bytes()
    spool.write_bytes(content[:-9] + b"x" + content[-8:])
    with pytest.raises(StateError, match="DB512"):
        world.sync(act, Model.of(ROWS))
    spool.unlink()
    with pytest.raises(StateError, match="DB512"):
        world.sync(act, Model.of(ROWS))
    spool.write_bytes(content)
    assert world.sync(act, Model.of(ROWS)).recovered.succeeded == 4


def test_another_identity_is_refused(world):
    world.sync(activation(), Model.of(ROWS))
    for other in (activation(key=("ext",)), activation("insert"), activation(object="Parent__c")):
        with pytest.raises(StateError, match="DB505") as refused:
            world.state().view(ORG, other)
        assert f"state reset {other.name}, then {other.adopting}" in (refused.value.problems[0].hint or "")
    world.state().view(ORG, activation("update"))
    assert not world.state().view("00D000000000002EAA", activation("insert")).exists, "another org is another state"


def test_a_renamed_activation_is_asked_about(world):
    world.sync(activation(), Model.of(ROWS))
    renamed = world.state().view(ORG, activation(name="renamed"))
    with pytest.raises(StateError, match=r"(?s)DB506.*state move things renamed"):
        renamed.refuse_renamed(["renamed"])
    renamed.refuse_renamed(["renamed", "things"])
    rewriting.move(world.state(), own("things"), own("renamed"))
    assert world.sync(activation(name="renamed"), Model.of(ROWS)).plan_counts.unchanged == 4
    with pytest.raises(StateError, match=r"DB516.*things has no state"):
        rewriting.move(world.state(), own("things"), own("another"))


# What is left behind, and who may read it


def test_nothing_of_a_dead_run_stays_but_what_is_in_flight(world):
    act = activation("insert")
    world.sync(act, Model.of(ROWS))
    spool = world.folder / "spool" / OWN.folder
    (spool / ".run-0001.arrow.ab12.tmp").write_bytes(b"half a spool")
    (spool / "run-0001.arrow").write_bytes(b"a spool that the journal never heard of")
    (world.folder / "snapshots" / OWN.folder / "delta-00000002.9.parquet").write_bytes(b"never committed")
    with pytest.raises(Killed):
        world.sync(act, Model.of([*ROWS, {**ROWS[0], "id": "9"}]), trip=Trip("close", True))
    assert len(list(spool.iterdir())) == 1
    reports = world.folder / "runs"
    reports.mkdir(exist_ok=True)
    (reports / f".run{world.runs:04d}.parquet.ab12.tmp").write_bytes(b"half a report of that run")
    (reports / ".run0001.parquet.ab12.tmp").write_bytes(b"an earlier one, removed once, which a power cut brought back")
    (reports / ".other.parquet.ab12.tmp").write_bytes(b"of a run of another activation, which may be writing it")
    world.sync(act, Model.of(ROWS))
    assert list(spool.iterdir()) == []
    assert [path.name for path in reports.iterdir() if path.suffix == ".tmp"] == [".other.parquet.ab12.tmp"]
    assert "delta-00000002.9.parquet" not in "".join(world.files())
    with sqlite3.connect(world.folder / "state.db") as connection:
        [(batches,)] = connection.execute("SELECT count(*) FROM batch WHERE state NOT IN ('settled', 'abandoned')")
    connection.close()
    assert batches == 0


def test_a_kill_between_commit_and_clean_up_leaves_no_spool_for_ever(world):
    act = activation("insert")
    trip = Trip()
    probe = World(world.folder.parent / "probe")
    probe.sync(act, Model.of(ROWS), trip=trip)
    commit = trip.seen.index("settle") + 1
    assert trip.seen[commit] == "commit"
    with pytest.raises(Killed):
        world.sync(act, Model.of(ROWS), trip=Trip(commit, True))
    assert any("spool" in name for name in world.files())
    assert world.sync(act, Model.of(ROWS)).plan_counts.planned == 0
    assert not any("spool" in name for name in world.files())


def test_all_that_is_made_is_its_owners_alone(world):
    before = os.umask(0o022)
    try:
        with pytest.raises(Killed):
            world.sync(activation("insert"), Model.of(ROWS), trip=Trip("close", True))
    finally:
        os.umask(before)
    for path in (world.folder, *world.folder.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    deep = make_folder(world.folder.parent / "a" / "b" / "c")
    assert {stat.S_IMODE(p.stat().st_mode) for p in (deep, deep.parent, deep.parent.parent)} == {0o700}


def test_reset_forgets_one_activation_and_nothing_else(world):
    world.sync(activation(), Model.of(ROWS))
    world.sync(activation(name="other"), Model.of(ROWS))
    with pytest.raises(Killed):
        changed = [{**row, "a": "new"} for row in ROWS]
        world.sync(activation(api="bulk"), Model.of(changed), trip=Trip("close", True))
    assert rewriting.reset(world.state(), OWN)
    assert not rewriting.reset(world.state(), OWN)
    assert [state.name for state in world.state().known()] == ["other"]
    assert not any("things" in name and "locks" not in name for name in world.files())
    assert world.plan(activation(), Model.of(ROWS)).is_first


# Commits


def test_serials_move_and_the_last_three_are_kept(world, monkeypatch):
    monkeypatch.setattr(journal, "DELTA_SHARE_MAX", 1000.0)
    act = activation(key=("ext",))
    for n in range(6):
        world.sync(act, Model.of([{**row, "a": str(n)} for row in ROWS]))
    view = world.state().view(ORG, act)
    named = {file.name for file in view.files} | {file["name"] for p in view.previous for file in p["files"]}
    world.sync(act, Model.of([{**row, "a": "5"} for row in ROWS]))
    kept = {p.name for p in (world.folder / "snapshots" / OWN.folder).iterdir()}
    assert named <= kept
    assert len(view.previous) == 2
    assert sorted(view.previous, key=lambda p: -p["serial"]) == view.previous


@pytest.mark.slow
def test_deltas_are_compacted_by_number_and_by_share(world, monkeypatch):
    act = activation(key=("ext",))
    many = [{"id": str(n), "ext": f"e{n}", "a": "x" * 50, "b": str(n)} for n in range(500)]
    world.sync(act, Model.of(many))
    assert [file.name[:4] for file in world.state().view(ORG, act).files] == ["base"]
    monkeypatch.setattr(journal, "DELTAS_MAX", 3)
    monkeypatch.setattr(journal, "DELTA_SHARE_MAX", 1e9)
    lengths = []
    for n in range(5):
        many[n] = {**many[n], "a": "changed"}
        world.sync(act, Model.of(many))
        lengths.append(len(world.state().view(ORG, act).files))
    assert lengths == [2, 3, 4, 1, 2]
    assert len(world.snapshot(act)) == 500
    assert world.plan(act, Model.of(many)).counts.unchanged == 500


def cut_off(path):
    """A commit of somebody's that was cut off halfway; what is in the file now."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE filler (x)")
    connection.executemany("INSERT INTO filler VALUES (?)", [("x" * 3000,) for _ in range(200)])
    half, journal = path.read_bytes(), path.with_name(f"{path.name}-journal").read_bytes()
    connection.execute("ROLLBACK")
    connection.close()
    path.write_bytes(half)
    path.with_name(f"{path.name}-journal").write_bytes(journal)
    return half


def test_a_commit_cut_off_in_sqlite_itself_is_reported_and_mended_by_the_next_run(world):
    act = activation()
    world.sync(act, Model.of(ROWS))
    path = world.folder / "state.db"
    half = cut_off(path)
    with pytest.raises(StateError, match=r"DB515.*cut off"):
        world.plan(act, Model.of(ROWS))
    assert path.read_bytes() == half
    assert world.sync(act, Model.of(ROWS)).plan_counts.unchanged == 4
    assert world.plan(act, Model.of(ROWS)).counts.unchanged == 4


def test_a_full_disk_leaves_what_was_there(world, monkeypatch):
    act = activation()
    world.sync(act, Model.of(ROWS))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StateError, match=r"DB510.*the disk is full"):
        world.sync(act, Model.of([{**row, "a": "new"} for row in ROWS]))
    monkeypatch.undo()
    assert not any(name.endswith(".tmp") for name in world.files())
    assert world.sync(act, Model.of([{**row, "a": "new"} for row in ROWS])).outcome.succeeded == 4


def test_history_keeps_the_latest_runs_and_their_undelivered_rows(world, monkeypatch):
    monkeypatch.setattr(runs, "KEPT_MIN", 3)
    monkeypatch.setattr(runs, "KEPT_MAX", 3)
    world.org.refuse = lambda row: "REQUIRED_FIELD_MISSING:no:A__c --"
    for n in range(5):
        world.sync(activation("insert"), Model.of([{**row, "a": str(n)} for row in ROWS]))
    kept = world.state().history.latest()
    assert [run.run_id for run in kept] == ["run0005", "run0004", "run0003"]
    assert world.state().history.not_delivered(kept[0])["code"].to_pylist() == ["REQUIRED_FIELD_MISSING"] * 4
    assert sorted(p.name for p in (world.folder / "runs").iterdir()) == [f"run000{n}.parquet" for n in (3, 4, 5)]
    world.org.refuse = lambda row: None
    with pytest.raises(Killed):
        world.sync(activation("insert", fields=(FieldMapping("a", "A__c"),)), Model.of(ROWS), trip=Trip("begin", True))
    assert world.state().history.latest()[0].status == "running"
    world.sync(activation("insert"), Model.of(ROWS))
    assert world.state().history.of("run0006").status == "interrupted"
