"""What Salesforce offers, of the destination that is asked for, in words and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinmo_dbt.cli.session import Session
from dinmo_dbt.codes import SEVERAL_DESTINATIONS
from dinmo_dbt.errors import UsageError

if TYPE_CHECKING:
    from dinmo_dbt.salesforce import SalesforceDestination

Words = Annotated[list[str] | None, typer.Argument(metavar="[WORD]...", help="Show only what has all these words.")]
Destination = Annotated[
    str | None, typer.Option("--destination", "-d", help="Destination of dinmo.yml (default: the only one).")
]


def org_named(session: Session, name: str | None) -> SalesforceDestination:
    """The named destination's org, or that of the only one under this target."""
    project = session.project
    if name is None:
        if len(project.orgs) > 1:
            raise UsageError(
                SEVERAL_DESTINATIONS,
                f"dinmo.yml has several destinations: {', '.join(project.orgs)}",
                hint=f"name one: --destination {next(iter(project.orgs))}",
            )
        name = next(iter(project.orgs or project.targets), "")
    return session.destination(name)


def has_words(words: list[str] | None, *texts: str) -> bool:
    text = " ".join(texts).lower()
    return all(word.lower() in text for word in words or ())


_FLAGS = ("new", "known", "delete")


def yes(allowed: bool) -> str:
    return "yes" if allowed else "-"


def offer_json(row: dict[str, Any]) -> dict[str, Any]:
    """A row for a program: true and false for people's words, describe's own type, and no notes made of the rest."""
    names = {"new": "createable", "known": "updateable", "delete": "deletable", "api_type": "type"}
    kept = {
        name: value for name, value in row.items() if name != "notes" and not (name == "type" and "api_type" in row)
    }
    return {names.get(name, name): value == "yes" if name in _FLAGS else value for name, value in kept.items()}
