"""A small share of what `make simulate` plays, and whether it could find anything."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from memory_org import Killed
from postgres_server import Postgres

from dinmo_dbt.durable import sync_folder
from dinmo_dbt.errors import StateError
from dinmo_dbt.state.files import LocalFiles

from . import auditor, planting
from .__main__ import played
from .auditor import Broken
from .history import History
from .org import SimulatedOrg
from .process import BadDisk, End, Process, seams

# A process that is killed closes nothing.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def org(tmp_path: Path) -> Iterator[SimulatedOrg]:
    made = SimulatedOrg(tmp_path)
    yield made
    made.close()


@pytest.mark.slow
def test_no_history_loses_or_doubles_a_row(org: SimulatedOrg) -> None:
    broken, met = played(org, range(105))
    assert broken == []
    for each in ("success", "rejected", "deaths", "power", "disk", "stops", "others", "mapping", "DB501", "DB510"):
        assert met[each], f"the histories are too much alike: no {each}"


@pytest.mark.slow
def test_no_history_whose_state_is_in_a_bucket_loses_or_doubles_a_row(tmp_path: Path) -> None:
    org = SimulatedOrg(tmp_path, "bucket")
    try:
        broken, met = played(org, range(30))
    finally:
        org.close()
    assert broken == []
    assert met["success"] and met["DB501"]


@pytest.mark.slow
def test_no_history_whose_state_is_in_postgres_loses_or_doubles_a_row(postgres: Postgres, tmp_path: Path) -> None:
    org = SimulatedOrg(tmp_path, "postgres", postgres)
    try:
        assert played(org, range(2, 5))[0] == []
    finally:
        org.close()


@pytest.mark.slow
def test_a_seed_is_one_history_to_the_letter(org: SimulatedOrg) -> None:
    def lived(seed: int) -> tuple[list[str], object]:
        history = History(org, seed)
        history.play()
        return history.told, org.app.calls.latest()

    for seed in range(27, 33):
        assert lived(seed) == lived(seed)


@pytest.mark.slow
def test_a_history_reads_alike_in_every_process(org: SimulatedOrg) -> None:
    def lived(seed: int) -> History:
        history = History(org, seed)
        history.play()
        return history

    met = next(history for history in map(lived, range(200)) if "process N on HOST" in "".join(history.told))
    command = [sys.executable, "-m", "simulation", "--seed", str(met.seed)]
    said = subprocess.run(command, cwd=planting.ROOT / "tests", capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == "\n".join([f"seed {met.seed}", *met.told]).splitlines()


def test_a_record_too_many_is_seen(org: SimulatedOrg, tmp_path: Path) -> None:
    history = next(h for h in (History(org, seed) for seed in range(50)) if h.mode == "insert")
    history.play()
    copied = next(record for record in org.held() if record["A__c"])
    org.create([{"Name": "copy", "A__c": copied["A__c"], "B__c": copied["B__c"]}])
    with pytest.raises(Broken, match="I1"):
        history.audit.look(Process(tmp_path, epoch=99))


def test_a_folder_whose_name_looks_like_a_value_is_none(org: SimulatedOrg, tmp_path: Path) -> None:
    history = History(org, 0)
    org.folder = tmp_path / "tmpk3_____0"
    history.audit.says_nothing("a message", f"{org.folder}/state is held")
    with pytest.raises(Broken, match="I16"):
        history.audit.says_nothing("a message", f"{org.folder}/state holds k3_____1")


def test_what_a_power_cut_takes_is_what_was_not_synced(tmp_path: Path) -> None:
    def lived(*, synced: bool) -> list[bytes]:
        found = []
        for seed in range(20):
            disk = tmp_path / f"{synced}-{seed}"
            disk.mkdir()
            process = Process(disk, End(99), seed=seed)

            def work(disk: Path = disk, process: Process = process) -> None:
                descriptor = os.open(disk / "file", os.O_WRONLY | os.O_CREAT, 0o600)
                with os.fdopen(descriptor, "wb", closefd=False) as file:
                    file.write(b"whole")
                    file.flush()
                    if synced:
                        os.fsync(descriptor)
                os.close(descriptor)
                if synced:
                    sync_folder(disk)
                process.end = End(len(process.seen), power=True)
                os.mkdir(disk / "never")

            with seams(), pytest.raises(Killed):
                process.run(work)
            found.append((disk / "file").read_bytes() if (disk / "file").exists() else b"-")
        return found

    assert set(lived(synced=True)) == {b"whole"}
    assert set(lived(synced=False)) == {b"", b"wh", b"-"}


def put(disk: Path) -> None:
    LocalFiles(disk).put("spool/org/things", "file", lambda sink: sink.write(b"whole"))


def test_a_file_of_the_state_outlives_a_power_cut_with_its_folders(tmp_path: Path) -> None:
    for seed in range(20):
        disk = tmp_path / str(seed)
        process = Process(disk, End(99), seed=seed)

        def work(disk: Path = disk, process: Process = process) -> None:
            put(disk)
            process.end = End(len(process.seen), power=True)
            os.mkdir(disk / "never")

        with seams(), pytest.raises(Killed):
            process.run(work)
        assert (disk / "spool/org/things/file").read_bytes() == b"whole"


@pytest.mark.parametrize("kind", ["full", "read_only", "sync", "rename"])
def test_a_disk_that_fails_at_any_access_is_a_state_error(tmp_path: Path, kind: str) -> None:
    for at in range(12):
        disk = tmp_path / str(at)
        process = Process(disk, bad=BadDisk(kind, at))
        with seams(), suppress(StateError):
            process.run(lambda disk=disk: put(disk))
            assert not process.hurt
        if process.hurt:
            assert not (disk / "spool/org/things/file").exists() or kind == "sync"


@pytest.mark.parametrize("planted", planting.every(), ids=lambda planted: planted.name)
def test_each_planted_fault_has_its_place(planted: planting.Planted) -> None:
    assert (planting.ROOT / planted.file).read_text(encoding="utf-8").count(planted.old) == 1


@pytest.mark.slow
def test_a_planted_fault_is_found() -> None:
    pointer = next(planted for planted in planting.every() if planted.name == "pointer_stays")
    assert planting.found(pointer, 20) is not None


def test_the_page_names_the_invariants_as_the_auditor_does() -> None:
    table = (auditor.__doc__ or "").partition("\n\n")[2].strip()
    assert table.startswith("| invariant |")
    assert table in (planting.ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
