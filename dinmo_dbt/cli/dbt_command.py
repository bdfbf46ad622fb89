"""`run -- dbt …`: dbt as a subprocess, its output passed through, its flags read so that both mean the same target."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.stopping import Stop
from dinmo_dbt.codes import FLAG_DIFFERS, NO_DBT, NO_DBT_COMMAND, PROJECT_UNPARSED
from dinmo_dbt.durable import read_file
from dinmo_dbt.errors import Interrupted, Problem, UsageError

POLL_S = 0.05
PARSE_S = 600.0
END_S = 7.0  # how long dbt may take to cancel its queries: a CI runner or container kills after 7.5 or 10 s

# Our flag -> how dbt spells it.
_SHARED = {
    "target": ("--target", "-t"),
    "profile": ("--profile",),
    "project_dir": ("--project-dir",),
    "profiles_dir": ("--profiles-dir",),
    "target_path": ("--target-path",),
    "vars": ("--vars",),
}


class DbtCommand:
    """One dbt command line, and whether it left run results of its own."""

    wrote_results = False

    def __init__(self, arguments: list[str]) -> None:
        if not arguments:
            raise UsageError(NO_DBT_COMMAND, "no dbt command was given", hint="dinmo-dbt run -- dbt build")
        self.arguments = arguments

    def share(self, flags: Flags) -> Flags:
        """Our flags with dbt's own in them, and dbt's command with ours; UsageError where the two differ."""
        settled: dict[str, str | None] = {}
        for name, spellings in _SHARED.items():
            ours = getattr(flags, name)
            given, ours = self._value(spellings), None if ours is None else str(ours)
            if given is not None and ours is not None and given != ours:
                raise UsageError(
                    FLAG_DIFFERS,
                    f"{spellings[0]} is {ours} here and {given} in the dbt command",
                    hint="give it once, in the dbt command",
                )
            if given is None and ours is not None:
                self.arguments += [spellings[0], ours]
            settled[name] = ours if given is None else given
        paths = {
            name: Path(text) for name in ("project_dir", "profiles_dir", "target_path") if (text := settled.pop(name))
        }
        return replace(flags, **paths, **settled)  # type: ignore[arg-type]  # each under its own name

    def _value(self, spellings: tuple[str, ...]) -> str | None:
        found = None
        for number, argument in enumerate(self.arguments):
            name, equals, value = argument.partition("=")
            if name in spellings:
                following = self.arguments[number + 1] if number + 1 < len(self.arguments) else None
                found = value if equals else following
        return found

    def run(self, target_path: Path, *, as_json: bool) -> int:
        """dbt's exit code; `wrote_results` says whether run_results.json carries a new invocation id. Asked to stop,
        it passes that on, waits for dbt to end, kills it after END_S, and raises Interrupted."""
        before = _invocation(target_path)
        try:
            code = _run(self.arguments, as_json=as_json)
        except FileNotFoundError:
            beside = Path(sys.executable).with_name(self.arguments[0])
            if not beside.is_file():
                message = f"{self.arguments[0]} is not on the PATH"
                raise UsageError(NO_DBT, message, hint="activate dbt's environment") from None
            code = _run([str(beside), *self.arguments[1:]], as_json=as_json)
        except OSError as error:
            message = f"{self.arguments[0]} can't be run: {error.strerror}"
            raise UsageError(NO_DBT, message, hint=f"PATH is {os.environ.get('PATH', '')}") from error
        after = _invocation(target_path)
        self.wrote_results = after is not None and after != before
        return code


# dbt-core's for YAML, and for what has a node; and the arrow of dbt 2.
_ABOUT = (
    r"Error reading [^\s:]+: (?P<file>.+?\.ya?ml) - .*(?:\n.*?near line (?P<line>\d+))?",
    r"\((?P<file>[^()\n]+\.(?:sql|py|csv|ya?ml))\)(?:\n\s*line (?P<line>\d+))?",
    r"--> (?P<file>[^\n]+?\.(?:sql|py|csv|ya?ml))(?::(?P<line>\d+))?",
    r"(?P<file>[\w./-]+\.(?:sql|py|csv|ya?ml))\b",
)


def parse(root: Path, target_path: Path, flags: Flags, vars: str | None, files: Collection[str]) -> Problem | None:
    """Have dbt write the manifest of the project as it is; what it says where it can't, None too where there is no dbt.
    Its output is dbt's own; its first lines, which quote nothing, are shown. `files`: the project's, of which one
    may be what it is about."""
    from dinmo_dbt.warehouse.profiles import profiles_file

    found = shutil.which("dbt") or str(Path(sys.executable).with_name("dbt"))
    file = profiles_file(root, flags.profiles_dir, os.environ)
    if any(_is_fifo(each) for each in (root / "dbt_project.yml", file, target_path / "manifest.json")):
        return None  # dbt would wait there for ever; what reads it next says what it is
    profiles = file.resolve().parent
    given = {"--target": flags.target, "--profile": flags.profile, "--profiles-dir": profiles, "--vars": vars}
    words = [word for flag, value in given.items() if value is not None for word in (flag, str(value))]
    command = [found, "--no-use-colors", "parse", "--project-dir", str(root), "--target-path", str(target_path), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PARSE_S, check=False)
    except (FileNotFoundError, PermissionError):
        return None
    except (OSError, subprocess.TimeoutExpired) as error:
        return Problem(PROJECT_UNPARSED, f"dbt parse: {type(error).__name__}", str(root), "run dbt parse")
    if not done.returncode:
        return None
    lines = [re.sub(r"^\d\d:\d\d:\d\d +", "", line).strip() for line in done.stdout.splitlines()]
    about = [line for line in lines if re.match(r"[A-Z]\w+ Error\b|Error reading |Syntax error near line|  in ", line)]
    why = "; ".join(dict.fromkeys(about[:3])) or f"it ended with exit code {done.returncode}"
    # What dbt warned of before is not what it ended at.
    end = next((number for number, line in enumerate(lines) if line.startswith("Encountered an error")), 0)
    where = _place("\n".join(lines[end:]), files) or str(root)
    return Problem(
        PROJECT_UNPARSED, f"dbt can't read the project as it is: {why}", where, "run dbt parse to see it whole"
    )


def _is_fifo(path: Path) -> bool:
    try:
        return path.is_fifo()
    except OSError:  # in a folder that may not be read
        return False


def _place(said: str, files: Collection[str]) -> str:
    """The file, and the line where dbt gives one, that an error of dbt's is about; '' where it names none of these."""
    for pattern in _ABOUT:
        for found in re.finditer(pattern, said):
            name = found["file"].strip()
            fitting = [file for file in files if file == name or file.endswith(f"/{name}")]
            if len(fitting) == 1:
                line = found.groupdict().get("line") or ""
                return f"{fitting[0]}:{line}" if line else fitting[0]
    return ""


def _run(arguments: list[str], *, as_json: bool) -> int:
    with Stop(end_s=END_S + 2) as stop:
        # With --json our stdout is one document, so dbt's output goes to stderr.
        child = subprocess.Popen(arguments, stdout=sys.stderr if as_json else None)
        try:
            while child.poll() is None:
                stop.sleep(POLL_S)
            stop.sleep(0)
        except Interrupted as asked:
            _end(child, asked.number)
            raise
        return child.returncode


def _end(child: subprocess.Popen[bytes], number: int) -> None:
    if number != signal.SIGINT or not _in_foreground():
        child.send_signal(number)
    try:
        child.wait(END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _in_foreground() -> bool:
    """Whether a Ctrl-C in a terminal is what we heard: dbt, in the same process group, has heard it too, and would
    take a second one for impatience."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _invocation(target_path: Path) -> str | None:
    try:
        results = json.loads(read_file(target_path / "run_results.json"))
    except (OSError, ValueError, RecursionError):
        return None
    found = results.get("metadata", {}).get("invocation_id") if isinstance(results, dict) else None
    return found if isinstance(found, str) else None
