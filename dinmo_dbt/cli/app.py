"""The commands and their help, put together. Nothing heavy is imported here: `--help` must stay quick."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from dinmo_dbt import __version__
from dinmo_dbt.cli import options
from dinmo_dbt.cli.commands import (
    debug,
    demo,
    emulator_import,
    emulator_reset,
    emulator_serve,
    history,
    init,
    org_fields,
    org_objects,
    pause,
    plan,
    rejected,
    resume,
    retry,
    revert,
    run,
    schedule,
    schema,
    serve,
    state_accept,
    state_adopt,
    state_copy,
    state_move,
    state_rekey,
    state_reset,
    state_show,
    state_unlock,
    status,
    sync,
    validate,
    verify,
    warnings_test,
)
from dinmo_dbt.cli.commands import list as listing

_EPILOG = (
    "Exit codes: 0 done, nothing rejected; 1 failed; 2 usage or configuration; 3 some rows rejected or invalid; "
    "4 refused by a guard or gate; 5 state locked or refused; 6 rows with unknown outcome; 7 counts do not add up; "
    "10 plan --detailed-exitcode found changes; 130 interrupted; 143 terminated."
)


def app() -> typer.Typer:
    """The whole command line."""
    root = _group(
        "Sync dbt models to Salesforce: only what changed, every row accounted for.", epilog=_EPILOG, completion=True
    )
    root.callback()(_root)
    root.command("init")(options.of_project(init.init, choosing=False))
    root.command("list")(options.of_project(listing.list_activations))
    root.command("debug")(options.of_project(debug.debug, reading=True, choosing=False))
    root.command("validate")(options.of_project(validate.validate, reading=True))
    root.command("plan")(options.of_project(plan.plan))
    root.command("sync")(options.of_project(sync.sync, reading=True))
    root.command("run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
        options.of_project(run.run, reading=True)
    )
    root.command("serve")(options.of_project(serve.serve))
    root.command("schedule")(options.of_project(schedule.schedule))
    root.command("pause")(options.of_project(pause.pause))
    root.command("resume")(options.of_project(resume.resume))
    root.command("status")(options.of_project(status.status))
    root.command("history")(options.of_project(history.history))
    root.command("rejected")(options.of_project(rejected.rejected))
    root.command("retry")(options.of_project(retry.retry, reading=True))
    root.command("verify")(options.of_project(verify.verify))
    root.command("revert")(options.of_project(revert.revert, reading=True, choosing=False))
    root.command("schema")(schema.schema)
    root.command("demo")(demo.demo)

    org = _group("Show what the org offers: its objects and their fields.")
    org.command("objects")(options.of_project(org_objects.objects, choosing=False))
    org.command("fields")(options.of_project(org_fields.fields, choosing=False))
    root.add_typer(org, name="org")

    state = _group("Show, adopt, forget, copy, move or unlock a state.")
    state.command("show")(options.of_project(state_show.show, choosing=False))
    state.command("reset")(options.of_project(state_reset.reset))
    state.command("adopt")(options.of_project(state_adopt.adopt, reading=True, choosing=False))
    state.command("rekey")(options.of_project(state_rekey.rekey, reading=True, choosing=False))
    state.command("accept")(options.of_project(state_accept.accept, choosing=False))
    state.command("copy")(options.of_project(state_copy.copy, choosing=False))
    state.command("move")(options.of_project(state_move.move, choosing=False))
    state.command("unlock")(options.of_project(state_unlock.unlock, choosing=False))
    root.add_typer(state, name="state")

    warnings = _group("Try the channels that warnings go to.")
    warnings.command("test")(options.of_project(warnings_test.try_channels, choosing=False))
    root.add_typer(warnings, name="warnings")

    emulator = _group("Serve a Salesforce org on localhost, or reset it.")
    emulator.command("serve")(emulator_serve.serve)
    emulator.command("reset")(emulator_reset.reset)
    emulator.command("import")(options.of_project(emulator_import.import_schema, choosing=False))
    root.add_typer(emulator, name="emulator")
    return root


@functools.cache
def built() -> Any:
    """The whole command line, ready to be run. Typer takes longer to make it than many a command takes: made once."""
    return typer.main.get_command(app())


def named(arguments: Sequence[str]) -> str:
    """Which command a command line is for: `state show`."""
    command = built()
    words: list[str] = []
    for word in arguments:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            break
        words.append(word)
    return " ".join(words)


def _group(text: str, *, epilog: str | None = None, completion: bool = False) -> typer.Typer:
    return typer.Typer(
        help=text,
        epilog=epilog,
        no_args_is_help=True,
        add_completion=completion,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dinmo-dbt {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Sync dbt models to Salesforce: only what changed, every row accounted for."""
