"""org fields: an object's fields, to choose an activation's from."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinmo_dbt.cli import options
from dinmo_dbt.cli.console import Console
from dinmo_dbt.cli.offer import Destination, Words, has_words, offer_json, org_named, yes
from dinmo_dbt.cli.options import Flags
from dinmo_dbt.cli.session import Session

if TYPE_CHECKING:
    from dinmo_dbt.destination import Field, ObjectSchema


def fields(
    flags: Flags,
    object_name: Annotated[str, typer.Argument(metavar="OBJECT", help="API name of the object.")],
    words: Words = None,
    destination: Destination = None,
    as_json: options.Json = False,
) -> None:
    """List the fields of an object: types, what may be written, external ids, picklist values.

    `new` and `known`: whether the user may write the field of a new record, and of one that is there. Words pick the
    fields whose API name, label, type or notes have all of them.

    \b
    Examples:
      dinmo-dbt org fields Account
      dinmo-dbt org fields Invoice__c external id
      dinmo-dbt org fields Contact phone --json
    """
    from dinmo_dbt.cli import printed
    from dinmo_dbt.scaffold.proposal import parent_paths

    console = Console(as_json)
    with Session(flags, console) as session:
        org = org_named(session, destination)
        schema = org.describe(object_name)
        every = [_described(field, parent_paths(field, org.describe)) for field in schema.fields.values()]
        listed = [each for each in every if has_words(words, *(str(each[part]) for part in _FIELD_COLUMNS))]
        console.answer(_lines(listed, console.width))
        number = f"{len(listed):,} of {len(every):,}" if len(listed) < len(every) else f"{len(every):,}"
        console.answer(["", f"{number} fields of {_rights(schema)} in org {org.org_id}"])
        console.document(
            printed.document(
                "org fields", org_id=org.org_id, object=schema.name, fields=[offer_json(e) for e in listed]
            )
        )


_VALUES_SHOWN = 12  # of a picklist; a country list has 200
_FIELD_COLUMNS = ("field", "label", "type", "new", "known", "notes")


def _described(field: Field, parent_keys: list[str]) -> dict[str, Any]:
    return {
        "field": field.name,
        "label": field.label,
        "type": _type(field),
        "new": yes(field.createable),
        "known": yes(field.updateable),
        "notes": ", ".join(_notes(field, parent_keys)),
        "api_type": field.type,
        "length": field.length,
        "precision": field.precision,
        "scale": field.scale,
        "required": field.required_on_create,
        "external_id": field.external_id,
        "unique": field.unique,
        "picklist": list(field.picklist),
        "restricted": field.restricted_picklist,
        "refers_to": list(field.reference_to),
        "parent_paths": parent_keys,
    }


def _type(field: Field) -> str:
    """describe's type, with what bounds it: `string(80)`, `double(16,2)`, `reference(Account)`."""
    if field.reference_to:
        return f"{field.type}({', '.join(field.reference_to[:3])}{', ...' if len(field.reference_to) > 3 else ''})"
    from dinmo_dbt.rows.field_types import type_of

    size = type_of(field).size(field)
    return f"{field.type}({size})" if size else field.type


def _notes(field: Field, parent_keys: list[str]) -> list[str]:
    notes = []
    if field.required_on_create:
        notes.append("required")
    if field.external_id:
        notes.append("external id")
    elif field.id_lookup and field.type != "id":
        notes.append("can be matched by")
    if field.unique:
        notes.append("unique")
    if field.calculated:
        notes.append("formula or roll-up")
    if field.auto_number:
        notes.append("auto number")
    if field.picklist:
        left = len(field.picklist) - _VALUES_SHOWN
        shown = [*field.picklist[:_VALUES_SHOWN], *([f"and {left:,} more: --json"] if left > 0 else [])]
        notes.append(f"{'only' if field.restricted_picklist else 'values'}: {' | '.join(shown)}")
    if parent_keys:
        notes.append(f"by {' or '.join(parent_keys)}")
    return notes


def _lines(listed: list[dict[str, Any]], width: int) -> list[str]:
    """The table; notes that leave the width go on below themselves."""
    from dinmo_dbt.cli import printed

    lines = []
    for line, row in zip(printed.table(_FIELD_COLUMNS, listed), [{"notes": "notes"}, *listed], strict=True):
        start = len(line) - len(row["notes"])
        if len(line) <= width or not row["notes"]:
            lines.append(line)
            continue
        parts = textwrap.wrap(row["notes"], max(width - start, 30), break_long_words=False, break_on_hyphens=False)
        lines.append(line[:start] + parts[0])
        lines += [" " * start + part for part in parts[1:]]
    return lines


def _rights(schema: ObjectSchema) -> str:
    may = [
        word
        for word, allowed in (
            ("create", schema.createable),
            ("update", schema.updateable),
            ("delete", schema.deletable),
        )
        if allowed
    ]
    return f"{schema.name} ({schema.label}; this user may {', '.join(may) or 'only read'})"
