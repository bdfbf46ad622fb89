"""The shape of the `dinmo` block under a model's `config.meta`: every key, its type, default and meaning.

`meta` checks what contradicts what. The JSON Schema that editors use and docs/meta.md are made from these types.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, PlainValidator, StringConstraints, WithJsonSchema

from dinmo_dbt import declaration
from dinmo_dbt.activation import Ceiling, Match
from dinmo_dbt.declaration import CONFLICT, NOT_ALLOWED, REQUIRED, Strict, show, wrong, wrong_type

LATER: dict[str, Any] = {"x-in-force": False}

ACTIVATION_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}")
_FIELD_PATH = re.compile(r"(?:[A-Za-z][A-Za-z0-9_]{0,79}:)?[A-Za-z][A-Za-z0-9_]{0,79}\.[A-Za-z][A-Za-z0-9_]{0,79}")
_EVERY = re.compile(r"every ([1-9][0-9]{0,4}) (minute|hour|day)s?")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise wrong_type("text", value)
    if not value.strip():
        raise wrong(NOT_ALLOWED, "expected text, got empty text")
    if any(0xD800 <= ord(c) <= 0xDFFF or c == "\0" for c in value):
        raise wrong(NOT_ALLOWED, "the text is not valid Unicode")
    return value


Text = Annotated[str, BeforeValidator(_text), StringConstraints(min_length=1, max_length=10_000)]


def _plain_field(value: object) -> str:
    """The API name of a field of the object itself."""
    text = _text(value)
    if _FIELD_NAME.fullmatch(text):
        return text
    if "." in text:
        raise wrong(
            NOT_ALLOWED, f"{show(text)} is a path to another record; only a field of the object itself goes here"
        )
    raise wrong(NOT_ALLOWED, f"{show(text)} is not the API name of a field", hint=_label_hint(text))


def _field(value: object) -> str:
    """A field's API name, or a parent by its external id: `Customer__r.Customer_Id__c`, `Lead:Who.Email`."""
    text = _text(value)
    if _FIELD_NAME.fullmatch(text):
        return text
    if not _FIELD_PATH.fullmatch(text):
        levels = "a parent path has two parts: Customer__r.Customer_Id__c" if text.count(".") > 1 else _label_hint(text)
        raise wrong(NOT_ALLOWED, f"{show(text)} is not the API name of a field", hint=levels)
    parent = text.partition(".")[0]
    if parent.lower().endswith("__c"):
        raise wrong(
            NOT_ALLOWED,
            f"{show(text)}: a parent path starts with the relationship, not with the lookup field",
            hint=f"write {text[: len(parent) - 1]}r{text[len(parent) :]}",
        )
    return text


def _label_hint(text: str) -> str:
    if " " in text:
        return "this looks like a label; Setup > Object Manager shows the API name beside it (Field Name)"
    return "letters, digits and underscores, such as Plan__c; a parent path is Customer__r.Customer_Id__c"


def _object(value: object) -> str:
    text = _text(value)
    if not _FIELD_NAME.fullmatch(text):
        raise wrong(NOT_ALLOWED, f"{show(text)} is not the API name of an object", hint=_label_hint(text))
    return text


def _activation_name(value: object) -> str:
    text = _text(value)
    if not ACTIVATION_NAME.fullmatch(text):
        hint = "letters, digits, dots, dashes and underscores, at most 100"
        raise wrong(NOT_ALLOWED, f"{show(text)} can't be the name of an activation", hint=hint)
    return text


FieldPath = Annotated[str, PlainValidator(_field), WithJsonSchema({"type": "string"})]
PlainField = Annotated[str, PlainValidator(_plain_field), WithJsonSchema({"type": "string"})]


def _ceiling(value: object) -> Ceiling:
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value <= 10**12:
            return Ceiling(rows=value)
        raise wrong(NOT_ALLOWED, f"expected a number of rows from 0 up, got {declaration.kind(value)}")
    if isinstance(value, str):
        if re.fullmatch(r"[0-9]+", value):
            raise wrong_type("a whole number or a percentage such as 5%", value)
        return Ceiling(percent=declaration.percent(value))
    raise wrong_type("a whole number or a percentage such as 5%", value)


Limit = Annotated[
    Ceiling,
    PlainValidator(_ceiling),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]{1,6})?\s*%$"},
            ]
        }
    ),
]


def _scalar(value: object) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong(NOT_ALLOWED, f"{declaration.kind(value)} can't be sent")
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _text(value) if value else ""
    raise wrong_type("text, a number, true, false or null", value)


Scalar = Annotated[Any, PlainValidator(_scalar), WithJsonSchema({"type": ["string", "number", "boolean", "null"]})]


def _timezone(value: object) -> str:
    text = _text(value)
    try:
        ZoneInfo(text)
    except (OSError, ValueError, KeyError):
        hint = "use a name of the IANA time zone database, such as Europe/Paris or UTC"
        raise wrong(NOT_ALLOWED, f"{show(text)} is not a time zone", hint=hint) from None
    return text


TimeZone = Annotated[str, PlainValidator(_timezone), WithJsonSchema({"type": "string"})]

# Fields of a cron line with their bounds and names, in order (crontab(5)); 7 is Sunday as well as 0.
_CRON = (
    ("minute", 0, 59, ""),
    ("hour", 0, 23, ""),
    ("day of month", 1, 31, ""),
    ("month", 1, 12, "jan feb mar apr may jun jul aug sep oct nov dec"),
    ("day of week", 0, 7, "sun mon tue wed thu fri sat"),
)


def _cron(value: object) -> str:
    text = _text(value)
    parts = text.split()
    if len(parts) != len(_CRON):
        hint = "minute, hour, day of month, month, day of week: 0 6 * * 1-5"
        raise wrong(NOT_ALLOWED, f"{show(text)} has {len(parts)} parts; a cron line has 5", hint=hint)
    for part, (name, low, high, names) in zip(parts, _CRON, strict=True):
        if not all(_cron_range(item, low, high, names.split()) for item in part.lower().split(",")):
            raise wrong(NOT_ALLOWED, f"{show(part)} can't be the {name} of a cron line ({low}-{high})")
    return text


def _cron_range(item: str, low: int, high: int, names: list[str]) -> bool:
    """Whether `item` is `*`, `a`, `a-b`, each with an optional `/step`, inside the bounds."""
    span, slash, step = item.partition("/")
    if slash and not (re.fullmatch(r"[0-9]{1,3}", step) and int(step) > 0):
        return False
    if span == "*":
        return True
    ends = [str(names.index(end) + low) if end in names else end for end in span.split("-")]
    if len(ends) > 2 or not all(re.fullmatch(r"[0-9]{1,2}", end) for end in ends):
        return False
    numbers = [int(end) for end in ends]
    return low <= numbers[0] <= numbers[-1] <= high


class Cron(Strict):
    cron: Annotated[str, PlainValidator(_cron), WithJsonSchema({"type": "string"})] = Field(
        description="Five-part cron line."
    )
    timezone: TimeZone = Field(default="UTC", description="IANA time zone of the cron line.")


def _schedule(value: object) -> Any:
    if isinstance(value, Mapping):
        return Cron.model_validate(value)
    text = _text(value)
    if text in ("after_dbt", "manual") or _EVERY.fullmatch(text):
        return text
    hint = "allowed: after_dbt, manual, every 15 minutes (hours, days), {cron: '0 6 * * 1-5', timezone: Europe/Paris}"
    raise wrong(NOT_ALLOWED, f"{show(text)} is not a schedule", hint=hint)


Schedule = Annotated[
    str | Cron,
    PlainValidator(_schedule),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["after_dbt", "manual"]},
                {"type": "string", "pattern": f"^{_EVERY.pattern}$"},
                Cron.model_json_schema(),
            ]
        }
    ),
]


class FieldSpec(Strict):
    """The long form of one mapped field."""

    field: FieldPath = Field(description="The Salesforce field, or a parent by its external id.")
    nulls: Literal["clear", "keep"] = Field(
        default="clear", description="What a null does: empties the field in Salesforce, or leaves it as it is."
    )
    write: Literal["always", "on_create", "if_empty"] = Field(
        default="always",
        description="When the field is written: always, only on a new record, only while empty in Salesforce.",
        json_schema_extra=LATER,
    )


def _field_spec(value: object) -> object:
    if isinstance(value, str):
        return {"field": value}
    if not isinstance(value, Mapping):
        raise wrong_type("a field name, or a mapping with `field`", value)
    return value


MappedField = Annotated[FieldSpec, BeforeValidator(_field_spec)]


def _match(value: object) -> Match:
    if not isinstance(value, Mapping):
        raise wrong_type("a mapping of one column to one field", value)
    create = value.get("create", False)
    columns = dict(value)
    if isinstance(create, bool):
        columns.pop("create", None)  # A column may be called `create`: then its value is a field name, not a boolean.
    else:
        create = False
    if len(columns) != 1:
        names = f": {declaration.listed(columns)}" if columns else ""
        hint = "several columns make one identifier? join them in the model's SQL"
        raise wrong(CONFLICT, f"expected exactly one column, got {len(columns)}{names}", hint=hint if columns else "")
    ((column, field),) = columns.items()
    return Match(column=_text(column), field=_plain_field(field), create=create)


MatchSpec = Annotated[
    Match,
    PlainValidator(_match),
    WithJsonSchema(
        {
            "type": "object",
            "properties": {"create": {"type": "boolean", "default": False}},
            "additionalProperties": {"type": "string"},
            "minProperties": 1,
            "maxProperties": 2,
        }
    ),
]


class GuardsSpec(Strict):
    """A percentage of the rows synced before (at least 10 rows), or an absolute number of rows."""

    max_delete: Limit = Field(
        default=Ceiling(percent=Decimal(1)),
        description="Most records one run may delete, or set by `on_removed`. In `mode: delete` an absolute number, "
        "always given.",
        json_schema_extra={"default": "1%"},
    )
    max_change: Limit = Field(
        default=Ceiling(percent=Decimal(50)),
        description="Most known rows one run may change, from 1,000 rows up; new rows do not count.",
        json_schema_extra={"default": "50%"},
    )


class WarningsSpec(Strict):
    failed: bool = Field(default=True, description="Tell the channels when a sync failed.", json_schema_extra=LATER)
    rejected: Limit | None = Field(
        default=None,
        description="Tell the channels when more rows than this were rejected.",
        json_schema_extra=LATER,
    )


def _clock_time(value: object) -> str:
    if not isinstance(value, str):
        raise wrong_type("text", value)  # YAML 1.1 reads an unquoted 22:00 as 1320, in base 60
    if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", value):
        raise wrong(NOT_ALLOWED, f"{show(value)} is not a time of day such as 22:00")
    return value


ClockTime = Annotated[str, PlainValidator(_clock_time), WithJsonSchema({"type": "string"})]


class QuietHours(Strict):
    from_: ClockTime = Field(alias="from", description="Start, `22:00`.", json_schema_extra=LATER)
    to: ClockTime = Field(description="End, `06:00`; may be on the next day.", json_schema_extra=LATER)
    timezone: TimeZone = Field(default="UTC", description="IANA time zone of both.", json_schema_extra=LATER)


def _moment(value: object) -> str:
    text = _text(value)
    try:
        if len(text) == 10:
            date.fromisoformat(text)
        else:
            datetime.fromisoformat(text)
    except ValueError:
        hint = "write 2026-12-31 or 2026-12-31T18:00:00+01:00"
        raise wrong(NOT_ALLOWED, f"{show(text)} is not a date or a time", hint=hint) from None
    return text


def _pause_after(value: object) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and 1 <= value <= 1000:
        return value
    raise wrong_type("true, false or a number of failed runs from 1 to 1000", value)


class RemovedSpec(Strict):
    set: dict[PlainField, Scalar] = Field(description="Salesforce field: the value to set on the record.")


def _on_removed(value: object) -> object:
    hint = "allowed: ignore, delete, {set: {Status__c: Closed}}"
    if isinstance(value, str):
        if value in ("ignore", "delete"):
            return value
        near = declaration.did_you_mean(value, ("ignore", "delete"))
        raise wrong(NOT_ALLOWED, f"{show(value)} is not allowed{near}", hint=hint)
    if isinstance(value, Mapping):
        spec = RemovedSpec.model_validate(value)
        if not spec.set:
            raise wrong(REQUIRED, "`set` names no field", hint=hint)
        return spec
    raise wrong(declaration.WRONG_TYPE, f"expected text or a mapping, got {declaration.kind(value)}", hint=hint)


_REMOVED_SCHEMA: dict[str, Any] = {"anyOf": [{"enum": ["ignore", "delete"]}, RemovedSpec.model_json_schema()]}


class ActivationSpec(Strict):
    """One activation: which rows go to which object, and how."""

    name: Annotated[
        str,
        PlainValidator(_activation_name),
        WithJsonSchema({"type": "string", "pattern": f"^{ACTIVATION_NAME.pattern}$"}),
    ] = Field(
        default="",
        description="Unique in the project; state and history are kept under it. Default: `<model>__<object>`.",
    )
    destination: Text = Field(description="A destination of dinmo.yml.")
    object: Annotated[
        str, PlainValidator(_object), WithJsonSchema({"type": "string", "pattern": f"^{_FIELD_NAME.pattern}$"})
    ] = Field(description="The Salesforce object, by API name. One activation writes one object.")
    mode: Literal["insert", "update", "upsert", "delete"] = Field(
        description="insert: new records only. update: existing records only. upsert: both. delete: delete the listed.",
    )
    match: MatchSpec | None = Field(
        default=None,
        description="`{column: Field__c}`: the field that identifies the record: `Id`, an external id, or any field. "
        "Not in `insert`. `create: true` beside it (upsert): records not found by a field that is no external id are "
        "inserted.",
    )
    fields: dict[Text, MappedField] = Field(
        default_factory=dict,
        description="Model column: Salesforce field, or a parent by its external id (`Customer__r.Customer_Id__c`).",
    )
    constants: dict[PlainField, Scalar] = Field(
        default_factory=dict, description="Salesforce field: the same value for every row."
    )
    segment: Text = Field(default="", description="A name under `segments`: only its rows. Not with `where`.")
    where: Text = Field(default="", description="An SQL condition, run by the warehouse: only its rows.")
    on_change: Literal["insert", "ignore"] = Field(
        default="insert", description="In `insert` mode: a changed row becomes one more record, or is left alone."
    )
    on_removed: Annotated[RemovedSpec | str, PlainValidator(_on_removed), WithJsonSchema(_REMOVED_SCHEMA)] = Field(
        default="ignore",
        description="A row left the segment: leave its record, delete it, or set fields on it (null empties one). Only "
        "records that this activation created or adopted, and only rows that leave from then on; not with "
        "`on_change: insert`.",
    )
    schedule: Schedule = Field(default="after_dbt", description="When it is due.", json_schema_extra=LATER)
    warnings: WarningsSpec = Field(
        default_factory=WarningsSpec, description="What to tell the channels of dinmo.yml.", json_schema_extra=LATER
    )
    guards: GuardsSpec = Field(default_factory=GuardsSpec, description="Ceilings a run must not pass.")
    api: Literal["auto", "bulk", "collections"] = Field(
        default="auto", description="How rows travel: by volume, always by Bulk API 2.0, or always 200 a call."
    )
    enabled: bool = Field(default=True, description="false: checked, never synced.")
    keep_before_images: bool = Field(
        default=False,
        description="Keep Salesforce's values from just before each run overwrites them, for `dinmo-dbt revert`.",
    )
    engine: Literal["arrow", "warehouse"] = Field(
        default="arrow", description="Where changes are computed.", json_schema_extra=LATER
    )
    missing_parent: Literal["hold", "reject"] | None = Field(
        default=None, description="A row whose parent record is not there yet waits, or fails.", json_schema_extra=LATER
    )
    auto_pause: Annotated[
        Any,
        PlainValidator(_pause_after),
        WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "integer", "minimum": 1, "maximum": 1000}]}),
    ] = Field(default=False, description="Pause after this many failed runs in a row.", json_schema_extra=LATER)
    quiet_hours: QuietHours | None = Field(
        default=None, description="No scheduled run starts between these times.", json_schema_extra=LATER
    )
    mute_until: Annotated[str, PlainValidator(_moment), WithJsonSchema({"type": "string"})] = Field(
        default="", description="No warnings before this date or time.", json_schema_extra=LATER
    )


def _names(value: object) -> object:
    """`key: id` as `[id]`."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise wrong_type("a column or a list of columns", value)
    if not value:
        raise wrong(NOT_ALLOWED, "expected a column or a list of columns, got an empty list")
    return value


class BlockSpec(Strict):
    """The `dinmo` block under a model's `config.meta`."""

    key: Annotated[
        list[Text],
        BeforeValidator(_names),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
    ] = Field(
        default_factory=list,
        description="The model's unique column, or columns: identity of a row between syncs. "
        "Default: the primary key that dbt knows from constraints or unique + not_null tests.",
    )
    segments: dict[Text, Text] = Field(
        default_factory=dict, description="Name: an SQL condition on the model, run by the warehouse."
    )
    activation: ActivationSpec | None = Field(default=None, description="One activation. Either this or `activations`.")
    activations: list[ActivationSpec] | None = Field(default=None, min_length=1, description="Several activations.")


def json_schema() -> dict[str, Any]:
    """JSON Schema of the `dinmo` block, for editors and for docs/meta.md."""
    schema = BlockSpec.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "config.meta.dinmo"
    mapped = schema["$defs"]["ActivationSpec"]["properties"]["fields"]["additionalProperties"]
    schema["$defs"]["ActivationSpec"]["properties"]["fields"]["additionalProperties"] = {
        "anyOf": [{"type": "string"}, mapped]
    }
    declaration.without_null(schema)
    return schema


def activation_keys() -> tuple[str, ...]:
    """Every key an activation may have, and so every key that `defaults` may."""
    return declaration.keys_at(ActivationSpec, ())
