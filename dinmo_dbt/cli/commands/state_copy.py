"""state copy: from a folder to the warehouse or a bucket, or back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dinmo_dbt.cli import options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session
from dinmo_dbt.codes import NOTHING_TO_RESET
from dinmo_dbt.errors import UsageError

if TYPE_CHECKING:
    from dinmo_dbt.state import Place

_FOLDER, _SCHEMA = ".dinmo", "dinmo"


def copy(
    flags: Flags,
    to: Annotated[Literal["folder", "warehouse", "bucket"], typer.Option("--to", help="What is to keep it.")],
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="PLACE", help="Where it is: a folder, a schema of the warehouse, or a bucket's URL."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Copy the chosen dbt target's state to another place, whole or not at all.

    With rows that wait, history, pauses and before-images. dinmo.yml names one of the two places, the new one or the
    old one; the other is --from's, or else the folder .dinmo, or the schema dinmo. A bucket is dinmo.yml's, or
    --from's. Once everything is there, the old place is marked, and used no more. Exit 5 while a run is at work or rows
    are in flight, or if the new place holds a state. After a copy that was killed the old place counts, until the same
    command has ended.

    \b
    Examples:
      dinmo-dbt state copy --to warehouse
      dinmo-dbt state copy --to folder --from dinmo
      dinmo-dbt state copy --to bucket --from .dinmo
      dinmo-dbt state copy --to folder --from old_place/.dinmo --target prod
    """
    from dinmo_dbt.cli import printed
    from dinmo_dbt.state.copying import copy as copied

    console = Console(as_json)
    with Session(flags, console, offline=True, writes=True) as session:
        old, new = _places(session, to, source)
        owns = copied(session.store_at(old), session.store_at(new))
        lines = [f"copied {own}" for own in owns]
        lines.append(f"the state of dbt target {session.target[1]} is in {new} now; {old} is not used any more")
        if new != session.place:
            lines.append(f"next: write into dinmo.yml: {new.setting}")
        console.answer(lines)
        content = {
            "old": str(old),
            "new": str(new),
            "setting": new.setting,
            "copied": [printed.state_id_json(own) for own in owns],
        }
        console.document(printed.document("state copy", **content))


def _places(session: Session, to: str, source: str | None) -> tuple[Place, Place]:
    """The old one and the new one."""
    from dinmo_dbt.state import Place, PlaceKind

    named = session.place
    usual = {
        PlaceKind.FOLDER: Place(PlaceKind.FOLDER, str(session.root / _FOLDER)),
        PlaceKind.WAREHOUSE: Place(PlaceKind.WAREHOUSE, _SCHEMA),
    }
    if to == PlaceKind.BUCKET and named.kind is not PlaceKind.BUCKET:
        raise UsageError(
            NOTHING_TO_RESET, "dinmo.yml names no bucket", hint="write there: state: {location: s3://bucket/dinmo}"
        )
    new = named if named.kind == to else usual[PlaceKind(to)]
    if source is None:
        old = (
            named if named != new else usual[PlaceKind.WAREHOUSE if new.kind is PlaceKind.FOLDER else PlaceKind.FOLDER]
        )
    elif "://" in source:
        old = Place(PlaceKind.BUCKET, source.rstrip("/"))
    else:
        path = session.root / Path(source).expanduser()
        old = Place(PlaceKind.FOLDER, str(path)) if path.is_dir() else Place(PlaceKind.WAREHOUSE, source)
    if old == new:
        raise UsageError(
            NOTHING_TO_RESET, f"the state is in {new} already", hint="name where it comes from with --from"
        )
    return old, new
