"""schedule --emit: what an outside scheduler needs to wake `sync --due` in time, to be used as it is printed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from dinmo_dbt.codes import FIRST_SYNC, LINE_BREAK
from dinmo_dbt.errors import UsageError
from dinmo_dbt.text.whole_text import as_yaml

if TYPE_CHECKING:
    from dinmo_dbt.cli.session import Session

LOCALTIME = Path("/etc/localtime")  # what cron goes by, whatever TZ says in this shell
_GITHUB_LEAST = 5  # minutes, the shortest interval of its schedules
_ENV_VAR = re.compile(r"env_var\(\s*['\"](\w+)['\"]\s*(,?)")


def crontab(session: Session) -> list[str]:
    """Lines for the crontab of this machine: by its own clock, with paths that need no PATH, and a log. Debian's cron
    has no CRON_TZ, and no environment but HOME, LOGNAME, SHELL and PATH (crontab(5))."""
    from dinmo_dbt.watch.schedule import wakes

    lines = wakes(session.chosen, now=session.clock.now(), zone=_zone())
    log = shlex.quote(str(session.root / "logs" / "dinmo-dbt.log"))
    command = _one_line(f"cd {shlex.quote(str(session.root))} && mkdir -p logs && {shlex.quote(_program())} sync --due")
    command = f"{command} {_flags(session)} >> {log} 2>&1".replace("%", "\\%")  # to cron a bare % ends the line
    head = ["# dinmo-dbt: each line only wakes it; what is due then is decided there. Times are this machine's."]
    if variables := _variables(session):
        head.append(
            "# cron has none of a shell's variables. Set these here, above the lines; those in () have a default."
        )
        head += [f"# {name}=" if needed else f"# ({name}=)" for name, needed in variables.items()]
    return [*head, *(f"{line} {command}" for line in lines), *_after_dbt(session)]


def github_actions(session: Session) -> list[str]:
    """A workflow: the state from one run to the next, secrets by name, the commands in the project's folder."""
    from dinmo_dbt.watch.schedule import wakes

    crons = [f'    - cron: "{line}"' for line in wakes(session.chosen, now=session.clock.now(), least=_GITHUB_LEAST)]
    folder = _in_repository(session.root)
    variables = [
        f"      {'' if needed else '# '}{name}: ${{{{ secrets.{name} }}}}" + ("" if needed else "  # it has a default")
        for name, needed in _variables(session).items()
    ]
    return [
        "# dinmo-dbt: each cron line only wakes it; what is due then is decided there. Times are UTC; it may be late.",
        "# Secrets are those of the repository: Settings > Secrets and variables > Actions.",
        "name: sync",
        "on:",
        "  workflow_dispatch:",
        *(["  schedule:", *crons] if crons else []),
        "concurrency: dinmo-dbt",
        "jobs:",
        "  sync:",
        "    runs-on: ubuntu-latest",
        *(["    env:", "      DBT_SEND_ANONYMOUS_USAGE_STATS: false", *variables] if variables else []),
        *([f"    defaults: {{run: {{working-directory: {as_yaml(folder)}}}}}"] if folder != "." else []),
        "    steps:",
        "      - uses: actions/checkout@v4",
        "      - uses: actions/setup-python@v5",
        '        with: {python-version: "3.12"}',
        "      - run: pip install -r requirements.txt  # with dinmo-dbt and your adapter in it",
        *_restored(session, folder),
        f"      - run: {_scalar(f'dbt parse {_flags(session)}')}",
        f"      - run: {_scalar(f'dinmo-dbt sync --due {_flags(session)}')}",
        *_saved(session, folder),
        *_after_dbt(session),
    ]


def _after_dbt(session: Session) -> list[str]:
    names = [a.name for a in session.chosen if a.enabled and str(a.schedule) == "after_dbt"]
    return [f"# After each dbt build: dinmo-dbt sync --due (for {', '.join(names)})"] if names else []


def _restored(session: Session, folder: str) -> list[str]:
    where = _state_folder(session, folder)
    if where is None:
        return []
    return [
        "      # The state is a folder here. GitHub drops a cache after 7 days unread: an insert stops then "
        f"({FIRST_SYNC}).",
        "      # state: {location: s3://...} in dinmo.yml keeps it in a bucket instead.",
        "      - uses: actions/cache/restore@v4",
        f"        with: {{path: {as_yaml(where)}, key: "
        '"dinmo-dbt-${{ github.run_id }}", restore-keys: "dinmo-dbt-"}',
    ]


def _saved(session: Session, folder: str) -> list[str]:
    where = _state_folder(session, folder)
    if where is None:
        return []
    key = "dinmo-dbt-${{ github.run_id }}-${{ github.run_attempt }}"
    return [
        "      - uses: actions/cache/save@v4",
        "        if: always()  # what a failed run has sent is in the state too",
        f'        with: {{path: {as_yaml(where)}, key: "{key}"}}',
    ]


def _state_folder(session: Session, folder: str) -> str | None:
    """The state's folder from the repository's own; None where something else holds it."""
    from dinmo_dbt.state import PlaceKind

    if session.place.kind is not PlaceKind.FOLDER:
        return None
    return os.path.normpath(os.path.join(folder, os.path.relpath(session.project.state_location, session.root)))  # noqa: PTH118


def _scalar(text: str) -> str:
    """As a YAML value that is read as that text."""
    return as_yaml(text) if re.search(r": |:$| #", text) or not text.isprintable() else text


def _flags(session: Session) -> str:
    """The target, and the other places that this command was given."""
    flags = session.flags
    profiles = flags.profiles_dir or os.environ.get("DBT_ENGINE_PROFILES_DIR") or os.environ.get("DBT_PROFILES_DIR")
    words = ["--target", session.target[1]]
    if profiles:
        folder = Path(profiles).expanduser().absolute()
        words += ["--profiles-dir", os.path.relpath(folder, session.root)]
    if flags.profile:
        words += ["--profile", flags.profile]
    if flags.target_path:
        words += ["--target-path", str(flags.target_path)]
    if flags.vars:
        words += ["--vars", flags.vars if flags.vars.isprintable() else as_yaml(session.vars)]
    return _one_line(shlex.join(words))


def _one_line(text: str) -> str:
    if len(text.splitlines()) > 1:
        raise UsageError(LINE_BREAK, "a path or a flag has a line break, which no line of a schedule can hold")
    return text


def _variables(session: Session) -> dict[str, bool]:
    """The environment variables that dinmo.yml and profiles.yml read under this target, and whether they must be set:
    those first."""
    from dinmo_dbt.config.document import load
    from dinmo_dbt.warehouse import output_of

    flags, target = session.flags, session.target
    dinmo = dict(load(session.root / "dinmo.yml").value)
    destinations = dinmo.pop("destinations", {})
    orgs = [each.get("targets", {}).get(target[1]) for each in destinations.values()]
    output = output_of(session.root, flags.profiles_dir, *target, os.environ)
    found = [(name, not comma) for text in _texts([orgs, dinmo, output]) for name, comma in _ENV_VAR.findall(text)]
    needed = dict.fromkeys((name for name, is_needed in found if is_needed), True)
    return needed | {name: False for name, _ in found if name not in needed}


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _program() -> str:
    beside = Path(sys.executable).with_name("dinmo-dbt")
    return str(beside) if beside.exists() else shutil.which("dinmo-dbt") or "dinmo-dbt"


def _zone() -> tzinfo:
    try:
        with LOCALTIME.open("rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError):
        return UTC


def _in_repository(root: Path) -> str:
    """The project's folder as seen from that of its git repository."""
    above = next((each for each in (root, *root.parents) if (each / ".git").exists()), root)
    return root.relative_to(above).as_posix()
