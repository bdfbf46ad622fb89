"""org objects: the objects that the user may write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dinmo_dbt.cli import options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.offer import Destination, Words, has_words, offer_json, org_named, yes
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session

if TYPE_CHECKING:
    from dinmo_dbt.destination import ListedObject


def objects(
    flags: Flags,
    words: Words = None,
    destination: Destination = None,
    as_json: options.Json = False,
) -> None:
    """List the objects of the org that this user may write.

    Words pick those whose API name or label has all of them.

    \b
    Examples:
      dinmo-dbt org objects
      dinmo-dbt org objects invoice --target prod
    """
    from dinmo_dbt.cli import printed

    console = Console(as_json)
    with Session(flags, console) as session:
        org = org_named(session, destination)
        found = org.objects()
        written = [each for each in found if each.createable or each.updateable]
        listed = [_listed(each) for each in written if has_words(words, each.name, each.label)]
        console.answer(printed.table(("object", "label", "new", "known", "delete"), listed))
        console.answer(["", _end(len(listed), len(written), len(found), org.org_id)])
        console.document(
            printed.document("org objects", org_id=org.org_id, objects=[offer_json(each) for each in listed])
        )


def _listed(each: ListedObject) -> dict[str, Any]:
    return {
        "object": each.name,
        "label": each.label,
        "custom": each.custom,
        "new": yes(each.createable),
        "known": yes(each.updateable),
        "delete": yes(each.deletable),
    }


def _end(shown: int, written: int, found: int, org_id: str) -> str:
    from dinmo_dbt.cli import printed

    number = f"{shown:,} of {printed.count(written, 'object')}" if shown < written else printed.count(written, "object")
    read_only = f"; {found - written:,} more are read-only for this user" if found > written else ""
    return f"{number} of org {org_id}{read_only}. Fields of one: dinmo-dbt org fields OBJECT"
