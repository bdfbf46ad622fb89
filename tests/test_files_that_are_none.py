"""Fifos, devices, folders, dangling and circular links, names too long: in the place of every file that a
command opens. Said in one line with a code, and never waited for: what does not end, pytest's own time ends."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from config_cases import activation, block, document, node
from memory_org import Model, World
from memory_org import activation as synced

from dinmo_dbt import durable
from dinmo_dbt.cli import run
from dinmo_dbt.errors import StateError
from dinmo_dbt.state import Marks

KINDS: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "folder": Path.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "circle": lambda path: path.symlink_to(path.name),
    "fifo behind a link": lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe")),
    "larger than any": lambda path: (path.touch(), os.truncate(path, durable.BYTES_MAX + 1)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_an_error_at_once(tmp_path, kind):
    path = tmp_path / "file"
    KINDS[kind](path)
    with pytest.raises(OSError):
        durable.read_file(path)


def test_a_name_that_no_file_can_have_is_an_error(tmp_path):
    for name in ("n" * 300, "a\0b", "\udcff" * 200):
        with pytest.raises(OSError):
            durable.read_file(tmp_path / name)
    (tmp_path / "\udcff").write_bytes(b"read")
    assert durable.read_file(tmp_path / "\udcff") == b"read"


def project(folder: Path) -> None:
    (folder / "target").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text("name: lab\nprofile: lab\n")
    (folder / "profiles.yml").write_text("lab: {target: dev, outputs: {dev: {type: duckdb, path: lab.duckdb}}}\n")
    (folder / "dinmo.yml").write_text("destinations: {crm: {targets: {dev: {org: emulator}}}}\n")
    built = document(node(dinmo=block(activation())))
    (folder / "target" / "manifest.json").write_text(json.dumps(built))
    results = {"metadata": {"invocation_id": "i"}, "args": {"which": "build"}, "results": []}
    (folder / "target" / "run_results.json").write_text(json.dumps(results))


FILES = ("dinmo.yml", "dbt_project.yml", "profiles.yml", "target/manifest.json", "target/run_results.json")
STATE = (".dinmo", ".dinmo/state.db", ".dinmo/history.db", ".dinmo/state.db.sha256", ".dinmo/locks")
COMMANDS = (("validate",), ("status",))  # the first reads what is declared, the other the state too


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_command_says_what_it_can_not_read(tmp_path, monkeypatch, capfd, kind):
    """Where another file does as well, as a missing run_results.json does, the command may succeed."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "marks"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (*FILES, *STATE):
        folder = tmp_path / "project"
        shutil.rmtree(folder, ignore_errors=True)
        project(folder)
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        KINDS[kind](path)
        for command in COMMANDS:
            code = run([*command, "--project-dir", str(folder), "--profiles-dir", str(folder)])
            told = capfd.readouterr()
            said = f"{name} is a {kind}: {command}: {code}\n{told.out}{told.err}"
            assert code in (0, 1, 2, 4, 5) and "DB900" not in told.err and "Traceback" not in told.err, said
            assert code in (0, 1) or re.search(r"^DB\d{3}", told.err, re.MULTILINE), said
            with suppress(FileNotFoundError):
                assert kind != "fifo" or path.is_fifo(), "it is left as it is"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_the_state_that_is_none_is_refused_or_left_aside(tmp_path, kind):
    rows = Model.of([{"id": str(n), "ext": f"e{n}", "a": "x", "b": "y"} for n in range(3)])
    probe = World(tmp_path / "probe" / "state")
    probe.sync(synced(), rows)
    for number, name in enumerate(probe.files()):
        world = probe.copy(tmp_path / str(number) / "state")
        path = world.folder / name
        path.unlink()
        KINDS[kind](path)
        history = name == "history.db"
        with suppress(*(() if history else (StateError,))):
            world.state().known()
            world.state().history.latest()
            world.sync(synced(), rows)
        assert len(world.org.records["Thing__c"]) == 3, f"{name} is a {kind}"


@pytest.mark.parametrize("kind", KINDS)
def test_marks_that_are_none_say_nothing(tmp_path, kind):
    rows = Model.of([{"id": "1", "ext": "e1", "a": "x", "b": "y"}])
    world = World(tmp_path / "state")
    world.sync(synced(), rows)
    lineage = world.state().known_lineage()
    marks, own = Marks(tmp_path / "marks"), world.state().own(world.org.org_id, "things")
    marks.raise_to(lineage, own, 7)
    assert marks.get(lineage, own) == 7
    path = tmp_path / "marks" / lineage / own.file_name
    path.unlink()
    KINDS[kind](path)
    assert marks.get(lineage, own) == 0


def test_a_file_larger_than_any_of_ours_is_refused_unread(tmp_path):
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", durable.BYTES_MAX + 1)
    with pytest.raises(OSError, match="larger than"):
        durable.read_file(tmp_path / "large")
    assert durable.read_file(tmp_path / "large", 10) == b"\0" * 10
