"""The state on a disk that is full or read-only: said plainly, nothing half-moved, and the next run delivers."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .lab import PEOPLE, Lab, Org, Ran
from .test_kill_points import MODES

pytestmark = pytest.mark.slow

ROWS = 3_000
KIB = 1 << 10


def mount(*arguments: str) -> int:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode


@pytest.fixture
def disk(lab: Lab, org: Org, tmp_path: Path) -> Iterator[Path]:
    """A disk of its own for the state, and for nothing else."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)):
        pytest.skip("may not mount a tmpfs")
    url = org.url
    auth = {"flow": "access_token", "instance_url": url, "access_token": "{{ env_var('ORG_TOKEN') }}"}
    crm = {"targets": {"dev": {"login_url": url, "auth": auth}}}
    settings = {"destinations": {"crm": crm}, "state": {"location": str(folder / "state")}}
    (lab.root / "dinmo.yml").write_text(json.dumps(settings))
    yield folder
    # Lazily: the kernel may let go of a process's files a moment after the process has ended.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def sync(lab: Lab, org: Org, *arguments: str) -> Ran:
    return lab.run("sync", *arguments, ORG_TOKEN=token(org))


def token(org: Org) -> str:
    return str(org.http.headers["Authorization"]).removeprefix("Bearer ")


def resize(disk: Path, option: str) -> None:
    assert mount("-o", f"remount,{option}", str(disk)) == 0


def many(lab: Lab, mode: str) -> tuple[str, str]:
    model, activation, name, field = MODES[mode]
    lab.only(model, activation)
    lab.sql(
        "delete from people",
        "delete from events",
        f"insert into people (person_id, name) select 'X' || i, repeat('n', 60) || i from range({ROWS}) t(i)",
        f"insert into events select 'X' || i, 'many' || i, 1, null, null from range({ROWS}) t(i)",
    )
    return name, field


def counted(org: Org, name: str, field: str) -> tuple[int, int]:
    values = [record[field] for record in org.query(f"SELECT {field} FROM {name}")]
    return len(values), len(set(values))


@pytest.mark.parametrize("mode", MODES)
def test_a_disk_that_fills_up_anywhere(lab: Lab, org: Org, disk: Path, mode: str) -> None:
    """A little more room each time: the run ends at another write, and the next goes on from there."""
    name, field = many(lab, mode)
    ended = []
    for size in range(8, 2_000, 24):
        resize(disk, f"size={size * KIB}")
        ran = sync(lab, org, "--first-sync")
        ended.append(ran.code)
        records, keys = counted(org, name, field)
        assert records == keys, f"at {size} KiB"
        if ran.code == 0:
            break
        assert "DB510" in ran.err, ran.err
        assert "the disk is full" in ran.err
        assert str(disk) in ran.err
    assert ended.count(0) == 1
    assert len(ended) > 3
    assert counted(org, name, field) == (ROWS, ROWS)
    assert lab.run("plan", "--detailed-exitcode", ORG_TOKEN=token(org)).code == 0


def test_a_disk_that_has_room_and_no_more_files_anywhere(lab: Lab, org: Org, disk: Path) -> None:
    lab.only("people", PEOPLE)
    ended = []
    for files in range(2, 60):
        resize(disk, f"nr_inodes={files}")
        ran = sync(lab, org)
        ended.append(ran.code)
        assert "DB531" not in ran.err, f"at {files} files a history is called damaged: {ran.err}"
        if ran.code == 0 and "DB510" not in ran.err:
            break
        assert "the disk is full" in ran.err and str(disk) in ran.err, ran.err
    assert len(ended) > 3 and ended[-1] == 0, ended
    assert counted(org, "Person__c", "Person_Id__c") == (30, 30)
    assert len(json.loads(lab.run("history", "--json", ORG_TOKEN=token(org)).out)["runs"]) > 0


def test_a_disk_that_becomes_read_only(lab: Lab, org: Org, disk: Path) -> None:
    lab.only("people", PEOPLE)
    assert sync(lab, org).code == 0
    before = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
    lab.sql("update people set score = score + 1")
    resize(disk, "ro")
    try:
        assert lab.run("plan", ORG_TOKEN=token(org)).code == 0, "a plan writes nothing"
        ran = sync(lab, org)
        assert ran.code in (1, 5)
        assert "DB510" in ran.err
        assert "read-only" in ran.err
        assert {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()} == before
    finally:
        resize(disk, "rw")
    ran = sync(lab, org, "--json")
    assert ran.result("people_to_crm")["outcome"]["succeeded"] == 30


def test_a_project_whose_path_is_no_text_is_reported_in_one_line_and_its_history_is_whole(
    lab: Lab, tmp_path: Path
) -> None:
    """DuckDB opens no such path. A lone byte must not get into the history, which takes text alone."""
    lab.only("people", PEOPLE)
    here = Lab(Path(shutil.copytree(lab.root, tmp_path / "p\udcff\udcfe")))
    for command in (
        ("validate",), ("sync",), ("sync",), ("pause", "-s", "people_to_crm", "--reason", "why \udcff"), ("status",),
        ("history", "--json"), ("schedule",), ("rejected", "--export", "\udcff.csv"),
    ):  # fmt: skip
        ran = here.process(*command)
        assert "DB900" not in ran.all and "DB531" not in ran.all and "Traceback" not in ran.all, ran.all
        assert ran.code == (1 if ran.out.count("DB707") or "DB707" in ran.err else 0), ran.all
