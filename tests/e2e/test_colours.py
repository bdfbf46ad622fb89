"""Colour as dbt has it: in a terminal, and nowhere else unless it is asked for."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from dinmo_dbt.cli.console import Console, has_colours
from dinmo_dbt.errors import Problem

from .lab import COMPANIES, PEOPLE, Lab, Org, environment

ESCAPE = "\033["
GREEN, YELLOW, RED = (f"\033[3{n}m" for n in (2, 3, 1))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environ", "terminal", "expected"),
    [
        ({}, True, True),
        ({"TERM": "xterm-256color"}, True, True),
        ({}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),  # no-color.org: present and not empty
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "0"}, True, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
    ],
)
def test_a_terminal_has_colours_unless_it_is_set_otherwise(
    environ: dict[str, str], terminal: bool, expected: bool
) -> None:
    assert has_colours(Terminal() if terminal else io.StringIO(), environ) is expected


def in_terminal(lab: Lab, *arguments: str, columns: int = 80, **environ: str) -> str:
    """What a command prints in a terminal of that width, both streams; dinmo-dbt's own process has it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {name: value for name, value in environment().items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    env |= {"TERM": "xterm-256color", **environ}
    command = [sys.executable, "-m", "dinmo_dbt", *arguments]
    with subprocess.Popen(command, cwd=lab.root, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        printed = b""
        while chunk := _read(ours):
            printed += chunk
        process.wait(timeout=60)
    os.close(ours)
    return printed.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 120])
def test_words_have_their_colours_in_a_terminal(lab: Lab, org: Org, columns: int) -> None:
    lab.declare("events")
    wrong = {**COMPANIES, "fields": {"score": "Nothing__c"}}
    lab.declare("companies", wrong)
    lab.sql("update people set email = 'nobody at nowhere' where person_id = 'P5'")
    printed = in_terminal(lab, "sync", columns=columns)
    assert f"{YELLOW}WARN\033[0m people_to" in printed, printed
    assert f"{RED}ERROR\033[0m companies_to_crm" in printed
    assert f"{RED}DB302\033[0m" in printed
    assert re.search(rf"Done. PASS=0 WARN=1 {re.escape(RED)}ERROR\033\[0m=1", printed)
    bare = re.sub(r"\033\[[?\d;]*[a-zA-Z]", "", printed)
    status = [line for part in bare.splitlines() if (line := part.rpartition("\r")[2]) and " of 2 " in line]
    assert len(status) == 4
    assert {len(line) for line in status} == {columns}, "colours take no room"
    lab.sql("update people set email = 'p5@example.com' where person_id = 'P5'")
    lab.only("people", PEOPLE)
    assert f"{GREEN}OK\033[0m people_to_crm" in in_terminal(lab, "sync", columns=columns)


def test_what_programs_read_has_no_colours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    for console, coloured in (
        (Console(), True),
        (Console(as_json=True), False),
        (Console(log_format="json"), False),
        (Console(as_json=True, log_format="json"), False),
    ):
        console.timed("1 of 1 OK people", "OK")
        console.problems([Problem("DB100", "a text", "a place")])
        console.note(Problem("DB100", "a text", "a place"))
        console.answer(["crm: OK, reached"], "OK")
        told = capsys.readouterr()
        assert (ESCAPE in told.out + told.err) is coloured
        assert console.for_people is coloured, "nor is there a bar"


@pytest.mark.slow
def test_a_terminal_that_obeys_nothing_has_no_colours(lab: Lab, org: Org) -> None:
    assert ESCAPE not in in_terminal(lab, "sync", TERM="dumb")
    assert f"{GREEN}OK" in in_terminal(lab, "sync")
