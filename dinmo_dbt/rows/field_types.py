"""What follows from a field's type in Salesforce: one value a type, in `TYPES`, and nothing of it elsewhere. Pure.

A type that is written as another takes one line there; one with a form of its own takes a value like those above it,
with its kernels in a module beside this one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dinmo_dbt.destination import Field
from dinmo_dbt.rows import datetimes, numbers, texts
from dinmo_dbt.rows.arrow import DATETIME, DECIMAL, TIME, is_list_of_simple, is_number, is_simple, is_text, readable
from dinmo_dbt.rows.reasons import Reasons


def _same(array: pa.Array) -> pa.Array:
    return array


def _as_it_is(array: pa.Array, _field: Field) -> tuple[pa.Array, Reasons | None]:
    return array, None


def _kept_whole(_source: pa.Array, _array: pa.Array) -> Reasons | None:
    return None


def _length(field: Field) -> str:
    return str(field.length) if field.length else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldType:
    """One type of fields. Its functions take arrays of any length, and leave a null a null.

    `form`: the name of the canonical form in a stored mapping; fields of one form take each other's place. `arrow`: the
    type of canonical values.
    """

    called: str  # in the docs
    form: str
    arrow: pa.DataType
    sent: str  # an example of the text that is sent, for the docs
    fed_by: Callable[[pa.DataType], bool]  # a column of that type, dictionaries and uuid aside
    canonical: Callable[[pa.Array, Field], tuple[pa.Array, Reasons | None]]  # of a plain array that `fed_by` takes
    constant: Callable[
        [Any], pa.Array | None
    ]  # one row of a value of the manifest's, for `canonical`; None if it is none
    is_written: bool = True  # a constant is text in YAML: what is none there is what YAML made of a bare word
    text: Callable[[pa.Array], pa.Array] = _same  # canonical values as they are sent
    read: Callable[[pa.Array], pa.Array] = _same  # canonical values from Salesforce's trimmed text; unreadable is null
    exact: Callable[[pa.Array], pa.Array] | None = (
        None  # the same to the last digit that stands there; as `read` if None
    )
    echo: Callable[[pa.Array], pa.Array] = _same  # without what Salesforce may change when it echoes a row
    held: Callable[[pa.Array], pa.Array] = _same  # of `echo`: without what it may change when it stores it, too
    unkept: Callable[[pa.Array, pa.Array], Reasons | None] = (
        _kept_whole  # of source and canonical: values it would change
    )
    is_quoted: bool = False  # in SOQL
    is_bare: bool = False  # in JSON: without quotation marks
    is_respelled: bool = False  # Salesforce writes a value in another way than it is sent: 44.0 for 44
    folds_case: bool = False  # in any upsert by it
    can_be_external_id: bool = False  # as a custom field
    twins_because: str = ""  # of two values in a model, why they may be one to Salesforce
    size: Callable[[Field], str] = _length  # what bounds a field's values, as describe tells it; '' if nothing does

    @property
    def is_text(self) -> bool:
        return self.form == "text"

    @property
    def is_checkbox(self) -> bool:
        """Whether it has no null: an empty field is unticked."""
        return self.form == "boolean"

    def printed(self, array: pa.Array) -> pa.Array:
        """Canonical values of a text that Salesforce holds: to its last digit, and `#N/A` as the text that it is."""
        return array if self.is_text else (self.exact or self.read)(texts.trimmed(array))


def _any_constant(value: Any) -> pa.Array:
    return pa.array([value])


def _flag_constant(value: Any) -> pa.Array | None:
    return pa.array([value]) if isinstance(value, bool) else None


def _text_constant(read: Callable[[pa.Array], pa.Array], value: Any) -> pa.Array | None:
    parsed = read(texts.trimmed(pa.array([value], pa.utf8())))
    return None if parsed.null_count else parsed


TEXT = FieldType(
    called="text",
    form="text",
    arrow=pa.utf8(),
    sent="Ada",
    fed_by=is_simple,
    canonical=texts.sent_text,
    constant=_any_constant,
    echo=texts.echo_text,
    is_quoted=True,
)
EMAIL = replace(
    TEXT,
    read=pc.utf8_lower,
    echo=lambda array: pc.utf8_lower(texts.echo_text(array)),
    folds_case=True,
    can_be_external_id=True,
    sent="ada@example.com",
)
# A value that is listed in another case is stored as it is listed.
PICKLIST = replace(TEXT, held=pc.utf8_lower, sent="Gold")
CHOICES = replace(
    PICKLIST,
    called="choices",
    fed_by=lambda source: is_simple(source) or is_list_of_simple(source),
    canonical=texts.sent_choices,
    held=lambda array: texts.ordered(pc.utf8_lower(array)),
    sent="Gold;Silver",
)
ID = FieldType(
    called="id",
    form="id",
    arrow=pa.utf8(),
    sent="001000000000001AAA",
    fed_by=is_text,
    canonical=lambda array, _field: texts.canonical_ids(array),
    constant=_any_constant,
    read=lambda array: texts.canonical_ids(array)[0],
    is_quoted=True,
)
NUMBER = FieldType(
    called="number",
    form="number",
    arrow=DECIMAL,
    sent="1234.5",
    fed_by=is_number,
    canonical=numbers.canonical_numbers,
    constant=numbers.constant,
    is_written=False,
    text=numbers.decimal_text,
    read=numbers.from_text,
    exact=numbers.exact_from_text,
    echo=lambda array: numbers.from_floats(array.cast(pa.float64()))[0],
    unkept=numbers.unkept,
    is_bare=True,
    is_respelled=True,
    can_be_external_id=True,
    twins_because=", which keeps 15 digits of a number",
    size=lambda field: f"{field.precision},{field.scale}",
)
WHOLE = replace(
    NUMBER,
    canonical=partial(numbers.canonical_whole, below=2**31),
    sent="1234",
    can_be_external_id=False,
    size=lambda field: str(field.digits) if field.digits else "",
)
CHECKBOX = FieldType(
    called="checkbox",
    form="boolean",
    arrow=pa.bool_(),
    sent="true",
    fed_by=pa.types.is_boolean,
    canonical=_as_it_is,
    constant=_flag_constant,
    is_written=False,
    text=lambda array: array.cast(pa.utf8()),
    read=lambda array: readable(pc.utf8_lower(array), "^(true|false|1|0)$").cast(pa.bool_()),
    held=lambda array: pc.fill_null(array, False),
    is_bare=True,
)
DATE = FieldType(
    called="date",
    form="date",
    arrow=pa.date32(),
    sent="2024-01-31",
    fed_by=pa.types.is_date,
    canonical=lambda array, _field: datetimes.in_years(array.cast(pa.date32(), safe=False), 86_400_000),
    constant=partial(_text_constant, datetimes.date_from_text),
    text=lambda array: array.cast(pa.utf8()),
    read=datetimes.date_from_text,
)
MOMENT = FieldType(
    called="date and time",
    form="datetime",
    arrow=DATETIME,
    sent="2024-01-31T08:00:00.000Z",
    fed_by=lambda source: pa.types.is_timestamp(source) or pa.types.is_date(source),
    canonical=lambda array, _field: datetimes.in_years(datetimes.milliseconds(array), 1),
    constant=partial(_text_constant, datetimes.datetime_from_text),
    text=datetimes.datetime_text,
    read=datetimes.datetime_from_text,
    echo=lambda array: datetimes.floor(array, 1000),
    is_respelled=True,
)
CLOCK = FieldType(
    called="time",
    form="time",
    arrow=TIME,
    sent="08:00:00.000Z",
    fed_by=pa.types.is_time,
    canonical=lambda array, _field: datetimes.canonical_times(array),
    constant=partial(_text_constant, datetimes.time_from_text),
    text=datetimes.time_text,
    read=datetimes.time_from_text,
    is_respelled=True,
)

# By describe's name (Object Reference, "Field Types").
TYPES: dict[str, FieldType] = {
    "string": replace(TEXT, can_be_external_id=True),
    "textarea": TEXT,
    "url": TEXT,
    "phone": TEXT,
    "combobox": TEXT,
    "email": EMAIL,
    "picklist": PICKLIST,
    "multipicklist": CHOICES,
    "id": ID,
    "reference": ID,
    "double": NUMBER,
    "currency": replace(NUMBER, can_be_external_id=False),
    "percent": replace(NUMBER, can_be_external_id=False),
    "int": WHOLE,
    "long": replace(WHOLE, canonical=partial(numbers.canonical_whole, below=2**63)),
    "boolean": CHECKBOX,
    "date": DATE,
    "datetime": MOMENT,
    "time": CLOCK,
}
# All others: read as text, fed by nothing.
OTHER = replace(TEXT, called="", fed_by=lambda _source: False)
OF_PARTS = frozenset({"address", "location"})


def type_of(field: Field) -> FieldType:
    return TYPES.get(field.type, OTHER)
