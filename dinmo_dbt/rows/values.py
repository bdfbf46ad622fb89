"""Arrow columns -> canonical values -> Salesforce's text, and the values that can't be sent. Vectorised, pure.

Canonical is what would be sent, in the Salesforce field's own type; change detection compares canonical values with
the canonical values Salesforce last acknowledged, never with what Salesforce echoes. The canonical type of a field
is part of the state format. What a type makes of each is in `field_types`.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.destination import Field
from dinmo_dbt.rows import texts
from dinmo_dbt.rows.arrow import plain, plain_type
from dinmo_dbt.rows.field_types import OF_PARTS, OTHER, type_of
from dinmo_dbt.rows.reasons import Reasons


def canonical_type(field: Field) -> pa.DataType:
    """The Arrow type that holds values of `field`."""
    return type_of(field).arrow


def why_not(source: pa.DataType, field: Field) -> str | None:
    """Why a model column of type `source` can never feed `field`, as a sentence; None if it can."""
    if (refusal := why_not_written(field)) is not None:
        return refusal
    source = plain_type(source)
    if pa.types.is_null(source) or type_of(field).fed_by(source):
        return None
    return f"a column of type {source} can't feed a field of type {field.type}: cast it in the model's SQL"


def why_not_written(field: Field) -> str | None:
    """Why nothing can be written to a field of that type, as a sentence; None if something can."""
    if type_of(field) is not OTHER:
        return None
    instead = "; map their parts instead" if field.type in OF_PARTS else ""
    return f"fields of type {field.type} can't be written{instead}"


def canonical(array: pa.Array, field: Field, *, keep_nulls: bool = False) -> tuple[pa.Array, Reasons | None]:
    """The column in `canonical_type(field)`, and a `Reason` a row (None: all are fine).

    A value that can't be sent becomes null with its reason. '' is null. A checkbox has no null: null is false there
    unless `keep_nulls`. The pair of types must have passed `why_not`.
    """
    kind, array = type_of(field), plain(array)
    if pa.types.is_null(array.type):
        array = pa.nulls(len(array), kind.arrow)
    made, reasons = kind.canonical(array, field)
    if kind.is_checkbox and made.null_count and not keep_nulls:
        made = pc.fill_null(made, False)
    return made, reasons


def unkept(source: pa.Array, array: pa.Array, field: Field) -> Reasons | None:
    """As `canonical` gives reasons: values that Salesforce would change, of `source` and its canonical `array`."""
    return type_of(field).unkept(source, array)


def fold(array: pa.Array, field: Field) -> pa.Array:
    """Match values as Salesforce compares them: text trimmed, case folded where the field ignores case.

    SOQL compares without case unless the field is case-sensitive; an upsert only for unique fields that ignore case.
    Folding too much only refuses a twin too early, so matching folds whenever describe says case does not count.
    """
    if not pa.types.is_string(array.type):
        return array
    trimmed = texts.without_empty(pc.utf8_trim_whitespace(array))
    return pc.utf8_lower(trimmed) if type_of(field).is_text and not field.case_sensitive else trimmed


def folds_case(field: Field) -> bool:
    """Whether an upsert by this external id takes ABC and abc for one record (SOAP guide, upsert())."""
    return type_of(field).folds_case or (field.unique and not field.case_sensitive)


def text(array: pa.Array, field: Field) -> pa.Array:
    """Canonical values as Salesforce reads them, in CSV and (quoted or not) in JSON; nulls stay null.

    Numbers in plain notation, dates `2024-01-31`, dateTimes `2024-01-31T08:00:00.000Z`, times `08:00:00.000Z`,
    booleans true/false.
    """
    return type_of(field).text(array)


def from_text(array: pa.Array, field: Field) -> pa.Array:
    """Salesforce's text as canonical values: '' and #N/A are null, numbers also as `9.1E8`; unreadable is null.

    Numbers are read as doubles and so carry 15 significant digits: compare them in `echo_form`.
    """
    return type_of(field).read(texts.trimmed(array))


def printed(array: pa.Array, field: Field) -> pa.Array:
    """What Salesforce holds, of its text: numbers to the last digit, and `#N/A` as the text that it is there."""
    return type_of(field).printed(array)


def echo_form(array: pa.Array, field: Field) -> pa.Array:
    """Canonical values with everything removed that Salesforce may change when it echoes a row.

    Both sides of a join on results go through it: text trimmed with newlines `\\n` and '' null, e-mail in lower
    case, numbers to 15 significant digits, dateTimes to the second.
    """
    return type_of(field).echo(array)


def held_form(array: pa.Array, field: Field) -> pa.Array:
    """Canonical values with everything removed that Salesforce may change when it stores them.

    Both sides of a comparison with what Salesforce holds go through it: `echo_form`, a checkbox without null, listed
    values without case, several of them as a set.
    """
    kind = type_of(field)
    return kind.held(kind.echo(array))
