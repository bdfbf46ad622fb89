"""The shape of the `dinmo` block under a model's `config.meta`: every key, its type, default and meaning.

`meta` checks what contradicts what. The JSON Schema that editors use and docs/meta.md are made from these types.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)

from dinmo_dbt.activation import Ceiling, Match, Schedule
from dinmo_dbt.codes import KEYS_CONFLICT, NOT_ALLOWED, REQUIRED_KEY, WRONG_TYPE
from dinmo_dbt.config import declaration
from dinmo_dbt.config.declaration import Strict, show, wrong, wrong_type
from dinmo_dbt.config.when import (
    CEILING_SCHEMA,
    PAUSE_AFTER,
    SPAN_SCHEMA,
    Moment,
    PauseAfter,
    QuietHoursSpec,
    ScheduleSpec,
    WarningsSpec,
    ceiling,
    span,
)

ACTIVATION_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}")
_FIELD_PATH = re.compile(r"(?:[A-Za-z][A-Za-z0-9_]{0,79}:)?[A-Za-z][A-Za-z0-9_]{0,79}\.[A-Za-z][A-Za-z0-9_]{0,79}")


Text = Annotated[str, BeforeValidator(declaration.text), StringConstraints(min_length=1, max_length=10_000)]


def _plain_field(value: object) -> str:
    """The API name of a field of the object itself."""
    text = declaration.text(value)
    if _FIELD_NAME.fullmatch(text):
        return text
    if "." in text:
        raise wrong(
            NOT_ALLOWED, f"{show(text)} is a path to another record; only a field of the object itself goes here"
        )
    raise wrong(NOT_ALLOWED, f"{show(text)} is not the API name of a field", hint=_label_hint(text))


def _field(value: object) -> str:
    """A field's API name, or a parent by a field of its own: `Customer__r.Customer_Id__c`, `Lead:Who.Email`."""
    text = declaration.text(value)
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
    text = declaration.text(value)
    if not _FIELD_NAME.fullmatch(text):
        raise wrong(NOT_ALLOWED, f"{show(text)} is not the API name of an object", hint=_label_hint(text))
    return text


def _activation_name(value: object) -> str:
    text = declaration.text(value)
    if not ACTIVATION_NAME.fullmatch(text):
        hint = "letters, digits, dots, dashes and underscores, at most 100"
        raise wrong(NOT_ALLOWED, f"{show(text)} can't be the name of an activation", hint=hint)
    return text


FieldPath = Annotated[str, PlainValidator(_field), WithJsonSchema({"type": "string"})]
PlainField = Annotated[str, PlainValidator(_plain_field), WithJsonSchema({"type": "string"})]


Limit = Annotated[Ceiling, PlainValidator(ceiling), WithJsonSchema(CEILING_SCHEMA)]


_AUDITED_ROWS = re.compile(r"(\d{1,12}) rows?")


def audited(value: object) -> Ceiling:
    """`off`, a share such as 1%, or a number of rows such as 2000 rows; zero of any is off."""
    if value is False or value in ("off", "0") or (type(value) is int and value == 0):  # YAML reads off as false
        return Ceiling(rows=0)
    if isinstance(value, str):
        if rows := _AUDITED_ROWS.fullmatch(value.strip()):
            return Ceiling(rows=int(rows[1]))
        if value.strip().endswith("%"):
            share = declaration.percent(value.strip())
            return Ceiling(percent=share) if share else Ceiling(rows=0)
    raise wrong_type("off, a share such as 1%, or a number of rows such as 2000 rows", value)


Audit = Annotated[
    Ceiling,
    PlainValidator(audited),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": r"^([0-9]+ rows?|[0-9.]+%|off|0)$"}, {"enum": [False, 0]}]}
    ),
]


def _scalar(value: object) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong(NOT_ALLOWED, f"{declaration.kind(value)} can't be sent")
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return declaration.text(value) if value else ""
    raise wrong_type("text, a number, true, false or null", value)


Scalar = Annotated[Any, PlainValidator(_scalar), WithJsonSchema({"type": ["string", "number", "boolean", "null"]})]


class FieldSpec(Strict):
    """The long form of one mapped field."""

    field: FieldPath = Field(description="The Salesforce field, or a parent by a field of its own.")
    nulls: Literal["clear", "keep"] = Field(
        default="clear", description="What a null does: empties the field in Salesforce, or leaves it as it is."
    )
    write: Literal["always", "on_create", "if_empty"] = Field(
        default="always",
        description="When the field is written: always; only on a new record, or only while empty in Salesforce "
        "(both: later).",
    )


def _field_spec(value: object) -> object:
    if isinstance(value, str):
        return {"field": value}
    if not isinstance(value, Mapping):
        raise wrong_type("a field name, or a mapping with `field`", value)
    return value


def _each_field(value: object, one: ValidatorFunctionWrapHandler) -> tuple[FieldSpec, ...]:
    """What one column feeds: a field, or several of a list."""
    if not isinstance(value, list):
        return (one(value),)
    if not value:
        raise wrong(NOT_ALLOWED, "expected a field or a list of fields, got an empty list")
    return tuple(FieldSpec(field=_field(each)) for each in value)


# The fields that one column feeds, as a tuple.
MappedFields = Annotated[FieldSpec, BeforeValidator(_field_spec), WrapValidator(_each_field)]


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
        raise wrong(
            KEYS_CONFLICT, f"expected exactly one column, got {len(columns)}{names}", hint=hint if columns else ""
        )
    ((column, field),) = columns.items()
    return Match(column=declaration.text(column), field=_plain_field(field), create=create)


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
    """A percentage of the rows synced before (at least 10 rows), or an absolute number of rows. Each holds for one run,
    and for a day."""

    max_delete: Limit = Field(
        default=Ceiling(percent=Decimal(1)),
        description="Most records that may be deleted, or set by `on_removed`. In `mode: delete` an absolute number, "
        "always given.",
        json_schema_extra={"default": "1%"},
    )
    max_change: Limit = Field(
        default=Ceiling(percent=Decimal(50)),
        description="Most known rows that may be written again: changed, back in the segment, or sent again; a "
        "percentage from 1,000 known rows up, but of an insert always.",
        json_schema_extra={"default": "50%"},
    )
    max_created: Limit = Field(
        default=Ceiling(percent=Decimal(75)),
        description="Most new rows beside those that are known; a percentage from 1,000 known rows up. A first sync is "
        "not held by it.",
        json_schema_extra={"default": "75%"},
    )
    max_replaced: Limit = Field(
        default=Ceiling(percent=Decimal(50)),
        description="Most known keys that may leave while as many new ones come: so it looks where a key changes its "
        "spelling.",
        json_schema_extra={"default": "50%"},
    )


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
            raise wrong(REQUIRED_KEY, "`set` names no field", hint=hint)
        return spec
    raise wrong(WRONG_TYPE, f"expected text or a mapping, got {declaration.kind(value)}", hint=hint)


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
    fields: dict[Text, MappedFields] = Field(
        default_factory=dict,
        description="Model column: Salesforce field, a parent by a field of its own (`Customer__r.Customer_Id__c`), or "
        "a list of these, all of which it feeds.",
    )
    constants: dict[PlainField, Scalar] = Field(
        default_factory=dict,
        description="Salesforce field: the same value for every row; null empties it. Text, a date and a time stand "
        "in quotes: YAML reads a bare `NO` as false, `0755` as 493.",
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
    schedule: ScheduleSpec = Field(
        default=Schedule(),
        description="When it is due, for `sync --due` and `serve`: after each dbt command that built the model, at "
        "intervals (counted from midnight UTC of 1970-01-01), by a cron line, or never by itself.",
        json_schema_extra={"default": "after_dbt"},
    )
    quiet_hours: QuietHoursSpec | None = Field(
        default=None, description="No run that is due starts between these times; it starts when they are over."
    )
    auto_pause: PauseAfter = Field(
        default=PAUSE_AFTER,
        description="Pause after this many runs in a row that fail for a reason that lasts: the object or field is "
        "gone, credentials are refused, a permission is missing.",
        json_schema_extra={"default": PAUSE_AFTER},
    )
    warnings: WarningsSpec = Field(default_factory=WarningsSpec, description="What to tell the channels of dinmo.yml.")
    mute_until: Moment | None = Field(default=None, description="No warnings before this date or time.")
    guards: GuardsSpec = Field(default_factory=GuardsSpec, description="Ceilings a run must not pass.")
    api: Literal["auto", "bulk", "collections"] = Field(
        default="auto", description="How rows travel: by volume, always by Bulk API 2.0, or always 200 a call."
    )
    enabled: bool = Field(default=True, description="false: checked, never synced.")
    shares_object_with: list[str] = Field(
        default_factory=list,
        description="Other activations that write the same object, and are meant to: a record that one of them holds "
        "is never deleted or set by this one.",
    )
    keep_before_images: bool = Field(
        default=False,
        description="Keep Salesforce's values from just before each run overwrites them, for `dinmo-dbt revert`.",
    )
    audit: Audit = Field(
        default=Ceiling(rows=200),
        description="After each run, so many rows are compared by value with the model and with Salesforce, drawn from "
        "those called unchanged and those just delivered: a number of rows, a share of the known ones, or off (0). Up "
        "to 200 take one API call.",
        json_schema_extra={"default": "200 rows"},
    )
    give_up_after: Annotated[float, PlainValidator(span), WithJsonSchema(SPAN_SCHEMA)] | None = Field(
        default=None,
        description="For how long a row that Salesforce refuses is tried again: `30 days`. Then it no longer counts as "
        "refused; it is tried when its values change, and by `retry`. Without it: until it is delivered.",
    )
    engine: Literal["arrow", "warehouse"] = Field(
        default="arrow", description="Where changes are computed (`warehouse`: later)."
    )
    missing_parent: Literal["hold", "reject", "set_null"] = Field(
        default="hold",
        description="A row whose parent record is not there: it waits; it counts as rejected; or it goes without its "
        "parent, and once more when that is there (an insert does not write it again).",
    )

    @property
    def mapped(self) -> Iterator[tuple[str, tuple[str | int, ...], FieldSpec]]:
        """Each column with each field that it feeds: the column, the way to the field, the field."""
        for column, given in self.fields.items():
            specs = cast(tuple[FieldSpec, ...], given)
            for number, spec in enumerate(specs):
                yield column, ("fields", column, *([number] if len(specs) > 1 else [])), spec


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
        "Default: the primary key that dbt knows from constraints or unique + not_null tests; of a snapshot, its "
        "`unique_key`.",
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
        "anyOf": [{"type": "string"}, mapped, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
    }
    declaration.without_null(schema)
    return schema


def activation_keys() -> tuple[str, ...]:
    """Every key an activation may have, and so every key that `defaults` may."""
    return declaration.keys_at(ActivationSpec, ())
