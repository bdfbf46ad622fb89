"""The command line itself: help, flags, exit codes, and what importing it costs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from dinmo_dbt import cli
from dinmo_dbt.cli import console
from dinmo_dbt.cli.app import app
from dinmo_dbt.errors import Problem, Refused

HEAVY = (
    *("pyarrow", "numpy", "pydantic", "dbt", "duckdb", "requests", "simple_salesforce", "yaml", "jinja2", "werkzeug"),
    "asyncio",
)


def commands() -> list[tuple[str, ...]]:
    root = app()
    found = [(command.name or "",) for command in root.registered_commands]
    for group in root.registered_groups:
        assert group.typer_instance is not None
        found += [(group.name or "", command.name or "") for command in group.typer_instance.registered_commands]
    return found


def test_help_imports_nothing_heavy() -> None:
    code = (
        f"import sys; from dinmo_dbt.cli import run; run(['--help']); print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_each_command_has_help_with_an_example(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Usage: dinmo-dbt {' '.join(command)}" in shown
    assert f"dinmo-dbt {' '.join(command)}" in shown.split("Options:")[0].split("\n", 1)[1], "no example"


def test_the_commands_own_lines_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    assert "..." not in capsys.readouterr().out.split("Commands:")[1]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dinmo-dbt ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("sync", "--nothing"),
        ("sync", "--allow-changes", "-1"),
        ("sync", "--allow-changes", "many"),
        ("sync", "--log-format", "xml"),
        ("history", "--limit", "0"),
        ("state", "move", "one"),
        ("emulator", "serve", "--port", "70000"),
    ],
    ids=" ".join,
)
def test_what_can_not_be_used_exits_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["sync", "-s", "a", "b"], ["sync", "-s", "a", "-s", "b"]),
        (["sync", "-s", "a", "-s", "b"], ["sync", "-s", "a", "-s", "b"]),
        (["sync", "-s", "a b"], ["sync", "-s", "a b"]),
        (["sync", "--exclude", "a", "b", "--json"], ["sync", "--exclude", "a", "--exclude", "b", "--json"]),
        (["sync", "--select=a", "--target", "dev"], ["sync", "--select=a", "--target", "dev"]),
        (
            ["run", "-s", "a", "--", "dbt", "build", "-s", "x", "y"],
            ["run", "-s", "a", "--", "dbt", "build", "-s", "x", "y"],
        ),
    ],
)
def test_several_values_after_one_flag(given: list[str], meant: list[str]) -> None:
    assert cli.spread(given) == meant


@pytest.mark.parametrize(
    ("codes", "worst"),
    [((), 0), ((0, 0), 0), ((0, 3), 3), ((3, 4), 4), ((4, 1), 1), ((1, 6), 6), ((6, 5), 5), ((5, 7), 7), ((0, 2), 2)],
)
def test_of_several_exit_codes_the_first_in_order_wins(codes: tuple[int, ...], worst: int) -> None:
    assert console.worst(codes) == worst


def test_a_defect_of_ours_shows_no_values(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DINMO_DEBUG", raising=False)

    def broken() -> None:
        raise KeyError("CANARY")

    assert console.guarded(broken) == 1
    shown = capsys.readouterr().err
    assert "CANARY" not in shown
    assert "DB900  KeyError at test_cli.py:" in shown


def test_an_error_of_the_tree_prints_code_place_and_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> None:
        raise Refused("DB401", "no", where="here", hint="do this\nor that")

    assert console.guarded(refused) == 4
    assert capsys.readouterr().err == "DB401  here\n  no\n  -> do this\n     or that\n"


def test_a_command_to_copy_is_never_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    hint = "start again: dinmo-dbt state reset --select " + "a_long_name_" * 8
    console.Console().problems([Problem("DB505", "word " * 40, "where", hint)])
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"  -> {hint}"
    assert len(lines) > 3 and all(len(line) <= 98 for line in lines[:-1])


def test_a_terminated_process_exits_143(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert console.guarded(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "settled by the next run" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize("tell", ["say", "answer", "document"])
def test_a_full_disk_under_stdout_is_no_defect(capsys: pytest.CaptureFixture[str], tell: str) -> None:
    with pytest.raises(OSError, match="No space left"), Path("/dev/full").open("w") as full:
        story = console.Console(as_json=tell == "document", out=full)
        given = {"say": "a line", "answer": ["a line"], "document": {"version": 1}}[tell]
        assert console.guarded(lambda: getattr(story, tell)(given)) == 1
    assert capsys.readouterr().err == "DB816  /dev/full\n  the system refused it: No space left on device\n"


def test_the_story_as_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    story = console.Console(log_format="json")
    story.timed("hello")
    story.note(Problem("DB142", "later", "dinmo.yml"))
    story.problems([Problem("DB401", "no")])
    captured = capsys.readouterr()
    lines = [json.loads(line)["info"] for line in (captured.out + captured.err).splitlines()]
    assert [line["level"] for line in lines] == ["info", "warn", "error", "error"]
    assert lines[0]["msg"] == "hello", "the time has a field of its own"


def test_with_json_the_story_is_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    story = console.Console(as_json=True)
    story.say("story")
    story.answer(["text"])
    story.document({"version": 1})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"version": 1}
    assert captured.err == "story\n"


def test_quiet_keeps_answers_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    story = console.Console(quiet=True)
    story.say("story")
    story.note(Problem("DB142", "later"))
    story.answer(["answer"])
    story.problems([Problem("DB401", "no")])
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("answer\n", "DB401\n  no\n")


def test_a_pipe_that_closes_is_no_defect(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m dinmo_dbt --help | head -1", shell=True, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def completed(folder: Path, words: str, shell: str = "bash") -> list[str]:
    count = len(words.split(" ")) - 1
    env = {**os.environ, "_DINMO_DBT_COMPLETE": f"complete_{shell}", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    done = subprocess.run(
        [sys.executable, "-m", "dinmo_dbt"], env=env, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_no_defect(tmp_path: Path, closed: str) -> None:
    """And no file of ours gets its number, into which what is printed would be written."""
    command = [sys.executable, "-m", "dinmo_dbt", "list", "--project-dir", str(tmp_path)]
    done = subprocess.run(["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *command], capture_output=True, check=False)
    assert done.returncode == 2 and b"DB900" not in done.stderr, done
    text = "import os; from dinmo_dbt.__main__ import hold_streams as hold; hold(); "
    text += "os._exit(os.open(os.devnull, os.O_RDONLY))"
    shell = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", text]
    assert subprocess.run(shell, check=False).returncode > 2


@pytest.mark.slow
def test_a_shell_completes_commands_and_the_names_of_activations(tmp_path: Path) -> None:
    (tmp_path / "dbt_project.yml").write_text("name: shop\n")
    (tmp_path / "models").mkdir()
    (tmp_path / "target").mkdir()
    own = {"activations": [{"name": "shops_to_crm", "object": "Account"}, {"object": "Shop__c"}]}
    nodes = {
        "a": {"name": "shops", "resource_type": "model", "config": {"meta": {"dinmo": own}}},
        "b": {"name": "shipped", "resource_type": "seed", "config": {}},
        "c": {"name": "shop_is_there", "resource_type": "test", "config": {}},
    }
    manifest = tmp_path / "target" / "manifest.json"
    manifest.write_text(json.dumps({"nodes": nodes}))
    assert completed(tmp_path, "dinmo-dbt pla") == ["plan"]
    names = ["shops", "shops__Shop__c", "shops_to_crm"]
    assert completed(tmp_path / "models", "dinmo-dbt sync -s sh") == names
    assert completed(tmp_path, "dinmo-dbt plan --exclude shops_") == names[1:]
    assert completed(tmp_path, "dinmo-dbt state reset sh") == names[1:]
    assert completed(tmp_path, "dinmo-dbt init sh") == ["shipped", "shops"]
    manifest.write_text('{"nodes": [')
    assert completed(tmp_path, "dinmo-dbt sync -s sh") == []


def test_every_argument_that_is_an_activation_or_a_model_is_completed() -> None:
    def arguments(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
        for name, each in getattr(command, "commands", {}).items():
            yield from arguments(each, f"{path} {name}")
        yield from ((path, each) for each in command.params if each.param_type_name == "argument")

    named = {(path, each.metavar): each for path, each in arguments(typer.main.get_command(app()))
             if re.search(r"ACTIVATION|MODEL|OLD|NEW", each.metavar or "")}  # fmt: skip
    assert len(named) >= 8
    assert not [place for place, each in named.items() if each._custom_shell_complete is None]


def test_the_completion_script_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    assert "--install-completion" in capsys.readouterr().out
