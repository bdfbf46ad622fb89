"""The flags that commands share; dbt's own mean here what they mean there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from dinmo_dbt.cli import completing

ProjectDir = Annotated[
    Path | None,
    typer.Option(
        "--project-dir", help="Folder of dbt_project.yml (default: here or above).", envvar="DINMO_PROJECT_DIR"
    ),
]
ProfilesDir = Annotated[
    Path | None, typer.Option("--profiles-dir", help="Folder of profiles.yml.", envvar="DINMO_PROFILES_DIR")
]
Profile = Annotated[str | None, typer.Option("--profile", help="Profile to use.", envvar="DINMO_PROFILE")]
Target = Annotated[
    str | None, typer.Option("--target", "-t", help="dbt target; picks the org too.", envvar="DINMO_TARGET")
]
TargetPath = Annotated[
    Path | None, typer.Option("--target-path", help="Folder of manifest.json.", envvar="DINMO_TARGET_PATH")
]
Vars = Annotated[str | None, typer.Option("--vars", help="dbt vars, as a YAML mapping.", envvar="DINMO_VARS")]
Select = Annotated[
    list[str] | None,
    typer.Option(
        "--select",
        "-s",
        "--models",
        "-m",
        help="Activations by name, model, folder or tag: (as in dbt).",
        autocompletion=completing.selection,
    ),
]
Exclude = Annotated[
    list[str] | None, typer.Option("--exclude", help="Activations to leave out.", autocompletion=completing.selection)
]
Json = Annotated[bool, typer.Option("--json", help="One versioned JSON document on stdout; the story goes to stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.", envvar="DINMO_QUIET")]


class Log(StrEnum):
    """How the story is written."""

    TEXT = "text"
    JSON = "json"


LogFormat = Annotated[Log, typer.Option("--log-format", help="How the story is written.", envvar="DINMO_LOG_FORMAT")]
IgnoreGate = Annotated[bool, typer.Option("--ignore-gate", help="Sync models whose build or tests failed, too.")]
RequireBuilt = Annotated[
    bool, typer.Option("--require-built", help="Skip models that the last dbt command did not build.")
]
TargetMismatch = Annotated[
    bool, typer.Option("--allow-target-mismatch", help="Use a manifest that was parsed for another target.")
]
RunResults = Annotated[
    list[str] | None,
    typer.Option(
        "--run-results",
        metavar="DIR_OR_GLOB",
        help="run_results.json files of several dbt commands, folded by time, in the place of the target folder's.",
    ),
]
NoParse = Annotated[
    bool, typer.Option("--no-parse", help="Don't have dbt parse the project where it was changed since it last did.")
]
ShowValues = Annotated[
    bool,
    typer.Option(
        "--show-values", help="Print what an error is about whole, row values included: the database's words, keys."
    ),
]
Full = Annotated[bool, typer.Option("--full", help="Send all known rows again (update and upsert).")]
FirstSync = Annotated[
    bool, typer.Option("--first-sync", help="Insert into an object that already holds records, without state.")
]
AllowCreates = Annotated[int, typer.Option("--allow-creates", min=0, help="Let up to N new rows pass max_created.")]
AllowReplaced = Annotated[
    int, typer.Option("--allow-replaced", min=0, help="Let up to N new keys take the place of keys that left.")
]
AllowChanges = Annotated[int, typer.Option("--allow-changes", min=0, help="Let up to N changed rows pass max_change.")]
AllowRemap = Annotated[int, typer.Option("--allow-remap", min=0, help="Let up to N rows be sent new fields.")]
Audit = Annotated[
    str | None,
    typer.Option("--audit", metavar="ROWS", help="Rows to compare by value after the run: '2000 rows', 1%, off."),
]
Threads = Annotated[
    int,
    typer.Option(
        "--threads", metavar="N", min=1, help="Sync up to N activations side by side.", envvar="DINMO_THREADS"
    ),
]
AllowDeletes = Annotated[
    int, typer.Option("--allow-deletes", min=0, help="Let up to N records be deleted, or set as on_removed says.")
]

Limit = Annotated[int, typer.Option("--limit", min=1, help="How many rows of each kind are listed.")]
OfOrg = Annotated[str | None, typer.Option("--org", help="Only in this org (18 characters).")]
OfTarget = Annotated[
    str | None, typer.Option("--of-target", help="The dbt target whose state it is, when that is not the chosen one.")
]


@dataclass(frozen=True)
class Flags:
    """What every command of a project may be given."""

    project_dir: Path | None = None
    profiles_dir: Path | None = None
    profile: str | None = None
    target: str | None = None
    target_path: Path | None = None
    vars: str | None = None
    select: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    show_values: bool = False
    run_results: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gating:
    """How strictly dbt's own verdict is taken."""

    ignore: bool = False
    require_built: bool = False
    allow_target_mismatch: bool = False
    only_built: bool = False  # `run`: what dbt did not build is not of interest, and not a skip worth a line


_CHOOSING = {"select": Select, "exclude": Exclude}
_CEILINGS = {
    "first_sync": (FirstSync, False),
    "allow_changes": (AllowChanges, 0),
    "allow_creates": (AllowCreates, 0),
    "allow_replaced": (AllowReplaced, 0),
    "allow_remap": (AllowRemap, 0),
    "allow_deletes": (AllowDeletes, 0),
}
_GATING = {
    "ignore_gate": (IgnoreGate, False),
    "require_built": (RequireBuilt, False),
    "allow_target_mismatch": (TargetMismatch, False),
}
_MADE: dict[str, dict[str, tuple[Any, Any]]] = {
    "flags": {},
    "ceilings": _CEILINGS,
    "gating": {**_GATING, "run_results": (RunResults, None)},
}
_PLACES = {
    "target": Target,
    "profile": Profile,
    "project_dir": ProjectDir,
    "profiles_dir": ProfilesDir,
    "target_path": TargetPath,
    "vars": Vars,
}


def of_project(command: Callable[..., None], *, choosing: bool = True, reading: bool = False) -> Callable[..., None]:
    """A command that takes `flags: Flags`, as one with each of them as an option of its own.

    Typer reads a command's options off its signature, so the shared ones are written into it here, once. `choosing`:
    whether --select and --exclude are among them; `reading`: the warehouse is read, so its errors may be asked for
    whole. A command that sends rows has `ceilings: Ceilings` too, and one that goes by dbt's verdict `gating: Gating`:
    in their place stand the options that they are made of.
    """
    choices = {name: (kind, None) for name, kind in _CHOOSING.items()} if choosing else {}
    places = {name: (kind, None) for name, kind in _PLACES.items()}
    hints = get_type_hints(command, localns={"Ceilings": Any}, include_extras=True)
    own: dict[str, tuple[Any, Any]] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        own |= _MADE[name] if name in _MADE else {name: (hints[name], parameter.default)}

    def run(**given: Any) -> None:
        shared: dict[str, Any] = {name: given.pop(name) for name in _PLACES}
        shared |= {name: tuple(given.pop(name) or ()) for name in choices}
        asked = bool(given.pop("show_values") if reading else given.get("show_values"))
        results = tuple(given.pop("run_results", None) or ())
        if "gating" in hints:
            given["gating"] = Gating(*(given.pop(name) for name in _GATING))
        if "ceilings" in hints:
            from dinmo_dbt.plan.guards import Ceilings  # not for --help: it loads pyarrow

            given["ceilings"] = Ceilings(**{name: given.pop(name) for name in _CEILINGS})
        command(flags=Flags(**shared, show_values=asked, run_results=results), **given)

    shown = {"show_values": (ShowValues, False)} if reading else {}
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(name, keyword, default=default, annotation=kind)
        for name, (kind, default) in {**choices, **own, **shown, **places}.items()
    ]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what inspect.signature reads
    return run
