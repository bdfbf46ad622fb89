"""The command line: parse, wire, print, exit. The only reader of the environment.

Importing this package loads Typer and nothing heavier; each command imports what it needs when it runs, so `--help`
stays quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dinmo_dbt.codes import NO_DRY_RUN

if TYPE_CHECKING:
    from dinmo_dbt.errors import DinmoError

# Flags that take several values after one name, as dbt's do: `-s a b` is `-s a -s b`.
_MANY = ("--select", "-s", "--models", "-m", "--exclude")


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the process's exit code. Prints errors, raises nothing."""
    from dinmo_dbt.cli.console import guarded

    return guarded(lambda: invoke(arguments), lambda error: _print_failure(arguments, error))


def invoke(arguments: Sequence[str]) -> None:
    """The command itself: ends by SystemExit, or by an error that `run` would print."""
    from dinmo_dbt.cli.app import built

    _refuse_dry_run(arguments)
    built()(args=spread(arguments), prog_name="dinmo-dbt", standalone_mode=True)


def _own(arguments: Sequence[str]) -> list[str]:
    """Without what is dbt's."""
    return list(arguments[: arguments.index("--")] if "--" in arguments else arguments)


def _print_failure(arguments: Sequence[str], error: DinmoError) -> None:
    """The document of a command that failed before it had one: a program that reads it learns why, too."""
    if "--json" not in (own := _own(arguments)):
        return
    from dinmo_dbt.cli import printed
    from dinmo_dbt.cli.app import named
    from dinmo_dbt.cli.commands.emulator_serve import SERVE
    from dinmo_dbt.cli.console import Console

    if named(own) == SERVE:
        return  # its line says that it listens
    problems = [printed.problem_json(problem) for problem in error.problems]
    document = printed.document(named(own), exit_code=error.exit_code, problems=problems)
    Console(as_json=True).document(document)


def _refuse_dry_run(arguments: Sequence[str]) -> None:
    """Other tools have it; here a command of its own shows what a sync would do."""
    from dinmo_dbt.errors import UsageError

    own = _own(arguments)
    if own[:1] in (["sync"], ["run"]) and "--dry-run" in own:
        rest = "" if own[0] == "run" else "".join(f" {word}" for word in own[1:] if word != "--dry-run")
        message = f"{own[0]} has no --dry-run: plan shows what it would send, and changes nothing"
        raise UsageError(NO_DRY_RUN, message, hint=f"dinmo-dbt plan{rest}")


def spread(arguments: Sequence[str]) -> list[str]:
    """`-s a b` as `-s a -s b`; nothing after `--` is touched, and every other option stays as it is."""
    result: list[str] = []
    flag = ""
    taken = False
    for number, argument in enumerate(arguments):
        if argument == "--":
            return [*result, *arguments[number:]]
        if argument.startswith("-"):
            flag, taken = (argument if argument in _MANY else ""), False
        elif flag and taken:
            result.append(flag)
        taken = taken or not argument.startswith("-")
        result.append(argument)
    return result
